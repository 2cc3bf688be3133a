//! Linear layers, and the copy before them where rows have gaps.

use super::ghost::{Outer, View};
use super::network::{Layout, Scratch, is_frozen, split, split_mut};
use crate::backend::simd::matmul::{Combine, Correlate, MatMul};
use crate::model::architecture::ParameterSpan;

/// `z = a W + b`, of a sample or of every position of one.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    span: ParameterSpan,
    /// Where the rows of W begin.
    starts: Vec<u32>,
    /// Whether anybody asks for the gradient by the input.
    passes_on: bool,
    /// Whether W is turned for that gradient, which is worth it for many rows.
    turns: bool,
}

/// Positions from which on W is turned. Not the rows of a pass: a sample's bits do not depend on its batch.
pub(super) const MANY_ROWS: usize = 16;

impl Linear {
    pub(super) fn new(span: ParameterSpan, passes_on: bool) -> Self {
        let starts = (0..span.inputs).map(|i| (i * span.outputs) as u32).collect();
        Self { span, starts, passes_on, turns: false }
    }

    /// The same for many positions, or few.
    pub(super) fn turning(self, turns: bool) -> Self {
        Self { turns, ..self }
    }

    /// Place for W turned.
    pub(super) fn scratch(&self) -> Scratch {
        let turned = vec![0.0; if self.turns && self.passes_on { self.span.weight.len() } else { 0 }];
        Scratch { turned, ..Scratch::default() }
    }

    pub(super) fn forward(&self, kernels: MatMul, weights: &[f32], a: &[f32], z: &mut [f32]) {
        let (_, bias) = split(&self.span, weights);
        for row in z.chunks_exact_mut(self.span.outputs) {
            match bias {
                Some(bias) => row.copy_from_slice(bias),
                None => row.fill(0.0),
            }
        }
        self.add_products(kernels, weights, a, z);
    }

    /// `z += a W`.
    pub(super) fn add_products(&self, kernels: MatMul, weights: &[f32], a: &[f32], z: &mut [f32]) {
        let (inputs, outputs) = (self.span.inputs, self.span.outputs);
        let (weight, _) = split(&self.span, weights);
        let job = Combine {
            rows: z.len() / outputs,
            columns: outputs,
            out_step: outputs,
            left: a,
            left_steps: (inputs, 1),
            right: weight,
            starts: &self.starts,
        };
        kernels.combine(z, &job);
    }

    /// `da_i = sum_o dz_o W[i][o]`.
    pub(super) fn backward(&self, kernels: MatMul, weights: &[f32], dz: &[f32], da: &mut [f32], turned: &mut [f32]) {
        da.fill(0.0);
        self.add_backward(kernels, weights, dz, da, turned);
    }

    /// The same, added to what is there. `turned` has room for W where it turns.
    pub(super) fn add_backward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        dz: &[f32],
        da: &mut [f32],
        turned: &mut [f32],
    ) {
        if !self.passes_on {
            return;
        }
        let (inputs, outputs) = (self.span.inputs, self.span.outputs);
        let (weight, _) = split(&self.span, weights);
        if self.turns {
            let turned = &mut turned[..weight.len()];
            kernels.turn(turned, weight, inputs, outputs);
            let starts: Vec<u32> = (0..outputs).map(|o| (o * inputs) as u32).collect();
            let job = Combine {
                rows: dz.len() / outputs,
                columns: inputs,
                out_step: inputs,
                left: dz,
                left_steps: (outputs, 1),
                right: turned,
                starts: &starts,
            };
            return kernels.combine(da, &job);
        }
        let job = Correlate {
            rows: dz.len() / outputs,
            out_step: inputs,
            left: dz,
            left_step: outputs,
            left_sample: 0,
            right: weight,
            right_sample: 0,
            starts: &self.starts,
            length: outputs,
            samples: 1,
        };
        kernels.correlate(da, &job);
    }

    /// `dW[i][o] = sum_s a_si dz_so`, `db_o = sum_s dz_so`.
    pub(super) fn add_gradient(&self, kernels: MatMul, a: &[f32], dz: &[f32], out: &mut [f32]) {
        if is_frozen(&self.span, out) {
            return;
        }
        let (inputs, outputs) = (self.span.inputs, self.span.outputs);
        let (weight, bias) = split_mut(&self.span, out);
        let starts: Vec<u32> = (0..dz.len() / outputs).map(|s| (s * outputs) as u32).collect();
        let job = Combine {
            rows: inputs,
            columns: outputs,
            out_step: outputs,
            left: a,
            left_steps: (1, inputs),
            right: dz,
            starts: &starts,
        };
        kernels.combine(weight, &job);
        if let Some(bias) = bias {
            for dz in dz.chunks_exact(outputs) {
                kernels.add_scaled(bias, dz, 1.0);
            }
        }
    }

    /// What the gradient by one sample is made of: its rows, and what the loss says of theirs.
    pub(super) fn factor<'w>(&'w self, a: &'w [f32], dz: &'w [f32]) -> Outer<'w> {
        let (inputs, outputs) = (self.span.inputs, self.span.outputs);
        let positions = dz.len() / outputs.max(1);
        Outer { span: &self.span, turned: false, positions, a: View::rows(a, inputs), dz: View::rows(dz, outputs) }
    }
}

/// Brings the rows of maps together.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    pub(super) from: Layout,
}

impl Gather {
    pub(super) fn forward(&self, read: &[f32], out: &mut [f32]) {
        self.rows(read.len()).zip(out.chunks_exact_mut(self.from.shape.width)).for_each(|(start, row)| {
            row.copy_from_slice(&read[start..start + row.len()]);
        });
    }

    pub(super) fn backward(&self, given: &[f32], into: &mut [f32]) {
        self.rows(into.len()).zip(given.chunks_exact(self.from.shape.width)).for_each(|(start, row)| {
            into[start..start + row.len()].copy_from_slice(row);
        });
    }

    /// Where the rows of all samples begin.
    fn rows(&self, len: usize) -> impl Iterator<Item = usize> {
        let from = self.from;
        (0..len / from.sample).flat_map(move |s| from.rows().map(move |start| s * from.sample + start))
    }
}
