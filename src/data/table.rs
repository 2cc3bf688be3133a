//! What tables and archives share: raw features and labels become a split.

use std::path::{Path, PathBuf};

use super::load::{Draw, draw};
use super::{DataError, Dataset, Features, Fixed, Normalize, OneOrMany, Split};

/// Raw samples before the normalisation; `NaN` stands for a missing value.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    pub(super) path: PathBuf,
    pub(super) features: Vec<f32>,
    pub(super) labels: Vec<u32>,
    pub(super) dim: usize,
    pub(super) natural_ids: Option<Vec<u32>>,
}

impl Raw {
    fn select(&self, indices: &[usize]) -> Self {
        let rows = |i: usize| i * self.dim..(i + 1) * self.dim;
        Self {
            path: self.path.clone(),
            features: indices.iter().flat_map(|&i| self.features[rows(i)].iter().copied()).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            dim: self.dim,
            natural_ids: self.natural_ids.as_ref().map(|ids| indices.iter().map(|&i| ids[i]).collect()),
        }
    }
}

/// Exactly one of `test` and `test_fraction`, checked before any file is read.
pub(super) fn check_split(test: bool, fraction: Option<f64>) -> Result<(), DataError> {
    let expected = "given without `test`, in (0, 1)";
    match (test, fraction) {
        (true, None) => Ok(()),
        (false, Some(f)) if f > 0.0 && f < 1.0 => Ok(()),
        (_, found) => {
            let found = found.map_or_else(|| "absent".to_owned(), |f| f.to_string());
            let expected = if test { "absent beside `test`" } else { expected };
            Err(DataError::Config { key: "test_fraction", found, expected })
        }
    }
}

/// Cuts a test set off `train` if there is no `test`: `round(fraction n)` samples, at least one on each side.
pub(super) fn cut(train: Raw, test: Option<Raw>, fraction: Option<f64>) -> Result<(Raw, Raw), DataError> {
    if let Some(test) = test {
        if test.dim != train.dim {
            let (expected, found) = (train.dim, test.dim);
            return Err(DataError::Features { train: train.path, test: test.path, expected, found });
        }
        return Ok((train, test));
    }
    let n = train.labels.len();
    if n < 2 {
        return Err(DataError::Empty { path: train.path, what: "second sample to test on" });
    }
    let count = (fraction.unwrap_or(0.0) * n as f64).round().clamp(1.0, (n - 1) as f64) as usize;
    let held_out = draw(n, count, Draw::TestFraction);
    let mut rest = Vec::with_capacity(n - count);
    let mut next = held_out.iter().peekable();
    for i in 0..n {
        if next.next_if_eq(&&i).is_none() {
            rest.push(i);
        }
    }
    Ok((train.select(&rest), train.select(&held_out)))
}

/// Normalises both sets by `normalize`, with statistics of the training set.
pub(super) fn finish(
    name: &str,
    (mut train, mut test): (Raw, Raw),
    normalize: &Normalize,
    classes: usize,
    class_names: Option<Vec<String>>,
) -> Result<Split, DataError> {
    let scale = affine(&train, normalize)?;
    scale.apply(&mut train.features);
    scale.apply(&mut test.features);
    for part in [&train, &test] {
        // The reader refused what is not finite; only the division can overflow.
        if let Some(i) = part.features.iter().position(|x| !x.is_finite()) {
            return Err(DataError::Overflow { path: part.path.clone(), sample: i / part.dim, feature: i % part.dim });
        }
    }
    let part = |raw: Raw| Dataset {
        name: name.to_owned(),
        features: Features::Floats(raw.features),
        mean: 0.0,
        std: 1.0,
        labels: raw.labels,
        dim: raw.dim,
        classes,
        natural_ids: raw.natural_ids,
        class_names: class_names.clone(),
    };
    Ok(Split { train: part(train), test: part(test) })
}

/// `(x - shift) / scale` of each feature.
struct Affine {
    shift: Vec<f64>,
    scale: Vec<f64>,
}

impl Affine {
    fn apply(&self, features: &mut [f32]) {
        for row in features.chunks_exact_mut(self.shift.len()) {
            for ((x, shift), scale) in row.iter_mut().zip(&self.shift).zip(&self.scale) {
                *x = if x.is_nan() { 0.0 } else { ((f64::from(*x) - shift) / scale) as f32 };
            }
        }
    }
}

fn affine(train: &Raw, normalize: &Normalize) -> Result<Affine, DataError> {
    let dim = train.dim;
    let column = |j: usize| train.features.iter().skip(j).step_by(dim).filter(|x| !x.is_nan()).map(|&x| f64::from(x));
    // A constant feature carries nothing; dividing by 1 leaves it at 0.
    let or_one = |scale: f64| if scale > 0.0 { scale } else { 1.0 };
    let (shift, scale) = match normalize {
        Normalize::None => (vec![0.0; dim], vec![1.0; dim]),
        Normalize::Standard => (0..dim)
            .map(|j| {
                let n = (column(j).count() as f64).max(1.0);
                let mean = column(j).sum::<f64>() / n;
                let variance = column(j).map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
                (mean, or_one(variance.sqrt()))
            })
            .unzip(),
        Normalize::MinMax => (0..dim)
            .map(|j| {
                let low = column(j).fold(f64::INFINITY, f64::min);
                let high = column(j).fold(f64::NEG_INFINITY, f64::max);
                if low.is_finite() { (low, or_one(high - low)) } else { (0.0, 1.0) }
            })
            .unzip(),
        Normalize::Fixed(fixed) => constants(fixed, dim)?,
    };
    Ok(Affine { shift, scale })
}

/// The constants, one a feature.
fn constants(fixed: &Fixed, dim: usize) -> Result<(Vec<f64>, Vec<f64>), DataError> {
    let spread = |key, values: &OneOrMany<f32>| match values {
        OneOrMany::One(value) => Ok(vec![f64::from(*value); dim]),
        OneOrMany::Many(values) if values.len() == dim => Ok(values.iter().map(|&v| f64::from(v)).collect()),
        OneOrMany::Many(values) => Err(DataError::Constants { key, expected: dim, found: values.len() }),
    };
    let (mean, std) = (spread("normalize.fixed.mean", &fixed.mean)?, spread("normalize.fixed.std", &fixed.std)?);
    if let Some(bad) = mean.iter().find(|m| !m.is_finite()) {
        return Err(DataError::Config { key: "normalize.fixed.mean", found: bad.to_string(), expected: "finite" });
    }
    if let Some(bad) = std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        let expected = "finite and > 0";
        return Err(DataError::Config { key: "normalize.fixed.std", found: bad.to_string(), expected });
    }
    Ok((mean, std))
}

/// The file itself, for errors, unless it holds samples with features.
pub(super) fn not_empty(path: &Path, samples: usize, dim: usize) -> Result<(), DataError> {
    let what = if samples == 0 { "samples" } else { "features" };
    if samples == 0 || dim == 0 { Err(DataError::Empty { path: path.to_owned(), what }) } else { Ok(()) }
}
