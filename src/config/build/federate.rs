//! The experiment of one party of a federation, whose others are processes of their own.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Experiment, Given, Population, Tools, assemble, cipher, invalid, secret, server_key, session_of};
use crate::config::{Config, ConfigError, federation};
use crate::data::partition::{self, Partition};
use crate::data::{self, Dataset, Split};
use crate::math::prg::{Purpose, Secret, StreamKey};

/// Whose place in a federation an experiment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// The server, which has test data if the config says so, and no client's.
    Server,
    /// A client that has no data yet ([`seat_client`]), or a key holder, which needs none.
    Party {
        /// The run, as the server names it.
        session: [u8; 16],
    },
}

/// The key that deals the data of a run to its clients, for those that have the data of all. It is of no use for anything else.
#[must_use]
pub fn deal_key(experiment: &Experiment) -> [u8; 32] {
    *server_key(&experiment.secret, &experiment.plan.session, Purpose::Partition, experiment.plan.cipher).expose()
}

/// Who has which samples, where every client has the data of all: that of [`deal_key`].
///
/// # Errors
/// Those of [`partition::partition`].
pub fn deal(config: &Config, data: &Dataset, key: [u8; 32]) -> Result<Partition, ConfigError> {
    Ok(partition::partition(data, &config.partition, &StreamKey::from_bytes(key, cipher(config)))?)
}

/// Builds the experiment of a config for one of the parties of a federation. `given.secret` is that of the party alone.
///
/// The plans of all parties are the same, and so are their digests: what depends on data that not all have is refused.
///
/// # Errors
/// As [`super::build`]; what only a simulation has.
pub fn federate(config: &Config, base: &Path, given: Given, seat: Seat) -> Result<Experiment, ConfigError> {
    let clients = federation::check(config)?;
    let evaluates = config.federation.as_ref().is_none_or(|federation| federation.evaluate);
    let tools = Tools::open(config, base, given.trainer, given.device)?;
    let secret = secret(config, given.secret)?;
    let split = match (seat, given.split) {
        (_, Some(split)) => split,
        (Seat::Server, None) if evaluates => Arc::new(data::load(&config.data, base, given.progress)?),
        _ => Arc::new(Split { train: Dataset::empty(), test: Dataset::empty() }),
    };
    if !split.test.is_empty() {
        tools.check_dataset(&split.test)?;
    }
    let session = match seat {
        Seat::Server => session_of(&secret),
        Seat::Party { session } => session,
    };
    let mut h = Sha256::new();
    h.update(b"veilsum federation v1");
    if let Some(start) = &tools.trainers.start {
        h.update(format!("starts from {} {:?}", start.sha256.as_deref().unwrap_or_default(), start.train));
    }
    let population = Population {
        split,
        partition: Partition { clients: vec![Vec::new(); clients as usize] },
        root: Vec::new(),
        data_digest: h.finalize().into(),
        session,
        secret,
    };
    let mut experiment = assemble(config, base, tools, population)?;
    // A round of messages costs more than a file.
    experiment.plan.checkpoint_every = 1;
    Ok(experiment)
}

/// The experiment of a party with the data of client `client`, the samples `shard` of `split`, and its secret.
///
/// # Errors
/// A client that the run does not have; data that the model does not take.
pub fn seat_client(
    party: &Experiment,
    client: u64,
    (split, shard): (Arc<Split>, Vec<usize>),
    secret: Secret,
) -> Result<Experiment, ConfigError> {
    if let Some(model) = &party.model {
        model.architecture()?.check_dataset(&split.train)?;
    }
    let mut shards = vec![Vec::new(); party.plan.clients as usize];
    let Some(place) = shards.get_mut(client as usize) else {
        return Err(invalid("client", format!("below {}, the clients of the run", party.plan.clients), client));
    };
    *place = shard;
    let partition = Arc::new(Partition { clients: shards });
    Ok(Experiment { split, partition, secret, residuals: Arc::default(), gradients: Arc::default(), ..party.clone() })
}
