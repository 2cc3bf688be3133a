//! FLTrust: vectors that point where the server's own one points, brought to its length.
//!
//! `sum_k t_k (|g| / |x_k|) x_k / sum_k t_k`, `t_k = max(0, cos(x_k, g))`, with g the update that the server computed on a
//! small root set that it trusts. Cao, Fang, Liu, Gong 2021, *FLTrust: Byzantine-robust Federated Learning via Trust
//! Bootstrapping*, Algorithm 2. Holds for any number of Byzantine vectors, as long as g is good.
//!
//! A zero vector has no direction and gets no trust. Where nobody is trusted, or g is zero, the paper divides by zero: the
//! aggregate is zero here, the model stays.

use super::error::{RuleError, at_least};
use super::vectors::dot;
use super::{Inputs, Outcome, Rule, Vectors};

/// FLTrust.
#[derive(Clone, Copy, Debug)]
pub struct Fltrust;

impl Rule for Fltrust {
    fn name(&self) -> &'static str {
        "fltrust"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Outcome, RuleError> {
        let what = "the server's own update on its root set";
        let root = inputs.root.ok_or(RuleError::Missing { rule: self.name(), what })?;
        let length = dot(root, root).sqrt();
        let norms: Vec<f64> = vectors.norms2()?.into_iter().map(f64::sqrt).collect();
        let products = vectors.products_with(root)?;
        let trust = |(&p, &norm): (&f64, &f64)| if p > 0.0 && norm > 0.0 { p / norm / length } else { 0.0 };
        let trust: Vec<f64> = products.iter().zip(&norms).map(trust).collect();
        let total: f64 = trust.iter().sum();
        let share = |(&t, &norm): (&f64, &f64)| if t > 0.0 { t / total * (length / norm) } else { 0.0 };
        let shares = trust.iter().zip(&norms).map(share).collect();
        Outcome::combination(vectors, shares)
    }
}
