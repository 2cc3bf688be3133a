//! Integer stages: bit-equal everywhere, norms held exactly.

use proptest::prelude::*;
use veilsum::backend::scalar::encode;
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob};
use veilsum::params::{EncodeParams, NO_LINF, Ring, norm_kind, rounding_kind};
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

use super::*;

/// A table without a law behind it: any non-decreasing thresholds, among them equal ones, values that
/// differ in their lower halves only, and the ends of the range.
pub(super) fn jagged_table(count: usize) -> Noise {
    let mut thresholds: Vec<u128> = (0..count as u128)
        .map(|k| (k << 120) / 3 + (k % 5) * (k % 2) + ((k % 3) << 64))
        .map(|t| t % (1 << 127))
        .collect();
    thresholds.push(0);
    thresholds.push((1 << 127) - 1);
    thresholds.push(1 << 126);
    thresholds.push(1 << 126);
    thresholds.sort_unstable();
    Noise::Table(NoiseTable { thresholds, variance: 0.0, total_variation: 0.0 })
}

/// Coordinates that hurt: ends of the range, ones, zero, and everything between.
pub(super) fn hostile() -> impl Strategy<Value = i32> {
    prop_oneof![
        2 => any::<i32>(),
        3 => -70_000i32..70_000,
        1 => Just(i32::MIN),
        1 => Just(i32::MIN + 1),
        1 => Just(i32::MAX),
        1 => Just(0),
        1 => Just(-1),
    ]
}

pub(super) fn integer_params() -> impl Strategy<Value = EncodeParams> {
    let bound =
        prop_oneof![Just(0u128), Just(u128::MAX), (0u32..127, 1u128..1 << 20).prop_map(|(s, m)| m.rotate_left(s))];
    let linf = prop_oneof![2 => Just(NO_LINF), 1 => 0u32..200_000, 1 => Just(1 << 31)];
    (1u32..700, 0u32..8, 2u32..=32, 0u32..=16, 0u32..=2, 0u32..=1, linf, bound).prop_map(
        |(dim, block_log2, bits, fraction_bits, norm, rounding, linf, bound)| EncodeParams {
            bits,
            fraction_bits,
            norm,
            rounding,
            linf,
            norm_bound: EncodeParams::limbs(bound),
            ..plain_params(dim, block_log2)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_integer_half_has_the_same_bits_everywhere(
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
        prop_assert!(expected.as_u32().unwrap().iter().all(|&w| u64::from(w) < 1u64 << params.bits));
        for backend in blocked() {
            let (found, report) = backend.encode_integer(&fixed, &job).unwrap();
            prop_assert_eq!(&found, &expected, "{}", backend.describe());
            prop_assert_eq!(report, seen);
        }
    }

    #[test]
    fn after_the_shrink_the_exact_norm_is_within_the_bound(
        params in integer_params(),
        pool in prop::collection::vec(hostile(), 1..2000),
    ) {
        let row: Vec<i32> = pool.iter().copied().cycle().take(params.padded as usize).collect();
        let (bounded, _) = encode::bounded_row(&row, &params);
        prop_assert!(encode::integer_norm(&bounded, &params) <= params.norm_bound());
        prop_assert!(bounded.iter().all(|v| v.unsigned_abs() <= u64::from(params.linf)));
        for (x, y) in row.iter().zip(&bounded) {
            prop_assert!(y.abs() <= i64::from(*x).abs() && i64::from(*x).signum() * y.signum() >= 0);
        }
        // A row already within both bounds is untouched.
        let wide: Vec<i64> = row.iter().map(|&v| i64::from(v)).collect();
        let within = wide.iter().all(|v| v.unsigned_abs() <= u64::from(params.linf));
        if within && encode::integer_norm(&wide, &params) <= params.norm_bound() {
            prop_assert_eq!(bounded, wide);
        }
    }

    #[test]
    fn rounded_integers_are_within_the_bound_and_untouched_below_it(
        params in integer_params(),
        pool in prop::collection::vec(hostile(), 1..2000),
    ) {
        let params = EncodeParams { norm: norm_kind::ROUNDED, ..params };
        let fixed: Vec<i32> = pool.iter().copied().cycle().take(params.padded as usize).collect();
        let free = EncodeParams { norm_bound: EncodeParams::limbs(u128::MAX), ..params };
        let (plain, _) = encode::rounded_row(&fixed, &stream(7), &free);
        let (bounded, _) = encode::rounded_row(&fixed, &stream(7), &params);
        let norm = |x: &[i64]| x.iter().map(|v| u128::from(v.unsigned_abs()).pow(2)).sum::<u128>();
        prop_assert!(norm(&bounded) <= params.norm_bound());
        prop_assert!(bounded.iter().zip(&plain).all(|(b, x)| b.abs() <= x.abs() && b * x >= 0));
        if norm(&plain) <= params.norm_bound() {
            prop_assert_eq!(&bounded, &plain);
        }
        // Without a bound they are what the plain norm's rounding gives.
        let (other, _) = encode::rounded_row(&fixed, &stream(7), &EncodeParams { norm: norm_kind::L2, ..free });
        prop_assert_eq!(plain, other);
    }

    #[test]
    fn noise_has_the_same_bits_everywhere_and_is_that_of_encode(
        len in 0usize..3000,
        bits in 2u32..=32,
        thresholds in 0usize..90,
        start in any::<u32>(),
    ) {
        let table = jagged_table(thresholds);
        let words: Vec<u32> = (0..len as u32).map(|i| start.wrapping_mul(i | 1) & (u32::MAX >> (32 - bits))).collect();
        let mut expected = Buffer::HostU32(words.clone().into());
        oracle().noise(&mut expected, bits, &table, &stream(9)).unwrap();
        for backend in blocked() {
            let mut found = Buffer::HostU32(words.clone().into());
            backend.noise(&mut found, bits, &table, &stream(9)).unwrap();
            prop_assert_eq!(&found, &expected, "{}", backend.describe());
        }
        if len > 0 {
            let params = EncodeParams { bits, ..plain_params(len as u32, 0) };
            let (signs, mut keys) = (stream(1), row_keys(1));
            keys[0].noise = stream(9);
            let job = EncodeJob { noise: Some(&table), ..job(params, &signs, &keys) };
            let (noised, _) = oracle().encode_integer(&Buffer::HostI32(vec![0; len].into()), &job).unwrap();
            let mut zeros = Buffer::HostU32(vec![0; len].into());
            oracle().noise(&mut zeros, bits, &table, &stream(9)).unwrap();
            prop_assert_eq!(noised, zeros);
        }
    }

    #[test]
    fn sums_wrap_to_the_same_words_everywhere(
        dim in 0usize..40_000, rows in 0usize..5, bits in 2u32..=32, seed in any::<u32>(),
    ) {
        let word = |i: usize| (i as u32).wrapping_add(seed).wrapping_mul(0x9e37_79b9);
        let acc: Vec<u32> = (0..dim).map(|i| word(i) & (u32::MAX >> (32 - bits))).collect();
        let rows_data: Vec<u32> = (0..dim * rows).map(|i| word(i + 77)).collect();
        let modulus = 1u64 << bits;
        let expected: Vec<u32> = (0..dim)
            .map(|j| ((0..rows).map(|i| u64::from(rows_data[i * dim + j])).sum::<u64>() + u64::from(acc[j])) % modulus)
            .map(|w| w as u32)
            .collect();
        for backend in all() {
            let mut acc = Buffer::HostU32(acc.clone().into());
            backend.sum(&mut acc, &Buffer::HostU32(rows_data.clone().into()), Ring::Bits(bits)).unwrap();
            prop_assert_eq!(acc.as_u32().unwrap(), &expected[..], "{}", backend.describe());
        }
    }
}

/// Each fraction rounds up as often as its value says: 40,000 draws, five standard deviations.
#[test]
fn stochastic_rounding_is_unbiased() {
    let dim = 40_000;
    let (signs, keys) = (stream(1), row_keys(1));
    for (value, fraction_bits) in [(1, 2), (-3, 2), (-70_001, 16), (40_000, 16), (5, 4)] {
        let params = EncodeParams { fraction_bits, ..plain_params(dim, 0) };
        let fixed = Buffer::HostI32(vec![value; dim as usize].into());
        let (words, _) = blocked()[0].encode_integer(&fixed, &job(params, &signs, &keys)).unwrap();
        let mean = words.as_u32().unwrap().iter().map(|&w| f64::from(w as i32)).sum::<f64>() / f64::from(dim);
        let exact = f64::from(value) / f64::from(1u32 << fraction_bits);
        let p = exact - exact.floor();
        let deviation = (p * (1.0 - p) / f64::from(dim)).sqrt();
        assert!((mean - exact).abs() <= 5.0 * deviation, "{value}/2^{fraction_bits}: {mean} against {exact}");
    }
}

/// Rows of many blocks and of a ragged end, whose norms are just below, at and just above the bound.
#[test]
fn a_long_row_meets_its_bound_behind_the_rounding_to_the_last_unit() {
    let dim = 3 * 4096 * 8 + 777;
    let (signs, keys) = (stream(1), row_keys(1));
    let fixed: Vec<i32> = (0..dim).map(|i: i32| i.wrapping_mul(-1_640_531_527) >> 14).collect();
    let free = EncodeParams { norm: norm_kind::ROUNDED, ..plain_params(dim as u32, 0) };
    let (plain, _) = encode::rounded_row(&fixed, &keys[0].rounding, &free);
    let norm: u128 = plain.iter().map(|v| u128::from(v.unsigned_abs()).pow(2)).sum();
    for (bound, same) in [(norm + 1, true), (norm, true), (norm - 1, false), (norm / 3, false), (0, false)] {
        let params = EncodeParams { norm_bound: EncodeParams::limbs(bound), ..free };
        let (expected, _) = encode::rounded_row(&fixed, &keys[0].rounding, &params);
        assert_eq!(expected == plain, same, "{bound}");
        for backend in everywhere() {
            let (words, _) = backend.encode_integer(&fixed.clone().into(), &job(params, &signs, &keys)).unwrap();
            let words = backend.to_host(words).unwrap();
            assert!(words.as_u32().unwrap().iter().zip(&expected).all(|(&w, &x)| i64::from(w as i32) == x), "{bound}");
        }
    }
}

#[test]
fn kept_fractions_are_the_fixed_point_itself() {
    let (signs, keys) = (stream(1), row_keys(1));
    let params = EncodeParams { rounding: rounding_kind::KEEP, bits: 20, ..plain_params(4, 0) };
    for backend in all() {
        let fixed = Buffer::HostI32(vec![1, -1, 70_000, -70_000].into());
        let (words, _) = backend.encode_integer(&fixed, &job(params, &signs, &keys)).unwrap();
        assert_eq!(words, Buffer::HostU32(vec![1, (1 << 20) - 1, 70_000, (1 << 20) - 70_000].into()));
    }
}

#[test]
fn the_coordinate_bound_clamps_and_counts() {
    let (signs, keys) = (stream(1), row_keys(2));
    let params = EncodeParams { rounding: rounding_kind::KEEP, linf: 5, norm: norm_kind::MIXED, ..plain_params(3, 0) };
    for backend in all() {
        let fixed = Buffer::HostI32(vec![4, 5, 6, -5, -6, i32::MIN].into());
        let (words, report) = backend.encode_integer(&fixed, &job(params, &signs, &keys)).unwrap();
        let signed: Vec<i32> = words.as_u32().unwrap().iter().map(|&w| w as i32).collect();
        assert_eq!(signed, [4, 5, 5, -5, -5, -5]);
        assert_eq!(report.linf_hits, 3);
    }
}

#[test]
fn wrong_arguments_are_errors_with_their_numbers() {
    let (signs, keys) = (stream(1), row_keys(1));
    let good = plain_params(10, 2);
    let fixed = || Buffer::HostI32(vec![0; 12].into());
    for backend in all() {
        let refuse = |params: EncodeParams, name: &str| {
            let error = backend.encode_integer(&fixed(), &job(params, &signs, &keys)).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: n, .. } if n == name), "{name}: {error}");
        };
        refuse(EncodeParams { bits: 1, ..good }, "bits");
        refuse(EncodeParams { bits: 33, ..good }, "bits");
        refuse(EncodeParams { fraction_bits: 17, ..good }, "fraction_bits");
        refuse(EncodeParams { padded: 16, ..good }, "padded");
        refuse(EncodeParams { dim: 0, ..good }, "dim");
        refuse(EncodeParams { block_log2: 28, ..good }, "block_log2");
        refuse(EncodeParams { rotate: 2, ..good }, "rotate");
        refuse(EncodeParams { norm: 3, ..good }, "norm");
        refuse(EncodeParams { rounding: 2, ..good }, "rounding");
        refuse(EncodeParams { gamma: 0.0, ..good }, "gamma");
        refuse(EncodeParams { gamma: f32::NAN, ..good }, "gamma");
        refuse(EncodeParams { clip: 0.0, ..good }, "clip");
        refuse(EncodeParams { clip: f32::NAN, ..good }, "clip");
        let long = Buffer::HostI32(vec![0; 13].into());
        assert_eq!(
            backend.encode_integer(&long, &job(good, &signs, &keys)),
            Err(BackendError::WrongLength { what: "fixed", expected: 12, found: 13 })
        );
        let floats = Buffer::HostF32(vec![0.0; 12].into());
        assert_eq!(
            backend.encode_integer(&floats, &job(good, &signs, &keys)),
            Err(BackendError::WrongType { expected: "i32", found: "f32" })
        );
        let mut acc = Buffer::HostU32(vec![0; 4].into());
        assert_eq!(
            backend.sum(&mut acc, &Buffer::HostU32(vec![0; 6].into()), Ring::Bits(8)),
            Err(BackendError::WrongLength { what: "rows", expected: 8, found: 6 })
        );
        assert!(backend.sum(&mut acc, &Buffer::HostU32(vec![].into()), Ring::Bits(1)).is_err());
        assert!(backend.noise(&mut acc, 40, &jagged_table(1), &signs).is_err());
    }
}
