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
//!
//! Everything else (gradient rows, deltas, files) uses the same order.

mod config;
mod list;

use std::fmt;
use std::ops::Range;

pub use self::config::ModelConfig;
pub use self::list::{ConvConfig, LayerConfig, LayerList};
use super::ModelError;
use crate::data::{Batch, Dataset};
use crate::math::prg::StreamKey;

/// Most parameters that a model may have: 2^27, the length up to which the kernels state their error.
pub const MAX_PARAMETERS: usize = 1 << 27;

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

/// One step of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// `z = a W + b`, `W` `[inputs x outputs]` row major.
    Linear {
        /// Length of `a`.
        inputs: usize,
        /// Length of `z`.
        outputs: usize,
        /// Whether there is a `b`.
        bias: bool,
    },
    /// A convolution with stride 1 and a bias (see the module); a map of `h x w` becomes one of
    /// `h + 2 padding - kernel + 1` times `w + 2 padding - kernel + 1`.
    Conv2d {
        /// What it reads.
        input: Shape,
        /// Maps that it gives.
        channels: usize,
        /// Side of the square kernel.
        kernel: usize,
        /// Zeros on each side of a map, fewer than `kernel`.
        padding: usize,
    },
    /// The largest value of every square of `size x size`, the squares side by side; what is left over at the right and
    /// the lower edge is not read. The first NaN of a square is its largest value, else the first of equal ones.
    MaxPool2d {
        /// What it reads.
        input: Shape,
        /// Side of a square.
        size: usize,
    },
    /// `max(z, 0)`, and NaN for NaN.
    Relu,
    /// In training every value becomes 0 with probability `share`, independently, and the others are divided by
    /// `1 - share`; in evaluation nothing happens.
    Dropout {
        /// Share that is dropped, in `[0, 1)`.
        share: f32,
    },
}

impl Layer {
    /// Parameters of this layer.
    #[must_use]
    pub const fn parameter_count(self) -> usize {
        match self {
            Self::Linear { inputs, outputs, bias } => inputs * outputs + if bias { outputs } else { 0 },
            Self::Conv2d { input, channels, kernel, .. } => channels * (input.channels * kernel * kernel + 1),
            Self::MaxPool2d { .. } | Self::Relu | Self::Dropout { .. } => 0,
        }
    }

    /// What a layer makes of a shape that it can read.
    #[must_use]
    pub const fn output(self, read: Shape) -> Shape {
        match self {
            Self::Linear { outputs, .. } => Shape::vector(outputs),
            Self::Conv2d { input, channels, kernel, padding } => {
                let (high, wide) = (input.height + 2 * padding, input.width + 2 * padding);
                Shape { channels, height: (high + 1).saturating_sub(kernel), width: (wide + 1).saturating_sub(kernel) }
            }
            Self::MaxPool2d { input, size: 0 } => Shape { height: 0, width: 0, ..input },
            Self::MaxPool2d { input, size } => {
                Shape { height: input.height / size, width: input.width / size, ..input }
            }
            Self::Relu | Self::Dropout { .. } => read,
        }
    }
}

/// Where the parameters of a layer lie in the flat weight vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpan {
    /// Values that one output is a sum over: a linear layer's input, a convolution's input channels times its kernel.
    pub inputs: usize,
    /// Length of a linear layer's output, or channels of a convolution's.
    pub outputs: usize,
    /// Shape of the weight (see the module).
    pub shape: Vec<usize>,
    /// The weight, row major.
    pub weight: Range<usize>,
    /// The bias, `[outputs]`.
    pub bias: Option<Range<usize>>,
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
        for &layer in &layers {
            let (shape, outputs, bias) = match layer {
                Layer::Linear { inputs, outputs, bias } => (vec![inputs, outputs], outputs, bias),
                Layer::Conv2d { input, channels, kernel, .. } => {
                    (vec![channels, input.channels, kernel, kernel], channels, true)
                }
                Layer::MaxPool2d { .. } | Layer::Relu | Layer::Dropout { .. } => continue,
            };
            let middle = start + shape.iter().product::<usize>();
            let end = start + layer.parameter_count();
            let inputs = (middle - start) / outputs.max(1);
            spans.push(ParameterSpan {
                inputs,
                outputs,
                shape,
                weight: start..middle,
                bias: bias.then_some(middle..end),
            });
            start = end;
        }
        Self { input, layers, spans }
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

    /// True if training draws: there is dropout.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Layer::Dropout { .. }))
    }

    /// Number of parameters d.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameter_count()).sum()
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
    /// [`inputs`](ParameterSpan::inputs).
    ///
    /// That is Kaiming's uniform law with gain `1/sqrt(3)`, the default of PyTorch's `Linear` and `Conv2d` and of
    /// Burn's. Parameter `j` takes the `j`-th double of the keystream, so that the same key gives the
    /// same weights everywhere.
    #[must_use]
    pub fn init(&self, key: &StreamKey) -> Vec<f32> {
        let mut reader = key.reader(0);
        let mut weights = Vec::with_capacity(self.parameter_count());
        for span in &self.spans {
            let bound = 1.0 / (span.inputs as f64).sqrt();
            let count = span.weight.len() + span.bias.as_ref().map_or(0, ExactSizeIterator::len);
            weights.extend((0..count).map(|_| (bound * (2.0 * reader.next_f64() - 1.0)) as f32));
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

    /// Checks the lengths of `weights` and `batch` and the range of the labels.
    ///
    /// # Errors
    /// [`ModelError::WrongLength`] or [`ModelError::Label`].
    pub fn check(&self, weights: &[f32], batch: &Batch) -> Result<(), ModelError> {
        let equal = |what, expected, found| {
            if expected == found { Ok(()) } else { Err(ModelError::WrongLength { what, expected, found }) }
        };
        equal("the weight vector", self.parameter_count(), weights.len())?;
        equal("a sample", self.inputs(), batch.dim)?;
        equal("the batch's features", batch.len() * batch.dim, batch.features.len())?;
        let classes = self.classes();
        match batch.labels.iter().position(|&label| label as usize >= classes) {
            Some(sample) => Err(ModelError::Label { sample, found: batch.labels[sample], classes }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Architecture {
    /// The sizes joined by `-` where there are linear layers and relu only; else the input and every layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_mlp() && self.input == Shape::vector(self.inputs()) {
            write!(f, "{}", self.inputs())?;
            return self.spans.iter().try_for_each(|span| write!(f, "-{}", span.outputs));
        }
        write!(f, "{}", self.input)?;
        self.layers.iter().try_for_each(|layer| match *layer {
            Layer::Linear { outputs, .. } => write!(f, ", linear {outputs}"),
            Layer::Conv2d { channels, kernel, padding: 0, .. } => write!(f, ", conv {channels} of {kernel}x{kernel}"),
            Layer::Conv2d { channels, kernel, padding, .. } => {
                write!(f, ", conv {channels} of {kernel}x{kernel} padded by {padding}")
            }
            Layer::MaxPool2d { size, .. } => write!(f, ", pool {size}"),
            Layer::Relu => f.write_str(", relu"),
            Layer::Dropout { share } => write!(f, ", dropout {share}"),
        })
    }
}
