//! Matrix mechanisms (DP-FTRL): Gaussian noise that is correlated over the rounds of a run, so that the *prefix sums* of
//! what is released, which are what a model is made of, carry less of it.
//!
//! With the rounds' sums as the rows of X, `C` a lower triangular Toeplitz matrix with ones on its diagonal and Z a
//! discrete Gaussian on the integers, round t releases `X_t + N_t`, where `N = C^-1 Z` up to a rounding to integers that
//! is charged. That is as private as `C X + Z`: one Gaussian release of the whole run, of L2 sensitivity
//! [`Strategy::sensitivity`] times a row's bound. The prefix sums have the errors of `A C^-1 Z`, A all ones below its
//! diagonal ([`Strategy::prefix_error`]). Proofs, and where they stop: `docs/matrix-mechanisms.md`.
//!
//! Sources: Denisov et al. 2022 (adaptive inputs); Choquette-Choo et al. 2023 (banded matrices); Kalinin, Lampert 2024
//! (banded square roots, sensitivity under repeated participation); Dvijotham et al. 2024 and McMahan et al. 2024
//! (buffered linear Toeplitz matrices).

pub mod noise;
mod optimize;

use serde::{Deserialize, Serialize};

use super::mechanism::PrivacyError;

/// Fraction bits of what a matrix is made of: coefficients, decays and weights are integers over `2^40`, exactly.
pub const COEFFICIENT_BITS: u32 = 40;
/// Most rounds of a run.
pub const MAX_ROUNDS: u64 = 1 << 16;
/// Most bands of a banded matrix.
pub const MAX_BANDS: u64 = 4096;
/// Most buffers of a buffered linear Toeplitz matrix.
pub const MAX_DEGREE: u64 = 8;
/// Most that the noise of a round can grow to by correlation, `sum |(C^-1)_k|`: keeps integers within their words.
const MAX_GROWTH: f64 = 256.0;
const ONE: u64 = 1 << COEFFICIENT_BITS;

/// How often one client takes part: at most `max` times, any two of its rounds at least `separation` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Participation {
    /// Most rounds of a client, k >= 1.
    pub max: u64,
    /// Least distance b >= 1 of two of them.
    pub separation: u64,
}

/// What the optimizer makes small, at a fixed privacy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The greatest variance of a prefix sum: that of the last one, the model after the run.
    #[default]
    Max,
    /// The mean variance of the prefix sums.
    Mean,
}

/// A family of matrices, from a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum MatrixKind {
    /// The identity: every round has noise of its own.
    Independent,
    /// The first bands of the square root of A (Kalinin, Lampert 2024): `c_k = binom(2k, k) / 4^k`.
    SquareRoot {
        /// Diagonals that are not zero, 1 to 4096.
        bands: u32,
    },
    /// As many bands, non-negative and falling, found by an optimizer. The server keeps `bands - 1` vectors of integers.
    Banded {
        /// Diagonals that are not zero, 1 to 4096.
        bands: u32,
        /// What the optimizer makes small.
        #[serde(default)]
        objective: Objective,
    },
    /// Buffered linear Toeplitz: `c_k = sum_j weight_j decay_j^(k-1)`, found by an optimizer. The server keeps `degree`
    /// vectors, whatever the number of rounds.
    Blt {
        /// Number of buffers, 1 to 8.
        degree: u32,
        /// What the optimizer makes small.
        #[serde(default)]
        objective: Objective,
    },
}

/// The root of the mean square of a prefix sum's noise, for noise Z of standard deviation 1: of the worst prefix, and over
/// all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrefixError {
    /// Of the worst prefix sum, which is the last one.
    pub max: f64,
    /// Root of the mean over the prefixes.
    pub mean: f64,
}

/// What the first column of C is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    /// `c_0 = ONE, c_1, ...`; zero afterwards.
    Banded(Vec<u64>),
    /// `c_0 = 1`, `c_k = sum_j weight_j decay_j^(k-1)`.
    Blt { decay: Vec<u64>, weight: Vec<u64> },
}

/// A matrix C for a number of rounds: lower triangular, Toeplitz, `c_0 = 1`, non-negative and not increasing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    rounds: u64,
    factor: Factor,
}

fn out_of_range(name: &'static str, expected: String, found: impl ToString) -> PrivacyError {
    PrivacyError::OutOfRange { name, expected, found: found.to_string() }
}

fn within(name: &'static str, most: u64, found: u64) -> Result<(), PrivacyError> {
    if (1..=most).contains(&found) { Ok(()) } else { Err(out_of_range(name, format!("1 to {most}"), found)) }
}

/// The nearest integer over `2^40` of a number in `[0, 1]`.
fn grid(name: &'static str, value: f64) -> Result<u64, PrivacyError> {
    if (0.0..=1.0).contains(&value) {
        // Below 2^41, exactly an integer.
        return Ok((value * ONE as f64).round() as u64);
    }
    Err(out_of_range(name, "in [0, 1]".into(), value))
}

/// A number of the grid as a double: exact.
fn real(value: u64) -> f64 {
    value as f64 / ONE as f64
}

impl Participation {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a zero.
    pub fn validate(self) -> Result<(), PrivacyError> {
        within("participations", u64::MAX, self.max)?;
        within("separation", u64::MAX, self.separation)
    }
}

impl Strategy {
    /// The matrix of a family for `rounds` rounds; the optimized ones for `participation`. The same bits everywhere.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for 0 or too many rounds, bands or buffers.
    pub fn new(kind: MatrixKind, rounds: u64, participation: Participation) -> Result<Self, PrivacyError> {
        within("rounds", MAX_ROUNDS, rounds)?;
        participation.validate()?;
        let limit = |bands: u32| {
            within("bands", MAX_BANDS, u64::from(bands))?;
            // Further diagonals lie outside the matrix.
            Ok::<_, PrivacyError>(u64::from(bands).min(rounds) as usize)
        };
        let goal = |objective| optimize::Goal { rounds: rounds as usize, participation, objective };
        match kind {
            MatrixKind::Independent => Self::banded(&[1.0], rounds),
            MatrixKind::SquareRoot { bands } => Self::banded(&square_root(limit(bands)?), rounds),
            MatrixKind::Banded { bands, objective } => {
                Self::banded(&optimize::banded(limit(bands)?, &goal(objective)), rounds)
            }
            MatrixKind::Blt { degree, objective } => {
                within("degree", MAX_DEGREE, u64::from(degree))?;
                let (decay, weight) = optimize::blt(degree as usize, &goal(objective));
                Self::blt(&decay, &weight, rounds)
            }
        }
    }

    /// The banded matrix of these coefficients, each rounded to an integer over `2^40`.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless `1 = c_0 >= c_1 >= ... >= 0`: of others the sensitivity is not proved.
    pub fn banded(coefficients: &[f64], rounds: u64) -> Result<Self, PrivacyError> {
        within("bands", MAX_BANDS, coefficients.len() as u64)?;
        let c = coefficients.iter().map(|&c| grid("coefficient", c)).collect::<Result<Vec<_>, _>>()?;
        if c.first() != Some(&ONE) || c.windows(2).any(|pair| pair[0] < pair[1]) {
            return Err(out_of_range(
                "coefficients",
                "1 first, then not increasing".into(),
                format!("{coefficients:?}"),
            ));
        }
        Self { rounds, factor: Factor::Banded(c) }.checked()
    }

    /// The buffered linear Toeplitz matrix of these decays and weights, each rounded to an integer over `2^40`.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] unless there are as many decays in `[0, 1)` as weights `>= 0` whose sum is at most 1:
    /// then `1 >= c_1 >= c_2 >= ...`, and of others the sensitivity is not proved.
    pub fn blt(decay: &[f64], weight: &[f64], rounds: u64) -> Result<Self, PrivacyError> {
        within("degree", MAX_DEGREE, decay.len() as u64)?;
        let each = |name, values: &[f64]| values.iter().map(|&v| grid(name, v)).collect::<Result<Vec<_>, _>>();
        let (decay, weight) = (each("decay", decay)?, each("weight", weight)?);
        if let Some(&one) = decay.iter().find(|&&d| d >= ONE) {
            return Err(out_of_range("decay", "below 1".into(), real(one)));
        }
        if weight.len() != decay.len() || weight.iter().sum::<u64>() > ONE {
            return Err(out_of_range("weights", "one a decay, of sum at most 1".into(), format!("{weight:?} / 2^40")));
        }
        Self { rounds, factor: Factor::Blt { decay, weight } }.checked()
    }

    fn checked(self) -> Result<Self, PrivacyError> {
        within("rounds", MAX_ROUNDS, self.rounds)?;
        let growth: f64 = self.inverse().iter().map(|v| v.abs()).sum();
        if growth <= MAX_GROWTH {
            return Ok(self);
        }
        Err(out_of_range("sum |(C^-1)_k|", format!("at most {MAX_GROWTH}, so that the noise fits its words"), growth))
    }

    /// Rounds of the run, the size of C.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// True if rounds have noise of their own.
    #[must_use]
    pub fn is_independent(&self) -> bool {
        matches!(&self.factor, Factor::Banded(c) if c.len() == 1)
    }

    pub(crate) fn factor(&self) -> &Factor {
        &self.factor
    }

    /// The first column of C. Of a banded matrix exact; else within `(rounds + 16) 2^-52` of each.
    #[must_use]
    pub fn coefficients(&self) -> Vec<f64> {
        let rounds = self.rounds as usize;
        match &self.factor {
            Factor::Banded(c) => {
                let mut all: Vec<f64> = c.iter().take(rounds).map(|&c| real(c)).collect();
                all.resize(rounds, 0.0);
                all
            }
            Factor::Blt { decay, weight } => {
                let mut terms: Vec<(f64, f64)> = decay.iter().zip(weight).map(|(&d, &w)| (real(d), real(w))).collect();
                let mut all = vec![1.0; rounds];
                for c in all.iter_mut().skip(1) {
                    *c = terms.iter().map(|t| t.1).sum();
                    terms.iter_mut().for_each(|t| t.1 *= t.0);
                }
                all
            }
        }
    }

    /// The first column of `C^-1`.
    fn inverse(&self) -> Vec<f64> {
        let mut impulse = vec![0.0; self.rounds as usize];
        impulse[0] = 1.0;
        self.solve(impulse)
    }

    /// `C^-1` times a vector, in double precision.
    #[must_use]
    pub fn solve(&self, mut x: Vec<f64>) -> Vec<f64> {
        match &self.factor {
            Factor::Banded(c) => {
                let c: Vec<f64> = c.iter().skip(1).map(|&c| real(c)).collect();
                optimize::solve_banded(&c, &mut x);
            }
            Factor::Blt { decay, weight } => {
                let real = |v: &[u64]| v.iter().map(|&v| real(v)).collect::<Vec<_>>();
                optimize::solve_blt(&real(decay), &real(weight), &mut x);
            }
        }
        x
    }

    /// `max |sum over i in P of C e_i|_2` over the sets P of rounds that `participation` allows: how far one client whose
    /// rows have norm 1 can move `C X`, whichever way its rows point. Rounded up.
    ///
    /// C is non-negative with falling coefficients, so that the worst rounds are `0, b, 2b, ...` (Kalinin, Lampert 2024,
    /// Theorem 2; a proof is in `docs/matrix-mechanisms.md`).
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a participation of 0.
    pub fn sensitivity(&self, participation: Participation) -> Result<f64, PrivacyError> {
        participation.validate()?;
        let v = optimize::worst_column(&self.coefficients(), participation);
        let square: f64 = v.iter().map(|v| v * v).sum();
        // All terms are >= 0, and none has more than `2 rounds + 16` roundings behind it.
        Ok(square.sqrt() * (1.0 + (4.0 * self.rounds as f64 + 32.0) * f64::EPSILON))
    }

    /// The errors of the prefix sums of `C^-1 Z` for independent entries of Z of standard deviation 1.
    #[must_use]
    pub fn prefix_error(&self) -> PrefixError {
        let b = self.solve(vec![1.0; self.rounds as usize]);
        let n = self.rounds as f64;
        let max: f64 = b.iter().map(|b| b * b).sum();
        let mean: f64 = b.iter().enumerate().map(|(t, b)| (n - t as f64) * b * b).sum();
        PrefixError { max: max.sqrt(), mean: (mean / n).sqrt() }
    }

    /// Standard deviation of a round's noise `N_t` over that of Z: at most this.
    #[must_use]
    pub fn round_error(&self) -> f64 {
        self.inverse().iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    /// How far the rounding of N to integers can move one coordinate of `C X + Z` over all rounds, in the L2 norm:
    /// `2 eta sqrt m`, eta the greatest error of a rounding, m the number of rounds that one client's rows can reach.
    #[must_use]
    pub fn rounding(&self, participation: Participation) -> f64 {
        let times = participation.max.min(self.rounds.div_ceil(participation.separation.max(1)));
        let (eta, rounds) = match &self.factor {
            Factor::Banded(c) => (0.5, times.saturating_mul(c.len() as u64 - 1).min(self.rounds - 1)),
            Factor::Blt { decay, weight } => {
                let reach = |&d: &u64| (1.0 / (1.0 - real(d))).min(self.rounds as f64);
                let buffers: f64 = decay.iter().zip(weight).map(|(d, &w)| real(w) * reach(d)).sum();
                (0.5 + 0.5 * buffers * noise::BUFFER_UNIT, self.rounds - 1)
            }
        };
        2.0 * eta * (rounds as f64).sqrt() * (1.0 + 1e-12)
    }

    /// Vectors that a server keeps between rounds.
    #[must_use]
    pub fn buffers(&self) -> usize {
        match &self.factor {
            Factor::Banded(c) => c.len() - 1,
            Factor::Blt { decay, .. } => decay.len(),
        }
    }
}

/// `binom(2k, k) / 4^k` for `k < bands`: the first column of the square root of the all-ones lower triangle.
fn square_root(bands: usize) -> Vec<f64> {
    let mut c = vec![1.0; bands];
    for k in 1..bands {
        c[k] = c[k - 1] * (2.0 * k as f64 - 1.0) / (2.0 * k as f64);
    }
    c
}
