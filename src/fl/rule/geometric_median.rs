//! The geometric median, `argmin_z sum_k |x_k - z|`, by the smoothed Weiszfeld iteration.
//!
//! `z <- sum_k w_k x_k / sum_k w_k`, `w_k = 1 / max(nu, |x_k - z|)`: Pillutla, Kakade, Harchaoui 2022, *Robust Aggregation
//! for Federated Learning*, Algorithm 2. Fewer than half of the vectors cannot move it beyond a multiple of the spread of the
//! others (Minsker 2015, Lemma 2.1).
//!
//! - It begins at the mean of the `floor(K/2) + 1` vectors nearest to the one with the least sum of distances, so that a
//!   hostile vector has no say in it.
//! - nu is `smoothing` times the median of the distances to that point: the paper's is in the unit of the updates, which
//!   would not scale with them. It changes the objective by at most `nu K / 2`.
//! - **Tolerance**: it ends when the gradient of the smoothed objective, divided by K, has a norm of at most `tolerance`. That is
//!   a number without unit (every vector adds at most 1 to the gradient), and no hostile vector can enlarge it. Minimizers that
//!   are not unique (vectors on a line, even K) are met to that tolerance too. After `iterations` steps it ends all the same,
//!   and the outcome says that it has not converged.
//!
//! It runs on inner products around that one vector: one step costs K^2 operations, whatever the dimension.

use super::error::{RuleError, at_least};
use super::krum::least;
use super::{Inputs, Outcome, Rule, Vectors};

/// The geometric median.
#[derive(Clone, Copy, Debug)]
pub struct GeometricMedian {
    /// nu as a share of the median distance, in (0, 1].
    pub smoothing: f64,
    /// Norm of the gradient over K at which it ends, > 0.
    pub tolerance: f64,
    /// Most steps, >= 1.
    pub iterations: u32,
}

/// The point `sum_k a_k y_k` among vectors y with inner products H.
pub(super) struct Point<'a> {
    /// H, n x n.
    pub(super) products: &'a [f64],
    /// a.
    pub(super) shares: Vec<f64>,
}

impl Point<'_> {
    /// `H a` and `a^T H a`; vectors without a share are not read.
    fn product(&self) -> (Vec<f64>, f64) {
        let n = self.shares.len();
        let mut all = vec![0f64; n];
        for (row, &a) in self.products.chunks_exact(n).zip(&self.shares).filter(|(_, a)| **a != 0.0) {
            all.iter_mut().zip(row).for_each(|(sum, h)| *sum += a * h);
        }
        let square = self.shares.iter().zip(&all).filter(|(a, _)| **a != 0.0).map(|(a, h)| a * h).sum();
        (all, square)
    }

    /// `|y_k - z|` for all k.
    pub(super) fn distances(&self) -> Vec<f64> {
        let (all, square) = self.product();
        let n = self.shares.len();
        (0..n).map(|k| (self.products[k * (n + 1)] - 2.0 * all[k] + square).max(0.0).sqrt()).collect()
    }

    /// `|z|`.
    pub(super) fn norm(&self) -> f64 {
        self.product().1.max(0.0).sqrt()
    }
}

impl Rule for GeometricMedian {
    fn name(&self) -> &'static str {
        "geometric-median"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        let k = vectors.count();
        let pairs = vectors.pairs()?;
        let sums: Vec<f64> = (0..k).map(|i| pairs.distances2(i).iter().map(|d| d.sqrt()).sum()).collect();
        let medoid = least(&sums, 1)[0];
        let products = pairs.around(medoid);
        let half = pairs.nearest(medoid, k / 2 + 1);
        let mut shares = vec![0.0; k];
        half.iter().for_each(|&i| shares[i] = 1.0 / half.len() as f64);
        let mut point = Point { products: &products, shares };

        let mut distances = point.distances();
        let mut sorted = distances.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let scale = sorted[k / 2];
        if scale == 0.0 {
            // More than half of the vectors lie here: it is the median.
            return Outcome::combination(vectors, point.shares);
        }
        let nu = self.smoothing * scale;
        let (mut taken, mut converged) = (0, false);
        while taken < self.iterations && !converged {
            let weights: Vec<f64> = distances.iter().map(|d| 1.0 / d.max(nu)).collect();
            let total: f64 = weights.iter().sum();
            let next: Vec<f64> = weights.iter().map(|w| w / total).collect();
            let step = next.iter().zip(&point.shares).map(|(new, old)| new - old).collect();
            // The step is minus the gradient over the sum of the weights.
            let gradient = total * Point { products: &products, shares: step }.norm();
            converged = gradient <= self.tolerance * k as f64;
            point.shares = next;
            distances = point.distances();
            taken += 1;
        }
        Ok(Outcome { iterations: taken, converged, ..Outcome::combination(vectors, point.shares)? })
    }
}
