//! `veilsum join`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::train::on_ctrl_c;
use super::{Exit, Failure};
use crate::config::{ConfigError, overrides};
use crate::data::{self, DataConfig};
use crate::net::NetError;
use crate::net::client::{Address, JoinOptions, Left, LocalData, enrol, join};
use crate::net::keys::{CERTIFICATE, IDENTITY};
use crate::net::policy::Policy;

/// Arguments of `veilsum join`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum join https://fl.example.org:7443 --keys my-keys --token vst1.... --data '{\"csv\": {\"train\": \"patients.csv\"}}'
  veilsum join https://localhost:7443 --keys demo/site-1 --data mnist --deal     a demonstration: its part of MNIST
  veilsum join https://localhost:7443 --keys holder-1                            a key holder: no data
  veilsum join https://localhost:7443 --keys my-keys --command python3 train.py   any framework trains

A folder of keys holds the keys of one party, or folders of several, which one process plays. With --token the party enrols
first, and its folder is made. policy.json in the folder of keys (or --policy) is the last word on what is done with the data:
without one, only private rounds are taken part in, under a protocol that shows the server the sum alone.

Exit codes: 0 the run is over, 1 failure, 2 bad usage, 3 refused (by the policy, or by the server), 4 no data, 130 interrupted.")]
pub struct Args {
    /// The server: https://HOST:PORT.
    pub url: String,
    /// Folder of the party's keys, or of several parties' folders.
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// Enrols first, with this token (or @FILE, a token a line: as many parties, in folders 1, 2, ...).
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// What people call the party, on the server's dashboard.
    #[arg(long, default_value = "")]
    pub name: String,
    /// The data: the name of a published set, the section `data` of a config as JSON, or @FILE with it.
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// A program that trains in this client's place, with data of its own, and its arguments; last on the line. See
    /// docs/external-trainers.md.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true, conflicts_with = "data")]
    pub command: Vec<String>,
    /// Take the part of the data that the run deals to this client, where every client has the data of all. For demonstrations.
    #[arg(long, requires = "data")]
    pub deal: bool,
    /// What is allowed; default: policy.json in the folder of keys, and else the built-in one.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Draws all randomness from this seed, to be compared with a simulation. **Takes the protection away.**
    #[arg(long, hide_short_help = true)]
    pub seed: Option<u64>,
    /// Trainings at a time, of all parties of this process.
    #[arg(long, default_value_t = 1)]
    pub trainings: usize,
    /// One JSON object at the end on stdout; logs as JSON on stderr.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    super::log::start(args.json);
    let address = Address::parse(&args.url)?;
    let stop = on_ctrl_c();
    let folders = match &args.token {
        Some(token) => enrolled(args, &address, token, &stop)?,
        None => folders(&args.keys)?,
    };
    let options = JoinOptions {
        address,
        name: args.name.clone(),
        data: local_data(args)?,
        policy: Arc::new(policy(args)?),
        seed: args.seed,
        trainings: args.trainings,
    };
    if args.seed.is_some() {
        eprintln!("note: all randomness comes from a seed: whoever knows it can take this client's noise away");
    }
    let outcomes = join(&options, &folders, &stop)?;
    let (mut interrupted, mut failure) = (false, None);
    for (folder, outcome) in folders.iter().zip(outcomes) {
        let folder = folder.display().to_string();
        match outcome {
            Ok(Left::Finished(reason)) if args.json => println!("{}", json!({"keys": folder, "finished": reason})),
            Ok(Left::Finished(reason)) => println!("{folder}: {reason}"),
            Ok(Left::Stopped) => interrupted = true,
            Err(e) => {
                eprintln!("{folder}: {e}");
                failure.get_or_insert(e);
            }
        }
    }
    match failure {
        Some(e) => Err(e.into()),
        None if interrupted => Err(Failure::new(Exit::Interrupted, "interrupted; the same command comes back")),
        None => Ok(()),
    }
}

/// Enrols the parties of the tokens, those that are not yet.
fn enrolled(args: &Args, address: &Address, token: &str, stop: &AtomicBool) -> Result<Vec<PathBuf>, Failure> {
    let (tokens, several): (Vec<String>, bool) = match token.strip_prefix('@') {
        None => (vec![token.to_owned()], false),
        Some(file) => (read(Path::new(file))?.split_whitespace().map(str::to_owned).collect(), true),
    };
    let mut folders = Vec::new();
    for (number, token) in (1..).zip(&tokens) {
        let folder = if several { args.keys.join(number.to_string()) } else { args.keys.clone() };
        if !folder.join(CERTIFICATE).exists() {
            let role = patiently(|| enrol(address, token, &folder, &args.name), stop)?;
            eprintln!("{}: enrolled as {role}", folder.display());
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// Tries again while the server cannot be reached.
fn patiently<T>(mut call: impl FnMut() -> Result<T, NetError>, stop: &AtomicBool) -> Result<T, Failure> {
    let mut said = false;
    loop {
        match call() {
            Err(NetError::Unreachable { reason }) if !stop.load(Ordering::Relaxed) => {
                if !said {
                    eprintln!("note: {reason}; trying again");
                }
                said = true;
                std::thread::sleep(Duration::from_secs(1));
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// The folders of parties in a folder: itself, or those in it, in the order of their names.
fn folders(keys: &Path) -> Result<Vec<PathBuf>, Failure> {
    if keys.join(IDENTITY).exists() {
        return Ok(vec![keys.to_path_buf()]);
    }
    let entries = std::fs::read_dir(keys).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", keys.display())))?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.join(IDENTITY).exists()).collect();
    folders.sort();
    if folders.is_empty() {
        let message = format!(
            "{} holds no party's keys: make them with `veilsum keys new`, or enrol with --token",
            keys.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(folders)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}", path.display())))
}

fn local_data(args: &Args) -> Result<LocalData, Failure> {
    if !args.command.is_empty() {
        return Ok(LocalData::Command(args.command.clone()));
    }
    let Some(text) = &args.data else { return Ok(LocalData::None) };
    let (text, base) = match text.strip_prefix('@') {
        Some(file) => (read(Path::new(file))?, Path::new(file).parent().unwrap_or(Path::new(".")).to_path_buf()),
        None => (text.clone(), PathBuf::from(".")),
    };
    let config: DataConfig = if text.trim_start().starts_with('{') {
        let value = overrides::parse(&text, "--data")?;
        serde_json::from_value(value).map_err(|e| Failure::new(Exit::Usage, format!("--data: {e}")))?
    } else {
        DataConfig::named(&text)
    };
    let split = Arc::new(data::load(&config, &base, !args.json).map_err(ConfigError::from)?);
    Ok(if args.deal { LocalData::Dealt(split) } else { LocalData::Own(split) })
}

fn policy(args: &Args) -> Result<Policy, Failure> {
    let beside = args.keys.join("policy.json");
    let file = args.policy.clone().or_else(|| beside.exists().then_some(beside));
    match file {
        Some(file) => Policy::read(&file).map_err(|e| Failure::new(Exit::Usage, e)),
        None => Ok(Policy::default()),
    }
}
