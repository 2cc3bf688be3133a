//! Layer lists, parameter counts, and the layout of the flat weight vector.
//!
//! A sample is a map of `channels x height x width` values, channel by channel and row by row; where only linear layers
//! are, that is a plain vector. The flat weight vector goes layer by layer, each with its weight and then its bias
//! `[outputs]`:
//!
//! - A linear layer's weight is `[inputs x outputs]`, row major (`z_o = sum_i a_i W[i * outputs + o] + b_o`; PyTorch
//!   stores the transpose). It reads a map as the vector that it is: channel, row, column.
//! - A convolution's weight is `[channels x input channels x kernel x kernel]`, row major, as in PyTorch:
//!   `z[o][y][x] = b_o + sum_cij W[o][c][i][j] a[c][y + i - padding][x + j - padding]`, `a` being 0 outside its map.
//! - A sequence of T vectors is a map of one channel and T rows. An embedding has the table of the tokens `[tokens x width]`
//!   and that of the positions `[T x width]`, no bias; an attention is four linear layers `[width x width]` (query, key, value,
//!   output); a norm's weight is its gain `[width]`.
//!
//! Everything else (gradient rows, deltas, files) uses the same order.

mod config;
mod layer;
mod list;
mod transformer;
mod tuned;

use std::fmt;
use std::ops::Range;

pub use self::config::ModelConfig;
pub use self::layer::{Initial, Layer, PositionPool};
pub use self::list::{AttentionConfig, ConvConfig, EmbeddingConfig, LayerConfig, LayerList};
pub use self::transformer::{BertConfig, BertMiniConfig, TransformerConfig};
pub use self::tuned::{LoraConfig, Trained};
use super::ModelError;
use crate::data::{Batch, Dataset};
use crate::math::prg::StreamKey;

/// Most parameters that a model may have: 2^28, an update of 1 GiB. Longer than the longest block of the rotation, which
/// is then done in two; the kernels state their errors up to this length.
pub const MAX_PARAMETERS: usize = 1 << 28;

/// Most values of one sample between two layers, with the zeros around them: 2^24.
pub const MAX_VALUES: usize = 1 << 24;

/// The shape of what goes from layer to layer; a vector of n values is `1 x 1 x n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Maps that lie one after the other.
    pub channels: usize,
    /// Rows of a map.
    pub height: usize,
    /// Values of a row.
    pub width: usize,
}

impl Shape {
    /// A vector.
    #[must_use]
    pub const fn vector(len: usize) -> Self {
        Self { channels: 1, height: 1, width: len }
    }

    /// Number of values.
    #[must_use]
    pub const fn len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// True without values.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    /// `channels x height x width`, without blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Where the parameters of a layer lie in the flat weight vector.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpan {
    /// Values that one output is a sum over: a linear layer's input, a convolution's input channels times its kernel; the rows
    /// of a table, 1 for the gain of a norm.
    pub inputs: usize,
    /// Length of a linear layer's output, channels of a convolution's, width of a table or a norm.
    pub outputs: usize,
    /// Shape of the weight (see the module).
    pub shape: Vec<usize>,
    /// The weight, row major.
    pub weight: Range<usize>,
    /// The bias, `[outputs]`.
    pub bias: Option<Range<usize>>,
    /// What they are at first.
    pub initial: Initial,
}

/// A named tensor of the flat weight vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpan {
    /// `layers.<k>.weight` or `layers.<k>.bias`, `k` counting layers with parameters from 0.
    pub name: String,
    /// The weight's shape, or `[outputs]`.
    pub shape: Vec<usize>,
    /// Its place in the flat vector.
    pub span: Range<usize>,
}

/// A validated layer list: every layer can read what the one before gives, and the last one is linear.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    input: Shape,
    layers: Vec<Layer>,
    spans: Vec<ParameterSpan>,
    /// Parameters that are trained; others stand behind them (see [`Self::tuned`]).
    trained: usize,
    /// Of every attention that has one.
    lora: Option<LoraConfig>,
}

impl Architecture {
    /// Linear layers with bias between the given sizes, relu between them, logits at the end.
    ///
    /// # Errors
    /// [`ModelError::Sizes`] for fewer than two sizes, a size of 0, or more than [`MAX_PARAMETERS`] parameters.
    pub fn mlp(sizes: &[usize]) -> Result<Self, ModelError> {
        let parameters = sizes.windows(2).try_fold(0usize, |sum, pair| {
            let product = pair[0].checked_mul(pair[1])?;
            sum.checked_add(product)?.checked_add(pair[1])
        });
        let fits = parameters.is_some_and(|count| count <= MAX_PARAMETERS);
        let (Some(&first), 2.., false, true) = (sizes.first(), sizes.len(), sizes.contains(&0), fits) else {
            return Err(ModelError::Sizes { found: config::dashed(sizes), limit: MAX_PARAMETERS });
        };
        let mut layers = Vec::new();
        for pair in sizes.windows(2) {
            if !layers.is_empty() {
                layers.push(Layer::Relu);
            }
            layers.push(Layer::Linear { inputs: pair[0], outputs: pair[1], bias: true });
        }
        Ok(Self::assembled(Shape::vector(first), layers))
    }

    /// The layers that a list describes.
    ///
    /// # Errors
    /// [`ModelError::Layers`] for the first layer that is none, or that cannot read what comes before it.
    pub fn from_list(list: &LayerList) -> Result<Self, ModelError> {
        let (input, layers) = list.resolve()?;
        Ok(Self::assembled(input, layers))
    }

    /// Checked layers, with the places of their parameters.
    fn assembled(input: Shape, layers: Vec<Layer>) -> Self {
        let mut start = 0;
        let mut spans = Vec::new();
        for tensors in layers.iter().flat_map(|layer| layer.tensors()) {
            let middle = start + tensors.shape.iter().product::<usize>();
            let end = middle + if tensors.bias { tensors.outputs } else { 0 };
            spans.push(ParameterSpan {
                inputs: (middle - start) / tensors.outputs.max(1),
                outputs: tensors.outputs,
                shape: tensors.shape,
                weight: start..middle,
                bias: tensors.bias.then_some(middle..end),
                initial: tensors.initial,
            });
            start = end;
        }
        Self { input, layers, spans, trained: start, lora: None }
    }

    /// The shape of a sample.
    #[must_use]
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// The layers in the order of the forward pass.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The places of the layers' parameters in the flat weight vector, of those that have any.
    #[must_use]
    pub fn spans(&self) -> &[ParameterSpan] {
        &self.spans
    }

    /// True if there are linear layers and relu only.
    #[must_use]
    pub fn is_mlp(&self) -> bool {
        self.layers.iter().all(|layer| matches!(layer, Layer::Linear { .. } | Layer::Relu))
    }

    /// True if samples are sequences of tokens: the first layer is an embedding.
    #[must_use]
    pub fn tokens(&self) -> Option<usize> {
        match self.layers.first() {
            Some(Layer::Embedding { tokens, .. }) => Some(*tokens),
            _ => None,
        }
    }

    /// The token that fills the end of a short sequence, where there is one.
    #[must_use]
    pub fn padding(&self) -> Option<u32> {
        match self.layers.first() {
            Some(Layer::Embedding { padding, .. }) => *padding,
            _ => None,
        }
    }

    /// True for a language model: every position of a sequence predicts the token that follows it. The loss of a sample is the mean
    /// over its positions, its label the token behind its last one, and its logits are those of the last position.
    #[must_use]
    pub fn predicts_next(&self) -> bool {
        matches!(self.layers.last(), Some(Layer::PositionWise { .. }))
    }

    /// The last position of a sequence that is no padding; 0 if all are.
    #[must_use]
    pub fn last_position(&self, sequence: &[f32]) -> usize {
        unpadded(sequence, self.padding()).saturating_sub(1)
    }

    /// True if training draws: there is dropout.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Layer::Dropout { .. }))
    }

    /// Number of parameters d, those that are trained.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.trained
    }

    /// Number of those that are not.
    #[must_use]
    pub fn frozen_count(&self) -> usize {
        let end = |span: &ParameterSpan| span.bias.as_ref().map_or(span.weight.end, |bias| bias.end);
        self.spans.iter().map(end).max().unwrap_or(0) - self.trained
    }

    /// The low-rank maps beside the queries and values of every attention, where there are any.
    #[must_use]
    pub fn lora(&self) -> Option<LoraConfig> {
        self.lora
    }

    /// Features of a sample.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.input.len()
    }

    /// Number of logits, one a class.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.spans.last().map_or(0, |span| span.outputs)
    }

    /// The named tensors, in the order of the flat vector; they cover it without gaps.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpan> {
        let mut tensors = Vec::with_capacity(2 * self.spans.len());
        for (k, span) in self.spans.iter().enumerate() {
            tensors.push(TensorSpan {
                name: format!("layers.{k}.weight"),
                shape: span.shape.clone(),
                span: span.weight.clone(),
            });
            if let Some(bias) = &span.bias {
                tensors.push(TensorSpan {
                    name: format!("layers.{k}.bias"),
                    shape: vec![span.outputs],
                    span: bias.clone(),
                });
            }
        }
        tensors
    }

    /// Initial weights: every weight and bias uniform on `[-1/sqrt(n), 1/sqrt(n))`, n the layer's
    /// [`inputs`](ParameterSpan::inputs); tables and norms as [`Initial`] says.
    ///
    /// The first is Kaiming's uniform law with gain `1/sqrt(3)`, the default of PyTorch's `Linear` and `Conv2d` and of
    /// Burn's. Parameter `j` takes the `j`-th double of the keystream, so that the same key gives the
    /// same weights everywhere.
    #[must_use]
    pub fn init(&self, key: &StreamKey) -> Vec<f32> {
        let mut reader = key.reader(0);
        let mut weights = Vec::with_capacity(self.parameter_count());
        for span in self.spans.iter().filter(|span| span.weight.start < self.trained) {
            let uniform = |bound: f64, u: f64| (bound * (2.0 * u - 1.0)) as f32;
            let bias = span.bias.as_ref().map_or(0, ExactSizeIterator::len);
            for _ in 0..span.weight.len() {
                let u = reader.next_f64();
                weights.push(match span.initial {
                    Initial::Fan => uniform(1.0 / (span.inputs as f64).sqrt(), u),
                    Initial::Uniform(bound) => uniform(bound, u),
                    Initial::Norm => 1.0,
                });
            }
            for _ in 0..bias {
                let u = reader.next_f64();
                weights.push(match span.initial {
                    Initial::Fan => uniform(1.0 / (span.inputs as f64).sqrt(), u),
                    Initial::Uniform(_) | Initial::Norm => 0.0,
                });
            }
        }
        weights
    }

    /// Checks that this model can read `data`.
    ///
    /// # Errors
    /// [`ModelError::DataMismatch`] naming both sides if features or classes differ.
    pub fn check_dataset(&self, data: &Dataset) -> Result<(), ModelError> {
        if data.dim == self.inputs() && data.classes == self.classes() {
            return Ok(());
        }
        Err(ModelError::DataMismatch {
            model: self.to_string(),
            inputs: self.inputs(),
            outputs: self.classes(),
            data: data.name.clone(),
            dim: data.dim,
            classes: data.classes,
        })
    }

    /// Checks the lengths of `weights` and `batch`, and the range of the labels and of the tokens.
    ///
    /// # Errors
    /// [`ModelError::WrongLength`], [`ModelError::Label`] or [`ModelError::Token`].
    pub fn check(&self, weights: &[f32], batch: &Batch) -> Result<(), ModelError> {
        let equal = |what, expected, found| {
            if expected == found { Ok(()) } else { Err(ModelError::WrongLength { what, expected, found }) }
        };
        equal("the weight vector", self.parameter_count(), weights.len())?;
        equal("a sample", self.inputs(), batch.dim)?;
        equal("the batch's features", batch.len() * batch.dim, batch.features.len())?;
        let classes = self.classes();
        if let Some(sample) = batch.labels.iter().position(|&label| label as usize >= classes) {
            return Err(ModelError::Label { sample, found: batch.labels[sample], classes });
        }
        let Some(tokens) = self.tokens() else { return Ok(()) };
        let is_token = |&x: &f32| x >= 0.0 && x < tokens as f32 && x.fract() == 0.0;
        match batch.features.iter().position(|x| !is_token(x)) {
            Some(place) => {
                let (sample, position) = (place / batch.dim, place % batch.dim);
                Err(ModelError::Token { sample, position, found: batch.features[place], tokens })
            }
            None => Ok(()),
        }
    }
}

/// The length of a sequence of tokens without its padding: up to the first one that fills.
pub(in crate::model) fn unpadded(sequence: &[f32], padding: Option<u32>) -> usize {
    let padding = padding.map(|token| token as f32);
    sequence.iter().position(|&token| Some(token) == padding).unwrap_or(sequence.len())
}

impl fmt::Display for Architecture {
    /// The sizes joined by `-` where there are linear layers and relu only; else the input and every layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_mlp() && self.input == Shape::vector(self.inputs()) {
            write!(f, "{}", self.inputs())?;
            return self.spans.iter().try_for_each(|span| write!(f, "-{}", span.outputs));
        }
        write!(f, "{}", self.input)?;
        let mut before = None;
        for layer in &self.layers {
            let apart = before != Some(&Layer::Fork) && *layer != Layer::Join;
            write!(f, "{}{layer}", if apart { ", " } else { "" })?;
            before = Some(layer);
        }
        Ok(())
    }
}
