//! Who coordinates: the lease, what a server does while another has it, and how it takes over.

use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::{Driver, Ending, PAUSE};
use crate::fl::coordinator::Coordinator;
use crate::net::server::lease::Other;
use crate::net::status::State;
use crate::net::store::StoreError;
use crate::net::{NetError, now};
use crate::privacy::ledger::LedgerError;
use crate::sim::SimError;

impl Driver {
    /// Coordinates, or stands by until it does, to the end of the run or until it shall end; no coordinator where it stood by at the
    /// end.
    pub(in crate::net::server) fn run(&mut self) -> Result<(Option<Coordinator>, Ending), NetError> {
        loop {
            if !self.shared.coordinates() && !self.stand_by()? {
                return Ok((None, Ending::Drained));
            }
            match self.coordinate() {
                Ok((coordinator, ending)) => {
                    if ending == Ending::Drained {
                        // Nothing is written any more, and whoever stands by need not wait.
                        self.shared.coordinate(false);
                        self.claim.give_back();
                    }
                    return Ok((Some(coordinator), ending));
                }
                Err(NetError::Store(error @ StoreError::LeaseLost { .. })) => {
                    self.leave(&format!("{error}; standing by"));
                    self.claim.step_down();
                }
                // Another server may have what this one lacks, and may be asked first.
                Err(error) if self.stood && error.is_passing() && !self.drain.load(Ordering::Relaxed) => {
                    self.leave(&format!("the run is not taken over: {error}"));
                    self.claim.give_back();
                    self.rest(PAUSE, Self::send_away);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for the lease for the first time, before anybody calls.
    pub(in crate::net::server) fn claim(&mut self) -> Result<(), NetError> {
        match self.claim.take()? {
            None => self.begin(),
            Some(other) => {
                // People are told below, where it waits.
                self.told(&other, Some(&other.owner));
                self.compare()
            }
        }
    }

    /// Says what would keep this server from taking over, while there is time to mend it.
    fn compare(&self) -> Result<(), NetError> {
        let config = self.shared.store.meta("config")?;
        let checkpoint = self.shared.store.latest_checkpoint()?;
        let missing =
            checkpoint.map(|(_, id, _)| self.shared.objects.len(id)).transpose()?.is_some_and(|len| len.is_none());
        for text in [
            config
                .is_some_and(|config| config != self.shared.about.config.as_bytes())
                .then_some("the config of the server that coordinates is another one: they should be the same file"),
            missing.then_some("the last model is not in this server's object store: it needs the --objects of the one that coordinates"),
        ]
        .into_iter()
        .flatten()
        {
            warn!("{text}");
            self.shared.board.warn(text, now());
        }
        Ok(())
    }

    /// Takes calls from now on.
    fn begin(&mut self) -> Result<(), NetError> {
        self.shared.store.set_meta("config", self.shared.about.config.as_bytes())?;
        self.shared.board.phase(State::WaitingForClients, "", None, now());
        self.shared.coordinate(true);
        Ok(())
    }

    /// Waits for the lease; false if the thread shall end.
    fn stand_by(&mut self) -> Result<bool, NetError> {
        self.stood = true;
        let mut last: Option<String> = None;
        loop {
            if self.drain.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let taken = self.claim.take();
            let taken = taken.and_then(|other| if other.is_none() { self.begin().map(|()| None) } else { Ok(other) });
            match taken {
                Ok(None) => {
                    info!("taking over");
                    return Ok(true);
                }
                Ok(Some(other)) => {
                    self.told(&other, last.as_deref());
                    last = Some(other.owner);
                }
                Err(error) if error.is_passing() => {
                    self.claim.give_back();
                    warn!(%error, "the lease cannot be had");
                    self.shared.board.warn(&format!("the lease cannot be had: {error}"), now());
                }
                Err(error) => return Err(error),
            }
            self.rest(self.claim.pause(), Self::send_away);
        }
    }

    /// Says who coordinates, to people once.
    fn told(&self, other: &Other, last: Option<&str>) {
        let Other { owner, seconds } = other;
        if last != Some(owner) {
            info!("{owner} coordinates the run and has its lease for {seconds} more seconds; standing by");
        }
        let sentence = format!("{owner} coordinates the run; this server takes over when that one is gone");
        self.shared.board.phase(State::StandingBy, &sentence, None, now());
    }

    /// Ends to coordinate: nothing of it is left but what is stored.
    fn leave(&mut self, reason: &str) {
        warn!("{reason}");
        self.shared.board.warn(reason, now());
        self.shared.board.phase(State::StandingBy, "", None, now());
        self.shared.coordinate(false);
        // Others may want the ledger.
        (self.ledger, self.pending, self.pause, self.gathered) = (None, None, None, None);
        self.history.clear();
        self.send_away();
    }

    /// Answers messages that came while this server no longer coordinates, or does not yet.
    fn send_away(&mut self) {
        while self.inbox.try_recv().is_ok() {}
    }

    /// The coordinator as the store has it, once the ledger can be had: a server that stopped in the middle, and was taken over from,
    /// holds it until it wakes or ends.
    pub(super) fn take_up(&mut self) -> Result<Coordinator, NetError> {
        loop {
            match self.restore() {
                Err(NetError::Sim(SimError::Ledger(error @ LedgerError::Busy(_))))
                    if !self.drain.load(Ordering::Relaxed) =>
                {
                    self.claim.check()?;
                    let text = format!("{error}: waiting for it");
                    warn!("{text}");
                    self.shared.board.warn(&text, now());
                    self.rest(PAUSE, Self::turn_away);
                }
                restored => return restored,
            }
        }
    }
}
