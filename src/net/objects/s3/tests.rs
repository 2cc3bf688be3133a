use std::io::Read;

use super::mock::{Fault, Mock};
use super::*;
use crate::net::objects::{Limits, Objects, Place};

fn config(url: &str) -> S3Config {
    S3Config {
        endpoint: url.to_owned(),
        region: "test-1".to_owned(),
        bucket: "bucket".to_owned(),
        prefix: "/fed/one/".to_owned(),
        credentials: Credentials::new("the-key", "the-secret"),
        virtual_host: false,
        roots: None,
    }
}

/// A store on the mock, with small parts and pieces, and hardly a pause.
fn bed() -> (tempfile::TempDir, Mock, Objects) {
    let (folder, mock) = (tempfile::tempdir().unwrap(), Mock::start());
    let mut s3 = S3::new(&config(&mock.url)).unwrap();
    (s3.part, s3.piece, s3.pause) = (100_000, 30_000, Duration::from_millis(1));
    let objects = Objects::new(folder.path().join("incoming"), Place::S3(Arc::new(s3))).unwrap();
    (folder, mock, objects)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i / 7 + i) as u8).collect()
}

#[test]
fn stores_reads_lists_and_removes() {
    let (folder, mock, objects) = bed();
    let data = bytes(95_000);
    let id = objects.put(&data, &Limits::NONE).unwrap();
    assert_eq!(mock.state.lock().unwrap().objects.keys().collect::<Vec<_>>(), [&format!("fed/one/{id}")]);
    // Nothing stays here.
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    assert_eq!((objects.len(id).unwrap(), objects.used()), (Some(95_000), 95_000));
    assert_eq!(objects.read(id).unwrap(), data);
    for offset in [1, 29_999, 30_000, 94_999, 95_000, 1 << 40] {
        let mut found = Vec::new();
        objects.reader(id, offset as u64).unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, data[offset.min(95_000)..]);
    }
    assert!(objects.begin(id, 95_000, &Limits::NONE).unwrap().is_complete());
    let mut ids = vec![(id, 95_000)];
    ids.extend((1..6).map(|n| (objects.put(&bytes(n), &Limits::NONE).unwrap(), n as u64)));
    ids.sort_unstable();
    mock.state.lock().unwrap().objects.insert("fed/one/README".to_owned(), vec![1]);
    assert_eq!(objects.list().unwrap(), ids, "over pages, without what is not ours");
    assert!(objects.remove(id).unwrap() && !objects.remove(id).unwrap());
    assert!(matches!(objects.read(id), Err(ObjectError::Missing(_))));
    let empty = objects.put(b"", &Limits::NONE).unwrap();
    assert_eq!(objects.read(empty).unwrap(), b"");
}

#[test]
fn a_large_object_goes_in_parts() {
    let (_folder, mock, objects) = bed();
    let data = bytes(350_001);
    let id = objects.put(&data, &Limits::NONE).unwrap();
    let puts = mock.state.lock().unwrap().seen.iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!((puts, objects.read(id).unwrap()), (4, data));
    // One part that fails for good gives the whole of it up; then it goes from what lies here.
    let data = bytes(250_000);
    mock.fail("PUT", &[Fault::Error; 4]);
    let error = objects.put(&data, &Limits::NONE).unwrap_err();
    assert!(matches!(error, ObjectError::Remote { status: 500, .. }), "{error}");
    assert!(error.to_string().contains("InternalError"), "{error}");
    let id = ObjectId::of(&data);
    assert_eq!(objects.len(id).unwrap(), None);
    let upload = objects.begin(id, 250_000, &Limits::NONE).unwrap();
    assert!(upload.is_complete());
    upload.finish().unwrap();
    assert_eq!(objects.read(id).unwrap(), data);
}

#[test]
fn a_fault_that_passes_is_not_noticed() {
    let (_folder, mock, objects) = bed();
    let (small, large) = (bytes(90_000), bytes(220_000));
    for faults in [&[Fault::Error][..], &[Fault::Silence], &[Fault::Silence, Fault::Error, Fault::Silence]] {
        for data in [&small, &large] {
            mock.fail("PUT", faults);
            let id = objects.put(data, &Limits::NONE).unwrap();
            assert_eq!(mock.state.lock().unwrap().faults.len(), 0);
            mock.fail("GET", faults);
            assert_eq!(&objects.read(id).unwrap(), data);
            mock.fail("GET", &[Fault::Cut, Fault::Cut]);
            assert_eq!(&objects.read(id).unwrap(), data);
            mock.fail("HEAD", faults);
            assert_eq!(objects.len(id).unwrap(), Some(data.len() as u64));
            objects.remove(id).unwrap();
        }
    }
}

#[test]
fn wrong_bytes_are_noticed_and_a_lasting_fault_is_named() {
    let (_folder, mock, objects) = bed();
    let id = objects.put(&bytes(50_000), &Limits::NONE).unwrap();
    mock.fail("GET", &[Fault::Wrong]);
    assert!(matches!(objects.read(id), Err(ObjectError::Hash { .. })));
    mock.fail("GET", &[Fault::Wrong]);
    assert!(matches!(objects.verify(id), Err(ObjectError::Hash { .. })));
    mock.fail("GET", &[Fault::Cut; 4]);
    let error = objects.read(id).unwrap_err().to_string();
    assert!(error.contains("4 tries"), "{error}");
    mock.fail("HEAD", &[Fault::Silence; 4]);
    let error = objects.len(id).unwrap_err();
    assert!(matches!(error, ObjectError::Network { tries: 4, .. }), "{error}");
}

#[test]
fn a_wrong_key_is_refused_at_once() {
    let (folder, mock) = (tempfile::tempdir().unwrap(), Mock::start());
    let mut config = config(&mock.url);
    config.credentials = Credentials::new("another-key", "the-secret");
    let error = Objects::s3(&config, folder.path()).unwrap_err();
    assert!(matches!(error, ObjectError::Remote { status: 403, .. }), "{error}");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert_eq!(mock.state.lock().unwrap().seen.len(), 1, "the same again is refused again");
    assert!(!format!("{config:?}").contains("the-secret"));
}

#[test]
fn other_machines_are_reached_by_https_alone() {
    let refused = S3::new(&config("http://storage.example")).unwrap_err();
    assert!(matches!(&refused, ObjectError::Plaintext { host } if host == "storage.example"), "{refused}");
    S3::new(&config("https://storage.example")).unwrap();
    S3::new(&config("http://[::1]:9000")).unwrap();
    for wrong in ["", "storage.example", "ftp://storage.example"] {
        assert!(matches!(S3::new(&config(wrong)), Err(ObjectError::Address(_))), "{wrong}");
    }
    assert!(matches!(S3Config::from_env("s3://"), Err(ObjectError::Address(_))));
}
