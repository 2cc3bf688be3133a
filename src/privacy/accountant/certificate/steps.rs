//! Integer noise on integers: what a shift by whole steps costs (`docs/integer-noise.md`).
//!
//! q is a symmetric log-concave law on the integers, `Q = q`, `P_j` its shift by the integer j. Shifts by j and -j, and the
//! two directions of each, are mirror images (`k -> j - k`), so that one of the four speaks for all.
//!
//! **Theorem A** (Skellam). For integers `a >= 2` and j: `(a-1) D_a(P_j || Q) <= a (a-1) c/2 j^2`, c the law's largest
//! curvature ([`super::law::curvature`], about `1/(2 mu)`): by Lemma 2 of `docs/smm-accounting.md`
//! `q(k-j)^a q(k)^(1-a) <= q(k - aj) e^(a (a-1) c j^2 / 2)`; sum over k.
//!
//! **Theorem B** (all three). Write `alpha_k = Q(K >= k) = Phi(-t_k)`, let `alpha_K0 <= delta0` and `t_k - t_(k-1) <= kappa` for
//! `1 <= k < K0 + J`. Then for `0 < |j| <= J` and all real eps `H_eps(P_j || Q), H_eps(Q || P_j) <=
//! H_eps(N(kappa |j|, 1) || N(0, 1)) + delta0`.

use super::domination::{Domination, LARGEST_MU, WIDEST, unit_steps};
use super::law::{IntegerLaw, curvature};
use super::normal::quantile;
use crate::math::interval::Interval;

/// Integer noise whose shifts are dominated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepNoise {
    /// `Sk(mu, mu)`.
    Skellam {
        /// Mean of each Poisson, > 0.
        mu: f64,
    },
    /// Binomial(coins, 1/2) - Binomial(coins, 1/2).
    CenteredBinomial {
        /// Coins on each side, > 0.
        coins: u64,
    },
    /// `P[k] ~ e^(-k^2 / (2 sigma^2))`, with any parameter within `4e-15 sigma` of the one given.
    DiscreteGaussian {
        /// sigma > 0.
        sigma: f64,
    },
}

impl StepNoise {
    fn variance(self) -> f64 {
        match self {
            Self::Skellam { mu } => 2.0 * mu,
            Self::CenteredBinomial { coins } => 0.5 * coins as f64,
            Self::DiscreteGaussian { sigma } => sigma * sigma,
        }
    }

    fn law(self, reach: usize) -> IntegerLaw {
        match self {
            Self::Skellam { mu } => IntegerLaw::skellam(mu, reach),
            Self::CenteredBinomial { coins } => IntegerLaw::centered_binomial(coins, reach),
            Self::DiscreteGaussian { sigma } => {
                let near = Interval::new(sigma * (1.0 - 4e-15), sigma * (1.0 + 4e-15));
                IntegerLaw::discrete_gaussian(near, reach)
            }
        }
    }
}

/// Upper bound of `D_a / j^2` of a shift of `Sk(mu, mu)` by j, for every integer j and both directions (Theorem A): the cost
/// of a vector of integers is that times its squared L2 norm. `mu` finite and > 0, integers `order >= 2`.
#[must_use]
pub fn skellam_cost(mu: f64, order: u32) -> f64 {
    (Interval::exact(f64::from(order)) * Interval::exact(0.5) * Interval::exact(curvature(mu))).high()
}

/// What dominates shifts up to `l2_bound` (Theorem B); `None` where nothing is certified: noise wider than that of mu =
/// [`LARGEST_MU`], shifts above [`WIDEST`] standard deviations, a law that ends before the tails are below delta0 (the
/// centred binomial of few coins), or an eta of 1 and more.
#[must_use]
pub fn dominate(noise: StepNoise, l2_bound: f64, delta0: f64) -> Option<Domination> {
    let sigma = noise.variance().sqrt();
    if !(sigma > 0.0 && noise.variance() <= 2.0 * LARGEST_MU && l2_bound <= WIDEST * sigma && delta0 >= 1e-30) {
        return None;
    }
    let most = l2_bound.floor() as usize;
    let reach = (16.0 * sigma) as usize + 60 + most;
    let law = noise.law(reach);
    // K0: from here on all that is left is below delta0. Where the table ends, everything is enclosed by [0, 1].
    let small = (1..reach).find(|&k| law.tail(k).high() <= delta0)?;
    // t_1 .. t_(K0 + J - 1).
    let last = (small + most.max(1)).checked_sub(1)?;
    if last >= reach {
        return None;
    }
    let quantiles: Vec<Interval> = (1..=last).map(|k| quantile(law.tail(k))).collect::<Option<_>>()?;
    let kappa = unit_steps(&quantiles);
    (kappa * sigma < 2.0).then_some(Domination { kappa, eta: kappa * sigma - 1.0, delta0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::special::normal_tail;
    use crate::privacy::IntegerNoise;
    use crate::privacy::accountant::pmf::Law;

    #[test]
    fn eta_is_small_for_whole_steps() {
        for mu in [20.0, 1428.0, 1e5] {
            let found = dominate(StepNoise::Skellam { mu }, 16.0, 1e-20).expect("certified");
            // 1 / (12 mu), and a little.
            assert!(found.eta > 0.9 / (12.0 * mu) && found.eta < 1.2 / (12.0 * mu), "{mu}: {found:?}");
        }
        // The binomial's curvature grows outward: about (t + J/sigma)^2 / (2 K) at the end, with t near 9.
        let found = dominate(StepNoise::CenteredBinomial { coins: 5760 }, 64.0, 1e-20).expect("certified");
        assert!(found.eta > 0.001 && found.eta < 0.02, "{found:?}");
    }

    /// Hockey-stick divergences of every shift by brute force, at every vertex.
    #[test]
    fn every_shift_is_dominated_at_every_vertex() {
        for (noise, bound) in [
            (StepNoise::Skellam { mu: 20.0 }, 9.0),
            (StepNoise::Skellam { mu: 300.0 }, 30.7),
            (StepNoise::CenteredBinomial { coins: 900 }, 25.0),
            (StepNoise::DiscreteGaussian { sigma: 12.5 }, 20.0),
        ] {
            let delta0 = 1e-16;
            let found = dominate(noise, bound, delta0).expect("certified");
            let law = noise.law(400);
            let tail = |k: i64| {
                let upper = law.tail(k.unsigned_abs() as usize).low();
                // Of k <= 0: 1 - Q(K >= 1 - k).
                if k > 0 { upper } else { 1.0 - law.tail((1 - k) as usize).high() }
            };
            for j in 1..=bound as i64 {
                for k in -100..140i64 {
                    let alpha = tail(k).clamp(1e-280, 1.0 - 1e-16);
                    if alpha > 0.5 {
                        continue;
                    }
                    let t = quantile(Interval::exact(alpha)).expect("in range").high();
                    let allowed = normal_tail(t - found.kappa * j as f64) + delta0;
                    assert!(tail(k - j) <= allowed * (1.0 + 1e-10), "{noise:?} {j} {k}");
                }
            }
        }
    }

    #[test]
    fn renyi_divergences_of_every_shift_lie_below() {
        for mu in [2.0, 20.0, 400.0] {
            let law = Law::new(IntegerNoise::Skellam { mu }, 6000).expect("short");
            let middle = (law.ln_mass.len() / 2) as i64;
            let ln_q = |k: i64| law.ln_mass[(middle + k) as usize];
            for order in [2u32, 3, 8, 32] {
                let a = f64::from(order);
                for j in [1i64, 2, 3, 7, 20, 60] {
                    let center = i64::from(order) * j;
                    let range = center - 3000.min(center + 5000)..(center + 3000).min(5900);
                    let terms: Vec<f64> = range.map(|k| a * ln_q(k - j) + (1.0 - a) * ln_q(k)).collect();
                    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let divergence = (top + terms.iter().map(|t| (t - top).exp()).sum::<f64>().ln()) / (a - 1.0);
                    let bound = skellam_cost(mu, order) * (j * j) as f64;
                    assert!(divergence <= bound * (1.0 + 1e-9), "{mu} {order} {j}: {divergence} {bound}");
                    // Near, where neither the order nor the shift is large.
                    assert!(
                        a * j as f64 > 0.1 * mu || divergence >= bound * (1.0 - 0.5 / mu - 0.05),
                        "{mu} {order} {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_out_of_reach_is_none() {
        for (noise, bound, delta0) in [
            (StepNoise::CenteredBinomial { coins: 20 }, 3.0, 1e-14),
            (StepNoise::CenteredBinomial { coins: 1 }, 1.0, 1e-14),
            (StepNoise::CenteredBinomial { coins: 5760 }, 4000.0, 1e-14),
            (StepNoise::Skellam { mu: 1e9 }, 1.0, 1e-14),
            (StepNoise::Skellam { mu: 1e-5 }, 1.0, 1e-14),
            (StepNoise::Skellam { mu: 100.0 }, 10.0, 1e-40),
        ] {
            assert!(dominate(noise, bound, delta0).is_none(), "{noise:?} {bound} {delta0}");
        }
    }
}
