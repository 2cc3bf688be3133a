//! The Gaussian mechanism: its loss under Poisson sampling, and its closed form without.

use super::curve::{LossCurve, Mass};
use crate::math::search::bisect;
use crate::math::special::{mills_ratio, normal_tail};

/// Which of two neighbours the observer's hypothesis is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// P has the contribution, Q does not.
    Remove,
    /// Q has the contribution, P does not.
    Add,
}

/// `(1-q) N(0, sigma^2) + q N(1, sigma^2)` and `N(0, sigma^2)`, in either order.
///
/// With `t(epsilon) = sigma^2 ln((e^epsilon - 1 + q)/q) + 1/2` the loss at z is above epsilon, in the direction
/// [`Remove`](Direction::Remove), where `z > t(epsilon)`; in the other one where `z < t(-epsilon)`.
#[derive(Clone, Copy, Debug)]
pub struct SampledGaussian {
    sigma: f64,
    rate: f64,
    direction: Direction,
}

impl SampledGaussian {
    /// `sigma > 0` is the noise multiplier, `rate` in (0, 1] the sampling rate.
    #[must_use]
    pub fn new(sigma: f64, rate: f64, direction: Direction) -> Self {
        Self { sigma, rate, direction }
    }

    /// `t(epsilon) / sigma`; minus infinity below the least loss, `ln(1 - q)`.
    fn threshold(&self, epsilon: f64) -> f64 {
        let ratio = libm::expm1(epsilon) / self.rate;
        let log = if epsilon > 700.0 {
            epsilon - libm::log(self.rate)
        } else if ratio > -1.0 {
            libm::log1p(ratio)
        } else {
            f64::NEG_INFINITY
        };
        self.sigma * log + 0.5 / self.sigma
    }

    /// Masses of `z > x sigma` (or of `z <= x sigma`), under the mixture and under the noise alone.
    fn tails(&self, x: f64, upper: bool) -> (Tail, Tail) {
        let sign = if upper { 1.0 } else { -1.0 };
        let noise = Tail::of(sign * x);
        let shifted = Tail::of(sign * (x - 1.0 / self.sigma));
        (noise.times(1.0 - self.rate).plus(shifted.times(self.rate)), noise)
    }

    fn mass(&self, x: f64, upper: bool) -> Mass {
        let (mixture, noise) = self.tails(x, upper);
        let (p, q) = match self.direction {
            Direction::Remove => (mixture, noise),
            Direction::Add => (noise, mixture),
        };
        Mass { p: p.value, q: q.value, p_error: p.error, q_error: q.error }
    }
}

impl LossCurve for SampledGaussian {
    fn above(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(self.threshold(epsilon), true),
            Direction::Add => self.mass(self.threshold(-epsilon), false),
        }
    }

    fn below(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(self.threshold(epsilon), false),
            Direction::Add => self.mass(self.threshold(-epsilon), true),
        }
    }

    fn infinite(&self) -> f64 {
        0.0
    }
}

/// A tail of the normal law and a bound on its error: that of `erfc`, and that of its argument, to which the tail is
/// as sensitive as `x^2`.
#[derive(Clone, Copy, Default)]
pub(super) struct Tail {
    pub(super) value: f64,
    pub(super) error: f64,
}

impl Tail {
    pub(super) fn of(x: f64) -> Self {
        let value = normal_tail(x);
        let sensitivity = if x > 0.0 { x * x } else { 0.0 };
        Self { value, error: if value == 0.0 { 0.0 } else { value * (6.0 + 4.0 * sensitivity) * f64::EPSILON } }
    }

    pub(super) fn times(self, factor: f64) -> Self {
        Self { value: factor * self.value, error: factor * self.error }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { value: self.value + other.value, error: self.error + other.error }
    }
}

/// `delta` at `epsilon` of Gaussian mechanisms without sampling whose `sum 1/sigma^2` is `mu^2`:
/// `Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)` (Balle, Wang 2018, Theorem 8), and a bound on its error
/// apart from that of the arguments of Phi, which are as good as `epsilon` known to [`CLOSED_ERROR`].
fn closed_delta(mu: f64, epsilon: f64) -> (f64, f64) {
    let (a, b) = (epsilon / mu - 0.5 * mu, epsilon / mu + 0.5 * mu);
    // e^epsilon Phi(-b) = phi(a) Phi(-b)/phi(b), which neither overflows nor vanishes.
    let density = libm::exp(-0.5 * a * a) / (2.0 * std::f64::consts::PI).sqrt();
    let first = if a > 0.0 { density * mills_ratio(a) } else { normal_tail(a) };
    let second = density * mills_ratio(b);
    (first - second, 2e-13 * (first + second))
}

/// `(low, high)` around the delta at `epsilon >= 0` of Gaussian mechanisms whose `sum 1/sigma^2` is `mu^2`.
#[must_use]
pub fn delta_between(mu: f64, epsilon: f64) -> (f64, f64) {
    let (least, _) = closed_delta(mu, epsilon * (1.0 + CLOSED_ERROR));
    let (most, error) = closed_delta(mu, epsilon * (1.0 - CLOSED_ERROR));
    ((least - error).clamp(0.0, 1.0), (most + error).clamp(0.0, 1.0))
}

/// `(low, high)` around the least epsilon whose delta is at most `delta`.
#[must_use]
pub fn epsilon_between(mu: f64, delta: f64) -> (f64, f64) {
    // Renyi DP says that this is enough (Bun, Steinke 2016, Proposition 1.3).
    let enough = 0.5 * mu * mu + mu * (2.0 * -libm::log(delta)).sqrt();
    let exceeds = |sign: f64| {
        move |epsilon: f64| {
            let (found, error) = closed_delta(mu, epsilon);
            found + sign * error > delta
        }
    };
    let (below, above) = (exceeds(-1.0), exceeds(1.0));
    let low = if below(0.0) { bisect((0.0, enough), 200, below).0 } else { 0.0 };
    let high = if above(0.0) { bisect((0.0, enough), 200, above).1 } else { 0.0 };
    (low * (1.0 - CLOSED_ERROR), high * (1.0 + CLOSED_ERROR))
}

/// Relative error of epsilon that the rounding of `epsilon/mu -+ mu/2` comes to, with room.
const CLOSED_ERROR: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closed_form_is_enclosed() {
        // From mpmath with 60 digits.
        for (mu, delta, expected) in [
            (1e9f64.sqrt() / 1e12, 1e-10, 7.430404327193946e-8),
            (1e-3, 1e-5, 0.00193872496986011),
            (1.0, 1e-5, 4.3771780956812245),
            (20.0, 1e-10, 326.3589505148827),
            (1000.0, 1e-6, 504752.42667835933),
        ] {
            let (low, high) = epsilon_between(mu, delta);
            assert!(low <= expected && expected <= high, "{mu} {delta}: {low} {high}");
            assert!(high - low <= 1e-4 * high, "{mu} {delta}: {low} {high}");
            let (least, most) = delta_between(mu, expected);
            assert!(least <= delta && delta <= most, "{mu} {expected}: {least} {most}");
        }
        assert_eq!(epsilon_between(1.0, 0.9), (0.0, 0.0));
    }
}
