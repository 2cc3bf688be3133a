//! `smm-2022`: the Skellam mixture mechanism as published (Bao et al. 2022), kept for parity.
//!
//! `norm = MIXED`: the float half of `encode` clips by the published mixed clip, `v' = rho v` on
//! `v(x) = floor|x|^2 + (2 floor|x| + 1) frac|x|` with `rho = min(1, c / sum v)`, inverted coordinate by
//! coordinate (`f' = floor sqrt v'`, `|x'| = f' + (v' - f'^2)/(1 + 2 f')`), then clamps to l_inf. There is
//! **no** float L2 clip (`clip = f32::MAX`): the mixed clip is the only one of the publication. The integer
//! half then holds `sum v <= norm_bound` exactly by a shrink toward zero, and privacy rests on that. It
//! shrinks the signal: at gamma 64 and d = 65,536 to 0.31 of its length.

use std::sync::Arc;

use super::fixed::{self, EncodeShape};
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::{EncodeParams, NO_LINF, norm_kind, rounding_kind};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smm2022Params {
    /// Scale gamma. Finite, > 0.
    pub gamma: f64,
    /// Noise of the whole sum: Poisson(mu_total) - Poisson(mu_total). Finite, > 0.
    pub mu_total: f64,
    /// L2 radius r; the mixed clip is `c = (gamma r)^2`. Finite, > 0.
    pub clip: f64,
    /// Ring width b, 2..=32.
    pub bits: u32,
    /// Bound on a coordinate in integer units, > 0; from
    /// [`published_epsilon`](crate::privacy::accountant::rdp::published::published_epsilon).
    pub l_inf: f64,
}

/// The mechanism with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smm2022 {
    params: Smm2022Params,
}

impl Smm2022 {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] as for [`Smm`](super::smm::Smm), and for an l_inf so small that no
    /// coordinate but 0 is left.
    pub fn new(params: Smm2022Params) -> Result<Self, PrivacyError> {
        validate::positive("mu_total", params.mu_total)?;
        validate::bits(params.bits)?;
        validate::positive("l_inf", params.l_inf)?;
        fixed::check_scale(params.gamma, params.clip)?;
        let mechanism = Self { params };
        if mechanism.linf() == 0 {
            return Err(PrivacyError::OutOfRange {
                name: "l_inf",
                expected: format!("more than two steps of 2^-{}", mechanism.fraction_bits()),
                found: params.l_inf.to_string(),
            });
        }
        Ok(mechanism)
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> Smm2022Params {
        self.params
    }

    /// `c = (gamma r)^2`.
    #[must_use]
    pub fn c(&self) -> f64 {
        let l2 = self.params.gamma * self.params.clip;
        l2 * l2
    }

    fn fraction_bits(&self) -> u32 {
        fixed::fraction_bits(self.params.gamma * self.params.clip)
    }

    /// The largest fixed-point coordinate strictly below l_inf (the proof needs `|x|_inf < bound`).
    fn linf(&self) -> u32 {
        let steps = (self.params.l_inf * f64::from(1u32 << self.fraction_bits())).ceil() - 1.0;
        // Beyond the range of a coordinate there is nothing to clamp.
        if steps >= f64::from(i32::MAX) { NO_LINF } else { steps.max(0.0) as u32 }
    }
}

impl Mechanism for Smm2022 {
    fn name(&self) -> &'static str {
        "smm-2022"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        let Smm2022Params { gamma, clip, bits, .. } = self.params;
        let fraction_bits = self.fraction_bits();
        fixed::encode_params(EncodeShape {
            dim,
            rotate: true,
            bits,
            fraction_bits,
            norm: norm_kind::MIXED,
            rounding: rounding_kind::STOCHASTIC,
            linf: self.linf(),
            gamma,
            clip: f32::MAX,
            norm_bound: fixed::floor_square(gamma * clip, fraction_bits),
        })
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::Skellam { mu: self.params.mu_total }
    }

    fn with_part_of_noise(&self, part: f64) -> Option<Arc<dyn Mechanism>> {
        let params = Smm2022Params { mu_total: self.params.mu_total * part, ..self.params };
        Some(Arc::new(Self::new(params).ok()?))
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, _dim: usize) -> DpEvent {
        DpEvent::SkellamMixture2022 { mu: self.params.mu_total, c: self.c(), l_inf: Some(self.params.l_inf) }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    /// True: the bound is the published theorem (its subsampling claim included), nothing is searched.
    fn certified(&self) -> bool {
        true
    }

    /// As if the row kept its full L2 norm; the mixed clip only makes it smaller.
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

    const OK: Smm2022Params =
        Smm2022Params { gamma: 64.0, mu_total: 1428.0, clip: 1.0, bits: 8, l_inf: 4.73844174689098 };

    #[test]
    fn bounds_are_below_the_proof() {
        let mechanism = Smm2022::new(OK).unwrap();
        let p = mechanism.encode_params(63_610).unwrap();
        assert_eq!(p.norm, norm_kind::MIXED);
        assert_eq!(p.norm_bound(), 4096u128 << 16);
        assert!(f64::from(p.linf) / 65_536.0 < OK.l_inf && f64::from(p.linf + 2) / 65_536.0 > OK.l_inf);
        assert_eq!(mechanism.event(4096), DpEvent::SkellamMixture2022 { mu: 1428.0, c: 4096.0, l_inf: Some(OK.l_inf) });
        // Strictly below, also where l_inf is a multiple of the step.
        let whole = Smm2022::new(Smm2022Params { l_inf: 4.0, ..OK }).unwrap().encode_params(8).unwrap();
        assert_eq!(whole.linf, (4 << 16) - 1);
    }

    #[test]
    fn refuses_bad_parameters() {
        for bad in [
            Smm2022Params { l_inf: 0.0, ..OK },
            Smm2022Params { l_inf: 1e-9, ..OK },
            Smm2022Params { mu_total: -1.0, ..OK },
            Smm2022Params { bits: 40, ..OK },
        ] {
            assert!(matches!(Smm2022::new(bad), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
        }
    }
}
