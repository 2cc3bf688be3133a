//! The laws that the noise stage draws in constant time.

use super::binomial::CentredBinomial;
use super::table::NoiseTable;
use crate::math::prg::STREAM_BYTES;

/// Integer noise of one coordinate, ready to be drawn by a backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Noise {
    /// A symmetric law by 128-bit thresholds: Skellam, discrete Gaussian.
    Table(NoiseTable),
    /// Centred binomial by popcount.
    Binomial(CentredBinomial),
}

impl Noise {
    /// Variance of the exact law.
    #[must_use]
    pub fn variance(&self) -> f64 {
        match self {
            Self::Table(table) => table.variance,
            Self::Binomial(law) => law.variance(),
        }
    }

    /// Upper bound of the total variation distance between one draw and the exact law.
    #[must_use]
    pub fn total_variation(&self) -> f64 {
        match self {
            Self::Table(table) => table.total_variation,
            Self::Binomial(_) => 0.0,
        }
    }

    /// Coordinates that the [`STREAM_BYTES`] under one key serve: almost `2^34` for a table, almost
    /// `2^37 / ceil(2k / 16)` for a centred binomial, in whole superblocks of 32.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match self {
            Self::Table(_) => STREAM_BYTES / 16,
            Self::Binomial(law) => STREAM_BYTES / 64 / law.halfwords() as u64 * 32,
        }
    }
}

impl From<NoiseTable> for Noise {
    fn from(table: NoiseTable) -> Self {
        Self::Table(table)
    }
}

impl From<CentredBinomial> for Noise {
    fn from(law: CentredBinomial) -> Self {
        Self::Binomial(law)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_tell_their_law() {
        let table = NoiseTable::skellam(5.95).unwrap();
        let noise = Noise::from(table.clone());
        assert_eq!((noise.variance(), noise.total_variation()), (11.9, table.total_variation));
        assert_eq!(noise.capacity(), (1 << 34) - 4);
        let noise = Noise::from(CentredBinomial::new(24).unwrap());
        assert_eq!((noise.variance(), noise.total_variation()), (12.0, 0.0));
        assert_eq!(noise.capacity(), ((1 << 32) - 1) / 3 * 32);
    }
}
