//! One run, many canaries (Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run").
//!
//! Each of m canaries is in or out by a fair coin of its own. The attacker sees the output and guesses r of the coins,
//! abstaining from the others; v guesses are right. If the mechanism is (epsilon, delta)-DP with regard to each canary,
//! then (Theorem 5.2 and Corollary 5.4, with q = e^epsilon / (1 + e^epsilon) and X ~ Binomial(r, q))
//!
//! ```text
//! P[at least v right] <= P[X >= v] + 2 m delta max_{1 <= i <= v} P[v > X >= v - i] / i.
//! ```
//!
//! An epsilon for which the right side is at most `error` is refuted with that error. Since a mechanism that is
//! (epsilon, delta)-DP is so for every larger epsilon, the largest one found refuted is a lower bound.
//!
//! The coins are fair and independent, whether or not the canaries share their noise: the outputs may depend on each
//! other in any way. The price is that the bound stays below the truth for a Gaussian even with m without end (a
//! mechanism may fail for all canaries at once), and that `2 m delta` must be small beside `error v`.
//!
//! The number of guesses must not depend on the coins that are guessed. It is chosen on a *pilot*, observations of
//! other, independent releases, which is then thrown away.

use super::binomial::{Coin, probability, upper_tail};
use super::{Observation, check};
use crate::math::search::bisect;
use crate::privacy::mechanism::PrivacyError;

/// Largest epsilon that is looked for.
const MOST: f64 = 200.0;
/// Halvings of the search: 200 / 2^50.
const STEPS: u32 = 50;
/// Shares of the canaries that the pilot tries to guess: `2^(-j/2)`, j below this.
const SHARES: u32 = 24;
/// Share that is guessed without a pilot, as j.
const BLIND: u32 = 4;
/// Relative error of the whole bound of the probability, charged against the auditor.
const MARGIN: f64 = 1e-6;

/// A lower bound of epsilon and the counts behind it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct OneRun {
    /// epsilon at delta is at least this.
    pub epsilon: f64,
    /// m: canaries in the count, without those of the pilot.
    pub canaries: u64,
    /// r: canaries guessed, half of them as in and half as out.
    pub guesses: u64,
    /// v: guesses that were right.
    pub right: u64,
}

/// The bound of `P[at least right guesses of guesses are right]` under (epsilon, delta)-DP; see the module.
///
/// `right <= guesses <= canaries`; more is cut down to it. 1 where the theorem says nothing.
#[must_use]
pub fn p_value(canaries: u64, guesses: u64, right: u64, epsilon: f64, delta: f64) -> f64 {
    let guesses = guesses.min(canaries);
    let right = right.min(guesses);
    let coin = Coin::truthful(epsilon.max(0.0));
    let mut bound = upper_tail(guesses, right, coin);
    if delta > 0.0 && bound < 1.0 {
        bound += 2.0 * canaries as f64 * delta * densest(guesses, right, coin);
    }
    (bound * (1.0 + MARGIN)).min(1.0)
}

/// `max_{1 <= i <= v} P[v > X >= v - i] / i`: the largest mean probability of a stretch that ends below v.
fn densest(guesses: u64, right: u64, coin: Coin) -> f64 {
    let (mut best, mut sum) = (0.0f64, 0.0);
    for i in 1..=right {
        // No stretch holds more than all: longer ones cannot be denser.
        if best * i as f64 >= 1.0 {
            break;
        }
        sum += probability(guesses, right - i, coin);
        best = best.max(sum / i as f64);
    }
    best
}

/// The largest epsilon that `right` of `guesses` refute at `delta` with error `error`; 0 if none.
#[must_use]
pub fn epsilon_below(canaries: u64, guesses: u64, right: u64, delta: f64, error: f64) -> f64 {
    let refuted = |epsilon: f64| p_value(canaries, guesses, right, epsilon, delta) <= error;
    if guesses == 0 || !refuted(0.0) {
        return 0.0;
    }
    bisect((0.0, MOST), STEPS, refuted).0
}

/// Guesses the `guesses / 2` highest scores as in and as many of the lowest as out; how many are right.
fn count_right(sorted: &[Observation], guesses: usize) -> usize {
    let half = guesses / 2;
    let low = sorted[..half].iter().filter(|o| !o.included).count();
    low + sorted[sorted.len() - half..].iter().filter(|o| o.included).count()
}

fn sorted(observations: &[Observation]) -> Vec<Observation> {
    let mut sorted = observations.to_vec();
    // Stable: canaries with the same score stay in the order of their numbers, which says nothing about their coins.
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    sorted
}

/// An even number of guesses: the share j of `canaries`.
fn guesses_of(canaries: usize, share: u32) -> usize {
    (canaries as f64 * (-0.5 * f64::from(share)).exp2()) as usize / 2 * 2
}

/// Counts the right guesses in one run.
///
/// The first `pilot` observations, which must come from releases of their own, decide how many canaries are guessed;
/// without a pilot it is a quarter of them.
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a score that is not finite, `delta` outside [0, 1), `error` outside (0, 1/4], a
/// pilot that leaves no canary.
pub fn audit(observations: &[Observation], pilot: usize, delta: f64, error: f64) -> Result<OneRun, PrivacyError> {
    check(observations, delta, error)?;
    if pilot >= observations.len() {
        return Err(PrivacyError::OutOfRange {
            name: "canaries",
            expected: format!("more than the {pilot} of the pilot"),
            found: observations.len().to_string(),
        });
    }
    let (pilot, rest) = observations.split_at(pilot);
    let share = if pilot.is_empty() { BLIND } else { best_share(&sorted(pilot), rest.len(), delta, error) };
    let rest = sorted(rest);
    let guesses = guesses_of(rest.len(), share);
    let right = count_right(&rest, guesses);
    let (canaries, guesses, right) = (rest.len() as u64, guesses as u64, right as u64);
    Ok(OneRun { epsilon: epsilon_below(canaries, guesses, right, delta, error), canaries, guesses, right })
}

/// The share whose accuracy in the pilot, kept by all the canaries, would prove most.
fn best_share(pilot: &[Observation], canaries: usize, delta: f64, error: f64) -> u32 {
    let mut best = (0.0f64, BLIND);
    for share in 0..SHARES {
        let tried = guesses_of(pilot.len(), share);
        let guesses = guesses_of(canaries, share) as u64;
        if tried < 20 {
            break;
        }
        // Half a wrong guess more than seen: a handful without any is no proof that there are none.
        let wrong = (tried - count_right(pilot, tried)) as f64 + 0.5;
        let right = (guesses as f64 * (1.0 - wrong / tried as f64)) as u64;
        let epsilon = epsilon_below(canaries as u64, guesses, right, delta, error);
        if epsilon > best.0 {
            best = (epsilon, share);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::super::binomial::rate_below;
    use super::*;

    #[test]
    fn the_example_of_the_paper() {
        // Appendix D: 75 of 100 guesses right, 1000 canaries, delta 1e-4, 95 %: epsilon >= 0.673.
        let found = epsilon_below(1000, 100, 75, 1e-4, 0.05);
        assert!((found - 0.673).abs() < 5e-4, "{found}");
    }

    #[test]
    fn without_delta_it_is_the_bound_of_clopper_and_pearson() {
        for (guesses, right, error) in [(100, 75, 0.05), (1000, 1000, 0.05), (5000, 3000, 1e-3), (64, 60, 1e-4)] {
            let rate = rate_below(right, guesses, error);
            let found = epsilon_below(100_000, guesses, right, 0.0, error);
            assert!((found - (rate / (1.0 - rate)).ln()).abs() < 1e-4, "{guesses} {right}: {found}");
        }
        // All right: q^r = error.
        let q = (0.05f64.ln() / 1000.0).exp();
        let found = epsilon_below(1000, 1000, 1000, 0.0, 0.05);
        assert!((found - (q / (1.0 - q)).ln()).abs() < 1e-4, "{found}");
        // Computed apart, in Python with lgamma and direct sums.
        let with_delta = epsilon_below(1000, 1000, 1000, 1e-5, 0.05);
        assert!((with_delta - 5.782283135386024).abs() < 1e-4, "{with_delta}");
    }

    /// The formula again, from all the binomial probabilities by Pascal's rule.
    fn brute_force(canaries: u64, guesses: usize, right: usize, epsilon: f64, delta: f64) -> f64 {
        let q = epsilon.exp() / (1.0 + epsilon.exp());
        let mut law = vec![1.0];
        for _ in 0..guesses {
            let mut next = vec![0.0; law.len() + 1];
            for (k, p) in law.iter().enumerate() {
                next[k] += p * (1.0 - q);
                next[k + 1] += p * q;
            }
            law = next;
        }
        let tail: f64 = law[right..].iter().sum();
        let stretches = (1..=right).map(|i| law[right - i..right].iter().sum::<f64>() / i as f64);
        (tail + 2.0 * canaries as f64 * delta * stretches.fold(0.0, f64::max)).min(1.0)
    }

    #[test]
    fn the_p_value_is_the_formula() {
        for (canaries, guesses, right) in
            [(10, 10, 10), (30, 20, 15), (500, 60, 41), (500, 60, 20), (9, 0, 0), (5, 3, 0)]
        {
            for epsilon in [0.0, 0.1, 1.0, 3.0] {
                for delta in [0.0, 1e-6, 1e-3, 0.1] {
                    let found = p_value(canaries, guesses, right, epsilon, delta);
                    let direct = brute_force(canaries, guesses as usize, right as usize, epsilon, delta);
                    assert!((found / direct - 1.0).abs() < 1e-5, "{canaries} {guesses} {right} {epsilon} {delta}");
                    assert!(found >= direct * (1.0 - 1e-12));
                }
            }
        }
    }

    /// Randomized response that tells everything with probability delta: the theorem's worst case is respected.
    #[test]
    fn the_p_value_holds_for_mechanisms_that_can_be_listed() {
        // m independent randomized responses, each revealed with probability delta: the number of right guesses is
        // Binomial(m, delta + (1 - delta) q), and each is (epsilon, delta)-DP.
        for (m, epsilon, delta) in [(50u64, 0.5f64, 1e-3), (400, 1.0, 1e-4), (20, 0.1, 0.05)] {
            let q = epsilon.exp() / (1.0 + epsilon.exp());
            for right in m / 2..=m {
                let exact = upper_tail(m, right, Coin::new(delta + (1.0 - delta) * q));
                let bound = p_value(m, m, right, epsilon, delta);
                assert!(bound >= exact * (1.0 - 1e-6), "{m} {right}: {bound} {exact}");
            }
        }
    }

    #[test]
    fn more_right_guesses_prove_more_and_delta_proves_less() {
        let mut last = 0.0;
        for right in 50..=100 {
            let found = epsilon_below(1000, 100, right, 1e-6, 0.05);
            assert!(found >= last, "{right}");
            assert!(found <= epsilon_below(1000, 100, right, 0.0, 0.05));
            assert!(found >= epsilon_below(1000, 100, right, 1e-5, 0.05));
            assert!(found >= epsilon_below(1000, 100, right, 1e-6, 0.01));
            assert!(found >= epsilon_below(10_000, 100, right, 1e-6, 0.05));
            last = found;
        }
        assert!(last > 3.0);
        assert_eq!(epsilon_below(1000, 100, 50, 0.0, 0.05), 0.0);
        assert_eq!(epsilon_below(1000, 0, 0, 0.0, 0.05), 0.0);
    }

    fn observations(count: usize) -> Vec<Observation> {
        (0..count)
            .map(|i| Observation { score: (i % 7) as f64 + if i % 2 == 0 { 8.0 } else { 0.0 }, included: i % 2 == 0 })
            .collect()
    }

    #[test]
    fn a_perfect_attack_is_limited_by_its_guesses_alone() {
        let seen = observations(2048);
        let whole = audit(&seen, 0, 0.0, 0.05).unwrap();
        assert_eq!((whole.canaries, whole.guesses, whole.right), (2048, 512, 512));
        let piloted = audit(&seen, 1024, 0.0, 0.05).unwrap();
        assert_eq!((piloted.canaries, piloted.guesses, piloted.right), (1024, 1024, 1024));
        assert!(piloted.epsilon > whole.epsilon && piloted.epsilon > 5.8);
        for (delta, error, pilot) in [(1.0, 0.05, 0), (-0.1, 0.05, 0), (0.0, 0.0, 0), (0.0, 0.5, 0), (0.0, 0.05, 2048)]
        {
            assert!(audit(&seen, pilot, delta, error).is_err(), "{delta} {error} {pilot}");
        }
        let mut broken = seen;
        broken[3].score = f64::NAN;
        assert!(audit(&broken, 0, 0.0, 0.05).is_err());
        assert!(audit(&[], 0, 0.0, 0.05).is_err());
    }
}
