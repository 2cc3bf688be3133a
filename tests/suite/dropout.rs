//! Noise that is enough, and no more than enough, when clients vanish or tell theirs.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use serde_json::Value;
use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, overrides};
use veilsum::fl::FlError;
use veilsum::fl::client::excess_keys;
use veilsum::fl::coordinator::{Action, Coordinator, RoundTask};
use veilsum::fl::dropout::{Dropout, Excess, kept};
use veilsum::fl::spend::Spend;
use veilsum::privacy::mechanism::NoiseLaw;
use veilsum::sim::{self, RunOptions, RunResult, Silent, SimError};

use crate::federation::experiment_of;

fn run(experiment: &Experiment) -> Result<RunResult, SimError> {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent)
}

/// A run of zero vectors, whose weights are the noise and nothing else.
fn silent(dropout: &str, set: &[&str]) -> Experiment {
    let privacy = format!(
        r#"privacy={{"mechanism":"smm","clip":1.0,"gamma":4,"mu":30,"bits":24,"noise":"per_client","dropout":{dropout}}}"#
    );
    let mut all =
        vec![privacy.as_str(), "algorithm.weights=uniform", "sampling=all", "partition.clients=40", "cohort=40"];
    all.extend(set);
    experiment_of(&[0.0; 4096], &all)
}

proptest! {
    /// The noise of the honest survivors is at least what is accounted, and in single layers without colluders exactly that.
    #[test]
    fn survivors_have_the_noise_that_is_accounted(
        size in 1u64..400, tolerated in 0.0..0.9f64, colluders in 0u64..20, steps in proptest::option::of(1u32..12), keep: bool,
    ) {
        let excess = if keep { Excess::Kept } else { Excess::Removed };
        let dropout = Dropout { tolerated, colluders, excess, layers: steps.filter(|_| !keep) };
        let most = dropout.tolerable(size);
        prop_assume!(most + colluders < size);
        prop_assert!(dropout.validate(Some(size)).is_ok());
        let shares = dropout.shares(1428.0, size);
        for vanished in 0..=most {
            let stays = &shares.layers[..kept(&shares.layers, vanished)];
            let each = shares.first + stays.iter().map(|layer| layer.mu).sum::<f64>();
            let honest = (size - vanished - colluders) as f64 * each;
            prop_assert!(honest >= 1428.0 * (1.0 - 1e-13), "{vanished} of {size}: {honest}");
            let all = (size - vanished) as f64 * each;
            prop_assert!(all <= 1428.0 * dropout.inflation(size) * (1.0 + 1e-12));
            if colluders == 0 && steps.is_none() && !keep {
                prop_assert!((all / 1428.0 - 1.0).abs() < 1e-12, "{vanished} of {size}: {all}");
            }
        }
        prop_assert!(shares.layers.len() as u64 <= steps.map_or(most, u64::from));
    }
}

/// Signs and transforms keep the sum of squares: it is that of the integer noise over (gamma times the divisor) squared.
fn released_over_accounted(experiment: &Experiment) -> (f64, Vec<usize>) {
    let result = run(experiment).unwrap();
    let NoiseLaw::Skellam { mu } = experiment.plan.mechanism.noise() else { panic!("a Skellam mixture") };
    let survivors: Vec<usize> = result.history.iter().map(|r| r.survivors).collect();
    let square: f64 = result.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / 4096.0;
    // One round; the vectors are sums of shares over gamma times the divisor.
    let scale = 4.0 * experiment.plan.divisor(survivors[0]);
    (square * scale * scale / (2.0 * mu), survivors)
}

#[test]
fn released_noise_does_not_depend_on_who_vanished() {
    // Relative standard deviation of a variance from 4096 values: 2.2 %.
    for (rate, seed) in [(0.0, 1), (0.2, 2), (0.35, 3)] {
        let set = [format!("dropout_rate={rate}"), format!("seed={seed}")];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let (ratio, survivors) = released_over_accounted(&silent(r#"{"tolerated":0.5}"#, &set));
        assert!((survivors[0] == 40) == (rate == 0.0), "{survivors:?}");
        assert!((ratio - 1.0).abs() < 0.11, "rate {rate}, {survivors:?}: {ratio}");
        // Kept: 40 - 20 shares would be enough.
        let (ratio, _) = released_over_accounted(&silent(r#"{"tolerated":0.5,"excess":"kept"}"#, &set));
        let expected = survivors[0] as f64 / 20.0;
        assert!((ratio / expected - 1.0).abs() < 0.11, "rate {rate}, {survivors:?}: {ratio}");
        // Ten colluders may tell theirs: the others' noise is accounted, all of it is released.
        let (ratio, _) = released_over_accounted(&silent(r#"{"tolerated":0.5,"colluders":10}"#, &set));
        assert!((ratio / 2.0 - 1.0).abs() < 0.11, "rate {rate}: {ratio}");
    }
    // Of secret cohorts too.
    let set = ["sampling=poisson", "cohort=30", "dropout_rate=0.2"];
    let (ratio, survivors) = released_over_accounted(&silent(r#"{"tolerated":0.5}"#, &set));
    assert!((ratio - 1.0).abs() < 0.11, "{survivors:?}: {ratio}");
}

#[test]
fn the_price_is_the_same_and_too_few_survivors_abort() {
    let whole = run(&silent(r#"{"tolerated":0.5}"#, &[])).unwrap();
    let lossy = run(&silent(r#"{"tolerated":0.5}"#, &["dropout_rate=0.3"])).unwrap();
    assert_eq!(whole.epsilon.public.epsilon, lossy.epsilon.public.epsilon);
    assert_eq!(run(&silent(r#"{"tolerated":0.5}"#, &["dropout_rate=0.3"])).unwrap().weights, lossy.weights);
    let error = run(&silent(r#"{"tolerated":0.1}"#, &["dropout_rate=0.6"])).unwrap_err();
    assert!(
        matches!(error, SimError::Fl(FlError::Aborted { threshold: 36, survivors, .. }) if survivors < 36),
        "{error}"
    );
    // Without a word about dropouts all must deliver; where one party adds the noise any number will do.
    let lossy = ["dropout_rate=0.3", "algorithm.weights=uniform", "sampling=all", "partition.clients=40", "cohort=40"];
    for (noise, aborts) in [("per_client", true), ("aggregate", false)] {
        let privacy =
            format!(r#"privacy={{"mechanism":"smm","clip":1.0,"gamma":4,"mu":30,"bits":24,"noise":"{noise}"}}"#);
        let result = run(&experiment_of(&[0.0; 64], &[&[privacy.as_str()], &lossy[..]].concat()));
        assert_eq!(matches!(result, Err(SimError::Fl(FlError::Aborted { .. }))), aborts, "{noise}");
    }
    let none = run(&experiment_of(&[0.25; 4], &lossy)).unwrap();
    assert!(none.history[0].survivors < 40 && (none.weights[0] - 0.25).abs() < 1e-6, "{:?}", none.weights);
}

/// A round in which all deliver, up to its charge.
fn delivered(experiment: &Experiment) -> (Coordinator, RoundTask) {
    let spend = Spend::new(&experiment.plan, std::collections::BTreeMap::new()).unwrap();
    let (plan, secret, backend) = (experiment.plan.clone(), experiment.secret.clone(), experiment.backend.clone());
    let mut coordinator = Coordinator::new(plan, secret, backend, vec![0.0; 4096], spend).unwrap();
    assert!(coordinator.excess().is_empty());
    assert!(matches!(coordinator.take_out(0, Vec::new()), Err(FlError::OutOfOrder { .. })));
    let Some(Action::Begin(tasks)) = coordinator.poll_action().unwrap() else { panic!("a round begins") };
    let mut holders = sim::mphe::Holders::default();
    sim::work::play_round(experiment, &tasks, &mut coordinator, &mut holders, &AtomicBool::new(false)).unwrap();
    assert!(matches!(coordinator.poll_action().unwrap(), Some(Action::Charge(_))));
    (coordinator, tasks[0].clone())
}

fn square(coordinator: &Coordinator) -> f64 {
    coordinator.weights().iter().map(|&w| f64::from(w) * f64::from(w)).sum()
}

#[test]
fn noise_that_nobody_takes_out_stays_or_ends_the_round() {
    let experiment = silent(r#"{"tolerated":0.5}"#, &[]);
    let (mut coordinator, task) = delivered(&experiment);
    assert_eq!((task.layers.len(), task.threshold, task.excess(40), task.excess(33)), (20, 20, 0..20, 7..20));
    let excess = coordinator.excess().remove(0);
    assert_eq!(excess.clients, (0..40).collect::<Vec<u64>>());
    let keys_of = |client: u64| excess_keys(&experiment.plan, &task, &experiment.secret, client, 40);
    let keys = keys_of(7);
    assert!(matches!(coordinator.take_out(7, keys[1..].to_vec()), Err(FlError::OutOfRange { .. })));
    assert!(matches!(coordinator.take_out(40, keys.clone()), Err(FlError::SecAgg(_))));
    for client in 0..30 {
        coordinator.take_out(client, keys_of(client)).unwrap();
    }
    // Ten are silent: a share of each stays as large as if twenty had vanished.
    coordinator.charged().unwrap();
    sim::work::take_out_excess(&experiment, &mut coordinator).unwrap();
    let (mut whole, _) = delivered(&experiment);
    sim::work::take_out_excess(&experiment, &mut whole).unwrap();
    whole.charged().unwrap();
    let ratio = square(&coordinator) / square(&whole);
    assert!((ratio - 1.25).abs() < 0.1, "{ratio}");
    // A secret cohort's size would show in the noise.
    let (mut coordinator, task) = delivered(&silent(r#"{"tolerated":0.5}"#, &["sampling=poisson", "cohort=30"]));
    let error = coordinator.charged().unwrap_err();
    let all = task.cohort.len();
    assert!(matches!(error, FlError::Aborted { survivors: 0, threshold, .. } if threshold == all), "{error}");
}

fn refusal(set: &[&str]) -> String {
    let base = r#"{
        "name": "dropout", "seed": 3, "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 40},
        "model": "digits_mlp", "algorithm": {"name": "fed_sgd"}, "server": {"optimizer": "sgd", "learning_rate": 1.0},
        "cohort": 40, "sampling": "all", "rounds": 1,
        "privacy": {"mechanism": "smm", "clip": 1.0, "gamma": 4, "mu": 30, "bits": 24, "noise": "per_client",
                    "dropout": {"tolerated": 0.5}}
    }"#;
    let mut value = overrides::parse(base, "test").unwrap();
    set.iter().for_each(|item| overrides::set(&mut value, item).unwrap());
    let config: Config = match overrides::typed(&value, "test") {
        Ok(config) => config,
        Err(e) => return e.to_string(),
    };
    build(&config, Path::new("."), Given::default()).map_or_else(|e| e.to_string(), |_| "accepted".to_owned())
}

#[test]
fn what_cannot_be_proved_is_refused() {
    assert_eq!(refusal(&[]), "accepted");
    assert_eq!(refusal(&["sampling=poisson", "cohort=20"]), "accepted");
    for (set, says) in [
        (&["privacy.dropout.tolerated=1"][..], "in [0, 1)"),
        (&["privacy.dropout.tolerated=-0.1"], "in [0, 1)"),
        (&["privacy.dropout.colluders=20"], "fewer than the 40 clients"),
        (&["privacy.dropout.layers=0"], "at least 1"),
        (&["privacy.dropout.layers=3", "privacy.dropout.excess=kept"], "excess `removed`"),
        (&["privacy.dropout.maximum=3"], "maximum"),
        (&["privacy.noise=aggregate"], "per_client"),
        (&["dropout_rate=1"], "dropout_rate"),
        (&["dropout_rate=-1"], "dropout_rate"),
        (&["sampling=poisson", "cohort=20", "privacy.dropout.excess=kept"], "excess `removed`"),
        (&["sampling=poisson", "cohort=20", "privacy.dropout.colluders=1"], "no colluders"),
        (&["sampling=poisson", "cohort=20", "privacy.dropout.layers=3"], "no bound of layers"),
        // Twice the noise needs a wider ring.
        (&["privacy.bits=9", "privacy.dropout.excess=kept", "privacy.dropout.tolerated=0.9"], "bits"),
    ] {
        let found = refusal(set);
        assert!(found.contains(says), "{set:?}: {found}");
    }
    assert_eq!(refusal(&["privacy.bits=9"]), "accepted");
}

#[test]
fn a_run_with_dropouts_as_a_user_starts_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_veilsum"))
        .args(["train", "--json", "--out", out.to_str().unwrap()])
        .args(
            ["data.name=digits", "model=digits_mlp", "cohort=100", "rounds=3", "dropout_rate=0.2", "seed=5"]
                .map(|s| format!("--set={s}")),
        )
        .args(["privacy.noise=per_client", r#"privacy.dropout={"tolerated":0.5}"#].map(|s| format!("--set={s}")))
        .args(["--set=privacy.target_epsilon=6", "--set=privacy.bits=12", "--set=evaluation.every=3"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rounds: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rounds.len(), 3);
    for round in &rounds {
        let [cohort, survivors] = ["cohort", "survivors"].map(|key| round[key].as_u64().unwrap());
        assert!(survivors < cohort && 2 * survivors >= cohort, "{round}");
    }
    let epsilon = rounds[2]["epsilon"].as_f64().unwrap();
    assert!(epsilon <= 6.0 && epsilon > 5.9, "{epsilon}");
}
