//! Local training behind `trait LocalTrainer`. Only this room names the autodiff framework.
//!
//! Owner of: `architecture` (layer lists, parameter counts), `burn` (the one trainer), `weights`
//! (safetensors).

use crate::backend::Rows;
use crate::data::Batch;
use crate::math::prg::StreamKey;

/// What a client does locally in FedAvg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalConfig {
    /// Passes over the shard, >= 1.
    pub epochs: u32,
    /// Mini-batch size B, >= 1.
    pub batch_size: usize,
    /// Step size of the local SGD, > 0.
    pub learning_rate: f32,
    /// Momentum of the local SGD, in `[0, 1)`.
    pub momentum: f32,
    /// L2 weight decay, >= 0.
    pub weight_decay: f32,
}

/// Loss and accuracy on a data set.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Mean cross entropy, natural log.
    pub loss: f64,
    /// Share of samples whose largest logit is the label.
    pub accuracy: f64,
    /// Samples seen.
    pub samples: usize,
}

/// A model and how to train it. Weights are one flat vector, layer by layer.
pub trait LocalTrainer: Send + Sync {
    /// Number of parameters d.
    fn parameter_count(&self) -> usize;

    /// Initial weights, drawn from the addressed keystream `key`.
    fn init(&self, key: &StreamKey) -> Vec<f32>;

    /// The gradient of the loss of every sample of `batch`, one row a sample.
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError>;

    /// `w_after - w_before` of local SGD on `shard`; the order of mini-batches comes from `key`.
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError>;

    /// Mean loss and number of correct predictions on `batch`, as `(sum of losses, correct)`.
    fn evaluate(&self, weights: &[f32], batch: &Batch) -> Result<(f64, usize), ModelError>;
}

/// What can go wrong in training and in weight files.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Weights or a batch of another size.
    #[error("{what} has {found} values, expected {expected}")]
    WrongLength {
        /// Which argument.
        what: &'static str,
        /// Expected count.
        expected: usize,
        /// Count found.
        found: usize,
    },
    /// A label outside `0..classes`.
    #[error("sample {sample} has label {found}, but the model has {classes} classes")]
    Label {
        /// Index in the batch.
        sample: usize,
        /// Label found.
        found: u32,
        /// Number of outputs.
        classes: usize,
    },
    /// No model of that name.
    #[error("unknown model `{name}`; the models are {known}")]
    UnknownModel {
        /// Name asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
}
