//! A round as its clients are told of it, where they are processes of their own.
//!
//! Server and clients have the same [`Plan`]. What a round has beside it travels as a [`Notice`]; noise, thresholds, ring and the
//! session of the protocol every client computes itself, so that a server cannot ask for less than the plan says: the session's
//! context is a hash of all of it, and frames of another context are refused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::FlError;
use super::adaptive::ClipState;
use super::asynchrony::Starts;
use super::coordinator::RoundTask;
use super::plan::Plan;
use super::protocol::{Directory, RoundParties};
use crate::math::prg::{Secret, StreamKey};
use crate::secagg::SessionId;
use crate::secagg::mphe::SignedKey;

/// Largest cohort of a notice: that of the protocols.
pub const MOST_CLIENTS: usize = crate::secagg::oneshot::plan::MAX_CLIENTS;

/// What clients of a group are told of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notice {
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 0.
    pub attempt: u32,
    /// Number of the group, from 0.
    pub group: u32,
    /// Clients of the group, ascending.
    pub cohort: Vec<u64>,
    /// The clip bound of the round, where it adapts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Key of the signs of the rotation.
    #[serde(with = "hex::serde")]
    pub signs: [u8; 32],
    /// Key of the graph of masks.
    #[serde(with = "hex::serde")]
    pub graph: [u8; 32],
    /// Key of the map that compresses.
    #[serde(with = "hex::serde")]
    pub compression: [u8; 32],
    /// Milliseconds that a phase waits.
    pub patience: u64,
    /// SHA-256 of the round's input.
    #[serde(with = "hex::serde")]
    pub input: [u8; 32],
}

impl Notice {
    /// The task that a client makes of a notice, with the model that came beside it.
    ///
    /// # Errors
    /// A round, group or cohort that the plan does not have; a clip bound where none adapts, or none where one does; weights
    /// of another length; plans whose rounds need more than a notice says (asynchrony, control variates, a collective key).
    pub fn task(&self, plan: &Plan, directory: &Directory, weights: Vec<f32>) -> Result<RoundTask, FlError> {
        self.check(plan, weights.len())?;
        let key = |bytes| StreamKey::from_bytes(bytes, plan.cipher);
        let clip = match (&plan.adaptive, self.clip) {
            (Some((rule, first)), Some(clip)) => Some(ClipState { clip, ..ClipState::new(*rule, *first) }),
            _ => None,
        };
        let brief = Brief {
            id: SessionId {
                session: plan.grouping.session(&plan.session, self.group),
                round: self.round,
                attempt: self.attempt,
            },
            group: self.group,
            cohort: self.cohort.clone(),
            weights: Arc::new(weights),
            control: None,
            starts: None,
            clip,
            signs: key(self.signs),
            graph: key(self.graph),
            compression: key(self.compression),
            patience: self.patience,
            input: self.input,
        };
        // Nobody is simulated: the secret derives nothing.
        brief.task(plan, directory, &Secret::from_bytes([0; 32]), None)
    }

    fn check(&self, plan: &Plan, weights: usize) -> Result<(), FlError> {
        let bad = |name, expected: String, found: String| Err(FlError::OutOfRange { name, expected, found });
        if self.round == 0 || self.round > plan.rounds {
            return bad("round of a notice", format!("1 to {}", plan.rounds), self.round.to_string());
        }
        if self.cohort.is_empty() || self.cohort.len() > MOST_CLIENTS {
            return bad("cohort of a notice", format!("1 to {MOST_CLIENTS} clients"), self.cohort.len().to_string());
        }
        if let Some(pair) = self.cohort.windows(2).find(|pair| pair[0] >= pair[1]) {
            return bad("cohort of a notice", "ascending, every client once".into(), pair[1].to_string());
        }
        if let Some(&last) = self.cohort.last().filter(|&&last| last >= plan.clients) {
            return bad("client of a notice", format!("below {}", plan.clients), last.to_string());
        }
        if weights != plan.dim {
            return bad("weights of a round", format!("{} values", plan.dim), weights.to_string());
        }
        let adapts = plan.adaptive.is_some();
        if self.clip.is_some() != adapts || self.clip.is_some_and(|clip| !(clip.is_finite() && clip > 0.0)) {
            let expected = if adapts { "a number above 0" } else { "absent: the bound does not adapt" };
            return bad("clip of a notice", expected.into(), format!("{:?}", self.clip));
        }
        if plan.asynchrony.is_some() || plan.controlled {
            let found = if plan.controlled { "scaffold" } else { "asynchrony" };
            return bad("rounds of separate clients", "synchronous, without control variates".into(), found.into());
        }
        Ok(())
    }
}

/// All that a task is made of, beside the plan and the keys of the parties.
pub(super) struct Brief {
    pub(super) id: SessionId,
    pub(super) group: u32,
    pub(super) cohort: Vec<u64>,
    pub(super) weights: Arc<Vec<f32>>,
    pub(super) control: Option<Arc<Vec<f32>>>,
    pub(super) starts: Option<Arc<Starts>>,
    pub(super) clip: Option<ClipState>,
    pub(super) signs: StreamKey,
    pub(super) graph: StreamKey,
    pub(super) compression: StreamKey,
    pub(super) patience: u64,
    pub(super) input: [u8; 32],
}

impl Brief {
    /// The task, the same for the server and for every client.
    pub(super) fn task(
        self,
        plan: &Plan,
        directory: &Directory,
        secret: &Secret,
        key: Option<&Arc<SignedKey>>,
    ) -> Result<RoundTask, FlError> {
        let (round, starts) = (self.id.round, &self.starts);
        let start = |client: &u64| starts.as_ref().and_then(|starts| starts.get(client));
        // Stand-ins add noise like everybody, of which none counts.
        let copies = self.cohort.iter().filter(|client| start(client).is_some_and(|start| start.copy)).count();
        let sharing = self.cohort.len() - copies;
        let (shape, threshold) = (plan.shape()?, plan.threshold(round, sharing));
        // All of them, where clients share the noise.
        let threshold = if threshold > 0 { threshold + copies } else { 0 };
        let uneven = plan.is_exact() && (plan.weights.is_some() || starts.is_some());
        let count = |&client: &u64| plan.count(client, start(&client).map_or(1, |start| start.weight));
        let counts = uneven.then(|| self.cohort.iter().map(count).collect());
        let parties = RoundParties {
            id: self.id,
            shape,
            cohort: &self.cohort,
            threshold,
            sharing,
            counts,
            secret,
            directory,
            patience: self.patience,
            key,
            graph: self.graph,
        };
        Ok(RoundTask {
            id: self.id,
            group: self.group,
            protocol: plan.protocol.session(plan, &parties)?,
            share: plan.share(round, sharing),
            layers: plan.layers(round, sharing),
            threshold,
            operator: plan.operator(&self.compression)?,
            encode: plan.encode_params()?,
            cohort: self.cohort,
            weights: self.weights,
            control: self.control,
            starts: self.starts,
            clip: self.clip,
            signs: self.signs,
            shape,
            patience: self.patience,
            input: self.input,
        })
    }
}
