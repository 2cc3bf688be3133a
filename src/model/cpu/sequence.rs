//! Layers of sequences: the tables of tokens and positions, norms, one vector out of many.

use std::borrow::Cow;

use super::ghost::{Factor, OneHot, View};
use super::network::{Layout, Scratch, is_frozen, split, split_mut};
use crate::backend::simd::matmul::{MatMul, Norm, NormGradient};
use crate::model::architecture::{ParameterSpan, PositionPool};

/// Vectors of tokens and of their positions.
#[derive(Clone, Debug)]
pub(super) struct Embedding {
    pub(super) tokens: ParameterSpan,
    pub(super) positions: ParameterSpan,
}

impl Embedding {
    fn width(&self) -> usize {
        self.tokens.outputs
    }

    /// The place of a token's row. Tokens were checked when the batch came in.
    fn row(&self, token: f32) -> std::ops::Range<usize> {
        let start = token as usize * self.width();
        start..start + self.width()
    }

    /// The tokens of the pass.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        Scratch { winners: vec![0; samples * self.positions.inputs], ..Scratch::default() }
    }

    pub(super) fn forward(&self, kernels: MatMul, weights: &[f32], read: &[f32], out: &mut [f32], tokens: &mut [u32]) {
        tokens.iter_mut().zip(read).for_each(|(token, &x)| *token = x as u32);
        let (table, _) = split(&self.tokens, weights);
        let (positions, _) = split(&self.positions, weights);
        let samples = read.chunks_exact(self.positions.inputs).zip(out.chunks_exact_mut(positions.len()));
        for (tokens, out) in samples {
            out.copy_from_slice(positions);
            for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(self.width())) {
                kernels.add_scaled(out, &table[self.row(token)], 1.0);
            }
        }
    }

    pub(super) fn add_gradient(&self, kernels: MatMul, read: &[f32], given: &[f32], out: &mut [f32]) {
        if is_frozen(&self.tokens, out) {
            return;
        }
        let (table, _) = split_mut(&self.tokens, out);
        for (&token, dz) in read.iter().zip(given.chunks_exact(self.width())) {
            kernels.add_scaled(&mut table[self.row(token)], dz, 1.0);
        }
        let (positions, _) = split_mut(&self.positions, out);
        for dz in given.chunks_exact(positions.len()) {
            kernels.add_scaled(positions, dz, 1.0);
        }
    }
}

impl Embedding {
    /// What the gradient of one sample is made of: the rows of its tokens, and those of the positions themselves.
    pub(super) fn factors<'w>(&'w self, tokens: &'w [u32], dz: &'w [f32]) -> [Factor<'w>; 2] {
        let outputs = self.width();
        let of_tokens = OneHot { start: self.tokens.weight.start, outputs, tokens, dz: View::rows(dz, outputs) };
        let start = self.positions.weight.start;
        [Factor::OneHot(of_tokens), Factor::Dense { start, values: Cow::Borrowed(dz) }]
    }
}

/// The norm of every vector.
#[derive(Clone, Debug)]
pub(super) struct LayerNorm {
    pub(super) span: ParameterSpan,
    pub(super) epsilon: f32,
    /// Values of a sample.
    pub(super) sample: usize,
}

impl LayerNorm {
    /// `first`: vectors without mean and of variance 1; `second`: what they were multiplied by.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        let values = samples * self.sample;
        Scratch { first: vec![0.0; values], second: vec![0.0; values / self.span.outputs], ..Scratch::default() }
    }

    pub(super) fn forward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        read: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (gain, bias) = split(&self.span, weights);
        let bias = bias.unwrap_or_default();
        let Scratch { first: hats, second: roots, .. } = scratch;
        kernels.norm(Norm { read, out, hats, roots, gain, bias, epsilon: self.epsilon });
    }

    pub(super) fn backward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        given: &[f32],
        into: &mut [f32],
        scratch: &Scratch,
    ) {
        let (gain, _) = split(&self.span, weights);
        let Scratch { first: hats, second: roots, .. } = scratch;
        kernels.norm_gradient(NormGradient { given, into, hats, roots, gain });
    }

    /// `dgain = sum given * hat`, `dbias = sum given`; `hats` are those of the samples of `given`.
    pub(super) fn add_gradient(&self, kernels: MatMul, hats: &[f32], given: &[f32], out: &mut [f32]) {
        if is_frozen(&self.span, out) {
            return;
        }
        let width = self.span.outputs;
        let (gain, bias) = split_mut(&self.span, out);
        for (hats, given) in hats.chunks_exact(width).zip(given.chunks_exact(width)) {
            for ((gain, &hat), &g) in gain.iter_mut().zip(hats).zip(given) {
                *gain += hat * g;
            }
        }
        if let Some(bias) = bias {
            for given in given.chunks_exact(width) {
                kernels.add_scaled(bias, given, 1.0);
            }
        }
    }
}

impl LayerNorm {
    /// The gradient of one sample by gain and bias.
    pub(super) fn factor(&self, hats: &[f32], dz: &[f32]) -> Factor<'static> {
        let width = self.span.outputs;
        let mut values = vec![0.0; 2 * width];
        let (gain, bias) = values.split_at_mut(width);
        for (hats, dz) in hats.chunks_exact(width).zip(dz.chunks_exact(width)) {
            for (((gain, bias), &hat), &g) in gain.iter_mut().zip(&mut *bias).zip(hats).zip(dz) {
                *gain += hat * g;
                *bias += g;
            }
        }
        Factor::Dense { start: self.span.weight.start, values: Cow::Owned(values) }
    }
}

/// One vector out of those of all positions.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    pub(super) pool: PositionPool,
    /// What is read.
    pub(super) from: Layout,
}

impl Positions {
    /// How many vectors count.
    fn count(&self, length: Option<&usize>) -> usize {
        match self.pool {
            PositionPool::First => 1,
            // A sequence of padding alone has the vector of its first position.
            PositionPool::Mean => length.copied().unwrap_or(self.from.shape.height).max(1),
        }
    }

    /// `lengths`: of each sequence, without its padding; empty where all are whole.
    pub(super) fn forward(&self, kernels: MatMul, (read, lengths): (&[f32], &[usize]), out: &mut [f32]) {
        let width = self.from.shape.width;
        out.fill(0.0);
        let samples = read.chunks_exact(self.from.sample).zip(out.chunks_exact_mut(width));
        for (s, (read, out)) in samples.enumerate() {
            let count = self.count(lengths.get(s));
            for vector in read.chunks_exact(width).take(count) {
                kernels.add_scaled(out, vector, 1.0 / count as f32);
            }
        }
    }

    pub(super) fn backward(&self, (given, lengths): (&[f32], &[usize]), into: &mut [f32]) {
        let width = self.from.shape.width;
        into.fill(0.0);
        let samples = given.chunks_exact(width).zip(into.chunks_exact_mut(self.from.sample));
        for (s, (given, into)) in samples.enumerate() {
            let count = self.count(lengths.get(s));
            for vector in into.chunks_exact_mut(width).take(count) {
                vector.iter_mut().zip(given).for_each(|(d, &g)| *d = g / count as f32);
            }
        }
    }
}
