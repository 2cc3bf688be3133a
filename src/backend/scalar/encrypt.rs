//! One-shot encryption from its formula.

use super::{binomial, ntt};
use crate::backend::EncryptJob;
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::sample::binomial::CentredBinomial;

/// a_j, `[L x N]`, in the order of the transform: residue i of limb l is `floor(U p / 2^64)`, U the 8 bytes at
/// `8 ((j L + l) N + i)`, little-endian.
#[must_use]
pub fn expand(basis: &RnsBasis, key: &StreamKey, j: usize) -> Vec<u32> {
    let (n, limbs) = (basis.degree(), basis.limbs().len());
    let mut uniform = vec![0u8; 8 * n * limbs];
    key.fill((j * uniform.len()) as u64, &mut uniform);
    let uniform = uniform.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
    let primes = basis.primes().flat_map(|p| std::iter::repeat_n(p, n));
    uniform.zip(primes).map(|(u, p)| ((u128::from(u) * u128::from(p)) >> 64) as u32).collect()
}

/// `c_j = a_j s + e_j + 2^o sum_(z < k) 2^(w z) m_(j,z) mod Q`, all blocks, coefficients. The job is checked.
#[must_use]
pub fn encrypt(job: &EncryptJob<'_>, message: &[u32]) -> Vec<u32> {
    let (n, params) = (job.basis.degree(), job.params);
    let Ok(law) = CentredBinomial::new(params.eta) else { return Vec::new() };
    let mut ciphertext = Vec::new();
    for (j, values) in message.chunks(job.block()).enumerate() {
        let mut c = expand(job.basis, job.expand, j);
        let e: Vec<i32> = (0..n).map(|i| binomial::draw(law, job.error, j * n + i) as i32).collect();
        for (l, (tables, c)) in job.basis.limbs().iter().zip(c.chunks_exact_mut(n)).enumerate() {
            let p = tables.modulus();
            c.iter_mut().zip(job.secret.values(l)).for_each(|(a, &s)| *a = p.mul(*a, s));
            ntt::intt(c, tables);
            for i in 0..n {
                c[i] = p.add(c[i], p.reduce_signed(e[i]));
            }
            for (index, &value) in values.iter().enumerate() {
                let (z, i) = (index / n, index % n);
                let unit = p.pow(2, u64::from(params.offset) + u64::from(params.width) * z as u64);
                c[i] = p.add(c[i], p.mul(p.reduce(u64::from(value)), unit));
            }
        }
        ciphertext.extend(c);
    }
    ciphertext
}
