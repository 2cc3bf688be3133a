//! A trainer of your own: multinomial logistic regression with gradients written by hand.
//!
//! Anything that implements [`LocalTrainer`] can be trained privately: the pipeline sees one flat weight
//! vector and gradient rows of the same length. This one needs no autodiff framework:
//!
//! `z = x W + b`, `p = softmax(z)`, `dL/dW = x (p - onehot(y))^T`, `dL/db = p - onehot(y)`.
//!
//! Run it with `cargo run --release --example custom_trainer`.

use veilsum::backend::Rows;
use veilsum::data::{Batch, Dataset, Features};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use veilsum::model::{LocalConfig, LocalTrainer, ModelError, evaluate_dataset};

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
    let secret = Secret::from_seed(7);
    let key =
        |purpose, round| secret.derive(&[0; 16], Address { round, ..Address::default() }, purpose, Cipher::ChaCha20);
    let data = clouds(2000, 5, &key(Purpose::Synthetic, 0));
    let trainer = SoftmaxRegression { features: data.dim, classes: data.classes };
    let mut weights = trainer.init(&key(Purpose::Init, 0));

    for round in 1..=20u32 {
        let mut cohort = key(Purpose::Cohort, round).reader(0);
        let indices: Vec<usize> = (0..100).map(|_| cohort.below(data.len() as u64) as usize).collect();
        let rows = trainer.gradient_rows(&weights, &data.gather(&indices))?;
        for i in 0..rows.rows {
            let row = rows.row(i)?;
            weights.iter_mut().zip(row).for_each(|(w, g)| *w -= 0.5 * g / rows.rows as f32);
        }
        if round % 5 == 0 {
            let evaluation = evaluate_dataset(&trainer, &weights, &data)?;
            println!("round {round:>2}: loss {:.4}, accuracy {:.2} %", evaluation.loss, 100.0 * evaluation.accuracy);
        }
    }

    let config = LocalConfig { epochs: 2, batch_size: 20, learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let shard = data.gather(&(0..400).collect::<Vec<_>>());
    let delta = trainer.local_delta(&weights, &shard, &config, &key(Purpose::Batches, 21))?;
    weights.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
    let evaluation = evaluate_dataset(&trainer, &weights, &data)?;
    println!("one client more: loss {:.4}, accuracy {:.2} %", evaluation.loss, 100.0 * evaluation.accuracy);
    Ok(())
}
