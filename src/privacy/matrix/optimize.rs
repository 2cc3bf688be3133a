//! Coefficients of C that make the error of prefix sums small at a fixed privacy. Any result is as private as its
//! sensitivity says: nothing here has to be exact.
//!
//! What is made small is `ln E + ln S`: with b the solution of `C b = 1`, `E = sum w_t b_t^2` (`w = 1` for the last
//! prefix sum, `w_t = (n - t) / n` for the mean), and `S` the squared sensitivity. Gradients are those of the adjoint
//! equation `C' lambda = 2 w b`: `dE/dc_k = - sum_t lambda_t b_(t-k)`.

use super::{Objective, Participation};
use crate::math::minimize::minimize;

/// Most steps of the optimizer.
const STEPS: usize = 400;

/// What an optimal matrix is optimal for.
pub(super) struct Goal {
    pub(super) rounds: usize,
    pub(super) participation: Participation,
    pub(super) objective: Objective,
}

impl Goal {
    fn weight(&self, t: usize) -> f64 {
        match self.objective {
            Objective::Max => 1.0,
            Objective::Mean => (self.rounds - t) as f64 / self.rounds as f64,
        }
    }

    /// `2 w b` and E.
    fn error(&self, b: &[f64]) -> (Vec<f64>, f64) {
        let forces: Vec<f64> = b.iter().enumerate().map(|(t, b)| 2.0 * self.weight(t) * b).collect();
        let error = 0.5 * forces.iter().zip(b).map(|(f, b)| f * b).sum::<f64>();
        (forces, error)
    }

    /// S and its gradient with respect to the coefficients.
    fn sensitivity(&self, c: &[f64]) -> (f64, Vec<f64>) {
        let mut v = worst_column(c, self.participation);
        let square = v.iter().map(|v| v * v).sum();
        v.reverse();
        let mut gradient = worst_column(&v, self.participation);
        gradient.reverse();
        gradient.iter_mut().for_each(|g| *g *= 2.0);
        (square, gradient)
    }
}

/// `v_t = c_t + c_(t-b) + ... ` of at most k terms: the sum of the columns `0, b, ..., (k-1) b` of the Toeplitz matrix.
pub(super) fn worst_column(c: &[f64], participation: Participation) -> Vec<f64> {
    let n = c.len();
    let step = usize::try_from(participation.separation).unwrap_or(usize::MAX).min(n.max(1));
    let times = usize::try_from(participation.max).unwrap_or(usize::MAX).min(n.div_ceil(step));
    let mut v = c.to_vec();
    if times == n.div_ceil(step) {
        (step..n).for_each(|t| v[t] += v[t - step]);
    } else {
        for (t, v) in v.iter_mut().enumerate().skip(step) {
            *v = (0..times).map_while(|j| t.checked_sub(j * step)).map(|i| c[i]).sum();
        }
    }
    v
}

/// `x <- C^-1 x` for a banded C with `c_0 = 1` and `rest = c_1, ...`.
pub(super) fn solve_banded(rest: &[f64], x: &mut [f64]) {
    for t in 1..x.len() {
        let reach = rest.len().min(t);
        let past: f64 = rest[..reach].iter().zip(x[t - reach..t].iter().rev()).map(|(c, x)| c * x).sum();
        x[t] -= past;
    }
}

/// `x <- C^-1 x` for a buffered linear Toeplitz C.
pub(super) fn solve_blt(decay: &[f64], weight: &[f64], x: &mut [f64]) {
    let mut buffers = vec![0.0; decay.len()];
    for x in x {
        *x -= buffers.iter().zip(weight).map(|(s, w)| s * w).sum::<f64>();
        buffers.iter_mut().zip(decay).for_each(|(s, d)| *s = d * *s + *x);
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// The best falling coefficients, from those of the square root: each is the one before times a number in (0, 1).
pub(super) fn banded(bands: usize, goal: &Goal) -> Vec<f64> {
    let chain = |p: &[f64]| {
        let mut c = vec![1.0];
        p.iter().for_each(|&p| c.push(c[c.len() - 1] * sigmoid(p)));
        c
    };
    let objective = |p: &[f64]| {
        let c = chain(p);
        let (value, by_coefficient) = banded_objective(&c, goal);
        let mut tail = 0.0;
        let mut gradient = vec![0.0; p.len()];
        for i in (0..p.len()).rev() {
            tail += by_coefficient[i + 1] * c[i + 1];
            gradient[i] = tail * (1.0 - sigmoid(p[i]));
        }
        (value, gradient)
    };
    // c_k / c_(k-1) = (2k - 1) / 2k is the sigmoid of ln(2k - 1).
    let start = (1..bands).map(|k| libm::log(2.0 * k as f64 - 1.0)).collect();
    chain(&minimize(start, STEPS, objective))
}

fn banded_objective(c: &[f64], goal: &Goal) -> (f64, Vec<f64>) {
    let mut b = vec![1.0; goal.rounds];
    solve_banded(&c[1..], &mut b);
    let (mut lambda, error) = goal.error(&b);
    lambda.reverse();
    solve_banded(&c[1..], &mut lambda);
    lambda.reverse();
    let mut all = c.to_vec();
    all.resize(goal.rounds, 0.0);
    let (square, by_sensitivity) = goal.sensitivity(&all);
    let gradient = (0..c.len()).map(|k| {
        let by_error: f64 = lambda[k..].iter().zip(&b).map(|(l, b)| -l * b).sum();
        by_error / error + by_sensitivity[k] / square
    });
    (libm::log(error) + libm::log(square), gradient.collect())
}

/// The best decays and weights, from decays at all scales between 2 rounds and all of them.
pub(super) fn blt(degree: usize, goal: &Goal) -> (Vec<f64>, Vec<f64>) {
    let split = |p: &[f64]| {
        let (decays, weights) = p.split_at(degree);
        let decay: Vec<f64> = decays.iter().map(|&p| sigmoid(p)).collect();
        let raw: Vec<f64> = weights.iter().map(|&p| libm::exp(p)).collect();
        let total = 1.0 + raw.iter().sum::<f64>();
        (decay, raw.iter().map(|r| r / total).collect::<Vec<_>>())
    };
    let objective = |p: &[f64]| {
        let (decay, weight) = split(p);
        let (value, by_decay, by_weight) = blt_objective(&decay, &weight, goal);
        let mean: f64 = by_weight.iter().zip(&weight).map(|(g, w)| g * w).sum();
        let decays = by_decay.iter().zip(&decay).map(|(g, d)| g * d * (1.0 - d));
        let weights = by_weight.iter().zip(&weight).map(|(g, w)| w * (g - mean));
        (value, decays.chain(weights).collect())
    };
    let scale = |j: usize| libm::exp(libm::log(goal.rounds.max(2) as f64) * (j as f64 + 0.5) / degree as f64);
    let decays = (0..degree).map(|j| libm::log(scale(j)));
    let weights = (0..degree).map(|j| -0.5 * libm::log(scale(j)));
    let (decay, weight) = split(&minimize(decays.chain(weights).collect(), STEPS, objective));
    // A decay that rounds to 1 on the grid would not be one; a sum of weights is kept off 1 by the grid's width.
    let cap = |v: f64, most: f64| v.min(most);
    (decay.iter().map(|&d| cap(d, 1.0 - 1e-9)).collect(), weight.iter().map(|&w| cap(w * (1.0 - 1e-9), 1.0)).collect())
}

/// The objective and its gradients. With `P_t = sum_k decay^(k-1) b_(t-k)` and Q its derivative by the decay,
/// `dE/dweight = - sum lambda P` and `dE/ddecay = - weight sum lambda Q`.
fn blt_objective(decay: &[f64], weight: &[f64], goal: &Goal) -> (f64, Vec<f64>, Vec<f64>) {
    let n = goal.rounds;
    let mut b = vec![1.0; n];
    solve_blt(decay, weight, &mut b);
    let (mut lambda, error) = goal.error(&b);
    lambda.reverse();
    solve_blt(decay, weight, &mut lambda);
    lambda.reverse();
    let mut c = vec![1.0; n];
    c.iter_mut().skip(1).for_each(|c| *c = 0.0);
    let (mut by_decay, mut by_weight) = (Vec::new(), Vec::new());
    for (&d, &w) in decay.iter().zip(weight) {
        let mut power = w;
        c.iter_mut().skip(1).for_each(|c| {
            *c += power;
            power *= d;
        });
    }
    let (square, by_sensitivity) = goal.sensitivity(&c);
    for (&d, &w) in decay.iter().zip(weight) {
        let (mut p, mut q, mut to_weight, mut to_decay) = (0.0, 0.0, 0.0, 0.0);
        let (mut power, mut slope, mut sens_weight, mut sens_decay) = (1.0, 0.0, 0.0, 0.0);
        for t in 1..n {
            q = d * q + p;
            p = d * p + b[t - 1];
            to_weight -= lambda[t] * p;
            to_decay -= lambda[t] * q;
            sens_weight += by_sensitivity[t] * power;
            sens_decay += by_sensitivity[t] * slope;
            slope = d * slope + power;
            power *= d;
        }
        by_weight.push(to_weight / error + sens_weight / square);
        by_decay.push(w * (to_decay / error + sens_decay / square));
    }
    (libm::log(error) + libm::log(square), by_decay, by_weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goals() -> impl Iterator<Item = Goal> {
        [(1, 40), (3, 9), (8, 5), (2, 5), (40, 1)].into_iter().flat_map(|(max, separation)| {
            [Objective::Max, Objective::Mean].map(|objective| Goal {
                rounds: 40,
                participation: Participation { max, separation },
                objective,
            })
        })
    }

    /// Central differences.
    fn slope(f: impl Fn(&[f64]) -> f64, at: &[f64], i: usize) -> f64 {
        let moved = |h: f64| {
            let mut x = at.to_vec();
            x[i] += h;
            f(&x)
        };
        (moved(1e-5) - moved(-1e-5)) / 2e-5
    }

    #[test]
    fn gradients_are_slopes() {
        for goal in goals() {
            let c = [1.0, 0.7, 0.4, 0.3, 0.1, 0.05, 0.02];
            let (_, gradient) = banded_objective(&c, &goal);
            for (i, found) in gradient.iter().enumerate().skip(1) {
                let expected = slope(|c| banded_objective(c, &goal).0, &c, i);
                assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{i}");
            }
            let p = [0.9, 0.5, 0.2, 0.3];
            let (_, by_decay, by_weight) = blt_objective(&p[..2], &p[2..], &goal);
            for (i, found) in by_decay.iter().chain(&by_weight).enumerate() {
                let expected = slope(|p| blt_objective(&p[..2], &p[2..], &goal).0, &p, i);
                assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{i}: {found} {expected}");
            }
        }
    }
}
