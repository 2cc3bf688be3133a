//! MDA, minimum diameter averaging: the mean of the K - f vectors whose largest distance to each other is least; K > 2f.
//!
//! El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault 2020, *Genuinely Distributed Byzantine Machine Learning*, section 3.2. Of
//! several such subsets it is the first in lexicographic order.
//!
//! The search is exact and does not list the subsets: a diameter of at most t leaves out a vertex cover of the graph of
//! pairs farther apart than t, so that the least t is found by halving the list of distances, and a cover of f vertices is
//! searched by branching on a vertex of degree 3 or more (take it, or all its neighbours): at most `1.4656^f` leaves.
//! What may take more than [`WORK_LIMIT`] steps by that bound is refused before it begins, so that no input can stall a
//! server.

use super::error::{RuleError, majority};
use super::pairs::Pairs;
use super::{Inputs, Outcome, Rule, Vectors};

/// Most steps: `1.4656^f (K + 2 log2 K) K ceil(K / 64)`, some seconds to a minute at the limit in the worst case.
pub const WORK_LIMIT: f64 = 1e10;

/// Minimum diameter averaging.
#[derive(Clone, Copy, Debug)]
pub struct Mda {
    /// Byzantine vectors.
    pub f: usize,
}

/// A set of vectors, one bit each.
#[derive(Clone, Debug)]
struct Set(Vec<u64>);

impl Set {
    fn empty(n: usize) -> Self {
        Self(vec![0; n.div_ceil(64)])
    }

    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn add(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }

    fn remove_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }

    fn common(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    fn members(&self) -> impl Iterator<Item = usize> + '_ {
        (0..64 * self.0.len()).filter(|&i| self.has(i))
    }

    fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }
}

/// Which vectors are farther than t from each.
fn conflicts(pairs: &Pairs, t: f64) -> Vec<Set> {
    let n = pairs.n();
    let far = |i: usize| {
        let mut set = Set::empty(n);
        (0..n).filter(|&j| pairs.distances2(i)[j] > t).for_each(|j| set.add(j));
        set
    };
    (0..n).map(far).collect()
}

/// Whether `budget` vertices cover all edges between the vertices in `alive`.
fn coverable(edges: &[Set], mut alive: Set, mut budget: usize) -> bool {
    loop {
        let (mut total, mut most, mut widest, mut leaf) = (0, 0, 0, None);
        for i in alive.members().collect::<Vec<_>>() {
            let degree = edges[i].common(&alive);
            match degree {
                0 => alive.remove(i),
                1 => leaf = Some(i),
                _ => {}
            }
            total += degree;
            if degree > most {
                (most, widest) = (degree, i);
            }
        }
        if total == 0 {
            return true;
        }
        // Every vertex of a cover takes at most `most` of the edges, each of which was counted twice.
        if budget == 0 || total > 2 * most * budget {
            return false;
        }
        let neighbors = |i: usize| edges[i].intersection(&alive);
        if let Some(leaf) = leaf {
            // The one neighbour covers at least what the leaf does.
            alive.remove_all(&neighbors(leaf));
            budget -= 1;
        } else if most == 2 {
            // Circles alone: any vertex of one is in a least cover of it.
            alive.remove(widest);
            budget -= 1;
        } else if most > budget {
            // All its neighbours would be too many.
            alive.remove(widest);
            budget -= 1;
        } else {
            let around = neighbors(widest);
            let mut without = alive.clone();
            without.remove_all(&around);
            without.remove(widest);
            if coverable(edges, without, budget - most) {
                return true;
            }
            alive.remove(widest);
            budget -= 1;
        }
    }
}

/// The first K - f vectors, in lexicographic order, of least diameter.
fn subset(pairs: &Pairs, f: usize) -> Vec<usize> {
    let n = pairs.n();
    let mut all = Set::empty(n);
    (0..n).for_each(|i| all.add(i));
    let mut diameters: Vec<f64> = (0..n).flat_map(|i| pairs.distances2(i)[..i].iter().copied()).collect();
    diameters.push(0.0);
    diameters.sort_unstable_by(f64::total_cmp);
    diameters.dedup();
    let enough = |&t: &f64| coverable(&conflicts(pairs, t), all.clone(), f);
    let first = diameters.partition_point(|t| !enough(t));
    let edges = conflicts(pairs, diameters[first.min(diameters.len() - 1)]);

    let (mut alive, mut budget, mut chosen) = (all, f, Vec::with_capacity(n - f));
    for i in 0..n {
        if chosen.len() == n - f || !alive.has(i) {
            continue;
        }
        let out = edges[i].common(&alive);
        let mut rest = alive.clone();
        rest.remove_all(&edges[i]);
        rest.remove(i);
        if out <= budget && coverable(&edges, rest.clone(), budget - out) {
            chosen.push(i);
            (alive, budget) = (rest, budget - out);
        } else {
            alive.remove(i);
            budget = budget.saturating_sub(1);
        }
    }
    chosen
}

impl Rule for Mda {
    fn name(&self) -> &'static str {
        "mda"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        majority(self.name(), self.f, vectors)?;
        let k = vectors as f64;
        let work = 1.4656f64.powf(self.f as f64) * (k + 2.0 * k.log2()) * k * vectors.div_ceil(64) as f64;
        if work > WORK_LIMIT {
            return Err(RuleError::TooMuchWork { f: self.f, vectors, work, limit: WORK_LIMIT });
        }
        Ok(())
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        self.check(vectors.count())?;
        Outcome::mean_of(vectors, subset(vectors.pairs()?, self.f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    /// Against all subsets of the vertices of random graphs.
    #[test]
    fn covers_are_found_where_they_exist() {
        let mut reader = StreamKey::from_bytes([3; 32], Cipher::ChaCha8).reader(0);
        for case in 0..300 {
            let n = 1 + case % 10;
            let density = reader.below(8);
            let mut edges = vec![Set::empty(n); n];
            for i in 0..n {
                for j in 0..i {
                    if reader.below(8) < density {
                        edges[i].add(j);
                        edges[j].add(i);
                    }
                }
            }
            let covers = |s: u32| (0..n).all(|i| s >> i & 1 == 1 || edges[i].members().all(|j| s >> j & 1 == 1));
            let least = (0..1u32 << n).filter(|&s| covers(s)).map(u32::count_ones).min().unwrap() as usize;
            let mut all = Set::empty(n);
            (0..n).for_each(|i| all.add(i));
            for budget in 0..=n {
                assert_eq!(coverable(&edges, all.clone(), budget), budget >= least, "case {case}, budget {budget}");
            }
        }
    }
}
