//! Rounds that do not wait: clients work at their own pace, and a round takes what has arrived.
//!
//! ```text
//! a client fetches version v of the model (the one after v rounds), trains, and arrives
//! round t takes the arrivals, each of staleness s = t - 1 - v, with weight sigma(s)
//! ```
//! [`schedule`] is the event queue over a virtual clock, [`delays`] says how long clients take, [`staleness`] how much an old
//! update counts. All three are drawn from one key and know nothing of anybody's data: who takes part in a round, and with which
//! weight, is public. A run that is resumed makes its schedule again.
//!
//! **Weights** are integers, [`Start::weight`] of [`SCALE`]. Without privacy the client multiplies its integers by it, inside the
//! exact sum. In a narrow ring it scales its vector, after the clip: nobody's vector is longer than the clip bound, so that the
//! sensitivity is that of a round of fresh updates. Servers never weigh ciphertexts: a malicious one could single out a client.
//!
//! **Privacy**: every round is charged in full, as if all clients took part in it. No amplification is claimed: the server sees
//! who arrives.
//!
//! **The update agent** (`agent`) lets the last update of a client that is missing stand in for it, as long as it is not older than
//! `until`. A stand-in is an upload of its own: encoded for that round, under its keys, with its rounding and noise, and charged with
//! the round. In a federation the client leaves so many copies behind when it goes, one for each of the next rounds; one message is
//! opened in one sum only, or the sums of two rounds would give it away. Pairwise masks need the client itself: refused.
//!
//! | rule | config |
//! |---|---|
//! | rounds that drop late updates | `{"release": {"every": {}}, "until": 0}` |
//! | FedAsync (Xie, Koyejo, Gupta 2019): `w <- w + alpha sigma(s) (w_client - w)` | `{"release": {"arrivals": 1}, "update": {"mix": {"alpha": 0.6}}}` |
//! | FedBuff (Nguyen et al. 2022): `w <- w + eta / K sum sigma(s) delta` | `{"release": {"arrivals": 10}, "update": "buffered"}` |
//! | the update agent | `{"agent": true, "until": 6}` |

pub mod delays;
pub mod schedule;
pub mod staleness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::delays::{Delays, DelaysConfig};
use self::staleness::Staleness;
use super::FlError;

/// The weight of a fresh update: [`Start::weight`] is a share of it.
pub const SCALE: u64 = 1024;

/// How rounds go on without waiting for everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsynchronyConfig {
    /// When a round takes what has arrived.
    #[serde(default)]
    pub release: ReleaseWhen,
    /// How long clients take; absent: nobody is late.
    #[serde(default)]
    pub delays: DelaysConfig,
    /// How much a stale update counts.
    #[serde(default)]
    pub staleness: Staleness,
    /// theta: the greatest staleness that counts at all; older updates are dropped. 0 drops whatever is late. Absent: none is too
    /// old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u32>,
    /// Whether a client's last update stands in for it while it is missing; needs `until` and `release` `every`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
    /// What the updates of a round come to.
    #[serde(default)]
    pub update: Update,
}

/// When a round takes what has arrived. Time is counted in ticks: what a client takes that is not delayed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum ReleaseWhen {
    /// Periodically. Clients fetch the model right after a round.
    Every {
        /// Ticks from round to round, >= 1.
        #[serde(default = "one")]
        ticks: u32,
        /// A round of fewer arrivals waits for the next period; >= 1. What hides single vectors needs some.
        #[serde(default = "one")]
        least: u32,
    },
    /// When so many clients have arrived. Whoever arrives makes room for another, who fetches the model at once; who has arrived waits
    /// for the round.
    Arrivals(u32),
}

impl Default for ReleaseWhen {
    fn default() -> Self {
        Self::Every { ticks: 1, least: 1 }
    }
}

impl ReleaseWhen {
    /// The least number of clients of a round.
    #[must_use]
    pub const fn least(self) -> u32 {
        match self {
            Self::Every { least, .. } => least,
            Self::Arrivals(count) => count,
        }
    }
}

const fn one() -> u32 {
    1
}

/// What the updates of a round come to. `n` are the clients' weights: 1, or their samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Update {
    /// `sum n sigma delta / sum n sigma`: identical deltas give that delta.
    #[default]
    Mean,
    /// `sum n sigma delta / sum n`: stale updates make a shorter step (FedBuff).
    Buffered,
    /// `alpha sum n sigma (w_v + delta - w) / sum n`: the server's model moves towards the clients' (FedAsync).
    Mix {
        /// Mixing weight of a fresh model, in (0, 1].
        alpha: f64,
    },
}

/// A validated configuration, with its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Asynchrony {
    /// As the config says.
    pub config: AsynchronyConfig,
    /// How long clients take.
    pub delays: Delays,
    /// Clients that work at a time.
    pub working: u64,
}

impl AsynchronyConfig {
    /// Checks the ranges. `working` of `clients` work at a time; `trace` are the durations of a recorded trace, one list a client.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn build(&self, clients: u64, working: u64, trace: Vec<Vec<f64>>) -> Result<Asynchrony, FlError> {
        let bad = |name, expected: String, found: String| Err(FlError::OutOfRange { name, expected, found });
        match self.release {
            ReleaseWhen::Every { ticks: 0, .. } => {
                return bad("asynchrony.release.every.ticks", "at least 1".into(), "0".into());
            }
            ReleaseWhen::Every { least, .. } if least == 0 || u64::from(least) > working => {
                let expected = format!("1 to the clients at work, {working}");
                return bad("asynchrony.release.every.least", expected, least.to_string());
            }
            ReleaseWhen::Arrivals(count) if count == 0 || u64::from(count) > working => {
                let expected = format!("1 to the clients at work, {working}");
                return bad("asynchrony.release.arrivals", expected, count.to_string());
            }
            _ => {}
        }
        self.staleness.validate()?;
        if let Update::Mix { alpha } = self.update
            && !(alpha > 0.0 && alpha <= 1.0)
        {
            return bad("asynchrony.update.mix.alpha", "in (0, 1]".into(), alpha.to_string());
        }
        if self.agent && (self.until.is_none() || matches!(self.release, ReleaseWhen::Arrivals(_))) {
            let expected = "false, or beside `until` and `release` `every`: a last update stands in for a limited time, for \
                            clients that miss a round";
            return bad("asynchrony.agent", expected.into(), "true".into());
        }
        if self.agent && self.update != Update::Mean {
            return bad("asynchrony.update", "`mean` beside `agent`".into(), format!("{:?}", self.update));
        }
        let delays = self.delays.build(clients, trace)?;
        Ok(Asynchrony { config: self.clone(), delays, working })
    }

    /// The same with a trace whose path starts from `base`.
    #[must_use]
    pub fn rebased(&self, base: &Path) -> Self {
        match self.trace() {
            Some(file) => Self { delays: DelaysConfig::Trace { file: base.join(file) }, ..self.clone() },
            None => self.clone(),
        }
    }

    /// The file of a recorded trace.
    #[must_use]
    pub const fn trace(&self) -> Option<&PathBuf> {
        match &self.delays {
            DelaysConfig::Trace { file } => Some(file),
            _ => None,
        }
    }
}

/// s: how many rounds lie between the model that an update began from and the one that it meets.
#[must_use]
pub const fn staleness_of(round: u32, version: u32) -> u32 {
    round.saturating_sub(version.saturating_add(1))
}

impl Asynchrony {
    /// Whether an update of a version is not too old for a round.
    #[must_use]
    pub fn counts(&self, round: u32, version: u32) -> bool {
        self.config.until.is_none_or(|until| staleness_of(round, version) <= until)
    }

    /// What an update of a version counts in a round of `rounds`, of [`SCALE`].
    #[must_use]
    pub fn weight(&self, round: u32, version: u32, rounds: u32) -> u64 {
        let share = self.config.staleness.weight(staleness_of(round, version), round, rounds);
        ((share * SCALE as f64).round() as u64).clamp(1, SCALE)
    }
}

/// Where a client of a round began.
#[derive(Clone, Debug)]
pub struct Start {
    /// The version of the model that it fetched: the number of rounds behind it.
    pub version: u32,
    /// That model.
    pub weights: Arc<Vec<f32>>,
    /// What its update counts, 1 to [`SCALE`].
    pub weight: u64,
    /// True if its last update stands in for it.
    pub copy: bool,
}

/// Where the clients of a round began.
pub type Starts = BTreeMap<u64, Start>;

/// What came together in a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrived {
    /// Virtual time of the round, in ticks.
    pub time: f64,
    /// Mean staleness of its updates.
    pub staleness: f64,
    /// Stand-ins among them.
    pub copies: u32,
    /// Updates since the round before that were too old.
    pub dropped: u32,
}
