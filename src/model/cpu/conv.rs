//! Convolutions with stride 1, as products that read overlapping windows where they lie.
//!
//! The input is copied into a grid: maps with their zeros around them, `W` values a row. Shifting a window by (i, j) is
//! an offset of `i W + j` there, so that output row y, column x is `sum_cij W[o][c][i][j] grid[c][(y W + x) + (i W + j)]`
//! for every place `y W + x` at once, one after the other. The last `kernel - 1` places of each row wrap around: they are
//! computed, and are nobody's value. What is summed for a place is in the order of c, i and j.

use std::ops::Range;

use super::ghost::{Columns, Outer, View};
use super::network::{Layout, Scratch, is_frozen, split, split_mut};
use crate::backend::simd::matmul::{Combine, Correlate, MatMul};
use crate::model::architecture::{ParameterSpan, Shape};

/// Places of a map are computed in blocks of so many: the widest register, and what inner products take.
const BLOCK: usize = 16;

/// A convolution.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    span: ParameterSpan,
    kernel: usize,
    /// What is read.
    from: Layout,
    /// What is written: as wide as the grid.
    pub(super) to: Layout,
    /// The grid, with some zeros behind the last map, which windows of wrapped places reach into.
    grid: Layout,
    /// Where the first value lies in the grid.
    corner: usize,
    /// Offsets (c, i, j) into the grid.
    windows: Vec<u32>,
    /// Where the output channels of a sample begin.
    planes: Vec<u32>,
    /// Whether anybody asks for the gradient by the input.
    passes_on: bool,
}

impl Conv {
    pub(super) fn new(
        span: ParameterSpan,
        from: Layout,
        (kernel, padding): (usize, usize),
        output: Shape,
        passes_on: bool,
    ) -> Self {
        let read = from.shape;
        let (high, wide) = (read.height + 2 * padding, read.width + 2 * padding);
        let shape = Shape { channels: read.channels, height: high, width: wide };
        let plane = ((output.height - 1) * wide + output.width).next_multiple_of(BLOCK);
        // At least as large as what is computed at once, so that the maps' parts of it are apart in `backward`.
        let grid_plane = (high * wide).max(plane);
        // The last window of the last map begins so far behind the map, and all windows are `plane` long.
        let reach = (kernel - 1) * (wide + 1);
        let grid = Layout { shape, row: wide, plane: grid_plane, sample: read.channels * grid_plane + reach };
        let to = Layout { shape: output, row: wide, plane, sample: output.channels * plane };
        let window = |c: usize, i: usize, j: usize| (c * grid.plane + i * wide + j) as u32;
        let windows = (0..read.channels)
            .flat_map(|c| (0..kernel).flat_map(move |i| (0..kernel).map(move |j| (c, i, j))))
            .map(|(c, i, j)| window(c, i, j))
            .collect();
        let planes = (0..output.channels).map(|o| (o * plane) as u32).collect();
        Self { span, kernel, from, to, grid, corner: padding * wide + padding, windows, planes, passes_on }
    }

    /// The grids of all samples, the gradient by that of one, and the weight in the order that its sums take.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        let backward = |len| vec![0.0; if self.passes_on { len } else { 0 }];
        let (second, third) = (backward(self.grid.sample), backward(self.span.weight.len()));
        Scratch { first: vec![0.0; samples * self.grid.sample], second, third, ..Scratch::default() }
    }

    /// Pairs of places of a row: in the grid and in what is read.
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        let inner = Layout { shape: self.from.shape, ..self.grid };
        let corner = self.corner;
        inner.rows().map(move |start| start + corner).zip(self.from.rows())
    }

    pub(super) fn forward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        read: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (weight, bias) = split(&self.span, weights);
        let width = self.from.shape.width;
        let samples = read.chunks_exact(self.from.sample).zip(out.chunks_exact_mut(self.to.sample));
        for ((read, out), grid) in samples.zip(scratch.first.chunks_exact_mut(self.grid.sample)) {
            for (to, from) in self.rows() {
                grid[to..to + width].copy_from_slice(&read[from..from + width]);
            }
            for (o, plane) in out.chunks_exact_mut(self.to.plane).enumerate() {
                plane.fill(bias.map_or(0.0, |bias| bias[o]));
            }
            let job = Combine {
                rows: self.span.outputs,
                columns: self.to.plane,
                out_step: self.to.plane,
                left: weight,
                left_steps: (self.span.inputs, 1),
                right: grid,
                starts: &self.windows,
            };
            kernels.combine(out, &job);
        }
    }

    /// `da[c][y + i][x + j] += sum_o W[o][c][i][j] dz[o][y][x]` over all (i, j), on the grid.
    pub(super) fn backward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        given: &[f32],
        into: &mut [f32],
        scratch: &mut Scratch,
    ) {
        if !self.passes_on {
            return;
        }
        let (weight, _) = split(&self.span, weights);
        let (taps, width) = (self.kernel * self.kernel, self.from.shape.width);
        let (channels, outputs) = (self.from.shape.channels, self.span.outputs);
        let Scratch { second: grid, third: turned, .. } = scratch;
        // `[i, j, o, c]`: what a sum takes next lies beside what it took.
        for (o, weight) in weight.chunks_exact(channels * taps).enumerate() {
            for (c, weight) in weight.chunks_exact(taps).enumerate() {
                for (tap, &w) in weight.iter().enumerate() {
                    turned[(tap * outputs + o) * channels + c] = w;
                }
            }
        }
        for (given, into) in given.chunks_exact(self.to.sample).zip(into.chunks_exact_mut(self.from.sample)) {
            grid.fill(0.0);
            // The first `taps` windows are those of the first map.
            for (&window, turned) in self.windows[..taps].iter().zip(turned.chunks_exact(outputs * channels)) {
                let job = Combine {
                    rows: channels,
                    columns: self.to.plane,
                    out_step: self.grid.plane,
                    left: turned,
                    left_steps: (1, channels),
                    right: given,
                    starts: &self.planes,
                };
                kernels.combine(&mut grid[window as usize..], &job);
            }
            for (from, to) in self.rows() {
                into[to..to + width].copy_from_slice(&grid[from..from + width]);
            }
        }
    }

    /// `dW[o][c][i][j] = sum_s sum_yx dz[s][o][y][x] a[s][c][y + i][x + j]`, `db_o = sum_s sum_yx dz[s][o][y][x]`. Wrapped
    /// places have no gradient.
    pub(super) fn add_gradient(
        &self,
        kernels: MatMul,
        samples: Range<usize>,
        given: &[f32],
        scratch: &Scratch,
        out: &mut [f32],
    ) {
        if is_frozen(&self.span, out) {
            return;
        }
        let (weight, bias) = split_mut(&self.span, out);
        let job = Correlate {
            rows: self.span.outputs,
            out_step: self.span.inputs,
            left: given,
            left_step: self.to.plane,
            left_sample: self.to.sample,
            right: &scratch.first[samples.start * self.grid.sample..samples.end * self.grid.sample],
            right_sample: self.grid.sample,
            starts: &self.windows,
            length: self.to.plane,
            samples: samples.len(),
        };
        kernels.correlate(weight, &job);
        if let Some(bias) = bias {
            for sample in given.chunks_exact(self.to.sample) {
                for (bias, plane) in bias.iter_mut().zip(sample.chunks_exact(self.to.plane)) {
                    *bias += sum(plane);
                }
            }
        }
    }

    /// What the gradient by one sample is made of: a window and the channels' derivatives for every place that is not wrapped.
    pub(super) fn factor<'w>(&'w self, sample: usize, scratch: &'w Scratch, dz: &'w [f32]) -> Outer<'w> {
        let Shape { width, height, .. } = self.to.shape;
        let grid = &scratch.first[sample * self.grid.sample..(sample + 1) * self.grid.sample];
        let view = |values, places| View { values, width, row: self.to.row, columns: Columns::At(places) };
        let (a, dz) = (view(grid, &self.windows), view(dz, &self.planes));
        Outer { span: &self.span, turned: true, positions: width * height, a, dz }
    }
}

/// The sum of whole blocks, in as many lanes as a block has.
fn sum(values: &[f32]) -> f32 {
    let (blocks, _) = values.as_chunks::<BLOCK>();
    let mut lanes = [0f32; BLOCK];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &v)| *lane += v);
    }
    lanes.iter().sum()
}
