//! Secure aggregation as sans-I/O machines: what a round of clients adds up to, and nothing else.
//!
//! A protocol is a pair of [`Party`] machines, one for a client and one for the server. They hold no
//! socket, clock, thread or generator: frames and the time go in, frames and one [`Output`] come out.
//! `plain` adds in the clear and is the oracle of every later protocol. `masks` hides every vector behind masks that
//! cancel in the sum; `mphe` encrypts under a lattice key that key holders have in common; `oneshot` under a key of each
//! client, and key holders open the sum of the keys; `identity` and `channel` are what such protocols sign and encrypt with.

mod accumulator;
pub mod channel;
pub mod frame;
pub mod identity;
pub mod local;
pub mod masks;
pub mod mphe;
pub mod oneshot;
pub mod plain;
pub mod traffic;
pub mod wire;

use std::fmt;

use crate::backend::{BackendError, packed_len};
use crate::he::HeError;
use crate::math::packed::PackingError;
use crate::math::shamir::ShamirError;

/// Who sent a frame, or who gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartyId {
    /// The aggregating server.
    Server,
    /// A client by its number.
    Client(u64),
    /// A key holder by its number, from 1, as the lattice protocols have.
    Holder(u16),
}

impl fmt::Display for PartyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the server"),
            Self::Client(id) => write!(f, "client {id}"),
            Self::Holder(id) => write!(f, "key holder {id}"),
        }
    }
}

/// A frame on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Receiver.
    pub to: PartyId,
    /// Bytes of the frame.
    pub frame: Vec<u8>,
}

/// Which aggregation this is: frames of any other are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Identity of the run.
    pub session: [u8; 16],
    /// Round, from 1.
    pub round: u32,
    /// Attempt of the round, from 0.
    pub attempt: u32,
}

/// Shape of the vectors that are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorShape {
    /// Coordinates.
    pub len: u32,
    /// Ring width in bits, 1..=63: addition is mod `2^bits`.
    pub bits: u32,
}

impl VectorShape {
    /// Bytes of such a vector, packed: [`packed_len`].
    #[must_use]
    pub const fn packed_len(self) -> usize {
        packed_len(self.len as usize, self.bits)
    }
}

/// What a machine has to say when it is finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The sum over the survivors.
    Sum {
        /// Coordinates mod `2^bits`, one a word.
        words: Vec<u64>,
        /// Clients whose vectors are in the sum, ascending.
        survivors: Vec<u64>,
    },
    /// The client's part is over: its vector was handed to the server.
    Delivered,
    /// The round ended without a sum.
    Aborted {
        /// Clients that delivered.
        survivors: usize,
        /// Least number that would have been opened.
        threshold: usize,
    },
}

/// One participant of a protocol.
pub trait Party {
    /// Takes a frame. A frame that is refused changes nothing.
    fn handle(&mut self, from: PartyId, frame: &[u8]) -> Result<(), SecAggError>;

    /// Tells the machine the time, in milliseconds on the driver's clock.
    fn handle_timeout(&mut self, now: u64);

    /// When the machine wants to be told the time next.
    fn poll_timeout(&self) -> Option<u64>;

    /// The next frame to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// The result, once.
    fn poll_output(&mut self) -> Option<Output>;
}

impl SecAggError {
    /// The backend's error behind this one, whoever passed it on.
    #[must_use]
    pub const fn backend(&self) -> Option<&BackendError> {
        match self {
            Self::Backend(error) | Self::Lattice(HeError::Backend(error)) => Some(error),
            _ => None,
        }
    }
}

/// Why a frame or a call was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SecAggError {
    /// Fewer bytes than the header or the payload needs.
    #[error("frame of {found} bytes, expected {expected}")]
    Truncated {
        /// Bytes that the frame should have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// Not one of our frames, or of a version that this build does not speak.
    #[error("not a veilsum frame of version {expected} (found magic {magic:02x?}, version {version})")]
    Version {
        /// Version spoken here.
        expected: u8,
        /// First two bytes.
        magic: [u8; 2],
        /// Version byte.
        version: u8,
    },
    /// A kind of frame that this party does not take.
    #[error("frame kind {found} is not accepted here, expected {expected}")]
    Kind {
        /// Kind accepted.
        expected: u8,
        /// Kind found.
        found: u8,
    },
    /// A frame of another session, round or attempt.
    #[error(
        "frame of round {found_round} attempt {found_attempt}, expected round {round} attempt {attempt} of this session"
    )]
    ForeignSession {
        /// Round expected.
        round: u32,
        /// Attempt expected.
        attempt: u32,
        /// Round found.
        found_round: u32,
        /// Attempt found.
        found_attempt: u32,
    },
    /// Another shape than the round's.
    #[error("vector of {found_len} values of {found_bits} bits, expected {len} of {bits}")]
    Shape {
        /// Length expected.
        len: u32,
        /// Width expected.
        bits: u32,
        /// Length found.
        found_len: u32,
        /// Width found.
        found_bits: u32,
    },
    /// A sender that is not in the cohort, or a frame whose author is not its sender.
    #[error("{from} has no place in this round")]
    UnknownSender {
        /// Sender.
        from: PartyId,
    },
    /// A second vector from one client.
    #[error("client {client} has already delivered")]
    Duplicate {
        /// Client.
        client: u64,
    },
    /// The round is over.
    #[error("the round is over")]
    Late,
    /// Unused bits of the last byte are set: two frames must not mean the same vector.
    #[error("padding bits of the frame are not zero")]
    Padding,
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// Allowed range, in words.
        expected: &'static str,
        /// Value found.
        found: u64,
    },
    /// A signature that is not that of the author's pinned key over this frame.
    #[error("the signature of client {client} does not fit the frame and the key that the roster has for it")]
    Signature {
        /// The author.
        client: u64,
    },
    /// A key that is not in the roster, or one that the roster refuses.
    #[error("client {client} {problem}")]
    Identity {
        /// The client.
        client: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A public key of low order: what would be agreed with it is known to everybody.
    #[error("a public key leads to an all-zero shared secret")]
    AllZero,
    /// A ciphertext that was changed, or is for someone else.
    #[error("a ciphertext was changed or is not for this receiver, session and purpose")]
    Ciphertext,
    /// Another cohort, shape, graph or plan than this party's.
    #[error("the parties disagree about the round: cohort, roster, shape, graph or thresholds differ")]
    Context,
    /// A list in a frame that is out of order, or names someone who has no place in it.
    #[error("entry {position} of the {list} names member {found}, which has no place there")]
    List {
        /// Which list.
        list: &'static str,
        /// Position in it.
        position: usize,
        /// Member found.
        found: u64,
    },
    /// A set of survivors that would uncover more than the sum of many.
    #[error("the set of survivors is refused: {what} is {found}, and {limit} is the limit")]
    Survivors {
        /// Which number.
        what: &'static str,
        /// The number.
        found: usize,
        /// Its limit.
        limit: usize,
    },
    /// A second request, for another set than the first: nothing more is opened in this session.
    #[error("another set of survivors was agreed to in this session before")]
    AnotherSet,
    /// Too few of the clients have signed the set of survivors.
    #[error("{found} signatures of the set of survivors, at least {needed} are needed")]
    Quorum {
        /// Signatures found.
        found: usize,
        /// The least number.
        needed: usize,
    },
    /// What a key holder sent bears its signature and is wrong.
    #[error("key holder {holder} {problem}")]
    Holder {
        /// The author.
        holder: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value beyond the bound. Which one, and how large, is not said: it is secret.
    #[error("a value of the vector is not within -{bound}..={bound}, the bound that the plan was made for")]
    Bound {
        /// B.
        bound: u64,
    },
    /// A key set-up that was begun before.
    #[error("this epoch was begun before: a key set-up that begins again takes a new epoch")]
    UsedEpoch,
    /// A public key of another set-up than the one that the parties agreed on.
    #[error("the public key is not of this key set-up: its epoch, seed, thresholds or ring differ")]
    ForeignKey,
    /// Bytes of another format, or of a version that this build does not know.
    #[error("no {what} of version {expected}: it begins with {magic:02x?}, version {version}")]
    Format {
        /// What was expected.
        what: &'static str,
        /// Version known here.
        expected: u8,
        /// First four bytes.
        magic: [u8; 4],
        /// Version found.
        version: u8,
    },
    /// A share that is no share.
    #[error(transparent)]
    Share(#[from] ShamirError),
    /// A kernel refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Parameters that no safe ring carries, or polynomials that are none of the session's.
    #[error(transparent)]
    Lattice(#[from] HeError),
    /// Packed shares that are no shares.
    #[error(transparent)]
    Packing(#[from] PackingError),
    /// A key that is not the pinned one.
    #[error("key holder {holder} has other keys in the session")]
    HolderKey {
        /// The holder.
        holder: u16,
    },
    /// A signature that is not that of the holder's pinned key over this frame.
    #[error("the signature of key holder {holder} does not fit the frame and the key that the session has for it")]
    HolderSignature {
        /// The holder.
        holder: u16,
    },
    /// A second answer of a holder, or a second request for the same.
    #[error("key holder {holder} has answered in this session")]
    HolderAnswered {
        /// The holder.
        holder: u16,
    },
}
