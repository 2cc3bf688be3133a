//! The collective key of a run: wanted before the first round that needs one, made once, used for many.

use std::sync::Arc;

use super::{Coordinator, State};
use crate::fl::FlError;
use crate::fl::protocol::{PATIENCE, Protocol};
use crate::fl::spend::Attempt;
use crate::secagg::mphe::{KeyServer, KeySession, Plan, SignedKey, simulated};
use crate::secagg::{Output, Party};

/// A key that is wanted, and the attempt that waits for it.
#[derive(Clone, Debug)]
pub struct WantedKey {
    /// Ring, layout, flooding, holders.
    pub plan: Plan,
    /// Round, from 1.
    pub round: u32,
    /// Attempt of the round.
    pub attempt: u32,
}

/// A collective key and the rounds that were begun under it.
pub(super) struct RunKey {
    key: Arc<SignedKey>,
    /// Rounds begun.
    served: u32,
    /// The last of them; 0 before the first.
    last: u32,
}

impl RunKey {
    pub(super) const fn key(&self) -> &Arc<SignedKey> {
        &self.key
    }

    /// A further attempt of a round is no further opening: the holders answer for one.
    pub(super) const fn begin(&mut self, round: u32) {
        if self.last != round {
            (self.last, self.served) = (round, self.served + 1);
        }
    }
}

impl Coordinator {
    /// What a new key has to be, if the round needs one.
    ///
    /// A round that was begun under the present key is not begun under another: the holders' records of what they have opened
    /// are those of a key, and would not know of the first attempt.
    pub(super) fn wanted_key(
        &self,
        round: u32,
        attempt: &Attempt,
        clients: usize,
    ) -> Result<Option<WantedKey>, FlError> {
        let Protocol::Mphe(config) = &self.plan.protocol else { return Ok(None) };
        if clients == 0 || self.key.as_ref().is_some_and(|key| key.last == round) {
            return Ok(None);
        }
        let present = self.key.as_ref().map(|key| (key.key.session().plan(), key.served));
        let wanted = config.wanted(&self.plan, (round, clients), present)?;
        Ok(wanted.map(|plan| WantedKey { plan, round, attempt: attempt.attempt }))
    }

    /// Begins the key set-up that [`Action::MakeKey`](super::Action::MakeKey) asked for. `epoch` and `seed` (of the common
    /// polynomial; public) are drawn for this set-up by the operating system's generator, never from the secret of the run:
    /// the next process that runs it would draw the same. The session is for the key holders.
    ///
    /// # Errors
    /// If no key was asked for.
    pub fn begin_key(&mut self, epoch: [u8; 16], seed: [u8; 32]) -> Result<Arc<KeySession>, FlError> {
        let State::Keyless(wanted) = &self.state else { return Err(self.out_of_order("the epoch of a key")) };
        let deadlines = Some([PATIENCE, 2 * PATIENCE, 3 * PATIENCE]);
        let session = simulated::key_session(&self.secret, wanted.plan.clone(), (epoch, seed), deadlines)?;
        let server = Box::new(KeyServer::new(&session));
        self.parting.1.clear();
        self.state = State::Keying { id: session.place().id, server, wanted: wanted.clone() };
        Ok(session)
    }

    /// Takes the key when there is one. Frames that are left (the certificate, or the end of the set-up) are still sent.
    pub(super) fn collect_key(&mut self) -> Result<(), FlError> {
        let State::Keying { id, server, wanted } = &mut self.state else { return Ok(()) };
        let Some(output) = server.poll_output() else { return Ok(()) };
        self.parting = (*id, std::iter::from_fn(|| server.poll_transmit()).collect());
        let (key, fault, round) = (server.take_key(), server.fault().cloned(), wanted.round);
        self.state = State::Ready;
        match (key, fault) {
            (Some(key), _) => self.key = Some(RunKey { key: Arc::new(key), served: 0, last: 0 }),
            (None, Some(fault)) => return Err(fault.into()),
            (None, None) => {
                let (survivors, threshold) = match output {
                    Output::Aborted { survivors, threshold } => (survivors, threshold),
                    Output::Sum { .. } | Output::Delivered => (0, 0),
                };
                return Err(FlError::Aborted { round, survivors, threshold });
            }
        }
        Ok(())
    }
}
