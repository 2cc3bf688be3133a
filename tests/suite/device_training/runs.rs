//! Whole runs whose clients train on a device, and one that is refused.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use veilsum::backend::{Backend, BackendKind};
use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, overrides};
use veilsum::model::trainer_on;

use super::{other_device, trained_on, wgpu};
use crate::device_loss::run_without;
use crate::kernels::{emulation_available, with_driver};

/// `veilsum train` where a software adapter will do.
fn veilsum(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.args(["train", "--json"]).args(args).env("VEILSUM_ALLOW_SOFTWARE", "1").stdin(Stdio::null());
    command
}

/// The metrics without their time fields.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("seconds");
            value
        })
        .collect()
}

#[test]
fn a_run_on_the_device_learns_and_resumes_to_the_same_metrics() {
    for device in trained_on() {
        let backend = format!("backend={}", device.kind().name());
        match device.kind() {
            // Not said is said.
            BackendKind::Wgpu => learns_and_resumes(&[&backend]),
            _ => learns_and_resumes(&[&backend, "train_on=backend"]),
        }
    }
}

fn learns_and_resumes(device: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let set: Vec<&str> = [
        "data.name=digits",
        "model=digits_mlp",
        "cohort=60",
        "rounds=8",
        "evaluation.every=2",
        "checkpoint.every=3",
        "privacy.bits=16",
        "privacy.target_epsilon=8",
        "seed=5",
    ]
    .into_iter()
    .chain(device.iter().copied())
    .collect();
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let mut args = vec!["--out", out.to_str().unwrap()];
        args.extend(set.iter().chain(more).flat_map(|s| ["--set", s]));
        let output = veilsum(&args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        (out, config["train_on"].clone())
    };
    let (whole, train_on) = run("whole", &[]);
    assert_eq!(train_on, "backend");
    let (again, _) = run("again", &[]);
    let reference = metrics(&whole);
    assert_eq!(metrics(&again), reference);
    let loss = |i: usize| reference[i]["loss"].as_f64().unwrap();
    assert!(loss(7) < 0.9 * loss(1), "{} {}", loss(1), loss(7));
    // Killed in the middle of whatever it was doing.
    let killed = dir.path().join("killed");
    let mut command = veilsum(&["--out", killed.to_str().unwrap()]);
    command.args(set.iter().flat_map(|s| ["--set", s])).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap());
    assert_eq!(std::io::BufRead::lines(lines).take(4).count(), 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = veilsum(&["--resume", killed.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(metrics(&killed), reference);
    let model = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert!(model(&killed) == model(&whole) && model(&again) == model(&whole));
    let (cpu, train_on) = run("cpu", &["train_on=cpu"]);
    assert_eq!(train_on, "cpu");
    let (a, b) = (loss(7), metrics(&cpu)[7]["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 0.1 * a, "{a} on the device, {b} on the processor");
}

#[test]
fn a_run_that_loses_the_device_it_trains_on_trains_on_the_processor() {
    let Some(backend) = other_device(|_| ()) else { return };
    let device = wgpu(&backend).device().clone();
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let config = r#"{
        "name": "lost", "seed": 3, "data": {"name": "digits"}, "model": "digits_mlp", "backend": "simd",
        "partition": {"scheme": "per-sample"}, "algorithm": {"name": "fed_sgd"},
        "server": {"optimizer": "sgd", "learning_rate": 0.5}, "cohort": 20, "rounds": 3,
        "privacy": {"mechanism": "smm", "clip": 1.0, "gamma": 64, "mu": 50, "bits": 20}
    }"#;
    let value = overrides::parse(config, "test").unwrap();
    let config: Config = overrides::typed(&value, "test").unwrap();
    let host = build(&config, Path::new("."), Given::default()).unwrap();
    let model = host.model.clone().unwrap();
    let trainer = trainer_on(&model, backend.clone()).unwrap();
    let experiment = Experiment { backend, trainer, trainer_on_cpu: Some(host.trainer.clone()), ..host };
    let found = run_without(device, &experiment);
    assert!(found.weights.iter().all(|w| w.is_finite()) && found.evaluation.is_some());
}

/// Nothing is handed to the framework where its compiler is missing: the error names the parts and their packages.
#[cfg(target_os = "linux")]
#[test]
fn training_on_cuda_without_a_compiler_is_refused_with_its_packages() {
    if !emulation_available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let set =
        ["data.name=digits", "model=digits_mlp", "cohort=60", "rounds=2", "privacy.bits=16", "seed=5", "backend=cuda"];
    let run = |train_on: &str, name: &str| {
        let out = dir.path().join(name);
        let mut command = veilsum(&["--out", out.to_str().unwrap(), "--set", train_on]);
        command.args(set.iter().flat_map(|s| ["--set", s]));
        with_driver(&mut command).env("CUDA_PATH", "/no/such/folder").env_remove("CUDA_HOME").output().unwrap()
    };
    let output = run("train_on=backend", "refused");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{message}");
    for word in ["CUDA headers", "/no/such/folder/include lacks cuda_runtime.h", "nvidia-cuda-runtime-cu12", "580"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert!(!dir.path().join("refused/metrics.jsonl").exists());
}
