//! Between two rounds: who has a place, who is connected, and whether that is enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Driver, TICK, said};
use crate::fl::FlError;
use crate::fl::coordinator::Coordinator;
use crate::fl::protocol::Protocol;
use crate::net::keys::Role;
use crate::net::plan::{Holder, Key, Parties};
use crate::net::server::shared::Inbound;
use crate::net::status::State;
use crate::net::store::{AttemptRow, PartyRow};
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::{NetError, now};

/// Who has a place.
#[derive(Clone)]
pub(in crate::net::server) struct Placed {
    /// The keys of all parties; `None` as long as one has no place.
    pub(super) parties: Option<Arc<Parties>>,
    /// Clients that have one.
    enrolled: usize,
    /// Key holders.
    serving: usize,
}

impl Driver {
    /// Waits until a round can begin; false if the thread shall end. An attempt that the store has begun is taken up at once.
    pub(super) fn gather(&mut self, coordinator: &mut Coordinator) -> Result<bool, NetError> {
        // What a command beside the server has changed since the last look.
        self.shared.refresh()?;
        let open = self.shared.store.attempts()?.into_iter().any(|row| row.state.is_open());
        loop {
            self.claim.check()?;
            if self.drain.load(Ordering::Relaxed) && !open {
                self.shared.draining.store(true, Ordering::Relaxed);
                self.shared.board.phase(State::Draining, "", None, now());
                return Ok(false);
            }
            self.turn_away();
            let finished = coordinator.round() >= self.experiment.plan.rounds;
            if self.pause.is_none_or(|until| Instant::now() >= until)
                && (finished || self.may_begin(coordinator, open)?)
            {
                self.pause = None;
                return Ok(true);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Pins the parties, once all have their places; true if enough of them are connected.
    fn may_begin(&mut self, coordinator: &mut Coordinator, open: bool) -> Result<bool, NetError> {
        let (clients, holders) = (self.experiment.plan.clients, self.shared.about.holders);
        let Placed { parties: Some(parties), .. } = self.placed() else {
            let Placed { enrolled, serving, .. } = self.placed();
            let sentence = format!(
                "{enrolled} of {clients} clients and {serving} of {holders} key holders have enrolled; rounds begin when all have"
            );
            self.shared.board.phase(State::WaitingForClients, &sentence, None, now());
            return Ok(false);
        };
        if !open && !self.enough_listen(coordinator) {
            return Ok(false);
        }
        // Keys are decoded once a round, and not at every look.
        coordinator.pin(parties.directory().map_err(FlError::from)?, self.federation.patience());
        Ok(true)
    }

    /// True if enough parties are connected, and those that are missing had their time.
    fn enough_listen(&mut self, coordinator: &Coordinator) -> bool {
        let (clients, holders) = (self.experiment.plan.clients, self.shared.about.holders);
        let listening = self.shared.hub.listening();
        let online = listening.iter().filter(|role| matches!(role, Role::Client(_))).count() as u64;
        let serving = listening.len() as u64 - online;
        let least = self.federation.online.unwrap_or_else(|| self.least(coordinator));
        let needed = self.needed_holders();
        if online < least || serving < needed {
            self.gathered = None;
            let sentence =
                format!("{online} clients are connected and {least} are needed; {serving} of {needed} key holders");
            self.shared.board.phase(State::WaitingForClients, &sentence, None, now());
            return false;
        }
        let since = *self.gathered.get_or_insert_with(Instant::now);
        let all = online == clients && serving == u64::from(holders);
        if all || since.elapsed().as_secs_f64() >= self.federation.gather_seconds {
            self.gathered = None;
            return true;
        }
        false
    }

    /// Clients without whom no round of the expected size can be opened.
    fn least(&self, coordinator: &Coordinator) -> u64 {
        let plan = coordinator.plan();
        let expected = plan.expected_size().ceil() as usize;
        let share = plan.threshold(coordinator.round() + 1, expected) as f64 / expected.max(1) as f64;
        ((share * plan.clients as f64).ceil() as u64).clamp(1, plan.clients)
    }

    fn needed_holders(&self) -> u64 {
        match &self.experiment.plan.protocol {
            Protocol::Oneshot(config) => u64::from(config.needed()),
            _ => 0,
        }
    }

    /// Who has a place, worked out anew where that has changed.
    pub(super) fn placed(&mut self) -> Placed {
        let (version, rows) = self.shared.parties();
        match &self.placed {
            Some((known, placed)) if *known == version => placed.clone(),
            _ => {
                let placed = self.place(&rows);
                self.placed = Some((version, placed.clone()));
                placed
            }
        }
    }

    fn place(&self, rows: &[PartyRow]) -> Placed {
        let mut clients: BTreeMap<u64, Key> = BTreeMap::new();
        let mut holders: BTreeMap<u16, Holder> = BTreeMap::new();
        for row in rows.iter().filter(|row| !row.revoked) {
            match (row.party.role, row.party.channel) {
                (Role::Client(number), _) => {
                    clients.insert(number, Key(row.party.identity));
                }
                (Role::Holder(number), Some(channel)) => {
                    holders.insert(number, Holder { identity: Key(row.party.identity), channel: Key(channel) });
                }
                _ => {}
            }
        }
        let complete = clients.len() as u64 == self.experiment.plan.clients
            && holders.len() == usize::from(self.shared.about.holders);
        let (enrolled, serving) = (clients.len(), holders.len());
        let parties = Parties { clients: clients.into_values().collect(), holders: holders.into_values().collect() };
        Placed { parties: complete.then(|| Arc::new(parties)), enrolled, serving }
    }

    /// Answers messages that come between rounds. Those of an attempt that is about to be taken up again are not late: whoever heard
    /// so would never send them again.
    pub(super) fn turn_away(&mut self) {
        let mut attempts = None;
        while let Ok(inbound) = self.inbox.try_recv() {
            let attempts = attempts.get_or_insert_with(|| self.shared.store.attempts());
            let open = |rows: &Vec<AttemptRow>| {
                rows.iter()
                    .any(|row| row.state.is_open() && (row.round, row.attempt) == (inbound.round, inbound.attempt))
            };
            let receipt = if self.stored(&inbound) {
                said(Said::Duplicate, String::new())
            } else if attempts.as_ref().map_or(true, open) {
                said(Said::Retry, "the round goes on in a moment".to_owned())
            } else {
                said(Said::Late, "no round takes messages now".to_owned())
            };
            drop(inbound.reply.send(receipt));
        }
    }

    fn stored(&self, inbound: &Inbound) -> bool {
        self.shared.store.has(inbound.round, inbound.attempt, &inbound.id).unwrap_or(false)
    }
}
