//! Attacks as a config names them: `{"inner-product": {"strength": 0.1}}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alie::Alie;
use super::backdoor::{Backdoor, Corner};
use super::free_rider::FreeRider;
use super::gaussian::Gaussian;
use super::inner_product::InnerProduct;
use super::label_flip::LabelFlip;
use super::mimic::Mimic;
use super::min_max::{Direction, MinMax};
use super::min_sum::MinSum;
use super::sign_flip::SignFlip;
use super::{Attack, AttackError, finite, not_negative};

/// What Byzantine clients send.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum AttackConfig {
    /// Minus `strength` times their own vector.
    SignFlip {
        /// Factor, >= 0.
        #[serde(default = "unit")]
        strength: f64,
    },
    /// Gaussian noise.
    Gaussian {
        /// Standard deviation of a coordinate, >= 0.
        strength: f64,
    },
    /// What comes of training on other labels: every class y becomes classes - 1 - y, or `from` becomes `to`.
    LabelFlip {
        /// The class that is mislabelled; with `to`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
        /// What it becomes; with `from`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
        /// Factor of the vector.
        #[serde(default = "unit")]
        strength: f64,
    },
    /// Minus `strength` times the mean of the honest vectors (Xie et al. 2020).
    InnerProduct {
        /// Factor, >= 0.
        strength: f64,
    },
    /// The honest mean plus z standard deviations (Baruch et al. 2019).
    Alie {
        /// z; absent: the paper's for the numbers of clients.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strength: Option<f64>,
    },
    /// As far from the honest mean as the two farthest honest vectors are apart (Shejwalkar, Houmansadr 2021).
    MinMax {
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// As far as the sum of distances of the farthest honest vector allows (Shejwalkar, Houmansadr 2021).
    MinSum {
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// A copy of one honest vector (Karimireddy et al. 2022).
    Mimic {
        /// Which of the round's honest vectors; absent: the one that stands out most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        row: Option<usize>,
    },
    /// Zero, or noise instead of training (Fraboni et al. 2021).
    FreeRider {
        /// Standard deviation of a coordinate in round 1, >= 0.
        #[serde(default)]
        strength: f64,
        /// Power of the round by which it falls, >= 0.
        #[serde(default)]
        decay: f64,
    },
    /// What comes of training on stamped images (Gu et al. 2017; Bagdasaryan et al. 2020).
    Backdoor {
        /// The class that the pattern shall give.
        target: u32,
        /// Pixels of a side of the pattern, >= 1.
        #[serde(default = "three")]
        size: usize,
        /// Where it stands.
        #[serde(default)]
        corner: Corner,
        /// Value of its pixels.
        #[serde(default = "white")]
        value: f32,
        /// Share of a client's samples that carry it, in (0, 1].
        #[serde(default = "half")]
        fraction: f64,
        /// Factor of the vector.
        #[serde(default = "unit")]
        strength: f64,
    },
}

const fn unit() -> f64 {
    1.0
}

const fn half() -> f64 {
    0.5
}

const fn white() -> f32 {
    1.0
}

const fn three() -> usize {
    3
}

impl AttackConfig {
    /// The attack. Errors: a parameter outside its range.
    pub fn build(&self) -> Result<Box<dyn Attack>, AttackError> {
        Ok(match *self {
            Self::SignFlip { strength } => {
                not_negative("sign-flip", "strength", strength)?;
                Box::new(SignFlip { strength })
            }
            Self::Gaussian { strength } => {
                not_negative("gaussian", "strength", strength)?;
                Box::new(Gaussian { strength })
            }
            Self::LabelFlip { from, to, strength } => {
                finite("label-flip", "strength", strength)?;
                let pair = match (from, to) {
                    (Some(from), Some(to)) => Some((from, to)),
                    (None, None) => None,
                    _ => {
                        let what = "both of `from` and `to`, or neither";
                        return Err(AttackError::Missing { attack: "label-flip", what });
                    }
                };
                Box::new(LabelFlip { pair, strength })
            }
            Self::InnerProduct { strength } => {
                not_negative("inner-product", "strength", strength)?;
                Box::new(InnerProduct { strength })
            }
            Self::Alie { strength } => {
                finite("alie", "strength", strength.unwrap_or(0.0))?;
                Box::new(Alie { strength })
            }
            Self::MinMax { direction } => Box::new(MinMax { direction }),
            Self::MinSum { direction } => Box::new(MinSum { direction }),
            Self::Mimic { row } => Box::new(Mimic { row }),
            Self::FreeRider { strength, decay } => {
                not_negative("free-rider", "strength", strength)?;
                not_negative("free-rider", "decay", decay)?;
                Box::new(FreeRider { strength, decay })
            }
            Self::Backdoor { target, size, corner, value, fraction, strength } => {
                let attack = "backdoor";
                finite(attack, "strength", strength)?;
                finite(attack, "value", f64::from(value))?;
                let wrong = |name, expected: &str, found| {
                    Err(AttackError::OutOfRange { attack, name, expected: expected.into(), found })
                };
                if size == 0 {
                    return wrong("size", "at least 1", 0.0);
                }
                if !(fraction > 0.0 && fraction <= 1.0) {
                    return wrong("fraction", "in (0, 1]", fraction);
                }
                Box::new(Backdoor { target, size, corner, value, fraction, strength })
            }
        })
    }
}
