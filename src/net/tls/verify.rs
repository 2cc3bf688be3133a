//! The library's checks of a certificate, and what is asked besides: an Ed25519 key, a role, for a party that enrols the
//! fingerprint of the authority.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, CertificateError as Refusal, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use super::TlsError;
use crate::net::keys::{AuthorityCertificate, CertificateError, Peer, Role};

/// What a client trusts.
#[derive(Debug)]
enum Trust {
    /// Certificates of one authority.
    Authority(Arc<WebPkiServerVerifier>),
    /// Certificates of the authority with this fingerprint, which the server has to show.
    Fingerprint([u8; 32]),
}

/// How a client checks a server.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn of_authority(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        Ok(Self { trust: Trust::Authority(inner), provider })
    }

    pub(super) fn of_fingerprint(fingerprint: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self { trust: Trust::Fingerprint(fingerprint), provider }
    }

    /// The checks of one authority, where it is the one that was named.
    fn pinned(
        &self,
        fingerprint: &[u8; 32],
        shown: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let authority = shown
            .iter()
            .filter_map(|der| AuthorityCertificate::from_der(der).ok())
            .find(|authority| authority.fingerprint == *fingerprint)
            .ok_or_else(|| refuse(CertificateError::OtherAuthority { authority: hex::encode(fingerprint) }))?;
        let roots = Arc::new(super::roots(&authority)?);
        WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|_| Refusal::UnknownIssuer.into())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = Peer::from_der(end_entity).map_err(refuse)?;
        let verifier = match &self.trust {
            Trust::Authority(verifier) => verifier.clone(),
            Trust::Fingerprint(fingerprint) => self.pinned(fingerprint, intermediates)?,
        };
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        peer.require(Role::Server).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How a server checks a client that shows a certificate.
#[derive(Debug)]
pub(super) struct ClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientVerifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>) -> Self {
        Self(inner)
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let peer = Peer::from_der(end_entity).map_err(refuse)?;
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        if peer.role == Role::Server {
            let expected = "client:N or holder:N".to_owned();
            return Err(refuse(CertificateError::WrongRole { found: peer.role, expected }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn refuse(reason: CertificateError) -> rustls::Error {
    Refusal::Other(OtherError(Arc::new(reason))).into()
}

fn too_old() -> rustls::Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}
