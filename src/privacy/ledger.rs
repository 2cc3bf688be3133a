//! The ledger: what has been released about whom, and what it cost. Append-only, chained by hashes, one JSON line an entry.
//!
//! A *principal* is whom the protection is for: the population whose data the releases are made from. A ledger holds any
//! number of principals; each has a delta, at which its epsilons are stated, and may have a limit. Every release is
//! written and synced here **before** it is made, with its cost in two views (see [`View`]) and the principal's totals
//! over all runs that share the file.
//!
//! The hashes show damage and careless edits: whoever can write the file can also forge all of it anew. What was cut off
//! at the end is noticed by the [head](mod@file) beside the file.
//!
//! Spec: privacy, section 3 (two views, the parts of delta).

pub mod book;
pub mod chain;
pub mod file;
pub mod tab;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::mechanism::PrivacyError;
use super::{DpEvent, NeighboringRelation, View};

pub use book::{Book, Standing};
pub use file::LedgerFile;

/// The most that a principal may lose in one view.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Epsilon, > 0, at the principal's delta.
    pub epsilon: f64,
    /// To whom.
    pub view: View,
}

/// A principal enters the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Its name.
    pub principal: String,
    /// The delta of all its epsilons, in (0, 1).
    pub delta: f64,
    /// The most that it may lose; `None`: recorded, not limited.
    pub limit: Option<Limit>,
}

/// Which release a charge is for. The same attempt of the same run is the same bits and costs once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The run's public identity, 32 hexadecimal digits.
    pub run: String,
    /// Round, from 1; 0 for a run whose rounds are one release together (correlated noise).
    pub round: u32,
    /// Attempt, from 0.
    pub attempt: u32,
    /// SHA-256 of the round's input, 64 hexadecimal digits.
    pub input: String,
}

/// What one release costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The neighbouring relation of both events.
    pub neighbors: NeighboringRelation,
    /// To the server, or whoever knows the cohort.
    pub server: DpEvent,
    /// To those who see releases only.
    pub public: DpEvent,
    /// Total variation distance between the noise as drawn and as accounted.
    pub sampler_error: f64,
}

/// The parts that a principal's delta is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeltaParts {
    /// At which the events are accounted.
    pub mechanism: f64,
    /// `(1 + e^epsilon) N t`, the error of the noise tables so far in the public view.
    pub sampler: f64,
    /// What the time of a computation may tell of a secret: 0, since the samplers take the same time for every value.
    pub timing: f64,
    /// What the accountant's own rounding takes beyond what its bounds hold already.
    pub numerics: f64,
}

/// Epsilon of a principal's releases in both views; `None` where it is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// To those who see releases only.
    pub public: Option<f64>,
    /// To the server, or whoever knows the cohorts.
    pub server: Option<f64>,
}

/// A release, before it is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    /// Whose loss it is.
    pub principal: String,
    /// What is released.
    #[serde(flatten)]
    pub release: Release,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Cost,
    /// The parts of the principal's delta.
    pub delta: DeltaParts,
    /// The principal's epsilon with this release.
    pub epsilon: Totals,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A principal enters.
    Open(Opening),
    /// A release.
    Charge(Box<Charge>),
}

/// What the ledger refuses.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// An entry that is not what was written.
    #[error("{}: entry {entry} {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the first bad entry, from 0.
        entry: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A step that the operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A ledger that is not there.
    #[error("there is no ledger {}; begin it: veilsum ledger open {} --principal NAME --epsilon E --delta D", .0.display(), .0.display())]
    Absent(PathBuf),
    /// Another process has it.
    #[error("{}: another process is using this ledger; wait for it to end, or name another ledger", .0.display())]
    Busy(PathBuf),
    /// A principal that nobody opened.
    #[error(
        "the ledger has no principal `{name}`; it has {known}. Open it: veilsum ledger open FILE --principal {name} --epsilon E --delta D"
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those there are, in words.
        known: String,
    },
    /// A principal that is there already.
    #[error("the ledger has a principal `{0}` already; what it may lose cannot be changed afterwards")]
    Opened(String),
    /// The release would cost more than is left.
    #[error("this release would take `{principal}` to epsilon {next:.4} in the {view} view; its limit is {limit}")]
    Overspent {
        /// Whose limit.
        principal: String,
        /// Epsilon after it.
        next: f64,
        /// The limit.
        limit: f64,
        /// Who sees it, `server` or `public`.
        view: &'static str,
    },
    /// The same attempt with another input: two plaintexts under one noise key.
    #[error(
        "round {round}, attempt {attempt} of run {run} is in the ledger with another input: its noise must not be used again. Two runs with one seed? Give each its own, or none"
    )]
    Reused {
        /// The run.
        run: String,
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
    },
    /// A parameter or an event.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
}
