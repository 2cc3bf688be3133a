//! The sum of integer rows, exact whatever the order.
//!
//! Entries are summed in `f64`, as long as the bounds on their partial sums add up to at most 2^52, and then moved to
//! integers modulo 2^64. Layers whose rows are products wait in stacks, since one product of matrices for many rows costs less.

use super::factor::{Factor, Outer};
use super::row::{Outcome, Part, add_outer};

/// Entries are integers of magnitude at most this before they are moved.
const FULL: f64 = (1u64 << 52) as f64;
/// Positions that a stack takes before it is multiplied.
const STACK: usize = 128;

/// Integer factors of one layer that are not yet multiplied.
#[derive(Clone, Debug, Default)]
struct Stack {
    a: Vec<f64>,
    z: Vec<f64>,
}

/// A sum.
#[derive(Debug)]
pub(super) struct Sums {
    small: Vec<f64>,
    /// What has been moved; empty before.
    large: Vec<i64>,
    /// A bound on the magnitudes in `small` and on what waits.
    used: f64,
    stacks: Vec<Stack>,
    waiting: usize,
}

impl Sums {
    pub(super) fn new(dim: usize) -> Self {
        Self { small: vec![0.0; dim], large: Vec::new(), used: 0.0, stacks: Vec::new(), waiting: 0 }
    }

    /// Adds `m` times the row of a sample.
    pub(super) fn add(&mut self, factors: &[Factor<'_>], parts: &[Part], outcome: &Outcome) {
        if outcome.multiplier == 0.0 {
            return;
        }
        if self.used + outcome.spread > FULL {
            self.multiply(factors);
            self.move_over();
        }
        self.used += outcome.spread;
        self.stacks.resize(factors.len(), Stack::default());
        let m = outcome.multiplier;
        let mut longest = 0;
        for ((factor, part), stack) in factors.iter().zip(parts).zip(&mut self.stacks) {
            match factor {
                Factor::Outer(outer) if part.whole.is_empty() => {
                    stack.a.extend_from_slice(&part.a);
                    stack.z.extend(part.z.iter().map(|z| m * z));
                    longest = longest.max(if part.z.is_empty() { 0 } else { outer.positions });
                }
                Factor::Outer(outer) => add_scaled(&mut self.small[outer.place()], &part.whole, m),
                Factor::OneHot(one) => {
                    for (&token, row) in part.tokens.iter().zip(part.z.chunks_exact(one.outputs)) {
                        let start = one.start + token as usize * one.outputs;
                        add_scaled(&mut self.small[start..start + one.outputs], row, m);
                    }
                }
                Factor::Dense { start, values } => {
                    add_scaled(&mut self.small[*start..*start + values.len()], &part.z, m);
                }
            }
        }
        self.waiting += longest;
        if self.waiting >= STACK {
            self.multiply(factors);
        }
    }

    /// Multiplies what waits; `factors` are those of any sample, for their places.
    pub(super) fn multiply(&mut self, factors: &[Factor<'_>]) {
        for (factor, stack) in factors.iter().zip(&mut self.stacks) {
            if let Factor::Outer(outer) = factor
                && !stack.z.is_empty()
            {
                add_stack(&mut self.small, outer, stack);
            }
        }
        self.waiting = 0;
    }

    /// Moves the sums to integers modulo 2^64.
    fn move_over(&mut self) {
        if self.large.is_empty() {
            self.large.resize(self.small.len(), 0);
        }
        for (large, small) in self.large.iter_mut().zip(&mut self.small) {
            *large = large.wrapping_add(std::mem::take(small) as i64);
        }
        self.used = 0.0;
    }

    /// Adds the sum to `out`, modulo 2^64. Nothing may wait.
    pub(super) fn add_to(&self, out: &mut [i64]) {
        for (out, &small) in out.iter_mut().zip(&self.small) {
            *out = out.wrapping_add(small as i64);
        }
        for (out, &large) in out.iter_mut().zip(&self.large) {
            *out = out.wrapping_add(large);
        }
    }
}

fn add_stack(sums: &mut [f64], outer: &Outer<'_>, stack: &mut Stack) {
    add_outer(&mut sums[outer.place()], outer, &stack.a, &stack.z);
    stack.a.clear();
    stack.z.clear();
}

fn add_scaled(sums: &mut [f64], row: &[f64], m: f64) {
    sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += m * v);
}
