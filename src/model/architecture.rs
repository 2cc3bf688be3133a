//! Layer lists, parameter counts, and the layout of the flat weight vector.
//!
//! The flat vector goes layer by layer; a linear layer is its weight `[inputs x outputs]`, row major
//! (`z_o = sum_i a_i W[i * outputs + o] + b_o`; PyTorch stores the transpose), then its bias
//! `[outputs]`. Everything else (gradient rows, deltas, files) uses the same order.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::data::{Batch, Dataset};
use crate::math::prg::StreamKey;

/// Most parameters that a model may have: 2^27, the length up to which the kernels state their error.
pub const MAX_PARAMETERS: usize = 1 << 27;

/// A model by name, or a multilayer perceptron by its sizes. In JSON: `"mnist_mlp"` or `{"mlp": [64, 32, 10]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// 784-80-10 with relu: 63,610 parameters.
    MnistMlp,
    /// 784-200-200-10 with relu: 199,210 parameters.
    #[serde(rename = "mnist_2nn")]
    Mnist2nn,
    /// 64-32-10 with relu: 2,410 parameters, for the 8x8 digits.
    DigitsMlp,
    /// Sizes from the input to the classes, relu between linear layers: `{"mlp": [64, 32, 10]}`.
    Mlp(Vec<usize>),
}

impl ModelConfig {
    /// Every model that has a name.
    pub const NAMED: [Self; 3] = [Self::MnistMlp, Self::Mnist2nn, Self::DigitsMlp];

    /// Sizes from the input to the classes.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        match self {
            Self::MnistMlp => &[784, 80, 10],
            Self::Mnist2nn => &[784, 200, 200, 10],
            Self::DigitsMlp => &[64, 32, 10],
            Self::Mlp(sizes) => sizes,
        }
    }

    /// The validated layer list.
    ///
    /// # Errors
    /// [`ModelError::Sizes`] if a list of sizes is no model (see [`Architecture::mlp`]).
    pub fn architecture(&self) -> Result<Architecture, ModelError> {
        Architecture::mlp(self.sizes())
    }
}

impl fmt::Display for ModelConfig {
    /// The name, or the sizes joined by `-`; [`FromStr`] reads both.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MnistMlp => f.write_str("mnist_mlp"),
            Self::Mnist2nn => f.write_str("mnist_2nn"),
            Self::DigitsMlp => f.write_str("digits_mlp"),
            Self::Mlp(sizes) => f.write_str(&dashed(sizes)),
        }
    }
}

impl FromStr for ModelConfig {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        if let Some(named) = Self::NAMED.into_iter().find(|model| model.to_string() == text) {
            return Ok(named);
        }
        let sizes: Result<Vec<usize>, _> = text.split('-').map(str::parse).collect();
        match sizes {
            Ok(sizes) if sizes.len() >= 2 => Ok(Self::Mlp(sizes)),
            _ => Err(ModelError::UnknownModel {
                name: text.to_owned(),
                known: format!("{}, or sizes like 64-32-10", Self::NAMED.map(|m| m.to_string()).join(", ")),
            }),
        }
    }
}

/// Sizes joined by `-`.
fn dashed(sizes: &[usize]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
}

/// One step of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// `max(z, 0)`.
    Relu,
}

impl Layer {
    /// Parameters of this layer.
    #[must_use]
    pub const fn parameter_count(self) -> usize {
        match self {
            Self::Linear { inputs, outputs, bias } => inputs * outputs + if bias { outputs } else { 0 },
            Self::Relu => 0,
        }
    }
}

/// Where a linear layer's parameters lie in the flat weight vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpan {
    /// Length of the layer's input.
    pub inputs: usize,
    /// Length of the layer's output.
    pub outputs: usize,
    /// The weight, `[inputs x outputs]` row major.
    pub weight: Range<usize>,
    /// The bias, `[outputs]`.
    pub bias: Option<Range<usize>>,
}

/// A named tensor of the flat weight vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpan {
    /// `layers.<k>.weight` or `layers.<k>.bias`, `k` counting linear layers from 0.
    pub name: String,
    /// `[inputs, outputs]` or `[outputs]`.
    pub shape: Vec<usize>,
    /// Its place in the flat vector.
    pub span: Range<usize>,
}

/// A validated layer list: starts and ends with a linear layer, adjacent sizes agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    layers: Vec<Layer>,
    spans: Vec<LinearSpan>,
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
        if sizes.len() < 2 || sizes.contains(&0) || !fits {
            return Err(ModelError::Sizes { found: dashed(sizes), limit: MAX_PARAMETERS });
        }
        let (mut layers, mut spans, mut start) = (Vec::new(), Vec::new(), 0);
        for pair in sizes.windows(2) {
            if !layers.is_empty() {
                layers.push(Layer::Relu);
            }
            let (inputs, outputs) = (pair[0], pair[1]);
            layers.push(Layer::Linear { inputs, outputs, bias: true });
            let middle = start + inputs * outputs;
            spans.push(LinearSpan { inputs, outputs, weight: start..middle, bias: Some(middle..middle + outputs) });
            start = middle + outputs;
        }
        Ok(Self { layers, spans })
    }

    /// The layers in the order of the forward pass.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The linear layers' places in the flat weight vector.
    #[must_use]
    pub fn spans(&self) -> &[LinearSpan] {
        &self.spans
    }

    /// Number of parameters d.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.layers.iter().map(|layer| layer.parameter_count()).sum()
    }

    /// Features of a sample.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.spans.first().map_or(0, |span| span.inputs)
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
                shape: vec![span.inputs, span.outputs],
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

    /// Initial weights: every weight and bias uniform on `[-1/sqrt(inputs), 1/sqrt(inputs))`.
    ///
    /// That is Kaiming's uniform law with gain `1/sqrt(3)`, the default of PyTorch's `Linear` and of
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
    /// The sizes joined by `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inputs())?;
        self.spans.iter().try_for_each(|span| write!(f, "-{}", span.outputs))
    }
}
