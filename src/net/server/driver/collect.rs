//! One attempt: published, played again from the store, collected, given up or handed on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tracing::warn;

use super::{BATCH, CHECKPOINTS, Driver, PAUSE, TICK, said};
use crate::fl::FlError;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::fl::protocol::RoundProtocol;
use crate::net::hub::End;
use crate::net::keys::Role;
use crate::net::objects::ObjectId;
use crate::net::plan::{self, ObjectRef, RoundPlan};
use crate::net::server::shared::Inbound;
use crate::net::status::State;
use crate::net::status::board::Began;
use crate::net::store::{
    AttemptState, EntryBody, NewAttempt, NewEntry, Payload, StoreError, StoredBody, StoredPayload,
};
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::wire::{self, v1};
use crate::net::{NetError, now};
use crate::secagg::{SecAggError, SessionId};

/// The attempt that is collected.
struct Collection {
    round: u32,
    attempt: u32,
    sessions: Vec<SessionId>,
    /// Messages that are stored.
    ids: HashSet<[u8; 32]>,
    /// The message that is looked at, where it was uploaded.
    message: Vec<u8>,
    /// The machine's time when this process took the attempt up.
    millis: u64,
    since: Instant,
}

impl Collection {
    fn elapsed(&self) -> u64 {
        self.millis.saturating_add(self.since.elapsed().as_millis() as u64)
    }
}

impl Driver {
    /// Collects an attempt: from the store what it has, then from the parties.
    pub(super) fn play(&mut self, coordinator: &mut Coordinator, tasks: &[RoundTask]) -> Result<(), NetError> {
        let Some(first) = tasks.first() else { return Ok(()) };
        let (round, attempt) = (first.id.round, first.id.attempt);
        let plans = self.publish(coordinator, tasks)?;
        let cohort: Vec<Role> = tasks.iter().flat_map(|task| task.cohort.iter().map(|&c| Role::Client(c))).collect();
        let mut collection = Collection {
            round,
            attempt,
            sessions: tasks.iter().map(|task| task.id).collect(),
            ids: HashSet::new(),
            message: Vec::new(),
            millis: 0,
            since: Instant::now(),
        };
        let threshold = tasks.iter().map(|task| task.threshold.max(1) as u64).sum();
        let began = Began { round: round.into(), attempt: u64::from(attempt) + 1, threshold, deadline: None };
        self.shared.board.round_began(&began, &cohort, now());
        let outcome = self.replay(coordinator, &mut collection).and_then(|()| {
            self.shared.hub.open(round, attempt, plans);
            self.collect(coordinator, &mut collection)
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(NetError::Fl(error @ FlError::Aborted { .. })) => {
                self.abandon(coordinator, &collection, &error.to_string())
            }
            Err(error) => Err(error),
        }
    }

    /// Stores the plans of an attempt, or takes those that are stored; offers the model and the keys of the parties.
    fn publish(
        &mut self,
        coordinator: &Coordinator,
        tasks: &[RoundTask],
    ) -> Result<HashMap<Role, Arc<v1::SignedPlan>>, NetError> {
        let Some(first) = tasks.first() else { return Ok(HashMap::new()) };
        let (round, attempt) = (first.id.round, first.id.attempt);
        let session = self.experiment.plan.session;
        let model = plan::weight_bytes(&first.weights);
        let parties = self.placed().parties.unwrap_or_default().to_bytes();
        let reference = |bytes: &[u8]| ObjectRef { id: Sha256::digest(bytes).into(), len: bytes.len() as u64 };
        let named = (reference(&model), reference(&parties));
        let unreadable = |e: serde_json::Error| NetError::Record { round, problem: e.to_string() };
        let bodies: Vec<String> = match self.shared.store.attempt_plan(round, attempt) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(unreadable)?,
            Err(StoreError::UnknownAttempt { .. }) => {
                let body = |task: &RoundTask| RoundPlan {
                    session,
                    plan: self.shared.about.plan,
                    notice: coordinator.notice(task),
                    model: named.0,
                    parties: named.1,
                };
                let bodies = tasks.iter().map(|task| serde_json::to_string(&body(task))).collect::<Result<Vec<_>, _>>();
                let bodies = bodies.map_err(unreadable)?;
                let bytes = serde_json::to_vec(&bodies).map_err(unreadable)?;
                self.shared.store.begin(&NewAttempt { round, attempt, input: first.input, plan: bytes })?;
                bodies
            }
            Err(error) => return Err(error.into()),
        };
        let offered = [(named.0.id, model.into()), (named.1.id, parties.into())];
        *self.shared.offered.write().unwrap_or_else(PoisonError::into_inner) = HashMap::from(offered);
        self.shared.longest.store(longest(tasks), Ordering::Relaxed);
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut plans = HashMap::new();
        for (task, body) in tasks.iter().zip(bodies) {
            let signature = plan::sign(&identity, &session, body.as_bytes());
            let signed = v1::SignedPlan { body: body.into(), signature: signature.to_vec().into() };
            let signed = Arc::new(signed);
            task.cohort.iter().for_each(|&client| drop(plans.insert(Role::Client(client), Arc::clone(&signed))));
            (1..=self.shared.about.holders).for_each(|h| drop(plans.insert(Role::Holder(h), Arc::clone(&signed))));
        }
        Ok(plans)
    }

    /// Tells the machine again what the store has of the attempt.
    fn replay(&mut self, coordinator: &mut Coordinator, collection: &mut Collection) -> Result<(), NetError> {
        for entry in self.shared.store.entries(collection.round, collection.attempt)? {
            collection.ids.insert(entry.id);
            match entry.body {
                StoredBody::Frame { from, payload } => {
                    let bytes = match payload {
                        StoredPayload::Inline(bytes) => bytes,
                        StoredPayload::Object { id, .. } => self.shared.objects.read(id)?,
                        StoredPayload::Dropped { .. } => {
                            let problem = "a message of an attempt that is open has no bytes".to_owned();
                            return Err(NetError::Record { round: collection.round, problem });
                        }
                    };
                    coordinator.handle(wire::party(from), &bytes)?;
                    self.shared.board.delivered(from);
                }
                StoredBody::Clock { millis } => {
                    collection.millis = millis;
                    for session in &collection.sessions {
                        coordinator.handle_timeout(session, millis)?;
                    }
                }
                StoredBody::Note { .. } => {}
            }
            // What it sends is posted when the box is open.
        }
        collection.since = Instant::now();
        Ok(())
    }

    /// Takes messages until the sums are complete.
    fn collect(&mut self, coordinator: &mut Coordinator, collection: &mut Collection) -> Result<(), NetError> {
        let mut said_phase = None;
        loop {
            self.transmit(coordinator, collection)?;
            let deadline = collection.sessions.iter().filter_map(|id| coordinator.poll_timeout(id)).min();
            if !coordinator.is_collecting() {
                return Ok(());
            }
            self.claim.check()?;
            let elapsed = collection.elapsed();
            if said_phase != deadline {
                said_phase = deadline;
                let left = deadline.map(|at| now() + Duration::from_millis(at.saturating_sub(elapsed)));
                let opening = deadline.is_some_and(|at| at > coordinator.patience(collection.attempt));
                let state = if opening { State::Opening } else { State::Collecting };
                self.shared.board.phase(state, "", left, now());
            }
            if deadline.is_some_and(|at| at <= elapsed) {
                self.clock(coordinator, collection, elapsed)?;
                continue;
            }
            let wait = deadline.map_or(TICK, |at| Duration::from_millis(at - elapsed).min(TICK));
            let batch = self.receive(wait);
            self.accept(coordinator, collection, batch)?;
        }
    }

    /// The messages that wait, or the first that comes in time.
    fn receive(&mut self, wait: Duration) -> Vec<Inbound> {
        let inbox = &mut self.inbox;
        let first = self.runtime.block_on(async { tokio::time::timeout(wait, inbox.recv()).await });
        let mut batch: Vec<Inbound> = first.ok().flatten().into_iter().collect();
        while !batch.is_empty() && batch.len() < BATCH {
            match inbox.try_recv() {
                Ok(inbound) => batch.push(inbound),
                Err(_) => break,
            }
        }
        batch
    }

    /// Checks messages, stores those that the machine takes, acknowledges them.
    fn accept(
        &mut self,
        coordinator: &mut Coordinator,
        collection: &mut Collection,
        batch: Vec<Inbound>,
    ) -> Result<(), NetError> {
        let (mut entries, mut replies) = (Vec::new(), Vec::new());
        let mut aborted = None;
        for inbound in batch {
            let Inbound { from, round, attempt, id, payload, reply } = inbound;
            if entries.iter().any(|entry: &NewEntry| entry.id == id) {
                // The same twice at once: known when the first is stored, and not before.
                replies.push((reply, Said::Duplicate));
                continue;
            }
            if collection.ids.contains(&id) {
                drop(reply.send(said(Said::Duplicate, String::new())));
                continue;
            }
            if (round, attempt) != (collection.round, collection.attempt) || !coordinator.is_collecting() {
                // What was acknowledged once stays acknowledged, also when its round is over.
                let receipt = if self.shared.store.has(round, attempt, &id).unwrap_or(false) {
                    said(Said::Duplicate, String::new())
                } else {
                    said(Said::Late, format!("round {round} attempt {attempt} is over"))
                };
                drop(reply.send(receipt));
                continue;
            }
            let bytes = match &payload {
                Payload::Inline(bytes) => bytes,
                // Its hash was checked when it came.
                Payload::Object { id, len } => {
                    match self.shared.objects.read_into(*id, *len, &mut collection.message) {
                        Ok(()) => &collection.message,
                        Err(e) => {
                            drop(reply.send(said(Said::Retry, e.to_string())));
                            continue;
                        }
                    }
                }
            };
            match coordinator.handle(wire::party(from), bytes) {
                Ok(()) => {
                    entries.push(NewEntry { id, body: EntryBody::Frame { from, payload } });
                    replies.push((reply, Said::Accepted));
                }
                Err(error @ FlError::Aborted { .. }) => {
                    drop(reply.send(said(Said::Late, error.to_string())));
                    aborted = Some(error);
                    break;
                }
                Err(FlError::SecAgg(error)) => {
                    let late = error == SecAggError::Late;
                    drop(reply.send(said(if late { Said::Late } else { Said::Refused }, error.to_string())));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !entries.is_empty()
            && let Err(error) = self.shared.store.append(collection.round, collection.attempt, &entries)
        {
            replies.into_iter().for_each(|(reply, _)| drop(reply.send(said(Said::Retry, error.to_string()))));
            return Err(error.into());
        }
        for entry in &entries {
            collection.ids.insert(entry.id);
            if let EntryBody::Frame { from, .. } = entry.body {
                self.shared.board.delivered(from);
            }
        }
        replies.into_iter().for_each(|(reply, outcome)| drop(reply.send(said(outcome, String::new()))));
        aborted.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Stores that a phase is over, then ends it.
    fn clock(
        &mut self,
        coordinator: &mut Coordinator,
        collection: &mut Collection,
        millis: u64,
    ) -> Result<(), NetError> {
        let mut hash = Sha256::new();
        hash.update(b"veilsum clock");
        hash.update(millis.to_le_bytes());
        let entry = NewEntry { id: hash.finalize().into(), body: EntryBody::Clock { millis } };
        self.shared.store.append(collection.round, collection.attempt, &[entry])?;
        for session in &collection.sessions {
            coordinator.handle_timeout(session, millis)?;
        }
        Ok(())
    }

    /// Posts what the machine has to say. All that led to it is stored.
    fn transmit(&mut self, coordinator: &mut Coordinator, collection: &Collection) -> Result<(), NetError> {
        for session in &collection.sessions {
            while let Some(transmit) = coordinator.poll_transmit(session) {
                let to = wire::role(transmit.to);
                self.shared.hub.post(to, transmit.frame).map_err(|source| NetError::Io {
                    action: "hold a message for",
                    what: to.to_string(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn abandon(
        &mut self,
        coordinator: &mut Coordinator,
        collection: &Collection,
        reason: &str,
    ) -> Result<(), NetError> {
        let (round, attempt) = (collection.round, collection.attempt);
        warn!(round, attempt, reason, "an attempt is given up");
        self.shared.store.mark(round, attempt, AttemptState::Abandoned)?;
        coordinator.give_up();
        self.shared.board.attempt_abandoned(reason, now());
        self.shared.hub.close(End::Round(v1::RoundEnd { round, attempt, released: false }));
        self.forget(round)?;
        self.pause = Some(Instant::now() + PAUSE);
        Ok(())
    }

    /// Deletes the messages of a round that is over, and what was uploaded for it and is in none.
    pub(super) fn forget(&mut self, round: u32) -> Result<(), NetError> {
        let mut gone = self.shared.store.drop_payloads(round)?;
        gone.extend(self.shared.forget_uploads());
        gone.extend(self.shared.store.drop_checkpoints(CHECKPOINTS)?);
        let kept: HashSet<ObjectId> = self.shared.store.references()?.into_iter().map(|r| r.id).collect();
        for id in gone.into_iter().filter(|id| !kept.contains(id)) {
            self.shared.objects.remove(id)?;
        }
        // Nobody goes on with an upload of a round that is over. One that is just being written goes after the next round.
        self.shared.objects.sweep(SystemTime::now())?;
        Ok(())
    }
}

/// Longest message that a round takes, bytes: what its sessions say, and room for lists of all members.
fn longest(tasks: &[RoundTask]) -> u64 {
    let of = |task: &RoundTask| {
        let vector = match &task.protocol {
            RoundProtocol::Oneshot(session) => session.plan().message_bytes(),
            RoundProtocol::Plain | RoundProtocol::Masks(_) | RoundProtocol::Mphe(_) => task.shape.packed_len(),
        };
        // Sealed shares of masks travel for each neighbour: some 200 bytes a member.
        vector + 4096 + 256 * task.cohort.len()
    };
    tasks.iter().map(of).max().unwrap_or(0).max(wire::INLINE) as u64
}
