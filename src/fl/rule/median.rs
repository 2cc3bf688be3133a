//! The median of every coordinate; for even K half the sum of the two middle values.
//!
//! Yin, Chen, Ramchandran, Bartlett 2018, *Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates*,
//! Definition 1. With less than half of the vectors Byzantine every coordinate lies between honest values.

use super::error::{RuleError, at_least};
use super::{Inputs, Outcome, Rule, Vectors};

/// The coordinate-wise median.
#[derive(Clone, Copy, Debug)]
pub struct Median;

impl Rule for Median {
    fn name(&self) -> &'static str {
        "median"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        vectors.with_rows(|rows| vectors.backend().median(rows)).map(Outcome::of)
    }
}
