//! Matrix mechanisms: sensitivities and errors against dense matrices, the streamed noise against its definition.

use serde_json::Value;
use veilsum::privacy::matrix::noise::CorrelatedNoise;
use veilsum::privacy::matrix::{MatrixKind, Objective, Participation, Strategy};

/// What `scripts/matrix_vectors.py` wrote.
fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/matrix.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn strategy(case: &Value) -> Strategy {
    let rounds = case["rounds"].as_u64().unwrap();
    match case.get("coefficients") {
        Some(c) => Strategy::banded(&numbers(c), rounds).unwrap(),
        None => Strategy::blt(&numbers(&case["decay"]), &numbers(&case["weight"]), rounds).unwrap(),
    }
}

fn near(found: f64, expected: f64, relative: f64) -> bool {
    (found - expected).abs() <= relative * expected
}

#[test]
fn errors_are_those_of_dense_matrices() {
    for case in vectors()["cases"].as_array().unwrap() {
        let error = strategy(case).prefix_error();
        // The program's coefficients lie on a grid of 2^-40.
        assert!(near(error.max, case["max"].as_f64().unwrap(), 1e-9), "{case}: {error:?}");
        assert!(near(error.mean, case["mean"].as_f64().unwrap(), 1e-9), "{case}: {error:?}");
    }
}

#[test]
fn sensitivities_are_the_largest_over_every_pattern() {
    let mut seen = 0;
    for case in vectors()["cases"].as_array().unwrap() {
        for row in case["sensitivities"].as_array().unwrap() {
            let [max, separation, expected] = [0, 1, 2].map(|i| row[i].as_f64().unwrap());
            let participation = Participation { max: max as u64, separation: separation as u64 };
            let found = strategy(case).sensitivity(participation).unwrap();
            assert!(near(found, expected, 1e-10), "{} {participation:?}: {found} {expected}", case["name"]);
            seen += 1;
        }
    }
    assert!(seen >= 40, "{seen}");
}

#[test]
fn square_roots_have_their_known_error() {
    for row in vectors()["square_roots"].as_array().unwrap() {
        let [n, exact, asymptotic] = [0, 1, 2].map(|i| row[i].as_f64().unwrap());
        let once = Participation { max: 1, separation: 1 };
        let kind = MatrixKind::SquareRoot { bands: n as u32 };
        let matrix = Strategy::new(kind, n as u64, once).unwrap();
        let found = matrix.sensitivity(once).unwrap() * matrix.prefix_error().max;
        assert!(near(found, exact, 1e-7), "{n}: {found} {exact}");
        assert!(n < 16.0 || near(found, asymptotic, 0.01 / n.ln()), "{n}: {found} {asymptotic}");
    }
}

/// Error at a fixed privacy.
fn cost(kind: MatrixKind, rounds: u64, participation: Participation, objective: Objective) -> f64 {
    let matrix = Strategy::new(kind, rounds, participation).unwrap();
    let error = matrix.prefix_error();
    matrix.sensitivity(participation).unwrap() * if objective == Objective::Max { error.max } else { error.mean }
}

#[test]
fn optimized_matrices_beat_what_they_started_from() {
    for (rounds, max, separation) in [(256, 1, 256), (256, 4, 64), (512, 8, 64)] {
        let participation = Participation { max, separation };
        for objective in [Objective::Max, Objective::Mean] {
            let cost = |kind| cost(kind, rounds, participation, objective);
            let independent = cost(MatrixKind::Independent);
            let root = cost(MatrixKind::SquareRoot { bands: 16 });
            let banded = cost(MatrixKind::Banded { bands: 16, objective });
            let wide = cost(MatrixKind::Banded { bands: 64, objective });
            let blt = cost(MatrixKind::Blt { degree: 4, objective });
            assert!(banded <= root && banded < independent, "{independent} {root} {banded}");
            assert!(wide <= banded * (1.0 + 1e-6), "{banded} {wide}");
            assert!(blt < independent, "{blt}");
        }
    }
    // Where everybody takes part in every round there is nothing to gain, and the optimizer finds the identity.
    let always = Participation { max: 100, separation: 1 };
    let banded = cost(MatrixKind::Banded { bands: 16, objective: Objective::Max }, 100, always, Objective::Max);
    assert!((banded / 100.0 - 1.0).abs() < 1e-9, "{banded}");
    // One participation in 4096 rounds: within 1 % of the square root with all bands, with four buffers in place of 4095.
    let once = Participation { max: 1, separation: 1 };
    let root = cost(MatrixKind::SquareRoot { bands: 4096 }, 4096, once, Objective::Max);
    let blt = cost(MatrixKind::Blt { degree: 5, objective: Objective::Max }, 4096, once, Objective::Max);
    assert!(blt < 1.01 * root, "{blt} {root}");
}

/// Integers that are as large as noise gets, from a fixed recurrence.
fn integers(rounds: usize, dim: usize) -> Vec<Vec<i64>> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 - (1 << 30)
    };
    (0..rounds).map(|_| (0..dim).map(|_| next()).collect()).collect()
}

fn families() -> [MatrixKind; 4] {
    let objective = Objective::Max;
    [
        MatrixKind::Independent,
        MatrixKind::SquareRoot { bands: 5 },
        MatrixKind::Banded { bands: 9, objective },
        MatrixKind::Blt { degree: 3, objective },
    ]
}

/// `C N` is Z up to half a step a coordinate, which is what the privacy rests on; and so N is `C^-1 Z` up to a few steps.
#[test]
fn streamed_noise_solves_its_equation() {
    let (rounds, dim) = (60, 5000);
    let participation = Participation { max: 3, separation: 20 };
    for kind in families() {
        let matrix = Strategy::new(kind, rounds as u64, participation).unwrap();
        let (c, white) = (matrix.coefficients(), integers(rounds, dim));
        let mut noise = CorrelatedNoise::new(&matrix, dim);
        let mut all: Vec<Vec<i64>> = Vec::new();
        for z in &white {
            let mut n = z.clone();
            noise.correlate(&mut n);
            noise.advance(&n);
            all.push(n);
        }
        let bound = matrix.rounding(participation) / 2.0 / ((rounds - 1) as f64).sqrt();
        for i in [0, 1, 4095, 4096, dim - 1] {
            let column: Vec<f64> = all.iter().map(|n| n[i] as f64).collect();
            for t in 0..rounds {
                let product: f64 = (0..=t).map(|k| c[k] * column[t - k]).sum();
                let off = (product - white[t][i] as f64).abs();
                assert!(off <= bound.max(0.5) + 1e-4, "{kind:?} {t} {i}: {off} {bound}");
            }
            let exact = matrix.solve(white.iter().map(|z| z[i] as f64).collect());
            let far = column.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(far < 8.0, "{kind:?}: {far}");
        }
    }
}

#[test]
fn a_state_that_is_put_back_gives_the_same_noise() {
    let (rounds, dim) = (12, 33);
    for kind in families() {
        let matrix = Strategy::new(kind, 12, Participation { max: 1, separation: 1 }).unwrap();
        let white = integers(rounds, dim);
        let run = |noise: &mut CorrelatedNoise, from: usize, to: usize| {
            let mut out = Vec::new();
            for z in &white[from..to] {
                let mut n = z.clone();
                noise.correlate(&mut n);
                // Asked twice, it says the same.
                let mut again = z.clone();
                noise.correlate(&mut again);
                assert_eq!(n, again);
                noise.advance(&n);
                out.push(n);
            }
            out
        };
        let mut first = CorrelatedNoise::new(&matrix, dim);
        run(&mut first, 0, 7);
        let stored = first.to_bytes();
        let rest = run(&mut first, 7, rounds);
        let mut second = CorrelatedNoise::new(&matrix, dim);
        assert!(second.restore(&stored) && run(&mut second, 7, rounds) == rest);
        assert!(!second.restore(&[&stored[..], &[0]].concat()));
    }
}

#[test]
fn what_is_not_proved_is_refused() {
    let once = Participation { max: 1, separation: 1 };
    for c in [&[][..], &[0.5], &[1.0, 0.2, 0.3], &[1.0, -0.1], &[1.0, f64::NAN], &[1.0, 1.5]] {
        assert!(Strategy::banded(c, 8).is_err(), "{c:?}");
    }
    for (decay, weight) in
        [(&[1.0][..], &[0.5][..]), (&[0.5], &[1.5]), (&[0.5, 0.2], &[0.5]), (&[-0.1], &[0.1]), (&[], &[])]
    {
        assert!(Strategy::blt(decay, weight, 8).is_err(), "{decay:?}");
    }
    for (kind, rounds) in [
        (MatrixKind::Independent, 0),
        (MatrixKind::Independent, 1 << 20),
        (MatrixKind::Banded { bands: 0, objective: Objective::Max }, 8),
        (MatrixKind::Blt { degree: 9, objective: Objective::Max }, 8),
    ] {
        assert!(Strategy::new(kind, rounds, once).is_err(), "{kind:?}");
    }
    for participation in [Participation { max: 0, separation: 1 }, Participation { max: 1, separation: 0 }] {
        assert!(Strategy::banded(&[1.0], 8).unwrap().sensitivity(participation).is_err());
    }
}
