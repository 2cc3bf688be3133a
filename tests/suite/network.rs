//! A federation over real sockets: server and clients in this process, each with keys, folders and a connection of its own.

mod generated;
mod hostile;
mod runs;
mod standby;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use veilsum::config::build::{Given, Seat, federate};
use veilsum::config::{Config, overrides};
use veilsum::data::{self, DataConfig};
use veilsum::net::NetError;
use veilsum::net::client::{Address, JoinOptions, Left, LocalData, join};
use veilsum::net::keys::{Authority, PartyKeys, Role};
use veilsum::net::policy::Policy;
use veilsum::net::server::{LEASE, ServeOptions, Served, serve};

/// An authority, a server's keys, and the folders of parties that have certificates.
struct Town {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Town {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test", 30).unwrap();
        let town = Self { folder, authority };
        town.party("server", Role::Server);
        town
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A party with a certificate.
    fn party(&self, name: &str, role: Role) -> PathBuf {
        let folder = self.path(name);
        let mut keys = PartyKeys::create(&folder).unwrap();
        let names = if role == Role::Server { vec!["localhost".to_owned()] } else { Vec::new() };
        let certificate = self.authority.issue(role, &keys.public(), &names, 10).unwrap();
        keys.install(&certificate, &self.authority.pem()).unwrap();
        folder
    }

    fn clients(&self, numbers: std::ops::Range<u64>) -> Vec<PathBuf> {
        numbers.map(|n| self.party(&format!("client-{n}"), Role::Client(n))).collect()
    }

    fn holders(&self, numbers: std::ops::RangeInclusive<u16>) -> Vec<PathBuf> {
        numbers.map(|n| self.party(&format!("holder-{n}"), Role::Holder(n))).collect()
    }

    /// Serves a config in a thread of its own.
    fn serve(&self, config: &str) -> Server {
        let config = typed(config);
        let experiment = federate(&config, Path::new("."), Given::default(), Seat::Server).unwrap();
        let options = ServeOptions {
            state: self.path("state"),
            keys: self.path("server"),
            authority: Some(self.path("ca")),
            listen: "127.0.0.1:0".parse().unwrap(),
            http: Some("127.0.0.1:0".parse().unwrap()),
            store: None,
            objects: None,
            lease: LEASE,
        };
        let federation = config.federation.clone().unwrap_or_default();
        let drain = Arc::new(AtomicBool::new(false));
        let (told, addresses) = mpsc::channel();
        let flag = Arc::clone(&drain);
        let thread = std::thread::spawn(move || {
            serve(experiment, federation, &options, &flag, |serving| {
                told.send((serving.address, serving.http.unwrap())).unwrap();
            })
        });
        match addresses.recv() {
            Ok((address, http)) => Server { address, http, drain, thread },
            Err(_) => panic!("{:?}", thread.join().unwrap().map(|served| served.ending)),
        }
    }
}

/// How parties take part that call this port.
fn joining(port: u16, seed: Option<u64>) -> JoinOptions {
    JoinOptions {
        address: Address::parse(&format!("https://localhost:{port}")).unwrap(),
        name: "a test".to_owned(),
        data: LocalData::Dealt(Arc::new(data::load(&DataConfig::named("digits"), Path::new("."), false).unwrap())),
        policy: Arc::new(Policy::default()),
        seed,
        trainings: 2,
    }
}

/// A server that runs.
struct Server {
    address: SocketAddr,
    http: SocketAddr,
    drain: Arc<AtomicBool>,
    thread: JoinHandle<Result<Served, NetError>>,
}

impl Server {
    fn options(&self, seed: Option<u64>) -> JoinOptions {
        joining(self.address.port(), seed)
    }

    /// What it has come to, once the run is over.
    fn served(self) -> Served {
        self.thread.join().unwrap().unwrap()
    }

    /// Ends it between two rounds.
    fn drained(self) -> Served {
        self.drain.store(true, Ordering::Relaxed);
        self.served()
    }

    fn page(&self, path: &str) -> String {
        ureq::get(format!("http://{}{path}", self.http)).call().unwrap().body_mut().read_to_string().unwrap()
    }
}

/// Parties that take part in a thread of their own.
struct Parties {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Result<Left, NetError>>>,
}

impl Parties {
    fn join(options: JoinOptions, folders: Vec<PathBuf>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || join(&options, &folders, &flag).unwrap());
        Self { stop, thread }
    }

    fn outcomes(self) -> Vec<Result<Left, NetError>> {
        self.thread.join().unwrap()
    }

    fn stopped(self) -> Vec<Result<Left, NetError>> {
        self.stop.store(true, Ordering::Relaxed);
        self.outcomes()
    }
}

fn typed(text: &str) -> Config {
    overrides::typed(&overrides::parse(text, "a test").unwrap(), "a test").unwrap()
}

/// Digits on 12 clients, everybody every round, of whom a third may vanish: `oneshot` and `smm`.
fn private(rounds: u32, more: &str) -> String {
    format!(
        r#"{{
            "name": "network", "seed": 7, "data": {{"name": "digits"}}, "partition": {{"scheme": "iid", "clients": 12}},
            "model": "digits_mlp", "algorithm": {{"name": "fed_avg", "learning_rate": 0.1}},
            "server": {{"optimizer": "sgd", "learning_rate": 1.0}}, "cohort": 12, "sampling": "all", "rounds": {rounds},
            "privacy": {{"mechanism": "smm", "noise": "per_client", "clip": 1.0, "bits": 16, "delta": 1e-5,
                        "target_epsilon": 8.0, "dropout": {{"tolerated": 0.34, "excess": "kept"}}}},
            "secagg": {{"oneshot": {{"holders": 3, "corrupt_holders": 1}}}},
            "evaluation": {{"every": 1}}, "train_on": "cpu", "backend": "simd"{more}
        }}"#
    )
}
