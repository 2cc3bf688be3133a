//! What a client lets be done with its data: `policy.json`.
//!
//! The server proposes, the client decides. Before a client answers anything about a round, its driver fills an [`Offer`] from the
//! server's signed plan and asks [`Policy::check`]. Every reason against the round is a [`Refusal`] that says what was offered, what
//! is allowed, and which key of the file says so. Reasons are for whoever owns the data: a server is told that the client
//! refused, and no more, since a limit says something about the client.
//!
//! A file may be `{}`; every key has a default (see [`Policy`]), and all defaults are private: no protocol in which the server
//! sees single vectors, no run without differential privacy, none whose noise somebody else would have to add.
//!
//! What a policy cannot do: it believes the signed plan. That the noise of other clients is there, that they are different people,
//! and that the numbers of the account are right is what protocols and the accountant have to show.

mod clock;
mod fingerprint;
mod offer;
mod refusal;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::clock::{Clock, LocalTime, Weekday, Window};
pub use self::fingerprint::{Fingerprint, RosterPin, changed_keys};
pub use self::offer::{AlgorithmName, HolderOffer, Offer, ProtocolName};
pub use self::refusal::{Refusal, listed};
use crate::config::MechanismName;
use crate::fl::plan::NoisePlacement;
use crate::privacy::View;

/// Most bytes of a policy file: 1 MiB.
pub const MAX_BYTES: u64 = 1 << 20;

/// Most epsilon where the file says nothing: above it a guarantee is called weak (Ponomareva et al. 2023, section 5.2, tier 2).
pub const DEFAULT_MAX_EPSILON: f64 = 10.0;

/// Most delta where the file says nothing.
pub const DEFAULT_MAX_DELTA: f64 = 1e-5;

/// The client's last word on its data. Every key may be absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For editors: where the JSON schema of this file is.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Lines for whoever reads the file; no meaning.
    #[serde(rename = "$comment", skip_serializing_if = "Vec::is_empty")]
    pub comment: Vec<String>,
    /// Whose view `max_epsilon` is about: `server` knows who takes part, `public` sees releases only. Default `server`.
    #[schemars(schema_with = "view_schema")]
    pub view: View,
    /// The least number of vectors that may be opened together, >= 1. Under `plain`, where it is allowed, the server sees each of them
    /// all the same. Default 2.
    pub min_cohort: u64,
    /// The most epsilon over all rounds that this client has been asked for, the present one with them, > 0; of private runs.
    /// Default 10.
    pub max_epsilon: f64,
    /// The most delta at which that epsilon may be stated, in (0, 1). Default 1e-5.
    pub max_delta: f64,
    /// Protocols that may add the vectors. Default: all in which the server sees the sum alone (`masks`, `oneshot`, `mphe`).
    pub protocols: Vec<ProtocolName>,
    /// Mechanisms; `none` and `quantized` are no privacy, and naming one says that this is fine. Absent: any private one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanisms: Option<Vec<MechanismName>>,
    /// Who adds the noise: `per_client`, the clients each their share, or `aggregate`, which also allows that a server adds it,
    /// whom the client then trusts. Default `per_client`.
    pub noise: NoisePlacement,
    /// Names of models that may be trained, as `veilsum` prints them (`digits_mlp`, `64-32-10`). Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Most parameters of a model, >= 1. Absent: as many as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parameters: Option<u64>,
    /// Algorithms. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<AlgorithmName>>,
    /// Most rounds of a run, >= 1. Absent: as many as its epsilon allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rounds: Option<u32>,
    /// Most passes over the client's data in a round, >= 1. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<u32>,
    /// Least time between two rounds of this client, in seconds, >= 1. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_interval_seconds: Option<u64>,
    /// What is asked of the key holders of `oneshot` and `mphe`: at least `min_holders` (3), of whom a share of at least
    /// `min_needed_share` (0.5) has to open together, and at least `min_corrupt` (1) may be in league with the server without harm.
    pub holders: HolderRule,
    /// SHA-256 of the certificate of the authority that the server's certificate has to come from. Absent: the one in the
    /// client's own folder of keys, whichever it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<Fingerprint>,
    /// The roster of clients' public keys: its SHA-256; `first`, to trust the first one and refuse that a known client's key
    /// changes; or `any`. Default `first`.
    pub roster: RosterPin,
    /// When this client trains, by its local time: `[{"from": "22:00", "to": "06:00", "days": ["sat", "sun"]}]`. Absent: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Vec<Window>>,
}

/// What is asked of those who hold the shares of a key.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HolderRule {
    /// Least number of holders, K, 1 to 256. Default 3.
    pub min_holders: u16,
    /// Least share of them without whom nothing is opened, t / K, in (0, 1]. Default 0.5.
    pub min_needed_share: f64,
    /// Least number of holders that may be in league with the server without harm, f, below `min_holders`. Default 1.
    pub min_corrupt: u16,
}

impl Default for HolderRule {
    fn default() -> Self {
        Self { min_holders: 3, min_needed_share: 0.5, min_corrupt: 1 }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            schema: None,
            comment: Vec::new(),
            view: View::Server,
            min_cohort: 2,
            max_epsilon: DEFAULT_MAX_EPSILON,
            max_delta: DEFAULT_MAX_DELTA,
            protocols: vec![ProtocolName::Masks, ProtocolName::Oneshot, ProtocolName::Mphe],
            mechanisms: None,
            noise: NoisePlacement::PerClient,
            models: None,
            max_parameters: None,
            algorithms: None,
            max_rounds: None,
            max_epochs: None,
            least_interval_seconds: None,
            holders: HolderRule::default(),
            authority: None,
            roster: RosterPin::First,
            hours: None,
        }
    }
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("{} holds more than {limit} bytes: it is no policy", path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// Most bytes.
        limit: u64,
    },
    /// It is no JSON, has an unknown key, or a value of another type.
    #[error("{}{}: {source}", path.display(), at(key))]
    Json {
        /// The file.
        path: PathBuf,
        /// The place in it; `.` is all of it.
        key: String,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A value outside its range, or against another one.
    #[error("{} at `{key}`: {found}, expected {expected}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },
}

/// The place of an error, where it has one.
fn at(key: &str) -> impl fmt::Display {
    if key == "." { String::new() } else { format!(" at `{key}`") }
}

/// A key whose value is wrong: key, found, expected.
type Wrong = (&'static str, String, String);

impl Policy {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`PolicyError`] names the file, the key, and what would be right there.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let io = |source| PolicyError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(io)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(PolicyError::Long { path: path.to_owned(), limit: MAX_BYTES });
        }
        Self::from_json(&text, path)
    }

    /// Reads and checks the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self, PolicyError> {
        let policy: Self = typed(text, path)?;
        match policy.wrong() {
            None => Ok(policy),
            Some((key, found, expected)) => Err(PolicyError::Value { path: path.to_owned(), key, found, expected }),
        }
    }

    /// The first value that is outside its range or against another one.
    fn wrong(&self) -> Option<Wrong> {
        self.wrong_numbers().or_else(|| self.wrong_lists()).or_else(|| self.wrong_holders())
    }

    fn wrong_numbers(&self) -> Option<Wrong> {
        if !(self.max_epsilon > 0.0 && self.max_epsilon.is_finite()) {
            return Some(("max_epsilon", self.max_epsilon.to_string(), "a finite number above 0".into()));
        }
        if !(self.max_delta > 0.0 && self.max_delta < 1.0) {
            return Some(("max_delta", self.max_delta.to_string(), "in (0, 1)".into()));
        }
        let counts = [
            ("min_cohort", Some(self.min_cohort)),
            ("max_parameters", self.max_parameters),
            ("max_rounds", self.max_rounds.map(u64::from)),
            ("max_epochs", self.max_epochs.map(u64::from)),
            ("least_interval_seconds", self.least_interval_seconds),
        ];
        let zero = counts.iter().find(|(_, count)| *count == Some(0));
        zero.map(|(key, _)| (*key, "0".into(), "at least 1".into()))
    }

    fn wrong_lists(&self) -> Option<Wrong> {
        let lists = [
            ("protocols", Some(repeated(&self.protocols))),
            ("mechanisms", self.mechanisms.as_deref().map(repeated)),
            ("models", self.models.as_deref().map(repeated)),
            ("algorithms", self.algorithms.as_deref().map(repeated)),
            ("hours", self.hours.as_deref().map(repeated)),
        ];
        for (key, state) in lists {
            match state {
                Some(Items::Nothing) => {
                    return Some((
                        key,
                        "an empty list, which allows nothing".into(),
                        "at least one, or no such key".into(),
                    ));
                }
                Some(Items::Twice(name)) => return Some((key, format!("{name} twice"), "each once".into())),
                Some(Items::Good) | None => {}
            }
        }
        let windows = self.hours.iter().flatten();
        let (expected, found) = windows.filter_map(Window::wrong).next()?;
        Some(("hours", found, expected.into()))
    }

    fn wrong_holders(&self) -> Option<Wrong> {
        let HolderRule { min_holders, min_needed_share, min_corrupt } = self.holders;
        if !(1..=256).contains(&min_holders) {
            return Some(("holders.min_holders", min_holders.to_string(), "1 to 256".into()));
        }
        if !(min_needed_share > 0.0 && min_needed_share <= 1.0) {
            return Some(("holders.min_needed_share", min_needed_share.to_string(), "in (0, 1]".into()));
        }
        (min_corrupt >= min_holders).then(|| {
            ("holders.min_corrupt", min_corrupt.to_string(), format!("below `holders.min_holders`, {min_holders}"))
        })
    }

    /// Whether a run without differential privacy is allowed under this mechanism.
    fn allows(&self, mechanism: MechanismName) -> bool {
        self.mechanisms.as_ref().map_or(offer::is_private(mechanism), |allowed| allowed.contains(&mechanism))
    }

    /// Says whether the client takes part.
    ///
    /// # Errors
    /// Every reason against it, in the order of the keys; an offer that contradicts itself is the first.
    pub fn check(&self, offer: &Offer) -> Result<(), Vec<Refusal>> {
        let mut refusals = offer.contradictions();
        self.check_privacy(offer, &mut refusals);
        self.check_sum(offer, &mut refusals);
        self.check_work(offer, &mut refusals);
        self.check_time(offer, &mut refusals);
        self.check_identities(offer, &mut refusals);
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    fn check_privacy(&self, offer: &Offer, refusals: &mut Vec<Refusal>) {
        let offered = offer.mechanism;
        if !self.allows(offered) {
            refusals.push(match &self.mechanisms {
                Some(allowed) => Refusal::Mechanism { offered, allowed: allowed.clone() },
                None => Refusal::NotPrivate { offered },
            });
        }
        // A run without privacy has no epsilon: the mechanism says all.
        if !offer.private {
            return;
        }
        let epsilon = match self.view {
            View::Server => offer.epsilon_server,
            View::Public => offer.epsilon_public,
        };
        // NaN is above every limit.
        if !epsilon.is_some_and(|epsilon| epsilon <= self.max_epsilon) {
            refusals.push(Refusal::Epsilon { offered: epsilon, most: self.max_epsilon, view: self.view });
        }
        if offer.delta.is_nan() || offer.delta > self.max_delta {
            refusals.push(Refusal::Delta { offered: offer.delta, most: self.max_delta });
        }
        if offer.noise == NoisePlacement::Aggregate && self.noise == NoisePlacement::PerClient {
            refusals.push(Refusal::Noise);
        }
    }

    fn check_sum(&self, offer: &Offer, refusals: &mut Vec<Refusal>) {
        let opened = offer.threshold.min(offer.cohort);
        if opened < self.min_cohort {
            refusals.push(Refusal::Cohort { offered: opened, least: self.min_cohort });
        }
        if !self.protocols.contains(&offer.protocol) {
            refusals.push(Refusal::Protocol { offered: offer.protocol, allowed: self.protocols.clone() });
        }
        let Some(HolderOffer { holders, needed, corrupt }) = offer.holders else { return };
        let rule = self.holders;
        if holders < rule.min_holders {
            refusals.push(Refusal::Holders { offered: holders, least: rule.min_holders });
        }
        if f64::from(needed) < rule.min_needed_share * f64::from(holders) {
            refusals.push(Refusal::Needed { needed, holders, least: rule.min_needed_share });
        }
        if corrupt < rule.min_corrupt {
            refusals.push(Refusal::Corrupt { offered: corrupt, least: rule.min_corrupt });
        }
    }

    fn check_work(&self, offer: &Offer, refusals: &mut Vec<Refusal>) {
        if let Some(allowed) = self.models.as_ref().filter(|allowed| !allowed.contains(&offer.model)) {
            refusals.push(Refusal::Model { offered: offer.model.clone(), allowed: allowed.clone() });
        }
        if let Some(most) = self.max_parameters.filter(|&most| offer.parameters > most) {
            refusals.push(Refusal::Parameters { offered: offer.parameters, most });
        }
        if let Some(allowed) = self.algorithms.as_ref().filter(|allowed| !allowed.contains(&offer.algorithm)) {
            refusals.push(Refusal::Algorithm { offered: offer.algorithm, allowed: allowed.clone() });
        }
        if let Some(most) = self.max_rounds.filter(|&most| offer.rounds > most) {
            refusals.push(Refusal::Rounds { offered: offer.rounds, most });
        }
        if let (Some(offered), Some(most)) = (offer.epochs, self.max_epochs)
            && offered > most
        {
            refusals.push(Refusal::Epochs { offered, most });
        }
    }

    fn check_time(&self, offer: &Offer, refusals: &mut Vec<Refusal>) {
        if let (Some(least), Some(previous)) = (self.least_interval_seconds, offer.previous) {
            // A clock that went back counts as no time.
            let passed = offer.now.saturating_sub(previous);
            if passed < least {
                refusals.push(Refusal::Interval { passed, least });
            }
        }
        if let Some(hours) = self.hours.as_ref().filter(|hours| !hours.iter().any(|window| window.has(offer.local))) {
            refusals.push(Refusal::Hours { now: offer.local, hours: hours.clone() });
        }
    }

    fn check_identities(&self, offer: &Offer, refusals: &mut Vec<Refusal>) {
        if let Some(pinned) = self.authority.filter(|&pinned| pinned != offer.authority) {
            refusals.push(Refusal::Authority { offered: offer.authority, pinned });
        }
        match self.roster {
            RosterPin::Any => {}
            RosterPin::First if offer.changed.is_empty() => {}
            RosterPin::First => {
                refusals.push(Refusal::KeysChanged { clients: offer.changed.clone(), offered: offer.roster });
            }
            RosterPin::Pinned(pinned) if pinned == offer.roster => {}
            RosterPin::Pinned(pinned) => refusals.push(Refusal::Roster { offered: offer.roster, pinned }),
        }
    }

    /// The JSON schema of the file.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

/// JSON of a type, with the place of an error; `path` is for messages.
///
/// # Errors
/// [`PolicyError::Json`].
pub fn typed<T: serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, PolicyError> {
    let json = |key: String, source| PolicyError::Json { path: path.to_owned(), key, source };
    // A structure would be read from a list too, and from an empty one with its defaults alone.
    serde_json::from_str::<serde_json::Map<_, _>>(text).map_err(|e| json(".".into(), e))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value =
        serde_path_to_error::deserialize(&mut reader).map_err(|e| json(e.path().to_string(), e.into_inner()))?;
    reader.end().map_err(|e| json(".".into(), e))?;
    Ok(value)
}

/// What a list of allowed things is.
enum Items {
    Good,
    Nothing,
    Twice(String),
}

fn repeated<T: PartialEq + Serialize>(items: &[T]) -> Items {
    if items.is_empty() {
        return Items::Nothing;
    }
    let twice = items.iter().enumerate().find(|(i, item)| items[..*i].contains(item));
    twice.map_or(Items::Good, |(_, item)| Items::Twice(refusal::json(item)))
}

fn view_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "enum": ["server", "public"] })
}

#[cfg(test)]
mod tests;
