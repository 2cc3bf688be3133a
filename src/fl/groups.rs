//! Groups of a cohort whose sums are opened one by one: what a robust rule works on where single vectors are hidden.
//!
//! Every group is an aggregation of its own: its own session, its own noise of full strength. A client is in one group a round,
//! so that what it loses is the cost of one sum: by parallel composition where the cohort is public, and under Poisson sampling
//! given the groups, which are dealt by public randomness to **all** clients before it is known who takes part. Two sets of data
//! that differ in one client then differ in the sum of one group, in which it takes part with the rate of the round.

use sha2::{Digest, Sha256};

use super::cohort::Sampling;
use crate::math::prg::StreamKey;

/// How a cohort is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// One sum of all.
    #[default]
    Whole,
    /// So many groups, at least 1.
    Split(u32),
    /// Every client a group of its own: its vector is seen.
    Single,
}

/// Most groups of a round: their numbers are part of the addresses of noise.
pub const MOST: usize = 1 << 16;

impl Grouping {
    /// The division into groups of about `size` of `cohort` clients: as many as there is room for.
    #[must_use]
    pub fn of_size(size: u32, cohort: f64) -> Self {
        match size {
            0 | 1 => Self::Single,
            // A quotient a little below an integer is that integer.
            _ => Self::Split(((cohort / f64::from(size) * (1.0 + 1e-12)) as u32).max(1)),
        }
    }

    /// Expected number of clients of a group.
    #[must_use]
    pub fn expected_size(self, cohort: f64) -> f64 {
        match self {
            Self::Whole => cohort,
            Self::Split(count) => cohort / f64::from(count.max(1)),
            Self::Single => 1.0,
        }
    }

    /// The least number of clients that a group of a cohort of exactly so many has.
    #[must_use]
    pub const fn least_size(self, cohort: u64) -> u64 {
        match self {
            Self::Whole => cohort,
            Self::Split(0) => cohort,
            Self::Split(count) => cohort / count as u64,
            Self::Single => 1,
        }
    }

    /// The groups of a cohort, each in ascending order. Where the cohort is public they differ in size by one at most; else
    /// each client's group is drawn on its own, whoever else takes part. `key` is public and one of the attempt.
    #[must_use]
    pub fn deal(self, cohort: &[u64], sampling: Sampling, key: &StreamKey) -> Vec<Vec<u64>> {
        let count = match self {
            Self::Whole => return vec![cohort.to_vec()],
            Self::Single if cohort.is_empty() => return vec![Vec::new()],
            Self::Single => return cohort.iter().map(|&client| vec![client]).collect(),
            Self::Split(count) => count.max(1) as usize,
        };
        let mut groups = vec![Vec::new(); count];
        match sampling {
            Sampling::Poisson | Sampling::TruncatedPoisson { .. } => {
                for &client in cohort {
                    let word = key.reader(8 * client).next_u64();
                    groups[((u128::from(word) * count as u128) >> 64) as usize].push(client);
                }
            }
            Sampling::All | Sampling::RoundRobin | Sampling::Fixed => {
                let mut order = cohort.to_vec();
                key.reader(0).shuffle(&mut order);
                order.into_iter().enumerate().for_each(|(place, client)| groups[place % count].push(client));
                groups.iter_mut().for_each(|group| group.sort_unstable());
            }
        }
        groups
    }

    /// The session of a group: that of the run where there is one sum, else one of its own, whose frames and keys are no other
    /// group's.
    #[must_use]
    pub fn session(self, run: &[u8; 16], group: u32) -> [u8; 16] {
        if self == Self::Whole {
            return *run;
        }
        let mut h = Sha256::new();
        h.update(b"veilsum group v1");
        h.update(run);
        h.update(group.to_le_bytes());
        let digest: [u8; 32] = h.finalize().into();
        let mut session = [0; 16];
        session.copy_from_slice(&digest[..16]);
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    fn key(n: u8) -> StreamKey {
        StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
    }

    #[test]
    fn groups_are_a_partition_and_public_ones_are_even() {
        let cohort: Vec<u64> = (0..103).map(|i| 3 * i).collect();
        for (grouping, sampling) in [
            (Grouping::Whole, Sampling::All),
            (Grouping::Split(7), Sampling::All),
            (Grouping::Split(7), Sampling::Poisson),
            (Grouping::Single, Sampling::Fixed),
        ] {
            let groups = grouping.deal(&cohort, sampling, &key(1));
            let mut all: Vec<u64> = groups.concat();
            all.sort_unstable();
            assert_eq!(all, cohort, "{grouping:?}");
            assert!(groups.iter().all(|group| group.is_sorted()));
            if sampling == Sampling::All {
                let least = grouping.least_size(103) as usize;
                assert!(groups.iter().all(|g| (least..=least + 1).contains(&g.len())), "{groups:?}");
            }
        }
        assert_ne!(
            Grouping::Split(7).deal(&cohort, Sampling::All, &key(1)),
            Grouping::Split(7).deal(&cohort, Sampling::All, &key(2))
        );
    }

    #[test]
    fn where_a_sample_is_secret_no_group_tells_who_else_takes_part() {
        let all: Vec<u64> = (0..2000).collect();
        let half: Vec<u64> = (0..2000).filter(|i| i % 2 == 0).collect();
        let deal = |cohort: &[u64]| Grouping::Split(5).deal(cohort, Sampling::Poisson, &key(3));
        for (whole, part) in deal(&all).into_iter().zip(deal(&half)) {
            assert_eq!(whole.iter().copied().filter(|i| i % 2 == 0).collect::<Vec<_>>(), part);
            assert!((300..500).contains(&whole.len()), "{}", whole.len());
        }
    }

    #[test]
    fn sizes_and_sessions() {
        assert_eq!(Grouping::of_size(20, 240.0), Grouping::Split(12));
        assert_eq!(Grouping::of_size(7, 20.0), Grouping::Split(2));
        assert_eq!(Grouping::of_size(50, 20.0), Grouping::Split(1));
        assert_eq!(Grouping::of_size(1, 20.0), Grouping::Single);
        assert_eq!(Grouping::of_size(3, 3.0 * (0.1 + 0.2) * 10.0), Grouping::Split(3));
        assert_eq!(Grouping::Split(12).expected_size(240.0), 20.0);
        let run = [7; 16];
        assert_eq!(Grouping::Whole.session(&run, 0), run);
        let sessions: std::collections::BTreeSet<_> = (0..50).map(|g| Grouping::Split(50).session(&run, g)).collect();
        assert!(sessions.len() == 50 && !sessions.contains(&run));
    }
}
