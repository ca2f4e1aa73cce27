//! The trait that every store implements, and what it promises.

use std::ops::{Bound, RangeInclusive};

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::document::{RestoreError, Restoring};
use highwater_core::{ChangeHash, Document, DocumentId, Record, Snapshot, SnapshotInfo};

/// What every call of a store returns: it owns all it needs, so that callers need not hold the store borrowed.
pub type StoreFuture<T> = BoxFuture<'static, Result<T, StoreError>>;

/// Keeps documents.
///
/// # Promises
///
/// **Durable.** When the future of [`append`](Store::append) resolves to `Ok`, its records survive the end of the process, of the
/// system and of the power. Not before. A store that cannot promise this says so by another name.
///
/// **Whole.** The records of one append become durable together or not at all, and no reader sees a part of them.
///
/// **Ordered.** Appends to one document become durable in the order in which `append` was called (not polled: the call itself takes its
/// place in the order). [`load`](Store::load) returns the records in that order. If one fails, every later append to any document fails too, until
/// the store is opened again: a later success must never stand on an earlier failure.
///
/// **Exact.** `load` returns every byte as it was given, checked against a checksum, or an error that names the damaged record. It never
/// returns a part of a document, and an error never reads as "there is no such document".
///
/// **Fresh.** A `load` that is called after an append resolved sees it.
///
/// **Counted.** Every append that adds changes to a document or deletes it gives that document a [number](DocumentEntry::changed) greater than all that were ever given, together with the
/// append. Appends to one document that become durable at once may share one; no two documents ever do. So whoever has seen all up to a number finds what happened since behind it, and nothing in between ever turns up late.
///
/// **Final.** Of a document with a [`Record::Tombstone`] nothing is returned but that it is deleted and its answers, and whatever else is appended to it is dropped. What is stored
/// of it is cleared away in the background.
///
/// Dropping a future does not cancel the work that was asked for.
pub trait Store: Send + Sync + 'static {
    /// Who this store is. The same for its whole life.
    fn identity(&self) -> Identity;

    /// Makes `records` part of `document`, which is created if it does not exist.
    fn append(&self, document: DocumentId, records: Vec<Record>) -> StoreFuture<()>;

    /// What a request was answered, if that was not too long ago: see [`Record::Answer`]. Answers are kept for [`ANSWER_KEPT_MS`] at least.
    fn answer(&self, document: DocumentId, key: [u8; 32]) -> StoreFuture<Option<StoredAnswer>>;

    /// All of a document, or `None` if nothing was ever appended to it.
    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>>;

    /// The document chunk of a document's snapshot, or `None` if it has none.
    fn load_snapshot(&self, document: DocumentId) -> StoreFuture<Option<Bytes>>;

    /// Puts a snapshot in the place of the first [`records`](SnapshotInfo::records) of a document's changes, all at once: a `load` sees either those, or the snapshot.
    /// Appends to this document and others go on meanwhile. When the future resolves to `Ok`, the snapshot is durable.
    ///
    /// Fails with [`StoreError::Snapshot`], and changes nothing, if the document does not exist, has fewer records, or has a snapshot of more. One of as many is replaced: its index may be an old one.
    fn put_snapshot(&self, document: DocumentId, snapshot: Snapshot) -> StoreFuture<()>;

    /// Keeps a note on a document that exists. A later one of the same sort takes its place.
    fn put_note(&self, document: DocumentId, note: Note) -> StoreFuture<()>;

    /// Looks for a change without reading the document: among the heads that were [noted](Note::Closed), in the snapshot's index, then among the changes since and the
    /// orphans of the snapshot. Damage to what it looks through is an error, not a change that is not there.
    fn find(&self, document: DocumentId, hash: ChangeHash) -> StoreFuture<Found>;

    /// One page of the ids of the stored documents, in order, at most `limit` after `after`.
    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>>;

    /// Documents in the order of their ids, deleted ones among them.
    fn documents(&self, query: ListDocuments) -> StoreFuture<Vec<DocumentEntry>>;

    /// At most `limit` documents that changed after the number `after`, in the order in which they last did. A document is listed once, at the place of its last change.
    fn changed(&self, after: u64, limit: usize) -> StoreFuture<Vec<DocumentEntry>>;

    /// The greatest [number](DocumentEntry::changed) that a document has, or 0. What happens next gets a greater one.
    fn last_changed(&self) -> StoreFuture<u64>;

    /// How far somebody who is told of all changes, whatever his name, has got in the feed. `None` if nothing was ever [put](Self::put_progress) under this name.
    fn progress(&self, name: String) -> StoreFuture<Option<u64>>;

    /// Notes, all at once, how far he has got, if that is given, and what was delivered to him or was not.
    fn put_progress(&self, name: String, cursor: Option<u64>, deliveries: Vec<Delivery>) -> StoreFuture<()>;

    /// What was noted of documents under a name.
    fn deliveries(&self, name: String, which: Deliveries) -> StoreFuture<Vec<Delivery>>;

    /// Resolves when a write made just now is durable. The readiness check asks this.
    fn probe(&self) -> StoreFuture<()>;

    /// Waits for all appends that were asked for, tidies up, and lets go of the files. Later calls fail with [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<()>;
}

/// Who a store is: sent to clients, so that they recognise the server after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The server's peer id.
    pub peer_id: String,
    /// The server's storage id.
    pub storage_id: String,
}

/// How long an answer is kept at least, in milliseconds: a day.
pub const ANSWER_KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// SHA-256 of what was asked.
    pub request: [u8; 32],
    /// What was answered.
    pub answer: Bytes,
}

/// Which documents to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListDocuments {
    /// Only those after this one, which need not exist.
    pub after: Option<DocumentId>,
    /// Only those in one of these ranges, which are in order and do not overlap. See [`DocumentId::with_prefix`].
    pub ranges: Vec<RangeInclusive<DocumentId>>,
    /// At most so many.
    pub limit: usize,
}

impl ListDocuments {
    /// The first documents whose ids begin with a text; with an empty one, of all.
    pub fn with_prefix(prefix: &str, limit: usize) -> Self {
        Self { after: None, ranges: DocumentId::with_prefix(prefix), limit }
    }

    /// Those parts of the ranges that come after [`after`](Self::after), as bounds.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Bound<DocumentId>, DocumentId)> {
        self.ranges.iter().filter(|range| self.after.is_none_or(|after| *range.end() > after)).map(|range| {
            let start = match self.after {
                Some(after) if after >= *range.start() => Bound::Excluded(after),
                _ => Bound::Included(*range.start()),
            };
            (start, *range.end())
        })
    }
}

/// What a store lists of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentEntry {
    /// Which.
    pub id: DocumentId,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// The number of its last change, or of its creation: see the promise *Counted* of [`Store`].
    pub changed: u64,
    /// When that was, in milliseconds since 1970.
    pub changed_ms: i64,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// What somebody was told of a document, and what he still has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which document.
    pub document: DocumentId,
    /// The heads that he was told last, if he was told any.
    pub told: Option<Vec<ChangeHash>>,
    /// The number in the feed that was told last, or that could not be told.
    pub changed: u64,
    /// Whether he knows, or when he is told.
    pub state: DeliveryState,
    /// How often in a row it failed.
    pub attempts: u32,
    /// Why it failed last.
    pub error: String,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It arrived.
    Done,
    /// It failed, and is tried again at this time, in milliseconds since 1970.
    Waits(i64),
    /// It failed too often, and is not tried again before somebody says so, or the document changes.
    Dead,
}

/// Which deliveries are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliveries {
    /// Those of these documents, as far as there are any, in no order.
    Of(Vec<DocumentId>),
    /// At most `limit` of those that wait and are due by a time, in milliseconds since 1970; those that were due first come first.
    Due {
        /// That time.
        by_ms: i64,
        /// How many.
        limit: usize,
    },
    /// At most so many of those that failed too often, in no order.
    Dead(usize),
}

/// A document as the store holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredDocument {
    /// What stands in the place of the first changes, without its document chunk.
    pub snapshot: Option<SnapshotInfo>,
    /// The change chunks that are not in the snapshot, in the order in which they became durable.
    pub changes: Vec<Bytes>,
    /// The changes that were refused.
    pub quarantined: Vec<QuarantinedChange>,
    /// The change with which the document cannot be materialised, and why: it is not compacted.
    pub unfit: Option<(ChangeHash, String)>,
    /// Whether what was noted when the document was closed is still so.
    pub is_noted: bool,
    /// When it was deleted, in milliseconds since 1970. Then nothing else is there.
    pub deleted_ms: Option<i64>,
}

/// What is kept about a document besides its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// How the document was when it was let go of, for those who ask for a change of it. Counts only as long as nothing is added.
    Closed {
        /// How many records it had, those in the snapshot counted.
        records: u64,
        /// How many changes. If these are as many, no record is a refused change or an orphan.
        changes: u64,
        /// The changes that no other depends on, sorted.
        heads: Vec<ChangeHash>,
    },
    /// It cannot be materialised, and is not to be compacted.
    Unfit {
        /// The first change with which it cannot.
        hash: ChangeHash,
        /// Why.
        reason: String,
    },
}

/// Whether a document has a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is durable and part of the document.
    Yes,
    /// It is not there.
    No,
    /// It is there, and may be an orphan or refused. The document must be opened to tell.
    Perhaps,
}

impl StoredDocument {
    /// How many changes were stored, those in the snapshot counted.
    pub fn records(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.records) + self.changes.len() as u64
    }

    /// The document that this makes. An index of the snapshot that is of no use is an error, [`RestoreError::Index`].
    pub fn restore(self, id: DocumentId) -> Result<Document, RestoreError> {
        if self.deleted_ms.is_some() {
            return Ok(Document::deleted(id));
        }
        let quarantined = self.quarantined.into_iter().map(|change| (change.hash, change.reason));
        let mut restoring = Restoring::new(id, quarantined);
        if let Some(snapshot) = self.snapshot {
            restoring = restoring.on(snapshot)?;
        }
        for bytes in self.changes {
            restoring.add(bytes)?;
        }
        Ok(restoring.finish())
    }
}

/// A refused change as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedChange {
    /// The hash of the change.
    pub hash: ChangeHash,
    /// Why it was refused.
    pub reason: String,
    /// The peer id of the sender.
    pub peer: String,
    /// When it was refused, in milliseconds since 1970.
    pub at_ms: i64,
    /// The chunk as it was received.
    pub bytes: Bytes,
}

/// Why a store did not do what it was asked. Never means "there is no such document".
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A stored record does not have the bytes that were written.
    #[error("record {record} of document {document} is damaged: {detail}")]
    Damaged {
        /// The document that the record belongs to.
        document: DocumentId,
        /// Which record: the store's own number or name of it.
        record: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The data folder is in use by another process.
    #[error("the data folder {0} is in use by another process")]
    Locked(String),
    /// The store cannot be opened as it is: a setting did not take effect, or the data was written by a newer version.
    #[error("cannot open the store: {0}")]
    Open(String),
    /// Reading failed. Nothing is known about the document.
    #[error("reading failed: {0}")]
    Read(String),
    /// A snapshot does not stand for what is stored. Nothing was changed.
    #[error("the snapshot does not fit: {0}")]
    Snapshot(String),
    /// A write failed. Whether its records will be there after a restart is not known; until then nothing more is written.
    #[error("writing failed: {0}")]
    Write(String),
}
