//! Who is connected, which documents are open, and whether the server is fit to serve.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_core::document::ConnectionId;
use highwater_core::{CloseReason, DocumentId, PeerId, StorageId};
use highwater_storage::{Store, StoreError};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Config;
use crate::document::{self, Command, Handle, Start};
use crate::limits::{REOPEN_WAIT_MAX, REOPEN_WAIT_MIN};
use crate::metrics::Metrics;
use crate::outbox::Outbox;

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
    connections: AtomicUsize,
    /// Changes whenever a connection ends.
    connection_ended: watch::Sender<()>,
}

struct Tables {
    store: Arc<dyn Store>,
    documents: HashMap<DocumentId, Open>,
    connections: HashMap<ConnectionId, Outbox>,
    /// The newest connection of each peer.
    peers: HashMap<PeerId, ConnectionId>,
}

/// A document whose task runs, or ran.
struct Open {
    handle: Handle,
    /// Tells this task from an earlier or a later one of the same document.
    task: u64,
}

/// A connection that was let in; leaving it drops what the hub knows of it.
pub(crate) struct Registration {
    hub: Arc<Hub>,
    pub(crate) id: ConnectionId,
    peer: Option<PeerId>,
}

impl Hub {
    pub(crate) fn new(config: Config, open_store: OpenStore) -> Result<Arc<Self>, StoreError> {
        let store = open_store()?;
        let identity = store.identity();
        let invalid = |what: &str| StoreError::Open(format!("the store's {what} is not a valid id"));
        let peer_id = PeerId::new(&identity.peer_id).map_err(|_| invalid("peer id"))?;
        let storage_id = StorageId::new(&identity.storage_id).map_err(|_| invalid("storage id"))?;
        let tables =
            Tables { store, documents: HashMap::new(), connections: HashMap::new(), peers: HashMap::new() };
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
            connections: AtomicUsize::new(0),
            connection_ended: watch::Sender::new(()),
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
        tables.connections.insert(id, outbox);
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
            return open.handle.clone();
        }
        let (sender, mailbox) = mpsc::unbounded_channel();
        let handle = Arc::new(sender);
        let task = self.next_task.fetch_add(1, Ordering::Relaxed);
        tables.documents.insert(id, Open { handle: handle.clone(), task });
        // Subscribed under the lock: whoever drops all documents does it under the lock too, and so cannot miss this one.
        let start =
            Start { id, task, store: tables.store.clone(), discarded: self.discard.subscribe(), mailbox };
        tokio::spawn(document::run(self.clone(), start));
        handle
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
        tables.documents.clear();
        tables.connections.values().for_each(|outbox| outbox.close(reason.clone()));
        self.discard.send_replace(());
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
        tables.documents.clear();
        self.discard.send_replace(());
        Ok(())
    }

    /// Takes no more connections, and waits until those that there are have ended by themselves, at most as long as given. Then
    /// ends the rest and closes the store.
    pub(crate) async fn drain(&self, deadline: Duration) -> Result<(), StoreError> {
        self.phase.send_replace(Phase::Draining);
        let mut ended = self.connection_ended.subscribe();
        let all_gone = async {
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

impl Registration {
    /// The connection said which peer it is. Another connection of the same peer is closed.
    pub(crate) fn joined(&mut self, peer: &PeerId) {
        let mut tables = self.hub.tables();
        self.forget_peer(&mut tables);
        let replaced = tables.peers.insert(peer.clone(), self.id);
        if let Some(outbox) = replaced.and_then(|old| tables.connections.get(&old)) {
            outbox.close(CloseReason::Replaced);
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
