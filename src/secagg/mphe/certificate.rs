//! The public key with the signatures of all its holders: all that a client needs, early or late.

use std::sync::Arc;

use super::session::KeySession;
use super::statements;
use super::wire::{self, Signature};
use crate::he::CollectiveKey;
use crate::secagg::SecAggError;
use crate::secagg::identity::SIGNATURE_BYTES;

const MAGIC: [u8; 4] = *b"VSPK";
const VERSION: u8 = 1;

/// A collective key that all pinned holders have signed, for one set-up. There is no other way to make one than to check
/// that.
#[derive(Clone, Debug)]
pub struct SignedKey {
    session: Arc<KeySession>,
    key: CollectiveKey,
    signatures: Vec<Signature>,
}

impl SignedKey {
    /// Checks a key and its signatures.
    ///
    /// # Errors
    /// A key of another set-up; other than K signatures; one that is not that of the pinned holder.
    pub fn new(session: &Arc<KeySession>, key: CollectiveKey, signatures: Vec<Signature>) -> Result<Self, SecAggError> {
        if key.setup() != session.setup() {
            return Err(SecAggError::ForeignKey);
        }
        if signatures.len() != usize::from(session.holders()) {
            let found = signatures.len() as u64;
            return Err(SecAggError::OutOfRange {
                name: "signatures of a key",
                expected: "one of every holder",
                found,
            });
        }
        let statement = statements::key(&key.digest());
        for (holder, signature) in (1..=session.holders()).zip(&signatures) {
            session.verify(wire::SIGN, holder, &statement, signature)?;
        }
        Ok(Self { session: Arc::clone(session), key, signatures })
    }

    /// The set-up.
    #[must_use]
    pub const fn session(&self) -> &Arc<KeySession> {
        &self.session
    }

    /// p and a.
    #[must_use]
    pub const fn key(&self) -> &CollectiveKey {
        &self.key
    }

    /// Magic, version, key, K signatures.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        out.extend(self.key.to_bytes());
        self.signatures.iter().for_each(|s| out.extend(s));
        out
    }

    /// Reads and checks a key: whoever joins late knows the set-up and the roster of the holders.
    ///
    /// # Errors
    /// Other bytes than [`Self::to_bytes`] gives, those of [`Self::new`].
    pub fn from_bytes(session: &Arc<KeySession>, bytes: &[u8]) -> Result<Self, SecAggError> {
        wire::check_format("signed public key", bytes, MAGIC, VERSION)?;
        let signed = SIGNATURE_BYTES * usize::from(session.holders());
        let Some(end) = bytes.len().checked_sub(signed).filter(|&end| end > 5) else {
            return Err(SecAggError::Truncated { expected: 6 + signed, found: bytes.len() });
        };
        let key = CollectiveKey::from_bytes(&bytes[5..end])?;
        Self::new(session, key, bytes[end..].as_chunks().0.to_vec())
    }
}
