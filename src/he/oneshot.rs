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
use super::rns::Slices;
use crate::backend::simd::Simd;
use crate::backend::{Backend, LatticeSecret};
use crate::math::prg::{STREAM_BYTES, StreamKey};

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
    let (what, expected) = ("a vector", sum.len() / ring.len() * ring.len());
    if ciphertext.len() != expected {
        return Err(HeError::Length { what, expected, found: ciphertext.len() });
    }
    if !(1..=0x3fff_ffff).contains(&weight) {
        return Err(HeError::OutOfRange { name: "weight", found: u64::from(weight), least: 1, most: 0x3fff_ffff });
    }
    if weight == 1 {
        return Simd::new().add_polynomials(&mut sum[..expected], ciphertext, ring.basis()).map_err(|bad| {
            let limb = bad.row % ring.limbs();
            let prime = ring.basis().limbs()[limb].modulus().value();
            if bad.zero { HeError::Zero { what } } else { HeError::NotReduced { what, limb, prime } }
        });
    }
    poly::check(ring, what, ciphertext, sum.len() / ring.len())?;
    poly::refuse_zero(ring, what, ciphertext)?;
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
    (ring, layout): (&Ring, &Layout),
    expand_key: &StreamKey,
    secret_sum: &[u32],
    sums: &[u32],
    values: usize,
) -> Result<Vec<u64>, HeError> {
    let blocks = layout.blocks(ring, values);
    poly::check(ring, "the opened key", secret_sum, 1)?;
    poly::check(ring, "a sum of vectors", sums, blocks)?;
    let residues = (blocks * ring.len()) as u64;
    if residues > STREAM_BYTES / 8 {
        return Err(HeError::OutOfRange {
            name: "residues of a sum",
            found: residues,
            least: 0,
            most: STREAM_BYTES / 8,
        });
    }
    let (simd, minus) = (Simd::new(), LatticeSecret::minus(ring.basis(), secret_sum)?);
    let slices = Slices::new(ring, layout);
    let mut fields = vec![0u64; blocks * layout.block(ring)];
    fields.par_chunks_mut(layout.block(ring)).zip(sums.par_chunks(ring.len())).enumerate().try_for_each_init(
        || vec![0u32; ring.len()],
        |noisy, (j, (fields, sum))| {
            simd.open_block((ring.basis(), expand_key), &minus, j, sum, noisy);
            slices.block(j, noisy, fields)
        },
    )?;
    if let Some(index) = fields[values..].iter().position(|&v| v != 0) {
        let at = (values + index) % layout.block(ring);
        return Err(HeError::BeyondSlots { block: blocks - 1, index: at % ring.degree() });
    }
    fields.truncate(values);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::{self, Scalar};
    use crate::backend::simd::isa::Isa;
    use crate::math::prg::Cipher;

    #[test]
    fn a_block_is_opened_as_its_formula_says() {
        let ring = Ring::find(2048, 27, 2).unwrap();
        let key = |n| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
        let polynomial = |n| scalar::encrypt::expand(ring.basis(), &key(n), 0);
        let (secret, sum) = (polynomial(1), polynomial(2));
        let minus = LatticeSecret::minus(ring.basis(), &secret).unwrap();
        for isa in Isa::ALL {
            let Ok(simd) = Simd::with_isa(isa) else { continue };
            for j in [0, 1, 7] {
                let mut expected = scalar::encrypt::expand(ring.basis(), &key(8), j);
                poly::multiply(&ring, &mut expected, &secret);
                poly::inverse(&Scalar, &ring, &mut expected).unwrap();
                poly::negate(&ring, &mut expected);
                poly::add(&ring, &mut expected, &sum);
                let mut found = vec![7; ring.len()];
                simd.open_block((ring.basis(), &key(8)), &minus, j, &sum, &mut found);
                assert_eq!(found, expected, "{isa} {j}");
            }
        }
        let mut bad = secret;
        bad[3000] = u32::MAX;
        assert!(LatticeSecret::minus(ring.basis(), &bad).is_err() && LatticeSecret::minus(ring.basis(), &[]).is_err());
    }

    #[test]
    fn a_vector_with_a_bad_row_changes_nothing() {
        let ring = Ring::find(2048, 27, 2).unwrap();
        // On one thread and, where there are more than 2^18 residues, on all.
        for blocks in [3, 65] {
            let vector = |n| -> Vec<u32> {
                let key = StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
                (0..blocks).flat_map(|j| scalar::encrypt::expand(ring.basis(), &key, j)).collect()
            };
            let (start, x) = (vector(1), vector(2));
            for weight in [1, 5] {
                let mut expected = start.clone();
                (0..weight).for_each(|_| poly::add(&ring, &mut expected, &x));
                let mut found = start.clone();
                add(&ring, &mut found, &x, weight).unwrap();
                assert_eq!(found, expected);
                for row in [0, 1, 2, 5, 2 * blocks - 1] {
                    let mut bad = x.clone();
                    let (prime, limb) = (ring.basis().limbs()[row % 2].modulus().value(), row % 2);
                    bad[row * 2048 + 77] = prime;
                    let error = HeError::NotReduced { what: "a vector", limb, prime };
                    assert_eq!(add(&ring, &mut found, &bad, weight), Err(error));
                    bad[row * 2048..][..2048].fill(0);
                    assert_eq!(add(&ring, &mut found, &bad, weight), Err(HeError::Zero { what: "a vector" }));
                    assert_eq!(found, expected, "nothing has changed");
                }
                assert!(add(&ring, &mut found, &x[1..], weight).is_err());
            }
            assert!(add(&ring, &mut start.clone(), &x, 0).is_err());
        }
    }
}
