//! The vector keystream is the `chacha20` crate's, byte for byte, at any position and length.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError};
use veilsum::math::prg::{Cipher, STREAM_BYTES, StreamKey};

use super::blocked;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn bytes_are_those_of_the_crate(
        key in any::<[u8; 32]>(),
        eight in any::<bool>(),
        block in prop_oneof![0u64..200, any::<u32>().prop_map(u64::from)],
        byte in 0u64..64,
        len in prop_oneof![0usize..200, 0usize..6000],
    ) {
        let key = StreamKey::from_bytes(key, if eight { Cipher::ChaCha8 } else { Cipher::ChaCha20 });
        let position = (64 * block + byte).min(STREAM_BYTES - len as u64);
        let mut expected = vec![0; len];
        key.fill(position, &mut expected);
        for backend in blocked() {
            // Odd addresses too: one byte more than asked for, which must stay as it is.
            let mut found = vec![0xa5; len + 2];
            backend.keystream(&key, position, &mut found[1..=len]).unwrap();
            prop_assert_eq!(&found[1..=len], &expected[..], "{}", backend.describe());
            prop_assert_eq!((found[0], found[len + 1]), (0xa5, 0xa5));
        }
    }
}

#[test]
fn a_key_ends_and_says_so() {
    let key = StreamKey::from_bytes([1; 32], Cipher::ChaCha20);
    for backend in blocked() {
        let mut out = [7; 65];
        backend.keystream(&key, STREAM_BYTES - 65, &mut out).unwrap();
        let mut expected = [0; 65];
        key.fill(STREAM_BYTES - 65, &mut expected);
        assert_eq!(out, expected);
        for position in [STREAM_BYTES - 64, STREAM_BYTES, u64::MAX] {
            let error = backend.keystream(&key, position, &mut out).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: "end of the keystream", .. }), "{error}");
            assert_eq!(out, expected, "nothing is written");
        }
    }
}
