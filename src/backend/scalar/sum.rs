//! `acc_j <- (acc_j + sum_i rows_ij) mod 2^b`.

use super::check;

/// Adds checked rows to the accumulator.
pub fn sum(acc: &mut [u32], rows: &[u32], bits: u32) {
    let dim = acc.len().max(1);
    for row in rows.chunks_exact(dim) {
        for (a, r) in acc.iter_mut().zip(row) {
            *a = a.wrapping_add(*r);
        }
    }
    for a in acc {
        *a &= check::mask(bits);
    }
}
