//! From a config to a split in memory.

use std::path::{Path, PathBuf};

use super::catalog::{Content, ContentFile, Published, published};
use super::{DataConfig, DataError, Dataset, Features, IdxConfig, NAMES, Split, TextConfig, digits, fetch, idx, text};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};

/// Most classes of a data set.
pub(super) const MAX_CLASSES: usize = 65_536;
/// Column of the class in a QMNIST label file.
const CLASS_COLUMN: usize = 0;
/// Column of the writer in a QMNIST label file.
const WRITER_COLUMN: usize = 2;
/// Columns of a QMNIST label file.
const QMNIST_COLUMNS: usize = 8;

/// What a fixed public draw is for; part of its address.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Draw {
    LimitTrain = 1,
    LimitTest = 2,
    TestFraction = 3,
}

/// Loads what `config` names; relative paths start at `base_dir`. Published sets are fetched at first use
/// and verified at every use; `progress` shows bars and notes on stderr.
///
/// # Errors
/// [`DataError`], naming the file and what was expected and found.
pub fn load(config: &DataConfig, base_dir: &Path, progress: bool) -> Result<Split, DataError> {
    let DataConfig { name, csv, npz, idx, text, .. } = config;
    let mut split = match (name, csv, npz, idx, text) {
        (Some(name), None, None, None, None) => named(name, progress)?,
        (None, Some(csv), None, None, None) => super::csv::load(csv, base_dir)?,
        (None, None, Some(npz), None, None) => super::npz::load(npz, base_dir)?,
        (None, None, None, Some(idx), None) => idx_split(idx, base_dir)?,
        (None, None, None, None, Some(text)) => text::load(text, base_dir, progress)?,
        _ => return Err(DataError::OneSource { found: sources(config) }),
    };
    if let Some(path) = &config.writers {
        if config.idx.is_none() && config.name.as_deref() != Some("mnist") {
            return Err(DataError::WritersNeedMnist);
        }
        split.train.natural_ids = Some(writers(&base_dir.join(path), &split.train)?);
    }
    limit(&mut split.train, config.limit_train, "limit_train", Draw::LimitTrain)?;
    limit(&mut split.test, config.limit_test, "limit_test", Draw::LimitTest)?;
    Ok(split)
}

/// Loads a published set from `cache_root`, fetching what is not there with its published content; a text as
/// [`TextConfig::named`] means it.
///
/// # Errors
/// As [`fetch::fetch`], and those of [`idx::parse_u8`] and of texts.
pub fn load_published(set: &Published, cache_root: &Path, progress: bool) -> Result<Split, DataError> {
    let Content::Images { mean, std, classes } = set.content else {
        return text::load_from(&TextConfig::named(set.name), Path::new(""), |_| text_of(set, cache_root, progress));
    };
    let mut files = contents(set, cache_root, progress)?.into_iter();
    let mut part = || {
        let Some(((image_path, images), (label_path, labels))) = files.next().zip(files.next()) else {
            return Err(DataError::Empty { path: cache_root.join(set.name), what: "four IDX files" });
        };
        let images = idx::parse_u8(&image_path, &images, 3)?;
        let labels = idx::parse_u8(&label_path, &labels, 1)?;
        images_and_labels(set.name, (&image_path, images), (&label_path, labels), Some(classes), mean, std)
    };
    Ok(Split { train: part()?, test: part()? })
}

/// The verified files of a published set, fetched if one of them is not there with its published content.
fn contents(set: &Published, cache_root: &Path, progress: bool) -> Result<Vec<(PathBuf, Vec<u8>)>, DataError> {
    let dir = cache_root.join(set.name);
    let read = || {
        let file = |f: &ContentFile| {
            let path = dir.join(f.name);
            fetch::read_verified(&path, f).map(|content| (path, content))
        };
        set.files.iter().map(file).collect::<Result<Vec<_>, DataError>>()
    };
    read().or_else(|_| {
        let fetched = fetch::fetch_set(set, cache_root, progress)?;
        if let (true, Some(source)) = (progress, fetched.source) {
            eprintln!("note: {} fetched and verified, from {source}", set.name);
        }
        read()
    })
}

/// The one file of a published text.
fn text_of(set: &Published, cache_root: &Path, progress: bool) -> Result<(PathBuf, Vec<u8>), DataError> {
    let none = || DataError::Empty { path: cache_root.join(set.name), what: "file of text" };
    contents(set, cache_root, progress)?.into_iter().next().ok_or_else(none)
}

/// Path and content of the published text of that name.
pub(super) fn published_text(name: &str, progress: bool) -> Result<(PathBuf, Vec<u8>), DataError> {
    let set = published(name).filter(|set| set.content == Content::Play);
    let set = set.ok_or_else(|| super::unknown_name(name, &super::TEXTS))?;
    text_of(&set, &fetch::cache_root()?, progress)
}

/// Indices of a fixed public draw of `count` out of `len`, ascending.
pub(super) fn draw(len: usize, count: usize, purpose: Draw) -> Vec<usize> {
    let address = Address { copy: purpose as u32, ..Address::default() };
    let key: StreamKey = Secret::from_seed(0).derive(&[0; 16], address, Purpose::Partition, Cipher::ChaCha20);
    let mut order: Vec<usize> = (0..len).collect();
    key.reader(0).shuffle(&mut order);
    order.truncate(count);
    order.sort_unstable();
    order
}

fn sources(config: &DataConfig) -> Vec<&'static str> {
    let given = [
        ("name", config.name.is_some()),
        ("csv", config.csv.is_some()),
        ("npz", config.npz.is_some()),
        ("idx", config.idx.is_some()),
        ("text", config.text.is_some()),
    ];
    given.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

fn named(name: &str, progress: bool) -> Result<Split, DataError> {
    if name == "digits" {
        return digits::load();
    }
    let set = published(name).ok_or_else(|| super::unknown_name(name, &NAMES))?;
    load_published(&set, &fetch::cache_root()?, progress)
}

fn limit(data: &mut Dataset, limit: Option<usize>, key: &'static str, purpose: Draw) -> Result<(), DataError> {
    match limit {
        Some(0) => Err(DataError::Config { key, found: "0".to_owned(), expected: "at least 1" }),
        Some(count) if count < data.len() => {
            *data = data.select(&draw(data.len(), count, purpose));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn idx_split(config: &IdxConfig, base_dir: &Path) -> Result<Split, DataError> {
    if !(config.std > 0.0 && config.std.is_finite()) {
        return Err(DataError::Config { key: "std", found: config.std.to_string(), expected: "finite and > 0" });
    }
    if !config.mean.is_finite() {
        return Err(DataError::Config { key: "mean", found: config.mean.to_string(), expected: "finite" });
    }
    let read = |images: &PathBuf, labels: &PathBuf, classes| {
        let (image_path, label_path) = (base_dir.join(images), base_dir.join(labels));
        let images = (image_path.as_path(), idx::read_u8(&image_path, 3)?);
        let labels = (label_path.as_path(), idx::read_u8(&label_path, 1)?);
        images_and_labels("idx", images, labels, classes, config.mean, config.std)
    };
    let train = read(&config.train_images, &config.train_labels, None)?;
    let test = read(&config.test_images, &config.test_labels, Some(train.classes))?;
    if train.dim != test.dim {
        return Err(DataError::Features {
            train: base_dir.join(&config.train_images),
            test: base_dir.join(&config.test_images),
            expected: train.dim,
            found: test.dim,
        });
    }
    Ok(Split { train, test })
}

/// A data set of bytes; `classes` of `None` counts them: the largest label and one.
fn images_and_labels(
    name: &str,
    images: (&Path, idx::IdxArray<u8>),
    labels: (&Path, idx::IdxArray<u8>),
    classes: Option<usize>,
    mean: f32,
    std: f32,
) -> Result<Dataset, DataError> {
    let dim = images.1.row_len();
    let samples = images.1.dims[0];
    if samples != labels.1.data.len() {
        return Err(DataError::Counts {
            samples: images.0.to_owned(),
            labels: labels.0.to_owned(),
            expected: samples,
            found: labels.1.data.len(),
        });
    }
    if samples == 0 || dim == 0 {
        let what = if samples == 0 { "samples" } else { "features" };
        return Err(DataError::Empty { path: images.0.to_owned(), what });
    }
    let labels_path = labels.0;
    let labels: Vec<u32> = labels.1.data.iter().map(|&l| u32::from(l)).collect();
    let classes = classes.unwrap_or_else(|| count_classes(&labels));
    check_labels(labels_path, &labels, classes)?;
    let features = Features::Bytes(images.1.data);
    Ok(Dataset {
        name: name.to_owned(),
        features,
        mean,
        std,
        labels,
        dim,
        classes,
        natural_ids: None,
        class_names: None,
    })
}

/// The largest label and one, at least two.
pub(super) fn count_classes(labels: &[u32]) -> usize {
    labels.iter().max().map_or(2, |&l| l as usize + 1).max(2)
}

/// Every label is a class.
pub(super) fn check_labels(path: &Path, labels: &[u32], classes: usize) -> Result<(), DataError> {
    match labels.iter().position(|&l| l as usize >= classes) {
        Some(sample) => Err(DataError::Label { path: path.to_owned(), sample, found: labels[sample], classes }),
        None => Ok(()),
    }
}

/// Column 2 of a QMNIST label file, whose column 0 must agree with the labels of `train`.
fn writers(path: &Path, train: &Dataset) -> Result<Vec<u32>, DataError> {
    let table = idx::read_i32(path, 2)?;
    if table.dims != [train.len(), QMNIST_COLUMNS] {
        return Err(DataError::WriterShape {
            path: path.to_owned(),
            expected: [train.len(), QMNIST_COLUMNS],
            found: table.dims,
        });
    }
    let rows = table.data.chunks_exact(QMNIST_COLUMNS);
    if let Some((sample, row)) =
        rows.clone().enumerate().find(|(i, row)| i64::from(row[CLASS_COLUMN]) != i64::from(train.labels[*i]))
    {
        return Err(DataError::WriterLabel {
            path: path.to_owned(),
            sample,
            expected: train.labels[sample],
            found: row[CLASS_COLUMN],
        });
    }
    // Ids are names, not numbers: the cast keeps different ones different.
    Ok(rows.map(|row| row[WRITER_COLUMN] as u32).collect())
}
