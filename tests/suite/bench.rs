//! `veilsum bench` as a user types it, at sizes that take no time.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use veilsum::bench::stages::STAGES;

use crate::kernels::{emulation_available, with_driver};

fn veilsum(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.arg("bench").args(args).env_remove("VEILSUM_ISA").stdin(Stdio::null()).output().unwrap()
}

/// Two cheap stages on one thread.
const TINY: [&str; 8] = ["sum/wrapping", "fwht", "--size", "1024", "--threads", "1", "--seconds", "0.001"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(args: &[&str]) -> String {
    let output = veilsum(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn fails(args: &[&str], code: i32) -> String {
    let output = veilsum(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    stderr
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Tags in the order in which they open are closed the other way round, and text holds no bare `<`.
fn well_formed(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("every tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !tag.starts_with(['?', '!']) {
            open.push(tag.split_whitespace().next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn json_rows_carry_the_promised_keys() {
    let lines = lines(&succeeds(&[&TINY[..], &["--json", "--backend", "scalar,simd", "--isa", "all"]].concat()));
    let header = &lines[0];
    assert_eq!(header["veilsum_bench"], 1);
    assert_eq!((&header["rows"], &header["threads"]), (&Value::from(lines.len() - 1), &Value::from(1)));
    assert!(!header["machine"]["cpu"].as_str().unwrap().is_empty() && header["machine"]["l1"].as_u64() > Some(0));
    assert!(header["limits"][0]["levels"][0]["update"].as_f64() > Some(0.0));
    assert!(lines.len() >= 5, "two stages on two backends or more");
    for row in &lines[1..] {
        for key in ["stage", "backend", "isa"] {
            assert!(row[key].is_string(), "{key}: {row}");
        }
        assert_eq!((&row["log2_dim"], &row["threads"]), (&Value::from(10), &Value::from(1)));
        assert!(row["rows"].is_u64(), "{row}");
        for key in ["ns_per_element", "median_ns_per_element", "gb_per_s", "elements_per_s", "fraction_of_limit"] {
            assert!(row[key].as_f64() > Some(0.0), "{key}: {row}");
        }
        assert!(row["median_ns_per_element"].as_f64() >= row["ns_per_element"].as_f64(), "{row}");
    }
    let isas = |backend: &str| lines[1..].iter().filter(|r| r["backend"] == backend).count();
    assert!(isas("scalar") == 2 && isas("simd") >= 2);
}

/// On whatever `veilsum devices` calls usable, a software adapter here: rows of a device are fractions of its copies.
#[test]
fn a_device_is_measured_against_its_own_copies() {
    let devices = Command::new(env!("CARGO_BIN_EXE_veilsum")).args(["devices", "--json", "--allow-software"]).output();
    let devices: Value = serde_json::from_slice(&devices.unwrap().stdout).unwrap();
    let usable = |d: &&Value| d["backend"] == "wgpu" && d["usable"] == true;
    if devices.as_array().unwrap().iter().find(usable).is_none() {
        assert!(std::env::var("CI").is_err(), "CI needs mesa-vulkan-drivers and libvulkan1: {devices}");
        eprintln!("SKIPPED on wgpu: {devices}");
        return;
    }
    let args = "fwht --size 4096 --backend wgpu,simd --allow-software --threads 1 --seconds 0.001 --json";
    let lines = lines(&succeeds(&args.split(' ').collect::<Vec<_>>()));
    let limits = lines[0]["limits"].as_array().unwrap();
    let level = &limits.iter().find(|l| l["isa"] == "wgpu").expect("limits of the device")["levels"][0];
    assert!(level["level"] == "copy" && level["copy"].as_f64() > Some(0.0), "{level}");
    let row = lines[1..].iter().find(|r| r["backend"] == "wgpu").expect("a row of the device");
    assert_eq!((&row["isa"], &row["limited_by"]), (&Value::from("wgpu"), &Value::from("copy")));
    let fraction = row["gb_per_s"].as_f64().unwrap() / level["update"].as_f64().unwrap();
    assert!((row["fraction_of_limit"].as_f64().unwrap() / fraction - 1.0).abs() < 1e-6, "{row}");
    // Its own clock, where it has one: less than the wall's time of the same runs, and told by name.
    if let Some(device) = row["device_ns_per_element"].as_f64() {
        assert!(device > 0.0 && device < 2.0 * row["median_ns_per_element"].as_f64().unwrap(), "{row}");
        assert_eq!(row["device_clock"], "timestamp queries");
    } else {
        assert!(row.get("device_clock").is_none(), "{row}");
    }
    let host = lines[1..].iter().find(|r| r["backend"] == "simd").expect("a row of the host");
    assert!(host.get("device_ns_per_element").is_none() && host.get("device_clock").is_none(), "{host}");
    let message = fails(&["keystream", "--backend", "wgpu", "--allow-software"], 2);
    assert!(message.contains("keystream") && message.contains("wgpu"), "{message}");
}

/// On the driver of the tests, whose clock goes 1010 ns on for a launch of one group.
#[test]
fn a_card_is_timed_by_its_events() {
    if !emulation_available() {
        return;
    }
    let args = "bench fwht --size 4096 --rows 1 --backend cuda --threads 1 --seconds 0.001 --json";
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    let output = with_driver(&mut command).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&String::from_utf8(output.stdout).unwrap());
    let row = lines[1..].iter().find(|r| r["backend"] == "cuda").expect("a row of the device");
    assert_eq!(row["device_clock"], "CUDA events");
    let nanoseconds = row["device_ns_per_element"].as_f64().unwrap() * 4096.0;
    assert!((nanoseconds - 1010.0).abs() < 1.0, "{row}");
}

#[test]
fn noise_rows_count_samples() {
    let args = ["noise", "--size", "100", "--threads", "1", "--seconds", "0.001", "--json"];
    let rows = lines(&succeeds(&args));
    assert!(rows[1..].iter().all(|r| r["samples_per_s"].as_f64() > Some(0.0) && r["variant"].is_string()));
}

#[test]
fn tables_are_for_people_and_markdown_for_readmes() {
    let table = succeeds(&TINY);
    assert!(
        table.contains("best ns") && table.contains("of limit") && table.contains("DRAM") && table.contains("2^10")
    );
    let markdown = succeeds(&[&TINY[..], &["--markdown"]].concat());
    assert!(markdown.contains("| stage") && markdown.contains("| fwht"), "{markdown}");
    let list = succeeds(&["--list"]);
    assert!(STAGES.iter().all(|s| list.contains(s.name)), "{list}");
    let list: Value = serde_json::from_str(&succeeds(&["--list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), STAGES.len());
}

#[test]
fn out_writes_a_folder_or_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let to = |path: &Path| succeeds(&[&TINY[..], &["--out", path.to_str().unwrap()]].concat());
    to(&out);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert!(lines(&read("bench.jsonl")).len() == 3);
    let svg = read("roofline.svg");
    assert!(svg.starts_with("<svg") && svg.contains("fwht 2^10") && svg.contains("DRAM"), "{svg}");
    well_formed(&svg);
    assert!(read("bench.html").contains("<table>"));
    let page = folder.path().join("page.html");
    to(&page);
    assert!(page.is_file());
    let taken = folder.path().join("taken.txt");
    std::fs::write(&taken, "mine").unwrap();
    let message = fails(&[&TINY[..], &["--out", taken.to_str().unwrap()]].concat(), 2);
    assert!(message.contains("taken.txt is a file") && std::fs::read_to_string(&taken).unwrap() == "mine", "{message}");
}

/// The result of `TINY` with every time multiplied.
fn scaled(result: &str, by: f64) -> String {
    let scale = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        if let Some(ns) = row["ns_per_element"].as_f64() {
            row["ns_per_element"] = (ns * by).into();
        }
        format!("{row}\n")
    };
    result.lines().map(scale).collect()
}

#[test]
fn results_are_compared_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let result = succeeds(&[&TINY[..], &["--json"]].concat());
    let (old, new) = (path("old.jsonl"), path("new.jsonl"));
    std::fs::write(&old, &result).unwrap();
    std::fs::write(&new, scaled(&result, 2.0)).unwrap();
    // Twice the time, seen from either side.
    let message = fails(&["--from", &new, "--against", &old], 1);
    assert!(message.contains("2.00 times as long") && message.contains("fwht 4 x 2^10"), "{message}");
    let faster = succeeds(&["--from", &old, "--against", &new]);
    assert!(faster.matches("2.00x faster").count() == 2, "{faster}");
    let rows = lines(&succeeds(&["--from", &new, "--against", &old, "--tolerance", "2.1", "--json"]));
    assert_eq!((&rows[1]["against"]["ratio"], &rows[1]["against"]["slower"]), (&0.5.into(), &false.into()));
    // A measurement against a file: nothing on earth is a million times slower than itself.
    let now = [&TINY[..2], &["--size", "1024,2048"], &TINY[4..], &["--against", &old, "--tolerance", "9e5"]].concat();
    let table = succeeds(&now);
    assert!(table.contains("not in the earlier result: fwht 2 x 2^11"), "{table}");
    let other = ["sum/wrapping", "--size", "2048", "--threads", "1", "--seconds", "0.001", "--against", &old];
    assert!(fails(&other, 2).contains("has no row for sum/wrapping 16 x 2^11"));
}

#[test]
fn files_that_are_no_results_are_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.jsonl").to_str().unwrap().to_owned();
    let result = succeeds(&[&TINY[..], &["--json"]].concat());
    for (content, word) in [
        ("", "old.jsonl:1: the file is empty"),
        ("{\"round\":1,\"loss\":2}\n", "old.jsonl:1: no header of a bench"),
        (&result[..result.len() - 30], "old.jsonl:3: no row of a bench"),
        (result.trim_end().rsplit_once('\n').unwrap().0, "old.jsonl:2: the file ends after 1 of 2 rows"),
    ] {
        std::fs::write(&path, content).unwrap();
        let message = fails(&["--against", &path], 2);
        assert!(message.contains(word), "{message}");
    }
    assert!(fails(&["--against", "absent.jsonl"], 2).contains("absent.jsonl"));
}

#[test]
fn wrong_requests_are_exit_2_with_the_right_value() {
    for (args, word) in [
        (&["fwth"][..], "did you mean \"fwht\""),
        (&["encode/skelam"], "did you mean \"skellam\""),
        (&["fwht", "--size", "1000"], "a power of two, 2^0 to 2^27, found 1000"),
        (&["fwht", "--size", "many"], "numbers of elements such as 65536"),
        (&["--backend", "opencl"], "this build has scalar, simd, wgpu, cuda"),
        (&["--isa", "sse9"], "the instruction sets are portable"),
        (&["--backend", "scalar", "--isa", "portable"], "is for the backend simd"),
        (&["--threads", "0"], "--threads is 0, expected 1 to"),
        (&["--threads", "100000"], "the processors that this process may use"),
        (&["--seconds=-1"], "--seconds is -1"),
        (&["--seconds", "nan"], "--seconds is NaN"),
        (&["--rows", "0"], "0"),
        (&["decode", "--rows", "2"], "decode takes a number of rows that is 1"),
        (&["--tolerance", "2"], "--against"),
        (&["--from", "a", "--size", "1024"], "--size"),
    ] {
        let output = veilsum(args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(word) && output.stdout.is_empty(), "{args:?}: {message}");
    }
}

const SECAGG: [&str; 9] = ["secagg", "--clients", "12", "--size", "1000,5000", "--dropout", "0,0.3", "--bits", "12"];

/// Every sum of the command is compared with that of the vectors, so that a row means that the protocol has worked.
#[test]
fn protocols_are_played_and_counted() {
    let rows = lines(&succeeds(&[&SECAGG[..], &["--json", "--threads", "1"]].concat()));
    assert_eq!(rows.len(), 4 * 2 * 2);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
        let (name, dim) = (row["protocol"].as_str().unwrap(), number("dim"));
        assert_eq!(number("clients"), 12.0);
        let delivering = match (name, number("dropout") > 0.0) {
            (_, true) => 9.0,
            ("masks", false) => 12.0,
            (_, false) => 9.0,
        };
        assert_eq!(number("delivering"), delivering, "{row}");
        for key in ["client_ns", "add_ns"] {
            let (best, median) = (row[key]["best"].as_f64().unwrap(), row[key]["median"].as_f64().unwrap());
            assert!(0.0 < best && best <= median, "{key}: {row}");
        }
        // What is sent: the vector, and around it what the protocol needs.
        let vector = 12.0 / 8.0 * dim;
        let sent = number("client_sent");
        match name {
            "plain" => assert!(sent > vector && sent < vector + 200.0, "{row}"),
            "masks" => assert!(sent > vector && sent < vector + 20_000.0, "{row}"),
            _ => assert!(sent > 2.0 * vector && number("holder_ns") > 0.0 && number("holder_sent") > 0.0, "{row}"),
        }
        assert_eq!(name == "mphe", number("keys_ns") > 0.0);
        assert_eq!(["mphe", "oneshot"].contains(&name), number("holder_received_per_client") > 0.0);
    }
}

#[test]
fn protocols_as_a_table_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let only = ["--protocol", "plain,oneshot", "--out", out.to_str().unwrap(), "--markdown"];
    let table = succeeds(&[&SECAGG[..], &only].concat());
    assert!(table.contains("| plain ") && table.contains("| oneshot ") && !table.contains("| masks "), "{table}");
    let svg = std::fs::read_to_string(out.join("secagg.svg")).unwrap();
    well_formed(&svg);
    assert!(svg.contains("oneshot, 30 % lost"));
    assert_eq!(lines(&std::fs::read_to_string(out.join("secagg.jsonl")).unwrap()).len(), 2 * 2 * 2);
}

#[test]
fn protocols_that_cannot_be_played_are_bad_usage() {
    for (more, expected) in [
        (&["--clients", "1"][..], "--clients is 1, expected 2 to 2^20"),
        (&["--dropout", "1"], "--dropout is 1, expected in [0, 1)"),
        (&["--dropout", "0.99"], "so that two clients deliver"),
        (&["--bits", "33"], "--bits is 33, expected 1 to 32"),
        (&["--size", "0"], "--size is \"0\""),
        (&["--backend", "opencl"], "--backend is opencl, expected scalar, simd, wgpu, cuda"),
        (&["--protocol", "oneshot", "--threshold", "8"], "needed holders is 8"),
        (&["--protocol", "rot13"], "rot13"),
    ] {
        let args = [&["secagg"][..], more].concat();
        let error = fails(&args, 2);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}
