//! A federation over the network: the machines of [`crate::fl`] and [`crate::secagg`] behind sockets, with nothing lost when
//! anything dies.
//!
//! ```text
//! veilsum serve   server    sockets, calls, the coordinator's thread; what it accepts is in `store` before it says so
//! veilsum join    client    a client or a key holder: plans are checked against its policy, frames are on disk before they go
//! ```
//! Parties dial out and are known by the Ed25519 key of their certificate (`keys`, `tls`). What travels is
//! `proto/veilsum/v1` (`wire`); a round is what its signed [`plan`] says, and nothing else.

pub mod ahead;
pub mod backup;
pub mod client;
pub mod external;
pub mod http;
pub mod hub;
pub mod keys;
pub mod listen;
pub mod objects;
pub mod plan;
pub mod policy;
pub mod server;
pub mod status;
pub mod store;
pub mod tls;
pub mod wire;

use std::time::{Duration, SystemTime};

use crate::config::ConfigError;
use crate::fl::FlError;
use crate::model::ModelError;
use crate::privacy::ledger::LedgerError;
use crate::report::ReportError;
use crate::sim::SimError;

/// The time since 1970: for people, for certificates and leases. No protocol depends on it.
#[must_use]
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The threads on which sockets are served; `blocking` beside them may wait for the disk or compute.
fn runtime(blocking: usize) -> Result<tokio::runtime::Runtime, NetError> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(blocking).build();
    built.map_err(|source| NetError::Io { action: "start", what: "the runtime".to_owned(), source })
}

impl NetError {
    /// True for what may pass, with more room on a disk or less to do; nothing was lost by it.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        use objects::ObjectError;
        use store::StoreError;
        matches!(
            self,
            Self::Store(StoreError::Full { .. } | StoreError::Busy { .. } | StoreError::Io { .. })
                | Self::Object(
                    ObjectError::Full { .. }
                        | ObjectError::Quota { .. }
                        | ObjectError::Reserve { .. }
                        | ObjectError::Io { .. }
                )
                | Self::Report(_)
                | Self::Sim(SimError::Report(_) | SimError::Ledger(LedgerError::Io { .. }))
                | Self::Io { .. }
        )
    }
}

/// What can go wrong in a server or a client.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The federation refused.
    #[error(transparent)]
    Fl(#[from] FlError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The object store refused.
    #[error(transparent)]
    Object(#[from] objects::ObjectError),
    /// Keys, certificates or tokens.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// A token.
    #[error(transparent)]
    Token(#[from] keys::TokenError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] keys::CertificateError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A config was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Training failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A ledger, or the training of a client.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// A report could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file, a socket or a process.
    #[error("cannot {action} {what}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Something that is stored cannot be read.
    #[error("round {round}: what is stored cannot be used: {problem}")]
    Record {
        /// Round.
        round: u32,
        /// What is wrong.
        problem: String,
    },
    /// A store that belongs to another run.
    #[error(
        "{place} belongs to another run: name an empty --state folder, or serve the config (and seed) that the run was begun with, with the same --keys"
    )]
    OtherRun {
        /// The store.
        place: String,
    },
    /// What only a simulation does.
    #[error("{what} is not served over the network: use {instead}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        instead: &'static str,
    },
    /// What the server said, which no second try changes.
    #[error("the server refuses: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// A program that trains for a client.
    #[error(transparent)]
    External(#[from] external::ExternalError),
    /// A server or a network that may be back.
    #[error("the server cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// A server whose plan this party does not accept.
    #[error("this party refuses what the server asks for: {}", reasons.join("; "))]
    Policy {
        /// Every reason.
        reasons: Vec<String>,
    },
    /// What the server says does not fit together.
    #[error("the server is not to be trusted: {what}: {found}, expected {expected}")]
    Dishonest {
        /// What does not fit.
        what: &'static str,
        /// What would.
        expected: String,
        /// What was found.
        found: String,
    },
}
