//! The clients' side of a round: local training in chunks, so that memory is O(rows in flight x d).

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use super::adversary::{self, Forged};
use super::masked::{forward, requests};
use super::mphe::Holders;
use super::ranks::{Alone, Ranks, Share, Subtotals};
use super::training;
use crate::backend::{EncodeReport, Packed, Rows};
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::client::{ClientRound, excess_keys};
use crate::fl::coordinator::{Coordinator, ExcessNoise, RoundTask};
use crate::fl::protocol::RoundProtocol;
use crate::fl::replay::Played;
use crate::math::prg::{Address, Purpose};
use crate::model::samples_per_call;
use crate::secagg::plain::PlainClient;
use crate::secagg::{Party, PartyId};

/// The clients of a round and what they work on.
pub(super) struct Players<'a> {
    /// The run.
    pub(super) experiment: &'a Experiment,
    /// The processes that share them.
    pub(super) share: Share<'a>,
    /// The vectors of a round that an adversary has seen.
    forged: Option<Forged>,
}

impl Players<'_> {
    /// One row a member: the gradient of the mean loss over its samples, or its delta, or what an adversary made of it; with
    /// what the member kept of earlier rounds.
    pub(super) fn rows(&self, task: &RoundTask, members: &[u64]) -> Result<Rows, SimError> {
        let experiment = self.experiment;
        let rows = match &self.forged {
            Some(forged) => forged.rows(members)?,
            None => training::train(experiment, task, members, None)?,
        };
        match &task.operator {
            Some(operator) if operator.feedback() => {
                let host = rows.on_host(&*experiment.backend).map_err(FlError::from)?;
                let mut residuals = experiment.residuals.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(residuals.carry(operator, members, &host)?)
            }
            _ => Ok(rows),
        }
    }

    /// The vectors of some members as they are sent. Without privacy a client whose vector is not finite sends none: it is left out
    /// and not averaged as a zero. A private round must not tell whose it was: a zero stands for it.
    pub(super) fn encoded(
        &self,
        clients: &ClientRound<'_>,
        task: &RoundTask,
        members: &[u64],
    ) -> Result<Encoded, SimError> {
        let rows = self.rows(task, members)?;
        let (vectors, report) = clients.vectors(members, &rows)?;
        if report.zeroed == 0 || self.experiment.plan.is_private() {
            return Ok(Encoded { members: members.to_vec(), silent: Vec::new(), vectors, report });
        }
        let host = rows.on_host(&*self.experiment.backend).map_err(FlError::from)?;
        let row_bytes = vectors.row_bytes;
        let sent = Packed { bytes: Vec::new(), row_bytes };
        let mut encoded = Encoded { members: Vec::new(), silent: Vec::new(), vectors: sent, report };
        for (row, (&client, vector)) in members.iter().zip(vectors.rows()).enumerate() {
            if host.widened(row).map_err(FlError::from)?.iter().all(|x| x.is_finite()) {
                encoded.members.push(client);
                encoded.vectors.bytes.extend_from_slice(vector);
            } else {
                encoded.silent.push(client);
            }
        }
        Ok(encoded)
    }
}

/// The vector of one client that is a process of its own, packed as its protocol takes it. `None` if it is not finite and the
/// round is not private: the client leaves it out.
///
/// # Errors
/// As training and encoding have.
pub fn encode_one(experiment: &Experiment, task: &RoundTask, client: u64) -> Result<Option<Vec<u8>>, SimError> {
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let encoded = Players { experiment, share: Share(&Alone), forged: None }.encoded(&clients, task, &[client])?;
    Ok((!encoded.members.is_empty()).then_some(encoded.vectors.bytes))
}

/// The same of a row that something else has trained: the client's delta, `[d]`.
///
/// # Errors
/// A row of another length; as encoding has.
pub fn encode_row(
    experiment: &Experiment,
    task: &RoundTask,
    client: u64,
    row: Vec<f32>,
) -> Result<Option<Vec<u8>>, SimError> {
    let finite = row.iter().all(|x| x.is_finite());
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let rows = Rows::dense(row, 1, experiment.plan.dim).map_err(FlError::from)?;
    let (vectors, _) = clients.vectors(&[client], &rows)?;
    Ok((finite || experiment.plan.is_private()).then_some(vectors.bytes))
}

/// What some members send.
pub(super) struct Encoded {
    /// Those who send something, one of the vectors each.
    pub(super) members: Vec<u64>,
    /// Those who have nothing to send.
    pub(super) silent: Vec<u64>,
    pub(super) vectors: Packed,
    pub(super) report: EncodeReport,
}

/// Lets every client of the groups train, encode and deliver, and the holders of a collective key open the sum. Returns early,
/// with the round unfinished, once `interrupt` is set.
///
/// # Errors
/// Those of training, of the kernels and of the protocols.
pub fn play_round(
    experiment: &Experiment,
    tasks: &[RoundTask],
    coordinator: &mut Coordinator,
    holders: &mut Holders,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    share_round(experiment, &Alone, tasks, coordinator, holders, interrupt)
}

/// The same with other ranks, of whom each plays some of the clients and has the others' frames or sums from them. The report is of
/// those that are played here. `interrupt` has to be set in all of them, or in none.
pub(super) fn share_round(
    experiment: &Experiment,
    ranks: &dyn Ranks,
    tasks: &[RoundTask],
    coordinator: &mut Coordinator,
    holders: &mut Holders,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let players = Players { experiment, share: Share(ranks), forged: adversary::prepare(experiment, tasks)? };
    let mut total = EncodeReport::default();
    let mut plain: Vec<&RoundTask> = Vec::new();
    for task in tasks {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let report = match &task.protocol {
            RoundProtocol::Plain => {
                plain.push(task);
                continue;
            }
            RoundProtocol::Masks(session) => super::masked::play(&players, task, session, coordinator, interrupt)?,
            RoundProtocol::Oneshot(session) => super::oneshot::play(&players, task, session, coordinator, interrupt)?,
            RoundProtocol::Mphe(session) => {
                super::mphe::play(&players, (task, session), holders, coordinator, interrupt)?
            }
        };
        total.merge(&report);
    }
    // Groups whose clients draw the same noise work together: many of them may be small.
    while let Some(&first) = plain.first() {
        let (alike, others): (Vec<_>, Vec<_>) =
            plain.into_iter().partition(|task| task.share == first.share && task.layers == first.layers);
        total.merge(&play_plain(&players, &alike, coordinator, interrupt)?);
        plain = others;
    }
    Ok(total)
}

/// Groups of `plain` whose clients draw noise of one law.
fn play_plain(
    players: &Players<'_>,
    tasks: &[&RoundTask],
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let mut total = EncodeReport::default();
    let Some(&first) = tasks.first() else { return Ok(total) };
    let experiment = players.experiment;
    let clients = ClientRound::new(&experiment.plan, first, &experiment.secret, experiment.backend.clone())?;
    let all: Vec<(u64, &RoundTask)> = tasks
        .iter()
        .flat_map(|&task| delivering(experiment, task).into_iter().map(move |client| (client, task)))
        .collect();
    let own = players.share.own(&all);
    let mut subtotals = match players.share.is_alone() {
        true => None,
        false => Some(Subtotals::new(&own, tasks, &experiment.backend)?),
    };
    let mut announcements = BTreeMap::new();
    match &mut subtotals {
        Some(subtotals) => announcements = subtotals.requests(),
        None => tasks.iter().for_each(|task| announcements.extend(requests(coordinator, task))),
    }
    for chunk in own.chunks(rows_in_flight(first)) {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let members: Vec<u64> = chunk.iter().map(|(client, _)| *client).collect();
        let Encoded { silent, vectors, report, .. } = players.encoded(&clients, first, &members)?;
        total.merge(&report);
        let speaking = chunk.iter().filter(|(client, _)| !silent.contains(client));
        let rows: Vec<(&(u64, &RoundTask), &[u8])> = speaking.zip(vectors.rows()).collect();
        let answers = rows
            .into_par_iter()
            .map(|(&(client, task), row)| {
                let mut party = PlainClient::packed(task.id, client, task.shape, row).map_err(FlError::from)?;
                if let Some(frame) = announcements.get(&client) {
                    party.handle(PartyId::Server, frame).map_err(FlError::from)?;
                }
                Ok(party.poll_transmit().map(|answer| (client, answer)))
            })
            .collect::<Result<Vec<_>, SimError>>()?;
        let answers = answers.into_iter().flatten().collect();
        match &mut subtotals {
            Some(subtotals) => subtotals.take(answers)?,
            None => forward(coordinator, answers)?,
        }
    }
    if let Some(subtotals) = subtotals {
        subtotals.deliver(players.share, coordinator)?;
        return Ok(total);
    }
    for task in tasks {
        // Nobody else will deliver.
        if let Some(deadline) = coordinator.poll_timeout(&task.id) {
            coordinator.handle_timeout(&task.id, deadline)?;
        }
    }
    Ok(total)
}

/// Lets the survivors of the round tell the noise that was not needed.
pub fn take_out_excess(experiment: &Experiment, coordinator: &mut Coordinator) -> Result<(), SimError> {
    for ExcessNoise { task, clients } in coordinator.excess() {
        for &client in &clients {
            let keys = excess_keys(&experiment.plan, &task, &experiment.secret, client, clients.len());
            coordinator.take_out(client, keys)?;
        }
    }
    Ok(())
}

/// Whether a client is one of those that the simulation loses before they deliver.
pub(super) fn vanishes(experiment: &Experiment, task: &RoundTask, client: u64) -> bool {
    let replay = experiment.replay.as_ref();
    if let Some(Played::Released { survivors }) = replay.and_then(|replay| replay.of(task.id.round, task.id.attempt)) {
        return survivors.binary_search(&client).is_err();
    }
    let address = Address { client, round: task.id.round, attempt: task.id.attempt, copy: 0 };
    let key = experiment.secret.derive(&experiment.plan.session, address, Purpose::Vanish, experiment.plan.cipher);
    ((key.reader(0).next_u64() >> 11) as f64) < experiment.dropout_rate * (1u64 << 53) as f64
}

/// The clients of a round that do not vanish.
pub(super) fn delivering(experiment: &Experiment, task: &RoundTask) -> Vec<u64> {
    task.cohort.iter().copied().filter(|&client| !vanishes(experiment, task, client)).collect()
}

/// Rows in flight: as many as stay in the allocator's cache, of large models 256 MiB, at least one a core.
pub(super) fn rows_in_flight(task: &RoundTask) -> usize {
    const MOST_BYTES: usize = 256 << 20;
    let len = task.weights.len().max(task.encode.padded as usize).max(1);
    samples_per_call(len).min(MOST_BYTES / (4 * len)).clamp(rayon::current_num_threads(), 256)
}
