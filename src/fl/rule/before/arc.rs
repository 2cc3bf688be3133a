//! ARC, adaptive robust clipping: the `floor(2 f (K - f) / K)` longest vectors are clipped to the norm of the next; K > 2f.
//!
//! Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan 2024, *Adaptive Gradient Clipping for Robust Federated Learning*,
//! Algorithm 2. The bound follows the vectors, so that it scales with them.
//!
//! ByzFL computes the number of clipped vectors in floating point, which may give one less where it is whole.

use super::PreAggregation;
use crate::fl::rule::error::majority;
use crate::fl::rule::mixing::Mixing;
use crate::fl::rule::norm_bounded_mean::factor;
use crate::fl::rule::{Inputs, RuleError, Vectors};

/// Adaptive robust clipping.
#[derive(Clone, Copy, Debug)]
pub struct Arc {
    /// Byzantine vectors.
    pub f: usize,
}

impl PreAggregation for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        majority(self.name(), self.f, vectors)
    }

    fn mix(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Mixing, RuleError> {
        self.check(vectors.count())?;
        let k = vectors.count() as u128;
        let f = self.f as u128;
        let clipped = (2 * f * (k - f) / k) as usize;
        let norms2 = vectors.norms2()?;
        let mut sorted = norms2.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let bound = sorted[sorted.len() - 1 - clipped].sqrt();
        Ok(Mixing::scaled(&norms2.iter().map(|&n| factor(bound, n)).collect::<Vec<_>>()))
    }
}
