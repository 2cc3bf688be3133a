//! Plan of packing: bits side by side on the device, bytes on the host.

use bytemuck::Zeroable;

use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, long};
use crate::backend::scalar::pack::packed_len;
use crate::backend::{BackendError, Buffer, Packed, check};
use crate::params::RowsPassParams;

static PACK: Kernel = kernel("pack");
static UNPACK: Kernel = kernel("unpack");

const fn kernel(entry: &'static str) -> Kernel {
    let buffers = &[Access::Read, Access::ReadWrite];
    Kernel { file: "pack", entry, threads: 256, shared_words: 0, params: size_of::<RowsPassParams>(), buffers }
}

/// Words of the result that a group makes.
const CHUNK: u64 = 256;
/// Values whose packed form is a whole number of words on a boundary, whatever their width.
const UNIT: u64 = 2048;

/// The low `bits` bits of every word, side by side.
pub(super) fn run(backend: &DeviceBackend, words: &Buffer, bits: u32) -> Result<Vec<u8>, BackendError> {
    check::bits(bits)?;
    let words = backend.placed_as(words, ElementType::U32)?;
    let mut bytes = Vec::with_capacity(packed_len(words.len(), bits));
    for piece in backend.spans(words.len() as u64, UNIT)? {
        bytes.extend(packed(backend, &words, piece.start, (1, piece.end - piece.start), bits)?.bytes);
    }
    Ok(bytes)
}

/// Every row of `len` words, each from a whole byte on.
pub(super) fn rows(
    backend: &DeviceBackend,
    words: &DeviceBuffer,
    rows: u64,
    len: u64,
    bits: u32,
) -> Result<Packed, BackendError> {
    let mut all = Packed { bytes: Vec::new(), row_bytes: packed_len(len as usize, bits) };
    if len > backend.device().limits().max_slice_words {
        for row in 0..rows {
            all.bytes.extend(run(backend, &Buffer::Device(long::taken(backend, words, row, len)?), bits)?);
        }
        return Ok(all);
    }
    for piece in backend.pieces(rows, len)? {
        all.bytes.extend(packed(backend, words, piece.start * len, (piece.end - piece.start, len), bits)?.bytes);
    }
    Ok(all)
}

/// Rows that fit one launch, from word `start` on. Waits for the device.
fn packed(
    backend: &DeviceBackend,
    words: &DeviceBuffer,
    start: u64,
    (rows, len): (u64, u64),
    bits: u32,
) -> Result<Packed, BackendError> {
    let row_words = (len * u64::from(bits)).div_ceil(32);
    let out = backend.unset((rows * row_words) as usize, ElementType::U32)?;
    let chunks = row_words.div_ceil(CHUNK);
    let params = RowsPassParams {
        groups: (rows * chunks) as u32,
        chunks: chunks as u32,
        dim: row_words as u32,
        padded: len as u32,
        bits,
        ..RowsPassParams::zeroed()
    };
    if rows * row_words > 0 {
        backend.launch(&PACK, rows * chunks, &params, &[words.part(start, rows * len), out.slice()])?;
    }
    let row_bytes = packed_len(len as usize, bits);
    let mut bytes = Vec::with_capacity(rows as usize * row_bytes);
    for row in backend.elements::<u32>(&out)?.chunks_exact(row_words.max(1) as usize) {
        let start = bytes.len();
        bytes.extend(row.iter().flat_map(|word| word.to_le_bytes()));
        bytes.truncate(start + row_bytes);
    }
    Ok(Packed { bytes, row_bytes })
}

/// The `len` words that [`run`] packed, on the device.
pub(super) fn unpack(backend: &DeviceBackend, bytes: &[u8], len: usize, bits: u32) -> Result<Buffer, BackendError> {
    check::packed(bytes, len, bits)?;
    let out = backend.zeros(len, ElementType::U32)?;
    for piece in backend.spans(len as u64, UNIT)? {
        let count = piece.end - piece.start;
        let start = (piece.start * u64::from(bits) / 8) as usize;
        let mut words: Vec<u32> = bytes[start..start + packed_len(count as usize, bits)]
            .chunks(4)
            .map(|b| b.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
            .collect();
        // A value that ends with the last word reads no further; the kernel may name the next one.
        words.push(0);
        let packed = backend.placed(&words.into())?.into_owned();
        let groups = count.div_ceil(CHUNK);
        let params = RowsPassParams { groups: groups as u32, padded: count as u32, bits, ..RowsPassParams::zeroed() };
        backend.launch(&UNPACK, groups, &params, &[packed.slice(), out.part(piece.start, count)])?;
    }
    Ok(Buffer::Device(out))
}
