//! How the noise of a run changes, as a user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::privacy::stages::{Decay, Stage, Stages};

/// How the noise changes over the rounds: at most 32 stages of rounds with one noise each, accounted exactly as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, tag = "law", rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// The same noise in all rounds.
    Uniform,
    /// Stages with their noise.
    Stages {
        /// In order; their rounds add up to those of the run.
        stages: Vec<NoiseStage>,
    },
    /// Stages with their share of the budget: noise of standard deviation `1 / sqrt(weight)`.
    Weighted {
        /// In order; their rounds add up to those of the run.
        stages: Vec<WeightStage>,
    },
    /// From noise 1 in the first rounds to `last` in the last ones, by equal factors.
    Exponential {
        /// Noise of the last stage; below 1 the noise decays.
        last: f64,
        /// Number of stages, 2 to 32.
        #[serde(default = "eight")]
        steps: u32,
    },
    /// From noise 1 in the first rounds to `last` in the last ones, by equal differences.
    Linear {
        /// Noise of the last stage; below 1 the noise decays.
        last: f64,
        /// Number of stages, 2 to 32.
        #[serde(default = "eight")]
        steps: u32,
    },
}

/// Rounds with one noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseStage {
    /// How many.
    pub rounds: u32,
    /// Standard deviation over that of a round of noise 1, in [0.001, 1000].
    pub noise: f64,
}

/// Rounds with one share of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightStage {
    /// How many.
    pub rounds: u32,
    /// What a round may cost, over the cost of a round of weight 1, in [1e-6, 1e6].
    pub weight: f64,
}

fn eight() -> u32 {
    8
}

/// The stages of a run of so many rounds.
///
/// # Errors
/// As [`Stages::new`]; [`ConfigError::Invalid`] for stages of another number of rounds.
pub fn stages(schedule: Option<&ScheduleConfig>, rounds: u64) -> Result<Stages, ConfigError> {
    let stages = match schedule {
        None | Some(ScheduleConfig::Uniform) => Stages::uniform(rounds),
        Some(ScheduleConfig::Stages { stages }) => {
            Stages::new(stages.iter().map(|s| Stage { rounds: s.rounds.into(), factor: s.noise }))?
        }
        Some(ScheduleConfig::Weighted { stages }) => {
            Stages::weighted(&stages.iter().map(|s| (s.rounds.into(), s.weight)).collect::<Vec<_>>())?
        }
        Some(ScheduleConfig::Exponential { last, steps }) => {
            Stages::decaying(rounds, Decay::Exponential, *last, *steps)?
        }
        Some(ScheduleConfig::Linear { last, steps }) => Stages::decaying(rounds, Decay::Linear, *last, *steps)?,
    };
    if stages.rounds() != rounds {
        return Err(ConfigError::Invalid {
            name: "privacy.schedule",
            expected: format!("stages of {rounds} rounds together, as many as the run has"),
            found: format!("stages of {} rounds", stages.rounds()),
        });
    }
    Ok(stages)
}
