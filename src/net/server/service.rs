//! The calls of a party, behind TLS: who calls, whether it may, and what goes on to the coordinator.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::enrol;
use super::turns::Turns;
use crate::config::federation::Limits;
use crate::net::hub::{Hub, Seen};
use crate::net::keys::{Authority, Role};
use crate::net::listen::Caller;
use crate::net::now;
use crate::net::objects::{Limits as ObjectLimits, ObjectError, ObjectId, Objects};
use crate::net::status::board::Board;
use crate::net::store::{NewParty, PartyRow, Payload, Store, StoreError};
use crate::net::wire::v1::federation_server::Federation;
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::wire::v1::submit_request::Payload as Submitted;
use crate::net::wire::{self, INLINE, v1};

/// How long the same call may be tried at once: what a party saves up, in seconds of its rate.
const BURST: f64 = 10.0;
/// Bytes that stay free on the disk: for the database, which has to say what was accepted.
const RESERVE: u64 = 64 << 20;
/// Bytes of an upload that are written together: every write hands the other calls to another thread.
const TOGETHER: usize = 256 << 10;
/// Events that wait in a connection before its box is asked again.
const AHEAD: usize = 4;

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
struct Known {
    identity: [u8; 32],
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
    turns: Turns,
    rates: Mutex<HashMap<Role, Rate>>,
    /// Uploads of each party that are in no message yet.
    uploads: Mutex<HashMap<Role, HashMap<ObjectId, u64>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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

    fn known(&self, role: Role) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&role).copied()
    }

    /// Forgets the uploads of an attempt that is over; their objects go with its messages.
    pub(super) fn forget_uploads(&self) -> Vec<ObjectId> {
        lock(&self.uploads).drain().flat_map(|(_, objects)| objects.into_keys()).collect()
    }

    /// Who calls, if it is a party of the run: its certificate is of the run's authority (TLS has checked that), its key is the
    /// one that is known, and it has not spent its rate.
    fn admit<T>(&self, request: &Request<T>) -> Result<Role, Status> {
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
    fn uploads_bounded(&self) -> ObjectLimits {
        let object = self.longest.load(Ordering::Relaxed);
        ObjectLimits { object, reserve: RESERVE, ..ObjectLimits::NONE }
    }

    /// Counts an object that a party is about to send.
    fn reserve(&self, role: Role, id: ObjectId, len: u64) -> Result<(), Status> {
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
fn elsewhere() -> Status {
    Status::unavailable("this server does not coordinate the run now: another one may, or this one soon; try again")
}

/// The service of one server.
#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Shared>);

fn spooled(error: &ObjectError) -> Status {
    match error {
        ObjectError::Quota { .. } | ObjectError::Full { .. } | ObjectError::Reserve { .. } => {
            Status::resource_exhausted(error.to_string())
        }
        ObjectError::Hash { .. } => Status::data_loss(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

fn object(object: Option<v1::Object>) -> Result<(ObjectId, u64), Status> {
    let named = object.and_then(|object| Some((wire::fixed(&object.id)?, object.len)));
    named
        .map(|(id, len)| (ObjectId(id), len))
        .ok_or_else(|| Status::invalid_argument("an object has an id of 32 bytes"))
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::DownloadChunk, Status>> + Send>>;

#[tonic::async_trait]
impl Federation for Service {
    type ListenStream = Events;
    type DownloadStream = Chunks;

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        self.0.here()?;
        let shared = Arc::clone(&self.0);
        let request = request.into_inner();
        let answer = blocking(move || enrol::enrol(&shared, &request)).await??;
        Ok(Response::new(answer))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let role = self.0.admit(&request)?;
        let Some(known) = self.0.known(role) else { return Err(Status::not_found(role.to_string())) };
        let shared = Arc::clone(&self.0);
        let answer = blocking(move || enrol::certificate(&shared, role, &known.identity)).await??;
        Ok(Response::new(answer))
    }

    async fn hello(&self, request: Request<v1::HelloRequest>) -> Result<Response<v1::HelloResponse>, Status> {
        let hello = request.get_ref().clone();
        if hello.version != wire::VERSION {
            self.0.board.refused("version");
            return Err(Status::failed_precondition(format!(
                "version {} of the protocol, and this server ({}) speaks {}: install the same release on both sides",
                hello.version,
                wire::SOFTWARE,
                wire::VERSION
            )));
        }
        self.0.here()?;
        let peer = request.extensions().get::<Caller>().and_then(|caller| caller.peer.clone());
        if let Some(peer) = peer.filter(|peer| self.0.known(peer.role).is_none()) {
            let shared = Arc::clone(&self.0);
            let party = NewParty {
                role: peer.role,
                identity: peer.identity,
                channel: wire::fixed(&hello.channel),
                samples: None,
                name: hello.name.clone(),
            };
            blocking(move || enrol::admit(&shared, &party)).await??;
        }
        self.0.admit(&request)?;
        let about = &self.0.about;
        Ok(Response::new(v1::HelloResponse {
            version: wire::VERSION,
            software: wire::SOFTWARE.to_owned(),
            session: about.session.to_vec().into(),
            config: about.config.clone(),
            plan_digest: about.plan.to_vec().into(),
            deal: about.deal.to_vec().into(),
            round: self.0.round.load(Ordering::Relaxed),
            rounds: about.rounds,
        }))
    }

    async fn listen(&self, request: Request<v1::ListenRequest>) -> Result<Response<Events>, Status> {
        let role = self.0.admit(&request)?;
        if self.0.hub.connections(role) >= self.0.limits.connections {
            self.0.board.refused("too-many-connections");
            let most = self.0.limits.connections;
            return Err(Status::resource_exhausted(format!("{role} listens {most} times already")));
        }
        let v1::ListenRequest { round, attempt, next } = *request.get_ref();
        let (events, stream) = mpsc::channel(AHEAD);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let notify = shared.hub.join(role);
            shared.board.connected(role, now());
            let mut seen = Seen::of(&shared.hub, round, attempt, next);
            loop {
                let woken = notify.notified();
                tokio::pin!(woken);
                // Before the box is looked into: nothing is missed in between.
                woken.as_mut().enable();
                if shared.hub.dismissed(&seen) {
                    drop(events.send(Err(elsewhere())).await);
                    break;
                }
                let event = match shared.hub.next(role, &mut seen) {
                    Ok(Some(event)) => Ok(v1::Event { event: Some(event) }),
                    Ok(None) => {
                        tokio::select! {
                            () = woken => continue,
                            () = events.closed() => break,
                        }
                    }
                    Err(e) => Err(Status::unavailable(format!("a message cannot be read: {e}"))),
                };
                let last = matches!(&event, Err(_) | Ok(v1::Event { event: Some(v1::event::Event::Finished(_)) }));
                if let Ok(v1::Event { event: Some(v1::event::Event::Message(message)) }) = &event {
                    shared.board.sent(role, message.frame.len() as u64);
                }
                if events.send(event).await.is_err() || last {
                    break;
                }
            }
            shared.hub.leave(role);
            shared.board.disconnected(role);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::Receipt>, Status> {
        let role = self.0.admit(&request)?;
        let v1::SubmitRequest { round, attempt, payload } = request.into_inner();
        let (sha256, payload) = match payload {
            Some(Submitted::Frame(frame)) if frame.len() <= INLINE => {
                self.0.board.heard(role, frame.len() as u64, now());
                (Sha256::digest(&frame).into(), Payload::Inline(frame.into()))
            }
            Some(Submitted::Frame(frame)) => {
                self.0.board.refused("too-long");
                let found = frame.len();
                return Err(Status::invalid_argument(format!(
                    "a frame of {found} bytes is uploaded: {INLINE} is the most"
                )));
            }
            Some(Submitted::Object(named)) => {
                let (id, len) = object(Some(named))?;
                if lock(&self.0.uploads).get(&role).and_then(|mine| mine.get(&id)) != Some(&len) {
                    // It may have been at another server, or before the round ended: its sender uploads it again, or hears so.
                    let reason = "the object was not uploaded in this attempt".to_owned();
                    return Ok(Response::new(v1::Receipt { status: Said::Retry.into(), reason }));
                }
                (id.0, Payload::Object { id, len })
            }
            None => return Err(Status::invalid_argument("a message without a payload")),
        };
        let (reply, answer) = oneshot::channel();
        let id = wire::message_id(role, round, attempt, &sha256);
        let inbound = Inbound { from: role, round, attempt, id, payload, reply };
        // A full inbox makes callers wait, and their uploads with them.
        self.0.inbox.send(inbound).await.map_err(|_| elsewhere())?;
        let receipt = answer.await.map_err(|_| elsewhere())?;
        match Said::try_from(receipt.status) {
            Ok(Said::Accepted) => self.0.board.accepted(),
            Ok(Said::Duplicate) => self.0.board.duplicate(),
            Ok(Said::Late) => self.0.board.refused("late"),
            Ok(Said::Refused) => self.0.board.refused("protocol"),
            _ => {}
        }
        Ok(Response::new(receipt))
    }

    async fn begin_upload(&self, request: Request<v1::Object>) -> Result<Response<v1::UploadState>, Status> {
        let role = self.0.admit(&request)?;
        let (id, len) = object(Some(request.into_inner()))?;
        self.0.reserve(role, id, len)?;
        let shared = Arc::clone(&self.0);
        let state = blocking(move || {
            if shared.objects.len(id).map_err(|e| spooled(&e))? == Some(len) {
                return Ok(v1::UploadState { offset: len, complete: true });
            }
            let upload = shared.objects.begin(id, len, &shared.uploads_bounded()).map_err(|e| spooled(&e))?;
            Ok::<_, Status>(v1::UploadState { offset: upload.offset(), complete: false })
        });
        Ok(Response::new(state.await??))
    }

    async fn upload(&self, request: Request<Streaming<v1::UploadChunk>>) -> Result<Response<v1::UploadState>, Status> {
        let role = self.0.admit(&request)?;
        let mut chunks = request.into_inner();
        let Some(first) = chunks.next().await.transpose()? else {
            return Err(Status::invalid_argument("an upload without a chunk"));
        };
        let (id, len) = object(first.object)?;
        self.0.reserve(role, id, len)?;
        let mut upload = {
            let shared = Arc::clone(&self.0);
            blocking(move || shared.objects.begin(id, len, &shared.uploads_bounded()))
                .await?
                .map_err(|e| spooled(&e))?
        };
        if upload.offset() != first.offset {
            let there = upload.offset();
            return Err(Status::aborted(format!("the upload goes on at byte {there}, not {}", first.offset)));
        }
        let (mut next, mut waiting) = (Some(first.bytes), Vec::new());
        while let Some(bytes) = next {
            self.0.here()?;
            self.0.board.heard(role, bytes.len() as u64, now());
            waiting.push(bytes);
            // A caller that sends nothing for a minute has gone; what is there waits for it.
            let chunk = tokio::time::timeout(Duration::from_secs(60), chunks.next()).await;
            let chunk = chunk.map_err(|_| Status::deadline_exceeded("no byte came for a minute"));
            // What came before a cut is kept.
            let chunk = chunk.and_then(|chunk| chunk.transpose());
            let over = !matches!(chunk, Ok(Some(_)));
            if over || waiting.iter().map(Bytes::len).sum::<usize>() >= TOGETHER {
                let waiting = std::mem::take(&mut waiting);
                let written = tokio::task::block_in_place(|| waiting.iter().try_for_each(|bytes| upload.append(bytes)));
                written.map_err(|e| spooled(&e))?;
            }
            next = chunk?.map(|chunk| chunk.bytes);
        }
        let offset = upload.offset();
        if offset < len {
            return Ok(Response::new(v1::UploadState { offset, complete: false }));
        }
        tokio::task::block_in_place(|| upload.finish()).map_err(|e| spooled(&e))?;
        // Its round may have ended meanwhile: it goes with the uploads of the present one.
        lock(&self.0.uploads).entry(role).or_default().insert(id, len);
        Ok(Response::new(v1::UploadState { offset, complete: true }))
    }

    async fn download(&self, request: Request<v1::DownloadRequest>) -> Result<Response<Chunks>, Status> {
        let role = self.0.admit(&request)?;
        let v1::DownloadRequest { id, offset } = request.into_inner();
        let offered = self.0.offered.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = wire::fixed(&id).and_then(|id: [u8; 32]| offered.get(&id).cloned());
        drop(offered);
        let Some(bytes) = bytes else { return Err(Status::not_found("no object of the present round")) };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        self.0.board.sent(role, (bytes.len() - offset) as u64);
        Ok(Response::new(Box::pin(self.0.turns.send(bytes.slice(offset..)))))
    }
}

/// Runs what blocks (the disk, signatures) beside the tasks of the connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("a call ended in the middle"))
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::resource_exhausted(error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}
