//! `account --target-epsilon` and `--plot` for every mechanism, and `account plan`, as a user runs them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{account, account_json, close, f};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_mechanism_is_calibrated_to_a_target() {
    let rounds = "--cohort 10 --rounds 20 --delta 1e-6";
    for (line, found) in [
        ("--mechanism skellam --sensitivity 3", "mu"),
        ("--mechanism gaussian", "noise_multiplier"),
        ("--mechanism discrete-gaussian", "noise_multiplier"),
        ("--mechanism laplace", "noise_multiplier"),
        ("--mechanism discrete-laplace", "noise_multiplier"),
        ("--mechanism randomized-response --categories 4", "release_epsilon"),
        ("--mechanism pure-dp", "release_epsilon"),
        ("--mechanism zcdp", "rho"),
        ("--mechanism skellam --population 200 --sampling fixed-size", "mu"),
        ("--mechanism gaussian --population 200 --sampling fixed-size", "noise_multiplier"),
        ("--mechanism randomized-response --population 200 --sampling fixed-size", "release_epsilon"),
        ("--mechanism laplace --population 200", "noise_multiplier"),
        ("--mechanism central-gaussian --population 200 --sampling fixed-size", "noise_multiplier"),
    ] {
        let v = account_json(&format!("{line} {rounds} --target-epsilon 2"));
        let epsilon = f(&v["epsilon"]);
        assert!(epsilon <= 2.0 && epsilon > 2.0 * (1.0 - 2e-4), "{line}: {v}");
        assert!(f(&v[found]) > 0.0, "{line}: {v}");
        assert!(v["epsilon_low"].is_null() || f(&v["epsilon_low"]) <= epsilon, "{line}: {v}");
        // The parameter that is printed costs what is printed.
        let given = match found {
            "mu" => format!("--mu {}", v["mu"]),
            "noise_multiplier" => format!("--noise-multiplier {}", v["noise_multiplier"]),
            "release_epsilon" => format!("--release-epsilon {}", v["release_epsilon"]),
            _ => format!("--rho {}", v["rho"]),
        };
        close(f(&account_json(&format!("{line} {rounds} {given}"))["epsilon"]), epsilon, 1e-6);
    }
    // Coins are whole: one fewer would cost more than is allowed.
    let line = "--mechanism centered-binomial --cohort 10 --rounds 2 --delta 1e-6";
    let v = account_json(&format!("{line} --target-epsilon 1"));
    let trials = v["trials"].as_u64().unwrap();
    assert!(f(&v["epsilon"]) <= 1.0 && f(&v["epsilon"]) > 0.97, "{v}");
    let fewer = account_json(&format!("{line} --trials {}", trials - trials / 20));
    assert!(f(&fewer["epsilon"]) > 1.0, "{fewer}");
    // What cannot be had says what can.
    for (line, code, says) in [
        ("--mechanism zcdp --xi 3 --target-epsilon 1", 3, "the least reachable is"),
        ("--mechanism centered-binomial --target-epsilon 1e-4", 3, "the least reachable is"),
        ("--mechanism centered-binomial --trials 9 --target-epsilon 1", 2, "--trials: give one of the two"),
        ("--mechanism pure-dp --release-epsilon 1 --target-epsilon 1", 2, "give one of the two"),
        ("--mechanism pure-dp --target-epsilon 0", 2, "target epsilon"),
    ] {
        let (found, _, err) = account(&format!("{line} --cohort 10 --delta 1e-6"));
        assert!(found == code && err.contains(says), "{line}: {found} {err}");
    }
}

#[test]
fn curves_over_rounds_are_drawn_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("epsilon.svg");
    let line = "--mechanism gaussian --noise-multiplier 1.1 --cohort 250 --population 60000 --rounds 90 --delta 1e-5";
    let (code, out, err) = account(&format!("{line} --plot {} --json", picture.display()));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, points) = lines.split_last().unwrap();
    assert_eq!((&last["mechanism"], &last["rounds"]), (&"gaussian".into(), &90.into()));
    for accountant in ["rdp", "pld"] {
        let curve: Vec<&Value> = points.iter().filter(|p| p["accountant"] == accountant).collect();
        assert_eq!((curve[0]["rounds"].as_u64(), curve[24]["rounds"].as_u64()), (Some(1), Some(90)));
        let epsilons: Vec<f64> = curve.iter().map(|p| f(&p["epsilon"])).collect();
        assert!(epsilons.windows(2).all(|w| w[0] <= w[1] * (1.0 + 1e-4)), "{accountant}: {epsilons:?}");
        for p in &curve {
            let low = &p["epsilon_low"];
            assert_eq!(low.is_null(), accountant == "rdp");
            assert!(low.is_null() || f(low) <= f(&p["epsilon"]), "{p}");
        }
    }
    let best = points.iter().filter(|p| p["rounds"] == 90).map(|p| f(&p["epsilon"])).fold(f64::INFINITY, f64::min);
    close(best, f(&last["epsilon"]), 1e-12);
    let svg = text(&picture);
    for words in ["<svg", "rdp, upper bound", "pld, upper bound", "pld, between its bounds", "gaussian: epsilon"] {
        assert!(svg.contains(words), "{words}");
    }
    // Without --json a table, without lines of points; one accountant that was asked for, one curve.
    let (code, out, _) = account(&format!("{line} --accountant rdp --plot {}", picture.display()));
    assert!(code == 0 && !out.contains('{') && !text(&picture).contains("pld"));
    let (code, _, err) = account(&format!("{line} --plot {}", dir.path().join("no/such/folder.svg").display()));
    assert!(code == 1 && err.contains("folder.svg"), "{err}");
}

fn plan(line: &str) -> (i32, String, String) {
    account(&format!("plan {line}"))
}

#[test]
fn a_planned_run_trains_as_it_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("small.json");
    let line = format!(
        "--data digits --model digits_mlp --cohort 150 --population 1000 --rounds 2 --epsilon 6 --delta 1e-5 --accountant rdp --out {}",
        config.display()
    );
    let (code, out, err) = plan(&format!("{line} --json"));
    assert_eq!(code, 0, "{err}");
    let planned: Value = serde_json::from_str(&out).unwrap();
    assert!(f(&planned["epsilon"]) <= 6.0 && f(&planned["epsilon"]) > 5.99, "{planned}");
    assert!(f(&planned["predicted_wrap"]) <= 1e-3 && planned["dim"] == 2410, "{planned}");
    let alternatives = planned["alternatives"].as_array().unwrap();
    assert_eq!(alternatives.len(), 11, "6 to 16 bits");
    let errors: Vec<f64> = alternatives.iter().filter_map(|a| a["error"]["total"].as_f64()).collect();
    assert!(errors.windows(2).all(|w| w[1] <= w[0] * 1.001), "a wider ring is never worse: {errors:?}");
    assert!(f(&planned["error"]["total"]) <= 1.02 * errors[errors.len() - 1]);
    for a in alternatives.iter().filter(|a| a["refused"].is_null()) {
        let e = &a["error"];
        let sum = f(&e["noise"]).hypot(f(&e["rounding"])).hypot(f(&e["wrap"]));
        close(f(&e["total"]), sum, 1e-9);
        // The noise of the mean: sqrt(2 mu_tot) / (gamma n).
        close(f(&e["noise"]), (2.0 * f(&a["mu_total"])).sqrt() / f(&a["gamma"]) / 150.0, 1e-9);
    }
    // The file is a config as any other; it is not replaced unasked.
    let (code, _, err) = plan(&line);
    assert!(code == 2 && err.contains("--force"), "{err}");
    let before = text(&config);
    assert_eq!(plan(&format!("{line} --force --json")).0, 0);
    assert_eq!(text(&config), before);
    let run = dir.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_veilsum"))
        .args(["train", config.to_str().unwrap(), "--json", "--out", run.to_str().unwrap(), "--set", "rounds=1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let resolved: Value = serde_json::from_str(&text(&run.join("config.json"))).unwrap();
    assert_eq!(resolved["privacy"]["gamma"], planned["gamma"]);
    assert_eq!(resolved["privacy"]["mu"], planned["mu"]);
    assert_eq!((&result["population"], &result["name"]), (&1000.into(), &"small".into()));
    close(f(&result["noise_std"]), f(&planned["error"]["noise"]) * 150.0, 1e-9);
    assert!(f(&result["epsilon"]) < f(&planned["epsilon"]), "one round of two");
}

#[test]
fn plans_that_cannot_be_are_refused_and_others_are_tables() {
    let line =
        "--dim 63610 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 --accountant rdp --wrap-limit 1e-3";
    let (code, out, err) = plan(&format!("{line} --epsilon 3 --bits 8"));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("gamma") && out.contains("chosen   8 bits") && out.contains("at delta 1e-5"), "{out}");
    let (code, out, err) = plan(&format!("{line} --epsilon 3 --mechanism central-gaussian --json"));
    let v: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
    assert!(code == 0 && v["gamma"].is_null() && f(&v["noise_multiplier"]) > 0.1 && v["predicted_wrap"].is_null());
    for (more, code, says) in [
        ("--epsilon 1e-9 --bits 6", 3, ""),
        ("--epsilon 3 --bits 2 --cohort 1000000 --population 1000000", 3, "bits would do"),
        ("--epsilon 0", 2, "target epsilon"),
        ("--epsilon NaN", 2, "target epsilon"),
        ("--epsilon 3 --bits 1", 2, "bits"),
        ("--epsilon 3 --clip 0", 2, "clip"),
        ("--epsilon 3 --wrap-limit 2", 2, "wrap_limit"),
        ("--epsilon 3 --rounds 0", 2, "rounds"),
        ("--epsilon 3 --population 100", 2, "cohort"),
        ("--epsilon 3 --delta 0", 2, "delta"),
        ("--epsilon 3 --dim 0", 2, "dim"),
        ("--epsilon 3 --mechanism central-gaussian --bits 8", 2, "does not take --bits"),
        ("--epsilon 3 --out x.json", 2, "--out"),
    ] {
        // The last of two is the one that counts: take the first one out.
        let flags: Vec<&str> = more.split_whitespace().filter(|w| w.starts_with("--")).collect();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        for flag in flags {
            if let Some(at) = words.iter().position(|w| *w == flag) {
                words.drain(at..at + 2);
            }
        }
        let (found, _, err) = plan(&format!("{} {more}", words.join(" ")));
        assert!(found == code && err.contains(says), "{more}: {found} {err}");
    }
    let (code, _, err) = account("plan --cohort 10");
    assert!(code == 2 && err.contains("--population"), "{err}");
    let (code, _, err) = account("");
    assert!(code == 2 && err.contains("--cohort"), "{err}");
}

/// The mechanisms on rounded rows are planned as `smm` is, and what is written trains.
#[test]
fn rounded_mechanisms_are_planned() {
    let dir = tempfile::tempdir().unwrap();
    for (mechanism, parameter, population) in [
        ("skellam", "mu", 1000),
        ("distributed-discrete-gaussian", "sigma_total", 1000),
        ("binomial", "coins", 1000),
        ("binomial", "coins", 150),
    ] {
        let config = dir.path().join(format!("{mechanism}-{population}.json"));
        let line = format!(
            "--data digits --model digits_mlp --cohort 150 --population {population} --rounds 2 --epsilon 6 --delta 1e-5 \
             --mechanism {mechanism} --bits 14 --out {}",
            config.display()
        );
        let (code, out, err) = plan(&format!("{line} --json"));
        assert_eq!(code, 0, "{mechanism}: {err}");
        let v: Value = serde_json::from_str(&out).unwrap();
        assert!(f(&v["epsilon"]) <= 6.0 && f(&v["epsilon"]) > 5.95 && f(&v["predicted_wrap"]) <= 1e-3, "{v}");
        assert!(f(&v[parameter]) > 0.0 && f(&v["beta"]) == 1e-4 && f(&v["gamma"]) > 1.0, "{v}");
        let written: Value = serde_json::from_str(&text(&config)).unwrap();
        assert_eq!(written["privacy"]["mechanism"], mechanism);
        assert_eq!(written["privacy"][parameter], v[parameter]);
        let placed = &written["privacy"]["noise"];
        assert!(mechanism != "distributed-discrete-gaussian" || placed == "per_client", "{written}");
        assert!(mechanism != "binomial" || population == 150 || placed == "aggregate", "{written}");
        let (code, out, _) = plan(&format!("{line} --force"));
        assert!(code == 0 && out.contains(parameter) && out.contains("chosen   14 bits"), "{out}");
    }
    let line = "--dim 1000 --cohort 150 --population 1000 --rounds 2 --epsilon 6 --delta 1e-5";
    let (code, _, err) = plan(&format!("{line} --beta 0.1"));
    assert!(code == 2 && err.contains("--beta"), "{err}");
    let (code, _, err) = plan(&format!("{line} --mechanism skellam --beta 2"));
    assert!(code == 2 && err.contains("beta"), "{err}");
}

#[test]
fn the_noise_of_the_base_does_not_come_along() {
    let dir = tempfile::tempdir().unwrap();
    let (base, config) = (dir.path().join("base.json"), dir.path().join("planned.json"));
    let privacy = serde_json::json!({
        "mechanism": "distributed-discrete-gaussian", "noise": "per_client", "clip": 0.5, "bits": 12, "gamma": 7.0,
        "sigma_total": 90.0, "beta": 0.001, "delta": 1e-3, "adaptive_clip": {}, "cipher": "chacha8"
    });
    let run = serde_json::json!({
        "name": "base", "data": { "name": "digits" }, "model": "digits_mlp", "algorithm": { "name": "fed_sgd" }, "server": { "optimizer": "sgd", "learning_rate": 1.0 }, "partition": { "scheme": "iid", "clients": 100 },
        "cohort": 100, "sampling": "all", "rounds": 3, "privacy": privacy
    });
    std::fs::write(&base, run.to_string()).unwrap();
    let (code, _, err) = plan(&format!(
        "--base {} --cohort 150 --population 1000 --rounds 2 --epsilon 6 --delta 1e-5 --accountant rdp --bits 10 --out {}",
        base.display(),
        config.display()
    ));
    assert_eq!(code, 0, "{err}");
    let planned: Value = serde_json::from_str(&text(&config)).unwrap();
    let privacy = planned["privacy"].as_object().unwrap();
    for key in ["adaptive_clip", "sigma_total", "coins", "beta", "matrix", "noise_multiplier", "l_inf", "schedule"] {
        assert!(privacy.get(key).is_none(), "{key}: {planned}");
    }
    assert!(privacy["mechanism"] == "smm" && privacy["bits"] == 10 && privacy["clip"] == 0.5, "{planned}");
    assert!(privacy["noise"] == "per_client" && privacy["cipher"] == "chacha8", "{planned}");
}

#[test]
fn matrix_takes_no_argument_of_other_mechanisms() {
    let line = "--mechanism matrix --noise-multiplier 4 --cohort 10 --population 100 --rounds 20 --delta 1e-6";
    assert_eq!(account(line).0, 0);
    for flag in [
        "--gamma 4",
        "--bits 8 --dim 10",
        "--mu 3",
        "--sigma-total 3",
        "--coins 8",
        "--beta 0.1",
        "--sensitivity 2",
        "--trials 9",
        "--release-epsilon 1",
        "--categories 3",
        "--rho 1",
        "--xi 1",
        "--neighboring add-remove",
        "--sampling fixed-size",
        "--plot curve.svg",
    ] {
        let foreign = flag.split(' ').next().unwrap();
        let line = if foreign == "--mu" { line.replace("--noise-multiplier 4", "") } else { line.to_owned() };
        let (code, _, err) = account(&format!("{line} {flag}"));
        assert!(code == 2 && err.contains(foreign) && err.contains("does not take"), "{flag}: {code} {err}");
    }
}
