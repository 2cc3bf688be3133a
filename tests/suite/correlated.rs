//! Correlated noise and adaptive clip bounds in whole runs: what is accounted, resumed, refused.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const DIGITS: &[&str] = &[
    "data.name=digits",
    "model=digits_mlp",
    "cohort=100",
    "rounds=24",
    "evaluation.every=8",
    "checkpoint.every=4",
    "privacy.target_epsilon=8",
    "seed=5",
];
const MATRIX: &[&str] = &["privacy.mechanism=matrix", "sampling=round-robin"];

fn veilsum(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veilsum")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn train(out: &Path, sets: &[&[&str]]) -> Output {
    let mut args = vec!["train", "--json", "--out", out.to_str().unwrap()];
    for set in sets.iter().copied().flatten().copied() {
        args.extend(["--set", set]);
    }
    veilsum(&args)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_else(|| panic!("{}", stderr(output)))).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|l| {
            let mut v: Value = serde_json::from_str(l).unwrap();
            v.as_object_mut().unwrap().remove("seconds");
            v
        })
        .collect()
}

/// Takes the folder back to the checkpoint of the 20th of 24 rounds, as a crash leaves it, and resumes.
fn crash_and_resume(run: &Path, before: &[u8]) -> Output {
    std::fs::write(run.join("checkpoint.safetensors"), before).unwrap();
    for gone in ["result.json", "model.safetensors", "report.html"] {
        std::fs::remove_file(run.join(gone)).unwrap();
    }
    veilsum(&["train", "--json", "--resume", run.to_str().unwrap()])
}

/// A run of 20 rounds' checkpoint and a whole one, in the same folder name and with the same seed.
fn twice(dir: &Path, sets: &[&str]) -> (std::path::PathBuf, Vec<u8>, Output) {
    let run = dir.join("run");
    let output = train(&run, &[DIGITS, sets]);
    assert!(output.status.success(), "{}", stderr(&output));
    let stored = std::fs::read(run.join("checkpoint.safetensors")).unwrap();
    (run, stored, output)
}

#[test]
fn a_matrix_run_is_charged_once_and_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (run, _, output) = twice(dir.path(), MATRIX);
    let result = last_line(&output);
    let epsilon = result["epsilon"].as_f64().unwrap();
    assert!(epsilon > 7.9 && epsilon <= 8.0, "{epsilon}");
    assert_eq!(result["epsilon"], result["epsilon_server_view"]);
    assert!(result["accuracy"].as_f64().unwrap() > 0.5, "{result}");
    let participation = &result["matrix"]["participation"];
    let (max, separation) = (participation["max"].as_u64().unwrap(), participation["separation"].as_u64().unwrap());
    assert_eq!(max, 24u64.div_ceil(separation));
    // The whole run is one release, paid before the first round is revealed.
    let ledger = lines(&run.join("ledger.jsonl"));
    assert_eq!(ledger.len(), 2, "{ledger:?}");
    let first = &lines(&run.join("metrics.jsonl"))[0];
    assert_eq!(first["epsilon"].as_f64().unwrap(), epsilon);
    // After a crash that took the last rounds' files: the same bits, at no further cost.
    let metrics = lines(&run.join("metrics.jsonl"));
    let model = std::fs::read(run.join("model.safetensors")).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let again = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(lines(&run.join("metrics.jsonl")), metrics);
    assert_eq!(std::fs::read(run.join("model.safetensors")).unwrap(), model);
    assert_eq!(lines(&run.join("ledger.jsonl")).len(), 2);
}

/// A checkpoint in the middle holds the noise that the later rounds take back.
#[test]
fn the_state_of_the_noise_is_in_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, sets) in [
        ("blt", MATRIX),
        (
            "banded",
            &["privacy.mechanism=matrix", "sampling=all", "privacy.matrix={\"kind\":\"banded\",\"bands\":5}"][..],
        ),
        ("adaptive", &["privacy.adaptive_clip={}", "privacy.bits=16"]),
    ] {
        let whole = dir.path().join(kind);
        let output = train(&whole, &[DIGITS, sets]);
        assert!(output.status.success(), "{kind}: {}", stderr(&output));
        let metrics = lines(&whole.join("metrics.jsonl"));
        // The same run, checkpointed after round 20 and never again.
        let cut = dir.path().join(format!("{kind}-cut"));
        let output = train(&cut, &[DIGITS, sets, &["checkpoint.every=20"]]);
        assert!(output.status.success(), "{kind}: {}", stderr(&output));
        // Its last checkpoint is of round 24; a run that dies at 22 has that of round 20, and resumes from it.
        assert_eq!(lines(&cut.join("metrics.jsonl")), metrics, "{kind}");
        let mut short = Command::new(env!("CARGO_BIN_EXE_veilsum"));
        let dying = dir.path().join(format!("{kind}-dying"));
        short.args(["train", "--json", "--out", dying.to_str().unwrap()]);
        for set in DIGITS.iter().chain(sets).chain(&["checkpoint.every=20"]) {
            short.args(["--set", set]);
        }
        let mut child = short.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        for _ in 0..21 {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let again = veilsum(&["train", "--json", "--resume", dying.to_str().unwrap()]);
        assert!(again.status.success(), "{kind}: {}", stderr(&again));
        assert_eq!(lines(&dying.join("metrics.jsonl")), metrics, "{kind}");
    }
}

#[test]
fn a_round_that_was_released_is_not_released_from_other_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (run, stored, _) = twice(dir.path(), MATRIX);
    // Another model at round 24 than that which was released: as if another machine had computed it.
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let mut bent: Vec<String> = journal.lines().map(str::to_owned).collect();
    for line in bent.iter_mut().filter(|line| line.contains("\"round\":24")) {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["input"] = Value::from("00".repeat(32));
        *line = value.to_string();
    }
    std::fs::write(run.join("journal.jsonl"), bent.join("\n") + "\n").unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let refused = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("round 24 was released already"), "{}", stderr(&refused));
    // A state of the noise that is not the run's.
    let mut other = stored;
    let end = other.len() - 1;
    other[end] ^= 1;
    let bad = crash_and_resume(&run, &other);
    assert!(!bad.status.success());
}

#[test]
fn what_is_not_proved_or_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (sets, names) in [
        (&["privacy.mechanism=matrix", "sampling=poisson"][..], "sampling"),
        (&["privacy.mechanism=matrix", "sampling=fixed"], "sampling"),
        (&["privacy.mechanism=matrix", "sampling=all", "privacy.gamma=4"], "privacy.gamma"),
        (&["privacy.mechanism=matrix", "sampling=all", "privacy.noise=per_client"], "privacy.noise"),
        (&["privacy.matrix={\"kind\":\"blt\",\"degree\":3}"], "privacy.matrix"),
        (&["privacy.mechanism=matrix", "sampling=all", "privacy.matrix={\"kind\":\"banded\",\"bands\":0}"], "bands"),
        (&["privacy.mechanism=matrix", "sampling=all", "privacy.adaptive_clip={}"], "privacy.adaptive_clip"),
        (&["privacy.mechanism=none", "privacy.adaptive_clip={}"], "privacy.adaptive_clip"),
        (&["privacy.adaptive_clip={\"quantile\":1}"], "quantile"),
    ] {
        let output = train(&dir.path().join("run"), &[DIGITS, sets]);
        assert_eq!(output.status.code(), Some(2), "{sets:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(names), "{sets:?}: {}", stderr(&output));
    }
}

/// Too little noise for the target: nothing is released, not even the first round.
#[test]
fn a_budget_is_checked_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let output = train(&dir.path().join("run"), &[DIGITS, MATRIX, &["privacy.noise_multiplier=0.2"]]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    assert_eq!((&result["rounds"], &result["epsilon"]), (&Value::from(0), &Value::from(0.0)));
    assert!(result["ending"].as_str().unwrap().contains("stopped by the budget"), "{result}");
}

#[test]
fn an_adaptive_clip_moves_within_the_same_budget() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, sets) in [
        ("smm", &["privacy.bits=16"][..]),
        ("per-client", &["privacy.bits=16", "privacy.noise=per_client"]),
        ("central", &["privacy.mechanism=central-gaussian"]),
    ] {
        let run = dir.path().join(kind);
        // The noise of so wide a bound would drive the model, and its gradients, far away: it stays where it is.
        let far = [
            "privacy.clip=100",
            "privacy.adaptive_clip={\"quantile\":0.5,\"learning_rate\":0.5}",
            "server.learning_rate=1e-6",
        ];
        let output = train(&run, &[DIGITS, sets, &far]);
        assert!(output.status.success(), "{kind}: {}", stderr(&output));
        let result = last_line(&output);
        let epsilon = result["epsilon"].as_f64().unwrap();
        assert!(epsilon > 7.0 && epsilon <= 8.0, "{kind}: {epsilon}");
        let clips: Vec<f64> = lines(&run.join("metrics.jsonl")).iter().map(|r| r["clip"].as_f64().unwrap()).collect();
        assert_eq!(clips[0], 100.0);
        // From far above every norm it falls by e^-0.25 a round, up to noise, until it is among the norms.
        assert!(clips[10] < 20.0 && clips[23] < 8.0, "{kind}: {clips:?}");
    }
}

#[test]
fn account_knows_matrices() {
    let base = ["account", "--json", "--mechanism", "matrix", "--cohort", "100", "--delta", "1e-6"];
    let run = |more: &[&str]| veilsum(&[&base[..], more].concat());
    let turns = ["--population", "10000", "--rounds", "400"];
    let one = last_line(&run(&[&turns[..], &["--matrix", "blt", "--target-epsilon", "4"]].concat()));
    assert_eq!((one["participations"].as_u64(), one["separation"].as_u64()), (Some(4), Some(100)));
    assert!(
        one["epsilon"].as_f64().unwrap() <= 4.0 && one["error_over_independent_max"].as_f64().unwrap() < 0.5,
        "{one}"
    );
    let more = last_line(&run(&[&turns[..], &["--matrix", "independent", "--noise-multiplier", "1"]].concat()));
    assert!((more["sensitivity"].as_f64().unwrap() - 2.0).abs() < 1e-9);
    assert!((more["error_over_independent_max"].as_f64().unwrap() - 1.0).abs() < 1e-12);
    // The same noise on four releases of a Gaussian.
    let four = veilsum(&[
        "account",
        "--json",
        "--mechanism",
        "central-gaussian",
        "--noise-multiplier",
        "2",
        "--rounds",
        "4",
        "--cohort",
        "100",
        "--delta",
        "1e-6",
        "--accountant",
        "rdp",
    ]);
    let difference = more["epsilon"].as_f64().unwrap() - last_line(&four)["epsilon"].as_f64().unwrap();
    assert!(difference.abs() < 1e-6, "{difference}");
    for bad in [
        &["--noise-multiplier", "1", "--dim", "3"][..],
        &["--noise-multiplier", "0"],
        &["--noise-multiplier", "1", "--matrix", "banded"],
        &["--noise-multiplier", "1", "--degree", "99"],
        &["--noise-multiplier", "1", "--separation", "0"],
        &[],
    ] {
        assert_eq!(run(bad).status.code(), Some(2), "{bad:?}");
    }
    let stray =
        veilsum(&["account", "--gamma", "64", "--mu", "6", "--cohort", "10", "--delta", "1e-5", "--bands", "3"]);
    assert_eq!(stray.status.code(), Some(2));
}
