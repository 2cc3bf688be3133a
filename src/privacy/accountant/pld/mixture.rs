//! The Skellam mixture as the Gaussian that dominates it (Theorems 3 and 4 of `docs/smm-accounting.md`).
//!
//! A coordinate x is dominated by `N(kappa x, 1)` against `N(0, 1)` up to delta0, in both directions. Coordinates compose
//! to a Gaussian of noise multiplier `1 / (kappa R)`, each for delta0; Poisson sampling leaves the charge as it is, and
//! T releases of d coordinates charge `T d delta0`, at most a hundredth of delta.

use crate::privacy::accountant::certificate::domination::{Domination, delta0_for, dominate};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;

/// Releases of one Skellam mixture under Poisson sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// `mu_tot`.
    pub mu: f64,
    /// `gamma C`.
    pub l2_bound: f64,
    /// Coordinates, padding included.
    pub dim: u64,
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
    /// The domination with the largest eta.
    pub worst: Domination,
}

impl Mixture {
    /// One plain release.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for `mu`, `l2_bound` not finite and > 0, and for `dim` 0.
    pub fn new(mu: f64, l2_bound: f64, dim: u64) -> Result<Self, PrivacyError> {
        validate::positive("mu", mu)?;
        validate::positive("l2_bound", l2_bound)?;
        validate::positive("dim", dim as f64)?;
        Ok(Self { mu, l2_bound, dim, rate: 1.0, count: 1 })
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
    let found: Vec<Domination> = mixtures.iter().map(|m| dominate(m.mu, m.l2_bound, delta0)).collect::<Option<_>>()?;
    let gaussian = |(m, d): (&Mixture, &Domination)| {
        let shift = (d.kappa * m.l2_bound).next_up();
        ((1.0 / shift).next_down(), m.rate, m.count)
    };
    let worst = found.iter().copied().max_by(|a, b| a.eta.total_cmp(&b.eta))?;
    let gaussians = mixtures.iter().zip(&found).map(gaussian).collect();
    Some(Dominating { gaussians, charged: (coordinates * delta0).next_up(), worst })
}

/// The accountant's name where no Gaussian is certified to dominate.
pub const UNKNOWN: &str = "pld (smm: no dominating Gaussian is certified here)";

impl Dominating {
    /// The accountant's name with this bound.
    #[must_use]
    pub fn name(&self) -> String {
        let Domination { eta, delta0, .. } = self.worst;
        format!("pld (smm dominated by a Gaussian: eta {eta:.4} at delta0 {delta0:e})")
    }
}
