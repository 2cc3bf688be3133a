//! A series of any length in bounded memory.

use std::collections::VecDeque;

use crate::net::status::HISTORY_SHOWN;

/// Entries that are kept one by one at the end.
const RECENT: usize = HISTORY_SHOWN / 4;
/// Entries that are kept of all before.
const OLD: usize = HISTORY_SHOWN - RECENT;

/// Keeps the last [`RECENT`] entries and, of those before, every n-th, so that [`HISTORY_SHOWN`] are never exceeded. n is a
/// power of two and doubles when it has to: what is kept lies evenly over the whole series, as a chart needs it.
#[derive(Debug)]
pub(super) struct Thinned<T> {
    /// The entries 0, n, 2 n, ... of all that have left `recent`.
    old: Vec<T>,
    every: u64,
    /// Entries that have left `recent`.
    left: u64,
    recent: VecDeque<T>,
}

impl<T: Clone> Thinned<T> {
    pub(super) const fn new() -> Self {
        Self { old: Vec::new(), every: 1, left: 0, recent: VecDeque::new() }
    }

    pub(super) fn push(&mut self, entry: T) {
        self.recent.push_back(entry);
        if self.recent.len() <= RECENT {
            return;
        }
        let Some(leaving) = self.recent.pop_front() else { return };
        if self.left.is_multiple_of(self.every) {
            self.old.push(leaving);
        }
        self.left += 1;
        if self.old.len() > OLD {
            self.every *= 2;
            let mut place = 0_usize;
            self.old.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    pub(super) fn to_vec(&self) -> Vec<T> {
        self.old.iter().chain(&self.recent).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_series_is_whole() {
        let mut series = Thinned::new();
        (0..HISTORY_SHOWN).for_each(|i| series.push(i));
        assert_eq!(series.to_vec(), (0..HISTORY_SHOWN).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_series_is_even_and_ends_whole() {
        let mut series = Thinned::new();
        let length = 100_000;
        for i in 0..length {
            series.push(i);
            assert!(series.old.len() + series.recent.len() <= HISTORY_SHOWN);
        }
        let kept = series.to_vec();
        let (old, recent) = kept.split_at(kept.len() - RECENT);
        assert_eq!(recent, (length - RECENT..length).collect::<Vec<_>>());
        let step = old[1] - old[0];
        assert_eq!(step, 128);
        assert!(old[0] == 0 && old.windows(2).all(|w| w[1] - w[0] == step) && old.len() > OLD / 2);
    }
}
