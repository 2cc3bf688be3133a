//! Polynomials of a ring as slices: `[batch x L x N]` residues, limb by limb; secrets that are wiped.
//!
//! Transformed polynomials are in the order of [`crate::math::ntt`]. Every function takes whole polynomials (checked by its
//! caller's types) and a time that depends on lengths alone.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::error::HeError;
use super::params::Ring;
use crate::backend::{Backend, Buffer};
use crate::math::modular::Modulus;
use crate::math::prg::StreamKey;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;
use crate::sample::uniform;

/// A secret polynomial, transformed, `[L x N]`. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct SecretPoly(Zeroizing<Vec<u32>>);

impl fmt::Debug for SecretPoly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretPoly(.., {} residues)", self.0.len())
    }
}

impl SecretPoly {
    /// The polynomial with these residues, transformed.
    ///
    /// # Errors
    /// Another length; a residue that is not below its prime (says in which limb).
    pub fn new(ring: &Ring, residues: Zeroizing<Vec<u32>>) -> Result<Self, HeError> {
        check(ring, "a secret polynomial", &residues, 1)?;
        Ok(Self(residues))
    }

    pub(super) const fn trusted(residues: Zeroizing<Vec<u32>>) -> Self {
        Self(residues)
    }

    /// The residues: to seal them for whom they are meant.
    #[must_use]
    pub fn expose(&self) -> &[u32] {
        &self.0
    }

    pub(super) fn residues_mut(&mut self) -> &mut [u32] {
        &mut self.0
    }
}

/// Checks that `x` is `batch` polynomials of the ring with residues below their primes, in constant time for a length.
///
/// # Errors
/// Otherwise.
pub fn check(ring: &Ring, what: &'static str, x: &[u32], batch: usize) -> Result<(), HeError> {
    let expected = ring.len().saturating_mul(batch);
    if x.len() != expected {
        return Err(HeError::Length { what, expected, found: x.len() });
    }
    for (row, residues) in x.chunks_exact(ring.degree()).enumerate() {
        let limb = row % ring.limbs();
        let prime = ring.basis().limbs()[limb].modulus().value();
        // The sign of `v - p` of numbers below 2^31; all-ones words beyond it.
        let bad = residues.iter().fold(0u32, |bad, &v| bad | (prime.wrapping_sub(1).wrapping_sub(v & 0x7fff_ffff)) | v);
        if bad >> 31 != 0 {
            return Err(HeError::NotReduced { what, limb, prime });
        }
    }
    Ok(())
}

/// Refuses a polynomial of the batch that is zero in some limb: of a key or a mask that is no accident.
///
/// # Errors
/// [`HeError::Zero`].
pub fn refuse_zero(ring: &Ring, what: &'static str, x: &[u32]) -> Result<(), HeError> {
    if x.chunks_exact(ring.degree()).any(|row| row.iter().fold(0, |any, &v| any | v) == 0) {
        return Err(HeError::Zero { what });
    }
    Ok(())
}

/// Calls `f` with every row and the modulus of its limb.
fn rows<'a>(ring: &'a Ring, x: &'a mut [u32]) -> impl Iterator<Item = (usize, Modulus, &'a mut [u32])> {
    let n = ring.degree();
    x.chunks_exact_mut(n).enumerate().map(move |(row, x)| (row, ring.basis().limbs()[row % ring.limbs()].modulus(), x))
}

/// `x + y`.
pub fn add(ring: &Ring, x: &mut [u32], y: &[u32]) {
    let n = ring.degree();
    rows(ring, x).for_each(|(row, m, x)| x.iter_mut().zip(&y[row * n..][..n]).for_each(|(x, &y)| *x = m.add(*x, y)));
}

/// `x - y`.
pub fn subtract(ring: &Ring, x: &mut [u32], y: &[u32]) {
    let n = ring.degree();
    rows(ring, x).for_each(|(row, m, x)| x.iter_mut().zip(&y[row * n..][..n]).for_each(|(x, &y)| *x = m.sub(*x, y)));
}

/// `x y` entry by entry: the product of transformed polynomials. `y` is one polynomial, taken for all of the batch, or as
/// many as `x`.
pub fn multiply(ring: &Ring, x: &mut [u32], y: &[u32]) {
    let n = ring.degree();
    rows(ring, x).for_each(|(row, m, x)| {
        let start = row * n % y.len();
        x.iter_mut().zip(&y[start..][..n]).for_each(|(x, &y)| *x = m.mul(*x, y));
    });
}

/// `c x`, with c one residue a limb.
pub fn scale(ring: &Ring, x: &mut [u32], c: &[u32]) {
    rows(ring, x).for_each(|(row, m, x)| {
        let c = m.shoup(c[row % ring.limbs()]);
        x.iter_mut().for_each(|x| *x = m.mul_shoup(*x, c));
    });
}

/// `-x`.
pub fn negate(ring: &Ring, x: &mut [u32]) {
    rows(ring, x).for_each(|(_, m, x)| x.iter_mut().for_each(|x| *x = m.neg(*x)));
}

/// Runs a transform over a copy on the host, and wipes the copy.
fn transform(
    x: &mut [u32],
    run: impl FnOnce(&mut Buffer) -> Result<(), crate::backend::BackendError>,
) -> Result<(), HeError> {
    let mut buffer = Buffer::HostU32((&*x).into());
    let done = run(&mut buffer);
    let words = buffer.as_u32_mut()?;
    x.copy_from_slice(words);
    words.zeroize();
    Ok(done?)
}

/// The transform, in place.
///
/// # Errors
/// Those of the backend.
pub fn forward(backend: &dyn Backend, ring: &Ring, x: &mut [u32]) -> Result<(), HeError> {
    transform(x, |buffer| backend.ntt(buffer, ring.basis()))
}

/// Its inverse, in place.
///
/// # Errors
/// Those of the backend.
pub fn inverse(backend: &dyn Backend, ring: &Ring, x: &mut [u32]) -> Result<(), HeError> {
    transform(x, |buffer| backend.intt(buffer, ring.basis()))
}

/// `[batch x N]` signed integers mod `2^32` as `[batch x L x N]` residues.
#[must_use]
pub fn lift(ring: &Ring, small: &[u32]) -> Zeroizing<Vec<u32>> {
    let n = ring.degree();
    let mut out = Zeroizing::new(vec![0u32; small.len() / n * ring.len()]);
    rows(ring, &mut out).for_each(|(row, m, out)| {
        let small = &small[row / ring.limbs() * n..][..n];
        out.iter_mut().zip(small).for_each(|(x, &c)| *x = m.reduce_signed(c as i32));
    });
    out
}

/// `batch N` draws of CBD(eta) as signed integers mod `2^32`: coefficient i of polynomial b is coordinate `b N + i` of
/// [`Backend::noise`] under `key`.
///
/// # Errors
/// Those of the backend.
pub fn binomial(
    backend: &dyn Backend,
    ring: &Ring,
    eta: u32,
    key: &StreamKey,
    batch: usize,
) -> Result<Zeroizing<Vec<u32>>, HeError> {
    let law = CentredBinomial::new(eta)?;
    let mut words = Buffer::from(vec![0u32; batch * ring.degree()]);
    backend.noise(&mut words, 32, &Noise::Binomial(law), key)?;
    let words = words.as_u32_mut()?;
    let out = Zeroizing::new(words.to_vec());
    words.zeroize();
    Ok(out)
}

/// `batch N` ternary coefficients as signed integers mod `2^32`: number `b N + i` of [`uniform::ternary`].
///
/// # Errors
/// A stream that is too short.
pub fn ternary(ring: &Ring, key: &StreamKey, batch: usize) -> Result<Zeroizing<Vec<u32>>, HeError> {
    let mut out = Zeroizing::new(vec![0u32; batch * ring.degree()]);
    uniform::ternary(key, 0, &mut out)?;
    Ok(out)
}

/// `batch` uniform polynomials from polynomial `first` of the stream on: residue i of limb l of polynomial b is number
/// `(b L + l) N + i` of [`uniform::residues`].
///
/// # Errors
/// A stream that is too short.
pub fn uniform(ring: &Ring, key: &StreamKey, first: usize, batch: usize) -> Result<Zeroizing<Vec<u32>>, HeError> {
    let mut out = Zeroizing::new(vec![0u32; batch * ring.len()]);
    let start = first * ring.limbs();
    for (row, m, out) in rows(ring, &mut out) {
        uniform::residues(key, ((start + row) * ring.degree()) as u64, m, out)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::Scalar;
    use crate::math::prg::Cipher;

    fn ring() -> Ring {
        Ring::find(2048, 27, 2).unwrap()
    }

    fn key(n: u8) -> StreamKey {
        StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
    }

    #[test]
    fn residues_are_checked_at_every_edge() {
        let ring = ring();
        let primes: Vec<u32> = ring.basis().primes().collect();
        let mut x = vec![0u32; ring.len()];
        x[0] = primes[0] - 1;
        check(&ring, "x", &x, 1).unwrap();
        for (at, bad) in [(0, primes[0]), (0, 1 << 31), (0, u32::MAX), (2048, primes[1]), (4095, (1 << 31) + 5)] {
            let mut x = x.clone();
            x[at] = bad;
            let found = check(&ring, "x", &x, 1).unwrap_err();
            assert!(matches!(found, HeError::NotReduced { limb, .. } if limb == at / 2048), "{found}");
        }
        assert!(matches!(check(&ring, "x", &x[1..], 1), Err(HeError::Length { expected: 4096, found: 4095, .. })));
        assert!(matches!(refuse_zero(&ring, "x", &x), Err(HeError::Zero { .. })), "the second limb is zero");
        x[2048] = 1;
        refuse_zero(&ring, "x", &x).unwrap();
    }

    /// `(x + y) z - x z = y z`, in a batch of two.
    #[test]
    fn arithmetic_is_that_of_a_ring() {
        let ring = ring();
        let [x, y, z] = [1, 2, 3].map(|n| uniform(&ring, &key(n), 0, 2).unwrap());
        let mut left = x.clone();
        add(&ring, &mut left, &y);
        multiply(&ring, &mut left, &z);
        let mut right = x.clone();
        multiply(&ring, &mut right, &z);
        subtract(&ring, &mut left, &right);
        let mut product = y.clone();
        multiply(&ring, &mut product, &z);
        assert_eq!(left, product);
        let twice: Vec<u32> = vec![2; 2];
        let mut doubled = x.clone();
        scale(&ring, &mut doubled, &twice);
        let mut minus = x.clone();
        negate(&ring, &mut minus);
        add(&ring, &mut minus, &doubled);
        assert_eq!(minus, x);
        let mut there = x.clone();
        forward(&Scalar, &ring, &mut there).unwrap();
        assert_ne!(there, x);
        inverse(&Scalar, &ring, &mut there).unwrap();
        assert_eq!(there, x);
        assert_eq!(uniform(&ring, &key(1), 1, 1).unwrap()[..], x[ring.len()..]);
    }

    #[test]
    fn small_ones_are_small_in_every_limb() {
        let ring = ring();
        let t = ternary(&ring, &key(4), 2).unwrap();
        let e = binomial(&Scalar, &ring, 21, &key(5), 2).unwrap();
        assert!(t.iter().all(|&v| (v as i32).abs() <= 1) && e.iter().all(|&v| (v as i32).abs() <= 21));
        let lifted = lift(&ring, &e);
        for (b, l, i) in [(0, 0, 0), (0, 1, 5), (1, 0, 2047), (1, 1, 77)] {
            let m = ring.basis().limbs()[l].modulus();
            assert_eq!(lifted[(b * 2 + l) * 2048 + i], m.reduce_signed(e[b * 2048 + i] as i32));
        }
        let secret = SecretPoly::new(&ring, lift(&ring, &t[..2048])).unwrap();
        assert_eq!(format!("{secret:?}"), "SecretPoly(.., 4096 residues)");
    }
}
