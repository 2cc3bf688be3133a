//! Messages as bytes.

use std::io::{BufRead, Read};

use serde::Deserialize;

use super::{StreamError, printable};

/// Version of the protocol.
pub(super) const VERSION: u32 = 1;

/// Most bytes of a line that a program writes: 64 KiB.
const MAX_LINE: u64 = 64 << 10;

/// The line of a message. Keys that are not known are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) veilsum: u32,
    pub(super) kind: String,
    pub(super) round: Option<u32>,
    pub(super) samples: Option<u64>,
    pub(super) message: Option<String>,
    #[serde(default)]
    bytes: u64,
}

/// A message of a program.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
}

/// Weights to train from.
pub(super) fn train(round: u32, file: &[u8]) -> Vec<u8> {
    let line = format!("{{\"veilsum\":{VERSION},\"kind\":\"train\",\"round\":{round},\"bytes\":{}}}\n", file.len());
    [line.as_bytes(), file].concat()
}

/// The end.
pub(super) fn bye() -> Vec<u8> {
    format!("{{\"veilsum\":{VERSION},\"kind\":\"bye\",\"bytes\":0}}\n").into_bytes()
}

/// Reads one message with `most_bytes` behind its line at most. Memory grows as bytes come, never by what is announced.
pub(super) fn read(from: &mut impl BufRead, most_bytes: u64) -> Result<Message, StreamError> {
    let mut line = Vec::new();
    from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(StreamError::Io)?;
    match line.pop() {
        None => return Err(StreamError::End),
        Some(b'\n') => {}
        Some(_) if line.len() as u64 + 1 == MAX_LINE => return Err(StreamError::Line { limit: MAX_LINE }),
        Some(_) => {
            let found = line.len() as u64 + 1;
            return Err(StreamError::Torn { what: "a line", expected: None, found });
        }
    }
    let header: Header = serde_json::from_slice(&line)
        .map_err(|source| StreamError::Header { line: printable(&String::from_utf8_lossy(&line)), source })?;
    let expected = header.bytes;
    if expected > most_bytes {
        return Err(StreamError::Bytes { kind: printable(&header.kind), found: expected, limit: most_bytes });
    }
    let mut body = Vec::new();
    let found = from.by_ref().take(expected).read_to_end(&mut body).map_err(StreamError::Io)? as u64;
    if found < expected {
        return Err(StreamError::Torn { what: "the bytes behind a line", expected: Some(expected), found });
    }
    Ok(Message { header, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(bytes: &[u8], most: u64) -> Result<Message, StreamError> {
        read(&mut &bytes[..], most)
    }

    #[test]
    fn a_message_ends_where_it_says() {
        let mut stream = &b"{\"veilsum\":1,\"kind\":\"update\",\"new\":[],\"round\":4,\"bytes\":3}\nabc{\"veilsum\":1,\"kind\":\"x\"}\n"[..];
        let first = read(&mut stream, 3).unwrap();
        assert_eq!(
            (first.header.kind.as_str(), first.header.round, first.body.as_slice()),
            ("update", Some(4), &b"abc"[..])
        );
        let second = read(&mut stream, 0).unwrap();
        assert_eq!((second.header.kind.as_str(), second.body.len()), ("x", 0));
        assert!(matches!(read(&mut stream, 0), Err(StreamError::End)));
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let huge = format!("{{\"veilsum\":1,\"kind\":\"update\",\"bytes\":{}}}\n", u64::MAX);
        assert!(matches!(given(huge.as_bytes(), 10), Err(StreamError::Bytes { found: u64::MAX, limit: 10, .. })));
        // Nothing of that size can be allocated: it is read as it comes.
        let torn = given(huge.as_bytes(), u64::MAX);
        assert!(matches!(torn, Err(StreamError::Torn { expected: Some(u64::MAX), found: 0, .. })));
        assert!(matches!(given(&vec![b'x'; 1 << 20], 10), Err(StreamError::Line { .. })));
        assert!(matches!(given(b"{\"veilsum\":1", 10), Err(StreamError::Torn { found: 12, .. })));
    }

    #[test]
    fn what_is_no_header_is_shown_without_control_characters() {
        for bad in ["hello\n", "\n", "[1]\n", "{\"veilsum\":1}\n", "{\"veilsum\":-1,\"kind\":\"x\"}\n", "\x1b[2J\n"] {
            let message = given(bad.as_bytes(), 10).unwrap_err().to_string();
            assert!(message.contains("log to stderr") && !message.contains('\x1b'), "{message}");
        }
        assert!(given(&[0xff, b'\n'], 0).is_err());
        let deep = format!("{}\n", "[".repeat(60_000));
        assert!(given(deep.as_bytes(), 0).is_err());
    }
}
