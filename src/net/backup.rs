//! Backups of a federation's server: a copy of the store and of the objects that it needs, taken while the server runs.
//!
//! ```text
//! FOLDER/store.db           one state of the store, as an SQLite file whatever the store is
//! FOLDER/objects/aa/HEX     the objects that this state needs
//! FOLDER/manifest.json      hashes and lengths of both, written last: without it a backup is not complete
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::FileError;
use crate::net::objects::{Limits, ObjectError, ObjectId, Objects};
use crate::net::store::{Reference, SqliteStore, Store, StoreError};

/// The format of the manifest.
const FORMAT: u32 = 1;
/// The most bytes of a manifest that are read.
const MANIFEST_BYTES: u64 = 1 << 28;
/// How often a copy begins anew where the server deletes an object meanwhile.
const TURNS: u32 = 5;

/// What a backup or a restoration refuses or cannot do.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder that should have been empty.
    #[error("{} is not empty; name a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// Objects of something else where a backup should go.
    #[error(
        "the object store has {count} objects that the backup has not, {example} for one; restore into an empty one"
    )]
    ForeignObjects {
        /// How many.
        count: usize,
        /// One of them.
        example: ObjectId,
    },
    /// A manifest that is none.
    #[error("{}: {problem}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A copy that is not what the manifest says, or that does not hold together.
    #[error("the backup {} is damaged, nothing was restored: {} ({count} findings); use another backup", path.display(), first)]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// The first finding.
        first: String,
        /// How many there are.
        count: usize,
    },
}

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the manifest.
    pub format: u32,
    /// SHA-256 of `store.db`, 64 hexadecimal digits.
    pub store: String,
    /// Its length, bytes.
    pub store_bytes: u64,
    /// The objects by name, with their lengths in bytes.
    pub objects: BTreeMap<String, u64>,
}

/// Something that [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// In the store.
    Store(String),
    /// An object that something needs is not there.
    Missing(Reference),
    /// An object that something needs has other bytes or another length.
    Damaged {
        /// What needs it.
        reference: Reference,
        /// What is wrong.
        problem: String,
    },
    /// An object that nothing needs: of an upload that no entry refers to (yet), or left over by a crash.
    Unneeded {
        /// The object.
        id: ObjectId,
        /// Its length, bytes.
        len: u64,
    },
}

impl Finding {
    /// Whether something is lost; otherwise only room is.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Unneeded { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(problem) => write!(f, "the store: {problem}"),
            Self::Missing(reference) => write!(f, "object {} is missing, {} needs it", reference.id, reference.by),
            Self::Damaged { reference, problem } => {
                write!(f, "object {}, which {} needs: {problem}", reference.id, reference.by)
            }
            Self::Unneeded { id, len } => write!(f, "object {id} ({len} bytes) is needed by nothing"),
        }
    }
}

/// Reads everything: every row and its hash, the states of attempts against the records of rounds, and every object
/// that something needs.
///
/// # Errors
/// What keeps it from looking; damage is a finding.
pub fn verify(store: &dyn Store, objects: &Objects) -> Result<Vec<Finding>, BackupError> {
    let mut findings: Vec<Finding> = store.check()?.into_iter().map(Finding::Store).collect();
    let mut needed = BTreeSet::new();
    for reference in store.references()? {
        if !needed.insert(reference.id) {
            continue;
        }
        match objects.verify(reference.id) {
            Ok(len) if len == reference.len => {}
            Ok(len) => {
                let problem = format!("it has {len} bytes, not {}", reference.len);
                findings.push(Finding::Damaged { reference, problem });
            }
            Err(ObjectError::Missing(_)) => findings.push(Finding::Missing(reference)),
            Err(error @ ObjectError::Hash { .. }) => {
                findings.push(Finding::Damaged { reference, problem: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let others = objects.list()?.into_iter().filter(|(id, _)| !needed.contains(id));
    findings.extend(others.map(|(id, len)| Finding::Unneeded { id, len }));
    Ok(findings)
}

/// Copies one state of the store, and the objects that it needs, to a new or empty folder, while the server runs.
///
/// # Errors
/// [`BackupError::NotEmpty`]; an object that is missing or damaged; those of the store and of files. What was written
/// until then has no manifest, and is no backup.
pub fn backup(store: &dyn Store, objects: &Objects, to: &Path) -> Result<Manifest, BackupError> {
    if std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BackupError::NotEmpty(to.to_path_buf()));
    }
    let copies = Objects::folder(&to.join("objects"))?;
    let path = to.join("store.db");
    let mut turn = 1;
    let needed = loop {
        store.snapshot(&path)?;
        let needed = needed_by(&path)?;
        match copy_objects(&needed, objects, &copies) {
            Ok(()) => break needed,
            // A round that ended after the snapshot may have lost its payloads: the next snapshot does not need them.
            Err(BackupError::Object(ObjectError::Missing(id)))
                if turn < TURNS && !store.references()?.iter().any(|r| r.id == id) =>
            {
                std::fs::remove_file(&path).map_err(file_error("delete", &path))?;
                turn += 1;
            }
            Err(error) => return Err(error),
        }
    };
    // What only an earlier snapshot needed.
    for (id, _) in copies.list()?.into_iter().filter(|(id, _)| !needed.contains_key(id)) {
        copies.remove(id)?;
    }
    let (sha256, store_bytes) = hash_file(&path)?;
    let objects = needed.iter().map(|(id, len)| (id.to_string(), *len)).collect();
    let manifest = Manifest { format: FORMAT, store: hex::encode(sha256), store_bytes, objects };
    let path = to.join("manifest.json");
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| BackupError::Manifest { path: path.clone(), problem: error.to_string() })?;
    crate::files::write_atomic(&path, &text)?;
    Ok(manifest)
}

/// Checks a backup: every hash, every row, and that everything that is needed is there.
///
/// # Errors
/// [`BackupError::Manifest`] for a folder that is no complete backup; what keeps it from looking.
pub fn verify_backup(from: &Path) -> Result<(Manifest, Vec<Finding>), BackupError> {
    let manifest = read_manifest(from)?;
    let path = from.join("store.db");
    let (sha256, bytes) = hash_file(&path)?;
    if (hex::encode(sha256), bytes) != (manifest.store.clone(), manifest.store_bytes) {
        let problem =
            format!("store.db has {bytes} bytes and hash {}; the manifest says otherwise", hex::encode(sha256));
        return Ok((manifest, vec![Finding::Store(problem)]));
    }
    // To open a store may write to it, and a backup stays as it is.
    let scratch = Scratch::of(&path)?;
    let store = SqliteStore::open(&scratch.path)?;
    let mut findings = verify(&store, &Objects::folder(&from.join("objects"))?)?;
    for reference in Store::references(&store)? {
        if manifest.objects.get(&reference.id.to_string()) != Some(&reference.len) {
            findings.push(Finding::Missing(reference));
        }
    }
    Ok((manifest, findings))
}

/// Fills an empty store and an empty object store from a backup. Everything is verified before anything is written;
/// the store comes last, in one transaction, so that a restoration that was interrupted can begin again.
///
/// # Errors
/// [`BackupError::Damaged`], [`BackupError::Manifest`]; [`StoreError::NotEmpty`], [`BackupError::ForeignObjects`];
/// those of both stores.
pub fn restore(from: &Path, store: &dyn Store, objects: &Objects) -> Result<Manifest, BackupError> {
    let (manifest, findings) = verify_backup(from)?;
    let mut damage = findings.iter().filter(|finding| finding.is_damage());
    if let Some(first) = damage.next() {
        let (path, first, count) = (from.to_path_buf(), first.to_string(), 1 + damage.count());
        return Err(BackupError::Damaged { path, first, count });
    }
    let known = |id: &ObjectId| manifest.objects.contains_key(&id.to_string());
    let foreign: Vec<ObjectId> = objects.list()?.into_iter().map(|(id, _)| id).filter(|id| !known(id)).collect();
    if let Some(example) = foreign.first() {
        return Err(BackupError::ForeignObjects { count: foreign.len(), example: *example });
    }
    if !store.is_empty()? {
        return Err(StoreError::NotEmpty { place: store.place().to_owned() }.into());
    }
    let scratch = Scratch::of(&from.join("store.db"))?;
    let needed = needed_by(&scratch.path)?;
    copy_objects(&needed, &Objects::folder(&from.join("objects"))?, objects)?;
    store.load(&scratch.path)?;
    Ok(manifest)
}

/// A copy of a file in a temporary folder, gone on drop.
struct Scratch {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scratch {
    fn of(path: &Path) -> Result<Self, BackupError> {
        let folder = tempfile::tempdir().map_err(file_error("make a temporary folder for", path))?;
        let copy = folder.path().join("store.db");
        std::fs::copy(path, &copy).map_err(file_error("copy", path))?;
        Ok(Self { path: copy, _folder: folder })
    }
}

/// The objects that a snapshot needs, with their lengths.
fn needed_by(snapshot: &Path) -> Result<BTreeMap<ObjectId, u64>, BackupError> {
    let store = SqliteStore::open(snapshot)?;
    let references = Store::references(&store)?;
    store.into_one_file()?;
    Ok(references.into_iter().map(|reference| (reference.id, reference.len)).collect())
}

/// Copies objects, each checked by its hash; those that are there already stay.
fn copy_objects(needed: &BTreeMap<ObjectId, u64>, from: &Objects, to: &Objects) -> Result<(), BackupError> {
    let mut chunk = vec![0; 1 << 16];
    for (&id, &len) in needed {
        let mut upload = to.begin(id, len, &Limits::NONE)?;
        if upload.is_complete() {
            upload.finish()?;
            continue;
        }
        let mut reader = from.reader(id, upload.offset())?;
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => upload.append(&chunk[..n])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ObjectError::Io { action: "read the object", place: id.to_string(), source }.into());
                }
            }
        }
        upload.finish()?;
    }
    Ok(())
}

fn read_manifest(from: &Path) -> Result<Manifest, BackupError> {
    let path = from.join("manifest.json");
    let file = File::open(&path).map_err(file_error("open", &path))?;
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES).read_to_end(&mut text).map_err(file_error("read", &path))?;
    let problem = match serde_json::from_slice::<Manifest>(&text) {
        Ok(manifest) if manifest.format == FORMAT => return Ok(manifest),
        Ok(manifest) => format!("its format is {}; this version of veilsum knows {FORMAT}", manifest.format),
        Err(error) => format!("not the manifest of a backup: {error}"),
    };
    Err(BackupError::Manifest { path, problem })
}

/// SHA-256 and length of a file.
fn hash_file(path: &Path) -> Result<([u8; 32], u64), BackupError> {
    let mut file = File::open(path).map_err(file_error("open", path))?;
    let (mut hash, mut len, mut chunk) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hash.finalize().into(), len)),
            Ok(n) => {
                hash.update(&chunk[..n]);
                len += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(file_error("read", path)(error)),
        }
    }
}

/// For `map_err` on an I/O result.
fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    move |source| BackupError::File(FileError { action, path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests;
