//! Inner-product manipulation: `-strength` times the mean of the honest vectors, from every client.
//!
//! Xie, Koyejo, Gupta 2020, *Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation*, section 4
//! (their epsilon is the strength). Sees the honest mean. A small strength defeats rules that select the closest vectors: the
//! forged ones lie near the origin, nearer to everybody than honest vectors that scatter; a large one defeats the mean.

use super::statistics::mean;
use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Inner-product manipulation.
#[derive(Clone, Copy, Debug)]
pub struct InnerProduct {
    /// Factor, finite and >= 0.
    pub strength: f64,
}

impl Attack for InnerProduct {
    fn name(&self) -> &'static str {
        "inner-product"
    }

    fn sees(&self) -> Sight {
        Sight::HonestMean
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        let honest = view.honest_rows(self.name(), backend)?;
        let mean = mean(&honest)?;
        view.repeated(&mean.iter().map(|m| (-self.strength * m) as f32).collect::<Vec<_>>())
    }
}
