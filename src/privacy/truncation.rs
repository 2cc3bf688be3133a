//! Poisson samples that are cut to a largest size: what the cut costs.
//!
//! Let S be a Poisson sample of N clients at rate q, and S' the same where it has at most B members, else B of them, all
//! subsets alike. The two differ with probability `tau = Pr[Bin(N, q) > B]` whatever the data, so that the release under
//! S' is within total variation tau of the release under S, for either of two neighbours, and after T adaptive rounds
//! within `T tau`. Hence, for every epsilon,
//! `H(P' || Q') <= H(P || Q) + (1 + e^epsilon) T tau`, H being the hockey-stick divergence of epsilon: the accounting of the
//! plain Poisson sample stands, and tau is charged to delta as the error of a sampler is
//! (the argument of Chua et al. 2024, "Scalable DP-SGD: Shuffling vs. Poisson subsampling", Theorem 3.3).

use super::SAMPLER_SHARE;
use super::accountant::meter::sampler_part;
use super::mechanism::PrivacyError;

/// An upper bound of `Pr[Bin(population, rate) > most]`, by Chernoff:
/// `exp(-N KL((B + 1) / N || q))` where `B + 1 > N q`, else 1.
#[must_use]
pub fn excess(population: u64, rate: f64, most: u64) -> f64 {
    if most >= population || rate <= 0.0 {
        return 0.0;
    }
    let n = population as f64;
    let share = (most as f64 + 1.0) / n;
    if share <= rate || rate >= 1.0 {
        return 1.0;
    }
    // ln(1 + x) / x keeps its digits where a share and the rate are close, or both are small.
    let above = share * libm::log(share / rate);
    let below = if share < 1.0 { (1.0 - share) * libm::log1p((rate - share) / (1.0 - rate)) } else { 0.0 };
    // What rounding may lose: in the two terms and their difference, and in the quotients whose logarithms they hold.
    let slack = 8.0 * f64::EPSILON * (n * (above.abs() + below.abs()) + n * share) + 1e-9;
    libm::exp(slack - n * (above + below)).min(1.0)
}

/// The least size under which the cut of `rounds` samples stays within the part of `delta` that is set aside for samplers,
/// at an epsilon of at most `epsilon`.
///
/// # Errors
/// [`PrivacyError::Infeasible`] where not even the whole population does (an epsilon beyond all bounds).
pub fn least(population: u64, rate: f64, rounds: u64, epsilon: f64, delta: f64) -> Result<u64, PrivacyError> {
    let fits = |most: u64| fits(population, rate, most, rounds, epsilon, delta);
    if !fits(population) {
        return Err(PrivacyError::Infeasible {
            target: epsilon,
            reason: "no size of a sample keeps within the part of delta that is set aside".into(),
            reachable: 0.0,
        });
    }
    let (mut low, mut high) = (0, population);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high)
}

/// True if the cut at `most` costs less of `delta` than what is set aside for samplers.
#[must_use]
pub fn fits(population: u64, rate: f64, most: u64, rounds: u64, epsilon: f64, delta: f64) -> bool {
    // Half of it: the tables of the noise have the rest.
    sampler_part(epsilon, rounds as f64 * excess(population, rate, most)) <= 0.5 * SAMPLER_SHARE * delta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::special::{ln_binomial, log_sum_exp};

    /// The sum of the law itself.
    fn tail(n: u32, q: f64, most: u32) -> f64 {
        let terms: Vec<f64> = (most + 1..=n)
            .map(|k| ln_binomial(n, k) + f64::from(k) * q.ln() + f64::from(n - k) * (-q).ln_1p())
            .collect();
        log_sum_exp(&terms).exp()
    }

    #[test]
    fn it_bounds_the_tail_and_not_by_much() {
        for (n, q) in [(50u32, 0.1), (1000, 0.02), (3000, 0.3), (200, 0.9)] {
            let mean = f64::from(n) * q;
            for k in [0.5, 1.0, 3.0, 6.0, 9.0] {
                let most = (mean + k * (mean * (1.0 - q)).sqrt()) as u32;
                if most >= n {
                    continue;
                }
                let (truth, bound) = (tail(n, q, most), excess(u64::from(n), q, u64::from(most)));
                assert!(truth <= bound, "{n} {q} {most}: {truth} {bound}");
                // Chernoff loses a factor of the order of the deviation times its square root.
                assert!(bound <= 1.0 && bound <= 60.0 * truth, "{n} {q} {most}: {truth} {bound}");
            }
        }
    }

    #[test]
    fn its_ends() {
        assert_eq!(excess(100, 0.1, 100), 0.0);
        assert_eq!(excess(100, 0.0, 0), 0.0);
        assert_eq!(excess(100, 1.0, 99), 1.0);
        assert_eq!(excess(100, 0.5, 10), 1.0);
        // All hundred of a hundred: q^100.
        assert!((excess(100, 0.1, 99) / 1e-100 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_least_size_is_the_least() {
        let (population, rate, rounds, epsilon, delta) = (60_000, 0.004, 1000, 3.0, 1e-5);
        let most = least(population, rate, rounds, epsilon, delta).unwrap();
        assert!((350..420).contains(&most), "{most}");
        assert!(fits(population, rate, most, rounds, epsilon, delta));
        assert!(!fits(population, rate, most - 1, rounds, epsilon, delta));
        assert_eq!(least(10, 1.0, 5, 1.0, 1e-5).unwrap(), 10);
    }
}
