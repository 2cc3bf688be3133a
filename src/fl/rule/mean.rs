//! `sum_k w_k x_k / sum_k w_k`: one Byzantine vector moves it anywhere.
//!
//! McMahan et al. 2017, *Communication-Efficient Learning of Deep Networks from Decentralized Data*, Algorithm 1, with w_k
//! the integer weights (sample counts), divided by their own sum; without weights all are 1.

use super::error::{RuleError, at_least};
use super::{Inputs, Outcome, Rule, Vectors};

/// The (weighted) mean.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

/// `w_k / sum w`; rows of weight 0 have no part. Errors: weights that are all zero.
pub(super) fn normalized(weights: Option<&[u64]>, vectors: usize) -> Result<Vec<f64>, RuleError> {
    let Some(weights) = weights else { return Ok(vec![1.0 / vectors as f64; vectors]) };
    let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
    if total == 0 {
        return Err(RuleError::NoWeight { vectors });
    }
    Ok(weights.iter().map(|&w| w as f64 / total as f64).collect())
}

impl Rule for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn weighted(&self) -> bool {
        true
    }

    fn aggregate(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Outcome, RuleError> {
        // Behind what mixes vectors the weights, all equal, are no longer one each.
        let weights = inputs.weights.filter(|w| w.len() == vectors.count());
        Outcome::combination(vectors, normalized(weights, vectors.count())?)
    }
}
