//! `encode`: the float half up to fixed point, the integer half from there.

use super::{BackendError, check, clip, fwht, noise};
use crate::backend::shrink::{SHRINK_BITS, shrink};
use crate::backend::{EncodeJob, EncodeReport, NonFinite, RowKeys};
use crate::math::prg::StreamKey;
use crate::params::{EncodeParams, ROUNDING_STRIDE, norm_kind, rounding_kind};

/// The public signs `s_j`: -1 where bit `j % 8` of keystream byte `j / 8` is set.
#[must_use]
pub fn signs(key: &StreamKey, len: usize) -> Vec<f64> {
    let mut bytes = vec![0u8; len.div_ceil(8)];
    key.fill(0, &mut bytes);
    (0..len).map(|j| if bytes[j / 8] >> (j % 8) & 1 == 1 { -1.0 } else { 1.0 }).collect()
}

/// `v(x) = x^2 + p - p^2 = f^2 + (2f + 1) p` with `f = floor|x|`, `p = |x| - f`.
#[must_use]
pub fn mixed_norm(x: f64) -> f64 {
    let f = x.abs().floor();
    f * f + (2.0 * f + 1.0) * (x.abs() - f)
}

/// The mixed clip of Skellam mixture as published: `v' = min(1, c / sum v) v`, inverted on each
/// coordinate by `f' = floor(sqrt v')`, `x' = sign(x) (f' + (v' - f'^2) / (1 + 2 f'))`. Returns the ratio.
pub fn mixed_clip(x: &mut [f64], c: f64) -> f64 {
    let total: f64 = x.iter().map(|&v| mixed_norm(v)).sum();
    let ratio = if total > c { c / total } else { 1.0 };
    if ratio < 1.0 {
        for v in x {
            let w = ratio * mixed_norm(*v);
            let f = w.sqrt().floor();
            *v = (f + (w - f * f) / (1.0 + 2.0 * f)).copysign(*v);
        }
    }
    ratio
}

/// True if the parameters ask for the float L2 clip.
fn clips(p: &EncodeParams) -> bool {
    p.clip < f32::MAX
}

/// The float half on row `index`: clip, pad, signs, block FWHT, scale, (mixed clip,) truncation.
///
/// # Errors
/// [`BackendError::NonFinite`], if the job asks for it.
pub fn fixed_row(index: usize, row: &[f32], job: &EncodeJob<'_>) -> Result<(Vec<i32>, EncodeReport), BackendError> {
    let p = &job.params;
    let mut report = EncodeReport::default();
    if row.iter().any(|v| !v.is_finite()) {
        if job.non_finite == NonFinite::Error {
            return Err(check::non_finite(index, row));
        }
        report.zeroed = 1;
        report.clip_ratio_sum = 1.0;
        return Ok((vec![0; p.padded as usize], report));
    }
    let norm = clip::norm(row);
    let bound = if clips(p) { f64::from(p.clip) } else { f64::INFINITY };
    let mut ratio = clip::factor(norm, bound);
    let factor = clip::factor(norm, bound * (1.0 - check::CLIP_MARGIN));
    let mut x: Vec<f64> = row.iter().map(|&v| f64::from(v) * factor).collect();
    x.resize(p.padded as usize, 0.0);
    if p.rotate == 1 {
        rotate(&mut x, p.block_log2, &signs(job.signs, p.padded as usize));
    }
    for v in &mut x {
        *v *= f64::from(p.gamma);
    }
    if p.norm == norm_kind::MIXED {
        ratio *= mixed_clip(&mut x, p.norm_bound() as f64 / unit(p));
    }
    report.norm_sum = norm;
    report.clip_ratio_sum = ratio;
    report.clipped = usize::from(ratio < 1.0);
    // `as` truncates toward zero and saturates.
    Ok((x.iter().map(|v| (v * unit(p)) as i32).collect(), report))
}

/// `2^F`.
fn unit(p: &EncodeParams) -> f64 {
    f64::from(1u32 << p.fraction_bits)
}

/// `x <- H (s * x) / sqrt(block)` on each block.
pub fn rotate(x: &mut [f64], block_log2: u32, signs: &[f64]) {
    for (v, s) in x.iter_mut().zip(signs) {
        *v *= s * 2f64.powf(-0.5 * f64::from(block_log2));
    }
    for block in x.chunks_exact_mut(1 << block_log2) {
        fwht::fwht(block);
    }
}

/// The integer norm of a row (units: see [`norm_kind`]). Exact: at most `2^32 * 2^62`.
#[must_use]
pub fn integer_norm(x: &[i64], p: &EncodeParams) -> u128 {
    let fraction = (1u128 << p.fraction_bits) - 1;
    x.iter()
        .map(|v| {
            let a = u128::from(v.unsigned_abs());
            let (f, frac) = (a >> p.fraction_bits, a & fraction);
            if p.norm == norm_kind::MIXED { ((f * f) << p.fraction_bits) + (2 * f + 1) * frac } else { a * a }
        })
        .sum()
}

/// Clamps to `linf`.
fn clamped_row(fixed: &[i32], p: &EncodeParams) -> (Vec<i64>, EncodeReport) {
    let linf = i64::from(p.linf);
    let x = fixed.iter().map(|&v| i64::from(v).clamp(-linf, linf)).collect();
    let linf_hits = fixed.iter().filter(|v| i64::from(**v).abs() > linf).count() as u64;
    (x, EncodeReport { linf_hits, ..EncodeReport::default() })
}

/// Shrinks toward zero to `norm_bound`.
fn shrunk_row(mut x: Vec<i64>, p: &EncodeParams) -> Vec<i64> {
    let num = shrink(integer_norm(&x, p), p);
    for v in &mut x {
        *v = v.signum() * ((v.abs() * i64::from(num)) >> SHRINK_BITS);
    }
    x
}

/// Clamps to `linf` and shrinks to `norm_bound`: the row whose norm the privacy proof is about, but for
/// [`norm_kind::ROUNDED`] ([`rounded_row`]).
#[must_use]
pub fn bounded_row(fixed: &[i32], p: &EncodeParams) -> (Vec<i64>, EncodeReport) {
    let (x, report) = clamped_row(fixed, p);
    (shrunk_row(x, p), report)
}

/// The integers that noise is added to: clamp, exact norm and shrink, rounding; with [`norm_kind::ROUNDED`] clamp,
/// rounding, exact norm and shrink.
#[must_use]
pub fn rounded_row(fixed: &[i32], key: &StreamKey, p: &EncodeParams) -> (Vec<i64>, EncodeReport) {
    let rounded = |x: Vec<i64>| -> Vec<i64> {
        if p.rounding == rounding_kind::KEEP {
            return x;
        }
        x.iter().enumerate().map(|(j, &v)| round(v, j, key, p)).collect()
    };
    let (x, report) = clamped_row(fixed, p);
    let x = if p.norm == norm_kind::ROUNDED { shrunk_row(rounded(x), p) } else { rounded(shrunk_row(x, p)) };
    (x, report)
}

/// The integer half on one row: [`rounded_row`], noise, wrap.
#[must_use]
pub fn integer_row(fixed: &[i32], keys: &RowKeys, job: &EncodeJob<'_>) -> (Vec<u32>, EncodeReport) {
    let p = &job.params;
    let (x, report) = rounded_row(fixed, &keys.rounding, p);
    let words = x.iter().enumerate().map(|(j, &v)| {
        let noise = job.noise.map_or(0, |law| noise::draw(law, &keys.noise, j));
        (v + noise) as u32 & check::mask(p.bits)
    });
    (words.collect(), report)
}

/// `floor(x / 2^F) + [U < frac]`, `U` the top F of the 16 keystream bits of coordinate `j`.
fn round(v: i64, j: usize, key: &StreamKey, p: &EncodeParams) -> i64 {
    let mut bytes = [0u8; 2];
    key.fill(ROUNDING_STRIDE * j as u64, &mut bytes);
    let uniform = i64::from(u16::from_le_bytes(bytes)) >> (16 - p.fraction_bits);
    let fraction = v & ((1 << p.fraction_bits) - 1);
    (v >> p.fraction_bits) + i64::from(uniform < fraction)
}
