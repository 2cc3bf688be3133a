//! RDP under Poisson sampling, from the unsampled RDP of a mechanism known only by its curve.
//!
//! Write `P` for the released law with the client in the sample, `Q` without, `m(a) = (a-1) D_a` for
//! log-moments, `r = P/Q`, `t = r - 1`; the sampled pair is `(1-q) Q + q P` against `Q`.
//!
//! **Remove direction**, integer `a`, exact given the moments (Mironov, Talwar, Zhang 2019, section 3.3):
//! ```text
//! E_Q[(1 + q t)^a] = sum_j C(a,j) (1-q)^(a-j) q^j e^(m(j))
//!                  = 1 + sum_{j>=2} C(a,j) (1-q)^(a-j) q^j (e^(m(j)) - 1).
//! ```
//! **Add direction**, `D_a(Q || (1-q) Q + q P) = ln E_Q[(1 + q t)^(1-a)] / (a-1)`, is not assumed to be
//! smaller. Write `f(t) = (1+qt)^(1-a) = 1 - (a-1) q t + t^2 h(t)`; as `E_Q t = 0`, the moment is
//! `1 + E_Q[t^2 h(t)]`, and `h(t) = integral over s in [0,1] of (1-s) f''(s t)`,
//! `f''(u) = a(a-1) q^2 (1+qu)^(-(a+1))`. Also `E_Q t^2 = e^(D_2(P||Q)) - 1` and
//! `E_Q[t^2/(1+t)] = E_Q[1/r] - 1 = e^(D_2(Q||P)) - 1`; let `X` be the larger of the two. The least of:
//! 1. `h` decreases in `t >= -1` because `f''` does: at most `1 + h(-1) X`,
//!    `h(-1) = (1-q)^(1-a) - 1 - (a-1) q`.
//! 2. If `(a+1) q <= 1`: at most `1 + a(a-1)/2 q^2 X`. For `n = a+1`, `c = q s`, `nc <= 1`, Bernoulli gives
//!    `(1+ct)^n (1 + (1-nc) t) >= (1 + nct)(1 + (1-nc) t) >= 1 + t`, hence
//!    `(1+ct)^(-n) <= 1 - nc + nc/(1+t)`; integrated, `h(t) <= A + B/(1+t)` with `A + B = a(a-1)/2 q^2` and
//!    both `>= 0`.
//! 3. Convexity of `u -> u^(1-a)`: at most `1 - q + q e^(m'(a))`, `m'(a) = (a-1) D_a(Q||P)`.
//!
//! **Fractional orders**: `(a-1) D_a` is convex in `a` and 0 at 1, so a chord between integers bounds it.

use crate::math::special::{ln_binomial, log_sum_exp};

/// `(a-1) tau_q(a)` of the remove direction; `moment(j)` is `(j-1) D_j(P||Q)`, asked for 2..=order.
/// `rate` in `[0, 1]`.
pub(crate) fn remove_moment(rate: f64, order: u32, moment: impl Fn(u32) -> f64) -> f64 {
    if rate == 0.0 {
        return 0.0;
    }
    if rate == 1.0 {
        return moment(order);
    }
    let (ln_in, ln_out) = (libm::log(rate), libm::log1p(-rate));
    let terms: Vec<f64> = (2..=order)
        .map(|j| ln_binomial(order, j) + f64::from(order - j) * ln_out + f64::from(j) * ln_in + ln_expm1(moment(j)))
        .collect();
    softplus(log_sum_exp(&terms))
}

/// Upper bound of `(a-1) D_a` of the add direction; `d2` bounds `D_2(P||Q)` and `D_2(Q||P)`,
/// `moment = (a-1) D_a(Q||P)`.
pub(crate) fn add_moment(rate: f64, order: u32, d2: f64, moment: f64) -> f64 {
    if rate == 0.0 {
        return 0.0;
    }
    if rate == 1.0 {
        return moment;
    }
    let a = f64::from(order);
    let half = libm::log(a * (a - 1.0) / 2.0) + 2.0 * libm::log(rate);
    let factor = if (a + 1.0) * rate <= 1.0 {
        half
    } else {
        // h(-1); beyond e^700 its leading term says the same.
        let power = (1.0 - a) * libm::log1p(-rate);
        if power > 700.0 { power } else { libm::log(libm::expm1(power) - (a - 1.0) * rate) }
    };
    let second = factor + ln_expm1(d2);
    let convex = libm::log(rate) + ln_expm1(moment);
    softplus(second.min(convex))
}

/// The greater of both directions at an integer order; `moment` bounds the unsampled ones of both.
pub(crate) fn both_moments(rate: f64, order: u32, moment: impl Fn(u32) -> f64) -> f64 {
    let add = add_moment(rate, order, moment(2), moment(order));
    remove_moment(rate, order, moment).max(add)
}

/// Bound on `(a-1) D_a`, in both directions, where a set of fixed size is drawn, a share `rate` of all, and neighbours
/// replace one contribution; `moment(j)` bounds the unsampled one under replacement (Wang, Balle, Kasiviswanathan 2019,
/// Theorem 9, no bound on the loss assumed):
/// `ln(1 + q^2 C(a,2) min(4 (e^(m(2)) - 1), 2 e^(m(2))) + 2 sum_{j>=3} q^j C(a,j) e^(m(j)))`.
pub(crate) fn without_replacement_moment(rate: f64, order: u32, moment: impl Fn(u32) -> f64) -> f64 {
    if rate == 0.0 {
        return 0.0;
    }
    if rate == 1.0 {
        return moment(order);
    }
    let weight = |j: u32| ln_binomial(order, j) + f64::from(j) * libm::log(rate);
    let ln_2 = std::f64::consts::LN_2;
    let square = (2.0 * ln_2 + ln_expm1(moment(2))).min(ln_2 + moment(2));
    let terms: Vec<f64> = (2..=order).map(|j| weight(j) + if j == 2 { square } else { ln_2 + moment(j) }).collect();
    // Divergences are jointly quasi-convex: never more than without sampling.
    softplus(log_sum_exp(&terms)).min(moment(order))
}

/// Log-moment at any order in `(1, ..)` from those at integers, by the chord.
pub(crate) fn chord(order: f64, at_integer: impl Fn(u32) -> f64) -> f64 {
    let low = order.floor();
    let value = |a: f64| if a <= 1.0 { 0.0 } else { at_integer(a as u32) };
    if low == order {
        return value(order);
    }
    let weight = order - low;
    (1.0 - weight) * value(low) + weight * value(low + 1.0)
}

/// `ln(e^m - 1)` for `m >= 0`.
pub(crate) fn ln_expm1(m: f64) -> f64 {
    if m > 30.0 { m + libm::log1p(-libm::exp(-m)) } else { libm::log(libm::expm1(m)) }
}

/// `ln(1 + e^l)`.
pub(crate) fn softplus(l: f64) -> f64 {
    if l > 40.0 { l } else { libm::log1p(libm::exp(l)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An asymmetric pair on three points: everything can be summed exactly.
    #[test]
    fn both_directions_bound_an_exact_pair() {
        let (p, q) = ([0.7f64, 0.2, 0.1], [0.25f64, 0.05, 0.7]);
        let divergence = |u: &[f64; 3], v: &[f64; 3], a: f64| {
            u.iter().zip(v).map(|(&x, &y)| x.powf(a) * y.powf(1.0 - a)).sum::<f64>().ln()
        };
        for rate in [1e-4, 0.01, 0.1, 0.5, 0.9] {
            let mixed: [f64; 3] = std::array::from_fn(|i| (1.0 - rate) * q[i] + rate * p[i]);
            for order in [2u32, 3, 7, 40] {
                let a = f64::from(order);
                let moment = |j: u32| divergence(&p, &q, f64::from(j));
                let remove = remove_moment(rate, order, moment);
                let exact = divergence(&mixed, &q, a);
                assert!((remove - exact).abs() < 1e-12 + 1e-9 * exact, "{rate} {order}: {remove} {exact}");
                let d2 = moment(2).max(divergence(&q, &p, 2.0));
                let add = add_moment(rate, order, d2, divergence(&q, &p, a));
                let exact = divergence(&q, &mixed, a);
                assert!(add >= exact - 1e-12, "{rate} {order}: {add} {exact}");
                // Small rates: no more than the ratio of the two chi-squares is lost.
                assert!(rate > 1e-3 || add <= 2.5 * exact + 1e-12, "{rate} {order}: {add} {exact}");
                let both = both_moments(rate, order, |j| moment(j).max(divergence(&q, &p, f64::from(j))));
                assert!(both >= remove.max(add) - 1e-12);
            }
            let at = |a: u32| divergence(&mixed, &q, f64::from(a));
            for order in [1.5, 2.5, 7.25] {
                assert!(chord(order, at) >= divergence(&mixed, &q, order) - 1e-12);
            }
        }
    }

    #[test]
    fn the_edges_of_the_rate() {
        let moment = |j: u32| f64::from(j - 1) * 0.3 * f64::from(j);
        assert_eq!(both_moments(0.0, 5, moment), 0.0);
        assert_eq!(both_moments(1.0, 5, moment), moment(5));
        assert!(both_moments(0.5, 3, |_| f64::INFINITY).is_infinite());
    }
}
