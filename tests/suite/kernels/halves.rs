//! Rows of half precision: encoded to the bits of the same rows in f32, on every backend; refused where a stage changes
//! rows in place.

use std::sync::Arc;

use proptest::prelude::*;
use veilsum::backend::device::{DeviceBackend, DeviceBuffer};
use veilsum::backend::{
    Backend, BackendError, BackendKind, Buffer, EncodeJob, EncodeReport, NonFinite, Rows, bf16, f16,
};
use veilsum::params::{ClipParams, EncodeParams, FwhtParams, norm_kind};

use super::emulated::Emulated;
use super::integers::jagged_table;
use super::*;

/// Numbers of both types, and the same numbers in f32.
fn twins(bits: &[u16]) -> [(Buffer, Buffer); 2] {
    let f16s: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
    let bf16s: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
    let wide = (f16s.iter().map(|v| v.to_f32()).collect(), bf16s.iter().map(|v| v.to_f32()).collect());
    let (a, b): (Vec<f32>, Vec<f32>) = wide;
    [(f16s.into(), a.into()), (bf16s.into(), b.into())]
}

/// The bits, or those of a finite number where they are of none, of either type.
fn finite(bits: u16) -> u16 {
    if bits & 0x7c00 == 0x7c00 || bits & 0x7f80 == 0x7f80 { bits & !0x4000 } else { bits }
}

/// Bits without a pattern.
fn scattered(len: usize) -> Vec<u16> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u16).collect()
}

fn host(backend: &dyn Backend, x: &Buffer) -> Buffer {
    backend.download(x).unwrap()
}

/// All forms of `encode` give the bits and the report of the rows in f32, from the host and from the backend's memory.
fn assert_same(backend: &dyn Backend, half: &Rows, wide: &Rows, job: &EncodeJob<'_>) {
    let (fixed, report) = backend.encode_fixed(wide, job).unwrap();
    let (words, both) = backend.encode(wide, job).unwrap();
    let packed = backend.encode_packed(wide, job).unwrap();
    let there = Rows { buffer: backend.upload(&half.buffer).unwrap(), ..half.clone() };
    for rows in [half, &there] {
        let (found, seen) = backend.encode_fixed(rows, job).unwrap();
        let what = format!("{} {} {:?}", rows.buffer.dtype(), backend.describe(), job.params);
        assert!(host(backend, &found) == host(backend, &fixed), "fixed point of {what}");
        assert_eq!(seen, report, "{what}");
        let (found, seen) = backend.encode(rows, job).unwrap();
        assert!(host(backend, &found) == host(backend, &words), "words of {what}");
        assert_eq!(seen, both, "{what}");
        let mut out = Buffer::from(vec![7u32; 3]);
        assert_eq!(backend.encode_into(rows, job, &mut out).unwrap(), both);
        assert!(host(backend, &out) == host(backend, &words), "words of {what}, written over others");
        assert_eq!(backend.encode_packed(rows, job).unwrap(), packed, "{what}");
    }
    let after = host(backend, &there.buffer).into_bits();
    assert!(after == half.buffer.clone().into_bits(), "the rows have changed");
}

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    dim: usize,
    gap: usize,
    offset: usize,
    params: EncodeParams,
    noise: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (0usize..4, 1usize..300, 0usize..4, 0usize..5, 0u32..9);
    let job = (any::<bool>(), prop::sample::select(vec![f32::INFINITY, 1.0, 1e-6]), any::<bool>(), 0u32..=16);
    (shape, job, any::<bool>()).prop_map(|((rows, dim, gap, offset, block_log2), (rotate, clip, mixed, f), noise)| {
        let norm = if mixed { norm_kind::MIXED } else { norm_kind::L2 };
        let params = EncodeParams {
            rotate: rotate.into(),
            norm,
            clip,
            fraction_bits: f,
            bits: 23,
            linf: 1 << 24,
            norm_bound: EncodeParams::limbs(1 << 50),
            ..plain_params(dim as u32, block_log2)
        };
        Case { rows, dim, gap, offset, params, noise }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn halves_are_encoded_to_the_bits_of_their_twins_in_f32(
        case in case(),
        pool in prop::collection::vec(any::<u16>(), 1..400),
        kind in 0..3,
    ) {
        let stride = case.dim + case.gap;
        let len = case.offset + case.rows * stride;
        // Of all sizes; denormals and zeros; around one in f16, from tiny to one in bf16.
        let shaped = pool.iter().map(|&b| match kind {
            0 => finite(b),
            1 => b & 0x807f,
            _ => b & 0xbfff,
        });
        let bits: Vec<u16> = shaped.cycle().take(len).map(finite).collect();
        let (signs, keys, law) = (stream(3), row_keys(case.rows), jagged_table(4));
        let job = EncodeJob { noise: case.noise.then_some(&law), ..job(case.params, &signs, &keys) };
        for (half, wide) in twins(&bits) {
            let at = |buffer| Rows { buffer, offset: case.offset, stride, rows: case.rows, dim: case.dim };
            let (half, wide) = (at(half), at(wide));
            for backend in everywhere() {
                assert_same(&*backend, &half, &wide, &job);
            }
        }
    }
}

#[test]
fn long_rows_of_halves_have_the_bits_of_their_twins_in_f32() {
    for (rows, dim, block_log2, hosts_alone) in [
        (2, 4097, 12, false),
        (1, 9001, 0, false),
        (2, 70_001, 5, true),
        (1, 300_003, 15, true),
        (1, 280_000, 19, true),
    ] {
        let bits: Vec<u16> = scattered(rows * dim).into_iter().map(finite).collect();
        let (signs, keys) = (stream(3), row_keys(rows));
        let params = EncodeParams { clip: 1.0, ..plain_params(dim as u32, block_log2) };
        for (half, wide) in twins(&bits) {
            let at = |buffer| Rows::side_by_side(buffer, rows, dim).unwrap();
            let (half, wide) = (at(half), at(wide));
            let backends = if hosts_alone { all() } else { everywhere() };
            for backend in backends.iter().filter(|b| !hosts_alone || b.kind() != BackendKind::Scalar) {
                assert_same(&**backend, &half, &wide, &job(params, &signs, &keys));
            }
        }
    }
}

/// Without a rotation and by powers of two all is exact: every number shows as itself.
#[test]
fn every_half_is_seen_as_its_own_value() {
    let bits: Vec<u16> = (0..=u16::MAX).filter(|&b| finite(b) == b).collect();
    let (signs, keys) = (stream(3), row_keys(1));
    for (half, wide) in twins(&bits) {
        let at = |buffer| Rows::side_by_side(buffer, 1, bits.len()).unwrap();
        let f16s = half.dtype() == "f16";
        let (half, wide) = (at(half), at(wide));
        for log2 in [-20, 0, 24, 100] {
            let params = EncodeParams { rotate: 0, gamma: 2f32.powi(log2), ..plain_params(bits.len() as u32, 0) };
            let job = job(params, &signs, &keys);
            let (expected, _) = oracle().encode_fixed(&wide, &job).unwrap();
            for backend in everywhere() {
                let (found, _) = backend.encode_fixed(&half, &job).unwrap();
                let found = host(&*backend, &found);
                let (twin, _) = backend.encode_fixed(&wide, &job).unwrap();
                assert!(found == host(&*backend, &twin), "{} 2^{log2} {}", half.buffer.dtype(), backend.describe());
                // Of bf16, numbers beyond 2^120 scale their row down, and a device may flush what is denormal in f32.
                assert!(!f16s || found == expected, "f16 2^{log2} {}", backend.describe());
            }
        }
    }
}

#[test]
fn the_first_half_that_is_not_finite_is_named_or_its_row_zeroed() {
    let (rows, dim) = (3, 4501);
    let (signs, keys) = (stream(3), row_keys(rows));
    let job = job(plain_params(dim as u32, 4), &signs, &keys);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let small: Vec<u16> = scattered(rows * dim + 1).iter().map(|b| b & 0x83ff).collect();
        for place in [4321, 4500] {
            let at = 1 + 2 * dim + place;
            let mut f16s: Vec<f16> = small.iter().map(|&b| f16::from_bits(b)).collect();
            let mut bf16s: Vec<bf16> = small.iter().map(|&b| bf16::from_bits(b)).collect();
            (f16s[at], bf16s[at]) = (f16::from_f32(poison), bf16::from_f32(poison));
            let wide: [Vec<f32>; 2] =
                [f16s.iter().map(|v| v.to_f32()).collect(), bf16s.iter().map(|v| v.to_f32()).collect()];
            for (half, wide) in [Buffer::from(f16s), bf16s.into()].into_iter().zip(wide) {
                let rows = |buffer| Rows { buffer, offset: 1, stride: dim, rows, dim };
                let (half, wide) = (rows(half), rows(wide.into()));
                for backend in everywhere() {
                    let named = BackendError::NonFinite { row: 2, coordinate: place };
                    assert_eq!(backend.encode(&half, &job), Err(named.clone()), "{}", backend.describe());
                    assert_eq!(backend.encode_fixed(&half, &job), Err(named));
                    let zeroing = EncodeJob { non_finite: NonFinite::ZeroRow, ..job };
                    assert_same(&*backend, &half, &wide, &zeroing);
                    assert_eq!(backend.encode(&half, &zeroing).unwrap().1.zeroed, 1);
                }
            }
        }
    }
}

#[test]
fn no_halves_are_encoded_to_nothing() {
    let (signs, keys) = (stream(3), row_keys(0));
    for (half, _) in twins(&[]) {
        let rows = Rows::side_by_side(half, 0, 10).unwrap();
        for backend in everywhere() {
            let (words, report) = backend.encode(&rows, &job(plain_params(10, 2), &signs, &keys)).unwrap();
            assert!(words.is_empty() && report == EncodeReport::default());
        }
    }
}

/// What changes rows in place would round them to half precision, above the bound.
#[test]
fn stages_other_than_encode_refuse_halves_and_leave_them() {
    for (half, _) in twins(&scattered(13).iter().map(|&b| b & 0xbfff).collect::<Vec<_>>()) {
        for backend in everywhere() {
            let found = half.dtype();
            for mut x in [half.clone(), backend.upload(&half).unwrap()] {
                let clip = ClipParams { rows: 2, dim: 6, stride: 6, bound: 0.5 };
                let error = backend.clip(&mut x, &clip).unwrap_err();
                assert_eq!(error, BackendError::HalfInPlace { stage: "clip", found });
                assert!(error.to_string().contains("encode takes such rows"), "{error}");
                let wrong = BackendError::WrongType { expected: "f32", found };
                let params = FwhtParams { len: 13, block_log2: 0, scale: 2.0, _pad: 0 };
                assert_eq!(backend.fwht(&mut x, &params), Err(wrong.clone()));
                assert!(host(&*backend, &x) == half);
                let rows = Rows { buffer: x, offset: 0, stride: 6, rows: 2, dim: 6 };
                if backend.kind() == BackendKind::Wgpu {
                    continue;
                }
                assert_eq!(backend.gram(&rows), Err(wrong.clone()));
                assert_eq!(backend.median(&rows), Err(wrong.clone()));
                assert_eq!(backend.trimmed_mean(&rows, 0), Err(wrong));
            }
        }
    }
}

#[test]
fn encode_names_the_types_that_it_takes_and_refuses_short_rows() {
    let (signs, keys) = (stream(3), row_keys(2));
    let job = job(plain_params(5, 2), &signs, &keys);
    for backend in everywhere() {
        let words = Rows::side_by_side(vec![1u32; 10].into(), 2, 5).unwrap();
        let wrong = BackendError::WrongType { expected: "f32, f16 or bf16", found: "u32" };
        assert_eq!(backend.encode(&words, &job), Err(wrong), "{}", backend.describe());
        let short = Rows { buffer: vec![f16::ONE; 9].into(), ..words };
        let wrong = BackendError::WrongLength { what: "rows", expected: 10, found: 9 };
        assert_eq!(backend.encode(&short, &job), Err(wrong));
    }
    for device in devices() {
        let there = device.upload(&vec![bf16::ONE; 10].into()).unwrap();
        let rows = Rows::side_by_side(there, 2, 5).unwrap();
        for backend in all() {
            assert!(matches!(backend.encode(&rows, &job), Err(BackendError::WrongPlace { .. })));
        }
    }
}

#[test]
fn halves_go_to_a_device_and_come_back() {
    for len in [0, 1, 2, 3, 4, 5, 127, 1000] {
        for (half, _) in twins(&scattered(len)) {
            for backend in devices() {
                let there = backend.upload(&half).unwrap();
                assert_eq!((there.len(), there.dtype()), (len, half.dtype()));
                let copy = there.clone();
                let same = |x: &Buffer| backend.download(x).unwrap().into_bits() == half.clone().into_bits();
                assert!(same(&there) && same(&copy), "{len} {}", backend.describe());
                let Buffer::Device(place) = there else { panic!("on the host") };
                assert_eq!(place.slice().words as usize, len.div_ceil(2));
                if len == 127 {
                    // From an odd word on, as in memory that someone else made.
                    let part = DeviceBuffer::new(place.slice().memory.clone(), 3, 11, place.element()).unwrap();
                    let (found, whole) = (backend.download(&Buffer::Device(part.clone())).unwrap(), half.clone());
                    let bits = |x: Buffer| bytemuck::cast_slice::<u32, u16>(x.into_bits().as_u32().unwrap()).to_vec();
                    assert_eq!(bits(found)[..11], bits(whole)[6..17]);
                    let (signs, keys) = (stream(3), row_keys(1));
                    let job = EncodeJob { non_finite: NonFinite::ZeroRow, ..job(plain_params(11, 0), &signs, &keys) };
                    let rows = |buffer, offset| Rows { buffer, offset, stride: 11, rows: 1, dim: 11 };
                    let (a, _) = backend.encode_fixed(&rows(Buffer::Device(part), 0), &job).unwrap();
                    let (b, _) = backend.encode_fixed(&rows(half.clone(), 6), &job).unwrap();
                    assert!(host(&backend, &a) == host(&backend, &b));
                    assert!(DeviceBuffer::new(place.slice().memory.clone(), 60, 9, place.element()).is_err());
                }
            }
        }
    }
}

/// Slices of two rows, so that a stage takes several launches, and starts between two rows and inside a word.
#[test]
fn short_slices_change_no_bit_of_halves() {
    if let Some(why) = emulation::unavailable() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let small = DeviceBackend::new(Arc::new(Emulated::with_slices(8192)));
    let (signs, keys) = (stream(3), row_keys(7));
    let bits: Vec<u16> = scattered(8 * 3001).into_iter().map(finite).collect();
    let params = EncodeParams { clip: 3.0, bits: 21, ..plain_params(3000, 2) };
    for (half, wide) in twins(&bits) {
        for offset in [0, 5] {
            let rows = |buffer| Rows { buffer, offset, stride: 3001, rows: 7, dim: 3000 };
            assert_same(&small, &rows(half.clone()), &rows(wide.clone()), &job(params, &signs, &keys));
        }
    }
}
