//! Shamir's t-of-n sharing of 256-bit secrets over the prime field of `p = 2^61 - 1` (Shamir 1979).
//!
//! A secret is five limbs of 52 bits (the last of 48), each shared by a polynomial of its own of degree `t - 1` whose
//! other coefficients are uniform: t shares give the secret, and t - 1 shares have the same law whatever it is.
//!
//! **Why this field.** Nothing on a secret may take a time that depends on it. `2^61 - 1` needs one product of 64 x 64
//! bits, a shift, an addition and one masked subtraction: no table, no branch, no division, no long carry. GF(2^8) would
//! need tables or many steps a byte and ends at 255 holders; a prime of 256 bits needs a big-number library that is
//! constant in time (`num-bigint` is not); here points go up to `2^61`, so that a complete graph of any size works.
//! A share is 40 bytes. Points, thresholds and interpolation weights are public.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::prg::{STREAM_BYTES, StreamKey};

/// The prime `2^61 - 1`.
pub const P: u64 = (1 << 61) - 1;
/// Limbs of a secret.
pub const LIMBS: usize = 5;
/// Bytes of a share.
pub const SHARE_BYTES: usize = 8 * LIMBS;
/// Bits of a limb of the secret.
const LIMB_BITS: u32 = 52;
/// Bytes of keystream a coefficient: 192 bits mod p are within `p 2^-192 < 2^-131` of uniform (total variation).
const COEFFICIENT_BYTES: usize = 24;

/// What cannot be shared or put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShamirError {
    /// No share at all, or fewer points than the threshold.
    #[error("threshold {threshold} of {points} points, expected 1..={points}")]
    Threshold {
        /// t.
        threshold: usize,
        /// n.
        points: usize,
    },
    /// A point that is zero, not below p, or there twice.
    #[error("point {found} is 0, not below 2^61 - 1 or there twice")]
    Point {
        /// The point.
        found: u64,
    },
    /// More coefficients than one key has keystream for.
    #[error("threshold {threshold} needs more keystream than one key has")]
    Keystream {
        /// t.
        threshold: usize,
    },
    /// Another number of shares than the interpolation was made for.
    #[error("{found} shares, expected {expected}")]
    Count {
        /// Points of the interpolation.
        expected: usize,
        /// Shares given.
        found: usize,
    },
    /// A share whose limb is not below p.
    #[error("limb {limb} of a share is not below 2^61 - 1")]
    NotReduced {
        /// Number of the limb.
        limb: usize,
    },
    /// The shares belong to no secret: they do not fit each other, or were changed.
    #[error("the shares give no 256-bit secret: one of them is wrong, or they belong to different secrets")]
    Mismatch,
}

/// `x` or `x - p`, whichever is below p, for `x < 2 p`.
const fn once(x: u64) -> u64 {
    let less = x.wrapping_sub(P);
    less.wrapping_add(P & 0u64.wrapping_sub(less >> 63))
}

/// `x mod p`: `2^61 = 1`, so the digits in base `2^61` are added.
const fn reduce(x: u128) -> u64 {
    let low = (x as u64) & P;
    let middle = ((x >> 61) as u64) & P;
    let high = (x >> 122) as u64;
    once(once(low + middle) + high)
}

const fn add(a: u64, b: u64) -> u64 {
    once(a + b)
}

const fn sub(a: u64, b: u64) -> u64 {
    once(a + P - b)
}

const fn mul(a: u64, b: u64) -> u64 {
    reduce(a as u128 * b as u128)
}

/// `a^(p-2)`: the inverse of a public number other than 0.
const fn inverse(a: u64) -> u64 {
    let (mut result, mut square, mut rest) = (1, a, P - 2);
    while rest > 0 {
        if rest & 1 == 1 {
            result = mul(result, square);
        }
        square = mul(square, square);
        rest >>= 1;
    }
    result
}

/// One holder's part of a secret. Zeroized on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Share([u64; LIMBS]);

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share(..)")
    }
}

impl Share {
    /// The limbs, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SHARE_BYTES]> {
        let mut out = Zeroizing::new([0; SHARE_BYTES]);
        for (bytes, limb) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *bytes = limb.to_le_bytes();
        }
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// A limb that is not below p: every share has one encoding.
    pub fn from_bytes(bytes: &[u8; SHARE_BYTES]) -> Result<Self, ShamirError> {
        let mut share = Self([0; LIMBS]);
        for (i, (limb, bytes)) in share.0.iter_mut().zip(bytes.as_chunks::<8>().0).enumerate() {
            *limb = u64::from_le_bytes(*bytes);
            if *limb >= P {
                return Err(ShamirError::NotReduced { limb: i });
            }
        }
        Ok(share)
    }
}

/// The five limbs of a secret, bits `[52 l, 52 (l + 1))` little-endian.
fn limbs(secret: &[u8; 32]) -> Zeroizing<[u64; LIMBS]> {
    let word = |at: usize| {
        let mut bytes = [0u8; 8];
        let end = (at + 8).min(32);
        bytes[..end - at].copy_from_slice(&secret[at..end]);
        u64::from_le_bytes(bytes)
    };
    let mut out = Zeroizing::new([0; LIMBS]);
    for (l, limb) in out.iter_mut().enumerate() {
        let bit = l * LIMB_BITS as usize;
        *limb = (word(bit / 8) >> (bit % 8)) & ((1 << LIMB_BITS) - 1);
    }
    out
}

/// The secret of five limbs.
fn join(limbs: &[u64; LIMBS]) -> Result<[u8; 32], ShamirError> {
    // One pass without an early exit.
    let over = limbs.iter().fold(0, |acc, limb| acc | limb >> LIMB_BITS) | limbs[LIMBS - 1] >> 48;
    if over != 0 {
        return Err(ShamirError::Mismatch);
    }
    let mut out = [0u8; 32];
    for (l, limb) in limbs.iter().enumerate() {
        let bit = l * LIMB_BITS as usize;
        for (i, byte) in (*limb << (bit % 8)).to_le_bytes().iter().enumerate() {
            if let Some(out) = out.get_mut(bit / 8 + i) {
                *out |= byte;
            }
        }
    }
    Ok(out)
}

/// 192 bits mod p.
fn uniform(bytes: &[u8; COEFFICIENT_BYTES]) -> u64 {
    let mut low = [0u8; 16];
    low.copy_from_slice(&bytes[..16]);
    let mut high = [0u8; 8];
    high.copy_from_slice(&bytes[16..]);
    let high = reduce(u128::from(u64::from_le_bytes(high)));
    // 2^128 = 2^6 mod p.
    add(reduce(u128::from_le_bytes(low)), mul(high, 1 << 6))
}

fn check_points(points: &[u64]) -> Result<(), ShamirError> {
    let mut sorted = points.to_vec();
    sorted.sort_unstable();
    let twice = sorted.windows(2).find(|w| w[0] == w[1]).map(|w| w[0]);
    match points.iter().copied().find(|&x| x == 0 || x >= P).or(twice) {
        Some(found) => Err(ShamirError::Point { found }),
        None => Ok(()),
    }
}

/// Shares `secret` among the holders at `points` so that any `threshold` of them can put it together.
///
/// Coefficient c of limb l (c from 1) is made of the 24 bytes of `key` at `24 (5 (c - 1) + l)`: one key shares one secret
/// with one threshold. The time depends on the number of points and the threshold alone.
///
/// # Errors
/// A threshold outside `1..=points`, a point that is 0, not below p or there twice.
pub fn split(secret: &[u8; 32], threshold: usize, points: &[u64], key: &StreamKey) -> Result<Vec<Share>, ShamirError> {
    if threshold == 0 || threshold > points.len() {
        return Err(ShamirError::Threshold { threshold, points: points.len() });
    }
    check_points(points)?;
    let needed = (threshold - 1).checked_mul(LIMBS * COEFFICIENT_BYTES);
    let Some(needed) = needed.filter(|&n| n as u64 <= STREAM_BYTES) else {
        return Err(ShamirError::Keystream { threshold });
    };
    let mut stream = Zeroizing::new(vec![0u8; needed]);
    key.fill(0, &mut stream);
    let mut coefficients: Zeroizing<Vec<[u64; LIMBS]>> = Zeroizing::new(vec![[0; LIMBS]; threshold]);
    coefficients[0] = *limbs(secret);
    for (i, bytes) in stream.as_chunks::<COEFFICIENT_BYTES>().0.iter().enumerate() {
        coefficients[1 + i / LIMBS][i % LIMBS] = uniform(bytes);
    }
    Ok(points.iter().map(|&x| evaluate(&coefficients, x)).collect())
}

/// The polynomials at x (Horner).
fn evaluate(coefficients: &[[u64; LIMBS]], x: u64) -> Share {
    let mut value = Share([0; LIMBS]);
    for c in coefficients.iter().rev() {
        for (v, c) in value.0.iter_mut().zip(c) {
            *v = add(mul(*v, x), *c);
        }
    }
    value
}

/// Lagrange weights at 0 of a set of points; one set serves many secrets.
#[derive(Clone, Debug)]
pub struct Interpolation {
    weights: Vec<u64>,
}

impl Interpolation {
    /// `lambda_i = prod_(j != i) x_j / (x_j - x_i)`.
    ///
    /// # Errors
    /// No point, or one that is 0, not below p or there twice.
    pub fn new(points: &[u64]) -> Result<Self, ShamirError> {
        if points.is_empty() {
            return Err(ShamirError::Threshold { threshold: 0, points: 0 });
        }
        check_points(points)?;
        let weight = |i: usize| {
            let others = points.iter().enumerate().filter(|(j, _)| *j != i);
            let (top, below) =
                others.fold((1, 1), |(top, below), (_, &x)| (mul(top, x), mul(below, sub(x, points[i]))));
            mul(top, inverse(below))
        };
        Ok(Self { weights: (0..points.len()).map(weight).collect() })
    }

    /// The secret, from one share a point in the order of the points.
    ///
    /// # Errors
    /// Another number of shares; shares that give no secret of 256 bits. Wrong shares are found with probability
    /// `1 - 2^-49` at least where they are off by something random, and never for certain: commit to what is shared.
    pub fn combine(&self, shares: &[&Share]) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
        if shares.len() != self.weights.len() {
            return Err(ShamirError::Count { expected: self.weights.len(), found: shares.len() });
        }
        let mut sum = Zeroizing::new([0; LIMBS]);
        for (share, &weight) in shares.iter().zip(&self.weights) {
            for (sum, limb) in sum.iter_mut().zip(&share.0) {
                *sum = add(*sum, mul(*limb, weight));
            }
        }
        Ok(Zeroizing::new(join(&sum)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;
    use proptest::prelude::*;

    fn key(n: u32) -> StreamKey {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        StreamKey::from_bytes(bytes, Cipher::ChaCha20)
    }

    #[test]
    fn the_field_agrees_with_wide_division() {
        let p = u128::from(P);
        let numbers = [0, 1, 2, P - 1, P - 2, P / 2, P / 2 + 1, 0x0123_4567_89ab_cdef, (1 << 52) - 1];
        for a in numbers {
            for b in numbers {
                let (x, y) = (u128::from(a), u128::from(b));
                assert_eq!(u128::from(add(a, b)), (x + y) % p);
                assert_eq!(u128::from(sub(a, b)), (x + p - y) % p);
                assert_eq!(u128::from(mul(a, b)), x * y % p);
            }
            assert_eq!(mul(a, inverse(a)), u64::from(a != 0));
        }
        for x in [0, u128::MAX, p, p * p, p - 1, 1 << 122, (1 << 122) - 1, 1 << 61] {
            assert_eq!(u128::from(reduce(x)), x % p, "{x}");
        }
        // 2^192 - 1 = 2^9 - 1 mod p, since 192 = 3 * 61 + 9.
        assert_eq!(uniform(&[0xff; 24]), (1 << 9) - 1);
    }

    proptest! {
        #[test]
        fn any_threshold_of_the_shares_give_the_secret(
            secret in any::<[u8; 32]>(), n in 1usize..40, t in 1usize..40, spread in 1u64..1 << 40, first in 0usize..40, n_key in any::<u32>(),
        ) {
            let t = t.min(n);
            let points: Vec<u64> = (1..=n as u64).map(|i| i * spread % P).collect();
            let shares = split(&secret, t, &points, &key(n_key)).unwrap();
            let chosen: Vec<usize> = (0..t).map(|i| (first + i) % n).collect();
            let at: Vec<u64> = chosen.iter().map(|&i| points[i]).collect();
            let given: Vec<Share> = chosen.iter().map(|&i| Share::from_bytes(&shares[i].to_bytes()).unwrap()).collect();
            let given: Vec<&Share> = given.iter().collect();
            prop_assert_eq!(*Interpolation::new(&at).unwrap().combine(&given).unwrap(), secret);
            if t < n {
                // All of them too: the polynomial has no higher degree.
                let all: Vec<&Share> = shares.iter().collect();
                prop_assert_eq!(*Interpolation::new(&points).unwrap().combine(&all).unwrap(), secret);
            }
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let split = |t: usize, points: &[u64]| split(&[1; 32], t, points, &key(0)).map(|_| ());
        assert_eq!(split(0, &[1, 2]), Err(ShamirError::Threshold { threshold: 0, points: 2 }));
        assert_eq!(split(3, &[1, 2]), Err(ShamirError::Threshold { threshold: 3, points: 2 }));
        for bad in [0, P, u64::MAX, 7] {
            assert_eq!(split(2, &[7, 1, bad]), Err(ShamirError::Point { found: bad }));
        }
        let mut bytes = [0; SHARE_BYTES];
        bytes[8..16].copy_from_slice(&P.to_le_bytes());
        assert_eq!(Share::from_bytes(&bytes).unwrap_err(), ShamirError::NotReduced { limb: 1 });
        let one = Interpolation::new(&[1]).unwrap();
        assert_eq!(one.combine(&[]).unwrap_err(), ShamirError::Count { expected: 1, found: 0 });
        assert_eq!(one.combine(&[&Share([1 << 52, 0, 0, 0, 0])]).unwrap_err(), ShamirError::Mismatch);
        assert_eq!(one.combine(&[&Share([0, 0, 0, 0, 1 << 48])]).unwrap_err(), ShamirError::Mismatch);
        assert_eq!(format!("{:?}", Share([1; LIMBS])), "Share(..)");
    }

    /// Ways to share limb 0 of a secret at the points 1, 2, 3 with threshold 3.
    type Sharing = fn(&[u8; 32], &StreamKey) -> [u64; 3];

    fn sound(secret: &[u8; 32], key: &StreamKey) -> [u64; 3] {
        let shares = split(secret, 3, &[1, 2, 3], key).unwrap();
        [shares[0].0[0], shares[1].0[0], shares[2].0[0]]
    }

    /// The ternary coefficients of one of the seeds: a share is the secret and a small number.
    fn ternary(secret: &[u8; 32], key: &StreamKey) -> [u64; 3] {
        let mut r = key.reader(0);
        let c = [limbs(secret)[0], sub(r.below(3), 1), sub(r.below(3), 1)];
        [1, 2, 3].map(|x| add(c[0], mul(x, add(c[1], mul(x, c[2])))))
    }

    /// A leading coefficient of zero: one share fewer is enough.
    fn low_degree(secret: &[u8; 32], key: &StreamKey) -> [u64; 3] {
        let slope = uniform(&{
            let mut bytes = [0; COEFFICIENT_BYTES];
            key.fill(0, &mut bytes);
            bytes
        });
        [1, 2, 3].map(|x| add(limbs(secret)[0], mul(x, slope)))
    }

    /// Coefficients of 50 bits instead of residues.
    fn short_coefficients(secret: &[u8; 32], key: &StreamKey) -> [u64; 3] {
        let mut r = key.reader(0);
        let c = [limbs(secret)[0], r.next_u64() >> 14, r.next_u64() >> 14];
        [1, 2, 3].map(|x| add(c[0], mul(x, add(c[1], mul(x, c[2])))))
    }

    /// The largest two-sample chi-square, in standard deviations, over what can be computed from two shares of three:
    /// each share, the line through them at 0, its slope; high, middle and low bits of each, 64 bins.
    fn difference(sharing: Sharing) -> f64 {
        const DRAWS: u32 = 20_000;
        let views = |secret: u8, first: u32| {
            let mut counts = vec![[0u32; 64]; 12];
            for i in 0..DRAWS {
                let [a, b, _] = sharing(&[secret; 32], &key(first + i));
                let line = sub(add(a, a), b);
                for (v, value) in [a, b, line, sub(b, a)].into_iter().enumerate() {
                    for (part, shift) in [55, 46, 0].into_iter().enumerate() {
                        counts[3 * v + part][((value >> shift) & 63) as usize] += 1;
                    }
                }
            }
            counts
        };
        let (zeros, ones) = (views(0, 0), views(0xff, DRAWS));
        let chi = |(a, b): (&[u32; 64], &[u32; 64])| -> f64 {
            let square = |(&x, &y): (&u32, &u32)| {
                let (x, y) = (f64::from(x), f64::from(y));
                if x + y > 0.0 { (x - y) * (x - y) / (x + y) } else { 0.0 }
            };
            (a.iter().zip(b).map(square).sum::<f64>() - 63.0) / (2.0f64 * 63.0).sqrt()
        };
        zeros.iter().zip(&ones).map(chi).fold(f64::MIN, f64::max)
    }

    #[test]
    fn two_shares_of_three_do_not_depend_on_the_secret_and_planted_defects_are_found() {
        // Twelve statistics of mean 0 and deviation 1 with a heavy right tail: above 6 less than once in 10^7.
        let found = difference(sound);
        assert!(found < 6.0, "{found}");
        for (name, defect) in
            [("ternary", ternary as Sharing), ("low degree", low_degree), ("short coefficients", short_coefficients)]
        {
            let found = difference(defect);
            assert!(found > 50.0, "{name}: {found}");
        }
    }
}
