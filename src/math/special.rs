//! Special functions in f64 with stated error: log-binomials, log-sum-exp, the normal tail.

/// `ln C(n, k)`; negative infinity for `k > n`.
///
/// Absolute error about `1e-15 n ln n` (differences of `libm::lgamma`).
#[must_use]
pub fn ln_binomial(n: u32, k: u32) -> f64 {
    if k > n {
        return f64::NEG_INFINITY;
    }
    if k == 0 || k == n {
        return 0.0;
    }
    let ln_factorial = |m: u32| libm::lgamma(f64::from(m) + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// `ln sum exp(terms)` without overflow; negative infinity for no terms, infinity if a term is.
#[must_use]
pub fn log_sum_exp(terms: &[f64]) -> f64 {
    let max = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max.is_infinite() {
        return max;
    }
    max + libm::log(terms.iter().map(|&t| libm::exp(t - max)).sum::<f64>())
}

/// The x with `P[N(0, 1) > x] = tail`, for `tail` in (0, 1); infinite at the ends, NaN outside.
///
/// Abramowitz, Stegun 26.2.23 (off by less than 4.5e-4), then three steps of Halley's method on [`normal_tail`]; relative
/// error of the tail at the result below 1e-13 for `tail <= 1/2`. Above one half it is that of `1 - tail`.
#[must_use]
pub fn normal_tail_quantile(tail: f64) -> f64 {
    if tail > 0.5 {
        return -normal_tail_quantile(1.0 - tail);
    }
    if tail <= 0.0 {
        return if tail == 0.0 { f64::INFINITY } else { f64::NAN };
    }
    let t = libm::sqrt(-2.0 * libm::log(tail));
    let top = 2.515517 + t * (0.802853 + t * 0.010328);
    let below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308));
    let mut x = t - top / below;
    for _ in 0..3 {
        // The tail over the density, minus what it should be: Newton's step, and half the curvature x of it.
        let density = libm::exp(-0.5 * x * x) / (2.0 * std::f64::consts::PI).sqrt();
        let step = (normal_tail(x) - tail) / density;
        if step.is_finite() {
            x += step / (1.0 + 0.5 * x * step);
        }
    }
    x
}

/// `P[|N(0, sigma^2)| >= bound]` for `sigma >= 0`, relative error about 1e-15.
///
/// A `sigma` of zero gives 0 for a positive bound and 1 otherwise.
#[must_use]
pub fn normal_two_sided_tail(bound: f64, sigma: f64) -> f64 {
    if bound <= 0.0 {
        1.0
    } else if sigma <= 0.0 {
        0.0
    } else {
        libm::erfc(bound / (sigma * std::f64::consts::SQRT_2))
    }
}

/// `P[N(0, 1) > x]`, relative error about `(4 + x^2) 2^-53`.
#[must_use]
pub fn normal_tail(x: f64) -> f64 {
    0.5 * libm::erfc(x * std::f64::consts::FRAC_1_SQRT_2)
}

/// Mills' ratio `P[N(0, 1) > x] / phi(x)` for `x >= 0`, without underflow, relative error below 1e-13.
///
/// Below 6 by its definition, above by the continued fraction `1/(x + 1/(x + 2/(x + ...)))` (Abramowitz, Stegun
/// 26.2.14), of which 60 terms are far more than are needed there.
#[must_use]
pub fn mills_ratio(x: f64) -> f64 {
    if x < 6.0 {
        return normal_tail(x) * (2.0 * std::f64::consts::PI).sqrt() * libm::exp(0.5 * x * x);
    }
    1.0 / (1..=60).rev().fold(x, |below, k| x + f64::from(k) / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomials_match_pascal() {
        let mut row = vec![1.0f64];
        for n in 1..=60u32 {
            let mut next = vec![1.0; n as usize + 1];
            for k in 1..n as usize {
                next[k] = row[k - 1] + row[k];
            }
            row = next;
            for (k, &exact) in row.iter().enumerate() {
                let got = ln_binomial(n, k as u32);
                assert!((got - exact.ln()).abs() < 1e-12, "C({n}, {k})");
            }
        }
        assert_eq!(ln_binomial(3, 4), f64::NEG_INFINITY);
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-12);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f64::INFINITY, 0.0]), f64::INFINITY);
    }

    #[test]
    fn mills_ratio_known_answers() {
        // From mpmath with 50 digits.
        for (x, expected) in [
            (0.0, 1.2533141373155003),
            (1.0, 0.6556795424187985),
            (5.999, 0.1624033989188173),
            (6.0, 0.16237766089686746),
            (30.0, 0.033296419072497694),
        ] {
            assert!((mills_ratio(x) / expected - 1.0).abs() < 1e-13, "{x}: {}", mills_ratio(x));
        }
        assert!((mills_ratio(1e6) * 1e6 - 1.0).abs() < 1e-11);
    }

    #[test]
    fn the_normal_quantile_undoes_the_tail() {
        for x in [-8.0, -3.1, -0.5, 0.0, 1e-9, 0.3, 1.0, 1.959963984540054, 5.0, 12.0, 37.0] {
            let found = normal_tail_quantile(normal_tail(x));
            // Near 1 a tail does not hold more digits of x.
            let digits = if x < -2.0 { 1e-3 } else { 1e-12 };
            assert!((found - x).abs() <= digits * (1.0 + x.abs()), "{x}: {found}");
        }
        assert!(normal_tail_quantile(0.5).abs() < 1e-15);
        assert!(normal_tail_quantile(0.0) == f64::INFINITY && normal_tail_quantile(1.0) == f64::NEG_INFINITY);
        assert!(normal_tail_quantile(-0.1).is_nan() && normal_tail_quantile(1.1).is_nan());
    }

    #[test]
    fn normal_tail_known_answers() {
        // 1.959963984540054 is the 97.5 % quantile.
        assert!((normal_two_sided_tail(1.959963984540054, 1.0) - 0.05).abs() < 1e-12);
        assert_eq!(normal_two_sided_tail(1.0, 0.0), 0.0);
        assert_eq!(normal_two_sided_tail(0.0, 1.0), 1.0);
    }
}
