//! `smm`: the Skellam mixture mechanism with a plain L2 clip (the default).

use std::sync::Arc;

use super::fixed;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmmParams {
    /// Scale gamma: one unit of a rotated coordinate becomes gamma integer steps. Finite, > 0.
    pub gamma: f64,
    /// Noise of the whole sum: Poisson(mu_total) - Poisson(mu_total). Finite, > 0.
    pub mu_total: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Ring width b, 2..=32.
    pub bits: u32,
}

/// The mechanism with valid parameters.
///
/// A row is rotated, scaled by gamma, kept inside the L2 ball of radius `gamma C` by an exact integer
/// norm, rounded stochastically; the sum carries Skellam noise. Spec: privacy, section 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smm {
    params: SmmParams,
}

impl Smm {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for gamma, mu_total, clip not finite and > 0, bits outside 2..=32, or
    /// `gamma C` too large for the fixed point (see [`EncodeParams`]; at most 2^30).
    pub fn new(params: SmmParams) -> Result<Self, PrivacyError> {
        validate::positive("mu_total", params.mu_total)?;
        validate::bits(params.bits)?;
        fixed::check_scale(params.gamma, params.clip)?;
        Ok(Self { params })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> SmmParams {
        self.params
    }
}

impl Mechanism for Smm {
    fn name(&self) -> &'static str {
        "smm"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        let SmmParams { gamma, clip, bits, .. } = self.params;
        fixed::rounded_ball(dim, gamma, clip, bits)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::Skellam { mu: self.params.mu_total }
    }

    fn with_part_of_noise(&self, part: f64) -> Option<Arc<dyn Mechanism>> {
        let params = SmmParams { mu_total: self.params.mu_total * part, ..self.params };
        Some(Arc::new(Self::new(params).ok()?))
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        DpEvent::SkellamMixture {
            mu: self.params.mu_total,
            l2_bound: self.params.gamma * self.params.clip,
            dim: Some(fixed::padded(dim, true) as u64),
        }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    /// Every x is covered by a proof and interval arithmetic: `docs/smm-accounting.md`.
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

    const OK: SmmParams = SmmParams { gamma: 64.0, mu_total: 1428.0, clip: 1.0, bits: 8 };

    #[test]
    fn encodes_into_the_ball() {
        let p = Smm::new(OK).unwrap().encode_params(63_610).unwrap();
        assert_eq!((p.padded, p.block_log2, p.rotate, p.bits), (65_536, 16, 1, 8));
        assert_eq!(p.fraction_bits, 16);
        assert_eq!(p.norm_bound(), (64u128 << 16) * (64u128 << 16));
        let odd = Smm::new(SmmParams { gamma: 18.3, clip: 0.7, ..OK }).unwrap().encode_params(1000).unwrap();
        let exact = 18.3f64 * 0.7 * 65_536.0;
        assert!(odd.norm_bound() as f64 <= exact * exact && odd.norm_bound() as f64 > exact * exact - 1.0);
    }

    #[test]
    fn refuses_bad_parameters() {
        for bad in [
            SmmParams { gamma: 0.0, ..OK },
            SmmParams { gamma: f64::NAN, ..OK },
            SmmParams { gamma: -1.0, ..OK },
            SmmParams { mu_total: 0.0, ..OK },
            SmmParams { mu_total: f64::INFINITY, ..OK },
            SmmParams { clip: -1.0, ..OK },
            SmmParams { bits: 1, ..OK },
            SmmParams { bits: 33, ..OK },
            SmmParams { gamma: 2e9, ..OK },
        ] {
            assert!(matches!(Smm::new(bad), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
        }
        let ok = Smm::new(OK).unwrap();
        assert!(ok.encode_params(0).is_err() && ok.encode_params(1 << 40).is_err());
    }
}
