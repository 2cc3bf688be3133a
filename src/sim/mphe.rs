//! The key holders of `mphe` over a run, the set-up of their key, and the clients of its rounds.
//!
//! Holders compute on the processor, whatever the clients' backend is: a device that is lost between the record of an opening
//! and its answer would leave a round that its next attempt, on other bits, could not open.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::SimError;
use super::lattice::{self, pass_on};
use super::ranks::{Alone, Ranks};
use super::work::Players;
use crate::backend::EncodeReport;
use crate::backend::simd::Simd;
use crate::config::ConfigError;
use crate::config::build::Experiment;
use crate::fl::FlError;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::math::prg::{Address, Cipher, Purpose, Secret};
use crate::secagg::mphe::{Epochs, HolderKeys, KeyHolder, OpeningGuard, RoundHolder, RoundSession, simulated};

/// What the key holders keep between rounds: their shares of the present key, what they have answered under it, and the epochs
/// that they have begun. Nothing of it is stored: a process that resumes a run makes a key of its own.
#[derive(Default)]
pub struct Holders {
    keys: Vec<(HolderKeys, OpeningGuard)>,
    epochs: Vec<Epochs>,
}

impl fmt::Debug for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holders({} with a key, ..)", self.keys.len())
    }
}

impl Holders {
    /// Sums that were opened under the present key, by the holder that has opened most.
    #[must_use]
    pub fn openings(&self) -> u64 {
        self.keys.iter().map(|(_, guard)| guard.len()).max().unwrap_or(0)
    }

    /// Key set-ups that were begun.
    #[must_use]
    pub fn set_ups(&self) -> usize {
        self.epochs.iter().map(Epochs::len).max().unwrap_or(0)
    }
}

/// Lets the holders make the key that the coordinator asked for, under a fresh epoch of the operating system's generator.
/// Returns early, without a key, once `interrupt` is set.
///
/// # Errors
/// If none was asked for; no randomness; those of the machines.
pub fn make_key(
    experiment: &Experiment,
    coordinator: &mut Coordinator,
    holders: &mut Holders,
    interrupt: &AtomicBool,
) -> Result<(), SimError> {
    share_key(experiment, &Alone, coordinator, holders, interrupt)
}

/// The same in every rank, under the epoch that rank 0 has drawn.
pub(super) fn share_key(
    experiment: &Experiment,
    ranks: &dyn Ranks,
    coordinator: &mut Coordinator,
    holders: &mut Holders,
    interrupt: &AtomicBool,
) -> Result<(), SimError> {
    let (mut epoch, mut seed) = ([0; 16], [0; 32]);
    let fresh = Secret::fresh().map_err(ConfigError::from)?;
    let stream = fresh.derive(&experiment.plan.session, Address::default(), Purpose::Session, Cipher::ChaCha20);
    stream.fill(0, &mut epoch);
    stream.fill(64, &mut seed);
    let mut drawn = [&epoch[..], &seed].concat();
    ranks.broadcast(&mut drawn);
    if let Some((first, second)) = drawn.split_at_checked(epoch.len()).filter(|(_, second)| second.len() == seed.len())
    {
        epoch.copy_from_slice(first);
        seed.copy_from_slice(second);
    }
    let session = coordinator.begin_key(epoch, seed)?;
    let id = session.place().id;
    // Whatever becomes of this set-up: nobody answers under the key before any more.
    holders.keys.clear();
    holders.epochs.resize(usize::from(session.holders()), Epochs::new());
    let mut machines = holders
        .epochs
        .par_iter_mut()
        .enumerate()
        .map(|(at, epochs)| simulated::key_holder(&session, at as u16 + 1, &experiment.secret, &Simd::new(), epochs))
        .collect::<Result<Vec<KeyHolder>, _>>()
        .map_err(FlError::from)?;
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !pass_on(coordinator, &id, &mut machines)? {
            let Some(deadline) = coordinator.poll_timeout(&id) else { break };
            coordinator.handle_timeout(&id, deadline)?;
        }
    }
    let keys = machines.iter_mut().filter_map(KeyHolder::take_keys);
    holders.keys = keys.map(|keys| (keys, OpeningGuard::default())).collect();
    Ok(())
}

/// Plays a round: see [`lattice::play`].
pub(super) fn play(
    players: &Players<'_>,
    (task, session): (&RoundTask, &Arc<RoundSession>),
    holders: &mut Holders,
    coordinator: &mut Coordinator,
    interrupt: &AtomicBool,
) -> Result<EncodeReport, SimError> {
    let experiment = players.experiment;
    let machine = |(keys, guard): &(HolderKeys, OpeningGuard)| {
        simulated::round_holder(session, keys, guard.clone(), &experiment.secret, Arc::new(Simd::new()))
    };
    let machines = holders.keys.iter().map(machine).collect::<Result<Vec<RoundHolder>, _>>();
    let mut machines = machines.map_err(FlError::from)?;
    let played = lattice::play(
        players,
        task,
        |clients, client, vector| clients.encrypted(session, client, vector),
        &mut machines,
        coordinator,
        interrupt,
    );
    // Also of a round that came to nothing: what was answered was answered.
    for ((_, guard), machine) in holders.keys.iter_mut().zip(&machines) {
        *guard = machine.guard().clone();
    }
    played
}
