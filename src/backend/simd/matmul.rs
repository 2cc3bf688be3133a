//! Products of matrices for training on the processor: small ones, in shapes that a library would pack in vain.
//!
//! Two forms are enough for linear layers and convolutions, forward and backward. [`Combine`] adds multiples of rows,
//! [`Correlate`] takes inner products of rows; where the rows of the right factor begin is a table, so that the
//! overlapping windows of a convolution are read where they lie. On the caller's thread.
//!
//! Every number is one chain of fused multiplications and additions in the order of the index summed over (in sixteen
//! lanes for [`Correlate`]), whatever else is computed beside it: a sample's bits do not depend on its batch, on the
//! threads or on the instruction set, except on `portable`, which rounds twice.

mod combine;
mod correlate;
mod smooth;
#[cfg(test)]
mod tests;

use self::combine::Combination;
use self::correlate::Correlation;
pub(crate) use self::smooth::{Norm, NormGradient, Visible};
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;

/// Lanes that an inner product is summed in.
const LANES: usize = 16;

/// `out[r * out_step + c] += sum_k left[r * left_steps.0 + k * left_steps.1] * right[starts[k] + c]`.
pub(crate) struct Combine<'a> {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Columns of the result.
    pub(crate) columns: usize,
    /// From one row of the result to the next, at least `columns`.
    pub(crate) out_step: usize,
    /// The left factor.
    pub(crate) left: &'a [f32],
    /// From row to row and from term to term in it.
    pub(crate) left_steps: (usize, usize),
    /// The right factor.
    pub(crate) right: &'a [f32],
    /// Where its rows begin, one a term of the sums.
    pub(crate) starts: &'a [u32],
}

/// `out[r * out_step + c] += sum_s sum_p left[s * left_sample + r * left_step + p] * right[s * right_sample + starts[c] + p]`.
pub(crate) struct Correlate<'a> {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// From one row of the result to the next, at least `starts.len()`.
    pub(crate) out_step: usize,
    /// The left factor.
    pub(crate) left: &'a [f32],
    /// From row to row in it.
    pub(crate) left_step: usize,
    /// From sample to sample in it.
    pub(crate) left_sample: usize,
    /// The right factor.
    pub(crate) right: &'a [f32],
    /// From sample to sample in it.
    pub(crate) right_sample: usize,
    /// Where its rows begin, one a column of the result.
    pub(crate) starts: &'a [u32],
    /// Length of the rows; of several samples, a multiple of 16.
    pub(crate) length: usize,
    /// Samples that are summed over.
    pub(crate) samples: usize,
}

/// The products on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MatMul(Dispatch);

impl MatMul {
    /// On the instruction set of [`super::Simd::new`].
    pub(crate) fn new() -> Self {
        Self(super::Simd::new().dispatch)
    }

    /// See [`Combine`].
    pub(crate) fn combine(self, out: &mut [f32], job: &Combine<'_>) {
        let (rows, columns, terms) = (job.rows, job.columns, job.starts.len());
        if rows == 0 || columns == 0 || terms == 0 {
            return;
        }
        let last = job.starts.iter().fold(0, |most, &start| most.max(start)) as usize;
        assert!(job.out_step >= columns && out.len() >= (rows - 1) * job.out_step + columns, "the result");
        assert!(job.left.len() > (rows - 1) * job.left_steps.0 + (terms - 1) * job.left_steps.1, "the left factor");
        assert!(job.right.len() >= last + columns, "the right factor");
        self.0.run(Combination { out, job });
    }

    /// See [`Correlate`].
    pub(crate) fn correlate(self, out: &mut [f32], job: &Correlate<'_>) {
        let (rows, columns, samples) = (job.rows, job.starts.len(), job.samples);
        if rows == 0 || columns == 0 || samples == 0 {
            return;
        }
        let last = job.starts.iter().fold(0, |most, &start| most.max(start)) as usize;
        assert!(job.out_step >= columns && out.len() >= (rows - 1) * job.out_step + columns, "the result");
        let left = (samples - 1) * job.left_sample + (rows - 1) * job.left_step + job.length;
        let right = (samples - 1) * job.right_sample + last + job.length;
        assert!(job.left.len() >= left && job.right.len() >= right, "the factors");
        assert!(samples == 1 || job.length.is_multiple_of(LANES), "the length of rows");
        self.0.run(Correlation { out, job });
    }

    /// `out[c * rows + r] = matrix[r * step + c]`, for as many columns c as the result has.
    pub(crate) fn turn(self, out: &mut [f32], matrix: &[f32], rows: usize, step: usize) {
        assert!(rows > 0 && matrix.len() >= (rows - 1) * step + out.len() / rows, "the matrix");
        self.0.run(Turn { out, matrix, rows, step });
    }

    /// `w += scale * g`, value by value; the shorter one of both ends it.
    pub(crate) fn add_scaled(self, w: &mut [f32], g: &[f32], scale: f32) {
        self.0.run(Scaled { w, g, scale });
    }

    /// `max(z, 0)` in place, NaN stays.
    pub(crate) fn relu(self, z: &mut [f32]) {
        self.0.run(Relu { z });
    }

    /// Zeros in `g` where relu gave 0, as it does not where it gave NaN.
    pub(crate) fn relu_gradient(self, g: &mut [f32], relu: &[f32]) {
        self.0.run(ReluGradient { g, relu });
    }
}

struct Turn<'a> {
    out: &'a mut [f32],
    matrix: &'a [f32],
    rows: usize,
    step: usize,
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let columns = self.out.len() / self.rows;
        // In squares, so that what is read and what is written stays in the first cache.
        for first_row in (0..self.rows).step_by(LANES) {
            let end_row = self.rows.min(first_row + LANES);
            for c in 0..columns {
                for r in first_row..end_row {
                    self.out[c * self.rows + r] = self.matrix[r * self.step + c];
                }
            }
        }
    }
}

struct Scaled<'a> {
    w: &'a mut [f32],
    g: &'a [f32],
    scale: f32,
}

impl Kernel for Scaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (w, &g) in self.w.iter_mut().zip(self.g) {
            *w += self.scale * g;
        }
    }
}

struct Relu<'a> {
    z: &'a mut [f32],
}

impl Kernel for Relu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for z in self.z {
            *z = if *z <= 0.0 { 0.0 } else { *z };
        }
    }
}

struct ReluGradient<'a> {
    g: &'a mut [f32],
    relu: &'a [f32],
}

impl Kernel for ReluGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (g, &y) in self.g.iter_mut().zip(self.relu) {
            *g = if y <= 0.0 { 0.0 } else { *g };
        }
    }
}
