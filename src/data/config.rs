//! The `data` member of an experiment.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TextConfig;

/// Which data to train on: exactly one of `name`, `csv`, `npz`, `idx`, `text`.
///
/// ```json
/// {"name": "mnist"}
/// {"csv": {"train": "train.csv", "test_fraction": 0.2, "label": "target", "normalize": "standard"}}
/// {"npz": {"train": "data.npz", "test_fraction": 0.1}}
/// {"idx": {"train_images": "a", "train_labels": "b", "test_images": "c", "test_labels": "d"}}
/// {"text": {"train": "play.txt", "test_fraction": 0.1, "format": "play", "length": 64}}
/// ```
///
/// Relative paths start at the folder of the config file. **Privacy**: `"normalize": "standard"` and
/// `"min-max"`, the list of text labels, the number of classes and the sizes of the sets are read from
/// the data outside the privacy accounting; a bound on each feature that is known beforehand
/// (`{"fixed": ...}`) reads nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A published or embedded set: `mnist`, `fashion-mnist`, `tiny-shakespeare` (fetched at first use; its windows of 64
    /// characters by speaker, see `text`) or `digits` (embedded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["digits", "fashion-mnist", "mnist", "tiny-shakespeare", null]))]
    pub name: Option<String>,
    /// Tables of text: one sample a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvConfig>,
    /// Archives of NumPy arrays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npz: Option<NpzConfig>,
    /// Files in MNIST's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idx: Option<IdxConfig>,
    /// Text as token ids: plays, plain text, tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextConfig>,
    /// Who wrote each MNIST image: the QMNIST label file (IDX, n x 8 integers, column 2 is the writer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writers: Option<PathBuf>,
    /// Train on this many samples, drawn once by a fixed public key; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Test on this many samples, drawn likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
}

impl DataConfig {
    /// The set of that name, whole.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    /// The same data with every relative path starting at `base` instead of the folder of the config file.
    #[must_use]
    pub fn rebased(&self, base: &Path) -> Self {
        let mut config = self.clone();
        let mut paths: Vec<&mut PathBuf> = config.writers.iter_mut().collect();
        if let Some(csv) = &mut config.csv {
            match &mut csv.train {
                OneOrMany::One(path) => paths.push(path),
                OneOrMany::Many(list) => paths.extend(list),
            }
            paths.extend(&mut csv.test);
        }
        if let Some(npz) = &mut config.npz {
            paths.push(&mut npz.train);
            paths.extend(&mut npz.test);
        }
        if let Some(idx) = &mut config.idx {
            paths.extend([&mut idx.train_images, &mut idx.train_labels, &mut idx.test_images, &mut idx.test_labels]);
        }
        if let Some(text) = &mut config.text {
            paths.extend(text.paths());
        }
        for path in paths {
            *path = base.join(&*path);
        }
        config
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values as a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// A column of a table: its name in the header, or its number from 0 (negative numbers count from the end).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Column {
    /// By number.
    Index(i64),
    /// By name.
    Name(String),
}

/// What to do with a cell that is empty, `NaN`, `NA` or `?`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Refuse the file, naming line and column.
    #[default]
    Error,
    /// Leave it out of the statistics; the feature is 0 after the normalisation (the mean, under `standard`).
    Zero,
}

/// How features are scaled. `standard` and `min-max` take their statistics from the **training** samples,
/// outside the privacy accounting; `fixed` and `none` read nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// As they are.
    #[default]
    None,
    /// `(x - mean) / std` of each feature; a constant feature becomes 0.
    Standard,
    /// `(x - min) / (max - min)` of each feature; a constant feature becomes 0.
    MinMax,
    /// `(x - mean) / std` with constants of yours.
    Fixed(Fixed),
}

/// Constants of a normalisation that were known beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// What to subtract: one number, or one a feature.
    pub mean: OneOrMany<f32>,
    /// What to divide by, > 0: one number, or one a feature.
    pub std: OneOrMany<f32>,
}

/// Tables of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvConfig {
    /// The training table; with several, each file is one natural owner (see the partition by `natural`).
    pub train: OneOrMany<PathBuf>,
    /// The test table; exactly one of `test` and `test_fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Share of the training samples that becomes the test set, in (0, 1), drawn once by a fixed public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// The column of the label: integers from 0, or text (classes in sorted order).
    pub label: Column,
    /// Turns a numeric label into two classes: 1 above this number, else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive_above: Option<f64>,
    /// The column that says who owns each sample (patient, shop), for the partition by `natural`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Column>,
    /// Columns that are no features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<Column>,
    /// Whether the first line holds names; if absent, it does when none of its feature cells is a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// What separates the cells, one ASCII character; a comma if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// How features are scaled.
    #[serde(default)]
    pub normalize: Normalize,
    /// What to do with missing values.
    #[serde(default)]
    pub missing: Missing,
}

/// Archives of NumPy arrays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NpzConfig {
    /// The training archive.
    pub train: PathBuf,
    /// The test archive, with the same names of arrays; exactly one of `test` and `test_fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Share of the training samples that becomes the test set, in (0, 1), drawn once by a fixed public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// The array of features, n x anything.
    #[serde(default = "default_x")]
    pub x: String,
    /// The array of labels, n integers from 0.
    #[serde(default = "default_y")]
    pub y: String,
    /// The array that says who owns each sample, n integers from 0, for the partition by `natural`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How features are scaled.
    #[serde(default)]
    pub normalize: Normalize,
}

fn default_x() -> String {
    "x".to_owned()
}

fn default_y() -> String {
    "y".to_owned()
}

/// Files in MNIST's format: bytes, raw or gzipped. Features are `(byte / 255 - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdxConfig {
    /// n x height x width bytes.
    pub train_images: PathBuf,
    /// n bytes.
    pub train_labels: PathBuf,
    /// m x height x width bytes.
    pub test_images: PathBuf,
    /// m bytes.
    pub test_labels: PathBuf,
    /// What to subtract from bytes scaled to `[0, 1]`.
    #[serde(default)]
    pub mean: f32,
    /// What to divide by, > 0.
    #[serde(default = "default_std")]
    pub std: f32,
}

fn default_std() -> f32 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_the_names_and_refuses_other_keys() {
        let schema = schemars::schema_for!(DataConfig).to_value();
        assert_eq!(schema["additionalProperties"], false);
        let names = schema["properties"]["name"]["enum"].as_array().unwrap();
        let known: Vec<&str> = names.iter().filter_map(|n| n.as_str()).collect();
        assert_eq!(known, crate::data::NAMES);
    }
}
