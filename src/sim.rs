//! The whole federation in one process: drives the coordinator, plays every client, keeps the run folder.

pub mod dse;
pub mod page;
pub mod run_dir;
pub mod sweep;
pub mod work;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::backend::EncodeReport;
use crate::config::ConfigError;
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::coordinator::{Action, Coordinator, Finish, RoundSummary};
use crate::fl::spend::{EpsilonViews, Spend};
use crate::model::{Evaluation, ModelError};
use crate::report::ReportError;
use run_dir::RunDir;

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
    /// Renyi order of the public bound.
    pub order: Option<f64>,
    /// Clients asked (known to the server, not to the public).
    pub cohort: usize,
    /// Clients in the sum.
    pub survivors: usize,
    /// L2 norm of the decoded mean.
    pub update_norm: f64,
    /// Test accuracy, in rounds that evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Test loss, in rounds that evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Wall time since the start or the resumption.
    pub seconds: f64,
}

/// One line of `client_diagnostics.jsonl`: what the clients of a round saw. In a federation it never
/// leaves them; the simulation can show it because it plays them. Not covered by epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// Round.
    pub round: u32,
    /// Rows that were replaced by zero because they held NaN or an infinity.
    pub zeroed_rows: usize,
    /// Share of rows that the clip changed.
    pub clipped: f64,
    /// Mean of `min(1, C / |x|)`.
    pub clip_ratio: f64,
    /// Mean L2 norm before the clip.
    pub norm: f64,
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
}

/// Watches nothing.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, _record: &RoundRecord) {}
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
    /// All rounds, those before a resumption too.
    pub history: Vec<RoundRecord>,
    /// What the clients saw, all rounds of this process.
    pub clients: EncodeReport,
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
    /// A config was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A run folder cannot be used.
    #[error("{folder}: {problem}")]
    Folder {
        /// The folder.
        folder: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Runs an experiment to its end, its budget, or Ctrl-C.
pub fn run(
    experiment: &Experiment,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<RunResult, SimError> {
    let mut folder = match options.folder {
        Some(path) => Some(RunDir::open(path, experiment, options.resume)?),
        None => None,
    };
    let journal = folder.as_ref().map(RunDir::journal).unwrap_or_default();
    let spend = Spend::new(&experiment.plan, journal)?;
    let weights = experiment.trainer.init(&experiment.init_key());
    let mut coordinator = Coordinator::new(
        experiment.plan.clone(),
        experiment.secret.clone(),
        experiment.backend.clone(),
        weights,
        spend,
    )?;
    let mut history = Vec::new();
    if let Some(dir) = &mut folder
        && let Some(checkpoint) = dir.checkpoint()?
    {
        coordinator.restore(checkpoint)?;
    }
    if let Some(dir) = &mut folder {
        history = dir.truncate(coordinator.round())?;
    }
    let mut run = Run { experiment, folder, history, clients: EncodeReport::default(), started: Instant::now() };
    observer.started(coordinator.round(), experiment.plan.rounds);
    let ending = run.drive(&mut coordinator, options.interrupt, observer)?;
    run.close(&coordinator, ending)
}

/// A run in progress.
struct Run<'a> {
    experiment: &'a Experiment,
    folder: Option<RunDir>,
    history: Vec<RoundRecord>,
    clients: EncodeReport,
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
            if interrupt.load(Ordering::Relaxed) {
                return Ok(Ending::Interrupted);
            }
            let Some(action) = coordinator.poll_action()? else {
                // Every action is answered on the spot: only an interrupted cohort leaves it waiting.
                if interrupt.load(Ordering::Relaxed) {
                    return Ok(Ending::Interrupted);
                }
                return Err(FlError::OutOfOrder { event: "nothing", state: "waiting for its driver" }.into());
            };
            match action {
                Action::Begin(task) => {
                    if let Some(dir) = &mut self.folder {
                        dir.begin(task.id.round, task.id.attempt, task.input)?;
                    }
                    let report = work::play_clients(self.experiment, &task, coordinator, interrupt)?;
                    self.clients.merge(&report);
                    if let Some(dir) = &mut self.folder {
                        dir.diagnose(task.id.round, task.cohort.len(), &report)?;
                    }
                }
                Action::Charge(charge) => {
                    if let Some(dir) = &mut self.folder {
                        dir.charge(&charge)?;
                    }
                    coordinator.charged()?;
                }
                Action::Evaluate(weights) => {
                    let trainer = self.experiment.trainer.as_ref();
                    let evaluation =
                        crate::model::evaluate::evaluate_dataset(trainer, &weights, &self.experiment.split.test)?;
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
                Action::Checkpoint(checkpoint) => {
                    if let Some(dir) = &mut self.folder {
                        dir.store(&checkpoint)?;
                    }
                }
                Action::Finished(finish) => return Ok(Ending::Finished(finish)),
            }
        }
    }

    fn record(&self, summary: &RoundSummary) -> RoundRecord {
        let finite = |x: f64| x.is_finite().then_some(x);
        RoundRecord {
            round: summary.round,
            attempt: summary.attempt,
            epsilon: finite(summary.epsilon.public.epsilon),
            epsilon_server_view: finite(summary.epsilon.server.epsilon),
            delta: summary.epsilon.public.delta,
            order: summary.epsilon.public.order,
            cohort: summary.cohort,
            survivors: summary.survivors,
            update_norm: summary.update_norm,
            accuracy: summary.evaluation.map(|e| e.accuracy),
            loss: summary.evaluation.map(|e| e.loss),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    fn close(mut self, coordinator: &Coordinator, ending: Ending) -> Result<RunResult, SimError> {
        if let Some(dir) = &mut self.folder {
            // After Ctrl-C in the middle of a round this is the state before it.
            dir.store(&coordinator.checkpoint())?;
        }
        let last = self.history.iter().rev().find(|r| r.accuracy.is_some());
        let mut evaluation = last.and_then(|r| {
            Some(Evaluation { loss: r.loss?, accuracy: r.accuracy?, samples: self.experiment.split.test.len() })
        });
        // A run that its budget stopped between two evaluations is evaluated where it stands.
        let stale = last.is_none_or(|r| r.round != coordinator.round());
        if stale && matches!(ending, Ending::Finished(_)) {
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
            history: self.history,
            clients: self.clients,
            weights: coordinator.weights().as_ref().clone(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        if let Some(dir) = &mut self.folder {
            dir.finish(self.experiment, &result)?;
        }
        Ok(result)
    }
}
