//! Who is in an adversary's hands, and from when on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attack, AttackConfig, AttackError};
use crate::fl::cohort::subset;
use crate::math::prg::StreamKey;

/// An adversary, as a config names it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdversaryConfig {
    /// Byzantine clients: of all clients, the same in every round; with `redraw` of every cohort.
    pub clients: u64,
    /// What they send.
    pub attack: AttackConfig,
    /// The first round in which they do; before it they are honest.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub from: u32,
    /// Others in every round.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redraw: bool,
}

const fn first() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_first(round: &u32) -> bool {
    *round == 1
}

/// An adversary.
#[derive(Clone)]
pub struct Adversary {
    config: AdversaryConfig,
    attack: Arc<dyn Attack>,
}

impl fmt::Debug for Adversary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Adversary({:?})", self.config)
    }
}

impl AdversaryConfig {
    /// The adversary of `clients` clients. Errors: a parameter of the attack outside its range, no client that is honest, or
    /// none that is not.
    pub fn build(&self, clients: u64) -> Result<Adversary, AttackError> {
        let attack: Arc<dyn Attack> = self.attack.build()?.into();
        let wrong = |name, expected: String, found: f64| {
            Err(AttackError::OutOfRange { attack: attack.name(), name, expected, found })
        };
        if self.clients == 0 || self.clients >= clients {
            let expected = format!("1 to {}, so that somebody is honest", clients.saturating_sub(1));
            return wrong("adversary.clients", expected, self.clients as f64);
        }
        if self.from == 0 {
            return wrong("adversary.from", "at least 1".into(), 0.0);
        }
        Ok(Adversary { config: *self, attack: Arc::clone(&attack) })
    }
}

impl Adversary {
    /// What its clients send.
    #[must_use]
    pub fn attack(&self) -> &dyn Attack {
        &*self.attack
    }

    /// As it was asked for.
    #[must_use]
    pub const fn config(&self) -> &AdversaryConfig {
        &self.config
    }

    /// The clients of a round's cohort that are in its hands, ascending. `key` is of the run, or with `redraw` of the round
    /// ([`AdversaryConfig::redraw`]); of `clients` clients.
    #[must_use]
    pub fn corrupted(&self, cohort: &[u64], clients: u64, round: u32, key: &StreamKey) -> Vec<u64> {
        if round < self.config.from {
            return Vec::new();
        }
        if self.config.redraw {
            let (size, count) = (cohort.len() as u64, self.config.clients.min(cohort.len() as u64));
            return subset(size, count, &mut key.reader(0)).into_iter().map(|place| cohort[place as usize]).collect();
        }
        let all: BTreeSet<u64> = subset(clients, self.config.clients, &mut key.reader(0));
        cohort.iter().copied().filter(|client| all.contains(client)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    fn adversary(text: &str) -> Result<Adversary, AttackError> {
        serde_json::from_str::<AdversaryConfig>(text).unwrap().build(20)
    }

    #[test]
    fn the_same_clients_in_every_round_or_others() {
        let key = |n: u8| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
        let cohort: Vec<u64> = (0..20).step_by(2).collect();
        let all: Vec<u64> = (0..20).collect();
        let fixed = adversary(r#"{"clients": 6, "attack": {"sign-flip": {}}, "from": 3}"#).unwrap();
        assert!(fixed.corrupted(&all, 20, 2, &key(1)).is_empty());
        let chosen = fixed.corrupted(&all, 20, 3, &key(1));
        assert_eq!(chosen.len(), 6);
        let here = fixed.corrupted(&cohort, 20, 9, &key(1));
        assert_eq!(here, chosen.iter().copied().filter(|c| c % 2 == 0).collect::<Vec<_>>());
        let drawn = adversary(r#"{"clients": 6, "attack": {"sign-flip": {}}, "redraw": true}"#).unwrap();
        let (one, two) = (drawn.corrupted(&cohort, 20, 1, &key(1)), drawn.corrupted(&cohort, 20, 2, &key(2)));
        assert!(one.len() == 6 && two.len() == 6 && one != two && one.is_sorted());
        assert!(one.iter().all(|c| cohort.contains(c)));
    }

    #[test]
    fn nobody_and_everybody_are_refused() {
        for (text, says) in [
            (r#"{"clients": 0, "attack": {"sign-flip": {}}}"#, "adversary.clients is 0"),
            (r#"{"clients": 20, "attack": {"sign-flip": {}}}"#, "1 to 19"),
            (r#"{"clients": 2, "attack": {"sign-flip": {}}, "from": 0}"#, "adversary.from"),
            (r#"{"clients": 2, "attack": {"sign-flip": {"strength": -1}}}"#, "strength"),
        ] {
            let error = adversary(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
