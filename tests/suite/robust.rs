//! Robust rules over clients and over the sums of groups, against an adversary, as a user runs them.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, ConfigError, overrides};
use veilsum::sim::{self, RunOptions, RunResult, Silent};

const BASE: &str = r#"{
    "name": "robust", "seed": 11,
    "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 20}, "model": "digits_mlp",
    "algorithm": {"name": "fed_avg", "learning_rate": 0.1, "epochs": 2},
    "server": {"optimizer": "sgd", "learning_rate": 1.0},
    "cohort": 20, "sampling": "all", "rounds": 12, "evaluation": {"every": 12},
    "privacy": {"mechanism": "none", "clip": 100.0}
}"#;

fn built(set: &[&str]) -> Result<Experiment, ConfigError> {
    let mut value = overrides::parse(BASE, "test").unwrap();
    for item in set {
        overrides::set(&mut value, item).unwrap();
    }
    build(&overrides::typed::<Config>(&value, "test").unwrap(), Path::new("."), Given::default())
}

fn run(set: &[&str]) -> RunResult {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(&built(set).unwrap(), &options, &mut Silent).unwrap()
}

fn accuracy(result: &RunResult) -> f64 {
    result.evaluation.unwrap().accuracy
}

#[test]
fn a_robust_rule_keeps_what_the_mean_loses() {
    let attack = r#"adversary={"clients":6,"attack":{"inner-product":{"strength":8}}}"#;
    let honest = accuracy(&run(&[]));
    assert!(honest > 0.85, "{honest}");
    let mean = run(&[attack]);
    assert!(accuracy(&mean) < 0.5, "{}", accuracy(&mean));
    for rule in [
        r#"{"rule":"median"}"#,
        r#"{"rule":{"trimmed-mean":{"f":6}}}"#,
        r#"{"rule":{"multi-krum":{"f":6}}}"#,
        r#"{"rule":{"geometric-median":{}}}"#,
        r#"{"rule":{"centered-clipping":{"tau":1,"iterations":3}}}"#,
        r#"{"rule":{"krum":{"f":6}},"before":[{"nearest-neighbor-mixing":{"f":6}}]}"#,
    ] {
        let result = run(&[attack, &format!("aggregation={rule}")]);
        assert!(accuracy(&result) > honest - 0.1, "{rule}: {} for {honest}", accuracy(&result));
        let report = result.history[0].rule.clone().unwrap();
        assert!(report.vectors == 20 && report.dropped.is_empty(), "{report:?}");
    }
    // Who is chosen is on record, and is none of those who lie.
    let result = run(&[attack, r#"aggregation={"rule":{"multi-krum":{"f":6}}}"#]);
    let chosen: Vec<u64> = result.history.iter().flat_map(|r| r.rule.clone().unwrap().chosen.unwrap()).collect();
    assert_eq!(chosen.len(), 12 * (20 - 6 - 2));
    let mut honest: Vec<u64> = chosen.clone();
    honest.sort_unstable();
    honest.dedup();
    assert!(honest.len() <= 14, "{honest:?}");
}

#[test]
fn a_rule_over_the_sums_of_groups_is_the_same_under_every_protocol() {
    let base = [
        "partition.clients=40",
        "cohort=40",
        "group_size=5",
        "rounds=6",
        "evaluation.every=6",
        r#"adversary={"clients":2,"attack":{"sign-flip":{"strength":40}}}"#,
    ];
    let with = |more: &[&str]| run(&[&base[..], more].concat());
    let plain = with(&[r#"aggregation={"rule":"median"}"#]);
    let report = plain.history[0].rule.clone().unwrap();
    assert_eq!(report.vectors, 8, "groups of five");
    for secagg in [r#"secagg={"masks":{"dropouts":0.2,"corrupt":0.2}}"#, r#"secagg={"oneshot":{"corrupt":0.2}}"#] {
        let hidden = with(&[r#"aggregation={"rule":"median"}"#, secagg]);
        assert_eq!(hidden.weights, plain.weights, "{secagg}");
    }
    let mean = with(&[]);
    assert!(accuracy(&plain) > accuracy(&mean) + 0.2, "{} {}", accuracy(&plain), accuracy(&mean));
}

#[test]
fn a_private_run_with_a_rule_over_groups_is_charged_for_one_sum_a_client() {
    let privacy = r#"privacy={"mechanism":"smm","clip":1.0,"bits":20,"noise":"per_client","gamma":64,"mu":400}"#;
    let set = [
        privacy,
        "partition.clients=60",
        "cohort=60",
        "group_size=12",
        "rounds=2",
        r#"secagg={"oneshot":{}}"#,
        r#"adversary={"clients":3,"attack":{"gaussian":{"strength":10}}}"#,
        r#"aggregation={"rule":{"trimmed-mean":{"f":1}}}"#,
    ];
    let result = run(&set);
    let alone = run(&[privacy, "partition.clients=12", "cohort=12", "rounds=2"]);
    assert_eq!(result.epsilon.server.epsilon, alone.epsilon.server.epsilon);
    assert!(result.epsilon.server.epsilon.is_finite() && result.history[1].rule.as_ref().unwrap().vectors == 5);
}

#[test]
fn a_backdoor_is_measured() {
    let set =
        [r#"adversary={"clients":6,"attack":{"backdoor":{"target":3,"size":2,"strength":3}}}"#, "evaluation.every=6"];
    let result = run(&set);
    let rates: Vec<f64> = result.history.iter().filter_map(|r| r.attack_success).collect();
    assert!(rates.len() == 2 && rates[1] > 0.5, "{rates:?}");
    let guarded = run(&[&set[..], &[r#"aggregation={"rule":{"trimmed-mean":{"f":6}}}"#]].concat());
    let rate = guarded.history.last().unwrap().attack_success.unwrap();
    assert!(rate < rates[1], "{rate} for {rates:?}");
    assert!(run(&["rounds=1", "evaluation.every=1"]).history[0].attack_success.is_none());
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_was_not_stopped() {
    let rule = r#"aggregation={"rule":{"centered-clipping":{"tau":0.5}},"before":[{"bucketing":{"s":2}}]}"#;
    let set = [
        rule,
        r#"adversary={"clients":4,"attack":{"alie":{}},"from":2,"redraw":true}"#,
        "rounds=4",
        "checkpoint.every=2",
    ];
    let whole = run(&set);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    struct StopAfter<'a>(&'a AtomicBool);
    impl sim::Observer for StopAfter<'_> {
        fn started(&mut self, _round: u32, _rounds: u32) {}
        fn round(&mut self, record: &sim::RoundRecord) {
            self.0.store(record.round == 2, std::sync::atomic::Ordering::Relaxed);
        }
        fn lost(&mut self, _loss: &sim::loss::DeviceLoss) {}
    }
    let interrupt = AtomicBool::new(false);
    let experiment = built(&set).unwrap();
    let options = RunOptions { folder: Some(&folder), resume: false, interrupt: &interrupt };
    let first = sim::run(&experiment, &options, &mut StopAfter(&interrupt)).unwrap();
    assert!(first.ending == sim::Ending::Interrupted && first.rounds == 2, "{:?}", first.ending);
    let options = RunOptions { folder: Some(&folder), resume: true, interrupt: &AtomicBool::new(false) };
    let resumed = sim::run(&experiment, &options, &mut Silent).unwrap();
    assert_eq!(resumed.weights, whole.weights);
    let once = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| run(&set).weights)
    };
    assert!(once(1) == whole.weights && once(2) == whole.weights, "the threads change no bit");
}

#[test]
fn what_cannot_be_done_is_refused_with_what_can() {
    for (set, says) in [
        (&[r#"aggregation={"rule":{"krum":{"f":9}}}"#][..], "krum"),
        (&[r#"aggregation={"rule":{"bulyan":{"f":5}}}"#], "bulyan"),
        (&[r#"aggregation={"rule":"median"}"#, r#"secagg={"oneshot":{}}"#], "group_size is absent"),
        (
            &[
                r#"aggregation={"rule":"median"}"#,
                r#"privacy={"mechanism":"smm","clip":1.0,"target_epsilon":4,"bits":20,"noise":"per_client"}"#,
            ],
            "robust rule works on the sums of groups",
        ),
        (&[r#"aggregation={"rule":"fltrust"}"#], "aggregation.root_samples"),
        (&[r#"aggregation={"rule":"median"}"#, "algorithm.weights=samples"], "algorithm.weights"),
        (&[r#"aggregation={"rule":{"trimmed-mean":{"f":2}}}"#, "group_size=5"], "trimmed-mean"),
        (&[r#"adversary={"clients":20,"attack":{"sign-flip":{}}}"#], "adversary.clients"),
        (&[r#"adversary={"clients":2,"attack":{"gaussian":{"strength":-1}}}"#], "strength"),
        (&["group_size=5", r#"secagg={"mphe":{}}"#], "absent under `secagg.mphe`"),
    ] {
        let error = built(set).err().map_or_else(|| "it is not".to_string(), |e| e.to_string());
        assert!(error.contains(says), "{set:?}: {error}");
    }
}

#[test]
fn the_servers_own_samples_are_no_clients_and_lead_the_way() {
    let attack = r#"adversary={"clients":12,"attack":{"sign-flip":{"strength":5}}}"#;
    let trust = r#"aggregation={"rule":"fltrust","root_samples":100}"#;
    let experiment = built(&[trust]).unwrap();
    let mut all: Vec<usize> = experiment.partition.clients.concat();
    assert_eq!((experiment.root.len(), all.len()), (100, experiment.split.train.len() - 100));
    all.extend(experiment.root.iter());
    all.sort_unstable();
    assert!(all.into_iter().eq(0..experiment.split.train.len()), "every sample is somebody's");
    // Most clients lie: no rule without a reference stands that.
    let rounds = "rounds=24";
    let result = run(&[attack, trust, rounds, "evaluation.every=24"]);
    assert!(accuracy(&result) > 0.8, "{}", accuracy(&result));
    let median = run(&[attack, r#"aggregation={"rule":"median"}"#, rounds, "evaluation.every=24"]);
    assert!(accuracy(&median) < 0.5, "{}", accuracy(&median));
    // Over groups under secure aggregation likewise.
    let hidden = [trust, "group_size=5", r#"secagg={"oneshot":{}}"#, "rounds=3", "evaluation.every=3"];
    let clear = [trust, "group_size=5", "rounds=3", "evaluation.every=3"];
    assert_eq!(run(&hidden).weights, run(&clear).weights);
    for (aggregation, says) in [
        (r#"{"rule":"fltrust"}"#, "aggregation.root_samples is 0"),
        (r#"{"rule":"median","root_samples":10}"#, "aggregation.root_samples is 10"),
        (r#"{"rule":"fltrust","root_samples":100000}"#, "aggregation.root_samples is 100000"),
    ] {
        let error = built(&[&format!("aggregation={aggregation}")]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(says), "{aggregation}: {error}");
    }
}
