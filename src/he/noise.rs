//! Noise, exactly: what a sum of ciphertexts carries, what flooding hides it, how many bits both take.
//!
//! `CBD(eta)` and the uniform ternary law are strictly sub-Gaussian: `E exp(x X) <= exp(x^2 Var(X) / 2)` with variances
//! `eta/2` and `2/3` (compare the power series: `cosh(x/2)^(2 eta) <= exp(eta x^2 / 4)`, and `2/(3 (2k)!) <= 1/(3^k k!)`).
//! So a sum with weights w has a tail below `2 exp(-B^2 / (2 sum w^2 Var))`, and with errors CBD(eta) that is
//! `2 exp(-B^2 / (V eta))`.
//!
//! Bounds are rounded outward; probabilities are log2, and 0 is minus infinity.

use super::error::HeError;
use crate::sample::uniform::Interval;

/// Weights with which ciphertexts enter a sum; all 1 unless the server multiplies ciphertexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    sum: u64,
    squares: u64,
    heaviest: u64,
}

impl Weights {
    /// n ciphertexts, each once.
    #[must_use]
    pub const fn equal(clients: u64) -> Self {
        Self { sum: clients, squares: clients, heaviest: 1 }
    }

    /// Positive integers with sum `sum` (W), sum of squares `squares` (V), none above `heaviest`.
    ///
    /// # Errors
    /// No such integers: `W <= V <= heaviest W` and `1 <= heaviest <= W` are needed.
    pub fn new(sum: u64, squares: u64, heaviest: u64) -> Result<Self, HeError> {
        let range = |name, found, least, most| HeError::OutOfRange { name, found, least, most };
        if sum == 0 {
            return Err(range("sum of the weights", sum, 1, u64::MAX));
        }
        if !(1..=sum).contains(&heaviest) {
            return Err(range("heaviest weight", heaviest, 1, sum));
        }
        let most = heaviest.saturating_mul(sum);
        if !(sum..=most).contains(&squares) {
            return Err(range("sum of the squares of the weights", squares, sum, most));
        }
        Ok(Self { sum, squares, heaviest })
    }

    /// W.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.sum
    }

    /// V.
    #[must_use]
    pub const fn squares(self) -> u64 {
        self.squares
    }

    /// The greatest weight.
    #[must_use]
    pub const fn heaviest(self) -> u64 {
        self.heaviest
    }
}

/// `ceil(log2(x + 1))`.
const fn bits(x: u128) -> u32 {
    u128::BITS - x.leading_zeros()
}

/// Variance of a coefficient of the summed error of one-shot encryption, `(eta/2) V`.
#[must_use]
pub fn oneshot_variance(eta: u32, weights: Weights) -> f64 {
    f64::from(eta) / 2.0 * weights.squares as f64
}

/// `o_det = 1 + ceil(log2(eta W + 1))`: no sum of errors reaches `2^(o-1)`.
#[must_use]
pub fn oneshot_offset_certain(eta: u32, weights: Weights) -> u32 {
    1 + bits(u128::from(eta) * u128::from(weights.sum))
}

/// log2 of an upper bound of the probability that one of `coefficients` sums of errors leaves
/// `[-2^(o-1), 2^(o-1))`, so that a value decodes wrongly.
///
/// Equal weights: the sum is CBD(n eta) exactly, `P[X = x] = C(2m, m + x) / 4^m` with m = n eta; the terms behind the
/// first fall faster than a geometric series of ratio `(m - B)/(m + B + 1)`. Else, and for m above `2^30`, the
/// sub-Gaussian bound `2 exp(-B^2 / (V eta))`. Then the union bound.
#[must_use]
pub fn oneshot_failure(eta: u32, weights: Weights, offset: u32, coefficients: f64) -> f64 {
    let m = f64::from(eta) * weights.sum as f64;
    let bound = libm::ldexp(1.0, offset.saturating_sub(1).min(1000) as i32);
    if offset >= oneshot_offset_certain(eta, weights) {
        return f64::NEG_INFINITY;
    }
    let gaussian = 1.0 - bound * bound / (f64::from(eta) * weights.squares as f64) * std::f64::consts::LOG2_E;
    let one = if weights.heaviest == 1 && m <= f64::from(1u32 << 30) {
        let lgamma = |x: f64| libm::lgamma(x + 1.0);
        let first = lgamma(2.0 * m) - lgamma(m + bound) - lgamma(m - bound) - 2.0 * m * std::f64::consts::LN_2;
        // The error of the three logarithms of factorials.
        let slack = 1e-14 * (1.0 + m) * (2.0 + libm::log(1.0 + m));
        let ratio = (m - bound) / (m + bound + 1.0);
        let exact = 1.0 + (first + slack - libm::log1p(-ratio)) * std::f64::consts::LOG2_E;
        exact.min(gaussian)
    } else {
        gaussian
    };
    (one + libm::log2(coefficients.max(1.0))).min(0.0)
}

/// The least offset whose failure over all coefficients is below `2^log2_failure`; at most the certain one.
#[must_use]
pub fn oneshot_offset(eta: u32, weights: Weights, coefficients: f64, log2_failure: f64) -> u32 {
    let certain = oneshot_offset_certain(eta, weights);
    // The kernel wants eta below 2^(o-1), so that one client's error never leaves its bits.
    let least = 2 + bits(u128::from(eta));
    let fits = |&o: &u32| oneshot_failure(eta, weights, o, coefficients) < log2_failure;
    (least..certain).find(fits).unwrap_or(certain)
}

/// The noise of a sum of ciphertexts under a collective key: `e U + s E1 + E0`, with `s = sum s_i`, `e = sum e_i` of K
/// holders and U, E1, E0 the weighted sums of the clients' ternary u and errors.
///
/// For holders and clients that sample as they should: a coefficient outside these laws is not bounded here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CiphertextNoise {
    /// N.
    pub degree: usize,
    /// K.
    pub holders: u32,
    /// k of the errors' centred binomial law.
    pub eta: u32,
    /// Weights of the clients.
    pub weights: Weights,
}

impl CiphertextNoise {
    /// `V (eta/2 + (4/3) N K eta/2)`, of a coefficient.
    #[must_use]
    pub fn variance(&self) -> f64 {
        let half = f64::from(self.eta) / 2.0;
        self.weights.squares as f64 * (half + 4.0 / 3.0 * self.degree as f64 * f64::from(self.holders) * half)
    }

    /// `eta W (1 + 2 N K)`: no coefficient is larger.
    #[must_use]
    pub fn worst_case(&self) -> u128 {
        let products = 1 + 2 * self.degree as u128 * u128::from(self.holders);
        u128::from(self.eta).saturating_mul(u128::from(self.weights.sum)).saturating_mul(products)
    }

    /// A bound that all of `coefficients` coefficients of all sums under one key keep, but with probability
    /// `2^log2_probability`; never above the worst case.
    ///
    /// Given s and e a coefficient is sub-Gaussian of parameter `V ((2/3)|e|^2 + (eta/2)|s|^2 + eta/2)`, whichever it is:
    /// a product with X^j only moves and negates coefficients. The norms of the N independent coefficients of e and s,
    /// themselves sub-Gaussian of parameter v, are below `v (N + 2 sqrt(N x) + 2x)` but with probability `exp(-x)` (Hsu,
    /// Kakade, Zhang, Electron. Commun. Probab. 17, 2012, theorem 2.1). A half of the probability goes to the two norms,
    /// the other to the coefficients.
    #[must_use]
    pub fn tail_bound(&self, coefficients: f64, log2_probability: f64) -> u128 {
        use std::f64::consts::LN_2;
        let (n, half, holders) = (self.degree as f64, f64::from(self.eta) / 2.0, f64::from(self.holders));
        let x = (2.0 - log2_probability) * LN_2;
        let norm = n + 2.0 * libm::sqrt(n * x) + 2.0 * x;
        let (e, s) = (holders * half * norm, holders * (2.0 / 3.0) * norm);
        let parameter = self.weights.squares as f64 * (2.0 / 3.0 * e + half * s + half);
        let deviations = 2.0 * (2.0 + libm::log2(coefficients.max(1.0)) - log2_probability) * LN_2;
        let bound = libm::ceil(libm::sqrt(parameter * deviations) * (1.0 + 1e-9));
        // A cast saturates.
        (bound as u128).min(self.worst_case())
    }
}

/// Noise that hides the noise of a ciphertext: every holder of the set adds a uniform integer of `-bound ..= bound` to
/// every coefficient. One honest holder is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flooding {
    /// B: what is hidden, the bound of [`CiphertextNoise::tail_bound`].
    pub shift: u128,
    /// B'.
    pub bound: u128,
    /// log2 of the statistical distance of all openings from ones without the ciphertexts' noise: below `-lambda`.
    pub log2_distance: f64,
    /// log2 of the probability that a coefficient is above `shift`, and then perhaps decodes wrongly; part of the distance.
    pub log2_failure: f64,
}

/// Greatest lambda.
pub const MAX_LAMBDA: u32 = 96;

impl Flooding {
    /// The least flooding for statistical distance `2^-lambda` over all `coefficients` (N, times the blocks of an opening,
    /// times the openings R under the key).
    ///
    /// Moving a uniform law on `2 B' + 1` integers by x changes it by exactly `|x| / (2 B' + 1)`; so
    /// `coefficients B / (2 B' + 1)`, plus `2^-(lambda + 5)` that B is exceeded, plus what the sampler is off uniform.
    ///
    /// # Errors
    /// lambda outside 1..=96, or a bound that no draw has (with the largest lambda that fits).
    pub fn new(noise: &CiphertextNoise, lambda: u32, coefficients: f64, parts: u32) -> Result<Self, HeError> {
        if !(1..=MAX_LAMBDA).contains(&lambda) {
            let (found, most) = (u64::from(lambda), u64::from(MAX_LAMBDA));
            return Err(HeError::OutOfRange { name: "lambda", found, least: 1, most });
        }
        let sized = |lambda: u32| -> Option<Self> {
            let log2_failure = -f64::from(lambda) - 5.0;
            let shift = noise.tail_bound(coefficients, log2_failure);
            // 2 B' + 1 >= coefficients B 2^lambda 16/15, leaving a sixteenth for the other two.
            let members = coefficients * shift as f64 * libm::ldexp(16.0 / 15.0, lambda as i32) * (1.0 + 1e-9);
            if members >= 2.0 * Interval::MAX_BOUND as f64 {
                return None;
            }
            let bound = libm::ceil(members / 2.0) as u128;
            let sampler = coefficients * f64::from(parts) * libm::ldexp(1.0, -132);
            let hidden = coefficients * shift as f64 / (2.0 * bound as f64 + 1.0);
            let distance = hidden + libm::exp2(log2_failure) + sampler;
            let log2_distance = libm::log2(distance);
            (log2_distance <= -f64::from(lambda)).then_some(Self { shift, bound, log2_distance, log2_failure })
        };
        sized(lambda).ok_or_else(|| {
            let fits = (1..lambda).rev().find(|&l| sized(l).is_some());
            let nearest =
                fits.map_or(super::error::Nearest::Nothing, |lambda| super::error::Nearest::Lambda { lambda });
            HeError::NoSet { what: "flooding for lambda", found: u64::from(lambda), nearest }
        })
    }

    /// Bits below the message that the noise of an opening by `parts` holders takes: `1 + ceil(log2(B + t B' + 1))`.
    #[must_use]
    pub fn offset(&self, parts: u32) -> u32 {
        1 + bits(self.shift.saturating_add(self.bound.saturating_mul(u128::from(parts))))
    }

    /// Variance of a coefficient of an opened sum, `var_ct + t ((2 B' + 1)^2 - 1)/12`.
    #[must_use]
    pub fn variance(&self, noise: &CiphertextNoise, parts: u32) -> f64 {
        let members = 2.0 * self.bound as f64 + 1.0;
        noise.variance() + f64::from(parts) * (members * members - 1.0) / 12.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETA: u32 = 21;

    #[test]
    fn offsets_of_the_specification() {
        let weights = Weights::equal(1000);
        assert_eq!(oneshot_offset_certain(ETA, weights), 16);
        // d = 10^6 values, three a coefficient.
        let coefficients = 82.0 * 4096.0;
        assert_eq!(oneshot_offset(ETA, weights, coefficients, -40.0), 11);
        let failure = oneshot_failure(ETA, weights, 11, 1e6 / 3.0);
        assert!((-58.0..-57.0).contains(&failure), "2^{failure}");
        assert!(oneshot_failure(ETA, weights, 10, coefficients) > -40.0);
        assert_eq!(oneshot_failure(ETA, weights, 16, coefficients), f64::NEG_INFINITY);
        assert_eq!(oneshot_variance(ETA, weights), 10_500.0);
    }

    /// Against the sum over the law itself: an upper bound, and not far above.
    #[test]
    fn the_tail_is_that_of_the_law() {
        for (eta, n, offset) in [(2u32, 5u64, 4u32), (21, 3, 6), (21, 10, 7), (1, 100, 6)] {
            let m = u64::from(eta) * n;
            let ln_choose = |k: u64| {
                libm::lgamma(2.0 * m as f64 + 1.0)
                    - libm::lgamma(k as f64 + 1.0)
                    - libm::lgamma((2 * m - k) as f64 + 1.0)
            };
            let half = 1u64 << (offset - 1);
            // P[E >= half] + P[E < -half].
            let tail =
                |from: u64| (from..=m).map(|x| libm::exp(ln_choose(m + x) - 2.0 * m as f64 * 2f64.ln())).sum::<f64>();
            let exact = (tail(half) + tail(half + 1)).log2();
            let found = oneshot_failure(eta, Weights::equal(n), offset, 1.0);
            assert!(found >= exact && found < exact + 1.0, "{eta} {n} {offset}: {found} and {exact}");
            let weighted = Weights { sum: n, squares: n, heaviest: 2 };
            assert!(oneshot_failure(eta, weighted, offset, 1.0) >= found, "the sub-Gaussian bound is above");
        }
    }

    /// K = t = 16, n = 1000, lambda = 40 over N = 4096 coefficients and a thousand openings; and what one coefficient and
    /// one opening would take, the number often quoted.
    #[test]
    fn the_offset_of_an_opening_is_computed() {
        let noise = CiphertextNoise { degree: 4096, holders: 16, eta: ETA, weights: Weights::equal(1000) };
        assert!((noise.variance() - 1000.0 * (10.5 + 4.0 / 3.0 * 65_536.0 * 10.5)).abs() < 1.0);
        let all = Flooding::new(&noise, 40, 4096.0 * 1000.0, 16).unwrap();
        assert!((84..=85).contains(&all.offset(16)), "{} {all:?}", all.offset(16));
        assert!(all.log2_distance <= -40.0 && all.log2_distance > -40.2, "{all:?}");
        let one = Flooding::new(&noise, 40, 1.0, 16).unwrap();
        assert_eq!(one.offset(16), 63);
        // The bound of the tail is 8 to 12 deviations, far below the worst case.
        let deviations = all.shift as f64 / noise.variance().sqrt();
        assert!((8.0..12.0).contains(&deviations), "{deviations}");
        assert!(noise.worst_case() > 1000 * all.shift);
        assert_eq!(noise.worst_case(), 21 * 1000 * (1 + 2 * 65_536));
        assert!(all.variance(&noise, 16) > noise.variance());
    }

    #[test]
    fn more_of_anything_takes_more_flooding() {
        let base = CiphertextNoise { degree: 4096, holders: 5, eta: ETA, weights: Weights::equal(100) };
        let bound = |noise: &CiphertextNoise, lambda, m| Flooding::new(noise, lambda, m, 3).unwrap().bound;
        let reference = bound(&base, 40, 4096.0);
        assert!(bound(&base, 41, 4096.0) > 19 * reference / 10);
        assert!(bound(&base, 40, 8192.0) > 19 * reference / 10);
        assert!(bound(&CiphertextNoise { holders: 6, ..base }, 40, 4096.0) > reference);
        assert!(bound(&CiphertextNoise { weights: Weights::equal(101), ..base }, 40, 4096.0) > reference);
        let too_much = Flooding::new(&base, 96, 1e12, 3).unwrap_err();
        assert!(
            matches!(too_much, HeError::NoSet { nearest: super::super::error::Nearest::Lambda { lambda }, .. } if lambda > 40),
            "{too_much}"
        );
        assert!(Flooding::new(&base, 0, 1.0, 3).is_err() && Flooding::new(&base, 97, 1.0, 3).is_err());
    }

    #[test]
    fn weights_that_cannot_be_are_refused() {
        assert_eq!(Weights::new(5, 5, 1).unwrap(), Weights::equal(5));
        for (sum, squares, heaviest) in [(0, 0, 1), (5, 4, 1), (5, 6, 1), (5, 5, 0), (5, 25, 6)] {
            assert!(Weights::new(sum, squares, heaviest).is_err(), "{sum} {squares} {heaviest}");
        }
        assert!(Weights::new(u64::MAX, u64::MAX, u64::MAX).is_ok());
    }
}
