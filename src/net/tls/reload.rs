//! New keys for new connections, without a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::TlsError;
use super::signer::Key;
use crate::net::keys::{AuthorityCertificate, CertificateError, Installed, Pair, Peer, Role, now};

/// What a party shows in a handshake that begins now.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    peer: Peer,
}

/// What a party shows, shared with the connections that are to come.
#[derive(Debug)]
pub(super) struct Current(RwLock<Shown>);

impl Current {
    fn key(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).key.clone()
    }

    fn peer(&self) -> Peer {
        self.0.read().unwrap_or_else(PoisonError::into_inner).peer.clone()
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        offered.contains(&SignatureScheme::ED25519).then(|| self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Looks at `certificate.pem` and `identity.key` when it is asked to, and gives new ones to the connections that begin
/// afterwards. Those that are there live on. The authority, and what kind of party this is, stay as they were at the
/// start.
#[derive(Debug)]
pub struct Reloader {
    folder: PathBuf,
    authority: AuthorityCertificate,
    current: Arc<Current>,
}

impl Reloader {
    /// What lies in `folder`, and its authority.
    pub(super) fn open(
        folder: &Path,
        admitted: impl Fn(Role) -> bool,
        expected: &'static str,
    ) -> Result<(Self, AuthorityCertificate), TlsError> {
        let (pair, installed) = Installed::load(folder)?;
        let unusable = |source| TlsError::Unusable { path: folder.to_path_buf(), source };
        let found = installed.peer.role;
        if !admitted(found) {
            return Err(unusable(CertificateError::WrongRole { found, expected: expected.to_owned() }));
        }
        installed.authority.valid_at(now()).map_err(unusable)?;
        installed.peer.valid_at(now()).map_err(unusable)?;
        let authority = installed.authority.clone();
        let current = Arc::new(Current(RwLock::new(shown(pair, installed))));
        Ok((Self { folder: folder.to_path_buf(), authority: authority.clone(), current }, authority))
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.clone()
    }

    /// What the connections that begin now show; for a look at when it expires.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.current.peer()
    }

    /// Reads the files, and takes what they hold if it is another certificate than the present one; says whether it was.
    ///
    /// # Errors
    /// Files that are damaged, do not fit each other, or hold a certificate of another authority or role or one that is
    /// not valid now. The present certificate stays in use; the next call looks again, so that a call in the middle of a
    /// renewal does no harm.
    pub fn check(&self) -> Result<bool, TlsError> {
        let (pair, installed) = Installed::load(&self.folder)?;
        let before = self.current.peer();
        if installed.peer == before {
            return Ok(false);
        }
        self.admit(&before, &installed).map_err(|source| TlsError::Unusable { path: self.folder.clone(), source })?;
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = shown(pair, installed);
        Ok(true)
    }

    fn admit(&self, before: &Peer, installed: &Installed) -> Result<(), CertificateError> {
        self.authority.check(&installed.der)?;
        installed.peer.require(before.role)?;
        installed.peer.valid_at(now())
    }
}

fn shown(pair: Pair, installed: Installed) -> Shown {
    let chain = vec![CertificateDer::from(installed.der), CertificateDer::from(installed.authority.der().to_vec())];
    Shown { key: Arc::new(CertifiedKey::new(chain, Arc::new(Key(pair)))), peer: installed.peer }
}
