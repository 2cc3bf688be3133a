//! What `gram`, `median`, `trimmed_mean` and the ghost verbs refuse.

use super::{ensure, length, strided};
use crate::backend::{BackendError, Buffer, Rows};
use crate::params::GhostParams;

/// Checks the rows of `gram`, and returns them as slices of `dim` floats.
pub(crate) fn gram(rows: &Rows) -> Result<Vec<&[f32]>, BackendError> {
    rows.buffer.as_f32()?;
    gram_shape(rows)?;
    slices(rows)
}

/// Checks the shape of the rows of `gram`, wherever they live.
pub(crate) fn gram_shape(rows: &Rows) -> Result<(), BackendError> {
    ensure((1..=1 << 11).contains(&rows.rows), "rows", "1..=2^11", rows.rows as f64)?;
    shape(rows)
}

/// Checks the rows of `median`, likewise; their indices are 16 bits wide in the kernel.
pub(crate) fn median(rows: &Rows) -> Result<Vec<&[f32]>, BackendError> {
    rows.buffer.as_f32()?;
    select_shape(rows)?;
    slices(rows)
}

/// Checks the shape of the rows of `median`, wherever they live.
pub(crate) fn select_shape(rows: &Rows) -> Result<(), BackendError> {
    ensure((1..=1 << 15).contains(&rows.rows), "rows", "1..=2^15", rows.rows as f64)?;
    shape(rows)
}

fn shape(rows: &Rows) -> Result<(), BackendError> {
    ensure(rows.dim >= 1, "dim", "at least 1", rows.dim as f64)?;
    strided(rows.buffer.len(), rows.offset, rows.stride, rows.rows, rows.dim)
}

/// Error of the value that is not finite at `place = row dim + coordinate`.
pub(crate) fn non_finite_at(rows: &Rows, place: u32) -> BackendError {
    BackendError::NonFinite { row: place as usize / rows.dim, coordinate: place as usize % rows.dim }
}

fn slices(rows: &Rows) -> Result<Vec<&[f32]>, BackendError> {
    (0..rows.rows).map(|i| rows.row(i)).collect()
}

/// Checks rows and trim of `trimmed_mean`.
pub(crate) fn trimmed(rows: &Rows, trim: usize) -> Result<Vec<&[f32]>, BackendError> {
    let slices = median(rows)?;
    self::trim(rows.rows, trim)?;
    Ok(slices)
}

/// Checks that `trim` leaves one of `rows` rows.
pub(crate) fn trim(rows: usize, trim: usize) -> Result<(), BackendError> {
    ensure(trim < rows.div_ceil(2), "trim", "less than half the rows", trim as f64)
}

/// Error that names the first row with a NaN or an infinity, if there is one.
pub(crate) fn finite_rows(rows: &[&[f32]]) -> Result<(), BackendError> {
    match rows.iter().position(|row| row.iter().any(|v| !v.is_finite())) {
        Some(i) => Err(super::non_finite(i, rows[i])),
        None => Ok(()),
    }
}

/// Most parameters of one layer.
const MAX_GRADIENT: f64 = (1u64 << 31) as f64;

/// Checks buffers and parameters of the ghost verbs, and returns activations and output gradients.
pub(crate) fn ghost<'a>(
    activations: &'a Buffer,
    gradients: &'a Buffer,
    p: &GhostParams,
) -> Result<(&'a [f32], &'a [f32]), BackendError> {
    ghost_parameters(p)?;
    let (activations, gradients) = (activations.as_f32()?, gradients.as_f32()?);
    ghost_shape(activations.len(), gradients.len(), p)?;
    Ok((activations, gradients))
}

/// Checks parameters of the ghost verbs and the lengths of their buffers, wherever they live.
pub(crate) fn ghost_shape(activations: usize, gradients: usize, p: &GhostParams) -> Result<(), BackendError> {
    ghost_parameters(p)?;
    length("activations", elements(p, p.inputs)?, activations)?;
    length("gradients", elements(p, p.outputs)?, gradients)
}

fn ghost_parameters(p: &GhostParams) -> Result<(), BackendError> {
    for (name, value) in [("positions", p.positions), ("inputs", p.inputs), ("outputs", p.outputs)] {
        ensure(value >= 1, name, "at least 1", f64::from(value))?;
    }
    ensure(p.bias <= 1, "bias", "0 or 1", f64::from(p.bias))?;
    let gradient = (f64::from(p.inputs) + f64::from(p.bias)) * f64::from(p.outputs);
    ensure(gradient <= MAX_GRADIENT, "(inputs + bias) * outputs", "at most 2^31", gradient)
}

/// `samples * positions * width`, if memory can hold as much.
fn elements(p: &GhostParams, width: u32) -> Result<usize, BackendError> {
    let positions = u64::from(p.samples) * u64::from(p.positions);
    let total = positions.checked_mul(u64::from(width)).and_then(|n| usize::try_from(n).ok());
    total.ok_or(BackendError::OutOfRange {
        name: "samples * positions * width",
        expected: "less than 2^63",
        found: positions as f64 * f64::from(width),
    })
}

/// Checks the coefficients of `ghost_sum`.
pub(crate) fn coefficients(coefficients: &[f32], p: &GhostParams) -> Result<(), BackendError> {
    length("coefficients", p.samples as usize, coefficients.len())?;
    match coefficients.iter().find(|c| !c.is_finite()) {
        Some(&c) => Err(BackendError::OutOfRange { name: "coefficient", expected: "finite", found: f64::from(c) }),
        None => Ok(()),
    }
}

/// Error that names the first sample with a NaN or an infinity in its activations, then in its output
/// gradients; the coordinate counts inside the sample, the output gradients after the activations.
pub(crate) fn finite_samples(activations: &[f32], gradients: &[f32], p: &GhostParams) -> Result<(), BackendError> {
    let (a, g) = (p.positions as usize * p.inputs as usize, p.positions as usize * p.outputs as usize);
    for (row, (activations, gradients)) in activations.chunks_exact(a).zip(gradients.chunks_exact(g)).enumerate() {
        if let Some(coordinate) = activations.iter().chain(gradients).position(|v| !v.is_finite()) {
            return Err(BackendError::NonFinite { row, coordinate });
        }
    }
    Ok(())
}

/// Error if a sum of finite terms has left the range of `f32`.
pub(crate) fn within_f32(sum: &[f32]) -> Result<(), BackendError> {
    match sum.iter().find(|v| !v.is_finite()) {
        Some(&v) => {
            Err(BackendError::OutOfRange { name: "sum", expected: "at most the largest f32", found: f64::from(v) })
        }
        None => Ok(()),
    }
}
