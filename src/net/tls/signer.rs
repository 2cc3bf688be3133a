//! A party's key as the TLS library wants it. The library's own keys are not wiped when they are dropped.

use tokio_rustls::rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use tokio_rustls::rustls::sign::{Signer, SigningKey, public_key_to_spki};
use tokio_rustls::rustls::{Error, SignatureAlgorithm, SignatureScheme};

use crate::net::keys::Pair;

/// An Ed25519 key that signs handshakes. What TLS 1.3 signs begins with 64 spaces, so that it is neither a certificate nor
/// a token nor a statement of a protocol.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) Pair);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ED25519, self.0.public()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign_bytes(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
