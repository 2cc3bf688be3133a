//! What a client draws. Everything comes from one secret, what the parties agree on, and a hash of the vector: other data
//! never meet the same randomness, and a retry repeats its bytes.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::session::{HolderKeys, Session};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::secagg::channel::{PrivateKey, Route};
use crate::secagg::identity::Identity;

/// Purpose of the key between a client and a holder.
const SHARE: u8 = 1;

/// The secrets of one message.
pub(super) struct MessageKeys {
    /// The polynomial s.
    pub(super) secret: StreamKey,
    /// The errors.
    pub(super) error: StreamKey,
    /// Uniform values in the shares of s.
    pub(super) shares: StreamKey,
    /// Agrees on keys with the holders.
    pub(super) channel: PrivateKey,
}

impl MessageKeys {
    /// The keys of a client for a message whose vector has this hash.
    pub(super) fn new(session: &Session, index: usize, secret: &Secret, vector: &[u8; 32]) -> Self {
        let id = session.id();
        let mut hash = Sha256::new();
        hash.update(b"veilsum oneshot message v1");
        hash.update(session.context());
        hash.update(session.cohort()[index].to_le_bytes());
        hash.update(vector);
        let context: [u8; 32] = hash.finalize().into();
        let key = |purpose| secret.derive_bound(&id.session, purpose, &context, Cipher::ChaCha20);
        let mut channel = Zeroizing::new([0; 32]);
        key(Purpose::OneshotChannel).fill(0, &mut *channel);
        Self {
            secret: key(Purpose::OneshotSecret),
            error: key(Purpose::OneshotError),
            shares: key(Purpose::OneshotShares),
            channel: PrivateKey::from_bytes(*channel),
        }
    }
}

/// Hash of a packed vector. It keys the message and leaves this process never.
pub(super) fn vector_hash(packed: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(Sha256::digest(packed).into())
}

/// The route of a client's share to a holder.
pub(super) fn share_route(session: &Session, client: usize, holder: u16) -> Route {
    Route { context: *session.context(), from: session.cohort()[client], to: u64::from(holder), purpose: SHARE }
}

fn simulated(secret: &Secret, holder: u16, purpose: Purpose) -> Zeroizing<[u8; 32]> {
    let address = Address { client: u64::from(holder), ..Address::default() };
    let mut bytes = Zeroizing::new([0; 32]);
    secret.derive(&[0; 16], address, purpose, Cipher::ChaCha20).fill(0, &mut *bytes);
    bytes
}

/// A holder's channel key in a simulation that holds the secret of all.
#[must_use]
pub fn simulated_channel(secret: &Secret, holder: u16) -> PrivateKey {
    PrivateKey::from_bytes(*simulated(secret, holder, Purpose::HolderChannel))
}

/// A holder's identity and public keys in a simulation that holds the secret of all.
#[must_use]
pub fn simulated_holder(secret: &Secret, holder: u16) -> (Identity, HolderKeys) {
    let identity = Identity::from_bytes(&simulated(secret, holder, Purpose::HolderIdentity));
    let keys = HolderKeys { identity: identity.public(), channel: simulated_channel(secret, holder).public() };
    (identity, keys)
}
