//! The calls of a party, behind TLS: who calls, whether it may, and what goes on to the coordinator.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::enrol;
use super::gathered::Gathered;
use super::shared::{Inbound, Shared, elsewhere, lock};
use crate::net::hub::Seen;
use crate::net::listen::Caller;
use crate::net::now;
use crate::net::objects::{ObjectError, ObjectId, Upload};
use crate::net::store::{NewParty, Payload, StoreError};
use crate::net::wire::v1::federation_server::Federation;
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::wire::v1::submit_request::Payload as Submitted;
use crate::net::wire::{self, INLINE, v1};

/// Events that wait in a connection before its box is asked again.
const AHEAD: usize = 4;

/// The service of one server.
#[derive(Clone)]
pub(super) struct Service(pub(super) Arc<Shared>);

pub(super) fn spooled(error: &ObjectError) -> Status {
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
            let (offset, complete) = (upload.offset(), upload.is_complete());
            if complete {
                // All of it came, and what stopped the server or the disk came before its end.
                upload.finish().map_err(|e| spooled(&e))?;
            }
            Ok::<_, Status>(v1::UploadState { offset, complete })
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
        let (mut upload, mut offset) = (None, first.offset);
        let (mut next, mut gathered) = (Some(first.bytes), Gathered::new(&self.0.gathered));
        while let Some(bytes) = next {
            self.0.here()?;
            self.0.board.heard(role, bytes.len() as u64, now());
            gathered.push(bytes);
            // A caller that sends nothing for a minute has gone; what is there waits for it.
            let chunk = tokio::time::timeout(Duration::from_secs(60), chunks.next()).await;
            let chunk = chunk.map_err(|_| Status::deadline_exceeded("no byte came for a minute"));
            // What came before a cut is kept.
            let chunk = chunk.and_then(|chunk| chunk.transpose());
            if !matches!(chunk, Ok(Some(_))) || gathered.is_enough() {
                let bytes = gathered.take();
                upload = tokio::task::block_in_place(|| self.0.append((id, len), upload, offset, &bytes))?;
                offset = upload.as_ref().map_or(len, Upload::offset);
            }
            next = chunk?.map(|chunk| chunk.bytes);
        }
        if upload.is_some() {
            return Ok(Response::new(v1::UploadState { offset, complete: false }));
        }
        // Its round may have ended meanwhile: it goes with the uploads of the present one.
        lock(&self.0.uploads).entry(role).or_default().insert(id, len);
        Ok(Response::new(v1::UploadState { offset: len, complete: true }))
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
