//! What stands before a rule: linear maps that bring honest vectors together or bound what one can do.

pub mod arc;
pub mod bucketing;
pub mod clipping;
pub mod nearest_neighbors;

use std::fmt;

use super::mixing::Mixing;
use super::{Inputs, RuleError, Vectors};

/// A step before a rule: the vectors that the rule sees are linear combinations of those that came.
pub trait PreAggregation: fmt::Debug + Send + Sync {
    /// The name in configs.
    fn name(&self) -> &'static str;

    /// Whether its condition holds for so many vectors.
    fn check(&self, vectors: usize) -> Result<(), RuleError>;

    /// How many vectors are left of so many.
    fn outputs(&self, vectors: usize) -> usize {
        vectors
    }

    /// True if vector i that leaves is made around vector i that came.
    fn keeps_places(&self) -> bool {
        true
    }

    /// The coefficients, `outputs x K`. Errors: an input that is missing, those of kernels; a row with NaN or an infinity is
    /// such an error where it is read.
    fn mix(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Mixing, RuleError>;
}
