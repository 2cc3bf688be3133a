//! The negacyclic transform and its inverse, one butterfly at a time.

use crate::math::ntt::NttTables;

/// `A[i] = sum_j a[j] psi^(j (2 brv(i) + 1)) mod p`: natural order in, bit-reversed order out.
///
/// Stage by stage `X^(2t) - r^2 = (X^t - r)(X^t + r)`: with m blocks of 2t coefficients, block i goes mod
/// `X^t - r` and `X^t + r`, where `r = psi^brv(m + i)` (Longa and Naehrig, CANS 2016, algorithm 1).
pub fn ntt(x: &mut [u32], tables: &NttTables) {
    let p = tables.modulus();
    let mut blocks = 1;
    while blocks < x.len() {
        let half = x.len() / (2 * blocks);
        for (i, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let root = tables.forward().values[blocks + i];
            for j in 0..half {
                let (a, b) = (block[j], p.mul(block[j + half], root));
                (block[j], block[j + half]) = (p.add(a, b), p.sub(a, b));
            }
        }
        blocks *= 2;
    }
}

/// The inverse of [`ntt`]: the stages backwards, then the factor 1/N (algorithm 2 of the same paper).
pub fn intt(x: &mut [u32], tables: &NttTables) {
    let p = tables.modulus();
    let mut blocks = x.len() / 2;
    while blocks > 0 {
        let half = x.len() / (2 * blocks);
        for (i, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let root = tables.inverse().values[blocks + i];
            for j in 0..half {
                let (a, b) = (block[j], block[j + half]);
                (block[j], block[j + half]) = (p.add(a, b), p.mul(p.sub(a, b), root));
            }
        }
        blocks /= 2;
    }
    let scale = p.inverse(x.len() as u32);
    x.iter_mut().for_each(|v| *v = p.mul(*v, scale));
}
