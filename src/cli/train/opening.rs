//! What a run is opened with: a config and a folder, or a folder alone. Rank 0 reads it, and tells the others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::{Args, read_config};
use crate::cli::{Exit, Failure};
use crate::config::build::{Experiment, Given, build};
use crate::config::{Config, ConfigError, LedgerConfig, overrides};
use crate::data;
use crate::fl::replay::Replay;
use crate::math::prg::Secret;
use crate::sim::ranks::Ranks;
use crate::sim::{SimError, run_dir};

/// What a run is opened with.
pub(super) struct Opening {
    config: Config,
    /// Where relative paths of the config start.
    base: PathBuf,
    /// Of a run that is continued, or shared.
    secret: Option<Secret>,
    /// Rounds that were played elsewhere.
    replay: Option<Replay>,
    /// The run folder.
    folder: PathBuf,
}

/// The same on its way to other ranks.
#[derive(Serialize, Deserialize)]
struct Message {
    config: Value,
    base: PathBuf,
    secret: String,
    replay: Option<Replay>,
    folder: PathBuf,
}

impl Opening {
    /// What the arguments say.
    pub(super) fn of(args: &Args) -> Result<Self, Failure> {
        match &args.resume {
            Some(folder) => reopen(folder),
            None => open(args),
        }
    }

    /// The experiment, and the run folder. Rank 0 reads the data before the others do: it may have to fetch them.
    pub(super) fn build(
        self,
        ranks: &dyn Ranks,
        progress: bool,
        device: usize,
    ) -> Result<(Experiment, PathBuf), Failure> {
        let Self { config, base, secret, replay, folder } = self;
        let mut given = Given { secret, progress, device, ..Given::default() };
        if ranks.rank() == 0 {
            given.split = Some(Arc::new(data::load(&config.data, &base, progress).map_err(ConfigError::from)?));
        }
        ranks.broadcast(&mut Vec::new());
        let mut experiment = build(&config, &base, given)?;
        experiment.replay = replay.map(Arc::new);
        Ok((experiment, folder))
    }
}

/// What rank 0 has, in every rank. With others it draws the secret here, which all of them need.
pub(super) fn share(opening: Option<Opening>, ranks: &dyn Ranks) -> Result<Opening, Failure> {
    let unreadable = |e| SimError::Ranks { problem: format!("what rank 0 has opened cannot be told: {e}") };
    match opening {
        Some(opening) if ranks.size() == 1 => Ok(opening),
        Some(mut opening) => {
            let secret = match (opening.secret.take(), opening.config.seed) {
                (Some(secret), _) => secret,
                (None, Some(seed)) => Secret::from_seed(seed),
                (None, None) => Secret::fresh().map_err(ConfigError::from)?,
            };
            let mut message = Message {
                config: serde_json::to_value(&opening.config).map_err(unreadable)?,
                base: std::path::absolute(&opening.base).unwrap_or_else(|_| opening.base.clone()),
                secret: hex::encode(secret.expose()),
                replay: opening.replay.take(),
                folder: opening.folder.clone(),
            };
            let mut bytes = Zeroizing::new(serde_json::to_vec(&message).map_err(unreadable)?);
            message.secret.zeroize();
            ranks.broadcast(&mut bytes);
            opening.replay = message.replay;
            Ok(Opening { secret: Some(secret), ..opening })
        }
        None => {
            let mut bytes = Zeroizing::new(Vec::new());
            ranks.broadcast(&mut bytes);
            let Message { config, base, secret, replay, folder } =
                serde_json::from_slice(&bytes).map_err(unreadable)?;
            let (secret, mut key) = (Zeroizing::new(secret), Zeroizing::new([0; 32]));
            hex::decode_to_slice(secret.as_str(), &mut key[..])
                .map_err(|e| SimError::Ranks { problem: format!("the secret of rank 0 is none: {e}") })?;
            let config = overrides::typed(&config, "rank 0")?;
            Ok(Opening { config, base, secret: Some(Secret::from_bytes(*key)), replay, folder })
        }
    }
}

fn open(args: &Args) -> Result<Opening, Failure> {
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
    let replay = args.replay.as_deref().map(read_replay).transpose()?;
    Ok(Opening { config, base, secret: None, replay, folder })
}

fn read_replay(path: &Path) -> Result<Replay, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_str(&text)
        .map_err(|e| Failure::new(Exit::Usage, format!("{}: {e}; expected `veilsum rounds export`", path.display())))
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

fn reopen(folder: &Path) -> Result<Opening, Failure> {
    let path = folder.join(run_dir::CONFIG);
    if !path.exists() {
        let message = format!("{} is no run folder: it has no {}", folder.display(), run_dir::CONFIG);
        return Err(Failure::new(Exit::Usage, message));
    }
    let (mut config, _) = read_config(Some(&path), &[])?;
    run_dir::without_lost_device(folder, &mut config)?;
    // Data paths were made absolute when the run began.
    let (base, secret) = (PathBuf::from("."), Some(run_dir::read_secret(folder)?));
    Ok(Opening { config, base, secret, replay: None, folder: folder.to_path_buf() })
}
