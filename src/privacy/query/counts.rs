//! Counts and histograms with discrete noise. A record is in one cell at most, so that it moves one count by 1, whatever
//! the number of cells.

use super::PureBudget;
use crate::math::prg::StreamReader;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, IntegerNoise};
use crate::sample::discrete_gaussian::DiscreteGaussian;
use crate::sample::discrete_laplace::DiscreteLaplace;

/// The noise of a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CountNoise {
    /// Discrete Laplace of scale `1 / epsilon`: pure epsilon-DP (Ghosh, Roughgarden, Sundararajan 2009).
    Laplace(PureBudget),
    /// Discrete Gaussian of this sigma (Canonne, Kamath, Steinke 2020).
    Gaussian {
        /// In records, > 0.
        sigma: f64,
    },
}

enum Law {
    Laplace(DiscreteLaplace),
    Gaussian(DiscreteGaussian),
}

impl CountNoise {
    fn law(self) -> Result<Law, PrivacyError> {
        let refused = |name, e: crate::sample::SampleError| PrivacyError::OutOfRange {
            name,
            expected: "within the range of the sampler".into(),
            found: e.to_string(),
        };
        match self {
            Self::Laplace(budget) => {
                let (n, d) = budget.parts();
                let law = DiscreteLaplace::new(d.cast_signed(), n.cast_signed());
                law.map(Law::Laplace).map_err(|e| refused("epsilon", e))
            }
            Self::Gaussian { sigma } => {
                DiscreteGaussian::new(sigma).map(Law::Gaussian).map_err(|e| refused("sigma", e))
            }
        }
    }

    /// What one release costs, of any number of counts.
    #[must_use]
    pub fn event(self) -> DpEvent {
        let noise = match self {
            // A smaller scale costs more.
            Self::Laplace(budget) => {
                let (n, d) = budget.parts();
                IntegerNoise::DiscreteLaplace { scale: (d as f64 / n as f64).next_down() }
            }
            Self::Gaussian { sigma } => IntegerNoise::DiscreteGaussian { sigma },
        };
        DpEvent::IntegerShift { noise, sensitivity: 1 }
    }

    /// Adds independent noise to each count.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a noise beyond what the samplers draw.
    pub fn add(self, counts: &mut [i64], reader: &mut StreamReader) -> Result<(), PrivacyError> {
        let law = self.law()?;
        for count in counts {
            let noise = match &law {
                Law::Laplace(law) => law.draw(reader),
                Law::Gaussian(law) => law.draw(reader),
            };
            *count = count.saturating_add(noise);
        }
        Ok(())
    }

    /// Checks that the samplers draw it.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`].
    pub fn validate(self) -> Result<(), PrivacyError> {
        self.law().map(|_| ())
    }

    /// Standard deviation of the noise of a count (of the discrete Gaussian an upper bound).
    #[must_use]
    pub fn std(self) -> f64 {
        match self {
            Self::Laplace(budget) => {
                let (n, d) = budget.parts();
                let half = 0.5 * n as f64 / d as f64;
                // 2 e^-eps / (1 - e^-eps)^2 = 1 / (2 sinh^2(eps / 2)).
                std::f64::consts::FRAC_1_SQRT_2 / libm::sinh(half)
            }
            Self::Gaussian { sigma } => sigma,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};
    use crate::privacy::accountant::Rule;

    #[test]
    fn noise_has_its_spread_and_its_price() {
        let mut r = StreamKey::from_bytes([3; 32], Cipher::ChaCha8).reader(0);
        let budget = PureBudget::new(1, 2).unwrap();
        for noise in [CountNoise::Laplace(budget), CountNoise::Gaussian { sigma: 3.5 }] {
            let mut counts = vec![100i64; 40_000];
            noise.add(&mut counts, &mut r).unwrap();
            let mean = counts.iter().sum::<i64>() as f64 / 40_000.0;
            let square = counts.iter().map(|&c| (c as f64 - 100.0).powi(2)).sum::<f64>() / 40_000.0;
            assert!((mean - 100.0).abs() < 0.1, "{mean}");
            assert!((square.sqrt() / noise.std() - 1.0).abs() < 0.05, "{square} {}", noise.std());
        }
        // Ten counts cost what one does: epsilon at a tiny delta is that of the budget, and not below it by much.
        let epsilon = Rule::Best.epsilon(&CountNoise::Laplace(budget).event(), 1, 1e-12).unwrap().epsilon;
        assert!(epsilon <= 0.5 + 1e-9 && epsilon > 0.499, "{epsilon}");
    }

    #[test]
    fn what_the_samplers_do_not_draw_is_refused() {
        for sigma in [0.0, f64::NAN, 1e12] {
            assert!(CountNoise::Gaussian { sigma }.validate().is_err());
        }
    }
}
