//! The Skellam law `Sk(mu, mu)` = Poisson(mu) - Poisson(mu) by the ratios of its neighbours.
//!
//! `q(k) = e^(-z) I_|k|(z)`, `z = 2 mu`. The ratio `rho(k) = q(k-1)/q(k) = I_(k-1)(z)/I_k(z)` obeys
//! `rho(k) = 2k/z + 1/rho(k+1)`, which is stable downwards (Miller). For large `z` Debye's uniform
//! expansion (DLMF 10.41) is used instead; at `z >= 4e5` its dropped terms are below 1e-16.

use std::f64::consts::PI;

/// From this mean on, Debye's expansion replaces the table of ratios.
const DEBYE_FROM: f64 = 2e5;

/// Log-probabilities of `Sk(mu, mu)`.
#[derive(Debug)]
pub(crate) struct Skellam {
    mu: f64,
    /// `ln rho(k)` for `k = 1..`, at index `k - 1`; empty where the expansion is used.
    ln_ratio: Vec<f64>,
    /// `ln q(k)` for `k = 0..`.
    ln_pmf: Vec<f64>,
}

impl Skellam {
    /// The law with mean `mu` of each Poisson; `reach` is the largest |k| that will be asked for.
    pub(crate) fn new(mu: f64, reach: usize) -> Self {
        if mu >= DEBYE_FROM {
            return Self { mu, ln_ratio: Vec::new(), ln_pmf: Vec::new() };
        }
        let z = 2.0 * mu;
        // Far enough for the sum of q to be complete, whatever the caller needs.
        let reach = reach.max((14.0 * z.sqrt()) as usize + 60);
        let start = reach + (2.0 * z.sqrt()) as usize + 30;
        let k = start as f64 + 1.0;
        // Amos' estimate; its error shrinks by 1/rho^2 at each step down.
        let mut rho = (k - 0.5 + ((k + 0.5) * (k + 0.5) + z * z).sqrt()) / z;
        let mut ln_ratio = vec![0.0; reach];
        for k in (1..=start).rev() {
            rho = 2.0 * k as f64 / z + 1.0 / rho;
            if k <= reach {
                ln_ratio[k - 1] = libm::log(rho);
            }
        }
        let mut ln_pmf = Vec::with_capacity(reach + 1);
        ln_pmf.push(0.0);
        let mut total = 1.0;
        let mut level = 0.0;
        for &step in &ln_ratio {
            level -= step;
            ln_pmf.push(level);
            if level > -745.0 {
                total += 2.0 * libm::exp(level);
            }
        }
        let ln_total = libm::log(total);
        ln_pmf.iter_mut().for_each(|l| *l -= ln_total);
        Self { mu, ln_ratio, ln_pmf }
    }

    /// Standard deviation, `sqrt(2 mu)`.
    pub(crate) fn sigma(&self) -> f64 {
        (2.0 * self.mu).sqrt()
    }

    /// `ln q(k)`.
    pub(crate) fn ln_pmf(&self, k: i64) -> f64 {
        let index = k.unsigned_abs() as usize;
        match self.ln_pmf.get(index) {
            Some(&l) => l,
            None => debye_ln_pmf(2.0 * self.mu, index as f64),
        }
    }

    /// `ln [q(k-1) / q(k)]`.
    pub(crate) fn ln_ratio(&self, k: i64) -> f64 {
        if k <= 0 {
            return -self.ln_ratio(1 - k);
        }
        match self.ln_ratio.get(k as usize - 1) {
            Some(&l) => l,
            None => debye_ln_ratio(2.0 * self.mu, k as f64),
        }
    }
}

/// `ln [e^(-z) I_nu(z)]` by Debye's expansion up to the second correction.
fn debye_ln_pmf(z: f64, nu: f64) -> f64 {
    let r = nu.hypot(z);
    let p2 = (nu / r) * (nu / r);
    let u1 = (3.0 - 5.0 * p2) / (24.0 * r);
    let u2 = (81.0 - 462.0 * p2 + 385.0 * p2 * p2) / (1152.0 * r * r);
    nu * nu / (r + z) - nu * libm::asinh(nu / z) - 0.5 * libm::log(2.0 * PI * r) + libm::log1p(u1 + u2)
}

/// `ln [I_(k-1)(z) / I_k(z)]`: the same expansion, differenced about `nu = k - 1/2` by hand, so that
/// nothing cancels.
fn debye_ln_ratio(z: f64, k: f64) -> f64 {
    let nu = k - 0.5;
    let r = nu.hypot(z);
    let p = nu / r;
    libm::asinh(nu / z) + p / (2.0 * r) + p / (2.0 * r * r) - 0.625 * p * p * p / (r * r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_to_one_with_the_right_variance() {
        for mu in [0.05, 1.0, 5.95, 148.75, 1428.0] {
            let law = Skellam::new(mu, 0);
            let reach = (14.0 * law.sigma()) as i64 + 50;
            let (mut total, mut second) = (0.0, 0.0);
            for k in -reach..=reach {
                let q = law.ln_pmf(k).exp();
                total += q;
                second += q * (k * k) as f64;
            }
            assert!((total - 1.0).abs() < 1e-12 && (second / (2.0 * mu) - 1.0).abs() < 1e-11, "{mu}");
        }
        // P[Sk(1, 1) = 0] = e^-2 I_0(2), I_0(2) = 2.2795853023360673.
        let exact = (-2f64).exp() * 2.2795853023360673;
        assert!((Skellam::new(1.0, 0).ln_pmf(0).exp() / exact - 1.0).abs() < 1e-14);
    }

    #[test]
    fn debye_meets_miller() {
        let mu = 0.99 * DEBYE_FROM;
        let law = Skellam::new(mu, 20_000);
        for k in [1i64, 2, 10, 500, 5_000, 20_000] {
            let (table, series) = (law.ln_ratio(k), debye_ln_ratio(2.0 * mu, k as f64));
            assert!((table / series - 1.0).abs() < 1e-10, "{k}: {table} {series}");
            let (table, series) = (law.ln_pmf(k), debye_ln_pmf(2.0 * mu, k as f64));
            assert!((table - series).abs() < 1e-10 * series.abs(), "{k}: {table} {series}");
        }
    }
}
