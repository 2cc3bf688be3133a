//! A party's first call: a token becomes a certificate.

use std::path::Path;

use super::channel_key;
use super::link::{Address, connect, failed};
use crate::net::keys::{AuthorityCertificate, PartyKeys, Role, Token};
use crate::net::plan::enrolment_domain;
use crate::net::wire::{VERSION, v1};
use crate::net::{NetError, tls};

/// Enrols the party of a folder, which is made if it is not there. The server is believed if it has a certificate of the authority
/// that the token names; that authority is trusted from then on. The same token in the same folder again gives the same place.
///
/// Must be called outside of an asynchronous context.
///
/// # Errors
/// A token that is none; a server of another authority; what the server refuses.
pub fn enrol(address: &Address, token: &str, folder: &Path, name: &str) -> Result<Role, NetError> {
    let peek = Token::peek(token)?;
    let mut keys = if folder.join(crate::net::keys::IDENTITY).exists() {
        PartyKeys::open(folder)?
    } else {
        PartyKeys::create(folder)?
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NetError::Io { action: "start", what: "the runtime".to_owned(), source })?;
    let identity = keys.identity();
    let answer = runtime.block_on(async {
        let mut link = connect(address, tls::enrol_config(peek.authority)?).await?;
        let request = v1::EnrolRequest {
            version: VERSION,
            token: token.to_owned(),
            identity: identity.public().to_vec().into(),
            channel: channel_key(keys.secret()).public().to_vec().into(),
            name: name.to_owned(),
            proof: identity.sign(&enrolment_domain(), token.as_bytes()).to_vec().into(),
        };
        Ok::<_, NetError>(link.calls.enrol(request).await.map_err(|e| failed(&e))?.into_inner())
    })?;
    // The authority that the token names, and no other, is trusted from now on.
    let authority = AuthorityCertificate::from_pem(&answer.authority)?;
    if authority.fingerprint != peek.authority {
        let (expected, found) = (hex::encode(peek.authority), hex::encode(authority.fingerprint));
        return Err(NetError::Dishonest { what: "the authority", expected, found });
    }
    keys.install(&answer.certificate, &answer.authority)?;
    let role = keys.certificate().map(|peer| peer.role);
    role.ok_or_else(|| NetError::Refused { reason: "the server gave no certificate".to_owned() })
}
