//! What SQLite alone is tested for: crashes, damage, a full disk, files of others.

use std::io::Read;
use std::sync::Arc;

use super::super::check;
use super::super::small::Small;
use super::super::{AttemptState, Store};
use super::*;

#[test]
fn does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    check::run(&mut || {
        count += 1;
        let path = folder.path().join(format!("{count}.db"));
        Box::new(move || Arc::new(SqliteStore::open(&path).unwrap()))
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    check::survives_kill(&folder.path().join("s.db").display().to_string());
}

#[cfg(unix)]
#[test]
fn the_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("s.db")).unwrap();
    store.set_meta("a", b"1").unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name());
    }
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (text, other) = (folder.path().join("notes.txt"), folder.path().join("other.db"));
    std::fs::write(&text, "these are my notes, and no database at all ".repeat(50)).unwrap();
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    for path in [&text, &other] {
        let before = std::fs::read(path).unwrap();
        let refused = SqliteStore::open(path).map(|_| ()).unwrap_err();
        assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
        assert_eq!(std::fs::read(path).unwrap(), before);
    }
    let absent = SqliteStore::open(&folder.path().join("no/s.db")).map(|_| ()).unwrap_err();
    assert!(matches!(absent, StoreError::Io { action: "create", .. }), "{absent}");
}

/// Opens a store and reads all of it; what it said, or where it is damaged.
fn look(path: &Path) -> Result<String, StoreError> {
    let store = SqliteStore::open(path)?;
    let findings = Store::check(&store)?;
    let place = path.display().to_string();
    match findings.into_iter().next() {
        Some(detail) => Err(StoreError::Corrupt { place, detail }),
        None => check::content(&store),
    }
}

#[test]
fn a_flipped_byte_is_never_read_as_if_it_were_right() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, path) = (folder.path().join("whole.db"), folder.path().join("s.db"));
    let store = SqliteStore::open(&whole).unwrap();
    check::fill(&store);
    drop(store);
    let (bytes, expected) = (std::fs::read(&whole).unwrap(), look(&whole).unwrap());
    let (mut named, mut harmless, mut refused) = (0, 0, 0);
    for at in (0..bytes.len()).step_by(bytes.len() / 400) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        match look(&path) {
            // Space that nothing uses, or a table's name in the schema that only messages show.
            Ok(found) => {
                assert_eq!(found, expected, "byte {at} changes what is read");
                harmless += 1;
            }
            Err(StoreError::Corrupt { detail, .. }) => {
                assert!(!detail.is_empty());
                named += 1;
            }
            Err(other) => {
                refused += 1;
                assert!(at < 4096 * 2, "byte {at}: {other}");
            }
        }
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("s.db{suffix}")));
        }
    }
    eprintln!("{named} named, {harmless} harmless, {refused} refused otherwise");
    // Most of a small database is free space.
    assert!(named > 80, "{named} named, {harmless} harmless");
}

#[test]
fn the_damaged_row_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    check::begin(&store, 3, 0);
    store.append(3, 0, &[check::frame(1, b"before"), check::frame(2, &[0xab; 2000])]).unwrap();
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(1000).position(|w| w.iter().all(|b| *b == 0xab)).unwrap();
    bytes[at + 500] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let error = Store::entries(&store, 3, 0).unwrap_err().to_string();
    assert!(error.contains("table entry") && error.contains("veilsum rounds restore"), "{error}");
}

#[test]
fn a_row_that_is_missing_or_moved_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for (n, harm) in [
        "DELETE FROM entry WHERE seq = 1",
        "UPDATE entry SET seq = 9 WHERE seq = 1",
        "UPDATE entry SET sender = 5 WHERE seq = 1",
        "UPDATE entry SET body = NULL WHERE seq = 1",
        "UPDATE attempt SET state = 0",
        "UPDATE attempt SET dropped = 1",
        "UPDATE plan SET plan = X'00'",
    ]
    .iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{n}.db"));
        let store = SqliteStore::open(&path).unwrap();
        check::begin(&store, 1, 0);
        (0..3).for_each(|n| store.append(1, 0, &[check::frame(n, b"x")]).unwrap());
        store.mark(1, 0, AttemptState::Charged).unwrap();
        assert_eq!(Store::check(&store).unwrap(), Vec::<String>::new());
        Connection::open(&path).unwrap().execute_batch(harm).unwrap();
        assert_ne!(Store::check(&store).unwrap(), Vec::<String>::new(), "{harm}");
    }
}

#[test]
fn a_store_that_another_process_holds_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    store.writer.lock().unwrap().busy_timeout(Duration::from_millis(10)).unwrap();
    let mut other = Connection::open(&path).unwrap();
    let transaction = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    assert!(matches!(store.set_meta("a", b"1"), Err(StoreError::Busy { .. })));
    // Readers do not wait.
    assert_eq!(store.meta("a").unwrap(), None);
    drop(transaction);
    store.set_meta("a", b"1").unwrap();
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_has() {
    let Some(small) = Small::mount("1m") else { return };
    let path = small.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    check::begin(&store, 1, 0);
    let mut taken = 0;
    let error = loop {
        match store.append(1, 0, &[check::frame(taken, &[1; 4000])]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "the disk never filled");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(taken > 10, "{taken}");
    assert!(matches!(store.append(1, 0, &[check::frame(taken, &[1; 4000])]), Err(StoreError::Full { .. })));
    assert_eq!(Store::entries(&store, 1, 0).unwrap().len() as u64, taken);
    // A file of somebody else's goes, or the disk grows: it goes on.
    small.grow("8m");
    store.append(1, 0, &[check::frame(taken, &[1; 4000])]).unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(Store::entries(&store, 1, 0).unwrap().len() as u64, taken + 1);
    assert_eq!(Store::check(&store).unwrap(), Vec::<String>::new());
    drop(store);
}

#[test]
fn processes_that_make_one_store_at_a_time_make_one() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        std::thread::scope(|scope| {
            for n in 0..6 {
                let path = &path;
                scope.spawn(move || SqliteStore::open(path).unwrap().set_meta(&n.to_string(), b"x").unwrap());
            }
        });
        let store = SqliteStore::open(&path).unwrap();
        assert!((0..6).all(|n: u8| store.meta(&n.to_string()).unwrap().is_some()));
    }
}

#[test]
fn dropped_payloads_leave_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = SqliteStore::open(&path).unwrap();
    check::begin(&store, 1, 0);
    store.append(1, 0, &[check::frame(1, &b"confidential".repeat(200))]).unwrap();
    store.mark(1, 0, AttemptState::Abandoned).unwrap();
    let holds = || {
        let mut bytes = Vec::new();
        std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes.windows(12).any(|w| w == b"confidential")
    };
    store.writer.lock().unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    assert!(holds());
    store.drop_payloads(1).unwrap();
    drop(store);
    assert!(!holds());
}
