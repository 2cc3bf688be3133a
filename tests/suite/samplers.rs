//! Samplers: exact laws, constant-time tables, noise that does not depend on threads.

mod timing;

use veilsum::backend::simd::Simd;
use veilsum::backend::{Backend, Buffer};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::sample::binomial::CentredBinomial;
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

/// Draws of the noise stage.
fn stage_draws(noise: &Noise, count: usize, key: &StreamKey) -> Vec<i64> {
    let mut words = Buffer::HostU32(vec![0; count].into());
    Simd::new().noise(&mut words, 32, noise, key).unwrap();
    words.as_u32().unwrap().iter().map(|&w| i64::from(w as i32)).collect()
}

fn table_draws(mu: f64, count: usize, key: &StreamKey) -> Vec<i64> {
    stage_draws(&NoiseTable::skellam(mu).unwrap().into(), count, key)
}

#[test]
fn discrete_gaussian_tables_follow_the_exact_law() {
    for (i, (sigma, count)) in
        [(0.3, 20_000), (3.45, 100_000), (100.1, 200_000), (1000.0, 50_000)].into_iter().enumerate()
    {
        let noise = NoiseTable::discrete_gaussian(sigma).unwrap().into();
        assert_follows(&stage_draws(&noise, count, &stream(60 + i as u8)), Law::DiscreteGaussian { sigma });
    }
}

#[test]
fn centred_binomials_follow_the_exact_law() {
    for (i, k) in [1, 2, 7, 8, 9, 21, 24, 100, 1000, 4096].into_iter().enumerate() {
        let law = CentredBinomial::new(k).unwrap();
        assert_follows(&stage_draws(&law.into(), 100_000, &stream(70 + i as u8)), Law::CentredBinomial { k });
        let mut reader = stream(90 + i as u8).reader(0);
        let exact: Vec<i64> = (0..20_000).map(|_| law.draw(&mut reader)).collect();
        assert_follows(&exact, Law::CentredBinomial { k });
    }
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
