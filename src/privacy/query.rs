//! Central queries on data that a trusted curator holds: noisy counts, selections, sparse vectors; and answers that are
//! randomized one by one.
//!
//! All of them are exact: scores and counts are integers, budgets are fractions, and the only randomness is uniform
//! integers. No float decides a release; what is printed beside it (standard deviations, estimates) is post-processing.
//! They take a time that depends on the data and on the noise: for a curator on a machine of its own, whose clock nobody
//! else reads.
//!
//! Neighbours have or lack one record ([`NeighboringRelation::AddRemove`]), but for randomized response, which is about
//! another answer of one record.
//!
//! [`NeighboringRelation::AddRemove`]: super::NeighboringRelation::AddRemove

pub mod counts;
pub mod response;
pub mod select;
pub mod sparse;

use super::mechanism::PrivacyError;
use crate::math::prg::StreamReader;
use crate::sample::bernoulli;

/// Greatest numerator and denominator of a budget, and greatest sensitivity.
pub const MAX_PART: u64 = 1 << 30;

/// A pure epsilon as a fraction, > 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PureBudget {
    numerator: u64,
    denominator: u64,
}

fn part(name: &'static str, value: u64) -> Result<(), PrivacyError> {
    if (1..=MAX_PART).contains(&value) {
        return Ok(());
    }
    Err(PrivacyError::OutOfRange { name, expected: format!("1 to {MAX_PART}"), found: value.to_string() })
}

impl PureBudget {
    /// `numerator / denominator`.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless both are in `1..=`[`MAX_PART`].
    pub fn new(numerator: u64, denominator: u64) -> Result<Self, PrivacyError> {
        part("numerator of epsilon", numerator)?;
        part("denominator of epsilon", denominator)?;
        Ok(Self { numerator, denominator })
    }

    /// Numerator and denominator.
    #[must_use]
    pub const fn parts(self) -> (u64, u64) {
        (self.numerator, self.denominator)
    }

    /// The epsilon, rounded up.
    #[must_use]
    pub fn epsilon(self) -> f64 {
        (self.numerator as f64 / self.denominator as f64).next_up()
    }

    /// 1 with probability `e^-(epsilon distance / divisor)`, exactly. `divisor` in `1..=2^33`.
    fn keeps(self, reader: &mut StreamReader, distance: u64, divisor: u64) -> bool {
        let numerator = u128::from(self.numerator) * u128::from(distance);
        // Below 2^63.
        let denominator = self.denominator * divisor;
        let (whole, rest) = (numerator / u128::from(denominator), numerator % u128::from(denominator));
        (0..whole).all(|_| bernoulli::exp_minus_one(reader)) && bernoulli::exp_minus(reader, rest as u64, denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    #[test]
    fn coins_have_their_probability() {
        let mut r = StreamKey::from_bytes([7; 32], Cipher::ChaCha8).reader(0);
        for (n, d, distance, divisor) in [(1, 2, 3, 2), (3, 1, 1, 2), (1, 10, 0, 2), (7, 3, 1, 1)] {
            let budget = PureBudget::new(n, d).unwrap();
            let hits = (0..40_000).filter(|_| budget.keeps(&mut r, distance, divisor)).count() as f64 / 40_000.0;
            let exact = (-(n as f64) / d as f64 * distance as f64 / divisor as f64).exp();
            assert!((hits - exact).abs() < 0.0125, "{n}/{d}: {hits} {exact}");
        }
        // A coin that never shows 1 within any patience.
        assert!(!PureBudget::new(MAX_PART, 1).unwrap().keeps(&mut r, u64::MAX, 1));
    }

    #[test]
    fn budgets_are_checked() {
        for (n, d) in [(0, 1), (1, 0), (MAX_PART + 1, 1), (1, u64::MAX)] {
            assert!(PureBudget::new(n, d).is_err());
        }
        assert!(PureBudget::new(1, 10).unwrap().epsilon() >= 0.1);
    }
}
