//! The Skellam mixture as the Gaussian that dominates it (Theorems 3 and 4 of `docs/smm-accounting.md`), and vectors of
//! integers under Skellam, centred binomial or distributed discrete Gaussian noise likewise (`docs/integer-noise.md`).
//!
//! A coordinate x is dominated by `N(kappa x, 1)` against `N(0, 1)` up to delta0, in both directions. Coordinates compose
//! to a Gaussian of noise multiplier `1 / (kappa R)`, each for delta0; Poisson sampling leaves the charge as it is, and
//! T releases of d coordinates charge `T d delta0`, at most a hundredth of delta. A vector of integers of norm R changes in
//! at most `R^2` coordinates, whatever its length. The sum of discrete Gaussians is only near one: see [`Mixture::off`].

use crate::privacy::DpEvent;
use crate::privacy::accountant::certificate::domination::{Domination, delta0_for, dominate};
use crate::privacy::accountant::certificate::steps::{self, StepNoise};
use crate::privacy::accountant::rdp::{closeness_of_shares, validate};
use crate::privacy::mechanism::PrivacyError;

/// What a Gaussian can dominate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// A Skellam mixture: any real x, rounded at random.
    Mixture {
        /// `mu_tot`.
        mu: f64,
    },
    /// Integers.
    Steps(StepNoise),
}

impl Noise {
    fn dominate(self, l2_bound: f64, delta0: f64) -> Option<Domination> {
        match self {
            Self::Mixture { mu } => dominate(mu, l2_bound, delta0),
            Self::Steps(noise) => steps::dominate(noise, l2_bound, delta0),
        }
    }

    /// For the accountant's name.
    const fn what(self) -> &'static str {
        match self {
            Self::Mixture { .. } => "smm",
            Self::Steps(StepNoise::Skellam { .. }) => "Skellam noise on integers",
            Self::Steps(StepNoise::CenteredBinomial { .. }) => "binomial noise on integers",
            Self::Steps(StepNoise::DiscreteGaussian { .. }) => "discrete Gaussians on integers",
        }
    }
}

/// Releases of one mechanism that is dominated, under Poisson sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// The law.
    pub noise: Noise,
    /// `gamma C`, or the bound on a vector of integers.
    pub l2_bound: f64,
    /// Coordinates that may change, padding included.
    pub dim: u64,
    /// By so much the logarithm of a probability of a release may differ from that under `noise`, for either neighbour.
    pub off: f64,
    /// Sampling rate.
    pub rate: f64,
    /// Releases.
    pub count: u64,
}

/// Gaussians that dominate, and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Dominating {
    /// Noise multiplier, sampling rate, releases.
    pub gaussians: Vec<(f64, f64, u64)>,
    /// Charged to delta.
    pub charged: f64,
    /// [`Mixture::off`] of all releases.
    pub off: f64,
    /// The domination with the largest eta.
    pub worst: Domination,
    /// Which law that is.
    pub noise: Noise,
}

impl Mixture {
    /// One plain release; `None` for an event that no Gaussian is known to dominate.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for noise and bounds not finite and > 0, and for `dim` 0.
    pub fn of(event: &DpEvent) -> Result<Option<Self>, PrivacyError> {
        let integers = |noise, l2_bound: f64| {
            validate::event(event)?;
            // As many coordinates as integers of that norm can fill; a float beyond u64 saturates.
            let dim = (l2_bound * l2_bound).next_up() as u64;
            Ok(Some(Self { noise: Noise::Steps(noise), l2_bound, dim, off: 0.0, rate: 1.0, count: 1 }))
        };
        match *event {
            DpEvent::SkellamMixture { mu, l2_bound, dim: Some(dim) } => {
                validate::positive("mu", mu)?;
                validate::positive("l2_bound", l2_bound)?;
                validate::positive("dim", dim as f64)?;
                Ok(Some(Self { noise: Noise::Mixture { mu }, l2_bound, dim, off: 0.0, rate: 1.0, count: 1 }))
            }
            DpEvent::SkellamVector { mu, l2_bound, .. } => integers(StepNoise::Skellam { mu }, l2_bound),
            DpEvent::BinomialVector { coins, l2_bound } => integers(StepNoise::CenteredBinomial { coins }, l2_bound),
            DpEvent::DistributedDiscreteGaussian { clients, sigma, l2_bound, dim, .. } => {
                // A parameter to a few units of its last place: the certificate holds for all near it.
                let total = StepNoise::DiscreteGaussian { sigma: (clients as f64).sqrt() * sigma };
                let off = (dim as f64 * closeness_of_shares(clients, sigma)).next_up();
                Ok(integers(total, l2_bound)?.map(|one| Self { dim: one.dim.min(dim), off, ..one }))
            }
            _ => Ok(None),
        }
    }

    /// Coordinates released, rounded up.
    fn coordinates(&self) -> f64 {
        ((self.dim as f64).next_up() * (self.count as f64).next_up()).next_up()
    }
}

/// Adds releases to those that are alike.
pub fn add(mixtures: &mut Vec<Mixture>, more: Mixture) {
    if more.rate == 0.0 || more.count == 0 {
        return;
    }
    match mixtures.iter_mut().find(|m| Mixture { count: more.count, ..**m } == more) {
        Some(known) => known.count = known.count.saturating_add(more.count),
        None => mixtures.push(more),
    }
}

/// What dominates all of `mixtures` at a delta0 that fits `delta`; `None` where one has no certificate.
#[must_use]
pub fn dominating(mixtures: &[Mixture], delta: f64) -> Option<Dominating> {
    let coordinates = mixtures.iter().fold(0.0, |sum: f64, m| (sum + m.coordinates()).next_up());
    let delta0 = delta0_for(coordinates, delta)?;
    let found: Vec<Domination> =
        mixtures.iter().map(|m| m.noise.dominate(m.l2_bound, delta0)).collect::<Option<_>>()?;
    let gaussian = |(m, d): (&Mixture, &Domination)| {
        let shift = (d.kappa * m.l2_bound).next_up();
        ((1.0 / shift).next_down(), m.rate, m.count)
    };
    let (worst, noise) = found
        .iter()
        .zip(mixtures)
        .map(|(&found, mixture)| (found, mixture.noise))
        .max_by(|a, b| a.0.eta.total_cmp(&b.0.eta))?;
    let gaussians = mixtures.iter().zip(&found).map(gaussian).collect();
    let off = mixtures
        .iter()
        .fold(0.0, |sum: f64, m| if m.off > 0.0 { (sum + m.off * m.count as f64).next_up() } else { sum });
    let off = off * (1.0 + 4.0 * f64::EPSILON);
    if !off.is_finite() {
        return None;
    }
    Some(Dominating { gaussians, charged: (coordinates * delta0).next_up(), off, worst, noise })
}

/// The accountant's name where no Gaussian is certified to dominate.
#[must_use]
pub fn unknown(mixtures: &[Mixture]) -> String {
    let what = mixtures.first().map_or("smm", |m| m.noise.what());
    format!("pld ({what}: no dominating Gaussian is certified here)")
}

impl Dominating {
    /// The accountant's name with this bound.
    #[must_use]
    pub fn name(&self) -> String {
        let Domination { eta, delta0, .. } = self.worst;
        let what = self.noise.what();
        format!("pld ({what} dominated by a Gaussian: eta {eta:.4} at delta0 {delta0:e})")
    }
}
