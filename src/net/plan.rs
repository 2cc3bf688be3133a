//! What a server decides of a round, signed: a client acts on nothing else.
//!
//! The body is JSON, signed as it lies; it is stored before anybody hears of it, so that a server that was killed says the same
//! again. A client that has seen a plan of an attempt takes no other for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fl::SERVER;
use crate::fl::notice::Notice;
use crate::fl::protocol::Directory;
use crate::math::prg::Secret;
use crate::secagg::SecAggError;
use crate::secagg::identity::{Domain, Identity, Roster, SIGNATURE_BYTES};
use crate::secagg::oneshot::HolderKeys;

/// What a signature of a plan is about: no kind of frame.
const KIND: u8 = 96;

/// Bytes that lie in the object store, by their hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// SHA-256.
    #[serde(with = "hex::serde")]
    pub id: [u8; 32],
    /// Bytes.
    pub len: u64,
}

/// A round of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundPlan {
    /// The run.
    #[serde(with = "hex::serde")]
    pub session: [u8; 16],
    /// SHA-256 of the run's plan.
    #[serde(with = "hex::serde")]
    pub plan: [u8; 32],
    /// The round.
    pub notice: Notice,
    /// The model that clients start from: its weights as little-endian `f32`.
    pub model: ObjectRef,
    /// [`Parties`] as JSON.
    pub parties: ObjectRef,
}

/// The pinned keys of a run's parties.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parties {
    /// Of clients 0, 1, ...: Ed25519.
    pub clients: Vec<Key>,
    /// Of key holders 1, 2, ...
    pub holders: Vec<Holder>,
}

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(#[serde(with = "hex::serde")] pub [u8; 32]);

/// A key holder's public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Ed25519.
    pub identity: Key,
    /// X25519.
    pub channel: Key,
}

impl Parties {
    /// The keys as the protocols take them.
    ///
    /// # Errors
    /// A key that is there twice, or is none.
    pub fn directory(&self) -> Result<Directory, SecAggError> {
        let clients = Roster::new((0..).zip(self.clients.iter().map(|key| key.0)))?;
        let holder = |keys: &Holder| HolderKeys { identity: keys.identity.0, channel: keys.channel.0 };
        Ok(Directory::Pinned { clients: Arc::new(clients), holders: self.holders.iter().map(holder).collect() })
    }

    /// The bytes of the object.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn domain(session: &[u8; 16]) -> Domain {
    let mut hash = Sha256::new();
    hash.update(b"veilsum round plan v1");
    hash.update(session);
    Domain { context: hash.finalize().into(), kind: KIND, client: SERVER }
}

/// The signature of the body of a plan.
#[must_use]
pub fn sign(identity: &Identity, session: &[u8; 16], body: &[u8]) -> [u8; SIGNATURE_BYTES] {
    identity.sign(&domain(session), body)
}

/// Checks the signature of the body of a plan under the server's public key.
///
/// # Errors
/// Another body, run or key; a key that is none.
pub fn verify(server: &[u8; 32], session: &[u8; 16], body: &[u8], signature: &[u8]) -> Result<(), SecAggError> {
    let refused = SecAggError::Signature { client: SERVER };
    let signature: [u8; SIGNATURE_BYTES] = signature.try_into().map_err(|_| refused.clone())?;
    let roster = Roster::new([(SERVER, *server)])?;
    roster.verify(&domain(session), body, &signature).map_err(|_| refused)
}

/// The weights of a model object.
///
/// # Errors
/// A length that is no multiple of four: `None`.
#[must_use]
pub fn weights(bytes: &[u8]) -> Option<Vec<f32>> {
    let (words, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// The bytes of a model object.
#[must_use]
pub fn weight_bytes(weights: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * weights.len());
    weights.iter().for_each(|weight| bytes.extend_from_slice(&weight.to_le_bytes()));
    bytes
}

/// What signs the enrolment of a key: that whoever asks for a certificate has it.
#[must_use]
pub fn enrolment_domain() -> Domain {
    Domain { context: Sha256::digest(b"veilsum enrolment v1").into(), kind: KIND + 1, client: SERVER }
}

/// A secret of a party that takes part in one run, from what its folder keeps: another run has another, whatever its rounds are
/// called.
#[must_use]
pub fn run_secret(secret: &Secret, session: &[u8; 16], plan: &[u8; 32]) -> Secret {
    let key =
        secret.derive_bound(session, crate::math::prg::Purpose::PartyRun, plan, crate::math::prg::Cipher::ChaCha20);
    Secret::from_bytes(*key.expose())
}
