//! Bucketing: the vectors are shuffled, and each s in a row are replaced by their mean.
//!
//! Karimireddy, He, Jaggi 2022, *Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing*, Algorithm 1. The order
//! is public and drawn anew in every round ([`Inputs::permutation`]). ceil(K / s) means are left, of which up to f hold a
//! Byzantine vector: **the rule behind it gets the same f, of fewer vectors**. The last bucket is the mean of what is in it; the
//! paper divides by s there too, which would shrink it.

use super::PreAggregation;
use crate::fl::rule::error::{at_least, counted};
use crate::fl::rule::mixing::Mixing;
use crate::fl::rule::{Inputs, RuleError, Vectors};

/// Bucketing.
#[derive(Clone, Copy, Debug)]
pub struct Bucketing {
    /// Vectors of a bucket, >= 1.
    pub s: usize,
}

/// The means of each s vectors in a row of an order.
#[must_use]
pub fn buckets(order: &[usize], s: usize) -> Mixing {
    Mixing::means(order.len(), &order.chunks(s.max(1)).map(<[usize]>::to_vec).collect::<Vec<_>>())
}

impl PreAggregation for Bucketing {
    fn name(&self) -> &'static str {
        "bucketing"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        counted(self.name(), "s", self.s)?;
        at_least(self.name(), 0, "K >= 1", 1, vectors)
    }

    fn outputs(&self, vectors: usize) -> usize {
        vectors.div_ceil(self.s.max(1))
    }

    fn keeps_places(&self) -> bool {
        false
    }

    fn mix(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Mixing, RuleError> {
        self.check(vectors.count())?;
        let what = "the key of the round's public permutation";
        let key = inputs.permutation.ok_or(RuleError::Missing { rule: self.name(), what })?;
        let mut order: Vec<usize> = (0..vectors.count()).collect();
        key.reader(0).shuffle(&mut order);
        Ok(buckets(&order, self.s))
    }
}
