//! `poisson-binomial` (Chen, Ozgur, Kairouz 2022, Algorithm 2, on rotated rows held inside an L2 ball).
//!
//! A row is rotated and scaled by gamma: coordinate x becomes the bias `s = gamma x` of m coins, cut at theta, and the client adds
//! up its heads less m/2. No other noise is added: the sum of the coins is the noise, of variance at most `m/4` a client and of a
//! few bits a coordinate. The cost is that of [`DpEvent::PoissonBinomialVector`] (`docs/poisson-binomial.md`).
//!
//! **theta.** A coordinate of a rotated row of norm R is a Rademacher sum of squared weights `R^2/d`: beyond `R t / sqrt d` with a
//! probability of at most `2 e^(-t^2/2)` (Hoeffding). With `t = sqrt(2 ln(2 d / beta))` a row of full norm has a coordinate that is
//! cut with probability at most beta. Privacy rests on the cut and on the norm, both exact, never on beta.

use super::fixed::{self, EncodeShape};
use super::{Mechanism, NoiseLaw, PrivacyError};
use crate::params::{EncodeParams, norm_kind, rounding_kind};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::{DpEvent, NeighboringRelation};
use crate::sample::binomial::MAX_K;

/// Largest bias of a coin.
pub const MOST_BIAS: f64 = 0.25;
/// Most coins of a client on a coordinate.
pub const MOST_COINS: u64 = 2 * MAX_K as u64;
/// Fraction bits of `encode`; the scale brings as many more as fit.
const FRACTION_BITS: u32 = 16;
/// `gamma C` of `encode` is at most 2 to this power, so that a coordinate fits its 31 bits.
const SCALE_LOG2: i32 = 14;

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonBinomialParams {
    /// Bias of a coin for a coordinate of 1. Finite, > 0.
    pub gamma: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Ring width b, 2..=32.
    pub bits: u32,
    /// m: coins of a client on a coordinate, even, 2 to 8192.
    pub coins: u64,
    /// n: clients that take part, all of them in every sum, at least 1.
    pub clients: u64,
    /// Share of rows of full norm of which a coordinate may be cut, in (0, 1).
    pub beta: f64,
}

/// The mechanism with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonBinomial {
    params: PoissonBinomialParams,
}

/// theta for rows of norm `l2` in units of the bias, on `padded` coordinates; above [`MOST_BIAS`] no such mechanism exists.
#[must_use]
pub fn theta(l2: f64, padded: u64, beta: f64) -> f64 {
    // A block of the rotation spreads no further than itself.
    let block = padded.min(1 << 27) as f64;
    let reach = (2.0 * libm::log(2.0 * padded as f64 / beta)).sqrt();
    l2 * (reach / block.sqrt()).min(1.0)
}

/// The largest gamma at which [`theta`] is allowed.
#[must_use]
pub fn largest_gamma(clip: f64, padded: u64, beta: f64) -> f64 {
    MOST_BIAS / theta(clip, padded, beta) * (1.0 - 1e-12)
}

/// Further bits of a bias beside [`FRACTION_BITS`]: a factor 2 to this power on gamma.
fn shift(l2: f64) -> i32 {
    let above = (libm::log2(l2) + 1e-12).ceil() as i32;
    // No more than 31 bits in all.
    (SCALE_LOG2 - above).min(15)
}

impl PoissonBinomial {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a parameter outside its range.
    pub fn new(params: PoissonBinomialParams) -> Result<Self, PrivacyError> {
        let refuse = |name, expected: String, found: String| Err(PrivacyError::OutOfRange { name, expected, found });
        let PoissonBinomialParams { gamma, clip, bits, coins, clients, beta } = params;
        validate::bits(bits)?;
        validate::positive("gamma", gamma)?;
        validate::positive("clip", clip)?;
        validate::positive("clients", clients as f64)?;
        if !(beta > 0.0 && beta < 1.0) {
            return refuse("beta", "a number in (0, 1)".to_owned(), beta.to_string());
        }
        if !(2..=MOST_COINS).contains(&coins) || coins % 2 == 1 {
            return refuse("coins", format!("an even number, 2 to {MOST_COINS}, of each client"), coins.to_string());
        }
        if clients.checked_mul(coins / 2).is_none_or(|all| all > 1 << 31) {
            return refuse("coins", format!("at most 2^32 over all {clients} clients"), coins.to_string());
        }
        // Below, nothing of a row would be left.
        let l2 = gamma * clip;
        if !(1e-6..=1e6).contains(&l2) {
            return refuse("gamma * clip", "a number in [1e-6, 1e6]".to_owned(), l2.to_string());
        }
        fixed::check_scale(libm::ldexp(gamma, shift(l2)), clip)?;
        Ok(Self { params })
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> PoissonBinomialParams {
        self.params
    }

    fn l2(&self) -> f64 {
        self.params.gamma * self.params.clip
    }

    /// Bits of a bias behind the point.
    fn precision(&self) -> u32 {
        (FRACTION_BITS as i32 + shift(self.l2())).clamp(2, 31) as u32
    }

    /// The cut, in units of `2^-precision`, for rows of `dim` coordinates.
    fn cut(&self, dim: usize) -> Result<u32, PrivacyError> {
        let padded = fixed::padded(dim, true) as u64;
        let theta = theta(self.l2(), padded, self.params.beta);
        if theta > MOST_BIAS {
            return Err(PrivacyError::OutOfRange {
                name: "gamma",
                expected: format!(
                    "at most {:e}: a coordinate of a row of {dim} must not bias a coin by more than 1/4",
                    largest_gamma(self.params.clip, padded, self.params.beta)
                ),
                found: self.params.gamma.to_string(),
            });
        }
        Ok(libm::ldexp(theta, self.precision() as i32).floor().max(1.0) as u32)
    }
}

impl Mechanism for PoissonBinomial {
    fn name(&self) -> &'static str {
        "poisson-binomial"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        let precision = self.precision();
        fixed::encode_params(EncodeShape {
            dim,
            rotate: true,
            bits: self.params.bits,
            fraction_bits: FRACTION_BITS,
            norm: norm_kind::L2,
            rounding: rounding_kind::KEEP,
            linf: self.cut(dim)?,
            gamma: libm::ldexp(self.params.gamma, shift(self.l2())),
            clip: self.params.clip as f32,
            norm_bound: fixed::floor_square(self.l2(), 2 * precision),
        })
    }

    /// That of rows of zeros, exactly.
    fn noise(&self) -> NoiseLaw {
        NoiseLaw::CenteredBinomial { coins: self.params.clients * (self.params.coins / 2) }
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        let PoissonBinomialParams { coins, clients, .. } = self.params;
        // Where `encode_params` is an error the event is never used; it then says the worst.
        let most_bias = self.cut(dim).map_or(MOST_BIAS, |cut| libm::ldexp(f64::from(cut), -(self.precision() as i32)));
        let others = (clients - 1) * coins;
        DpEvent::PoissonBinomialVector { coins, others, most_bias, l2_bound: self.l2().next_up() }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    fn certified(&self) -> bool {
        true
    }

    /// None: the coins are the noise.
    fn rounding_std(&self, _dim: usize) -> f64 {
        0.0
    }

    fn unit(&self) -> f64 {
        1.0 / (self.params.coins as f64 * self.params.gamma)
    }

    fn bias_bits(&self) -> Option<u32> {
        Some(self.precision())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: PoissonBinomialParams =
        PoissonBinomialParams { gamma: 0.5, clip: 1.0, bits: 16, coins: 8, clients: 100, beta: 1e-4 };

    #[test]
    fn a_row_keeps_its_bias_bits_and_its_bounds() {
        for gamma in [1e-4, 0.01, 0.5, 0.9, 3.0] {
            let one = PoissonBinomial::new(PoissonBinomialParams { gamma, ..OK }).unwrap();
            let (dim, params) = (60_000, one.encode_params(60_000).unwrap());
            let bits = one.bias_bits().unwrap();
            let unit = libm::ldexp(1.0, -(bits as i32));
            // The scale, the cut and the norm of `encode` in units of the bias.
            let scale = f64::from(params.gamma) * f64::from(1u32 << params.fraction_bits) * unit;
            assert!((scale / gamma - 1.0).abs() < 1e-6 && bits <= 31, "{gamma}: {scale} {bits}");
            let norm = (params.norm_bound() as f64).sqrt() * unit;
            assert!(norm <= gamma * 1.000_000_1 && norm > gamma * 0.999, "{gamma}: {norm}");
            let DpEvent::PoissonBinomialVector { coins, others, most_bias, l2_bound } = one.event(dim) else {
                panic!()
            };
            assert_eq!((coins, others, params.padded), (8, 8 * 99, 65_536));
            assert_eq!(most_bias, f64::from(params.linf) * unit);
            assert!(
                l2_bound >= norm && most_bias <= MOST_BIAS && most_bias > gamma * 5.0 / 256.0,
                "{gamma}: {most_bias}"
            );
            assert_eq!((one.unit(), one.noise().variance()), (1.0 / (8.0 * gamma), 200.0));
        }
    }

    #[test]
    fn bad_parameters_are_refused() {
        for bad in [
            PoissonBinomialParams { coins: 0, ..OK },
            PoissonBinomialParams { coins: 3, ..OK },
            PoissonBinomialParams { coins: 8194, ..OK },
            PoissonBinomialParams { clients: 0, ..OK },
            PoissonBinomialParams { clients: u64::MAX, ..OK },
            PoissonBinomialParams { gamma: 0.0, ..OK },
            PoissonBinomialParams { gamma: f64::NAN, ..OK },
            PoissonBinomialParams { gamma: 1e9, ..OK },
            PoissonBinomialParams { clip: -1.0, ..OK },
            PoissonBinomialParams { bits: 33, ..OK },
            PoissonBinomialParams { beta: 0.0, ..OK },
        ] {
            assert!(matches!(PoissonBinomial::new(bad), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
        }
        // On few coordinates a large row needs larger biases than there are.
        let wide = PoissonBinomial::new(OK).unwrap();
        let Err(PrivacyError::OutOfRange { name: "gamma", .. }) = wide.encode_params(16) else { panic!() };
        let most = largest_gamma(1.0, 16, OK.beta);
        let fits = PoissonBinomial::new(PoissonBinomialParams { gamma: most, ..OK }).unwrap();
        assert!(fits.encode_params(16).is_ok());
    }
}
