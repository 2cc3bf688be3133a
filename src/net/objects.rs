//! Objects: large bytes of a federation's server (updates, sums, checkpoints), named by their SHA-256.
//!
//! An upload lies in `incoming/HEX.part` on this machine's disk until all of it is there and its hash is right; one that
//! was interrupted goes on where it stopped. Then it moves to where objects stay: a folder beside it, or a bucket of an
//! S3-compatible service. A name says the content, so that no reader gets other bytes than it asked for.

pub mod error;
mod folder;
pub mod s3;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

pub use error::ObjectError;
use error::io;
use folder::Folder;
use s3::{S3, S3Config};
pub use upload::Upload;

/// How much is read or hashed at once, bytes.
const CHUNK: usize = 1 << 16;

/// An object's name: the SHA-256 of its bytes. As text, 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 32]);

impl ObjectId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = ObjectError;

    fn from_str(text: &str) -> Result<Self, ObjectError> {
        let mut id = [0; 32];
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut id) {
            Ok(()) if lower => Ok(Self(id)),
            _ => Err(ObjectError::Name(text.chars().take(80).collect())),
        }
    }
}

/// How much may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one object.
    pub object: u64,
    /// Bytes of all objects, those that are coming in with their full length.
    pub total: u64,
    /// Bytes that stay free on the disk of `incoming`.
    pub reserve: u64,
}

impl Limits {
    /// None, for what the server itself stores.
    pub const NONE: Self = Self { object: u64::MAX, total: u64::MAX, reserve: 0 };
}

/// Where objects stay.
#[derive(Debug)]
enum Place {
    Folder(Folder),
    S3(Arc<S3>),
}

impl Place {
    /// Moves a whole, synced, verified file here.
    fn store(&self, id: ObjectId, part: &Path) -> Result<(), ObjectError> {
        match self {
            Self::Folder(folder) => folder.store(id, part),
            Self::S3(s3) => s3.store(id, part),
        }
    }

    fn len(&self, id: ObjectId) -> Result<Option<u64>, ObjectError> {
        match self {
            Self::Folder(folder) => folder.len(id),
            Self::S3(s3) => s3.len(id),
        }
    }

    fn reader(&self, id: ObjectId, offset: u64) -> Result<Box<dyn Read + Send>, ObjectError> {
        match self {
            Self::Folder(folder) => folder.reader(id, offset),
            Self::S3(s3) => s3.reader(id, offset),
        }
    }

    fn remove(&self, id: ObjectId) -> Result<bool, ObjectError> {
        match self {
            Self::Folder(folder) => folder.remove(id),
            Self::S3(s3) => s3.remove(id),
        }
    }

    fn list(&self) -> Result<Vec<(ObjectId, u64)>, ObjectError> {
        match self {
            Self::Folder(folder) => folder.list(),
            Self::S3(s3) => s3.list(),
        }
    }
}

/// An object store. A clone is the same one. Calls block.
#[derive(Clone, Debug)]
pub struct Objects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    incoming: PathBuf,
    place: Place,
    usage: Mutex<Usage>,
}

/// What takes room.
#[derive(Debug, Default)]
struct Usage {
    stored: u64,
    /// Of every part its length, or the one that it will have while somebody writes it.
    incoming: BTreeMap<ObjectId, u64>,
    /// Parts that somebody writes.
    busy: BTreeSet<ObjectId>,
}

impl Objects {
    /// The objects in a folder of this machine, which is made if it is not there: `FOLDER/aa/HEX` and
    /// `FOLDER/incoming/HEX.part`.
    ///
    /// # Errors
    /// [`ObjectError::Io`], [`ObjectError::Full`].
    pub fn folder(path: &Path) -> Result<Self, ObjectError> {
        make_folder(path)?;
        Self::new(path.join("incoming"), Place::Folder(Folder::new(path)))
    }

    /// The objects in a bucket; `incoming` is a folder of this machine for uploads until they are whole, which is made
    /// if it is not there.
    ///
    /// # Errors
    /// [`ObjectError::Address`], [`ObjectError::Plaintext`]; [`ObjectError::Remote`] and [`ObjectError::Network`] from
    /// listing the bucket; [`ObjectError::Io`].
    pub fn s3(config: &S3Config, incoming: &Path) -> Result<Self, ObjectError> {
        Self::new(incoming.to_path_buf(), Place::S3(Arc::new(S3::new(config)?)))
    }

    /// The objects at an address: `s3://BUCKET/PREFIX` (see [`S3Config::from_env`]), or a folder. `incoming` is for the
    /// former alone.
    ///
    /// # Errors
    /// Those of [`Objects::folder`] and [`Objects::s3`]; [`ObjectError::Variable`].
    pub fn open(address: &str, incoming: &Path) -> Result<Self, ObjectError> {
        match address.split_once("://") {
            Some(("s3", _)) => Self::s3(&S3Config::from_env(address)?, incoming),
            None if !address.is_empty() => Self::folder(Path::new(address)),
            _ => Err(ObjectError::Address(address.to_owned())),
        }
    }

    fn new(incoming: PathBuf, place: Place) -> Result<Self, ObjectError> {
        make_folder(&incoming)?;
        let stored = place.list()?.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
        let parts = parts(&incoming)?.into_iter().map(|(id, len, _)| (id, len)).collect();
        let usage = Mutex::new(Usage { stored, incoming: parts, busy: BTreeSet::new() });
        Ok(Self(Arc::new(Inner { incoming, place, usage })))
    }

    /// Begins an upload of `len` bytes, or goes on with one that stopped: see [`Upload::offset`]. An object that is
    /// there already is complete at once.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`], [`ObjectError::Quota`], [`ObjectError::Reserve`]; [`ObjectError::InUse`] while
    /// somebody else writes it; [`ObjectError::Length`] if it is there with another length; [`ObjectError::Io`],
    /// [`ObjectError::Full`], and those of a remote service.
    pub fn begin(&self, id: ObjectId, len: u64, limits: &Limits) -> Result<Upload, ObjectError> {
        if len > limits.object {
            return Err(ObjectError::TooLarge { len, limit: limits.object });
        }
        match self.0.place.len(id)? {
            Some(found) if found != len => return Err(ObjectError::Length { id, expected: len, found }),
            Some(_) => return Ok(Upload { inner: Arc::clone(&self.0), id, len, offset: len, part: None, hash: None }),
            None => {}
        }
        self.0.reserve(id, len, limits)?;
        // From here on its drop gives the place in `busy` back.
        let mut upload = Upload { inner: Arc::clone(&self.0), id, len, offset: 0, part: None, hash: None };
        match self.0.open_part(id, len) {
            Ok((file, offset)) => {
                (upload.part, upload.offset) = (Some(file), offset);
                upload.hash = (offset == 0).then(Sha256::new);
                self.0.check_reserve(len - offset, limits)?;
                Ok(upload)
            }
            Err(error) => {
                self.0.give_up(id);
                Err(error)
            }
        }
    }

    /// Stores bytes of the server itself.
    ///
    /// # Errors
    /// Those of [`Objects::begin`] and [`Upload::finish`].
    pub fn put(&self, bytes: &[u8], limits: &Limits) -> Result<ObjectId, ObjectError> {
        let id = ObjectId::of(bytes);
        let mut upload = self.begin(id, bytes.len() as u64, limits)?;
        let rest = usize::try_from(upload.offset()).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
        upload.append(rest)?;
        upload.finish()?;
        Ok(id)
    }

    /// All bytes of an object, checked by their hash.
    ///
    /// # Errors
    /// [`ObjectError::Missing`]; [`ObjectError::Hash`] for a damaged one; [`ObjectError::Io`], and those of a remote
    /// service.
    pub fn read(&self, id: ObjectId) -> Result<Vec<u8>, ObjectError> {
        let mut bytes = Vec::new();
        self.0.place.reader(id, 0)?.read_to_end(&mut bytes).map_err(io("read the object", id))?;
        let found = ObjectId::of(&bytes);
        if found == id { Ok(bytes) } else { Err(ObjectError::Hash { expected: id, found }) }
    }

    /// The bytes of an object of `len` bytes, in place of what was in `bytes`. Their hash is not checked: for an object that this process
    /// has just taken.
    ///
    /// # Errors
    /// [`ObjectError::Missing`]; [`ObjectError::Length`] for one that is longer; [`ObjectError::Io`], also for one that is shorter, and
    /// those of a remote service.
    pub fn read_into(&self, id: ObjectId, len: u64, bytes: &mut Vec<u8>) -> Result<(), ObjectError> {
        let mut reader = self.0.place.reader(id, 0)?;
        let room = usize::try_from(len).map_err(|_| ObjectError::TooLarge { len, limit: usize::MAX as u64 })?;
        bytes.resize(room, 0);
        reader.read_exact(bytes).map_err(io("read the object", id))?;
        match reader.read(&mut [0]).map_err(io("read the object", id))? {
            0 => Ok(()),
            _ => Err(ObjectError::Length { id, expected: len, found: self.0.place.len(id)?.unwrap_or(u64::MAX) }),
        }
    }

    /// Checks an object by its hash, with little memory; its length in bytes.
    ///
    /// # Errors
    /// Those of [`Objects::read`].
    pub fn verify(&self, id: ObjectId) -> Result<u64, ObjectError> {
        let (found, len) = hash(&mut self.0.place.reader(id, 0)?).map_err(io("read the object", id))?;
        if found == id { Ok(len) } else { Err(ObjectError::Hash { expected: id, found }) }
    }

    /// The bytes of an object from `offset` on, not checked: the reader compares the hash of all of it. Behind the end
    /// there are none.
    ///
    /// # Errors
    /// [`ObjectError::Missing`], [`ObjectError::Io`], and those of a remote service.
    pub fn reader(&self, id: ObjectId, offset: u64) -> Result<Box<dyn Read + Send>, ObjectError> {
        self.0.place.reader(id, offset)
    }

    /// The length of an object in bytes, if it is there.
    ///
    /// # Errors
    /// [`ObjectError::Io`], and those of a remote service.
    pub fn len(&self, id: ObjectId) -> Result<Option<u64>, ObjectError> {
        self.0.place.len(id)
    }

    /// Deletes an object; false if there was none.
    ///
    /// # Errors
    /// [`ObjectError::Io`], and those of a remote service.
    pub fn remove(&self, id: ObjectId) -> Result<bool, ObjectError> {
        let Some(len) = self.0.place.len(id)? else { return Ok(false) };
        let removed = self.0.place.remove(id)?;
        if removed {
            let mut usage = self.0.usage();
            usage.stored = usage.stored.saturating_sub(len);
        }
        Ok(removed)
    }

    /// All objects with their lengths in bytes, by name.
    ///
    /// # Errors
    /// [`ObjectError::Io`], and those of a remote service.
    pub fn list(&self) -> Result<Vec<(ObjectId, u64)>, ObjectError> {
        let mut all = self.0.place.list()?;
        all.sort_unstable();
        Ok(all)
    }

    /// Deletes parts that nobody has written to since `before` and nobody is writing now; the bytes that this frees.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn sweep(&self, before: SystemTime) -> Result<u64, ObjectError> {
        let mut freed = 0;
        for (id, len, written) in parts(&self.0.incoming)? {
            let mut usage = self.0.usage();
            if written < before && !usage.busy.contains(&id) {
                let path = self.0.part(id);
                std::fs::remove_file(&path).map_err(io("delete", path.display()))?;
                usage.incoming.remove(&id);
                freed += len;
            }
        }
        Ok(freed)
    }

    /// Bytes that count against [`Limits::total`] now.
    pub fn used(&self) -> u64 {
        let usage = self.0.usage();
        usage.incoming.values().fold(usage.stored, |sum, len| sum.saturating_add(*len))
    }
}

impl Inner {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, id: ObjectId) -> PathBuf {
        self.incoming.join(format!("{id}.part"))
    }

    /// Claims the part and its room.
    fn reserve(&self, id: ObjectId, len: u64, limits: &Limits) -> Result<(), ObjectError> {
        let mut usage = self.usage();
        if usage.busy.contains(&id) {
            return Err(ObjectError::InUse(id));
        }
        let others = usage.incoming.iter().filter(|(other, _)| **other != id);
        let used = others.fold(usage.stored, |sum, (_, len)| sum.saturating_add(*len));
        if used.saturating_add(len) > limits.total {
            return Err(ObjectError::Quota { len, used, limit: limits.total });
        }
        usage.incoming.insert(id, len);
        usage.busy.insert(id);
        Ok(())
    }

    /// Refuses to fill the disk.
    fn check_reserve(&self, more: u64, limits: &Limits) -> Result<(), ObjectError> {
        match free_bytes(&self.incoming) {
            Some(free) if free < more.saturating_add(limits.reserve) => {
                Err(ObjectError::Reserve { len: more, free, reserve: limits.reserve })
            }
            _ => Ok(()),
        }
    }

    /// The part to append to, and how much of it is there.
    fn open_part(&self, id: ObjectId, len: u64) -> Result<(File, u64), ObjectError> {
        let path = self.part(id);
        let mut options = OpenOptions::new();
        options.append(true).read(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&path).map_err(io("open", path.display()))?;
        let mut offset = file.metadata().map_err(io("read the length of", path.display()))?.len();
        if offset > len {
            // Whoever began it meant another length, and one of the two was wrong.
            file.set_len(0).map_err(io("empty", path.display()))?;
            offset = 0;
        }
        Ok((file, offset))
    }

    /// Nobody writes the part any more: what counts is what lies there.
    fn give_up(&self, id: ObjectId) {
        let mut usage = self.usage();
        match std::fs::metadata(self.part(id)) {
            Ok(found) => usage.incoming.insert(id, found.len()),
            Err(_) => usage.incoming.remove(&id),
        };
        usage.busy.remove(&id);
    }
}

/// SHA-256 and length of what a reader gives.
fn hash(reader: &mut dyn Read) -> std::io::Result<(ObjectId, u64)> {
    let (mut state, mut len, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok((ObjectId(state.finalize().into()), len)),
            Ok(n) => {
                state.update(&chunk[..n]);
                len += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A folder for this user alone, if it is not there.
fn make_folder(path: &Path) -> Result<(), ObjectError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).map_err(io("make the folder", path.display()))
}

/// The parts in a folder, their lengths, and when they were last written. Other files are not ours.
fn parts(folder: &Path) -> Result<Vec<(ObjectId, u64, SystemTime)>, ObjectError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io("list", folder.display()))? {
        let entry = entry.map_err(io("list", folder.display()))?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".part")?.parse().ok()) else { continue };
        match entry.metadata().and_then(|m| Ok((m.len(), m.modified()?))) {
            Ok((len, written)) => found.push((id, len, written)),
            // Finished meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io("read the length of", entry.path().display())(error)),
        }
    }
    Ok(found)
}

/// Bytes that this user may still write on the disk of a folder; `None` where the system does not say.
#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes that this user may still write on the disk of a folder; `None` where the system does not say.
#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests;
