//! Uniform integers at fixed places of a keystream, in constant time: ternary values, residues, wide intervals.
//!
//! All are `floor(U r / 2^b)` with U uniform on b bits: every value has `floor(2^b / r)` or one more of the `2^b` inputs,
//! so that the total variation distance to the uniform law on r values is at most `r / 2^(b + 2)`. Rejection would be
//! exact and take a time that depends on the secret, or leave the fixed places; no function here is further than
//! `2^-128` from uniform.

use zeroize::Zeroize;

use super::{SampleError, within};
use crate::math::modular::Modulus;
use crate::math::prg::{STREAM_BYTES, StreamKey};

/// Bytes of keystream of a [`ternary`] value.
pub const TERNARY_STRIDE: u64 = 16;
/// Bytes of keystream of one of the [`residues`].
pub const RESIDUE_STRIDE: u64 = 24;
/// Bytes of keystream of a value of [`Interval`].
pub const INTERVAL_STRIDE: u64 = 32;

/// Values drawn at once: 4 KiB of keystream at most.
const CHUNK: usize = 128;

/// Calls `set` with each of `len` values and its `W` words of 64 bits, those at bytes `8 W (first + i)` of `key`.
fn words<const W: usize>(key: &StreamKey, first: u64, len: usize, mut set: impl FnMut(usize, [u64; W])) {
    let mut bytes = [0u8; CHUNK * 32];
    for start in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - start);
        let part = &mut bytes[..count * W * 8];
        key.fill((first + start as u64) * W as u64 * 8, part);
        for i in 0..count {
            let word = |k: usize| {
                let mut w = [0; 8];
                w.copy_from_slice(&part[(i * W + k) * 8..][..8]);
                u64::from_le_bytes(w)
            };
            set(start + i, std::array::from_fn(word));
        }
    }
    bytes.zeroize();
}

/// Refuses more values of `stride` bytes than a key has keystream for.
fn fits(first: u64, len: usize, stride: u64) -> Result<(), SampleError> {
    let last = first as f64 + len as f64;
    within("values under one key", last, 0.0, (STREAM_BYTES / stride) as f64)
}

/// `floor(U r / 2^(64 W))` of little-endian words.
fn scaled<const W: usize>(u: [u64; W], r: u64) -> u64 {
    u.into_iter().fold(0, |carry, word| ((u128::from(word) * u128::from(r) + u128::from(carry)) >> 64) as u64)
}

/// Uniform on `{-1, 0, 1}`, as signed integers mod `2^32`: value i from the 16 bytes at `16 (first + i)`, little-endian,
/// `floor(3 U / 2^128) - 1`. A value's distance from uniform is `(2/3) 2^-128`; variance 2/3.
///
/// # Errors
/// [`SampleError::OutOfRange`] if the keystream of one key ends before.
pub fn ternary(key: &StreamKey, first: u64, out: &mut [u32]) -> Result<(), SampleError> {
    fits(first, out.len(), TERNARY_STRIDE)?;
    words::<2>(key, first, out.len(), |i, u| out[i] = (scaled(u, 3) as u32).wrapping_sub(1));
    Ok(())
}

/// Uniform residues mod p: value i from the 24 bytes at `24 (first + i)`, `floor(U p / 2^192)`. The distance of a
/// residue from uniform is below `2^-164`, that of `2^36` of them together below `2^-128`.
///
/// # Errors
/// [`SampleError::OutOfRange`] if the keystream of one key ends before.
pub fn residues(key: &StreamKey, first: u64, p: Modulus, out: &mut [u32]) -> Result<(), SampleError> {
    fits(first, out.len(), RESIDUE_STRIDE)?;
    let p = u64::from(p.value());
    words::<3>(key, first, out.len(), |i, u| out[i] = scaled(u, p) as u32);
    Ok(())
}

/// The integers `-bound ..= bound`, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    bound: u128,
}

impl Interval {
    /// Greatest bound: the interval has fewer than `2^126` members.
    pub const MAX_BOUND: u128 = (1 << 125) - 1;

    /// The interval of `bound`, 0 to [`Self::MAX_BOUND`].
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`].
    pub fn new(bound: u128) -> Result<Self, SampleError> {
        if bound > Self::MAX_BOUND {
            let most = Self::MAX_BOUND as f64;
            return Err(SampleError::OutOfRange { name: "bound", least: 0.0, most, found: bound as f64 });
        }
        Ok(Self { bound })
    }

    /// Its end.
    #[must_use]
    pub const fn bound(self) -> u128 {
        self.bound
    }

    /// Calls `set` with every number and its value **plus the bound**, in `[0, 2 bound]`: value i from the 32 bytes at
    /// `32 (first + i)`, `floor(U (2 bound + 1) / 2^256)`, within `2^-132` of uniform.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`] if the keystream of one key ends before.
    pub fn fill(
        self,
        key: &StreamKey,
        first: u64,
        len: usize,
        mut set: impl FnMut(usize, u128),
    ) -> Result<(), SampleError> {
        fits(first, len, INTERVAL_STRIDE)?;
        let members = 2 * self.bound + 1;
        words::<4>(key, first, len, |i, u| set(i, high_product(u, members)));
        Ok(())
    }
}

/// `floor(U r / 2^256)` for `r < 2^126`: the products with the halves of r, one word apart.
fn high_product(u: [u64; 4], r: u128) -> u128 {
    let (low, high) = (u128::from(r as u64), r >> 64);
    // Position k holds u_k low + u_(k-1) high; both products are below 2^128, and so is their sum with a carry in parts.
    let (mut carry, mut previous) = (0u128, 0u128);
    for word in u {
        let a = u128::from(word) * low;
        let sum = u128::from(a as u64) + u128::from(previous as u64) + u128::from(carry as u64);
        carry = (a >> 64) + (previous >> 64) + (carry >> 64) + (sum >> 64);
        previous = u128::from(word) * high;
    }
    previous + carry
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;
    use crate::math::prg::Cipher;

    fn key(n: u8) -> StreamKey {
        StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
    }

    /// The definition, with integers of any size.
    fn expected(key: &StreamKey, at: u64, bytes: usize, r: u128) -> BigUint {
        let mut u = vec![0u8; bytes];
        key.fill(at * bytes as u64, &mut u);
        (BigUint::from_bytes_le(&u) * r) >> (8 * bytes)
    }

    #[test]
    fn values_are_those_of_the_definition_wherever_they_begin() {
        let p = Modulus::new(1_073_479_681).unwrap();
        let members = 2 * 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128 + 1;
        let interval = Interval::new(members / 2).unwrap();
        for first in [0u64, 5, 127, 128, 300] {
            let (mut t, mut r) = (vec![0u32; 300], vec![0u32; 300]);
            ternary(&key(1), first, &mut t).unwrap();
            residues(&key(2), first, p, &mut r).unwrap();
            let mut wide = vec![0u128; 300];
            interval.fill(&key(3), first, 300, |i, v| wide[i] = v).unwrap();
            for i in [0usize, 1, 126, 127, 128, 129, 255, 256, 299] {
                let at = first + i as u64;
                assert_eq!(BigUint::from(t[i].wrapping_add(1)), expected(&key(1), at, 16, 3));
                assert_eq!(BigUint::from(r[i]), expected(&key(2), at, 24, u128::from(p.value())));
                assert_eq!(BigUint::from(wide[i]), expected(&key(3), at, 32, members));
            }
        }
    }

    #[test]
    fn products_of_the_largest_words_do_not_overflow() {
        let r = (1u128 << 126) - 1;
        for u in [[u64::MAX; 4], [0, 0, 0, u64::MAX], [u64::MAX, 0, 0, 0], [0; 4]] {
            let bytes: Vec<u8> = u.iter().flat_map(|w| w.to_le_bytes()).collect();
            let exact: BigUint = (BigUint::from_bytes_le(&bytes) * r) >> 256;
            assert_eq!(BigUint::from(high_product(u, r)), exact);
        }
    }

    #[test]
    fn all_values_are_alike() {
        let mut t = vec![0u32; 30_000];
        ternary(&key(4), 0, &mut t).unwrap();
        for value in [u32::MAX, 0, 1] {
            let found = t.iter().filter(|&&v| v == value).count() as f64;
            assert!((found - 10_000.0).abs() < 5.0 * (20_000.0f64 / 3.0).sqrt(), "{value}: {found}");
        }
        let mut counts = [0f64; 5];
        Interval::new(2).unwrap().fill(&key(5), 0, 50_000, |_, v| counts[v as usize] += 1.0).unwrap();
        assert!(counts.iter().all(|c| (c - 10_000.0).abs() < 5.0 * 8000f64.sqrt()), "{counts:?}");
        Interval::new(0).unwrap().fill(&key(5), 0, 3, |_, v| assert_eq!(v, 0)).unwrap();
    }

    #[test]
    fn a_key_has_an_end_and_an_interval_a_greatest_bound() {
        let mut out = [0u32; 4];
        assert!(ternary(&key(1), STREAM_BYTES / 16 - 4, &mut out).is_ok());
        assert!(matches!(ternary(&key(1), STREAM_BYTES / 16 - 3, &mut out), Err(SampleError::OutOfRange { .. })));
        assert!(Interval::new(Interval::MAX_BOUND).is_ok());
        assert!(Interval::new(1 << 125).is_err());
    }
}
