//! Where the server's messages wait for those who listen: the present attempt, a box for every party.
//!
//! The coordinator makes the same messages again after a restart, in the same order: a message is named by its place in the box,
//! and who comes back says how many it has. Nothing here is on disk but what is large and waits for key holders, in a file that
//! is gone with the process.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::Notify;

use super::keys::Role;
use super::wire::v1;

/// Frames above this size wait in a file.
const SPOOLED: usize = 2048;

/// A frame that waits.
enum Mail {
    Here(Bytes),
    Spooled { at: u64, len: usize },
}

/// The attempt that is open.
struct Open {
    round: u32,
    attempt: u32,
    /// The signed plan of each party that takes part.
    plans: HashMap<Role, Arc<v1::SignedPlan>>,
    boxes: HashMap<Role, Vec<Mail>>,
}

/// How the last attempt ended.
#[derive(Clone, Debug)]
pub enum End {
    /// An attempt is over.
    Round(v1::RoundEnd),
    /// So is the run.
    Finished(v1::Finished),
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    end: Option<End>,
    /// Grows with every end.
    ends: u64,
    spool: Option<(File, u64)>,
    listeners: HashMap<Role, (u32, Arc<Notify>)>,
    /// Who knows that the run is over.
    told: HashSet<Role>,
    /// How often everybody was sent away.
    dismissals: u64,
}

/// The boxes, shared by the coordinator and all connections.
#[derive(Default)]
pub struct Hub {
    state: Mutex<State>,
}

/// What a listener knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The attempt whose plan it has.
    pub attempt: Option<(u32, u32)>,
    /// Messages of it that it has.
    pub next: u64,
    /// Ends that it has been told.
    pub ends: u64,
    /// Dismissals before it came.
    pub dismissals: u64,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an attempt: everybody of `plans` is told, and has an empty box.
    pub fn open(&self, round: u32, attempt: u32, plans: HashMap<Role, Arc<v1::SignedPlan>>) {
        let mut state = self.state();
        let waking: Vec<_> = plans.keys().filter_map(|role| state.listeners.get(role)).map(|l| l.1.clone()).collect();
        state.open = Some(Open { round, attempt, plans, boxes: HashMap::new() });
        state.spool = None;
        drop(state);
        waking.iter().for_each(|listener| listener.notify_waiters());
    }

    /// Puts a frame into a box.
    ///
    /// # Errors
    /// Those of the file in which large ones wait.
    pub fn post(&self, to: Role, frame: Vec<u8>) -> std::io::Result<()> {
        let mut state = self.state();
        let mail = if frame.len() > SPOOLED {
            let spool = match &mut state.spool {
                Some(spool) => spool,
                none => none.insert((tempfile::tempfile()?, 0)),
            };
            spool.0.seek(SeekFrom::Start(spool.1))?;
            spool.0.write_all(&frame)?;
            let at = spool.1;
            spool.1 += frame.len() as u64;
            Mail::Spooled { at, len: frame.len() }
        } else {
            Mail::Here(frame.into())
        };
        if let Some(open) = &mut state.open {
            open.boxes.entry(to).or_default().push(mail);
        }
        let listener = state.listeners.get(&to).map(|listener| listener.1.clone());
        drop(state);
        if let Some(listener) = listener {
            listener.notify_waiters();
        }
        Ok(())
    }

    /// Ends the attempt, or the run: everybody is told.
    pub fn close(&self, end: End) {
        let mut state = self.state();
        state.open = None;
        state.spool = None;
        state.end = Some(end);
        state.ends += 1;
        let waking: Vec<_> = state.listeners.values().map(|listener| listener.1.clone()).collect();
        drop(state);
        waking.iter().for_each(|listener| listener.notify_waiters());
    }

    /// Sends everybody away, and forgets the attempt and how the last one ended: another server knows.
    pub fn dismiss(&self) {
        let mut state = self.state();
        (state.open, state.spool, state.end) = (None, None, None);
        state.dismissals += 1;
        let waking: Vec<_> = state.listeners.values().map(|listener| listener.1.clone()).collect();
        drop(state);
        waking.iter().for_each(|listener| listener.notify_waiters());
    }

    /// Whether a listener was sent away.
    #[must_use]
    pub fn dismissed(&self, seen: &Seen) -> bool {
        self.state().dismissals != seen.dismissals
    }

    /// The attempt that is open.
    #[must_use]
    pub fn attempt(&self) -> Option<(u32, u32)> {
        self.state().open.as_ref().map(|open| (open.round, open.attempt))
    }

    /// Counts a listener in; what it waits on.
    pub fn join(&self, role: Role) -> Arc<Notify> {
        let mut state = self.state();
        let listener = state.listeners.entry(role).or_insert_with(|| (0, Arc::default()));
        listener.0 += 1;
        Arc::clone(&listener.1)
    }

    /// Counts it out.
    pub fn leave(&self, role: Role) {
        let mut state = self.state();
        if let Some(listener) = state.listeners.get_mut(&role) {
            listener.0 -= 1;
            if listener.0 == 0 {
                state.listeners.remove(&role);
            }
        }
    }

    /// Parties that know that the run is over.
    #[must_use]
    pub fn told(&self) -> usize {
        self.state().told.len()
    }

    /// Parties that listen.
    #[must_use]
    pub fn listening(&self) -> Vec<Role> {
        self.state().listeners.keys().copied().collect()
    }

    /// Connections of a party that listen.
    #[must_use]
    pub fn connections(&self, role: Role) -> u32 {
        self.state().listeners.get(&role).map_or(0, |listener| listener.0)
    }

    /// What a listener that has `seen` so much is told next; `seen` counts it.
    ///
    /// # Errors
    /// Those of the file in which large frames wait.
    pub fn next(&self, role: Role, seen: &mut Seen) -> std::io::Result<Option<v1::event::Event>> {
        let mut state = self.state();
        if seen.ends != state.ends {
            seen.ends = state.ends;
            match state.end.clone() {
                Some(End::Round(end)) => {
                    // It ends the attempt that the listener is in, or one before it.
                    if seen.attempt.is_some_and(|attempt| attempt <= (end.round, end.attempt)) {
                        (seen.attempt, seen.next) = (None, 0);
                    }
                    return Ok(Some(v1::event::Event::End(end)));
                }
                Some(End::Finished(end)) => {
                    state.told.insert(role);
                    return Ok(Some(v1::event::Event::Finished(end)));
                }
                None => {}
            }
        }
        let State { open: Some(open), spool, .. } = &mut *state else { return Ok(None) };
        let Some(plan) = open.plans.get(&role) else { return Ok(None) };
        let (round, attempt) = (open.round, open.attempt);
        if seen.attempt != Some((round, attempt)) {
            (seen.attempt, seen.next) = (Some((round, attempt)), 0);
            return Ok(Some(v1::event::Event::Plan(v1::SignedPlan::clone(plan))));
        }
        let index = seen.next;
        let Some(mail) = open.boxes.get(&role).and_then(|mails| mails.get(usize::try_from(index).ok()?)) else {
            return Ok(None);
        };
        let frame = match mail {
            Mail::Here(frame) => frame.clone(),
            Mail::Spooled { at, len } => {
                let Some((file, _)) = spool else { return Ok(None) };
                let mut frame = vec![0; *len];
                file.seek(SeekFrom::Start(*at))?;
                file.read_exact(&mut frame)?;
                frame.into()
            }
        };
        seen.next += 1;
        Ok(Some(v1::event::Event::Message(v1::ServerMessage { round, attempt, index, frame })))
    }
}

impl Seen {
    /// What somebody says who listens anew: the attempt that it is in the middle of, and its messages. It goes on there when that
    /// attempt is open, now or once the server has found it again; it is told how the last attempt ended unless it is in the present one.
    #[must_use]
    pub fn of(hub: &Hub, round: u32, attempt: u32, next: u64) -> Self {
        let state = hub.state();
        let present = state.open.as_ref().map(|open| (open.round, open.attempt));
        let claimed = (round > 0).then_some((round, attempt));
        let finished = matches!(state.end, Some(End::Finished(_)));
        // Whoever has nothing needs no old news, but that the run is over.
        let news = finished || (claimed.is_some() && present != claimed);
        let ends = if news { state.ends.wrapping_sub(1) } else { state.ends };
        let next = if claimed.is_some() { next } else { 0 };
        Self { attempt: claimed, next, ends, dismissals: state.dismissals }
    }
}
