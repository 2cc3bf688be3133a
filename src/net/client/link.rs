//! A connection to the server: TLS first, then calls; who the server is comes from its certificate.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use rand::Rng;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::net::ahead::ReadAhead;
use crate::net::plan::ObjectRef;
use crate::net::wire::v1::federation_client::FederationClient;
use crate::net::wire::v1::receipt::Status as Said;
use crate::net::wire::v1::submit_request::Payload;
use crate::net::wire::{CHUNK, FRAME, INLINE, MOST_MESSAGE, v1};
use crate::net::{NetError, tls};

/// How long a connection and its handshake may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a call may take that moves no bulk.
const CALL: Duration = Duration::from_secs(120);
/// Port of a URL without one.
pub const PORT: u16 = 7443;
/// Chunks of an upload that are on their way.
const AHEAD: usize = 8;
/// Bytes up to which an upload is sent without asking first how much of it is there: nearly always nothing, and a call is as dear to
/// the server as some of those bytes.
const UNASKED: usize = 4 << 20;

/// A URL of a server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The address of `https://HOST[:PORT]`.
    ///
    /// # Errors
    /// Anything else: [`NetError::Refused`] with what would be right.
    pub fn parse(url: &str) -> Result<Self, NetError> {
        let refuse = || NetError::Refused { reason: format!("`{url}` is no address: expected https://HOST:{PORT}") };
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(refuse()) };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(PORT) })
    }
}

/// A connection.
pub(super) struct Link {
    pub(super) calls: FederationClient<Channel>,
    /// The server's public signing key.
    pub(super) server: [u8; 32],
}

/// An object on its way here. What a cut connection has brought of it is not fetched again by the next.
#[derive(Default)]
pub(super) struct Coming {
    object: Option<ObjectRef>,
    bytes: Vec<u8>,
}

/// Connects.
///
/// # Errors
/// [`NetError::Unreachable`] where another try may help; [`NetError::Refused`] where the certificates do not fit.
pub(super) async fn connect(address: &Address, config: Arc<ClientConfig>) -> Result<Link, NetError> {
    let unreachable = |reason: String| NetError::Unreachable { reason };
    let dialled = async {
        let mut places: Vec<_> = tokio::net::lookup_host((address.host.as_str(), address.port)).await?.collect();
        // Of servers under one name, one coordinates and the others stand by: not always the same is called first.
        let first = rand::rng().next_u64() as usize % places.len().max(1);
        places.rotate_left(first);
        let stream = TcpStream::connect(&places[..]).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(config).connect(name, ReadAhead::new(stream)).await
    };
    let place = format!("{}:{}", address.host, address.port);
    let stream =
        tokio::time::timeout(CONNECT, dialled).await.map_err(|_| unreachable(format!("{place}: no answer")))?;
    let stream = stream.map_err(|e| unsafe_or_away(&place, &e))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let server = tls::peer(chain).map_err(|e| NetError::Refused { reason: format!("{place}: {e}") })?.identity;
    // This connection alone: what comes after it begins with a handshake of its own.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        async move { stream }
    });
    let endpoint = Endpoint::from_static("http://veilsum.invalid")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true)
        .max_frame_size(FRAME);
    let channel = endpoint.connect_with_connector(connector).await.map_err(|e| unreachable(format!("{place}: {e}")))?;
    let calls =
        FederationClient::new(channel).max_decoding_message_size(MOST_MESSAGE).max_encoding_message_size(MOST_MESSAGE);
    Ok(Link { calls, server })
}

/// A certificate that does not fit will not fit the next time; anything else may pass.
fn unsafe_or_away(place: &str, error: &std::io::Error) -> NetError {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<tokio_rustls::rustls::Error>());
    match tls {
        Some(e @ tokio_rustls::rustls::Error::InvalidCertificate(_)) => {
            NetError::Refused { reason: format!("the certificate of {place} is not accepted: {e}") }
        }
        Some(e @ tokio_rustls::rustls::Error::AlertReceived(_)) => {
            NetError::Refused { reason: format!("{place} does not accept this party's certificate: {e}") }
        }
        _ => NetError::Unreachable { reason: format!("{place}: {error}") },
    }
}

/// What a status says of trying again.
pub(super) fn failed(status: &Status) -> NetError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::Unimplemented => NetError::Refused { reason },
        code => NetError::Unreachable { reason: format!("{code}: {reason}") },
    }
}

/// Waits before another try: longer each time, up to half a minute, and never all parties at once.
pub(super) async fn back_off(tries: u32) {
    let most = (500u64 << tries.min(6)).min(30_000);
    let wait = rand::rng().next_u64() % most + most / 4;
    tokio::time::sleep(Duration::from_millis(wait)).await;
}

impl Link {
    /// Hands over a frame; what it comes to.
    ///
    /// # Errors
    /// As [`connect`]; an upload goes on where it was cut.
    pub(super) async fn submit(&mut self, round: u32, attempt: u32, frame: &Bytes) -> Result<v1::Receipt, NetError> {
        let payload = if frame.len() <= INLINE {
            Payload::Frame(frame.clone())
        } else {
            Payload::Object(self.upload(frame).await?)
        };
        let request = v1::SubmitRequest { round, attempt, payload: Some(payload) };
        let answer = tokio::time::timeout(CALL, self.calls.submit(request)).await;
        let answer = answer.map_err(|_| NetError::Unreachable { reason: "a message was not answered".into() })?;
        Ok(answer.map_err(|e| failed(&e))?.into_inner())
    }

    async fn upload(&mut self, bytes: &Bytes) -> Result<v1::Object, NetError> {
        let object = v1::Object { id: Sha256::digest(bytes).to_vec().into(), len: bytes.len() as u64 };
        if bytes.len() <= UNASKED {
            match self.upload_from(0, &object, bytes).await {
                // Some of it is there already.
                Err(status) if status.code() == Code::Aborted => {}
                outcome => return whole(object, &outcome.map_err(|e| failed(&e))?),
            }
        }
        let state = self.calls.begin_upload(object.clone()).await.map_err(|e| failed(&e))?.into_inner();
        if state.complete {
            return Ok(object);
        }
        let state = self.upload_from(state.offset, &object, bytes).await.map_err(|e| failed(&e))?;
        whole(object, &state)
    }

    /// Sends the bytes of an object from `offset` on.
    async fn upload_from(
        &mut self,
        mut offset: u64,
        object: &v1::Object,
        bytes: &Bytes,
    ) -> Result<v1::UploadState, Status> {
        let (chunks, stream) = tokio::sync::mpsc::channel(AHEAD);
        let (named, all) = (object.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut named = Some(named);
            while (offset as usize) < all.len() {
                let end = (offset as usize + CHUNK).min(all.len());
                let bytes = all.slice(offset as usize..end);
                if chunks.send(v1::UploadChunk { object: named.take(), offset, bytes }).await.is_err() {
                    return;
                }
                offset = end as u64;
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        Ok(self.calls.upload(stream).await?.into_inner())
    }

    /// Fetches an object of the present round, or what is missing of it.
    ///
    /// # Errors
    /// As [`connect`]; bytes of another length or hash.
    pub(super) async fn fetch(
        &mut self,
        object: &ObjectRef,
        most: u64,
        coming: &mut Coming,
    ) -> Result<Vec<u8>, NetError> {
        if object.len > most {
            let (expected, found) = (format!("at most {most} bytes"), object.len.to_string());
            return Err(NetError::Dishonest { what: "an object", expected, found });
        }
        if coming.object != Some(*object) {
            *coming = Coming { object: Some(*object), bytes: Vec::new() };
        }
        let bytes = &mut coming.bytes;
        let request = v1::DownloadRequest { id: object.id.to_vec().into(), offset: bytes.len() as u64 };
        let mut chunks = self.calls.download(request).await.map_err(|e| failed(&e))?.into_inner();
        while let Some(chunk) = chunks.message().await.map_err(|e| failed(&e))? {
            let missing = object.len as usize - bytes.len();
            if chunk.bytes.len() > missing {
                *coming = Coming::default();
                let (expected, found) = (format!("{} bytes", object.len), "more".to_owned());
                return Err(NetError::Dishonest { what: "an object", expected, found });
            }
            // All of it, once some of it is there.
            bytes.reserve_exact(missing);
            bytes.extend_from_slice(&chunk.bytes);
        }
        let bytes = std::mem::take(coming).bytes;
        let found: [u8; 32] = Sha256::digest(&bytes).into();
        if found != object.id {
            let (expected, found) = (hex::encode(object.id), hex::encode(found));
            return Err(NetError::Dishonest { what: "the hash of an object", expected, found });
        }
        Ok(bytes)
    }
}

/// The object, if all of it is there.
fn whole(object: v1::Object, state: &v1::UploadState) -> Result<v1::Object, NetError> {
    if state.complete {
        return Ok(object);
    }
    Err(NetError::Unreachable { reason: format!("an upload stopped at byte {}", state.offset) })
}

/// What a receipt says of the frame.
pub(super) fn status(receipt: &v1::Receipt) -> Said {
    Said::try_from(receipt.status).unwrap_or(Said::Unknown)
}
