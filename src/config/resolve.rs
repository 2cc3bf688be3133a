//! Fills in what a privacy config leaves open (gamma, mu, noise multiplier, l_inf) and builds the
//! mechanism. Refuses a ring that wraps too often before the first round.

pub(super) mod matrix;

use std::sync::Arc;

use super::{ConfigError, MechanismName, PrivacyConfig};
use crate::privacy::SAMPLER_SHARE;
use crate::privacy::accountant::Rule;
use crate::privacy::calibrate::wrap::{RingUse, check_wrap};
use crate::privacy::calibrate::{
    GammaRequest, Schedule, SkellamKind, calibrate_gamma, calibrate_mu, calibrate_noise_multiplier, discrete_gaussian,
    l_inf_of,
};
use crate::privacy::matrix::Participation;
use crate::privacy::mechanism::Mechanism;
use crate::privacy::mechanism::gaussian::{CentralGaussian, CentralGaussianParams};
use crate::privacy::mechanism::none::{NoNoise, NoNoiseParams};
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
    /// How often a client takes part, where that is not left to chance.
    pub participation: Option<Participation>,
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
    if let (Some(_), true) = (&config.matrix, config.mechanism != MechanismName::Matrix) {
        return Err(invalid("privacy.matrix", "absent: only the mechanism `matrix` takes it", "given"));
    }
    match config.mechanism {
        MechanismName::Smm => skellam(config, setting, SkellamKind::Smm),
        MechanismName::Smm2022 => skellam(config, setting, SkellamKind::Smm2022),
        MechanismName::CentralGaussian => central(config, setting),
        MechanismName::Matrix => matrix::matrix(config, setting),
        MechanismName::None => {
            unused(config, &["gamma", "mu", "noise_multiplier", "l_inf"])?;
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
    unused(config, &["noise_multiplier"])?;
    if kind == SkellamKind::Smm {
        unused(config, &["l_inf"])?;
    }
    if !(2..=32).contains(&config.bits) {
        return Err(invalid("privacy.bits", "in 2..=32", config.bits));
    }
    let (clip, bits, schedule) = (config.clip, config.bits, setting.schedule());
    let instead = "privacy.gamma and privacy.mu";
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
            let request = GammaRequest {
                kind,
                bits,
                dim: setting.dim,
                cohort: setting.cohort,
                clip,
                schedule,
                target_epsilon: target(config, instead)?,
                wrap_limit: config.wrap_limit,
            };
            let found = calibrate_gamma(&request)?;
            let gamma = saturated(&request, found.gamma, found.mu_total);
            let mu_total = if gamma < found.gamma {
                calibrate_mu(kind, gamma, clip, &schedule, request.target_epsilon)?
            } else {
                found.mu_total
            };
            (gamma, share(mu_total))
        }
    };
    let mu_total = mu * setting.cohort;
    let mut resolved = PrivacyConfig { gamma: Some(gamma), mu: Some(mu), ..config.clone() };
    let mechanism: Arc<dyn Mechanism> = match kind {
        SkellamKind::Smm => Arc::new(Smm::new(SmmParams { gamma, mu_total, clip, bits })?),
        SkellamKind::Smm2022 => {
            let l_inf = match config.l_inf {
                Some(l_inf) => l_inf,
                None => l_inf_of(mu_total, gamma, clip, &schedule)?,
            };
            resolved.l_inf = Some(l_inf);
            Arc::new(Smm2022::new(Smm2022Params { gamma, mu_total, clip, bits, l_inf })?)
        }
    };
    let ring = RingUse::of(mechanism.as_ref(), clip, setting.cohort, setting.dim)?;
    let predicted = ring.wrap_rate(bits);
    if !config.allow_wrap {
        check_wrap(bits, &ring, config.wrap_limit * (1.0 + 1e-6))?;
    }
    Ok((resolved, mechanism, Some(predicted)))
}

/// Share of the noise variance that rounding may add before a larger gamma is worth nothing.
const ROUNDING_SHARE: f64 = 1e-3;

/// The smallest gamma up to `largest` at which rounding adds less than [`ROUNDING_SHARE`] to the variance
/// of the noise: beyond it a wide ring buys nothing, and the sampler's table only grows.
fn saturated(request: &GammaRequest, largest: f64, mu_total: f64) -> f64 {
    let share = |gamma: f64| {
        let mu = mu_total * (gamma / largest).powi(2);
        let ring = RingUse::skellam(gamma, request.clip, mu, request.cohort, request.dim);
        ring.cohort * ring.rounding_std.powi(2) / ring.noise_variance
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
    unused(config, &["gamma", "mu", "l_inf"])?;
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
