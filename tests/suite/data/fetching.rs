//! Downloads: against a server in this process, so that nothing here needs a network.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use veilsum::data::DataError;
use veilsum::data::catalog::{Content, ContentFile, Published, Source};
use veilsum::data::fetch::{fetch, fetch_set, read_verified};
use veilsum::data::load_published;

use super::{idx, write};

const TRAIN_IMAGES: &str = "ffa40123e1211233f22e53aaceaae2cae4a3b44771c7bb3bd20a6e2fb900058b";

fn contents() -> [Vec<u8>; 4] {
    [idx(&[2, 1, 2], &[1, 2, 3, 4]), idx(&[2], &[0, 1]), idx(&[1, 1, 2], &[5, 6]), idx(&[1], &[1])]
}

fn set(sources: Vec<Source>) -> Published {
    let file = |name, bytes, sha256| ContentFile { name, bytes, sha256 };
    Published {
        name: "toy",
        about: "a toy",
        files: vec![
            file("a", 20, TRAIN_IMAGES),
            file("b", 10, "8c50639ad7f90a8211edb1bbdfb25436fd8e2a10794b6d5e3d479d1b22c7e318"),
            file("c", 18, "240e3911b39e08e59b5343a8597b533d15f00cece03bee19782a62fea80d8df0"),
            file("d", 9, "4fd8d79cb8cc43b9695983119352d04785652f9036ae1446d51345b459403a4c"),
        ],
        sources,
        content: Content::Images { mean: 0.0, std: 1.0, classes: 2 },
    }
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(content).unwrap();
    out.finish().unwrap()
}

/// A mirror that serves `files`; counts its answers.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> (Source, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = Cow::Owned(format!("http://{}/", listener.local_addr().unwrap()));
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|l| l.is_ok_and(|l| !l.is_empty())) {}
            counter.fetch_add(1, Ordering::SeqCst);
            let name = request.split([' ', '/']).nth(2).unwrap_or_default();
            let body =
                files.iter().find(|(file, _)| format!("{file}.gz") == name || *file == name).map(|(_, body)| body);
            let (status, body) = body.map_or(("404 Not Found", &[][..]), |b| ("200 OK", b.as_slice()));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that has seen enough closes early.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    (Source::Mirror { base }, count)
}

fn good() -> (Source, Arc<AtomicUsize>) {
    serve(["a", "b", "c", "d"].into_iter().zip(contents().map(|c| gz(&c))).collect())
}

/// A port where nobody listens.
fn dead() -> Source {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Source::Mirror { base: Cow::Owned(format!("http://127.0.0.1:{port}/")) }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_mirror_fills_the_cache_once() {
    let root = tempfile::tempdir().unwrap();
    let (mirror, count) = good();
    let set = set(vec![dead(), mirror.clone()]);
    let first = fetch_set(&set, root.path(), false).unwrap();
    assert_eq!((first.source, first.replaced.len()), (Some(mirror.describe()), 0));
    assert_eq!(names(&first.dir), [".lock", "a", "b", "c", "d"]);
    let second = fetch_set(&set, root.path(), false).unwrap();
    assert_eq!((second.source, count.load(Ordering::SeqCst)), (None, 4));
    let split = load_published(&set, root.path(), false).unwrap();
    assert_eq!((split.train.len(), split.test.len(), split.test.labels[0]), (2, 1, 1));
}

#[test]
fn a_cached_file_with_another_content_is_replaced_and_never_used() {
    let root = tempfile::tempdir().unwrap();
    let (mirror, count) = good();
    let set = set(vec![mirror]);
    let dir = fetch_set(&set, root.path(), false).unwrap().dir;
    write(&dir, "a", b"something else");
    let e = read_verified(&dir.join("a"), &set.files[0]).unwrap_err();
    assert!(matches!(e, DataError::Hash { expected: TRAIN_IMAGES, .. }), "{e}");
    let again = fetch_set(&set, root.path(), false).unwrap();
    assert_eq!((again.replaced, count.load(Ordering::SeqCst)), (vec![dir.join("a")], 5));
    // Longer than published, with the right beginning.
    write(&dir, "b", [contents()[1].as_slice(), b"!"].concat());
    assert_eq!(load_published(&set, root.path(), false).unwrap().train.labels, [0, 1]);
    assert_eq!(std::fs::read(dir.join("b")).unwrap(), contents()[1]);
}

#[test]
fn wrong_content_never_enters_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let (liar, _) = serve(vec![("a", gz(b"not the images"))]);
    let (cut, _) = serve(vec![("a", gz(&contents()[0])[..25].to_vec())]);
    let (raw, _) = serve(vec![("a", contents()[0].clone())]);
    let e = fetch_set(&set(vec![liar, cut, raw]), root.path(), false).unwrap_err();
    let DataError::Unobtainable(report) = e else { panic!("{e}") };
    assert_eq!(report.tried.len(), 3);
    assert!(report.tried[0].reason.contains(TRAIN_IMAGES), "{report}");
    assert_eq!(names(&report.dir), [".lock"]);
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("toy");
    std::fs::create_dir_all(dir.join(".fetch-x/package")).unwrap();
    write(&dir, ".part-y", &contents()[0][..5]);
    let (mirror, _) = good();
    fetch_set(&set(vec![mirror]), root.path(), false).unwrap();
    assert_eq!(names(&dir), [".lock", "a", "b", "c", "d"]);
}

#[test]
fn when_every_source_fails_the_error_says_all_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let (empty, _) = serve(Vec::new());
    let missing = Source::Npm { package: "../absent", version: "0", sha256: "", folder: "x" };
    let sources = vec![dead(), empty, missing];
    let described: Vec<String> = sources.iter().map(Source::describe).collect();
    let text = fetch_set(&set(sources), root.path(), false).unwrap_err().to_string();
    for part in described.iter().map(String::as_str).chain(["404", TRAIN_IMAGES, "\"digits\"", "3 sources tried"]) {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(text.contains(&root.path().join("toy").display().to_string()), "{text}");
}

#[test]
fn gzipped_files_put_into_the_folder_are_taken() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("toy");
    std::fs::create_dir(&dir).unwrap();
    for (name, content) in ["a.gz", "b.gz", "c.gz", "d.gz"].into_iter().zip(contents()) {
        write(&dir, name, gz(&content));
    }
    let split = load_published(&set(Vec::new()), root.path(), false).unwrap();
    let features = split.train.gather(&[1]).features;
    assert!((features[0] * 255.0 - 3.0).abs() < 1e-5 && (features[1] * 255.0 - 4.0).abs() < 1e-5, "{features:?}");
}

#[test]
fn a_text_is_served_as_it_is() {
    let play = (0..20).map(|i| format!("ANNA:\nspeech {i} {}\n\n", "x".repeat(64))).collect::<String>();
    let root = tempfile::tempdir().unwrap();
    let (mirror, count) = serve(vec![("input.txt", play.clone().into_bytes())]);
    let Source::Mirror { base } = mirror else { panic!() };
    let set = Published {
        name: "toy-play",
        about: "a toy",
        files: vec![ContentFile {
            name: "input.txt",
            bytes: play.len() as u64,
            sha256: "fcd7ec3e66b58561a5f6e9fc3c7da887e336c28ffe207d02e4f7c102b908aae1",
        }],
        sources: vec![Source::Raw { base }],
        content: Content::Play,
    };
    for _ in 0..2 {
        let split = load_published(&set, root.path(), false).unwrap();
        assert_eq!((split.train.name.as_str(), split.train.dim, split.train.classes), ("toy-play", 64, 96));
        assert_eq!((split.train.len(), split.test.len()), (21, 2));
    }
    assert_eq!(
        (count.load(Ordering::SeqCst), names(&root.path().join("toy-play"))),
        (1, vec![".lock".to_owned(), "input.txt".to_owned()])
    );
}

#[test]
fn several_at_once_fetch_once() {
    let root = tempfile::tempdir().unwrap();
    let (mirror, count) = good();
    let set = set(vec![mirror]);
    std::thread::scope(|scope| {
        let fetch = || fetch_set(&set, root.path(), false).unwrap();
        let handles: Vec<_> = (0..6).map(|_| scope.spawn(fetch)).collect();
        handles.into_iter().for_each(|h| drop(h.join().unwrap()));
    });
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[test]
fn unknown_names_are_told_the_nearest() {
    let e = fetch("fashion_mnist", Path::new("unused"), false).unwrap_err().to_string();
    assert!(e.contains("did you mean `fashion-mnist`"), "{e}");
}
