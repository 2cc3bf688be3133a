//! Distributed sum estimation: n clients with random vectors of norm C, one private sum, its error.
//!
//! An unbiased mechanism has slope 1 (`<estimate, truth> / |truth|^2`); an error measured without the
//! slope hides a signal that the clip has shrunk.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SimError;
use crate::backend::{Aligned, Backend, Buffer, EncodeJob, EncodeReport, NonFinite, RowKeys, Rows};
use crate::config::resolve::{Resolved, Setting, resolve};
use crate::config::{ConfigError, PrivacyConfig};
use crate::fl::plan::NoisePlacement;
use crate::fl::{FlError, SERVER};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::params::Ring;
use crate::privacy::accountant::EpsilonReport;
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::sample::binomial::{CentredBinomial, coin_parts};
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;
use crate::sample::{SampleError, discrete_gaussian};

/// Clients encoded at a time.
const CHUNK: usize = 16;

/// A distributed sum estimation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DseConfig {
    /// For editors: where the JSON schema of this file is.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Coordinates d.
    pub dim: usize,
    /// Clients n, each with a vector of norm `privacy.clip` in a uniformly random direction.
    pub clients: usize,
    /// Independent repetitions.
    #[serde(default = "ten")]
    pub repeats: usize,
    /// Seed of vectors and noise.
    #[serde(default)]
    pub seed: u64,
    /// The mechanism.
    pub privacy: PrivacyConfig,
}

fn ten() -> usize {
    10
}

/// Error of one repetition.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// `|estimate - truth|^2 / d`.
    pub mse: f64,
    /// `|estimate - truth|^2 / |truth|^2`.
    pub nmse: f64,
    /// `<estimate, truth> / |truth|^2`.
    pub slope: f64,
    /// Mean over clients of the factor that the clip applied.
    pub clip_ratio: f64,
    /// Share of coordinates of the sum that left the ring's range.
    pub wrap_rate: f64,
    /// Coordinates clamped by the bound on a coordinate.
    pub linf_hits: u64,
}

/// All repetitions of an estimation.
#[derive(Clone, Debug)]
pub struct DseResult {
    /// One entry a repetition.
    pub trials: Vec<Trial>,
    /// What the mechanism resolved to.
    pub privacy: PrivacyConfig,
    /// The mechanism.
    pub mechanism: Arc<dyn Mechanism>,
    /// Epsilon of one release.
    pub epsilon: EpsilonReport,
    /// MSE of the noise alone: its variance over gamma^2.
    pub noise_mse: f64,
    /// Predicted share of wrapped coordinates.
    pub predicted_wrap: Option<f64>,
}

impl DseResult {
    /// Mean and standard deviation (n - 1) of a figure over the repetitions.
    #[must_use]
    pub fn mean_std(&self, of: impl Fn(&Trial) -> f64) -> (f64, f64) {
        mean_std(&self.trials.iter().map(of).collect::<Vec<_>>())
    }
}

/// Mean and sample standard deviation; (NaN, NaN) without values, (x, 0) with one.
#[must_use]
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let spread = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (spread / (n - 1.0)).sqrt() } else { 0.0 * mean })
}

/// Runs all repetitions; `tick` is called after each.
pub fn run(config: &DseConfig, backend: &Arc<dyn Backend>, mut tick: impl FnMut()) -> Result<DseResult, SimError> {
    for (name, value) in [("dim", config.dim), ("clients", config.clients), ("repeats", config.repeats)] {
        if value == 0 || value > 1 << 27 {
            let (expected, found) = ("in 1..=2^27".to_string(), value.to_string());
            return Err(ConfigError::Invalid { name, expected, found }.into());
        }
    }
    for (name, given, why) in [
        ("privacy.adaptive_clip", config.privacy.adaptive_clip.is_some(), "one sum has no next round to adapt to"),
        ("privacy.dropout", config.privacy.dropout.is_some(), "all clients deliver"),
    ] {
        if given {
            let expected = format!("absent: {why}");
            return Err(ConfigError::Invalid { name, expected, found: "given".into() }.into());
        }
    }
    let setting = Setting {
        cohort: config.clients as f64,
        rate: 1.0,
        rounds: 1,
        delta: config.privacy.delta,
        dim: config.dim,
        participation: None,
    };
    let Resolved { privacy, mechanism, rule, predicted_wrap, .. } = resolve(&config.privacy, &setting)?;
    let epsilon = rule.epsilon(&mechanism.event(config.dim), 1, config.privacy.delta).map_err(FlError::from)?;
    let mut trials = Vec::with_capacity(config.repeats);
    for repeat in 0..config.repeats {
        trials.push(trial(config, mechanism.as_ref(), backend, repeat as u32)?);
        tick();
    }
    let noise_mse = mechanism.noise().variance() * mechanism.unit() * mechanism.unit();
    Ok(DseResult { trials, privacy, mechanism, epsilon, noise_mse, predicted_wrap })
}

struct Keys {
    secret: Secret,
    repeat: u32,
}

impl Keys {
    fn get(&self, client: u64, purpose: Purpose) -> StreamKey {
        self.copied(client, purpose, 0)
    }

    fn copied(&self, client: u64, purpose: Purpose, copy: u32) -> StreamKey {
        let address = Address { client, round: self.repeat, copy, ..Address::default() };
        self.secret.derive(b"veilsum dse v1\0\0", address, purpose, Cipher::ChaCha20)
    }
}

/// Who draws which part of the noise.
#[derive(Default)]
struct Drawn {
    /// Every client.
    share: Option<Noise>,
    /// The sum, one after another, each under a key of its own.
    sum: Vec<Noise>,
    /// A trusted aggregator, a discrete Gaussian of this sigma.
    trusted: Option<f64>,
}

impl Drawn {
    /// The parts of `law`; `shares` is the number of clients where each draws its own.
    fn new(law: NoiseLaw, shares: Option<u64>) -> Result<Self, SimError> {
        let table = |table: Result<NoiseTable, SampleError>| table.map(Noise::from).map_err(FlError::from);
        let share = |noise| Self { share: Some(noise), ..Self::default() };
        Ok(match (law, shares) {
            (NoiseLaw::None, _) => Self::default(),
            (NoiseLaw::Skellam { mu }, Some(n)) => share(table(NoiseTable::skellam((mu / n as f64).next_up()))?),
            (NoiseLaw::Skellam { mu }, None) => Self { sum: vec![table(NoiseTable::skellam(mu))?], ..Self::default() },
            (NoiseLaw::DiscreteGaussian { sigma }, _) => Self { trusted: Some(sigma), ..Self::default() },
            (NoiseLaw::DiscreteGaussianShares { sigma_total, .. }, n) => {
                let n = n.unwrap_or(1) as f64;
                share(table(NoiseTable::discrete_gaussian((sigma_total / n.sqrt()).next_up()))?)
            }
            (NoiseLaw::CenteredBinomial { coins }, n) => {
                let each = coins / n.unwrap_or(1);
                if each * n.unwrap_or(1) != coins {
                    let expected = format!("a multiple of the {} clients, with noise `per_client`", n.unwrap_or(1));
                    let found = coins.to_string();
                    return Err(ConfigError::Invalid { name: "privacy.coins", expected, found }.into());
                }
                let one = |k| CentredBinomial::new(k).map(Noise::from).map_err(FlError::from);
                match n {
                    Some(_) => share(one(u32::try_from(each).unwrap_or(u32::MAX))?),
                    None => Self { sum: coin_parts(coins).map(one).collect::<Result<_, _>>()?, ..Self::default() },
                }
            }
        })
    }
}

fn trial(
    config: &DseConfig,
    mechanism: &dyn Mechanism,
    backend: &Arc<dyn Backend>,
    repeat: u32,
) -> Result<Trial, SimError> {
    let keys = Keys { secret: Secret::from_seed(config.seed), repeat };
    let params = mechanism.encode_params(config.dim).map_err(FlError::from)?;
    let bits = params.bits;
    // All 32 bits are kept, so that wraps can be counted; the estimate sees the ring's bits only.
    let wide = crate::params::EncodeParams { bits: 32, ..params };
    let per_client = config.privacy.noise == NoisePlacement::PerClient && mechanism.distributed();
    let drawn = Drawn::new(mechanism.noise(), per_client.then_some(config.clients as u64))?;
    let signs = keys.get(SERVER, Purpose::Signs);
    let mut truth = vec![0.0f64; config.dim];
    let mut words = Buffer::HostU32(Aligned::default());
    let mut sum = Buffer::HostU32(vec![0; params.padded as usize].into());
    let mut report = EncodeReport::default();
    let clients: Vec<u64> = (0..config.clients as u64).collect();
    for members in clients.chunks(CHUNK) {
        let vectors = directions(config, &keys, members);
        for row in vectors.chunks(config.dim) {
            truth.iter_mut().zip(row).for_each(|(t, &x)| *t += f64::from(x));
        }
        let row_keys: Vec<RowKeys> = members
            .iter()
            .map(|&c| RowKeys { rounding: keys.get(c, Purpose::Rounding), noise: keys.get(c, Purpose::Noise) })
            .collect();
        let job = EncodeJob {
            params: wide,
            signs: &signs,
            keys: &row_keys,
            noise: drawn.share.as_ref(),
            non_finite: NonFinite::ZeroRow,
        };
        let rows = Rows::dense(vectors, members.len(), config.dim).map_err(FlError::from)?;
        let seen = backend.encode_into(&rows, &job, &mut words).map_err(FlError::from)?;
        backend.sum(&mut sum, &words, Ring::Bits(32)).map_err(FlError::from)?;
        report.merge(&seen);
    }
    for (copy, noise) in drawn.sum.iter().enumerate() {
        let key = keys.copied(SERVER, Purpose::Noise, copy as u32);
        backend.noise(&mut sum, 32, noise, &key).map_err(FlError::from)?;
    }
    if let Some(sigma) = drawn.trusted {
        let (words, key) = (sum.as_u32_mut().map_err(FlError::from)?, keys.get(SERVER, Purpose::Noise));
        discrete_gaussian::add(words, 32, sigma, &key).map_err(FlError::from)?;
    }
    let wraps = wrap(&mut sum, bits)?;
    let decode = params.decode(mechanism.unit() as f32);
    let estimate = backend.decode(&sum, &decode, &signs).map_err(FlError::from)?;
    let energy: f64 = truth.iter().map(|t| t * t).sum();
    let error: f64 = truth.iter().zip(&estimate).map(|(t, &e)| (f64::from(e) - t).powi(2)).sum();
    let inner: f64 = truth.iter().zip(&estimate).map(|(t, &e)| f64::from(e) * t).sum();
    Ok(Trial {
        mse: error / config.dim as f64,
        nmse: error / energy,
        slope: inner / energy,
        clip_ratio: report.clip_ratio_sum / config.clients as f64,
        wrap_rate: wraps as f64 / f64::from(params.padded),
        linf_hits: report.linf_hits,
    })
}

/// Reduces the words mod `2^bits` and counts those that a signed `bits`-bit value does not hold.
fn wrap(sum: &mut Buffer, bits: u32) -> Result<usize, SimError> {
    let shift = 32 - bits;
    let mut wraps = 0;
    for w in sum.as_u32_mut().map_err(FlError::from)? {
        let narrow = ((*w << shift) as i32) >> shift;
        wraps += usize::from(narrow != *w as i32);
        *w = narrow as u32 & (u32::MAX >> shift);
    }
    Ok(wraps)
}

/// Uniformly random directions of norm `privacy.clip`, one a member.
fn directions(config: &DseConfig, keys: &Keys, members: &[u64]) -> Vec<f32> {
    use rayon::prelude::*;
    let mut out = vec![0.0f32; members.len() * config.dim];
    out.par_chunks_mut(config.dim).zip(members).for_each(|(row, &client)| {
        let mut reader = keys.get(client, Purpose::Synthetic).reader(0);
        let draws: Vec<f64> = (0..row.len()).map(|_| reader.next_normal()).collect();
        let scale = config.privacy.clip / draws.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().zip(&draws).for_each(|(r, x)| *r = (x * scale) as f32);
    });
    out
}
