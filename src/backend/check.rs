//! What every backend refuses, in one place, so that all of them refuse the same things.

pub(crate) mod lattice;
pub(crate) mod robust;

pub(crate) use self::robust::{coefficients, finite_rows, finite_samples, ghost, gram, median, trimmed, within_f32};
use super::rows::{Real, RowSlices};
use super::{BackendError, Buffer, EncodeJob, Rows};
use crate::math::prg::STREAM_BYTES;
use crate::params::{
    ClipParams, DecodeParams, EncodeParams, FwhtParams, MAX_FRACTION_BITS, Ring, norm_kind, rounding_kind,
};
use crate::sample::noise::Noise;

/// Largest log2 of a Walsh-Hadamard block.
pub(crate) const MAX_BLOCK_LOG2: u32 = 27;

/// Margin of the float clip: rows are clipped to `C (1 - 2^-18)`, so that the rounding errors of the
/// float transform (about `log2(d) 2^-24`) do not push the integer norm over its bound.
pub(crate) const CLIP_MARGIN: f64 = 1.0 / (1u64 << 18) as f64;

fn out_of_range(name: &'static str, expected: &'static str, found: f64) -> BackendError {
    BackendError::OutOfRange { name, expected, found }
}

fn ensure(ok: bool, name: &'static str, expected: &'static str, found: f64) -> Result<(), BackendError> {
    if ok { Ok(()) } else { Err(out_of_range(name, expected, found)) }
}

fn length(what: &'static str, expected: usize, found: usize) -> Result<(), BackendError> {
    if expected == found { Ok(()) } else { Err(BackendError::WrongLength { what, expected, found }) }
}

/// Checks that `len` bytes from `position` on lie within one key's stream.
pub(crate) fn stream(position: u64, len: u64) -> Result<(), BackendError> {
    let end = position.saturating_add(len);
    ensure(end <= STREAM_BYTES, "end of the keystream", "at most 2^38 - 64, the bytes of one key", end as f64)
}

/// Checks words and ring of `noise`, and returns the words.
pub(crate) fn noise<'a>(words: &'a mut Buffer, width: u32, noise: &Noise) -> Result<&'a mut [u32], BackendError> {
    noise_shape(words.len(), width, noise)?;
    words.as_u32_mut()
}

/// Checks ring and number of words of `noise`, wherever they live.
pub(crate) fn noise_shape(len: usize, width: u32, noise: &Noise) -> Result<(), BackendError> {
    bits(width)?;
    noise_fits(len, noise)
}

/// Checks that one key serves `len` coordinates of noise.
fn noise_fits(len: usize, noise: &Noise) -> Result<(), BackendError> {
    ensure(len as u64 <= noise.capacity(), "coordinates", "at most what one key serves of this noise", len as f64)
}

fn job_noise(job: &EncodeJob<'_>) -> Result<(), BackendError> {
    job.noise.map_or(Ok(()), |noise| noise_fits(job.params.padded as usize, noise))
}

/// Ring width.
pub(crate) fn bits(bits: u32) -> Result<(), BackendError> {
    ensure((2..=32).contains(&bits), "bits", "2..=32", f64::from(bits))
}

/// Checks that `bytes` hold exactly `len` words of `ring` bits.
pub(crate) fn packed(bytes: &[u8], len: usize, ring: u32) -> Result<(), BackendError> {
    bits(ring)?;
    let expected = (len as u128 * u128::from(ring)).div_ceil(8);
    length("packed", usize::try_from(expected).unwrap_or(usize::MAX), bytes.len())?;
    let used = (len as u64 * u64::from(ring)) % 8;
    match bytes.last() {
        Some(&last) if used != 0 && last >> used != 0 => {
            Err(out_of_range("packed", "zeros in the unused bits of the last byte", f64::from(last)))
        }
        _ => Ok(()),
    }
}

/// The mask `2^bits - 1` of a checked ring width.
pub(crate) const fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

fn shape(dim: u32, padded: u32, block_log2: u32, rotate: u32) -> Result<(), BackendError> {
    ensure(dim >= 1, "dim", "at least 1", f64::from(dim))?;
    ensure(block_log2 <= MAX_BLOCK_LOG2, "block_log2", "0..=27", f64::from(block_log2))?;
    ensure(rotate <= 1, "rotate", "0 or 1", f64::from(rotate))?;
    let expected = u64::from(dim).next_multiple_of(1 << block_log2);
    ensure(u64::from(padded) == expected, "padded", "dim rounded up to a multiple of 2^block_log2", f64::from(padded))
}

fn encode_params(p: &EncodeParams) -> Result<(), BackendError> {
    shape(p.dim, p.padded, p.block_log2, p.rotate)?;
    bits(p.bits)?;
    ensure(p.fraction_bits <= MAX_FRACTION_BITS, "fraction_bits", "0..=16", f64::from(p.fraction_bits))?;
    ensure(p.norm <= norm_kind::ROUNDED, "norm", "one of norm_kind (0 to 2)", f64::from(p.norm))?;
    ensure(p.rounding <= rounding_kind::KEEP, "rounding", "one of rounding_kind (0 or 1)", f64::from(p.rounding))?;
    ensure(p.gamma.is_finite() && p.gamma > 0.0, "gamma", "finite and > 0", f64::from(p.gamma))?;
    ensure(p.clip > 0.0, "clip", "> 0", f64::from(p.clip))
}

/// Checks rows and job of `encode_fixed`, and returns the rows as slices of `dim` floats of their type.
pub(super) fn rows<'a>(rows: &'a Rows, job: &EncodeJob<'_>) -> Result<RowSlices<'a>, BackendError> {
    rows_shape(rows, job)?;
    rows.slices()
}

/// Checks rows and job of `encode_fixed`, wherever the rows live.
pub(crate) fn rows_shape(rows: &Rows, job: &EncodeJob<'_>) -> Result<(), BackendError> {
    encode_params(&job.params)?;
    length("row", job.params.dim as usize, rows.dim)?;
    length("keys", rows.rows, job.keys.len())?;
    job_noise(job)?;
    strided(rows.buffer.len(), rows.offset, rows.stride, rows.rows, rows.dim)
}

/// Checks that `rows` rows of `dim` elements at `offset + i * stride` lie inside `len` elements.
fn strided(len: usize, offset: usize, stride: usize, rows: usize, dim: usize) -> Result<(), BackendError> {
    if rows == 0 {
        return Ok(());
    }
    ensure(stride >= dim, "stride", "at least dim", stride as f64)?;
    let end = (rows - 1).checked_mul(stride).and_then(|s| s.checked_add(offset)).and_then(|s| s.checked_add(dim));
    match end {
        Some(end) if end <= len => Ok(()),
        _ => Err(BackendError::WrongLength { what: "rows", expected: end.unwrap_or(usize::MAX), found: len }),
    }
}

/// Checks fixed-point coordinates and job of `encode_integer`.
pub(crate) fn fixed<'a>(fixed: &'a Buffer, job: &EncodeJob<'_>) -> Result<&'a [i32], BackendError> {
    fixed_shape(fixed.len(), job)?;
    fixed.as_i32()
}

/// Checks the job of `encode_integer` for `len` coordinates, wherever they live.
pub(crate) fn fixed_shape(len: usize, job: &EncodeJob<'_>) -> Result<(), BackendError> {
    encode_params(&job.params)?;
    job_noise(job)?;
    length("fixed", job.keys.len().saturating_mul(job.params.padded as usize), len)
}

/// Checks a buffer and parameters of `clip`, and returns the floats.
pub(crate) fn clip<'a>(x: &'a mut Buffer, p: &ClipParams) -> Result<&'a mut [f32], BackendError> {
    clip_shape(x, p)?;
    x.as_f32_mut()
}

/// Checks parameters of `clip` for a buffer, wherever it lives, and that it is not of half precision.
pub(crate) fn clip_shape(x: &Buffer, p: &ClipParams) -> Result<(), BackendError> {
    if let found @ ("f16" | "bf16") = x.dtype() {
        return Err(BackendError::HalfInPlace { stage: "clip", found });
    }
    ensure(p.bound.is_finite() && p.bound > 0.0, "bound", "finite and > 0", f64::from(p.bound))?;
    ensure(p.dim >= 1, "dim", "at least 1", f64::from(p.dim))?;
    strided(x.len(), 0, p.stride as usize, p.rows as usize, p.dim as usize)
}

/// Checks a buffer and parameters of `fwht`, and returns the floats.
pub(crate) fn fwht<'a>(x: &'a mut Buffer, p: &FwhtParams) -> Result<&'a mut [f32], BackendError> {
    fwht_shape(x.len(), p)?;
    x.as_f32_mut()
}

/// Checks parameters of `fwht` for a buffer of `len` floats, wherever it lives.
pub(crate) fn fwht_shape(len: usize, p: &FwhtParams) -> Result<(), BackendError> {
    ensure(p.block_log2 <= MAX_BLOCK_LOG2, "block_log2", "0..=27", f64::from(p.block_log2))?;
    ensure(p.scale.is_finite(), "scale", "finite", f64::from(p.scale))?;
    ensure(p.len.is_multiple_of(1 << p.block_log2), "len", "a multiple of 2^block_log2", f64::from(p.len))?;
    length("x", p.len as usize, len)
}

/// Checks buffers of `sum`, but for [`residues`], and returns accumulator and rows.
pub(crate) fn sum<'a>(
    acc: &'a mut Buffer,
    rows: &'a Buffer,
    ring: Ring,
) -> Result<(&'a mut [u32], &'a [u32]), BackendError> {
    sum_shape(acc.len(), rows.len(), ring)?;
    Ok((acc.as_u32_mut()?, rows.as_u32()?))
}

/// Checks ring and lengths of `sum`, wherever the words live.
pub(crate) fn sum_shape(acc: usize, rows: usize, ring: Ring) -> Result<(), BackendError> {
    check_ring(ring)?;
    let whole = if acc == 0 { rows == 0 } else { rows.is_multiple_of(acc) };
    if !whole {
        let expected = rows.next_multiple_of(acc.max(1)) * usize::from(acc != 0);
        return Err(BackendError::WrongLength { what: "rows", expected, found: rows });
    }
    Ok(())
}

/// Checks ring and words of `mask`, but for [`residues`], and returns the words.
pub(crate) fn mask_words(words: &mut Buffer, ring: Ring) -> Result<&mut [u32], BackendError> {
    mask_shape(words.len(), ring)?;
    words.as_u32_mut()
}

/// Checks ring and number of words of `mask`, wherever they live.
pub(crate) fn mask_shape(len: usize, ring: Ring) -> Result<(), BackendError> {
    check_ring(ring)?;
    stream(0, (ring.mask_bytes() as u64).saturating_mul(len as u64))
}

fn check_ring(ring: Ring) -> Result<(), BackendError> {
    match ring {
        Ring::Bits(b) => bits(b),
        Ring::Prime(p) => ensure((2..1 << 31).contains(&p), "prime", "a prime below 2^31", f64::from(p)),
    }
}

/// Checks that numbers mod a prime are reduced; those mod `2^b` need not be.
pub(crate) fn residues(what: &'static str, x: &[u32], ring: Ring) -> Result<(), BackendError> {
    let Ring::Prime(prime) = ring else { return Ok(()) };
    match x.iter().position(|&v| v >= prime) {
        None => Ok(()),
        Some(index) => Err(BackendError::NotBelowPrime { what, index, found: x[index], prime }),
    }
}

/// Checks a buffer and parameters of `decode`, and returns the sum.
pub(crate) fn decode<'a>(sum: &'a Buffer, p: &DecodeParams) -> Result<&'a [u32], BackendError> {
    decode_shape(sum.len(), p)?;
    sum.as_u32()
}

/// Checks parameters of `decode` for a sum of `len` words, wherever it lives.
pub(crate) fn decode_shape(len: usize, p: &DecodeParams) -> Result<(), BackendError> {
    shape(p.dim, p.padded, p.block_log2, p.rotate)?;
    bits(p.bits)?;
    ensure(p.unit.is_finite(), "unit", "finite", f64::from(p.unit))?;
    length("sum", p.padded as usize, len)
}

/// Error that names the first NaN or infinity of a row known to hold one.
pub(super) fn non_finite<T: Real>(row: usize, x: &[T]) -> BackendError {
    let coordinate = x.iter().position(|v| !v.widen().is_finite()).unwrap_or(0);
    BackendError::NonFinite { row, coordinate }
}
