//! Layers as a user writes them, and what makes a list of them a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Layer, MAX_PARAMETERS, MAX_VALUES, ModelError, PositionPool, Shape};

/// A network layer by layer: `{"input": [1, 28, 28], "layers": [{"conv": {"channels": 32, "kernel": 5, "padding": 2}}, "relu",
/// {"max-pool": 2}, {"linear": 512}, "relu", {"dropout": 0.3}, {"linear": 10}]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerList {
    /// Channels, height and width of a sample, whose features lie channel by channel and row by row; `[1, 1, n]` for n
    /// features without such an order.
    pub input: [usize; 3],
    /// In the order of the forward pass. The last one is linear, its outputs the classes; or position-wise, its outputs the
    /// tokens of a language model.
    pub layers: Vec<LayerConfig>,
}

/// One layer; it takes its input's shape from the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LayerConfig {
    /// A convolution with stride 1 and a bias: `{"conv": {"channels": 32, "kernel": 5, "padding": 2}}`.
    Conv(ConvConfig),
    /// The largest value of every square of this side, which is also the stride: `{"max-pool": 2}`. What is left over at
    /// the right and the lower edge is not read.
    MaxPool(usize),
    /// A linear layer with a bias, by its outputs: `{"linear": 10}`. It reads maps as one vector: channel, row, column.
    Linear(usize),
    /// `max(z, 0)`.
    Relu,
    /// Drops this share of the values in training, and divides the others by what is left; in [0, 1): `{"dropout": 0.3}`.
    Dropout(f32),
    /// `z Phi(z)`.
    Gelu,
    /// Vectors of tokens and of their positions, the first layer of a model of sequences, whose `input` is `[1, 1, length]`:
    /// `{"embedding": {"tokens": 96, "width": 128}}`.
    Embedding(EmbeddingConfig),
    /// Every vector less its mean, over its standard deviation; then a gain and a bias. The number keeps the root away from 0:
    /// `{"layer-norm": 1e-5}`.
    LayerNorm(f32),
    /// Self-attention with its four linear layers: `{"attention": {"heads": 4, "causal": true}}`.
    Attention(AttentionConfig),
    /// A linear layer with a bias on the vector of every position, by its outputs: `{"position-wise": 512}`. As the last layer it makes a
    /// language model: every position predicts the next token.
    PositionWise(usize),
    /// Layers whose result is added to what they read: `{"residual": [{"layer-norm": 1e-5}, {"attention": {"heads": 4}}]}`.
    Residual(Vec<LayerConfig>),
    /// One vector out of those of all positions: `{"positions": "mean"}` or `{"positions": "first"}`.
    Positions(PositionPool),
}

/// The tables of a model of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// Tokens that there are, >= 1, at most 2^24: a token is an integer below.
    pub tokens: usize,
    /// Length of their vectors, >= 1.
    pub width: usize,
    /// The token that fills the end of a short sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<u32>,
}

/// Self-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// Heads, >= 1; their number divides the length of the vectors.
    pub heads: usize,
    /// Whether a position attends itself and those before it only.
    #[serde(default)]
    pub causal: bool,
}

/// A convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Maps that it gives, >= 1.
    pub channels: usize,
    /// Side of the square kernel, >= 1.
    pub kernel: usize,
    /// Zeros on each side of a map, fewer than `kernel`; `(kernel - 1) / 2` keeps the size.
    #[serde(default)]
    pub padding: usize,
}

impl LayerConfig {
    /// As JSON writes it.
    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| format!("{self:?}"))
    }
}

/// Why a layer is refused: what was expected there.
type Expected = String;

impl LayerList {
    /// The shape of a sample and the layers, each checked against what comes before it.
    pub(super) fn resolve(&self) -> Result<(Shape, Vec<Layer>), ModelError> {
        let [channels, height, width] = self.input;
        let input = Shape { channels, height, width };
        let refused = |place: String, found: String, expected: String| ModelError::Layers { place, found, expected };
        if product(&[channels, height, width]).is_none_or(|values| values == 0 || values > MAX_VALUES) {
            let expected = format!("channels, height and width, each at least 1, at most {MAX_VALUES} values together");
            return Err(refused("`input`".into(), format!("{:?}", self.input), expected));
        }
        let mut resolved =
            Resolved { layers: Vec::with_capacity(self.layers.len()), shape: input, kind: Kind::Map, parameters: 0 };
        resolved.add_all(&self.layers, "")?;
        let expected = match (resolved.layers.last(), resolved.layers.first()) {
            (Some(Layer::Linear { .. }), _) => return Ok((input, resolved.layers)),
            (Some(Layer::PositionWise { outputs, .. }), Some(Layer::Embedding { tokens, .. })) => {
                if outputs == tokens {
                    return Ok((input, resolved.layers));
                }
                format!("as many outputs as there are tokens, since every position predicts the next one: {tokens}")
            }
            _ => "a linear one, whose outputs are the classes, such as {\"linear\": 10}, or behind an embedding a position-wise one, whose outputs are the tokens".into(),
        };
        let found = self.layers.last().map_or_else(|| "absent".into(), LayerConfig::text);
        Err(refused("the last layer".into(), found, expected))
    }
}

/// What values between two layers are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Channels of maps, as the features are at first.
    Map,
    /// A vector for every position of a sequence.
    Sequence,
    /// One vector.
    Vector,
}

/// The layers up to a place.
struct Resolved {
    layers: Vec<Layer>,
    shape: Shape,
    kind: Kind,
    parameters: usize,
}

impl Resolved {
    /// Layers, of a residual branch those of `branch` ("3." in the third layer).
    fn add_all(&mut self, configs: &[LayerConfig], branch: &str) -> Result<(), ModelError> {
        for (k, config) in configs.iter().enumerate() {
            let number = format!("{branch}{}", k + 1);
            let refuse = |expected| ModelError::Layers {
                place: format!("layer {number} of {}", configs.len()),
                found: config.text(),
                expected,
            };
            if let LayerConfig::Residual(inner) = config {
                let read = (self.shape, self.kind);
                within(!inner.is_empty() && self.kind != Kind::Map, || {
                    "at least one layer, behind an embedding or a linear layer".into()
                })
                .map_err(refuse)?;
                self.layers.push(Layer::Fork);
                self.add_all(inner, &format!("{number}."))?;
                within(read == (self.shape, self.kind), || {
                    format!("layers that give as many values as they read: {} become {}", read.0, self.shape)
                })
                .map_err(refuse)?;
                self.layers.push(Layer::Join);
                continue;
            }
            let layer = resolve_layer(config, self.shape, self.kind, self.layers.is_empty()).map_err(refuse)?;
            self.kind = match layer {
                Layer::Linear { .. } | Layer::Positions(_) => Kind::Vector,
                Layer::Embedding { .. } => Kind::Sequence,
                _ => self.kind,
            };
            self.shape = layer.output(self.shape);
            // Weights were checked to be countable; the sum of two such counts is far from the end of the numbers.
            self.parameters += layer.parameter_count();
            within(self.parameters <= MAX_PARAMETERS, || {
                format!("at most {MAX_PARAMETERS} parameters up to it, and there are {}", self.parameters)
            })
            .map_err(refuse)?;
            self.layers.push(layer);
        }
        Ok(())
    }
}

/// The layer behind values of a shape and a kind; `first` if none is before it.
fn resolve_layer(config: &LayerConfig, shape: Shape, kind: Kind, first: bool) -> Result<Layer, Expected> {
    let sequence = |what: &str| {
        within(kind == Kind::Sequence, || format!("{what} behind an embedding, and before its vectors become one"))
    };
    match *config {
        LayerConfig::Linear(outputs) => {
            let inputs = shape.len();
            linear(inputs, outputs)?;
            Ok(Layer::Linear { inputs, outputs, bias: true })
        }
        LayerConfig::PositionWise(outputs) => {
            sequence("a position-wise layer")?;
            linear(shape.width, outputs)?;
            within(product(&[shape.height, outputs]).is_some_and(|v| v <= MAX_VALUES), || {
                format!("at most {MAX_VALUES} values a sample")
            })?;
            Ok(Layer::PositionWise { inputs: shape.width, outputs })
        }
        LayerConfig::Conv(conv) => {
            within(kind == Kind::Map, || {
                "no convolution behind a linear layer or an embedding, which leave no map".into()
            })?;
            resolve_conv(conv, shape)
        }
        LayerConfig::MaxPool(size) => {
            within(kind == Kind::Map, || "no pool behind a linear layer or an embedding, which leave no map".into())?;
            let largest = shape.height.min(shape.width);
            within((1..=largest).contains(&size), || format!("a size from 1 to {largest}: the map is {shape} here"))?;
            Ok(Layer::MaxPool2d { input: shape, size })
        }
        LayerConfig::Relu => Ok(Layer::Relu),
        LayerConfig::Gelu => Ok(Layer::Gelu),
        LayerConfig::Dropout(share) => {
            within((0.0..1.0).contains(&share), || "a share in [0, 1)".into())?;
            Ok(Layer::Dropout { share })
        }
        LayerConfig::Embedding(embedding) => {
            within(first, || "an embedding as the first layer only".into())?;
            resolve_embedding(embedding, shape)
        }
        LayerConfig::LayerNorm(epsilon) => {
            within(kind != Kind::Map, || "a norm behind an embedding or a linear layer".into())?;
            within(epsilon.is_finite() && epsilon > 0.0, || "a number > 0, such as 1e-5".into())?;
            Ok(Layer::LayerNorm { width: shape.width, epsilon })
        }
        LayerConfig::Attention(AttentionConfig { heads, causal }) => {
            sequence("an attention")?;
            let width = shape.width;
            within(heads >= 1 && width.is_multiple_of(heads.max(1)), || {
                format!("a number of heads that divides the {width} values of a vector")
            })?;
            within(product(&[width, width, 4]).is_some_and(|count| count <= MAX_PARAMETERS), || {
                format!("at most {MAX_PARAMETERS} parameters")
            })?;
            within(product(&[heads, shape.height, shape.height]).is_some_and(|v| v <= MAX_VALUES), || {
                format!("at most {MAX_VALUES} weights of positions for positions")
            })?;
            Ok(Layer::Attention { width, heads, causal })
        }
        LayerConfig::Positions(pool) => {
            sequence("a pool of positions")?;
            Ok(Layer::Positions(pool))
        }
        // Its layers stand in its place.
        LayerConfig::Residual(_) => Err("layers".into()),
    }
}

/// That a linear layer is none too large.
fn linear(inputs: usize, outputs: usize) -> Result<(), Expected> {
    within(outputs >= 1, || "at least 1 output".into())?;
    let count = outputs.checked_mul(inputs + 1).filter(|&count| count <= MAX_PARAMETERS);
    within(count.is_some() && outputs <= MAX_VALUES, || {
        format!("fewer outputs: {inputs} inputs times the outputs are at most {MAX_PARAMETERS} parameters")
    })
}

fn resolve_embedding(config: EmbeddingConfig, shape: Shape) -> Result<Layer, Expected> {
    let EmbeddingConfig { tokens, width, padding } = config;
    let positions = shape.width;
    within(shape == Shape::vector(positions), || format!("an `input` of [1, 1, length], and it is {shape}"))?;
    within((1..=1 << 24).contains(&tokens) && width >= 1, || {
        "1 to 2^24 tokens, and vectors of at least 1 value".into()
    })?;
    within(padding.is_none_or(|token| (token as usize) < tokens), || format!("a padding below {tokens}, the tokens"))?;
    let count = product(&[tokens, width]).zip(product(&[positions, width])).and_then(|(e, p)| e.checked_add(p));
    within(count.is_some_and(|count| count <= MAX_PARAMETERS), || format!("at most {MAX_PARAMETERS} parameters"))?;
    within(positions * width <= MAX_VALUES, || format!("at most {MAX_VALUES} values a sample"))?;
    Ok(Layer::Embedding { tokens, positions, width, padding })
}

fn resolve_conv(conv: ConvConfig, shape: Shape) -> Result<Layer, Expected> {
    let ConvConfig { channels, kernel, padding } = conv;
    within(channels >= 1 && kernel >= 1, || "at least 1 channel and a kernel of at least 1".into())?;
    within(padding < kernel, || format!("a padding below the kernel, 0 to {}", kernel - 1))?;
    // A padding below a kernel beyond these numbers would be one that no map holds.
    let side = |length: usize| padding.checked_mul(2).and_then(|both| both.checked_add(length));
    let sides = side(shape.height).zip(side(shape.width));
    let (high, wide) = sides.filter(|&(h, w)| kernel <= h && kernel <= w).ok_or_else(|| {
        let most = shape.height.min(shape.width);
        format!("a kernel that fits into the map, {shape} here: at most {most} and twice the padding")
    })?;
    let (values, padded) = (product(&[channels, high, wide]), product(&[shape.channels, high, wide]));
    within(values.max(padded).is_some_and(|v| v <= MAX_VALUES) && values.is_some() && padded.is_some(), || {
        format!("at most {MAX_VALUES} values a sample, with the padding of {shape}")
    })?;
    let weights = product(&[channels, shape.channels, kernel, kernel]).and_then(|w| w.checked_add(channels));
    within(weights.is_some_and(|w| w <= MAX_PARAMETERS), || format!("at most {MAX_PARAMETERS} parameters"))?;
    Ok(Layer::Conv2d { input: shape, channels, kernel, padding })
}

/// `expected` unless a condition holds.
fn within(holds: bool, expected: impl FnOnce() -> Expected) -> Result<(), Expected> {
    if holds { Ok(()) } else { Err(expected()) }
}

/// The product, if it is a number of this machine.
fn product(factors: &[usize]) -> Option<usize> {
    factors.iter().try_fold(1usize, |product, &factor| product.checked_mul(factor))
}
