//! Self-attention of several heads.

use std::ops::Range;

use super::ghost::Factor;
use super::linear::{Linear, MANY_ROWS};
use super::network::Scratch;
use crate::backend::simd::matmul::{Combine, MatMul, Visible};
use crate::model::architecture::ParameterSpan;

/// An attention over sequences of `positions` vectors.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    /// Query, key, value and output.
    maps: [Linear; 4],
    width: usize,
    heads: usize,
    causal: bool,
    /// Where the vectors of a sequence begin.
    starts: Vec<u32>,
    /// Where the rows of a head begin that is turned.
    turned: Vec<u32>,
    /// Beside the query and the value.
    low: Option<[LowRank; 2]>,
}

/// `scale (a A) B`.
#[derive(Clone, Debug)]
struct LowRank {
    down: Linear,
    up: Linear,
    rank: usize,
    scale: f32,
}

/// Where `count` rows of `step` values begin.
fn steps(count: usize, step: usize) -> Vec<u32> {
    (0..count).map(|k| (k * step) as u32).collect()
}

impl Attention {
    pub(super) fn new(
        spans: [ParameterSpan; 4],
        positions: usize,
        (width, heads, causal): (usize, usize, bool),
        passes_on: bool,
    ) -> Self {
        let [query, key, value, output] = spans;
        let map = |span, passes_on| Linear::new(span, passes_on).turning(positions >= MANY_ROWS);
        let maps = [map(query, passes_on), map(key, passes_on), map(value, passes_on), map(output, true)];
        let (starts, turned) = (steps(positions, width), steps(width / heads.max(1), positions));
        Self { maps, width, heads, causal, starts, turned, low: None }
    }

    /// The same with low-rank maps beside the query and the value: A and B of each.
    pub(super) fn with_lora(self, spans: [ParameterSpan; 4], scale: f32) -> Self {
        let [a_query, b_query, a_value, b_value] = spans;
        let low = |a: ParameterSpan, b| {
            let rank = a.outputs;
            let map = |span| Linear::new(span, true).turning(self.starts.len() >= MANY_ROWS);
            LowRank { down: map(a), up: map(b), rank, scale }
        };
        Self { low: Some([low(a_query, b_query), low(a_value, b_value)]), ..self }
    }

    /// Values of a sequence between the two factors of a low-rank map; 0 without.
    fn low(&self) -> usize {
        self.low.as_ref().map_or(0, |low| low[0].rank * self.starts.len())
    }

    /// Values of a sequence.
    fn sample(&self) -> usize {
        self.starts.len() * self.width
    }

    /// Weights of positions for positions, of a head.
    fn pairs(&self) -> usize {
        self.starts.len() * self.starts.len()
    }

    /// `first`: queries, keys and values; `second`: what the heads give; `third`: the weights of positions for positions;
    /// `fourth`: derivatives by the four, and by the weights of one head; `low`: between the factors of the two low-rank maps, and
    /// the derivatives by that; `turned`: a weight, or the keys or values of a head, turned.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        let plane = samples * self.sample();
        Scratch {
            first: vec![0.0; 3 * plane],
            second: vec![0.0; plane],
            third: vec![0.0; samples * self.heads * self.pairs()],
            fourth: vec![0.0; 4 * plane + self.pairs()],
            low: vec![0.0; 4 * samples * self.low()],
            turned: vec![0.0; self.width * self.width.max(self.starts.len())],
            winners: Vec::new(),
        }
    }

    /// Where each head of each sample begins in a plane, and in the weights of positions.
    fn each_head(&self, samples: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let (sample, head, pairs, heads) = (self.sample(), self.width / self.heads, self.pairs(), self.heads);
        (0..samples * heads)
            .map(move |k| (k / heads, k / heads * sample + k % heads * head, k * pairs..(k + 1) * pairs))
    }

    /// Rows of one factor times rows of another: `out[i][j] = sum left[i] right[j]` over a head.
    fn products(&self, kernels: MatMul, out: &mut [f32], left: &[f32], right: &[f32], turned: &mut [f32]) {
        let (positions, head) = (self.starts.len(), self.width / self.heads);
        out.fill(0.0);
        // Inner products of a head are short: sums of rows are faster, of what is turned.
        let turned = &mut turned[..head * positions];
        kernels.turn(turned, right, positions, self.width);
        let job = Combine {
            rows: positions,
            columns: positions,
            out_step: positions,
            left,
            left_steps: (self.width, 1),
            right: turned,
            starts: &self.turned,
        };
        kernels.combine(out, &job);
    }

    /// `out[i] += sum_j weights[i][j] right[j]` over a head; with `turned`, `weights[j][i]`.
    fn mix(&self, kernels: MatMul, out: &mut [f32], weights: &[f32], turned: bool, right: &[f32]) {
        let positions = self.starts.len();
        let job = Combine {
            rows: positions,
            columns: self.width / self.heads,
            out_step: self.width,
            left: weights,
            left_steps: if turned { (1, positions) } else { (positions, 1) },
            right,
            starts: &self.starts,
        };
        kernels.combine(out, &job);
    }

    fn scale(&self) -> f32 {
        1.0 / ((self.width / self.heads) as f32).sqrt()
    }

    /// `lengths`: of each sequence, without its padding; empty where all are whole.
    pub(super) fn forward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        (read, lengths): (&[f32], &[usize]),
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (size, positions) = (read.len(), self.starts.len());
        let plane = scratch.second.len();
        let (queries, rest) = scratch.first.split_at_mut(plane);
        let (keys, values) = rest.split_at_mut(plane);
        for (map, z) in self.maps.iter().zip([&mut *queries, &mut *keys, &mut *values]) {
            map.forward(kernels, weights, read, &mut z[..size]);
        }
        let mid = size / self.sample() * self.low();
        let planes = scratch.low.len() / 4;
        for (k, (low, z)) in self.low.iter().flatten().zip([&mut *queries, &mut *values]).enumerate() {
            let mid = &mut scratch.low[k * planes..k * planes + mid];
            low.down.forward(kernels, weights, read, mid);
            mid.iter_mut().for_each(|m| *m *= low.scale);
            low.up.add_products(kernels, weights, mid, &mut z[..size]);
        }
        scratch.second[..size].fill(0.0);
        for (sample, at, pairs) in self.each_head(size / self.sample()) {
            let shares = &mut scratch.third[pairs];
            self.products(kernels, shares, &queries[at..], &keys[at..], &mut scratch.turned);
            let length = lengths.get(sample).copied().unwrap_or(positions);
            kernels.softmax(shares, positions, Visible { length, causal: self.causal }, self.scale());
            self.mix(kernels, &mut scratch.second[at..], shares, false, &values[at..]);
        }
        self.maps[3].forward(kernels, weights, &scratch.second[..size], out);
    }

    pub(super) fn backward(
        &self,
        kernels: MatMul,
        weights: &[f32],
        given: &[f32],
        into: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (size, plane) = (given.len(), scratch.second.len());
        let Scratch { first, third, fourth, low: between, turned, .. } = scratch;
        let (queries, rest) = first.split_at(plane);
        let (keys, values) = rest.split_at(plane);
        let (by_query, rest) = fourth.split_at_mut(plane);
        let (by_key, rest) = rest.split_at_mut(plane);
        let (by_value, rest) = rest.split_at_mut(plane);
        let (by_heads, by_shares) = rest.split_at_mut(plane);
        self.maps[3].backward(kernels, weights, given, &mut by_heads[..size], turned);
        for part in [&mut *by_query, &mut *by_key, &mut *by_value] {
            part[..size].fill(0.0);
        }
        for (_, at, pairs) in self.each_head(size / self.sample()) {
            let shares = &third[pairs];
            self.mix(kernels, &mut by_value[at..], shares, true, &by_heads[at..]);
            self.products(kernels, by_shares, &by_heads[at..], &values[at..], turned);
            kernels.softmax_gradient(by_shares, shares, self.starts.len(), self.scale());
            self.mix(kernels, &mut by_query[at..], by_shares, false, &keys[at..]);
            self.mix(kernels, &mut by_key[at..], by_shares, true, &queries[at..]);
        }
        into.fill(0.0);
        for (map, dz) in self.maps.iter().zip([&*by_query, &*by_key, &*by_value]) {
            map.add_backward(kernels, weights, &dz[..size], into, turned);
        }
        let mid = size / self.sample() * self.low();
        let planes = between.len() / 4;
        for (k, (low, dz)) in self.low.iter().flatten().zip([&*by_query, &*by_value]).enumerate() {
            let by_mid = &mut between[(2 + k) * planes..(2 + k) * planes + mid];
            low.up.backward(kernels, weights, &dz[..size], by_mid, turned);
            by_mid.iter_mut().for_each(|m| *m *= low.scale);
            low.down.add_backward(kernels, weights, by_mid, into, turned);
        }
    }

    /// What the gradient of one sample is made of: a product for each of the maps, and for those of low rank.
    pub(super) fn factors<'w>(
        &'w self,
        sample: usize,
        (read, given): (&'w [f32], &'w [f32]),
        scratch: &'w Scratch,
    ) -> Vec<Factor<'w>> {
        let plane = scratch.second.len();
        let place = sample * self.sample()..(sample + 1) * self.sample();
        let by = |k: usize| &scratch.fourth[k * plane..][place.clone()];
        let mut factors: Vec<_> = (0..3).map(|k| self.maps[k].factor(read, by(k))).collect();
        factors.push(self.maps[3].factor(&scratch.second[place.clone()], given));
        let planes = scratch.low.len() / 4;
        let between = |k: usize| &scratch.low[k * planes..][sample * self.low()..(sample + 1) * self.low()];
        for (k, low) in self.low.iter().flatten().enumerate() {
            factors.push(low.down.factor(read, between(2 + k)));
            factors.push(low.up.factor(between(k), by(2 * k)));
        }
        factors.into_iter().map(Factor::Outer).collect()
    }

    /// `read` and `given` are those of `samples`.
    pub(super) fn add_gradient(
        &self,
        kernels: MatMul,
        samples: Range<usize>,
        (read, given): (&[f32], &[f32]),
        scratch: &Scratch,
        out: &mut [f32],
    ) {
        let plane = scratch.second.len();
        let places = samples.start * self.sample()..samples.end * self.sample();
        for (map, dz) in self.maps.iter().zip(scratch.fourth.chunks_exact(plane)).take(3) {
            map.add_gradient(kernels, read, &dz[places.clone()], out);
        }
        self.maps[3].add_gradient(kernels, &scratch.second[places.clone()], given, out);
        let planes = scratch.low.len() / 4;
        let of =
            |k: usize| &scratch.low[k * planes + samples.start * self.low()..k * planes + samples.end * self.low()];
        for (k, low) in self.low.iter().flatten().enumerate() {
            low.down.add_gradient(kernels, read, of(2 + k), out);
            // Of queries, keys and values the first and the last.
            low.up.add_gradient(kernels, of(k), &scratch.fourth[2 * k * plane..][places.clone()], out);
        }
    }
}
