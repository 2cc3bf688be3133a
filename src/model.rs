//! Local training behind `trait LocalTrainer`. Only this room names the autodiff framework.
//!
//! [`architecture`] holds layer lists, parameter counts and the layout of the flat weight vector,
//! `burn_trainer` the one trainer on the autodiff framework, [`cpu`] the one without, [`evaluate`] loss, accuracy and
//! confusion, [`weights`] the safetensors files, [`start`] models that begin with one and what of them is trained. A trainer of
//! your own implements [`LocalTrainer`]:
//! see `examples/custom_trainer.rs`.

pub mod architecture;
#[cfg(feature = "device-training")]
pub mod burn_trainer;
mod clipped;
pub mod cpu;
pub mod evaluate;
mod local;
pub mod start;
pub mod weights;

use std::path::PathBuf;
use std::sync::Arc;

pub use architecture::{Architecture, LayerList, ModelConfig};
pub use clipped::{ClippedSum, IntegerClip};
pub use evaluate::evaluate_dataset;
pub use start::StartConfig;

use rayon::prelude::*;

#[cfg(feature = "device-training")]
use crate::backend::BackendKind;
use crate::backend::{Backend, BackendError, Rows};
use crate::data::Batch;
use crate::files::FileError;
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
    /// mu of FedProx (Li et al. 2020, equation 2): the loss has `mu / 2 |w - w_t|^2` more, which holds a client near the
    /// server's model w_t; >= 0.
    pub proximal: f32,
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

/// Clients that train in one call.
pub struct Clients<'a> {
    /// How many.
    pub count: usize,
    /// The samples of client `i`, gathered when it is its turn.
    pub shard: &'a (dyn Fn(usize) -> Batch + Sync),
    /// The key of the order of its mini-batches, and of what else its training draws.
    pub key: &'a (dyn Fn(usize) -> StreamKey + Sync),
}

/// A model and how to train it. Weights are one flat vector, layer by layer.
pub trait LocalTrainer: Send + Sync {
    /// Number of parameters d.
    fn parameter_count(&self) -> usize;

    /// Initial weights, drawn from the addressed keystream `key`.
    fn init(&self, key: &StreamKey) -> Vec<f32>;

    /// All weights of the model that a run leaves, where some of them are not trained: by default these.
    fn saved(&self, weights: &[f32]) -> Vec<f32> {
        weights.to_vec()
    }

    /// Whether training draws besides the order of mini-batches, as dropout does: then a gradient needs a key, and
    /// [`Self::mean_rows`] takes the place of [`Self::gradient_rows`].
    fn draws(&self) -> bool {
        false
    }

    /// The gradient of the loss of every sample of `batch`: `[len x d]`, one row a sample.
    ///
    /// Rows carry NaN where weights or features do; the encode kernel turns such a row into zero.
    ///
    /// # Errors
    /// Weights or a batch of another size, a label out of range; a trainer that [draws](Self::draws).
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError>;

    /// Whether [`Self::clipped_sum`] is there.
    fn clips_inside(&self) -> bool {
        false
    }

    /// The exact sum of integer rows of the samples of `batch` at `chosen`, each row its sample's gradient times `2^scale_log2`,
    /// shrunk to an L2 norm of at most `bound`: no row need be in memory. By default an error.
    ///
    /// Three things hold exactly, not up to rounding: a row is a function of its sample and the weights, its norm is at
    /// most `bound`, and the result is the sum of the rows modulo 2^64. A row with NaN or an infinity in what it is computed from is
    /// zero, and counted. How near a row is to the clipped gradient says the trainer.
    ///
    /// # Errors
    /// As [`Self::gradient_rows`]; an index beyond the batch; a trainer without it.
    fn clipped_sum(
        &self,
        weights: &[f32],
        batch: &Batch,
        chosen: &[usize],
        clip: &IntegerClip,
    ) -> Result<ClippedSum, ModelError> {
        let _ = (weights, batch, chosen, clip);
        Err(ModelError::ClipsOutside)
    }

    /// `w_after - w_before` of local SGD on `shard`; the order of mini-batches comes from `key`.
    ///
    /// A shard without samples gives zero.
    ///
    /// # Errors
    /// As [`Self::gradient_rows`], and a value of `config` outside its range.
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError>;

    /// The same where every step goes along `g + correction` in the place of the gradient g (SCAFFOLD, Karimireddy et al. 2020): by
    /// default an error.
    ///
    /// # Errors
    /// As [`Self::local_delta`], a correction of another length than the weights, a trainer without it.
    fn corrected_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        correction: &[f32],
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        let _ = (weights, shard, config, correction, key);
        Err(ModelError::Uncorrected)
    }

    /// [`Self::local_delta`] of several clients, one row each, on the host or on a device: by default on all cores.
    ///
    /// # Errors
    /// As [`Self::local_delta`].
    fn delta_rows(&self, weights: &[f32], clients: &Clients<'_>, config: &LocalConfig) -> Result<Rows, ModelError> {
        let dim = self.parameter_count();
        let delta = |i| {
            let shard = (clients.shard)(i);
            if shard.is_empty() {
                return Ok(vec![0.0; dim]);
            }
            self.local_delta(weights, &shard, config, &(clients.key)(i))
        };
        let rows = (0..clients.count).into_par_iter().map(delta).collect::<Result<Vec<_>, _>>()?;
        Ok(Rows::dense(rows.concat(), clients.count, dim)?)
    }

    /// The gradient of the mean loss over every client's samples, one row each, on the host or on a device; zero without
    /// samples. By default the mean of [`Self::gradient_rows`], which are on the host then.
    ///
    /// # Errors
    /// As [`Self::gradient_rows`].
    fn mean_rows(&self, weights: &[f32], clients: &Clients<'_>) -> Result<Rows, ModelError> {
        let dim = self.parameter_count();
        let mut out = vec![0.0f32; clients.count * dim];
        for (i, mean) in out.chunks_mut(dim.max(1)).enumerate() {
            let shard = (clients.shard)(i);
            for start in (0..shard.len()).step_by(MEAN_PART) {
                let part = shard.select(start..shard.len().min(start + MEAN_PART));
                let rows = self.gradient_rows(weights, &part)?;
                for j in 0..rows.rows {
                    mean.iter_mut().zip(rows.row(j)?).for_each(|(m, &g)| *m += g);
                }
            }
            let scale = 1.0 / shard.len().max(1) as f32;
            mean.iter_mut().for_each(|m| *m *= scale);
        }
        Ok(Rows::dense(out, clients.count, dim)?)
    }

    /// One score a class for every sample of `batch`: `[len x classes]`, row major.
    ///
    /// # Errors
    /// As [`Self::gradient_rows`].
    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError>;

    /// Sum of the losses and number of correct predictions on `batch`: by default the cross entropy
    /// of [`Self::logits`] in double precision.
    ///
    /// # Errors
    /// As [`Self::gradient_rows`].
    fn evaluate(&self, weights: &[f32], batch: &Batch) -> Result<(f64, usize), ModelError> {
        let logits = self.logits(weights, batch)?;
        evaluate::cross_entropy(&logits, &batch.labels, logits.len() / batch.len().max(1))
    }
}

/// Samples whose gradient rows are in memory at a time where only their mean is wanted.
const MEAN_PART: usize = 64;

/// The trainer of a configured model on the device of a backend (`burn_trainer::CudaTrainer`,
/// `burn_trainer::WgpuTrainer`).
///
/// # Errors
/// [`ModelError::NoFramework`] in a build without the feature `device-training`,
/// [`ModelError::Sizes`] and [`ModelError::Layers`] if the sizes or layers are no model, [`ModelError::LinearOnly`] for layers
/// that are trained on the processor only, [`ModelError::Backend`] for a backend without a device, for a device that
/// refuses, and for what the framework needs on CUDA and is missing here, with its packages.
pub fn trainer_on(config: &ModelConfig, backend: Arc<dyn Backend>) -> Result<Arc<dyn LocalTrainer>, ModelError> {
    trained_there(config.architecture()?, backend)
}

#[cfg(feature = "device-training")]
fn trained_there(architecture: Architecture, backend: Arc<dyn Backend>) -> Result<Arc<dyn LocalTrainer>, ModelError> {
    Ok(match backend.kind() {
        BackendKind::Cuda => Arc::new(burn_trainer::CudaTrainer::new(architecture, backend)?),
        _ => Arc::new(burn_trainer::WgpuTrainer::new(architecture, backend)?),
    })
}

#[cfg(not(feature = "device-training"))]
fn trained_there(_: Architecture, _: Arc<dyn Backend>) -> Result<Arc<dyn LocalTrainer>, ModelError> {
    Err(ModelError::NoFramework)
}

/// The trainer of a configured model, on the CPU.
///
/// # Errors
/// [`ModelError::Sizes`] and [`ModelError::Layers`] if the sizes or layers are no model.
pub fn trainer_for(config: &ModelConfig) -> Result<Arc<dyn LocalTrainer>, ModelError> {
    Ok(Arc::new(cpu::CpuTrainer::new(config.architecture()?)))
}

/// The trainer of a configured model that begins with the weights of a file, on the CPU, and the SHA-256 of the file.
///
/// # Errors
/// As [`trainer_for`]; a file that cannot be read or has another hash, tensors other than the model's, a part to be trained
/// that the model does not have.
pub fn trainer_from(config: &ModelConfig, start: &StartConfig) -> Result<(Arc<dyn LocalTrainer>, String), ModelError> {
    let start = start::Start::read(config, start)?;
    let hash = start.sha256().to_owned();
    Ok((Arc::new(cpu::CpuTrainer::starting(start)), hash))
}

/// Samples for one call of [`LocalTrainer::gradient_rows`], so that its rows stay near 24 MiB: a multiple
/// of 32, at least 32.
///
/// Allocators keep blocks up to 32 MiB for the next call. Larger ones come from the system and go back to
/// it, and their page faults cost ten times the arithmetic: 64,000 rows/s of 63,610 weights at 64 samples
/// a call, 8,000 at 256, on one core.
#[must_use]
pub const fn samples_per_call(parameter_count: usize) -> usize {
    const BYTES: usize = 24 << 20;
    let row = if parameter_count == 0 { 4 } else { parameter_count.saturating_mul(4) };
    let whole = BYTES / row / 32 * 32;
    if whole < 32 { 32 } else { whole }
}

/// What can go wrong in training and in weight files.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A weight file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
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
    /// A trainer whose steps cannot be corrected.
    #[error(
        "this trainer takes no control variates: `scaffold` trains on the processor (`\"train_on\": \"cpu\"`), or with `corrected_delta`"
    )]
    Uncorrected,
    /// A trainer that gives gradient rows and no clipped sums.
    #[error(
        "this trainer does not clip inside: `\"clipping\": \"ghost\"` takes a model without dropout that trains on the processor (`\"train_on\": \"cpu\"`), or a trainer with `clipped_sum`; `materialised` takes any"
    )]
    ClipsOutside,
    /// A build that trains on no device.
    #[error(
        "this build of veilsum has no training on devices: build it with `--features device-training` (a default one), or take `\"train_on\": \"cpu\"`"
    )]
    NoFramework,
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
    /// A feature that is no token of a model of sequences.
    #[error("sample {sample}, position {position} is {found}, expected a token: a whole number from 0 to {}", tokens - 1)]
    Token {
        /// Index in the batch.
        sample: usize,
        /// Index in the sample.
        position: usize,
        /// The feature.
        found: f32,
        /// Number of tokens.
        tokens: usize,
    },
    /// No model of that name.
    #[error("unknown model `{name}`; the models are {known}")]
    UnknownModel {
        /// Name asked for.
        name: String,
        /// Names that exist.
        known: String,
    },
    /// Layer sizes that are no model.
    #[error("layer sizes `{found}`: expected two or more sizes, each at least 1, and at most {limit} parameters")]
    Sizes {
        /// The sizes.
        found: String,
        /// Most parameters.
        limit: usize,
    },
    /// A list of layers that is no model.
    #[error("{place} of the model is {found}, expected {expected}")]
    Layers {
        /// Which layer, counted from 1.
        place: String,
        /// The layer, as JSON.
        found: String,
        /// What is right there.
        expected: String,
    },
    /// A model as JSON that cannot be read.
    #[error("the model cannot be read: {0}")]
    Json(serde_json::Error),
    /// A model with layers that a trainer lacks.
    #[error(
        "{what} takes linear layers and relu only, and model {model} has others: it trains with `\"train_on\": \"cpu\"`"
    )]
    LinearOnly {
        /// Which trainer.
        what: &'static str,
        /// The model.
        model: String,
    },
    /// Gradient rows without a key, of a model whose training draws.
    #[error("the gradient rows of model {model} need a key, since it has dropout: the rows of clients have one")]
    Draws {
        /// The model.
        model: String,
    },
    /// A data set that the model cannot read.
    #[error(
        "model {model} takes {inputs} features and gives {outputs} classes, but data set {data} has {dim} features and {classes} classes"
    )]
    DataMismatch {
        /// The model's sizes.
        model: String,
        /// Features that it takes.
        inputs: usize,
        /// Classes that it gives.
        outputs: usize,
        /// Name of the data set.
        data: String,
        /// Its features.
        dim: usize,
        /// Its classes.
        classes: usize,
    },
    /// Nothing to evaluate on.
    #[error("data set {data} has no samples")]
    NoSamples {
        /// Name of the data set.
        data: String,
    },
    /// A setting outside its range.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// Its range.
        expected: &'static str,
        /// Value found.
        found: f64,
    },
    /// A buffer refused by the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A weight file that could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is no (whole) safetensors file.
    #[error("{path} is no whole safetensors file ({bytes} bytes): {source}")]
    Container {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The reader's reason.
        source: safetensors::SafeTensorError,
    },
    /// A file of weights to start from that is another one.
    #[error("{path} has SHA-256 {found}, expected {expected} (`start.sha256`)")]
    StartHash {
        /// The file.
        path: PathBuf,
        /// The hash that was asked for, in hex.
        expected: String,
        /// That of the file.
        found: String,
    },
    /// A file of weights to start from that lacks a tensor.
    #[error("{path} has no tensor {name}, which model {model} starts from")]
    StartTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The model.
        model: String,
    },
    /// A safetensors file without the description of a veilsum model.
    #[error("{path} has no `{key}` entry in its metadata: it was not written by veilsum")]
    NoDescription {
        /// The file.
        path: PathBuf,
        /// Metadata key that is missing.
        key: &'static str,
    },
    /// A description that cannot be read.
    #[error("{path}: the description of the model cannot be read: {source}")]
    Description {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// Tensors of other names than the model's.
    #[error("{path} holds the tensors {found}, but model {model} has {expected}")]
    TensorNames {
        /// The file.
        path: PathBuf,
        /// The model's name.
        model: String,
        /// Names of the model.
        expected: String,
        /// Names in the file.
        found: String,
    },
    /// A tensor of another shape or type.
    #[error("{path}: tensor {name} is {found}, expected {expected}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Type and shape of the model.
        expected: String,
        /// Type and shape in the file.
        found: String,
    },
    /// Weights that are NaN or infinite.
    #[error("{path}: {count} of {total} values of tensor {name} are NaN or infinite, the first at index {first}")]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// How many values.
        count: usize,
        /// Values of the tensor.
        total: usize,
        /// Index of the first, row major.
        first: usize,
    },
}
