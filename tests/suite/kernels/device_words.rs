//! noise, sum, mask, pack and unpack on devices: the oracle's bits.

use veilsum::backend::device::DeviceBackend;
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob, MaskSign, Rows};
use veilsum::params::{ClipParams, DecodeParams, EncodeParams, Ring};
use veilsum::sample::binomial::CentredBinomial;
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

use super::emulated::Emulated;
use super::integers::jagged_table;
use super::*;

const PRIME: u32 = 2_147_483_629;

fn scattered(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b)).collect()
}

/// Runs a verb that changes words in place, from the host and on the device.
fn in_place(backend: &DeviceBackend, x: &[u32], verb: impl Fn(&mut Buffer) -> Result<(), BackendError>) -> Vec<u32> {
    let mut host = Buffer::from(x.to_vec());
    verb(&mut host).unwrap();
    let mut there = backend.upload(&Buffer::from(x.to_vec())).unwrap();
    verb(&mut there).unwrap();
    assert!(matches!(there, Buffer::Device(_)));
    assert!(backend.download(&there).unwrap() == host, "{}", backend.describe());
    host.as_u32().unwrap().to_vec()
}

fn expected(x: &[u32], verb: impl Fn(&mut Buffer) -> Result<(), BackendError>) -> Vec<u32> {
    let mut buffer = Buffer::from(x.to_vec());
    verb(&mut buffer).unwrap();
    buffer.as_u32().unwrap().to_vec()
}

fn laws() -> Vec<Noise> {
    let mut laws = vec![
        jagged_table(0),
        jagged_table(83),
        Noise::Table(NoiseTable { thresholds: vec![], variance: 0.0, total_variation: 0.0 }),
        NoiseTable::skellam(5.95).unwrap().into(),
    ];
    laws.extend([1, 7, 8, 9, 24, 100].map(|k| CentredBinomial::new(k).unwrap().into()));
    laws
}

#[test]
fn noise_has_the_oracle_s_bits() {
    for (i, law) in laws().iter().enumerate() {
        for (j, len) in [0, 1, 31, 33, 1025, 4096, 4097, 13_000].into_iter().enumerate() {
            let bits = [2, 17, 32, 20][(i + j) % 4];
            let x: Vec<u32> = scattered(len, 3).iter().map(|v| v & (u32::MAX >> (32 - bits))).collect();
            let key = StreamKey::from_bytes([9; 32], if j % 2 == 0 { Cipher::ChaCha20 } else { Cipher::ChaCha8 });
            let wanted = expected(&x, |x| oracle().noise(x, bits, law, &key));
            for backend in devices() {
                let found = in_place(&backend, &x, |x| backend.noise(x, bits, law, &key));
                assert!(found == wanted, "law {i}, {len} words, {}", backend.describe());
            }
        }
    }
}

#[test]
fn masks_have_the_oracle_s_bits_and_come_off_again() {
    let bits = [2, 8, 9, 16, 17, 32].map(Ring::Bits);
    for ring in bits.into_iter().chain([2, 65_537, PRIME].map(Ring::Prime)) {
        for len in [0, 1, 3, 17, 1023, 4096, 4099, 20_001] {
            let x: Vec<u32> = match ring {
                Ring::Bits(b) => scattered(len, 5).iter().map(|v| v & (u32::MAX >> (32 - b))).collect(),
                Ring::Prime(p) => scattered(len, 5).iter().map(|v| v % p).collect(),
            };
            for sign in [MaskSign::Add, MaskSign::Subtract] {
                let other = if sign == MaskSign::Add { MaskSign::Subtract } else { MaskSign::Add };
                let wanted = expected(&x, |x| oracle().mask(x, ring, &stream(40), sign));
                for backend in devices() {
                    let found = in_place(&backend, &x, |x| backend.mask(x, ring, &stream(40), sign));
                    assert!(found == wanted, "{ring:?} {len} {sign:?} {}", backend.describe());
                    assert!(in_place(&backend, &found, |x| backend.mask(x, ring, &stream(40), other)) == x);
                }
            }
        }
    }
}

#[test]
fn sums_have_the_oracle_s_bits() {
    for ring in [Ring::Bits(2), Ring::Bits(21), Ring::Bits(32), Ring::Prime(3), Ring::Prime(PRIME)] {
        for (len, rows) in [(0, 0), (1, 5), (7, 100), (1000, 0), (1023, 3), (1024, 9), (4100, 17), (30_001, 2)] {
            let into = |x: Vec<u32>| -> Vec<u32> {
                match ring {
                    Ring::Bits(_) => x,
                    Ring::Prime(p) => x.iter().map(|v| v % p).collect(),
                }
            };
            let (acc, rows) = (into(scattered(len, 1)), Buffer::from(into(scattered(len * rows, 2))));
            let wanted = expected(&acc, |acc| oracle().sum(acc, &rows, ring));
            for backend in devices() {
                let found = in_place(&backend, &acc, |acc| backend.sum(acc, &rows, ring));
                assert!(found == wanted, "{ring:?} {len} {}", backend.describe());
                let there = backend.upload(&rows).unwrap();
                assert!(in_place(&backend, &acc, |acc| backend.sum(acc, &there, ring)) == wanted);
            }
        }
    }
}

#[test]
fn what_is_no_residue_is_named_and_nothing_is_written() {
    let ring = Ring::Prime(1_073_479_681);
    let mut x: Vec<u32> = scattered(20_000, 1).iter().map(|v| v % 1_073_479_681).collect();
    let clean = x.clone();
    x[12_345] = 1_073_479_681;
    x[12_346] = u32::MAX;
    for backend in devices() {
        let named =
            |what| BackendError::NotBelowPrime { what, index: 12_345, found: 1_073_479_681, prime: 1_073_479_681 };
        let mut there = backend.upload(&Buffer::from(x.clone())).unwrap();
        assert_eq!(backend.mask(&mut there, ring, &stream(1), MaskSign::Add), Err(named("words")));
        assert_eq!(backend.sum(&mut there, &Buffer::from(clean.clone()), ring), Err(named("acc")));
        assert!(backend.download(&there).unwrap().as_u32().unwrap() == x);
        let mut acc = backend.upload(&Buffer::from(clean.clone())).unwrap();
        assert_eq!(backend.sum(&mut acc, &there, ring), Err(named("rows")));
        assert!(backend.download(&acc).unwrap().as_u32().unwrap() == clean);
        let short = Buffer::from(vec![0u32; 3]);
        assert!(matches!(backend.sum(&mut acc, &short, ring), Err(BackendError::WrongLength { what: "rows", .. })));
        for ring in [Ring::Bits(1), Ring::Bits(33), Ring::Prime(1), Ring::Prime(1 << 31)] {
            assert!(backend.mask(&mut acc, ring, &stream(1), MaskSign::Add).is_err());
            assert!(backend.sum(&mut acc, &there, ring).is_err());
        }
    }
}

/// One memory as accumulator and as rows: the accumulator becomes a copy.
#[test]
fn a_sum_may_be_added_to_itself() {
    for backend in devices() {
        let rows = backend.upload(&Buffer::from(scattered(5000, 8))).unwrap();
        let mut acc = rows.clone();
        backend.sum(&mut acc, &rows, Ring::Bits(32)).unwrap();
        let doubled: Vec<u32> = scattered(5000, 8).iter().map(|v| v.wrapping_mul(2)).collect();
        assert!(backend.download(&acc).unwrap() == Buffer::from(doubled));
        assert!(backend.download(&rows).unwrap() == Buffer::from(scattered(5000, 8)));
    }
}

#[test]
fn packed_words_are_the_oracle_s_and_come_back() {
    for bits in 2..=32 {
        for len in [0, 1, 7, 32, 33, 1000, 5000] {
            let words = Buffer::from(scattered(len, bits));
            let packed = oracle().pack(&words, bits).unwrap();
            let kept: Vec<u32> = scattered(len, bits).iter().map(|w| w & (u32::MAX >> (32 - bits))).collect();
            for backend in devices() {
                assert!(backend.pack(&words, bits).unwrap() == packed, "{bits} {len} {}", backend.describe());
                let back = backend.unpack(&packed, len, bits).unwrap();
                assert!(backend.download(&back).unwrap() == Buffer::from(kept.clone()), "{bits} {len}");
            }
        }
    }
    for backend in devices() {
        assert!(backend.pack(&Buffer::from(vec![1u32]), 1).is_err());
        assert!(backend.unpack(&[0; 4], 3, 8).is_err() && backend.unpack(&[0; 2], usize::MAX, 8).is_err());
        assert!(backend.pack(&Buffer::from(vec![1.0f32]), 8).is_err());
    }
}

/// A device whose slices hold two rows, so that every stage takes several launches.
#[test]
fn short_slices_change_no_bit() {
    if let Some(why) = super::emulation::unavailable() {
        eprintln!("SKIPPED: {why}");
        return;
    }
    let small = DeviceBackend::new(std::sync::Arc::new(Emulated::with_slices(8192)));
    let data: Vec<f32> = scattered(5 * 3001, 4).iter().map(|&v| v as f32 / 4e9 - 0.5).collect();
    let rows = Rows { stride: 3001, dim: 3000, ..Rows::dense(data.clone(), 1, data.len()).unwrap() };
    let rows = Rows { rows: 5, ..rows };
    let (signs, keys, law) = (stream(3), row_keys(5), jagged_table(9));
    let params = EncodeParams { clip: 3.0, bits: 21, ..plain_params(3000, 2) };
    let job = EncodeJob { noise: Some(&law), ..job(params, &signs, &keys) };
    let x = scattered(20_001, 6);
    let into = Buffer::from(scattered(5 * 4000, 1).iter().map(|v| v % PRIME).collect::<Vec<_>>());
    let clip = ClipParams { rows: 5, dim: 2999, stride: 3001, bound: 2.0 };
    let results = |backend: &DeviceBackend| {
        let mut clipped = Buffer::from(data.clone());
        let norms = backend.clip(&mut clipped, &clip).unwrap();
        let (words, report) = backend.encode(&rows, &job).unwrap();
        let (packed, _) = backend.encode_packed(&rows, &job).unwrap();
        let noised = in_place(backend, &x, |x| backend.noise(x, 32, &law, &stream(5)));
        let binomial = CentredBinomial::new(20).unwrap().into();
        let counted = in_place(backend, &x, |x| backend.noise(x, 32, &binomial, &stream(5)));
        let masked = in_place(backend, &x, |x| backend.mask(x, Ring::Bits(30), &stream(6), MaskSign::Add));
        let start = scattered(4000, 2).iter().map(|v| v % PRIME).collect::<Vec<_>>();
        let hidden = in_place(backend, &start, |x| backend.mask(x, Ring::Prime(PRIME), &stream(7), MaskSign::Subtract));
        let summed = in_place(backend, &start, |x| backend.sum(x, &into, Ring::Prime(PRIME)));
        let bytes = backend.pack(&Buffer::from(x.clone()), 13).unwrap();
        let back = backend.download(&backend.unpack(&bytes, x.len(), 13).unwrap()).unwrap();
        let undo = DecodeParams { padded: 20_000, dim: 19_999, ..params.decode(0.25) };
        let decoded = backend.decode(&Buffer::from(x[..20_000].to_vec()), &undo, &signs).unwrap();
        let words = backend.download(&words).unwrap();
        (norms, clipped, words, report, packed, [noised, counted, masked, hidden, summed], (bytes, back, decoded))
    };
    assert!(results(&small) == results(&DeviceBackend::new(std::sync::Arc::new(Emulated::new()))));
}
