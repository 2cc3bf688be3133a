//! Times DP-SGD on one client, and its memory: `ghost_clipping MODEL CLIPPING BATCH THREADS STEPS`.
//!
//!     cargo run --release --example ghost_clipping -- mnist_cnn ghost 256 1 20
//!
//! MODEL is `mnist_2nn`, `mnist_cnn` or `cifar_cnn_large`, CLIPPING `materialised` or `ghost`; BATCH random samples are in each step. Prints
//! one JSON line: milliseconds a step (the median of five runs of STEPS), and on Linux the most memory that the process held, in MiB,
//! and what it held before the first step.

use std::error::Error;
use std::time::Instant;

use serde_json::json;
use veilsum::backend::simd::Simd;
use veilsum::data::Batch;
use veilsum::fl::dp_sgd::{ClientRandomness, Clipping, Divisor, DpSgd, DpSgdParams, Machine};
use veilsum::math::prg::{Address, Cipher, Secret, StreamKey};
use veilsum::model::{ModelConfig, trainer_for};

const USAGE: &str = "usage: ghost_clipping mnist_2nn|mnist_cnn|cifar_cnn_large materialised|ghost BATCH THREADS STEPS";

/// A line of `/proc/self/status` in MiB, where there is one.
fn memory(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, clipping, batch, threads, steps] = &arguments[..] else { return Err(USAGE.into()) };
    let (samples, threads): (usize, usize) = (batch.parse()?, threads.parse()?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let config = match model.as_str() {
        "mnist_2nn" => ModelConfig::Mnist2nn,
        "mnist_cnn" => ModelConfig::MnistCnn,
        "cifar_cnn_large" => ModelConfig::CifarCnnLarge,
        _ => return Err(USAGE.into()),
    };
    let clipping = match clipping.as_str() {
        "materialised" => Clipping::Materialised,
        "ghost" => Clipping::Ghost,
        _ => return Err(USAGE.into()),
    };
    let (trainer, dim) = (trainer_for(&config)?, config.architecture()?.inputs());
    let key = StreamKey::from_bytes([1; 32], Cipher::ChaCha20);
    let (weights, mut reader) = (trainer.init(&key), key.reader(1 << 30));
    let shard = Batch {
        features: (0..samples * dim).map(|_| reader.next_f64() as f32).collect(),
        labels: (0..samples).map(|_| reader.below(10) as u32).collect(),
        dim,
    };
    let local = DpSgd::new(DpSgdParams {
        steps: steps.parse()?,
        rate: 1.0,
        divisor: Divisor::Shard,
        largest_batch: samples as f64,
        learning_rate: 0.01,
        momentum: 0.0,
        clip: 1.0,
        noise_multiplier: 1.0,
        isolate: false,
        clipping,
    })?;
    let (backend, secret) = (Simd::new(), Secret::from_seed(1));
    let before = memory("VmRSS");
    let mut times = Vec::new();
    for attempt in 0..5 {
        let randomness = ClientRandomness {
            secret: &secret,
            session: &[0; 16],
            address: Address { attempt, ..Address::default() },
            input: &[0; 32],
            cipher: Cipher::ChaCha20,
        };
        let start = Instant::now();
        local.delta(Machine { trainer: &*trainer, backend: &backend }, &weights, &shard, &randomness)?;
        times.push(start.elapsed().as_secs_f64() * 1e3 / f64::from(local.params().steps));
    }
    times.sort_by(f64::total_cmp);
    let line = json!({
        "model": model, "clipping": local.params().clipping, "batch": samples, "threads": threads,
        "milliseconds_a_step": times[times.len() / 2], "peak_mib": memory("VmHWM"), "before_mib": before,
    });
    println!("{line}");
    Ok(())
}
