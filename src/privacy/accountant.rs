//! `trait Accountant`: adds events up and answers epsilon and delta.

pub mod rdp;

use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;

/// An epsilon with everything that gives it a meaning.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpsilonReport {
    /// Upper bound of epsilon, natural log; infinite if nothing is protected.
    pub epsilon: f64,
    /// The delta it holds for.
    pub delta: f64,
    /// The Renyi order that gave the bound; `None` where the accountant has none.
    pub order: Option<f64>,
    /// Which accountant and bound.
    pub accountant: String,
}

/// Adds up the costs of releases.
pub trait Accountant: Send {
    /// Adds `event`, `count` times. Errors on an event it does not know.
    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError>;

    /// The least epsilon that this accountant can prove at `delta` in (0, 1).
    fn epsilon(&self, delta: f64) -> Result<EpsilonReport, PrivacyError>;

    /// The least delta that this accountant can prove at `epsilon >= 0`.
    fn delta(&self, epsilon: f64) -> Result<f64, PrivacyError>;
}
