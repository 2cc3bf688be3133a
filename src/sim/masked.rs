//! The clients of a round of `masks`: all machines live through five phases, the vectors are made in chunks when they are due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use super::work::{Encoded, Players, rows_in_flight, vanishes};
use crate::backend::EncodeReport;
use crate::fl::FlError;
use crate::fl::client::ClientRound;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::secagg::masks::{MasksClient, Session};
use crate::secagg::{Party, PartyId, Transmit};

/// The machines of those who have not vanished.
type Machines = BTreeMap<u64, MasksClient>;

/// Lets every client of the cohort agree on masks, train, deliver and unmask. Returns early, with the round unfinished, once
/// `interrupt` is set. Clients vanish when their vectors are due: behind their shares, where it costs the server most.
pub(super) fn play(
    players: &Players<'_>,
    task: &RoundTask,
    session: &Arc<Session>,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let experiment = players.experiment;
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let own = players.share.own(&task.cohort);
    let made = own.par_iter().map(|&client| Ok((client, clients.masked(session, client)?)));
    let mut machines = made.collect::<Result<Machines, FlError>>()?;
    let mut total = EncodeReport::default();
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let asked = requests(coordinator, task);
        let answers = answers(&mut machines, &asked)?;
        forward(coordinator, players.share.all(answers)?)?;
        machines.retain(|&client, machine| !(machine.wants_vector() && vanishes(experiment, task, client)));
        let due: Vec<u64> = machines.iter().filter(|(_, m)| m.wants_vector()).map(|(&client, _)| client).collect();
        let mut waiting = due.chunks(rows_in_flight(task));
        // Other ranks may have more.
        let chunks = players.share.most(waiting.len())?;
        for _ in 0..chunks {
            if interrupt.load(Ordering::Relaxed) {
                return Ok(total);
            }
            let mut sent = Vec::new();
            let Some(members) = waiting.next() else {
                forward(coordinator, players.share.all(sent)?)?;
                continue;
            };
            let Encoded { members, silent, vectors, report } = players.encoded(&clients, task, members)?;
            total.merge(&report);
            silent.iter().for_each(|client| drop(machines.remove(client)));
            for (client, vector) in members.iter().zip(vectors.rows()) {
                let Some(machine) = machines.get_mut(client) else { continue };
                machine.submit(vector).map_err(FlError::from)?;
                sent.extend(std::iter::from_fn(|| machine.poll_transmit()).map(|answer| (*client, answer)));
            }
            forward(coordinator, players.share.all(sent)?)?;
        }
        if asked.is_empty() && chunks == 0 {
            // Those who are left have said all they have to say.
            let Some(deadline) = coordinator.poll_timeout(&task.id) else { return Ok(total) };
            coordinator.handle_timeout(&task.id, deadline)?;
        }
    }
}

/// What the server asks of clients: one request at most of each phase.
pub(super) fn requests(coordinator: &mut Coordinator, task: &RoundTask) -> BTreeMap<u64, Vec<u8>> {
    let all = std::iter::from_fn(|| coordinator.poll_transmit(&task.id));
    all.filter_map(|transmit| match transmit.to {
        PartyId::Client(client) => Some((client, transmit.frame)),
        PartyId::Server | PartyId::Holder(_) => None,
    })
    .collect()
}

/// What the clients answer, in their order: keys are agreed on and shares made by all cores.
fn answers(machines: &mut Machines, asked: &BTreeMap<u64, Vec<u8>>) -> Result<Vec<(u64, Transmit)>, SimError> {
    let asked: Vec<(u64, &mut MasksClient, &Vec<u8>)> = machines
        .iter_mut()
        .filter_map(|(client, machine)| asked.get(client).map(|frame| (*client, machine, frame)))
        .collect();
    let answers = asked
        .into_par_iter()
        .map(|(client, machine, frame)| {
            machine.handle(PartyId::Server, frame).map_err(FlError::from)?;
            Ok(std::iter::from_fn(|| machine.poll_transmit()).map(|answer| (client, answer)).collect())
        })
        .collect::<Result<Vec<Vec<_>>, SimError>>()?;
    Ok(answers.into_iter().flatten().collect())
}

/// Hands the clients' answers to the server.
pub(super) fn forward(coordinator: &mut Coordinator, answers: Vec<(u64, Transmit)>) -> Result<(), SimError> {
    for (client, answer) in answers {
        coordinator.handle(PartyId::Client(client), &answer.frame)?;
    }
    Ok(())
}
