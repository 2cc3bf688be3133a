//! What a holder keeps between rounds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::certificate::SignedKey;
use super::wire::check_format;
use crate::he::{Holder, HolderShare, OpeningGuard};
use crate::math::prg::Secret;
use crate::secagg::SecAggError;

const MAGIC: [u8; 4] = *b"VSHK";
const VERSION: u8 = 1;

/// A holder's share of the secret key, what it draws its flooding from, and what it has in common with every other
/// holder. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct HolderKeys {
    pub(super) key: Arc<SignedKey>,
    pub(super) share: HolderShare,
    pub(super) answers: Secret,
    pub(super) pairs: BTreeMap<u16, Secret>,
}

impl fmt::Debug for HolderKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderKeys({}, ..)", self.holder())
    }
}

impl HolderKeys {
    /// j.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.share.holder()
    }

    /// The public key.
    #[must_use]
    pub const fn key(&self) -> &Arc<SignedKey> {
        &self.key
    }

    /// What answers openings; `guard` is what the holder has answered under this key before.
    ///
    /// # Errors
    /// A missing pair secret.
    pub fn holder_of(&self, guard: OpeningGuard) -> Result<Holder, SecAggError> {
        let plan = self.key.session().plan().opening().clone();
        Ok(Holder::new(plan, self.share.clone(), self.answers.clone(), self.pairs.clone(), guard)?)
    }

    /// Magic, version, the secret of the flooding, those of the pairs (each behind the other holder's number), the share.
    /// Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let share = self.share.to_bytes(&self.key.key().setup().ring);
        let mut out = Zeroizing::new(Vec::with_capacity(64 + 34 * self.pairs.len() + share.len()));
        out.extend(MAGIC);
        out.push(VERSION);
        out.extend(self.answers.expose());
        for (other, secret) in &self.pairs {
            out.extend(other.to_le_bytes());
            out.extend(secret.expose());
        }
        out.extend_from_slice(&share);
        out
    }

    /// Reads what [`Self::to_bytes`] gives, of the holder `holder` of a key.
    ///
    /// # Errors
    /// Other bytes.
    pub fn from_bytes(key: &Arc<SignedKey>, holder: u16, bytes: &[u8]) -> Result<Self, SecAggError> {
        check_format("keys of a key holder", bytes, MAGIC, VERSION)?;
        let mut rest = &bytes[5..];
        let mut take = |len: usize| {
            let (taken, left) = rest
                .split_at_checked(len)
                .ok_or(SecAggError::Truncated { expected: bytes.len() - rest.len() + len, found: bytes.len() })?;
            rest = left;
            Ok::<_, SecAggError>(taken)
        };
        let secret = |bytes: &[u8]| {
            let mut out = Zeroizing::new([0; 32]);
            out.copy_from_slice(bytes);
            Secret::from_bytes(*out)
        };
        let answers = secret(take(32)?);
        let mut pairs = BTreeMap::new();
        let setup = key.key().setup();
        for (position, other) in (1..=setup.threshold.holders()).filter(|&j| j != holder).enumerate() {
            let number = take(2)?;
            if number != other.to_le_bytes() {
                let found = u64::from(u16::from_le_bytes([number[0], number[1]]));
                return Err(SecAggError::List { list: "pair secrets", position, found });
            }
            pairs.insert(other, secret(take(32)?));
        }
        let share = HolderShare::from_bytes(&setup.ring, rest)?;
        if share.holder() != holder || *share.session() != setup.session {
            return Err(SecAggError::Holder { holder, problem: "has a share of another holder or key in this file" });
        }
        Ok(Self { key: Arc::clone(key), share, answers, pairs })
    }
}
