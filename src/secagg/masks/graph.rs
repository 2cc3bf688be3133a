//! Who has masks with whom: everybody, or the k nearest in a ring in random order (a Harary graph; Bell et al. 2020).

use crate::math::prg::{Address, Cipher, Purpose, Secret};

/// A graph of n clients, by their places in the ascending list of the cohort.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The client at each place of the ring; empty for a complete graph.
    order: Vec<u32>,
    /// The place of each client.
    place: Vec<u32>,
    clients: usize,
    degree: usize,
}

impl Graph {
    /// The graph of `degree`: all others if that is `clients - 1`, else the `degree / 2` nearest on either side in the
    /// order of `seed` (Fisher-Yates from ChaCha20). `degree` is even or `clients - 1`, and below `clients`.
    pub(super) fn new(clients: usize, degree: usize, seed: &[u8; 32]) -> Self {
        let mut graph = Self { order: Vec::new(), place: Vec::new(), clients, degree };
        if degree + 1 < clients {
            let public = Secret::from_bytes(*seed);
            let key = public.derive(&[0; 16], Address::default(), Purpose::Graph, Cipher::ChaCha20);
            graph.order = (0..clients as u32).collect();
            key.reader(0).shuffle(&mut graph.order);
            graph.place = vec![0; clients];
            for (place, &client) in graph.order.iter().enumerate() {
                graph.place[client as usize] = place as u32;
            }
        }
        graph
    }

    /// Neighbors of each client.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// The neighbors of client `i`, in no order.
    pub fn around(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let n = self.clients;
        let ring = !self.order.is_empty();
        let half = self.degree / 2;
        (0..self.degree).map(move |step| {
            if ring {
                let place = self.place[i] as usize;
                let step = if step < half { step + 1 } else { n - (step - half + 1) };
                self.order[(place + step) % n] as usize
            } else if step < i {
                step
            } else {
                step + 1
            }
        })
    }

    /// The neighbors of client `i`, ascending.
    #[must_use]
    pub fn neighbors(&self, i: usize) -> Vec<usize> {
        let mut all: Vec<usize> = self.around(i).collect();
        all.sort_unstable();
        all
    }

    /// The neighbors of client `i` that are not in `set`.
    #[must_use]
    pub fn missing(&self, i: usize, set: &[bool]) -> usize {
        self.around(i).filter(|&j| !set[j]).count()
    }

    /// The most neighbors that a client of `set` misses in it.
    #[must_use]
    pub fn most_missing(&self, set: &[bool]) -> usize {
        if self.order.is_empty() {
            return set.iter().filter(|&&member| !member).count();
        }
        (0..self.clients).filter(|&i| set[i]).map(|i| self.missing(i, set)).max().unwrap_or(0)
    }

    /// Takes clients out of `set` until each has at most `limit` neighbors outside.
    pub(super) fn prune(&self, set: &mut [bool], limit: usize) {
        loop {
            let out: Vec<usize> = (0..self.clients).filter(|&i| set[i] && self.missing(i, set) > limit).collect();
            if out.is_empty() {
                return;
            }
            for i in out {
                set[i] = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_is_symmetric_and_regular() {
        for (n, k) in [(2, 1), (5, 4), (5, 2), (7, 4), (40, 6), (41, 38), (1000, 64)] {
            let graph = Graph::new(n, k, &[n as u8; 32]);
            let lists: Vec<Vec<usize>> = (0..n).map(|i| graph.neighbors(i)).collect();
            for (i, list) in lists.iter().enumerate() {
                assert_eq!(list.len(), k, "{n} {k}");
                assert!(list.windows(2).all(|w| w[0] < w[1]) && !list.contains(&i), "{n} {k}: {list:?}");
                assert!(list.iter().all(|&j| lists[j].binary_search(&i).is_ok()), "{n} {k}");
            }
        }
        assert_ne!(Graph::new(40, 6, &[1; 32]).neighbors(0), Graph::new(40, 6, &[2; 32]).neighbors(0));
    }

    /// The claim of `plan.rs`: where every survivor has lost fewer than k / 2 neighbors, none is cut off.
    #[test]
    fn survivors_with_few_lost_neighbors_are_connected_whoever_is_lost() {
        let (n, k) = (60, 10);
        let graph = Graph::new(n, k, &[7; 32]);
        let mut r =
            Secret::from_seed(1).derive(&[0; 16], Address::default(), Purpose::Draws, Cipher::ChaCha20).reader(0);
        let (mut connected, mut apart) = (0, 0);
        for _ in 0..3000 {
            // Lost clients in runs of the ring: what a hostile server would choose.
            let mut set = vec![true; n];
            for _ in 0..1 + r.below(4) {
                let (start, len) = (r.below(n as u64) as usize, r.below(8) as usize);
                for step in 0..len {
                    set[graph.order[(start + step) % n] as usize] = false;
                }
            }
            let first = (0..n).find(|&i| set[i]).unwrap();
            let (mut seen, mut stack) = (vec![false; n], vec![first]);
            seen[first] = true;
            while let Some(i) = stack.pop() {
                for j in graph.around(i).filter(|&j| set[j]) {
                    if !std::mem::replace(&mut seen[j], true) {
                        stack.push(j);
                    }
                }
            }
            let whole = seen == set;
            assert!(whole || graph.most_missing(&set) >= k / 2);
            connected += usize::from(whole);
            apart += usize::from(!whole);
        }
        assert!(connected > 100 && apart > 100, "{connected} {apart}");
    }

    #[test]
    fn pruning_ends_where_nobody_misses_too_many() {
        let graph = Graph::new(30, 6, &[3; 32]);
        let mut set = vec![true; 30];
        for i in graph.neighbors(4).into_iter().take(4) {
            set[i] = false;
        }
        graph.prune(&mut set, 3);
        assert!(!set[4] && graph.most_missing(&set) <= 3);
        assert_eq!(Graph::new(5, 4, &[0; 32]).most_missing(&[true, false, true, false, true]), 2);
    }
}
