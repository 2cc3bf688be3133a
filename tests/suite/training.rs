//! `train`, `sweep` and `dse` as a user runs them, on the embedded digits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const DIGITS: &[&str] = &[
    "--set",
    "data.name=digits",
    "--set",
    "model=digits_mlp",
    "--set",
    "cohort=150",
    "--set",
    "rounds=24",
    "--set",
    "evaluation.every=6",
    "--set",
    "checkpoint.every=4",
    "--set",
    "privacy.bits=16",
    "--set",
    "privacy.target_epsilon=8",
    "--set",
    // The quicker one: tests of the tighter one ask for it.
    "privacy.accountant=rdp",
    "--set",
    "seed=5",
];

fn veilsum(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.args(args).stdin(Stdio::null());
    command
}

fn train(out: &Path, more: &[&str]) -> Output {
    let mut command = veilsum(&["train", "--json", "--out", out.to_str().unwrap()]);
    command.args(DIGITS).args(more).output().unwrap()
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_else(|| panic!("no output; stderr: {}", stderr(output)));
    serde_json::from_str(line).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The metrics without their time fields.
fn metrics(folder: &Path) -> Vec<Value> {
    std::fs::read_to_string(folder.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|l| {
            let mut v: Value = serde_json::from_str(l).unwrap();
            v.as_object_mut().unwrap().remove("seconds");
            v
        })
        .collect()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_private_run_learns_and_leaves_its_folder() {
    let dir = temp();
    let out = dir.path().join("run");
    let output = train(&out, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    assert!(result["accuracy"].as_f64().unwrap() > 0.6, "{result}");
    let epsilon = result["epsilon"].as_f64().unwrap();
    assert!(epsilon > 4.0 && epsilon <= 8.0, "{epsilon}");
    assert!(result["epsilon_server_view"].as_f64().unwrap() > epsilon);
    assert_eq!(result["rounds"], 24);
    assert_eq!(result["certified"], true);
    let sampler = result["delta_sampler"].as_f64().unwrap();
    assert!(sampler > 0.0 && sampler < 1e-20, "the error of the noise table is charged: {sampler:e}");
    assert!(result["neighboring"].as_str().unwrap().starts_with("zero-out"));
    for file in ["config.json", "metrics.jsonl", "journal.jsonl", "model.safetensors", "report.html", "result.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Privacy spent"));
    let journal = std::fs::read_to_string(out.join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"charge\"").count(), 24);

    let model = out.join("model.safetensors");
    let eval = veilsum(&["eval", model.to_str().unwrap(), "--data", "digits", "--json"]).output().unwrap();
    assert!(eval.status.success(), "{}", stderr(&eval));
    let eval = last_line(&eval);
    assert!((eval["accuracy"].as_f64().unwrap() - result["accuracy"].as_f64().unwrap()).abs() < 1e-12);
}

#[test]
fn per_client_noise_and_both_backends_run() {
    let dir = temp();
    for (name, backend) in [("simd", "simd"), ("scalar", "scalar")] {
        let backend = format!("backend={backend}");
        let output = train(
            &dir.path().join(name),
            &["--set", "privacy.noise=per_client", "--set", "rounds=2", "--set", &backend],
        );
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(last_line(&output)["noise"], "per_client");
    }
}

#[test]
fn every_mechanism_and_fed_avg_train() {
    let dir = temp();
    for (name, mechanism) in [("a", "smm-2022"), ("b", "central-gaussian"), ("c", "none")] {
        let set = format!("privacy.mechanism={mechanism}");
        let gamma = if mechanism == "smm-2022" { "privacy.gamma=64" } else { "privacy.gamma=null" };
        let output = train(&dir.path().join(name), &["--set", &set, "--set", gamma, "--set", "rounds=6"]);
        assert!(output.status.success(), "{mechanism}: {}", stderr(&output));
        let result = last_line(&output);
        assert_eq!(result["mechanism"], mechanism);
        assert_eq!(result["epsilon"].is_null(), mechanism == "none", "{result}");
    }
    let fed_avg = r#"algorithm={"name":"fed_avg","epochs":2,"learning_rate":0.1,"weights":"samples"}"#;
    let more = [
        "--set",
        fed_avg,
        "--set",
        r#"partition={"scheme":"dirichlet","clients":20,"alpha":0.5}"#,
        "--set",
        "cohort=10",
        "--set",
        "sampling=fixed",
        "--set",
        "privacy.mechanism=none",
        "--set",
        r#"server={"optimizer":"sgd","learning_rate":1.0}"#,
    ];
    let output = train(&dir.path().join("d"), &more);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(last_line(&output)["accuracy"].as_f64().unwrap() > 0.85, "{}", last_line(&output));
}

#[test]
fn a_killed_run_resumes_to_the_same_metrics() {
    let dir = temp();
    let whole = dir.path().join("whole");
    assert!(train(&whole, &[]).status.success());
    let reference = metrics(&whole);
    assert_eq!(reference.len(), 24);
    // Killed once early, once late, with SIGKILL in the middle of whatever it was doing.
    let killed = dir.path().join("killed");
    let mut args = vec!["train", "--json", "--out", killed.to_str().unwrap()];
    args.extend(DIGITS);
    for lines in [3usize, 13] {
        let mut child = veilsum(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            line.clear();
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        args = vec!["train", "--json", "--resume", killed.to_str().unwrap()];
    }
    let output = veilsum(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(metrics(&killed), reference);
    let model = |folder: &PathBuf| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(model(&killed), model(&whole));
    let journal = std::fs::read_to_string(killed.join("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"charge\"").count(), 24, "a bit-identical rerun is not charged again");
    assert!(!journal.contains("\"attempt\":1"));
}

#[test]
fn a_rerun_on_other_input_takes_a_new_attempt_and_is_charged() {
    let dir = temp();
    let run = dir.path().join("run");
    assert!(train(&run, &["--set", "rounds=8"]).status.success());
    // As if the checkpoint of round 8 had been lost and an older program had left other weights.
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let mut lines: Vec<Value> = journal.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for line in &mut lines {
        if line["round"].as_u64().unwrap() > 6 {
            line["input"] = Value::String("00".repeat(32));
        }
    }
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    std::fs::write(run.join("journal.jsonl"), text).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let output = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap();
    let records = metrics(&run);
    let attempts: Vec<u64> = records.iter().map(|r| r["attempt"].as_u64().unwrap()).collect();
    // Two charges are lost on rounds that ran differently: the budget of 8 rounds ends the rerun early.
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(&attempts[..6], [0; 6], "{attempts:?}");
    let ending = last_line(&output)["ending"].as_str().unwrap().to_string();
    assert!(ending.contains("budget") || attempts[6..].iter().all(|&a| a == 1), "{ending} {attempts:?}");
}

/// The config names a device that is gone, as after a card that was lost: the journal decides.
#[test]
fn a_run_that_lost_its_device_is_resumed_without_asking_for_it() {
    let dir = temp();
    let run = dir.path().join("run");
    assert!(train(&run, &["--set", "rounds=6", "--set", "backend=simd"]).status.success());
    let before = metrics(&run);
    let config = std::fs::read_to_string(run.join("config.json")).unwrap();
    std::fs::write(run.join("config.json"), config.replace("\"simd\"", "\"cuda\"")).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let lost = serde_json::json!({
        "kind": "lost", "round": 2, "attempt": 0, "backend": "cuda", "reason": "it fell off the bus",
        "recovery": "decoded"
    });
    std::fs::write(run.join("journal.jsonl"), format!("{journal}{lost}\n")).unwrap();
    let output = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Warning: the device of cuda was lost in round 2 (it fell off the bus)"), "{said}");
    let result = last_line(&output);
    assert_eq!(result["device_lost"]["reason"], "it fell off the bus");
    let mut after = metrics(&run);
    assert_eq!(after[1]["device_lost"]["round"], 2);
    after[1].as_object_mut().unwrap().remove("device_lost");
    assert_eq!(after, before, "the same input on the CPU: the same attempts, charges and weights");
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    assert_eq!((journal.matches("\"charge\"").count(), journal.matches("\"lost\"").count()), (6, 1));
}

#[test]
fn the_budget_stops_the_run() {
    let dir = temp();
    let settings = ["--set", "privacy.gamma=64", "--set", "privacy.mu=8", "--set", "privacy.target_epsilon=6"];
    let output = train(&dir.path().join("run"), &settings);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    assert!(result["ending"].as_str().unwrap().contains("budget"), "{result}");
    assert!(result["epsilon"].as_f64().unwrap() <= 6.0);
    assert!(result["rounds"].as_u64().unwrap() < 24);
}

/// A cohort that may be cut costs what a Poisson sample does, and a little of delta; one that is cut too often is refused.
#[test]
fn a_truncated_sample_is_charged_to_delta() {
    let dir = temp();
    let run = |sampling: &str, name: &str| train(&dir.path().join(name), &["--set", "rounds=3", "--set", sampling]);
    let refused = run(r#"sampling={"truncated-poisson":{"most":160}}"#, "few");
    let message = stderr(&refused);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    let least: u64 = message.split("at least ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!((200..320).contains(&least), "{message}");
    let cut = run(&format!(r#"sampling={{"truncated-poisson":{{"most":{least}}}}}"#), "enough");
    let whole = run("sampling=poisson", "poisson");
    let (cut, whole) = (last_line(&cut), last_line(&whole));
    assert_eq!(cut["epsilon"], whole["epsilon"]);
    let (more, less) = (cut["delta_sampler"].as_f64().unwrap(), whole["delta_sampler"].as_f64().unwrap());
    assert!(less < 1e-20 && more > 1e-14 && more < 1e-11, "{less:e} {more:e}");
}

#[test]
fn the_least_bound_calibrates_reports_and_stops() {
    let dir = temp();
    let go = |name: &str, more: &[&str]| {
        let run = dir.path().join(name);
        let args = [&["--set", "rounds=12", "--set", "evaluation.every=4"][..], more].concat();
        let output = train(&run, &args);
        assert!(output.status.success(), "{}", stderr(&output));
        (last_line(&output), metrics(&run), run)
    };
    let best = ["--set", "privacy.accountant=best"];
    let (rdp, _, _) = go("rdp", &[]);
    let (result, rounds, run) = go("best", &best);
    assert!(rdp["accountant"].as_str().unwrap().starts_with("rdp"), "{rdp}");
    assert!(result["accountant"].as_str().unwrap().starts_with("pld (smm dominated"), "{result}");
    assert!(result["noise_std"].as_f64().unwrap() < 0.99 * rdp["noise_std"].as_f64().unwrap(), "{rdp} {result}");
    // All rounds are made, and the target is used up.
    assert_eq!((&result["ending"], &result["rounds"]), (&"complete".into(), &12.into()));
    let epsilon = result["epsilon"].as_f64().unwrap();
    assert!(epsilon <= 8.0 && epsilon > 7.99, "{epsilon}");
    let told: Vec<f64> = rounds.iter().map(|r| r["epsilon"].as_f64().unwrap()).collect();
    assert!(told.windows(2).all(|w| w[0] <= w[1]) && told[3] < told[4] && told[11] == epsilon, "{told:?}");
    // Resumed, nothing changes, the noise least of all.
    let config = std::fs::read(run.join("config.json")).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let output = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((metrics(&run), std::fs::read(run.join("config.json")).unwrap()), (rounds, config));
    // A budget that the cheaper bound would find spent: by the better one there is a round left.
    let given = ["--set", "privacy.gamma=64", "--set", "privacy.mu=8", "--set", "privacy.target_epsilon=6"];
    let (short, _, _) = go("short", &given);
    let (long, _, _) = go("long", &[&given[..], &best[..]].concat());
    assert!(long["rounds"].as_u64() > short["rounds"].as_u64(), "{short} {long}");
    assert!(long["epsilon"].as_f64().unwrap() <= 6.0, "{long}");
}

#[test]
fn rounds_of_different_noise_are_run_charged_and_resumed() {
    let dir = temp();
    let run = dir.path().join("run");
    let schedule = r#"privacy.schedule={"law":"exponential","last":0.5,"steps":3}"#;
    let settings = ["--set", schedule, "--set", "rounds=12", "--set", "privacy.noise=per_client"];
    let output = train(&run, &settings);
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    let epsilon = result["epsilon"].as_f64().unwrap();
    assert!(result["rounds"] == 12 && epsilon <= 8.0 && epsilon > 7.99, "{result}");
    let stds: Vec<f64> =
        result["stages"].as_array().unwrap().iter().map(|s| s["noise_std"].as_f64().unwrap()).collect();
    let ratios = [stds[1] / stds[0], stds[2] / stds[0]];
    assert!((ratios[0] - 0.5f64.sqrt()).abs() < 1e-9 && (ratios[1] - 0.5).abs() < 1e-9, "{stds:?}");
    // The ledger has each round's own event.
    let ledger = std::fs::read_to_string(run.join("ledger.jsonl")).unwrap();
    let charges = ledger.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mus: Vec<f64> = charges.map(|c| c["server"]["skellam-mixture"]["mu"].as_f64().unwrap()).collect();
    assert_eq!(mus.len(), 12);
    for (i, mu) in mus.iter().enumerate() {
        let factor = (stds[i / 4] / stds[0]).powi(2);
        assert!((mu / mus[0] - factor).abs() < 1e-9, "{mus:?}");
    }
    // From an earlier checkpoint on, across the stages: the same bits, charged once.
    let whole = metrics(&run);
    let model = std::fs::read(run.join("model.safetensors")).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let output = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(metrics(&run), whole);
    assert_eq!(std::fs::read(run.join("model.safetensors")).unwrap(), model);
    assert_eq!(std::fs::read_to_string(run.join("ledger.jsonl")).unwrap(), ledger);
    // A budget stops in the stage where it is spent; a trusted aggregator's noise changes alike.
    let stages = r#"privacy.schedule={"law":"stages","stages":[{"rounds":8,"noise":1},{"rounds":4,"noise":0.2}]}"#;
    let given = ["--set", "privacy.gamma=64", "--set", "privacy.mu=20", "--set", stages, "--set", "rounds=12"];
    let output = train(&dir.path().join("stopped"), &given);
    let result = last_line(&output);
    let rounds = result["rounds"].as_u64().unwrap();
    assert!(output.status.success() && (8..12).contains(&rounds), "{result} {}", stderr(&output));
    assert!(result["ending"].as_str().unwrap().contains("budget"), "{result}");
    let central = ["--set", "privacy.mechanism=central-gaussian", "--set", "privacy.bits=null"];
    let weighted = r#"privacy.schedule={"law":"weighted","stages":[{"rounds":6,"weight":1},{"rounds":6,"weight":4}]}"#;
    let more = [&central[..], &["--set", weighted, "--set", "rounds=12"][..]].concat();
    let output = train(&dir.path().join("central"), &more);
    assert!(output.status.success(), "{}", stderr(&output));
    let stds: Vec<f64> =
        last_line(&output)["stages"].as_array().unwrap().iter().map(|s| s["noise_std"].as_f64().unwrap()).collect();
    assert!((stds[1] / stds[0] - 0.5).abs() < 1e-9, "{stds:?}");
    // What makes no sense is refused before the first round.
    let linear = r#"privacy.schedule={"law":"linear","last":0.5}"#;
    for (more, says) in [
        (&["--set", stages, "--set", "rounds=11"][..], "stages of 11 rounds together"),
        (&["--set", linear, "--set", "privacy.mechanism=smm-2022"][..], "one noise for all rounds"),
        (&["--set", r#"privacy.schedule={"law":"linear","last":0}"#][..], "noise factor of a stage is 0"),
        (&["--set", r#"privacy.schedule={"law":"linear","last":2,"steps":40}"#][..], "steps of a decay is 40"),
        (&["--set", r#"privacy.schedule={"law":"cosine","last":2}"#][..], "cosine"),
    ] {
        let output = train(&dir.path().join("refused"), more);
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains(says), "{more:?}: {said}");
    }
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let dir = temp();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--set", "privacy.gamma=-1", "--set", "privacy.mu=5"], 2, "gamma"),
        (&["--set", "privacy.mu=0"], 2, "mu"),
        (&["--set", "privacy.bits=1"], 2, "bits"),
        (&["--set", "privacy.bits=33"], 2, "bits"),
        (&["--set", "privacy.gamma=1000", "--set", "privacy.bits=8"], 3, "bits would do"),
        (&["--set", "sampling=fixed"], 2, "poisson"),
        (&["--set", "privacy.delta=0"], 2, "delta"),
        (&["--set", "privacy.target_epsilon=1e-9"], 3, "cannot be met"),
        (&["--set", "privacy.clip=NaN"], 2, "clip"),
        (&["--set", "rounds=0"], 2, "rounds"),
        (&["--set", "privacy.target_epsilon=null"], 2, "target_epsilon"),
        (&["--set", "privcy.bits=8"], 2, "did you mean `privacy`?"),
        (&["--set", "model=mnist_mlp"], 2, "784"),
        (&["--set", "cohort=100000"], 2, "cohort"),
        (&["--set", "privacy.mechanism=central-gaussian", "--set", "privacy.noise=per_client"], 2, "aggregate"),
    ];
    for (i, (set, code, word)) in cases.iter().enumerate() {
        let out = dir.path().join(i.to_string());
        let output = train(&out, set);
        assert_eq!(output.status.code(), Some(*code), "{set:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{set:?}: {}", stderr(&output));
        assert!(!out.join("metrics.jsonl").exists());
    }
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("thesis.tex"), "precious").unwrap();
    let output = train(&full, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("exists"));
    assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly_and_the_run_goes_on() {
    let dir = temp();
    let whole = dir.path().join("whole");
    assert!(train(&whole, &[]).status.success());
    let run = dir.path().join("run");
    let mut args = vec!["train", "--json", "--out", run.to_str().unwrap()];
    args.extend(DIGITS);
    let mut child = veilsum(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..5 {
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
    let status = child.wait().unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    // The run may have been quicker than the signal.
    if last["ending"] == "interrupted" {
        assert_eq!(status.code(), Some(130));
        let output = veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(metrics(&run), metrics(&whole));
}

/// A trainer whose rows hold NaN for every third sample.
struct Broken(std::sync::Arc<dyn veilsum::model::LocalTrainer>);

impl veilsum::model::LocalTrainer for Broken {
    fn parameter_count(&self) -> usize {
        self.0.parameter_count()
    }
    fn init(&self, key: &veilsum::math::prg::StreamKey) -> Vec<f32> {
        self.0.init(key)
    }
    fn gradient_rows(
        &self,
        weights: &[f32],
        batch: &veilsum::data::Batch,
    ) -> Result<veilsum::backend::Rows, veilsum::model::ModelError> {
        let mut rows = self.0.gradient_rows(weights, batch)?;
        let (dim, count) = (rows.dim, rows.rows);
        let data = rows.buffer.as_f32_mut().unwrap();
        for i in (0..count).step_by(3) {
            data[i * dim + i] = f32::NAN;
        }
        Ok(rows)
    }
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &veilsum::data::Batch,
        config: &veilsum::model::LocalConfig,
        key: &veilsum::math::prg::StreamKey,
    ) -> Result<Vec<f32>, veilsum::model::ModelError> {
        self.0.local_delta(weights, shard, config, key)
    }
    fn logits(&self, weights: &[f32], batch: &veilsum::data::Batch) -> Result<Vec<f32>, veilsum::model::ModelError> {
        self.0.logits(weights, batch)
    }
}

#[test]
fn nan_gradients_become_zero_rows_that_the_client_sees() {
    use veilsum::config::build::{Given, build};
    let mut value = veilsum::config::overrides::parse(veilsum::config::Config::quickstart(), "quickstart").unwrap();
    for item in DIGITS.iter().filter(|s| **s != "--set").chain(&["rounds=3"]) {
        veilsum::config::overrides::set(&mut value, item).unwrap();
    }
    let config: veilsum::config::Config = veilsum::config::overrides::typed(&value, "test").unwrap();
    let inner = veilsum::model::trainer_for(config.model.as_ref().unwrap()).unwrap();
    let given = Given { trainer: Some(std::sync::Arc::new(Broken(inner))), ..Given::default() };
    let experiment = build(&config, Path::new("."), given).unwrap();
    let interrupt = std::sync::atomic::AtomicBool::new(false);
    let dir = temp();
    let options = veilsum::sim::RunOptions { folder: Some(dir.path()), resume: false, interrupt: &interrupt };
    let result = veilsum::sim::run(&experiment, &options, &mut veilsum::sim::Silent).unwrap();
    assert_eq!(result.rounds, 3);
    let rows: usize = result.history.iter().map(|r| r.cohort).sum();
    assert!(result.clients.zeroed * 3 >= rows && result.clients.zeroed < rows / 2, "{}", result.clients.zeroed);
    assert!(result.weights.iter().all(|w| w.is_finite()));
    let seen = std::fs::read_to_string(dir.path().join("client_diagnostics.jsonl")).unwrap();
    assert!(!seen.contains("\"zeroed_rows\":0,"), "{seen}");
}

#[test]
fn all_clients_every_round_is_finite_and_delta_is_warned_about() {
    let dir = temp();
    let output = train(
        &dir.path().join("run"),
        &["--set", "sampling=all", "--set", "rounds=2", "--set", "privacy.delta=0.01", "--set", "privacy.bits=24"],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    let epsilon = result["epsilon"].as_f64().unwrap();
    assert!(epsilon > 0.0 && epsilon <= 8.0, "{result}");
    assert_eq!(result["epsilon_server_view"].as_f64().unwrap(), epsilon);
    let page = std::fs::read_to_string(dir.path().join("run/report.html")).unwrap();
    assert!(page.contains("is not below 1/N"));
}

#[test]
fn a_sweep_gives_means_and_goes_on_where_it_was() {
    let dir = temp();
    let config = dir.path().join("sweep.json");
    let mut base = serde_json::json!({
        "name": "digits", "data": {"name": "digits"}, "partition": {"scheme": "per-sample"}, "model": "digits_mlp",
        "algorithm": {"name": "fed_sgd"}, "server": {"optimizer": "adam", "learning_rate": 0.02},
        "cohort": 150, "rounds": 4,
        "privacy": {"mechanism": "smm", "clip": 1.0, "target_epsilon": 8.0}
    });
    base["evaluation"] = serde_json::json!({"every": 4});
    let sweep = serde_json::json!({
        "name": "bits", "base": base, "seeds": [1, 2], "grid": {"privacy.bits": [12, 16]},
        "variants": [{"label": "smm", "set": {}},
                     {"label": "none", "set": {"privacy.mechanism": "none"}, "once": true},
                     {"label": "small", "set": {"privacy.mechanism": "skellam", "privacy.bits": 2}, "once": true}]
    });
    std::fs::write(&config, sweep.to_string()).unwrap();
    let out = dir.path().join("out");
    let go = || {
        let args = ["sweep", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json", "--jobs", "2"];
        let output = veilsum(&args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        last_line(&output)
    };
    let first = go();
    assert_eq!(first["points"].as_array().unwrap().len(), 4);
    assert_eq!(first["complete"], true);
    // No noise fits a ring so small: said, and the others go on.
    let refused = &first["points"][3];
    assert!(
        refused["refused"].as_str().unwrap().contains("bits") && refused["accuracy"]["mean"].is_null(),
        "{refused}"
    );
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("small was refused"));
    assert!(std::fs::read_to_string(out.join("table.md")).unwrap().contains("refused"));
    for point in &first["points"].as_array().unwrap()[..3] {
        assert_eq!(point["seeds"], serde_json::json!([1, 2]));
        assert!(point["accuracy"]["std"].as_f64().unwrap() >= 0.0);
    }
    let stamp = |p: &str| std::fs::metadata(out.join(p)).unwrap().modified().unwrap();
    let before = stamp("none/seed-1/result.json");
    std::fs::remove_dir_all(out.join("smm_bits=12/seed-2")).unwrap();
    let second = go();
    assert_eq!(stamp("none/seed-1/result.json"), before, "finished runs are not run again");
    let accuracy = |v: &Value| v["points"][0]["accuracy"].clone();
    assert_eq!(accuracy(&first), accuracy(&second), "a seed decides the run");
    assert!(std::fs::read_to_string(out.join("figure.svg")).unwrap().contains("<svg"));
}

#[test]
fn a_sweep_of_rules_and_attacks_is_a_heat_map() {
    let dir = temp();
    let config = dir.path().join("sweep.json");
    let sweep = serde_json::json!({
        "name": "matrix", "seeds": [1], "measure": "last-ten", "rows": "variants", "x": "adversary.attack",
        "base": {
            "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 10}, "model": "digits_mlp",
            "algorithm": {"name": "fed_avg", "learning_rate": 0.1}, "server": {"optimizer": "sgd", "learning_rate": 1.0},
            "cohort": 10, "sampling": "all", "rounds": 3, "evaluation": {"every": 1},
            "privacy": {"mechanism": "none", "clip": 100.0}
        },
        "grid": {"adversary.attack": [{"sign-flip": {"strength": 20.0}}, {"gaussian": {"strength": 0.5}}]},
        "variants": [
            {"label": "mean", "set": {"adversary.clients": 3}},
            {"label": "median", "set": {"adversary.clients": 3, "aggregation": {"rule": "median"}}}
        ]
    });
    std::fs::write(&config, sweep.to_string()).unwrap();
    let out = dir.path().join("out");
    let output =
        veilsum(&["sweep", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let result = last_line(&output);
    let points = result["points"].as_array().unwrap();
    for point in points {
        let run = std::fs::read_to_string(out.join(format!(
            "{}_attack={}/seed-1/metrics.jsonl",
            point["label"].as_str().unwrap(),
            if point["coordinates"]["adversary.attack"]["gaussian"].is_null() {
                "sign-flip-strength-20.0"
            } else {
                "gaussian-strength-0.5"
            },
        )));
        let text = run.unwrap();
        let accuracies = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["accuracy"].as_f64().unwrap());
        let mean = accuracies.sum::<f64>() / 3.0;
        assert!((point["measured"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{point} {mean}");
    }
    let measured = |i: usize| points[i]["measured"]["mean"].as_f64().unwrap();
    assert!(measured(2) > measured(0), "the median stands what the mean does not: {points:?}");
    let figure = std::fs::read_to_string(out.join("figure.svg")).unwrap();
    for word in ["columns: adversary.attack; rows: variants", "sign-flip strength 20.0", ">median<"] {
        assert!(figure.contains(word), "{word}: {figure}");
    }
    assert_eq!(figure.matches("<rect").count(), 1 + 4);
}

#[test]
fn dse_shows_the_shrinkage_and_the_unbiased_sum() {
    let go = |mechanism: &str| {
        let set = format!("privacy.mechanism={mechanism}");
        let args = ["dse", "--json", "--set", &set, "--set", "repeats=4", "--set", "dim=16384"];
        let output = veilsum(&args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        last_line(&output)
    };
    let smm = go("smm");
    assert!((smm["mse"].as_f64().unwrap() - 0.2925).abs() < 0.006, "{smm}");
    assert!((smm["slope"].as_f64().unwrap() - 1.0).abs() < 0.12, "{smm}");
    let published = go("smm-2022");
    let slope = published["slope"].as_f64().unwrap();
    let ratio = published["clip_ratio"].as_f64().unwrap();
    assert!(slope < 0.75 && (0.4..0.7).contains(&ratio), "{slope} {ratio}");
}

#[test]
fn committed_schemas_and_configs_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let schemas = [
        ("experiment.schema.json", veilsum::config::Config::json_schema()),
        ("dse.schema.json", schemars::schema_for!(veilsum::sim::dse::DseConfig).to_value()),
        ("sweep.schema.json", schemars::schema_for!(veilsum::config::sweep::SweepConfig).to_value()),
        #[cfg(feature = "net")]
        ("policy.schema.json", veilsum::net::policy::Policy::json_schema()),
    ];
    for (name, schema) in schemas {
        let text = format!("{schema:#}\n");
        if std::env::var_os("VEILSUM_BLESS").is_some() {
            std::fs::write(root.join(name), &text).unwrap();
        }
        let committed = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        assert!(committed == text, "configs/{name} is stale: run the tests once with VEILSUM_BLESS=1");
    }
    for entry in std::fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let value = veilsum::config::overrides::parse(&text, "config").unwrap();
        let origin = path.display().to_string();
        match value["$schema"].as_str() {
            Some("./experiment.schema.json") => {
                veilsum::config::overrides::typed::<veilsum::config::Config>(&value, &origin).map(|_| ()).unwrap();
            }
            Some("./dse.schema.json") => {
                veilsum::config::overrides::typed::<veilsum::sim::dse::DseConfig>(&value, &origin).map(|_| ()).unwrap();
            }
            Some("./sweep.schema.json") => {
                let sweep = veilsum::config::overrides::typed::<veilsum::config::sweep::SweepConfig>(&value, &origin);
                let sweep = sweep.unwrap();
                let base = std::fs::read_to_string(root.join(sweep.base.as_str().unwrap())).unwrap();
                let base = veilsum::config::overrides::parse(&base, "base").unwrap();
                assert!(!sweep.points(&base).unwrap().is_empty());
            }
            other => assert!(origin.ends_with(".schema.json"), "{origin}: {other:?}"),
        }
    }
}
