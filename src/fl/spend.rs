//! What has been spent: charges by round, two views, and the question "may we go on?".

use std::collections::BTreeMap;

use super::FlError;
use super::plan::Plan;
use crate::privacy::SAMPLER_SHARE;
use crate::privacy::accountant::EpsilonReport;
use crate::privacy::accountant::meter::Meter;
use crate::privacy::ledger::Release;
use crate::privacy::ledger::tab::{Costs, Excess, Tab};

/// What is known of a round: which attempt ran on which input, and whether it was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the attempt, from 0.
    pub attempt: u32,
    /// SHA-256 of the round's input.
    pub input: [u8; 32],
    /// True once the charge is durable.
    pub charged: bool,
}

/// Epsilon in both views.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct EpsilonViews {
    /// To those who see releases only (amplified by sampling).
    pub public: EpsilonReport,
    /// To the server, or whoever knows the cohorts.
    pub server: EpsilonReport,
    /// The part of the public delta that the error of the noise tables takes: `(1 + e^epsilon) N t`. Where it
    /// exceeds [`SAMPLER_SHARE`] of delta (epsilon above 50 or so), the public epsilon is infinite. The
    /// same of the server's view, whose epsilon is reported as it is; 1 where that is too large to mean
    /// anything.
    pub delta_sampler: f64,
    /// See `delta_sampler`.
    pub delta_sampler_server_view: f64,
}

/// The charges of a run.
#[derive(Clone, Debug)]
pub struct Spend {
    public: Meter,
    server: Meter,
    delta: f64,
    /// What a release of each stage costs; with it, how far its noise is from what is accounted.
    costs: Costs,
    budget: Option<f64>,
    session: [u8; 16],
    /// What the principal has lost in all runs, and may lose.
    tab: Option<Tab>,
    rounds: BTreeMap<u32, Vec<Attempt>>,
}

/// Why one more release is not made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stop {
    /// The run's own budget.
    Budget {
        /// Epsilon after it.
        next: f64,
        /// The budget.
        budget: f64,
    },
    /// The limit of the ledger's principal, over all its runs.
    Ledger(Excess),
}

impl Spend {
    /// Nothing spent yet, or what a journal says.
    ///
    /// # Errors
    /// An event that the accountant does not know.
    pub fn new(plan: &Plan, journal: BTreeMap<u32, Vec<Attempt>>) -> Result<Self, FlError> {
        let costs = plan.costs()?;
        Ok(Self {
            public: Meter::of(costs.public(), &[])?.limited(plan.epsilon_budget),
            server: Meter::of(costs.server(), &[])?,
            delta: plan.delta,
            costs,
            budget: plan.epsilon_budget,
            session: plan.session,
            tab: None,
            rounds: journal,
        })
    }

    /// The same, under the limit of a principal as well.
    #[must_use]
    pub fn on(mut self, tab: Option<Tab>) -> Self {
        self.tab = tab;
        self
    }

    /// The attempt under which `round` runs on `input`: a bit-identical rerun keeps its number (it will
    /// release the same bits, so that it costs nothing more); any other input takes the next one.
    pub fn begin(&mut self, round: u32, input: [u8; 32]) -> Attempt {
        let attempts = self.rounds.entry(round).or_default();
        if let Some(known) = attempts.iter().find(|a| a.input == input) {
            return *known;
        }
        let fresh = Attempt { attempt: attempts.len() as u32, input, charged: false };
        attempts.push(fresh);
        fresh
    }

    /// Charges an attempt; again is free.
    ///
    /// # Errors
    /// A release that the ledger's principal cannot afford, which [`Self::refuses`] says before.
    pub fn charge(&mut self, round: u32, attempt: u32) -> Result<(), FlError> {
        let Some(tried) = self.rounds.get_mut(&round).and_then(|v| v.iter_mut().find(|a| a.attempt == attempt)) else {
            return Ok(());
        };
        tried.charged = true;
        let release = release(&self.session, round, tried);
        if let Some(tab) = &mut self.tab
            && !tab.has(&release)?
        {
            tab.charge(release)?;
        }
        Ok(())
    }

    /// Releases charged in rounds up to `round`, of each stage.
    #[must_use]
    pub fn releases(&self, round: u32) -> Vec<u64> {
        let mut counts = vec![0; self.costs.stages.len()];
        for (&round, attempts) in self.rounds.range(..=round) {
            counts[self.costs.stage(round)] += attempts.iter().filter(|a| a.charged).count() as u64;
        }
        counts
    }

    /// Epsilon of all releases in rounds up to `round`.
    pub fn epsilon(&self, round: u32) -> Result<EpsilonViews, FlError> {
        self.views(&self.releases(round))
    }

    /// Why the release of an attempt must not be made, if it must not.
    ///
    /// # Errors
    /// An attempt that the ledger has with another input.
    pub fn refuses(&self, round: u32, attempt: &Attempt) -> Result<Option<Stop>, FlError> {
        if let Some(budget) = self.budget {
            let mut releases = self.releases(u32::MAX);
            releases[self.costs.stage(round)] += u64::from(!attempt.charged);
            if let Some(next) = self.public.exceeds(&releases, self.delta, budget)? {
                return Ok(Some(Stop::Budget { next, budget }));
            }
        }
        match &self.tab {
            Some(tab) if !tab.has(&release(&self.session, round, attempt))? => {
                Ok(tab.exceeds(round)?.map(Stop::Ledger))
            }
            _ => Ok(None),
        }
    }

    fn views(&self, releases: &[u64]) -> Result<EpsilonViews, FlError> {
        let mut public = self.public.epsilon(releases, self.delta)?;
        let server = self.server.epsilon(releases, self.delta)?;
        let error: f64 = self.costs.stages.iter().zip(releases).map(|((c, _), &n)| c.sampler_error * n as f64).sum();
        let part = |epsilon: f64| if error == 0.0 { 0.0 } else { ((1.0 + epsilon.exp()) * error).min(1.0) };
        let delta_sampler = part(public.epsilon);
        if delta_sampler > SAMPLER_SHARE * self.delta && public.epsilon.is_finite() {
            public.epsilon = f64::INFINITY;
            public.accountant.push_str(" (void: the noise tables' error exceeds its share of delta)");
        }
        Ok(EpsilonViews { delta_sampler, delta_sampler_server_view: part(server.epsilon), public, server })
    }
}

/// What the ledger calls an attempt.
pub fn release(session: &[u8; 16], round: u32, attempt: &Attempt) -> Release {
    Release { run: hex::encode(session), round, attempt: attempt.attempt, input: hex::encode(attempt.input) }
}
