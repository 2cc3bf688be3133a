//! A running total of equal releases on top of what was spent before.

use super::rdp::RdpAccountant;
use super::{Accountant, EpsilonReport};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, SAMPLER_SHARE};

/// Epsilon of earlier events and k times one event. The cost of one is computed once.
#[derive(Clone, Debug)]
pub struct Meter {
    event: DpEvent,
    primed: RdpAccountant,
}

impl Meter {
    /// A meter of `event`, after `earlier`: events with their counts.
    ///
    /// # Errors
    /// [`PrivacyError::UnknownEvent`], [`PrivacyError::OutOfRange`].
    pub fn new(event: DpEvent, earlier: &[(DpEvent, u64)]) -> Result<Self, PrivacyError> {
        let mut primed = RdpAccountant::new();
        for (event, count) in earlier {
            primed.compose(event, *count)?;
        }
        primed.compose(&event, 0)?;
        Ok(Self { event, primed })
    }

    /// Epsilon after `releases` of the event, at `delta` without the part that is set aside for the sampler.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a delta outside (0, 1).
    pub fn epsilon(&self, releases: u64, delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let mut accountant = self.primed.clone();
        accountant.compose(&self.event, releases)?;
        let report = accountant.epsilon(delta * (1.0 - SAMPLER_SHARE))?;
        Ok(EpsilonReport { delta, ..report })
    }
}
