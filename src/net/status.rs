//! What people and machines may see of a running federation, as plain data.
//!
//! A [`Status`] is one moment of a server: [`board::Board`] makes it, [`crate::net::http`] shows it to browsers, monitors and
//! scripts, and `veilsum watch` draws it in a terminal.
//!
//! Units: times of day are seconds since the Unix epoch, durations are seconds, sizes are bytes. An epsilon never stands
//! alone: [`Guarantee`] holds it with its neighbouring relation, its delta and its view. An epsilon of `None` is infinite
//! (nothing is guaranteed), since JSON has no infinity.
//!
//! A status names the clients of the present cohort. Whoever reads it therefore has the server's view of the releases, not
//! the public one: the amplification by sampling that the public epsilon counts on needs a cohort that stays unknown.

pub mod board;
pub mod format;
#[cfg(test)]
pub mod sample;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::net::keys::Role;

/// The layout of [`Status`]; it changes when a field changes its meaning or vanishes.
pub const FORMAT: u32 = 1;
/// Most parties that a status lists one by one; all are counted.
pub const PARTIES_SHOWN: usize = 200;
/// Most finished rounds that a status lists; all are counted.
pub const HISTORY_SHOWN: usize = 2_000;
/// Most warnings that are kept.
pub const WARNINGS_KEPT: usize = 100;

/// What a server does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Too few clients are connected to begin.
    #[default]
    WaitingForClients,
    /// The parties make the collective key, or agree on pairwise ones.
    MakingKey,
    /// The cohort computes and sends its updates.
    Collecting,
    /// Survivors or holders open the sum.
    Opening,
    /// The charge is written, the sum is decoded, and the model takes its step.
    Releasing,
    /// The model is measured.
    Evaluating,
    /// The server ends: it finishes what goes on and begins nothing new.
    Draining,
    /// All rounds are done.
    Finished,
    /// One more release would pass the budget.
    StoppedByBudget,
    /// Another server coordinates the run; this one waits to take over.
    StandingBy,
}

impl State {
    /// All of them, in the order in which a round meets them.
    pub const ALL: [Self; 10] = [
        Self::WaitingForClients,
        Self::MakingKey,
        Self::Collecting,
        Self::Opening,
        Self::Releasing,
        Self::Evaluating,
        Self::Draining,
        Self::Finished,
        Self::StoppedByBudget,
        Self::StandingBy,
    ];

    /// The words for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::WaitingForClients => "waiting for clients",
            Self::MakingKey => "making a key",
            Self::Collecting => "collecting updates",
            Self::Opening => "opening the sum",
            Self::Releasing => "releasing",
            Self::Evaluating => "evaluating",
            Self::Draining => "draining",
            Self::Finished => "finished",
            Self::StoppedByBudget => "stopped by the budget",
            Self::StandingBy => "standing by",
        }
    }

    /// The name in JSON and in labels of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitingForClients => "waiting-for-clients",
            Self::MakingKey => "making-key",
            Self::Collecting => "collecting",
            Self::Opening => "opening",
            Self::Releasing => "releasing",
            Self::Evaluating => "evaluating",
            Self::Draining => "draining",
            Self::Finished => "finished",
            Self::StoppedByBudget => "stopped-by-budget",
            Self::StandingBy => "standing-by",
        }
    }

    /// True where no further round will begin.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::StoppedByBudget)
    }
}

/// One moment of a server.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// What runs.
    pub run: Run,
    /// When this was taken, Unix seconds.
    pub taken_at: f64,
    /// When the server began, Unix seconds.
    pub started_at: f64,
    /// What the server does.
    pub state: State,
    /// The same as a sentence, with what it waits for.
    pub sentence: String,
    /// How far the present round is.
    pub progress: Progress,
    /// What has been spent.
    pub privacy: Privacy,
    /// How many parties there are.
    pub party_counts: PartyCounts,
    /// At most [`PARTIES_SHOWN`] parties in the order of their roles; where there are more, those that are missing from the
    /// present round are chosen first, then others of its cohort.
    pub parties: Vec<Party>,
    /// Finished rounds in order, at most [`HISTORY_SHOWN`]: of a longer run the last ones and every n-th before.
    pub history: Vec<Round>,
    /// Measurements of the model in order, thinned in the same way.
    pub evaluations: Vec<Evaluation>,
    /// Sums over all rounds, exact also where the history is thinned.
    pub totals: Totals,
    /// What came over the wire since the server began.
    pub counters: Counters,
    /// The last warnings, oldest first, at most [`WARNINGS_KEPT`].
    pub warnings: Vec<Warning>,
}

impl Status {
    /// The parties as a person reads them: by their roles, or, where they are too many for one look, those that the present
    /// round misses first, then those that it waits for.
    #[must_use]
    pub fn listed(&self) -> Vec<&Party> {
        const ONE_LOOK: usize = 40;
        let mut parties: Vec<&Party> = self.parties.iter().collect();
        if parties.len() > ONE_LOOK {
            let order = |part| match part {
                Part::Missing => 0,
                Part::Asked => 1,
                Part::Delivered => 2,
                Part::Idle => 3,
            };
            parties.sort_by_key(|p| (order(p.part), p.connected && p.part == Part::Asked));
        }
        parties
    }

    /// Seconds until the last planned round is done, at the pace of the last 20; `None` before the first and at the end.
    #[must_use]
    pub fn seconds_to_go(&self) -> Option<f64> {
        const PACE: usize = 20;
        if self.state.is_final() || matches!(self.state, State::Draining | State::StandingBy) {
            return None;
        }
        let last = &self.history[self.history.len().saturating_sub(PACE)..];
        let mean = last.iter().map(|r| r.seconds.total()).sum::<f64>() / last.len() as f64;
        let left = self.run.rounds.saturating_sub(self.totals.rounds);
        (!last.is_empty() && left > 0).then_some(mean * left as f64)
    }
}

/// What runs; it does not change while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Run {
    /// The name of the run.
    pub name: String,
    /// The version of veilsum.
    pub version: String,
    /// The session's identity in hexadecimal.
    pub session: String,
    /// Rounds that are planned.
    pub rounds: u64,
    /// The model's architecture.
    pub model: String,
    /// Trained parameters of the model.
    pub parameters: u64,
}

/// How far the present round is.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The round that goes on or went on last, from 1; 0 before the first.
    pub round: u64,
    /// Its attempt, from 1; 0 before the first.
    pub attempt: u64,
    /// Clients that were asked.
    pub cohort: u64,
    /// Clients of the cohort that have delivered.
    pub delivered: u64,
    /// Clients that have to deliver for the round to be released.
    pub threshold: u64,
    /// Seconds since this phase began.
    pub seconds_in_phase: f64,
    /// Seconds until this phase ends by itself; `None` where it has no deadline.
    pub seconds_left: Option<f64>,
}

/// How the data are protected, and what has been spent.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Privacy {
    /// The mechanism: clipping, encoding and noise.
    pub mechanism: String,
    /// The protocol of secure aggregation.
    pub protocol: String,
    /// What is guaranteed; `None` where the mechanism guarantees nothing.
    pub guarantee: Option<Guarantee>,
}

/// Epsilons with all that gives them a meaning.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Guarantee {
    /// The neighbouring relation, in words.
    pub neighbours: String,
    /// The delta of every epsilon here, in (0, 1).
    pub delta: f64,
    /// The accountant that adds them up.
    pub accountant: String,
    /// Spent so far in the view of those who see the releases only; `None` is infinite.
    pub public: Option<f64>,
    /// Spent so far in the view of whoever knows the cohorts; `None` is infinite.
    pub server: Option<f64>,
    /// The limit; `None` where the run is recorded and not limited.
    pub budget: Option<Budget>,
}

/// The most that may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Epsilon at the guarantee's delta and under its neighbouring relation, above 0.
    pub epsilon: f64,
    /// Whose view it limits.
    pub view: View,
}

/// Who looks at the releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Those who see the releases only.
    Public,
    /// The server, and whoever knows the cohorts.
    Server,
}

impl View {
    /// The name in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Server => "server",
        }
    }
}

/// What a party does in the present round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It is not of the cohort.
    #[default]
    Idle,
    /// It was asked and has not answered yet.
    Asked,
    /// It has delivered.
    Delivered,
    /// It was asked, and the round went on without it.
    Missing,
}

impl Part {
    /// The name in JSON and on the page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Asked => "asked",
            Self::Delivered => "delivered",
            Self::Missing => "missing",
        }
    }
}

/// One enrolled party.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// Who it is.
    pub role: Role,
    /// The name that it was enrolled with; text from outside.
    pub name: String,
    /// Whether it has a connection.
    pub connected: bool,
    /// Seconds since something came from it; `None` if nothing ever did.
    pub seconds_since_heard: Option<f64>,
    /// Its part in the present round.
    pub part: Part,
    /// Rounds in which it delivered.
    pub rounds_delivered: u64,
    /// Attempts that it was asked for and did not deliver in time.
    pub rounds_missed: u64,
    /// Bytes that came from it.
    pub bytes_in: u64,
    /// Bytes that were sent to it.
    pub bytes_out: u64,
}

/// How many parties there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartyCounts {
    /// Clients that are enrolled.
    pub clients: u64,
    /// Clients that are connected.
    pub clients_connected: u64,
    /// Holders of shares of the key.
    pub holders: u64,
    /// Holders that are connected.
    pub holders_connected: u64,
}

impl PartyCounts {
    /// All parties that are enrolled.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.clients.saturating_add(self.holders)
    }
}

/// Seconds by phase.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct PhaseSeconds {
    /// Waiting for clients, and making keys.
    pub wait: f64,
    /// Collecting updates.
    pub collect: f64,
    /// Opening the sum.
    pub open: f64,
    /// Charging, decoding, the model's step.
    pub release: f64,
    /// Measuring the model.
    pub evaluate: f64,
}

impl PhaseSeconds {
    /// Names of the phases, in the order of [`PhaseSeconds::values`].
    pub const NAMES: [&'static str; 5] = ["wait", "collect", "open", "release", "evaluate"];

    /// Seconds in the order of [`PhaseSeconds::NAMES`].
    #[must_use]
    pub const fn values(&self) -> [f64; 5] {
        [self.wait, self.collect, self.open, self.release, self.evaluate]
    }

    /// All phases together.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.values().iter().sum()
    }
}

/// One finished round.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Round {
    /// Its number, from 1.
    pub round: u64,
    /// The attempt that was released, from 1.
    pub attempt: u64,
    /// When it ended, Unix seconds.
    pub finished_at: f64,
    /// Correct answers of the model after it, a share in `[0, 1]`, where it was measured.
    pub accuracy: Option<f64>,
    /// Loss of the model after it, where it was measured.
    pub loss: Option<f64>,
    /// Epsilon of all releases up to it in the public view, under the status's guarantee; `None` is infinite.
    pub epsilon_public: Option<f64>,
    /// The same in the server's view.
    pub epsilon_server: Option<f64>,
    /// Clients that were asked.
    pub cohort: u64,
    /// Clients whose updates are in the sum.
    pub survivors: u64,
    /// Clients that had to deliver.
    pub threshold: u64,
    /// Clients that were connected when it ended.
    pub connected: u64,
    /// Bytes that came in since the round before ended.
    pub bytes_in: u64,
    /// Bytes that went out since the round before ended.
    pub bytes_out: u64,
    /// Where its time went, abandoned attempts included.
    pub seconds: PhaseSeconds,
    /// Attempts that were given up before the one that was released.
    pub abandoned: Vec<Abandoned>,
}

/// An attempt of which nothing was released.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Abandoned {
    /// Its number, from 1.
    pub attempt: u64,
    /// Clients that were asked.
    pub cohort: u64,
    /// Clients that had delivered.
    pub delivered: u64,
    /// Why it was given up.
    pub reason: String,
}

/// One measurement of the model.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// The round after which it was measured.
    pub round: u64,
    /// Correct answers, a share in `[0, 1]`.
    pub accuracy: Option<f64>,
    /// Loss.
    pub loss: Option<f64>,
}

/// Sums over all finished rounds.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Rounds that were released.
    pub rounds: u64,
    /// Attempts that were given up.
    pub abandoned: u64,
    /// Updates that were asked for in the attempts that were released.
    pub asked: u64,
    /// Updates that are in the sums.
    pub survivors: u64,
    /// Bytes that came in, also those of the present round.
    pub bytes_in: u64,
    /// Bytes that went out, also those of the present round.
    pub bytes_out: u64,
    /// Where the time went, up to now.
    pub seconds: PhaseSeconds,
}

/// What came over the wire since the server began.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Messages that were taken.
    pub accepted: u64,
    /// Messages that had come before and changed nothing.
    pub duplicates: u64,
    /// Messages that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Parties that were enrolled.
    pub enrolled: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Warnings that were given, also those that are no longer kept.
    pub warnings: u64,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Warning {
    /// When it was given last, Unix seconds.
    pub at: f64,
    /// How often it was given in a row.
    pub times: u64,
    /// What it says.
    pub text: String,
}

/// A party for people: `client 12`.
#[must_use]
pub fn role_name(role: Role) -> String {
    match role {
        Role::Server => "server".to_owned(),
        Role::Client(number) => format!("client {number}"),
        Role::Holder(number) => format!("holder {number}"),
    }
}
