//! `veilsum secagg run`: the same sum by every protocol, whoever vanishes, from every kind of file.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use veilsum::data::vectors::{self, to_npy};

fn run(folder: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.args(["secagg", "run"]).args(args.split_whitespace()).current_dir(folder).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sum_in(folder: &Path, name: &str) -> Vec<i64> {
    vectors::read(&folder.join(name), None, None).unwrap().values
}

const CLIENTS: usize = 6;
const VALUES: usize = 50;

/// Row i of six, and a file with all of them as raw `i32`.
fn rows() -> (TempDir, Vec<Vec<i64>>) {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| (0..VALUES).map(|j| ((i * 7919 + j * 104_729) % 2001) as i64 - 1000).collect();
    let rows: Vec<Vec<i64>> = (0..CLIENTS).map(row).collect();
    let raw: Vec<u8> = rows.iter().flatten().flat_map(|&v| (v as i32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("rows.bin"), raw).unwrap();
    for (i, row) in rows.iter().enumerate() {
        std::fs::write(folder.path().join(format!("c{i}.npy")), to_npy(row)).unwrap();
    }
    (folder, rows)
}

/// The sum of these rows mod 2^12, centred: some sums leave the ring.
fn expected(rows: &[Vec<i64>], who: &[usize]) -> Vec<i64> {
    (0..VALUES).map(|j| (who.iter().map(|&i| rows[i][j]).sum::<i64>() + 2048).rem_euclid(4096) - 2048).collect()
}

#[test]
fn every_protocol_writes_the_same_sum() {
    let (folder, rows) = rows();
    let raw = "--input rows.bin --raw i32 --dim 50 --bits 12 --json --output";
    let many = "--input c0.npy c1.npy c2.npy c3.npy c4.npy c5.npy --bits 12 --json --output";
    for (number, (args, phases)) in [
        (format!("{raw} 0.npy"), 1),
        (format!("{many} 1.npy --protocol masks"), 5),
        (format!("{raw} 2.npy --protocol mphe --bound 1000 --holders 4 --rounds 5"), 6),
        (format!("{many} 3.npy --protocol mphe --bound 1000 --trust honest-roster --rounds 5"), 6),
        (format!("{raw} 4.npy --protocol oneshot --bound 1000 --holders 4"), 2),
    ]
    .into_iter()
    .enumerate()
    {
        let value = json(&run(folder.path(), &args));
        assert_eq!(sum_in(folder.path(), &format!("{number}.npy")), expected(&rows, &[0, 1, 2, 3, 4, 5]), "{args}");
        assert_eq!(value["survivors"], serde_json::json!([1, 2, 3, 4, 5, 6]));
        let listed = value["phases"].as_array().unwrap();
        assert_eq!(listed.len(), phases, "{value}");
        assert!(
            listed.iter().all(|p| p["bytes"].as_u64().unwrap() > 0 && p["frames"].as_u64().unwrap() > 0),
            "{value}"
        );
        assert!(value["total"]["bytes"].as_f64().unwrap() > 0.0 && value["parameters"].is_string());
    }
}

#[test]
fn whoever_vanishes_the_sum_is_that_of_the_others() {
    let (folder, rows) = rows();
    let raw = "--input rows.bin --raw i32 --dim 50 --bits 12 --json --output out.npy";
    for (args, who) in [
        ("--drop-clients 2,4-5@input", vec![0, 2, 5]),
        (
            "--protocol masks --server semi-honest --dropouts 0.3 --drop-clients 2@input --drop-clients 3@unmask",
            vec![0, 2, 3, 4, 5],
        ),
        ("--protocol mphe --rounds 5 --holders 4 --drop-clients 1-3@input --drop-holders 2@agree", vec![3, 4, 5]),
        ("--protocol mphe --rounds 5 --holders 4 --drop-clients 6@input --drop-holders 1@open", vec![0, 1, 2, 3, 4]),
        ("--protocol oneshot --holders 5 --drop-clients 1-3@input --drop-holders 2@open", vec![3, 4, 5]),
    ] {
        let value = json(&run(folder.path(), &format!("{raw} {args}")));
        assert_eq!(sum_in(folder.path(), "out.npy"), expected(&rows, &who), "{args}");
        let survivors: Vec<usize> = who.iter().map(|i| i + 1).collect();
        assert_eq!(value["survivors"], serde_json::json!(survivors), "{args}");
    }
    // A seed repeats a run; the sum goes to raw numbers as well.
    let seeded = "--input rows.bin --raw i32 --dim 50 --bits 12 --protocol masks --seed 7 --output out.bin";
    assert!(run(folder.path(), seeded).status.success());
    let bytes = std::fs::read(folder.path().join("out.bin")).unwrap();
    let found: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    assert_eq!(found, expected(&rows, &[0, 1, 2, 3, 4, 5]));
}

#[test]
fn what_cannot_be_done_says_so_and_writes_nothing() {
    let (folder, _) = rows();
    for (args, code, says) in [
        ("--bits 12 --drop-clients 1-5@input", 1, "no sum"),
        ("--bits 12 --protocol mphe --holders 4 --rounds 5 --drop-holders 1-2@open", 1, "key holders are left"),
        ("--bits 12 --protocol mphe --rounds 5 --drop-holders 2@share", 1, "by key holder 2"),
        ("--bits 12 --protocol oneshot --holders 4 --drop-holders 1-2@open", 1, "key holders are left"),
        ("--bits 12 --protocol oneshot --drop-holders 1@agree", 2, "there are open"),
        ("--bits 12 --protocol oneshot --bound 4096", 2, "at most 2^(bits - 1)"),
        ("--bits 12 --protocol mphe --rounds 5 --drop-clients 2@open", 2, "there are input"),
        ("--bits 12 --drop-holders 1@input", 2, "there are none"),
        ("--bits 12 --drop-clients 9@input", 2, "they are 1 to 6"),
        ("--bits 12 --drop-clients nobody", 2, "WHO@PHASE"),
        ("--bits 64", 2, "expected 1 to 63"),
        ("--bits 12 --protocol mphe --threshold 1", 2, "at least 2 are needed"),
        ("--bits 12 --protocol mphe --lambda 97", 3, "lambda"),
        ("--bits 12 --protocol masks --min-clients 7", 3, ""),
        ("--bits 12 --bound 10", 4, "row 1, value 1"),
        ("--bits 8", 4, "row 1, value 1"),
    ] {
        let output = run(folder.path(), &format!("--input rows.bin --raw i32 --dim 50 --output none.npy {args}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {text}");
        assert!(text.contains(says), "{args}: {text}");
        assert!(!folder.path().join("none.npy").exists(), "{args}");
    }
    for (input, code, says) in [
        ("missing.npy", 4, "missing.npy"),
        ("rows.bin", 2, "raw numbers with their type"),
        ("c0.npy rows.bin --raw i8 --dim 6", 4, "has rows of 6 values, c0.npy has rows of 50"),
        ("rows.bin --raw i8 --dim 7", 4, "whole rows"),
    ] {
        let output = run(folder.path(), &format!("--input {input} --output none.npy"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{input}: {text}");
        assert!(text.contains(says), "{input}: {text}");
    }
    let help = run(folder.path(), "--help");
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(text.matches("veilsum secagg run").count() >= 3 && text.contains("Exit codes"), "{text}");
}
