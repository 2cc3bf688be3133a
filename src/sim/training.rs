//! What the clients of a round train, each from the model that it began with: gradients, deltas, control variates, local DP-SGD.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::SimError;
use super::adversary::Poison;
use crate::backend::Rows;
use crate::config::build::{Experiment, LocalWork};
use crate::fl::attack::DataAttack;
use crate::fl::coordinator::RoundTask;
use crate::fl::{FlError, SERVER, nova, scaffold};
use crate::math::prg::{Address, Purpose};
use crate::model::{Clients, LocalConfig};

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
        let host = rows.on_host(&*experiment.backend).map_err(FlError::from)?;
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
        LocalWork::DpSgd => return Err(without_samples()),
    };
    if plan.local_steps.is_none() {
        return Ok(rows);
    }
    let host = rows.on_host(&*experiment.backend).map_err(FlError::from)?;
    let mut all = Vec::with_capacity(members.len() * plan.dim);
    for (row, &client) in members.iter().enumerate() {
        let start = all.len();
        all.extend_from_slice(host.row(row).map_err(FlError::from)?);
        nova::normalize(&mut all[start..], plan.steps_of(client).unwrap_or(1.0));
    }
    Ok(Rows::dense(all, members.len(), plan.dim).map_err(FlError::from)?)
}

/// What the plan has to say of its clients' work, and does not.
fn unplanned(name: &'static str, expected: &str) -> SimError {
    FlError::OutOfRange { name, expected: expected.to_owned(), found: "none".into() }.into()
}

/// A plan whose clients run `dp_sgd` says how.
fn without_samples() -> SimError {
    unplanned(
        "Plan::samples",
        "the sample level of a plan whose clients run dp_sgd, which has no samples of the server's own",
    )
}

/// Deltas and changes of the clients' control variates side by side (SCAFFOLD). What they will keep waits for the release of the round.
fn controlled(
    experiment: &Experiment,
    (weights, control): (&[f32], Option<&Vec<f32>>),
    members: &[u64],
    clients: &Clients<'_>,
    config: &LocalConfig,
) -> Result<Rows, SimError> {
    let Some(server) = control else {
        return Err(unplanned("Plan::controlled", "true where clients have control variates"));
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
        LocalWork::DpSgd => return Err(without_samples()),
    };
    let host = rows.on_host(&*experiment.backend).map_err(FlError::from)?;
    Ok(host.row(0).map_err(FlError::from)?.to_vec())
}
