//! From a config to an experiment: data loaded, clients dealt, noise calibrated, everything checked
//! before the first round.

mod federate;
mod notes;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use self::federate::{Seat, deal, deal_key, federate, seat_client};
use self::tools::{Tools, Trainers};
use super::asynchrony;
use super::resolve::{Resolved, Setting, resolve};
use super::samples;
use super::{Algorithm, CipherName, ClientWeights, Config, ConfigError, LedgerConfig, MechanismName, PrivacyConfig};
use crate::backend::{self, Backend};
use crate::data::partition::{self, Partition, PartitionConfig};
use crate::data::{self, Dataset, Features, Split};
use crate::fl::asynchrony::ReleaseWhen;
use crate::fl::attack::Adversary;
use crate::fl::cohort::{self, Sampling};
use crate::fl::compress::Residuals;
use crate::fl::dp_sgd::GradientReport;
use crate::fl::groups::Grouping;
use crate::fl::plan::{Direction, Plan};
use crate::fl::protocol::Protocol;
use crate::fl::replay::Replay;
use crate::fl::{FlError, SERVER, nova};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::model::architecture::ModelConfig;
use crate::model::{LocalConfig, LocalTrainer, StartConfig};

/// What a client does with its shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalWork {
    /// The gradient at the server's model.
    Gradient,
    /// The delta of local SGD.
    Delta(LocalConfig),
    /// The same, corrected by control variates, and the change of the client's own (SCAFFOLD).
    Controlled(LocalConfig),
    /// The delta of local DP-SGD, by [`Plan::samples`].
    DpSgd,
}

/// A principal of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAccount {
    /// The ledger, an absolute path.
    pub file: PathBuf,
    /// Whose loss it is.
    pub principal: String,
}

/// Everything that a simulation needs. Built from a config by [`build`], or by hand in a program that
/// brings its own trainer or mechanism (see `examples/`).
#[derive(Clone)]
pub struct Experiment {
    /// Name in reports.
    pub name: String,
    /// The constants of the run.
    pub plan: Plan,
    /// What a client does.
    pub work: LocalWork,
    /// Training and test data.
    pub split: Arc<Split>,
    /// Which samples each client holds.
    pub partition: Arc<Partition>,
    /// Training samples that are the server's own and no client's; none where no rule asks for them.
    pub root: Arc<Vec<usize>>,
    /// The model and how to train it.
    pub trainer: Arc<dyn LocalTrainer>,
    /// The same on the CPU, where `trainer` works on the device of `backend`.
    pub trainer_on_cpu: Option<Arc<dyn LocalTrainer>>,
    /// Where the kernels run.
    pub backend: Arc<dyn Backend>,
    /// The secret of the simulation.
    pub secret: Secret,
    /// The seed that the secret came from, if it did.
    pub seed: Option<u64>,
    /// The layer list for the model file; `None` for a trainer of your own.
    pub model: Option<ModelConfig>,
    /// Share of the clients that vanish in the simulation.
    pub dropout_rate: f64,
    /// Rounds that were played elsewhere, to be played again: who vanished in them.
    pub replay: Option<Arc<Replay>>,
    /// Who sends what it likes in the simulation.
    pub adversary: Option<Adversary>,
    /// What the simulated clients keep between rounds, where errors are fed back. A run begins with nothing, or with what its
    /// checkpoint says, in a place of its own.
    pub residuals: Arc<Mutex<Residuals>>,
    /// What the simulated clients saw of the gradients of their samples, in DP-SGD, since the driver last took it.
    pub gradients: Arc<Mutex<GradientReport>>,
    /// The account that releases are charged to; `None`: the run's own ledger.
    pub ledger: Option<LedgerAccount>,
    /// L2 bound C.
    pub clip: f64,
    /// Predicted share of wrapped coordinates, where the ring wraps.
    pub predicted_wrap: Option<f64>,
    /// The config with everything filled in that was calibrated.
    pub resolved: Value,
    /// What a reader of the results has to know.
    pub notes: Vec<String>,
}

impl Experiment {
    /// Samples of a client.
    #[must_use]
    pub fn shard(&self, client: u64) -> &[usize] {
        self.partition.clients.get(client as usize).map_or(&[], Vec::as_slice)
    }

    /// The same experiment without its device: everything on the CPU. One that uses none stays as it is.
    #[must_use]
    pub fn on_cpu(&self) -> Self {
        let mut same = self.clone();
        if same.backend.device().is_some() {
            same.backend = Arc::new(backend::simd::Simd::new());
            same.trainer = same.trainer_on_cpu.take().unwrap_or(same.trainer);
        }
        same
    }

    /// The key of the initial weights.
    #[must_use]
    pub fn init_key(&self) -> StreamKey {
        server_key(&self.secret, &self.plan.session, Purpose::Init, self.plan.cipher)
    }
}

fn server_key(secret: &Secret, session: &[u8; 16], purpose: Purpose, cipher: Cipher) -> StreamKey {
    secret.derive(session, Address { client: SERVER, ..Address::default() }, purpose, cipher)
}

/// The public identity of a run, from its secret.
#[must_use]
pub fn session_of(secret: &Secret) -> [u8; 16] {
    let mut session = [0u8; 16];
    server_key(secret, &[0; 16], Purpose::Session, Cipher::ChaCha20).fill(0, &mut session);
    session
}

/// What a caller already has; everything else comes from the config.
#[derive(Clone, Default)]
pub struct Given {
    /// The secret of a run that is continued; else the seed or the operating system gives one.
    pub secret: Option<Secret>,
    /// Data that are already loaded (a sweep).
    pub split: Option<Arc<Split>>,
    /// A trainer of your own, in place of the config's `model`.
    pub trainer: Option<Arc<dyn LocalTrainer>>,
    /// Show downloads on stderr.
    pub progress: bool,
    /// Which of several devices that are as good ([`backend::OpenOptions::device`]).
    pub device: usize,
}

/// Data, and who has them.
struct Population {
    split: Arc<Split>,
    partition: Partition,
    root: Vec<usize>,
    data_digest: [u8; 32],
    session: [u8; 16],
    secret: Secret,
}

const fn cipher(config: &Config) -> Cipher {
    match config.privacy.cipher {
        CipherName::ChaCha20 => Cipher::ChaCha20,
        CipherName::ChaCha8 => Cipher::ChaCha8,
    }
}

/// The secret that is given, of the seed, or fresh.
fn secret(config: &Config, given: Option<Secret>) -> Result<Secret, ConfigError> {
    match (given, config.seed) {
        (Some(secret), _) => Ok(secret),
        (None, Some(seed)) => Ok(Secret::from_seed(seed)),
        (None, None) => Ok(Secret::fresh()?),
    }
}

/// Builds the experiment of a config. `base` is the folder that relative data paths start from.
///
/// # Errors
/// Whatever makes the experiment impossible, before its first round: see [`ConfigError`].
pub fn build(config: &Config, base: &Path, given: Given) -> Result<Experiment, ConfigError> {
    let split = match given.split {
        Some(split) => split,
        None => Arc::new(data::load(&config.data, base, given.progress)?),
    };
    let tools = Tools::open(config, base, given.trainer, given.device)?;
    tools.check_dataset(&split.train)?;
    let secret = secret(config, given.secret)?;
    let session = session_of(&secret);
    let partition_key = server_key(&secret, &session, Purpose::Partition, cipher(config));
    let mut partition = partition::partition(&split.train, &config.partition, &partition_key)?;
    let root = match config.aggregation.as_ref().and_then(|aggregation| aggregation.root_samples) {
        Some(samples) => {
            let key = server_key(&secret, &session, Purpose::Root, cipher(config));
            set_aside(&mut partition, split.train.len(), samples, &key)?
        }
        None => Vec::new(),
    };
    let data_digest = digest(&split.train, &partition, tools.trainers.start.as_ref());
    assemble(config, base, tools, Population { split, partition, root, data_digest, session, secret })
}

/// The plan of a config and its population, and all that stands around it.
fn assemble(config: &Config, base: &Path, tools: Tools, population: Population) -> Result<Experiment, ConfigError> {
    let Tools { backend, trainers: Trainers { trainer, trainer_on_cpu, model, start }, train_on, on_device } = tools;
    let Population { split, partition, root, data_digest, session, secret } = population;
    let cipher = cipher(config);
    let clients = partition.clients.len() as u64;
    check_ranges(config, clients)?;
    let dim = trainer.parameter_count();
    if let Some(compression) = &config.compression {
        compression.validate(dim)?;
        let per_sample = matches!(config.partition, PartitionConfig::PerSample {});
        compression.validate_clients(dim, clients, per_sample)?;
    }
    let Resolved { privacy: resolved_privacy, mechanism, later, rule, predicted_wrap } =
        resolve_joint(config, clients, dim)?;
    let (work, direction, weights) = work(&config.algorithm, &partition);
    let (algorithm, samples) = match samples::resolve(config, &partition, &*trainer)? {
        Some((algorithm, samples)) => (algorithm, Some(samples)),
        None => (config.algorithm, None),
    };
    let plan = Plan {
        session,
        clients,
        cohort: cohort(config, clients),
        asynchrony: asynchrony::build(config, clients, base)?,
        sampling: config.sampling,
        grouping: grouping(config, clients),
        aggregation: config.aggregation.clone(),
        rounds: config.rounds,
        dim,
        mechanism,
        later,
        rule,
        adaptive: config.privacy.adaptive_clip.map(|rule| (rule, config.privacy.clip)),
        compression: config.compression,
        placement: config.privacy.noise,
        dropout: config.privacy.dropout,
        server_share: config.privacy.server_share,
        protocol: config.secagg,
        direction,
        weights,
        controlled: matches!(config.algorithm, Algorithm::Scaffold { .. }),
        local_steps: local_steps(&config.algorithm, &partition),
        samples,
        delta: config.privacy.delta,
        epsilon_budget: resolved_privacy.target_epsilon,
        server: config.server,
        evaluate_every: config.evaluation.every,
        checkpoint_every: config.checkpoint.every,
        cipher,
        data_digest,
    };
    plan.validate()?;
    // The run folder may be continued from anywhere.
    let here = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
    let data = config.data.rebased(&here);
    let ledger = config.ledger.clone().map(|l| LedgerConfig { file: here.join(l.file), ..l });
    if ledger.is_some() && !plan.is_private() {
        return Err(invalid("ledger", "absent where nothing is protected, or a private mechanism", "mechanism none"));
    }
    let asynchrony = config.asynchrony.as_ref().map(|rules| rules.rebased(&here));
    let start = start.map(|start| start.rebased(&here));
    let resolved = Config {
        start,
        algorithm,
        privacy: resolved_privacy,
        data,
        train_on,
        ledger: ledger.clone(),
        asynchrony,
        ..config.clone()
    };
    Ok(Experiment {
        name: config.name.clone(),
        notes: notes::notes(config, &plan, predicted_wrap, on_device),
        plan,
        work,
        split,
        partition: Arc::new(partition),
        root: Arc::new(root),
        trainer,
        trainer_on_cpu,
        backend,
        secret,
        seed: config.seed,
        model,
        dropout_rate: config.dropout_rate,
        replay: None,
        adversary: config.adversary.map(|a| a.build(clients)).transpose().map_err(FlError::from)?,
        residuals: Arc::default(),
        gradients: Arc::default(),
        ledger: ledger.map(|LedgerConfig { file, principal }| LedgerAccount { file, principal }),
        clip: config.privacy.clip,
        predicted_wrap,
        resolved: serde_json::to_value(resolved).unwrap_or(Value::Null),
    })
}

/// Resolves the privacy of a run, for rows as they are clipped: behind the compression. Where the clip bound adapts, the mechanism
/// gets the bound of a row with its answer, and a coordinate more.
fn resolve_joint(config: &Config, clients: u64, dim: usize) -> Result<Resolved, ConfigError> {
    let dim = config.compression.map_or(dim, |compression| compression.size(dim));
    let dim = if matches!(config.algorithm, Algorithm::Scaffold { .. }) { 2 * dim } else { dim };
    let Some(rule) = &config.privacy.adaptive_clip else {
        return resolve(&config.privacy, &setting(config, clients, dim));
    };
    rule.validate()?;
    let clip = config.privacy.clip;
    let joint = PrivacyConfig { clip: rule.joint_clip(clip), ..config.privacy.clone() };
    let resolved = resolve(&joint, &setting(config, clients, dim + 1))?;
    Ok(Resolved { privacy: PrivacyConfig { clip, ..resolved.privacy }, ..resolved })
}

fn invalid(name: &'static str, expected: impl Into<String>, found: impl ToString) -> ConfigError {
    ConfigError::Invalid { name, expected: expected.into(), found: found.to_string() }
}

/// Checks that need no mechanism; `plan` and the mechanisms check the rest.
fn check_ranges(config: &Config, clients: u64) -> Result<(), ConfigError> {
    if !(config.cohort > 0.0 && config.cohort <= clients as f64) {
        return Err(invalid("cohort", format!("in (0, {clients}] (the number of clients)"), config.cohort));
    }
    if !(0.0..1.0).contains(&config.dropout_rate) {
        return Err(invalid("dropout_rate", "in [0, 1)", config.dropout_rate));
    }
    if let Some(size) = config.group_size.filter(|&size| size == 0 || f64::from(size) > cohort(config, clients)) {
        return Err(invalid("group_size", format!("1 to the cohort, {}", cohort(config, clients)), size));
    }
    if config.rounds == 0 {
        return Err(invalid("rounds", "at least 1", 0));
    }
    let p = &config.privacy;
    if !(p.delta > 0.0 && p.delta < 1.0) {
        return Err(invalid("privacy.delta", "in (0, 1)", p.delta));
    }
    if !(p.wrap_limit > 0.0 && p.wrap_limit < 1.0) {
        return Err(invalid("privacy.wrap_limit", "in (0, 1)", p.wrap_limit));
    }
    for (name, value) in
        [("privacy.gamma", p.gamma), ("privacy.mu", p.mu), ("privacy.target_epsilon", p.target_epsilon)]
    {
        if value.is_some_and(|v| !(v.is_finite() && v > 0.0)) {
            return Err(invalid(name, "finite and > 0", value.unwrap_or(f64::NAN)));
        }
    }
    if !(p.clip.is_finite() && p.clip > 0.0) {
        return Err(invalid("privacy.clip", "finite and > 0", p.clip));
    }
    if let Algorithm::Scaffold { epochs, batch_size, learning_rate } = config.algorithm {
        if epochs == 0 || batch_size == 0 {
            return Err(invalid("algorithm.epochs and algorithm.batch_size", "at least 1", 0));
        }
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return Err(invalid("algorithm.learning_rate", "finite and > 0", learning_rate));
        }
        if config.adversary.is_some() {
            return Err(invalid("adversary", "absent with `scaffold`, whose vectors it does not make", "given"));
        }
        if matches!(config.partition, PartitionConfig::PerSample {}) {
            return Err(invalid(
                "partition",
                "clients that come back, with `scaffold`: each keeps a vector",
                "per-sample",
            ));
        }
    }
    if let Algorithm::FedAvg {
        epochs, batch_size, learning_rate, momentum, weight_decay, proximal, normalized, ..
    } = config.algorithm
    {
        if epochs == 0 || batch_size == 0 {
            return Err(invalid("algorithm.epochs and algorithm.batch_size", "at least 1", 0));
        }
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return Err(invalid("algorithm.learning_rate", "finite and > 0", learning_rate));
        }
        if !(0.0..1.0).contains(&momentum) {
            return Err(invalid("algorithm.momentum", "in [0, 1)", momentum));
        }
        if !(weight_decay.is_finite() && weight_decay >= 0.0) {
            return Err(invalid("algorithm.weight_decay", "finite and >= 0", weight_decay));
        }
        if normalized && momentum > 0.0 && proximal > 0.0 {
            return Err(invalid(
                "algorithm.normalized",
                "false with both momentum and proximal, or one of them 0",
                true,
            ));
        }
        if normalized && f64::from(learning_rate) * f64::from(proximal) >= 1.0 {
            return Err(invalid("algorithm.proximal", "below 1 / learning_rate with `normalized`", proximal));
        }
    }
    Ok(())
}

/// Expected size of a cohort: all clients where everybody takes part, the size of a group where groups take turns.
fn cohort(config: &Config, clients: u64) -> f64 {
    match config.sampling {
        Sampling::All => match config.asynchrony.as_ref().map(|rules| rules.release) {
            // Noise and ring are those of what is added up.
            Some(ReleaseWhen::Arrivals(count)) => f64::from(count),
            _ => clients as f64,
        },
        Sampling::RoundRobin => clients as f64 / cohort::groups(clients, config.cohort) as f64,
        Sampling::Poisson | Sampling::TruncatedPoisson { .. } | Sampling::Fixed => config.cohort,
    }
}

/// How a cohort is divided.
fn grouping(config: &Config, clients: u64) -> Grouping {
    let open = matches!(config.privacy.mechanism, MechanismName::None | MechanismName::Quantized);
    let seen = config.secagg == Protocol::Plain && open;
    match config.group_size {
        Some(size) => Grouping::of_size(size, cohort(config, clients)),
        None if config.aggregation.is_some() && seen => Grouping::Single,
        None => Grouping::Whole,
    }
}

/// Takes `samples` of a set of `all` from the clients, who keep the others: ascending.
fn set_aside(
    partition: &mut Partition,
    all: usize,
    samples: usize,
    key: &StreamKey,
) -> Result<Vec<usize>, ConfigError> {
    if samples == 0 || samples >= all {
        let expected = format!("1 to {}: the clients need data too", all.saturating_sub(1));
        return Err(invalid("aggregation.root_samples", expected, samples));
    }
    let drawn = cohort::subset(all as u64, samples as u64, &mut key.reader(0));
    for client in &mut partition.clients {
        client.retain(|&sample| !drawn.contains(&(sample as u64)));
    }
    Ok(drawn.into_iter().map(|sample| sample as usize).collect())
}

/// `|a|_1` of every client's local steps, where deltas are normalized.
fn local_steps(algorithm: &Algorithm, partition: &Partition) -> Option<Arc<Vec<f64>>> {
    let Algorithm::FedAvg { epochs, batch_size, learning_rate, momentum, proximal, normalized: true, .. } = *algorithm
    else {
        return None;
    };
    let steps = |client: &Vec<usize>| {
        let steps = u64::from(epochs) * client.len().div_ceil(batch_size) as u64;
        nova::effective_steps(steps, momentum.into(), f64::from(learning_rate) * f64::from(proximal))
    };
    Some(Arc::new(partition.clients.iter().map(steps).collect()))
}

fn work(algorithm: &Algorithm, partition: &Partition) -> (LocalWork, Direction, Option<Arc<Vec<u64>>>) {
    match *algorithm {
        Algorithm::FedSgd => (LocalWork::Gradient, Direction::Gradient, None),
        Algorithm::DpSgd { .. } => (LocalWork::DpSgd, Direction::Delta, None),
        Algorithm::Scaffold { epochs, batch_size, learning_rate } => {
            let plain =
                LocalConfig { momentum: 0.0, weight_decay: 0.0, proximal: 0.0, epochs, batch_size, learning_rate };
            (LocalWork::Controlled(plain), Direction::Delta, None)
        }
        Algorithm::FedAvg { epochs, batch_size, learning_rate, momentum, weight_decay, proximal, weights, .. } => {
            let local = LocalConfig { epochs, batch_size, learning_rate, momentum, weight_decay, proximal };
            let weights = match weights {
                ClientWeights::Uniform => None,
                ClientWeights::Samples => Some(Arc::new(partition.clients.iter().map(|c| c.len() as u64).collect())),
            };
            (LocalWork::Delta(local), Direction::Delta, weights)
        }
    }
}

/// How the mechanism will be used: what its noise is calibrated for.
fn setting(config: &Config, clients: u64, dim: usize) -> Setting {
    let cohort = cohort(config, clients);
    Setting {
        // Noise and ring are those of one sum.
        cohort: grouping(config, clients).expected_size(cohort),
        rate: config.sampling.rate(clients, cohort),
        participation: cohort::participation(config.sampling, clients, config.cohort, config.rounds.into()),
        rounds: u64::from(config.rounds),
        delta: config.privacy.delta,
        dim,
    }
}

/// SHA-256 of the training data and of who holds what.
fn digest(train: &Dataset, partition: &Partition, start: Option<&StartConfig>) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(b"veilsum data v1");
    match &train.features {
        Features::Bytes(v) => h.update(v),
        Features::Floats(v) => h.update(bytemuck::cast_slice::<f32, u8>(v)),
    }
    h.update(train.mean.to_le_bytes());
    h.update(train.std.to_le_bytes());
    h.update(bytemuck::cast_slice::<u32, u8>(&train.labels));
    for client in &partition.clients {
        h.update((client.len() as u64).to_le_bytes());
        for &i in client {
            h.update((i as u64).to_le_bytes());
        }
    }
    if let Some(start) = start {
        // Weights that are not trained are an input of every client, too.
        h.update(format!("starts from {} {:?}", start.sha256.as_deref().unwrap_or_default(), start.train));
    }
    h.finalize().into()
}
