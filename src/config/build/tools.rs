//! What a run computes with: the backend, and who trains on what.

use std::path::Path;
use std::sync::Arc;

use super::invalid;
use crate::backend::{self, Backend, BackendKind, OpenOptions};
use crate::config::{Algorithm, BackendName, Config, ConfigError, TrainOn};
use crate::data::Dataset;
use crate::model::architecture::ModelConfig;
use crate::model::{LocalTrainer, StartConfig, trainer_for, trainer_from, trainer_on};

/// Who trains, and what.
pub(super) struct Trainers {
    pub(super) trainer: Arc<dyn LocalTrainer>,
    pub(super) trainer_on_cpu: Option<Arc<dyn LocalTrainer>>,
    pub(super) model: Option<ModelConfig>,
    /// With the hash of the file.
    pub(super) start: Option<StartConfig>,
}

/// The trainer that is given or configured, with a device on that, too.
fn trainers(
    config: &Config,
    base: &Path,
    given: Option<Arc<dyn LocalTrainer>>,
    device: Option<&Arc<dyn Backend>>,
) -> Result<Trainers, ConfigError> {
    let (model, start) = match (given, &config.model, &config.start) {
        (Some(trainer), ..) => return Ok(Trainers { trainer, trainer_on_cpu: None, model: None, start: None }),
        (None, None, _) => return Err(invalid("model", "the name of a model, or {\"mlp\": [sizes]}", "absent")),
        (None, Some(model), start) => (model.clone(), start),
    };
    if let Some(start) = start {
        if device.is_some() {
            return Err(invalid("train_on", "cpu with `start`", "backend"));
        }
        let (trainer, sha256) = trainer_from(&model, &start.rebased(base))?;
        let start = Some(StartConfig { sha256: Some(sha256), ..start.clone() });
        return Ok(Trainers { trainer, trainer_on_cpu: None, model: Some(model), start });
    }
    let on_cpu = trainer_for(&model)?;
    Ok(match device {
        Some(device) => Trainers {
            trainer: trainer_on(&model, device.clone())?,
            trainer_on_cpu: Some(on_cpu),
            model: Some(model),
            start: None,
        },
        None => Trainers { trainer: on_cpu, trainer_on_cpu: None, model: Some(model), start: None },
    })
}

/// What runs the kernels, and who trains.
pub(super) struct Tools {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) trainers: Trainers,
    /// Where the clients train, written down.
    pub(super) train_on: Option<TrainOn>,
    pub(super) on_device: bool,
}

impl Tools {
    pub(super) fn open(
        config: &Config,
        base: &Path,
        given: Option<Arc<dyn LocalTrainer>>,
        device: usize,
    ) -> Result<Self, ConfigError> {
        let options = OpenOptions { device, ..OpenOptions::from_env() };
        let backend = backend::open_with(
            config.backend.map(|b| match b {
                BackendName::Scalar => BackendKind::Scalar,
                BackendName::Simd => BackendKind::Simd,
                BackendName::Wgpu => BackendKind::Wgpu,
                BackendName::Cuda => BackendKind::Cuda,
            }),
            &options,
        )?;
        let train_on = if given.is_some() { config.train_on } else { train_on(config) };
        let on_device =
            train_on == Some(TrainOn::Backend) && matches!(backend.kind(), BackendKind::Wgpu | BackendKind::Cuda);
        if on_device && matches!(config.algorithm, Algorithm::Scaffold { .. }) {
            return Err(invalid("train_on", "cpu with `scaffold`", "backend"));
        }
        let trainers = trainers(config, base, given, on_device.then_some(&backend))?;
        Ok(Self { backend, trainers, train_on, on_device })
    }

    pub(super) fn check_dataset(&self, data: &Dataset) -> Result<(), ConfigError> {
        match &self.trainers.model {
            Some(model) => Ok(model.architecture()?.check_dataset(data)?),
            None => Ok(()),
        }
    }
}

/// Where the clients train, written down where the config leaves it open and a device could do it: a run that is continued
/// trains where it began. On CUDA that takes a compiler beside the driver, which the kernels do without: the config has to ask
/// for it.
fn train_on(config: &Config) -> Option<TrainOn> {
    match config.train_on {
        None if config.backend == Some(BackendName::Wgpu) && config.start.is_none() => Some(TrainOn::Backend),
        given => given,
    }
}
