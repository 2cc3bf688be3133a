//! The table of the discrete Gaussian `P[k] ~ e^(-k^2 / (2 sigma^2))`.

use num_bigint::BigUint;
use num_traits::{One, ToPrimitive, Zero};

use super::NoiseTable;
use crate::sample::{SampleError, dyadic, within};

/// Largest sigma of a table, 2^12: its law has 53,700 thresholds.
pub const MAX_SIGMA: f64 = 4096.0;
/// Smallest sigma of a table, 2^-10: below 0.075 no draw differs from zero.
pub const MIN_SIGMA: f64 = 1.0 / 1024.0;

/// Fraction bits of the intervals.
const BITS: u32 = 256;
/// The weights end where one is below `2^-CUT_BITS`.
const CUT_BITS: u32 = 176;

/// Two integers in units of `2^-BITS`, one on each side of a real number in `[0, 2]`.
#[derive(Clone, Debug)]
struct Interval {
    low: BigUint,
    high: BigUint,
}

impl Interval {
    fn one() -> Self {
        let one = BigUint::one() << BITS;
        Self { low: one.clone(), high: one }
    }

    /// `numerator / denominator`.
    fn ratio(numerator: &BigUint, denominator: &BigUint) -> Self {
        let scaled = numerator << BITS;
        Self { low: &scaled / denominator, high: scaled / denominator + 1u32 }
    }

    fn times(&self, other: &Self) -> Self {
        Self { low: (&self.low * &other.low) >> BITS, high: ((&self.high * &other.high) >> BITS) + 1u32 }
    }

    fn width(&self) -> BigUint {
        &self.high - &self.low
    }
}

/// `e^-x` of a rational `x >= 0`: the series of `e^y` at `y = x / 2^s <= 1/2`, its reciprocal, s squarings.
fn exp_minus(numerator: &BigUint, denominator: &BigUint) -> Interval {
    // numerator / denominator < 2^(difference of bit lengths + 1).
    let halvings = (numerator.bits() + 2).saturating_sub(denominator.bits()) as u32;
    let y = Interval::ratio(numerator, &(denominator << halvings));
    let mut term = Interval::one();
    let mut sum = Interval::one();
    for n in 1u32.. {
        term = term.times(&y);
        term = Interval { low: term.low / n, high: term.high / n + 1u32 };
        sum.low += &term.low;
        sum.high += &term.high;
        if term.low.is_zero() {
            break;
        }
    }
    // With y <= 1/2 the terms left out are at most as large as the last one taken.
    sum.high += &term.high;
    let square = BigUint::one() << (2 * BITS);
    let mut power = Interval { low: &square / &sum.high, high: &square / &sum.low + 1u32 };
    for _ in 0..halvings {
        power = power.times(&power);
    }
    power
}

/// Lower ends of the weights `e^(-k^2 / (2 sigma^2))`, `k = 0 ..= N`, in units of `2^-BITS`; and an upper
/// bound, in the same units, of the sum over all integers of what they miss.
fn weights(sigma: f64) -> (Vec<BigUint>, BigUint) {
    // x = 1 / (2 sigma^2) with sigma = m 2^e.
    let (m, e) = dyadic(sigma);
    let (mut numerator, mut denominator) = (BigUint::one(), BigUint::from(m) * m * 2u32);
    if e < 0 {
        numerator <<= 2 * e.unsigned_abs();
    } else {
        denominator <<= 2 * e.unsigned_abs();
    }
    let r = exp_minus(&numerator, &denominator);
    let square = r.times(&r);
    // weight_(k+1) = weight_k r^(2k+1).
    let (mut weight, mut ratio) = (Interval::one(), r);
    let (mut weights, mut missing) = (Vec::new(), BigUint::ZERO);
    let cut = BigUint::one() << (BITS - CUT_BITS);
    while weight.high > cut {
        missing += weight.width() * 2u32;
        weights.push(weight.low.clone());
        weight = weight.times(&ratio);
        ratio = ratio.times(&square);
    }
    // Beyond N the ratio of neighbours only falls: a geometric series, on both sides.
    let one = BigUint::one() << BITS;
    let tail = (&weight.high << BITS) / (one - &ratio.high) + 1u32;
    (weights, missing + tail * 2u32)
}

impl NoiseTable {
    /// The table of the discrete Gaussian; `sigma` is the exact number that the `f64` holds, and the
    /// parameter, not the standard deviation (`variance` is that of the law).
    ///
    /// The weights `w_k = e^(-k^2 / (2 sigma^2)) = r^(k^2)`, `r = e^(-1 / (2 sigma^2))`, come from
    /// `w_(k+1) = w_k r^(2k+1)` in interval arithmetic on 256-bit fractions: no floating point. The
    /// thresholds are those of the lower ends.
    ///
    /// # The bound `total_variation`
    /// 1. *Weights.* Let E be the sum over all integers of the widths of the intervals and of the weights
    ///    beyond the last one kept (a geometric series, since `w_(k+1) / w_k` falls). The lower ends differ from
    ///    the weights by at most E in l1; normalising at most doubles an l1 distance relative to the total
    ///    weight, which is at least `w_0 = 1`; the total variation is half the l1 distance: at most E.
    /// 2. *Thresholds.* Their rounding and the mass beyond the last: `(K + 2) 2^-128`.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`] outside `2^-10 <= sigma <= 2^12`: a table has at most
    /// [`MAX_THRESHOLDS`](super::MAX_THRESHOLDS) thresholds.
    pub fn discrete_gaussian(sigma: f64) -> Result<Self, SampleError> {
        within("sigma", sigma, MIN_SIGMA, MAX_SIGMA)?;
        let (weights, missing) = weights(sigma);
        let thresholds = super::thresholds(&weights);
        let missing = missing.to_f64().unwrap_or(f64::INFINITY) * (-f64::from(BITS)).exp2();
        let total_variation = (missing + super::rounding(thresholds.len())) * (1.0 + 1e-9);
        Ok(Self { thresholds, variance: variance(&weights), total_variation })
    }
}

/// `sum k^2 w_k / sum w_k` over all integers.
fn variance(weights: &[BigUint]) -> f64 {
    let (mut total, mut squares) = (BigUint::ZERO, BigUint::ZERO);
    for (k, weight) in weights.iter().enumerate() {
        total += weight * if k == 0 { 1u32 } else { 2 };
        squares += weight * (k * k) * 2u32;
    }
    ((squares << BITS) / total).to_f64().unwrap_or(f64::INFINITY) * (-f64::from(BITS)).exp2()
}

#[cfg(test)]
mod tests {
    use super::super::MAX_THRESHOLDS;
    use super::*;
    use crate::sample::law::Law;

    #[test]
    fn exponentials_are_enclosed() {
        for (n, d) in [(0u32, 1u32), (1, 1), (1, 2), (3, 1), (1, 1000), (40, 1), (4_000_000, 1)] {
            let e = exp_minus(&BigUint::from(n), &BigUint::from(d));
            assert!(e.low <= e.high && e.width().bits() < 32, "{n}/{d}");
            let exact = (-f64::from(n) / f64::from(d)).exp();
            let found = e.low.to_f64().unwrap() * (-f64::from(BITS)).exp2();
            assert!((found - exact).abs() <= 1e-15 * exact + 1e-70, "{n}/{d}: {found}");
        }
    }

    #[test]
    fn tables_have_their_law() {
        for sigma in [MIN_SIGMA, 0.05, 0.3, 1.0, 3.45, 50.0 + 1.0 / 3.0, 700.1] {
            let table = NoiseTable::discrete_gaussian(sigma).unwrap();
            let pmf = Law::DiscreteGaussian { sigma }.pmf().unwrap();
            assert!(table.thresholds.is_sorted() && table.thresholds.iter().all(|&t| t < 1 << 127));
            let mut below = 0;
            for (k, &t) in table.thresholds.iter().enumerate() {
                let p = (t - below) as f64 / 2f64.powi(127) / if k == 0 { 1.0 } else { 2.0 };
                assert!((pmf.of(k as i64) - p).abs() < 1e-13, "{sigma} {k}");
                below = t;
            }
            let (_, variance) = pmf.moments();
            assert!((table.variance - variance).abs() <= 1e-9 * variance + 1e-30, "{sigma}: {}", table.variance);
            let bound = (table.thresholds.len() as f64 + 3.0) * 2f64.powi(-128);
            assert!(table.total_variation > 0.0 && table.total_variation <= bound, "{sigma}");
        }
    }

    /// The interval's upper ends give the same thresholds: what is missing is far below their unit.
    #[test]
    fn both_ends_of_the_intervals_give_the_same_thresholds() {
        for sigma in [0.3, 5.0, 321.5] {
            let (low, missing) = weights(sigma);
            assert!(missing.bits() < u64::from(BITS) - 160);
            let high: Vec<BigUint> = low.iter().map(|w| w + &missing / (2 * low.len())).collect();
            assert_eq!(super::super::thresholds(&high), NoiseTable::discrete_gaussian(sigma).unwrap().thresholds);
        }
    }

    #[test]
    fn the_limits_are_errors_and_the_largest_table_fits() {
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY, 5000.0, 1e-4] {
            assert!(
                matches!(NoiseTable::discrete_gaussian(sigma), Err(SampleError::OutOfRange { most: MAX_SIGMA, .. })),
                "{sigma}"
            );
        }
        let largest = NoiseTable::discrete_gaussian(MAX_SIGMA).unwrap();
        assert!(largest.thresholds.len() < MAX_THRESHOLDS, "{}", largest.thresholds.len());
        assert!((1u128 << 127) - largest.thresholds.last().unwrap() <= 1 << 20);
        assert!(NoiseTable::discrete_gaussian(0.07).unwrap().thresholds.is_empty());
        assert!(!NoiseTable::discrete_gaussian(0.08).unwrap().thresholds.is_empty());
    }
}
