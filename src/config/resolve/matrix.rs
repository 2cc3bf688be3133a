//! `matrix`: a matrix for the run's schedule, and the noise that meets the target with it.

use std::sync::Arc;

use super::{Resolved, Setting, invalid, takes, target};
use crate::config::{ConfigError, PrivacyConfig};
use crate::privacy::accountant::Rule;
use crate::privacy::calibrate::{Schedule, Uses, calibrate_noise_multiplier};
use crate::privacy::matrix::{MatrixKind, Objective, Strategy};
use crate::privacy::mechanism::Correlation;
use crate::privacy::mechanism::matrix::{MatrixGaussian, MatrixGaussianParams, whole_run};

/// The matrix of a config that names none.
const DEFAULT: MatrixKind = MatrixKind::Blt { degree: 4, objective: Objective::Max };

/// Resolves the mechanism for a run.
pub(super) fn matrix(config: &PrivacyConfig, setting: &Setting, uses: &Uses) -> Result<Resolved, ConfigError> {
    takes(config, &["noise_multiplier"])?;
    let expected = "`round-robin` or `all` in a training run: the rounds of a client must be fixed and public (no amplification by sampling is proved for correlated noise)";
    let participation = setting.participation.ok_or_else(|| invalid("sampling", expected, "left to chance"))?;
    let noise_multiplier = match config.noise_multiplier {
        Some(z) if z.is_finite() && z > 0.0 => z,
        Some(z) => return Err(invalid("privacy.noise_multiplier", "finite and > 0", z)),
        None => {
            let target = target(config, "privacy.noise_multiplier")?;
            let whole = Schedule { rate: 1.0, rounds: 1, ..setting.schedule() };
            calibrate_noise_multiplier(&whole, target, Rule::Rdp, whole_run)? * (1.0 + 1e-11)
        }
    };
    let kind = config.matrix.unwrap_or(DEFAULT);
    let strategy = Strategy::new(kind, setting.rounds, participation)?;
    let (clip, cohort, dim) = (config.clip, setting.cohort.ceil() as u64, setting.dim);
    let mechanism =
        MatrixGaussian::new(MatrixGaussianParams { noise_multiplier, clip, cohort, dim, strategy, participation })?;
    let privacy = PrivacyConfig { noise_multiplier: Some(noise_multiplier), matrix: Some(kind), ..config.clone() };
    let mechanism = Arc::new(mechanism);
    Ok(Resolved { privacy, mechanism, later: Vec::new(), rule: uses.rule, predicted_wrap: None })
}

/// What a reader of the results has to know of the matrix.
pub(in crate::config) fn note(correlation: &Correlation<'_>) -> String {
    let (strategy, p) = (correlation.strategy, correlation.participation);
    let independent = (p.max.min(strategy.rounds()) as f64 * strategy.rounds() as f64).sqrt();
    let found = strategy.sensitivity(p).unwrap_or(f64::INFINITY) * strategy.prefix_error().max;
    format!(
        "The noise is correlated over the rounds: at the same privacy that of the last model, as a sum of all rounds, is {:.3} times that of independent noise. A client takes part at most {} times, {} rounds apart. The whole run is one release, charged with its first round; the server keeps {} vectors of secret integers.",
        found / independent,
        p.max,
        p.separation,
        strategy.buffers()
    )
}
