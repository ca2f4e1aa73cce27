//! The task that serves one WebSocket.
//!
//! It reads and writes at the same time, so that neither side can block the other, and ends in one of three ways: the peer closes, the server
//! wants it closed, or the socket breaks. However it ends, what was read is taken in by the documents that it names.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use highwater_core::document::PeerInfo;
use highwater_core::{CloseReason, DocumentId, Input, Session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::document::{Attachment, Command, Handle};
use crate::hub::{Hub, Phase, Registration};
use crate::outbox::{self, Outbox, OutboxReceiver};

/// Frames written before they are flushed.
const FLUSH_AFTER: usize = 32;
/// How long a close may take when the peer does not play along.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A socket from which nothing came for so long is taken as read empty.
const DRAIN_QUIET: Duration = Duration::from_millis(20);
/// How long a draining connection may go on sending.
const DRAIN_READ_MAX: Duration = Duration::from_millis(500);
/// Reasons are cut to what fits into a close frame.
const CLOSE_REASON_BYTES_MAX: usize = 123;

struct Connection {
    hub: Arc<Hub>,
    registration: Registration,
    session: Session,
    outbox: Outbox,
    /// Bytes that may still be read before what was read is dealt with.
    budget: Arc<Semaphore>,
    documents: HashMap<DocumentId, Handle>,
    is_extended: bool,
}

/// How reading ended.
enum End {
    /// By a close frame.
    Closed,
    /// Without one.
    Broken,
    /// By us.
    Ours(CloseReason),
}

/// Serves a WebSocket until it ends.
pub(crate) async fn serve(hub: Arc<Hub>, mut socket: WebSocket) {
    let config = hub.config();
    let (outbox, frames) = outbox::channel(config.send_queue_bytes_max);
    let session = Session::new(hub.peer_id().clone(), hub.storage_id().clone());
    let registration = match hub.register(outbox.clone()) {
        Ok(registration) => registration,
        Err(reason) => return Box::pin(close(&mut socket, &session, &reason)).await,
    };
    let budget = Arc::new(Semaphore::new(config.receive_queue_bytes_max));
    let documents = HashMap::new();
    let mut connection =
        Connection { hub: hub.clone(), registration, session, outbox, budget, documents, is_extended: false };
    connection.serve(socket, frames).await;
    connection.detach_all();
}

impl Connection {
    async fn serve(&mut self, socket: WebSocket, mut frames: OutboxReceiver) {
        let (mut sink, mut stream) = socket.split();
        let is_alive = AtomicBool::new(true);
        let closing = frames.closing();
        let ping_interval = self.hub.config().ping_interval;
        let mut phase = self.hub.phase();
        let end = tokio::select! {
            end = self.read(&mut stream, &is_alive) => end,
            end = write(&mut sink, &mut frames, &is_alive, ping_interval) => end,
            reason = closing.reason() => End::Ours(reason),
            () = draining(&mut phase) => {
                // Boxed, like all that is rare here: a connection's memory is that of its largest state.
                Box::pin(self.drain(&mut stream, &mut sink, &mut frames)).await;
                End::Ours(CloseReason::ShuttingDown)
            }
        };
        // Both halves come from this socket.
        let Ok(mut socket) = stream.reunite(sink) else { return };
        match end {
            End::Broken => {}
            End::Closed => Box::pin(self.answer_close(&mut socket, &mut frames)).await,
            End::Ours(reason) => {
                if reason != CloseReason::NotReading {
                    // What was said before the reason to close came up is still worth hearing.
                    let _ = timeout(CLOSE_TIMEOUT, Box::pin(write_rest(&mut socket, &mut frames))).await;
                }
                Box::pin(close(&mut socket, &self.session, &reason)).await;
            }
        }
    }

    /// Every frame before the close frame is durable before the close is answered: a clean close means that all is safe.
    async fn answer_close(&mut self, socket: &mut WebSocket, frames: &mut OutboxReceiver) {
        let closing = frames.closing();
        tokio::select! {
            is_settled = self.settle() => {
                // The answer is queued in the socket since the close frame was read. Without a settled document it is not given.
                if is_settled {
                    let _ = timeout(CLOSE_TIMEOUT, socket.flush()).await;
                }
            }
            _ = closing.reason() => {}
        }
    }

    async fn read(&mut self, stream: &mut SplitStream<WebSocket>, is_alive: &AtomicBool) -> End {
        let join_timeout = self.hub.config().join_timeout;
        let deadline = tokio::time::Instant::now() + join_timeout;
        loop {
            let next = stream.next();
            let message = if self.session.peer().is_some() {
                next.await
            } else {
                match tokio::time::timeout_at(deadline, next).await {
                    Ok(message) => message,
                    Err(_) => return End::Ours(CloseReason::JoinTimeout),
                }
            };
            is_alive.store(true, Ordering::Relaxed);
            if let Some(end) = self.handle_message(message).await {
                return end;
            }
        }
    }

    async fn handle_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Option<End> {
        match message {
            Some(Ok(Message::Binary(frame))) => self.handle_frame(frame).await.err().map(End::Ours),
            Some(Ok(Message::Text(_))) => Some(End::Ours(CloseReason::TextFrame)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
            Some(Ok(Message::Close(_))) => Some(End::Closed),
            Some(Err(error)) if is_too_large(&error) => Some(End::Ours(CloseReason::FrameTooLarge)),
            Some(Err(_)) | None => Some(End::Broken),
        }
    }

    async fn handle_frame(&mut self, frame: Bytes) -> Result<(), CloseReason> {
        metrics::counter!("highwater_frames_received_total").increment(1);
        match self.session.handle_frame(&frame)? {
            Input::Joined { reply } => self.joined(reply),
            Input::Sync { document, data, is_request } => {
                let permit = self.permit(data.len()).await;
                let connection = self.registration.id;
                self.send(document, Command::Sync { connection, data, is_request, permit });
            }
            Input::Ephemeral(ephemeral) => {
                let document = ephemeral.document;
                self.send(document, Command::Ephemeral(self.registration.id, Box::new(ephemeral)));
            }
            Input::Subscriptions(storages) => {
                for handle in self.documents.values() {
                    let _ = handle.send(Command::Subscriptions(self.registration.id, storages.clone()));
                }
            }
            Input::RemoteHeads { document, heads } => {
                self.send(document, Command::RemoteHeads(self.registration.id, heads));
            }
            Input::Leave => return Err(CloseReason::Left),
            Input::Nothing => {}
        }
        Ok(())
    }

    fn joined(&mut self, reply: Bytes) {
        self.detach_all();
        self.is_extended = self.session.peer_metadata().extension.is_some();
        if let Some(peer) = self.session.peer() {
            self.registration.joined(peer);
        }
        self.outbox.send(reply);
    }

    /// Waits until there is room for another frame of this size. One larger than all the room takes all of it.
    async fn permit(&self, bytes: usize) -> OwnedSemaphorePermit {
        let wanted = bytes.min(self.hub.config().receive_queue_bytes_max).try_into().unwrap_or(u32::MAX);
        self.budget.clone().acquire_many_owned(wanted).await.expect("the budget is never closed")
    }

    /// Sends a command to a document, which is opened if it is not. A task that is gone belongs to a store that failed; the
    /// connection is being closed then.
    fn send(&mut self, document: DocumentId, command: Command) {
        if !self.documents.contains_key(&document) {
            self.open(document);
        }
        if let Some(handle) = self.documents.get(&document) {
            let _ = handle.send(command);
        }
    }

    fn open(&mut self, document: DocumentId) {
        let Some(peer) = self.session.peer().cloned() else { return };
        let metadata = self.session.peer_metadata();
        let storage = metadata.storage_id.filter(|_| !metadata.is_ephemeral);
        let subscriptions = self.session.subscriptions();
        let info = PeerInfo { peer, may_write: true, storage, subscriptions };
        let attachment = Attachment { info, outbox: self.outbox.clone(), has_extension: self.is_extended };
        let handle = self.hub.open(document);
        let _ = handle.send(Command::Attach(self.registration.id, Box::new(attachment)));
        self.documents.insert(document, handle);
    }

    fn detach_all(&mut self) {
        for (_, handle) in self.documents.drain() {
            let _ = handle.send(Command::Detach(self.registration.id));
        }
    }

    /// Waits until all that was read is durable. `false` if a document could not do that.
    async fn settle(&self) -> bool {
        let mut waiting = Vec::with_capacity(self.documents.len());
        for handle in self.documents.values() {
            let (done, settled) = oneshot::channel();
            let _ = handle.send(Command::Settle(self.registration.id, done));
            waiting.push(settled);
        }
        let mut all = true;
        for settled in waiting {
            all &= settled.await.is_ok();
        }
        all
    }

    /// Before the server goes: takes in what the socket holds, waits until it is durable, and sends the acknowledgements.
    async fn drain(
        &mut self,
        stream: &mut SplitStream<WebSocket>,
        sink: &mut SplitSink<WebSocket, Message>,
        frames: &mut OutboxReceiver,
    ) {
        let until = tokio::time::Instant::now() + DRAIN_READ_MAX;
        while let Ok(message) = timeout(DRAIN_QUIET, stream.next()).await {
            if self.handle_message(message).await.is_some() || tokio::time::Instant::now() > until {
                break;
            }
        }
        if !self.settle().await {
            return;
        }
        // A peer that does not take its acknowledgements asks again when it comes back.
        let _ = timeout(CLOSE_TIMEOUT, write_rest(sink, frames)).await;
    }
}

/// Resolves when the server goes away.
async fn draining(phase: &mut tokio::sync::watch::Receiver<Phase>) {
    // The hub outlives the connection, so waiting cannot fail; if it did, there would be nothing to drain into.
    if phase.wait_for(|phase| *phase == Phase::Draining).await.is_err() {
        std::future::pending().await
    }
}

/// Writes what is queued, and pings. Ends when the peer shows no sign of life from one ping to the one after the next.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    frames: &mut OutboxReceiver,
    is_alive: &AtomicBool,
    ping_interval: Duration,
) -> End {
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + ping_interval, ping_interval);
    loop {
        tokio::select! {
            frame = frames.next() => {
                let Some(frame) = frame else { return End::Broken };
                if let Err(end) = within(2 * ping_interval, write_all(sink, frame, frames)).await {
                    return end;
                }
            }
            _ = ping.tick() => {
                if !is_alive.swap(false, Ordering::Relaxed) {
                    return End::Ours(CloseReason::PingTimeout);
                }
                if let Err(end) = within(2 * ping_interval, sink.send(Message::Ping(Bytes::new()))).await {
                    return end;
                }
            }
        }
    }
}

/// Writes a frame and those that came meanwhile, then flushes once.
async fn write_all(
    sink: &mut SplitSink<WebSocket, Message>,
    first: Bytes,
    frames: &mut OutboxReceiver,
) -> Result<(), axum::Error> {
    sink.feed(Message::Binary(first)).await?;
    for _ in 1..FLUSH_AFTER {
        match frames.try_next() {
            Some(frame) => sink.feed(Message::Binary(frame)).await?,
            None => break,
        }
    }
    sink.flush().await
}

/// Writes all that is queued.
async fn write_rest<S>(sink: &mut S, frames: &mut OutboxReceiver) -> Result<(), S::Error>
where
    S: futures::Sink<Message> + Unpin,
{
    while let Some(frame) = frames.try_next() {
        sink.feed(Message::Binary(frame)).await?;
    }
    sink.flush().await
}

/// A peer that takes nothing for so long does not read.
async fn within(limit: Duration, writing: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
    match timeout(limit, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Broken),
        Err(_) => Err(End::Ours(CloseReason::NotReading)),
    }
}

/// Says why, if the peer did something wrong, and closes with the code for it.
async fn close(socket: &mut WebSocket, session: &Session, reason: &CloseReason) {
    metrics::counter!("highwater_connections_closed_total", "reason" => reason.label()).increment(1);
    tracing::info!(peer = session.peer().map(tracing::field::display), %reason, code = reason.close_code(), "closing connection");
    let closing = async {
        if reason.is_peer_fault() {
            socket.send(Message::Binary(session.error_message(reason))).await?;
        }
        socket.send(Message::Close(Some(close_frame(reason)))).await?;
        // The peer's answer, so that it reads ours before the socket goes.
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
        Ok::<(), axum::Error>(())
    };
    // A peer that does not answer is left without a farewell.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

fn close_frame(reason: &CloseReason) -> CloseFrame {
    let mut text = match reason {
        // Clients come back at different times, not all at once.
        CloseReason::ShuttingDown => format!("{reason}; retry in {} ms", retry_hint_ms()),
        _ => reason.to_string(),
    };
    text.truncate(text.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
    CloseFrame { code: reason.close_code(), reason: Utf8Bytes::from(text) }
}

/// Between half a second and five seconds.
fn retry_hint_ms() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    500 + RandomState::new().hash_one(0) % 4_500
}

/// Whether the socket failed because a frame or a message exceeded its limit.
fn is_too_large(error: &axum::Error) -> bool {
    use std::error::Error;
    error.source().is_some_and(|source| source.to_string().contains("too long"))
}
