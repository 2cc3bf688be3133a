//! Binomial probabilities, their tails, and the bounds of Clopper and Pearson (1934), rounded outward.
//!
//! A probability is the saddle-point form of Loader (2000, "Fast and accurate computation of binomial probabilities"):
//! no difference of large logarithms, relative error about 1e-14 whatever n. A tail is the sum of such terms by their
//! ratio, smallest remainder bounded by a geometric series; nothing alternates.

use std::f64::consts::PI;

/// Relative error that a tail is charged with, in the direction of the claim: far above what the terms and up to 2^27
/// additions can come to.
const MARGIN: f64 = 1e-7;
/// Where a sum of falling terms may end, relative to it.
const NEGLIGIBLE: f64 = 1e-17;
/// Halvings of a search in (0, 1): to the last bit of a number above 1e-40.
const STEPS: u32 = 190;

/// A coin: probabilities of heads and of tails, both to full relative precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coin {
    heads: f64,
    tails: f64,
}

impl Coin {
    /// A coin with `P[heads] = heads`, in `[0, 1]` (clamped).
    #[must_use]
    pub fn new(heads: f64) -> Self {
        let heads = heads.clamp(0.0, 1.0);
        Self { heads, tails: 1.0 - heads }
    }

    /// `P[heads] = e^epsilon / (1 + e^epsilon)`: how often epsilon-DP randomized response tells the truth.
    #[must_use]
    pub fn truthful(epsilon: f64) -> Self {
        let rest = libm::exp(-epsilon.abs());
        let (more, less) = (1.0 / (1.0 + rest), rest / (1.0 + rest));
        if epsilon >= 0.0 { Self { heads: more, tails: less } } else { Self { heads: less, tails: more } }
    }

    fn flipped(self) -> Self {
        Self { heads: self.tails, tails: self.heads }
    }
}

/// `ln n! - ln sqrt(2 pi n) - n ln n + n`: by its definition up to 15, by Stirling's series above (error below 1e-14).
fn stirling_error(n: f64) -> f64 {
    if n <= 15.0 {
        return libm::lgamma(n + 1.0) - (n + 0.5) * libm::log(n) + n - 0.5 * libm::log(2.0 * PI);
    }
    let square = n * n;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / n
}

/// `x ln(x / mean) + mean - x`, without cancellation where the two are close.
fn deviance(x: f64, mean: f64) -> f64 {
    let difference = x - mean;
    if difference.abs() >= 0.1 * (x + mean) {
        return x * libm::log(x / mean) - difference;
    }
    // With v = (x - mean)/(x + mean): ln(x / mean) = 2 (v + v^3/3 + v^5/5 + ...).
    let v = difference / (x + mean);
    let mut sum = difference * v;
    let mut power = 2.0 * x * v;
    for j in 1..1000 {
        power *= v * v;
        let next = sum + power / f64::from(2 * j + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// `P[Binomial(n, coin) = k]`; 0 for `k > n`.
#[must_use]
pub fn probability(n: u64, k: u64, coin: Coin) -> f64 {
    let Coin { heads, tails } = coin;
    if k > n {
        return 0.0;
    }
    if heads == 0.0 || tails == 0.0 {
        let certain = if heads == 0.0 { 0 } else { n };
        return if k == certain { 1.0 } else { 0.0 };
    }
    let (size, x) = (n as f64, k as f64);
    // n ln(1 - p) where p is the smaller one keeps its digits.
    let power = |p: f64, other: f64| libm::exp(size * if p < 0.5 { libm::log(p) } else { libm::log1p(-other) });
    if k == 0 {
        return power(tails, heads);
    }
    if k == n {
        return power(heads, tails);
    }
    let correction = stirling_error(size) - stirling_error(x) - stirling_error(size - x);
    let distance = deviance(x, size * heads) + deviance(size - x, size * tails);
    libm::exp(correction - distance) * (size / (2.0 * PI * x * (size - x))).sqrt()
}

/// `P[Binomial(n, coin) >= k]`, at most 1e-7 too large relatively, never too small.
#[must_use]
pub fn upper_tail(n: u64, k: u64, coin: Coin) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    let Coin { heads, tails } = coin;
    if k as f64 <= n as f64 * heads {
        // The lower side is the shorter sum; it is charged the other way.
        return (1.0 - falling(n, n - k + 1, coin.flipped()) * (1.0 - MARGIN) + MARGIN).min(1.0);
    }
    if tails == 0.0 {
        return 1.0;
    }
    (falling(n, k, coin) * (1.0 + MARGIN)).min(1.0)
}

/// `P[Binomial(n, coin) >= k]` for a k above the mean: every term is smaller than the one before.
fn falling(n: u64, k: u64, coin: Coin) -> f64 {
    let odds = coin.heads / coin.tails;
    let mut term = probability(n, k, coin);
    let mut sum = term;
    for j in k..n {
        let ratio = (n - j) as f64 / (j + 1) as f64 * odds;
        term *= ratio;
        sum += term;
        // Ratios fall: what is left is below the geometric series.
        if ratio < 1.0 && term * ratio / (1.0 - ratio) <= sum * NEGLIGIBLE {
            break;
        }
    }
    sum
}

/// Upper confidence bound of a rate of which `hits` of `trials` were seen: the largest p with
/// `P[Binomial(trials, p) <= hits] >= error`, rounded up. 1 without trials.
///
/// Below the true rate with probability at most `error` (Clopper, Pearson 1934).
#[must_use]
pub fn rate_above(hits: u64, trials: u64, error: f64) -> f64 {
    if hits >= trials {
        return 1.0;
    }
    let plausible = |p: f64| upper_tail(trials, trials - hits, Coin::new(p).flipped()) >= error;
    crate::math::search::bisect((0.0, 1.0), STEPS, plausible).1
}

/// Lower confidence bound of the rate; 0 without trials. See [`rate_above`].
#[must_use]
pub fn rate_below(hits: u64, trials: u64, error: f64) -> f64 {
    if hits == 0 || trials == 0 {
        return 0.0;
    }
    let refuted = |p: f64| upper_tail(trials, hits.min(trials), Coin::new(p)) < error;
    crate::math::search::bisect((0.0, 1.0), STEPS, refuted).0
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use num_traits::ToPrimitive;

    use super::*;

    /// `P[Binomial(n, a/b) >= k]` in exact integers.
    fn exact_tail(n: u64, k: u64, a: u64, b: u64) -> f64 {
        let mut choose = BigUint::from(1u32);
        let (mut top, mut whole) = (BigUint::ZERO, BigUint::ZERO);
        for j in 0..=n {
            let term = &choose * BigUint::from(a).pow(j as u32) * BigUint::from(b - a).pow((n - j) as u32);
            if j >= k {
                top += &term;
            }
            whole += term;
            choose = choose * (n - j) / (j + 1);
        }
        // 200 bits of the quotient, so that small tails keep their digits.
        ((top << 1000u32) / whole).to_f64().map_or(f64::NAN, |x| x * (-1000f64).exp2())
    }

    #[test]
    fn tails_match_exact_integers_and_are_never_below() {
        for n in [1u64, 2, 7, 15, 16, 40, 173, 400] {
            for (a, b) in [(1u64, 2u64), (1, 10), (9, 10), (1, 1000), (731, 1000), (999, 1000)] {
                for k in [0, 1, 2, n / 3, n / 2, n * a / b, n * a / b + 1, n - 1, n, n + 1] {
                    let (found, exact) = (upper_tail(n, k, Coin::new(a as f64 / b as f64)), exact_tail(n, k, a, b));
                    // Powers below the least double vanish on both sides.
                    let error = 3.0 * MARGIN * exact.max(if k as f64 <= (n * a / b) as f64 { 1.0 } else { 0.0 });
                    assert!(found <= exact + error + 1e-300, "{n} {k} {a}/{b}: {found} {exact}");
                    assert!(found >= exact * (1.0 - 1e-13), "{n} {k} {a}/{b}: {found} {exact}");
                }
            }
        }
    }

    #[test]
    fn large_numbers_of_trials_agree_with_the_sum_of_logarithms() {
        let (n, coin) = (1_000_000u64, Coin::new(0.3));
        let log = |k: f64| {
            libm::lgamma(n as f64 + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n as f64 - k + 1.0)
                + k * 0.3f64.ln()
                + (n as f64 - k) * 0.7f64.ln()
        };
        for k in [300_000u64, 301_000, 303_000] {
            let direct = log(k as f64).exp();
            assert!((probability(n, k, coin) / direct - 1.0).abs() < 1e-7, "{k}");
        }
        // Five standard deviations: the normal tail 2.87e-7, with the skewness of the binomial.
        let tail = upper_tail(n, 300_000 + 2291, coin);
        assert!((2.7e-7..3.1e-7).contains(&tail), "{tail}");
        assert!((upper_tail(n, 300_000, coin) - 0.5).abs() < 1e-3);
    }

    #[test]
    fn bounds_of_a_rate_are_those_of_the_tables() {
        // No failure in n: 1 - error^(1/n).
        for n in [1u64, 10, 1000] {
            let exact = -(0.05f64.ln() / n as f64).exp_m1();
            let found = rate_above(0, n, 0.05);
            assert!(found >= exact * (1.0 - 1e-12) && found <= exact * (1.0 + 1e-6), "{n}: {found} {exact}");
            let below = rate_below(n, n, 0.05);
            assert!(below <= (1.0 - exact) * (1.0 + 1e-12) && below >= (1.0 - exact) * (1.0 - 1e-6));
        }
        // The two-sided 95 % interval of 10 of 100: 4.9005 % to 17.6223 %.
        assert!((rate_below(10, 100, 0.025) - 0.049005).abs() < 2e-6, "{}", rate_below(10, 100, 0.025));
        assert!((rate_above(10, 100, 0.025) - 0.176223).abs() < 2e-6, "{}", rate_above(10, 100, 0.025));
        assert_eq!((rate_above(5, 5, 0.05), rate_below(0, 5, 0.05)), (1.0, 0.0));
        assert_eq!((rate_above(0, 0, 0.05), rate_below(0, 0, 0.05)), (1.0, 0.0));
    }

    #[test]
    fn coins_keep_both_sides() {
        let coin = Coin::truthful(50.0);
        assert!((coin.tails / (-50f64).exp() - 1.0).abs() < 1e-15 && coin.heads == 1.0);
        assert_eq!(Coin::truthful(0.0), Coin::new(0.5));
        assert_eq!(Coin::truthful(-3.0), Coin::truthful(3.0).flipped());
        assert_eq!(upper_tail(10, 10, Coin::new(1.0)), 1.0);
        assert_eq!(upper_tail(10, 1, Coin::new(0.0)), 0.0);
    }
}
