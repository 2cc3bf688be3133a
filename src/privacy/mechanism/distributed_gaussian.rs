//! `distributed-discrete-gaussian` (Kairouz, Liu, Steinke 2021, Algorithm 1 with section 4.1).
//!
//! As [`super::skellam`], but each of the m clients of a cohort adds a discrete Gaussian of parameter
//! `sigma_total / sqrt(m)`. Their sum is no discrete Gaussian, only near one, so that it cannot be drawn once from a
//! summed law: every client draws its own share. What is accounted holds for every m up to `most`; a cohort is larger with
//! a probability that [`DistributedGaussian::overflow`] bounds and that is charged as an error of the sampler.

use super::rounded::RoundedScale;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};

/// Largest probability of a cohort above `most`, in one release.
const OVERFLOW: f64 = 1e-30;
/// Least parameter of one client's share, for which the closeness of sums is proved.
const LEAST_SHARE: f64 = 0.5;

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistributedGaussianParams {
    /// Scale, clip, ring, bound.
    pub scale: RoundedScale,
    /// Parameter of the discrete Gaussian that the noise of the whole sum is near to, in integer steps. Finite, > 0.
    pub sigma_total: f64,
    /// Largest cohort that is accounted, >= 1; see [`largest_cohort`].
    pub most: u64,
}

/// The least size that a Poisson cohort of `cohort` expected clients exceeds with probability at most 1e-30, and at most
/// the population: Chernoff's bound `P[m >= x] <= e^(x - n - x ln(x/n))`, which holds for every binomial of mean n.
#[must_use]
pub fn largest_cohort(cohort: f64, rate: f64) -> u64 {
    let population = (cohort / rate).round().max(1.0);
    let exponent = |x: f64| x - cohort - x * libm::log(x / cohort);
    // Beyond n the exponent falls.
    let found =
        crate::math::search::bisect((cohort, 100.0 * cohort + 1000.0), 80, |x| exponent(x) > libm::log(OVERFLOW));
    found.1.ceil().min(population) as u64
}

/// The mechanism with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistributedGaussian {
    params: DistributedGaussianParams,
}

impl DistributedGaussian {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a sigma_total not finite and > 0, one of which a client's share in the largest cohort
    /// would be below 1/2, an empty cohort, and as [`RoundedScale::check`].
    pub fn new(params: DistributedGaussianParams) -> Result<Self, PrivacyError> {
        validate::positive("sigma_total", params.sigma_total)?;
        validate::positive("most", params.most as f64)?;
        params.scale.check()?;
        let least = LEAST_SHARE * (params.most as f64).sqrt();
        if params.most > 1 && params.sigma_total < least {
            return Err(PrivacyError::OutOfRange {
                name: "sigma_total",
                expected: format!("at least {least:.4}, half a step for each of up to {} clients", params.most),
                found: params.sigma_total.to_string(),
            });
        }
        Ok(Self { params })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> DistributedGaussianParams {
        self.params
    }

    /// Bound on the probability that a cohort is larger than what is accounted.
    #[must_use]
    pub const fn overflow() -> f64 {
        OVERFLOW
    }
}

impl Mechanism for DistributedGaussian {
    fn name(&self) -> &'static str {
        "distributed-discrete-gaussian"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.params.scale.encode_params(dim)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::DiscreteGaussianShares { sigma_total: self.params.sigma_total, most: self.params.most }
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        let padded = RoundedScale::padded(dim);
        let (l1_bound, l2_bound) = self.params.scale.bounds(padded);
        let clients = self.params.most;
        let sigma = (self.params.sigma_total / (clients as f64).sqrt()).next_down();
        DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim: padded }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    fn certified(&self) -> bool {
        true
    }

    fn rounding_std(&self, dim: usize) -> f64 {
        self.params.scale.rounding_std(dim)
    }

    fn unit(&self) -> f64 {
        1.0 / self.params.scale.gamma
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cohorts_hardly_ever_exceed_the_largest() {
        assert_eq!(largest_cohort(100.0, 1.0), 100);
        assert_eq!(largest_cohort(240.0, 0.8), 300);
        let most = largest_cohort(240.0, 0.004);
        assert!(most > 400 && most < 500, "{most}");
        // The Poisson tail itself, term by term.
        let ln_term = |m: u64| -240.0 + m as f64 * 240f64.ln() - (1..=m).map(|k| (k as f64).ln()).sum::<f64>();
        let tail: f64 = (most + 1..most + 400).map(|m| ln_term(m).exp()).sum();
        assert!(tail <= OVERFLOW && tail > 1e-34, "{tail:e}");
    }

    #[test]
    fn shares_below_half_a_step_are_refused() {
        let scale = RoundedScale { gamma: 64.0, clip: 1.0, bits: 16, beta: 1e-4 };
        let of = |sigma_total, most| DistributedGaussian::new(DistributedGaussianParams { scale, sigma_total, most });
        assert!(of(5.0, 100).is_ok() && of(0.1, 1).is_ok());
        for (sigma_total, most) in [(4.9, 100), (f64::NAN, 1), (0.0, 1), (5.0, 0)] {
            assert!(matches!(of(sigma_total, most), Err(PrivacyError::OutOfRange { .. })), "{sigma_total} {most}");
        }
        let DpEvent::DistributedDiscreteGaussian { clients, sigma, dim, .. } = of(50.0, 100).unwrap().event(1000)
        else {
            panic!()
        };
        assert!(clients == 100 && dim == 1024 && sigma <= 5.0 && sigma > 4.999_999);
    }
}
