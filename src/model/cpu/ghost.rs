//! Ghost clipping in integers: the exact sum of clipped gradient rows, without the rows.
//!
//! A layer's gradient by sample i is `g_i = sum_t a_it (x) dz_it` over its T positions. With integer factors
//! `A_it = round(2^e a_it)`, `Z_it = round(2^(E - e) dz_it)` (e of the layer and sample, E of the sample, both from the sample alone)
//! the integer row is
//!
//! ```text
//! G_i = m_i sum_t A_it (x) Z_it,     N_i^2 = sum_layers sum_(t,u) (A_it . A_iu)(Z_it . Z_iu),     m_i = min(2^(log2 S - E), floor(B / N_i))
//! ```
//!
//! `N_i^2` is computed exactly in 128 bits, hence `|G_i| = m_i N_i <= B` holds exactly and without a search. A bias is the weight of an
//! input that is always 1. The sum over samples is `sum_i A_i^T (m_i Z_i)`, a product of matrices of integers in `f64`: every partial sum
//! is an integer below 2^53, which Cauchy and Schwarz's inequality bounds from the factors before it is taken, so that nothing is rounded
//! and neither order nor batches nor threads change a bit. A layer of many positions and few weights has its `sum_t A_it (x) Z_it`
//! computed instead of the inner products, the same integers (the choice of Bu, Mao, Xu 2022, Section 4).
//!
//! Memory: a pass of activations, the parameters once a thread and once for the result; a layer's gradient of one sample where
//! that is cheaper. What it costs is rounding: an input loses at most `2^-14` of its layer's largest one, a derivative half a step of Z, the
//! multiplier of a clipped row at most one part in itself (some 2^11). Tests hold a row within a thousandth of the bound.
//!
//! Sources: ghost norms, Goodfellow 2015 (linear layers), Li, Tramer, Liang, Hashimoto 2022 (sequences), Bu, Mao, Xu 2022 (convolutions).
//! The integers are ours; `docs/dp-sgd.md` has the proof.

mod factor;
mod row;
mod sums;

use rayon::prelude::*;

pub(super) use self::factor::{Columns, Factor, OneHot, Outer, View};
use self::row::{Outcome, Part, build};
use self::sums::Sums;
use super::trainer::CpuTrainer;
use crate::backend::EncodeReport;
use crate::data::Batch;
use crate::model::{ClippedSum, IntegerClip, ModelError};

/// See [`crate::model::LocalTrainer::clipped_sum`].
pub(super) fn clipped_sum(
    trainer: &CpuTrainer,
    weights: &[f32],
    batch: &Batch,
    chosen: &[usize],
    job: &IntegerClip,
) -> Result<ClippedSum, ModelError> {
    trainer.check_rows(weights, batch)?;
    if let Some(&found) = chosen.iter().find(|&&i| i >= batch.len()) {
        return Err(ModelError::WrongLength {
            what: "the batch",
            expected: found.saturating_add(1),
            found: batch.len(),
        });
    }
    let size = if job.isolate { 1 } else { trainer.network().pass() };
    let whole = &*trainer.whole(weights);
    // A part a thread: each has sums of its own. How many there are changes no bit.
    let passes = chosen.len().div_ceil(size).max(1);
    let part = passes.div_ceil(rayon::current_num_threads().max(1)) * size;
    let work = |part: &[usize]| Worker::new(weights.len()).run(trainer, whole, (batch, part), size, job);
    let done: Vec<Worker> = chosen.par_chunks(part).map(work).collect();
    let mut sum = vec![0i64; weights.len()];
    let mut report = EncodeReport::default();
    for worker in &done {
        worker.sums.add_to(&mut sum);
        // Floats, in the order of the samples.
        worker.seen.iter().for_each(|outcome| {
            report.merge(&EncodeReport {
                zeroed: outcome.zeroed.into(),
                clipped: outcome.clipped.into(),
                clip_ratio_sum: outcome.ratio,
                norm_sum: outcome.norm,
                linf_hits: 0,
            });
        });
    }
    Ok(ClippedSum { sum, report })
}

/// The rows of some samples, one thread's.
struct Worker {
    sums: Sums,
    seen: Vec<Outcome>,
    parts: Vec<Part>,
}

impl Worker {
    fn new(dim: usize) -> Self {
        Self { sums: Sums::new(dim), seen: Vec::new(), parts: Vec::new() }
    }

    fn run(
        mut self,
        trainer: &CpuTrainer,
        weights: &[f32],
        (batch, chosen): (&Batch, &[usize]),
        size: usize,
        job: &IntegerClip,
    ) -> Self {
        let network = trainer.network();
        let mut work = network.workspace(size);
        for part in chosen.chunks(size) {
            // Passes of one shape, filled up with a sample that nobody counts again.
            let filler = std::iter::repeat_n(part[0], size - part.len());
            let indices: Vec<usize> = part.iter().copied().chain(filler).collect();
            trainer.pass(&mut work, weights, (batch, &indices), None, 1.0);
            for sample in 0..part.len() {
                self.add(&network.factors(&work, sample), job);
            }
            self.sums.multiply(&network.factors(&work, 0));
        }
        self
    }

    /// Adds the integer row of one sample.
    fn add(&mut self, factors: &[Factor<'_>], job: &IntegerClip) {
        let outcome = build(factors, &mut self.parts, job);
        self.sums.add(factors, &self.parts, &outcome);
        self.seen.push(outcome);
    }
}

#[cfg(test)]
mod tests;
