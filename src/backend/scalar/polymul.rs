//! Products in `Z_p[X]/(X^N + 1)` from the definition.

use crate::math::modular::Modulus;

/// `a <- a b mod (X^N + 1, p)`: `c[k] = sum_(i+j=k) a[i] b[j] - sum_(i+j=k+N) a[i] b[j]`, O(N^2).
pub fn polymul(a: &mut [u32], b: &[u32], p: Modulus) {
    let n = a.len();
    let product: Vec<u32> = (0..n)
        .map(|k| {
            let sum = |indices: std::ops::Range<usize>, wrap: usize| {
                indices.map(|i| u64::from(p.mul(a[i], b[k + wrap - i]))).sum::<u64>()
            };
            p.sub(p.reduce(sum(0..k + 1, 0)), p.reduce(sum(k + 1..n, n)))
        })
        .collect();
    a.copy_from_slice(&product);
}

/// `a <- a b` entry by entry mod p: the product in the transformed domain.
pub fn pointwise(a: &mut [u32], b: &[u32], p: Modulus) {
    for (x, &y) in a.iter_mut().zip(b) {
        *x = p.mul(*x, y);
    }
}
