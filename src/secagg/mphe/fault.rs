//! Why a key set-up or a round came to nothing.

use std::fmt;

use super::session::{KeyPhase, Phase};
use crate::he::HeError;

/// What a holder did in a key set-up. All but the first are proved by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Misdeed {
    /// It was not heard in time.
    Silent = 1,
    /// Its X25519 key is of low order, or that of another holder.
    Channel = 2,
    /// Its commitment is that of another holder.
    Commitment = 3,
    /// Its contribution is malformed, zero, or not what it has committed to.
    Contribution = 4,
    /// A share that it has encrypted is none: either the dealer or the accuser lies.
    Share = 5,
    /// The contributions of all cancel.
    Cancelled = 6,
    /// The set-up was ended by the server.
    Ended = 7,
}

impl Misdeed {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Silent,
            2 => Self::Channel,
            3 => Self::Commitment,
            4 => Self::Contribution,
            5 => Self::Share,
            6 => Self::Cancelled,
            7 => Self::Ended,
            _ => return None,
        })
    }
}

impl fmt::Display for Misdeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "not heard in time",
            Self::Channel => "an X25519 key of low order, or that of another holder",
            Self::Commitment => "the commitment of another holder",
            Self::Contribution => "a contribution that is malformed, zero, or not the committed one",
            Self::Share => "an encrypted share that is none",
            Self::Cancelled => "contributions that cancel",
            Self::Ended => "ended by the server",
        })
    }
}

/// Why there is no key: who, when and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// When.
    pub phase: KeyPhase,
    /// The holders; empty if nobody in particular.
    pub holders: Vec<u16>,
    /// What they did.
    pub misdeed: Misdeed,
    /// Who says so, where it cannot be checked by others.
    pub accuser: Option<u16>,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no key: {} in the phase {:?}", self.misdeed, self.phase)?;
        match self.holders[..] {
            [] => {}
            [holder] => write!(f, ", by key holder {holder}")?,
            _ => {
                let list: Vec<String> = self.holders.iter().map(u16::to_string).collect();
                write!(f, ", by key holders {}", list.join(", "))?;
            }
        }
        self.accuser.map_or(Ok(()), |accuser| write!(f, " (says key holder {accuser})"))
    }
}

impl std::error::Error for KeyFault {}

/// Why a round has no sum.
#[derive(Clone, Debug, PartialEq)]
pub enum RoundFault {
    /// Fewer clients delivered than are added up.
    Clients {
        /// Clients that delivered.
        found: usize,
        /// Least number.
        needed: usize,
    },
    /// Fewer holders than are needed have signed or answered.
    Holders {
        /// When.
        phase: Phase,
        /// Holders that are left.
        found: usize,
        /// t.
        needed: usize,
        /// Those that were not heard in time.
        silent: Vec<u16>,
    },
    /// All sets of holders that the plan has room for were asked, and a holder of each was silent.
    Sets {
        /// Sets asked.
        asked: u64,
        /// Holders that were silent.
        silent: Vec<u16>,
    },
    /// The parts give no sum: one is wrong. Which one does not show, since they are masked in pairs.
    Parts(HeError),
    /// A kernel failed.
    Backend(HeError),
}

fn list(holders: &[u16]) -> String {
    holders.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for RoundFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients { found, needed } => write!(f, "{found} clients delivered, at least {needed} are added up"),
            Self::Holders { phase, found, needed, silent } => {
                write!(f, "{found} key holders are left in the phase {phase:?}, {needed} are needed")?;
                if silent.is_empty() { Ok(()) } else { write!(f, "; not heard in time: {}", list(silent)) }
            }
            Self::Sets { asked, silent } => {
                write!(
                    f,
                    "{asked} sets of key holders were asked, as many as planned; not heard in time: {}",
                    list(silent)
                )
            }
            Self::Parts(error) => write!(f, "the parts of the opening give no sum: {error}"),
            Self::Backend(error) => write!(f, "a kernel failed: {error}"),
        }
    }
}
