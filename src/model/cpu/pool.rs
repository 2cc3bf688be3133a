//! Pools: the largest value of every square.

use super::network::{Layout, Scratch};

/// A pool whose squares lie side by side.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub(super) size: usize,
    /// What is read.
    pub(super) from: Layout,
    /// What is written, without gaps.
    pub(super) to: Layout,
}

impl Pool {
    /// The place of every largest value, from its sample on.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        Scratch { winners: vec![0; samples * self.to.sample], ..Scratch::default() }
    }

    pub(super) fn forward(&self, read: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let width = self.to.shape.width;
        let samples = read.chunks_exact(self.from.sample).zip(out.chunks_exact_mut(self.to.sample));
        for ((read, out), winners) in samples.zip(scratch.winners.chunks_exact_mut(self.to.sample)) {
            let rows = out.chunks_exact_mut(width).zip(winners.chunks_exact_mut(width));
            for (k, (out, winners)) in rows.enumerate() {
                let (c, y) = (k / self.to.shape.height, k % self.to.shape.height);
                let start = c * self.from.plane + y * self.size * self.from.row;
                self.row(&read[start..], start, out, winners);
            }
        }
    }

    /// One row of the result from the rows of its squares, which begin at `start`.
    fn row(&self, read: &[f32], start: usize, out: &mut [f32], winners: &mut [u32]) {
        for (i, (out, winner)) in out.iter_mut().zip(winners).enumerate() {
            let (mut best, mut place) = (read[i * self.size], i * self.size);
            for y in 0..self.size {
                let first = y * self.from.row + i * self.size;
                for (x, &value) in read[first..first + self.size].iter().enumerate() {
                    // The first NaN stays, and the first of equal ones.
                    if value > best || (value.is_nan() && !best.is_nan()) {
                        (best, place) = (value, first + x);
                    }
                }
            }
            (*out, *winner) = (best, (start + place) as u32);
        }
    }

    /// Each largest value gets the gradient of its square.
    pub(super) fn backward(&self, given: &[f32], into: &mut [f32], scratch: &Scratch) {
        into.fill(0.0);
        let samples = given.chunks_exact(self.to.sample).zip(into.chunks_exact_mut(self.from.sample));
        for ((given, into), winners) in samples.zip(scratch.winners.chunks_exact(self.to.sample)) {
            for (&g, &place) in given.iter().zip(winners) {
                // No value is in two squares.
                into[place as usize] = g;
            }
        }
    }
}
