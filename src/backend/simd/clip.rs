//! L2 clip of rows.

use rayon::prelude::*;

use super::SEGMENT;
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use crate::backend::scalar::clip::factor;
use crate::backend::{BackendError, check};
use crate::params::ClipParams;

/// `|x|^2` in `f64`; NaN or infinite exactly if the row holds a NaN or an infinity, since squares of
/// finite `f32` cannot overflow in `f64`.
pub(super) fn energy(dispatch: Dispatch, x: &[f32]) -> f64 {
    if x.len() <= SEGMENT {
        return dispatch.run(Energy(x));
    }
    let parts: Vec<f64> = x.par_chunks(SEGMENT).map(|part| dispatch.run(Energy(part))).collect();
    parts.iter().sum()
}

/// Sum of squares in 32 fixed lanes.
struct Energy<'a>(&'a [f32]);

impl Kernel for Energy<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Machine>(self) -> f64 {
        let mut lanes = [0f64; 32];
        let (groups, rest) = self.0.as_chunks::<32>();
        for group in groups {
            for (lane, &v) in lanes.iter_mut().zip(group) {
                *lane += f64::from(v) * f64::from(v);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(v) * f64::from(v);
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

/// `x_i <- x_i * factor`, the product rounded once from `f64`.
struct Scale<'a> {
    x: &'a mut [f32],
    factor: f64,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for v in self.x {
            *v = (f64::from(*v) * self.factor) as f32;
        }
    }
}

/// Clips checked rows in place; returns the norms before the clip, at most `f32::MAX` each.
pub(super) fn clip(dispatch: Dispatch, x: &mut [f32], p: &ClipParams) -> Result<Vec<f32>, BackendError> {
    let (stride, dim, rows) = (p.stride as usize, p.dim as usize, p.rows as usize);
    let x = &mut x[..if rows == 0 { 0 } else { (rows - 1) * stride + dim }];
    let norms: Vec<f64> = x.par_chunks(stride).map(|row| energy(dispatch, &row[..dim]).sqrt()).collect();
    if let Some(row) = norms.iter().position(|norm| !norm.is_finite()) {
        return Err(check::non_finite(row, &x[row * stride..row * stride + dim]));
    }
    x.par_chunks_mut(stride).zip(&norms).for_each(|(row, &norm)| {
        let factor = factor(norm, f64::from(p.bound));
        row[..dim].par_chunks_mut(SEGMENT).for_each(|x| dispatch.run(Scale { x, factor }));
    });
    Ok(norms.into_iter().map(|norm| norm.min(f64::from(f32::MAX)) as f32).collect())
}
