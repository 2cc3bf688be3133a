//! A party that takes part: a client with its data, or a key holder. It dials out, comes back when it was cut off, and does
//! nothing that its policy does not allow.

mod enrol;
mod link;
mod offer;
mod program;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub use self::enrol::enrol;
use self::enrol::renew;
pub use self::link::{Address, PORT};
use self::link::{Coming, Link, back_off, failed, status};
use self::offer::{Asked, Standing, keep_keys, kept_keys};
use self::program::Program;
use self::work::{Journal, Work, Worker, sweep};
use super::keys::{PartyKeys, Role};
use super::plan::{self, RoundPlan};
use super::policy::{Policy, Refusal, listed};
use super::wire::v1::event::Event;
use super::wire::v1::receipt::Status as Said;
use super::wire::{self, v1};
use super::{NetError, tls};
use crate::backend::Backend;
use crate::config::build::{Experiment, seat_client};
use crate::data::Split;
use crate::math::prg::{Address as Place, Cipher, Purpose, Secret};
use crate::secagg::channel::PrivateKey;
use crate::sim::work::encode_one;

/// The folder of a party's own records, below that of its keys.
pub const STATE: &str = "rounds";
/// How often a party looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);
/// Trainings at a time, at most; and threads beside theirs that may wait for the disk.
const MOST_TRAININGS: usize = 4096;
const BLOCKING: usize = 16;
/// The longest roster that is fetched, bytes.
const MOST_ROSTER: u64 = 256 << 20;

/// Where a client's data come from.
#[derive(Clone)]
pub enum LocalData {
    /// A key holder has none.
    None,
    /// All of it is this client's.
    Own(Arc<Split>),
    /// A program that trains, with its data, in whatever framework: see [`super::external`].
    Command(Vec<String>),
    /// Every client has the data of all, and takes the part that the run deals to it: for demonstrations and comparisons.
    Dealt(Arc<Split>),
}

/// How parties of one process take part.
#[derive(Clone)]
pub struct JoinOptions {
    /// The server.
    pub address: Address,
    /// What people call the parties.
    pub name: String,
    /// Their data.
    pub data: LocalData,
    /// The last word.
    pub policy: Arc<Policy>,
    /// Draws all randomness from this seed, as a simulation of the same seed does. Whoever knows it can take the noise away.
    pub seed: Option<u64>,
    /// Trainings at a time, of all parties of the process.
    pub trainings: usize,
}

/// How a party's part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The run is over: why.
    Finished(String),
    /// It was asked to end.
    Stopped,
}

/// Takes part with the parties of these folders until the run is over or `stop` is set. Returns one outcome for each.
///
/// Must be called outside of an asynchronous context.
///
/// # Errors
/// If the runtime cannot be started.
pub fn join(
    options: &JoinOptions,
    folders: &[PathBuf],
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Result<Left, NetError>>, NetError> {
    let runtime = super::runtime(BLOCKING + options.trainings.min(MOST_TRAININGS))?;
    let trainings = Arc::new(Semaphore::new(options.trainings.clamp(1, MOST_TRAININGS)));
    let standing = Arc::new(Standing::default());
    let outcomes = runtime.block_on(async {
        let mut parties = Vec::new();
        for folder in folders {
            let (options, folder, stop) = (options.clone(), folder.clone(), Arc::clone(stop));
            let (trainings, standing) = (Arc::clone(&trainings), Arc::clone(&standing));
            parties.push(tokio::spawn(async move {
                Taking::open(options, &folder, trainings, standing, stop)?.until_over().await
            }));
        }
        let mut outcomes = Vec::new();
        for party in parties {
            outcomes.push(party.await.unwrap_or_else(|e| {
                Err(NetError::Io { action: "run", what: "a party".into(), source: std::io::Error::other(e) })
            }));
        }
        outcomes
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(outcomes)
}

/// The X25519 key of a party: holders have shares sealed to it.
#[must_use]
pub fn channel_key(secret: &Secret) -> PrivateKey {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    secret.derive(&[0; 16], Place::default(), Purpose::HolderChannel, Cipher::ChaCha20).fill(0, &mut *bytes);
    PrivateKey::from_bytes(*bytes)
}

/// A run as this party knows it.
struct Known {
    session: [u8; 16],
    digest: [u8; 32],
    experiment: Arc<Experiment>,
    worker: Arc<Worker>,
}

/// A training that waits, goes on, or has ended. Whoever drops it waits for none: a server that says one plan after the other has
/// no more in memory than the trainings that go on.
struct Training(JoinHandle<Result<Option<Vec<u8>>, NetError>>);

impl Drop for Training {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A party in the middle of a run.
struct Taking {
    options: JoinOptions,
    keys: PartyKeys,
    role: Role,
    folder: PathBuf,
    journal: Journal,
    standing: Arc<Standing>,
    trainings: Arc<Semaphore>,
    stop: Arc<AtomicBool>,
    known: Option<Known>,
    work: Option<Work>,
    training: Option<Training>,
    coming: Coming,
    /// The program that trains for it.
    program: Arc<Program>,
}

impl Taking {
    fn open(
        options: JoinOptions,
        folder: &Path,
        trainings: Arc<Semaphore>,
        standing: Arc<Standing>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, NetError> {
        let keys = PartyKeys::open(folder)?;
        let Some(role) = keys.certificate().map(|peer| peer.role) else {
            let reason = format!("{} has no certificate: join once with --token, or install one", folder.display());
            return Err(NetError::Refused { reason });
        };
        let state = folder.join(STATE);
        let io = |source| NetError::Io { action: "create", what: state.display().to_string(), source };
        std::fs::create_dir_all(&state).map_err(io)?;
        let journal = Journal::open(&state)?;
        Ok(Self {
            options,
            keys,
            role,
            folder: state,
            journal,
            standing,
            trainings,
            stop,
            known: None,
            work: None,
            training: None,
            coming: Coming::default(),
            program: Arc::default(),
        })
    }

    /// Connects again and again until the run is over.
    async fn until_over(&mut self) -> Result<Left, NetError> {
        let mut tries = 0;
        let stop = Arc::clone(&self.stop);
        loop {
            // A server that does not answer keeps nobody from leaving. What is cut off here is what a crash may cut off.
            let outcome = tokio::select! {
                outcome = self.connection(&mut tries) => outcome,
                () = stopped(&stop) => return Ok(Left::Stopped),
            };
            match outcome {
                Ok(left) => return Ok(left),
                Err(NetError::Unreachable { reason }) => {
                    debug!(party = %self.role, %reason, "not connected");
                    if tries == 0 {
                        info!(party = %self.role, %reason, "the connection is gone; trying again");
                    }
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = back_off(tries) => {}
                () = stopped(&self.stop) => return Ok(Left::Stopped),
            }
        }
    }

    /// One connection, from its handshake to its end.
    async fn connection(&mut self, tries: &mut u32) -> Result<Left, NetError> {
        let (config, _) = tls::client_config(self.keys.folder())?;
        let mut link = link::connect(&self.options.address, config).await?;
        let hello = v1::HelloRequest {
            version: wire::VERSION,
            software: wire::SOFTWARE.to_owned(),
            name: self.options.name.clone(),
            channel: channel_key(self.keys.secret()).public().to_vec().into(),
        };
        let about = link.calls.hello(hello).await.map_err(|e| failed(&e))?.into_inner();
        self.learn(&about)?;
        renew(&mut self.keys, self.role, &mut link).await;
        let (round, attempt, next) =
            self.work.as_ref().map_or((0, 0, 0), |work| (work.round, work.attempt, work.taken()));
        let listen = v1::ListenRequest { round, attempt, next };
        let mut events = link.calls.listen(listen).await.map_err(|e| failed(&e))?.into_inner();
        info!(party = %self.role, round = about.round, rounds = about.rounds, "connected");
        *tries = 0;
        loop {
            self.send(&mut link).await?;
            tokio::select! {
                event = events.message() => {
                    let Some(v1::Event { event: Some(event) }) = event.map_err(|e| failed(&e))? else {
                        return Err(NetError::Unreachable { reason: "the server has ended the connection".into() });
                    };
                    if let Some(left) = self.take(&mut link, event).await? {
                        return Ok(left);
                    }
                }
                vector = trained(&mut self.training) => match vector {
                    // Its next try is the next round.
                    Err(NetError::External(error)) => {
                        warn!(party = %self.role, %error, "no update of this round: the trainer has failed");
                        self.training = None;
                    }
                    vector => self.give(vector?)?,
                },
                () = stopped(&self.stop) => return Ok(Left::Stopped),
            }
        }
    }

    /// The run that the server describes. What it is calculated from is its config; that it comes to the server's plan is checked.
    fn learn(&mut self, about: &v1::HelloResponse) -> Result<(), NetError> {
        if about.version != wire::VERSION {
            let reason = format!(
                "{} speaks version {} of the protocol, and this is {}",
                about.software,
                about.version,
                wire::VERSION
            );
            return Err(NetError::Refused { reason });
        }
        let malformed = |what| NetError::Dishonest { what, expected: "another length".into(), found: "this".into() };
        let session: [u8; 16] = wire::fixed(&about.session).ok_or_else(|| malformed("the identity of the run"))?;
        let digest: [u8; 32] = wire::fixed(&about.plan_digest).ok_or_else(|| malformed("the digest of the plan"))?;
        let deal: [u8; 32] = wire::fixed(&about.deal).ok_or_else(|| malformed("the key of the partition"))?;
        if self.known.as_ref().is_some_and(|known| known.session == session && known.digest == digest) {
            return Ok(());
        }
        let party = self.standing.party((session, digest), &about.config)?;
        let secret = match self.options.seed {
            Some(seed) => Secret::from_seed(seed),
            None => plan::run_secret(self.keys.secret(), &session, &digest),
        };
        let experiment = match self.role {
            Role::Client(_) if matches!(self.options.data, LocalData::Command(_)) => {
                Arc::new(Experiment { secret, ..Experiment::clone(&party) })
            }
            Role::Client(client) => {
                let data = self.standing.data(&self.options.data, client, deal)?;
                Arc::new(seat_client(&party, client, data, secret)?)
            }
            Role::Server | Role::Holder(_) => party,
        };
        let found = experiment.plan.digest()?;
        if found != digest {
            let (expected, found) = (hex::encode(found), hex::encode(digest));
            return Err(NetError::Dishonest { what: "the plan that the config leads to", expected, found });
        }
        let worker = Worker {
            role: self.role,
            identity: self.keys.identity(),
            secret: experiment.secret.clone(),
            channel: channel_key(self.keys.secret()),
            backend: Arc::clone(&experiment.backend) as Arc<dyn Backend>,
        };
        // Another run: what goes on belongs to none.
        (self.work, self.training) = (None, None);
        self.known = Some(Known { session, digest, experiment, worker: Arc::new(worker) });
        Ok(())
    }

    /// Takes what the server says.
    async fn take(&mut self, link: &mut Link, event: Event) -> Result<Option<Left>, NetError> {
        match event {
            Event::Plan(signed) => self.begin(link, &signed).await?,
            Event::Message(message) => self.hear(&message)?,
            Event::End(end) => self.end(&end)?,
            Event::Finished(finished) => {
                info!(party = %self.role, rounds = finished.rounds, reason = %finished.reason, "the run is over");
                sweep(&self.folder, None)?;
                return Ok(Some(Left::Finished(finished.reason)));
            }
        }
        Ok(None)
    }

    /// Checks a plan, and begins what it asks for.
    async fn begin(&mut self, link: &mut Link, signed: &v1::SignedPlan) -> Result<(), NetError> {
        let Some(known) = &self.known else { return Ok(()) };
        plan::verify(&link.server, &known.session, &signed.body, &signed.signature)
            .map_err(crate::fl::FlError::from)?;
        let round_plan: RoundPlan = serde_json::from_slice(&signed.body).map_err(|e| NetError::Dishonest {
            what: "a round plan",
            expected: "one of this version".into(),
            found: e.to_string(),
        })?;
        if (round_plan.session, round_plan.plan) != (known.session, known.digest) {
            let (expected, found) = (hex::encode(known.digest), hex::encode(round_plan.plan));
            return Err(NetError::Dishonest { what: "the plan of a round", expected, found });
        }
        let (round, attempt) = (round_plan.notice.round, round_plan.notice.attempt);
        if self.work.as_ref().is_some_and(|work| (work.round, work.attempt) == (round, attempt)) {
            return Ok(());
        }
        let dim = known.experiment.plan.dim as u64;
        let named = &round_plan.parties;
        let roster = match self.standing.roster(&named.id) {
            Some(roster) => roster,
            None => self.standing.learn(named.id, &link.fetch(named, MOST_ROSTER, &mut self.coming).await?)?,
        };
        let model = link.fetch(&round_plan.model, 4 * dim, &mut self.coming).await?;
        let weights = plan::weights(&model).unwrap_or_default();
        drop(model);
        let task = round_plan.notice.task(&known.experiment.plan, &roster.directory, weights)?;
        let previous = self.journal.previous(&known.session, round, attempt);
        let kept = kept_keys(&self.folder)?;
        let asked = Asked { experiment: &known.experiment, task: &task, roster: &roster, kept: &kept, previous };
        let offer = self.standing.offer(&asked, &self.keys)?;
        if let Err(refusals) = self.options.policy.check(&offer) {
            if refusals.iter().all(Refusal::passes) {
                // It is the time that does not fit: another round may.
                info!(party = %self.role, round, reason = %listed(&refusals), "this round is left out");
                return Ok(());
            }
            return Err(NetError::Policy { reasons: refusals.iter().map(ToString::to_string).collect() });
        }
        keep_keys(&self.folder, kept, &roster)?;
        if self.journal.has(&known.session, round, attempt) && !Work::is_open(&self.folder, round, attempt) {
            self.journal.accept(&known.session, round, attempt, &signed.body)?;
            warn!(party = %self.role, round, attempt, "this round was taken part in before: nothing is computed again");
            return Ok(());
        }
        sweep(&self.folder, Some((round, attempt)))?;
        let task = Arc::new(task);
        let mut work = Work::begin(&self.folder, &known.worker, Arc::clone(&task))?;
        self.journal.accept(&known.session, round, attempt, &signed.body)?;
        info!(party = %self.role, round, attempt, cohort = task.cohort.len(), "a round begins");
        self.training = None;
        if let Role::Client(client) = self.role {
            match work.stored_vector()? {
                Some(vector) => work.give(&known.worker, vector)?,
                None => self.training = Some(self.train(Arc::clone(&known.experiment), task, client)),
            }
        }
        self.work = Some(work);
        Ok(())
    }

    /// Trains beside the connection, when it is this party's turn.
    fn train(
        &self,
        experiment: Arc<Experiment>,
        task: Arc<crate::fl::coordinator::RoundTask>,
        client: u64,
    ) -> Training {
        let (trainings, program) = (Arc::clone(&self.trainings), Arc::clone(&self.program));
        let command = match &self.options.data {
            LocalData::Command(command) => Some(command.clone()),
            _ => None,
        };
        Training(tokio::spawn(async move {
            let turn = trainings.acquire_owned().await;
            let work = tokio::task::spawn_blocking(move || {
                // What has begun cannot be cut off: its turn ends with it.
                let _turn = turn;
                match command {
                    None => Ok(encode_one(&experiment, &task, client)?),
                    Some(command) => program.vector(&command, &experiment, &task, client),
                }
            });
            match work.await {
                Ok(vector) => vector,
                Err(e) => {
                    Err(NetError::Io { action: "run", what: "a training".into(), source: std::io::Error::other(e) })
                }
            }
        }))
    }

    /// Gives the machine what training came to. Nothing comes of a vector that is not finite, without privacy.
    fn give(&mut self, vector: Option<Vec<u8>>) -> Result<(), NetError> {
        self.training = None;
        let (Some(known), Some(work)) = (&self.known, &mut self.work) else { return Ok(()) };
        let Some(vector) = vector else {
            warn!(party = %self.role, round = work.round, "the update is not finite: this client leaves the round out");
            return Ok(());
        };
        tokio::task::block_in_place(|| work.give(&known.worker, vector))
    }

    fn hear(&mut self, message: &v1::ServerMessage) -> Result<(), NetError> {
        let Some(work) = self.work.as_mut().filter(|w| (w.round, w.attempt) == (message.round, message.attempt)) else {
            return Ok(());
        };
        tokio::task::block_in_place(|| work.hear(message.index, &message.frame))
    }

    fn end(&mut self, end: &v1::RoundEnd) -> Result<(), NetError> {
        let over = self.work.as_ref().is_some_and(|w| (w.round, w.attempt) == (end.round, end.attempt));
        if over && let Some(work) = self.work.take() {
            info!(party = %self.role, round = end.round, attempt = end.attempt, released = end.released, "a round ends");
            // An attempt that was given up may be only paused: what was sent has to be sent again.
            if end.released {
                work.end()?;
            }
            self.training = None;
        }
        Ok(())
    }

    /// Sends what the machine has said. What is not acknowledged stays for the next connection.
    async fn send(&mut self, link: &mut Link) -> Result<(), NetError> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let (round, attempt) = (work.round, work.attempt);
        let mut tries = 0;
        while let Some(frame) = work.outbox.first() {
            let receipt = link.submit(round, attempt, frame).await?;
            match status(&receipt) {
                Said::Accepted | Said::Duplicate => {
                    let id = wire::message_id(self.role, round, attempt, &Sha256::digest(frame).into());
                    debug!(party = %self.role, round, attempt, id = %hex::encode(id), "acknowledged");
                }
                Said::Late => info!(party = %self.role, round, reason = %receipt.reason, "too late"),
                Said::Refused => warn!(party = %self.role, round, reason = %receipt.reason, "a message was refused"),
                Said::Retry | Said::Unknown => {
                    tries += 1;
                    warn!(party = %self.role, round, reason = %receipt.reason, "the server takes nothing now");
                    if tries > 5 {
                        return Err(NetError::Unreachable { reason: receipt.reason });
                    }
                    back_off(tries).await;
                    continue;
                }
            }
            work.outbox.remove(0);
        }
        Ok(())
    }
}

/// The vector of a training, when it is there.
async fn trained(training: &mut Option<Training>) -> Result<Option<Vec<u8>>, NetError> {
    match training {
        Some(Training(handle)) => handle.await.map_err(|e| NetError::Io {
            action: "run",
            what: "a training".into(),
            source: std::io::Error::other(e),
        })?,
        None => std::future::pending().await,
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(TICK).await;
    }
}
