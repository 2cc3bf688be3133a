//! The magnitude that no integer of a client's vector exceeds, for certain: what a lattice field has to hold.
//!
//! ```text
//! |z| <= rounding(min(linf, floor(sqrt(norm)))) + greatest draw of the noise
//! ```
//! The integer half of `encode` holds both bounds of the row exactly. Rounding up adds 1 at most. The samplers have finite
//! support: a table has as many thresholds as its greatest value, a centred binomial of k coin pairs ends at k, and so do
//! coins whose bias is the row.

use super::FlError;
use super::plan::Plan;
use crate::params::{EncodeParams, norm_kind, rounding_kind};
use crate::privacy::mechanism::NoiseLaw;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

/// The sampler of a client's share of the noise, if it draws any.
///
/// # Errors
/// Those of the tables.
pub(super) fn sampler(law: NoiseLaw) -> Result<Option<Noise>, FlError> {
    Ok(match law {
        NoiseLaw::Skellam { mu } => Some(NoiseTable::skellam(mu)?.into()),
        NoiseLaw::DiscreteGaussian { sigma } => Some(NoiseTable::discrete_gaussian(sigma)?.into()),
        // Coins as the sampler counts them; what is too many for it stays so.
        NoiseLaw::CenteredBinomial { coins } => {
            Some(CentredBinomial::new(u32::try_from(coins).unwrap_or(u32::MAX))?.into())
        }
        // The share of one client is neither.
        NoiseLaw::None | NoiseLaw::DiscreteGaussianShares { .. } => None,
    })
}

/// The greatest magnitude of a draw.
fn greatest(noise: &Noise) -> u64 {
    match noise {
        Noise::Table(table) => table.thresholds.len() as u64,
        Noise::Binomial(law) => u64::from(law.k()),
    }
}

/// The greatest magnitude of a coordinate behind the rounding and before the noise.
#[must_use]
pub fn of_rounded(p: &EncodeParams) -> u64 {
    let root = |x: u128| u64::try_from(x.isqrt()).unwrap_or(u64::MAX);
    // The fixed point saturates at 32 bits.
    let clamp = u64::from(p.linf).min(1 << 31);
    let rounded = |fixed: u64| match p.rounding {
        rounding_kind::KEEP => fixed,
        _ => (fixed >> p.fraction_bits) + u64::from(fixed & ((1 << p.fraction_bits) - 1) != 0),
    };
    match p.norm {
        norm_kind::ROUNDED => rounded(clamp).min(root(p.norm_bound())),
        // v(x) >= x^2, in units of 2^-F: x in units of 2^-F has a square of 2^F v at most.
        norm_kind::MIXED => rounded(clamp.min(root(p.norm_bound().saturating_mul(1 << p.fraction_bits)))),
        _ => rounded(clamp.min(root(p.norm_bound()))),
    }
}

/// The magnitude of an integer of a client in a cohort of `size`, before its weight.
///
/// # Errors
/// Those of the tables of its noise.
pub(super) fn certain(plan: &Plan, round: u32, size: usize) -> Result<u64, FlError> {
    // Of coins whose bias is the row nothing else is sent.
    let thrown = plan.mechanism.bias_bits().is_some();
    let mut most = if thrown { 0 } else { of_rounded(&plan.encode_params()?) };
    let layers = super::dropout::tables(&plan.layers(round, size))?;
    for noise in sampler(plan.share(round, size))?.iter().chain(&layers) {
        most = most.saturating_add(greatest(noise));
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::backend::scalar::encode::rounded_row;
    use crate::math::prg::{Cipher, StreamKey};
    use crate::params::NO_LINF;

    /// Rows of one large coordinate, which meets every bound: the greatest integer that comes out is the bound, or one less.
    #[test]
    fn bounds_are_kept_and_met() {
        let key = StreamKey::from_bytes([4; 32], Cipher::ChaCha20);
        for norm in [norm_kind::L2, norm_kind::MIXED, norm_kind::ROUNDED] {
            for rounding in [rounding_kind::STOCHASTIC, rounding_kind::KEEP] {
                for (fraction_bits, linf, bound) in [
                    (8, NO_LINF, 1u128 << 30),
                    (8, 5_000, 1 << 50),
                    (16, NO_LINF, 123_456_789),
                    (0, 77, 99),
                    (4, 1000, 1 << 120),
                ] {
                    let p = EncodeParams {
                        fraction_bits,
                        linf,
                        norm,
                        rounding,
                        norm_bound: EncodeParams::limbs(bound),
                        ..EncodeParams::zeroed()
                    };
                    let certain = of_rounded(&p) as i64;
                    let mut greatest = 0;
                    // What stands for the bound itself, which no shrinking touches.
                    let kept = if rounding == rounding_kind::KEEP { 0 } else { fraction_bits };
                    let met = (certain << kept).min(i64::from(i32::MAX)) as i32;
                    for value in [i32::MAX, i32::MIN, met, (linf.min(1 << 30)) as i32, -3] {
                        for place in 0..20 {
                            let mut row = vec![0; 20];
                            row[place] = value;
                            let (out, _) = rounded_row(&row, &key, &p);
                            greatest = out.iter().map(|v| v.abs()).fold(greatest, i64::max);
                        }
                    }
                    assert!(greatest <= certain, "{p:?}: {greatest} of {certain}");
                    assert!(greatest + 1 + certain / 1000 >= certain, "{p:?}: {greatest} of {certain}");
                }
            }
        }
    }

    #[test]
    fn draws_end_where_the_samplers_end() {
        let binomial = Noise::from(CentredBinomial::new(24).unwrap());
        assert_eq!(greatest(&binomial), 24);
        let table = NoiseTable::skellam(5.0).unwrap();
        let noise = Noise::from(table.clone());
        // All ones, and all but the sign: the greatest magnitude there is.
        let most = table.thresholds.iter().filter(|&&t| (u128::MAX >> 1) >= t).count() as u64;
        assert_eq!(greatest(&noise), most);
    }
}
