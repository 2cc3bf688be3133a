//! L2 clip of rows.
//!
//! One read for the norm, and one read and write for the product where a row exceeds the bound; both at the speed
//! of the memory from the second-level cache on.

use rayon::prelude::*;

use super::fwht::memory::fetch;
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeF64};
use super::samples::Sample;
use super::{FAR, SEGMENT, alone};
use crate::backend::scalar::clip::factor;
use crate::backend::{BackendError, check};
use crate::params::ClipParams;

/// Elements below which a call stays on its thread.
const ALONE: usize = 1 << 16;

/// Elements whose squares are added in one go.
pub(super) const CHUNK: usize = 1 << 12;

/// `|x|^2` in `f64`; NaN or infinite exactly if the row holds a NaN or an infinity, since squares of finite `f32`
/// cannot overflow in `f64`.
///
/// Chunks of 2^12 elements in 16 lanes each, then the chunks in order: the relative error is below
/// `(2^8 + 2^16 + 5) 2^-53` up to 2^28 elements, and neither instruction set nor threads nor the type change a bit.
pub(super) fn energy<T: Sample>(dispatch: Dispatch, x: &[T]) -> f64 {
    let far = x.len() > FAR;
    if alone(x.len(), ALONE) {
        return x.chunks(CHUNK).map(|x| dispatch.run(Energy { x, far })).sum();
    }
    let parts: Vec<f64> = x.par_chunks(CHUNK).map(|x| dispatch.run(Energy { x, far })).collect();
    parts.iter().sum()
}

/// Elements that a sum asks for ahead of itself.
const AHEAD: usize = 1024;

/// The energy of a chunk.
struct Energy<'a, T> {
    x: &'a [T],
    far: bool,
}

impl<T: Sample> Kernel for Energy<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        let mut sums = Squares::<M>::new();
        let (groups, rest) = self.x.as_chunks::<16>();
        for group in groups {
            if self.far {
                fetch(group.as_ptr().wrapping_add(AHEAD));
            }
            sums.add(group);
        }
        let mut last = [T::zeroed(); 16];
        last[..rest.len()].copy_from_slice(rest);
        sums.add(&last);
        sums.total()
    }
}

/// Sums of squares in sixteen lanes, as many registers as they take.
pub(super) struct Squares<M: Machine>([M::NativeF64; 8]);

impl<M: Machine> Squares<M> {
    /// Registers of sixteen lanes.
    const REGISTERS: usize = 16 / M::NativeF64::LANES;

    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([M::NativeF64::splat(0.0); 8])
    }

    /// Adds the square of element i to lane i. The square is exact in `f64`, so that the fused form gives the same bits.
    #[inline(always)]
    pub(super) fn add<T: Sample>(&mut self, x: &[T; 16]) {
        let mut room = [0.0; 16];
        let x = T::floats::<M>(x, &mut room);
        for k in 0..Self::REGISTERS {
            // SAFETY: register k reads LANES floats at LANES k, and LANES REGISTERS = 16.
            let v = unsafe { M::NativeF64::widen(x.as_ptr().add(k * M::NativeF64::LANES)) };
            self.0[k] = v.mul_add(v, self.0[k]);
        }
    }

    /// The sum of the lanes.
    #[inline(always)]
    pub(super) fn total(self) -> f64 {
        let mut lanes = [0f64; 16];
        for k in 0..Self::REGISTERS {
            // SAFETY: as in `add`.
            unsafe { self.0[k].store(lanes.as_mut_ptr().add(k * M::NativeF64::LANES)) };
        }
        let mut width = 8;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// `x_i <- x_i * factor`; the factor and the product are rounded to `f32`.
struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for v in self.x {
            *v *= self.factor;
        }
    }
}

/// The same with a factor that `f32` cannot hold to 24 bits, the product rounded once from `f64`.
struct ScaleWide<'a> {
    x: &'a mut [f32],
    factor: f64,
}

impl Kernel for ScaleWide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for v in self.x {
            *v = (f64::from(*v) * self.factor) as f32;
        }
    }
}

/// `x_i <- x_i * factor`, the factor a normal number.
pub(super) fn scale_all(dispatch: Dispatch, x: &mut [f32], factor: f32) {
    x.par_chunks_mut(SEGMENT).for_each(|x| scale(dispatch, x, f64::from(factor)));
}

/// Multiplies part of a row.
fn scale(dispatch: Dispatch, x: &mut [f32], wide: f64) {
    let factor = wide as f32;
    if factor.is_normal() {
        dispatch.run(Scale { x, factor });
    } else {
        dispatch.run(ScaleWide { x, factor: wide });
    }
}

/// Clips checked rows in place; returns the norms before the clip, at most `f32::MAX` each.
pub(super) fn clip(dispatch: Dispatch, x: &mut [f32], p: &ClipParams) -> Result<Vec<f32>, BackendError> {
    let (stride, dim, rows) = (p.stride as usize, p.dim as usize, p.rows as usize);
    let x = &mut x[..if rows == 0 { 0 } else { (rows - 1) * stride + dim }];
    let alone = alone(x.len(), ALONE);
    let norm = |row: &[f32]| energy(dispatch, &row[..dim]).sqrt();
    let norms: Vec<f64> =
        if alone { x.chunks(stride).map(norm).collect() } else { x.par_chunks(stride).map(norm).collect() };
    if let Some(row) = norms.iter().position(|norm| !norm.is_finite()) {
        return Err(check::non_finite(row, &x[row * stride..row * stride + dim]));
    }
    let clip = |(row, &norm): (&mut [f32], &f64)| {
        let factor = factor(norm, f64::from(p.bound));
        if factor == 1.0 {
            return;
        }
        if alone {
            scale(dispatch, &mut row[..dim], factor);
        } else {
            row[..dim].par_chunks_mut(SEGMENT).for_each(|x| scale(dispatch, x, factor));
        }
    };
    if alone {
        x.chunks_mut(stride).zip(&norms).for_each(clip);
    } else {
        x.par_chunks_mut(stride).zip(&norms).for_each(clip);
    }
    Ok(norms.into_iter().map(|norm| norm.min(f64::from(f32::MAX)) as f32).collect())
}
