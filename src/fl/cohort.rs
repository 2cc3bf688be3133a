//! Who takes part in a round. The law of the draw is the law that is accounted.

use crate::math::prg::StreamKey;
use crate::privacy::matrix::Participation;

/// How cohorts are drawn.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each client independently with probability `cohort / clients`: what the amplification theorem
    /// is about. The size of the cohort varies from round to round.
    Poisson,
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

/// Draws the cohort of a round in ascending order.
///
/// Poisson: client `i` takes part iff the 64-bit word `i` of the keystream is below
/// `rate * 2^64` (rounded down, so that the true rate never exceeds the accounted one).
#[must_use]
pub fn draw(sampling: Sampling, clients: u64, expected: f64, key: &StreamKey) -> Vec<u64> {
    match sampling {
        // Whose turn it is `draw_turn` knows.
        Sampling::All | Sampling::RoundRobin => (0..clients).collect(),
        Sampling::Poisson => {
            let rate = (expected / clients as f64).clamp(0.0, 1.0);
            if rate >= 1.0 {
                return (0..clients).collect();
            }
            let threshold = (rate * 2f64.powi(64)) as u64;
            let mut reader = key.reader(0);
            (0..clients).filter(|_| reader.next_u64() < threshold).collect()
        }
        Sampling::Fixed => {
            let size = (expected as u64).min(clients) as usize;
            let mut reader = key.reader(0);
            // Floyd's algorithm: `size` draws, uniform over the subsets of that size.
            let mut chosen = std::collections::BTreeSet::new();
            for j in (clients - size as u64)..clients {
                let t = reader.below(j + 1);
                if !chosen.insert(t) {
                    chosen.insert(j);
                }
            }
            chosen.into_iter().collect()
        }
    }
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
#[must_use]
pub fn draw_turn(clients: u64, expected: f64, round: u32, key: &StreamKey) -> Vec<u64> {
    let groups = groups(clients, expected);
    let turn = u64::from(round.saturating_sub(1)) % groups;
    let mut order: Vec<u64> = (0..clients).collect();
    key.reader(0).shuffle(&mut order);
    let mut cohort: Vec<u64> = order.into_iter().skip(turn as usize).step_by(groups as usize).collect();
    cohort.sort_unstable();
    cohort
}

/// How often a client takes part in `rounds` rounds, where that is fixed and public; `None` where chance decides.
#[must_use]
pub fn participation(sampling: Sampling, clients: u64, expected: f64, rounds: u64) -> Option<Participation> {
    let separation = match sampling {
        Sampling::All => 1,
        Sampling::RoundRobin => groups(clients, expected),
        Sampling::Poisson | Sampling::Fixed => return None,
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
        let sizes: Vec<f64> = (0..rounds).map(|r| draw(Sampling::Poisson, n, expected, &key(r)).len() as f64).collect();
        let mean = sizes.iter().sum::<f64>() / f64::from(rounds);
        let var = sizes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / f64::from(rounds - 1);
        assert!((mean - 100.0).abs() < 4.0 * (95.0f64 / 250.0).sqrt(), "{mean}");
        assert!((60.0..135.0).contains(&var), "{var}");
    }

    #[test]
    fn turns_come_as_often_as_is_accounted() {
        for (clients, expected, rounds) in
            [(100u64, 30.0, 11u32), (7, 7.0, 3), (60, 20.0, 9), (10, 3.5, 8), (5, 0.3, 9)]
        {
            let promised = participation(Sampling::RoundRobin, clients, expected, u64::from(rounds)).unwrap();
            let mut seen: Vec<Vec<u32>> = vec![Vec::new(); clients as usize];
            for round in 1..=rounds {
                let cohort = draw_turn(clients, expected, round, &key(3));
                assert!(cohort.len() as f64 <= expected.max(1.0) && cohort.windows(2).all(|w| w[0] < w[1]));
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
        let c = draw(Sampling::Fixed, 50, 20.0, &key(1));
        assert_eq!(c.len(), 20);
        assert!(c.windows(2).all(|w| w[0] < w[1]) && c.iter().all(|&i| i < 50));
        assert_ne!(c, draw(Sampling::Fixed, 50, 20.0, &key(2)));
        assert_eq!(draw(Sampling::All, 5, 1.0, &key(1)), vec![0, 1, 2, 3, 4]);
        assert_eq!(draw(Sampling::Poisson, 5, 5.0, &key(1)).len(), 5);
        assert!(draw(Sampling::Poisson, 5, 0.0, &key(1)).is_empty());
    }
}
