//! An upload on its way in.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::io;
use super::{Inner, ObjectError, ObjectId, hash};

/// An upload. Dropped before it is finished, it can be continued later.
#[derive(Debug)]
pub struct Upload {
    pub(super) inner: Arc<Inner>,
    pub(super) id: ObjectId,
    pub(super) len: u64,
    pub(super) offset: u64,
    /// `None` for an object that was there already.
    pub(super) part: Option<File>,
    /// Of all bytes so far, where this upload has brought them all: they need not be read again.
    pub(super) hash: Option<Sha256>,
}

impl Upload {
    /// How many bytes are there: where the sender goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all bytes are there.
    pub fn is_complete(&self) -> bool {
        self.offset == self.len
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`ObjectError::Overrun`] beyond the announced length: nothing of them was written then. [`ObjectError::Full`],
    /// [`ObjectError::Io`]: the upload goes on with the same bytes again.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        let more = bytes.len() as u64;
        if more > self.len - self.offset {
            return Err(ObjectError::Overrun { id: self.id, len: self.len, offset: self.offset, more });
        }
        let Some(file) = &mut self.part else { return Ok(()) };
        if let Err(error) = file.write_all(bytes) {
            // What was written of them goes, so that the offset stays true.
            let _ = file.set_len(self.offset);
            return Err(io("write", self.inner.part(self.id).display())(error));
        }
        self.offset += more;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    /// Checks the hash, of what lies there if not all of it came at once, and stores it for good.
    ///
    /// # Errors
    /// [`ObjectError::Short`]: the upload can be continued. [`ObjectError::Hash`]: the part is deleted.
    /// [`ObjectError::Full`], [`ObjectError::Io`] and those of a remote service: it can be finished again.
    pub fn finish(mut self) -> Result<ObjectId, ObjectError> {
        if !self.is_complete() {
            return Err(ObjectError::Short { id: self.id, len: self.len, offset: self.offset });
        }
        let Some(file) = self.part.take() else { return Ok(self.id) };
        let path = self.inner.part(self.id);
        let result = self.settle(file, &path);
        self.inner.give_up(self.id);
        result.map(|()| self.id)
    }

    fn settle(&self, file: File, path: &Path) -> Result<(), ObjectError> {
        file.sync_all().map_err(io("sync", path.display()))?;
        drop(file);
        let found = match &self.hash {
            Some(hash) => ObjectId(hash.clone().finalize().into()),
            None => {
                let mut file = File::open(path).map_err(io("open", path.display()))?;
                hash(&mut file).map_err(io("read", path.display()))?.0
            }
        };
        if found != self.id {
            std::fs::remove_file(path).map_err(io("delete", path.display()))?;
            return Err(ObjectError::Hash { expected: self.id, found });
        }
        // Another upload of it may have ended between the look for it and the claim of the part.
        let new = self.inner.place.len(self.id)?.is_none();
        self.inner.place.store(self.id, path)?;
        if new {
            let mut usage = self.inner.usage();
            usage.stored = usage.stored.saturating_add(self.len);
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.part.take().is_some() {
            self.inner.give_up(self.id);
        }
    }
}
