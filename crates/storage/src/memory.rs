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
    ANSWER_KEPT_MS, Deliveries, Delivery, DeliveryState, DocumentEntry, Found, Identity, ListDocuments, Note,
    QuarantinedChange, Store, StoreError, StoreFuture, StoredAnswer, StoredDocument,
};

/// What a store in memory holds: what would be on the disk of another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    documents: BTreeMap<DocumentId, Kept>,
    /// The number that was given last.
    changed: u64,
    /// Who is told of all changes.
    followers: BTreeMap<String, Follower>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Follower {
    cursor: u64,
    deliveries: BTreeMap<DocumentId, Delivery>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    stored: StoredDocument,
    /// The snapshot's document chunk.
    chunk: Option<Bytes>,
    /// What was noted when it was closed: records, changes, heads.
    closed: Option<(u64, u64, Vec<ChangeHash>)>,
    created_ms: i64,
    changed: u64,
    changed_ms: i64,
    answers: BTreeMap<[u8; 32], (StoredAnswer, i64)>,
}

impl Image {
    /// Adds the records of one append.
    pub(crate) fn append(&mut self, document: DocumentId, records: Vec<Record>, at_ms: i64) {
        let is_new = !self.documents.contains_key(&document);
        let kept = self.documents.entry(document).or_default();
        if is_new {
            kept.created_ms = at_ms;
        }
        let mut is_changed = is_new;
        for record in records {
            let is_deleted = kept.stored.deleted_ms.is_some();
            match record {
                Record::Answer { key, request, answer } => {
                    kept.answers.insert(key, (StoredAnswer { request, answer }, at_ms));
                    kept.answers.retain(|_, (_, answered_ms)| *answered_ms >= at_ms - ANSWER_KEPT_MS);
                }
                _ if is_deleted => {}
                Record::Change { bytes } => {
                    is_changed = true;
                    kept.stored.changes.push(bytes);
                }
                Record::Quarantine { hash, reason, peer, bytes } => {
                    kept.stored.quarantined.push(QuarantinedChange { hash, reason, peer, at_ms, bytes });
                }
                Record::Tombstone => {
                    is_changed = true;
                    kept.stored = StoredDocument { deleted_ms: Some(at_ms), ..StoredDocument::default() };
                    (kept.chunk, kept.closed) = (None, None);
                }
            }
        }
        if is_changed {
            self.changed += 1;
            (kept.changed, kept.changed_ms) = (self.changed, at_ms);
        }
    }

    /// See [`Store::answer`].
    pub(crate) fn answer(&self, document: DocumentId, key: &[u8; 32]) -> Option<StoredAnswer> {
        self.documents.get(&document)?.answers.get(key).map(|(answer, _)| answer.clone())
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
        if stored.deleted_ms.is_some() {
            return misfit("the document was deleted");
        }
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
        if kept.stored.deleted_ms.is_some() {
            return;
        }
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

    /// See [`Store::documents`].
    pub(crate) fn entries(&self, query: &ListDocuments) -> Vec<DocumentEntry> {
        let within =
            query.ranges().flat_map(|(start, end)| self.documents.range((start, Bound::Included(end))));
        within.take(query.limit).map(|(id, kept)| kept.entry(*id)).collect()
    }

    /// See [`Store::changed`].
    pub(crate) fn changed(&self, after: u64, limit: usize) -> Vec<DocumentEntry> {
        let entries = self.documents.iter().map(|(id, kept)| kept.entry(*id));
        let mut since: Vec<DocumentEntry> = entries.filter(|entry| entry.changed > after).collect();
        since.sort_unstable_by_key(|entry| entry.changed);
        since.truncate(limit);
        since
    }

    /// See [`Store::progress`].
    pub(crate) fn progress(&self, name: &str) -> Option<u64> {
        self.followers.get(name).map(|follower| follower.cursor)
    }

    /// See [`Store::put_progress`].
    pub(crate) fn put_progress(&mut self, name: String, cursor: Option<u64>, deliveries: Vec<Delivery>) {
        let follower = self.followers.entry(name).or_default();
        follower.cursor = cursor.unwrap_or(follower.cursor);
        // What is told of a document that is not there says nothing.
        let known = deliveries.into_iter().filter(|delivery| self.documents.contains_key(&delivery.document));
        follower.deliveries.extend(known.map(|delivery| (delivery.document, delivery)));
    }

    /// See [`Store::deliveries`].
    pub(crate) fn deliveries(&self, name: &str, which: &Deliveries) -> Vec<Delivery> {
        let Some(Follower { deliveries, .. }) = self.followers.get(name) else { return Vec::new() };
        match which {
            Deliveries::Of(documents) => {
                documents.iter().filter_map(|id| deliveries.get(id).cloned()).collect()
            }
            Deliveries::Due { by_ms, limit } => {
                let waits = |delivery: &Delivery| match delivery.state {
                    DeliveryState::Waits(due_ms) => Some(due_ms),
                    _ => None,
                };
                let mut due: Vec<Delivery> = deliveries
                    .values()
                    .filter(|it| waits(it).is_some_and(|ms| ms <= *by_ms))
                    .cloned()
                    .collect();
                due.sort_by_key(|delivery| waits(delivery));
                due.truncate(*limit);
                due
            }
            Deliveries::Dead(limit) => {
                let dead = deliveries.values().filter(|delivery| delivery.state == DeliveryState::Dead);
                dead.take(*limit).cloned().collect()
            }
        }
    }

    /// See [`Store::last_changed`].
    pub(crate) fn last_changed(&self) -> u64 {
        self.changed
    }
}

impl Kept {
    fn entry(&self, id: DocumentId) -> DocumentEntry {
        let Self { created_ms, changed, changed_ms, .. } = *self;
        DocumentEntry { id, created_ms, changed, changed_ms, is_deleted: self.stored.deleted_ms.is_some() }
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
    fn done<T: Send + 'static>(&self, work: impl FnOnce(&mut Image) -> T) -> StoreFuture<T> {
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
        self.done(|image| image.append(document, records, at_ms))
    }

    fn answer(&self, document: DocumentId, key: [u8; 32]) -> StoreFuture<Option<StoredAnswer>> {
        self.done(|image| image.answer(document, &key))
    }

    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>> {
        self.done(|image| image.load(document))
    }

    fn load_snapshot(&self, document: DocumentId) -> StoreFuture<Option<Bytes>> {
        self.done(|image| image.snapshot(document))
    }

    fn put_snapshot(&self, document: DocumentId, snapshot: Snapshot) -> StoreFuture<()> {
        let put = self.done(|image| image.put_snapshot(document, snapshot));
        async { put.await? }.boxed()
    }

    fn put_note(&self, document: DocumentId, note: Note) -> StoreFuture<()> {
        self.done(|image| image.put_note(document, note))
    }

    fn find(&self, document: DocumentId, hash: ChangeHash) -> StoreFuture<Found> {
        self.done(|image| image.find(document, &hash))
    }

    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>> {
        self.done(|image| image.list(after, limit))
    }

    fn documents(&self, query: ListDocuments) -> StoreFuture<Vec<DocumentEntry>> {
        self.done(|image| image.entries(&query))
    }

    fn changed(&self, after: u64, limit: usize) -> StoreFuture<Vec<DocumentEntry>> {
        self.done(|image| image.changed(after, limit))
    }

    fn last_changed(&self) -> StoreFuture<u64> {
        self.done(|image| image.last_changed())
    }

    fn progress(&self, name: String) -> StoreFuture<Option<u64>> {
        self.done(|image| image.progress(&name))
    }

    fn put_progress(&self, name: String, cursor: Option<u64>, deliveries: Vec<Delivery>) -> StoreFuture<()> {
        self.done(|image| image.put_progress(name, cursor, deliveries))
    }

    fn deliveries(&self, name: String, which: Deliveries) -> StoreFuture<Vec<Delivery>> {
        self.done(|image| image.deliveries(&name, &which))
    }

    fn probe(&self) -> StoreFuture<()> {
        self.done(|_| ())
    }

    fn close(&self) -> StoreFuture<()> {
        let done = self.done(|_| ());
        *lock(&self.closed) = true;
        done
    }
}

// Nothing under these locks leaves a half-made state behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
