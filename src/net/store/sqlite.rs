//! The store in one SQLite file: write-ahead log, synced at every commit, one writer and any number of readers.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, Transaction, TransactionBehavior};

use super::StoreError;
use super::schema::migrate;
use super::sql::{Engine, Fence, Row, Sql, Value};

/// `veil`: what the file says it is, in its header.
const APPLICATION_ID: i32 = 0x7665_696c;
/// How long another process is waited for, seconds.
const PATIENCE: u64 = 10;
/// Idle connections for reading that are kept.
const IDLE: usize = 8;
/// Up to this many bytes, a file's indexes are compared with its tables when it is opened. An index that misses a row
/// would let a message in twice.
const THOROUGH: i64 = 256 << 20;
/// An extended code of SQLite: the shared index of the log cannot grow, which a full disk does.
const IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    place: String,
    fence: Fence,
    // Closed before the writer, which tidies the log up when it is the last.
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens the file, or makes it, readable by its owner alone. The folder must be there.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] for another program's file, [`StoreError::Newer`], [`StoreError::Corrupt`] for one whose
    /// structure is damaged, [`StoreError::Full`], [`StoreError::Busy`], [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        create(path, &place)?;
        let mut writer = connect(path, &place, false)?;
        let since = Instant::now();
        loop {
            match prepare(&mut writer, &place) {
                Ok(()) => break,
                // Of two that make the log at once SQLite sends one away at once: both would wait for each other.
                Err(Problem::Sqlite(error)) if is_busy(&error) && since.elapsed().as_secs() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(Problem::Store(error)) => return Err(error),
                Err(Problem::Sqlite(error)) => return Err(opening_failure(path, &place, error)),
            }
        }
        let (writer, readers) = (Mutex::new(writer), Mutex::new(Vec::new()));
        Ok(Self { path: path.to_path_buf(), place, fence: Fence::default(), writer, readers })
    }

    /// Closes the store, so that it is one file without a log beside it until it is opened again. Nobody else may have
    /// it open.
    ///
    /// # Errors
    /// Those of the database and of the file.
    pub fn into_one_file(self) -> Result<(), StoreError> {
        let Self { path, place, readers, writer, .. } = self;
        drop(readers);
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        one_file(writer, &path, &place)
    }

    /// A connection for reading, used by one caller.
    fn reader(&self) -> Result<Connection, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| connect(&self.path, &self.place, true), Ok)
    }

    /// Keeps a connection for the next reader.
    fn keep(&self, reader: Connection) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE {
            readers.push(reader);
        }
    }
}

/// Makes an empty file for its owner alone, unless there is one. The log and its index get its permissions.
fn create(path: &Path, place: &str) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let made = options.open(path).and_then(|file| file.sync_all());
    match made {
        Ok(()) => crate::files::sync_folder_of(path).map_err(|error| StoreError::Io {
            action: "create",
            place: place.to_owned(),
            source: Box::new(error),
        }),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::StorageFull => Err(StoreError::Full { place: place.to_owned() }),
        Err(error) => Err(StoreError::Io { action: "create", place: place.to_owned(), source: Box::new(error) }),
    }
}

/// Ends the log of a database that nobody else has open, and makes the file and its name durable.
fn one_file(connection: Connection, path: &Path, place: &str) -> Result<(), StoreError> {
    let ended = connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()));
    ended.map_err(|error| failure(place, "finish", error))?;
    drop(connection);
    let failed = |source| StoreError::Io { action: "finish", place: place.to_owned(), source };
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|error| failed(error.into()))?;
    crate::files::sync_folder_of(path).map_err(|error| failed(error.into()))
}

fn connect(path: &Path, place: &str, read_only: bool) -> Result<Connection, StoreError> {
    let access = if read_only { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(PATIENCE))?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(connection)
    };
    open().map_err(|error| failure(place, "open", error))
}

/// Why a file cannot be opened, while it is not yet known whose it is.
enum Problem {
    Store(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Checks whose file it is and that it is whole, sets what a connection for writing needs, and brings the schema up
/// to date.
fn prepare(connection: &mut Connection, place: &str) -> Result<(), Problem> {
    // In one transaction: another process may be making the schema between two looks.
    let look = connection.transaction()?;
    let fresh = is_fresh(&look, place)?;
    look.finish()?;
    if !fresh {
        let (pages, size) = (pragma(connection, "page_count")?, pragma(connection, "page_size")?);
        let small = pages.saturating_mul(size) <= THOROUGH;
        let problems = structure(connection, if small { "integrity_check" } else { "quick_check" })?;
        if let Some(detail) = problems.into_iter().next() {
            return Err(Problem::Store(StoreError::Corrupt { place: place.to_owned(), detail }));
        }
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let source = format!("its journal is `{mode}`, and this file system cannot share a write-ahead log").into();
        return Err(Problem::Store(StoreError::Io { action: "use", place: place.to_owned(), source }));
    }
    // FULL syncs the log at every commit: what was acknowledged survives a power cut. Payloads that are dropped are
    // overwritten.
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, now that no other process can be doing the same.
    let fresh = is_fresh(&transaction, place)?;
    if fresh {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    migrate(&mut InTransaction { place, transaction: &transaction }, fresh).map_err(Problem::Store)?;
    Ok(transaction.commit()?)
}

/// A number that SQLite knows of a file.
fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

/// Whether nothing is in the file yet; an error if it is another program's.
fn is_fresh(connection: &Connection, place: &str) -> Result<bool, Problem> {
    // The query comes first: a pragma alone would not hold the state that it saw.
    let objects: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    match (id, objects) {
        (APPLICATION_ID, 1..) => Ok(false),
        (0, 0) => Ok(true),
        (id, objects) => {
            let detail = format!(
                "its header has application id {id}, not {APPLICATION_ID}, and it has {objects} tables and indexes"
            );
            Err(Problem::Store(StoreError::Foreign { place: place.to_owned(), detail }))
        }
    }
}

/// What SQLite finds wrong: `quick_check` reads every page once, `integrity_check` compares the indexes as well.
fn structure(connection: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA {check}(16)"))?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>();
    let found = match found {
        Err(error) if is_damage(&error) => vec![error.to_string()],
        other => other?,
    };
    Ok(found.into_iter().filter(|line| line != "ok").map(|line| name_tree(connection, &line)).collect())
}

/// Adds the name of the table to what SQLite says of a tree: `Tree 12 page 40 cell 3: ...`.
fn name_tree(connection: &Connection, line: &str) -> String {
    let line = line.trim().trim_start_matches("*** in database main ***").trim();
    let root = line.strip_prefix("Tree ").and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse::<i64>().ok());
    let name = root.and_then(|root| {
        let query = "SELECT type || ' ' || name FROM sqlite_schema WHERE rootpage = ?1";
        connection.query_row(query, [root], |row| row.get::<_, String>(0)).ok()
    });
    match name {
        Some(name) => format!("{name}: {line}"),
        None => line.to_owned(),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::Utf8Error(..))
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What went wrong before it was known that the file is ours: one without our mark is somebody else's.
fn opening_failure(path: &Path, place: &str, error: rusqlite::Error) -> StoreError {
    let mut mark = [0; 72];
    let header = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut mark));
    let ours = header.is_ok() && mark[68..] == APPLICATION_ID.to_be_bytes();
    if is_damage(&error) && !ours {
        return StoreError::Foreign { place: place.to_owned(), detail: error.to_string() };
    }
    failure(place, "open", error)
}

/// What SQLite says, as the store says it.
fn failure(place: &str, action: &'static str, error: rusqlite::Error) -> StoreError {
    let place = place.to_owned();
    let extended = error.sqlite_error().map_or(0, |e| e.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { place },
        _ if extended == IOERR_SHMSIZE => StoreError::Full { place },
        _ if is_damage(&error) => StoreError::Corrupt { place, detail: error.to_string() },
        _ if is_busy(&error) => StoreError::Busy { place, seconds: PATIENCE },
        _ => StoreError::Io { action, place, source: Box::new(error) },
    }
}

/// [`Sql`] in a transaction.
struct InTransaction<'a> {
    place: &'a str,
    transaction: &'a Transaction<'a>,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Sql for InTransaction<'_> {
    fn place(&self) -> &str {
        self.place
    }

    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, StoreError> {
        let run = || self.transaction.prepare_cached(statement)?.execute(rusqlite::params_from_iter(values));
        run().map(|rows| rows as u64).map_err(|error| failure(self.place, "write", error))
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let run = || {
            let mut statement = self.transaction.prepare_cached(statement)?;
            let columns = statement.column_count();
            let mut rows = statement.query(rusqlite::params_from_iter(values))?;
            let mut out = Vec::new();
            while let Some(row) = rows.next()? {
                out.push((0..columns).map(|i| value(row.get_ref(i)?)).collect::<rusqlite::Result<Row>>()?);
            }
            Ok(out)
        };
        run().map_err(|error| failure(self.place, "read", error))
    }
}

fn value(value: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        // No column is one; a damaged one may be, and matches no hash.
        ValueRef::Real(_) => Value::Null,
        ValueRef::Text(_) => Value::Text(value.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    })
}

impl Engine for SqliteStore {
    fn place(&self) -> &str {
        &self.place
    }

    fn fence(&self) -> &Fence {
        &self.fence
    }

    fn read<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut reader = self.reader()?;
        let transaction = reader.transaction().map_err(|error| failure(&self.place, "read", error))?;
        let result = body(&mut InTransaction { place: &self.place, transaction: &transaction });
        drop(transaction);
        self.keep(reader);
        result
    }

    fn write<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| failure(&self.place, "write", error);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Dropped without a commit, a transaction is undone.
        let result = body(&mut InTransaction { place: &self.place, transaction: &transaction })?;
        transaction.commit().map_err(failed)?;
        Ok(result)
    }

    fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let reader = self.reader()?;
        let found = structure(&reader, "integrity_check").map_err(|error| failure(&self.place, "check", error));
        self.keep(reader);
        found
    }

    fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        let place = to.display().to_string();
        refuse_existing(to)?;
        create(to, &place)?;
        let reader = self.reader()?;
        let mut copy = connect(to, &place, false)?;
        let failed = |error| failure(&place, "copy the store to", error);
        // All pages in one step: one state of the database, and a log keeps no writer waiting for a reader.
        match Backup::new(&reader, &mut copy).and_then(|backup| backup.step(-1)).map_err(failed)? {
            StepResult::Done => {}
            _ => return Err(StoreError::Busy { place: self.place.clone(), seconds: PATIENCE }),
        }
        self.keep(reader);
        one_file(copy, to, &place)
    }
}

/// A copy replaces nothing.
pub(super) fn refuse_existing(to: &Path) -> Result<(), StoreError> {
    if !to.exists() {
        return Ok(());
    }
    let (place, source) = (to.display().to_string(), std::io::Error::from(ErrorKind::AlreadyExists).into());
    Err(StoreError::Io { action: "copy the store to", place, source })
}

#[cfg(test)]
mod tests;
