//! What the coordinator asks of its driver, and what it reports.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Coordinator;
use super::WantedKey;
use crate::fl::adaptive::ClipState;
use crate::fl::asynchrony::{Arrived, SCALE, Start, Starts};
use crate::fl::checkpoint::Checkpoint;
use crate::fl::compress::Operator;
use crate::fl::dropout::{self, Layer};
use crate::fl::protocol::RoundProtocol;
use crate::fl::spend::{EpsilonViews, Stop};
use crate::math::prg::StreamKey;
use crate::model::Evaluation;
use crate::params::EncodeParams;
use crate::privacy::mechanism::NoiseLaw;
use crate::secagg::{SessionId, VectorShape};

/// What the clients of a round need to know: those of one group, where there are several.
#[derive(Clone, Debug)]
pub struct RoundTask {
    /// Session, round and attempt. The session is the group's own.
    pub id: SessionId,
    /// Number of the group, from 0.
    pub group: u32,
    /// Who takes part in this sum, ascending.
    pub cohort: Vec<u64>,
    /// The model they start from: of asynchronous rounds the present one.
    pub weights: Arc<Vec<f32>>,
    /// The server's control variate, where clients have some of their own (SCAFFOLD).
    pub control: Option<Arc<Vec<f32>>>,
    /// Where each of them began, and those of the round's other groups, in asynchronous rounds.
    pub starts: Option<Arc<Starts>>,
    /// The clip bound of this round, where it adapts.
    pub clip: Option<ClipState>,
    /// The map that compresses the vectors, where there is one.
    pub operator: Option<Arc<Operator>>,
    /// What `encode` computes.
    pub encode: EncodeParams,
    /// Public signs of the rotation.
    pub signs: StreamKey,
    /// The noise that each client adds.
    pub share: NoiseLaw,
    /// What it adds beside that, and takes out again as long as few clients vanish.
    pub layers: Vec<Layer>,
    /// The least number of vectors that may be opened.
    pub threshold: usize,
    /// How the vectors are added.
    pub protocol: RoundProtocol,
    /// Shape of the vectors that are added.
    pub shape: VectorShape,
    /// Milliseconds that a phase waits for its parties.
    pub patience: u64,
    /// SHA-256 of the round's input.
    pub input: [u8; 32],
}

impl RoundTask {
    /// The layers of noise, by their place from 0, that are not needed if so many survive.
    #[must_use]
    pub fn excess(&self, survivors: usize) -> Range<usize> {
        dropout::kept(&self.layers, self.cohort.len().saturating_sub(survivors) as u64)..self.layers.len()
    }

    /// Where a client began, in an asynchronous round.
    #[must_use]
    pub fn start(&self, client: u64) -> Option<&Start> {
        self.starts.as_ref()?.get(&client)
    }

    /// What a client's update counts: 1, or 1 to [`SCALE`] in an asynchronous round.
    #[must_use]
    pub fn weight(&self, client: u64) -> u64 {
        match &self.starts {
            None => 1,
            Some(starts) => starts.get(&client).map_or(SCALE, |start| start.weight),
        }
    }
}

/// Layers of noise that were not needed.
#[derive(Clone, Debug)]
pub struct ExcessNoise {
    /// What the clients were asked.
    pub task: Box<RoundTask>,
    /// The survivors, who drew them; [`RoundTask::excess`] of their number says which layers.
    pub clients: Vec<u64>,
}

/// A charge that has to be durable before the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Round.
    pub round: u32,
    /// Attempt.
    pub attempt: u32,
    /// SHA-256 of the round's input.
    pub input: [u8; 32],
}

/// A finished round.
#[derive(Clone, Debug)]
pub struct RoundSummary {
    /// Round, from 1.
    pub round: u32,
    /// Attempt, from 0.
    pub attempt: u32,
    /// Clients asked.
    pub cohort: usize,
    /// Clients in the sum.
    pub survivors: usize,
    /// Epsilon of everything released so far, in both views.
    pub epsilon: EpsilonViews,
    /// L2 norm of the decoded mean.
    pub update_norm: f64,
    /// The clip bound of the round, where it adapts.
    pub clip: Option<f64>,
    /// What came together in an asynchronous round.
    pub arrived: Option<Arrived>,
    /// What a robust rule did, where there is one.
    pub rule: Option<RuleReport>,
    /// Loss and accuracy after the round, in the rounds that evaluate.
    pub evaluation: Option<Evaluation>,
}

/// What a robust rule did in a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Vectors that it was given: clients, or groups with a survivor.
    pub vectors: usize,
    /// The numbers of those that it left out because they held NaN or an infinity.
    pub dropped: Vec<u64>,
    /// The numbers of those that it selected, if it selects some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Vec<u64>>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finish {
    /// All rounds done.
    Complete,
    /// One more release would have cost too much.
    Stopped(Stop),
}

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Draw an epoch, call [`Coordinator::begin_key`] with it, and let the key holders make a key.
    MakeKey(Box<WantedKey>),
    /// Put the attempt on record, then let the cohort work and deliver its frames: the tasks of its groups, at least one.
    Begin(Vec<RoundTask>),
    /// Make the charge durable, then call [`Coordinator::charged`].
    Charge(Charge),
    /// Evaluate the weights, then call [`Coordinator::evaluated`].
    Evaluate(Arc<Vec<f32>>),
    /// Report a finished round.
    Report(Box<RoundSummary>),
    /// Store the state.
    Checkpoint(Box<Checkpoint>),
    /// Nothing more to do.
    Finished(Finish),
}
