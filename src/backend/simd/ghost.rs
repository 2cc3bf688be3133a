//! Ghost clipping: norms of per-sample gradients, and their weighted sum as one product.
//!
//! Norms are taken in `f64`, where products are exact and sums run in a fixed order, so that their bits depend
//! neither on the instruction set nor on the threads. The sum is in `f32` with fused products (two roundings on
//! `portable`), in the order of the positions: its bits depend on whether the instruction set fuses.

use rayon::prelude::*;

use super::clip::energy;
use super::gram::{Products, Scratch};
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeF32, NativeF64};
use crate::backend::{Aligned, BackendError, check};
use crate::params::GhostParams;

/// Positions of a block of the sum: runs of `f32` sums end there.
const BLOCK: usize = 256;
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

/// Registers that tiles of products are made of, of either float type.
trait Cell: Copy {
    type Scalar: Copy + Default;
    const LANES: usize;
    unsafe fn load(x: *const Self::Scalar) -> Self;
    unsafe fn store(self, x: *mut Self::Scalar);
    fn splat(x: Self::Scalar) -> Self;
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn from_f32(x: f32) -> Self::Scalar;
}

/// A register of `f32`.
#[derive(Clone, Copy)]
struct Single<N>(N);

impl<N: NativeF32> Cell for Single<N> {
    type Scalar = f32;
    const LANES: usize = N::LANES;

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { N::load(x) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store(x) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(N::splat(x))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0.mul_add(b.0, c.0))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0))
    }

    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

/// A register of `f64`.
#[derive(Clone, Copy)]
struct Double<N>(N);

impl<N: NativeF64> Cell for Double<N> {
    type Scalar = f64;
    const LANES: usize = N::LANES;

    #[inline(always)]
    unsafe fn load(x: *const f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { N::load(x) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f64) {
        // SAFETY: the caller's promise.
        unsafe { self.0.store(x) };
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self(N::splat(x))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0.mul_add(b.0, c.0))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0))
    }

    #[inline(always)]
    fn from_f32(x: f32) -> f64 {
        f64::from(x)
    }
}

/// `c[r][l] += sum_t a[t][r] b[t][l]` for a tile of `R` rows and two registers of columns; `a` and `b` hold the
/// `R` and `2 LANES` values of a position one after the other, `c` has rows of `stride`.
#[inline(always)]
fn tile<C: Cell, const R: usize>(a: &[C::Scalar], b: &[C::Scalar], c: &mut [C::Scalar], stride: usize) {
    let positions = a.len() / R;
    assert!(b.len() == positions * 2 * C::LANES && c.len() >= (R - 1) * stride + 2 * C::LANES);
    // SAFETY: every address lies in its slice, as asserted; the machine was seen (see `isa`).
    unsafe {
        let mut sums = [[C::splat(C::Scalar::default()); 2]; R];
        for t in 0..positions {
            let y0 = C::load(b.as_ptr().add(2 * t * C::LANES));
            let y1 = C::load(b.as_ptr().add((2 * t + 1) * C::LANES));
            for r in 0..R {
                let x = C::splat(*a.as_ptr().add(t * R + r));
                sums[r] = [x.mul_add(y0, sums[r][0]), x.mul_add(y1, sums[r][1])];
            }
        }
        for r in 0..R {
            for k in 0..2 {
                let at = c.as_mut_ptr().add(r * stride + k * C::LANES);
                C::load(at).add(sums[r][k]).store(at);
            }
        }
    }
}

/// Copies columns `start..start + W` of rows of `cols` into `out`, position by position, the values of position t
/// times `scale[t]` (or 1 behind the end of `scale`). What lies behind the last column is 1: the first such
/// column is the bias, the others are not read.
#[inline(always)]
fn strip<C: Cell, const W: usize>(x: &[f32], cols: usize, start: usize, scale: &[f32], out: &mut [C::Scalar]) {
    let there = cols.saturating_sub(start).min(W);
    let (out, _) = out.as_chunks_mut::<W>();
    for (t, (row, out)) in x.chunks_exact(cols).zip(out).enumerate() {
        let c = scale.get(t).copied().unwrap_or(1.0);
        let mut values = [1f32; W];
        if let Some(whole) = row.get(start..start + W) {
            values.copy_from_slice(whole);
        } else {
            values[..there].copy_from_slice(&row[start.min(cols)..]);
        }
        for (out, v) in out.iter_mut().zip(values) {
            *out = C::from_f32(c * v);
        }
    }
}

/// [`strip`] of two registers of columns.
#[inline(always)]
fn columns<C: Cell>(x: &[f32], cols: usize, start: usize, out: &mut [C::Scalar]) {
    match C::LANES {
        16 => strip::<C, 32>(x, cols, start, &[], out),
        8 => strip::<C, 16>(x, cols, start, &[], out),
        4 => strip::<C, 8>(x, cols, start, &[], out),
        _ => strip::<C, 4>(x, cols, start, &[], out),
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
            columns::<Double<N>>(self.g, outputs, s * width, right);
        }
        for (s, c) in gradient.chunks_exact_mut(R * stride).enumerate() {
            strip::<Double<N>, R>(self.a, inputs, s * R, &[], left);
            for (j, right) in right.chunks_exact(positions * width).enumerate() {
                tile::<Double<N>, R>(left, right, &mut c[j * width..], stride);
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
pub(super) fn sum(
    dispatch: Dispatch,
    a: &[f32],
    g: &[f32],
    coefficients: &[f32],
    p: &GhostParams,
) -> Result<Vec<f32>, BackendError> {
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let rows = inputs + p.bias as usize;
    let shape = dispatch.run(Shape);
    let stride = outputs.next_multiple_of(shape.cols);
    let mut out = Aligned::<f32>::zeroed(rows.next_multiple_of(shape.rows) * stride);
    let mut right = Aligned::<f32>::zeroed(stride * BLOCK);
    let scales: Vec<f32> = coefficients.iter().flat_map(|&c| std::iter::repeat_n(c, p.positions as usize)).collect();
    let alone = a.len().saturating_mul(outputs) < SMALL;
    let blocks = a.chunks(BLOCK * inputs).zip(g.chunks(BLOCK * outputs)).zip(scales.chunks(BLOCK));
    for ((a, g), scale) in blocks {
        let wide = shape.cols * scale.len();
        let right = &mut right[..stride * scale.len()];
        let pack = |(s, right): (usize, &mut [f32])| dispatch.run(Pack { g, outputs, strip: s, right });
        if alone {
            right.chunks_exact_mut(wide).enumerate().for_each(pack);
        } else {
            right.par_chunks_exact_mut(wide).enumerate().for_each(pack);
        }
        let right = &*right;
        let one = |(s, out): (usize, &mut [f32])| dispatch.run(Strip { a, inputs, scale, strip: s, right, out });
        if alone {
            out.chunks_exact_mut(shape.rows * stride).enumerate().for_each(one);
        } else {
            out.par_chunks_exact_mut(shape.rows * stride).enumerate().for_each(one);
        }
    }
    let sum: Vec<f32> = out.chunks_exact(stride).take(rows).flat_map(|row| &row[..outputs]).copied().collect();
    // A NaN or an infinity stays one to the end, as no coefficient turns it into a number.
    if sum.iter().any(|v| !v.is_finite()) {
        check::finite_samples(a, g, p)?;
        check::within_f32(&sum)?;
    }
    Ok(sum)
}

/// Rows and columns of a tile of the sum.
struct Shape;

struct TileShape {
    rows: usize,
    cols: usize,
}

impl Kernel for Shape {
    type Output = TileShape;

    #[inline(always)]
    fn run<M: Machine>(self) -> TileShape {
        let rows = if M::NativeF64::REGISTERS == 32 { 12 } else { 6 };
        TileShape { rows, cols: 2 * M::NativeF32::LANES }
    }
}

/// One strip of columns of the output gradients, packed for the tiles.
struct Pack<'a> {
    g: &'a [f32],
    outputs: usize,
    strip: usize,
    right: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let start = self.strip * 2 * M::NativeF32::LANES;
        columns::<Single<M::NativeF32>>(self.g, self.outputs, start, self.right);
    }
}

/// One strip of rows of the sum over the positions of a block.
struct Strip<'a> {
    a: &'a [f32],
    inputs: usize,
    scale: &'a [f32],
    strip: usize,
    right: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Strip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        if M::NativeF64::REGISTERS == 32 {
            self.tiled::<M::NativeF32, 12>();
        } else {
            self.tiled::<M::NativeF32, 6>();
        }
    }
}

impl Strip<'_> {
    #[inline(always)]
    fn tiled<N: NativeF32, const R: usize>(self) {
        let (positions, stride) = (self.scale.len(), self.out.len() / R);
        let mut left = [0f32; 12 * BLOCK];
        let left = &mut left[..R * positions];
        strip::<Single<N>, R>(self.a, self.inputs, self.strip * R, self.scale, left);
        for (j, right) in self.right.chunks_exact(positions * 2 * N::LANES).enumerate() {
            tile::<Single<N>, R>(left, right, &mut self.out[j * 2 * N::LANES..], stride);
        }
    }
}
