//! What every trainer does alike in local SGD.

use super::{LocalConfig, ModelError};

/// Checks the ranges of a local configuration.
pub(super) fn check_config(config: &LocalConfig) -> Result<(), ModelError> {
    let within = |what, expected, found: f64, fits: bool| {
        if fits { Ok(()) } else { Err(ModelError::Setting { what, expected, found }) }
    };
    let (rate, momentum, decay) = (config.learning_rate, config.momentum, config.weight_decay);
    within("epochs", "at least 1", f64::from(config.epochs), config.epochs >= 1)?;
    within("batch_size", "at least 1", config.batch_size as f64, config.batch_size >= 1)?;
    within("learning_rate", "a finite number above 0", f64::from(rate), rate.is_finite() && rate > 0.0)?;
    within("momentum", "a number in [0, 1)", f64::from(momentum), (0.0..1.0).contains(&momentum))?;
    within("weight_decay", "a finite number, at least 0", f64::from(decay), decay.is_finite() && decay >= 0.0)?;
    let proximal = config.proximal;
    within("proximal", "a finite number, at least 0", f64::from(proximal), proximal.is_finite() && proximal >= 0.0)
}
