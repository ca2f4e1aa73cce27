//! TCP connections that count what passes through them.
//!
//! A large message on a slow path takes longer than a ping may. Whether the other side is alive is told by bytes, not by messages.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::Metrics;

/// How many bytes have passed. Where the socket is not ours, in the server of an application, how many frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counts_frames: bool,
    read: AtomicU64,
    written: AtomicU64,
    /// The answer has no end.
    is_stream: AtomicBool,
}

impl Activity {
    pub(crate) fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Whether only whole frames are seen, which may be long under way.
    pub(crate) fn counts_frames(&self) -> bool {
        self.0.counts_frames
    }

    /// A frame came.
    pub(crate) fn frame_read(&self) {
        if self.0.counts_frames {
            self.0.read.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Frames were handed to the system.
    pub(crate) fn frames_written(&self) {
        if self.0.counts_frames {
            self.0.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As if so many bytes had passed.
    #[cfg(test)]
    pub(crate) fn pass(&self, read: u64, written: u64) {
        self.0.read.fetch_add(read, Ordering::Relaxed);
        self.0.written.fetch_add(written, Ordering::Relaxed);
    }

    /// The answer goes on and on. It says something now and then, also if there is nothing to say.
    pub(crate) fn be_stream(&self) {
        self.0.is_stream.store(true, Ordering::Relaxed);
    }

    /// Whether it is such an answer.
    pub(crate) fn is_stream(&self) -> bool {
        self.0.is_stream.load(Ordering::Relaxed)
    }
}

impl<S: Sync> FromRequestParts<S> for Activity {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let of_socket = parts.extensions.get::<Self>().cloned();
        Ok(of_socket.unwrap_or_else(|| Self(Arc::new(Counts { counts_frames: true, ..Counts::default() }))))
    }
}

/// A connection that counts.
pub(crate) struct CountingStream {
    stream: TcpStream,
    activity: Activity,
    metrics: Arc<Metrics>,
    _place: Option<OwnedSemaphorePermit>,
}

impl CountingStream {
    /// `place` is given back when the connection is closed.
    pub(crate) fn new(stream: TcpStream, place: Option<OwnedSemaphorePermit>, metrics: Arc<Metrics>) -> Self {
        metrics.sockets.increment(1);
        Self { stream, activity: Activity::default(), metrics, _place: place }
    }

    /// What passes through it.
    pub(crate) fn activity(&self) -> Activity {
        self.activity.clone()
    }
}

impl Drop for CountingStream {
    fn drop(&mut self) {
        self.metrics.sockets.decrement(1);
    }
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        self.activity.0.read.fetch_add(count as u64, Ordering::Relaxed);
        self.metrics.bytes_received.increment(count as u64);
        polled
    }
}

impl CountingStream {
    fn count(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = polled {
            self.activity.0.written.fetch_add(count as u64, Ordering::Relaxed);
            self.metrics.bytes_sent.increment(count as u64);
        }
        polled
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count(polled)
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
