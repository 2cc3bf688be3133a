//! What ranks that share a run agree on: how far it had come, and before every round that all of them go on, from the same model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::ranks::Ranks;
use super::run_dir::RunDir;
use super::{Ending, SimError};
use crate::fl::checkpoint::Checkpoint;
use crate::fl::coordinator::{Action, Finish};
use crate::fl::spend::Attempt;

/// What a run folder has of the rounds before.
#[derive(Default)]
pub(super) struct Before {
    pub(super) journal: BTreeMap<u32, Vec<Attempt>>,
    pub(super) checkpoint: Option<Checkpoint>,
}

/// The same on its way to other ranks.
#[derive(Serialize, Deserialize)]
struct Message {
    /// Round, attempt, input, whether it was charged, and given up.
    attempts: Vec<(u32, u32, [u8; 32], bool, bool)>,
    /// Whether a checkpoint follows.
    stored: bool,
}

impl Before {
    /// What the folder has; nothing without one.
    pub(super) fn of(folder: Option<&RunDir>) -> Result<Self, SimError> {
        let Some(folder) = folder else { return Ok(Self::default()) };
        Ok(Self { journal: folder.journal(), checkpoint: folder.checkpoint()? })
    }

    /// What rank 0 has, in every rank.
    pub(super) fn told(self, ranks: &dyn Ranks) -> Result<Self, SimError> {
        if ranks.size() == 1 {
            return Ok(self);
        }
        let attempts = self.journal.iter().flat_map(|(&round, attempts)| attempts.iter().map(move |a| (round, a)));
        let attempts = attempts.map(|(round, a)| (round, a.attempt, a.input, a.charged, a.abandoned)).collect();
        let message = Message { attempts, stored: self.checkpoint.is_some() };
        let mut text = serde_json::to_vec(&message).unwrap_or_default();
        let mut bytes = self.checkpoint.as_ref().map(Checkpoint::to_bytes).transpose()?.unwrap_or_default();
        ranks.broadcast(&mut text);
        ranks.broadcast(&mut bytes);
        if ranks.rank() == 0 {
            return Ok(self);
        }
        let message: Message = serde_json::from_slice(&text).map_err(|e| SimError::Ranks {
            problem: format!("rank 0 tells of earlier rounds what cannot be read: {e}"),
        })?;
        let mut journal: BTreeMap<u32, Vec<Attempt>> = BTreeMap::new();
        for (round, attempt, input, charged, abandoned) in message.attempts {
            journal.entry(round).or_default().push(Attempt { attempt, input, charged, abandoned });
        }
        let checkpoint = message.stored.then(|| Checkpoint::from_bytes(&bytes)).transpose()?;
        Ok(Self { journal, checkpoint })
    }
}

/// What rank 0 says before a round.
const ON: u8 = 0;
const INTERRUPTED: u8 = 1;
const FINISHED: u8 = 2;

/// Lets rank 0 say whether the run goes on with this action; how it ends, if it does not. Its flag alone counts, and its ledger: the
/// others do not know the limit of the principal.
///
/// # Errors
/// [`SimError::Ranks`] in a rank that would begin another round, or the same from another model.
pub(super) fn agree(ranks: &dyn Ranks, action: &Action, interrupt: &AtomicBool) -> Result<Option<Ending>, SimError> {
    let input = match action {
        Action::Begin(tasks) => tasks.first().map_or([0; 32], |task| task.input),
        Action::MakeKey(_) | Action::Finished(_) => [0; 32],
        Action::Charge(_) | Action::Evaluate(_) | Action::Report(_) | Action::Checkpoint(_) => return Ok(None),
    };
    if ranks.size() == 1 {
        return Ok(None);
    }
    let said = match action {
        Action::Finished(_) => FINISHED,
        _ if interrupt.load(Ordering::Relaxed) => INTERRUPTED,
        _ => ON,
    };
    let mut message = vec![said];
    message.extend_from_slice(&input);
    ranks.broadcast(&mut message);
    match (message.first(), action) {
        (Some(&INTERRUPTED), _) => Ok(Some(Ending::Interrupted)),
        (Some(&FINISHED), Action::Finished(finish)) => Ok(Some(Ending::Finished(*finish))),
        // The limit of the ledger, which rank 0 alone has.
        (Some(&FINISHED), _) => Ok(Some(Ending::Finished(Finish::Complete))),
        (Some(&ON), Action::Begin(_) | Action::MakeKey(_)) if message[1..] == input => Ok(None),
        _ => Err(SimError::Ranks {
            problem: format!(
                "rank {} has come to another model than rank 0: run the same program on machines with the same instructions \
                 (or set VEILSUM_ISA to what all of them have) and the same devices",
                ranks.rank()
            ),
        }),
    }
}
