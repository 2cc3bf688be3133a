//! What the store takes and gives: plain data.

use std::fmt;

use crate::net::keys::Role;
use crate::net::objects::ObjectId;

/// Which number a party asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A client's, or the lowest free one.
    Client(Option<u64>),
    /// A key holder's, or the lowest free one.
    Holder(Option<u16>),
}

/// A party that shows an enrolment token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The token's own number; each is good for one identity.
    pub nonce: [u8; 16],
    /// As what.
    pub wanted: Wanted,
    /// Public signing key.
    pub identity: [u8; 32],
    /// Public key agreement key, of the protocols that have one.
    pub channel: Option<[u8; 32]>,
    /// How many samples the party says it has.
    pub samples: Option<u64>,
    /// What people call it; may be empty.
    pub name: String,
    /// Numbers are below this.
    pub limit: u64,
}

/// The answer to an [`Enrolment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The party's number.
    pub number: u64,
}

/// A party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewParty {
    /// Kind and number.
    pub role: Role,
    /// Public signing key.
    pub identity: [u8; 32],
    /// Public key agreement key, of the protocols that have one.
    pub channel: Option<[u8; 32]>,
    /// How many samples the party says it has.
    pub samples: Option<u64>,
    /// What people call it; may be empty.
    pub name: String,
}

/// A party as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartyRow {
    /// Who.
    pub party: NewParty,
    /// No longer admitted. Its number and its identity stay taken.
    pub revoked: bool,
}

/// An attempt of a round, before anybody hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttempt {
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 0.
    pub attempt: u32,
    /// SHA-256 of the round's input.
    pub input: [u8; 32],
    /// What the server has decided for it.
    pub plan: Vec<u8>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttemptState {
    /// Recorded; clients may have heard of it.
    Begun,
    /// The ledger has its cost.
    Charged,
    /// Its record is stored.
    Released,
    /// Given up before it cost anything.
    Abandoned,
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "begun",
            Self::Charged => "charged",
            Self::Released => "released",
            Self::Abandoned => "abandoned",
        })
    }
}

impl AttemptState {
    /// Whether an attempt may go from here to `next`; to stay is not a change.
    pub fn may_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Begun, Self::Charged | Self::Abandoned) | (Self::Charged, Self::Released))
    }

    /// Whether it still takes entries.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Begun | Self::Charged)
    }
}

/// An attempt as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Round.
    pub round: u32,
    /// Attempt.
    pub attempt: u32,
    /// SHA-256 of the round's input.
    pub input: [u8; 32],
    /// How far it is.
    pub state: AttemptState,
    /// How many entries it has.
    pub entries: u64,
    /// Whether the payloads of its entries are gone.
    pub dropped: bool,
}

/// Bytes, in the database or beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// In the database.
    Inline(Vec<u8>),
    /// In the object store.
    Object {
        /// Its SHA-256.
        id: ObjectId,
        /// Its length, bytes.
        len: u64,
    },
}

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// A message of a party.
    Frame {
        /// Whose.
        from: Role,
        /// Its bytes.
        payload: Payload,
    },
    /// The time, as the coordinator was told it.
    Clock {
        /// Milliseconds since the attempt began, on the coordinator's clock.
        millis: u64,
    },
    /// Anything else that the coordinator was told.
    Note {
        /// What it is.
        kind: u8,
        /// Its bytes; they are kept as long as the attempt is.
        bytes: Vec<u8>,
    },
}

/// Something to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The message's id; an attempt takes each once.
    pub id: [u8; 32],
    /// What it says.
    pub body: EntryBody,
}

/// The bytes of an accepted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredPayload {
    /// In the database.
    Inline(Vec<u8>),
    /// In the object store.
    Object {
        /// Its SHA-256.
        id: ObjectId,
        /// Its length, bytes.
        len: u64,
    },
    /// Gone, since its round is over.
    Dropped {
        /// Its length, bytes.
        len: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
}

/// What was accepted, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBody {
    /// A message of a party.
    Frame {
        /// Whose.
        from: Role,
        /// Its bytes.
        payload: StoredPayload,
    },
    /// The time, as the coordinator was told it.
    Clock {
        /// Milliseconds since the attempt began, on the coordinator's clock.
        millis: u64,
    },
    /// Anything else that the coordinator was told.
    Note {
        /// What it is.
        kind: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place in the order of acceptance, from 0.
    pub seq: u64,
    /// The message's id.
    pub id: [u8; 32],
    /// What it says.
    pub body: StoredBody,
}

/// A released round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundRow {
    /// Round.
    pub round: u32,
    /// The attempt that was released.
    pub attempt: u32,
    /// What there is to say about it, JSON.
    pub record: String,
    /// The model after it and its length in bytes, if it was kept.
    pub checkpoint: Option<(ObjectId, u64)>,
}

/// The right to coordinate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub owner: String,
    /// Grows with every owner. Every write of this handle is refused once a higher one was given out.
    pub fence: u64,
    /// Until when, seconds since the beginning of 1970.
    pub until: u64,
}

/// An object that something in the store still needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The object.
    pub id: ObjectId,
    /// Its length, bytes.
    pub len: u64,
    /// By what, in words.
    pub by: String,
}
