//! Plan of `encode`: norms and factors, signs, the transform, fixed point; exact norms and shrinks, rounding, noise. Nothing
//! is read back between them but, at the end, one small record a row.

use bytemuck::Zeroable;

use super::rows::{Layout, RowState, chunks, parts_from};
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, Memory, clip, fwht, long, mask, noise, pack};
use crate::backend::check::CLIP_MARGIN;
use crate::backend::scalar::clip::factor;
use crate::backend::{BackendError, Buffer, EncodeJob, EncodeReport, NonFinite, Packed, Rows, check};
use crate::params::{EncodeParams, NO_LINF, RowsPassParams, norm_kind, rounding_kind};

static TRUNCATE: Kernel = kernel("encode_truncate", 256, &[Access::ReadWrite, Access::ReadWrite, Access::Read]);
static NORMS: Kernel = kernel("encode_norms", 256, &[Access::Read, Access::ReadWrite]);
static SETTLE: Kernel = kernel("encode_settle", 256, &[Access::ReadWrite, Access::ReadWrite, Access::Read]);
static SHRINK: Kernel = kernel("encode_shrink", 256, &[Access::Read, Access::ReadWrite]);
static ROUND: Kernel = kernel("encode_round", 128, &[Access::ReadWrite, Access::Read, Access::Read]);

const fn kernel(entry: &'static str, threads: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "encode", entry, threads, shared_words: 0, params: size_of::<RowsPassParams>(), buffers }
}

/// Rows on the way through the stage.
struct Encoding {
    /// `[rows x padded]`: floats, fixed point, words.
    x: DeviceBuffer,
    /// Parts of the integer norms.
    parts: Memory,
    /// Records of the rows.
    states: Memory,
    /// Records of their mixed clip, if there is one.
    mixed: Option<Memory>,
    rows: u64,
}

/// The float half. Returns `[rows x padded]` fixed-point coordinates on the device.
pub(super) fn fixed(
    backend: &DeviceBackend,
    rows: &Rows,
    job: &EncodeJob<'_>,
) -> Result<(Buffer, EncodeReport), BackendError> {
    let from = backend.placed_rows(&rows.buffer)?;
    if rows.rows > 1 && is_long(backend, rows, &from, job) {
        return long::each_row(backend, rows, &from, job, fixed);
    }
    let encoding = float_half(backend, rows, &from, job)?;
    let seen = backend.read_states(&encoding.states, encoding.rows)?;
    let report = float_report(backend, rows, &from, job, &encoding, &seen)?;
    Ok((Buffer::Device(encoding.x.cast(ElementType::I32)), report))
}

/// The integer half. Returns `[rows x padded]` words on the device.
pub(super) fn integer(
    backend: &DeviceBackend,
    fixed: &Buffer,
    job: &EncodeJob<'_>,
) -> Result<(Buffer, EncodeReport), BackendError> {
    check::fixed_shape(fixed.len(), job)?;
    let rows = job.keys.len() as u64;
    let placed = backend.placed_as(fixed, ElementType::I32)?;
    if rows > 1 && u64::from(job.params.padded) > backend.device().limits().max_slice_words {
        return long::each_integer_row(backend, &placed, job);
    }
    // An uploaded copy is ours to overwrite.
    let x = if matches!(fixed, Buffer::Device(_)) { backend.copied(&placed)? } else { placed.into_owned() };
    let padded = job.params.padded.into();
    let encoding =
        Encoding { x, parts: backend.parts(rows, padded)?, states: backend.states(rows)?, mixed: None, rows };
    if job.params.norm != norm_kind::ROUNDED {
        passes(backend, &NORMS, &encoding, job, |slice, parts| vec![slice, parts])?;
    }
    integer_half(backend, &encoding, job)?;
    let seen = backend.read_states(&encoding.states, rows)?;
    Ok((words(encoding), integer_report(&seen)))
}

/// Both halves, without a way over the host.
pub(super) fn fused(
    backend: &DeviceBackend,
    rows: &Rows,
    job: &EncodeJob<'_>,
) -> Result<(Buffer, EncodeReport), BackendError> {
    let from = backend.placed_rows(&rows.buffer)?;
    if rows.rows > 1 && is_long(backend, rows, &from, job) {
        return long::each_row(backend, rows, &from, job, fused);
    }
    let encoding = float_half(backend, rows, &from, job)?;
    integer_half(backend, &encoding, job)?;
    let seen = backend.read_states(&encoding.states, encoding.rows)?;
    let mut report = float_report(backend, rows, &from, job, &encoding, &seen)?;
    report.merge(&integer_report(&seen));
    Ok((words(encoding), report))
}

/// Both halves, and the rows as they travel.
pub(super) fn packed(
    backend: &DeviceBackend,
    rows: &Rows,
    job: &EncodeJob<'_>,
) -> Result<(Packed, EncodeReport), BackendError> {
    let (words, report) = fused(backend, rows, job)?;
    let words = backend.placed(&words)?;
    let (count, padded) = (rows.rows as u64, job.params.padded.into());
    Ok((pack::rows(backend, &words, count, padded, job.params.bits)?, report))
}

/// True if rows are too long for a slice, as they come or as they go.
fn is_long(backend: &DeviceBackend, rows: &Rows, from: &DeviceBuffer, job: &EncodeJob<'_>) -> bool {
    backend.too_long(&layout(rows, from), job.params.padded.into())
}

fn words(encoding: Encoding) -> Buffer {
    Buffer::Device(encoding.x.cast(ElementType::U32))
}

/// Enqueues all up to fixed point, and the parts of its norms.
fn float_half(
    backend: &DeviceBackend,
    rows: &Rows,
    from: &DeviceBuffer,
    job: &EncodeJob<'_>,
) -> Result<Encoding, BackendError> {
    check::rows_shape(rows, job)?;
    let p = &job.params;
    let layout = layout(rows, from);
    let bound = if clips(p) { f64::from(p.clip) * (1.0 - CLIP_MARGIN) } else { f64::INFINITY };
    let states = clip::states(backend, from, &layout, bound)?;
    let padded = u64::from(p.padded);
    let x = backend.unset(rows.rows * p.padded as usize, ElementType::F32)?;
    let signs = (p.rotate == 1).then(|| mask::signs(backend, job.signs, padded)).transpose()?;
    clip::place(backend, from, &layout, &states, signs.as_ref(), (&x, padded))?;
    if p.rotate == 1 {
        fwht::transform(backend, &x, p.block_log2, 2f64.powf(-0.5 * f64::from(p.block_log2)) as f32)?;
    }
    let mixed = (p.norm == norm_kind::MIXED).then(|| clip::mixed_states(backend, &x, layout.rows, p)).transpose()?;
    let encoding = Encoding { x, parts: backend.parts(layout.rows, padded)?, states, mixed, rows: layout.rows };
    let factors = encoding.mixed.as_ref().unwrap_or(&encoding.states);
    passes(backend, &TRUNCATE, &encoding, job, |slice, parts| vec![slice, parts, factors.all()])?;
    Ok(encoding)
}

/// Enqueues all from the parts of the norms on. Where the norm is that of the rounded integers the rounding comes first,
/// with parts of its own, for every row: what is launched does not depend on data.
fn integer_half(backend: &DeviceBackend, encoding: &Encoding, job: &EncodeJob<'_>) -> Result<(), BackendError> {
    let p = &job.params;
    let padded = u64::from(p.padded);
    let keys = backend.keys(&job.keys.iter().map(|keys| &keys.rounding).collect::<Vec<_>>())?;
    let mut last = *job;
    if p.norm == norm_kind::ROUNDED {
        passes(backend, &SETTLE, encoding, job, |slice, parts| vec![slice, parts, keys.all()])?;
        // The last pass shrinks the integers and keeps them.
        last.params = EncodeParams { rounding: rounding_kind::KEEP, linf: NO_LINF, ..*p };
    }
    let params = RowsPassParams { groups: encoding.rows as u32, chunks: chunks(padded) as u32, ..params(p) };
    backend.launch(&SHRINK, encoding.rows, &params, &[encoding.parts.all(), encoding.states.all()])?;
    passes(backend, &ROUND, encoding, &last, |slice, _| vec![slice, encoding.states.all(), keys.all()])?;
    let Some(law) = job.noise else { return Ok(()) };
    let keys = backend.keys(&job.keys.iter().map(|keys| &keys.noise).collect::<Vec<_>>())?;
    noise::rows(backend, &encoding.x, encoding.rows, p, law, &keys)
}

/// Parameters of a launch, but for what it takes of the rows.
fn params(p: &EncodeParams) -> RowsPassParams {
    RowsPassParams {
        bits: p.bits,
        fraction_bits: p.fraction_bits,
        // Kernels measure integers of either kind alike.
        norm: if p.norm == norm_kind::MIXED { norm_kind::MIXED } else { norm_kind::L2 },
        rounding: p.rounding,
        linf: p.linf,
        factor: p.gamma,
        norm_bound: p.norm_bound,
        ..RowsPassParams::zeroed()
    }
}

/// Enqueues a kernel on all rows; `slices` gets those of the rows and of the parts of their norms.
fn passes<'a>(
    backend: &DeviceBackend,
    kernel: &'static Kernel,
    encoding: &'a Encoding,
    job: &EncodeJob<'_>,
    slices: impl Fn(super::Slice<'a>, super::Slice<'a>) -> Vec<super::Slice<'a>>,
) -> Result<(), BackendError> {
    let padded = u64::from(job.params.padded);
    for tile in backend.tiles(encoding.rows, padded)? {
        let chunks = chunks(tile.width());
        let groups = tile.count() * chunks;
        let params = RowsPassParams {
            groups: groups as u32,
            chunks: chunks as u32,
            first_row: tile.rows.start as u32,
            first: noise::first(tile.columns.start)?,
            padded: tile.width() as u32,
            ..params(&job.params)
        };
        let slices = slices(tile.slice(&encoding.x, padded), parts_from(&encoding.parts, tile.columns.start));
        backend.launch(kernel, groups, &params, &slices)?;
    }
    Ok(())
}

fn layout(rows: &Rows, from: &DeviceBuffer) -> Layout {
    let (stride, offset) = (rows.stride as u64, rows.offset as u64);
    Layout { rows: rows.rows as u64, dim: rows.dim as u64, stride, offset, element: from.element() }
}

/// True if the parameters ask for the float L2 clip.
fn clips(p: &EncodeParams) -> bool {
    p.clip < f32::MAX
}

/// What the float half saw. Errors: NaN or an infinity, if the job wants one.
fn float_report(
    backend: &DeviceBackend,
    rows: &Rows,
    from: &DeviceBuffer,
    job: &EncodeJob<'_>,
    encoding: &Encoding,
    seen: &[RowState],
) -> Result<EncodeReport, BackendError> {
    if job.non_finite == NonFinite::Error {
        clip::finite(backend, from, &layout(rows, from), seen)?;
    }
    let bound = if clips(&job.params) { f64::from(job.params.clip) } else { f64::INFINITY };
    let mixed = match &encoding.mixed {
        Some(states) => backend.read_states(states, encoding.rows)?,
        None => Vec::new(),
    };
    let mut report = EncodeReport::default();
    for (i, state) in seen.iter().enumerate() {
        let (norm, zeroed) = if state.finite() { (state.norm(), 0) } else { (0.0, 1) };
        let total = mixed.get(i).map_or(0.0, |state| state.norm().powi(2));
        let ratio = factor(norm, bound) * factor(total, clip::mixed_bound(&job.params));
        report.merge(&EncodeReport {
            zeroed,
            clipped: usize::from(ratio < 1.0),
            clip_ratio_sum: ratio,
            norm_sum: norm,
            linf_hits: 0,
        });
    }
    Ok(report)
}

fn integer_report(seen: &[RowState]) -> EncodeReport {
    EncodeReport { linf_hits: seen.iter().map(RowState::clamped).sum(), ..EncodeReport::default() }
}
