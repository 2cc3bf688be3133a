//! RDP of the Skellam mixture under a plain L2 clip, certified.
//!
//! Per coordinate `P_x = floor(x) + Bern(frac x) + Sk(mu, mu)` against `Q = Sk(mu, mu)`, and
//!
//! ```text
//! S(a) = sup over x > 0 of max(D_a(P_x || Q), D_a(Q || P_x)) / x^2.
//! ```
//!
//! Coordinates are independent, so a vector with `|x|_2 <= R = gamma C` costs `sum S(a) x_j^2 <= S(a) R^2`. `Q` is
//! symmetric and `P_(-x)` is the mirror of `P_x`, hence `x > 0` is enough. At integer orders `S` is bounded by
//! [`crate::privacy::accountant::certificate::renyi`]. `(a-1) S(a)` is a supremum of convex functions of `a` (log-moments)
//! that are 0 at 1: the chord between two integer orders, or between 1 and 2, is an upper bound in between.

use rayon::prelude::*;

use super::orders;
use crate::privacy::accountant::certificate::{law, renyi};

/// `S(a)` for one noise level: cost of a vector is `S(a) R^2` at order `a`.
#[derive(Clone, Debug)]
pub struct SkellamMixtureCurve {
    mu: f64,
    l2_bound: f64,
    /// `(order, S(order))` at the integer orders of the accountant; infinite where there is no bound.
    nodes: Vec<(f64, f64)>,
}

impl SkellamMixtureCurve {
    /// Bounds `S` at every integer order of the accountant. `mu` and `l2_bound` must be finite and > 0 (the accountant
    /// checks).
    #[must_use]
    pub fn new(mu: f64, l2_bound: f64) -> Self {
        let integers: Vec<u32> = (2..=11).chain(orders().iter().filter(|&&a| a > 11.0).map(|&a| a as u32)).collect();
        let growth = renyi::Growth::new(law::curvature(mu), integers.last().copied().unwrap_or(2));
        let nodes = integers.into_par_iter().map(|a| (f64::from(a), growth.sup_ratio(a))).collect();
        Self { mu, l2_bound, nodes }
    }

    /// `mu_tot` that the curve belongs to.
    #[must_use]
    pub fn mu(&self) -> f64 {
        self.mu
    }

    /// `R = gamma C` that the curve belongs to.
    #[must_use]
    pub fn l2_bound(&self) -> f64 {
        self.l2_bound
    }

    /// `S(order)`, by the chord of `(a-1) S(a)` between computed orders (an upper bound). Infinite
    /// beyond the largest computed order.
    #[must_use]
    pub fn sup_ratio(&self, order: f64) -> f64 {
        let at = self.nodes.partition_point(|&(a, _)| a < order);
        match self.nodes.get(at) {
            None => f64::INFINITY,
            Some(&(a, s)) if a == order => s,
            Some(&(high, s_high)) => {
                let (low, s_low) = if at == 0 { (1.0, 0.0) } else { self.nodes[at - 1] };
                let weight = (order - low) / (high - low);
                let chord = (1.0 - weight) * (low - 1.0) * s_low + weight * (high - 1.0) * s_high;
                chord / (order - 1.0) * (1.0 + ROUNDING)
            }
        }
    }

    /// RDP of a vector of norm `l2_bound` at `order > 1`.
    #[must_use]
    pub fn rdp(&self, order: f64) -> f64 {
        self.sup_ratio(order) * self.l2_bound * self.l2_bound * (1.0 + ROUNDING)
    }
}

/// More than the rounding of a chord and of a product (a chord at 1.01 loses two digits in `a - 1`).
const ROUNDING: f64 = 1e-12;
