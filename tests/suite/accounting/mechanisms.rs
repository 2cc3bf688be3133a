//! Mechanisms other than the Gaussian: golden rows, exact small cases, what is refused.

use proptest::prelude::*;
use veilsum::privacy::accountant::pld::PldAccountant;
use veilsum::privacy::accountant::pld::atoms::{AtomCurve, Pair};
use veilsum::privacy::accountant::pld::curve::LossCurve;
use veilsum::privacy::accountant::pld::gaussian::Direction;
use veilsum::privacy::accountant::rdp::{RdpAccountant, published};
use veilsum::privacy::accountant::{Accountant, Rule};
use veilsum::privacy::mechanism::PrivacyError;
use veilsum::privacy::{DpEvent, IntegerNoise, NeighboringRelation};

use super::losses::interval;
use super::{account_json, close, epsilon, f, gaussian, golden, sampled};

fn shift(noise: IntegerNoise, sensitivity: u64) -> DpEvent {
    DpEvent::IntegerShift { noise, sensitivity }
}

fn fixed(sample: u64, population: u64, event: DpEvent) -> DpEvent {
    DpEvent::FixedSizeSampled { sample, population, event: Box::new(event) }
}

fn response(epsilon: f64, categories: u64) -> DpEvent {
    DpEvent::RandomizedResponse { epsilon, categories }
}

fn mixture() -> DpEvent {
    let (sensitivities, probabilities) = (vec![0.0, 1.0, 2.0], vec![0.9, 0.09, 0.01]);
    DpEvent::MixtureOfGaussians { sigma: 1.0, sensitivities, probabilities }
}

/// RDP at one of the accountant's orders.
fn rdp_at(event: &DpEvent, order: f64) -> f64 {
    let mut accountant = RdpAccountant::new();
    accountant.compose(event, 1).unwrap();
    accountant.curve().find(|(a, _)| *a == order).unwrap().1
}

#[test]
fn exact_golden_epsilons_are_enclosed() {
    let Some(dp) = golden("dp.json") else { return };
    let skellam = dp["skellam_exact_epsilon"].as_array().unwrap().iter();
    let skellam = skellam.map(|row| (row, IntegerNoise::Skellam { mu: f(&row["lam"]) }));
    let discrete = dp["discrete_gaussian_exact"].as_array().unwrap().iter();
    let discrete = discrete.map(|row| (row, IntegerNoise::DiscreteGaussian { sigma: f(&row["sigma_sq"]).sqrt() }));
    let mut rows = 0;
    for (row, noise) in skellam.chain(discrete) {
        let event = shift(noise, row["shift"].as_u64().unwrap());
        let found = interval(&event, 1, f(&row["delta"]));
        let exact = f(&row["epsilon"]);
        // The golden numbers are rounded themselves.
        assert!(found.low <= exact * (1.0 + 2e-13) && found.high >= exact * (1.0 - 2e-13), "{row}: {found:?}");
        close(found.high, exact, 1e-11);
        close(found.low, exact, 1e-11);
        if let Some(delta) = row["delta_at_eps1"].as_f64() {
            let mut accountant = PldAccountant::new();
            accountant.compose(&event, 1).unwrap();
            let found = accountant.delta_interval(1.0).unwrap();
            assert!(found.low <= delta * (1.0 + 1e-10) && found.high >= delta * (1.0 - 1e-10), "{row}: {found:?}");
            close(found.high, delta, 1e-9);
        }
        rows += 1;
    }
    assert_eq!(rows, 22);
}

#[test]
fn golden_divergences_of_skellam_noise() {
    let Some(dp) = golden("dp.json") else { return };
    for row in dp["skellam_rdp"].as_array().unwrap() {
        let (mu, order) = (f(&row["lam"]), f(&row["alpha"]));
        let (l1, l2_sq) = (f(&row["l1"]), f(&row["l2_sq"]));
        let found = rdp_at(&shift(IntegerNoise::Skellam { mu }, l1 as u64), order);
        let exact = f(&row["rdp_exact_1d"]);
        assert!(found >= exact * (1.0 - 1e-9), "{row}: {found}");
        close(found, exact, 1e-8);
        let vector = DpEvent::SkellamVector { mu, l1_bound: l1, l2_bound: l2_sq.sqrt() };
        let agarwal = published::skellam_rdp(mu, l1, l2_sq.sqrt(), order);
        close(agarwal, f(&row["rdp_agarwal2021"]), 1e-13);
        // The least of that and the law's curvature.
        let found = rdp_at(&vector, order);
        assert!(found <= agarwal && (l1 != l2_sq.sqrt() || found >= exact * (1.0 - 1e-9)), "{row}: {found}");
        close(published::rdp(mu, l2_sq, order as u32), f(&row["rdp_smm_2022"]), 1e-13);
        close(rdp_at(&gaussian((2.0 * mu / l2_sq).sqrt()), order), f(&row["rdp_gaussian_same_variance"]), 1e-13);
    }
    for row in dp["ddg_rdp"].as_array().unwrap() {
        let step = f(&row["gamma"]);
        let event = DpEvent::DistributedDiscreteGaussian {
            clients: row["n"].as_u64().unwrap(),
            sigma: f(&row["local_stddev"]) / step,
            l1_bound: f(&row["l1"]) / step,
            l2_bound: f(&row["l2"]) / step,
            dim: row["dim"].as_u64().unwrap(),
        };
        close(rdp_at(&event, f(&row["alpha"])), f(&row["rdp"]), 1e-12);
    }
}

#[test]
fn golden_rows_of_other_mechanisms() {
    let Some(dp) = golden("dp.json") else { return };
    let mut known = 0;
    for row in dp["other_mechanisms_dp_accounting"].as_array().unwrap() {
        let (event, count) = match row["name"].as_str().unwrap() {
            "laplace b=10 x100" => (DpEvent::Laplace { noise_multiplier: 10.0 }, 100),
            "discrete_laplace a=0.5 sens=1 x10" => (shift(IntegerNoise::DiscreteLaplace { scale: 2.0 }, 1), 10),
            "zcdp rho=0.1 xi=0" => (DpEvent::ZeroConcentrated { rho: 0.1, xi: 0.0 }, 1),
            "mixture_gaussians sd=1 sens=[0,1,2] p=[.9,.09,.01] x100" => (mixture(), 100),
            // No numbers of the peer's.
            "discrete_gaussian sigma=5 sens=1 x100" | "permute_and_flip eps=0.1 x100" => continue,
            // Tree aggregation is not an event of ours.
            name => {
                assert!(name.starts_with("tree"), "{name}");
                continue;
            }
        };
        known += 1;
        if let Some(peer) = row["pld"].as_f64() {
            let found = interval(&event, count, 1e-6);
            assert!(found.low <= peer * (1.0 + 1e-9), "{row}: {found:?}");
            assert!(found.high <= peer * (1.0 + 1e-5) && found.low >= peer * (1.0 - 1e-4), "{row}: {found:?}");
        }
        if let Some(peer) = row["rdp"].as_f64() {
            // Finer orders help by a little.
            let found = epsilon(&event, count, 1e-6);
            assert!(found <= peer * (1.0 + 1e-6) && found >= 0.97 * peer, "{row}: {found}");
        }
    }
    assert_eq!(known, 4);
    for row in dp["cross_peer_opacus"].as_array().unwrap() {
        let (sigma, steps) = (f(&row["noise_multiplier"]), row["steps"].as_u64().unwrap());
        let (event, delta) = (sampled(f(&row["sampling_rate"]), gaussian(sigma)), f(&row["delta"]));
        let (rdp, found) = (epsilon(&event, steps, delta), interval(&event, steps, delta));
        let peer = f(&row["opacus_rdp"][0]);
        assert!(rdp <= peer * (1.0 + 1e-5) && found.high < peer, "{row}: {rdp} {found:?}");
        // The central limit under-reports.
        assert!(found.low > f(&row["opacus_gdp_clt_poisson"]), "{row}: {found:?}");
    }
}

/// Delta of `count` randomized responses between two answers, by the binomial sum.
fn response_delta(epsilon: f64, count: u64, at: f64) -> f64 {
    let (p, q) = (1.0 / (1.0 + (-epsilon).exp()), 1.0 / (1.0 + epsilon.exp()));
    let mut choose = 1.0;
    let mut sum = 0.0;
    for k in 0..=count {
        let loss = (count as f64 - 2.0 * k as f64) * epsilon;
        if loss > at {
            sum += choose * p.powi((count - k) as i32) * q.powi(k as i32) * -(at - loss).exp_m1();
        }
        choose *= (count - k) as f64 / (k + 1) as f64;
    }
    sum
}

#[test]
fn many_answers_cost_as_many_times_as_much() {
    // A peer forgets the count: 1.0986.
    let three = response(3f64.ln(), 2);
    for delta in [1e-9, 1e-12, 1e-30] {
        let found = interval(&three, 10, delta);
        assert!(found.high <= 10.0 * 3f64.ln() * (1.0 + 1e-11) && found.high >= 10.986, "{found:?}");
        assert!(found.low > 10.98, "{found:?}");
    }
    assert_eq!(interval(&response(3f64.ln(), 2), 1, 1e-5), interval(&DpEvent::PureDp { epsilon: 3f64.ln() }, 1, 1e-5));
    // More answers hide more.
    assert!(interval(&response(1.0, 10), 10, 1e-5).high < interval(&response(1.0, 2), 10, 1e-5).low);
    assert_eq!(interval(&response(0.0, 5), 10, 1e-5).high, 0.0);
}

/// Delta of independent discrete pairs, one release each, by listing all outcomes.
fn listed_delta(pairs: &[(&Pair, f64)], at: f64, direction: Direction) -> f64 {
    let mut all = vec![(1.0, 1.0)];
    for (pair, rate) in pairs {
        let mixed = |p: f64, q: f64| ((1.0 - rate) * q + rate * p, q);
        let mut atoms: Vec<(f64, f64)> = pair.atoms.iter().map(|a| mixed(a.p, a.q)).collect();
        atoms.extend([mixed(pair.only_p, 0.0), mixed(0.0, pair.only_q)]);
        all = all.iter().flat_map(|x| atoms.iter().map(|y| (x.0 * y.0, x.1 * y.1))).collect();
    }
    let height = |&(p, q): &(f64, f64)| match direction {
        Direction::Remove => (p - at.exp() * q).max(0.0),
        Direction::Add => (q - at.exp() * p).max(0.0),
    };
    all.iter().map(height).sum()
}

#[test]
fn small_compositions_meet_the_list_of_all_outcomes() {
    let noises = [
        (IntegerNoise::CenteredBinomial { trials: 20 }, 2),
        (IntegerNoise::Skellam { mu: 1.5 }, 1),
        (IntegerNoise::DiscreteGaussian { sigma: 1.3 }, 2),
        (IntegerNoise::DiscreteLaplace { scale: 1.7 }, 3),
    ];
    for (first, second) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        let pair = |i: usize| Pair::shifted(noises[i].0, noises[i].1).unwrap();
        for rate in [1.0, 0.3] {
            let mut accountant = PldAccountant::new();
            for i in [first, second] {
                accountant.compose(&sampled(rate, shift(noises[i].0, noises[i].1)), 1).unwrap();
            }
            for at in [0.0, 0.2, 1.0, 3.0] {
                let found = accountant.delta_interval(at).unwrap();
                let (one, other) = (pair(first), pair(second));
                let listed = |direction| listed_delta(&[(&one, rate), (&other, rate)], at, direction);
                let exact = listed(Direction::Remove).max(listed(Direction::Add));
                let slack = 1e-12 * exact;
                assert!(found.low <= exact + slack && exact <= found.high + slack, "{at} {rate}: {found:?} {exact}");
                assert!(found.high - found.low <= 1e-3 * exact + 1e-7, "{at} {rate}: {found:?} {exact}");
            }
        }
    }
}

#[test]
fn bounded_noise_leaves_a_delta() {
    // 30 coins moved by 2: outcomes -15 and -14 (31 of 2^30) tell the sides apart.
    let event = shift(IntegerNoise::CenteredBinomial { trials: 30 }, 2);
    let apart = 31.0 / f64::from(1u32 << 30);
    assert!(interval(&event, 1, 0.99 * apart).low.is_infinite());
    let found = interval(&event, 1, 1.01 * apart);
    assert!(found.high.is_finite() && found.high - found.low < 1e-9, "{found:?}");
    assert!(epsilon(&event, 1, 1e-5).is_infinite());
    let best = Rule::Best.epsilon(&event, 10, 1e-5).unwrap();
    assert!(best.accountant == "pld" && best.epsilon.is_finite());
    let mut accountant = PldAccountant::new();
    accountant.compose(&event, 1000).unwrap();
    let all = accountant.delta_interval(500.0).unwrap();
    let exact = 1.0 - (1.0 - apart).powi(1000);
    assert!(all.low <= exact && exact <= all.high && all.high < exact * 1.001, "{all:?} {exact}");
}

#[test]
fn a_sample_of_fixed_size() {
    // One of three bits answers by randomized response: the true pair is known and lies below.
    let truth = |at: f64| {
        let (high, low) = (0.75, 0.25);
        let of = |bits: [u8; 3]| bits.iter().map(|&b| if b == 1 { high } else { low }).sum::<f64>() / 3.0;
        let height = |p: f64, q: f64| (p - at.exp() * q).max(0.0) + (1.0 - p - at.exp() * (1.0 - q)).max(0.0);
        let pairs = [([1, 0, 0], [0, 0, 0]), ([1, 1, 0], [0, 1, 0]), ([1, 1, 1], [0, 1, 1])];
        pairs.iter().map(|&(x, y)| height(of(x), of(y)).max(height(of(y), of(x)))).fold(0.0, f64::max)
    };
    let mut accountant = PldAccountant::new();
    accountant.compose(&fixed(1, 3, response(3f64.ln(), 2)), 1).unwrap();
    for at in [0.0, 0.1, 0.3, 0.5] {
        let found = accountant.delta_interval(at).unwrap();
        assert!(found.high >= truth(at) * (1.0 - 1e-12), "{at}: {found:?} {}", truth(at));
        // All others at the neighbour's value: the bound is met.
        assert!(found.low <= truth(at) * (1.0 + 1e-9), "{at}: {found:?} {}", truth(at));
    }
    // All of them: no sampling.
    for event in [gaussian(2.0), DpEvent::Laplace { noise_multiplier: 3.0 }, response(0.4, 3)] {
        let (whole, plain) = (interval(&fixed(7, 7, event.clone()), 20, 1e-6), interval(&event, 20, 1e-6));
        close(whole.high, plain.high, 2e-4);
        assert!(whole.low <= plain.high && plain.low <= whole.high);
        let some = fixed(7, 100, event.clone());
        assert!(interval(&some, 20, 1e-6).high < plain.low);
        // The same mechanism, another relation: at least the Poisson sample's remove direction.
        assert!(interval(&some, 20, 1e-6).high >= interval(&sampled(0.07, event), 20, 1e-6).low);
        let rdp = epsilon(&some, 20, 1e-6);
        assert!(rdp >= interval(&some, 20, 1e-6).low && rdp.is_finite(), "{rdp}");
    }
    assert_eq!(epsilon(&fixed(0, 9, gaussian(1.0)), 5, 1e-6), 0.0);
    assert_eq!(interval(&fixed(0, 9, gaussian(1.0)), 5, 1e-6).high, 0.0);
}

#[test]
fn directions_of_symmetric_noise_agree() {
    for noise in [
        IntegerNoise::Skellam { mu: 4.0 },
        IntegerNoise::DiscreteGaussian { sigma: 2.5 },
        IntegerNoise::DiscreteLaplace { scale: 2.0 },
        IntegerNoise::CenteredBinomial { trials: 41 },
    ] {
        let pair = Pair::shifted(noise, 3).unwrap();
        let (remove, add) = (AtomCurve::new(&pair, 1.0, Direction::Remove), AtomCurve::new(&pair, 1.0, Direction::Add));
        close(remove.infinite(), add.infinite(), 1e-12);
        for at in [-2.03, -0.51, 0.04, 0.77, 3.31] {
            let (one, other) = (remove.above(at), add.above(at));
            close(one.p, other.p, 1e-12);
            close(one.q, other.q, 1e-12);
            let below = remove.below(at);
            assert!((one.p + below.p + remove.infinite() - 1.0).abs() < 1e-12, "{noise:?} {at}");
        }
    }
}

#[test]
fn replaced_contributions_count_twice() {
    let replace = |event: &DpEvent| event.under(NeighboringRelation::ReplaceOne);
    assert_eq!(replace(&gaussian(2.0)).unwrap(), gaussian(1.0));
    let noise = IntegerNoise::Skellam { mu: 3.0 };
    assert_eq!(replace(&sampled(1.0, shift(noise, 2))).unwrap(), shift(noise, 4));
    assert_eq!(replace(&response(1.0, 4)).unwrap(), response(1.0, 4));
    assert_eq!(replace(&DpEvent::PureDp { epsilon: 0.5 }).unwrap(), DpEvent::PureDp { epsilon: 1.0 });
    let zcdp = |rho| DpEvent::ZeroConcentrated { rho, xi: 0.0 };
    assert_eq!(replace(&DpEvent::Composed(vec![zcdp(0.1)])).unwrap(), DpEvent::Composed(vec![zcdp(0.4)]));
    // Twice the sensitivity costs at least as much as once, and no more than pure DP of twice the epsilon.
    let (once, twice) = (DpEvent::Laplace { noise_multiplier: 2.0 }, DpEvent::Laplace { noise_multiplier: 1.0 });
    assert_eq!(replace(&once).unwrap(), twice);
    assert!(
        interval(&twice, 5, 1e-5).low <= interval(&replace(&DpEvent::PureDp { epsilon: 0.5 }).unwrap(), 5, 1e-5).high
    );
    for refused in [
        sampled(0.5, gaussian(1.0)),
        DpEvent::SkellamMixture { mu: 9.0, l2_bound: 1.0, dim: None },
        mixture(),
        DpEvent::ZeroConcentrated { rho: 0.1, xi: 0.1 },
    ] {
        let error = replace(&refused).unwrap_err();
        assert!(error.to_string().contains("replace-one"), "{error}");
        assert_eq!(refused.under(NeighboringRelation::ZeroOut).unwrap(), refused);
    }
}

fn allocated(participations: u64, rounds: u64, event: DpEvent) -> DpEvent {
    DpEvent::RandomAllocation { participations, rounds, event: Box::new(event) }
}

fn epsilon_at(event: &DpEvent, delta: f64) -> f64 {
    epsilon(event, 1, delta)
}

/// Below what those see who know the rounds, and the more the fewer of them there are.
#[test]
fn random_allocations_lie_where_they_should() {
    for (k, rounds, sigma) in [(1, 100, 1.0), (4, 100, 2.0), (10, 1000, 4.0), (30, 40, 3.0)] {
        let found = epsilon_at(&allocated(k, rounds, gaussian(sigma)), 1e-6);
        let known = epsilon_at(&DpEvent::SelfComposed { event: Box::new(gaussian(sigma)), count: k }, 1e-6);
        assert!(found < known, "{k} of {rounds}: {found} {known}");
        // Fewer rounds to hide in, more participations, less noise: more.
        assert!(epsilon_at(&allocated(k, rounds - 1, gaussian(sigma)), 1e-6) >= found * (1.0 - 1e-9));
        assert!(epsilon_at(&allocated(k + 1, rounds, gaussian(sigma)), 1e-6) >= found);
        assert!(epsilon_at(&allocated(k, rounds, gaussian(0.9 * sigma)), 1e-6) >= found);
    }
    // All rounds is no sampling; twice is a composition.
    let all = epsilon_at(&allocated(5, 5, gaussian(3.0)), 1e-6);
    close(all, epsilon_at(&DpEvent::SelfComposed { event: Box::new(gaussian(3.0)), count: 5 }, 1e-6), 1e-6);
    let twice = DpEvent::Composed(vec![allocated(1, 50, gaussian(2.0)), allocated(1, 50, gaussian(2.0))]);
    assert!(epsilon_at(&twice, 1e-6) > epsilon_at(&allocated(1, 50, gaussian(2.0)), 1e-6));
    // The other mechanisms that one round is known of.
    for event in [
        shift(IntegerNoise::Skellam { mu: 200.0 }, 3),
        DpEvent::SkellamMixture { mu: 1428.0, l2_bound: 64.0, dim: None },
        DpEvent::SkellamVector { mu: 1428.0, l1_bound: 90.0, l2_bound: 64.0 },
        response(1.0, 2),
        DpEvent::Laplace { noise_multiplier: 2.0 },
    ] {
        let found = epsilon_at(&allocated(2, 200, event.clone()), 1e-6);
        assert!(
            found < epsilon_at(&DpEvent::SelfComposed { event: Box::new(event.clone()), count: 2 }, 1e-6),
            "{event:?}"
        );
    }
    let mut rdp = RdpAccountant::new();
    for bad in [allocated(0, 5, gaussian(1.0)), allocated(6, 5, gaussian(1.0)), allocated(1, 5, gaussian(0.0))] {
        assert!(matches!(rdp.compose(&bad, 1), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
    }
}

#[test]
fn what_is_not_proved_is_refused() {
    let (mut pld, mut rdp) = (PldAccountant::new(), RdpAccountant::new());
    let unknown = |result: Result<(), PrivacyError>| matches!(result, Err(PrivacyError::UnknownEvent { .. }));
    let twice = sampled(0.1, sampled(0.1, response(1.0, 2)));
    let both = DpEvent::Composed(vec![fixed(1, 9, gaussian(1.0)), gaussian(1.0)]);
    let nested = allocated(2, 9, sampled(0.5, gaussian(1.0)));
    for event in [twice, both, fixed(1, 9, mixture()), fixed(1, 9, sampled(0.5, gaussian(1.0))), nested] {
        assert!(unknown(pld.compose(&event, 1)) && unknown(rdp.compose(&event, 1)), "{event:?}");
    }
    let huge = shift(IntegerNoise::Skellam { mu: 1e14 }, 1);
    for event in [DpEvent::ZeroConcentrated { rho: 0.1, xi: 0.0 }, allocated(2, 9, gaussian(1.0)), huge.clone()] {
        assert!(unknown(pld.compose(&event, 1)), "{event:?}");
    }
    // What is too long for a table has the published bound.
    close(rdp_at(&huge, 2.0), 0.5e-14, 1e-6);
    assert!(unknown(rdp.compose(&mixture(), 1)));
    // A fixed size and add-remove are about other neighbours.
    pld.compose(&gaussian(1.0), 1).unwrap();
    rdp.compose(&gaussian(1.0), 1).unwrap();
    assert!(
        unknown(pld.compose(&fixed(1, 9, gaussian(1.0)), 1)) && unknown(rdp.compose(&fixed(1, 9, gaussian(1.0)), 1))
    );
    for bad in [
        shift(IntegerNoise::Skellam { mu: 0.0 }, 1),
        shift(IntegerNoise::DiscreteGaussian { sigma: f64::NAN }, 1),
        shift(IntegerNoise::DiscreteLaplace { scale: -1.0 }, 1),
        shift(IntegerNoise::CenteredBinomial { trials: 0 }, 1),
        shift(IntegerNoise::CenteredBinomial { trials: 5 }, 0),
        DpEvent::Laplace { noise_multiplier: f64::INFINITY },
        response(f64::NAN, 2),
        response(1.0, 1),
        DpEvent::PureDp { epsilon: -1.0 },
        DpEvent::ZeroConcentrated { rho: f64::NAN, xi: 0.0 },
        DpEvent::MixtureOfGaussians { sigma: 1.0, sensitivities: vec![1.0], probabilities: vec![0.5] },
        DpEvent::MixtureOfGaussians { sigma: 1.0, sensitivities: vec![-1.0], probabilities: vec![1.0] },
        DpEvent::SkellamVector { mu: 5.0, l1_bound: f64::NAN, l2_bound: 1.5 },
        fixed(10, 9, gaussian(1.0)),
        fixed(0, 0, gaussian(1.0)),
    ] {
        for accountant in [&mut pld as &mut dyn Accountant, &mut rdp] {
            let error = accountant.compose(&bad, 1).unwrap_err();
            assert!(matches!(error, PrivacyError::OutOfRange { .. }), "{bad:?}: {error}");
        }
    }
}

#[test]
fn extremes_stay_bounds_here_too() {
    for event in [
        shift(IntegerNoise::Skellam { mu: 1e-3 }, 1),
        shift(IntegerNoise::Skellam { mu: 2.0 }, 100_000),
        shift(IntegerNoise::Skellam { mu: 1e8 }, 1),
        shift(IntegerNoise::DiscreteGaussian { sigma: 1e-3 }, 1),
        shift(IntegerNoise::DiscreteGaussian { sigma: 1e-3 }, u64::MAX),
        shift(IntegerNoise::DiscreteLaplace { scale: 1e-3 }, 5),
        shift(IntegerNoise::DiscreteLaplace { scale: 1e9 }, 3),
        shift(IntegerNoise::CenteredBinomial { trials: 1 }, 1),
        shift(IntegerNoise::CenteredBinomial { trials: 3 }, u64::MAX),
        DpEvent::Laplace { noise_multiplier: 1e-4 },
        DpEvent::Laplace { noise_multiplier: 1e9 },
        response(1e4, 2),
        response(1e-9, u64::MAX),
        DpEvent::PureDp { epsilon: f64::MAX },
    ] {
        for (rate, count) in [(1.0, 1), (1e-6, 10), (0.5, 1000), (0.999_999, 3)] {
            let event = sampled(rate, event.clone());
            let mut pld = PldAccountant::new();
            let rdp = epsilon(&event, count, 1e-7);
            assert!(rdp >= 0.0, "{event:?}: {rdp}");
            if pld.compose(&event, count).is_err() {
                continue;
            }
            let found = pld.interval(1e-7).unwrap();
            assert!(found.low >= 0.0 && found.low <= found.high, "{event:?} {count}: {found:?}");
            assert!(found.low <= rdp * (1.0 + 1e-9), "{event:?} {count}: {found:?} {rdp}");
            let delta = pld.delta_interval(1.0).unwrap();
            assert!(0.0 <= delta.low && delta.low <= delta.high && delta.high <= 1.0, "{event:?} {count}: {delta:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn composed_answers_meet_the_binomial_sum(
        epsilon in 0.02f64..3.0, count in 2u64..60, share in 0.0f64..1.0, ln_delta in -25.0f64..-0.5,
    ) {
        let mut accountant = PldAccountant::new();
        accountant.compose(&response(epsilon, 2), count).unwrap();
        let at = share * epsilon * count as f64;
        let (found, exact) = (accountant.delta_interval(at).unwrap(), response_delta(epsilon, count, at));
        prop_assert!(found.low <= exact * (1.0 + 1e-9) + 1e-300, "{found:?} {exact}");
        prop_assert!(exact * (1.0 - 1e-9) <= found.high, "{found:?} {exact}");
        let delta = ln_delta.exp();
        let found = accountant.interval(delta).unwrap();
        prop_assert!(response_delta(epsilon, count, found.high) <= delta * (1.0 + 1e-9), "{found:?}");
        prop_assert!(found.low == 0.0 || response_delta(epsilon, count, found.low) >= delta * (1.0 - 1e-9), "{found:?}");
        prop_assert!(found.high - found.low <= 3e-3 * found.high + 1e-9, "{found:?}");
    }

    #[test]
    fn costs_grow_with_count_rate_and_shift_and_fall_with_noise_and_delta(
        variance in 0.5f64..400.0, sensitivity in 1u64..4, ln_rate in -5.0f64..-0.05, count in 1u64..300,
        ln_delta in -20.0f64..-4.0, kind in 0..6,
    ) {
        let (rate, delta) = (ln_rate.exp(), ln_delta.exp());
        let event = |variance: f64, sensitivity: u64| match kind {
            0 => shift(IntegerNoise::Skellam { mu: 0.5 * variance }, sensitivity),
            1 => shift(IntegerNoise::DiscreteGaussian { sigma: variance.sqrt() }, sensitivity),
            2 => shift(IntegerNoise::DiscreteLaplace { scale: (0.5 * variance).sqrt() }, sensitivity),
            3 => shift(IntegerNoise::CenteredBinomial { trials: 4 * variance as u64 + 200 }, sensitivity),
            4 => DpEvent::Laplace { noise_multiplier: (0.5 * variance).sqrt() / sensitivity as f64 },
            _ => response(sensitivity as f64 / variance.sqrt(), 3),
        };
        let ask = |event: DpEvent, rate: f64, count: u64, delta: f64| interval(&sampled(rate, event), count, delta);
        let here = ask(event(variance, sensitivity), rate, count, delta);
        prop_assert!(here.low >= 0.0 && here.low <= here.high, "{here:?}");
        let rdp = epsilon(&sampled(rate, event(variance, sensitivity)), count, delta);
        prop_assert!(rdp >= here.low, "{here:?} {rdp}");
        for more in [
            ask(event(variance * 0.7, sensitivity), rate, count, delta),
            ask(event(variance, sensitivity + 1), rate, count, delta),
            ask(event(variance, sensitivity), (rate * 1.3).min(1.0), count, delta),
            ask(event(variance, sensitivity), rate, count * 2, delta),
            ask(event(variance, sensitivity), rate, count, delta * 0.3),
        ] {
            prop_assert!(more.high >= here.low, "{here:?} {more:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Of allocations, biased coins and shares of discrete Gaussians.
    #[test]
    fn what_has_an_upper_bound_only_moves_with_every_parameter(
        noise in 1.0f64..8.0, k in 1u64..20, rounds in 20u64..2000, coins in 1u64..20, clients in 20u64..500,
        bias in 0.005f64..0.2, norm in 1.0f64..6.0, ln_delta in -20.0f64..-4.0,
    ) {
        let delta = ln_delta.exp();
        let best = |event: DpEvent| Rule::Best.epsilon(&event, 1, delta).unwrap().epsilon;
        let allocation = |noise: f64, k: u64, rounds: u64| best(allocated(k, rounds, gaussian(noise)));
        let here = allocation(noise, k, rounds) * (1.0 - 1e-9);
        prop_assert!(allocation(0.9 * noise, k, rounds) >= here);
        prop_assert!(allocation(noise, k + 1, rounds + 1) >= here * 0.999 && allocation(noise, k, rounds + 1) <= here * (1.0 + 1e-6));
        let biased = |clients: u64, most_bias: f64, norm: f64| {
            best(DpEvent::PoissonBinomialVector { coins, others: coins * clients, most_bias, l2_bound: norm * most_bias })
        };
        // Orders beyond some hundred bound tails in buckets, which fall now here, now there.
        let here = biased(clients, bias, norm) * (1.0 - 1e-3);
        prop_assert!(biased(clients - 5, bias, norm) >= here && biased(clients, 1.1 * bias, norm) >= here);
        prop_assert!(biased(clients, bias, 1.1 * norm) >= here);
        let shares = |sigma: f64, norm: f64, rate: f64, count: u64| {
            let event =
                DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound: 32.0 * norm, l2_bound: norm, dim: 1024 };
            Rule::Best.epsilon(&sampled(rate, event), count, delta).unwrap().epsilon
        };
        let here = shares(noise + 1.0, norm, 0.1, 20) * (1.0 - 1e-3);
        prop_assert!(shares(0.9 * (noise + 1.0), norm, 0.1, 20) >= here && shares(noise + 1.0, norm + 1.0, 0.1, 20) >= here);
        prop_assert!(shares(noise + 1.0, norm, 0.12, 20) >= here && shares(noise + 1.0, norm, 0.1, 25) >= here);
    }
}

#[test]
fn the_command_knows_them() {
    let v = account_json("--mechanism skellam --mu 0.5 --cohort 100 --sensitivity 2 --delta 1e-5");
    close(f(&v["epsilon"]), 0.7141035347642916, 1e-9);
    assert!(v["mu_total"] == 50.0 && v["sensitivity"] == 2 && v["neighboring"] == "zero-out" && v["clip"].is_null());
    let v = account_json("--mechanism discrete-gaussian --noise-multiplier 1 --sensitivity 2 --cohort 1 --delta 1e-5");
    close(f(&v["epsilon"]), 4.407873898189421, 1e-9);
    let twice = account_json(
        "--mechanism discrete-gaussian --noise-multiplier 2 --neighboring replace-one --cohort 1 --delta 1e-5",
    );
    close(f(&twice["epsilon"]), 4.407873898189421, 1e-9);
    assert_eq!(twice["neighboring"], "replace-one");
    let v = account_json(
        "--mechanism randomized-response --release-epsilon 1.0986122886681098 --cohort 1 --rounds 10 --delta 1e-12",
    );
    close(f(&v["epsilon"]), 10.986, 1e-4);
    assert_eq!((&v["neighboring"], &v["view"]), (&"replace-one".into(), &"server".into()));
    let fixed = "--mechanism laplace --noise-multiplier 2 --cohort 100 --population 10000 --rounds 1000 --delta 1e-6";
    let poisson = account_json(fixed);
    let v = account_json(&format!("{fixed} --sampling fixed-size"));
    assert!(v["neighboring"] == "replace-one" && v["sampling"] == "fixed-size" && v["view"] == "public");
    assert!(f(&v["epsilon"]) > f(&poisson["epsilon"]) && f(&v["epsilon_server_view"]) > f(&v["epsilon"]));
    let v = account_json("--mechanism zcdp --rho 0.1 --cohort 1 --delta 1e-6");
    assert!(f(&v["epsilon"]) <= 2.143043523753668 && v["epsilon_low"].is_null());
    let v = account_json("--mechanism discrete-laplace --cohort 10 --delta 1e-6 --target-epsilon 1");
    assert!(f(&v["epsilon"]) <= 1.0 && f(&v["epsilon"]) > 0.999 && f(&v["noise_multiplier"]) > 0.1);
    for (line, says) in [
        ("--mechanism skellam --cohort 10 --delta 1e-5", "--mu"),
        ("--mechanism skellam --mu 1 --noise-multiplier 1 --cohort 10 --delta 1e-5", "--noise-multiplier"),
        ("--mechanism laplace --noise-multiplier 1 --trials 3 --cohort 10 --delta 1e-5", "does not take --trials"),
        ("--mechanism centered-binomial --cohort 10 --delta 1e-5", "--trials"),
        ("--mechanism centered-binomial --trials 0 --cohort 10 --delta 1e-5", "trials is 0"),
        ("--mechanism randomized-response --cohort 10 --delta 1e-5", "--release-epsilon"),
        ("--mechanism zcdp --cohort 10 --delta 1e-5", "--rho"),
        ("--mechanism zcdp --rho 1 --target-epsilon 1 --cohort 10 --delta 1e-5", "--rho: give one of the two"),
        ("--mechanism laplace --noise-multiplier 1 --sampling fixed-size --cohort 10 --delta 1e-5", "--population"),
        (
            "--mechanism laplace --noise-multiplier 1 --neighboring replace-one --cohort 10 --population 20 --delta 1e-5",
            "replace-one",
        ),
        ("--mechanism skellam --mu 1 --neighboring add-remove --cohort 10 --delta 1e-5", "zero"),
        ("--gamma 64 --mu 1 --neighboring replace-one --cohort 10 --delta 1e-5", "zero-out"),
        ("--gamma 64 --mu 1 --sampling fixed-size --population 20 --cohort 10 --delta 1e-5", "fixed-size"),
    ] {
        let (code, out, err) = super::account(line);
        assert!(code == 2 && out.is_empty() && err.contains(says), "{line}: {code} {err}");
    }
}
