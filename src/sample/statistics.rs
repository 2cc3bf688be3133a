//! Do draws follow a law? Pearson's chi-square and the Kullback-Leibler divergence.

use std::collections::BTreeMap;

use super::law::Pmf;

/// Least expected count of a chi-square cell; sparser integers are pooled with their neighbours.
const LEAST_EXPECTED: f64 = 5.0;

/// What draws look like beside the law that they should follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Number of draws.
    pub count: usize,
    /// Sample mean.
    pub mean: f64,
    /// Sample variance (unbiased; 0 for a single draw).
    pub variance: f64,
    /// KL(empirical || exact) in nats; infinite if a draw has probability zero.
    pub kl: f64,
    /// What a correct sampler gives for it on average: `(k - 1) / (2 n)`, k integers seen.
    pub kl_expected: f64,
    /// Pearson's statistic.
    pub chi_square: f64,
    /// Its degrees of freedom; 0 if too few draws for two cells.
    pub degrees: usize,
    /// Probability of a larger statistic under the law (1 with no degrees of freedom).
    pub p_value: f64,
}

/// Compares draws with a law.
#[must_use]
pub fn compare(draws: &[i64], pmf: &Pmf) -> Comparison {
    let n = draws.len() as f64;
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for &k in draws {
        *counts.entry(k).or_default() += 1;
    }
    let mean = draws.iter().map(|&k| k as f64).sum::<f64>() / n.max(1.0);
    let squares: f64 = draws.iter().map(|&k| (k as f64 - mean).powi(2)).sum();
    let kl = counts.iter().map(|(&k, &c)| c as f64 / n * libm::log(c as f64 / n / pmf.of(k))).sum();
    let (chi_square, cells) = pearson(&counts, pmf, n);
    let degrees = cells.saturating_sub(1);
    Comparison {
        count: draws.len(),
        mean,
        variance: squares / (n - 1.0).max(1.0),
        kl,
        kl_expected: (counts.len() as f64 - 1.0).max(0.0) / (2.0 * n.max(1.0)),
        chi_square,
        degrees,
        p_value: if degrees == 0 { 1.0 } else { upper_gamma(degrees as f64 / 2.0, chi_square / 2.0) },
    }
}

/// Pearson's statistic over cells of neighbouring integers, and the number of cells. The last cell takes all
/// that is left, draws of probability zero included.
fn pearson(counts: &BTreeMap<i64, u64>, pmf: &Pmf, n: f64) -> (f64, usize) {
    let mut cells: Vec<(f64, f64)> = vec![(0.0, 0.0)];
    for (i, p) in pmf.probabilities.iter().enumerate() {
        let seen = counts.get(&(pmf.first + i as i64)).copied().unwrap_or(0) as f64;
        let last = cells.len() - 1;
        cells[last].0 += n * p;
        cells[last].1 += seen;
        if cells[last].0 >= LEAST_EXPECTED {
            cells.push((0.0, 0.0));
        }
    }
    let placed: f64 = cells.iter().map(|c| c.1).sum();
    if let (Some((expected, seen)), true) = (cells.pop(), cells.len() > 1) {
        let last = cells.len() - 1;
        cells[last].0 += expected;
        cells[last].1 += seen + n - placed;
    }
    (cells.iter().filter(|c| c.0 > 0.0).map(|(e, o)| (o - e).powi(2) / e).sum(), cells.len())
}

/// The regularised upper incomplete gamma function `Q(a, x)`, about 1e-12: its series below `a + 1`, its
/// continued fraction above (Abramowitz and Stegun 6.5.29, 6.5.31; Lentz's method).
#[must_use]
pub fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if !x.is_finite() {
        return 0.0;
    }
    let front = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    // Both converge within about sqrt(a) + 100 terms; the limit only stops a NaN.
    let limit = 1000 + 10 * a.sqrt() as usize;
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for i in 1..limit {
            term *= x / (a + i as f64);
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    let tiny = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut h = d;
    for i in 1..limit {
        let an = -(i as f64) * (i as f64 - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b, tiny);
        c = nonzero(b + an / c, tiny);
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (front * h).clamp(0.0, 1.0)
}

fn nonzero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::law::Law;

    /// Tabulated chi-square quantiles.
    #[test]
    fn chi_square_tails() {
        for (degrees, statistic, p) in [
            (1.0, 3.841_458_820_694_124, 0.05),
            (10.0, 18.307_038_053_275_146, 0.05),
            (2.0, 9.210_340_371_976_184, 0.01),
            (100.0, 77.929_465_165_017_27, 0.95),
        ] {
            assert!((upper_gamma(degrees / 2.0, statistic / 2.0) - p).abs() < 1e-10, "{degrees}");
        }
        assert_eq!(upper_gamma(3.0, 0.0), 1.0);
        assert_eq!(upper_gamma(3.0, f64::INFINITY), 0.0);
    }

    #[test]
    fn a_wrong_law_is_rejected_and_an_impossible_draw_counts() {
        let pmf = Law::Skellam { numerator: 1, denominator: 1 }.pmf().unwrap();
        let constant = compare(&[0; 1000], &pmf);
        assert!(constant.p_value < 1e-100 && constant.kl > 1.0);
        assert_eq!((constant.mean, constant.variance, constant.kl_expected), (0.0, 0.0, 0.0));
        let impossible = compare(&[1 << 40; 100], &pmf);
        assert!(impossible.p_value < 1e-100 && impossible.kl.is_infinite());
        let none = compare(&[], &pmf);
        assert_eq!((none.count, none.degrees, none.p_value), (0, 0, 1.0));
        assert_eq!(compare(&[3], &pmf).variance, 0.0);
    }
}
