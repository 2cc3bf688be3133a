//! What a user writes: an experiment as JSON, overridden from the command line, checked and resolved.

pub mod asynchrony;
pub mod build;
pub mod design;
pub mod federation;
pub mod overrides;
pub mod resolve;
mod samples;
pub mod schedule;
pub mod sweep;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::BackendError;
use crate::data::partition::PartitionConfig;
use crate::data::{DataConfig, DataError};
use crate::fl::FlError;
use crate::fl::adaptive::AdaptiveClip;
use crate::fl::asynchrony::AsynchronyConfig;
use crate::fl::attack::AdversaryConfig;
use crate::fl::cohort::Sampling;
use crate::fl::compress::Compression;
use crate::fl::dp_sgd::Clipping;
use crate::fl::dropout::Dropout;
use crate::fl::optimizer::OptimizerConfig;
use crate::fl::plan::NoisePlacement;
use crate::fl::protocol::Protocol;
use crate::fl::rule::AggregationConfig;
use crate::math::prg::PrgError;
use crate::model::architecture::ModelConfig;
use crate::model::{ModelError, StartConfig};
use crate::privacy::matrix::MatrixKind;
use crate::privacy::mechanism::PrivacyError;
use federation::FederationConfig;
use schedule::ScheduleConfig;

/// An experiment: data, clients, model, learning algorithm, privacy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For editors: where the JSON schema of this file is.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the run folder and the report.
    #[serde(default = "default_name")]
    pub name: String,
    /// Seed of all randomness. Absent: a fresh 256-bit secret, kept in the run folder. With a seed the
    /// noise can be recomputed by anybody who knows it: for experiments, not for releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Training and test data.
    pub data: DataConfig,
    /// How the training data are dealt to clients.
    pub partition: PartitionConfig,
    /// The model. Only a program that brings its own trainer leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// The weights that the model begins with, and which of them are trained: `{"file": "model.safetensors", "train": {"last": 1}}`.
    /// Absent: all begin at random, and are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartConfig>,
    /// What a client does.
    pub algorithm: Algorithm,
    /// What the server does with the mean.
    pub server: OptimizerConfig,
    /// Expected number of clients a round (n).
    pub cohort: f64,
    /// How cohorts are drawn.
    #[serde(default = "default_sampling")]
    pub sampling: Sampling,
    /// Expected number of clients of a group, where a cohort is divided into groups with a sum of their own each; the round's
    /// update is then made of the groups' means. 1: every client's vector is seen. Absent: one sum of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<u32>,
    /// The robust rule over the groups' means, for instance `{"rule": {"krum": {"f": 2}}}`. With `plain` and no mechanism
    /// and without `group_size`: over the clients' vectors. Absent: the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<AggregationConfig>,
    /// Rounds that do not wait: clients work at their own pace, `cohort` of them at a time, and a round takes what has arrived. Needs
    /// `sampling` `all`. Absent: every round waits for its cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchrony: Option<AsynchronyConfig>,
    /// Number of rounds (T).
    pub rounds: u32,
    /// Share of the clients that are asked and vanish before they deliver, in [0, 1): for simulations. What a private run
    /// stands is `privacy.dropout`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout_rate: f64,
    /// Clients that send what they like, in a simulation: `{"clients": 5, "attack": {"inner-product": {"strength": 0.1}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversary: Option<AdversaryConfig>,
    /// Shortens every client's vector by the same linear map, before it is clipped: `{"random-k": {"keep": 0.1}}` or
    /// `{"sketch": {"ratio": 0.1}}`. Absent: all coordinates are sent. Fewer bits a coordinate are `privacy.bits`, without
    /// privacy those of the mechanism `quantized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The mechanism and its parameters.
    pub privacy: PrivacyConfig,
    /// The account that every release is charged to before it is made. Absent: a ledger of the run's own, in its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerConfig>,
    /// The protocol that adds the vectors: `plain`, `{"masks": {}}`, `{"oneshot": {}}` or `{"mphe": {}}`.
    #[serde(default)]
    pub secagg: Protocol,
    /// How the experiment is run where clients are processes of their own (`veilsum serve`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederationConfig>,
    /// When to evaluate.
    #[serde(default)]
    pub evaluation: Every,
    /// When to store a checkpoint.
    #[serde(default)]
    pub checkpoint: Every,
    /// Which backend runs the kernels; absent: the fastest of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// Where the clients train; absent: on the backend's device if `backend` names `wgpu` and there is no `start`, else on the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_on: Option<TrainOn>,
}

/// Where clients train. Their results differ in the last bits of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// All cores of the processor.
    Cpu,
    /// Where the kernels run: gradients are encoded where they were computed. On `scalar` and `simd` that is the
    /// processor.
    Backend,
}

/// Backends that a config can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackendName {
    /// The naive oracle.
    Scalar,
    /// Blocked kernels on all cores.
    Simd,
    /// A GPU over Vulkan, Metal or DX12.
    Wgpu,
    /// A GPU over CUDA.
    Cuda,
}

/// A period in rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Every {
    /// Every so many rounds, >= 1.
    pub every: u32,
}

impl Default for Every {
    fn default() -> Self {
        Self { every: 50 }
    }
}

/// A principal of a ledger that several runs share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// The ledger; `veilsum ledger open` begins one.
    pub file: PathBuf,
    /// Whose privacy it is: a name in the ledger.
    pub principal: String,
}

/// What a client computes in a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "name", rename_all = "snake_case")]
pub enum Algorithm {
    /// The gradient of its loss at the server's model (mean over its samples).
    FedSgd,
    /// `w_after - w_before` of local SGD (McMahan et al. 2017).
    FedAvg {
        /// Passes over the client's data, E.
        #[serde(default = "one")]
        epochs: u32,
        /// Mini-batch size, B.
        #[serde(default = "ten")]
        batch_size: usize,
        /// Step size of the local SGD.
        learning_rate: f32,
        /// Momentum of the local SGD, in `[0, 1)`.
        #[serde(default)]
        momentum: f32,
        /// L2 weight decay of the local SGD.
        #[serde(default)]
        weight_decay: f32,
        /// mu of FedProx (Li et al. 2020): how strongly a client is held near the server's model; 0 is FedAvg.
        #[serde(default, skip_serializing_if = "is_zero_f32")]
        proximal: f32,
        /// FedNova (Wang et al. 2020): a client's delta is divided by its number of local steps, and the mean multiplied by their mean,
        /// so that clients of many steps do not pull harder than their weight.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        normalized: bool,
        /// How clients count in the mean.
        #[serde(default)]
        weights: ClientWeights,
    },
    /// Local SGD with control variates (SCAFFOLD, Karimireddy et al. 2020): twice the upload, and every client keeps a vector. `privacy.clip`
    /// bounds both vectors together, and has to be so large that it does not: what it cuts the clients and the server count differently.
    Scaffold {
        /// Passes over the client's data, E.
        #[serde(default = "one")]
        epochs: u32,
        /// Mini-batch size, B.
        #[serde(default = "ten")]
        batch_size: usize,
        /// Step size of the local SGD.
        learning_rate: f32,
    },
    /// `w_after - w_before` of local DP-SGD (Abadi et al. 2016): each client protects its samples by noise of its own, from
    /// everybody else. It can stand beside a mechanism for the clients' vectors (`privacy`); both epsilons are reported.
    DpSgd {
        /// Local steps a round.
        steps: u32,
        /// Probability that a sample is in the mini-batch of a step, in (0, 1].
        sampling_rate: f64,
        /// What the sum over a mini-batch is divided by, a public constant: neighbours have or lack a sample. Absent:
        /// `sampling_rate` times the number of the client's samples, which is then public, and neighbours have as many.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch_size: Option<f64>,
        /// Step size.
        learning_rate: f32,
        /// Momentum, in `[0, 1)`.
        #[serde(default)]
        momentum: f32,
        /// L2 bound C of the gradient of a sample.
        clip: f64,
        /// Standard deviation of the noise of a step over C; absent: calibrated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noise_multiplier: Option<f64>,
        /// The epsilon of a sample in the whole run: calibrates noise that is not given, and stops the run before it would be
        /// exceeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target_epsilon: Option<f64>,
        /// delta of that epsilon.
        #[serde(default = "default_delta")]
        delta: f64,
        /// Every gradient in a pass of its own: what a row is then depends on its sample and the model by construction, not
        /// by a property of the arithmetic that is tested. Several times slower.
        #[serde(default, skip_serializing_if = "is_false")]
        isolate: bool,
        /// Where gradients are clipped: rows in memory, or inside the trainer.
        #[serde(default, skip_serializing_if = "Clipping::is_default")]
        clipping: Clipping,
    },
}

/// How clients count in the mean of FedAvg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientWeights {
    /// All alike: the only choice under differential privacy.
    #[default]
    Uniform,
    /// By number of samples, as exact integers inside the sum.
    Samples,
}

/// The mechanisms that a config can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MechanismName {
    /// Skellam mixture with a plain L2 clip and numeric accounting: the default.
    Smm,
    /// Skellam mixture as published in 2022: mixed clip, published accountant. For comparison.
    #[serde(rename = "smm-2022")]
    Smm2022,
    /// Skellam noise on rounded rows, whose norm is bounded behind the rounding (Agarwal, Kairouz, Liu 2021).
    Skellam,
    /// Discrete Gaussian noise from each client, likewise (Kairouz, Liu, Steinke 2021).
    DistributedDiscreteGaussian,
    /// Centred binomial noise, likewise.
    Binomial,
    /// Coins of each client whose bias is its vector (Chen, Ozgur, Kairouz 2022): few bits a coordinate, no other noise. Needs
    /// `noise` `per_client` and `sampling` `all`.
    PoissonBinomial,
    /// A trusted aggregator adds discrete Gaussian noise once. For comparison.
    CentralGaussian,
    /// The same with noise that is correlated over the rounds (DP-FTRL), so that the model carries less of it. Needs
    /// `sampling` `round-robin` or `all`; epsilon is that of the whole run, charged with its first release.
    Matrix,
    /// Rotation and stochastic rounding to a ring of `bits`, no noise, no privacy: few bits a coordinate.
    Quantized,
    /// No noise, no privacy, no rounding: a ring as wide as the sum takes, whatever `bits` says.
    None,
}

/// The mechanism and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyConfig {
    /// Which mechanism.
    pub mechanism: MechanismName,
    /// Who draws the noise.
    #[serde(default = "default_placement")]
    pub noise: NoisePlacement,
    /// How much noise stays when clients vanish; absent: a round needs all of its cohort where clients draw the noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<Dropout>,
    /// The part of the noise that the server adds after the sum is opened, in [0, 1), of `smm`, `smm-2022` and `skellam`: the
    /// clients' part protects from the server, both from everybody else. The noise that is calibrated or given is all of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub server_share: f64,
    /// L2 bound C of a client's vector; where it adapts, its first value.
    pub clip: f64,
    /// Lets the bound follow a quantile of the clients' norms, learned privately within the same budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClip>,
    /// Ring width b, 2..=32.
    #[serde(default = "default_bits")]
    pub bits: u32,
    /// Scale gamma; absent: the largest that `wrap_limit` allows, of private mechanisms at `target_epsilon`. Of `poisson-binomial`: the bias of a coin
    /// for a coordinate of 1; absent: the largest that meets `target_epsilon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Skellam parameter of one client (the sum has mu_tot = cohort * mu) of `smm`, `smm-2022` and `skellam`; absent:
    /// calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mu: Option<f64>,
    /// Parameter of the discrete Gaussian that the sum of a cohort's shares is near to, in integer steps, of
    /// `distributed-discrete-gaussian`; absent: calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_total: Option<f64>,
    /// Coins on each side of the centred binomial noise of the whole sum, of `binomial`; absent: calibrated. Coins of each
    /// client on a coordinate, an even number, of `poisson-binomial`; absent: as many as the ring holds, at most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coins: Option<u64>,
    /// Share of rows of full norm that the bound behind the rounding may shrink, of `skellam`,
    /// `distributed-discrete-gaussian` and `binomial`; of which a coordinate may be cut, of `poisson-binomial`; absent: 1e-4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// sigma / C of `central-gaussian`; sigma over the sensitivity of the whole run of `matrix`; absent: calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// The matrix of `matrix`; absent: buffered linear Toeplitz of degree 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<MatrixKind>,
    /// Bound on a coordinate for `smm-2022`; absent: the one that its accountant asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l_inf: Option<f64>,
    /// delta of the reported epsilon.
    #[serde(default = "default_delta")]
    pub delta: f64,
    /// The epsilon of the whole run (public view): calibrates the noise that is not given, and stops the
    /// run before it would be exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_epsilon: Option<f64>,
    /// How the cost of the rounds is added up: for calibration, for the budget and in reports.
    #[serde(default)]
    pub accountant: AccountantName,
    /// How the noise changes over the rounds; absent: it does not. `mu` and `noise_multiplier` are then those of a round
    /// of noise 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleConfig>,
    /// Largest predicted share of wrapped coordinates. The prediction takes the clients' vectors as
    /// independent directions; gradients that agree add up to more, and a smaller limit leaves them room. (Of `quantized` it takes
    /// them to agree.)
    #[serde(default = "default_wrap_limit")]
    pub wrap_limit: f64,
    /// Run although the ring wraps more often than `wrap_limit`.
    #[serde(default)]
    pub allow_wrap: bool,
    /// Stream cipher of the randomness; `cha-cha8` is for simulations only.
    #[serde(default)]
    pub cipher: CipherName,
}

/// Accountants that a config can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccountantName {
    /// The least bound of all that know the mechanism.
    #[default]
    Best,
    /// Renyi differential privacy alone.
    Rdp,
    /// The privacy loss distribution alone.
    Pld,
}

/// Stream ciphers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CipherName {
    /// 20 rounds.
    #[default]
    ChaCha20,
    /// 8 rounds.
    ChaCha8,
}

fn default_name() -> String {
    "run".into()
}

fn default_sampling() -> Sampling {
    Sampling::Poisson
}

fn default_placement() -> NoisePlacement {
    NoisePlacement::Aggregate
}

fn default_bits() -> u32 {
    8
}

fn default_delta() -> f64 {
    1e-5
}

fn default_wrap_limit() -> f64 {
    1e-3
}

fn is_zero_f32(value: &f32) -> bool {
    *value == 0.0
}

fn is_zero(rate: &f64) -> bool {
    *rate == 0.0
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn one() -> u32 {
    1
}

fn ten() -> usize {
    10
}

/// Why a config was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not JSON, or a value of the wrong type.
    #[error("{origin}: {message}{hint}")]
    Parse {
        /// File or option.
        origin: String,
        /// Where and what.
        message: String,
        /// ` (did you mean ...?)`, or nothing.
        hint: String,
    },
    /// An override that is not `path=value`.
    #[error("--set {text}: expected path=value, for instance privacy.bits=10")]
    Override {
        /// As given.
        text: String,
    },
    /// A value outside its range, or a combination that does not exist.
    #[error("{name} is {found}, expected {expected}")]
    Invalid {
        /// Path of the key.
        name: &'static str,
        /// What would be right.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Data could not be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model does not exist or does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The privacy room refused.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// The plan of the run is inconsistent.
    #[error(transparent)]
    Fl(#[from] FlError),
    /// No such backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// No randomness.
    #[error(transparent)]
    Prg(#[from] PrgError),
}

impl Config {
    /// The config of `veilsum train` without arguments.
    #[must_use]
    pub const fn quickstart() -> &'static str {
        include_str!("../configs/quickstart.json")
    }

    /// The JSON schema of an experiment.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}
