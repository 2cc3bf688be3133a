//! An architecture made ready to run, and the memory of a pass.

use super::attention::Attention;
use super::conv::Conv;
use super::ghost::Factor;
use super::linear::{Gather, Linear, MANY_ROWS};
use super::pointwise::{Draws, Dropout};
use super::pool::Pool;
use super::sequence::{Embedding, LayerNorm, Positions};
use super::{CHUNK, MOST_VALUES};
use crate::backend::simd::matmul::MatMul;
use crate::model::architecture::{Architecture, Layer, ParameterSpan, Shape, unpadded};

/// How the values of a sample lie in a slot: value (c, y, x) of sample s at `s * sample + c * plane + y * row + x`.
///
/// What lies between rows and planes is nobody's value. It is finite wherever the values are, and 0 in gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    pub(super) row: usize,
    pub(super) plane: usize,
    pub(super) sample: usize,
}

impl Layout {
    /// Without gaps.
    pub(super) const fn dense(shape: Shape) -> Self {
        Self { shape, row: shape.width, plane: shape.height * shape.width, sample: shape.len() }
    }

    pub(super) fn is_dense(self) -> bool {
        self == Self::dense(self.shape)
    }

    /// Where the rows of one sample begin, from that sample on.
    pub(super) fn rows(self) -> impl Iterator<Item = usize> {
        let Shape { channels, height, .. } = self.shape;
        (0..channels).flat_map(move |c| (0..height).map(move |y| c * self.plane + y * self.row))
    }
}

/// One layer with its places.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Conv(Conv),
    Pool(Pool),
    Gather(Gather),
    Linear(Linear),
    Relu,
    /// In place, of so many values a sample.
    Gelu(usize),
    Dropout(Dropout),
    Embedding(Embedding),
    LayerNorm(LayerNorm),
    Attention(Box<Attention>),
    Positions(Positions),
    /// A copy, which a residual branch begins with; it is added again at [`Self::Join`].
    Fork,
    /// Adds the values of an earlier slot, in place.
    Join(usize),
}

impl Step {
    /// Whether it works in the slot that it reads.
    const fn in_place(&self) -> bool {
        matches!(self, Self::Relu | Self::Gelu(_) | Self::Dropout(_) | Self::Join(_))
    }
}

/// An architecture made ready to run.
#[derive(Clone, Debug)]
pub(super) struct Network {
    steps: Vec<Step>,
    /// Layouts of the slots; the first one is the input, the last one the logits.
    slots: Vec<Layout>,
    /// U: values of all dropout layers of a sample.
    drawn: usize,
    /// The token that fills short sequences.
    padding: Option<u32>,
    /// The first step whose parameters are trained: nobody asks for the gradients of what is before it.
    first: usize,
    /// Samples of a pass.
    pass: usize,
    /// Parameters that are trained, which come first.
    trained: usize,
    kernels: MatMul,
}

/// What a step keeps from forward to backward, or works in.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    pub(super) third: Vec<f32>,
    pub(super) fourth: Vec<f32>,
    pub(super) low: Vec<f32>,
    pub(super) turned: Vec<f32>,
    pub(super) winners: Vec<u32>,
}

/// The memory of a pass.
pub(super) struct Workspace {
    /// Values of every slot.
    values: Vec<Vec<f32>>,
    /// Derivatives of the loss by them.
    gradients: Vec<Vec<f32>>,
    /// One a step.
    scratch: Vec<Scratch>,
    /// Of each sequence, without its padding; empty where there is none.
    lengths: Vec<usize>,
    /// Samples of the present pass.
    len: usize,
}

impl Workspace {
    /// How many values there are.
    fn values(&self) -> usize {
        let scratch = self.scratch.iter().flat_map(|s| [&s.first, &s.second, &s.third, &s.fourth, &s.low, &s.turned]);
        self.values.iter().chain(&self.gradients).chain(scratch).map(Vec::len).sum()
    }
}

impl Network {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut building = Building { steps: Vec::new(), slots: vec![Layout::dense(architecture.input())] };
        let (mut drawn, mut forks, mut first) = (0, Vec::new(), None);
        let mut spans = architecture.spans().iter().cloned().peekable();
        for &layer in architecture.layers() {
            let mine = if layer.parameter_count() > 0 { spans.peek() } else { None };
            let low_rank = matches!(layer, Layer::Attention { .. }) && architecture.lora().is_some();
            if low_rank || mine.is_some_and(|span| span.weight.start < architecture.parameter_count()) {
                first = first.or(Some(building.steps.len()));
            }
            // The input is the data, of which nobody asks a gradient.
            let inner = building.slots.len() > 1;
            let read = building.read();
            let gives = layer.output(read.shape);
            match layer {
                Layer::Relu => building.steps.push(Step::Relu),
                Layer::Gelu => building.steps.push(Step::Gelu(read.sample)),
                Layer::Dropout { share } => {
                    building.steps.push(Step::Dropout(Dropout::new(share, drawn, read)));
                    drawn += read.shape.len();
                }
                Layer::Fork => {
                    forks.push(building.slots.len() - 1);
                    building.push(Step::Fork, read);
                }
                Layer::Join => building.steps.extend(forks.pop().map(Step::Join)),
                Layer::MaxPool2d { size, .. } => {
                    let to = Layout::dense(gives);
                    building.push(Step::Pool(Pool { size, from: read, to }), to);
                }
                Layer::Conv2d { kernel, padding, .. } => {
                    let Some(span) = spans.next() else { continue };
                    let conv = Conv::new(span, read, (kernel, padding), gives, inner);
                    let to = conv.to;
                    building.push(Step::Conv(conv), to);
                }
                Layer::Linear { .. } | Layer::PositionWise { .. } => {
                    let Some(span) = spans.next() else { continue };
                    building.gather();
                    let many = matches!(layer, Layer::PositionWise { .. }) && read.shape.height >= MANY_ROWS;
                    building.push(Step::Linear(Linear::new(span, inner).turning(many)), Layout::dense(gives));
                }
                Layer::Embedding { .. } => {
                    let (Some(tokens), Some(positions)) = (spans.next(), spans.next()) else { continue };
                    building.push(Step::Embedding(Embedding { tokens, positions }), Layout::dense(gives));
                }
                Layer::LayerNorm { epsilon, .. } => {
                    let Some(span) = spans.next() else { continue };
                    building
                        .push(Step::LayerNorm(LayerNorm { span, epsilon, sample: read.sample }), Layout::dense(gives));
                }
                Layer::Attention { width, heads, causal } => {
                    let maps = [spans.next(), spans.next(), spans.next(), spans.next()];
                    let [Some(query), Some(key), Some(value), Some(output)] = maps else { continue };
                    let shape = (width, heads, causal);
                    let mut attention = Attention::new([query, key, value, output], read.shape.height, shape, inner);
                    if let Some(lora) = architecture.lora() {
                        let maps = [spans.next(), spans.next(), spans.next(), spans.next()];
                        let [Some(a_query), Some(b_query), Some(a_value), Some(b_value)] = maps else { continue };
                        attention = attention.with_lora([a_query, b_query, a_value, b_value], lora.scale());
                    }
                    building.push(Step::Attention(Box::new(attention)), Layout::dense(gives));
                }
                Layer::Positions(pool) => {
                    building.push(Step::Positions(Positions { pool, from: read }), Layout::dense(gives));
                }
            }
        }
        let Building { steps, slots } = building;
        let (padding, first) = (architecture.padding(), first.unwrap_or(0));
        let network = Self {
            steps,
            slots,
            drawn,
            padding,
            first,
            pass: 1,
            trained: architecture.parameter_count(),
            kernels: MatMul::new(),
        };
        let pass = (MOST_VALUES / network.workspace(1).values().max(1)).clamp(1, CHUNK);
        Self { pass, ..network }
    }

    /// U: values that a sample's visit draws for.
    pub(super) const fn drawn(&self) -> usize {
        self.drawn
    }

    /// Samples of a pass, at most.
    pub(super) const fn pass(&self) -> usize {
        self.pass
    }

    /// Memory for passes over up to `samples` samples.
    pub(super) fn workspace(&self, samples: usize) -> Workspace {
        let slots = || self.slots.iter().map(|slot| vec![0.0; samples * slot.sample]).collect();
        let scratch = |step: &Step| match step {
            Step::Conv(conv) => conv.scratch(samples),
            Step::Pool(pool) => pool.scratch(samples),
            Step::Dropout(dropout) => dropout.scratch(samples),
            Step::Gelu(values) => Scratch { first: vec![0.0; samples * values], ..Scratch::default() },
            Step::Attention(attention) => attention.scratch(samples),
            Step::Embedding(embedding) => embedding.scratch(samples),
            Step::Linear(linear) => linear.scratch(),
            Step::LayerNorm(norm) => norm.scratch(samples),
            Step::Gather(_) | Step::Relu | Step::Positions(_) | Step::Fork | Step::Join(_) => Scratch::default(),
        };
        let scratch = self.steps.iter().map(scratch).collect();
        Workspace { values: slots(), gradients: slots(), scratch, lengths: Vec::new(), len: 0 }
    }

    /// The logits of some samples, whose features `fill` writes in turn, `[len x classes]`. With `draws`: in training.
    pub(super) fn forward<'w, 's>(
        &self,
        work: &'w mut Workspace,
        weights: &[f32],
        samples: impl ExactSizeIterator<Item = &'s [f32]>,
        draws: Option<&Draws<'_>>,
    ) -> &'w [f32] {
        let (kernels, len) = (self.kernels, samples.len());
        work.len = len;
        let input = &self.slots[0];
        for (place, features) in work.values[0].chunks_exact_mut(input.sample).zip(samples) {
            place.copy_from_slice(features);
        }
        work.lengths.clear();
        if self.padding.is_some() {
            let tokens = work.values[0][..len * input.sample].chunks_exact(input.sample);
            work.lengths.extend(tokens.map(|tokens| unpadded(tokens, self.padding)));
        }
        let lengths = &work.lengths[..];
        let mut slot = 0;
        for (step, scratch) in self.steps.iter().zip(&mut work.scratch) {
            let (before, after) = work.values.split_at_mut(slot + 1);
            let (earlier, read) = before.split_at_mut(slot);
            let read = &mut read[0][..len * self.slots[slot].sample];
            let out = match (after.first_mut(), self.slots.get(slot + 1)) {
                (Some(next), Some(layout)) => &mut next[..len * layout.sample],
                _ => &mut [],
            };
            match step {
                Step::Relu => kernels.relu(read),
                Step::Dropout(dropout) => dropout.forward(read, draws, self.drawn, scratch),
                Step::Conv(conv) => conv.forward(kernels, weights, read, out, scratch),
                Step::Pool(pool) => pool.forward(read, out, scratch),
                Step::Gather(gather) => gather.forward(read, out),
                Step::Linear(linear) => linear.forward(kernels, weights, read, out),
                Step::Gelu(_) => kernels.gelu(read, &mut scratch.first),
                Step::Embedding(embedding) => embedding.forward(kernels, weights, read, out, &mut scratch.winners),
                Step::LayerNorm(norm) => norm.forward(kernels, weights, read, out, scratch),
                Step::Attention(attention) => attention.forward(kernels, weights, (read, lengths), out, scratch),
                Step::Positions(positions) => positions.forward(kernels, (read, lengths), out),
                Step::Fork => out.copy_from_slice(read),
                Step::Join(fork) => kernels.add_scaled(read, &earlier[*fork], 1.0),
            }
            slot += usize::from(!step.in_place());
        }
        &work.values[slot][..len * self.slots[slot].sample]
    }

    /// Derivatives of the loss by every slot's values, but for the input's. `loss(logits, gradient)` writes the last ones.
    pub(super) fn backward(&self, work: &mut Workspace, weights: &[f32], loss: impl FnOnce(&[f32], &mut [f32])) {
        let (kernels, len, mut slot) = (self.kernels, work.len, self.slots.len() - 1);
        let last = len * self.slots[slot].sample;
        loss(&work.values[slot][..last], &mut work.gradients[slot][..last]);
        let lengths = &work.lengths[..];
        for (step, scratch) in self.steps.iter().zip(&mut work.scratch).skip(self.first).rev() {
            let size = len * self.slots[slot].sample;
            let (before, after) = work.gradients.split_at_mut(slot);
            let given = &mut after[0][..size];
            if let Step::Join(fork) = step {
                // What is behind the branch has it from here; the fork adds what the branch has.
                before[*fork][..size].copy_from_slice(given);
                continue;
            }
            let into = match before.last_mut() {
                Some(previous) => &mut previous[..len * self.slots[slot - 1].sample],
                None => &mut [],
            };
            match step {
                Step::Relu => kernels.relu_gradient(given, &work.values[slot][..size]),
                Step::Dropout(dropout) => dropout.backward(given, scratch),
                Step::Conv(conv) => conv.backward(kernels, weights, given, into, scratch),
                Step::Pool(pool) => pool.backward(given, into, scratch),
                Step::Gather(gather) => gather.backward(given, into),
                Step::Linear(linear) => linear.backward(kernels, weights, given, into, &mut scratch.turned),
                Step::Gelu(_) => kernels.multiply(given, &scratch.first),
                Step::LayerNorm(norm) => norm.backward(kernels, weights, given, into, scratch),
                Step::Attention(attention) => attention.backward(kernels, weights, given, into, scratch),
                Step::Positions(positions) => positions.backward((given, lengths), into),
                Step::Fork => kernels.add_scaled(into, given, 1.0),
                Step::Embedding(_) | Step::Join(_) => {}
            }
            slot -= usize::from(!step.in_place());
        }
    }

    /// Adds the gradient by the trained parameters, summed over the samples of the pass, to `out`, which lies as they do.
    pub(super) fn add_gradient(&self, work: &Workspace, out: &mut [f32]) {
        self.each_gradient(work, 0..work.len, out);
    }

    /// Adds the gradient of one sample of the pass to `row`.
    pub(super) fn add_row(&self, work: &Workspace, sample: usize, row: &mut [f32]) {
        self.each_gradient(work, sample..sample + 1, row);
    }

    fn each_gradient(&self, work: &Workspace, samples: std::ops::Range<usize>, out: &mut [f32]) {
        let place = |slot: usize| samples.start * self.slots[slot].sample..samples.end * self.slots[slot].sample;
        let mut slot = 0;
        for (step, scratch) in self.steps.iter().zip(&work.scratch) {
            if step.in_place() {
                continue;
            }
            let read = &work.values[slot][place(slot)];
            let given = &work.gradients[slot + 1][place(slot + 1)];
            match step {
                Step::Linear(linear) => linear.add_gradient(self.kernels, read, given, out),
                Step::Conv(conv) => conv.add_gradient(self.kernels, samples.clone(), given, scratch, out),
                Step::Embedding(embedding) => embedding.add_gradient(self.kernels, read, given, out),
                Step::LayerNorm(norm) => norm.add_gradient(self.kernels, &scratch.first[place(slot)], given, out),
                Step::Attention(attention) => {
                    attention.add_gradient(self.kernels, samples.clone(), (read, given), scratch, out);
                }
                Step::Pool(_)
                | Step::Gather(_)
                | Step::Positions(_)
                | Step::Fork
                | Step::Relu
                | Step::Gelu(_)
                | Step::Dropout(_)
                | Step::Join(_) => {}
            }
            slot += 1;
        }
    }
}

/// A network that is being made.
struct Building {
    steps: Vec<Step>,
    slots: Vec<Layout>,
}

impl Building {
    /// What the next step reads.
    fn read(&self) -> Layout {
        self.slots[self.slots.len() - 1]
    }

    /// A step that writes a slot of its own.
    fn push(&mut self, step: Step, to: Layout) {
        self.steps.push(step);
        self.slots.push(to);
    }

    /// Brings rows together where they have gaps.
    fn gather(&mut self) {
        let from = self.read();
        if !from.is_dense() {
            self.push(Step::Gather(Gather { from }), Layout::dense(from.shape));
        }
    }
}

impl Network {
    /// What the gradient of one sample of the pass by the trained parameters is made of, layer by layer (see [`super::ghost`]).
    pub(super) fn factors<'w>(&'w self, work: &'w Workspace, sample: usize) -> Vec<Factor<'w>> {
        let mut factors = Vec::with_capacity(self.steps.len());
        let place = |slot: usize| sample * self.slots[slot].sample..(sample + 1) * self.slots[slot].sample;
        let mut slot = 0;
        for (step, scratch) in self.steps.iter().zip(&work.scratch) {
            if step.in_place() {
                continue;
            }
            let (a, dz) = (&work.values[slot][place(slot)], &work.gradients[slot + 1][place(slot + 1)]);
            match step {
                Step::Linear(linear) => factors.push(Factor::Outer(linear.factor(a, dz))),
                Step::Conv(conv) => factors.push(Factor::Outer(conv.factor(sample, scratch, dz))),
                Step::Embedding(embedding) => factors.extend(embedding.factors(&scratch.winners[place(slot)], dz)),
                Step::LayerNorm(norm) => factors.push(norm.factor(&scratch.first[place(slot)], dz)),
                Step::Attention(attention) => factors.extend(attention.factors(sample, (a, dz), scratch)),
                Step::Pool(_)
                | Step::Gather(_)
                | Step::Positions(_)
                | Step::Fork
                | Step::Relu
                | Step::Gelu(_)
                | Step::Dropout(_)
                | Step::Join(_) => {}
            }
            slot += 1;
        }
        factors.retain(|factor| factor.start() < self.trained);
        factors
    }
}

/// The weight and the bias of a layer, side by side in the flat vector.
pub(super) fn split<'a>(span: &ParameterSpan, flat: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>) {
    (&flat[span.weight.clone()], span.bias.clone().map(|bias| &flat[bias]))
}

/// Whether a layer's parameters stay as they are: a gradient is as long as the trained ones, which come first.
pub(super) fn is_frozen(span: &ParameterSpan, gradient: &[f32]) -> bool {
    span.weight.start >= gradient.len()
}

/// The same, to be written.
pub(super) fn split_mut<'a>(span: &ParameterSpan, flat: &'a mut [f32]) -> (&'a mut [f32], Option<&'a mut [f32]>) {
    let start = span.weight.start;
    let end = span.bias.as_ref().map_or(span.weight.end, |bias| bias.end);
    let (weight, bias) = flat[start..end].split_at_mut(span.weight.len());
    (weight, span.bias.is_some().then_some(bias))
}
