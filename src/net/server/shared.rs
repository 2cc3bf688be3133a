//! What the calls share with the coordinator: the parties, who may call how often, what is offered and what has come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Status};

use super::service::spooled;
use super::turns::Turns;
use crate::config::federation::Limits;
use crate::net::hub::Hub;
use crate::net::keys::{Authority, Role};
use crate::net::listen::Caller;
use crate::net::objects::{Limits as ObjectLimits, ObjectId, Objects, Upload};
use crate::net::status::board::Board;
use crate::net::store::{NewParty, PartyRow, Payload, Store, StoreError};
use crate::net::wire::{INLINE, v1};

/// How long the same call may be tried at once: what a party saves up, in seconds of its rate.
const BURST: f64 = 10.0;
/// Bytes that stay free on the disk: for the database, which has to say what was accepted.
const RESERVE: u64 = 64 << 20;
/// A message on its way to the coordinator.
pub(super) struct Inbound {
    pub(super) from: Role,
    pub(super) round: u32,
    pub(super) attempt: u32,
    pub(super) id: [u8; 32],
    pub(super) payload: Payload,
    pub(super) reply: oneshot::Sender<v1::Receipt>,
}

/// What the run is, as every party is told.
pub(super) struct Description {
    pub(super) session: [u8; 16],
    pub(super) config: String,
    pub(super) plan: [u8; 32],
    pub(super) deal: [u8; 32],
    pub(super) rounds: u32,
    /// Clients and key holders that the run has place for.
    pub(super) clients: u64,
    pub(super) holders: u16,
}

/// A party as the calls need to know it.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) identity: [u8; 32],
    revoked: bool,
}

/// What a party has saved up of its rate.
struct Rate {
    saved: f64,
    at: Instant,
}

/// Everything that calls share with the coordinator.
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<dyn Store>,
    pub(super) objects: Objects,
    pub(super) board: Arc<Board>,
    pub(super) authority: Option<Authority>,
    pub(super) about: Description,
    pub(super) limits: Limits,
    pub(super) inbox: mpsc::Sender<Inbound>,
    /// Rounds finished.
    pub(super) round: AtomicU32,
    /// Longest message of the present attempt, bytes.
    pub(super) longest: AtomicU64,
    pub(super) draining: AtomicBool,
    /// Whether this server has the lease; one that has not stands by and takes nothing.
    coordinates: AtomicBool,
    /// Objects that may be fetched: the model and the roster of the present attempt.
    pub(super) offered: RwLock<HashMap<[u8; 32], Bytes>>,
    known: RwLock<HashMap<Role, Known>>,
    /// The parties as they were read last, and how often that was something new.
    rows: RwLock<(u64, Arc<Vec<PartyRow>>)>,
    refreshing: Mutex<()>,
    pub(super) turns: Turns,
    /// Bytes of uploads that wait to be written.
    pub(super) gathered: AtomicUsize,
    rates: Mutex<HashMap<Role, Rate>>,
    /// Uploads of each party that are in no message yet.
    pub(super) uploads: Mutex<HashMap<Role, HashMap<ObjectId, u64>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        hub: Arc<Hub>,
        store: Arc<dyn Store>,
        objects: Objects,
        board: Arc<Board>,
        authority: Option<Authority>,
        about: Description,
        limits: Limits,
        inbox: mpsc::Sender<Inbound>,
    ) -> Self {
        Self {
            hub,
            store,
            objects,
            board,
            authority,
            about,
            limits,
            inbox,
            round: AtomicU32::new(0),
            longest: AtomicU64::new(INLINE as u64),
            draining: AtomicBool::new(false),
            coordinates: AtomicBool::new(false),
            offered: RwLock::default(),
            known: RwLock::default(),
            rows: RwLock::default(),
            refreshing: Mutex::default(),
            turns: Turns::default(),
            gathered: AtomicUsize::new(0),
            rates: Mutex::default(),
            uploads: Mutex::default(),
        }
    }

    /// Reads the parties of the store anew.
    pub(super) fn refresh(&self) -> Result<(), StoreError> {
        // One at a time: what was read first must not be written last.
        let _turn = lock(&self.refreshing);
        let rows = self.store.parties()?;
        if *self.parties().1 == rows {
            return Ok(());
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        for row in &rows {
            self.board.enrolled(row.party.role, &row.party.name);
            known.insert(row.party.role, Known { identity: row.party.identity, revoked: row.revoked });
        }
        drop(known);
        let mut kept = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0 + 1, Arc::new(rows));
        Ok(())
    }

    /// Enters a client that has just got its place in the store: to read all of them again for each would cost a crowd that enrols
    /// the square of its number. A key holder has a key that the store may know better.
    pub(super) fn enter(&self, party: NewParty) -> Result<(), StoreError> {
        if !matches!(party.role, Role::Client(_)) {
            return self.refresh();
        }
        // Not between what a refresh reads and what it writes.
        let _turn = lock(&self.refreshing);
        if self.known(party.role).is_some_and(|known| known.identity == party.identity) {
            return Ok(());
        }
        self.board.enrolled(party.role, &party.name);
        let known = Known { identity: party.identity, revoked: false };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(party.role, known);
        let mut kept = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        Arc::make_mut(&mut kept.1).push(PartyRow { party, revoked: false });
        Ok(())
    }

    /// The parties as they were read last; the number grows when they change.
    pub(super) fn parties(&self) -> (u64, Arc<Vec<PartyRow>>) {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this server has the lease.
    pub(super) fn coordinates(&self) -> bool {
        self.coordinates.load(Ordering::Relaxed)
    }

    /// Begins or ends to take calls; whoever listens when that ends is sent away.
    pub(super) fn coordinate(&self, coordinates: bool) {
        self.coordinates.store(coordinates, Ordering::Relaxed);
        if !coordinates {
            self.hub.dismiss();
            lock(&self.uploads).clear();
            self.offered.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Refuses a call where this server stands by. A caller tries again, here or wherever its next connection ends.
    pub(super) fn here(&self) -> Result<(), Status> {
        if self.coordinates() { Ok(()) } else { Err(elsewhere()) }
    }

    pub(super) fn known(&self, role: Role) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&role).copied()
    }

    /// Forgets the uploads of an attempt that is over; their objects go with its messages.
    pub(super) fn forget_uploads(&self) -> Vec<ObjectId> {
        lock(&self.uploads).drain().flat_map(|(_, objects)| objects.into_keys()).collect()
    }

    /// Who calls, if it is a party of the run: its certificate is of the run's authority (TLS has checked that), its key is the
    /// one that is known, and it has not spent its rate.
    pub(super) fn admit<T>(&self, request: &Request<T>) -> Result<Role, Status> {
        self.here()?;
        let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.as_ref());
        let Some(peer) = peer else {
            return Err(Status::unauthenticated("a client certificate is needed: enrol first (veilsum join --token)"));
        };
        match self.known(peer.role) {
            Some(known) if known.revoked => {
                self.board.refused("revoked");
                return Err(Status::permission_denied(format!("{} is revoked", peer.role)));
            }
            Some(known) if known.identity != peer.identity => {
                self.board.refused("another-key");
                return Err(Status::permission_denied(format!(
                    "{} has enrolled with another key: revoke it before its place is taken",
                    peer.role
                )));
            }
            Some(_) => {}
            // A caller that says Hello on its next connection is let in.
            None => return Err(Status::unavailable("Hello comes first")),
        }
        let mut rates = lock(&self.rates);
        let (most, now) = (self.limits.calls_per_second * BURST, Instant::now());
        let rate = rates.entry(peer.role).or_insert(Rate { saved: most, at: now });
        rate.saved = (rate.saved + now.duration_since(rate.at).as_secs_f64() * self.limits.calls_per_second).min(most);
        rate.at = now;
        if rate.saved < 1.0 {
            self.board.refused("too-many-calls");
            return Err(Status::resource_exhausted(format!(
                "more than {} calls a second",
                self.limits.calls_per_second
            )));
        }
        rate.saved -= 1.0;
        Ok(peer.role)
    }

    /// What uploads may take of the disk.
    pub(super) fn uploads_bounded(&self) -> ObjectLimits {
        let object = self.longest.load(Ordering::Relaxed);
        ObjectLimits { object, reserve: RESERVE, ..ObjectLimits::NONE }
    }

    /// Writes the next bytes of an upload, which begins with the first of them and ends with the last: then there is none any more.
    /// Blocks.
    pub(super) fn append(
        &self,
        (id, len): (ObjectId, u64),
        upload: Option<Upload>,
        offset: u64,
        bytes: &[Bytes],
    ) -> Result<Option<Upload>, Status> {
        let mut upload = match upload {
            Some(upload) => upload,
            None => self.objects.begin(id, len, &self.uploads_bounded()).map_err(|e| spooled(&e))?,
        };
        if upload.offset() != offset {
            let there = upload.offset();
            return Err(Status::aborted(format!("the upload goes on at byte {there}, not {offset}")));
        }
        bytes.iter().try_for_each(|bytes| upload.append(bytes)).map_err(|e| spooled(&e))?;
        if !upload.is_complete() {
            return Ok(Some(upload));
        }
        upload.finish().map_err(|e| spooled(&e))?;
        Ok(None)
    }

    /// Counts an object that a party is about to send.
    pub(super) fn reserve(&self, role: Role, id: ObjectId, len: u64) -> Result<(), Status> {
        let longest = self.longest.load(Ordering::Relaxed);
        if len == 0 || len > longest {
            self.board.refused("too-long");
            return Err(Status::invalid_argument(format!("{len} bytes; a message of this round has 1 to {longest}")));
        }
        if self.hub.attempt().is_none() {
            return Err(Status::unavailable("no round takes messages now"));
        }
        let mut uploads = lock(&self.uploads);
        let mine = uploads.entry(role).or_default();
        let others: u64 = mine.iter().filter(|(other, _)| **other != id).map(|(_, len)| len).sum();
        if others.saturating_add(len) > self.limits.pending_bytes {
            self.board.refused("quota");
            let most = self.limits.pending_bytes;
            return Err(Status::resource_exhausted(format!("{others} bytes wait already, and {most} is the most")));
        }
        mine.insert(id, len);
        Ok(())
    }
}

/// What parties are told by a server that stands by, or no longer takes anything.
pub(super) fn elsewhere() -> Status {
    Status::unavailable("this server does not coordinate the run now: another one may, or this one soon; try again")
}
