//! The chain: each line ends with a SHA-256 over itself and, through the field `previous`, over all lines before it.
//!
//! ```text
//! {"entry":1,"previous":"<hash of line 0>","time":..,"kind":"charge",..,"hash":"<SHA-256 of this line up to here>"}
//! ```
//!
//! The hash is over the bytes of the line before `,"hash":`, after a domain tag, so that no rule for the order of fields or
//! the writing of numbers is needed to check it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Body;

/// `previous` of the first entry.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const DOMAIN: &[u8] = b"veilsum ledger v1\n";
const FIELD: &str = ",\"hash\":\"";
/// Of a SHA-256, in hexadecimal digits.
const DIGITS: usize = 64;

/// An entry as it stands in the file, without its hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 0.
    pub entry: u64,
    /// The hash of the line before.
    pub previous: String,
    /// When it was written, in seconds since 1970 (by the clock of the machine: for people, not part of any rule).
    pub time: u64,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What the lines of a file say, and where the chain stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// All entries, in order.
    pub entries: Vec<Entry>,
    /// Hash of the last line; [`START`] if there is none.
    pub hash: String,
    /// Bytes of the whole lines: what follows is a line that was being written when the process died.
    pub length: u64,
}

/// The first entry that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub entry: u64,
    /// What is wrong, after "entry N".
    pub problem: String,
}

/// The line of an entry, with its hash and its line feed, and the hash.
///
/// # Errors
/// That of the serializer.
pub fn line(entry: &Entry) -> Result<(String, String), serde_json::Error> {
    let mut text = serde_json::to_string(entry)?;
    // The object is closed again behind the hash.
    text.pop();
    let hash = digest(text.as_bytes());
    text.push_str(FIELD);
    text.push_str(&hash);
    text.push_str("\"}\n");
    Ok((text, hash))
}

/// Reads and checks all whole lines.
///
/// # Errors
/// The first line that is no entry, has another number, does not follow the line before it, or has another hash than its
/// text.
pub fn read(bytes: &[u8]) -> Result<Chain, Broken> {
    let mut chain = Chain { entries: Vec::new(), hash: START.to_owned(), length: 0 };
    for raw in bytes.split_inclusive(|&b| b == b'\n') {
        let Some(content) = raw.strip_suffix(b"\n") else { break };
        let entry = chain.entries.len() as u64;
        let (found, hash) =
            check(content, entry, &chain.hash).map_err(|problem| Broken { entry, problem: problem.to_owned() })?;
        chain.entries.push(found);
        chain.hash = hash;
        chain.length += raw.len() as u64;
    }
    Ok(chain)
}

fn check(content: &[u8], number: u64, previous: &str) -> Result<(Entry, String), &'static str> {
    let text = std::str::from_utf8(content).map_err(|_| "is no text (UTF-8)")?;
    let (sealed, hash) = split(text).ok_or("does not end with a hash: it is cut or overwritten")?;
    if digest(sealed.as_bytes()) != hash {
        return Err("was changed: its text does not have its hash");
    }
    let entry: Entry = serde_json::from_str(text).map_err(|_| "is no entry that this version of veilsum knows")?;
    if entry.entry != number {
        return Err("has another number: entries before it were removed or inserted");
    }
    if entry.previous != previous {
        return Err("does not follow the entry before it: that one was changed, removed or inserted");
    }
    Ok((entry, hash.to_owned()))
}

/// The text before the hash, and the hash.
fn split(text: &str) -> Option<(&str, &str)> {
    let (sealed, rest) = text.rsplit_once(FIELD)?;
    let hash = rest.strip_suffix("\"}")?;
    (hash.len() == DIGITS).then_some((sealed, hash))
}

fn digest(sealed: &[u8]) -> String {
    hex::encode(Sha256::new().chain_update(DOMAIN).chain_update(sealed).finalize())
}

#[cfg(test)]
mod tests {
    use super::super::Opening;
    use super::*;

    fn lines(count: u64) -> Vec<String> {
        let mut previous = START.to_owned();
        let next = |entry| {
            let opening = Opening { principal: format!("p{entry},\"hash\":\"x"), delta: 1e-5, limit: None };
            let (text, hash) =
                line(&Entry { entry, previous: previous.clone(), time: 7, body: Body::Open(opening) }).unwrap();
            previous = hash;
            text
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let text = lines(5).concat();
        let chain = read(text.as_bytes()).unwrap();
        assert_eq!((chain.entries.len(), chain.length), (5, text.len() as u64));
        assert!(text.ends_with(&format!("{}\"}}\n", chain.hash)));
        assert_eq!(read(b"").unwrap().hash, START);
        // A line that a dying process left: not an entry, not an error.
        let torn = read(&text.as_bytes()[..text.len() - 1]).unwrap();
        assert_eq!(torn.entries.len(), 4);
    }

    #[test]
    fn every_changed_byte_is_found_in_its_entry() {
        let all = lines(4);
        let start = all[0].len() + all[1].len();
        let text = all.concat().into_bytes();
        for i in start..start + all[2].len() {
            let mut bad = text.clone();
            bad[i] ^= 1;
            let broken = read(&bad).unwrap_err();
            // A line feed that is gone joins two lines.
            assert_eq!(broken.entry, 2, "byte {i}: {broken:?}");
        }
    }

    #[test]
    fn removed_swapped_and_inserted_entries_are_named() {
        let all = lines(4);
        let case = |order: &[usize]| {
            let text: String = order.iter().map(|&i| all[i].as_str()).collect();
            read(text.as_bytes()).unwrap_err().entry
        };
        assert_eq!(case(&[0, 2, 3]), 1);
        assert_eq!(case(&[0, 1, 3, 2]), 2);
        assert_eq!(case(&[0, 0, 1]), 1);
        assert_eq!(case(&[1, 2]), 0);
        assert_eq!(read(b"{}\n").unwrap_err().entry, 0);
        assert_eq!(read(&[0xff, b'\n']).unwrap_err().entry, 0);
    }
}
