//! What a principal has lost, and what the releases of one run add to it.

use super::book::Account;
use super::{Charge, Cost, DeltaParts, LedgerError, Limit, Release, Totals};
use crate::privacy::accountant::meter::{Meter, sampler_part};
use crate::privacy::{SAMPLER_SHARE, View};

/// The running total of one run's releases about one principal, on top of all that the ledger had.
#[derive(Clone, Debug)]
pub struct Tab {
    account: Account,
    cost: Cost,
    public: Meter,
    server: Meter,
    /// Releases since the tab was opened.
    new: Vec<Release>,
}

/// A principal's epsilon at some number of releases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// In both views.
    pub epsilon: Totals,
    /// What delta is made of.
    pub delta: DeltaParts,
}

impl Tab {
    pub(super) fn new(account: Account, cost: Cost) -> Result<Self, LedgerError> {
        Ok(Self {
            public: Meter::new(cost.public.clone(), &account.public)?,
            server: Meter::new(cost.server.clone(), &account.server)?,
            account,
            cost,
            new: Vec::new(),
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.account.opening.principal
    }

    /// The most that may be lost.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.account.opening.limit
    }

    /// At which the epsilons are stated.
    #[must_use]
    pub fn delta(&self) -> f64 {
        self.account.opening.delta
    }

    /// Whether a release is paid for.
    ///
    /// # Errors
    /// [`LedgerError::Reused`] if its attempt is, with another input.
    pub fn has(&self, release: &Release) -> Result<bool, LedgerError> {
        Ok(self.new.contains(release) || self.account.has(release)?)
    }

    /// Epsilon and the parts of delta after `more` further releases.
    ///
    /// # Errors
    /// None for events that were accepted when the tab was opened.
    pub fn state(&self, more: u64) -> Result<State, LedgerError> {
        let delta = self.account.opening.delta;
        let releases = self.new.len() as u64 + more;
        let public = self.public.epsilon(releases, delta)?.epsilon;
        let server = self.server.epsilon(releases, delta)?.epsilon;
        let error = self.account.sampler_error + self.cost.sampler_error * releases as f64;
        let sampler = sampler_part(public, error);
        // Beyond the share of delta that is set aside for it nothing is proved.
        let public = if sampler > SAMPLER_SHARE * delta { f64::INFINITY } else { public };
        let finite = |epsilon: f64| epsilon.is_finite().then_some(epsilon);
        Ok(State {
            epsilon: Totals { public: finite(public), server: finite(server) },
            delta: DeltaParts { mechanism: delta * (1.0 - SAMPLER_SHARE), sampler, timing: 0.0, numerics: 0.0 },
        })
    }

    /// What one more release would cost, if that is more than the principal may lose.
    ///
    /// # Errors
    /// As [`Tab::state`].
    pub fn exceeds(&self) -> Result<Option<Excess>, LedgerError> {
        if self.limit().is_none() {
            return Ok(None);
        }
        Ok(self.excess(self.state(1)?.epsilon))
    }

    /// What is more than the limit in `totals`.
    fn excess(&self, totals: Totals) -> Option<Excess> {
        let limit = self.limit()?;
        let next = in_view(totals, limit.view);
        (next > limit.epsilon).then_some(Excess { next, limit })
    }

    /// Counts a release that was charged elsewhere; again is free.
    ///
    /// # Errors
    /// [`LedgerError::Reused`].
    pub fn record(&mut self, release: Release) -> Result<(), LedgerError> {
        if !self.has(&release)? {
            self.new.push(release);
        }
        Ok(())
    }

    /// The charge of a release, which counts from now on.
    ///
    /// # Errors
    /// [`LedgerError::Overspent`], [`LedgerError::Reused`].
    pub fn charge(&mut self, release: Release) -> Result<Charge, LedgerError> {
        self.has(&release)?;
        let state = self.state(1)?;
        if let Some(Excess { next, limit }) = self.excess(state.epsilon) {
            let principal = self.principal().to_owned();
            return Err(LedgerError::Overspent { principal, next, limit: limit.epsilon, view: limit.view.name() });
        }
        self.new.push(release.clone());
        Ok(Charge {
            principal: self.principal().to_owned(),
            release,
            cost: self.cost.clone(),
            delta: state.delta,
            epsilon: state.epsilon,
        })
    }
}

/// More than a principal may lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// Epsilon after one more release.
    pub next: f64,
    /// What is allowed.
    pub limit: Limit,
}

fn in_view(totals: Totals, view: View) -> f64 {
    let epsilon = match view {
        View::Public => totals.public,
        View::Server => totals.server,
    };
    epsilon.unwrap_or(f64::INFINITY)
}
