//! Accountants, calibration and `veilsum account` against the golden numbers.

mod budget;
mod course;
mod design;
mod losses;
mod mechanisms;
mod mixture;
mod vectors;

use std::process::Command;

use proptest::prelude::*;
use serde_json::Value;
use veilsum::privacy::DpEvent;
use veilsum::privacy::accountant::rdp::RdpAccountant;
use veilsum::privacy::accountant::rdp::coordinate::coordinate_divergences;
use veilsum::privacy::accountant::rdp::published::{linf_bound, published_epsilon, rdp, sampled_rdp};
use veilsum::privacy::accountant::{Accountant, Rule};
use veilsum::privacy::calibrate::{
    GammaRequest, Schedule, SkellamKind, Uses, calibrate_gamma, calibrate_mu_by, calibrate_noise_multiplier, l_inf_of,
};
use veilsum::privacy::mechanism::PrivacyError;
use veilsum::privacy::stages::Stages;

/// A golden file beside the checkout, or `None` with a note.
pub(crate) fn golden(name: &str) -> Option<Value> {
    let path = format!("{}/../shared/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(_) => {
            eprintln!("skipped: no golden file {name} beside the checkout");
            None
        }
    }
}

/// A number, or a number in a string.
fn f(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn or(value: &Value, default: f64) -> f64 {
    if value.is_null() { default } else { f(value) }
}

fn close(found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs(), "found {found}, expected {expected}");
}

fn sampled(rate: f64, event: DpEvent) -> DpEvent {
    DpEvent::PoissonSampled { rate, event: Box::new(event) }
}

fn gaussian(noise_multiplier: f64) -> DpEvent {
    DpEvent::Gaussian { noise_multiplier }
}

fn epsilon(event: &DpEvent, count: u64, delta: f64) -> f64 {
    let mut accountant = RdpAccountant::new();
    accountant.compose(event, count).unwrap();
    accountant.epsilon(delta).unwrap().epsilon
}

#[test]
fn published_accountant_known_answers() {
    // (gamma, mu, n, r, delta, epsilon, order, l_inf): sum estimation, from the published program.
    for (gamma, mu, n, r, delta, eps, order, l_inf) in [
        (64.0, 5.95, 100.0, 1.0, 1e-5, 12.718330135505079, 3, 5.335625504243255),
        (64.0, 0.5, 100.0, 1.0, 1e-5, 79.75863110385035, 2, 2.544109256573922),
        (64.0, 4096.0, 100.0, 1.0, 1e-5, 0.28731936934873825, 51, 7.615540701551739),
        (64.0, 5.95, 100.0, 10.0, 1e-5, 595.2694882467074, 2, 8.776255108056217),
        (18.0, 3.0, 240.0, 1.0, 1e-6, 2.636353424894421, 10, 1.6460765968125814),
    ] {
        let c: f64 = gamma * gamma * r * r;
        let bound = published_epsilon(n * mu, c, 1.0, 1.0, delta, None).unwrap();
        close(bound.epsilon, eps, 1e-9);
        close(bound.l_inf, l_inf, 1e-9);
        assert_eq!(bound.order, order);
    }
}

#[test]
fn published_accountant_all_golden_rows() {
    let Some(smm) = golden("smm.json") else { return };
    for row in smm["accountant_dse"].as_array().unwrap() {
        let p = &row["params"];
        let (gamma, r) = (f(&p["gamma"]), f(&p["r"]));
        let c = r * r * gamma * gamma;
        close(c, f(&row["c"]), 1e-15);
        let bound = published_epsilon(f(&p["n"]) * f(&p["mu"]), c, 1.0, 1.0, f(&p["delta"]), None).unwrap();
        close(bound.epsilon, f(&row["eps"]), 1e-9);
        close(bound.l_inf, f(&row["l_inf"]), 1e-9);
        assert_eq!(f64::from(bound.order), f(&row["alpha"]));
    }
    for row in smm["accountant_mnist"].as_array().unwrap() {
        let p = &row["params"];
        let (n, population) = (f(&p["n"]), or(&p["N"], 60000.0));
        let mu_total = n * f(&p["mu"]);
        let (rate, rounds, delta) = (n / population, population / n * f(&p["epochs"]), or(&p["delta"], 1e-5));
        let bound = published_epsilon(mu_total, f(&p["c"]), rate, rounds, delta, None).unwrap();
        if rate == 1.0 {
            // The published program prints -inf here; sampling everybody is no sampling.
            let plain = (2..=99u32).map(|a| {
                let a1 = f64::from(a) - 1.0;
                rounds * rdp(mu_total, f(&p["c"]), a)
                    + (-delta.ln() + a1 * (-1.0 / f64::from(a)).ln_1p() - f64::from(a).ln()) / a1
            });
            close(bound.epsilon, plain.fold(f64::INFINITY, f64::min), 1e-12);
            assert!(bound.epsilon > 1.0);
            continue;
        }
        close(bound.epsilon, f(&row["eps"]), 1e-9);
        close(bound.l_inf, f(&row["l_inf"]), 1e-9);
        assert_eq!(f64::from(bound.order), f(&row["alpha"]));
    }
    for row in smm["rdp_table"].as_array().unwrap() {
        let (mu, c, order) = (f(&row["mu_total"]), f(&row["c"]), f(&row["alpha"]) as u32);
        close(sampled_rdp(mu, c, f(&row["q"]), order), f(&row["rdp_mp50"]), 1e-9);
        close(rdp(mu, c, order), f(&row["rdp_unsampled"]), 1e-14);
    }
}

#[test]
fn the_event_costs_what_the_published_program_says() {
    let event = |l_inf| DpEvent::SkellamMixture2022 { mu: 1428.0, c: 4096.0, l_inf };
    close(epsilon(&sampled(0.004, event(None)), 1000, 1e-5), 2.9987982384189564, 1e-9);
    let l_inf = linf_bound(1428.0, 5);
    close(epsilon(&sampled(0.004, event(Some(l_inf))), 1000, 1e-5), 2.9987982384189564, 1e-9);
    assert!(epsilon(&sampled(0.004, event(Some(l_inf * 1.0001))), 1000, 1e-5) > 2.999);
    assert!(epsilon(&sampled(0.004, event(Some(100.0))), 1000, 1e-5).is_infinite());
}

#[test]
fn exact_divergences_of_a_coordinate() {
    // 40-digit numerics.
    for (mu, x, order, forward, backward) in [
        (20.0, 0.43, 8.0, 0.01934346597299551, 0.01769383291192695),
        (50.0, 1.5, 4.0, 0.04531159974821921, 0.04453573515304943),
        (5.0, 2.7, 3.0, 1.0415214072990926, 0.9606891237432678),
        (20.0, 7.0, 4.0, 2.2786295544605534, 2.2786295544605534),
    ] {
        let (p, q) = coordinate_divergences(mu, x, order);
        close(p, forward, 1e-10);
        close(q, backward, 1e-10);
    }
    let Some(smm) = golden("smm.json") else { return };
    for row in smm["exact_renyi_points"].as_array().unwrap() {
        let (p, q) = coordinate_divergences(f(&row["mu_total"]), f(&row["x"]), f(&row["alpha"]));
        close(p, f(&row["D_P_Q"]), 1e-10);
        close(q, f(&row["D_Q_P"]), 1e-10);
    }
}

#[test]
fn the_published_bound_holds_numerically() {
    let Some(smm) = golden("smm.json") else { return };
    for row in smm["reference_bound_check"].as_array().unwrap() {
        let (mu, order, l_inf) = (f(&row["mu_total"]), f(&row["alpha"]), f(&row["l_inf"]));
        let mut worst = 0.0f64;
        for i in 1..=8 {
            let x = l_inf * f64::from(i) / 8.0;
            let p = x.fract();
            let (forward, backward) = coordinate_divergences(mu, x, order);
            worst = worst.max(forward.max(backward) / ((1.2 * order + 1.0) * (x * x + p - p * p) / (4.0 * mu)));
        }
        assert!(worst < 1.0, "{row}: {worst}");
        assert!(worst <= f(&row["max_ratio_exact_over_bound"]) * 1.02, "{row}: {worst}");
    }
}

#[test]
fn subsampled_gaussian_golden_rows() {
    // (sigma, rate, steps, delta, epsilon by dp_accounting's RDP, true epsilon from below).
    for (sigma, rate, steps, delta, peer, lower) in [
        (1.0, 0.01, 1000, 1e-5, 2.101366525420273, 1.808116448011399),
        (1.1, 0.004166666666666667, 14400, 1e-5, 2.5617157169836333, 2.329420607073832),
        (0.3, 0.0001, 1_000_000, 1e-5, 80.62387584685477, 0.0),
    ] {
        let eps = epsilon(&sampled(rate, DpEvent::Gaussian { noise_multiplier: sigma }), steps, delta);
        assert!(eps <= peer + 1e-6 && eps >= lower, "{sigma} {rate} {steps}: {eps}");
    }
    let Some(dp) = golden("dp.json") else { return };
    let mut rows = 0;
    for row in dp["subsampled_gaussian"].as_array().unwrap() {
        let event = DpEvent::Gaussian { noise_multiplier: f(&row["noise_multiplier"]) };
        let steps = row["steps"].as_u64().unwrap();
        let eps = epsilon(&sampled(f(&row["sampling_rate"]), event), steps, f(&row["delta"]));
        if let Some(peer) = row["rdp_epsilon"].as_f64() {
            assert!(eps <= peer * (1.0 + 1e-6), "{row}: {eps}");
            // Finer orders help by a little, not by more.
            assert!(eps >= peer * 0.9, "{row}: {eps}");
            rows += 1;
        }
        if let Some(lower) = row["best_lower"].as_f64() {
            assert!(eps >= lower, "{row}: {eps}");
        }
    }
    assert!(rows >= 20, "{rows}");
    for row in dp["calibration_sgm"].as_array().unwrap() {
        let schedule = Schedule {
            rate: f(&row["sampling_rate"]),
            rounds: row["steps"].as_u64().unwrap(),
            delta: f(&row["delta"]),
        };
        let sigma = calibrate_noise_multiplier(&schedule, f(&row["target_epsilon"]), Rule::Rdp, gaussian).unwrap();
        assert!(sigma <= f(&row["sigma_rdp"]) * (1.0 + 1e-4), "{row}: {sigma}");
        assert!(sigma >= f(&row["sigma_pld_vdi1e-4"]), "{row}: {sigma}");
    }
}

#[test]
fn composition_adds_and_extremes_stay_numbers() {
    let gaussian = DpEvent::Gaussian { noise_multiplier: 2.0 };
    let self_composed = DpEvent::SelfComposed { event: Box::new(gaussian.clone()), count: 7 };
    let all = DpEvent::Composed(vec![self_composed, gaussian.clone()]);
    close(epsilon(&all, 1, 1e-5), epsilon(&gaussian, 8, 1e-5), 1e-12);
    for event in [
        DpEvent::Gaussian { noise_multiplier: 1e-3 },
        DpEvent::Gaussian { noise_multiplier: 1e12 },
        DpEvent::SkellamMixture { mu: 1e-3, l2_bound: 50.0, dim: None },
        DpEvent::SkellamMixture { mu: 1e12, l2_bound: 1e3, dim: None },
        DpEvent::SkellamMixture { mu: 10.0, l2_bound: 1e9, dim: None },
        DpEvent::SkellamMixture2022 { mu: 1e-9, c: 1e12, l_inf: None },
    ] {
        for rate in [0.0, 1e-9, 0.3, 1.0] {
            let eps = epsilon(&sampled(rate, event.clone()), 1_000_000_000, 1e-10);
            assert!(eps >= 0.0, "{event:?} {rate}: {eps}");
            assert_eq!(rate == 0.0, eps == 0.0, "{event:?} {rate}: {eps}");
        }
    }
}

#[test]
fn bad_parameters_are_refused() {
    let mut accountant = RdpAccountant::new();
    for bad in [
        DpEvent::Gaussian { noise_multiplier: 0.0 },
        DpEvent::Gaussian { noise_multiplier: f64::NAN },
        DpEvent::SkellamMixture { mu: -1.0, l2_bound: 1.0, dim: None },
        DpEvent::SkellamMixture { mu: 1.0, l2_bound: f64::INFINITY, dim: None },
        DpEvent::SkellamMixture2022 { mu: 1.0, c: 0.0, l_inf: None },
        DpEvent::SkellamMixture2022 { mu: 1.0, c: 1.0, l_inf: Some(f64::NAN) },
        sampled(1.5, DpEvent::NonPrivate),
        sampled(f64::NAN, DpEvent::NonPrivate),
    ] {
        assert!(matches!(accountant.compose(&bad, 0), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
    }
    for delta in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(accountant.epsilon(delta).is_err());
    }
    assert!(accountant.delta(-0.1).is_err() && accountant.delta(f64::NAN).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn epsilon_is_monotone(
        mu in 5.0f64..3000.0, l2 in 0.5f64..80.0, rate in 0.001f64..0.9, rounds in 1u64..2000, kind in 0..3,
    ) {
        let event = |mu: f64, l2: f64| match kind {
            0 => DpEvent::SkellamMixture { mu, l2_bound: l2, dim: None },
            1 => DpEvent::SkellamMixture2022 { mu, c: l2 * l2, l_inf: None },
            _ => DpEvent::Gaussian { noise_multiplier: (2.0 * mu).sqrt() / l2 },
        };
        let base = epsilon(&sampled(rate, event(mu, l2)), rounds, 1e-5);
        let tolerance = 1.0 + 1e-9;
        prop_assert!(epsilon(&sampled(rate, event(mu * 1.3, l2)), rounds, 1e-5) <= base * tolerance);
        prop_assert!(epsilon(&sampled(rate, event(mu, l2 * 1.2)), rounds, 1e-5) * tolerance >= base);
        prop_assert!(epsilon(&sampled(rate, event(mu, l2)), rounds + 1, 1e-5) >= base);
        prop_assert!(epsilon(&sampled((rate * 1.1).min(1.0), event(mu, l2)), rounds, 1e-5) * tolerance >= base);
        prop_assert!(epsilon(&sampled(rate, event(mu, l2)), rounds, 1e-6) >= base);
    }

    #[test]
    fn delta_inverts_epsilon(sigma in 0.5f64..20.0, rate in 0.001f64..1.0, ln_delta in -25.0f64..-3.0) {
        let mut accountant = RdpAccountant::new();
        accountant.compose(&sampled(rate, DpEvent::Gaussian { noise_multiplier: sigma }), 100).unwrap();
        let delta = ln_delta.exp();
        let eps = accountant.epsilon(delta).unwrap().epsilon;
        let back = accountant.delta(eps).unwrap();
        prop_assert!(back <= delta * (1.0 + 1e-6), "{} {}", back, delta);
        prop_assert!(eps == 0.0 || back >= delta * (1.0 - 1e-6), "{} {}", back, delta);
    }
}

/// By Renyi accounting, at gamma 64 and clip 1.
fn calibrated(kind: SkellamKind, schedule: &Schedule, target: f64) -> Result<f64, PrivacyError> {
    calibrate_mu_by(Rule::Rdp, |mu| kind.event(mu, 64.0, 1.0, None), (64.0, 1.0), schedule, target)
}

#[test]
fn calibration_meets_its_target() {
    let schedule = Schedule { rate: 0.004, rounds: 1000, delta: 1e-5 };
    for kind in [SkellamKind::Smm, SkellamKind::Smm2022] {
        for target in [0.5, 3.0] {
            let mu = calibrated(kind, &schedule, target).unwrap();
            let eps = schedule.epsilon(Rule::Rdp, kind.event(mu, 64.0, 1.0, None)).unwrap().epsilon;
            assert!(eps <= target && eps >= target * (1.0 - 2e-4), "{kind:?} {target}: {eps}");
        }
    }
    // The published program needs mu 5.95 a client for what plain clipping does with 4.09.
    let plain = calibrated(SkellamKind::Smm, &schedule, 2.99879823841896).unwrap() / 240.0;
    // (That number is of a numeric supremum, a / (8 mu) above the Gaussian; the certified bound is 2 / (8 mu) above it.)
    assert!(plain <= 4.090538474060224 * (1.0 + 3e-4) && plain > 4.0, "{plain}");
    let l_inf = l_inf_of(1428.0, 64.0, 1.0, &schedule).unwrap();
    close(l_inf, 4.73844174689098, 1e-9);
    let refused = calibrated(SkellamKind::Smm2022, &schedule, 1e-4);
    assert!(matches!(refused, Err(PrivacyError::Infeasible { .. })), "{refused:?}");
}

#[test]
fn gamma_fills_the_ring_without_wrapping() {
    let request = GammaRequest {
        kind: SkellamKind::Smm,
        bits: 8,
        dim: 63_610,
        cohort: 240.0,
        clip: 1.0,
        uses: Uses { rate: 0.004, delta: 1e-5, stages: Stages::uniform(1000), rule: Rule::Rdp },
        target_epsilon: 3.0,
        wrap_limit: 1e-3,
        inflation: 1.0,
    };
    let mut last = 0.0;
    for (kind, bits) in [(SkellamKind::Smm2022, 6), (SkellamKind::Smm2022, 8), (SkellamKind::Smm, 8)] {
        let c = calibrate_gamma(&GammaRequest { kind, bits, ..request.clone() }).unwrap();
        assert!(c.epsilon <= 3.0 && c.epsilon > 2.999, "{c:?}");
        assert!(c.predicted_wrap <= 1e-3 && c.predicted_wrap > 8e-4, "{c:?}");
        // More bits, or less noise for the same epsilon: a finer scale.
        assert!(c.gamma > last, "{c:?}");
        last = c.gamma;
    }
    let refused =
        calibrate_gamma(&GammaRequest { kind: SkellamKind::Smm2022, bits: 2, cohort: 1e6, ..request.clone() });
    assert!(matches!(refused, Err(PrivacyError::Wraps { .. })), "{refused:?}");
    let refused = calibrate_gamma(&GammaRequest { target_epsilon: 1e-4, ..request });
    assert!(matches!(refused, Err(PrivacyError::Infeasible { .. })), "{refused:?}");
}

/// Runs `veilsum account`: exit code, stdout, stderr.
fn account(line: &str) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_veilsum")).arg("account").args(line.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn account_json(line: &str) -> Value {
    let (code, out, err) = account(&format!("{line} --json"));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn account_prints_the_published_numbers() {
    let v = account_json("--mechanism smm-2022 --gamma 64 --mu 5.95 --clip 1 --cohort 100 --delta 1e-5");
    close(f(&v["epsilon"]), 12.718330135505079, 1e-9);
    close(f(&v["l_inf"]), 5.335625504243255, 1e-9);
    assert_eq!(f(&v["order"]), 3.0);
    assert_eq!(f(&v["delta"]), 1e-5);
    assert_eq!((&v["neighboring"], &v["view"], &v["certified"]), (&"zero-out".into(), &"server".into(), &true.into()));
    assert!(v["accountant"].as_str().unwrap().contains("rdp"));
    let v = account_json(
        "--mechanism smm-2022 --gamma 64 --mu 5.95 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 --bits 8 --dim 63610",
    );
    close(f(&v["epsilon"]), 2.9987982384189564, 1e-9);
    assert!(f(&v["epsilon_server_view"]) > 100.0 && f(&v["predicted_wrap"]) > 0.015);
    assert_eq!((&v["view"], f(&v["sampling_rate"])), (&"public".into(), 0.004));
    // Everybody takes part: no sampling, and no -inf.
    let v = account_json("--mechanism smm-2022 --gamma 64 --mu 0.0238 --cohort 60000 --population 60000 --delta 1e-5");
    close(f(&v["epsilon"]), f(&v["epsilon_server_view"]), 1e-12);
    assert!(f(&v["epsilon"]) > 1.0);
}

#[test]
fn account_calibrates() {
    let v = account_json("--gamma 64 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 --target-epsilon 3");
    assert!(f(&v["epsilon"]) <= 3.0 && f(&v["epsilon"]) > 2.999);
    assert_eq!((&v["mechanism"], &v["certified"]), (&"smm".into(), &true.into()));
    close(f(&v["mu"]) * 240.0, f(&v["mu_total"]), 1e-12);
    let v = account_json(
        "--mechanism central-gaussian --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 --target-epsilon 1",
    );
    assert!(f(&v["epsilon"]) <= 1.0 && f(&v["noise_multiplier"]) > 0.86 && f(&v["noise_multiplier"]) < 1.0252);
    assert_eq!(v["neighboring"], "add-remove");
}

#[test]
fn account_refuses_bad_input() {
    for (line, code, says) in [
        ("--mechanism smm-2022 --gamma 64 --mu 0 --cohort 100 --delta 1e-5", 2, "--mu"),
        ("--gamma -1 --mu 1 --cohort 100 --delta 1e-5", 2, "gamma"),
        ("--gamma 64 --mu 1 --cohort 0 --delta 1e-5", 2, "--cohort"),
        ("--gamma 64 --mu 1 --cohort 10 --delta 1.5", 2, "delta"),
        ("--gamma 64 --mu 1 --cohort 10 --delta 1e-5 --rounds 0", 2, "--rounds"),
        ("--gamma 64 --mu 1 --cohort 10 --population 9 --delta 1e-5", 2, "--population"),
        ("--gamma 64 --mu 1 --cohort 10 --delta 1e-5 --bits 33 --dim 100", 2, "bits"),
        ("--gamma 64 --cohort 10 --delta 1e-5", 2, "--mu or --target-epsilon"),
        ("--mu 1 --cohort 10 --delta 1e-5", 2, "--gamma"),
        ("--mechanism central-gaussian --cohort 10 --delta 1e-5", 2, "--noise-multiplier"),
        ("--mechanism central-gaussian --noise-multiplier NaN --cohort 10 --delta 1e-5", 2, "noise_multiplier"),
        ("--gamma 64 --cohort 10 --delta 1e-5 --target-epsilon 0", 2, "target"),
        ("--mechanism smm-2022 --gamma 64 --cohort 10 --delta 1e-5 --target-epsilon 1e-3", 3, "least reachable"),
    ] {
        let (found, out, err) = account(line);
        assert_eq!(found, code, "{line}: {err}");
        assert!(err.contains(says) && out.is_empty(), "{line}: {err}");
    }
}

#[test]
fn account_teaches_and_warns() {
    let (code, out, err) = account("--gamma 64 --mu 5.95 --cohort 240 --population 60000 --delta 1e-4");
    assert_eq!(code, 0);
    assert!(err.contains("warning") && err.contains("60000"), "{err}");
    for word in ["epsilon", "delta", "zero-out", "public", "certified"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let (code, out, _) = account("--help");
    assert!(code == 0 && out.contains("EXAMPLES") && out.contains("smm-2022"));
}
