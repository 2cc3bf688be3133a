//! The normal tail and its inverse, enclosed, from the tail that [`crate::math::special`] states to
//! `(4 + x^2) 2^-53` of itself.

use crate::math::interval::Interval;
use crate::math::special::{mills_ratio, normal_tail};

/// Least tail that is inverted: below it numbers lose their digits.
pub const LEAST: f64 = 1e-290;

/// `P[N(0, 1) > x]`, enclosed with more than four times the stated error.
#[must_use]
pub fn tail(x: f64) -> Interval {
    let value = normal_tail(x);
    let error = value * (8.0 + 4.0 * x * x) * f64::EPSILON;
    Interval::new((value - error).next_down().max(0.0), (value + error).next_up())
}

/// The density at x.
#[must_use]
pub fn density(x: Interval) -> Interval {
    let root = (Interval::exact(2.0) * Interval::new(std::f64::consts::PI, std::f64::consts::PI.next_up())).sqrt();
    (-(x.square() * Interval::exact(0.5))).exp() / root
}

/// The x with `P[N(0, 1) > x]` in `alpha`, for `alpha` in `[LEAST, 1/2]`; `None` outside or where no end could be
/// verified.
#[must_use]
pub fn quantile(alpha: Interval) -> Option<Interval> {
    if !(alpha.low() >= LEAST && alpha.high() <= 0.5) {
        return None;
    }
    let middle = 0.5 * (alpha.low() + alpha.high());
    let target = libm::log(middle);
    let mut x = (-2.0 * target).sqrt();
    // ln of the tail is concave and falls: after the first step Newton's method comes from the right.
    for _ in 0..100 {
        let step = (libm::log(normal_tail(x)) - target) * mills_ratio(x.max(0.0));
        x = (x + step).max(0.0);
        if step.abs() <= 1e-15 * (1.0 + x) {
            break;
        }
    }
    // Only what is verified counts.
    let mut reach = 2e-15 * (1.0 + x) + 0.5 * (alpha.high() - alpha.low()) / middle;
    for _ in 0..40 {
        if tail(x - reach).low() >= alpha.high() && tail(x + reach).high() <= alpha.low() {
            return Some(Interval::new(x - reach, x + reach));
        }
        reach *= 2.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_lie_inside() {
        // From mpmath with 40 digits.
        for (x, expected) in KNOWN {
            let found = tail(x);
            assert!(found.low() <= expected && expected <= found.high(), "{x}: {found:?}");
            assert!(found.high() <= found.low() * (1.0 + 1e-11));
            let back = quantile(Interval::exact(expected)).expect("in range");
            assert!(back.contains(x) || (back.low() - x).abs() < 1e-12, "{x}: {back:?}");
            assert!(back.high() - back.low() < 1e-11, "{x}: {back:?}");
        }
    }

    const KNOWN: [(f64, f64); 6] = [
        (0.01, 0.4960106436853684),
        (0.5, 0.3085375387259869),
        (3.0, 0.0013498980316300946),
        (9.25, 1.1224633591327982e-20),
        (20.0, 2.7536241186062337e-89),
        (36.0, 4.182624065797283e-284),
    ];

    #[test]
    fn what_cannot_be_inverted_is_none() {
        for alpha in [0.0, 0.6, 1e-300, f64::NAN] {
            assert!(quantile(Interval::exact(alpha)).is_none(), "{alpha}");
        }
        assert!(quantile(Interval::new(0.1, 0.7)).is_none());
        assert!(quantile(Interval::exact(0.5)).is_some_and(|x| x.contains(0.0)));
    }
}
