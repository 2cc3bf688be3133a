//! Certificates of a party: the first for a token, later ones for the one before.

use std::path::Path;

use tracing::{info, warn};

use super::channel_key;
use super::link::{Address, Link, connect, failed};
use crate::net::keys::{AuthorityCertificate, PartyKeys, Role, Token};
use crate::net::plan::enrolment_domain;
use crate::net::wire::{VERSION, v1};
use crate::net::{NetError, now, tls};

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
    let runtime = crate::net::runtime(1)?;
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
    install(&mut keys, peek.authority, &answer)?;
    let role = keys.certificate().map(|peer| peer.role);
    role.ok_or_else(|| NetError::Refused { reason: "the server gave no certificate".to_owned() })
}

/// Gets a new certificate for the same key once the present one is two thirds over, of the authority that is trusted and of no other. It
/// is for the next connection; where a server gives none, its operator has to.
pub(super) async fn renew(keys: &mut PartyKeys, role: Role, link: &mut Link) {
    let (Some(peer), Some(trusted)) = (keys.certificate(), keys.authority().map(|authority| authority.fingerprint))
    else {
        return;
    };
    let (whole, left) =
        (peer.not_after.saturating_sub(peer.not_before), peer.not_after.saturating_sub(now().as_secs()));
    if left > whole / 3 {
        return;
    }
    let outcome = match link.calls.renew(v1::RenewRequest { version: VERSION }).await {
        Ok(answer) => install(keys, trusted, &answer.into_inner()).map_err(|e| e.to_string()),
        Err(status) => Err(status.message().to_owned()),
    };
    match outcome {
        Ok(()) => info!(party = %role, "the certificate is renewed"),
        Err(reason) => {
            warn!(party = %role, days = left / 86_400, %reason, "the certificate ends soon and is not renewed")
        }
    }
}

/// Takes a certificate of the authority with this fingerprint.
fn install(keys: &mut PartyKeys, trusted: [u8; 32], answer: &v1::EnrolResponse) -> Result<(), NetError> {
    let authority = AuthorityCertificate::from_pem(&answer.authority)?;
    if authority.fingerprint != trusted {
        let (expected, found) = (hex::encode(trusted), hex::encode(authority.fingerprint));
        return Err(NetError::Dishonest { what: "the authority", expected, found });
    }
    keys.install(&answer.certificate, &answer.authority)?;
    Ok(())
}
