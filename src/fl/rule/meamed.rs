//! MeaMed, the mean around the median: in each coordinate the mean of the K - f values nearest to their median; K > 2f.
//!
//! Xie, Koyejo, Gupta 2018, *Generalized Byzantine-tolerant SGD*, Definition 3. Of two values as near, on both sides of
//! the median, the lesser is taken, so that the order of the vectors does not matter.

use rayon::prelude::*;

use super::error::{RuleError, majority};
use super::{Inputs, Outcome, Rule, Vectors};
use crate::backend::BackendError;

/// The mean around the median.
#[derive(Clone, Copy, Debug)]
pub struct Meamed {
    /// Byzantine vectors.
    pub f: usize,
}

/// Columns that are turned to lie together, so that every row is read a cache line or more at a time.
const COLUMNS: usize = 64;

/// In each coordinate the mean of the `keep` values nearest to their median, added up in ascending order in `f64`. Error: NaN
/// or an infinity (names the row).
pub(super) fn nearest_to_median(rows: &[&[f32]], keep: usize) -> Result<Vec<f32>, RuleError> {
    let (n, dim) = (rows.len(), rows.first().map_or(0, |row| row.len()));
    let mut out = vec![0f32; dim];
    let fine = out.par_chunks_mut(COLUMNS).enumerate().map_init(Vec::new, |values, (i, out)| {
        values.resize(COLUMNS * n, 0f32);
        for (k, row) in rows.iter().enumerate() {
            for (c, &v) in row[i * COLUMNS..][..out.len()].iter().enumerate() {
                values[c * n + k] = v;
            }
        }
        for (out, values) in out.iter_mut().zip(values.chunks_exact_mut(n)) {
            *out = one(values, keep);
        }
        out.iter().all(|v| v.is_finite()) && values[..out.len() * n].iter().all(|v| v.is_finite())
    });
    if !fine.reduce(|| true, |a, b| a && b) {
        let bad = |row: &&[f32]| row.iter().any(|v| !v.is_finite());
        let row = rows.iter().position(bad).unwrap_or(0);
        return Err(BackendError::NonFinite { row, coordinate: 0 }.into());
    }
    Ok(out)
}

/// The mean of the `keep` values nearest to the median; sorts the values.
fn one(values: &mut [f32], keep: usize) -> f32 {
    values.sort_unstable_by(f32::total_cmp);
    let n = values.len();
    let median = (f64::from(values[(n - 1) / 2]) + f64::from(values[n / 2])) / 2.0;
    // In ascending order the nearest values are neighbours: the farther end goes, one after the other.
    let mut kept = &values[..];
    while let [low, .., high] = kept
        && kept.len() > keep
    {
        let drop_low = median - f64::from(*low) > f64::from(*high) - median;
        kept = if drop_low { &kept[1..] } else { &kept[..kept.len() - 1] };
    }
    (kept.iter().map(|&v| f64::from(v)).sum::<f64>() / kept.len() as f64) as f32
}

impl Rule for Meamed {
    fn name(&self) -> &'static str {
        "meamed"
    }

    fn check(&self, vectors: usize) -> Result<(), RuleError> {
        majority(self.name(), self.f, vectors)
    }

    fn aggregate(&self, vectors: &Vectors<'_>, _: &Inputs<'_>) -> Result<Outcome, RuleError> {
        self.check(vectors.count())?;
        let all: Vec<usize> = (0..vectors.count()).collect();
        vectors.with_vectors(&all, |rows| nearest_to_median(rows, rows.len() - self.f))?.map(Outcome::of)
    }
}
