//! Rows longer than one binding: every stage takes them in columns, and no bit changes.

use veilsum::backend::device::DeviceBackend;
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob, MaskSign, Packed, Rows, f16};
use veilsum::params::{ClipParams, EncodeParams, Ring, norm_kind};
use veilsum::sample::binomial::CentredBinomial;
use veilsum::sample::noise::Noise;

use super::device::other_device;
use super::emulated::Emulated;
use super::integers::jagged_table;
use super::*;

const PRIME: u32 = 2_147_483_629;

fn scattered(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0xc2b2_ae35)).collect()
}

/// Devices whose slices hold 2^13 to 2^15 words, each with one of its kind whose slices hold much more.
fn pairs() -> Vec<(DeviceBackend, DeviceBackend)> {
    let mut pairs = Vec::new();
    match emulation::unavailable() {
        None => {
            let emulated = |words| DeviceBackend::new(Arc::new(Emulated::with_slices(words)));
            pairs.push((emulated(1 << 13), emulated(1 << 21)));
        }
        Some(why) => eprintln!("SKIPPED on emulated CUDA: {why}"),
    }
    // As small as the adapter's boundaries allow.
    let limit = |limits: &mut wgpu::Limits| {
        limits.max_storage_buffer_binding_size =
            (1 << 15).max(2048 * u64::from(limits.min_storage_buffer_offset_alignment));
    };
    pairs.extend(other_device(limit).zip(other_device(|_| ())));
    pairs
}

fn host(backend: &DeviceBackend, x: &Buffer) -> Buffer {
    backend.download(x).unwrap()
}

/// Two rows apart from each other, as floats and as halves.
fn inputs(dim: usize) -> Vec<Rows> {
    let (stride, offset) = (dim + 3, 5);
    let x: Vec<f32> = scattered(offset + 2 * stride, 4).iter().map(|&v| v as f32 / 4e9 - 0.5).collect();
    let halves: Vec<f16> = x.iter().map(|&v| f16::from_f32(v)).collect();
    let rows = |buffer| Rows { buffer, offset, stride, rows: 2, dim };
    vec![rows(Buffer::from(x)), rows(Buffer::HostF16(halves.into_iter().collect()))]
}

/// Words, report, and the rows as they travel.
fn encoded(backend: &DeviceBackend, rows: &Rows, job: &EncodeJob<'_>) -> (Buffer, Packed) {
    let (fixed, first) = backend.encode_fixed(rows, job).unwrap();
    let (halves, second) = backend.encode_integer(&host(backend, &fixed), job).unwrap();
    let (words, report) = backend.encode(rows, job).unwrap();
    let mut both = first;
    both.merge(&second);
    assert_eq!(report, both);
    assert!(host(backend, &words) == host(backend, &halves));
    let (packed, again) = backend.encode_packed(rows, job).unwrap();
    assert_eq!(again, report);
    (host(backend, &words), packed)
}

#[test]
fn a_row_that_no_slice_holds_is_encoded_in_columns() {
    let (signs, keys) = (stream(3), row_keys(2));
    let laws = [jagged_table(9), Noise::from(CentredBinomial::new(20).unwrap())];
    for (small, large) in pairs() {
        let most = small.device().limits().max_slice_words;
        for (i, dim) in [most as usize + 5000, 2 * most as usize + 77].into_iter().enumerate() {
            let block_log2 = [0, 16][i];
            let params = EncodeParams {
                clip: 3.0,
                bits: 21,
                norm: [norm_kind::L2, norm_kind::MIXED][i],
                rotate: u32::from(i > 0),
                norm_bound: EncodeParams::limbs(1 << 40),
                ..plain_params(dim as u32, block_log2)
            };
            let job = EncodeJob { noise: Some(&laws[i]), ..job(params, &signs, &keys) };
            for rows in inputs(dim) {
                let found = encoded(&small, &rows, &job);
                assert!(found == encoded(&large, &rows, &job), "{dim} {}", small.describe());
                // The sum of both rows, decoded.
                let (padded, words) = (params.padded, found.0.as_u32().unwrap().to_vec());
                let sum = |backend: &DeviceBackend| {
                    let mut acc = Buffer::from(vec![7u32; padded as usize]);
                    backend.sum(&mut acc, &Buffer::from(words.clone()), Ring::Bits(21)).unwrap();
                    (backend.decode(&acc, &params.decode(0.25), &signs).unwrap(), acc)
                };
                assert!(sum(&small) == sum(&large));
            }
        }
    }
}

#[test]
fn a_row_that_no_slice_holds_is_clipped_and_a_nan_in_it_named() {
    for (small, large) in pairs() {
        let dim = 2 * small.device().limits().max_slice_words as usize + 9;
        let x: Vec<f32> = scattered(2 * dim + 6, 4).iter().map(|&v| v as f32 / 4e9 - 0.5).collect();
        let params = ClipParams { rows: 2, dim: dim as u32, stride: dim as u32 + 3, bound: 2.0 };
        let clipped = |backend: &DeviceBackend| {
            let mut x = Buffer::from(x.clone());
            (backend.clip(&mut x, &params).unwrap(), x)
        };
        assert!(clipped(&small) == clipped(&large), "{}", small.describe());
        let mut broken = x.clone();
        broken[dim + 3 + dim - 2] = f32::NAN;
        let named = BackendError::NonFinite { row: 1, coordinate: dim - 2 };
        let mut there = Buffer::from(broken.clone());
        assert_eq!(small.clip(&mut there, &params).unwrap_err(), named);
        let (signs, keys) = (stream(3), row_keys(2));
        let job = job(plain_params(dim as u32, 0), &signs, &keys);
        let rows = Rows { buffer: broken.into(), offset: 0, stride: dim + 3, rows: 2, dim };
        assert_eq!(small.encode(&rows, &job).unwrap_err(), named);
        let (words, report) = small.encode(&rows, &EncodeJob { non_finite: NonFinite::ZeroRow, ..job }).unwrap();
        let words = host(&small, &words);
        assert!(report.zeroed == 1 && words.as_u32().unwrap()[dim..].iter().all(|&v| v == 0));
    }
}

#[test]
fn words_that_no_slice_holds_are_summed_masked_and_packed() {
    for (small, large) in pairs() {
        let len = small.device().limits().max_slice_words as usize + 4099;
        let (x, rows) = (scattered(len, 1), scattered(3 * len, 2));
        let below: Vec<u32> = rows.iter().map(|v| v % PRIME).collect();
        let start: Vec<u32> = x.iter().map(|v| v % PRIME).collect();
        let results = |backend: &DeviceBackend| {
            let changed = |x: &[u32], verb: &dyn Fn(&mut Buffer) -> Result<(), BackendError>| {
                let mut x = Buffer::from(x.to_vec());
                verb(&mut x).unwrap();
                x
            };
            let bytes = backend.pack(&Buffer::from(x.clone()), 13).unwrap();
            let back = host(backend, &backend.unpack(&bytes, len, 13).unwrap());
            let into = |rows: &[u32], ring| changed(&start, &|x| backend.sum(x, &Buffer::from(rows.to_vec()), ring));
            let sums = [into(&rows, Ring::Bits(19)), into(&below, Ring::Prime(PRIME)), into(&[], Ring::Bits(9))];
            let mask = |ring| changed(&start, &|x| backend.mask(x, ring, &stream(6), MaskSign::Add));
            let noised = changed(&x, &|x| backend.noise(x, 32, &jagged_table(9), &stream(5)));
            let masks = [30, 16, 7].map(|b| mask(Ring::Bits(b)));
            (bytes, back, sums, masks, [mask(Ring::Prime(PRIME)), noised])
        };
        assert!(results(&small) == results(&large), "{}", small.describe());
    }
}

#[test]
fn what_cannot_be_split_is_an_error_with_both_figures() {
    if !emulation::available() {
        return;
    }
    // Columns start at multiples of 4096 elements, and a slice may start up to 4 words before.
    let tiny = DeviceBackend::new(Arc::new(Emulated::with_slices(1 << 12)));
    let (signs, keys) = (stream(3), row_keys(1));
    let rows = Rows::dense(vec![0.0; 9000], 1, 9000).unwrap();
    let error = tiny.encode(&rows, &job(plain_params(9000, 0), &signs, &keys)).unwrap_err();
    assert!(matches!(error, BackendError::TooLong { words: 4096, most: 4092, .. }), "{error}");
    assert!(error.to_string().contains("holds 4092"), "{error}");
}
