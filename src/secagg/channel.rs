//! From one client to another through a server that may read, change, drop and repeat everything.
//!
//! X25519 (RFC 7748; a secret of all zeros is refused), HKDF-SHA256 over the shared secret, ChaCha20-Poly1305 (RFC
//! 8439). Session, sender, receiver and purpose are in the key and once more in the associated data. A key encrypts one
//! message: the nonce is zero, and whoever repeats a message repeats its bytes. Public keys travel signed (see
//! [`super::identity`]): this file does not know whose they are.

use std::fmt;

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::SecAggError;

/// Bytes that a ciphertext is longer than its message.
pub const TAG_BYTES: usize = 16;

/// Who says something to whom, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Hash of what the parties have agreed on: session, round, attempt, cohort and more.
    pub context: [u8; 32],
    /// Sender.
    pub from: u64,
    /// Receiver.
    pub to: u64,
    /// What the message or key is for: one byte a use.
    pub purpose: u8,
}

impl Route {
    /// 49 bytes: the info of the derivation and the associated data.
    fn bytes(&self) -> [u8; 49] {
        let mut out = [0; 49];
        out[..32].copy_from_slice(&self.context);
        out[32..40].copy_from_slice(&self.from.to_le_bytes());
        out[40..48].copy_from_slice(&self.to.to_le_bytes());
        out[48] = self.purpose;
        out
    }
}

/// A private X25519 key. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// The key of 32 uniform bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The bytes, to share them.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// What is agreed with the owner of `public`; both get the same.
    ///
    /// # Errors
    /// A key of low order, which makes the result all zeros whatever this key is (RFC 7748, section 6.1).
    pub fn agree(&self, public: &[u8; 32]) -> Result<Agreement, SecAggError> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*public));
        if shared.was_contributory() { Ok(Agreement(shared)) } else { Err(SecAggError::AllZero) }
    }
}

/// Refuses a public key of low order without knowing any private one.
///
/// # Errors
/// Such a key.
pub fn check_public(public: &[u8; 32]) -> Result<(), SecAggError> {
    PrivateKey::from_bytes([0x55; 32]).agree(public).map(|_| ())
}

/// A shared secret. Zeroized on drop, never printed.
pub struct Agreement(SharedSecret);

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agreement(..)")
    }
}

impl Agreement {
    /// `HKDF-SHA256(shared secret, salt "veilsum channel v1", info = route | extra)`.
    #[must_use]
    pub fn derive(&self, route: &Route, extra: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(b"veilsum channel v1"), self.0.as_bytes())
            .expand_multi_info(&[&route.bytes(), extra], &mut *key)
            .expect("32 bytes are within the limit of HKDF-SHA256");
        key
    }

    fn cipher(&self, route: &Route) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.derive(route, &[0; 32])).into())
    }

    /// Encrypts the one message of a route: as many bytes and [`TAG_BYTES`].
    #[must_use]
    pub fn seal(&self, route: &Route, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + TAG_BYTES);
        out.extend_from_slice(message);
        let tag = self
            .cipher(route)
            .encrypt_inout_detached(&Nonce::default(), &route.bytes(), InOutBuf::from(&mut out[..]))
            .expect("a message of a frame is far below the limit of the cipher");
        out.extend_from_slice(&tag);
        out
    }

    /// Decrypts the message of a route.
    ///
    /// # Errors
    /// A ciphertext that was changed, cut, or made for another route or by another key.
    pub fn open(&self, route: &Route, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecAggError> {
        let Some((body, tag)) = ciphertext.split_last_chunk::<TAG_BYTES>() else { return Err(SecAggError::Ciphertext) };
        let mut out = Zeroizing::new(body.to_vec());
        self.cipher(route)
            .decrypt_inout_detached(&Nonce::default(), &route.bytes(), InOutBuf::from(&mut out[..]), &Tag::from(*tag))
            .map_err(|_| SecAggError::Ciphertext)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route { context: [3; 32], from: 1, to: 2, purpose: 9 };

    /// RFC 7748, section 6.1.
    #[test]
    fn the_agreement_of_the_rfc() {
        let bytes = |hex: &str| -> [u8; 32] { hex::decode(hex).unwrap().try_into().unwrap() };
        let bob = PrivateKey::from_bytes(bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(hex::encode(bob.public()), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let alice = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(hex::encode(bob.agree(&alice).unwrap().0.as_bytes()), shared);
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        let key = PrivateKey::from_bytes([1; 32]);
        // 0, 1, p - 1, p, p + 1 and the two points of order 8 (RFC 7748, section 7; Bernstein's list).
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ] {
            let public: [u8; 32] = hex::decode(hex).unwrap().try_into().unwrap();
            assert_eq!(key.agree(&public).unwrap_err(), SecAggError::AllZero, "{hex}");
            assert_eq!(check_public(&public), Err(SecAggError::AllZero), "{hex}");
        }
        check_public(&key.public()).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(..)");
    }

    #[test]
    fn a_message_opens_on_its_route_alone() {
        let [a, b, c] = [1, 2, 3].map(|n| PrivateKey::from_bytes([n; 32]));
        let there = a.agree(&b.public()).unwrap();
        let back = b.agree(&a.public()).unwrap();
        let sealed = there.seal(&ROUTE, b"a share");
        assert_eq!(sealed, there.seal(&ROUTE, b"a share"));
        assert_eq!(**back.open(&ROUTE, &sealed).unwrap(), *b"a share");
        for other in [
            Route { context: [4; 32], ..ROUTE },
            Route { from: 2, to: 1, ..ROUTE },
            Route { to: 3, ..ROUTE },
            Route { purpose: 8, ..ROUTE },
        ] {
            assert_eq!(back.open(&other, &sealed).unwrap_err(), SecAggError::Ciphertext, "{other:?}");
        }
        assert!(c.agree(&a.public()).unwrap().open(&ROUTE, &sealed).is_err());
        for bit in 0..8 * sealed.len() {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(back.open(&ROUTE, &bad).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(back.open(&ROUTE, &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }
}
