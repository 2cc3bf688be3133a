//! Times training steps on the processor: `training_speed TASK BATCH THREADS REPEATS [STEPS] [--framework]`.
//!
//!     cargo run --release --example training_speed -- lenet 32 1 7
//!     cargo run --release --example training_speed -- clients 10 2 5
//!
//! Tasks: `lenet`, `mnist_cnn` and `mnist_2nn` are SGD steps of one batch of random data, in milliseconds a step; `clients` are
//! rounds of local SGD (100 clients, an epoch of 600 samples each, `mnist_2nn`), in seconds a round. `--framework` takes the
//! trainer on the autodiff framework, which has linear layers only. Prints one JSON line: best and median.
//! `scripts/torch_training.py` does the same work with PyTorch.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use veilsum::data::Batch;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::cpu::CpuTrainer;
use veilsum::model::{Architecture, Clients, LocalConfig, LocalTrainer, ModelConfig};

const USAGE: &str =
    "usage: training_speed lenet|mnist_cnn|mnist_2nn|clients BATCH THREADS REPEATS [STEPS] [--framework]";

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

#[cfg(feature = "device-training")]
fn framework(architecture: Architecture) -> Result<Arc<dyn LocalTrainer>, Box<dyn Error>> {
    Ok(Arc::new(veilsum::model::burn_trainer::FlexTrainer::new(architecture)?))
}

#[cfg(not(feature = "device-training"))]
fn framework(_: Architecture) -> Result<Arc<dyn LocalTrainer>, Box<dyn Error>> {
    Err("this build has no framework: build with the feature device-training".into())
}

fn random(len: usize, dim: usize) -> Batch {
    let mut reader = key(1).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(10) as u32).collect(),
        dim,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let task = arguments.first().ok_or(USAGE)?.as_str();
    let number = |at: usize, or: Option<usize>| -> Result<usize, Box<dyn Error>> {
        match (arguments.get(at), or) {
            (Some(text), _) => Ok(text.parse()?),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(USAGE.into()),
        }
    };
    let (batch, threads, repeats) = (number(1, None)?, number(2, None)?, number(3, None)?.max(1));
    let steps = number(4, Some(50))?.max(1);
    let config = match task {
        "lenet" => ModelConfig::CifarCnn,
        "mnist_cnn" => ModelConfig::MnistCnn,
        "mnist_2nn" | "clients" => ModelConfig::Mnist2nn,
        _ => return Err(USAGE.into()),
    };
    let architecture = config.architecture()?;
    let dim = architecture.inputs();
    let trainer: Arc<dyn LocalTrainer> = if flags.iter().any(|flag| flag == "--framework") {
        framework(architecture)?
    } else {
        Arc::new(CpuTrainer::new(architecture))
    };
    let weights = trainer.init(&key(2));
    let rounds = task == "clients";
    let (data, epochs) = if rounds { (random(60_000, dim), 1) } else { (random(batch, dim), steps as u32) };
    let local = LocalConfig {
        epochs,
        batch_size: batch,
        learning_rate: if rounds { 0.05 } else { 0.01 },
        momentum: 0.0,
        weight_decay: 0.0,
        proximal: 0.0,
    };
    let shard = |i: usize| Batch {
        features: data.features[600 * i * dim..600 * (i + 1) * dim].to_vec(),
        labels: data.labels[600 * i..600 * (i + 1)].to_vec(),
        dim,
    };
    let clients = Clients { count: 100, shard: &shard, key: &|i| key(i as u8) };
    let once = || -> Result<f64, Box<dyn Error>> {
        let begun = Instant::now();
        if rounds {
            trainer.delta_rows(&weights, &clients, &local)?;
            return Ok(begun.elapsed().as_secs_f64());
        }
        trainer.local_delta(&weights, &data, &local, &key(3))?;
        Ok(begun.elapsed().as_secs_f64() * 1000.0 / steps as f64)
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut times = Vec::new();
    if !rounds {
        pool.install(|| once().map_err(|error| error.to_string()))?;
    }
    for _ in 0..repeats {
        times.push(pool.install(|| once().map_err(|error| error.to_string()))?);
    }
    times.sort_by(f64::total_cmp);
    let engine = if flags.is_empty() { "veilsum" } else { "veilsum, framework" };
    let unit = if rounds { "seconds a round" } else { "milliseconds a step" };
    println!(
        "{}",
        json!({
            "engine": engine, "task": task, "batch": batch, "threads": threads, "unit": unit, "best": times[0],
            "median": times[times.len() / 2],
        })
    );
    Ok(())
}
