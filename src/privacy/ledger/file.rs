//! The ledger as a file: locked by one process, appended, synced.
//!
//! Beside `LEDGER` lies `LEDGER.head`, one line of fixed length with the number of entries and the hash of the last. A
//! chain does not show that its end is missing; the head does. It is written after the entry, so that it may be behind
//! after a crash, and never ahead.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::book::Book;
use super::chain::{self, Chain, Entry};
use super::tab::Tab;
use super::{Body, LedgerError, Opening, Release};

/// A ledger that this process alone may append to.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    file: File,
    head: File,
    entries: u64,
    hash: String,
    book: Book,
}

/// What the head says.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    entries: u64,
    hash: String,
}

impl Head {
    /// Of the same length whatever the number, so that it is overwritten in place.
    fn line(&self) -> String {
        format!("{{\"entries\":{:>20},\"hash\":\"{}\"}}\n", self.entries, self.hash)
    }
}

/// A ledger as it was read.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Number of entries.
    pub entries: u64,
    /// Hash of the last; to be kept elsewhere by who wants to notice a forgery.
    pub hash: String,
    /// True if a line follows that was being written when its process died. Nothing was released for it.
    pub torn: bool,
    /// What the entries add up to.
    pub book: Book,
}

/// Reads a ledger and checks every entry, and that none is missing at the end.
///
/// # Errors
/// [`LedgerError::Damaged`] names the first bad entry; [`LedgerError::Io`].
pub fn check(path: &Path) -> Result<Checked, LedgerError> {
    let bytes = std::fs::read(path).map_err(io("read", path))?;
    let head_path = head_path(path);
    let head = std::fs::read_to_string(&head_path).map_err(io("read the ledger's head", &head_path))?;
    let (chain, book) = understand(path, &bytes, &head)?;
    Ok(Checked { entries: chain.entries.len() as u64, torn: chain.length < bytes.len() as u64, hash: chain.hash, book })
}

impl LedgerFile {
    /// Opens a ledger, or begins an empty one where there is none. What a dying process left of a line is removed:
    /// nothing was released for it.
    ///
    /// # Errors
    /// [`LedgerError::Busy`], [`LedgerError::Damaged`], [`LedgerError::Io`]; the file is unchanged then.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path).map_err(io("open", path))
        };
        let mut file = open(path)?;
        file.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => LedgerError::Busy(path.to_owned()),
            std::fs::TryLockError::Error(source) => io("lock", path)(source),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read", path))?;
        let head_path = head_path(path);
        let text = match std::fs::read_to_string(&head_path) {
            // A ledger begins with its head.
            Err(e) if e.kind() == ErrorKind::NotFound && bytes.is_empty() => {
                Head { entries: 0, hash: chain::START.to_owned() }.line()
            }
            found => found.map_err(io("read the ledger's head", &head_path))?,
        };
        let (chain, book) = understand(path, &bytes, &text)?;
        if chain.length < bytes.len() as u64 {
            file.set_len(chain.length).and_then(|()| file.sync_all()).map_err(io("cut the torn last line of", path))?;
        }
        file.seek(SeekFrom::Start(chain.length)).map_err(io("append to", path))?;
        let entries = chain.entries.len() as u64;
        let mut ledger = Self { path: path.to_owned(), file, head: open(&head_path)?, entries, hash: chain.hash, book };
        ledger.write_head()?;
        // A new file's name has to survive as well.
        ledger.head.sync_all().map_err(io("sync", &head_path))?;
        ledger.file.sync_all().map_err(io("sync", path))?;
        crate::files::sync_folder_of(path).map_err(|e| LedgerError::Io {
            action: e.action,
            path: e.path,
            source: e.source,
        })?;
        Ok(ledger)
    }

    /// What the entries add up to.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// Enters a principal; durable on return.
    ///
    /// # Errors
    /// [`LedgerError::Opened`], [`LedgerError::Privacy`] for a delta, a limit or a name that cannot be, [`LedgerError::Io`].
    pub fn enter(&mut self, opening: Opening) -> Result<(), LedgerError> {
        self.book.check_opening(&opening)?;
        self.append(Body::Open(opening))
    }

    /// Charges a release to `tab`; durable on return, and only then may the release be made. Free if it is on record.
    ///
    /// # Errors
    /// [`LedgerError::Overspent`], [`LedgerError::Reused`], [`LedgerError::Io`]: nothing may be released.
    pub fn charge(&mut self, tab: &mut Tab, release: Release) -> Result<(), LedgerError> {
        if tab.has(&release)? {
            return Ok(());
        }
        let charge = tab.charge(release)?;
        self.append(Body::Charge(Box::new(charge)))
    }

    fn append(&mut self, body: Body) -> Result<(), LedgerError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        let entry = Entry { entry: self.entries, previous: self.hash.clone(), time, body };
        let (line, hash) = chain::line(&entry).map_err(|e| io("write an entry of", &self.path)(e.into()))?;
        self.file.write_all(line.as_bytes()).map_err(io("append to", &self.path))?;
        self.file.sync_data().map_err(io("sync", &self.path))?;
        self.book.add(&entry.body)?;
        (self.entries, self.hash) = (self.entries + 1, hash);
        self.write_head()
    }

    fn write_head(&mut self) -> Result<(), LedgerError> {
        let line = Head { entries: self.entries, hash: self.hash.clone() }.line();
        let written = self.head.rewind().and_then(|()| self.head.write_all(line.as_bytes()));
        written.map_err(io("write the head of", &self.path))
    }
}

/// The chain of a ledger and what it adds up to.
fn understand(path: &Path, bytes: &[u8], head: &str) -> Result<(Chain, Book), LedgerError> {
    let damaged = |entry, problem: String| LedgerError::Damaged { path: path.to_owned(), entry, problem };
    let chain = chain::read(bytes).map_err(|broken| damaged(broken.entry, broken.problem))?;
    let head: Head = serde_json::from_str(head).map_err(|e| LedgerError::Io {
        action: "understand the head of",
        path: path.to_owned(),
        source: e.into(),
    })?;
    let present = chain.entries.len() as u64;
    if head.entries > present {
        let problem = format!("is missing: the ledger had {} entries, {present} are left", head.entries);
        return Err(damaged(present, problem));
    }
    // What the entry that the head knows was followed by, or the end.
    let at = chain.entries.get(head.entries as usize).map_or(&chain.hash, |next| &next.previous);
    if *at != head.hash {
        let problem = "is not the one that the head names: the ledger was replaced by another".to_owned();
        return Err(damaged(head.entries.saturating_sub(1), problem));
    }
    let book = Book::of(&chain.entries).map_err(|(entry, problem)| damaged(entry, problem))?;
    Ok((chain, book))
}

fn head_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".head");
    name.into()
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LedgerError {
    move |source| LedgerError::Io { action, path: path.to_owned(), source }
}
