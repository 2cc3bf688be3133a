//! The table of Poisson(mu) - Poisson(mu).

use num_bigint::BigUint;

use super::NoiseTable;
use crate::sample::{SampleError, dyadic, within};

/// Largest mu of a table: its law has [`MAX_THRESHOLDS`](super::MAX_THRESHOLDS) thresholds or slightly fewer.
pub const MAX_MU: f64 = 1.2e7;
/// Smallest mu of a table: below it no draw of a lifetime differs from zero.
pub const MIN_MU: f64 = 1e-60;

/// G: the recurrence starts at `2^G`, so that truncations lose at most `max(N, mu) 2^-G` of any term.
const GUARD_BITS: u32 = 192;
/// The recurrence starts where Chernoff's bound of one tail is below `2^-CUT_BITS`.
const CUT_BITS: f64 = 160.0;

/// log2 of Chernoff's bound `P[X >= n] <= e^(2 mu (cosh t - 1) - t n)` at its best `t = asinh(n / 2 mu)`.
fn log2_tail(mu: f64, n: f64) -> f64 {
    let x = 2.0 * mu;
    let root = x.hypot(n);
    // 2 mu (cosh t - 1) = root - x, written without its cancellation.
    (n * n / (root + x) - n * libm::asinh(n / x)) * std::f64::consts::LOG2_E
}

/// The least `n` whose tail is below `2^-CUT_BITS` (with a bit to spare for the rounding of the bound).
fn cut(mu: f64) -> u64 {
    let (mut low, mut high) = (0u64, 1 << 20);
    while low < high {
        let middle = (low + high) / 2;
        if log2_tail(mu, middle as f64) < -CUT_BITS - 1.0 {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// `f_0 ..= f_N` proportional to the Bessel functions `I_k(2 mu)`, by Miller's recurrence
/// `f_(k-1) = f_(k+1) + (k / mu) f_k` downwards from `f_(N+1) = 0`, `f_N = 2^G`; quotients are truncated.
fn bessel_terms(mu: f64, n: u64) -> Vec<BigUint> {
    let (m, e) = dyadic(mu);
    let mut terms = vec![BigUint::ZERO; n as usize + 2];
    terms[n as usize] = BigUint::from(1u32) << GUARD_BITS;
    for k in (1..=n).rev() {
        let product = &terms[k as usize] * k;
        let quotient = if e >= 0 { (product >> e as u32) / m } else { (product << e.unsigned_abs()) / m };
        terms[k as usize - 1] = quotient + &terms[k as usize + 1];
    }
    terms.truncate(n as usize + 1);
    terms
}

impl NoiseTable {
    /// The table of Poisson(mu) - Poisson(mu); `mu` is the exact number that the `f64` holds.
    ///
    /// `P[X = k] = e^(-2 mu) I_k(2 mu)` needs no exponential, because `I_0 + 2 sum_(k>=1) I_k = e^(2 mu)`: with
    /// the terms `f_k` of Miller's recurrence, cut at N, the table holds
    /// `thresholds[k] = round(2^127 C_k / C_N)`, `C_k = f_0 + 2 (f_1 + ... + f_k)`, as long as that is below
    /// `2^127`.
    ///
    /// # The bound `total_variation`
    /// Write `p_k` for the law, `x = 2 mu`, and `tau` for Chernoff's bound of `P[X >= N + 1]`.
    /// 1. *Cut.* The recurrence has the solutions `I_k(x)` and `(-1)^k K_k(x)`. In exact arithmetic
    ///    `f_k = A (I_k -+ I_(N+1) K_k / K_(N+1))`, and `K_k` grows with k, so `|f_k e^-x / A - p_k| <= p_(N+1) <=
    ///    tau` for each of the `2N + 1` terms; what lies beyond N weighs at most `2 tau`. Normalising at most
    ///    keeps the total variation below this l1 distance: `(2N + 3) tau`.
    /// 2. *Truncation.* All coefficients are positive, so relative errors only pass on, and each step adds at
    ///    most `1 / f_(k-1)`. Since `f_(k-1) >= f_(k+1)` and `f_(N-1) = (N / mu) f_N`, every term is at least
    ///    `2^G min(1, N / mu)`: all are within `max(N, mu) 2^-G + N 2^-G` of their exact value, relatively, and
    ///    so is every probability.
    /// 3. *Thresholds.* Their rounding and the mass beyond the last: `(K + 2) 2^-128`.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`] outside `1e-60 <= mu <= 1.2e7`: a larger mu would need more than
    /// [`MAX_THRESHOLDS`](super::MAX_THRESHOLDS) thresholds.
    pub fn skellam(mu: f64) -> Result<Self, SampleError> {
        within("mu", mu, MIN_MU, MAX_MU)?;
        let n = cut(mu);
        let terms = bessel_terms(mu, n);
        let thresholds = super::thresholds(&terms);
        let total_variation = total_variation(mu, n, thresholds.len());
        Ok(Self { thresholds, variance: 2.0 * mu, total_variation })
    }
}

/// The bound that [`NoiseTable::skellam`] proves, rounded up.
fn total_variation(mu: f64, n: u64, thresholds: usize) -> f64 {
    let count = n as f64;
    let cut = (2.0 * count + 3.0) * log2_tail(mu, count + 1.0).exp2();
    let truncation = (count.max(mu) + count) * (-f64::from(GUARD_BITS)).exp2();
    (cut + truncation + super::rounding(thresholds)) * (1.0 + 1e-9)
}

#[cfg(test)]
mod tests {
    use num_traits::ToPrimitive;

    use super::super::MAX_THRESHOLDS;
    use super::*;

    fn probability(table: &NoiseTable, k: usize) -> f64 {
        let below = if k == 0 { 0 } else { table.thresholds[k - 1] };
        (table.thresholds[k] - below) as f64 / 2f64.powi(127)
    }

    /// `e^-1 I_k(1)` to 16 digits: mu = 1/2.
    #[test]
    fn half() {
        let table = NoiseTable::skellam(0.5).unwrap();
        for (k, p) in [(0, 0.465_759_607_593_640_3), (1, 0.207_910_415_349_708_5), (2, 0.049_938_776_894_223_5)] {
            let found = probability(&table, k) / if k == 0 { 1.0 } else { 2.0 };
            assert!((found - p).abs() < 1e-15, "{k}: {found}");
        }
    }

    #[test]
    fn tables_are_increasing_and_have_their_variance() {
        for mu in [1e-60, 1e-9, 0.01, 0.5, 5.95, 595.0, 1428.0, 1e5] {
            let table = NoiseTable::skellam(mu).unwrap();
            assert!(table.thresholds.is_sorted() && table.thresholds.iter().all(|&t| t < 1 << 127));
            let variance: f64 = (0..table.thresholds.len()).map(|k| (k * k) as f64 * probability(&table, k)).sum();
            assert!((variance - 2.0 * mu).abs() <= 1e-11 * mu + 1e-35, "{mu}: {variance}");
            assert_eq!(table.variance, 2.0 * mu);
            let bound = (table.thresholds.len() as f64 + 3.0) * 2f64.powi(-128);
            assert!(table.total_variation <= bound && table.total_variation > 0.0, "{mu}");
            // The mass above the last threshold, with the next term, is below one unit.
            if let Some(last) = table.thresholds.last() {
                assert!((1u128 << 127) - last <= 1 << 40, "{mu}: {}", (1u128 << 127) - last);
            }
        }
    }

    /// Twice the guard bits and a later start change no threshold by more than the rounding.
    #[test]
    fn thresholds_do_not_depend_on_where_the_recurrence_starts() {
        for mu in [0.3, 5.95, 1428.0] {
            let table = NoiseTable::skellam(mu).unwrap();
            let terms = bessel_terms(mu, 2 * cut(mu));
            let total = terms.iter().sum::<BigUint>() * 2u32 - &terms[0];
            let mut cumulative = terms[0].clone();
            for (k, &t) in table.thresholds.iter().enumerate() {
                let exact = (&cumulative << 127u32) / &total;
                assert!(exact.to_u128().unwrap().abs_diff(t) <= 1, "{mu} {k}");
                cumulative += &terms[k + 1] * 2u32;
            }
        }
    }

    #[test]
    fn the_limits_are_errors_and_the_largest_table_fits() {
        for mu in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.3e7, 1e-61] {
            assert!(matches!(NoiseTable::skellam(mu), Err(SampleError::OutOfRange { most: MAX_MU, .. })), "{mu}");
        }
        // The count of thresholds is where two Gaussian-like tails reach 2^-128.
        let n = cut(MAX_MU);
        assert!(n < (MAX_THRESHOLDS as u64 * 5) / 4, "{n}");
        let k = MAX_THRESHOLDS as f64;
        assert!(1.0 + log2_tail(MAX_MU, k) < -128.0, "{}", log2_tail(MAX_MU, k));
    }
}
