//! The server of a run as a sans-I/O machine: select, configure, collect, aggregate, charge, reveal,
//! evaluate. It performs nothing: [`Coordinator::poll_action`] says what the driver has to do next.
//!
//! The order protects privacy: the attempt is on record before a client computes, and the charge is
//! durable before the sum is decoded.

mod arrivals;
mod begin;
mod frames;
mod keys;
mod reveal;
mod saved;
mod task;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use self::arrivals::Arrivals;
use self::keys::RunKey;
pub use self::keys::WantedKey;
use self::reveal::Revealed;
pub use self::task::{Action, Charge, ExcessNoise, Finish, RoundSummary, RoundTask, RuleReport};
use super::adaptive::ClipState;
use super::correlated::RunNoise;
use super::optimizer::ServerOptimizer;
use super::plan::{Direction, Plan};
use super::protocol::{Directory, PATIENCE};
use super::rule::{AggregationConfig, Aggregator};
use super::spend::{EpsilonViews, Spend};
use super::{FlError, SERVER, scaffold};
use crate::backend::Backend;
use crate::math::prg::{Address, Purpose, Secret, StreamKey};
use crate::model::Evaluation;
use crate::sample::noise::Noise;
use crate::secagg::mphe::KeyServer;
use crate::secagg::{Output, Party, SessionId, Transmit};

/// How often the phases of a round's attempts grow to twice their length: four times it is enough for parties that are slow, and not
/// too long to wait for those that are gone.
const MOST_DOUBLINGS: u32 = 2;

/// A group whose vectors are collected.
struct Collecting {
    server: Box<dyn Party>,
    task: RoundTask,
    sum: Option<(Vec<u64>, Vec<u64>)>,
}

/// The sum of a group, not yet decoded.
struct GroupSum {
    task: RoundTask,
    words: Vec<u64>,
    survivors: Vec<u64>,
}

enum State {
    Ready,
    Keyless(Box<WantedKey>),
    Keying { id: SessionId, server: Box<KeyServer>, wanted: Box<WantedKey> },
    Collecting(Vec<Collecting>),
    Charging(Vec<GroupSum>),
    Evaluating(Box<RoundSummary>),
    Finished,
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready for the next round",
            Self::Keyless(_) => "waiting for the epoch of a key",
            Self::Keying { .. } => "waiting for a key",
            Self::Collecting(_) => "collecting",
            Self::Charging(_) => "waiting for the charge to be durable",
            Self::Evaluating(_) => "waiting for an evaluation",
            Self::Finished => "finished",
        }
    }
}

/// The server of a run.
pub struct Coordinator {
    plan: Plan,
    plan_digest: [u8; 32],
    secret: Secret,
    backend: Arc<dyn Backend>,
    spend: Spend,
    weights: Arc<Vec<f32>>,
    optimizer: Box<dyn ServerOptimizer>,
    round: u32,
    steps: u64,
    /// The table of the noise that is added here, and its mu.
    table: Option<(f64, Noise)>,
    /// The clip bound of the next round, where it adapts.
    clip: Option<ClipState>,
    /// Noise that is correlated over the rounds.
    noise: Option<RunNoise>,
    /// The robust rule, and the last aggregate of it.
    aggregator: Option<Aggregator>,
    aggregate: Vec<f32>,
    /// The server's control variate, where clients have some of their own.
    control: Option<Arc<Vec<f32>>>,
    /// The server's own update of the round, where the rule wants one.
    root: Option<Vec<f32>>,
    /// The keys of the survivors' layers of noise that were not needed.
    told: BTreeMap<u64, Vec<StreamKey>>,
    /// The collective key, where the protocol has one.
    key: Option<RunKey>,
    /// Last frames of the machine that made it, and the id of its session.
    parting: (SessionId, VecDeque<Transmit>),
    /// Who arrives when, where rounds do not wait.
    arrivals: Option<Arrivals>,
    /// A hash of what the clients' rows depend on beside the weights, where they keep something.
    kept: Option<[u8; 32]>,
    /// Bytes of the clients' frames, and clients in the sums.
    received: (u64, u64),
    /// Whose keys the parties have, and the milliseconds that a phase waits for them.
    directory: Directory,
    patience: u64,
    state: State,
    pending: VecDeque<Action>,
}

impl Coordinator {
    /// A coordinator at round 0 with `weights`.
    pub fn new(
        plan: Plan,
        secret: Secret,
        backend: Arc<dyn Backend>,
        weights: Vec<f32>,
        spend: Spend,
    ) -> Result<Self, FlError> {
        plan.validate()?;
        if weights.len() != plan.dim {
            return Err(FlError::OutOfRange {
                name: "weights",
                expected: format!("{} values", plan.dim),
                found: weights.len().to_string(),
            });
        }
        let noise = match plan.mechanism.correlation() {
            Some(correlation) => Some(RunNoise::new(correlation.strategy, plan.shape()?.len as usize)),
            None => None,
        };
        let weights = Arc::new(weights);
        let arrivals = plan.asynchrony.clone().map(|rules| {
            let address = Address { client: SERVER, ..Address::default() };
            let key = secret.derive(&plan.session, address, Purpose::Arrivals, plan.cipher);
            Arrivals::new(rules, plan.clients, &key, &weights)
        });
        Ok(Self {
            clip: plan.adaptive.map(|(rule, first)| ClipState::new(rule, first)),
            noise,
            aggregator: plan.aggregation.as_ref().map(AggregationConfig::build).transpose()?,
            aggregate: Vec::new(),
            root: None,
            control: plan.controlled.then(|| Arc::new(vec![0.0; plan.dim])),
            plan_digest: plan.digest()?,
            optimizer: plan.server.build(plan.dim),
            plan,
            secret,
            backend,
            spend,
            weights,
            round: 0,
            steps: 0,
            table: None,
            told: BTreeMap::new(),
            key: None,
            parting: (SessionId { session: [0; 16], round: 0, attempt: 0 }, VecDeque::new()),
            arrivals,
            kept: None,
            received: (0, 0),
            directory: Directory::Simulated,
            patience: PATIENCE,
            state: State::Ready,
            pending: VecDeque::new(),
        })
    }

    /// Pins the keys of the parties of the next rounds, and says how many milliseconds each phase of a first attempt waits for them. A driver says
    /// it that does not play them.
    pub fn pin(&mut self, directory: Directory, patience: u64) {
        (self.directory, self.patience) = (directory, patience);
    }

    /// Milliseconds that each phase of an attempt waits. Those of the next attempt of the same round wait twice as long, and of all after
    /// it four times: who was too slow for the first, and not gone, is in time then.
    #[must_use]
    pub fn patience(&self, attempt: u32) -> u64 {
        self.patience << attempt.min(MOST_DOUBLINGS)
    }

    /// Begins the round in progress once more, as if nothing of it had been heard: for a driver that will bring again what it
    /// has on record, in the same order. True if there was one.
    pub fn rewind(&mut self) -> bool {
        let working = matches!(self.state, State::Collecting(_) | State::Keyless(_) | State::Keying { .. });
        if working {
            self.state = State::Ready;
        }
        working
    }

    /// Gives up the attempt in progress, of which nothing was released. The round takes another attempt number, since the
    /// parties answer once under each. `None` if nothing is collected.
    pub fn give_up(&mut self) -> Option<SessionId> {
        let State::Collecting(groups) = &self.state else { return None };
        let id = groups.first()?.task.id;
        self.spend.abandon(id.round, id.attempt);
        self.rewind();
        Some(id)
    }

    /// True between two rounds: [`Self::poll_action`] would begin the next one, or end the run.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        matches!(self.state, State::Ready) && self.pending.is_empty()
    }

    /// True while vectors are collected, or their sum is opened.
    #[must_use]
    pub const fn is_collecting(&self) -> bool {
        matches!(self.state, State::Collecting(_))
    }

    /// The constants of the run.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The present model.
    #[must_use]
    pub fn weights(&self) -> Arc<Vec<f32>> {
        Arc::clone(&self.weights)
    }

    /// The last finished round.
    #[must_use]
    pub const fn round(&self) -> u32 {
        self.round
    }

    /// Tells a hash of what the clients' rows depend on beside the weights, from the next round on: what they keep of earlier rounds
    /// is part of a round's input. A driver that plays the clients says it; each real one keeps track of its own.
    pub const fn clients_keep(&mut self, digest: [u8; 32]) {
        self.kept = Some(digest);
    }

    /// True if the rule wants the server's own update of a round: [`Self::trust`].
    #[must_use]
    pub fn wants_root(&self) -> bool {
        self.plan.aggregation.as_ref().is_some_and(AggregationConfig::needs_root)
    }

    /// The server's own update from the present model, before [`Self::charged`].
    ///
    /// # Errors
    /// Another length than the model's.
    pub fn trust(&mut self, update: Vec<f32>) -> Result<(), FlError> {
        if update.len() != self.plan.dim {
            let (expected, found) = (format!("{} values", self.plan.dim), update.len().to_string());
            return Err(FlError::OutOfRange { name: "the server's own update", expected, found });
        }
        self.root = Some(update);
        Ok(())
    }

    /// The clients in the sums, ascending, once these are complete and before they are revealed.
    #[must_use]
    pub fn survivors(&self) -> Option<Vec<u64>> {
        let State::Charging(sums) = &self.state else { return None };
        let mut all: Vec<u64> = sums.iter().flat_map(|sum| sum.survivors.iter().copied()).collect();
        all.sort_unstable();
        Some(all)
    }

    /// Mean bytes that a client of a sum has sent for it so far, all frames of the protocol together; `None` before the first.
    #[must_use]
    pub fn bytes_up(&self) -> Option<f64> {
        let (bytes, clients) = self.received;
        (clients > 0).then(|| bytes as f64 / clients as f64)
    }

    /// Goes on with `backend` after the device of the present one was lost. True if the round in progress begins again. So
    /// does a key in the making, under another epoch.
    ///
    /// While frames are collected the round is given up, and what came in is dropped unseen. It begins again with a new
    /// attempt number, since rows that are encoded elsewhere are another plaintext (a coordinate may differ in its last
    /// bit), and a key noises one.
    ///
    /// A sum that is complete stays, under the charge that it has or is about to get. It lies on the host; its noise is
    /// in it or is an integer that comes out the same everywhere; so [`Self::charged`], called again, makes the same
    /// noised sum and decodes it here. Whatever the device had decoded was never returned: one charge, one release.
    pub fn move_to(&mut self, backend: Arc<dyn Backend>) -> bool {
        self.backend = backend;
        self.rewind()
    }

    /// Epsilon of all that is charged up to the last finished round; of the samples of clients that run DP-SGD, of all that
    /// has begun.
    pub fn epsilon(&self) -> Result<EpsilonViews, FlError> {
        self.spend.standing(self.round)
    }

    /// What to do next; `None` while the coordinator waits for the driver.
    pub fn poll_action(&mut self) -> Result<Option<Action>, FlError> {
        if let Some(action) = self.pending.pop_front() {
            return Ok(Some(action));
        }
        match &self.state {
            State::Ready => self.next_round().map(Some),
            _ => Ok(None),
        }
    }

    fn key(&self, round: u32, attempt: u32, purpose: Purpose) -> StreamKey {
        self.copied_key(round, attempt, purpose, 0)
    }

    /// The same for further draws of one kind.
    fn copied_key(&self, round: u32, attempt: u32, purpose: Purpose, copy: u32) -> StreamKey {
        let address = Address { client: SERVER, round, attempt, copy };
        self.secret.derive(&self.plan.session, address, purpose, self.plan.cipher)
    }

    fn out_of_order(&self, event: &'static str) -> FlError {
        FlError::OutOfOrder { event, state: self.state.name() }
    }

    /// Moves on to the charge when every group has its sum, and to the round when there is a key.
    fn collect(&mut self) -> Result<(), FlError> {
        if matches!(self.state, State::Keying { .. }) {
            return self.collect_key();
        }
        let State::Collecting(groups) = &mut self.state else { return Ok(()) };
        for Collecting { server, task, sum } in groups.iter_mut() {
            let (survivors, threshold) = match server.poll_output() {
                None | Some(Output::Delivered) => continue,
                Some(Output::Aborted { survivors, threshold }) => (survivors, threshold),
                // A client that vanished took its share of the noise along: less noise than is accounted.
                Some(Output::Sum { survivors, .. }) if survivors.len() < task.threshold => {
                    (survivors.len(), task.threshold)
                }
                Some(Output::Sum { mut words, survivors }) => {
                    // What is opened under a lattice key are integers of a wider ring: the bits of the model are those of the
                    // round's.
                    let ring = (1u64 << task.shape.bits) - 1;
                    words.iter_mut().for_each(|word| *word &= ring);
                    self.received.1 += survivors.len() as u64;
                    *sum = Some((words, survivors));
                    continue;
                }
            };
            return Err(FlError::Aborted { round: task.id.round, survivors, threshold });
        }
        if groups.iter().any(|group| group.sum.is_none()) {
            return Ok(());
        }
        let sums = groups.drain(..).filter_map(|Collecting { task, sum, .. }| {
            let (words, survivors) = sum?;
            Some(GroupSum { task, words, survivors })
        });
        let sums: Vec<GroupSum> = sums.collect();
        if let Some(GroupSum { task, .. }) = sums.first() {
            let SessionId { round, attempt, .. } = task.id;
            self.pending.push_back(Action::Charge(Charge { round, attempt, input: task.input }));
        }
        self.state = State::Charging(sums);
        Ok(())
    }

    /// The driver has made the charge durable and asked for the noise to take out: reveal, decode, step. After an error of
    /// the backend the sums are still there, and the call may be repeated (see [`Self::move_to`]).
    pub fn charged(&mut self) -> Result<(), FlError> {
        let sums = match std::mem::replace(&mut self.state, State::Ready) {
            State::Charging(sums) => sums,
            other => {
                self.state = other;
                return Err(self.out_of_order("a charge"));
            }
        };
        let Some(id) = sums.first().map(|sum| sum.task.id) else { return Ok(()) };
        self.spend.charge(id.round, id.attempt)?;
        let Revealed { mut mean, share, rule } = match self.reveal_all(&sums) {
            Ok(revealed) => revealed,
            Err(e) => {
                self.state = State::Charging(sums);
                return Err(e);
            }
        };
        let (cohort, survivors) =
            sums.iter().fold((0, 0), |(c, s), sum| (c + sum.task.cohort.len(), s + sum.survivors.len()));
        let clip = self.clip.map(|state| state.clip);
        self.mix(&mut mean, &sums);
        drop(sums);
        if let Some(control) = &mut self.control {
            let (delta, change) = mean.split_at(self.plan.dim.min(mean.len()));
            scaffold::advance(
                Arc::make_mut(control).as_mut_slice(),
                change,
                survivors as f64 / self.plan.clients as f64,
            )?;
            mean = delta.into();
        }
        if let (Some(state), Some(share)) = (&mut self.clip, share) {
            *state = state.next(share);
        }
        if rule.is_some() {
            self.aggregate = mean.to_vec();
        }
        self.told.clear();
        self.root = None;
        if let Some(noise) = &mut self.noise {
            noise.released();
        }
        let update_norm = mean.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if self.plan.direction == Direction::Delta {
            mean.iter_mut().for_each(|x| *x = -*x);
        }
        if self.plan.is_private() || survivors > 0 {
            let weights = Arc::make_mut(&mut self.weights);
            self.optimizer.step(weights, &mean);
            self.steps += 1;
            if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
                return Err(FlError::OutOfRange {
                    name: "weights",
                    expected: format!("finite after round {} (lower server.learning_rate or the clip)", id.round),
                    found: format!("{} at parameter {i}", weights[i]),
                });
            }
        }
        self.round = id.round;
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.keep(self.round, &self.weights);
        }
        let summary = Box::new(RoundSummary {
            round: self.round,
            attempt: id.attempt,
            cohort,
            survivors,
            epsilon: self.spend.epsilon(self.round)?,
            update_norm,
            clip,
            arrived: self.arrivals.as_ref().and_then(Arrivals::report),
            rule,
            evaluation: None,
        });
        if self.round.is_multiple_of(self.plan.evaluate_every) || self.round == self.plan.rounds {
            self.pending.push_back(Action::Evaluate(Arc::clone(&self.weights)));
            self.state = State::Evaluating(summary);
        } else {
            self.finish_round(summary);
        }
        Ok(())
    }

    /// The driver has evaluated the weights of [`Action::Evaluate`].
    pub fn evaluated(&mut self, evaluation: Evaluation) -> Result<(), FlError> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Evaluating(mut summary) => {
                summary.evaluation = Some(evaluation);
                self.finish_round(summary);
                Ok(())
            }
            other => {
                self.state = other;
                Err(self.out_of_order("an evaluation"))
            }
        }
    }

    /// The driver has no test data: the round of [`Action::Evaluate`] is reported without an evaluation.
    ///
    /// # Errors
    /// In any other state.
    pub fn unevaluated(&mut self) -> Result<(), FlError> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Evaluating(summary) => {
                self.finish_round(summary);
                Ok(())
            }
            other => {
                self.state = other;
                Err(self.out_of_order("a round without an evaluation"))
            }
        }
    }

    fn finish_round(&mut self, summary: Box<RoundSummary>) {
        self.pending.push_back(Action::Report(summary));
        if self.round.is_multiple_of(self.plan.checkpoint_every) || self.round == self.plan.rounds {
            self.pending.push_back(Action::Checkpoint(Box::new(self.checkpoint())));
        }
    }
}
