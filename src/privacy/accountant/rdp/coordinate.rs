//! The Renyi divergences of one coordinate of the Skellam mixture, summed in floating point.
//!
//! What the certified bounds are compared with; no bound rests on it. With `r = P_x/Q`, `t = r - 1` and `E_Q t = 0`, both
//! directions are one function, `(a-1) D = ln(1 + E_Q[(1+t)^b - 1 - b t])` with `b = a` for `D_a(P||Q)` and `b = 1 - a`
//! for `D_a(Q||P)`; nothing cancels in it for small `x`.
//!
//! Sums over the lattice take every m-th point, `m = floor(sigma / 4)`, times `m`: for a summand this smooth the error is
//! about `exp(-2 pi^2 sigma^2 / m^2)`, below 1e-100.

use super::skellam::Skellam;

/// Exponent up to which the sum is taken without rescaling.
const DIRECT_LIMIT: f64 = 200.0;
/// Terms this far (in the exponent) below the largest are dropped: `e^-60` each.
const DROP: f64 = 60.0;

/// `(D_a(P_x || Q), D_a(Q || P_x))` for one coordinate, `a > 1`, `x > 0`, `mu > 0`.
#[must_use]
pub fn coordinate_divergences(mu: f64, x: f64, order: f64) -> (f64, f64) {
    let law = Skellam::new(mu, (reach(order, x, (2.0 * mu).sqrt()) + x) as usize + 2);
    Pair::new(&law, x, order).divergences(order)
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
