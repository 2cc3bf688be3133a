//! `veilsum sample`: laws, statistics, refusals.

/// A correct sampler fails one test in 10^5 with a random key; the keys are fixed.
const LEAST_P: f64 = 1e-5;

fn veilsum(args: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_veilsum")).args(args).output().unwrap()
}

#[test]
fn the_command_prints_draws_and_statistics() {
    for args in [
        &["--law", "skellam", "--mu", "5.95", "--sampler", "table"][..],
        &["--law", "discrete-gaussian", "--sigma", "12.5", "--sampler", "table"],
        &["--law", "centred-binomial", "--k", "24", "--sampler", "table"],
        &["--law", "centred-binomial", "--k", "21"],
        &["--law", "poisson", "--rate", "4/3"],
        &["--law", "discrete-laplace", "--rate", "2.5"],
        &["--law", "discrete-gaussian", "--sigma", "12.5"],
    ] {
        let common = ["--count", "5000", "--seed", "1", "--draws", "--json"];
        let all = [&["sample"][..], args, &common].concat();
        let output = veilsum(&all);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["draws"].as_array().unwrap().len(), 5000);
        assert!(object["p_value"].as_f64().unwrap() > LEAST_P, "{object}");
        assert!(object["samples_per_second"].as_f64().unwrap() > 0.0);
        assert!(object["kl"].as_f64().unwrap() < 2.0 * object["kl_expected"].as_f64().unwrap() + 1e-3);
        let again: serde_json::Value = serde_json::from_slice(&veilsum(&all).stdout).unwrap();
        assert_eq!(object["draws"], again["draws"], "a seed repeats");
    }
    let human = veilsum(&["sample", "--law", "skellam", "--mu", "1", "--count", "100"]);
    let text = String::from_utf8(human.stdout).unwrap();
    assert!(["mean", "variance", "KL", "chi-square", "p value"].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn the_command_refuses_bad_input_with_exit_code_2() {
    for (args, word) in [
        (&["--law", "skellam"][..], "--mu"),
        (&["--law", "skellam", "--mu", "-1"], "negative"),
        (&["--law", "skellam", "--mu", "1e9"], "--mu"),
        (&["--law", "poisson", "--rate", "9000000000"], "mean"),
        (&["--law", "skellam", "--mu", "99999999", "--sampler", "table"], "mu"),
        (&["--law", "poisson", "--rate", "4/0"], "denominator"),
        (&["--law", "poisson", "--mu", "4"], "--rate"),
        (&["--law", "poisson", "--rate", "4", "--sampler", "table"], "skellam"),
        (&["--law", "discrete-gaussian", "--sigma", "9999", "--sampler", "table"], "sigma"),
        (&["--law", "centred-binomial"], "--k"),
        (&["--law", "centred-binomial", "--k", "4097"], "4096"),
        (&["--law", "skellam", "--k", "3"], "--mu"),
        (&["--law", "discrete-gaussian", "--sigma", "0"], "sigma"),
        (&["--law", "discrete-gaussian", "--sigma", "NaN"], "sigma"),
        (&["--law", "poisson", "--rate", "4", "--count", "0"], "count"),
        (&["--law", "gauss"], "skellam"),
    ] {
        let output = veilsum(&[&["sample"][..], args].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(word), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}
