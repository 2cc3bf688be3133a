//! Handshakes over loopback: who gets through, who does not, and what the two sides know of each other.

use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, PublicKeyData, SanType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::signer::Key;
use super::*;
use crate::net::keys::{Authority, Installed, PartyKeys, Renewal, Validity, hostile, now};

type ServerSide = server::TlsStream<TcpStream>;
type ClientSide = client::TlsStream<TcpStream>;

fn authority() -> Authority {
    Authority::in_memory("study", Validity::days(10).unwrap()).unwrap()
}

fn server_names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

/// A folder with keys and a certificate, whatever its dates.
fn party_within(authority: &Authority, role: Role, validity: Validity) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let keys = PartyKeys::create(folder.path()).unwrap();
    let names = if role == Role::Server { server_names() } else { vec![] };
    let text = authority.issue_within(role, &keys.public(), &names, validity).unwrap();
    put(folder.path(), "certificate.pem", &text);
    put(folder.path(), "ca.pem", &authority.pem());
    folder
}

fn party(authority: &Authority, role: Role) -> TempDir {
    party_within(authority, role, Validity::days(5).unwrap())
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// A key with a certificate that nobody has looked at, and what is shown behind it.
fn unchecked(folder: &Path, der: Option<Vec<u8>>, behind: &AuthorityCertificate) -> Arc<SingleCertAndKey> {
    let (pair, installed) = Installed::load(folder).unwrap();
    let chain = vec![der.unwrap_or(installed.der).into(), behind.der().to_vec().into()];
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::new(Key(pair)))))
}

/// A server that shows what it likes and asks for no certificate.
fn rogue_server(shown: Arc<SingleCertAndKey>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth().with_cert_resolver(shown);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// A client that shows what it likes to a server of `authority`.
fn rogue_client(shown: Arc<SingleCertAndKey>, authority: &Authority) -> Arc<ClientConfig> {
    let verifier = ServerVerifier::of_fingerprint(authority.fingerprint(), provider());
    finish(client_builder(verifier).unwrap().with_client_cert_resolver(shown))
}

async fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (std::io::Result<ServerSide>, std::io::Result<ClientSide>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (acceptor, connector) = (TlsAcceptor::from(server.clone()), TlsConnector::from(client.clone()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let connect = async { connector.connect(name, TcpStream::connect(address).await.unwrap()).await };
    tokio::join!(accept, connect)
}

/// A byte there and back: in TLS 1.3 a client learns of its refusal with the first byte that it reads.
async fn speak(server: &mut ServerSide, client: &mut ClientSide) -> std::io::Result<()> {
    client.write_all(b"?").await?;
    let byte = server.read_u8().await?;
    server.write_all(&[byte]).await?;
    server.flush().await?;
    assert_eq!(client.read_u8().await?, b'?');
    Ok(())
}

/// What each side says of the other; of a refusal, what the side that refused says.
async fn meet(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(Result<Peer, CertificateError>, Peer), String> {
    match handshake(server, client, name).await {
        (Ok(mut server), Ok(mut client)) => {
            speak(&mut server, &mut client).await.map_err(|e| explain(&e))?;
            let of_client = peer(server.get_ref().1.peer_certificates().unwrap_or_default());
            Ok((of_client, seen(&client)))
        }
        (server, client) => {
            let both = [server.map(drop), client.map(drop)];
            let said: Vec<_> = both.into_iter().filter_map(Result::err).map(|e| explain(&e)).collect();
            Err(said.join("; "))
        }
    }
}

fn seen(client: &ClientSide) -> Peer {
    peer(client.get_ref().1.peer_certificates().unwrap()).unwrap()
}

#[tokio::test]
async fn the_parties_of_one_authority_know_each_other() {
    let authority = authority();
    let at_server = party(&authority, Role::Server);
    let (server, _) = server_config(at_server.path()).unwrap();
    for role in [Role::Client(17), Role::Holder(3)] {
        let folder = party(&authority, role);
        let (client, _) = client_config(folder.path()).unwrap();
        for name in ["localhost", "127.0.0.1"] {
            let (of_client, of_server) = meet(&server, &client, name).await.unwrap();
            let of_client = of_client.unwrap();
            let keys = PartyKeys::open(folder.path()).unwrap();
            assert_eq!((of_client.role, of_client.identity), (role, keys.identity().public()));
            assert_eq!(Some(&of_client), keys.certificate());
            assert_eq!(Some(&of_server), PartyKeys::open(at_server.path()).unwrap().certificate());
            assert_eq!(of_server.role, Role::Server);
        }
        let said = meet(&server, &client, "example.org").await.unwrap_err();
        assert!(said.contains("not valid for name"), "{said}");
    }
}

#[tokio::test]
async fn the_protocol_is_tls_1_3_with_http_2_and_never_resumed() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, _) = server_config(at_server.path()).unwrap();
    let (client, _) = client_config(at_client.path()).unwrap();
    let mut eager = (*client).clone();
    eager.resumption = Resumption::default();
    let eager = Arc::new(eager);
    for _ in 0..3 {
        let (server_side, client_side) = handshake(&server, &eager, "localhost").await;
        let (mut server_side, mut client_side) = (server_side.unwrap(), client_side.unwrap());
        speak(&mut server_side, &mut client_side).await.unwrap();
        let state = client_side.get_ref().1;
        assert_eq!(state.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(state.alpn_protocol(), Some(ALPN));
        assert_eq!(state.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(state.tls13_tickets_received(), 0);
    }
}

/// A ClientHello of TLS 1.2 by hand, since what the library offers depends on how it was built.
#[tokio::test]
async fn older_versions_are_refused() {
    let authority = authority();
    let folder = party(&authority, Role::Server);
    let (server, _) = server_config(folder.path()).unwrap();
    // Version, random, no session, one suite, no compression; extensions: groups X25519, signatures Ed25519.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16, 0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 8, 7]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let refused = TlsAcceptor::from(server).accept(listener.accept().await.unwrap().0).await.unwrap_err();
    assert!(refused.to_string().contains("SupportedVersionsExtensionRequired"), "{refused}");
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [0x15, 3, 3, 0, 2, 2, 70], "fatal, protocol_version");
    assert!(explain(&std::io::Error::other("nothing of TLS")).contains("nothing of TLS"));
}

#[tokio::test]
async fn another_authority_is_refused_on_both_sides() {
    let (authority, other) = (authority(), authority());
    let at_server = party(&authority, Role::Server);
    let (server, _) = server_config(at_server.path()).unwrap();
    let stranger = party(&other, Role::Client(1));
    let (client, _) = client_config(stranger.path()).unwrap();
    let said = meet(&server, &client, "localhost").await.unwrap_err();
    assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    // One that would talk to this server all the same.
    let client = rogue_client(unchecked(stranger.path(), None, other.certificate()), &authority);
    let said = meet(&server, &client, "localhost").await.unwrap_err();
    assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
}

/// Certificates are public: to show one is nothing without its key.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused_on_both_sides() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, _) = server_config(at_server.path()).unwrap();
    let (client, _) = client_config(at_client.path()).unwrap();
    let thief = party(&authority, Role::Client(2));
    let stolen = |folder: &TempDir| {
        let (_, installed) = Installed::load(folder.path()).unwrap();
        unchecked(thief.path(), Some(installed.der), authority.certificate())
    };
    let posing = rogue_server(stolen(&at_server));
    for client in [&client, &enrol_config(authority.fingerprint()).unwrap()] {
        let said = meet(&posing, client, "localhost").await.unwrap_err();
        assert!(said.contains("BadSignature"), "{said}");
    }
    let said = meet(&server, &rogue_client(stolen(&at_client), &authority), "localhost").await.unwrap_err();
    assert!(said.contains("BadSignature"), "{said}");
}

#[tokio::test]
async fn certificates_out_of_their_time_are_refused_on_both_sides() {
    let authority = authority();
    let past = Validity { not_before: now() - 2_000, not_after: now() - 1_000 };
    let future = Validity { not_before: now() + 10_000, not_after: now() + 20_000 };
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, _) = server_config(at_server.path()).unwrap();
    let (client, _) = client_config(at_client.path()).unwrap();
    for (validity, reason) in [(past, "certificate expired"), (future, "certificate not valid yet")] {
        let folder = party_within(&authority, Role::Server, validity);
        let late = rogue_server(unchecked(folder.path(), None, authority.certificate()));
        let said = meet(&late, &client, "localhost").await.unwrap_err();
        assert!(said.contains(reason), "{said}");
        let said = server_config(folder.path()).unwrap_err().to_string();
        assert!(said.contains("the clock here says"), "{said}");
        let folder = party_within(&authority, Role::Client(1), validity);
        let late = rogue_client(unchecked(folder.path(), None, authority.certificate()), &authority);
        let said = meet(&server, &late, "localhost").await.unwrap_err();
        assert!(said.contains(reason), "{said}");
        assert!(client_config(folder.path()).is_err());
    }
}

/// A certificate with these alternative names that serves both sides of a handshake.
fn for_all(authority: &Authority, key: &impl PublicKeyData, uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::new(server_names()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "anything");
    params.not_after = params.not_before + std::time::Duration::from_secs(100 * 365 * 86_400);
    let uri = |uri: &&str| SanType::URI(Ia5String::try_from(*uri).unwrap());
    params.subject_alt_names.extend(uris.iter().map(uri));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    authority.sign(&params, key).unwrap()
}

#[tokio::test]
async fn a_role_is_not_another_role() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, _) = server_config(at_server.path()).unwrap();
    let (client, _) = client_config(at_client.path()).unwrap();
    let enrolling = enrol_config(authority.fingerprint()).unwrap();
    // By the purpose of the certificate: a client's as it was issued, and a server's.
    let posing = rogue_server(unchecked(at_client.path(), None, authority.certificate()));
    for client in [&client, &enrolling] {
        let said = meet(&posing, client, "localhost").await.unwrap_err();
        assert!(said.contains("not valid for name") || said.contains("extended key usage"), "{said}");
    }
    let posing = rogue_client(unchecked(at_server.path(), None, authority.certificate()), &authority);
    let said = meet(&server, &posing, "localhost").await.unwrap_err();
    assert!(said.contains("extended key usage"), "{said}");
    // By the role alone, where names and purposes would do.
    let (key, _) = Installed::load(at_client.path()).unwrap();
    for (uris, reason) in [
        (&["veilsum:client:1"][..], "the role is client:1 and has to be server"),
        (&["https://example.org"], "no role"),
        (&["veilsum:server", "veilsum:client:1"], "2 roles"),
        (&["veilsum:admin"], "`admin` is no role"),
    ] {
        let der = for_all(&authority, &key, uris);
        let posing = rogue_server(unchecked(at_client.path(), Some(der), authority.certificate()));
        for client in [&client, &enrolling] {
            let said = meet(&posing, client, "localhost").await.unwrap_err();
            assert!(said.contains(reason), "{said}, not {reason}");
        }
    }
    let der = for_all(&authority, &key, &["veilsum:server"]);
    let good = rogue_server(unchecked(at_client.path(), Some(der.clone()), authority.certificate()));
    let (of_client, of_server) = meet(&good, &client, "localhost").await.unwrap();
    assert_eq!((of_client, of_server.role), (Err(CertificateError::Absent), Role::Server));
    let posing = rogue_client(unchecked(at_client.path(), Some(der), authority.certificate()), &authority);
    let said = meet(&server, &posing, "localhost").await.unwrap_err();
    assert!(said.contains("the role is server and has to be client:N"), "{said}");
}

#[tokio::test]
async fn keys_of_another_kind_are_refused_by_name() {
    let authority = authority();
    let at_client = party(&authority, Role::Client(1));
    let (client, _) = client_config(at_client.path()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let der = for_all(&authority, &key, &["veilsum:server"]);
    let said = peer(&[der.clone().into()]).unwrap_err().to_string();
    assert!(said.contains("1.2.840.10045.2.1 (elliptic curve (ECDSA)) and only Ed25519"), "{said}");
    assert_eq!(peer(&[]), Err(CertificateError::Absent));
    let chain = vec![der.into(), authority.certificate().der().to_vec().into()];
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let server = builder
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let said = meet(&Arc::new(server), &client, "localhost").await.unwrap_err();
    assert!(said.contains("NoSignatureSchemesInCommon"), "{said}");
    assert_eq!(provider().signature_verification_algorithms.supported_schemes(), [SignatureScheme::ED25519]);
    assert!(!provider().signature_verification_algorithms.all.is_empty());
}

#[tokio::test]
async fn a_party_enrols_at_the_authority_of_its_token_and_nowhere_else() {
    let (authority, other) = (authority(), authority());
    let at_server = party(&authority, Role::Server);
    let (server, _) = server_config(at_server.path()).unwrap();
    let enrolling = enrol_config(authority.fingerprint()).unwrap();
    let (of_client, of_server) = meet(&server, &enrolling, "localhost").await.unwrap();
    assert_eq!((of_client, of_server.role), (Err(CertificateError::Absent), Role::Server));
    let said = meet(&server, &enrolling, "example.org").await.unwrap_err();
    assert!(said.contains("not valid for name"), "{said}");
    let wrong = enrol_config(other.fingerprint()).unwrap();
    let said = meet(&server, &wrong, "localhost").await.unwrap_err();
    assert!(said.contains(&format!("authority with the fingerprint {}", hex::encode(other.fingerprint()))), "{said}");
    // A stranger's server that shows the right authority behind its own certificate.
    let stranger = party(&other, Role::Server);
    let posing = rogue_server(unchecked(stranger.path(), None, authority.certificate()));
    let said = meet(&posing, &enrolling, "localhost").await.unwrap_err();
    assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    // A fingerprint that is that of a server's certificate, which is no authority.
    let of_leaf = enrol_config(of_server.fingerprint).unwrap();
    assert!(meet(&server, &of_leaf, "localhost").await.is_err());
}

#[tokio::test]
async fn new_keys_are_for_new_connections() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, reloader) = server_config(at_server.path()).unwrap();
    let (client, of_client) = client_config(at_client.path()).unwrap();
    let (old_server, old_client) = handshake(&server, &client, "localhost").await;
    let (mut old_server, mut old_client) = (old_server.unwrap(), old_client.unwrap());
    let before = reloader.peer();
    assert_eq!(seen(&old_client), before);
    assert!(!reloader.check().unwrap());
    for renewal in [Renewal::SameKey, Renewal::NewKey] {
        let renewed = PartyKeys::renew(at_server.path(), &authority, 6, renewal).unwrap();
        // Not yet: nobody has looked.
        assert_ne!(meet(&server, &client, "localhost").await.unwrap().1, renewed);
        assert!(reloader.check().unwrap());
        assert!(!reloader.check().unwrap());
        assert_eq!(meet(&server, &client, "localhost").await.unwrap().1, renewed);
        assert_eq!(renewed.identity == before.identity, renewal == Renewal::SameKey);
    }
    speak(&mut old_server, &mut old_client).await.unwrap();
    assert_eq!(seen(&old_client), before);
    let renewed = PartyKeys::renew(at_client.path(), &authority, 6, Renewal::SameKey).unwrap();
    assert!(of_client.check().unwrap());
    assert_eq!(meet(&server, &client, "localhost").await.unwrap().0.unwrap(), renewed);
}

#[tokio::test]
async fn bad_new_files_change_nothing() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let (server, reloader) = server_config(at_server.path()).unwrap();
    let (client, _) = client_config(at_client.path()).unwrap();
    let before = reloader.peer();
    let read = |name: &str| std::fs::read_to_string(at_server.path().join(name)).unwrap();
    let (key, certificate) = (read("identity.key"), read("certificate.pem"));
    let other_key = std::fs::read_to_string(at_client.path().join("identity.key")).unwrap();
    let public = PartyKeys::open(at_server.path()).unwrap().public();
    let issue = |authority: &Authority, role, names: &[String], validity| {
        authority.issue_within(role, &public, names, validity).unwrap()
    };
    let days = Validity::days(5).unwrap();
    let past = Validity { not_before: 10, not_after: 20 };
    let stranger = super::tests::authority();
    for (file, text, reason) in [
        ("identity.key", other_key.as_str(), "made for the key"),
        ("identity.key", "", "does not hold an Ed25519 private key"),
        ("certificate.pem", &certificate[..200], "BEGIN CERTIFICATE"),
        ("certificate.pem", &issue(&authority, Role::Server, &server_names(), past), "expired at 1970"),
        ("certificate.pem", &issue(&stranger, Role::Server, &server_names(), days), "not issued by the authority"),
        ("certificate.pem", &issue(&authority, Role::Client(1), &[], days), "the role is client:1"),
    ] {
        put(at_server.path(), file, text);
        for _ in 0..2 {
            let said = reloader.check().unwrap_err().to_string();
            assert!(said.contains(reason), "{said}, not {reason}");
        }
        assert_eq!(meet(&server, &client, "localhost").await.unwrap().1, before);
        put(at_server.path(), "identity.key", &key);
        put(at_server.path(), "certificate.pem", &certificate);
        assert!(!reloader.check().unwrap());
    }
    // With the stranger's authority beside it, its certificate fits, and is still not that of this server.
    put(at_server.path(), "certificate.pem", &issue(&stranger, Role::Server, &server_names(), days));
    put(at_server.path(), "ca.pem", &stranger.pem());
    let said = reloader.check().unwrap_err().to_string();
    assert!(said.contains(&hex::encode(authority.fingerprint())), "{said}");
    assert_eq!(meet(&server, &client, "localhost").await.unwrap().1, before);
}

#[test]
fn folders_that_are_not_right_are_refused_before_any_handshake() {
    let authority = authority();
    let (at_server, at_client) = (party(&authority, Role::Server), party(&authority, Role::Client(1)));
    let said = server_config(at_client.path()).unwrap_err().to_string();
    assert!(said.contains("the role is client:1 and has to be server"), "{said}");
    let said = client_config(at_server.path()).unwrap_err().to_string();
    assert!(said.contains("the role is server and has to be client:N or holder:N"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    PartyKeys::create(folder.path()).unwrap();
    let said = client_config(folder.path()).unwrap_err().to_string();
    assert!(said.contains("certificate.pem is not there") && said.contains("enrol with a token"), "{said}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = at_server.path().join("identity.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = server_config(at_server.path()).unwrap_err().to_string();
        assert!(said.contains("identity.key") && said.contains("chmod 600"), "{said}");
    }
}

/// What a hostile server can show: changed certificates, in any order and number.
#[test]
fn changed_chains_are_refused() {
    use tokio_rustls::rustls::client::danger::ServerCertVerifier;
    use tokio_rustls::rustls::pki_types::UnixTime;
    let authority = authority();
    let folder = party(&authority, Role::Server);
    let (_, installed) = Installed::load(folder.path()).unwrap();
    let (leaf, ca) = (installed.der, authority.certificate().der().to_vec());
    let pinning = ServerVerifier::of_fingerprint(authority.fingerprint(), provider());
    let trusting = ServerVerifier::of_authority(roots(authority.certificate()).unwrap(), provider()).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let accepted = |verifier: &ServerVerifier, leaf: &[u8], behind: &[CertificateDer<'_>]| {
        verifier.verify_server_cert(&leaf.into(), behind, &name, &[], UnixTime::now()).is_ok()
    };
    let good = CertificateDer::from(ca.clone());
    assert!(accepted(&pinning, &leaf, std::slice::from_ref(&good)) && accepted(&trusting, &leaf, &[]));
    assert!(!accepted(&pinning, &leaf, &[]) && !accepted(&pinning, &ca, std::slice::from_ref(&good)));
    let mut random = hostile::random(3);
    for _ in 0..2_000 {
        let (bad_leaf, bad_ca) = (hostile::mutate(&leaf, &mut random), hostile::mutate(&ca, &mut random));
        assert!(bad_ca == ca || !accepted(&pinning, &leaf, &[bad_ca.clone().into()]));
        for verifier in [&pinning, &trusting] {
            assert!(bad_leaf == leaf || !accepted(verifier, &bad_leaf, &[bad_ca.clone().into(), good.clone()]));
        }
    }
}
