//! What a principal has lost, and what the releases of one run add to it.

use super::book::Account;
use super::{Charge, Cost, DeltaParts, LedgerError, Limit, Release, Totals};
use crate::privacy::accountant::Rule;
use crate::privacy::accountant::meter::{Course, Meter, sampler_part};
use crate::privacy::{DpEvent, SAMPLER_SHARE, View};

/// What the releases of a run cost, and how they are accounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// The cost of a release and the number of rounds of each stage, at least one stage. Rounds beyond the last are of
    /// the last stage.
    pub stages: Vec<(Cost, u64)>,
    /// Which accountants are asked.
    pub rule: Rule,
    /// See [`Course::stride`].
    pub stride: u64,
}

impl From<Cost> for Costs {
    /// Any number of rounds of one cost, every total exact.
    fn from(cost: Cost) -> Self {
        Self { stages: vec![(cost, 0)], rule: Rule::Best, stride: 1 }
    }
}

impl Costs {
    /// The stage of a round, from 0.
    #[must_use]
    pub fn stage(&self, round: u32) -> usize {
        stage_of(self.stages.iter().map(|(_, rounds)| *rounds), round)
    }

    /// The sum of the total variation distances of so many releases of each stage from what is accounted.
    #[must_use]
    pub fn sampler_error(&self, releases: &[u64]) -> f64 {
        self.stages.iter().zip(releases).map(|((cost, _), &count)| cost.sampler_error * count as f64).sum()
    }

    /// The course of the public view.
    #[must_use]
    pub fn public(&self) -> Course {
        self.course(|cost| &cost.public)
    }

    /// The course of the server's view.
    #[must_use]
    pub fn server(&self) -> Course {
        self.course(|cost| &cost.server)
    }

    fn course(&self, event: impl Fn(&Cost) -> &DpEvent) -> Course {
        let stages = self.stages.iter().map(|(cost, rounds)| (event(cost).clone(), *rounds)).collect();
        Course { stages, stride: self.stride, rule: self.rule }
    }
}

/// The stage, from 0, of a round, from 1, where stages have so many `rounds`; those beyond are of the last one.
pub fn stage_of(rounds: impl IntoIterator<Item = u64>, round: u32) -> usize {
    let (mut left, mut stage) = (u64::from(round), 0);
    let mut stages = rounds.into_iter().peekable();
    while let Some(rounds) = stages.next() {
        if left <= rounds || stages.peek().is_none() {
            break;
        }
        left -= rounds;
        stage += 1;
    }
    stage
}

/// The running total of one run's releases about one principal, on top of all that the ledger had.
#[derive(Clone, Debug)]
pub struct Tab {
    account: Account,
    costs: Costs,
    public: Meter,
    server: Meter,
    /// Releases since the tab was opened, and how many of each stage.
    new: Vec<Release>,
    counts: Vec<u64>,
}

/// Which bound of a total is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// That of reports.
    Told,
    /// The best of exactly these releases.
    Exact,
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
    pub(super) fn new(account: Account, costs: Costs) -> Result<Self, LedgerError> {
        let limit = |view| account.opening.limit.filter(|limit| limit.view == view).map(|limit| limit.epsilon);
        Ok(Self {
            public: Meter::of(costs.public(), &account.public)?.limited(limit(View::Public)),
            server: Meter::of(costs.server(), &account.server)?.limited(limit(View::Server)),
            counts: vec![0; costs.stages.len()],
            account,
            costs,
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

    /// Epsilon and the parts of delta as they are.
    ///
    /// # Errors
    /// None for events that were accepted when the tab was opened.
    pub fn state(&self) -> Result<State, LedgerError> {
        self.total(&self.counts, Bound::Told)
    }

    /// The releases of each stage with one more, of `round`.
    fn with(&self, round: u32) -> Vec<u64> {
        let mut counts = self.counts.clone();
        let stage = self.costs.stage(round);
        if let Some(count) = counts.get_mut(stage) {
            *count += 1;
        }
        counts
    }

    fn total(&self, counts: &[u64], bound: Bound) -> Result<State, LedgerError> {
        let delta = self.account.opening.delta;
        let epsilon = |meter: &Meter| match bound {
            Bound::Told => meter.epsilon(counts, delta),
            Bound::Exact => meter.exactly(counts, delta),
        };
        let (public, server) = (epsilon(&self.public)?.epsilon, epsilon(&self.server)?.epsilon);
        let sampler = sampler_part(public, self.account.sampler_error + self.costs.sampler_error(counts));
        // Beyond the share of delta that is set aside for it nothing is proved.
        let void = sampler > SAMPLER_SHARE * delta;
        if void && bound == Bound::Told {
            return self.total(counts, Bound::Exact);
        }
        let public = if void { f64::INFINITY } else { public };
        let finite = |epsilon: f64| epsilon.is_finite().then_some(epsilon);
        Ok(State {
            epsilon: Totals { public: finite(public), server: finite(server) },
            delta: DeltaParts { mechanism: delta * (1.0 - SAMPLER_SHARE), sampler, timing: 0.0, numerics: 0.0 },
        })
    }

    /// What one more release, of `round`, would cost, if that is more than the principal may lose.
    ///
    /// # Errors
    /// As [`Tab::state`].
    pub fn exceeds(&self, round: u32) -> Result<Option<Excess>, LedgerError> {
        let Some(limit) = self.limit() else { return Ok(None) };
        let counts = self.with(round);
        let meter = match limit.view {
            View::Public => &self.public,
            View::Server => &self.server,
        };
        // The cheap bound lets pass; what it would refuse is decided by the best. An infinite one stands for noise tables
        // whose error is too large: that is part of the total.
        if meter.exceeds(&counts, self.delta(), limit.epsilon)?.is_none()
            && in_view(self.total(&counts, Bound::Told)?.epsilon, limit.view) <= limit.epsilon
        {
            return Ok(None);
        }
        let next = in_view(self.total(&counts, Bound::Exact)?.epsilon, limit.view);
        Ok((next > limit.epsilon).then_some(Excess { next, limit }))
    }

    /// Counts a release that was charged elsewhere; again is free.
    ///
    /// # Errors
    /// [`LedgerError::Reused`].
    pub fn record(&mut self, release: Release) -> Result<(), LedgerError> {
        if !self.has(&release)? {
            self.count(release);
        }
        Ok(())
    }

    fn count(&mut self, release: Release) {
        self.counts = self.with(release.round);
        self.new.push(release);
    }

    /// The charge of a release, which counts from now on.
    ///
    /// # Errors
    /// [`LedgerError::Overspent`], [`LedgerError::Reused`].
    pub fn charge(&mut self, release: Release) -> Result<Charge, LedgerError> {
        self.has(&release)?;
        if let Some(Excess { next, limit }) = self.exceeds(release.round)? {
            let principal = self.principal().to_owned();
            return Err(LedgerError::Overspent { principal, next, limit: limit.epsilon, view: limit.view.name() });
        }
        self.count(release.clone());
        let state = self.state()?;
        let (cost, _) = &self.costs.stages[self.costs.stage(release.round)];
        Ok(Charge {
            principal: self.principal().to_owned(),
            cost: cost.clone(),
            release,
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
