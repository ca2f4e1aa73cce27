//! The task that owns one document.
//!
//! All that happens to a document goes through its mailbox, and all that it wants goes out as effects of the core's
//! [`Document`]. There are no locks here: the task is the only one that touches it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Either, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use highwater_core::change::{self, Change, ChunkError};
use highwater_core::document::{AppendId, ConnectionId, Effect, Outgoing, PeerInfo, UploadId};
use highwater_core::wire::{Body, Ephemeral, Message, RemoteHeads, encode_sync};
use highwater_core::{CloseReason, Document, DocumentId, PeerId, StorageId};
use highwater_storage::{Store, StoreError, StoreFuture, StoredDocument};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::hub::Hub;
use crate::outbox::Outbox;

/// Restoring more changes than this happens on the blocking pool.
const RESTORE_INLINE_MAX: usize = 64;
/// How many messages are taken from the mailbox before answers are made: the more, the fewer answers.
const BATCH: usize = 64;

/// What can be asked of a document.
pub(crate) enum Command {
    /// A connection opens the document.
    Attach(ConnectionId, Box<Attachment>),
    /// A connection closes it.
    Detach(ConnectionId),
    /// A sync message. The permit is given back when it has been dealt with.
    Sync { connection: ConnectionId, data: Bytes, is_request: bool, permit: OwnedSemaphorePermit },
    /// An ephemeral message.
    Ephemeral(ConnectionId, Box<Ephemeral>),
    /// The storages that a connection follows.
    Subscriptions(ConnectionId, BTreeSet<StorageId>),
    /// What a connection heard of other storages.
    RemoteHeads(ConnectionId, Vec<RemoteHeads>),
    /// Answered when all that the connection sent before is durable.
    Settle(ConnectionId, oneshot::Sender<()>),
}

/// A connection that opens a document.
pub(crate) struct Attachment {
    pub(crate) info: PeerInfo,
    pub(crate) outbox: Outbox,
    pub(crate) has_extension: bool,
}

/// Where to send commands.
pub(crate) type Handle = Arc<mpsc::UnboundedSender<Command>>;

type Unpacked = (UploadId, Result<Vec<Change>, ChunkError>);

struct Task {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    document: Document,
    /// The document's id as it is written into every frame.
    id_text: String,
    attached: HashMap<ConnectionId, Attached>,
    /// Connections that sent something that may not be dealt with yet.
    unsettled: HashSet<ConnectionId>,
    /// On their way to disk, in order; only the first one is waited for.
    appends: VecDeque<(AppendId, StoreFuture<()>)>,
    unpacking: FuturesUnordered<JoinHandle<Unpacked>>,
    settling: Vec<(ConnectionId, oneshot::Sender<()>)>,
}

struct Attached {
    peer: PeerId,
    outbox: Outbox,
    has_extension: bool,
    /// For what the connection sent and is not dealt with.
    permits: Vec<OwnedSemaphorePermit>,
}

/// Why a task ends.
enum End {
    /// Nobody has the document open.
    Idle,
    /// Whether changes are durable is not known.
    StoreFailed(StoreError),
    /// The hub has no more use for it.
    Discarded,
}

/// Loads the document, then serves it until nobody needs it.
pub(crate) async fn run(
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    id: DocumentId,
    mut mailbox: mpsc::UnboundedReceiver<Command>,
) {
    // Boxed, like all that is rare here: a task's memory is that of its largest state.
    let document = match Box::pin(load(&*store, id)).await {
        Ok(document) => document,
        Err(error) => return Box::pin(refuse(&hub, id, mailbox, &error)).await,
    };
    metrics::gauge!("highwater_documents_open").increment(1);
    let (attached, appends) = (HashMap::new(), VecDeque::new());
    let (unpacking, settling) = (FuturesUnordered::new(), Vec::new());
    let (id_text, unsettled) = (id.to_string(), HashSet::new());
    let mut task = Task { hub, store, document, id_text, attached, unsettled, appends, unpacking, settling };
    let end = task.serve(&mut mailbox).await;
    metrics::gauge!("highwater_documents_open").decrement(1);
    if let End::StoreFailed(error) = end {
        task.document.handle_append_failed();
        task.hub.store_failed(&error);
    }
}

async fn load(store: &dyn Store, id: DocumentId) -> Result<Document, String> {
    let Some(stored) = store.load(id).await.map_err(|error| error.to_string())? else {
        return Ok(Document::new(id));
    };
    if stored.changes.len() <= RESTORE_INLINE_MAX {
        return restore(id, stored);
    }
    tokio::task::spawn_blocking(move || restore(id, stored)).await.map_err(|error| error.to_string())?
}

fn restore(id: DocumentId, stored: StoredDocument) -> Result<Document, String> {
    let quarantined = stored.quarantined.into_iter().map(|change| (change.hash, change.reason));
    Document::restore(id, stored.changes, quarantined)
        .map_err(|(place, error)| format!("stored change {place} of document {id} does not read: {error}"))
}

/// A document that cannot be read whole is not served at all, least of all as an empty one.
async fn refuse(hub: &Hub, id: DocumentId, mut mailbox: mpsc::UnboundedReceiver<Command>, error: &str) {
    tracing::error!(document = %id, %error, "cannot read document");
    metrics::counter!("highwater_documents_unreadable_total").increment(1);
    loop {
        while let Ok(command) = mailbox.try_recv() {
            if let Command::Attach(_, attachment) = command {
                attachment.outbox.close(CloseReason::DocumentUnreadable { document: id });
            }
        }
        if hub.try_forget(id, &mailbox) {
            return;
        }
        tokio::time::sleep(hub.config().idle_document_after.min(std::time::Duration::from_millis(100))).await;
    }
}

impl Task {
    async fn serve(&mut self, mailbox: &mut mpsc::UnboundedReceiver<Command>) -> End {
        let mut commands = Vec::new();
        let mut discarded = self.hub.discarded();
        loop {
            let idle_after = self.hub.config().idle_document_after;
            let is_idle = self.document.is_idle() && self.unpacking.is_empty();
            let idle =
                if is_idle { Either::Left(tokio::time::sleep(idle_after)) } else { Either::Right(pending()) };
            let append = match self.appends.front_mut() {
                Some((_, append)) => Either::Left(append),
                None => Either::Right(pending()),
            };
            tokio::select! {
                _ = mailbox.recv_many(&mut commands, BATCH) => commands.drain(..).for_each(|command| self.handle(command)),
                result = append => {
                    let appended = self.appends.pop_front();
                    match (result, appended) {
                        (Ok(()), Some((id, _))) => self.document.handle_appended(id),
                        (Err(error), _) => return End::StoreFailed(error),
                        (Ok(()), None) => {}
                    }
                }
                Some(unpacked) = self.unpacking.next() => self.handle_unpacked(unpacked),
                () = idle => {
                    if self.hub.try_forget(self.document.id(), mailbox) {
                        return End::Idle;
                    }
                }
                _ = discarded.changed() => return End::Discarded,
            }
            self.carry_out();
            self.settle();
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Attach(connection, attachment) => {
                let Attachment { info, outbox, has_extension } = *attachment;
                let peer = info.peer.clone();
                self.attached
                    .insert(connection, Attached { peer, outbox, has_extension, permits: Vec::new() });
                self.document.attach(connection, info);
            }
            Command::Detach(connection) => {
                self.document.detach(connection);
                self.attached.remove(&connection);
            }
            Command::Sync { connection, data, is_request, permit } => {
                if let Some(attached) = self.attached.get_mut(&connection) {
                    attached.permits.push(permit);
                    self.unsettled.insert(connection);
                }
                self.document.set_time(crate::now_ms());
                if let Err(fault) = self.document.handle_sync(connection, data, is_request) {
                    self.document.detach(connection);
                    self.close(connection, fault);
                }
            }
            Command::Ephemeral(connection, ephemeral) => {
                self.document.handle_ephemeral(connection, &ephemeral)
            }
            Command::Subscriptions(connection, storages) => {
                self.document.handle_subscriptions(connection, storages)
            }
            Command::RemoteHeads(connection, heads) => self.document.handle_remote_heads(connection, heads),
            Command::Settle(connection, done) => self.settling.push((connection, done)),
        }
    }

    fn handle_unpacked(&mut self, unpacked: Result<Unpacked, tokio::task::JoinError>) {
        match unpacked {
            Ok((upload, changes)) => self.document.handle_unpacked(upload, changes),
            // The parsers' panics are caught; this is ours, and there is nobody to tell but the log.
            Err(error) => tracing::error!(document = %self.document.id(), %error, "unpacking failed"),
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.document.poll_effect() {
            match effect {
                Effect::Append { id, records } => {
                    metrics::counter!("highwater_changes_received_total").increment(records.len() as u64);
                    self.appends.push_back((id, self.store.append(self.document.id(), records)));
                }
                Effect::Unpack { upload, chunks } => {
                    self.unpacking
                        .push(tokio::task::spawn_blocking(move || (upload, change::unpack(&chunks))));
                }
                Effect::Send { connection, outgoing } => self.send(connection, outgoing),
                Effect::Close { connection, fault } => self.close(connection, fault),
            }
        }
    }

    fn send(&self, connection: ConnectionId, outgoing: Outgoing) {
        let Some(attached) = self.attached.get(&connection) else { return };
        if let Some(frame) = self.encode(attached, outgoing) {
            attached.outbox.send(frame);
        }
    }

    fn encode(&self, attached: &Attached, outgoing: Outgoing) -> Option<Bytes> {
        let document = self.document.id();
        let ours = self.hub.peer_id();
        let (sender, body) = match outgoing {
            Outgoing::Sync(message) => {
                let write = |out: &mut Vec<u8>| message.encode_into(out);
                return Some(encode_sync(ours, &attached.peer, &self.id_text, message.encoded_len(), write));
            }
            Outgoing::Unavailable => (ours.clone(), Body::DocUnavailable { document }),
            Outgoing::Ephemeral { sender, ephemeral } => (sender, Body::Ephemeral(ephemeral)),
            Outgoing::RemoteHeads(heads) => (ours.clone(), Body::RemoteHeadsChanged { document, heads }),
            Outgoing::Rejected(changes) => {
                metrics::counter!("highwater_changes_refused_total").increment(changes.len() as u64);
                for change in &changes {
                    tracing::warn!(%document, peer = %attached.peer, hash = %change.hash, reason = %change.reason, "change refused");
                }
                if !attached.has_extension {
                    return None;
                }
                (ours.clone(), Body::Rejected { document, changes })
            }
        };
        Some(Message { sender: Some(sender), target: Some(attached.peer.clone()), body }.encode())
    }

    fn close(&mut self, connection: ConnectionId, fault: highwater_core::document::PeerFault) {
        if let Some(attached) = self.attached.remove(&connection) {
            attached.outbox.close(CloseReason::Document { document: self.document.id(), fault });
        }
    }

    /// Gives back the permits of connections of which nothing is pending, and answers those who wait for that.
    fn settle(&mut self) {
        for connection in self.unsettled.extract_if(|connection| self.document.is_settled(*connection)) {
            if let Some(attached) = self.attached.get_mut(&connection) {
                attached.permits.clear();
            }
        }
        let document = &self.document;
        for (_, done) in self.settling.extract_if(.., |(connection, _)| document.is_settled(*connection)) {
            // Whoever asked may be gone.
            let _ = done.send(());
        }
    }
}
