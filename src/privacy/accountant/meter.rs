//! A running total of equal releases on top of what was spent before.

use super::pld::PldAccountant;
use super::rdp::RdpAccountant;
use super::{Accountant, EpsilonReport};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, SAMPLER_SHARE};

/// The part of delta that the error of the noise tables takes, `(1 + e^epsilon) N t`, at most 1; `error` is `N t`, the sum of
/// the total variation distances of all releases. Beyond [`SAMPLER_SHARE`] of delta an epsilon is void.
#[must_use]
pub fn sampler_part(epsilon: f64, error: f64) -> f64 {
    if error == 0.0 { 0.0 } else { ((1.0 + libm::exp(epsilon)) * error).min(1.0) }
}

/// Epsilon of earlier events and k times one event. The Renyi cost of one is computed once; where nothing is sampled there
/// is a closed form of the privacy losses besides, and the lesser of both counts.
#[derive(Clone, Debug)]
pub struct Meter {
    event: DpEvent,
    earlier: Vec<(DpEvent, u64)>,
    primed: RdpAccountant,
    sampled: bool,
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
        let all = earlier.iter().map(|(event, _)| event).chain([&event]);
        let sampled = all.into_iter().any(|event| matches!(event, DpEvent::PoissonSampled { .. }));
        Ok(Self { event, earlier: earlier.to_vec(), primed, sampled })
    }

    /// Epsilon after `releases` of the event, at `delta` without the part that is set aside for the sampler.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a delta outside (0, 1).
    pub fn epsilon(&self, releases: u64, delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let mut accountant = self.primed.clone();
        accountant.compose(&self.event, releases)?;
        let share = delta * (1.0 - SAMPLER_SHARE);
        let mut report = accountant.epsilon(share)?;
        // A law that ends has no Renyi divergences: only its losses tell.
        if (!self.sampled || report.epsilon.is_infinite())
            && let Some(other) = self.by_losses(releases, share)?
            && other.epsilon < report.epsilon
        {
            report = other;
        }
        Ok(EpsilonReport { delta, ..report })
    }

    /// By privacy losses, if that accountant knows all events.
    fn by_losses(&self, releases: u64, delta: f64) -> Result<Option<EpsilonReport>, PrivacyError> {
        let mut losses = PldAccountant::new();
        for (event, count) in self.earlier.iter().chain([&(self.event.clone(), releases)]) {
            match losses.compose(event, *count) {
                Err(PrivacyError::UnknownEvent { .. }) => return Ok(None),
                composed => composed?,
            }
        }
        losses.epsilon(delta).map(Some)
    }
}
