//! Bulyan: Krum selects vectors one after the other, and every coordinate is the mean of those values of the selected that
//! lie nearest to their median; K >= 4f + 3.
//!
//! 1. `theta = K - 2f` times: of the vectors that are left, the one with the least Krum score among them is selected. With n
//!    left, a score adds up n - f - 2 distances, at least one: when less than f + 3 are left, the paper's number is none.
//! 2. In each coordinate the mean of the `beta = theta - 2f` values of the selected vectors that are nearest to their median.
//!    Of two values as near, on both sides of it, the lesser is taken, so that the order of the vectors does not matter.
//!
//! El Mhamdi, Guerraoui, Rouault 2018, *The Hidden Vulnerability of Distributed Learning in Byzantium*, section 4, with
//! Krum as the rule A. With at most f Byzantine vectors each coordinate lies between honest values (their section 4.2).

use super::error::{RuleError, at_least};
use super::krum::{least, scores};
use super::meamed::nearest_to_median;
use super::pairs::Pairs;
use super::{Inputs, Outcome, Rule, Vectors};

/// Bulyan over Krum.
#[derive(Clone, Copy, Debug)]
pub struct Bulyan {
    /// Byzantine vectors.
    pub f: usize,
}

/// The `count` vectors that Krum selects, one after the other, ascending.
fn selected(pairs: &Pairs, f: usize, count: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..pairs.n()).collect();
    let mut selected = Vec::with_capacity(count);
    while selected.len() < count && !left.is_empty() {
        let neighbors = left.len().saturating_sub(f + 2).max(1);
        let best = least(&scores(pairs, &left, neighbors), 1)[0];
        selected.push(left.remove(best));
    }
    selected.sort_unstable();
    selected
}

impl Rule for Bulyan {
    fn name(&self) -> &'static str {
        "bulyan"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        at_least(self.name(), self.f, "K >= 4f + 3", self.f.saturating_mul(4).saturating_add(3), vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        self.check(vectors.count())?;
        let theta = vectors.count() - 2 * self.f;
        let chosen = selected(vectors.pairs()?, self.f, theta);
        let vector = vectors.with_vectors(&chosen, |rows| nearest_to_median(rows, theta - 2 * self.f))??;
        Ok(Outcome { chosen: Some(chosen), ..Outcome::of(vector) })
    }
}
