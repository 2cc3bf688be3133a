//! One key holder: for tests, and for an aggregator that everybody trusts with single vectors.
//!
//! ```text
//! c0 = -a s + e + 2^o m, c1 = a      a uniform from a public seed, new for every message
//! ```
//! The holder decrypts whatever it is given; nothing is flooded, since what leaves it are sums without their noise.

use std::fmt;
use std::str::FromStr;

use super::ETA;
use super::collective::{KeyShare, sum_of_secrets};
use super::encrypt::{Ciphertext, add_message, check_message};
use super::error::HeError;
use super::params::{Layout, Ring};
use super::poly::{self, SecretPoly};
use super::rns::round_to_values;
use crate::backend::Backend;
use crate::math::prg::StreamKey;

/// The schemes that are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Key-additive encryption of the long vector, the default.
    Oneshot,
    /// A collective key.
    Mphe,
    /// One key holder.
    Symmetric,
}

impl FromStr for Scheme {
    type Err = HeError;

    /// The scheme of a name. `she`, the symmetric scheme of the asynchronous-learning papers, is refused by name: it is
    /// broken (see `tests/suite/he/broken_scheme.rs` for the attack).
    fn from_str(name: &str) -> Result<Self, HeError> {
        match name {
            "oneshot" => Ok(Self::Oneshot),
            "mphe" => Ok(Self::Mphe),
            "symmetric" => Ok(Self::Symmetric),
            "she" | "SHE" | "symmetric-she" => {
                Err(HeError::Broken { name: "the symmetric homomorphic scheme of asynchronous learning (she)" })
            }
            other => Err(HeError::UnknownScheme { found: other.chars().take(40).collect() }),
        }
    }
}

/// s of one key holder. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct SecretKey {
    pub(super) ring: Ring,
    pub(super) secret: SecretPoly,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({:?}, ..)", self.ring)
    }
}

impl SecretKey {
    /// A ternary secret from a stream of its own.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn generate(backend: &dyn Backend, ring: &Ring, key: &StreamKey) -> Result<Self, HeError> {
        let mut s = poly::lift(ring, &poly::ternary(ring, key, 1)?);
        poly::forward(backend, ring, &mut s)?;
        Ok(Self { ring: ring.clone(), secret: SecretPoly::trusted(s) })
    }

    /// The secret of a collective key, by whoever has the shares of all holders.
    ///
    /// # Errors
    /// Shares of another ring.
    pub fn of_shares(ring: &Ring, shares: &[KeyShare]) -> Result<Self, HeError> {
        shares.iter().try_for_each(|share| poly::check(ring, "a key share", share.secret().expose(), 1))?;
        Ok(Self { ring: ring.clone(), secret: sum_of_secrets(ring, shares) })
    }

    /// The ciphertext of values below `2^w`: a from the public stream `public` (new for every message), e from `error`.
    ///
    /// # Errors
    /// As [`Ciphertext::encrypt`].
    pub fn encrypt(
        &self,
        backend: &dyn Backend,
        layout: &Layout,
        (public, error): (&StreamKey, &StreamKey),
        message: &[u64],
    ) -> Result<Ciphertext, HeError> {
        let ring = &self.ring;
        Layout::new(ring, layout.width, layout.slots, layout.offset)?;
        check_message(layout, message)?;
        let blocks = layout.blocks(ring, message.len());
        let c1 = poly::uniform(ring, public, 0, blocks)?;
        let mut product = c1.clone();
        poly::multiply(ring, &mut product, self.secret.expose());
        let mut c0 = poly::lift(ring, &poly::binomial(backend, ring, ETA, error, blocks)?);
        add_message(ring, layout, &mut c0, message);
        poly::forward(backend, ring, &mut c0)?;
        poly::subtract(ring, &mut c0, &product);
        Ok(Ciphertext { ring: ring.clone(), c0: c0.to_vec(), c1: c1.to_vec(), weight: 1, squares: 1 })
    }

    /// The values of a sum, `[blocks x k x N]`: `c0 + s c1`, rounded.
    ///
    /// # Errors
    /// Another ring; a result beyond its slots (another key, or a sum above the plan).
    pub fn decrypt(&self, backend: &dyn Backend, layout: &Layout, sum: &Ciphertext) -> Result<Vec<u64>, HeError> {
        if *sum.ring() != self.ring {
            return Err(HeError::ForeignRing { what: "a sum" });
        }
        Layout::new(&self.ring, layout.width, layout.slots, layout.offset)?;
        let (c0, c1) = sum.halves();
        let mut opened = zeroize::Zeroizing::new(c1.to_vec());
        poly::multiply(&self.ring, &mut opened, self.secret.expose());
        poly::add(&self.ring, &mut opened, c0);
        poly::inverse(backend, &self.ring, &mut opened)?;
        round_to_values(&self.ring, layout, &opened)
    }
}
