//! `mphe` as a config names it, what its key is made for, and its session of a round.
//!
//! **One key, many rounds.** A key is made before the first round that needs one, and serves rounds until `refresh` says
//! otherwise or its openings are used up. Its ring is chosen for cohorts of all likely sizes in all stages of the run, so that
//! the bit budget is known before the first round (`MpheConfig::foreseen`). A round that needs more than that, for a cohort
//! of unlikely size, gets a key that is made for it.
//!
//! **No randomness of a key is used twice, in whatever process.** All that is drawn in a set-up (s_i, e_i, shares, the secrets
//! of flooding and pair masks) is bound to the epoch, and all that a client draws for a ciphertext to the key, the round and
//! its plaintext. The epoch is 128 bits from the operating system, drawn anew for every set-up
//! ([`Coordinator::begin_key`](crate::fl::coordinator::Coordinator::begin_key)), with a seed in the config too: a sum has the
//! same bits under every key. Neither keys nor records of openings are stored: a holder's key, and what it has answered under
//! it ([`OpeningGuard`](crate::secagg::mphe::OpeningGuard)), live and die in one process. So no key is ever without its
//! record, and a process that resumes a run, even from an older copy of its folder, begins with a new key under which nothing
//! was answered. What it does again it does on the same input with the same attempt number, hence with the same sum: a
//! second opening of that tells nothing new. Another input is another attempt with noise and a charge of its own.
//!
//! Within a process the record says one opening a round, whatever the attempt, and a round is finished under the key that it
//! was begun under, or not at all (`fl/coordinator/keys.rs`).
//!
//! **Flooding.** A key bears `refresh` rounds (all of the run where it is absent), each with all sets of holders that may be
//! asked, at a distance of `2^-lambda` with `lambda = 40 + log2(keys of the run)`: `2^-40` over all openings of an undisturbed
//! run. Every resumption adds at most as much again.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RoundParties, certain_bound, check_private_ring, share_of};
use crate::fl::FlError;
use crate::fl::cohort::{self, Sampling};
use crate::fl::groups::Grouping;
use crate::fl::plan::Plan;
use crate::secagg::mphe::{self, Deadlines, Request, RoundSession, Setup, SignedKey, Threshold, Trust};
use crate::secagg::{SecAggError, VectorShape};

/// Bits of statistical distance of all openings of a run.
const LAMBDA: u32 = 40;
/// A key is made for cohorts of the expected size and so many standard deviations around it.
const DEVIATIONS: f64 = 6.0;
/// The greatest magnitude in a private ring, of 32 bits.
const PRIVATE: u64 = (1 << 31) - 1;
/// Sizes of cohorts that are looked at, at most.
const SIZES: usize = 9;

/// Key holders, and who is expected to be corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MpheConfig {
    /// Whom the sums are protected from.
    #[serde(default)]
    pub trust: MpheTrust,
    /// Share of a cohort that may be in league with the server, in [0, 1); rounded up to whole clients. Absent: 0.1, and 0
    /// with `honest-roster`, which says that there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<f64>,
    /// K: key holders, 1 to 256.
    #[serde(default = "super::five")]
    pub holders: u16,
    /// Key holders that may be in league with the server.
    #[serde(default = "super::one")]
    pub corrupt_holders: u16,
    /// t: holders that open a sum, more than (K + f)/2 of K with f corrupt. Absent: a fifth of the holders may vanish, if that
    /// is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u16>,
    /// A fresh key after so many rounds; absent: one key for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<u32>,
    /// Degree N of the ring, a power of two of 1024 to 32768; absent: the one with the fewest bytes a client. A smaller one
    /// makes keys faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degree: Option<u32>,
}

/// Whom sums are protected from; see [`Trust`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MpheTrust {
    /// The server follows the protocol and looks at everything. The key holders get the sum from it.
    #[default]
    SemiHonestServer,
    /// The server does what it likes, and no client is in league with it. The key holders get every ciphertext and add
    /// themselves.
    HonestRoster,
}

impl Default for MpheConfig {
    fn default() -> Self {
        Self {
            trust: MpheTrust::default(),
            corrupt: None,
            holders: super::five(),
            corrupt_holders: super::one(),
            needed: None,
            refresh: None,
            degree: None,
        }
    }
}

/// What a key has to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fl) struct Needs {
    /// Clients of a cohort.
    clients: usize,
    /// Magnitude of a client's integers, its weight included.
    magnitude: u64,
}

impl Needs {
    fn join(self, other: Self) -> Self {
        Self { clients: self.clients.max(other.clients), magnitude: self.magnitude.max(other.magnitude) }
    }

    /// What a round with a cohort of so many asks for.
    fn of(plan: &Plan, round: u32, clients: usize) -> Result<Self, FlError> {
        let heaviest = plan.weights.as_ref().and_then(|w| w.iter().copied().max()).unwrap_or(1).max(1);
        Ok(Self { clients, magnitude: certain_bound(plan, round, clients)?.saturating_mul(heaviest) })
    }
}

impl MpheConfig {
    /// t.
    #[must_use]
    pub fn needed(&self) -> u16 {
        let least = ((u32::from(self.holders) + u32::from(self.corrupt_holders)) / 2 + 1) as u16;
        self.needed.unwrap_or_else(|| least.max(self.holders.saturating_sub((self.holders / 5).max(1))))
    }

    /// The share of a cohort that may be in league with the server.
    #[must_use]
    pub fn corrupt(&self) -> f64 {
        match (self.corrupt, self.trust) {
            (Some(share), _) => share,
            (None, MpheTrust::SemiHonestServer) => super::tenth(),
            (None, MpheTrust::HonestRoster) => 0.0,
        }
    }

    /// Clients that are added up at least: two honest ones, and noise enough.
    fn least(&self, clients: usize, threshold: usize) -> usize {
        (share_of(self.corrupt(), clients) + 2).max(threshold)
    }

    /// Rounds that a key serves.
    fn rounds(&self, plan: &Plan) -> u32 {
        self.refresh.unwrap_or(plan.rounds).min(plan.rounds)
    }

    /// What likely cohorts ask for in all stages.
    fn foreseen(plan: &Plan) -> Result<Needs, FlError> {
        let (least, most) = likely(plan);
        let step = (most - least).div_ceil(SIZES - 1).max(1);
        let mut needs = Needs { clients: most, magnitude: 1 };
        for round in std::iter::once(1).chain(plan.later.iter().map(|later| later.from)) {
            for size in (least..most).step_by(step).chain([most]) {
                needs = needs.join(Needs::of(plan, round, size)?);
            }
        }
        // A third of a bit, for sizes in between; nothing where a private ring has no more.
        let roomy = needs.magnitude.saturating_add(needs.magnitude / 4);
        let most = if plan.is_exact() { u64::MAX } else { PRIVATE.max(needs.magnitude) };
        Ok(Needs { magnitude: roomy.min(most), ..needs })
    }

    /// The plan of a key that serves these needs.
    fn choose(&self, plan: &Plan, needs: Needs) -> Result<mphe::Plan, FlError> {
        let rounds = self.rounds(plan);
        let keys = plan.rounds.div_ceil(rounds.max(1));
        // A power of two is no residue of a ring of its size: the ring has its negative alone.
        let bound = needs.magnitude.saturating_add(u64::from(needs.magnitude.is_power_of_two()));
        let shape = plan.shape()?;
        let bits = shape.bits.max(1 + u64::BITS - (bound - 1).leading_zeros());
        check_private_ring(plan, bits, bound, "certain magnitude of a client's integers under `secagg.mphe`")?;
        let trust = match self.trust {
            MpheTrust::SemiHonestServer => Trust::SemiHonestServer,
            MpheTrust::HonestRoster => Trust::HonestRoster,
        };
        let threshold = Threshold::new(self.holders, self.needed(), self.corrupt_holders).map_err(SecAggError::from)?;
        let clients = u32::try_from(needs.clients.max(2)).unwrap_or(u32::MAX);
        Ok(mphe::Plan::choose(Request {
            bound,
            rounds: u64::from(rounds),
            lambda: LAMBDA + keys.next_power_of_two().trailing_zeros(),
            degree: self.degree.map(|degree| degree as usize),
            ..Request::new(VectorShape { bits, ..shape }, clients, threshold, trust)
        })?)
    }

    /// Checks the ranges, and that a ring carries the sums of all likely cohorts in every stage: the bit budget, before the
    /// first round.
    pub(super) fn validate(&self, plan: &Plan) -> Result<(), FlError> {
        let bad =
            |name, expected: &str, found: String| Err(FlError::OutOfRange { name, expected: expected.into(), found });
        let corrupt = self.corrupt();
        if !(0.0..1.0).contains(&corrupt) {
            return bad("secagg.mphe.corrupt", "in [0, 1)", corrupt.to_string());
        }
        if self.trust == MpheTrust::HonestRoster && corrupt > 0.0 {
            let expected = "0 or absent with `honest-roster`, under which no client is in league with the server (`oneshot` and \
                            `masks` protect from a malicious server with clients in league)";
            return bad("secagg.mphe.corrupt", expected, corrupt.to_string());
        }
        if self.refresh == Some(0) {
            return bad("secagg.mphe.refresh", "at least 1 round", "0".into());
        }
        if plan.grouping != Grouping::Whole {
            let expected =
                "absent under `secagg.mphe`, whose holders open one sum a round (`masks` and `oneshot` have groups)";
            return bad("group_size", expected, format!("{:?}", plan.grouping));
        }
        let clients = plan.cohort.ceil() as usize;
        let least = self.least(clients, plan.threshold(1, clients));
        if clients < least {
            let expected = format!("at least {least} under `secagg.mphe`: two clients that are not corrupt");
            return bad("cohort", &expected, clients.to_string());
        }
        self.choose(plan, Self::foreseen(plan)?).map(|_| ())
    }

    /// What a key has to be made for, if `key` (with the number of rounds that it has served) does not serve this round.
    pub(in crate::fl) fn wanted(
        &self,
        plan: &Plan,
        (round, clients): (u32, usize),
        key: Option<(&mphe::Plan, u32)>,
    ) -> Result<Option<mphe::Plan>, FlError> {
        let needs = Needs::of(plan, round, clients)?;
        if key.is_some_and(|(key, served)| served < self.rounds(plan) && serves(key, needs)) {
            return Ok(None);
        }
        self.choose(plan, Self::foreseen(plan)?.join(needs)).map(Some)
    }

    /// The session of a round under a key.
    pub(super) fn session(
        &self,
        plan: &Plan,
        round: &RoundParties<'_>,
        key: &Arc<SignedKey>,
    ) -> Result<Arc<RoundSession>, FlError> {
        let needs = Needs::of(plan, round.id.round, round.cohort.len())?;
        let request = key.session().plan().request();
        if needs.magnitude > request.bound {
            return Err(FlError::OutOfRange {
                name: "certain magnitude of a client's integers",
                expected: format!("at most {}, that of the key under which the round was begun", request.bound),
                found: needs.magnitude.to_string(),
            });
        }
        let setup = Setup {
            id: round.id,
            cohort: round.cohort.to_vec(),
            roster: round.directory.roster(round.secret, round.cohort)?,
            key: Arc::clone(key),
            deadlines: Some(Deadlines { input: round.patience, agree: 2 * round.patience, open: 3 * round.patience }),
        };
        Ok(RoundSession::with_survivors(setup, self.least(round.cohort.len(), round.threshold))?)
    }
}

/// Whether a key bears what a round needs.
fn serves(key: &mphe::Plan, needs: Needs) -> bool {
    let request = key.request();
    needs.clients <= request.clients as usize && needs.magnitude <= request.bound
}

/// The least and the largest size of cohorts that a key is made for from the start.
fn likely(plan: &Plan) -> (usize, usize) {
    let expected = plan.cohort;
    let (least, most) = match plan.sampling {
        Sampling::All => (plan.clients as f64, plan.clients as f64),
        Sampling::Fixed => (expected, expected),
        Sampling::RoundRobin => {
            let groups = cohort::groups(plan.clients, expected);
            ((plan.clients / groups) as f64, plan.clients.div_ceil(groups) as f64)
        }
        Sampling::Poisson | Sampling::TruncatedPoisson { .. } => {
            let spread = DEVIATIONS * (expected * (1.0 - plan.sampling_rate())).max(0.0).sqrt();
            (expected - spread, expected + spread)
        }
    };
    let most = match plan.sampling {
        Sampling::TruncatedPoisson { most: cut } => most.min(cut as f64),
        _ => most,
    };
    let most = (most.ceil() as usize).clamp(2, (plan.clients as usize).max(2));
    ((least.floor() as usize).clamp(2, most), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> MpheConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_config_without_numbers_has_some_that_are_safe() {
        let usual = config("{}");
        assert_eq!(usual, MpheConfig::default());
        assert_eq!((usual.holders, usual.needed(), usual.corrupt_holders), (5, 4, 1));
        assert_eq!(usual.corrupt().to_bits(), 0.1f64.to_bits());
        assert!(config(r#"{"trust":"honest-roster"}"#).corrupt() <= 0.0);
        for (holders, corrupt, needed) in [(1, 0, 1), (2, 0, 2), (3, 1, 3), (3, 0, 2), (16, 3, 13), (16, 12, 15)] {
            let config = MpheConfig { holders, corrupt_holders: corrupt, ..usual };
            assert_eq!(config.needed(), needed, "{holders} {corrupt}");
            assert!(Threshold::new(holders, needed, corrupt).is_ok());
        }
        assert_eq!(
            serde_json::to_string(&usual).unwrap(),
            r#"{"trust":"semi-honest-server","holders":5,"corrupt_holders":1}"#
        );
        assert!(serde_json::from_str::<MpheConfig>(r#"{"server":"malicious"}"#).is_err());
    }
}
