//! The whole federation in one process: drives the coordinator, plays every client, keeps the run folder.

mod adversary;
pub mod audit;
pub mod dse;
mod lattice;
pub mod ledger;
pub mod loss;
mod masked;
pub mod mphe;
mod oneshot;
pub mod page;
pub mod query;
pub mod ranks;
pub mod run_dir;
pub mod samples;
mod shared;
pub mod sweep;
mod training;
pub mod work;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::backend::{BackendError, EncodeReport};
use crate::config::ConfigError;
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::asynchrony::Arrived;
use crate::fl::checkpoint::Checkpoint;
use crate::fl::compress::Residuals;
use crate::fl::coordinator::{Action, Charge, Coordinator, Finish, RoundSummary, RoundTask, RuleReport};
use crate::fl::dp_sgd::GradientReport;
use crate::fl::replay::Played;
use crate::fl::spend::{EpsilonViews, Spend};
use crate::model::{Evaluation, ModelError};
use crate::privacy::ledger::LedgerError;
use crate::report::ReportError;
use crate::secagg::SessionId;
use ledger::{LedgerState, RunLedger};
use loss::{DeviceLoss, Recovery};
use mphe::Holders;
use ranks::{Alone, Ranks, Share};
use run_dir::RunDir;
use samples::GradientRecord;

/// One line of `metrics.jsonl`. Everything but `seconds` is the same in a repeated or resumed run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 0.
    pub attempt: u32,
    /// Epsilon of all releases so far in the public view; `None` without privacy.
    pub epsilon: Option<f64>,
    /// The same in the view of the server; `None` without privacy.
    pub epsilon_server_view: Option<f64>,
    /// delta of both.
    pub delta: f64,
    /// Epsilon of the samples of a client that was in every attempt so far that it may have been in, to everybody else; where
    /// clients run DP-SGD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_epsilon: Option<f64>,
    /// delta of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_delta: Option<f64>,
    /// Renyi order of the public bound.
    pub order: Option<f64>,
    /// Clients asked (known to the server, not to the public).
    pub cohort: usize,
    /// Clients in the sum.
    pub survivors: usize,
    /// L2 norm of the decoded mean.
    pub update_norm: f64,
    /// The clip bound of the round, where it adapts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// What came together in an asynchronous round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Arrived>,
    /// What a robust rule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleReport>,
    /// Test accuracy, in rounds that evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The success rate of a backdoor: the share of stamped test images of other classes that are taken for its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_success: Option<f64>,
    /// Test loss, in rounds that evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The loss of a device in this round: the attempt above is the one that was finished without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_lost: Option<DeviceLoss>,
    /// Wall time since the start or the resumption.
    pub seconds: f64,
}

impl RoundRecord {
    /// The record of a round that was finished `seconds` after the start.
    #[must_use]
    pub fn of(summary: &RoundSummary, seconds: f64) -> Self {
        let finite = |x: f64| x.is_finite().then_some(x);
        Self {
            round: summary.round,
            attempt: summary.attempt,
            epsilon: finite(summary.epsilon.public.epsilon),
            epsilon_server_view: finite(summary.epsilon.server.epsilon),
            delta: summary.epsilon.public.delta,
            sample_epsilon: summary.epsilon.samples.as_ref().and_then(|s| finite(s.report.epsilon)),
            sample_delta: summary.epsilon.samples.as_ref().map(|s| s.report.delta),
            order: summary.epsilon.public.order,
            cohort: summary.cohort,
            survivors: summary.survivors,
            update_norm: summary.update_norm,
            clip: summary.clip,
            arrived: summary.arrived,
            rule: summary.rule.clone(),
            accuracy: summary.evaluation.map(|e| e.accuracy),
            loss: summary.evaluation.map(|e| e.loss),
            attack_success: None,
            device_lost: None,
            seconds,
        }
    }
}

/// One line of `client_diagnostics.jsonl`: what the clients of a round saw. In a federation it never
/// leaves them; the simulation can show it because it plays them. Not covered by epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Round.
    pub round: u32,
    /// Rows that held NaN or an infinity: a private round has a zero in their place, any other leaves their clients out.
    pub zeroed_rows: usize,
    /// Share of rows that the clip changed.
    pub clipped: f64,
    /// Mean of `min(1, C / |x|)`.
    pub clip_ratio: f64,
    /// Mean L2 norm before the clip.
    pub norm: f64,
    /// What they saw of the gradients of their samples, in DP-SGD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradients: Option<GradientRecord>,
}

/// Where a run keeps its files, and when it stops.
#[derive(Debug)]
pub struct RunOptions<'a> {
    /// The run folder; `None` keeps nothing.
    pub folder: Option<&'a Path>,
    /// Continue from the folder's checkpoint and journal.
    pub resume: bool,
    /// Set by Ctrl-C: the run stops after the present step and can be resumed.
    pub interrupt: &'a AtomicBool,
}

/// Watches a run.
pub trait Observer {
    /// The run starts after `round` finished rounds.
    fn started(&mut self, round: u32, rounds: u32);
    /// A round is done.
    fn round(&mut self, record: &RoundRecord);
    /// A device was lost, now or before the run was resumed, and the run goes on without it. People have to see this.
    fn lost(&mut self, loss: &DeviceLoss);
}

/// Watches nothing.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, _record: &RoundRecord) {}
    fn lost(&mut self, _loss: &DeviceLoss) {}
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// The coordinator has nothing more to do.
    Finished(Finish),
    /// Ctrl-C.
    Interrupted,
}

/// What a run has to show.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// How it ended.
    pub ending: Ending,
    /// Finished rounds.
    pub rounds: u32,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// Epsilon of everything released.
    pub epsilon: EpsilonViews,
    /// Where the ledger's principal stands, over all its runs.
    pub ledger: Option<LedgerState>,
    /// All rounds, those before a resumption too.
    pub history: Vec<RoundRecord>,
    /// What the clients saw, all rounds of this process.
    pub clients: EncodeReport,
    /// What they saw of the gradients of their samples, likewise, where they run DP-SGD.
    pub gradients: GradientReport,
    /// Mean bytes that a client of a round sent for it, all frames of the protocol together, over the rounds of this process; `None`
    /// if it played none.
    pub bytes_up: Option<f64>,
    /// The loss of a device, in any of the rounds.
    pub device_lost: Option<DeviceLoss>,
    /// Final weights.
    pub weights: Vec<f32>,
    /// Wall time of this process.
    pub seconds: f64,
}

/// What can go wrong in a simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The federation refused.
    #[error(transparent)]
    Fl(#[from] FlError),
    /// A file could not be written or read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Training or a weight file failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A config was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Ranks cannot share this run, or do not agree.
    #[error("the ranks cannot share this run: {problem}")]
    Ranks {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A run folder cannot be used.
    #[error("{folder}: {problem}")]
    Folder {
        /// The folder.
        folder: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl SimError {
    /// The backend's error behind this one, whoever passed it on.
    fn backend(&self) -> Option<&BackendError> {
        match self {
            Self::Fl(e) => e.backend(),
            Self::Model(ModelError::Backend(e)) => Some(e),
            _ => None,
        }
    }
}

/// Runs an experiment to its end, its budget, or Ctrl-C.
///
/// A device that is lost on the way ([`BackendError::DeviceLost`]) does not end the run: it goes on, on the CPU. One
/// without room ([`BackendError::DeviceMemory`]) does: what it lacks it would lack again, and the run can be resumed.
pub fn run(
    experiment: &Experiment,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<RunResult, SimError> {
    run_shared(experiment, &Alone, options, observer)
}

/// The same by several processes, each of which plays some of the clients ([`ranks`]). All of them have the same experiment; the run
/// folder, Ctrl-C and the observer are those of rank 0, and only its result has the evaluation, the ledger and the reason of
/// the end. The weights, and the lines of `metrics.jsonl` but for their seconds, have the same bits for any number of ranks of
/// machines that compute alike.
///
/// # Errors
/// As [`run`]. The others then wait for this rank: whoever calls has to end them. [`SimError::Ranks`] for clients that keep something
/// between rounds, and for ranks whose models differ. The loss of a device ends such a run; it can be resumed.
pub fn run_shared(
    experiment: &Experiment,
    ranks: &dyn Ranks,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<RunResult, SimError> {
    let first = ranks.rank() == 0;
    if ranks.size() > 1 && keeps(experiment) {
        let problem =
            "its clients keep something between rounds (error feedback, scaffold), which takes one process".into();
        return Err(SimError::Ranks { problem });
    }
    let folder = match options.folder.filter(|_| first) {
        Some(path) => Some(RunDir::open(path, experiment, options.resume)?),
        None => None,
    };
    let before = shared::Before::of(folder.as_ref())?.told(ranks)?;
    let journal = before.journal;
    let lost = folder.as_ref().and_then(RunDir::loss);
    let mut run = Run {
        ranks,
        experiment: Experiment { residuals: Arc::default(), gradients: Arc::default(), ..experiment.clone() },
        folder,
        ledger: None,
        history: Vec::new(),
        clients: EncodeReport::default(),
        gradients: GradientReport::default(),
        device_lost: None,
        holders: Holders::default(),
        attack_success: None,
        current: (0, 0),
        started: Instant::now(),
    };
    if let Some(loss) = lost {
        run.leave_device(loss, observer);
    }
    let attempts = journal.iter().flat_map(|(&round, v)| v.iter().map(move |&a| (round, a)));
    let charged: Vec<_> = attempts.filter(|(_, attempt)| attempt.charged).collect();
    let spend = Spend::new(&experiment.plan, journal)?;
    if first {
        run.ledger = RunLedger::open(experiment, options.folder, &charged, spend.costs())?;
    }
    let spend = spend.on(run.ledger.as_ref().map(RunLedger::tab));
    let weights = experiment.trainer.init(&experiment.init_key());
    let mut coordinator = Coordinator::new(
        experiment.plan.clone(),
        experiment.secret.clone(),
        run.experiment.backend.clone(),
        weights,
        spend,
    )?;
    if let Some(mut checkpoint) = before.checkpoint {
        let (kept, round) = (std::mem::take(&mut checkpoint.residuals), checkpoint.round);
        coordinator.restore(checkpoint)?;
        run.experiment.residuals = Arc::new(Mutex::new(residuals_of(experiment, &kept, round)?));
    }
    if let Some(dir) = &mut run.folder {
        run.history = dir.truncate(coordinator.round())?;
    }
    run.tell_kept(&mut coordinator);
    observer.started(coordinator.round(), experiment.plan.rounds);
    let ending = run.drive(&mut coordinator, options.interrupt, observer)?;
    run.close(&coordinator, ending)
}

/// Whether clients keep something between rounds.
fn keeps(experiment: &Experiment) -> bool {
    experiment.plan.controlled || experiment.plan.compression.is_some_and(|compression| compression.error_feedback())
}

/// What the clients kept after `round`, as its checkpoint has it.
fn residuals_of(experiment: &Experiment, sealed: &[u8], round: u32) -> Result<Residuals, SimError> {
    if !keeps(experiment) {
        return Ok(Residuals::default());
    }
    let key = (&experiment.secret, &experiment.plan.session, round);
    Ok(Residuals::open(sealed, key, experiment.plan.dim)?)
}

/// A run in progress.
struct Run<'a> {
    ranks: &'a dyn Ranks,
    experiment: Experiment,
    folder: Option<RunDir>,
    ledger: Option<RunLedger>,
    history: Vec<RoundRecord>,
    clients: EncodeReport,
    gradients: GradientReport,
    device_lost: Option<DeviceLoss>,
    /// The holders of the collective key, if there is one.
    holders: Holders,
    /// Of the present evaluation.
    attack_success: Option<f64>,
    /// The round in progress and its attempt.
    current: (u32, u32),
    started: Instant,
}

impl Run<'_> {
    fn drive(
        &mut self,
        coordinator: &mut Coordinator,
        interrupt: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Ending, SimError> {
        loop {
            let Some(action) = coordinator.poll_action()? else {
                // Every action is answered on the spot: only an interrupted cohort leaves it waiting.
                if interrupt.load(Ordering::Relaxed) {
                    return Ok(Ending::Interrupted);
                }
                return Err(FlError::OutOfOrder { event: "nothing", state: "waiting for its driver" }.into());
            };
            if let Some(ending) = shared::agree(self.ranks, &action, interrupt)? {
                return Ok(ending);
            }
            // Ranks that share a round finish it together.
            let interrupt = if self.ranks.size() > 1 { &AtomicBool::new(false) } else { interrupt };
            match action {
                // A round that is charged is reported first.
                Action::Begin(_) | Action::MakeKey(_) if interrupt.load(Ordering::Relaxed) => {
                    return Ok(Ending::Interrupted);
                }
                Action::MakeKey(wanted) => {
                    self.current = (wanted.round, wanted.attempt);
                    if let Err(e) =
                        mphe::share_key(&self.experiment, self.ranks, coordinator, &mut self.holders, interrupt)
                    {
                        self.recover(e, Recovery::Restarted, coordinator, observer)?;
                    }
                }
                Action::Begin(tasks) => {
                    let Some(first) = tasks.first() else { continue };
                    self.current = (first.id.round, first.id.attempt);
                    if self.was_abandoned(first.id) {
                        coordinator.give_up();
                        continue;
                    }
                    if let Err(e) = self.begin(&tasks, coordinator, interrupt) {
                        self.recover(e, Recovery::Restarted, coordinator, observer)?;
                    }
                }
                Action::Charge(charge) => {
                    self.current = (charge.round, charge.attempt);
                    if let Err(e) = self.charge(&charge, coordinator) {
                        self.recover(e, Recovery::Decoded, coordinator, observer)?;
                        self.charge(&charge, coordinator)?;
                    }
                }
                Action::Evaluate(_) if self.ranks.rank() > 0 => coordinator.unevaluated()?,
                Action::Evaluate(weights) => {
                    let evaluation = match self.evaluate(&weights) {
                        Ok(evaluation) => evaluation,
                        Err(e) => {
                            self.recover(e, Recovery::Evaluated, coordinator, observer)?;
                            self.evaluate(&weights)?
                        }
                    };
                    self.attack_success = adversary::success(&self.experiment, &weights)?;
                    coordinator.evaluated(evaluation)?;
                }
                Action::Report(summary) => {
                    let record = self.record(&summary);
                    if let Some(dir) = &mut self.folder {
                        dir.metrics(&record)?;
                    }
                    observer.round(&record);
                    self.history.push(record);
                }
                Action::Checkpoint(checkpoint) => self.store(*checkpoint)?,
                Action::Finished(finish) => return Ok(Ending::Finished(finish)),
            }
        }
    }

    /// True for an attempt that was given up where these rounds were played.
    fn was_abandoned(&self, id: SessionId) -> bool {
        let replay = self.experiment.replay.as_ref();
        replay.is_some_and(|replay| replay.of(id.round, id.attempt) == Some(&Played::Abandoned))
    }

    /// Puts the attempt on record and lets the cohort work.
    fn begin(
        &mut self,
        tasks: &[RoundTask],
        coordinator: &mut Coordinator,
        interrupt: &AtomicBool,
    ) -> Result<(), SimError> {
        let Some(first) = tasks.first() else { return Ok(()) };
        if let Some(dir) = &mut self.folder {
            dir.begin(first.id.round, first.id.attempt, first.input)?;
            if self.experiment.plan.samples.is_some() {
                // The account of the samples counts what begins: what a client sends next is paid for whatever becomes of it.
                dir.sync_journal()?;
            }
        }
        self.residuals().give_up();
        let report = work::share_round(&self.experiment, self.ranks, tasks, coordinator, &mut self.holders, interrupt)?;
        let (report, gradients) = Share(self.ranks).reports(report, samples::take_report(&self.experiment))?;
        self.clients.merge(&report);
        self.gradients.merge(&gradients);
        let delivering = || tasks.iter().map(|task| work::delivering(&self.experiment, task).len()).sum();
        match &mut self.folder {
            Some(dir) => dir.diagnose(first.id.round, delivering(), &report, &gradients),
            None => Ok(()),
        }
    }

    /// What the test data say of a model.
    fn evaluate(&self, weights: &[f32]) -> Result<Evaluation, SimError> {
        let (trainer, test) = (self.experiment.trainer.as_ref(), &self.experiment.split.test);
        Ok(crate::model::evaluate::evaluate_dataset(trainer, weights, test)?)
    }

    /// Makes the charge durable, then lets the coordinator reveal the sum.
    fn charge(&mut self, charge: &Charge, coordinator: &mut Coordinator) -> Result<(), SimError> {
        if let Some(dir) = &mut self.folder {
            dir.charge(charge)?;
        }
        // After the journal: what the ledger has, the journal of its run has too.
        if let Some(ledger) = &mut self.ledger {
            ledger.charge(charge)?;
        }
        // Nobody reveals before that.
        self.ranks.broadcast(&mut Vec::new());
        work::take_out_excess(&self.experiment, coordinator)?;
        if coordinator.wants_root() {
            let update = training::root_update(&self.experiment, &coordinator.weights(), charge.round)?;
            coordinator.trust(update)?;
        }
        let survivors = coordinator.survivors();
        coordinator.charged()?;
        if let (Some(survivors), true) = (survivors, keeps(&self.experiment)) {
            self.residuals().commit(&survivors);
            self.tell_kept(coordinator);
        }
        Ok(())
    }

    fn residuals(&self) -> MutexGuard<'_, Residuals> {
        self.experiment.residuals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the clients keep is part of the next round's input.
    fn tell_kept(&self, coordinator: &mut Coordinator) {
        if keeps(&self.experiment) {
            coordinator.clients_keep(self.residuals().digest());
        }
    }

    /// Stores the state after the last finished round, with what the clients keep.
    fn store(&mut self, mut checkpoint: Checkpoint) -> Result<(), SimError> {
        if self.folder.is_some() && keeps(&self.experiment) {
            let (secret, session) = (&self.experiment.secret, &self.experiment.plan.session);
            checkpoint.residuals = self.residuals().seal(secret, session, checkpoint.round);
        }
        match &mut self.folder {
            Some(dir) => dir.store(&checkpoint),
            None => Ok(()),
        }
    }

    /// Goes on without the device if its loss is what went wrong, during the present attempt; `then` is what becomes of
    /// the round. Any other error, and the loss of a second device, is returned.
    fn recover(
        &mut self,
        error: SimError,
        then: Recovery,
        coordinator: &mut Coordinator,
        observer: &mut dyn Observer,
    ) -> Result<(), SimError> {
        let alone = self.ranks.size() == 1;
        let (Some(BackendError::DeviceLost { backend, reason }), None, true) =
            (error.backend(), &self.device_lost, alone)
        else {
            return Err(error);
        };
        let (backend, reason) = ((*backend).to_owned(), reason.clone());
        self.experiment = self.experiment.on_cpu();
        // The last frame of a round may be complete where the loss of the device shows.
        let restarts = coordinator.move_to(self.experiment.backend.clone());
        let recovery = match then {
            Recovery::Restarted if !restarts => Recovery::Decoded,
            then => then,
        };
        let (round, attempt) = self.current;
        let loss = DeviceLoss { round, attempt, backend, reason, recovery };
        // What the device has finished is stored first: a resumed run would have to compute it, and charge it, again.
        self.store(coordinator.checkpoint())?;
        if let Some(dir) = &mut self.folder {
            dir.lost(&loss)?;
        }
        self.leave_device(loss, observer);
        Ok(())
    }

    fn leave_device(&mut self, loss: DeviceLoss, observer: &mut dyn Observer) {
        observer.lost(&loss);
        self.experiment = self.experiment.on_cpu();
        self.experiment.notes.push(loss.to_string());
        self.device_lost = Some(loss);
    }

    fn record(&self, summary: &RoundSummary) -> RoundRecord {
        RoundRecord {
            attack_success: summary.evaluation.and(self.attack_success),
            device_lost: self.device_lost.clone().filter(|l| l.round == summary.round),
            ..RoundRecord::of(summary, self.started.elapsed().as_secs_f64())
        }
    }

    fn close(mut self, coordinator: &Coordinator, ending: Ending) -> Result<RunResult, SimError> {
        // After Ctrl-C in the middle of a round this is the state before it.
        self.store(coordinator.checkpoint())?;
        let last = self.history.iter().rev().find(|r| r.accuracy.is_some());
        let mut evaluation = last.and_then(|r| {
            Some(Evaluation { loss: r.loss?, accuracy: r.accuracy?, samples: self.experiment.split.test.len() })
        });
        // A run that its budget stopped between two evaluations is evaluated where it stands.
        let stale = last.is_none_or(|r| r.round != coordinator.round());
        if stale && matches!(ending, Ending::Finished(_)) && self.ranks.rank() == 0 {
            let trainer = self.experiment.trainer.as_ref();
            let weights = coordinator.weights();
            evaluation =
                Some(crate::model::evaluate::evaluate_dataset(trainer, &weights, &self.experiment.split.test)?);
        }
        let result = RunResult {
            ending,
            rounds: coordinator.round(),
            evaluation,
            epsilon: coordinator.epsilon()?,
            ledger: self.ledger.as_ref().map(RunLedger::state).transpose()?,
            history: self.history,
            clients: self.clients,
            gradients: self.gradients,
            bytes_up: coordinator.bytes_up(),
            device_lost: self.device_lost,
            weights: coordinator.weights().as_ref().clone(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        if let Some(dir) = &mut self.folder {
            dir.finish(&self.experiment, &result)?;
        }
        Ok(result)
    }
}
