//! Bytes of uploads that wait to be written together.
//!
//! Every write hands the other calls to another thread, which costs as much as some of the copies: an upload of a usual model is
//! written once. Where many upload at a time, each writes what it has, so that memory stays bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use prost::bytes::Bytes;

/// Bytes of an upload that are written together.
const TOGETHER: usize = 1 << 20;
/// Bytes of all uploads above which each writes what it has.
const ROOM: usize = 64 << 20;

/// What waits of one upload; the number is that of all.
pub(super) struct Gathered<'a> {
    all: &'a AtomicUsize,
    bytes: Vec<Bytes>,
    len: usize,
}

impl<'a> Gathered<'a> {
    /// Nothing yet, beside what others have.
    pub(super) fn new(all: &'a AtomicUsize) -> Self {
        Self { all, bytes: Vec::new(), len: 0 }
    }

    /// Adds the next bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.all.fetch_add(bytes.len(), Ordering::Relaxed);
        self.len += bytes.len();
        self.bytes.push(bytes);
    }

    /// Whether it is time to write.
    pub(super) fn is_enough(&self) -> bool {
        self.len >= TOGETHER || self.all.load(Ordering::Relaxed) > ROOM
    }

    /// What waits; nothing does any more.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.all.fetch_sub(self.len, Ordering::Relaxed);
        self.len = 0;
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_upload_waits_for_a_whole_piece_and_many_do_not() {
        let (all, chunk) = (AtomicUsize::new(0), Bytes::from(vec![1; 64 << 10]));
        let mut one = Gathered::new(&all);
        for _ in 0..15 {
            one.push(chunk.clone());
            assert!(!one.is_enough());
        }
        one.push(chunk.clone());
        assert!(one.is_enough());
        assert_eq!((one.take().len(), one.take().len(), all.load(Ordering::Relaxed)), (16, 0, 0));
        let mut many: Vec<Gathered<'_>> = (0..1025).map(|_| Gathered::new(&all)).collect();
        many.iter_mut().for_each(|upload| upload.push(chunk.clone()));
        assert!(many.iter().all(Gathered::is_enough));
        many.truncate(1024);
        assert!(!many[0].is_enough());
        drop(many);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
