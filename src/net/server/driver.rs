//! The coordinator's thread: what it has accepted is on disk before it says so, and after a crash it is where it was.
//!
//! ```text
//! begin      the attempt and its signed plans are stored, then published
//! accept     frames are checked by the machine, stored in one transaction with those that came meanwhile, acknowledged
//! clock      the end of a phase is stored, then told the machine
//! charge     stored, entered in the ledger, then the sum is decoded
//! release    model, record and state in one transaction; the messages go
//! ```
//! Frames that the machine makes are sent only when what led to them is stored. A store that refuses (a full disk) takes the
//! machine back to what is stored: nothing was acknowledged, and its parties send again.

mod collect;
mod gather;
mod standby;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::gather::Placed;
use super::lease::Claim;
use super::shared::{Inbound, Shared};
use crate::config::build::Experiment;
use crate::config::federation::FederationConfig;
use crate::fl::FlError;
use crate::fl::checkpoint::Checkpoint;
use crate::fl::coordinator::{Action, Charge, Coordinator, Finish, RoundSummary};
use crate::fl::spend::{Attempt, Spend};
use crate::net::hub::End;
use crate::net::objects::Limits;
use crate::net::status::board::Outcome;
use crate::net::status::{Round, State};
use crate::net::store::{AttemptRow, AttemptState, EntryBody, NewEntry};
use crate::net::wire::v1;
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::{NetError, now};
use crate::secagg::identity::Identity;
use crate::sim::RoundRecord;
use crate::sim::ledger::RunLedger;

/// Messages that share a transaction.
const BATCH: usize = 64;
/// Models of earlier rounds that are kept: one more than is needed.
const CHECKPOINTS: u32 = 2;
/// How often the thread looks whether it shall end, or whether clients have come.
const TICK: Duration = Duration::from_millis(100);
/// How long nothing new is begun after an attempt was given up, and after the store refused.
const PAUSE: Duration = Duration::from_secs(2);

/// How the thread ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// The run is over.
    Finished(Finish),
    /// It was asked to end between two rounds.
    Drained,
}

/// The thread's own.
pub(super) struct Driver {
    pub(super) experiment: Experiment,
    pub(super) federation: FederationConfig,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: mpsc::Receiver<Inbound>,
    pub(super) runtime: Handle,
    /// What signs plans: the key of the present certificate.
    pub(super) identity: Arc<RwLock<Identity>>,
    pub(super) state: PathBuf,
    pub(super) drain: Arc<AtomicBool>,
    /// To coordinate.
    pub(super) claim: Claim,
    pub(super) ledger: Option<RunLedger>,
    pub(super) history: Vec<RoundRecord>,
    pub(super) started: Instant,
    /// The record of the round that is about to be released.
    pub(super) pending: Option<RoundRecord>,
    /// Nothing is begun before.
    pub(super) pause: Option<Instant>,
    /// The last round on the board.
    pub(super) shown: u32,
    /// When the least number of clients was there.
    pub(super) gathered: Option<Instant>,
    /// Who has a place, and of which reading of the parties that is.
    pub(super) placed: Option<(u64, Placed)>,
    /// Whether it ever stood by.
    pub(super) stood: bool,
}

impl Driver {
    /// Runs rounds to the end of the run, or until it shall end. The lease is held.
    fn coordinate(&mut self) -> Result<(Coordinator, Ending), NetError> {
        let mut coordinator = self.take_up()?;
        loop {
            match self.step(&mut coordinator) {
                Ok(None) => {}
                Ok(Some(ending)) => return Ok((coordinator, ending)),
                Err(error) if error.is_passing() => coordinator = self.start_over(&error)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The next thing to do; how the thread ends, if it does.
    fn step(&mut self, coordinator: &mut Coordinator) -> Result<Option<Ending>, NetError> {
        self.claim.check()?;
        if coordinator.is_resting() && !self.gather(coordinator)? {
            return Ok(Some(Ending::Drained));
        }
        match coordinator.poll_action()? {
            Some(Action::Begin(tasks)) => self.play(coordinator, &tasks)?,
            Some(Action::Charge(charge)) => self.charge(&charge, coordinator)?,
            Some(Action::Evaluate(weights)) => self.evaluate(&weights, coordinator)?,
            Some(Action::Report(summary)) => self.pending = Some(self.record(&summary)),
            Some(Action::Checkpoint(checkpoint)) => self.release(&checkpoint)?,
            Some(Action::Finished(finish)) => {
                self.finish(finish);
                return Ok(Some(Ending::Finished(finish)));
            }
            Some(Action::MakeKey(_)) => return Err(NetError::Unsupported { what: "mphe", instead: "oneshot" }),
            None => return Err(FlError::OutOfOrder { event: "nothing", state: "waiting for its driver" }.into()),
        }
        Ok(None)
    }

    /// Goes back to what is stored, after something that may pass (a full disk): what was not stored was not acknowledged. Waits
    /// until the store can be read again.
    fn start_over(&mut self, error: &NetError) -> Result<Coordinator, NetError> {
        warn!(%error, "nothing is accepted");
        self.shared.board.warn(&format!("nothing is accepted: {error}"), now());
        if let Some((round, attempt)) = self.shared.hub.attempt() {
            self.shared.hub.close(End::Round(v1::RoundEnd { round, attempt, released: false }));
        }
        loop {
            self.rest(PAUSE, Self::turn_away);
            match self.restore() {
                Ok(coordinator) => return Ok(coordinator),
                Err(error) if error.is_passing() && !self.drain.load(Ordering::Relaxed) => {
                    self.shared.board.warn(&format!("nothing is accepted: {error}"), now());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Does this again and again for a while.
    fn rest(&mut self, pause: Duration, turn: impl Fn(&mut Self)) {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            turn(self);
            std::thread::sleep(TICK);
        }
    }

    /// The coordinator as the store has it.
    fn restore(&mut self) -> Result<Coordinator, NetError> {
        let mut journal: BTreeMap<u32, Vec<Attempt>> = BTreeMap::new();
        let mut released = BTreeSet::new();
        for AttemptRow { round, attempt, input, state, .. } in self.shared.store.attempts()? {
            let charged = matches!(state, AttemptState::Charged | AttemptState::Released);
            let abandoned = state == AttemptState::Abandoned;
            if state == AttemptState::Released {
                released.insert((round, attempt));
            }
            journal.entry(round).or_default().push(Attempt { attempt, input, charged, abandoned });
        }
        let attempts = journal.iter().flat_map(|(&round, v)| v.iter().map(move |&a| (round, a)));
        let charged: Vec<_> = attempts.filter(|(_, attempt)| attempt.charged).collect();
        let spend = Spend::new(&self.experiment.plan, journal)?;
        // One that is open already holds its lock.
        (self.ledger, self.pending) = (None, None);
        self.history.clear();
        self.ledger = RunLedger::open(&self.experiment, Some(&self.state), &charged, spend.costs())?;
        if let Some(ledger) = &mut self.ledger {
            ledger.catch_up(&charged, &released)?;
        }
        let spend = spend.on(self.ledger.as_ref().map(RunLedger::tab));
        let weights = self.experiment.trainer.init(&self.experiment.init_key());
        let Experiment { plan, secret, backend, .. } = &self.experiment;
        let mut coordinator = Coordinator::new(plan.clone(), secret.clone(), backend.clone(), weights, spend)?;
        if let Some((_, id, _)) = self.shared.store.latest_checkpoint()? {
            let bytes = self.shared.objects.read(id)?;
            coordinator.restore(Checkpoint::from_bytes(&bytes)?)?;
        }
        for row in self.shared.store.rounds()? {
            match serde_json::from_str::<RoundRecord>(&row.record) {
                Ok(record) => self.history.push(record),
                Err(e) => return Err(NetError::Record { round: row.round, problem: e.to_string() }),
            }
        }
        self.show_history()?;
        self.shared.round.store(coordinator.round(), Ordering::Relaxed);
        if let Ok(epsilon) = coordinator.epsilon() {
            let finite = |x: f64| x.is_finite().then_some(x);
            self.shared.board.charged(finite(epsilon.public.epsilon), finite(epsilon.server.epsilon));
        }
        Ok(coordinator)
    }

    /// The finished rounds on the board that are not there, as the process had them that coordinated.
    fn show_history(&mut self) -> Result<(), NetError> {
        let mut rounds = Vec::new();
        for record in self.history.iter().filter(|record| record.round > self.shown) {
            let kept = self.shared.store.meta(&board_name(record.round))?;
            rounds.push(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| bare(record)));
        }
        self.shared.board.restore(rounds);
        self.shown = self.history.last().map_or(0, |record| record.round);
        Ok(())
    }

    /// Makes the charge durable, then lets the coordinator reveal the sum.
    fn charge(&mut self, charge: &Charge, coordinator: &mut Coordinator) -> Result<(), NetError> {
        self.shared.board.phase(State::Releasing, "", None, now());
        self.note_survivors(charge, coordinator)?;
        self.shared.store.mark(charge.round, charge.attempt, AttemptState::Charged)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.charge(charge)?;
        }
        Ok(coordinator.charged()?)
    }

    /// Puts on record who is in the sum: for whoever plays the rounds again.
    fn note_survivors(&self, charge: &Charge, coordinator: &Coordinator) -> Result<(), NetError> {
        let (round, attempt) = (charge.round, charge.attempt);
        let id: [u8; 32] = Sha256::digest(b"veilsum survivors").into();
        if self.shared.store.has(round, attempt, &id)? {
            return Ok(());
        }
        let list = serde_json::to_vec(&coordinator.survivors().unwrap_or_default());
        let bytes = list.map_err(|e| NetError::Record { round, problem: e.to_string() })?;
        let body = EntryBody::Note { kind: super::SURVIVORS, bytes };
        Ok(self.shared.store.append(round, attempt, &[NewEntry { id, body }])?)
    }

    fn evaluate(&mut self, weights: &[f32], coordinator: &mut Coordinator) -> Result<(), NetError> {
        let test = &self.experiment.split.test;
        if test.is_empty() {
            return Ok(coordinator.unevaluated()?);
        }
        self.shared.board.phase(State::Evaluating, "", None, now());
        let trainer = self.experiment.trainer.as_ref();
        Ok(coordinator.evaluated(crate::model::evaluate::evaluate_dataset(trainer, weights, test)?)?)
    }

    fn record(&self, summary: &RoundSummary) -> RoundRecord {
        RoundRecord::of(summary, self.started.elapsed().as_secs_f64())
    }

    /// Model, record and state of a round at once; then everybody is told, and its messages go.
    fn release(&mut self, checkpoint: &Checkpoint) -> Result<(), NetError> {
        let Some(record) = self.pending.take() else { return Ok(()) };
        let (round, attempt) = (record.round, record.attempt);
        let bytes = checkpoint.to_bytes()?;
        let (id, len) = (self.shared.objects.put(&bytes, &Limits::NONE)?, bytes.len() as u64);
        let text = serde_json::to_string(&record).map_err(|e| NetError::Record { round, problem: e.to_string() })?;
        self.shared.store.release(round, attempt, &text, Some((id, len)))?;
        let outcome = Outcome { survivors: record.survivors as u64, accuracy: record.accuracy, loss: record.loss };
        self.shared.board.charged(record.epsilon, record.epsilon_server_view);
        let shown = self.shared.board.round_finished(&outcome, now());
        self.shown = round;
        self.shared.store.set_meta(&board_name(round), &serde_json::to_vec(&shown).unwrap_or_default())?;
        self.shared.round.store(round, Ordering::Relaxed);
        self.shared.hub.close(End::Round(v1::RoundEnd { round, attempt, released: true }));
        info!(
            round,
            attempt,
            survivors = record.survivors,
            accuracy = record.accuracy,
            epsilon = record.epsilon,
            "a round is released"
        );
        self.history.push(record);
        self.forget(round)
    }

    fn finish(&mut self, finish: Finish) {
        let (state, reason) = match finish {
            Finish::Complete => (State::Finished, "all rounds are done".to_owned()),
            Finish::Stopped(stop) => {
                (State::StoppedByBudget, crate::sim::page::ending(&crate::sim::Ending::Finished(Finish::Stopped(stop))))
            }
        };
        self.shared.board.phase(state, &reason, None, now());
        let rounds = self.history.last().map_or(0, |record| record.round);
        self.shared.hub.close(End::Finished(v1::Finished { rounds, reason }));
    }
}

/// What the store calls the line of a round on the board.
fn board_name(round: u32) -> String {
    format!("board {round}")
}

/// The line of a round whose own was not kept: it is for people, and costs no round.
fn bare(record: &RoundRecord) -> Round {
    Round {
        round: record.round.into(),
        attempt: u64::from(record.attempt) + 1,
        accuracy: record.accuracy,
        loss: record.loss,
        epsilon_public: record.epsilon,
        epsilon_server: record.epsilon_server_view,
        cohort: record.cohort as u64,
        survivors: record.survivors as u64,
        ..Round::default()
    }
}

/// What a message is answered.
fn said(status: Said, reason: String) -> v1::Receipt {
    v1::Receipt { status: status.into(), reason }
}
