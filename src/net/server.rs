//! The server of a federation: sockets, calls, and the thread of the coordinator.

mod driver;
mod enrol;
mod gathered;
mod lease;
mod service;
mod shared;
mod turns;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as Transport;
use tracing::info;

use self::driver::Driver;
pub use self::driver::Ending;
use self::lease::Claim;
use self::service::Service;
use self::shared::{Description, Shared};
use super::hub::Hub;
use super::keys::{Authority, PartyKeys};
use super::listen;
use super::objects::Objects;
use super::plan::run_secret;
use super::status::board::Board;
use super::status::{Budget, Guarantee, Privacy, Run, View};
use super::store::{self, Store, StoredBody};
use super::tls::Reloader;
use super::wire::v1::federation_server::FederationServer;
use super::wire::{self};
use super::{NetError, now, tls};
use crate::backend::EncodeReport;
use crate::config::build::{Experiment, deal_key};
use crate::config::federation::FederationConfig;
use crate::files::write_atomic;
use crate::fl::dp_sgd::GradientReport;
use crate::fl::protocol::Protocol;
use crate::math::prg::Secret;
use crate::model::{Evaluation, weights};
use crate::report::ReportError;
use crate::secagg::identity::Identity;
use crate::sim::ledger::RunLedger;
use crate::sim::run_dir::{MODEL, PAGE, RESULT};
use crate::sim::{self, RunResult, page};

/// The database in the state folder.
pub const STORE: &str = "federation.sqlite";
/// The folder of large messages in it.
pub const OBJECTS: &str = "objects";
/// What the store calls the number of its run.
const NUMBER: &str = "run";
/// What the store calls that all parties know that the run is over.
const TOLD: &str = "told";
/// The note of an attempt that lists the clients in its sum.
const SURVIVORS: u8 = 1;
/// Messages between the calls and the coordinator; more make their senders wait.
const INBOX: usize = 256;
/// Connections of a party for each that may listen: a network that drops them leaves some that are not known to be dead yet.
const DEAD_CONNECTIONS: usize = 4;
/// Threads that may wait for the disk, beside those that serve. Each keeps memory of what it has last worked on.
const BLOCKING: usize = 16;
/// Bytes that a party may send before they are asked for: so much can wait in memory of every one that uploads. Enough for 2.5 MB/s
/// over a tenth of a second.
const WINDOW: u32 = 256 << 10;
/// How often changed certificates are looked for.
const ROTATION: Duration = Duration::from_secs(5);
/// How long the server stays for parties that are away when the run ends: the longest that one waits before it dials.
const LINGER: Duration = Duration::from_secs(45);
/// Seconds of a lease where nothing else is said; 2 to 3600 are possible.
pub const LEASE: u64 = 30;
/// How long open calls have to end once the run is over.
const GRACE: Duration = Duration::from_secs(5);

/// Where a server keeps what, and where it listens.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The folder of its state: database, objects, ledger, and at the end model and report.
    pub state: PathBuf,
    /// The folder of its keys.
    pub keys: PathBuf,
    /// The folder of the authority, if it enrols parties itself.
    pub authority: Option<PathBuf>,
    /// Where parties call.
    pub listen: SocketAddr,
    /// Where people and monitors look; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The address of the store; `None`: SQLite in the state folder.
    pub store: Option<String>,
    /// The address of the object store; `None`: a folder in the state folder.
    pub objects: Option<String>,
    /// Seconds after which another server on the same store takes over from this one, should it no longer say that it lives; see
    /// [`LEASE`].
    pub lease: u64,
}

/// A server that listens.
pub struct Serving {
    /// Where parties call.
    pub address: SocketAddr,
    /// Where people look.
    pub http: Option<SocketAddr>,
}

/// How it ended, and what the run has come to.
#[derive(Debug)]
pub struct Served {
    /// Why the server ended.
    pub ending: Ending,
    /// The run so far; `None` if another server coordinated it at the end.
    pub result: Option<RunResult>,
}

impl ServeOptions {
    fn store(&self) -> Result<Arc<dyn Store>, NetError> {
        let io = |source| NetError::Io { action: "create", what: self.state.display().to_string(), source };
        std::fs::create_dir_all(&self.state).map_err(io)?;
        let address = self.store.clone().unwrap_or_else(|| self.state.join(STORE).display().to_string());
        Ok(store::open(&address)?)
    }

    /// The secret of the run, where no seed gives one: of the server's keys and of a number that its store has drawn once. Another
    /// store is another run.
    ///
    /// # Errors
    /// Keys or a store that cannot be opened; an operating system without randomness.
    pub fn secret(&self) -> Result<Secret, NetError> {
        let (keys, store) = (PartyKeys::open(&self.keys)?, self.store()?);
        let drawn = match store.meta(NUMBER)? {
            Some(drawn) => drawn,
            None => {
                let fresh = Secret::fresh().map_err(crate::config::ConfigError::from)?;
                // It is public; of two servers that begin at once the first is right.
                drop(store.create_meta(NUMBER, fresh.expose()));
                store.meta(NUMBER)?.unwrap_or_default()
            }
        };
        let number: [u8; 32] = drawn.try_into().map_err(|_| NetError::Record {
            round: 0,
            problem: "the number of the run has another length".to_owned(),
        })?;
        Ok(run_secret(keys.secret(), &[0; 16], &number))
    }
}

/// Serves a run until it is over or `drain` is set and no round goes on. `ready` is called once with the addresses. Where another server
/// has the lease of the store it stands by, takes over when that one is gone, and stands by again when it was itself taken over from.
///
/// Must be called outside of an asynchronous context.
///
/// # Errors
/// Keys, store, sockets that cannot be had; a store that is of another run; what the coordinator refuses.
pub fn serve(
    experiment: Experiment,
    federation: FederationConfig,
    options: &ServeOptions,
    drain: &Arc<AtomicBool>,
    ready: impl FnOnce(&Serving),
) -> Result<Served, NetError> {
    let store = options.store()?;
    let keys = PartyKeys::open(&options.keys)?;
    let identity = Arc::new(RwLock::new(keys.identity()));
    let authority = options.authority.as_deref().map(Authority::open).transpose()?;
    let (tls, reloader) = tls::server_config(&options.keys)?;
    let objects = match &options.objects {
        Some(address) => Objects::open(address, &options.state.join(OBJECTS))?,
        None => Objects::folder(&options.state.join(OBJECTS))?,
    };
    let about = describe(&experiment)?;
    claim(&*store, &about)?;
    let board = Arc::new(board(&experiment, &about));
    let runtime = super::runtime(BLOCKING)?;
    let (inbox, messages) = mpsc::channel(INBOX);
    let limits = federation.limits;
    let room = listen::Room {
        all: limits.all_connections as usize,
        each: DEAD_CONNECTIONS.saturating_mul(limits.connections.max(1) as usize),
    };
    let hub = Arc::new(Hub::default());
    let shared =
        Arc::new(Shared::new(hub, store, objects, Arc::clone(&board), authority, about, federation.limits, inbox));
    shared.refresh()?;

    let bind = |address: SocketAddr| {
        let bound = runtime.block_on(TcpListener::bind(address));
        bound.map_err(|source| NetError::Io { action: "listen at", what: address.to_string(), source })
    };
    let local = |listener: &TcpListener| {
        listener.local_addr().map_err(|source| NetError::Io { action: "listen at", what: "a port".to_owned(), source })
    };
    let (calls, http) = (bind(options.listen)?, options.http.map(bind).transpose()?);
    let mut driver = Driver {
        claim: Claim::new(Arc::clone(&shared.store), &options.state, options.lease.clamp(2, 3600)),
        experiment,
        federation,
        shared: Arc::clone(&shared),
        inbox: messages,
        runtime: runtime.handle().clone(),
        identity: Arc::clone(&identity),
        state: options.state.clone(),
        drain: Arc::clone(drain),
        ledger: None,
        history: Vec::new(),
        started: Instant::now(),
        pending: None,
        pause: None,
        shown: 0,
        gathered: None,
        placed: None,
        stood: false,
    };
    driver.claim()?;
    ready(&Serving { address: local(&calls)?, http: http.as_ref().map(local).transpose()? });
    if let Some(http) = http {
        let drained = Arc::clone(&shared);
        let ready = move || drained.coordinates() && !drained.draining.load(Ordering::Relaxed);
        let router = super::http::router(Arc::clone(&board), ready);
        runtime.spawn(async move { drop(axum::serve(http, router).await) });
    }
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = Service(Arc::clone(&shared));
    let calls = runtime.spawn(async move {
        let connections = listen::accept(calls, tls, room, board).await;
        let service = FederationServer::new(service)
            .max_decoding_message_size(wire::MOST_MESSAGE)
            .max_encoding_message_size(wire::MOST_MESSAGE);
        let served = Transport::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .max_concurrent_streams(Some(32))
            .initial_stream_window_size(Some(WINDOW))
            .initial_connection_window_size(Some(2 * WINDOW))
            .max_frame_size(Some(wire::FRAME))
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async {
                drop(stopped.await);
            });
        drop(served.await);
    });
    look_around(&runtime, Arc::clone(&shared), Arc::clone(&identity), reloader, options.keys.clone());
    let outcome = driver.run();
    if matches!(outcome, Ok((_, Ending::Finished(_)))) {
        tell_all(&driver, drain);
    }
    // Those who listen are told how it ended before the door is shut.
    let _ = stop.send(());
    runtime.block_on(async { drop(tokio::time::timeout(GRACE, calls).await) });
    let (coordinator, ending) = outcome?;
    let result = coordinator.map(|coordinator| result(&driver, &coordinator, ending)).transpose()?;
    driver.claim.give_back();
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(Served { ending, result })
}

/// Looks again and again for a new certificate, and for parties that somebody else has let in or shut out.
fn look_around(
    runtime: &Runtime,
    shared: Arc<Shared>,
    signer: Arc<RwLock<Identity>>,
    reloader: Reloader,
    keys: PathBuf,
) {
    let reloader = Arc::new(reloader);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(ROTATION).await;
            let (shared, signer, reloader, keys) =
                (Arc::clone(&shared), Arc::clone(&signer), Arc::clone(&reloader), keys.clone());
            let looked = tokio::task::spawn_blocking(move || look(&shared, &signer, &reloader, &keys));
            if looked.await.is_err() {
                return;
            }
        }
    });
}

fn look(shared: &Shared, signer: &RwLock<Identity>, reloader: &Reloader, keys: &Path) {
    if let Err(e) = shared.refresh() {
        shared.board.warn(&format!("the parties cannot be read: {e}"), now());
    }
    match reloader.check().and_then(|new| Ok(if new { Some(PartyKeys::open(keys)?) } else { None })) {
        Ok(None) => {}
        Ok(Some(keys)) => {
            *signer.write().unwrap_or_else(PoisonError::into_inner) = keys.identity();
            info!("new connections get the new certificate");
        }
        Err(e) => shared.board.warn(&format!("the new certificate is not used: {e}"), now()),
    }
}

/// Waits until every party knows that the run is over, also one that dials again after a while; no longer than that takes, and not
/// where all have been told before: by a server that stood by, or stands by now.
fn tell_all(driver: &Driver, drain: &AtomicBool) {
    if matches!(driver.shared.store.meta(TOLD), Ok(Some(_))) {
        return;
    }
    let parties = driver.shared.store.parties().map_or(0, |rows| rows.iter().filter(|row| !row.revoked).count());
    let until = Instant::now() + LINGER;
    while driver.shared.hub.told() < parties && Instant::now() < until && !drain.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    if driver.shared.hub.told() >= parties {
        // Lost, it costs the wait of the next server.
        drop(driver.shared.store.set_meta(TOLD, b"all"));
    }
}

fn describe(experiment: &Experiment) -> Result<Description, NetError> {
    Ok(Description {
        session: experiment.plan.session,
        config: experiment.resolved.to_string(),
        plan: experiment.plan.digest()?,
        deal: deal_key(experiment),
        rounds: experiment.plan.rounds,
        clients: experiment.plan.clients,
        holders: match &experiment.plan.protocol {
            Protocol::Oneshot(config) => config.holders,
            Protocol::Plain | Protocol::Masks(_) | Protocol::Mphe(_) => 0,
        },
    })
}

/// The clients in the sum of an attempt that was charged, ascending; `None` before.
///
/// # Errors
/// Those of [`Store::entries`]; a list that cannot be read.
pub fn survivors(store: &dyn Store, round: u32, attempt: u32) -> Result<Option<Vec<u64>>, NetError> {
    for entry in store.entries(round, attempt)? {
        if let StoredBody::Note { kind: SURVIVORS, bytes } = entry.body {
            let list = serde_json::from_slice(&bytes);
            return list.map(Some).map_err(|e| NetError::Record { round, problem: e.to_string() });
        }
    }
    Ok(None)
}

/// A store is of one run.
fn claim(store: &dyn Store, about: &Description) -> Result<(), NetError> {
    for (name, value) in [("session", &about.session[..]), ("plan", &about.plan[..])] {
        if store.meta(name)?.is_some_and(|stored| stored != value) {
            return Err(NetError::OtherRun { place: store.place().to_owned() });
        }
    }
    store.create_meta("session", &about.session)?;
    Ok(store.create_meta("plan", &about.plan)?)
}

fn board(experiment: &Experiment, about: &Description) -> Board {
    let plan = &experiment.plan;
    let run = Run {
        name: experiment.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        session: hex::encode(about.session),
        rounds: plan.rounds.into(),
        model: experiment.model.as_ref().map_or_else(String::new, ToString::to_string),
        parameters: plan.dim as u64,
    };
    let guarantee = plan.is_private().then(|| Guarantee {
        neighbours: plan.mechanism.neighboring().name().to_owned(),
        delta: plan.delta,
        accountant: format!("{:?}", plan.rule).to_lowercase(),
        public: Some(0.0),
        server: Some(0.0),
        budget: plan.epsilon_budget.map(|epsilon| Budget { epsilon, view: View::Public }),
    });
    let protocol = match &plan.protocol {
        Protocol::Plain => "plain: the server sees every vector".to_owned(),
        Protocol::Masks(_) => "masks".to_owned(),
        Protocol::Mphe(_) => "mphe".to_owned(),
        Protocol::Oneshot(c) => format!("oneshot, {} of {} key holders open a sum", c.needed(), c.holders),
    };
    Board::new(run, Privacy { mechanism: plan.mechanism.name().to_owned(), protocol, guarantee }, now())
}

/// What the run has come to; a run that is over leaves its model, its page and its figures.
fn result(
    driver: &Driver,
    coordinator: &crate::fl::coordinator::Coordinator,
    ending: Ending,
) -> Result<RunResult, NetError> {
    let experiment = &driver.experiment;
    let evaluation = driver.history.iter().rev().find_map(|record| {
        let samples = experiment.split.test.len();
        Some(Evaluation { loss: record.loss?, accuracy: record.accuracy?, samples })
    });
    let result = RunResult {
        ending: match ending {
            Ending::Finished(finish) => sim::Ending::Finished(finish),
            Ending::Drained => sim::Ending::Interrupted,
        },
        rounds: coordinator.round(),
        evaluation,
        epsilon: coordinator.epsilon()?,
        ledger: driver.ledger.as_ref().map(RunLedger::state).transpose()?,
        history: driver.history.clone(),
        clients: EncodeReport::default(),
        gradients: GradientReport::default(),
        bytes_up: coordinator.bytes_up(),
        device_lost: None,
        weights: coordinator.weights().as_ref().clone(),
        seconds: driver.started.elapsed().as_secs_f64(),
    };
    if matches!(ending, Ending::Finished(_)) {
        leave(experiment, &result, &driver.state)?;
    }
    Ok(result)
}

fn leave(experiment: &Experiment, result: &RunResult, folder: &Path) -> Result<(), NetError> {
    if let Some(model) = &experiment.model {
        let info = BTreeMap::from([
            ("run".to_owned(), experiment.name.clone()),
            ("rounds".to_owned(), result.rounds.to_string()),
            ("epsilon".to_owned(), result.epsilon.public.epsilon.to_string()),
            ("delta".to_owned(), result.epsilon.public.delta.to_string()),
        ]);
        weights::save(&folder.join(MODEL), model, &experiment.trainer.saved(&result.weights), &info)?;
    }
    let html = page::render(experiment, result);
    write_atomic(&folder.join(PAGE), html.as_bytes()).map_err(ReportError::from)?;
    let text = format!("{:#}\n", page::result_json(experiment, result));
    write_atomic(&folder.join(RESULT), text.as_bytes()).map_err(ReportError::from)?;
    Ok(())
}
