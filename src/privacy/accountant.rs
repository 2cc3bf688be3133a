//! `trait Accountant`: adds events up and answers epsilon and delta.

pub mod certificate;
pub mod meter;
pub mod pld;
mod pmf;
pub mod rdp;

use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;

/// An epsilon with everything that gives it a meaning.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpsilonReport {
    /// Upper bound of epsilon, natural log; infinite if nothing is protected.
    pub epsilon: f64,
    /// A proved lower bound on the epsilon of the mechanism, where the accountant has one: how far `epsilon` can be
    /// from the truth.
    pub epsilon_low: Option<f64>,
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

/// Which accountants are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All that know the event; the least of their bounds counts, and its name is told.
    Best,
    /// Renyi differential privacy.
    Rdp,
    /// The privacy loss distribution.
    Pld,
}

impl Rule {
    /// Epsilon of `event`, `count` times, at `delta`.
    ///
    /// # Errors
    /// As the accountant's; [`PrivacyError::UnknownEvent`] only if none of those asked knows the event.
    pub fn epsilon(self, event: &DpEvent, count: u64, delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let by = |accountant: &mut dyn Accountant| {
            accountant.compose(event, count)?;
            accountant.epsilon(delta)
        };
        let rdp = || by(&mut rdp::RdpAccountant::new());
        let pld = || by(&mut pld::PldAccountant::new());
        match self {
            Self::Rdp => rdp(),
            Self::Pld => pld(),
            Self::Best => match (rdp(), pld()) {
                (Ok(rdp), Ok(pld)) if rdp.epsilon < pld.epsilon => {
                    Ok(EpsilonReport { epsilon_low: pld.epsilon_low, ..rdp })
                }
                (Err(PrivacyError::UnknownEvent { .. }), pld) => pld,
                (rdp, Err(PrivacyError::UnknownEvent { .. })) => rdp,
                (rdp, pld) => rdp.and(pld),
            },
        }
    }
}
