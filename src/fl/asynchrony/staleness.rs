//! How much an update counts that was made from an old model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fl::FlError;

/// sigma(s): the share of a fresh update's weight that one of staleness s has, in (0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Staleness {
    /// 1.
    #[default]
    Constant,
    /// 1 up to `after`, then `1 / (slope (s - after) + 1)` (Xie, Koyejo, Gupta 2019, section 5.2).
    Hinge {
        /// a, > 0.
        #[serde(default = "ten")]
        slope: f64,
        /// b.
        #[serde(default = "four")]
        after: u32,
    },
    /// `(1 + s)^-exponent` (the same; FedBuff takes 1/2).
    Polynomial {
        /// a, >= 0.
        #[serde(default = "half")]
        exponent: f64,
    },
    /// `base^-s`.
    Exponential {
        /// > 1.
        #[serde(default = "two")]
        base: f64,
    },
    /// `t / ((t - tau) T)` in round t of T, for an update of version tau: late rounds count more, old updates less. In a mean, which
    /// divides by the sum of the weights, that is `1 / (1 + s)`.
    Progress,
}

fn ten() -> f64 {
    10.0
}

const fn four() -> u32 {
    4
}

fn half() -> f64 {
    0.5
}

fn two() -> f64 {
    2.0
}

impl Staleness {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn validate(&self) -> Result<(), FlError> {
        let check = |name, expected: &str, found: f64, fits: bool| {
            let error = || FlError::OutOfRange { name, expected: expected.to_owned(), found: found.to_string() };
            if fits && found.is_finite() { Ok(()) } else { Err(error()) }
        };
        match *self {
            Self::Constant | Self::Progress => Ok(()),
            Self::Hinge { slope, .. } => check("asynchrony.staleness.hinge.slope", "a number > 0", slope, slope > 0.0),
            Self::Polynomial { exponent } => {
                check("asynchrony.staleness.polynomial.exponent", "a number >= 0", exponent, exponent >= 0.0)
            }
            Self::Exponential { base } => {
                check("asynchrony.staleness.exponential.base", "a number > 1", base, base > 1.0)
            }
        }
    }

    /// sigma(s) in round `round` of `rounds`.
    #[must_use]
    pub fn weight(&self, s: u32, round: u32, rounds: u32) -> f64 {
        let s_plus = f64::from(s) + 1.0;
        match *self {
            Self::Constant => 1.0,
            Self::Hinge { after, .. } if s <= after => 1.0,
            Self::Hinge { slope, after } => 1.0 / (slope * f64::from(s - after) + 1.0),
            Self::Polynomial { exponent } => libm::pow(s_plus, -exponent),
            Self::Exponential { base } => libm::pow(base, -f64::from(s)),
            Self::Progress => f64::from(round) / (s_plus * f64::from(rounds.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, from the papers' formulas.
    #[test]
    fn formulas() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        let hinge = Staleness::Hinge { slope: 10.0, after: 4 };
        for (policy, s, expected) in [
            (Staleness::Constant, 99, 1.0),
            (hinge, 4, 1.0),
            (hinge, 5, 1.0 / 11.0),
            (hinge, 7, 1.0 / 31.0),
            (Staleness::Polynomial { exponent: 0.5 }, 3, 0.5),
            (Staleness::Polynomial { exponent: 2.0 }, 2, 1.0 / 9.0),
            (Staleness::Exponential { base: 2.0 }, 5, 1.0 / 32.0),
            // t = 40, tau = 40 - 4: 40 / (4 100).
            (Staleness::Progress, 3, 0.1),
        ] {
            close(policy.weight(s, 40, 100), expected);
            close(policy.weight(0, 40, 100), if policy == Staleness::Progress { 0.4 } else { 1.0 });
        }
    }

    #[test]
    fn older_never_counts_more_and_bad_ranges_are_named() {
        for policy in [
            Staleness::Constant,
            Staleness::Hinge { slope: 0.5, after: 2 },
            Staleness::Polynomial { exponent: 0.0 },
            Staleness::Exponential { base: 1.5 },
            Staleness::Progress,
        ] {
            policy.validate().unwrap();
            let weights: Vec<f64> = (0..50).map(|s| policy.weight(s, 60, 60)).collect();
            assert!(weights.windows(2).all(|w| w[1] <= w[0]) && weights.iter().all(|&w| w > 0.0 && w <= 1.0));
        }
        for (policy, name) in [
            (Staleness::Hinge { slope: 0.0, after: 1 }, "slope"),
            (Staleness::Polynomial { exponent: -0.1 }, "exponent"),
            (Staleness::Polynomial { exponent: f64::NAN }, "exponent"),
            (Staleness::Exponential { base: 1.0 }, "base"),
        ] {
            assert!(policy.validate().unwrap_err().to_string().contains(name));
        }
    }
}
