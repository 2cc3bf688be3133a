//! The mean of every coordinate without its f least and f greatest values; K > 2f.
//!
//! Yin, Chen, Ramchandran, Bartlett 2018, *Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates*,
//! Definition 2, with f = beta K. With at most f Byzantine vectors every coordinate lies between honest values.

use super::error::{RuleError, majority};
use super::{Inputs, Outcome, Rule, Vectors};

/// The coordinate-wise trimmed mean.
#[derive(Clone, Copy, Debug)]
pub struct TrimmedMean {
    /// Byzantine vectors.
    pub f: usize,
}

impl Rule for TrimmedMean {
    fn name(&self) -> &'static str {
        "trimmed-mean"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        majority(self.name(), self.f, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        vectors.with_rows(|rows| vectors.backend().trimmed_mean(rows, self.f)).map(Outcome::of)
    }
}
