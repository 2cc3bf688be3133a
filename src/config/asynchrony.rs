//! Rounds that do not wait, with the trace that a config names.

use std::path::Path;

use serde::Deserialize;

use super::{Config, ConfigError};
use crate::fl::asynchrony::Asynchrony;

/// A row of a trace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    client: u64,
    duration: f64,
}

/// The rules of a config; a trace is read from `base`.
pub(super) fn build(config: &Config, clients: u64, base: &Path) -> Result<Option<Asynchrony>, ConfigError> {
    let Some(rules) = &config.asynchrony else { return Ok(None) };
    let working = config.cohort as u64;
    if config.cohort.fract() != 0.0 {
        return Err(ConfigError::Invalid {
            name: "cohort",
            expected: "a whole number of clients that work at a time, beside `asynchrony`".into(),
            found: config.cohort.to_string(),
        });
    }
    if rules.agent && config.dropout_rate > 0.0 {
        return Err(ConfigError::Invalid {
            name: "dropout_rate",
            expected: "0 beside `asynchrony.agent`: updates are late there (`asynchrony.delays`), none is lost".into(),
            found: config.dropout_rate.to_string(),
        });
    }
    let trace = match rules.trace() {
        Some(file) => read(&base.join(file), clients)?,
        None => Vec::new(),
    };
    Ok(Some(rules.build(clients, working, trace)?))
}

/// The durations of a trace, one list a client, in the order of the file.
fn read(path: &Path, clients: u64) -> Result<Vec<Vec<f64>>, ConfigError> {
    let bad = |message: String| ConfigError::Parse { origin: path.display().to_string(), message, hint: String::new() };
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
    let mut lists = vec![Vec::new(); clients as usize];
    for (i, row) in csv::Reader::from_reader(&bytes[..]).deserialize::<Row>().enumerate() {
        let row = row.map_err(|e| bad(format!("row {}: {e}; expected the columns client,duration", i + 1)))?;
        let list = lists.get_mut(row.client as usize);
        let named = || format!("row {}: client {}, expected 0 to {}", i + 1, row.client, clients.saturating_sub(1));
        list.ok_or_else(|| bad(named()))?.push(row.duration);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_and_its_faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.csv");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path, 2).map_err(|e| e.to_string())
        };
        assert_eq!(of("client,duration\n1,2.5\n0,1\n1,0.5\n").unwrap(), [vec![1.0], vec![2.5, 0.5]]);
        for (text, what) in [
            ("client,duration\n2,1\n", "client 2"),
            ("client,duration\n0,soon\n", "row 1"),
            ("who,duration\n0,1\n", "row 1"),
            ("client,duration\n-1,1\n", "row 1"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(what) && error.contains("trace.csv"), "{error}");
        }
        assert!(matches!(read(&folder.path().join("none"), 2), Err(ConfigError::Io { .. })));
    }
}
