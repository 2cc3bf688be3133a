//! Ciphertexts under a collective key, and their sums.
//!
//! ```text
//! c0 = p u + e0 + 2^o m,   c1 = a u + e1        u ternary, e0, e1 from CBD(21), all fresh for every block
//! c0 + s c1 = 2^o m + e u + s e1 + e0           with p = -a s + e
//! ```
//! Both halves stay transformed: sums and openings need no other form.

use std::fmt;

use sha2::{Digest, Sha256};

use super::ETA;
use super::collective::{CollectiveKey, hash_residues, hash_ring};
use super::error::HeError;
use super::params::{Layout, Ring};
use super::poly;
use crate::backend::Backend;
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};

/// The three secret streams of one message. One message only: new data under old streams would give `2^o (m - m')`.
#[derive(Clone, Debug)]
pub struct EncryptKeys {
    /// u.
    pub ephemeral: StreamKey,
    /// e0.
    pub first_error: StreamKey,
    /// e1.
    pub second_error: StreamKey,
}

impl EncryptKeys {
    /// The streams of a client's attempt at a round. They must be on record before the ciphertext is sent; other data
    /// take another attempt.
    #[must_use]
    pub fn derive(secret: &Secret, session: &[u8; 16], address: Address) -> Self {
        let stream = |purpose| secret.derive(session, address, purpose, Cipher::ChaCha20);
        Self {
            ephemeral: stream(Purpose::Ephemeral),
            first_error: stream(Purpose::FirstError),
            second_error: stream(Purpose::SecondError),
        }
    }
}

/// A ciphertext, or a sum of some: blocks of two transformed polynomials.
#[derive(Clone, PartialEq)]
pub struct Ciphertext {
    pub(super) ring: Ring,
    /// `[blocks x L x N]`.
    pub(super) c0: Vec<u32>,
    /// Likewise.
    pub(super) c1: Vec<u32>,
    /// W and V of what was added.
    pub(super) weight: u64,
    pub(super) squares: u64,
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext({:?}, {} blocks, weight {})", self.ring, self.blocks(), self.weight)
    }
}

/// Adds `2^o sum_z 2^(w z) m_z` to the coefficients of `x`, `[blocks x L x N]`; value `j N k + z N + i` of the message is
/// slot z of coefficient i of block j.
pub(super) fn add_message(ring: &Ring, layout: &Layout, x: &mut [u32], message: &[u64]) {
    let n = ring.degree();
    for (j, values) in message.chunks(layout.block(ring)).enumerate() {
        for (l, limb) in ring.basis().limbs().iter().enumerate() {
            let m = limb.modulus();
            let row = &mut x[(j * ring.limbs() + l) * n..][..n];
            for (z, slot) in values.chunks(n).enumerate() {
                let unit = m.shoup(m.pow(2, u64::from(layout.offset) + u64::from(layout.width) * z as u64));
                row.iter_mut().zip(slot).for_each(|(x, &v)| *x = m.add(*x, m.mul_shoup(m.reduce(v), unit)));
            }
        }
    }
}

/// Checks that a message has values, and none beyond its slot; in a time that depends on the length alone.
pub(super) fn check_message(layout: &Layout, message: &[u64]) -> Result<(), HeError> {
    if message.is_empty() {
        return Err(HeError::OutOfRange { name: "values of a message", found: 0, least: 1, most: u64::MAX });
    }
    let all = message.iter().fold(0, |all, &v| all | v);
    if layout.width < 64 && all >> layout.width != 0 {
        return Err(HeError::MessageTooWide { width: layout.width });
    }
    Ok(())
}

impl Ciphertext {
    /// The ciphertext of values below `2^w`, laid out as [`Layout`] says; a short last block is filled with zeros.
    ///
    /// Not guaranteed: that a sum stays within its slots (the layout's w has room for the sum of all clients).
    ///
    /// # Errors
    /// No values, a value that is too wide (does not say which), a layout of another ring; those of the backend.
    pub fn encrypt(
        backend: &dyn Backend,
        key: &CollectiveKey,
        layout: &Layout,
        keys: &EncryptKeys,
        message: &[u64],
    ) -> Result<Self, HeError> {
        let ring = &key.setup().ring;
        Layout::new(ring, layout.width, layout.slots, layout.offset)?;
        check_message(layout, message)?;
        let blocks = layout.blocks(ring, message.len());
        let mut u = poly::lift(ring, &poly::ternary(ring, &keys.ephemeral, blocks)?);
        poly::forward(backend, ring, &mut u)?;
        let half = |public: &[u32], error: &StreamKey, message: &[u64]| -> Result<Vec<u32>, HeError> {
            let mut e = poly::lift(ring, &poly::binomial(backend, ring, ETA, error, blocks)?);
            add_message(ring, layout, &mut e, message);
            poly::forward(backend, ring, &mut e)?;
            let mut product = u.clone();
            poly::multiply(ring, &mut product, public);
            poly::add(ring, &mut e, &product);
            Ok(e.to_vec())
        };
        let c0 = half(key.public(), &keys.first_error, message)?;
        let c1 = half(key.common(), &keys.second_error, &[])?;
        Ok(Self { ring: ring.clone(), c0, c1, weight: 1, squares: 1 })
    }

    /// N and the primes.
    #[must_use]
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.c0.len() / self.ring.len()
    }

    /// W: the sum of the weights of what was added.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// V: the sum of their squares.
    #[must_use]
    pub const fn squares(&self) -> u64 {
        self.squares
    }

    /// c0 and c1, transformed, `[blocks x L x N]`.
    #[must_use]
    pub fn halves(&self) -> (&[u32], &[u32]) {
        (&self.c0, &self.c1)
    }

    /// Refuses a ciphertext with a half that is zero in some limb of some block: a late one could cancel the c1 of a sum.
    ///
    /// # Errors
    /// [`HeError::Zero`].
    pub fn refuse_zero(&self) -> Result<(), HeError> {
        poly::refuse_zero(&self.ring, "the first half of a ciphertext", &self.c0)?;
        poly::refuse_zero(&self.ring, "the second half of a ciphertext", &self.c1)
    }

    /// Adds another ciphertext.
    ///
    /// # Errors
    /// Another ring, another number of blocks, one that is zero; nothing changes then.
    pub fn add(&mut self, other: &Self) -> Result<(), HeError> {
        if self.ring != other.ring {
            return Err(HeError::ForeignRing { what: "a ciphertext" });
        }
        if self.c0.len() != other.c0.len() {
            let (expected, found) = (self.blocks(), other.blocks());
            return Err(HeError::Length { what: "a ciphertext (in blocks)", expected, found });
        }
        other.refuse_zero()?;
        let weight = self.weight.checked_add(other.weight);
        let squares = self.squares.checked_add(other.squares);
        let (Some(weight), Some(squares)) = (weight, squares) else {
            let (found, planned) = (other.weight, u64::MAX - self.weight);
            return Err(HeError::BeyondPlan { what: "the weight of a ciphertext", found, planned });
        };
        poly::add(&self.ring, &mut self.c0, &other.c0);
        poly::add(&self.ring, &mut self.c1, &other.c1);
        (self.weight, self.squares) = (weight, squares);
        Ok(())
    }

    /// Multiplies by an integer weight w >= 1: of a ciphertext of one client, before it is added.
    ///
    /// # Errors
    /// Weight zero, one of `2^30` or more, or squares beyond 64 bits; nothing changes then.
    pub fn weigh(&mut self, w: u32) -> Result<(), HeError> {
        let squares = self.squares.checked_mul(u64::from(w) * u64::from(w));
        let (1..=0x3fff_ffff, Some(squares), Some(weight)) = (w, squares, self.weight.checked_mul(u64::from(w))) else {
            return Err(HeError::OutOfRange { name: "weight", found: u64::from(w), least: 1, most: 0x3fff_ffff });
        };
        let residues: Vec<u32> =
            self.ring.basis().limbs().iter().map(|limb| limb.modulus().reduce(u64::from(w))).collect();
        poly::scale(&self.ring, &mut self.c0, &residues);
        poly::scale(&self.ring, &mut self.c1, &residues);
        (self.weight, self.squares) = (weight, squares);
        Ok(())
    }

    /// `SHA-256(domain | ring | blocks | c0 | c1)`: what clients sign and holders are asked about.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"veilsum he ciphertext v1");
        hash_ring(&mut hash, &self.ring);
        hash.update((self.blocks() as u64).to_le_bytes());
        hash_residues(&mut hash, &self.c0);
        hash_residues(&mut hash, &self.c1);
        hash.finalize().into()
    }
}
