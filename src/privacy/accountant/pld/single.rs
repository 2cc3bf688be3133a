//! One release: its curve answers at once, without a grid.

use super::Interval;
use super::curve::LossCurve;
use crate::math::search::bisect;

/// Beyond this epsilon `e^epsilon` is near the end of the range of numbers.
const STEEPEST: f64 = 700.0;

/// `h(e^epsilon)` and a bound on its error, apart from those of masses and losses ([`LossCurve::mass_error`],
/// [`LossCurve::loss_error`]).
fn height(curve: &dyn LossCurve, epsilon: f64) -> (f64, f64) {
    let mass = curve.above(epsilon);
    let x = libm::exp(epsilon);
    let scaled = if mass.q > 0.0 { x * mass.q } else { 0.0 };
    let error = mass.p_error + if mass.q_error > 0.0 { x * mass.q_error } else { 0.0 };
    (mass.p - scaled + curve.infinite(), error + 4.0 * f64::EPSILON * (mass.p + scaled))
}

/// Relative error of `e^epsilon` and of a bisection, as one of epsilon.
fn rounding(curve: &dyn LossCurve, epsilon: f64) -> f64 {
    curve.loss_error() + 2.0 * curve.mass_error() + 4.0 * f64::EPSILON * (1.0 + epsilon)
}

/// `(low, high)` around the least epsilon in `[0, limit]` whose delta is at most `delta`; infinite if beyond.
pub fn epsilon(curve: &dyn LossCurve, delta: f64, limit: f64) -> Interval {
    let slack = libm::exp(curve.mass_error());
    let lower = |epsilon: f64| {
        let (height, error) = height(curve, epsilon);
        height - error
    };
    let upper = |epsilon: f64| {
        let (height, error) = height(curve, epsilon);
        height + error + curve.left_out()
    };
    let exceeds_low = |epsilon: f64| lower(epsilon) > delta * slack;
    let exceeds_high = |epsilon: f64| upper(epsilon) > delta / slack;
    let low = if curve.infinite() * (1.0 - 1e-12) > delta * slack {
        f64::INFINITY
    } else if exceeds_low(0.0) {
        bisect((0.0, limit), 200, exceeds_low).0
    } else {
        0.0
    };
    let high = if exceeds_high(limit) {
        f64::INFINITY
    } else if exceeds_high(0.0) {
        bisect((0.0, limit), 200, exceeds_high).1
    } else {
        0.0
    };
    let outward = |epsilon: f64| if epsilon > 0.0 && epsilon.is_finite() { rounding(curve, epsilon) } else { 0.0 };
    Interval { low: (low - outward(low)).max(0.0), high: high + outward(high) }
}

/// `(low, high)` around the delta at `epsilon`.
pub fn delta(curve: &dyn LossCurve, epsilon: f64) -> Interval {
    let (slack, rounding) = (libm::exp(curve.mass_error()), rounding(curve, epsilon));
    // Delta falls with epsilon, and never below the mass of infinite losses.
    let (high, high_error) = height(curve, (epsilon - rounding).clamp(0.0, STEEPEST));
    let (low, low_error) = match epsilon + rounding {
        at if at <= STEEPEST => height(curve, at),
        _ => (curve.infinite(), 1e-12 * curve.infinite()),
    };
    Interval {
        low: ((low - low_error) / slack).clamp(0.0, 1.0),
        high: ((high + high_error + curve.left_out()) * slack).clamp(0.0, 1.0),
    }
}
