//! Federated learning without I/O: who takes part, what a client sends, what the server makes of it.
//!
//! The [`coordinator`] is a state machine: the driver (`sim` today) performs its actions and feeds back
//! frames and results.

pub mod adaptive;
pub mod asynchrony;
pub mod attack;
pub mod checkpoint;
pub mod client;
mod client_clip;
pub mod cohort;
pub mod compress;
pub mod coordinator;
mod correlated;
pub mod dp_sgd;
pub mod dropout;
pub mod groups;
pub mod magnitude;
pub mod notice;
pub mod nova;
pub mod optimizer;
pub mod plan;
pub mod protocol;
pub mod replay;
pub mod rule;
pub mod samples;
pub mod scaffold;
pub mod spend;

use crate::backend::BackendError;
use crate::model::ModelError;
use crate::privacy::ledger::LedgerError;
use crate::privacy::mechanism::PrivacyError;
use crate::sample::SampleError;
use crate::secagg::SecAggError;
use crate::secagg::mphe::KeyFault;

/// Client number in addresses of randomness that belongs to the server.
pub const SERVER: u64 = u64::MAX;

/// What can go wrong in a round.
#[derive(Debug, thiserror::Error)]
pub enum FlError {
    /// A kernel refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The privacy room refused.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The aggregation refused.
    #[error(transparent)]
    SecAgg(#[from] SecAggError),
    /// A sampler refused.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// An aggregation rule refused.
    #[error(transparent)]
    Rule(#[from] rule::RuleError),
    /// An attack of a simulation refused.
    #[error(transparent)]
    Attack(#[from] attack::AttackError),
    /// Local training failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// Allowed range, in words.
        expected: String,
        /// Value found.
        found: String,
    },
    /// The driver answered something that was not asked.
    #[error("the coordinator got {event} while it was {state}")]
    OutOfOrder {
        /// What came.
        event: &'static str,
        /// What it was doing.
        state: &'static str,
    },
    /// A checkpoint that does not belong to this run, or is damaged.
    #[error("checkpoint: {what} is {found}, expected {expected}")]
    Checkpoint {
        /// Which part.
        what: &'static str,
        /// Expected.
        expected: String,
        /// Found.
        found: String,
    },
    /// A round of a run with correlated noise that would have to be released twice.
    #[error(
        "round {round} was released already, from another input (another device, processor or program?): noise that is correlated over rounds can only be continued bit for bit. Resume where the run began, or begin a new one"
    )]
    Superseded {
        /// Round.
        round: u32,
    },
    /// A collective key could not be made.
    #[error(transparent)]
    Key(#[from] KeyFault),
    /// A round ended below its threshold.
    #[error("round {round} ended with {survivors} of at least {threshold} clients")]
    Aborted {
        /// Round.
        round: u32,
        /// Clients that delivered.
        survivors: usize,
        /// Threshold.
        threshold: usize,
    },
}

impl FlError {
    /// The backend's error behind this one, whoever passed it on.
    #[must_use]
    pub const fn backend(&self) -> Option<&BackendError> {
        match self {
            Self::Backend(e)
            | Self::Model(ModelError::Backend(e))
            | Self::Rule(rule::RuleError::Backend(e))
            | Self::Attack(attack::AttackError::Backend(e)) => Some(e),
            Self::SecAgg(e) => e.backend(),
            _ => None,
        }
    }
}
