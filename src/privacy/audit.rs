//! What an attack proves about a mechanism: lower bounds of epsilon from observed outputs, with a stated confidence.
//!
//! An accountant says `epsilon <= claimed`; an audit plays the neighbour's game against the mechanism as it runs, counts
//! how often it wins, and says `epsilon >= bound`, wrong with probability at most `error`. A bound above the claim
//! refutes the claim: a mechanism that is broken is caught without knowing how. A bound below it proves nothing.
//!
//! - [`one_run`]: many canaries at once, each in or out by a coin of its own (Steinke, Nasr, Jagielski 2023).
//! - [`many_runs`]: many independent runs with one canary (Jagielski, Ullman, Oprea 2020; Nasr et al. 2023).
//! - [`binomial`]: the tails behind both, and the bounds of Clopper and Pearson.
//!
//! Pure statistics: what is run, and which canaries are planted, is the caller's (`sim::audit`).

pub mod binomial;
pub mod many_runs;
pub mod one_run;

use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;

/// What the attacker saw of one canary, and the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The attacker's score: higher where the canary is thought to be in.
    pub score: f64,
    /// Whether it was in.
    pub included: bool,
}

/// Every score finite, delta in `[0, 1)`, error in `(0, 1/4]`.
fn check(observations: &[Observation], delta: f64, error: f64) -> Result<(), PrivacyError> {
    if delta != 0.0 {
        validate::delta(delta)?;
    }
    if !(error > 0.0 && error <= 0.25) {
        return Err(PrivacyError::OutOfRange {
            name: "error of an audit (1 - confidence)",
            expected: "a number in (0, 0.25]".to_owned(),
            found: error.to_string(),
        });
    }
    match observations.iter().find(|o| !o.score.is_finite()) {
        None => Ok(()),
        Some(o) => Err(PrivacyError::OutOfRange {
            name: "score of a canary",
            expected: "a finite number".to_owned(),
            found: o.score.to_string(),
        }),
    }
}
