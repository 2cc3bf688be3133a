//! `oneshot` as a config names it, and its session of a round.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RoundParties, certain_bound, check_private_ring, share_of};
use crate::fl::FlError;
use crate::fl::plan::Plan;
use crate::secagg::VectorShape;
use crate::secagg::oneshot::plan::least_needed;
use crate::secagg::oneshot::{Plan as Sum, Request, Session, Setup, Weighting};

/// Key holders, and who is expected to be corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneshotConfig {
    /// Share of a cohort that may be in league with the server, in [0, 1); rounded up to whole clients.
    #[serde(default = "super::tenth")]
    pub corrupt: f64,
    /// K: key holders, 1 to 256.
    #[serde(default = "super::five")]
    pub holders: u16,
    /// Key holders that may be in league with the server.
    #[serde(default = "super::one")]
    pub corrupt_holders: u16,
    /// t: holders that open a sum, more than (2 K + f)/3 of K with f corrupt. Absent: a fifth of the holders may vanish, if
    /// that is possible. More than the least makes keys shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u16>,
}

impl Default for OneshotConfig {
    fn default() -> Self {
        Self { corrupt: super::tenth(), holders: super::five(), corrupt_holders: super::one(), needed: None }
    }
}

impl OneshotConfig {
    /// t.
    #[must_use]
    pub fn needed(&self) -> u16 {
        let least = least_needed(self.holders, self.corrupt_holders);
        self.needed.unwrap_or_else(|| least.max(self.holders.saturating_sub((self.holders / 5).max(1))))
    }

    /// What a sum of so many clients asks for; `threshold` is the least number that may be opened for other reasons.
    fn request(&self, clients: usize, threshold: usize, sum: Values) -> Request {
        let corrupt_clients = share_of(self.corrupt, clients);
        Request {
            weights: sum.weights,
            corrupt_clients,
            min_survivors: (corrupt_clients + 2).max(threshold),
            ..Request::new(clients, sum.shape, sum.bound, (self.holders, self.needed(), self.corrupt_holders))
        }
    }

    /// Checks the ranges, and that some ring carries the sums of a cohort of the expected size in every stage: the bit
    /// budget, before the first round.
    pub(super) fn validate(&self, plan: &Plan) -> Result<(), FlError> {
        if !(0.0..1.0).contains(&self.corrupt) {
            let (expected, found) = ("in [0, 1)".into(), self.corrupt.to_string());
            return Err(FlError::OutOfRange { name: "secagg.oneshot.corrupt", expected, found });
        }
        let clients = plan.expected_size().ceil() as usize;
        // The heaviest that may meet.
        let mut heaviest = match &plan.weights {
            Some(w) => w.to_vec(),
            None if plan.is_exact() && plan.asynchrony.is_some() => vec![1; clients],
            None => Vec::new(),
        };
        heaviest.iter_mut().for_each(|w| *w = w.saturating_mul(plan.whole_weight()));
        heaviest.sort_unstable_by(|a, b| b.cmp(a));
        heaviest.truncate(clients);
        let weights = if heaviest.is_empty() { Weighting::Equal } else { inside(heaviest.into_iter()) };
        for round in std::iter::once(1).chain(plan.later.iter().map(|later| later.from)) {
            let sum = Values { weights: weights.clone(), ..Values::of(plan, round, clients)? };
            let planned = Sum::choose(&self.request(clients, plan.threshold(round, clients), sum))?;
            check_ring(plan, &planned)?;
        }
        Ok(())
    }

    /// The session of a round.
    pub(super) fn session(&self, plan: &Plan, round: &RoundParties<'_>) -> Result<Arc<Session>, FlError> {
        let mut sum = Values::of(plan, round.id.round, round.sharing)?;
        if let Some(counts) = &round.counts {
            sum.weights = inside(counts.iter().copied());
        }
        let planned = Sum::choose(&self.request(round.cohort.len(), round.threshold, sum))?;
        check_ring(plan, &planned)?;
        Ok(Session::new(Setup {
            id: round.id,
            cohort: round.cohort.to_vec(),
            roster: round.directory.roster(round.secret, round.cohort)?,
            holders: round.directory.holders(round.secret, self.holders),
            plan: planned,
            deadlines: Some([round.patience, 2 * round.patience]),
        })?)
    }
}

/// The integers that are summed.
struct Values {
    shape: VectorShape,
    bound: u64,
    weights: Weighting,
}

impl Values {
    fn of(plan: &Plan, round: u32, clients: usize) -> Result<Self, FlError> {
        Ok(Self { shape: plan.shape()?, bound: certain_bound(plan, round, clients)?, weights: Weighting::Equal })
    }
}

/// A client without samples adds zeros, as often as it likes.
fn inside(weights: impl Iterator<Item = u64>) -> Weighting {
    Weighting::Inside(weights.map(|w| w.max(1)).collect())
}

fn check_ring(plan: &Plan, sum: &Sum) -> Result<(), FlError> {
    let name = "certain magnitude of a client's integers under `secagg.oneshot`";
    check_private_ring(plan, sum.input_shape().bits, sum.request().bound, name)
}
