//! A small S3 service on this machine, for tests of the store and of the coordinators that share one: it checks that requests are
//! signed, stores objects, and fails on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

/// What to do to a request instead of the right thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Answer 500.
    Error,
    /// Answer half of the body.
    Cut,
    /// Answer a body with a wrong byte.
    Wrong,
    /// Answer nothing at all.
    Silence,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) parts: BTreeMap<u16, Vec<u8>>,
    /// For the next requests whose method is this one.
    pub(super) faults: VecDeque<(&'static str, Fault)>,
    /// Methods and paths, as they came.
    pub(super) seen: Vec<String>,
}

pub(super) struct Mock {
    pub(super) url: String,
    pub(super) state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Mock {
    /// Starts one; its thread ends with the process.
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, state }
    }

    pub(super) fn fail(&self, method: &'static str, faults: &[Fault]) {
        let mut state = self.state.lock().unwrap();
        state.faults = faults.iter().map(|fault| (method, *fault)).collect();
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(request) = parse(&mut reader) else { return };
    let mut state = state.lock().unwrap();
    state.seen.push(format!("{} {}", request.method, request.path));
    let fault = state.faults.front().filter(|(method, _)| *method == request.method).map(|(_, fault)| *fault);
    if fault.is_some() {
        state.faults.pop_front();
    }
    let (status, headers, mut body) = match fault {
        Some(Fault::Error) => (500, String::new(), b"<Error><Code>InternalError</Code></Error>".to_vec()),
        _ => answer(&request, &mut state),
    };
    let mut length = body.len();
    match fault {
        Some(Fault::Cut) => body.truncate(length / 2),
        Some(Fault::Wrong) => body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Fault::Silence) => return,
        _ => {}
    }
    if request.method == "HEAD" {
        length = headers.strip_prefix("x-length: ").map_or(0, |text| text.trim().parse().unwrap());
        body.clear();
    }
    let mut stream = stream;
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
}

fn parse(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    assert!(!headers.contains_key("transfer-encoding"), "S3 takes no chunks");
    let length = headers.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

fn field<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The right answer: status, headers, body.
fn answer(request: &Request, state: &mut State) -> (u16, String, Vec<u8>) {
    let fail = |status, code: &str| {
        let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
        (status, String::new(), text.into_bytes())
    };
    let signature = field(&request.query, "X-Amz-Signature").unwrap_or_default();
    let key = field(&request.query, "X-Amz-Credential").unwrap_or_default();
    let signed = field(&request.query, "X-Amz-SignedHeaders").unwrap_or_default();
    let all_signed = request.headers.keys().filter(|name| name.starts_with("x-amz-")).all(|name| signed.contains(name));
    if signature.len() != 64 || !key.starts_with("the-key%2F") || !key.contains("%2Ftest-1%2Fs3%2F") || !all_signed {
        return fail(403, "AccessDenied");
    }
    let object = request.path.strip_prefix("/bucket/").unwrap_or_default().to_owned();
    let upload = field(&request.query, "uploadId").is_some();
    match request.method.as_str() {
        "PUT" if upload => {
            let number = field(&request.query, "partNumber").unwrap().parse().unwrap();
            state.parts.insert(number, request.body.clone());
            (200, format!("etag: \"tag{number}\"\r\n"), vec![])
        }
        "PUT" => {
            let sum = Base64::encode_string(&Sha256::digest(&request.body));
            if request.headers.get("x-amz-checksum-sha256") != Some(&sum) {
                return fail(400, "BadDigest");
            }
            state.objects.insert(object, request.body.clone());
            (200, String::new(), vec![])
        }
        "POST" if request.query.contains("uploads") => {
            state.parts.clear();
            (
                200,
                String::new(),
                text("<InitiateMultipartUploadResult><UploadId>u1</UploadId>", "InitiateMultipartUploadResult"),
            )
        }
        "POST" if upload => {
            let sent = String::from_utf8(request.body.clone()).unwrap();
            assert!(state.parts.keys().all(|n| sent.contains(&format!("<PartNumber>{n}</PartNumber>"))), "{sent}");
            let whole = std::mem::take(&mut state.parts).into_values().flatten().collect();
            state.objects.insert(object, whole);
            (200, String::new(), text("<CompleteMultipartUploadResult>", "CompleteMultipartUploadResult"))
        }
        "DELETE" => {
            if upload {
                state.parts.clear()
            } else {
                drop(state.objects.remove(&object))
            }
            (204, String::new(), vec![])
        }
        "GET" if request.query.contains("list-type=2") => (200, String::new(), list(request, state)),
        "HEAD" | "GET" => match state.objects.get(&object) {
            None => fail(404, "NoSuchKey"),
            Some(bytes) if request.method == "HEAD" => (200, format!("x-length: {}\r\n", bytes.len()), vec![]),
            Some(bytes) => {
                let range = request.headers["range"].strip_prefix("bytes=").unwrap();
                let (first, last) = range.split_once('-').unwrap();
                (206, String::new(), bytes[first.parse().unwrap()..=last.parse().unwrap()].to_vec())
            }
        },
        _ => fail(405, "MethodNotAllowed"),
    }
}

fn text(open: &str, name: &str) -> Vec<u8> {
    let open = open.replacen(name, &format!("{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""), 1);
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{open}</{name}>").into_bytes()
}

/// Two objects a page.
fn list(request: &Request, state: &State) -> Vec<u8> {
    let after = field(&request.query, "continuation-token").unwrap_or_default().replace("%2F", "/");
    let prefix = field(&request.query, "prefix").unwrap_or_default().replace("%2F", "/");
    let found: Vec<_> = state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after).collect();
    let mut out = "<ListBucketResult>".to_owned();
    for (key, bytes) in found.iter().take(2) {
        let size = bytes.len();
        out += &format!(
            "<Contents><ETag>x</ETag><Key>{key}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
    }
    let more = found.len() > 2;
    out += &format!("<IsTruncated>{more}</IsTruncated><MaxKeys>2</MaxKeys>");
    if more {
        out += &format!("<NextContinuationToken>{}</NextContinuationToken>", found[1].0);
    }
    text(&out, "ListBucketResult")
}
