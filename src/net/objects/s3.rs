//! Objects in a bucket of an S3-compatible service: `PREFIX/HEX`.
//!
//! Requests carry their signature (version 4) in the query. A request that met a broken connection or a busy service is
//! tried again, each means the same twice. An object is read in pieces, so that no request takes long and what was cut off goes
//! on where it stopped; one of up to 64 MiB is sent with its SHA-256, which the service compares, a larger one in parts.

mod reader;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use super::error::io;
use super::{ObjectError, ObjectId};
use reader::Pieces;

/// The most bytes of one request that stores, and of one part.
const PART: u64 = 64 << 20;
/// The most parts that services take.
const MOST_PARTS: u64 = 10_000;
/// Bytes of one request that reads.
const PIECE: u64 = 8 << 20;
/// How often a request is tried.
const TRIES: u32 = 4;
/// The first pause between two tries; each further one is three times as long.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a signature is good for.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// The most bytes of an answer that is text.
const TEXT: u64 = 16 << 20;

/// A bucket and how to reach it. Its `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The service, `https://HOST`; `http://` for this machine alone.
    pub endpoint: String,
    /// Its region, as it is signed.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the names of objects begin with; may be empty.
    pub prefix: String,
    /// The key.
    pub credentials: Credentials,
    /// Whether the bucket is a part of the host's name (Amazon), and not of the path (others).
    pub virtual_host: bool,
    /// Certificates to trust, a PEM file; `None` for those of the usual authorities.
    pub roots: Option<PathBuf>,
}

impl S3Config {
    /// Understands `s3://BUCKET/PREFIX`; the rest is in the variables that other programs use: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3` or
    /// `AWS_ENDPOINT_URL` (Amazon's if absent), `AWS_CA_BUNDLE`.
    ///
    /// # Errors
    /// [`ObjectError::Address`], [`ObjectError::Variable`].
    pub fn from_env(address: &str) -> Result<Self, ObjectError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let rest = address.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(ObjectError::Address(address.to_owned()));
        }
        let credentials = Credentials::from_env();
        let credentials = credentials.ok_or(ObjectError::Variable("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"))?;
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let virtual_host = endpoint.is_none() && !bucket.contains('.');
        Ok(Self {
            endpoint: endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
            region,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            credentials,
            virtual_host,
            roots: variable("AWS_CA_BUNDLE").map(PathBuf::from),
        })
    }
}

/// A bucket of objects.
#[derive(Debug)]
pub(super) struct S3 {
    agent: Agent,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    /// [`PART`] and [`PIECE`], but in tests.
    part: u64,
    piece: u64,
    pause: Duration,
}

impl S3 {
    pub(super) fn new(config: &S3Config) -> Result<Self, ObjectError> {
        let wrong = || ObjectError::Address(format!("{} (bucket {})", config.endpoint, config.bucket));
        let style = if config.virtual_host { UrlStyle::VirtualHost } else { UrlStyle::Path };
        let endpoint = config.endpoint.parse().map_err(|_| wrong())?;
        let bucket = Bucket::new(endpoint, style, config.bucket.clone(), config.region.clone()).map_err(|_| wrong())?;
        let host = bucket.base_url().host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if bucket.base_url().scheme() != "https" && !here {
            return Err(ObjectError::Plaintext { host });
        }
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("veilsum")
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .timeout_per_write(Some(Duration::from_secs(60)));
        if here {
            agent = agent.proxy(None);
        }
        if let Some(path) = &config.roots {
            agent = agent.tls_config(TlsConfig::builder().root_certs(roots(path)?).build());
        }
        let mut prefix = config.prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let (agent, credentials) = (Agent::new_with_config(agent.build()), config.credentials.clone());
        Ok(Self { agent, bucket, credentials, prefix, part: PART, piece: PIECE, pause: PAUSE })
    }

    fn key(&self, id: ObjectId) -> String {
        format!("{}{id}", self.prefix)
    }

    /// Sends a verified file, and deletes it.
    pub(super) fn store(&self, id: ObjectId, part: &Path) -> Result<(), ObjectError> {
        let failed = || io("read", part.display());
        let len = std::fs::metadata(part).map_err(failed())?.len();
        if len <= self.part {
            self.put(id, part, len)?;
        } else {
            self.put_in_parts(id, part, len)?;
        }
        match self.len(id)? {
            Some(found) if found == len => {}
            Some(found) => return Err(ObjectError::Length { id, expected: len, found }),
            None => return Err(ObjectError::Missing(id)),
        }
        std::fs::remove_file(part).map_err(io("delete", part.display()))
    }

    fn put(&self, id: ObjectId, part: &Path, len: u64) -> Result<(), ObjectError> {
        let (key, sum) = (self.key(id), Base64::encode_string(&id.0));
        self.request("store", &key, || {
            let mut action = self.bucket.put_object(Some(&self.credentials), &key);
            action.headers_mut().insert("x-amz-checksum-sha256", sum.as_str());
            let url = action.sign(SIGNED_FOR);
            let mut body = slice_of(part, 0, len)?;
            let request = self.agent.put(url.as_str()).header("x-amz-checksum-sha256", &sum);
            request.header("content-length", len).send(SendBody::from_reader(&mut body))
        })
        .map(|_| ())
    }

    /// Sends a large file in parts; what was sent of one that fails is given up.
    fn put_in_parts(&self, id: ObjectId, part: &Path, len: u64) -> Result<(), ObjectError> {
        let key = self.key(id);
        let mut answer = self.request("begin to store", &key, || {
            let url = self.bucket.create_multipart_upload(Some(&self.credentials), &key).sign(SIGNED_FOR);
            self.agent.post(url.as_str()).send_empty()
        })?;
        let text = self.text("begin to store", &key, &mut answer)?;
        let Ok(upload) = CreateMultipartUpload::parse_response(&text) else {
            return Err(misunderstood("begin to store", &key));
        };
        let upload = upload.upload_id();
        let sent = self.send_parts(&key, upload, part, len);
        if sent.is_err() {
            let url = self.bucket.abort_multipart_upload(Some(&self.credentials), &key, upload).sign(SIGNED_FOR);
            // The first failure is the one to report; a bucket's own rules delete what is left.
            let _ = self.agent.delete(url.as_str()).call();
        }
        sent
    }

    fn send_parts(&self, key: &str, upload: &str, part: &Path, len: u64) -> Result<(), ObjectError> {
        let size = self.part.max(len.div_ceil(MOST_PARTS)).max(1);
        let mut tags = Vec::new();
        for (number, offset) in (1..=u16::MAX).zip((0..).map(|i| i * size).take_while(|offset| *offset < len)) {
            let length = size.min(len - offset);
            let answer = self.request("store a part of", key, || {
                let action = self.bucket.upload_part(Some(&self.credentials), key, number, upload);
                let mut body = slice_of(part, offset, length)?;
                let request = self.agent.put(action.sign(SIGNED_FOR).as_str()).header("content-length", length);
                request.send(SendBody::from_reader(&mut body))
            })?;
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
            tags.push(tag.ok_or_else(|| misunderstood("store a part of", key))?.to_owned());
        }
        let mut answer = self.request("finish to store", key, || {
            let tags = tags.iter().map(String::as_str);
            let action = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, tags);
            let url = action.sign(SIGNED_FOR);
            self.agent.post(url.as_str()).send(action.body())
        })?;
        let text = self.text("finish to store", key, &mut answer)?;
        // This request may fail after the status was sent.
        if text.contains("<Error>") {
            return Err(refusal("finish to store", key, 200, &text));
        }
        Ok(())
    }

    pub(super) fn len(&self, id: ObjectId) -> Result<Option<u64>, ObjectError> {
        let key = self.key(id);
        let answer = self.request("look for", &key, || {
            let url = self.bucket.head_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
            self.agent.head(url.as_str()).call()
        });
        match answer {
            Ok(answer) => {
                let len = answer.headers().get("content-length").and_then(|len| len.to_str().ok()?.parse().ok());
                len.map(Some).ok_or_else(|| misunderstood("look for", &key))
            }
            Err(ObjectError::Remote { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn reader(self: &Arc<Self>, id: ObjectId, offset: u64) -> Result<Box<dyn Read + Send>, ObjectError> {
        let len = self.len(id)?.ok_or(ObjectError::Missing(id))?;
        Ok(Box::new(Pieces::new(Arc::clone(self), id, offset, len)))
    }

    /// Up to [`PIECE`] bytes of an object from `offset` on, before its end at `len`.
    fn piece(&self, id: ObjectId, offset: u64, len: u64) -> Result<Vec<u8>, ObjectError> {
        let (key, length) = (self.key(id), self.piece.min(len - offset));
        let range = format!("bytes={offset}-{}", offset + length - 1);
        self.again("read", &key, || {
            let url = self.bucket.get_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
            let mut answer = self.agent.get(url.as_str()).header("range", &range).call()?;
            if answer.status() == 200 && (offset, length) != (0, len) {
                // The whole of it, which was not asked for.
                return Ok(Err(misunderstood("read a part of", &key)));
            }
            if !answer.status().is_success() {
                return Ok(Err(self.refused("read", &key, &mut answer)));
            }
            let bytes = answer.body_mut().with_config().limit(length + 1).read_to_vec()?;
            if bytes.len() as u64 == length { Ok(Ok(bytes)) } else { Err(ureq::Error::BodyStalled) }
        })
    }

    pub(super) fn remove(&self, id: ObjectId) -> Result<bool, ObjectError> {
        let key = self.key(id);
        let answer = self.request("delete", &key, || {
            let url = self.bucket.delete_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
            self.agent.delete(url.as_str()).call()
        });
        match answer {
            Ok(_) => Ok(true),
            Err(ObjectError::Remote { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<(ObjectId, u64)>, ObjectError> {
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut answer = self.request("list", &self.prefix, || {
                let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
                action.with_prefix(self.prefix.as_str());
                if let Some(next) = &next {
                    action.with_continuation_token(next.as_str());
                }
                self.agent.get(action.sign(SIGNED_FOR).as_str()).call()
            })?;
            let text = self.text("list", &self.prefix, &mut answer)?;
            let page = ListObjectsV2::parse_response(&text).map_err(|_| misunderstood("list", &self.prefix))?;
            for object in page.contents {
                let id = object.key.strip_prefix(self.prefix.as_str()).and_then(|name| name.parse().ok());
                // Other objects of the bucket are not ours.
                found.extend(id.zip(object.size));
            }
            if page.next_continuation_token.is_none() {
                return Ok(found);
            }
            if page.next_continuation_token == next {
                return Err(misunderstood("list", &self.prefix));
            }
            next = page.next_continuation_token;
        }
    }

    /// A request that is answered with success.
    fn request(
        &self,
        action: &'static str,
        object: &str,
        mut send: impl FnMut() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, ObjectError> {
        self.again(action, object, || {
            let mut answer = send()?;
            let fine = answer.status().is_success();
            Ok(if fine { Ok(answer) } else { Err(self.refused(action, object, &mut answer)) })
        })
    }

    /// Tries a few times, where it may help.
    fn again<T>(
        &self,
        action: &'static str,
        object: &str,
        mut send: impl FnMut() -> Result<Result<T, ObjectError>, ureq::Error>,
    ) -> Result<T, ObjectError> {
        let (mut tries, mut pause) = (1, self.pause);
        loop {
            let error = match send() {
                Ok(Err(ObjectError::Remote { status, .. })) if tries < TRIES && (status >= 500 || status == 429) => {
                    None
                }
                Ok(result) => return result,
                // Not this file, or not that name: the same again would fail again.
                Err(ureq::Error::BadUri(_)) | Err(ureq::Error::Http(_)) => return Err(misunderstood(action, object)),
                Err(error) => Some(error),
            };
            match error {
                Some(error) if tries == TRIES => {
                    let (object, reason) = (object.to_owned(), error.to_string());
                    return Err(ObjectError::Network { action, object, tries, reason });
                }
                _ => std::thread::sleep(pause),
            }
            (tries, pause) = (tries + 1, pause * 3);
        }
    }

    /// What the service says about a request that it refused.
    fn refused(&self, action: &'static str, object: &str, answer: &mut Response<Body>) -> ObjectError {
        let text = self.text(action, object, answer).unwrap_or_default();
        refusal(action, object, answer.status().as_u16(), &text)
    }

    /// An answer's text.
    fn text(&self, action: &'static str, object: &str, answer: &mut Response<Body>) -> Result<String, ObjectError> {
        let text = answer.body_mut().with_config().limit(TEXT).read_to_string();
        text.map_err(|error| {
            let (object, reason) = (object.to_owned(), error.to_string());
            ObjectError::Network { action, object, tries: 1, reason }
        })
    }
}

/// A part of a file.
fn slice_of(path: &Path, offset: u64, len: u64) -> std::io::Result<std::io::Take<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.take(len))
}

/// The certificates in a PEM file.
fn roots(path: &Path) -> Result<RootCerts, ObjectError> {
    let text = std::fs::read(path).map_err(io("read", path.display()))?;
    let found = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        let source = std::io::Error::other("no certificate in it");
        return Err(io("read the certificates in", path.display())(source));
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// A service's refusal, with its code and message.
fn refusal(action: &'static str, object: &str, status: u16, text: &str) -> ObjectError {
    let element = |name: &str| {
        let rest = text.split_once(&format!("<{name}>"))?.1;
        Some(rest.split_once("</")?.0.chars().take(200).collect::<String>())
    };
    let said = [element("Code"), element("Message")];
    let said = said.into_iter().flatten().collect::<Vec<_>>().join(": ");
    let reason = if said.is_empty() { "no reason given".to_owned() } else { said.escape_debug().to_string() };
    ObjectError::Remote { action, object: object.to_owned(), status, reason }
}

/// An answer that is not the one of the protocol.
fn misunderstood(action: &'static str, object: &str) -> ObjectError {
    let reason = "the answer is not that of an S3-compatible service".to_owned();
    ObjectError::Network { action, object: object.to_owned(), tries: 1, reason }
}

#[cfg(test)]
mod mock;
#[cfg(test)]
mod tests;
