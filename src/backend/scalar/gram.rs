//! `G_ij = <x_i, x_j>` and `D_ij = |x_i - x_j|^2`.

/// `<a, b>` in `f64`: the products of two `f32` are exact there.
#[must_use]
pub fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `|a - b|^2` in `f64`, from the differences.
#[must_use]
pub fn distance2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// The lower triangle of `f` over all pairs, row by row with the diagonal.
#[must_use]
pub fn triangle(rows: &[&[f32]], f: impl Fn(&[f32], &[f32]) -> f64) -> Vec<f64> {
    (0..rows.len()).flat_map(|i| (0..=i).map(move |j| (i, j))).map(|(i, j)| f(rows[i], rows[j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_points_of_the_plane() {
        let rows: [&[f32]; 3] = [&[0.0, 0.0], &[3.0, 4.0], &[3.0, 0.0]];
        assert_eq!(triangle(&rows, product), [0.0, 0.0, 25.0, 0.0, 9.0, 9.0]);
        assert_eq!(triangle(&rows, distance2), [0.0, 25.0, 0.0, 9.0, 16.0, 0.0]);
    }

    #[test]
    fn the_ends_of_f32_neither_overflow_nor_vanish() {
        let (big, tiny) = ([f32::MAX; 4], [1e-45f32; 4]);
        assert_eq!(product(&big, &big), 4.0 * f64::from(f32::MAX).powi(2));
        assert_eq!(product(&tiny, &tiny), 4.0 * 2f64.powi(-298));
    }
}
