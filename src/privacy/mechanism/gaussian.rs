//! `central-gaussian`: one trusted aggregator adds a discrete Gaussian to the exact sum; the baseline.

use super::fixed::{self, EncodeShape};
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::{EncodeParams, MAX_FRACTION_BITS, NO_LINF, norm_kind, rounding_kind};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};

/// Width of the ring: the sum is exact in it.
const BITS: u32 = 32;

/// Fixed point of a sum without rotation: as many bits as leave room for the sum and ten standard
/// deviations of noise. At most 16 of them are fraction bits, the others are in `gamma`, a power of two:
/// nothing is rounded at random here, so that only the product `gamma 2^F` matters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CentralScale {
    pub(super) clip: f64,
    pub(super) gamma: f64,
    pub(super) fraction_bits: u32,
}

impl CentralScale {
    /// `cohort` is the expected number of clients; ten standard deviations of a Poisson cohort fit as well.
    pub(super) fn new(clip: f64, cohort: u64, noise_multiplier: f64) -> Result<Self, PrivacyError> {
        validate::positive("clip", clip)?;
        validate::positive("clip in f32", f64::from(clip as f32))?;
        validate::positive("cohort", cohort as f64)?;
        // gamma C in [1, 2): the scale of one bit.
        let gamma = (-libm::log2(clip).floor()).exp2();
        let largest = cohort as f64 + 10.0 * (cohort as f64).sqrt() + 10.0 * noise_multiplier;
        let room = f64::from(1u32 << (BITS - 1)) / (largest * clip * gamma);
        if room < 2.0 {
            return Err(PrivacyError::OutOfRange {
                name: "cohort + 10 noise_multiplier",
                expected: format!("below {:e}, so that the sum fits {BITS} bits", largest * room / 2.0),
                found: largest.to_string(),
            });
        }
        let bits = libm::log2(room).floor() as u32;
        let fraction_bits = bits.min(MAX_FRACTION_BITS);
        let gamma = gamma * f64::from(1u32 << (bits - fraction_bits));
        validate::positive("gamma in f32", f64::from(gamma as f32))?;
        Ok(Self { clip, gamma, fraction_bits })
    }

    /// Integer steps to a unit of a coordinate.
    pub(super) fn steps(&self) -> f64 {
        self.gamma * f64::from(1u32 << self.fraction_bits)
    }

    pub(super) fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        fixed::encode_params(EncodeShape {
            dim,
            rotate: false,
            bits: BITS,
            fraction_bits: self.fraction_bits,
            norm: norm_kind::L2,
            rounding: rounding_kind::KEEP,
            linf: NO_LINF,
            gamma: self.gamma,
            clip: self.clip as f32,
            norm_bound: fixed::floor_square(self.clip * self.steps(), 0),
        })
    }
}

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CentralGaussianParams {
    /// z: standard deviation of the noise over the clip bound. Finite, > 0.
    pub noise_multiplier: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Expected number of clients in a sum, >= 1: leaves room in the ring.
    pub cohort: u64,
}

/// The mechanism with valid parameters: no rotation, the fixed-point fraction is kept, and
/// `N_Z(0, (z C 2^F gamma)^2)` is added once to the integer sum. Its cost is that of the continuous
/// Gaussian with the same multiplier (Canonne, Kamath, Steinke 2020, Theorem 4): the integer row has norm
/// at most `C 2^F gamma` exactly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CentralGaussian {
    params: CentralGaussianParams,
    scale: CentralScale,
}

impl CentralGaussian {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a multiplier or clip not finite and > 0, an empty cohort, or a
    /// sum that would not fit 32 bits.
    pub fn new(params: CentralGaussianParams) -> Result<Self, PrivacyError> {
        validate::positive("noise_multiplier", params.noise_multiplier)?;
        let scale = CentralScale::new(params.clip, params.cohort, params.noise_multiplier)?;
        Ok(Self { params, scale })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> CentralGaussianParams {
        self.params
    }

    /// The same fixed point with less noise: rounds of a run whose noise changes.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a multiplier that is not > 0, or above that of the fixed point.
    pub fn with_noise(self, noise_multiplier: f64) -> Result<Self, PrivacyError> {
        validate::positive("noise_multiplier", noise_multiplier)?;
        if noise_multiplier > self.params.noise_multiplier {
            return Err(PrivacyError::OutOfRange {
                name: "noise_multiplier",
                expected: format!("at most {}, for which the fixed point has room", self.params.noise_multiplier),
                found: noise_multiplier.to_string(),
            });
        }
        Ok(Self { params: CentralGaussianParams { noise_multiplier, ..self.params }, ..self })
    }
}

impl Mechanism for CentralGaussian {
    fn name(&self) -> &'static str {
        "central-gaussian"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.scale.encode_params(dim)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::DiscreteGaussian { sigma: self.params.noise_multiplier * self.params.clip * self.scale.steps() }
    }

    fn distributed(&self) -> bool {
        false
    }

    fn event(&self, _dim: usize) -> DpEvent {
        DpEvent::DiscreteGaussian { noise_multiplier: self.params.noise_multiplier }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::AddRemove
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_and_its_noise_fit_the_ring() {
        for (clip, cohort, z) in [(1.0, 240, 1.1), (0.003, 1, 0.5), (1e4, 100_000, 30.0), (1.5, 1 << 20, 5.0)] {
            let mechanism = CentralGaussian::new(CentralGaussianParams { noise_multiplier: z, clip, cohort }).unwrap();
            let p = mechanism.encode_params(1000).unwrap();
            assert_eq!((p.padded, p.rotate, p.bits), (1000, 0, 32));
            let NoiseLaw::DiscreteGaussian { sigma } = mechanism.noise() else { panic!() };
            let row = (p.norm_bound() as f64).sqrt();
            assert!(row * cohort as f64 + 10.0 * sigma < 2f64.powi(31), "{clip} {cohort} {z}");
            assert!((sigma / (row * z) - 1.0).abs() < 1e-2);
            assert!((mechanism.unit() * sigma / (z * clip) - 1.0).abs() < 1e-12);
        }
        let unit = CentralGaussian::new(CentralGaussianParams { noise_multiplier: 1.0, clip: 1.0, cohort: 240 });
        assert_eq!(unit.unwrap().unit(), 2f64.powi(-22));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for (z, clip, cohort) in
            [(0.0, 1.0, 10), (f64::NAN, 1.0, 10), (1.0, 0.0, 10), (1.0, 1.0, 0), (1e12, 1.0, 1), (1.0, 1.0, 1 << 40)]
        {
            let params = CentralGaussianParams { noise_multiplier: z, clip, cohort };
            assert!(matches!(CentralGaussian::new(params), Err(PrivacyError::OutOfRange { .. })), "{params:?}");
        }
    }
}
