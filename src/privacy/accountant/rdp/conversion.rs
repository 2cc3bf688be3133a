//! From RDP to (epsilon, delta): Canonne, Kamath, Steinke 2020, Proposition 12.

/// `tau + (ln(1/delta) + (a-1) ln(1 - 1/a) - ln a) / (a-1)`, at least 0 and infinite where `tau` is (or
/// is not a number).
pub(crate) fn epsilon_at(tau: f64, order: f64, delta: f64) -> f64 {
    if tau.is_nan() {
        return f64::INFINITY;
    }
    let bound = tau + libm::log1p(-1.0 / order) - (libm::log(delta) + libm::log(order)) / (order - 1.0);
    bound.max(0.0)
}

/// The inverse: `exp((a-1) (tau - epsilon + ln(1 - 1/a))) / a`, at most 1.
pub(crate) fn delta_at(tau: f64, order: f64, epsilon: f64) -> f64 {
    if !tau.is_finite() {
        return 1.0;
    }
    let ln_delta = (order - 1.0) * (tau - epsilon + libm::log1p(-1.0 / order)) - libm::log(order);
    libm::exp(ln_delta.min(0.0))
}
