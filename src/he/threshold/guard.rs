//! What a holder has answered.

use std::collections::BTreeMap;

use super::{HolderSet, context};
use crate::he::error::HeError;

/// What a holder has answered: one ciphertext a session, one session a ciphertext, as many sets T of that as the plan
/// allows (one, unless it says otherwise), R in all. To be on record before an answer is sent; see [`Self::to_bytes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpeningGuard {
    /// Session to hash of the ciphertext, hash of ciphertext and T of every set.
    pub(in crate::he) answered: BTreeMap<[u8; 16], Answers>,
}

/// Hash of the ciphertext, hash of ciphertext and T of every set.
pub(in crate::he) type Answers = ([u8; 32], Vec<[u8; 32]>);

impl OpeningGuard {
    /// Openings so far: every set of every session is one.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.answered.values().map(|(_, sets)| sets.len() as u64).sum()
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
        (planned, sets): (u64, u64),
    ) -> Result<(), HeError> {
        let request = context(b"veilsum he opening v1", digest, set);
        match self.answered.get(session) {
            Some((known, requests)) if known == digest && requests.contains(&request) => return Ok(()),
            Some((known, requests)) if known != digest || requests.len() as u64 >= sets => {
                return Err(HeError::Answered);
            }
            Some(_) => {}
            None if self.answered.values().any(|(known, _)| known == digest) => return Err(HeError::Answered),
            None => {}
        }
        if self.len() >= planned {
            return Err(HeError::OpeningsSpent { planned });
        }
        self.answered.entry(*session).or_insert_with(|| (*digest, Vec::new())).1.push(request);
        Ok(())
    }
}
