//! The parts of one-shot encryption around the fused kernel: the key as a message, sums, the opening.
//!
//! A client encrypts its vector with [`crate::backend::Backend::encrypt`] under a fresh [`LatticeSecret`] and sends the
//! N coefficients of that secret as a message under the collective key. The holders open `S = sum s`, and then anybody
//! has `C_j - a_j S = 2^o sum m + sum e`.

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::ETA;
use super::error::HeError;
use super::params::{Layout, Ring};
use super::poly;
use super::rns::round_to_values;
use crate::backend::simd::Simd;
use crate::backend::{Backend, LatticeSecret};
use crate::math::prg::StreamKey;

/// The secret's coefficients as fields, `s_i + 21`, N values in `0..=42`: the message of a key ciphertext. Its sum over
/// clients with weights of sum W takes `field_width(21, W)` bits.
///
/// # Errors
/// A secret of another ring; those of the backend.
pub fn key_fields(backend: &dyn Backend, ring: &Ring, secret: &LatticeSecret) -> Result<Zeroizing<Vec<u64>>, HeError> {
    if !secret.belongs_to(ring.basis()) {
        return Err(HeError::ForeignRing { what: "the secret of a session" });
    }
    let mut s = Zeroizing::new(secret.expose().to_vec());
    poly::inverse(backend, ring, &mut s)?;
    // The first limb tells: the coefficients are far below its prime.
    let m = ring.basis().limbs()[0].modulus();
    Ok(Zeroizing::new(s[..ring.degree()].iter().map(|&x| u64::from(m.add(x, ETA))).collect()))
}

/// S, transformed, from the opened fields `sum w (s_i + 21)` of clients whose weights sum to W.
///
/// # Errors
/// Not N fields (what follows them must be zero); a field above `42 W`.
pub fn secret_sum(backend: &dyn Backend, ring: &Ring, fields: &[u64], weight: u64) -> Result<Vec<u32>, HeError> {
    let n = ring.degree();
    let (expected, found) = (n, fields.len());
    if found < n {
        return Err(HeError::Length { what: "the opened key", expected, found });
    }
    let shift = weight.saturating_mul(u64::from(ETA));
    let largest = fields[..n].iter().copied().max().unwrap_or(0);
    let rest = fields[n..].iter().copied().max().unwrap_or(0);
    for (what, found, planned) in
        [("a field of the opened key", largest, shift.saturating_mul(2)), ("a field behind the opened key", rest, 0)]
    {
        if found > planned {
            return Err(HeError::BeyondPlan { what, found, planned });
        }
    }
    let mut sum = vec![0u32; ring.len()];
    for (limb, row) in ring.basis().limbs().iter().zip(sum.chunks_exact_mut(n)) {
        let m = limb.modulus();
        let shift = m.reduce(shift);
        row.iter_mut().zip(fields).for_each(|(x, &v)| *x = m.sub(m.reduce(v), shift));
    }
    poly::forward(backend, ring, &mut sum)?;
    Ok(sum)
}

/// Adds a client's vector, w times: `sum += w c`, coefficients, `[blocks x L x N]`.
///
/// # Errors
/// Another length, a residue that is not reduced, a block that is zero in some limb, weight zero or `2^30` and more;
/// nothing changes then.
pub fn add(ring: &Ring, sum: &mut [u32], ciphertext: &[u32], weight: u32) -> Result<(), HeError> {
    poly::check(ring, "a vector", ciphertext, sum.len() / ring.len())?;
    poly::refuse_zero(ring, "a vector", ciphertext)?;
    if !(1..=0x3fff_ffff).contains(&weight) {
        return Err(HeError::OutOfRange { name: "weight", found: u64::from(weight), least: 1, most: 0x3fff_ffff });
    }
    if weight == 1 {
        poly::add(ring, sum, ciphertext);
        return Ok(());
    }
    let mut weighed = ciphertext.to_vec();
    let residues: Vec<u32> = ring.basis().limbs().iter().map(|l| l.modulus().reduce(u64::from(weight))).collect();
    poly::scale(ring, &mut weighed, &residues);
    poly::add(ring, sum, &weighed);
    Ok(())
}

/// The first `values` summed fields: `C_j - a_j S + 2^(o-1)` in RNS, CRT, without the lowest o bits.
///
/// `sums` is `[blocks x L x N]`, coefficients; `secret_sum` is S, transformed; `expand_key` the public stream of a_j.
///
/// # Errors
/// Lengths; more values than the blocks hold; a coefficient beyond its slots (another S, or a sum above the plan); a field
/// behind the last value that is not zero.
pub fn open(
    backend: &dyn Backend,
    (ring, layout): (&Ring, &Layout),
    expand_key: &StreamKey,
    secret_sum: &[u32],
    sums: &[u32],
    values: usize,
) -> Result<Vec<u64>, HeError> {
    let blocks = layout.blocks(ring, values);
    poly::check(ring, "the opened key", secret_sum, 1)?;
    poly::check(ring, "a sum of vectors", sums, blocks)?;
    let mut masks = vec![0u32; sums.len()];
    let simd = Simd::new();
    masks.par_chunks_mut(ring.len()).enumerate().try_for_each(|(j, mask)| {
        expand(&simd, ring, expand_key, j, mask)?;
        poly::multiply(ring, mask, secret_sum);
        Ok::<_, HeError>(())
    })?;
    poly::inverse(backend, ring, &mut masks)?;
    poly::negate(ring, &mut masks);
    poly::add(ring, &mut masks, sums);
    let mut fields = round_to_values(ring, layout, &masks)?;
    if let Some(index) = fields[values..].iter().position(|&v| v != 0) {
        let at = (values + index) % layout.block(ring);
        return Err(HeError::BeyondSlots { block: blocks - 1, index: at % ring.degree() });
    }
    fields.truncate(values);
    Ok(fields)
}

/// a_j as [`crate::backend::scalar::encrypt::expand`] defines it, from a vector keystream.
fn expand(simd: &Simd, ring: &Ring, key: &StreamKey, j: usize, out: &mut [u32]) -> Result<(), HeError> {
    let n = ring.degree();
    let mut uniform = vec![0u8; 8 * n];
    for (l, (row, p)) in out.chunks_exact_mut(n).zip(ring.basis().primes()).enumerate() {
        simd.keystream(key, 8 * ((j * ring.limbs() + l) * n) as u64, &mut uniform)?;
        for (a, u) in row.iter_mut().zip(uniform.as_chunks::<8>().0) {
            *a = ((u128::from(u64::from_le_bytes(*u)) * u128::from(p)) >> 64) as u32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar;
    use crate::math::prg::Cipher;

    #[test]
    fn public_polynomials_are_those_of_the_oracle() {
        let ring = Ring::find(2048, 27, 2).unwrap();
        let key = StreamKey::from_bytes([8; 32], Cipher::ChaCha20);
        for j in [0, 1, 7] {
            let mut found = vec![0; ring.len()];
            expand(&Simd::new(), &ring, &key, j, &mut found).unwrap();
            assert_eq!(found, scalar::encrypt::expand(ring.basis(), &key, j));
        }
    }
}
