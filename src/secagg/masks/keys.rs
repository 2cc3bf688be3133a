//! What a client draws, and the keys of the masks. Everything comes from one secret and what the parties agree on, so
//! that a retry repeats its bytes and another round, attempt, cohort or threshold has other keys.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::session::Session;
use super::wire::Keys;
use crate::backend::MaskSign;
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::secagg::SecAggError;
use crate::secagg::channel::{Agreement, PrivateKey, Route};

/// Purposes of keys between two clients.
const SHARES: u8 = 1;
const MASK: u8 = 2;

/// `HKDF-SHA256(key, salt, info)`.
fn expand(salt: &[u8], key: &[u8; 32], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand_multi_info(info, &mut *out)
        .expect("32 bytes are within the limit of HKDF-SHA256");
    out
}

/// The secrets of one client in one aggregation.
pub(super) struct ClientKeys {
    /// Encrypts shares.
    pub(super) channel: PrivateKey,
    /// Agrees on pairwise masks; opened if the client is lost.
    pub(super) pairwise: PrivateKey,
    /// Seed of the self mask; opened if the client survives.
    pub(super) seed: Zeroizing<[u8; 32]>,
    /// Coefficients of the shares of `pairwise` and of `seed`.
    pub(super) coefficients: [StreamKey; 2],
}

impl ClientKeys {
    pub(super) fn new(session: &Session, index: usize, secret: &Secret) -> Self {
        let (id, client) = (session.id(), session.cohort()[index]);
        let address = Address { client, round: id.round, attempt: id.attempt, copy: 0 };
        let mut base = Zeroizing::new([0; 32]);
        secret.derive(&id.session, address, Purpose::MasksClient, Cipher::ChaCha20).fill(0, &mut *base);
        let draw = |label: &[u8]| expand(b"veilsum masks client v1", &base, &[session.context(), label]);
        let stream = |label: &[u8]| StreamKey::from_bytes(*draw(label), Cipher::ChaCha20);
        Self {
            channel: PrivateKey::from_bytes(*draw(b"channel")),
            pairwise: PrivateKey::from_bytes(*draw(b"pairwise")),
            seed: draw(b"seed"),
            coefficients: [stream(b"shares of pairwise"), stream(b"shares of seed")],
        }
    }

    /// What the client publishes.
    pub(super) fn public(&self, session: &Session, index: usize) -> Keys {
        Keys {
            channel: self.channel.public(),
            pairwise: self.pairwise.public(),
            commitment: commitment(session, index, &self.seed),
        }
    }
}

/// Binds a client to its seed, so that wrong shares of it are found: a hash of 256 uniform bits hides them.
pub(super) fn commitment(session: &Session, index: usize, seed: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"veilsum masks seed v1");
    hash.update(session.context());
    hash.update(session.cohort()[index].to_le_bytes());
    hash.update(seed);
    hash.finalize().into()
}

/// The route of the shares of one client to another.
pub(super) fn share_route(session: &Session, from: usize, to: usize) -> Route {
    Route { context: *session.context(), from: session.cohort()[from], to: session.cohort()[to], purpose: SHARES }
}

/// The self mask: bound to the set of clients that shared keys, so that a client that is shown two such sets does not
/// use a mask twice.
pub(super) fn self_mask(session: &Session, index: usize, seed: &[u8; 32], view: &[u8; 32]) -> StreamKey {
    let client = session.cohort()[index].to_le_bytes();
    let key = expand(b"veilsum masks self v1", seed, &[session.context(), &client, view]);
    StreamKey::from_bytes(*key, Cipher::ChaCha20)
}

/// The mask between two clients, likewise; both make the same one.
pub(super) fn pair_mask(session: &Session, a: usize, b: usize, agreed: &Agreement, view: &[u8; 32]) -> StreamKey {
    let (low, high) = (a.min(b), a.max(b));
    let route =
        Route { context: *session.context(), from: session.cohort()[low], to: session.cohort()[high], purpose: MASK };
    StreamKey::from_bytes(*agreed.derive(&route, view), Cipher::ChaCha20)
}

/// How `own` applies its mask with `other`: the lower one adds.
pub(super) const fn pair_sign(own: usize, other: usize) -> MaskSign {
    if own < other { MaskSign::Add } else { MaskSign::Subtract }
}

/// Refuses public keys that lead to secrets that everybody knows.
pub(super) fn check_keys(keys: &Keys) -> Result<(), SecAggError> {
    crate::secagg::channel::check_public(&keys.channel)?;
    crate::secagg::channel::check_public(&keys.pairwise)
}
