//! Bytes from outside that are no call: keys, plans, policies, files of a store, answers of other programs and services.
//!
//! Nothing may panic, hang, or allocate by a length that was only announced; what is read and written again is the same.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tower::ServiceExt;

use super::input::Input;
use super::town::{self, Town};
use veilsum::config::build::Experiment;
use veilsum::fl::checkpoint::Checkpoint;
use veilsum::net::client::Address;
use veilsum::net::external::{ExternalTrainer, Job, Limits};
use veilsum::net::keys::{AuthorityCertificate, PartyKeys, Peer, Role, Token, TokenRole, request_key};
use veilsum::net::objects::Objects;
use veilsum::net::objects::s3::S3Config;
use veilsum::net::plan::{self, Holder, Key, ObjectRef, Parties, RoundPlan};
use veilsum::net::policy::Policy;
use veilsum::net::status::board::Board;
use veilsum::net::status::{Privacy, Run};
use veilsum::net::store::{AttemptState, EntryBody, NewAttempt, NewEntry, NewParty, Payload, SqliteStore, Store};
use veilsum::net::wire::v1;
use veilsum::net::{backup, now};
use veilsum::secagg::frame;

/// What every input is played against.
struct World {
    town: Town,
    experiment: Experiment,
    plan: Vec<u8>,
    parties: Vec<u8>,
    token: String,
    /// Files by the name of the parser that reads them.
    certificate: String,
    request: String,
    identity: String,
    store: Vec<u8>,
    board: Arc<Board>,
    s3: (String, Arc<Mutex<Vec<u8>>>),
}

/// One at a time: inputs share files.
static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new()));

/// Kinds of inputs, chosen by the first byte.
pub const KINDS: u8 = 14;

/// Honest inputs of every kind: what is there, unchanged, and with a number changed.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..KINDS {
        for (which, variant) in [(0, 1), (1, 1), (2, 1), (3, 1), (128, 1), (0, 2), (1, 2)] {
            // Kinds that choose among files take a byte for it, others take the next one.
            seeds.push(vec![kind, which, variant, 0, 0, 0]);
            seeds.push(vec![kind, variant, 0, 0, 0]);
        }
    }
    let receipt = v1::Receipt { status: 1, reason: "r".to_owned() }.encode_to_vec();
    let plan = v1::SignedPlan { body: vec![1; 9].into(), signature: vec![2; 64].into() };
    let event = v1::Event { event: Some(v1::event::Event::Plan(plan)) }.encode_to_vec();
    let enrol = v1::EnrolRequest { version: 1, token: "t".to_owned(), proof: vec![3; 64].into(), ..Default::default() };
    seeds.extend([receipt, event, enrol.encode_to_vec()].map(|message| [vec![0], message].concat()));
    let page = |path: &str| [&[7, 0, path.len() as u8, 0], path.as_bytes(), &[0, 0, 1, 0, b'x', 1, 0, b'y']].concat();
    seeds.extend(["/", "/rounds", "/rounds/1", "/status.json", "/metrics", "/healthz"].map(page));
    seeds
        .extend(["https://localhost:7443", "https://[::1]", "veilsum:client:1"].map(|a| [&[6], a.as_bytes()].concat()));
    seeds
}

/// Plays an input.
///
/// # Panics
/// Where a promise is broken: a finding.
pub fn play(data: &[u8]) {
    let mut input = Input(data);
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    match input.byte() % KINDS {
        0 => messages(input.rest()),
        1 => round_plan(&world, &mut input),
        2 => roster(&world, &mut input),
        3 => token(&world, &mut input),
        4 => certificates(&world, &mut input),
        5 => policy(&mut input),
        6 => addresses(input.rest()),
        7 => pages(&world, &mut input),
        8 => frames(input.rest()),
        9 => folder(&world, &mut input),
        10 => store(&world, &mut input),
        11 => bucket(&world, &mut input),
        12 => trainer(&world, &mut input),
        _ => copy(&world, &mut input),
    }
}

/// A message that is read is written and read again alike.
fn message<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        let again = M::decode(&message.encode_to_vec()[..]);
        assert_eq!(again.as_ref(), Ok(&message));
    }
}

fn messages(bytes: &[u8]) {
    message::<v1::EnrolRequest>(bytes);
    message::<v1::EnrolResponse>(bytes);
    message::<v1::HelloRequest>(bytes);
    message::<v1::HelloResponse>(bytes);
    message::<v1::ListenRequest>(bytes);
    message::<v1::Event>(bytes);
    message::<v1::SubmitRequest>(bytes);
    message::<v1::Receipt>(bytes);
    message::<v1::Object>(bytes);
    message::<v1::UploadChunk>(bytes);
    message::<v1::UploadState>(bytes);
    message::<v1::DownloadRequest>(bytes);
    message::<v1::DownloadChunk>(bytes);
}

/// The input itself, or what is there with some of it changed.
fn variant(input: &mut Input<'_>, honest: &[u8]) -> Vec<u8> {
    match input.byte() % 3 {
        0 => input.rest().to_vec(),
        1 => input.mutated(honest),
        _ => input.renumbered(honest),
    }
}

fn round_plan(world: &World, input: &mut Input<'_>) {
    let bytes = variant(input, &world.plan);
    let verified = plan::verify(&[7; 32], &[0; 16], &bytes, &bytes[..bytes.len().min(64)]);
    assert!(verified.is_err(), "a signature of nobody");
    let Ok(read) = serde_json::from_slice::<RoundPlan>(&bytes) else { return };
    let text = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<RoundPlan>(&text).unwrap(), read);
    let parties: Parties = serde_json::from_slice(&world.parties).unwrap();
    let weights = vec![0.0; world.experiment.plan.dim];
    if let Ok(task) = read.notice.task(&world.experiment.plan, &parties.directory().unwrap(), weights) {
        assert!(task.cohort.iter().all(|&client| client < town::CLIENTS));
        assert_eq!((task.id.round, task.id.attempt), (read.notice.round, read.notice.attempt));
    }
}

fn roster(world: &World, input: &mut Input<'_>) {
    let bytes = variant(input, &world.parties);
    let Ok(parties) = serde_json::from_slice::<Parties>(&bytes) else { return };
    assert_eq!(serde_json::from_slice::<Parties>(&parties.to_bytes()).unwrap(), parties);
    drop(parties.directory());
}

fn token(world: &World, input: &mut Input<'_>) {
    let text = String::from_utf8_lossy(&variant(input, world.token.as_bytes())).into_owned();
    drop(Token::peek(&text));
    if text != world.token {
        assert!(world.town.authority.verify_token(&text, 0).is_err(), "a token that nobody has signed");
    }
}

fn certificates(world: &World, input: &mut Input<'_>) {
    let which = input.byte();
    let honest = match which % 3 {
        0 => world.certificate.clone(),
        1 => world.town.authority.pem(),
        _ => world.request.clone(),
    };
    let bytes = if which < 128 {
        variant(input, honest.as_bytes())
    } else {
        // Behind the text: DER with its bytes changed.
        let own = AuthorityCertificate::from_pem(&world.town.authority.pem()).unwrap().der().to_vec();
        variant(input, &own)
    };
    let text = String::from_utf8_lossy(&bytes);
    drop((Peer::from_pem(&text), AuthorityCertificate::from_pem(&text), request_key(&text)));
    let own = AuthorityCertificate::from_pem(&world.town.authority.pem()).unwrap();
    drop((Peer::from_der(&bytes), AuthorityCertificate::from_der(&bytes), own.check(&bytes)));
    drop(world.town.authority.issue_request(Role::Client(0), &text, &[], 1));
}

fn policy(input: &mut Input<'_>) {
    let honest = serde_json::to_vec(&Policy::default()).unwrap();
    let text = String::from_utf8_lossy(&variant(input, &honest)).into_owned();
    if let Ok(policy) = Policy::from_json(&text, Path::new("policy.json")) {
        let again = serde_json::to_string(&policy).unwrap();
        assert_eq!(Policy::from_json(&again, Path::new("policy.json")).unwrap(), policy);
    }
}

fn addresses(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop(Address::parse(&text));
    drop(veilsum::net::server::ServeOptions {
        state: text.as_ref().into(),
        keys: text.as_ref().into(),
        authority: None,
        listen: ([127, 0, 0, 1], 0).into(),
        http: None,
        store: None,
        objects: None,
    });
    if let Ok(Some(role)) = Role::from_uri(&text) {
        assert_eq!(Role::from_uri(&role.uri()), Ok(Some(role)));
    }
    if let Ok(id) = text.parse::<veilsum::net::objects::ObjectId>() {
        assert_eq!(id.to_string().parse::<veilsum::net::objects::ObjectId>().ok(), Some(id));
    }
}

/// Every page answers every request; only pages that are there are found.
fn pages(world: &World, input: &mut Input<'_>) {
    let (method, path, name) = (input.byte(), input.bytes(200), input.bytes(100));
    let method = match method % 4 {
        0 | 1 => "GET".as_bytes(),
        2 => "HEAD".as_bytes(),
        _ => name,
    };
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header(input.bytes(50), input.bytes(200))
        .body(axum::body::Body::from(input.rest().to_vec()));
    let Ok(request) = request else { return };
    let router = veilsum::net::http::router(Arc::clone(&world.board), || true);
    let answer = runtime().block_on(router.oneshot(request)).unwrap();
    assert!(answer.status().as_u16() < 500, "{}", answer.status());
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    &RUNTIME
}

fn frames(bytes: &[u8]) {
    let _session = frame::session(bytes);
    if let Ok(checkpoint) = Checkpoint::from_bytes(bytes) {
        assert_eq!(checkpoint.to_bytes().unwrap(), bytes);
    }
    if let Some(weights) = plan::weights(bytes) {
        assert_eq!(plan::weight_bytes(&weights), bytes);
    }
}

/// The folder of a party, one of whose files is damaged.
fn folder(world: &World, input: &mut Input<'_>) {
    let folder = world.town.path("damaged");
    let which = input.byte() % 4;
    let (name, honest) = match which {
        0 => ("identity.key", world.identity.clone()),
        1 => ("certificate.pem", world.certificate.clone()),
        2 => ("ca.pem", world.town.authority.pem()),
        _ => ("secret.hex", "00".repeat(32)),
    };
    std::fs::write(folder.join(name), variant(input, honest.as_bytes())).unwrap();
    if let Ok(keys) = PartyKeys::open(&folder) {
        drop(veilsum::net::tls::client_config(&folder));
        assert!(keys.certificate().is_none_or(|peer| peer.identity == keys.public()));
    }
    std::fs::copy(world.town.path("holder").join(name), folder.join(name)).unwrap();
}

/// The file of a database with bytes changed: whatever it says is a value or an error.
fn store(world: &World, input: &mut Input<'_>) {
    let path = world.town.path("damaged.sqlite");
    std::fs::write(&path, damaged(input, &world.store)).unwrap();
    look(&path);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        drop(std::fs::remove_file(world.town.path(&format!("damaged.sqlite{suffix}"))));
    }
}

/// Bytes overwritten, as a disk does it.
fn damaged(input: &mut Input<'_>, honest: &[u8]) -> Vec<u8> {
    let mut bytes = honest.to_vec();
    while !input.is_empty() {
        let at = (usize::from(input.short()) << 3 | usize::from(input.byte() & 7)) % bytes.len();
        let new = input.bytes(32);
        let end = (at + new.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&new[..end - at]);
    }
    bytes
}

fn look(path: &Path) {
    let Ok(store) = SqliteStore::open(path) else { return };
    drop((store.attempts(), store.parties(), store.rounds(), store.references(), store.latest_checkpoint()));
    drop((store.attempt_plan(1, 0), store.entries(1, 0), store.meta("session"), store.lease_holder(), store.check()));
    drop(store.lease("somebody", 30, 1));
    let entry = NewEntry { id: [9; 32], body: EntryBody::Clock { millis: 2 } };
    let appended = store.append(1, 0, &[entry]);
    if appended.is_ok() {
        assert!(store.has(1, 0, &[9; 32]).unwrap_or(true), "what was stored is gone");
    }
    drop((store.mark(1, 0, AttemptState::Charged), store.drop_payloads(1), store.revoke(Role::Client(0))));
}

/// What an S3 service answers.
fn bucket(world: &World, input: &mut Input<'_>) {
    let honest = b"<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>p/</Prefix><KeyCount>1</KeyCount>\
        <MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated><Contents><Key>p/0000000000000000000000000000000000000000000000000000000000000000</Key>\
        <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>\
        </ListBucketResult>";
    let status = ["200 OK", "200 OK", "404 Not Found", "400 Bad Request"][usize::from(input.byte() % 4)];
    let body = variant(input, honest);
    let answer = [format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    *world.s3.1.lock().unwrap() = answer;
    let config = S3Config {
        endpoint: world.s3.0.clone(),
        region: "r".to_owned(),
        bucket: "b".to_owned(),
        prefix: "p".to_owned(),
        credentials: rusty_credentials(),
        virtual_host: false,
        roots: None,
    };
    if let Ok(objects) = Objects::s3(&config, &world.town.path("incoming")) {
        drop(objects.list());
    }
}

/// Answers every request with the bytes that are set.
fn answering(bytes: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            drop(lines);
            drop(stream.write_all(&bytes.lock().unwrap()));
            drop(stream.shutdown(std::net::Shutdown::Write));
            drop((&stream).take(1 << 16).read_to_end(&mut Vec::new()));
        }
    });
    url
}

/// What an external trainer writes: first what it says when it is ready, then its delta.
fn trainer(world: &World, input: &mut Input<'_>) {
    let ready = b"{\"veilsum\":1,\"kind\":\"ready\",\"samples\":3,\"bytes\":0}\n".to_vec();
    let header = input.byte();
    let mut said = if header.is_multiple_of(2) { ready } else { input.mutated(&ready) };
    let file = b"{\"layers.0.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[0,24]},\
        \"layers.0.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,32]}}";
    let file = [&(file.len() as u64).to_le_bytes()[..], file, &[0; 32]].concat();
    let file = if header & 2 == 0 { input.mutated(&file) } else { file };
    let update = format!("{{\"veilsum\":1,\"kind\":\"update\",\"round\":4,\"samples\":3,\"bytes\":{}}}\n", file.len());
    said.extend(if header & 4 == 0 { update.into_bytes() } else { input.renumbered(update.as_bytes()) });
    said.extend(file);
    let path = world.town.path("said");
    std::fs::write(&path, &said).unwrap();
    let command = ["cat".to_owned(), path.display().to_string()];
    let (Some(model), veilsum::config::build::LocalWork::Delta(local)) =
        (&world.experiment.model, world.experiment.work)
    else {
        panic!("a config of fed_avg");
    };
    let patience = Duration::from_secs(20);
    let limits = Limits { start: patience, round: patience, stop: Duration::from_millis(200) };
    let job = Job { model: model.clone(), local, seed: 1 };
    if let Ok(mut trainer) = ExternalTrainer::start(&command, &job, limits)
        && let Ok(delta) = trainer.delta(4, &[0.0; 8])
    {
        assert_eq!(delta.len(), 8);
    }
}

/// A backup whose manifest or store is damaged.
fn copy(world: &World, input: &mut Input<'_>) {
    let folder = world.town.path("backup");
    let (name, honest) = match input.byte() % 2 {
        0 => ("manifest.json", std::fs::read(folder.join("manifest.json")).unwrap()),
        _ => ("store.db", std::fs::read(folder.join("store.db")).unwrap()),
    };
    let bytes = if name == "store.db" { damaged(input, &honest) } else { variant(input, &honest) };
    std::fs::write(folder.join(name), &bytes).unwrap();
    let verified = backup::verify_backup(&folder);
    if name == "store.db" && bytes != honest {
        assert!(verified.is_err() || verified.is_ok_and(|(_, findings)| !findings.is_empty()), "damage is not seen");
    }
    std::fs::write(folder.join(name), honest).unwrap();
}

/// Credentials of nobody.
fn rusty_credentials() -> rusty_s3::Credentials {
    rusty_s3::Credentials::new("key", "secret")
}

impl World {
    fn new() -> Self {
        let town = Town::new();
        let holder = town.party("holder", Role::Holder(1));
        let keys = PartyKeys::open(&holder).unwrap();
        let text = |name: &str| std::fs::read_to_string(holder.join(name)).unwrap();
        let damaged = town.party("damaged", Role::Holder(1));
        for name in ["identity.key", "certificate.pem", "ca.pem", "secret.hex"] {
            std::fs::copy(holder.join(name), damaged.join(name)).unwrap();
        }
        let experiment = town::party(&town::typed(&town::config("\"plain\"")).unwrap(), [3; 16]).unwrap();
        let roster = Parties {
            clients: (0..town::CLIENTS)
                .map(|n| Key(PartyKeys::create(&town.path(&format!("c{n}"))).unwrap().public()))
                .collect(),
            holders: vec![Holder { identity: Key(keys.public()), channel: Key([9; 32]) }],
        };
        let object = ObjectRef { id: [1; 32], len: 32 };
        let notice = veilsum::fl::notice::Notice {
            round: 1,
            attempt: 0,
            group: 0,
            cohort: (0..town::CLIENTS).collect(),
            clip: None,
            signs: [1; 32],
            graph: [2; 32],
            compression: [3; 32],
            patience: 1000,
            input: [4; 32],
        };
        let round_plan = RoundPlan { session: [3; 16], plan: [5; 32], notice, model: object, parties: object };
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (certificate, identity) = (text("certificate.pem"), text("identity.key"));
        let token = town.authority.token(TokenRole::Client(None), u64::MAX >> 1).unwrap().to_string();
        let store = stored(&town);
        Self {
            experiment,
            plan: serde_json::to_vec(&round_plan).unwrap(),
            parties: roster.to_bytes(),
            token,
            certificate,
            request: keys.request().unwrap(),
            identity,
            store,
            board: Arc::new(board()),
            s3: (answering(Arc::clone(&bytes)), bytes),
            town,
        }
    }
}

/// A board with parties whose names are somebody else's.
fn board() -> Board {
    let run = Run {
        name: "a run".to_owned(),
        version: "0".to_owned(),
        session: "03".repeat(16),
        rounds: 9,
        model: "3-2".to_owned(),
        parameters: 8,
    };
    let privacy = Privacy { mechanism: "none".to_owned(), protocol: "plain".to_owned(), guarantee: None };
    let board = Board::new(run, privacy, now());
    board.enrolled(Role::Client(0), "<script>\u{202e}\n");
    board
}

/// The file of a store with something of everything, and a backup of it.
fn stored(town: &Town) -> Vec<u8> {
    let path = town.path("honest.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.create_meta("session", &[3; 16]).unwrap();
    for number in 0..3 {
        let name = format!("party {number}");
        let party = NewParty {
            role: Role::Client(number),
            identity: [number as u8 + 1; 32],
            channel: None,
            samples: None,
            name,
        };
        store.add_party(&party).unwrap();
    }
    store.begin(&NewAttempt { round: 1, attempt: 0, input: [4; 32], plan: b"[]".to_vec() }).unwrap();
    let body = EntryBody::Frame { from: Role::Client(0), payload: Payload::Inline(vec![1; 100]) };
    store.append(1, 0, &[NewEntry { id: [8; 32], body }]).unwrap();
    let objects = Objects::folder(&town.path("objects")).unwrap();
    backup::backup(&store, &objects, &town.path("backup")).unwrap();
    store.into_one_file().unwrap();
    std::fs::read(path).unwrap()
}
