//! What the lattice stages refuse.

use crate::backend::{BackendError, Buffer};
use crate::math::ntt::RnsBasis;

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
