//! Key holders in a process that has the secret of all parties: identities and secrets of every one follow from it. Keys
//! that are made so hide nothing from whoever has the secret.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::plan::Plan;
use super::session::{KeyConfig, KeyDeadlines, KeySession, RoundSession};
use super::{Epochs, HolderKeys, KeyHolder, OpeningGuard, RoundHolder};
use crate::backend::Backend;
use crate::math::prg::{Address, Cipher, Purpose, Secret};
use crate::secagg::SecAggError;
use crate::secagg::identity::{Identity, Roster};

/// Identities of holders stand behind those of all clients.
const HOLDERS: u64 = 1 << 40;

/// A holder's signing key.
#[must_use]
pub fn identity(secret: &Secret, holder: u16) -> Identity {
    Identity::simulated(secret, HOLDERS + u64::from(holder))
}

/// What a holder draws from.
fn own_secret(secret: &Secret, holder: u16) -> Secret {
    let address = Address { client: u64::from(holder), ..Address::default() };
    let mut bytes = Zeroizing::new([0; 32]);
    secret.derive(&[0; 16], address, Purpose::HolderSeed, Cipher::ChaCha20).fill(0, &mut *bytes);
    Secret::from_bytes(*bytes)
}

/// The set-up of a key for `plan` by simulated holders. `epoch` is used once: see [`Epochs`].
///
/// # Errors
/// Those of [`KeySession::new`].
pub fn key_session(
    secret: &Secret,
    plan: Plan,
    (epoch, seed): ([u8; 16], [u8; 32]),
    deadlines: Option<KeyDeadlines>,
) -> Result<Arc<KeySession>, SecAggError> {
    let holders = (1..=plan.threshold().holders()).map(|j| (u64::from(j), identity(secret, j).public()));
    let holders = Arc::new(Roster::new(holders)?);
    KeySession::new(KeyConfig { epoch, seed, plan, holders, deadlines })
}

/// A holder in such a set-up.
///
/// # Errors
/// Those of [`KeyHolder::new`].
pub fn key_holder(
    session: &Arc<KeySession>,
    holder: u16,
    secret: &Secret,
    backend: &dyn Backend,
    epochs: &mut Epochs,
) -> Result<KeyHolder, SecAggError> {
    KeyHolder::new(session, holder, &identity(secret, holder), &own_secret(secret, holder), backend, epochs)
}

/// A holder in a round under its key, with what it has answered under it before.
///
/// # Errors
/// Those of [`RoundHolder::new`].
pub fn round_holder(
    session: &Arc<RoundSession>,
    keys: &HolderKeys,
    guard: OpeningGuard,
    secret: &Secret,
    backend: Arc<dyn Backend>,
) -> Result<RoundHolder, SecAggError> {
    RoundHolder::new(session, keys, guard, &identity(secret, keys.holder()), backend)
}
