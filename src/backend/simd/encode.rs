//! `encode` in one buffer: the output row holds the floats, then the fixed point, then the words.

mod integer;

use rayon::prelude::*;

use super::SEGMENT;
use super::clip::energy;
use super::fwht;
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use super::noise::Law;
use crate::backend::scalar::clip::factor;
use crate::backend::{Aligned, BackendError, EncodeJob, EncodeReport, NonFinite, check};
use crate::math::prg::StreamKey;
use crate::params::norm_kind;

/// Largest norm that a scaled row may have inside the float transform, so that no sum overflows. A row
/// above it would have every coordinate that `f32` can tell from zero saturated anyway.
const LARGEST_NORM: f64 = (1u128 << 120) as f64;

/// How far [`encode`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// To the fixed point.
    Fixed,
    /// To the words.
    Both,
}

/// The sign bits of `len` coordinates, eight a byte.
pub(super) fn sign_bytes(key: &StreamKey, len: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; len.div_ceil(8)];
    bytes.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, part)| key.fill((i * SEGMENT) as u64, part));
    bytes
}

/// Encodes checked rows, in parallel over rows and over the segments of a long row.
pub(super) fn encode(
    dispatch: Dispatch,
    rows: &[&[f32]],
    job: &EncodeJob<'_>,
    half: Half,
) -> Result<(Aligned<u32>, EncodeReport), BackendError> {
    let padded = job.params.padded as usize;
    let mut words = Aligned::<u32>::zeroed(rows.len() * padded);
    let bytes = if job.params.rotate == 1 { sign_bytes(job.signs, padded) } else { Vec::new() };
    let table = job.noise.map(Law::new);
    let reports: Vec<Result<EncodeReport, BackendError>> = words
        .par_chunks_mut(padded)
        .zip(rows)
        .zip(job.keys)
        .enumerate()
        .map(|(index, ((out, row), keys))| {
            let mut report = fixed_row(dispatch, index, row, job, &bytes, out)?;
            if half == Half::Both {
                report.merge(&integer::row(dispatch, out, &job.params, keys, table.as_ref()));
            }
            Ok(report)
        })
        .collect();
    let mut total = EncodeReport::default();
    for report in reports {
        total.merge(&report?);
    }
    Ok((words, total))
}

/// The integer half on checked coordinates.
pub(super) fn integer(dispatch: Dispatch, fixed: &[i32], job: &EncodeJob<'_>) -> (Aligned<u32>, EncodeReport) {
    let mut words: Aligned<u32> = bytemuck::cast_slice(fixed).into();
    let table = job.noise.map(Law::new);
    let reports: Vec<EncodeReport> = words
        .par_chunks_mut(job.params.padded as usize)
        .zip(job.keys)
        .map(|(out, keys)| integer::row(dispatch, out, &job.params, keys, table.as_ref()))
        .collect();
    let mut total = EncodeReport::default();
    reports.iter().for_each(|report| total.merge(report));
    (words, total)
}

/// The float half on one row; `out` then holds the fixed point as the bits of `i32`.
fn fixed_row(
    dispatch: Dispatch,
    index: usize,
    row: &[f32],
    job: &EncodeJob<'_>,
    signs: &[u8],
    out: &mut [u32],
) -> Result<EncodeReport, BackendError> {
    let p = &job.params;
    let norm = energy(dispatch, row).sqrt();
    if !norm.is_finite() {
        if job.non_finite == NonFinite::Error {
            return Err(check::non_finite(index, row));
        }
        return Ok(EncodeReport { zeroed: 1, clip_ratio_sum: 1.0, ..EncodeReport::default() });
    }
    let bound = if p.clip < f32::MAX { f64::from(p.clip) } else { f64::INFINITY };
    let mut ratio = factor(norm, bound);
    // With the plain norm, 2^F joins the scale: the transform then ends in units of the fixed point.
    let unit = f64::from(1u32 << p.fraction_bits);
    let mixed = p.norm == norm_kind::MIXED;
    let wanted = factor(norm, bound * (1.0 - check::CLIP_MARGIN)) * f64::from(p.gamma) * if mixed { 1.0 } else { unit };
    let scale = wanted * factor(wanted * norm, LARGEST_NORM);
    let orthonormal = if p.rotate == 1 { (-0.5 * f64::from(p.block_log2)).exp2() } else { 1.0 };

    let x: &mut [f32] = bytemuck::cast_slice_mut(out);
    let (head, padding) = x.split_at_mut(row.len());
    head.par_chunks_mut(SEGMENT)
        .zip(row.par_chunks(SEGMENT))
        .for_each(|(x, row)| dispatch.run(Prepare { row, factor: scale * orthonormal, x }));
    padding.fill(0.0);
    if p.rotate == 1 {
        head.par_chunks_mut(SEGMENT)
            .zip(signs.par_chunks(SEGMENT / 8))
            .for_each(|(x, bytes)| dispatch.run(Signs { x, bytes }));
        fwht::blocks(dispatch, x, p.block_log2, 1.0);
    }
    if mixed {
        ratio *= mixed_clip(dispatch, x, p.norm_bound() as f64 / unit);
    }
    let last = if mixed { unit as f32 } else { 1.0 };
    out.par_chunks_mut(SEGMENT).for_each(|x| dispatch.run(Truncate { x, unit: last }));
    Ok(EncodeReport {
        norm_sum: norm,
        clip_ratio_sum: ratio,
        clipped: usize::from(ratio < 1.0),
        ..EncodeReport::default()
    })
}

/// `x = factor * row`, rounded once.
struct Prepare<'a> {
    row: &'a [f32],
    factor: f64,
    x: &'a mut [f32],
}

impl Kernel for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (x, &v) in self.x.iter_mut().zip(self.row) {
            *x = (f64::from(v) * self.factor) as f32;
        }
    }
}

/// Flips the sign of coordinate `j` where bit `j % 8` of byte `j / 8` is set.
pub(super) struct Signs<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) bytes: &'a [u8],
}

impl Kernel for Signs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (groups, rest) = self.x.as_chunks_mut::<32>();
        let (quads, _) = self.bytes.as_chunks::<4>();
        let tail = self.bytes.get(4 * groups.len()..).unwrap_or(&[]);
        for (x, quad) in groups.iter_mut().zip(quads) {
            let bits = u32::from_le_bytes(*quad);
            for (i, v) in x.iter_mut().enumerate() {
                let flip = if bits & (1 << i) == 0 { 0 } else { 1 << 31 };
                *v = f32::from_bits(v.to_bits() ^ flip);
            }
        }
        for (v, bit) in rest.iter_mut().zip((0..8 * tail.len()).map(|j| tail[j / 8] >> (j % 8))) {
            *v = f32::from_bits(v.to_bits() ^ (u32::from(bit) << 31));
        }
    }
}

/// Truncates `x * unit` toward zero, saturating, in place.
struct Truncate<'a> {
    x: &'a mut [u32],
    unit: f32,
}

impl Kernel for Truncate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // The ends of i32 as f32; the largest float below 2^31 is 2^31 - 128.
        let (least, most, above) = (-2_147_483_648f32, 2_147_483_520f32, 2_147_483_648f32);
        for x in self.x {
            let v = f32::from_bits(*x) * self.unit;
            let capped = if v < most { v } else { most };
            let clamped = if capped > least { capped } else { least };
            // SAFETY: finite and within i32: a NaN has become `most`. (`as` does the same, but stays scalar.)
            let i = unsafe { clamped.to_int_unchecked::<i32>() };
            *x = (if v >= above { i32::MAX } else { i }) as u32;
        }
    }
}

/// The mixed clip in place; returns its ratio (see `scalar::encode::mixed_clip`).
fn mixed_clip(dispatch: Dispatch, x: &mut [f32], c: f64) -> f64 {
    let parts: Vec<f64> = x.par_chunks(SEGMENT).map(|x| dispatch.run(MixedNorm(x))).collect();
    let total: f64 = parts.iter().sum();
    let ratio = if total > c { c / total } else { 1.0 };
    if ratio < 1.0 {
        x.par_chunks_mut(SEGMENT).for_each(|x| dispatch.run(MixedShrink { x, ratio }));
    }
    ratio
}

/// `v(x) = f^2 + (2f + 1) p`.
#[inline(always)]
fn mixed(x: f32) -> f64 {
    let a = f64::from(x.abs());
    let f = a.floor();
    f * f + (2.0 * f + 1.0) * (a - f)
}

struct MixedNorm<'a>(&'a [f32]);

impl Kernel for MixedNorm<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        let mut lanes = [0f64; 16];
        let (groups, rest) = self.0.as_chunks::<16>();
        for group in groups {
            for (lane, &v) in lanes.iter_mut().zip(group) {
                *lane += mixed(v);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(rest) {
            *lane += mixed(v);
        }
        lanes.iter().sum()
    }
}

struct MixedShrink<'a> {
    x: &'a mut [f32],
    ratio: f64,
}

impl Kernel for MixedShrink<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for x in self.x {
            let w = self.ratio * mixed(*x);
            let f = w.sqrt().floor();
            *x = ((f + (w - f * f) / (1.0 + 2.0 * f)) as f32).copysign(*x);
        }
    }
}
