//! The durable store of a federation's server: what it accepted, in the order of acceptance.
//!
//! A coordinator is deterministic given the accepted frames and clock events in order. So an attempt of a round is
//! recorded here before clients hear of it, and every accepted message is here, on the disk, before it is acknowledged;
//! after `kill -9` the server reads the entries of the open attempt and is where it was.
//!
//! ```text
//! begin -> Begun -> Charged -> Released      append while Begun or Charged
//!            \-> Abandoned                   drop_payloads when no attempt of the round is open
//! ```
//! Every row carries a SHA-256 of its content, and an entry that of its predecessor, so that a reader sees what was
//! written, in its order, or [`StoreError::Corrupt`]. That finds damage, not forgery.
//!
//! The logic is written once (`store/logic.rs`) over the two databases (`store/sqlite.rs`, `store/postgres.rs`). Calls
//! block: from asynchronous code they belong on a thread of their own.

pub mod error;
mod logic;
pub mod postgres;
mod schema;
pub mod sql;
pub mod sqlite;
mod tables;
pub mod types;

#[cfg(test)]
mod check;
#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod small;

use std::path::Path;
use std::sync::Arc;

pub use error::StoreError;
pub use postgres::PostgresStore;
pub use schema::VERSION;
pub use sqlite::SqliteStore;
pub use types::*;

use crate::net::keys::Role;
use crate::net::objects::ObjectId;

/// The durable store of a federation's server.
///
/// A call that changes something is durable when it returns, and changed nothing where it fails. All return
/// [`StoreError`]; beside what is said of each, any may fail as the database does, and every change with
/// [`StoreError::LeaseLost`] once this handle had a lease that another owner took over. A handle that never asked for a
/// lease (a command beside the running server) may write as well.
pub trait Store: Send + Sync {
    /// Where it is, for messages, without a password.
    fn place(&self) -> &str;

    /// The value of a name.
    ///
    /// # Errors
    /// [`StoreError::Reserved`].
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Sets the value of a name.
    ///
    /// # Errors
    /// [`StoreError::Reserved`].
    fn set_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Sets the value of a name once and for all; the same again is fine.
    ///
    /// # Errors
    /// [`StoreError::MetaDiffers`], [`StoreError::Reserved`].
    fn create_meta(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Enrols a party by a token. The same identity with the same token gets the same answer again.
    ///
    /// # Errors
    /// [`StoreError::TokenUsed`], [`StoreError::NumberTaken`], [`StoreError::IdentityTaken`],
    /// [`StoreError::NumberBeyond`], [`StoreError::NoNumberLeft`], [`StoreError::Range`].
    fn enrol(&self, enrolment: &Enrolment) -> Result<Enrolled, StoreError>;

    /// Adds a party whose keys came another way. The very same party again is fine.
    ///
    /// # Errors
    /// [`StoreError::NumberTaken`], [`StoreError::IdentityTaken`], [`StoreError::Range`].
    fn add_party(&self, party: &NewParty) -> Result<(), StoreError>;

    /// All parties, by kind and number.
    ///
    /// # Errors
    /// Those of every call.
    fn parties(&self) -> Result<Vec<PartyRow>, StoreError>;

    /// No longer admits a party. A revoked one again is fine.
    ///
    /// # Errors
    /// [`StoreError::UnknownParty`].
    fn revoke(&self, role: Role) -> Result<(), StoreError>;

    /// Records an attempt. The same again is fine.
    ///
    /// # Errors
    /// [`StoreError::AttemptDiffers`]; [`StoreError::RoundReleased`] for a new attempt of a released round.
    fn begin(&self, attempt: &NewAttempt) -> Result<(), StoreError>;

    /// Moves an attempt to `Charged` or `Abandoned`. The state that it has is fine; `Released` is reached by
    /// [`Store::release`] alone, together with its record.
    ///
    /// # Errors
    /// [`StoreError::Transition`], [`StoreError::UnknownAttempt`].
    fn mark(&self, round: u32, attempt: u32, state: AttemptState) -> Result<(), StoreError>;

    /// All attempts, by round and attempt.
    ///
    /// # Errors
    /// Those of every call.
    fn attempts(&self) -> Result<Vec<AttemptRow>, StoreError>;

    /// What was decided for an attempt.
    ///
    /// # Errors
    /// [`StoreError::UnknownAttempt`].
    fn attempt_plan(&self, round: u32, attempt: u32) -> Result<Vec<u8>, StoreError>;

    /// Accepts entries in this order, all or none.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], [`StoreError::Closed`], [`StoreError::UnknownAttempt`], [`StoreError::Range`].
    fn append(&self, round: u32, attempt: u32, entries: &[NewEntry]) -> Result<(), StoreError>;

    /// The entries of an attempt in the order of acceptance.
    ///
    /// # Errors
    /// [`StoreError::UnknownAttempt`]; [`StoreError::Corrupt`] names the first bad one.
    fn entries(&self, round: u32, attempt: u32) -> Result<Vec<StoredEntry>, StoreError>;

    /// Whether an attempt has a message.
    ///
    /// # Errors
    /// Those of every call.
    fn has(&self, round: u32, attempt: u32, id: &[u8; 32]) -> Result<bool, StoreError>;

    /// Forgets the payloads of a round that is over: those of its frames, and its sums. Sender, length and hash stay.
    /// The objects that nothing needs any more are returned, again at every call: the caller deletes them, from the
    /// thread that appends, so that no new entry refers to one meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unfinished`] while an attempt of it is open.
    fn drop_payloads(&self, round: u32) -> Result<Vec<ObjectId>, StoreError>;

    /// Records a release, and the model after it with its length in bytes. The same again is fine.
    ///
    /// # Errors
    /// [`StoreError::Transition`] unless the attempt is charged; [`StoreError::RecordDiffers`],
    /// [`StoreError::RoundReleased`], [`StoreError::UnknownAttempt`], [`StoreError::Range`].
    fn release(
        &self,
        round: u32,
        attempt: u32,
        record_json: &str,
        checkpoint: Option<(ObjectId, u64)>,
    ) -> Result<(), StoreError>;

    /// All released rounds, in order.
    ///
    /// # Errors
    /// Those of every call.
    fn rounds(&self) -> Result<Vec<RoundRow>, StoreError>;

    /// Forgets the models of all but the last `keep` rounds that have one. The objects that nothing needs any more are
    /// returned, once: the caller deletes them. Records stay.
    ///
    /// # Errors
    /// Those of every call.
    fn drop_checkpoints(&self, keep: u32) -> Result<Vec<ObjectId>, StoreError>;

    /// The last model that was kept: its round, its object and its length in bytes.
    ///
    /// # Errors
    /// Those of every call.
    fn latest_checkpoint(&self) -> Result<Option<(u32, ObjectId, u64)>, StoreError>;

    /// Keeps the sum of an attempt until its payloads are dropped; replaces an earlier one.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::UnknownAttempt`], [`StoreError::Range`].
    fn put_sum(&self, round: u32, attempt: u32, sum: &Payload) -> Result<(), StoreError>;

    /// The sum of an attempt, if there is one.
    ///
    /// # Errors
    /// Those of every call.
    fn sum(&self, round: u32, attempt: u32) -> Result<Option<Payload>, StoreError>;

    /// Takes or renews the right to coordinate, at `now` (seconds since the beginning of 1970), for `seconds`.
    ///
    /// It is free if nobody has it, if it has expired, or if its owner has the same name (a server that was killed
    /// begins again at once, and the one before it, should it live, is fenced off). Clocks of machines that share a
    /// store have to agree to within `seconds`; where they do not, coordinators take over from each other, and
    /// the fencing number still lets one of them write.
    ///
    /// # Errors
    /// [`StoreError::LeaseHeld`]; [`StoreError::LeaseLost`] for a handle that had it.
    fn lease(&self, owner: &str, seconds: u64, now: u64) -> Result<Lease, StoreError>;

    /// Gives the lease back, so that the next owner need not wait; without one, nothing happens.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    fn end_lease(&self) -> Result<(), StoreError>;

    /// Forgets that this handle had a lease, which another took over: it may ask for one again. Until it has one it is a handle that
    /// never asked.
    fn forget_lease(&self);

    /// The lease that was given out last, expired or not; `None` if none was or it was given back.
    ///
    /// # Errors
    /// Those of every call.
    fn lease_holder(&self) -> Result<Option<Lease>, StoreError>;

    /// The objects that something still needs.
    ///
    /// # Errors
    /// Those of every call.
    fn references(&self) -> Result<Vec<Reference>, StoreError>;

    /// Reads and checks everything. What is wrong, in words; empty if nothing.
    ///
    /// # Errors
    /// Those of the database that kept it from looking.
    fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Copies one state of everything into a new SQLite file, while others read and write.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is there.
    fn snapshot(&self, to: &Path) -> Result<(), StoreError>;

    /// Whether nothing was ever stored here.
    ///
    /// # Errors
    /// Those of every call.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// Fills this empty store with a snapshot, all of it or nothing. An older version's snapshot is migrated in place.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`]; those of [`SqliteStore::open`] for the snapshot.
    fn load(&self, from: &Path) -> Result<(), StoreError>;
}

/// Opens the store at an address: `postgres://` or `postgresql://`, or the path of an SQLite file, which is made if
/// it is not there (its folder must be).
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Foreign`], [`StoreError::Corrupt`], [`StoreError::Address`], and
/// [`StoreError::Io`] where it cannot be reached.
pub fn open(url_or_path: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url_or_path.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(url_or_path)?)),
        Some(_) => Err(StoreError::Address(url_or_path.to_owned())),
        None if url_or_path.is_empty() => Err(StoreError::Address(String::new())),
        None => Ok(Arc::new(SqliteStore::open(Path::new(url_or_path))?)),
    }
}

/// `client 7`.
pub(crate) fn role_words(role: &Role) -> String {
    match role {
        Role::Server => "the server".to_owned(),
        Role::Client(number) => format!("client {number}"),
        Role::Holder(number) => format!("key holder {number}"),
    }
}
