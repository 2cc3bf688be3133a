//! The folder of one party: its identity, its secret, its certificate.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType};
use zeroize::Zeroizing;

use super::authority::Authority;
use super::certificate::{self, AuthorityCertificate, Peer};
use super::error::{CertificateError, KeysError};
use super::pair::{self, Pair};
use super::secret::{New, make_folder, read_public, read_secret, replace_secret, write_new};
use super::{now, pem};
use crate::files::write_atomic;
use crate::math::prg::Secret;
use crate::secagg::identity::Identity;

/// The signing key of a party in its folder.
pub const IDENTITY: &str = "identity.key";
const SECRET: &str = "secret.hex";
/// Its certificate.
pub const CERTIFICATE: &str = "certificate.pem";
const AUTHORITY: &str = "ca.pem";
const REMEDY: &str = "this is no folder of a party; `veilsum keys new` or an enrolment makes one. A file that was lost comes \
    back from a backup only; without one make a new folder and enrol again";
const NOT_ENROLLED: &str = "this party has no certificate yet; enrol with a token, or have its request signed by `veilsum \
    keys issue` and bring the answer with `veilsum keys install`";

/// Which key a renewed certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The same: new dates.
    SameKey,
    /// A new one, and with it a new identity.
    NewKey,
}

/// A certificate in a folder, checked but for its dates: for the party's key, issued by the authority beside it.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) peer: Peer,
    pub(crate) der: Vec<u8>,
    pub(crate) authority: AuthorityCertificate,
}

impl Installed {
    /// The key pair of `folder` and the certificate for it.
    pub(crate) fn load(folder: &Path) -> Result<(Pair, Self), KeysError> {
        let pair = read_identity(folder)?;
        let installed = Self::beside(folder, &pair)?;
        Ok((pair, installed))
    }

    fn beside(folder: &Path, pair: &Pair) -> Result<Self, KeysError> {
        let (path, ca) = (folder.join(CERTIFICATE), folder.join(AUTHORITY));
        let text = read_public(&path, NOT_ENROLLED)?;
        let ca_text = read_public(&ca, NOT_ENROLLED)?;
        let authority = AuthorityCertificate::from_pem(&ca_text).map_err(KeysError::file(&ca))?;
        Self::check(&text, authority, pair).map_err(KeysError::file(&path))
    }

    fn check(text: &str, authority: AuthorityCertificate, pair: &Pair) -> Result<Self, CertificateError> {
        let der = pem::first(text)?;
        let peer = authority.check(&der)?;
        if peer.identity != *pair.public() {
            let (found, expected) = (hex::encode(peer.identity), hex::encode(pair.public()));
            return Err(CertificateError::OtherKey { found, expected });
        }
        Ok(Self { peer, der: der.to_vec(), authority })
    }
}

/// What one party is and knows. Its secrets are zeroized on drop, never printed.
pub struct PartyKeys {
    folder: PathBuf,
    pair: Pair,
    secret: Secret,
    installed: Option<Installed>,
}

impl fmt::Debug for PartyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartyKeys({}, {:?}, ..)", self.folder.display(), self.pair)
    }
}

impl PartyKeys {
    /// Makes an identity and a secret in `folder`, which is made if it is not there. There is no certificate yet.
    ///
    /// # Errors
    /// A folder where one of the two is already; no randomness; what the system says.
    pub fn create(folder: &Path) -> Result<Self, KeysError> {
        let (pair, secret) = (Pair::fresh()?, Secret::fresh()?);
        make_folder(folder)?;
        let key = pair.to_pem();
        let text = secret_text(&secret);
        write_new(&[
            New { path: folder.join(SECRET), bytes: text.as_bytes(), secret: true },
            New { path: folder.join(IDENTITY), bytes: key.as_bytes(), secret: true },
        ])?;
        Ok(Self { folder: folder.to_path_buf(), pair, secret, installed: None })
    }

    /// Opens the folder of a party, enrolled or not.
    ///
    /// # Errors
    /// Identity or secret that is missing, damaged or readable by others; a certificate that is not for this identity or
    /// not of the authority beside it. One that has expired is none of these.
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let pair = read_identity(folder)?;
        let secret = read_secret_hex(&folder.join(SECRET))?;
        let enrolled = folder.join(CERTIFICATE).symlink_metadata().is_ok();
        let installed = enrolled.then(|| Installed::beside(folder, &pair)).transpose()?;
        Ok(Self { folder: folder.to_path_buf(), pair, secret, installed })
    }

    /// Takes a certificate in PEM, and the authority's in PEM, into the folder: for a renewal as for the first.
    ///
    /// The authority is believed: the caller knows from a token's fingerprint, or from the connection, whose it is.
    ///
    /// # Errors
    /// A certificate that is not for this identity, not of this authority, or not valid now; an authority that is not.
    /// The files are as before then.
    pub fn install(&mut self, certificate: &str, authority: &str) -> Result<&Peer, KeysError> {
        let authority = AuthorityCertificate::from_pem(authority)?;
        let installed = Installed::check(certificate, authority, &self.pair)?;
        installed.authority.valid_at(now())?;
        installed.peer.valid_at(now())?;
        // The authority first: without a certificate it means nothing, so that a crash in between is not seen.
        write_atomic(&self.folder.join(AUTHORITY), pem::write(installed.authority.der()).as_bytes())?;
        write_atomic(&self.folder.join(CERTIFICATE), pem::write(&installed.der).as_bytes())?;
        Ok(&self.installed.insert(installed).peer)
    }

    /// As [`Self::install`], from one text: the certificate, and its authority's behind it.
    ///
    /// # Errors
    /// As [`Self::install`]; a text with one certificate or more than two.
    pub fn install_chain(&mut self, text: &str) -> Result<&Peer, KeysError> {
        let chain = pem::certificates(text)?;
        let [certificate, authority] = &chain[..] else {
            return Err(CertificateError::Chain { found: chain.len() }.into());
        };
        self.install(&pem::write(certificate), &pem::write(authority))
    }

    /// Renews the certificate of `folder` with the authority at hand: the role and the names of the old one, from an
    /// hour ago to `days` days from now. Works on an expired one, and repairs a folder in which a renewal with a new key
    /// was cut off between the key and its certificate.
    ///
    /// # Errors
    /// No certificate to renew, one of another authority, and as [`Authority::issue`].
    pub fn renew(folder: &Path, authority: &Authority, days: u32, renewal: Renewal) -> Result<Peer, KeysError> {
        let path = folder.join(CERTIFICATE);
        let old = pem::first(&read_public(&path, NOT_ENROLLED)?).map_err(KeysError::file(&path))?;
        let role = authority.certificate().check(&old).map_err(KeysError::file(&path))?.role;
        let names = certificate::names(&old).map_err(KeysError::file(&path))?;
        let pair = match renewal {
            Renewal::SameKey => read_identity(folder)?,
            Renewal::NewKey => Pair::fresh()?,
        };
        let text = authority.issue(role, pair.public(), &names, days)?;
        let installed = Installed::check(&text, authority.certificate().clone(), &pair)?;
        if renewal == Renewal::NewKey {
            replace_secret(&folder.join(IDENTITY), pair.to_pem().as_bytes())?;
        }
        write_atomic(&path, text.as_bytes())?;
        Ok(installed.peer)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the party signs with in the protocols: the key of its certificate.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::from_bytes(&self.pair.seed())
    }

    /// Its public key.
    #[must_use]
    pub const fn public(&self) -> [u8; 32] {
        *self.pair.public()
    }

    /// What its randomness is derived from.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What its certificate says; `None` before it is enrolled. Dates are not looked at.
    #[must_use]
    pub fn certificate(&self) -> Option<&Peer> {
        self.installed.as_ref().map(|installed| &installed.peer)
    }

    /// The authority that it trusts; `None` before it is enrolled.
    #[must_use]
    pub fn authority(&self) -> Option<&AuthorityCertificate> {
        self.installed.as_ref().map(|installed| &installed.authority)
    }

    /// A PKCS#10 request in PEM, signed with its key; the subject is no more than a label.
    ///
    /// # Errors
    /// When the library that writes it refuses.
    pub fn request(&self) -> Result<String, KeysError> {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "veilsum party");
        params.distinguished_name = subject;
        let what = "request";
        let written = params.serialize_request(&self.pair).map_err(|source| KeysError::Encode { what, source })?;
        written.pem().map_err(|source| KeysError::Encode { what, source })
    }
}

fn read_identity(folder: &Path) -> Result<Pair, KeysError> {
    let path = folder.join(IDENTITY);
    let text = read_secret(&path, REMEDY)?;
    Pair::from_pem(&text).ok_or(KeysError::Garbled { path, expected: pair::EXPECTED })
}

fn read_secret_hex(path: &Path) -> Result<Secret, KeysError> {
    let text = read_secret(path, REMEDY)?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), &mut *bytes).map_err(|_| KeysError::Garbled {
        path: path.to_path_buf(),
        expected: "64 hex digits, a secret of 256 bits",
    })?;
    Ok(Secret::from_bytes(*bytes))
}

fn secret_text(secret: &Secret) -> Zeroizing<String> {
    let mut digits = Zeroizing::new([0; 64]);
    // The lengths are those that it asks for.
    let _ = hex::encode_to_slice(secret.expose(), &mut *digits);
    let mut text = Zeroizing::new(String::with_capacity(65));
    text.extend(digits.iter().map(|&digit| char::from(digit)));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keys::{Role, Validity, request_key};

    struct Party {
        folder: tempfile::TempDir,
        keys: PartyKeys,
        authority: Authority,
    }

    fn party() -> Party {
        let folder = tempfile::tempdir().unwrap();
        let keys = PartyKeys::create(folder.path()).unwrap();
        let authority = Authority::in_memory("study", Validity::days(10).unwrap()).unwrap();
        Party { folder, keys, authority }
    }

    #[test]
    fn a_party_is_the_same_when_it_is_opened_again() {
        let Party { folder, mut keys, authority } = party();
        assert_eq!(keys.certificate(), None);
        let request = keys.request().unwrap();
        assert_eq!(request_key(&request).unwrap(), keys.public());
        let text = authority.issue_request(Role::Client(17), &request, &[], 5).unwrap();
        let peer = keys.install(&text, &authority.pem()).unwrap().clone();
        assert_eq!((peer.role, peer.identity), (Role::Client(17), keys.identity().public()));
        let opened = PartyKeys::open(folder.path()).unwrap();
        assert_eq!(opened.certificate(), Some(&peer));
        assert_eq!(opened.authority().unwrap().fingerprint, authority.fingerprint());
        assert_eq!(opened.identity().public(), peer.identity);
        assert_eq!(opened.secret().expose(), keys.secret().expose());
        assert!(matches!(PartyKeys::create(folder.path()), Err(KeysError::Exists(_))));
        let shown = format!("{opened:?}");
        assert!(!shown.contains(&hex::encode(opened.secret().expose())), "{shown}");
    }

    #[test]
    fn a_certificate_that_is_not_right_is_not_installed() {
        let Party { folder, mut keys, authority } = party();
        let other = party();
        let good = authority.issue(Role::Client(1), &keys.public(), &[], 5).unwrap();
        let foreign = authority.issue(Role::Client(1), &other.keys.public(), &[], 5).unwrap();
        let old = Validity { not_before: 10, not_after: 20 };
        let old = authority.issue_within(Role::Client(1), &keys.public(), &[], old).unwrap();
        let early = Validity { not_before: now() + 1_000, not_after: now() + 2_000 };
        let early = authority.issue_within(Role::Client(1), &keys.public(), &[], early).unwrap();
        for (certificate, ca, reason) in [
            (&foreign, &authority.pem(), "made for the key"),
            (&good, &other.authority.pem(), "not issued by the authority"),
            (&old, &authority.pem(), "expired at 1970"),
            (&early, &authority.pem(), "not valid before"),
            (&good, &good, "no authority's certificate"),
            (&authority.pem(), &authority.pem(), "no role"),
            (&"x".to_owned(), &authority.pem(), "BEGIN CERTIFICATE"),
        ] {
            let message = keys.install(certificate, ca).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}, not {reason}");
            assert!(!folder.path().join(CERTIFICATE).exists() && !folder.path().join(AUTHORITY).exists());
        }
        keys.install(&good, &authority.pem()).unwrap();
    }

    #[test]
    fn damaged_secrets_name_their_file() {
        let Party { folder, .. } = party();
        let at = |name: &str| folder.path().join(name);
        let message = || PartyKeys::open(folder.path()).unwrap_err().to_string();
        let secret = std::fs::read(at(SECRET)).unwrap();
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            std::fs::write(at(SECRET), bad).unwrap();
            assert!(message().contains("secret.hex does not hold 64 hex digits"), "{}", message());
        }
        std::fs::write(at(SECRET), &secret).unwrap();
        std::fs::write(at(IDENTITY), "hello").unwrap();
        assert!(message().contains("identity.key does not hold an Ed25519 private key"), "{}", message());
        std::fs::remove_file(at(IDENTITY)).unwrap();
        assert!(message().contains("identity.key is not there"), "{}", message());
        // A secret without an identity is not replaced either.
        assert!(matches!(PartyKeys::create(folder.path()), Err(KeysError::Exists(path)) if path == at(SECRET)));
        assert_eq!(std::fs::read(at(SECRET)).unwrap(), secret);
    }

    #[test]
    fn renewal_keeps_the_role_and_repairs_a_rotation_that_was_cut_off() {
        let Party { folder, mut keys, authority } = party();
        let names = ["example.org".to_owned(), "127.0.0.1".to_owned()];
        let old = Validity { not_before: 10, not_after: now() + 100 };
        let old = authority.issue_within(Role::Server, &keys.public(), &names, old).unwrap();
        let before = keys.install(&old, &authority.pem()).unwrap().clone();
        let same = PartyKeys::renew(folder.path(), &authority, 5, Renewal::SameKey).unwrap();
        assert_eq!((same.role, same.identity), (Role::Server, before.identity));
        assert!(same.not_after > before.not_after);
        let new = PartyKeys::renew(folder.path(), &authority, 5, Renewal::NewKey).unwrap();
        assert_ne!(new.identity, before.identity);
        let opened = PartyKeys::open(folder.path()).unwrap();
        assert_eq!(opened.certificate(), Some(&new));
        assert_eq!(opened.secret().expose(), keys.secret().expose());
        let der = pem::first(&std::fs::read_to_string(folder.path().join(CERTIFICATE)).unwrap()).unwrap();
        assert_eq!(certificate::names(&der).unwrap(), names);
        // The key is new and the certificate still the old one.
        std::fs::write(folder.path().join(CERTIFICATE), &old).unwrap();
        let message = PartyKeys::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("certificate.pem: made for the key"), "{message}");
        let repaired = PartyKeys::renew(folder.path(), &authority, 5, Renewal::SameKey).unwrap();
        assert_eq!(repaired.identity, new.identity);
        let stranger = Authority::in_memory("other", Validity::days(10).unwrap()).unwrap();
        assert!(PartyKeys::renew(folder.path(), &stranger, 5, Renewal::SameKey).is_err());
    }
}
