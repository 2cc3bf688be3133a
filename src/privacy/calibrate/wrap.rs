//! How often a sum leaves the ring.
//!
//! A coordinate of the decoded sum is predicted as `N(0, s^2)`,
//! `s^2 = noise variance + cohort * rounding variance + signal^2`, and wraps when it reaches half the ring.

use crate::math::search::bisect;
use crate::math::special::normal_two_sided_tail;
use crate::privacy::mechanism::{Mechanism, PrivacyError, fixed};

/// What fills one coordinate of the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingUse {
    /// Variance of the noise in the sum.
    pub noise_variance: f64,
    /// Expected number of clients.
    pub cohort: f64,
    /// Standard deviation of one client's stochastic rounding.
    pub rounding_std: f64,
    /// Root mean square of the summed signal in a coordinate, integer units.
    pub signal_rms: f64,
}

impl RingUse {
    /// For a Skellam mixture mechanism on rows of `dim` coordinates of full norm in independent directions:
    /// the rms signal is `sqrt(cohort) gamma C / sqrt(padded)`.
    #[must_use]
    pub fn skellam(gamma: f64, clip: f64, mu_total: f64, cohort: f64, dim: usize) -> Self {
        let padded = fixed::padded(dim, true);
        Self {
            noise_variance: 2.0 * mu_total,
            cohort,
            rounding_std: fixed::rounding_std(gamma * clip, padded),
            signal_rms: cohort.sqrt() * gamma * clip / (padded as f64).sqrt(),
        }
    }

    /// For any mechanism, rows of full norm `clip` in independent directions.
    ///
    /// # Errors
    /// As [`Mechanism::encode_params`].
    pub fn of(mechanism: &dyn Mechanism, clip: f64, cohort: f64, dim: usize) -> Result<Self, PrivacyError> {
        let padded = f64::from(mechanism.encode_params(dim)?.padded);
        Ok(Self {
            noise_variance: mechanism.noise().variance(),
            cohort,
            rounding_std: mechanism.rounding_std(dim),
            signal_rms: (cohort / padded).sqrt() * clip / mechanism.unit(),
        })
    }

    /// Standard deviation of a coordinate of the sum.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        (self.noise_variance + self.cohort * self.rounding_std * self.rounding_std + self.signal_rms * self.signal_rms)
            .sqrt()
    }

    /// Predicted share of wrapped coordinates in a ring of `bits`.
    #[must_use]
    pub fn wrap_rate(&self, bits: u32) -> f64 {
        predicted_wrap_rate(bits, self.noise_variance, self.cohort, self.rounding_std, self.signal_rms)
    }

    /// The error that says how many bits would do.
    #[must_use]
    pub fn refusal(&self, bits: u32, limit: f64) -> PrivacyError {
        PrivacyError::Wraps {
            bits,
            predicted: self.wrap_rate(bits),
            limit,
            cohort: self.cohort,
            needed: needed_bits(self, limit),
        }
    }
}

/// `P[|N(0, s^2)| >= 2^(bits-1)]`, `s^2 = noise_variance + cohort rounding_std^2 + signal_rms^2`.
#[must_use]
pub fn predicted_wrap_rate(bits: u32, noise_variance: f64, cohort: f64, rounding_std: f64, signal_rms: f64) -> f64 {
    let ring = RingUse { noise_variance, cohort, rounding_std, signal_rms };
    normal_two_sided_tail(half_ring(bits), ring.sigma())
}

/// The least width whose predicted rate is at most `limit`; may exceed the 32 bits that a ring has.
#[must_use]
pub fn needed_bits(ring: &RingUse, limit: f64) -> u32 {
    (2..=1100).find(|&bits| ring.wrap_rate(bits) <= limit).unwrap_or(u32::MAX)
}

/// The predicted rate if it is at most `limit`.
///
/// # Errors
/// [`PrivacyError::Wraps`] with the width that would do.
pub fn check_wrap(bits: u32, ring: &RingUse, limit: f64) -> Result<f64, PrivacyError> {
    let predicted = ring.wrap_rate(bits);
    if predicted <= limit { Ok(predicted) } else { Err(ring.refusal(bits, limit)) }
}

/// The largest sigma whose wrap rate is at most `limit`, by bisection on a monotone function.
pub(super) fn allowed_sigma(bits: u32, limit: f64) -> f64 {
    let half = half_ring(bits);
    // A tail of 40 sigma is 0 in f64; 1e-3 sigma is 0.999.
    bisect((half / 40.0, half * 1e3), 100, |sigma| normal_two_sided_tail(half, sigma) <= limit).0
}

fn half_ring(bits: u32) -> f64 {
    libm::exp2(f64::from(bits) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parity_setting_wraps_1_7_percent() {
        let signal = (240f64).sqrt() * 64.0 / 256.0;
        let rate = predicted_wrap_rate(8, 2856.0, 240.0, 0.0, signal);
        assert!((rate - 0.017).abs() < 0.001, "{rate}");
        let ring = RingUse::skellam(64.0, 1.0, 1428.0, 240.0, 63_610);
        assert!((ring.signal_rms - signal).abs() < 1e-12 && ring.wrap_rate(8) > rate);
        let needed = needed_bits(&ring, 1e-3);
        assert_eq!(needed, 9);
        assert_eq!(
            check_wrap(8, &ring, 1e-3),
            Err(PrivacyError::Wraps { bits: 8, predicted: ring.wrap_rate(8), limit: 1e-3, cohort: 240.0, needed })
        );
        assert!(check_wrap(9, &ring, 1e-3).unwrap() <= 1e-3);
    }

    #[test]
    fn allowed_sigma_is_the_inverse() {
        for (bits, limit) in [(2, 1e-3), (8, 1e-3), (32, 1e-6), (10, 0.5)] {
            let sigma = allowed_sigma(bits, limit);
            let rate = |s: f64| normal_two_sided_tail(half_ring(bits), s);
            assert!(rate(sigma) <= limit && rate(sigma * 1.0001) > limit);
        }
    }
}
