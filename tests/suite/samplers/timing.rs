//! Does the time of a draw depend on its magnitude?
//!
//! Of many keys those are kept whose 512 draws are together the smallest and the largest. Draws under the two
//! kinds alternate at random; the fastest quarter of each kind is kept, since something else may have had the core in
//! the others; then Welch's t. A difference counts if it is certain (`|t| > 8`) and above 2 % of the time in each of three tries:
//! what a busy machine does to one kind it does to the other. A sampler that stops at its threshold must be
//! caught by the same measurement.

use std::hint::black_box;
use std::time::Instant;

use veilsum::backend::simd::Simd;
use veilsum::backend::{Backend, Buffer};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::sample::binomial::CentredBinomial;
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

/// Draws under one key: one block of the noise stage.
const DRAWS: usize = 512;
/// Keys looked at, and kept of each kind.
const KEYS: u16 = 1500;
const KEPT: usize = 6;
/// Timings a try.
const TIMINGS: usize = 2400;

fn stream(n: u16) -> StreamKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_le_bytes());
    StreamKey::from_bytes(bytes, Cipher::ChaCha20)
}

fn draw(noise: &Noise, key: &StreamKey) -> Buffer {
    let mut words = Buffer::HostU32(vec![0; DRAWS].into());
    Simd::new().noise(&mut words, 32, noise, key).unwrap();
    words
}

/// The keys with the smallest and with the largest draws.
fn extremes(noise: &Noise) -> [Vec<StreamKey>; 2] {
    let size = |key: &StreamKey| -> u64 {
        draw(noise, key).as_u32().unwrap().iter().map(|&w| u64::from((w as i32).unsigned_abs())).sum()
    };
    let mut keys: Vec<(u64, StreamKey)> = (0..KEYS).map(stream).map(|key| (size(&key), key)).collect();
    keys.sort_by_key(|(size, _)| *size);
    let (small, large) = (&keys[..KEPT], &keys[keys.len() - KEPT..]);
    assert!(large[0].0 > small[KEPT - 1].0 + small[0].0 / 10, "the kinds differ");
    [small, large].map(|kind| kind.iter().map(|(_, key)| key.clone()).collect())
}

/// Mean and the variance of the mean of the fastest quarter.
fn cropped(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    times.truncate(times.len() / 4);
    let n = times.len() as f64;
    let mean = times.iter().sum::<f64>() / n;
    (mean, times.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
}

/// True if the time tells the kinds apart.
fn tells(kinds: &[Vec<StreamKey>; 2], mut f: impl FnMut(&StreamKey)) -> bool {
    (0..3).all(|_| {
        let mut times = [Vec::new(), Vec::new()];
        for i in 0..TIMINGS as u32 {
            let kind = (i.wrapping_mul(0x9e37_79b9) >> 31) as usize;
            let key = &kinds[kind][i as usize % KEPT];
            let start = Instant::now();
            f(key);
            times[kind].push(start.elapsed().as_secs_f64());
        }
        let [(mean_a, var_a), (mean_b, var_b)] = times.map(cropped);
        let t = (mean_a - mean_b) / (var_a + var_b).sqrt();
        t.abs() > 8.0 && (mean_a / mean_b - 1.0).abs() > 0.02
    })
}

#[test]
fn time_does_not_depend_on_the_magnitude() {
    for noise in [
        NoiseTable::skellam(5.95).unwrap().into(),
        NoiseTable::skellam(1428.0).unwrap().into(),
        NoiseTable::discrete_gaussian(20.0).unwrap().into(),
        CentredBinomial::new(24).unwrap().into(),
    ] {
        let kinds = extremes(&noise);
        let told = tells(&kinds, |key| {
            black_box(draw(&noise, key));
        });
        assert!(!told, "the time of a draw depends on its magnitude: variance {}", noise.variance());
    }
}

/// Stops at the first threshold above the uniform.
fn leaking(table: &NoiseTable, key: &StreamKey) -> usize {
    let mut uniforms = [[0u8; 16]; DRAWS];
    key.fill(0, uniforms.as_flattened_mut());
    let magnitude = |u: &[u8; 16]| {
        let u = u128::from_le_bytes(*u) >> 1;
        table.thresholds.iter().position(|&t| u < t).unwrap_or(table.thresholds.len())
    };
    uniforms.iter().map(magnitude).sum()
}

#[test]
fn an_early_exit_is_caught() {
    let table = NoiseTable::skellam(1428.0).unwrap();
    let kinds = extremes(&table.clone().into());
    let caught = (0..3).any(|_| {
        tells(&kinds, |key| {
            black_box(leaking(&table, key));
        })
    });
    assert!(caught, "a sampler that stops early was not caught");
}
