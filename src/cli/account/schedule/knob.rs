//! What stands for the noise of a mechanism on the command line.

use super::Course;
use crate::cli::Failure;
use crate::cli::account::args::{Args, MechanismName};
use crate::cli::account::noise::{MOST_TRIALS, name};
use crate::cli::account::usage;
use crate::privacy::mechanism::binomial::MOST_COINS;

/// What stands for the noise of a mechanism, and how a factor on its standard deviation changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knob {
    /// `mu` of one client, by the square.
    Mu,
    /// By the factor.
    NoiseMultiplier,
    /// By the factor.
    SigmaTotal,
    /// By the square, rounded up.
    Coins,
    /// By the square, rounded up.
    Trials,
}

impl Knob {
    /// That of the mechanism; `None` for one without a noise to scale, if the course does not ask for any.
    pub(super) fn of(args: &Args, course: &Course) -> Result<Option<Self>, Failure> {
        Ok(Some(match args.mechanism {
            MechanismName::Smm | MechanismName::Smm2022 | MechanismName::Skellam => Self::Mu,
            MechanismName::DistributedDiscreteGaussian => Self::SigmaTotal,
            MechanismName::Binomial => Self::Coins,
            MechanismName::CenteredBinomial => Self::Trials,
            MechanismName::CentralGaussian
            | MechanismName::Gaussian
            | MechanismName::Laplace
            | MechanismName::DiscreteGaussian
            | MechanismName::DiscreteLaplace => Self::NoiseMultiplier,
            MechanismName::Matrix => {
                return Err(usage("--mechanism matrix does not take --schedule: its noise is that of the whole run"));
            }
            MechanismName::RandomizedResponse
            | MechanismName::PureDp
            | MechanismName::Zcdp
            | MechanismName::PoissonBinomial
                if course.0.iter().all(|step| step.factor == 1.0) =>
            {
                return Ok(None);
            }
            _ => {
                return Err(usage(format!(
                    "--mechanism {} has no noise that a stage could scale: its stages may differ in their cohorts only \
                     (ROUNDSx1@COHORT)",
                    name(args)
                )));
            }
        }))
    }

    pub(super) fn given(self, args: &Args) -> Option<f64> {
        match self {
            Self::Mu => args.mu,
            Self::NoiseMultiplier => args.noise_multiplier,
            Self::SigmaTotal => args.sigma_total,
            Self::Coins => args.coins.map(|coins| coins as f64),
            Self::Trials => args.trials.map(|trials| trials as f64),
        }
    }

    pub(super) fn set(self, args: &mut Args, base: f64, factor: f64) {
        let (square, whole) = (base * factor * factor, |x: f64| Some(x.ceil() as u64));
        match self {
            Self::Mu => args.mu = Some(square),
            Self::NoiseMultiplier => args.noise_multiplier = Some(base * factor),
            Self::SigmaTotal => args.sigma_total = Some(base * factor),
            Self::Coins => args.coins = whole(square),
            Self::Trials => args.trials = whole(square),
        }
    }

    /// The level at which the noise of the sum has so many times the sensitivity's standard deviation, roughly.
    pub(super) fn level(self, args: &Args, multiplier: f64) -> f64 {
        let sensitivity = args.gamma.map_or(args.sensitivity.unwrap_or(1) as f64, |gamma| gamma * args.clip);
        let sigma = multiplier * sensitivity;
        match self {
            Self::Mu => 0.5 * sigma * sigma / args.cohort.max(1) as f64,
            Self::NoiseMultiplier => multiplier,
            Self::SigmaTotal => sigma,
            Self::Coins => 2.0 * sigma * sigma,
            Self::Trials => 4.0 * sigma * sigma,
        }
        .clamp(1e-9, self.largest())
    }

    pub(super) fn largest(self) -> f64 {
        match self {
            Self::Coins => MOST_COINS as f64,
            Self::Trials => MOST_TRIALS,
            _ => 1e15,
        }
    }

    pub(super) fn grain(self) -> f64 {
        if matches!(self, Self::Coins | Self::Trials) { 0.5 } else { 0.0 }
    }
}
