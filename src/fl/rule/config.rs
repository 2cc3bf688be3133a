//! Rules as a config names them: `{"rule": {"krum": {"f": 2}}, "before": [{"nearest-neighbor-mixing": {"f": 2}}]}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::before::PreAggregation;
use super::before::arc::Arc;
use super::before::bucketing::Bucketing;
use super::before::clipping::Clipping;
use super::before::nearest_neighbors::NearestNeighbors;
use super::bulyan::Bulyan;
use super::centered_clipping::CenteredClipping;
use super::error::{counted, positive};
use super::fltrust::Fltrust;
use super::geometric_median::GeometricMedian;
use super::krum::{Krum, MultiKrum};
use super::mda::Mda;
use super::meamed::Meamed;
use super::mean::Mean;
use super::median::Median;
use super::norm_bounded_mean::NormBoundedMean;
use super::trimmed_mean::TrimmedMean;
use super::{Aggregator, Rule, RuleError};

/// A rule and what stands before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregationConfig {
    /// The rule.
    pub rule: RuleConfig,
    /// What is done to the vectors before it, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<PreAggregationConfig>,
    /// Training samples that are the server's own and no client's, drawn before the others are dealt: what `fltrust` compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_samples: Option<usize>,
}

/// An aggregation rule over K vectors, of which f may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum RuleConfig {
    /// The mean by integer weights.
    Mean,
    /// The mean of vectors clipped to one norm (Sun et al. 2019).
    NormBoundedMean {
        /// The norm, in the unit of the updates, > 0.
        bound: f64,
    },
    /// The median of every coordinate (Yin et al. 2018).
    Median,
    /// The mean of every coordinate without its f least and f greatest values (Yin et al. 2018); K > 2f.
    TrimmedMean {
        /// Byzantine vectors.
        f: usize,
    },
    /// The vector with the closest neighbours (Blanchard et al. 2017); K > 2f + 2.
    Krum {
        /// Byzantine vectors.
        f: usize,
    },
    /// The mean of the m vectors with the closest neighbours (Blanchard et al. 2017); K > 2f + 2.
    MultiKrum {
        /// Byzantine vectors.
        f: usize,
        /// Vectors in the mean, 1 to K - f; absent: K - f - 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        m: Option<usize>,
    },
    /// Krum selects, then the values around the median are averaged (El Mhamdi et al. 2018); K >= 4f + 3.
    Bulyan {
        /// Byzantine vectors.
        f: usize,
    },
    /// The point with the least sum of distances, by the smoothed Weiszfeld iteration (Pillutla et al. 2022).
    GeometricMedian {
        /// Distances below this share of their median are taken as so large, in (0, 1].
        #[serde(default = "default_smoothing")]
        smoothing: f64,
        /// Norm of the gradient over K at which it ends, > 0.
        #[serde(default = "default_tolerance")]
        tolerance: f64,
        /// Most steps, >= 1.
        #[serde(default = "default_iterations")]
        iterations: u32,
    },
    /// Steps of vectors clipped around the last aggregate (Karimireddy et al. 2021).
    CenteredClipping {
        /// Radius of the clip, in the unit of the updates, > 0.
        tau: f64,
        /// Steps, >= 1.
        #[serde(default = "one")]
        iterations: u32,
    },
    /// The mean of the K - f vectors of least diameter (El Mhamdi et al. 2020); K > 2f, f limited by an exact search.
    Mda {
        /// Byzantine vectors.
        f: usize,
    },
    /// The mean of the K - f values of every coordinate nearest to their median (Xie et al. 2018); K > 2f.
    Meamed {
        /// Byzantine vectors.
        f: usize,
    },
    /// Vectors weighed by their angle to an update of the server's own (Cao et al. 2021).
    Fltrust,
}

/// What may stand before a rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum PreAggregationConfig {
    /// Every vector becomes the mean of its K - f nearest (Allouah et al. 2023); K > 2f.
    NearestNeighborMixing {
        /// Byzantine vectors.
        f: usize,
    },
    /// Means of each s vectors in a random order (Karimireddy et al. 2022).
    Bucketing {
        /// Vectors of a bucket, >= 1.
        s: usize,
    },
    /// Every vector clipped to one norm.
    Clipping {
        /// The norm, in the unit of the updates, > 0.
        bound: f64,
    },
    /// The longest vectors clipped to the norm of the next (Allouah et al. 2024); K > 2f.
    Arc {
        /// Byzantine vectors.
        f: usize,
    },
}

const fn default_smoothing() -> f64 {
    1e-6
}

const fn default_tolerance() -> f64 {
    1e-8
}

const fn default_iterations() -> u32 {
    1000
}

const fn one() -> u32 {
    1
}

impl AggregationConfig {
    /// The rule and what stands before it. Errors: a parameter that is out of range for any number of vectors; what depends
    /// on their number is checked by [`Aggregator::check`].
    pub fn build(&self) -> Result<Aggregator, RuleError> {
        let before = self.before.iter().map(PreAggregationConfig::build).collect::<Result<_, _>>()?;
        Ok(Aggregator::new(before, self.rule.build()?))
    }

    /// True if an aggregate needs the server's own update: [`super::Inputs::root`].
    #[must_use]
    pub const fn needs_root(&self) -> bool {
        matches!(self.rule, RuleConfig::Fltrust)
    }
}

impl RuleConfig {
    /// The rule. Errors: a parameter that is out of range for any number of vectors.
    pub fn build(&self) -> Result<Box<dyn Rule>, RuleError> {
        Ok(match *self {
            Self::Mean => Box::new(Mean),
            Self::NormBoundedMean { bound } => {
                positive("norm-bounded-mean", "bound", bound)?;
                Box::new(NormBoundedMean { bound })
            }
            Self::Median => Box::new(Median),
            Self::TrimmedMean { f } => Box::new(TrimmedMean { f }),
            Self::Krum { f } => Box::new(Krum { f }),
            Self::MultiKrum { f, m } => {
                counted("multi-krum", "m", m.unwrap_or(1))?;
                Box::new(MultiKrum { f, m })
            }
            Self::Bulyan { f } => Box::new(Bulyan { f }),
            Self::GeometricMedian { smoothing, tolerance, iterations } => {
                let rule = "geometric-median";
                positive(rule, "smoothing", smoothing)?;
                if smoothing > 1.0 {
                    let expected = "in (0, 1]".into();
                    return Err(RuleError::OutOfRange { rule, name: "smoothing", expected, found: smoothing });
                }
                positive(rule, "tolerance", tolerance)?;
                counted(rule, "iterations", iterations as usize)?;
                Box::new(GeometricMedian { smoothing, tolerance, iterations })
            }
            Self::CenteredClipping { tau, iterations } => {
                positive("centered-clipping", "tau", tau)?;
                counted("centered-clipping", "iterations", iterations as usize)?;
                Box::new(CenteredClipping { tau, iterations })
            }
            Self::Mda { f } => Box::new(Mda { f }),
            Self::Meamed { f } => Box::new(Meamed { f }),
            Self::Fltrust => Box::new(Fltrust),
        })
    }
}

impl PreAggregationConfig {
    /// The step. Errors likewise.
    pub fn build(&self) -> Result<Box<dyn PreAggregation>, RuleError> {
        Ok(match *self {
            Self::NearestNeighborMixing { f } => Box::new(NearestNeighbors { f }),
            Self::Bucketing { s } => {
                counted("bucketing", "s", s)?;
                Box::new(Bucketing { s })
            }
            Self::Clipping { bound } => {
                positive("clipping", "bound", bound)?;
                Box::new(Clipping { bound })
            }
            Self::Arc { f } => Box::new(Arc { f }),
        })
    }
}
