//! The constants of a run, validated once; what a round's bits depend on beside the weights.

mod checks;

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::FlError;
use super::adaptive::AdaptiveClip;
use super::asynchrony::staleness::Staleness;
use super::asynchrony::{Asynchrony, SCALE, Update};
use super::cohort::Sampling;
use super::compress::{Compression, Operator};
use super::dropout::{Dropout, Layer, Shares};
use super::groups::Grouping;
use super::optimizer::OptimizerConfig;
use super::protocol::Protocol;
use super::rule::AggregationConfig;
use super::samples::SampleLevel;
use crate::math::prg::{Cipher, StreamKey};
use crate::params::EncodeParams;
use crate::privacy::accountant::Rule;
use crate::privacy::ledger::Cost;
use crate::privacy::ledger::tab::{Costs, stage_of};
use crate::privacy::mechanism::distributed_gaussian::{DistributedGaussian, largest_cohort};
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::privacy::{DpEvent, truncation};
use crate::sample::table::NoiseTable;
use crate::sample::table::discrete_gaussian::MAX_SIGMA;
use crate::secagg::VectorShape;

/// Who draws the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoisePlacement {
    /// Every client of the cohort adds its share: the cohort's size m is announced, each adds
    /// Sk(mu_tot / m), so that the sum carries Sk(mu_tot) whatever m is (a discrete Gaussian of
    /// `sigma_tot / sqrt(m)`, or an m-th of the coins, likewise). An empty cohort's noise is added by the server.
    PerClient,
    /// The sum of all shares is drawn once from the summed law (Skellam and binomial are closed under sums): the same
    /// distribution, m times cheaper. A simulation only: nobody but the simulator may see the sum before.
    Aggregate,
}

/// What the vectors of the clients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Gradients: the server steps against their mean.
    Gradient,
    /// Deltas `w_after - w_before`: the server steps along their mean.
    Delta,
}

/// Another noise from some round on.
#[derive(Clone, Debug)]
pub struct Later {
    /// Its first round, at least 2.
    pub from: u32,
    /// The mechanism of the first rounds with another noise: encoding, unit and neighbours are the same.
    pub mechanism: Arc<dyn Mechanism>,
}

/// The widest ring of an exact sum.
const MOST_BITS: u32 = 63;

/// Exact reports of epsilon in a run, at most about so many: each is a query to the accountant of privacy losses.
const EXACT_REPORTS: u64 = 64;

/// The constants of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Identity of the run in every frame and key.
    pub session: [u8; 16],
    /// Number of clients N.
    pub clients: u64,
    /// Expected size n of a cohort.
    pub cohort: f64,
    /// How cohorts are drawn.
    pub sampling: Sampling,
    /// How rounds go on without waiting for everybody; `sampling` is `all` then, and `cohort` the expected arrivals of a round.
    pub asynchrony: Option<Asynchrony>,
    /// How a cohort is divided into groups, of which each has its own sum.
    pub grouping: Grouping,
    /// The robust rule that makes one vector of the groups' means; none: their mean.
    pub aggregation: Option<AggregationConfig>,
    /// Rounds T.
    pub rounds: u32,
    /// Number of parameters d.
    pub dim: usize,
    /// What is computed and what it costs, up to the first of `later`.
    pub mechanism: Arc<dyn Mechanism>,
    /// Stages with another noise, ascending; none: all rounds alike.
    pub later: Vec<Later>,
    /// Which accountants add up the cost.
    pub rule: Rule,
    /// A clip bound that adapts, with its first value; the mechanism's bound is then [`AdaptiveClip::joint_clip`] of that,
    /// and its rows have one coordinate more.
    pub adaptive: Option<(AdaptiveClip, f64)>,
    /// How vectors are shortened before they are clipped; none: they are not.
    pub compression: Option<Compression>,
    /// Who draws the noise.
    pub placement: NoisePlacement,
    /// How much noise stays when clients vanish; none: all of a cohort must deliver where clients draw the noise.
    pub dropout: Option<Dropout>,
    /// The part of the noise that the server adds to the sum, in [0, 1): the clients' part protects from the server, both
    /// together from everybody else.
    pub server_share: f64,
    /// The protocol that adds the vectors.
    pub protocol: Protocol,
    /// What the vectors are.
    pub direction: Direction,
    /// Public integer weights, one a client; only without differential privacy.
    pub weights: Option<Arc<Vec<u64>>>,
    /// Whether control variates travel beside the deltas (SCAFFOLD): vectors are twice as long; only without differential privacy.
    pub controlled: bool,
    /// `|a|_1` of every client's local steps, where deltas are normalized by it (FedNova); only without differential privacy.
    pub local_steps: Option<Arc<Vec<f64>>>,
    /// Local DP-SGD, with an account of its own beside that of the clients' vectors; none: clients add no noise for their samples.
    pub samples: Option<SampleLevel>,
    /// delta of the reported epsilon, in (0, 1).
    pub delta: f64,
    /// The run stops before the public epsilon would exceed this.
    pub epsilon_budget: Option<f64>,
    /// Server optimizer.
    pub server: OptimizerConfig,
    /// Evaluate every so many rounds (and after the last).
    pub evaluate_every: u32,
    /// Checkpoint every so many rounds.
    pub checkpoint_every: u32,
    /// Stream cipher of all randomness.
    pub cipher: Cipher,
    /// SHA-256 of the training data and their partition.
    pub data_digest: [u8; 32],
}

impl Plan {
    /// Checks what no single part can check.
    pub fn validate(&self) -> Result<(), FlError> {
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: expected.to_string(), found })
        };
        if self.clients == 0 {
            return bad("clients", "at least 1", "0".into());
        }
        if !(self.cohort.is_finite() && self.cohort > 0.0 && self.cohort <= self.clients as f64) {
            return bad("cohort", &format!("in (0, {}]", self.clients), self.cohort.to_string());
        }
        if self.rounds == 0 || self.evaluate_every == 0 || self.checkpoint_every == 0 {
            return bad("rounds, evaluation.every and checkpoint.every", "at least 1", "0".into());
        }
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return bad("privacy.delta", "in (0, 1)", self.delta.to_string());
        }
        if self.is_private() {
            if self.sampling == Sampling::Fixed {
                return bad(
                    "sampling",
                    "`poisson` or `all` under differential privacy (a fixed-size draw is not the Poisson sample that is accounted)",
                    "fixed".into(),
                );
            }
            if self.weights.is_some() {
                return bad(
                    "algorithm.weights",
                    "uniform under differential privacy (the sum of data-dependent weights would be released exactly)",
                    "samples".into(),
                );
            }
        } else if self.weights.is_some() && !self.is_exact() {
            return bad("algorithm.weights", "uniform where the sum is in a narrow ring", "samples".into());
        }
        if self.local_steps.is_some() && self.is_private() {
            return bad(
                "algorithm.normalized",
                "false under differential privacy (the mean number of local steps would be released exactly)",
                "true".into(),
            );
        }
        if self.local_steps.is_some() && self.counts_whole() {
            return bad("algorithm.normalized", "false beside this `asynchrony.update`, or `mean`", "true".into());
        }
        if self.is_exact() && self.wide_bits() > MOST_BITS {
            return bad(
                "algorithm.weights",
                "a total weight of all clients, times that of a fresh update, below 2^31: no sum may overflow 63 bits",
                format!("weights that take {} bits", self.wide_bits()),
            );
        }
        self.check_controls()?;
        self.check_compression()?;
        if self.placement == NoisePlacement::Aggregate
            && let NoiseLaw::DiscreteGaussianShares { .. } = self.mechanism.noise()
        {
            return bad(
                "privacy.noise",
                "`per_client` (the sum of discrete Gaussians is no discrete Gaussian, and cannot be drawn at once)",
                "aggregate".into(),
            );
        }
        self.check_grouping()?;
        self.check_asynchrony()?;
        self.check_aggregation()?;
        self.check_coins()?;
        self.check_dropout()?;
        self.check_server_share()?;
        self.protocol.validate(self)?;
        if self.placement == NoisePlacement::PerClient && self.is_private() && !self.mechanism.distributed() {
            return bad(
                "privacy.noise",
                "`aggregate` (this mechanism's noise is added once, by a trusted aggregator)",
                "per_client".into(),
            );
        }
        self.check_correlation()?;
        self.check_adaptive()?;
        if let Some((name, expected, found)) = self.server.out_of_range() {
            return bad(name, expected, found.to_string());
        }
        self.check_stages()?;
        self.check_truncation()?;
        self.samples.as_ref().map_or(Ok(()), |samples| samples.check(self))?;
        self.encode_params().map(|_| ())
    }

    /// Rounds of each stage.
    fn stage_rounds(&self) -> impl Iterator<Item = u64> {
        let starts = std::iter::once(1).chain(self.later.iter().map(|later| later.from));
        let ends = self.later.iter().map(|later| later.from).chain([self.rounds.saturating_add(1)]);
        starts.zip(ends).map(|(start, end)| u64::from(end.saturating_sub(start)))
    }

    /// The mechanism of a round, from 1.
    #[must_use]
    pub fn mechanism_of(&self, round: u32) -> &Arc<dyn Mechanism> {
        match stage_of(self.stage_rounds(), round) {
            0 => &self.mechanism,
            stage => &self.later[stage - 1].mechanism,
        }
    }

    /// The mechanism of each stage and its number of rounds.
    pub fn stages(&self) -> impl Iterator<Item = (&Arc<dyn Mechanism>, u64)> {
        let mechanisms = std::iter::once(&self.mechanism).chain(self.later.iter().map(|later| &later.mechanism));
        mechanisms.zip(self.stage_rounds())
    }

    /// Expected number of clients of one sum.
    #[must_use]
    pub fn expected_size(&self) -> f64 {
        self.grouping.expected_size(self.cohort)
    }

    /// The part of a round's Skellam noise that the clients add together.
    fn clients_part(&self, mu: f64) -> f64 {
        mu * (1.0 - self.server_share)
    }

    /// The map that compresses the vectors of a round, drawn from a key of its attempt.
    pub(super) fn operator(&self, key: &StreamKey) -> Result<Option<Arc<Operator>>, FlError> {
        let draw = |compression| Ok(Arc::new(Operator::draw(compression, self.dim, key)?));
        self.compression.as_ref().map(draw).transpose()
    }

    /// Coordinates of a client's vector: those of the model or what compression leaves of them, and one more where the clip
    /// bound adapts.
    #[must_use]
    pub fn row_dim(&self) -> usize {
        let dim = self.compression.map_or(self.dim, |compression| compression.size(self.dim));
        let dim = if self.controlled { 2 * dim } else { dim };
        dim + usize::from(self.adaptive.is_some())
    }

    /// True if the sum is carried in a ring as wide as it takes, and not in the mechanism's.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.mechanism.exact()
    }

    /// True if releases cost a finite epsilon.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.mechanism.event(self.row_dim()) != DpEvent::NonPrivate
    }

    /// What a client computes.
    pub fn encode_params(&self) -> Result<EncodeParams, FlError> {
        Ok(self.mechanism.encode_params(self.row_dim())?)
    }

    /// The ring of the sum. Of `none` it is wide enough for the exact weighted sum.
    pub fn shape(&self) -> Result<VectorShape, FlError> {
        let params = self.encode_params()?;
        let bits = if self.is_exact() { self.wide_bits() } else { params.bits };
        Ok(VectorShape { len: params.padded, bits })
    }

    /// How often an update counts in an exact sum: the client's own weight times that of its staleness.
    #[must_use]
    pub fn count(&self, client: u64, staleness: u64) -> u64 {
        let own = self.weights.as_ref().map_or(1, |w| w.get(client as usize).copied().unwrap_or(0));
        own.saturating_mul(staleness)
    }

    /// `|a|_1` of a client's local steps, where deltas are normalized.
    #[must_use]
    pub fn steps_of(&self, client: u64) -> Option<f64> {
        Some(self.local_steps.as_ref()?.get(client as usize).copied().unwrap_or(0.0))
    }

    /// What an update counts that is not stale: [`Self::count`] of it is the most of its client.
    #[must_use]
    pub fn whole_weight(&self) -> u64 {
        if self.asynchrony.is_some() { SCALE } else { 1 }
    }

    /// Whether stale updates make a round's step shorter, so that it is divided by what fresh ones would count.
    #[must_use]
    pub fn counts_whole(&self) -> bool {
        self.asynchrony.as_ref().is_some_and(|rules| rules.config.update != Update::Mean)
    }

    /// 32 bits a value and the total weight of all clients: no cohort can overflow it. [`Self::validate`] refuses more than 63.
    fn wide_bits(&self) -> u32 {
        let total: u64 = match &self.weights {
            Some(w) => w.iter().fold(0, |a, &x| a.saturating_add(x)),
            None => self.clients,
        };
        let total = total.saturating_mul(self.whole_weight());
        32 + 64 - total.leading_zeros()
    }

    /// Probability that a client takes part in a round.
    #[must_use]
    pub fn sampling_rate(&self) -> f64 {
        self.sampling.rate(self.clients, self.cohort)
    }

    /// The share of a round's noise that one client of a cohort of `size` adds.
    #[must_use]
    pub fn share(&self, round: u32, size: usize) -> NoiseLaw {
        match (self.placement, self.mechanism_of(round).noise()) {
            // Rounded up, so that the shares never add up to less than mu_tot.
            (NoisePlacement::PerClient, NoiseLaw::Skellam { mu }) if size > 0 => {
                let mu = self.clients_part(mu);
                let alike = (mu / size as f64).next_up();
                NoiseLaw::Skellam { mu: self.dropout.map_or(alike, |dropout| dropout.shares(mu, size as u64).first) }
            }
            (NoisePlacement::PerClient, NoiseLaw::DiscreteGaussianShares { sigma_total, .. }) if size > 0 => {
                NoiseLaw::DiscreteGaussian { sigma: (sigma_total / (size as f64).sqrt()).next_up() }
            }
            // `check_coins` has seen that the quotient is exact.
            (NoisePlacement::PerClient, NoiseLaw::CenteredBinomial { coins }) if size > 0 => {
                NoiseLaw::CenteredBinomial { coins: coins / size as u64 }
            }
            _ => NoiseLaw::None,
        }
    }

    /// What each client of a cohort of `size` adds beside its share, and takes out again as long as few vanish.
    #[must_use]
    pub fn layers(&self, round: u32, size: usize) -> Vec<Layer> {
        match (self.dropout, self.placement, self.mechanism_of(round).noise()) {
            (Some(dropout), NoisePlacement::PerClient, NoiseLaw::Skellam { mu }) if size > 0 => {
                dropout.shares(self.clients_part(mu), size as u64).layers
            }
            _ => Vec::new(),
        }
    }

    /// The least number of a cohort of `size` whose vectors may be opened: clients that vanish take their shares of the
    /// noise along.
    #[must_use]
    pub fn threshold(&self, round: u32, size: usize) -> usize {
        match (self.share(round, size), self.dropout) {
            (NoiseLaw::None, _) => 0,
            (_, None) => size,
            (_, Some(dropout)) => size - dropout.tolerable(size as u64) as usize,
        }
    }

    /// What the sum of a group is divided by. Its expected size is a public constant: under sampling the true size is
    /// private. Where all clients are asked, or nothing is private, so many as delivered.
    #[must_use]
    pub fn divisor(&self, survivors: usize) -> f64 {
        let public = self.sampling == Sampling::All || !self.is_private();
        if public && survivors > 0 { survivors as f64 } else { self.expected_size() }
    }

    /// The noise that is left for the aggregator after a cohort of `size` has added its shares: its own part, and all of it
    /// where there is nobody to add the rest.
    #[must_use]
    pub fn remainder(&self, round: u32, size: usize) -> NoiseLaw {
        match (self.share(round, size), self.mechanism_of(round).noise()) {
            // An empty cohort's: exactly what a cohort's sum is near to.
            (NoiseLaw::None, NoiseLaw::DiscreteGaussianShares { sigma_total, .. }) => {
                NoiseLaw::DiscreteGaussian { sigma: sigma_total }
            }
            (NoiseLaw::None, noise) => noise,
            (_, NoiseLaw::Skellam { mu }) if self.server_share > 0.0 => {
                NoiseLaw::Skellam { mu: (mu * self.server_share).next_up() }
            }
            _ => NoiseLaw::None,
        }
    }

    /// Bound of the total variation distance between the noise of one release as drawn and as accounted:
    /// the error of one draw times the number of draws (at most one a coordinate and client, and the server's).
    fn sampler_error(&self, mechanism: &dyn Mechanism) -> Result<f64, FlError> {
        let (one, more) = match mechanism.noise() {
            // The table of the whole sum has the most thresholds, and with them the largest error.
            NoiseLaw::Skellam { mu } => (NoiseTable::skellam(mu)?.total_variation, 0.0),
            NoiseLaw::DiscreteGaussianShares { sigma_total, .. } => {
                let widest = NoiseTable::discrete_gaussian(sigma_total.min(MAX_SIGMA))?.total_variation;
                let larger = if self.sampling == Sampling::All { 0.0 } else { DistributedGaussian::overflow() };
                // What lies twelve standard deviations out, in each coordinate: see the accountant.
                (widest, larger + 1e-31 * f64::from(self.encode_params()?.padded))
            }
            _ => return Ok(0.0),
        };
        let (draws, more) = match (self.placement, self.dropout) {
            (NoisePlacement::Aggregate, _) => (1.0, more),
            (NoisePlacement::PerClient, None) => (self.clients as f64, more),
            (NoisePlacement::PerClient, Some(dropout)) => {
                let most = largest_cohort(self.cohort, self.sampling_rate()).min(self.clients);
                let larger = if self.sampling == Sampling::All { 0.0 } else { DistributedGaussian::overflow() };
                let Shares { layers, .. } = dropout.shares(1.0, most);
                (most as f64 * (1.0 + layers.len() as f64), more + larger)
            }
        };
        let draws = if self.server_share > 0.0 { draws + 1.0 } else { draws };
        Ok(one * f64::from(self.encode_params()?.padded) * draws + more)
    }

    /// Bound of the probability that a cohort is cut.
    fn truncation(&self) -> f64 {
        match self.sampling {
            Sampling::TruncatedPoisson { most } => truncation::excess(self.clients, self.sampling_rate(), most),
            _ => 0.0,
        }
    }

    /// What one release of a mechanism costs, in both views; the whole run where its noise is correlated.
    fn cost(&self, mechanism: &dyn Mechanism) -> Result<Cost, FlError> {
        let all = mechanism.event(self.row_dim());
        // `check_server_share` has seen that there is such a part.
        let clients =
            (self.server_share > 0.0).then(|| mechanism.with_part_of_noise(1.0 - self.server_share)).flatten();
        let server = clients.map_or_else(|| all.clone(), |clients| clients.event(self.row_dim()));
        let public = match self.sampling {
            Sampling::Poisson | Sampling::TruncatedPoisson { .. } if self.is_private() => {
                DpEvent::PoissonSampled { rate: self.sampling_rate(), event: Box::new(all) }
            }
            _ => all,
        };
        let error = self.sampler_error(mechanism)? + self.truncation();
        let sampler_error = if self.is_private() { error } else { 0.0 };
        Ok(Cost { neighbors: mechanism.neighboring(), server, public, sampler_error })
    }

    /// What the rounds cost, stage after stage, and how it is added up: exactly in rounds that evaluate, or in every
    /// second, third, ... of them if there are many.
    pub fn costs(&self) -> Result<Costs, FlError> {
        if self.mechanism.correlation().is_some() {
            // All rounds are one release.
            return Ok(Costs { stages: vec![(self.cost(self.mechanism.as_ref())?, 1)], rule: self.rule, stride: 1 });
        }
        let stages = self.stages().map(|(mechanism, rounds)| Ok((self.cost(mechanism.as_ref())?, rounds)));
        let (rounds, every) = (u64::from(self.rounds), u64::from(self.evaluate_every));
        let stride = every * rounds.div_ceil(every * EXACT_REPORTS).max(1);
        Ok(Costs { stages: stages.collect::<Result<_, FlError>>()?, rule: self.rule, stride })
    }

    /// SHA-256 of everything that decides the bits of a round beside its number and the weights.
    pub fn digest(&self) -> Result<[u8; 32], FlError> {
        let mut h = Sha256::new();
        h.update(b"veilsum plan v1");
        h.update(self.session);
        h.update(self.data_digest);
        h.update(bytemuck::bytes_of(&self.encode_params()?));
        let text = format!(
            "{} {:?} {:?} {:?} {:?} {:?} {} {} {:?} {:?}",
            self.mechanism.name(),
            self.mechanism.noise(),
            self.placement,
            self.direction,
            self.sampling,
            self.cipher,
            self.clients,
            self.cohort,
            self.weights,
            self.server,
        );
        h.update(text.as_bytes());
        // Nothing where all rounds are alike: such a run can be resumed that an older version began.
        for Later { from, mechanism } in &self.later {
            h.update(format!(" from {from} {:?}", mechanism.noise()).as_bytes());
        }
        if let Some(dropout) = &self.dropout {
            h.update(format!(" {dropout:?}").as_bytes());
        }
        if self.grouping != Grouping::Whole {
            h.update(format!(" {:?}", self.grouping).as_bytes());
        }
        if self.controlled {
            h.update(b" controlled");
        }
        if let Some(steps) = &self.local_steps {
            h.update(format!(" steps {steps:?}").as_bytes());
        }
        if let Some(asynchrony) = &self.asynchrony {
            h.update(format!(" {asynchrony:?}").as_bytes());
            if asynchrony.config.staleness == Staleness::Progress {
                h.update(self.rounds.to_le_bytes());
            }
        }
        if let Some(aggregation) = &self.aggregation {
            h.update(format!(" {aggregation:?}").as_bytes());
        }
        if self.server_share > 0.0 {
            h.update(format!(" server {}", self.server_share).as_bytes());
        }
        if let Some(adaptive) = &self.adaptive {
            h.update(format!("{adaptive:?}").as_bytes());
        }
        if let Some(compression) = &self.compression {
            h.update(format!(" {compression:?}").as_bytes());
        }
        if let Some(correlation) = self.mechanism.correlation() {
            h.update(format!("{} {correlation:?}", self.rounds).as_bytes());
        }
        if let Some(samples) = &self.samples {
            h.update(format!(" {:?}", samples.local).as_bytes());
        }
        Ok(h.finalize().into())
    }
}
