//! Gaussian: every coordinate an independent `N(0, strength^2)`, another vector from every client.
//!
//! Blanchard, El Mhamdi, Guerraoui, Stainer 2017, *Machine Learning with Adversaries*, section 5 (Gaussian Byzantine
//! workers). Sees nothing.

use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Gaussian noise.
#[derive(Clone, Copy, Debug)]
pub struct Gaussian {
    /// Standard deviation of a coordinate, finite and >= 0.
    pub strength: f64,
}

/// `count x dim` draws from `N(0, deviation^2)`.
pub(super) fn noise(deviation: f64, view: &View<'_>, key: &StreamKey) -> Result<Rows, AttackError> {
    let mut reader = key.reader(0);
    let data = (0..view.count * view.dim).map(|_| (deviation * reader.next_normal()) as f32).collect();
    Ok(Rows::dense(data, view.count, view.dim)?)
}

impl Attack for Gaussian {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn sees(&self) -> Sight {
        Sight::Nothing
    }

    fn forge(&self, _: &dyn Backend, view: &View<'_>, key: &StreamKey) -> Result<Rows, AttackError> {
        noise(self.strength, view, key)
    }
}
