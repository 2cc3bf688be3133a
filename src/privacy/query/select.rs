//! Which of many has the best score: the exponential mechanism and permute-and-flip, by exact coins.
//!
//! With `u*` the best score, a candidate is kept with probability `e^-(epsilon (u* - u_i) / (2 D))`, D how far one record
//! moves a score. To draw candidates at random until one is kept is the exponential mechanism (McSherry, Talwar 2007: the
//! probabilities of acceptance are in its ratios); to go once through them in random order, and take the first that is
//! kept, is permute-and-flip (McKenna, Sheldon 2020, Algorithm 1), never worse in expectation. Both are epsilon-DP.
//!
//! Where one record moves all scores in the same direction (counts), the 2 is dropped: for the exponential mechanism
//! because numerator and sum move together; permute-and-flip is the report of the noisiest maximum with exponential noise
//! (Ding et al. 2021), whose threshold and score then both move by 0 to D.

use super::{MAX_PART, PureBudget};
use crate::math::prg::StreamReader;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;

/// How a candidate is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Probabilities in the ratios `e^(epsilon u_i / (2 D))`.
    Exponential,
    /// The same privacy, a better expected score.
    PermuteAndFlip,
}

/// How far a record moves the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensitivity {
    /// Greatest change of a score, 1 to 2^30.
    pub most: u64,
    /// True if a record moves all scores in one direction.
    pub monotone: bool,
}

/// What a selection costs.
#[must_use]
pub fn event(budget: PureBudget) -> DpEvent {
    DpEvent::PureDp { epsilon: budget.epsilon() }
}

/// The index of the candidate drawn.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] without candidates, or for a sensitivity outside its range.
pub fn select(
    scores: &[i64],
    sensitivity: Sensitivity,
    method: Selection,
    budget: PureBudget,
    reader: &mut StreamReader,
) -> Result<usize, PrivacyError> {
    let Some(&best) = scores.iter().max() else {
        let expected = "at least one".to_owned();
        return Err(PrivacyError::OutOfRange { name: "candidates", expected, found: "none".into() });
    };
    if !(1..=MAX_PART).contains(&sensitivity.most) {
        let (expected, found) = (format!("1 to {MAX_PART}"), sensitivity.most.to_string());
        return Err(PrivacyError::OutOfRange { name: "sensitivity", expected, found });
    }
    let divisor = if sensitivity.monotone { sensitivity.most } else { 2 * sensitivity.most };
    let kept = |reader: &mut StreamReader, i: usize| budget.keeps(reader, best.abs_diff(scores[i]), divisor);
    match method {
        Selection::Exponential => loop {
            let i = reader.below(scores.len() as u64) as usize;
            if kept(reader, i) {
                return Ok(i);
            }
        },
        Selection::PermuteAndFlip => {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            reader.shuffle(&mut order);
            // The best is always kept.
            Ok(order.into_iter().find(|&i| kept(reader, i)).unwrap_or(0))
        }
    }
}

/// Scores of candidates for the `a/b` quantile of `values`: `-|(b - a) below - a above|`, the counts of values strictly
/// below and above the candidate. A record moves a score by at most `max(a, b - a)`, up or down. Values that are not
/// numbers do not count.
#[must_use]
pub fn quantile_scores(values: &[f64], candidates: &[f64], (a, b): (u32, u32)) -> Vec<i64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let (a, rest) = (i64::from(a), i64::from(b) - i64::from(a));
    let score = |&v: &f64| {
        let below = sorted.partition_point(|&x| x < v) as i64;
        let above = (sorted.len() - sorted.partition_point(|&x| x <= v)) as i64;
        -(rest * below - a * above).abs()
    };
    candidates.iter().map(score).collect()
}

/// The sensitivity of [`quantile_scores`].
#[must_use]
pub fn quantile_sensitivity((a, b): (u32, u32)) -> Sensitivity {
    Sensitivity { most: u64::from(a.max(b.saturating_sub(a))), monotone: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    const DRAWS: usize = 40_000;

    fn shares(scores: &[i64], sensitivity: Sensitivity, method: Selection) -> Vec<f64> {
        let mut r = StreamKey::from_bytes([9; 32], Cipher::ChaCha8).reader(0);
        let mut seen = vec![0.0; scores.len()];
        for _ in 0..DRAWS {
            let budget = PureBudget::new(3, 2).unwrap();
            seen[select(scores, sensitivity, method, budget, &mut r).unwrap()] += 1.0 / DRAWS as f64;
        }
        seen
    }

    #[test]
    fn the_exponential_mechanism_has_its_law() {
        let scores = [5, 3, 4, 5, -2];
        for sensitivity in [Sensitivity { most: 1, monotone: false }, Sensitivity { most: 2, monotone: true }] {
            let rate = 1.5 / (if sensitivity.monotone { 1.0 } else { 2.0 } * sensitivity.most as f64);
            let weights = scores.map(|u| (rate * u as f64).exp());
            let total: f64 = weights.iter().sum();
            for (found, weight) in shares(&scores, sensitivity, Selection::Exponential).iter().zip(weights) {
                assert!((found - weight / total).abs() < 0.0125, "{found} {}", weight / total);
            }
        }
    }

    /// Against the law of permute-and-flip by its definition, over all orders of three candidates.
    #[test]
    fn permute_and_flip_has_its_law() {
        let scores = [4, 2, 3];
        let sensitivity = Sensitivity { most: 1, monotone: true };
        let keep = scores.map(|u: i64| (1.5 * (u - 4) as f64).exp());
        let mut exact = [0.0; 3];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut left = 1.0 / 6.0;
            for i in order {
                exact[i] += left * keep[i];
                left *= 1.0 - keep[i];
            }
        }
        let found = shares(&scores, sensitivity, Selection::PermuteAndFlip);
        let plain = shares(&scores, sensitivity, Selection::Exponential);
        for (found, exact) in found.iter().zip(exact) {
            assert!((found - exact).abs() < 0.0125, "{found} {exact}");
        }
        assert!(found[0] > plain[0]);
    }

    /// No record moves a score further than is accounted.
    #[test]
    fn quantile_scores_keep_their_sensitivity() {
        let candidates: Vec<f64> = (0..=10).map(f64::from).collect();
        for quantile in [(1, 2), (1, 4), (9, 10)] {
            let most = quantile_sensitivity(quantile).most as i64;
            let values = [1.0, 2.0, 2.0, 5.0, 7.5, f64::NAN, 9.0];
            let before = quantile_scores(&values, &candidates, quantile);
            for more in [-1.0, 0.0, 2.0, 2.5, 10.0, 11.0, f64::NAN] {
                let after = quantile_scores(&[&values[..], &[more]].concat(), &candidates, quantile);
                assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= most), "{more}");
            }
        }
        let many: Vec<f64> = (0..1000).map(|i| f64::from(i) / 100.0).collect();
        let scores = quantile_scores(&many, &candidates, (1, 4));
        let best = scores.iter().enumerate().max_by_key(|(_, s)| **s).unwrap().0;
        assert!(best == 2 || best == 3, "{scores:?}");
    }

    #[test]
    fn nothing_to_choose_from_is_refused() {
        let mut r = StreamKey::from_bytes([9; 32], Cipher::ChaCha8).reader(0);
        let budget = PureBudget::new(1, 1).unwrap();
        for (scores, most) in [(&[][..], 1), (&[1], 0), (&[1], u64::MAX)] {
            let sensitivity = Sensitivity { most, monotone: true };
            assert!(select(scores, sensitivity, Selection::Exponential, budget, &mut r).is_err());
        }
        let far = [i64::MIN, i64::MAX];
        let sensitivity = Sensitivity { most: 1, monotone: true };
        assert_eq!(select(&far, sensitivity, Selection::PermuteAndFlip, budget, &mut r).unwrap(), 1);
    }
}
