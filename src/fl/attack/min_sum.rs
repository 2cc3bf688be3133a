//! Min-sum: `mean + gamma p`, gamma the largest number for which the squared distances to all honest vectors add up to no
//! more than those of the honest vector that lies farthest from the others.
//!
//! `sum_i |m - x_i|^2 <= max_i sum_j |x_i - x_j|^2` with `m = mean + gamma p`. Shejwalkar, Houmansadr 2021, section IV-C; see
//! [`super::min_max`]. The distances to the mean add up to `sum_i |mean - x_i|^2 + n gamma^2 |p|^2`, so that gamma is a root.
//! Sees the honest vectors.

use super::min_max::{Direction, Scene, root};
use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Min-sum.
#[derive(Clone, Copy, Debug)]
pub struct MinSum {
    /// Which way.
    pub direction: Direction,
}

impl Attack for MinSum {
    fn name(&self) -> &'static str {
        "min-sum"
    }

    fn sees(&self) -> Sight {
        Sight::Honest
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        let scene = Scene::of(self.name(), self.direction, backend, view)?;
        let n = scene.honest.len();
        let most = scene.gram.distances2().chunks_exact(n).map(|row| row.iter().sum()).fold(0.0, f64::max);
        let (along, apart) = scene.honest.iter().fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        let gamma = root(n as f64 * scene.length2, along, apart - most);
        scene.forged(gamma, view)
    }
}
