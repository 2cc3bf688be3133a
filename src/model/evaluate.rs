//! Loss, accuracy and confusion from logits, on the host and in double precision.

use rayon::prelude::*;
use serde::Serialize;

use super::{Evaluation, LocalTrainer, ModelError};
use crate::data::{Batch, Dataset};

/// Samples that one task evaluates: large enough for the matrix products, small in memory.
const CHUNK: usize = 500;

/// Cross entropy `log sum_c exp(z_c) - z_label` of one sample, natural log, stable for large logits.
///
/// NaN if a logit is NaN; `label` must be below `logits.len()`.
fn sample_loss(logits: &[f32], label: usize) -> f64 {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |m, &z| m.max(f64::from(z)));
    let sum: f64 = logits.iter().map(|&z| libm::exp(f64::from(z) - largest)).sum();
    libm::log(sum) + largest - f64::from(logits[label])
}

/// Class of the largest logit, the lowest on a tie; `None` if a logit is NaN.
fn predict(logits: &[f32]) -> Option<usize> {
    if logits.iter().any(|z| z.is_nan()) {
        return None;
    }
    (0..logits.len()).reduce(|best, c| if logits[c] > logits[best] { c } else { best })
}

/// Sum of the cross entropies and number of correct predictions of a batch of logits.
///
/// `logits` is `[labels.len() x classes]` row major. The sum runs in the order of the samples.
///
/// # Errors
/// [`ModelError::WrongLength`] or [`ModelError::Label`].
pub fn cross_entropy(logits: &[f32], labels: &[u32], classes: usize) -> Result<(f64, usize), ModelError> {
    let (mut loss, mut correct) = (0.0, 0);
    each_prediction(logits, labels, classes, |class, sample_loss, prediction| {
        loss += sample_loss;
        correct += usize::from(prediction == Some(class));
    })?;
    Ok((loss, correct))
}

/// Most classes of a [`Confusion`], whose matrix has their square.
pub const MOST_CONFUSED: usize = 1024;

/// Predictions against labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// `counts[label][prediction]`.
    pub counts: Vec<Vec<u64>>,
    /// Samples of each class whose logits held NaN; they count as wrong.
    pub undecided: Vec<u64>,
}

impl Confusion {
    /// Correct predictions.
    #[must_use]
    pub fn correct(&self) -> usize {
        self.counts.iter().enumerate().map(|(class, row)| row[class] as usize).sum()
    }

    /// Number of samples of a class.
    #[must_use]
    pub fn samples(&self, class: usize) -> u64 {
        self.counts[class].iter().sum::<u64>() + self.undecided[class]
    }

    /// Share of a class that is recognised; `None` without samples of that class.
    #[must_use]
    pub fn class_accuracy(&self, class: usize) -> Option<f64> {
        let samples = self.samples(class);
        (samples > 0).then(|| self.counts[class][class] as f64 / samples as f64)
    }

    /// The other class that `class` is most often taken for, the lowest on a tie, and how often.
    #[must_use]
    pub fn most_mistaken(&self, class: usize) -> Option<(usize, u64)> {
        let others = self.counts[class].iter().enumerate().filter(|&(other, &count)| other != class && count > 0);
        others.map(|(other, &count)| (other, count)).reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// Class, loss and prediction of every sample, in their order.
fn each_prediction(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    mut visit: impl FnMut(usize, f64, Option<usize>),
) -> Result<(), ModelError> {
    let expected = labels.len() * classes;
    if logits.len() != expected {
        return Err(ModelError::WrongLength { what: "the batch's logits", expected, found: logits.len() });
    }
    if classes == 0 {
        return Ok(());
    }
    for (sample, (row, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
        let class = label as usize;
        if class >= classes {
            return Err(ModelError::Label { sample, found: label, classes });
        }
        visit(class, sample_loss(row, class), predict(row));
    }
    Ok(())
}

/// The index ranges of [`CHUNK`] samples that cover `data`, evaluated in parallel, in order.
fn map_chunks<T: Send>(
    data: &Dataset,
    job: impl Fn(&Batch) -> Result<T, ModelError> + Sync,
) -> Result<Vec<T>, ModelError> {
    if data.is_empty() {
        return Err(ModelError::NoSamples { data: data.name.clone() });
    }
    (0..data.len().div_ceil(CHUNK))
        .into_par_iter()
        .map(|k| {
            let indices: Vec<usize> = (k * CHUNK..data.len().min((k + 1) * CHUNK)).collect();
            job(&data.gather(&indices))
        })
        .collect()
}

/// Mean loss and accuracy of `weights` on `data`: chunks of 500 samples in parallel, added in order,
/// so that the result does not depend on the number of threads.
///
/// # Errors
/// [`ModelError::NoSamples`], and what [`LocalTrainer::evaluate`] returns.
pub fn evaluate_dataset(trainer: &dyn LocalTrainer, weights: &[f32], data: &Dataset) -> Result<Evaluation, ModelError> {
    let parts = map_chunks(data, |batch| trainer.evaluate(weights, batch))?;
    let (loss, correct) = parts.iter().fold((0.0, 0), |(loss, correct), part| (loss + part.0, correct + part.1));
    Ok(mean(loss, correct, data.len()))
}

/// [`evaluate_dataset`] with the confusion matrix, from [`LocalTrainer::logits`]; without it for more than [`MOST_CONFUSED`] classes.
///
/// # Errors
/// As [`evaluate_dataset`].
pub fn confusion(
    trainer: &dyn LocalTrainer,
    weights: &[f32],
    data: &Dataset,
) -> Result<(Evaluation, Option<Confusion>), ModelError> {
    let classes = data.classes;
    if classes > MOST_CONFUSED {
        return Ok((evaluate_dataset(trainer, weights, data)?, None));
    }
    let parts = map_chunks(data, |batch| Ok((trainer.logits(weights, batch)?, batch.labels.clone())))?;
    let mut confusion = Confusion { counts: vec![vec![0; classes]; classes], undecided: vec![0; classes] };
    let mut total = 0.0;
    for (logits, labels) in parts {
        each_prediction(&logits, &labels, classes, |class, loss, prediction| {
            total += loss;
            match prediction {
                Some(prediction) => confusion.counts[class][prediction] += 1,
                None => confusion.undecided[class] += 1,
            }
        })?;
    }
    Ok((mean(total, confusion.correct(), data.len()), Some(confusion)))
}

fn mean(loss: f64, correct: usize, samples: usize) -> Evaluation {
    Evaluation { loss: loss / samples as f64, accuracy: correct as f64 / samples as f64, samples }
}
