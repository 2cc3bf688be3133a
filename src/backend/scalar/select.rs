//! Median and trimmed mean of every coordinate.

/// The values of one coordinate in ascending order; -0 counts as 0.
#[must_use]
pub fn sorted(rows: &[&[f32]], coordinate: usize) -> Vec<f32> {
    let mut values: Vec<f32> = rows.iter().map(|row| row[coordinate] + 0.0).collect();
    values.sort_by(f32::total_cmp);
    values
}

/// The middle value, or half the sum of the two middle ones, rounded once (in `f64` the sum is exact unless one
/// of the two is too small to matter).
#[must_use]
pub fn median(sorted: &[f32]) -> f32 {
    let n = sorted.len();
    ((f64::from(sorted[(n - 1) / 2]) + f64::from(sorted[n / 2])) / 2.0) as f32
}

/// The mean of all but the `trim` least and the `trim` greatest values: summed in ascending order in `f64`,
/// divided, rounded to `f32`.
#[must_use]
pub fn trimmed_mean(sorted: &[f32], trim: usize) -> f32 {
    let kept = &sorted[trim..sorted.len() - trim];
    (kept.iter().fold(0.0, |sum, &v| sum + f64::from(v)) / kept.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables() {
        let rows: [&[f32]; 4] = [&[4.0, -0.0], &[1.0, 0.0], &[100.0, -0.0], &[2.0, -0.0]];
        assert_eq!(sorted(&rows, 0), [1.0, 2.0, 4.0, 100.0]);
        assert_eq!((median(&sorted(&rows, 0)), median(&[1.0, 2.0, 9.0]), median(&[5.0])), (3.0, 2.0, 5.0));
        assert_eq!(median(&sorted(&rows, 1)).to_bits(), 0);
        assert_eq!(trimmed_mean(&sorted(&rows, 0), 1), 3.0);
        assert_eq!(trimmed_mean(&sorted(&rows, 0), 0), 26.75);
        assert_eq!(median(&[f32::MAX, f32::MAX]), f32::MAX);
    }
}
