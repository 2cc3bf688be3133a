//! Median and trimmed mean: the same bits as the oracle on every instruction set and device.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer, Rows};

use super::*;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Few distinct values among many magnitudes, so that ties and zeros of both signs are common.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0f32..1.0,
        2 => (-3i8..4).prop_map(f32::from),
        1 => prop::num::f32::SUBNORMAL,
        1 => prop::num::f32::NORMAL,
        1 => Just(-0.0),
        1 => Just(f32::MAX),
        1 => Just(-f32::MAX),
    ]
}

/// `n x dim` values from a pool, rows apart in their buffer.
fn rows(pool: &[f32], n: usize, dim: usize, gap: usize) -> Rows {
    let stride = dim + gap;
    let data: Vec<f32> = (0..n * stride).map(|i| pool[(i * 7 + i / stride * 13) % pool.len()]).collect();
    Rows { buffer: data.into(), offset: 0, stride, rows: n, dim }
}

#[test]
fn a_small_table_by_hand() {
    let table = vec![4.0, -0.0, 1.0, 0.0, 100.0, -0.0, 2.0, -1.0];
    for backend in everywhere() {
        let rows = Rows::dense(table.clone(), 4, 2).unwrap();
        assert_eq!(bits(&backend.median(&rows).unwrap()), bits(&[3.0, 0.0]), "{}", backend.describe());
        assert_eq!(backend.trimmed_mean(&rows, 1).unwrap(), [3.0, 0.0], "{}", backend.describe());
        assert_eq!(backend.trimmed_mean(&rows, 0).unwrap(), [26.75, -0.25], "{}", backend.describe());
    }
}

/// A network that sorts zeros and ones sorts everything (the 0-1 principle): 48 patterns for every size.
#[test]
fn every_number_of_rows_is_sorted() {
    for n in (1..=70).chain([100, 127, 128, 129, 255, 300]) {
        let dim = 48;
        let data: Vec<f32> = (0..n * dim).map(|i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 1) as f32).collect();
        let table = Rows::dense(data, n, dim).unwrap();
        let (median, trimmed) = (oracle().median(&table).unwrap(), oracle().trimmed_mean(&table, (n - 1) / 3).unwrap());
        for backend in others() {
            assert_eq!(backend.median(&table).unwrap(), median, "{n} {}", backend.describe());
            assert_eq!(backend.trimmed_mean(&table, (n - 1) / 3).unwrap(), trimmed, "{n} {}", backend.describe());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn bits_of_the_oracle(
        pool in prop::collection::vec(value(), 1..400), n in prop_oneof![1usize..20, 1usize..80], dim in 1usize..100,
        gap in 0usize..3, share in 0f64..0.5,
    ) {
        let table = rows(&pool, n, dim, gap);
        let trim = ((n as f64 * share) as usize).min((n - 1) / 2);
        let median = bits(&oracle().median(&table).unwrap());
        let mean = bits(&oracle().trimmed_mean(&table, trim).unwrap());
        for backend in others() {
            prop_assert_eq!(&bits(&backend.median(&table).unwrap()), &median, "{}", backend.describe());
            prop_assert_eq!(&bits(&backend.trimmed_mean(&table, trim).unwrap()), &mean, "{}", backend.describe());
        }
    }
}

/// Many tasks, strips with a ragged end.
#[test]
fn long_rows_on_several_threads() {
    for (n, dim) in [(10, 20_011), (33, 17_003), (1000, 130)] {
        let pool: Vec<f32> = (0..1009).map(|i: i32| ((i * 31 % 1009) - 500) as f32 / 7.0).collect();
        let table = rows(&pool, n, dim, 1);
        let expected = oracle().median(&table).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for backend in blocked() {
                let found = pool.install(|| backend.median(&table).unwrap());
                assert!(found == expected, "{n} {threads} {}", backend.describe());
            }
        }
    }
}

#[test]
fn bad_rows_are_named() {
    for backend in everywhere() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (n, dim) in [(3, 700), (40, 37)] {
                let mut x = vec![1.0; n * dim];
                x[2 * dim + 36] = poison;
                let table = Rows::dense(x, n, dim).unwrap();
                let error = Err(BackendError::NonFinite { row: 2, coordinate: 36 });
                assert_eq!(backend.median(&table), error);
                assert_eq!(backend.trimmed_mean(&table, 1), error);
            }
        }
        let table = Rows::dense(vec![1.0; 8], 4, 2).unwrap();
        for trim in [2, 3, usize::MAX] {
            let error = backend.trimmed_mean(&table, trim).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: "trim", .. }), "{error}");
        }
        let none = Rows::dense(vec![], 0, 2).unwrap();
        assert!(matches!(backend.median(&none), Err(BackendError::OutOfRange { name: "rows", .. })));
        let words = Rows { buffer: Buffer::from(vec![1u32; 8]), ..table };
        assert_eq!(backend.median(&words), Err(BackendError::WrongType { expected: "f32", found: "u32" }));
    }
}

/// More rows than the smaller kernels of a device sort; coordinates that end inside a group; rows apart in device memory.
#[test]
fn many_rows_on_a_device() {
    let pool: Vec<f32> = (0..4099).map(|i: i32| ((i * 31 % 4099) - 2000) as f32 / 7.0).collect();
    for (n, dim) in [(9, 1000), (600, 37), (1024, 9), (2500, 3)] {
        let mut table = rows(&pool, n, dim, 2);
        let (median, mean) = (oracle().median(&table).unwrap(), oracle().trimmed_mean(&table, n / 3).unwrap());
        let host = table.buffer.clone();
        for backend in devices() {
            table.buffer = backend.upload(&host).unwrap();
            assert_eq!(backend.median(&table).unwrap(), median, "{n} {}", backend.describe());
            assert_eq!(backend.trimmed_mean(&table, n / 3).unwrap(), mean, "{n} {}", backend.describe());
        }
    }
}

/// Half sums at the ends of the range: what shaders compute from bits, since a GPU may flush denormals.
#[test]
fn half_sums_of_any_two_floats_are_rounded_once() {
    let ends =
        [0u32, 1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, 0xff_ffff, 0x100_0000, 0x7f7f_ffff, 0x3f80_0000, 0x3f80_0001];
    let mixed = (0..200u32).map(|i| i.wrapping_mul(0x9e37_79b9)).filter(|b| f32::from_bits(*b).is_finite());
    let bits: Vec<u32> = ends.into_iter().flat_map(|b| [b, b | 1 << 31]).chain(mixed).collect();
    let near = |b: u32| [b, b ^ 1, b ^ (1 << 31), b.wrapping_add(0x0c00_0000) & 0xff7f_ffff];
    let pairs: Vec<[f32; 2]> = bits
        .iter()
        .flat_map(|&a| bits.iter().copied().chain(near(a)).map(move |b| [a, b].map(f32::from_bits)))
        .filter(|pair| pair.iter().all(|v| v.is_finite()))
        .collect();
    let data = [0, 1].map(|side| pairs.iter().map(|pair| pair[side]).collect::<Vec<_>>()).concat();
    let table = Rows::dense(data, 2, pairs.len()).unwrap();
    let expected = oracle().median(&table).unwrap();
    for backend in others() {
        let found = backend.median(&table).unwrap();
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{:?} {}", pairs[i], backend.describe());
        }
    }
}
