//! What has been spent: charges by round, two views, and the question "may we go on?".

use std::collections::BTreeMap;

use super::FlError;
use super::plan::Plan;
use crate::privacy::accountant::pld::PldAccountant;
use crate::privacy::accountant::rdp::RdpAccountant;
use crate::privacy::accountant::{Accountant, EpsilonReport};
use crate::privacy::{DpEvent, SAMPLER_SHARE};

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
    /// Total variation distance of one release from what is accounted.
    sampler_error: f64,
    budget: Option<f64>,
    rounds: BTreeMap<u32, Vec<Attempt>>,
}

impl Spend {
    /// Nothing spent yet, or what a journal says.
    pub fn new(plan: &Plan, journal: BTreeMap<u32, Vec<Attempt>>) -> Result<Self, FlError> {
        Ok(Self {
            public: Meter::new(plan.public_event())?,
            server: Meter::new(plan.server_event())?,
            delta: plan.delta,
            sampler_error: if plan.is_private() { plan.sampler_error()? } else { 0.0 },
            budget: plan.epsilon_budget,
            rounds: journal,
        })
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
    pub fn charge(&mut self, round: u32, attempt: u32) {
        if let Some(a) = self.rounds.get_mut(&round).and_then(|v| v.iter_mut().find(|a| a.attempt == attempt)) {
            a.charged = true;
        }
    }

    /// Releases charged in rounds up to `round`.
    #[must_use]
    pub fn releases(&self, round: u32) -> u64 {
        self.rounds.range(..=round).flat_map(|(_, v)| v).filter(|a| a.charged).count() as u64
    }

    /// Epsilon of all releases in rounds up to `round`.
    pub fn epsilon(&self, round: u32) -> Result<EpsilonViews, FlError> {
        self.views(self.releases(round))
    }

    /// `Some(epsilon)` if one more release would exceed the budget, with what it would cost.
    pub fn exceeds(&self, attempt: &Attempt) -> Result<Option<f64>, FlError> {
        let Some(budget) = self.budget else { return Ok(None) };
        let releases = self.releases(u32::MAX) + u64::from(!attempt.charged);
        let epsilon = self.public.epsilon(releases, self.delta)?.epsilon;
        Ok((epsilon > budget).then_some(epsilon))
    }

    fn views(&self, releases: u64) -> Result<EpsilonViews, FlError> {
        let mut public = self.public.epsilon(releases, self.delta)?;
        let server = self.server.epsilon(releases, self.delta)?;
        let error = self.sampler_error * releases as f64;
        let part = |epsilon: f64| if error == 0.0 { 0.0 } else { ((1.0 + epsilon.exp()) * error).min(1.0) };
        let delta_sampler = part(public.epsilon);
        if delta_sampler > SAMPLER_SHARE * self.delta && public.epsilon.is_finite() {
            public.epsilon = f64::INFINITY;
            public.accountant.push_str(" (void: the noise tables' error exceeds its share of delta)");
        }
        Ok(EpsilonViews { delta_sampler, delta_sampler_server_view: part(server.epsilon), public, server })
    }
}

/// Epsilon of k equal releases. The cost of one is computed once; without sampling there is a closed form besides, and
/// the lesser of both counts.
#[derive(Clone, Debug)]
struct Meter {
    event: DpEvent,
    primed: RdpAccountant,
}

impl Meter {
    fn new(event: DpEvent) -> Result<Self, FlError> {
        let mut primed = RdpAccountant::new();
        primed.compose(&event, 0)?;
        Ok(Self { event, primed })
    }

    fn epsilon(&self, releases: u64, delta: f64) -> Result<EpsilonReport, FlError> {
        let mut accountant = self.primed.clone();
        accountant.compose(&self.event, releases)?;
        // The rest of delta is for the sampler.
        let share = delta * (1.0 - SAMPLER_SHARE);
        let mut report = accountant.epsilon(share)?;
        if !matches!(self.event, DpEvent::PoissonSampled { .. }) {
            let mut losses = PldAccountant::new();
            // An event that it does not know leaves the bound above.
            if losses.compose(&self.event, releases).is_ok() {
                let other = losses.epsilon(share)?;
                if other.epsilon < report.epsilon {
                    report = other;
                }
            }
        }
        Ok(EpsilonReport { delta, ..report })
    }
}
