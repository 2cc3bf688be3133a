//! What people see: metric files, curves, the page of a run, tables and progress in the terminal.
//!
//! Knows nothing of learning or privacy: it takes names and numbers and draws them. Owner of:
//! [`jsonl`] (one record a line), [`svg`] (curves), [`html`] (the
//! self-contained page), [`terminal`] (tables), [`progress`] (the live line).

pub mod html;
pub mod jsonl;
pub mod progress;
pub mod svg;
pub mod terminal;

use std::path::{Path, PathBuf};

use crate::files::FileError;

/// What can go wrong while a report is written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a JSON-lines file that is not what the reader expects.
    #[error("{}:{line}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and in which column of that line.
        source: serde_json::Error,
    },
    /// A record that has no JSON form (a map whose keys are no strings).
    #[error("cannot write a record to {}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl ReportError {
    /// For `map_err` on an I/O result.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
