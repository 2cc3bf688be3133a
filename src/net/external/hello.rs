//! What a program is told at first.

use serde::Serialize;
use serde_json::{Value, json};

use super::{ExternalError, Job, message};
use crate::model::LocalConfig;
use crate::model::architecture::{Architecture, Layer, Shape};

/// How the tensors are to be read.
const LAYOUT: &str = "row major; a linear layer is z = a W + b with W [inputs, outputs] (the transpose of PyTorch's); a \
    convolution's W is [channels, input channels, rows, columns] (as PyTorch's); a map is read channel by channel";

/// The first message.
#[derive(Serialize)]
pub(super) struct Hello {
    veilsum: u32,
    kind: &'static str,
    program: String,
    model: String,
    /// Channels, height, width of a sample.
    input: [usize; 3],
    classes: usize,
    layers: Vec<Value>,
    layout: &'static str,
    tensors: Vec<Value>,
    parameters: usize,
    training: Value,
    seed: u64,
    bytes: u64,
}

impl Hello {
    pub(super) fn new(job: &Job, architecture: &Architecture) -> Self {
        let Shape { channels, height, width } = architecture.input();
        let tensors = architecture.tensors().into_iter();
        Self {
            veilsum: message::VERSION,
            kind: "hello",
            program: concat!("veilsum ", env!("CARGO_PKG_VERSION")).to_owned(),
            model: job.model.to_string(),
            input: [channels, height, width],
            classes: architecture.classes(),
            layers: architecture.layers().iter().map(layer).collect(),
            layout: LAYOUT,
            tensors: tensors.map(|t| json!({ "name": t.name, "shape": t.shape })).collect(),
            parameters: architecture.parameter_count(),
            training: training(&job.local),
            seed: job.seed >> 11,
            bytes: 0,
        }
    }

    pub(super) fn line(&self) -> Result<Vec<u8>, ExternalError> {
        let mut line = serde_json::to_vec(self).map_err(|source| ExternalError::Json { kind: "hello", source })?;
        line.push(b'\n');
        Ok(line)
    }
}

fn training(local: &LocalConfig) -> Value {
    json!({
        "epochs": local.epochs,
        "batch_size": local.batch_size,
        "learning_rate": decimal(local.learning_rate),
        "momentum": decimal(local.momentum),
        "weight_decay": decimal(local.weight_decay),
        "proximal": decimal(local.proximal),
    })
}

/// The shortest decimal number that is this one in single precision: 0.1, not 0.10000000149.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// A layer as JSON: `layer` is its kind, the other keys are its numbers.
fn layer(layer: &Layer) -> Value {
    match layer {
        Layer::Linear { inputs, outputs, bias } => {
            json!({ "layer": "linear", "inputs": inputs, "outputs": outputs, "bias": bias })
        }
        Layer::Conv2d { input, channels, kernel, padding } => json!({
            "layer": "conv", "input": [input.channels, input.height, input.width], "channels": channels, "kernel": kernel,
            "padding": padding
        }),
        Layer::MaxPool2d { input, size } => {
            json!({ "layer": "max-pool", "input": [input.channels, input.height, input.width], "size": size })
        }
        Layer::Relu => json!({ "layer": "relu" }),
        Layer::Gelu => json!({ "layer": "gelu" }),
        Layer::Dropout { share } => json!({ "layer": "dropout", "share": decimal(*share) }),
        Layer::Embedding { tokens, positions, width, padding } => json!({
            "layer": "embedding", "tokens": tokens, "positions": positions, "width": width, "padding": padding
        }),
        Layer::LayerNorm { width, epsilon } => {
            json!({ "layer": "layer-norm", "width": width, "epsilon": decimal(*epsilon) })
        }
        Layer::Attention { width, heads, causal } => {
            json!({ "layer": "attention", "width": width, "heads": heads, "causal": causal })
        }
        Layer::PositionWise { inputs, outputs } => {
            json!({ "layer": "position-wise", "inputs": inputs, "outputs": outputs })
        }
        Layer::Fork => json!({ "layer": "fork" }),
        Layer::Join => json!({ "layer": "join" }),
        Layer::Positions(pool) => json!({ "layer": "positions", "pool": pool }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::ModelConfig;

    pub(in crate::net) fn hello(model: ModelConfig) -> Value {
        let local = LocalConfig {
            epochs: 2,
            batch_size: 10,
            learning_rate: 0.1,
            momentum: 0.9,
            weight_decay: 0.0,
            proximal: 0.0,
        };
        let architecture = model.architecture().unwrap();
        let job = Job { model, local, seed: u64::MAX };
        let line = Hello::new(&job, &architecture).line().unwrap();
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_model_is_described_layer_by_layer_and_tensor_by_tensor() {
        let hello = hello(ModelConfig::DigitsMlp);
        assert_eq!(hello["kind"], "hello");
        assert_eq!(hello["layers"][0], json!({ "layer": "linear", "inputs": 64, "outputs": 32, "bias": true }));
        assert_eq!(hello["layers"][1]["layer"], "relu");
        assert_eq!(hello["tensors"][0], json!({ "name": "layers.0.weight", "shape": [64, 32] }));
        assert_eq!(hello["tensors"].as_array().unwrap().len(), 4);
        assert_eq!(hello["training"]["learning_rate"].to_string(), "0.1");
        assert_eq!(hello["seed"], (1u64 << 53) - 1);
    }

    #[test]
    fn every_named_model_has_tensors_for_all_of_its_parameters() {
        for model in ModelConfig::NAMED {
            let hello = hello(model);
            let sizes =
                hello["tensors"].as_array().unwrap().iter().map(|tensor| {
                    tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>()
                });
            assert_eq!(sizes.sum::<u64>(), hello["parameters"].as_u64().unwrap());
            assert!(hello["layers"].as_array().unwrap().iter().all(|layer| layer["layer"].is_string()));
        }
    }
}
