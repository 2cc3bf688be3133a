//! Median and trimmed mean of every coordinate: sorting networks over sixteen columns at a time.
//!
//! Up to sixteen rows are sorted in registers, straight from the rows. More rows are first copied, a strip of
//! columns of all rows at a time, so that the sixteen columns of a network lie together; runs of sixteen are
//! sorted in registers and merged by a list of comparisons.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Floats, Machine, NativeF64};
use crate::backend::{Aligned, BackendError, check};

/// Columns that the network sorts at once.
const LANES: usize = 16;
/// Rows that are sorted in registers.
const RUN: usize = 16;
/// Columns of a task.
const COLUMNS: usize = 1 << 13;
/// Values below which one thread does all.
const SMALL: usize = 1 << 15;

/// What to make of the sorted values of a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// The middle value or the mean of the two middle ones.
    Median,
    /// The mean of all but so many least and greatest.
    TrimmedMean(usize),
}

impl Selection {
    /// The ranks that are needed of `n`.
    const fn ranks(self, n: usize) -> (usize, usize) {
        match self {
            Self::Median => ((n - 1) / 2, n / 2 + 1),
            Self::TrimmedMean(trim) => (trim, n - trim),
        }
    }
}

/// Selects from every coordinate of checked rows.
pub(super) fn select(dispatch: Dispatch, rows: &[&[f32]], what: Selection) -> Result<Vec<f32>, BackendError> {
    let (n, dim) = (rows.len(), rows[0].len());
    let merges = Merges::new(n, what.ranks(n));
    let mut out = vec![0f32; dim];
    let task = |start: usize, out: &mut [f32]| {
        dispatch.run(Columns { rows, ranks: what.ranks(n), merges: &merges, start, out })
    };
    let finite = if n * dim <= SMALL {
        task(0, &mut out)
    } else {
        let parts = out.par_chunks_mut(COLUMNS).enumerate();
        parts.map(|(i, out)| task(i * COLUMNS, out)).reduce(|| true, |a, b| a && b)
    };
    if !finite {
        check::finite_rows(rows)?;
    }
    Ok(out)
}

/// The comparisons of a merge sort of `n` values from sorted runs of [`RUN`] on.
struct Merges {
    n: usize,
    /// Pairs `[i, j]`, `i < j < n`, that leave the lesser value at `i`.
    list: Vec<[u16; 2]>,
}

impl Merges {
    /// Batcher's odd-even merges, without the comparisons that no rank in `ranks` depends on.
    ///
    /// It is the network of the next power of two, whose upper inputs would be infinite: comparisons with them
    /// do nothing. Knuth, The Art of Computer Programming 3, sections 5.2.2 and 5.3.4.
    fn new(n: usize, ranks: (usize, usize)) -> Self {
        let mut all = Vec::new();
        let mut run = RUN;
        while run < n {
            let mut step = run;
            while step > 0 {
                let first = if step == run { 0 } else { step };
                for base in (first..n.saturating_sub(step)).step_by(2 * step) {
                    for i in base..(base + step).min(n - step) {
                        if i / (2 * run) == (i + step) / (2 * run) {
                            all.push([i, i + step]);
                        }
                    }
                }
                step /= 2;
            }
            run *= 2;
        }
        let mut needed: Vec<bool> = (0..n).map(|i| (ranks.0..ranks.1).contains(&i)).collect();
        let mut list: Vec<[u16; 2]> = Vec::new();
        for &[i, j] in all.iter().rev() {
            if needed[i] || needed[j] {
                (needed[i], needed[j]) = (true, true);
                list.push([i as u16, j as u16]);
            }
        }
        list.reverse();
        Self { n, list }
    }
}

/// Columns `start..` of the result; false if a value is NaN or infinite.
struct Columns<'a> {
    rows: &'a [&'a [f32]],
    ranks: (usize, usize),
    merges: &'a Merges,
    start: usize,
    out: &'a mut [f32],
}

impl Kernel for Columns<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<M: Machine>(self) -> bool {
        match self.rows.len() {
            1 => self.few::<M, 1>(),
            2 => self.few::<M, 2>(),
            3 => self.few::<M, 3>(),
            4 => self.few::<M, 4>(),
            5 => self.few::<M, 5>(),
            6 => self.few::<M, 6>(),
            7 => self.few::<M, 7>(),
            8 => self.few::<M, 8>(),
            9 => self.few::<M, 9>(),
            10 => self.few::<M, 10>(),
            11 => self.few::<M, 11>(),
            12 => self.few::<M, 12>(),
            13 => self.few::<M, 13>(),
            14 => self.few::<M, 14>(),
            15 => self.few::<M, 15>(),
            16 => self.few::<M, 16>(),
            _ => self.many::<M>(),
        }
    }
}

impl Columns<'_> {
    /// At most sixteen rows, sorted on the way from memory.
    #[inline(always)]
    fn few<M: Machine, const N: usize>(self) -> bool {
        let mut rows = [&self.rows[0][..0]; N];
        for (row, all) in rows.iter_mut().zip(self.rows) {
            *row = &all[self.start..self.start + self.out.len()];
        }
        let mut bad = M::F::splat(0.0);
        let mut sorted = [[0f32; LANES]; N];
        let mut padded = [[0f32; LANES]; N];
        for (g, out) in self.out.chunks_mut(LANES).enumerate() {
            let mut v = [M::F::splat(0.0); N];
            if out.len() == LANES {
                for (v, row) in v.iter_mut().zip(&rows) {
                    // SAFETY: the rows are as long as the output, of which this is a whole group.
                    *v = M::F::load(unsafe { &*row.as_ptr().add(g * LANES).cast() });
                }
            } else {
                for ((v, row), padded) in v.iter_mut().zip(&rows).zip(&mut padded) {
                    padded[..out.len()].copy_from_slice(&row[g * LANES..]);
                    *v = M::F::load(padded);
                }
            }
            for v in &mut v {
                // NaN and infinities times zero are NaN; -0 + 0 = 0.
                bad = v.mul_add(M::F::splat(0.0), bad);
                *v = v.add(M::F::splat(0.0));
            }
            sort::<M::F, N>(&mut v);
            for (v, sorted) in v.iter().zip(&mut sorted) {
                v.store(sorted);
            }
            finish::<M::NativeF64>(&sorted[self.ranks.0..self.ranks.1], out);
        }
        all_zero(bad)
    }

    /// More rows, from a copy in which the values of sixteen columns lie together.
    #[inline(always)]
    fn many<M: Machine>(self) -> bool {
        let n = self.rows.len();
        // 256 KiB of columns, at least four cache lines of a row at a time.
        let width = ((1 << 16) / n / LANES * LANES).clamp(4 * LANES, COLUMNS);
        let mut strip = Aligned::<f32>::zeroed(width * n);
        let (strip, _) = strip.as_chunks_mut::<LANES>();
        let mut bad = M::F::splat(0.0);
        for (s, out) in self.out.chunks_mut(width).enumerate() {
            let start = self.start + s * width;
            for (i, row) in self.rows.iter().enumerate() {
                let (groups, rest) = row[start..start + out.len()].as_chunks::<LANES>();
                for (g, group) in groups.iter().enumerate() {
                    strip[g * n + i] = *group;
                }
                if !rest.is_empty() {
                    strip[groups.len() * n + i][..rest.len()].copy_from_slice(rest);
                }
            }
            for (values, out) in strip.chunks_exact_mut(n).zip(out.chunks_mut(LANES)) {
                for run in values.chunks_mut(RUN) {
                    bad = sort_run::<M::F>(run, bad);
                }
                merge::<M::F>(values, self.merges);
                finish::<M::NativeF64>(&values[self.ranks.0..self.ranks.1], out);
            }
        }
        all_zero(bad)
    }
}

#[inline(always)]
fn all_zero<F: Floats>(v: F) -> bool {
    let mut lanes = [0f32; LANES];
    v.store(&mut lanes);
    lanes.iter().all(|&v| v == 0.0)
}

/// Sorts up to sixteen values in place, -0 as 0; adds their products with zero to `bad`.
#[inline(always)]
fn sort_run<F: Floats>(run: &mut [[f32; LANES]], bad: F) -> F {
    if let Ok(run) = <&mut [[f32; LANES]; RUN]>::try_from(&mut *run) {
        return sort_whole(run, bad);
    }
    let mut padded = [[f32::MAX; LANES]; RUN];
    padded[..run.len()].copy_from_slice(run);
    let bad = sort_whole(&mut padded, bad);
    run.copy_from_slice(&padded[..run.len()]);
    bad
}

#[inline(always)]
fn sort_whole<F: Floats>(run: &mut [[f32; LANES]; RUN], mut bad: F) -> F {
    let mut v = [F::splat(0.0); RUN];
    for (v, x) in v.iter_mut().zip(&*run) {
        let x = F::load(x);
        bad = x.mul_add(F::splat(0.0), bad);
        *v = x.add(F::splat(0.0));
    }
    sort::<F, RUN>(&mut v);
    for (v, x) in v.iter().zip(run) {
        v.store(x);
    }
    bad
}

/// Runs a list of comparisons on rows of sixteen columns.
#[inline(always)]
fn merge<F: Floats>(values: &mut [[f32; LANES]], pairs: &Merges) {
    assert!(values.len() == pairs.n);
    let values = values.as_mut_ptr();
    for &[i, j] in &pairs.list {
        // SAFETY: `Merges::new` lists indices below n alone, the length of `values`; i and j differ, and no
        // reference outlives its line.
        unsafe {
            let (i, j) = (values.add(usize::from(i)), values.add(usize::from(j)));
            let (a, b) = (F::load(&*i), F::load(&*j));
            a.min(b).store(&mut *i);
            a.max(b).store(&mut *j);
        }
    }
}

/// The mean of ascending values, summed in their order in `f64`. For two of them it is the exact mean rounded
/// once, and for one the value itself.
#[inline(always)]
fn finish<N: NativeF64>(kept: &[[f32; LANES]], out: &mut [f32]) {
    if let ([one], Ok(out)) = (kept, <&mut [f32; LANES]>::try_from(&mut *out)) {
        *out = *one;
        return;
    }
    let mut means = [0f32; LANES];
    for part in (0..LANES).step_by(N::LANES) {
        let mut sum = N::splat(0.0);
        for values in kept {
            // SAFETY: part + LANES <= 16.
            sum = sum.add(unsafe { N::widen(values.as_ptr().add(part)) });
        }
        // SAFETY: part + LANES <= 16.
        unsafe { sum.div(N::splat(kept.len() as f64)).narrow(means.as_mut_ptr().add(part)) };
    }
    out.copy_from_slice(&means[..out.len()]);
}

/// Leaves the lesser of `v[i]` and `v[j]` at `i`, if both exist.
#[inline(always)]
fn order<F: Floats, const N: usize>(v: &mut [F; N], [i, j]: [usize; 2]) {
    if j < N {
        (v[i], v[j]) = (v[i].min(v[j]), v[i].max(v[j]));
    }
}

/// Four comparisons, written out: a loop would keep the values in memory.
#[inline(always)]
fn four<F: Floats, const N: usize>(v: &mut [F; N], pairs: [[usize; 2]; 4]) {
    order(v, pairs[0]);
    order(v, pairs[1]);
    order(v, pairs[2]);
    order(v, pairs[3]);
}

/// Two comparisons.
#[inline(always)]
fn two<F: Floats, const N: usize>(v: &mut [F; N], pairs: [[usize; 2]; 2]) {
    order(v, pairs[0]);
    order(v, pairs[1]);
}

/// Batcher's network of sixteen inputs (63 comparisons), without those of inputs from `N` on.
#[inline(always)]
fn sort<F: Floats, const N: usize>(v: &mut [F; N]) {
    // Runs of 2.
    four(v, [[0, 1], [2, 3], [4, 5], [6, 7]]);
    four(v, [[8, 9], [10, 11], [12, 13], [14, 15]]);
    // Runs of 4.
    four(v, [[0, 2], [1, 3], [4, 6], [5, 7]]);
    four(v, [[8, 10], [9, 11], [12, 14], [13, 15]]);
    four(v, [[1, 2], [5, 6], [9, 10], [13, 14]]);
    // Runs of 8.
    four(v, [[0, 4], [1, 5], [2, 6], [3, 7]]);
    four(v, [[8, 12], [9, 13], [10, 14], [11, 15]]);
    four(v, [[2, 4], [3, 5], [10, 12], [11, 13]]);
    four(v, [[1, 2], [3, 4], [5, 6], [9, 10]]);
    two(v, [[11, 12], [13, 14]]);
    // All sixteen.
    four(v, [[0, 8], [1, 9], [2, 10], [3, 11]]);
    four(v, [[4, 12], [5, 13], [6, 14], [7, 15]]);
    four(v, [[4, 8], [5, 9], [6, 10], [7, 11]]);
    four(v, [[2, 4], [3, 5], [6, 8], [7, 9]]);
    two(v, [[10, 12], [11, 13]]);
    four(v, [[1, 2], [3, 4], [5, 6], [7, 8]]);
    two(v, [[9, 10], [11, 12]]);
    order(v, [13, 14]);
}
