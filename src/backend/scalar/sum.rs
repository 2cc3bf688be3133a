//! `acc_j <- (acc_j + sum_i rows_ij)` mod `2^b` or mod p.

use crate::params::Ring;

/// Adds checked rows to the accumulator.
pub fn sum(acc: &mut [u32], rows: &[u32], ring: Ring) {
    let modulus = match ring {
        Ring::Bits(b) => 1u64 << b,
        Ring::Prime(p) => u64::from(p),
    };
    for row in rows.chunks_exact(acc.len().max(1)) {
        for (a, r) in acc.iter_mut().zip(row) {
            *a = ((u64::from(*a) + u64::from(*r)) % modulus) as u32;
        }
    }
    for a in acc {
        *a = (u64::from(*a) % modulus) as u32;
    }
}
