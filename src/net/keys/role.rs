//! What a party is in a federation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What begins the URI of a role.
const SCHEME: &str = "veilsum:";

/// What a party is. As text, and in JSON: `server`, `client:17`, `holder:3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Role {
    /// The server.
    Server,
    /// A client, by its number.
    Client(u64),
    /// A key holder, by its number.
    Holder(u16),
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Neither the server nor a client or holder with a number.
    #[error("`{0}` is no role; a role is `server`, `client:17` or `holder:3`")]
    Unknown(String),
    /// A number that is too large, or not written as numbers are.
    #[error("`{text}` has no number of a {kind}: 0 to {most}, without sign and leading zeros")]
    Number {
        /// The text.
        text: String,
        /// What it is a number of.
        kind: &'static str,
        /// The largest.
        most: u64,
    },
}

impl Role {
    /// The URI in a certificate: `veilsum:client:17`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{SCHEME}{self}")
    }

    /// The role that a URI names; `None` for one that is not about roles.
    ///
    /// # Errors
    /// `veilsum:` with something behind it that is no role.
    pub fn from_uri(uri: &str) -> Result<Option<Self>, RoleError> {
        uri.strip_prefix(SCHEME).map(str::parse).transpose()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Client(number) => write!(f, "client:{number}"),
            Self::Holder(number) => write!(f, "holder:{number}"),
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text.split_once(':') {
            None if text == "server" => Ok(Self::Server),
            Some(("client", number)) => Ok(Self::Client(canonical(text, number, "client", u64::MAX)?)),
            Some(("holder", number)) => Ok(Self::Holder(canonical(text, number, "holder", u16::MAX)?)),
            _ => Err(RoleError::Unknown(shortened(text))),
        }
    }
}

/// A number that has one spelling: two texts never name the same party.
fn canonical<N>(text: &str, number: &str, kind: &'static str, most: N) -> Result<N, RoleError>
where
    N: FromStr + ToString + Into<u64>,
{
    match number.parse::<N>() {
        Ok(value) if value.to_string() == number => Ok(value),
        _ => Err(RoleError::Number { text: shortened(text), kind, most: most.into() }),
    }
}

/// Text from a stranger, for a message: one line of bounded length.
fn shortened(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

impl TryFrom<String> for Role {
    type Error = RoleError;

    fn try_from(text: String) -> Result<Self, RoleError> {
        text.parse()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_one_spelling() {
        for role in [Role::Server, Role::Client(0), Role::Client(u64::MAX), Role::Holder(3), Role::Holder(u16::MAX)] {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(Role::from_uri(&role.uri()), Ok(Some(role)));
            let json = serde_json::to_string(&role).unwrap();
            assert_eq!(json, format!("\"{role}\""));
            assert_eq!(serde_json::from_str::<Role>(&json).unwrap(), role);
        }
        for text in ["", "Server", "server:1", "client", "client:", "client:+1", "client:01", "client:-1", "client: 1"]
        {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
        for text in ["client:18446744073709551616", "holder:65536", "holder:3:4", "admin:1", "client:1\n"] {
            assert!(text.parse::<Role>().is_err(), "{text}");
            assert!(Role::from_uri(&format!("veilsum:{text}")).is_err(), "{text}");
        }
        assert_eq!(Role::from_uri("https://example.org"), Ok(None));
        assert!("x".repeat(10_000).parse::<Role>().unwrap_err().to_string().len() < 200);
    }
}
