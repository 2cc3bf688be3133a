//! Resolves local DP-SGD: what its sums are divided by, and the noise that meets a target.

use super::resolve::settled;
use super::{Algorithm, Config, ConfigError};
use crate::data::partition::Partition;
use crate::fl::dp_sgd::{Clipping, Divisor, DpSgd, DpSgdParams};
use crate::fl::samples::{SampleLevel, VIEW, turns};
use crate::model::{LocalTrainer, ModelError};
use crate::privacy::calibrate::{Uses, calibrate_noise, discrete_gaussian};
use crate::privacy::stages::Stages;

/// The sample level of a config that asks for `dp_sgd`, and its algorithm without gaps; `None` for other algorithms.
///
/// # Errors
/// Values out of range; neither noise nor target; a target that no noise meets; an accountant that does not know a discrete
/// Gaussian on a Poisson sample; a trainer or a model that does not clip inside, where it shall.
pub(super) fn resolve(
    config: &Config,
    partition: &Partition,
    trainer: &dyn LocalTrainer,
) -> Result<Option<(Algorithm, SampleLevel)>, ConfigError> {
    let Algorithm::DpSgd {
        steps,
        sampling_rate: rate,
        batch_size,
        learning_rate,
        momentum,
        clip,
        noise_multiplier,
        target_epsilon,
        delta,
        isolate,
        clipping,
    } = config.algorithm
    else {
        return Ok(None);
    };
    if !(delta > 0.0 && delta < 1.0) {
        return Err(invalid("algorithm.delta", "in (0, 1)", delta));
    }
    let clients = partition.clients.len() as u64;
    let largest = partition.clients.iter().map(Vec::len).max().unwrap_or(0);
    let (divisor, largest_batch) = match batch_size {
        Some(size) => (Divisor::Public(size), size),
        // A rate out of range is refused below.
        None => (Divisor::Shard, rate * largest as f64),
    };
    let level = |noise_multiplier| -> Result<SampleLevel, ConfigError> {
        let params = DpSgdParams {
            steps,
            rate,
            divisor,
            largest_batch,
            learning_rate,
            momentum,
            clip,
            noise_multiplier,
            isolate,
            clipping,
        };
        let rule = config.privacy.accountant.into();
        Ok(SampleLevel { local: DpSgd::new(params)?, delta, epsilon_budget: target_epsilon, rule })
    };
    // What the noise does not decide is refused before the noise is looked for.
    let checked = level(1.0)?;
    if clipping == Clipping::Ghost && !trainer.clips_inside() {
        return Err(invalid("algorithm.clipping", ModelError::ClipsOutside.to_string().as_str(), "ghost"));
    }
    let rounds = u64::from(config.rounds).div_ceil(turns(config.sampling, clients, config.cohort));
    let planned = checked.steps(rounds);
    let (noise, samples) = match (noise_multiplier, target_epsilon) {
        (Some(noise), _) => (noise, level(noise)?),
        (None, None) => {
            let expected = "an epsilon to calibrate for (or algorithm.noise_multiplier)";
            return Err(invalid("algorithm.target_epsilon", expected, "absent"));
        }
        (None, Some(target)) => {
            let uses = Uses { rate, delta, stages: Stages::uniform(planned), rule: checked.rule };
            let found = calibrate_noise(&uses, target, discrete_gaussian)? * (1.0 + 1e-12);
            settled(target, found, |noise| {
                let level = level(noise)?;
                Ok((level.meter(planned)?.exactly(&[planned], delta)?.epsilon, level))
            })?
        }
    };
    let mut algorithm = config.algorithm;
    if let Algorithm::DpSgd { noise_multiplier, .. } = &mut algorithm {
        *noise_multiplier = Some(noise);
    }
    if clipping == Clipping::Ghost {
        samples.local.clip_inside(trainer.parameter_count())?;
    }
    Ok(Some((algorithm, samples)))
}

/// What a reader of the results has to know.
pub(super) fn notes(samples: &SampleLevel, clients_private: bool, config: &Config) -> Vec<String> {
    let mut notes = vec![format!(
        "DP-SGD on each client: its epsilon is that of one sample, to {VIEW}, at delta {:e}; neighbours: {}. Every attempt of a round counts for every client that may have been in it.",
        samples.delta,
        samples.neighbors(),
    )];
    if clients_private {
        notes.push("Two levels: the clients' vectors have noise and an epsilon of their own, with other neighbours; the two are not added up.".into());
    } else {
        notes.push("The clients' vectors carry no further noise: whether a client took part, and what all its samples have in common, is not protected.".into());
    }
    if config.ledger.is_some() {
        notes.push("The ledger is charged for the clients' vectors alone; attempts that the samples are accounted for are in the journal of the run.".into());
    }
    notes
}

fn invalid(name: &'static str, expected: &str, found: impl ToString) -> ConfigError {
    ConfigError::Invalid { name, expected: expected.to_owned(), found: found.to_string() }
}
