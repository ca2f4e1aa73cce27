//! A store that forgets everything when the process ends.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;
use highwater_core::change::Change;
use highwater_core::{ChangeHash, DocumentId, Record, Snapshot, SnapshotIndex};

use crate::store::{
    Found, Identity, Note, QuarantinedChange, Store, StoreError, StoreFuture, StoredDocument,
};

/// What a store in memory holds: what would be on the disk of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    documents: BTreeMap<DocumentId, Kept>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    stored: StoredDocument,
    /// The snapshot's document chunk.
    chunk: Option<Bytes>,
    /// What was noted when it was closed: records, changes, heads.
    closed: Option<(u64, u64, Vec<ChangeHash>)>,
}

impl Image {
    /// Adds the records of one append.
    pub(crate) fn append(&mut self, document: DocumentId, records: Vec<Record>, at_ms: i64) {
        let stored = &mut self.documents.entry(document).or_default().stored;
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
        let kept = self.documents.get(&document)?;
        let records = kept.stored.records();
        let is_noted = kept.closed.as_ref().is_some_and(|closed| closed.0 == records);
        Some(StoredDocument { is_noted, ..kept.stored.clone() })
    }

    /// The document chunk of a snapshot.
    pub(crate) fn snapshot(&self, document: DocumentId) -> Option<Bytes> {
        self.documents.get(&document)?.chunk.clone()
    }

    /// See [`Store::put_snapshot`].
    pub(crate) fn put_snapshot(
        &mut self,
        document: DocumentId,
        snapshot: Snapshot,
    ) -> Result<(), StoreError> {
        let misfit = |detail: &str| Err(StoreError::Snapshot(detail.into()));
        let Some(Kept { stored, chunk, .. }) = self.documents.get_mut(&document) else {
            return misfit("there is no such document");
        };
        let before = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.records);
        let records = snapshot.info.records;
        if records < before || records > stored.records() {
            return misfit("it stands for another number of records");
        }
        stored.changes.drain(..(records - before) as usize);
        stored.snapshot = Some(snapshot.info);
        *chunk = Some(snapshot.document);
        Ok(())
    }

    /// See [`Store::put_note`].
    pub(crate) fn put_note(&mut self, document: DocumentId, note: Note) {
        let Some(kept) = self.documents.get_mut(&document) else { return };
        match note {
            Note::Closed { records, changes, heads } => kept.closed = Some((records, changes, heads)),
            Note::Unfit { hash, reason } => kept.stored.unfit = Some((hash, reason)),
        }
    }

    /// See [`Store::find`].
    pub(crate) fn find(&self, document: DocumentId, hash: &ChangeHash) -> Found {
        let Some(Kept { stored, closed, .. }) = self.documents.get(&document) else { return Found::No };
        let closed = closed.as_ref().filter(|closed| closed.0 == stored.records());
        let pages = stored.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.index.pages);
        let is_in_snapshot = pages.get(SnapshotIndex::page_of(hash, pages.len()));
        if closed.is_some_and(|(_, _, heads)| heads.contains(hash))
            || is_in_snapshot.is_some_and(|page| SnapshotIndex::page_has(page, hash))
        {
            return Found::Yes;
        }
        // What waited for others when the snapshot was made may be part of the document since.
        let waited = stored.snapshot.iter().flat_map(|snapshot| &snapshot.orphans);
        let is_there = waited.chain(&stored.changes).any(|chunk| is_chunk_of(chunk, hash));
        match (is_there, closed) {
            (false, _) => Found::No,
            (true, Some((records, changes, _))) if records == changes => Found::Yes,
            (true, _) => Found::Perhaps,
        }
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

/// Whether a chunk is the change with this hash. Nearly always told by the checksum in its header, which is the first bytes of the hash.
pub(crate) fn is_chunk_of(chunk: &[u8], hash: &ChangeHash) -> bool {
    let parse = || Change::parse(Bytes::copy_from_slice(chunk));
    chunk.get(4..8) == Some(&hash.0[..4]) && parse().is_ok_and(|change| change.hash == *hash)
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

    fn load_snapshot(&self, document: DocumentId) -> StoreFuture<Option<Bytes>> {
        self.answer(|image| image.snapshot(document))
    }

    fn put_snapshot(&self, document: DocumentId, snapshot: Snapshot) -> StoreFuture<()> {
        let put = self.answer(|image| image.put_snapshot(document, snapshot));
        async { put.await? }.boxed()
    }

    fn put_note(&self, document: DocumentId, note: Note) -> StoreFuture<()> {
        self.answer(|image| image.put_note(document, note))
    }

    fn find(&self, document: DocumentId, hash: ChangeHash) -> StoreFuture<Found> {
        self.answer(|image| image.find(document, &hash))
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
