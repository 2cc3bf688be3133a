//! `quantized`: few bits a coordinate, no noise, no privacy.

use super::fixed;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::calibrate::wrap::RingUse;
use crate::privacy::{DpEvent, NeighboringRelation};

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizedParams {
    /// Scale gamma: one unit of a rotated coordinate becomes gamma integer steps. Finite, > 0.
    pub gamma: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Ring width b of the sum, 2..=32.
    pub bits: u32,
}

/// The mechanism with valid parameters: a row is rotated, scaled by gamma, clipped to `gamma C`, rounded stochastically to integers (Suresh,
/// Yu, Kumar, McMahan 2017, section 3), which are added mod 2^b. That is [`super::smm`] without its noise: unbiased inside the ball as long as
/// the sum stays in the ring, at infinite epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantized {
    params: QuantizedParams,
}

impl Quantized {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for gamma or clip not finite and > 0, bits outside 2..=32, or `gamma C` too large for the fixed
    /// point (see [`EncodeParams`]; at most 2^30).
    pub fn new(params: QuantizedParams) -> Result<Self, PrivacyError> {
        validate::bits(params.bits)?;
        fixed::check_scale(params.gamma, params.clip)?;
        Ok(Self { params })
    }

    /// What fills a coordinate of the sum of `cohort` rows of full norm that **agree**, as deltas of early rounds do: `cohort gamma C /
    /// sqrt(padded)`, and their rounding. There is no noise that would need most of the room.
    #[must_use]
    pub fn ring(gamma: f64, clip: f64, cohort: f64, dim: usize) -> RingUse {
        let padded = fixed::padded(dim, true);
        RingUse {
            noise_variance: 0.0,
            cohort,
            rounding_std: fixed::rounding_std(gamma * clip, padded),
            signal_rms: cohort * gamma * clip / (padded as f64).sqrt(),
        }
    }
}

impl Mechanism for Quantized {
    fn name(&self) -> &'static str {
        "quantized"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        let QuantizedParams { gamma, clip, bits } = self.params;
        fixed::rounded_ball(dim, gamma, clip, bits)
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
        NeighboringRelation::ZeroOut
    }

    fn certified(&self) -> bool {
        true
    }

    fn rounding_std(&self, dim: usize) -> f64 {
        fixed::rounding_std(self.params.gamma * self.params.clip, fixed::padded(dim, true))
    }

    fn unit(&self) -> f64 {
        1.0 / self.params.gamma
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: QuantizedParams = QuantizedParams { gamma: 64.0, clip: 1.0, bits: 8 };

    #[test]
    fn the_encoding_is_that_of_smm_and_nothing_is_protected() {
        use crate::privacy::mechanism::smm::{Smm, SmmParams};
        let quantized = Quantized::new(OK).unwrap();
        let smm = Smm::new(SmmParams { gamma: 64.0, mu_total: 5.0, clip: 1.0, bits: 8 }).unwrap();
        assert_eq!(quantized.encode_params(63_610).unwrap(), smm.encode_params(63_610).unwrap());
        assert_eq!((quantized.event(10), quantized.noise()), (DpEvent::NonPrivate, NoiseLaw::None));
        assert!(!quantized.exact() && quantized.unit() == 1.0 / 64.0);
    }

    #[test]
    fn refuses_bad_parameters() {
        for bad in [
            QuantizedParams { gamma: 0.0, ..OK },
            QuantizedParams { gamma: f64::NAN, ..OK },
            QuantizedParams { gamma: 2e9, ..OK },
            QuantizedParams { clip: -1.0, ..OK },
            QuantizedParams { bits: 1, ..OK },
            QuantizedParams { bits: 33, ..OK },
        ] {
            assert!(matches!(Quantized::new(bad), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
        }
    }

    #[test]
    fn rows_that_agree_fill_the_ring() {
        let ring = Quantized::ring(64.0, 1.0, 100.0, 65_536);
        assert_eq!(ring.signal_rms, 100.0 * 64.0 / 256.0);
        assert!(
            ring.rounding_std > 0.3 && ring.rounding_std <= 0.5 && ring.wrap_rate(9) < 1e-3 && ring.wrap_rate(7) > 1e-3
        );
    }
}
