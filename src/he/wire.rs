//! Keys, shares and ciphertexts as bytes, version 1. Integers are little-endian.
//!
//! ```text
//! 0 magic "VSHE"   4 version 1   5 kind   6 log2 N   7 L   8 primes [L x u32]
//! then the fields of the kind, in the order of `to_bytes`; polynomials limb by limb, each residue in the bits of its
//! prime, side by side, least significant first (whole bytes a row, since N is a multiple of 8)
//! ```
//! A reader knows what it expects and how long that is: magic, version, kind, ring and length are checked before anything
//! is allocated, residues before they are used, and nothing may follow. Secrets are read and written in a time that
//! depends on lengths alone, into memory that is wiped.

mod codec;

use zeroize::Zeroizing;

use self::codec::{Kind, Reader, Writer};
use super::collective::{CollectiveKey, Commitment, Contribution, KeySetup, KeyShare};
use super::encrypt::Ciphertext;
use super::error::HeError;
use super::params::Ring;
use super::poly::{self, SecretPoly};
use super::shamir::{HolderShare, ShareDeal, Threshold};
use super::symmetric::SecretKey;
use super::threshold::{HolderSet, OpeningGuard, PartialOpening};

/// What files and frames begin with.
pub const MAGIC: [u8; 4] = *b"VSHE";
/// Version written and accepted.
pub const VERSION: u8 = 1;

/// Bytes before the fields of a kind.
fn header_len(ring: &Ring) -> usize {
    8 + 4 * ring.limbs()
}

impl Commitment {
    /// Holder, digest.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Vec<u8> {
        let mut w = Writer::new(Kind::Commitment, ring, 0);
        w.word(self.holder).bytes(&self.digest);
        w.public()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a commitment", bytes, Kind::Commitment, ring)?;
        let out = Self { holder: r.word()?, digest: r.take()? };
        r.end().map(|()| out)
    }
}

impl Contribution {
    /// Bytes of a contribution.
    #[must_use]
    pub fn encoded_len(ring: &Ring) -> usize {
        header_len(ring) + 2 + 32 + ring.bytes()
    }

    /// Holder, opening, p_i.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Vec<u8> {
        let mut w = Writer::new(Kind::Contribution, ring, 1);
        w.word(self.holder).bytes(&self.opening).poly(ring, &self.poly);
        w.public()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a contribution", bytes, Kind::Contribution, ring)?;
        let out = Self { holder: r.word()?, opening: r.take()?, poly: r.poly(ring, 1)?.to_vec() };
        r.end().map(|()| out)
    }
}

impl CollectiveKey {
    /// Session, seed, K, t, f, p.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (setup, t) = (self.setup(), self.setup().threshold);
        let mut w = Writer::new(Kind::CollectiveKey, &setup.ring, 1);
        w.bytes(&setup.session).bytes(&setup.seed).word(t.holders()).word(t.needed()).word(t.corrupt());
        w.poly(&setup.ring, &self.public);
        w.public()
    }

    /// The key with its ring, which is checked as [`Ring::new`] does: all that a late joiner needs, with the holders'
    /// signatures over [`CollectiveKey::digest`].
    ///
    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives; a ring, a threshold or a key that is refused anywhere.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::open("a collective key", bytes, Kind::CollectiveKey)?;
        let (degree, primes) = r.ring()?;
        let ring = Ring::new(degree, &primes)?;
        let (session, seed) = (r.take()?, r.take()?);
        let threshold = Threshold::new(r.word()?, r.word()?, r.word()?)?;
        let public = r.poly(&ring, 1)?.to_vec();
        r.end()?;
        Self::new(KeySetup { ring, session, seed, threshold }, public)
    }
}

impl KeyShare {
    /// Session, holder, s_i. Secret.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::new(Kind::KeyShare, ring, 1);
        w.bytes(&self.session).word(self.holder).poly(ring, self.secret.expose());
        w.secret()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a key share", bytes, Kind::KeyShare, ring)?;
        let out = Self { session: r.take()?, holder: r.word()?, secret: SecretPoly::trusted(r.poly(ring, 1)?) };
        r.end().map(|()| out)
    }
}

impl ShareDeal {
    /// Bytes of a share.
    #[must_use]
    pub fn encoded_len(ring: &Ring) -> usize {
        header_len(ring) + 16 + 2 + 2 + ring.bytes()
    }

    /// Session, dealer, holder, F_i(j). Secret.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::new(Kind::ShareDeal, ring, 1);
        w.bytes(&self.session).word(self.dealer).word(self.holder).poly(ring, self.poly.expose());
        w.secret()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring; a share that is zero.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a share", bytes, Kind::ShareDeal, ring)?;
        let (session, dealer, holder) = (r.take()?, r.word()?, r.word()?);
        let poly = r.poly(ring, 1)?;
        r.end()?;
        poly::refuse_zero(ring, "a share", &poly)?;
        Ok(Self { session, dealer, holder, poly: SecretPoly::trusted(poly) })
    }
}

impl HolderShare {
    /// Session, holder, sigma_j. Secret.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::new(Kind::HolderShare, ring, 1);
        w.bytes(&self.session).word(self.holder).poly(ring, self.poly.expose());
        w.secret()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a holder's share", bytes, Kind::HolderShare, ring)?;
        let out = Self { session: r.take()?, holder: r.word()?, poly: SecretPoly::trusted(r.poly(ring, 1)?) };
        r.end().map(|()| out)
    }
}

impl Ciphertext {
    /// Bytes of a ciphertext of `blocks` blocks.
    #[must_use]
    pub fn encoded_len(ring: &Ring, blocks: usize) -> usize {
        header_len(ring) + 3 * 8 + 2 * blocks * ring.bytes()
    }

    /// W, V, blocks, c0, c1.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new(Kind::Ciphertext, &self.ring, 2 * self.blocks());
        w.long(self.weight).long(self.squares).long(self.blocks() as u64);
        w.poly(&self.ring, &self.c0).poly(&self.ring, &self.c1);
        w.public()
    }

    /// W and V are what the sender says: whoever adds ciphertexts of clients sets the weights itself, with
    /// [`Self::single`].
    ///
    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring; a half that is zero; impossible weights.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a ciphertext", bytes, Kind::Ciphertext, ring)?;
        let (weight, squares) = (u64::from_le_bytes(r.take()?), u64::from_le_bytes(r.take()?));
        super::noise::Weights::new(weight, squares, weight)?;
        let blocks = r.count("blocks of a ciphertext", 2 * ring.bytes())?;
        let (c0, c1) = (r.poly(ring, blocks)?.to_vec(), r.poly(ring, blocks)?.to_vec());
        r.end()?;
        let out = Self { ring: ring.clone(), c0, c1, weight, squares };
        out.refuse_zero().map(|()| out)
    }

    /// A client's ciphertext: weight 1 and exactly `blocks` blocks, or an error.
    ///
    /// # Errors
    /// As [`Self::from_bytes`]; another weight or another number of blocks.
    pub fn single(ring: &Ring, blocks: usize, bytes: &[u8]) -> Result<Self, HeError> {
        let found = Self::from_bytes(ring, bytes)?;
        if found.weight != 1 {
            return Err(HeError::BeyondPlan {
                what: "the weight of a client's ciphertext",
                found: found.weight,
                planned: 1,
            });
        }
        if found.blocks() != blocks {
            return Err(HeError::Length { what: "a ciphertext (in blocks)", expected: blocks, found: found.blocks() });
        }
        Ok(found)
    }
}

impl PartialOpening {
    /// Session, hash of the sum, holder, T (its size, its holders), blocks, h_j.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Vec<u8> {
        let blocks = self.poly.len() / ring.len();
        let mut w = Writer::new(Kind::PartialOpening, ring, blocks);
        w.bytes(&self.session).bytes(&self.digest).word(self.holder).word(self.set.holders().len() as u16);
        self.set.holders().iter().for_each(|&j| {
            w.word(j);
        });
        w.long(blocks as u64).poly(ring, &self.poly);
        w.public()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring; a set that is none for this threshold, or not in order.
    pub fn from_bytes(ring: &Ring, threshold: Threshold, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a part of an opening", bytes, Kind::PartialOpening, ring)?;
        let (session, digest, holder, size) = (r.take()?, r.take()?, r.word()?, r.word()?);
        let (expected, found) = (usize::from(threshold.needed()), usize::from(size));
        if found != expected {
            return Err(HeError::Set { expected, found });
        }
        let holders = (0..size).map(|_| r.word()).collect::<Result<Vec<u16>, HeError>>()?;
        let set = HolderSet::new(threshold, &holders)?;
        if set.holders() != holders {
            return Err(HeError::Set { expected, found });
        }
        if !holders.contains(&holder) {
            return Err(HeError::NotInSet { holder });
        }
        let blocks = r.count("blocks of a part of an opening", ring.bytes())?;
        let poly = r.poly(ring, blocks)?.to_vec();
        r.end()?;
        Ok(Self { holder, session, digest, set, poly })
    }
}

impl OpeningGuard {
    /// Number of openings; session, hash of the sum, hash of sum and set of each, in the order of the sessions; the sets of
    /// a session in the order in which they were answered.
    #[must_use]
    pub fn to_bytes(&self, ring: &Ring) -> Vec<u8> {
        let mut w = Writer::new(Kind::OpeningGuard, ring, 0);
        w.long(self.len());
        for (session, (digest, requests)) in &self.answered {
            for request in requests {
                w.bytes(session).bytes(digest).bytes(request);
            }
        }
        w.public()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let what = "a record of openings";
        let mut r = Reader::of(what, bytes, Kind::OpeningGuard, ring)?;
        let count = r.count("openings on record", 80)?;
        let mut answered = std::collections::BTreeMap::<[u8; 16], ([u8; 32], Vec<[u8; 32]>)>::new();
        for _ in 0..count {
            let (session, digest, request) = (r.take()?, r.take()?, r.take()?);
            let ascending = answered.last_key_value().is_none_or(|(last, _)| *last <= session);
            let (known, requests) = answered.entry(session).or_insert_with(|| (digest, Vec::new()));
            if !ascending || *known != digest || requests.contains(&request) {
                return Err(HeError::ForeignSession { what });
            }
            requests.push(request);
        }
        r.end()?;
        Ok(Self { answered })
    }
}

impl SecretKey {
    /// s. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut w = Writer::new(Kind::SecretKey, &self.ring, 1);
        w.poly(&self.ring, self.secret.expose());
        w.secret()
    }

    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives for this ring; a key that is zero.
    pub fn from_bytes(ring: &Ring, bytes: &[u8]) -> Result<Self, HeError> {
        let mut r = Reader::of("a secret key", bytes, Kind::SecretKey, ring)?;
        let secret = r.poly(ring, 1)?;
        r.end()?;
        poly::refuse_zero(ring, "a secret key", &secret)?;
        Ok(Self { ring: ring.clone(), secret: SecretPoly::trusted(secret) })
    }
}
