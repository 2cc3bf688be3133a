//! clip, encode and decode on devices against the oracle.

use proptest::prelude::*;
use veilsum::backend::device::DeviceBackend;
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob, EncodeReport, NonFinite, Rows};
use veilsum::params::{ClipParams, DecodeParams, EncodeParams, norm_kind, rounding_kind};
use veilsum::sample::binomial::CentredBinomial;
use veilsum::sample::noise::Noise;

use super::floats::{ULP, assert_close, norm};
use super::integers::{hostile, integer_params, jagged_table};
use super::*;

/// What a device without denormal numbers may lose of one.
const FLUSHED: f64 = f32::MIN_POSITIVE as f64;

/// Numbers in (-1, 1) without a pattern.
fn scattered(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn words(backend: &DeviceBackend, x: &Buffer) -> Vec<u32> {
    backend.download(x).unwrap().as_u32().unwrap().to_vec()
}

fn assert_clipped(x: &[f32], params: &ClipParams) {
    let mut expected = Buffer::from(x.to_vec());
    let norms = oracle().clip(&mut expected, params).unwrap();
    for backend in devices() {
        let mut found = Buffer::from(x.to_vec());
        let other = backend.clip(&mut found, params).unwrap();
        for (a, b) in norms.iter().zip(&other) {
            assert!((a - b).abs() <= 1e-7 * a, "{a} {b} {}", backend.describe());
        }
        for ((a, b), x) in found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap()).zip(x) {
            let distance = (f64::from(*a) - f64::from(*b)).abs();
            // Half a unit of the factor, half a unit of the product: 2^-24 each, relative.
            assert!(distance <= 2.0 * ULP * f64::from(b.abs()) + FLUSHED, "{a} {b} of {x} {params:?}");
        }
    }
}

#[test]
fn clip_is_the_oracle_s_to_the_last_bits() {
    for (rows, dim, gap) in
        [(1, 1, 0), (3, 5, 2), (2, 4096, 0), (2, 4097, 3), (300, 7, 1), (1, 100_000, 0), (5, 9000, 64)]
    {
        let x = scattered(rows * (dim + gap));
        for bound in [1e-3, 1.0, 1e9] {
            assert_clipped(&x, &ClipParams { rows: rows as u32, dim: dim as u32, stride: (dim + gap) as u32, bound });
        }
    }
}

#[test]
fn clip_of_extreme_numbers() {
    let rows: [[f32; 6]; 9] = [
        [f32::MAX; 6],
        [f32::MAX, 1e-30, 0.0, -f32::MAX, 1.0, -1.0],
        [0.0; 6],
        [f32::from_bits(1), 0.0, f32::from_bits(77), 0.0, 0.0, 0.0],
        [3.0, 4.0, 0.0, 0.0, 0.0, 0.0],
        [1e-20, 1e20, 1e-20, 1e-38, 1e38, -1e-38],
        [1.0, f32::EPSILON, -0.0, 1.0 - f32::EPSILON, 0.1, 0.2],
        [1e-30; 6],
        [-7e15, 7e15, 7e15, 7e15, -7e15, 7e15],
    ];
    let x: Vec<f32> = rows.concat();
    for bound in [f32::from_bits(1), 1e-40, 1e-20, 0.999_999, 5.0, 1e20, f32::MAX] {
        assert_clipped(&x, &ClipParams { rows: rows.len() as u32, dim: 6, stride: 6, bound });
    }
}

#[test]
fn a_row_that_is_not_finite_is_named_and_nothing_is_written() {
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = scattered(3 * 5000);
        x[2 * 5000 + 4321] = poison;
        let params = ClipParams { rows: 3, dim: 5000, stride: 5000, bound: 0.5 };
        for backend in devices() {
            let mut buffer = backend.upload(&Buffer::from(x.clone())).unwrap();
            let error = backend.clip(&mut buffer, &params).unwrap_err();
            assert_eq!(error, BackendError::NonFinite { row: 2, coordinate: 4321 });
            let after = backend.download(&buffer).unwrap();
            assert!(after.as_f32().unwrap().iter().zip(&x).all(|(a, b)| a.to_bits() == b.to_bits()));
            let (signs, keys) = (stream(3), row_keys(3));
            let rows = Rows::dense(x.clone(), 3, 5000).unwrap();
            let job = job(plain_params(5000, 10), &signs, &keys);
            assert_eq!(backend.encode(&rows, &job), Err(error));
            let zeroing = EncodeJob { non_finite: NonFinite::ZeroRow, ..job };
            let (fixed, report) = backend.encode_fixed(&rows, &zeroing).unwrap();
            let fixed = backend.download(&fixed).unwrap();
            assert!(fixed.as_i32().unwrap()[2 * 5120..].iter().all(|&v| v == 0));
            assert!(fixed.as_i32().unwrap()[..5000].iter().any(|&v| v != 0));
            let (_, expected) = oracle().encode_fixed(&rows, &zeroing).unwrap();
            assert_reports(&report, &expected);
            assert_eq!(report.zeroed, 1);
        }
    }
}

fn assert_reports(found: &EncodeReport, expected: &EncodeReport) {
    assert_near_reports(found, expected, 1e-9);
}

fn assert_near_reports(found: &EncodeReport, expected: &EncodeReport, ratio: f64) {
    assert_eq!((found.zeroed, found.clipped, found.linf_hits), (expected.zeroed, expected.clipped, expected.linf_hits));
    assert!((found.norm_sum - expected.norm_sum).abs() <= 1e-9 * expected.norm_sum);
    let distance = (found.clip_ratio_sum - expected.clip_ratio_sum).abs();
    assert!(distance <= ratio * expected.clip_ratio_sum, "{found:?} {expected:?}");
}

/// Fixed points near the oracle's, and the fused stage the integer half of those fixed points.
fn assert_encoded(backend: &DeviceBackend, rows: &Rows, job: &EncodeJob<'_>) {
    let p = &job.params;
    let (fixed, report) = backend.encode_fixed(rows, job).unwrap();
    let fixed = backend.download(&fixed).unwrap();
    let (expected, seen) = oracle().encode_fixed(rows, job).unwrap();
    // The ratio of the mixed clip is that of the coordinates after a transform in f32.
    let mixed = p.norm == norm_kind::MIXED;
    assert_near_reports(&report, &seen, if mixed { 1e-6 } else { 1e-9 });
    let unit = f64::from(1u32 << p.fraction_bits) * f64::from(p.gamma);
    for i in 0..rows.rows {
        let size = norm(rows.row(i).unwrap().iter().map(|&v| f64::from(v))).min(f64::from(p.clip));
        // Factor, product with it, scale, its product, gamma: five roundings more than the stages. The mixed clip has some
        // ten more, and its ratio moves with the coordinates.
        let roundings = if mixed { 2 * (p.block_log2 + 10) } else { p.block_log2 + 5 };
        let bound = 1.0 + f64::from(roundings) * ULP * unit * size;
        let row = i * p.padded as usize..(i + 1) * p.padded as usize;
        for (a, b) in fixed.as_i32().unwrap()[row.clone()].iter().zip(&expected.as_i32().unwrap()[row]) {
            assert!((f64::from(*a) - f64::from(*b)).abs() <= bound, "{a} {b} bound {bound} {p:?}");
        }
    }
    let (integers, hits) = oracle().encode_integer(&fixed, job).unwrap();
    let (found, fused) = backend.encode(rows, job).unwrap();
    assert!(words(backend, &found) == integers.as_u32().unwrap(), "{p:?} {}", backend.describe());
    let mut both = report;
    both.merge(&hits);
    assert_eq!(fused, both);
    let (packed, again) = backend.encode_packed(rows, job).unwrap();
    assert_eq!(again, fused);
    for (bytes, row) in packed.rows().zip(integers.as_u32().unwrap().chunks_exact(p.padded as usize)) {
        assert!(bytes == oracle().pack(&Buffer::HostU32(row.into()), p.bits).unwrap());
    }
    assert_eq!(packed.rows().count(), rows.rows);
}

#[test]
fn encode_is_near_the_oracle_and_its_integer_half_exact() {
    let table = jagged_table(5);
    let binomial = Noise::from(CentredBinomial::new(19).unwrap());
    let shapes = [(1, 1, 0), (3, 5, 2), (2, 1000, 4), (1, 4097, 12), (2, 5000, 7), (4, 777, 0), (1, 20_000, 15)];
    for (i, (rows, dim, block_log2)) in shapes.into_iter().enumerate() {
        let data: Vec<f32> = scattered(rows * dim).iter().map(|v| v * 3.0).collect();
        let data = Rows::dense(data, rows, dim).unwrap();
        let (signs, keys) = (stream(3), row_keys(rows));
        for (j, clip) in [f32::INFINITY, 2.0].into_iter().enumerate() {
            let params = EncodeParams {
                clip,
                rotate: u32::from(i % 3 != 2),
                bits: 18,
                fraction_bits: [16, 9, 0, 12][(i + j) % 4],
                rounding: if i == 3 { rounding_kind::KEEP } else { rounding_kind::STOCHASTIC },
                norm: if (i + j) % 2 == 1 { norm_kind::ROUNDED } else { norm_kind::L2 },
                linf: 1 << 21,
                norm_bound: EncodeParams::limbs(if (i + j) % 2 == 1 { 1 << (8 + i) } else { 1 << (38 + i) }),
                ..plain_params(dim as u32, block_log2)
            };
            let noise = [None, Some(&table), Some(&binomial)][(i + j) % 3];
            let job = EncodeJob { noise, ..job(params, &signs, &keys) };
            for backend in devices() {
                assert_encoded(&backend, &data, &job);
            }
        }
    }
}

#[test]
fn the_mixed_clip_is_near_the_oracle() {
    let (signs, keys) = (stream(3), row_keys(2));
    for (i, (dim, block_log2, size)) in
        [(1, 0, 1.0), (10, 0, 0.01), (5000, 0, 3.0), (3000, 12, 0.3), (9000, 5, 1e4), (700, 10, 1e-6), (4097, 0, 1e-12)]
            .into_iter()
            .enumerate()
    {
        let data: Vec<f32> =
            scattered(2 * dim).iter().enumerate().map(|(j, v)| v * size / (1 + j % 9) as f32).collect();
        let rows = Rows::dense(data, 2, dim).unwrap();
        for (j, c) in [0u128, 1, 1000, 1 << 24, 1 << 40, u128::MAX].into_iter().enumerate() {
            let params = EncodeParams {
                norm: norm_kind::MIXED,
                rotate: u32::from(block_log2 > 0),
                clip: if j % 2 == 0 { f32::MAX } else { 100.0 },
                fraction_bits: [16, 10, 4][(i + j) % 3],
                gamma: 20.0,
                norm_bound: EncodeParams::limbs(c),
                ..plain_params(dim as u32, block_log2)
            };
            for backend in devices() {
                assert_encoded(&backend, &rows, &job(params, &signs, &keys));
            }
        }
    }
}

/// Numbers whose squares are beyond f32, and one that saturates.
#[test]
fn the_mixed_clip_of_large_numbers_is_near_the_oracle() {
    let (signs, keys) = (stream(3), row_keys(1));
    let rows = Rows::dense(vec![1e30, -3e29, 0.5, -1e15, 2.5e30, 0.0, 1e-30], 1, 7).unwrap();
    for c in [1u128 << 20, 1 << 50, 1 << 70] {
        let params = EncodeParams {
            norm: norm_kind::MIXED,
            rotate: 0,
            gamma: 1.0,
            norm_bound: EncodeParams::limbs(c),
            ..plain_params(7, 0)
        };
        let job = job(params, &signs, &keys);
        let (expected, _) = oracle().encode_fixed(&rows, &job).unwrap();
        let bound = 1.0 + 12.0 * ULP * (c as f64 * 65536.0).sqrt();
        for backend in devices() {
            let (found, report) = backend.encode_fixed(&rows, &job).unwrap();
            assert_eq!(report.clipped, 1);
            let found = backend.download(&found).unwrap();
            for (a, b) in found.as_i32().unwrap().iter().zip(expected.as_i32().unwrap()) {
                assert!((f64::from(*a) - f64::from(*b)).abs() <= bound, "{a} {b} bound {bound}");
            }
        }
    }
}

#[test]
fn rows_may_lie_apart_on_the_device() {
    let (signs, keys) = (stream(3), row_keys(3));
    let params = EncodeParams { clip: 1.0, ..plain_params(100, 5) };
    let data = scattered(1000);
    for backend in devices() {
        let there = backend.upload(&Buffer::from(data.clone())).unwrap();
        let apart = |buffer: Buffer| Rows { buffer, offset: 71, stride: 301, rows: 3, dim: 100 };
        let job = job(params, &signs, &keys);
        let (expected, _) = oracle().encode_fixed(&apart(Buffer::from(data.clone())), &job).unwrap();
        let (found, _) = backend.encode_fixed(&apart(there.clone()), &job).unwrap();
        let found = backend.download(&found).unwrap();
        let pairs = found.as_i32().unwrap().iter().zip(expected.as_i32().unwrap());
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= 8), "{pairs:?}");
        let short = Rows { offset: 300, ..apart(there) };
        assert!(matches!(backend.encode(&short, &job), Err(BackendError::WrongLength { what: "rows", .. })));
        let error = backend.encode(&Rows { buffer: Buffer::from(vec![0u32; 1000]), ..short }, &job).unwrap_err();
        assert!(matches!(error, BackendError::WrongType { .. } | BackendError::WrongLength { .. }), "{error}");
    }
}

#[test]
fn no_rows_are_encoded_to_nothing() {
    let (signs, keys) = (stream(3), row_keys(0));
    let rows = Rows::dense(vec![], 0, 10).unwrap();
    for backend in devices() {
        let (words, report) = backend.encode(&rows, &job(plain_params(10, 2), &signs, &keys)).unwrap();
        assert!(words.is_empty());
        assert_eq!(report, EncodeReport::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_integer_half_has_the_oracle_s_bits(
        params in integer_params(),
        rows in 0usize..4,
        noise in prop::option::of(0usize..70),
        pool in prop::collection::vec(hostile(), 1..4000),
    ) {
        let len = rows * params.padded as usize;
        let fixed = Buffer::HostI32(pool.iter().copied().cycle().take(len).collect());
        let (signs, keys, table) = (stream(200), row_keys(rows), noise.map(jagged_table));
        let job = EncodeJob { noise: table.as_ref(), ..job(params, &signs, &keys) };
        let (expected, seen) = oracle().encode_integer(&fixed, &job).unwrap();
        for backend in devices() {
            let there = backend.upload(&fixed).unwrap();
            for input in [&fixed, &there] {
                let (found, report) = backend.encode_integer(input, &job).unwrap();
                prop_assert!(words(&backend, &found) == expected.as_u32().unwrap(), "{}", backend.describe());
                prop_assert_eq!(report, seen);
            }
            prop_assert_eq!(backend.download(&there).unwrap(), fixed.clone());
        }
    }
}

#[test]
fn long_rows_of_the_integer_half_have_the_oracle_s_bits() {
    let (signs, keys) = (stream(200), row_keys(2));
    let cases = [(0, 1 << 90, 0), (0, 1 << 70, 5), (1, 1 << 60, 64), (1, 1 << 40, 9), (2, 1 << 70, 0), (2, 1 << 40, 5)];
    for (norm, bound, binomial) in cases {
        let fixed: Vec<i32> = (0..2 * 50_001i32).map(|i| i.wrapping_mul(-1_640_531_527) >> (i % 20)).collect();
        let params = EncodeParams {
            norm,
            bits: 27,
            linf: 1 << 30,
            norm_bound: EncodeParams::limbs(bound),
            ..plain_params(50_001, 0)
        };
        let law = CentredBinomial::new(binomial).map(Noise::from).ok();
        let job = EncodeJob { noise: law.as_ref(), ..job(params, &signs, &keys) };
        let (expected, seen) = oracle().encode_integer(&fixed.clone().into(), &job).unwrap();
        for backend in devices() {
            let (found, report) = backend.encode_integer(&fixed.clone().into(), &job).unwrap();
            assert!(words(&backend, &found) == expected.as_u32().unwrap(), "{norm} {bound} {}", backend.describe());
            assert_eq!(report, seen);
        }
    }
}

#[test]
fn decode_is_near_the_oracle() {
    let units = [1.0, 1e-6, 1e3, 1e-37, f32::from_bits(77), 0.0];
    let shapes = [(1, 0, 32), (5, 3, 8), (1000, 4, 2), (4097, 12, 20), (70_000, 16, 31), (9000, 0, 27), (300, 11, 32)];
    for (i, (dim, block_log2, bits)) in shapes.into_iter().enumerate() {
        let padded = u32::next_multiple_of(dim, 1 << block_log2);
        let sum: Vec<u32> = (0..padded).map(|i| i.wrapping_add(9).wrapping_mul(2_654_435_761) ^ i).collect();
        for (j, unit) in units.into_iter().enumerate() {
            let rotate = u32::from((i + j) % 4 != 3);
            let p = DecodeParams { dim, padded, block_log2, rotate, bits, unit, _pad: [0; 2] };
            let expected = oracle().decode(&sum.clone().into(), &p, &stream(3)).unwrap();
            let whole = oracle().decode(&sum.clone().into(), &DecodeParams { dim: padded, ..p }, &stream(3)).unwrap();
            let bound = f64::from(block_log2 + 5) * ULP * norm(whole.iter().map(|&v| f64::from(v)))
                + f64::from(padded).sqrt()
                    * (FLUSHED + f64::from(unit) * f64::from(u8::from(unit < f32::MIN_POSITIVE)) * 2f64.powi(40));
            for backend in devices() {
                let there = backend.upload(&sum.clone().into()).unwrap();
                for input in [&Buffer::from(sum.clone()), &there] {
                    let found = backend.decode(input, &p, &stream(3)).unwrap();
                    assert_close(&found, &expected, bound, &format!("{p:?} {}", backend.describe()));
                }
                assert!(words(&backend, &there) == sum);
                for (mut input, device) in [(Buffer::from(sum.clone()), false), (there.clone(), true), (there, true)] {
                    backend.decode_in_place(&mut input, &p, &stream(3)).unwrap();
                    assert_eq!(matches!(input, Buffer::Device(_)), device);
                    let found = backend.download(&input).unwrap();
                    assert_close(found.as_f32().unwrap(), &expected, bound, &format!("{p:?} {}", backend.describe()));
                }
            }
        }
    }
}

#[test]
fn centred_residues_at_their_ends() {
    let p = DecodeParams { dim: 6, padded: 6, block_log2: 0, rotate: 0, bits: 8, unit: 1.0, _pad: [0; 2] };
    let cases: [(u32, [u32; 6], [f32; 6]); 3] = [
        (8, [0, 1, 127, 128, 129, 255], [0.0, 1.0, 127.0, 128.0, -127.0, -1.0]),
        (2, [0, 1, 2, 3, 4, u32::MAX], [0.0, 1.0, 2.0, -1.0, 0.0, -1.0]),
        (32, [0, 1, 1 << 31, (1 << 31) + 256, u32::MAX, 77], [0.0, 1.0, 2_147_483_648.0, -2_147_483_392.0, -1.0, 77.0]),
    ];
    for backend in devices() {
        for (bits, words, floats) in &cases {
            let params = DecodeParams { bits: *bits, ..p };
            assert_eq!(backend.decode(&words.to_vec().into(), &params, &stream(1)).unwrap(), floats);
        }
    }
}

/// A round without a way over the host between its stages.
#[test]
fn rows_are_encoded_summed_masked_and_decoded_on_the_device() {
    let (rows, dim) = (4, 3000usize);
    let x = scattered(rows * dim);
    let (signs, keys) = (stream(3), row_keys(rows));
    let params = EncodeParams { bits: 24, gamma: 256.0, ..plain_params(dim as u32, 10) };
    let mean: Vec<f32> = (0..dim).map(|j| (0..rows).map(|i| f64::from(x[i * dim + j])).sum::<f64>() as f32).collect();
    for backend in devices() {
        let buffer = backend.upload(&Buffer::from(x.clone())).unwrap();
        let data = Rows { buffer, ..Rows::dense(x.clone(), rows, dim).unwrap() };
        let (mut encoded, _) = backend.encode(&data, &job(params, &signs, &keys)).unwrap();
        let ring = veilsum::params::Ring::Bits(24);
        backend.mask(&mut encoded, ring, &stream(77), veilsum::backend::MaskSign::Add).unwrap();
        backend.mask(&mut encoded, ring, &stream(77), veilsum::backend::MaskSign::Subtract).unwrap();
        let mut acc = backend.upload(&Buffer::from(vec![0u32; params.padded as usize])).unwrap();
        backend.sum(&mut acc, &encoded, ring).unwrap();
        assert!(matches!(acc, Buffer::Device(_)));
        let found = backend.decode(&acc, &params.decode(1.0 / 256.0), &signs).unwrap();
        assert_close(&found, &mean, 2.0 * f64::from(params.padded).sqrt() / 256.0, &backend.describe());
    }
}
