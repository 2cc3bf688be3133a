//! Who takes part in a round. The law of the draw is the law that is accounted.

use std::collections::BTreeSet;

use crate::math::prg::{StreamKey, StreamReader};
use crate::privacy::matrix::Participation;

/// How cohorts are drawn.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each client independently with probability `cohort / clients`: what the amplification theorem
    /// is about. The size of the cohort varies from round to round.
    Poisson,
    /// The same, of which `most` clients are drawn where there would be more: a round never takes more memory or a wider
    /// ring than for so many. Accounted as Poisson, the probability of a cut charged to delta (see
    /// [`crate::privacy::truncation`]).
    TruncatedPoisson {
        /// Largest size of a cohort.
        most: u64,
    },
    /// Everybody, every round: no amplification is claimed.
    All,
    /// The clients are dealt once to `clients / cohort` groups (rounded up), which take turns: any two rounds of a client
    /// are that many rounds apart. Public and the same for all data; no amplification is claimed. What correlated noise
    /// needs.
    RoundRobin,
    /// Exactly `cohort` clients without replacement. Refused under differential privacy: its
    /// amplification is not that of a Poisson sample.
    Fixed,
}

impl Sampling {
    /// Probability that a client takes part in a round, which is what amplifies its privacy: 1 where the rounds of a client
    /// are public. `expected` clients of `clients` take part.
    #[must_use]
    pub fn rate(self, clients: u64, expected: f64) -> f64 {
        match self {
            Self::All | Self::RoundRobin => 1.0,
            Self::Poisson | Self::TruncatedPoisson { .. } | Self::Fixed => expected / clients as f64,
        }
    }
}

/// Draws the cohort of a round (from 1) in ascending order. `key` is one of the attempt, but for groups that take turns: they
/// are dealt by one key for all rounds.
///
/// Of too many of a Poisson sample, those remain whose places a draw of a subset gives.
#[must_use]
pub fn draw(sampling: Sampling, clients: u64, expected: f64, round: u32, key: &StreamKey) -> Vec<u64> {
    match sampling {
        Sampling::All => (0..clients).collect(),
        Sampling::RoundRobin => turn(clients, expected, round, key),
        Sampling::Poisson => poisson(clients, expected / clients as f64, key),
        Sampling::TruncatedPoisson { most } => {
            let all = draw(Sampling::Poisson, clients, expected, round, key);
            if all.len() as u64 <= most {
                return all;
            }
            // Words of the stream behind those that chose the clients.
            let places = subset(all.len() as u64, most, &mut key.reader(8 * clients));
            places.into_iter().map(|i| all[i as usize]).collect()
        }
        Sampling::Fixed => {
            let size = (expected as u64).min(clients);
            subset(clients, size, &mut key.reader(0)).into_iter().collect()
        }
    }
}

/// A Poisson sample of `[0, n)`, ascending: number i is in it iff the 64-bit word `i` of the keystream is below `rate * 2^64` (rounded
/// down, so that the true rate never exceeds the accounted one).
pub(super) fn poisson(n: u64, rate: f64, key: &StreamKey) -> Vec<u64> {
    let rate = rate.clamp(0.0, 1.0);
    if rate >= 1.0 {
        return (0..n).collect();
    }
    let threshold = (rate * 2f64.powi(64)) as u64;
    let mut reader = key.reader(0);
    (0..n).filter(|_| reader.next_u64() < threshold).collect()
}

/// A subset of `size` of `[0, n)`, all alike (Floyd's algorithm: `size` draws); `size` is at most n.
pub(crate) fn subset(n: u64, size: u64, reader: &mut StreamReader) -> BTreeSet<u64> {
    let mut chosen = BTreeSet::new();
    for j in (n - size)..n {
        let t = reader.below(j + 1);
        if !chosen.insert(t) {
            chosen.insert(j);
        }
    }
    chosen
}

/// Number of groups that take turns: `clients / expected`, rounded up.
#[must_use]
pub fn groups(clients: u64, expected: f64) -> u64 {
    // The share of a group times their number may miss the whole by a rounding.
    let groups = (clients as f64 / expected * (1.0 - 1e-12)).ceil();
    // Not a number, and nobody expected, give one group.
    if groups >= 1.0 { (groups as u64).min(clients.max(1)) } else { 1 }
}

/// The group whose turn round `round` (from 1) is, in ascending order. `key` deals the groups: one key for all rounds.
fn turn(clients: u64, expected: f64, round: u32, key: &StreamKey) -> Vec<u64> {
    let groups = groups(clients, expected);
    let place = u64::from(round.saturating_sub(1)) % groups;
    let mut order: Vec<u64> = (0..clients).collect();
    key.reader(0).shuffle(&mut order);
    let mut cohort: Vec<u64> = order.into_iter().skip(place as usize).step_by(groups as usize).collect();
    cohort.sort_unstable();
    cohort
}

/// How often a client takes part in `rounds` rounds, where that is fixed and public; `None` where chance decides.
#[must_use]
pub fn participation(sampling: Sampling, clients: u64, expected: f64, rounds: u64) -> Option<Participation> {
    let separation = match sampling {
        Sampling::All => 1,
        Sampling::RoundRobin => groups(clients, expected),
        Sampling::Poisson | Sampling::TruncatedPoisson { .. } | Sampling::Fixed => return None,
    };
    Some(Participation { max: rounds.div_ceil(separation).max(1), separation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    fn key(n: u8) -> StreamKey {
        StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
    }

    #[test]
    fn poisson_has_the_binomial_mean_and_variance() {
        let (n, expected, rounds) = (2000u64, 100.0, 250u8);
        let sizes: Vec<f64> =
            (0..rounds).map(|r| draw(Sampling::Poisson, n, expected, 1, &key(r)).len() as f64).collect();
        let mean = sizes.iter().sum::<f64>() / f64::from(rounds);
        let var = sizes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / f64::from(rounds - 1);
        assert!((mean - 100.0).abs() < 4.0 * (95.0f64 / 250.0).sqrt(), "{mean}");
        assert!((60.0..135.0).contains(&var), "{var}");
    }

    #[test]
    fn a_cut_sample_is_the_sample_or_a_subset_of_it() {
        let (clients, expected, most) = (500u64, 60.0, 62u64);
        let mut counts = vec![0u32; clients as usize];
        let mut cuts = 0;
        for r in 0..250u8 {
            let whole = draw(Sampling::Poisson, clients, expected, 1, &key(r));
            let cut = draw(Sampling::TruncatedPoisson { most }, clients, expected, 1, &key(r));
            assert_eq!(cut.len(), whole.len().min(most as usize));
            assert!(cut.windows(2).all(|w| w[0] < w[1]) && cut.iter().all(|i| whole.contains(i)));
            cuts += u32::from(cut.len() < whole.len());
            cut.iter().for_each(|&i| counts[i as usize] += 1);
        }
        assert!((60..130).contains(&cuts), "{cuts}");
        // Early and late clients are cut alike: 125 draws of about 57 in 500.
        let half = |range: std::ops::Range<usize>| counts[range].iter().sum::<u32>();
        let (first, second) = (half(0..250), half(250..500));
        assert!(f64::from(first.abs_diff(second)) < 4.0 * f64::from(first + second).sqrt(), "{first} {second}");
    }

    #[test]
    fn turns_come_as_often_as_is_accounted() {
        for (clients, expected, rounds) in
            [(100u64, 30.0, 11u32), (7, 7.0, 3), (60, 20.0, 9), (10, 3.5, 8), (5, 0.3, 9)]
        {
            let promised = participation(Sampling::RoundRobin, clients, expected, u64::from(rounds)).unwrap();
            let mut seen: Vec<Vec<u32>> = vec![Vec::new(); clients as usize];
            for round in 1..=rounds {
                let cohort = draw(Sampling::RoundRobin, clients, expected, round, &key(3));
                assert!(
                    cohort.len() as u64 <= clients.div_ceil(promised.separation)
                        && cohort.windows(2).all(|w| w[0] < w[1])
                );
                cohort.into_iter().for_each(|c| seen[c as usize].push(round));
            }
            for turns in seen {
                assert!(turns.len() as u64 <= promised.max, "{turns:?} {promised:?}");
                assert!(turns.windows(2).all(|w| u64::from(w[1] - w[0]) >= promised.separation), "{turns:?}");
            }
        }
        assert_eq!(participation(Sampling::Poisson, 10, 5.0, 3), None);
        let all = participation(Sampling::All, 10, 5.0, 3);
        assert_eq!(all, Some(Participation { max: 3, separation: 1 }));
    }

    #[test]
    fn fixed_and_all_have_their_sizes() {
        let c = draw(Sampling::Fixed, 50, 20.0, 1, &key(1));
        assert_eq!(c.len(), 20);
        assert!(c.windows(2).all(|w| w[0] < w[1]) && c.iter().all(|&i| i < 50));
        assert_ne!(c, draw(Sampling::Fixed, 50, 20.0, 1, &key(2)));
        assert_eq!(draw(Sampling::All, 5, 1.0, 1, &key(1)), vec![0, 1, 2, 3, 4]);
        assert_eq!(draw(Sampling::Poisson, 5, 5.0, 1, &key(1)).len(), 5);
        assert!(draw(Sampling::Poisson, 5, 0.0, 1, &key(1)).is_empty());
    }
}
