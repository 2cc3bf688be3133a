//! `skellam`: the distributed Skellam mechanism (Agarwal, Kairouz, Liu 2021, Algorithm 1).
//!
//! A row is rotated, scaled by gamma and rounded at random under a bound on the rounded norm ([`super::rounded`]); each
//! client adds Skellam noise, the sum carries `Sk(mu_total)`. Zeroing a client's row moves the sum by an integer vector v
//! with `|v|_2 <= B`: the cost is that of the worst v ([`DpEvent::SkellamVector`]), since divergences are jointly
//! quasi-convex and the rounding is drawn independently of the noise.

use std::sync::Arc;

use super::rounded::RoundedScale;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkellamParams {
    /// Scale, clip, ring, bound.
    pub scale: RoundedScale,
    /// Noise of the whole sum: Poisson(mu_total) - Poisson(mu_total). Finite, > 0.
    pub mu_total: f64,
}

/// The mechanism with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skellam {
    params: SkellamParams,
}

impl Skellam {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a mu_total not finite and > 0, and as [`RoundedScale::check`].
    pub fn new(params: SkellamParams) -> Result<Self, PrivacyError> {
        validate::positive("mu_total", params.mu_total)?;
        params.scale.check()?;
        Ok(Self { params })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> SkellamParams {
        self.params
    }
}

impl Mechanism for Skellam {
    fn name(&self) -> &'static str {
        "skellam"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.params.scale.encode_params(dim)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::Skellam { mu: self.params.mu_total }
    }

    fn with_part_of_noise(&self, part: f64) -> Option<Arc<dyn Mechanism>> {
        let params = SkellamParams { mu_total: self.params.mu_total * part, ..self.params };
        Some(Arc::new(Self::new(params).ok()?))
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        let (l1_bound, l2_bound) = self.params.scale.bounds(RoundedScale::padded(dim));
        DpEvent::SkellamVector { mu: self.params.mu_total, l1_bound, l2_bound }
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
