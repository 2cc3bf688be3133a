//! Inner products and distances against the oracle, whose sums run over products and over differences.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer, Gram, Rows};

use super::*;

/// The bound on a sum of exact products, as a share of the sum of their magnitudes: twice the one stated
/// for `gram`, since the oracle rounds too.
fn share(dim: usize) -> f64 {
    (2.0 * 1031.0 + 2.0 * dim as f64) * 2f64.powi(-53)
}

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut s = seed | 1;
    let step = |_| {
        s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (s >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..len).map(step).collect()
}

/// Every pair of `found` within its bound of the exact sums.
fn assert_close(found: &Gram, x: &[f32], dim: usize, what: &str) {
    let rows: Vec<&[f32]> = x.chunks_exact(dim).collect();
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate() {
            let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                a.iter().zip(*b).map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum()
            };
            let (product, size) = (sum(&|a, b| a * b), sum(&|a, b| (a * b).abs()));
            assert!((found.product(i, j) - product).abs() <= share(dim) * size, "{what} product {i} {j}");
            let distance = sum(&|a, b| (a - b) * (a - b));
            let near = (found.distance2(i, j) - distance).abs() <= share(dim) * 2f64.powi(18) * distance;
            assert!(near, "{what} distance {i} {j}: {} {distance}", found.distance2(i, j));
        }
    }
}

#[test]
fn three_points_on_every_backend() {
    let rows = Rows::dense(vec![0.0, 0.0, 3.0, 4.0, 3.0, 0.0], 3, 2).unwrap();
    for backend in everywhere() {
        let gram = backend.gram(&rows).unwrap();
        assert_eq!(gram.products(), [0.0, 0.0, 0.0, 0.0, 25.0, 9.0, 0.0, 9.0, 9.0], "{}", backend.describe());
        assert_eq!(gram.distances2(), [0.0, 25.0, 9.0, 25.0, 0.0, 16.0, 9.0, 16.0, 0.0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any shape; rows that are equal, nearly equal, huge, denormal.
    #[test]
    fn every_pair_is_within_its_bound(n in 1usize..30, dim in 1usize..1400, kinds in prop::collection::vec(0u8..7, 30), seed in any::<u32>()) {
        let base = numbers(dim, seed);
        let mut x = Vec::new();
        for (i, kind) in kinds.iter().enumerate().take(n) {
            let fresh = numbers(dim, seed.wrapping_add(7 * i as u32 + 1));
            x.extend(base.iter().zip(&fresh).map(|(&b, &f)| match kind {
                0 => b,
                1 => b + f * 1e-6,
                2 => 1e3 + f,
                3 => f * 1e30,
                4 => f * 1e-42,
                5 => f32::MAX.copysign(f),
                _ => f,
            }));
        }
        let rows = Rows::dense(x.clone(), n, dim).unwrap();
        let mut first: Option<Gram> = None;
        for backend in blocked() {
            let found = backend.gram(&rows).unwrap();
            assert_close(&found, &x, dim, &backend.describe());
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                prop_assert_eq!(found.product(i, j), found.product(j, i));
                prop_assert_eq!(found.distance2(i, j), found.distance2(j, i));
                let equal = x[i * dim..][..dim] == x[j * dim..][..dim];
                prop_assert_eq!(found.distance2(i, j) == 0.0, equal, "{} {}", i, j);
            }
            prop_assert!(*first.get_or_insert_with(|| found.clone()) == found, "{}", backend.describe());
        }
    }
}

/// Segments that end early, tiles beyond the last row, rows apart in device memory.
#[test]
fn devices_keep_the_bound() {
    for (n, dim, kind) in [(1, 5, 0), (3, 20_000, 1), (17, 1500, 2), (33, 70, 3), (5, 8193, 4)] {
        let base = numbers(dim, 77);
        let mut x = Vec::new();
        for i in 0..n as u32 {
            let fresh = numbers(dim, 7 * i + 1);
            x.extend(base.iter().zip(&fresh).map(|(&b, &f)| match (kind + i) % 5 {
                0 => b,
                1 => b + f * 1e-6,
                2 => 1e3 + f,
                3 => f32::MAX.copysign(f),
                _ => f * 1e-42,
            }));
        }
        let spread: Vec<f32> = x.chunks_exact(dim).flat_map(|row| row.iter().copied().chain([f32::NAN; 3])).collect();
        for backend in devices() {
            let buffer = backend.upload(&Buffer::from(spread.clone())).unwrap();
            let rows = Rows { buffer, offset: 0, stride: dim + 3, rows: n, dim };
            let found = backend.gram(&rows).unwrap();
            assert_close(&found, &x, dim, &backend.describe());
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let equal = x[i * dim..][..dim] == x[j * dim..][..dim];
                assert_eq!(found.distance2(i, j) == 0.0, equal, "{i} {j}");
            }
        }
    }
}

/// A hostile row of 1e30 takes no digits from the others, whose distances are 1e-4 of their norms.
#[test]
fn one_huge_row_changes_no_other_distance() {
    let (n, dim) = (9, 3000);
    let base = numbers(dim, 3);
    let mut x: Vec<f32> = Vec::new();
    for i in 0..n {
        let fresh = numbers(dim, 100 + i);
        x.extend(base.iter().zip(fresh).map(|(b, f)| b + 1e-4 * f));
    }
    for backend in everywhere() {
        let calm = backend.gram(&Rows::dense(x.clone(), 9, dim).unwrap()).unwrap();
        let mut hostile = x.clone();
        hostile[..dim].fill(1e30);
        let found = backend.gram(&Rows::dense(hostile, 9, dim).unwrap()).unwrap();
        for (i, j) in (1..9).flat_map(|i| (1..9).map(move |j| (i, j))) {
            assert_eq!(found.distance2(i, j), calm.distance2(i, j));
        }
    }
}

/// Many segments, more rows than a band: threads and instruction sets give the same bits.
#[test]
fn threads_change_no_bit() {
    for (n, dim) in [(5, 100_003), (270, 1030), (1, 20_000)] {
        let x = numbers(n * dim, 9);
        let rows = Rows::dense(x, n, dim).unwrap();
        let mut first: Option<Gram> = None;
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for backend in blocked() {
                let found = pool.install(|| backend.gram(&rows).unwrap());
                assert!(*first.get_or_insert_with(|| found.clone()) == found, "{threads} {}", backend.describe());
            }
        }
        let exact = oracle().gram(&rows).unwrap();
        for (a, b) in first.unwrap().distances2().iter().zip(exact.distances2()) {
            assert!((a - b).abs() <= 1e-9 * b);
        }
    }
}

#[test]
fn bad_rows_are_named() {
    for backend in everywhere() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 3 * 700];
            x[700 + 650] = poison;
            let rows = Rows::dense(x, 3, 700).unwrap();
            assert_eq!(backend.gram(&rows), Err(BackendError::NonFinite { row: 1, coordinate: 650 }));
        }
        for (rows, dim, name) in [(0, 5, "rows"), (5, 0, "dim"), (2049, 1, "rows")] {
            let rows = Rows::dense(vec![1.0; rows * dim], rows, dim).unwrap();
            let error = backend.gram(&rows).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: n, .. } if n == name), "{error}");
        }
        let short = Rows { rows: 3, ..Rows::dense(vec![1.0; 10], 2, 5).unwrap() };
        assert_eq!(backend.gram(&short), Err(BackendError::WrongLength { what: "rows", expected: 15, found: 10 }));
    }
}
