//! Hashes that a client has pinned.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A SHA-256 of something public: a certificate, a roster. As text `sha256:` and 64 hex digits; the prefix may be absent, and digits may
/// be in pairs with colons between them, as `openssl x509 -fingerprint -sha256` prints them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Fingerprint(pub [u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no SHA-256: 64 hex digits, with or without `sha256:` before them{}", others(self.alternatives))]
pub struct FingerprintError {
    found: String,
    /// Words that would have been right too.
    alternatives: &'static str,
}

fn others(alternatives: &str) -> String {
    if alternatives.is_empty() { String::new() } else { format!(", nor {alternatives}") }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let wrong = || FingerprintError { found: text.chars().take(100).collect(), alternatives: "" };
        let digits = match text.get(..7) {
            Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => &text[7..],
            _ => text,
        };
        let pairs: String = match digits.len() {
            64 => digits.to_owned(),
            95 if digits.bytes().skip(2).step_by(3).all(|c| c == b':') => digits.replace(':', ""),
            _ => return Err(wrong()),
        };
        let mut hash = [0; 32];
        hex::decode_to_slice(&pairs, &mut hash).map_err(|_| wrong())?;
        Ok(Self(hash))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Which roster is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum RosterPin {
    /// The first that is seen; clients may be added, the key of a known one must not change.
    First,
    /// Every one: the server is trusted with who is who.
    Any,
    /// The one with this hash.
    Pinned(Fingerprint),
}

impl TryFrom<String> for RosterPin {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        match text.as_str() {
            "first" => Ok(Self::First),
            "any" => Ok(Self::Any),
            other => {
                let pinned = other.parse().map(Self::Pinned);
                pinned.map_err(|e: FingerprintError| FingerprintError { alternatives: "`first`, nor `any`", ..e })
            }
        }
    }
}

impl From<RosterPin> for String {
    fn from(pin: RosterPin) -> Self {
        match pin {
            RosterPin::First => "first".into(),
            RosterPin::Any => "any".into(),
            RosterPin::Pinned(fingerprint) => fingerprint.to_string(),
        }
    }
}

/// The clients of a roster whose key is another one than this client has kept, ascending. New clients are none of them, nor are
/// clients that have left.
#[must_use]
pub fn changed_keys(kept: &BTreeMap<u64, [u8; 32]>, offered: &BTreeMap<u64, [u8; 32]>) -> Vec<u64> {
    let changed = |(client, key): (&u64, &[u8; 32])| kept.get(client).is_some_and(|old| old != key).then_some(*client);
    offered.iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tools_print_and_nothing_else() {
        let digits = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let pairs: Vec<String> =
            digits.as_bytes().chunks(2).map(|c| String::from_utf8_lossy(c).to_uppercase()).collect();
        let plain: Fingerprint = digits.parse().unwrap();
        assert_eq!(pairs.join(":").parse(), Ok(plain));
        assert_eq!(format!("SHA256:{digits}").parse(), Ok(plain));
        assert_eq!(plain.to_string().parse(), Ok(plain));
        for bad in ["", "sha256:", &digits[1..], &digits.replace('a', "g"), &pairs.join("-"), "é".repeat(32).as_str()]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
        let pairs_shifted = format!("{}:", &pairs.join(":")[..94]);
        assert!(pairs_shifted.parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_roster_is_pinned_by_a_hash_or_a_word() {
        assert_eq!(RosterPin::try_from("first".to_owned()), Ok(RosterPin::First));
        let message = RosterPin::try_from("frist".to_owned()).unwrap_err().to_string();
        assert!(message.contains("`first`") && message.contains("`any`"), "{message}");
    }

    #[test]
    fn only_a_known_client_with_another_key_is_changed() {
        let kept = BTreeMap::from([(1, [1; 32]), (2, [2; 32]), (3, [3; 32])]);
        let offered = BTreeMap::from([(1, [1; 32]), (2, [9; 32]), (4, [4; 32])]);
        assert_eq!(changed_keys(&kept, &offered), [2]);
    }
}
