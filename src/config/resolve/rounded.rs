//! The mechanisms whose norm is bounded behind the rounding: gamma and noise from a target, or as given.

use std::sync::Arc;

use super::{Resolved, Setting, accounted, calibrated, check_bits, fits, invalid, request, settled, takes, target};
use crate::config::{ConfigError, MechanismName, PrivacyConfig};
use crate::fl::plan::NoisePlacement;
use crate::privacy::calibrate::{Rounding, SkellamKind, Uses, coins_of};
use crate::privacy::mechanism::Mechanism;
use crate::privacy::mechanism::binomial::{Binomial, BinomialParams};
use crate::privacy::mechanism::distributed_gaussian::{DistributedGaussian, DistributedGaussianParams, largest_cohort};
use crate::privacy::mechanism::rounded::{DEFAULT_BETA, RoundedScale};
use crate::privacy::mechanism::skellam::{Skellam, SkellamParams};

/// The mechanisms whose norm is bounded behind the rounding.
pub(super) fn rounded(config: &PrivacyConfig, setting: &Setting, uses: &Uses) -> Result<Resolved, ConfigError> {
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
    takes(config, &["gamma", own, "beta"])?;
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
    check_bits(config)?;
    let scale = |gamma| RoundedScale { gamma, clip: config.clip, bits: config.bits, beta: rounding.beta };
    scale(config.gamma.unwrap_or(1.0 / config.clip)).check()?;
    let made = |gamma: f64, half: f64| made(config, setting, (kind, scale(gamma)), half);
    let (gamma, (filled, mechanism)) = match (config.gamma, given) {
        (Some(gamma), Some(half)) => (gamma, made(gamma, half)?),
        (None, Some(_)) => {
            return Err(invalid("privacy.gamma", &format!("given together with privacy.{own}"), "absent"));
        }
        (gamma, None) => {
            let instead =
                if gamma.is_some() { format!("privacy.{own}") } else { format!("privacy.gamma and privacy.{own}") };
            let target = target(config, &instead)?;
            let (gamma, half) = calibrated(&request(config, setting, uses, kind, target), gamma, config.noise)?;
            let accounted = |half| {
                let (filled, mechanism) = made(gamma, half)?;
                Ok((accounted(uses, setting.dim, &mechanism, &[])?, (filled, mechanism)))
            };
            let (_, made) = settled(target, half * (1.0 + 1e-12), accounted)?;
            (gamma, made)
        }
    };
    let predicted_wrap = Some(fits(config, setting, mechanism.as_ref())?);
    let privacy = PrivacyConfig { gamma: Some(gamma), beta: Some(rounding.beta), ..filled };
    Ok(Resolved { privacy, mechanism, later: Vec::new(), rule: uses.rule, predicted_wrap })
}

/// The mechanism of a scale and of noise with half its variance `half`, and the config that names it.
fn made(
    config: &PrivacyConfig,
    setting: &Setting,
    (kind, scale): (SkellamKind, RoundedScale),
    half: f64,
) -> Result<(PrivacyConfig, Arc<dyn Mechanism>), ConfigError> {
    let mut filled = config.clone();
    let mechanism: Arc<dyn Mechanism> = match kind {
        SkellamKind::DistributedGaussian(_, most) => {
            let sigma_total = config.sigma_total.unwrap_or((2.0 * half).sqrt());
            filled.sigma_total = Some(sigma_total);
            Arc::new(DistributedGaussian::new(DistributedGaussianParams { scale, sigma_total, most })?)
        }
        SkellamKind::Binomial(_) => {
            let even = if config.noise == NoisePlacement::PerClient { setting.cohort.round() as u64 } else { 1 };
            let coins = config.coins.unwrap_or_else(|| coins_of(half).next_multiple_of(even.max(1)));
            filled.coins = Some(coins);
            Arc::new(Binomial::new(BinomialParams { scale, coins })?)
        }
        _ => {
            let mu = config.mu.unwrap_or(half / setting.cohort);
            filled.mu = Some(mu);
            Arc::new(Skellam::new(SkellamParams { scale, mu_total: mu * setting.cohort })?)
        }
    };
    Ok((filled, mechanism))
}
