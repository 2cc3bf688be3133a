//! How long clients take from fetching a model to arriving with their update.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fl::FlError;
use crate::fl::cohort::subset;
use crate::math::prg::StreamReader;

/// A tick in the unit of the virtual clock, which counts integers: the same on every machine.
pub const TICK: u64 = 1 << 20;

/// Longest time of a client: a million ticks.
const LONGEST: f64 = 1e6;

/// A model of delays. A client that is not delayed takes one tick.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum DelaysConfig {
    /// Nobody is late.
    #[default]
    None,
    /// When none is delayed, a share of all clients is drawn, and each of them takes a number of ticks longer that is drawn from 1 to
    /// `most`.
    Share {
        /// Share of the clients, in (0, 1]; rounded to whole clients.
        rho: f64,
        /// S, >= 1.
        most: u32,
    },
    /// A client is out of reach with this probability, in each tick anew: it arrives in the first in which it is not.
    Offline {
        /// In (0, 1).
        probability: f64,
    },
    /// Exponentially distributed, with a mean for each client.
    Exponential {
        /// Mean over the clients, in ticks, > 0.
        mean: f64,
        /// Standard deviation of the logarithm of the clients' means (log-normal, median `mean`), >= 0.
        #[serde(default)]
        spread: f64,
    },
    /// As recorded: a CSV file with the columns `client` (from 0) and `duration` (in ticks, > 0). A client goes through its rows in
    /// their order, and begins again.
    Trace {
        /// The file.
        file: PathBuf,
    },
}

/// A validated model of delays.
#[derive(Clone, Debug, PartialEq)]
pub enum Delays {
    /// See [`DelaysConfig::None`].
    None,
    /// See [`DelaysConfig::Share`].
    Share {
        /// Clients that are drawn together.
        delayed: u64,
        /// S.
        most: u32,
    },
    /// See [`DelaysConfig::Offline`].
    Offline {
        /// Of a tick.
        probability: f64,
    },
    /// See [`DelaysConfig::Exponential`].
    Exponential {
        /// In ticks.
        mean: f64,
        /// Of the logarithm.
        spread: f64,
    },
    /// See [`DelaysConfig::Trace`]: durations in the unit of the clock, one list a client, none empty.
    Trace(Vec<Vec<u64>>),
}

impl DelaysConfig {
    /// Checks the ranges; `trace` has the durations of [`Self::Trace`] in ticks, one list a client.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn build(&self, clients: u64, trace: Vec<Vec<f64>>) -> Result<Delays, FlError> {
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found })
        };
        Ok(match *self {
            Self::None => Delays::None,
            Self::Share { rho, most } => {
                if !(rho > 0.0 && rho <= 1.0) {
                    return bad("asynchrony.delays.share.rho", "in (0, 1]", rho.to_string());
                }
                if most == 0 || f64::from(most) > LONGEST {
                    return bad("asynchrony.delays.share.most", "1 to a million ticks", most.to_string());
                }
                Delays::Share { delayed: (rho * clients as f64).round() as u64, most }
            }
            Self::Offline { probability } => {
                if !(probability > 0.0 && probability < 1.0) {
                    return bad("asynchrony.delays.offline.probability", "in (0, 1)", probability.to_string());
                }
                Delays::Offline { probability }
            }
            Self::Exponential { mean, spread } => {
                if !(mean > 0.0 && mean <= LONGEST) {
                    return bad(
                        "asynchrony.delays.exponential.mean",
                        "above 0, a million ticks at most",
                        mean.to_string(),
                    );
                }
                if !(0.0..=10.0).contains(&spread) {
                    return bad("asynchrony.delays.exponential.spread", "in [0, 10]", spread.to_string());
                }
                Delays::Exponential { mean, spread }
            }
            Self::Trace { .. } => {
                if trace.len() as u64 != clients {
                    let expected = format!("durations of {clients} clients");
                    return bad("asynchrony.delays.trace", &expected, format!("those of {}", trace.len()));
                }
                if let Some(client) = trace.iter().position(Vec::is_empty) {
                    return bad(
                        "asynchrony.delays.trace",
                        "a duration of every client",
                        format!("none of client {client}"),
                    );
                }
                let fits = |&d: &f64| d > 0.0 && d <= LONGEST;
                if let Some(d) = trace.iter().flatten().find(|d| !fits(d)) {
                    return bad("asynchrony.delays.trace", "durations above 0, a million ticks at most", d.to_string());
                }
                Delays::Trace(trace.into_iter().map(|list| list.into_iter().map(units).collect()).collect())
            }
        })
    }
}

/// Ticks in the unit of the clock, at least one unit.
fn units(ticks: f64) -> u64 {
    ((ticks.clamp(0.0, LONGEST) * TICK as f64).round() as u64).max(1)
}

/// The delays of a run so far.
#[derive(Clone, Debug)]
pub struct Course {
    delays: Delays,
    clients: u64,
    /// Of `share`: who has a delay that it has not begun, and when all that have begun will be over.
    drawn: BTreeMap<u64, u32>,
    over: u64,
    /// Of `exponential`: the clients' means; of `trace`: where they are.
    means: Vec<f64>,
    places: Vec<usize>,
}

impl Course {
    /// At time 0.
    #[must_use]
    pub fn new(delays: Delays, clients: u64, reader: &mut StreamReader) -> Self {
        let means = match delays {
            Delays::Exponential { mean, spread } => {
                (0..clients).map(|_| mean * libm::exp(spread * reader.next_normal())).collect()
            }
            _ => Vec::new(),
        };
        let places = if matches!(delays, Delays::Trace(_)) { vec![0; clients as usize] } else { Vec::new() };
        Self { delays, clients, drawn: BTreeMap::new(), over: 0, means, places }
    }

    /// How long a client takes that begins at `now`, in the unit of the clock, >= 1.
    pub fn duration(&mut self, client: u64, now: u64, reader: &mut StreamReader) -> u64 {
        match &self.delays {
            Delays::None => TICK,
            Delays::Share { delayed, most } => {
                if now >= self.over && self.drawn.is_empty() {
                    let who = subset(self.clients, *delayed, reader);
                    self.drawn = who.into_iter().map(|c| (c, 1 + reader.below(u64::from(*most)) as u32)).collect();
                }
                let Some(more) = self.drawn.remove(&client) else { return TICK };
                let duration = TICK * (1 + u64::from(more));
                self.over = self.over.max(now + duration);
                duration
            }
            Delays::Offline { probability } => {
                let mut ticks = 1;
                while ticks < LONGEST as u64 && reader.next_f64() < *probability {
                    ticks += 1;
                }
                TICK * ticks
            }
            Delays::Exponential { mean, .. } => {
                let mean = self.means.get(client as usize).copied().unwrap_or(*mean);
                // In (0, 1].
                units(-mean * libm::log(1.0 - reader.next_f64()))
            }
            Delays::Trace(lists) => {
                let (Some(list), Some(place)) = (lists.get(client as usize), self.places.get_mut(client as usize))
                else {
                    return TICK;
                };
                let duration = list.get(*place).copied().unwrap_or(TICK);
                *place = (*place + 1) % list.len().max(1);
                duration
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    fn reader(n: u8) -> StreamReader {
        StreamKey::from_bytes([n; 32], Cipher::ChaCha20).reader(0)
    }

    /// Of ten clients that begin in every tick in which they are free, six at a time are late, by 1 to 4 ticks, and none is drawn
    /// before all of them are back.
    #[test]
    fn a_share_is_late_when_none_is() {
        let delays = DelaysConfig::Share { rho: 0.6, most: 4 }.build(10, Vec::new()).unwrap();
        let mut reader = reader(1);
        let mut course = Course::new(delays, 10, &mut reader);
        let mut free = [0u64; 10];
        let (mut late_until, mut draws, mut seen) = (0, 0, [0; 5]);
        for tick in 0..400 {
            let now = tick * TICK;
            let mut late = 0;
            for (client, at) in free.iter_mut().enumerate().filter(|(_, at)| **at <= now) {
                let duration = course.duration(client as u64, now, &mut reader);
                assert!(duration.is_multiple_of(TICK) && (1..=5).contains(&(duration / TICK)));
                *at = now + duration;
                if duration > TICK {
                    assert!(now >= late_until);
                    late += 1;
                    seen[(duration / TICK - 1) as usize] += 1;
                }
            }
            if late > 0 {
                assert_eq!(late, 6);
                draws += 1;
                late_until = free.iter().copied().max().unwrap();
            }
        }
        assert!(draws > 70 && seen[1..].iter().all(|&n| n > 50), "{draws} {seen:?}");
    }

    #[test]
    fn means_are_those_of_the_laws() {
        let mean = |config: DelaysConfig, n: u8| {
            let mut reader = reader(n);
            let mut course = Course::new(config.build(5, Vec::new()).unwrap(), 5, &mut reader);
            let sum: u64 = (0..20_000).map(|i| course.duration(i % 5, 0, &mut reader)).sum();
            sum as f64 / 20_000.0 / TICK as f64
        };
        assert_eq!(mean(DelaysConfig::None, 1), 1.0);
        // 1 / (1 - p), standard deviation sqrt(p) / (1 - p).
        assert!((mean(DelaysConfig::Offline { probability: 0.5 }, 2) - 2.0).abs() < 0.05);
        assert!((mean(DelaysConfig::Exponential { mean: 3.0, spread: 0.0 }, 3) - 3.0).abs() < 0.1);
    }

    #[test]
    fn a_trace_is_followed_and_begins_again() {
        let trace = DelaysConfig::Trace { file: "t.csv".into() };
        let mut reader = reader(1);
        let delays = trace.build(2, vec![vec![1.0, 2.5], vec![0.25]]).unwrap();
        let mut course = Course::new(delays, 2, &mut reader);
        let mut next = |client| course.duration(client, 0, &mut reader) as f64 / TICK as f64;
        assert_eq!([next(0), next(1), next(0), next(0), next(1)], [1.0, 0.25, 2.5, 1.0, 0.25]);
        for (bad, what) in [
            (vec![vec![1.0]], "those of 1"),
            (vec![vec![1.0], vec![]], "none of client 1"),
            (vec![vec![1.0], vec![0.0]], "0"),
            (vec![vec![f64::NAN], vec![1.0]], "NaN"),
        ] {
            let error = trace.build(2, bad).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn bad_ranges_are_named() {
        for (config, name) in [
            (DelaysConfig::Share { rho: 0.0, most: 4 }, "rho"),
            (DelaysConfig::Share { rho: 1.5, most: 4 }, "rho"),
            (DelaysConfig::Share { rho: 0.5, most: 0 }, "most"),
            (DelaysConfig::Offline { probability: 1.0 }, "probability"),
            (DelaysConfig::Exponential { mean: 0.0, spread: 0.0 }, "mean"),
            (DelaysConfig::Exponential { mean: 1.0, spread: f64::INFINITY }, "spread"),
        ] {
            assert!(config.build(4, Vec::new()).unwrap_err().to_string().contains(name));
        }
    }
}
