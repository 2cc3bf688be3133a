//! `poisson-binomial`: coins and their bias, as given or for a target.

use std::sync::Arc;

use super::{Resolved, Setting, accounted, check_bits, fits, invalid, settled, takes, target};
use crate::config::{ConfigError, PrivacyConfig};
use crate::fl::plan::NoisePlacement;
use crate::privacy::DpEvent;
use crate::privacy::accountant::Rule;
use crate::privacy::calibrate::bias::calibrate_bias;
use crate::privacy::calibrate::wrap::{RingUse, check_wrap};
use crate::privacy::calibrate::{Uses, calibrate_noise, discrete_gaussian};
use crate::privacy::mechanism::Mechanism;
use crate::privacy::mechanism::poisson_binomial::{PoissonBinomial, PoissonBinomialParams};
use crate::privacy::mechanism::rounded::DEFAULT_BETA;

/// Most coins of a client that are taken where the config does not say: more would hardly be noticed.
const ENOUGH_COINS: u64 = 16;

pub(super) fn coins(config: &PrivacyConfig, setting: &Setting, uses: &Uses) -> Result<Resolved, ConfigError> {
    takes(config, &["gamma", "coins", "beta"])?;
    check_bits(config)?;
    if config.noise == NoisePlacement::Aggregate {
        let expected =
            "per_client: the coins are the clients' own answers (`aggregate` is for smm, skellam, binomial and others)";
        return Err(invalid("privacy.noise", expected, "aggregate"));
    }
    // Designs, single encodings and audits do not throw coins: only a run knows that everybody takes part.
    if setting.rate < 1.0 || setting.participation.is_none() {
        let expected = "another one: the coins of poisson-binomial are thrown in runs (`train`, `sweep`) in which all clients take \
                        part in every round (sampling `all`), without amplification; skellam and smm go with any sampling";
        return Err(invalid("privacy.mechanism", expected, "poisson-binomial"));
    }
    let base = PoissonBinomialParams {
        gamma: config.gamma.unwrap_or(1.0),
        clip: config.clip,
        bits: config.bits,
        coins: config.coins.unwrap_or(2),
        clients: setting.cohort.round() as u64,
        beta: config.beta.unwrap_or(DEFAULT_BETA),
    };
    let made = |coins: u64, gamma: f64| -> Result<Arc<dyn Mechanism>, ConfigError> {
        let mechanism = PoissonBinomial::new(PoissonBinomialParams { coins, gamma, ..base })?;
        // What cannot be encoded has no event.
        mechanism.encode_params(setting.dim)?;
        Ok(Arc::new(mechanism))
    };
    let (coins, gamma, mechanism) = match (config.gamma, config.coins) {
        (Some(gamma), Some(coins)) => (coins, gamma, made(coins, gamma)?),
        (Some(gamma), None) => {
            return Err(invalid(
                "privacy.coins",
                "given together with privacy.gamma",
                format!("absent, gamma {gamma}"),
            ));
        }
        (None, coins) => {
            let target = target(config, "privacy.gamma and privacy.coins")?;
            let coins = coins.map_or_else(|| most_coins(config, setting), Ok)?;
            // Where the search begins.
            let gaussian = calibrate_noise(&Uses { rule: Rule::Rdp, ..uses.clone() }, target, discrete_gaussian)?;
            let cost = |event: DpEvent| Ok(uses.epsilon(|_| event.clone())?.epsilon);
            let params = PoissonBinomialParams { coins, ..base };
            let level = calibrate_bias(&params, setting.dim, target, gaussian, cost)?;
            let accounted = |level: f64| {
                let mechanism = made(coins, 1.0 / level)?;
                Ok((accounted(uses, setting.dim, &mechanism, &[])?, mechanism))
            };
            let (level, mechanism) = settled(target, level, accounted)?;
            (coins, 1.0 / level, mechanism)
        }
    };
    let predicted_wrap = Some(fits(config, setting, mechanism.as_ref())?);
    let (gamma, coins, beta) = (Some(gamma), Some(coins), Some(base.beta));
    let privacy = PrivacyConfig { gamma, coins, beta, ..config.clone() };
    Ok(Resolved { privacy, mechanism, later: Vec::new(), rule: uses.rule, predicted_wrap })
}

/// As many coins as the ring holds and as are worth while.
fn most_coins(config: &PrivacyConfig, setting: &Setting) -> Result<u64, ConfigError> {
    let ring = |coins: u64| RingUse {
        // A little room for the signal.
        noise_variance: 1.05 * 0.25 * setting.cohort * coins as f64,
        cohort: setting.cohort,
        rounding_std: 0.0,
        signal_rms: 0.0,
    };
    let fits = |coins: &u64| check_wrap(config.bits, &ring(*coins), config.wrap_limit).is_ok();
    if config.allow_wrap {
        return Ok(ENOUGH_COINS);
    }
    let found = (1..=ENOUGH_COINS / 2).rev().map(|half| 2 * half).find(fits);
    found.ok_or_else(|| ring(2).refusal(config.bits, config.wrap_limit).into())
}
