//! Plan of the clip: norms by chunks, factors a row, products; also the first part of `encode`.

use bytemuck::Zeroable;

use super::rows::{Batch, Layout, RowState, chunks, parts_from};
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, Memory};
use crate::backend::{BackendError, Buffer, check};
use crate::params::{ClipParams, EncodeParams, RowsPassParams};

static NORMS: Kernel = kernel("clip_norms", &[Access::Read, Access::ReadWrite]);
static MIXED: Kernel = kernel("clip_mixed", &[Access::Read, Access::ReadWrite]);
static FACTORS: Kernel = kernel("clip_factors", &[Access::Read, Access::ReadWrite]);
static SCALE: Kernel = kernel("clip_scale", &[Access::ReadWrite, Access::Read]);
static PLACE: Kernel = kernel("encode_place", &[Access::Read, Access::Read, Access::Read, Access::ReadWrite]);

const fn kernel(entry: &'static str, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "clip", entry, threads: 256, shared_words: 0, params: size_of::<RowsPassParams>(), buffers }
}

/// The exponent of a bound that no norm reaches.
const UNBOUNDED: i32 = 10_000;

/// `bound` as `m 2^e` with `2^31 <= m < 2^32`, rounded down.
fn split(bound: f64) -> (u32, i32) {
    if !bound.is_finite() {
        return (1 << 31, UNBOUNDED);
    }
    let bits = bound.to_bits();
    // A bound is a normal f64, or 0, which counts as 2^-1023.
    let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
    ((mantissa >> 21) as u32, (bits >> 52 & 0x7ff) as i32 - 1023 - 31)
}

/// Enqueues the records of all rows: norm, and factor to `bound` (infinite: none).
pub(super) fn states(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    layout: &Layout,
    bound: f64,
) -> Result<Memory, BackendError> {
    let chunks = chunks(layout.dim);
    let parts = backend.parts(layout.rows, layout.dim)?;
    for batch in backend.batches(layout, 0)? {
        let (groups, params) = pass(&batch, layout, layout.dim);
        let slices = [batch.slice(x), parts_from(&parts, batch.columns.start)];
        backend.launch(&NORMS, groups, &params, &slices)?;
    }
    factors(backend, layout.rows, chunks, &parts, bound)
}

/// Groups and parameters of a kernel on a batch, whose groups go over rows of `len` elements.
fn pass(batch: &Batch, layout: &Layout, len: u64) -> (u64, RowsPassParams) {
    let chunks = chunks(batch.width(len));
    let groups = batch.len() * chunks;
    let params = RowsPassParams {
        groups: groups as u32,
        chunks: chunks as u32,
        first_row: batch.rows.start as u32,
        offset: batch.offset,
        stride: layout.stride as u32,
        dim: batch.width(layout.dim) as u32,
        element: layout.kind(),
        ..RowsPassParams::zeroed()
    };
    (groups, params)
}

/// Enqueues the records of the mixed clip of rows of `padded` floats side by side, each times gamma: `sqrt(sum v)` for a
/// norm, and the factor of it to `sqrt(c)`.
pub(super) fn mixed_states(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    rows: u64,
    p: &EncodeParams,
) -> Result<Memory, BackendError> {
    let padded = u64::from(p.padded);
    let chunks = chunks(padded);
    let parts = backend.parts(rows, padded)?;
    for tile in backend.tiles(rows, padded)? {
        let within = self::chunks(tile.width());
        let groups = tile.count() * within;
        let params = RowsPassParams {
            groups: groups as u32,
            chunks: within as u32,
            first_row: tile.rows.start as u32,
            padded: tile.width() as u32,
            factor: p.gamma,
            ..RowsPassParams::zeroed()
        };
        backend.launch(&MIXED, groups, &params, &[tile.slice(x, padded), parts_from(&parts, tile.columns.start)])?;
    }
    factors(backend, rows, chunks, &parts, mixed_bound(p).sqrt())
}

/// c of the mixed clip: the bound of `sum v`.
pub(super) fn mixed_bound(p: &EncodeParams) -> f64 {
    p.norm_bound() as f64 / f64::from(1u32 << p.fraction_bits)
}

/// Enqueues the factors of rows from the parts of their norms.
fn factors(
    backend: &DeviceBackend,
    rows: u64,
    chunks: u64,
    parts: &Memory,
    bound: f64,
) -> Result<Memory, BackendError> {
    let states = backend.states(rows)?;
    let (bound_mantissa, bound_exponent) = split(bound);
    let params = RowsPassParams {
        groups: rows as u32,
        chunks: chunks as u32,
        bound_mantissa,
        bound_exponent,
        ..RowsPassParams::zeroed()
    };
    backend.launch(&FACTORS, rows, &params, &[parts.all(), states.all()])?;
    Ok(states)
}

/// Enqueues `out <- factor s x` into rows of `padded` elements; zeros for rows with NaN or an infinity. The signs s are
/// those of the keystream words `signs`, if there are any.
pub(super) fn place(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    layout: &Layout,
    states: &Memory,
    signs: Option<&DeviceBuffer>,
    out: (&DeviceBuffer, u64),
) -> Result<(), BackendError> {
    let (out, padded) = out;
    for batch in backend.batches(layout, padded)? {
        let (groups, params) = pass(&batch, layout, padded);
        let width = batch.width(padded);
        let params = RowsPassParams { padded: width as u32, rotate: signs.is_some().into(), ..params };
        let first = batch.columns.start;
        let to = out.part(batch.rows.start * padded + first, batch.len() * width);
        // Without signs the kernel reads one word that it has no use for.
        let signs = signs.map_or(states.all(), |signs| signs.part(first / 32, width.div_ceil(32)));
        backend.launch(&PLACE, groups, &params, &[batch.slice(x), states.all(), signs, to])?;
    }
    Ok(())
}

/// The error that names the first row with NaN or an infinity, if there is one.
pub(super) fn finite(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    layout: &Layout,
    states: &[RowState],
) -> Result<(), BackendError> {
    match states.iter().position(|state| !state.finite()) {
        None => Ok(()),
        Some(row) => Err(check::non_finite(row, &backend.read_row(x, layout, row as u64)?)),
    }
}

/// `x_i <- x_i min(1, C / |x_i|)` in place; returns the norms. Waits once: nothing is written before all rows are known
/// to be finite.
pub(super) fn run(backend: &DeviceBackend, x: &mut Buffer, p: &ClipParams) -> Result<Vec<f32>, BackendError> {
    check::clip_shape(x, p)?;
    let (stride, element) = (p.stride.into(), ElementType::F32);
    let layout = Layout { rows: p.rows.into(), dim: p.dim.into(), stride, offset: 0, element };
    backend.in_place(x, element, |x| {
        let layouts: Vec<Layout> =
            if backend.too_long(&layout, 0) { (0..layout.rows).map(|i| layout.row(i)).collect() } else { vec![layout] };
        let (mut all, mut seen) = (Vec::with_capacity(layouts.len()), Vec::new());
        for layout in &layouts {
            all.push(states(backend, x, layout, p.bound.into())?);
        }
        for (layout, states) in layouts.iter().zip(&all) {
            seen.extend(backend.read_states(states, layout.rows)?);
        }
        finite(backend, x, &layout, &seen)?;
        // Always: the time tells nothing of the rows.
        for (layout, states) in layouts.iter().zip(&all) {
            scale(backend, x, layout, states)?;
        }
        Ok(seen.iter().map(|state| state.norm().min(f32::MAX.into()) as f32).collect())
    })
}

fn scale(backend: &DeviceBackend, x: &DeviceBuffer, layout: &Layout, states: &Memory) -> Result<(), BackendError> {
    for batch in backend.batches(layout, 0)? {
        let (groups, params) = pass(&batch, layout, layout.dim);
        backend.launch(&SCALE, groups, &params, &[batch.slice(x), states.all()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_split_into_32_bits_and_an_exponent() {
        for bound in [1.0, 1.5, 0.1, f64::from(f32::MAX), f64::from(f32::from_bits(1)), 3.0 * (1.0 - 2f64.powi(-18))] {
            let (m, e) = split(bound);
            assert!(m >= 1 << 31);
            let back = f64::from(m) * 2f64.powi(e);
            assert!(back <= bound && bound - back < bound * 2f64.powi(-31), "{bound}");
        }
        assert_eq!(split(1.0), (1 << 31, -31));
        assert_eq!(split(f64::INFINITY), (1 << 31, UNBOUNDED));
    }
}
