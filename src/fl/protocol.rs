//! Which protocol adds a round's vectors. The bits of the sum are the same under each.

pub mod oneshot;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::oneshot::OneshotConfig;
use super::FlError;
use super::coordinator::RoundTask;
use super::plan::Plan;
use crate::backend::Backend;
use crate::math::prg::{Secret, StreamKey};
use crate::secagg::identity::{Identity, Roster};
use crate::secagg::masks::{self, MasksServer, Request, ServerModel, Session, Setup};
use crate::secagg::oneshot::OneshotServer;
use crate::secagg::plain::PlainServer;
use crate::secagg::{Party, SecAggError, SessionId, VectorShape};

/// Milliseconds that a round waits for the answers to one request.
const PATIENCE: u64 = 60_000;

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

/// A share of some clients, rounded up; a product a little above an integer is that integer.
#[must_use]
pub fn share_of(share: f64, clients: usize) -> usize {
    (share * clients as f64 * (1.0 - 1e-12)).ceil() as usize
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
    /// [`FlError::OutOfRange`]; those of [`masks::Plan::choose`] and [`crate::secagg::oneshot::Plan::choose`].
    pub fn validate(&self, plan: &Plan) -> Result<(), FlError> {
        let config = match self {
            Self::Plain => return Ok(()),
            Self::Oneshot(config) => return config.validate(plan),
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
        }
    }
}

impl MasksConfig {
    fn session(&self, round: &RoundParties<'_>) -> Result<Arc<Session>, SecAggError> {
        let request = self.request(round.cohort.len());
        let min_survivors = request.min_survivors.max(round.threshold);
        // Losses that the noise does not bear the graph need not bear either.
        let dropouts = request.dropouts.min(round.cohort.len() - round.threshold.min(round.cohort.len()));
        let identity = |&client: &u64| (client, Identity::simulated(round.secret, client).public());
        let mut graph_seed = [0; 32];
        round.graph.fill(0, &mut graph_seed);
        let setup = Setup {
            id: round.id,
            shape: round.shape,
            cohort: round.cohort.to_vec(),
            roster: Arc::new(Roster::new(round.cohort.iter().map(identity))?),
            plan: masks::Plan::choose(&Request { min_survivors, dropouts, ..request })?,
            graph_seed,
            deadlines: Some([1, 2, 3, 4, 5].map(|phase| phase * PATIENCE)),
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
    /// The secret of a simulation, from which the clients' identities come.
    pub(super) secret: &'a Secret,
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
}

impl RoundProtocol {
    /// The server's machine.
    ///
    /// # Errors
    /// Those of [`PlainServer::new`].
    pub(super) fn server(&self, task: &RoundTask, backend: Arc<dyn Backend>) -> Result<Box<dyn Party>, SecAggError> {
        Ok(match self {
            Self::Plain => {
                let deadline = Some(PATIENCE);
                Box::new(PlainServer::new(task.id, &task.cohort, task.shape, task.threshold, deadline, backend)?)
            }
            Self::Masks(session) => Box::new(MasksServer::new(session, backend)),
            Self::Oneshot(session) => Box::new(OneshotServer::new(session, backend)),
        })
    }
}
