//! Where a PostgreSQL database is, and how it is spoken to.
//!
//! A URL is that of libpq, `postgresql://USER@HOST:PORT/DATABASE?PARAMETERS`. The connection is TLS 1.3, and the
//! server's certificate is checked against its name: by the file of `sslrootcert=FILE` (PEM) or by the system's
//! certificates. Only over a socket file, or on this machine with `sslmode=disable`, is there none.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::StoreError;

/// How long a server may take to answer a connection, or bytes to be confirmed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where systems keep the certificates that they trust: Debian, Fedora, SUSE, and Alpine, BSD and macOS.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where a database is, and how it is spoken to. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    place: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("place", &self.place).field("tls", &self.tls.is_some()).finish()
    }
}

impl Address {
    /// Understands a URL, and reads the certificates.
    ///
    /// # Errors
    /// [`StoreError::Address`] without the password; [`StoreError::Plaintext`]; [`StoreError::Io`] for certificates.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        let (url, roots) = without_roots(url)?;
        let mut config: Config = url.parse().map_err(|_| StoreError::Address(without_password(&url)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(StoreError::Address(without_password(&url)));
        }
        let place = place(&config);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE);
        }
        // A server that is gone without a word is noticed.
        config.tcp_user_timeout(PATIENCE).keepalives_idle(PATIENCE);
        config.application_name("veilsum");
        let remote = remote_host(&config);
        let tls = match (config.get_ssl_mode(), is_socket(&config)) {
            (_, true) => None,
            (SslMode::Disable, _) => match remote {
                Some(host) => return Err(StoreError::Plaintext { host }),
                None => None,
            },
            _ => Some(connector(roots.as_deref(), &place)?),
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls, place })
    }

    /// The address for messages, without a password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// A new connection.
    ///
    /// # Errors
    /// What the server or the network says.
    pub fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
    }
}

/// Whether all hosts are socket files.
fn is_socket(config: &Config) -> bool {
    let socket = |host: &Host| !matches!(host, Host::Tcp(_));
    config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(socket)
}

/// A host that may be another machine.
fn remote_host(config: &Config) -> Option<String> {
    if let Some(address) = config.get_hostaddrs().iter().find(|address| !address.is_loopback()) {
        return Some(address.to_string());
    }
    config.get_hosts().iter().find_map(|host| match host {
        Host::Tcp(name) if name == "localhost" => None,
        Host::Tcp(name) => match name.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => None,
            _ => Some(name.clone()),
        },
        #[cfg(unix)]
        Host::Unix(_) => None,
    })
}

/// `postgresql://user@host:port/database`.
fn place(config: &Config) -> String {
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(IpAddr::to_string).collect();
    }
    let port = config.get_ports().first().map(|port| format!(":{port}")).unwrap_or_default();
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    format!("postgresql://{user}{}{port}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

/// A URL that was not understood, without what may be a password.
fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://...@{rest}"),
        _ => url.to_owned(),
    }
}

/// Takes `sslrootcert=FILE` out of a URL, which the client's library does not know, and names the modes that it does:
/// every certificate is checked in full.
fn without_roots(url: &str) -> Result<(String, Option<String>), StoreError> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let (mut kept, mut roots) = (Vec::new(), None);
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", path)) => {
                roots = Some(decoded(path).ok_or_else(|| StoreError::Address(without_password(url)))?);
            }
            Some(("sslmode", "verify-full" | "verify-ca")) => kept.push("sslmode=require"),
            _ => kept.push(parameter),
        }
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{address}{mark}{}", kept.join("&")), roots))
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let mut value = [0];
            hex::decode_to_slice(tail.get(..2)?, &mut value).ok()?;
            out.push(value[0]);
            rest = &tail[2..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// TLS 1.3 that trusts the certificates in a file, or those that the system trusts.
fn connector(roots: Option<&str>, place: &str) -> Result<MakeRustlsConnect, StoreError> {
    let failed =
        |source| StoreError::Io { action: "read the certificates to trust for", place: place.to_owned(), source };
    let given = roots.map(str::to_owned).or_else(|| std::env::var("SSL_CERT_FILE").ok());
    let system = || SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists()).map(|path| (*path).to_owned());
    let Some(path) = given.or_else(system) else {
        return Err(failed("this system has none where they usually lie; give a file as sslrootcert=FILE".into()));
    };
    let named = |error: &dyn std::fmt::Display| failed(format!("{path}: {error}").into());
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| named(&error))? {
        let certificate = certificate.map_err(|error| named(&error))?;
        match store.add(certificate) {
            // One of a system's many may be of a kind that is not understood; one that was named may not.
            Err(error) if roots.is_some() => return Err(named(&error)),
            _ => {}
        }
    }
    if store.is_empty() {
        return Err(named(&"no certificate in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| named(&error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_never_spoken_to_in_the_clear() {
        for url in ["postgresql://u@db.example/x?sslmode=disable", "postgres://u@10.0.0.1/x?sslmode=disable"] {
            assert!(matches!(Address::parse(url), Err(StoreError::Plaintext { .. })), "{url}");
        }
        let address = Address::parse("postgresql://u:pw@127.0.0.1:99/x?sslmode=disable").unwrap();
        assert!(address.tls.is_none());
        assert_eq!(address.place(), "postgresql://u@127.0.0.1:99/x");
        assert!(!format!("{address:?}").contains("pw"));
        let socket = Address::parse("postgresql:///x?host=/run/db&user=u&sslmode=require").unwrap();
        assert!(socket.tls.is_none() && socket.place().contains("/run/db"));
        assert!(matches!(Address::parse("postgresql://u@[::1]/x?sslmode=disable"), Ok(Address { tls: None, .. })));
    }

    #[test]
    fn certificates_are_read_from_the_file_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a root.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let encoded = path.display().to_string().replace(' ', "%20");
        let url = format!("postgresql://u@db.example/x?sslrootcert={encoded}&sslmode=verify-full");
        let error = Address::parse(&url).unwrap_err().to_string();
        assert!(error.contains("a root.pem: no certificate"), "{error}");
        let key = rcgen::generate_simple_self_signed(vec!["db.example".to_owned()]).unwrap();
        std::fs::write(&path, key.cert.pem()).unwrap();
        let address = Address::parse(&url).unwrap();
        assert_eq!((address.tls.is_some(), address.config.get_ssl_mode()), (true, SslMode::Require));
    }

    #[test]
    fn what_is_not_understood_is_said_without_the_password() {
        for url in ["postgresql://u:secret@h:port/x", "postgresql://u:secret@h/x?nonsense=secret", "postgresql://"] {
            let error = Address::parse(url).unwrap_err();
            assert!(matches!(error, StoreError::Address(_)), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(decoded("%2Ftmp%2").as_deref(), None);
        assert_eq!(decoded("%2Ftmp").as_deref(), Some("/tmp"));
    }
}
