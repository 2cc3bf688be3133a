//! Tokens that let a party in once: signed by the authority, kept by nobody.
//!
//! ```text
//! "vst1." base64url( nonce [16] | kind u8 | numbered u8 | number u64 | expires u64 | authority [32] | signature [64] )
//! ```
//! with integers in little-endian order, kind 1 for a client and 2 for a holder. The signature is the authority's Ed25519
//! (strict verification) over `"veilsum token v1"` and all that stands before it. A certificate's signed part begins
//! with the byte 0x30, so that no signature of one is a signature of the other.
//!
//! Whoever has the text can use it. That it is used once is for the server's store to see to, by the nonce.

use ed25519_dalek::{Signature, VerifyingKey};
use zeroize::Zeroizing;

use super::base64::{Alphabet, decode, encode};
use super::certificate::{AuthorityCertificate, date};
use super::pair::Pair;
use super::role::Role;

const PREFIX: &str = "vst1.";
const DOMAIN: &[u8] = b"veilsum token v1";
const BODY: usize = 16 + 1 + 1 + 8 + 8 + 32;
const BYTES: usize = BODY + 64;
/// Characters of a token.
const CHARACTERS: usize = PREFIX.len() + (BYTES * 8).div_ceil(6);

/// Whom a token lets in; without a number the server gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenRole {
    /// A client.
    Client(Option<u64>),
    /// A key holder.
    Holder(Option<u16>),
}

impl TokenRole {
    /// Whether a party with this token may get a certificate for `role`.
    #[must_use]
    pub fn admits(&self, role: Role) -> bool {
        match (self, role) {
            (Self::Client(number), Role::Client(asked)) => number.is_none_or(|number| number == asked),
            (Self::Holder(number), Role::Holder(asked)) => number.is_none_or(|number| number == asked),
            _ => false,
        }
    }
}

impl std::fmt::Display for TokenRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(None) => f.write_str("client"),
            Self::Client(Some(number)) => Role::Client(*number).fmt(f),
            Self::Holder(None) => f.write_str("holder"),
            Self::Holder(Some(number)) => Role::Holder(*number).fmt(f),
        }
    }
}

/// What a token says. It is worth nothing without the signature, which only the text has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// A number that no other token has.
    pub nonce: [u8; 16],
    /// Whom it lets in.
    pub role: TokenRole,
    /// Last second at which it is good, since 1970.
    pub expires: u64,
    /// SHA-256 of the authority's certificate in DER.
    pub authority: [u8; 32],
}

/// Why a token is refused. The text is never repeated: it may be good elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Some other text.
    #[error("this is no enrolment token; one begins with {PREFIX} and has {CHARACTERS} characters")]
    Prefix,
    /// Cut off, or with something behind it.
    #[error("an enrolment token has {CHARACTERS} characters and this one {found}; was all of it copied?")]
    Length {
        /// Bytes of the text.
        found: usize,
    },
    /// A character that no token has there.
    #[error("the enrolment token has a wrong character at place {place}; was it copied as it was?")]
    Character {
        /// Its place, from 0.
        place: usize,
    },
    /// A kind of party that there is not, or a number that it cannot have.
    #[error("the enrolment token names no client and no holder")]
    Role,
    /// Made by somebody else's authority.
    #[error("the enrolment token is of the authority {found}, and here is {expected}")]
    OtherAuthority {
        /// The fingerprint in the token, in hex.
        found: String,
        /// The fingerprint of the authority that was asked, in hex.
        expected: String,
    },
    /// Changed, or made up.
    #[error("the enrolment token was not signed by the authority that it names, or was changed since")]
    Signature,
    /// Too late.
    #[error("the enrolment token expired at {}; the clock here says {}", date(*.expires), date(*.now))]
    Expired {
        /// When it ended, in seconds since 1970.
        expires: u64,
        /// The present.
        now: u64,
    },
}

impl Token {
    /// What a token says, **unchecked**: for a party that has no authority yet, and looks for the fingerprint in it.
    ///
    /// # Errors
    /// A text that is no token.
    pub fn peek(text: &str) -> Result<Self, TokenError> {
        Self::from_bytes(&*bytes(text)?)
    }

    /// Checks a token of `authority` at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// A text that is no token, one of another authority, a signature that does not hold, a time behind its last second.
    pub fn verify(text: &str, authority: &AuthorityCertificate, now: u64) -> Result<Self, TokenError> {
        let bytes = bytes(text)?;
        let token = Self::from_bytes(&bytes)?;
        if token.authority != authority.fingerprint {
            let (found, expected) = (hex::encode(token.authority), hex::encode(authority.fingerprint));
            return Err(TokenError::OtherAuthority { found, expected });
        }
        let (body, signature) = bytes.split_at(BODY);
        let key = VerifyingKey::from_bytes(&authority.key).map_err(|_| TokenError::Signature)?;
        let signature = Signature::from_slice(signature).map_err(|_| TokenError::Signature)?;
        key.verify_strict(&[DOMAIN, body].concat(), &signature).map_err(|_| TokenError::Signature)?;
        if now > token.expires {
            return Err(TokenError::Expired { expires: token.expires, now });
        }
        Ok(token)
    }

    /// The text, signed with the authority's key.
    pub(super) fn sign(&self, key: &Pair) -> Zeroizing<String> {
        let (kind, number) = match self.role {
            TokenRole::Client(number) => (1, number),
            TokenRole::Holder(number) => (2, number.map(u64::from)),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES));
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&[kind, u8::from(number.is_some())]);
        bytes.extend_from_slice(&number.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.expires.to_le_bytes());
        bytes.extend_from_slice(&self.authority);
        let signature = key.sign_bytes(&[DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&signature);
        Zeroizing::new(format!("{PREFIX}{}", *encode(&bytes, Alphabet::Url)))
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Result<Self, TokenError> {
        let (kind, numbered, number) = (bytes[16], bytes[17], integer(bytes, 18));
        let number = match numbered {
            0 if number == 0 => None,
            1 => Some(number),
            _ => return Err(TokenError::Role),
        };
        let role = match kind {
            1 => TokenRole::Client(number),
            2 => TokenRole::Holder(number.map(u16::try_from).transpose().map_err(|_| TokenError::Role)?),
            _ => return Err(TokenError::Role),
        };
        Ok(Self { nonce: array(bytes, 0), role, expires: integer(bytes, 26), authority: array(bytes, 34) })
    }
}

/// `N` bytes from `start`; the fields of a token lie within it.
fn array<const N: usize>(bytes: &[u8; BYTES], start: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[start + i])
}

fn integer(bytes: &[u8; BYTES], start: usize) -> u64 {
    u64::from_le_bytes(array(bytes, start))
}

fn bytes(text: &str) -> Result<Zeroizing<[u8; BYTES]>, TokenError> {
    let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
    let length = || TokenError::Length { found: text.len() };
    if text.len() != CHARACTERS {
        return Err(length());
    }
    let decoded = decode(body.as_bytes(), Alphabet::Url);
    let decoded = decoded.map_err(|place| TokenError::Character { place: PREFIX.len() + place })?;
    Ok(Zeroizing::new(decoded.as_slice().try_into().map_err(|_| length())?))
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Authority, Validity};
    use super::*;

    fn authority() -> Authority {
        Authority::in_memory("test", Validity { not_before: 1_000, not_after: 9_000_000_000 }).unwrap()
    }

    #[test]
    fn what_was_asked_for_is_in_it() {
        let authority = authority();
        let roles = [
            TokenRole::Client(None),
            TokenRole::Client(Some(0)),
            TokenRole::Client(Some(u64::MAX)),
            TokenRole::Holder(None),
            TokenRole::Holder(Some(u16::MAX)),
        ];
        for role in roles {
            let text = authority.token(role, 5_000).unwrap();
            assert_eq!(text.len(), CHARACTERS);
            let token = authority.verify_token(&text, 5_000).unwrap();
            assert_eq!((token.role, token.expires), (role, 5_000));
            assert_eq!(token.authority, authority.fingerprint());
            assert_eq!(Token::peek(&text), Ok(token.clone()));
            let another = authority.token(role, 5_000).unwrap();
            assert_ne!(Token::peek(&another).unwrap().nonce, token.nonce);
            assert_eq!(authority.verify_token(&text, 5_001), Err(TokenError::Expired { expires: 5_000, now: 5_001 }));
        }
    }

    #[test]
    fn every_flip_of_a_bit_is_refused() {
        let authority = authority();
        let text = authority.token(TokenRole::Client(Some(17)), 5_000).unwrap();
        let mut readable = 0;
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(bad) = String::from_utf8(bytes) else { continue };
            assert!(authority.verify_token(&bad, 1_000).is_err(), "bit {bit}");
            readable += usize::from(Token::peek(&bad).is_ok());
        }
        // Many flips give another well-formed token, so that the signature is what refuses them.
        assert!(readable > 300, "{readable}");
        for bit in 0..BYTES * 8 {
            let mut bytes = bytes(&text).unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bad = format!("{PREFIX}{}", *encode(&*bytes, Alphabet::Url));
            assert!(authority.verify_token(&bad, 1_000).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn each_reason_has_its_error() {
        let (authority, other) = (authority(), authority());
        let text = authority.token(TokenRole::Holder(None), 5_000).unwrap();
        assert!(matches!(other.verify_token(&text, 1_000), Err(TokenError::OtherAuthority { .. })));
        for cut in 0..text.len() {
            let expected = if cut < PREFIX.len() { TokenError::Prefix } else { TokenError::Length { found: cut } };
            assert_eq!(authority.verify_token(&text[..cut], 1_000), Err(expected));
        }
        assert_eq!(Token::peek(&format!("{}\n", *text)), Err(TokenError::Length { found: CHARACTERS + 1 }));
        assert_eq!(Token::peek(&format!("vst2.{}", &text[5..])), Err(TokenError::Prefix));
        let damaged = format!("{}!{}", &text[..50], &text[51..]);
        assert_eq!(Token::peek(&damaged), Err(TokenError::Character { place: 50 }));
        assert_eq!(Token::peek(&format!("vst1.{}", "é".repeat(87))), Err(TokenError::Character { place: 5 }));
        // The place of a later expiry under the old signature.
        let mut bytes = bytes(&text).unwrap();
        bytes[27] = 0xff;
        let later = format!("{PREFIX}{}", *encode(&*bytes, Alphabet::Url));
        assert_eq!(authority.verify_token(&later, 6_000), Err(TokenError::Signature));
        bytes[16] = 3;
        assert_eq!(Token::peek(&format!("{PREFIX}{}", *encode(&*bytes, Alphabet::Url))), Err(TokenError::Role));
    }

    #[test]
    fn a_token_admits_its_party_alone() {
        assert!(TokenRole::Client(None).admits(Role::Client(5)));
        assert!(TokenRole::Client(Some(5)).admits(Role::Client(5)));
        assert!(!TokenRole::Client(Some(5)).admits(Role::Client(6)));
        assert!(!TokenRole::Client(None).admits(Role::Holder(5)));
        assert!(TokenRole::Holder(Some(5)).admits(Role::Holder(5)));
        for token in [TokenRole::Client(None), TokenRole::Holder(None)] {
            assert!(!token.admits(Role::Server));
        }
    }
}
