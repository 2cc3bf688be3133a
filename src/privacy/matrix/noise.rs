//! The correlated noise of a run, round by round: `N_t = Z_t - G(N_1, ..., N_(t-1))`, all of them integers.
//!
//! G is `sum_k c_k N_(t-k)` rounded to the nearest integer: exactly for a banded matrix, which keeps the last vectors;
//! through sums with [`BUFFER_BITS`] fraction bits, rounded once a round, for a buffered linear Toeplitz matrix. It is the
//! same function in every run, which is all that the proof asks of it beside its distance from the sum
//! ([`super::Strategy::rounding`]). No floating point, and no data: the noise can be recomputed from the run's secret.

use rayon::prelude::*;
use zeroize::Zeroize;

use super::{COEFFICIENT_BITS, Factor, Strategy};

/// Fraction bits of a buffer.
pub const BUFFER_BITS: u32 = 20;
/// A step of a buffer, `2^-20`.
pub const BUFFER_UNIT: f64 = 1.0 / (1u64 << BUFFER_BITS) as f64;
/// Draws are held within `+-2^36`: beyond `2^8` standard deviations at the largest sigma of the sampler, `2^28`.
const LARGEST_DRAW: i64 = 1 << 36;
/// Coordinates of one task.
const TASK: usize = 4096;
/// Bytes of a coordinate of a stored vector.
const WORD: usize = 16;

/// What a server keeps of the noise between rounds. As secret as the noise: wiped when dropped, never printed.
pub struct CorrelatedNoise {
    factor: Factor,
    dim: usize,
    /// Of a banded matrix the last vectors of noise, the latest first; else one buffer a decay, in units of `2^-20`.
    state: Vec<Vec<i128>>,
}

impl std::fmt::Debug for CorrelatedNoise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CorrelatedNoise({} vectors of {})", self.state.len(), self.dim)
    }
}

impl Drop for CorrelatedNoise {
    fn drop(&mut self) {
        self.state.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// `value / 2^bits`, rounded to the nearest integer, halves up.
const fn rounded(value: i128, bits: u32) -> i128 {
    (value + (1 << (bits - 1))) >> bits
}

impl CorrelatedNoise {
    /// The state before the first round, for vectors of `dim` coordinates.
    #[must_use]
    pub fn new(strategy: &Strategy, dim: usize) -> Self {
        Self { factor: strategy.factor().clone(), dim, state: vec![vec![0; dim]; strategy.buffers()] }
    }

    /// The noise of the next round, made in place of its independent draws. Changes no state: a round that fails before
    /// its release asks again, and [`CorrelatedNoise::advance`] goes on after it.
    ///
    /// `draws` has `dim` entries; what lacks is taken as absent.
    pub fn correlate(&self, draws: &mut [i64]) {
        let weights: &[u64] = match &self.factor {
            Factor::Banded(c) => &c[1..],
            Factor::Blt { weight, .. } => weight,
        };
        let bits = match &self.factor {
            Factor::Banded(_) => COEFFICIENT_BITS,
            Factor::Blt { .. } => COEFFICIENT_BITS + BUFFER_BITS,
        };
        draws.par_chunks_mut(TASK).enumerate().for_each(|(task, draws)| {
            let mut sums = vec![0i128; draws.len()];
            for (row, &weight) in self.state.iter().zip(weights) {
                let row = &row[(task * TASK).min(row.len())..];
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += i128::from(weight) * x);
            }
            for (draw, sum) in draws.iter_mut().zip(&sums) {
                // Within 2^45: the sum of all |(C^-1)_k| is at most 2^8.
                *draw = (*draw).clamp(-LARGEST_DRAW, LARGEST_DRAW) - rounded(*sum, bits) as i64;
            }
            sums.zeroize();
        });
    }

    /// Takes the noise of a round that was released into the state.
    pub fn advance(&mut self, noise: &[i64]) {
        match &self.factor {
            Factor::Banded(_) => {
                if let Some(latest) = self.state.last_mut() {
                    latest.iter_mut().zip(noise).for_each(|(x, &n)| *x = i128::from(n));
                    self.state.rotate_right(1);
                }
            }
            Factor::Blt { decay, .. } => {
                for (buffer, &decay) in self.state.iter_mut().zip(decay) {
                    buffer.par_iter_mut().zip(noise).for_each(|(x, &n)| {
                        *x = rounded(i128::from(decay) * *x, COEFFICIENT_BITS) + (i128::from(n) << BUFFER_BITS);
                    });
                }
            }
        }
    }

    /// The state as bytes. They are as secret as the noise.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.state.iter().flatten().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// Puts back what [`CorrelatedNoise::to_bytes`] gave. False, and nothing changed, if the number of bytes differs.
    pub fn restore(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() != self.state.len() * self.dim * WORD {
            return false;
        }
        let words = bytes.as_chunks::<WORD>().0;
        for (row, words) in self.state.iter_mut().zip(words.chunks(self.dim.max(1))) {
            row.iter_mut().zip(words).for_each(|(x, word)| *x = i128::from_le_bytes(*word));
        }
        true
    }
}
