//! Bit packing: every backend writes the oracle's bytes and reads them back.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer, Rows};
use veilsum::params::EncodeParams;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn packed_words_are_the_oracle_s_and_come_back(
        bits in 2u32..=32, len in 0usize..1600, seed in any::<u32>(), extreme in 0u32..3,
    ) {
        let words: Vec<u32> = (0..len as u32)
            .map(|j| match extreme {
                0 => (j ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b),
                1 => u32::MAX,
                _ => if j % 7 == seed % 7 { u32::MAX } else { 0 },
            })
            .collect();
        let mask = u32::MAX >> (32 - bits);
        let kept: Vec<u32> = words.iter().map(|w| w & mask).collect();
        let buffer = Buffer::HostU32(words.into());
        let expected = oracle().pack(&buffer, bits).unwrap();
        prop_assert_eq!(expected.len(), (len * bits as usize).div_ceil(8));
        for backend in all() {
            prop_assert_eq!(&backend.pack(&buffer, bits).unwrap(), &expected, "{}", backend.describe());
            let back = backend.unpack(&expected, len, bits).unwrap();
            prop_assert_eq!(back.as_u32().unwrap(), &kept[..], "{}", backend.describe());
            // Added to itself from the other end.
            let mut acc = Buffer::HostU32(kept.iter().rev().copied().collect());
            backend.sum_packed(&mut acc, &expected, bits).unwrap();
            let sum: Vec<u32> = kept.iter().rev().zip(&kept).map(|(a, b)| a.wrapping_add(*b) & mask).collect();
            prop_assert_eq!(acc.as_u32().unwrap(), &sum[..], "{}", backend.describe());
            let mut short = Buffer::HostU32(vec![0; len + 8].into());
            prop_assert!(backend.sum_packed(&mut short, &expected, bits).is_err());
        }
    }

    #[test]
    fn packed_rows_are_the_packed_words(bits in 2u32..=32, dim in 1u32..3000, block_log2 in 0u32..11, rows in 1usize..4) {
        let params = EncodeParams { bits, ..plain_params(dim, block_log2) };
        let data = (0..rows * dim as usize).map(|i| ((i * 31 % 101) as f32 - 50.0) / 50.0).collect();
        let rows = Rows::dense(data, rows, dim as usize).unwrap();
        let (signs, keys) = (stream(9), row_keys(rows.rows));
        let job = job(params, &signs, &keys);
        for backend in blocked() {
            let (words, report) = backend.encode(&rows, &job).unwrap();
            let (packed, other) = backend.encode_packed(&rows, &job).unwrap();
            prop_assert_eq!(report, other);
            prop_assert_eq!(packed.rows().count(), rows.rows);
            for (row, bytes) in words.as_u32().unwrap().chunks_exact(params.padded as usize).zip(packed.rows()) {
                let expected = oracle().pack(&Buffer::HostU32(row.into()), bits).unwrap();
                prop_assert_eq!(&expected[..], bytes, "{}", backend.describe());
            }
        }
    }
}

#[test]
fn a_long_vector_is_packed_by_several_tasks() {
    let words: Vec<u32> = (0..200_001u32).map(|j| j.wrapping_mul(0x9e37_79b9)).collect();
    let buffer = Buffer::HostU32(words.into());
    for bits in [5, 16, 27] {
        let expected = oracle().pack(&buffer, bits).unwrap();
        for backend in blocked() {
            assert!(backend.pack(&buffer, bits).unwrap() == expected, "{bits} {}", backend.describe());
            let back = backend.unpack(&expected, 200_001, bits).unwrap();
            assert!(backend.pack(&back, bits).unwrap() == expected);
        }
    }
}

#[test]
fn what_cannot_be_packed_words_is_refused() {
    for backend in all() {
        let words = Buffer::HostU32(vec![1; 8].into());
        for bits in [0, 1, 33] {
            assert!(backend.pack(&words, bits).is_err() && backend.unpack(&[0; 8], 8, bits).is_err());
        }
        assert_eq!(
            backend.unpack(&[0; 4], 3, 8),
            Err(BackendError::WrongLength { what: "packed", expected: 3, found: 4 })
        );
        assert!(backend.unpack(&[0; 2], usize::MAX, 8).is_err());
        // Three words of three bits leave seven bits of the second byte unused.
        assert!(backend.unpack(&[0xff, 0x01], 3, 3).is_ok());
        let error = backend.unpack(&[0xff, 0x02], 3, 3).unwrap_err().to_string();
        assert!(error.contains("unused bits"), "{error}");
        assert!(backend.pack(&Buffer::HostF32(vec![0.0].into()), 8).is_err());
    }
}

/// So many words that the processor's threads share them.
#[test]
fn many_words_are_packed_alike_on_all_threads() {
    for (bits, len) in [(5, 150_001), (27, 131_073), (32, 140_000)] {
        let mask = u32::MAX >> (32 - bits);
        let words: Vec<u32> = (0..len as u32).map(|j| j.wrapping_mul(0x9e37_79b9).rotate_left(11) & mask).collect();
        let buffer = Buffer::HostU32(words.clone().into());
        let expected = oracle().pack(&buffer, bits).unwrap();
        for backend in blocked() {
            assert_eq!(backend.pack(&buffer, bits).unwrap(), expected, "{}", backend.describe());
            let back = backend.unpack(&expected, len, bits).unwrap();
            assert_eq!(back.as_u32().unwrap(), &words[..], "{}", backend.describe());
            let mut acc = buffer.clone();
            backend.sum_packed(&mut acc, &expected, bits).unwrap();
            let twice: Vec<u32> = words.iter().map(|w| w.wrapping_mul(2) & mask).collect();
            assert_eq!(acc.as_u32().unwrap(), &twice[..], "{}", backend.describe());
        }
    }
}
