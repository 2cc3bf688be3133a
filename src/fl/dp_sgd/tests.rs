use super::*;
use crate::backend::simd::Simd;
use crate::model::{LocalConfig, ModelConfig, trainer_for};
use crate::params::rounding_kind;

/// The loss `1/2 |w - x|^2` of a sample x: its gradient is `w - x`.
struct Nearest(usize);

impl LocalTrainer for Nearest {
    fn parameter_count(&self) -> usize {
        self.0
    }
    fn init(&self, _key: &StreamKey) -> Vec<f32> {
        vec![0.0; self.0]
    }
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        let rows = batch.features.chunks_exact(self.0).flat_map(|x| weights.iter().zip(x).map(|(w, x)| w - x));
        Ok(Rows::dense(rows.collect(), batch.len(), self.0)?)
    }
    fn local_delta(
        &self,
        _weights: &[f32],
        _shard: &Batch,
        _config: &LocalConfig,
        _key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        Ok(vec![0.0; self.0])
    }
    fn logits(&self, _weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        Ok(vec![0.0; batch.len() * 2])
    }
}

fn params() -> DpSgdParams {
    DpSgdParams {
        steps: 1,
        rate: 1.0,
        divisor: Divisor::Public(8.0),
        largest_batch: 8.0,
        learning_rate: 0.5,
        momentum: 0.0,
        clip: 1.0,
        noise_multiplier: 1.0,
        isolate: false,
        clipping: Clipping::Materialised,
    }
}

fn shard(samples: usize, dim: usize) -> Batch {
    let feature = |i: usize| ((i * 7919 + 13) % 211) as f32 / 105.5 - 1.0;
    Batch { features: (0..samples * dim).map(feature).collect(), labels: vec![1; samples], dim }
}

fn secret() -> Secret {
    Secret::from_seed(5)
}

fn randomness(secret: &Secret) -> ClientRandomness<'_> {
    let address = Address { client: 3, round: 2, attempt: 1, copy: 0 };
    ClientRandomness { secret, session: &[7; 16], address, input: &[9; 32], cipher: Cipher::ChaCha20 }
}

fn run(params: DpSgdParams, trainer: &dyn LocalTrainer, weights: &[f32], shard: &Batch) -> (Vec<f32>, GradientReport) {
    let backend = Simd::new();
    let machine = Machine { trainer, backend: &backend };
    DpSgd::new(params).unwrap().delta(machine, weights, shard, &randomness(&secret())).unwrap()
}

/// The formula of the room in `f64`, all samples in each step and next to no noise.
#[test]
fn steps_are_those_of_the_formula() {
    let (dim, samples) = (5, 7);
    let params = DpSgdParams { steps: 3, momentum: 0.5, noise_multiplier: 1e-5, clip: 0.8, ..params() };
    let start = vec![0.1f32, -0.2, 0.3, 0.0, 1.5];
    let data = shard(samples, dim);
    let (delta, report) = run(params, &Nearest(dim), &start, &data);
    let mut w: Vec<f64> = start.iter().map(|&x| x.into()).collect();
    let mut v = vec![0.0; dim];
    for _ in 0..3 {
        let mut sum = vec![0.0; dim];
        for x in data.features.chunks_exact(dim) {
            let g: Vec<f64> = w.iter().zip(x).map(|(w, &x)| w - f64::from(x)).collect();
            let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            let factor = (0.8 / norm).min(1.0);
            sum.iter_mut().zip(g).for_each(|(s, g)| *s += factor * g);
        }
        for ((w, v), s) in w.iter_mut().zip(&mut v).zip(sum) {
            *v = 0.5 * *v + s / 8.0;
            *w -= 0.5 * *v;
        }
    }
    for ((found, w), start) in delta.iter().zip(&w).zip(&start) {
        let expected = w - f64::from(*start);
        assert!((f64::from(*found) - expected).abs() < 2e-5, "{found} {expected}");
    }
    assert_eq!((report.rows, report.encoded.zeroed), (21, 0));
    assert!(report.encoded.clipped > 0);
}

/// What is decoded are the exact integers and one draw of the noise, and nothing else.
#[test]
fn the_sum_is_released_with_one_exact_draw() {
    let local = DpSgd::new(params()).unwrap();
    let backend = Simd::new();
    let sum: Vec<u32> = (0..9000u32).map(|i| i.wrapping_mul(77).wrapping_sub(300_000)).collect();
    let key = StreamKey::from_bytes([4; 32], Cipher::ChaCha20);
    let found = local.reveal(&backend, sum.clone().into(), 8.0, |_| key.clone()).unwrap();
    let mut noise = vec![0i64; sum.len()];
    crate::sample::discrete_gaussian::fill(&mut noise, local.sigma, &key).unwrap();
    for ((found, sum), noise) in found.iter().zip(&sum).zip(&noise) {
        let expected = (i64::from(*sum as i32) + noise) as f64 * local.mechanism.unit() / 8.0;
        assert!((f64::from(*found) - expected).abs() <= 2e-7 * expected.abs(), "{found} {expected}");
    }
    let expected = params().noise_multiplier * params().clip / local.mechanism.unit();
    assert!((local.sigma - expected).abs() < 1e-9 * expected);
}

#[test]
fn the_noise_has_its_variance_and_needs_no_sample() {
    let dim = 20_000;
    let params = DpSgdParams { noise_multiplier: 1.5, clip: 2.0, ..params() };
    let (delta, report) = run(params, &Nearest(dim), &vec![0.0; dim], &shard(0, dim));
    // learning rate 1/2, divisor 8: noise of 1.5 * 2 becomes 0.1875. Relative standard deviation of the mean square: 1 %.
    let square = delta.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / dim as f64;
    assert!((square / (0.1875f64 * 0.1875) - 1.0).abs() < 0.05, "{square}");
    assert_eq!(report, GradientReport::default());
    // Two steps have noises of their own: variances add, and do not add as one noise twice.
    let twice = DpSgdParams { steps: 2, ..params };
    let (delta, _) = run(twice, &Nearest(dim), &vec![0.0; dim], &shard(0, dim));
    let square = delta.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / dim as f64;
    assert!((square / (2.0 * 0.1875f64 * 0.1875) - 1.0).abs() < 0.05, "{square}");
}

/// Where sizes are public an empty shard has nothing to hide, and sums are divided by the expected size.
#[test]
fn a_shard_of_public_size() {
    let own = DpSgdParams { divisor: Divisor::Shard, rate: 0.5, ..params() };
    let (delta, _) = run(own, &Nearest(3), &[1.0; 3], &shard(0, 3));
    assert_eq!(delta, vec![0.0; 3]);
    let data = shard(12, 3);
    let constant = DpSgdParams { divisor: Divisor::Public(6.0), ..own };
    assert_eq!(run(own, &Nearest(3), &[1.0; 3], &data), run(constant, &Nearest(3), &[1.0; 3], &data));
}

/// The sensitivity of the sum: a sample more changes it by the row of that sample, exactly, whatever lies beside it and in
/// whichever place of a pass; no row exceeds its bound.
#[test]
fn a_sample_more_changes_no_bit_of_the_others() {
    for sizes in [&[64usize, 30, 10][..], &[20, 17, 5, 3]] {
        let trainer = trainer_for(&ModelConfig::Mlp(sizes.to_vec())).unwrap();
        let backend = Simd::new();
        let machine = Machine { trainer: &*trainer, backend: &backend };
        let local = DpSgd::new(DpSgdParams { clip: 0.3, ..params() }).unwrap();
        let weights = trainer.init(&StreamKey::from_bytes([1; 32], Cipher::ChaCha20));
        let data = shard(100, sizes[0]);
        let sum = |chosen: &[usize]| local.sum(machine, &weights, &data, chosen).unwrap().0;
        let bound = local.encode_params(weights.len()).unwrap().norm_bound();
        let alone: Vec<Aligned<u32>> = (0..100).map(|i| sum(&[i])).collect();
        for row in &alone {
            let square: u128 = row.iter().map(|&x| u128::from((x as i32).unsigned_abs()).pow(2)).sum();
            assert!(square <= bound && square > 0);
        }
        for count in [1usize, 2, 31, 32, 33, 64, 65, 99] {
            let others: Vec<usize> = (0..count).collect();
            let before = sum(&others);
            for place in [0, count / 2, count] {
                // The new sample is the last of the data, put in front, in the middle, behind.
                let mut more = others.clone();
                more.insert(place, 99);
                let after = sum(&more);
                let same = after.iter().zip(before.iter()).zip(alone[99].iter());
                assert!(same.clone().all(|((a, b), x)| a.wrapping_sub(*b) == *x), "{sizes:?} {count} {place}");
            }
        }
    }
}

/// A pass a sample gives the rows of shared passes, but for last bits, and each is that of its sample alone.
#[test]
fn isolated_gradients_are_the_same_gradients() {
    let trainer = trainer_for(&ModelConfig::Mlp(vec![20, 17, 5, 3])).unwrap();
    let backend = Simd::new();
    let machine = Machine { trainer: &*trainer, backend: &backend };
    let weights = trainer.init(&StreamKey::from_bytes([1; 32], Cipher::ChaCha20));
    let data = shard(50, 20);
    let all: Vec<usize> = (0..50).collect();
    let together = passes(&*trainer, &weights, &data, &all).unwrap();
    let apart = alone(machine, &weights, &data, &all).unwrap();
    assert_eq!((apart.rows, apart.dim), (50, weights.len()));
    for i in 0..50 {
        let (a, b) = (together.row(i).unwrap(), apart.row(i).unwrap());
        let norm = a.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * norm), "{i}");
        assert_eq!(b, alone(machine, &weights, &data, &[i]).unwrap().row(0).unwrap());
    }
    // The same mini-batch; next to no noise, which belongs to other integers where a last bit differs.
    let shared = DpSgdParams { rate: 0.5, noise_multiplier: 1e-5, ..params() };
    let (expected, other) = run(shared, &*trainer, &weights, &data);
    let (found, report) = run(DpSgdParams { isolate: true, ..shared }, &*trainer, &weights, &data);
    assert_eq!(report.rows, other.rows);
    assert!(expected.iter().any(|x| x.abs() > 0.01), "nothing was learned");
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn bad_gradients_count_as_zero_and_are_told_to_the_client() {
    let mut data = shard(6, 4);
    let (clean, _) = run(params(), &Nearest(4), &[0.5; 4], &shard(6, 4));
    data.features[9] = f32::NAN;
    data.features[20] = f32::INFINITY;
    let local = DpSgd::new(params()).unwrap();
    let backend = Simd::new();
    let machine = Machine { trainer: &Nearest(4), backend: &backend };
    let all: Vec<usize> = (0..6).collect();
    let (sum, report) = local.sum(machine, &[0.5; 4], &data, &all).unwrap();
    let (without, _) = local.sum(machine, &[0.5; 4], &data, &[0, 1, 3, 4]).unwrap();
    assert_eq!((sum, report.encoded.zeroed, report.rows), (without, 2, 6));
    let (delta, _) = run(params(), &Nearest(4), &[0.5; 4], &data);
    assert!(delta.iter().all(|x| x.is_finite()) && delta != clean);
}

#[test]
fn threads_change_no_bit() {
    let params = DpSgdParams { steps: 3, rate: 0.7, momentum: 0.3, ..params() };
    let dim = 9000;
    let data = shard(70, dim);
    let of = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(params, &Nearest(dim), &vec![0.2; dim], &data))
    };
    assert_eq!(of(1), of(2));
    assert!(of(1).1.rows > 100);
}

#[test]
fn a_mini_batch_is_a_poisson_sample() {
    let key = |n: u8| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
    assert_eq!(poisson(5, 1.0, &key(1)), vec![0, 1, 2, 3, 4]);
    assert!(poisson(1000, 1e-18, &key(1)).is_empty());
    let sizes: Vec<f64> = (0..200).map(|n| poisson(1000, 0.1, &key(n)).len() as f64).collect();
    let mean = sizes.iter().sum::<f64>() / 200.0;
    let variance = sizes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 199.0;
    assert!((mean - 100.0).abs() < 4.0 * (90.0f64 / 200.0).sqrt(), "{mean}");
    assert!((55.0..135.0).contains(&variance), "{variance}");
    // A sample more changes nothing about the others.
    let (few, more) = (poisson(99, 0.3, &key(2)), poisson(100, 0.3, &key(2)));
    assert!(more.iter().filter(|&&i| i < 99).eq(few.iter()));
}

/// Nothing that could lie under a key with another plaintext shares it.
#[test]
fn keys_are_bound_to_all_that_lies_under_them() {
    let secret = secret();
    let base = randomness(&secret);
    let address = base.address;
    let bytes = |key: StreamKey| {
        let mut out = [0u8; 32];
        key.fill(0, &mut out);
        out
    };
    let mut contexts = vec![base.step(0, &[1.0, 2.0]), base.step(1, &[1.0, 2.0]), base.step(0, &[1.0, 2.5])];
    for other in [
        ClientRandomness { address: Address { client: 4, ..address }, ..base },
        ClientRandomness { address: Address { round: 3, ..address }, ..base },
        ClientRandomness { address: Address { attempt: 2, ..address }, ..base },
        ClientRandomness { input: &[8; 32], ..base },
    ] {
        contexts.push(other.step(0, &[1.0, 2.0]));
    }
    let mut keys: Vec<[u8; 32]> = contexts.iter().map(|c| bytes(base.batch(c))).collect();
    keys.extend(contexts.iter().flat_map(|c| [bytes(base.noise(c, &[1, 2])), bytes(base.noise(c, &[1, 3]))]));
    let other = ClientRandomness { session: &[8; 16], ..base };
    keys.extend([bytes(other.batch(&contexts[0])), bytes(other.noise(&contexts[0], &[1, 2]))]);
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(base.step(0, &[1.0, 2.0]), contexts[0], "a rerun meets the same");
}

/// The key that kernels are given is read by none of them.
#[test]
fn the_kernels_draw_nothing() {
    let p = DpSgd::new(params()).unwrap().encode_params(1000).unwrap();
    assert_eq!((p.rotate, p.rounding, p.padded, p.bits), (0, rounding_kind::KEEP, 1000, 32));
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    type Change = fn(&mut DpSgdParams);
    let changes: [(&str, Change); 15] = [
        ("algorithm.steps", |p| p.steps = 0),
        ("algorithm.sampling_rate", |p| p.rate = 0.0),
        ("algorithm.sampling_rate", |p| p.rate = 1.5),
        ("algorithm.sampling_rate", |p| p.rate = f64::NAN),
        ("algorithm.batch_size", |p| p.divisor = Divisor::Public(0.0)),
        ("expected size", |p| p.largest_batch = f64::INFINITY),
        ("algorithm.learning_rate", |p| p.learning_rate = 0.0),
        ("algorithm.learning_rate", |p| p.learning_rate = f32::NAN),
        ("algorithm.momentum", |p| p.momentum = 1.0),
        ("algorithm.momentum", |p| p.momentum = -0.1),
        ("algorithm.clip", |p| p.clip = 0.0),
        ("algorithm.clip", |p| p.clip = -1.0),
        ("algorithm.noise_multiplier", |p| p.noise_multiplier = 0.0),
        ("algorithm.noise_multiplier", |p| p.noise_multiplier = f64::INFINITY),
        ("noise_multiplier", |p| p.noise_multiplier = 1e12),
    ];
    for (name, change) in changes {
        let mut params = params();
        change(&mut params);
        let error = DpSgd::new(params).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
    let local = DpSgd::new(params()).unwrap();
    let backend = Simd::new();
    let machine = Machine { trainer: &Nearest(4), backend: &backend };
    let secret = secret();
    let wrong = local.delta(machine, &[0.0; 3], &shard(2, 4), &randomness(&secret));
    assert!(matches!(wrong, Err(FlError::Model(ModelError::WrongLength { expected: 4, found: 3, .. }))));
    let torn = Batch { labels: vec![0; 5], ..shard(2, 4) };
    assert!(matches!(
        local.delta(machine, &[0.0; 4], &torn, &randomness(&secret)),
        Err(FlError::Model(ModelError::WrongLength { .. }))
    ));
}
