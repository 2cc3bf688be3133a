//! JSON lines: one record a line, appended and flushed, so that a killed run loses at most the line
//! that it was writing.
//!
//! JSON has no NaN and no infinity: `serde_json` writes both as `null`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ReportError;
use crate::files::write_atomic;

/// Appends records to a file.
#[derive(Debug)]
pub struct JsonlWriter {
    path: PathBuf,
    file: File,
}

impl JsonlWriter {
    /// A new, empty file; an old one of that name is emptied.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        let file = File::create(path).map_err(ReportError::io("create", path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Opens the file for a resumed run: lines for which `keep` holds stay as they are, byte for byte,
    /// and all others are dropped, atomically. A torn last line is dropped; an absent file is made.
    ///
    /// # Errors
    /// [`ReportError::Json`] with the line number if a line that is not the torn last one is no JSON,
    /// [`ReportError::Io`] if the file cannot be read or replaced. The file is unchanged then.
    pub fn open_truncated(path: &Path, keep: impl Fn(&Value) -> bool) -> Result<Self, ReportError> {
        let old = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::create(path),
            Err(e) => return Err(ReportError::io("read", path)(e)),
        };
        let mut kept = Vec::with_capacity(old.len());
        for (bytes, value) in complete_lines::<Value>(path, &old)? {
            if keep(&value) {
                kept.extend_from_slice(bytes);
                kept.push(b'\n');
            }
        }
        if kept != old {
            write_atomic(path, &kept)?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(ReportError::io("open", path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends one record as one line, handed to the operating system before the call returns: a killed
    /// process loses nothing, a power cut may lose what [`JsonlWriter::sync`] has not confirmed.
    ///
    /// # Errors
    /// [`ReportError::Record`] if the record has no JSON form (nothing is written then),
    /// [`ReportError::Io`] if the disk refuses.
    pub fn write<T: Serialize + ?Sized>(&mut self, record: &T) -> Result<(), ReportError> {
        let mut line =
            serde_json::to_vec(record).map_err(|source| ReportError::Record { path: self.path.clone(), source })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(ReportError::io("append to", &self.path))
    }

    /// Waits until all lines are on the disk; call it before a checkpoint that counts on them.
    ///
    /// # Errors
    /// [`ReportError::Io`] if the disk refuses.
    pub fn sync(&mut self) -> Result<(), ReportError> {
        self.file.sync_data().map_err(ReportError::io("sync", &self.path))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// All records of a file; use `T = serde_json::Value` for any JSON. Empty lines are skipped, and so is a
/// last line that is torn (no line feed, and not a whole record): a run may be writing it now, or was
/// killed while it did.
///
/// # Errors
/// [`ReportError::Json`] names the file and the line of the first record that is malformed or no `T`;
/// [`ReportError::Io`] if the file cannot be read.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    let bytes = std::fs::read(path).map_err(ReportError::io("read", path))?;
    Ok(complete_lines(path, &bytes)?.into_iter().map(|(_, record)| record).collect())
}

/// The lines with their records, without the empty ones and without a torn last one.
fn complete_lines<'a, T: DeserializeOwned>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], T)>, ReportError> {
    let mut lines = Vec::new();
    for (index, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
        let terminated = line.ends_with(b"\n");
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        if content.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(content) {
            Ok(record) => lines.push((content, record)),
            // A power cut can also leave a line of zero bytes; that is no JSON either.
            Err(_) if !terminated => break,
            Err(source) => return Err(ReportError::Json { path: path.to_path_buf(), line: index + 1, source }),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn round(value: &Value) -> u64 {
        value["round"].as_u64().unwrap_or(u64::MAX)
    }

    #[test]
    fn a_resumed_file_continues_as_if_undisturbed() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, resumed) = (folder.path().join("whole.jsonl"), folder.path().join("resumed.jsonl"));
        let record = |r: u64| json!({"round": r, "loss": 1.0 / (r as f64 + 3.0)});
        let mut writer = JsonlWriter::create(&whole).unwrap();
        (1..=9).for_each(|r| writer.write(&record(r)).unwrap());
        let mut writer = JsonlWriter::create(&resumed).unwrap();
        (1..=6).for_each(|r| writer.write(&record(r)).unwrap());
        writer.file.write_all(b"{\"round\":7,\"lo").unwrap();
        drop(writer);
        let mut writer = JsonlWriter::open_truncated(&resumed, |v| round(v) <= 4).unwrap();
        (5..=9).for_each(|r| writer.write(&record(r)).unwrap());
        writer.sync().unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&resumed).unwrap());
    }

    #[test]
    fn a_torn_line_is_dropped_and_a_whole_one_without_line_feed_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        std::fs::write(&path, "{\"round\":1}\n{\"round\":2,\"x\":\u{0}").unwrap();
        assert_eq!(read::<Value>(&path).unwrap(), [json!({"round": 1})]);
        std::fs::write(&path, "{\"round\":1}\n\n{\"round\":2}").unwrap();
        let mut writer = JsonlWriter::open_truncated(&path, |_| true).unwrap();
        writer.write(&json!({"round": 3})).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"round\":1}\n{\"round\":2}\n{\"round\":3}\n");
    }

    #[test]
    fn an_absent_file_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.jsonl");
        let writer = JsonlWriter::open_truncated(&path, |_| false).unwrap();
        assert_eq!(writer.path(), path);
        assert!(read::<Value>(&path).unwrap().is_empty());
    }

    #[test]
    fn errors_name_file_and_line_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.jsonl");
        let content = "{\"round\":1}\nnot json\n{\"round\":3}\n";
        std::fs::write(&path, content).unwrap();
        let message = read::<Value>(&path).unwrap_err().to_string();
        assert!(message.contains("bad.jsonl:2: "), "{message}");
        assert!(JsonlWriter::open_truncated(&path, |_| true).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        let absent = read::<Value>(&folder.path().join("absent.jsonl")).unwrap_err().to_string();
        assert!(absent.contains("absent.jsonl"), "{absent}");
    }

    #[test]
    fn a_typed_reader_says_which_line_has_another_shape() {
        #[derive(Debug, serde::Deserialize)]
        struct Row {
            round: u32,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        std::fs::write(&path, "{\"round\":1}\n{\"round\":\"two\"}\n").unwrap();
        assert!(read::<Row>(&path).unwrap_err().to_string().contains("m.jsonl:2: "));
        std::fs::write(&path, "{\"round\":1}\n").unwrap();
        assert_eq!(read::<Row>(&path).unwrap()[0].round, 1);
    }

    #[test]
    fn doubles_survive_the_trip_and_nan_becomes_null() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let values = [0.1 + 0.2, 1e-300, f64::MAX, 2.998_798_238_418_956_4];
        let mut writer = JsonlWriter::create(&path).unwrap();
        values.iter().for_each(|v| writer.write(v).unwrap());
        writer.write(&f64::NAN).unwrap();
        let back: Vec<Option<f64>> = read(&path).unwrap();
        assert_eq!(back, [Some(values[0]), Some(values[1]), Some(values[2]), Some(values[3]), None]);
    }
}
