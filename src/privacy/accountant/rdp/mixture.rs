//! RDP of the Skellam mixture under a plain L2 clip, by a numeric supremum.
//!
//! Per coordinate `P_x = floor(x) + Bern(frac x) + Sk(mu, mu)` against `Q = Sk(mu, mu)`, and
//!
//! ```text
//! S(a) = sup over 0 < |x| <= R of max(D_a(P_x || Q), D_a(Q || P_x)) / x^2,     R = gamma C.
//! ```
//!
//! Coordinates are independent, so a vector with `|x|_2 <= R` costs `sum S(a) x_j^2 <= S(a) R^2`.
//! `Q` is symmetric and `P_(-x)` is the mirror of `P_x`, hence `x > 0` is enough.
//!
//! With `r = P_x/Q`, `t = r - 1` and `E_Q t = 0`, both directions are one function,
//! `(a-1) D = ln(1 + E_Q[(1+t)^b - 1 - b t])` with `b = a` for `D_a(P||Q)` and `b = 1 - a` for
//! `D_a(Q||P)`; nothing cancels in it for small `x`. As `x -> 0`,
//! `D / x^2 -> (a/2) E_Q[(q(k-1)/q(k) - 1)^2]` in both directions.
//!
//! The supremum is searched on a grid (fine below 1, coarser up to R) and refined by golden section
//! between the neighbours of the best point. **It is numeric: no interval arithmetic certifies it.**
//!
//! Sums over the lattice take every m-th point, `m = floor(sigma / 4)`, times `m`: for a summand this
//! smooth the error is about `exp(-2 pi^2 sigma^2 / m^2)`, below 1e-100.
//!
//! `(a-1) S(a)` is a supremum of convex functions of `a` (log-moments), so it is convex, and the chord
//! between two computed orders is an upper bound in between.

use rayon::prelude::*;

use super::orders;
use super::skellam::Skellam;

/// Widest tilt `a R`, in standard deviations, that is summed; beyond it epsilon would exceed
/// `2000^2 / (2 a)` and the order is dropped (infinite).
const MAX_TILT: f64 = 2000.0;
/// Golden-section steps around the best grid point.
const REFINE_STEPS: usize = 10;
/// Exponent up to which the sum is taken without rescaling.
const DIRECT_LIMIT: f64 = 200.0;
/// Terms this far (in the exponent) below the largest are dropped: `e^-60` each.
const DROP: f64 = 60.0;

/// `S(a)` for one noise level: cost of a vector is `S(a) R^2` at order `a`.
#[derive(Clone, Debug)]
pub struct SkellamMixtureCurve {
    mu: f64,
    l2_bound: f64,
    /// `(order, S(order))` at the orders of the accountant; infinite where dropped.
    nodes: Vec<(f64, f64)>,
}

/// `P_x` and `Q` on a strided lattice.
struct Pair {
    x: f64,
    stride: i64,
    /// Index of `k = 0`.
    origin: usize,
    /// `ln(P_x / Q)`.
    ln_r: Vec<f64>,
    /// `P_x / Q - 1`.
    t: Vec<f64>,
    ln_q: Vec<f64>,
    q: Vec<f64>,
    p: Vec<f64>,
    sigma: f64,
}

/// Distance from 0 within which the sum of order `a` at shift `x` lies. The tilted law is centred
/// between 0 and `a x`, its variance is at most `2 mu + a x`.
fn reach(order: f64, x: f64, sigma: f64) -> f64 {
    let tilt = order * x.ceil();
    tilt + 14.0 * (sigma * sigma + tilt).sqrt() + 60.0
}

impl Pair {
    fn new(law: &Skellam, x: f64, max_order: f64) -> Self {
        let sigma = law.sigma();
        let stride = ((sigma / 4.0) as i64).max(1);
        let half = (reach(max_order, x, sigma) / stride as f64).ceil() as i64;
        let whole = x.floor();
        let (shift, part) = (whole as i64, x - whole);
        let size = 2 * half as usize + 1;
        let (mut ln_r, mut ln_q) = (Vec::with_capacity(size), Vec::with_capacity(size));
        for i in -half..=half {
            let k = i * stride;
            let base = law.ln_pmf(k);
            let moved = if shift == 0 { 0.0 } else { law.ln_pmf(k - shift) - base };
            let rounding = if part == 0.0 { 0.0 } else { ln_1p_scaled_expm1(part, law.ln_ratio(k - shift)) };
            ln_q.push(base);
            ln_r.push(moved + rounding);
        }
        let t = ln_r.iter().map(|&r| libm::expm1(r)).collect();
        let q = ln_q.iter().map(|&l| libm::exp(l)).collect();
        let p = ln_q.iter().zip(&ln_r).map(|(&l, &r)| libm::exp(l + r)).collect();
        Self { x, stride, origin: half as usize, ln_r, t, ln_q, q, p, sigma }
    }

    /// `max(D_a(P||Q), D_a(Q||P)) / x^2`.
    fn ratio(&self, order: f64) -> f64 {
        let (forward, backward) = self.divergences(order);
        forward.max(backward) / (self.x * self.x)
    }

    /// `(D_a(P||Q), D_a(Q||P))`.
    fn divergences(&self, order: f64) -> (f64, f64) {
        let half = ((reach(order, self.x, self.sigma) / self.stride as f64).ceil() as usize).min(self.origin);
        let range = self.origin - half..self.origin + half + 1;
        let d = |b: f64| self.log_moment(b, range.clone()) / (order - 1.0);
        (d(order), d(1.0 - order))
    }

    /// `ln E_Q[(P/Q)^b]`.
    fn log_moment(&self, b: f64, range: std::ops::Range<usize>) -> f64 {
        let (ln_r, ln_q) = (&self.ln_r[range.clone()], &self.ln_q[range.clone()]);
        let (p, q, t) = (&self.p[range.clone()], &self.q[range.clone()], &self.t[range]);
        let top = ln_r.iter().zip(ln_q).map(|(&r, &l)| b * r + l).fold(f64::NEG_INFINITY, f64::max);
        let m = self.stride as f64;
        if top > DIRECT_LIMIT {
            let sum: f64 =
                ln_r.iter().zip(ln_q).map(|(&r, &l)| b * r + l - top).filter(|&e| e > -DROP).map(libm::exp).sum();
            return top + libm::log(sum * m);
        }
        let mut sum = 0.0;
        for i in 0..ln_r.len() {
            let exponent = b * ln_r[i] + ln_q[i];
            if exponent < top - DROP && ln_q[i] < -DROP && ln_q[i] + ln_r[i] < -DROP {
                continue;
            }
            sum += if (b * ln_r[i]).abs() < 0.05 && ln_r[i].abs() < 0.05 {
                q[i] * power_remainder(t[i], b)
            } else {
                libm::exp(exponent) - q[i] - b * (p[i] - q[i])
            };
        }
        libm::log1p((sum * m).max(0.0))
    }
}

/// `ln(1 + p (e^l - 1))` for `p` in (0, 1), without overflow.
fn ln_1p_scaled_expm1(p: f64, l: f64) -> f64 {
    if l > 700.0 { libm::log(p) + l } else { libm::log1p(p * libm::expm1(l)) }
}

/// `(1+t)^b - 1 - b t` by its series; for `|b t|` and `|t|` below about 0.05, where the term of power n is
/// at most `0.05^n`.
fn power_remainder(t: f64, b: f64) -> f64 {
    let mut term = b * (b - 1.0) / 2.0 * t * t;
    let mut sum = term;
    for (n, reciprocal) in RECIPROCALS {
        term *= (b - n + 1.0) * t * reciprocal;
        sum += term;
        if term.abs() <= 1e-17 * sum.abs() {
            break;
        }
    }
    sum
}

/// `(n, 1/n)` for the powers from 3 on; 0.1^12 is below the rounding of the first.
const RECIPROCALS: [(f64, f64); 13] = {
    let mut table = [(0.0, 0.0); 13];
    let mut i = 0;
    while i < table.len() {
        let n = i as f64 + 3.0;
        table[i] = (n, 1.0 / n);
        i += 1;
    }
    table
};

/// The grid of shifts: 1/32 apart up to 1, 1/2 up to 3, then growing by a half.
fn shifts(l2_bound: f64) -> Vec<f64> {
    let mut xs: Vec<f64> = (1..=32).map(|i| f64::from(i) / 32.0).collect();
    xs.extend((3..=6).map(|i| f64::from(i) / 2.0));
    let mut x = 3.0;
    while x < l2_bound {
        x *= 1.5;
        xs.push(x);
    }
    xs.retain(|&x| x < l2_bound);
    xs.push(l2_bound);
    xs
}

impl SkellamMixtureCurve {
    /// Computes `S` at every order of the accountant. `mu` and `l2_bound` must be finite and > 0 (the
    /// accountant checks).
    #[must_use]
    pub fn new(mu: f64, l2_bound: f64) -> Self {
        Self::at(mu, l2_bound, orders().to_vec())
    }

    /// The same at the integer orders only: all that Poisson sampling needs, in half the time.
    #[must_use]
    pub fn at_integers(mu: f64, l2_bound: f64) -> Self {
        let mut integers: Vec<f64> = (2..=11).map(f64::from).collect();
        integers.extend(orders().iter().filter(|&&a| a > 11.0));
        Self::at(mu, l2_bound, integers)
    }

    fn at(mu: f64, l2_bound: f64, orders: Vec<f64>) -> Self {
        let sigma = (2.0 * mu).sqrt();
        let limit = MAX_TILT * sigma.max(1.0);
        let wide = l2_bound.ceil();
        let wanted: Vec<f64> = orders.iter().copied().filter(|a| a * wide <= limit).collect();
        let mut nodes: Vec<(f64, f64)> = orders.into_iter().map(|a| (a, f64::INFINITY)).collect();
        if let Some(&max_order) = wanted.last() {
            let law = Skellam::new(mu, (reach(max_order, l2_bound, sigma) + wide + sigma) as usize + 2);
            let sups = sup_ratios(&law, l2_bound, &wanted);
            for (node, sup) in nodes.iter_mut().zip(sups) {
                node.1 = sup;
            }
        }
        Self { mu, l2_bound, nodes }
    }

    /// True if fractional orders were computed as well.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.nodes.len() == orders().len()
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
                chord / (order - 1.0)
            }
        }
    }

    /// RDP of a vector of norm `l2_bound` at `order > 1`.
    #[must_use]
    pub fn rdp(&self, order: f64) -> f64 {
        self.sup_ratio(order) * self.l2_bound * self.l2_bound
    }
}

/// `(D_a(P_x || Q), D_a(Q || P_x))` for one coordinate, `a > 1`, `x > 0`, `mu > 0`.
#[must_use]
pub fn coordinate_divergences(mu: f64, x: f64, order: f64) -> (f64, f64) {
    let law = Skellam::new(mu, (reach(order, x, (2.0 * mu).sqrt()) + x) as usize + 2);
    Pair::new(&law, x, order).divergences(order)
}

/// `S(a)` for each of `wanted` (ascending).
fn sup_ratios(law: &Skellam, l2_bound: f64, wanted: &[f64]) -> Vec<f64> {
    let max_order = wanted.last().copied().unwrap_or(2.0);
    let xs = shifts(l2_bound);
    let table: Vec<Vec<f64>> = xs
        .par_iter()
        .map(|&x| {
            let pair = Pair::new(law, x, max_order);
            wanted.iter().map(|&a| pair.ratio(a)).collect()
        })
        .collect();
    let slope = limit_slope(law);
    wanted
        .par_iter()
        .enumerate()
        .map(|(i, &a)| {
            let limit = 0.5 * a * slope;
            let best = (0..xs.len()).max_by(|&m, &n| table[m][i].total_cmp(&table[n][i])).unwrap_or(0);
            let grid = table[best][i].max(limit);
            let low = if best == 0 { 0.0 } else { xs[best - 1] };
            let high = xs[(best + 1).min(xs.len() - 1)];
            grid.max(golden_section(low, high, |x| Pair::new(law, x, a).ratio(a)))
        })
        .collect()
}

/// `E_Q[(q(k-1)/q(k) - 1)^2]`.
fn limit_slope(law: &Skellam) -> f64 {
    let stride = ((law.sigma() / 4.0) as i64).max(1);
    let half = (reach(2.0, 1.0, law.sigma()) / stride as f64).ceil() as i64;
    let sum: f64 = (-half..=half)
        .map(|i| {
            let k = i * stride;
            let (ln_q, ln_rho) = (law.ln_pmf(k), law.ln_ratio(k));
            if ln_q + 2.0 * ln_rho.max(0.0) < -DROP {
                return 0.0;
            }
            // q (rho - 1)^2 = (e^(l/2) sqrt(q) - ...)^2, written so that a large rho does not overflow.
            let half_step = libm::exp(0.5 * ln_q + ln_rho.max(0.0)) * libm::expm1(-ln_rho.abs());
            half_step * half_step
        })
        .sum();
    sum * stride as f64
}

/// The largest value of `f` met by golden section on `(low, high)`.
fn golden_section(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const INV_PHI: f64 = 0.618_033_988_749_894_8;
    let mut left = high - INV_PHI * (high - low);
    let mut right = low + INV_PHI * (high - low);
    let (mut at_left, mut at_right) = (f(left), f(right));
    let mut best = at_left.max(at_right);
    for _ in 0..REFINE_STEPS {
        if at_left > at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - INV_PHI * (high - low);
            at_left = f(left);
            best = best.max(at_left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + INV_PHI * (high - low);
            at_right = f(right);
            best = best.max(at_right);
        }
    }
    best
}
