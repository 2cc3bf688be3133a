//! Products of matrices whose entries are integers in `f64`: exact in any order, as long as no sum leaves 53 bits.
//!
//! The crate `gemm` computes them, in blocks that it chooses for the processor. Where every partial sum is an integer of
//! magnitude at most 2^53 nothing is ever rounded, so that the result is the integer one, whatever the order.

/// `out[i o0 + j o1] += sum_(t < terms) left[i l0 + t l1] right[t r0 + j r1]`, the steps being pairs of distances.
///
/// Exact if all three hold integers and no partial sum of an entry exceeds 2^53 in magnitude; the caller sees to it.
pub(crate) struct Product<'a> {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Columns of the result.
    pub(crate) columns: usize,
    /// Terms of every sum.
    pub(crate) terms: usize,
    /// o0, o1: from row to row and from column to column of the result; no two entries may share a place.
    pub(crate) out_steps: (usize, usize),
    /// The left factor.
    pub(crate) left: &'a [f64],
    /// l0, l1: from row to row and from term to term.
    pub(crate) left_steps: (usize, usize),
    /// The right factor.
    pub(crate) right: &'a [f64],
    /// r0, r1: from term to term and from column to column.
    pub(crate) right_steps: (usize, usize),
}

/// Adds a product to `out`, on the caller's thread. See [`Product`].
pub(crate) fn add_product(out: &mut [f64], job: &Product<'_>) {
    let &Product { rows, columns, terms, out_steps, left, left_steps, right, right_steps } = job;
    if rows == 0 || columns == 0 || terms == 0 {
        return;
    }
    let last = |(a, b): (usize, usize), (m, n): (usize, usize)| (m - 1) * a + (n - 1) * b;
    assert!(last(out_steps, (rows, columns)) < out.len(), "the result");
    assert!(last(left_steps, (rows, terms)) < left.len(), "the left factor");
    assert!(last(right_steps, (terms, columns)) < right.len(), "the right factor");
    // SAFETY: the farthest element of each matrix lies in its slice, as asserted, steps are not negative, and `out` is borrowed
    // for writing.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            terms,
            out.as_mut_ptr(),
            out_steps.1 as isize,
            out_steps.0 as isize,
            true,
            left.as_ptr(),
            left_steps.1 as isize,
            left_steps.0 as isize,
            right.as_ptr(),
            right_steps.1 as isize,
            right_steps.0 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integers near the limit, in shapes with edges and in every layout, against sums in 128 bits.
    #[test]
    fn products_of_integers_are_exact() {
        let mut state = 1u64;
        let mut draw = |bits: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> (64 - bits)) as i64 - (1 << (bits - 1))) as f64
        };
        for (rows, columns, terms) in [(1, 1, 1), (33, 17, 64), (200, 10, 45), (5, 70, 31)] {
            let left: Vec<f64> = (0..rows * terms).map(|_| draw(15)).collect();
            let right: Vec<f64> = (0..terms * columns).map(|_| draw(33)).collect();
            for turned in [false, true] {
                let steps = |m: usize, n: usize| if turned { (1, m) } else { (n, 1) };
                let job = Product {
                    rows,
                    columns,
                    terms,
                    out_steps: steps(rows, columns),
                    left: &left,
                    left_steps: steps(rows, terms),
                    right: &right,
                    right_steps: steps(terms, columns),
                };
                let mut out = vec![7.0; rows * columns];
                add_product(&mut out, &job);
                let at = |(a, b): (usize, usize), i: usize, j: usize| i * a + j * b;
                for i in 0..rows {
                    for j in 0..columns {
                        let term = |t| {
                            let (x, y) = (left[at(job.left_steps, i, t)], right[at(job.right_steps, t, j)]);
                            i128::from(x as i64) * i128::from(y as i64)
                        };
                        let sum: i128 = (0..terms).map(term).sum();
                        assert_eq!(out[at(job.out_steps, i, j)] as i128, sum + 7, "{rows} {columns} {terms} {turned}");
                    }
                }
            }
        }
    }
}
