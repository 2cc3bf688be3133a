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
    if !x.len().is_multiple_of(n * limbs) {
        let expected = x.len().next_multiple_of(n * limbs);
        return Err(BackendError::WrongLength { what, expected, found: x.len() });
    }
    for (row, x) in x.chunks_exact(n).enumerate() {
        let limb = row % limbs;
        let prime = basis.limbs()[limb].modulus().value();
        if largest(x) >= prime {
            let index = x.iter().position(|&v| v >= prime).unwrap_or(0);
            return Err(BackendError::NotReduced { what, batch: row / limbs, limb, index, prime });
        }
    }
    Ok(())
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
    if b.len() != a.len() && b.len() != basis.degree() * basis.limbs().len() {
        return Err(BackendError::WrongLength { what: "b", expected: a.len(), found: b.len() });
    }
    rows("b", b, basis, &largest)?;
    Ok((a, b))
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
    let message = job.message.as_u32()?;
    let blocks = message.len().div_ceil(job.block()) as u64;
    let residues = blocks * (job.basis.degree() * job.basis.limbs().len()) as u64;
    // 8 bytes a residue; an error coefficient takes 2 h bytes, h = ceil(2 eta / 16).
    let errors = blocks * job.basis.degree() as u64 * 2 * u64::from(p.eta.div_ceil(8));
    ensure(residues <= STREAM_BYTES / 8, "bytes of keystream for a", "at most 2^38 - 64", 8.0 * residues as f64)?;
    ensure(errors <= STREAM_BYTES, "bytes of keystream for e", "at most 2^38 - 64", errors as f64)?;
    if u64::from(largest(message)) >> p.width != 0 {
        return Err(BackendError::MessageTooWide { width: p.width });
    }
    Ok(message)
}
