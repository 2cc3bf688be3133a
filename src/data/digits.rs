//! The embedded set: UCI "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998; CC BY
//! 4.0), the 1,797 images of 8 x 8 counts 0..=16 that scikit-learn ships.

use std::io::Read;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{DataError, Dataset, Features, Split};

/// SHA-256 of the decompressed table.
pub const SHA256: &str = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8";
/// Images; the last [`TEST`] of them are the test set.
pub const SAMPLES: usize = 1797;
/// Test images: the end of the table, which other people wrote than its beginning.
pub const TEST: usize = 360;
/// Pixels an image.
pub const DIM: usize = 64;
/// One line for `veilsum data list`.
pub const ABOUT: &str = "UCI digits: 1,437 + 360 handwritten digits, 8 x 8 (Alpaydin, Kaynak 1998; CC BY 4.0)";
/// Mean of `value / 16` over the training images, rounded.
pub const MEAN: f32 = 0.3054;
/// Standard deviation of the same, rounded.
pub const STD: f32 = 0.3755;

static TABLE: &[u8] = include_bytes!("../../assets/digits.csv.gz");

/// The embedded digits: features `(value / 16 - MEAN) / STD`, the last [`TEST`] rows as the test set.
///
/// # Errors
/// [`DataError::Hash`] if the executable itself is damaged.
pub fn load() -> Result<Split, DataError> {
    let path = || PathBuf::from("<embedded>/digits.csv.gz");
    let mut text = String::new();
    // The content is 264 kB; the limit only keeps a damaged file from growing.
    let limit = 1 << 20;
    flate2::read::GzDecoder::new(TABLE).take(limit).read_to_string(&mut text).map_err(DataError::io(path()))?;
    let found = hex::encode(Sha256::digest(text.as_bytes()));
    if found != SHA256 {
        return Err(DataError::Hash { path: path(), expected: SHA256, found });
    }
    let mut pixels = Vec::with_capacity(SAMPLES * DIM);
    let mut labels = Vec::with_capacity(SAMPLES);
    for line in text.lines() {
        // The hash fixes the content: 64 pixels and a label a line, all small integers.
        let values: Vec<u8> = line.split(',').filter_map(|v| v.trim().parse().ok()).collect();
        pixels.extend(values[..DIM].iter().map(|&v| (f32::from(v) / 16.0 - MEAN) / STD));
        labels.push(u32::from(values[DIM]));
    }
    let part = |pixels: &[f32], labels: &[u32]| Dataset {
        name: "digits".to_owned(),
        features: Features::Floats(pixels.to_vec()),
        mean: 0.0,
        std: 1.0,
        labels: labels.to_vec(),
        dim: DIM,
        classes: 10,
        natural_ids: None,
        class_names: None,
    };
    let cut = SAMPLES - TEST;
    Ok(Split { train: part(&pixels[..cut * DIM], &labels[..cut]), test: part(&pixels[cut * DIM..], &labels[cut..]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_have_the_published_counts() {
        let split = load().unwrap();
        assert_eq!((split.train.len(), split.test.len()), (SAMPLES - TEST, TEST));
        let mut counts = [0; 10];
        for &label in split.train.labels.iter().chain(&split.test.labels) {
            counts[label as usize] += 1;
        }
        // Class distribution of optdigits.tes in the UCI description.
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let mut test = [0; 10];
        split.test.labels.iter().for_each(|&l| test[l as usize] += 1);
        assert!(test.iter().all(|&c| (30..=42).contains(&c)), "{test:?}");
    }

    #[test]
    fn mean_and_std_are_those_of_the_training_images() {
        let batch = load().unwrap().train.gather(&(0..SAMPLES - TEST).collect::<Vec<_>>());
        let n = batch.features.len() as f64;
        let mean = batch.features.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let var = batch.features.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5e-4 && (var - 1.0).abs() < 5e-4, "mean {mean}, variance {var}");
    }
}
