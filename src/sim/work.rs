//! The clients' side of a round: local training in chunks, so that memory is O(rows in flight x d).

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use crate::backend::{EncodeReport, Rows};
use crate::config::build::{Experiment, LocalWork};
use crate::fl::FlError;
use crate::fl::client::{ClientRound, excess_keys};
use crate::fl::coordinator::{Coordinator, ExcessNoise, RoundTask};
use crate::fl::protocol::RoundProtocol;
use crate::math::prg::{Address, Purpose};
use crate::model::{Clients, samples_per_call};
use crate::secagg::{Party, PartyId};

/// Lets every client of the cohort train, encode and deliver. Returns early, with the round unfinished,
/// once `interrupt` is set.
pub fn play_clients(
    experiment: &Experiment,
    task: &RoundTask,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    match &task.protocol {
        RoundProtocol::Plain => {}
        RoundProtocol::Masks(session) => {
            return super::masked::play(experiment, task, session, coordinator, interrupt);
        }
        RoundProtocol::Oneshot(session) => {
            return super::oneshot::play(experiment, task, session, coordinator, interrupt);
        }
    }
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let mut announcements = HashMap::new();
    while let Some(transmit) = coordinator.poll_transmit() {
        announcements.insert(transmit.to, transmit.frame);
    }
    let mut total = EncodeReport::default();
    for members in delivering(experiment, task).chunks(rows_in_flight(task)) {
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
    // Nobody else will deliver.
    if let Some(deadline) = coordinator.poll_timeout() {
        coordinator.handle_timeout(deadline)?;
    }
    Ok(total)
}

/// Lets the survivors of the round tell the noise that was not needed.
pub fn take_out_excess(experiment: &Experiment, coordinator: &mut Coordinator) -> Result<(), SimError> {
    let Some(ExcessNoise { task, clients }) = coordinator.excess() else { return Ok(()) };
    for &client in &clients {
        let keys = excess_keys(&experiment.plan, &task, &experiment.secret, client, clients.len());
        coordinator.take_out(client, keys)?;
    }
    Ok(())
}

/// Whether a client is one of those that the simulation loses before they deliver.
pub(super) fn vanishes(experiment: &Experiment, task: &RoundTask, client: u64) -> bool {
    let address = Address { client, round: task.id.round, attempt: task.id.attempt, copy: 0 };
    let key = experiment.secret.derive(&experiment.plan.session, address, Purpose::Vanish, experiment.plan.cipher);
    ((key.reader(0).next_u64() >> 11) as f64) < experiment.dropout_rate * (1u64 << 53) as f64
}

/// The clients of a round that do not vanish.
pub(super) fn delivering(experiment: &Experiment, task: &RoundTask) -> Vec<u64> {
    task.cohort.iter().copied().filter(|&client| !vanishes(experiment, task, client)).collect()
}

/// Rows in flight: as many as stay in the allocator's cache, at least one a core.
pub(super) fn rows_in_flight(task: &RoundTask) -> usize {
    samples_per_call(task.weights.len().max(task.encode.padded as usize)).clamp(rayon::current_num_threads(), 256)
}

/// One row a member: the gradient of the mean loss over its samples, or its delta, with what the member kept of earlier rounds.
pub(super) fn train(experiment: &Experiment, task: &RoundTask, members: &[u64]) -> Result<Rows, SimError> {
    let rows = trained(experiment, task, members)?;
    match &task.operator {
        Some(operator) if operator.feedback() => {
            let host = Rows { buffer: experiment.backend.to_host(rows.buffer.clone()).map_err(FlError::from)?, ..rows };
            let mut residuals = experiment.residuals.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(residuals.carry(operator, members, &host)?)
        }
        _ => Ok(rows),
    }
}

fn trained(experiment: &Experiment, task: &RoundTask, members: &[u64]) -> Result<Rows, SimError> {
    let (data, plan) = (&experiment.split.train, &experiment.plan);
    let clients = Clients {
        count: members.len(),
        shard: &|i| data.gather(experiment.shard(members[i])),
        key: &|i| {
            let address = Address { client: members[i], round: task.id.round, attempt: task.id.attempt, copy: 0 };
            experiment.secret.derive(&plan.session, address, Purpose::Batches, plan.cipher)
        },
    };
    let trainer = &experiment.trainer;
    Ok(match &experiment.work {
        LocalWork::Delta(config) => trainer.delta_rows(&task.weights, &clients, config)?,
        LocalWork::Gradient if members.iter().all(|&c| experiment.shard(c).len() == 1) => {
            let samples: Vec<usize> = members.iter().map(|&c| experiment.shard(c)[0]).collect();
            trainer.gradient_rows(&task.weights, &data.gather(&samples))?
        }
        LocalWork::Gradient => trainer.mean_rows(&task.weights, &clients)?,
    })
}
