//! How a party gets its place: by a token, or by a certificate that the authority gave it another way.

use tonic::Status;

use super::shared::Shared;
use crate::net::keys::{Role, TokenRole};
use crate::net::now;
use crate::net::plan::enrolment_domain;
use crate::net::store::{Enrolment, NewParty, StoreError, Wanted};
use crate::net::wire::{self, v1};
use crate::secagg::identity::Roster;

/// Days that a certificate of an enrolment is good for.
const DAYS: u32 = 90;
/// Longest name of a party, bytes.
const NAME: usize = 200;

/// Trades a token for a certificate.
pub(super) fn enrol(shared: &Shared, request: &v1::EnrolRequest) -> Result<v1::EnrolResponse, Status> {
    let refuse = |reason: &'static str, status: Status| {
        shared.board.refused(reason);
        Err(status)
    };
    if request.version != wire::VERSION {
        let message = format!("version {} of the protocol, and this server speaks {}", request.version, wire::VERSION);
        return refuse("version", Status::failed_precondition(message));
    }
    let Some(authority) = &shared.authority else {
        let message = "this server has no authority's key: ask its operator for a certificate (veilsum keys issue)";
        return refuse("token", Status::failed_precondition(message));
    };
    let token = match authority.verify_token(&request.token, now().as_secs()) {
        Ok(token) => token,
        Err(e) => return refuse("token", Status::permission_denied(e.to_string())),
    };
    let Some(identity) = wire::fixed::<32>(&request.identity) else {
        return Err(Status::invalid_argument("an identity has 32 bytes"));
    };
    if request.name.len() > NAME {
        return Err(Status::invalid_argument(format!("a name has at most {NAME} bytes")));
    }
    if !proves(&identity, &request.token, &request.proof) {
        return refuse("token", Status::permission_denied("the token is not signed by the key that asks"));
    }
    let (wanted, limit) = match token.role {
        TokenRole::Client(number) => (Wanted::Client(number), shared.about.clients),
        TokenRole::Holder(number) => (Wanted::Holder(number), u64::from(shared.about.holders) + 1),
    };
    let channel = wire::fixed(&request.channel);
    if matches!(wanted, Wanted::Holder(_)) && channel.is_none() {
        return Err(Status::invalid_argument("a key holder has a channel key of 32 bytes"));
    }
    let enrolment =
        Enrolment { nonce: token.nonce, wanted, identity, channel, samples: None, name: request.name.clone(), limit };
    let enrolled = match shared.store.enrol(&enrolment) {
        Ok(enrolled) => enrolled,
        Err(e @ (StoreError::Full { .. } | StoreError::Busy { .. } | StoreError::Io { .. })) => return Err(e.into()),
        Err(e) => return refuse("token", Status::permission_denied(e.to_string())),
    };
    let role = match wanted {
        Wanted::Client(_) => Role::Client(enrolled.number),
        Wanted::Holder(_) => Role::Holder(enrolled.number as u16),
    };
    shared.enter(NewParty { role, identity, channel, samples: None, name: request.name.clone() })?;
    certificate(shared, role, &identity)
}

/// Whether the holder of the key has signed the token.
fn proves(identity: &[u8; 32], token: &str, proof: &[u8]) -> bool {
    let (domain, proof) = (enrolment_domain(), wire::fixed(proof));
    let roster = Roster::new([(domain.client, *identity)]);
    proof.is_some_and(|proof| roster.is_ok_and(|roster| roster.verify(&domain, token.as_bytes(), &proof).is_ok()))
}

/// A certificate for a party that has its place.
pub(super) fn certificate(shared: &Shared, role: Role, identity: &[u8; 32]) -> Result<v1::EnrolResponse, Status> {
    let Some(authority) = &shared.authority else {
        return Err(Status::failed_precondition("this server has no authority's key and renews no certificate"));
    };
    let certificate =
        authority.issue(role, identity, &[], DAYS).map_err(|e| Status::internal(format!("no certificate: {e}")))?;
    Ok(v1::EnrolResponse { certificate, authority: authority.pem(), role: role.to_string() })
}

/// Gives a party its place that shows a certificate of the authority for it.
pub(super) fn admit(shared: &Shared, party: &NewParty) -> Result<(), Status> {
    let (number, place) = match party.role {
        Role::Client(number) => (number, shared.about.clients),
        Role::Holder(number) => (u64::from(number), u64::from(shared.about.holders) + 1),
        Role::Server => return Err(Status::permission_denied("a server's certificate is no party's")),
    };
    if number >= place || (matches!(party.role, Role::Holder(0))) {
        let message =
            format!("{} has no place: {} clients, {} holders", party.role, shared.about.clients, shared.about.holders);
        return Err(Status::permission_denied(message));
    }
    if matches!(party.role, Role::Holder(_)) && party.channel.is_none() {
        return Err(Status::invalid_argument("a key holder has a channel key of 32 bytes"));
    }
    if party.name.len() > NAME {
        return Err(Status::invalid_argument(format!("a name has at most {NAME} bytes")));
    }
    match shared.store.add_party(party) {
        Ok(()) => Ok(shared.enter(party.clone())?),
        Err(e @ (StoreError::NumberTaken { .. } | StoreError::IdentityTaken { .. })) => {
            Err(Status::permission_denied(e.to_string()))
        }
        Err(e) => Err(e.into()),
    }
}
