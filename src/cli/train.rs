//! `veilsum train`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::config::build::{Experiment, Given, build};
use crate::config::{Config, ConfigError, LedgerConfig, overrides};
use crate::fl::FlError;
use crate::fl::replay::Replay;
use crate::report::progress::Progress;
use crate::report::terminal::{Align, Table};
use crate::sim::loss::DeviceLoss;
use crate::sim::{self, Ending, Observer, RoundRecord, RunOptions, SimError, page, run_dir};

/// Arguments of `veilsum train`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum train                                    the quickstart: MNIST, privately, epsilon <= 3
  veilsum train configs/smm_mnist.json --set privacy.bits=10 --set seed=1
  veilsum train --set data.name=digits --set model=digits_mlp --set cohort=200   offline, in seconds
  veilsum train --set privacy.mechanism=matrix --set sampling=round-robin   noise correlated over rounds (DP-FTRL)
  veilsum train --set privacy.adaptive_clip={}     a clip bound that follows the clients' median norm
  veilsum train --resume runs/quickstart           after Ctrl-C, a crash or a power cut

The run folder holds config.json (resolved), metrics.jsonl (a line a round), model.safetensors,
report.html, journal.jsonl (attempts and charges of this run), ledger.jsonl (what its releases cost; unless
--ledger names another), checkpoint.safetensors, result.json.
Press Ctrl-C to stop after the present step; the run can be resumed to the same result.

Exit codes: 0 finished (or stopped by its budget), 1 failure, 2 bad config, 3 refused, 4 no data, 130 interrupted.")]
pub struct Args {
    /// The experiment; absent: the quickstart.
    pub config: Option<PathBuf>,
    /// Overrides a value: a.b=c, where c is JSON or a string; null removes the key.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Run folder; it must not exist or be empty. Default: runs/NAME, with a number if that is taken.
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Continue the run in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "set"])]
    pub resume: Option<PathBuf>,
    /// Play rounds again that were played elsewhere (`veilsum rounds export`): who vanished in them, and which were given up.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub replay: Option<PathBuf>,
    /// Charge every release to a principal of this ledger, before it is made, and stop before its limit is passed.
    #[arg(long, value_name = "FILE", requires = "principal", conflicts_with = "resume")]
    pub ledger: Option<PathBuf>,
    /// Whose privacy it is: a name in the ledger.
    #[arg(long, value_name = "NAME", requires = "ledger")]
    pub principal: Option<String>,
    /// No progress; one JSON object a round and one at the end on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let (experiment, folder) = match &args.resume {
        Some(folder) => (reopen(folder, !args.json)?, folder.clone()),
        None => open(&args)?,
    };
    if !args.json {
        announce(&experiment, &folder);
    }
    let interrupt = on_ctrl_c();
    let options = RunOptions { folder: Some(&folder), resume: args.resume.is_some(), interrupt: &interrupt };
    let mut watch = Watch { json: args.json, progress: None, accuracy: None };
    let result = sim::run(&experiment, &options, &mut watch)?;
    if let Some(progress) = watch.progress.take() {
        progress.finish();
    }
    if result.clients.zeroed > 0 {
        eprintln!(
            "note: {} rows held NaN or infinity and were sent as zero (client_diagnostics.jsonl says in which rounds)",
            result.clients.zeroed
        );
    }
    if args.json {
        let mut value = page::result_json(&experiment, &result);
        value["run_dir"] = json!(folder);
        println!("{value}");
    } else {
        let mut table = Table::new(["run", experiment.name.as_str()]).with_align([Align::Left, Align::Left]);
        for (name, value) in page::summary(&experiment, &result) {
            table.push([name, value]);
        }
        println!("{table}");
        println!("report   {}", folder.join(run_dir::PAGE).display());
        println!("model    {}", folder.join(run_dir::MODEL).display());
    }
    if result.ending == Ending::Interrupted {
        let message = format!(
            "interrupted after round {}; continue with: veilsum train --resume {}",
            result.rounds,
            folder.display()
        );
        return Err(Failure::new(Exit::Interrupted, message));
    }
    Ok(())
}

/// A flag that Ctrl-C and SIGTERM set; a second Ctrl-C ends the process at once.
pub(in crate::cli) fn on_ctrl_c() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&flag);
    let installed = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after the present step (press Ctrl-C again to end at once; nothing is lost)");
    });
    if let Err(e) = installed {
        eprintln!("note: Ctrl-C will end the run at once ({e}); it can be resumed all the same");
    }
    flag
}

/// The typed config of a file (or the quickstart) with overrides, and the folder of its relative paths.
pub(super) fn read_config(path: Option<&Path>, set: &[String]) -> Result<(Config, PathBuf), Failure> {
    let (text, origin, base) = match path {
        None => (Config::quickstart().to_string(), "quickstart".to_string(), PathBuf::from(".")),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
            let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (text, path.display().to_string(), base.to_path_buf())
        }
    };
    let mut value = overrides::parse(&text, &origin)?;
    for item in set {
        overrides::set(&mut value, item)?;
    }
    Ok((overrides::typed(&value, &origin)?, base))
}

fn open(args: &Args) -> Result<(Experiment, PathBuf), Failure> {
    let (mut config, base) = read_config(args.config.as_deref(), &args.set)?;
    if let (Some(file), Some(principal)) = (&args.ledger, &args.principal) {
        // Given on the command line: it starts from here, not from the config's folder.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        config.ledger = Some(LedgerConfig { file, principal: principal.clone() });
    }
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => free_folder(&config.name),
    };
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!(
            "the output folder {} exists and is not empty; name another with --out, or continue that run with --resume",
            folder.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut experiment = build(&config, &base, Given { progress: !args.json, ..Given::default() })?;
    if let Some(path) = &args.replay {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
        let replay: Replay = serde_json::from_str(&text).map_err(|e| {
            Failure::new(Exit::Usage, format!("{}: {e}; expected `veilsum rounds export`", path.display()))
        })?;
        experiment.replay = Some(Arc::new(replay));
    }
    Ok((experiment, folder))
}

/// `runs/NAME`, or the first `runs/NAME-2`, `-3`, ... that does not exist.
fn free_folder(name: &str) -> PathBuf {
    let first = Path::new("runs").join(name);
    if !first.exists() {
        return first;
    }
    let mut number = 2u32;
    loop {
        let folder = Path::new("runs").join(format!("{name}-{number}"));
        if !folder.exists() {
            return folder;
        }
        number += 1;
    }
}

fn reopen(folder: &Path, progress: bool) -> Result<Experiment, Failure> {
    let path = folder.join(run_dir::CONFIG);
    if !path.exists() {
        let message = format!("{} is no run folder: it has no {}", folder.display(), run_dir::CONFIG);
        return Err(Failure::new(Exit::Usage, message));
    }
    let (mut config, _) = read_config(Some(&path), &[])?;
    run_dir::without_lost_device(folder, &mut config)?;
    // Data paths were made absolute when the run began.
    let given = Given { secret: Some(run_dir::read_secret(folder)?), progress, ..Given::default() };
    Ok(build(&config, Path::new("."), given)?)
}

fn announce(experiment: &Experiment, folder: &Path) {
    let plan = &experiment.plan;
    eprintln!(
        "{}: {} clients, {} a round expected, {} rounds, {} parameters, {} on {}",
        experiment.name,
        plan.clients,
        plan.cohort,
        plan.rounds,
        plan.dim,
        plan.mechanism.name(),
        experiment.backend.describe()
    );
    for note in &experiment.notes {
        eprintln!("note: {note}");
    }
    eprintln!("run folder: {}", folder.display());
}

/// Shows rounds as they end.
struct Watch {
    json: bool,
    progress: Option<Progress>,
    accuracy: Option<f64>,
}

impl Observer for Watch {
    fn lost(&mut self, loss: &DeviceLoss) {
        match &self.progress {
            Some(progress) if !self.json => progress.note(&loss.to_string()),
            _ => eprintln!("{loss}"),
        }
    }

    fn started(&mut self, round: u32, rounds: u32) {
        self.progress = Some(Progress::rounds(u64::from(round), u64::from(rounds), self.json));
    }

    fn round(&mut self, record: &RoundRecord) {
        self.accuracy = record.accuracy.or(self.accuracy);
        if let Some(progress) = &mut self.progress {
            progress.update(u64::from(record.round), self.accuracy, record.epsilon);
        }
        if self.json {
            println!("{}", serde_json::to_value(record).unwrap_or(Value::Null));
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        match e {
            ConfigError::Data(e) => e.into(),
            ConfigError::Privacy(e) => e.into(),
            ConfigError::Fl(FlError::Privacy(e)) => e.into(),
            other => Self::new(Exit::Usage, other),
        }
    }
}

impl From<SimError> for Failure {
    fn from(e: SimError) -> Self {
        match e {
            SimError::Config(e) => e.into(),
            SimError::Ledger(e) | SimError::Fl(FlError::Ledger(e)) => e.into(),
            SimError::Fl(FlError::Privacy(e)) => e.into(),
            SimError::Fl(e @ FlError::Superseded { .. }) => Self::new(Exit::Refused, e),
            SimError::Folder { .. } => Self::new(Exit::Usage, e),
            other => Self::new(Exit::Failure, other),
        }
    }
}
