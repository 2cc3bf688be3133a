//! What a certificate says, read from its bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::error::CertificateError;
use super::pem;
use super::role::Role;

/// Ed25519, for keys and for signatures (RFC 8410).
const ED25519: &str = "1.3.101.112";
/// Kinds of keys that somebody may bring, to name them.
const OTHERS: [(&str, &str); 4] = [
    ("1.2.840.10045.2.1", "elliptic curve (ECDSA)"),
    ("1.2.840.113549.1.1.1", "RSA"),
    ("1.3.101.113", "Ed448"),
    ("1.3.101.110", "X25519"),
];
/// What stands between the signed part of a certificate and the 64 bytes of an Ed25519 signature.
const SIGNATURE: [u8; 10] = [0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x41, 0];
/// Longest certificate that is read, in bytes; one of ours has about 500.
pub(super) const MAX_DER: usize = 16 * 1024;

/// Who a certificate says that its owner is. Nothing here was checked against an authority; that is the handshake's, or
/// [`AuthorityCertificate::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What the party is.
    pub role: Role,
    /// Its Ed25519 public key, also its signing identity in the protocols.
    pub identity: [u8; 32],
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
    /// First second of its validity, since 1970.
    pub not_before: u64,
    /// Last second of its validity, since 1970.
    pub not_after: u64,
    /// Serial number in hex.
    pub serial: String,
}

impl Peer {
    /// Reads a certificate in DER: a version 3 certificate for an Ed25519 key with one role.
    ///
    /// # Errors
    /// Bytes that are no certificate, a key of another kind or of small order, no role or several.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let identity = public_key(certificate.public_key())?;
        check_form(der, &certificate)?;
        let mut roles = Vec::new();
        for name in alternative_names(&certificate)? {
            if let GeneralName::URI(uri) = name {
                roles.extend(Role::from_uri(uri)?);
            }
        }
        let role = match roles[..] {
            [] => return Err(CertificateError::NoRole),
            [role] => role,
            _ => return Err(CertificateError::Roles(roles.len())),
        };
        Ok(Self {
            role,
            identity,
            fingerprint: fingerprint(der),
            not_before: seconds(certificate.validity().not_before),
            not_after: seconds(certificate.validity().not_after),
            serial: hex::encode(certificate.raw_serial()),
        })
    }

    /// Reads the first certificate of a text in PEM.
    ///
    /// # Errors
    /// A text without one, and as [`Self::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&pem::first(text)?)
    }

    /// Checks the dates.
    ///
    /// # Errors
    /// A certificate that is not valid at `now`, in seconds since 1970.
    pub fn valid_at(&self, now: u64) -> Result<(), CertificateError> {
        valid_at(self.not_before, self.not_after, now)
    }

    /// Checks that the role is `expected`.
    ///
    /// # Errors
    /// [`CertificateError::WrongRole`].
    pub fn require(&self, expected: Role) -> Result<(), CertificateError> {
        if self.role == expected {
            return Ok(());
        }
        Err(CertificateError::WrongRole { found: self.role, expected: expected.to_string() })
    }
}

/// The certificate of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityCertificate {
    /// Its common name.
    pub name: String,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
    /// SHA-256 of the certificate in DER: what a token pins.
    pub fingerprint: [u8; 32],
    /// First second of its validity, since 1970.
    pub not_before: u64,
    /// Last second of its validity, since 1970.
    pub not_after: u64,
    /// The certificate.
    der: Vec<u8>,
    /// Its subject in DER, which is the issuer in what it issues.
    subject: Vec<u8>,
}

impl AuthorityCertificate {
    /// Reads an authority's certificate in DER.
    ///
    /// # Errors
    /// Bytes that are no certificate, a key of another kind, one that may not sign certificates, a subject that is not
    /// one common name, or a signature that is not its own.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = parse(der)?;
        let constraints = certificate.basic_constraints().map_err(|_| not_der())?;
        let usage = certificate.key_usage().map_err(|_| not_der())?;
        if !constraints.is_some_and(|c| c.value.ca) || !usage.is_some_and(|u| u.value.key_cert_sign()) {
            return Err(CertificateError::NoAuthority);
        }
        let names: Vec<_> = certificate.subject().iter_common_name().collect();
        let (1, [name]) = (certificate.subject().iter_attributes().count(), &names[..]) else {
            return Err(CertificateError::Subject);
        };
        let key = public_key(certificate.public_key())?;
        check_form(der, &certificate)?;
        check_signature(&certificate, &key)?;
        Ok(Self {
            name: name.as_str().map_err(|_| CertificateError::Subject)?.to_owned(),
            key,
            fingerprint: fingerprint(der),
            not_before: seconds(certificate.validity().not_before),
            not_after: seconds(certificate.validity().not_after),
            der: der.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
        })
    }

    /// Reads the first certificate of a text in PEM.
    ///
    /// # Errors
    /// A text without one, and as [`Self::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&pem::first(text)?)
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Checks that this authority has issued the certificate `der`, and reads it. Dates are not looked at.
    ///
    /// # Errors
    /// As [`Peer::from_der`]; another issuer, or a signature that does not hold.
    pub fn check(&self, der: &[u8]) -> Result<Peer, CertificateError> {
        let peer = Peer::from_der(der)?;
        let certificate = parse(der)?;
        if certificate.issuer().as_raw() != self.subject || check_signature(&certificate, &self.key).is_err() {
            return Err(CertificateError::OtherAuthority { authority: hex::encode(self.fingerprint) });
        }
        Ok(peer)
    }

    /// Checks the dates.
    ///
    /// # Errors
    /// A certificate that is not valid at `now`, in seconds since 1970.
    pub fn valid_at(&self, now: u64) -> Result<(), CertificateError> {
        valid_at(self.not_before, self.not_after, now)
    }
}

fn valid_at(not_before: u64, not_after: u64, now: u64) -> Result<(), CertificateError> {
    if now < not_before {
        return Err(CertificateError::NotYet { not_before, now });
    }
    if now > not_after {
        return Err(CertificateError::Expired { not_after, now });
    }
    Ok(())
}

/// The DNS names and IP addresses in a server's certificate, as text.
///
/// # Errors
/// Bytes that are no certificate.
pub(super) fn names(der: &[u8]) -> Result<Vec<String>, CertificateError> {
    let certificate = parse(der)?;
    let address = |bytes: &[u8]| {
        let four = <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).to_string());
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).to_string())).ok()
    };
    let names = alternative_names(&certificate)?;
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes),
            _ => None,
        })
        .collect())
}

/// The public key of a PKCS#10 request that was signed with its private key.
///
/// # Errors
/// Bytes that are no request, a key of another kind, a signature that does not hold.
pub(super) fn read_request(der: &[u8]) -> Result<[u8; 32], CertificateError> {
    let refused = CertificateError::Der { expected: "certificate request" };
    if der.len() > MAX_DER {
        return Err(CertificateError::Size { found: der.len(), most: MAX_DER });
    }
    let parsed = x509_parser::certification_request::X509CertificationRequest::from_der(der);
    let Ok(([], request)) = parsed else { return Err(refused) };
    let info = &request.certification_request_info;
    let key = public_key(&info.subject_pki)?;
    verify(info.raw, &request.signature_algorithm, &request.signature_value.data, &key, "request")?;
    Ok(key)
}

/// Refuses bytes that nobody should trust as a signing identity.
pub(super) fn check_key(key: &[u8; 32]) -> Result<(), CertificateError> {
    match VerifyingKey::from_bytes(key) {
        Ok(parsed) if !parsed.is_weak() => Ok(()),
        _ => Err(CertificateError::BadKey { key: hex::encode(key) }),
    }
}

/// SHA-256 of a certificate in DER.
pub(super) fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

/// A moment as people read it: `2026-03-01T12:00:00Z`. Seconds since 1970; what lies beyond the year 9999 stays a number.
#[must_use]
pub fn date(seconds: u64) -> String {
    let Some(time) = i64::try_from(seconds).ok().and_then(|s| ASN1Time::from_timestamp(s).ok()) else {
        return format!("{seconds} s after 1970");
    };
    let time = time.to_datetime();
    let month = u8::from(time.month());
    let (day, hour, minute, second) = (time.day(), time.hour(), time.minute(), time.second());
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", time.year())
}

fn not_der() -> CertificateError {
    CertificateError::Der { expected: "certificate" }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_DER {
        return Err(CertificateError::Size { found: der.len(), most: MAX_DER });
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(not_der()),
    }
}

/// Checks what stands around the signed part, which a signature does not cover, to the byte: one certificate has one
/// fingerprint, and nobody gives it another.
fn check_form(der: &[u8], certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let (tbs, signature) = (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    let [.., high, low] = (tbs.len() + SIGNATURE.len() + signature.len()).to_be_bytes();
    let header: &[u8] = match (high, low) {
        (0, ..128) => &[0x30, low],
        (0, _) => &[0x30, 0x81, low],
        _ => &[0x30, 0x82, high, low],
    };
    if [header, tbs, &SIGNATURE, signature].concat() != der {
        return Err(CertificateError::Form);
    }
    Ok(())
}

fn alternative_names<'a, 'b>(certificate: &'b X509Certificate<'a>) -> Result<&'b [GeneralName<'a>], CertificateError> {
    let found = certificate.subject_alternative_name().map_err(|_| not_der())?;
    Ok(found.map_or(&[][..], |extension| &extension.value.general_names))
}

/// A date before 1970 counts as 1970: long over, or valid since ever.
fn seconds(time: ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<[u8; 32], CertificateError> {
    let kind = info.algorithm.algorithm.to_id_string();
    if kind != ED25519 {
        let name = OTHERS.iter().find(|(id, _)| *id == kind).map_or(String::new(), |(_, name)| format!(" ({name})"));
        return Err(CertificateError::KeyType { found: kind + &name });
    }
    let bytes: &[u8] = &info.subject_public_key.data;
    let bad = || CertificateError::BadKey { key: hex::encode(&bytes[..bytes.len().min(64)]) };
    let key = <[u8; 32]>::try_from(bytes).map_err(|_| bad())?;
    check_key(&key)?;
    Ok(key)
}

fn check_signature(certificate: &X509Certificate<'_>, key: &[u8; 32]) -> Result<(), CertificateError> {
    let tbs = &certificate.tbs_certificate;
    verify(tbs.as_ref(), &certificate.signature_algorithm, &certificate.signature_value.data, key, "certificate")
}

fn verify(
    message: &[u8],
    kind: &AlgorithmIdentifier<'_>,
    signature: &[u8],
    key: &[u8; 32],
    what: &'static str,
) -> Result<(), CertificateError> {
    let refused = || CertificateError::Signature(what);
    let signature = Signature::from_slice(signature).map_err(|_| refused())?;
    let key = VerifyingKey::from_bytes(key).map_err(|_| refused())?;
    if kind.algorithm.to_id_string() != ED25519 {
        return Err(refused());
    }
    key.verify_strict(message, &signature).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keys::{Authority, Validity};

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(date(253_402_300_799), "9999-12-31T23:59:59Z");
        assert!(date(253_402_300_800).contains("253402300800 s"));
        assert!(date(u64::MAX).contains("after 1970"));
    }

    /// What a signature does not cover: the algorithm outside the signed part, here with a NULL that is no parameter.
    #[test]
    fn one_certificate_has_one_fingerprint() {
        let authority = Authority::in_memory("study", Validity { not_before: 10, not_after: 9_000_000_000 }).unwrap();
        let der = authority.certificate().der();
        assert!(AuthorityCertificate::from_der(der).is_ok());
        let place = der.len() - 64 - SIGNATURE.len();
        let inside = u16::from_be_bytes([der[2], der[3]]) + 2;
        let mut other =
            [&[0x30, 0x82], &inside.to_be_bytes()[..], &der[4..place], &[0x30, 7], &SIGNATURE[2..7]].concat();
        other.extend([&[5, 0], &SIGNATURE[7..], &der[place + SIGNATURE.len()..]].concat());
        assert!(
            der.starts_with(&[0x30, 0x82]) && X509Certificate::from_der(&other).is_ok_and(|(rest, _)| rest.is_empty())
        );
        assert_eq!(AuthorityCertificate::from_der(&other), Err(CertificateError::Form));
        let longer = [der, &[0]].concat();
        assert_eq!(AuthorityCertificate::from_der(&longer), Err(not_der()));
    }

    #[test]
    fn dates_include_their_ends() {
        let authority = Authority::in_memory("study", Validity { not_before: 10, not_after: 20 }).unwrap();
        let at = |now| authority.certificate().valid_at(now);
        assert_eq!(at(9), Err(CertificateError::NotYet { not_before: 10, now: 9 }));
        assert_eq!((at(10), at(20)), (Ok(()), Ok(())));
        assert_eq!(at(21), Err(CertificateError::Expired { not_after: 20, now: 21 }));
    }
}
