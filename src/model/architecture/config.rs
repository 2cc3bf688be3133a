//! Models by name, and their text.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list::{ConvConfig, LayerConfig, LayerList};
use super::transformer::{BertConfig, BertMiniConfig, TransformerConfig};
use super::{Architecture, ModelError};

/// A model by name, a multilayer perceptron by its sizes, or a list of layers. In JSON: `"mnist_mlp"`,
/// `{"mlp": [64, 32, 10]}` or `{"layers": {"input": [1, 8, 8], "layers": [{"conv": {"channels": 8, "kernel": 3}}, "relu",
/// {"max-pool": 2}, {"linear": 10}]}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// 784-80-10 with relu: 63,610 parameters.
    MnistMlp,
    /// 784-200-200-10 with relu: 199,210 parameters.
    #[serde(rename = "mnist_2nn")]
    Mnist2nn,
    /// 64-32-10 with relu: 2,410 parameters, for the 8x8 digits.
    DigitsMlp,
    /// 1x28x28: two convolutions of 5x5 (32 and 64 channels, padding 2), relu and a 2x2 pool after each, 3136-512-10 with
    /// relu: 1,663,370 parameters (McMahan et al. 2017).
    MnistCnn,
    /// 3x32x32, LeNet: two convolutions of 5x5 (6 and 16 channels), relu and a 2x2 pool after each, 400-120-84-10 with
    /// relu: 62,006 parameters.
    CifarCnn,
    /// 3x32x32: three convolutions of 3x3 (32, 64 and 128 channels, padding 1), relu and a 2x2 pool after each, dropout 0.3,
    /// 2048-1028 with relu, dropout 0.3, 1028-10: 2,209,910 parameters.
    CifarCnnLarge,
    /// 1x28x28: six convolutions of 3x3 (32 channels, padding 1) with relu, a 2x2 pool after each second one (28, 14, 7, 3),
    /// 288-512-10 with relu: 199,658 parameters.
    MpheCnn,
    /// A language model of characters: `{"gpt": {"tokens": 96, "length": 64, "width": 128, "blocks": 4, "heads": 4}}`, 826,208
    /// parameters.
    CharGpt,
    /// A language model by its sizes.
    Gpt(TransformerConfig),
    /// MiniLM with a linear layer on top: 22,417,152 parameters at 128 positions, and 385 for each class.
    BertMini(BertMiniConfig),
    /// BERT by its sizes.
    Bert(BertConfig),
    /// Sizes from the input to the classes, relu between linear layers: `{"mlp": [64, 32, 10]}`.
    Mlp(Vec<usize>),
    /// Layers one by one.
    Layers(LayerList),
}

impl ModelConfig {
    /// Every model that has a name.
    pub const NAMED: [Self; 8] = [
        Self::MnistMlp,
        Self::Mnist2nn,
        Self::DigitsMlp,
        Self::MnistCnn,
        Self::CifarCnn,
        Self::CifarCnnLarge,
        Self::MpheCnn,
        Self::CharGpt,
    ];

    /// The validated layers.
    ///
    /// # Errors
    /// [`ModelError::Sizes`] if a list of sizes is no model (see [`Architecture::mlp`]), [`ModelError::Layers`] if a list of
    /// layers is none.
    pub fn architecture(&self) -> Result<Architecture, ModelError> {
        match self {
            Self::MnistMlp => Architecture::mlp(&[784, 80, 10]),
            Self::Mnist2nn => Architecture::mlp(&[784, 200, 200, 10]),
            Self::DigitsMlp => Architecture::mlp(&[64, 32, 10]),
            Self::Mlp(sizes) => Architecture::mlp(sizes),
            Self::Layers(list) => Architecture::from_list(list),
            Self::MnistCnn => Architecture::from_list(&mnist_cnn()),
            Self::CifarCnn => Architecture::from_list(&cifar_cnn()),
            Self::CifarCnnLarge => Architecture::from_list(&cifar_cnn_large()),
            Self::MpheCnn => Architecture::from_list(&mphe_cnn()),
            Self::CharGpt => Architecture::from_list(&TransformerConfig::CHAR_GPT.list()?),
            Self::Gpt(config) => Architecture::from_list(&config.list()?),
            Self::BertMini(mini) => Architecture::from_list(&mini.sizes().list()?),
            Self::Bert(sizes) => Architecture::from_list(&sizes.list()?),
        }
    }

    /// The sizes, of a model that is BERT.
    pub(in crate::model) fn bert(&self) -> Option<BertConfig> {
        match self {
            Self::BertMini(mini) => Some(mini.sizes()),
            Self::Bert(sizes) => Some(sizes.clone()),
            _ => None,
        }
    }

    /// The name, of a model that has one.
    const fn name(&self) -> Option<&'static str> {
        match self {
            Self::MnistMlp => Some("mnist_mlp"),
            Self::Mnist2nn => Some("mnist_2nn"),
            Self::DigitsMlp => Some("digits_mlp"),
            Self::MnistCnn => Some("mnist_cnn"),
            Self::CifarCnn => Some("cifar_cnn"),
            Self::CifarCnnLarge => Some("cifar_cnn_large"),
            Self::MpheCnn => Some("mphe_cnn"),
            Self::CharGpt => Some("char_gpt"),
            Self::Mlp(_) | Self::Layers(_) | Self::Gpt(_) | Self::BertMini(_) | Self::Bert(_) => None,
        }
    }
}

impl fmt::Display for ModelConfig {
    /// The name, or the sizes joined by `-`, or JSON; [`FromStr`] reads all three.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Mlp(sizes)) => f.write_str(&dashed(sizes)),
            (None, other) => f.write_str(&serde_json::to_string(other).map_err(|_| fmt::Error)?),
        }
    }
}

impl FromStr for ModelConfig {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        if let Some(named) = Self::NAMED.into_iter().find(|model| model.name() == Some(text)) {
            return Ok(named);
        }
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text).map_err(ModelError::Json);
        }
        let sizes: Result<Vec<usize>, _> = text.split('-').map(str::parse).collect();
        match sizes {
            Ok(sizes) if sizes.len() >= 2 => Ok(Self::Mlp(sizes)),
            _ => {
                let names: Vec<&str> = Self::NAMED.iter().filter_map(Self::name).collect();
                Err(ModelError::UnknownModel {
                    name: text.to_owned(),
                    known: format!("{}, or sizes like 64-32-10", names.join(", ")),
                })
            }
        }
    }
}

/// Sizes joined by `-`.
pub(super) fn dashed(sizes: &[usize]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-")
}

/// A convolution with relu.
fn conv(channels: usize, kernel: usize, padding: usize) -> [LayerConfig; 2] {
    [LayerConfig::Conv(ConvConfig { channels, kernel, padding }), LayerConfig::Relu]
}

/// A hidden linear layer with relu.
const fn hidden(outputs: usize) -> [LayerConfig; 2] {
    [LayerConfig::Linear(outputs), LayerConfig::Relu]
}

/// Halves height and width.
const HALVE: [LayerConfig; 1] = [LayerConfig::MaxPool(2)];

/// Ten classes.
const CLASSES: [LayerConfig; 1] = [LayerConfig::Linear(10)];

fn list(input: [usize; 3], parts: &[&[LayerConfig]]) -> LayerList {
    LayerList { input, layers: parts.concat() }
}

fn mnist_cnn() -> LayerList {
    list([1, 28, 28], &[&conv(32, 5, 2), &HALVE, &conv(64, 5, 2), &HALVE, &hidden(512), &CLASSES])
}

fn cifar_cnn() -> LayerList {
    list([3, 32, 32], &[&conv(6, 5, 0), &HALVE, &conv(16, 5, 0), &HALVE, &hidden(120), &hidden(84), &CLASSES])
}

fn cifar_cnn_large() -> LayerList {
    const DROP: [LayerConfig; 1] = [LayerConfig::Dropout(0.3)];
    let maps: [&[LayerConfig]; 6] = [&conv(32, 3, 1), &HALVE, &conv(64, 3, 1), &HALVE, &conv(128, 3, 1), &HALVE];
    list([3, 32, 32], &[&maps.concat(), &DROP, &hidden(1028), &DROP, &CLASSES])
}

fn mphe_cnn() -> LayerList {
    let pair: [&[LayerConfig]; 3] = [&conv(32, 3, 1), &conv(32, 3, 1), &HALVE];
    let pair = pair.concat();
    list([1, 28, 28], &[&pair, &pair, &pair, &hidden(512), &CLASSES])
}
