//! `encode` in one buffer: the output row holds the floats, then the fixed point, then the words.
//!
//! A row is read twice (once for its norm) and its buffer is passed over as often as the transform needs, the
//! scaling inside the first pass and the fixed point and its exact norm inside the last ([`fixed`]); then once
//! more for the words ([`integer`]), which needs that norm.

pub(super) mod fixed;
mod integer;
mod mixed;

use rayon::prelude::*;

use self::fixed::{Scale, sign_bytes};
use self::integer::{Seen, Sink};
use super::clip::energy;
use super::isa::Dispatch;
use super::noise::Law;
use crate::backend::scalar::clip::factor;
use crate::backend::{Aligned, BackendError, EncodeJob, EncodeReport, NonFinite, Packed, check};
use crate::params::norm_kind;

/// Largest norm that a scaled row may have inside the float transform, so that no sum overflows. A row
/// above it would have every coordinate that `f32` can tell from zero saturated anyway.
const LARGEST_NORM: f64 = (1u128 << 120) as f64;

/// How far [`encode`] goes.
pub(super) enum Half<'a> {
    /// To the fixed point.
    Fixed,
    /// To the words.
    Words,
    /// To the packed words; the buffer is scratch.
    Packed(&'a mut Packed),
}

/// Encodes checked rows into `out`, in parallel over rows and over the tasks of a long row.
///
/// # Errors
/// [`BackendError::NonFinite`] before anything is written.
pub(super) fn encode(
    dispatch: Dispatch,
    rows: &[&[f32]],
    job: &EncodeJob<'_>,
    half: Half<'_>,
    out: &mut Aligned<u32>,
) -> Result<EncodeReport, BackendError> {
    let p = &job.params;
    let padded = p.padded as usize;
    let norms: Vec<f64> = each(rows.iter(), |row| energy(dispatch, row).sqrt());
    if job.non_finite == NonFinite::Error
        && let Some(row) = norms.iter().position(|norm| !norm.is_finite())
    {
        return Err(check::non_finite(row, rows[row]));
    }
    out.resize(rows.len() * padded);
    let signs = if p.rotate == 1 { sign_bytes(dispatch, job.signs, padded) } else { Vec::new() };
    let law = job.noise.map(Law::new);
    let (words, mut packed) = match half {
        Half::Fixed => (false, None),
        Half::Words => (true, None),
        Half::Packed(packed) => {
            packed.row_bytes = super::pack::len(padded, p.bits);
            packed.bytes.resize(rows.len() * packed.row_bytes, 0);
            (true, Some(packed))
        }
    };
    let size = packed.as_ref().map_or(1, |packed| packed.row_bytes.max(1));
    let mut bytes = packed.as_mut().map(|packed| packed.bytes.chunks_mut(size));
    let rows = out.chunks_exact_mut(padded).zip(rows).zip(&norms).zip(job.keys);
    let tasks =
        rows.map(|(((out, row), norm), keys)| (out, *row, *norm, keys, bytes.as_mut().and_then(Iterator::next)));
    let reports = each(tasks, |(out, row, norm, keys, packed)| {
        let (mut report, seen) = fixed_row(dispatch, row, norm, job, &signs, words, out);
        if words {
            let sink = packed.map_or(Sink::InPlace, Sink::Packed);
            integer::finish(dispatch, out, seen, p, keys, law.as_ref(), sink);
            report.linf_hits = seen.hits;
        }
        report
    });
    Ok(total(&reports))
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
fn fixed_row(
    dispatch: Dispatch,
    row: &[f32],
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
