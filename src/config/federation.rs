//! What a config says of parties that are processes of their own: how long a server waits for them, and what it bears from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Algorithm, ClientWeights, Config, ConfigError, MechanismName};
use crate::data::partition::PartitionConfig;
use crate::fl::dropout::Excess;
use crate::fl::plan::NoisePlacement;
use crate::fl::protocol::Protocol;

/// How `veilsum serve` runs an experiment; a simulation ignores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FederationConfig {
    /// Seconds that each phase of a round waits for its parties, 0.1 to 86,400. When an attempt had to be given up, the next waits twice
    /// as long, and those after it four times.
    #[serde(default = "minute")]
    pub phase_seconds: f64,
    /// Least number of clients that are connected before a round begins. Absent: as many as a round needs to be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<u64>,
    /// Seconds that a round waits for all of its clients and key holders once the least number is there, 0 to 86,400.
    #[serde(default = "five_seconds")]
    pub gather_seconds: f64,
    /// Whether the server has the test data of `data` and evaluates; without, it needs no data at all.
    #[serde(default = "yes")]
    pub evaluate: bool,
    /// What one party may send.
    #[serde(default)]
    pub limits: Limits,
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self {
            phase_seconds: minute(),
            online: None,
            gather_seconds: five_seconds(),
            evaluate: true,
            limits: Limits::default(),
        }
    }
}

/// What one party may send, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls a second, averaged; ten seconds' worth may come at once.
    #[serde(default = "fifty")]
    pub calls_per_second: f64,
    /// Bytes of uploads that have begun and are not yet part of a round.
    #[serde(default = "four_gib")]
    pub pending_bytes: u64,
    /// Connections of one party that listen at a time; it has four times as many in all.
    #[serde(default = "four")]
    pub connections: u32,
    /// Connections of all parties, and of those that are none yet.
    #[serde(default = "many")]
    pub all_connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls_per_second: fifty(), pending_bytes: four_gib(), connections: four(), all_connections: many() }
    }
}

const fn minute() -> f64 {
    60.0
}

const fn five_seconds() -> f64 {
    5.0
}

const fn yes() -> bool {
    true
}

const fn fifty() -> f64 {
    50.0
}

const fn four_gib() -> u64 {
    4 << 30
}

const fn four() -> u32 {
    4
}

const fn many() -> u32 {
    20_000
}

impl FederationConfig {
    /// Milliseconds that a phase waits.
    #[must_use]
    pub fn patience(&self) -> u64 {
        (self.phase_seconds * 1000.0) as u64
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let bad = |name, expected: &str, found: f64| {
            Err(ConfigError::Invalid { name, expected: expected.to_owned(), found: found.to_string() })
        };
        if !(0.1..=86_400.0).contains(&self.phase_seconds) {
            return bad("federation.phase_seconds", "0.1 to 86400", self.phase_seconds);
        }
        if !(0.0..=86_400.0).contains(&self.gather_seconds) {
            return bad("federation.gather_seconds", "0 to 86400", self.gather_seconds);
        }
        if !(self.limits.calls_per_second.is_finite() && self.limits.calls_per_second > 0.0) {
            return bad("federation.limits.calls_per_second", "finite and > 0", self.limits.calls_per_second);
        }
        Ok(())
    }
}

/// Most clients of a run: as many as a roster that is fetched has room for.
pub const MOST_CLIENTS: u64 = 1 << 20;
/// Most rounds of a run.
pub const MOST_ROUNDS: u32 = 1 << 20;

/// Clients of a config whose parties are processes: the number that its partition names.
///
/// # Errors
/// What only a simulation has; what a client of its own cannot do yet, with what it can.
pub fn check(config: &Config) -> Result<u64, ConfigError> {
    config.federation.clone().unwrap_or_default().validate()?;
    let refuse = |name, expected: &str, found: &str| {
        let expected = format!("{expected} (clients are processes of their own)");
        Err(ConfigError::Invalid { name, expected, found: found.to_owned() })
    };
    let open = matches!(config.privacy.mechanism, MechanismName::None | MechanismName::Quantized);
    if matches!(config.privacy.mechanism, MechanismName::CentralGaussian | MechanismName::Matrix) {
        return refuse(
            "privacy.mechanism",
            "one whose noise the clients add: smm, skellam, binomial, distributed-discrete-gaussian, poisson-binomial",
            "noise of a trusted server",
        );
    }
    if !open && config.privacy.noise != NoisePlacement::PerClient {
        return refuse("privacy.noise", "per_client: every client adds its share", "aggregate");
    }
    if let Some(dropout) = config.privacy.dropout.filter(|dropout| dropout.tolerated > 0.0)
        && dropout.excess == Excess::Removed
    {
        return refuse("privacy.dropout.excess", "kept, with sampling `all`", "removed");
    }
    if matches!(config.secagg, Protocol::Mphe(_)) {
        return refuse("secagg", "oneshot, masks or plain", "mphe");
    }
    if let (Some(size), Protocol::Oneshot(_)) = (config.group_size, &config.secagg) {
        // A key holder is told of one sum a round.
        let found = size.to_string();
        return refuse(
            "group_size",
            "absent under oneshot; groups have sums of their own under masks or plain",
            &found,
        );
    }
    if config.asynchrony.is_some() {
        return refuse("asynchrony", "absent: every round waits for its cohort", "given");
    }
    if config.compression.is_some_and(|compression| compression.error_feedback()) {
        return refuse("compression", "absent, or without error feedback", "error feedback");
    }
    if config.adversary.is_some() {
        return refuse("adversary", "absent", "given");
    }
    if config.aggregation.as_ref().is_some_and(|aggregation| aggregation.root_samples.is_some()) {
        return refuse("aggregation.root_samples", "absent", "given");
    }
    match config.algorithm {
        Algorithm::Scaffold { .. } => return refuse("algorithm", "fed_avg, fed_sgd or dp_sgd", "scaffold"),
        Algorithm::FedAvg { weights: ClientWeights::Samples, .. } => {
            return refuse("algorithm.weights", "uniform", "samples");
        }
        Algorithm::FedAvg { normalized: true, .. } => return refuse("algorithm.normalized", "false", "true"),
        Algorithm::DpSgd { batch_size: None, .. } => {
            return refuse("algorithm.batch_size", "a number: nobody knows the sizes of the shards", "absent");
        }
        _ => {}
    }
    // A party calculates from what a server says: nothing is made by a number that is not bounded.
    if config.rounds > MOST_ROUNDS {
        return refuse("rounds", &format!("at most {MOST_ROUNDS}"), &config.rounds.to_string());
    }
    let clients = match config.partition {
        PartitionConfig::Iid { clients }
        | PartitionConfig::Dirichlet { clients, .. }
        | PartitionConfig::LabelShards { clients, .. } => clients as u64,
        PartitionConfig::PerSample {} => {
            return refuse("partition", "iid, dirichlet or label-shards, with `clients`", "per-sample");
        }
        PartitionConfig::Natural {} => {
            return refuse("partition", "iid, dirichlet or label-shards, with `clients`", "natural");
        }
    };
    if clients > MOST_CLIENTS {
        return refuse("partition.clients", &format!("at most {MOST_CLIENTS}"), &clients.to_string());
    }
    Ok(clients)
}
