//! Which protocol adds a round's vectors. The bits of the sum are the same under each.

pub mod mphe;
pub mod oneshot;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::mphe::MpheConfig;
use self::oneshot::OneshotConfig;
use super::coordinator::RoundTask;
use super::plan::Plan;
use super::{FlError, magnitude};
use crate::backend::Backend;
use crate::backend::simd::Simd;
use crate::math::prg::{Secret, StreamKey};
use crate::secagg::identity::{Identity, Roster};
use crate::secagg::masks::{self, MasksServer, Request, ServerModel, Session, Setup};
use crate::secagg::mphe::{MpheServer, RoundSession, SignedKey};
use crate::secagg::oneshot::{HolderKeys, OneshotServer, simulated_holder};
use crate::secagg::plain::PlainServer;
use crate::secagg::{Party, SecAggError, SessionId, VectorShape};

/// Milliseconds that a round waits for the answers to one request, unless its driver says otherwise.
pub(super) const PATIENCE: u64 = 60_000;

/// Whose public keys the parties of a run have.
#[derive(Clone, Debug, Default)]
pub enum Directory {
    /// One process plays all parties, with keys from the secret of its simulation.
    #[default]
    Simulated,
    /// Parties of their own, whose keys were pinned when they enrolled.
    Pinned {
        /// Of every client that may be asked.
        clients: Arc<Roster>,
        /// Of the key holders, 1 to K; empty where the protocol has none.
        holders: Arc<[HolderKeys]>,
    },
}

impl Directory {
    /// The keys of a cohort, and perhaps of others.
    fn roster(&self, secret: &Secret, cohort: &[u64]) -> Result<Arc<Roster>, SecAggError> {
        match self {
            Self::Simulated => {
                let identity = |&client: &u64| (client, Identity::simulated(secret, client).public());
                Ok(Arc::new(Roster::new(cohort.iter().map(identity))?))
            }
            Self::Pinned { clients, .. } => Ok(Arc::clone(clients)),
        }
    }

    /// The keys of `count` holders.
    fn holders(&self, secret: &Secret, count: u16) -> Vec<HolderKeys> {
        match self {
            Self::Simulated => (1..=count).map(|holder| simulated_holder(secret, holder).1).collect(),
            Self::Pinned { holders, .. } => holders.to_vec(),
        }
    }
}

/// A protocol, as a config names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Added in the clear by the server, who sees every vector.
    #[default]
    Plain,
    /// Masks that cancel in the sum (Bonawitz et al. 2017; Bell et al. 2020): the server sees the sum and nothing else.
    Masks(MasksConfig),
    /// Every vector encrypted under a key of its own, and key holders who open the sum of the keys: a client says one thing,
    /// and the server sees the sum and nothing else.
    Oneshot(OneshotConfig),
    /// Every vector encrypted under one public key that key holders have made together, for many rounds; they open the sum. A
    /// client that joins late needs the public key.
    Mphe(MpheConfig),
}

/// Who is expected to be corrupt and who to vanish.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MasksConfig {
    /// Share of a cohort that may be in league with the server, in [0, 1); rounded up to whole clients.
    #[serde(default = "tenth")]
    pub corrupt: f64,
    /// Share of a cohort that may vanish at any time without the round being lost, in [0, 1); rounded up.
    #[serde(default = "tenth")]
    pub dropouts: f64,
    /// What the server may do.
    #[serde(default)]
    pub server: ServerBehavior,
}

/// What a server may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerBehavior {
    /// What it likes: the clients sign the set of survivors before anything is opened.
    #[default]
    Malicious,
    /// It follows the protocol and looks at everything; against any other nothing is protected.
    SemiHonest,
}

fn tenth() -> f64 {
    0.1
}

const fn five() -> u16 {
    5
}

const fn one() -> u16 {
    1
}

/// A share of some clients, rounded up; a product a little above an integer is that integer.
#[must_use]
pub fn share_of(share: f64, clients: usize) -> usize {
    (share * clients as f64 * (1.0 - 1e-12)).ceil() as usize
}

/// The magnitude that no integer of a client exceeds, for certain and before its weight, as lattice protocols take it: at
/// least 1, and no power of two, which is no residue of a ring of its size (the ring has its negative alone).
fn certain_bound(plan: &Plan, round: u32, clients: usize) -> Result<u64, FlError> {
    let bound = magnitude::certain(plan, round, clients)?.max(1);
    Ok(bound.saturating_add(u64::from(bound.is_power_of_two())))
}

/// Private rows are encoded in rings of 32 bits at most, and must not wrap in them where integers are opened.
fn check_private_ring(plan: &Plan, bits: u32, bound: u64, name: &'static str) -> Result<(), FlError> {
    if plan.is_exact() || bits <= 32 {
        return Ok(());
    }
    Err(FlError::SecAgg(SecAggError::OutOfRange {
        name,
        expected: "below 2^31: a smaller gamma or clip or less noise a client; `plain` and `masks` wrap and need no bound",
        found: bound,
    }))
}

impl MasksConfig {
    /// What a cohort of so many clients asks of its graph.
    #[must_use]
    pub fn request(&self, clients: usize) -> Request {
        let server = match self.server {
            ServerBehavior::Malicious => ServerModel::Malicious,
            ServerBehavior::SemiHonest => ServerModel::SemiHonest,
        };
        Request::new(clients, share_of(self.corrupt, clients), share_of(self.dropouts, clients), server)
    }
}

impl Protocol {
    /// Checks the ranges, and that some graph of masks, or some ring, bears a cohort of the expected size.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`]; those of [`masks::Plan::choose`], [`crate::secagg::oneshot::Plan::choose`] and
    /// [`crate::secagg::mphe::Plan::choose`].
    pub fn validate(&self, plan: &Plan) -> Result<(), FlError> {
        let config = match self {
            Self::Plain => return Ok(()),
            Self::Oneshot(config) => return config.validate(plan),
            Self::Mphe(config) => return config.validate(plan),
            Self::Masks(config) => config,
        };
        for (name, value) in [("secagg.masks.corrupt", config.corrupt), ("secagg.masks.dropouts", config.dropouts)] {
            if !(0.0..1.0).contains(&value) {
                return Err(FlError::OutOfRange { name, expected: "in [0, 1)".into(), found: value.to_string() });
            }
        }
        masks::Plan::choose(&config.request(plan.expected_size().ceil() as usize))?;
        Ok(())
    }

    /// What the parties of a round have to agree on. A cohort of nobody needs no protocol.
    ///
    /// # Errors
    /// Those of [`masks::Plan::choose`]: more corrupt and lost clients than any graph bears; those of
    /// [`crate::secagg::oneshot::Plan::choose`].
    pub(super) fn session(&self, plan: &Plan, round: &RoundParties<'_>) -> Result<RoundProtocol, FlError> {
        match self {
            _ if round.cohort.is_empty() => Ok(RoundProtocol::Plain),
            Self::Plain => Ok(RoundProtocol::Plain),
            Self::Masks(config) => Ok(RoundProtocol::Masks(config.session(round)?)),
            Self::Oneshot(config) => Ok(RoundProtocol::Oneshot(config.session(plan, round)?)),
            Self::Mphe(config) => match round.key {
                Some(key) => Ok(RoundProtocol::Mphe(config.session(plan, round, key)?)),
                None => Err(FlError::OutOfOrder { event: "a round", state: "without a collective key" }),
            },
        }
    }
}

impl MasksConfig {
    fn session(&self, round: &RoundParties<'_>) -> Result<Arc<Session>, SecAggError> {
        let request = self.request(round.cohort.len());
        let min_survivors = request.min_survivors.max(round.threshold);
        // Losses that the noise does not bear the graph need not bear either.
        let dropouts = request.dropouts.min(round.cohort.len() - round.threshold.min(round.cohort.len()));
        let mut graph_seed = [0; 32];
        round.graph.fill(0, &mut graph_seed);
        let setup = Setup {
            id: round.id,
            shape: round.shape,
            cohort: round.cohort.to_vec(),
            roster: round.directory.roster(round.secret, round.cohort)?,
            plan: masks::Plan::choose(&Request { min_survivors, dropouts, ..request })?,
            graph_seed,
            deadlines: Some([1, 2, 3, 4, 5].map(|phase| phase * round.patience)),
        };
        Session::new(setup)
    }
}

/// Who adds up what.
pub(super) struct RoundParties<'a> {
    pub(super) id: SessionId,
    pub(super) shape: VectorShape,
    pub(super) cohort: &'a [u64],
    /// The least number of vectors that may be opened.
    pub(super) threshold: usize,
    /// How many of them share the noise.
    pub(super) sharing: usize,
    /// How often each counts inside an exact sum, where they do not count alike.
    pub(super) counts: Option<Vec<u64>>,
    /// The secret of a simulation, from which the parties' keys come where nobody has pinned others.
    pub(super) secret: &'a Secret,
    /// Whose keys the parties have.
    pub(super) directory: &'a Directory,
    /// Milliseconds that a phase waits.
    pub(super) patience: u64,
    /// The collective key, where the protocol has one.
    pub(super) key: Option<&'a Arc<SignedKey>>,
    /// Public randomness of the graph.
    pub(super) graph: StreamKey,
}

/// The protocol of one round.
#[derive(Clone, Debug)]
pub enum RoundProtocol {
    /// `plain`.
    Plain,
    /// `masks`.
    Masks(Arc<Session>),
    /// `oneshot`.
    Oneshot(Arc<crate::secagg::oneshot::Session>),
    /// `mphe`.
    Mphe(Arc<RoundSession>),
}

impl RoundProtocol {
    /// The server's machine.
    ///
    /// # Errors
    /// Those of [`PlainServer::new`].
    pub(super) fn server(&self, task: &RoundTask, backend: Arc<dyn Backend>) -> Result<Box<dyn Party>, SecAggError> {
        Ok(match self {
            Self::Plain => {
                let deadline = Some(task.patience);
                Box::new(PlainServer::new(task.id, &task.cohort, task.shape, task.threshold, deadline, backend)?)
            }
            Self::Masks(session) => Box::new(MasksServer::new(session, backend)),
            Self::Oneshot(session) => Box::new(OneshotServer::new(session, backend)),
            // It transforms one polynomial a block, once: on the CPU, so that the loss of a device never looks as if the parts of
            // an opening were wrong.
            Self::Mphe(session) => Box::new(MpheServer::new(session, Arc::new(Simd::new()))),
        })
    }
}
