//! The clients' side of a round: local training in chunks, so that memory is O(rows in flight x d).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use crate::backend::{EncodeReport, Rows};
use crate::config::build::{Experiment, LocalWork};
use crate::fl::client::ClientRound;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::math::prg::{Address, Purpose};
use crate::model::{ModelError, samples_per_call};
use crate::secagg::{Party, PartyId};

/// Lets every client of the cohort train, encode and deliver. Returns early, with the round unfinished,
/// once `interrupt` is set.
pub fn play_clients(
    experiment: &Experiment,
    task: &RoundTask,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let plan = &experiment.plan;
    let clients = ClientRound::new(plan, task, &experiment.secret, experiment.backend.clone())?;
    let mut announcements = HashMap::new();
    while let Some(transmit) = coordinator.poll_transmit() {
        announcements.insert(transmit.to, transmit.frame);
    }
    // Rows in flight: as many as stay in the allocator's cache, at least one a core.
    let chunk = samples_per_call(task.encode.padded as usize).clamp(rayon::current_num_threads(), 256);
    let mut total = EncodeReport::default();
    for members in task.cohort.chunks(chunk) {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let rows = train(experiment, task, members)?;
        let (parties, report) = clients.protect(members, &rows)?;
        total.merge(&report);
        let frames = members
            .par_iter()
            .zip(parties)
            .map(|(&client, mut party)| {
                if let Some(frame) = announcements.get(&PartyId::Client(client)) {
                    party.handle(PartyId::Server, frame).map_err(crate::fl::FlError::from)?;
                }
                Ok((client, party.poll_transmit()))
            })
            .collect::<Result<Vec<_>, SimError>>()?;
        for (client, transmit) in frames {
            if let Some(transmit) = transmit {
                coordinator.handle(PartyId::Client(client), &transmit.frame)?;
            }
        }
    }
    Ok(total)
}

/// One row a member: its gradient, or its delta.
fn train(experiment: &Experiment, task: &RoundTask, members: &[u64]) -> Result<Rows, SimError> {
    match &experiment.work {
        LocalWork::Gradient => gradients(experiment, task, members),
        LocalWork::Delta(config) => {
            let rows = members
                .par_iter()
                .map(|&client| {
                    let shard = experiment.split.train.gather(experiment.shard(client));
                    let address = Address { client, round: task.id.round, attempt: task.id.attempt, copy: 0 };
                    let plan = &experiment.plan;
                    let key = experiment.secret.derive(&plan.session, address, Purpose::Batches, plan.cipher);
                    if shard.is_empty() {
                        return Ok(vec![0.0; plan.dim]);
                    }
                    experiment.trainer.local_delta(&task.weights, &shard, config, &key)
                })
                .collect::<Result<Vec<_>, ModelError>>()?;
            Ok(Rows::dense(rows.concat(), members.len(), experiment.plan.dim).map_err(crate::fl::FlError::from)?)
        }
    }
}

/// Gradient rows; a client with several samples sends their mean.
fn gradients(experiment: &Experiment, task: &RoundTask, members: &[u64]) -> Result<Rows, SimError> {
    let data = &experiment.split.train;
    if members.iter().all(|&c| experiment.shard(c).len() == 1) {
        let samples: Vec<usize> = members.iter().map(|&c| experiment.shard(c)[0]).collect();
        return Ok(experiment.trainer.gradient_rows(&task.weights, &data.gather(&samples))?);
    }
    let dim = experiment.plan.dim;
    let mut out = vec![0.0f32; members.len() * dim];
    for (&client, mean) in members.iter().zip(out.chunks_mut(dim)) {
        let shard = experiment.shard(client);
        for part in shard.chunks(64) {
            let rows = experiment.trainer.gradient_rows(&task.weights, &data.gather(part))?;
            for i in 0..rows.rows {
                let row = rows.row(i).map_err(crate::fl::FlError::from)?;
                mean.iter_mut().zip(row).for_each(|(m, &g)| *m += g);
            }
        }
        let scale = 1.0 / shard.len().max(1) as f32;
        mean.iter_mut().for_each(|m| *m *= scale);
    }
    Ok(Rows::dense(out, members.len(), dim).map_err(crate::fl::FlError::from)?)
}
