//! Attacks: their formulas, what they see, what they do to a rule.

use veilsum::backend::scalar::Scalar;
use veilsum::fl::attack::alie::z_max;
use veilsum::fl::attack::backdoor::{Corner, ImageShape};
use veilsum::fl::attack::{Attack, AttackConfig, AttackError, Backdoor, DataAttack, LabelFlip, Sight, View};

use super::*;

fn attack(config: Value) -> Box<dyn Attack> {
    serde_json::from_value::<AttackConfig>(config).unwrap().build().unwrap()
}

/// What an attack sends where honest and own vectors are such.
fn forged(config: Value, honest: &[Vec<f32>], own: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let (honest, own) = (rows(honest), rows(own));
    let view = View { honest: Some(&honest), own: Some(&own), count, dim: honest.dim, round: 1 };
    let found = attack(config).forge(&Simd::new(), &view, &stream(1)).unwrap();
    assert_eq!((found.rows, found.dim), (count, honest.dim));
    (0..count).map(|i| found.row(i).unwrap().to_vec()).collect()
}

fn moments(x: &[Vec<f32>]) -> (Vec<f64>, Vec<f64>) {
    let wide = super::naive::widened(x);
    let mean = super::naive::mean(&wide);
    let std = (0..mean.len())
        .map(|l| (wide.iter().map(|row| (row[l] - mean[l]).powi(2)).sum::<f64>() / (x.len() as f64 - 1.0)).sqrt())
        .collect();
    (mean, std)
}

fn apart2(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum()
}

#[test]
fn sign_flip_label_flip_and_backdoor_multiply_their_own_rows() {
    let (honest, own) = (cohort(1, 5, 4, 0, 0.5), cohort(2, 2, 4, 0, 0.5));
    for (config, factor) in [
        (json!({"sign-flip": {}}), -1.0),
        (json!({"sign-flip": {"strength": 4.0}}), -4.0),
        (json!({"label-flip": {}}), 1.0),
        (json!({"label-flip": {"from": 1, "to": 7, "strength": 2.0}}), 2.0),
        (json!({"backdoor": {"target": 0, "strength": 8.0}}), 8.0),
    ] {
        for (row, own) in forged(config.clone(), &honest, &own, 2).iter().zip(&own) {
            assert!(row.iter().zip(own).all(|(&a, &b)| a == factor * b), "{config}");
        }
    }
}

#[test]
fn gaussian_rows_have_their_deviation_and_differ() {
    let x = vec![vec![0.0; 20_000]; 1];
    let rows = forged(json!({"gaussian": {"strength": 3.0}}), &x, &x, 2);
    assert_ne!(rows[0], rows[1]);
    for row in &rows {
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / 20_000.0;
        let square = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 20_000.0;
        // Six standard deviations of either estimate.
        assert!(mean.abs() < 6.0 * 3.0 / 20_000f64.sqrt(), "{mean}");
        assert!((square - 9.0).abs() < 6.0 * 9.0 * (2.0 / 20_000f64).sqrt(), "{square}");
    }
    assert_eq!(rows, forged(json!({"gaussian": {"strength": 3.0}}), &x, &x, 2));
}

#[test]
fn free_riders_send_nothing_or_noise_that_falls() {
    let x = vec![vec![1.0; 4000]; 3];
    assert_eq!(forged(json!({"free-rider": {}}), &x, &x, 2), vec![vec![0.0; 4000]; 2]);
    let rider = attack(json!({"free-rider": {"strength": 2.0, "decay": 1.0}}));
    let norm = |round| {
        let view = View { count: 1, dim: 4000, round, ..View::default() };
        let found = rider.forge(&Scalar, &view, &stream(1)).unwrap();
        found.row(0).unwrap().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    };
    assert!((norm(1) / 4000f64.sqrt() - 2.0).abs() < 0.2, "{}", norm(1));
    assert!((norm(1) / norm(4) - 4.0).abs() < 1e-3);
}

#[test]
fn inner_product_and_alie_follow_the_moments() {
    let honest = cohort(3, 9, 6, 0, 0.5);
    let (mean, std) = moments(&honest);
    for row in forged(json!({"inner-product": {"strength": 0.1}}), &honest, &honest, 9) {
        assert_close(&row, &mean.iter().map(|m| -0.1 * m).collect::<Vec<_>>(), 1e-6, "inner product");
    }
    let z = z_max(13, 4).unwrap();
    for row in forged(json!({"alie": {}}), &honest, &honest, 4) {
        let expected: Vec<f64> = mean.iter().zip(&std).map(|(m, s)| m + z * s).collect();
        assert_close(&row, &expected, 1e-6, "alie");
    }
}

/// The paper's example: 50 clients, 24 of them Byzantine, need 2 supporters of 26; tables of the normal law.
#[test]
fn z_is_the_papers() {
    assert!((z_max(50, 24).unwrap() - 1.426_076_872).abs() < 1e-8, "{}", z_max(50, 24).unwrap());
    // 25 clients, 11 Byzantine: Phi(z) = 12/14.
    assert!((z_max(25, 11).unwrap() - 1.067_570_524).abs() < 1e-8, "{}", z_max(25, 11).unwrap());
    for (n, m) in [(10, 6), (10, 10), (3, 0), (2, 1), (0, 0)] {
        let found = z_max(n, m);
        assert!(found.is_err() || found.unwrap().is_finite(), "{n} {m}");
    }
    assert!(z_max(10, 6).is_err());
}

/// As far as the bound allows, and no farther; by halving an interval, as the paper does.
#[test]
fn min_max_and_min_sum_reach_their_bounds() {
    for (seed, direction) in [(4, "unit"), (5, "std"), (6, "sign")] {
        let honest = cohort(seed, 8, 15, 0, 0.6);
        let (mean, std) = moments(&honest);
        let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
        let p: Vec<f64> = match direction {
            "unit" => mean.iter().map(|m| -m / norm).collect(),
            "std" => std.iter().map(|s| -s).collect(),
            _ => mean.iter().map(|m| -m.signum()).collect(),
        };
        let pairs = |i: usize| {
            let row: Vec<f64> = honest[i].iter().map(|&v| f64::from(v)).collect();
            honest.iter().map(move |other| apart2(&row, other)).collect::<Vec<_>>()
        };
        let largest = (0..8).flat_map(pairs).fold(0.0, f64::max);
        let widest = (0..8).map(|i| pairs(i).iter().sum::<f64>()).fold(0.0, f64::max);
        let at = |gamma: f64| mean.iter().zip(&p).map(|(m, p)| m + gamma * p).collect::<Vec<_>>();
        let halved = |inside: &dyn Fn(&[f64]) -> bool| {
            let (mut low, mut high) = (0.0, 1e3);
            for _ in 0..200 {
                let middle = (low + high) / 2.0;
                *(if inside(&at(middle)) { &mut low } else { &mut high }) = middle;
            }
            at(low)
        };
        let max = halved(&|v| honest.iter().all(|row| apart2(v, row) <= largest));
        let sum = halved(&|v| honest.iter().map(|row| apart2(v, row)).sum::<f64>() <= widest);
        for (name, expected) in [("min-max", max), ("min-sum", sum)] {
            for row in forged(json!({name: {"direction": direction}}), &honest, &honest, 2) {
                assert_close(&row, &expected, 1e-5, &format!("{name} {direction}"));
            }
        }
    }
    // Nothing differs, and no direction: the mean.
    let same = vec![vec![0.0; 3]; 4];
    for name in ["min-max", "min-sum"] {
        for direction in ["unit", "std", "sign"] {
            assert_eq!(forged(json!({name: {"direction": direction}}), &same, &same, 1), vec![vec![0.0; 3]]);
        }
    }
    let one = vec![vec![2.0, 1.0]];
    assert_eq!(forged(json!({"min-max": {}}), &one, &one, 1), one);
}

/// Along one axis the rows differ much more than along the others: the farthest there is copied, not the longest.
#[test]
fn mimic_copies_the_row_that_stands_out() {
    let mut honest = cohort(7, 9, 6, 0, 100.0);
    for (i, row) in honest.iter_mut().enumerate() {
        row[2] += [10.0, -10.0, 8.0, -9.0, 10.0, 30.0, -10.0, 9.0, -9.0][i];
    }
    assert_eq!(forged(json!({"mimic": {}}), &honest, &honest, 3), vec![honest[5].clone(); 3]);
    assert_eq!(forged(json!({"mimic": {"row": 1}}), &honest, &honest, 1), vec![honest[1].clone()]);
    let same = vec![vec![1.0, 2.0]; 3];
    assert_eq!(forged(json!({"mimic": {}}), &same, &same, 1), vec![vec![1.0, 2.0]]);
}

/// Xie et al.'s point, and the reason for the conditions: -0.1 mean is nearer to all than honest vectors that scatter, so that
/// Krum takes it; ten times the mean and Krum does not, while the average is turned round.
#[test]
fn a_weak_inner_product_wins_krum_and_a_strong_one_wins_the_mean() {
    let (k, f, d) = (25, 11, 200);
    for (strength, krum_falls, mean_falls) in [(0.1, true, false), (10.0, false, true)] {
        let honest: Vec<Vec<f32>> = cohort(11, k - f, d, 0, 0.5);
        let bad = forged(json!({"inner-product": {"strength": strength}}), &honest, &honest, f);
        let all: Vec<Vec<f32>> = honest.iter().chain(&bad).cloned().collect();
        let (mean, _) = moments(&honest);
        let along = |v: &[f32]| v.iter().zip(&mean).map(|(&v, m)| f64::from(v) * m).sum::<f64>();
        let krum = plain(json!({"krum": {"f": f}}), &all);
        assert_eq!(krum.chosen.unwrap()[0] >= k - f, krum_falls, "{strength}");
        assert_eq!(along(&krum.vector) < 0.0, krum_falls, "{strength}");
        assert_eq!(along(&plain(json!("mean"), &all).vector) < 0.0, mean_falls, "{strength}");
    }
}

#[test]
fn labels_are_flipped() {
    let flip = LabelFlip { pair: None, strength: 1.0 };
    assert_eq!(flip.labels(4).unwrap(), [3, 2, 1, 0]);
    let one = LabelFlip { pair: Some((1, 3)), strength: 1.0 };
    assert_eq!(one.labels(4).unwrap(), [0, 3, 2, 3]);
    assert!(one.labels(3).is_err() && flip.labels(0).is_err());
    assert_eq!(attack(json!({"label-flip": {}})).data(), Some(DataAttack::Labels(&flip)));
}

#[test]
fn a_trigger_is_stamped_and_its_success_counted() {
    let door = |corner, size| Backdoor { target: 2, size, corner, value: 9.0, fraction: 0.25, strength: 1.0 };
    let shape = ImageShape { channels: 2, height: 3, width: 4 };
    for (corner, first) in
        [(Corner::TopLeft, 0), (Corner::TopRight, 2), (Corner::BottomLeft, 4), (Corner::BottomRight, 6)]
    {
        let mut image = vec![0.0; 24];
        door(corner, 2).stamp(&mut image, shape).unwrap();
        let expected: Vec<usize> = [0, 12].iter().flat_map(|c| [0, 1, 4, 5].map(|p| c + first + p)).collect();
        assert_eq!((0..24).filter(|&i| image[i] == 9.0).collect::<Vec<_>>(), expected, "{corner:?}");
    }
    assert!(door(Corner::TopLeft, 4).stamp(&mut [0.0; 24], shape).is_err());
    assert!(door(Corner::TopLeft, 0).stamp(&mut [0.0; 24], shape).is_err());
    assert!(door(Corner::TopLeft, 1).stamp(&mut [0.0; 23], shape).is_err());
    let door = door(Corner::TopLeft, 1);
    let stamped = door.stamped(10, &stream(1));
    assert_eq!((stamped.len(), stamped.windows(2).all(|w| w[0] < w[1]), stamped[2] < 10), (3, true, true));
    assert_eq!(stamped, door.stamped(10, &stream(1)));
    assert_ne!(door.stamped(100, &stream(1)), door.stamped(100, &stream(2)));
    // The target's own samples do not count.
    assert_eq!(door.success_rate(&[2, 2, 1, 2], &[0, 1, 1, 2]).unwrap(), Some(2.0 / 3.0));
    assert_eq!(door.success_rate(&[2], &[2]).unwrap(), None);
    assert!(door.success_rate(&[2], &[2, 1]).is_err());
}

#[test]
fn attacks_say_what_they_see_and_miss() {
    for (config, sees) in [
        (json!({"sign-flip": {}}), Sight::Own),
        (json!({"gaussian": {"strength": 1.0}}), Sight::Nothing),
        (json!({"label-flip": {}}), Sight::Own),
        (json!({"inner-product": {"strength": 1.0}}), Sight::HonestMean),
        (json!({"alie": {"strength": 1.0}}), Sight::Honest),
        (json!({"min-max": {}}), Sight::Honest),
        (json!({"min-sum": {}}), Sight::Honest),
        (json!({"mimic": {}}), Sight::Honest),
        (json!({"free-rider": {}}), Sight::Nothing),
        (json!({"backdoor": {"target": 1}}), Sight::Own),
    ] {
        let attack = attack(config.clone());
        assert_eq!(attack.sees(), sees, "{config}");
        assert!(config.get(attack.name()).is_some(), "{config}");
        let blind = View { count: 2, dim: 3, round: 1, ..View::default() };
        let found = attack.forge(&Scalar, &blind, &stream(1));
        assert_eq!(found.is_ok(), sees == Sight::Nothing, "{config}");
        if let Err(error) = found {
            assert!(matches!(error, AttackError::Missing { .. }), "{error}");
        }
        let other = rows(&[vec![1.0; 4], vec![2.0; 4]]);
        let wrong = View { honest: Some(&other), own: Some(&other), ..blind };
        assert_eq!(attack.forge(&Scalar, &wrong, &stream(1)).is_ok(), sees == Sight::Nothing, "{config}");
        let bad = rows(&[vec![1.0, f32::NAN, 0.0], vec![1.0; 3]]);
        if [Sight::Honest, Sight::HonestMean].contains(&sees) {
            let view = View { honest: Some(&bad), own: None, ..blind };
            let error = attack.forge(&Scalar, &view, &stream(1)).unwrap_err();
            assert!(matches!(error, AttackError::Backend(_)), "{config}: {error}");
        }
    }
    for bad in [
        json!({"sign-flip": {"strength": -1.0}}),
        json!({"gaussian": {"strength": -1.0}}),
        json!({"inner-product": {"strength": -0.1}}),
        json!({"free-rider": {"decay": -1.0}}),
        json!({"label-flip": {"from": 1}}),
        json!({"backdoor": {"target": 1, "fraction": 0.0}}),
        json!({"backdoor": {"target": 1, "size": 0}}),
    ] {
        assert!(serde_json::from_value::<AttackConfig>(bad.clone()).unwrap().build().is_err(), "{bad}");
    }
    assert!(serde_json::from_value::<AttackConfig>(json!({"gaussian": {"epsilon": 1.0}})).is_err());
}
