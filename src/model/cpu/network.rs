//! An architecture made ready to run, and the memory of a pass.

use super::conv::Conv;
use super::ghost::Factor;
use super::linear::{Gather, Linear};
use super::pointwise::{Draws, Dropout};
use super::pool::Pool;
use crate::backend::simd::matmul::MatMul;
use crate::model::architecture::{Architecture, Layer, ParameterSpan, Shape};

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
    Dropout(Dropout),
}

/// An architecture made ready to run.
#[derive(Clone, Debug)]
pub(super) struct Network {
    steps: Vec<Step>,
    /// Layouts of the slots; the first one is the input, the last one the logits.
    slots: Vec<Layout>,
    /// U: values of all dropout layers of a sample.
    drawn: usize,
    kernels: MatMul,
}

/// What a step keeps from forward to backward, or works in.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    pub(super) third: Vec<f32>,
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
    /// Samples of the present pass.
    len: usize,
}

impl Network {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut slots = vec![Layout::dense(architecture.input())];
        let (mut steps, mut drawn) = (Vec::new(), 0);
        let mut spans = architecture.spans().iter().cloned();
        for &layer in architecture.layers() {
            let from = slots.len() - 1;
            let read = slots[from];
            match layer {
                Layer::Relu => steps.push(Step::Relu),
                Layer::Dropout { share } => {
                    steps.push(Step::Dropout(Dropout::new(share, drawn, read)));
                    drawn += read.shape.len();
                }
                Layer::MaxPool2d { size, .. } => {
                    slots.push(Layout::dense(layer.output(read.shape)));
                    steps.push(Step::Pool(Pool { size, from: read, to: slots[from + 1] }));
                }
                Layer::Conv2d { kernel, padding, .. } => {
                    let Some(span) = spans.next() else { continue };
                    // The first convolution's input is the data, of which nobody asks a gradient.
                    let conv = Conv::new(span, read, (kernel, padding), layer.output(read.shape), from > 0);
                    slots.push(conv.to);
                    steps.push(Step::Conv(conv));
                }
                Layer::Linear { .. } => {
                    let Some(span) = spans.next() else { continue };
                    if !read.is_dense() {
                        slots.push(Layout::dense(read.shape));
                        steps.push(Step::Gather(Gather { from: read }));
                    }
                    slots.push(Layout::dense(layer.output(read.shape)));
                    steps.push(Step::Linear(Linear::new(span, from > 0)));
                }
            }
        }
        Self { steps, slots, drawn, kernels: MatMul::new() }
    }

    /// U: values that a sample's visit draws for.
    pub(super) const fn drawn(&self) -> usize {
        self.drawn
    }

    /// Memory for passes over up to `samples`.
    pub(super) fn workspace(&self, samples: usize) -> Workspace {
        let slots = || self.slots.iter().map(|slot| vec![0.0; samples * slot.sample]).collect();
        let scratch = |step: &Step| match step {
            Step::Conv(conv) => conv.scratch(samples),
            Step::Pool(pool) => pool.scratch(samples),
            Step::Dropout(dropout) => dropout.scratch(samples),
            Step::Gather(_) | Step::Linear(_) | Step::Relu => Scratch::default(),
        };
        Workspace { values: slots(), gradients: slots(), scratch: self.steps.iter().map(scratch).collect(), len: 0 }
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
        let mut slot = 0;
        for (step, scratch) in self.steps.iter().zip(&mut work.scratch) {
            let (before, after) = work.values.split_at_mut(slot + 1);
            let read = &mut before[slot][..len * self.slots[slot].sample];
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
            }
            slot += usize::from(!matches!(step, Step::Relu | Step::Dropout(_)));
        }
        &work.values[slot][..len * self.slots[slot].sample]
    }

    /// Derivatives of the loss by every slot's values, but for the input's. `loss(logits, gradient)` writes the last ones.
    pub(super) fn backward(&self, work: &mut Workspace, weights: &[f32], loss: impl FnOnce(&[f32], &mut [f32])) {
        let (kernels, len, mut slot) = (self.kernels, work.len, self.slots.len() - 1);
        let last = len * self.slots[slot].sample;
        loss(&work.values[slot][..last], &mut work.gradients[slot][..last]);
        for (step, scratch) in self.steps.iter().zip(&mut work.scratch).rev() {
            let size = len * self.slots[slot].sample;
            let (before, after) = work.gradients.split_at_mut(slot);
            let given = &mut after[0][..size];
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
                Step::Linear(linear) => linear.backward(kernels, weights, given, into),
            }
            slot -= usize::from(!matches!(step, Step::Relu | Step::Dropout(_)));
        }
    }

    /// Adds the gradient, summed over the samples of the pass, to `out`, which lies as the weights do.
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
            match step {
                Step::Relu | Step::Dropout(_) => continue,
                Step::Pool(_) | Step::Gather(_) => {}
                Step::Linear(linear) => {
                    let input = &work.values[slot][place(slot)];
                    let given = &work.gradients[slot + 1][place(slot + 1)];
                    linear.add_gradient(self.kernels, input, given, out);
                }
                Step::Conv(conv) => {
                    let given = &work.gradients[slot + 1][place(slot + 1)];
                    conv.add_gradient(self.kernels, samples.clone(), given, scratch, out);
                }
            }
            slot += 1;
        }
    }
}

impl Network {
    /// What the gradient of one sample of the pass is made of, layer by layer (see [`super::ghost`]).
    pub(super) fn factors<'w>(&'w self, work: &'w Workspace, sample: usize) -> Vec<Factor<'w>> {
        let mut factors = Vec::with_capacity(self.steps.len());
        let place = |slot: usize| sample * self.slots[slot].sample..(sample + 1) * self.slots[slot].sample;
        let mut slot = 0;
        for (step, scratch) in self.steps.iter().zip(&work.scratch) {
            match step {
                Step::Relu | Step::Dropout(_) => continue,
                Step::Pool(_) | Step::Gather(_) => {}
                Step::Linear(linear) => {
                    let (a, dz) = (&work.values[slot][place(slot)], &work.gradients[slot + 1][place(slot + 1)]);
                    factors.push(Factor::Outer(linear.factor(a, dz)));
                }
                Step::Conv(conv) => {
                    let dz = &work.gradients[slot + 1][place(slot + 1)];
                    factors.push(Factor::Outer(conv.factor(sample, scratch, dz)));
                }
            }
            slot += 1;
        }
        factors
    }
}

/// The weight and the bias of a layer, side by side in the flat vector.
pub(super) fn split<'a>(span: &ParameterSpan, flat: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>) {
    (&flat[span.weight.clone()], span.bias.clone().map(|bias| &flat[bias]))
}

/// The same, to be written.
pub(super) fn split_mut<'a>(span: &ParameterSpan, flat: &'a mut [f32]) -> (&'a mut [f32], Option<&'a mut [f32]>) {
    let start = span.weight.start;
    let end = span.bias.as_ref().map_or(span.weight.end, |bias| bias.end);
    let (weight, bias) = flat[start..end].split_at_mut(span.weight.len());
    (weight, span.bias.is_some().then_some(bias))
}
