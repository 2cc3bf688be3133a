//! The bias of the coins of a Poisson-binomial mechanism for a target.

use super::search::Search;
use crate::privacy::DpEvent;
use crate::privacy::mechanism::poisson_binomial::{PoissonBinomial, PoissonBinomialParams, largest_gamma};
use crate::privacy::mechanism::{Mechanism, PrivacyError, fixed};

/// One over the largest gamma (up to 1e-4 in epsilon, and at most [`largest_gamma`]) whose event costs at most `target`;
/// `params.gamma` is not looked at. `multiplier` is the noise multiplier of a Gaussian that meets the target: where the search
/// begins.
///
/// # Errors
/// [`PrivacyError::Infeasible`] and what `epsilon` returns.
pub fn calibrate_bias(
    params: &PoissonBinomialParams,
    dim: usize,
    target: f64,
    multiplier: f64,
    epsilon: impl Fn(DpEvent) -> Result<f64, PrivacyError>,
) -> Result<f64, PrivacyError> {
    let least = 1.0 / largest_gamma(params.clip, fixed::padded(dim, true) as u64, params.beta);
    let cost = |level: f64| {
        let mechanism = PoissonBinomial::new(PoissonBinomialParams { gamma: 1.0 / level.max(least), ..*params })?;
        mechanism.encode_params(dim)?;
        epsilon(mechanism.event(dim))
    };
    if cost(least)? <= target {
        return Ok(least);
    }
    // As if the coins were a Gaussian: n m / 4 = (multiplier m gamma C)^2.
    let guess = 2.0 * multiplier * params.clip * (params.coins as f64 / params.clients as f64).sqrt();
    let search = Search { target, guess: guess.max(least), factor: 1.1, largest: 9e5 * params.clip, grain: 0.0 };
    Ok(search.run(cost)?.max(least))
}
