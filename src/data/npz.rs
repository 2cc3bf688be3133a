//! Archives of NumPy arrays (`numpy.savez`, `numpy.savez_compressed`).
//!
//! The NPY header is read here, with every product checked: a header that announces absurd dimensions is
//! an error before anything is allocated. Source: NumPy, "NPY format" (NEP 1), versions 1.0 to 3.0.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read};
use std::path::Path;

use npyz::npz::NpzArchive;

use super::idx::MAX_BYTES;
use super::load::{MAX_CLASSES, check_labels, count_classes};
use super::table::{Raw, check_split, cut, finish, not_empty};
use super::{DataError, NpzConfig, Split};

/// Element types that are read.
const TYPES: &str = "bool, an integer of 8 to 64 bits, float32 or float64";
/// Longest header: NumPy writes less than this for any array of numbers.
const MAX_HEADER: usize = 1 << 16;

/// Loads the archives that `config` names.
pub(super) fn load(config: &NpzConfig, base_dir: &Path) -> Result<Split, DataError> {
    check_split(config.test.is_some(), config.test_fraction)?;
    let train = read(config, &base_dir.join(&config.train))?;
    let test = config.test.as_ref().map(|p| read(config, &base_dir.join(p))).transpose()?;
    let classes = count_classes(&train.labels);
    if let Some(test) = &test {
        check_labels(&test.path, &test.labels, classes)?;
    }
    finish("npz", cut(train, test, config.test_fraction)?, &config.normalize, classes, None)
}

fn read(config: &NpzConfig, path: &Path) -> Result<Raw, DataError> {
    let mut archive = NpzArchive::open(path).map_err(DataError::io(path))?;
    let x = Array::read(&mut archive, path, &config.x)?;
    let samples = x.shape.first().copied().unwrap_or(0) as usize;
    // No overflow where there are samples, as the whole product was checked; 0 samples are refused below.
    let dim = x.shape.iter().skip(1).fold(1u64, |product, &d| product.saturating_mul(d)) as usize;
    if x.shape.is_empty() {
        return Err(x.wrong_shape("n x anything".to_owned()));
    }
    not_empty(path, samples, dim)?;
    let mut features = Vec::with_capacity(x.values.len());
    for (index, &value) in x.values.iter().enumerate() {
        if !(value as f32).is_finite() {
            let key = x.key.clone();
            let expected = "a finite 32-bit number";
            return Err(DataError::ArrayValue { path: path.to_owned(), key, index, found: value, expected });
        }
        features.push(value as f32);
    }
    let labels = integers(&mut archive, path, &config.y, samples, MAX_CLASSES as f64, "an integer in 0..65536")?;
    let ids = config
        .group
        .as_ref()
        .map(|key| integers(&mut archive, path, key, samples, f64::from(u32::MAX), "an integer in 0..4294967295"));
    Ok(Raw { path: path.to_owned(), features, labels, dim, natural_ids: ids.transpose()? })
}

/// An array of `samples` integers in `[0, limit)`, of shape n or n x 1.
fn integers(
    archive: &mut NpzArchive<BufReader<File>>,
    path: &Path,
    key: &str,
    samples: usize,
    limit: f64,
    expected: &'static str,
) -> Result<Vec<u32>, DataError> {
    let y = Array::read(archive, path, key)?;
    let n = samples as u64;
    if y.shape != [n] && y.shape != [n, 1] {
        return Err(y.wrong_shape(format!("[{n}]")));
    }
    let class = |(index, &found): (usize, &f64)| {
        if found >= 0.0 && found < limit && found.fract() == 0.0 {
            return Ok(found as u32);
        }
        Err(DataError::ArrayValue { path: path.to_owned(), key: key.to_owned(), index, found, expected })
    };
    y.values.iter().enumerate().map(class).collect()
}

/// One array, in C order, as doubles.
struct Array<'a> {
    path: &'a Path,
    key: String,
    shape: Vec<u64>,
    values: Vec<f64>,
}

impl<'a> Array<'a> {
    fn read(archive: &mut NpzArchive<BufReader<File>>, path: &'a Path, key: &str) -> Result<Self, DataError> {
        let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
        if !names.iter().any(|name| name == key) {
            let known = names.join(", ");
            return Err(DataError::NoArray { path: path.to_owned(), key: key.to_owned(), known });
        }
        let entry = npyz::npz::file_name_from_array_name(key);
        let mut entry = archive
            .zip_archive()
            .by_name(&entry)
            .map_err(|e| DataError::io(path)(Error::new(ErrorKind::InvalidData, e)))?;
        let header = Header::read(&mut entry, path, key)?;
        let width = header.element.width();
        let bytes = header
            .shape
            .iter()
            .try_fold(width, |product, &d| product.checked_mul(d))
            .filter(|&b| b <= MAX_BYTES)
            .ok_or_else(|| DataError::TooLarge {
                path: path.to_owned(),
                dims: header.shape.clone(),
                limit: MAX_BYTES,
            })?;
        let mut data = Vec::new();
        entry.take(bytes + 1).read_to_end(&mut data).map_err(DataError::io(path))?;
        let found = data.len() as u64;
        if found < bytes {
            return Err(DataError::Truncated { path: path.to_owned(), what: "the array", expected: bytes, found });
        }
        if found > bytes {
            return Err(DataError::Trailing { path: path.to_owned(), expected: bytes, found });
        }
        let mut values: Vec<f64> = data.chunks_exact(width as usize).map(|b| header.element.value(b)).collect();
        if header.fortran {
            values = to_c_order(&values, &header.shape);
        }
        Ok(Self { path, key: key.to_owned(), shape: header.shape, values })
    }

    fn wrong_shape(self, expected: String) -> DataError {
        DataError::ArrayShape { path: self.path.to_owned(), key: self.key, found: self.shape, expected }
    }
}

/// Element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) kind: char,
    pub(super) bytes: u8,
    pub(super) big_endian: bool,
}

impl Element {
    /// From NumPy's name, such as `<f4`.
    fn parse(name: &str) -> Option<Self> {
        let mut chars = name.chars();
        let (order, kind) = (chars.next()?, chars.next()?);
        let bytes: u8 = chars.as_str().parse().ok()?;
        let known = match kind {
            'b' => bytes == 1,
            'i' | 'u' => [1, 2, 4, 8].contains(&bytes),
            'f' => [4, 8].contains(&bytes),
            _ => false,
        };
        let big_endian = match order {
            '>' => true,
            '<' => false,
            '|' if bytes == 1 => false,
            _ => return None,
        };
        known.then_some(Self { kind, bytes, big_endian })
    }

    fn width(self) -> u64 {
        u64::from(self.bytes)
    }

    /// The value of `width` bytes. Integers beyond 2^53 are rounded: no feature and no class needs more.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut word = [0u8; 8];
        let width = bytes.len().min(8);
        for (i, slot) in word[..width].iter_mut().enumerate() {
            *slot = if self.big_endian { bytes[width - 1 - i] } else { bytes[i] };
        }
        let word = u64::from_le_bytes(word);
        match (self.kind, self.bytes) {
            ('f', 4) => f64::from(f32::from_bits(word as u32)),
            ('f', _) => f64::from_bits(word),
            ('i', 1) => f64::from(word as i8),
            ('i', 2) => f64::from(word as i16),
            ('i', 4) => f64::from(word as i32),
            ('i', _) => word as i64 as f64,
            _ => word as f64,
        }
    }
}

/// Header of one array.
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) fortran: bool,
    pub(super) shape: Vec<u64>,
}

impl Header {
    pub(super) fn read(entry: &mut impl Read, path: &Path, key: &str) -> Result<Self, DataError> {
        let unreadable = |found: &[u8]| DataError::ArrayHeader {
            path: path.to_owned(),
            key: key.to_owned(),
            found: String::from_utf8_lossy(&found[..found.len().min(80)]).trim_end().to_owned(),
        };
        let mut take = |count: usize| {
            let mut out = Vec::new();
            entry.by_ref().take(count as u64).read_to_end(&mut out).map_err(DataError::io(path))?;
            if out.len() == count { Ok(out) } else { Err(unreadable(&out)) }
        };
        let magic = take(8)?;
        if !magic.starts_with(b"\x93NUMPY") {
            return Err(unreadable(&magic));
        }
        let len = match magic[6] {
            1 => take(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            2 | 3 => take(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            _ => return Err(unreadable(&magic)),
        };
        if len > MAX_HEADER {
            return Err(unreadable(&magic));
        }
        let text = take(len)?;
        let dict = std::str::from_utf8(&text).map_err(|_| unreadable(&text))?;
        let (Some(descr), Some(fortran), Some(shape)) =
            (member(dict, "descr"), member(dict, "fortran_order"), member(dict, "shape").and_then(dimensions))
        else {
            return Err(unreadable(&text));
        };
        let name = descr.trim_start_matches(['\'', '"']).split(['\'', '"']).next().unwrap_or_default();
        let element = Element::parse(name).ok_or_else(|| DataError::ArrayType {
            path: path.to_owned(),
            key: key.to_owned(),
            found: name.to_owned(),
            expected: TYPES,
        })?;
        Ok(Self { element, fortran: fortran.starts_with("True"), shape })
    }
}

/// What follows `'name':` in a Python dictionary.
fn member<'a>(dict: &'a str, name: &str) -> Option<&'a str> {
    let start = dict.find(&format!("'{name}'"))? + name.len() + 2;
    dict[start..].trim_start().strip_prefix(':').map(str::trim_start)
}

/// A Python tuple of integers, such as `(3, 28, 28)`, `(3,)` or `()`.
fn dimensions(text: &str) -> Option<Vec<u64>> {
    let inner = text.strip_prefix('(')?.split(')').next()?;
    inner.split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect()
}

/// Elements stored with the first index fastest, reordered so that the last is.
fn to_c_order(values: &[f64], shape: &[u64]) -> Vec<f64> {
    let mut index = vec![0u64; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let position = index.iter().zip(shape).rev().fold(0, |at, (&i, &d)| at * d + i);
        out.push(values[position as usize]);
        for (i, &d) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < d {
                break;
            }
            *i = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_and_byte_orders() {
        let value = |name: &str, bytes: &[u8]| Element::parse(name).map(|e| e.value(bytes));
        assert_eq!(value("<f4", &1.5f32.to_le_bytes()), Some(1.5));
        assert_eq!(value(">f8", &(-2.25f64).to_be_bytes()), Some(-2.25));
        assert_eq!(value("|i1", &[0xff]), Some(-1.0));
        assert_eq!(value("<i2", &(-300i16).to_le_bytes()), Some(-300.0));
        assert_eq!(value(">i8", &(-5i64).to_be_bytes()), Some(-5.0));
        assert_eq!(value("<u8", &7u64.to_le_bytes()), Some(7.0));
        assert_eq!(value("|b1", &[1]), Some(1.0));
        for bad in ["<f2", "<c8", "|O", "<U5", "", "é", "<f16", "|f4", "<i3"] {
            assert_eq!(Element::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn fortran_order_is_transposed() {
        // a[i][j][k] = 100 i + 10 j + k of shape 2 x 3 x 2, first index fastest.
        let mut stored = Vec::new();
        for k in 0..2 {
            for j in 0..3 {
                for i in 0..2 {
                    stored.push(f64::from(100 * i + 10 * j + k));
                }
            }
        }
        let c = [0., 1., 10., 11., 20., 21., 100., 101., 110., 111., 120., 121.];
        assert_eq!(to_c_order(&stored, &[2, 3, 2]), c);
    }

    #[test]
    fn shapes_parse_as_python_writes_them() {
        assert_eq!(dimensions("(3, 28, 28), }"), Some(vec![3, 28, 28]));
        assert_eq!(dimensions("(3,), }"), Some(vec![3]));
        assert_eq!(dimensions("(), }"), Some(vec![]));
        assert_eq!(dimensions("(-1,)"), None);
        assert_eq!(dimensions("3"), None);
    }
}
