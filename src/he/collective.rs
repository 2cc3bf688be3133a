//! A public key that nobody has the secret of: `p = sum p_i`, `p_i = -a s_i + e_i`, committed before any is opened.
//!
//! Without the commitments the last holder could choose its p_i after the others' and make p its own key. All holders
//! send their [`Commitment`], then, once all are there, their [`Contribution`]; [`KeyCeremony`] takes both in that order
//! alone. Clients accept the key with the signatures of all pinned holders over [`CollectiveKey::digest`].

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::ETA;
use super::error::HeError;
use super::params::Ring;
use super::poly::{self, SecretPoly};
use super::shamir::{self, ShareDeal, Threshold};
use crate::backend::Backend;
use crate::math::prg::{Cipher, Purpose, Secret};

/// What all of a key's holders agree on before they begin. Public.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySetup {
    /// N and the primes.
    pub ring: Ring,
    /// The session of the key; every key has its own.
    pub session: [u8; 16],
    /// What the common polynomial a is expanded from.
    pub seed: [u8; 32],
    /// K, t, f.
    pub threshold: Threshold,
}

impl KeySetup {
    /// A hash over the set-up, begun for `domain`.
    pub(super) fn hash(&self, domain: &[u8]) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(domain);
        hash.update(self.session);
        hash.update(self.seed);
        let t = self.threshold;
        [t.holders(), t.needed(), t.corrupt()].iter().for_each(|x| hash.update(x.to_le_bytes()));
        hash_ring(&mut hash, &self.ring);
        hash
    }

    /// a, transformed, `[L x N]`: uniform residues under a stream that the seed and this set-up give.
    ///
    /// # Errors
    /// None for a ring that exists.
    pub fn common(&self) -> Result<Vec<u32>, HeError> {
        let context: [u8; 32] = self.hash(b"veilsum he common polynomial v1").finalize().into();
        let stream =
            Secret::from_bytes(self.seed).derive_bound(&self.session, Purpose::Expand, &context, Cipher::ChaCha20);
        Ok(poly::uniform(&self.ring, &stream, 0, 1)?.to_vec())
    }
}

/// Adds N and the primes to a hash.
pub(super) fn hash_ring(hash: &mut Sha256, ring: &Ring) {
    hash.update((ring.degree() as u32).to_le_bytes());
    hash.update((ring.limbs() as u32).to_le_bytes());
    ring.basis().primes().for_each(|p| hash.update(p.to_le_bytes()));
}

/// Adds residues to a hash.
pub(super) fn hash_residues(hash: &mut Sha256, residues: &[u32]) {
    residues.iter().for_each(|r| hash.update(r.to_le_bytes()));
}

/// A holder's secret s_i. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct KeyShare {
    pub(super) session: [u8; 16],
    pub(super) holder: u16,
    pub(super) secret: SecretPoly,
}

impl fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyShare({}, ..)", self.holder)
    }
}

/// The hash of a contribution and a random opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// i.
    pub holder: u16,
    /// SHA-256.
    pub digest: [u8; 32],
}

/// p_i, transformed, with what opens the commitment to it. Public once all have committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    pub(super) holder: u16,
    pub(super) opening: [u8; 32],
    pub(super) poly: Vec<u32>,
}

impl Contribution {
    /// i.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.holder
    }

    /// `SHA-256(domain | set-up | holder | opening | p_i)`.
    #[must_use]
    pub fn commitment(&self, setup: &KeySetup) -> Commitment {
        let mut hash = setup.hash(b"veilsum he key commitment v1");
        hash.update(self.holder.to_le_bytes());
        hash.update(self.opening);
        hash_residues(&mut hash, &self.poly);
        Commitment { holder: self.holder, digest: hash.finalize().into() }
    }
}

impl KeyShare {
    /// Holder i's secret and its contribution, from a secret of its own: s_i ternary, e_i from CBD(21), each under a
    /// stream of this session and holder. The same input gives the same key: a set-up that begins again takes another
    /// session.
    ///
    /// # Errors
    /// An unknown holder; those of the backend.
    pub fn generate(
        backend: &dyn Backend,
        setup: &KeySetup,
        holder: u16,
        secret: &Secret,
    ) -> Result<(Self, Contribution), HeError> {
        setup.threshold.check(holder)?;
        let ring = &setup.ring;
        let stream = |purpose| derive(setup, holder, secret, purpose);
        let mut s = poly::lift(ring, &poly::ternary(ring, &stream(Purpose::HolderSecret), 1)?);
        poly::forward(backend, ring, &mut s)?;
        let mut e = poly::lift(ring, &poly::binomial(backend, ring, ETA, &stream(Purpose::HolderError), 1)?);
        poly::forward(backend, ring, &mut e)?;
        let mut product = s.clone();
        poly::multiply(ring, &mut product, &setup.common()?);
        poly::subtract(ring, &mut e, &product);
        let mut opening = [0u8; 32];
        stream(Purpose::CommitmentOpening).fill(0, &mut opening);
        let share = Self { session: setup.session, holder, secret: SecretPoly::trusted(s) };
        Ok((share, Contribution { holder, opening, poly: e.to_vec() }))
    }

    /// i.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.holder
    }

    /// s_i, transformed.
    #[must_use]
    pub const fn secret(&self) -> &SecretPoly {
        &self.secret
    }

    /// The K Shamir shares of s_i, in the order of the holders; each is for its holder alone.
    ///
    /// # Errors
    /// Another session's set-up.
    pub fn deal(&self, setup: &KeySetup, secret: &Secret) -> Result<Vec<ShareDeal>, HeError> {
        if setup.session != self.session {
            return Err(HeError::ForeignSession { what: "a key share" });
        }
        let coefficients = derive(setup, self.holder, secret, Purpose::SharingCoefficients);
        shamir::deal(&setup.ring, setup.threshold, (&setup.session, self.holder), &self.secret, &coefficients)
    }
}

/// The stream of one purpose of a holder's secret, bound to everything public about the set-up.
fn derive(setup: &KeySetup, holder: u16, secret: &Secret, purpose: Purpose) -> crate::math::prg::StreamKey {
    let mut hash = setup.hash(b"veilsum he holder streams v1");
    hash.update(holder.to_le_bytes());
    let context: [u8; 32] = hash.finalize().into();
    secret.derive_bound(&setup.session, purpose, &context, Cipher::ChaCha20)
}

/// p and a: what clients encrypt with.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectiveKey {
    pub(super) setup: KeySetup,
    pub(super) public: Vec<u32>,
    pub(super) common: Vec<u32>,
}

impl CollectiveKey {
    pub(super) fn new(setup: KeySetup, public: Vec<u32>) -> Result<Self, HeError> {
        poly::check(&setup.ring, "a collective key", &public, 1)?;
        poly::refuse_zero(&setup.ring, "a collective key", &public)?;
        let common = setup.common()?;
        Ok(Self { setup, public, common })
    }

    /// The set-up.
    #[must_use]
    pub const fn setup(&self) -> &KeySetup {
        &self.setup
    }

    /// p, transformed, `[L x N]`.
    #[must_use]
    pub fn public(&self) -> &[u32] {
        &self.public
    }

    /// a, transformed, `[L x N]`.
    #[must_use]
    pub fn common(&self) -> &[u32] {
        &self.common
    }

    /// What the holders sign: `SHA-256(domain | set-up | p)`.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = self.setup.hash(b"veilsum he collective key v1");
        hash_residues(&mut hash, &self.public);
        hash.finalize().into()
    }
}

/// The order of a key generation: commitments of all holders, then their contributions, then the key.
#[derive(Clone, Debug)]
pub struct KeyCeremony {
    setup: KeySetup,
    commitments: Vec<Option<[u8; 32]>>,
    contributions: Vec<Option<Vec<u32>>>,
}

impl KeyCeremony {
    /// Nothing has been sent yet.
    #[must_use]
    pub fn new(setup: KeySetup) -> Self {
        let holders = usize::from(setup.threshold.holders());
        Self { setup, commitments: vec![None; holders], contributions: vec![None; holders] }
    }

    /// Takes a commitment.
    ///
    /// # Errors
    /// An unknown holder, a second commitment of a holder, the commitment of another one; nothing changes then.
    pub fn commit(&mut self, commitment: &Commitment) -> Result<(), HeError> {
        self.setup.threshold.check(commitment.holder)?;
        let at = usize::from(commitment.holder) - 1;
        if self.commitments[at].is_some() || self.commitments.contains(&Some(commitment.digest)) {
            return Err(HeError::Duplicate { what: "the commitment", holder: commitment.holder });
        }
        self.commitments[at] = Some(commitment.digest);
        Ok(())
    }

    /// True once every holder has committed, so that contributions may be sent.
    #[must_use]
    pub fn all_committed(&self) -> bool {
        self.commitments.iter().all(Option::is_some)
    }

    /// Takes a contribution.
    ///
    /// # Errors
    /// A holder that has not committed yet (any of them), another contribution than the committed one, one that is
    /// malformed or zero, a second one, the same polynomial as another holder's; nothing changes then.
    pub fn open(&mut self, contribution: &Contribution) -> Result<(), HeError> {
        let (ring, holder) = (&self.setup.ring, contribution.holder);
        self.setup.threshold.check(holder)?;
        if let Some(missing) = self.commitments.iter().position(Option::is_none) {
            return Err(HeError::Uncommitted { missing: missing as u16 + 1 });
        }
        poly::check(ring, "a contribution", &contribution.poly, 1)?;
        poly::refuse_zero(ring, "a contribution", &contribution.poly)?;
        let at = usize::from(holder) - 1;
        if self.commitments[at] != Some(contribution.commitment(&self.setup).digest) {
            return Err(HeError::CommitmentMismatch { holder });
        }
        if self.contributions.iter().flatten().any(|other| *other == contribution.poly) {
            return Err(HeError::Duplicate { what: "the contribution", holder });
        }
        self.contributions[at] = Some(contribution.poly.clone());
        Ok(())
    }

    /// p, once all contributions are there.
    ///
    /// # Errors
    /// A missing contribution; contributions that cancel.
    pub fn finish(self) -> Result<CollectiveKey, HeError> {
        let mut sum = vec![0u32; self.setup.ring.len()];
        for (i, contribution) in self.contributions.iter().enumerate() {
            let Some(p) = contribution else {
                return Err(HeError::Missing { what: "the contribution", holder: i as u16 + 1 });
            };
            poly::add(&self.setup.ring, &mut sum, p);
        }
        CollectiveKey::new(self.setup, sum)
    }
}

/// A wiped copy of the sum of all secrets: for whoever may have all of them (a trusted aggregator, a test).
pub(super) fn sum_of_secrets(ring: &Ring, shares: &[KeyShare]) -> SecretPoly {
    let mut sum = Zeroizing::new(vec![0u32; ring.len()]);
    shares.iter().for_each(|share| poly::add(ring, &mut sum, share.secret.expose()));
    SecretPoly::trusted(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::Scalar;

    fn setup(holders: u16) -> KeySetup {
        KeySetup {
            ring: Ring::find(1024, 26, 1).unwrap(),
            session: [5; 16],
            seed: [6; 32],
            threshold: Threshold::new(holders, holders, 0).unwrap(),
        }
    }

    fn generate(setup: &KeySetup, holder: u16) -> (KeyShare, Contribution) {
        KeyShare::generate(&Scalar, setup, holder, &Secret::from_seed(u64::from(holder))).unwrap()
    }

    /// `p + a s` is the sum of the errors: small, and with the variance of CBD(K 21).
    #[test]
    fn the_key_is_an_instance_of_ring_lwe() {
        let setup = setup(3);
        let made: Vec<_> = (1..=3).map(|i| generate(&setup, i)).collect();
        let mut ceremony = KeyCeremony::new(setup.clone());
        made.iter().for_each(|(_, c)| ceremony.commit(&c.commitment(&setup)).unwrap());
        assert!(ceremony.all_committed());
        made.iter().for_each(|(_, c)| ceremony.open(c).unwrap());
        let key = ceremony.finish().unwrap();
        let shares: Vec<KeyShare> = made.into_iter().map(|(share, _)| share).collect();
        let mut e = sum_of_secrets(&setup.ring, &shares).expose().to_vec();
        let mut s = e.clone();
        poly::multiply(&setup.ring, &mut e, key.common());
        poly::add(&setup.ring, &mut e, key.public());
        poly::inverse(&Scalar, &setup.ring, &mut e).unwrap();
        poly::inverse(&Scalar, &setup.ring, &mut s).unwrap();
        let p = setup.ring.basis().primes().next().unwrap();
        let centred = |x: u32| if x > p / 2 { f64::from(x) - f64::from(p) } else { f64::from(x) };
        let variance = |x: &[u32]| x.iter().map(|&x| centred(x).powi(2)).sum::<f64>() / x.len() as f64;
        // 1024 coefficients: a standard error of about 4.5 per cent.
        assert!((variance(&e) / 31.5 - 1.0).abs() < 0.25, "{}", variance(&e));
        assert!((variance(&s) / 2.0 - 1.0).abs() < 0.25 && s.iter().all(|&x| centred(x).abs() <= 3.0));
        assert_eq!(format!("{:?}", shares[0]), "KeyShare(1, ..)");
    }

    #[test]
    fn nothing_is_opened_before_all_have_committed() {
        let setup = setup(2);
        let (one, two) = (generate(&setup, 1).1, generate(&setup, 2).1);
        let mut ceremony = KeyCeremony::new(setup.clone());
        ceremony.commit(&one.commitment(&setup)).unwrap();
        assert_eq!(ceremony.open(&one), Err(HeError::Uncommitted { missing: 2 }));
        let again = ceremony.commit(&one.commitment(&setup));
        assert!(matches!(again, Err(HeError::Duplicate { holder: 1, .. })));
        let copied = Commitment { holder: 2, ..one.commitment(&setup) };
        assert!(matches!(ceremony.commit(&copied), Err(HeError::Duplicate { holder: 2, .. })));
        assert!(matches!(ceremony.commit(&Commitment { holder: 3, ..copied }), Err(HeError::UnknownHolder { .. })));
        assert!(matches!(ceremony.commit(&Commitment { holder: 0, ..copied }), Err(HeError::UnknownHolder { .. })));
        ceremony.commit(&two.commitment(&setup)).unwrap();
        // A rogue key: chosen after the other's, to cancel it.
        let mut rogue = two.clone();
        poly::negate(&setup.ring, &mut rogue.poly);
        assert_eq!(ceremony.open(&rogue), Err(HeError::CommitmentMismatch { holder: 2 }));
        let mut other_opening = two.clone();
        other_opening.opening[0] ^= 1;
        assert_eq!(ceremony.open(&other_opening), Err(HeError::CommitmentMismatch { holder: 2 }));
        ceremony.open(&two).unwrap();
        assert!(matches!(ceremony.open(&two), Err(HeError::Duplicate { holder: 2, .. })));
        assert!(matches!(ceremony.clone().finish(), Err(HeError::Missing { holder: 1, .. })));
        ceremony.open(&one).unwrap();
        assert_ne!(ceremony.finish().unwrap().digest(), [0; 32]);
    }

    #[test]
    fn zero_malformed_and_cancelling_contributions_are_refused() {
        let setup = setup(2);
        let good = generate(&setup, 1).1;
        let mut negative = Contribution { holder: 2, ..good.clone() };
        poly::negate(&setup.ring, &mut negative.poly);
        let zero = Contribution { holder: 2, poly: vec![0; setup.ring.len()], ..good.clone() };
        let large = Contribution { holder: 2, poly: vec![u32::MAX; setup.ring.len()], ..good.clone() };
        let short = Contribution { holder: 2, poly: vec![1; 5], ..good.clone() };
        let same = Contribution { holder: 2, ..good.clone() };
        let with = |second: &Contribution| {
            let mut ceremony = KeyCeremony::new(setup.clone());
            ceremony.commit(&good.commitment(&setup)).unwrap();
            ceremony.commit(&second.commitment(&setup)).unwrap();
            ceremony.open(&good).unwrap();
            ceremony.open(second).and_then(|()| ceremony.finish().map(|_| ()))
        };
        assert!(matches!(with(&zero), Err(HeError::Zero { .. })));
        assert!(matches!(with(&large), Err(HeError::NotReduced { .. })));
        assert!(matches!(with(&short), Err(HeError::Length { .. })));
        assert!(matches!(with(&same), Err(HeError::Duplicate { holder: 2, .. })));
        assert!(matches!(with(&negative), Err(HeError::Zero { .. })), "p_1 + p_2 = 0");
    }
}
