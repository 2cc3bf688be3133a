//! Inner products and distances of all pairs of rows.
//!
//! Columns are cut into segments of [`COLUMNS`], a segment into panels of [`WIDTH`] columns of all rows, widened
//! to `f64` so that they stay in the cache while tiles of pairs run over them. A pair has eight lanes, which run
//! through a segment and are then folded; segments are added in order. A product of widened floats is exact, so
//! fused and separate operations round alike, and neither tile nor instruction set nor threads change a bit.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeF64};
use crate::backend::{Aligned, BackendError, Gram, check};

/// Columns of a segment: what one task takes, and the longest run of sums in one lane.
const COLUMNS: usize = 1 << 13;
/// Columns of a panel: 100 rows take 400 KiB, the rows of a tile 40 KiB.
const WIDTH: usize = 512;
/// Doubles between two rows of a panel: a cache line more than its columns, so that rows do not share sets.
const STRIDE: usize = WIDTH + 8;
/// Lanes of a pair.
const LANES: usize = 8;
/// A distance below this share of `|x|^2 + |y|^2` is summed from the differences: above it, the subtraction
/// leaves all but 16 of the 53 bits.
const CLOSE: f64 = 1.0 / (1u64 << 16) as f64;

/// Inner products and distances of checked rows.
pub(super) fn gram(dispatch: Dispatch, rows: &[&[f32]]) -> Result<Gram, BackendError> {
    let n = rows.len();
    let products = segments(rows, |columns, scratch| dispatch.run(Products { rows, columns, scratch }));
    let at = |i: usize, j: usize| products[i * (i + 1) / 2 + j];
    // A row's own product is finite exactly if the row is: squares of f32 cannot overflow f64.
    if (0..n).any(|i| !at(i, i).is_finite()) {
        check::finite_rows(rows)?;
    }
    let pairs = || (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)));
    let mut distances: Vec<f64> = pairs().map(|(i, j)| (at(i, i) + at(j, j)) - 2.0 * at(i, j)).collect();
    let close: Vec<(usize, usize)> = pairs()
        .zip(&distances)
        .filter(|((i, j), d)| i != j && **d < CLOSE * (at(*i, *i) + at(*j, *j)))
        .map(|(pair, _)| pair)
        .collect();
    if !close.is_empty() {
        let pairs = &close[..];
        let near = segments(rows, |columns, scratch| dispatch.run(Distances { rows, pairs, columns, scratch }));
        for (&(i, j), d) in close.iter().zip(near) {
            distances[i * (i + 1) / 2 + j] = d;
        }
    }
    Ok(Gram::from_triangles(n, &products, &distances))
}

/// Memory of one task: a panel of all rows, and the lanes of the pairs.
#[derive(Default)]
pub(super) struct Scratch {
    panel: Aligned<f32>,
    lanes: Aligned<f32>,
}

impl Scratch {
    /// Room for two arrays of doubles, each from a cache line on; what they hold is not said.
    #[inline(always)]
    pub(super) fn two(&mut self, first: usize, second: usize) -> (&mut [f64], &mut [f64]) {
        (doubles(&mut self.panel, first), doubles(&mut self.lanes, second))
    }
}

/// Room for `len` doubles on a cache line.
#[inline(always)]
fn doubles(memory: &mut Aligned<f32>, len: usize) -> &mut [f64] {
    memory.resize(2 * len);
    bytemuck::cast_slice_mut(memory)
}

/// The sums over all segments, added in their order; at most four segments a thread are held at a time.
fn segments<F>(rows: &[&[f32]], one: F) -> Vec<f64>
where
    F: Fn(std::ops::Range<usize>, &mut Scratch) -> Vec<f64> + Sync,
{
    let dim = rows[0].len();
    let columns = |s: usize| s * COLUMNS..dim.min((s + 1) * COLUMNS);
    let mut total = one(columns(0), &mut Scratch::default());
    let (count, wave) = (dim.div_ceil(COLUMNS), 4 * rayon::current_num_threads());
    for first in (1..count).step_by(wave) {
        let parts: Vec<Vec<f64>> = (first..count.min(first + wave))
            .into_par_iter()
            .map_init(Scratch::default, |scratch, s| one(columns(s), scratch))
            .collect();
        for part in parts {
            total.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
        }
    }
    total
}

/// Widens columns of all rows into a panel, zeros behind the last; returns the groups of eight columns.
#[inline(always)]
fn fill<N: NativeF64>(rows: &[&[f32]], columns: std::ops::Range<usize>, panel: &mut [f64]) -> usize {
    for (row, out) in rows.iter().zip(panel.chunks_exact_mut(STRIDE)) {
        let row = &row[columns.clone()];
        let whole = row.len() - row.len() % N::LANES;
        for i in (0..whole).step_by(N::LANES) {
            // SAFETY: i + LANES <= row.len() <= WIDTH = out.len(), and the machine was seen (see `isa`).
            unsafe { N::widen(row.as_ptr().add(i)).store(out.as_mut_ptr().add(i)) };
        }
        for (out, &v) in out[whole..].iter_mut().zip(&row[whole..]) {
            *out = f64::from(v);
        }
        out[row.len()..row.len().next_multiple_of(LANES)].fill(0.0);
    }
    columns.len().div_ceil(LANES)
}

/// Adds the eight lanes of a pair.
#[inline(always)]
fn fold(lanes: &[f64]) -> f64 {
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

/// The lower triangle of inner products over some columns.
pub(super) struct Products<'a> {
    pub(super) rows: &'a [&'a [f32]],
    pub(super) columns: std::ops::Range<usize>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for Products<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<M: Machine>(self) -> Vec<f64> {
        // A tile, its column rows and one value more fill the registers.
        if M::NativeF64::REGISTERS == 32 {
            products::<M::NativeF64, 6, 4>(self.rows, self.columns, self.scratch)
        } else {
            products::<M::NativeF64, 4, 3>(self.rows, self.columns, self.scratch)
        }
    }
}

/// Rows of a band: their part of a panel stays in the second cache while all tiles against them run.
/// A multiple of every tile's sides.
const BAND: usize = 132;

/// The tiles of the lower triangle, band by band: `(i, rows, j)` for rows `i..i + rows` against `j..j + C`.
#[inline(always)]
fn tiles<const R: usize, const C: usize>(n: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    const { assert!(BAND.is_multiple_of(R) && BAND.is_multiple_of(C)) };
    (0..n).step_by(BAND).flat_map(move |band| {
        (band..n).step_by(R).flat_map(move |i| {
            let end = n.min(i + R).min(band + BAND);
            (band..end).step_by(C).map(move |j| (i, R.min(n - i), j))
        })
    })
}

#[inline(always)]
fn products<N: NativeF64, const R: usize, const C: usize>(
    rows: &[&[f32]],
    columns: std::ops::Range<usize>,
    scratch: &mut Scratch,
) -> Vec<f64> {
    let n = rows.len();
    let (panel, lanes) = scratch.two(n * STRIDE, tiles::<R, C>(n).count() * R * C * LANES);
    lanes.fill(0.0);
    for start in columns.clone().step_by(WIDTH) {
        let groups = fill::<N>(rows, start..columns.end.min(start + WIDTH), panel);
        for ((i, count, j), lanes) in tiles::<R, C>(n).zip(lanes.chunks_exact_mut(R * C * LANES)) {
            // Rows behind the last stand for themselves again; what they give is not read.
            let row = |k: usize| k.min(n - 1) * STRIDE;
            let b: [&[f64]; C] = std::array::from_fn(
                #[inline(always)]
                |c| &panel[row(j + c)..][..WIDTH],
            );
            let a: [&[f64]; R] = std::array::from_fn(
                #[inline(always)]
                |r| &panel[row(i + r)..][..WIDTH],
            );
            match count {
                1 => tile::<N, 1, R, C>(a, b, groups, lanes),
                2 => tile::<N, 2, R, C>(a, b, groups, lanes),
                3 => tile::<N, 3, R, C>(a, b, groups, lanes),
                4 => tile::<N, 4, R, C>(a, b, groups, lanes),
                5 if R > 5 => tile::<N, 5, R, C>(a, b, groups, lanes),
                _ => tile::<N, R, R, C>(a, b, groups, lanes),
            }
        }
    }
    let mut triangle = vec![0f64; n * (n + 1) / 2];
    for ((i, count, j), lanes) in tiles::<R, C>(n).zip(lanes.chunks_exact(R * C * LANES)) {
        for r in i..i + count {
            for c in j..(j + C).min(r + 1) {
                triangle[r * (r + 1) / 2 + c] = fold(&lanes[((r - i) * C + c - j) * LANES..][..LANES]);
            }
        }
    }
    triangle
}

/// `lanes[r][c] += a_r * b_c` over the groups of a panel, for the first `K` of `R` rows.
#[inline(always)]
fn tile<N: NativeF64, const K: usize, const R: usize, const C: usize>(
    a: [&[f64]; R],
    b: [&[f64]; C],
    groups: usize,
    lanes: &mut [f64],
) {
    assert!(K <= R && groups * LANES <= WIDTH && lanes.len() == R * C * LANES);
    assert!(a.iter().chain(&b).all(|row| row.len() == WIDTH));
    for part in (0..LANES).step_by(N::LANES) {
        // SAFETY: part + LANES <= 8, so every address lies in the group of a row (groups * 8 <= WIDTH) or of a
        // pair ((K - 1) C + C - 1 < R C), as asserted; the machine was seen (see `isa`).
        unsafe {
            let at = lanes.as_mut_ptr().add(part);
            let mut sums = [[N::splat(0.0); C]; K];
            for r in 0..K {
                for c in 0..C {
                    sums[r][c] = N::load(at.add((r * C + c) * LANES));
                }
            }
            for g in 0..groups {
                let offset = g * LANES + part;
                let mut y = [N::splat(0.0); C];
                for c in 0..C {
                    y[c] = N::load(b[c].as_ptr().add(offset));
                }
                for r in 0..K {
                    let x = N::load(a[r].as_ptr().add(offset));
                    for c in 0..C {
                        sums[r][c] = x.mul_add(y[c], sums[r][c]);
                    }
                }
            }
            for r in 0..K {
                for c in 0..C {
                    sums[r][c].store(at.add((r * C + c) * LANES));
                }
            }
        }
    }
}

/// `sum (x - y)^2` over some columns for some pairs of rows.
struct Distances<'a> {
    rows: &'a [&'a [f32]],
    pairs: &'a [(usize, usize)],
    columns: std::ops::Range<usize>,
    scratch: &'a mut Scratch,
}

impl Kernel for Distances<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<M: Machine>(self) -> Vec<f64> {
        let (panel, lanes) = self.scratch.two(self.rows.len() * STRIDE, self.pairs.len() * LANES);
        lanes.fill(0.0);
        for start in self.columns.clone().step_by(WIDTH) {
            let end = self.columns.end.min(start + WIDTH);
            let groups = fill::<M::NativeF64>(self.rows, start..end, panel);
            let (fours, rest) = self.pairs.as_chunks::<4>();
            let (lanes, last) = lanes.split_at_mut(4 * LANES * fours.len());
            for (pairs, lanes) in fours.iter().zip(lanes.chunks_exact_mut(4 * LANES)) {
                apart::<M::NativeF64, 4>(panel, pairs, groups, lanes);
            }
            for (pair, lanes) in rest.iter().zip(last.chunks_exact_mut(LANES)) {
                apart::<M::NativeF64, 1>(panel, &[*pair], groups, lanes);
            }
        }
        lanes.chunks_exact(LANES).map(fold).collect()
    }
}

/// `lanes[p] += (x - y)^2` over the groups of a panel, rounded after every operation.
#[inline(always)]
fn apart<N: NativeF64, const P: usize>(panel: &[f64], pairs: &[(usize, usize); P], groups: usize, lanes: &mut [f64]) {
    assert!(groups * LANES <= WIDTH && lanes.len() == P * LANES);
    let x: [&[f64]; P] = std::array::from_fn(
        #[inline(always)]
        |p| &panel[pairs[p].0 * STRIDE..][..WIDTH],
    );
    let y: [&[f64]; P] = std::array::from_fn(
        #[inline(always)]
        |p| &panel[pairs[p].1 * STRIDE..][..WIDTH],
    );
    for part in (0..LANES).step_by(N::LANES) {
        // SAFETY: part + LANES <= 8, so every address lies in a group of a row (groups * 8 <= WIDTH) or of a pair,
        // as asserted; the machine was seen (see `isa`).
        unsafe {
            let at = lanes.as_mut_ptr().add(part);
            let mut sums = [N::splat(0.0); P];
            for p in 0..P {
                sums[p] = N::load(at.add(p * LANES));
            }
            for g in 0..groups {
                let offset = g * LANES + part;
                for p in 0..P {
                    let gap = N::load(x[p].as_ptr().add(offset)).sub(N::load(y[p].as_ptr().add(offset)));
                    sums[p] = sums[p].add(gap.mul(gap));
                }
            }
            for p in 0..P {
                sums[p].store(at.add(p * LANES));
            }
        }
    }
}
