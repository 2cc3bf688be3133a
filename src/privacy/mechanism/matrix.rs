//! `matrix`: one trusted aggregator adds discrete Gaussian noise that is correlated over the rounds of a run (DP-FTRL).

use super::gaussian::CentralScale;
use super::{Correlation, Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::matrix::{Participation, Strategy};
use crate::privacy::{DpEvent, NeighboringRelation};

/// Covers the rounding of the few operations behind an event.
const OUTWARD: f64 = 1.0 + 1e-12;

/// What a user chooses.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixGaussianParams {
    /// z: standard deviation of the uncorrelated noise over the L2 sensitivity of the **whole run**. Finite, > 0.
    pub noise_multiplier: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Expected number of clients in a sum, >= 1: leaves room in the ring.
    pub cohort: u64,
    /// Coordinates of a row: what rounding the noise to integers costs grows with their number.
    pub dim: usize,
    /// The matrix, for the rounds of the run.
    pub strategy: Strategy,
    /// How often a client takes part.
    pub participation: Participation,
}

/// The mechanism with valid parameters. Round t releases `X_t + N_t`, integers as of `central-gaussian`, with N as
/// [`crate::privacy::matrix::noise`] makes it of draws of `N_Z(0, sigma^2)`,
/// `sigma = z (C 2^F gamma sensitivity + rounding)`.
///
/// [`Mechanism::event`] is the cost of all rounds together: `1 / (2 z^2)`-zCDP (`docs/matrix-mechanisms.md`).
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixGaussian {
    params: MatrixGaussianParams,
    scale: CentralScale,
    sensitivity: f64,
    rounding: f64,
    sigma: f64,
}

impl MatrixGaussian {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a multiplier or clip not finite and > 0, an empty cohort or row, a participation
    /// of 0, or a sum that would not fit 32 bits.
    pub fn new(params: MatrixGaussianParams) -> Result<Self, PrivacyError> {
        validate::positive("noise_multiplier", params.noise_multiplier)?;
        validate::positive("dim", params.dim as f64)?;
        let sensitivity = params.strategy.sensitivity(params.participation)?;
        let rounding = params.strategy.rounding(params.participation);
        let spread = params.noise_multiplier * sensitivity * params.strategy.round_error();
        let scale = CentralScale::new(params.clip, params.cohort, spread)?;
        let mut mechanism = Self { params, scale, sensitivity, rounding, sigma: 0.0 };
        mechanism.sigma = mechanism.params.noise_multiplier * mechanism.reach(mechanism.params.dim) * OUTWARD;
        crate::sample::discrete_gaussian::check(mechanism.sigma).map_err(|e| PrivacyError::OutOfRange {
            name: "noise_multiplier",
            expected: "a noise within the sampler's range".into(),
            found: format!("{} ({e})", mechanism.params.noise_multiplier),
        })?;
        Ok(mechanism)
    }

    /// How far one client can move `C X`, in integer steps, for rows of `dim` coordinates.
    fn reach(&self, dim: usize) -> f64 {
        let row = self.params.clip * self.scale.steps();
        (self.sensitivity * row + self.rounding * (dim as f64).sqrt()) * OUTWARD
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &MatrixGaussianParams {
        &self.params
    }

    /// L2 sensitivity of `C X` to a client whose rows have norm 1.
    #[must_use]
    pub fn sensitivity(&self) -> f64 {
        self.sensitivity
    }
}

/// The event of a whole run whose noise is `noise_multiplier` times its sensitivity. Discrete Gaussians, of which each
/// round's is moved by what the rounds before it said: proved for Renyi divergences, not for others.
#[must_use]
pub fn whole_run(noise_multiplier: f64) -> DpEvent {
    DpEvent::ZeroConcentrated { rho: 0.5 / (noise_multiplier * noise_multiplier) * OUTWARD, xi: 0.0 }
}

impl Mechanism for MatrixGaussian {
    fn name(&self) -> &'static str {
        "matrix"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.scale.encode_params(dim)
    }

    /// The law of Z, before it is correlated.
    fn noise(&self) -> NoiseLaw {
        NoiseLaw::DiscreteGaussian { sigma: self.sigma }
    }

    fn distributed(&self) -> bool {
        false
    }

    fn event(&self, dim: usize) -> DpEvent {
        whole_run(self.sigma / self.reach(dim))
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    fn certified(&self) -> bool {
        true
    }

    /// Zero: nothing is rounded at random.
    fn rounding_std(&self, _dim: usize) -> f64 {
        0.0
    }

    fn unit(&self) -> f64 {
        1.0 / self.scale.steps()
    }

    fn correlation(&self) -> Option<Correlation<'_>> {
        Some(Correlation { strategy: &self.params.strategy, participation: self.params.participation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::accountant::Rule;
    use crate::privacy::matrix::{MatrixKind, Objective};

    fn params(dim: usize) -> MatrixGaussianParams {
        let participation = Participation { max: 4, separation: 16 };
        let kind = MatrixKind::Banded { bands: 8, objective: Objective::Max };
        let strategy = Strategy::new(kind, 64, participation).unwrap();
        MatrixGaussianParams { noise_multiplier: 2.0, clip: 1.0, cohort: 100, dim, strategy, participation }
    }

    #[test]
    fn the_whole_run_costs_one_gaussian() {
        let mechanism = MatrixGaussian::new(params(1 << 16)).unwrap();
        let DpEvent::ZeroConcentrated { rho, xi: 0.0 } = mechanism.event(1 << 16) else { panic!() };
        assert!((rho / 0.125 - 1.0).abs() < 1e-10, "{rho}");
        let gaussian = DpEvent::DiscreteGaussian { noise_multiplier: 2.0 };
        let [whole, one] =
            [mechanism.event(1 << 16), gaussian].map(|e| Rule::Rdp.epsilon(&e, 1, 1e-6).unwrap().epsilon);
        assert!((whole / one - 1.0).abs() < 1e-9, "{whole} {one}");
        // More coordinates than it was made for cost more: their rounding was not in the noise.
        let DpEvent::ZeroConcentrated { rho: more, .. } = mechanism.event(1 << 20) else { panic!() };
        assert!(more > rho);
    }

    #[test]
    fn noise_covers_the_sensitivity_and_the_rounding() {
        for dim in [1, 1 << 16] {
            let mechanism = MatrixGaussian::new(params(dim)).unwrap();
            let NoiseLaw::DiscreteGaussian { sigma } = mechanism.noise() else { panic!() };
            let p = mechanism.encode_params(dim).unwrap();
            let row = (p.norm_bound() as f64).sqrt();
            // 4 times, each followed by 7 rounds in which a coordinate's rounding can differ by one step.
            let least = mechanism.sensitivity() * row + ((dim * 28) as f64).sqrt();
            assert!(sigma >= 2.0 * least && sigma < 2.0 * least * 1.01, "{dim}: {sigma} {least}");
        }
    }

    #[test]
    fn refuses_bad_parameters() {
        for bad in [
            MatrixGaussianParams { noise_multiplier: 0.0, ..params(8) },
            MatrixGaussianParams { clip: f64::NAN, ..params(8) },
            MatrixGaussianParams { cohort: 0, ..params(8) },
            MatrixGaussianParams { dim: 0, ..params(8) },
            MatrixGaussianParams { noise_multiplier: 1e12, ..params(8) },
            MatrixGaussianParams { participation: Participation { max: 0, separation: 1 }, ..params(8) },
        ] {
            assert!(matches!(MatrixGaussian::new(bad), Err(PrivacyError::OutOfRange { .. })));
        }
    }
}
