//! Shares of a round's noise that stay enough when clients vanish, and where clients tell their shares.
//!
//! A cohort of `s` clients shares noise of Skellam parameter `mu`; up to `D = floor(tolerated s)` of them may vanish
//! before they deliver, and `f` colluders tell what they drew, so that only the others' noise counts.
//!
//! - **Excess kept**: each client draws `mu / (s - D - f)`. The honest survivors, at least `s - D - f`, have `mu` or more;
//!   whoever does not vanish makes the noise larger than it had to be.
//! - **Excess removed** (XNoise of Dordis: Jiang, Wang, Chen 2024, section 3): noise in layers. With `M = mu (s - D) / (s - D - f)` and boundaries
//!   `0 = j_0 < j_1 < ... < j_m = D`, layer 0 has `M / s`, layer `i` has `M / (s - j_i) - M / (s - j_{i-1})`. After `j`
//!   dropouts the layers behind the first boundary `j_i >= j` are taken out again: each survivor tells the keys that it drew
//!   them with, and a Skellam variable is the sum of its layers. What remains of `s - j` survivors is `M (s - j) / (s - j_i)`:
//!   exactly `M` where every number has its layer. Of it `f` colluders hold at most `f / (s - D)`, which leaves `mu`.
//!
//! Both hold given the cohort and the survivors. The view of the public amplifies by Poisson sampling only where the noise
//! that is released does not depend on either: excess removed, in single steps, without colluders. [`Dropout::validate`]
//! refuses the others there. Who vanishes must not depend on the data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FlError;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

/// What happens to the noise of clients that were expected to vanish and did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Excess {
    /// Drawn in layers and taken out again: the noise that is released does not depend on who vanished.
    #[default]
    Removed,
    /// It stays.
    Kept,
}

/// How many clients of a cohort may vanish, and how many may tell their noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Share of a cohort that may vanish, in [0, 1); rounded down to whole clients. If more do, the round is aborted.
    pub tolerated: f64,
    /// Clients of a cohort that are assumed to tell their noise to whoever attacks; needs sampling `all`.
    #[serde(default)]
    pub colluders: u64,
    /// What becomes of noise that was not needed.
    #[serde(default)]
    pub excess: Excess,
    /// Most layers of noise to take out again; absent: one a client that may vanish, and the noise is exact. Fewer are
    /// quicker and leave some of the excess in; needs sampling `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
}

/// The shares of a cohort.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// Skellam parameter of what stays in any case.
    pub first: f64,
    /// What is taken out again as long as no more clients vanish.
    pub layers: Vec<Layer>,
}

/// A layer of noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// It stays if more clients than this vanished.
    pub boundary: u64,
    /// Skellam parameter.
    pub mu: f64,
}

/// The number of layers that stay after so many clients vanished.
#[must_use]
pub fn kept(layers: &[Layer], vanished: u64) -> usize {
    layers.partition_point(|layer| layer.boundary < vanished)
}

/// The samplers of some layers.
///
/// # Errors
/// Those of [`NoiseTable::skellam`].
pub(super) fn tables(layers: &[Layer]) -> Result<Vec<Noise>, FlError> {
    layers.iter().map(|layer| Ok(NoiseTable::skellam(layer.mu)?.into())).collect()
}

impl Dropout {
    /// Checks the ranges; `fixed` is the size of every cohort where the rounds have one size that is public, `None` where
    /// the cohort is a secret sample.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn validate(&self, fixed: Option<u64>) -> Result<(), FlError> {
        let bad = |name, expected: String, found: String| Err(FlError::OutOfRange { name, expected, found });
        if !(0.0..1.0).contains(&self.tolerated) {
            return bad("privacy.dropout.tolerated", "in [0, 1)".into(), self.tolerated.to_string());
        }
        if self.layers == Some(0) || (self.layers.is_some() && self.excess == Excess::Kept) {
            let expected = "absent, or at least 1 with excess `removed`".to_owned();
            return bad("privacy.dropout.layers", expected, format!("{:?}, excess {:?}", self.layers, self.excess));
        }
        match fixed {
            Some(size) if self.tolerable(size) + self.colluders >= size => bad(
                "privacy.dropout",
                format!("fewer than the {size} clients of a cohort, tolerated and colluders together"),
                format!("{} and {}", self.tolerable(size), self.colluders),
            ),
            Some(_) => Ok(()),
            None if self.excess == Excess::Kept || self.colluders > 0 || self.layers.is_some() => bad(
                "privacy.dropout",
                "under sampling of the cohort: excess `removed`, no colluders, no bound of layers, so that the noise does \
                 not tell the size of the cohort; else sampling `all`"
                    .into(),
                format!("{self:?}"),
            ),
            None => Ok(()),
        }
    }

    /// Clients of a cohort that may vanish.
    #[must_use]
    pub fn tolerable(&self, size: u64) -> u64 {
        // A product a little below an integer is that integer: 0.3 * 10 is 3.
        ((self.tolerated * size as f64 * (1.0 + 1e-12)) as u64).min(size.saturating_sub(1))
    }

    /// The shares of a cohort of `size` clients whose honest survivors shall have noise `mu` together; no product is
    /// rounded down.
    #[must_use]
    pub fn shares(&self, mu: f64, size: u64) -> Shares {
        let vanishing = self.tolerable(size);
        let most = (size - vanishing) as f64;
        let honest = (size - vanishing).saturating_sub(self.colluders).max(1) as f64;
        // Three roundings at most.
        let up = |x: f64| x * (1.0 + 4.0 * f64::EPSILON);
        if self.excess == Excess::Kept {
            return Shares { first: up(mu / honest), layers: Vec::new() };
        }
        let total = mu * (most / honest);
        let steps = self.layers.map_or(vanishing, |layers| u64::from(layers).min(vanishing));
        let mut layers = Vec::with_capacity(steps as usize);
        let mut before = 0;
        for step in 1..=steps {
            let boundary = (vanishing * step).div_ceil(steps);
            let product = (size - boundary) as f64 * (size - before) as f64;
            layers.push(Layer { boundary: before, mu: up(total * (boundary - before) as f64 / product) });
            before = boundary;
        }
        Shares { first: up(total / size as f64), layers }
    }

    /// The largest noise that is released over the noise that is accounted, for cohorts of `size`.
    #[must_use]
    pub fn inflation(&self, size: u64) -> f64 {
        let shares = self.shares(1.0, size);
        let left = |vanished: u64| {
            let stays: f64 = shares.layers[..kept(&shares.layers, vanished)].iter().map(|layer| layer.mu).sum();
            (size - vanished) as f64 * (shares.first + stays)
        };
        (0..=self.tolerable(size)).map(left).fold(1.0, f64::max)
    }
}
