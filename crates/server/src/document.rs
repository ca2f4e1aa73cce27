//! The task that owns one document.
//!
//! All that happens to a document goes through its mailbox, and all that it wants goes out as effects of the core's
//! [`Document`]. There are no locks here: the task is the only one that touches it.

mod desk;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, MapErr, TryFutureExt, pending};
use futures::stream::{FuturesUnordered, StreamExt};
use highwater_core::change::{Change, ChunkError};
use highwater_core::document::{
    AppendId, Compacted, ConnectionId, DELETED, Effect, Outgoing, PeerFault, PeerInfo, UploadId,
};
use highwater_core::limits::UNPACK_INLINE_OPS_MAX;
use highwater_core::wire::{Ephemeral, Rejection, RemoteHeads};
use highwater_core::{
    ChangeHash, CloseReason, Document, DocumentId, PeerId, Record, SnapshotInfo, StorageId,
};
use highwater_storage::{Note, Store, StoreError, StoreFuture};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;

use crate::budget::Taken;
use crate::compaction::Outcome;
use crate::config::CheckChanges;
use crate::copies::{self, CatchUp};
use crate::envelope::{Envelope, Payload, Protocol};
use crate::events::Told;
use crate::full_check::{AppendError, FullCheck};
use crate::http::Problem;
use crate::hub::Hub;
use crate::limits::{BATCH, BLANK_IDLE_AFTER, COVER_INLINE_MAX, REFUSED_CHECK_INTERVAL};
use crate::open::{self, Opened, Unreadable};
use crate::outbox::Outbox;
use crate::uploads;

use desk::{Desk, Trouble};
pub(crate) use desk::{EditJob, EditRequest, Edited, Job, Key, Precondition, Reading, Work};

/// What can be asked of a document.
#[derive(Debug)]
pub(crate) enum Command {
    /// A connection opens the document.
    Attach(ConnectionId, Box<Attachment>),
    /// A connection closes it.
    Detach(ConnectionId),
    /// A sync message. What it took of the budget is given back when it has been dealt with.
    Sync { connection: ConnectionId, data: Bytes, is_request: bool, taken: Taken },
    /// An ephemeral message.
    Ephemeral(ConnectionId, Box<Ephemeral>, Taken),
    /// The storages that a connection follows.
    Subscriptions(ConnectionId, Arc<BTreeSet<StorageId>>, Arc<Taken>),
    /// What a connection heard of other storages.
    RemoteHeads(ConnectionId, Vec<RemoteHeads>, Taken),
    /// Answered when all that the connection sent before is durable.
    Settle(ConnectionId, oneshot::Sender<()>),
    /// A connection that was behind has taken all that it was sent.
    Ready(ConnectionId),
    /// Which of these changes are durable and part of the document, in the same order.
    Contains(Vec<ChangeHash>, Reply<Vec<bool>>),
    /// The same for a connection, which is answered with the number of its question.
    Have { connection: ConnectionId, query: u64, hashes: Vec<ChangeHash>, taken: Taken },
    /// How the document is now.
    State(Reply<State>),
    /// The durable heads, when all that is on its way to disk now has got there.
    Heads(Reply<Told>),
    /// Something that needs the document with all its values.
    Job(Job),
    /// Changes that came in a request of their own. Answered when they are durable.
    Ingest(Box<Ingest>),
    /// A compaction of the document has ended.
    Compacted(Outcome),
    /// There is no room for a document that nobody uses.
    LetGo,
}

/// Where an answer goes, or why there is none. Dropped, it says that the document cannot be served at the moment.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

impl Command {
    /// Tells whoever waits for an answer that the document cannot be read. They may be gone.
    fn refuse(self, unreadable: &Unreadable) {
        match self {
            Self::Contains(_, answer) => refuse_to(answer, unreadable),
            Self::State(answer) => refuse_to(answer, unreadable),
            Self::Heads(answer) => refuse_to(answer, unreadable),
            Self::Ingest(ingest) => refuse_to(ingest.answer, unreadable),
            Self::Job(Job::Edit(edit)) => refuse_to(edit.answer, unreadable),
            Self::Job(Job::Look(look)) => look.look(Err(&Trouble::Unreadable(unreadable.clone()))),
            _ => {}
        }
    }
}

fn refuse_to<T>(answer: Reply<T>, unreadable: &Unreadable) {
    let _ = answer.send(Err(unreadable.clone().into()));
}

/// A connection that opens a document.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) info: PeerInfo,
    pub(crate) outbox: Outbox,
    pub(crate) protocol: Protocol,
}

/// Changes that came in a request.
#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) changes: Vec<Change>,
    pub(crate) sender: PeerId,
    pub(crate) answer: Reply<Ingested>,
}

/// Changes that came in a request and were judged.
struct Ingesting {
    hashes: Vec<ChangeHash>,
    rejected: Vec<Rejection>,
    /// All appends before this one must be durable.
    mark: AppendId,
    answer: Reply<Ingested>,
}

/// What became of changes that came in a request.
#[derive(Debug, Default)]
pub(crate) struct Ingested {
    pub(crate) durable: Vec<ChangeHash>,
    /// Stored, and waiting for changes that they depend on.
    pub(crate) pending: Vec<ChangeHash>,
    pub(crate) rejected: Vec<Rejection>,
    /// The document was deleted, and takes no changes.
    pub(crate) is_deleted: bool,
}

/// How a document is, as far as it is durable.
#[derive(Debug)]
pub(crate) struct State {
    /// Sorted; none if the document does not exist.
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) changes: usize,
    /// What is stored of them, roughly.
    pub(crate) bytes: u64,
    /// It was deleted.
    pub(crate) is_deleted: bool,
}

/// Where to send commands.
pub(crate) type Handle = Arc<mpsc::UnboundedSender<Command>>;

/// What was brought from the snapshot.
enum Brought {
    Snapshot(Bytes),
    Changes(Vec<(ChangeHash, Bytes)>),
}

/// Where the document stands with being compacted.
enum Compaction {
    /// It may be asked for, once the document has so many changes.
    From(usize),
    /// It was asked for.
    Asked,
    /// A snapshot is stored, of which not all is known to be durable here.
    Stored(Arc<SnapshotInfo>),
    /// A change keeps it from being compacted.
    Unfit,
}

type Unpacked = (UploadId, Result<Vec<Change>, ChunkError>);

/// What a task starts with.
pub(crate) struct Start {
    pub(crate) id: DocumentId,
    /// The number of this task, by which the hub knows it.
    pub(crate) task: u64,
    pub(crate) store: Arc<dyn Store>,
    /// By which it is reached itself. Weak, so that it can tell when nobody uses it.
    pub(crate) handle: Weak<mpsc::UnboundedSender<Command>>,
    /// Fires when the task must end at once.
    pub(crate) discarded: watch::Receiver<()>,
    pub(crate) mailbox: mpsc::UnboundedReceiver<Command>,
}

struct Task {
    hub: Arc<Hub>,
    number: u64,
    store: Arc<dyn Store>,
    document: Document,
    /// The document's id as it is written into every frame.
    id_text: String,
    /// By which it is reached itself.
    handle: Weak<mpsc::UnboundedSender<Command>>,
    /// The last sync message of those that are being sent: for one change and many readers it is the same.
    payload: Option<Payload>,
    attached: HashMap<ConnectionId, Attached>,
    /// What connections sent that has not been judged yet.
    unsettled: HashMap<ConnectionId, Unsettled>,
    /// What has been judged and waits for the appends that were on their way then, in order.
    ending: VecDeque<(AppendId, Unsettled)>,
    /// On their way to disk, in order; only the first one is waited for.
    appends: VecDeque<Append>,
    unpacking: FuturesUnordered<BoxFuture<'static, Unpacked>>,
    /// Came in requests, and were not looked at yet.
    ingests: Vec<Ingest>,
    /// Were judged, and wait for the appends that were on their way then.
    ingesting: VecDeque<Ingesting>,
    /// What is handed to the store next is stored in one go: a new document, of which a part would be another one.
    must_be_whole: bool,
    /// Who waits to hear the heads, each for the appends that were on their way when he asked.
    asked_heads: VecDeque<(AppendId, Reply<Told>)>,
    /// At most one.
    bringing: FuturesUnordered<BoxFuture<'static, Result<Brought, Unreadable>>>,
    compaction: Compaction,
    /// How many records are stored, or on their way.
    records: u64,
    /// What the store has noted for when the document is closed is still so.
    is_noted: bool,
    /// It is to go as soon as nobody uses it.
    must_go: bool,
    full_check: Option<Box<FullCheck>>,
    /// There only while it is used.
    desk: Option<Box<Desk>>,
}

/// What was handed to the store.
struct Append {
    id: AppendId,
    asked: Instant,
    stored: Stored,
    /// It is handed to the store when it is waited for, and so must be all that come after it.
    is_lazy: bool,
}

/// Resolves when an append is durable.
type Stored = Either<
    MapErr<StoreFuture<()>, fn(StoreError) -> AppendError>,
    BoxFuture<'static, Result<(), AppendError>>,
>;

/// What a connection sent, and who waits for it to be durable.
#[derive(Default)]
struct Unsettled {
    taken: Vec<Taken>,
    waiting: Vec<oneshot::Sender<()>>,
}

struct Attached {
    peer: PeerId,
    outbox: Outbox,
    protocol: Protocol,
    /// Nothing is held back any more.
    is_leaving: bool,
}

/// Why a task ends.
enum End {
    /// Nobody has the document open.
    Idle,
    /// Whether changes are durable is not known.
    StoreFailed(StoreError),
    /// What is in memory is of no use: a change that others may build on already did not pass the full check.
    Unfit(String),
    /// What is stored cannot be read any more.
    Unreadable(Unreadable),
    /// The hub has no more use for it.
    Discarded,
}

/// Loads the document, then serves it until nobody needs it.
pub(crate) async fn run(hub: Arc<Hub>, start: Start) {
    let Start { id, task: number, store, handle, mut discarded, mut mailbox } = start;
    // Boxed, like all that is rare here: a task's memory is that of its largest state.
    let opened = tokio::select! {
        opened = Box::pin(open::open(&*store, id)) => opened,
        _ = discarded.changed() => return,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return Box::pin(refuse(&hub, id, number, mailbox, discarded, &error)).await,
    };
    let full_check = match hub.config().check_changes {
        CheckChanges::Index => None,
        CheckChanges::Full => match Box::pin(FullCheck::open(&opened.document, &*store)).await {
            Ok(check) => Some(Box::new(check)),
            Err(error) => return Box::pin(refuse(&hub, id, number, mailbox, discarded, &error)).await,
        },
    };
    hub.metrics().documents_open.increment(1);
    let mut task = Task::new(hub, number, store, handle, opened, full_check);
    let end = task.serve(&mut mailbox, &mut discarded).await;
    task.hub.metrics().documents_open.decrement(1);
    match end {
        End::StoreFailed(error) => {
            task.document.handle_append_failed();
            task.hub.store_failed(&task.store, &error);
        }
        End::Unfit(reason) => {
            tracing::warn!(document = %id, %reason, "a change did not pass the full check");
            if !task.outlive_appends().await {
                return;
            }
            mailbox.close();
            task.let_go(&mut mailbox);
        }
        End::Unreadable(error) => {
            if !task.outlive_appends().await {
                return;
            }
            task.let_go(&mut mailbox);
            Box::pin(refuse(&task.hub, id, number, mailbox, discarded, &error)).await;
        }
        End::Idle | End::Discarded => {}
    }
}

/// A document that cannot be read whole is not served at all, least of all as an empty one. Who asks for it over HTTP hears why. A connection hears nothing, and who closes after
/// sending something for it is not answered; the other documents of the connection go on.
async fn refuse(
    hub: &Hub,
    id: DocumentId,
    number: u64,
    mut mailbox: mpsc::UnboundedReceiver<Command>,
    mut discarded: watch::Receiver<()>,
    error: &Unreadable,
) {
    tracing::error!(document = %id, %error, "cannot read document");
    hub.metrics().documents_unreadable.increment(1);
    loop {
        while let Ok(command) = mailbox.try_recv() {
            command.refuse(error);
        }
        if hub.try_forget(id, number, &mailbox) {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(REFUSED_CHECK_INTERVAL) => {}
            _ = discarded.changed() => return,
        }
    }
}

impl Task {
    fn new(
        hub: Arc<Hub>,
        number: u64,
        store: Arc<dyn Store>,
        handle: Weak<mpsc::UnboundedSender<Command>>,
        opened: Opened,
        full_check: Option<Box<FullCheck>>,
    ) -> Self {
        let Opened { document, records, is_noted, is_unfit, has_bad_index } = opened;
        let compaction = if is_unfit { Compaction::Unfit } else { Compaction::From(0) };
        let mut task = Self {
            hub,
            number,
            store,
            id_text: document.id().to_string(),
            handle,
            payload: None,
            document,
            attached: HashMap::new(),
            unsettled: HashMap::new(),
            ending: VecDeque::new(),
            appends: VecDeque::new(),
            unpacking: FuturesUnordered::new(),
            ingests: Vec::new(),
            ingesting: VecDeque::new(),
            must_be_whole: false,
            asked_heads: VecDeque::new(),
            bringing: FuturesUnordered::new(),
            compaction,
            records,
            is_noted,
            must_go: false,
            full_check,
            desk: None,
        };
        task.compact_if(has_bad_index);
        task
    }

    async fn serve(
        &mut self,
        mailbox: &mut mpsc::UnboundedReceiver<Command>,
        discarded: &mut watch::Receiver<()>,
    ) -> End {
        let mut commands = Vec::new();
        loop {
            let idle = match self.idle_after() {
                Some(after) => Either::Left(tokio::time::sleep(after)),
                None => Either::Right(pending()),
            };
            let append = match self.appends.front_mut() {
                Some(append) => Either::Left(&mut append.stored),
                None => Either::Right(pending()),
            };
            tokio::select! {
                received = mailbox.recv_many(&mut commands, BATCH) => {
                    // The hub holds a handle as long as it knows this task.
                    if received == 0 {
                        return End::Discarded;
                    }
                    commands.drain(..).for_each(|command| self.handle(command));
                }
                result = append => {
                    match result {
                        Ok(()) => self.appended(),
                        Err(AppendError::Store(error)) => return End::StoreFailed(error),
                        Err(AppendError::Unfit(reason)) => return End::Unfit(reason),
                    }
                }
                Some((upload, unpacked)) = self.unpacking.next() => {
                    if let Err(error) = self.unpacked(upload, unpacked).await {
                        return End::Unfit(error.to_string());
                    }
                }
                worked = Desk::worked(&mut self.desk) => {
                    if let Err(error) = self.batch_done(worked).await {
                        return End::Unfit(error.to_string());
                    }
                }
                Some(brought) = self.bringing.next() => match brought {
                    Ok(Brought::Snapshot(chunk)) => self.document.handle_snapshot(chunk),
                    Ok(Brought::Changes(changes)) => self.document.handle_brought(changes),
                    // What was to be read is being cleared away.
                    Err(_) if self.document.is_ending() => {}
                    Err(error) => return End::Unreadable(error),
                },
                () = idle => {
                    if let Err(error) = self.note_closing().await {
                        return End::StoreFailed(error);
                    }
                    if self.hub.try_forget(self.document.id(), self.number, mailbox) {
                        return End::Idle;
                    }
                    // Somebody has come.
                    self.must_go = false;
                }
                _ = discarded.changed() => return End::Discarded,
            }
            if let Err(error) = self.work_off().await {
                return End::Unfit(error.to_string());
            }
            self.carry_out();
            self.settle();
            self.answer_ingests();
            self.answer_heads();
            self.tend_desk();
        }
    }

    fn told(&self) -> Told {
        Told { heads: self.document.heads().to_vec(), is_deleted: self.document.is_deleted() }
    }

    fn answer_heads(&mut self) {
        while self.asked_heads.front().is_some_and(|(mark, _)| self.document.has_reached(*mark)) {
            if let Some((_, answer)) = self.asked_heads.pop_front() {
                // Whoever asked may be gone.
                drop(answer.send(Ok(self.told())));
            }
        }
    }

    /// How long the document stays as it is, if nobody uses it.
    fn idle_after(&self) -> Option<Duration> {
        let is_busy = !self.unpacking.is_empty() || !self.ingesting.is_empty() || self.desk.is_some();
        if is_busy || !self.document.is_idle() {
            return None;
        }
        let after = self.hub.config().idle_document_after;
        // One of which nothing is stored costs nothing to open again.
        let is_blank = self.document.is_empty() && self.document.orphan_count() == 0;
        let after = if is_blank { after.min(BLANK_IDLE_AFTER) } else { after };
        if self.must_go {
            return Some(Duration::ZERO);
        }
        self.hub.is_idle(self.document.id(), self.number, self.document.size());
        Some(after)
    }

    /// What is known of the document now answers questions about it until it is opened again.
    async fn note_closing(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_noted, true) {
            return Ok(());
        }
        let (changes, heads) = (self.document.len() as u64, self.document.heads().to_vec());
        let note = Note::Closed { records: self.records, changes, heads };
        self.store.put_note(self.document.id(), note).await
    }

    /// An upload was taken apart. If there is much to check, that happens where it holds up nobody else.
    async fn unpacked(
        &mut self,
        upload: UploadId,
        unpacked: Result<Vec<Change>, ChunkError>,
    ) -> Result<(), JoinError> {
        let ops: u64 = unpacked.iter().flatten().map(|change| 1 + change.values).sum();
        let is_small = ops <= UNPACK_INLINE_OPS_MAX;
        self.work(is_small, move |document| document.handle_unpacked(upload, unpacked)).await
    }

    /// Does something with the document: here, if it is little, or else where it holds up no other one.
    async fn work<T: Send + 'static>(
        &mut self,
        is_little: bool,
        work: impl FnOnce(&mut Document) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if is_little {
            return Ok(work(&mut self.document));
        }
        let elsewhere = Document::new(self.document.id());
        let mut document = std::mem::replace(&mut self.document, elsewhere);
        let done;
        (self.document, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut document);
            (document, done)
        })
        .await?;
        Ok(done)
    }

    /// The append that was waited for is durable.
    fn appended(&mut self) {
        if let Some(append) = self.appends.pop_front() {
            self.hub.metrics().append_seconds.record(append.asked.elapsed());
            let was_deleted = self.document.is_deleted();
            self.document.handle_appended(append.id);
            if self.document.is_deleted() && !was_deleted {
                self.deleted();
            }
            self.hub.followers().tell(self.document.id(), || self.told());
            self.compact_if(false);
        }
    }

    /// The tombstone is durable: nothing is kept of the document.
    fn deleted(&mut self) {
        tracing::info!(document = %self.document.id(), "deleted");
        self.hub.metrics().documents_deleted.increment(1);
        drop(self.hub.copies().take(self.document.id()));
        self.full_check = None;
        self.compaction = Compaction::Unfit;
        self.records = 0;
        // Nothing is noted of what is not there.
        self.is_noted = true;
    }

    /// Asks for a compaction if one pays, or is needed.
    fn compact_if(&mut self, is_needed: bool) {
        let Compaction::From(len) = self.compaction else { return };
        if is_needed
            || self.document.len() >= len
                && self.document.wants_compaction(self.hub.config().compact_changes_min)
        {
            self.compaction = Compaction::Asked;
            self.hub.compact(self.document.id(), self.store.clone());
        }
    }

    /// What commands left to be done, because it may take long.
    async fn work_off(&mut self) -> Result<(), JoinError> {
        for ingest in std::mem::take(&mut self.ingests) {
            self.ingest(ingest).await?;
        }
        self.adopt_snapshot().await
    }

    /// Takes in what came in a request.
    async fn ingest(&mut self, ingest: Ingest) -> Result<(), JoinError> {
        let Ingest { changes, sender, answer } = ingest;
        let hashes: Vec<ChangeHash> = changes.iter().map(|change| change.hash).collect();
        let ops: u64 = changes.iter().map(|change| 1 + change.values).sum();
        let is_little = ops <= UNPACK_INLINE_OPS_MAX;
        match self.work(is_little, move |document| document.ingest(changes, &sender)).await? {
            Ok(rejected) => {
                let mark = self.document.append_mark();
                self.ingesting.push_back(Ingesting { hashes, rejected, mark, answer });
            }
            // Whoever asked may be gone.
            Err(fault) => drop(answer.send(Err(fault.into()))),
        }
        Ok(())
    }

    /// Answers those whose changes are durable, as far as they ever will be.
    fn answer_ingests(&mut self) {
        let is_over = |ingesting: &mut Ingesting| self.document.has_reached(ingesting.mark);
        while let Some(Ingesting { hashes, rejected, answer, .. }) = self.ingesting.pop_front_if(is_over) {
            let (durable, rest): (Vec<_>, Vec<_>) =
                hashes.into_iter().partition(|hash| self.document.contains(hash));
            let refused: HashSet<ChangeHash> = rejected.iter().map(|rejection| rejection.hash).collect();
            let pending = rest.into_iter().filter(|hash| !refused.contains(hash)).collect();
            let is_deleted = self.document.is_deleted();
            let _ = answer.send(Ok(Ingested { durable, pending, rejected, is_deleted }));
        }
    }

    /// Lets go of what a stored snapshot holds, if there is one that was not looked at yet, and all that is in it is durable here.
    async fn adopt_snapshot(&mut self) -> Result<(), JoinError> {
        let Compaction::Stored(snapshot) = &self.compaction else { return Ok(()) };
        if snapshot.changes > self.document.len() as u64 {
            return Ok(());
        }
        let (snapshot, is_little) = (snapshot.clone(), snapshot.changes <= COVER_INLINE_MAX);
        let compacted = self.work(is_little, move |document| document.handle_compacted(&snapshot)).await?;
        self.compaction = match compacted {
            // Nothing was let go, so it would pay again at once.
            Compacted::InAnotherOrder => Compaction::From(2 * self.document.len()),
            Compacted::LetGo | Compacted::TooEarly => Compaction::From(0),
        };
        Ok(())
    }

    /// Waits for what is on its way to disk, before the document is read anew: or it would be read without that, and an edit that is sent again made again. `false` if the store failed meanwhile.
    async fn outlive_appends(&mut self) -> bool {
        self.hub.forget_actors();
        while let Some(append) = self.appends.pop_front() {
            if let Err(AppendError::Store(error)) = append.stored.await {
                self.document.handle_append_failed();
                self.hub.store_failed(&self.store, &error);
                return false;
            }
        }
        true
    }

    /// Sends everybody away: they connect again, to a document that was read anew.
    fn let_go(&mut self, mailbox: &mut mpsc::UnboundedReceiver<Command>) {
        let document = self.document.id();
        let waiting = std::iter::from_fn(|| mailbox.try_recv().ok()).filter_map(|command| match command {
            Command::Attach(_, attachment) => Some(attachment.outbox),
            _ => None,
        });
        let attached = self.attached.drain().map(|(_, attached)| attached.outbox);
        attached.chain(waiting).for_each(|outbox| outbox.close(CloseReason::DocumentReopened { document }));
    }

    fn attach(&mut self, connection: ConnectionId, attachment: Attachment) {
        let Attachment { info, outbox, protocol } = attachment;
        let peer = info.peer.clone();
        self.must_go = false;
        self.hub.is_used(self.document.id());
        self.attached.insert(connection, Attached { peer, outbox, protocol, is_leaving: false });
        self.document.attach(connection, info);
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Attach(connection, attachment) => self.attach(connection, *attachment),
            Command::Detach(connection) => {
                self.document.detach(connection);
                self.attached.remove(&connection);
            }
            Command::Sync { connection, data, is_request, taken } => {
                self.unsettled.entry(connection).or_default().taken.push(taken);
                self.document.set_time(crate::now_ms());
                if let Err(fault) = self.document.handle_sync(connection, data, is_request) {
                    self.document.detach(connection);
                    self.close(connection, fault);
                }
            }
            Command::Ephemeral(connection, ephemeral, _taken) => {
                self.document.handle_ephemeral(connection, &ephemeral)
            }
            Command::Subscriptions(connection, storages, _taken) => {
                self.document.handle_subscriptions(connection, storages)
            }
            Command::RemoteHeads(connection, heads, _taken) => {
                self.document.set_time(crate::now_ms());
                self.document.handle_remote_heads(connection, heads);
            }
            Command::Ready(connection) => self.document.handle_ready(connection),
            Command::Settle(connection, done) => {
                // It is about to go: what there is to say is said now.
                if let Some(attached) = self.attached.get_mut(&connection) {
                    attached.is_leaving = true;
                }
                self.document.handle_ready(connection);
                self.unsettled.entry(connection).or_default().waiting.push(done)
            }
            Command::Contains(hashes, answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(Ok(hashes.iter().map(|hash| self.document.contains(hash)).collect()));
            }
            Command::Have { connection, query, hashes, taken: _taken } => {
                let (durable, missing): (Vec<_>, Vec<_>) =
                    hashes.into_iter().partition(|hash| self.document.contains(hash));
                if let Some(attached) = self.attached.get(&connection) {
                    let envelope = self.envelope(attached);
                    if self.document.is_deleted()
                        && let Some(frame) = envelope.rejected(deletion_of(&missing))
                    {
                        attached.outbox.send(frame);
                    }
                    attached.outbox.send(envelope.durable(query, durable, missing));
                }
            }
            Command::State(answer) => drop(answer.send(Ok(self.state()))),
            Command::Heads(answer) => self.asked_heads.push_back((self.document.append_mark(), answer)),
            Command::Job(job) => self.take_job(job),
            Command::Ingest(ingest) => self.ingests.push(*ingest),
            Command::Compacted(Outcome::Stored(snapshot)) => self.compaction = Compaction::Stored(snapshot),
            Command::Compacted(Outcome::Unfit) => self.compaction = Compaction::Unfit,
            Command::Compacted(Outcome::Failed) => {
                self.compaction = Compaction::From(2 * self.document.len());
            }
            // Somebody may have come meanwhile.
            Command::LetGo => self.must_go = self.attached.is_empty(),
        }
    }

    fn carry_out(&mut self) {
        loop {
            let is_behind = |connection: ConnectionId| {
                let attached = self.attached.get(&connection).filter(|attached| !attached.is_leaving);
                attached.is_some_and(|attached| attached.outbox.is_behind(&self.handle, connection))
            };
            let Some(effect) = self.document.poll_effect_unless(is_behind) else { break };
            match effect {
                Effect::Append { id, records } => {
                    self.append(id, records);
                }
                Effect::Unpack { upload, chunks } => self.unpack(upload, chunks),
                Effect::LoadSnapshot => self.load_snapshot(),
                Effect::Bring { changes } => self.bring(changes),
                Effect::Send { connection, outgoing } => self.send(connection, outgoing),
                Effect::Close { connection, fault } => self.close(connection, fault),
            }
        }
        self.payload = None;
    }

    fn append(&mut self, append: AppendId, records: Vec<Record>) {
        let changes = records.iter().filter(|record| matches!(record, Record::Change { .. })).count();
        self.hub.metrics().changes_received.increment(changes as u64);
        self.records += changes as u64;
        self.is_noted = self.document.is_deleted();
        let asked = Instant::now();
        let (id, store) = (self.document.id(), self.store.clone());
        let is_whole = std::mem::take(&mut self.must_be_whole);
        let is_lazy = uploads::is_large(&records) || self.appends.back().is_some_and(|last| last.is_lazy);
        let stored: Stored = match &mut self.full_check {
            Some(check) => Either::Right(check.append(&self.document, records, store)),
            None if is_lazy => {
                let stored = uploads::append_in_slices(store, id, records, is_whole);
                Either::Right(Box::pin(stored.map_err(AppendError::Store)))
            }
            None => Either::Left(store.append(id, records).map_err(AppendError::Store)),
        };
        self.appends.push_back(Append { id: append, asked, stored, is_lazy });
    }

    fn unpack(&mut self, upload: UploadId, chunks: Vec<Bytes>) {
        let (turn, id) = (self.hub.unpacking(), self.document.id());
        self.unpacking.push(Box::pin(async move { (upload, uploads::unpack(turn, id, chunks).await) }));
    }

    fn envelope<'a>(&'a self, attached: &'a Attached) -> Envelope<'a> {
        Envelope {
            protocol: attached.protocol,
            ours: self.hub.peer_id(),
            target: &attached.peer,
            document: self.document.id(),
            document_text: &self.id_text,
        }
    }

    fn state(&self) -> State {
        let document = &self.document;
        State {
            heads: document.heads().to_vec(),
            changes: document.len(),
            bytes: document.stored_bytes(),
            is_deleted: document.is_deleted(),
        }
    }

    /// A copy that is kept with what came since; or else the snapshot, of which the copy may be older, with all that came since.
    fn catch_up(&self) -> Option<CatchUp> {
        if self.document.is_empty() {
            return None;
        }
        let has_snapshot = self.document.covered() > 0;
        let kept = self.hub.copies().take(self.document.id());
        let caught_up = kept.and_then(|copy| Some((self.document.chunks_since(&copy.heads())?, copy)));
        Some(match caught_up {
            Some((changes, copy)) => CatchUp { copy: Some(copy), has_snapshot, changes },
            None => {
                let changes = self.document.tail().map(|(_, chunk)| chunk.clone()).collect();
                CatchUp { copy: None, has_snapshot, changes }
            }
        })
    }

    fn load_snapshot(&self) {
        let (store, id) = (self.store.clone(), self.document.id());
        self.bringing
            .push(Box::pin(async move { open::load_snapshot(&*store, id).await.map(Brought::Snapshot) }));
    }

    fn bring(&self, changes: Vec<ChangeHash>) {
        let (copies, turns) = (self.hub.copies().clone(), self.hub.unpacking());
        let (store, id) = (self.store.clone(), self.document.id());
        self.bringing.push(Box::pin(async move {
            copies::bring(copies, turns, store, id, changes).await.map(Brought::Changes)
        }));
    }

    fn send(&mut self, connection: ConnectionId, outgoing: Outgoing) {
        if let Outgoing::Rejected(changes) = &outgoing {
            self.hub.metrics().changes_refused.increment(changes.len() as u64);
        }
        let Some(attached) = self.attached.get(&connection) else { return };
        // Whoever was away when a document was deleted has done nothing wrong.
        if let Outgoing::Rejected(changes) = &outgoing
            && !self.document.is_deleted()
        {
            attached.outbox.note_refused(changes.len());
            for change in changes {
                tracing::warn!(document = %self.document.id(), peer = %attached.peer, hash = %change.hash, reason = %change.reason, "change refused");
            }
        }
        let envelope = self.envelope(attached);
        let mut payload = None;
        let frame = match outgoing {
            Outgoing::Sync(message) => {
                let encoded = Payload::of(self.payload.as_ref(), message);
                let frame = envelope.sync(encoded.data());
                payload = Some(encoded);
                Some(frame)
            }
            Outgoing::Unavailable => envelope.unavailable(),
            Outgoing::Deleted => envelope.deleted(),
            Outgoing::Ephemeral { sender, ephemeral } => envelope.ephemeral(sender, ephemeral),
            Outgoing::RemoteHeads(heads) => envelope.remote_heads(heads),
            Outgoing::Rejected(changes) => envelope.rejected(changes),
        };
        if let Some(frame) = frame {
            attached.outbox.send(frame);
        }
        if payload.is_some() {
            self.payload = payload;
        }
    }

    fn close(&mut self, connection: ConnectionId, fault: PeerFault) {
        if let Some(attached) = self.attached.remove(&connection) {
            attached.outbox.close(CloseReason::Document { document: self.document.id(), fault });
        }
    }

    /// What has been judged waits for the appends that are on their way by then: it may stand on changes that somebody else sent, or that the
    /// same connection sent before it joined again. Then it is given back, and those who wait are told.
    fn settle(&mut self) {
        let mark = self.document.append_mark();
        let judged = self.unsettled.extract_if(|connection, _| self.document.is_settled(*connection));
        self.ending.extend(judged.map(|(_, unsettled)| (mark, unsettled)));
        while self.ending.front().is_some_and(|(mark, _)| self.document.has_reached(*mark)) {
            for done in self.ending.pop_front().into_iter().flat_map(|(_, unsettled)| unsettled.waiting) {
                // Whoever asked may be gone.
                let _ = done.send(());
            }
        }
    }
}

/// What whoever asks about changes of a deleted document is told: that they will never be part of it.
fn deletion_of(hashes: &[ChangeHash]) -> Vec<Rejection> {
    hashes.iter().map(|hash| Rejection { hash: *hash, reason: DELETED.to_owned() }).collect()
}
