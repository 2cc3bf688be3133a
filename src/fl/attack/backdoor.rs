//! Backdoor: its clients train on images of which some carry a pattern and the label of a target class.
//!
//! The pattern is a square of `size` pixels in a corner, all channels at `value`: Gu, Dolan-Gavitt, Garg 2017, *BadNets*,
//! section 3. The vector is multiplied by `strength`; with about `n / eta` it replaces the model (Bagdasaryan, Veit, Hua, Estrin,
//! Shmatikov 2020, *How To Backdoor Federated Learning*, section 4.2). Sees its own data.

use serde::{Deserialize, Serialize};

use super::{Attack, AttackError, DataAttack, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Where the pattern stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Corner {
    /// First row, first column.
    TopLeft,
    /// First row, last column.
    TopRight,
    /// Last row, first column.
    BottomLeft,
    /// Last row, last column.
    #[default]
    BottomRight,
}

/// The shape of an image whose features lie `[channels x height x width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Channels.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
}

/// Backdoor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backdoor {
    /// The class that the pattern shall give.
    pub target: u32,
    /// Pixels of a side of the pattern, >= 1.
    pub size: usize,
    /// Where it stands.
    pub corner: Corner,
    /// Value of its pixels, in the unit of the features that are stamped.
    pub value: f32,
    /// Share of a client's samples that carry it, in (0, 1].
    pub fraction: f64,
    /// Factor of the vector.
    pub strength: f64,
}

impl Backdoor {
    /// Puts the pattern on an image. Errors: features that are not an image of the shape, a pattern larger than it.
    pub fn stamp(&self, image: &mut [f32], shape: ImageShape) -> Result<(), AttackError> {
        let ImageShape { channels, height, width } = shape;
        let expected = channels.saturating_mul(height).saturating_mul(width);
        if image.len() != expected || expected == 0 {
            return Err(AttackError::WrongLength { what: "the image", expected, found: image.len() });
        }
        if self.size == 0 || self.size > height.min(width) {
            let expected = format!("in 1..={}, the shorter side of an image", height.min(width));
            return Err(AttackError::OutOfRange {
                attack: self.name(),
                name: "size",
                expected,
                found: self.size as f64,
            });
        }
        let top = if matches!(self.corner, Corner::TopLeft | Corner::TopRight) { 0 } else { height - self.size };
        let left = if matches!(self.corner, Corner::TopLeft | Corner::BottomLeft) { 0 } else { width - self.size };
        for channel in image.chunks_exact_mut(height * width) {
            for row in channel.chunks_exact_mut(width).skip(top).take(self.size) {
                row[left..left + self.size].fill(self.value);
            }
        }
        Ok(())
    }

    /// Which of a client's samples carry the pattern, ascending: `ceil(fraction samples)` of them, drawn by the key.
    #[must_use]
    pub fn stamped(&self, samples: usize, key: &StreamKey) -> Vec<usize> {
        let mut order: Vec<usize> = (0..samples).collect();
        key.reader(0).shuffle(&mut order);
        order.truncate((self.fraction * samples as f64).ceil() as usize);
        order.sort_unstable();
        order
    }

    /// The attack success rate: the share of stamped test samples of **other** classes that the model takes for the target;
    /// nothing where there is none. Error: as many predictions as labels are needed.
    pub fn success_rate(&self, predicted: &[u32], labels: &[u32]) -> Result<Option<f64>, AttackError> {
        if predicted.len() != labels.len() {
            let (expected, found) = (labels.len(), predicted.len());
            return Err(AttackError::WrongLength { what: "the predictions", expected, found });
        }
        let others = predicted.iter().zip(labels).filter(|(_, y)| **y != self.target);
        let (hits, all) = others.fold((0u64, 0u64), |(h, n), (p, _)| (h + u64::from(*p == self.target), n + 1));
        Ok((all > 0).then(|| hits as f64 / all as f64))
    }
}

impl Attack for Backdoor {
    fn name(&self) -> &'static str {
        "backdoor"
    }

    fn sees(&self) -> Sight {
        Sight::Own
    }

    fn data(&self) -> Option<DataAttack<'_>> {
        Some(DataAttack::Trigger(self))
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        view.own_times(self.name(), self.strength, backend)
    }
}
