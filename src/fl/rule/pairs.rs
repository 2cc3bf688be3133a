//! Inner products and distances of all pairs, carried through linear maps of the vectors.

use rayon::prelude::*;

use super::mixing::Mixing;
use crate::backend::Gram;

/// A distance below this share of `|v|^2 + |w|^2` is taken from the distances of what was mixed: above it, the
/// subtraction of inner products leaves all but 16 of the 53 bits. The same share as in the kernel.
const CLOSE: f64 = 1.0 / (1u64 << 16) as f64;

/// Inner products and squared distances of n vectors.
///
/// Rules whose aggregate is a combination `sum_k c_k x_k` need nothing else to find the c_k: they work on these n x n
/// numbers, and the vectors are read twice, by the kernel `gram` and for the sum.
#[derive(Clone, Debug)]
pub struct Pairs {
    n: usize,
    products: Vec<f64>,
    distances2: Vec<f64>,
}

impl Pairs {
    /// What the kernel found.
    pub(super) fn of(gram: &Gram) -> Self {
        Self { n: gram.n(), products: gram.products().to_vec(), distances2: gram.distances2().to_vec() }
    }

    /// Number of vectors.
    #[must_use]
    pub const fn n(&self) -> usize {
        self.n
    }

    /// `<v_i, v_j>`. Panics if an index is n or more.
    #[must_use]
    pub fn product(&self, i: usize, j: usize) -> f64 {
        self.products[i * self.n..(i + 1) * self.n][j]
    }

    /// `|v_i - v_j|^2` for all j. Panics if i is n or more.
    #[must_use]
    pub fn distances2(&self, i: usize) -> &[f64] {
        &self.distances2[i * self.n..(i + 1) * self.n]
    }

    /// The least and the indices of the vectors nearest to vector i, itself among them: in ascending order of distance, of
    /// equal ones the lowest index first.
    #[must_use]
    pub fn nearest(&self, i: usize, count: usize) -> Vec<usize> {
        let distances = self.distances2(i);
        let mut order: Vec<usize> = (0..self.n).collect();
        order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
        order.truncate(count);
        order
    }

    /// The same with one vector p more, as the last: `<v_i, p>`, `|v_i - p|^2`, `|p|^2`.
    pub(super) fn with_point(&self, products: &[f64], distances2: &[f64], norm2: f64) -> Self {
        let bordered = |old: &[f64], border: &[f64], corner: f64| {
            let mut all = Vec::with_capacity((self.n + 1) * (self.n + 1));
            for (row, &last) in old.chunks_exact(self.n).zip(border) {
                all.extend_from_slice(row);
                all.push(last);
            }
            all.extend_from_slice(border);
            all.push(corner);
            all
        };
        Self {
            n: self.n + 1,
            products: bordered(&self.products, products, norm2),
            distances2: bordered(&self.distances2, distances2, 0.0),
        }
    }

    /// Those of the mixed vectors `w_a = sum_i M_ai v_i`.
    ///
    /// Products are `P = M G M^T`. A distance is `P_aa + P_bb - 2 P_ab` where that exceeds `2^-16 (P_aa + P_bb)`, else
    /// `(s_a - s_b)(N_a - N_b) - (Q_aa + Q_bb - 2 Q_ab) / 2` with `Q = M D M^T`, s the sums of the rows of M and
    /// `N = M diag(G)`: the same number without the common part of the vectors. Equal rows of M are at distance exactly 0,
    /// and vectors that M leaves alone keep theirs.
    pub(super) fn mixed(&self, mixing: &Mixing) -> Self {
        let m = mixing.outputs();
        let products = congruent(&self.products, self.n, mixing);
        let between = congruent(&self.distances2, self.n, mixing);
        let sums: Vec<f64> = (0..m).map(|a| mixing.row(a).iter().sum()).collect();
        let norms: Vec<f64> = (0..m)
            .map(|a| mixing.row(a).iter().enumerate().map(|(i, c)| c * self.products[i * (self.n + 1)]).sum())
            .collect();
        let distance2 = |a: usize, b: usize| {
            if mixing.row(a) == mixing.row(b) {
                return 0.0;
            }
            let size = products[a * (m + 1)] + products[b * (m + 1)];
            let plain = size - 2.0 * products[a * m + b];
            if plain > CLOSE * size {
                return plain;
            }
            // Rows that add up to one may do so with different roundings.
            let gap = if (sums[a] - sums[b]).abs() < 1e-12 { 0.0 } else { sums[a] - sums[b] };
            let within = between[a * (m + 1)] + between[b * (m + 1)] - 2.0 * between[a * m + b];
            (gap * (norms[a] - norms[b]) - 0.5 * within).max(0.0)
        };
        let distances2 = (0..m * m).map(|k| distance2((k / m).max(k % m), (k / m).min(k % m))).collect();
        Self { n: m, products, distances2 }
    }

    /// `H_ij = <v_i - v_b, v_j - v_b>` for all pairs, row by row.
    ///
    /// An entry is `(D_ib + D_jb - D_ij) / 2`, or `G_ij - G_ib - G_bj + G_bb` where that has the smaller rounding: the
    /// first loses the digits of a hostile vector's size, the second those of what all vectors have in common.
    #[must_use]
    pub fn around(&self, base: usize) -> Vec<f64> {
        let n = self.n;
        let norm = |i: usize| self.product(i, i).max(0.0).sqrt();
        let norms: Vec<f64> = (0..n).map(norm).collect();
        let from_base = self.distances2(base);
        let entry = |i: usize, j: usize| {
            let apart = self.distances2[i * n + j];
            let far = from_base[i].max(from_base[j]).max(apart);
            let size = (norms[i] + norms[base]) * (norms[j] + norms[base]);
            if far <= size {
                0.5 * (from_base[i] + from_base[j] - apart)
            } else {
                self.product(i, j) - self.product(i, base) - self.product(base, j) + self.product(base, base)
            }
        };
        (0..n * n).into_par_iter().map(|k| entry(k / n, k % n)).collect()
    }
}

/// `M X M^T` of a symmetric X, n x n.
fn congruent(x: &[f64], n: usize, mixing: &Mixing) -> Vec<f64> {
    let m = mixing.outputs();
    let mut out = vec![0f64; m * m];
    out.par_chunks_mut(m.max(1)).enumerate().for_each(|(a, out)| {
        let mut row = vec![0f64; n];
        for (i, &c) in mixing.row(a).iter().enumerate().filter(|(_, c)| **c != 0.0) {
            row.iter_mut().zip(&x[i * n..(i + 1) * n]).for_each(|(sum, v)| *sum += c * v);
        }
        for (b, out) in out.iter_mut().enumerate() {
            // A coefficient of zero takes no part, whatever it would multiply.
            let terms = mixing.row(b).iter().zip(&row).filter(|(c, _)| **c != 0.0);
            *out = terms.map(|(c, v)| c * v).sum();
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::Scalar;
    use crate::backend::{Backend, Rows};

    fn pairs(rows: &[[f32; 2]]) -> Pairs {
        let rows = Rows::dense(rows.concat(), rows.len(), 2).unwrap();
        Pairs::of(&Scalar.gram(&rows).unwrap())
    }

    #[test]
    fn mixed_pairs_are_those_of_mixed_vectors() {
        let rows = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.0], [1e6, 1e6]];
        let maps = [[0.5, 0.5, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0], [0.0, 0.0, 0.0, 1e-6], [0.5, 0.5, 0.0, 0.0]];
        let mixing = Mixing::new(4, maps.concat());
        let found = pairs(&rows).mixed(&mixing);
        let mixed: Vec<[f64; 2]> =
            maps.iter().map(|m| [0, 1].map(|l| m.iter().zip(&rows).map(|(c, x)| c * f64::from(x[l])).sum())).collect();
        for (a, v) in mixed.iter().enumerate() {
            for (b, w) in mixed.iter().enumerate() {
                let product = v[0] * w[0] + v[1] * w[1];
                let distance = (v[0] - w[0]).powi(2) + (v[1] - w[1]).powi(2);
                assert!((found.product(a, b) - product).abs() < 1e-9, "{a} {b}");
                assert!((found.distances2(a)[b] - distance).abs() < 1e-9, "{a} {b} {distance}");
            }
        }
        assert_eq!(found.distances2(0)[3], 0.0);
    }

    /// Close together and far from the origin: the distance is a billionth of the norm.
    #[test]
    fn a_common_part_takes_no_digits() {
        let rows = [[1e6, 0.0], [1e6, 0.25], [1e6, 1.0]];
        let found = pairs(&rows).mixed(&Mixing::new(3, vec![0.5, 0.5, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 0.0]));
        assert_eq!(found.distances2(0), [0.0, 0.25, 0.015625]);
        let around = pairs(&rows).around(0);
        assert_eq!(around, [0.0, 0.0, 0.0, 0.0, 0.0625, 0.25, 0.0, 0.25, 1.0]);
    }

    #[test]
    fn a_hostile_vector_takes_no_digits_around_a_base() {
        let around = pairs(&[[1.0, 0.0], [2.0, 0.0], [1e30, 1e30]]).around(0);
        assert_eq!(around[4], 1.0);
        assert!((around[5] / 1e30 - 1.0).abs() < 1e-6 && (around[8] / 2e60 - 1.0).abs() < 1e-6, "{around:?}");
    }
}
