//! `veilsum account --schedule`: rounds whose noise or cohort changes.

use serde_json::Value;

use super::{account, account_json, close, f};

fn stages(v: &Value) -> Vec<(f64, f64)> {
    let of = |stage: &Value| (f(&stage["epsilon"]), f(&stage["epsilon_so_far"]));
    v["stages"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_schedule_of_one_noise_is_the_plain_run() {
    for (line, noise) in [
        ("--mechanism gaussian --population 60000", "--noise-multiplier 1.1"),
        ("--mechanism central-gaussian", "--noise-multiplier 3"),
        ("--gamma 64 --dim 1000 --population 60000", "--mu 5.95"),
        ("--mechanism skellam --sensitivity 2", "--mu 4"),
        ("--mechanism laplace --population 60000 --sampling fixed-size", "--noise-multiplier 3"),
        ("--mechanism randomized-response", "--release-epsilon 0.1"),
    ] {
        let line = format!("{line} {noise} --cohort 240 --delta 1e-5 --accountant rdp");
        let plain = account_json(&format!("{line} --rounds 50"));
        let staged = account_json(&format!("{line} --schedule 20x1,30x1@240"));
        close(f(&staged["epsilon"]), f(&plain["epsilon"]), 1e-12);
        for key in ["rounds", "view", "neighboring", "epsilon_server_view", "mu", "noise_multiplier", "delta"] {
            assert_eq!(plain[key], staged[key], "{line}: {key}");
        }
        assert_eq!(staged["stages"].as_array().unwrap().len(), 1, "stages that are alike are one");
    }
}

#[test]
fn stages_add_up_to_the_whole_and_no_further() {
    let line = "--mechanism gaussian --noise-multiplier 1 --cohort 250 --population 60000 --delta 1e-5";
    let v = account_json(&format!("{line} --schedule 300x1,200x0.7,100x1@500"));
    let costs = stages(&v);
    assert_eq!((costs.len(), &v["rounds"]), (3, &600.into()));
    assert!(costs.windows(2).all(|w| w[0].1 < w[1].1), "{costs:?}");
    assert_eq!(costs[2].1, f(&v["epsilon"]));
    close(costs[0].0, costs[0].1, 1e-9);
    let sum: f64 = costs.iter().map(|c| c.0).sum();
    assert!(costs.iter().all(|c| c.0 <= c.1 * (1.0 + 1e-9)) && f(&v["epsilon"]) < sum, "{costs:?}");
    assert!(f(&v["epsilon_low"]) <= f(&v["epsilon"]) && f(&v["epsilon_server_view"]) > 10.0 * f(&v["epsilon"]));
    // The rates are those of the stages' cohorts.
    close(f(&v["stages"][2]["sampling_rate"]), 500.0 / 60000.0, 1e-15);
    // More noise or fewer clients in any stage cost less.
    let of = |schedule: &str| f(&account_json(&format!("{line} --schedule {schedule}"))["epsilon"]);
    for less in ["300x1.1,200x0.7,100x1@500", "300x1,200x0.8,100x1@500", "300x1,200x0.7,100x1@400"] {
        assert!(of(less) < f(&v["epsilon"]), "{less}");
    }
}

#[test]
fn a_schedule_is_what_the_config_says_and_a_closed_form_where_there_is_one() {
    // Without sampling Gaussians compose to one: 3 + 2 / 0.5^2 = 11.
    let line = "--mechanism gaussian --cohort 10 --delta 1e-6";
    let staged = account_json(&format!("{line} --noise-multiplier 4 --schedule 3x1,2x0.5"));
    let one = account_json(&format!("{line} --noise-multiplier {}", 4.0 / 11f64.sqrt()));
    close(f(&staged["epsilon"]), f(&one["epsilon"]), 1e-9);
    // A weight of 4 is half the noise.
    let json = r#"{"law":"weighted","stages":[{"rounds":3,"weight":1},{"rounds":2,"weight":4}]}"#;
    for schedule in ["weighted:3x1,2x4", json] {
        let v = account_json(&format!("{line} --noise-multiplier 4 --schedule {schedule}"));
        close(f(&v["epsilon"]), f(&staged["epsilon"]), 1e-12);
    }
    let decay = account_json(&format!("{line} --noise-multiplier 4 --rounds 6 --schedule exponential:0.25:3"));
    close(f(&decay["stages"][1]["noise"]), 0.5, 1e-15);
    assert_eq!((&decay["stages"][2]["rounds"], &decay["rounds"]), (&2.into(), &6.into()));
    // Shares of the clients: half the clients, half the variance.
    let shares = account_json("--gamma 64 --mu 6 --cohort 200 --delta 1e-5 --accountant rdp --schedule 1x1,1x1@100");
    close(f(&shares["stages"][0]["mu_total"]), 2.0 * f(&shares["stages"][1]["mu_total"]), 1e-12);
}

#[test]
fn the_base_noise_is_found() {
    for (line, found) in [
        ("--mechanism central-gaussian --population 6000", "noise_multiplier"),
        ("--gamma 64 --population 6000", "mu"),
        ("--mechanism skellam --gamma 64 --dim 1000", "mu"),
        ("--mechanism distributed-discrete-gaussian --gamma 64 --dim 1000", "sigma_total"),
        ("--mechanism binomial --gamma 64 --dim 1000 --accountant pld", "coins"),
        ("--mechanism discrete-laplace --sensitivity 2", "noise_multiplier"),
        ("--mechanism smm-2022 --gamma 64", "mu"),
    ] {
        let target = if line.contains("smm-2022") { 30.0 } else { 2.0 };
        let line = format!("{line} --cohort 100 --delta 1e-5 --schedule 20x1,10x0.8@150");
        let accountant = if line.contains("--accountant") { "" } else { " --accountant rdp" };
        let v = account_json(&format!("{line}{accountant} --target-epsilon {target}"));
        let epsilon = f(&v["epsilon"]);
        assert!(epsilon <= target && epsilon > 0.999 * target && f(&v[found]) > 0.0, "{line}: {v}");
        let flag = found.replace('_', "-");
        let again = account_json(&format!("{line}{accountant} --{flag} {}", v[found]));
        close(f(&again["epsilon"]), epsilon, 1e-9);
    }
}

#[test]
fn schedules_are_drawn_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("epsilon.svg");
    let line =
        "--mechanism gaussian --noise-multiplier 2 --cohort 10 --population 1000 --delta 1e-5 --schedule 6x1,4x0.5";
    let (code, out, err) = account(&format!("{line} --accountant rdp --plot {} --json", picture.display()));
    assert_eq!(code, 0, "{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, points) = lines.split_last().unwrap();
    assert_eq!(points.len(), 10);
    close(f(&points[5]["epsilon"]), f(&last["stages"][0]["epsilon_so_far"]), 1e-12);
    close(f(&points[9]["epsilon"]), f(&last["epsilon"]), 1e-12);
    let (code, out, _) = account(line);
    assert!(code == 0 && out.contains("epsilon alone") && out.contains("epsilon so far"), "{out}");
}

#[test]
fn bad_schedules_are_refused() {
    for (line, code, says) in [
        ("--mechanism gaussian --noise-multiplier 1 --schedule 5x1 --rounds 6", 2, "--rounds"),
        ("--mechanism gaussian --noise-multiplier 1 --schedule 5", 2, "ROUNDSxNOISE"),
        ("--mechanism gaussian --noise-multiplier 1 --schedule 5x1@0", 2, "--cohort"),
        ("--mechanism gaussian --noise-multiplier 1 --schedule 5x1,5x1@2000 --population 1000", 2, "--population"),
        ("--mechanism gaussian --schedule 5x1", 2, "--noise-multiplier"),
        ("--mechanism randomized-response --release-epsilon 1 --schedule 5x1,5x2", 2, "no noise that a stage"),
        ("--mechanism zcdp --schedule 5x1 --target-epsilon 3", 2, "no noise of zcdp"),
        ("--mechanism matrix --noise-multiplier 3 --schedule 5x1,5x2", 2, "--schedule"),
        ("--mechanism gaussian --target-epsilon 0 --schedule 5x1", 2, "target epsilon"),
        ("--mechanism smm-2022 --gamma 64 --target-epsilon 1e-3 --schedule 5x1,5x2", 3, "least reachable"),
    ] {
        let (found, _, err) = account(&format!("{line} --cohort 10 --delta 1e-5"));
        assert!(found == code && err.contains(says), "{line}: {found} {err}");
    }
}

#[test]
fn random_allocations_are_accounted_in_both_views() {
    let line = "--cohort 100 --sampling random-allocation --participations 5 --rounds 500 --delta 1e-6";
    for (mechanism, found) in [
        ("--mechanism gaussian", "noise_multiplier"),
        ("--mechanism central-gaussian", "noise_multiplier"),
        ("--gamma 64", "mu"),
        ("--mechanism laplace", "noise_multiplier"),
    ] {
        let v = account_json(&format!("{mechanism} {line} --target-epsilon 2"));
        assert!(f(&v["epsilon"]) <= 2.0 && f(&v["epsilon"]) > 1.999, "{v}");
        assert!(f(&v["epsilon_server_view"]) > 2.0, "{v}");
        assert_eq!((&v["view"], &v["sampling"]), (&"public".into(), &"random-allocation".into()));
        assert_eq!((&v["rounds"], &v["participations"]), (&500.into(), &5.into()));
        let flag = found.replace('_', "-");
        let again = account_json(&format!("{mechanism} {line} --{flag} {}", v[found]));
        close(f(&again["epsilon"]), f(&v["epsilon"]), 1e-9);
        // Those who know the rounds see five releases.
        let five = account_json(&format!("{mechanism} --cohort 100 --rounds 5 --delta 1e-6 --{flag} {}", v[found]));
        close(f(&v["epsilon_server_view"]), f(&five["epsilon"]), 1e-9);
    }
    for (more, code, says) in [
        ("--mechanism gaussian --noise-multiplier 1 --population 1000", 2, "--population"),
        ("--mechanism gaussian --noise-multiplier 1 --accountant pld", 2, "RandomAllocation"),
        ("--mechanism smm-2022 --gamma 64 --mu 3", 2, "RandomAllocation"),
        ("--mechanism matrix --noise-multiplier 3", 2, "random-allocation"),
    ] {
        let (found, _, err) = account(&format!("{more} {line}"));
        assert!(found == code && err.contains(says), "{more}: {found} {err}");
    }
    let (code, _, err) = account(
        "--mechanism gaussian --noise-multiplier 1 --cohort 9 --sampling random-allocation --delta 1e-6 --rounds 9",
    );
    assert!(code == 2 && err.contains("--participations"), "{err}");
}

#[test]
fn biased_coins_are_accounted_and_their_bias_is_found() {
    let line = "--mechanism poisson-binomial --dim 10000 --cohort 1000 --delta 1e-6";
    let mut last = f64::INFINITY;
    for coins in [2, 16, 64] {
        let v = account_json(&format!("{line} --coins {coins} --rounds 3 --target-epsilon 2 --bits 14"));
        assert!(f(&v["epsilon"]) <= 2.0 && f(&v["epsilon"]) > 1.999 && f(&v["most_bias"]) <= 0.25, "{v}");
        assert_eq!((&v["neighboring"], &v["view"]), (&"zero-out".into(), &"server".into()));
        // More coins of less bias need less noise; never less than a Gaussian.
        let variance = f(&v["variance_over_clip"]);
        let gaussian =
            account_json("--mechanism central-gaussian --cohort 1000 --delta 1e-6 --rounds 3 --target-epsilon 2");
        assert!(variance < last && variance > f(&gaussian["noise_multiplier"]).powi(2), "{coins}: {variance}");
        let again = account_json(&format!("{line} --coins {coins} --rounds 3 --gamma {}", v["gamma"]));
        close(f(&again["epsilon"]), f(&v["epsilon"]), 1e-6);
        assert!(f(&v["predicted_wrap"]) < 1e-3, "{v}");
        last = variance;
    }
    for (more, code, says) in [
        ("--coins 4", 2, "--gamma or --target-epsilon"),
        ("--gamma 0.1", 2, "--coins and --dim"),
        ("--coins 3 --gamma 0.1", 2, "even number"),
        ("--coins 4 --gamma 40", 2, "more than 1/4"),
        ("--coins 4 --gamma 0.1 --target-epsilon 1", 2, "give one of the two"),
        ("--coins 4 --gamma 0.1 --population 5000", 2, "PoissonBinomialVector"),
        ("--coins 4 --gamma 0.1 --accountant pld", 2, "PoissonBinomialVector"),
        ("--coins 4 --gamma 0.1 --mu 3", 2, "--mu"),
        ("--coins 4 --gamma 0.1 --neighboring replace-one", 2, "replace-one"),
    ] {
        let (found, _, err) = account(&format!("{line} {more}"));
        assert!(found == code && err.contains(says), "{more}: {found} {err}");
    }
}

/// The noise of a group counts, of those in it who keep their shares to themselves; a server's own noise for the public.
#[test]
fn groups_count_their_own_noise_and_a_second_level_has_two_views() {
    let line = "--gamma 64 --mu 6 --delta 1e-5 --dim 1000 --rounds 3";
    let of = |more: &str| account_json(&format!("{line} {more}"));
    // 103 clients in 5 groups: 20 in the smallest.
    let (groups, alone) = (of("--cohort 103 --groups 5"), of("--cohort 20"));
    close(f(&groups["epsilon"]), f(&alone["epsilon"]), 1e-12);
    assert_eq!((&groups["groups"], &groups["cohort"]), (&5.into(), &20.into()));
    close(f(&of("--cohort 103 --groups 5 --colluding 4")["epsilon"]), f(&of("--cohort 16")["epsilon"]), 1e-12);
    close(f(&of("--cohort 20 --colluding 4")["epsilon"]), f(&of("--cohort 16")["epsilon"]), 1e-12);
    assert!(f(&groups["epsilon"]) > f(&of("--cohort 103")["epsilon"]));
    // Two levels: as if so many more clients had been there, to the public; to the server nothing changes.
    let two = of("--cohort 20 --server-mu 480");
    close(f(&two["epsilon"]), f(&of("--cohort 100")["epsilon"]), 1e-9);
    close(f(&two["epsilon_server_view"]), f(&alone["epsilon"]), 1e-12);
    assert_eq!((&two["view"], f(&two["server_mu"])), (&"public".into(), 480.0));
    let drawn = of("--cohort 20 --server-mu 480 --population 2000");
    assert!(f(&drawn["epsilon"]) < f(&two["epsilon"]));
    close(f(&drawn["epsilon_server_view"]), f(&alone["epsilon"]), 1e-12);
    let (code, out, _) = account(&format!("{line} --cohort 20 --server-mu 480"));
    assert!(code == 0 && out.contains("what the server publishes"), "{out}");
    for (more, says) in [
        ("--cohort 10 --groups 11", "nobody's noise"),
        ("--cohort 10 --groups 0", "--groups"),
        ("--cohort 10 --colluding 10", "nobody's noise"),
        ("--cohort 10 --groups 2 --population 100", "--population"),
        ("--cohort 10 --server-mu 0", "--server-mu"),
        ("--cohort 10 --server-mu -1", "--server-mu"),
        ("--cohort 10 --server-mu 3 --schedule 2x1,1x2", "--schedule"),
    ] {
        let (code, _, err) = account(&format!("{line} {more}"));
        assert!(code == 2 && err.contains(says), "{more}: {err}");
    }
    let (code, _, err) =
        account("--mechanism central-gaussian --noise-multiplier 1 --groups 3 --cohort 9 --delta 1e-5");
    assert!(code == 2 && err.contains("--groups"), "{err}");
}
