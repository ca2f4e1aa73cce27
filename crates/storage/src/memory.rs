//! A store that forgets everything when the process ends.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::ready;
use highwater_core::{DocumentId, Record};

use crate::store::{Identity, QuarantinedChange, Store, StoreError, StoreFuture, StoredDocument};

/// What a store in memory holds: what would be on the disk of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    documents: BTreeMap<DocumentId, StoredDocument>,
}

impl Image {
    /// Adds the records of one append.
    pub(crate) fn append(&mut self, document: DocumentId, records: Vec<Record>, at_ms: i64) {
        let stored = self.documents.entry(document).or_default();
        for record in records {
            match record {
                Record::Change { bytes } => stored.changes.push(bytes),
                Record::Quarantine { hash, reason, peer, bytes } => {
                    stored.quarantined.push(QuarantinedChange { hash, reason, peer, at_ms, bytes });
                }
            }
        }
    }

    /// All of one document.
    pub(crate) fn load(&self, document: DocumentId) -> Option<StoredDocument> {
        self.documents.get(&document).cloned()
    }

    /// The ids of all documents.
    pub(crate) fn documents(&self) -> Vec<DocumentId> {
        self.documents.keys().copied().collect()
    }

    /// At most `limit` ids after `after`.
    pub(crate) fn list(&self, after: Option<DocumentId>, limit: usize) -> Vec<DocumentId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.documents.range((start, Bound::Unbounded)).take(limit).map(|(document, _)| *document).collect()
    }
}

/// Keeps documents in memory, for tests and trials.
///
/// It keeps every promise of [`Store`] but one: nothing is durable. What is appended is there as soon as the call returns, and gone with
/// the last handle on it.
pub struct MemoryStore {
    identity: Identity,
    image: Arc<Mutex<Image>>,
    closed: Mutex<bool>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let identity = Identity { peer_id: "highwater-memory".into(), storage_id: "memory".into() };
        Self { identity, image: Arc::default(), closed: Mutex::new(false) }
    }

    /// Another store over the same documents, as if this one had been closed and opened again.
    pub fn reopen(&self) -> Self {
        Self { identity: self.identity.clone(), image: Arc::clone(&self.image), closed: Mutex::new(false) }
    }

    /// `work` on the documents, done at once, unless the store is closed.
    fn answer<T: Send + 'static>(&self, work: impl FnOnce(&mut Image) -> T) -> StoreFuture<T> {
        let result =
            if *lock(&self.closed) { Err(StoreError::Closed) } else { Ok(work(&mut lock(&self.image))) };
        ready(result).boxed()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn append(&self, document: DocumentId, records: Vec<Record>) -> StoreFuture<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        self.answer(|image| image.append(document, records, at_ms))
    }

    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>> {
        self.answer(|image| image.load(document))
    }

    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>> {
        self.answer(|image| image.list(after, limit))
    }

    fn probe(&self) -> StoreFuture<()> {
        self.answer(|_| ())
    }

    fn close(&self) -> StoreFuture<()> {
        let done = self.answer(|_| ());
        *lock(&self.closed) = true;
        done
    }
}

// Nothing under these locks leaves a half-made state behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
