//! Renyi divergences of the Skellam mixture at integer orders, bounded for every shift at once.
//!
//! `P_x = floor(x) + Bern(frac x) + Sk(mu, mu)` against `Q = Sk(mu, mu)`; c is the largest curvature of `-ln q`
//! ([`super::law::curvature`]). The statements of `docs/smm-accounting.md`:
//!
//! **Theorem 1.** For `x = p` in `(0, 1]` and an integer `a >= 2`, both directions cost at most what Gaussian noise of
//! variance `1/c` under the same rounding would:
//! ```text
//! (a-1) max(D_a(P_p || Q), D_a(Q || P_p)) <= ln G(p),   G(p) = E e^(c n (n-1) / 2),   n ~ Binomial(a, p).
//! ```
//! **Theorem 2.** Let `kappa_1 >= ln G(p) / (beta p^2) - 1` on `(0, 1]`, `beta = a (a-1) c / 2`, and `t = c (a-1) / 4`.
//! Then for all `x > 0` and both directions
//! ```text
//! D_a <= (a c / 2) (1 + kappa) x^2,   kappa = max(kappa_1, (1 + kappa_1) t (1 + t)).
//! ```
//! **The supremum over p.** `G(p) = 1 + p^2 h(p)` with `h(p) = sum_n C(a,n) p^(n-2) (1-p)^(a-n) (e^(c n (n-1)/2) - 1)`,
//! convex in p (Lemma 4). On a cell `[u, v]`, `u > 0`, and for any `y > 0` (the tangent of ln at `1 + y`)
//! ```text
//! ln G(p) / p^2 <= A / p^2 + B h(p) <= max over p = u, v of A / p^2 + B h(p),
//! A = ln(1 + y) - y / (1 + y) >= 0,   B = 1 / (1 + y),
//! ```
//! since the middle is convex; on `[0, v]` it is at most `max(h(0), h(v))`. Both ends of every cell are evaluated
//! rounding upward.

use crate::math::interval::Interval;

/// Growth `beta` at and beyond which an order is not bounded (infinite): `e^beta` must stay a number.
const STEEP: f64 = 600.0;
/// Cells of `(0, 1]` at first, a power of two, and how often one may be halved.
const CELLS: u32 = 8;
const SPLITS: u32 = 32;
/// How near to the supremum the bound shall come, as a share of kappa.
const NEAR: f64 = 0.02;

/// `e^(c n (n-1)/2) - 1` for all n up to an order.
#[derive(Clone, Debug)]
pub struct Growth {
    curvature: f64,
    /// Upper bounds, from n = 0.
    excess: Vec<f64>,
}

impl Growth {
    /// For orders up to `highest`; `curvature` is any upper bound of c, > 0.
    #[must_use]
    pub fn new(curvature: f64, highest: u32) -> Self {
        let excess = (0..=highest)
            .map(|n| {
                let pairs = f64::from(n) * (f64::from(n) - 1.0) / 2.0;
                (Interval::exact(curvature) * Interval::exact(pairs.max(0.0))).exp_m1().high()
            })
            .collect();
        Self { curvature, excess }
    }

    /// Upper bound of `sup over x > 0 of max(D_a(P_x || Q), D_a(Q || P_x)) / x^2` (Theorem 2) at an integer order from 2
    /// to the highest; infinite where `e^beta` is no number.
    #[must_use]
    pub fn sup_ratio(&self, order: u32) -> f64 {
        let Some(kappa) = self.relative(order) else { return f64::INFINITY };
        let a = Interval::exact(f64::from(order));
        let t = Interval::exact(self.curvature) * (a - Interval::exact(1.0)) * Interval::exact(0.25);
        let one = Interval::exact(1.0);
        let far = (one + kappa) * t * (one + t);
        let worst = Interval::exact(kappa.high().max(far.high()));
        (a * Interval::exact(self.curvature) * Interval::exact(0.5) * (one + worst)).high()
    }

    /// `kappa_1`, enclosed from above.
    fn relative(&self, order: u32) -> Option<Interval> {
        let a = f64::from(order);
        let beta = Interval::exact(self.curvature) * Interval::exact(a * (a - 1.0) / 2.0);
        if order < 2 || order as usize >= self.excess.len() || beta.high() >= STEEP {
            return None;
        }
        let at = |p: f64| Node { p, excess: self.excess_moment(order, p) };
        let nodes: Vec<Node> = (0..=CELLS).map(|i| at(f64::from(i) / f64::from(CELLS))).collect();
        let mut cells: Vec<Cell> = nodes.windows(2).map(|pair| Cell::new(pair[0], pair[1])).collect();
        let mut seen = nodes.iter().map(Node::value).fold(0.0, f64::max);
        // The cell with the largest bound is halved until all bounds are near a value that is taken.
        let mut worst = f64::NAN;
        for _ in 0..SPLITS {
            let (i, cell) = cells.iter().copied().enumerate().max_by(|a, b| a.1.bound.total_cmp(&b.1.bound))?;
            worst = cell.bound;
            if !worst.is_finite() || worst - seen <= NEAR * (seen - beta.low()) {
                break;
            }
            let middle = at(0.5 * (cell.ends[0].p + cell.ends[1].p));
            seen = seen.max(middle.value());
            cells[i] = Cell::new(cell.ends[0], middle);
            cells.push(Cell::new(middle, cell.ends[1]));
        }
        let worst = cells.iter().map(|cell| cell.bound).fold(worst, f64::max);
        let kappa = Interval::exact(worst) / beta - Interval::exact(1.0);
        kappa.high().is_finite().then_some(Interval::exact(kappa.high()))
    }

    /// Upper bound of `h(p)` for p in `[0, 1]`; NaN or infinite where it is no number.
    fn excess_moment(&self, order: u32, p: f64) -> f64 {
        let a = f64::from(order);
        let pairs = a * (a - 1.0) / 2.0;
        if p == 0.0 {
            return (pairs * self.excess[2]).next_up();
        }
        if p == 1.0 {
            return self.excess[order as usize];
        }
        let (one, part) = (Interval::exact(1.0), Interval::exact(p));
        let out = one - part;
        // Weights C(a,n) p^(n-2) (1-p)^(a-n), each from the one before it, begun at the end where they are not too small
        // for a number: n = 2 or n = a.
        let upward = p <= 0.5;
        let (base, odds, first) = if upward { (out, part / out, pairs) } else { (part, out / part, 1.0) };
        let start = (Interval::exact(a - 2.0) * base.ln()).exp() * Interval::exact(first);
        let (mut weight, odds) = (start.high(), odds.high());
        let mut sum = 0.0;
        for i in 0..=order - 2 {
            let n = if upward { 2 + i } else { order - i };
            sum = above(sum + above(weight * self.excess[n as usize]));
            let next =
                if upward { f64::from(order - n) / f64::from(n + 1) } else { f64::from(n) / f64::from(order - n + 1) };
            weight = above(weight * above(odds * above(next)));
        }
        sum
    }
}

/// The number above a finite one that is not negative; NaN above infinity, which bounds nothing and is refused at the end.
fn above(x: f64) -> f64 {
    f64::from_bits(x.to_bits() + 1)
}

/// A p with its `h(p)`.
#[derive(Clone, Copy, Debug)]
struct Node {
    p: f64,
    excess: f64,
}

impl Node {
    /// `ln G(p) / p^2`, rounded: it only steers.
    fn value(&self) -> f64 {
        let square = self.p * self.p;
        if square == 0.0 { self.excess } else { libm::log1p(square * self.excess) / square }
    }
}

/// Two neighbouring nodes and an upper bound of `ln G(p) / p^2` from one to the other; infinite where there is none.
#[derive(Clone, Copy, Debug)]
struct Cell {
    ends: [Node; 2],
    bound: f64,
}

impl Cell {
    fn new(low: Node, high: Node) -> Self {
        let ends = [low, high];
        if low.excess.is_nan() || high.excess.is_nan() {
            return Self { ends, bound: f64::INFINITY };
        }
        if low.p == 0.0 {
            return Self { ends, bound: low.excess.max(high.excess) };
        }
        let y = |node: Node| node.p * node.p * node.excess;
        let tangents = [y(low), 0.5 * (y(low) + y(high)), y(high)];
        let bound = tangents.into_iter().map(|y| tangent_bound(ends, y)).fold(f64::INFINITY, f64::min);
        Self { ends, bound }
    }
}

/// The largest `A / p^2 + B h(p)` of two nodes, for the tangent at `1 + y`.
fn tangent_bound(ends: [Node; 2], y: f64) -> f64 {
    let y = Interval::exact(y);
    let slope = Interval::exact(1.0) / (Interval::exact(1.0) + y);
    let rest = Interval::exact((y.ln_1p() - y * slope).high().max(0.0));
    let at = |node: Node| rest / Interval::exact(node.p).square() + slope * Interval::exact(node.excess);
    at(ends[0]).high().max(at(ends[1]).high())
}

#[cfg(test)]
mod tests {
    use super::super::law::curvature;
    use super::*;

    #[test]
    fn never_below_the_gaussian_and_near_the_truth() {
        for mu in [20.0, 1428.0, 1e6] {
            let growth = Growth::new(curvature(mu), 128);
            for order in [2u32, 3, 6, 12, 40, 128] {
                let a = f64::from(order);
                let kappa = growth.sup_ratio(order) * 4.0 * mu / a - 1.0;
                // The supremum is about max(a, 2) / (8 mu); what the theorems lose is 2 / (8 mu) and higher powers.
                let second = (a / mu) * (a / mu);
                assert!(kappa >= a.max(2.0) / (8.0 * mu) * 0.99, "{mu} {order}: {kappa}");
                assert!(kappa <= (a + 2.1) * 1.04 / (8.0 * mu) + second, "{mu} {order}: {kappa}");
            }
        }
    }

    #[test]
    fn cells_cover_what_lies_between_their_ends() {
        let growth = Growth::new(0.01, 64);
        for order in [2u32, 5, 30, 64] {
            let kappa = growth.relative(order).expect("bounded").high();
            let beta = 0.01 * f64::from(order) * f64::from(order - 1) / 2.0;
            for i in 1..=4096 {
                let p = f64::from(i) / 4096.0;
                let exact = (p * p * growth.excess_moment(order, p)).ln_1p() / (p * p * beta);
                assert!(exact <= (1.0 + kappa) * (1.0 + 1e-12), "{order} {p}: {exact} {kappa}");
            }
        }
    }

    #[test]
    fn steep_orders_are_infinite() {
        let growth = Growth::new(1.0, 100);
        assert!(growth.sup_ratio(2).is_finite() && growth.sup_ratio(40).is_infinite());
        assert!(growth.sup_ratio(1).is_infinite() && growth.sup_ratio(101).is_infinite());
    }
}
