//! A run from its purpose: for a number of parameters, clients and rounds and an epsilon, the scale, noise and ring of each
//! width, and what error they leave.

use std::path::Path;

use serde::Serialize;

use super::resolve::{Resolved, Setting, resolve};
use super::{Config, ConfigError, MechanismName, PrivacyConfig};
use crate::data::partition::PartitionConfig;
use crate::data::{self, DataConfig};
use crate::fl::cohort::Sampling;
use crate::privacy::accountant::EpsilonReport;
use crate::privacy::calibrate::Uses;
use crate::privacy::calibrate::wrap::RingUse;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::stages::Stages;

/// Ring widths that are tried where none is asked for.
pub const WIDTHS: std::ops::RangeInclusive<u32> = 6..=16;
/// A narrower ring is chosen if its error is within this factor of the best.
const NEAR: f64 = 1.02;

/// What a run is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Purpose {
    /// Parameters, d.
    pub dim: usize,
    /// Expected clients of a round, n.
    pub cohort: u64,
    /// All clients, N.
    pub population: u64,
    /// Rounds, T.
    pub rounds: u32,
    /// What is given: mechanism, clip, delta, target, wrap limit, accountant. Its scale and noise are found.
    pub privacy: PrivacyConfig,
    /// The one ring width that is wanted; `None`: those of [`WIDTHS`].
    pub bits: Option<u32>,
}

/// Expected error of one coordinate of the mean, standard deviations in the unit of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Errors {
    /// Of the noise.
    pub noise: f64,
    /// Of the clients' stochastic rounding, for rows of full norm.
    pub rounding: f64,
    /// Of coordinates that leave the ring and come back `2^bits` away.
    pub wrap: f64,
    /// Of all together.
    pub total: f64,
}

/// A ring width that works.
#[derive(Clone, Debug)]
pub struct Design {
    /// The privacy config with everything filled in.
    pub privacy: PrivacyConfig,
    /// What the run costs those who see its releases.
    pub epsilon: EpsilonReport,
    /// What it costs to those who know the cohorts.
    pub epsilon_server_view: f64,
    /// Noise of the sum over the clip bound.
    pub noise_multiplier: f64,
    /// Predicted share of wrapped coordinates, where the ring wraps.
    pub predicted_wrap: Option<f64>,
    /// Expected error.
    pub errors: Errors,
}

/// What became of a ring width.
#[derive(Debug)]
pub struct Alternative {
    /// Ring width.
    pub bits: u32,
    /// The design, or why there is none.
    pub outcome: Result<Design, ConfigError>,
}

impl Purpose {
    fn setting(&self) -> Setting {
        Setting {
            cohort: self.cohort as f64,
            rate: self.cohort as f64 / self.population as f64,
            rounds: u64::from(self.rounds),
            delta: self.privacy.delta,
            dim: self.dim,
            participation: None,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse =
            |name, expected: String, found: u64| Err(ConfigError::Invalid { name, expected, found: found.to_string() });
        if self.dim == 0 || self.dim > crate::model::architecture::MAX_PARAMETERS {
            return refuse("dim", format!("1 to {}", crate::model::architecture::MAX_PARAMETERS), self.dim as u64);
        }
        if self.cohort == 0 || self.cohort > self.population {
            return refuse("cohort", format!("1 to the population, {}", self.population), self.cohort);
        }
        if self.rounds == 0 {
            return refuse("rounds", "at least 1".to_owned(), 0);
        }
        let delta = self.privacy.delta;
        if !(delta > 0.0 && delta < 1.0) {
            let (expected, found) = ("in (0, 1)".to_owned(), delta.to_string());
            return Err(ConfigError::Invalid { name: "delta", expected, found });
        }
        Ok(())
    }

    /// Every width with what it gives, narrowest first. A mechanism without a ring of its own has one.
    ///
    /// # Errors
    /// Parameters out of range, a mechanism that is not designed. A target or a ring that cannot be is the outcome of its
    /// width.
    pub fn alternatives(&self) -> Result<Vec<Alternative>, ConfigError> {
        self.check()?;
        match self.privacy.mechanism {
            MechanismName::Smm
            | MechanismName::Skellam
            | MechanismName::DistributedDiscreteGaussian
            | MechanismName::Binomial => {}
            MechanismName::CentralGaussian => {
                let outcome = self.at(self.privacy.clone());
                return Ok(vec![Alternative { bits: 32, outcome }]);
            }
            other => {
                return Err(ConfigError::Invalid {
                    name: "mechanism",
                    expected:
                        "smm, skellam, distributed-discrete-gaussian, binomial or central-gaussian (the clip of smm-2022 shrinks \
                         the signal, which no design mends)"
                            .to_owned(),
                    found: format!("{other:?}"),
                });
            }
        }
        let widths = self.bits.map_or(WIDTHS, |bits| bits..=bits);
        let mut all: Vec<Alternative> = Vec::new();
        // Where rounding is negligible before the ring is full, wider rings have the same scale and noise.
        let mut saturated: Option<PrivacyConfig> = None;
        for bits in widths {
            let known = saturated.clone().unwrap_or_else(|| self.privacy.clone());
            let outcome = self.at(PrivacyConfig { bits, ..known });
            if let Ok(design) = &outcome
                && design.predicted_wrap.is_some_and(|wrap| wrap < 0.5 * self.privacy.wrap_limit)
            {
                saturated = Some(design.privacy.clone());
            }
            all.push(Alternative { bits, outcome });
        }
        Ok(all)
    }

    fn at(&self, privacy: PrivacyConfig) -> Result<Design, ConfigError> {
        let setting = self.setting();
        let Resolved { privacy, mechanism, rule, predicted_wrap, .. } = resolve(&privacy, &setting)?;
        let uses = |rate| Uses { rate, delta: setting.delta, stages: Stages::uniform(setting.rounds), rule };
        let cost = |rate| uses(rate).epsilon(|_| mechanism.event(self.dim));
        let ring = RingUse::of(mechanism.as_ref(), privacy.clip, setting.cohort, self.dim)?;
        let unit = mechanism.unit() / setting.cohort;
        let noise = ring.noise_variance.sqrt() * unit;
        let rounding = setting.cohort.sqrt() * ring.rounding_std * unit;
        let wrap = predicted_wrap.map_or(0.0, |p| p.sqrt() * libm::exp2(f64::from(privacy.bits)) * unit);
        Ok(Design {
            epsilon: cost(setting.rate)?,
            epsilon_server_view: cost(1.0)?.epsilon,
            noise_multiplier: noise * setting.cohort / privacy.clip,
            predicted_wrap,
            errors: Errors { noise, rounding, wrap, total: noise.hypot(rounding).hypot(wrap) },
            privacy,
        })
    }
}

/// The narrowest ring whose error is within 2 % of the best.
///
/// # Errors
/// Without any design, the reason of the widest.
pub fn choose(mut alternatives: Vec<Alternative>) -> Result<(u32, Design), ConfigError> {
    let total = |a: &Alternative| a.outcome.as_ref().map_or(f64::INFINITY, |design| design.errors.total);
    let best = alternatives.iter().map(total).fold(f64::INFINITY, f64::min);
    let at = alternatives.iter().position(|a| best.is_finite() && total(a) <= NEAR * best);
    let last = alternatives.len().saturating_sub(1);
    if alternatives.is_empty() {
        let (expected, found) = ("at least one".to_owned(), "none".to_owned());
        return Err(PrivacyError::OutOfRange { name: "ring widths", expected, found }.into());
    }
    let Alternative { bits, outcome } = alternatives.swap_remove(at.unwrap_or(last));
    Ok((bits, outcome?))
}

/// `base` as a run of this purpose and design: rounds, cohorts, clients and privacy are theirs, all else the base's. Data
/// paths of the base start at `folder`.
///
/// Where the base gives each sample to a client of its own and that is not known to make as many clients as the purpose
/// has, the samples are dealt evenly.
///
/// # Errors
/// A partition into a number of clients of its own that is not the purpose's.
pub fn config(base: &Config, folder: &Path, purpose: &Purpose, design: &Design) -> Result<Config, ConfigError> {
    let clients = purpose.population as usize;
    let partition = match base.partition.clone() {
        PartitionConfig::PerSample {} if samples(&base.data) == Some(clients) => PartitionConfig::PerSample {},
        PartitionConfig::PerSample {} | PartitionConfig::Iid { .. } => PartitionConfig::Iid { clients },
        PartitionConfig::Dirichlet { alpha, min_size, .. } => PartitionConfig::Dirichlet { clients, alpha, min_size },
        PartitionConfig::LabelShards { shards_per_client, .. } => {
            PartitionConfig::LabelShards { clients, shards_per_client }
        }
        PartitionConfig::Natural {} => {
            return Err(ConfigError::Invalid {
                name: "partition",
                expected: format!("one that can be made for {clients} clients"),
                found: "natural".to_owned(),
            });
        }
    };
    let here = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    Ok(Config {
        schema: None,
        data: base.data.rebased(&here),
        partition,
        cohort: purpose.cohort as f64,
        sampling: if purpose.cohort == purpose.population { Sampling::All } else { Sampling::Poisson },
        rounds: purpose.rounds,
        // The noise is that of one sum.
        group_size: None,
        adversary: None,
        aggregation: None,
        privacy: design.privacy.clone(),
        ledger: None,
        ..base.clone()
    })
}

/// Training samples of a named set.
fn samples(data: &DataConfig) -> Option<usize> {
    let name = data.name.as_deref()?;
    let all = match data::catalog::published(name) {
        // A file of labels is a header of 8 bytes and a byte a sample.
        Some(published) if matches!(published.content, data::catalog::Content::Images { .. }) => {
            published.files.get(1)?.bytes.checked_sub(8)? as usize
        }
        None if name == "digits" => data::digits::load().ok()?.train.len(),
        _ => return None,
    };
    Some(data.limit_train.map_or(all, |limit| limit.min(all)))
}
