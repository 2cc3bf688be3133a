//! The float half of `encode` on one row, as prologue and epilogue of the transform: scale and signs when the
//! row is first read, truncation to fixed point, clamp and exact norm when it is last written.

use rayon::prelude::*;

use super::integer::{Limits, Meter, Seen};
use super::mixed;
use crate::backend::simd::fwht::hooks::{InPlace, Load, Store};
use crate::backend::simd::isa::Dispatch;
use crate::backend::simd::lanes::{Floats, Machine, Words};
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

/// Fixed-point coordinates of a finite row in `out`, as the bits of `i32`, clamped to `linf`; what the clamp saw;
/// and the ratio of the mixed clip.
pub(super) fn row(
    dispatch: Dispatch,
    row: &[f32],
    p: &EncodeParams,
    signs: &[u8],
    scale: &Scale,
    clamp: bool,
    out: &mut [u32],
) -> (Seen, f64) {
    let x: &mut [f32] = bytemuck::cast_slice_mut(out);
    let rotate = p.rotate == 1;
    let block_log2 = if rotate { p.block_log2 } else { 0 };
    let load = Prologue { row, factor: scale.factor, signs: rotate.then_some(signs) };
    let limits = if clamp { Limits::new(p) } else { Limits::none() };
    match scale.mixed {
        None => (fwht::fused(dispatch, x, block_log2, &load, &Epilogue { unit: 1.0, limits }), 1.0),
        Some((bound, unit)) => {
            fwht::fused(dispatch, x, block_log2, &load, &InPlace);
            let ratio = mixed::clip(dispatch, x, bound);
            (fwht::fused(dispatch, x, 0, &InPlace, &Epilogue { unit, limits }), ratio)
        }
    }
}

/// `f32(x_j factor)` with the sign of coordinate j flipped where its bit is set; zeros behind the row.
struct Prologue<'a> {
    row: &'a [f32],
    factor: f64,
    /// Two bytes a group.
    signs: Option<&'a [u8]>,
}

impl Load for Prologue<'_> {
    #[inline(always)]
    fn load<M: Machine>(&self, group: usize, _: &[f32; 16]) -> M::F {
        let at = 16 * group;
        let v = match self.row.get(at..at + 16).and_then(|x| x.as_array()) {
            Some(x) => M::F::load(x),
            None => {
                let mut x = [0.0; 16];
                let rest = self.row.get(at..).unwrap_or(&[]);
                x[..rest.len()].copy_from_slice(rest);
                M::F::load(&x)
            }
        };
        let v = v.scale_wide(self.factor);
        match self.signs.and_then(|bytes| bytes.get(2 * group..)).and_then(|bytes| bytes.first_chunk()) {
            Some(&bits) => v.flip(u32::from(u16::from_le_bytes(bits))),
            None => v,
        }
    }

    fn source(&self) -> Option<*const f32> {
        Some(self.row.as_ptr())
    }
}

/// Truncates `x unit` toward zero, saturating, clamps, and adds to the norm.
struct Epilogue {
    unit: f32,
    limits: Limits,
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
        let fixed = v.mul(M::F::splat(self.unit)).truncate();
        meter.bound(fixed, self.limits).store(bytemuck::cast_mut(here));
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, meter: Meter<M>) -> Seen {
        meter.seen()
    }

    fn merge(a: Seen, b: Seen) -> Seen {
        a.merge(b)
    }
}
