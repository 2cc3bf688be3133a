//! Times training: `training_speed TASK BATCH THREADS REPEATS [STEPS] [--framework] [--device] [--group=N] [--clients=N]
//! [--samples=N]`.
//!
//!     cargo run --release --example training_speed -- lenet 32 1 7
//!     cargo run --release --example training_speed -- clients 10 2 5
//!     cargo run --release --example training_speed -- digits_mlp 10 2 5 --clients=32 --samples=100 --device --group=1
//!
//! Tasks: a model by name (`lenet` is `cifar_cnn`) is SGD steps of one batch of random data, in milliseconds a step; with
//! `--clients` rounds of local SGD of as many clients, an epoch of `--samples` samples each (600 unless told), in seconds a
//! round. `clients` is 100 clients of `mnist_2nn`. `--framework` takes the trainer on the autodiff framework, which has linear
//! layers only, `--device` that on the device of `backend=wgpu` (or `--device=cuda`), where `--group` clients train at once in
//! the place of what the trainer's rule says: 1 is one after another. Prints one JSON line: best and median, and of steps of
//! perceptrons GFLOP/s at best.
//! `scripts/torch_training.py` does the same work with PyTorch.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use veilsum::backend::Backend;
use veilsum::data::Batch;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::architecture::Architecture;
use veilsum::model::cpu::CpuTrainer;
use veilsum::model::{Clients, LocalConfig, LocalTrainer, ModelConfig};

const USAGE: &str = "usage: training_speed lenet|clients|MODEL BATCH THREADS REPEATS [STEPS] \
                     [--framework] [--device[=wgpu|cuda]] [--group=N] [--clients=N] [--samples=N]";

type Fallible<T> = Result<T, Box<dyn Error>>;

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

fn random(len: usize, dim: usize) -> Batch {
    let mut reader = key(1).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(10) as u32).collect(),
        dim,
    }
}

/// `--name`, `--name=value` and what is neither.
struct Arguments {
    flags: Vec<String>,
    plain: Vec<String>,
}

impl Arguments {
    fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    fn value<T: std::str::FromStr<Err: Error + 'static>>(&self, name: &str) -> Fallible<Option<T>> {
        let text = self.flags.iter().find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='));
        Ok(text.map(str::parse).transpose()?)
    }

    fn number(&self, at: usize, or: Option<usize>) -> Fallible<usize> {
        match (self.plain.get(at), or) {
            (Some(text), _) => Ok(text.parse()?),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(USAGE.into()),
        }
    }
}

/// What trains, the backend that it trains on if any, and what to call it.
struct Engine {
    trainer: Arc<dyn LocalTrainer>,
    backend: Option<Arc<dyn Backend>>,
    name: String,
}

impl Engine {
    fn host(trainer: Arc<dyn LocalTrainer>, name: &str) -> Self {
        Self { trainer, backend: None, name: name.into() }
    }
}

fn engine(architecture: Architecture, arguments: &Arguments) -> Fallible<Engine> {
    match framework::engine(&architecture, arguments)? {
        Some(engine) => Ok(engine),
        None => Ok(Engine::host(Arc::new(CpuTrainer::new(architecture)), "veilsum")),
    }
}

#[cfg(feature = "device-training")]
mod framework {
    use veilsum::backend::{BackendKind, open};
    use veilsum::model::burn_trainer::{CudaTrainer, FlexTrainer, WgpuTrainer};

    use super::{Arc, Architecture, Arguments, Engine, Fallible, LocalTrainer, USAGE};

    /// What `--framework` or `--device` asks for.
    pub(super) fn engine(architecture: &Architecture, arguments: &Arguments) -> Fallible<Option<Engine>> {
        let architecture = architecture.clone();
        if arguments.flag("--framework") {
            return Ok(Some(Engine::host(Arc::new(FlexTrainer::new(architecture)?), "veilsum, framework")));
        }
        let kind = match arguments.value::<String>("--device")?.as_deref() {
            Some("cuda") => BackendKind::Cuda,
            Some("wgpu") => BackendKind::Wgpu,
            None if arguments.flag("--device") => BackendKind::Wgpu,
            None => return Ok(None),
            Some(_) => return Err(USAGE.into()),
        };
        let (backend, group) = (open(Some(kind))?, arguments.value("--group")?);
        let trainer: Arc<dyn LocalTrainer> = if kind == BackendKind::Cuda {
            let trainer = CudaTrainer::new(architecture, backend.clone())?;
            Arc::new(if let Some(group) = group { trainer.with_group_size(group) } else { trainer })
        } else {
            let trainer = WgpuTrainer::new(architecture, backend.clone())?;
            Arc::new(if let Some(group) = group { trainer.with_group_size(group) } else { trainer })
        };
        let group = group.map_or_else(|| "as the rule says".to_owned(), |group| group.to_string());
        let name = format!("veilsum, {}, clients at once: {group}", backend.describe());
        Ok(Some(Engine { trainer, backend: Some(backend), name }))
    }
}

#[cfg(not(feature = "device-training"))]
mod framework {
    use super::{Architecture, Arguments, Engine, Fallible};

    /// Nothing that this build has.
    pub(super) fn engine(_: &Architecture, arguments: &Arguments) -> Fallible<Option<Engine>> {
        if arguments.flag("--framework") || arguments.flags.iter().any(|flag| flag.starts_with("--device")) {
            return Err("this build has no framework: build with the feature device-training".into());
        }
        Ok(None)
    }
}

/// Multiplications and additions of a step: forward, the gradient of the weights, and that of the inputs of all layers but the
/// first. Of linear layers only.
fn step_flops(architecture: &Architecture, batch: usize) -> Option<f64> {
    let products = architecture.spans().iter().enumerate().map(|(k, span)| {
        let products = if k == 0 { 2 } else { 3 };
        2 * products * span.inputs * span.outputs * batch
    });
    architecture.is_mlp().then(|| products.sum::<usize>() as f64)
}

/// The work that is timed: a step of one batch, or a round of clients.
struct Work {
    data: Batch,
    local: LocalConfig,
    /// How many, and samples of each.
    clients: Option<(usize, usize)>,
}

impl Work {
    /// Seconds of a round, or milliseconds of a step.
    fn time(&self, engine: &Engine, weights: &[f32]) -> Fallible<f64> {
        let begun = Instant::now();
        let Some((count, samples)) = self.clients else {
            engine.trainer.local_delta(weights, &self.data, &self.local, &key(3))?;
            return Ok(begun.elapsed().as_secs_f64() * 1000.0 / f64::from(self.local.epochs));
        };
        let dim = self.data.dim;
        let shard = |i: usize| Batch {
            features: self.data.features[samples * i * dim..samples * (i + 1) * dim].to_vec(),
            labels: self.data.labels[samples * i..samples * (i + 1)].to_vec(),
            dim,
        };
        let clients = Clients { count, shard: &shard, key: &|i| key(i as u8) };
        let rows = engine.trainer.delta_rows(weights, &clients, &self.local)?;
        if let Some(backend) = &engine.backend {
            rows.on_host(&**backend)?;
        }
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn main() -> Fallible<()> {
    let (flags, plain) = std::env::args().skip(1).partition(|a: &String| a.starts_with("--"));
    let arguments = Arguments { flags, plain };
    let task = arguments.plain.first().ok_or(USAGE)?.as_str();
    let (batch, threads, repeats) =
        (arguments.number(1, None)?, arguments.number(2, None)?, arguments.number(3, None)?.max(1));
    let steps = arguments.number(4, Some(50))?.max(1);
    let config: ModelConfig = match task {
        "lenet" => ModelConfig::CifarCnn,
        "clients" => ModelConfig::Mnist2nn,
        model => model.parse()?,
    };
    let count = arguments.value("--clients")?.or((task == "clients").then_some(100));
    let clients = count.map(|count| Ok::<_, Box<dyn Error>>((count, arguments.value("--samples")?.unwrap_or(600))));
    let clients = clients.transpose()?;
    let architecture = config.architecture()?;
    let (dim, flops) = (architecture.inputs(), step_flops(&architecture, batch));
    let engine = engine(architecture, &arguments)?;
    let weights = engine.trainer.init(&key(2));
    let samples = clients.map_or(batch, |(count, samples)| count * samples);
    let local = LocalConfig {
        epochs: if clients.is_some() { 1 } else { steps as u32 },
        batch_size: batch,
        learning_rate: if clients.is_some() { 0.05 } else { 0.01 },
        momentum: 0.0,
        weight_decay: 0.0,
        proximal: 0.0,
    };
    let work = Work { data: random(samples, dim), local, clients };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let once = || pool.install(|| work.time(&engine, &weights).map_err(|error| error.to_string()));
    // Memory, and the kernels of a device.
    once()?;
    let mut times = (0..repeats).map(|_| once()).collect::<Result<Vec<f64>, _>>()?;
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    let unit = if clients.is_some() { "seconds a round" } else { "milliseconds a step" };
    let rate = flops.filter(|_| clients.is_none()).map(|flops| flops / best / 1e6);
    println!(
        "{}",
        json!({
            "engine": engine.name, "task": task, "batch": batch, "threads": threads, "unit": unit, "best": best,
            "median": median, "clients": clients, "gflop_per_s": rate,
        })
    );
    Ok(())
}
