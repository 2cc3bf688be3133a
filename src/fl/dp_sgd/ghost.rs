//! Sums that are clipped inside the trainer: from its fine integers to those of the mechanism.
//!
//! The mechanism's ring has s steps to a unit and admits neighbouring sums at an L2 distance of at most `R = floor(C s)`. The
//! trainer's integers have `S = s 2^k` steps, and the sum X of its rows, each of L2 norm at most B, becomes
//! `Y_j = floor((X_j + 2^(k-1)) / 2^k) mod 2^32`. For two real numbers `floor(a + b) - floor(a)` is less than 1 from b, and 0 where
//! b is. So a row G more moves Y by at most `|G| / 2^k + sqrt(d)`, and `B = (R - ceil(sqrt d)) 2^k` keeps that at R. Everything
//! behind Y is the same as for rows that were in memory.

use super::{DpSgd, FlError, GradientReport};
use crate::backend::Aligned;
use crate::data::Batch;
use crate::model::{IntegerClip, LocalTrainer};
use crate::privacy::mechanism::Mechanism;

/// `log2 B`, about: what the multipliers and factors of a trainer's rows are cut for.
const BOUND_LOG2: u32 = 46;
/// Most of k. A sum is taken modulo 2^64, so that the 32 bits above these k are those of the sum itself.
const MOST_FINE: u32 = 31;
/// The rounding may take one part in so many of the clip bound.
const SHARE: u64 = 16;

impl DpSgd {
    /// How a trainer clips inside for a model of `dim` parameters, and k.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`] where `ceil(sqrt(dim))` is above a 16th of `floor(C s)`: the clip bound has too few integer steps, since
    /// mini-batch or noise are so large that their sum fills the ring.
    pub fn clip_inside(&self, dim: usize) -> Result<(IntegerClip, u32), FlError> {
        // floor((C s)^2), so that its root is floor(C s).
        let radius = self.encode_params(dim)?.norm_bound().isqrt().min(u64::MAX.into()) as u64;
        let floor = (dim as u64).isqrt();
        let root = floor + u64::from(floor * floor < dim as u64);
        if root.saturating_mul(SHARE) > radius {
            return Err(FlError::OutOfRange {
                name: "algorithm.clipping",
                expected: format!(
                    "materialised, or a clip bound of at least {} integer steps for {dim} parameters: a smaller mini-batch or less noise",
                    root.saturating_mul(SHARE),
                ),
                found: format!("ghost, with {radius} steps"),
            });
        }
        let fine = BOUND_LOG2.saturating_sub(radius.ilog2()).min(MOST_FINE);
        // Steps to a unit are a power of two.
        let scale_log2 = -libm::ilogb(self.mechanism.unit()) + fine as i32;
        Ok((IntegerClip { scale_log2, bound: (radius - root) << fine, isolate: self.params.isolate }, fine))
    }

    /// The exact sum of the clipped rows of some samples in the mechanism's ring.
    pub(super) fn sum_inside(
        &self,
        trainer: &dyn LocalTrainer,
        weights: &[f32],
        shard: &Batch,
        chosen: &[usize],
    ) -> Result<(Aligned<u32>, GradientReport), FlError> {
        let (clip, fine) = self.clip_inside(weights.len())?;
        let found = trainer.clipped_sum(weights, shard, chosen, &clip)?;
        super::enough(found.sum.len(), weights.len())?;
        let sum = found.sum.iter().take(weights.len()).map(|&x| coarse(x, fine)).collect();
        Ok((sum, GradientReport { rows: chosen.len() as u64, encoded: found.report }))
    }
}

/// `floor((x + 2^(k-1)) / 2^k) mod 2^32`, right for x that is known modulo 2^64 where `k <= 32`.
fn coarse(x: i64, k: u32) -> u32 {
    let half = if k == 0 { 0 } else { 1i64 << (k - 1) };
    (x.wrapping_add(half) >> k) as u32
}

#[cfg(test)]
mod tests;
