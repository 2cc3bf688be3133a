//! Rounds under secure aggregation: the same model as in the clear, whoever vanishes.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use veilsum::config::build::Experiment;
use veilsum::fl::FlError;
use veilsum::sim::{self, RunOptions, RunResult, Silent, SimError};

use crate::federation::experiment_of;

fn run(experiment: &Experiment) -> Result<RunResult, SimError> {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent)
}

const SMM: &str = r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client"}"#;
const LOSSY: &str =
    r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client","dropout":{"tolerated":0.4}}"#;
const AGGREGATE: &str = r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18}"#;
const NONE: &str = r#"{"mechanism":"none","clip":1.0}"#;

#[test]
fn every_protocol_trains_the_same_model() {
    let delta: Vec<f32> = (0..300).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
    for (privacy, sampling, rate) in [
        (SMM, "all", 0.0),
        (SMM, "poisson", 0.0),
        (LOSSY, "all", 0.2),
        (LOSSY, "poisson", 0.2),
        (AGGREGATE, "all", 0.0),
        (NONE, "all", 0.2),
        (NONE, "fixed", 0.0),
    ] {
        let with = |secagg: &str| {
            let privacy = format!("privacy={privacy}");
            let (sampling, rate) = (format!("sampling={sampling}"), format!("dropout_rate={rate}"));
            let weights = if privacy.contains("none") { "samples" } else { "uniform" };
            let (weights, secagg) = (format!("algorithm.weights={weights}"), format!("secagg={secagg}"));
            let base = ["partition.clients=30", "cohort=24", "rounds=2"];
            let set = [privacy.as_str(), &sampling, &rate, &weights, &secagg];
            run(&experiment_of(&delta, &[&base[..], &set].concat())).unwrap()
        };
        let plain = with("plain");
        assert!(rate == 0.0 || plain.history.iter().any(|r| r.survivors < r.cohort), "somebody vanishes");
        for secagg in [
            r#"{"masks":{"corrupt":0.1,"dropouts":0.4}}"#,
            r#"{"masks":{"dropouts":0.4,"server":"semi-honest"}}"#,
            r#"{"oneshot":{}}"#,
            r#"{"oneshot":{"holders":8,"corrupt_holders":0,"needed":7}}"#,
        ] {
            let hidden = with(secagg);
            assert_eq!(hidden.weights, plain.weights, "{privacy} {sampling} {secagg}");
            let counts = |run: &RunResult| run.history.iter().map(|r| (r.cohort, r.survivors)).collect::<Vec<_>>();
            assert_eq!(counts(&hidden), counts(&plain));
            assert_eq!(hidden.epsilon.server.epsilon, plain.epsilon.server.epsilon);
        }
    }
}

#[test]
fn a_sum_with_too_little_noise_is_not_opened() {
    // The plan of the masks bears the losses, the noise does not: nobody sees the sum, nothing is charged.
    let privacy = format!("privacy={SMM}");
    let set = [privacy.as_str(), "sampling=all", "algorithm.weights=uniform", "partition.clients=30", "cohort=30"];
    let secagg = [r#"secagg={"masks":{"corrupt":0.1,"dropouts":0.4}}"#, "dropout_rate=0.2"];
    let error = run(&experiment_of(&[0.5; 64], &[&set[..], &secagg].concat())).unwrap_err();
    assert!(
        matches!(error, SimError::Fl(FlError::Aborted { threshold: 30, survivors, .. }) if survivors < 30),
        "{error}"
    );
}

#[test]
fn a_run_under_masks_as_a_user_starts_it() {
    let dir = tempfile::tempdir().unwrap();
    let train = |folder: &Path, secagg: &str, rounds: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
        command.args(["train", "--json", "--out", folder.to_str().unwrap()]);
        let set = ["data.name=digits", "model=digits_mlp", "cohort=60", "seed=5", "checkpoint.every=1"];
        command.args(set.map(|s| format!("--set={s}")));
        command
            .args(["privacy.noise=per_client", "privacy.bits=12", "evaluation.every=2"].map(|s| format!("--set={s}")));
        command.args([format!("--set=secagg={secagg}"), format!("--set=rounds={rounds}")]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let metrics = |folder: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        let mut rounds: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rounds.iter_mut().for_each(|round| drop(round.as_object_mut().unwrap().remove("seconds")));
        rounds
    };
    let [masks, oneshot, mphe, plain] = ["masks", "oneshot", "mphe", "plain"].map(|name| dir.path().join(name));
    for (folder, secagg) in
        [(&masks, r#"{"masks":{}}"#), (&oneshot, r#"{"oneshot":{}}"#), (&mphe, r#"{"mphe":{"refresh":1}}"#)]
    {
        let (code, err) = train(folder, secagg, 2);
        assert_eq!(code, Some(0), "{err}");
    }
    let (code, err) = train(&plain, "plain", 2);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(metrics(&masks), metrics(&plain));
    assert_eq!(metrics(&oneshot), metrics(&plain));
    assert_eq!(metrics(&mphe), metrics(&plain));
    for (secagg, says) in [
        (r#"{"masks":{"corrupt":1}}"#, "secagg.masks.corrupt"),
        (r#"{"masks":{"dropouts":-0.1}}"#, "secagg.masks.dropouts"),
        (r#"{"masks":{"corrupt":0.5,"dropouts":0.4}}"#, "dropouts"),
        (r#"{"masks":{"server":"friendly"}}"#, "friendly"),
        (r#"{"oneshot":{"corrupt":1}}"#, "secagg.oneshot.corrupt"),
        (r#"{"oneshot":{"holders":5,"needed":3}}"#, "needed holders"),
        (r#"{"oneshot":{"holders":0}}"#, "needed holders"),
        (r#"{"oneshot":{"key":"mphe"}}"#, "key"),
        (r#""threeshot""#, "threeshot"),
    ] {
        let (code, err) = train(&dir.path().join("refused"), secagg, 1);
        assert!(code.is_some_and(|code| code == 1 || code == 2) && err.contains(says), "{secagg}: {code:?} {err}");
    }
}

fn plan(line: &str) -> (i32, String, String) {
    let args = ["secagg", "plan"].into_iter().chain(line.split_whitespace());
    let output = Command::new(env!("CARGO_BIN_EXE_veilsum")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn parameters_are_planned_for_a_sum() {
    let line = "--dim 1000000 --clients 1000 --bound 32768 --corrupt 0.05 --dropouts 0.05";
    let (code, out, err) = plan(&format!("{line} --json"));
    assert_eq!(code, 0, "{err}");
    let v: Value = serde_json::from_str(&out).unwrap();
    let f = |protocol: &str, key: &str| v[protocol][key].as_f64().unwrap_or_else(|| panic!("{protocol} {key}: {v}"));
    assert_eq!((f("masks", "neighbors"), f("masks", "threshold"), f("masks", "bytes_per_value")), (74.0, 50.0, 2.0));
    assert!(f("masks", "log2_failure") <= -40.0);
    // The first set of the specification: 30.2 bits a value, and the key.
    assert!(f("oneshot", "bytes_per_value") < 4.0 && f("oneshot", "log2_failure") < -56.0);
    assert!(f("oneshot", "security_bits") > 150.0 && f("oneshot", "min_survivors") == 52.0);
    assert!(v["oneshot"]["parameters"].as_str().unwrap().contains("K = 16 holders, t = 16 open"), "{v}");
    let total = f("oneshot", "vector_bytes") + f("oneshot", "key_bytes");
    assert!((total / 1e6 - f("oneshot", "bytes_per_value")).abs() < 1e-12, "{v}");
    assert!(f("oneshot, key by mphe", "key_security_bits") >= 128.0);
    for protocol in ["oneshot, key by mphe", "mphe"] {
        assert!(f(protocol, "log2_flooding") <= -40.0 && f(protocol, "security_bits") >= 128.0, "{v}");
    }
    let (code, out, _) = plan(line);
    assert!(code == 0 && ["masks", "oneshot", "mphe", "k = 74", "N = 4096"].iter().all(|w| out.contains(w)), "{out}");
    // What one protocol cannot do another may: the others say why.
    let (code, out, err) = plan("--dim 1000 --clients 10 --corrupt 0.6 --dropouts 0.6 --json");
    let v: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
    assert!(code == 0 && v["masks"]["refused"].as_str().unwrap().contains("dropouts"), "{v}");
    for (line, code, says) in [
        ("--dim 0 --clients 10", 2, "--dim"),
        ("--dim 10 --clients 10 --bits 0", 2, "--bits"),
        ("--dim 10 --clients 10 --bits 64", 2, "--bits"),
        ("--dim 10 --clients 10 --corrupt 1", 2, "--corrupt"),
        ("--dim 10 --clients 10 --dropouts NaN", 2, "--dropouts"),
        ("--dim 10 --clients 10 --holders 4 --threshold 2", 2, "3"),
        ("--dim 10 --clients 1 --lambda 999", 3, "lambda"),
        ("--dim 10", 2, "--clients"),
    ] {
        let (found, out, err) = plan(line);
        assert!(found == code && out.is_empty() && err.contains(says), "{line}: {found} {err}");
    }
}
