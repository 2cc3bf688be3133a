//! Coins whose bias is a fixed-point number: the sampler of the Poisson-binomial mechanism.

use zeroize::Zeroizing;

use super::binomial::MAX_K;
use super::{SampleError, within};
use crate::math::prg::{STREAM_BYTES, StreamKey};

/// Bytes of keystream of one coin.
const COIN_BYTES: u64 = 4;
/// Coordinates whose keystream is made at once.
const BATCH: usize = 64;

/// Heads of m coins of probability `1/2 + X 2^-bits`, less m/2: what a client adds to a coordinate whose fixed-point value is X.
///
/// A coin is heads where 32 bits of keystream are below `2^31 + X 2^(32 - bits)`: exact, integers only. Coordinate j reads the
/// bytes `[4 m j, 4 m (j + 1))`; every coin is thrown and compared by a subtraction, so that neither time nor any address depends
/// on X or on the coins. Mean `m X 2^-bits`, variance `m (1/4 - s^2)`, on `-m/2 ..= m/2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BiasedCoins {
    coins: u32,
    bits: u32,
}

impl BiasedCoins {
    /// `coins` even, 2 to 8192; `bits` 2 to 31.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`].
    pub fn new(coins: u32, bits: u32) -> Result<Self, SampleError> {
        within("coins", f64::from(coins), 2.0, f64::from(2 * MAX_K))?;
        within("coins modulo 2", f64::from(coins % 2), 0.0, 0.0)?;
        within("bits of a bias", f64::from(bits), 2.0, 31.0)?;
        Ok(Self { coins, bits })
    }

    /// Coordinates that one key serves.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        STREAM_BYTES / (COIN_BYTES * self.coins as u64)
    }

    /// Replaces each X of `row` (32-bit two's complement) by what is added, likewise. An X outside `|X| <= 2^(bits-1)`, which no
    /// bound on coordinates lets through, counts as the nearest one inside.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`] for more coordinates than [`Self::capacity`].
    pub fn throw(self, row: &mut [u32], key: &StreamKey) -> Result<(), SampleError> {
        within("coordinates", row.len() as f64, 0.0, self.capacity() as f64)?;
        let bytes = (COIN_BYTES * u64::from(self.coins)) as usize;
        let mut stream = Zeroizing::new(vec![0u8; bytes * BATCH.min(row.len().max(1))]);
        let mut position = 0;
        for batch in row.chunks_mut(BATCH) {
            let stream = &mut stream[..bytes * batch.len()];
            key.fill(position, stream);
            position += stream.len() as u64;
            for (x, words) in batch.iter_mut().zip(stream.chunks_exact(bytes)) {
                *x = self.heads(*x as i32, words).wrapping_sub(self.coins / 2);
            }
        }
        Ok(())
    }

    fn heads(self, x: i32, words: &[u8]) -> u32 {
        let half = 1i64 << (self.bits - 1);
        // Selected by arithmetic: the bound holds already, and this costs no branch.
        let x = i64::from(x).clamp(-half, half);
        let threshold = (1i64 << 31) + (x << (32 - self.bits));
        let coin = |word: &[u8]| {
            let mut bytes = [0u8; 4];
            bytes.copy_from_slice(word);
            // 1 where the word is below the threshold: the sign of the difference.
            ((i64::from(u32::from_le_bytes(bytes)) - threshold) as u64 >> 63) as u32
        };
        words.chunks_exact(4).map(coin).sum()
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
    fn heads_have_the_law_of_the_bias() {
        let (coins, bits, count) = (6u32, 20u32, 60_000usize);
        for (n, s) in [(1u8, 0.0f64), (2, 0.25), (3, -0.1), (4, 0.5), (5, -0.5)] {
            let x = (s * f64::from(1u32 << bits)).round() as i32;
            let mut row = vec![x as u32; count];
            BiasedCoins::new(coins, bits).unwrap().throw(&mut row, &key(n)).unwrap();
            let p = 0.5 + f64::from(x) / f64::from(1u32 << bits);
            let binomial = |k: u32| {
                let ways = (0..k).fold(1.0, |w, i| w * f64::from(coins - i) / f64::from(i + 1));
                ways * p.powi(k as i32) * (1.0 - p).powi((coins - k) as i32)
            };
            let mut square = 0.0;
            for k in 0..=coins {
                let seen = row.iter().filter(|&&z| z as i32 == k as i32 - 3).count() as f64;
                let expected = binomial(k) * count as f64;
                if expected > 5.0 {
                    square += (seen - expected).powi(2) / expected;
                } else {
                    assert!(seen <= 40.0, "{s} {k}");
                }
            }
            // chi-square with at most 6 degrees: above 35 once in 2e5.
            assert!(square < 35.0, "{s}: {square}");
        }
    }

    #[test]
    fn coins_are_addressed_and_exact() {
        let law = BiasedCoins::new(2, 31).unwrap();
        let xs: Vec<u32> = (0..300i32).map(|j| ((j - 150) << 22) as u32).collect();
        let mut row = xs.clone();
        law.throw(&mut row, &key(9)).unwrap();
        for (j, (&x, &z)) in xs.iter().zip(&row).enumerate() {
            let mut words = [0u8; 8];
            key(9).fill(8 * j as u64, &mut words);
            let heads = words.chunks(4).filter(|w| {
                let word = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
                i64::from(word) < (1 << 31) + 2 * i64::from(x as i32)
            });
            assert_eq!(z as i32, heads.count() as i32 - 1, "{j}");
        }
        // Certain coins, and what lies beyond them.
        for (x, z) in [(1 << 30, 1), (-(1 << 30), -1), (i32::MAX, 1), (i32::MIN, -1)] {
            let mut row = [x as u32; 5];
            law.throw(&mut row, &key(1)).unwrap();
            assert!(row.iter().all(|&found| found as i32 == z), "{x}");
        }
        law.throw(&mut [], &key(1)).unwrap();
    }

    #[test]
    fn parameters_are_checked() {
        for (coins, bits) in [(0, 16), (1, 16), (3, 16), (8194, 16), (4, 1), (4, 32)] {
            assert!(matches!(BiasedCoins::new(coins, bits), Err(SampleError::OutOfRange { .. })), "{coins} {bits}");
        }
        assert!(BiasedCoins::new(8192, 31).unwrap().capacity() > 1 << 22);
    }
}
