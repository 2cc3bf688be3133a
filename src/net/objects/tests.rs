use std::io::Read;
use std::time::Duration;

use super::*;
use crate::net::store::small::Small;

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7 + i) as u8).collect()
}

fn limits(total: u64) -> Limits {
    Limits { object: 1 << 30, total, reserve: 0 }
}

fn bed() -> (tempfile::TempDir, Objects) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::folder(&folder.path().join("objects")).unwrap();
    (folder, objects)
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    let (folder, objects) = bed();
    let data = bytes(300_000);
    let id = ObjectId::of(&data);
    let mut upload = objects.begin(id, 300_000, &limits(1 << 20)).unwrap();
    upload.append(&data[..100_000]).unwrap();
    assert!(matches!(objects.begin(id, 300_000, &limits(1 << 20)), Err(ObjectError::InUse(_))));
    drop(upload);
    // Also after a restart.
    let objects = Objects::folder(&folder.path().join("objects")).unwrap();
    assert_eq!((objects.used(), objects.len(id).unwrap()), (100_000, None));
    assert!(matches!(objects.read(id), Err(ObjectError::Missing(_))));
    let mut upload = objects.begin(id, 300_000, &limits(1 << 20)).unwrap();
    assert_eq!(upload.offset(), 100_000);
    for chunk in data[100_000..].chunks(70_000) {
        upload.append(chunk).unwrap();
    }
    assert_eq!(upload.finish().unwrap(), id);
    assert_eq!(objects.read(id).unwrap(), data);
    assert_eq!((objects.verify(id).unwrap(), objects.used()), (300_000, 300_000));
    assert_eq!(objects.list().unwrap(), [(id, 300_000)]);
    // There already: complete at once.
    let upload = objects.begin(id, 300_000, &limits(1)).unwrap();
    assert!(upload.is_complete());
    assert_eq!(upload.finish().unwrap(), id);
    assert!(matches!(objects.begin(id, 5, &limits(1)), Err(ObjectError::Length { found: 300_000, .. })));
    assert_eq!(std::fs::read_dir(folder.path().join("objects/incoming")).unwrap().count(), 0);
}

#[test]
fn another_content_is_refused_and_deleted() {
    let (_folder, objects) = bed();
    let data = bytes(1000);
    let id = ObjectId::of(&data);
    let mut upload = objects.begin(id, 1000, &limits(5000)).unwrap();
    upload.append(&data[..999]).unwrap();
    assert!(matches!(upload.append(b"xy"), Err(ObjectError::Overrun { len: 1000, offset: 999, more: 2, .. })));
    upload.append(&[!data[999]]).unwrap();
    let error = upload.finish().unwrap_err();
    let ObjectError::Hash { expected, found } = &error else { panic!("{error}") };
    assert!(*expected == id && *found != id && error.to_string().contains(&found.to_string()));
    let mut upload = objects.begin(id, 1000, &limits(5000)).unwrap();
    assert_eq!((upload.offset(), objects.used()), (0, 1000));
    upload.append(&data[..10]).unwrap();
    assert!(matches!(upload.finish(), Err(ObjectError::Short { len: 1000, offset: 10, .. })));
    // A shorter announcement than what lies there begins anew.
    assert_eq!(objects.begin(id, 5, &limits(5000)).unwrap().offset(), 0);
}

#[test]
fn a_damaged_object_is_noticed_when_it_is_read() {
    let (folder, objects) = bed();
    let id = objects.put(&bytes(5000), &Limits::NONE).unwrap();
    let name = id.to_string();
    let path = folder.path().join("objects").join(&name[..2]).join(&name);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[2500] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert!(matches!(objects.read(id), Err(ObjectError::Hash { .. })));
    assert!(matches!(objects.verify(id), Err(ObjectError::Hash { .. })));
}

#[test]
fn a_part_of_an_object_is_not_taken_for_all_of_it() {
    let (_folder, objects) = bed();
    let data = bytes(5000);
    let id = objects.put(&data, &Limits::NONE).unwrap();
    let mut read = vec![7; 9000];
    objects.read_into(id, 5000, &mut read).unwrap();
    assert_eq!(read, data);
    let longer = objects.read_into(id, 4999, &mut read).unwrap_err();
    assert!(matches!(longer, ObjectError::Length { expected: 4999, found: 5000, .. }), "{longer}");
    assert!(matches!(objects.read_into(id, 5001, &mut read), Err(ObjectError::Io { .. })));
    assert!(matches!(objects.read_into(ObjectId([1; 32]), 1, &mut read), Err(ObjectError::Missing(_))));
}

#[test]
fn the_quota_counts_what_is_stored_announced_and_left_over() {
    let (_folder, objects) = bed();
    let (a, b, c) = (ObjectId([1; 32]), ObjectId([2; 32]), ObjectId([3; 32]));
    objects.put(&bytes(100), &limits(1000)).unwrap();
    let mut first = objects.begin(a, 500, &limits(1000)).unwrap();
    first.append(&[0; 50]).unwrap();
    let full = objects.begin(b, 401, &limits(1000)).unwrap_err();
    assert!(matches!(full, ObjectError::Quota { len: 401, used: 600, limit: 1000 }), "{full}");
    let second = objects.begin(b, 400, &limits(1000)).unwrap();
    assert!(matches!(objects.begin(c, 1, &limits(1000)), Err(ObjectError::Quota { .. })));
    drop(second);
    drop(first);
    assert_eq!(objects.used(), 150);
    assert!(matches!(objects.begin(a, 1 << 31, &limits(u64::MAX)), Err(ObjectError::TooLarge { .. })));
    objects.remove(ObjectId::of(&bytes(100))).unwrap();
    assert_eq!(objects.used(), 50);
}

#[cfg(unix)]
#[test]
fn a_reserve_of_the_disk_stays_free() {
    let (_folder, objects) = bed();
    let reserve = Limits { object: u64::MAX, total: u64::MAX, reserve: 1 << 60 };
    let refused = objects.begin(ObjectId([1; 32]), 10, &reserve);
    assert!(matches!(refused, Err(ObjectError::Reserve { len: 10, reserve, .. }) if reserve == 1 << 60));
    // What was refused is not in anybody's way.
    assert_eq!(objects.begin(ObjectId([1; 32]), 10, &Limits::NONE).unwrap().offset(), 0);
}

#[test]
fn stale_parts_go_and_others_stay() {
    let (folder, objects) = bed();
    let (a, b) = (ObjectId([1; 32]), ObjectId([2; 32]));
    let mut open = objects.begin(a, 100, &Limits::NONE).unwrap();
    open.append(&[0; 10]).unwrap();
    let mut left = objects.begin(b, 100, &Limits::NONE).unwrap();
    left.append(&[0; 20]).unwrap();
    drop(left);
    let foreign = folder.path().join("objects/incoming/README");
    std::fs::write(&foreign, "x").unwrap();
    assert_eq!(objects.sweep(SystemTime::UNIX_EPOCH).unwrap(), 0);
    assert_eq!(objects.sweep(SystemTime::now() + Duration::from_secs(60)).unwrap(), 20);
    assert_eq!(objects.used(), 100);
    assert!(foreign.exists());
    open.append(&[0; 10]).unwrap();
}

#[test]
fn reads_from_anywhere_and_removes() {
    let (_folder, objects) = bed();
    let data = bytes(1000);
    let id = objects.put(&data, &Limits::NONE).unwrap();
    for offset in [0, 1, 999, 1000, 2000] {
        let mut found = Vec::new();
        objects.reader(id, offset as u64).unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, data[offset.min(1000)..]);
    }
    assert!(objects.remove(id).unwrap() && !objects.remove(id).unwrap());
    assert!(matches!(objects.reader(id, 0).map(|_| ()), Err(ObjectError::Missing(_))));
    let empty = objects.put(b"", &Limits::NONE).unwrap();
    assert_eq!(objects.read(empty).unwrap(), b"");
}

#[test]
fn names_are_read_as_they_are_written() {
    let id = ObjectId::of(b"abc");
    assert_eq!(id.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
    for wrong in ["", "ba78", &id.to_string().to_uppercase(), &"/".repeat(64), &format!("{id}0")] {
        assert!(wrong.parse::<ObjectId>().is_err(), "{wrong}");
    }
}

#[test]
fn a_full_disk_refuses_and_the_upload_goes_on_when_there_is_room() {
    let Some(small) = Small::mount("200k") else { return };
    let objects = Objects::folder(&small.path().join("objects")).unwrap();
    let data = bytes(300_000);
    let id = ObjectId::of(&data);
    assert!(matches!(objects.begin(id, 300_000, &limits(1 << 20)), Err(ObjectError::Reserve { .. })));
    small.grow("400k");
    let mut upload = objects.begin(id, 300_000, &limits(1 << 20)).unwrap();
    // Somebody else was faster.
    std::fs::write(small.path().join("other"), vec![0; 250_000]).unwrap();
    let mut chunks = data.chunks(30_000);
    let error = chunks.find_map(|chunk| upload.append(chunk).err()).unwrap();
    assert!(matches!(error, ObjectError::Full { .. }), "{error}");
    let offset = upload.offset();
    assert!(offset > 0 && offset.is_multiple_of(30_000));
    assert_eq!(std::fs::metadata(small.path().join(format!("objects/incoming/{id}.part"))).unwrap().len(), offset);
    std::fs::remove_file(small.path().join("other")).unwrap();
    upload.append(&data[offset as usize..]).unwrap();
    assert_eq!(objects.read(upload.finish().unwrap()).unwrap(), data);
}

#[test]
fn an_address_is_a_folder_or_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("objects");
    Objects::open(&path.display().to_string(), Path::new("unused")).unwrap();
    assert!(path.join("incoming").exists());
    for wrong in ["", "s3://", "gs://bucket"] {
        let refused = Objects::open(wrong, &path).map(|_| ()).unwrap_err();
        assert!(matches!(refused, ObjectError::Address(_)), "{refused}");
    }
}
