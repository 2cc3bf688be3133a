//! Static clipping: `x_k min(1, C / |x_k|)`, with `bound` = C in the unit of the updates.

use super::PreAggregation;
use crate::fl::rule::error::at_least;
use crate::fl::rule::mixing::Mixing;
use crate::fl::rule::norm_bounded_mean::factor;
use crate::fl::rule::{Inputs, RuleError, Vectors};

/// Static clipping.
#[derive(Clone, Copy, Debug)]
pub struct Clipping {
    /// C, finite and > 0.
    pub bound: f64,
}

impl PreAggregation for Clipping {
    fn name(&self) -> &'static str {
        "clipping"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn mix(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Mixing, RuleError> {
        let norms2 = vectors.norms2()?;
        Ok(Mixing::scaled(&norms2.iter().map(|&n| factor(self.bound, n)).collect::<Vec<_>>()))
    }
}
