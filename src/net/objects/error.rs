//! What an object store refuses or cannot do.

use std::fmt::Display;
use std::io::ErrorKind;

use super::ObjectId;

/// What an object store refuses or cannot do.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not the name of an object.
    #[error("`{}` is not the name of an object, 64 lowercase hexadecimal digits", .0.escape_debug())]
    Name(String),
    /// An object that is not there.
    #[error("there is no object {0}")]
    Missing(ObjectId),
    /// One object would be too large.
    #[error("an object of {len} bytes is too large; at most {limit} are taken")]
    TooLarge {
        /// Its length, bytes.
        len: u64,
        /// The most.
        limit: u64,
    },
    /// All objects would be too large.
    #[error("{len} bytes more do not fit: {used} of {limit} are used; wait for a round to end, or raise the quota")]
    Quota {
        /// Length of the new object, bytes.
        len: u64,
        /// Bytes in use.
        used: u64,
        /// The most.
        limit: u64,
    },
    /// The disk would be too full.
    #[error("{len} bytes more do not fit: the disk has {free} free, of which {reserve} stay so; make room")]
    Reserve {
        /// Bytes to come.
        len: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that have to stay free.
        reserve: u64,
    },
    /// Two uploads of one object at a time.
    #[error("object {0} is being uploaded already; try again when that has ended")]
    InUse(ObjectId),
    /// An object of another length.
    #[error("object {id} has {found} bytes, not {expected}")]
    Length {
        /// The object.
        id: ObjectId,
        /// The length announced, bytes.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// More bytes than announced.
    #[error("object {id} was announced with {len} bytes; {more} more at {offset} are too many")]
    Overrun {
        /// The object.
        id: ObjectId,
        /// The length announced, bytes.
        len: u64,
        /// Bytes that are there.
        offset: u64,
        /// Bytes that came.
        more: u64,
    },
    /// Fewer bytes than announced.
    #[error("object {id} was announced with {len} bytes; {offset} are there")]
    Short {
        /// The object.
        id: ObjectId,
        /// The length announced, bytes.
        len: u64,
        /// Bytes that are there.
        offset: u64,
    },
    /// Other bytes than the name says.
    #[error("the bytes of object {expected} have the hash {found}")]
    Hash {
        /// The name.
        expected: ObjectId,
        /// What the bytes are.
        found: ObjectId,
    },
    /// An address that no object store has.
    #[error(
        "`{0}` names no object store; use a folder, or s3://BUCKET/PREFIX with AWS_ENDPOINT_URL for other services"
    )]
    Address(String),
    /// A variable that is not set.
    #[error("the environment has no {0}, which an object store at s3:// needs")]
    Variable(&'static str),
    /// A connection to another machine without encryption.
    #[error("http:// is for this machine alone, and {host} may be another; use https://")]
    Plaintext {
        /// The host of the service.
        host: String,
    },
    /// A remote service refused.
    #[error("cannot {action} object {object}: the service answers {status}, {reason}")]
    Remote {
        /// What was tried, as a verb.
        action: &'static str,
        /// The object's name there, or what names begin with.
        object: String,
        /// The status of its answer.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// A remote service did not answer, or not in its protocol.
    #[error("cannot {action} object {object}, in {tries} tries: {reason}")]
    Network {
        /// What was tried, as a verb.
        action: &'static str,
        /// The object's name there, or what names begin with.
        object: String,
        /// How often.
        tries: u32,
        /// Why not.
        reason: String,
    },
    /// No room.
    #[error("cannot {action} {place}: the disk is full; make room and try again")]
    Full {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or object.
        place: String,
    },
    /// Another step that the operating system refused.
    #[error("cannot {action} {place}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or object.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// For `map_err` on an I/O result.
pub(super) fn io(action: &'static str, place: impl Display) -> impl FnOnce(std::io::Error) -> ObjectError {
    move |source| {
        let place = place.to_string();
        match source.kind() {
            ErrorKind::StorageFull => ObjectError::Full { action, place },
            _ => ObjectError::Io { action, place, source },
        }
    }
}
