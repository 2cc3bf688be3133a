//! What travels: messages and service of `proto/veilsum/v1`, and what identifies a message.

// Generated: as the generator writes it.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1;

use sha2::{Digest, Sha256};

use super::keys::Role;
use crate::secagg::PartyId;

/// Version of the protocol that is spoken here: that of the package, counted on where an older party would misunderstand.
pub const VERSION: u32 = 1;
/// Most bytes of a frame inside a [`v1::SubmitRequest`]; longer ones are uploaded.
pub const INLINE: usize = 64 << 10;
/// Bytes of a chunk of an upload or a download. Each layer has some in memory for every party that is served.
pub const CHUNK: usize = 64 << 10;
/// Most bytes of one message of the transport: a chunk, a plan, a frame for a key holder, and what wraps them.
pub const MOST_MESSAGE: usize = 16 << 20;
/// Most bytes of a frame of HTTP/2: a chunk, and what wraps it, is one.
pub const FRAME: u32 = 128 << 10;
/// Program and version, as parties tell each other.
pub const SOFTWARE: &str = concat!("veilsum ", env!("CARGO_PKG_VERSION"));

/// The party of the protocols that has a role.
#[must_use]
pub const fn party(role: Role) -> PartyId {
    match role {
        Role::Server => PartyId::Server,
        Role::Client(number) => PartyId::Client(number),
        Role::Holder(number) => PartyId::Holder(number),
    }
}

/// The role of a party of the protocols.
#[must_use]
pub const fn role(party: PartyId) -> Role {
    match party {
        PartyId::Server => Role::Server,
        PartyId::Client(number) => Role::Client(number),
        PartyId::Holder(number) => Role::Holder(number),
    }
}

/// The identity of a message: who says what in which attempt. The same bytes again are the same message.
#[must_use]
pub fn message_id(from: Role, round: u32, attempt: u32, sha256: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum message v1");
    match from {
        Role::Server => hash.update([0]),
        Role::Client(number) => {
            hash.update([1]);
            hash.update(number.to_le_bytes());
        }
        Role::Holder(number) => {
            hash.update([2]);
            hash.update(number.to_le_bytes());
        }
    }
    hash.update(round.to_le_bytes());
    hash.update(attempt.to_le_bytes());
    hash.update(sha256);
    hash.finalize().into()
}

/// A field of fixed length.
#[must_use]
pub fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
