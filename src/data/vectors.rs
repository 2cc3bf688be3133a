//! Vectors of integers, one a row: NumPy arrays (`.npy`), safetensors, and raw little-endian numbers.
//!
//! Exact: every integer of 8 to 64 bits, none rounded. Every length is checked before anything is allocated.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};

use super::DataError;
use super::idx::MAX_BYTES;
use super::npz::{Element, Header};

/// What is read.
const TYPES: &str = "an integer of 8 to 64 bits";

/// Rows of integers, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegerRows {
    /// Rows.
    pub rows: usize,
    /// Values of a row.
    pub cols: usize,
    /// `rows x cols` values.
    pub values: Vec<i64>,
}

/// Numbers without a header: their type, and how many make a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLayout {
    /// Bytes of a number: 1, 2, 4 or 8.
    pub bytes: u8,
    /// Two's complement, or without a sign.
    pub signed: bool,
    /// Values of a row.
    pub cols: usize,
}

/// Bytes of a file that is not too long.
fn bytes_of(path: &Path) -> Result<Vec<u8>, DataError> {
    let found = fs::metadata(path).map_err(DataError::io(path))?.len();
    if found > MAX_BYTES {
        return Err(DataError::TooLarge { path: path.to_owned(), dims: vec![found], limit: MAX_BYTES });
    }
    fs::read(path).map_err(DataError::io(path))
}

/// Reads a file by its name: `.npy`, `.safetensors` (of `tensor`, or of the only one), or raw numbers of `raw`.
///
/// # Errors
/// A file that cannot be read; another type than integers, more than two dimensions, no values; a number of
/// 64 bits without a sign that is not below `2^63`. A name that says nothing, and no `raw`.
pub fn read(path: &Path, tensor: Option<&str>, raw: Option<RawLayout>) -> Result<IntegerRows, DataError> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match (extension.as_str(), raw) {
        ("npy", _) => npy(path),
        ("safetensors", _) => safetensors(path, tensor),
        (_, Some(layout)) => raw_numbers(path, layout),
        (_, None) => Err(DataError::Config {
            key: "input",
            found: path.display().to_string(),
            expected: "a `.npy` or `.safetensors` file, or raw numbers with their type and dimension",
        }),
    }
}

fn npy(path: &Path) -> Result<IntegerRows, DataError> {
    let key = "the array";
    let bytes = bytes_of(path)?;
    let mut rest = bytes.as_slice();
    let header = Header::read(&mut rest, path, key)?;
    if !matches!(header.element.kind, 'i' | 'u') {
        let found = format!("{}{}", header.element.kind, header.element.bytes);
        return Err(DataError::ArrayType { path: path.to_owned(), key: key.to_owned(), found, expected: TYPES });
    }
    let (rows, cols) = two_dimensions(path, key, &header.shape)?;
    let mut values = numbers(path, key, header.element, rows * cols, rest)?;
    if header.fortran && rows > 1 && cols > 1 {
        values = (0..rows * cols).map(|at| values[at % cols * rows + at / cols]).collect();
    }
    Ok(IntegerRows { rows, cols, values })
}

fn safetensors(path: &Path, tensor: Option<&str>) -> Result<IntegerRows, DataError> {
    let bytes = bytes_of(path)?;
    let broken = |e: safetensors::SafeTensorError| DataError::ArrayHeader {
        path: path.to_owned(),
        key: tensor.unwrap_or("the tensor").to_owned(),
        found: e.to_string(),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let mut names: Vec<&str> = file.names();
    names.sort_unstable();
    let name = match (tensor, &names[..]) {
        (Some(name), _) if names.contains(&name) => name,
        (None, [only]) => only,
        _ => {
            let key = tensor.unwrap_or("(one of several: name it)").to_owned();
            return Err(DataError::NoArray { path: path.to_owned(), key, known: names.join(", ") });
        }
    };
    let view = file.tensor(name).map_err(broken)?;
    let (kind, width) = match view.dtype() {
        Dtype::I8 => ('i', 1),
        Dtype::I16 => ('i', 2),
        Dtype::I32 => ('i', 4),
        Dtype::I64 => ('i', 8),
        Dtype::U8 => ('u', 1),
        Dtype::U16 => ('u', 2),
        Dtype::U32 => ('u', 4),
        Dtype::U64 => ('u', 8),
        other => {
            let found = format!("{other:?}");
            return Err(DataError::ArrayType { path: path.to_owned(), key: name.to_owned(), found, expected: TYPES });
        }
    };
    let shape: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
    let (rows, cols) = two_dimensions(path, name, &shape)?;
    let element = Element { kind, bytes: width, big_endian: false };
    Ok(IntegerRows { rows, cols, values: numbers(path, name, element, rows * cols, view.data())? })
}

fn raw_numbers(path: &Path, layout: RawLayout) -> Result<IntegerRows, DataError> {
    let bytes = bytes_of(path)?;
    let row = layout.cols.saturating_mul(usize::from(layout.bytes));
    if row == 0 || bytes.is_empty() || bytes.len() % row != 0 {
        let (expected, found) =
            (bytes.len().div_ceil(row.max(1)).max(1).saturating_mul(row) as u64, bytes.len() as u64);
        return Err(DataError::Truncated { path: path.to_owned(), what: "whole rows", expected, found });
    }
    let kind = if layout.signed { 'i' } else { 'u' };
    let element = Element { kind, bytes: layout.bytes, big_endian: false };
    let rows = bytes.len() / row;
    let values = numbers(path, "the file", element, rows * layout.cols, &bytes)?;
    Ok(IntegerRows { rows, cols: layout.cols, values })
}

/// Rows and columns of a vector or a matrix with values.
fn two_dimensions(path: &Path, key: &str, shape: &[u64]) -> Result<(usize, usize), DataError> {
    let found = match *shape {
        [cols] => Some((1, cols)),
        [rows, cols] => Some((rows, cols)),
        _ => None,
    };
    let fits = |(rows, cols): &(u64, u64)| {
        (1..=MAX_BYTES).contains(rows) && rows.checked_mul(*cols).is_some_and(|n| (1..=MAX_BYTES).contains(&n))
    };
    match found.filter(fits) {
        Some((rows, cols)) => Ok((rows as usize, cols as usize)),
        None => Err(DataError::ArrayShape {
            path: path.to_owned(),
            key: key.to_owned(),
            found: shape.to_vec(),
            expected: "[d] or [n, d], neither of them 0".to_owned(),
        }),
    }
}

/// Exactly `count` integers.
fn numbers(path: &Path, key: &str, element: Element, count: usize, bytes: &[u8]) -> Result<Vec<i64>, DataError> {
    let width = usize::from(element.bytes);
    let (expected, found) = (count.saturating_mul(width) as u64, bytes.len() as u64);
    if found < expected {
        return Err(DataError::Truncated { path: path.to_owned(), what: "the array", expected, found });
    }
    if found > expected {
        return Err(DataError::Trailing { path: path.to_owned(), expected, found });
    }
    let shift = 64 - 8 * width;
    let mut values = Vec::with_capacity(count);
    for (index, piece) in bytes.chunks_exact(width).enumerate() {
        let mut word = [0u8; 8];
        word[..width].copy_from_slice(piece);
        if element.big_endian {
            word[..width].reverse();
        }
        let word = u64::from_le_bytes(word);
        let value = if element.kind == 'i' { (word << shift) as i64 >> shift } else { word as i64 };
        if element.kind == 'u' && value < 0 {
            let (found, expected) = (word as f64, "below 2^63");
            return Err(DataError::ArrayValue { path: path.to_owned(), key: key.to_owned(), index, found, expected });
        }
        values.push(value);
    }
    Ok(values)
}

/// The bytes of a `.npy` file with one vector of `int64`.
#[must_use]
pub fn to_npy(values: &[i64]) -> Vec<u8> {
    let mut dict = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    // Magic, version and length are 10 bytes; the data begin at a multiple of 64.
    let end = (10 + dict.len() + 1).next_multiple_of(64);
    dict.push_str(&" ".repeat(end - 11 - dict.len()));
    dict.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((dict.len() as u16).to_le_bytes());
    out.extend(dict.as_bytes());
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let values = [i64::MIN, -1, 0, 7, i64::MAX];
        let bytes = to_npy(&values);
        assert_eq!(bytes.len() % 64, 40);
        let (_folder, path) = file("a.npy", &bytes);
        let found = read(&path, None, None).unwrap();
        assert_eq!((found.rows, found.cols, &found.values[..]), (1, 5, &values[..]));
        for cut in [0, 5, 9, 40, bytes.len() - 1] {
            let (_folder, path) = file("a.npy", &bytes[..cut]);
            assert!(read(&path, None, None).is_err(), "cut at {cut}");
        }
    }

    /// A header of NumPy's with these members, and data.
    fn npy_of(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((dict.len() as u16).to_le_bytes());
        out.extend(dict.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn matrices_in_every_order_and_type() {
        let (_f, path) = file("m.npy", &npy_of("<i2", "True", "(2, 3)", &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0xff, 0xff]));
        // Columns first: rows 1, 3, 5 and 2, 4, -1.
        assert_eq!(read(&path, None, None).unwrap().values, [1, 3, 5, 2, 4, -1]);
        let (_f, path) = file("m.npy", &npy_of(">u2", "False", "(1, 2)", &[1, 0, 0, 1]));
        assert_eq!(read(&path, None, None).unwrap().values, [256, 1]);
        for (bad, name) in [
            (npy_of("<f4", "False", "(1,)", &[0; 4]), "float"),
            (npy_of("<u8", "False", "(1,)", &[0xff; 8]), "above 2^63"),
            (npy_of("<i4", "False", "(1, 1, 1)", &[0; 4]), "three dimensions"),
            (npy_of("<i4", "False", "(0, 4)", &[]), "no rows"),
            (npy_of("<i4", "False", "(99999999999, 99999999999)", &[]), "absurd"),
            (npy_of("<i4", "False", "(2,)", &[0; 12]), "trailing"),
        ] {
            let (_f, path) = file("m.npy", &bad);
            assert!(read(&path, None, None).is_err(), "{name}");
        }
    }

    #[test]
    fn raw_numbers_and_names_that_say_nothing() {
        let (_f, path) = file("v.bin", &[1, 0xff, 2, 3]);
        let layout = |bytes, signed, cols| Some(RawLayout { bytes, signed, cols });
        assert_eq!(read(&path, None, layout(1, true, 2)).unwrap().values, [1, -1, 2, 3]);
        assert_eq!(read(&path, None, layout(2, false, 1)).unwrap().rows, 2);
        assert!(read(&path, None, layout(1, true, 3)).unwrap_err().to_string().contains("whole rows"));
        assert!(read(&path, None, layout(8, true, 1)).is_err() && read(&path, None, None).is_err());
    }

    #[test]
    fn tensors_by_name() {
        use safetensors::tensor::TensorView;
        let data: Vec<u8> = [5i32, -6].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = |shape: Vec<usize>| TensorView::new(Dtype::I32, shape, &data).unwrap();
        let bytes = safetensors::serialize([("a", view(vec![2, 1])), ("b", view(vec![2]))], None).unwrap();
        let (_f, path) = file("t.safetensors", &bytes);
        assert_eq!(read(&path, Some("a"), None).unwrap().rows, 2);
        assert_eq!(read(&path, Some("b"), None).unwrap().values, [5, -6]);
        assert!(read(&path, None, None).unwrap_err().to_string().contains("a, b"));
        assert!(read(&path, Some("c"), None).is_err());
    }
}
