//! What waits to be sent on one connection, and the wish to close it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::Bytes;
use highwater_core::CloseReason;
use highwater_core::document::ConnectionId;
use tokio::sync::{Notify, mpsc};

use crate::document::Command;
use crate::limits::{REFUSED_FREE_MAX, REFUSED_MAX, REFUSED_PAUSE, REFUSED_PAUSE_MAX};

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A message.
    Binary(Bytes),
    /// A control message of the plain protocol.
    Text(Utf8Bytes),
}

impl Frame {
    fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
        }
    }
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Frame> for Message {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Binary(bytes) => Self::Binary(bytes),
            Frame::Text(text) => Self::Text(text),
        }
    }
}

/// The sending end: held by the documents that the connection has open, and by the hub.
///
/// Bounded by bytes, and never by dropping a message: whoever does not read is disconnected, so that both sides start again
/// from what they know.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    frames: mpsc::UnboundedSender<Frame>,
    shared: Arc<Shared>,
}

/// The receiving end: held by the connection.
#[derive(Debug)]
pub(crate) struct OutboxReceiver {
    frames: mpsc::UnboundedReceiver<Frame>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waiting_bytes: AtomicUsize,
    bytes_max: usize,
    /// Documents that have more to say when all that waits has been taken.
    held: Mutex<Vec<Held>>,
    is_holding: AtomicBool,
    /// How many changes of the peer were refused.
    refused: AtomicU32,
    /// The first reason to close counts.
    close: OnceLock<CloseReason>,
    closing: Notify,
}

/// A document that holds back what it has to say.
#[derive(Debug)]
struct Held {
    document: Weak<mpsc::UnboundedSender<Command>>,
    /// As whom the document knows the receiver.
    connection: ConnectionId,
}

pub(crate) fn channel(bytes_max: usize) -> (Outbox, OutboxReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        waiting_bytes: AtomicUsize::new(0),
        bytes_max,
        held: Mutex::default(),
        is_holding: AtomicBool::new(false),
        refused: AtomicU32::new(0),
        close: OnceLock::new(),
        closing: Notify::new(),
    });
    (Outbox { frames: sender, shared: shared.clone() }, OutboxReceiver { frames: receiver, shared })
}

impl Outbox {
    /// Queues a frame. If too much waits already, the connection is closed instead. A single frame always has room.
    pub(crate) fn send(&self, frame: impl Into<Frame>) {
        let frame = frame.into();
        let len = frame.len();
        let before = self.shared.waiting_bytes.fetch_add(len, Ordering::SeqCst);
        if before > 0 && before + len > self.shared.bytes_max {
            self.close(CloseReason::NotReading);
        } else {
            // Fails only if the connection is gone, and then nobody waits for the frame.
            let _ = self.frames.send(frame);
        }
    }

    /// Whether something waits that the connection has not taken yet. Then the document is told by [`Command::Ready`] as soon as it has: what happens until then
    /// makes one message, not many.
    pub(crate) fn is_behind(
        &self,
        document: &Weak<mpsc::UnboundedSender<Command>>,
        connection: ConnectionId,
    ) -> bool {
        if self.shared.waiting_bytes.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.shared.held().push(Held { document: document.clone(), connection });
        self.shared.is_holding.store(true, Ordering::SeqCst);
        // The last frame may have been taken meanwhile, by somebody who did not see that anybody waits.
        if self.shared.waiting_bytes.load(Ordering::SeqCst) == 0 {
            self.shared.release();
        }
        true
    }

    /// Changes of the peer were refused. Too many, and the connection is closed.
    pub(crate) fn note_refused(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(REFUSED_MAX);
        let before = self.shared.refused.fetch_add(count.min(REFUSED_MAX), Ordering::Relaxed);
        if before.saturating_add(count) >= REFUSED_MAX {
            self.close(CloseReason::TooManyRefused);
        }
    }

    /// How long to wait before more is read from the peer, because much of what it sent was refused.
    pub(crate) fn penalty(&self) -> Duration {
        let beyond = self.shared.refused.load(Ordering::Relaxed).saturating_sub(REFUSED_FREE_MAX);
        (REFUSED_PAUSE * beyond).min(REFUSED_PAUSE_MAX)
    }

    /// Closes the connection. What is queued is sent before, if the peer takes it soon.
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.shared.close.set(reason).is_ok() {
            self.shared.closing.notify_one();
        }
    }
}

impl Shared {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the documents that wait for it that all has been taken.
    fn release(&self) {
        self.is_holding.store(false, Ordering::SeqCst);
        for Held { document, connection } in std::mem::take(&mut *self.held()) {
            if let Some(document) = document.upgrade() {
                // A document whose task has ended has nothing to say.
                let _ = document.send(Command::Ready(connection));
            }
        }
    }
}

impl OutboxReceiver {
    /// The next frame; waits for one. `None` is never returned while a sending end exists.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        Some(self.taken(frame))
    }

    /// The next frame, if there is one.
    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        let frame = self.frames.try_recv().ok()?;
        Some(self.taken(frame))
    }

    fn taken(&self, frame: Frame) -> Frame {
        let before = self.shared.waiting_bytes.fetch_sub(frame.len(), Ordering::SeqCst);
        if before == frame.len() && self.shared.is_holding.load(Ordering::SeqCst) {
            self.shared.release();
        }
        frame
    }

    /// A handle by which to learn of the wish to close, apart from the frames.
    pub(crate) fn closing(&self) -> Closing {
        Closing(self.shared.clone())
    }
}

/// See [`OutboxReceiver::closing`].
pub(crate) struct Closing(Arc<Shared>);

impl Closing {
    /// Resolves when somebody wants the connection closed.
    pub(crate) async fn reason(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.0.close.get() {
                return reason.clone();
            }
            self.0.closing.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_closed_and_nothing_is_skipped() {
        let (outbox, mut receiver) = channel(10);
        outbox.send(Bytes::from_static(b"a frame longer than the limit, alone"));
        assert!(receiver.next().await.is_some());
        outbox.send(Bytes::from_static(b"12345"));
        outbox.send(Bytes::from_static(b"12345"));
        outbox.send(Bytes::from_static(b"!"));
        assert_eq!(receiver.closing().reason().await, CloseReason::NotReading);
        assert_eq!(receiver.try_next(), Some(Bytes::from_static(b"12345").into()));
        assert_eq!(receiver.try_next(), Some(Bytes::from_static(b"12345").into()));
        assert_eq!(receiver.try_next(), None);
    }

    #[tokio::test]
    async fn refused_changes_slow_down_and_then_close() {
        let (outbox, receiver) = channel(10);
        outbox.note_refused(REFUSED_FREE_MAX as usize);
        assert!(outbox.penalty().is_zero());
        outbox.note_refused(2);
        assert_eq!(outbox.penalty(), 2 * REFUSED_PAUSE);
        outbox.note_refused(500);
        assert_eq!(outbox.penalty(), REFUSED_PAUSE_MAX);
        outbox.note_refused(usize::MAX);
        assert_eq!(receiver.closing().reason().await, CloseReason::TooManyRefused);
    }

    #[tokio::test]
    async fn the_first_reason_counts() {
        let (outbox, receiver) = channel(10);
        outbox.close(CloseReason::Replaced);
        outbox.close(CloseReason::NotReading);
        assert_eq!(receiver.closing().reason().await, CloseReason::Replaced);
    }
}
