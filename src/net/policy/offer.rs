//! What a server offers, as plain data.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fingerprint, LocalTime, Refusal};
use crate::config::{Algorithm, MechanismName};
use crate::fl::plan::NoisePlacement;
use crate::fl::protocol::Protocol;

/// A protocol by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolName {
    /// The server sees every vector.
    Plain,
    /// Masks that cancel in the sum.
    Masks,
    /// One message a client, key holders open the sum.
    Oneshot,
    /// A collective key for many rounds.
    Mphe,
}

impl From<&Protocol> for ProtocolName {
    fn from(protocol: &Protocol) -> Self {
        match protocol {
            Protocol::Plain => Self::Plain,
            Protocol::Masks(_) => Self::Masks,
            Protocol::Oneshot(_) => Self::Oneshot,
            Protocol::Mphe(_) => Self::Mphe,
        }
    }
}

/// An algorithm by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlgorithmName {
    /// The gradient at the server's model.
    FedSgd,
    /// Local SGD.
    FedAvg,
    /// Local SGD with control variates.
    Scaffold,
    /// Local DP-SGD.
    DpSgd,
}

impl From<&Algorithm> for AlgorithmName {
    fn from(algorithm: &Algorithm) -> Self {
        match algorithm {
            Algorithm::FedSgd => Self::FedSgd,
            Algorithm::FedAvg { .. } => Self::FedAvg,
            Algorithm::Scaffold { .. } => Self::Scaffold,
            Algorithm::DpSgd { .. } => Self::DpSgd,
        }
    }
}

/// The key holders of a protocol that has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderOffer {
    /// K: how many there are.
    pub holders: u16,
    /// t: how many open.
    pub needed: u16,
    /// f: how many may be in league with the server without harm.
    pub corrupt: u16,
}

/// A round that a client is asked for. The caller fills it from the server's signed plan, and from what it knows itself: whom it
/// is connected to, its clock, and when it was asked before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// N: clients of the run.
    pub clients: u64,
    /// Clients of this round, or of the group of it that this client is in.
    pub cohort: u64,
    /// The least number of vectors that are opened together.
    pub threshold: u64,
    /// What the releases would cost this client, this round with them, at `delta`, seen by everybody; `None` without a bound.
    pub epsilon_public: Option<f64>,
    /// The same seen by the server.
    pub epsilon_server: Option<f64>,
    /// The delta of both.
    pub delta: f64,
    /// The protocol.
    pub protocol: ProtocolName,
    /// The key holders, with `oneshot` and `mphe` and with no other.
    #[serde(default)]
    pub holders: Option<HolderOffer>,
    /// The mechanism.
    pub mechanism: MechanismName,
    /// Whether it is differentially private for clients.
    pub private: bool,
    /// Who draws the noise.
    pub noise: NoisePlacement,
    /// Name of the model.
    pub model: String,
    /// Parameters that are trained, d.
    pub parameters: u64,
    /// The algorithm.
    pub algorithm: AlgorithmName,
    /// Passes over the client's data in a round, of algorithms that have them.
    #[serde(default)]
    pub epochs: Option<u32>,
    /// Rounds of the run, T.
    pub rounds: u32,
    /// This round, from 1.
    pub round: u32,
    /// SHA-256 of the certificate of the authority (DER) behind the server's certificate.
    pub authority: Fingerprint,
    /// SHA-256 of the roster.
    pub roster: Fingerprint,
    /// Clients whose key is another one than this client has kept: see [`super::changed_keys`].
    #[serde(default)]
    pub changed: Vec<u64>,
    /// When this client took part before, in seconds since 1970; `None`: never.
    #[serde(default)]
    pub previous: Option<u64>,
    /// Now, in seconds since 1970.
    pub now: u64,
    /// Now, on the clock of this client's wall.
    pub local: LocalTime,
}

/// False for the mechanisms that add no noise.
pub(super) const fn is_private(mechanism: MechanismName) -> bool {
    !matches!(mechanism, MechanismName::None | MechanismName::Quantized)
}

impl Offer {
    /// What cannot be true at once: no plan of an honest server says it.
    pub(super) fn contradictions(&self) -> Vec<Refusal> {
        let mut found = Vec::new();
        let mut unless = |holds: bool, what: &'static str, values: &dyn fmt::Display| {
            if !holds {
                found.push(Refusal::Contradiction { what, found: values.to_string() });
            }
        };
        let sizes = format!("threshold {}, cohort {}, clients {}", self.threshold, self.cohort, self.clients);
        unless(
            1 <= self.threshold && self.threshold <= self.cohort && self.cohort <= self.clients,
            "1 <= threshold <= cohort <= clients",
            &sizes,
        );
        let rounds = format!("round {} of {}", self.round, self.rounds);
        unless(1 <= self.round && self.round <= self.rounds, "1 <= round <= rounds", &rounds);
        let private = format!("private {} with mechanism {}", self.private, super::refusal::json(&self.mechanism));
        unless(self.private == is_private(self.mechanism), "`private` as the mechanism is", &private);
        unless(!self.private || (self.delta > 0.0 && self.delta < 1.0), "0 < delta < 1", &self.delta);
        let negative = |epsilon: Option<f64>| epsilon.is_some_and(|epsilon| epsilon.is_nan() || epsilon < 0.0);
        let epsilons = format!("{:?} (public), {:?} (server)", self.epsilon_public, self.epsilon_server);
        unless(!negative(self.epsilon_public) && !negative(self.epsilon_server), "epsilon >= 0", &epsilons);
        let held = matches!(self.protocol, ProtocolName::Oneshot | ProtocolName::Mphe);
        let holders = format!("{:?} with {}", self.holders, super::refusal::json(&self.protocol));
        unless(held == self.holders.is_some(), "key holders with `oneshot` and `mphe` alone", &holders);
        if let Some(HolderOffer { holders: all, needed, corrupt }) = self.holders {
            unless(corrupt < needed && 1 <= needed && needed <= all, "corrupt < needed <= holders", &holders);
        }
        found
    }
}
