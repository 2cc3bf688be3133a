//! Cohorts in groups: a sum each, noise each, the same under every protocol.

use std::sync::atomic::AtomicBool;

use veilsum::config::build::Experiment;
use veilsum::privacy::mechanism::NoiseLaw;
use veilsum::sim::{self, RunOptions, RunResult, Silent, SimError};

use crate::federation::{experiment_of, refusal_of};

fn run(experiment: &Experiment) -> Result<RunResult, SimError> {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent)
}

const SMM: &str = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":20,"noise":"per_client"}"#;

#[test]
fn groups_are_divided_out_by_their_own_weight() {
    let delta = [0.5, -0.25, 0.125, 0.75];
    for (size, weights, sampling) in
        [(4, "samples", "fixed"), (4, "uniform", "all"), (1, "samples", "all"), (3, "uniform", "fixed")]
    {
        let set = [
            format!("group_size={size}"),
            format!("algorithm.weights={weights}"),
            format!("sampling={sampling}"),
            "dropout_rate=0.2".into(),
        ];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let result = run(&experiment_of(&delta, &set)).unwrap();
        assert!(result.history[0].survivors < result.history[0].cohort, "somebody vanishes");
        for (weight, delta) in result.weights.iter().zip(delta) {
            assert!((weight - delta).abs() <= 1.6e-8 + 2e-7 * delta.abs(), "{size} {weights}: {weight} {delta}");
        }
    }
}

#[test]
fn every_protocol_trains_the_same_model_of_groups() {
    let delta: Vec<f32> = (0..200).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
    let lossy = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":20,"noise":"per_client","dropout":{"tolerated":0.3}}"#;
    for (privacy, sampling, rate) in [(SMM, "all", 0.0), (lossy, "all", 0.1), (SMM, "poisson", 0.0)] {
        let with = |secagg: &str| {
            let (secagg, sampling) = (format!("secagg={secagg}"), format!("sampling={sampling}"));
            let rate = format!("dropout_rate={rate}");
            let base = ["partition.clients=60", "cohort=60", "group_size=20", "rounds=2", "algorithm.weights=uniform"];
            run(&experiment_of(&delta, &[&base[..], &[privacy, &secagg, &sampling, &rate]].concat())).unwrap()
        };
        let plain = with("plain");
        assert!(rate == 0.0 || plain.history.iter().any(|r| r.survivors < r.cohort), "somebody vanishes");
        for secagg in [r#"{"masks":{"dropouts":0.3}}"#, r#"{"oneshot":{}}"#] {
            let hidden = with(secagg);
            assert_eq!(hidden.weights, plain.weights, "{privacy} {sampling} {secagg}");
        }
    }
}

/// A run of zero vectors, whose weights are the noise and nothing else.
fn silent(set: &[&str]) -> Experiment {
    let base = [SMM, "algorithm.weights=uniform", "sampling=all", "partition.clients=40", "cohort=40"];
    experiment_of(&[0.0; 4096], &[&base[..], set].concat())
}

#[test]
fn every_group_has_the_noise_of_a_sum_of_its_own() {
    // Relative standard deviation of a variance from 4096 values: 2.2 %.
    for (set, size, groups) in [
        (&["group_size=10"][..], 10.0, 4.0),
        (&["group_size=10", "privacy.noise=aggregate"], 10.0, 4.0),
        (&["group_size=20", "privacy.server_share=0.3"], 20.0, 2.0),
        (&["group_size=20", "privacy.dropout={\"tolerated\":0.4}", "dropout_rate=0.2"], 20.0, 2.0),
    ] {
        let experiment = silent(set);
        let NoiseLaw::Skellam { mu } = experiment.plan.mechanism.noise() else { panic!("a Skellam law") };
        assert!((mu - 30.0 * size).abs() < 1e-9, "mu of a client times the clients of a group: {mu}");
        let result = run(&experiment).unwrap();
        let square: f64 = result.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / 4096.0;
        let survivors = result.history[0].survivors as f64;
        // The mean of independent means; where some vanished, groups differ a little in what they are divided by.
        let expected = 2.0 * mu / (16.0 * survivors / groups).powi(2) / groups;
        assert!((square / expected - 1.0).abs() < 0.15, "{set:?}: {square} {expected}");
    }
}

#[test]
fn a_client_pays_for_one_group_and_for_the_rate_of_the_round() {
    let epsilon = |set: &[&str]| {
        let result = run(&silent(&[&["rounds=3"], set].concat())).unwrap();
        (result.epsilon.public.epsilon, result.epsilon.server.epsilon)
    };
    // The noise of 10 clients, whoever else has a sum of his own.
    let alone = epsilon(&["partition.clients=10", "cohort=10"]);
    assert_eq!(epsilon(&["group_size=10"]), alone);
    assert!(epsilon(&[]).0 < alone.0, "one sum of all has more noise");
    let sampled = epsilon(&["group_size=10", "sampling=poisson", "cohort=20"]);
    assert!(sampled.0 < sampled.1 && sampled.1 == alone.1, "{sampled:?} {alone:?}");
}

#[test]
fn what_has_no_groups_is_refused() {
    for (set, says) in [
        (&["group_size=0"][..], "group_size is 0, expected 1 to the cohort"),
        (&["group_size=41"], "group_size is 41, expected 1 to the cohort, 40"),
        (
            &["group_size=10", r#"privacy.mechanism="distributed-discrete-gaussian""#, "privacy.target_epsilon=2"],
            "group_size",
        ),
        (&["group_size=2", r#"secagg={"masks":{}}"#], "clients"),
        (&["group_size=2", r#"secagg={"oneshot":{"corrupt":0.4}}"#], "corrupt_clients"),
    ] {
        let base = ["sampling=all", "partition.clients=40", "cohort=40", "algorithm.weights=uniform"];
        let privacy = r#"privacy={"mechanism":"smm","clip":1.0,"target_epsilon":4,"bits":20,"noise":"per_client"}"#;
        let error = refusal_of(&[&[privacy], &base[..], set].concat());
        assert!(error.contains(says), "{set:?}: {error}");
    }
}
