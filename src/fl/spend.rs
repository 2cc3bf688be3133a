//! What has been spent: charges by round, two views, and the question "may we go on?".

use std::collections::BTreeMap;

use super::FlError;
use super::plan::Plan;
use super::samples::{SampleAccount, SampleEpsilon};
use crate::privacy::SAMPLER_SHARE;
use crate::privacy::accountant::EpsilonReport;
use crate::privacy::accountant::meter::{Meter, sampler_part};
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
    /// True if it was given up unreleased: its number is not taken again.
    pub abandoned: bool,
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
    /// Of the samples of a client, where clients run DP-SGD: to everybody but the client.
    pub samples: Option<SampleEpsilon>,
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
    run: RunKey,
    /// What the principal has lost in all runs, and may lose.
    tab: Option<Tab>,
    rounds: BTreeMap<u32, Vec<Attempt>>,
    /// What the clients' own noise is accounted for.
    samples: Option<SampleAccount>,
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
    /// The budget of the samples of a client.
    Samples {
        /// Epsilon of a sample after one more attempt.
        next: f64,
        /// The budget.
        budget: f64,
    },
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
            run: RunKey::of(plan)?,
            tab: None,
            samples: SampleAccount::new(plan, &journal)?,
            rounds: journal,
        })
    }

    /// The same, under the limit of a principal as well.
    #[must_use]
    pub fn on(mut self, tab: Option<Tab>) -> Self {
        self.tab = tab;
        self
    }

    /// What the rounds cost.
    #[must_use]
    pub const fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Whether `round` was released from another input in a run with correlated noise, which cannot be done again: noise
    /// that is the same in two releases, or lacks what the next ones take back, would not be the noise that is accounted.
    #[must_use]
    pub fn superseded(&self, round: u32, input: [u8; 32]) -> bool {
        let attempts = self.rounds.get(&round).map_or(&[][..], Vec::as_slice);
        self.run.whole.is_some() && attempts.iter().any(|a| a.charged && a.input != input)
    }

    /// The attempt under which `round` runs on `input`: a bit-identical rerun keeps its number (it will
    /// release the same bits, so that it costs nothing more); any other input takes the next one.
    pub fn begin(&mut self, round: u32, input: [u8; 32]) -> Attempt {
        let attempts = self.rounds.entry(round).or_default();
        if let Some(known) = attempts.iter().find(|a| a.input == input && !a.abandoned) {
            return *known;
        }
        let fresh = Attempt { attempt: attempts.len() as u32, input, charged: false, abandoned: false };
        attempts.push(fresh);
        fresh
    }

    /// Gives an attempt up, of which nothing was released: the round takes another number, also on the same input, so that
    /// nobody answers twice under one.
    pub(super) fn abandon(&mut self, round: u32, attempt: u32) {
        let attempts = self.rounds.entry(round).or_default();
        if let Some(given_up) = attempts.iter_mut().find(|a| a.attempt == attempt && !a.charged) {
            given_up.abandoned = true;
        }
    }

    /// The clients of an attempt are about to work: from here on their samples are accounted for it.
    pub(super) fn begun(&mut self, round: u32, attempt: u32) {
        if let Some(samples) = &mut self.samples {
            samples.begin(round, attempt);
        }
    }

    /// Counts an attempt that is charged; again is free. [`Self::refuses`] said before whether it may be.
    ///
    /// # Errors
    /// An attempt that the ledger has with another input.
    pub fn charge(&mut self, round: u32, attempt: u32) -> Result<(), FlError> {
        let Some(tried) = self.rounds.get_mut(&round).and_then(|v| v.iter_mut().find(|a| a.attempt == attempt)) else {
            return Ok(());
        };
        tried.charged = true;
        let release = self.run.release(round, tried);
        match &mut self.tab {
            Some(tab) => Ok(tab.record(release)?),
            None => Ok(()),
        }
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
        self.views(&self.releases(round), round)
    }

    /// The same after `round`, with the clients' vectors of attempts that came to no release: for their samples these count.
    pub(super) fn standing(&self, round: u32) -> Result<EpsilonViews, FlError> {
        self.views(&self.releases(round), u32::MAX)
    }

    /// Why the release of an attempt must not be made, if it must not.
    ///
    /// # Errors
    /// An attempt that the ledger has with another input.
    pub fn refuses(&self, round: u32, attempt: &Attempt) -> Result<Option<Stop>, FlError> {
        if let Some(samples) = &self.samples
            && let Some((next, budget)) = samples.refuses(round, attempt.attempt)?
        {
            return Ok(Some(Stop::Samples { next, budget }));
        }
        if let Some(budget) = self.budget {
            let mut releases = self.releases(u32::MAX);
            releases[self.costs.stage(round)] += u64::from(!attempt.charged);
            if let Some(next) = self.public.exceeds(&self.run.costs(releases), self.delta, budget)? {
                return Ok(Some(Stop::Budget { next, budget }));
            }
        }
        match &self.tab {
            Some(tab) if !tab.has(&self.run.release(round, attempt))? => Ok(tab.exceeds(round)?.map(Stop::Ledger)),
            _ => Ok(None),
        }
    }

    fn views(&self, releases: &[u64], begun: u32) -> Result<EpsilonViews, FlError> {
        let costs = self.run.costs(releases.to_vec());
        let mut public = self.public.epsilon(&costs, self.delta)?;
        let server = self.server.epsilon(&costs, self.delta)?;
        let error = self.costs.sampler_error(releases);
        let delta_sampler = sampler_part(public.epsilon, error);
        if delta_sampler > SAMPLER_SHARE * self.delta && public.epsilon.is_finite() {
            public.epsilon = f64::INFINITY;
            public.accountant.push_str(" (void: the error of samplers exceeds its share of delta)");
        }
        Ok(EpsilonViews {
            delta_sampler,
            delta_sampler_server_view: sampler_part(server.epsilon, error),
            public,
            server,
            samples: self.samples.as_ref().map(|samples| samples.epsilon(begun)).transpose()?,
        })
    }
}

/// What the releases of a run are called in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunKey {
    session: [u8; 16],
    /// Of the plan, if all releases of the run are one.
    whole: Option<[u8; 32]>,
}

impl RunKey {
    /// That of a plan.
    ///
    /// # Errors
    /// Those of [`Plan::digest`].
    pub fn of(plan: &Plan) -> Result<Self, FlError> {
        let whole = plan.mechanism.correlation().map(|_| plan.digest()).transpose()?;
        Ok(Self { session: plan.session, whole })
    }

    /// The name of an attempt. Where noise is correlated over the rounds, they are one release, "round 0" of the run: it
    /// is charged whole, with the first of them.
    #[must_use]
    pub fn release(&self, round: u32, attempt: &Attempt) -> Release {
        let run = hex::encode(self.session);
        match self.whole {
            Some(plan) => Release { run, round: 0, attempt: 0, input: hex::encode(plan) },
            None => Release { run, round, attempt: attempt.attempt, input: hex::encode(attempt.input) },
        }
    }

    /// How often the event of each stage is paid for after so many releases.
    fn costs(&self, mut releases: Vec<u64>) -> Vec<u64> {
        if self.whole.is_some() {
            releases.iter_mut().for_each(|count| *count = (*count).min(1));
        }
        releases
    }
}
