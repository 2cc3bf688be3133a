//! What the frames of all protocols have in common behind the header of [`super::frame`]: who is named in it, signatures
//! at the end of a body, sets as bitmaps, lists with their number of entries in front.
//!
//! A length is checked against what the session allows before anything is allocated; bytes that are left over are refused.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::frame::{self, HEADER, Header};
use super::identity::SIGNATURE_BYTES;
use super::{PartyId, SecAggError, SessionId, VectorShape};

/// A signature.
pub type Signature = [u8; SIGNATURE_BYTES];

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

/// The number of a party in a header: clients and holders have kinds of frames of their own.
const fn number(party: PartyId) -> u64 {
    match party {
        PartyId::Server => 0,
        PartyId::Client(client) => client,
        PartyId::Holder(holder) => holder as u64,
    }
}

/// What the headers of one round, or of one key set-up, have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Session, round, attempt.
    pub id: SessionId,
    /// Length and width.
    pub shape: VectorShape,
}

impl Place {
    /// A frame of `kind` to or from `party`, a client or a holder.
    #[must_use]
    pub fn frame(&self, kind: u8, party: PartyId, parts: &[&[u8]]) -> Vec<u8> {
        let header = Header { kind, id: self.id, client: number(party), shape: self.shape };
        let mut out = frame::write_header(&header, parts.iter().map(|p| p.len()).sum());
        for part in parts {
            out.extend_from_slice(part);
        }
        out
    }

    /// The body of a frame of `kind` to or from `party`.
    ///
    /// # Errors
    /// Another version, kind, session, shape or party.
    pub fn body<'a>(&self, bytes: &'a [u8], kind: u8, party: PartyId) -> Result<&'a [u8], SecAggError> {
        let header = frame::read_header(bytes, kind, &self.id)?;
        if header.client != number(party) {
            let from = match party {
                PartyId::Holder(_) => PartyId::Holder(u16::try_from(header.client).unwrap_or(u16::MAX)),
                _ => PartyId::Client(header.client),
            };
            return Err(SecAggError::UnknownSender { from });
        }
        frame::check_shape(&header, self.shape)?;
        Ok(&bytes[HEADER..])
    }

    /// What a frame is answered with that is of another kind than the one waited for: foreign and broken ones are told
    /// apart from late ones.
    #[must_use]
    pub fn refuse(&self, bytes: &[u8], found: u8, expected: Option<u8>) -> SecAggError {
        if let Err(error) = frame::read_header(bytes, found, &self.id) {
            return error;
        }
        match expected {
            Some(expected) if found > expected => SecAggError::Kind { expected, found },
            _ => SecAggError::Late,
        }
    }
}

/// Checks that a body has exactly this length.
///
/// # Errors
/// Another one.
pub fn exactly(body: &[u8], expected: usize) -> Result<(), SecAggError> {
    if body.len() == expected {
        return Ok(());
    }
    Err(SecAggError::Truncated { expected: HEADER + expected, found: HEADER + body.len() })
}

/// Bytes that one task of [`digest`] hashes.
const PART: usize = 1 << 16;

/// SHA-256 of the SHA-256 of each part of 64 KiB, which all cores take.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let hashes: Vec<[u8; 32]> = bytes.par_chunks(PART).map(|part| Sha256::digest(part).into()).collect();
    Sha256::digest(hashes.as_flattened()).into()
}

/// One bit a member, least significant first; unused bits are zero.
#[must_use]
pub fn bitmap(set: &[bool]) -> Vec<u8> {
    set.chunks(8).map(|c| c.iter().enumerate().fold(0, |byte, (i, &s)| byte | u8::from(s) << i)).collect()
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
