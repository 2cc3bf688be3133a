//! The first value of some rows that is not finite.

use super::select::one_slice;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel};
use crate::backend::BackendError;
use crate::params::GramParams;

/// Columns of a group.
const SEGMENT: usize = 8192;

static CHECK: Kernel = Kernel {
    file: "gram",
    entry: "gram_check",
    threads: 256,
    shared_words: 0,
    params: size_of::<GramParams>(),
    buffers: &[Access::Read, Access::ReadWrite],
};

/// Rows of `dim` elements, `stride` apart, from `offset` on.
pub(super) struct Strided {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) offset: usize,
    pub(super) stride: usize,
}

/// Row and coordinate of the first NaN or infinity, row by row. Waits for the device.
pub(super) fn check_finite(
    backend: &DeviceBackend,
    stage: &'static str,
    x: &DeviceBuffer,
    at: &Strided,
) -> Result<Option<(usize, usize)>, BackendError> {
    one_slice(backend, x.len(), stage)?;
    let first = backend.zeros(1, ElementType::U32)?;
    let segments = at.dim.div_ceil(SEGMENT);
    let groups = (segments * at.rows) as u64;
    let params = GramParams {
        groups: groups as u32,
        rows: at.rows as u32,
        dim: at.dim as u32,
        offset: at.offset as u32,
        stride: at.stride as u32,
        tiles: segments as u32,
        pairs: 0,
        first: 0,
    };
    backend.launch(&CHECK, groups, &params, &[x.slice(), first.slice()])?;
    Ok(match backend.elements::<u32>(&first)?.first() {
        Some(0) | None => None,
        Some(&found) => Some((!found as usize / at.dim, !found as usize % at.dim)),
    })
}
