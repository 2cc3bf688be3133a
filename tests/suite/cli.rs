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
    for command in ["train", "account", "eval", "sweep", "dse", "sample", "data", "bench", "devices"] {
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

#[test]
fn bad_usage_is_exit_2_and_says_nothing_on_stdout() {
    for args in [
        &["trian"][..],
        &["train", "absent.json"],
        &["train", "--resume", "no-such-run"],
        &["account", "--mechanism", "smm"],
        &["sweep", "absent.json"],
        &["dse", "--set", "privacy.mu=-1"],
        &["dse", "--set", "dim=0"],
    ] {
        let output = veilsum(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}
