//! Many independent runs, one canary: the error rates of a test, bounded by Clopper and Pearson.
//!
//! The attacker says "in" where the score is above a threshold; alpha is its rate of false alarms, beta that of misses.
//! A mechanism that is (epsilon, delta)-DP has (Wasserman, Zhou 2010; Kairouz, Oh, Viswanath 2015)
//!
//! ```text
//! 1 - beta <= e^epsilon alpha + delta,    1 - alpha <= e^epsilon beta + delta,
//! ```
//!
//! and one whose trade-off curve is that of a Gaussian of parameter mu (mu-GDP: Dong, Roth, Su 2022)
//! `Phi^-1(1 - alpha) - Phi^-1(beta) <= mu`. With upper bounds of alpha and beta in their place both give lower bounds,
//! of epsilon at delta and of mu (Nasr et al. 2023, "Tight auditing of differentially private machine learning").
//!
//! The first holds whatever the mechanism is, but at a small delta it needs events about as rare as delta, so that it
//! stays far below the truth. The second uses the middle of the curve, where there are many events: 10^5 runs tell
//! noise from noise that is 10 % too low. **As an epsilon at delta it assumes that the curve is a Gaussian's**, as that of
//! a Gaussian release without sampling is, and that of wide Skellam noise closely; whoever claims something else cannot be
//! judged by it.
//!
//! The thresholds are chosen on the first quarter of the runs, the rates counted on the others, and each of the two
//! bounds has half of the error, so that both hold together.

use super::binomial::rate_above;
use super::{Observation, check};
use crate::math::special::normal_tail_quantile;
use crate::privacy::mechanism::PrivacyError;

/// The runs that choose the thresholds: one in so many.
const CHOOSING: usize = 4;
/// Thresholds that are tried.
const CANDIDATES: usize = 200;

/// A lower bound and the counts behind it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bound {
    /// The bound, >= 0.
    pub value: f64,
    /// Scores above it were called "in".
    pub threshold: f64,
    /// Runs with the canary, and how many of them were missed.
    pub included: u64,
    /// Runs with the canary that were called "out".
    pub missed: u64,
    /// Runs without the canary.
    pub excluded: u64,
    /// Runs without the canary that were called "in".
    pub alarms: u64,
}

/// The two bounds of many runs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ManyRuns {
    /// epsilon at delta is at least this, whatever the mechanism.
    pub epsilon: Bound,
    /// mu is at least this.
    pub mu: Bound,
}

/// Counts of a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    included: u64,
    missed: u64,
    excluded: u64,
    alarms: u64,
}

impl Counts {
    fn of(observations: &[Observation], threshold: f64) -> Self {
        let mut counts = Self::default();
        for o in observations {
            let called = o.score > threshold;
            if o.included {
                counts.included += 1;
                counts.missed += u64::from(!called);
            } else {
                counts.excluded += 1;
                counts.alarms += u64::from(called);
            }
        }
        counts
    }

    /// Upper bounds of alpha and of beta, each with half of `error`.
    fn rates(self, error: f64) -> (f64, f64) {
        (rate_above(self.alarms, self.excluded, 0.5 * error), rate_above(self.missed, self.included, 0.5 * error))
    }

    fn bound(self, value: f64, threshold: f64) -> Bound {
        let Self { included, missed, excluded, alarms } = self;
        Bound { value, threshold, included, missed, excluded, alarms }
    }
}

/// `max ln((1 - delta - beta) / alpha)` over both directions, at least 0.
#[must_use]
pub fn epsilon_of(alpha: f64, beta: f64, delta: f64) -> f64 {
    let direction = |alpha: f64, beta: f64| {
        let ratio = (1.0 - delta - beta) / alpha;
        if ratio > 1.0 { libm::log(ratio) } else { 0.0 }
    };
    direction(alpha, beta).max(direction(beta, alpha))
}

/// `Phi^-1(1 - alpha) - Phi^-1(beta)`, at least 0.
#[must_use]
pub fn mu_of(alpha: f64, beta: f64) -> f64 {
    // Phi^-1(1 - a) is the quantile of the tail a, and -Phi^-1(b) that of b.
    let mu = normal_tail_quantile(alpha) + normal_tail_quantile(beta);
    if mu > 0.0 { mu } else { 0.0 }
}

/// Bounds epsilon at `delta` and mu; together wrong with probability at most `error`.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a score that is not finite, `delta` outside [0, 1), `error` outside (0, 1/4], fewer
/// than 8 runs.
pub fn audit(observations: &[Observation], delta: f64, error: f64) -> Result<ManyRuns, PrivacyError> {
    check(observations, delta, error)?;
    if observations.len() < 2 * CHOOSING {
        return Err(PrivacyError::OutOfRange {
            name: "runs",
            expected: format!("at least {}", 2 * CHOOSING),
            found: observations.len().to_string(),
        });
    }
    let (choosing, counting) = observations.split_at(observations.len() / CHOOSING);
    let share = 0.5 * error;
    let of_epsilon = |(alpha, beta): (f64, f64)| epsilon_of(alpha, beta, delta);
    let of_mu = |(alpha, beta): (f64, f64)| mu_of(alpha, beta);
    let (for_epsilon, for_mu) = thresholds(choosing, share, of_epsilon, of_mu);
    let counts = Counts::of(counting, for_epsilon);
    let epsilon = counts.bound(of_epsilon(counts.rates(share)), for_epsilon);
    let counts = Counts::of(counting, for_mu);
    let mu = counts.bound(of_mu(counts.rates(share)), for_mu);
    Ok(ManyRuns { epsilon, mu })
}

/// The thresholds at which `runs` themselves would prove most by either measure.
fn thresholds(
    runs: &[Observation],
    error: f64,
    first: impl Fn((f64, f64)) -> f64,
    second: impl Fn((f64, f64)) -> f64,
) -> (f64, f64) {
    let mut scores: Vec<f64> = runs.iter().map(|o| o.score).collect();
    scores.sort_by(f64::total_cmp);
    let middle = scores[scores.len() / 2];
    let mut best = [(0.0f64, middle), (0.0f64, middle)];
    let step = scores.len().div_ceil(CANDIDATES);
    for pair in scores.windows(2).step_by(step) {
        // Between two scores: neither is on the edge.
        let threshold = 0.5 * pair[0] + 0.5 * pair[1];
        let rates = Counts::of(runs, threshold).rates(error);
        for (value, best) in [first(rates), second(rates)].into_iter().zip(&mut best) {
            if value > best.0 {
                *best = (value, threshold);
            }
        }
    }
    (best[0].1, best[1].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};
    use crate::math::special::normal_tail;

    #[test]
    fn error_rates_become_bounds() {
        assert!((epsilon_of(0.01, 0.5, 0.0) - 50f64.ln()).abs() < 1e-12);
        assert!((epsilon_of(0.5, 0.01, 0.0) - 50f64.ln()).abs() < 1e-12);
        assert!((epsilon_of(0.01, 0.5, 0.1) - 40f64.ln()).abs() < 1e-12);
        assert_eq!(
            (epsilon_of(0.5, 0.5, 0.0), epsilon_of(1.0, 1.0, 0.5), mu_of(0.5, 0.6), mu_of(1.0, 0.2)),
            (0.0, 0.0, 0.0, 0.0)
        );
        for (mu, at) in [(0.1, 0.0), (1.0, 0.5), (3.0, 2.0)] {
            let (alpha, beta) = (normal_tail(at), normal_tail(mu - at));
            assert!((mu_of(alpha, beta) - mu).abs() < 1e-12);
        }
    }

    fn gaussian_runs(mu: f64, runs: usize, seed: u8) -> Vec<Observation> {
        let mut reader = StreamKey::from_bytes([seed; 32], Cipher::ChaCha8).reader(0);
        (0..runs)
            .map(|_| {
                let included = reader.next_u64() & 1 == 1;
                Observation { score: reader.next_normal() + if included { mu } else { 0.0 }, included }
            })
            .collect()
    }

    #[test]
    fn a_gaussian_is_measured_from_below() {
        for (mu, seed) in [(0.5, 1), (1.0, 2), (2.0, 3), (3.0, 4)] {
            let found = audit(&gaussian_runs(mu, 40_000, seed), 1e-5, 1e-3).unwrap();
            assert!(found.mu.value <= mu && found.mu.value > 0.85 * mu, "{mu}: {found:?}");
            // What the test could prove with all the runs in the world, at any threshold.
            assert!(found.epsilon.value < 4.0 * mu + 0.5 * mu * mu, "{mu}: {found:?}");
            assert!(found.epsilon.value > 0.3 * mu, "{mu}: {found:?}");
        }
        let nothing = audit(&gaussian_runs(0.0, 40_000, 5), 1e-5, 1e-3).unwrap();
        assert_eq!((nothing.epsilon.value, nothing.mu.value), (0.0, 0.0));
    }

    #[test]
    fn counts_add_up_and_bad_input_is_refused() {
        let runs = gaussian_runs(1.0, 400, 6);
        let found = audit(&runs, 0.0, 0.05).unwrap();
        for bound in [found.epsilon, found.mu] {
            assert_eq!(bound.included + bound.excluded, 300);
            assert!(bound.missed <= bound.included && bound.alarms <= bound.excluded);
        }
        assert!(audit(&runs[..7], 0.0, 0.05).is_err());
        assert!(audit(&runs, 1.0, 0.05).is_err() && audit(&runs, 0.0, 0.3).is_err());
        // One side empty: nothing is proved.
        let one_sided: Vec<Observation> = runs.iter().copied().filter(|o| o.included).collect();
        assert_eq!(audit(&one_sided, 0.0, 0.05).unwrap().mu.value, 0.0);
    }
}
