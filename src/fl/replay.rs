//! Who vanished in rounds that were played elsewhere: a simulation with the same seed plays them again to the same model.

use serde::{Deserialize, Serialize};

/// What became of every attempt, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Round, attempt, what became of it.
    pub attempts: Vec<(u32, u32, Played)>,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Played {
    /// Its sum was released.
    Released {
        /// The clients in it, ascending.
        survivors: Vec<u64>,
    },
    /// It was given up.
    Abandoned,
}

impl Replay {
    /// What became of an attempt; `None` if nothing is known of it.
    #[must_use]
    pub fn of(&self, round: u32, attempt: u32) -> Option<&Played> {
        self.attempts.iter().find(|(r, a, _)| (*r, *a) == (round, attempt)).map(|(.., played)| played)
    }
}
