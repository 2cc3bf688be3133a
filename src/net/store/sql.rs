//! What the store asks of a database: statements in transactions, and rows that carry a hash of their content.
//!
//! The logic of the store (`logic.rs`) is written once over this. A statement is in the dialect of SQLite, with
//! numbered parameters `?1`; PostgreSQL translates the few words in which it differs.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::StoreError;

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// `INTEGER`.
    Int(i64),
    /// `TEXT`.
    Text(String),
    /// `BLOB`.
    Bytes(Vec<u8>),
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<[u8; 32]> for Value {
    fn from(bytes: [u8; 32]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// A number of 64 bits, of which databases know the lower 63.
///
/// # Errors
/// [`StoreError::Range`] from `2^63` on.
pub fn number(what: &'static str, value: u64) -> Result<Value, StoreError> {
    i64::try_from(value).map(Value::Int).map_err(|_| StoreError::Range { what, value, limit: i64::MAX as u64 })
}

/// [`number`], or nothing.
///
/// # Errors
/// Those of [`number`].
pub fn optional(what: &'static str, value: Option<u64>) -> Result<Value, StoreError> {
    value.map_or(Ok(Value::Null), |value| number(what, value))
}

/// A text. PostgreSQL takes none with a zero in it, so that no store does.
///
/// # Errors
/// [`StoreError::Text`] for one with a zero.
pub fn text(what: &'static str, value: &str) -> Result<Value, StoreError> {
    if value.contains('\0') { Err(StoreError::Text { what }) } else { Ok(Value::from(value)) }
}

/// A row, in the order of the columns asked for.
pub type Row = Vec<Value>;

/// One transaction.
pub trait Sql {
    /// The database, for messages.
    fn place(&self) -> &str;

    /// Runs a statement; how many rows it changed.
    ///
    /// # Errors
    /// What the database says.
    fn execute(&mut self, statement: &str, values: &[Value]) -> Result<u64, StoreError>;

    /// Runs a query.
    ///
    /// # Errors
    /// What the database says.
    fn query(&mut self, statement: &str, values: &[Value]) -> Result<Vec<Row>, StoreError>;
}

/// A database that can run the store's logic.
pub trait Engine: Send + Sync {
    /// Where it is, for messages, without a password.
    fn place(&self) -> &str;

    /// The fencing number of this handle.
    fn fence(&self) -> &Fence;

    /// A transaction that changes nothing and sees one state.
    ///
    /// # Errors
    /// Those of `body` and of the database.
    fn read<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// A transaction that excludes other writers. Durable once this returns; undone where `body` fails.
    ///
    /// # Errors
    /// Those of `body` and of the database.
    fn write<T>(&self, body: impl FnOnce(&mut dyn Sql) -> Result<T, StoreError>) -> Result<T, StoreError>;

    /// What the database itself finds wrong with its structure; empty if nothing.
    ///
    /// # Errors
    /// Those of the database.
    fn integrity(&self) -> Result<Vec<String>, StoreError>;

    /// Copies one state of everything into a new SQLite file, which then lies there alone, without a log.
    ///
    /// # Errors
    /// Those of the database and of the file.
    fn snapshot(&self, to: &Path) -> Result<(), StoreError>;
}

/// The fencing number that a handle was given with its lease, if it ever asked for one.
#[derive(Debug, Default)]
pub struct Fence(Mutex<Option<u64>>);

impl Fence {
    /// The number.
    pub fn get(&self) -> Option<u64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces it.
    pub fn set(&self, fence: Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fence;
    }
}

/// A table whose rows carry a hash of their content, checked at every reading: a database notices damage of its
/// structure by itself, and damage of what it stores only this way.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns but for the last, `seal`; the key's come first, those outside the hash last.
    pub columns: &'static [&'static str],
    /// How many columns the key has.
    pub keys: usize,
    /// How many of the last columns are outside the hash: bodies, whose own hash is in another column.
    pub unsealed: usize,
}

impl Table {
    /// SHA-256 of the table's name and the sealed columns, each with its type and length.
    fn seal(&self, row: &[Value]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.name);
        for value in &row[..self.columns.len().min(row.len()).saturating_sub(self.unsealed)] {
            let (tag, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Int(value) => (1, &value.to_le_bytes()),
                Value::Text(text) => (2, text.as_bytes()),
                Value::Bytes(bytes) => (3, bytes),
            };
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    /// `a, b, seal`.
    fn list(&self) -> String {
        format!("{}, seal", self.columns.join(", "))
    }

    /// `INSERT INTO t (...) VALUES (?1, ...)`.
    fn insertion(&self) -> String {
        let places: Vec<String> = (1..=self.columns.len() + 1).map(|i| format!("?{i}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, self.list(), places.join(", "))
    }

    /// Adds a row; its seal.
    ///
    /// # Errors
    /// Those of the database.
    pub fn insert(&'static self, sql: &mut dyn Sql, mut row: Row) -> Result<[u8; 32], StoreError> {
        let seal = self.seal(&row);
        row.push(seal.into());
        sql.execute(&self.insertion(), &row)?;
        Ok(seal)
    }

    /// Adds a row, or replaces the one with its key.
    ///
    /// # Errors
    /// Those of the database.
    pub fn put(&'static self, sql: &mut dyn Sql, mut row: Row) -> Result<(), StoreError> {
        row.push(self.seal(&row).into());
        let rest = self.columns[self.keys..].iter().chain(&["seal"]).map(|c| format!("{c} = excluded.{c}"));
        let (keys, rest) = (self.columns[..self.keys].join(", "), rest.collect::<Vec<_>>().join(", "));
        sql.execute(&format!("{} ON CONFLICT ({keys}) DO UPDATE SET {rest}", self.insertion()), &row)?;
        Ok(())
    }

    /// The rows whose first columns have these values, ordered by key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a row that does not match its hash; those of the database.
    pub fn scan(&'static self, sql: &mut dyn Sql, first: &[Value]) -> Result<Vec<Fields>, StoreError> {
        let tests: Vec<String> = self.columns.iter().zip(1..=first.len()).map(|(c, i)| format!("{c} = ?{i}")).collect();
        let tests = if tests.is_empty() { String::new() } else { format!("WHERE {}", tests.join(" AND ")) };
        self.select(sql, &format!("{tests} ORDER BY {}", self.columns[..self.keys].join(", ")), first)
    }

    /// Up to `most` rows with keys above `after`, as they are, each with its hash.
    ///
    /// # Errors
    /// Those of [`Table::scan`].
    pub fn page(&'static self, sql: &mut dyn Sql, after: &[Value], most: u32) -> Result<Vec<Row>, StoreError> {
        let keys = self.columns[..self.keys].join(", ");
        let places: Vec<String> = (1..=after.len()).map(|i| format!("?{i}")).collect();
        let test = if after.is_empty() { String::new() } else { format!("WHERE ({keys}) > ({})", places.join(", ")) };
        let query = format!("SELECT {} FROM {} {test} ORDER BY {keys} LIMIT {most}", self.list(), self.name);
        let rows = sql.query(&query, after)?;
        match rows.iter().find(|row| row.last() != Some(&self.seal(row).into())) {
            Some(row) => Err(self.damaged(sql.place(), row, "does not match its hash")),
            None => Ok(rows),
        }
    }

    /// The row with this key.
    ///
    /// # Errors
    /// Those of [`Table::scan`].
    pub fn get(&'static self, sql: &mut dyn Sql, key: &[Value]) -> Result<Option<Fields>, StoreError> {
        Ok(self.scan(sql, key)?.pop())
    }

    /// The rows that a clause picks.
    ///
    /// # Errors
    /// Those of [`Table::scan`].
    pub fn select(&'static self, sql: &mut dyn Sql, clause: &str, values: &[Value]) -> Result<Vec<Fields>, StoreError> {
        let rows = sql.query(&format!("SELECT {} FROM {} {clause}", self.list(), self.name), values)?;
        let mut checked = Vec::with_capacity(rows.len());
        for mut row in rows {
            let seal = row.pop();
            if seal != Some(self.seal(&row).into()) {
                return Err(self.damaged(sql.place(), &row, "does not match its hash"));
            }
            let values = row.into_iter();
            checked.push(Fields { table: self, place: sql.place().to_owned(), seal: seal_of(seal), values });
        }
        Ok(checked)
    }

    /// Says which row is damaged, by its key.
    fn damaged(&self, place: &str, row: &[Value], problem: &str) -> StoreError {
        let key = self.columns.iter().zip(row).take(self.keys).map(|(column, value)| match value {
            Value::Null => format!("{column} missing"),
            Value::Int(value) => format!("{column} {value}"),
            Value::Text(text) => format!("{column} `{}`", text.escape_debug()),
            Value::Bytes(bytes) => format!("{column} {}", hex::encode(&bytes[..bytes.len().min(8)])),
        });
        let key: Vec<String> = key.collect();
        StoreError::Corrupt {
            place: place.to_owned(),
            detail: format!("the row {} of table {} {problem}", key.join(", "), self.name),
        }
    }
}

/// The last column of a row whose hash was right.
fn seal_of(value: Option<Value>) -> [u8; 32] {
    match value {
        Some(Value::Bytes(bytes)) => bytes.try_into().unwrap_or_default(),
        _ => [0; 32],
    }
}

/// A row that matches its hash, read column by column.
#[derive(Debug)]
pub struct Fields {
    table: &'static Table,
    place: String,
    /// The row's hash.
    pub seal: [u8; 32],
    values: std::vec::IntoIter<Value>,
}

impl Fields {
    /// The row is not what this version writes.
    pub fn wrong(&self, problem: &'static str) -> StoreError {
        let detail = format!("a row of table {} has {problem}", self.table.name);
        StoreError::Corrupt { place: self.place.clone(), detail }
    }

    /// A number, or none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn maybe<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        match self.values.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Int(value)) => T::try_from(value).map(Some).map_err(|_| self.wrong("a number out of range")),
            _ => Err(self.wrong("no number where one belongs")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn int<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        self.maybe()?.ok_or_else(|| self.wrong("no number where one belongs"))
    }

    /// Bytes, or none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn maybe_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.values.next() {
            Some(Value::Null) => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            _ => Err(self.wrong("no bytes where some belong")),
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.maybe_bytes()?.ok_or_else(|| self.wrong("no bytes where some belong"))
    }

    /// A hash or a public key, or none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn maybe_hash(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let bytes = self.maybe_bytes()?;
        bytes.map(|bytes| bytes.try_into().map_err(|_| self.wrong("a hash of another length than 32"))).transpose()
    }

    /// A hash or a public key.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn hash(&mut self) -> Result<[u8; 32], StoreError> {
        self.maybe_hash()?.ok_or_else(|| self.wrong("no hash where one belongs"))
    }

    /// A text.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for something else.
    pub fn text(&mut self) -> Result<String, StoreError> {
        match self.values.next() {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.wrong("no text where one belongs")),
        }
    }
}
