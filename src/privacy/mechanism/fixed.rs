//! The fixed point that all mechanisms share: padding, fraction bits, exact bounds, rounding error.

use std::f64::consts::PI;

use super::PrivacyError;
use crate::params::{EncodeParams, MAX_FRACTION_BITS, NO_LINF, norm_kind, rounding_kind};

/// Largest FWHT block, as a power of two.
const MAX_BLOCK_LOG2: u32 = 27;
/// A coordinate's fixed-point magnitude stays below 2 to this power, inside an i32.
const MAGNITUDE_LOG2: u32 = 30;

/// What differs between mechanisms in their `EncodeParams`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodeShape {
    pub(super) dim: usize,
    pub(super) rotate: bool,
    pub(super) bits: u32,
    pub(super) fraction_bits: u32,
    pub(super) norm: u32,
    pub(super) rounding: u32,
    pub(super) linf: u32,
    pub(super) gamma: f64,
    pub(super) clip: f32,
    pub(super) norm_bound: u128,
}

/// `gamma`, `clip` finite and > 0, their product in the fixed point's range, both within f32.
pub(super) fn check_scale(gamma: f64, clip: f64) -> Result<(), PrivacyError> {
    use crate::privacy::accountant::rdp::validate;
    validate::positive("gamma", gamma)?;
    validate::positive("clip", clip)?;
    validate::positive("gamma in f32", f64::from(gamma as f32))?;
    validate::positive("clip in f32", f64::from(clip as f32))?;
    let product = gamma * clip;
    // Below 2^-16 the norm bound in fixed point is 0 and every row would be empty.
    let (low, high) = (1.0 / f64::from(1u32 << MAX_FRACTION_BITS), f64::from(1u32 << MAGNITUDE_LOG2));
    if product >= low && product <= high {
        return Ok(());
    }
    Err(PrivacyError::OutOfRange {
        name: "gamma * clip",
        expected: format!("{low:e} to {high:e}, so that a coordinate fits 32-bit fixed point"),
        found: product.to_string(),
    })
}

/// `min(16, 30 - ceil(log2(gamma C)))`: as many fraction bits as fit.
pub(super) fn fraction_bits(l2_bound: f64) -> u32 {
    let mut fraction = MAX_FRACTION_BITS;
    while fraction > 0 && l2_bound > f64::from(1u32 << (MAGNITUDE_LOG2 - fraction)) {
        fraction -= 1;
    }
    fraction
}

/// Coordinates after padding: a whole number of FWHT blocks if rotated.
pub(crate) fn padded(dim: usize, rotate: bool) -> usize {
    if rotate { dim.max(1).next_multiple_of(1 << block_log2(dim)) } else { dim }
}

/// log2 of the FWHT block of a rotated row: the next power of two, at most 2^27.
fn block_log2(dim: usize) -> u32 {
    dim.max(1).checked_next_power_of_two().map_or(MAX_BLOCK_LOG2, usize::ilog2).min(MAX_BLOCK_LOG2)
}

/// Rotation, an L2 ball of radius `gamma C` held exactly, stochastic rounding.
pub(super) fn rounded_ball(dim: usize, gamma: f64, clip: f64, bits: u32) -> Result<EncodeParams, PrivacyError> {
    let fraction_bits = fraction_bits(gamma * clip);
    encode_params(EncodeShape {
        dim,
        rotate: true,
        bits,
        fraction_bits,
        norm: norm_kind::L2,
        rounding: rounding_kind::STOCHASTIC,
        linf: NO_LINF,
        gamma,
        clip: clip as f32,
        norm_bound: floor_square(gamma * clip, 2 * fraction_bits),
    })
}

pub(super) fn encode_params(shape: EncodeShape) -> Result<EncodeParams, PrivacyError> {
    // 2^31: the largest that leaves room to round up to a block in u32.
    if shape.dim == 0 || shape.dim > 1 << 31 {
        return Err(PrivacyError::OutOfRange {
            name: "dim",
            expected: "1 to 2^31".to_owned(),
            found: shape.dim.to_string(),
        });
    }
    Ok(EncodeParams {
        dim: shape.dim as u32,
        padded: padded(shape.dim, shape.rotate) as u32,
        block_log2: if shape.rotate { block_log2(shape.dim) } else { 0 },
        rotate: u32::from(shape.rotate),
        bits: shape.bits,
        fraction_bits: shape.fraction_bits,
        norm: shape.norm,
        rounding: shape.rounding,
        linf: shape.linf,
        gamma: shape.gamma as f32,
        clip: shape.clip,
        _pad: 0,
        norm_bound: EncodeParams::limbs(shape.norm_bound),
    })
}

/// `floor(value^2 * 2^shift)`, exact for the f64 given; saturates at the ends of u128.
pub(super) fn floor_square(value: f64, shift: u32) -> u128 {
    let (mantissa, exponent) = parts(value);
    shifted(u128::from(mantissa) * u128::from(mantissa), 2 * exponent + shift as i32)
}

/// `value = mantissa * 2^exponent` for a finite value >= 0.
fn parts(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 52) as i32 & 0x7ff, bits & ((1 << 52) - 1));
    if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) }
}

/// `floor(value * 2^exponent)`, saturating.
fn shifted(value: u128, exponent: i32) -> u128 {
    if value == 0 {
        0
    } else if exponent >= 0 {
        if exponent as u32 > value.leading_zeros() { u128::MAX } else { value << exponent }
    } else {
        value.checked_shr(exponent.unsigned_abs()).unwrap_or(0)
    }
}

/// Standard deviation of stochastic rounding on a coordinate `N(0, s^2)`, `s = l2 / sqrt(padded)`.
///
/// With `p = frac x`, `p (1-p) = 1/6 - sum_n cos(2 pi n x)/(pi n)^2`, hence
/// `E[p(1-p)] = 1/6 - sum_n e^(-2 (pi n s)^2) / (pi n)^2`; below s = 0.1 the mass beyond 1 is negligible
/// and it is `E|x| - E x^2 = s sqrt(2/pi) - s^2`. Error below 1e-12 of 1/6.
pub(crate) fn rounding_std(l2_bound: f64, padded: usize) -> f64 {
    let s = l2_bound / (padded.max(1) as f64).sqrt();
    let variance = if s < 0.1 {
        s * (2.0 / PI).sqrt() - s * s
    } else {
        let dropped: f64 = (1..=40)
            .map(|n| {
                let pn = PI * f64::from(n);
                libm::exp(-2.0 * (pn * s) * (pn * s)) / (pn * pn)
            })
            .sum();
        1.0 / 6.0 - dropped
    };
    variance.max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_exact_and_rounded_down() {
        assert_eq!(floor_square(64.0, 32), 4096u128 << 32);
        assert_eq!(floor_square(1.5, 0), 2);
        assert_eq!(floor_square(1e-300, 32), 0);
        assert_eq!(floor_square(1e300, 32), u128::MAX);
        // 0.1 as f64 is 3602879701896397 / 2^55.
        assert_eq!(floor_square(0.1, 32), (3_602_879_701_896_397u128.pow(2)) >> (110 - 32));
    }

    #[test]
    fn fraction_bits_keep_a_row_inside_31_bits() {
        assert_eq!(fraction_bits(64.0), 16);
        assert_eq!(fraction_bits(16_384.0), 16);
        assert_eq!(fraction_bits(16_385.0), 15);
        assert_eq!(fraction_bits((1u64 << 30) as f64), 0);
    }

    #[test]
    fn rounding_error_has_its_limits() {
        // Wide rows: uniform fraction, variance 1/6. One coordinate of 1e4 is wide.
        assert!((rounding_std(1e4, 1).powi(2) - 1.0 / 6.0).abs() < 1e-15);
        // Both branches meet.
        let (below, above) = (rounding_std(0.1 - 1e-12, 1), rounding_std(0.1, 1));
        assert!((below - above).abs() < 1e-10, "{below} {above}");
        // Against a plain sum at s = 0.25.
        let s = 0.25;
        let step = 1e-4;
        let sum: f64 = (-30_000..=30_000)
            .map(|i| {
                let x = f64::from(i) * step;
                let p = x - x.floor();
                p * (1.0 - p) * (-x * x / (2.0 * s * s)).exp()
            })
            .sum();
        let exact = sum * step / (s * (2.0 * PI).sqrt());
        assert!((rounding_std(s, 1).powi(2) - exact).abs() < 1e-7);
    }

    #[test]
    fn blocks_cover_the_row() {
        assert_eq!(padded(65_536, true), 65_536);
        assert_eq!(padded(65_537, true), 131_072);
        assert_eq!(padded(1, true), 1);
        assert_eq!(padded(1000, false), 1000);
        assert_eq!(padded((1 << 27) + 1, true), 1 << 28);
    }
}
