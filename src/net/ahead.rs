//! A TCP connection that is read in large pieces.
//!
//! TLS asks for 4 KiB at a time, which makes four calls of the system for each of its records. Here it gets what came already.
//! A connection on which nothing comes keeps no memory for that: there may be ten thousand of them.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use prost::bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that are read at once: four records of TLS.
const PIECE: usize = 64 << 10;

/// A TCP connection that is read 64 KiB at a time, and written as it is.
#[derive(Debug)]
pub struct ReadAhead {
    stream: TcpStream,
    /// Read, and not asked for yet.
    ahead: BytesMut,
}

impl ReadAhead {
    /// Reads this connection from here on.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: BytesMut::new() }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, ahead } = &mut *self;
        while ahead.is_empty() {
            // Memory is taken once there is something to put into it.
            ready!(stream.poll_read_ready(cx))?;
            ahead.reserve(PIECE);
            let polled = pin!(stream.read_buf(ahead)).poll(cx);
            if ahead.is_empty() {
                // The end, an error, or nothing after all.
                *ahead = BytesMut::new();
                return polled.map_ok(drop);
            }
        }
        let some = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..some]);
        ahead.advance(some);
        if ahead.is_empty() {
            *ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_bytes_come_in_order_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut receiver = ReadAhead::new(listener.accept().await.unwrap().0);
        let sent: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            for part in bytes.chunks(10_007) {
                sender.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut found, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let most = 1 + found.len() % piece.len();
            match receiver.read(&mut piece[..most]).await.unwrap() {
                0 => break,
                n => found.extend_from_slice(&piece[..n]),
            }
        }
        sending.await.unwrap();
        assert_eq!(found, sent);
        assert_eq!(receiver.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn who_hears_nothing_keeps_no_memory_and_writes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut one = ReadAhead::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let mut other = ReadAhead::new(listener.accept().await.unwrap().0);
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = other.read(&mut byte) => panic!("nothing was sent"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(other.ahead.capacity(), 0);
        assert!(one.is_write_vectored());
        one.write_all_buf(&mut Buf::chain(&b"ab"[..], &b"c"[..])).await.unwrap();
        one.flush().await.unwrap();
        let mut three = [0; 3];
        other.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"abc");
        one.shutdown().await.unwrap();
        assert_eq!(other.read(&mut byte).await.unwrap(), 0);
    }
}
