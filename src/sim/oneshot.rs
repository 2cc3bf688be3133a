//! The clients and key holders of a round of `oneshot`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::work::Players;
use super::{SimError, lattice};
use crate::backend::EncodeReport;
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::secagg::oneshot::{OneshotHolder, Session, simulated_channel, simulated_holder};

/// Plays a round: see [`lattice::play`].
pub(super) fn play(
    players: &Players<'_>,
    task: &RoundTask,
    session: &Arc<Session>,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let mut holders = holders(players.experiment, session)?;
    lattice::play(
        players,
        task,
        |clients, client, vector| clients.sealed(session, client, vector),
        &mut holders,
        coordinator,
        interrupt,
    )
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
