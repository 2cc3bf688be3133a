use super::super::{Clipping, Divisor, DpSgdParams};
use super::*;
use crate::math::prg::{Cipher, StreamKey};
use crate::model::{ModelConfig, trainer_for};

fn local(clip: f64, batch: f64) -> DpSgd {
    DpSgd::new(DpSgdParams {
        steps: 1,
        rate: 1.0,
        divisor: Divisor::Public(batch),
        largest_batch: batch,
        learning_rate: 0.5,
        momentum: 0.0,
        clip,
        noise_multiplier: 1.0,
        isolate: false,
        clipping: Clipping::Ghost,
    })
    .unwrap()
}

/// The formula of the module, with the floor written out, and nothing lost where the sum wraps.
#[test]
fn integers_become_coarse_by_rounding() {
    for k in [0, 1, 15, 31] {
        for x in [0i64, 1, -1, 7, -12_345_678_901, 1 << 40, (1 << 45) - 1, i64::MAX, i64::MIN, i64::MAX - 77] {
            for wraps in [-1i128, 0, 1] {
                let whole = i128::from(x) + (wraps << 64);
                let half = if k == 0 { 0 } else { 1i128 << (k - 1) };
                let expected = (whole + half).div_euclid(1 << k).rem_euclid(1 << 32) as u32;
                assert_eq!(coarse(x, k), expected, "{x} {k} {wraps}");
            }
        }
    }
}

#[test]
fn bounds_leave_room_for_the_rounding() {
    for (clip, batch, dim) in [(1.0, 100.0, 199_210usize), (0.3, 4.0, 10), (700.0, 2000.0, 1_000_000)] {
        let local = local(clip, batch);
        let (job, fine) = local.clip_inside(dim).unwrap();
        let radius = (clip / local.mechanism.unit()).floor();
        let rounded = job.bound as f64 / f64::from(1u32 << fine) + (dim as f64).sqrt();
        assert!(rounded <= radius && rounded > radius - 1.0, "{clip} {batch} {dim}");
        // S = s 2^k.
        assert_eq!(f64::from(job.scale_log2), -local.mechanism.unit().log2() + f64::from(fine));
        assert!((44..=47).contains(&job.bound.ilog2()), "{}", job.bound.ilog2());
    }
    let few = local(1.0, 1e6);
    assert!(few.clip_inside(100).is_ok());
    let text = few.clip_inside(1 << 20).unwrap_err().to_string();
    assert!(text.contains("algorithm.clipping") && text.contains("integer steps"), "{text}");
}

/// The sensitivity of what the noise is added to, and its nearness to the sum of materialised rows.
#[test]
fn a_sample_moves_the_sum_by_its_bound_at_most() {
    let list =
        r#"{"layers":{"input":[1,6,6],"layers":[{"conv":{"channels":4,"kernel":3,"padding":1}},"relu",{"linear":5}]}}"#;
    for model in [ModelConfig::Mlp(vec![36, 20, 5]), serde_json::from_str(list).unwrap()] {
        let trainer = trainer_for(&model).unwrap();
        let weights = trainer.init(&StreamKey::from_bytes([1; 32], Cipher::ChaCha20));
        let features = (0..50 * 36).map(|i| ((i * 7919) % 211) as f32 / 105.5 - 1.0).collect();
        let shard = Batch { features, labels: (0..50).map(|i| i % 5).collect(), dim: 36 };
        for clip in [0.01, 0.5, 1e3] {
            let local = local(clip, 50.0);
            let radius = local.encode_params(weights.len()).unwrap().norm_bound();
            let of = |chosen: &[usize]| local.sum_inside(&*trainer, &weights, &shard, chosen).unwrap().0;
            let before = of(&(1..50).collect::<Vec<_>>());
            for i in 1..50 {
                let others: Vec<usize> = (1..50).filter(|&j| j != i).collect();
                let gap = of(&others)
                    .iter()
                    .zip(before.iter())
                    .map(|(a, b)| (a.wrapping_sub(*b) as i32).unsigned_abs())
                    .map(u128::from)
                    .map(|v| v * v)
                    .sum::<u128>();
                assert!(gap <= radius && gap > 0, "{model} {clip} {i}");
            }
            let backend = crate::backend::simd::Simd::new();
            let machine = super::super::Machine { trainer: &*trainer, backend: &backend };
            let rows = DpSgd { params: DpSgdParams { clipping: Clipping::Materialised, ..local.params }, ..local };
            let all: Vec<usize> = (0..50).collect();
            let ((expected, seen), (found, report)) = (
                rows.sum(machine, &weights, &shard, &all).unwrap(),
                local.sum(machine, &weights, &shard, &all).unwrap(),
            );
            let gap = found.iter().zip(expected.iter()).map(|(a, b)| f64::from(a.wrapping_sub(*b) as i32).powi(2));
            let gap = gap.sum::<f64>().sqrt();
            assert!(gap < 1e-3 * 50.0 * (radius as f64).sqrt(), "{model} {clip}: {gap}");
            assert!((report.encoded.norm_sum / seen.encoded.norm_sum - 1.0).abs() < 1e-3);
            assert_eq!((report.rows, report.encoded.zeroed), (seen.rows, 0));
        }
    }
}
