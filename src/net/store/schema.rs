//! The schema of the store, and how an older one becomes the newest.

use super::StoreError;
use super::sql::{Sql, Value};
use super::tables::META;

/// What makes each version from the one before it; a published one is never changed. In the dialect of SQLite.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, seal BLOB NOT NULL) STRICT",
    "CREATE TABLE party (kind INTEGER NOT NULL, number INTEGER NOT NULL, identity BLOB NOT NULL UNIQUE, channel BLOB, \
     samples INTEGER, name TEXT NOT NULL, revoked INTEGER NOT NULL, seal BLOB NOT NULL, \
     PRIMARY KEY (kind, number)) STRICT",
    "CREATE TABLE token (nonce BLOB NOT NULL PRIMARY KEY, kind INTEGER NOT NULL, number INTEGER NOT NULL, \
     seal BLOB NOT NULL, FOREIGN KEY (kind, number) REFERENCES party (kind, number)) STRICT",
    "CREATE TABLE attempt (round INTEGER NOT NULL, attempt INTEGER NOT NULL, input BLOB NOT NULL, \
     state INTEGER NOT NULL, dropped INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (round, attempt)) STRICT",
    "CREATE TABLE plan (round INTEGER NOT NULL, attempt INTEGER NOT NULL, plan BLOB NOT NULL, seal BLOB NOT NULL, \
     PRIMARY KEY (round, attempt), FOREIGN KEY (round, attempt) REFERENCES attempt (round, attempt)) STRICT",
    "CREATE TABLE entry (round INTEGER NOT NULL, attempt INTEGER NOT NULL, seq INTEGER NOT NULL, \
     previous BLOB NOT NULL, id BLOB NOT NULL, kind INTEGER NOT NULL, sender_kind INTEGER, sender INTEGER, \
     value INTEGER, place INTEGER, len INTEGER, sha BLOB, body BLOB, seal BLOB NOT NULL, \
     PRIMARY KEY (round, attempt, seq), UNIQUE (round, attempt, id), \
     FOREIGN KEY (round, attempt) REFERENCES attempt (round, attempt)) STRICT",
    "CREATE TABLE attempt_sum (round INTEGER NOT NULL, attempt INTEGER NOT NULL, place INTEGER NOT NULL, \
     len INTEGER NOT NULL, sha BLOB NOT NULL, body BLOB, seal BLOB NOT NULL, PRIMARY KEY (round, attempt), \
     FOREIGN KEY (round, attempt) REFERENCES attempt (round, attempt)) STRICT",
    "CREATE TABLE released (round INTEGER NOT NULL PRIMARY KEY, attempt INTEGER NOT NULL, record TEXT NOT NULL, \
     checkpoint BLOB, checkpoint_len INTEGER, seal BLOB NOT NULL, \
     FOREIGN KEY (round, attempt) REFERENCES attempt (round, attempt)) STRICT",
    "CREATE TABLE lease (id INTEGER NOT NULL PRIMARY KEY, owner TEXT NOT NULL, fence INTEGER NOT NULL, \
     until INTEGER NOT NULL, seal BLOB NOT NULL) STRICT",
]];

/// The version of the schema that this version of veilsum writes.
pub const VERSION: u64 = MIGRATIONS.len() as u64;

/// Where the version stands, in `meta`.
const NAME: &str = ".schema";

/// Makes an empty database (`fresh`) or one of an older version into one of the newest, in the transaction `sql`.
/// True if there was something to do.
///
/// # Errors
/// [`StoreError::Newer`]; [`StoreError::Corrupt`] for a version that is none; those of the database.
pub(super) fn migrate(sql: &mut dyn Sql, fresh: bool) -> Result<bool, StoreError> {
    migrate_by(sql, fresh, MIGRATIONS)
}

/// [`migrate`] by a list of migrations.
fn migrate_by(sql: &mut dyn Sql, fresh: bool, migrations: &[&[&str]]) -> Result<bool, StoreError> {
    let known = migrations.len() as u64;
    let found = if fresh { 0 } else { version(sql)? };
    if found > known {
        return Err(StoreError::Newer { place: sql.place().to_owned(), found, known });
    }
    let missing = migrations.iter().skip(usize::try_from(found).unwrap_or(usize::MAX));
    for statement in missing.flat_map(|steps| steps.iter()) {
        sql.execute(statement, &[])?;
    }
    if found < known {
        META.put(sql, vec![NAME.into(), Value::from(known.to_be_bytes().as_slice())])?;
    }
    Ok(found < known)
}

/// The version that a database says it has.
fn version(sql: &mut dyn Sql) -> Result<u64, StoreError> {
    let row = META.get(sql, &[NAME.into()])?;
    let value = row.map(|mut row| row.text().and_then(|_| row.bytes())).transpose()?;
    match value.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes) {
        Some(version) if version > 0 => Ok(version),
        // It is ours: whoever asks has looked at the mark that every store has.
        _ => {
            let detail = "table meta has no version of the schema".to_owned();
            Err(StoreError::Corrupt { place: sql.place().to_owned(), detail })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqliteStore;
    use super::super::sql::Engine;
    use super::*;

    #[test]
    fn an_older_schema_is_migrated_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).unwrap();
        let newer = [MIGRATIONS[0], &["CREATE TABLE added (n INTEGER NOT NULL) STRICT"]];
        assert!(store.write(|sql| migrate_by(sql, false, &newer)).unwrap());
        assert!(!store.write(|sql| migrate_by(sql, false, &newer)).unwrap());
        store.write(|sql| sql.execute("INSERT INTO added (n) VALUES (1)", &[])).unwrap();
        drop(store);
        let refused = SqliteStore::open(&path).map(|_| ()).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 2, known: 1, .. }), "{refused}");
    }

    #[test]
    fn a_migration_that_fails_leaves_the_older_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).unwrap();
        let broken: [&[&str]; 2] = [MIGRATIONS[0], &["CREATE TABLE added (n INTEGER NOT NULL) STRICT", "no statement"]];
        assert!(store.write(|sql| migrate_by(sql, false, &broken)).is_err());
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        assert!(store.read(|sql| sql.query("SELECT n FROM added", &[])).is_err());
    }
}
