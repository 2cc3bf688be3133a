//! Fills in what a privacy config leaves open (gamma, mu, noise multiplier, l_inf) and builds the
//! mechanism. Refuses a ring that wraps too often before the first round.

use std::sync::Arc;

use super::{ConfigError, MechanismName, PrivacyConfig};
use crate::fl::plan::NoisePlacement;
use crate::privacy::SAMPLER_SHARE;
use crate::privacy::accountant::Rule;
use crate::privacy::calibrate::wrap::{RingUse, check_wrap};
use crate::privacy::calibrate::{
    GammaRequest, Rounding, Schedule, SkellamKind, calibrate_gamma, calibrate_mu, calibrate_noise_multiplier, coins_of,
    discrete_gaussian, l_inf_of,
};
use crate::privacy::mechanism::Mechanism;
use crate::privacy::mechanism::binomial::{Binomial, BinomialParams};
use crate::privacy::mechanism::distributed_gaussian::{DistributedGaussian, DistributedGaussianParams, largest_cohort};
use crate::privacy::mechanism::gaussian::{CentralGaussian, CentralGaussianParams};
use crate::privacy::mechanism::none::{NoNoise, NoNoiseParams};
use crate::privacy::mechanism::rounded::{DEFAULT_BETA, RoundedScale};
use crate::privacy::mechanism::skellam::{Skellam, SkellamParams};
use crate::privacy::mechanism::smm::{Smm, SmmParams};
use crate::privacy::mechanism::smm2022::{Smm2022, Smm2022Params};

/// How often the mechanism will be used, and on what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Expected size of a cohort, n.
    pub cohort: f64,
    /// Sampling rate q.
    pub rate: f64,
    /// Releases, T.
    pub rounds: u64,
    /// delta.
    pub delta: f64,
    /// Parameters, d.
    pub dim: usize,
}

impl Setting {
    /// At the delta that the run is accounted at: see [`SAMPLER_SHARE`].
    fn schedule(&self) -> Schedule {
        Schedule { rate: self.rate, rounds: self.rounds, delta: self.delta * (1.0 - SAMPLER_SHARE) }
    }
}

/// What a config resolves to: itself without gaps, the mechanism, the predicted share of wraps.
pub type Resolved = (PrivacyConfig, Arc<dyn Mechanism>, Option<f64>);

/// Resolves a privacy config.
///
/// # Errors
/// Parameters that the mechanism does not take or that are missing, out-of-range values, a target that
/// cannot be met, a ring that wraps too often.
pub fn resolve(config: &PrivacyConfig, setting: &Setting) -> Result<Resolved, ConfigError> {
    match config.mechanism {
        MechanismName::Smm => skellam(config, setting, SkellamKind::Smm),
        MechanismName::Smm2022 => skellam(config, setting, SkellamKind::Smm2022),
        MechanismName::Skellam | MechanismName::DistributedDiscreteGaussian | MechanismName::Binomial => {
            rounded(config, setting)
        }
        MechanismName::CentralGaussian => central(config, setting),
        MechanismName::None => {
            unused(config, &["gamma", "mu", "noise_multiplier", "l_inf", "sigma_total", "coins", "beta"])?;
            // Without privacy the sum is carried in a ring of its own width: the fixed point needs room
            // for one client only.
            let mechanism = NoNoise::new(NoNoiseParams { clip: config.clip, cohort: 1 })?;
            let resolved = PrivacyConfig { target_epsilon: None, ..config.clone() };
            Ok((resolved, Arc::new(mechanism), None))
        }
    }
}

fn invalid(name: &'static str, expected: &str, found: impl ToString) -> ConfigError {
    ConfigError::Invalid { name, expected: expected.into(), found: found.to_string() }
}

/// A parameter that would be ignored is a mistake of the user's.
fn unused(config: &PrivacyConfig, names: &[&'static str]) -> Result<(), ConfigError> {
    let given = [
        ("gamma", "privacy.gamma", config.gamma),
        ("mu", "privacy.mu", config.mu),
        ("noise_multiplier", "privacy.noise_multiplier", config.noise_multiplier),
        ("l_inf", "privacy.l_inf", config.l_inf),
        ("sigma_total", "privacy.sigma_total", config.sigma_total),
        ("coins", "privacy.coins", config.coins.map(|coins| coins as f64)),
        ("beta", "privacy.beta", config.beta),
    ];
    for (short, name, value) in given {
        if let (true, Some(value)) = (names.contains(&short), value) {
            let expected = format!("absent: {:?} does not take it", config.mechanism);
            return Err(invalid(name, &expected, value));
        }
    }
    Ok(())
}

fn target(config: &PrivacyConfig, instead: &str) -> Result<f64, ConfigError> {
    let expected = format!("an epsilon to calibrate for (or {instead})");
    config.target_epsilon.ok_or_else(|| invalid("privacy.target_epsilon", &expected, "absent"))
}

fn skellam(config: &PrivacyConfig, setting: &Setting, kind: SkellamKind) -> Result<Resolved, ConfigError> {
    unused(config, &["noise_multiplier", "sigma_total", "coins", "beta"])?;
    if kind == SkellamKind::Smm {
        unused(config, &["l_inf"])?;
    }
    if !(2..=32).contains(&config.bits) {
        return Err(invalid("privacy.bits", "in 2..=32", config.bits));
    }
    let (clip, bits, schedule) = (config.clip, config.bits, setting.schedule());
    // A calibrated mu is raised a little: sums of shares and the config's digits then never fall below it.
    let share = |mu_total: f64| mu_total / setting.cohort * (1.0 + 1e-12);
    let (gamma, mu) = match (config.gamma, config.mu) {
        (Some(gamma), Some(mu)) => (gamma, mu),
        (Some(gamma), None) => {
            (gamma, share(calibrate_mu(kind, gamma, clip, &schedule, target(config, "privacy.mu")?)?))
        }
        (None, Some(mu)) => {
            return Err(invalid("privacy.gamma", "given together with privacy.mu", format!("absent, mu {mu}")));
        }
        (None, None) => {
            let (gamma, mu_total) = widest(config, setting, kind, "privacy.gamma and privacy.mu")?;
            (gamma, share(mu_total))
        }
    };
    let mu_total = mu * setting.cohort;
    let mut resolved = PrivacyConfig { gamma: Some(gamma), mu: Some(mu), ..config.clone() };
    let mechanism: Arc<dyn Mechanism> = match kind {
        SkellamKind::Smm2022 => {
            let l_inf = match config.l_inf {
                Some(l_inf) => l_inf,
                None => l_inf_of(mu_total, gamma, clip, &schedule)?,
            };
            resolved.l_inf = Some(l_inf);
            Arc::new(Smm2022::new(Smm2022Params { gamma, mu_total, clip, bits, l_inf })?)
        }
        _ => Arc::new(Smm::new(SmmParams { gamma, mu_total, clip, bits })?),
    };
    fits(resolved, mechanism, setting)
}

/// The mechanism, if the sum fits its ring.
fn fits(config: PrivacyConfig, mechanism: Arc<dyn Mechanism>, setting: &Setting) -> Result<Resolved, ConfigError> {
    let ring = RingUse::of(mechanism.as_ref(), config.clip, setting.cohort, setting.dim)?;
    let predicted = ring.wrap_rate(config.bits);
    if !config.allow_wrap {
        check_wrap(config.bits, &ring, config.wrap_limit * (1.0 + 1e-6))?;
    }
    Ok((config, mechanism, Some(predicted)))
}

/// The largest gamma that the ring allows at the target and that is worth its bits, and the noise of the sum.
fn widest(
    config: &PrivacyConfig,
    setting: &Setting,
    kind: SkellamKind,
    instead: &str,
) -> Result<(f64, f64), ConfigError> {
    let request = GammaRequest {
        kind,
        bits: config.bits,
        dim: setting.dim,
        cohort: setting.cohort,
        clip: config.clip,
        schedule: setting.schedule(),
        target_epsilon: target(config, instead)?,
        wrap_limit: config.wrap_limit,
    };
    let found = calibrate_gamma(&request)?;
    let gamma = saturated(&request, found.gamma, found.mu_total, config.noise);
    if gamma >= found.gamma {
        return Ok((gamma, found.mu_total));
    }
    Ok((gamma, calibrate_mu(kind, gamma, config.clip, &request.schedule, request.target_epsilon)?))
}

/// The mechanisms whose norm is bounded behind the rounding.
fn rounded(config: &PrivacyConfig, setting: &Setting) -> Result<Resolved, ConfigError> {
    let noises = ["mu", "sigma_total", "coins"];
    let rounding = Rounding { padded: RoundedScale::padded(setting.dim), beta: config.beta.unwrap_or(DEFAULT_BETA) };
    let most = largest_cohort(setting.cohort, setting.rate);
    // Every noise by half its variance.
    let (own, kind, given) = match config.mechanism {
        MechanismName::Skellam => ("mu", SkellamKind::Skellam(rounding), config.mu.map(|mu| mu * setting.cohort)),
        MechanismName::DistributedDiscreteGaussian => {
            let given = config.sigma_total.map(|sigma| 0.5 * sigma * sigma);
            ("sigma_total", SkellamKind::DistributedGaussian(rounding, most), given)
        }
        _ => ("coins", SkellamKind::Binomial(rounding), config.coins.map(|coins| 0.25 * coins as f64)),
    };
    let others: Vec<&'static str> = noises.into_iter().filter(|&name| name != own).collect();
    unused(config, &others)?;
    unused(config, &["noise_multiplier", "l_inf"])?;
    if own == "sigma_total" && config.noise == NoisePlacement::Aggregate {
        let expected = "per_client: the sum of discrete Gaussians is no discrete Gaussian, and cannot be drawn at once \
                        (`aggregate` is for skellam, binomial, smm, smm-2022 and central-gaussian)";
        return Err(invalid("privacy.noise", expected, "aggregate"));
    }
    if own == "coins" && config.noise == NoisePlacement::PerClient && setting.rate < 1.0 {
        let expected = "aggregate with sampling `poisson`: coins cannot be shared out evenly among a cohort of any size \
                        (`per_client` is for sampling `all`, or for skellam)";
        return Err(invalid("privacy.noise", expected, "per_client"));
    }
    if !(2..=32).contains(&config.bits) {
        return Err(invalid("privacy.bits", "in 2..=32", config.bits));
    }
    let scale = |gamma| RoundedScale { gamma, clip: config.clip, bits: config.bits, beta: rounding.beta };
    scale(config.gamma.unwrap_or(1.0 / config.clip)).check()?;
    let instead = format!("privacy.gamma and privacy.{own}");
    let (gamma, half) = match (config.gamma, given) {
        (Some(gamma), Some(half)) => (gamma, half),
        (Some(gamma), None) => {
            let target = target(config, &instead)?;
            (gamma, calibrate_mu(kind, gamma, config.clip, &setting.schedule(), target)? * (1.0 + 1e-12))
        }
        (None, Some(_)) => {
            return Err(invalid("privacy.gamma", &format!("given together with privacy.{own}"), "absent"));
        }
        (None, None) => {
            let (gamma, half) = widest(config, setting, kind, &instead)?;
            (gamma, half * (1.0 + 1e-12))
        }
    };
    let (scale, mut resolved) = (scale(gamma), PrivacyConfig { gamma: Some(gamma), ..config.clone() });
    resolved.beta = Some(rounding.beta);
    let mechanism: Arc<dyn Mechanism> = match kind {
        SkellamKind::DistributedGaussian(..) => {
            let sigma_total = config.sigma_total.unwrap_or((2.0 * half).sqrt());
            resolved.sigma_total = Some(sigma_total);
            Arc::new(DistributedGaussian::new(DistributedGaussianParams { scale, sigma_total, most })?)
        }
        SkellamKind::Binomial(_) => {
            let even = if config.noise == NoisePlacement::PerClient { setting.cohort.round() as u64 } else { 1 };
            let coins = config.coins.unwrap_or_else(|| coins_of(half).next_multiple_of(even.max(1)));
            resolved.coins = Some(coins);
            Arc::new(Binomial::new(BinomialParams { scale, coins })?)
        }
        _ => {
            let mu = config.mu.unwrap_or(half / setting.cohort);
            resolved.mu = Some(mu);
            Arc::new(Skellam::new(SkellamParams { scale, mu_total: mu * setting.cohort })?)
        }
    };
    fits(resolved, mechanism, setting)
}

/// Share of the noise variance that rounding may add before a larger gamma is worth nothing.
const ROUNDING_SHARE: f64 = 1e-3;
/// The same of what a bound behind the rounding adds to the sensitivity.
const INFLATION_SHARE: f64 = 1e-2;
/// Noise (half its variance) from which on a finer scale is no longer looked for: near the widest table of the sampler...
const WIDEST_MU: f64 = 7.5e6;
/// ... or, for each client, near the most coins that a share has.
const WIDEST_SHARE: f64 = 950.0;

/// The smallest gamma up to `largest` at which rounding adds less than [`ROUNDING_SHARE`] to the variance
/// of the noise: beyond it a wide ring buys nothing, and the sampler's table only grows.
fn saturated(request: &GammaRequest, largest: f64, mu_total: f64, placement: NoisePlacement) -> f64 {
    let coins = matches!(request.kind, SkellamKind::Binomial(_)) && placement == NoisePlacement::PerClient;
    let widest = if coins { WIDEST_MU.min(WIDEST_SHARE * request.cohort) } else { WIDEST_MU };
    let squared = |gamma: f64| gamma * gamma * (1.0 + request.kind.inflation(gamma, request.clip));
    let share = |gamma: f64| {
        let mu = mu_total * squared(gamma) / squared(largest);
        let ring = RingUse::skellam(gamma, request.clip, mu, request.cohort, request.dim);
        let rounding = ring.cohort * ring.rounding_std.powi(2) / ring.noise_variance;
        // A bound behind the rounding asks for noise of its own; a table has its limit too.
        let inflation = request.kind.inflation(gamma, request.clip) * ROUNDING_SHARE / INFLATION_SHARE;
        if mu > widest && inflation > 0.0 { 0.0 } else { rounding.max(inflation) }
    };
    let (mut low, mut high) = (largest * 1e-9, largest);
    if share(high) >= ROUNDING_SHARE {
        return largest;
    }
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if share(middle) < ROUNDING_SHARE {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

fn central(config: &PrivacyConfig, setting: &Setting) -> Result<Resolved, ConfigError> {
    unused(config, &["gamma", "mu", "l_inf", "sigma_total", "coins", "beta"])?;
    let noise_multiplier = match config.noise_multiplier {
        Some(z) if z.is_finite() && z > 0.0 => z,
        Some(z) => return Err(invalid("privacy.noise_multiplier", "finite and > 0", z)),
        None => {
            let target = target(config, "privacy.noise_multiplier")?;
            calibrate_noise_multiplier(&setting.schedule(), target, Rule::Rdp, discrete_gaussian)? * (1.0 + 1e-12)
        }
    };
    let params = CentralGaussianParams { noise_multiplier, clip: config.clip, cohort: setting.cohort.ceil() as u64 };
    let mechanism = CentralGaussian::new(params)?;
    let resolved = PrivacyConfig { noise_multiplier: Some(noise_multiplier), ..config.clone() };
    Ok((resolved, Arc::new(mechanism), None))
}
