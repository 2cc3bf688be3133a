//! Exact discrete Gaussian: `P[k] ~ e^(-k^2 / (2 sigma^2))` on the integers.
//!
//! Canonne, Kamath, Steinke (2020), Algorithm 3: a discrete Laplace `Y` of scale `t = floor(sigma) + 1` is
//! kept with probability `e^-x`, `x = (|Y| - sigma^2 / t)^2 / (2 sigma^2)`. `sigma` is the exact dyadic
//! rational that the `f64` holds; `x` is bounded by integers of 128 bits first and computed exactly only
//! where the bounds cannot decide.

use num_bigint::BigUint;
use rayon::prelude::*;

use super::bernoulli::{EXPONENT_BITS, Exponent};
use super::discrete_laplace::DiscreteLaplace;
use super::{SampleError, dyadic, within};
use crate::math::prg::{StreamKey, StreamReader};

/// Least sigma.
pub const MIN_SIGMA: f64 = 1.0 / 1024.0;
/// Greatest sigma, 2^28.
pub const MAX_SIGMA: f64 = (1u64 << 28) as f64;
/// Coordinates that [`add`] draws from one stretch of the keystream.
pub const SEGMENT: usize = 4096;
/// Bytes of keystream reserved for a segment: 1 KiB a draw, about six times the mean.
const SEGMENT_BYTES: u64 = 1 << 22;
/// Segments within the 2^38 bytes of one key.
const MAX_SEGMENTS: usize = 1 << 16;
/// Bits of `sigma^2` in the fast bounds.
const SCALED_BITS: i32 = 57;

/// The law with a fixed sigma.
#[derive(Clone, Copy, Debug)]
pub struct DiscreteGaussian {
    /// `sigma = m 2^e`.
    m: u64,
    e: i32,
    /// `floor(sigma) + 1`.
    t: u64,
    /// `scaled = floor(sigma^2 2^shift)` has 56 or 57 bits; `shift >= 0`.
    scaled: u128,
    shift: u32,
    /// Bounds of `2 sigma^2 t^2 2^(2 shift - 48)`, if they fit.
    denominator: Option<[u128; 2]>,
    proposal: DiscreteLaplace,
}

impl DiscreteGaussian {
    /// A law with `2^-10 <= sigma <= 2^28`.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`], also for NaN.
    pub fn new(sigma: f64) -> Result<Self, SampleError> {
        within("sigma", sigma, MIN_SIGMA, MAX_SIGMA)?;
        let (m, e) = dyadic(sigma);
        let t = sigma.floor() as u64 + 1;
        let square = u128::from(m) * u128::from(m);
        // sigma^2 = square 2^(2e) has `bits + 2e` bits before the point.
        let bits = (128 - square.leading_zeros()) as i32;
        let shift = (SCALED_BITS - (bits + 2 * e)).max(0);
        let by = shift + 2 * e;
        let scaled = if by >= 0 { square << by } else { square >> -by };
        let denominator = u128::from(t)
            .checked_mul(u128::from(t))
            .and_then(|tt| tt.checked_mul(1u128.checked_shl(shift as u32)?))
            .and_then(|tt| Some([tt.checked_mul(2 * scaled)?, tt.checked_mul(2 * (scaled + 1))?]))
            .map(|[low, high]| [low >> EXPONENT_BITS, (high >> EXPONENT_BITS) + 1])
            .filter(|[low, _]| *low > 0);
        Ok(Self { m, e, t, scaled, shift: shift as u32, denominator, proposal: DiscreteLaplace::integer(t) })
    }

    /// One draw.
    pub fn draw(&self, reader: &mut StreamReader) -> i64 {
        loop {
            let y = self.proposal.draw(reader);
            if self.exponent(y.unsigned_abs()).exp_minus(reader) {
                return y;
            }
        }
    }

    /// `x = (a t - sigma^2)^2 / (2 sigma^2 t^2)`.
    fn exponent(&self, a: u64) -> Exponent<impl Fn() -> (BigUint, BigUint)> {
        let exact = move || self.exact_exponent(a);
        // sigma^2 2^shift lies in [scaled, scaled + 1), so the distance is off by at most 1.
        let bounds = u128::from(a).checked_mul(u128::from(self.t)).and_then(|at| {
            let at = at.checked_mul(1u128.checked_shl(self.shift)?)?;
            let distance = at.abs_diff(self.scaled);
            let [low, high] = self.denominator?;
            let below = distance.saturating_sub(1);
            let above = distance.checked_add(1)?;
            Some((below.checked_mul(below)? / high, above.checked_mul(above)? / low + 1))
        });
        // Bounds that hold for every x, and decide nothing, where 128 bits do not do.
        let (low, high) = bounds.unwrap_or((0, u128::MAX));
        Exponent { low, high, exact }
    }

    fn exact_exponent(&self, a: u64) -> (BigUint, BigUint) {
        // With sigma^2 = p / q: (a t q - p)^2 / (2 p q t^2).
        let square = BigUint::from(self.m) * self.m;
        let (p, q) = if self.e >= 0 {
            (square << (2 * self.e) as u32, BigUint::from(1u32))
        } else {
            (square, BigUint::from(1u32) << (-2 * self.e) as u32)
        };
        let at = BigUint::from(a) * self.t * &q;
        let distance = if at > p { at - &p } else { &p - at };
        (&distance * &distance, BigUint::from(2u32) * p * q * self.t * self.t)
    }
}

/// Whether the sampler draws this sigma.
///
/// # Errors
/// [`SampleError::OutOfRange`].
pub fn check(sigma: f64) -> Result<(), SampleError> {
    DiscreteGaussian::new(sigma).map(|_| ())
}

/// The draws that [`add`] would add, each in place of what `out` held.
///
/// # Errors
/// [`SampleError::OutOfRange`] for `sigma`, or more than 2^28 of them.
pub fn fill(out: &mut [i64], sigma: f64, key: &StreamKey) -> Result<(), SampleError> {
    let law = DiscreteGaussian::new(sigma)?;
    within("draws", out.len() as f64, 0.0, (MAX_SEGMENTS * SEGMENT) as f64)?;
    out.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, segment)| {
        let mut reader = key.reader(i as u64 * SEGMENT_BYTES);
        segment.iter_mut().for_each(|x| *x = law.draw(&mut reader));
    });
    Ok(())
}

/// Adds discrete Gaussian noise to words mod `2^bits`, in parallel over segments of [`SEGMENT`] words:
/// segment `i` reads the keystream from byte `i 2^22` on, so that thread count and order change nothing.
///
/// Exact, but not constant time: for a trusted aggregator. At most 2^28 words a key.
///
/// # Errors
/// [`SampleError::OutOfRange`] for `sigma`, `bits` outside 2..=32, or more than 2^28 words.
pub fn add(words: &mut [u32], bits: u32, sigma: f64, key: &StreamKey) -> Result<(), SampleError> {
    let law = DiscreteGaussian::new(sigma)?;
    within("bits", f64::from(bits), 2.0, 32.0)?;
    within("words", words.len() as f64, 0.0, (MAX_SEGMENTS * SEGMENT) as f64)?;
    let mask = u32::MAX >> (32 - bits);
    words.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, segment)| {
        let mut reader = key.reader(i as u64 * SEGMENT_BYTES);
        for word in segment {
            *word = word.wrapping_add(law.draw(&mut reader) as u32) & mask;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use num_traits::ToPrimitive;

    use super::*;

    /// The fast bounds hold the exact exponent between them, and are tight where they exist.
    #[test]
    fn bounds_of_the_exponent() {
        for sigma in [MIN_SIGMA, 0.3, 1.0, 3.45, 53.44, 1e3 + 1.0 / 3.0, 123_456.789, 1e6, MAX_SIGMA] {
            let law = DiscreteGaussian::new(sigma).unwrap();
            for a in [0u64, 1, 2, 17, sigma as u64, 3 * sigma as u64 + 1, 40 * sigma as u64] {
                let x = law.exponent(a);
                let (n, d) = (x.exact)();
                let floor = ((&n << EXPONENT_BITS) / &d).to_u128();
                let value = n.to_f64().unwrap() / d.to_f64().unwrap();
                let direct = (a as f64 - sigma * sigma / law.t as f64).powi(2) / (2.0 * sigma * sigma);
                assert!((value - direct).abs() <= 1e-9 * (1.0 + direct), "{sigma} {a}: {value} {direct}");
                assert!(floor.is_none_or(|f| x.low <= f && f <= x.high), "{sigma} {a}");
                if sigma >= 1.0 {
                    assert!(x.high - x.low < 4096, "{sigma} {a}: width {}", x.high - x.low);
                }
            }
        }
    }

    #[test]
    fn parameters_are_checked() {
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9, 1e-9] {
            assert!(DiscreteGaussian::new(sigma).is_err(), "{sigma}");
        }
        let key = StreamKey::from_bytes([0; 32], crate::math::prg::Cipher::ChaCha8);
        assert!(add(&mut [0], 1, 3.0, &key).is_err());
        assert!(add(&mut [0], 33, 3.0, &key).is_err());
        assert!(add(&mut [], 8, 3.0, &key).is_ok());
    }
}
