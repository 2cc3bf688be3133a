//! What `encrypt` takes: the secret of a session in the transformed domain, and the job.

use std::fmt;

use zeroize::Zeroize;

use super::{Aligned, Backend, BackendError, Buffer, check};
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::params::EncryptParams;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;

/// k of the centred binomial law of the secret's coefficients.
pub const SECRET_ETA: u32 = 21;

/// The secret s of one session: transformed, `[L x N]` residues, ready for Shoup products. One session, one
/// secret: the sum of the secrets of a session is opened. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct LatticeSecret {
    degree: usize,
    primes: Vec<u32>,
    values: Vec<u32>,
    quotients: Vec<u32>,
}

impl fmt::Debug for LatticeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LatticeSecret(.., N = {}, L = {})", self.degree, self.primes.len())
    }
}

impl Drop for LatticeSecret {
    fn drop(&mut self) {
        self.values.zeroize();
        self.quotients.zeroize();
    }
}

impl LatticeSecret {
    /// s with coefficients from CBD(21): coefficient i is coordinate i of [`Backend::noise`] under `key`; then the
    /// transform of every limb.
    ///
    /// # Errors
    /// Those of the two stages; none for a basis that exists.
    pub fn sample(backend: &dyn Backend, basis: &RnsBasis, key: &StreamKey) -> Result<Self, BackendError> {
        let law = CentredBinomial::new(SECRET_ETA).map_err(|_| check::lattice::eta(SECRET_ETA))?;
        let mut s = Buffer::from(vec![0u32; basis.degree()]);
        backend.noise(&mut s, 32, &Noise::Binomial(law), key)?;
        let coefficients = s.as_u32_mut()?;
        let secret = Self::transform(backend, basis, coefficients);
        coefficients.zeroize();
        secret
    }

    /// The secret with known coefficients, as signed integers mod `2^32`.
    fn transform(backend: &dyn Backend, basis: &RnsBasis, coefficients: &[u32]) -> Result<Self, BackendError> {
        let mut residues: Aligned<u32> = Aligned::zeroed(basis.limbs().len() * basis.degree());
        for (limb, row) in basis.limbs().iter().zip(residues.chunks_exact_mut(basis.degree())) {
            for (residue, &c) in row.iter_mut().zip(coefficients) {
                *residue = limb.modulus().reduce_signed(c as i32);
            }
        }
        let mut transformed = Buffer::HostU32(residues);
        backend.ntt(&mut transformed, basis)?;
        let values = transformed.as_u32()?.to_vec();
        transformed.as_u32_mut()?.zeroize();
        Ok(Self::prepared(basis, values))
    }

    /// Transformed residues with what Shoup products take.
    fn prepared(basis: &RnsBasis, values: Vec<u32>) -> Self {
        let mut quotients = Vec::with_capacity(values.len());
        for (limb, row) in basis.limbs().iter().zip(values.chunks_exact(basis.degree())) {
            quotients.extend(row.iter().map(|&v| limb.modulus().shoup(v).quotient));
        }
        Self { degree: basis.degree(), primes: basis.primes().collect(), values, quotients }
    }

    /// `-S` of an opened sum of secrets S, transformed, for [`super::simd::Simd::open_block`].
    ///
    /// # Errors
    /// [`BackendError::WrongLength`], [`BackendError::NotReduced`].
    pub fn minus(basis: &RnsBasis, sum: &[u32]) -> Result<Self, BackendError> {
        let (n, expected) = (basis.degree(), basis.degree() * basis.limbs().len());
        if sum.len() != expected {
            return Err(BackendError::WrongLength { what: "the sum of secrets", expected, found: sum.len() });
        }
        let prime = |at: usize| basis.limbs()[at / n].modulus();
        if let Some(at) = (0..expected).find(|&at| sum[at] >= prime(at).value()) {
            return Err(check::lattice::not_reduced("the sum of secrets", at, basis));
        }
        Ok(Self::prepared(basis, sum.iter().enumerate().map(|(at, &x)| prime(at).neg(x)).collect()))
    }

    /// True if the secret is one of this basis.
    #[must_use]
    pub fn belongs_to(&self, basis: &RnsBasis) -> bool {
        self.degree == basis.degree() && self.primes.iter().copied().eq(basis.primes())
    }

    /// Residues of limb `l` in the order of the transform.
    pub(super) fn values(&self, l: usize) -> &[u32] {
        &self.values[l * self.degree..][..self.degree]
    }

    /// Their Shoup quotients.
    pub(super) fn quotients(&self, l: usize) -> &[u32] {
        &self.quotients[l * self.degree..][..self.degree]
    }

    /// s itself, `[L x N]`, transformed: what a key ciphertext carries.
    #[must_use]
    pub fn expose(&self) -> &[u32] {
        &self.values
    }
}

/// Everything that `encrypt` needs.
#[derive(Clone, Copy, Debug)]
pub struct EncryptJob<'a> {
    /// N and the primes.
    pub basis: &'a RnsBasis,
    /// Slots, widths, error.
    pub params: EncryptParams,
    /// The secret of this session.
    pub secret: &'a LatticeSecret,
    /// The public stream of the polynomials a_j, the same for all clients of a session.
    pub expand: &'a StreamKey,
    /// The secret stream of the errors of this message; one message only.
    pub error: &'a StreamKey,
    /// Values below `2^width`.
    pub message: &'a Buffer,
}

impl EncryptJob<'_> {
    /// Values that one block carries.
    #[must_use]
    pub fn block(&self) -> usize {
        self.basis.degree() * self.params.slots as usize
    }
}
