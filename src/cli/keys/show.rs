//! `veilsum keys show`, and what the other verbs tell about certificates in JSON.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::{Exit, Failure};
use crate::net::keys::{Authority, AuthorityCertificate, PartyKeys, Peer, date, now};

/// What a folder holds.
enum Found {
    Authority(PathBuf, Authority),
    Party(PathBuf, PartyKeys),
}

/// What JSON tells of an authority.
pub(super) fn authority(certificate: &AuthorityCertificate) -> Value {
    json!({
        "name": certificate.name,
        "public_key": hex::encode(certificate.key),
        "fingerprint": hex::encode(certificate.fingerprint),
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
    })
}

/// What JSON tells of a party with a certificate.
pub(super) fn peer(peer: &Peer) -> Value {
    json!({
        "role": peer.role,
        "public_key": hex::encode(peer.identity),
        "fingerprint": hex::encode(peer.fingerprint),
        "serial": peer.serial,
        "not_before": peer.not_before,
        "not_after": peer.not_after,
    })
}

/// Shows what lies in `dir`: an authority, a party, or both below it.
///
/// # Errors
/// Keys that are damaged or readable by others; a folder with none.
pub(super) fn run(dir: &Path, json: bool) -> Result<(), Failure> {
    let found = look(dir)?;
    if found.is_empty() {
        let message = format!("{} holds no keys: neither ca/ and server/, nor ca.key, nor identity.key", dir.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    for one in &found {
        if json { println!("{}", one.json()) } else { one.print() }
    }
    Ok(())
}

fn look(dir: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for folder in [dir.to_path_buf(), dir.join("ca"), dir.join("server")] {
        if folder.join("ca.key").exists() {
            let authority = Authority::open(&folder)?;
            found.push(Found::Authority(folder.clone(), authority));
        }
        if folder.join("identity.key").exists() {
            let keys = PartyKeys::open(&folder)?;
            found.push(Found::Party(folder, keys));
        }
    }
    Ok(found)
}

impl Found {
    fn json(&self) -> Value {
        match self {
            Self::Authority(folder, found) => json!({"folder": folder, "authority": authority(found.certificate())}),
            Self::Party(folder, keys) => json!({
                "folder": folder,
                "public_key": hex::encode(keys.public()),
                "certificate": keys.certificate().map(peer),
                "authority": keys.authority().map(authority),
            }),
        }
    }

    fn print(&self) {
        match self {
            Self::Authority(folder, found) => {
                let certificate = found.certificate();
                println!("{}: the authority `{}`", folder.display(), certificate.name);
                println!("  fingerprint  {}", hex::encode(certificate.fingerprint));
                println!("  public key   {}", hex::encode(certificate.key));
                println!("  valid        {}", validity(certificate.not_before, certificate.not_after));
            }
            Self::Party(folder, keys) => {
                let who = keys.certificate().map_or("not enrolled".to_owned(), |peer| peer.role.to_string());
                println!("{}: {who}", folder.display());
                println!("  public key   {}", hex::encode(keys.public()));
                if let Some(peer) = keys.certificate() {
                    println!("  fingerprint  {}", hex::encode(peer.fingerprint));
                    println!("  serial       {}", peer.serial);
                    println!("  valid        {}", validity(peer.not_before, peer.not_after));
                }
                if let Some(certificate) = keys.authority() {
                    println!("  authority    {} `{}`", hex::encode(certificate.fingerprint), certificate.name);
                }
            }
        }
    }
}

/// From when to when, and what that means today.
fn validity(not_before: u64, not_after: u64) -> String {
    let now = now();
    let today = match not_after.checked_sub(now) {
        None => "expired".to_owned(),
        Some(_) if now < not_before => "not yet valid".to_owned(),
        Some(left) => format!("{} days left", left / 86_400),
    };
    format!("{} to {} ({today})", date(not_before), date(not_after))
}
