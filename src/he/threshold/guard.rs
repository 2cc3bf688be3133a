//! What a holder has answered.

use std::collections::BTreeMap;

use super::{HolderSet, context};
use crate::he::error::HeError;

/// What a holder has answered: one (session, ciphertext, T) a session, one session a ciphertext, R in all. To be on record
/// before an answer is sent; see [`Self::to_bytes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpeningGuard {
    /// Session to hash of the ciphertext, hash of ciphertext and T.
    pub(in crate::he) answered: BTreeMap<[u8; 16], ([u8; 32], [u8; 32])>,
}

impl OpeningGuard {
    /// Openings so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.answered.len() as u64
    }

    /// True before the first.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answered.is_empty()
    }

    /// Records an opening, or recognizes it.
    pub(super) fn admit(
        &mut self,
        session: &[u8; 16],
        digest: &[u8; 32],
        set: &HolderSet,
        planned: u64,
    ) -> Result<(), HeError> {
        let request = (*digest, context(b"veilsum he opening v1", digest, set));
        match self.answered.get(session) {
            Some(known) if *known == request => return Ok(()),
            Some(_) => return Err(HeError::Answered),
            None => {}
        }
        if self.answered.values().any(|(known, _)| known == digest) {
            return Err(HeError::Answered);
        }
        if self.len() >= planned {
            return Err(HeError::OpeningsSpent { planned });
        }
        self.answered.insert(*session, request);
        Ok(())
    }
}
