//! Certificates and requests as text.

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::base64::{Alphabet, encode};
use super::certificate;
use super::error::CertificateError;

/// Most certificates in one text: a party's and its authority's.
const MOST: usize = 2;
/// Longest text that is read, in bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// The certificates of a text in PEM, at least one and at most two.
///
/// # Errors
/// No certificate, too many, sections that are damaged.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    check_length(text)?;
    let absent = CertificateError::Pem { expected: "CERTIFICATE" };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).take(MOST + 1).collect();
    match found {
        Ok(found) if found.is_empty() => Err(absent),
        Ok(found) if found.len() > MOST => Err(CertificateError::Sections { found: found.len(), most: MOST }),
        Ok(found) => Ok(found),
        Err(_) => Err(absent),
    }
}

/// The first certificate of a text, in DER.
///
/// # Errors
/// As [`certificates`].
pub(super) fn first(text: &str) -> Result<CertificateDer<'static>, CertificateError> {
    certificates(text)?.into_iter().next().ok_or(CertificateError::Pem { expected: "CERTIFICATE" })
}

/// The public key of a PKCS#10 request in PEM whose signature holds.
///
/// # Errors
/// No request in the text, a key that is not Ed25519, a signature that does not hold.
pub fn request_key(text: &str) -> Result<[u8; 32], CertificateError> {
    check_length(text)?;
    let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
        .map_err(|_| CertificateError::Pem { expected: "CERTIFICATE REQUEST" })?;
    certificate::read_request(&der)
}

/// A certificate as PEM (RFC 7468).
pub(super) fn write(der: &[u8]) -> String {
    let mut text = encode(der, Alphabet::Standard).to_string();
    text.extend(std::iter::repeat_n('=', (3 - der.len() % 3) % 3));
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for (i, character) in text.chars().enumerate() {
        if i > 0 && i % 64 == 0 {
            out.push('\n');
        }
        out.push(character);
    }
    out + "\n-----END CERTIFICATE-----\n"
}

fn check_length(text: &str) -> Result<(), CertificateError> {
    if text.len() > MAX_TEXT {
        return Err(CertificateError::Size { found: text.len(), most: MAX_TEXT });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for length in [0, 1, 2, 47, 48, 49, 96, 500] {
            let der: Vec<u8> = (0..length).map(|i: usize| i.to_le_bytes()[0]).collect();
            let text = write(&der);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(first(&text).unwrap().as_ref(), der, "{length}");
        }
        let three = write(b"abc").repeat(3);
        assert_eq!(certificates(&three), Err(CertificateError::Sections { found: 3, most: 2 }));
        assert_eq!(
            certificates(&" ".repeat(MAX_TEXT + 1)).unwrap_err().to_string(),
            "65537 bytes; at most 65536 are read"
        );
        assert_eq!(first("-----BEGIN"), Err(CertificateError::Pem { expected: "CERTIFICATE" }));
    }
}
