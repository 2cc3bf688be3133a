//! `x_i <- x_i * min(1, C / |x_i|_2)`.

use super::{BackendError, check};
use crate::params::ClipParams;

/// `|x|_2`, accumulated in `f64`: squares of `f32` cannot overflow there.
#[must_use]
pub fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

/// `min(1, bound / norm)`, and 1 for a zero vector.
#[must_use]
pub fn factor(norm: f64, bound: f64) -> f64 {
    if norm > bound { bound / norm } else { 1.0 }
}

/// Clips checked rows in place; returns the norms before the clip, at most `f32::MAX` each.
///
/// # Errors
/// [`BackendError::NonFinite`] before anything is written.
pub fn clip(x: &mut [f32], p: &ClipParams) -> Result<Vec<f32>, BackendError> {
    let (stride, dim) = (p.stride as usize, p.dim as usize);
    let rows = p.rows as usize;
    for i in 0..rows {
        let row = &x[i * stride..i * stride + dim];
        if row.iter().any(|v| !v.is_finite()) {
            return Err(check::non_finite(i, row));
        }
    }
    let mut norms = Vec::with_capacity(rows);
    for i in 0..rows {
        let row = &mut x[i * stride..i * stride + dim];
        let before = norm(row);
        let factor = factor(before, f64::from(p.bound));
        for v in row {
            *v = (f64::from(*v) * factor) as f32;
        }
        norms.push(before.min(f64::from(f32::MAX)) as f32);
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_four_five() {
        let mut x = [3.0, 4.0, 9.0, 0.3, 0.4, 9.0];
        let p = ClipParams { rows: 2, dim: 2, stride: 3, bound: 1.0 };
        assert_eq!(clip(&mut x, &p).unwrap(), [5.0, 0.5]);
        assert_eq!(x, [0.6, 0.8, 9.0, 0.3, 0.4, 9.0]);
    }

    #[test]
    fn a_norm_above_the_largest_float_is_clipped_all_the_same() {
        let mut x = [f32::MAX; 4];
        let p = ClipParams { rows: 1, dim: 4, stride: 4, bound: 1.0 };
        assert_eq!(clip(&mut x, &p).unwrap(), [f32::MAX]);
        assert_eq!(x, [0.5; 4]);
    }
}
