//! A local minimum of a smooth function of many variables.

use std::collections::VecDeque;

/// Steps and changes of the gradient that are remembered.
const MEMORY: usize = 12;
/// Least decrease of a step, as a share of what the slope promises (Armijo).
const DECREASE: f64 = 1e-4;
/// Halvings of a step before it is given up.
const HALVINGS: u32 = 40;

/// Limited-memory BFGS (Nocedal, Wright 2006, Algorithm 7.5) with halved steps, from `start`, at most `steps` of them:
/// the best point seen. `f` gives the value and the gradient; a value that is not finite is a wall.
///
/// Only `+ - * /` and square roots beside what `f` computes, in a fixed order: the same bits on every machine.
pub fn minimize(start: Vec<f64>, steps: usize, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Vec<f64> {
    let mut x = start;
    let (mut value, mut gradient) = f(&x);
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for _ in 0..steps {
        let mut direction = two_loops(&pairs, &gradient);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 || !slope.is_finite() {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = -dot(&gradient, &gradient);
        }
        // The first step has the length of a unit at most.
        let first = if pairs.is_empty() { 1.0 / (1.0 + dot(&gradient, &gradient).sqrt()) } else { 1.0 };
        let Some((next, next_value, next_gradient)) = descend(&f, &x, value, &direction, slope, first) else { break };
        let moved: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let turned: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&moved, &turned);
        if curvature > 1e-300 {
            pairs.push_back((moved, turned, 1.0 / curvature));
            if pairs.len() > MEMORY {
                pairs.pop_front();
            }
        }
        let gain = value - next_value;
        (x, value, gradient) = (next, next_value, next_gradient);
        if gain <= 1e-15 * (1.0 + value.abs()) {
            break;
        }
    }
    x
}

/// The longest of `first`, `first / 2`, ... along `direction` that goes down far enough.
fn descend(
    f: &impl Fn(&[f64]) -> (f64, Vec<f64>),
    x: &[f64],
    value: f64,
    direction: &[f64],
    slope: f64,
    first: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let mut step = first;
    for _ in 0..HALVINGS {
        let next: Vec<f64> = x.iter().zip(direction).map(|(x, d)| x + step * d).collect();
        let (found, gradient) = f(&next);
        if found.is_finite() && found <= value + DECREASE * step * slope {
            return Some((next, found, gradient));
        }
        step *= 0.5;
    }
    None
}

/// Minus the approximate inverse Hessian times the gradient.
fn two_loops(pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>, gradient: &[f64]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for (moved, turned, rho) in pairs.iter().rev() {
        let weight = rho * dot(moved, &q);
        add(&mut q, -weight, turned);
        weights.push(weight);
    }
    if let Some((_, turned, rho)) = pairs.back() {
        let scale = 1.0 / (rho * dot(turned, turned));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((moved, turned, rho), weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let change = weight - rho * dot(turned, &q);
        add(&mut q, change, moved);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley: `(1 - x)^2 + 100 (y - x^2)^2`.
    #[test]
    fn finds_the_end_of_a_bent_valley() {
        let valley = |p: &[f64]| {
            let (x, y) = (p[0], p[1]);
            let off = y - x * x;
            ((1.0 - x).powi(2) + 100.0 * off * off, vec![-2.0 * (1.0 - x) - 400.0 * x * off, 200.0 * off])
        };
        let end = minimize(vec![-1.2, 1.0], 500, valley);
        assert!((end[0] - 1.0).abs() < 1e-6 && (end[1] - 1.0).abs() < 1e-6, "{end:?}");
    }

    #[test]
    fn stays_where_nothing_is_lower() {
        assert_eq!(minimize(vec![3.0], 10, |x| (f64::NAN, vec![x[0]])), [3.0]);
        assert!(minimize(Vec::new(), 10, |_| (1.0, Vec::new())).is_empty());
    }
}
