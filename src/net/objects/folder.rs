//! Objects in a folder: `FOLDER/aa/HEX`, `aa` the first two digits of the name.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::io;
use super::{ObjectError, ObjectId, make_folder};

/// A folder of objects.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    fn path(&self, id: ObjectId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(name)
    }

    /// Moves a synced file to its name, and makes the name durable.
    pub(super) fn store(&self, id: ObjectId, part: &Path) -> Result<(), ObjectError> {
        let path = self.path(id);
        let synced = |path: &Path| {
            crate::files::sync_folder_of(path).map_err(|error| io("sync the folder of", path.display())(error.source))
        };
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            make_folder(folder)?;
            synced(folder)?;
        }
        std::fs::rename(part, &path).map_err(io("rename a part to", path.display()))?;
        synced(&path)
    }

    pub(super) fn len(&self, id: ObjectId) -> Result<Option<u64>, ObjectError> {
        let path = self.path(id);
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read the length of", path.display())(error)),
        }
    }

    pub(super) fn reader(&self, id: ObjectId, offset: u64) -> Result<Box<dyn Read + Send>, ObjectError> {
        let path = self.path(id);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ObjectError::Missing(id)),
            Err(error) => return Err(io("open", path.display())(error)),
        };
        file.seek(SeekFrom::Start(offset)).map_err(io("read", path.display()))?;
        Ok(Box::new(file))
    }

    pub(super) fn remove(&self, id: ObjectId) -> Result<bool, ObjectError> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("delete", path.display())(error)),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<(ObjectId, u64)>, ObjectError> {
        let mut found = Vec::new();
        for folder in children(&self.root)? {
            if folder.file_name().is_none_or(|name| name.len() != 2) || !folder.is_dir() {
                continue;
            }
            for path in children(&folder)? {
                let id = path.file_name().and_then(|name| name.to_str()?.parse::<ObjectId>().ok());
                let Some(id) = id.filter(|id| self.path(*id) == path) else { continue };
                if let Some(len) = self.len(id)? {
                    found.push((id, len));
                }
            }
        }
        Ok(found)
    }
}

/// What lies in a folder.
fn children(folder: &Path) -> Result<Vec<PathBuf>, ObjectError> {
    let entries = std::fs::read_dir(folder).map_err(io("list", folder.display()))?;
    entries.map(|entry| Ok(entry.map_err(io("list", folder.display()))?.path())).collect()
}
