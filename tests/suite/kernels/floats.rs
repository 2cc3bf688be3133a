//! Float stages: known answers, and the blocked backend within a stated distance of the oracle.
//!
//! The oracle computes in `f64` and rounds once. A butterfly stage in `f32` adds a relative error of at
//! most 2^-24 to each output, and the stages keep the L2 norm up to sqrt 2, so after k stages, one scaling
//! and one rounding the L2 distance is at most `(k + 2) 2^-24 |y|` (and each coordinate's error as well).

use proptest::prelude::*;
use veilsum::backend::scalar::{decode, encode};
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob, NonFinite, Rows};
use veilsum::params::{ClipParams, DecodeParams, EncodeParams, FwhtParams, norm_kind};

use super::*;

pub(super) const ULP: f64 = 1.0 / (1u64 << 24) as f64;

pub(super) fn norm(x: impl IntoIterator<Item = f64>) -> f64 {
    x.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Floats over many magnitudes, denormal ones among them.
fn uneven() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0f32..1.0,
        1 => prop::num::f32::SUBNORMAL,
        1 => prop::num::f32::NORMAL.prop_map(|v| v % 1e6),
        1 => Just(0.0),
    ]
}

fn pool(len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(uneven(), 1..300)
        .prop_map(move |p| (0..len).map(|i| p[i % p.len()] * (1.0 + (i % 11) as f32 / 16.0)).collect())
}

fn fwht(backend: &dyn Backend, x: &[f32], block_log2: u32) -> Vec<f32> {
    let mut buffer = Buffer::HostF32(x.to_vec().into());
    let scale = (0.5f64.powi(block_log2 as i32).sqrt()) as f32;
    let params = FwhtParams { len: x.len() as u32, block_log2, scale, _pad: 0 };
    backend.fwht(&mut buffer, &params).unwrap();
    buffer.as_f32().unwrap().to_vec()
}

pub(super) fn assert_close(found: &[f32], expected: &[f32], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    let distance = norm(found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    assert!(distance <= bound, "{what}: distance {distance:e}, bound {bound:e}");
}

#[test]
fn every_size_of_the_transform_is_close_to_the_oracle_and_equal_on_every_instruction_set() {
    for block_log2 in 0..=18 {
        let blocks = if block_log2 < 10 { 3 } else { 1 };
        let x: Vec<f32> = (0..blocks << block_log2).map(|i: u32| ((i * 7919 % 1009) as f32 - 504.0) / 504.0).collect();
        let expected = fwht(&oracle(), &x, block_log2);
        let bound = f64::from(block_log2 + 2) * ULP * norm(x.iter().map(|&v| f64::from(v)));
        let mut first: Option<Vec<f32>> = None;
        for backend in blocked() {
            let found = fwht(&backend, &x, block_log2);
            assert_close(&found, &expected, bound, &format!("2^{block_log2} {}", backend.describe()));
            assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "{}", backend.describe());
        }
    }
}

/// `encode_vectors.rotation` of the golden file.
#[test]
fn the_rotation_of_the_reference() {
    let g = [
        1.690525703800356,
        -0.4659373705408328,
        0.0328201636785844,
        0.40751628299650783,
        -0.7889230286257386,
        0.00206557290594813,
        -0.0008903858579313628,
        -1.7547243063454208,
        1.0176580056634932,
        0.6004985159195494,
        -0.6254289739667597,
        -0.17154826119572117,
        0.5052993741967516,
        -0.261356415191647,
        -0.2427490786725466,
        -1.4532414124907906,
    ];
    let signs = [-1., 1., 1., -1., 1., 1., -1., -1., -1., 1., -1., -1., -1., -1., 1., 1.];
    let y = [
        -0.7806294154813638,
        -1.0123784182464415,
        -1.02158207392365,
        -1.1878162046348841,
        -0.29504130863892364,
        0.03811457054822398,
        -0.4763697660411949,
        -0.6806648025094642,
        -0.0005715631064113769,
        -0.6521587860553621,
        -1.140537477549554,
        0.8367764741454777,
        -1.4549169064324132,
        0.8421707471691486,
        0.8567223624911335,
        -0.6332202469357451,
    ];
    let mut x = g;
    encode::rotate(&mut x, 4, &signs);
    for (a, b) in x.iter().zip(y) {
        assert!((a - b).abs() < 1e-14, "{a} {b}");
    }
    let signed: Vec<f32> = g.iter().zip(signs).map(|(v, s)| (v * s) as f32).collect();
    for backend in all() {
        for (a, b) in fwht(&*backend, &signed, 4).iter().zip(y) {
            assert!((f64::from(*a) - b).abs() < 1e-6);
        }
    }
}

const MIXED_X: [f64; 10] = [0.0, 0.25, -0.25, 0.5, -0.75, 1.0, -1.5, 2.25, -3.1, 7.9];

/// `encode_vectors.v_of_x` and `.mixed_clip` of the golden file.
#[test]
fn the_mixed_clip_of_the_reference() {
    for (x, v) in MIXED_X.iter().zip([0.0, 0.25, 0.25, 0.5, 0.75, 1.0, 2.5, 5.25, 9.700000000000001, 62.5]) {
        assert!((encode::mixed_norm(*x) - v).abs() < 1e-13);
    }
    let half = [
        0.0,
        0.15114873035066506,
        -0.15114873035066506,
        0.3022974607013301,
        -0.4534461910519952,
        0.6045949214026602,
        -1.1704957678355503,
        1.7247077791213221,
        -2.3729141475211613,
        6.137475583666636,
    ];
    let tenth = [
        0.0,
        0.03022974607013301,
        -0.03022974607013301,
        0.06045949214026602,
        -0.09068923821039902,
        0.12091898428053204,
        -0.30229746070133007,
        0.6348246674727932,
        -1.0576380491737203,
        2.7114873035066505,
    ];
    for (c, ratio, y) in [(1e9, 1.0, MIXED_X), (50.0, 0.6045949214026602, half), (10.0, 0.12091898428053204, tenth)] {
        let mut x = MIXED_X;
        assert!((encode::mixed_clip(&mut x, c) - ratio).abs() < 1e-14);
        for (a, b) in x.iter().zip(y) {
            assert!((a - b).abs() < 1e-13, "{a} {b}");
        }
        // The same through the pipeline: no rotation, gamma 1, 16 fraction bits, truncated toward zero.
        let row: Vec<f32> = MIXED_X.iter().map(|&v| v as f32).collect();
        let rows = Rows::dense(row, 1, 10).unwrap();
        let params = EncodeParams {
            rotate: 0,
            gamma: 1.0,
            norm: norm_kind::MIXED,
            norm_bound: EncodeParams::limbs((c * 65536.0) as u128),
            ..plain_params(10, 0)
        };
        let (signs, keys) = (stream(1), row_keys(1));
        for backend in all() {
            let (fixed, report) = backend.encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
            assert!((report.clip_ratio_sum - ratio).abs() < 1e-6);
            assert_eq!(report.clipped, usize::from(ratio < 1.0));
            for (v, b) in fixed.as_i32().unwrap().iter().zip(y) {
                assert!((f64::from(*v) / 65536.0 - b).abs() < 1.6e-5, "{v} {b}");
            }
        }
    }
}

/// `encode_vectors.modmap` of the golden file, through every backend.
#[test]
fn residues_are_centred() {
    let words = Buffer::HostU32(vec![0, 1, 127, 128, 129, 255].into());
    let params = DecodeParams { dim: 6, padded: 6, block_log2: 0, rotate: 0, bits: 8, unit: 1.0, _pad: [0; 2] };
    for backend in all() {
        assert_eq!(backend.decode(&words, &params, &stream(1)).unwrap(), [0.0, 1.0, 127.0, 128.0, -127.0, -1.0]);
    }
    assert_eq!(decode::centre(0x8000_0000, 32), 1 << 31);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn transforms_of_uneven_numbers_stay_within_the_bound(block_log2 in 0u32..14, x in pool(1 << 14)) {
        let expected = fwht(&oracle(), &x, block_log2);
        // The scale is applied to the inputs: a denormal product is rounded by up to 2^-150, and the stages
        // carry that on with a norm that grows to 2^(k/2); sums of denormals are exact.
        let floor = (x.len() as f64).sqrt() * 2f64.powf(0.5 * f64::from(block_log2)) * 2f64.powi(-149);
        let bound = f64::from(block_log2 + 2) * ULP * norm(x.iter().map(|&v| f64::from(v))) + floor;
        for backend in blocked() {
            assert_close(&fwht(&backend, &x, block_log2), &expected, bound, &backend.describe());
        }
    }

    #[test]
    fn clip_holds_its_bound(dim in 1usize..600, rows in 0usize..4, gap in 0usize..5, bound in 1e-3f32..1e4, x in pool(3000)) {
        let params = ClipParams { rows: rows as u32, dim: dim as u32, stride: (dim + gap) as u32, bound };
        let mut expected = Buffer::HostF32(x.clone().into());
        let norms = oracle().clip(&mut expected, &params).unwrap();
        for (i, &before) in norms.iter().enumerate() {
            let row = &expected.as_f32().unwrap()[i * (dim + gap)..][..dim];
            let after = norm(row.iter().map(|&v| f64::from(v)));
            prop_assert!(after <= f64::from(bound).min(f64::from(before)) * (1.0 + 1e-6) + 1e-40);
        }
        for backend in blocked() {
            let mut found = Buffer::HostF32(x.clone().into());
            let other = backend.clip(&mut found, &params).unwrap();
            for (a, b) in norms.iter().zip(&other) {
                prop_assert!((a - b).abs() <= 1e-6 * a);
            }
            for (a, b) in found.as_f32().unwrap().iter().zip(expected.as_f32().unwrap()) {
                prop_assert!((a - b).abs() <= 2.5e-7 * a.abs() + 1e-44, "{} {}", a, b);
            }
        }
    }

    /// With k butterfly stages the fixed points differ by the distance of the floats plus one unit for
    /// the truncation.
    #[test]
    fn fixed_points_are_close_to_the_oracle(
        dim in 1u32..3000, block_log2 in 0u32..12, fraction_bits in 0u32..=16, mixed in any::<bool>(),
        rotate in 0u32..=1, clip in prop_oneof![Just(f32::INFINITY), 0.1f32..50.0], x in pool(3000),
    ) {
        let rows = Rows::dense(x[..dim as usize].to_vec(), 1, dim as usize).unwrap();
        let params = EncodeParams {
            fraction_bits, clip, rotate, gamma: 8.0,
            norm: u32::from(mixed),
            norm_bound: EncodeParams::limbs(if mixed { 1 << 24 } else { u128::MAX }),
            ..plain_params(dim, block_log2)
        };
        let (signs, keys) = (stream(3), row_keys(1));
        let (expected, seen) = oracle().encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
        let expected = expected.as_i32().unwrap();
        let size = norm(x[..dim as usize].iter().map(|&v| f64::from(v))).min(f64::from(clip));
        let unit = f64::from(1u32 << fraction_bits);
        for backend in blocked() {
            let (found, report) = backend.encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
            let bound = 1.0 + 4.0 * f64::from(block_log2 + 3) * ULP * 8.0 * unit * size;
            for (a, b) in found.as_i32().unwrap().iter().zip(expected) {
                prop_assert!((f64::from(*a) - f64::from(*b)).abs() <= bound, "{} {} bound {}", a, b, bound);
            }
            prop_assert!((report.norm_sum - seen.norm_sum).abs() <= 1e-9 * seen.norm_sum);
            prop_assert!((report.clip_ratio_sum - seen.clip_ratio_sum).abs() <= 1e-6);
            // The fused form has the bits of its two halves.
            let (words, _) = backend.encode(&rows, &job(params, &signs, &keys)).unwrap();
            let (two, _) = backend.encode_integer(&found, &job(params, &signs, &keys)).unwrap();
            prop_assert_eq!(words, two);
        }
    }

    #[test]
    fn encode_without_noise_decodes_to_the_input_within_the_rounding(
        dim in 1u32..5000, block_log2 in 0u32..13, gamma in 16f32..4096.0, seed in any::<u32>(),
    ) {
        let x: Vec<f32> =
            (0..dim).map(|i| (i.wrapping_mul(seed | 1) >> 8) as f32 / 16_777_216.0 - 0.5).collect();
        let rows = Rows::dense(x.clone(), 1, dim as usize).unwrap();
        let params = EncodeParams { gamma, ..plain_params(dim, block_log2) };
        let undo = DecodeParams {
            dim, padded: params.padded, block_log2, rotate: 1, bits: 32, unit: 1.0 / gamma, _pad: [0; 2],
        };
        let (signs, keys) = (stream(3), row_keys(1));
        for backend in blocked() {
            let (words, _) = backend.encode(&rows, &job(params, &signs, &keys)).unwrap();
            let back = backend.decode(&words, &undo, &signs).unwrap();
            // A coordinate moves by less than one step in the rounding and by 2^-16 in the truncation.
            let distance = norm(back.iter().zip(&x).map(|(a, b)| f64::from(a - b)));
            prop_assert!(distance <= 1.01 * f64::from(params.padded).sqrt() / f64::from(gamma));
            let (words, _) = oracle().encode(&rows, &job(params, &signs, &keys)).unwrap();
            let exact = oracle().decode(&words, &undo, &signs).unwrap();
            let near = backend.decode(&words, &undo, &signs).unwrap();
            let bound = f64::from(block_log2 + 3) * ULP * 1.1 * norm(exact.iter().map(|&v| f64::from(v)))
                + 1e-5 * f64::from(params.padded).sqrt() / f64::from(gamma);
            assert_close(&near, &exact, bound, &backend.describe());
        }
    }
}

#[test]
fn one_row_across_many_tasks_equals_the_same_row_on_one_thread() {
    let dim = 150_000usize;
    let x: Vec<f32> = (0..dim).map(|i| ((i * 31 % 1013) as f32 - 506.0) / 5e4).collect();
    let rows = Rows::dense(x, 1, dim).unwrap();
    let params = EncodeParams { clip: 1.0, ..plain_params(dim as u32, 17) };
    let (signs, keys) = (stream(3), row_keys(1));
    let mut seen = None;
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for backend in blocked() {
            let found = pool.install(|| backend.encode(&rows, &job(params, &signs, &keys)).unwrap());
            assert_eq!(*seen.get_or_insert_with(|| found.clone()), found, "{threads} {}", backend.describe());
        }
    }
}

#[test]
fn rows_may_lie_apart_in_their_buffer() {
    let (signs, keys) = (stream(3), row_keys(2));
    let params = plain_params(3, 2);
    let dense = Rows::dense(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3).unwrap();
    let data = vec![f32::NAN, 1.0, 2.0, 3.0, f32::NAN, 4.0, 5.0, 6.0];
    let apart = Rows { buffer: Buffer::HostF32(data.into()), offset: 1, stride: 4, rows: 2, dim: 3 };
    for backend in all() {
        let encode = |rows: &Rows| backend.encode(rows, &job(params, &signs, &keys)).unwrap();
        assert_eq!(encode(&dense), encode(&apart));
        let short = Rows { offset: 2, ..apart.clone() };
        assert_eq!(
            backend.encode(&short, &job(params, &signs, &keys)),
            Err(BackendError::WrongLength { what: "rows", expected: 9, found: 8 })
        );
        let overlong = Rows { stride: usize::MAX, ..apart.clone() };
        assert!(backend.encode(&overlong, &job(params, &signs, &keys)).is_err());
        assert_eq!(
            backend.encode(&apart, &job(params, &signs, &keys[..1])),
            Err(BackendError::WrongLength { what: "keys", expected: 2, found: 1 })
        );
    }
}

#[test]
fn a_row_with_nan_is_named_or_zeroed() {
    let (signs, keys) = (stream(3), row_keys(3));
    let params = EncodeParams { clip: 1.0, ..plain_params(4, 2) };
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let data = vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0, poison, poison, 0.0, 0.0, 0.0, 0.0];
        let rows = Rows::dense(data.clone(), 3, 4).unwrap();
        for backend in all() {
            let strict = job(params, &signs, &keys);
            let named = Err(BackendError::NonFinite { row: 1, coordinate: 2 });
            assert_eq!(backend.encode(&rows, &strict), named);
            assert_eq!(backend.encode_fixed(&rows, &strict), named);
            let lenient = EncodeJob { non_finite: NonFinite::ZeroRow, ..strict };
            let (fixed, report) = backend.encode_fixed(&rows, &lenient).unwrap();
            assert_eq!(fixed.as_i32().unwrap()[4..8], [0; 4]);
            assert_eq!((report.zeroed, report.clipped, report.norm_sum), (1, 0, 1.0));
            assert!((report.clip_ratio_sum - 3.0).abs() < 1e-9);
            let mut x = Buffer::HostF32(data.clone().into());
            let clip = ClipParams { rows: 3, dim: 4, stride: 4, bound: 0.5 };
            assert_eq!(backend.clip(&mut x, &clip), Err(BackendError::NonFinite { row: 1, coordinate: 2 }));
            assert_eq!(x.as_f32().unwrap()[0], 1.0, "nothing is written");
        }
    }
}

/// The norm is measured in the transform's first pass, or beforehand where a NaN is an error: with the same bits, also
/// where the row is short, its norm far off, or threads share it.
#[test]
fn a_row_measured_on_its_way_has_the_same_bits() {
    let (signs, keys) = (stream(3), row_keys(1));
    for (dim, block_log2) in [(4096, 12), (2100, 12), (5000, 13), (40_000, 16), (300_001, 19)] {
        for scale in [1.0, 0.0, 1e-30, 1e30, f32::MIN_POSITIVE] {
            let x: Vec<f32> = (0..dim).map(|i| ((i * 31 % 1013) as f32 - 506.0) / 506.0 * scale).collect();
            let rows = Rows::dense(x, 1, dim).unwrap();
            for clip in [1.0, f32::INFINITY] {
                let params = EncodeParams { clip, bits: 16, ..plain_params(dim as u32, block_log2) };
                let before = job(params, &signs, &keys);
                let inside = EncodeJob { non_finite: NonFinite::ZeroRow, ..before };
                let mut seen = None;
                for backend in blocked() {
                    for threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        for job in [before, inside] {
                            let found = pool.install(|| {
                                (backend.encode(&rows, &job).unwrap(), backend.encode_fixed(&rows, &job).unwrap())
                            });
                            let first = seen.get_or_insert_with(|| found.clone());
                            assert_eq!(*first, found, "{dim} {scale} {clip} {threads} {}", backend.describe());
                        }
                    }
                }
            }
        }
    }
}

/// What a transform's rounding adds stays below the margin of the clip, so that no row of floats is above its exact bound:
/// a backend may leave out the steps of a shrink that is never needed, and its time tells nothing.
#[test]
fn no_row_of_floats_has_to_shrink() {
    let (signs, keys) = (stream(3), row_keys(1));
    for block_log2 in [0, 4, 9, 12, 15, 18] {
        let dim = 1usize << block_log2;
        let flat = vec![3.0f32; dim];
        let spike: Vec<f32> = (0..dim).map(|i| if i == dim / 3 { 1e6 } else { 0.0 }).collect();
        let ramp: Vec<f32> = (0..dim).map(|i| (i * 7919 % 1009) as f32 - 504.5).collect();
        for (x, gamma) in [flat, spike, ramp].into_iter().flat_map(|x| [(x.clone(), 0.7f32), (x, 16_383.0)]) {
            let rows = Rows::dense(x, 1, dim).unwrap();
            let bound = (f64::from(gamma).powi(2) * f64::from(1u32 << 16).powi(2)).floor();
            let norm_bound = EncodeParams::limbs(bound as u128);
            let params = EncodeParams { clip: 1.0, gamma, norm_bound, ..plain_params(dim as u32, block_log2) };
            for backend in blocked() {
                let (fixed, report) = backend.encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
                let fixed: Vec<i64> = fixed.as_i32().unwrap().iter().map(|&v| i64::from(v)).collect();
                let norm = encode::integer_norm(&fixed, &params);
                assert!(norm <= params.norm_bound(), "2^{block_log2} {gamma} {norm} {}", backend.describe());
                // All but what the margin and the truncation take.
                let least = (gamma * 65_536.0 * (1.0 - 1e-5) - (dim as f32).sqrt()).max(0.0);
                assert!(
                    report.clipped == 1 && norm as f64 >= f64::from(least).powi(2),
                    "2^{block_log2} {gamma} {norm}"
                );
            }
        }
    }
}

/// A NaN in any chunk of a row that is measured on its way.
#[test]
fn a_long_row_with_nan_is_zeroed() {
    let (signs, keys) = (stream(3), row_keys(1));
    let dim = 20_000usize;
    let params = EncodeParams { clip: 1.0, ..plain_params(dim as u32, 15) };
    for (place, poison) in [(0, f32::NAN), (4095, f32::INFINITY), (12_000, f32::NEG_INFINITY), (dim - 1, f32::NAN)] {
        let mut x = vec![0.5f32; dim];
        x[place] = poison;
        let rows = Rows::dense(x, 1, dim).unwrap();
        for backend in blocked() {
            let lenient = EncodeJob { non_finite: NonFinite::ZeroRow, ..job(params, &signs, &keys) };
            let (words, report) = backend.encode(&rows, &lenient).unwrap();
            assert!(words.as_u32().unwrap().iter().all(|&w| w == 0), "{place} {}", backend.describe());
            assert_eq!((report.zeroed, report.norm_sum, report.clip_ratio_sum), (1, 0.0, 1.0));
        }
    }
}

/// Finite input whose norm or transform overflows `f32`: still the integers of the exact computation.
#[test]
fn the_largest_floats_stay_finite() {
    let (signs, keys) = (stream(3), row_keys(1));
    for dim in [16usize, 1 << 10] {
        for value in [f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 1e-45] {
            let rows = Rows::dense(vec![value; dim], 1, dim).unwrap();
            let block_log2 = dim.ilog2();
            for (clip, gamma, rotate) in
                [(1.0, 64.0, 1), (f32::INFINITY, 64.0, 1), (f32::INFINITY, f32::MAX, 0), (1e-30, 1e30, 1)]
            {
                let params = EncodeParams { clip, gamma, rotate, ..plain_params(dim as u32, block_log2) };
                let (expected, seen) = oracle().encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
                assert!(seen.norm_sum.is_finite());
                for backend in blocked() {
                    let (found, _) = backend.encode_fixed(&rows, &job(params, &signs, &keys)).unwrap();
                    for (a, b) in found.as_i32().unwrap().iter().zip(expected.as_i32().unwrap()) {
                        let near = (f64::from(*a) - f64::from(*b)).abs() <= 16.0;
                        // An exact cancellation may leave the rounding of a sum that dwarfs i32.
                        let huge = f64::from(value.abs()) * f64::from(gamma) > 1e30 && clip.is_infinite();
                        assert!(near || huge, "{value} {clip} {gamma}: {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn transform_and_clip_refuse_wrong_shapes() {
    for backend in all() {
        let mut x = Buffer::HostF32(vec![1.0; 12].into());
        let params = FwhtParams { len: 12, block_log2: 3, scale: 1.0, _pad: 0 };
        assert!(matches!(backend.fwht(&mut x, &params), Err(BackendError::OutOfRange { name: "len", .. })));
        let params = FwhtParams { len: 8, block_log2: 3, scale: 1.0, _pad: 0 };
        assert_eq!(backend.fwht(&mut x, &params), Err(BackendError::WrongLength { what: "x", expected: 8, found: 12 }));
        let clip = |rows, dim, stride, bound| ClipParams { rows, dim, stride, bound };
        for (params, name) in [
            (clip(1, 12, 12, 0.0), "bound"),
            (clip(1, 12, 12, f32::NAN), "bound"),
            (clip(2, 6, 5, 1.0), "stride"),
            (clip(1, 0, 5, 1.0), "dim"),
        ] {
            let error = backend.clip(&mut x, &params).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: n, .. } if n == name), "{error}");
        }
        assert!(backend.clip(&mut x, &clip(3, 6, 6, 1.0)).is_err());
        let params = DecodeParams { dim: 6, padded: 8, block_log2: 2, rotate: 1, bits: 8, unit: 1.0, _pad: [0; 2] };
        assert_eq!(
            backend.decode(&Buffer::HostU32(vec![0; 6].into()), &params, &stream(1)),
            Err(BackendError::WrongLength { what: "sum", expected: 8, found: 6 })
        );
    }
}
