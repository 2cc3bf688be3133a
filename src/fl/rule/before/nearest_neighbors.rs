//! Nearest-neighbour mixing (NNM): every vector becomes the mean of its K - f nearest, itself among them; K > 2f.
//!
//! Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan 2023, *Fixing by Mixing: A Recipe for Optimal Byzantine ML under
//! Heterogeneity*, Algorithm 2. Of vectors as far away, the lowest index is taken.

use super::PreAggregation;
use crate::fl::rule::error::majority;
use crate::fl::rule::mixing::Mixing;
use crate::fl::rule::{Inputs, RuleError, Vectors};

/// Nearest-neighbour mixing.
#[derive(Clone, Copy, Debug)]
pub struct NearestNeighbors {
    /// Byzantine vectors.
    pub f: usize,
}

impl PreAggregation for NearestNeighbors {
    fn name(&self) -> &'static str {
        "nearest-neighbor-mixing"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        majority(self.name(), self.f, vectors)
    }

    fn mix(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Mixing, RuleError> {
        self.check(vectors.count())?;
        let (pairs, k) = (vectors.pairs()?, vectors.count());
        let near: Vec<Vec<usize>> = (0..k).map(|i| pairs.nearest(i, k - self.f)).collect();
        Ok(Mixing::means(k, &near))
    }
}
