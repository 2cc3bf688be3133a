//! The Poisson-binomial mechanism: sums of coins whose bias carries the data (theorems and proofs: `docs/poisson-binomial.md`).
//!
//! A client throws m coins a coordinate, heads with probability `1/2 + s`, `|s| <= theta`; neighbours: its s are zero. The other
//! clients' N coins have biases of their own. Each of them is a fair coin with probability `1 - 2 theta`, whatever its bias, and
//! something independent else; by joint convexity the pair costs at most what `K ~ Binomial(N, 1 - 2 theta)` fair coins leave,
//! averaged over K: `E_K exp((a-1) D_a(K))`. With `M = K + m` coins, `Q = Binomial(M, 1/2)`, `y = 2 k/M - 1`, the likelihood ratio
//! is `r(k) = prod over i of (1 + 2 s b_i)`, `sum b_i = m y`, `sum (b_i - y)^2 = m (1 - y^2) (m-1)/(M-1)`, and
//! ```text
//! (a-1) D_a(P||Q) <= s^2 c_remove(K),   (a-1) D_a(Q||P) <= s^2 c_add(K)       for all |s| <= theta.
//! ```
//! Both are `2 a (a-1) m^2 s^2 / M`, a Gaussian's of variance `M/4`, up to terms that vanish with theta.

use rayon::prelude::*;

use super::orders;
use crate::math::special::log_sum_exp;

/// Widths of a bucket of K, in standard deviations: up to [`NEAR`] of them from the middle, and beyond.
const BUCKETS: (f64, f64) = (0.02, 0.2);
const NEAR: f64 = 6.0;
/// How far out the law is summed up, unless its masses fall below [`LEAST`] before.
const REACH: f64 = 40.0;
const LEAST: f64 = 1e-290;
/// What the sums of a law's masses may err, relative to them.
const ROUNDING: f64 = 1e-8;
/// Most steps of a law on either side of its middle.
const MOST_STEPS: f64 = 4e7;

/// One release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Release {
    /// m: coins of a client on a coordinate.
    pub(super) coins: u64,
    /// N: coins of all others on a coordinate.
    pub(super) others: u64,
    /// theta: the largest |s|, in (0, 1/4].
    pub(super) most_bias: f64,
    /// Bound on the L2 norm of a client's s over all coordinates.
    pub(super) l2_bound: f64,
}

impl Release {
    /// Costs at [`orders`]; infinite where the law of the fair coins is too long to sum up.
    pub(super) fn costs(&self) -> Vec<f64> {
        let Some(law) = FairCoins::new(self.others, 1.0 - 2.0 * self.most_bias) else {
            return vec![f64::INFINITY; orders().len()];
        };
        orders().par_iter().map(|&a| self.cost(&law, a)).collect()
    }

    fn cost(&self, law: &FairCoins, order: f64) -> f64 {
        let remove = self.whole(law, order, |k| self.remove(order, k));
        let add = self.whole(law, order, |k| self.add(order, k));
        remove.max(add) / (order - 1.0)
    }

    /// `(a-1) D_a` of all coordinates, from the coefficient `c(K)` of s^2.
    ///
    /// `A(u) = sum over K of P[K] e^(c(K) u)`, for the few K below the law's first bucket with what a client's coins reveal alone.
    /// `ln A` is convex in `u = s^2` and 0 at 0, so that coordinates with `sum u <= S^2`, each at most `u'`, cost at most `(S^2/u')
    /// ln A(u')`.
    fn whole(&self, law: &FairCoins, order: f64, coefficient: impl Fn(f64) -> f64) -> f64 {
        let alone = self.alone(order);
        let square = self.l2_bound * self.l2_bound;
        let widest = square.min(self.most_bias * self.most_bias);
        let term = |coefficient: f64, ln_mass: f64| {
            let exponent = (coefficient * widest).max(0.0);
            ln_mass + if exponent > 30.0 { exponent } else { libm::log(libm::expm1(exponent)) }
        };
        let known = law.buckets.iter().map(|&(first, ln_mass)| term(coefficient(first).min(alone), ln_mass));
        let excess: Vec<f64> = known.chain([term(alone, law.ln_left_out)]).collect();
        let ln_excess = log_sum_exp(&excess) + ROUNDING;
        let log = if ln_excess > 40.0 { ln_excess * (1.0 + 1e-12) } else { libm::log1p(libm::exp(ln_excess)) };
        square / widest * log * (1.0 + 1e-12)
    }

    /// Bound of `(a-1) D_a / s^2` in both directions whatever the others do: a coin is pure `-ln(1 - 2 s)`-DP, and so half the
    /// square of that zero-concentrated (Bun, Steinke 2016, Proposition 3.3).
    fn alone(&self, order: f64) -> f64 {
        let pure = -libm::log1p(-2.0 * self.most_bias) / self.most_bias * (1.0 + 1e-14);
        (order - 1.0) * 0.5 * order * self.coins as f64 * pure * pure
    }

    /// `(m-1)/(M-1)`.
    fn without_replacement(&self, all: f64) -> f64 {
        if self.coins == 1 { 0.0 } else { (self.coins as f64 - 1.0) / (all - 1.0) }
    }

    /// Bound of `(a-1) D_a(P||Q) / s^2` with so many fair coins of others.
    fn remove(&self, order: f64, fair: f64) -> f64 {
        let (m, theta) = (self.coins as f64, self.most_bias);
        let all = fair + m;
        // `ln E[(1 + 2 s y)^A] / s^2`: hypercontractivity from 2 on, log-convexity below.
        let linear = |power: f64| {
            if power >= 2.0 { 2.0 * power * (power - 1.0) / all } else { 4.0 * (power - 1.0) / all }
        };
        let plain = linear(m * order);
        let spread = 1.0 + 2.0 * theta;
        let gain = 2.0 * order * m * self.without_replacement(all) / (spread * spread);
        // Hoelder's exponents, so that what is left of y^2 costs (1/p') ln 2 / 2 at theta.
        let dual = 4.0 * gain * theta * theta / all;
        if gain == 0.0 || dual > 0.5 {
            return plain;
        }
        let power = m * order / (1.0 - dual);
        let split = (1.0 - dual) * linear(power) - gain + dual * 0.5 * std::f64::consts::LN_2 / (theta * theta);
        plain.min(split)
    }

    /// Bound of `(a-1) D_a(Q||P) / s^2` with so many fair coins of others; infinite where they are too few for it.
    fn add(&self, order: f64, fair: f64) -> f64 {
        let (m, theta) = (self.coins as f64, self.most_bias);
        let all = fair + m;
        let b = order - 1.0;
        let kappa = curvature(theta);
        let square = theta * theta;
        let x = 8.0 * kappa * b * square * m / all;
        if x >= 0.5 {
            return f64::INFINITY;
        }
        let first = 4.0 * kappa * b * m * self.without_replacement(all);
        let second = 2.0 * b * b * m * m / (all * (1.0 - x));
        first + second - 0.5 * libm::log1p(-x) / square
    }
}

/// The largest `(u - ln(1 + u)) / u^2` for `u >= -2 theta`, that at the end; rounded upward.
fn curvature(theta: f64) -> f64 {
    let u = 2.0 * theta;
    // 1/2 + u/3 + u^2/4 + ...: the rest of the series is below its next term over 1 - u.
    let series: f64 = (0..40).map(|i| u.powi(i) / f64::from(i + 2)).sum();
    (series + u.powi(40) / (42.0 * (1.0 - u))) * (1.0 + 1e-14)
}

/// `Binomial(N, w)` in buckets: the least K of each, and the logarithm of its mass.
struct FairCoins {
    buckets: Vec<(f64, f64)>,
    /// Logarithm of a bound on the mass below the first bucket; what lies above the last is in it.
    ln_left_out: f64,
}

impl FairCoins {
    fn new(coins: u64, share: f64) -> Option<Self> {
        let n = coins as f64;
        if coins == 0 || share >= 1.0 {
            return Some(Self { buckets: vec![(n, 0.0)], ln_left_out: f64::NEG_INFINITY });
        }
        let sigma = (n * share * (1.0 - share)).sqrt();
        let middle = (n * share).floor().min(n);
        let reach = (REACH * sigma + 60.0).ceil();
        if reach > MOST_STEPS {
            return None;
        }
        // Relative to the middle, by ratios of neighbours: each step errs by a few units of the last place.
        let odds = share / (1.0 - share);
        let walk = |most: f64, ratio: &dyn Fn(f64) -> f64| {
            let mut weights = Vec::new();
            let mut weight = 1.0;
            for i in 1..=reach.min(most) as u64 {
                weight *= ratio(i as f64);
                if weight < LEAST {
                    break;
                }
                weights.push(weight);
            }
            weights
        };
        let below = walk(middle, &|i| (middle - i + 1.0) / (n - middle + i) / odds);
        let above = walk(n - middle, &|i| (n - middle - i + 1.0) / (middle + i) * odds);
        let (first, last) = (middle - below.len() as f64, middle + above.len() as f64);
        let weights: Vec<f64> = below.iter().rev().chain([&1.0]).chain(&above).copied().collect();
        let total: f64 = weights.iter().sum();
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        let mut start = 0;
        while start < weights.len() {
            let from = first + start as f64;
            let near = (from - middle).abs() <= NEAR * sigma;
            let width = ((if near { BUCKETS.0 } else { BUCKETS.1 }) * sigma) as usize;
            let end = (start + width.max(1)).min(weights.len());
            buckets.push((from, libm::log(weights[start..end].iter().sum::<f64>() / total)));
            start = end;
        }
        // Above the last K coefficients are smaller: that mass counts there.
        if last < n
            && let Some(end) = buckets.last_mut()
        {
            end.1 = log_sum_exp(&[end.1, chernoff(n, share, last + 1.0)]);
        }
        let ln_left_out = if first > 0.0 { chernoff(n, share, first - 1.0) } else { f64::NEG_INFINITY };
        Some(Self { buckets, ln_left_out })
    }
}

/// `ln` of Chernoff's bound on the tail of `Binomial(n, w)` from k on, away from the mean: `-n KL(k/n || w)`.
fn chernoff(n: f64, share: f64, k: f64) -> f64 {
    let at = k / n;
    let part = |x: f64, y: f64| if x > 0.0 { x * libm::log(x / y) } else { 0.0 };
    -(n * (part(at, share) + part(1.0 - at, 1.0 - share))).max(0.0) * (1.0 - 1e-6) + 1e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The law of a sum of coins with these probabilities of heads.
    fn sum(heads: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut law = vec![1.0];
        for p in heads {
            let mut next = vec![0.0; law.len() + 1];
            for (k, &mass) in law.iter().enumerate() {
                next[k] += (1.0 - p) * mass;
                next[k + 1] += p * mass;
            }
            law = next;
        }
        law
    }

    fn moment(p: &[f64], q: &[f64], a: f64) -> f64 {
        // The powers alone leave the range of a number.
        p.iter().zip(q).map(|(&x, &y)| (a * x.ln() + (1.0 - a) * y.ln()).exp()).sum::<f64>().ln()
    }

    fn release(coins: u64, others: u64, most_bias: f64, l2_bound: f64) -> Release {
        Release { coins, others, most_bias, l2_bound }
    }

    /// Every bias of the others at the ends and between, by brute force.
    #[test]
    fn no_bias_of_the_others_costs_more() {
        for (m, others, theta) in [(1u64, 12u64, 0.2), (2, 20, 0.1), (4, 40, 0.25), (6, 60, 0.05), (16, 160, 0.02)] {
            for s in [theta, 0.5 * theta, 0.01 * theta] {
                let costs = release(m, others, theta, s).costs();
                for mix in 0..5u64 {
                    let bias = |i: u64| match mix {
                        0 => 0.0,
                        1 => theta,
                        2 => -theta,
                        3 => {
                            if i.is_multiple_of(2) {
                                theta
                            } else {
                                -theta
                            }
                        }
                        _ => theta * (i as f64 / others as f64),
                    };
                    let rest = || (0..others).map(|i| 0.5 + bias(i));
                    let q = sum(rest().chain((0..m).map(|_| 0.5)));
                    for sign in [1.0, -1.0] {
                        let p = sum(rest().chain((0..m).map(|_| 0.5 + sign * s)));
                        for (&a, &cost) in orders().iter().zip(&costs).filter(|(a, _)| **a <= 24.0) {
                            let truth = moment(&p, &q, a).max(moment(&q, &p, a)) / (a - 1.0);
                            assert!(cost >= truth - 1e-13, "{m} {others} {theta} {s} {mix} {a}: {cost} {truth}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn small_biases_are_as_a_gaussian_s() {
        for (m, n) in [(2u64, 10_000u64), (16, 1000), (64, 500)] {
            let (theta, others) = (1e-3, m * (n - 1));
            for s in [1e-3, 3e-2] {
                let costs = release(m, others, theta, s).costs();
                let all = (others + m) as f64;
                for (&a, &cost) in orders().iter().zip(&costs).filter(|(a, _)| (2.0..64.0).contains(*a)) {
                    let gaussian = 2.0 * a * (m as f64 * s).powi(2) / all;
                    assert!(cost > gaussian * 0.999 && cost < gaussian * 1.04, "{m} {n} {s} {a}: {} ", cost / gaussian);
                }
            }
        }
    }

    #[test]
    fn costs_move_with_every_parameter() {
        let base = release(8, 8 * 99, 0.05, 0.4);
        let at = |r: Release| r.costs();
        let no_more =
            |less: Release, more: Release| at(less).iter().zip(&at(more)).all(|(x, y)| x <= &(y * (1.0 + 1e-9)));
        assert!(no_more(base, Release { l2_bound: 0.5, ..base }));
        assert!(no_more(base, Release { most_bias: 0.06, ..base }));
        assert!(no_more(base, Release { others: 8 * 90, ..base }));
        assert!(no_more(base, Release { coins: 10, ..base }));
        // Nobody else: what the coins reveal, and still a number.
        let alone = release(2, 0, 0.1, 0.1).costs();
        assert!(alone.iter().all(|c| *c > 0.0 && c.is_finite()), "{alone:?}");
    }
}
