//! Ghost clipping: norms of per-sample gradients, and their weighted sum as one product.
//!
//! Norms are taken in `f64`, where products are exact and sums run in a fixed order, so that their bits depend
//! neither on the instruction set nor on the threads. The sum is a plain product of matrices in `f32`, and that is
//! the crate `gemm`'s, which looks for the processor's instructions itself: bits depend on these, not on the threads.

use rayon::prelude::*;

use super::clip::energy;
use super::gram::{Products, Scratch};
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeF64};
use crate::backend::{BackendError, check};
use crate::params::GhostParams;

/// Positions of a block of the sum: runs of `f32` sums end there. The library adds up to 512 in one run.
const BLOCK: usize = 256;
/// Rows of the sum that one task takes.
const ROWS: usize = 128;
/// Products below which one thread does all.
const SMALL: usize = 1 << 18;

/// Squared norms of checked samples.
pub(super) fn norms(dispatch: Dispatch, a: &[f32], g: &[f32], p: &GhostParams) -> Result<Vec<f64>, BackendError> {
    let samples = Samples::new(p);
    let one = |scratch: &mut Scratch, i: usize| {
        let (a, g) = (&a[i * samples.a..][..samples.a], &g[i * samples.g..][..samples.g]);
        if p.positions == 1 {
            (energy(dispatch, a) + f64::from(p.bias)) * energy(dispatch, g)
        } else if p.materializes() {
            dispatch.run(Materialized { a, g, p, scratch })
        } else {
            products(dispatch, a, g, p, scratch)
        }
    };
    let count = p.samples as usize;
    let norms: Vec<f64> = if count * (samples.a + samples.g) * (p.positions as usize) < SMALL {
        let mut scratch = Scratch::default();
        (0..count).map(|i| one(&mut scratch, i)).collect()
    } else {
        (0..count).into_par_iter().map_init(Scratch::default, one).collect()
    };
    // A NaN or an infinity reaches the norm: times zero it is a NaN, and no square of finite f32 overflows f64
    // before the fourth power, which the bound on f32 leaves below 2^1024.
    if norms.iter().any(|norm| !norm.is_finite()) {
        check::finite_samples(a, g, p)?;
    }
    Ok(norms)
}

/// Elements of a sample.
struct Samples {
    a: usize,
    g: usize,
}

impl Samples {
    fn new(p: &GhostParams) -> Self {
        let positions = p.positions as usize;
        Self { a: positions * p.inputs as usize, g: positions * p.outputs as usize }
    }
}

/// `sum_tt' (<a_t, a_t'> + bias) <g_t, g_t'>`, at least 0.
fn products(dispatch: Dispatch, a: &[f32], g: &[f32], p: &GhostParams, scratch: &mut Scratch) -> f64 {
    let mut triangle = |x: &[f32], width: usize| {
        let rows: Vec<&[f32]> = x.chunks_exact(width).collect();
        dispatch.run(Products { rows: &rows, columns: 0..width, scratch })
    };
    let (aa, gg) = (triangle(a, p.inputs as usize), triangle(g, p.outputs as usize));
    let bias = f64::from(p.bias);
    let mut sum = 0.0;
    let mut start = 0;
    for t in 0..p.positions as usize {
        let terms = aa[start..=start + t].iter().zip(&gg[start..=start + t]).map(|(a, g)| (a + bias) * g);
        let (below, own) = terms.fold((0.0, 0.0), |(sum, last), term| (sum + last, term));
        sum += 2.0 * below + own;
        start += t + 1;
    }
    if sum < 0.0 { 0.0 } else { sum }
}

/// `c[r][l] += sum_t a[t][r] b[t][l]` for a tile of `R` rows and two registers of columns; `a` and `b` hold the
/// `R` and `2 LANES` values of a position one after the other, `c` has rows of `stride`.
#[inline(always)]
fn tile<N: NativeF64, const R: usize>(a: &[f64], b: &[f64], c: &mut [f64], stride: usize) {
    let positions = a.len() / R;
    assert!(b.len() == positions * 2 * N::LANES && c.len() >= (R - 1) * stride + 2 * N::LANES);
    // SAFETY: every address lies in its slice, as asserted; the machine was seen (see `isa`).
    unsafe {
        let mut sums = [[N::splat(0.0); 2]; R];
        for t in 0..positions {
            let y0 = N::load(b.as_ptr().add(2 * t * N::LANES));
            let y1 = N::load(b.as_ptr().add((2 * t + 1) * N::LANES));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = N::splat(*a.as_ptr().add(t * R + r));
                *sums = [x.mul_add(y0, sums[0]), x.mul_add(y1, sums[1])];
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (k, sum) in sums.iter().enumerate() {
                let at = c.as_mut_ptr().add(r * stride + k * N::LANES);
                N::load(at).add(*sum).store(at);
            }
        }
    }
}

/// Copies columns `start..start + W` of rows of `cols` into `out`, position by position. What lies behind the last
/// column is 1: the first such column is the bias, the others are not read.
#[inline(always)]
fn strip<const W: usize>(x: &[f32], cols: usize, start: usize, out: &mut [f64]) {
    let there = cols.saturating_sub(start).min(W);
    let (out, _) = out.as_chunks_mut::<W>();
    for (row, out) in x.chunks_exact(cols).zip(out) {
        let mut values = [1f32; W];
        if let Some(whole) = row.get(start..start + W) {
            values.copy_from_slice(whole);
        } else {
            values[..there].copy_from_slice(&row[start.min(cols)..]);
        }
        for (out, v) in out.iter_mut().zip(values) {
            *out = f64::from(v);
        }
    }
}

/// [`strip`] of two registers of columns.
#[inline(always)]
fn columns<N: NativeF64>(x: &[f32], cols: usize, start: usize, out: &mut [f64]) {
    match N::LANES {
        8 => strip::<16>(x, cols, start, out),
        4 => strip::<8>(x, cols, start, out),
        _ => strip::<4>(x, cols, start, out),
    }
}

/// `|sum_t a_t g_t^T|^2` of one sample from its gradient.
struct Materialized<'a> {
    a: &'a [f32],
    g: &'a [f32],
    p: &'a GhostParams,
    scratch: &'a mut Scratch,
}

impl Kernel for Materialized<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        if M::NativeF64::REGISTERS == 32 { self.tiled::<M::NativeF64, 12>() } else { self.tiled::<M::NativeF64, 6>() }
    }
}

impl Materialized<'_> {
    #[inline(always)]
    fn tiled<N: NativeF64, const R: usize>(self) -> f64 {
        let (positions, inputs, outputs) = (self.p.positions as usize, self.p.inputs as usize, self.p.outputs as usize);
        let rows = inputs + self.p.bias as usize;
        let (width, stride) = (2 * N::LANES, outputs.next_multiple_of(2 * N::LANES));
        let (packed, gradient) = self.scratch.two(positions * (R + stride), rows.next_multiple_of(R) * stride);
        let (left, right) = packed.split_at_mut(positions * R);
        gradient.fill(0.0);
        for (s, right) in right.chunks_exact_mut(positions * width).enumerate() {
            columns::<N>(self.g, outputs, s * width, right);
        }
        for (s, c) in gradient.chunks_exact_mut(R * stride).enumerate() {
            strip::<R>(self.a, inputs, s * R, left);
            for (j, right) in right.chunks_exact(positions * width).enumerate() {
                tile::<N, R>(left, right, &mut c[j * width..], stride);
            }
        }
        squares(gradient, rows, outputs, stride)
    }
}

/// Sum of the squares of a matrix, row by row in eight lanes.
#[inline(always)]
fn squares(x: &[f64], rows: usize, cols: usize, stride: usize) -> f64 {
    let mut lanes = [0f64; 8];
    for row in x.chunks_exact(stride).take(rows) {
        let (groups, rest) = row[..cols].as_chunks::<8>();
        for group in groups {
            for (lane, v) in lanes.iter_mut().zip(group) {
                *lane += v * v;
            }
        }
        for (lane, v) in lanes.iter_mut().zip(rest) {
            *lane += v * v;
        }
    }
    lanes.iter().sum()
}

/// The weighted sum of checked samples' gradients.
pub(super) fn sum(a: &[f32], g: &[f32], coefficients: &[f32], p: &GhostParams) -> Result<Vec<f32>, BackendError> {
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let mut out = vec![0f32; (inputs + p.bias as usize) * outputs];
    let (weights, bias) = out.split_at_mut(inputs * outputs);
    let scales: Vec<f32> = coefficients.iter().flat_map(|&c| std::iter::repeat_n(c, p.positions as usize)).collect();
    let alone = a.len().saturating_mul(outputs) < SMALL;
    let mut scaled = vec![0f32; scales.len().min(BLOCK) * outputs];
    let blocks = a.chunks(BLOCK * inputs).zip(g.chunks(BLOCK * outputs)).zip(scales.chunks(BLOCK));
    for ((a, g), scales) in blocks {
        let scaled = &mut scaled[..g.len()];
        let rows = scaled.chunks_exact_mut(outputs).zip(g.chunks_exact(outputs));
        for ((scaled, g), c) in rows.zip(scales) {
            scaled.iter_mut().zip(g).for_each(|(scaled, g)| *scaled = c * g);
        }
        let block = Block { a, inputs, g: scaled, outputs };
        if alone {
            weights.chunks_mut(ROWS * outputs).enumerate().for_each(|(i, rows)| block.add_to(i * ROWS, rows));
        } else {
            weights.par_chunks_mut(ROWS * outputs).enumerate().for_each(|(i, rows)| block.add_to(i * ROWS, rows));
        }
        block.add_to_bias(bias);
    }
    // A NaN or an infinity stays one to the end, as no coefficient turns it into a number.
    if out.iter().any(|v| !v.is_finite()) {
        check::finite_samples(a, g, p)?;
        check::within_f32(&out)?;
    }
    Ok(out)
}

/// Positions of the sum, at most [`BLOCK`]: activations, and output gradients times their coefficients.
struct Block<'a> {
    a: &'a [f32],
    inputs: usize,
    g: &'a [f32],
    outputs: usize,
}

impl Block<'_> {
    /// Adds rows of `A^T G` from `first` on to `rows`, on the caller's thread.
    fn add_to(&self, first: usize, rows: &mut [f32]) {
        let (count, positions) = (rows.len() / self.outputs, self.g.len() / self.outputs);
        let (wide, high) = (self.inputs as isize, self.outputs as isize);
        assert!(first + count <= self.inputs && self.a.len() == positions * self.inputs);
        assert!(rows.len() == count * self.outputs && self.g.len() == positions * self.outputs);
        // SAFETY: element (r, t) of the left factor is at `first + r + t inputs` of a, with first + r < inputs; those
        // of the right one and of the result are rows of `outputs`: all within their slices, as asserted, and `rows`
        // is borrowed for writing.
        unsafe {
            gemm::gemm(
                count,
                self.outputs,
                positions,
                rows.as_mut_ptr(),
                1,
                high,
                true,
                self.a.as_ptr().add(first),
                wide,
                1,
                self.g.as_ptr(),
                1,
                high,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// Adds the sum of the output gradients to the last row, if there is one.
    fn add_to_bias(&self, bias: &mut [f32]) {
        if bias.is_empty() {
            return;
        }
        let mut sum = vec![0f32; self.outputs];
        for g in self.g.chunks_exact(self.outputs) {
            sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
        bias.iter_mut().zip(sum).for_each(|(bias, sum)| *bias += sum);
    }
}
