//! Writing and reading of headers, integers and polynomials.

use zeroize::{Zeroize, Zeroizing};

use super::{MAGIC, VERSION};
use crate::he::error::HeError;
use crate::he::params::{Ring, prime_bits};
use crate::he::poly;

/// Most limbs of a ring: 881 bits of 30.
const MAX_LIMBS: usize = 64;
/// Most blocks of a ciphertext, and most records of a guard.
const MAX_COUNT: u64 = 1 << 36;

/// The kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Commitment = 1,
    Contribution = 2,
    CollectiveKey = 3,
    KeyShare = 4,
    ShareDeal = 5,
    HolderShare = 6,
    Ciphertext = 7,
    PartialOpening = 8,
    OpeningGuard = 9,
    SecretKey = 10,
}

/// Bytes being written; wiped unless they are handed out.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// With room for `polynomials` polynomials, so that no secret is copied by growth.
    pub(super) fn new(kind: Kind, ring: &Ring, polynomials: usize) -> Self {
        let mut out = Zeroizing::new(Vec::with_capacity(1024 + ring.bytes() * polynomials));
        out.extend(MAGIC);
        out.extend([VERSION, kind as u8, ring.degree().ilog2() as u8, ring.limbs() as u8]);
        ring.basis().primes().for_each(|p| out.extend(p.to_le_bytes()));
        Self(out)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn word(&mut self, x: u16) -> &mut Self {
        self.bytes(&x.to_le_bytes())
    }

    pub(super) fn long(&mut self, x: u64) -> &mut Self {
        self.bytes(&x.to_le_bytes())
    }

    pub(super) fn poly(&mut self, ring: &Ring, residues: &[u32]) -> &mut Self {
        for (row, x) in residues.chunks_exact(ring.degree()).enumerate() {
            let bits = limb_bits(ring, row % ring.limbs());
            let (mut held, mut have) = (0u64, 0u32);
            for &v in x {
                held |= u64::from(v) << have;
                have += bits;
                while have >= 8 {
                    self.0.push(held as u8);
                    held >>= 8;
                    have -= 8;
                }
            }
        }
        self
    }

    /// The bytes of something public.
    pub(super) fn public(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The bytes of a secret.
    pub(super) fn secret(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Bits of a residue of a limb.
fn limb_bits(ring: &Ring, limb: usize) -> u32 {
    prime_bits(ring.basis().limbs()[limb].modulus().value())
}

/// Bytes still to be read.
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Checks magic, version and kind.
    pub(super) fn open(what: &'static str, bytes: &'a [u8], kind: Kind) -> Result<Self, HeError> {
        let mut reader = Self { what, bytes, at: 0 };
        let magic: [u8; 4] = reader.take()?;
        let [version, found] = reader.take()?;
        let expected = (MAGIC, VERSION, kind as u8);
        if (magic, version, found) != expected {
            return Err(HeError::Format { what, magic, version, kind: found, expected });
        }
        Ok(reader)
    }

    /// The same, of a ring that is known.
    pub(super) fn of(what: &'static str, bytes: &'a [u8], kind: Kind, ring: &Ring) -> Result<Self, HeError> {
        let mut reader = Self::open(what, bytes, kind)?;
        let (degree, primes) = reader.ring()?;
        if degree != ring.degree() || !ring.basis().primes().eq(primes) {
            return Err(HeError::ForeignRing { what });
        }
        Ok(reader)
    }

    pub(super) fn ring(&mut self) -> Result<(usize, Vec<u32>), HeError> {
        let [log2, limbs] = self.take()?;
        for (name, found, most) in
            [("log2 N", u64::from(log2), 15), ("number of primes", u64::from(limbs), MAX_LIMBS as u64)]
        {
            if !(1..=most).contains(&found) {
                return Err(HeError::OutOfRange { name, found, least: 1, most });
            }
        }
        let primes = (0..limbs).map(|_| Ok(u32::from_le_bytes(self.take()?))).collect::<Result<_, HeError>>()?;
        Ok((1 << log2, primes))
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], HeError> {
        let end = self.at.saturating_add(len);
        let Some(slice) = self.bytes.get(self.at..end) else {
            return Err(HeError::Length { what: self.what, expected: end, found: self.bytes.len() });
        };
        self.at = end;
        Ok(slice)
    }

    pub(super) fn take<const W: usize>(&mut self) -> Result<[u8; W], HeError> {
        let mut out = [0; W];
        out.copy_from_slice(self.slice(W)?);
        Ok(out)
    }

    pub(super) fn word(&mut self) -> Result<u16, HeError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    /// A number of things that take `size` bytes each, for which there are bytes.
    pub(super) fn count(&mut self, name: &'static str, size: usize) -> Result<usize, HeError> {
        let found = u64::from_le_bytes(self.take()?);
        if found > MAX_COUNT {
            return Err(HeError::OutOfRange { name, found, least: 0, most: MAX_COUNT });
        }
        let needed = (found as usize).saturating_mul(size).saturating_add(self.at);
        if needed > self.bytes.len() {
            return Err(HeError::Length { what: self.what, expected: needed, found: self.bytes.len() });
        }
        Ok(found as usize)
    }

    /// `batch` polynomials, all residues checked.
    pub(super) fn poly(&mut self, ring: &Ring, batch: usize) -> Result<Zeroizing<Vec<u32>>, HeError> {
        let slice = self.slice(ring.bytes().saturating_mul(batch))?;
        let mut out = Zeroizing::new(vec![0u32; batch * ring.len()]);
        let mut bytes = slice.iter();
        for (row, out) in out.chunks_exact_mut(ring.degree()).enumerate() {
            let bits = limb_bits(ring, row % ring.limbs());
            let (mut held, mut have) = (0u64, 0u32);
            for x in out {
                while have < bits {
                    held |= u64::from(bytes.next().copied().unwrap_or(0)) << have;
                    have += 8;
                }
                *x = (held & ((1 << bits) - 1)) as u32;
                held >>= bits;
                have -= bits;
            }
            held.zeroize();
        }
        poly::check(ring, self.what, &out, batch)?;
        Ok(out)
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Result<(), HeError> {
        if self.at != self.bytes.len() {
            return Err(HeError::Length { what: self.what, expected: self.at, found: self.bytes.len() });
        }
        Ok(())
    }
}
