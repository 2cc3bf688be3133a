//! Frames of `oneshot`: the header of [`crate::secagg::frame`], then a body. The header names the client that is the author
//! or the receiver, or the holder by its number; its shape is that of what clients hand over. Members are called by their
//! place in the cohort.
//!
//! ```text
//! 48 ANNOUNCE  server > client   context [32]
//! 49 INPUT     client > server   statement-1, ciphertext, a sealed share for each holder, signature of the statement
//! 50 RELAY     server > holder   member u32, statement, signature, path [32 each], sealed share
//! 51 OPEN      server > holder   survivors (bitmap), view [32]
//! 52 ANSWER    holder > server   sum of shares (30 bits a value), signature of view | sum
//! 53 LACKS     holder > server   survivors whose shares it lacks (bitmap), signature of view | bitmap
//!
//! statement    weight u32, channel key [32], SHA-256 of the ciphertext, root of the tree of sealed shares
//! statement-1  its first two: the others are computed
//! ciphertext   residues, 30 bits each
//! ```
//! The hash of the ciphertext is that of the hashes of its blocks. Every length is fixed by the session, and checked before
//! anything is allocated.

use super::plan::Plan;
use super::session::{Phase, Session};
use crate::backend::packed_len;
use crate::he::params::prime_bits;
use crate::math::packed::SHARE_BITS;
use crate::secagg::channel::TAG_BYTES;
use crate::secagg::frame;
use crate::secagg::identity::SIGNATURE_BYTES;
use crate::secagg::wire::exactly;
use crate::secagg::{PartyId, SecAggError};

/// The server announces the round.
pub const ANNOUNCE: u8 = 48;
/// A client's message.
pub const INPUT: u8 = 49;
/// What of it a holder needs.
pub const RELAY: u8 = 50;
/// Whose shares a holder is to add.
pub const OPEN: u8 = 51;
/// Their sum.
pub const ANSWER: u8 = 52;
/// Those that a holder has no share of.
pub const LACKS: u8 = 53;

/// Bits of a residue as it travels: all primes have as many.
pub const RESIDUE_BITS: u32 = 30;
/// Bytes of a statement.
pub const STATEMENT: usize = 4 + 3 * 32;
/// Bytes of it that travel with a ciphertext.
pub const STATED: usize = 4 + 32;

/// The phase of a kind of frame.
#[must_use]
pub const fn phase(kind: u8) -> Option<Phase> {
    Some(match kind {
        ANNOUNCE | INPUT | RELAY => Phase::Input,
        OPEN | ANSWER | LACKS => Phase::Open,
        _ => return None,
    })
}

/// Bytes of a ciphertext.
#[must_use]
pub fn ciphertext_bytes(plan: &Plan) -> usize {
    debug_assert!(plan.vector().ring.basis().primes().all(|p| prime_bits(p) == RESIDUE_BITS));
    packed_len(plan.vector().blocks as usize * plan.vector().ring.len(), RESIDUE_BITS)
}

/// Bytes of a share in the clear.
#[must_use]
pub fn share_bytes(plan: &Plan) -> usize {
    packed_len(plan.share_len(), SHARE_BITS)
}

/// Bytes of a sealed share.
#[must_use]
pub fn sealed_bytes(plan: &Plan) -> usize {
    share_bytes(plan) + TAG_BYTES
}

/// Hashes of a path from a sealed share to the root.
#[must_use]
pub fn path_len(plan: &Plan) -> usize {
    usize::from(plan.request().holders).next_power_of_two().ilog2() as usize
}

/// Bytes of a client's frame.
pub(super) fn input_bytes(plan: &Plan) -> usize {
    let shares = usize::from(plan.request().holders) * sealed_bytes(plan);
    frame::HEADER + STATED + ciphertext_bytes(plan) + shares + SIGNATURE_BYTES
}

/// The body of a frame of `kind` from or to `party`, a client or a holder, which has `len` bytes.
///
/// # Errors
/// Another version, kind, session, shape, party or length.
pub fn body<'a>(
    session: &Session,
    bytes: &'a [u8],
    kind: u8,
    party: PartyId,
    len: usize,
) -> Result<&'a [u8], SecAggError> {
    let body = session.place().body(bytes, kind, party)?;
    exactly(body, len)?;
    Ok(body)
}

/// A frame of `kind` from or to `party`.
#[must_use]
pub fn frame(session: &Session, kind: u8, party: PartyId, parts: &[&[u8]]) -> Vec<u8> {
    session.place().frame(kind, party, parts)
}
