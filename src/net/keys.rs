//! Who is who on the network: one Ed25519 key a party, a certificate that says its role, tokens that let it in.
//!
//! ```text
//! DIR/ca                       DIR/server, or the folder of a client or holder
//!   ca.key    0600               identity.key     0600   PKCS#8, the party's seed
//!   ca.pem                       secret.hex       0600   what its randomness is derived from
//!                                certificate.pem         issued by the authority for identity.key
//!                                ca.pem                  the authority that it trusts
//! ```
//! The key of a certificate **is** the signing identity of the party in the protocols, so that nobody has to be believed
//! about which client a public key belongs to: the authority has signed it. A role stands in one URI of the subject's
//! alternative names, `veilsum:client:17`.
//!
//! What this does not give: certificates are not revoked here, they expire; a store of parties that are shut out is the
//! server's. Whoever has `ca.key` can be anyone.

mod authority;
mod base64;
mod certificate;
mod error;
mod pair;
mod party;
mod pem;
mod role;
mod secret;
mod token;

pub(crate) use pair::Pair;
pub(crate) use party::Installed;

pub use authority::{Authority, MAX_DAYS, Validity};
pub use certificate::{AuthorityCertificate, Peer, date};
pub use error::{CertificateError, KeysError};
pub use party::{CERTIFICATE, IDENTITY, PartyKeys, Renewal};
pub use pem::request_key;
pub use role::{Role, RoleError};
pub use token::{Token, TokenError, TokenRole};

/// The present, in seconds since 1970; 0 where the clock stands before that.
#[must_use]
pub fn now() -> u64 {
    super::now().as_secs()
}

#[cfg(test)]
pub(crate) mod hostile;
