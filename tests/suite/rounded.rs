//! Mechanisms whose norm is bounded behind the rounding, end to end.

use std::sync::Arc;

use veilsum::backend::simd::Simd;
use veilsum::config::resolve::{Resolved, Setting, resolve};
use veilsum::config::{MechanismName, PrivacyConfig};
use veilsum::fl::plan::NoisePlacement;
use veilsum::privacy::DpEvent;
use veilsum::privacy::matrix::Participation;
use veilsum::privacy::mechanism::NoiseLaw;
use veilsum::sim::dse::{self, DseConfig, DseResult};

fn privacy(mechanism: MechanismName, noise: NoisePlacement) -> PrivacyConfig {
    let text = r#"{ "mechanism": "skellam", "clip": 1.0, "bits": 16, "gamma": 100.0, "target_epsilon": 4.0 }"#;
    PrivacyConfig { mechanism, noise, ..serde_json::from_str(text).unwrap() }
}

fn estimate(privacy: PrivacyConfig) -> DseResult {
    let config = DseConfig { schema: None, dim: 3000, clients: 20, repeats: 3, seed: 5, privacy };
    dse::run(&config, &(Arc::new(Simd::new()) as _), || ()).unwrap()
}

const ROUNDED: [MechanismName; 3] =
    [MechanismName::Skellam, MechanismName::DistributedDiscreteGaussian, MechanismName::Binomial];

/// Calibrated to epsilon 4: unbiased, and the error is that of the noise that is accounted, whoever draws it.
#[test]
fn sums_are_unbiased_with_the_noise_that_is_accounted() {
    for mechanism in ROUNDED {
        for noise in [NoisePlacement::PerClient, NoisePlacement::Aggregate] {
            if mechanism == MechanismName::DistributedDiscreteGaussian && noise == NoisePlacement::Aggregate {
                continue;
            }
            let result = estimate(privacy(mechanism, noise));
            let found = result.epsilon.epsilon;
            assert!(found <= 4.0 && found > 3.99, "{mechanism:?} {noise:?}: {:?}", result.epsilon);
            assert!(result.mechanism.certified() && result.predicted_wrap.unwrap() < 1e-3);
            let (slope, mse) = (result.mean_std(|t| t.slope).0, result.mean_std(|t| t.mse).0);
            // Signal 20 of energy against noise of some 1.3 a coordinate: the slope's standard deviation is 0.15 in the mean.
            assert!((slope - 1.0).abs() < 0.6, "{mechanism:?} {noise:?}: slope {slope}");
            // Rounding adds 20/6 / 100^2; 9000 squares scatter by 1.5 %.
            assert!(
                (mse / (result.noise_mse + 20.0 / 6e4) - 1.0).abs() < 0.08,
                "{mechanism:?}: {mse} {}",
                result.noise_mse
            );
        }
    }
}

/// A bound that every row exceeds: what is left is shrunk, and still bounded.
#[test]
fn gamma_is_found_where_it_is_worth_its_bits() {
    let setting = Setting { cohort: 50.0, rate: 1.0, rounds: 1, delta: 1e-5, dim: 4096, participation: None };
    for mechanism in ROUNDED {
        let config = PrivacyConfig { gamma: None, ..privacy(mechanism, NoisePlacement::PerClient) };
        let Resolved { privacy: resolved, mechanism: built, predicted_wrap: wrap, .. } =
            resolve(&config, &setting).unwrap();
        let gamma = resolved.gamma.unwrap();
        // The bound is 1 % above the ball there.
        assert!(gamma > 50.0 && gamma < 1500.0 && wrap.unwrap() <= 1.001e-3, "{mechanism:?}: {gamma} {wrap:?}");
        // What was calibrated resolves to itself.
        let given = PrivacyConfig { target_epsilon: None, ..resolved.clone() };
        let Resolved { privacy: again, mechanism: same, .. } = resolve(&given, &setting).unwrap();
        assert_eq!((again.gamma, same.noise()), (resolved.gamma, built.noise()), "{mechanism:?}");
        if let NoiseLaw::CenteredBinomial { coins } = built.noise() {
            assert_eq!(coins % 50, 0);
        }
        // Fewer bits, coarser steps; too few, and the error says how many would do.
        let narrow = PrivacyConfig { bits: 9, ..config.clone() };
        assert!(resolve(&narrow, &setting).unwrap().privacy.gamma.unwrap() < gamma);
        let refused = resolve(&PrivacyConfig { bits: 3, ..config }, &setting).unwrap_err().to_string();
        assert!(refused.contains("bits would do"), "{refused}");
    }
}

#[test]
fn what_is_not_closed_under_sums_is_drawn_by_every_client() {
    let setting = |rate| Setting { cohort: 50.0, rate, rounds: 10, delta: 1e-5, dim: 1000, participation: None };
    let refused = |mechanism, noise, rate| resolve(&privacy(mechanism, noise), &setting(rate)).unwrap_err().to_string();
    let error = refused(MechanismName::DistributedDiscreteGaussian, NoisePlacement::Aggregate, 1.0);
    assert!(error.contains("per_client") && error.contains("skellam"), "{error}");
    // A cohort of any size cannot share coins.
    let error = refused(MechanismName::Binomial, NoisePlacement::PerClient, 0.1);
    assert!(error.contains("aggregate") && error.contains("all"), "{error}");
    for (mechanism, noise) in [
        (MechanismName::DistributedDiscreteGaussian, NoisePlacement::PerClient),
        (MechanismName::Skellam, NoisePlacement::Aggregate),
    ] {
        assert!(resolve(&privacy(mechanism, noise), &setting(0.1)).is_ok(), "{mechanism:?}");
    }
    // Foreign parameters.
    for (name, value) in [("mu", "3"), ("coins", "7"), ("noise_multiplier", "1"), ("l_inf", "2")] {
        let mut json = serde_json::to_value(privacy(ROUNDED[1], NoisePlacement::PerClient)).unwrap();
        json[name] = value.parse::<u64>().unwrap().into();
        let error = resolve(&serde_json::from_value(json).unwrap(), &setting(1.0)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("absent"), "{error}");
    }
}

/// Coins whose bias is the row: calibrated for runs in which everybody takes part, refused elsewhere.
#[test]
fn biased_coins_are_calibrated_for_runs_of_all_clients() {
    let everybody = Some(Participation { max: 10, separation: 1 });
    let setting = Setting { cohort: 400.0, rate: 1.0, rounds: 10, delta: 1e-5, dim: 4000, participation: everybody };
    let config =
        PrivacyConfig { gamma: None, bits: 12, ..privacy(MechanismName::PoissonBinomial, NoisePlacement::PerClient) };
    let Resolved { privacy: resolved, mechanism: built, predicted_wrap: wrap, rule, .. } =
        resolve(&config, &setting).unwrap();
    let (gamma, coins) = (resolved.gamma.unwrap(), resolved.coins.unwrap());
    assert!(coins == 16 && wrap.unwrap() < 1e-3, "{resolved:?} {wrap:?}");
    let event = built.event(setting.dim);
    let DpEvent::PoissonBinomialVector { others, most_bias, l2_bound, .. } = event else { panic!("{event:?}") };
    assert!(others == 16 * 399 && l2_bound <= gamma * (1.0 + 1e-12), "{event:?}");
    assert!(most_bias > 5.0 * gamma / 64.0 && most_bias < 0.25);
    let found = rule.epsilon(&event, 10, 1e-5).unwrap().epsilon;
    assert!(found <= 4.0 && found > 3.99, "{found}");
    assert!(matches!(built.noise(), NoiseLaw::CenteredBinomial { coins: 3200 }) && built.bias_bits().is_some());
    // What was calibrated resolves to itself; more coins, less bias and a little more signal in the noise.
    let given = PrivacyConfig { target_epsilon: None, ..resolved.clone() };
    assert_eq!(resolve(&given, &setting).unwrap().privacy.gamma, Some(gamma));
    let few = resolve(&PrivacyConfig { coins: Some(2), ..config.clone() }, &setting).unwrap();
    let signal = |gamma: f64, coins: f64| gamma * coins.sqrt();
    assert!(signal(gamma, 16.0) > signal(few.privacy.gamma.unwrap(), 2.0));
    // A narrow ring takes fewer coins, down to two.
    let narrow = resolve(&PrivacyConfig { bits: 7, ..config.clone() }, &setting).unwrap();
    assert!(narrow.privacy.coins.unwrap() < 16 && narrow.predicted_wrap.unwrap() <= 1e-3, "{:?}", narrow.privacy);
    for (refused, setting, says) in [
        (PrivacyConfig { bits: 4, ..config.clone() }, setting, "bits would do"),
        (PrivacyConfig { noise: NoisePlacement::Aggregate, ..config.clone() }, setting, "per_client"),
        (config.clone(), Setting { rate: 0.1, participation: None, ..setting }, "sampling `all`"),
        (config.clone(), Setting { participation: None, ..setting }, "train"),
        (PrivacyConfig { coins: Some(3), ..config.clone() }, setting, "even"),
        (PrivacyConfig { mu: Some(3.0), ..config.clone() }, setting, "privacy.mu"),
        (PrivacyConfig { gamma: Some(0.1), ..config.clone() }, setting, "privacy.coins"),
        (PrivacyConfig { gamma: Some(40.0), coins: Some(2), ..config.clone() }, setting, "more than 1/4"),
        (PrivacyConfig { target_epsilon: None, ..config.clone() }, setting, "target_epsilon"),
    ] {
        let error = resolve(&refused, &setting).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
    // Encodings without a run do not throw coins, and say so.
    let config = DseConfig { schema: None, dim: 3000, clients: 20, repeats: 1, seed: 5, privacy: config };
    let error = dse::run(&config, &(Arc::new(Simd::new()) as _), || ()).unwrap_err().to_string();
    assert!(error.contains("train") && error.contains("poisson-binomial"), "{error}");
}
