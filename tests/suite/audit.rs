//! The audit against the real pipeline: every planted fault is caught, the right mechanism is not.
//!
//! Seeds are fixed and every bit follows from them: a test does the same every time, on every machine. With fresh seeds
//! a right mechanism would be called broken at most once in a thousand audits, the error of the verdict.

use std::sync::Arc;

use veilsum::backend::{self, Backend};
use veilsum::config::{AccountantName, CipherName, MechanismName, PrivacyConfig};
use veilsum::fl::plan::NoisePlacement;
use veilsum::math::prg::Secret;
use veilsum::privacy::View;
use veilsum::sim::audit::{self, AuditConfig, AuditResult, Evidence, Fault, Size, Verdict};

fn processor() -> Arc<dyn Backend> {
    backend::open(Some(backend::BackendKind::Simd)).unwrap()
}

fn skellam(mechanism: MechanismName, gamma: f64, mu_total: f64, cohort: u64) -> PrivacyConfig {
    PrivacyConfig {
        mechanism,
        noise: NoisePlacement::Aggregate,
        clip: 1.0,
        bits: 24,
        dropout: None,
        server_share: 0.0,
        adaptive_clip: None,
        matrix: None,
        gamma: Some(gamma),
        mu: Some(mu_total / cohort as f64),
        noise_multiplier: None,
        l_inf: None,
        sigma_total: None,
        coins: None,
        beta: None,
        delta: 1e-6,
        target_epsilon: None,
        accountant: AccountantName::Best,
        schedule: None,
        wrap_limit: 1e-3,
        allow_wrap: false,
        cipher: CipherName::ChaCha20,
    }
}

fn central(noise_multiplier: f64) -> PrivacyConfig {
    PrivacyConfig {
        mechanism: MechanismName::CentralGaussian,
        gamma: None,
        mu: None,
        noise_multiplier: Some(noise_multiplier),
        ..skellam(MechanismName::Smm, 1.0, 1.0, 1)
    }
}

/// Noise of `multiplier` times the clip bound: `sqrt(2 mu_tot) = multiplier gamma C`.
fn smm(multiplier: f64) -> PrivacyConfig {
    skellam(MechanismName::Smm, 16.0, 0.5 * (16.0 * multiplier).powi(2), 16)
}

fn one_run(privacy: PrivacyConfig, canaries: u64) -> AuditConfig {
    AuditConfig {
        privacy,
        dim: 16,
        cohort: 16,
        population: None,
        rounds: 1,
        size: Size::Canaries(canaries),
        confidence: 0.95,
        fault: None,
    }
}

fn play(config: &AuditConfig, fault: Option<Fault>) -> AuditResult {
    let config = AuditConfig { fault, ..config.clone() };
    let (mut last, mut total) = (0, 0);
    let result = audit::run(&config, &Secret::from_seed(20_231), &processor(), |done, all| {
        assert!(done > last && done <= all);
        (last, total) = (done, all);
    })
    .unwrap();
    assert_eq!(last, total);
    eprintln!(
        "{} {fault:?}: claimed {:.4}, measured {:.4} {:.4} {:?}",
        result.mechanism.name(),
        result.claimed.epsilon,
        result.measured.epsilon,
        result.strict.epsilon,
        result.strict.evidence
    );
    assert!(result.measured.epsilon >= 0.9 * result.strict.epsilon, "less confidence proves more");
    assert!(result.claimed.epsilon.is_finite() && result.claimed.epsilon > 0.0);
    result
}

fn caught(config: &AuditConfig, fault: Fault) -> AuditResult {
    let result = play(config, Some(fault));
    assert_eq!(result.verdict, Verdict::Violated, "{fault:?}");
    assert!(result.strict.epsilon > result.claimed.epsilon);
    result
}

fn cleared(config: &AuditConfig) -> AuditResult {
    let result = play(config, None);
    assert_eq!(result.verdict, Verdict::Consistent, "{config:?}");
    result
}

#[test]
fn one_run_catches_missing_noise_and_a_missing_clip() {
    // Noise of the clip bound (smm-2022: twice that); the claims are epsilons of 3 to 6.
    for privacy in [smm(1.0), skellam(MechanismName::Smm2022, 16.0, 512.0, 16), central(1.0)] {
        let config = one_run(privacy, 16_384);
        let right = cleared(&config);
        assert_eq!((right.view, right.canaries_per_release, right.observations), (View::Server, 16, 16_384));
        if right.mechanism.name() != "smm-2022" {
            // The attack works: it is no empty threat.
            assert!(right.measured.epsilon > 0.5, "{}", right.measured.epsilon);
        }
        let Evidence::OneRun(counts) = caught(&config, Fault::NoNoise).strict.evidence else { panic!() };
        // The rounding of smm-2022 is left, and hides next to nothing.
        assert!(counts.canaries == 12_288 && 1000 * (counts.guesses - counts.right) <= counts.guesses, "{counts:?}");
        caught(&config, Fault::NoClip);
    }
}

#[test]
fn one_run_catches_half_the_noise() {
    // Twice the clip bound, and a delta that so many canaries leave room for.
    let privacy = PrivacyConfig { delta: 1e-7, ..skellam(MechanismName::Smm, 8.0, 128.0, 16) };
    let config = one_run(privacy, 1 << 19);
    cleared(&config);
    caught(&config, Fault::HalfNoise);
}

#[test]
fn one_run_catches_a_fixed_cohort_where_sampling_is_claimed() {
    let config = AuditConfig { population: Some(1600), rounds: 10, ..one_run(smm(2.0), 2048) };
    let right = cleared(&config);
    assert_eq!(right.view, View::Public);
    caught(&config, Fault::FixedCohort);
}

#[test]
fn one_run_catches_randomness_that_is_used_twice() {
    for privacy in [smm(2.0), central(2.0)] {
        let config = AuditConfig { rounds: 2, ..one_run(privacy, 16_384) };
        cleared(&config);
        caught(&config, Fault::ReusedRandomness);
    }
}

#[test]
fn noise_drawn_by_every_client_is_audited_too() {
    let privacy = PrivacyConfig { noise: NoisePlacement::PerClient, ..smm(1.0) };
    let config = one_run(privacy, 4096);
    cleared(&config);
    caught(&config, Fault::NoNoise);
}

#[test]
fn many_runs_catch_noise_that_is_ten_percent_low() {
    for privacy in [smm(1.0 / 3.0), central(1.0 / 3.0)] {
        let privacy = match privacy.mechanism {
            // Gamma 64: a variance of 455 steps, whose curve is close to a Gaussian's.
            MechanismName::Smm => skellam(MechanismName::Smm, 64.0, 64.0 * 64.0 / 18.0, 4),
            _ => privacy,
        };
        let config = AuditConfig { dim: 4, cohort: 4, size: Size::Runs(100_000), ..one_run(privacy, 1) };
        let right = cleared(&config);
        let Evidence::ManyRuns(counts) = right.strict.evidence else { panic!() };
        // mu of the release is 3: the bound is below it, and close.
        assert!(counts.mu.value > 2.85 && counts.mu.value < 3.0 && right.strict.gaussian, "{counts:?}");
        assert!(counts.epsilon.value > 0.0 && counts.epsilon.value < right.strict.epsilon);
        let low = caught(&config, Fault::LowNoise);
        assert!(low.strict.gaussian);
    }
}

#[test]
fn narrow_noise_and_sampling_are_not_judged_by_a_gaussian() {
    let narrow = AuditConfig { size: Size::Runs(2000), ..one_run(skellam(MechanismName::Smm, 2.0, 8.0, 16), 1) };
    assert!(!cleared(&narrow).strict.gaussian);
    let sampled = AuditConfig { population: Some(160), size: Size::Runs(2000), ..one_run(smm(1.0), 1) };
    assert!(!cleared(&sampled).strict.gaussian);
}

#[test]
fn bad_parameters_are_refused() {
    let good = one_run(smm(1.0), 64);
    for (bad, word) in [
        (AuditConfig { size: Size::Canaries(0), ..good.clone() }, "canaries"),
        (AuditConfig { size: Size::Runs(0), ..good.clone() }, "runs"),
        (AuditConfig { size: Size::Runs(3), ..good.clone() }, "runs"),
        (AuditConfig { dim: 0, ..good.clone() }, "dim"),
        (AuditConfig { cohort: 0, ..good.clone() }, "cohort"),
        (AuditConfig { rounds: 0, ..good.clone() }, "rounds"),
        (AuditConfig { population: Some(3), ..good.clone() }, "population"),
        (AuditConfig { confidence: 1.0, ..good.clone() }, "confidence"),
        (AuditConfig { confidence: f64::NAN, ..good.clone() }, "confidence"),
        (AuditConfig { fault: Some(Fault::FixedCohort), ..good.clone() }, "population"),
        (AuditConfig { fault: Some(Fault::ReusedRandomness), ..good.clone() }, "rounds"),
        (AuditConfig { privacy: PrivacyConfig { delta: 1.0, ..smm(1.0) }, ..good.clone() }, "delta"),
        (AuditConfig { privacy: PrivacyConfig { mu: Some(-1.0), ..smm(1.0) }, ..good.clone() }, "mu"),
    ] {
        let error = audit::run(&bad, &Secret::from_seed(1), &processor(), |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

fn veilsum(args: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_veilsum")).arg("audit").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_says_its_verdict_by_its_exit_code() {
    let common = ["--cohort", "16", "--dim", "16", "--mu", "32", "--canaries", "4096", "--seed", "1"];
    let (code, out, err) = veilsum(&[&common[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{err}");
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((object["verdict"].as_str(), object["view"].as_str()), (Some("consistent"), Some("server")));
    assert!(object["epsilon_lower"].as_f64().unwrap() < object["epsilon_claimed"].as_f64().unwrap());
    assert_eq!(object["neighboring"], "zero-out");
    assert!(!err.contains("round"), "{err}");
    assert_eq!(veilsum(&[&common[..], &["--json"]].concat()).1, out, "a seed repeats");
    let (code, out, err) = veilsum(&[&common[..], &["--fault", "no-noise"]].concat());
    assert_eq!(code, Some(3), "{err}");
    assert!(out.contains("violated") && out.contains("claimed") && err.contains("error: violated"), "{out}{err}");
    for (args, word) in [
        (&["--mechanism", "central-gaussian", "--mu", "3"][..], "--mu"),
        (&["--noise-multiplier", "3"], "--noise-multiplier"),
        (&["--fault", "reused-randomness"], "rounds"),
        (&["--fault", "none"], "no-noise"),
        (&["--runs", "10", "--canaries", "10"], "--canaries"),
        (&["--delta", "0"], "delta"),
        (&["--canaries", "0"], "canaries"),
    ] {
        let (code, out, err) = veilsum(args);
        assert!(code == Some(2) && out.is_empty() && err.contains(word), "{args:?}: {err}");
    }
}
