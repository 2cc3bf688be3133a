//! The adversary's side of a round: what its clients train on, and what they send instead.
//!
//! Its clients follow the protocol with vectors that it made: they encode and encrypt as everybody does, so that the clip of a
//! private round holds for them too. It sees the honest vectors of the clients that will deliver, before they are clipped.
//! For that the round's vectors are kept: `clients x d` floats.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::SimError;
use super::work::{delivering, rows_in_flight};
use crate::backend::Rows;
use crate::config::build::{Experiment, LocalWork};
use crate::data::{Batch, Dataset, Features};
use crate::fl::attack::backdoor::ImageShape;
use crate::fl::attack::{Attack, AttackError, Backdoor, DataAttack, Sight, View};
use crate::fl::coordinator::RoundTask;
use crate::fl::{FlError, SERVER, nova, scaffold};
use crate::math::prg::{Address, Purpose, StreamKey};
use crate::model::{Clients, LocalConfig, samples_per_call};

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
        let host = experiment.backend.to_host(rows.buffer.clone()).map_err(FlError::from)?;
        let rows = Rows { buffer: host, ..rows };
        for row in 0..rows.rows {
            all.extend_from_slice(rows.row(row).map_err(FlError::from)?);
        }
    }
    Ok(all)
}

/// One row a member: the gradient of the mean loss over its samples, or its delta. In an asynchronous round each from the model that it
/// began with.
pub(super) fn train(
    experiment: &Experiment,
    task: &RoundTask,
    members: &[u64],
    attack: Option<DataAttack<'_>>,
) -> Result<Rows, SimError> {
    let Some(starts) = &task.starts else {
        let began = (&task.weights[..], task.id.round, task.id.attempt);
        return train_from(experiment, task, began, members, attack);
    };
    let mut versions: BTreeMap<u32, (&Arc<Vec<f32>>, Vec<usize>)> = BTreeMap::new();
    for (place, client) in members.iter().enumerate() {
        let (version, weights) =
            starts.get(client).map_or((task.id.round - 1, &task.weights), |start| (start.version, &start.weights));
        versions.entry(version).or_insert_with(|| (weights, Vec::new())).1.push(place);
    }
    let dim = experiment.plan.dim;
    let mut all = vec![0.0f32; members.len() * dim];
    for (version, (weights, places)) in versions {
        let some: Vec<u64> = places.iter().map(|&place| members[place]).collect();
        // What a client draws is that of the round in which it began: a stand-in is the same update again.
        let rows = train_from(experiment, task, (&weights[..], version + 1, 0), &some, attack)?;
        let host = Rows { buffer: experiment.backend.to_host(rows.buffer.clone()).map_err(FlError::from)?, ..rows };
        for (row, place) in places.into_iter().enumerate() {
            all[place * dim..(place + 1) * dim].copy_from_slice(host.row(row).map_err(FlError::from)?);
        }
    }
    Ok(Rows::dense(all, members.len(), dim).map_err(FlError::from)?)
}

/// The same, of clients that began with one model, in one round and attempt.
fn train_from(
    experiment: &Experiment,
    task: &RoundTask,
    (weights, round, attempt): (&[f32], u32, u32),
    members: &[u64],
    attack: Option<DataAttack<'_>>,
) -> Result<Rows, SimError> {
    let (data, plan) = (&experiment.split.train, &experiment.plan);
    let key = |client, purpose| {
        let address = Address { client, round, attempt, copy: 0 };
        experiment.secret.derive(&plan.session, address, purpose, plan.cipher)
    };
    let poison = attack.map(|attack| Poison::new(attack, data)).transpose().map_err(FlError::from)?;
    let shard = |client: u64| {
        let mut batch = data.gather(experiment.shard(client));
        if let Some(poison) = &poison {
            poison.apply(&mut batch, &key(client, Purpose::Byzantine));
        }
        batch
    };
    if let Some(samples) = &plan.samples {
        return super::samples::rows(experiment, task, samples, members, &shard);
    }
    let clients =
        Clients { count: members.len(), shard: &|i| shard(members[i]), key: &|i| key(members[i], Purpose::Batches) };
    let trainer = &experiment.trainer;
    let rows = match &experiment.work {
        LocalWork::Delta(config) => trainer.delta_rows(weights, &clients, config)?,
        LocalWork::Controlled(config) => {
            return controlled(experiment, (weights, task.control.as_deref()), members, &clients, config);
        }
        LocalWork::Gradient
            if poison.is_none() && !trainer.draws() && members.iter().all(|&c| experiment.shard(c).len() == 1) =>
        {
            let samples: Vec<usize> = members.iter().map(|&c| experiment.shard(c)[0]).collect();
            trainer.gradient_rows(weights, &data.gather(&samples))?
        }
        LocalWork::Gradient => trainer.mean_rows(weights, &clients)?,
        LocalWork::DpSgd => return Err(without_samples().into()),
    };
    if plan.local_steps.is_none() {
        return Ok(rows);
    }
    let host = Rows { buffer: experiment.backend.to_host(rows.buffer.clone()).map_err(FlError::from)?, ..rows };
    let mut all = Vec::with_capacity(members.len() * plan.dim);
    for (row, &client) in members.iter().enumerate() {
        let start = all.len();
        all.extend_from_slice(host.row(row).map_err(FlError::from)?);
        nova::normalize(&mut all[start..], plan.steps_of(client).unwrap_or(1.0));
    }
    Ok(Rows::dense(all, members.len(), plan.dim).map_err(FlError::from)?)
}

/// A plan whose clients run `dp_sgd` says how.
fn without_samples() -> FlError {
    let expected =
        "the sample level of a plan whose clients run dp_sgd, which has no samples of the server's own".into();
    FlError::OutOfRange { name: "Plan::samples", expected, found: "none".into() }
}

/// Deltas and changes of the clients' control variates side by side (SCAFFOLD). What they will keep waits for the release of the round.
fn controlled(
    experiment: &Experiment,
    (weights, control): (&[f32], Option<&Vec<f32>>),
    members: &[u64],
    clients: &Clients<'_>,
    config: &LocalConfig,
) -> Result<Rows, SimError> {
    let zero;
    let server = match control {
        Some(control) => control,
        None => {
            zero = vec![0.0; weights.len()];
            &zero
        }
    };
    let own: Vec<Option<Vec<f32>>> = {
        let kept = experiment.residuals.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(|&client| kept.of(client).map(<[f32]>::to_vec)).collect()
    };
    let one = |(i, own): (usize, &Option<Vec<f32>>)| -> Result<_, SimError> {
        let (shard, own) = ((clients.shard)(i), own.as_deref());
        let correction = scaffold::correction(server, own);
        let delta = if shard.is_empty() {
            vec![0.0; weights.len()]
        } else {
            experiment.trainer.corrected_delta(weights, &shard, config, &correction, &(clients.key)(i))?
        };
        let steps = u64::from(config.epochs) * shard.len().div_ceil(config.batch_size) as u64;
        Ok(scaffold::outcome(&delta, server, own, steps, config.learning_rate))
    };
    let outcomes = own.par_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let mut residuals = experiment.residuals.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::with_capacity(members.len() * 2 * weights.len());
    for (&client, (sent, kept)) in members.iter().zip(outcomes) {
        all.extend_from_slice(&sent);
        if kept.iter().all(|c| c.is_finite()) {
            residuals.keep(client, kept);
        }
    }
    Ok(Rows::dense(all, members.len(), 2 * weights.len()).map_err(FlError::from)?)
}

/// What the server's own samples make of a model: the reference of a rule that trusts them.
pub(super) fn root_update(experiment: &Experiment, weights: &[f32], round: u32) -> Result<Vec<f32>, SimError> {
    let plan = &experiment.plan;
    let key = |_| {
        let address = Address { client: SERVER, round, attempt: 0, copy: 0 };
        experiment.secret.derive(&plan.session, address, Purpose::Batches, plan.cipher)
    };
    let clients = Clients { count: 1, shard: &|_| experiment.split.train.gather(&experiment.root), key: &key };
    let rows = match &experiment.work {
        LocalWork::Delta(config) | LocalWork::Controlled(config) => {
            experiment.trainer.delta_rows(weights, &clients, config)?
        }
        LocalWork::Gradient => experiment.trainer.mean_rows(weights, &clients)?,
        LocalWork::DpSgd => return Err(without_samples().into()),
    };
    let host = Rows { buffer: experiment.backend.to_host(rows.buffer.clone()).map_err(FlError::from)?, ..rows };
    Ok(host.row(0).map_err(FlError::from)?.to_vec())
}

/// An attack on data, made ready for a set.
enum Poison {
    Labels(Vec<u32>),
    Trigger { backdoor: Backdoor, shape: ImageShape },
}

impl Poison {
    fn new(attack: DataAttack<'_>, data: &Dataset) -> Result<Self, AttackError> {
        Ok(match attack {
            DataAttack::Labels(flip) => Self::Labels(flip.labels(data.classes)?),
            DataAttack::Trigger(backdoor) => {
                let (backdoor, shape) = trigger(backdoor, data)?;
                Self::Trigger { backdoor, shape }
            }
        })
    }

    fn apply(&self, batch: &mut Batch, key: &StreamKey) {
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
