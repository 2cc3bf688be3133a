//! Samplers: exact laws, constant-time tables, noise that does not depend on threads.

use veilsum::backend::simd::Simd;
use veilsum::backend::{Backend, Buffer};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::sample::discrete_gaussian;
use veilsum::sample::law::Law;
use veilsum::sample::noise::Noise;
use veilsum::sample::poisson::poisson_one;
use veilsum::sample::statistics::compare;
use veilsum::sample::table::NoiseTable;

/// A correct sampler fails one test in 10^5 with a random key; the keys are fixed.
const LEAST_P: f64 = 1e-5;

fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
}

fn assert_follows(draws: &[i64], law: Law) {
    let seen = compare(draws, &law.pmf().unwrap());
    assert!(seen.p_value > LEAST_P, "{law:?}: {seen:?}");
    assert!(seen.kl < 2.0 * seen.kl_expected + 1e-3, "{law:?}: {seen:?}");
    assert!(seen.degrees >= 1);
}

/// The rational parameters of the golden file, and laws narrow and wide.
#[test]
fn exact_samplers_follow_their_laws() {
    let laws = [
        (Law::Poisson { numerator: 1, denominator: 1 }, 20_000),
        (Law::Poisson { numerator: 4, denominator: 3 }, 20_000),
        (Law::Poisson { numerator: 119, denominator: 20 }, 6_000),
        (Law::Poisson { numerator: 100, denominator: 1 }, 2_000),
        (Law::Poisson { numerator: 1, denominator: 50 }, 20_000),
        (Law::Skellam { numerator: 8, denominator: 3 }, 20_000),
        (Law::Skellam { numerator: 119, denominator: 20 }, 6_000),
        (Law::DiscreteLaplace { numerator: 1, denominator: 3 }, 20_000),
        (Law::DiscreteLaplace { numerator: 7, denominator: 2 }, 20_000),
        (Law::DiscreteLaplace { numerator: 100, denominator: 1 }, 20_000),
        (Law::DiscreteGaussian { sigma: 0.3 }, 5_000),
        (Law::DiscreteGaussian { sigma: 1.0 }, 20_000),
        (Law::DiscreteGaussian { sigma: 3.45 }, 20_000),
        (Law::DiscreteGaussian { sigma: 1000.1 }, 20_000),
    ];
    for (i, (law, count)) in laws.into_iter().enumerate() {
        let sampler = law.sampler().unwrap();
        let mut reader = stream(i as u8).reader(0);
        let draws: Vec<i64> = (0..count).map(|_| sampler.draw(&mut reader)).collect();
        assert_follows(&draws, law);
    }
}

/// E[calls] = (e^2 - 1) / 2; the standard deviation of the mean of 100,000 is below 0.01.
#[test]
fn poisson_one_uses_as_many_uniforms_as_the_paper_says() {
    let (mut calls, mut reader) = (0, stream(1).reader(0));
    for _ in 0..100_000 {
        poisson_one(&mut reader, &mut calls);
    }
    let mean = calls as f64 / 1e5;
    assert!((mean - (1f64.exp().powi(2) - 1.0) / 2.0).abs() < 0.05, "{mean}");
}

#[test]
fn zero_means_are_zero_and_bad_parameters_are_errors() {
    let mut reader = stream(1).reader(0);
    for law in [Law::Poisson { numerator: 0, denominator: 7 }, Law::Skellam { numerator: 0, denominator: 7 }] {
        let sampler = law.sampler().unwrap();
        assert!((0..100).all(|_| sampler.draw(&mut reader) == 0));
    }
    for law in [
        Law::Poisson { numerator: 1, denominator: 0 },
        Law::Poisson { numerator: -1, denominator: 2 },
        Law::Skellam { numerator: 1, denominator: -2 },
        Law::DiscreteLaplace { numerator: 0, denominator: 1 },
        Law::DiscreteLaplace { numerator: 1, denominator: 0 },
        Law::DiscreteGaussian { sigma: 0.0 },
        Law::DiscreteGaussian { sigma: f64::NAN },
    ] {
        assert!(law.sampler().is_err(), "{law:?}");
    }
}

fn table_draws(mu: f64, count: usize, key: &StreamKey) -> Vec<i64> {
    let mut words = Buffer::HostU32(vec![0; count].into());
    Simd::new().noise(&mut words, 32, &NoiseTable::skellam(mu).unwrap().into(), key).unwrap();
    words.as_u32().unwrap().iter().map(|&w| i64::from(w as i32)).collect()
}

#[test]
fn table_draws_follow_the_skellam_law() {
    for (i, (numerator, denominator, count)) in
        [(119, 20, 200_000), (1, 100, 200_000), (8, 3, 200_000), (1428, 1, 60_000)].into_iter().enumerate()
    {
        let draws = table_draws(numerator as f64 / denominator as f64, count, &stream(40 + i as u8));
        assert_follows(&draws, Law::Skellam { numerator, denominator });
    }
}

/// A hundred shares of mu / 100 have the law of one draw of mu.
#[test]
fn shares_add_up_to_the_whole() {
    let mut total = vec![0i64; 20_000];
    for share in 0..100 {
        let draws = table_draws(0.0595, total.len(), &stream(share));
        total.iter_mut().zip(draws).for_each(|(t, x)| *t += x);
    }
    assert_follows(&total, Law::Skellam { numerator: 119, denominator: 20 });
}

#[test]
fn discrete_gaussian_noise_does_not_depend_on_threads_and_wraps() {
    let sigma = 1234.5;
    let mut seen: Option<Vec<u32>> = None;
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut words = vec![7u32; 10_000];
        pool.install(|| discrete_gaussian::add(&mut words, 16, sigma, &stream(5)).unwrap());
        assert_eq!(*seen.get_or_insert_with(|| words.clone()), words);
    }
    let draws: Vec<i64> = seen.unwrap().iter().map(|&w| i64::from((w as u16).wrapping_sub(7) as i16)).collect();
    assert_follows(&draws, Law::DiscreteGaussian { sigma });
    // A shorter vector has the same leading noise.
    let mut short = vec![7u32; 5000];
    discrete_gaussian::add(&mut short, 16, sigma, &stream(5)).unwrap();
    assert!(short.iter().zip(&draws).all(|(&w, &x)| (w as u16).wrapping_sub(7) as i16 == x as i16));
}

/// Welch's t between two samples.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let moments = |x: &[f64]| {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    let ((mean_a, var_a), (mean_b, var_b)) = (moments(a), moments(b));
    (mean_a - mean_b) / (var_a + var_b).sqrt()
}

/// Times draws that all are small against draws that all are large: tables with a single step, so that
/// the magnitude is chosen and the number of comparisons is not.
///
/// The two kinds alternate; the slowest fifth of each, when something else had the core, is dropped; a
/// difference counts only if it is both certain (|t| > 30 in each of three tries) and above 5 % of the time.
/// A sampler that stops at the threshold it wants differs by a factor.
#[test]
fn time_does_not_depend_on_the_magnitude() {
    let thresholds = 400;
    let table =
        |t: u128| Noise::Table(NoiseTable { thresholds: vec![t; thresholds], variance: 0.0, total_variation: 0.0 });
    // 0 is always reached (magnitude 400), 2^127 - 1 almost never (magnitude 0).
    let (large, small) = (table(0), table((1 << 127) - 1));
    let backend = Simd::new();
    let suspicious = (0..3).all(|_| {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..400u32 {
            let which = (round.wrapping_mul(0x9e37_79b9) >> 31) as usize;
            let mut words = Buffer::HostU32(vec![0; 512].into());
            let start = std::time::Instant::now();
            backend.noise(&mut words, 32, if which == 0 { &small } else { &large }, &stream(6)).unwrap();
            times[which].push(start.elapsed().as_secs_f64());
            let magnitude = words.as_u32().unwrap()[0] as i32;
            assert_eq!(magnitude.unsigned_abs() as usize, which * thresholds);
        }
        for kind in &mut times {
            kind.sort_by(f64::total_cmp);
            kind.truncate(kind.len() * 4 / 5);
        }
        let [a, b] = &times;
        let (mean_a, mean_b) = (a.iter().sum::<f64>() / a.len() as f64, b.iter().sum::<f64>() / b.len() as f64);
        welch(a, b).abs() > 30.0 && (mean_a / mean_b - 1.0).abs() > 0.05
    });
    assert!(!suspicious, "the time of a draw depends on its magnitude");
}
