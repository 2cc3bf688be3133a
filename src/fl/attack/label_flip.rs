//! Label flip: its clients train on other labels, and send what comes of it.
//!
//! Class y becomes `classes - 1 - y` (Fang, Cao, Jia, Gong 2020, *Local Model Poisoning Attacks to Byzantine-Robust Federated
//! Learning*, section 5.1), or one class `from` becomes `to` (Tolpegin, Truex, Gursoy, Liu 2020, *Data Poisoning Attacks
//! Against Federated Learning Systems*, section 3). Sees its own data; the vector is its own times `strength`.

use super::{Attack, AttackError, DataAttack, Sight, View};
use crate::backend::{Backend, Rows};
use crate::math::prg::StreamKey;

/// Label flip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelFlip {
    /// One class and what it becomes; absent: every class its mirror image.
    pub pair: Option<(u32, u32)>,
    /// Factor of the vector.
    pub strength: f64,
}

impl LabelFlip {
    /// What each of the classes becomes. Errors: no class, a class of the pair that there is not.
    pub fn labels(&self, classes: usize) -> Result<Vec<u32>, AttackError> {
        let count = u32::try_from(classes).ok().filter(|&c| c > 0).ok_or_else(|| AttackError::OutOfRange {
            attack: self.name(),
            name: "classes",
            expected: "1..2^32".into(),
            found: classes as f64,
        })?;
        let Some((from, to)) = self.pair else { return Ok((0..count).rev().collect()) };
        for (name, class) in [("from", from), ("to", to)] {
            if class >= count {
                let expected = format!("below {count}, the number of classes");
                return Err(AttackError::OutOfRange { attack: self.name(), name, expected, found: f64::from(class) });
            }
        }
        Ok((0..count).map(|y| if y == from { to } else { y }).collect())
    }
}

impl Attack for LabelFlip {
    fn name(&self) -> &'static str {
        "label-flip"
    }

    fn sees(&self) -> Sight {
        Sight::Own
    }

    fn data(&self) -> Option<DataAttack<'_>> {
        Some(DataAttack::Labels(self))
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        view.own_times(self.name(), self.strength, backend)
    }
}
