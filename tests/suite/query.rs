//! `query` as a user runs it: answers on a table, and what a ledger lets through.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn veilsum(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_veilsum")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// 600 records: ward 0..3, age 0..100, outcome home (half), moved, died; a line's age is no number once.
fn table(dir: &Path) -> String {
    let mut text = String::from("ward,age,outcome\n");
    for i in 0..600 {
        let age = if i == 17 { "unknown".to_owned() } else { (i % 100).to_string() };
        let outcome = ["home", "moved", "home", "died"][i % 4];
        text += &format!("{},{age},{outcome}\n", i % 3);
    }
    let path = dir.join("visits.csv");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// At an epsilon of 50 every answer is the true one, but with probability below 1e-15.
#[test]
fn answers_are_about_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let file = table(dir.path());
    let ask = |args: &[&str]| answer(&veilsum(&[&["query", args[0], &file, "--json"], &args[1..]].concat()));
    assert_eq!(ask(&["count", "--epsilon", "50"])["count"], 600);
    assert_eq!(ask(&["count", "--where", "ward=1", "--where", "outcome=home", "--epsilon", "50"])["count"], 100);
    let found = ask(&["histogram", "--column", "outcome", "--values", "died,home,lost", "--epsilon", "50"]);
    assert_eq!(found["counts"], serde_json::json!({"died": 150, "home": 300, "lost": 0}));
    assert!((found["epsilon"].as_f64().unwrap() - 50.0).abs() < 1e-6);
    let found = ask(&["histogram", "--column", "outcome", "--values", "died,home", "--sigma", "2", "--delta", "1e-6"]);
    assert!((found["counts"]["home"].as_i64().unwrap() - 300).abs() < 40);
    let epsilon = found["epsilon"].as_f64().unwrap();
    assert!(epsilon > 1.0 && epsilon < 3.0, "{epsilon}");
    let among = ["--low", "0", "--high", "99", "--step", "1", "--epsilon", "50"];
    for (quantile, expected) in [("1/2", 49.5), ("0.25", 24.5), ("9/10", 89.5)] {
        let found = ask(&[&["quantile", "--column", "age", "--quantile", quantile][..], &among].concat());
        assert!((found["value"].as_f64().unwrap() - expected).abs() <= 1.0, "{found}");
    }
    for method in ["permute-and-flip", "exponential"] {
        let found = ask(&[
            "select",
            "--column",
            "outcome",
            "--values",
            "died,home,moved",
            "--epsilon",
            "50",
            "--method",
            method,
        ]);
        assert_eq!(found["value"], "home");
    }
    let found = ask(&[
        "above",
        "--column",
        "outcome",
        "--values",
        "lost,died,home,moved",
        "--threshold",
        "100",
        "--epsilon",
        "50",
    ]);
    assert_eq!((&found["above"], &found["asked"]), (&serde_json::json!(["died"]), &serde_json::json!(2)));
    let found = ask(&["respond", "--column", "outcome", "--values", "died,home,moved", "--epsilon", "2"]);
    assert_eq!(found["answers"].as_array().unwrap().len(), 600);
    assert!((found["estimates"]["home"].as_f64().unwrap() - 300.0).abs() < 120.0, "{}", found["estimates"]);
    assert!(found["neighboring"].as_str().unwrap().contains("replace"));
    // Two answers to one question have noise of their own.
    let draws: Vec<Value> = (0..4).map(|_| ask(&["count", "--epsilon", "1/1000"])["count"].clone()).collect();
    assert!(draws.iter().any(|d| *d != draws[0]), "{draws:?}");
}

#[test]
fn a_ledger_stops_what_its_principal_cannot_afford() {
    let dir = tempfile::tempdir().unwrap();
    let file = table(dir.path());
    let ledger = dir.path().join("study.jsonl");
    let ledger = ledger.to_str().unwrap();
    let ask = |epsilon: &str| {
        veilsum(&["query", "count", &file, "--json", "--epsilon", epsilon, "--ledger", ledger, "--principal", "ward"])
    };
    assert_eq!(ask("1").status.code(), Some(2), "a ledger that is not there");
    let opened = veilsum(&["ledger", "open", ledger, "--principal", "ward", "--epsilon", "2.5", "--delta", "1e-9"]);
    assert!(opened.status.success());
    let first = answer(&ask("1"));
    assert_eq!(first["delta"].as_f64(), Some(1e-9));
    assert!(first["ledger"]["epsilon"]["public"].as_f64().unwrap() <= 1.0 + 1e-6);
    let second = answer(&ask("1"));
    let total = second["ledger"]["epsilon"]["public"].as_f64().unwrap();
    assert!(total > 1.5 && total <= 2.0 + 1e-6, "{total}");
    let refused = ask("1");
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert!(refused.stdout.is_empty() && stderr(&refused).contains("limit"), "{}", stderr(&refused));
    assert!(ask("1/4").status.success());
    let shown = veilsum(&["ledger", "verify", ledger, "--json"]);
    assert!(shown.status.success() && answer(&shown)["principals"][0]["releases"] == 3);
    // Another relation does not add up with these.
    let other = veilsum(&[
        "query",
        "respond",
        &file,
        "--column",
        "outcome",
        "--values",
        "home,died",
        "--epsilon",
        "0.1",
        "--ledger",
        ledger,
        "--principal",
        "ward",
    ]);
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
}

#[test]
fn bad_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = table(dir.path());
    for (args, code, names) in [
        (&["count", &file][..], 2, "epsilon"),
        (&["count", &file, "--epsilon", "0"], 2, "epsilon"),
        (&["count", &file, "--epsilon", "-1"], 2, "epsilon"),
        (&["count", &file, "--epsilon", "1", "--sigma", "1"], 2, "sigma"),
        (&["count", &file, "--sigma", "0"], 2, "sigma"),
        (&["count", &file, "--epsilon", "1", "--delta", "0"], 2, "delta"),
        (&["count", &file, "--epsilon", "1", "--where", "ward"], 2, "COLUMN=VALUE"),
        (&["count", &file, "--epsilon", "1", "--where", "bed=1"], 2, "bed"),
        (&["count", "absent.csv", "--epsilon", "1"], 2, "absent.csv"),
        (&["count", &file, "--epsilon", "1", "--ledger", "x"], 2, "principal"),
        (&["histogram", &file, "--column", "outcome", "--values", "a,a", "--epsilon", "1"], 2, "twice"),
        (&["select", &file, "--column", "outcome", "--epsilon", "1"], 2, "values"),
        (&["respond", &file, "--column", "outcome", "--values", "a", "--epsilon", "1"], 2, "values"),
        (
            &[
                "above",
                &file,
                "--column",
                "ward",
                "--values",
                "1",
                "--threshold",
                "1",
                "--positives",
                "0",
                "--epsilon",
                "1",
            ],
            2,
            "positives",
        ),
        (
            &[
                "quantile",
                &file,
                "--column",
                "age",
                "--quantile",
                "1",
                "--low",
                "0",
                "--high",
                "9",
                "--step",
                "1",
                "--epsilon",
                "1",
            ],
            2,
            "quantile",
        ),
        (
            &[
                "quantile",
                &file,
                "--column",
                "age",
                "--quantile",
                "1/2",
                "--low",
                "0",
                "--high",
                "9",
                "--step",
                "0",
                "--epsilon",
                "1",
            ],
            2,
            "step",
        ),
        (
            &[
                "quantile",
                &file,
                "--column",
                "age",
                "--quantile",
                "1/2",
                "--low",
                "9",
                "--high",
                "0",
                "--step",
                "1",
                "--epsilon",
                "1",
            ],
            2,
            "candidates",
        ),
    ] {
        let output = veilsum(&[&["query"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(names) && output.stdout.is_empty(), "{args:?}: {}", stderr(&output));
    }
}
