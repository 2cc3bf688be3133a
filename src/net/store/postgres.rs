//! The store in a PostgreSQL database: in its schema `veilsum`, one federation a database.
//!
//! A transaction that writes excludes other writers, as in SQLite, and is on the server's disk when it returns, whatever
//! the server's own setting. A connection that broke is made again at the next call.

pub mod address;

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use postgres::error::SqlState;
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};

use super::StoreError;
use super::schema::migrate;
use super::sql::{Engine, Fence, Row, Sql, Value};
use super::sqlite::{SqliteStore, refuse_existing};
use super::tables;
use address::Address;

/// How long another writer is waited for, seconds.
const PATIENCE: u64 = 10;
/// Idle connections for reading that are kept.
const IDLE: usize = 4;
/// What our schema says it is.
const COMMENT: &str = "the store of a veilsum federation";
/// Other openers wait for this while one makes the schema: `veil`.
const OPENING: &str = "SELECT pg_advisory_xact_lock(1986357612)";
/// Begins a transaction that sees one state.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Begins a transaction that excludes other writers; readers go on.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE meta IN SHARE ROW EXCLUSIVE MODE";

/// The store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    address: Address,
    fence: Fence,
    writer: Mutex<Option<Link>>,
    readers: Mutex<Vec<Link>>,
}

impl PostgresStore {
    /// Opens the database at a URL, and makes the schema if it is not there. See [`address`] for what a URL may say.
    ///
    /// # Errors
    /// [`StoreError::Address`], [`StoreError::Plaintext`]; [`StoreError::Foreign`] for another program's schema
    /// `veilsum`; [`StoreError::Newer`]; [`StoreError::Io`] where the server cannot be reached.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let mut link = Link::connect(&address)?;
        let failed = |error| failure(address.place(), "open", &error);
        link.client.batch_execute("BEGIN").map_err(failed)?;
        link.client.query(OPENING, &[]).map_err(failed)?;
        let fresh = link.prepare_schema(address.place())?;
        migrate(&mut InTransaction { place: address.place(), link: &mut link, failed: false }, fresh)?;
        link.client.batch_execute("COMMIT").map_err(failed)?;
        let (writer, readers) = (Mutex::new(Some(link)), Mutex::new(Vec::new()));
        Ok(Self { address, fence: Fence::default(), writer, readers })
    }

    /// Runs a transaction on a connection. It is given back only if it is in order: a server forgets the
    /// transaction of one that is closed.
    fn transact<T>(
        &self,
        idle: Option<Link>,
        begin: &str,
        body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>,
    ) -> (Result<T, StoreError>, Option<Link>) {
        let mut link = match self.begun(idle, begin) {
            Ok(link) => link,
            Err(error) => return (Err(error), None),
        };
        let mut sql = InTransaction { place: self.address.place(), link: &mut link, failed: false };
        let result = body(&mut sql);
        let broken = sql.failed;
        // After a statement that failed, COMMIT would undo everything and report no error.
        let end = if result.is_ok() && !broken { "COMMIT" } else { "ROLLBACK" };
        let ended = link.client.batch_execute(end);
        let ended = ended.map_err(|error| failure(self.address.place(), "commit to", &error));
        match (result, ended) {
            (Ok(_), Ok(())) if broken => {
                let source = "a statement of the transaction failed".into();
                let place = self.address.place().to_owned();
                (Err(StoreError::Io { action: "commit to", place, source }), Some(link))
            }
            (result, Ok(())) => (result, Some(link)),
            (Err(error), Err(_)) | (Ok(_), Err(error)) => (Err(error), None),
        }
    }

    /// A connection with a transaction begun. One that was idle may have died meanwhile: then a new one, once.
    fn begun(&self, idle: Option<Link>, begin: &str) -> Result<Link, StoreError> {
        let failed = |error| failure(self.address.place(), "use", &error);
        if let Some(mut link) = idle.filter(|link| !link.client.is_closed()) {
            match link.client.batch_execute(begin) {
                Ok(()) => return Ok(link),
                Err(error) if error.as_db_error().is_some() && !link.client.is_closed() => return Err(failed(error)),
                Err(_) => {}
            }
        }
        let mut link = Link::connect(&self.address)?;
        link.client.batch_execute(begin).map_err(failed)?;
        Ok(link)
    }
}

/// A connection, and the statements that it has prepared.
struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    fn connect(address: &Address) -> Result<Self, StoreError> {
        let mut client = address.connect().map_err(|error| failure(address.place(), "connect to", &error))?;
        let settings = format!(
            "SET search_path TO veilsum; SET synchronous_commit TO on; SET lock_timeout TO '{PATIENCE}s'; \
             SET client_min_messages TO warning"
        );
        client.batch_execute(&settings).map_err(|error| failure(address.place(), "use", &error))?;
        Ok(Self { client, statements: HashMap::new() })
    }

    /// Makes our schema if it is not there. True if it is empty.
    fn prepare_schema(&mut self, place: &str) -> Result<bool, StoreError> {
        let failed = |error| failure(place, "open", &error);
        let query = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'veilsum'";
        let Some(row) = self.client.query_opt(query, &[]).map_err(failed)? else {
            let make = format!("CREATE SCHEMA veilsum; COMMENT ON SCHEMA veilsum IS '{COMMENT}'");
            self.client.batch_execute(&make).map_err(failed)?;
            return Ok(true);
        };
        let comment: Option<String> = row.try_get(0).map_err(failed)?;
        if comment.as_deref() == Some(COMMENT) {
            return Ok(false);
        }
        let detail = format!("its schema `veilsum` has the comment {comment:?}, not `{COMMENT}`");
        Err(StoreError::Foreign { place: place.to_owned(), detail })
    }
}

/// [`Sql`] in a transaction.
struct InTransaction<'a> {
    place: &'a str,
    link: &'a mut Link,
    /// Whether a statement failed, after which the server takes no other.
    failed: bool,
}

impl InTransaction<'_> {
    /// Prepares a statement once a connection, in the server's dialect.
    fn prepare(&mut self, statement: &str) -> Result<Statement, postgres::Error> {
        if let Some(known) = self.link.statements.get(statement) {
            return Ok(known.clone());
        }
        let prepared = self.link.client.prepare(&dialect(statement))?;
        self.link.statements.insert(statement.to_owned(), prepared.clone());
        Ok(prepared)
    }

    fn run<T>(
        &mut self,
        action: &'static str,
        statement: &str,
        run: impl FnOnce(&mut Client, &Statement) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        let prepared = self.prepare(statement);
        prepared.and_then(|prepared| run(&mut self.link.client, &prepared)).map_err(|error| {
            self.failed = true;
            failure(self.place, action, &error)
        })
    }
}

/// A statement of SQLite's dialect in that of PostgreSQL. The store's statements have no question mark but for
/// parameters, and name types where they make tables alone.
fn dialect(statement: &str) -> String {
    let statement = statement.replace('?', "$");
    if !statement.starts_with("CREATE") {
        return statement;
    }
    statement.replace(" STRICT", "").replace(" INTEGER", " BIGINT").replace(" BLOB", " BYTEA")
}

/// Values as the client's library takes them.
fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) => value.to_sql(ty, out),
            Self::Text(text) => text.to_sql(ty, out),
            Self::Bytes(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INT8 || *ty == Type::TEXT || *ty == Type::BYTEA
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match *ty {
            Type::INT8 => i64::from_sql(ty, raw).map(Self::Int),
            Type::TEXT => String::from_sql(ty, raw).map(Self::Text),
            _ => Vec::from_sql(ty, raw).map(Self::Bytes),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        <Self as ToSql>::accepts(ty)
    }
}

impl Sql for InTransaction<'_> {
    fn place(&self) -> &str {
        self.place
    }

    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.run("write to", statement, |client, prepared| client.execute(prepared, &parameters(values)))
    }

    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.run("read from", statement, |client, prepared| {
            let rows = client.query(prepared, &parameters(values))?;
            rows.iter().map(|row| (0..row.len()).map(|i| row.try_get(i)).collect()).collect()
        })
    }
}

/// What the server says, as the store says it.
fn failure(place: &str, action: &'static str, error: &postgres::Error) -> StoreError {
    let place = place.to_owned();
    let Some(found) = error.as_db_error() else {
        // The text of the error itself is general; its cause says what happened.
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return StoreError::Io { action, place, source: format!("{error}{cause}").into() };
    };
    let detail = found.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let message = format!("{}{detail}", found.message());
    match found.code() {
        code if *code == SqlState::DISK_FULL => StoreError::Full { place },
        code if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            StoreError::Corrupt { place, detail: message }
        }
        code if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED => {
            StoreError::Busy { place, seconds: PATIENCE }
        }
        code => StoreError::Io { action, place, source: format!("{message} [SQLSTATE {}]", code.code()).into() },
    }
}

impl Engine for PostgresStore {
    fn place(&self) -> &str {
        self.address.place()
    }

    fn fence(&self) -> &Fence {
        &self.fence
    }

    fn read<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (result, link) = self.transact(idle, BEGIN_READ, body);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.extend(link);
        readers.truncate(IDLE);
        result
    }

    fn write<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = writer.take();
        let (result, link) = self.transact(idle, BEGIN_WRITE, body);
        *writer = link;
        result
    }

    /// PostgreSQL checks its pages itself where its data directory has checksums (`initdb -k`).
    fn integrity(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        refuse_existing(to)?;
        let copy = SqliteStore::open(to)?;
        self.read(|from| copy.write(|rows| tables::copy(from, rows)))?;
        copy.into_one_file()
    }
}

#[cfg(all(test, unix))]
mod tests;
