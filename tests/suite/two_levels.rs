//! Noise of two levels: the clients' part protects from the server, that and the server's own from everybody else.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, overrides};
use veilsum::privacy::DpEvent;
use veilsum::privacy::mechanism::NoiseLaw;
use veilsum::sim::{self, RunOptions, RunResult, Silent};

use crate::federation::experiment_of;

/// A run of zero vectors, whose weights are the noise and nothing else.
fn silent(mechanism: &str, more: &str, set: &[&str]) -> Experiment {
    let privacy = format!(
        r#"privacy={{"mechanism":"{mechanism}","clip":1.0,"gamma":4,"mu":30,"bits":24,"noise":"per_client"{more}}}"#
    );
    let base = ["algorithm.weights=uniform", "sampling=all", "partition.clients=40", "cohort=40"];
    experiment_of(&[0.0; 4096], &[&[privacy.as_str()], &base[..], set].concat())
}

fn run(experiment: &Experiment) -> RunResult {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent).unwrap()
}

/// Signs and transforms keep the sum of squares: that of the integer noise over (gamma times the divisor) squared.
fn released_over_accounted(experiment: &Experiment) -> f64 {
    let result = run(experiment);
    let NoiseLaw::Skellam { mu } = experiment.plan.mechanism.noise() else { panic!("a Skellam law") };
    let square: f64 = result.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / 4096.0;
    let scale = 4.0 * experiment.plan.divisor(result.history[0].survivors);
    square * scale * scale / (2.0 * mu)
}

/// Skellam parameter of an event of `smm`.
fn noise_of(event: &DpEvent) -> f64 {
    match event {
        DpEvent::PoissonSampled { event, .. } => noise_of(event),
        DpEvent::SkellamMixture { mu, .. } => *mu,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_released_has_all_of_the_noise_and_the_clients_add_their_part() {
    for mechanism in ["smm", "smm-2022", "skellam"] {
        let experiment = silent(mechanism, r#","server_share":0.4"#, &[]);
        let NoiseLaw::Skellam { mu } = experiment.plan.share(1, 40) else { panic!("a share") };
        assert!((mu - 0.6 * 30.0).abs() < 1e-9, "{mu}");
        assert_eq!(experiment.plan.remainder(1, 40), NoiseLaw::Skellam { mu: (0.4f64 * 1200.0).next_up() });
        // Relative standard deviation of a variance from 4096 values: 2.2 %.
        let ratio = released_over_accounted(&experiment);
        assert!((ratio - 1.0).abs() < 0.11, "{mechanism}: {ratio}");
    }
    // Drawn at once, in layers with dropouts, for a cohort of nobody: all the same.
    for (more, set) in [
        ("", ["privacy.noise=aggregate", "privacy.server_share=0.25"]),
        (r#","server_share":0.25,"dropout":{"tolerated":0.5}"#, ["dropout_rate=0.3", "seed=5"]),
        (r#","server_share":0.25"#, ["sampling=poisson", "cohort=0.001"]),
    ] {
        let ratio = released_over_accounted(&silent("smm", more, &set));
        assert!((ratio - 1.0).abs() < 0.11, "{set:?}: {ratio}");
    }
}

#[test]
fn each_view_is_charged_for_the_noise_that_it_does_not_know() {
    let shared = |share: f64, set: &[&str]| {
        let result = run(&silent("smm", &format!(r#","server_share":{share}"#), set));
        (result.epsilon.public.epsilon, result.epsilon.server.epsilon)
    };
    let plan = silent("smm", r#","server_share":0.4"#, &["sampling=poisson", "cohort=20"]).plan;
    let (cost, _) = plan.costs().unwrap().stages[0].clone();
    let (public, server) = (noise_of(&cost.public), noise_of(&cost.server));
    assert!((public - 600.0).abs() < 1e-9 && (server - 0.6 * public).abs() < 1e-9, "{public} {server}");
    let (alone, alone_server) = shared(0.0, &[]);
    let (public, server) = shared(0.4, &[]);
    assert_eq!(alone, alone_server, "everybody sees the same");
    assert_eq!(public, alone, "the noise that is released is the same");
    // As if the clients had been alone with their part.
    let less = run(&silent("smm", "", &["privacy.mu=18"])).epsilon.server.epsilon;
    assert!((server / less - 1.0).abs() < 1e-6 && server > public, "{server} {less}");
}

#[test]
fn a_target_is_that_of_the_public_view_and_impossible_shares_are_refused() {
    let calibrated = |share: &str| {
        let privacy = r#"privacy={"mechanism":"smm","clip":1.0,"bits":16,"noise":"per_client","target_epsilon":2.0}"#;
        let set = [privacy, "algorithm.weights=uniform", "sampling=all", "partition.clients=40", "cohort=40", share];
        run(&experiment_of(&[0.0; 64], &set)).epsilon
    };
    let (one, two) = (calibrated("privacy.server_share=0"), calibrated("privacy.server_share=0.5"));
    assert_eq!(one.public.epsilon, two.public.epsilon);
    assert!(two.public.epsilon <= 2.0 && two.server.epsilon > 2.0, "{two:?}");

    let refused = |privacy: &str| {
        let base = r#"{
            "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 40},
            "model": "digits_mlp", "algorithm": {"name": "fed_sgd"}, "server": {"optimizer": "sgd", "learning_rate": 1.0}, "cohort": 40, "sampling": "all", "rounds": 1,
            "privacy": {"mechanism": "smm", "clip": 1.0, "target_epsilon": 2.0, "noise": "per_client"}
        }"#;
        let mut value = overrides::parse(base, "test").unwrap();
        overrides::set(&mut value, privacy).unwrap();
        let config: Config = overrides::typed(&value, "test").unwrap();
        build(&config, Path::new("."), Given::default()).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for share in ["1", "-0.1", "7"] {
        let error = refused(&format!("privacy.server_share={share}"));
        assert!(error.contains("privacy.server_share is") && error.contains("[0, 1)"), "{error}");
    }
    let error = refused(
        r#"privacy={"mechanism":"central-gaussian","clip":1.0,"noise_multiplier":2.0,"noise":"aggregate","server_share":0.5}"#,
    );
    assert!(error.contains("`smm`, `smm-2022` or `skellam`"), "{error}");
}
