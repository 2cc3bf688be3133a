//! Random allocation: a contribution takes part in exactly k of T rounds, every set of k equally likely
//! (`docs/random-allocation.md`).
//!
//! `r_t` is the likelihood ratio of round t between the neighbours given what was released before, `m(j) = (j-1) D_j` a bound
//! on the log-moments of one round with the contribution in it, in both directions. `P = Q avg_A prod_(t in A) r_t`.
//!
//! **Remove direction**, integers a. A random set of k is one random element of each of k random blocks of about T/k rounds,
//! and divergences are jointly convex: blocks of given sizes bound it. A block of n rounds costs at most
//! ```text
//! ln E_Q[((r_1 + ... + r_n)/n)^a] <= ln F_n(a),   F_n(a) = E exp(sum over bins of m(balls in it)),
//! ```
//! a balls thrown into n bins, `m(0) = m(1) = 0`: the power is multiplied out, and each monomial `prod r_t^(j_t)` is at most
//! `exp(sum m(j_t))`, round by round from the last one. For k = 1 and independent rounds that is exact.
//!
//! **Add direction**, any order. The mean over sets is at least the geometric one, `prod_t r_t^(k/T)`; hence, with `b = (a-1)
//! k/T`, `E_Q[(P/Q)^(1-a)] <= prod_t E_Q[r_t^(-b)] = exp(T b D_(1+b)(Q_1||P_1))`: `D_a <= k D_(1+b)` of one round.

use rayon::prelude::*;

use super::orders;
use super::subsample::{chord, ln_expm1, softplus};
use crate::math::special::{ln_binomial, log_sum_exp};

/// Highest order of the remove direction; beyond it nothing is amplified.
const HIGHEST: u32 = 256;
/// Relative error of `F - 1`: a hundred times what eighty sums of numbers below `e^1000` can err.
const ROUNDING: f64 = 1e-9;

/// Costs at [`orders`] of k = `participations` of `rounds` rounds, `1 <= k <= rounds`; `moment` is `(a-1) D_a` of one round with
/// the contribution, in the direction that costs more.
pub(super) fn costs(participations: u64, rounds: u64, moment: &(dyn Fn(f64) -> f64 + Sync)) -> Vec<f64> {
    let k = participations as f64;
    let (short, longer) = (rounds / participations, rounds % participations);
    let one: Vec<f64> = (0..=HIGHEST)
        .into_par_iter()
        .map(|a| if a < 2 { f64::NEG_INFINITY } else { ln_expm1(moment(f64::from(a))) })
        .collect();
    let blocks = [(short, participations - longer), (short.saturating_add(1), longer)]
        .map(|(length, count)| (if count > 0 { thrown(&one, length) } else { Vec::new() }, count as f64));
    let remove = |a: u32| {
        let plain = k * moment(f64::from(a));
        let each = |(excess, count): &(Vec<f64>, f64)| excess.get(a as usize).map_or(0.0, |&ln| count * log_of(ln));
        if a > HIGHEST { plain } else { blocks.iter().map(each).sum::<f64>().min(plain) }
    };
    let known: Vec<f64> = (0..=HIGHEST).map(|a| if a < 2 { 0.0 } else { remove(a) }).collect();
    let at = |a: u32| known.get(a as usize).copied().unwrap_or_else(|| remove(a));
    let cost = |&order: &f64| {
        let add = {
            let b = (order - 1.0) * k / rounds as f64 * (1.0 + 1e-15);
            k * moment(1.0 + b) / b * (1.0 + 1e-12)
        };
        (chord(order, at).min(k * moment(order)) / (order - 1.0)).max(add)
    };
    orders().par_iter().map(cost).collect()
}

/// `ln F` from `ln(F - 1)`, rounded upward.
fn log_of(excess: f64) -> f64 {
    if excess == f64::NEG_INFINITY { 0.0 } else { softplus(excess + ROUNDING + 1e-11 * excess.max(0.0)) }
}

/// `ln(F_n(a) - 1)` for all a, from those of one bin: bins are doubled, `F_(m+n)(a) = E F_m(j) F_n(a-j)` over j balls of a that
/// fall into the m bins.
fn thrown(one: &[f64], bins: u64) -> Vec<f64> {
    let mut all: Option<(u64, Vec<f64>)> = None;
    let (mut size, mut power) = (1u64, one.to_vec());
    let mut left = bins;
    loop {
        if left & 1 == 1 {
            all = Some(match all {
                None => (size, power.clone()),
                Some((others, known)) => (others + size, together((others, &known), (size, &power))),
            });
        }
        left >>= 1;
        if left == 0 {
            return all.map_or_else(|| one.to_vec(), |(_, known)| known);
        }
        power = together((size, &power), (size, &power));
        size *= 2;
    }
}

fn together((m, first): (u64, &[f64]), (n, second): (u64, &[f64])) -> Vec<f64> {
    let total = m as f64 + n as f64;
    let (ln_in, ln_out) = (libm::log(m as f64 / total), libm::log(n as f64 / total));
    let at = |a: usize| {
        let term = |j: usize| {
            // (1 + f)(1 + g) - 1 = f + g + f g, all of them >= 0: nothing cancels.
            let (f, g) = (first[j], second[a - j]);
            let weight = ln_binomial(a as u32, j as u32) + j as f64 * ln_in + (a - j) as f64 * ln_out;
            weight + log_sum_exp(&[f, g, f + g])
        };
        log_sum_exp(&(0..=a).map(term).collect::<Vec<_>>())
    };
    (0..first.len()).into_par_iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two laws on three outcomes, their divergences, and the exact ones of an allocation by enumeration.
    const P: [f64; 3] = [0.5, 0.3, 0.2];
    const Q: [f64; 3] = [0.2, 0.35, 0.45];

    fn moment(u: &[f64; 3], v: &[f64; 3], a: f64) -> f64 {
        u.iter().zip(v).map(|(&x, &y)| x.powf(a) * y.powf(1.0 - a)).sum::<f64>().ln()
    }

    fn both(a: f64) -> f64 {
        moment(&P, &Q, a).max(moment(&Q, &P, a))
    }

    /// `(a-1) D_a` in both directions, k of T rounds.
    fn exact(k: u32, rounds: u32, a: f64) -> (f64, f64) {
        let sets: Vec<u32> = (0..1u32 << rounds).filter(|s| s.count_ones() == k).collect();
        let (mut remove, mut add) = (0.0, 0.0);
        for outcome in 0..3usize.pow(rounds) {
            let symbol = |t: u32| outcome / 3usize.pow(t) % 3;
            let law = |s: u32| {
                (0..rounds).map(|t| if s >> t & 1 == 1 { P[symbol(t)] } else { Q[symbol(t)] }).product::<f64>()
            };
            let with = sets.iter().map(|&s| law(s)).sum::<f64>() / sets.len() as f64;
            let without = law(0);
            remove += with.powf(a) * without.powf(1.0 - a);
            add += without.powf(a) * with.powf(1.0 - a);
        }
        (remove.ln(), add.ln())
    }

    #[test]
    fn both_directions_bound_every_small_allocation() {
        for (k, rounds) in [(1, 1), (1, 2), (1, 5), (2, 5), (2, 6), (3, 4), (4, 4)] {
            let costs = costs(u64::from(k), u64::from(rounds), &both);
            for (&order, &cost) in orders().iter().zip(&costs).filter(|(a, _)| **a <= 12.0) {
                let (remove, add) = exact(k, rounds, order);
                let truth = remove.max(add) / (order - 1.0);
                assert!(cost >= truth * (1.0 - 1e-9), "{k} of {rounds} at {order}: {cost} {truth}");
                assert!(cost <= f64::from(k) * both(order) / (order - 1.0) * (1.0 + 1e-9) || order.fract() != 0.0);
            }
        }
    }

    #[test]
    fn one_round_of_many_is_exact_at_integers_in_the_remove_direction() {
        let one: Vec<f64> = (0..=20u32)
            .map(|a| if a < 2 { f64::NEG_INFINITY } else { ln_expm1(moment(&P, &Q, f64::from(a))) })
            .collect();
        for rounds in [1u32, 2, 3, 5, 6] {
            let found = thrown(&one, u64::from(rounds));
            for a in [2u32, 3, 5, 9] {
                let (remove, _) = exact(1, rounds, f64::from(a));
                let excess = log_of(found[a as usize]);
                assert!(excess >= remove && excess <= remove * (1.0 + 1e-8) + 1e-12, "{rounds} {a}: {excess} {remove}");
            }
        }
    }

    #[test]
    fn extremes_are_numbers_and_more_rounds_cost_less() {
        let gaussian = |a: f64| a * (a - 1.0) / 2.0;
        let mut last: Option<Vec<f64>> = None;
        for rounds in [10u64, 100, 10_000, 1_000_000, u64::MAX] {
            let found = costs(10, rounds, &gaussian);
            assert!(found.iter().all(|c| c.is_finite() && *c > 0.0), "{rounds}");
            if let Some(more) = &last {
                assert!(found.iter().zip(more).all(|(less, more)| less <= &(more * (1.0 + 1e-9))), "{rounds}");
            }
            last = Some(found);
        }
        assert!(costs(1, 3, &|_| f64::INFINITY).iter().all(|c| *c == f64::INFINITY));
        assert!(costs(1, 3, &|_| 0.0).iter().all(|c| *c >= 0.0 && *c < 1e-12));
    }
}
