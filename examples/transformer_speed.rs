//! Times local training of a transformer on the processor, and what it takes of memory:
//! `transformer_speed MODEL SAMPLES BATCH THREADS [FILE TRAIN]`.
//!
//!     cargo run --release --example transformer_speed -- '"char_gpt"' 64 8 1
//!     cargo run --release --example transformer_speed -- '{"bert_mini":{"classes":2}}' 16 8 1 model.safetensors '{"lora":{"rank":8}}'
//!
//! MODEL is that of a config, FILE and TRAIN are `file` and `train` of its `start`. One epoch over random tokens, whole sequences. Prints one JSON
//! line: seconds, samples a second, trained parameters, and the most memory that the process had (Linux).
//! `scripts/torch_transformer.py` does the same work with PyTorch.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use veilsum::data::Batch;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::{LocalConfig, LocalTrainer, ModelConfig, StartConfig, trainer_for, trainer_from};

const USAGE: &str = "usage: transformer_speed MODEL SAMPLES BATCH THREADS [FILE TRAIN]";

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

/// The most memory that this process had, in MiB.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, samples, batch, threads, start @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let model: ModelConfig = serde_json::from_str(model)?;
    let (samples, batch_size, threads): (usize, usize, usize) = (samples.parse()?, batch.parse()?, threads.parse()?);
    let trainer: Arc<dyn LocalTrainer> = match start {
        [] => trainer_for(&model)?,
        [file, train] => {
            let train = serde_json::from_str(train)?;
            trainer_from(&model, &StartConfig { file: file.into(), sha256: None, train })?.0
        }
        _ => return Err(USAGE.into()),
    };
    let architecture = model.architecture()?;
    let (dim, tokens) = (architecture.inputs(), architecture.tokens().ok_or("a model of tokens, please")? as u64);
    let mut reader = key(1).reader(0);
    let shard = Batch {
        features: (0..samples * dim).map(|_| (1 + reader.below(tokens - 1)) as f32).collect(),
        labels: (0..samples).map(|_| reader.below(architecture.classes() as u64) as u32).collect(),
        dim,
    };
    let weights = trainer.init(&key(2));
    let (learning_rate, momentum, weight_decay, proximal) = (0.01, 0.0, 0.0, 0.0);
    let local = LocalConfig { epochs: 1, batch_size, learning_rate, momentum, weight_decay, proximal };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let begun = Instant::now();
    pool.install(|| trainer.local_delta(&weights, &shard, &local, &key(3)))?;
    let seconds = begun.elapsed().as_secs_f64();
    let line = json!({
        "engine": "veilsum", "model": model, "samples": samples, "batch": batch_size, "trained": weights.len(),
        "seconds": seconds, "samples_per_second": samples as f64 / seconds, "peak_mib": peak(),
    });
    println!("{line}");
    Ok(())
}
