//! TLS 1.3 with the certificates of [`crate::net::keys`], and nothing else: no older version, no resumption, no early
//! data, no signatures but Ed25519, HTTP/2 by ALPN.
//!
//! | configuration | shows | trusts |
//! |---|---|---|
//! | [`server_config`] | its certificate and its authority's | clients of its authority; a client without a certificate may connect, to enrol, and [`peer`] is then [`CertificateError::Absent`] |
//! | [`client_config`] | its certificate and its authority's | a server of its authority, by name and role |
//! | [`enrol_config`] | nothing | a server whose authority has a fingerprint, by name and role |
//!
//! Every connection is a full handshake, so that a certificate that was replaced or has expired counts from the next
//! connection on. One that is there lives on: whoever wants it closed at the end of a certificate's validity looks at
//! [`Peer::not_after`].

mod reload;
mod signer;
mod verify;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, CertificateError as Refusal, ClientConfig, OtherError, RootCertStore, ServerConfig, SignatureScheme,
};

use super::keys::{AuthorityCertificate, CertificateError, KeysError, Peer, Role};
use verify::{ClientVerifier, ServerVerifier};

pub use reload::Reloader;

/// HTTP/2, the one protocol of gRPC.
const ALPN: &[u8] = b"h2";

/// What can go wrong before the first handshake, or when keys are read again.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Keys or certificates in a folder.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A certificate that cannot be used here; the path is its folder.
    #[error("{}: {source}", path.display())]
    Unusable {
        /// The folder of the party.
        path: std::path::PathBuf,
        /// What is wrong.
        source: CertificateError,
    },
    /// The library refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// The library refused the authority's certificate.
    #[error("no client can be checked against the authority: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The server's side, with the keys in `folder` (see [`crate::net::keys::PartyKeys`]), and what takes new ones while it
/// runs.
///
/// A client that shows a certificate has to show one of the authority in `folder`, with a role; one that shows none is
/// let in, and what it may ask for is the caller's to decide by [`peer`].
///
/// # Errors
/// Keys that are missing, damaged or readable by others; a certificate of another role than the server's, or one that is
/// not valid now.
pub fn server_config(folder: &Path) -> Result<(Arc<ServerConfig>, Reloader), TlsError> {
    let (reloader, authority) = Reloader::open(folder, |role| role == Role::Server, "server")?;
    let provider = provider();
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&authority)?), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ClientVerifier::new(inner)))
        .with_cert_resolver(reloader.current());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok((Arc::new(config), reloader))
}

/// A client's or holder's side, with the keys in `folder`, and what takes new ones while it runs. The server has to have a
/// certificate of the authority in `folder`, for the name that is connected to, with the role [`Role::Server`].
///
/// # Errors
/// Keys that are missing, damaged or readable by others; a party that is not enrolled, or a server; a certificate that is
/// not valid now.
pub fn client_config(folder: &Path) -> Result<(Arc<ClientConfig>, Reloader), TlsError> {
    let (reloader, authority) = Reloader::open(folder, |role| role != Role::Server, "client:N or holder:N")?;
    let verifier = ServerVerifier::of_authority(roots(&authority)?, provider())?;
    let config = client_builder(verifier)?.with_client_cert_resolver(reloader.current());
    Ok((finish(config), reloader))
}

/// The side of a party that has no certificate yet: it shows none, and trusts a server that shows an authority's
/// certificate with this fingerprint (SHA-256 of the DER, from a token) and a certificate of that authority, for the name
/// that is connected to, with the role [`Role::Server`].
///
/// # Errors
/// When the library refuses the configuration.
pub fn enrol_config(fingerprint: [u8; 32]) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = ServerVerifier::of_fingerprint(fingerprint, provider());
    Ok(finish(client_builder(verifier)?.with_no_client_auth()))
}

/// Who is at the other end, from the certificates of a finished handshake (the first is the party's own).
///
/// # Errors
/// [`CertificateError::Absent`] where none was shown; a certificate that names no role, which no handshake of these
/// configurations lets through.
pub fn peer(certificates: &[CertificateDer<'_>]) -> Result<Peer, CertificateError> {
    Peer::from_der(certificates.first().ok_or(CertificateError::Absent)?)
}

/// Why a connection failed, in a sentence: the reason of this room, or else the library's, from wherever in the chain of
/// sources it stands (of an I/O error too, which hides what it wraps).
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(rustls::Error::InvalidCertificate(Refusal::Other(OtherError(reason)))) = e.downcast_ref() {
            return format!("the other side's certificate is refused: {reason}");
        }
        if e.is::<rustls::Error>() {
            return e.to_string();
        }
        next = match e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    error.to_string()
}

type WithVerifier = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(verifier: ServerVerifier) -> Result<WithVerifier, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        // Stricter than the library's own: it is asked first, then the role.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

fn roots(authority: &AuthorityCertificate) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der()))?;
    Ok(roots)
}

/// Ring's algorithms, of which the suites of TLS 1.3 are left and Ed25519 alone to verify with.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    let mapping = provider.signature_verification_algorithms.mapping;
    let place = mapping.iter().position(|(scheme, _)| *scheme == SignatureScheme::ED25519).unwrap_or(mapping.len());
    // Were it not there, the lists would be empty, and no signature would be good.
    let mapping = mapping.get(place..=place).unwrap_or(&[]);
    let all = mapping.first().map_or(&[][..], |(_, algorithms)| algorithms);
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms { all, mapping };
    Arc::new(provider)
}

#[cfg(test)]
mod tests;
