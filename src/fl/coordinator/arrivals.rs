//! Rounds that do not wait: who is in the round, from which version of the model, and which versions are kept for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Coordinator, GroupSum};
use crate::fl::FlError;
use crate::fl::asynchrony::delays::TICK;
use crate::fl::asynchrony::schedule::{Release, Schedule};
use crate::fl::asynchrony::{Arrived, Asynchrony, SCALE, Start, Starts, Update, staleness_of};
use crate::math::prg::StreamKey;

/// The clients of a run that arrive when they like.
pub(super) struct Arrivals {
    /// Before the first round, to begin again from.
    first: Schedule,
    schedule: Schedule,
    /// The round in progress, or the last one.
    release: Option<Release>,
    /// Models that an update may begin from, by version.
    versions: BTreeMap<u32, Version>,
}

/// A model, and its SHA-256: it is part of the input of every round that somebody brings an update of it to.
struct Version {
    model: Arc<Vec<f32>>,
    digest: [u8; 32],
}

impl Version {
    fn new(model: Arc<Vec<f32>>) -> Self {
        let digest = Sha256::digest(bytemuck::cast_slice::<f32, u8>(&model)).into();
        Self { model, digest }
    }
}

impl Arrivals {
    pub(super) fn new(rules: Asynchrony, clients: u64, key: &StreamKey, weights: &Arc<Vec<f32>>) -> Self {
        let first = Schedule::new(rules, clients, key);
        let versions = BTreeMap::from([(0, Version::new(Arc::clone(weights)))]);
        Self { schedule: first.clone(), first, release: None, versions }
    }

    /// Goes on after `round`, whose model is `weights`, with older models.
    pub(super) fn restore(
        &mut self,
        round: u32,
        older: Vec<(u32, Vec<f32>)>,
        weights: &Arc<Vec<f32>>,
    ) -> Result<(), FlError> {
        self.schedule = self.first.clone();
        self.release = (0..round).map(|_| self.schedule.advance()).last();
        self.versions = older.into_iter().map(|(version, model)| (version, Version::new(Arc::new(model)))).collect();
        self.versions.insert(round, Version::new(Arc::clone(weights)));
        for version in self.schedule.needed() {
            let found = match self.versions.get(&version) {
                Some(version) if version.model.len() == weights.len() => continue,
                Some(version) => format!("one of {} parameters", version.model.len()),
                None => "absent".to_owned(),
            };
            let expected = format!("the model of version {version}, which a client began from");
            return Err(FlError::Checkpoint { what: "version", expected, found });
        }
        Ok(())
    }

    /// Makes a round the one in progress; another attempt of it changes nothing.
    pub(super) fn advance(&mut self, round: u32) {
        while self.schedule.round() < round {
            self.release = Some(self.schedule.advance());
        }
    }

    /// Who is in the round, ascending.
    pub(super) fn cohort(&self) -> Vec<u64> {
        self.release.iter().flat_map(|release| release.members.iter().map(|member| member.client)).collect()
    }

    /// Where the clients of the round began.
    pub(super) fn starts(&self, round: u32, rounds: u32) -> Starts {
        let members = self.release.iter().flat_map(|release| &release.members);
        let starts = members.filter_map(|member| {
            let start = Start {
                version: member.version,
                weights: Arc::clone(&self.versions.get(&member.version)?.model),
                weight: self.schedule.rules().weight(round, member.version, rounds),
                copy: member.copy,
            };
            Some((member.client, start))
        });
        starts.collect()
    }

    /// The members of the round and the models that they began from are part of its input.
    pub(super) fn hash(&self, h: &mut Sha256) {
        let mut last = None;
        let mut members: Vec<_> = self.release.iter().flat_map(|release| &release.members).collect();
        members.sort_unstable_by_key(|member| (member.version, member.client));
        for member in members {
            if last != Some(member.version) {
                last = Some(member.version);
                h.update(member.version.to_le_bytes());
                if let Some(version) = self.versions.get(&member.version) {
                    h.update(version.digest);
                }
            }
            h.update(member.client.to_le_bytes());
            h.update([u8::from(member.copy)]);
        }
    }

    /// Keeps the model of a finished round, and of those before it what somebody still works with.
    pub(super) fn keep(&mut self, round: u32, weights: &Arc<Vec<f32>>) {
        self.versions.insert(round, Version::new(Arc::clone(weights)));
        let needed = self.schedule.needed();
        self.versions.retain(|version, _| *version == round || needed.contains(version));
    }

    /// The models of rounds before `round` that somebody works with.
    pub(super) fn older(&self, round: u32) -> Vec<(u32, Vec<f32>)> {
        let older = self.versions.range(..round);
        older.map(|(&number, version)| (number, version.model.as_ref().clone())).collect()
    }

    /// What came together in the round.
    pub(super) fn report(&self) -> Option<Arrived> {
        let Release { round, at, members, dropped } = self.release.as_ref()?;
        let sum: f64 = members.iter().map(|member| f64::from(staleness_of(*round, member.version))).sum();
        Some(Arrived {
            time: *at as f64 / TICK as f64,
            staleness: sum / members.len().max(1) as f64,
            copies: members.iter().filter(|member| member.copy).count() as u32,
            dropped: *dropped,
        })
    }
}

impl Coordinator {
    /// FedAsync: from the mean of the deltas to that of the clients' models, less the present one, times alpha. The models that they
    /// began from are the server's own.
    pub(super) fn mix(&self, mean: &mut [f32], sums: &[GroupSum]) {
        let Some(Update::Mix { alpha }) = self.plan.asynchrony.as_ref().map(|rules| rules.config.update) else {
            return;
        };
        // How often each version counts, of the whole.
        let (mut counts, mut whole) = (BTreeMap::<u32, (f64, &Arc<Vec<f32>>)>::new(), 0.0);
        for sum in sums {
            for &client in &sum.survivors {
                let Some(start) = sum.task.start(client) else { continue };
                whole += self.plan.count(client, SCALE) as f64;
                counts.entry(start.version).or_insert((0.0, &start.weights)).0 +=
                    self.plan.count(client, start.weight) as f64;
            }
        }
        let shares: Vec<(f64, &Arc<Vec<f32>>)> = counts.into_values().map(|(n, w)| (n / whole.max(1.0), w)).collect();
        for (i, x) in mean.iter_mut().enumerate() {
            let now = f64::from(self.weights[i]);
            let away: f64 = shares.iter().map(|(share, began)| share * (f64::from(began[i]) - now)).sum();
            *x = (alpha * (f64::from(*x) + away)) as f32;
        }
    }
}
