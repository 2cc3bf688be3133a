//! Randomized response: each record answers for itself, one of k categories, the true one `e^epsilon` times as likely as
//! each other (Warner 1965; Kairouz, Bonawitz, Ramage 2016).
//!
//! Exactly: a category is drawn at random until it is the true one, or a coin of `e^-epsilon` keeps another.

use super::PureBudget;
use crate::math::prg::StreamReader;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;

/// What an answer costs the one who gives it. Neighbours are another true answer.
#[must_use]
pub fn event(budget: PureBudget, categories: u64) -> DpEvent {
    DpEvent::RandomizedResponse { epsilon: budget.epsilon(), categories }
}

/// The answer of one whose truth is `truth`, below `categories`.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for fewer than two categories, or a truth that is none of them.
pub fn respond(
    truth: u64,
    categories: u64,
    budget: PureBudget,
    reader: &mut StreamReader,
) -> Result<u64, PrivacyError> {
    if categories < 2 || truth >= categories {
        let expected = "2 categories or more, and a truth among them".to_owned();
        let found = format!("{truth} of {categories}");
        return Err(PrivacyError::OutOfRange { name: "truth", expected, found });
    }
    loop {
        let answer = reader.below(categories);
        if answer == truth || budget.keeps(reader, 1, 1) {
            return Ok(answer);
        }
    }
}

/// Estimates of the true counts from those of the answers, without bias: post-processing.
#[must_use]
pub fn estimate(answers: &[u64], epsilon: f64) -> Vec<f64> {
    let (total, k) = (answers.iter().sum::<u64>() as f64, answers.len() as f64);
    let other = 1.0 / (libm::exp(epsilon) + k - 1.0);
    let gap = libm::expm1(epsilon) * other;
    answers.iter().map(|&count| (count as f64 - total * other) / gap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    #[test]
    fn answers_have_their_odds_and_give_the_counts_back() {
        let mut r = StreamKey::from_bytes([4; 32], Cipher::ChaCha8).reader(0);
        let budget = PureBudget::new(3, 2).unwrap();
        let mut answers = [0u64; 4];
        for i in 0..40_000u64 {
            let truth = if i < 30_000 { 2 } else { 0 };
            answers[respond(truth, 4, budget, &mut r).unwrap() as usize] += 1;
        }
        let likely = 1.5f64.exp() / (1.5f64.exp() + 3.0);
        let expected = 30_000.0 * likely + 10_000.0 * (1.0 - likely) / 3.0;
        assert!((answers[2] as f64 - expected).abs() < 500.0, "{answers:?} {expected}");
        let estimates = estimate(&answers, 1.5);
        for (found, truth) in estimates.iter().zip([10_000.0, 0.0, 30_000.0, 0.0]) {
            assert!((found - truth).abs() < 1000.0, "{estimates:?}");
        }
        assert!(respond(0, 1, budget, &mut r).is_err() && respond(4, 4, budget, &mut r).is_err());
    }
}
