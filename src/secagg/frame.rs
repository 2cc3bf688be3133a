//! Frames of version 1: a fixed header and bit-packed words.
//!
//! ```text
//! 0  magic "VS"   2  version   3  kind   4  session [16]   20 round u32   24 attempt u32
//! 28 client u64   36 len u32   40 bits u32   44 payload: ceil(len * bits / 8) bytes
//! ```
//! Integers are little-endian; value `j` occupies bits `[j * bits, (j + 1) * bits)` of the payload,
//! least significant first; the unused bits of the last byte are zero. Lengths are checked before
//! anything is allocated.

use super::{SecAggError, SessionId, VectorShape};

/// Version written and accepted.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER: usize = 44;
/// Kind: a client's vector.
pub const KIND_INPUT: u8 = 1;
/// Kind: the server's announcement of a round (no payload).
pub const KIND_ANNOUNCE: u8 = 2;

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: u8,
    /// Which aggregation it belongs to.
    pub id: SessionId,
    /// Author.
    pub client: u64,
    /// Shape of the payload, or of the vectors that are asked for.
    pub shape: VectorShape,
}

/// Writes the header; the payload is appended by the caller.
#[must_use]
pub fn write_header(header: &Header, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + capacity);
    out.extend_from_slice(b"VS");
    out.push(VERSION);
    out.push(header.kind);
    out.extend_from_slice(&header.id.session);
    out.extend_from_slice(&header.id.round.to_le_bytes());
    out.extend_from_slice(&header.id.attempt.to_le_bytes());
    out.extend_from_slice(&header.client.to_le_bytes());
    out.extend_from_slice(&header.shape.len.to_le_bytes());
    out.extend_from_slice(&header.shape.bits.to_le_bytes());
    out
}

fn word<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.copy_from_slice(&frame[at..at + N]);
    out
}

/// Reads and checks a header: magic, version, kind, session and shape.
pub fn read_header(frame: &[u8], kind: u8, id: &SessionId) -> Result<Header, SecAggError> {
    if frame.len() < HEADER {
        return Err(SecAggError::Truncated { expected: HEADER, found: frame.len() });
    }
    if &frame[..2] != b"VS" || frame[2] != VERSION {
        return Err(SecAggError::Version { expected: VERSION, magic: word(frame, 0), version: frame[2] });
    }
    if frame[3] != kind {
        return Err(SecAggError::Kind { expected: kind, found: frame[3] });
    }
    let found = SessionId {
        session: word(frame, 4),
        round: u32::from_le_bytes(word(frame, 20)),
        attempt: u32::from_le_bytes(word(frame, 24)),
    };
    if found != *id {
        return Err(SecAggError::ForeignSession {
            round: id.round,
            attempt: id.attempt,
            found_round: found.round,
            found_attempt: found.attempt,
        });
    }
    let shape = VectorShape { len: u32::from_le_bytes(word(frame, 36)), bits: u32::from_le_bytes(word(frame, 40)) };
    Ok(Header { kind, id: found, client: u64::from_le_bytes(word(frame, 28)), shape })
}

/// The aggregation that a frame says it belongs to; `None` if it is no frame of ours. Its machine checks the rest.
#[must_use]
pub fn session(frame: &[u8]) -> Option<SessionId> {
    let ours = frame.len() >= HEADER && &frame[..2] == b"VS" && frame[2] == VERSION;
    ours.then(|| SessionId {
        session: word(frame, 4),
        round: u32::from_le_bytes(word(frame, 20)),
        attempt: u32::from_le_bytes(word(frame, 24)),
    })
}

/// Checks that a frame is about vectors of `shape`.
///
/// # Errors
/// [`SecAggError::Shape`].
pub fn check_shape(header: &Header, shape: VectorShape) -> Result<(), SecAggError> {
    let found = header.shape;
    if found == shape {
        return Ok(());
    }
    Err(SecAggError::Shape { len: shape.len, bits: shape.bits, found_len: found.len, found_bits: found.bits })
}

/// Checks that the frame has exactly the payload of `shape` and returns it.
pub fn payload<'a>(frame: &'a [u8], header: &Header, shape: VectorShape) -> Result<&'a [u8], SecAggError> {
    check_shape(header, shape)?;
    let expected = HEADER + shape.packed_len();
    if frame.len() != expected {
        return Err(SecAggError::Truncated { expected, found: frame.len() });
    }
    let body = &frame[HEADER..];
    check_packed(body, shape)?;
    Ok(body)
}

/// Checks length and padding of a packed vector.
///
/// # Errors
/// Another number of bytes than the shape's, a one in an unused bit.
pub fn check_packed(packed: &[u8], shape: VectorShape) -> Result<(), SecAggError> {
    let expected = shape.packed_len();
    if packed.len() != expected {
        return Err(SecAggError::Truncated { expected, found: packed.len() });
    }
    let used = (u64::from(shape.len) * u64::from(shape.bits)) % 8;
    if used != 0 && packed.last().is_some_and(|&b| b >> used != 0) {
        return Err(SecAggError::Padding);
    }
    Ok(())
}

/// Appends `words` packed at `bits` bits each; values must be below `2^bits`.
pub fn pack(words: impl Iterator<Item = u64>, bits: u32, out: &mut Vec<u8>) {
    if bits == 8 {
        out.extend(words.map(|w| w as u8));
        return;
    }
    let mut held: u128 = 0;
    let mut have = 0;
    for w in words {
        held |= u128::from(w) << have;
        have += bits;
        if have >= 64 {
            out.extend_from_slice(&(held as u64).to_le_bytes());
            held >>= 64;
            have -= 64;
        }
    }
    let rest = (held as u64).to_le_bytes();
    out.extend_from_slice(&rest[..have.div_ceil(8) as usize]);
}

/// Calls `each(index, value)` for every packed value. `body` must hold [`VectorShape::packed_len`] bytes.
pub fn unpack(body: &[u8], shape: VectorShape, mut each: impl FnMut(usize, u64)) {
    if shape.bits == 8 {
        for (j, &b) in body.iter().enumerate() {
            each(j, u64::from(b));
        }
        return;
    }
    let mask = (1u64 << shape.bits) - 1;
    let mut held: u128 = 0;
    let mut have = 0;
    let mut bytes = body.chunks(8);
    for j in 0..shape.len as usize {
        if have < shape.bits {
            let mut limb = [0u8; 8];
            if let Some(chunk) = bytes.next() {
                limb[..chunk.len()].copy_from_slice(chunk);
            }
            held |= u128::from(u64::from_le_bytes(limb)) << have;
            have += 64;
        }
        each(j, held as u64 & mask);
        held >>= shape.bits;
        have -= shape.bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_round_trips(bits in 1u32..=63, values in proptest::collection::vec(any::<u64>(), 0..200)) {
            let mask = (1u64 << bits) - 1;
            let values: Vec<u64> = values.iter().map(|v| v & mask).collect();
            let shape = VectorShape { len: values.len() as u32, bits };
            let mut body = Vec::new();
            pack(values.iter().copied(), bits, &mut body);
            prop_assert_eq!(body.len(), shape.packed_len());
            let mut back = vec![0u64; values.len()];
            unpack(&body, shape, |j, v| back[j] = v);
            prop_assert_eq!(back, values);
        }
    }
}
