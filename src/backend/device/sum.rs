//! Plan of the sum, and the search for numbers that are no residues.

use bytemuck::Zeroable;

use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, long};
use crate::backend::{BackendError, Buffer, check};
use crate::params::{FlatPassParams, Ring};

static BITS: Kernel = kernel("sum_bits", &[Access::ReadWrite, Access::Read]);
static PRIME: Kernel = kernel("sum_prime", &[Access::ReadWrite, Access::Read]);
static RESIDUES: Kernel = kernel("sum_residues", &[Access::Read, Access::ReadWrite]);

const fn kernel(entry: &'static str, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "sum", entry, threads: 256, shared_words: 0, params: size_of::<FlatPassParams>(), buffers }
}

/// Columns of a group of [`BITS`] and [`PRIME`].
const COLUMNS: u64 = 1024;
/// Words of a group of [`RESIDUES`].
const CHUNK: u64 = 4096;

/// Adds each of the rows to `acc`, in `ring`.
pub(super) fn run(backend: &DeviceBackend, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError> {
    check::sum_shape(acc.len(), rows.len(), ring)?;
    let rows = backend.placed_as(rows, ElementType::U32)?;
    backend.in_place(acc, ElementType::U32, |acc| {
        if let Ring::Prime(p) = ring {
            residues(backend, "acc", acc, p)?;
            residues(backend, "rows", &rows, p)?;
        }
        add(backend, acc, &rows, ring)
    })
}

fn add(backend: &DeviceBackend, acc: &DeviceBuffer, rows: &DeviceBuffer, ring: Ring) -> Result<(), BackendError> {
    let len = acc.len() as u64;
    if len == 0 {
        return Ok(());
    }
    let (kernel, bits, modulus) = match ring {
        Ring::Bits(bits) => (&BITS, bits, 0),
        Ring::Prime(p) => (&PRIME, 0, p),
    };
    let groups = len.div_ceil(COLUMNS);
    let params = FlatPassParams { groups: groups as u32, len: len as u32, bits, modulus, ..FlatPassParams::zeroed() };
    if rows.is_empty() {
        // The accumulator alone is brought into the ring; the second buffer is not read.
        let none = backend.zeros(1, ElementType::U32)?;
        for columns in backend.spans(len, COLUMNS)? {
            let width = columns.end - columns.start;
            let groups = width.div_ceil(COLUMNS);
            let params = FlatPassParams { groups: groups as u32, len: width as u32, ..params };
            backend.launch(kernel, groups, &params, &[acc.part(columns.start, width), none.slice()])?;
        }
        return Ok(());
    }
    if len > backend.device().limits().max_slice_words {
        return long::sum(backend, (acc, rows), COLUMNS, |columns, slices| {
            let (groups, width) = (columns.div_ceil(COLUMNS), columns as u32);
            backend.launch(
                kernel,
                groups,
                &FlatPassParams { groups: groups as u32, len: width, count: 1, ..params },
                &slices,
            )
        });
    }
    for piece in backend.pieces(rows.len() as u64 / len, len)? {
        let count = piece.end - piece.start;
        let params = FlatPassParams { count: count as u32, ..params };
        backend.launch(kernel, groups, &params, &[acc.slice(), rows.part(piece.start * len, count * len)])?;
    }
    Ok(())
}

/// The error that names the first number that is not below `prime`, if there is one. Waits for the device.
pub(super) fn residues(
    backend: &DeviceBackend,
    what: &'static str,
    x: &DeviceBuffer,
    prime: u32,
) -> Result<(), BackendError> {
    for piece in backend.spans(x.len() as u64, CHUNK)? {
        let len = piece.end - piece.start;
        let groups = len.div_ceil(CHUNK);
        let params =
            FlatPassParams { groups: groups as u32, len: len as u32, modulus: prime, ..FlatPassParams::zeroed() };
        let found = backend.placed(&vec![u32::MAX].into())?.into_owned();
        backend.launch(&RESIDUES, groups, &params, &[x.part(piece.start, len), found.slice()])?;
        let first = backend.elements::<u32>(&found)?[0];
        if first != u32::MAX {
            let index = piece.start + u64::from(first);
            let mut value = [0];
            backend.device().read(x.slice().memory, x.slice().offset + index, &mut value)?;
            return Err(BackendError::NotBelowPrime { what, index: index as usize, found: value[0], prime });
        }
    }
    Ok(())
}
