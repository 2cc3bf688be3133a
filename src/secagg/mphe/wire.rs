//! Frames of `mphe`: the header of [`crate::secagg::frame`], then a body. The header names the client or holder that a frame is
//! to or from; clients and holders have different kinds of frames.
//!
//! ```text
//! key set-up (header: epoch, round 0, attempt 0, N, L); all that is signed bears 64 bytes of signature behind it
//! 64 BEGIN        > context [32]
//! 65 COMMIT       < X25519 key [32], commitment [32], signature
//! 66 ROLL         > COMMIT of all K holders, ascending
//! 67 SHARES       < contribution, signature, then for each other holder: encrypted share, signature
//! 68 DELIVERY     > contribution and signature of all K, then of each other holder: encrypted share, signature
//! 69 SIGN         < signature of the key
//! 70 CERTIFICATE  > K signatures of the key
//! 71 COMPLAINT    < accused u16, misdeed u8, signature
//! 72 ABORT        > accused u16 (0: several or nobody), misdeed u8
//! round (header: session, round, attempt, d, b)
//! 80 ANNOUNCE     > context [32]                                    to a client
//! 81 INPUT        < ciphertext, signature                          of a client
//! 82 REQUEST      > context [32], survivors (bitmap), of each: hash of the ciphertext [32], signature;
//!                   then the sum, or every ciphertext               to a holder
//! 83 AGREE        < root [32], signature                           of a holder
//! 84 OPEN         > t times: holder u16, signature of the root, ascending
//! 85 PART         < part of the opening, signature
//! ```
//! Contribution, share, ciphertext and part are those of [`crate::he::wire`]. Every length follows from the plan and is
//! checked before anything is allocated; bytes that are left over are refused.

use crate::he::wire::MAGIC;
use crate::he::{Ciphertext, Contribution, Ring, ShareDeal};
use crate::secagg::SecAggError;
use crate::secagg::channel::TAG_BYTES;
use crate::secagg::identity::SIGNATURE_BYTES;
pub use crate::secagg::wire::{Place, Reader, Signature, exactly, kind, signed};

/// The server announces a key set-up.
pub const BEGIN: u8 = 64;
/// A holder's X25519 key and its commitment.
pub const COMMIT: u8 = 65;
/// Those of all holders.
pub const ROLL: u8 = 66;
/// A holder's contribution and its encrypted shares.
pub const SHARES: u8 = 67;
/// All contributions, and the shares for one holder.
pub const DELIVERY: u8 = 68;
/// A holder's signature of the finished key.
pub const SIGN: u8 = 69;
/// The signatures of all holders.
pub const CERTIFICATE: u8 = 70;
/// A holder accuses another.
pub const COMPLAINT: u8 = 71;
/// The server gives up.
pub const ABORT: u8 = 72;
/// The server announces a round.
pub const ANNOUNCE: u8 = 80;
/// A client's ciphertext.
pub const INPUT: u8 = 81;
/// What the clients have signed, and the sum or its terms.
pub const REQUEST: u8 = 82;
/// A holder's signature of that.
pub const AGREE: u8 = 83;
/// The set that opens.
pub const OPEN: u8 = 84;
/// A holder's part of the opening.
pub const PART: u8 = 85;

/// A holder's X25519 key and its commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Encrypts shares, and makes pair secrets.
    pub channel: [u8; 32],
    /// Digest of the commitment.
    pub commitment: [u8; 32],
}

impl Entry {
    /// What is signed and sent.
    #[must_use]
    pub fn bytes(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..32].copy_from_slice(&self.channel);
        out[32..].copy_from_slice(&self.commitment);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// Fewer than 64 bytes are left.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, SecAggError> {
        Ok(Self { channel: reader.array()?, commitment: reader.array()? })
    }
}

/// Bytes of a signed contribution.
#[must_use]
pub fn contribution_len(ring: &Ring) -> usize {
    Contribution::encoded_len(ring) + SIGNATURE_BYTES
}

/// Bytes of an encrypted and signed share.
#[must_use]
pub fn sealed_len(ring: &Ring) -> usize {
    ShareDeal::encoded_len(ring) + TAG_BYTES + SIGNATURE_BYTES
}

/// Bytes of an input behind its header.
#[must_use]
pub fn input_len(ring: &Ring, blocks: usize) -> usize {
    Ciphertext::encoded_len(ring, blocks) + SIGNATURE_BYTES
}

/// Checks magic and version of a file of this room.
pub(super) fn check_format(what: &'static str, bytes: &[u8], magic: [u8; 4], version: u8) -> Result<(), SecAggError> {
    debug_assert!(magic != MAGIC);
    let Some((found, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(SecAggError::Truncated { expected: 5, found: bytes.len() });
    };
    let Some(&number) = rest.first() else { return Err(SecAggError::Truncated { expected: 5, found: bytes.len() }) };
    if *found != magic || number != version {
        return Err(SecAggError::Format { what, expected: version, magic: *found, version: number });
    }
    Ok(())
}
