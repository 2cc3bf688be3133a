//! Cumulative tables with 128-bit thresholds: the data of the constant-time sampler.

pub mod skellam;

/// Most thresholds of a table: every one of them is compared for every coordinate.
pub const MAX_THRESHOLDS: usize = 1 << 16;

/// A symmetric integer law as 128-bit thresholds, compared one by one in constant time.
///
/// With `U` uniform on `[0, 2^128)` made of the 16 keystream bytes of a coordinate (little-endian),
/// bit 0 of `U` is the sign and `u = U >> 1` (127 bits) the magnitude's uniform:
/// `|X| = #{k : u >= thresholds[k]}`, `X = -|X|` if the sign bit is set, so `thresholds[k]` is
/// `2^127 P[|X| <= k]` rounded. Every threshold is compared; no early exit, no indexed access.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseTable {
    /// `thresholds[k] ~ 2^127 P[|X| <= k]`, non-decreasing, all `< 2^127`.
    pub thresholds: Vec<u128>,
    /// Variance of the exact law.
    pub variance: f64,
    /// Upper bound of the total variation distance between one draw and the exact law.
    pub total_variation: f64,
}
