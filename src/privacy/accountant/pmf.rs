//! Noise on the integers as an explicit law: masses between two ends, and a bound on what lies beyond.
//!
//! All laws here are symmetric and log-concave. Hence, for a query that changes by at most s, the greatest shift is the
//! worst: with `F(t) = P[noise >= t]` the loss of a shift rises with the outcome, so that its hockey-stick divergence is
//! `max over t of F(t - s) - x F(t)`, and each of these grows with s; the same under Poisson sampling. And the two
//! directions of a shift are mirror images.
//!
//! What is charged: a relative error per mass ([`Law::error`]) and the mass beyond the ends ([`Law::tail`]).

use crate::math::double::Double;
use crate::math::search::bisect;
use crate::privacy::IntegerNoise;

/// A table ends where the masses are below `e^-CUT`...
const CUT: f64 = 150.0;
/// ... or further out where a large shift needs it, down to this.
const DEEP_CUT: f64 = 650.0;
/// Most outcomes of a table.
pub(crate) const MOST_OUTCOMES: f64 = (1u64 << 19) as f64;
/// Masses from double-word numbers: a quotient of two rounded ones.
const DOUBLE_ERROR: f64 = 2e-15;

/// A symmetric law on consecutive integers.
#[derive(Debug)]
pub(crate) struct Law {
    /// Masses of all outcomes kept, ascending.
    pub(crate) mass: Vec<f64>,
    /// Their logarithms, of absolute error `4 (1 + |ln|) 2^-52`; go on where the masses underflow.
    pub(crate) ln_mass: Vec<f64>,
    /// Bound on the mass beyond each end; 0 where the law ends there.
    pub(crate) tail: f64,
    /// True where both ends are the law's own.
    pub(crate) bounded: bool,
    /// Bound on the relative error of a mass above `e^-650`.
    pub(crate) error: f64,
}

impl Law {
    /// The table for losses under a shift by `sensitivity`; `None` where it would be too long.
    pub(crate) fn for_losses(noise: IntegerNoise, sensitivity: u64) -> Option<Self> {
        let reach = (sensitivity as f64 + reach(noise, CUT)).min(reach(noise, DEEP_CUT));
        if sensitivity as f64 + 2.0 * reach > MOST_OUTCOMES {
            return None;
        }
        let mut law = Self::new(noise, reach as usize + 1)?;
        // Masses that underflow or lost digits say nothing.
        let cut = law.mass.iter().take_while(|&&m| m < 1e-290).count();
        if cut > 0 {
            let half = law.mass.len() / 2 + 1;
            let beyond: f64 = law.mass[..cut].iter().sum();
            law.tail = 1.01 * (law.tail + beyond) + 1e-290 * half as f64;
            law.bounded = false;
            let kept = cut..law.mass.len() - cut;
            law.mass = law.mass[kept.clone()].to_vec();
            law.ln_mass = law.ln_mass[kept].to_vec();
        }
        Some(law)
    }

    /// The outcomes up to `reach` from the middle, and further where that would not be nearly all; `None` where that is too
    /// long, or for a law that is not tabulated ([`IntegerNoise::DiscreteLaplace`] needs no table).
    pub(crate) fn new(noise: IntegerNoise, at_least: usize) -> Option<Self> {
        let least = reach(noise, CUT);
        if at_least.max(least as usize) as f64 > MOST_OUTCOMES {
            return None;
        }
        let reach = at_least.max(least as usize + 2);
        let half = match noise {
            IntegerNoise::Skellam { mu } => skellam(mu, reach),
            IntegerNoise::DiscreteGaussian { sigma } => discrete_gaussian(sigma, reach),
            IntegerNoise::CenteredBinomial { trials } => binomial(trials, reach),
            IntegerNoise::DiscreteLaplace { .. } => return None,
        };
        Some(half.unfold())
    }
}

/// How far out a mass is about `e^-cut`.
fn reach(noise: IntegerNoise, cut: f64) -> f64 {
    match noise {
        IntegerNoise::Skellam { mu } => {
            let z = 2.0 * mu;
            // Chernoff's bound: -ln P[X >= k] >= k asinh(k/z) - sqrt(k^2 + z^2) + z.
            let exponent = |k: f64| k * libm::asinh(k / z) - k * k / (k.hypot(z) + z);
            bisect((0.0, 2.0 * cut + 2.0 * (2.0 * cut * z).sqrt()), 60, |k| exponent(k) < cut).1
        }
        IntegerNoise::DiscreteGaussian { sigma } => sigma * (2.0 * cut).sqrt(),
        IntegerNoise::CenteredBinomial { trials } => {
            let trials = trials as f64;
            (trials * cut * 0.5).sqrt().min(0.5 * trials)
        }
        IntegerNoise::DiscreteLaplace { scale } => scale * cut,
    }
}

/// Half of a table, from the middle out, before it sums to one.
struct Half {
    /// `(factor, exponent)`: the mass is `factor 2^exponent`.
    weights: Vec<(f64, f64)>,
    /// True if the middle falls on an outcome, which then is its own mirror image.
    centred: bool,
    /// Bound on the ratio of each mass beyond the end to the one before it; 0 where the law ends.
    ratio: f64,
    error: f64,
}

impl Half {
    fn unfold(self) -> Law {
        let value = |&(factor, exponent): &(f64, f64)| factor * libm::exp2(exponent);
        let mut total = Double::ZERO;
        for (k, weight) in self.weights.iter().enumerate().rev() {
            let once = Double::new(value(weight));
            total = total + if k == 0 && self.centred { once } else { once + once };
        }
        let total = total.value();
        let ln_total = libm::log(total);
        let masses: Vec<f64> = self.weights.iter().map(|weight| value(weight) / total).collect();
        let logs: Vec<f64> = self.weights.iter().map(|&(f, e)| libm::log(f) + e * LN_2 - ln_total).collect();
        let unfold = |half: &[f64]| -> Vec<f64> {
            let mirrored = half.iter().skip(usize::from(self.centred)).rev();
            mirrored.chain(half).copied().collect()
        };
        let last = masses.last().copied().unwrap_or(1.0);
        let tail = if self.ratio < 1.0 { 1.01 * last * self.ratio / (1.0 - self.ratio) } else { 1.0 };
        let underflow = if self.ratio > 0.0 { f64::MIN_POSITIVE } else { 0.0 };
        Law {
            mass: unfold(&masses),
            ln_mass: unfold(&logs),
            tail: tail + underflow,
            bounded: self.ratio == 0.0,
            error: self.error,
        }
    }
}

const LN_2: f64 = std::f64::consts::LN_2;

/// Products of ratios of neighbors, in double-word numbers, rescaled before they underflow.
fn products(ratios: impl Iterator<Item = Double>) -> Vec<(f64, f64)> {
    const STEP: i32 = 400;
    let (mut factor, mut exponent) = (Double::ONE, 0.0);
    let mut weights = vec![(1.0, 0.0)];
    for ratio in ratios {
        factor = factor * ratio;
        if factor.value() < libm::ldexp(1.0, -STEP) {
            factor = factor.scaled(STEP);
            exponent -= f64::from(STEP);
        }
        weights.push((factor.value(), exponent));
    }
    weights
}

/// `q(k) = e^(-z) I_k(z)`, `z = 2 mu`, by Miller's recurrence: `rho(k) = q(k-1)/q(k) = 2k/z + 1/rho(k+1)`.
///
/// An error of `rho(k+1)` reaches `rho(k)` shrunk by `1/(rho(k) rho(k+1))`, and `rho(k) > e^(asinh((k - 1/2)/z))` (Amos
/// 1974), so that the guess at the start, `4 sqrt(z) + 60` beyond a reach of at least 17 standard deviations, is forgotten
/// to `e^-100`. The roundings, `2^-97` a step, add up over at most `2^19` steps within a `rho` and as many in a product: to
/// less than `2^-59`.
fn skellam(mu: f64, reach: usize) -> Half {
    let z = 2.0 * mu;
    let start = reach + (4.0 * z.sqrt()) as usize + 60;
    let k = start as f64 + 1.0;
    let mut rho = Double::new((k - 0.5 + ((k + 0.5) * (k + 0.5) + z * z).sqrt()) / z);
    let mut inverses = vec![Double::ONE; reach];
    for k in (1..=start).rev() {
        rho = Double::new(2.0 * k as f64) / Double::new(z) + Double::ONE / rho;
        if k <= reach {
            inverses[k - 1] = Double::ONE / rho;
        }
    }
    Half {
        weights: products(inverses.into_iter()),
        centred: true,
        ratio: skellam_ratio(z, reach as f64),
        error: DOUBLE_ERROR,
    }
}

/// Bound on `I_(k+1)(z)/I_k(z)`, falling in k (Amos 1974, equation 9): `z / (k + 1/2 + sqrt((k + 1/2)^2 + z^2))`.
pub(crate) fn skellam_ratio(z: f64, k: f64) -> f64 {
    z / (k + 0.5 + (k + 0.5).hypot(z)) * (1.0 + 1e-14)
}

/// `e^(-k^2 / (2 sigma^2))`.
fn discrete_gaussian(sigma: f64, reach: usize) -> Half {
    let ln = |k: f64| -k * k / (2.0 * sigma * sigma);
    // Whole powers of two are taken out of the exponents: their fractional parts remain.
    let weight = |k: usize| {
        let exponent = (ln(k as f64) / LN_2).ceil().min(0.0);
        (libm::exp(ln(k as f64) - exponent * LN_2), exponent)
    };
    Half {
        weights: (0..=reach).map(weight).take_while(|w| w.1 > -1e300).collect(),
        centred: true,
        ratio: libm::exp(-(2.0 * reach as f64 + 1.0) / (2.0 * sigma * sigma)).max(f64::MIN_POSITIVE),
        // The exponent's rounding, 3 units of it, for masses down to e^-DEEP_CUT.
        error: 4.0 * f64::EPSILON * (2.0 + DEEP_CUT.min(-ln(reach as f64))),
    }
}

/// Binomial coefficients by `C(n, k+1) / C(n, k) = (n-k)/(k+1)`, from the middle out.
fn binomial(trials: u64, reach: usize) -> Half {
    let (above, below) = (trials.div_ceil(2), trials / 2);
    let ratio = |j: u64| Double::new((below - j) as f64) / Double::new((above + j + 1) as f64);
    let last = below.min(reach as u64);
    Half {
        weights: products((0..last).map(ratio)),
        centred: trials.is_multiple_of(2),
        ratio: ratio(last).value(),
        error: DOUBLE_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_sum_to_one_with_the_right_variance() {
        for (noise, variance) in [
            (IntegerNoise::Skellam { mu: 0.05 }, 0.1),
            (IntegerNoise::Skellam { mu: 5.95 }, 11.9),
            (IntegerNoise::Skellam { mu: 1e6 }, 2e6),
            (IntegerNoise::DiscreteGaussian { sigma: 7.0 }, 49.0),
            (IntegerNoise::CenteredBinomial { trials: 1 }, 0.25),
            (IntegerNoise::CenteredBinomial { trials: 30 }, 7.5),
            (IntegerNoise::CenteredBinomial { trials: 100_001 }, 25_000.25),
        ] {
            let law = Law::for_losses(noise, 1).unwrap();
            let middle = 0.5 * (law.mass.len() - 1) as f64;
            let total: f64 = law.mass.iter().sum();
            let second: f64 = law.mass.iter().enumerate().map(|(i, m)| m * (i as f64 - middle).powi(2)).sum();
            assert!((total - 1.0).abs() < 1e-12 && (second / variance - 1.0).abs() < 1e-11, "{noise:?} {second}");
            assert!(law.tail < 1e-60 && law.bounded == (law.tail == 0.0), "{noise:?} {:e}", law.tail);
            for (mass, ln) in law.mass.iter().zip(&law.ln_mass) {
                assert!((libm::exp(*ln) / mass - 1.0).abs() < 4e-13, "{noise:?}");
            }
        }
    }

    #[test]
    fn known_masses() {
        // From mpmath with 40 digits.
        for (noise, k, expected) in [
            (IntegerNoise::Skellam { mu: 1.0 }, 0, 0.308508322553671),
            (IntegerNoise::Skellam { mu: 1.0 }, 20, 5.833709364763621e-20),
            (IntegerNoise::CenteredBinomial { trials: 30 }, 15, 9.313225746154785e-10),
        ] {
            let law = Law::for_losses(noise, 1).unwrap();
            let found = law.mass[law.mass.len() / 2 + k];
            assert!((found / expected - 1.0).abs() < 1e-12, "{noise:?} {k}: {found:e}");
        }
    }

    #[test]
    fn what_is_too_long_is_none() {
        assert!(Law::for_losses(IntegerNoise::Skellam { mu: 1e12 }, 1).is_none());
        assert!(Law::for_losses(IntegerNoise::DiscreteGaussian { sigma: 2.0 }, u64::MAX).is_none());
        assert!(Law::for_losses(IntegerNoise::CenteredBinomial { trials: u64::MAX }, 1).is_none());
    }
}
