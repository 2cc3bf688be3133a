//! IDX files (the format of MNIST): a big-endian header, then the elements in C order.
//!
//! ```text
//! 0 0 TYPE RANK | RANK x u32 dimensions | elements
//! ```
//!
//! TYPE 0x08 is `u8`, 0x0c is big-endian `i32`. Files may be gzipped; the two magic bytes `1f 8b` tell.
//! Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section "File formats".

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::DataError;

/// Most bytes of one array: 4 GiB. A header that announces more is refused before anything is allocated.
pub const MAX_BYTES: u64 = 1 << 32;

/// An array read from an IDX file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxArray<T> {
    /// Dimensions, slowest first.
    pub dims: Vec<usize>,
    /// Elements in C order, `dims` product of them.
    pub data: Vec<T>,
}

impl<T> IdxArray<T> {
    /// Elements a row: the product of all dimensions but the first.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.dims.iter().skip(1).fold(1, |product: usize, &d| product.saturating_mul(d))
    }
}

/// Reads a file of unsigned bytes with `RANK` dimensions, raw or gzipped.
///
/// # Errors
/// [`DataError::Io`], [`DataError::Magic`], [`DataError::Truncated`], [`DataError::Trailing`],
/// [`DataError::TooLarge`], each naming the file with the counts expected and found.
pub fn read_u8(path: &Path, rank: u8) -> Result<IdxArray<u8>, DataError> {
    let (dims, data) = parse(path, open(path)?.as_mut(), 0x08, rank)?;
    Ok(IdxArray { dims, data })
}

/// Reads a file of 32-bit integers with `rank` dimensions, raw or gzipped.
///
/// # Errors
/// As [`read_u8`].
pub fn read_i32(path: &Path, rank: u8) -> Result<IdxArray<i32>, DataError> {
    let (dims, bytes) = parse(path, open(path)?.as_mut(), 0x0c, rank)?;
    let data = bytes.chunks_exact(4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(IdxArray { dims, data })
}

/// Parses raw (already decompressed) bytes; `path` is for errors.
///
/// # Errors
/// As [`read_u8`].
pub fn parse_u8(path: &Path, mut raw: &[u8], rank: u8) -> Result<IdxArray<u8>, DataError> {
    let (dims, data) = parse(path, &mut raw, 0x08, rank)?;
    Ok(IdxArray { dims, data })
}

/// Opens a file and decompresses it if its first two bytes are those of gzip.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let mut file = File::open(path).map_err(DataError::io(path))?;
    let mut head = Vec::with_capacity(2);
    file.by_ref().take(2).read_to_end(&mut head).map_err(DataError::io(path))?;
    let zipped = head == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(head).chain(BufReader::new(file));
    Ok(if zipped { Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(whole))) } else { Box::new(whole) })
}

/// Header and elements as bytes. Memory grows with what is read, never with what the header says.
fn parse(path: &Path, reader: &mut dyn Read, kind: u8, rank: u8) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let (name, width) = if kind == 0x0c { ("i32", 4u64) } else { ("u8", 1) };
    let magic = read_exact(path, reader, 4, "the magic number")?;
    let found = u32::from_be_bytes([magic[0], magic[1], magic[2], magic[3]]);
    let expected = u32::from(kind) << 8 | u32::from(rank);
    if found != expected {
        return Err(DataError::Magic {
            path: path.to_owned(),
            expected_type: name,
            expected_dims: rank,
            expected,
            found,
        });
    }
    let header = read_exact(path, reader, 4 * usize::from(rank), "the dimensions")?;
    let dims: Vec<u32> = header.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
    let bytes = dims
        .iter()
        .try_fold(width, |product, &d| product.checked_mul(u64::from(d)))
        .filter(|&b| b <= MAX_BYTES)
        .ok_or_else(|| DataError::TooLarge {
            path: path.to_owned(),
            dims: dims.iter().map(|&d| u64::from(d)).collect(),
            limit: MAX_BYTES,
        })?;
    let mut data = Vec::new();
    reader.take(bytes + 1).read_to_end(&mut data).map_err(DataError::io(path))?;
    let found = data.len() as u64;
    if found < bytes {
        return Err(DataError::Truncated { path: path.to_owned(), what: "the data", expected: bytes, found });
    }
    if found > bytes {
        return Err(DataError::Trailing { path: path.to_owned(), expected: bytes, found });
    }
    Ok((dims.into_iter().map(|d| d as usize).collect(), data))
}

fn read_exact(path: &Path, reader: &mut dyn Read, len: usize, what: &'static str) -> Result<Vec<u8>, DataError> {
    let mut out = Vec::with_capacity(len);
    reader.take(len as u64).read_to_end(&mut out).map_err(DataError::io(path))?;
    if out.len() < len {
        return Err(DataError::Truncated {
            path: path.to_owned(),
            what,
            expected: len as u64,
            found: out.len() as u64,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn idx(kind: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, kind, dims.len() as u8];
        dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
        out.extend(data);
        out
    }

    #[test]
    fn raw_and_gzip_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let raw = idx(8, &[2, 3], &[1, 2, 3, 4, 5, 6]);
        let plain = dir.path().join("plain");
        std::fs::write(&plain, &raw).unwrap();
        let zipped = dir.path().join("zipped");
        let mut gz = flate2::write::GzEncoder::new(File::create(&zipped).unwrap(), flate2::Compression::fast());
        gz.write_all(&raw).unwrap();
        gz.finish().unwrap();
        let a = read_u8(&plain, 2).unwrap();
        assert_eq!(a, read_u8(&zipped, 2).unwrap());
        assert_eq!((a.dims.as_slice(), a.row_len(), a.data[5]), (&[2, 3][..], 3, 6));
    }

    #[test]
    fn i32_is_big_endian() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels");
        std::fs::write(&path, idx(0x0c, &[1, 2], &[0, 0, 1, 2, 255, 255, 255, 254])).unwrap();
        assert_eq!(read_i32(&path, 2).unwrap().data, [258, -2]);
    }

    #[test]
    fn every_cut_is_truncated_with_counts() {
        let raw = idx(8, &[2, 3], &[1, 2, 3, 4, 5, 6]);
        for cut in 0..raw.len() {
            match parse_u8(Path::new("f"), &raw[..cut], 2) {
                Err(DataError::Truncated { expected, found, .. }) => assert!(found < expected, "cut {cut}"),
                other => panic!("cut {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn wrong_kind_trailing_and_absurd_are_told_apart() {
        let good = idx(8, &[2], &[1, 2]);
        let text = parse_u8(Path::new("f"), &good, 3).unwrap_err().to_string();
        assert!(text.contains("0x00000801") && text.contains("0x00000803"), "{text}");
        let mut long = good.clone();
        long.push(0);
        let e = parse_u8(Path::new("f"), &long, 1).unwrap_err();
        assert!(matches!(e, DataError::Trailing { expected: 2, found: 3, .. }), "{e}");
        for dims in [&[u32::MAX, u32::MAX, u32::MAX][..], &[u32::MAX, 2, 1]] {
            let e = parse_u8(Path::new("f"), &idx(8, dims, &[]), 3).unwrap_err();
            assert!(matches!(e, DataError::TooLarge { limit: MAX_BYTES, .. }), "{e}");
        }
        // Just under the limit: announced, absent, and nothing of that size is allocated.
        let e = parse_u8(Path::new("f"), &idx(8, &[u32::MAX], &[7]), 1).unwrap_err();
        assert!(matches!(e, DataError::Truncated { expected: 4_294_967_295, found: 1, .. }), "{e}");
    }
}
