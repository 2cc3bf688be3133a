//! The float half of `encode` on one row, as prologue and epilogue of the transform: scale and signs when the
//! row is first read, truncation to fixed point, clamp and exact norm when it is last written.

use rayon::prelude::*;

use super::integer::{self, Meter, Seen};
use super::mixed;
use crate::backend::simd::fwht::hooks::{InPlace, Load, Store};
use crate::backend::simd::isa::Dispatch;
use crate::backend::simd::lanes::{Floats, Machine, Words};
use crate::backend::simd::samples::Sample;
use crate::backend::simd::{SEGMENT, fwht, keystream};
use crate::math::prg::StreamKey;
use crate::params::EncodeParams;

/// The sign bits of `len` coordinates, eight a byte.
pub(in crate::backend::simd) fn sign_bytes(dispatch: Dispatch, key: &StreamKey, len: usize) -> Vec<u8> {
    // Whole groups of sixteen coordinates, so that a group's bits are one read.
    let mut bytes = vec![0u8; len.div_ceil(16) * 2];
    if bytes.len() <= SEGMENT {
        keystream::fill(dispatch, key, 0, &mut bytes);
    } else {
        let parts = bytes.par_chunks_mut(SEGMENT).enumerate();
        parts.for_each(|(i, part)| keystream::fill(dispatch, key, (i * SEGMENT) as u64, part));
    }
    bytes
}

/// What a row is multiplied by, and what else happens to it in floats.
pub(super) struct Scale {
    /// `min(1, C / |x|) gamma 2^(-k/2)`, and `2^F` unless the clip is the mixed one.
    pub(super) factor: f64,
    /// The bound of the mixed clip and `2^F`, if that is the clip.
    pub(super) mixed: Option<(f64, f32)>,
}

/// Fixed-point coordinates of a finite row in `out`, as the bits of `i32`, clamped to `linf` if the words are to
/// follow; what the clamp saw; and the ratio of the mixed clip.
pub(super) fn row<T: Sample>(
    dispatch: Dispatch,
    row: &[T],
    p: &EncodeParams,
    signs: &[u8],
    scale: &Scale,
    clamp: bool,
    out: &mut [u32],
) -> (Seen, f64) {
    // A factor that is no normal f32 (of a norm near the ends of the range) leaves 2^64 to the row.
    let shift = match scale.factor {
        f if f < f64::from(f32::MIN_POSITIVE) => -64,
        f if f > f64::from(f32::MAX) => 64,
        _ => 0,
    };
    if shift == 0 {
        return transformed(dispatch, row, p, signs, scale, clamp, out);
    }
    let unit = 2f32.powi(shift);
    let shifted: Vec<f32> = row.iter().map(|v| v.widen() * unit).collect();
    let scale = Scale { factor: scale.factor / f64::from(unit), mixed: scale.mixed };
    transformed(dispatch, &shifted, p, signs, &scale, clamp, out)
}

/// [`row`] with a factor that is a normal number in `f32`.
fn transformed<T: Sample>(
    dispatch: Dispatch,
    row: &[T],
    p: &EncodeParams,
    signs: &[u8],
    scale: &Scale,
    clamp: bool,
    out: &mut [u32],
) -> (Seen, f64) {
    let x: &mut [f32] = bytemuck::cast_slice_mut(out);
    let block_log2 = if p.rotate == 1 { p.block_log2 } else { 0 };
    let load = Prologue::new(row, scale.factor as f32, signs);
    let Some((bound, unit)) = scale.mixed else {
        let linf = if clamp { p.linf } else { u32::MAX };
        return (fwht::fused(dispatch, x, block_log2, &load, &Epilogue { linf }), 1.0);
    };
    fwht::fused(dispatch, x, block_log2, &load, &InPlace);
    let ratio = mixed::clip(dispatch, x, bound);
    fwht::fused(dispatch, x, 0, &InPlace, &Truncate { unit });
    (if clamp { integer::bound(dispatch, out, p) } else { Seen::default() }, ratio)
}

/// `x_j factor` with the sign of coordinate j flipped where its bit is set; zeros behind the row.
///
/// The factor and the product round once each. No branch and no call stands in the way of the registers: a group
/// comes from the row, from a copy of its end, or from zeros, by address.
struct Prologue<'a, T> {
    /// The whole groups of the row.
    row: &'a [[T; 16]],
    /// What is left of the row behind them, then zeros.
    last: [T; 16],
    zeros: [T; 16],
    factor: f32,
    /// Two bytes a group; none that are missing is set.
    signs: &'a [[u8; 2]],
}

impl<'a, T: Sample> Prologue<'a, T> {
    fn new(row: &'a [T], factor: f32, signs: &'a [u8]) -> Self {
        let zeros = [T::zeroed(); 16];
        let mut last = zeros;
        let (whole, rest) = row.as_chunks::<16>();
        last[..rest.len()].copy_from_slice(rest);
        Self { row: whole, last, zeros, factor, signs: signs.as_chunks().0 }
    }
}

impl<T: Sample> Load for Prologue<'_, T> {
    #[inline(always)]
    fn load<M: Machine>(&self, group: usize, _: &[f32; 16]) -> M::F {
        let behind = if group == self.row.len() { &self.last } else { &self.zeros };
        let v = T::load::<M>(self.row.get(group).unwrap_or(behind)).mul(M::F::splat(self.factor));
        let bits = *self.signs.get(group).unwrap_or(&[0; 2]);
        v.flip(u32::from(u16::from_le_bytes(bits)))
    }

    fn source(&self) -> Option<(*const u8, usize)> {
        Some((self.row.as_ptr().cast(), size_of::<[T; 16]>()))
    }
}

/// Truncates toward zero, saturating, clamps, and adds to the plain norm.
struct Epilogue {
    linf: u32,
}

impl Store for Epilogue {
    type Seen = Seen;
    type Registers<M: Machine> = Meter<M>;

    #[inline(always)]
    fn start<M: Machine>(&self) -> Meter<M> {
        Meter::new()
    }

    #[inline(always)]
    fn store<M: Machine>(&self, meter: &mut Meter<M>, _: usize, v: M::F, here: &mut [f32; 16]) {
        meter.plain(v.truncate(), self.linf).store(bytemuck::cast_mut(here));
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, meter: Meter<M>) -> Seen {
        meter.seen()
    }

    fn merge(a: Seen, b: Seen) -> Seen {
        a.merge(b)
    }
}

/// Truncates `x unit` toward zero, saturating.
struct Truncate {
    unit: f32,
}

impl Store for Truncate {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), _: usize, v: M::F, here: &mut [f32; 16]) {
        v.mul(M::F::splat(self.unit)).truncate().store(bytemuck::cast_mut(here));
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}
