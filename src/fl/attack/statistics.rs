//! Moments of honest vectors, in `f64`.

use super::AttackError;
use crate::backend::{BackendError, Rows};

/// The mean of every coordinate. Error: NaN or an infinity.
pub(super) fn mean(rows: &Rows) -> Result<Vec<f64>, AttackError> {
    let mut mean = vec![0f64; rows.dim];
    for i in 0..rows.rows {
        mean.iter_mut().zip(rows.row(i)?).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    mean.iter_mut().for_each(|v| *v /= rows.rows as f64);
    if mean.iter().all(|v| v.is_finite()) {
        return Ok(mean);
    }
    for row in 0..rows.rows {
        if let Some(coordinate) = rows.row(row)?.iter().position(|v| !v.is_finite()) {
            return Err(BackendError::NonFinite { row, coordinate }.into());
        }
    }
    Ok(mean)
}

/// The standard deviation of every coordinate, by n - 1; zero for a single row.
pub(super) fn std(rows: &Rows, mean: &[f64]) -> Result<Vec<f64>, AttackError> {
    let mut squares = vec![0f64; rows.dim];
    for i in 0..rows.rows {
        let gaps = rows.row(i)?.iter().zip(mean).map(|(&v, m)| f64::from(v) - m);
        squares.iter_mut().zip(gaps).for_each(|(sum, gap)| *sum += gap * gap);
    }
    let degrees = rows.rows.saturating_sub(1).max(1) as f64;
    Ok(squares.into_iter().map(|s| (s / degrees).sqrt()).collect())
}

/// `mean + factor direction`, rounded once.
pub(super) fn shifted(mean: &[f64], factor: f64, direction: &[f64]) -> Vec<f32> {
    mean.iter().zip(direction).map(|(m, p)| (m + factor * p) as f32).collect()
}
