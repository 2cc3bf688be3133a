//! What local DP-SGD ([`super::dp_sgd`]) costs the samples of a client over a run.
//!
//! **Who looks**: everybody but the client itself, also the server and all other clients. The noise of a step is the client's
//! own, so that nothing here rests on a cohort, on secure aggregation or on noise of others; what the server then does to the
//! vectors, client-level noise included, is post-processing.
//!
//! **Neighbours**: two data sets that differ in one sample of one client. With [`Divisor::Public`] one of them lacks it; with
//! [`Divisor::Shard`] it contributes zero in one of them, and how many samples each client has is public. Either way a step
//! is one discrete Gaussian on a Poisson sample at rate q.
//!
//! **How often**: `steps` times in each attempt of a round in which the client takes part. The server sees who takes part, so
//! that drawing the cohort amplifies nothing: the account is that of a client in every attempt, or in every turn of its group
//! where groups take turns. An attempt counts once it has begun, whether its round ends or not, since the vectors may have been
//! sent; run again from the same input it sends the same bits, and counts once.

use std::collections::{BTreeMap, BTreeSet};

use super::FlError;
use super::cohort::{self, Sampling};
use super::dp_sgd::{Divisor, DpSgd};
use super::plan::{Direction, Plan};
use super::rule::AggregationConfig;
use super::spend::Attempt;
use crate::privacy::accountant::meter::{Course, Meter};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::mechanism::Mechanism;
use crate::privacy::{DpEvent, NeighboringRelation};

/// Exact reports of epsilon in a run, at most about so many.
const EXACT_REPORTS: u64 = 64;

/// Local DP-SGD and its account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleLevel {
    /// What each client runs.
    pub local: DpSgd,
    /// delta of the reported epsilon, in (0, 1).
    pub delta: f64,
    /// The run stops before the epsilon of a sample would exceed this.
    pub epsilon_budget: Option<f64>,
    /// Which accountants add up the cost.
    pub rule: Rule,
}

/// Whoever is not the client: the view of every epsilon of this level.
pub const VIEW: &str = "everybody but the client: the server and other clients";

impl SampleLevel {
    /// The cost of one step.
    #[must_use]
    pub fn event(&self) -> DpEvent {
        // That of the mechanism has no use for the number of coordinates.
        let release = self.local.mechanism().event(1);
        let rate = self.local.params().rate;
        if rate == 1.0 { release } else { DpEvent::PoissonSampled { rate, event: Box::new(release) } }
    }

    /// The neighbouring relation.
    #[must_use]
    pub const fn neighboring(&self) -> NeighboringRelation {
        match self.local.params().divisor {
            Divisor::Public(_) => NeighboringRelation::AddRemove,
            Divisor::Shard => NeighboringRelation::ZeroOut,
        }
    }

    /// The same in words.
    #[must_use]
    pub const fn neighbors(&self) -> &'static str {
        match self.local.params().divisor {
            Divisor::Public(_) => "add or remove one sample of one client",
            Divisor::Shard => "one sample of one client contributes zero; how many samples each client has is public",
        }
    }

    /// Steps of a client that takes part so often.
    #[must_use]
    pub fn steps(&self, participations: u64) -> u64 {
        participations.saturating_mul(u64::from(self.local.params().steps))
    }

    /// The account of a run that is planned to have so many steps of one client.
    ///
    /// # Errors
    /// An event that the accountant does not know.
    pub fn meter(&self, steps: u64) -> Result<Meter, FlError> {
        let course = Course {
            stages: vec![(self.event(), steps)],
            stride: steps.div_ceil(EXACT_REPORTS).max(1),
            rule: self.rule,
        };
        Ok(Meter::of(course, &[])?.limited(self.epsilon_budget))
    }

    /// Checks what it needs of the plan of a run.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`] for a delta outside (0, 1), a budget that is not finite and > 0, vectors that are no deltas, and
    /// weights by samples.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), FlError> {
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found })
        };
        if !(self.delta > 0.0 && self.delta < 1.0) {
            return bad("algorithm.delta", "in (0, 1)", self.delta.to_string());
        }
        if let Some(budget) = self.epsilon_budget.filter(|budget| !(budget.is_finite() && *budget > 0.0)) {
            return bad("algorithm.target_epsilon", "finite and > 0", budget.to_string());
        }
        if plan.direction != Direction::Delta {
            return bad("the vectors of dp_sgd", "deltas", "gradients".into());
        }
        if plan.asynchrony.is_some() {
            return bad(
                "asynchrony",
                "absent with dp_sgd: its account counts rounds, not how often a client trains",
                "given".into(),
            );
        }
        if plan.aggregation.as_ref().is_some_and(AggregationConfig::needs_root) {
            return bad(
                "aggregation.rule",
                "one that needs no update of the server's own, with dp_sgd",
                "fltrust".into(),
            );
        }
        if plan.weights.is_some() {
            return bad("algorithm.weights", "absent with dp_sgd: all clients count alike", "by samples".into());
        }
        Ok(())
    }
}

/// Rounds from a turn of a client to its next one, where turns are public; 1 where it may be in every round.
#[must_use]
pub fn turns(sampling: Sampling, clients: u64, cohort: f64) -> u64 {
    match sampling {
        Sampling::RoundRobin => cohort::groups(clients, cohort),
        Sampling::All | Sampling::Poisson | Sampling::TruncatedPoisson { .. } | Sampling::Fixed => 1,
    }
}

/// What the samples of a client have lost so far.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct SampleEpsilon {
    /// Epsilon and all that gives it a meaning but neighbours and view: see [`SampleLevel`].
    pub report: EpsilonReport,
    /// Steps that are accounted: those of a client that was in every attempt that it may have been in.
    pub steps: u64,
}

/// The running account: which attempts have begun.
#[derive(Clone, Debug)]
pub(super) struct SampleAccount {
    level: SampleLevel,
    meter: Meter,
    turns: u64,
    begun: BTreeSet<(u32, u32)>,
}

impl SampleAccount {
    /// The account of a run, after the attempts that its journal knows: each of them had begun.
    pub(super) fn new(plan: &Plan, journal: &BTreeMap<u32, Vec<Attempt>>) -> Result<Option<Self>, FlError> {
        let Some(level) = plan.samples else { return Ok(None) };
        let turns = turns(plan.sampling, plan.clients, plan.cohort);
        let meter = level.meter(level.steps(u64::from(plan.rounds).div_ceil(turns)))?;
        let known = journal.iter().flat_map(|(&round, tried)| tried.iter().map(move |a| (round, a.attempt)));
        Ok(Some(Self { level, meter, turns, begun: known.collect() }))
    }

    /// An attempt begins; again is free.
    pub(super) fn begin(&mut self, round: u32, attempt: u32) {
        self.begun.insert((round, attempt));
    }

    /// The most attempts in rounds up to `round`, one that may come among them, that a client may have been in.
    fn participations(&self, round: u32, next: Option<(u32, u32)>) -> u64 {
        let next = next.filter(|attempt| !self.begun.contains(attempt));
        let mut of_turn: BTreeMap<u64, u64> = BTreeMap::new();
        for (round, _) in self.begun.range(..=(round, u32::MAX)).copied().chain(next) {
            *of_turn.entry(u64::from(round.saturating_sub(1)) % self.turns.max(1)).or_default() += 1;
        }
        of_turn.into_values().max().unwrap_or(0)
    }

    /// Epsilon of all attempts in rounds up to `round`.
    pub(super) fn epsilon(&self, round: u32) -> Result<SampleEpsilon, FlError> {
        let steps = self.level.steps(self.participations(round, None));
        Ok(SampleEpsilon { report: self.meter.epsilon(&[steps], self.level.delta)?, steps })
    }

    /// Epsilon after one more attempt and the budget, if it is above that. An attempt that has begun already costs nothing.
    pub(super) fn refuses(&self, round: u32, attempt: u32) -> Result<Option<(f64, f64)>, FlError> {
        let Some(budget) = self.level.epsilon_budget else { return Ok(None) };
        if self.begun.contains(&(round, attempt)) {
            return Ok(None);
        }
        let steps = self.level.steps(self.participations(u32::MAX, Some((round, attempt))));
        Ok(self.meter.exceeds(&[steps], self.level.delta, budget)?.map(|next| (next, budget)))
    }
}

#[cfg(test)]
mod tests;
