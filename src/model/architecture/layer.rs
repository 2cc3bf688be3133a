//! The kinds of layers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Shape;

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
    /// `z Phi(z)`, Phi the distribution function of the normal law (Hendrycks and Gimpel 2016), to 2e-7 of |z|.
    Gelu,
    /// In training every value becomes 0 with probability `share`, independently, and the others are divided by
    /// `1 - share`; in evaluation nothing happens.
    Dropout {
        /// Share that is dropped, in `[0, 1)`.
        share: f32,
    },
    /// Rows of a table by token, and of another by position: `z_t = E[token_t] + P[t]`. The first layer of a model whose features
    /// are tokens, integers below `tokens` as floats.
    Embedding {
        /// Rows of the table.
        tokens: usize,
        /// T: length of a sequence.
        positions: usize,
        /// Length of a vector.
        width: usize,
        /// The token that fills the end of a short sequence: the positions from its first one on are attended by nobody,
        /// predict nothing, and are in no mean.
        padding: Option<u32>,
    },
    /// `z = (a - mean) / sqrt(variance + epsilon) * gain + bias` of every row (Ba, Kiros, Hinton 2016).
    LayerNorm {
        /// Length of a row.
        width: usize,
        /// Keeps the root away from 0.
        epsilon: f32,
    },
    /// Self-attention of several heads (Vaswani et al. 2017, sections 3.2.1 and 3.2.2): with `[q, k, v] = a [W_q, W_k, W_v] + b` cut into heads of
    /// `width / heads` values, `z = concat_h(softmax(q_h k_h^T / sqrt(width / heads)) v_h) W_o + b_o`.
    Attention {
        /// Length of a vector.
        width: usize,
        /// Heads; divides `width`.
        heads: usize,
        /// Whether a position attends itself and those before it only.
        causal: bool,
    },
    /// A linear layer with bias on the vector of every position.
    PositionWise {
        /// Length of a vector read.
        inputs: usize,
        /// Length of a vector given.
        outputs: usize,
    },
    /// Keeps what it reads for the [`Self::Join`] that closes it; the layers between them are a residual branch.
    Fork,
    /// Adds what the fork kept.
    Join,
    /// One vector out of those of all positions.
    Positions(PositionPool),
}

/// How the vectors of a sequence become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PositionPool {
    /// Their mean, without those of padding.
    Mean,
    /// The first one.
    First,
}

/// What a layer's parameters are at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Uniform on `[-1/sqrt(n), 1/sqrt(n))`, n the inputs.
    Fan,
    /// The weight uniform below this bound, the bias 0.
    Uniform(f64),
    /// The weight 1, the bias 0.
    Norm,
}

/// Bound of the uniform law of tables: standard deviation 0.02, as that of GPT-2 and BERT.
const TABLE_BOUND: f64 = 0.034_641_016_151_377_546;

/// The parameters of a layer, or a part of them: a weight, and a bias where it has one.
#[derive(Clone)]
pub(in crate::model) struct Tensors {
    pub(in crate::model) shape: Vec<usize>,
    pub(in crate::model) outputs: usize,
    pub(in crate::model) bias: bool,
    pub(in crate::model) initial: Initial,
}

impl Layer {
    /// Parameters of this layer.
    #[must_use]
    pub fn parameter_count(self) -> usize {
        let of = |t: &Tensors| t.shape.iter().product::<usize>() + if t.bias { t.outputs } else { 0 };
        self.tensors().iter().map(of).sum()
    }

    /// Its parameters, in their order.
    pub(in crate::model) fn tensors(self) -> Vec<Tensors> {
        let linear =
            |inputs, outputs, bias| Tensors { shape: vec![inputs, outputs], outputs, bias, initial: Initial::Fan };
        let table = |rows, width| Tensors {
            shape: vec![rows, width],
            outputs: width,
            bias: false,
            initial: Initial::Uniform(TABLE_BOUND),
        };
        match self {
            Self::Linear { inputs, outputs, bias } => vec![linear(inputs, outputs, bias)],
            Self::PositionWise { inputs, outputs } => vec![linear(inputs, outputs, true)],
            Self::Conv2d { input, channels, kernel, .. } => vec![Tensors {
                shape: vec![channels, input.channels, kernel, kernel],
                outputs: channels,
                bias: true,
                initial: Initial::Fan,
            }],
            Self::Embedding { tokens, positions, width, .. } => vec![table(tokens, width), table(positions, width)],
            Self::LayerNorm { width, .. } => {
                vec![Tensors { shape: vec![width], outputs: width, bias: true, initial: Initial::Norm }]
            }
            Self::Attention { width, .. } => vec![linear(width, width, true); 4],
            Self::MaxPool2d { .. }
            | Self::Relu
            | Self::Gelu
            | Self::Dropout { .. }
            | Self::Fork
            | Self::Join
            | Self::Positions(_) => Vec::new(),
        }
    }

    /// Whether it is an attention.
    #[must_use]
    pub const fn is_attention(self) -> bool {
        matches!(self, Self::Attention { .. })
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
            Self::Embedding { positions, width, .. } => Shape { channels: 1, height: positions, width },
            Self::PositionWise { outputs, .. } => Shape { width: outputs, ..read },
            Self::Positions(_) => Shape::vector(read.width),
            Self::Relu
            | Self::Gelu
            | Self::Dropout { .. }
            | Self::LayerNorm { .. }
            | Self::Attention { .. }
            | Self::Fork
            | Self::Join => read,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Linear { outputs, .. } => write!(f, "linear {outputs}"),
            Self::Conv2d { channels, kernel, padding: 0, .. } => write!(f, "conv {channels} of {kernel}x{kernel}"),
            Self::Conv2d { channels, kernel, padding, .. } => {
                write!(f, "conv {channels} of {kernel}x{kernel} padded by {padding}")
            }
            Self::MaxPool2d { size, .. } => write!(f, "pool {size}"),
            Self::Relu => f.write_str("relu"),
            Self::Gelu => f.write_str("gelu"),
            Self::Dropout { share } => write!(f, "dropout {share}"),
            Self::Embedding { tokens, width, .. } => write!(f, "embedding of {tokens} tokens in {width}"),
            Self::LayerNorm { .. } => f.write_str("norm"),
            Self::Attention { heads, causal, .. } => {
                write!(f, "{}attention of {heads} heads", if causal { "causal " } else { "" })
            }
            Self::PositionWise { outputs, .. } => write!(f, "position-wise {outputs}"),
            Self::Fork => f.write_str("residual ("),
            Self::Join => f.write_str(") added"),
            Self::Positions(PositionPool::Mean) => f.write_str("mean of positions"),
            Self::Positions(PositionPool::First) => f.write_str("first position"),
        }
    }
}
