//! The adversary's side of a round: what its clients train on ([`super::training`] trains them), and what they send instead.
//!
//! Its clients follow the protocol with vectors that it made: they encode and encrypt as everybody does, so that the clip of a
//! private round holds for them too. It sees the honest vectors of the clients that will deliver, before they are clipped.
//! For that the round's vectors are kept: `clients x d` floats.

use std::collections::HashMap;

use super::SimError;
use super::training::train;
use super::work::{delivering, rows_in_flight};
use crate::backend::Rows;
use crate::config::build::Experiment;
use crate::data::{Batch, Dataset, Features};
use crate::fl::attack::backdoor::ImageShape;
use crate::fl::attack::{Attack, AttackError, Backdoor, DataAttack, Sight, View};
use crate::fl::coordinator::RoundTask;
use crate::fl::{FlError, SERVER};
use crate::math::prg::{Address, Purpose, StreamKey};
use crate::model::samples_per_call;

/// The vectors of a round in which somebody is Byzantine.
pub(super) struct Forged {
    places: HashMap<u64, usize>,
    rows: Vec<f32>,
    dim: usize,
}

impl Forged {
    /// The vectors of some of the round's clients, in their order.
    pub(super) fn rows(&self, members: &[u64]) -> Result<Rows, SimError> {
        let mut rows = Vec::with_capacity(members.len() * self.dim);
        for client in members {
            let at = self.places.get(client).map_or(0, |&place| place * self.dim);
            rows.extend_from_slice(&self.rows[at..at + self.dim]);
        }
        Ok(Rows::dense(rows, members.len(), self.dim).map_err(FlError::from)?)
    }
}

/// Trains the clients of a round and lets the adversary see it, if some of them are in its hands.
pub(super) fn prepare(experiment: &Experiment, tasks: &[RoundTask]) -> Result<Option<Forged>, SimError> {
    let (Some(adversary), Some(first)) = (&experiment.adversary, tasks.first()) else { return Ok(None) };
    let mut cohort: Vec<u64> = tasks.iter().flat_map(|task| delivering(experiment, task)).collect();
    cohort.sort_unstable();
    let round = first.id.round;
    let of = |round| Address { client: SERVER, round, attempt: 0, copy: 0 };
    let key = |address| {
        experiment.secret.derive(&experiment.plan.session, address, Purpose::Byzantine, experiment.plan.cipher)
    };
    let drawn = if adversary.config().redraw { round } else { 0 };
    let corrupted = adversary.corrupted(&cohort, experiment.plan.clients, round, &key(of(drawn)));
    if corrupted.is_empty() {
        return Ok(None);
    }
    let honest: Vec<u64> = cohort.iter().copied().filter(|c| corrupted.binary_search(c).is_err()).collect();
    let dim = experiment.plan.dim;
    let attack = adversary.attack();
    let mut rows = trained(experiment, first, &honest, None)?;
    let own = match (attack.sees(), attack.data()) {
        (Sight::Own, None) => Some(trained(experiment, first, &corrupted, None)?),
        (_, Some(data)) => Some(trained(experiment, first, &corrupted, Some(data))?),
        _ => None,
    };
    let dense = |data: Vec<f32>, count: usize| Rows::dense(data, count, dim).map_err(FlError::from);
    let seen = match attack.sees() {
        Sight::Honest | Sight::HonestMean => Some(dense(rows.clone(), honest.len())?),
        Sight::Nothing | Sight::Own => None,
    };
    let own = own.map(|own| dense(own, corrupted.len())).transpose()?;
    let view = View { honest: seen.as_ref(), own: own.as_ref(), count: corrupted.len(), dim, round };
    let copied = Address { copy: 1, ..of(round) };
    let forged = attack.forge(&*experiment.backend, &view, &key(copied)).map_err(FlError::from)?;
    for row in 0..forged.rows {
        rows.extend_from_slice(forged.row(row).map_err(FlError::from)?);
    }
    let places = honest.iter().chain(&corrupted).enumerate().map(|(place, &client)| (client, place)).collect();
    Ok(Some(Forged { places, rows, dim }))
}

/// The vectors of some clients on the host, in chunks.
fn trained(
    experiment: &Experiment,
    task: &RoundTask,
    members: &[u64],
    attack: Option<DataAttack<'_>>,
) -> Result<Vec<f32>, SimError> {
    let mut all = Vec::with_capacity(members.len() * experiment.plan.dim);
    for members in members.chunks(rows_in_flight(task)) {
        let rows = train(experiment, task, members, attack)?;
        let host = rows.on_host(&*experiment.backend).map_err(FlError::from)?;
        for row in 0..host.rows {
            all.extend_from_slice(host.row(row).map_err(FlError::from)?);
        }
    }
    Ok(all)
}

/// An attack on data, made ready for a set.
pub(super) enum Poison {
    Labels(Vec<u32>),
    Trigger { backdoor: Backdoor, shape: ImageShape },
}

impl Poison {
    pub(super) fn new(attack: DataAttack<'_>, data: &Dataset) -> Result<Self, AttackError> {
        Ok(match attack {
            DataAttack::Labels(flip) => Self::Labels(flip.labels(data.classes)?),
            DataAttack::Trigger(backdoor) => {
                let (backdoor, shape) = trigger(backdoor, data)?;
                Self::Trigger { backdoor, shape }
            }
        })
    }

    pub(super) fn apply(&self, batch: &mut Batch, key: &StreamKey) {
        match self {
            Self::Labels(labels) => {
                batch.labels.iter_mut().for_each(|y| *y = labels.get(*y as usize).copied().unwrap_or(*y));
            }
            Self::Trigger { backdoor, shape } => {
                for sample in backdoor.stamped(batch.labels.len(), key) {
                    let image = &mut batch.features[sample * batch.dim..(sample + 1) * batch.dim];
                    // The shape was checked when the attack was made ready.
                    if backdoor.stamp(image, *shape).is_ok() {
                        batch.labels[sample] = backdoor.target;
                    }
                }
            }
        }
    }
}

/// The trigger in the unit of a set's features, and the shape of its images.
fn trigger(backdoor: &Backdoor, data: &Dataset) -> Result<(Backdoor, ImageShape), AttackError> {
    let channels = if data.dim.is_multiple_of(3) && (data.dim / 3).isqrt().pow(2) == data.dim / 3 { 3 } else { 1 };
    let side = (data.dim / channels).isqrt();
    let shape = ImageShape { channels, height: side, width: side };
    // Bytes are pixels of 0 to 1 less the mean, over the standard deviation.
    let value = match data.features {
        Features::Bytes(_) => (backdoor.value - data.mean) / data.std,
        Features::Floats(_) => backdoor.value,
    };
    let ready = Backdoor { value, ..*backdoor };
    ready.stamp(&mut vec![0.0; data.dim], shape)?;
    if backdoor.target as usize >= data.classes {
        return Err(AttackError::OutOfRange {
            attack: ready.name(),
            name: "target",
            expected: format!("below {}, the number of classes", data.classes),
            found: f64::from(backdoor.target),
        });
    }
    Ok((ready, shape))
}

/// The share of stamped test images of other classes that a model takes for the target of a backdoor; `None` without one.
pub(super) fn success(experiment: &Experiment, weights: &[f32]) -> Result<Option<f64>, SimError> {
    let Some(adversary) = &experiment.adversary else { return Ok(None) };
    let Some(DataAttack::Trigger(backdoor)) = adversary.attack().data() else { return Ok(None) };
    let test = &experiment.split.test;
    let (backdoor, shape) = trigger(backdoor, test).map_err(FlError::from)?;
    let (mut predicted, mut labels) = (Vec::with_capacity(test.len()), Vec::with_capacity(test.len()));
    let all: Vec<usize> = (0..test.len()).collect();
    for indices in all.chunks(samples_per_call(experiment.plan.dim).max(64)) {
        let mut batch = test.gather(indices);
        for image in batch.features.chunks_exact_mut(batch.dim.max(1)) {
            backdoor.stamp(image, shape).map_err(FlError::from)?;
        }
        let logits = experiment.trainer.logits(weights, &batch)?;
        for row in logits.chunks_exact(test.classes.max(1)) {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
            predicted.push(best as u32);
        }
        labels.extend_from_slice(&batch.labels);
    }
    Ok(backdoor.success_rate(&predicted, &labels).map_err(FlError::from)?)
}
