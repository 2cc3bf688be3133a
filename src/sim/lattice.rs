//! What rounds of the lattice protocols have in common: vectors are made in chunks, each client says one thing, and the key
//! holders hear of it before the next chunk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use super::masked::{forward, requests};
use super::work::{Encoded, Players, delivering, rows_in_flight};
use crate::backend::EncodeReport;
use crate::fl::FlError;
use crate::fl::client::ClientRound;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::secagg::{Party, PartyId, SessionId, Transmit};

/// Lets every client of the cohort that does not vanish train and deliver by the machine that `seal` makes, and the holders
/// open. Returns early, with the round unfinished, once `interrupt` is set.
pub(super) fn play<C: Party, H: Party + Send>(
    players: &Players<'_>,
    task: &RoundTask,
    seal: impl Fn(&ClientRound<'_>, u64, &[u8]) -> Result<C, FlError> + Sync,
    holders: &mut [H],
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let experiment = players.experiment;
    let clients = ClientRound::new(&experiment.plan, task, &experiment.secret, experiment.backend.clone())?;
    let announced = requests(coordinator, task);
    let mut total = EncodeReport::default();
    let own = players.share.own(&delivering(experiment, task));
    let mut waiting = own.chunks(rows_in_flight(task));
    // Other ranks may have more.
    for _ in 0..players.share.most(waiting.len())? {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(total);
        }
        let messages = match waiting.next() {
            Some(members) => sealed(players, (task, &clients, &announced), members, &seal, &mut total)?,
            None => Vec::new(),
        };
        forward(coordinator, players.share.all(messages)?)?;
        while pass_on(coordinator, &task.id, holders)? {}
    }
    // Nobody else will deliver; then no other holder will answer.
    while let Some(deadline) = coordinator.poll_timeout(&task.id) {
        coordinator.handle_timeout(&task.id, deadline)?;
        while pass_on(coordinator, &task.id, holders)? {}
    }
    Ok(total)
}

/// What some clients send in a round, whose vectors are made for it.
fn sealed<C: Party>(
    players: &Players<'_>,
    (task, clients, announced): (&RoundTask, &ClientRound<'_>, &BTreeMap<u64, Vec<u8>>),
    members: &[u64],
    seal: &(impl Fn(&ClientRound<'_>, u64, &[u8]) -> Result<C, FlError> + Sync),
    total: &mut EncodeReport,
) -> Result<Vec<(u64, Transmit)>, SimError> {
    let Encoded { members, vectors, report, .. } = players.encoded(clients, task, members)?;
    total.merge(&report);
    let rows: Vec<(&u64, &[u8])> = members.iter().zip(vectors.rows()).collect();
    let messages = rows
        .into_par_iter()
        .map(|(&client, vector)| {
            let mut machine = seal(clients, client, vector)?;
            if let Some(frame) = announced.get(&client) {
                machine.handle(PartyId::Server, frame).map_err(FlError::from)?;
            }
            Ok(machine.poll_transmit().map(|message| (client, message)))
        })
        .collect::<Result<Vec<_>, SimError>>()?;
    Ok(messages.into_iter().flatten().collect())
}

/// Brings the holders what the server has for them, and their answers back. True if there was anything.
pub(super) fn pass_on<H: Party + Send>(
    coordinator: &mut Coordinator,
    id: &SessionId,
    holders: &mut [H],
) -> Result<bool, SimError> {
    let mut mail: BTreeMap<PartyId, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some(Transmit { to, frame }) = coordinator.poll_transmit(id) {
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
    Ok(!mail.is_empty())
}
