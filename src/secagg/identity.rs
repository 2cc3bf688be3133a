//! Who is who: signing keys, and the roster of public keys that every party has pinned before a session.
//!
//! Signatures are Ed25519 (RFC 8032, strict verification: no small-order keys, no second encoding). What is signed is
//!
//! ```text
//! "veilsum signature v1" | kind u8 | context [32] | author u64 | body
//! ```
//! where the context is a hash of everything the parties have agreed on (session, round, attempt, cohort, roster,
//! shape, thresholds), so that no signature says anything in another round, attempt, protocol or kind of frame.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::SecAggError;
use crate::math::prg::{Address, Cipher, Purpose, Secret};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key.
pub const KEY_BYTES: usize = 32;

/// What a signature is about, besides its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Hash of what the parties have agreed on.
    pub context: [u8; 32],
    /// Kind of the frame or statement.
    pub kind: u8,
    /// Author.
    pub client: u64,
}

impl Domain {
    fn message(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + body.len());
        out.extend_from_slice(b"veilsum signature v1");
        out.push(self.kind);
        out.extend_from_slice(&self.context);
        out.extend_from_slice(&self.client.to_le_bytes());
        out.extend_from_slice(body);
        out
    }
}

/// A client's signing key. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// The key of a 32-byte seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A client's key in a simulation that holds the secret of all: the same in every session.
    #[must_use]
    pub fn simulated(secret: &Secret, client: u64) -> Self {
        let address = Address { client, ..Address::default() };
        let mut seed = Zeroizing::new([0; 32]);
        secret.derive(&[0; 16], address, Purpose::Identity, Cipher::ChaCha20).fill(0, &mut *seed);
        Self::from_bytes(&seed)
    }

    /// The public key, for the roster.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `body` in `domain`; the same bytes every time.
    #[must_use]
    pub fn sign(&self, domain: &Domain, body: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(&domain.message(body)).to_bytes()
    }
}

/// The public keys of all clients that may take part, pinned before anything else happens.
#[derive(Clone, Debug)]
pub struct Roster {
    keys: BTreeMap<u64, VerifyingKey>,
}

impl Roster {
    /// A roster of clients and their public keys.
    ///
    /// # Errors
    /// A client or a key that is there twice; bytes that are no key, or one of small order.
    pub fn new(clients: impl IntoIterator<Item = (u64, [u8; KEY_BYTES])>) -> Result<Self, SecAggError> {
        let mut keys = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (client, bytes) in clients {
            let refuse = |problem| Err(SecAggError::Identity { client, problem });
            let Ok(key) = VerifyingKey::from_bytes(&bytes) else { return refuse("has bytes that are no Ed25519 key") };
            if key.is_weak() {
                return refuse("has a key of small order");
            }
            if keys.insert(client, key).is_some() {
                return refuse("is in the roster twice");
            }
            if owners.insert(bytes, client).is_some() {
                return refuse("has the key of another client");
            }
        }
        Ok(Self { keys })
    }

    /// Number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of a client.
    #[must_use]
    pub fn key(&self, client: u64) -> Option<[u8; KEY_BYTES]> {
        self.keys.get(&client).map(VerifyingKey::to_bytes)
    }

    /// SHA-256 of the clients of `members` with their keys, for a context.
    ///
    /// # Errors
    /// A member that is not in the roster.
    pub fn digest(&self, members: &[u64]) -> Result<[u8; 32], SecAggError> {
        let mut hash = Sha256::new();
        hash.update(b"veilsum roster v1");
        for &client in members {
            let key = self.key(client).ok_or(SecAggError::Identity { client, problem: "is not in the roster" })?;
            hash.update(client.to_le_bytes());
            hash.update(key);
        }
        Ok(hash.finalize().into())
    }

    /// Checks that the author named in `domain` has signed `body`.
    ///
    /// # Errors
    /// An author who is not in the roster, a signature of another key, domain or body.
    pub fn verify(&self, domain: &Domain, body: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), SecAggError> {
        let refused = SecAggError::Signature { client: domain.client };
        let Some(key) = self.keys.get(&domain.client) else { return Err(refused) };
        key.verify_strict(&domain.message(body), &ed25519_dalek::Signature::from_bytes(signature)).map_err(|_| refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(n: u8) -> Identity {
        Identity::from_bytes(&[n; 32])
    }

    /// RFC 8032, section 7.1, test 1: the key.
    #[test]
    fn the_key_of_the_rfc() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let identity = Identity::from_bytes(&seed.try_into().unwrap());
        assert_eq!(hex::encode(identity.public()), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(format!("{identity:?}"), "Identity(..)");
    }

    #[test]
    fn a_signature_holds_in_its_domain_alone() {
        let (a, b) = (identity(1), identity(2));
        let roster = Roster::new([(1, a.public()), (2, b.public())]).unwrap();
        let domain = Domain { context: [7; 32], kind: 3, client: 1 };
        let signature = a.sign(&domain, b"body");
        assert_eq!(signature, a.sign(&domain, b"body"));
        roster.verify(&domain, b"body", &signature).unwrap();
        for other in [
            Domain { context: [8; 32], ..domain },
            Domain { kind: 4, ..domain },
            Domain { client: 2, ..domain },
            Domain { client: 3, ..domain },
        ] {
            assert!(roster.verify(&other, b"body", &signature).is_err(), "{other:?}");
        }
        assert!(roster.verify(&domain, b"bodx", &signature).is_err());
        assert!(roster.verify(&domain, b"body", &b.sign(&domain, b"body")).is_err());
        for bit in 0..512 {
            let mut bad = signature;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(roster.verify(&domain, b"body", &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn rosters_with_a_doubtful_key_are_refused() {
        let key = identity(1).public();
        let problem = |clients: &[(u64, [u8; 32])]| match Roster::new(clients.iter().copied()) {
            Err(SecAggError::Identity { client, problem }) => (client, problem),
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(&[(1, key), (1, identity(2).public())]), (1, "is in the roster twice"));
        assert_eq!(problem(&[(1, key), (5, key)]), (5, "has the key of another client"));
        // The neutral element, a point of order 2, and bytes that are on no curve.
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(problem(&[(3, one)]).1, "has a key of small order");
        let mut other = [0xff; 32];
        (other[0], other[31]) = (0xec, 0x7f);
        assert_eq!(problem(&[(3, other)]).1, "has a key of small order");
        one[0] = 2;
        assert_eq!(problem(&[(4, one)]).1, "has bytes that are no Ed25519 key");
        assert!(Roster::new([(1, key)]).unwrap().digest(&[1, 2]).is_err());
    }
}
