//! Large objects on their way to parties, so many at a time.
//!
//! What is being sent has buffers in every layer. When a round begins, all of its cohort fetch the model at once: without turns
//! they would all have theirs at once.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::net::wire::{CHUNK, v1};

/// Objects that are sent at a time.
const AT_A_TIME: usize = 32;
/// Chunks that wait for a connection to take them: they are parts of the object itself, and take no memory.
const AHEAD: usize = 4;
/// How long a party may take nothing before the next one begins beside it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whose turn it is.
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Turns {
    /// The bytes in chunks, once it is their turn.
    pub(super) fn send(&self, mut bytes: Bytes) -> ReceiverStream<Result<v1::DownloadChunk, Status>> {
        let (chunks, stream) = mpsc::channel(AHEAD);
        let turns = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut turn = tokio::select! {
                turn = turns.acquire_owned() => turn.ok(),
                () = chunks.closed() => return,
            };
            while !bytes.is_empty() {
                let room = match timeout(PATIENCE, chunks.reserve()).await {
                    Ok(room) => room,
                    Err(_) => {
                        turn = None;
                        chunks.reserve().await
                    }
                };
                let Ok(room) = room else { return };
                let bytes = bytes.split_to(CHUNK.min(bytes.len()));
                room.send(Ok(v1::DownloadChunk { bytes }));
            }
            drop(turn);
        });
        ReceiverStream::new(stream)
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn all_bytes_come_in_order_and_nothing_of_nothing() {
        let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|i| (i % 251) as u8).collect();
        let chunks: Vec<_> =
            Turns::default().send(bytes.clone().into()).map(|chunk| chunk.unwrap().bytes).collect().await;
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [CHUNK, CHUNK, CHUNK, 5]);
        assert_eq!(chunks.concat(), bytes);
        assert!(Turns::default().send(Bytes::new()).next().await.is_none());
    }

    #[tokio::test]
    async fn who_takes_nothing_or_leaves_keeps_nobody_waiting() {
        let (turns, bytes) = (Turns::default(), Bytes::from(vec![7; 8 * CHUNK]));
        let idle: Vec<_> = (0..AT_A_TIME).map(|_| turns.send(bytes.clone())).collect();
        let mut next = turns.send(bytes.clone());
        for _ in 0..3 {
            tokio::select! {
                biased;
                _ = next.next() => panic!("it is not its turn"),
                () = tokio::task::yield_now() => {}
            }
        }
        // It is, once the others have taken nothing for a while.
        assert!(next.next().await.is_some());
        drop((idle, turns.send(bytes.clone())));
        assert_eq!(turns.send(bytes).collect::<Vec<_>>().await.len(), 8);
    }
}
