//! Frames of `masks`: the header of [`crate::secagg::frame`], then a body. In a frame to a client the header names it, in
//! one from a client its author. Members are called by their place in the cohort; lists are ascending.
//!
//! ```text
//! 16 ANNOUNCE   > context [32]
//! 17 KEYS       < channel key [32], pairwise key [32], commitment [32], signature
//! 18 PEERS      > count u32, then for each neighbor that has sent its keys: member u32, KEYS
//! 19 SHARES     < count u32, then for each of those: member u32, ciphertext [96]; signature
//! 20 DELIVERY   > sharers (bitmap), count u32, then for each neighbor among them: member u32, ciphertext [96]
//! 21 INPUT      < masked vector (packed), signature of view [32] | digest of the vector ([`crate::secagg::wire::digest`])
//! 22 SURVIVORS  > survivors (bitmap)
//! 23 CONSENT    < signature of view [32] | survivors
//! 24 OPEN       > survivors (bitmap), count u32, then signatures of the survivors: member u32, signature;
//!                 count u32, then for each neighbor among the survivors: member u32, digest of its vector, signature
//! 25 UNMASK     < count u32, then: member u32, kind u8 (1 = of the seed, 2 = of the key), share [40]; signature
//! ```
//! With a semi-honest server 22 and 23 are left out and both lists of 24 are empty. A length is checked against what the
//! session allows before anything is allocated; bytes that are left over are refused.

use super::session::{Phase, Session};
use crate::math::shamir::SHARE_BYTES;
use crate::secagg::channel::TAG_BYTES;
pub use crate::secagg::wire::{Reader, Signature, count, digest, kind, same_members, signed};
use crate::secagg::{PartyId, SecAggError};

/// The server announces the round.
pub const ANNOUNCE: u8 = 16;
/// A client's public keys.
pub const KEYS: u8 = 17;
/// The public keys of a client's neighbors.
pub const PEERS: u8 = 18;
/// A client's encrypted shares.
pub const SHARES: u8 = 19;
/// The shares that a client's neighbors sent to it, and who has shared.
pub const DELIVERY: u8 = 20;
/// A client's masked vector.
pub const INPUT: u8 = 21;
/// Whose vectors arrived.
pub const SURVIVORS: u8 = 22;
/// A client's signature of that.
pub const CONSENT: u8 = 23;
/// Proof that enough have signed.
pub const OPEN: u8 = 24;
/// A client's shares in the clear.
pub const UNMASK: u8 = 25;

/// Bytes of the encrypted pair of shares of one client for another.
pub const SEALED: usize = 2 * SHARE_BYTES + TAG_BYTES;
/// A share of the seed of a self mask.
pub const OF_SEED: u8 = 1;
/// A share of a pairwise key.
pub const OF_KEY: u8 = 2;

/// A client's public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Encrypts shares.
    pub channel: [u8; 32],
    /// Agrees on masks.
    pub pairwise: [u8; 32],
    /// Commits to the seed of the self mask.
    pub commitment: [u8; 32],
}

impl Keys {
    /// What is signed and sent.
    #[must_use]
    pub fn bytes(&self) -> [u8; 96] {
        let mut out = [0; 96];
        out[..32].copy_from_slice(&self.channel);
        out[32..64].copy_from_slice(&self.pairwise);
        out[64..].copy_from_slice(&self.commitment);
        out
    }
}

/// The phase of a kind of frame.
#[must_use]
pub const fn phase(kind: u8) -> Option<Phase> {
    Some(match kind {
        ANNOUNCE | KEYS => Phase::Keys,
        PEERS | SHARES => Phase::Shares,
        DELIVERY | INPUT => Phase::Input,
        SURVIVORS | CONSENT => Phase::Consistency,
        OPEN | UNMASK => Phase::Unmask,
        _ => return None,
    })
}

/// The body of a frame of `kind` from or to member `index`.
///
/// # Errors
/// Another version, kind, session, shape or client.
pub fn body<'a>(session: &Session, bytes: &'a [u8], kind: u8, index: usize) -> Result<&'a [u8], SecAggError> {
    session.place().body(bytes, kind, PartyId::Client(session.cohort()[index]))
}

/// A frame of `kind` from or to member `index`.
#[must_use]
pub fn frame(session: &Session, kind: u8, index: usize, parts: &[&[u8]]) -> Vec<u8> {
    session.place().frame(kind, PartyId::Client(session.cohort()[index]), parts)
}

impl Reader<'_> {
    /// Public keys.
    ///
    /// # Errors
    /// Fewer than 96 bytes are left.
    pub fn keys(&mut self) -> Result<Keys, SecAggError> {
        Ok(Keys { channel: self.array()?, pairwise: self.array()?, commitment: self.array()? })
    }
}
