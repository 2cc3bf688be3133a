//! A private Ed25519 key that is wiped, as the libraries for certificates and TLS want it.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::base64::{Alphabet, decode, encode};
use crate::math::prg::{PrgError, Secret};

/// What stands before the 32 bytes of a seed in PKCS#8 (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What a file of a private key holds, for messages.
pub(super) const EXPECTED: &str =
    "an Ed25519 private key as PKCS#8 in PEM, as `veilsum keys new` or `openssl genpkey -algorithm ed25519` write it";

/// A key pair. Zeroized on drop, never printed.
#[derive(Clone)]
pub(crate) struct Pair {
    key: SigningKey,
    public: [u8; 32],
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({}, ..)", hex::encode(self.public))
    }
}

impl Pair {
    /// A new key from the operating system's generator.
    pub(super) fn fresh() -> Result<Self, PrgError> {
        Ok(Self::from_seed(Secret::fresh()?.expose()))
    }

    /// The key of a seed (RFC 8032, section 5.1.5).
    pub(super) fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = key.verifying_key().to_bytes();
        Self { key, public }
    }

    /// The seed.
    pub(super) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public key.
    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs bytes as they are: the caller sees to it that they are of a domain of their own.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// PKCS#8 (version 1) as PEM.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; 48]);
        der[..16].copy_from_slice(&PKCS8);
        der[16..].copy_from_slice(&*self.seed());
        Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", *encode(&*der, Alphabet::Standard)))
    }

    /// The key in PEM text; `None` where it is anything but [`Self::to_pem`]'s form, up to line ends.
    pub(super) fn from_pem(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.trim_end().lines();
        let (begin, body, end) = (lines.next()?, lines.next()?, lines.next()?);
        if begin != BEGIN || end != END || lines.next().is_some() {
            return None;
        }
        let der = decode(body.as_bytes(), Alphabet::Standard).ok()?;
        let seed: &[u8; 32] = der.strip_prefix(&PKCS8)?.try_into().ok()?;
        Some(Self::from_seed(seed))
    }
}

impl rcgen::PublicKeyData for Pair {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Pair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.sign_bytes(message).to_vec())
    }
}

/// A public key without its private one.
pub(super) struct Public<'a>(pub(super) &'a [u8; 32]);

impl rcgen::PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.3: the first key.
    const RFC: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn the_key_of_the_rfc_is_read_and_written() {
        let pair = Pair::from_pem(RFC.as_bytes()).unwrap();
        assert_eq!(hex::encode(*pair.seed()), "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842");
        assert_eq!(hex::encode(pair.public()), "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        assert_eq!(*pair.to_pem(), RFC);
        assert_eq!(Pair::from_pem(RFC.replace('\n', "\r\n").as_bytes()).unwrap().public(), pair.public());
        assert!(!format!("{pair:?}").contains("d4ee72"));
    }

    #[test]
    fn other_forms_are_no_key() {
        let short = RFC.replacen("VhC", "Vh", 1);
        for text in ["", "\n", BEGIN, &RFC[1..], &short, &format!("{RFC}x"), &RFC.replacen("MC4C", "MC4D", 1)] {
            assert!(Pair::from_pem(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Pair::from_pem(&[0xff; 100]).is_none());
    }
}
