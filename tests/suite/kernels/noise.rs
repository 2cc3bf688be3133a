//! Noise: bit-equal to the oracle on every instruction set, and that of `encode`.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer, EncodeJob};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::params::EncodeParams;
use veilsum::sample::binomial::{CentredBinomial, MAX_K};
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

use super::*;

/// The same noise from every backend, added to words of `bits` bits.
fn assert_same(noise: &Noise, len: usize, bits: u32, key: &StreamKey) {
    let words: Vec<u32> = (0..len as u32).map(|i| 0x9e37_79b9u32.wrapping_mul(i) & (u32::MAX >> (32 - bits))).collect();
    let mut expected = Buffer::HostU32(words.clone().into());
    oracle().noise(&mut expected, bits, noise, key).unwrap();
    for backend in blocked() {
        let mut found = Buffer::HostU32(words.clone().into());
        backend.noise(&mut found, bits, noise, key).unwrap();
        assert_eq!(found, expected, "{}", backend.describe());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn binomial_noise_has_the_same_bits_everywhere(
        k in prop_oneof![1u32..70, 1u32..=MAX_K],
        len in prop_oneof![0usize..40, 0usize..2500],
        bits in 2u32..=32,
        key in any::<[u8; 32]>(),
    ) {
        // The oracle seeks 2 bytes at a time.
        let len = if k > 70 { len.min(100) } else { len };
        let noise = CentredBinomial::new(k).unwrap().into();
        assert_same(&noise, len, bits, &StreamKey::from_bytes(key, Cipher::ChaCha8));
    }

    #[test]
    fn table_noise_has_the_same_bits_everywhere(
        mu in prop_oneof![Just(1e-30), 0.001f64..1.0, 1.0f64..100.0, 100.0f64..3000.0],
        gaussian in any::<bool>(),
        len in prop_oneof![0usize..70, 0usize..2500],
        key in any::<[u8; 32]>(),
    ) {
        let table = if gaussian && mu > 1e-5 {
            NoiseTable::discrete_gaussian(mu.sqrt())
        } else {
            NoiseTable::skellam(mu)
        };
        assert_same(&table.unwrap().into(), len, 32, &StreamKey::from_bytes(key, Cipher::ChaCha8));
    }
}

/// More coordinates than one task draws, both ciphers.
#[test]
fn long_rows_have_the_same_bits_everywhere() {
    for cipher in [Cipher::ChaCha20, Cipher::ChaCha8] {
        let key = StreamKey::from_bytes([8; 32], cipher);
        assert_same(&CentredBinomial::new(24).unwrap().into(), 20_000, 32, &key);
        assert_same(&NoiseTable::skellam(5.95).unwrap().into(), 20_000, 32, &key);
        assert_same(&NoiseTable::skellam(2e4).unwrap().into(), 700, 32, &key);
    }
}

#[test]
fn encode_adds_the_same_binomial_noise() {
    let law = Noise::from(CentredBinomial::new(21).unwrap());
    let params = EncodeParams { bits: 20, ..plain_params(1111, 0) };
    let (signs, mut keys) = (stream(1), row_keys(2));
    keys[1].noise = stream(9);
    for backend in all() {
        let job = EncodeJob { noise: Some(&law), ..job(params, &signs, &keys) };
        let (rows, _) = backend.encode_integer(&Buffer::HostI32(vec![0; 2222].into()), &job).unwrap();
        let mut zeros = Buffer::HostU32(vec![0; 1111].into());
        oracle().noise(&mut zeros, 20, &law, &stream(9)).unwrap();
        assert_eq!(rows.as_u32().unwrap()[1111..], *zeros.as_u32().unwrap(), "{}", backend.describe());
    }
}

/// A key serves fewer than 2^28 coordinates of the widest binomial; more are refused before memory is needed.
#[test]
fn more_coordinates_than_a_key_serves_are_refused() {
    let widest = Noise::from(CentredBinomial::new(MAX_K).unwrap());
    let (signs, keys) = (stream(1), row_keys(0));
    for backend in all() {
        let params = plain_params(1 << 28, 0);
        let job = EncodeJob { noise: Some(&widest), ..job(params, &signs, &keys) };
        let error = backend.encode_integer(&Buffer::HostI32(vec![].into()), &job).unwrap_err();
        assert!(matches!(error, BackendError::OutOfRange { name: "coordinates", .. }), "{error}");
    }
}
