//! The clip of the mixed norm `v(x) = f^2 + (2f + 1) p`, x with integer part f and fraction p, on floats.

use rayon::prelude::*;

use crate::backend::simd::SEGMENT;
use crate::backend::simd::isa::{Dispatch, Kernel};
use crate::backend::simd::lanes::Machine;

/// The mixed clip in place; returns its ratio (see `scalar::encode::mixed_clip`).
pub(super) fn clip(dispatch: Dispatch, x: &mut [f32], c: f64) -> f64 {
    let parts: Vec<f64> = x.par_chunks(SEGMENT).map(|x| dispatch.run(Norm(x))).collect();
    let total: f64 = parts.iter().sum();
    let ratio = if total > c { c / total } else { 1.0 };
    if ratio < 1.0 {
        x.par_chunks_mut(SEGMENT).for_each(|x| dispatch.run(Shrink { x, ratio }));
    }
    ratio
}

/// `v(x) = f^2 + (2f + 1) p`.
#[inline(always)]
fn value(x: f32) -> f64 {
    let a = f64::from(x.abs());
    let f = a.floor();
    f * f + (2.0 * f + 1.0) * (a - f)
}

struct Norm<'a>(&'a [f32]);

impl Kernel for Norm<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        let mut lanes = [0f64; 16];
        let (groups, rest) = self.0.as_chunks::<16>();
        for group in groups {
            for (lane, &v) in lanes.iter_mut().zip(group) {
                *lane += value(v);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(rest) {
            *lane += value(v);
        }
        lanes.iter().sum()
    }
}

struct Shrink<'a> {
    x: &'a mut [f32],
    ratio: f64,
}

impl Kernel for Shrink<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for x in self.x {
            let w = self.ratio * value(*x);
            let f = w.sqrt().floor();
            *x = ((f + (w - f * f) / (1.0 + 2.0 * f)) as f32).copysign(*x);
        }
    }
}
