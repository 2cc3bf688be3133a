//! Sign flip: every client sends `-strength` times what it would have sent.
//!
//! Li, Xu, Chen, Giannakis, Ling 2019, *RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
//! Heterogeneous Datasets*, section on experiments. Sees its own vectors. What others call by this name, minus the mean of
//! the honest vectors, is [`super::inner_product`] with strength 1.

use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Sign flip.
#[derive(Clone, Copy, Debug)]
pub struct SignFlip {
    /// Factor, finite and >= 0.
    pub strength: f64,
}

impl Attack for SignFlip {
    fn name(&self) -> &'static str {
        "sign-flip"
    }

    fn sees(&self) -> Sight {
        Sight::Own
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        view.own_times(self.name(), -self.strength, backend)
    }
}
