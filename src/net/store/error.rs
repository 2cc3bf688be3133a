//! What a store refuses or cannot do.

use super::{AttemptState, role_words};
use crate::net::keys::Role;

/// What a store refuses or cannot do. Nothing was changed where one is returned, except as [`StoreError::Io`] says.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room.
    #[error("{place}: the disk is full: nothing was accepted; make room and try again")]
    Full {
        /// The database.
        place: String,
    },
    /// Something that is not what was written.
    #[error("{place} is damaged: {detail}; restore the newest backup with `veilsum rounds restore`")]
    Corrupt {
        /// The database.
        place: String,
        /// Which page, table or row.
        detail: String,
    },
    /// Another process held it for longer than one waits.
    #[error("{place}: another process has it locked for longer than {seconds} s; try again")]
    Busy {
        /// The database.
        place: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Written by a newer version.
    #[error("{place} has schema version {found}; this version of veilsum knows those up to {known}: use the newer one")]
    Newer {
        /// The database.
        place: String,
        /// Its version.
        found: u64,
        /// The newest one known here.
        known: u64,
    },
    /// Something else's database.
    #[error("{place} is not a veilsum database: {detail}; name another file or database")]
    Foreign {
        /// The database.
        place: String,
        /// How that shows.
        detail: String,
    },
    /// Any other failure below. Where a connection broke in a commit, it is unknown whether the change was made.
    #[error("cannot {action} {place}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The database or file.
        place: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store that should have been empty.
    #[error("{place} is not empty; restore into a new store")]
    NotEmpty {
        /// The database.
        place: String,
    },
    /// An address that no store has.
    #[error("`{0}` names no store; use a path, or postgresql://USER@HOST/DATABASE")]
    Address(String),
    /// A number that the database cannot hold.
    #[error("{what} is {value}; at most {limit} can be stored")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The most.
        limit: u64,
    },
    /// A text that a database cannot hold.
    #[error("{what} has a character with code 0 in it, which cannot be stored")]
    Text {
        /// Which text.
        what: &'static str,
    },
    /// A connection to another machine without encryption.
    #[error(
        "sslmode=disable is for this machine alone, and {host} may be another; leave it out, or use sslmode=require"
    )]
    Plaintext {
        /// The host of the database.
        host: String,
    },
    /// A name that the store keeps for itself.
    #[error("names that begin with a dot belong to the store itself: `{0}`")]
    Reserved(String),
    /// A name whose value is fixed.
    #[error("`{0}` has another value already, and it is never changed")]
    MetaDiffers(String),
    /// An enrolment token that another identity used.
    #[error("this enrolment token was used already, by another identity; ask for a new one")]
    TokenUsed,
    /// A number that is taken.
    #[error("{} is taken{}", role_words(.role), name_words(.name))]
    NumberTaken {
        /// Who.
        role: Role,
        /// The name of who has it.
        name: String,
    },
    /// An identity that is taken.
    #[error("this identity is enrolled already: it is that of {}{}", role_words(.role), name_words(.name))]
    IdentityTaken {
        /// Whose it is.
        role: Role,
        /// The name of who has it.
        name: String,
    },
    /// A number that is not below the limit.
    #[error("the number {number} is not below {limit}, how many there may be")]
    NumberBeyond {
        /// The number asked for.
        number: u64,
        /// How many there may be.
        limit: u64,
    },
    /// All numbers are taken.
    #[error("all {limit} numbers are taken")]
    NoNumberLeft {
        /// How many there may be.
        limit: u64,
    },
    /// A party that is not there.
    #[error("{} is not enrolled", role_words(.0))]
    UnknownParty(Role),
    /// An attempt that is not there.
    #[error("round {round} has no attempt {attempt}")]
    UnknownAttempt {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
    },
    /// An attempt begun with something else.
    #[error("round {round}, attempt {attempt} was begun with another {what}: its noise must not be used again")]
    AttemptDiffers {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// `input` or `plan`.
        what: &'static str,
    },
    /// A change of state that there is not.
    #[error("round {round}, attempt {attempt} is {from}; it cannot become {to}")]
    Transition {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// Its state.
        from: AttemptState,
        /// The one asked for.
        to: AttemptState,
    },
    /// An entry for an attempt that is over.
    #[error("round {round}, attempt {attempt} is {state}: it takes no more entries")]
    Closed {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// Its state.
        state: AttemptState,
    },
    /// An entry that the attempt has.
    #[error("round {round}, attempt {attempt} has message {} already", hex::encode(.id))]
    Duplicate {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// The message.
        id: [u8; 32],
    },
    /// A round that has its release.
    #[error("round {round} is released, by its attempt {attempt}")]
    RoundReleased {
        /// Round.
        round: u32,
        /// The attempt that was released.
        attempt: u32,
    },
    /// A release that is not the recorded one.
    #[error("round {round}, attempt {attempt} is released with another {what}")]
    RecordDiffers {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// `record` or `checkpoint`.
        what: &'static str,
    },
    /// Payloads that are still needed.
    #[error("round {round}, attempt {attempt} is {state}: its payloads are still needed")]
    Unfinished {
        /// Round.
        round: u32,
        /// Attempt.
        attempt: u32,
        /// Its state.
        state: AttemptState,
    },
    /// Another coordinator runs.
    #[error("`{owner}` coordinates this federation, for {seconds} s more unless it renews that")]
    LeaseHeld {
        /// Who has it.
        owner: String,
        /// How long, seconds.
        seconds: u64,
    },
    /// Another coordinator took over.
    #[error("`{owner}` has taken over this federation (fencing number {fence}, ours was {mine})")]
    LeaseLost {
        /// Who has it; empty if nobody.
        owner: String,
        /// Its fencing number.
        fence: u64,
        /// Ours.
        mine: u64,
    },
}

/// ` (name)`, or nothing.
fn name_words(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" (`{}`)", name.escape_debug()) }
}
