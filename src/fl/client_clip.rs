//! The clip that a client applies itself, before `encode`: where its row is scaled or gets a coordinate more afterwards. The exact bound is
//! held by `encode`.

use super::FlError;
use crate::backend::{EncodeReport, Rows};

/// Rows on the host as `put(place, row, ratio, out)` writes them, `dim` values each, `ratio = min(1, clip / |row|)`; and what the clip did.
/// A row with NaN or an infinity becomes NaN, for `encode` to see.
///
/// # Errors
/// Rows that are not on the host.
pub(super) fn clip(
    rows: &Rows,
    clip: f64,
    dim: usize,
    mut put: impl FnMut(usize, &[f32], f64, &mut Vec<f32>),
) -> Result<(Rows, EncodeReport), FlError> {
    let (mut out, mut report) = (Vec::with_capacity(rows.rows * dim), EncodeReport::default());
    for i in 0..rows.rows {
        let row = rows.widened(i)?;
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            out.resize(out.len() + dim, f32::NAN);
            continue;
        }
        let within = norm <= clip;
        let ratio = if within { 1.0 } else { clip / norm };
        put(i, &row, ratio, &mut out);
        report.norm_sum += norm;
        report.clip_ratio_sum += ratio;
        report.clipped += usize::from(!within);
    }
    Ok((Rows::dense(out, rows.rows, dim)?, report))
}
