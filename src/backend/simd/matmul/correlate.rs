//! Inner products of rows, sixteen lanes each.

use std::ops::Range;

use super::{Correlate, LANES};
use crate::backend::simd::isa::Kernel;
use crate::backend::simd::lanes::{Floats, Machine};

/// Floats of each row of the left factor, over some samples, of which a tile's rows stay in the first cache beside all
/// else. Sums end there: the number is part of the result, and the same for all tiles.
const NEAR: usize = 2 << 10;

/// A checked [`Correlate`].
pub(super) struct Correlation<'a, 'b> {
    pub(super) out: &'a mut [f32],
    pub(super) job: &'a Correlate<'b>,
}

impl Kernel for Correlation<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        if M::GROUPS >= 32 {
            correlate::<M, 4, 6>(self.out, self.job);
        } else {
            correlate::<M, 2, 2>(self.out, self.job);
        }
    }
}

#[inline(always)]
fn correlate<M: Machine, const R: usize, const C: usize>(out: &mut [f32], job: &Correlate<'_>) {
    let (columns, whole) = (job.starts.len(), job.length - job.length % LANES);
    // The ends of rows, with zeros behind them; only of a single sample.
    let mut edges = (Vec::new(), Vec::new());
    if whole < job.length {
        edges.0 = padded(job.left, whole..job.length, (0..job.rows).map(|r| r * job.left_step));
        edges.1 = padded(job.right, whole..job.length, job.starts.iter().map(|&start| start as usize));
    }
    let (blocks, turns) = (job.rows.div_ceil(R), columns.div_ceil(C));
    // Of several samples, as many at a time as leave the rows of a tile in the first cache, and all columns against them;
    // of one, all rows against a few columns, which may be the rows of a large matrix.
    let group = (NEAR / job.length.max(1)).clamp(1, job.samples);
    let many = job.samples > 1;
    for start in (0..job.samples).step_by(group) {
        let samples = start..job.samples.min(start + group);
        for turn in 0..blocks * turns {
            let (block, column) = if many { (turn / turns, turn % turns) } else { (turn % blocks, turn / blocks) };
            let (first, end, column) = (job.rows * block / blocks, job.rows * (block + 1) / blocks, C * column);
            // Columns behind the last stand for that one again; what they give is not kept.
            let mut places = [0; C];
            for c in 0..C {
                places[c] = (column + c).min(columns - 1);
            }
            let part = (samples.clone(), first);
            let sums = match end - first {
                1 => inner::<M, 1, R, C>(job, part, &places, whole, &edges),
                2 => inner::<M, 2, R, C>(job, part, &places, whole, &edges),
                3 if R > 2 => inner::<M, 3, R, C>(job, part, &places, whole, &edges),
                _ => inner::<M, R, R, C>(job, part, &places, whole, &edges),
            };
            for (r, sums) in (first..end).zip(&sums) {
                let row = &mut out[r * job.out_step + column..][..C.min(columns - column)];
                for (out, lanes) in row.iter_mut().zip(sums) {
                    *out += fold(lanes);
                }
            }
        }
    }
}

/// Some columns of rows that begin at `starts`, each with zeros up to [`LANES`].
#[inline(always)]
fn padded(x: &[f32], columns: Range<usize>, starts: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut out = Vec::new();
    for start in starts {
        let len = out.len();
        out.extend_from_slice(&x[start + columns.start..start + columns.end]);
        out.resize(len + LANES, 0.0);
    }
    out
}

/// The sum of sixteen lanes, halves first.
#[inline(always)]
pub(super) fn fold(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

/// The lanes of inner products of `K <= R` rows from `first` on, over some samples, with the rows of the right factor at `places`.
#[inline(always)]
fn inner<M: Machine, const K: usize, const R: usize, const C: usize>(
    job: &Correlate<'_>,
    (samples, first): (Range<usize>, usize),
    places: &[usize; C],
    whole: usize,
    edges: &(Vec<f32>, Vec<f32>),
) -> [[[f32; LANES]; C]; R] {
    let mut sums = [[M::F::splat(0.0); C]; K];
    for s in samples {
        let left = &job.left[s * job.left_sample + first * job.left_step..][..(K - 1) * job.left_step + job.length];
        let right = &job.right[s * job.right_sample..];
        let mut starts = [0; C];
        for c in 0..C {
            starts[c] = job.starts[places[c]] as usize;
        }
        assert!(starts.iter().all(|&start| start + whole <= right.len()) && whole <= job.length);
        for p in (0..whole).step_by(LANES) {
            // SAFETY: p + LANES <= whole, which is at most the length of rows of the left factor, as sliced above, and of
            // the right one, as asserted; an array of floats has their alignment.
            unsafe {
                let mut y = [M::F::splat(0.0); C];
                for c in 0..C {
                    y[c] = M::F::load(&*right.as_ptr().add(starts[c] + p).cast());
                }
                for r in 0..K {
                    let x = M::F::load(&*left.as_ptr().add(r * job.left_step + p).cast());
                    for c in 0..C {
                        sums[r][c] = x.mul_add(y[c], sums[r][c]);
                    }
                }
            }
        }
    }
    if whole < job.length {
        let (left, _) = edges.0.as_chunks::<LANES>();
        let (right, _) = edges.1.as_chunks::<LANES>();
        for r in 0..K {
            let x = M::F::load(&left[first + r]);
            for c in 0..C {
                sums[r][c] = x.mul_add(M::F::load(&right[places[c]]), sums[r][c]);
            }
        }
    }
    let mut out = [[[0f32; LANES]; C]; R];
    for r in 0..K {
        for c in 0..C {
            sums[r][c].store(&mut out[r][c]);
        }
    }
    out
}
