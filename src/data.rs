//! Data sets: readers, verified downloads, partitioners.

use std::path::PathBuf;

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
    /// Class labels.
    pub labels: Vec<u32>,
    /// Features a sample.
    pub dim: usize,
    /// Number of classes.
    pub classes: usize,
    /// Who wrote or owns each sample (writer, speaker, hospital), where known.
    pub natural_ids: Option<Vec<u32>>,
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
}

/// A training and a test set.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// For the clients.
    pub train: Dataset,
    /// For the evaluation.
    pub test: Dataset,
}

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
