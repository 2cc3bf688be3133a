//! The round that goes on.

use std::time::Duration;

use super::{Began, Evaluation, Inner, Known, Outcome, Part, Round, State};
use crate::net::keys::Role;
use crate::net::status::{Abandoned, PhaseSeconds};

/// The attempt that goes on, and what belongs to its round.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) round: u64,
    pub(super) attempt: u64,
    pub(super) threshold: u64,
    /// Attempts that have begun; names this one.
    begun: u64,
    /// All that were asked.
    pub(super) asked: Vec<Role>,
    /// Clients among them.
    pub(super) cohort: u64,
    pub(super) delivered: u64,
    /// Whether the missing clients have been counted.
    clients_settled: bool,
    holders_settled: bool,
    pub(super) abandoned: Vec<Abandoned>,
    /// Time since the last round ended, up to the last change of the state.
    pub(super) seconds: PhaseSeconds,
    /// Bytes of all rounds when the last one ended.
    bytes: (u64, u64),
}

impl PhaseSeconds {
    /// Adds the time of another round.
    pub(super) fn add(&mut self, other: &Self) {
        self.wait += other.wait;
        self.collect += other.collect;
        self.open += other.open;
        self.release += other.release;
        self.evaluate += other.evaluate;
    }

    /// Adds time that was spent in `state`; none of the states behind the last round counts.
    pub(super) fn spend(&mut self, state: State, time: Duration) {
        let phase = match state {
            State::WaitingForClients | State::MakingKey => &mut self.wait,
            State::Collecting => &mut self.collect,
            State::Opening => &mut self.open,
            State::Releasing => &mut self.release,
            State::Evaluating => &mut self.evaluate,
            State::Draining | State::Finished | State::StoppedByBudget | State::StandingBy => return,
        };
        *phase += time.as_secs_f64();
    }
}

impl Inner {
    /// Changes the state; the time since the last change goes to the phase that ends.
    pub(super) fn enter(&mut self, state: State, deadline: Option<Duration>, now: Duration) {
        let time = now.saturating_sub(self.since);
        self.current.seconds.spend(self.state, time);
        if self.state == State::Collecting && matches!(state, State::Opening | State::Releasing | State::Evaluating) {
            self.settle(false);
        }
        (self.state, self.since, self.deadline) = (state, now, deadline);
        self.sentence.clear();
    }

    pub(super) fn begin(&mut self, began: &Began, cohort: &[Role]) {
        let current = &mut self.current;
        current.begun += 1;
        if current.round != began.round {
            current.abandoned.clear();
        }
        (current.round, current.attempt, current.threshold) = (began.round, began.attempt, began.threshold);
        (current.cohort, current.delivered) = (0, 0);
        (current.clients_settled, current.holders_settled) = (false, false);
        current.asked.clear();
        self.ask(cohort);
    }

    pub(super) fn ask(&mut self, roles: &[Role]) {
        let stamp = self.current.begun;
        for &role in roles {
            let Some(party) = self.party(role) else { continue };
            if party.stamp == stamp && party.part != Part::Idle {
                continue;
            }
            (party.stamp, party.part) = (stamp, Part::Asked);
            self.current.asked.push(role);
            self.current.cohort += u64::from(matches!(role, Role::Client(_)));
        }
    }

    pub(super) fn deliver(&mut self, role: Role) {
        let stamp = self.current.begun;
        let Some(party) = self.parties.get_mut(&role).filter(|p| p.stamp == stamp && p.part == Part::Asked) else {
            return;
        };
        party.part = Part::Delivered;
        party.delivered += 1;
        self.current.delivered += u64::from(matches!(role, Role::Client(_)));
    }

    /// Whoever was asked and has not delivered is missing: the clients, and the others too where `all` says so.
    pub(super) fn settle(&mut self, all: bool) {
        let stamp = self.current.begun;
        let clients = !std::mem::replace(&mut self.current.clients_settled, true);
        let others = all && !std::mem::replace(&mut self.current.holders_settled, true);
        for role in &self.current.asked {
            if !(if matches!(role, Role::Client(_)) { clients } else { others }) {
                continue;
            }
            if let Some(party) = self.parties.get_mut(role).filter(|p| p.stamp == stamp && p.part == Part::Asked) {
                party.part = Part::Missing;
                party.missed += 1;
            }
        }
    }

    pub(super) fn finish(&mut self, outcome: &Outcome, now: Duration) -> Round {
        self.settle(true);
        self.current.seconds.spend(self.state, now.saturating_sub(self.since));
        // What comes until the next phase is waiting, whatever the state still says.
        (self.state, self.since, self.deadline) = (State::WaitingForClients, now, None);
        self.sentence.clear();
        let guarantee = self.privacy.guarantee.as_ref();
        let current = &mut self.current;
        let bytes = (self.totals.bytes_in, self.totals.bytes_out);
        let round = Round {
            round: current.round,
            attempt: current.attempt,
            finished_at: now.as_secs_f64(),
            accuracy: outcome.accuracy.filter(|a| a.is_finite()),
            loss: outcome.loss.filter(|l| l.is_finite()),
            epsilon_public: guarantee.and_then(|g| g.public),
            epsilon_server: guarantee.and_then(|g| g.server),
            cohort: current.cohort,
            survivors: outcome.survivors,
            threshold: current.threshold,
            connected: self.counts.clients_connected,
            bytes_in: bytes.0.saturating_sub(current.bytes.0),
            bytes_out: bytes.1.saturating_sub(current.bytes.1),
            seconds: std::mem::take(&mut current.seconds),
            abandoned: std::mem::take(&mut current.abandoned),
        };
        self.totals.seconds.add(&round.seconds);
        self.keep(round.clone());
        round
    }

    /// Appends a finished round; bytes, seconds and abandoned attempts have been added to the totals.
    pub(super) fn keep(&mut self, round: Round) {
        self.totals.rounds += 1;
        self.totals.asked = self.totals.asked.saturating_add(round.cohort);
        self.totals.survivors = self.totals.survivors.saturating_add(round.survivors);
        self.current.bytes = (self.totals.bytes_in, self.totals.bytes_out);
        (self.current.round, self.current.attempt) = (round.round, round.attempt);
        let Round { round: number, accuracy, loss, .. } = round;
        if accuracy.is_some() || loss.is_some() {
            self.evaluations.push(Evaluation { round: number, accuracy, loss });
        }
        self.history.push(round);
    }

    /// What a party does in the present attempt.
    pub(super) fn part(&self, party: &Known) -> Part {
        if party.stamp == self.current.begun { party.part } else { Part::Idle }
    }
}
