//! The transform and what is fused with it: every instruction set near the oracle, and the same bits on all of
//! them for any number of threads.
//!
//! The bounds are those of `floats`: after k stages, one scaling and one rounding the L2 distance to the exact
//! result is at most `(k + 2) 2^-24 |y|`.

use proptest::prelude::*;
use veilsum::backend::simd::Simd;
use veilsum::backend::{Backend, Buffer};
use veilsum::params::{ClipParams, DecodeParams, FwhtParams};

use super::floats::{ULP, assert_close, norm};
use super::*;

fn fwht(backend: &dyn Backend, x: &[f32], block_log2: u32, scale: f32) -> Vec<f32> {
    let mut buffer = Buffer::from(x.to_vec());
    let params = FwhtParams { len: x.len() as u32, block_log2, scale, _pad: 0 };
    backend.fwht(&mut buffer, &params).unwrap();
    buffer.as_f32().unwrap().to_vec()
}

fn orthonormal(block_log2: u32) -> f32 {
    0.5f64.powi(block_log2 as i32).sqrt() as f32
}

/// Numbers in (-1, 1) without a pattern.
fn scattered(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// Results on every instruction set and 1, 2 and 3 threads, which must be the same bits.
fn same_everywhere<T: PartialEq + Send>(what: &str, run: impl Fn(&Simd) -> T + Sync) -> T {
    let mut first = None;
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for backend in blocked() {
            let found = pool.install(|| run(&backend));
            let same = first.as_ref().is_none_or(|first| *first == found);
            assert!(same, "{what}: {} differs on {threads} threads", backend.describe());
            first.get_or_insert(found);
        }
    }
    first.unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn no_size_or_number_of_blocks_or_threads_changes_a_bit() {
    // From less than a group to a block of several tasks; odd numbers of blocks, some too few for all threads.
    for (block_log2, blocks) in [(0, 5), (1, 333), (3, 20_001), (4, 5000), (7, 1025), (8, 777), (11, 70), (12, 33)]
        .into_iter()
        .chain([(13, 9), (14, 7), (15, 5), (16, 5), (17, 3), (18, 1), (19, 1), (20, 1)])
    {
        let x = scattered(blocks << block_log2);
        same_everywhere(&format!("{blocks} blocks of 2^{block_log2}"), |backend| {
            bits(&fwht(backend, &x, block_log2, orthonormal(block_log2)))
        });
    }
}

#[test]
fn hard_inputs_stay_within_the_bound() {
    type Input = fn(usize) -> f32;
    let inputs: [(&str, Input); 6] = [
        ("huge and tiny in turn", |i| if i % 2 == 0 { 1e30 } else { 1e-30 }),
        ("all equal", |_| 0.1),
        ("one above zero", |i| if i == 5 { 3.3 } else { 0.0 }),
        ("cancelling", |i| if i % 2 == 0 { 1e6 + i as f32 } else { -1e6 }),
        ("denormal", |i| f32::from_bits(1 + (i as u32 * 7919) % 0x7f_ffff)),
        ("the largest", |i| if i.count_ones() % 2 == 0 { f32::MAX } else { -f32::MAX }),
    ];
    for (what, input) in inputs {
        for block_log2 in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17] {
            let x: Vec<f32> = (0..1usize << block_log2).map(input).collect();
            // The largest floats overflow where they add up, on the oracle too: scaled to the mean they do not.
            let scale = if what == "the largest" { 0.5f32.powi(block_log2) } else { orthonormal(block_log2 as u32) };
            let expected = fwht(&oracle(), &x, block_log2 as u32, scale);
            let gain = f64::from(scale) * 2f64.powf(0.5 * f64::from(block_log2));
            let floor = (x.len() as f64).sqrt() * 2f64.powf(0.5 * f64::from(block_log2)) * 2f64.powi(-149);
            let bound = f64::from(block_log2 + 2) * ULP * gain * norm(x.iter().map(|&v| f64::from(v))) + floor;
            for backend in others() {
                let found = fwht(&*backend, &x, block_log2 as u32, scale);
                assert_close(&found, &expected, bound, &format!("{what}, 2^{block_log2}, {}", backend.describe()));
            }
        }
    }
}

/// `H e_j` is the Walsh function j, and `H` of that is `n e_j`: integers, exact in `f32`.
#[test]
fn long_blocks_turn_unit_vectors_into_walsh_functions_and_back() {
    for block_log2 in [19, 20, 22] {
        let n = 1usize << block_log2;
        for j in [1, 12_345, n - 1] {
            let mut x = vec![0.0; n];
            x[j] = 1.0;
            for backend in blocked() {
                let y = fwht(&backend, &x, block_log2, 1.0);
                let walsh = |i: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                assert!(y.iter().enumerate().all(|(i, &v)| v == walsh(i)), "2^{block_log2} {}", backend.describe());
                let back = fwht(&backend, &y, block_log2, 1.0 / n as f32);
                assert!(back == x, "2^{block_log2} {}", backend.describe());
            }
        }
    }
}

#[test]
fn clip_gives_the_same_bits_on_any_number_of_threads() {
    let x = scattered(300_000);
    for (rows, dim) in [(1, 300_000), (3, 100_000), (300, 1000), (100_000, 3)] {
        let params = ClipParams { rows, dim, stride: dim, bound: 1.0 };
        same_everywhere(&format!("{rows} rows"), |backend| {
            let mut found = Buffer::from(x.clone());
            let norms = backend.clip(&mut found, &params).unwrap();
            (bits(&norms), bits(found.as_f32().unwrap()))
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn decode_is_close_to_the_oracle(
        dim in 1u32..70_000, block_log2 in 0u32..17, bits in 2u32..=32, rotate in 0u32..=1, seed in any::<u32>(),
        unit in prop_oneof![4 => 1e-6f32..1e3, 1 => Just(1e-37f32), 1 => Just(f32::from_bits(77)), 1 => Just(0.0)],
    ) {
        let padded = dim.next_multiple_of(1 << block_log2);
        let words = (0..padded).map(|i| i.wrapping_add(seed).wrapping_mul(2_654_435_761) ^ seed).collect::<Vec<u32>>();
        let words = Buffer::from(words);
        let p = DecodeParams { dim, padded, block_log2, rotate, bits, unit, _pad: [0; 2] };
        let expected = oracle().decode(&words, &p, &stream(3)).unwrap();
        // Conversion, factor, product: three more roundings. What is cut off by `dim` counts in the norm; inputs and
        // results may be denormal.
        let whole = oracle().decode(&words, &DecodeParams { dim: padded, ..p }, &stream(3)).unwrap();
        let floor = f64::from(padded).sqrt() * 2f64.powf(0.5 * f64::from(block_log2)) * 2f64.powi(-149);
        let bound = f64::from(block_log2 + 4) * ULP * norm(whole.iter().map(|&v| f64::from(v))) + floor;
        let mut first: Option<Vec<f32>> = None;
        for backend in blocked() {
            let found = backend.decode(&words, &p, &stream(3)).unwrap();
            assert_close(&found, &expected, bound, &backend.describe());
            prop_assert!(*first.get_or_insert_with(|| found.clone()) == found, "{}", backend.describe());
        }
    }
}

#[test]
fn decode_gives_the_same_bits_on_any_number_of_threads() {
    for (dim, block_log2) in
        [(5, 0), (100_000, 0), (1000, 4), (70_000, 10), (600_000, 15), (300_000, 19), (1 << 20, 20)]
    {
        let padded = u32::next_multiple_of(dim, 1 << block_log2);
        let words = Buffer::from((0..padded).map(|i| i.wrapping_mul(2_654_435_761)).collect::<Vec<u32>>());
        let p = DecodeParams { dim, padded, block_log2, rotate: 1, bits: 20, unit: 0.1, _pad: [0; 2] };
        same_everywhere(&format!("{dim} in blocks of 2^{block_log2}"), |backend| {
            bits(&backend.decode(&words, &p, &stream(3)).unwrap())
        });
    }
}
