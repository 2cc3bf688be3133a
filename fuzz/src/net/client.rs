//! A party, and a server that is hostile: the product's own client, over its socket, TLS and all.
//!
//! An input is what the server says: configs whose numbers are anything, plans that are changed, signed by it or by nobody, models and
//! rosters that are not what was named, messages out of order, receipts, offsets of uploads, silence. Promised, and looked at:
//!
//! - no panic, no hang, and nothing allocated by a number that was only said;
//! - nothing is sent without a plan that the server has signed, or against the policy;
//! - under one number of a round and attempt one vector is sent, whatever the server says when the party comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server as Transport;
use tonic::{Request, Response, Status, Streaming};

use super::input::Input;
use super::town::{self, CLIENTS, Town};
use veilsum::backend::scalar::Scalar;
use veilsum::config::build::Experiment;
use veilsum::data::{Dataset, Features, Split};
use veilsum::fl::notice::Notice;
use veilsum::fl::protocol::RoundProtocol;
use veilsum::net::client::{Address, JoinOptions, LocalData, channel_key, join};
use veilsum::net::keys::{PartyKeys, Role};
use veilsum::net::plan::{self, Holder, Key, ObjectRef, Parties, RoundPlan};
use veilsum::net::policy::{Fingerprint, Policy, ProtocolName};
use veilsum::net::status::board::Board;
use veilsum::net::status::{Privacy, Run};
use veilsum::net::wire::v1::event::Event;
use veilsum::net::wire::v1::federation_server::{Federation, FederationServer};
use veilsum::net::wire::v1::submit_request::Payload;
use veilsum::net::wire::{self, v1};
use veilsum::net::{listen, now, tls};
use veilsum::secagg::masks::MasksServer;
use veilsum::secagg::oneshot::OneshotServer;
use veilsum::secagg::plain::PlainServer;
use veilsum::secagg::{Party, PartyId};

/// The run that the server says it is.
const SESSION: [u8; 16] = [3; 16];
/// Calls after which a party is asked to end.
const CALLS: usize = 200;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new()));

/// Honest configs, plans and rounds, and one of each thing that a server may do besides.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..6).map(|config| vec![0, config, 0]).collect();
    seeds.extend((0..60).map(|number| vec![0, number % 6, 1, number, number, 150 + number]));
    for config in 0..6 {
        seeds.push(honest(config, &[]));
        seeds.extend((0..10).map(|event| honest(config, &[event, 1, 0, 0, 7, 0, 0, 7, 0, 0])));
        // The server goes, and says it all again: the same, and another plan under the same number.
        seeds.push(honest(config, &[6, 0, 0, 14, 0, 1, 0, 0, 255, 255, 3, 1, 0, 0, 7, 0, 0]));
        seeds.push(honest(config, &[6, 0, 0, 14, 0, 1, 0, 16, 255, 255, 3, 1, 0, 0, 7, 0, 0]));
    }
    seeds
}

/// A client, a policy that allows what is asked, an honest config, an honest plan, its announcement, time to answer; then `more`.
#[must_use]
pub fn honest(config: u8, more: &[u8]) -> Vec<u8> {
    let (head, plan, announcement, wait) =
        ([1, config, 0, 0, 0, 1, 0], [0, 1, 0, 0, 255, 255], [3, 1, 0, 0], [7, 0, 0]);
    [&head[..], &plan, &announcement, &wait, more].concat()
}

/// Plays an input; the number of rounds in which the party has sent something, and how its part ended.
///
/// # Panics
/// As [`play`].
#[must_use]
pub fn answered(data: &[u8]) -> (usize, String) {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let patience = std::mem::replace(&mut world.patience, 10_000);
    world.play(&mut Input(&data[1..]));
    world.patience = patience;
    let answered = world.hostile.script().heard.len();
    (answered, world.outcome.clone())
}

/// Plays an input.
///
/// # Panics
/// Where a promise is broken: a finding.
pub fn play(data: &[u8]) {
    let mut input = Input(data);
    if input.byte().is_multiple_of(4) {
        config(&mut input);
    } else {
        WORLD.lock().unwrap_or_else(PoisonError::into_inner).play(&mut input);
    }
}

/// Configs that are not the same in what they ask of a party.
fn configs(which: u8) -> String {
    let config = |protocol| town::config(protocol);
    let private = r#""privacy": {"mechanism": "smm", "noise": "per_client", "clip": 1.0, "bits": 16, "gamma": 100.0, "mu": 40.0, "delta": 1e-5,
        "dropout": {"tolerated": 0.34, "excess": "kept"}}"#;
    let none = r#""privacy": {"mechanism": "none", "clip": 1.0, "bits": 16, "delta": 1e-5}"#;
    match which % 6 {
        0 | 1 => config("\"plain\""),
        2 => config(r#"{"oneshot": {"holders": 3, "corrupt_holders": 1}}"#),
        3 => config(r#"{"masks": {"corrupt": 0.0, "dropouts": 0.0}}"#),
        4 => config(r#"{"oneshot": {"holders": 3, "corrupt_holders": 1}}"#).replace(none, private),
        _ => config("\"plain\"").replace(r#"{"mlp": [3, 2]}"#, r#"{"layers": {"input": [1, 4, 4], "layers": [{"conv": {"channels": 2, "kernel": 3, "padding": 1}}, "relu", {"max-pool": 2}, {"linear": 2}]}}"#),
    }
}

/// The text of a config: honest, or with other numbers, or another text.
fn text(input: &mut Input<'_>, honest: &str) -> String {
    match input.byte() % 4 {
        0 => honest.to_owned(),
        1 | 2 => String::from_utf8_lossy(&input.renumbered(honest.as_bytes())).into_owned(),
        _ => String::from_utf8_lossy(&input.mutated(honest.as_bytes())).into_owned(),
    }
}

/// What a party calculates from a server's config, before anything is signed.
fn config(input: &mut Input<'_>) {
    let honest = configs(input.byte());
    let Ok(config) = town::typed(&text(input, &honest)) else { return };
    if let Ok(experiment) = town::party(&config, SESSION) {
        drop(experiment.plan.digest());
        assert!(experiment.plan.clients <= 1 << 20 && experiment.plan.rounds <= 1 << 20);
    }
}

/// What the server of an input says, and what it hears.
#[derive(Default)]
struct Script {
    about: v1::HelloResponse,
    /// What is said on each connection.
    connections: VecDeque<Vec<Said>>,
    objects: BTreeMap<[u8; 32], Vec<Bytes>>,
    receipts: VecDeque<i32>,
    uploads: VecDeque<v1::UploadState>,
    calls: usize,
    /// SHA-256 of what was sent, by round and attempt.
    heard: BTreeMap<(u32, u32), BTreeSet<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

/// One thing that it says.
#[derive(Clone)]
enum Said {
    Event(Option<Event>),
    /// Waits for the party to send something, for so many milliseconds.
    Wait(u64),
    /// Ends the stream with an error.
    Error(i32),
}

#[derive(Clone, Default)]
struct Hostile {
    script: Arc<Mutex<Script>>,
    sent: Arc<Notify>,
}

impl Hostile {
    fn script(&self) -> MutexGuard<'_, Script> {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.calls += 1;
        if script.calls > CALLS {
            script.stop.store(true, Ordering::Relaxed);
        }
        script
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Federation for Hostile {
    type ListenStream = Answers<v1::Event>;
    type DownloadStream = Answers<v1::DownloadChunk>;

    async fn enrol(&self, _: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        Err(Status::unimplemented("nobody enrols"))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        Err(Status::unimplemented("nobody renews"))
    }

    async fn hello(&self, _: Request<v1::HelloRequest>) -> Result<Response<v1::HelloResponse>, Status> {
        Ok(Response::new(self.script().about.clone()))
    }

    async fn listen(&self, _: Request<v1::ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let said = self.script().connections.pop_front();
        let stop = Arc::clone(&self.script().stop);
        let (events, stream) = tokio::sync::mpsc::channel(4);
        let sent = Arc::clone(&self.sent);
        tokio::spawn(async move {
            for said in said.unwrap_or_default() {
                let event = match said {
                    Said::Event(event) => Ok(v1::Event { event }),
                    Said::Error(code) => Err(Status::new(code.into(), "hostile")),
                    Said::Wait(millis) => {
                        drop(tokio::time::timeout(Duration::from_millis(millis), sent.notified()).await);
                        continue;
                    }
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
            stop.store(true, Ordering::Relaxed);
            let reason = "that is all".to_owned();
            let finished = v1::Event { event: Some(Event::Finished(v1::Finished { rounds: 1, reason })) };
            drop(events.send(Ok(finished)).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::Receipt>, Status> {
        let mut script = self.script();
        let request = request.into_inner();
        let hash = match request.payload {
            Some(Payload::Frame(frame)) => Sha256::digest(&frame).to_vec(),
            Some(Payload::Object(object)) => object.id.to_vec(),
            None => Vec::new(),
        };
        script.heard.entry((request.round, request.attempt)).or_default().insert(hash);
        let status = script.receipts.pop_front().unwrap_or(1);
        drop(script);
        self.sent.notify_one();
        Ok(Response::new(v1::Receipt { status, reason: "a reason".to_owned() }))
    }

    async fn begin_upload(&self, _: Request<v1::Object>) -> Result<Response<v1::UploadState>, Status> {
        Ok(Response::new(self.script().uploads.pop_front().unwrap_or_default()))
    }

    async fn upload(&self, request: Request<Streaming<v1::UploadChunk>>) -> Result<Response<v1::UploadState>, Status> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.next().await {
            drop(chunk?);
        }
        let said = self.script().uploads.pop_front();
        Ok(Response::new(said.unwrap_or(v1::UploadState { offset: 0, complete: true })))
    }

    async fn download(&self, request: Request<v1::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let id = wire::fixed(&request.get_ref().id).unwrap_or_default();
        let chunks = self.script().objects.get(&id).cloned();
        let chunks = chunks.ok_or_else(|| Status::not_found("no object"))?;
        let chunks = chunks.into_iter().map(|bytes| Ok(v1::DownloadChunk { bytes }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

struct World {
    town: Town,
    hostile: Hostile,
    port: u16,
    server: PartyKeys,
    /// Folders of a client and of a holder, as they are before they take part.
    parties: [(Role, PathBuf); 2],
    roster: Parties,
    data: Arc<Split>,
    played: u64,
    outcome: String,
    /// How long it waits for an answer, milliseconds.
    patience: u64,
}

impl World {
    fn new() -> Self {
        let town = Town::new();
        let server = PartyKeys::open(&town.path("server")).unwrap();
        let parties = [Role::Client(0), Role::Holder(1)]
            .map(|role| (role, town.party(&role.to_string().replace(':', "-"), role)));
        let own = parties.each_ref().map(|(_, folder)| PartyKeys::open(folder).unwrap());
        let fresh = |name: &str| PartyKeys::create(&town.path(name)).unwrap();
        let mut clients = vec![Key(own[0].public())];
        clients.extend((1..CLIENTS).map(|n| Key(fresh(&format!("other-{n}")).public())));
        let holder = |keys: &PartyKeys| Holder {
            identity: Key(keys.public()),
            channel: Key(channel_key(keys.secret()).public()),
        };
        let holders = vec![holder(&own[1]), holder(&fresh("h2")), holder(&fresh("h3"))];
        let hostile = Hostile::default();
        let port = RUNTIME.block_on(serve(&town, hostile.clone()));
        let train = Dataset {
            name: "four".to_owned(),
            features: Features::Floats((0..12).map(|x| x as f32).collect()),
            mean: 0.0,
            std: 1.0,
            labels: vec![0, 1, 0, 1],
            dim: 3,
            classes: 2,
            natural_ids: None,
            class_names: None,
        };
        let data = Arc::new(Split { train, test: Dataset::empty() });
        Self {
            town,
            hostile,
            port,
            server,
            parties,
            roster: Parties { clients, holders },
            data,
            played: 0,
            outcome: String::new(),
            patience: 40,
        }
    }

    fn play(&mut self, input: &mut Input<'_>) {
        self.played += 1;
        let honest = configs(input.byte());
        let (who, policy) = (input.byte(), input.byte());
        let (role, template) = &self.parties[usize::from(who % 2)];
        let folder = self.town.path(&format!("played-{}", self.played));
        std::fs::create_dir(&folder).unwrap();
        for file in std::fs::read_dir(template).unwrap().flatten() {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let forbidden = policy % 4 == 3;
        let policy = Policy {
            protocols: vec![ProtocolName::Plain, ProtocolName::Masks, ProtocolName::Oneshot],
            mechanisms: (policy % 4 != 2).then(|| {
                use veilsum::config::MechanismName::{None, Quantized, Skellam, Smm};
                vec![None, Quantized, Skellam, Smm]
            }),
            min_cohort: 1,
            max_epsilon: 1e300,
            max_delta: 0.5,
            authority: forbidden.then_some(Fingerprint([9; 32])),
            ..Policy::default()
        };
        let config = text(input, &honest);
        let mut signed = false;
        let joins = 1 + input.byte() % 2;
        self.write(input, &config, &mut signed);
        let stop = Arc::new(AtomicBool::new(false));
        let options = JoinOptions {
            address: Address::parse(&format!("https://localhost:{}", self.port)).unwrap(),
            name: "a party".to_owned(),
            data: if matches!(role, Role::Client(_)) {
                LocalData::Own(Arc::clone(&self.data))
            } else {
                LocalData::None
            },
            policy: Arc::new(policy),
            seed: None,
            trainings: 1,
        };
        for _ in 0..joins {
            stop.store(false, Ordering::Relaxed);
            self.hostile.script().stop = Arc::clone(&stop);
            let outcomes = join(&options, std::slice::from_ref(&folder), &stop).unwrap();
            self.outcome = format!("{:?}", outcomes[0]);
            if let Err(veilsum::net::NetError::Io { source, .. }) = &outcomes[0] {
                // A panic in a task.
                assert!(!source.to_string().contains("panicked"), "{source}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let script = self.hostile.script();
        assert!(script.heard.is_empty() || signed && !forbidden, "sent without a plan, or against the policy");
        let several = !config.contains("masks");
        assert!(!several || script.heard.values().all(|frames| frames.len() <= 1), "two vectors under one number");
    }

    /// Writes what the server says.
    fn write(&self, input: &mut Input<'_>, config: &str, signed: &mut bool) {
        let experiment = town::typed(config).ok().and_then(|config| town::party(&config, SESSION).ok());
        let digest = experiment.as_ref().and_then(|experiment| experiment.plan.digest().ok()).unwrap_or_default();
        let dim = experiment.as_ref().map_or(0, |experiment| experiment.plan.dim.min(1 << 16));
        let mut script = Script {
            about: v1::HelloResponse {
                version: wire::VERSION,
                software: "hostile".to_owned(),
                session: SESSION.to_vec().into(),
                config: config.to_owned(),
                plan_digest: digest.to_vec().into(),
                deal: vec![1; 32].into(),
                round: 0,
                rounds: 1,
            },
            ..Script::default()
        };
        let lies = input.byte();
        if lies >= 240 {
            match lies % 4 {
                0 => script.about.version = input.number() as u32,
                1 => script.about.session = input.bytes(20).to_vec().into(),
                2 => script.about.plan_digest = input.bytes(40).to_vec().into(),
                _ => script.about.deal = input.bytes(40).to_vec().into(),
            }
        }
        let (model, roster) = (plan::weight_bytes(&vec![0.5; dim]), self.roster.to_bytes());
        let mut events = Vec::new();
        while !input.is_empty() && events.len() < 12 {
            let event = input.byte() % 10;
            let (round, attempt) = (u32::from(input.byte() % 4), u32::from(input.byte() % 2));
            let said = match event {
                0..=2 => {
                    let plan = self.plan(input, event, (round, attempt), digest, (&model, &roster), &mut script);
                    let by_server = plan::verify(&self.server.public(), &SESSION, &plan.body, &plan.signature).is_ok();
                    *signed |= by_server;
                    Said::Event(Some(Event::Plan(plan)))
                }
                3 | 4 => {
                    let announce =
                        experiment.as_ref().and_then(|e| self.announcement(e, round, attempt)).unwrap_or_default();
                    let frame = if event == 3 { announce } else { input.mutated(&announce) };
                    let index = input.number();
                    Said::Event(Some(Event::Message(v1::ServerMessage { round, attempt, index, frame: frame.into() })))
                }
                5 => Said::Event(Some(Event::End(v1::RoundEnd { round, attempt, released: input.byte() % 2 == 1 }))),
                6 => {
                    script.connections.push_back(std::mem::take(&mut events));
                    Said::Error(i32::from(input.byte() % 17))
                }
                7 | 8 => Said::Wait(self.patience),
                _ => Said::Event(None),
            };
            events.push(said);
        }
        script.connections.push_back(events);
        for _ in 0..input.byte() % 3 {
            script.receipts.push_back(match input.byte() {
                few @ 0..240 => i32::from(few % 5),
                _ => input.number() as i32,
            });
            script.uploads.push_back(v1::UploadState { offset: input.number(), complete: input.byte() % 2 == 1 });
        }
        *self.hostile.script() = script;
    }

    /// What an honest server says to its clients first.
    fn announcement(&self, experiment: &Experiment, round: u32, attempt: u32) -> Option<Vec<u8>> {
        let plan = &experiment.plan;
        let weights = vec![0.5; plan.dim.min(1 << 16)];
        let task = notice(round, attempt).task(plan, &self.roster.directory().ok()?, weights).ok()?;
        let mut server: Box<dyn Party> = match &task.protocol {
            RoundProtocol::Oneshot(session) => Box::new(OneshotServer::new(session, Arc::new(Scalar))),
            RoundProtocol::Masks(session) => Box::new(MasksServer::new(session, Arc::new(Scalar))),
            _ => Box::new(PlainServer::new(task.id, &task.cohort, task.shape, 1, None, Arc::new(Scalar)).ok()?),
        };
        std::iter::from_fn(|| server.poll_transmit()).find(|t| t.to == PartyId::Client(0)).map(|t| t.frame)
    }

    /// A plan: honest, with other numbers or another text, signed by the server or by nobody; and the objects that it names.
    fn plan(
        &self,
        input: &mut Input<'_>,
        how: u8,
        (round, attempt): (u32, u32),
        digest: [u8; 32],
        (model, roster): (&[u8], &[u8]),
        script: &mut Script,
    ) -> v1::SignedPlan {
        let lies = input.byte();
        let mut object = |honest: &[u8], lie: bool, input: &mut Input<'_>| {
            let bytes = if lie { input.mutated(honest) } else { honest.to_vec() };
            let reference = ObjectRef { id: Sha256::digest(&bytes).into(), len: bytes.len() as u64 };
            let sent = if lie && input.byte() < 64 { input.mutated(&bytes) } else { bytes };
            let size = 1 + usize::from(input.byte()) * 16;
            let chunks = sent.chunks(size).map(|chunk| Bytes::from(chunk.to_vec())).collect();
            script.objects.insert(reference.id, chunks);
            reference
        };
        let (model, parties) = (object(model, lies & 1 == 1, input), object(roster, lies & 2 == 2, input));
        let notice = Notice { input: [lies >> 4; 32], ..notice(round, attempt) };
        let body = serde_json::to_vec(&RoundPlan { session: SESSION, plan: digest, notice, model, parties }).unwrap();
        let body = match (how, lies & 4) {
            (0, 0) => body,
            (1, _) | (0, _) => input.renumbered(&body),
            _ => input.mutated(&body),
        };
        let mut signature = plan::sign(&self.server.identity(), &SESSION, &body).to_vec();
        if lies & 8 == 8 {
            signature = input.mutated(&signature);
        }
        v1::SignedPlan { body: body.into(), signature: signature.into() }
    }
}

/// A round of everybody.
fn notice(round: u32, attempt: u32) -> Notice {
    Notice {
        round,
        attempt,
        group: 0,
        cohort: (0..CLIENTS).collect(),
        clip: None,
        signs: [1; 32],
        graph: [2; 32],
        compression: [3; 32],
        patience: 1000,
        input: [0; 32],
    }
}

/// Serves the hostile service at a port of this machine.
async fn serve(town: &Town, hostile: Hostile) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, _) = tls::server_config(&town.path("server")).unwrap();
    let run = Run {
        name: String::new(),
        version: String::new(),
        session: String::new(),
        rounds: 1,
        model: String::new(),
        parameters: 1,
    };
    let privacy = Privacy { mechanism: String::new(), protocol: String::new(), guarantee: None };
    let board = Arc::new(Board::new(run, privacy, now()));
    let connections = listen::accept(listener, config, listen::Room { all: 100, each: 100 }, board).await;
    let service = FederationServer::new(hostile);
    tokio::spawn(async move {
        let served =
            Transport::builder().add_service(service).serve_with_incoming(ReceiverStream::new(connections)).await;
        drop(served);
    });
    port
}
