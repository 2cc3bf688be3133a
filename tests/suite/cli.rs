//! The command line as a whole: help that teaches, exit codes, machines' output on stdout only.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn veilsum(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.args(args).env_remove("VEILSUM_ALLOW_SOFTWARE").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_teaches_itself() {
    let main = veilsum(&["--help"]);
    assert!(main.status.success());
    for command in ["train", "account", "audit", "eval", "sweep", "dse", "sample", "data", "bench", "devices"] {
        assert!(text(&main.stdout).contains(command), "{command}");
        let help = veilsum(&[command, "--help"]);
        assert!(help.status.success());
        let help = text(&help.stdout);
        assert!(help.contains("--json") || command == "data", "{command}: {help}");
        // The usage line, and at least one example.
        assert!(help.matches(&format!("veilsum {command}")).count() >= 2, "{command} shows no example: {help}");
    }
}

#[test]
fn the_promised_shape_of_account() {
    let args = "account --mechanism smm-2022 --gamma 64 --mu 5.95 --clip 1 --cohort 100 --delta 1e-5 --json";
    let output = veilsum(&args.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!((value["epsilon"].as_f64().unwrap() / 12.718330135505079 - 1.0).abs() < 1e-9);
    assert!((value["l_inf"].as_f64().unwrap() / 5.335625504243255 - 1.0).abs() < 1e-9);
    for key in ["delta", "order", "accountant", "neighboring"] {
        assert!(!value[key].is_null(), "{key}: {value}");
    }
}

#[test]
fn devices_say_what_is_usable_and_why_something_is_not() {
    let list = |args: &[&str]| {
        let output = veilsum(&[&["devices", "--json"], args].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
    };
    let devices = list(&[]);
    for device in &devices {
        assert_eq!(device["usable"] == true, device["reason"].is_null(), "{device}");
        assert!(device["device"].is_string() || !device["reason"].is_null(), "{device}");
        assert!(device["class"] != "software adapter" || device["usable"] == false, "{device}");
    }
    for backend in ["cuda", "wgpu", "simd"] {
        assert!(devices.iter().any(|d| d["backend"] == backend), "{backend}: {devices:?}");
    }
    let simd = devices.iter().find(|d| d["backend"] == "simd").unwrap();
    assert!(simd["usable"] == true && simd["limits"]["threads"].as_u64() > Some(0), "{simd}");
    let allowed = list(&["--allow-software"]);
    assert!(allowed.iter().all(|d| d["class"] != "software adapter" || d["usable"] == true), "{allowed:?}");
    let table = veilsum(&["devices"]);
    assert!(table.status.success() && text(&table.stdout).contains("simd"), "{}", text(&table.stdout));
}

/// What training on CUDA would need besides is looked for where the environment says, on a machine without any of it.
#[cfg(target_os = "linux")]
#[test]
fn devices_say_what_training_on_cuda_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let look = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
        command.args(["devices", "--json"]).env("CUDA_PATH", path).env_remove("CUDA_HOME").stdin(Stdio::null());
        let output = command.env("LD_LIBRARY_PATH", folder.path().join("lib64")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let devices: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cuda = devices.as_array().unwrap().iter().find(|d| d["backend"] == "cuda").unwrap().clone();
        let missing: Vec<String> = cuda["training_compiler"]["missing"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                assert!(m["apt"].is_string() && m["pip"].as_str().unwrap().contains("nvidia-cuda-"), "{m}");
                m["what"].as_str().unwrap().to_owned()
            })
            .collect();
        (cuda, missing)
    };
    let (cuda, missing) = look("/no/such/folder");
    assert_eq!(cuda["driver_cuda_needed"], "13.0");
    assert_eq!(cuda["driver_release_needed"], 580);
    assert_eq!(cuda["usable"] == true, cuda["driver_cuda"].is_string() && cuda["reason"].is_null(), "{cuda}");
    assert!(missing.ends_with(&["CUDA headers".into(), "CCCL headers".into()]), "{missing:?}");
    let refused = |cuda: &Value| {
        assert_eq!(cuda["training"]["works"], false, "{cuda}");
        cuda["training"]["reason"].as_str().unwrap().to_owned()
    };
    let driver = cuda["driver_cuda"].is_string();
    let reason = refused(&cuda);
    assert!(reason.contains(if driver { "nvidia-cuda-runtime-cu12" } else { "NVIDIA driver" }), "{reason}");
    let root = folder.path();
    for file in ["cuda_runtime.h", "crt/host_config.h", "cuda_fp16.h", "cuda_bf16.h", "cccl/cuda/barrier"] {
        let path = root.join("include").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    std::fs::create_dir(root.join("lib64")).unwrap();
    std::fs::write(root.join("lib64/libnvrtc.so.12"), "").unwrap();
    let (cuda, missing) = look(root.to_str().unwrap());
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(cuda["training_compiler"]["headers"], root.join("include").to_str().unwrap());
    assert_eq!(cuda["training_compiler"]["nvrtc"], root.join("lib64/libnvrtc.so.12").to_str().unwrap());
    // A file that is no library is found, and cannot be loaded.
    let reason = refused(&cuda);
    assert!(reason.contains(if driver { "cannot be loaded" } else { "NVIDIA driver" }), "{reason}");
    let table = Command::new(env!("CARGO_BIN_EXE_veilsum")).arg("devices").env("CUDA_PATH", "/no").output().unwrap();
    let table = text(&table.stdout);
    assert!(table.contains("driver 580") && table.contains("nvidia-cuda-runtime-cu12"), "{table}");
    assert!(table.contains("cuda, training there (train_on=backend): no: something is missing"), "{table}");
}

/// Without a card a report of measurements is refused, for the reasons that `devices` gives.
#[cfg(target_os = "linux")]
#[test]
fn a_gpu_report_without_a_card_says_what_is_missing() {
    let devices: Value = serde_json::from_slice(&veilsum(&["devices", "--json"]).stdout).unwrap();
    let of_gpus = |d: &&Value| d["backend"] == "cuda" || d["backend"] == "wgpu";
    let gpus: Vec<&Value> = devices.as_array().unwrap().iter().filter(of_gpus).collect();
    let script = |arguments: &[&str]| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/gpu_report.sh");
        let mut command = Command::new(path);
        command.args(arguments).env("VEILSUM", env!("CARGO_BIN_EXE_veilsum")).env_remove("VEILSUM_ALLOW_SOFTWARE");
        command.stdin(Stdio::null()).output().unwrap()
    };
    let check = script(&["--check"]);
    let said = text(&check.stderr);
    if gpus.iter().any(|d| d["usable"] == true) {
        assert!(check.status.success(), "{said}");
    } else {
        assert_eq!(check.status.code(), Some(1), "{said}");
        assert!(said.contains("no GPU to measure"), "{said}");
        assert!(gpus.iter().all(|d| said.contains(d["reason"].as_str().unwrap())), "{said}");
    }
    assert_eq!(script(&["--chekc"]).status.code(), Some(2));
}

#[test]
fn bad_usage_is_exit_2_and_says_nothing_on_stdout() {
    for args in [
        &["trian"][..],
        &["train", "absent.json"],
        &["train", "--resume", "no-such-run"],
        &["account", "--mechanism", "smm"],
        &["sweep", "absent.json"],
        &["dse", "--set", "privacy.mu=-1"],
        &["dse", "--set", r#"privacy.dropout={"tolerated":0.1}"#],
        &["dse", "--set", "dim=0"],
    ] {
        let output = veilsum(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}
