//! The server's socket: TLS handshakes side by side, each with a deadline, and no more connections than it bears, of all and of each.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::ahead::ReadAhead;
use super::keys::{Peer, Role};
use super::status::board::Board;
use super::tls;

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a handshake may take, and the preface behind it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes that wait to be served.
const BACKLOG: usize = 256;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The party of its certificate; `None` without one: it can only enrol.
    pub peer: Option<Peer>,
    /// Where it calls from.
    pub address: SocketAddr,
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<ReadAhead>,
    caller: Caller,
    /// Bytes of the preface that were read already and are still to be handed on.
    preface: &'static [u8],
    _permits: [OwnedSemaphorePermit; 2],
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    // A frame's head goes with its body: alone it would be a record of TLS and a packet of its own.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of all parties, and of callers that are none.
    pub all: usize,
    /// Of one party: room for those that have died and are not known to be dead yet.
    pub each: usize,
}

/// The places of callers beside those of all: of each party, and of those without a certificate.
struct Places {
    room: Room,
    parties: Mutex<HashMap<Role, Arc<Semaphore>>>,
    /// Callers without a certificate take no party's place.
    strangers: Arc<Semaphore>,
}

impl Places {
    fn take(&self, peer: Option<&Peer>) -> Result<OwnedSemaphorePermit, &'static str> {
        let Some(peer) = peer else {
            return Arc::clone(&self.strangers).try_acquire_owned().map_err(|_| "too-many-strangers");
        };
        // As many as there are certificates of the authority.
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        let most = self.room.each.clamp(1, Semaphore::MAX_PERMITS);
        let own = parties.entry(peer.role).or_insert_with(|| Arc::new(Semaphore::new(most)));
        Arc::clone(own).try_acquire_owned().map_err(|_| "too-many-connections")
    }
}

/// Accepts connections until the receiver is gone. A caller whose handshake fails or takes too long is counted and dropped, and so is
/// one more than `room` has for a party; one more than it has for all waits in the kernel's queue.
pub async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    room: Room,
    board: Arc<Board>,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(BACKLOG);
    let permits = Arc::new(Semaphore::new(room.all.clamp(1, Semaphore::MAX_PERMITS)));
    let strangers = Arc::new(Semaphore::new((room.all / 8).clamp(4, 1024)));
    let places = Arc::new(Places { room, parties: Mutex::default(), strangers });
    tokio::spawn(async move {
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    // No file descriptors, or a caller that is gone: neither ends the server.
                    board.refused("connection");
                    tracing::warn!(error = %e, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if ready.is_closed() {
                return;
            }
            let (acceptor, ready, board) = (TlsAcceptor::from(Arc::clone(&config)), ready.clone(), Arc::clone(&board));
            let places = Arc::clone(&places);
            tokio::spawn(async move {
                match handshake(stream, address, acceptor).await {
                    Ok((stream, caller)) => {
                        let own = match places.take(caller.peer.as_ref()) {
                            Ok(own) => own,
                            Err(reason) => return board.refused(reason),
                        };
                        let _permits = [permit, own];
                        drop(ready.send(Ok(Connection { stream, caller, preface: PREFACE, _permits })).await);
                    }
                    Err(reason) => board.refused(reason),
                }
            });
        }
    });
    connections
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
) -> Result<(TlsStream<ReadAhead>, Caller), &'static str> {
    drop(stream.set_nodelay(true));
    let mut stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(ReadAhead::new(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err("handshake"),
        Err(_) => return Err("handshake-too-slow"),
    };
    let peer = match stream.get_ref().1.peer_certificates() {
        Some(chain) => Some(tls::peer(chain).map_err(|_| "handshake-without-a-role")?),
        None => None,
    };
    let mut preface = [0; PREFACE.len()];
    match tokio::time::timeout(HANDSHAKE, stream.read_exact(&mut preface)).await {
        Ok(Ok(_)) if preface == *PREFACE => Ok((stream, Caller { peer, address })),
        Ok(_) => Err("not-http2"),
        Err(_) => Err("handshake-too-slow"),
    }
}
