//! `encode` in one buffer: the output row holds the floats, then the fixed point, then the words.
//!
//! A row is read once, its norm measured inside the first pass, and its buffer is passed over as often as the transform
//! needs, scale, fixed point and its exact norm inside the last ([`fixed`]); then once more for the words ([`integer`]),
//! which needs that norm. Where a NaN is an error, before anything is written, or a row has more than one block, the row
//! is read twice, once for its norm. Rows of half precision are widened where they are read, in registers.

pub(super) mod fixed;
mod integer;
mod mixed;

use std::cell::Cell;

use rayon::prelude::*;

use self::fixed::{Factor, sign_bytes};
use self::integer::{Seen, Sink};
use super::clip::{CHUNK, energy};
use super::isa::Dispatch;
use super::noise::Law;
use super::samples::Sample;
use crate::backend::rows::RowSlices;
use crate::backend::scalar::clip::factor;
use crate::backend::{Aligned, BackendError, EncodeJob, EncodeReport, NonFinite, Packed, RowKeys, check};
use crate::params::{EncodeParams, norm_kind};

/// Largest norm that a scaled row may have. A row above it would have every coordinate that `f32` can tell from zero
/// saturated anyway.
const LARGEST_NORM: f64 = (1u128 << 120) as f64;
/// Rows with norms from the inverse of this to this are transformed as they are: no sum overflows, and what the least
/// numbers of `f32` lack does not count.
const FAMILIAR_NORM: f64 = (1u128 << 64) as f64;

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
    let tasks = out.chunks_exact_mut(padded).zip(rows).zip(job.keys).enumerate();
    let reports = each(tasks, |(i, ((out, row), keys))| match half {
        Half::Fixed => plan.fixed(row, plan.norm(i), false, out).0,
        Half::Words => plan.words(row, plan.norm(i), keys, out, Sink::InPlace),
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
    let tasks = bytes.chunks_mut(row_bytes.max(1)).zip(rows).zip(job.keys).enumerate();
    let reports = each(tasks, |(i, ((bytes, row), keys))| {
        scratch(padded, |out| plan.words(row, plan.norm(i), keys, out, Sink::Packed(bytes)))
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
    /// None where rows are measured as they are transformed.
    norms: Option<Vec<f64>>,
    signs: Vec<u8>,
    law: Option<Law>,
}

impl<'a> Plan<'a> {
    /// Measures the rows if that has to come first; refuses NaN and infinities if the job does.
    fn new<T: Sample>(dispatch: Dispatch, rows: &[&[T]], job: &'a EncodeJob<'a>) -> Result<Self, BackendError> {
        let p = &job.params;
        let one_block = p.rotate == 1 && p.padded == 1 << p.block_log2 && p.padded as usize >= CHUNK;
        let later = one_block && p.norm != norm_kind::MIXED && job.non_finite == NonFinite::ZeroRow;
        let norms = (!later).then(|| each(rows.iter(), |row| energy(dispatch, row).sqrt()));
        if job.non_finite == NonFinite::Error
            && let Some(row) = norms.iter().flatten().position(|norm| !norm.is_finite())
        {
            return Err(check::non_finite(row, rows[row]));
        }
        let signs = if p.rotate == 1 { sign_bytes(dispatch, job.signs, p.padded as usize) } else { Vec::new() };
        Ok(Self { dispatch, job, norms, signs, law: job.noise.map(Law::new) })
    }

    /// The norm of row i, if it is known.
    fn norm(&self, i: usize) -> Option<f64> {
        self.norms.as_ref().map(|norms| norms[i])
    }

    /// The float half on one row; `out` then holds the fixed point as the bits of `i32`, clamped to `linf` if the words
    /// are to follow.
    fn fixed<T: Sample>(&self, row: &[T], norm: Option<f64>, clamp: bool, out: &mut [u32]) -> (EncodeReport, Seen) {
        let Some(norm) = norm else {
            return self.measured(row, clamp, out);
        };
        let p = &self.job.params;
        if !norm.is_finite() {
            out.fill(0);
            return (EncodeReport { zeroed: 1, clip_ratio_sum: 1.0, ..EncodeReport::default() }, Seen::default());
        }
        let factor = total_factor(norm, p);
        if familiar(norm, factor) {
            return self.scaled(row, norm, factor as f32, clamp, out);
        }
        // The same row with a norm between 1 and 2.
        let unit = norm.log2().floor().exp2();
        let row: Vec<f32> = row.iter().map(|v| (f64::from(v.widen()) / unit) as f32).collect();
        self.scaled(&row, norm, (factor * unit).min(f64::from(f32::MAX)) as f32, clamp, out)
    }

    /// [`Self::fixed`], the norm measured as the row is first read; once more with that norm if it is an unfamiliar one.
    fn measured<T: Sample>(&self, row: &[T], clamp: bool, out: &mut [u32]) -> (EncodeReport, Seen) {
        let p = &self.job.params;
        let of = |norm: f64| {
            let factor = total_factor(norm, p);
            if familiar(norm, factor) { factor as f32 } else { 0.0 }
        };
        let factor = Factor::of(&of, out.len());
        let seen = fixed::plain(self.dispatch, row, p.block_log2, &self.signs, &factor, linf(p, clamp), out);
        let norm = factor.norm();
        if familiar(norm, total_factor(norm, p)) {
            return (report(norm, 1.0, p), seen);
        }
        self.fixed(row, Some(norm), clamp, out)
    }

    /// The float half on a row of that norm.
    fn scaled<T: Sample>(
        &self,
        row: &[T],
        norm: f64,
        factor: f32,
        clamp: bool,
        out: &mut [u32],
    ) -> (EncodeReport, Seen) {
        let p = &self.job.params;
        let block_log2 = if p.rotate == 1 { p.block_log2 } else { 0 };
        if p.norm != norm_kind::MIXED {
            let factor = Factor::known(factor);
            let seen = fixed::plain(self.dispatch, row, block_log2, &self.signs, &factor, linf(p, clamp), out);
            return (report(norm, 1.0, p), seen);
        }
        let clip = (p.norm_bound() as f64 / unit(p), unit(p) as f32);
        let ratio = fixed::mixed(self.dispatch, row, block_log2, &self.signs, factor, clip, out);
        let seen = if clamp { integer::bound(self.dispatch, out, p) } else { Seen::default() };
        (report(norm, ratio, p), seen)
    }

    fn words<T: Sample>(
        &self,
        row: &[T],
        norm: Option<f64>,
        keys: &RowKeys,
        out: &mut [u32],
        sink: Sink<'_>,
    ) -> EncodeReport {
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

/// `2^F`.
fn unit(p: &EncodeParams) -> f64 {
    f64::from(1u32 << p.fraction_bits)
}

/// The L2 bound.
fn bound(p: &EncodeParams) -> f64 {
    if p.clip < f32::MAX { f64::from(p.clip) } else { f64::INFINITY }
}

/// The clamp, if the words are to follow.
fn linf(p: &EncodeParams, clamp: bool) -> u32 {
    if clamp { p.linf } else { u32::MAX }
}

/// `min(1, C / |x|) gamma 2^(-k/2)`, and `2^F` unless the clip is the mixed one: what a row's transform is multiplied by.
fn total_factor(norm: f64, p: &EncodeParams) -> f64 {
    let unit = if p.norm == norm_kind::MIXED { 1.0 } else { unit(p) };
    let wanted = factor(norm, bound(p) * (1.0 - check::CLIP_MARGIN)) * f64::from(p.gamma) * unit;
    let orthonormal = if p.rotate == 1 { (-0.5 * f64::from(p.block_log2)).exp2() } else { 1.0 };
    wanted * factor(wanted * norm, LARGEST_NORM) * orthonormal
}

/// True if a row of that norm is transformed as it is and multiplied by the factor.
fn familiar(norm: f64, factor: f64) -> bool {
    norm == 0.0 || ((1.0 / FAMILIAR_NORM..=FAMILIAR_NORM).contains(&norm) && factor <= f64::from(f32::MAX))
}

/// The report of a row; the ratio is that of the mixed clip.
fn report(norm: f64, mixed_ratio: f64, p: &EncodeParams) -> EncodeReport {
    let ratio = factor(norm, bound(p)) * mixed_ratio;
    EncodeReport { norm_sum: norm, clip_ratio_sum: ratio, clipped: usize::from(ratio < 1.0), ..EncodeReport::default() }
}
