//! From an event to its loss curves.

use super::atoms::{AtomCurve, Pair};
use super::continuous::{FixedSize, GaussianMixture, SampledLaplace};
use super::curve::LossCurve;
use super::gaussian::{Direction, SampledGaussian};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, IntegerNoise};

/// A mechanism whose loss is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// Gaussian noise of this multiplier.
    Gaussian(f64),
    /// Integer noise and the shift of the query.
    Integer(IntegerNoise, u64),
    /// Laplace noise of this multiplier.
    Laplace(f64),
    /// Randomized response, epsilon and the number of answers.
    Response(f64, u64),
    /// sigma, sensitivities with their probabilities.
    Mixture(f64, Vec<(f64, f64)>),
}

/// How contributions are drawn, with the share that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sampling {
    /// Each on its own, with this probability.
    Poisson(f64),
    /// A set of fixed size; neighbours replace one.
    Fixed(f64),
}

impl Sampling {
    pub(super) fn rate(self) -> f64 {
        match self {
            Self::Poisson(rate) | Self::Fixed(rate) => rate,
        }
    }
}

impl Source {
    /// The source of an event without sampling and composition; `None` for one that has none, or whose table would be
    /// too long.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a bad parameter.
    pub(super) fn of(event: &DpEvent) -> Result<Option<Self>, PrivacyError> {
        validate::event(event)?;
        Ok(match event {
            DpEvent::Gaussian { noise_multiplier } => Some(Self::Gaussian(*noise_multiplier)),
            DpEvent::IntegerShift { noise, sensitivity } => {
                let fits = Pair::shifted(*noise, *sensitivity).is_some();
                fits.then_some(Self::Integer(*noise, *sensitivity))
            }
            DpEvent::Laplace { noise_multiplier } => Some(Self::Laplace(*noise_multiplier)),
            DpEvent::RandomizedResponse { epsilon, categories } => Some(Self::Response(*epsilon, *categories)),
            DpEvent::PureDp { epsilon } => Some(Self::Response(*epsilon, 2)),
            DpEvent::MixtureOfGaussians { sigma, sensitivities, probabilities } => {
                // They have the sum 1 to within 1e-9.
                let total: f64 = probabilities.iter().sum();
                let parts = sensitivities.iter().zip(probabilities).map(|(&s, &p)| (s, p / total));
                Some(Self::Mixture(*sigma, parts.collect()))
            }
            _ => None,
        })
    }

    /// True if the mechanism costs nothing at all.
    pub(super) fn is_free(&self) -> bool {
        match self {
            Self::Response(epsilon, _) => *epsilon == 0.0,
            Self::Mixture(_, parts) => parts.iter().all(|&(s, p)| s == 0.0 || p == 0.0),
            _ => false,
        }
    }

    /// True if exchanging P and Q gives the same pair.
    pub(super) fn is_symmetric(&self) -> bool {
        !matches!(self, Self::Mixture(..))
    }

    /// The loss under `sampling`.
    pub(super) fn curve(&self, sampling: Sampling, direction: Direction) -> Box<dyn LossCurve> {
        match sampling {
            Sampling::Poisson(rate) => self.poisson(rate, direction),
            Sampling::Fixed(rate) => Box::new(FixedSize {
                positive: self.poisson(rate, Direction::Remove),
                negative: self.poisson(rate, Direction::Add),
            }),
        }
    }

    fn poisson(&self, rate: f64, direction: Direction) -> Box<dyn LossCurve> {
        match self {
            Self::Gaussian(sigma) => Box::new(SampledGaussian::new(*sigma, rate, direction)),
            Self::Laplace(noise_multiplier) => Box::new(SampledLaplace::new(*noise_multiplier, rate, direction)),
            Self::Mixture(sigma, parts) => Box::new(GaussianMixture::new(*sigma, parts, rate, direction)),
            Self::Response(epsilon, categories) => {
                Box::new(AtomCurve::new(&Pair::randomized_response(*epsilon, *categories), rate, direction))
            }
            Self::Integer(noise, shift) => {
                // `of` has seen that the table fits; otherwise all outcomes tell the sides apart.
                let apart = || Pair { only_p: 1.0, only_q: 1.0, ..Pair::default() };
                let pair = Pair::shifted(*noise, *shift).unwrap_or_else(apart);
                Box::new(AtomCurve::new(&pair, rate, direction))
            }
        }
    }
}
