//! Krum and multi-Krum: the vectors with the closest neighbours; K > 2f + 2.
//!
//! The score of vector i is the sum of its K - f - 2 smallest squared distances to others. Krum gives the vector of the least
//! score, multi-Krum the mean of the m of least score (scores are computed once); ties go to the lowest index.
//!
//! Blanchard, El Mhamdi, Guerraoui, Stainer 2017, *Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent*,
//! section 4 and Proposition 4.2. Without m it is K - f - 2, the most for which the vectors that have a score are backed by
//! an honest one each (Damaskinos et al. 2019, *AggregaThor*, section 2); at most K - f, so that all Byzantine vectors can
//! stay outside.
//!
//! Not guaranteed: that the vector is an honest one. Where the honest vectors scatter by more than about
//! `1.1 |their mean|`, vectors a little behind the origin lie closer to all others than any honest vector does, and win.
//!
//! ByzFL adds one distance more (K - f - 1): its `Krum(f + 1)` is this one for f, and its condition K > 2 (f + 1) then the
//! paper's.

use rayon::prelude::*;

use super::error::{RuleError, at_least, counted};
use super::pairs::Pairs;
use super::{Inputs, Outcome, Rule, Vectors};

/// Krum.
#[derive(Clone, Copy, Debug)]
pub struct Krum {
    /// Byzantine vectors.
    pub f: usize,
}

/// Multi-Krum.
#[derive(Clone, Copy, Debug)]
pub struct MultiKrum {
    /// Byzantine vectors.
    pub f: usize,
    /// Vectors in the mean, in `1..=K - f`; absent: K - f - 2.
    pub m: Option<usize>,
}

/// The score of every vector named, among those alone: the sum of its `neighbors` smallest squared distances to others.
pub(super) fn scores(pairs: &Pairs, among: &[usize], neighbors: usize) -> Vec<f64> {
    let score = |near: &mut Vec<f64>, &i: &usize| -> f64 {
        near.clear();
        near.extend(among.iter().filter(|&&j| j != i).map(|&j| pairs.distances2(i)[j]));
        let count = neighbors.min(near.len());
        if count > 0 && count < near.len() {
            near.select_nth_unstable_by(count - 1, f64::total_cmp);
        }
        // In one order, so that a permutation of the vectors changes no bit.
        near[..count].sort_unstable_by(f64::total_cmp);
        near[..count].iter().sum()
    };
    // A few vectors take less time than a task.
    among.par_iter().with_min_len(64).map_init(Vec::new, score).collect()
}

/// The places of the `count` least values, of equal ones the first, in that order.
pub(super) fn least(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order.truncate(count);
    order
}

fn check(rule: &'static str, f: usize, vectors: usize) -> Result<(), RuleError> {
    at_least(rule, f, "K > 2f + 2", f.saturating_mul(2).saturating_add(3), vectors)
}

/// The mean of the m vectors of least score.
fn aggregate(vectors: &Vectors<'_>, f: usize, m: usize) -> Result<Outcome, RuleError> {
    let k = vectors.count();
    let all: Vec<usize> = (0..k).collect();
    let scores = scores(vectors.pairs()?, &all, k - f - 2);
    Outcome::mean_of(vectors, least(&scores, m))
}

impl Rule for Krum {
    fn name(&self) -> &'static str {
        "krum"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        check(self.name(), self.f, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        self.check(vectors.count())?;
        aggregate(vectors, self.f, 1)
    }
}

impl Rule for MultiKrum {
    fn name(&self) -> &'static str {
        "multi-krum"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        check(self.name(), self.f, vectors)?;
        let Some(m) = self.m else { return Ok(()) };
        counted(self.name(), "m", m)?;
        let most = vectors - self.f;
        if m > most {
            let expected = format!("at most K - f = {most}");
            return Err(RuleError::OutOfRange { rule: self.name(), name: "m", expected, found: m as f64 });
        }
        Ok(())
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        self.check(vectors.count())?;
        aggregate(vectors, self.f, self.m.unwrap_or(vectors.count() - self.f - 2))
    }
}
