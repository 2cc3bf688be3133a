//! Integer laws and their probabilities in `f64`: what tests and reports compare draws with.

use super::SampleError;
use super::binomial::CentredBinomial;
use super::discrete_gaussian::DiscreteGaussian;
use super::discrete_laplace::DiscreteLaplace;
use super::poisson::Poisson;
use super::skellam::Skellam;
use crate::math::prg::StreamReader;

/// An integer law with its exact parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Poisson(numerator / denominator).
    Poisson {
        /// Numerator of the mean.
        numerator: i64,
        /// Denominator of the mean.
        denominator: i64,
    },
    /// Poisson(mu) - Poisson(mu), `mu = numerator / denominator`.
    Skellam {
        /// Numerator of mu.
        numerator: i64,
        /// Denominator of mu.
        denominator: i64,
    },
    /// `P[k] ~ e^(-|k| / b)`, `b = numerator / denominator`.
    DiscreteLaplace {
        /// Numerator of b.
        numerator: i64,
        /// Denominator of b.
        denominator: i64,
    },
    /// `P[k] ~ e^(-k^2 / (2 sigma^2))`.
    DiscreteGaussian {
        /// sigma.
        sigma: f64,
    },
    /// Binomial(k, 1/2) - Binomial(k, 1/2).
    CentredBinomial {
        /// Coins on each side.
        k: u32,
    },
}

/// A law ready to be drawn from.
#[derive(Clone, Copy, Debug)]
pub enum Sampler {
    /// See [`Poisson`].
    Poisson(Poisson),
    /// See [`Skellam`].
    Skellam(Skellam),
    /// See [`DiscreteLaplace`].
    DiscreteLaplace(DiscreteLaplace),
    /// See [`DiscreteGaussian`].
    DiscreteGaussian(DiscreteGaussian),
    /// See [`CentredBinomial`].
    CentredBinomial(CentredBinomial),
}

impl Sampler {
    /// One exact draw.
    pub fn draw(&self, reader: &mut StreamReader) -> i64 {
        match self {
            Self::Poisson(law) => law.draw(reader) as i64,
            Self::Skellam(law) => law.draw(reader),
            Self::DiscreteLaplace(law) => law.draw(reader),
            Self::DiscreteGaussian(law) => law.draw(reader),
            Self::CentredBinomial(law) => law.draw(reader),
        }
    }
}

/// Probabilities on a window of consecutive integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Pmf {
    /// First integer of the window.
    pub first: i64,
    /// Probabilities of `first, first + 1, ...`; what lies outside the window is below 1e-15.
    pub probabilities: Vec<f64>,
}

impl Pmf {
    /// Probability of `k`; zero outside the window.
    #[must_use]
    pub fn of(&self, k: i64) -> f64 {
        let index = k.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        index.and_then(|i| self.probabilities.get(i)).copied().unwrap_or(0.0)
    }

    /// Mean and variance.
    #[must_use]
    pub fn moments(&self) -> (f64, f64) {
        let at = |i: usize| self.first as f64 + i as f64;
        let mean: f64 = self.probabilities.iter().enumerate().map(|(i, p)| p * at(i)).sum();
        let variance = self.probabilities.iter().enumerate().map(|(i, p)| p * (at(i) - mean).powi(2)).sum();
        (mean, variance)
    }

    /// Normalised weights on `first ..`.
    fn normalised(first: i64, mut weights: Vec<f64>) -> Self {
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        Self { first, probabilities: weights }
    }

    /// A symmetric law from the weights of `0, 1, 2, ...`.
    fn symmetric(half: &[f64]) -> Self {
        let weights = half.iter().skip(1).rev().chain(half).copied().collect();
        Self::normalised(1 - half.len() as i64, weights)
    }
}

/// Standard deviations around the mean that a window covers, and the least half width.
const WINDOW: (f64, f64) = (10.0, 60.0);
/// Widest law of which probabilities are listed.
const MAX_DEVIATION: f64 = 1e5;

impl Law {
    /// The sampler of this law.
    ///
    /// # Errors
    /// What the law's constructor refuses.
    pub fn sampler(self) -> Result<Sampler, SampleError> {
        Ok(match self {
            Self::Poisson { numerator, denominator } => Sampler::Poisson(Poisson::new(numerator, denominator)?),
            Self::Skellam { numerator, denominator } => Sampler::Skellam(Skellam::new(numerator, denominator)?),
            Self::DiscreteLaplace { numerator, denominator } => {
                Sampler::DiscreteLaplace(DiscreteLaplace::new(numerator, denominator)?)
            }
            Self::DiscreteGaussian { sigma } => Sampler::DiscreteGaussian(DiscreteGaussian::new(sigma)?),
            Self::CentredBinomial { k } => Sampler::CentredBinomial(CentredBinomial::new(k)?),
        })
    }

    /// Probabilities with a relative error of about 1e-11 where they matter.
    ///
    /// # Errors
    /// What the law's constructor refuses, and [`SampleError::OutOfRange`] for a standard deviation above 1e5.
    pub fn pmf(self) -> Result<Pmf, SampleError> {
        self.sampler()?;
        let ratio = |n: i64, d: i64| n as f64 / d as f64;
        let half_width = |deviation: f64| -> Result<usize, SampleError> {
            super::within("standard deviation", deviation, 0.0, MAX_DEVIATION)?;
            Ok((WINDOW.0 * deviation).max(WINDOW.1).ceil() as usize)
        };
        Ok(match self {
            Self::Poisson { numerator, denominator } => {
                let rate = ratio(numerator, denominator);
                poisson(rate, half_width(rate.sqrt())?)
            }
            Self::Skellam { numerator, denominator } => {
                let mu = ratio(numerator, denominator);
                Pmf::symmetric(&skellam(mu, half_width((2.0 * mu).sqrt())?))
            }
            Self::DiscreteLaplace { numerator, denominator } => {
                let scale = ratio(numerator, denominator);
                let width = half_width(4.0 * scale)?;
                Pmf::symmetric(&(0..=width).map(|k| libm::exp(-(k as f64) / scale)).collect::<Vec<_>>())
            }
            Self::DiscreteGaussian { sigma } => {
                let width = half_width(sigma)?;
                let weight = |k: usize| libm::exp(-0.5 * (k as f64 / sigma).powi(2));
                Pmf::symmetric(&(0..=width).map(weight).collect::<Vec<_>>())
            }
            Self::CentredBinomial { k } => {
                let width = half_width((f64::from(k) / 2.0).sqrt())?.min(k as usize);
                Pmf::symmetric(&binomial(f64::from(k), width))
            }
        })
    }
}

/// `C(2k, k + x)` for `x = 0 ..= width` up to a factor.
fn binomial(k: f64, width: usize) -> Vec<f64> {
    let mut weight = 1.0;
    let mut weights = vec![weight];
    for x in (0..width).map(|x| x as f64) {
        weight *= (k - x) / (k + x + 1.0);
        weights.push(weight);
    }
    weights
}

/// `P[k] = P[k-1] rate / k`, started at the mode, where it is set to 1.
fn poisson(rate: f64, width: usize) -> Pmf {
    let mode = rate.floor() as i64;
    let first = (mode - width as i64).max(0);
    let mut weights = vec![1.0];
    for k in (first + 1..=mode).rev() {
        weights.push(weights[weights.len() - 1] * k as f64 / rate);
    }
    weights.reverse();
    for k in mode + 1..=mode + width as i64 {
        weights.push(weights[weights.len() - 1] * rate / k as f64);
    }
    Pmf::normalised(first, weights)
}

/// `I_k(2 mu)` for `k = 0 ..= width` up to a factor, by Miller's recurrence on the ratios.
fn skellam(mu: f64, width: usize) -> Vec<f64> {
    let mut ratios = vec![0.0; width + 2];
    for k in (1..=width).rev() {
        ratios[k] = mu / (k as f64 + mu * ratios[k + 1]);
    }
    let mut weight = 1.0;
    let mut weights = vec![weight];
    for ratio in &ratios[1..=width] {
        weight *= ratio;
        weights.push(weight);
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::table::NoiseTable;

    #[test]
    fn moments_are_those_of_the_laws() {
        for (law, mean, variance) in [
            (Law::Poisson { numerator: 4, denominator: 3 }, 4.0 / 3.0, 4.0 / 3.0),
            (Law::Poisson { numerator: 0, denominator: 3 }, 0.0, 0.0),
            (Law::Poisson { numerator: 5000, denominator: 1 }, 5000.0, 5000.0),
            (Law::Skellam { numerator: 119, denominator: 20 }, 0.0, 11.9),
            (Law::Skellam { numerator: 0, denominator: 20 }, 0.0, 0.0),
            (Law::Skellam { numerator: 1428, denominator: 1 }, 0.0, 2856.0),
            (Law::DiscreteGaussian { sigma: 5.0 }, 0.0, 25.0),
            (Law::CentredBinomial { k: 1 }, 0.0, 0.5),
            (Law::CentredBinomial { k: 24 }, 0.0, 12.0),
            (Law::CentredBinomial { k: 4096 }, 0.0, 2048.0),
        ] {
            let (m, v) = law.pmf().unwrap().moments();
            assert!(
                (m - mean).abs() < 1e-10 * (1.0 + mean) && (v - variance).abs() < 1e-9 * (1.0 + variance),
                "{law:?}: {m} {v}"
            );
        }
        let b: f64 = 2.5;
        let exact = 2.0 * (1.0 / b).exp() / ((1.0 / b).exp() - 1.0).powi(2);
        let (_, v) = Law::DiscreteLaplace { numerator: 5, denominator: 2 }.pmf().unwrap().moments();
        assert!((v - exact).abs() < 1e-9, "{v} {exact}");
    }

    /// Two independent computations of the same law.
    #[test]
    fn the_table_and_the_recurrence_agree() {
        let pmf = Law::Skellam { numerator: 119, denominator: 20 }.pmf().unwrap();
        let table = NoiseTable::skellam(5.95).unwrap();
        let mut below = 0;
        for (k, &t) in table.thresholds.iter().enumerate() {
            let p = (t - below) as f64 / 2f64.powi(127) / if k == 0 { 1.0 } else { 2.0 };
            assert!((pmf.of(k as i64) - p).abs() < 1e-13, "{k}");
            assert_eq!(pmf.of(k as i64), pmf.of(-(k as i64)));
            below = t;
        }
        assert_eq!(pmf.of(i64::MAX) + pmf.of(i64::MIN), 0.0);
    }

    #[test]
    fn a_law_too_wide_to_list_is_an_error() {
        let error = Law::DiscreteGaussian { sigma: 2e5 }.pmf().unwrap_err();
        assert!(matches!(error, SampleError::OutOfRange { name: "standard deviation", .. }));
        assert!(Law::Poisson { numerator: 1, denominator: 0 }.pmf().is_err());
    }
}
