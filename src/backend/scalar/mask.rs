//! `x_j <- x_j +- k_j` in a ring, `k_j` uniform from the keystream.

use crate::backend::MaskSign;
use crate::math::prg::StreamKey;
use crate::params::{NOISE_STRIDE, Ring};

/// Masks checked words.
pub fn mask(words: &mut [u32], ring: Ring, key: &StreamKey, sign: MaskSign) {
    let modulus = match ring {
        Ring::Bits(b) => 1u64 << b,
        Ring::Prime(p) => u64::from(p),
    };
    for (j, word) in words.iter_mut().enumerate() {
        let value = u64::from(value(ring, key, j)) % modulus;
        let other = if sign == MaskSign::Add { value } else { modulus - value };
        *word = ((u64::from(*word) + other) % modulus) as u32;
    }
}

/// The mask of coordinate j from the s bytes of keystream at `s j`, little-endian, s = [`Ring::mask_bytes`]: mod `2^b`
/// these, of which the low b bits count; mod p `floor(U p / 2^128)` with U the 16 bytes, which is within `p 2^-128` of
/// uniform (total variation).
#[must_use]
pub fn value(ring: Ring, key: &StreamKey, j: usize) -> u32 {
    match ring {
        Ring::Bits(_) => {
            let (mut bytes, stride) = ([0; 4], ring.mask_bytes());
            key.fill((stride * j) as u64, &mut bytes[..stride]);
            u32::from_le_bytes(bytes)
        }
        Ring::Prime(p) => {
            let mut bytes = [0; 16];
            key.fill(NOISE_STRIDE * j as u64, &mut bytes);
            scaled(u128::from_le_bytes(bytes), p)
        }
    }
}

/// `floor(u p / 2^128)`.
fn scaled(u: u128, p: u32) -> u32 {
    let (high, low) = (u >> 64, u & u128::from(u64::MAX));
    ((high * u128::from(p) + ((low * u128::from(p)) >> 64)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_are_scaled_to_the_prime() {
        let p = 1_073_479_681;
        assert_eq!(scaled(0, p), 0);
        assert_eq!(scaled(u128::MAX, p), p - 1);
        assert_eq!(scaled(1 << 127, p), p / 2);
        // The least u that reaches r is ceil(r 2^128 / p).
        for r in [1u128, 2, 1000, u128::from(p) - 1] {
            let (q, rest) = (u128::MAX / u128::from(p), u128::MAX % u128::from(p) + 1);
            let least = r * q + (r * rest).div_ceil(u128::from(p));
            assert_eq!((scaled(least, p), scaled(least - 1, p)), (r as u32, r as u32 - 1));
        }
    }
}
