//! The constants of a run, validated once; what a round's bits depend on beside the weights.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::FlError;
use super::cohort::Sampling;
use super::optimizer::OptimizerConfig;
use crate::math::prg::Cipher;
use crate::params::EncodeParams;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::distributed_gaussian::DistributedGaussian;
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::sample::binomial;
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
        if self.placement == NoisePlacement::Aggregate
            && let NoiseLaw::DiscreteGaussianShares { .. } = self.mechanism.noise()
        {
            return bad(
                "privacy.noise",
                "`per_client` (the sum of discrete Gaussians is no discrete Gaussian, and cannot be drawn at once)",
                "aggregate".into(),
            );
        }
        self.check_coins()?;
        if self.placement == NoisePlacement::PerClient && self.is_private() && !self.mechanism.distributed() {
            return bad(
                "privacy.noise",
                "`aggregate` (this mechanism's noise is added once, by a trusted aggregator)",
                "per_client".into(),
            );
        }
        if let Some((name, expected, found)) = self.server.out_of_range() {
            return bad(name, expected, found.to_string());
        }
        self.encode_params().map(|_| ())
    }

    /// Coins are shared out evenly, or the sum would depend on how many share them.
    fn check_coins(&self) -> Result<(), FlError> {
        let (NoisePlacement::PerClient, NoiseLaw::CenteredBinomial { coins }) =
            (self.placement, self.mechanism.noise())
        else {
            return Ok(());
        };
        let even = coins.is_multiple_of(self.clients) && coins / self.clients <= u64::from(binomial::MAX_K);
        if self.sampling == Sampling::All && even {
            return Ok(());
        }
        Err(FlError::OutOfRange {
            name: "privacy.coins",
            expected: format!(
                "with noise `per_client`: sampling `all`, and a multiple of the {} clients with at most {} for each; or noise `aggregate`",
                self.clients,
                binomial::MAX_K
            ),
            found: format!("{coins}, sampling {:?}", self.sampling),
        })
    }

    /// True if releases cost a finite epsilon.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.mechanism.event(self.dim) != DpEvent::NonPrivate
    }

    /// What a client computes.
    pub fn encode_params(&self) -> Result<EncodeParams, FlError> {
        Ok(self.mechanism.encode_params(self.dim)?)
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
            Sampling::All => 1.0,
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

    /// The noise that is left for the aggregator after a cohort of `size` has added its shares.
    #[must_use]
    pub fn remainder(&self, size: usize) -> NoiseLaw {
        match (self.share(size), self.mechanism.noise()) {
            // An empty cohort's: exactly what a cohort's sum is near to.
            (NoiseLaw::None, NoiseLaw::DiscreteGaussianShares { sigma_total, .. }) => {
                NoiseLaw::DiscreteGaussian { sigma: sigma_total }
            }
            (NoiseLaw::None, noise) => noise,
            _ => NoiseLaw::None,
        }
    }

    /// Bound of the total variation distance between the noise of one release as drawn and as accounted:
    /// the error of one draw times the number of draws (at most one a coordinate and client).
    pub fn sampler_error(&self) -> Result<f64, FlError> {
        let (one, more) = match self.mechanism.noise() {
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
        let shares = match self.placement {
            NoisePlacement::PerClient => self.clients as f64,
            NoisePlacement::Aggregate => 1.0,
        };
        Ok(one * f64::from(self.encode_params()?.padded) * shares + more)
    }

    /// Cost of one release to those who know the cohort.
    #[must_use]
    pub fn server_event(&self) -> DpEvent {
        self.mechanism.event(self.dim)
    }

    /// Cost of one release to those who see releases only.
    #[must_use]
    pub fn public_event(&self) -> DpEvent {
        match self.sampling {
            Sampling::Poisson if self.is_private() => {
                DpEvent::PoissonSampled { rate: self.sampling_rate(), event: Box::new(self.mechanism.event(self.dim)) }
            }
            _ => self.mechanism.event(self.dim),
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
        Ok(h.finalize().into())
    }
}
