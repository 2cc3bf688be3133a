//! What the lattice stages refuse.

use super::{ensure, out_of_range};
use crate::backend::{BackendError, Buffer, EncryptJob};
use crate::math::ntt::RnsBasis;
use crate::math::prg::STREAM_BYTES;
use crate::sample::binomial::MAX_K;

/// Checks that `x` holds whole rows of `basis`, every residue below its prime, with `largest` the maximum of a
/// row; the place is looked for only if there is one.
fn rows(what: &'static str, x: &[u32], basis: &RnsBasis, largest: &impl Fn(&[u32]) -> u32) -> Result<(), BackendError> {
    let (n, limbs) = (basis.degree(), basis.limbs().len());
    polynomials(what, x.len(), basis)?;
    for (row, x) in x.chunks_exact(n).enumerate() {
        let limb = row % limbs;
        let prime = basis.limbs()[limb].modulus().value();
        if largest(x) >= prime {
            let index = x.iter().position(|&v| v >= prime).unwrap_or(0);
            return Err(not_reduced(what, row * n + index, basis));
        }
    }
    Ok(())
}

/// The number of polynomials in `len` residues. Errors: not whole ones.
pub(crate) fn polynomials(what: &'static str, len: usize, basis: &RnsBasis) -> Result<usize, BackendError> {
    let one = basis.degree() * basis.limbs().len();
    if !len.is_multiple_of(one) {
        return Err(BackendError::WrongLength { what, expected: len.next_multiple_of(one), found: len });
    }
    Ok(len / one)
}

/// Error of residue `at` of `what`, counted over all polynomials.
pub(crate) fn not_reduced(what: &'static str, at: usize, basis: &RnsBasis) -> BackendError {
    let (n, limbs) = (basis.degree(), basis.limbs().len());
    let (row, index) = (at / n, at % n);
    let prime = basis.limbs()[row % limbs].modulus().value();
    BackendError::NotReduced { what, batch: row / limbs, limb: row % limbs, index, prime }
}

/// Checks the rows of a transform.
pub(crate) fn transform<'a>(
    x: &'a mut Buffer,
    basis: &RnsBasis,
    largest: impl Fn(&[u32]) -> u32,
) -> Result<&'a mut [u32], BackendError> {
    let x = x.as_u32_mut()?;
    rows("x", x, basis, &largest)?;
    Ok(x)
}

/// Checks the factors of a product: b has as many rows as a, or those of one polynomial.
pub(crate) fn product<'a>(
    a: &'a mut Buffer,
    b: &'a Buffer,
    basis: &RnsBasis,
    largest: impl Fn(&[u32]) -> u32,
) -> Result<(&'a mut [u32], &'a [u32]), BackendError> {
    let (a, b) = (a.as_u32_mut()?, b.as_u32()?);
    rows("a", a, basis, &largest)?;
    factor(a.len(), b.len(), basis)?;
    rows("b", b, basis, &largest)?;
    Ok((a, b))
}

/// Checks the length of the second factor of a product.
pub(crate) fn factor(a: usize, b: usize, basis: &RnsBasis) -> Result<(), BackendError> {
    if b != a && b != basis.degree() * basis.limbs().len() {
        return Err(BackendError::WrongLength { what: "b", expected: a, found: b });
    }
    Ok(())
}

/// Error of an eta without a law.
pub(crate) fn eta(found: u32) -> BackendError {
    out_of_range("eta", "1..=4096, and below 2^(offset - 1)", f64::from(found))
}

/// Checks a job of `encrypt` and returns the values; `largest` is the maximum of a slice in constant time.
pub(crate) fn encrypt<'a>(
    job: &EncryptJob<'a>,
    largest: impl FnOnce(&[u32]) -> u32,
) -> Result<&'a [u32], BackendError> {
    encrypt_parameters(job)?;
    let message = job.message.as_u32()?;
    encrypt_length(job)?;
    if u64::from(largest(message)) >> job.params.width != 0 {
        return Err(BackendError::MessageTooWide { width: job.params.width });
    }
    Ok(message)
}

/// Checks all of a job of `encrypt` but its message.
pub(crate) fn encrypt_parameters(job: &EncryptJob<'_>) -> Result<(), BackendError> {
    let p = job.params;
    ensure((1..=32).contains(&p.width), "width", "1..=32", f64::from(p.width))?;
    ensure(p.slots >= 1, "slots", "at least 1", f64::from(p.slots))?;
    let bits = u64::from(p.slots) * u64::from(p.width) + u64::from(p.offset);
    // 2^o (m + 1) <= Q: with the rounding half, a sum within its slots stays in [0, Q).
    let room = u64::from(job.basis.floor_log2());
    ensure(bits <= room, "slots * width + offset", "at most floor(log2 Q)", bits as f64)?;
    ensure(p.offset >= 1, "offset", "at least 1", f64::from(p.offset))?;
    let below = p.offset > 32 || u64::from(p.eta) < 1 << (p.offset - 1);
    if !(1..=MAX_K).contains(&p.eta) || !below {
        return Err(eta(p.eta));
    }
    if !job.secret.belongs_to(job.basis) {
        return Err(BackendError::WrongBasis);
    }
    Ok(())
}

/// Checks that the keys of a job of `encrypt` last for its message.
pub(crate) fn encrypt_length(job: &EncryptJob<'_>) -> Result<(), BackendError> {
    let blocks = job.message.len().div_ceil(job.block()) as u64;
    let residues = blocks * (job.basis.degree() * job.basis.limbs().len()) as u64;
    // 8 bytes a residue; an error coefficient takes 2 h bytes, h = ceil(2 eta / 16).
    let errors = blocks * job.basis.degree() as u64 * 2 * u64::from(job.params.eta.div_ceil(8));
    ensure(residues <= STREAM_BYTES / 8, "bytes of keystream for a", "at most 2^38 - 64", 8.0 * residues as f64)?;
    ensure(errors <= STREAM_BYTES, "bytes of keystream for e", "at most 2^38 - 64", errors as f64)
}
