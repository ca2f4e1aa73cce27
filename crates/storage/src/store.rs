//! The trait that every store implements, and what it promises.

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::{ChangeHash, DocumentId, Record};

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
/// Dropping a future does not cancel the work that was asked for.
pub trait Store: Send + Sync + 'static {
    /// Who this store is. The same for its whole life.
    fn identity(&self) -> Identity;

    /// Makes `records` part of `document`, which is created if it does not exist.
    fn append(&self, document: DocumentId, records: Vec<Record>) -> StoreFuture<()>;

    /// All of a document, or `None` if nothing was ever appended to it.
    fn load(&self, document: DocumentId) -> StoreFuture<Option<StoredDocument>>;

    /// One page of the ids of the stored documents, in order, at most `limit` after `after`.
    fn list(&self, after: Option<DocumentId>, limit: usize) -> StoreFuture<Vec<DocumentId>>;

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

/// A document as the store holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredDocument {
    /// The change chunks, in the order in which they became durable.
    pub changes: Vec<Bytes>,
    /// The changes that were refused.
    pub quarantined: Vec<QuarantinedChange>,
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
    /// A write failed. Whether its records will be there after a restart is not known; until then nothing more is written.
    #[error("writing failed: {0}")]
    Write(String),
}
