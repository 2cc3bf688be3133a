//! `encode` in one buffer: the output row holds the floats, then the fixed point, then the words.
//!
//! A row is read twice (once for its norm) and its buffer is passed over as often as the transform needs, the
//! scaling inside the first pass and the fixed point and its exact norm inside the last ([`fixed`]); then once
//! more for the words ([`integer`]), which needs that norm. Rows of half precision are widened where they are read, in
//! registers: 2 bytes an element each of the two times.

pub(super) mod fixed;
mod integer;
mod mixed;

use std::cell::Cell;

use rayon::prelude::*;

use self::fixed::{Scale, sign_bytes};
use self::integer::{Seen, Sink};
use super::clip::energy;
use super::isa::Dispatch;
use super::noise::Law;
use super::samples::Sample;
use crate::backend::rows::RowSlices;
use crate::backend::scalar::clip::factor;
use crate::backend::{Aligned, BackendError, EncodeJob, EncodeReport, NonFinite, Packed, RowKeys, check};
use crate::params::norm_kind;

/// Largest norm that a scaled row may have inside the float transform, so that no sum overflows. A row
/// above it would have every coordinate that `f32` can tell from zero saturated anyway.
const LARGEST_NORM: f64 = (1u128 << 120) as f64;

/// How far [`encode`] goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// To the fixed point.
    Fixed,
    /// To the words.
    Words,
}

/// Encodes checked rows into `out`, in parallel over rows and over the tasks of a long row.
///
/// # Errors
/// [`BackendError::NonFinite`] before anything is written.
pub(super) fn encode(
    dispatch: Dispatch,
    rows: &RowSlices<'_>,
    job: &EncodeJob<'_>,
    half: Half,
    out: &mut Aligned<u32>,
) -> Result<EncodeReport, BackendError> {
    match rows {
        RowSlices::F32(rows) => encode_of(dispatch, rows, job, half, out),
        RowSlices::F16(rows) => encode_of(dispatch, rows, job, half, out),
        RowSlices::Bf16(rows) => encode_of(dispatch, rows, job, half, out),
    }
}

fn encode_of<T: Sample>(
    dispatch: Dispatch,
    rows: &[&[T]],
    job: &EncodeJob<'_>,
    half: Half,
    out: &mut Aligned<u32>,
) -> Result<EncodeReport, BackendError> {
    let plan = Plan::new(dispatch, rows, job)?;
    let padded = job.params.padded as usize;
    out.resize(rows.len() * padded);
    let tasks = out.chunks_exact_mut(padded).zip(rows).zip(&plan.norms).zip(job.keys);
    let reports = each(tasks, |(((out, row), norm), keys)| match half {
        Half::Fixed => plan.fixed(row, *norm, false, out).0,
        Half::Words => plan.words(row, *norm, keys, out, Sink::InPlace),
    });
    Ok(total(&reports))
}

/// Encodes and packs checked rows. Coordinates pass through one row's memory a thread, whatever the number of rows.
///
/// # Errors
/// As for [`encode`].
pub(super) fn packed(
    dispatch: Dispatch,
    rows: &RowSlices<'_>,
    job: &EncodeJob<'_>,
) -> Result<(Packed, EncodeReport), BackendError> {
    match rows {
        RowSlices::F32(rows) => packed_of(dispatch, rows, job),
        RowSlices::F16(rows) => packed_of(dispatch, rows, job),
        RowSlices::Bf16(rows) => packed_of(dispatch, rows, job),
    }
}

fn packed_of<T: Sample>(
    dispatch: Dispatch,
    rows: &[&[T]],
    job: &EncodeJob<'_>,
) -> Result<(Packed, EncodeReport), BackendError> {
    let plan = Plan::new(dispatch, rows, job)?;
    let padded = job.params.padded as usize;
    let row_bytes = super::pack::len(padded, job.params.bits);
    let mut bytes = vec![0; rows.len() * row_bytes];
    let tasks = bytes.chunks_mut(row_bytes.max(1)).zip(rows).zip(&plan.norms).zip(job.keys);
    let reports = each(tasks, |(((bytes, row), norm), keys)| {
        scratch(padded, |out| plan.words(row, *norm, keys, out, Sink::Packed(bytes)))
    });
    Ok((Packed { bytes, row_bytes }, total(&reports)))
}

/// Elements of the scratch that a thread keeps between rows, 4 MiB: fresh memory costs as much as the transform, and
/// buffers that come and go between what stays fragment the heap.
const KEPT: usize = 1 << 20;

/// Calls `f` with `len` words of scratch, whatever is in them.
fn scratch<R>(len: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    thread_local! {
        static KEEP: Cell<Aligned<u32>> = Cell::default();
    }
    // Taken, not borrowed: a thread that waits for parts of its row may begin another one.
    let mut words = KEEP.take();
    words.resize(len);
    let result = f(&mut words);
    if len <= KEPT {
        KEEP.set(words);
    }
    result
}

/// What all rows of a job have in common.
struct Plan<'a> {
    dispatch: Dispatch,
    job: &'a EncodeJob<'a>,
    norms: Vec<f64>,
    signs: Vec<u8>,
    law: Option<Law>,
}

impl<'a> Plan<'a> {
    /// Measures the rows; refuses NaN and infinities if the job does.
    fn new<T: Sample>(dispatch: Dispatch, rows: &[&[T]], job: &'a EncodeJob<'a>) -> Result<Self, BackendError> {
        let norms: Vec<f64> = each(rows.iter(), |row| energy(dispatch, row).sqrt());
        if job.non_finite == NonFinite::Error
            && let Some(row) = norms.iter().position(|norm| !norm.is_finite())
        {
            return Err(check::non_finite(row, rows[row]));
        }
        let rotate = job.params.rotate == 1;
        let signs = if rotate { sign_bytes(dispatch, job.signs, job.params.padded as usize) } else { Vec::new() };
        Ok(Self { dispatch, job, norms, signs, law: job.noise.map(Law::new) })
    }

    fn fixed<T: Sample>(&self, row: &[T], norm: f64, clamp: bool, out: &mut [u32]) -> (EncodeReport, Seen) {
        fixed_row(self.dispatch, row, norm, self.job, &self.signs, clamp, out)
    }

    fn words<T: Sample>(&self, row: &[T], norm: f64, keys: &RowKeys, out: &mut [u32], sink: Sink<'_>) -> EncodeReport {
        let (report, seen) = self.fixed(row, norm, true, out);
        integer::finish(self.dispatch, out, seen, &self.job.params, keys, self.law.as_ref(), sink);
        EncodeReport { linf_hits: seen.hits, ..report }
    }
}

/// The integer half on checked coordinates.
pub(super) fn integer(dispatch: Dispatch, fixed: &[i32], job: &EncodeJob<'_>) -> (Aligned<u32>, EncodeReport) {
    let mut words: Aligned<u32> = bytemuck::cast_slice(fixed).into();
    let law = job.noise.map(Law::new);
    let rows = words.chunks_exact_mut(job.params.padded as usize).zip(job.keys);
    let reports = each(rows, |(out, keys)| integer::row(dispatch, out, &job.params, keys, law.as_ref()));
    (words, total(&reports))
}

/// `f` of every item: on rayon's threads where there is more than one.
fn each<T: Send, R: Send>(items: impl ExactSizeIterator<Item = T>, f: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    if items.len() <= 1 {
        return items.map(f).collect();
    }
    let items: Vec<T> = items.collect();
    items.into_par_iter().map(f).collect()
}

fn total(reports: &[EncodeReport]) -> EncodeReport {
    let mut total = EncodeReport::default();
    reports.iter().for_each(|report| total.merge(report));
    total
}

/// The float half on one row of that norm; `out` then holds the fixed point as the bits of `i32`, clamped to
/// `linf` if the words are to follow.
fn fixed_row<T: Sample>(
    dispatch: Dispatch,
    row: &[T],
    norm: f64,
    job: &EncodeJob<'_>,
    signs: &[u8],
    clamp: bool,
    out: &mut [u32],
) -> (EncodeReport, Seen) {
    let p = &job.params;
    if !norm.is_finite() {
        out.fill(0);
        return (EncodeReport { zeroed: 1, clip_ratio_sum: 1.0, ..EncodeReport::default() }, Seen::default());
    }
    let bound = if p.clip < f32::MAX { f64::from(p.clip) } else { f64::INFINITY };
    // With the plain norm, 2^F joins the scale: the transform then ends in units of the fixed point.
    let unit = f64::from(1u32 << p.fraction_bits);
    let mixed = p.norm == norm_kind::MIXED;
    let wanted = factor(norm, bound * (1.0 - check::CLIP_MARGIN)) * f64::from(p.gamma) * if mixed { 1.0 } else { unit };
    let orthonormal = if p.rotate == 1 { (-0.5 * f64::from(p.block_log2)).exp2() } else { 1.0 };
    let scale = Scale {
        factor: wanted * factor(wanted * norm, LARGEST_NORM) * orthonormal,
        mixed: mixed.then_some((p.norm_bound() as f64 / unit, unit as f32)),
    };
    let (seen, mixed_ratio) = fixed::row(dispatch, row, p, signs, &scale, clamp, out);
    let ratio = factor(norm, bound) * mixed_ratio;
    let report = EncodeReport {
        norm_sum: norm,
        clip_ratio_sum: ratio,
        clipped: usize::from(ratio < 1.0),
        ..EncodeReport::default()
    };
    (report, seen)
}
