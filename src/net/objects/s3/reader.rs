//! An object read piece by piece.

use std::io::Read;
use std::sync::Arc;

use super::S3;
use crate::net::objects::ObjectId;

/// Reads an object from somewhere to its end; one piece is in memory.
#[derive(Debug)]
pub(super) struct Pieces {
    s3: Arc<S3>,
    id: ObjectId,
    /// Where the next piece begins.
    offset: u64,
    len: u64,
    piece: std::io::Cursor<Vec<u8>>,
}

impl Pieces {
    pub(super) fn new(s3: Arc<S3>, id: ObjectId, offset: u64, len: u64) -> Self {
        Self { s3, id, offset, len, piece: std::io::Cursor::default() }
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.piece.read(out)?;
        if read > 0 || out.is_empty() || self.offset >= self.len {
            return Ok(read);
        }
        let piece = self.s3.piece(self.id, self.offset, self.len).map_err(std::io::Error::other)?;
        self.offset += piece.len() as u64;
        self.piece = std::io::Cursor::new(piece);
        self.piece.read(out)
    }
}
