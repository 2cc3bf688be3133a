//! A server, and parties that are enrolled and hostile: the product's own server behind its sockets, TLS and all.
//!
//! An input is a list of calls: any bytes to any method, frames of honest parties that are changed, repeated, sent in another's name
//! or round, uploads whose chunks lie, streams that stay open. After them every party does what an honest one does, and the round
//! has to come to its end. Promised, and looked at:
//!
//! - no panic, no hang;
//! - what is acknowledged is in the store, and what is refused is not;
//! - what was refused changes nothing: the party's own frame is taken afterwards;
//! - a round leaves nothing behind on the disk.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};

use super::input::Input;
use super::town::{self, CLIENTS, HOLDERS, Town};
use veilsum::backend::scalar::Scalar;
use veilsum::config::build::{Experiment, Given, Seat, federate};
use veilsum::fl::coordinator::RoundTask;
use veilsum::fl::protocol::RoundProtocol;
use veilsum::net::NetError;
use veilsum::net::client::channel_key;
use veilsum::net::keys::{PartyKeys, Role, TokenRole};
use veilsum::net::plan::{self, Parties, RoundPlan, enrolment_domain};
use veilsum::net::server::{STORE, ServeOptions, Served, serve, survivors};
use veilsum::net::store::{self, Store};
use veilsum::net::wire::v1::event::Event;
use veilsum::net::wire::v1::receipt::Status as Said;
use veilsum::net::wire::v1::submit_request::Payload;
use veilsum::net::wire::{self, v1};
use veilsum::secagg::oneshot::{OneshotClient, OneshotHolder};
use veilsum::secagg::plain::PlainClient;
use veilsum::secagg::{Party, PartyId, frame};

/// Rounds that one server plays before another takes its place: its history would slow it down.
const ROUNDS: u32 = 200;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files below the folder of objects that a round may leave: two checkpoints, and what marks the folders.
const FILES: usize = 12;
/// Methods, and one that is not there.
const METHODS: [&str; 9] =
    ["Enrol", "Renew", "Hello", "Listen", "Submit", "BeginUpload", "Upload", "Download", "Nothing"];

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
static WORLDS: [LazyLock<Mutex<World>>; 2] = [
    LazyLock::new(|| Mutex::new(World::new("\"plain\"", 0))),
    LazyLock::new(|| Mutex::new(World::new(r#"{"oneshot": {"holders": 3, "corrupt_holders": 1}}"#, HOLDERS))),
];

/// An input for every call, under both protocols.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![1]];
    for protocol in 0..2 {
        for action in 0..12 {
            for party in 0..4 {
                let call = [action, party, party, 0, 9, 0, 7, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9];
                seeds.push([vec![protocol], call.to_vec(), vec![255; 30]].concat());
                seeds.push([vec![protocol], call.to_vec(), call.to_vec(), vec![0; 30]].concat());
            }
        }
    }
    seeds
}

/// Plays an input.
///
/// # Panics
/// Where a promise is broken: a finding.
pub fn play(data: &[u8]) {
    let mut input = Input(data);
    let world = &WORLDS[usize::from(input.byte() % 2)];
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    world.play(&mut input);
}

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A connection.
#[derive(Clone)]
pub struct Link(Channel);

impl Link {
    /// Connects with the certificate of a config.
    ///
    /// # Panics
    /// If nobody answers.
    pub async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = Some(TokioIo::new(TlsConnector::from(config).connect(name, stream).await.unwrap()));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
            async move { stream }
        });
        Self(Endpoint::from_static("http://veilsum.invalid").connect_with_connector_lazy(connector))
    }

    /// True if the server answers here.
    pub async fn served(&self) -> bool {
        let hello = v1::HelloRequest { version: wire::VERSION, ..Default::default() };
        self.typed::<v1::HelloResponse>("Hello", &hello).await.is_ok()
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut calls = Grpc::new(self.0.clone());
        calls.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(calls)
    }

    async fn call(&self, method: &str, message: Bytes) -> Result<Bytes, Status> {
        let mut calls = self.ready().await?;
        let answer = calls.unary(Request::new(message), path(method), Raw);
        sound(tokio::time::timeout(PATIENCE, answer).await.expect("a call was not answered")).map(|a| a.into_inner())
    }

    async fn typed<A: Message + Default>(&self, method: &str, message: &impl Message) -> Result<A, Status> {
        let answer = self.call(method, message.encode_to_vec().into()).await?;
        Ok(A::decode(answer).expect("an answer that is none"))
    }

    async fn send(&self, method: &str, messages: Vec<Bytes>) -> Result<Bytes, Status> {
        let mut calls = self.ready().await?;
        let answer = calls.client_streaming(Request::new(tokio_stream::iter(messages)), path(method), Raw);
        sound(tokio::time::timeout(PATIENCE, answer).await.expect("a stream was not answered")).map(|a| a.into_inner())
    }

    async fn hear(&self, method: &str, message: Bytes) -> Result<Streaming<Bytes>, Status> {
        let mut calls = self.ready().await?;
        let answer = calls.server_streaming(Request::new(message), path(method), Raw);
        sound(tokio::time::timeout(PATIENCE, answer).await.expect("a stream did not begin")).map(|a| a.into_inner())
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/veilsum.v1.Federation/{method}").parse().unwrap()
}

/// An answer that no panic has made.
fn sound<T>(answer: Result<T, Status>) -> Result<T, Status> {
    if let Err(status) = &answer {
        let broken =
            matches!(status.code(), Code::Cancelled) || status.message().contains("a call ended in the middle");
        assert!(!broken, "{status}");
    }
    answer
}

/// A party: what it says to the server, and the machine that an honest one would have.
struct Line {
    role: Role,
    keys: PartyKeys,
    link: Link,
    /// What is hostile comes over another connection: the library ends one with too much nonsense, as it should.
    rogue: Link,
    door: (SocketAddr, Arc<ClientConfig>),
    events: mpsc::UnboundedReceiver<Event>,
    /// The attempt that it is in.
    present: Option<(u32, u32)>,
    machine: Option<Box<dyn Party + Send>>,
    outbox: VecDeque<Vec<u8>>,
    /// What an honest party has said in this attempt.
    sent: Vec<Vec<u8>>,
    /// Attempts that were released.
    released: BTreeSet<(u32, u32)>,
}

/// A server that runs, and everybody's line to it.
struct Server {
    thread: JoinHandle<Result<Served, NetError>>,
    drain: Arc<AtomicBool>,
    lines: Vec<Line>,
    store: Arc<dyn Store>,
    experiment: Experiment,
    rounds: u32,
    /// An upload whose end has not come yet.
    held: Option<mpsc::UnboundedSender<Bytes>>,
}

struct World {
    town: Town,
    protocol: &'static str,
    folders: Vec<(Role, PathBuf)>,
    server: Option<Server>,
    served: u32,
}

impl World {
    fn new(protocol: &'static str, holders: u16) -> Self {
        let town = Town::new();
        let clients = (0..CLIENTS).map(Role::Client);
        let roles = clients.chain((1..=holders).map(Role::Holder));
        let folders = roles.map(|role| (role, town.party(&role.to_string().replace(':', "-"), role))).collect();
        Self { town, protocol, folders, server: None, served: 0 }
    }

    fn play(&mut self, input: &mut Input<'_>) {
        let server = match &mut self.server {
            Some(server) => server,
            none => none.insert(Server::start(&self.town, self.protocol, &self.folders, self.served)),
        };
        let state = self.town.path(&format!("state-{}", self.served));
        let last = server.rounds >= ROUNDS;
        server.everybody_plays();
        let files = files_below(&state.join("objects"));
        assert!(files <= FILES, "{files} files are left of rounds that are over");
        let spoiled = RUNTIME.block_on(server.hostile(input, &self.town));
        if last {
            server.drain.store(true, Ordering::Relaxed);
        }
        server.finish(&spoiled, input.byte());
        if last && let Some(server) = self.server.take() {
            server.end();
            std::fs::remove_dir_all(state).unwrap();
            self.served += 1;
        }
    }
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 }).sum()
}

impl Server {
    fn start(town: &Town, protocol: &str, folders: &[(Role, PathBuf)], number: u32) -> Self {
        let config = town::typed(&town::config(protocol)).unwrap();
        let experiment = federate(&config, Path::new("."), Given::default(), Seat::Server).unwrap();
        let state = town.path(&format!("state-{number}"));
        let options = ServeOptions {
            state: state.clone(),
            keys: town.path("server"),
            authority: Some(town.path("ca")),
            listen: "127.0.0.1:0".parse().unwrap(),
            http: None,
            store: None,
            objects: None,
            lease: veilsum::net::server::LEASE,
        };
        let drain = Arc::new(AtomicBool::new(false));
        let (told, addresses) = std::sync::mpsc::channel();
        let flag = Arc::clone(&drain);
        let thread = std::thread::spawn(move || {
            let federation = config.federation.unwrap();
            serve(experiment, federation, &options, &flag, |serving| told.send(serving.address).unwrap())
        });
        let address = addresses.recv().expect("no server");
        let store = store::open(&state.join(STORE).display().to_string()).unwrap();
        let lines: Vec<Line> =
            folders.iter().map(|(role, folder)| RUNTIME.block_on(Line::open(*role, folder, address))).collect();
        let about: v1::HelloResponse = RUNTIME.block_on(lines[0].link.typed("Hello", &hello())).unwrap();
        let session = wire::fixed(&about.session).unwrap();
        let experiment = town::party(&town::typed(&about.config).unwrap(), session).unwrap();
        assert_eq!(experiment.plan.digest().unwrap()[..], about.plan_digest[..]);
        Self { thread, drain, lines, store, experiment, rounds: 0, held: None }
    }

    fn end(self) {
        drop((self.lines, self.held));
        let served = self.thread.join().expect("the server has panicked").expect("the server has failed");
        assert!(served.result.is_some_and(|result| result.rounds >= ROUNDS), "it was nobody's");
    }

    /// Waits until everybody is in the same attempt.
    fn everybody_plays(&mut self) {
        let since = Instant::now();
        loop {
            self.pump();
            let first = self.lines[0].present;
            if first.is_some() && self.lines.iter().all(|line| line.present == first) {
                return;
            }
            assert!(since.elapsed() < PATIENCE && !self.thread.is_finished(), "no round begins");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Takes what the server has said.
    fn pump(&mut self) {
        for line in &mut self.lines {
            while let Ok(event) = line.events.try_recv() {
                RUNTIME.block_on(line.take(event, &self.experiment));
            }
        }
    }

    /// Everybody does what an honest party does, until the round is over.
    fn finish(&mut self, spoiled: &BTreeSet<Role>, how: u8) {
        let attempt = self.lines[0].present.or_else(|| self.lines[0].released.last().copied()).unwrap();
        let since = Instant::now();
        while !self.lines.iter().all(|line| line.released.contains(&attempt)) {
            self.pump();
            for (number, line) in self.lines.iter_mut().enumerate() {
                while line.present == Some(attempt)
                    && let Some(frame) = line.outbox.pop_front()
                {
                    let upload = how >> (number % 8) & 1 == 1;
                    let said = RUNTIME.block_on(line.honest(attempt, &frame, upload));
                    if !matches!(said, Said::Accepted | Said::Duplicate) {
                        assert!(spoiled.contains(&line.role), "{}: {said:?} to an honest frame", line.role);
                        continue;
                    }
                    let id = wire::message_id(line.role, attempt.0, attempt.1, &Sha256::digest(&frame).into());
                    assert!(self.store.has(attempt.0, attempt.1, &id).unwrap(), "acknowledged and not stored");
                    line.sent.push(frame);
                }
            }
            assert!(since.elapsed() < PATIENCE && !self.thread.is_finished(), "the round does not end");
            std::thread::sleep(Duration::from_micros(200));
        }
        let all: Vec<u64> = (0..CLIENTS).collect();
        assert_eq!(survivors(&*self.store, attempt.0, attempt.1).unwrap(), Some(all));
        self.rounds += 1;
    }

    /// The calls of an input; whose place somebody has taken with a frame that was accepted.
    async fn hostile(&mut self, input: &mut Input<'_>, town: &Town) -> BTreeSet<Role> {
        let mut spoiled = BTreeSet::new();
        let mut calls = 0;
        for line in &mut self.lines {
            if !line.rogue.served().await {
                line.rogue = Link::dial(line.door.0, Arc::clone(&line.door.1)).await;
                assert!(line.rogue.served().await, "{} is not let in again", line.role);
            }
        }
        while !input.is_empty() && calls < 40 {
            calls += 1;
            for line in &mut self.lines {
                while let Ok(event) = line.events.try_recv() {
                    line.take(event, &self.experiment).await;
                }
            }
            let (action, who) = (input.byte(), usize::from(input.byte()) % self.lines.len());
            match action % 12 {
                0 => {
                    let method = METHODS[usize::from(input.byte()) % METHODS.len()];
                    let (link, bytes) = (&self.lines[who].rogue, input.bytes(2000).to_vec().into());
                    if method == "Listen" {
                        // It has no end.
                        if let Ok(mut events) = link.hear(method, bytes).await {
                            drop(tokio::time::timeout(Duration::from_millis(1), events.message()).await);
                        }
                    } else {
                        drop(link.call(method, bytes).await);
                    }
                }
                1..=4 => self.frame(action % 12, who, input, &mut spoiled).await,
                5 => self.begin_upload(who, input).await,
                6 => self.upload(who, input).await,
                7 => self.hold(who, input).await,
                8 => self.listen(who, input).await,
                9 => {
                    let (id, offset) = (self.named(input).0, input.number());
                    let request = v1::DownloadRequest { id: id.to_vec().into(), offset };
                    if let Ok(mut chunks) = self.lines[who].rogue.hear("Download", request.encode_to_vec().into()).await
                    {
                        while let Ok(Some(_)) = sound(chunks.message().await) {}
                    }
                }
                10 => self.hello(who, input).await,
                _ => self.enrol(who, input, town).await,
            }
        }
        spoiled
    }

    /// A frame: of its own, changed, another's, invented, or in another attempt.
    async fn frame(&mut self, action: u8, who: usize, input: &mut Input<'_>, spoiled: &mut BTreeSet<Role>) {
        let whose = usize::from(input.byte()) % self.lines.len();
        let owner = &self.lines[whose];
        let honest = owner.outbox.front().or_else(|| owner.sent.last()).cloned().unwrap_or_default();
        let frame = match action {
            1 => honest.clone(),
            2 | 3 => input.mutated(&honest),
            _ => input.bytes(3000).to_vec(),
        };
        let (round, attempt) = self.lines[who].present.unwrap_or((1, 0));
        let (round, attempt) = match input.byte() {
            0..200 => (round, attempt),
            200..220 => (round.wrapping_sub(1), attempt),
            220..240 => (round, attempt.wrapping_add(1)),
            _ => (input.number() as u32, input.number() as u32),
        };
        let own = whose == who && frame == honest;
        let message = if input.byte() < 200 {
            v1::SubmitRequest { round, attempt, payload: Some(Payload::Frame(frame.clone().into())) }.encode_to_vec()
        } else {
            let honest = v1::SubmitRequest { round, attempt, payload: Some(Payload::Frame(frame.clone().into())) };
            input.mutated(&honest.encode_to_vec())
        };
        let line = &self.lines[who];
        let answer = line.rogue.call("Submit", message.clone().into()).await;
        if answer.as_ref().is_err_and(|status| status.code() == Code::Unknown) {
            // The connection is gone: the frame may be there.
            spoiled.insert(line.role);
        }
        let (Ok(answer), Ok(request)) = (answer, v1::SubmitRequest::decode(&message[..])) else { return };
        let said = v1::Receipt::decode(answer).unwrap().status();
        let Some(Payload::Frame(frame)) = request.payload else { return };
        let (round, attempt) = (request.round, request.attempt);
        let id = wire::message_id(line.role, round, attempt, &Sha256::digest(&frame).into());
        let stored = self.store.has(round, attempt, &id).unwrap_or(false);
        match said {
            Said::Accepted | Said::Duplicate => {
                assert!(stored, "acknowledged and not stored");
                if !own {
                    spoiled.insert(line.role);
                }
            }
            _ if Some((round, attempt)) == line.present => assert!(!stored, "refused and stored"),
            _ => {}
        }
    }

    /// An object by a name and a length: those of an honest frame, or anything.
    fn named(&self, input: &mut Input<'_>) -> (Vec<u8>, u64, Vec<u8>) {
        let owner = &self.lines[usize::from(input.byte()) % self.lines.len()];
        let bytes = match input.byte() % 3 {
            0 => owner.outbox.front().or_else(|| owner.sent.last()).cloned().unwrap_or_default(),
            1 => vec![input.byte(); usize::from(input.short())],
            _ => input.bytes(1000).to_vec(),
        };
        let (id, len) = (Sha256::digest(&bytes).to_vec(), bytes.len() as u64);
        match input.byte() {
            0..160 => (id, len, bytes),
            160..200 => (id, input.number(), bytes),
            200..230 => (vec![input.byte(); 32], len, bytes),
            _ => (input.bytes(40).to_vec(), input.number(), bytes),
        }
    }

    async fn begin_upload(&mut self, who: usize, input: &mut Input<'_>) {
        let (id, len, _) = self.named(input);
        let object = v1::Object { id: id.into(), len };
        let link = &self.lines[who].rogue;
        let state: Result<v1::UploadState, _> = link.typed("BeginUpload", &object).await;
        assert!(state.is_err() || (1..=1 << 20).contains(&len), "an upload of {len} bytes has begun");
    }

    /// An upload whose chunks are not what they should be, and a message that names it.
    async fn upload(&mut self, who: usize, input: &mut Input<'_>) {
        let (id, len, bytes) = self.named(input);
        let object = v1::Object { id: id.into(), len };
        let mut chunks: Vec<Bytes> = Vec::new();
        let (size, lies) = (1 + usize::from(input.byte()) * 8, input.byte());
        for (number, piece) in bytes.chunks(size).enumerate().take(40) {
            let first = number == 0 || lies & 1 == 1 && input.byte() < 64;
            let offset = if lies & 2 == 2 && input.byte() < 64 { input.number() } else { (number * size) as u64 };
            let named = first.then(|| object.clone());
            let chunk = v1::UploadChunk { object: named, offset, bytes: piece.to_vec().into() }.encode_to_vec();
            let chunk = if lies & 4 == 4 && input.byte() < 64 { input.mutated(&chunk) } else { chunk };
            chunks.push(chunk.into());
        }
        let line = &self.lines[who];
        let complete = match line.rogue.send("Upload", chunks).await {
            Ok(state) => v1::UploadState::decode(state).unwrap().complete,
            Err(_) => false,
        };
        let genuine = Sha256::digest(&bytes)[..] == object.id[..] && object.len == bytes.len() as u64;
        assert!(!complete || genuine || lies & 4 == 4, "an upload that is not what it says is complete");
        if input.byte() < 128 {
            let (round, attempt) = line.present.unwrap_or((1, 0));
            let request = v1::SubmitRequest { round, attempt, payload: Some(Payload::Object(object)) };
            let receipt: Result<v1::Receipt, _> = line.rogue.typed("Submit", &request).await;
            let accepted = receipt.is_ok_and(|r| matches!(r.status(), Said::Accepted | Said::Duplicate));
            assert!(!accepted || genuine || lies & 4 == 4, "a message without its bytes is accepted");
        }
    }

    /// Begins an upload that stays open, or ends the one that does: in another round than it began in.
    async fn hold(&mut self, who: usize, input: &mut Input<'_>) {
        if let Some(held) = self.held.take() {
            let last = v1::UploadChunk { object: None, offset: 0, bytes: vec![7; 1].into() };
            drop(held.send(last.encode_to_vec().into()));
            drop(held);
            // What comes of it is seen when the round is over.
            tokio::time::sleep(Duration::from_millis(2)).await;
            return;
        }
        let bytes = vec![7; 2 + usize::from(input.short())];
        let object = v1::Object { id: Sha256::digest(&bytes).to_vec().into(), len: bytes.len() as u64 };
        let first = v1::UploadChunk { object: Some(object), offset: 0, bytes: bytes[1..].to_vec().into() };
        let (held, messages) = mpsc::unbounded_channel();
        held.send(Bytes::from(first.encode_to_vec())).unwrap();
        let link = self.lines[who].rogue.clone();
        tokio::spawn(async move {
            let Ok(mut calls) = link.ready().await else { return };
            let messages = UnboundedReceiverStream::new(messages);
            drop(calls.client_streaming(Request::new(messages), path("Upload"), Raw).await);
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.held = Some(held);
    }

    /// Another listener, from anywhere; it hears a little and goes.
    async fn listen(&mut self, who: usize, input: &mut Input<'_>) {
        let line = &self.lines[who];
        let (round, attempt) = line.present.unwrap_or((1, 0));
        let request = match input.byte() % 3 {
            0 => v1::ListenRequest { round, attempt, next: input.number() },
            1 => {
                v1::ListenRequest { round: input.number() as u32, attempt: input.number() as u32, next: input.number() }
            }
            _ => v1::ListenRequest { round: 0, attempt: 0, next: 0 },
        };
        let Ok(mut events) = line.rogue.hear("Listen", request.encode_to_vec().into()).await else { return };
        for _ in 0..input.byte() % 4 {
            let next = tokio::time::timeout(Duration::from_millis(1), events.message()).await;
            if let Ok(Ok(Some(event))) = next {
                v1::Event::decode(event).expect("an event that is none");
            }
        }
    }

    async fn hello(&mut self, who: usize, input: &mut Input<'_>) {
        let request = v1::HelloRequest {
            version: if input.byte() < 128 { wire::VERSION } else { input.number() as u32 },
            software: String::from_utf8_lossy(input.bytes(100)).into_owned(),
            name: String::from_utf8_lossy(input.bytes(300)).into_owned(),
            channel: input.bytes(40).to_vec().into(),
        };
        let answer: Result<v1::HelloResponse, _> = self.lines[who].rogue.typed("Hello", &request).await;
        assert!(answer.is_err() || request.version == wire::VERSION, "{answer:?}");
        let renewed: Result<v1::EnrolResponse, _> =
            self.lines[who].rogue.typed("Renew", &v1::RenewRequest { version: input.byte().into() }).await;
        if let Ok(renewed) = renewed {
            assert_eq!(renewed.role, self.lines[who].role.to_string());
        }
    }

    /// A token in somebody else's hands, or no token: all places are taken, and nobody gets one.
    async fn enrol(&mut self, who: usize, input: &mut Input<'_>, town: &Town) {
        let role = match input.byte() % 4 {
            0 => TokenRole::Client(None),
            1 => TokenRole::Client(Some(input.number())),
            2 => TokenRole::Holder(None),
            _ => TokenRole::Holder(Some(input.short())),
        };
        let token = town.authority.token(role, u64::MAX >> 1).unwrap().to_string();
        let identity = self.lines[who].keys.identity();
        let token = if input.byte() < 128 {
            token
        } else {
            String::from_utf8_lossy(&input.mutated(token.as_bytes())).into_owned()
        };
        let request = v1::EnrolRequest {
            version: wire::VERSION,
            identity: identity.public().to_vec().into(),
            channel: input.bytes(40).to_vec().into(),
            name: String::from_utf8_lossy(input.bytes(300)).into_owned(),
            proof: identity.sign(&enrolment_domain(), token.as_bytes()).to_vec().into(),
            token,
        };
        let message = match input.byte() {
            0..160 => request.encode_to_vec(),
            _ => input.mutated(&request.encode_to_vec()),
        };
        let before = self.store.parties().unwrap();
        assert!(self.lines[who].rogue.call("Enrol", message.into()).await.is_err(), "somebody got a place");
        assert_eq!(self.store.parties().unwrap(), before);
    }
}

fn hello() -> v1::HelloRequest {
    v1::HelloRequest {
        version: wire::VERSION,
        software: wire::SOFTWARE.to_owned(),
        name: "a party".to_owned(),
        channel: Bytes::new(),
    }
}

impl Line {
    async fn open(role: Role, folder: &Path, address: SocketAddr) -> Self {
        let keys = PartyKeys::open(folder).unwrap();
        let (config, _) = veilsum::net::tls::client_config(folder).unwrap();
        let (link, rogue) =
            (Link::dial(address, Arc::clone(&config)).await, Link::dial(address, Arc::clone(&config)).await);
        let hello = v1::HelloRequest { channel: channel_key(keys.secret()).public().to_vec().into(), ..hello() };
        let _: v1::HelloResponse = link.typed("Hello", &hello).await.unwrap();
        let request = v1::ListenRequest { round: 0, attempt: 0, next: 0 };
        let mut stream = link.hear("Listen", request.encode_to_vec().into()).await.unwrap();
        let (told, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(event)) = stream.message().await {
                let event =
                    v1::Event::decode(event).expect("an event that is none").event.expect("an event of nothing");
                if told.send(event).is_err() {
                    return;
                }
            }
        });
        let released = BTreeSet::new();
        let (outbox, sent) = (VecDeque::new(), Vec::new());
        Self {
            role,
            keys,
            link,
            rogue,
            door: (address, config),
            events,
            present: None,
            machine: None,
            outbox,
            sent,
            released,
        }
    }

    async fn take(&mut self, event: Event, experiment: &Experiment) {
        match event {
            Event::Plan(signed) => {
                let round_plan: RoundPlan = serde_json::from_slice(&signed.body).unwrap();
                let parties: Parties = serde_json::from_slice(&self.fetch(round_plan.parties.id).await).unwrap();
                let weights = plan::weights(&self.fetch(round_plan.model.id).await).unwrap();
                let task = round_plan.notice.task(&experiment.plan, &parties.directory().unwrap(), weights).unwrap();
                self.present = Some((task.id.round, task.id.attempt));
                self.outbox.clear();
                self.sent.clear();
                self.machine = Some(self.machine(&task));
            }
            Event::Message(message) if self.present == Some((message.round, message.attempt)) => {
                if let Some(machine) = &mut self.machine {
                    machine.handle(PartyId::Server, &message.frame).expect("the server says what it should not");
                }
            }
            Event::End(end) => {
                assert!(end.released, "round {} attempt {} was given up", end.round, end.attempt);
                self.released.insert((end.round, end.attempt));
                (self.present, self.machine) = (None, None);
            }
            Event::Message(_) | Event::Finished(_) => {}
        }
        if let Some(machine) = &mut self.machine {
            self.outbox.extend(std::iter::from_fn(|| machine.poll_transmit()).map(|transmit| transmit.frame));
        }
    }

    async fn fetch(&self, id: [u8; 32]) -> Vec<u8> {
        let request = v1::DownloadRequest { id: id.to_vec().into(), offset: 0 };
        let mut chunks = self.link.hear("Download", request.encode_to_vec().into()).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            bytes.extend_from_slice(&v1::DownloadChunk::decode(chunk).unwrap().bytes);
        }
        bytes
    }

    fn machine(&self, task: &RoundTask) -> Box<dyn Party + Send> {
        let identity = self.keys.identity();
        let mut vector = Vec::new();
        let ring = (1u64 << task.shape.bits) - 1;
        frame::pack((0..task.shape.len).map(|j| u64::from(j * 77) & ring), task.shape.bits, &mut vector);
        match (&task.protocol, self.role) {
            (RoundProtocol::Oneshot(session), Role::Holder(number)) => {
                let channel = channel_key(self.keys.secret());
                Box::new(OneshotHolder::new(session, number, &identity, &channel, None).unwrap())
            }
            (RoundProtocol::Oneshot(session), Role::Client(client)) => {
                let (secret, backend) = (self.keys.secret(), Arc::new(Scalar));
                Box::new(OneshotClient::packed(session, client, &identity, secret, backend, &vector).unwrap())
            }
            (_, Role::Client(client)) => Box::new(PlainClient::packed(task.id, client, task.shape, &vector).unwrap()),
            (_, role) => panic!("{role} has no place here"),
        }
    }

    /// Says what an honest party says; inside the message, or uploaded before.
    async fn honest(&self, (round, attempt): (u32, u32), frame: &[u8], upload: bool) -> Said {
        let object = v1::Object { id: Sha256::digest(frame).to_vec().into(), len: frame.len() as u64 };
        // Bytes of somebody else under this name are thrown away, and the next try has its way.
        let mut uploaded = false;
        for _ in 0..if upload || frame.len() > wire::INLINE { 3 } else { 0 } {
            uploaded = uploaded || self.upload(&object, frame).await.is_some();
        }
        let payload = if uploaded { Payload::Object(object) } else { Payload::Frame(frame.to_vec().into()) };
        let request = v1::SubmitRequest { round, attempt, payload: Some(payload) };
        self.link.typed::<v1::Receipt>("Submit", &request).await.expect("an honest frame is not taken").status()
    }

    /// Uploads the rest of what is there; `None` if that did not come to an object.
    async fn upload(&self, object: &v1::Object, bytes: &[u8]) -> Option<()> {
        let state: v1::UploadState = self.link.typed("BeginUpload", object).await.ok()?;
        if state.complete {
            return Some(());
        }
        let rest = bytes[state.offset as usize..].to_vec().into();
        let chunk = v1::UploadChunk { object: Some(object.clone()), offset: state.offset, bytes: rest };
        let state = self.link.send("Upload", vec![chunk.encode_to_vec().into()]).await.ok()?;
        v1::UploadState::decode(state).unwrap().complete.then_some(())
    }
}
