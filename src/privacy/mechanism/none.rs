//! `none`: the same clip and fixed point as `central-gaussian`, no noise, no privacy.

use super::gaussian::CentralScale;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::{DpEvent, NeighboringRelation};

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoNoiseParams {
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Expected number of clients in a sum, >= 1: leaves room in the ring.
    pub cohort: u64,
}

/// The exact sum of clipped rows: infinite epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoNoise {
    scale: CentralScale,
}

impl NoNoise {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a clip not finite and > 0, an empty cohort, or a sum that would
    /// not fit 32 bits.
    pub fn new(params: NoNoiseParams) -> Result<Self, PrivacyError> {
        Ok(Self { scale: CentralScale::new(params.clip, params.cohort, 0.0)? })
    }
}

impl Mechanism for NoNoise {
    fn name(&self) -> &'static str {
        "none"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.scale.encode_params(dim)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::None
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, _dim: usize) -> DpEvent {
        DpEvent::NonPrivate
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::AddRemove
    }

    fn exact(&self) -> bool {
        true
    }

    fn certified(&self) -> bool {
        true
    }

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
    fn same_fixed_point_as_the_baseline() {
        let none = NoNoise::new(NoNoiseParams { clip: 1.0, cohort: 240 }).unwrap();
        assert_eq!(none.event(10), DpEvent::NonPrivate);
        assert_eq!(none.noise().variance(), 0.0);
        assert_eq!(none.encode_params(10).unwrap().norm_bound(), 1 << 44);
        assert!(NoNoise::new(NoNoiseParams { clip: -1.0, cohort: 240 }).is_err());
    }
}
