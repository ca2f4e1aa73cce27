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
use highwater_core::{ChangeHash, CloseReason, DocumentId, Input, PeerId, Session};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tungstenite::error::CapacityError;

use crate::activity::Activity;
use crate::budget::Budget;
use crate::document::{Attachment, Command, Handle};
use crate::envelope::{Protocol, text};
use crate::http::change_hashes;
use crate::hub::{Hub, Registration, draining};
use crate::limits::{
    CLOSE_REASON_BYTES_MAX, CLOSE_TIMEOUT, DRAIN_QUIET, DRAIN_READ_MAX, FLUSH_AFTER, FRAME_TIMEOUT,
    READ_TIMEOUT, RETRY_AFTER_MAX, RETRY_AFTER_MIN,
};
use crate::metrics::{Ended, Metrics};
use crate::outbox::{self, Frame, Outbox, OutboxReceiver};

struct Connection {
    hub: Arc<Hub>,
    registration: Registration,
    speaker: Speaker,
    outbox: Outbox,
    /// What was read and is not dealt with.
    budget: Budget,
    /// Nothing is read because enough is under way, so nothing can be heard of the peer either.
    is_paused: Arc<AtomicBool>,
    activity: Activity,
    documents: HashMap<DocumentId, Handle>,
}

/// In which protocol the peer speaks.
pub(crate) enum Speaker {
    /// That of automerge-repo: many documents, each named in every message.
    Repo(Box<Session>),
    /// The plain one: one document, and nothing but its sync messages and a few questions.
    Plain(DocumentId),
}

impl Speaker {
    /// Whether the peer has said who it is, if that is asked.
    fn has_joined(&self) -> bool {
        match self {
            Self::Repo(session) => session.peer().is_some(),
            Self::Plain(_) => true,
        }
    }

    /// What the peer did wrong, in a message to it.
    fn error_message(&self, reason: &CloseReason) -> Message {
        match self {
            Self::Repo(session) => Message::Binary(session.error_message(reason)),
            Self::Plain(_) => text(&json!({ "error": reason.to_string() })).into(),
        }
    }

    fn peer(&self) -> Option<&PeerId> {
        match self {
            Self::Repo(session) => session.peer(),
            Self::Plain(_) => None,
        }
    }
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

/// Serves a WebSocket in the protocol of automerge-repo until it ends.
pub(crate) async fn serve_repo(hub: Arc<Hub>, activity: Activity, socket: WebSocket) {
    let session = Session::new(hub.peer_id().clone(), hub.storage_id().clone());
    serve(hub, activity, Speaker::Repo(Box::new(session)), socket).await;
}

/// Serves a WebSocket in the plain protocol until it ends.
pub(crate) async fn serve_plain(hub: Arc<Hub>, activity: Activity, document: DocumentId, socket: WebSocket) {
    serve(hub, activity, Speaker::Plain(document), socket).await;
}

async fn serve(hub: Arc<Hub>, activity: Activity, speaker: Speaker, mut socket: WebSocket) {
    let config = hub.config();
    hub.metrics().connections_opened.increment(1);
    let (outbox, frames) = outbox::channel(config.send_queue_bytes_max);
    let registration = match hub.register(outbox.clone()) {
        Ok(registration) => registration,
        Err(reason) => return Box::pin(close(&mut socket, &speaker, &reason, hub.metrics())).await,
    };
    let budget = Budget::new(config.receive_queue_bytes_max);
    let (documents, is_paused) = (HashMap::new(), Arc::default());
    let mut connection = Connection {
        hub: hub.clone(),
        registration,
        speaker,
        outbox,
        budget,
        is_paused,
        activity,
        documents,
    };
    connection.serve(socket, frames).await;
    connection.detach_all();
}

impl Connection {
    async fn serve(&mut self, socket: WebSocket, mut frames: OutboxReceiver) {
        let (mut sink, mut stream) = socket.split();
        let liveness =
            Liveness::new(self.hub.config().ping_interval, self.activity.clone(), self.is_paused.clone());
        let closing = frames.closing();
        let mut phase = self.hub.phase();
        let end = tokio::select! {
            end = self.read(&mut stream) => end,
            end = write(&mut sink, &mut frames, liveness) => end,
            reason = closing.reason() => End::Ours(reason),
            // Boxed, like all that is rare here: a connection's memory is that of its largest state.
            () = draining(&mut phase) => Box::pin(self.drain(&mut stream)).await,
        };
        // Both halves come from this socket.
        let Ok(mut socket) = stream.reunite(sink) else { return };
        Box::pin(self.end(&mut socket, &mut frames, end)).await;
    }

    async fn end(&self, socket: &mut WebSocket, frames: &mut OutboxReceiver, end: End) {
        let metrics = self.hub.metrics();
        match end {
            End::Broken => metrics.connection_ended(Ended::Broken),
            End::Closed => self.answer_close(socket, frames).await,
            // It says that all is durable, as the answer to a close does.
            End::Ours(CloseReason::Left) if !self.settle(frames).await => {
                metrics.connection_ended(Ended::Unanswered);
            }
            End::Ours(reason) => {
                if reason != CloseReason::NotReading {
                    // What was said before the reason to close came up is still worth hearing.
                    let _ = timeout(CLOSE_TIMEOUT, write_rest(socket, frames)).await;
                }
                close(socket, &self.speaker, &reason, metrics).await;
            }
        }
    }

    /// Every frame before the close frame is durable before the close is answered: a clean close means that all is safe.
    async fn answer_close(&self, socket: &mut WebSocket, frames: &OutboxReceiver) {
        // The answer is queued in the socket since the close frame was read. If not all is durable it is not given.
        if self.settle(frames).await {
            self.hub.metrics().connection_ended(Ended::Closed);
            let _ = timeout(CLOSE_TIMEOUT, socket.flush()).await;
        } else {
            self.hub.metrics().connection_ended(Ended::Unanswered);
        }
    }

    async fn read(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        let join_timeout = self.hub.config().join_timeout;
        let deadline = Instant::now() + join_timeout;
        loop {
            self.room().await;
            let next = stream.next();
            let message = if self.speaker.has_joined() {
                next.await
            } else {
                match tokio::time::timeout_at(deadline, next).await {
                    Ok(message) => message,
                    Err(_) => return End::Ours(CloseReason::JoinTimeout),
                }
            };
            if let Some(end) = self.handle_message(message).await {
                return end;
            }
        }
    }

    /// Waits until there is room for another frame, and longer if many of the peer's changes were refused. Before the frame is read, not after: what was read is always handed on.
    async fn room(&self) {
        if !self.budget.has_room() {
            self.is_paused.store(true, Ordering::Relaxed);
            self.budget.room().await;
            self.is_paused.store(false, Ordering::Relaxed);
        }
        let penalty = self.outbox.penalty();
        if !penalty.is_zero() {
            self.is_paused.store(true, Ordering::Relaxed);
            tokio::time::sleep(penalty).await;
            self.is_paused.store(false, Ordering::Relaxed);
        }
    }

    async fn handle_message(&mut self, message: Option<Result<Message, axum::Error>>) -> Option<End> {
        self.activity.frame_read();
        match message {
            Some(Ok(Message::Binary(frame))) => self.handle_frame(frame).await.err().map(End::Ours),
            Some(Ok(Message::Text(text))) => self.handle_text(&text).err().map(End::Ours),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
            Some(Ok(Message::Close(_))) => Some(End::Closed),
            Some(Err(error)) if is_too_large(&error) => Some(End::Ours(CloseReason::FrameTooLarge)),
            Some(Err(_)) | None => Some(End::Broken),
        }
    }

    async fn handle_frame(&mut self, frame: Bytes) -> Result<(), CloseReason> {
        self.hub.metrics().frames_received.increment(1);
        let taken = self.budget.take(frame.len());
        let session = match &mut self.speaker {
            Speaker::Repo(session) => session,
            Speaker::Plain(document) => {
                let (connection, document) = (self.registration.id, *document);
                self.send(document, Command::Sync { connection, data: frame, is_request: false, taken });
                return Ok(());
            }
        };
        match session.handle_frame(&frame)? {
            Input::Joined { reply } => self.joined(reply).await?,
            Input::Sync { document, data, is_request } => {
                let connection = self.registration.id;
                self.send(document, Command::Sync { connection, data, is_request, taken });
            }
            Input::Ephemeral(ephemeral) => {
                let document = ephemeral.document;
                self.send(document, Command::Ephemeral(self.registration.id, Box::new(ephemeral), taken));
            }
            Input::Subscriptions(storages) => {
                // Counted until the last document has taken it.
                let taken = Arc::new(taken);
                for handle in self.documents.values() {
                    let (connection, storages) = (self.registration.id, storages.clone());
                    let _ = handle.send(Command::Subscriptions(connection, storages, taken.clone()));
                }
            }
            Input::RemoteHeads { document, heads } => {
                self.send(document, Command::RemoteHeads(self.registration.id, heads, taken));
            }
            Input::Have { document, query, hashes } => {
                let connection = self.registration.id;
                self.send(document, Command::Have { connection, query, hashes, taken });
            }
            Input::Leave => return Err(CloseReason::Left),
            Input::Nothing => self.hub.metrics().frames_ignored.increment(1),
        }
        Ok(())
    }

    /// A control message of the plain protocol. The other one has none.
    fn handle_text(&mut self, text: &str) -> Result<(), CloseReason> {
        let Speaker::Plain(document) = self.speaker else { return Err(CloseReason::TextFrame) };
        self.hub.metrics().frames_received.increment(1);
        let taken = self.budget.take(text.len());
        let Question { have: hashes, query } = Question::parse(text).map_err(CloseReason::BadControl)?;
        let connection = self.registration.id;
        self.send(document, Command::Have { connection, query, hashes, taken });
        Ok(())
    }

    /// Whoever joins again may close next, and that is answered for all that was sent before, too.
    async fn joined(&mut self, reply: Bytes) -> Result<(), CloseReason> {
        // Nothing is read meanwhile, so nothing can be heard of the peer.
        self.is_paused.store(true, Ordering::Relaxed);
        let is_settled = self.all_settled().await;
        self.is_paused.store(false, Ordering::Relaxed);
        if !is_settled {
            return Err(CloseReason::StoreFailed);
        }
        self.detach_all();
        if let Some(peer) = self.speaker.peer() {
            self.registration.joined(peer);
        }
        self.outbox.send(reply);
        Ok(())
    }

    /// Sends a command to a document, which is opened if it is not.
    fn send(&mut self, document: DocumentId, command: Command) {
        let sent = match self.documents.get(&document) {
            Some(handle) => handle.send(command),
            None => match self.open(document) {
                Some(handle) => handle.send(command),
                None => return,
            },
        };
        if sent.is_err() {
            // Its task is gone, so what this connection knows of the document is worth nothing.
            self.outbox.close(CloseReason::StoreFailed);
        }
    }

    /// Opens a document. `None` before the peer has joined, when no message can name one.
    fn open(&mut self, document: DocumentId) -> Option<Handle> {
        let connection = self.registration.id;
        let (info, protocol) = match &self.speaker {
            Speaker::Repo(session) => {
                let (peer, metadata) = (session.peer()?.clone(), session.peer_metadata());
                let storage = metadata.storage_id.filter(|_| !metadata.is_ephemeral);
                let subscriptions = session.subscriptions();
                let has_extension = metadata.extension.is_some();
                (PeerInfo { peer, may_write: true, storage, subscriptions }, Protocol::Repo { has_extension })
            }
            Speaker::Plain(_) => {
                // Nobody hears of this name but the log and the quarantine.
                let peer = PeerId::new(&format!("plain-{}", connection.0)).ok()?;
                let subscriptions = Arc::default();
                (PeerInfo { peer, may_write: true, storage: None, subscriptions }, Protocol::Plain)
            }
        };
        let attachment = Attachment { info, outbox: self.outbox.clone(), protocol };
        let handle = self.hub.open_for(connection, document);
        let _ = handle.send(Command::Attach(connection, Box::new(attachment)));
        self.documents.insert(document, handle.clone());
        Some(handle)
    }

    fn detach_all(&mut self) {
        for (_, handle) in self.documents.drain() {
            let _ = handle.send(Command::Detach(self.registration.id));
        }
        self.hub.closed_all(self.registration.id);
    }

    /// Waits until all that was read is durable. `false` if it is not, or somebody wants the connection closed for another reason meanwhile.
    async fn settle(&self, frames: &OutboxReceiver) -> bool {
        let closing = frames.closing();
        tokio::select! {
            // First: a document that refused something says so before it says that it is done.
            biased;
            _ = closing.reason() => false,
            all = self.all_settled() => all,
        }
    }

    async fn all_settled(&self) -> bool {
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

    /// Before the server goes: takes in what the socket holds, and waits until it is durable. The acknowledgements are queued then.
    async fn drain(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        let until = Instant::now() + DRAIN_READ_MAX;
        let mut end = End::Ours(CloseReason::ShuttingDown);
        while Instant::now() < until {
            let Ok(message) = timeout(DRAIN_QUIET, stream.next()).await else { break };
            if let Some(ended) = self.handle_message(message).await {
                end = ended;
                break;
            }
        }
        // An unanswered close, or none at all, is how a client learns that not all is safe.
        if self.all_settled().await { end } else { End::Broken }
    }
}

/// A question in the plain protocol: which of these changes are durable?
#[derive(serde::Deserialize)]
struct Question {
    #[serde(deserialize_with = "change_hashes")]
    have: Vec<ChangeHash>,
    /// Comes back in the answer.
    #[serde(default)]
    query: u64,
}

impl Question {
    fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// Whether the peer shows signs of life.
struct Liveness {
    ping_interval: Duration,
    activity: Activity,
    is_paused: Arc<AtomicBool>,
    /// What had been read at the last ping.
    read: u64,
    /// When that was seen to have become more.
    heard: Instant,
}

impl Liveness {
    fn new(ping_interval: Duration, activity: Activity, is_paused: Arc<AtomicBool>) -> Self {
        Self { ping_interval, activity, is_paused, read: 0, heard: Instant::now() }
    }

    /// How long nothing may pass. Where bytes are not seen, a large frame must have time to get through.
    fn patience(&self) -> Duration {
        let least = if self.activity.counts_frames() { FRAME_TIMEOUT } else { Duration::ZERO };
        least.max(2 * self.ping_interval)
    }

    /// Whether anything came since this was asked last. Bytes count, not messages: a large one may take long. So does not listening.
    fn is_alive(&mut self) -> bool {
        let before = std::mem::replace(&mut self.read, self.activity.read());
        if self.read != before || self.is_paused.load(Ordering::Relaxed) {
            self.heard = Instant::now();
            return true;
        }
        self.activity.counts_frames() && self.heard.elapsed() < FRAME_TIMEOUT
    }

    /// Waits for a write as long as bytes go out.
    async fn write(&self, writing: impl Future<Output = Result<(), axum::Error>>) -> Result<(), End> {
        tokio::pin!(writing);
        loop {
            let before = self.activity.written();
            match timeout(self.patience(), &mut writing).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(End::Broken),
                Err(_) if self.activity.written() == before => {
                    return Err(End::Ours(CloseReason::NotReading));
                }
                Err(_) => {}
            }
        }
    }
}

/// Writes what is queued, and pings. Ends when the peer shows no sign of life from one ping to the next.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    frames: &mut OutboxReceiver,
    mut liveness: Liveness,
) -> End {
    let start = Instant::now() + liveness.ping_interval;
    let mut ping = tokio::time::interval_at(start, liveness.ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            frame = frames.next() => {
                let Some(frame) = frame else { return End::Broken };
                let started = Instant::now();
                let written = liveness.write(write_all(sink, frame, frames)).await;
                if started.elapsed() >= liveness.ping_interval {
                    // The peer was busy reading this, and had no ping to answer.
                    ping.reset();
                    liveness.read = 0;
                }
                written
            }
            _ = ping.tick() => {
                if !liveness.is_alive() {
                    return End::Ours(CloseReason::PingTimeout);
                }
                liveness.write(sink.send(Message::Ping(Bytes::new()))).await
            }
        };
        if let Err(end) = written {
            return end;
        }
        liveness.activity.frames_written();
    }
}

/// Writes a frame and those that came meanwhile, then flushes once.
async fn write_all(
    sink: &mut SplitSink<WebSocket, Message>,
    first: Frame,
    frames: &mut OutboxReceiver,
) -> Result<(), axum::Error> {
    sink.feed(first.into()).await?;
    for _ in 1..FLUSH_AFTER {
        match frames.try_next() {
            Some(frame) => sink.feed(frame.into()).await?,
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
        sink.feed(frame.into()).await?;
    }
    sink.flush().await
}

/// Says why, if the peer did something wrong, and closes with the code for it.
async fn close(socket: &mut WebSocket, speaker: &Speaker, reason: &CloseReason, metrics: &Metrics) {
    metrics.connection_closed(reason.label());
    tracing::info!(peer = speaker.peer().map(tracing::field::display), %reason, code = reason.close_code(), "closing connection");
    let closing = async {
        if reason.is_peer_fault() {
            socket.send(speaker.error_message(reason)).await?;
        }
        if *reason == CloseReason::ShuttingDown && !until_read(socket).await {
            return Ok(());
        }
        socket.send(Message::Close(Some(close_frame(reason)))).await?;
        // The peer's answer, so that it reads ours before the socket goes.
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
        if *reason == CloseReason::FrameTooLarge {
            // The rest of the frame is not read, and a socket that goes with something unread takes our close with it.
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        }
        Ok::<(), axum::Error>(())
    };
    // A peer that does not answer is left without a farewell.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Waits until the peer has read what was sent, or is not going to. Some clients (automerge-repo 2.5 on Node) break a document if a close
/// reaches them in one piece with a message.
///
/// `false` if the peer closed meanwhile: nothing that came here was taken in, and its close must not be answered. The answer is queued in the
/// socket already, so that must not be touched any more.
async fn until_read(socket: &mut WebSocket) -> bool {
    let reading = async {
        if socket.send(Message::Ping(Bytes::from_static(b"read"))).await.is_err() {
            return false;
        }
        loop {
            match socket.next().await {
                Some(Ok(Message::Pong(payload))) if payload == "read" => return true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    };
    timeout(READ_TIMEOUT, reading).await.unwrap_or(true)
}

fn close_frame(reason: &CloseReason) -> CloseFrame {
    let mut text = match reason {
        CloseReason::ShuttingDown => format!("{reason}; retry in {} ms", retry_hint_ms()),
        _ => reason.to_string(),
    };
    text.truncate(text.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
    CloseFrame { code: reason.close_code(), reason: Utf8Bytes::from(text) }
}

fn retry_hint_ms() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let range = (RETRY_AFTER_MAX - RETRY_AFTER_MIN).as_millis();
    RETRY_AFTER_MIN.as_millis() + u128::from(RandomState::new().hash_one(0)) % range
}

/// Whether the socket failed because a frame or a message exceeded its limit.
fn is_too_large(error: &axum::Error) -> bool {
    use std::error::Error;
    let source = error.source().and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(source, Some(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. })))
}
