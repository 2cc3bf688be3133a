//! `binomial`: centred binomial noise on rotated, rounded rows (Agarwal et al. 2018, *cpSGD*, with the rotation and the bound
//! after rounding of [`super::rounded`]).
//!
//! The noise of the sum is `Binomial(K, 1/2) - Binomial(K, 1/2)`, exact and made of uniform bits alone. It ends at K: some
//! outcomes tell neighbours apart, and their mass goes to delta; its Renyi divergences are infinite. The cost is that of the
//! Gaussian that dominates every shift up to the bound ([`DpEvent::BinomialVector`]).

use super::rounded::RoundedScale;
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::EncodeParams;
use crate::privacy::{DpEvent, NeighboringRelation};

/// Most coins on each side of a sum: the ring holds no more.
pub const MOST_COINS: u64 = 1 << 31;

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinomialParams {
    /// Scale, clip, ring, bound.
    pub scale: RoundedScale,
    /// K: coins on each side, of the whole sum, 1 to 2^31. The variance is `K / 2`.
    pub coins: u64,
}

/// The mechanism with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binomial {
    params: BinomialParams,
}

impl Binomial {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for coins outside 1..=2^31, and as [`RoundedScale::check`].
    pub fn new(params: BinomialParams) -> Result<Self, PrivacyError> {
        params.scale.check()?;
        if !(1..=MOST_COINS).contains(&params.coins) {
            return Err(PrivacyError::OutOfRange {
                name: "coins",
                expected: format!("1 to {MOST_COINS}"),
                found: params.coins.to_string(),
            });
        }
        Ok(Self { params })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> BinomialParams {
        self.params
    }
}

impl Mechanism for Binomial {
    fn name(&self) -> &'static str {
        "binomial"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        self.params.scale.encode_params(dim)
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::CenteredBinomial { coins: self.params.coins }
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        let (_, l2_bound) = self.params.scale.bounds(RoundedScale::padded(dim));
        DpEvent::BinomialVector { coins: self.params.coins, l2_bound }
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
