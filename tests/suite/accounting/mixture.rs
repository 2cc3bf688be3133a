//! The certified bounds of the Skellam mixture: above every number found by other means, and not far above.

use proptest::prelude::*;
use serde_json::Value;
use veilsum::privacy::DpEvent;
use veilsum::privacy::accountant::certificate::domination::{LARGEST_MU, dominate};
use veilsum::privacy::accountant::certificate::law::{IntegerLaw, curvature};
use veilsum::privacy::accountant::pld::PldAccountant;
use veilsum::privacy::accountant::rdp::RdpAccountant;
use veilsum::privacy::accountant::rdp::coordinate::coordinate_divergences;
use veilsum::privacy::accountant::rdp::mixture::SkellamMixtureCurve;
use veilsum::privacy::accountant::{Accountant, Rule};
use veilsum::privacy::calibrate::{Schedule, SkellamKind, calibrate_mu_by};
use veilsum::privacy::mechanism::PrivacyError;

use super::{account_json, close, epsilon, f, golden, sampled};

fn mixture(mu: f64, l2_bound: f64, dim: u64) -> DpEvent {
    DpEvent::SkellamMixture { mu, l2_bound, dim: Some(dim) }
}

/// What `scripts/smm_certificate.py` wrote.
fn vector() -> Value {
    serde_json::from_str(include_str!("../../vectors/smm_certificate.json")).unwrap()
}

/// `S(a) 4 mu / a`: 1 for the Gaussian of the same variance.
fn relative(curve: &SkellamMixtureCurve, order: f64) -> f64 {
    curve.sup_ratio(order) * 4.0 * curve.mu() / order
}

/// How far the theorems may lie above a truth of `1 + kappa`: by `2.3 / (8 mu)`, and by second order in `a / mu`.
fn allowed(mu: f64, order: f64, kappa: f64) -> f64 {
    let second = (order / mu) * (order / mu);
    1.0 + kappa * (1.0 + 1e-3) + (2.3 / (8.0 * mu)) * (1.0 + 2.0 / mu) + 0.3 * second + 1e-9
}

#[test]
fn high_precision_numbers_lie_below_the_certified_ones() {
    let vector = vector();
    for row in vector["curvature"].as_array().unwrap() {
        let (mu, truth) = (f(&row["mu"]), f(&row["curvature"]));
        let found = curvature(mu);
        assert!(found >= truth && found <= truth * (1.0 + 1e-8), "{row}: {found}");
    }
    let mut curve = SkellamMixtureCurve::new(1.0, 1.0);
    let mut best = std::collections::BTreeMap::new();
    for row in vector["renyi"].as_array().unwrap() {
        let (mu, order, x) = (f(&row["mu"]), f(&row["order"]), f(&row["x"]));
        if curve.mu() != mu {
            curve = SkellamMixtureCurve::new(mu, 1.0);
        }
        let truth = f(&row["forward"]).max(f(&row["backward"]));
        assert!(curve.sup_ratio(order) * x * x >= truth, "{row}: {}", curve.sup_ratio(order) * x * x);
        // Lemma 3: below one step the direction Q || P is the cheaper one.
        assert!(x > 1.0 || f(&row["backward"]) <= f(&row["forward"]) * (1.0 + 1e-12), "{row}");
        let ratio = truth / (x * x) * 4.0 * mu / order;
        let known = best.entry((mu.to_bits(), order as u32)).or_insert(0.0f64);
        *known = known.max(ratio);
    }
    for ((mu, order), ratio) in best {
        let (mu, order) = (f64::from_bits(mu), f64::from(order));
        let found = relative(&SkellamMixtureCurve::new(mu, 1.0), order);
        assert!(found >= ratio && found <= allowed(mu, order, ratio - 1.0), "{mu} {order}: {found} {ratio}");
    }
    for row in vector["domination"].as_array().unwrap() {
        let (mu, delta0, eta) = (f(&row["mu"]), f(&row["delta0"]), f(&row["eta"]));
        let found = dominate(mu, 16.0, delta0).unwrap();
        assert!(found.eta >= eta && found.eta <= eta * 1.02 + 1e-3, "{row}: {found:?}");
    }
}

#[test]
fn golden_suprema_lie_below_the_certified_ones() {
    let mut rows = Vec::new();
    if let Some(smm) = golden("smm.json") {
        for row in smm["kappa_table"].as_array().unwrap() {
            rows.push((f(&row["mu_total"]), f(&row["alpha"]), f(&row["kappa_sup"])));
        }
    }
    if let Some(dp) = golden("dp.json") {
        for row in dp["smm_mixture_rdp_ratio_to_gaussian_plain_l2"].as_array().unwrap() {
            rows.push((f(&row["lam"]), f(&row["alpha"]), f(&row["sup_ratio_to_gaussian_plain_l2"]) - 1.0));
        }
        // Integer shifts, far tilts and tiny means: the sums that the bounds are compared with below.
        for row in dp["skellam_rdp"].as_array().unwrap() {
            let Some(exact) = row["rdp_exact_1d"].as_f64() else { continue };
            let (mu, order, shift) = (f(&row["lam"]), f(&row["alpha"]), f(&row["l1"]));
            close(coordinate_divergences(mu, shift, order).0, exact, 1e-8);
            assert!(SkellamMixtureCurve::new(mu, shift).rdp(order) >= exact, "{row}");
        }
    }
    for (mu, order, kappa) in rows {
        let found = relative(&SkellamMixtureCurve::new(mu, 10.0), order);
        // The tables carry noise at small x: up to about 2e-11 mu.
        let noise = 1e-9 + 3e-11 * mu;
        assert!(found >= 1.0 + kappa - noise, "{mu} {order}: {found} {kappa}");
        assert!(found <= allowed(mu, order, kappa) + noise, "{mu} {order}: {found} {kappa}");
    }
}

#[test]
fn the_figures_of_the_published_settings() {
    // 1000 rounds of 240 among 60000 clients, mu 5.95 each, gamma 64, clip 1: published 2.999.
    let event = sampled(0.004, mixture(1428.0, 64.0, 65_536));
    let rdp = Rule::Rdp.epsilon(&event, 1000, 1e-5).unwrap();
    assert!(rdp.epsilon <= 1.701 && rdp.epsilon > 1.6997381, "{rdp:?}");
    assert_eq!(rdp.accountant, "rdp (smm certified for every x)");
    let pld = Rule::Pld.epsilon(&event, 1000, 1e-5).unwrap();
    assert!(pld.epsilon <= 1.41 && pld.epsilon > 1.1095, "{pld:?}");
    assert!(pld.epsilon_low.is_none() && pld.accountant.contains("eta 0.0590 at delta0 1e-16"), "{pld:?}");
    assert_eq!(Rule::Best.epsilon(&event, 1000, 1e-5).unwrap(), pld);
    // A delta0 of 1e-20 would do for 10^4 times as much delta.
    let strict = Rule::Pld.epsilon(&sampled(0.004, mixture(1428.0, 64.0, 1 << 30)), 1000, 1e-5).unwrap();
    assert!(strict.epsilon <= 1.41 && strict.accountant.contains("1e-20"), "{strict:?}");
    let eta = dominate(1428.0, 64.0, 1e-20).unwrap().eta;
    assert!(eta < 0.072 && eta > 0.0709, "{eta}");
    // Other noise, and one sum over 100 clients: above the Gaussian's, below what a bound by a/(8 mu) plus 2/(8 mu) gives.
    for (mu, reference) in [(12.0, 0.7207466467972237), (40.0, 0.23507289506242787)] {
        let eps = epsilon(&sampled(0.004, mixture(240.0 * mu, 64.0, 1)), 1000, 1e-5);
        assert!(eps <= reference * (1.0 + 5e-4) && eps > 0.99 * reference, "{mu}: {eps} {reference}");
    }
    let sum = mixture(595.0, 64.0, 65_536);
    // By RDP at fractional orders, which chords bound here, 9.793; the Gaussian of this variance costs 9.117.
    let eps = epsilon(&sum, 1, 1e-5);
    assert!(eps <= 9.793145297993398 * 1.02 && eps > 9.117171672344853, "{eps}");
    let best = Rule::Best.epsilon(&sum, 1, 1e-5).unwrap().epsilon;
    assert!(best <= eps && best > 9.117171672344853, "{best}");
    println!("one sum over 100 clients: {best}");
    let Some(dp) = golden("dp.json") else { return };
    let exact = f(&dp["smm_mnist_example"]["eps_gaussian_rdp"]);
    assert!(rdp.epsilon > exact && rdp.epsilon < exact * 1.001);
}

#[test]
fn the_command_takes_the_best_certified_bound() {
    let line = "--gamma 64 --mu 5.95 --clip 1 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5";
    let rdp = account_json(line);
    assert!(rdp["certified"] == true && f(&rdp["epsilon"]) <= 1.701, "{rdp}");
    let best = account_json(&format!("{line} --dim 63610"));
    assert!(best["certified"] == true && f(&best["epsilon"]) <= 1.41 && best["epsilon_low"].is_null(), "{best}");
    assert!(best["accountant"].as_str().unwrap().starts_with("pld (smm dominated by a Gaussian"), "{best}");
    assert!(f(&best["epsilon_server_view"]) < f(&rdp["epsilon_server_view"]), "{best}");
    let (code, _, err) = super::account(&format!("{line} --accountant pld"));
    assert!(code == 2 && err.contains("of known dimension"), "{err}");
    let (code, _, err) = super::account(&format!("{line} --dim 0"));
    assert!(code == 2 && err.contains("--dim is 0"), "{err}");
}

#[test]
fn noise_is_calibrated_to_the_best_bound() {
    let schedule = Schedule { rate: 1.0, rounds: 1, delta: 1e-5 };
    let event = |mu| SkellamKind::Smm.event(mu, 64.0, 1.0, Some(65_536));
    let best = calibrate_mu_by(Rule::Best, event, (64.0, 1.0), &schedule, 3.0).unwrap();
    let rdp = calibrate_mu_by(Rule::Rdp, event, (64.0, 1.0), &schedule, 3.0).unwrap();
    let found = Rule::Best.epsilon(&event(best), 1, 1e-5).unwrap().epsilon;
    assert!(found <= 3.0 && found > 2.999 && best < rdp, "{best} {rdp}");
}

#[test]
fn what_cannot_be_certified_is_infinite_and_bad_input_an_error() {
    let by_loss = |event: &DpEvent| Rule::Pld.epsilon(event, 1, 1e-5).unwrap();
    for (mu, l2_bound) in [(2.0 * LARGEST_MU, 10.0), (10.0, 1e6), (1e-3, 1.0)] {
        let report = by_loss(&mixture(mu, l2_bound, 1000));
        assert!(report.epsilon.is_infinite() && report.accountant.contains("no dominating"), "{report:?}");
        let best = Rule::Best.epsilon(&mixture(mu, l2_bound, 1000), 1, 1e-5).unwrap();
        assert!(best.epsilon.is_finite() && best.accountant.starts_with("rdp"), "{best:?}");
    }
    let mut losses = PldAccountant::new();
    for bad in [mixture(0.0, 1.0, 1), mixture(1.0, f64::NAN, 1), mixture(1.0, 1.0, 0)] {
        assert!(matches!(losses.compose(&bad, 1), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
    }
    assert!(losses.epsilon(1e-5).unwrap().epsilon == 0.0);
    // No delta is left for so many coordinates.
    losses.compose(&mixture(1428.0, 1.0, 1 << 40), 1_000_000_000_000).unwrap();
    assert!(losses.epsilon(1e-10).unwrap().epsilon.is_infinite() && losses.delta(1.0).unwrap() > 0.0);
}

#[test]
fn parts_of_different_kinds_add_up() {
    let gaussian = DpEvent::Gaussian { noise_multiplier: 5.0 };
    let mut both = PldAccountant::new();
    both.compose(&mixture(1428.0, 16.0, 4096), 10).unwrap();
    both.compose(&gaussian, 3).unwrap();
    let kappa = dominate(1428.0, 16.0, 1e-14).unwrap().kappa;
    // Ten mixtures and three Gaussians are one Gaussian.
    let multiplier = 1.0 / (10.0 * (16.0 * kappa).powi(2) + 3.0 / 25.0).sqrt();
    let mut one = PldAccountant::new();
    one.compose(&DpEvent::Gaussian { noise_multiplier: multiplier }, 1).unwrap();
    for delta in [1e-4, 1e-6] {
        let (found, plain) = (both.epsilon(delta).unwrap().epsilon, one.epsilon(delta).unwrap().epsilon);
        assert!(found > plain && found < plain * 1.001, "{delta}: {found} {plain}");
        let back = both.delta(found).unwrap();
        assert!(back >= 0.9 * delta && back <= 1.02 * delta, "{delta}: {back}");
    }
    let mut rdp = RdpAccountant::new();
    rdp.compose(&mixture(1428.0, 16.0, 4096), 10).unwrap();
    rdp.compose(&gaussian, 3).unwrap();
    assert!(rdp.epsilon(1e-6).unwrap().epsilon > both.epsilon(1e-6).unwrap().epsilon);
}

#[test]
fn the_law_adds_up() {
    for mu in [0.2, 7.0, 1428.0] {
        let law = IntegerLaw::skellam(mu, 30);
        let half = law.tail(1);
        // Q(K >= 1) = (1 - q(0)) / 2.
        assert!(2.0 * half.low() + law.pmf(0).low() <= 1.0 && 2.0 * half.high() + law.pmf(0).high() >= 1.0);
        assert!((0..30).all(|k| law.pmf(k).low() > law.pmf(k + 1).high()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn certified_is_above_numeric_everywhere(
        ln_mu in 0.7f64..9.0, x in 0.001f64..20.0, order in 2u32..60,
    ) {
        let (mu, a) = (ln_mu.exp(), f64::from(order));
        let bound = SkellamMixtureCurve::new(mu, x).rdp(a);
        let (forward, backward) = coordinate_divergences(mu, x, a);
        prop_assert!(bound >= forward.max(backward) * (1.0 - 1e-9), "{bound} {forward} {backward}");
        // Orders in between, by chords.
        let between = a + 0.5;
        let (forward, backward) = coordinate_divergences(mu, x, between);
        let bound = SkellamMixtureCurve::new(mu, x).rdp(between);
        prop_assert!(bound >= forward.max(backward) * (1.0 - 1e-9), "{bound} {forward} {backward}");
    }

    #[test]
    fn both_bounds_are_monotone(
        ln_mu in 4.0f64..9.0, ratio in 0.1f64..1.5, dim in 1u64..1_000_000, rounds in 1u64..50,
    ) {
        let mu = ln_mu.exp();
        let l2 = ratio * (2.0 * mu).sqrt();
        for rule in [Rule::Rdp, Rule::Pld] {
            let at = |mu, l2, dim, rounds, delta| rule.epsilon(&mixture(mu, l2, dim), rounds, delta).unwrap().epsilon;
            let base = at(mu, l2, dim, rounds, 1e-5);
            let slack = 1.0 + 1e-9;
            prop_assert!(at(mu * 1.2, l2, dim, rounds, 1e-5) <= base * slack);
            prop_assert!(at(mu, l2 * 1.2, dim, rounds, 1e-5) >= base);
            prop_assert!(at(mu, l2, dim, rounds + 1, 1e-5) >= base);
            prop_assert!(at(mu, l2, dim, rounds, 1e-6) >= base);
            prop_assert!(at(mu, l2, dim * 1000, rounds, 1e-5) * slack >= base);
        }
    }
}
