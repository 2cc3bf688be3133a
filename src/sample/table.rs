//! Cumulative tables with 128-bit thresholds: the data of the constant-time sampler.

pub mod discrete_gaussian;
pub mod skellam;

use num_bigint::BigUint;
use num_traits::ToPrimitive;

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

/// `round(2^127 C_k / C_N)`, `C_k = w_0 + 2 (w_1 + ... + w_k)`, for `k = 0, 1, ...` as long as it is below `2^127`:
/// the thresholds of the symmetric law with the weights `w_0 ..= w_N`, and at most [`MAX_THRESHOLDS`].
fn thresholds(weights: &[BigUint]) -> Vec<u128> {
    let (Some(first), Some(rest)) = (weights.first(), weights.get(1..)) else { return Vec::new() };
    let total = weights.iter().sum::<BigUint>() * 2u32 - first;
    let half = &total >> 1u32;
    let mut thresholds = Vec::new();
    let mut cumulative = first.clone();
    for weight in rest.iter().map(Some).chain([None]) {
        let threshold = ((&cumulative << 127u32) + &half) / &total;
        match threshold.to_u128() {
            Some(t) if t < 1 << 127 && thresholds.len() < MAX_THRESHOLDS => thresholds.push(t),
            _ => break,
        }
        if let Some(weight) = weight {
            cumulative += weight * 2u32;
        }
    }
    thresholds
}

/// What [`thresholds`] adds to the total variation: each threshold is off by at most `2^-128` of the uniform's
/// range, and the mass beyond the last is at most `2^-127` (it rounds to all). A threshold moves mass between
/// two neighbours, so together at most `(K + 2) 2^-128`. The sign is an exact coin.
fn rounding(thresholds: usize) -> f64 {
    (thresholds as f64 + 2.0) * (-128f64).exp2()
}
