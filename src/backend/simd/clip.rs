//! L2 clip of rows.
//!
//! One read for the norm, and one read and write for the product where a row exceeds the bound; both at the speed
//! of the memory from the second-level cache on.

use rayon::prelude::*;

use super::fwht::memory::fetch;
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeF64};
use super::samples::Sample;
use super::{FAR, SEGMENT};
use crate::backend::scalar::clip::factor;
use crate::backend::{BackendError, check};
use crate::params::ClipParams;

/// Elements below which a call stays on its thread.
const ALONE: usize = 1 << 16;

/// `|x|^2` in `f64`; NaN or infinite exactly if the row holds a NaN or an infinity, since squares of finite `f32`
/// cannot overflow in `f64`.
///
/// Segments of 2^14 elements in 32 lanes each, then the segments in order: the relative error is below
/// `(2^9 + 2^13 + 6) 2^-53` up to 2^27 elements, and neither instruction set nor threads nor the type change a bit.
pub(super) fn energy<T: Sample>(dispatch: Dispatch, x: &[T]) -> f64 {
    let far = x.len() > FAR;
    if x.len() <= ALONE {
        return x.chunks(SEGMENT).map(|x| dispatch.run(Energy { x, far })).sum();
    }
    let parts: Vec<f64> = x.par_chunks(SEGMENT).map(|x| dispatch.run(Energy { x, far })).collect();
    parts.iter().sum()
}

/// Elements that a sum asks for ahead of itself.
const AHEAD: usize = 1024;

/// Sum of squares in 32 fixed lanes.
struct Energy<'a, T> {
    x: &'a [T],
    far: bool,
}

impl<T: Sample> Kernel for Energy<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        let (mut lanes, mut room) = ([0f64; 32], [0f32; 32]);
        let (groups, rest) = self.x.as_chunks::<32>();
        let step = 4 * M::NativeF64::LANES;
        let mut at = 0;
        while at < 32 {
            // Four registers at a time, their part of every group: all of it where a register has eight lanes.
            let [mut a, mut b, mut c, mut d] = [M::NativeF64::splat(0.0); 4];
            for group in groups {
                if self.far {
                    fetch(group.as_ptr().wrapping_add(AHEAD));
                    fetch(group.as_ptr().wrapping_add(AHEAD + 16));
                }
                let x = &T::floats::<M>(group, &mut room)[at..at + step];
                a = add_square(a, x, 0);
                b = add_square(b, x, 1);
                c = add_square(c, x, 2);
                d = add_square(d, x, 3);
            }
            for (k, sums) in [a, b, c, d].into_iter().enumerate() {
                let lanes = &mut lanes[at + k * M::NativeF64::LANES..][..M::NativeF64::LANES];
                // SAFETY: the slice has that many elements.
                unsafe { sums.store(lanes.as_mut_ptr()) };
            }
            at += step;
        }
        for (lane, &v) in lanes.iter_mut().zip(rest) {
            let v = f64::from(v.widen());
            *lane += v * v;
        }
        let mut width = 16;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// `sum + v^2`, v register k of `x`. The square is exact in `f64`, so that the fused form gives the same bits.
#[inline(always)]
fn add_square<N: NativeF64>(sum: N, x: &[f32], k: usize) -> N {
    let v = &x[k * N::LANES..][..N::LANES];
    // SAFETY: the slice has that many elements.
    let v = unsafe { N::widen(v.as_ptr()) };
    v.mul_add(v, sum)
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
    let alone = x.len() <= ALONE;
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
