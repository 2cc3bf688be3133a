//! The authority of a federation: who says which key is whose.

use std::net::IpAddr;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use tokio_rustls::rustls::pki_types::DnsName;
use zeroize::Zeroizing;

use super::certificate::{self, AuthorityCertificate};
use super::error::{CertificateError, KeysError};
use super::pair::{self, Pair, Public};
use super::role::Role;
use super::secret::{New, make_folder, read_public, read_secret, write_new};
use super::token::{Token, TokenError, TokenRole};
use super::{now, pem};
use crate::math::prg::Secret;

/// The longest validity, in days: a hundred years.
pub const MAX_DAYS: u32 = 36_500;
/// How long before the present a new certificate begins, in seconds, for parties whose clocks are behind.
const BACKDATE: u64 = 3_600;
/// Longest name of an authority, in bytes (the upper bound of a common name in RFC 5280).
const MAX_NAME: usize = 64;
/// The last second that a certificate can name: the end of the year 9999.
const LAST: u64 = 253_402_300_799;
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const REMEDY: &str = "this is no folder of an authority; `veilsum keys init` makes one";

/// From when to when a certificate is valid, in seconds since 1970, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

impl Validity {
    /// From an hour ago, for clocks that are behind, to `days` days from now.
    ///
    /// # Errors
    /// No day, or more than [`MAX_DAYS`].
    pub fn days(days: u32) -> Result<Self, KeysError> {
        if !(1..=MAX_DAYS).contains(&days) {
            return Err(KeysError::Days { days, most: MAX_DAYS });
        }
        let now = now();
        Ok(Self { not_before: now.saturating_sub(BACKDATE), not_after: now + u64::from(days) * 86_400 })
    }

    fn write(self, params: &mut CertificateParams) -> Result<(), KeysError> {
        let Self { not_before, not_after } = self;
        if not_before >= not_after || not_after > LAST {
            return Err(KeysError::Validity { not_before, not_after });
        }
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + std::time::Duration::from_secs(not_before);
        params.not_after = epoch + std::time::Duration::from_secs(not_after);
        Ok(())
    }
}

/// An authority with its private key. The key is zeroized on drop, never printed.
#[derive(Debug)]
pub struct Authority {
    certificate: AuthorityCertificate,
    pair: Pair,
}

impl Authority {
    /// Makes an authority in `folder` (made if it is not there), valid for `days` days: `ca.pem` and, for its owner
    /// alone, `ca.key`.
    ///
    /// # Errors
    /// An authority that is there already, a name that none has (1 to 64 bytes), no room for the files.
    pub fn create(folder: &Path, name: &str, days: u32) -> Result<Self, KeysError> {
        let authority = Self::in_memory(name, Validity::days(days)?)?;
        make_folder(folder)?;
        let key = authority.pair.to_pem();
        let text = authority.pem();
        write_new(&[
            New { path: folder.join(KEY), bytes: key.as_bytes(), secret: true },
            New { path: folder.join(CERTIFICATE), bytes: text.as_bytes(), secret: false },
        ])?;
        Ok(authority)
    }

    /// Opens the authority of `folder`.
    ///
    /// # Errors
    /// Files that are missing or damaged, a key that others may read, a key that is not the certificate's.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let (path, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        let text = read_public(&path, REMEDY)?;
        let der = pem::first(&text).map_err(KeysError::file(&path))?;
        let certificate = AuthorityCertificate::from_der(&der).map_err(KeysError::file(&path))?;
        let pair = Pair::from_pem(&read_secret(&key, REMEDY)?)
            .ok_or_else(|| KeysError::Garbled { path: key.clone(), expected: pair::EXPECTED })?;
        if *pair.public() != certificate.key {
            let (found, expected) = (hex::encode(certificate.key), hex::encode(pair.public()));
            return Err(KeysError::file(&path)(CertificateError::OtherKey { found, expected }));
        }
        Ok(Self { certificate, pair })
    }

    /// An authority that lies in no file.
    pub(crate) fn in_memory(name: &str, validity: Validity) -> Result<Self, KeysError> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(KeysError::AuthorityName { found: name.len(), most: MAX_NAME });
        }
        let pair = Pair::fresh()?;
        let mut params = parameters(name)?;
        validity.write(&mut params)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let written = params.self_signed(&pair).map_err(encode("authority's certificate"))?;
        Ok(Self { certificate: AuthorityCertificate::from_der(written.der())?, pair })
    }

    /// Checks the names of a server before anything is made for it.
    ///
    /// # Errors
    /// No name, or one that is no DNS name and no IP address.
    pub fn check_names(names: &[String]) -> Result<(), KeysError> {
        alternative_names(Role::Server, names).map(drop)
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Its certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::write(self.certificate.der())
    }

    /// SHA-256 of its certificate in DER.
    #[must_use]
    pub const fn fingerprint(&self) -> [u8; 32] {
        self.certificate.fingerprint
    }

    /// Issues a certificate for a bare Ed25519 key, in PEM: from an hour ago to `days` days from now, and no longer than
    /// the authority's own. `names` are the DNS names and IP addresses of a server, and empty for all others.
    ///
    /// # Errors
    /// A key of small order, names that a party of this role does not have or that are none, days out of range, an
    /// authority that has expired.
    pub fn issue(&self, role: Role, public_key: &[u8; 32], names: &[String], days: u32) -> Result<String, KeysError> {
        self.certificate.valid_at(now())?;
        self.issue_within(role, public_key, names, Validity::days(days)?)
    }

    /// As [`Self::issue`], with dates of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::issue`]; dates that end before they begin.
    pub fn issue_within(
        &self,
        role: Role,
        public_key: &[u8; 32],
        names: &[String],
        validity: Validity,
    ) -> Result<String, KeysError> {
        certificate::check_key(public_key)?;
        let mut params = parameters(&role.to_string())?;
        let not_after = validity.not_after.min(self.certificate.not_after);
        Validity { not_after, ..validity }.write(&mut params)?;
        params.subject_alt_names = alternative_names(role, names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Client(_) | Role::Holder(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let der = self.sign(&params, &Public(public_key))?;
        // What others will check is checked here once: issuer, signature, role.
        self.certificate.check(&der)?;
        Ok(pem::write(&der))
    }

    /// Signs whatever it is given.
    pub(crate) fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Vec<u8>, KeysError> {
        let issuer = Issuer::new(parameters(&self.certificate.name)?, &self.pair);
        Ok(params.signed_by(key, &issuer).map_err(encode("certificate"))?.der().to_vec())
    }

    /// As [`Self::issue`], for the key of a PKCS#10 request in PEM; all else that it asks for is left aside.
    ///
    /// # Errors
    /// As [`Self::issue`]; a text that is no request, or that was not signed with the private key.
    pub fn issue_request(&self, role: Role, request: &str, names: &[String], days: u32) -> Result<String, KeysError> {
        self.issue(role, &pem::request_key(request)?, names, days)
    }

    /// A token that lets a party in until `expires`, in seconds since 1970.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn token(&self, role: TokenRole, expires: u64) -> Result<Zeroizing<String>, KeysError> {
        let random = Secret::fresh()?;
        let nonce = std::array::from_fn(|i| random.expose()[i]);
        Ok(Token { nonce, role, expires, authority: self.fingerprint() }.sign(&self.pair))
    }

    /// Checks a token at `now`, in seconds since 1970. Whether it was used before is not known here: see [`Token::nonce`].
    ///
    /// # Errors
    /// As [`Token::verify`].
    pub fn verify_token(&self, text: &str, now: u64) -> Result<Token, TokenError> {
        Token::verify(text, &self.certificate, now)
    }
}

fn encode(what: &'static str) -> impl FnOnce(rcgen::Error) -> KeysError {
    move |source| KeysError::Encode { what, source }
}

/// Parameters with a name and a serial number of 126 random bits.
fn parameters(name: &str) -> Result<CertificateParams, KeysError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let random = Secret::fresh()?;
    let mut serial: [u8; 16] = std::array::from_fn(|i| random.expose()[i]);
    // Positive, and always of sixteen bytes.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn alternative_names(role: Role, names: &[String]) -> Result<Vec<SanType>, KeysError> {
    match (role, names) {
        (Role::Server, []) => return Err(KeysError::NoNames),
        (Role::Server, _) | (_, []) => {}
        (_, [..]) => return Err(KeysError::NamesOf(role)),
    }
    let text = |text: &str| Ia5String::try_from(text).map_err(|_| KeysError::Name(text.to_owned()));
    let mut found = vec![SanType::URI(text(&role.uri())?)];
    for name in names {
        found.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if DnsName::try_from(name.as_str()).is_ok() => SanType::DnsName(text(name)?),
            Err(_) => return Err(KeysError::Name(name.clone())),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keys::Peer;

    fn key() -> [u8; 32] {
        *Pair::fresh().unwrap().public()
    }

    fn read(text: &str) -> Peer {
        Peer::from_der(&pem::first(text).unwrap()).unwrap()
    }

    #[test]
    fn what_is_issued_says_who_it_is_for() {
        let authority = Authority::in_memory("study", Validity::days(10).unwrap()).unwrap();
        for (role, names) in [
            (Role::Server, vec!["example.org".to_owned(), "::1".to_owned(), "10.0.0.7".to_owned()]),
            (Role::Client(17), vec![]),
            (Role::Holder(3), vec![]),
        ] {
            let key = key();
            let text = authority.issue(role, &key, &names, 5).unwrap();
            let peer = read(&text);
            assert_eq!((peer.role, peer.identity), (role, key));
            assert_eq!(peer.not_after - peer.not_before, 5 * 86_400 + BACKDATE);
            assert_eq!(peer.serial.len(), 32);
            assert_eq!(certificate::names(&pem::first(&text).unwrap()).unwrap(), names);
            peer.valid_at(now()).unwrap();
            assert_ne!(read(&authority.issue(role, &key, &names, 5).unwrap()).serial, peer.serial);
            // No certificate outlives its authority.
            let long = read(&authority.issue(role, &key, &names, 5_000).unwrap());
            assert_eq!(long.not_after, authority.certificate().not_after);
        }
    }

    #[test]
    fn what_nobody_should_have_is_not_issued() {
        let authority = Authority::in_memory("study", Validity::days(10).unwrap()).unwrap();
        let name = |name: &str| vec![name.to_owned()];
        let refused =
            |role, names: &[String], days| authority.issue(role, &key(), names, days).unwrap_err().to_string();
        assert!(refused(Role::Server, &[], 1).contains("needs a name"));
        assert!(refused(Role::Client(1), &name("example.org"), 1).contains("client:1 is not a server"));
        assert!(refused(Role::Server, &name("a b"), 1).contains("`a b` is no DNS name"));
        assert!(refused(Role::Server, &name("exämple.org"), 1).contains("no DNS name"));
        assert!(refused(Role::Client(1), &[], 0).contains("0 days"));
        assert!(refused(Role::Client(1), &[], MAX_DAYS + 1).contains("1 to 36500"));
        let mut weak = [0; 32];
        weak[0] = 1;
        let message = authority.issue(Role::Client(1), &weak, &[], 1).unwrap_err().to_string();
        assert!(message.contains("small order"), "{message}");
        let backwards = Validity { not_before: 10, not_after: 10 };
        assert!(authority.issue_within(Role::Client(1), &key(), &[], backwards).is_err());
        let endless = Validity { not_before: 10, not_after: u64::MAX };
        assert!(Authority::in_memory("study", endless).is_err());
        assert!(Authority::in_memory("", backwards).is_err());
        assert!(Authority::in_memory("a\nb", Validity::days(1).unwrap()).is_err());
        let over = Authority::in_memory("old", Validity { not_before: 10, not_after: 20 }).unwrap();
        let message = over.issue(Role::Client(1), &key(), &[], 1).unwrap_err().to_string();
        assert!(message.contains("expired at 1970-01-01T00:00:20Z"), "{message}");
    }

    #[test]
    fn an_authority_is_opened_again_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let made = Authority::create(folder.path(), "study", 10).unwrap();
        let opened = Authority::open(folder.path()).unwrap();
        assert_eq!(opened.certificate(), made.certificate());
        assert_eq!(opened.certificate().name, "study");
        let text = opened.issue(Role::Client(1), &key(), &[], 1).unwrap();
        made.certificate().check(&pem::first(&text).unwrap()).unwrap();
        let refused = Authority::create(folder.path(), "study", 10).unwrap_err();
        assert!(matches!(refused, KeysError::Exists(_)));
        assert!(!format!("{opened:?}").contains("seed"));
        let other = tempfile::tempdir().unwrap();
        Authority::create(other.path(), "study", 10).unwrap();
        std::fs::copy(other.path().join(CERTIFICATE), folder.path().join(CERTIFICATE)).unwrap();
        let message = Authority::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("ca.pem: made for the key"), "{message}");
        std::fs::remove_file(folder.path().join(KEY)).unwrap();
        let message = Authority::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("ca.key is not there") && message.contains("keys init"), "{message}");
    }
}
