//! Plan of the noise: one launch a piece of words, all thresholds of a table or all blocks of a binomial in it.

use bytemuck::Zeroable;

use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, Memory, Slice};
use crate::backend::{BackendError, Buffer, check};
use crate::math::prg::StreamKey;
use crate::params::{EncodeParams, RowsPassParams};
use crate::sample::noise::Noise;

static TABLE: Kernel = kernel("noise_table", 256, &[Access::ReadWrite, Access::Read, Access::Read]);
static BINOMIAL: Kernel = kernel("noise_binomial", 128, &[Access::ReadWrite, Access::Read]);

const fn kernel(entry: &'static str, threads: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "noise", entry, threads, shared_words: 0, params: size_of::<RowsPassParams>(), buffers }
}

/// Words of a group of [`TABLE`] and of [`BINOMIAL`]; both divide [`UNIT`].
const TABLE_CHUNK: u64 = 1024;
const BINOMIAL_CHUNK: u64 = 4096;
/// Pieces of one row start at multiples of this.
const UNIT: u64 = 4096;

/// A law as the kernels take it.
enum Law {
    /// Its thresholds, doubled: `U >> 1 >= T` is `U >= 2 T`.
    Table(DeviceBuffer, u32),
    /// 2k.
    Binomial(u32),
}

impl Law {
    fn new(backend: &DeviceBackend, noise: &Noise) -> Result<Self, BackendError> {
        match noise {
            Noise::Table(table) => {
                let words: Vec<u32> = table.thresholds.iter().flat_map(|&t| EncodeParams::limbs(2 * t)).collect();
                let placed = backend.placed(&words.into())?.into_owned();
                Ok(Self::Table(placed, table.thresholds.len() as u32))
            }
            Noise::Binomial(law) => Ok(Self::Binomial(2 * law.k())),
        }
    }

    /// Enqueues the noise of `rows` rows of `p.padded` words each, keys from `p.first_row` on.
    fn add(
        &self,
        backend: &DeviceBackend,
        words: Slice<'_>,
        rows: u64,
        keys: &Memory,
        p: RowsPassParams,
    ) -> Result<(), BackendError> {
        let (kernel, chunk, count) = match self {
            Self::Table(_, count) => (&TABLE, TABLE_CHUNK, *count),
            Self::Binomial(count) => (&BINOMIAL, BINOMIAL_CHUNK, *count),
        };
        let chunks = u64::from(p.padded).div_ceil(chunk);
        let params = RowsPassParams { groups: (rows * chunks) as u32, chunks: chunks as u32, count, ..p };
        match self {
            // Without thresholds |X| is 0.
            Self::Table(_, 0) => Ok(()),
            Self::Table(t, _) => backend.launch(kernel, rows * chunks, &params, &[words, keys.all(), t.slice()]),
            Self::Binomial(_) => backend.launch(kernel, rows * chunks, &params, &[words, keys.all()]),
        }
    }
}

/// Enqueues noise for rows of `p.padded` words, one key a row.
pub(super) fn rows(
    backend: &DeviceBackend,
    words: &DeviceBuffer,
    rows: u64,
    p: &EncodeParams,
    noise: &Noise,
    keys: &Memory,
) -> Result<(), BackendError> {
    let law = Law::new(backend, noise)?;
    let padded = u64::from(p.padded);
    for tile in backend.tiles(rows, padded)? {
        let params = RowsPassParams {
            padded: tile.width() as u32,
            bits: p.bits,
            first_row: tile.rows.start as u32,
            first: first(tile.columns.start)?,
            ..RowsPassParams::zeroed()
        };
        law.add(backend, tile.slice(words, padded), tile.count(), keys, params)?;
    }
    Ok(())
}

/// Adds noise to every word mod `2^bits`.
pub(super) fn run(
    backend: &DeviceBackend,
    words: &mut Buffer,
    bits: u32,
    noise: &Noise,
    key: &StreamKey,
) -> Result<(), BackendError> {
    check::noise_shape(words.len(), bits, noise)?;
    backend.in_place(words, ElementType::U32, |words| {
        let (law, keys) = (Law::new(backend, noise)?, backend.keys(&[key])?);
        for piece in backend.spans(words.len() as u64, UNIT)? {
            let len = piece.end - piece.start;
            let params =
                RowsPassParams { padded: len as u32, bits, first: first(piece.start)?, ..RowsPassParams::zeroed() };
            law.add(backend, words.part(piece.start, len), 1, &keys, params)?;
        }
        Ok(())
    })
}

/// The number of a piece's first word. Errors: beyond 32 bits, more than a device holds.
pub(super) fn first(start: u64) -> Result<u32, BackendError> {
    let (name, expected) = ("coordinates", "below 2^32 on a device");
    u32::try_from(start).map_err(|_| BackendError::OutOfRange { name, expected, found: start as f64 })
}
