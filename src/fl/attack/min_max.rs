//! Min-max: `mean + gamma p`, gamma the largest number for which the farthest honest vector is no farther than the farthest
//! two honest ones are from each other.
//!
//! `max_i |m - x_i| <= max_ij |x_i - x_j|` with `m = mean + gamma p`. Shejwalkar, Houmansadr 2021, *Manipulating the
//! Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated Learning*, section IV-C (rule unknown, updates
//! known). The paper halves an interval; here gamma is the least of the positive roots of `|mean + gamma p - x_i|^2 = D`, to the
//! last digits. Sees the honest vectors.

use serde::{Deserialize, Serialize};

use super::statistics::{mean, shifted, std};
use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Gram, Rows};
use crate::math::prg::StreamKey;

/// Which way the honest mean is moved (p).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Minus the mean over its norm.
    Unit,
    /// Minus the standard deviation of every coordinate: the strongest in most of the paper's experiments.
    #[default]
    Std,
    /// Minus the sign of the mean in every coordinate.
    Sign,
}

/// Min-max.
#[derive(Clone, Copy, Debug)]
pub struct MinMax {
    /// Which way.
    pub direction: Direction,
}

/// The honest mean, the way to go, and where the honest vectors stand.
pub(super) struct Scene {
    /// The mean.
    pub(super) mean: Vec<f64>,
    /// p.
    pub(super) direction: Vec<f64>,
    /// `|p|^2`.
    pub(super) length2: f64,
    /// `(<p, mean - x_i>, |mean - x_i|^2)` for every honest vector.
    pub(super) honest: Vec<(f64, f64)>,
    /// Their distances.
    pub(super) gram: Gram,
}

impl Scene {
    pub(super) fn of(
        attack: &'static str,
        direction: Direction,
        backend: &dyn Backend,
        view: &View<'_>,
    ) -> Result<Self, AttackError> {
        let rows = view.honest_rows(attack, backend)?;
        let mean = mean(&rows)?;
        let direction: Vec<f64> = match direction {
            Direction::Unit => {
                let norm = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
                mean.iter().map(|m| if norm > 0.0 { -m / norm } else { 0.0 }).collect()
            }
            Direction::Std => std(&rows, &mean)?.into_iter().map(|s| -s).collect(),
            Direction::Sign => mean.iter().map(|&m| if m == 0.0 { 0.0 } else { -m.signum() }).collect(),
        };
        let mut honest = Vec::with_capacity(rows.rows);
        for i in 0..rows.rows {
            let (mut along, mut apart) = (0.0, 0.0);
            for ((&v, m), p) in rows.row(i)?.iter().zip(&mean).zip(&direction) {
                let gap = m - f64::from(v);
                along += p * gap;
                apart += gap * gap;
            }
            honest.push((along, apart));
        }
        let length2 = direction.iter().map(|p| p * p).sum();
        let gram = view.honest_gram(attack, backend)?;
        Ok(Self { mean, direction, length2, honest, gram })
    }

    /// The row at `mean + gamma p`, from every client.
    pub(super) fn forged(&self, gamma: f64, view: &View<'_>) -> Result<Rows, AttackError> {
        view.repeated(&shifted(&self.mean, gamma, &self.direction))
    }
}

/// The larger root of `a g^2 + 2 b g + c = 0` with `a > 0`, `c <= 0`; 0 where there is none above it.
pub(super) fn root(a: f64, b: f64, c: f64) -> f64 {
    let (c, sqrt) = (c.min(0.0), (b * b - a * c.min(0.0)).max(0.0).sqrt());
    // The form that does not subtract two nearly equal numbers.
    let root = if b > 0.0 { -c / (b + sqrt) } else { (sqrt - b) / a };
    if root.is_finite() { root.max(0.0) } else { 0.0 }
}

impl Attack for MinMax {
    fn name(&self) -> &'static str {
        "min-max"
    }

    fn sees(&self) -> Sight {
        Sight::Honest
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        let scene = Scene::of(self.name(), self.direction, backend, view)?;
        let most = scene.gram.distances2().iter().copied().fold(0.0, f64::max);
        let gamma = |&(along, apart): &(f64, f64)| root(scene.length2, along, apart - most);
        let gamma = scene.honest.iter().map(gamma).fold(f64::INFINITY, f64::min);
        scene.forged(gamma, view)
    }
}
