//! The constants of a run, validated once; what a round's bits depend on beside the weights.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::FlError;
use super::adaptive::AdaptiveClip;
use super::cohort::{self, Sampling};
use super::optimizer::OptimizerConfig;
use crate::math::prg::Cipher;
use crate::params::EncodeParams;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::sample::table::NoiseTable;
use crate::secagg::VectorShape;

/// Who draws the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoisePlacement {
    /// Every client of the cohort adds its share: the cohort's size m is announced, each adds
    /// Sk(mu_tot / m), so that the sum carries Sk(mu_tot) whatever m is. An empty cohort's noise is
    /// added by the server.
    PerClient,
    /// The sum of all shares is drawn once from the summed law (Skellam is closed under sums): the same
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
    /// Rounds T.
    pub rounds: u32,
    /// Number of parameters d.
    pub dim: usize,
    /// What is computed and what it costs.
    pub mechanism: Arc<dyn Mechanism>,
    /// A clip bound that adapts, with its first value; the mechanism's bound is then [`AdaptiveClip::joint_clip`] of that,
    /// and its rows have one coordinate more than the model.
    pub adaptive: Option<(AdaptiveClip, f64)>,
    /// Who draws the noise.
    pub placement: NoisePlacement,
    /// What the vectors are.
    pub direction: Direction,
    /// Public integer weights, one a client; only without differential privacy.
    pub weights: Option<Arc<Vec<u64>>>,
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
        }
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
        self.encode_params().map(|_| ())
    }

    /// Whether clients take part no more often than the cost of correlated noise assumes.
    fn check_correlation(&self) -> Result<(), FlError> {
        let Some(correlation) = self.mechanism.correlation() else { return Ok(()) };
        let (assumed, rounds) = (correlation.participation, u64::from(self.rounds));
        let bad = |name, expected, found| Err(FlError::OutOfRange { name, expected, found });
        let Some(turns) = cohort::participation(self.sampling, self.clients, self.cohort, rounds) else {
            let expected = "`round-robin` or `all` (no amplification by sampling is proved for correlated noise)";
            return bad("sampling", expected.into(), format!("{:?}", self.sampling));
        };
        if rounds > correlation.strategy.rounds() {
            return bad(
                "rounds",
                format!("at most {}, those of the matrix", correlation.strategy.rounds()),
                rounds.to_string(),
            );
        }
        if turns.max > assumed.max || turns.separation < assumed.separation {
            return bad("participation", format!("at most that of the mechanism, {assumed:?}"), format!("{turns:?}"));
        }
        Ok(())
    }

    fn check_adaptive(&self) -> Result<(), FlError> {
        let Some((rule, first)) = &self.adaptive else { return Ok(()) };
        rule.validate()?;
        let bad = |expected: &str, found: &str| {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            Err(FlError::OutOfRange { name: "privacy.adaptive_clip", expected, found })
        };
        if !(first.is_finite() && *first > 0.0) {
            return bad("a first bound > 0", &first.to_string());
        }
        if !self.is_private() {
            return bad("absent where nothing is protected", "given");
        }
        if self.mechanism.correlation().is_some() {
            return bad("absent beside correlated noise, which prefix sums of rows in one scale are made for", "given");
        }
        Ok(())
    }

    /// Coordinates of a client's vector: those of the model, and one more where the clip bound adapts.
    #[must_use]
    pub fn row_dim(&self) -> usize {
        self.dim + usize::from(self.adaptive.is_some())
    }

    /// True if releases cost a finite epsilon.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.server_event() != DpEvent::NonPrivate
    }

    /// What a client computes.
    pub fn encode_params(&self) -> Result<EncodeParams, FlError> {
        Ok(self.mechanism.encode_params(self.row_dim())?)
    }

    /// The ring of the sum. Without privacy the ring is wide enough for the exact weighted sum.
    pub fn shape(&self) -> Result<VectorShape, FlError> {
        let params = self.encode_params()?;
        let bits = if self.is_private() { params.bits } else { self.wide_bits() };
        Ok(VectorShape { len: params.padded, bits })
    }

    /// 32 bits a value and the total weight of all clients: no cohort can overflow it. At most 63.
    fn wide_bits(&self) -> u32 {
        let total: u64 = match &self.weights {
            Some(w) => w.iter().fold(0, |a, &x| a.saturating_add(x)),
            None => self.clients,
        };
        (32 + 64 - total.leading_zeros()).min(63)
    }

    /// Probability that a client takes part in a round.
    #[must_use]
    pub fn sampling_rate(&self) -> f64 {
        match self.sampling {
            Sampling::All | Sampling::RoundRobin => 1.0,
            _ => self.cohort / self.clients as f64,
        }
    }

    /// The share of the noise that one client of a cohort of `size` adds.
    #[must_use]
    pub fn share(&self, size: usize) -> NoiseLaw {
        match (self.placement, self.mechanism.noise()) {
            // Rounded up, so that the shares never add up to less than mu_tot.
            (NoisePlacement::PerClient, NoiseLaw::Skellam { mu }) if size > 0 => {
                NoiseLaw::Skellam { mu: (mu / size as f64).next_up() }
            }
            _ => NoiseLaw::None,
        }
    }

    /// The noise that is left for the aggregator after a cohort of `size` has added its shares.
    #[must_use]
    pub fn remainder(&self, size: usize) -> NoiseLaw {
        match self.share(size) {
            NoiseLaw::None => self.mechanism.noise(),
            _ => NoiseLaw::None,
        }
    }

    /// Bound of the total variation distance between the noise of one release as drawn and as accounted:
    /// the error of one draw times the number of draws (at most one a coordinate and client).
    pub fn sampler_error(&self) -> Result<f64, FlError> {
        let NoiseLaw::Skellam { mu } = self.mechanism.noise() else { return Ok(0.0) };
        // The table of the whole sum has the most thresholds, and with them the largest error.
        let one = NoiseTable::skellam(mu)?.total_variation;
        let shares = match self.placement {
            NoisePlacement::PerClient => self.clients as f64,
            NoisePlacement::Aggregate => 1.0,
        };
        Ok(one * f64::from(self.encode_params()?.padded) * shares)
    }

    /// Cost of one release to those who know the cohort; of the whole run where its noise is correlated.
    #[must_use]
    pub fn server_event(&self) -> DpEvent {
        self.mechanism.event(self.row_dim())
    }

    /// Cost of one release to those who see releases only; of the whole run where its noise is correlated.
    #[must_use]
    pub fn public_event(&self) -> DpEvent {
        match self.sampling {
            Sampling::Poisson if self.is_private() => {
                DpEvent::PoissonSampled { rate: self.sampling_rate(), event: Box::new(self.server_event()) }
            }
            _ => self.server_event(),
        }
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
        if let Some(adaptive) = &self.adaptive {
            h.update(format!("{adaptive:?}").as_bytes());
        }
        if let Some(correlation) = self.mechanism.correlation() {
            h.update(format!("{} {correlation:?}", self.rounds).as_bytes());
        }
        Ok(h.finalize().into())
    }
}
