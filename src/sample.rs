//! Exact samplers of integer noise: rational oracles, and tables for constant-time draws.
//!
//! The oracles take rational parameters and use uniform integers as their only randomness; no law rests on
//! floating point. They are not constant time: secret noise comes from [`noise::Noise`] through a backend, except
//! for [`discrete_gaussian::add`], which a trusted aggregator runs on its own machine, and for [`uniform`], whose laws the
//! lattice schemes draw on the host.

pub mod bernoulli;
pub mod binomial;
pub mod discrete_gaussian;
pub mod discrete_laplace;
pub mod law;
pub mod noise;
pub mod poisson;
pub mod poisson_binomial;
pub mod skellam;
pub mod statistics;
pub mod table;
pub mod uniform;

/// What a sampler refuses.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A fraction over zero.
    #[error("{name} is {numerator}/0: the denominator must be at least 1")]
    ZeroDenominator {
        /// Parameter.
        name: &'static str,
        /// Numerator found.
        numerator: i64,
    },
    /// A negative parameter.
    #[error("{name} is {numerator}/{denominator}: it must not be negative")]
    Negative {
        /// Parameter.
        name: &'static str,
        /// Numerator found.
        numerator: i64,
        /// Denominator found.
        denominator: i64,
    },
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {least} to {most}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// Least value allowed.
        least: f64,
        /// Greatest value allowed.
        most: f64,
        /// Value found.
        found: f64,
    },
}

/// Checks that `numerator / denominator` is a fraction `>= 0`; returns it without signs.
fn fraction(name: &'static str, numerator: i64, denominator: i64) -> Result<(u64, u64), SampleError> {
    match (u64::try_from(numerator), u64::try_from(denominator)) {
        (_, Ok(0)) => Err(SampleError::ZeroDenominator { name, numerator }),
        (Ok(n), Ok(d)) => Ok((n, d)),
        _ => Err(SampleError::Negative { name, numerator, denominator }),
    }
}

/// Checks that `least <= found <= most`; refuses NaN.
fn within(name: &'static str, found: f64, least: f64, most: f64) -> Result<(), SampleError> {
    if found >= least && found <= most { Ok(()) } else { Err(SampleError::OutOfRange { name, least, most, found }) }
}

/// The integer `m` and exponent `e` with `x = m 2^e`, `m` odd, of a finite `x > 0`.
fn dyadic(x: f64) -> (u64, i32) {
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let stored = bits & ((1 << 52) - 1);
    let (m, e) = if exponent == 0 { (stored, -1074) } else { (stored | 1 << 52, exponent - 1075) };
    let zeros = m.trailing_zeros().min(63);
    (m >> zeros, e + zeros as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_split_exactly() {
        for x in [1.0, 5.95, 0.1, 1e5, f64::MIN_POSITIVE, 5e-324, f64::MAX, 1428.0] {
            let (m, e) = dyadic(x);
            assert_eq!(m % 2, 1);
            assert_eq!(m as f64 * 2f64.powi(e.max(-1000)) * 2f64.powi(e - e.max(-1000)), x);
        }
    }

    #[test]
    fn fractions_are_checked() {
        assert_eq!(fraction("rate", 4, 3), Ok((4, 3)));
        assert!(matches!(fraction("rate", 4, 0), Err(SampleError::ZeroDenominator { numerator: 4, .. })));
        assert!(matches!(fraction("rate", -4, 0), Err(SampleError::ZeroDenominator { numerator: -4, .. })));
        for (n, d) in [(-1, 2), (1, -2), (-1, -2)] {
            assert!(matches!(fraction("rate", n, d), Err(SampleError::Negative { .. })));
        }
    }
}
