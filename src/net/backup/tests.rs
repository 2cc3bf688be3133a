use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::net::keys::Role;
use crate::net::store::{AttemptState, EntryBody, NewAttempt, NewEntry, Payload};

/// A store with one released round, whose checkpoint is an object, and an open one, of which an entry is.
fn bed(folder: &Path) -> (Arc<SqliteStore>, Objects) {
    let store = SqliteStore::open(&folder.join("s.db")).unwrap();
    let objects = Objects::folder(&folder.join("objects")).unwrap();
    for round in 1..3 {
        store.begin(&NewAttempt { round, attempt: 0, input: [1; 32], plan: vec![] }).unwrap();
    }
    store.mark(1, 0, AttemptState::Charged).unwrap();
    let model = vec![7; 200_000];
    let id = objects.put(&model, &Limits::NONE).unwrap();
    store.release(1, 0, "{}", Some((id, 200_000))).unwrap();
    accept(&store, &objects, 2, 1);
    (Arc::new(store), objects)
}

/// Uploads an object and accepts an entry that refers to it.
fn accept(store: &dyn Store, objects: &Objects, round: u32, n: u64) -> ObjectId {
    let bytes = [n.to_le_bytes(), u64::from(round).to_le_bytes()].concat().repeat(1000);
    let id = objects.put(&bytes, &Limits::NONE).unwrap();
    let payload = Payload::Object { id, len: bytes.len() as u64 };
    let entry = NewEntry { id: id.0, body: EntryBody::Frame { from: Role::Client(n), payload } };
    store.append(round, 0, &[entry]).unwrap();
    id
}

#[test]
fn a_backup_gives_back_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (store, objects) = bed(folder.path());
    // An object that nothing needs stays where it is.
    let unneeded = objects.put(b"unneeded", &Limits::NONE).unwrap();
    assert_eq!(verify(&*store, &objects).unwrap(), [Finding::Unneeded { id: unneeded, len: 8 }]);
    let to = folder.path().join("backup");
    let manifest = backup(&*store, &objects, &to).unwrap();
    assert_eq!(manifest.objects.len(), 2);
    let mut names: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "objects", "store.db"]);
    assert!(matches!(backup(&*store, &objects, &to), Err(BackupError::NotEmpty(_))));
    let before = std::fs::read(to.join("store.db")).unwrap();

    let restored = SqliteStore::open(&folder.path().join("restored.db")).unwrap();
    let copies = Objects::folder(&folder.path().join("restored")).unwrap();
    assert_eq!(restore(&to, &restored, &copies).unwrap(), manifest);
    assert_eq!(restored.entries(2, 0).unwrap(), store.entries(2, 0).unwrap());
    assert_eq!(restored.rounds().unwrap(), store.rounds().unwrap());
    assert_eq!(verify(&restored, &copies).unwrap(), []);
    let again = restore(&to, &restored, &copies);
    assert!(matches!(again, Err(BackupError::Store(StoreError::NotEmpty { .. }))));
    assert_eq!(std::fs::read(to.join("store.db")).unwrap(), before, "a backup stays as it is");

    let fresh = SqliteStore::open(&folder.path().join("fresh.db")).unwrap();
    let refused = restore(&to, &fresh, &objects).unwrap_err();
    assert!(matches!(refused, BackupError::ForeignObjects { count: 1, example } if example == unneeded), "{refused}");
    assert!(fresh.is_empty().unwrap());
}

#[test]
fn nothing_is_restored_from_a_damaged_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (store, objects) = bed(folder.path());
    let to = folder.path().join("backup");
    backup(&*store, &objects, &to).unwrap();
    let (id, _) = objects.list().unwrap()[0];
    let (name, victim) = (id.to_string(), folder.path().join("victim.db"));
    let object = to.join("objects").join(&name[..2]).join(&name);
    for path in [to.join("store.db"), object.clone()] {
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let target = SqliteStore::open(&victim).unwrap();
        let copies = Objects::folder(&folder.path().join("copies")).unwrap();
        let refused = restore(&to, &target, &copies).unwrap_err();
        assert!(matches!(refused, BackupError::Damaged { count: 1, .. }), "{refused}");
        assert!(target.is_empty().unwrap() && copies.list().unwrap().is_empty());
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::remove_file(object).unwrap();
    let (_, findings) = verify_backup(&to).unwrap();
    assert!(matches!(&findings[..], [Finding::Missing(reference)] if reference.id == id), "{findings:?}");
    std::fs::write(to.join("manifest.json"), "{}").unwrap();
    assert!(matches!(verify_backup(&to), Err(BackupError::Manifest { .. })));
    std::fs::remove_file(to.join("manifest.json")).unwrap();
    assert!(matches!(verify_backup(&to), Err(BackupError::File(_))));
}

#[test]
fn missing_and_damaged_objects_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (store, objects) = bed(folder.path());
    let id = accept(&*store, &objects, 2, 5);
    let name = id.to_string();
    let path = folder.path().join("objects").join(&name[..2]).join(&name);
    std::fs::write(&path, "something else").unwrap();
    let findings = verify(&*store, &objects).unwrap();
    assert!(matches!(&findings[..], [Finding::Damaged { reference, .. }] if reference.id == id), "{findings:?}");
    std::fs::remove_file(&path).unwrap();
    let findings = verify(&*store, &objects).unwrap();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.is_damage() && finding.to_string().contains("round 2, attempt 0"), "{finding}");
    let to = folder.path().join("backup");
    let refused = backup(&*store, &objects, &to);
    assert!(matches!(refused, Err(BackupError::Object(ObjectError::Missing(missing))) if missing == id));
    assert!(!to.join("manifest.json").exists());
}

#[test]
fn a_backup_of_a_running_server_is_one_state() {
    let folder = tempfile::tempdir().unwrap();
    let (store, objects) = bed(folder.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Rounds come and go, and their objects with them.
        scope.spawn(|| {
            for round in (10..).take_while(|_| !done.load(Ordering::SeqCst)) {
                store.begin(&NewAttempt { round, attempt: 0, input: [1; 32], plan: vec![] }).unwrap();
                (0..5).for_each(|n| {
                    accept(&*store, &objects, round, n);
                });
                store.mark(round, 0, AttemptState::Abandoned).unwrap();
                for id in store.drop_payloads(round).unwrap() {
                    objects.remove(id).unwrap();
                }
            }
        });
        let mut taken = 0;
        for n in 0..8 {
            let to = folder.path().join(format!("backup{n}"));
            match backup(&*store, &objects, &to) {
                Ok(_) => taken += 1,
                // The server was faster each time; what lies there says that it is none.
                Err(BackupError::Object(ObjectError::Missing(_))) => {
                    assert!(!to.join("manifest.json").exists());
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(verify_backup(&to).unwrap().1, []);
        }
        done.store(true, Ordering::SeqCst);
        assert!(taken > 0);
    });
}
