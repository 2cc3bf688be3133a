//! Keys, certificates and folders of a small federation, and what it runs.

use std::path::{Path, PathBuf};

use veilsum::config::build::{Experiment, Given, Seat, federate};
use veilsum::config::{Config, overrides};
use veilsum::math::prg::Secret;
use veilsum::net::keys::{Authority, PartyKeys, Role};

/// Clients of a run.
pub const CLIENTS: u64 = 3;
/// Key holders of a run of `oneshot`.
pub const HOLDERS: u16 = 3;

/// An authority, a server's keys, and the folders of parties that have certificates.
pub struct Town {
    folder: tempfile::TempDir,
    /// Who signs certificates.
    pub authority: Authority,
}

impl Default for Town {
    fn default() -> Self {
        Self::new()
    }
}

impl Town {
    /// A town with a server.
    ///
    /// # Panics
    /// Without a temporary folder.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "a town", 30).unwrap();
        let town = Self { folder, authority };
        town.party("server", Role::Server);
        town
    }

    /// A place in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of a party with a certificate.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn party(&self, name: &str, role: Role) -> PathBuf {
        let folder = self.path(name);
        let mut keys = PartyKeys::create(&folder).unwrap();
        let names = if role == Role::Server { vec!["localhost".to_owned()] } else { Vec::new() };
        let certificate = self.authority.issue(role, &keys.public(), &names, 10).unwrap();
        keys.install(&certificate, &self.authority.pem()).unwrap();
        folder
    }
}

/// A run without privacy of a very small model, by a protocol.
#[must_use]
pub fn config(protocol: &str) -> String {
    format!(
        r#"{{
            "name": "hostile", "seed": 7, "data": {{"name": "digits"}}, "partition": {{"scheme": "iid", "clients": {CLIENTS}}},
            "model": {{"mlp": [3, 2]}}, "algorithm": {{"name": "fed_avg", "learning_rate": 0.1}},
            "server": {{"optimizer": "sgd", "learning_rate": 1.0}}, "cohort": {CLIENTS}, "sampling": "all", "rounds": 100000,
            "privacy": {{"mechanism": "none", "clip": 1.0, "bits": 16, "delta": 1e-5}}, "secagg": {protocol},
            "federation": {{"phase_seconds": 60, "gather_seconds": 0, "online": {CLIENTS}, "evaluate": false,
                            "limits": {{"calls_per_second": 1e9, "pending_bytes": 64000000, "connections": 4, "all_connections": 100}}}},
            "train_on": "cpu", "backend": "scalar"
        }}"#
    )
}

/// A config by its text.
///
/// # Errors
/// What the product says of it.
pub fn typed(text: &str) -> Result<Config, veilsum::config::ConfigError> {
    overrides::typed(&overrides::parse(text, "a config")?, "a config")
}

/// What a party makes of the server's config before it has data, as `net/client/offer.rs` does.
///
/// # Errors
/// What the product says of it.
pub fn party(config: &Config, session: [u8; 16]) -> Result<Experiment, veilsum::config::ConfigError> {
    let given = Given { secret: Some(Secret::from_seed(1)), ..Given::default() };
    federate(config, Path::new("."), given, Seat::Party { session })
}
