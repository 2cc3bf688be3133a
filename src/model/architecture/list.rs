//! Layers as a user writes them, and what makes a list of them a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Layer, MAX_PARAMETERS, MAX_VALUES, ModelError, Shape};

/// A network layer by layer: `{"input": [1, 28, 28], "layers": [{"conv": {"channels": 32, "kernel": 5, "padding": 2}}, "relu",
/// {"max-pool": 2}, {"linear": 512}, "relu", {"dropout": 0.3}, {"linear": 10}]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerList {
    /// Channels, height and width of a sample, whose features lie channel by channel and row by row; `[1, 1, n]` for n
    /// features without such an order.
    pub input: [usize; 3],
    /// In the order of the forward pass. The last one is linear; its outputs are the classes.
    pub layers: Vec<LayerConfig>,
}

/// One layer; it takes its input's shape from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        let (mut shape, mut mapped, mut parameters) = (input, true, 0usize);
        let mut layers = Vec::with_capacity(self.layers.len());
        for (k, config) in self.layers.iter().enumerate() {
            let place = || format!("layer {} of {}", k + 1, self.layers.len());
            let refuse = |expected| refused(place(), config.text(), expected);
            let layer = resolve_layer(config, shape, mapped).map_err(refuse)?;
            mapped &= !matches!(layer, Layer::Linear { .. });
            shape = layer.output(shape);
            // Weights were checked to be countable; the sum of two such counts is far from the end of the numbers.
            parameters += layer.parameter_count();
            if parameters > MAX_PARAMETERS {
                return Err(refuse(format!(
                    "at most {MAX_PARAMETERS} parameters up to it, and there are {parameters}"
                )));
            }
            layers.push(layer);
        }
        match (layers.last(), self.layers.last()) {
            (Some(Layer::Linear { .. }), _) => Ok((input, layers)),
            (_, last) => Err(refused(
                "the last layer".into(),
                last.map_or_else(|| "absent".into(), LayerConfig::text),
                "a linear one, whose outputs are the classes, such as {\"linear\": 10}".into(),
            )),
        }
    }
}

/// The layer behind values of a shape; `mapped` while no linear layer has made a vector of them.
fn resolve_layer(config: &LayerConfig, shape: Shape, mapped: bool) -> Result<Layer, Expected> {
    match *config {
        LayerConfig::Linear(outputs) => {
            let inputs = shape.len();
            within(outputs >= 1, || "at least 1 output".into())?;
            let count = outputs.checked_mul(inputs + 1).filter(|&count| count <= MAX_PARAMETERS);
            within(count.is_some() && outputs <= MAX_VALUES, || {
                format!("fewer outputs: {inputs} inputs times the outputs are at most {MAX_PARAMETERS} parameters")
            })?;
            Ok(Layer::Linear { inputs, outputs, bias: true })
        }
        LayerConfig::Conv(conv) => {
            within(mapped, || "no convolution behind a linear layer, which leaves no map".into())?;
            resolve_conv(conv, shape)
        }
        LayerConfig::MaxPool(size) => {
            within(mapped, || "no pool behind a linear layer, which leaves no map".into())?;
            let largest = shape.height.min(shape.width);
            within((1..=largest).contains(&size), || format!("a size from 1 to {largest}: the map is {shape} here"))?;
            Ok(Layer::MaxPool2d { input: shape, size })
        }
        LayerConfig::Relu => Ok(Layer::Relu),
        LayerConfig::Dropout(share) => {
            within((0.0..1.0).contains(&share), || "a share in [0, 1)".into())?;
            Ok(Layer::Dropout { share })
        }
    }
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
