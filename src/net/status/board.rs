//! The recorder that a server updates while it runs.
//!
//! Every method takes a lock for a short while, never blocks on anything else, and takes the time as an argument: the time
//! since the Unix epoch ([`crate::net::now`]). A clock that goes back makes durations of 0, nothing worse.
//! Memory is bounded: [`MOST_PARTIES`] parties, a thinned history, short texts, reasons that are constants of the program.

mod round;
mod snapshot;
mod thin;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::round::Current;
use self::thin::Thinned;
use super::format::one_line;
use super::{
    Abandoned, Counters, Evaluation, Guarantee, Part, PartyCounts, Privacy, Round, Run, State, Status, Totals,
    WARNINGS_KEPT, Warning,
};
use crate::net::keys::Role;

/// Most parties that are recorded; of more the first ones are.
pub const MOST_PARTIES: usize = 200_000;
/// Most characters of a name.
const NAME: usize = 100;
/// Most characters of a sentence or a warning.
const TEXT: usize = 400;
/// Most attempts that a round lists as given up; the totals count all.
const ABANDONED: usize = 16;

/// A round that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// Its number, from 1.
    pub round: u64,
    /// Its attempt, from 1.
    pub attempt: u64,
    /// Clients that have to deliver.
    pub threshold: u64,
    /// When the collection ends by itself, since the Unix epoch.
    pub deadline: Option<Duration>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Outcome {
    /// Clients whose updates are in the sum.
    pub survivors: u64,
    /// Correct answers of the model after it, a share in `[0, 1]`, if it was measured.
    pub accuracy: Option<f64>,
    /// Loss of the model after it, if it was measured.
    pub loss: Option<f64>,
}

/// Records what happens, for [`Board::snapshot`]. Shared between threads by reference.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    run: Run,
    started: Duration,
    state: State,
    /// Empty where the standard sentence is shown.
    sentence: String,
    since: Duration,
    deadline: Option<Duration>,
    privacy: Privacy,
    current: Current,
    parties: BTreeMap<Role, Known>,
    counts: PartyCounts,
    history: Thinned<Round>,
    evaluations: Thinned<Evaluation>,
    totals: Totals,
    counters: Counters,
    warnings: VecDeque<Warning>,
}

/// What is kept of a party.
#[derive(Debug, Default)]
struct Known {
    name: String,
    /// A party may be connected twice for a moment, while an old connection dies.
    connections: u32,
    heard: Option<Duration>,
    /// The attempt for which `part` was set, counted over all that began; in all others it is idle.
    stamp: u64,
    part: Part,
    delivered: u64,
    missed: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Board {
    /// An empty board of a server that begins now. `privacy` says what will be spent; its epsilons are those spent before.
    #[must_use]
    pub fn new(run: Run, privacy: Privacy, now: Duration) -> Self {
        let run = Run {
            name: one_line(&run.name, NAME),
            version: one_line(&run.version, NAME),
            session: one_line(&run.session, NAME),
            model: one_line(&run.model, NAME),
            ..run
        };
        let inner = Inner {
            run,
            started: now,
            state: State::default(),
            sentence: String::new(),
            since: now,
            deadline: None,
            privacy: finite(privacy),
            current: Current::default(),
            parties: BTreeMap::new(),
            counts: PartyCounts::default(),
            history: Thinned::new(),
            evaluations: Thinned::new(),
            totals: Totals::default(),
            counters: Counters::default(),
            warnings: VecDeque::new(),
        };
        Self { inner: Mutex::new(inner) }
    }

    /// Puts back the finished rounds of a run that is continued, in order; they count into the totals.
    pub fn restore(&self, rounds: impl IntoIterator<Item = Round>) {
        let mut inner = self.lock();
        for round in rounds {
            inner.totals.bytes_in += round.bytes_in;
            inner.totals.bytes_out += round.bytes_out;
            inner.totals.seconds.add(&round.seconds);
            inner.totals.abandoned += round.abandoned.len() as u64;
            inner.charged(round.epsilon_public, round.epsilon_server);
            inner.keep(round);
        }
    }

    /// Enters a party, or gives one that is known its name. A name is text from outside: it is cut to 100 characters
    /// on one line.
    pub fn enrolled(&self, role: Role, name: &str) {
        let mut inner = self.lock();
        let new = !inner.parties.contains_key(&role);
        if let Some(party) = inner.party(role) {
            party.name = one_line(name, NAME);
            inner.counters.enrolled += u64::from(new);
        }
    }

    /// A party opened a connection.
    pub fn connected(&self, role: Role, now: Duration) {
        let mut inner = self.lock();
        inner.counters.connections += 1;
        let Some(party) = inner.party(role) else { return };
        party.connections = party.connections.saturating_add(1);
        party.heard = Some(now);
        if party.connections == 1
            && let Some(count) = inner.connected_of(role)
        {
            *count += 1;
        }
    }

    /// A connection of a party ended.
    pub fn disconnected(&self, role: Role) {
        let mut inner = self.lock();
        let Some(party) = inner.parties.get_mut(&role) else { return };
        let last = party.connections == 1;
        party.connections = party.connections.saturating_sub(1);
        if last && let Some(count) = inner.connected_of(role) {
            *count = count.saturating_sub(1);
        }
    }

    /// Bytes came from a party.
    pub fn heard(&self, role: Role, bytes: u64, now: Duration) {
        let mut inner = self.lock();
        inner.totals.bytes_in = inner.totals.bytes_in.saturating_add(bytes);
        if let Some(party) = inner.party(role) {
            party.heard = Some(now);
            party.bytes_in = party.bytes_in.saturating_add(bytes);
        }
    }

    /// Bytes were sent to a party.
    pub fn sent(&self, role: Role, bytes: u64) {
        let mut inner = self.lock();
        inner.totals.bytes_out = inner.totals.bytes_out.saturating_add(bytes);
        if let Some(party) = inner.party(role) {
            party.bytes_out = party.bytes_out.saturating_add(bytes);
        }
    }

    /// A message was taken.
    pub fn accepted(&self) {
        self.lock().counters.accepted += 1;
    }

    /// A message had come before and changed nothing.
    pub fn duplicate(&self) {
        self.lock().counters.duplicates += 1;
    }

    /// A message was refused. The reason is a constant of the program (`bad-signature`, `wrong-round`), so that nobody
    /// outside can make a new one.
    pub fn refused(&self, reason: &'static str) {
        *self.lock().counters.refused.entry(reason.to_owned()).or_default() += 1;
    }

    /// The server goes on to `state`. `sentence` says what it waits for; where it is empty, a standard one follows the
    /// numbers. `deadline` is when the phase ends by itself. Whoever of the cohort has not delivered when the collection
    /// ends is missing from then on.
    pub fn phase(&self, state: State, sentence: &str, deadline: Option<Duration>, now: Duration) {
        let mut inner = self.lock();
        inner.enter(state, deadline, now);
        inner.sentence = one_line(sentence, TEXT);
    }

    /// An attempt of a round begins: the clients of `cohort` are asked, and the collection goes on.
    pub fn round_began(&self, began: &Began, cohort: &[Role], now: Duration) {
        let mut inner = self.lock();
        inner.enter(State::Collecting, began.deadline, now);
        inner.begin(began, cohort);
    }

    /// More parties are asked in the present attempt, such as holders to open the sum.
    pub fn asked(&self, roles: &[Role]) {
        self.lock().ask(roles);
    }

    /// A party that was asked has delivered what it was asked for. A second time, or too late, changes nothing.
    pub fn delivered(&self, role: Role) {
        self.lock().deliver(role);
    }

    /// The present attempt was given up; nothing of it is released.
    pub fn attempt_abandoned(&self, reason: &str, now: Duration) {
        let mut inner = self.lock();
        inner.settle(true);
        inner.totals.abandoned += 1;
        let Current { attempt, cohort, delivered, .. } = inner.current;
        let abandoned = Abandoned { attempt, cohort, delivered, reason: one_line(reason, TEXT) };
        if inner.current.abandoned.len() == ABANDONED {
            inner.current.abandoned.remove(0);
        }
        inner.current.abandoned.push(abandoned);
        inner.enter(State::WaitingForClients, None, now);
    }

    /// A release was charged: the epsilons of all releases so far, `None` where they are infinite.
    pub fn charged(&self, public: Option<f64>, server: Option<f64>) {
        self.lock().charged(public, server);
    }

    /// The present round is over, and the server waits for the next one: what passes until [`Board::phase`] or
    /// [`Board::round_began`] counts as waiting of that.
    /// Returns its line of the history, for whoever keeps it.
    pub fn round_finished(&self, outcome: &Outcome, now: Duration) -> Round {
        self.lock().finish(outcome, now)
    }

    /// Something that a person should know. The same text again is counted, not listed twice.
    pub fn warn(&self, text: &str, now: Duration) {
        let mut inner = self.lock();
        inner.counters.warnings += 1;
        let text = one_line(text, TEXT);
        let at = now.as_secs_f64();
        match inner.warnings.back_mut().filter(|last| last.text == text) {
            Some(last) => (last.times, last.at) = (last.times + 1, at),
            None => inner.warnings.push_back(Warning { at, times: 1, text }),
        }
        if inner.warnings.len() > WARNINGS_KEPT {
            inner.warnings.pop_front();
        }
    }

    /// What there is to see at `now`.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Status {
        self.lock().snapshot(now)
    }

    /// A thread that panicked while it held the lock leaves counts behind that are at worst one too low.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The record of a party, made if there is room.
    fn party(&mut self, role: Role) -> Option<&mut Known> {
        if !self.parties.contains_key(&role) {
            if self.parties.len() >= MOST_PARTIES {
                return None;
            }
            match role {
                Role::Client(_) => self.counts.clients += 1,
                Role::Holder(_) => self.counts.holders += 1,
                Role::Server => {}
            }
        }
        Some(self.parties.entry(role).or_default())
    }

    fn connected_of(&mut self, role: Role) -> Option<&mut u64> {
        match role {
            Role::Client(_) => Some(&mut self.counts.clients_connected),
            Role::Holder(_) => Some(&mut self.counts.holders_connected),
            Role::Server => None,
        }
    }

    fn charged(&mut self, public: Option<f64>, server: Option<f64>) {
        if let Some(guarantee) = &mut self.privacy.guarantee {
            guarantee.public = public.filter(|e| e.is_finite());
            guarantee.server = server.filter(|e| e.is_finite());
        }
    }
}

/// Epsilons that JSON can hold, and short texts.
fn finite(privacy: Privacy) -> Privacy {
    let guarantee = privacy.guarantee.map(|g| Guarantee {
        neighbours: one_line(&g.neighbours, TEXT),
        accountant: one_line(&g.accountant, NAME),
        public: g.public.filter(|e| e.is_finite()),
        server: g.server.filter(|e| e.is_finite()),
        budget: g.budget.filter(|b| b.epsilon.is_finite()),
        ..g
    });
    Privacy { mechanism: one_line(&privacy.mechanism, NAME), protocol: one_line(&privacy.protocol, NAME), guarantee }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::status::PhaseSeconds;

    pub(super) fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    pub(super) fn board(clients: u64) -> (Board, Vec<Role>) {
        let guarantee = Guarantee { delta: 1e-5, ..Guarantee::default() };
        let privacy = Privacy { guarantee: Some(guarantee), ..Privacy::default() };
        let board = Board::new(Run { rounds: 10, ..Run::default() }, privacy, at(0));
        let roles: Vec<Role> = (0..clients).map(Role::Client).collect();
        for &role in &roles {
            board.enrolled(role, "a client");
            board.connected(role, at(1));
        }
        (board, roles)
    }

    pub(super) fn began(round: u64, attempt: u64) -> Began {
        Began { round, attempt, threshold: 2, deadline: Some(at(100)) }
    }

    #[test]
    fn a_round_with_a_dropout_is_recorded() {
        let (board, roles) = board(4);
        board.round_began(&began(1, 1), &roles[..3], at(5));
        board.heard(roles[0], 100, at(6));
        board.sent(roles[0], 40);
        board.delivered(roles[0]);
        board.delivered(roles[0]);
        board.delivered(roles[3]);
        let status = board.snapshot(at(10));
        assert_eq!((status.progress.cohort, status.progress.delivered, status.progress.threshold), (3, 1, 2));
        assert_eq!((status.progress.seconds_in_phase, status.progress.seconds_left), (5.0, Some(90.0)));
        assert_eq!(status.sentence, "1 of 3 clients have delivered; 2 are needed.");
        let parts = |s: &Status| s.parties.iter().map(|p| p.part).collect::<Vec<_>>();
        assert_eq!(parts(&status), [Part::Delivered, Part::Asked, Part::Asked, Part::Idle]);
        assert_eq!((status.parties[0].seconds_since_heard, status.parties[0].bytes_in), (Some(4.0), 100));

        board.delivered(roles[1]);
        board.phase(State::Opening, "", None, at(20));
        // Too late: the sum is being opened without it.
        board.delivered(roles[2]);
        board.phase(State::Releasing, "", None, at(21));
        board.charged(Some(0.5), Some(f64::INFINITY));
        board.phase(State::Evaluating, "measuring", None, at(23));
        assert_eq!(board.snapshot(at(23)).sentence, "measuring");
        board.round_finished(&Outcome { survivors: 2, accuracy: Some(0.25), loss: Some(f64::NAN) }, at(27));
        let status = board.snapshot(at(30));
        assert_eq!(parts(&status), [Part::Delivered, Part::Delivered, Part::Missing, Part::Idle]);
        assert_eq!((status.parties[2].rounds_delivered, status.parties[2].rounds_missed), (0, 1));
        let [round] = status.history.as_slice() else { panic!("one round") };
        assert_eq!(
            (round.cohort, round.survivors, round.connected, round.bytes_in, round.bytes_out),
            (3, 2, 4, 100, 40)
        );
        assert_eq!(round.seconds, PhaseSeconds { wait: 5.0, collect: 15.0, open: 1.0, release: 2.0, evaluate: 4.0 });
        assert_eq!((round.epsilon_public, round.epsilon_server), (Some(0.5), None));
        assert_eq!((round.accuracy, round.loss), (Some(0.25), None));
        assert_eq!(status.evaluations, [Evaluation { round: 1, accuracy: Some(0.25), loss: None }]);
        assert_eq!((status.state, status.totals.seconds.wait), (State::WaitingForClients, 8.0));
    }

    #[test]
    fn an_abandoned_attempt_stands_with_the_round_that_followed() {
        let (board, roles) = board(3);
        board.round_began(&began(1, 1), &roles, at(5));
        board.delivered(roles[0]);
        board.attempt_abandoned("too few\nclients", at(9));
        // The same attempt may be begun anew, after a crash.
        for _ in 0..2 {
            board.round_began(&began(1, 2), &roles, at(10));
        }
        assert_eq!(board.snapshot(at(10)).progress.cohort, 3);
        roles.iter().for_each(|&role| board.delivered(role));
        board.round_finished(&Outcome { survivors: 3, ..Outcome::default() }, at(12));
        board.round_began(&began(2, 1), &roles, at(13));
        board.round_finished(&Outcome::default(), at(14));
        let status = board.snapshot(at(14));
        let given_up = Abandoned { attempt: 1, cohort: 3, delivered: 1, reason: "too few clients".into() };
        assert_eq!(status.history[0].abandoned, [given_up]);
        assert_eq!((status.history[0].attempt, status.history[0].seconds.collect), (2, 6.0));
        assert!(status.history[1].abandoned.is_empty());
        assert_eq!((status.totals.abandoned, status.totals.rounds, status.parties[1].rounds_missed), (1, 2, 2));
    }

    #[test]
    fn holders_are_no_part_of_the_cohort() {
        let (board, roles) = board(2);
        let holders = [Role::Holder(1), Role::Holder(2)];
        board.round_began(&began(1, 1), &roles, at(1));
        roles.iter().for_each(|&role| board.delivered(role));
        board.phase(State::Opening, "", None, at(2));
        board.asked(&holders);
        board.delivered(holders[0]);
        let status = board.snapshot(at(2));
        assert_eq!((status.progress.cohort, status.progress.delivered, status.party_counts.holders), (2, 2, 2));
        board.round_finished(&Outcome::default(), at(3));
        let parts: Vec<Part> = board.snapshot(at(3)).parties[2..].iter().map(|p| p.part).collect();
        assert_eq!(parts, [Part::Delivered, Part::Missing]);
    }

    #[test]
    fn a_run_that_is_continued_has_its_history() {
        let (first, roles) = board(2);
        for round in 1..=3 {
            first.round_began(&began(round, 1), &roles, at(round));
            first.heard(roles[0], 10, at(round));
            first.charged(Some(round as f64), None);
            first.round_finished(&Outcome { accuracy: Some(0.5), ..Outcome::default() }, at(round));
        }
        let before = first.snapshot(at(3));
        let (second, _) = board(2);
        second.restore(before.history.clone());
        let after = second.snapshot(at(0));
        assert_eq!(
            (&after.history, &after.evaluations, after.totals),
            (&before.history, &before.evaluations, before.totals)
        );
        assert_eq!((after.progress.round, after.privacy), (3, before.privacy));
    }

    #[test]
    fn connections_are_counted_once_a_party() {
        let (board, roles) = board(2);
        board.connected(roles[0], at(1));
        board.disconnected(roles[0]);
        assert_eq!(board.snapshot(at(1)).party_counts.clients_connected, 2);
        board.disconnected(roles[0]);
        board.disconnected(roles[0]);
        board.disconnected(Role::Client(99));
        let status = board.snapshot(at(1));
        assert_eq!((status.party_counts.clients_connected, status.counters.connections), (1, 3));
        assert!(!status.parties[0].connected && status.parties[1].connected);
    }

    #[test]
    fn texts_and_lists_are_bounded() {
        let (board, _) = board(1);
        board.enrolled(Role::Client(0), &"x".repeat(1_000_000));
        board.warn("again", at(1));
        board.warn("again", at(2));
        assert_eq!(
            board.snapshot(at(2)).warnings,
            [Warning { at: at(2).as_secs_f64(), times: 2, text: "again".into() }]
        );
        (0..500).for_each(|i| board.warn(&format!("{i}{}", "y".repeat(10_000)), at(2)));
        board.refused("bad-signature");
        board.refused("bad-signature");
        let status = board.snapshot(at(3));
        assert_eq!(
            (status.warnings.len(), status.counters.warnings, status.counters.enrolled),
            (WARNINGS_KEPT, 502, 1)
        );
        assert!(status.warnings[0].text.starts_with("400") && status.warnings[0].text.chars().count() == TEXT);
        assert_eq!((status.parties[0].name.chars().count(), status.counters.refused["bad-signature"]), (NAME, 2));
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let (board, roles) = board(2);
        board.round_began(&began(1, 1), &roles, at(50));
        board.phase(State::Releasing, "", Some(at(10)), at(20));
        board.round_finished(&Outcome::default(), at(10));
        let status = board.snapshot(Duration::ZERO);
        assert!(status.history[0].seconds.values().iter().all(|s| *s >= 0.0));
        assert_eq!((status.progress.seconds_in_phase, status.history[0].seconds.wait), (0.0, 50.0));
    }
}
