//! The event queue: who fetches which version when, who has arrived by which round. Virtual time, no data, one stream of randomness.
//!
//! The clock counts integers and every draw comes from one keystream in the order of the events, so that the same key gives the same
//! schedule everywhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::delays::{Course, TICK};
use super::{Asynchrony, ReleaseWhen};
use crate::math::prg::{StreamKey, StreamReader};

/// One update of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose.
    pub client: u64,
    /// The version of the model that it began from: the number of rounds behind it.
    pub version: u32,
    /// True if it stands in for a client that is missing.
    pub copy: bool,
}

/// What a round takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Number of the round, from 1.
    pub round: u32,
    /// When, in the unit of the clock ([`TICK`]).
    pub at: u64,
    /// Its updates, ascending by client; each client once.
    pub members: Vec<Member>,
    /// Updates that arrived since the round before and were too old.
    pub dropped: u32,
}

/// The clients of a run in virtual time.
#[derive(Clone, Debug)]
pub struct Schedule {
    rules: Asynchrony,
    clients: u64,
    course: Course,
    reader: StreamReader,
    /// The present version: rounds so far.
    version: u32,
    now: u64,
    /// Who trains, by the time of arrival; ties go to the lowest client.
    arrivals: BinaryHeap<Reverse<(u64, u64)>>,
    /// The version of whoever trains or has arrived.
    versions: BTreeMap<u64, u32>,
    /// Who has arrived and waits for a round.
    waiting: BTreeSet<u64>,
    idle: BTreeSet<u64>,
    /// The version of the last update of each client that was taken.
    last: BTreeMap<u64, u32>,
}

impl Schedule {
    /// At time 0, with the first clients at work.
    #[must_use]
    pub fn new(rules: Asynchrony, clients: u64, key: &StreamKey) -> Self {
        let mut reader = key.reader(0);
        let course = Course::new(rules.delays.clone(), clients, &mut reader);
        let mut schedule = Self {
            rules,
            clients,
            course,
            reader,
            version: 0,
            now: 0,
            arrivals: BinaryHeap::new(),
            versions: BTreeMap::new(),
            waiting: BTreeSet::new(),
            idle: (0..clients).collect(),
            last: BTreeMap::new(),
        };
        schedule.hand_out();
        schedule
    }

    /// The rules that it follows.
    #[must_use]
    pub const fn rules(&self) -> &Asynchrony {
        &self.rules
    }

    /// Rounds so far.
    #[must_use]
    pub const fn round(&self) -> u32 {
        self.version
    }

    /// The next round.
    pub fn advance(&mut self) -> Release {
        let mut dropped = 0;
        match self.rules.config.release {
            ReleaseWhen::Every { ticks, least } => {
                let period = TICK * u64::from(ticks.max(1));
                let mut deadline = self.now + period;
                loop {
                    dropped += self.arrive_until(deadline);
                    if self.waiting.len() as u64 >= u64::from(least.max(1)) {
                        break;
                    }
                    // Whoever was too late tries again, with the present model.
                    self.now = deadline;
                    self.hand_out();
                    deadline += period;
                }
                self.now = deadline;
            }
            ReleaseWhen::Arrivals(count) => {
                while (self.waiting.len() as u64) < u64::from(count.max(1)) {
                    let Some(&Reverse((at, _))) = self.arrivals.peek() else { break };
                    self.now = at;
                    dropped += self.arrive_one();
                    self.hand_out();
                }
            }
        }
        self.version += 1;
        let members = self.members();
        for client in std::mem::take(&mut self.waiting) {
            if let Some(version) = self.versions.remove(&client) {
                self.last.insert(client, version);
            }
            self.idle.insert(client);
        }
        self.hand_out();
        Release { round: self.version, at: self.now, members, dropped }
    }

    /// The versions that an update of a later round may begin from: of those at work, and of the stand-ins of the next round.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<u32> {
        let mut needed: BTreeSet<u32> = self.versions.values().copied().collect();
        if self.rules.config.agent {
            needed.extend(self.last.values().filter(|&&version| self.rules.counts(self.version + 1, version)));
        }
        needed
    }

    /// Everybody who arrives up to a time; the number of those who are too late.
    fn arrive_until(&mut self, deadline: u64) -> u32 {
        let mut dropped = 0;
        while self.arrivals.peek().is_some_and(|Reverse((at, _))| *at <= deadline) {
            dropped += self.arrive_one();
        }
        dropped
    }

    /// The next arrival: it waits for the round that comes, or is too old for it (1) and free again.
    fn arrive_one(&mut self) -> u32 {
        let Some(Reverse((_, client))) = self.arrivals.pop() else { return 0 };
        let Some(&version) = self.versions.get(&client) else { return 0 };
        if self.rules.counts(self.version + 1, version) {
            self.waiting.insert(client);
            return 0;
        }
        self.versions.remove(&client);
        self.idle.insert(client);
        1
    }

    /// What the round that has begun takes: whoever has arrived, and stand-ins for the others where there is an agent.
    fn members(&self) -> Vec<Member> {
        let fresh = self.waiting.iter().filter_map(|&client| {
            let version = *self.versions.get(&client)?;
            Some(Member { client, version, copy: false })
        });
        let mut members: Vec<Member> = fresh.collect();
        if self.rules.config.agent {
            let missing = self.last.iter().filter(|(client, _)| !self.waiting.contains(client));
            let copies = missing
                .filter(|(_, version)| self.rules.counts(self.version, **version))
                .map(|(&client, &version)| Member { client, version, copy: true });
            members.extend(copies);
            members.sort_unstable_by_key(|member| member.client);
        }
        members
    }

    /// Gives the present model to idle clients while there is room: to all in their order if all may work, else to whom a draw gives.
    fn hand_out(&mut self) {
        let working = self.rules.working;
        while !self.idle.is_empty() && (self.arrivals.len() as u64) < working {
            let place = if working >= self.clients { 0 } else { self.reader.below(self.idle.len() as u64) as usize };
            let Some(client) = self.idle.iter().nth(place).copied() else { return };
            self.idle.remove(&client);
            let duration = self.course.duration(client, self.now, &mut self.reader);
            self.arrivals.push(Reverse((self.now + duration, client)));
            self.versions.insert(client, self.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AsynchronyConfig;
    use super::*;
    use crate::math::prg::Cipher;

    fn schedule(json: &str, clients: u64, working: u64, trace: Vec<Vec<f64>>) -> Schedule {
        let config: AsynchronyConfig = serde_json::from_str(json).unwrap();
        let rules = config.build(clients, working, trace).unwrap();
        Schedule::new(rules, clients, &StreamKey::from_bytes([7; 32], Cipher::ChaCha20))
    }

    fn fresh(release: &Release) -> Vec<(u64, u32)> {
        release.members.iter().filter(|m| !m.copy).map(|m| (m.client, m.version)).collect()
    }

    fn copies(release: &Release) -> Vec<(u64, u32)> {
        release.members.iter().filter(|m| m.copy).map(|m| (m.client, m.version)).collect()
    }

    #[test]
    fn without_delays_every_round_is_a_synchronous_one() {
        let mut schedule = schedule("{}", 4, 4, Vec::new());
        for round in 1..=5 {
            let release = schedule.advance();
            assert_eq!((release.round, release.at, release.dropped), (round, u64::from(round) * TICK, 0));
            assert_eq!(fresh(&release), (0..4).map(|c| (c, round - 1)).collect::<Vec<_>>());
            assert_eq!(schedule.needed(), BTreeSet::from([round]));
        }
    }

    /// By hand: client 0 takes one tick, client 1 three.
    const TRACE: &str = r#""delays": {"trace": {"file": "t"}}"#;

    #[test]
    fn a_slow_client_arrives_later_with_the_version_that_it_began_from() {
        let mut schedule = schedule(&format!("{{{TRACE}}}"), 2, 2, vec![vec![1.0], vec![3.0]]);
        let rounds: Vec<_> = (0..7).map(|_| fresh(&schedule.advance())).collect();
        assert_eq!(
            rounds,
            [
                vec![(0, 0)],
                vec![(0, 1)],
                vec![(0, 2), (1, 0)],
                vec![(0, 3)],
                vec![(0, 4)],
                vec![(0, 5), (1, 3)],
                vec![(0, 6)],
            ]
        );
        assert_eq!(schedule.needed(), BTreeSet::from([6, 7]));
    }

    #[test]
    fn what_is_too_late_is_dropped_and_begins_again_with_the_round() {
        let json = format!(r#"{{"until": 0, {TRACE}}}"#);
        // Client 1 is late once, then in time.
        let mut schedule = schedule(&json, 2, 2, vec![vec![1.0], vec![2.0, 1.0, 1.0, 1.0, 1.0, 1.0]]);
        let releases: Vec<_> = (0..4).map(|_| schedule.advance()).collect();
        let rounds: Vec<_> = releases.iter().map(fresh).collect();
        assert_eq!(rounds, [vec![(0, 0)], vec![(0, 1)], vec![(0, 2), (1, 2)], vec![(0, 3), (1, 3)]]);
        assert_eq!(releases.iter().map(|r| r.dropped).collect::<Vec<_>>(), [0, 1, 0, 0]);
    }

    #[test]
    fn the_last_update_stands_in_until_it_is_too_old() {
        let json = format!(r#"{{"agent": true, "until": 2, {TRACE}}}"#);
        let mut schedule = schedule(&json, 2, 2, vec![vec![1.0], vec![1.0, 5.0]]);
        let releases: Vec<_> = (0..7).map(|_| schedule.advance()).collect();
        assert_eq!(fresh(&releases[0]), [(0, 0), (1, 0)]);
        // Version 0 has staleness 1, 2, 3 in rounds 2, 3, 4.
        let stand_ins: Vec<_> = releases.iter().map(copies).collect();
        assert_eq!(stand_ins[1..4], [vec![(1, 0)], vec![(1, 0)], vec![]]);
        // The update of five ticks has staleness 4 in round 6: too old.
        assert_eq!((releases[5].dropped, fresh(&releases[5])), (1, vec![(0, 5)]));
        assert_eq!(fresh(&releases[6]), [(0, 6), (1, 6)]);
    }

    #[test]
    fn arrivals_fill_a_buffer_and_make_room() {
        let json = format!(r#"{{"release": {{"arrivals": 2}}, {TRACE}}}"#);
        let trace = vec![vec![1.0], vec![1.5], vec![10.0], vec![4.0]];
        let mut schedule = schedule(&json, 4, 4, trace);
        let releases: Vec<_> = (0..4).map(|_| schedule.advance()).collect();
        let rounds: Vec<_> = releases.iter().map(fresh).collect();
        // 0 at 1, 1 at 1.5; again 2.5 and 3; then 4 and 4 (0 from version 2, 3 from version 0); 1 at 4.5 and 0 at 5.
        assert_eq!(rounds, [vec![(0, 0), (1, 0)], vec![(0, 1), (1, 1)], vec![(0, 2), (3, 0)], vec![(0, 3), (1, 2)]]);
        assert_eq!(releases.iter().map(|r| r.at * 2 / TICK).collect::<Vec<_>>(), [3, 6, 8, 10]);
    }

    #[test]
    fn fewer_at_work_than_there_are_clients() {
        let delays = r#""delays": {"exponential": {"mean": 1.0, "spread": 0.7}}"#;
        let mut schedule = schedule(&format!(r#"{{"release": {{"arrivals": 3}}, {delays}}}"#), 20, 8, Vec::new());
        let mut seen = BTreeSet::new();
        for round in 1..=200 {
            let release = schedule.advance();
            assert_eq!(release.members.len(), 3);
            assert!(release.members.windows(2).all(|m| m[0].client < m[1].client));
            assert!(release.members.iter().all(|m| m.version < round));
            seen.extend(release.members.iter().map(|m| m.client));
            assert_eq!(schedule.arrivals.len(), 8);
        }
        assert_eq!(seen.len(), 20);
    }

    /// A round that hides single vectors waits until there are enough.
    #[test]
    fn a_round_of_too_few_waits() {
        let json = r#"{"release": {"every": {"least": 6}}, "delays": {"offline": {"probability": 0.6}}}"#;
        let mut schedule = schedule(json, 10, 10, Vec::new());
        let releases: Vec<_> = (0..100).map(|_| schedule.advance()).collect();
        assert!(releases.iter().all(|r| r.members.len() >= 6));
        assert!(releases.last().unwrap().at > 110 * TICK && releases.iter().any(|r| fresh(r).len() > 6));
    }

    #[test]
    fn the_same_key_gives_the_same_schedule() {
        let json = r#"{"delays": {"share": {"rho": 0.6, "most": 4}}, "agent": true, "until": 6}"#;
        let run = || {
            let mut schedule = schedule(json, 20, 20, Vec::new());
            (0..300).map(|_| schedule.advance()).collect::<Vec<_>>()
        };
        let releases = run();
        assert_eq!(releases, run());
        // What is needed later is kept.
        let mut schedule = schedule(json, 20, 20, Vec::new());
        let mut kept = schedule.needed();
        for release in releases {
            assert!(release.members.iter().all(|m| kept.contains(&m.version)), "{release:?} {kept:?}");
            schedule.advance();
            let needed = schedule.needed();
            assert!(needed.iter().all(|version| kept.contains(version) || *version == release.round));
            kept = needed;
        }
    }
}
