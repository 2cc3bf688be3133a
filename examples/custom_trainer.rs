//! A trainer of your own: multinomial logistic regression with gradients written by hand.
//!
//! Anything that implements [`LocalTrainer`] can be trained privately: the pipeline sees one flat weight
//! vector and gradient rows of the same length. This one needs no autodiff framework:
//!
//! `z = x W + b`, `p = softmax(z)`, `dL/dW = x (p - onehot(y))^T`, `dL/db = p - onehot(y)`.
//!
//! Run it with `cargo run --release --example custom_trainer`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use veilsum::backend::Rows;
use veilsum::config::build::{Given, build};
use veilsum::config::{Config, overrides};
use veilsum::data::{Batch, Dataset, Features, Split};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use veilsum::model::{LocalConfig, LocalTrainer, ModelError};
use veilsum::sim::{self, RunOptions, Silent};

/// Logistic regression; weights are `W` `[features x classes]` row major, then `b` `[classes]`.
struct SoftmaxRegression {
    features: usize,
    classes: usize,
}

impl SoftmaxRegression {
    /// Refuses what would index out of bounds below.
    fn check(&self, weights: &[f32], batch: &Batch) -> Result<(), ModelError> {
        for (what, expected, found) in [
            ("the weight vector", self.parameter_count(), weights.len()),
            ("a sample", self.features, batch.dim),
            ("the batch's features", batch.len() * self.features, batch.features.len()),
        ] {
            if expected != found {
                return Err(ModelError::WrongLength { what, expected, found });
            }
        }
        match batch.labels.iter().position(|&label| label as usize >= self.classes) {
            Some(sample) => Err(ModelError::Label { sample, found: batch.labels[sample], classes: self.classes }),
            None => Ok(()),
        }
    }

    /// `z = x W + b` for one sample.
    fn scores(&self, weights: &[f32], x: &[f32]) -> Vec<f32> {
        let (matrix, bias) = weights.split_at(self.features * self.classes);
        let mut z = bias.to_vec();
        for (line, &x) in matrix.chunks_exact(self.classes).zip(x) {
            z.iter_mut().zip(line).for_each(|(z, &w)| *z += x * w);
        }
        z
    }

    /// Writes the gradient of one sample's loss over `row`.
    fn gradient(&self, weights: &[f32], x: &[f32], label: u32, row: &mut [f32]) {
        let mut p = self.scores(weights, x);
        let largest = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        p.iter_mut().for_each(|z| *z = (*z - largest).exp());
        let sum: f32 = p.iter().sum();
        p.iter_mut().for_each(|e| *e /= sum);
        p[label as usize] -= 1.0;
        let (matrix, bias) = row.split_at_mut(self.features * self.classes);
        for (line, &x) in matrix.chunks_exact_mut(self.classes).zip(x) {
            line.iter_mut().zip(&p).for_each(|(g, &p)| *g = x * p);
        }
        bias.copy_from_slice(&p);
    }
}

impl LocalTrainer for SoftmaxRegression {
    fn parameter_count(&self) -> usize {
        (self.features + 1) * self.classes
    }

    /// The loss is convex: zero is as good a start as any, and needs no randomness.
    fn init(&self, _key: &StreamKey) -> Vec<f32> {
        vec![0.0; self.parameter_count()]
    }

    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        self.check(weights, batch)?;
        let dim = self.parameter_count();
        let mut rows = vec![0.0; batch.len() * dim];
        let samples = batch.features.chunks_exact(self.features).zip(&batch.labels);
        for (row, (x, &label)) in rows.chunks_exact_mut(dim).zip(samples) {
            self.gradient(weights, x, label, row);
        }
        Ok(Rows::dense(rows, batch.len(), dim)?)
    }

    /// Plain SGD on mini-batches. The order comes from `key` alone, so that a resumed run repeats it.
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.check(weights, shard)?;
        for (what, found) in [("momentum", config.momentum), ("weight_decay", config.weight_decay)] {
            if found != 0.0 {
                return Err(ModelError::Setting { what, expected: "0: not implemented here", found: found.into() });
            }
        }
        let mut reader = key.reader(0);
        let mut order: Vec<usize> = (0..shard.len()).collect();
        let mut current = weights.to_vec();
        let mut row = vec![0.0; current.len()];
        for _ in 0..config.epochs {
            reader.shuffle(&mut order);
            for indices in order.chunks(config.batch_size.max(1)) {
                let before = current.clone();
                let step = config.learning_rate / indices.len() as f32;
                for &i in indices {
                    let x = &shard.features[i * self.features..(i + 1) * self.features];
                    self.gradient(&before, x, shard.labels[i], &mut row);
                    current.iter_mut().zip(&row).for_each(|(w, g)| *w -= step * g);
                }
            }
        }
        Ok(current.iter().zip(weights).map(|(after, before)| after - before).collect())
    }

    /// With scores, the loss and the accuracy of `evaluate` come for free.
    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.check(weights, batch)?;
        Ok(batch.features.chunks_exact(self.features).flat_map(|x| self.scores(weights, x)).collect())
    }
}

/// Normal clouds around one centre a class, 16 features.
fn clouds(samples: usize, classes: usize, key: &StreamKey) -> Dataset {
    const DIM: usize = 16;
    let mut reader = key.reader(0);
    let centres: Vec<f64> = (0..classes * DIM).map(|_| reader.next_normal()).collect();
    let labels: Vec<u32> = (0..samples).map(|_| reader.below(classes as u64) as u32).collect();
    let mut features = Vec::with_capacity(samples * DIM);
    for &label in &labels {
        let centre = &centres[label as usize * DIM..(label as usize + 1) * DIM];
        features.extend(centre.iter().map(|c| (c + reader.next_normal()) as f32));
    }
    Dataset {
        name: "clouds".to_owned(),
        features: Features::Floats(features),
        mean: 0.0,
        std: 1.0,
        labels,
        dim: DIM,
        classes,
        natural_ids: None,
        class_names: None,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = |purpose| Secret::from_seed(7).derive(&[0; 16], Address::default(), purpose, Cipher::ChaCha20);
    let data = clouds(2000, 5, &key(Purpose::Synthetic));
    let test: Vec<usize> = (0..400).collect();
    let train: Vec<usize> = (400..data.len()).collect();
    let split = Split { train: data.select(&train), test: data.select(&test) };
    let trainer = SoftmaxRegression { features: data.dim, classes: data.classes };

    // Eighty clients of twenty samples, five local epochs, the whole client protected (epsilon 8).
    let config = r#"{
        "name": "custom_trainer", "seed": 1,
        "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 80},
        "algorithm": {"name": "fed_avg", "epochs": 5, "batch_size": 10, "learning_rate": 0.1},
        "server": {"optimizer": "sgd", "learning_rate": 1.0},
        "cohort": 40, "rounds": 20, "evaluation": {"every": 5},
        "privacy": {"mechanism": "smm", "clip": 0.5, "bits": 16, "target_epsilon": 8.0, "delta": 1e-3}
    }"#;
    let config: Config = overrides::typed(&overrides::parse(config, "example")?, "example")?;
    // The data and the trainer given here take the place of the config's.
    let given = Given { split: Some(Arc::new(split)), trainer: Some(Arc::new(trainer)), ..Given::default() };
    let experiment = build(&config, Path::new("."), given)?;
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    let result = sim::run(&experiment, &options, &mut Silent)?;
    for record in result.history.iter().filter(|r| r.accuracy.is_some()) {
        println!(
            "round {:>2}: accuracy {:.1} %, epsilon {:.3}",
            record.round,
            100.0 * record.accuracy.unwrap_or(0.0),
            record.epsilon.unwrap_or(f64::INFINITY)
        );
    }
    println!("epsilon {:.3} at delta {:e}", result.epsilon.public.epsilon, result.epsilon.public.delta);
    Ok(())
}
