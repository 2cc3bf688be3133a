//! What `gram` returns.

/// Inner products and squared distances of n rows, both exact on ties: equal rows are at distance 0.
///
/// The two are kept apart because a distance taken from inner products loses its digits when two rows are
/// much closer to each other than to the origin; see [`Backend::gram`](super::Backend::gram) for the bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Gram {
    n: usize,
    products: Vec<f64>,
    distances: Vec<f64>,
}

impl Gram {
    /// From the lower triangles, row by row with the diagonal: entry `(i, j <= i)` at `i (i + 1) / 2 + j`.
    pub(super) fn from_triangles(n: usize, products: &[f64], distances: &[f64]) -> Self {
        let square = |triangle: &[f64]| {
            let mut all = vec![0f64; n * n];
            for i in 0..n {
                for j in 0..=i {
                    all[i * n + j] = triangle[i * (i + 1) / 2 + j];
                    all[j * n + i] = triangle[i * (i + 1) / 2 + j];
                }
            }
            all
        };
        Self { n, products: square(products), distances: square(distances) }
    }

    /// Number of rows.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.n
    }

    /// `<x_i, x_j>` for all pairs, row by row.
    #[must_use]
    pub fn products(&self) -> &[f64] {
        &self.products
    }

    /// `|x_i - x_j|^2` for all pairs, row by row.
    #[must_use]
    pub fn distances2(&self) -> &[f64] {
        &self.distances
    }

    /// `<x_i, x_j>`. Panics if an index is `n` or more.
    #[must_use]
    pub fn product(&self, i: usize, j: usize) -> f64 {
        self.products[i * self.n..(i + 1) * self.n][j]
    }

    /// `|x_i - x_j|^2`; `i == j` gives 0. Panics if an index is `n` or more.
    #[must_use]
    pub fn distance2(&self, i: usize, j: usize) -> f64 {
        self.distances[i * self.n..(i + 1) * self.n][j]
    }

    /// `<x_i - m, x_j - m>` with m the mean of the rows, row by row:
    /// `-1/2 (D_ij - mean_k D_ik - mean_k D_kj + mean_kl D_kl)` of the squared distances D, so that a large
    /// common part of the rows costs no digits.
    #[must_use]
    pub fn centered(&self) -> Vec<f64> {
        let n = self.n;
        let means: Vec<f64> =
            (0..n).map(|i| self.distances[i * n..(i + 1) * n].iter().sum::<f64>() / n as f64).collect();
        let mean = means.iter().sum::<f64>() / n.max(1) as f64;
        let entry = |i: usize, j: usize| -0.5 * (self.distances[i * n + j] - (means[i] + means[j]) + mean);
        (0..n * n).map(|k| entry(k / n, k % n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows (0), (3), (6): mean 3.
    #[test]
    fn centered_products_of_three_numbers() {
        let gram = Gram::from_triangles(3, &[0.0, 0.0, 9.0, 0.0, 18.0, 36.0], &[0.0, 9.0, 0.0, 36.0, 9.0, 0.0]);
        assert_eq!(gram.centered(), [9.0, 0.0, -9.0, 0.0, 0.0, 0.0, -9.0, 0.0, 9.0]);
        assert_eq!((gram.n(), gram.product(1, 2), gram.distance2(0, 2)), (3, 18.0, 36.0));
    }
}
