//! Data sets: readers, verified downloads, partitioners.
//!
//! [`load()`] turns a [`DataConfig`] into a [`Split`]; [`partition()`] deals the training set to clients.
//! Published sets are known by their content hash; users' own tables, archives, IDX files and texts train as well.

pub mod catalog;
pub mod cells;
mod config;
mod csv;
pub mod digits;
mod error;
pub mod fetch;
pub mod idx;
mod load;
mod npz;
pub mod partition;
mod table;
pub mod text;
pub mod vectors;

pub use config::{Column, CsvConfig, DataConfig, Fixed, IdxConfig, Missing, Normalize, NpzConfig, OneOrMany};
pub use error::{Attempt, CellProblem, DataError, PartitionProblem, Unobtainable};
pub use load::{load, load_published};
pub use partition::{Partition, PartitionConfig, PartitionReport, partition};
pub use text::{TextConfig, TextProblem};

use sha2::{Digest, Sha256};

/// A mini-batch: features row by row, one label a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `len * dim` normalised features.
    pub features: Vec<f32>,
    /// `len` class labels.
    pub labels: Vec<u32>,
    /// Features a sample.
    pub dim: usize,
}

impl Batch {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The samples at `indices`. Panics if an index is out of range.
    #[must_use]
    pub fn select(&self, indices: impl IntoIterator<Item = usize> + Clone) -> Self {
        let features =
            indices.clone().into_iter().flat_map(|i| &self.features[i * self.dim..(i + 1) * self.dim]).copied();
        let labels = indices.into_iter().map(|i| self.labels[i]).collect();
        Self { features: features.collect(), labels, dim: self.dim }
    }

    /// True without samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Stored features: bytes are kept as bytes (47 MB instead of 188 MB for MNIST).
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    /// `(byte / 255 - mean) / std`.
    Bytes(Vec<u8>),
    /// `(value - mean) / std`, already applied.
    Floats(Vec<f32>),
}

/// A labelled data set in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Name in reports.
    pub name: String,
    /// `len * dim` features.
    pub features: Features,
    /// Mean subtracted by [`Dataset::gather`] from bytes scaled to `[0, 1]`.
    pub mean: f32,
    /// Divisor after the mean.
    pub std: f32,
    /// Class labels, each below `classes`.
    pub labels: Vec<u32>,
    /// Features a sample.
    pub dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Who wrote or owns each sample (writer, speaker, hospital), where known.
    pub natural_ids: Option<Vec<u32>>,
    /// What the classes are called, where labels were text.
    pub class_names: Option<Vec<String>>,
}

impl Dataset {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True without samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// No samples of no class: the data of a party that has none.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            name: String::new(),
            features: Features::Bytes(Vec::new()),
            mean: 0.0,
            std: 1.0,
            labels: Vec::new(),
            dim: 0,
            classes: 0,
            natural_ids: None,
            class_names: None,
        }
    }

    /// The samples at `indices`, normalised. Panics if an index is out of range: partitions are built
    /// from this data set.
    #[must_use]
    pub fn gather(&self, indices: &[usize]) -> Batch {
        let mut features = Vec::with_capacity(indices.len() * self.dim);
        let scale = 1.0 / (255.0 * self.std);
        let shift = self.mean / self.std;
        for &i in indices {
            let span = i * self.dim..(i + 1) * self.dim;
            match &self.features {
                Features::Bytes(v) => features.extend(v[span].iter().map(|&b| f32::from(b) * scale - shift)),
                Features::Floats(v) => features.extend_from_slice(&v[span]),
            }
        }
        Batch { features, labels: indices.iter().map(|&i| self.labels[i]).collect(), dim: self.dim }
    }

    /// Samples of each class, `classes` counts.
    #[must_use]
    pub fn label_histogram(&self) -> Vec<usize> {
        histogram(self.labels.iter().copied(), self.classes)
    }

    /// SHA-256 in hex over the stored features (bytes, or `f32` little-endian), then over the labels (`u32`
    /// little-endian): equal for equal data in equal order, whatever file they came from.
    #[must_use]
    pub fn content_sha256(&self) -> String {
        let mut hash = Sha256::new();
        match &self.features {
            Features::Bytes(v) => hash.update(v),
            Features::Floats(v) => v.iter().for_each(|x| hash.update(x.to_le_bytes())),
        }
        self.labels.iter().for_each(|x| hash.update(x.to_le_bytes()));
        hex::encode(hash.finalize())
    }

    /// Keeps only the samples at `indices`, in that order. Panics if an index is out of range.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let rows = |i: usize| i * self.dim..(i + 1) * self.dim;
        Self {
            name: self.name.clone(),
            features: match &self.features {
                Features::Bytes(v) => {
                    Features::Bytes(indices.iter().flat_map(|&i| v[rows(i)].iter().copied()).collect())
                }
                Features::Floats(v) => {
                    Features::Floats(indices.iter().flat_map(|&i| v[rows(i)].iter().copied()).collect())
                }
            },
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            natural_ids: self.natural_ids.as_ref().map(|ids| indices.iter().map(|&i| ids[i]).collect()),
            class_names: self.class_names.clone(),
            ..*self
        }
    }
}

/// A training and a test set.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// For the clients.
    pub train: Dataset,
    /// For the evaluation.
    pub test: Dataset,
}

/// How often each of `0..classes` occurs.
fn histogram(labels: impl Iterator<Item = u32>, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for label in labels {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1;
        }
    }
    counts
}

/// Names of the sets that need no file of the user.
pub const NAMES: [&str; 4] = ["digits", "fashion-mnist", "mnist", "tiny-shakespeare"];

/// Names of the published texts.
pub const TEXTS: [&str; 1] = ["tiny-shakespeare"];

/// An error that lists `known` and the nearest of them.
fn unknown_name(name: &str, known: &[&'static str]) -> DataError {
    let near = |k: &&'static str| strsim::jaro_winkler(&name.to_lowercase(), k);
    let nearest = known.iter().copied().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|k| near(k) > 0.7);
    DataError::UnknownName { name: name.to_owned(), nearest, known: known.join(", ") }
}
