//! Why a client does not take part.

use std::fmt;

use serde::Serialize;

use super::{AlgorithmName, Fingerprint, LocalTime, ProtocolName, Window};
use crate::config::MechanismName;
use crate::privacy::View;

/// A reason against a round. As text: what was offered, what the policy allows, the key that says so, and the line that would allow
/// it where a line can.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A plan that contradicts itself.
    #[error("the plan contradicts itself: {found}, expected {what}; no key of policy.json allows that")]
    Contradiction {
        /// What has to hold.
        what: &'static str,
        /// What was offered.
        found: String,
    },
    /// No differential privacy.
    #[error("the run has mechanism {}, which is no privacy, and `mechanisms` of policy.json names none such{}", json(.offered), self.hint())]
    NotPrivate {
        /// The mechanism.
        offered: MechanismName,
    },
    /// A mechanism that is not named.
    #[error("the run has mechanism {}, and `mechanisms` of policy.json allows {}{}", json(.offered), json(.allowed), self.hint())]
    Mechanism {
        /// The mechanism.
        offered: MechanismName,
        /// Those allowed.
        allowed: Vec<MechanismName>,
    },
    /// Too much epsilon.
    #[error("after this round epsilon would be {} in the {} view (`view`), and `max_epsilon` of policy.json is {most}{}", bound(*.offered), .view.name(), self.hint())]
    Epsilon {
        /// Over all rounds with this one; `None` without a bound.
        offered: Option<f64>,
        /// The most.
        most: f64,
        /// Whose view.
        view: View,
    },
    /// Too much delta.
    #[error("the epsilon of the run is stated at delta {offered:e}, and `max_delta` of policy.json is {most:e}{}", self.hint())]
    Delta {
        /// The delta.
        offered: f64,
        /// The most.
        most: f64,
    },
    /// Noise that somebody else adds.
    #[error("the server adds the noise, and `noise` of policy.json is \"per_client\": this client adds its share itself{}", self.hint())]
    Noise,
    /// Too few vectors together.
    #[error("as few as {offered} vectors would be opened together, and `min_cohort` of policy.json is {least}{}", self.hint())]
    Cohort {
        /// The least number that is opened.
        offered: u64,
        /// The least number allowed.
        least: u64,
    },
    /// A protocol that is not named.
    #[error("the vectors are added under {}{}, and `protocols` of policy.json allows {}{}", json(.offered), plain(*.offered), json(.allowed), self.hint())]
    Protocol {
        /// The protocol.
        offered: ProtocolName,
        /// Those allowed.
        allowed: Vec<ProtocolName>,
    },
    /// Too few key holders.
    #[error("there are {offered} key holders, and `holders.min_holders` of policy.json is {least}")]
    Holders {
        /// K.
        offered: u16,
        /// The least.
        least: u16,
    },
    /// Too few of them are needed to open a sum.
    #[error("{needed} of {holders} key holders open a sum, and `holders.min_needed_share` of policy.json is {least}")]
    Needed {
        /// t.
        needed: u16,
        /// K.
        holders: u16,
        /// The least t / K.
        least: f64,
    },
    /// Too few of them may be corrupt.
    #[error(
        "the sum is protected from {offered} corrupt key holders, and `holders.min_corrupt` of policy.json is {least}"
    )]
    Corrupt {
        /// f.
        offered: u16,
        /// The least.
        least: u16,
    },
    /// A model that is not named.
    #[error("the model is {}, and `models` of policy.json allows {}{}", json(.offered), json(.allowed), self.hint())]
    Model {
        /// Its name.
        offered: String,
        /// Those allowed.
        allowed: Vec<String>,
    },
    /// A model that is too large.
    #[error("the model has {offered} parameters, and `max_parameters` of policy.json is {most}{}", self.hint())]
    Parameters {
        /// Its parameters.
        offered: u64,
        /// The most.
        most: u64,
    },
    /// An algorithm that is not named.
    #[error("the algorithm is {}, and `algorithms` of policy.json allows {}{}", json(.offered), json(.allowed), self.hint())]
    Algorithm {
        /// The algorithm.
        offered: AlgorithmName,
        /// Those allowed.
        allowed: Vec<AlgorithmName>,
    },
    /// Too many rounds.
    #[error("the run has {offered} rounds, and `max_rounds` of policy.json is {most}{}", self.hint())]
    Rounds {
        /// Rounds of the run.
        offered: u32,
        /// The most.
        most: u32,
    },
    /// Too many passes over the data.
    #[error("a round is {offered} epochs, and `max_epochs` of policy.json is {most}{}", self.hint())]
    Epochs {
        /// Passes a round.
        offered: u32,
        /// The most.
        most: u32,
    },
    /// Too soon.
    #[error(
        "this client took part {passed} s ago, and `least_interval_seconds` of policy.json is {least}: it can later"
    )]
    Interval {
        /// Seconds since.
        passed: u64,
        /// The least.
        least: u64,
    },
    /// Not now.
    #[error("it is {now} here, and `hours` of policy.json is {}: it can later", listed(.hours))]
    Hours {
        /// The local time.
        now: LocalTime,
        /// The windows.
        hours: Vec<Window>,
    },
    /// Another authority.
    #[error(
        "the server's certificate comes from the authority {offered}, and `authority` of policy.json is {pinned}: \
        find out who that is before you change the file"
    )]
    Authority {
        /// The authority.
        offered: Fingerprint,
        /// The one that is pinned.
        pinned: Fingerprint,
    },
    /// Another roster.
    #[error(
        "the roster of clients is {offered}, and `roster` of policy.json is {pinned}: \
        find out who has joined before you change the file"
    )]
    Roster {
        /// Its hash.
        offered: Fingerprint,
        /// The one that is pinned.
        pinned: Fingerprint,
    },
    /// A known client with another key.
    #[error("the roster {offered} has other keys than before for these clients: {}; and `roster` of policy.json is \"first\": \
        find out whether that is right, then name this roster in the place of \"first\"", listed(.clients))]
    KeysChanged {
        /// Whose keys.
        clients: Vec<u64>,
        /// The roster's hash.
        offered: Fingerprint,
    },
}

impl Refusal {
    /// The key of policy.json that says so; `None` of a plan that contradicts itself.
    #[must_use]
    pub const fn key(&self) -> Option<&'static str> {
        Some(match self {
            Self::Contradiction { .. } => return None,
            Self::NotPrivate { .. } | Self::Mechanism { .. } => "mechanisms",
            Self::Epsilon { .. } => "max_epsilon",
            Self::Delta { .. } => "max_delta",
            Self::Noise => "noise",
            Self::Cohort { .. } => "min_cohort",
            Self::Protocol { .. } => "protocols",
            Self::Holders { .. } => "holders.min_holders",
            Self::Needed { .. } => "holders.min_needed_share",
            Self::Corrupt { .. } => "holders.min_corrupt",
            Self::Model { .. } => "models",
            Self::Parameters { .. } => "max_parameters",
            Self::Algorithm { .. } => "algorithms",
            Self::Rounds { .. } => "max_rounds",
            Self::Epochs { .. } => "max_epochs",
            Self::Interval { .. } => "least_interval_seconds",
            Self::Hours { .. } => "hours",
            Self::Authority { .. } => "authority",
            Self::Roster { .. } | Self::KeysChanged { .. } => "roster",
        })
    }

    /// True if the same round may be allowed at another time, without a change of the policy.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Interval { .. } | Self::Hours { .. })
    }

    /// The line of policy.json that would allow it. `None` where no line can or where one should not be written without finding out
    /// more: who is who, who holds keys, when to train.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let value = match self {
            Self::NotPrivate { offered } => json(&[offered]),
            Self::Mechanism { offered, allowed } => with(allowed, offered),
            Self::Epsilon { offered, .. } => json(&offered.filter(|epsilon| epsilon.is_finite() && *epsilon > 0.0)?),
            Self::Delta { offered, .. } => json(&Some(*offered).filter(|delta| *delta > 0.0 && *delta < 1.0)?),
            Self::Noise => json("aggregate"),
            Self::Cohort { offered, .. } => json(&Some(offered).filter(|offered| **offered > 0)?),
            Self::Protocol { offered, allowed } => with(allowed, offered),
            Self::Model { offered, allowed } => with(allowed, offered),
            Self::Parameters { offered, .. } => json(offered),
            Self::Algorithm { offered, allowed } => with(allowed, offered),
            Self::Rounds { offered, .. } | Self::Epochs { offered, .. } => json(offered),
            Self::Contradiction { .. }
            | Self::Holders { .. }
            | Self::Needed { .. }
            | Self::Corrupt { .. }
            | Self::Interval { .. }
            | Self::Hours { .. }
            | Self::Authority { .. }
            | Self::Roster { .. }
            | Self::KeysChanged { .. } => return None,
        };
        Some(format!("\"{}\": {value}", self.key()?))
    }

    fn hint(&self) -> String {
        self.line().map_or_else(String::new, |line| format!("; the line {line} would allow it"))
    }
}

/// Epsilon in words.
fn bound(epsilon: Option<f64>) -> String {
    epsilon.map_or_else(|| "without a bound".into(), |epsilon| format!("{epsilon}"))
}

/// What `plain` means.
const fn plain(protocol: ProtocolName) -> &'static str {
    if matches!(protocol, ProtocolName::Plain) { ", where the server sees this client's own vector" } else { "" }
}

/// As the file writes it. What is written here always can be.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A list with one more.
fn with<T: Serialize>(allowed: &[T], offered: &T) -> String {
    json(&allowed.iter().chain([offered]).collect::<Vec<_>>())
}

/// Joined by commas; of a long list the first ten.
#[must_use]
pub fn listed<T: fmt::Display>(items: &[T]) -> String {
    const MOST: usize = 10;
    let mut text = items.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > MOST {
        text.push_str(&format!(" and {} more", items.len() - MOST));
    }
    text
}
