//! Fills in what a privacy config leaves open (gamma, mu, noise multiplier, l_inf) and builds the
//! mechanism. Refuses a ring that wraps too often before the first round.

mod coins;
pub(super) mod matrix;
mod rounded;

use std::sync::Arc;

use super::{AccountantName, ConfigError, MechanismName, PrivacyConfig, schedule};
use crate::fl::plan::{Later, NoisePlacement};
use crate::math::search::bisect;
use crate::privacy::SAMPLER_SHARE;
use crate::privacy::accountant::Rule;
use crate::privacy::calibrate::wrap::{RingUse, check_wrap};
use crate::privacy::calibrate::{
    GammaRequest, Schedule, SkellamKind, Uses, calibrate_gamma, calibrate_noise, discrete_gaussian, l_inf_of,
};
use crate::privacy::matrix::Participation;
use crate::privacy::mechanism::gaussian::{CentralGaussian, CentralGaussianParams};
use crate::privacy::mechanism::none::{NoNoise, NoNoiseParams};
use crate::privacy::mechanism::quantized::{Quantized, QuantizedParams};
use crate::privacy::mechanism::smm::{Smm, SmmParams};
use crate::privacy::mechanism::smm2022::{Smm2022, Smm2022Params};
use crate::privacy::mechanism::{Mechanism, PrivacyError};
use crate::privacy::stages::Stages;

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

/// What a config resolves to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The config without gaps.
    pub privacy: PrivacyConfig,
    /// The mechanism of the first rounds.
    pub mechanism: Arc<dyn Mechanism>,
    /// Those of later stages, where the schedule has some.
    pub later: Vec<Later>,
    /// Which accountants add up the cost.
    pub rule: Rule,
    /// The predicted share of wraps, in the rounds with the most noise.
    pub predicted_wrap: Option<f64>,
}

impl From<AccountantName> for Rule {
    fn from(name: AccountantName) -> Self {
        match name {
            AccountantName::Best => Self::Best,
            AccountantName::Rdp => Self::Rdp,
            AccountantName::Pld => Self::Pld,
        }
    }
}

/// Resolves a privacy config.
///
/// # Errors
/// Parameters that the mechanism does not take or that are missing, out-of-range values, a schedule of another number of
/// rounds, a target that cannot be met, a ring that wraps too often.
pub fn resolve(config: &PrivacyConfig, setting: &Setting) -> Result<Resolved, ConfigError> {
    if let (Some(_), true) = (&config.matrix, config.mechanism != MechanismName::Matrix) {
        return Err(invalid("privacy.matrix", "absent: only the mechanism `matrix` takes it", "given"));
    }
    let uses = Uses {
        rate: setting.rate,
        delta: setting.delta,
        stages: schedule::stages(config.schedule.as_ref(), setting.rounds)?,
        rule: config.accountant.into(),
    };
    let taken = matches!(config.mechanism, MechanismName::Smm | MechanismName::CentralGaussian);
    if !taken && uses.stages != Stages::uniform(setting.rounds) {
        let expected = format!("absent: {:?} has one noise for all rounds", config.mechanism);
        return Err(invalid("privacy.schedule", &expected, "given"));
    }
    match config.mechanism {
        MechanismName::Smm => skellam(config, setting, &uses, SkellamKind::Smm),
        MechanismName::Smm2022 => skellam(config, setting, &uses, SkellamKind::Smm2022),
        MechanismName::Skellam | MechanismName::DistributedDiscreteGaussian | MechanismName::Binomial => {
            rounded::rounded(config, setting, &uses)
        }
        MechanismName::PoissonBinomial => coins::coins(config, setting, &uses),
        MechanismName::CentralGaussian => central(config, setting, &uses),
        MechanismName::Matrix => matrix::matrix(config, setting, &uses),
        MechanismName::Quantized => quantized(config, setting),
        MechanismName::None => {
            takes(config, &[])?;
            // Without privacy the sum is carried in a ring of its own width: the fixed point needs room
            // for one client only.
            let mechanism = Arc::new(NoNoise::new(NoNoiseParams { clip: config.clip, cohort: 1 })?);
            let privacy = PrivacyConfig { target_epsilon: None, ..config.clone() };
            // Nothing but the Renyi accountant need know a cost without end.
            Ok(Resolved { privacy, mechanism, later: Vec::new(), rule: Rule::Rdp, predicted_wrap: None })
        }
    }
}

/// The mechanism of the first stage and those of the later ones; `of` makes that of a noise factor.
fn staged(
    stages: &Stages,
    of: impl Fn(f64) -> Result<Arc<dyn Mechanism>, PrivacyError>,
) -> Result<(Arc<dyn Mechanism>, Vec<Later>), ConfigError> {
    let mut from = 1u64;
    let mut all = Vec::new();
    for stage in stages.all() {
        all.push(Later { from: from as u32, mechanism: of(stage.factor)? });
        from += stage.rounds;
    }
    let first = all.remove(0);
    Ok((first.mechanism, all))
}

/// Noise that was calibrated, raised a little until the run's own accounting of the mechanism as it is stays within the
/// target: sums of shares and the config's digits move a parameter by a few units of the last place, and the grid of an
/// accountant with it.
pub(super) fn settled<T>(
    target: f64,
    mut noise: f64,
    of: impl Fn(f64) -> Result<(f64, T), ConfigError>,
) -> Result<(f64, T), ConfigError> {
    for _ in 0..8 {
        let (epsilon, made) = of(noise)?;
        if epsilon <= target {
            return Ok((noise, made));
        }
        noise *= 1.0 + 1e-5;
    }
    Ok((noise, of(noise)?.1))
}

fn invalid(name: &'static str, expected: &str, found: impl ToString) -> ConfigError {
    ConfigError::Invalid { name, expected: expected.into(), found: found.to_string() }
}

/// Refuses all parameters but these: one that would be ignored is a mistake of the user's.
fn takes(config: &PrivacyConfig, names: &[&'static str]) -> Result<(), ConfigError> {
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
        if let (false, Some(value)) = (names.contains(&short), value) {
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

fn skellam(config: &PrivacyConfig, setting: &Setting, uses: &Uses, kind: SkellamKind) -> Result<Resolved, ConfigError> {
    takes(config, if kind == SkellamKind::Smm { &["gamma", "mu"] } else { &["gamma", "mu", "l_inf"] })?;
    check_bits(config)?;
    // A calibrated mu is raised a little: sums of shares and the config's digits then never fall below it.
    let share = |mu_total: f64| mu_total / setting.cohort * (1.0 + 1e-12);
    let made = |gamma: f64, mu: f64| skellam_stages(config, setting, uses, (kind, gamma, mu));
    let (gamma, mu, (l_inf, mechanism, later)) = match (config.gamma, config.mu) {
        (Some(gamma), Some(mu)) => (gamma, mu, made(gamma, mu)?),
        (None, Some(mu)) => {
            return Err(invalid("privacy.gamma", "given together with privacy.mu", format!("absent, mu {mu}")));
        }
        (gamma, None) => {
            let instead = if gamma.is_some() { "privacy.mu" } else { "privacy.gamma and privacy.mu" };
            let target = target(config, instead)?;
            let (gamma, mu_total) = calibrated(&request(config, setting, uses, kind, target), gamma, config.noise)?;
            let accounted = |mu| {
                let stages = made(gamma, mu)?;
                Ok((accounted(uses, setting.dim, &stages.1, &stages.2)?, stages))
            };
            let (mu, stages) = settled(target, share(mu_total), accounted)?;
            (gamma, mu, stages)
        }
    };
    // The noisiest rounds need the most room.
    let noisiest = later.iter().map(|l| &l.mechanism).chain([&mechanism]);
    let noisiest = noisiest.max_by(|a, b| a.noise().variance().total_cmp(&b.noise().variance()));
    let predicted_wrap = Some(fits(config, setting, noisiest.unwrap_or(&mechanism).as_ref())?);
    let privacy = PrivacyConfig { gamma: Some(gamma), mu: Some(mu), l_inf, ..config.clone() };
    Ok(Resolved { privacy, mechanism, later, rule: uses.rule, predicted_wrap })
}

fn quantized(config: &PrivacyConfig, setting: &Setting) -> Result<Resolved, ConfigError> {
    takes(config, &["gamma"])?;
    check_bits(config)?;
    let ring = |gamma: f64| Quantized::ring(gamma, config.clip, setting.cohort, setting.dim);
    let limit = config.wrap_limit * (1.0 + 1e-6);
    let gamma = config.gamma.unwrap_or_else(|| {
        let gamma = |exponent: f64| libm::exp2(exponent) / config.clip;
        let (exponent, _) = bisect((-30.0, 24.0), 60, |e| ring(gamma(e)).wrap_rate(config.bits) <= limit);
        gamma(exponent)
    });
    let predicted_wrap = match config.allow_wrap {
        true => ring(gamma).wrap_rate(config.bits),
        false => check_wrap(config.bits, &ring(gamma), limit)?,
    };
    let mechanism = Arc::new(Quantized::new(QuantizedParams { gamma, clip: config.clip, bits: config.bits })?);
    let privacy = PrivacyConfig { gamma: Some(gamma), target_epsilon: None, ..config.clone() };
    Ok(Resolved { privacy, mechanism, later: Vec::new(), rule: Rule::Rdp, predicted_wrap: Some(predicted_wrap) })
}

fn check_bits(config: &PrivacyConfig) -> Result<(), ConfigError> {
    if (2..=32).contains(&config.bits) { Ok(()) } else { Err(invalid("privacy.bits", "in 2..=32", config.bits)) }
}

/// The predicted share of wraps, unless it is too large.
fn fits(config: &PrivacyConfig, setting: &Setting, mechanism: &dyn Mechanism) -> Result<f64, ConfigError> {
    let mut ring = RingUse::of(mechanism, config.clip, setting.cohort, setting.dim)?;
    ring.noise_variance *= inflation(config, setting);
    if !config.allow_wrap {
        check_wrap(config.bits, &ring, config.wrap_limit * (1.0 + 1e-6))?;
    }
    Ok(ring.wrap_rate(config.bits))
}

/// How much more noise than is accounted may be released: where clients that did not vanish brought some for those who
/// might have.
fn inflation(config: &PrivacyConfig, setting: &Setting) -> f64 {
    // Under sampling the noise is exact: `Dropout::validate`.
    config.dropout.filter(|_| setting.rate == 1.0).map_or(1.0, |dropout| dropout.inflation(setting.cohort as u64))
}

fn request(
    config: &PrivacyConfig,
    setting: &Setting,
    uses: &Uses,
    kind: SkellamKind,
    target_epsilon: f64,
) -> GammaRequest {
    GammaRequest {
        kind,
        bits: config.bits,
        dim: setting.dim,
        cohort: setting.cohort,
        clip: config.clip,
        uses: uses.clone(),
        target_epsilon,
        wrap_limit: config.wrap_limit,
        inflation: inflation(config, setting),
    }
}

/// Gamma, if none is given, and `mu_total` that meet the target: the largest gamma that the ring allows and that is worth
/// its bits.
fn calibrated(
    request: &GammaRequest,
    gamma: Option<f64>,
    placement: NoisePlacement,
) -> Result<(f64, f64), ConfigError> {
    if let Some(gamma) = gamma {
        return Ok((gamma, request.noise_at(gamma)?));
    }
    let found = calibrate_gamma(request)?;
    let gamma = saturated(request, found.gamma, found.mu_total, placement);
    if gamma < found.gamma {
        return Ok((gamma, request.noise_at(gamma)?));
    }
    Ok((found.gamma, found.mu_total))
}

/// The coordinate bound, where there is one, and the mechanism of each stage.
type Made = (Option<f64>, Arc<dyn Mechanism>, Vec<Later>);

fn skellam_stages(
    config: &PrivacyConfig,
    setting: &Setting,
    uses: &Uses,
    (kind, gamma, mu): (SkellamKind, f64, f64),
) -> Result<Made, ConfigError> {
    let (clip, bits, mu_total) = (config.clip, config.bits, mu * setting.cohort);
    let l_inf = match (kind, config.l_inf) {
        (SkellamKind::Smm2022, Some(l_inf)) => Some(l_inf),
        (SkellamKind::Smm2022, None) => Some(l_inf_of(mu_total, gamma, clip, &setting.schedule())?),
        _ => None,
    };
    let (mechanism, later) = staged(&uses.stages, |factor| {
        let mu_total = mu_total * factor * factor;
        Ok(match l_inf {
            None => Arc::new(Smm::new(SmmParams { gamma, mu_total, clip, bits })?),
            Some(l_inf) => Arc::new(Smm2022::new(Smm2022Params { gamma, mu_total, clip, bits, l_inf })?),
        })
    })?;
    Ok((l_inf, mechanism, later))
}

/// Epsilon of a run of these mechanisms, as the run itself accounts it.
fn accounted(uses: &Uses, dim: usize, first: &Arc<dyn Mechanism>, later: &[Later]) -> Result<f64, ConfigError> {
    let mechanisms = std::iter::once(first).chain(later.iter().map(|later| &later.mechanism));
    let stages = mechanisms.zip(uses.stages.all()).map(|(mechanism, stage)| (mechanism.event(dim), stage.rounds));
    Ok(uses.epsilon_of(stages.collect())?.epsilon)
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
        let ring = request.ring(gamma, mu);
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

fn central(config: &PrivacyConfig, setting: &Setting, uses: &Uses) -> Result<Resolved, ConfigError> {
    takes(config, &["noise_multiplier"])?;
    let (clip, cohort) = (config.clip, setting.cohort.ceil() as u64);
    let made = |multiplier: f64| {
        // One fixed point for all stages, with room for the noisiest.
        let noise_multiplier = multiplier * uses.stages.greatest();
        let noisiest = CentralGaussian::new(CentralGaussianParams { noise_multiplier, clip, cohort })?;
        staged(&uses.stages, |factor| Ok(Arc::new(noisiest.with_noise(multiplier * factor)?)))
    };
    let (noise_multiplier, (mechanism, later)) = match config.noise_multiplier {
        Some(z) if z.is_finite() && z > 0.0 => (z, made(z)?),
        Some(z) => return Err(invalid("privacy.noise_multiplier", "finite and > 0", z)),
        None => {
            let target = target(config, "privacy.noise_multiplier")?;
            let found = calibrate_noise(uses, target, discrete_gaussian)? * (1.0 + 1e-12);
            let accounted = |multiplier| {
                let stages = made(multiplier)?;
                Ok((accounted(uses, setting.dim, &stages.0, &stages.1)?, stages))
            };
            settled(target, found, accounted)?
        }
    };
    let privacy = PrivacyConfig { noise_multiplier: Some(noise_multiplier), ..config.clone() };
    Ok(Resolved { privacy, mechanism, later, rule: uses.rule, predicted_wrap: None })
}
