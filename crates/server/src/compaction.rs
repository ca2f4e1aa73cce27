//! Compaction in the background: a document's changes are put together into a snapshot, as soon as that pays.
//!
//! What is stored is read, materialised, saved, loaded again, compared, and put into the place of what it stands for. The document goes on meanwhile, and need not even be open.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use highwater_core::snapshot::{self, CompactError, Compactable};
use highwater_core::{DocumentId, Snapshot, SnapshotInfo};
use highwater_storage::{Note, Store, StoreError};
use tokio::sync::Semaphore;

use crate::document::Command;
use crate::hub::Hub;

/// Who is being compacted, or waits for it.
pub(crate) struct Compactions {
    turns: Arc<Semaphore>,
    wanted: Mutex<HashSet<DocumentId>>,
}

/// What became of a compaction, for the document if it is open.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A snapshot is stored.
    Stored(Arc<SnapshotInfo>),
    /// A change keeps the document from being compacted.
    Unfit,
    /// Nothing has changed, and it is of no use to try again soon.
    Failed,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Compact(#[from] CompactError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Other(String),
}

impl Compactions {
    /// At most so many at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), wanted: Mutex::default() }
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, HashSet<DocumentId>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Compacts a document when its turn comes. Asked for again meanwhile, it is done once.
    pub(crate) fn compact(self: &Arc<Self>, document: DocumentId, store: Arc<dyn Store>) {
        if self.compactions().wanted().insert(document) {
            let hub = self.clone();
            tokio::spawn(async move {
                // The semaphore is never closed; without a turn there would only be more at once.
                let _turn = hub.compactions().turns.clone().acquire_owned().await.ok();
                let outcome = run(&hub, document, store).await;
                hub.compactions().wanted().remove(&document);
                if let Some(handle) = hub.handle_of(document) {
                    // A task that is gone reads the snapshot when it comes back.
                    let _ = handle.send(Command::Compacted(outcome));
                }
            });
        }
    }
}

async fn run(hub: &Hub, id: DocumentId, store: Arc<dyn Store>) -> Outcome {
    let started = Instant::now();
    match compact(hub, id, &store).await {
        Ok(info) => {
            hub.metrics().compaction.done.increment(1);
            hub.metrics().compaction.seconds.record(started.elapsed());
            let (changes, bytes) = (info.changes, info.document_bytes);
            tracing::debug!(document = %id, changes, bytes, took = ?started.elapsed(), "compacted");
            Outcome::Stored(Arc::new(info))
        }
        Err(Failure::Compact(CompactError::Unfit { hash, reason })) => {
            hub.metrics().compaction.unfit.increment(1);
            tracing::warn!(document = %id, change = %hash, %reason, "a change keeps the document from being compacted; it is served as it is");
            if let Err(error) = store.put_note(id, Note::Unfit { hash, reason }).await {
                tracing::warn!(document = %id, %error, "noting that");
            }
            Outcome::Unfit
        }
        Err(error) => {
            hub.metrics().compaction.failed.increment(1);
            tracing::warn!(document = %id, %error, "the document was not compacted; it is served as it is");
            Outcome::Failed
        }
    }
}

async fn compact(hub: &Hub, id: DocumentId, store: &Arc<dyn Store>) -> Result<SnapshotInfo, Failure> {
    let missing = || Failure::Other("it is not stored".to_owned());
    let stored = store.load(id).await?.filter(|stored| stored.deleted_ms.is_none()).ok_or_else(missing)?;
    let base = match stored.snapshot {
        None => None,
        Some(info) => {
            let document = store.load_snapshot(id).await?.ok_or_else(missing)?;
            Some(Snapshot { info, document })
        }
    };
    let quarantined = stored.quarantined.into_iter().map(|change| (change.hash, change.reason)).collect();
    let from = Compactable { base, tail: stored.changes, quarantined };
    let made = tokio::task::spawn_blocking(move || snapshot::compact(id, from)).await;
    let (snapshot, copy) = made.map_err(|error| Failure::Other(error.to_string()))??;
    let info = snapshot.info.clone();
    store.put_snapshot(id, snapshot).await?;
    // Where it holds up nobody that others are let go of for it.
    let copies = hub.copies().clone();
    tokio::task::spawn_blocking(move || copies.put(id, copy));
    Ok(info)
}
