//! Rounds that do not wait: what they come to, the same under every protocol, charged, repeated and resumed bit for bit.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use veilsum::config::build::Experiment;
use veilsum::sim::{self, RunOptions, RunResult, Silent};

use crate::federation::{experiment_of, refusal_of};

fn run(experiment: &Experiment) -> RunResult {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent).unwrap()
}

const BASE: [&str; 4] = ["sampling=all", "partition.clients=30", "cohort=30", "algorithm.weights=uniform"];
const SMM: &str = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":20,"noise":"per_client"}"#;
const SHARE: &str = r#""delays":{"share":{"rho":0.6,"most":4}}"#;

fn asynchronous(delta: &[f32], asynchrony: &str, set: &[&str]) -> Experiment {
    let asynchrony = format!("asynchrony={asynchrony}");
    experiment_of(delta, &[&BASE[..], &[&asynchrony], set].concat())
}

/// Deltas that are all alike move the model by themselves, however stale they are and whatever their clients count.
#[test]
fn weights_are_divided_out_again() {
    let delta = [0.5, -0.25, 0.125, 0.75];
    for (asynchrony, weights) in [
        (format!(r#"{{{SHARE},"staleness":{{"polynomial":{{}}}}}}"#), "samples"),
        (format!(r#"{{{SHARE},"staleness":{{"exponential":{{}}}},"until":6,"agent":true}}"#), "samples"),
        (format!(r#"{{{SHARE},"release":{{"arrivals":4}},"staleness":{{"hinge":{{"after":1}}}}}}"#), "uniform"),
        (r#"{"delays":{"offline":{"probability":0.5}},"staleness":"progress"}"#.into(), "uniform"),
    ] {
        let weights = format!("algorithm.weights={weights}");
        let result = run(&asynchronous(&delta, &asynchrony, &["rounds=8", &weights]));
        assert!(result.history.iter().any(|r| r.arrived.is_some_and(|a| a.staleness > 0.0)), "somebody is late");
        for (weight, delta) in result.weights.iter().zip(delta) {
            assert!((weight - 8.0 * delta).abs() <= 1e-6 * 8.0, "{asynchrony}: {weight} {delta}");
        }
    }
}

/// Two clients, of one and of three ticks: what the papers' formulas give, by hand.
#[test]
fn fedasync_and_fedbuff_are_their_formulas() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    std::fs::write(&trace, "client,duration\n0,1\n1,3\n").unwrap();
    let delays = format!(r#""delays":{{"trace":{{"file":{}}}}}"#, serde_json::to_string(&trace).unwrap());
    let run = |more: &str, rounds: u32| {
        let (rounds, staleness) = (format!("rounds={rounds}"), r#""staleness":{"polynomial":{"exponent":1.0}}"#);
        let asynchrony = format!("{{{delays},{staleness},{more}}}");
        run(&asynchronous(&[0.5], &asynchrony, &["partition.clients=2", "cohort=2", &rounds]))
    };
    // Arrivals one by one: client 0 at 1, 2, 3 (versions 0, 1, 2), then client 1 at 3 (version 0), client 0 at 4 (version 3).
    let mixed = run(r#""release":{"arrivals":1},"update":{"mix":{"alpha":0.5}}"#, 5);
    let times: Vec<f64> = mixed.history.iter().map(|r| r.arrived.unwrap().time).collect();
    assert_eq!(times, [1.0, 2.0, 3.0, 3.0, 4.0]);
    let mut models = vec![0.0f64];
    for (round, version) in [0, 1, 2, 0, 3].into_iter().enumerate() {
        let (now, share) = (models[round], 1.0 / (1.0 + (round - version) as f64));
        // The weight has ten bits.
        let share = (share * 1024.0).round() / 1024.0;
        models.push(now + 0.5 * share * (models[version] + 0.5 - now));
    }
    assert!((f64::from(mixed.weights[0]) - models[5]).abs() < 1e-6, "{:?} {models:?}", mixed.weights);
    // Two at a time: fresh ones at 2 and 3 ticks; (0 at 1, 0 waits) so that 1 at 3 joins; then both begin from version 1.
    let buffered = run(r#""release":{"arrivals":2},"update":"buffered""#, 2);
    assert!((buffered.weights[0] - 1.0).abs() < 1e-6, "nobody is stale: {:?}", buffered.weights);
    // Ticks: rounds 3 and 6 have client 1 with staleness 2, which counts a third.
    let third = 341.0 / 1024.0;
    for (update, step) in [(r#""update":"buffered""#, (1.0 + third) / 2.0), (r#""update":"mean""#, 1.0)] {
        let result = run(update, 3);
        let expected = 0.5 * (1.0 + 1.0 + step);
        assert!((f64::from(result.weights[0]) - expected).abs() < 1e-6, "{update}: {:?} {expected}", result.weights);
    }
}

#[test]
fn every_protocol_trains_the_same_model() {
    let delta: Vec<f32> = (0..300).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
    let none = r#"privacy={"mechanism":"none","clip":1.0}"#;
    let few = r#"privacy={"mechanism":"quantized","clip":1.0,"bits":16}"#;
    let rules =
        format!(r#"{{"release":{{"every":{{"least":10}}}},{SHARE},"staleness":{{"polynomial":{{}}}},"until":6"#);
    for (privacy, weights, agent) in [
        (none, "samples", ""),
        (none, "samples", r#","agent":true"#),
        (few, "uniform", r#","agent":true"#),
        (SMM, "uniform", ""),
        (SMM, "uniform", r#","agent":true"#),
    ] {
        let with = |secagg: &str| {
            let (secagg, weights) = (format!("secagg={secagg}"), format!("algorithm.weights={weights}"));
            let rounds = if agent.is_empty() { "rounds=4" } else { "rounds=8" };
            let set = [privacy, &secagg, &weights, rounds];
            run(&asynchronous(&delta, &format!("{rules}{agent}}}"), &set))
        };
        let plain = with("plain");
        let arrived: Vec<_> = plain.history.iter().map(|r| r.arrived.unwrap()).collect();
        assert!(arrived.iter().any(|a| a.staleness > 0.0), "{arrived:?}");
        assert_eq!(arrived.iter().any(|a| a.copies > 0), !agent.is_empty(), "{arrived:?}");
        let hidden =
            if agent.is_empty() { &[r#"{"masks":{}}"#, r#"{"oneshot":{}}"#][..] } else { &[r#"{"oneshot":{}}"#] };
        for secagg in hidden {
            assert_eq!(with(secagg).weights, plain.weights, "{privacy} {secagg} {agent}");
        }
    }
}

/// Noise of full strength in every round, whoever arrives and stands in; every round is charged as one of all clients.
#[test]
fn noise_and_charge_are_those_of_a_round_of_all() {
    let rules = format!(r#"{{{SHARE},"staleness":{{"polynomial":{{}}}},"until":6,"agent":true}}"#);
    let experiment = asynchronous(&[0.0; 4096], &rules, &[SMM, "rounds=3"]);
    let result = run(&experiment);
    let all = run(&experiment_of(&[0.0; 4096], &[&BASE[..], &[SMM, "rounds=3"]].concat()));
    assert_eq!(result.epsilon, all.epsilon);
    // Round by round: the variance of a sum is 2 mu_tot; stand-ins add more, of which none counts. What it is divided by is public.
    let first = run(&asynchronous(&[0.0; 4096], &rules, &[SMM, "rounds=1"]));
    let square: f64 = first.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / 4096.0;
    let arrived = first.history[0].cohort as f64;
    let expected = 2.0 * 30.0 * 30.0 / (16.0 * arrived).powi(2);
    assert!(arrived < 30.0 && (square / expected - 1.0).abs() < 0.15, "{square} {expected} {arrived}");
}

/// A long vector counts its share of the clip bound, not more.
#[test]
fn the_clip_holds_before_the_weight() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    std::fs::write(&trace, "client,duration\n0,2\n1,2\n").unwrap();
    let file = serde_json::to_string(&trace).unwrap();
    let few = r#"privacy={"mechanism":"quantized","clip":1.0,"bits":24}"#;
    let result = |update: &str| {
        let rules = format!(
            r#"{{"delays":{{"trace":{{"file":{file}}}}},"staleness":{{"exponential":{{}}}},"update":{update}}}"#
        );
        run(&asynchronous(&[30.0, 40.0], &rules, &[few, "partition.clients=2", "cohort=2"]))
    };
    // The first tick has no arrivals and waits; the version is that of before the first round all the same.
    for update in [r#""mean""#, r#""buffered""#] {
        let found = result(update);
        assert!((found.weights[0] - 0.6).abs() < 1e-3 && (found.weights[1] - 0.8).abs() < 1e-3, "{:?}", found.weights);
        assert_eq!(found.history[0].arrived.unwrap().time, 2.0);
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let base = |asynchrony: &str, set: &[&str]| {
        let asynchrony = format!("asynchrony={asynchrony}");
        refusal_of(&[&BASE[..], &[&asynchrony], set].concat())
    };
    let agent = r#"{"agent":true,"until":3}"#;
    let noise = r#"privacy={"mechanism":"smm","clip":1.0,"target_epsilon":4,"bits":20,"noise":"per_client"}"#;
    for (asynchrony, set, says) in [
        ("{}", &["sampling=fixed"][..], "sampling is Fixed"),
        ("{}", &["cohort=10.5"], "cohort is 10.5, expected a whole number"),
        (r#"{"agent":true}"#, &[], "asynchrony.agent"),
        (r#"{"agent":true,"until":3,"release":{"arrivals":2}}"#, &[], "asynchrony.agent"),
        (agent, &[r#"secagg={"masks":{}}"#], "`plain` or `oneshot`"),
        (agent, &["dropout_rate=0.1"], "dropout_rate"),
        (agent, &[noise, "group_size=10"], "asynchrony.agent"),
        ("{}", &[r#"secagg={"mphe":{}}"#], "secagg is mphe"),
        (r#"{"release":{"every":{"least":2}}}"#, &[r#"secagg={"oneshot":{}}"#], "asynchrony.release.every.least is 2"),
        (r#"{"release":{"arrivals":31}}"#, &[], "1 to the clients at work, 30"),
        (r#"{"release":{"every":{"ticks":0}}}"#, &[], "ticks is 0"),
        (r#"{"update":{"mix":{"alpha":1.5}}}"#, &[], "alpha is 1.5"),
        (r#"{"update":{"mix":{"alpha":0.5}}}"#, &[r#"algorithm={"name":"fed_sgd"}"#], "asynchrony.update"),
        (r#"{"update":"buffered"}"#, &[r#"aggregation={"rule":"median"}"#], "beside a robust rule"),
        (r#"{"staleness":{"exponential":{"base":1}}}"#, &[], "base is 1"),
        (r#"{"delays":{"share":{"rho":2,"most":4}}}"#, &[], "rho is 2"),
        (r#"{"delays":{"trace":{"file":"missing.csv"}}}"#, &[], "missing.csv"),
        (r#"{"late":"drop"}"#, &[], "late"),
        ("{}", &[noise, "privacy.adaptive_clip={}"], "adaptive_clip"),
        ("{}", &[r#"compression={"random-k":{"keep":0.5,"error_feedback":true}}"#], "without error feedback"),
    ] {
        let error = base(asynchrony, set);
        assert!(error.contains(says), "{asynchrony} {set:?}: {error}");
    }
}

/// As a user starts it: late clients, a robust rule over groups, hidden vectors, noise of the clients, a budget. Resumed, and on one
/// thread and two.
#[test]
fn a_run_with_everything_repeats_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let set = [
        "name=everything",
        r#"data={"name":"digits"}"#,
        "model=digits_mlp",
        r#"partition={"scheme":"label-shards","clients":60,"shards_per_client":2}"#,
        r#"algorithm={"name":"fed_avg","learning_rate":0.1}"#,
        r#"server={"optimizer":"sgd","learning_rate":1.0}"#,
        "sampling=all",
        "cohort=60",
        "group_size=12",
        r#"aggregation={"rule":"median"}"#,
        r#"asynchrony={"release":{"every":{"least":40}},"delays":{"share":{"rho":0.5,"most":3}},"staleness":{"polynomial":{}},"until":4}"#,
        r#"privacy={"mechanism":"smm","clip":0.5,"bits":18,"noise":"per_client","target_epsilon":40}"#,
        r#"secagg={"oneshot":{}}"#,
        "seed=11",
        "rounds=5",
        "checkpoint.every=1",
        "evaluation.every=2",
    ];
    let begin = |name: &str, threads: &str| {
        let folder = dir.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
        command.env("RAYON_NUM_THREADS", threads).args(["train", "--json", "--out", folder.to_str().unwrap()]);
        command.args(set.map(|s| format!("--set={s}")));
        (folder, command)
    };
    let whole = |name: &str, threads: &str| {
        let (folder, mut command) = begin(name, threads);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    };
    let metrics = |folder: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let mut rounds: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rounds.iter_mut().for_each(|round| drop(round.as_object_mut().unwrap().remove("seconds")));
        rounds
    };
    let model = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    let (one, two) = (whole("one", "1"), whole("two", "2"));
    assert_eq!(metrics(&one), metrics(&two));
    assert_eq!(model(&one), model(&two));
    // Killed after its second round, and resumed: with the older models that late clients began from.
    let (killed, mut command) = begin("killed", "2");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (0..2).for_each(|_| drop(lines.next().unwrap().unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = ["train", "--json", "--resume", killed.to_str().unwrap()];
    let output = Command::new(env!("CARGO_BIN_EXE_veilsum")).args(resume).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(metrics(&killed), metrics(&one));
    assert_eq!(model(&killed), model(&one));
    let rounds = metrics(&one);
    assert!(rounds.iter().any(|r| r["arrived"]["staleness"].as_f64().unwrap() > 0.0), "{rounds:?}");
    assert!(rounds.iter().all(|r| r["rule"]["vectors"] == 5 && r["epsilon"].as_f64().unwrap() <= 40.0), "{rounds:?}");
    let epsilons: Vec<f64> = rounds.iter().map(|r| r["epsilon"].as_f64().unwrap()).collect();
    assert!(epsilons.windows(2).all(|e| e[0] < e[1]), "every round is charged: {epsilons:?}");
}
