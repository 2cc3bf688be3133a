//! Masks and sums: bit-equal to the oracle on every instruction set, and inverse to themselves.

use proptest::prelude::*;
use veilsum::backend::scalar::mask::value;
use veilsum::backend::{BackendError, Buffer, MaskSign};
use veilsum::params::Ring;
use veilsum::sample::statistics::upper_gamma;

use super::*;

fn ring() -> impl Strategy<Value = Ring> {
    prop_oneof![
        (2u32..=32).prop_map(Ring::Bits),
        prop_oneof![Just(2u32), Just(3), Just(12_289), Just(1_073_479_681), Just((1 << 31) - 1)].prop_map(Ring::Prime),
    ]
}

/// A word of the ring.
fn reduced(word: u32, ring: Ring) -> u32 {
    match ring {
        Ring::Bits(b) => word & (u32::MAX >> (32 - b)),
        Ring::Prime(p) => word % p,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn masks_have_the_same_bits_everywhere_and_undo_themselves(
        ring in ring(),
        len in prop_oneof![0usize..300, 0usize..20_000],
        seed in any::<u32>(),
        subtract in any::<bool>(),
    ) {
        let words: Vec<u32> = (0..len as u32).map(|i| reduced(seed ^ i.wrapping_mul(0x9e37_79b9), ring)).collect();
        let (sign, back) =
            if subtract { (MaskSign::Subtract, MaskSign::Add) } else { (MaskSign::Add, MaskSign::Subtract) };
        let plain = Buffer::HostU32(words.into());
        let mut expected = plain.clone();
        oracle().mask(&mut expected, ring, &stream(5), sign).unwrap();
        for backend in blocked() {
            let mut found = plain.clone();
            backend.mask(&mut found, ring, &stream(5), sign).unwrap();
            prop_assert_eq!(&found, &expected, "{}", backend.describe());
            backend.mask(&mut found, ring, &stream(5), back).unwrap();
            prop_assert_eq!(&found, &plain, "{}", backend.describe());
        }
    }

    #[test]
    fn many_masks_in_one_pass_are_one_after_another(
        ring in ring(),
        len in prop_oneof![0usize..300, 0usize..20_000],
        signs in proptest::collection::vec(any::<bool>(), 0..6),
    ) {
        let sign = |&add: &bool| if add { MaskSign::Add } else { MaskSign::Subtract };
        let masks: Vec<_> = signs.iter().enumerate().map(|(i, add)| (stream(i as u8), sign(add))).collect();
        let plain = Buffer::HostU32((0..len as u32).map(|i| reduced(i.wrapping_mul(0x9e37_79b9), ring)).collect());
        let mut expected = plain.clone();
        oracle().mask_all(&mut expected, ring, &masks).unwrap();
        for backend in blocked() {
            let mut found = plain.clone();
            backend.mask_all(&mut found, ring, &masks).unwrap();
            prop_assert_eq!(&found, &expected, "{}", backend.describe());
        }
    }

    #[test]
    fn sums_mod_a_prime_are_exact_everywhere(
        ring in ring(),
        dim in prop_oneof![0usize..40, 0usize..9000],
        rows in 0usize..5,
        seed in any::<u32>(),
        largest in any::<bool>(),
    ) {
        let word = |i: usize| if largest { u32::MAX - 1 } else { seed ^ (i as u32).wrapping_mul(0x9e37_79b9) };
        let word = |i: usize| match ring {
            Ring::Prime(p) if largest => p - 1,
            _ => reduced(word(i), ring),
        };
        let acc = Buffer::HostU32((0..dim).map(word).collect());
        let rows = Buffer::HostU32((0..dim * rows).map(|i| word(i + 77)).collect());
        let mut expected = acc.clone();
        oracle().sum(&mut expected, &rows, ring).unwrap();
        for backend in blocked() {
            let mut found = acc.clone();
            backend.sum(&mut found, &rows, ring).unwrap();
            prop_assert_eq!(&found, &expected, "{}", backend.describe());
        }
    }
}

/// Mod 2^b a value takes 1, 2 or 4 bytes of the keystream, no byte twice.
#[test]
fn a_mask_takes_as_many_bytes_as_a_value_needs() {
    let mut bytes = [0; 4 * 1000];
    stream(3).fill(0, &mut bytes);
    for (bits, stride) in [(2, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4)] {
        let of = |word: &[u8]| word.iter().rev().fold(0u32, |k, &byte| k << 8 | u32::from(byte));
        let wanted: Vec<u32> =
            bytes.chunks(stride).take(1000).map(|word| of(word) & (u32::MAX >> (32 - bits))).collect();
        for backend in all() {
            let mut words = Buffer::HostU32(vec![0; 1000].into());
            backend.mask(&mut words, Ring::Bits(bits), &stream(3), MaskSign::Add).unwrap();
            assert_eq!(words.as_u32().unwrap(), wanted, "{bits} bits, {}", backend.describe());
        }
    }
}

/// Chi-square over 97 residues; the key is fixed.
#[test]
fn a_mask_is_uniform() {
    for backend in all() {
        let ring = Ring::Prime(97);
        let mut words = Buffer::HostU32(vec![0; 20_000].into());
        backend.mask(&mut words, ring, &stream(3), MaskSign::Add).unwrap();
        assert_eq!(words.as_u32().unwrap()[777], value(ring, &stream(3), 777));
        let mut counts = [0.0; 97];
        for &w in words.as_u32().unwrap() {
            counts[w as usize] += 1.0;
        }
        let expected = 20_000.0 / 97.0;
        let statistic: f64 = counts.iter().map(|c| (c - expected) * (c - expected) / expected).sum();
        assert!(upper_gamma(48.0, statistic / 2.0) > 1e-5, "{statistic}");
    }
}

#[test]
fn what_is_no_residue_is_named_and_nothing_is_written() {
    for backend in all() {
        let mut words = Buffer::HostU32((0..40_000).map(|i| if i == 33_333 { 97 } else { i % 97 }).collect());
        let before = words.clone();
        let error = BackendError::NotBelowPrime { what: "words", index: 33_333, found: 97, prime: 97 };
        assert_eq!(backend.mask(&mut words, Ring::Prime(97), &stream(1), MaskSign::Add), Err(error));
        let zeros = Buffer::HostU32(vec![0; 80_000].into());
        let error = BackendError::NotBelowPrime { what: "acc", index: 33_333, found: 97, prime: 97 };
        assert_eq!(backend.sum(&mut words, &zeros, Ring::Prime(97)), Err(error));
        let mut acc = Buffer::HostU32(vec![5; 40_000].into());
        let error = BackendError::NotBelowPrime { what: "rows", index: 33_333, found: 97, prime: 97 };
        assert_eq!(backend.sum(&mut acc, &words, Ring::Prime(97)), Err(error));
        assert_eq!((words, acc), (before, Buffer::HostU32(vec![5; 40_000].into())));
    }
}

#[test]
fn rings_out_of_range_are_errors() {
    for backend in all() {
        let mut words = Buffer::HostU32(vec![0; 3].into());
        for ring in [Ring::Bits(1), Ring::Bits(33), Ring::Prime(0), Ring::Prime(1), Ring::Prime(1 << 31)] {
            let error = backend.mask(&mut words, ring, &stream(1), MaskSign::Add).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: "bits" | "prime", .. }), "{error}");
        }
        let mut floats = Buffer::HostF32(vec![0.0; 3].into());
        let error = backend.mask(&mut floats, Ring::Bits(8), &stream(1), MaskSign::Add).unwrap_err();
        assert_eq!(error, BackendError::WrongType { expected: "u32", found: "f32" });
    }
}
