//! What the accountant asks of a pair of distributions: how much mass lies on either side of a loss.
//!
//! The privacy loss of an outcome is `L = ln dP/dQ`. All that is needed of a pair is `P(L > epsilon)` and
//! `Q(L > epsilon)`; the hockey-stick divergence is `H(e^epsilon) = P(L > epsilon) - e^epsilon Q(L > epsilon)`.

use crate::math::search::bisect;

/// Masses that P and Q give to a set of outcomes, each with a bound on its absolute error.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mass {
    /// Under P.
    pub p: f64,
    /// Under Q.
    pub q: f64,
    /// Bound on the error of `p`.
    pub p_error: f64,
    /// Bound on the error of `q`.
    pub q_error: f64,
}

impl Mass {
    /// The mass of a set without that of a part of it.
    fn minus(self, part: Self) -> Self {
        Self {
            p: (self.p - part.p).max(0.0),
            q: (self.q - part.q).max(0.0),
            p_error: self.p_error + part.p_error,
            q_error: self.q_error + part.q_error,
        }
    }
}

/// A pair (P, Q) in one direction, by the tails of its privacy loss.
pub trait LossCurve: Send + Sync {
    /// Masses of the outcomes of finite loss above `epsilon`.
    fn above(&self, epsilon: f64) -> Mass;

    /// Masses of the outcomes of loss at most `epsilon`.
    fn below(&self, epsilon: f64) -> Mass;

    /// P's mass of outcomes that Q cannot produce.
    fn infinite(&self) -> f64;

    /// Bound on the mass, under P and Q together, of outcomes that the curve leaves out: an infinite loss to the upper
    /// bound, nothing to the lower one.
    fn left_out(&self) -> f64 {
        0.0
    }

    /// eta, where the true P and Q are within factors `e^eta` and `e^-eta` of those of the curve in each outcome. Then
    /// `delta(epsilon)` of n releases is at most `e^(n eta)` times the curve's at `epsilon - 2 n eta`, and at least
    /// `e^(-n eta)` times that at `epsilon + 2 n eta`.
    fn mass_error(&self) -> f64 {
        0.0
    }

    /// Bound on the rounding of a loss: of the epsilon at which an outcome counts as above it.
    fn loss_error(&self) -> f64 {
        2e-15
    }

    /// The greatest finite loss, or infinity.
    fn greatest(&self) -> f64 {
        f64::INFINITY
    }
}

/// Masses between `cuts` (ascending): `cuts.len() + 1` of them, the first below all cuts, the last above.
///
/// Each is a difference of the smaller tails, so that its error is relative to them.
pub(super) fn between(curve: &dyn LossCurve, count: usize, cut: impl Fn(usize) -> f64) -> Vec<Mass> {
    let mut masses = vec![Mass::default(); count + 1];
    // The first cut with less than half of P above it.
    let middle = partition_point(count, |i| curve.above(cut(i)).p >= 0.5);
    let mut below = Mass::default();
    for (i, mass) in masses.iter_mut().enumerate().take(middle) {
        let next = curve.below(cut(i));
        *mass = next.minus(below);
        below = next;
    }
    let mut above = Mass::default();
    for i in (middle..count).rev() {
        let next = curve.above(cut(i));
        masses[i + 1] = next.minus(above);
        above = next;
    }
    let all = Mass { p: 1.0 - curve.infinite(), q: 1.0, p_error: f64::EPSILON, q_error: f64::EPSILON };
    masses[middle] = all.minus(below).minus(above);
    masses
}

/// The first of `0..count` for which `holds`, true up to it, is false.
fn partition_point(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// The losses `[low, high]` outside of which P has at most `below` and `above`, to within a factor of the masses and
/// at most `limit` from zero.
pub(super) fn support(curve: &dyn LossCurve, below: f64, above: f64, limit: f64) -> (f64, f64) {
    let high = bisect((-limit, limit), 60, |epsilon| curve.above(epsilon).p > above).1;
    let low = bisect((-limit, limit), 60, |epsilon| curve.below(epsilon).p <= below).0;
    (low.min(high), high)
}
