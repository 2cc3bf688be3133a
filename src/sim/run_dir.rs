//! The folder of a run: config, secret, journal, metrics, checkpoint, model, page.
//!
//! `journal.jsonl` is the record that protects privacy: an attempt is written before its clients
//! compute, its charge is synced before its release. Everything else can be made again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::loss::DeviceLoss;
use super::{ClientRecord, RoundRecord, RunResult, SimError, page};
use crate::backend::EncodeReport;
use crate::config::build::Experiment;
use crate::config::{BackendName, Config};
use crate::data::PartitionReport;
use crate::files::write_atomic;
use crate::fl::checkpoint::Checkpoint;
use crate::fl::coordinator::Charge;
use crate::fl::dp_sgd::GradientReport;
use crate::fl::spend::Attempt;
use crate::math::prg::Secret;
use crate::model::weights;
use crate::report::ReportError;
use crate::report::jsonl::{self, JsonlWriter};

/// The resolved config: everything that the run depends on, apart from the secret.
pub const CONFIG: &str = "config.json";
/// The secret of the simulation, 64 hexadecimal digits, readable by its owner only.
pub const SECRET: &str = "secret.hex";
/// Attempts and charges.
pub const JOURNAL: &str = "journal.jsonl";
/// One line a round.
pub const METRICS: &str = "metrics.jsonl";
/// What the clients saw.
pub const CLIENTS: &str = "client_diagnostics.jsonl";
/// Weights and optimizer after the last stored round.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The trained model.
pub const MODEL: &str = "model.safetensors";
/// The picture of the run.
pub const PAGE: &str = "report.html";
/// The figures of the finished run.
pub const RESULT: &str = "result.json";
/// Version, machine and seed.
pub const ENVIRONMENT: &str = "environment.json";
/// Who holds what: sizes and label histograms. Describes the data exactly; it stays with the simulator.
pub const PARTITION: &str = "partition.json";
/// Held by the process that writes the folder.
pub const LOCK: &str = "lock";

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum JournalLine {
    /// An attempt is about to run.
    Begin(Tried),
    /// Its release is paid for.
    Charge(Tried),
    /// The device is gone: the rest of the run is computed on the CPU.
    Lost(DeviceLoss),
}

/// An attempt of a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tried {
    round: u32,
    attempt: u32,
    input: String,
}

/// What the journal says.
#[derive(Debug, Default)]
struct Journal {
    attempts: BTreeMap<u32, Vec<Attempt>>,
    lost: Option<DeviceLoss>,
}

/// An open run folder.
pub struct RunDir {
    folder: PathBuf,
    journal: JsonlWriter,
    known: Journal,
    metrics: Option<JsonlWriter>,
    clients: Option<JsonlWriter>,
    // Locked for as long as this lives.
    _lock: std::fs::File,
}

impl RunDir {
    /// Makes the folder of a new run, or opens that of a run to be resumed.
    ///
    /// # Errors
    /// A new run in a folder that exists and is not empty; a folder that another process is writing; a
    /// journal or config that cannot be read.
    pub fn open(folder: &Path, experiment: &Experiment, resume: bool) -> Result<Self, SimError> {
        if !resume {
            make_empty(folder)?;
        }
        let lock = lock(folder)?;
        if !resume {
            write_secret(&folder.join(SECRET), &experiment.secret)?;
            write_json(&folder.join(ENVIRONMENT), &environment(experiment))?;
            let partition = PartitionReport::new(&experiment.split.train, &experiment.partition);
            write_json(&folder.join(PARTITION), &json!(partition))?;
            // Last: a folder with a config is a run that can be resumed.
            write_json(&folder.join(CONFIG), &experiment.resolved)?;
        }
        let journal_path = folder.join(JOURNAL);
        let journal = JsonlWriter::open_truncated(&journal_path, |_| true)?;
        let known = read_journal(&journal_path)?;
        Ok(Self { folder: folder.into(), journal, known, metrics: None, clients: None, _lock: lock })
    }

    /// What the journal says of each round.
    #[must_use]
    pub fn journal(&self) -> BTreeMap<u32, Vec<Attempt>> {
        self.known.attempts.clone()
    }

    /// The loss of a device that the journal tells of.
    #[must_use]
    pub fn loss(&self) -> Option<DeviceLoss> {
        self.known.lost.clone()
    }

    /// Puts the loss of a device on record, before the run goes on without it.
    pub fn lost(&mut self, loss: &DeviceLoss) -> Result<(), SimError> {
        self.journal.write(&JournalLine::Lost(loss.clone()))?;
        self.journal.sync()?;
        self.known.lost = Some(loss.clone());
        Ok(())
    }

    /// Drops the metrics after `round` (its rounds will be run again) and returns the others.
    pub fn truncate(&mut self, round: u32) -> Result<Vec<RoundRecord>, SimError> {
        let keep = move |v: &Value| v["round"].as_u64().is_some_and(|r| r <= u64::from(round));
        let path = self.folder.join(METRICS);
        self.metrics = Some(JsonlWriter::open_truncated(&path, keep)?);
        self.clients = Some(JsonlWriter::open_truncated(&self.folder.join(CLIENTS), keep)?);
        Ok(jsonl::read(&path)?)
    }

    /// The stored checkpoint, if there is one.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, SimError> {
        let path = self.folder.join(CHECKPOINT);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Checkpoint::from_bytes(&bytes)?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReportError::Io { action: "read", path, source }.into()),
        }
    }

    /// Records an attempt, unless the journal has it already. Reaches the disk with the charge: nothing
    /// leaves this process in between.
    pub fn begin(&mut self, round: u32, attempt: u32, input: [u8; 32]) -> Result<(), SimError> {
        let known = self.known.attempts.entry(round).or_default();
        if known.iter().any(|a| a.attempt == attempt) {
            return Ok(());
        }
        known.push(Attempt { attempt, input, charged: false, abandoned: false });
        self.journal.write(&JournalLine::Begin(Tried { round, attempt, input: hex::encode(input) }))?;
        Ok(())
    }

    /// Makes all that the journal has durable: before anything of an attempt counts as sent.
    pub fn sync_journal(&mut self) -> Result<(), SimError> {
        Ok(self.journal.sync()?)
    }

    /// Makes a charge durable, unless it is already.
    pub fn charge(&mut self, charge: &Charge) -> Result<(), SimError> {
        let known = self.known.attempts.entry(charge.round).or_default();
        if let Some(a) = known.iter_mut().find(|a| a.attempt == charge.attempt) {
            if a.charged {
                return Ok(());
            }
            a.charged = true;
        }
        let Charge { round, attempt, input } = *charge;
        self.journal.write(&JournalLine::Charge(Tried { round, attempt, input: hex::encode(input) }))?;
        self.journal.sync()?;
        Ok(())
    }

    /// Writes the line of a round.
    pub fn metrics(&mut self, record: &RoundRecord) -> Result<(), SimError> {
        if let Some(file) = &mut self.metrics {
            file.write(record)?;
        }
        Ok(())
    }

    /// Writes what the clients of a round saw, of their vectors and of the gradients behind them.
    pub fn diagnose(
        &mut self,
        round: u32,
        cohort: usize,
        report: &EncodeReport,
        gradients: &GradientReport,
    ) -> Result<(), SimError> {
        let n = cohort.max(1) as f64;
        if let Some(file) = &mut self.clients {
            file.write(&ClientRecord {
                round,
                zeroed_rows: report.zeroed,
                clipped: report.clipped as f64 / n,
                clip_ratio: report.clip_ratio_sum / n,
                norm: report.norm_sum / n,
                gradients: (gradients.rows > 0).then(|| gradients.into()),
            })?;
        }
        Ok(())
    }

    /// Stores a checkpoint, after the metrics that lead to it.
    pub fn store(&mut self, checkpoint: &Checkpoint) -> Result<(), SimError> {
        for file in [&mut self.metrics, &mut self.clients].into_iter().flatten() {
            file.sync()?;
        }
        write_atomic(&self.folder.join(CHECKPOINT), &checkpoint.to_bytes()?).map_err(ReportError::from)?;
        Ok(())
    }

    /// Writes the model, the page and the result.
    pub fn finish(&mut self, experiment: &Experiment, result: &RunResult) -> Result<(), SimError> {
        if let Some(model) = &experiment.model {
            let mut info = BTreeMap::from([
                ("run".to_string(), experiment.name.clone()),
                ("rounds".to_string(), result.rounds.to_string()),
                ("epsilon".to_string(), result.epsilon.public.epsilon.to_string()),
                ("delta".to_string(), result.epsilon.public.delta.to_string()),
            ]);
            info.extend(page::samples::metadata(experiment, result));
            weights::save(&self.folder.join(MODEL), model, &experiment.trainer.saved(&result.weights), &info)?;
        }
        let html = page::render(experiment, result);
        write_atomic(&self.folder.join(PAGE), html.as_bytes()).map_err(ReportError::from)?;
        let mut value = page::result_json(experiment, result);
        value["run_dir"] = json!(self.folder);
        write_json(&self.folder.join(RESULT), &value)
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), SimError> {
    write_atomic(path, format!("{value:#}\n").as_bytes()).map_err(ReportError::from)?;
    Ok(())
}

/// Version, machine and seed: what a reader needs to repeat the run.
fn environment(experiment: &Experiment) -> Value {
    json!({
        "veilsum": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "threads": rayon::current_num_threads(),
        "backend": experiment.backend.describe(),
        "seed": experiment.seed,
        "seed_source": if experiment.seed.is_some() { "config (the noise is reproducible, not secret)" } else { "operating system (kept in secret.hex)" },
        "session": hex::encode(experiment.plan.session),
    })
}

fn folder_error(folder: &Path, problem: impl Into<String>) -> SimError {
    SimError::Folder { folder: folder.display().to_string(), problem: problem.into() }
}

fn make_empty(folder: &Path) -> Result<(), SimError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(folder_error(
                    folder,
                    "the output folder exists and is not empty; name another with --out, or continue this run with --resume",
                ));
            }
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir_all(folder)
            .map_err(|source| ReportError::Io { action: "create", path: folder.into(), source }.into()),
        Err(source) => Err(ReportError::Io { action: "read", path: folder.into(), source }.into()),
    }
}

fn lock(folder: &Path) -> Result<std::fs::File, SimError> {
    let path = folder.join(LOCK);
    let file = std::fs::File::create(&path)
        .map_err(|source| SimError::from(ReportError::Io { action: "create", path, source }))?;
    file.try_lock().map_err(|_| folder_error(folder, "another process is running this run"))?;
    Ok(file)
}

fn write_secret(path: &Path, secret: &Secret) -> Result<(), SimError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let io = |source| SimError::from(ReportError::Io { action: "create", path: path.into(), source });
    let mut text = zeroize::Zeroizing::new(hex::encode(secret.expose()));
    text.push('\n');
    let mut file = options.open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}

/// The secret of a run to be resumed.
pub fn read_secret(folder: &Path) -> Result<Secret, SimError> {
    let path = folder.join(SECRET);
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(&path)
            .map_err(|source| SimError::from(ReportError::Io { action: "read", path: path.clone(), source }))?,
    );
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| folder_error(&path, "expected 64 hexadecimal digits"))?;
    Ok(Secret::from_bytes(bytes))
}

/// Picks the CPU for a run to be resumed whose device was lost: the device is not even asked for again.
pub fn without_lost_device(folder: &Path, config: &mut Config) -> Result<(), SimError> {
    let path = folder.join(JOURNAL);
    if path.exists() && read_journal(&path)?.lost.is_some() {
        config.backend = Some(BackendName::Simd);
    }
    Ok(())
}

fn read_journal(path: &Path) -> Result<Journal, SimError> {
    let mut journal = Journal::default();
    for line in jsonl::read::<JournalLine>(path)? {
        let (tried, charged) = match line {
            JournalLine::Begin(tried) => (tried, false),
            JournalLine::Charge(tried) => (tried, true),
            JournalLine::Lost(loss) => {
                journal.lost.get_or_insert(loss);
                continue;
            }
        };
        let Tried { round, attempt, input: hash } = tried;
        let mut input = [0u8; 32];
        hex::decode_to_slice(&hash, &mut input)
            .map_err(|_| folder_error(path, format!("round {round}: the input hash is damaged")))?;
        let known = journal.attempts.entry(round).or_default();
        if !charged {
            known.push(Attempt { attempt, input, charged, abandoned: false });
        } else if let Some(a) = known.iter_mut().find(|a| a.attempt == attempt) {
            a.charged = true;
        } else {
            return Err(folder_error(path, format!("round {round} was charged before it began")));
        }
    }
    Ok(journal)
}
