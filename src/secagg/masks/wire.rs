//! Frames of `masks`: the header of [`crate::secagg::frame`], then a body. In a frame to a client the header names it, in
//! one from a client its author. Members are called by their place in the cohort; lists are ascending.
//!
//! ```text
//! 16 ANNOUNCE   > context [32]
//! 17 KEYS       < channel key [32], pairwise key [32], commitment [32], signature
//! 18 PEERS      > count u32, then for each neighbor that has sent its keys: member u32, KEYS
//! 19 SHARES     < count u32, then for each of those: member u32, ciphertext [96]; signature
//! 20 DELIVERY   > sharers (bitmap), count u32, then for each neighbor among them: member u32, ciphertext [96]
//! 21 INPUT      < masked vector (packed), signature of view [32] | SHA-256 of the vector
//! 22 SURVIVORS  > survivors (bitmap)
//! 23 CONSENT    < signature of view [32] | survivors
//! 24 OPEN       > survivors (bitmap), count u32, then signatures of the survivors: member u32, signature;
//!                 count u32, then for each neighbor among the survivors: member u32, SHA-256 of its vector, signature
//! 25 UNMASK     < count u32, then: member u32, kind u8 (1 = of the seed, 2 = of the key), share [40]; signature
//! ```
//! With a semi-honest server 22 and 23 are left out and both lists of 24 are empty. A length is checked against what the
//! session allows before anything is allocated; bytes that are left over are refused.

use super::session::{Phase, Session};
use crate::math::shamir::SHARE_BYTES;
use crate::secagg::channel::TAG_BYTES;
use crate::secagg::frame::{self, HEADER, Header};
use crate::secagg::identity::SIGNATURE_BYTES;
use crate::secagg::{SecAggError, SessionId};

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

/// A signature.
pub type Signature = [u8; SIGNATURE_BYTES];

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

/// The kind byte of a frame.
///
/// # Errors
/// Fewer bytes than a header.
pub fn kind(bytes: &[u8]) -> Result<u8, SecAggError> {
    if bytes.len() < HEADER {
        return Err(SecAggError::Truncated { expected: HEADER, found: bytes.len() });
    }
    Ok(bytes[3])
}

/// The body of a frame of `kind` from or to member `index`.
///
/// # Errors
/// Another version, kind, session, shape or client.
pub fn body<'a>(session: &Session, bytes: &'a [u8], kind: u8, index: usize) -> Result<&'a [u8], SecAggError> {
    let header = frame::read_header(bytes, kind, &session.id())?;
    if header.client != session.cohort()[index] {
        return Err(SecAggError::UnknownSender { from: crate::secagg::PartyId::Client(header.client) });
    }
    frame::check_shape(&header, session.shape())?;
    Ok(&bytes[HEADER..])
}

/// A frame of `kind` from or to member `index`.
#[must_use]
pub fn frame(session: &Session, kind: u8, index: usize, parts: &[&[u8]]) -> Vec<u8> {
    let id: SessionId = session.id();
    let header = Header { kind, id, client: session.cohort()[index], shape: session.shape() };
    let mut out = frame::write_header(&header, parts.iter().map(|p| p.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Reads a body from front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `body`.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, read: HEADER }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], SecAggError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let (expected, found) = (self.read.saturating_add(len), self.read + self.rest.len());
            return Err(SecAggError::Truncated { expected, found });
        };
        self.rest = rest;
        self.read += len;
        Ok(taken)
    }

    /// The next bytes as an array.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], SecAggError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// A list of entries of `size` bytes behind its number of entries, at most `most`.
    ///
    /// # Errors
    /// More entries, or fewer bytes than they take.
    pub fn list(
        &mut self,
        size: usize,
        most: usize,
    ) -> Result<impl Iterator<Item = Reader<'a>> + use<'a>, SecAggError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > most {
            let found = count as u64;
            return Err(SecAggError::OutOfRange {
                name: "entries of a list",
                expected: "as many as have a place",
                found,
            });
        }
        Ok(self.take(count * size)?.chunks_exact(size).map(Reader::new))
    }

    /// A set of `members`.
    ///
    /// # Errors
    /// Too few bytes, a one in an unused bit.
    pub fn set(&mut self, members: usize) -> Result<Vec<bool>, SecAggError> {
        let bytes = self.take(members.div_ceil(8))?;
        if !members.is_multiple_of(8) && bytes.last().is_some_and(|b| b >> (members % 8) != 0) {
            return Err(SecAggError::Padding);
        }
        Ok((0..members).map(|i| bytes[i / 8] >> (i % 8) & 1 == 1).collect())
    }

    /// The number of a member in front of an entry.
    ///
    /// # Errors
    /// Fewer than four bytes are left.
    pub fn member(&mut self) -> Result<usize, SecAggError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Public keys.
    ///
    /// # Errors
    /// Fewer than 96 bytes are left.
    pub fn keys(&mut self) -> Result<Keys, SecAggError> {
        Ok(Keys { channel: self.array()?, pairwise: self.array()?, commitment: self.array()? })
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(&self) -> Result<(), SecAggError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(SecAggError::Truncated { expected: self.read, found: self.read + self.rest.len() })
    }
}

/// Compares the members of a list with those that have a place in it.
///
/// # Errors
/// A member too many, too few, or out of order.
pub fn same_members(list: &'static str, found: &[usize], expected: &[usize]) -> Result<(), SecAggError> {
    let position = (0..found.len().max(expected.len())).find(|&i| found.get(i) != expected.get(i));
    match position {
        None => Ok(()),
        Some(position) => {
            let member = found.get(position).or(expected.get(position)).copied().unwrap_or_default();
            Err(SecAggError::List { list, position, found: member as u64 })
        }
    }
}

/// The number in front of a list.
#[must_use]
pub const fn count(entries: usize) -> [u8; 4] {
    (entries as u32).to_le_bytes()
}

/// Splits a body into what is signed and its signature at the end.
///
/// # Errors
/// Fewer bytes than a signature.
pub fn signed(body: &[u8]) -> Result<(&[u8], Signature), SecAggError> {
    match body.split_last_chunk::<SIGNATURE_BYTES>() {
        Some((signed, signature)) => Ok((signed, *signature)),
        None => Err(SecAggError::Truncated { expected: HEADER + SIGNATURE_BYTES, found: HEADER + body.len() }),
    }
}
