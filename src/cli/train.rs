//! `veilsum train`.

mod opening;
mod shared;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use self::opening::Opening;
use super::{Exit, Failure};
use crate::config::build::Experiment;
use crate::config::{Config, ConfigError, overrides};
use crate::fl::FlError;
use crate::report::progress::Progress;
use crate::report::terminal::{Align, Table};
use crate::sim::loss::DeviceLoss;
use crate::sim::ranks::{Alone, Ranks};
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
  mpirun -n 4 veilsum train --mpi configs/smm_mnist.json    clients shared by four processes, the same model (feature mpi)

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
    /// Shares the clients among the processes that mpirun or Slurm has started, on one machine or several. The model has the same bits
    /// for any number of them. Needs a build with the feature `mpi`; see docs/mpi.md.
    #[arg(long)]
    pub mpi: bool,
    /// No progress; one JSON object a round and one at the end on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.mpi {
        return shared::run(&args);
    }
    shared::refuse_unasked()?;
    train(&args, &Alone, 0)
}

/// Trains with the other ranks, on one of the devices of its machine.
fn train(args: &Args, ranks: &dyn Ranks, device: usize) -> Result<(), Failure> {
    let first = ranks.rank() == 0;
    let opening = if first { Some(Opening::of(args)?) } else { None };
    let (experiment, folder) = opening::share(opening, ranks)?.build(ranks, first && !args.json, device)?;
    if !first {
        let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
        let result = sim::run_shared(&experiment, ranks, &options, &mut sim::Silent)?;
        return match result.ending {
            Ending::Interrupted => Err(Failure::new(Exit::Interrupted, "interrupted")),
            Ending::Finished(_) => Ok(()),
        };
    }
    if !args.json {
        announce(&experiment, &folder);
        if ranks.size() > 1 {
            eprintln!("shared by {} ranks", ranks.size());
        }
    }
    let interrupt = on_ctrl_c();
    let options = RunOptions { folder: Some(&folder), resume: args.resume.is_some(), interrupt: &interrupt };
    let mut watch = Watch { json: args.json, progress: None, accuracy: None };
    let result = sim::run_shared(&experiment, ranks, &options, &mut watch)?;
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
