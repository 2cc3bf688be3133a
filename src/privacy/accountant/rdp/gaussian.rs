//! RDP of the Gaussian mechanism, plain and Poisson sampled.
//!
//! Unsampled: `D_a = a / (2 sigma^2)`. Sampled, with `Q = N(0, sigma^2)` and
//! `t(z) = q (e^((2z-1)/(2 sigma^2)) - 1)`, the remove direction is the larger one (Mironov, Talwar, Zhang
//! 2019, Theorem 5) and costs `ln A / (a-1)`, `A = E_Q[(1+t)^a]`.
//!
//! Integer orders: the closed binomial sum. Fractional orders: the paper's two alternating series decay
//! only like `i^(-a-2)` (20,000 terms at a = 1.05), so `A` is summed by the trapezoidal rule instead,
//! whose error has a bound just as explicit. The integrand `f` is analytic for `|Im z| < pi sigma^2`
//! (the zeros of `1 + t` lie beyond), where `|f(x + iy)| <= e^(y^2/(2 sigma^2)) f(x)`; hence step `h`
//! errs by at most `2 A e^(y^2/(2 sigma^2)) / (e^(2 pi y/h) - 1)` (Trefethen, Weideman 2014, Theorem 5.1).
//! With `h = min(sigma, sigma^2)/4` and `y = pi sigma^2` for `sigma <= 1`, `y = pi sigma` above, the
//! exponent is at least `8 pi^2 - pi^2/2 = 74`: an error of `A e^-73`. (The part `1 + a t` taken out of the
//! integrand obeys the same bound with `1 + a (1 + 2q)` for `A`.)

use super::subsample::{chord, remove_moment};

/// Beyond this many points the chord between integer orders is used (`sigma` below about 0.05).
const MAX_POINTS: f64 = 40_000.0;

/// RDP of the Gaussian mechanism at `order > 1`; `sigma` is the noise multiplier.
#[must_use]
pub fn gaussian(sigma: f64, order: f64) -> f64 {
    order / (2.0 * sigma * sigma)
}

/// RDP of the Gaussian mechanism on a Poisson sample of `rate` in `[0, 1]`.
#[must_use]
pub fn sampled_gaussian(sigma: f64, rate: f64, order: f64) -> f64 {
    if rate == 0.0 {
        return 0.0;
    }
    if rate == 1.0 {
        return gaussian(sigma, order);
    }
    let at_integer = at_integer(sigma, rate);
    let step = sigma.min(sigma * sigma) / 4.0;
    let points = (order + 26.0 * sigma) / step;
    let moment = if order.fract() == 0.0 || points.is_nan() || points > MAX_POINTS {
        chord(order, at_integer)
    } else {
        quadrature(sigma, rate, order, step)
    };
    moment / (order - 1.0)
}

/// RDP of the discrete Gaussian on a Poisson sample of `rate` in `[0, 1]`.
///
/// The binomial sum at an integer order grows with the divergences in it, which are at most those of the Gaussian; the
/// integral at a fractional order says nothing about other laws, so that chords bound those. The remove direction is the
/// larger one here too: `k -> v - k` exchanges P and Q, as Theorem 5 asks.
#[must_use]
pub fn sampled_discrete_gaussian(sigma: f64, rate: f64, order: f64) -> f64 {
    if rate == 0.0 || rate == 1.0 {
        return sampled_gaussian(sigma, rate, order);
    }
    chord(order, at_integer(sigma, rate)) / (order - 1.0)
}

/// `(a-1) D_a` under sampling at integer orders a.
fn at_integer(sigma: f64, rate: f64) -> impl Fn(u32) -> f64 {
    move |a| remove_moment(rate, a, |j| f64::from(j) * f64::from(j - 1) / (2.0 * sigma * sigma))
}

/// `ln E_Q[(1+t)^a]`, the part `1 + a t` (of mean 1) taken out of the integrand so that tiny rates lose
/// no digits.
fn quadrature(sigma: f64, rate: f64, order: f64, step: f64) -> f64 {
    let s2 = 2.0 * sigma * sigma;
    let ln_rate = libm::log(rate);
    let norm = step / (sigma * (2.0 * std::f64::consts::PI).sqrt());
    let first = (-13.0 * sigma / step).floor() as i64;
    let last = ((order + 13.0 * sigma) / step).ceil() as i64;
    // (ln Q, ln(1+t)) at each point.
    let at = |i: i64| {
        let z = i as f64 * step;
        let l = (2.0 * z - 1.0) / s2;
        let ln_r = if l > 700.0 { ln_rate + l } else { libm::log1p(rate * libm::expm1(l)) };
        (-z * z / s2, ln_r)
    };
    let top = (first..=last).map(at).map(|(l, r)| l + order * r).fold(f64::NEG_INFINITY, f64::max);
    if top > 200.0 {
        let sum: f64 = (first..=last).map(at).map(|(l, r)| libm::exp(l + order * r - top)).sum();
        return top + libm::log(sum * norm);
    }
    let sum: f64 = (first..=last)
        .map(at)
        .map(|(l, r)| {
            if (order * r).abs() < 0.02 {
                libm::exp(l) * small_remainder(libm::expm1(r), order)
            } else {
                libm::exp(l + order * r) - libm::exp(l) - order * (libm::exp(l + r) - libm::exp(l))
            }
        })
        .sum();
    libm::log1p((sum * norm).max(0.0))
}

/// `(1+t)^a - 1 - a t` for `|a t|` below 0.03: five terms of its series, relative error below 1e-9 of a
/// term that is itself below 1e-3.
fn small_remainder(t: f64, a: f64) -> f64 {
    let tail = 1.0 + (a - 5.0) / 6.0 * t * (1.0 + (a - 6.0) / 7.0 * t);
    let inner = 1.0 + (a - 3.0) / 4.0 * t * (1.0 + (a - 4.0) / 5.0 * t * tail);
    a * (a - 1.0) / 2.0 * t * t * (1.0 + (a - 2.0) / 3.0 * t * inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadrature_meets_the_closed_form_at_integers() {
        for sigma in [0.3, 0.8, 1.5, 20.0] {
            for rate in [1e-6, 1e-3, 0.1, 0.9] {
                for order in [2.0, 3.0, 5.0, 11.0] {
                    let step = f64::min(sigma, sigma * sigma) / 4.0;
                    let closed = sampled_gaussian(sigma, rate, order);
                    let summed = quadrature(sigma, rate, order, step) / (order - 1.0);
                    assert!((closed / summed - 1.0).abs() < 1e-9, "{sigma} {rate} {order}: {closed} {summed}");
                }
            }
        }
    }

    #[test]
    fn the_discrete_one_costs_as_much_at_integers_and_more_between() {
        for (sigma, rate) in [(0.8, 0.01), (2.0, 0.2)] {
            for order in [2.0, 3.0, 16.0] {
                let (discrete, real) =
                    (sampled_discrete_gaussian(sigma, rate, order), sampled_gaussian(sigma, rate, order));
                assert!((discrete / real - 1.0).abs() < 1e-12);
            }
            for order in [1.5, 2.5, 7.25] {
                assert!(sampled_discrete_gaussian(sigma, rate, order) > sampled_gaussian(sigma, rate, order));
            }
        }
        assert_eq!(sampled_discrete_gaussian(2.0, 1.0, 2.5), gaussian(2.0, 2.5));
    }

    #[test]
    fn edges() {
        assert_eq!(sampled_gaussian(1.0, 0.0, 2.0), 0.0);
        assert_eq!(sampled_gaussian(2.0, 1.0, 3.0), 0.375);
        let tiny = sampled_gaussian(0.01, 0.5, 1.5);
        assert!(tiny.is_finite() && tiny > 0.0);
    }
}
