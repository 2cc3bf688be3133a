//! The clients and key holders of a round of `oneshot`: vectors are made in chunks, each client says one thing, and the
//! holders hear of it before the next chunk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use super::masked::{forward, requests};
use super::work::{delivering, rows_in_flight, train};
use crate::backend::EncodeReport;
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::client::ClientRound;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::secagg::oneshot::{OneshotHolder, Session, simulated_channel, simulated_holder};
use crate::secagg::{Party, PartyId, Transmit};

/// Lets every client of the cohort that does not vanish train and deliver, and the holders open. Returns early, with the
/// round unfinished, once `interrupt` is set.
pub(super) fn play(
    experiment: &Experiment,
    task: &RoundTask,
    session: &Arc<Session>,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let mut holders = holders(experiment, session)?;
    let announced = requests(coordinator, task);
    let mut total = EncodeReport::default();
    for members in delivering(experiment, task).chunks(rows_in_flight(task)) {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let (vectors, report) = clients.vectors(members, &train(experiment, task, members)?)?;
        total.merge(&report);
        let rows: Vec<(&u64, &[u8])> = members.iter().zip(vectors.rows()).collect();
        let messages = rows
            .into_par_iter()
            .map(|(&client, vector)| {
                let mut machine = clients.sealed(session, client, vector)?;
                if let Some(frame) = announced.get(&client) {
                    machine.handle(PartyId::Server, frame).map_err(FlError::from)?;
                }
                Ok(machine.poll_transmit().map(|message| (client, message)))
            })
            .collect::<Result<Vec<_>, SimError>>()?;
        forward(coordinator, messages.into_iter().flatten().collect())?;
        pass_on(coordinator, task, &mut holders)?;
    }
    // Nobody else will deliver; then no other holder will answer.
    while let Some(deadline) = coordinator.poll_timeout(&task.id) {
        coordinator.handle_timeout(&task.id, deadline)?;
        pass_on(coordinator, task, &mut holders)?;
    }
    Ok(total)
}

/// The holders of a session, who have said nothing in it: an attempt is played once.
fn holders(experiment: &Experiment, session: &Arc<Session>) -> Result<Vec<OneshotHolder>, SimError> {
    let holder = |number| {
        let (identity, _) = simulated_holder(&experiment.secret, number);
        let channel = simulated_channel(&experiment.secret, number);
        Ok(OneshotHolder::new(session, number, &identity, &channel, None).map_err(FlError::from)?)
    };
    (1..=session.plan().request().holders).map(holder).collect()
}

/// Brings the holders what the server has for them, and their answers back.
fn pass_on(coordinator: &mut Coordinator, task: &RoundTask, holders: &mut [OneshotHolder]) -> Result<(), SimError> {
    let mut mail: BTreeMap<PartyId, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some(Transmit { to, frame }) = coordinator.poll_transmit(&task.id) {
        mail.entry(to).or_default().push(frame);
    }
    let answers = holders
        .par_iter_mut()
        .enumerate()
        .map(|(at, holder)| {
            let from = PartyId::Holder(at as u16 + 1);
            for frame in mail.get(&from).into_iter().flatten() {
                holder.handle(PartyId::Server, frame).map_err(FlError::from)?;
            }
            Ok(std::iter::from_fn(|| holder.poll_transmit()).map(|answer| (from, answer.frame)).collect())
        })
        .collect::<Result<Vec<Vec<_>>, SimError>>()?;
    for (from, answer) in answers.into_iter().flatten() {
        coordinator.handle(from, &answer)?;
    }
    Ok(())
}
