//! Plan of median and trimmed mean: how many coordinates a group sorts.

use super::machine::failed;
use super::{Access, DeviceBackend, ElementType, Kernel};
use crate::backend::{Backend, BackendError, BackendKind, Rows, check};
use crate::params::SelectParams;

/// What is computed of the sorted values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The middle.
    Median,
    /// The mean without so many on either side.
    Trimmed(usize),
}

/// log2 of the values of a group of the smaller kernels and of the larger ones (in CUDA only).
const SMALL_LOG2: u32 = 12;
const LARGE_LOG2: u32 = 15;
/// log2 of the coordinates of a group below which the larger kernel is taken: pieces of 32 bytes.
const LEAST_COLUMNS: u32 = 3;

const fn kernel(entry: &'static str, threads: u32, values_log2: u32) -> Kernel {
    let buffers = &[Access::Read, Access::ReadWrite, Access::ReadWrite];
    Kernel {
        file: "select",
        entry,
        threads,
        shared_words: 1 << values_log2,
        params: size_of::<SelectParams>(),
        buffers,
    }
}

static MEDIAN: [Kernel; 2] = [kernel("median_12", 256, SMALL_LOG2), kernel("median_15", 1024, LARGE_LOG2)];
static TRIMMED: [Kernel; 2] = [kernel("trimmed_mean_12", 256, SMALL_LOG2), kernel("trimmed_mean_15", 1024, LARGE_LOG2)];

const fn few(entry: &'static str) -> Kernel {
    let buffers = &[Access::Read, Access::ReadWrite, Access::ReadWrite];
    Kernel { file: "select", entry, threads: 256, shared_words: 0, params: size_of::<SelectParams>(), buffers }
}

/// At most 8, 16, 32 rows, in registers, one coordinate a thread (in CUDA only).
static MEDIAN_FEW: [Kernel; 3] = [few("median_rows_8"), few("median_rows_16"), few("median_rows_32")];
static TRIMMED_FEW: [Kernel; 3] =
    [few("trimmed_mean_rows_8"), few("trimmed_mean_rows_16"), few("trimmed_mean_rows_32")];
/// log2 of the rows of the first of them, and of the coordinates of a group.
const FEW_LOG2: u32 = 3;
const FEW_COLUMNS_LOG2: u32 = 8;

/// Median or trimmed mean of checked rows.
pub(super) fn run(backend: &DeviceBackend, rows: &Rows, choice: Choice) -> Result<Vec<f32>, BackendError> {
    check::robust::select_shape(rows)?;
    let stage = match choice {
        Choice::Median => "median",
        Choice::Trimmed(trim) => {
            check::robust::trim(rows.rows, trim)?;
            "trimmed_mean"
        }
    };
    let large = large_groups(backend);
    let rows_log2 = rows.rows.next_power_of_two().ilog2();
    let values_log2 = if large && rows_log2 + LEAST_COLUMNS > SMALL_LOG2 { LARGE_LOG2 } else { SMALL_LOG2 };
    if rows_log2 > values_log2 {
        return backend.unsupported(stage);
    }
    let (few, kernels, trim) = match choice {
        Choice::Median => (&MEDIAN_FEW, &MEDIAN, 0),
        Choice::Trimmed(trim) => (&TRIMMED_FEW, &TRIMMED, trim),
    };
    let few = few.get(rows_log2.saturating_sub(FEW_LOG2) as usize).filter(|_| backend.kind() == BackendKind::Cuda);
    let (kernel, columns_log2) = match few {
        Some(kernel) => (kernel, FEW_COLUMNS_LOG2),
        None => (&kernels[usize::from(values_log2 == LARGE_LOG2)], values_log2 - rows_log2),
    };
    let groups = (rows.dim as u64).div_ceil(1 << columns_log2);
    let params = SelectParams {
        groups: groups as u32,
        rows: rows.rows as u32,
        dim: rows.dim as u32,
        offset: rows.offset as u32,
        stride: rows.stride as u32,
        trim: trim as u32,
        rows_log2,
        columns_log2,
    };
    let x = backend.placed_as(&rows.buffer, ElementType::F32)?;
    one_slice(backend, x.len(), stage)?;
    let out = backend.zeros(rows.dim, ElementType::F32)?;
    let first = backend.zeros(1, ElementType::U32)?;
    backend.launch(kernel, groups, &params, &[x.slice(), out.slice(), first.slice()])?;
    match backend.elements::<u32>(&first)?.first() {
        Some(0) | None => Ok(backend.elements::<f32>(&out)?.to_vec()),
        Some(&found) => Err(check::robust::non_finite_at(rows, !found)),
    }
}

/// True if a group has room for the larger kernels.
fn large_groups(backend: &DeviceBackend) -> bool {
    backend.kind() == BackendKind::Cuda && backend.device().limits().group_words >= 1 << LARGE_LOG2
}

/// Rows are far apart: a launch needs all of them in one slice, and counts in 32 bits.
pub(super) fn one_slice(backend: &DeviceBackend, words: usize, stage: &'static str) -> Result<(), BackendError> {
    let most = backend.device().limits().max_slice_words.min(u64::from(u32::MAX));
    if words as u64 > most {
        let reason = format!("the rows take {words} words, and one binding has at most {most}");
        return Err(failed(backend.kind(), stage, reason));
    }
    Ok(())
}
