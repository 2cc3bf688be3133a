//! Centered clipping: `v <- v + (1/K) sum_k (x_k - v) min(1, tau / |x_k - v|)`, `iterations` times.
//!
//! Karimireddy, He, Jaggi 2021, *Learning from History for Byzantine Robust Optimization*, Algorithm 2. v begins at the
//! aggregate of the last round ([`Inputs::start`]), or at zero. A Byzantine vector moves v by at most `tau / K` a step; the
//! paper takes `iterations = 1` with momentum at the clients, and its bound is for shares of Byzantine vectors below 0.1. tau
//! is in the unit of the updates: scaling the vectors and the start scales the result only if tau is scaled too.
//!
//! It runs on the inner products of `x_k - v_0`: a step costs K^2 operations, whatever the dimension.

use super::error::{RuleError, at_least};
use super::geometric_median::Point;
use super::{Inputs, Outcome, Rule, Vectors};

/// Centered clipping.
#[derive(Clone, Copy, Debug)]
pub struct CenteredClipping {
    /// Radius of the clip, finite and > 0.
    pub tau: f64,
    /// Steps, >= 1.
    pub iterations: u32,
}

impl Rule for CenteredClipping {
    fn name(&self) -> &'static str {
        "centered-clipping"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Outcome, RuleError> {
        let k = vectors.count();
        let products = vectors.around(inputs.start)?;
        let mut point = Point { products: &products, shares: vec![0.0; k] };
        for _ in 0..self.iterations {
            let factors: Vec<f64> =
                point.distances().iter().map(|&d| if d > self.tau { self.tau / d } else { 1.0 }).collect();
            let mean = factors.iter().sum::<f64>() / k as f64;
            point.shares.iter_mut().zip(&factors).for_each(|(a, c)| *a += c / k as f64 - mean * *a);
        }
        let rest = 1.0 - point.shares.iter().sum::<f64>();
        let vector = vectors.combined(&point.shares, inputs.start.map(|v| (rest, v)))?;
        Ok(Outcome { shares: Some(point.shares), iterations: self.iterations, ..Outcome::of(vector) })
    }
}
