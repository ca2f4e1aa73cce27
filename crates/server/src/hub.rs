//! Who is connected, which documents are open, and whether the server is fit to serve.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use highwater_core::document::ConnectionId;
use highwater_core::{ChangeHash, CloseReason, DocumentId, Materialised, PeerId, StorageId};
use highwater_storage::{DocumentEntry, Found, ListDocuments, Store, StoreError};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::compaction::Compactions;
use crate::config::Config;
use crate::copies::Copies;
use crate::document::{
    self, Command, EditJob, EditRequest, Edited, Handle, Ingest, Ingested, Job, Key, Reading, Reply, Start,
    State,
};
use crate::events::Followers;
use crate::http::Problem;
use crate::idle::Idle;
use crate::limits::{DRAIN_REQUESTS_MAX, PROBE_TIMEOUT, REOPEN_WAIT_MAX, REOPEN_WAIT_MIN};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::rooms::Rooms;
use crate::uploads;
use crate::webhooks::Webhooks;

/// Opens the store; called at the start, and again after the store failed.
pub type OpenStore = Arc<dyn Fn() -> Result<Arc<dyn Store>, StoreError> + Send + Sync>;

/// Whether the server takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Yes.
    Serving,
    /// Not until the store has been opened again.
    StoreFailed,
    /// No more.
    Draining,
}

/// Resolves when the server goes away.
pub(crate) async fn draining(phase: &mut watch::Receiver<Phase>) {
    // The hub outlives whoever waits, so waiting cannot fail; if it did, there would be nothing to drain into.
    if phase.wait_for(|phase| *phase == Phase::Draining).await.is_err() {
        std::future::pending().await
    }
}

/// One per server. What is shared is a few tables, each held only for a look-up.
pub(crate) struct Hub {
    config: Config,
    open_store: OpenStore,
    peer_id: PeerId,
    storage_id: StorageId,
    phase: watch::Sender<Phase>,
    /// Sent to when all open documents must be dropped.
    discard: watch::Sender<()>,
    tables: Mutex<Tables>,
    metrics: Arc<Metrics>,
    next_connection: AtomicU64,
    next_task: AtomicU64,
    unpacking: Arc<Semaphore>,
    rooms: Rooms,
    copies: Arc<Copies>,
    compactions: Compactions,
    followers: Arc<Followers>,
    webhooks: Webhooks,
    /// Of this process alone.
    actor_seed: [u8; 32],
    /// Grows when it is not sure that what an actor did last is known.
    actor_epoch: AtomicU64,
    connections: AtomicUsize,
    /// Changes whenever a connection ends.
    connection_ended: watch::Sender<()>,
    /// How many requests are being answered.
    requests: watch::Sender<usize>,
}

struct Tables {
    store: Arc<dyn Store>,
    documents: HashMap<DocumentId, Open>,
    /// Those of them that nobody uses.
    idle: Idle,
    connections: HashMap<ConnectionId, Connected>,
    /// The newest connection of each peer.
    peers: HashMap<PeerId, ConnectionId>,
}

/// A document whose task runs, or ran.
struct Open {
    handle: Handle,
    /// Tells this task from an earlier or a later one of the same document.
    task: u64,
}

struct Connected {
    outbox: Outbox,
    /// How many documents it has open.
    documents: usize,
    /// It was closed to make room: its documents are let go of in a moment.
    is_leaving: bool,
}

/// A request that is being answered, until this is dropped. A shutdown waits for it.
pub(crate) struct UnderWay(Arc<Hub>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| *requests -= 1);
    }
}

/// A connection that was let in; leaving it drops what the hub knows of it.
pub(crate) struct Registration {
    hub: Arc<Hub>,
    pub(crate) id: ConnectionId,
    peer: Option<PeerId>,
}

impl Hub {
    pub(crate) fn new(
        config: Config,
        open_store: OpenStore,
        webhooks: Webhooks,
    ) -> Result<Arc<Self>, StoreError> {
        let store = open_store()?;
        let identity = store.identity();
        let invalid = |what: &str| StoreError::Open(format!("the store's {what} is not a valid id"));
        let peer_id = PeerId::new(&identity.peer_id).map_err(|_| invalid("peer id"))?;
        let storage_id = StorageId::new(&identity.storage_id).map_err(|_| invalid("storage id"))?;
        let tables = Tables {
            store,
            documents: HashMap::new(),
            idle: Idle::new(),
            connections: HashMap::new(),
            peers: HashMap::new(),
        };
        let copies = Arc::new(Copies::new(config.copies_bytes_max));
        let compactions = Compactions::new(config.compactions_max);
        let mut actor_seed = [0; 32];
        getrandom::fill(&mut actor_seed)
            .map_err(|error| StoreError::Open(format!("no randomness: {error}")))?;
        let unpacking = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new(Self {
            config,
            open_store,
            peer_id,
            storage_id,
            phase: watch::Sender::new(Phase::Serving),
            discard: watch::Sender::new(()),
            tables: Mutex::new(tables),
            metrics: Arc::new(Metrics::new()),
            next_connection: AtomicU64::new(0),
            next_task: AtomicU64::new(0),
            unpacking: Arc::new(Semaphore::new(unpacking)),
            rooms: Rooms::new(),
            copies,
            compactions,
            followers: Arc::new(Followers::new()),
            webhooks,
            actor_seed,
            actor_epoch: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            connection_ended: watch::Sender::new(()),
            requests: watch::Sender::new(0),
        }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The id by which clients know this server.
    pub(crate) fn peer_id(&self) -> &PeerId {
        &self.peer_id
    }

    /// The id of the server's storage, stable over restarts.
    pub(crate) fn storage_id(&self) -> &StorageId {
        &self.storage_id
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Room on the blocking pool to take uploads apart, so that they leave some for opening documents.
    pub(crate) fn unpacking(&self) -> Arc<Semaphore> {
        self.unpacking.clone()
    }

    /// Documents as `automerge` holds them.
    pub(crate) fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    /// Everybody who is told what happens to documents.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    pub(crate) fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Changes when all open documents are dropped, because the store failed or the server ends.
    pub(crate) fn discarded(&self) -> watch::Receiver<()> {
        self.discard.subscribe()
    }

    pub(crate) fn compactions(&self) -> &Compactions {
        &self.compactions
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.tables().store.clone()
    }

    /// How many documents are open and how many connections there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.tables().documents.len(), self.connections.load(Ordering::Relaxed))
    }

    /// Lets a connection in, or says why not.
    pub(crate) fn register(self: &Arc<Self>, outbox: Outbox) -> Result<Registration, CloseReason> {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let mut tables = self.tables();
        // Looked at under the lock: whoever changes the phase takes it afterwards, and so sees this connection.
        match *self.phase.borrow() {
            Phase::Serving => {}
            Phase::StoreFailed => return Err(CloseReason::StoreFailed),
            Phase::Draining => return Err(CloseReason::ShuttingDown),
        }
        if tables.connections.len() >= self.config.connections_max {
            return Err(CloseReason::TooManyConnections);
        }
        tables.connections.insert(id, Connected { outbox, documents: 0, is_leaving: false });
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.metrics.connections.increment(1);
        Ok(Registration { hub: self.clone(), id, peer: None })
    }

    /// The document's task, started if need be. However many ask at once, there is one.
    ///
    /// While anybody holds a handle, the task does not end for want of work.
    pub(crate) fn open(self: &Arc<Self>, id: DocumentId) -> Handle {
        let mut tables = self.tables();
        // A task that ended because the store failed leaves its handle behind.
        if let Some(open) = tables.documents.get(&id).filter(|open| !open.handle.is_closed()) {
            let handle = open.handle.clone();
            tables.idle.remove(id);
            return handle;
        }
        if tables.documents.contains_key(&id) {
            self.forget_actors();
        }
        self.make_room(&mut tables);
        let (sender, mailbox) = mpsc::unbounded_channel();
        let handle = Arc::new(sender);
        let task = self.next_task.fetch_add(1, Ordering::Relaxed);
        tables.documents.insert(id, Open { handle: handle.clone(), task });
        // Subscribed under the lock: whoever drops all documents does it under the lock too, and so cannot miss this one.
        let start = Start {
            id,
            task,
            store: tables.store.clone(),
            handle: Arc::downgrade(&handle),
            discarded: self.discard.subscribe(),
            mailbox,
        };
        tokio::spawn(document::run(self.clone(), start));
        handle
    }

    /// The document's task for a connection, which is closed if there is no room and nobody has more documents open.
    pub(crate) fn open_for(self: &Arc<Self>, connection: ConnectionId, id: DocumentId) -> Handle {
        if let Some(connected) = self.tables().connections.get_mut(&connection) {
            connected.documents += 1;
        }
        self.open(id)
    }

    /// A connection has no document open any more.
    pub(crate) fn closed_all(&self, connection: ConnectionId) {
        if let Some(connected) = self.tables().connections.get_mut(&connection) {
            connected.documents = 0;
        }
    }

    /// The document's task, if it is open.
    pub(crate) fn handle_of(&self, id: DocumentId) -> Option<Handle> {
        self.tables().documents.get(&id).map(|open| open.handle.clone())
    }

    /// Which of these changes are durable and part of a document, unless that was deleted. One look-up each, and the document is opened only if what is stored beside it cannot tell.
    pub(crate) async fn contains(
        self: &Arc<Self>,
        id: DocumentId,
        hashes: Vec<ChangeHash>,
    ) -> Result<Vec<bool>, Problem> {
        let found = self.look_for(id, hashes).await?;
        if !found.contains(&true) && self.entry(id).await?.is_some_and(|entry| entry.is_deleted) {
            return Err(Problem::Deleted);
        }
        Ok(found)
    }

    /// What the store's list of documents says of one.
    pub(crate) async fn entry(&self, id: DocumentId) -> Result<Option<DocumentEntry>, StoreError> {
        let query = ListDocuments { after: None, ranges: vec![id..=id], limit: 1 };
        Ok(self.store().documents(query).await?.pop())
    }

    async fn look_for(
        self: &Arc<Self>,
        id: DocumentId,
        hashes: Vec<ChangeHash>,
    ) -> Result<Vec<bool>, Problem> {
        if let Some(handle) = self.handle_of(id)
            && let Some(found) = ask_open(handle, |answer| Command::Contains(hashes.clone(), answer)).await
        {
            return found;
        }
        let store = self.store();
        let mut all = Vec::with_capacity(hashes.len());
        for hash in &hashes {
            match store.find(id, *hash).await? {
                Found::Yes => all.push(true),
                Found::No => all.push(false),
                Found::Perhaps => {
                    return ask(self.open(id), |answer| Command::Contains(hashes, answer)).await;
                }
            }
        }
        Ok(all)
    }

    /// Takes in changes that came in a request, as chunks one after the other. Resolves when they are durable.
    pub(crate) async fn ingest(
        self: &Arc<Self>,
        id: DocumentId,
        chunks: Bytes,
        sender: &str,
    ) -> Result<Ingested, Problem> {
        let _under_way = self.under_way();
        let changes = uploads::unpack(self.unpacking(), id, vec![chunks]).await?;
        let sender = PeerId::new(sender).map_err(|error| Problem::Internal(error.to_string()))?;
        let ingest = |answer| Command::Ingest(Box::new(Ingest { changes, sender, answer }));
        let ingested = ask(self.open(id), ingest).await?;
        if ingested.is_deleted { Err(Problem::Deleted) } else { Ok(ingested) }
    }

    /// How a document is, as far as it is durable.
    pub(crate) async fn state(self: &Arc<Self>, id: DocumentId) -> Result<State, Problem> {
        let state = ask(self.open(id), Command::State).await?;
        if state.is_deleted { Err(Problem::Deleted) } else { Ok(state) }
    }

    /// How a document is that exists.
    pub(crate) async fn existing(self: &Arc<Self>, id: DocumentId) -> Result<State, Problem> {
        let state = self.state(id).await?;
        if state.heads.is_empty() { Err(Problem::NoSuchDocument) } else { Ok(state) }
    }

    /// Looks at a document with all its values, as it is now.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        id: DocumentId,
        look: impl FnOnce(&Materialised) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let _under_way = self.under_way();
        ask(self.open(id), |answer| Command::Job(Job::Look(Box::new(Reading { look, answer })))).await
    }

    /// Edits a document. Resolves when that is durable; dropping the future does not cancel it.
    pub(crate) async fn edit(
        self: &Arc<Self>,
        id: DocumentId,
        request: EditRequest,
    ) -> Result<Edited, Problem> {
        let _under_way = self.under_way();
        ask(self.open(id), |answer| Command::Job(Job::Edit(Box::new(EditJob { request, answer })))).await
    }

    /// From now on changes are made by other actors: a task ended while a change of its own may have been on its way.
    pub(crate) fn forget_actors(&self) {
        self.actor_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// The actor of the changes that this process makes of a document. One for each, since only the document's task makes them, one after the other.
    pub(crate) fn actor(&self, id: DocumentId) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.actor_seed);
        hash.update(self.actor_epoch.load(Ordering::Relaxed).to_le_bytes());
        hash.update(id.as_bytes());
        first_half(hash)
    }

    /// The id of a document that is to be made: as it is asked for, or made of the request's key, or a random one.
    pub(crate) fn id_of_new(
        &self,
        chosen: Option<DocumentId>,
        key: Option<Key>,
    ) -> Result<DocumentId, Problem> {
        match (chosen, key) {
            (Some(id), _) => Ok(id),
            (None, Some(key)) => Ok(self.document_of_key(&key.key)),
            (None, None) => {
                let mut bytes = [0; 16];
                let made = getrandom::fill(&mut bytes);
                made.map_err(|error| Problem::Internal(format!("no randomness: {error}")))?;
                Ok(DocumentId::from_bytes(bytes))
            }
        }
    }

    fn document_of_key(&self, key: &[u8; 32]) -> DocumentId {
        let mut hash = Sha256::new();
        hash.update(self.storage_id.as_str());
        hash.update([0]);
        hash.update(key);
        DocumentId::from_bytes(first_half(hash))
    }

    /// What requests and answers may hold in memory.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// If as many documents are open as may be, one that nobody uses has to go; if all are used, the connection that has most of them open.
    fn make_room(&self, tables: &mut Tables) {
        if tables.documents.len() < self.config.open_documents_max {
            return;
        }
        if tables.let_go_of_oldest() {
            return;
        }
        // What those leave behind who were closed before is room already; and they may go on for a while and open more.
        let leaving = tables.connections.values().filter(|connected| connected.is_leaving);
        let room_to_come: usize = leaving.map(|connected| connected.documents).sum();
        if tables.documents.len() < self.config.open_documents_max + room_to_come {
            return;
        }
        let staying = tables.connections.values_mut().filter(|connected| !connected.is_leaving);
        if let Some(connected) = staying.max_by_key(|connected| connected.documents) {
            connected.is_leaving = true;
            connected.outbox.close(CloseReason::TooManyOpenDocuments);
        }
    }

    /// A document has nothing to do and takes up so many bytes. It may stay as long as there is room.
    pub(crate) fn is_idle(&self, id: DocumentId, task: u64, bytes: usize) {
        let mut tables = self.tables();
        if tables.documents.get(&id).is_some_and(|open| open.task == task) {
            tables.idle.add(id, task, bytes);
            while tables.idle.bytes() > self.config.idle_documents_bytes_max && tables.let_go_of_oldest() {}
        }
    }

    /// Somebody uses a document.
    pub(crate) fn is_used(&self, id: DocumentId) {
        self.tables().idle.remove(id);
    }

    /// Drops a document's handle if nobody else holds one; its task ends then. Under the lock under which handles are given out, so nobody
    /// can be left with a task that is about to end.
    pub(crate) fn try_forget(
        &self,
        id: DocumentId,
        task: u64,
        mailbox: &mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        let mut tables = self.tables();
        let Some(open) = tables.documents.get(&id).filter(|open| open.task == task) else { return true };
        let is_unused = Arc::strong_count(&open.handle) == 1 && mailbox.is_empty();
        if is_unused {
            tables.documents.remove(&id);
            tables.idle.remove(id);
        }
        is_unused
    }

    /// The store failed: nothing is acknowledged, everybody is sent away, and nobody is let in before the store was opened again and
    /// wrote something.
    ///
    /// What an earlier store says late, when another one has taken its place, is of no interest.
    pub(crate) fn store_failed(self: &Arc<Self>, store: &Arc<dyn Store>, error: &StoreError) {
        if !Arc::ptr_eq(store, &self.store()) {
            return;
        }
        let first = self.phase.send_if_modified(|phase| {
            let first = *phase == Phase::Serving;
            if first {
                *phase = Phase::StoreFailed;
            }
            first
        });
        if first {
            tracing::error!(%error, "the store failed; clients are sent away until it has been opened again");
            self.metrics.store_failures.increment(1);
            self.drop_all(&CloseReason::StoreFailed);
            tokio::spawn(self.clone().recover());
        }
    }

    /// Closes every connection and drops every document, whatever it is doing.
    fn drop_all(&self, reason: &CloseReason) {
        let mut tables = self.tables();
        tables.forget_documents();
        tables.connections.values().for_each(|connected| connected.outbox.close(reason.clone()));
        self.discard.send_replace(());
    }

    /// Whether connections are taken, and a write made just now is durable; if not, why.
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<(), String> {
        let phase = *self.phase.borrow();
        match phase {
            Phase::Serving => {}
            Phase::StoreFailed => return Err("the store failed and has not been opened again".to_owned()),
            Phase::Draining => return Err("shutting down".to_owned()),
        }
        let store = self.store();
        match tokio::time::timeout(PROBE_TIMEOUT, store.probe()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.store_failed(&store, &error);
                Err(error.to_string())
            }
            Err(_) => Err(format!("the store took longer than {PROBE_TIMEOUT:?} to write")),
        }
    }

    async fn recover(self: Arc<Self>) {
        let mut wait = REOPEN_WAIT_MIN;
        // The failed store must let go of its files before they can be opened again.
        if let Err(error) = self.store().close().await {
            tracing::warn!(%error, "closing the failed store");
        }
        while *self.phase.borrow() == Phase::StoreFailed {
            match self.reopen().await {
                Ok(()) => {
                    tracing::info!("the store is open again");
                    self.phase.send_if_modified(|phase| {
                        let is_failed = *phase == Phase::StoreFailed;
                        if is_failed {
                            *phase = Phase::Serving;
                        }
                        is_failed
                    });
                }
                Err(error) => {
                    tracing::error!(%error, retry_in = ?wait, "the store does not open");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(REOPEN_WAIT_MAX);
                }
            }
        }
    }

    async fn reopen(&self) -> Result<(), StoreError> {
        let open = self.open_store.clone();
        let opened = tokio::task::spawn_blocking(move || open()).await;
        let store = opened.map_err(|error| StoreError::Open(error.to_string()))??;
        if let Err(error) = store.probe().await {
            // A store that opens and cannot write is let go of again, or the next attempt finds its files locked.
            let _ = store.close().await;
            return Err(error);
        }
        let mut tables = self.tables();
        tables.store = store;
        // Whatever was opened meanwhile stands on the failed store.
        tables.forget_documents();
        self.discard.send_replace(());
        Ok(())
    }

    /// A request was read.
    pub(crate) fn under_way(self: &Arc<Self>) -> UnderWay {
        self.requests.send_modify(|requests| *requests += 1);
        UnderWay(self.clone())
    }

    /// Takes no more connections, and waits until those that there are have ended by themselves and requests are answered, at most as long as given. Then
    /// ends the rest and closes the store.
    pub(crate) async fn drain(&self, deadline: Duration) -> Result<(), StoreError> {
        self.phase.send_replace(Phase::Draining);
        let (mut ended, mut requests) = (self.connection_ended.subscribe(), self.requests.subscribe());
        let all_gone = async {
            // Whoever sends a large body slowly is not waited for as long as others.
            let answered = requests.wait_for(|requests| *requests == 0);
            drop(tokio::time::timeout(DRAIN_REQUESTS_MAX, answered).await);
            while self.connections.load(Ordering::Acquire) > 0 {
                if ended.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(deadline, all_gone).await.is_err() {
            tracing::warn!(
                connections = self.counts().1,
                "the deadline passed before all connections were drained"
            );
        }
        self.drop_all(&CloseReason::ShuttingDown);
        match self.store().close().await {
            // It failed before, everybody was told, and nothing was acknowledged since.
            Err(StoreError::Closed) => Ok(()),
            closed => closed,
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Nothing that can panic happens while the tables are held.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let all: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&all[..16]);
    half
}

/// What the task of a document answers. Without a task there is no answer either.
pub(crate) async fn ask<T>(handle: Handle, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
    ask_open(handle, command).await.unwrap_or(Err(Problem::Unavailable))
}

/// The same; `None` if the task ends before it answers.
async fn ask_open<T>(
    handle: Handle,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Option<Result<T, Problem>> {
    let (answer, answered) = oneshot::channel();
    handle.send(command(answer)).ok()?;
    // Whoever waits does not use it.
    drop(handle);
    answered.await.ok()
}

impl Tables {
    fn forget_documents(&mut self) {
        self.documents.clear();
        self.idle.clear();
    }

    /// Asks the document that was not used for longest to go. `false` if all are in use.
    fn let_go_of_oldest(&mut self) -> bool {
        let Some((document, task)) = self.idle.pop_oldest() else { return false };
        if let Some(open) = self.documents.get(&document).filter(|open| open.task == task) {
            let _ = open.handle.send(Command::LetGo);
        }
        true
    }
}

impl Registration {
    /// The connection said which peer it is. Another connection of the same peer is closed.
    pub(crate) fn joined(&mut self, peer: &PeerId) {
        let mut tables = self.hub.tables();
        self.forget_peer(&mut tables);
        let replaced = tables.peers.insert(peer.clone(), self.id);
        if let Some(connected) = replaced.and_then(|old| tables.connections.get(&old)) {
            connected.outbox.close(CloseReason::Replaced);
        }
        drop(tables);
        self.peer = Some(peer.clone());
    }

    fn forget_peer(&self, tables: &mut Tables) {
        if let Some(peer) = self.peer.as_ref().filter(|peer| tables.peers.get(*peer) == Some(&self.id)) {
            tables.peers.remove(peer);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut tables = self.hub.tables();
        tables.connections.remove(&self.id);
        self.forget_peer(&mut tables);
        drop(tables);
        self.hub.connections.fetch_sub(1, Ordering::Release);
        self.hub.connection_ended.send_replace(());
        self.hub.metrics.connections.decrement(1);
    }
}
