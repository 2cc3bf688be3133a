//! Sparse vector: which counts of a long list are above a threshold, paid for by the number of those that are.
//!
//! AboveThreshold (Dwork et al. 2009; the corrected Algorithm 1 of Lyu, Su, Li 2017) with discrete Laplace noise: the
//! threshold gets noise of scale `2 / epsilon`, each count fresh noise of scale `2 c / epsilon`, and the list ends after the
//! c-th count above. For counts, which one record moves by at most 1 and all in one direction, that is epsilon-DP: half of
//! it for the threshold's noise, moved by 1, the other half for the noise of the c counts above, moved by 1 each (their
//! Theorem 4; the shifts are integers, so that the proof holds for the discrete law as it stands).
//!
//! With Gaussian noise the released list has no bound here that is proved and below that of releasing every noisy count,
//! so that it is not offered.

use super::PureBudget;
use crate::math::prg::StreamReader;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;
use crate::sample::discrete_laplace::DiscreteLaplace;

/// Most counts above that one release may tell.
pub const MAX_POSITIVES: u64 = 1 << 10;

/// What a list costs.
#[must_use]
pub fn event(budget: PureBudget) -> DpEvent {
    DpEvent::PureDp { epsilon: budget.epsilon() }
}

/// Whether each count is above the threshold, up to the `positives`-th that is.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for `positives` outside `1..=`[`MAX_POSITIVES`].
pub fn above(
    counts: &[i64],
    threshold: i64,
    positives: u64,
    budget: PureBudget,
    reader: &mut StreamReader,
) -> Result<Vec<bool>, PrivacyError> {
    if !(1..=MAX_POSITIVES).contains(&positives) {
        let (expected, found) = (format!("1 to {MAX_POSITIVES}"), positives.to_string());
        return Err(PrivacyError::OutOfRange { name: "positives", expected, found });
    }
    let (n, d) = budget.parts();
    let law = |times: u64| {
        DiscreteLaplace::new((times * d).cast_signed(), n.cast_signed()).map_err(|e| PrivacyError::OutOfRange {
            name: "epsilon",
            expected: "within the range of the sampler".into(),
            found: e.to_string(),
        })
    };
    let (for_threshold, for_counts) = (law(2)?, law(2 * positives)?);
    let noisy = threshold.saturating_add(for_threshold.draw(reader));
    let (mut told, mut left) = (Vec::new(), positives);
    for &count in counts {
        let is_above = count.saturating_add(for_counts.draw(reader)) >= noisy;
        told.push(is_above);
        left -= u64::from(is_above);
        if left == 0 {
            break;
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    #[test]
    fn clear_cases_are_told_and_the_list_ends() {
        let mut r = StreamKey::from_bytes([1; 32], Cipher::ChaCha8).reader(0);
        let budget = PureBudget::new(1, 1).unwrap();
        let counts = [0, 1000, 0, 0, 1000, 1000, 0];
        assert_eq!(above(&counts, 500, 2, budget, &mut r).unwrap(), [false, true, false, false, true]);
        assert_eq!(above(&counts, 500, 5, budget, &mut r).unwrap().len(), 7);
        assert!(above(&counts, 500, 0, budget, &mut r).is_err());
        assert!(above(&counts, 500, MAX_POSITIVES + 1, budget, &mut r).is_err());
    }

    /// Two neighbouring lists: every outcome's odds stay within e^epsilon, up to five standard deviations.
    #[test]
    fn outcomes_of_neighbours_are_within_epsilon() {
        let mut r = StreamKey::from_bytes([2; 32], Cipher::ChaCha8).reader(0);
        let budget = PureBudget::new(1, 1).unwrap();
        let mut odds = |counts: &[i64]| {
            let mut seen = std::collections::BTreeMap::<Vec<bool>, f64>::new();
            for _ in 0..60_000 {
                *seen.entry(above(counts, 3, 1, budget, &mut r).unwrap()).or_default() += 1.0;
            }
            seen
        };
        let (one, other) = (odds(&[2, 2, 3]), odds(&[3, 3, 4]));
        for (outcome, count) in &one {
            let there = other.get(outcome).copied().unwrap_or(0.0);
            let ratio = (count / there).ln().abs();
            assert!(*count < 500.0 || ratio < 1.0 + 5.0 * (1.0 / count + 1.0 / there).sqrt(), "{outcome:?} {ratio}");
        }
    }
}
