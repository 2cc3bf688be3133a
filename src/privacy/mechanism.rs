//! `trait Mechanism`: what to compute (`EncodeParams`, a noise law) and what it costs (`DpEvent`).

pub mod binomial;
pub mod distributed_gaussian;
pub(crate) mod fixed;
pub mod gaussian;
pub mod matrix;
pub mod none;
pub mod poisson_binomial;
pub mod quantized;
pub mod rounded;
pub mod skellam;
pub mod smm;
pub mod smm2022;

use std::fmt;
use std::sync::Arc;

use crate::params::EncodeParams;
use crate::privacy::matrix::{Participation, Strategy};
use crate::privacy::{DpEvent, NeighboringRelation};

/// The law of the integer noise in one released sum, per coordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoiseLaw {
    /// No noise.
    None,
    /// Poisson(mu) - Poisson(mu), variance `2 mu`; closed under sums, so that n clients may each add
    /// `Skellam { mu: mu / n }`.
    Skellam {
        /// Mean of each Poisson, > 0.
        mu: f64,
    },
    /// Discrete Gaussian on the integers, `P[k] ~ exp(-k^2 / (2 sigma^2))`; added once, by a trusted
    /// aggregator.
    DiscreteGaussian {
        /// sigma, > 0.
        sigma: f64,
    },
    /// A discrete Gaussian of `sigma_total / sqrt(m)` from each of m clients; **not** closed under sums, so that
    /// nobody can draw the sum at once.
    DiscreteGaussianShares {
        /// Parameter of the discrete Gaussian that the sum is near to, > 0.
        sigma_total: f64,
        /// Largest m that is accounted.
        most: u64,
    },
    /// Binomial(K, 1/2) - Binomial(K, 1/2), variance `K / 2`; closed under sums.
    CenteredBinomial {
        /// K > 0.
        coins: u64,
    },
}

impl NoiseLaw {
    /// Variance of one coordinate (for the discrete Gaussian: the parameter `sigma^2`, an upper bound).
    #[must_use]
    pub fn variance(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Skellam { mu } => 2.0 * mu,
            Self::DiscreteGaussian { sigma } | Self::DiscreteGaussianShares { sigma_total: sigma, .. } => sigma * sigma,
            Self::CenteredBinomial { coins } => coins as f64 / 2.0,
        }
    }
}

impl fmt::Display for NoiseLaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Skellam { mu } => write!(f, "Skellam, mu_tot {mu:.3}"),
            Self::DiscreteGaussian { sigma } => write!(f, "discrete Gaussian, sigma {sigma:.1} steps"),
            Self::DiscreteGaussianShares { sigma_total, .. } => {
                write!(f, "discrete Gaussians of the clients, sigma_tot {sigma_total:.1} steps")
            }
            Self::CenteredBinomial { coins } => write!(f, "centred binomial, {coins} coins on each side"),
        }
    }
}

/// How the noise of a run's rounds is correlated, and what its cost assumes.
#[derive(Clone, Copy, Debug)]
pub struct Correlation<'a> {
    /// The matrix; it has the number of rounds.
    pub strategy: &'a Strategy,
    /// How often a client may take part.
    pub participation: Participation,
}

/// A mechanism with its parameters fixed.
pub trait Mechanism: Send + Sync + fmt::Debug {
    /// The name in configs and reports.
    fn name(&self) -> &'static str;

    /// What `encode` does to a vector of `dim` coordinates.
    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError>;

    /// The noise in the released sum, all shares together.
    fn noise(&self) -> NoiseLaw;

    /// True if each client can add its share of [`Mechanism::noise`]; false if one trusted aggregator
    /// must add all of it.
    fn distributed(&self) -> bool;

    /// Cost of one release of the sum of rows of `dim` coordinates over a known cohort.
    fn event(&self, dim: usize) -> DpEvent;

    /// The neighbouring relation that [`Mechanism::event`] is about.
    fn neighboring(&self) -> NeighboringRelation;

    /// False while some bound behind [`Mechanism::event`] is computed numerically without a certificate.
    fn certified(&self) -> bool;

    /// Standard deviation that stochastic rounding adds to one coordinate of one client's row, when the
    /// row has the full norm and, after the rotation, is spread evenly (used to predict wraps and error).
    fn rounding_std(&self, dim: usize) -> f64;

    /// Value of one integer step of the decoded sum: `1 / gamma` (times `2^-F` where the fraction is kept).
    fn unit(&self) -> f64;

    /// Where the data are the biases of coins: `encode` leaves fixed-point integers X of so many bits (`rounding_kind::KEEP`, in 32
    /// bits), and what is added up are the heads of coins of probability `1/2 + X 2^-bits`
    /// ([`BiasedCoins`](crate::sample::poisson_binomial::BiasedCoins)). [`Mechanism::noise`] is then the law of rows of zeros, and
    /// nothing else is added.
    fn bias_bits(&self) -> Option<u32> {
        None
    }

    /// The same mechanism with this part of the noise's variance, in (0, 1]: what those see of a sum who know the rest of its
    /// noise. `None` where a part of the noise is not noise of the same law.
    fn with_part_of_noise(&self, part: f64) -> Option<Arc<dyn Mechanism>> {
        let _ = part;
        None
    }

    /// True if nothing is rounded to a ring: the sum of the fixed-point integers is carried in one as wide as it takes, with public
    /// weights if there are any. Never with privacy.
    fn exact(&self) -> bool {
        false
    }

    /// The correlation of the noise over rounds. Where there is one, [`Mechanism::event`] is the cost of the **whole run**,
    /// charged with its first release, and [`Mechanism::noise`] the law before it is correlated.
    fn correlation(&self) -> Option<Correlation<'_>> {
        None
    }
}

/// What the privacy room refuses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PrivacyError {
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// The allowed range, in words.
        expected: String,
        /// Value found.
        found: String,
    },
    /// An event that an accountant does not know; never counted as zero.
    #[error("the {accountant} accountant does not know {event}; supported: {supported}")]
    UnknownEvent {
        /// Accountant.
        accountant: &'static str,
        /// The event.
        event: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// A target that no parameter meets.
    #[error("epsilon {target} cannot be met: {reason}; the least reachable is {reachable}")]
    Infeasible {
        /// Epsilon asked for.
        target: f64,
        /// Which parameter stands in the way.
        reason: String,
        /// Smallest epsilon within reach.
        reachable: f64,
    },
    /// The ring is too small for the cohort.
    #[error(
        "{bits} bits wrap in {predicted:.2e} of the coordinates (limit {limit:.1e}) with {cohort} clients; {needed} bits would do, or a smaller gamma"
    )]
    Wraps {
        /// Ring width asked for.
        bits: u32,
        /// Predicted share of wrapped coordinates.
        predicted: f64,
        /// The limit.
        limit: f64,
        /// Expected cohort.
        cohort: f64,
        /// Least width under the limit.
        needed: u32,
    },
}
