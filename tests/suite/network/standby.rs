//! Several coordinators on one store: one works, the others stand by, and whatever happens to it the run is that of the simulation.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use veilsum::fl::replay::Played;
use veilsum::net::client::Left;
use veilsum::net::keys::{PartyKeys, Role};
use veilsum::net::store::{self, NewParty};

use super::runs::{same_bits, simulated, until};
use super::{Parties, Town, joining, private};

#[path = "../../../src/net/store/postgres/tests/private.rs"]
mod postgres;

#[path = "../../../src/net/objects/s3/mock.rs"]
#[expect(dead_code, reason = "nothing fails on demand here")]
mod bucket;

/// Whether a database answers.
fn answers(url: &str) -> bool {
    store::open(url).is_ok()
}

/// Phases that wait for everybody, so that a round is in its middle for as long as somebody is away.
const PATIENT: &str = r#", "federation": {"phase_seconds": 90, "gather_seconds": 0.2}"#;

/// A server that is a process of its own.
struct Process {
    child: Child,
    calls: SocketAddr,
    http: SocketAddr,
    said: Arc<Mutex<String>>,
    log: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts one with these arguments behind its config, and variables.
    fn serve(config: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
        command.arg("serve").arg(config).args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--lease", "3"]);
        command.args(arguments).envs(environment.iter().cloned());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let [mut calls, mut http] = [None, None];
        while http.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {}", said.lock().unwrap()));
            let after = |words: &str| line.strip_prefix(words).map(|address| address.parse().unwrap());
            calls = calls.or(after("parties call https://"));
            http = after("dashboard: http://");
            writeln!(said.lock().unwrap(), "{line}").unwrap();
        }
        let log = Arc::clone(&said);
        let log = std::thread::spawn(move || lines.for_each(|line| writeln!(log.lock().unwrap(), "{line}").unwrap()));
        Self { child, calls: calls.unwrap(), http: http.unwrap(), said, log: Some(log) }
    }

    /// What it answers, and with which code; 0 where nothing comes.
    fn ask(http: SocketAddr, path: &str) -> (u16, String) {
        let request = ureq::get(format!("http://{http}{path}")).config().http_status_as_error(false);
        match request.timeout_global(Some(Duration::from_secs(1))).build().call() {
            Ok(mut answer) => (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&Self::ask(self.http, "/status.json").1).unwrap_or_default()
    }

    /// Whether it stands by, and says so wherever it is asked.
    fn stands_by(&self) -> bool {
        let (code, health) = Self::ask(self.http, "/healthz");
        (code, self.status()["state"].as_str()) == (503, Some("standing-by"))
            && health.starts_with("not ready: standing by: ")
            && Self::ask(self.http, "/livez").0 == 200
    }

    fn coordinates(&self) -> bool {
        Self::ask(self.http, "/healthz").0 == 200
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Sends a signal.
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended well.
    fn ended(mut self) -> String {
        until("the end of a server", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {}", self.said());
        self.said()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What stands before several servers: passes every connection to one that is healthy, or to the next one where none is.
struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>>,
}

impl Balancer {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let servers: Arc<Mutex<Vec<(SocketAddr, SocketAddr)>>> = Arc::default();
        let known = Arc::clone(&servers);
        std::thread::spawn(move || {
            for (turn, caller) in listener.incoming().flatten().enumerate() {
                let mut servers = known.lock().unwrap().clone();
                let first = turn % servers.len().max(1);
                servers.rotate_left(first);
                std::thread::spawn(move || {
                    // Every fourth connection is passed on whoever stands there: callers have to bear that.
                    let healthy = servers.iter().find(|(_, http)| Process::ask(*http, "/healthz").0 == 200);
                    let server = if turn % 4 > 0 { healthy.or(servers.first()) } else { servers.first() };
                    let Some(Ok(server)) = server.map(|(calls, _)| TcpStream::connect(calls)) else { return };
                    let (from, to) = (caller.try_clone().unwrap(), server.try_clone().unwrap());
                    std::thread::spawn(move || pass(from, to));
                    pass(server, caller);
                });
            }
        });
        Self { address, servers }
    }

    /// These from now on.
    fn over(&self, servers: &[&Process]) {
        *self.servers.lock().unwrap() = servers.iter().map(|server| (server.calls, server.http)).collect();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

/// A federation whose server is not started yet.
struct Stage {
    town: Town,
    config: String,
    file: PathBuf,
    balancer: Balancer,
    /// Where the objects are that all servers see, and what they need to know to get there.
    objects: String,
    environment: Vec<(&'static str, String)>,
}

impl Stage {
    fn new(rounds: u32) -> Self {
        let town = Town::new();
        let (config, file) = (private(rounds, PATIENT), town.path("config.json"));
        std::fs::write(&file, &config).unwrap();
        let objects = town.path("objects").display().to_string();
        Self { town, config, file, balancer: Balancer::new(), objects, environment: Vec::new() }
    }

    /// The objects are in a bucket.
    fn with(bucket: &bucket::Mock) -> Self {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "the-key"),
            ("AWS_SECRET_ACCESS_KEY", "the-secret"),
            ("AWS_REGION", "test-1"),
            ("AWS_ENDPOINT_URL_S3", &bucket.url),
        ];
        let environment = variables.map(|(name, value)| (name, value.to_owned())).to_vec();
        Self { objects: "s3://bucket/one".to_owned(), environment, ..Self::new(2) }
    }

    /// A server of this federation, with its keys and a state folder.
    fn serve(&self, state: &str, more: &[&str]) -> Process {
        let (keys, state) = (self.town.folder.path().display().to_string(), self.town.path(state));
        Process::serve(
            &self.file,
            &[&["--keys", &keys, "--state", &state.display().to_string()], more].concat(),
            &self.environment,
        )
    }

    fn join(&self, folders: Vec<PathBuf>) -> Parties {
        Parties::join(joining(self.balancer.address.port(), Some(7)), folders)
    }

    /// Three clients that have their places, as a round needs it to begin, and are away.
    fn away(&self, store: &str) -> Vec<PathBuf> {
        let (store, folders) = (store::open(store).unwrap(), self.town.clients(9..12));
        for (number, folder) in (9..12).zip(&folders) {
            let identity = PartyKeys::open(folder).unwrap().public();
            let (role, name) = (Role::Client(number), String::new());
            store.add_party(&NewParty { role, identity, channel: None, samples: None, name }).unwrap();
        }
        folders
    }

    /// The nine other clients and the key holders; they have done their part of the first round where this returns.
    fn in_the_middle(&self, server: &Process) -> Parties {
        let steady = self.join([self.town.clients(0..9), self.town.holders(1..=3)].concat());
        until("nine updates", || {
            let status = server.status();
            status["state"] == "collecting" && status["progress"]["delivered"] == 9
        });
        steady
    }

    /// The model in a state folder is that of the simulation.
    fn is_that_of_the_simulation(&self, store: &str, states: &[&str]) {
        let (weights, replay) = simulated(&self.config, store);
        for state in states {
            let path = self.town.path(state).join("model.safetensors");
            same_bits(&veilsum::model::weights::load(&path).unwrap().weights, &weights);
        }
        // No attempt was begun twice.
        let released = |played: &Played| matches!(played, Played::Released { .. });
        assert!(replay.attempts.iter().all(|(_, attempt, played)| *attempt == 0 && released(played)), "{replay:?}");
    }
}

fn all_finished(parties: Parties) {
    for outcome in parties.outcomes() {
        assert!(matches!(outcome, Ok(Left::Finished(_))), "{outcome:?}");
    }
}

/// The first of two servers, each with a state folder of its own, is killed in the middle of a round; the second goes on there, and the
/// first stands by when it is back.
fn the_first_is_killed(stage: &Stage, store: &str) {
    let shared = ["--store", store, "--objects", &stage.objects];
    let away = stage.away(store);
    let first = stage.serve("first", &shared);
    let second = stage.serve("second", &shared);
    until("a server that stands by", || second.stands_by());
    until("word of it", || second.said().contains("standing by"));
    assert!(first.coordinates());
    stage.balancer.over(&[&first, &second]);
    let steady = stage.in_the_middle(&first);
    drop(first);
    until("a take-over", || second.coordinates());
    let back = stage.serve("first", &shared);
    stage.balancer.over(&[&back, &second]);
    let others = stage.join(away);
    all_finished(steady);
    all_finished(others);
    let said = second.ended();
    assert!(said.contains("taking over"), "{said}");
    // It finds the run finished, and has what a server has that finished it.
    assert!(back.ended().contains("standing by"));
    stage.is_that_of_the_simulation(store, &["first", "second"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command
        .args(["rounds", "verify"])
        .arg(stage.town.path("second"))
        .args(shared)
        .envs(stage.environment.iter().cloned());
    let verified = command.output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let ledgers = ["first", "second"].map(|state| charges(&stage.town.path(state).join("ledger.jsonl")));
    assert_eq!(ledgers[0], ledgers[1]);
    assert_eq!(ledgers[0].len(), 2);
}

/// The releases that a ledger has.
fn charges(ledger: &Path) -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_veilsum")).args(["ledger", "verify"]).arg(ledger).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(ledger).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "charge").map(|mut line| line["release"].take()).collect()
}

#[test]
fn a_server_that_is_killed_has_one_that_takes_over() {
    let stage = Stage::new(2);
    let store = stage.town.path("store.sqlite").display().to_string();
    the_first_is_killed(&stage, &store);
}

/// Servers on machines of their own have a bucket in common.
fn the_first_is_killed_beside_a_bucket(store: impl FnOnce(&Stage) -> String) {
    let bucket = bucket::Mock::start();
    let stage = Stage::with(&bucket);
    the_first_is_killed(&stage, &store(&stage));
    let state = bucket.state.lock().unwrap();
    let ours = |name: &&String| name.starts_with("one/");
    assert!(!state.objects.is_empty() && state.objects.keys().filter(ours).count() == state.objects.len());
    assert!(!stage.town.path("objects").exists(), "nothing lies where the objects of a folder would be");
}

#[test]
fn so_it_has_where_objects_are_in_a_bucket() {
    the_first_is_killed_beside_a_bucket(|stage| stage.town.path("store.sqlite").display().to_string());
}

#[test]
fn so_it_has_on_postgresql() {
    match postgres::Server::new(&[], 5432) {
        Ok(server) => the_first_is_killed_beside_a_bucket(|_| server.database("federation")),
        Err(why) => eprintln!("SKIPPED: no PostgreSQL: {why}"),
    }
}

/// Both have one state folder. The first is only stopped, so that it still has the ledger when the second takes over; it wakes, and stands
/// by until the second is drained.
#[test]
fn a_server_that_wakes_too_late_stands_by() {
    let stage = Stage::new(3);
    std::fs::create_dir(stage.town.path("state")).unwrap();
    let store = stage.town.path("state/federation.sqlite").display().to_string();
    let away = stage.away(&store);
    let first = stage.serve("state", &[]);
    let second = stage.serve("state", &[]);
    until("a server that stands by", || second.stands_by());
    stage.balancer.over(&[&first, &second]);
    let steady = stage.in_the_middle(&first);
    until("a take-over", || {
        first.signal("STOP");
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(15) && !second.coordinates() {
            std::thread::sleep(Duration::from_millis(50));
        }
        // It may have stopped in the middle of a write, which excludes all others.
        let over = second.coordinates();
        (!over).then(|| first.signal("CONT"));
        over
    });
    until("a ledger that is in use", || second.said().contains("waiting for it"));
    first.signal("CONT");
    until("a server that was taken over", || first.stands_by());
    until("the same round", || second.status()["state"] == "collecting");
    second.signal("TERM");
    let others = stage.join(away);
    assert!(second.ended().contains("drained after round 1"));
    all_finished(steady);
    all_finished(others);
    let said = first.ended();
    assert!(said.contains("taken over this federation") && said.contains("taking over"), "{said}");
    stage.is_that_of_the_simulation(&store, &["state"]);
    assert_eq!(charges(&stage.town.path("state/ledger.jsonl")).len(), 3);
}

/// Without a seed the run is one of its server's keys: others cannot stand by for it.
#[test]
fn a_server_with_other_keys_is_refused() {
    let stage = Stage::new(1);
    std::fs::write(&stage.file, stage.config.replace(r#""seed": 7, "#, "")).unwrap();
    let store = stage.town.path("store.sqlite").display().to_string();
    let first = stage.serve("first", &["--store", &store]);
    let other = stage.town.party("other", Role::Server);
    assert!(PartyKeys::open(&other).is_ok());
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.arg("serve").arg(&stage.file).args(["--store", &store, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let output = command.arg("--keys").arg(&other).arg("--state").arg(stage.town.path("second")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("belongs to another run"), "{said}");
    // One that stands by ends when it is told to.
    let second = stage.serve("third", &["--store", &store]);
    until("a server that stands by", || second.stands_by());
    second.signal("TERM");
    assert!(second.ended().contains("stood by until it was ended"));
    assert!(first.coordinates());
}
