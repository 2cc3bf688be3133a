//! `sum_k w_k min(1, C / |x_k|) x_k / sum_k w_k`: every client moves the mean by at most `C w_k / sum w`.
//!
//! Sun, Kairouz, Suresh, McMahan 2019, *Can You Really Backdoor Federated Learning?*, section 4 (norm thresholding of
//! updates). C is `bound`, in the unit of the updates.

use super::error::{RuleError, at_least};
use super::mean::normalized;
use super::{Inputs, Outcome, Rule, Vectors};

/// The mean of vectors clipped to one norm.
#[derive(Clone, Copy, Debug)]
pub struct NormBoundedMean {
    /// C, finite and > 0.
    pub bound: f64,
}

/// `min(1, C / |x|)` from the squared norm.
pub(super) fn factor(bound: f64, norm2: f64) -> f64 {
    let norm = norm2.sqrt();
    if norm > bound { bound / norm } else { 1.0 }
}

impl Rule for NormBoundedMean {
    fn name(&self) -> &'static str {
        "norm-bounded-mean"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn weighted(&self) -> bool {
        true
    }

    fn aggregate(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Outcome, RuleError> {
        let weights = inputs.weights.filter(|w| w.len() == vectors.count());
        let mut shares = normalized(weights, vectors.count())?;
        shares.iter_mut().zip(vectors.norms2()?).for_each(|(c, norm2)| *c *= factor(self.bound, norm2));
        Outcome::combination(vectors, shares)
    }
}
