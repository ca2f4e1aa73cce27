//! Documents, for the process that a server runs in. What HTTP offers is made of the same calls of the hub, so the promises are the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use highwater_core::change::ChunkError;
use highwater_core::document::PeerFault;
use highwater_core::wire::Rejection;
use highwater_core::{ChangeHash, DocumentId, Edit, EditError, Materialised, ReadError};
use highwater_storage::{DocumentEntry, ListDocuments, StoreError};

use crate::document::{EditRequest, Key, Precondition, State, Work};
use crate::events::{End, Following, Told};
use crate::http::{Problem, check_time, etag};
use crate::hub::Hub;
use crate::uploads;

/// The documents of a server, for the process that it runs in. Clones are the same documents.
///
/// **An `Ok` means durable**, and is true of what is durable: what is read, and what was edited. Who has the document open sees an edit at once. Dropping a future does not cancel the work that
/// was asked for. Everything here is to be called where tokio runs.
#[derive(Clone)]
pub struct Documents {
    hub: Arc<Hub>,
}

/// Why something cannot be done with a document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It has no changes here.
    #[error("there is no such document")]
    NotFound,
    /// It was deleted, for good.
    #[error("the document was deleted")]
    Deleted,
    /// A document that was to be made is there already.
    #[error("the document exists")]
    Exists,
    /// The document has other heads than the edit asks for.
    #[error("the document is not as the edit asks; its heads are {heads:?}")]
    PreconditionFailed {
        /// Those that it has.
        heads: Vec<ChangeHash>,
    },
    /// The key was used for another edit.
    #[error("the key was used for another edit")]
    KeyReused,
    /// The edit cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The document has no such change, or not yet.
    #[error("the document has no change {0}")]
    UnknownHeads(ChangeHash),
    /// The document has too many levels for JSON.
    #[error("the document is nested too deep for JSON")]
    TooDeep,
    /// What was asked for may be larger than so many bytes, since each place is told with its whole path.
    #[error("the answer may take up more than {max} bytes")]
    AnswerTooLarge {
        /// In bytes.
        max: usize,
    },
    /// So many already wait to read the document.
    #[error("too many wait to read the document")]
    Busy,
    /// What was to be taken in is not made of change chunks.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A change of a new document can be part of none.
    #[error("change {hash} can be part of no document: {reason}")]
    Refused {
        /// Which.
        hash: ChangeHash,
        /// Why.
        reason: String,
    },
    /// A new document lacks changes.
    #[error("changes are missing that others depend on")]
    Incomplete,
    /// The document does not take the changes.
    #[error(transparent)]
    Fault(#[from] PeerFault),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The store failed, or the server is going away. Whether an edit is durable is not known; with an [idempotency key](EditOptions::idempotency_key) it can be made again.
    #[error("the document cannot be served at the moment")]
    Unavailable,
    /// The store says why it fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored of the document is damaged: somebody must look at the server.
    #[error("what is stored of the document is damaged: {0}")]
    Damaged(String),
    /// A fault of the server's.
    #[error("{0}")]
    Internal(String),
}

impl DocumentError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotFound | Self::UnknownHeads(_) | Self::Unavailable | Self::Busy => true,
            Self::Fault(fault) => matches!(fault, PeerFault::TooManyOrphans),
            Self::Store(error) => !matches!(error, StoreError::Damaged { .. }),
            _ => false,
        }
    }
}

impl From<Problem> for DocumentError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NoSuchDocument => Self::NotFound,
            Problem::Deleted => Self::Deleted,
            Problem::Exists => Self::Exists,
            Problem::PreconditionFailed { heads } => Self::PreconditionFailed { heads },
            Problem::KeyReused => Self::KeyReused,
            Problem::Edit(error) => Self::Edit(error),
            Problem::UnknownHeads(hash) => Self::UnknownHeads(hash),
            Problem::TooDeep => Self::TooDeep,
            Problem::AnswerTooLarge { max } => Self::AnswerTooLarge { max },
            Problem::Busy => Self::Busy,
            Problem::Chunk(error) => Self::Chunk(error),
            Problem::Refused { hash, reason } => Self::Refused { hash, reason },
            Problem::Incomplete => Self::Incomplete,
            Problem::Fault(fault) => Self::Fault(fault),
            Problem::Invalid { .. } => Self::Invalid(problem.to_string()),
            Problem::Unavailable => Self::Unavailable,
            Problem::Store(error) => Self::Store(error),
            Problem::Damaged(reason) => Self::Damaged(reason),
            other => Self::Internal(other.to_string()),
        }
    }
}

/// How a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentState {
    /// The changes that no other depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// How many changes it has.
    pub changes: usize,
    /// What is stored of it, roughly, in bytes.
    pub bytes: u64,
}

/// A document as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// In the JSON form of documents: docs/backends.md describes it.
    pub value: serde_json::Value,
    /// The heads at which it is that.
    pub heads: Vec<ChangeHash>,
}

/// What is asked of an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EditOptions {
    /// What the change is about, for people.
    pub message: Option<String>,
    /// When it was made, in seconds since 1970; now, if nothing is said.
    pub time: Option<i64>,
    /// The edit is made only if the document has these heads.
    pub if_heads: Option<Vec<ChangeHash>>,
    /// A document that does not exist is made.
    pub creates: bool,
    /// An edit with the same key is made once, however often it is asked for, and answered each time. For a day at least.
    pub idempotency_key: Option<String>,
}

/// What a new document holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum NewDocument {
    /// Nothing.
    #[default]
    Empty,
    /// What an [`Edit::set`] says, or what any other edit makes of an empty document.
    Edit(Edit),
    /// A document as it was saved, or changes one after the other.
    Saved(Bytes),
}

/// An edit that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedDocument {
    /// Which document.
    pub id: DocumentId,
    /// The change that was made; `None` if there was nothing to change, or if it was made of changes that were there before.
    pub hash: Option<ChangeHash>,
    /// The heads of the document with the edit.
    pub heads: Vec<ChangeHash>,
    /// The document is new.
    pub is_new: bool,
}

/// What became of changes that a document was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenChanges {
    /// Part of the document, and durable.
    pub durable: Vec<ChangeHash>,
    /// Stored, and waiting for changes that they depend on.
    pub pending: Vec<ChangeHash>,
    /// These will never be part of the document, and why.
    pub rejected: Vec<(ChangeHash, String)>,
}

impl Documents {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// How a document is. Takes no time, however long it is.
    pub async fn state(&self, id: DocumentId) -> Result<DocumentState, DocumentError> {
        let State { heads, changes, bytes, .. } = self.hub.existing(id).await?;
        Ok(DocumentState { heads, changes, bytes })
    }

    /// Reads a document as JSON.
    pub async fn json(&self, id: DocumentId) -> Result<Reading, DocumentError> {
        self.read(id, |document| Ok(Reading { value: document.to_json(None)?, heads: document.heads() }))
            .await
    }

    /// Looks at a document with all its values. `look` is called where it may take its time, but others who want the document wait for it.
    pub async fn read<T: Send + 'static>(
        &self,
        id: DocumentId,
        look: impl FnOnce(&Materialised) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, DocumentError> {
        let look = |document: &Materialised| {
            // Others who look at the same time must not suffer for it.
            let seen = catch_unwind(AssertUnwindSafe(|| look(document)));
            Ok(seen.unwrap_or_else(|_| Err(ReadError::Internal("looking at it panicked".to_owned())))?)
        };
        Ok(self.hub.read(id, look).await?)
    }

    /// Which of these changes are durable and part of a document, in the same order. One look-up each, however long its history.
    pub async fn contains(
        &self,
        id: DocumentId,
        hashes: Vec<ChangeHash>,
    ) -> Result<Vec<bool>, DocumentError> {
        Ok(self.hub.contains(id, hashes).await?)
    }

    /// Edits a document: all of the edit becomes one change, or nothing.
    pub async fn edit(
        &self,
        id: DocumentId,
        edit: Edit,
        options: EditOptions,
    ) -> Result<EditedDocument, DocumentError> {
        let EditOptions { message, time, if_heads, creates, idempotency_key } = options;
        let precondition =
            if_heads.map_or(Precondition::None, |heads| Precondition::Tags(vec![etag(&heads)]));
        let key = key(
            idempotency_key,
            &format!("edit {creates} {time:?}"),
            &message,
            &precondition,
            edit.digest(),
        )?;
        let request =
            EditRequest { message, time, precondition, creates, key, ..EditRequest::new(Work::Edit(edit)) };
        self.made(id, request).await
    }

    /// Makes a document. Without an id one is made up: from the key, if there is one. Of `options`, `if_heads` and `creates` are of no interest.
    pub async fn create(
        &self,
        id: Option<DocumentId>,
        new: NewDocument,
        options: EditOptions,
    ) -> Result<EditedDocument, DocumentError> {
        let EditOptions { message, time, idempotency_key, .. } = options;
        let named = id.map(|id| id.to_string()).unwrap_or_default();
        let holds: &[u8] = match &new {
            NewDocument::Empty => &[],
            NewDocument::Edit(edit) => edit.digest(),
            NewDocument::Saved(chunks) => chunks,
        };
        let key =
            key(idempotency_key, &format!("create {named} {time:?}"), &message, &Precondition::None, holds)?;
        let id = self.hub.id_of_new(id, key)?;
        let work = match new {
            NewDocument::Empty => Work::Nothing,
            NewDocument::Edit(edit) => Work::Edit(edit),
            NewDocument::Saved(chunks) => {
                let changes = uploads::unpack(self.hub.unpacking(), id, vec![chunks]).await?;
                if changes.is_empty() { Work::Nothing } else { Work::Import(changes) }
            }
        };
        self.made(id, EditRequest { message, time, key, ..EditRequest::create(work) }).await
    }

    async fn made(&self, id: DocumentId, request: EditRequest) -> Result<EditedDocument, DocumentError> {
        check_time(request.time)?;
        let edited = self.hub.edit(id, request).await?;
        Ok(EditedDocument { id, hash: edited.hash, heads: edited.heads, is_new: edited.is_new })
    }

    /// Deletes a document for good. Who still has it is told, and what they send for it is refused.
    pub async fn delete(&self, id: DocumentId) -> Result<(), DocumentError> {
        self.hub.edit(id, EditRequest::new(Work::Delete)).await?;
        Ok(())
    }

    /// Gives a document changes that were made elsewhere: chunks one after the other. Those that it has already do no harm.
    pub async fn take_changes(&self, id: DocumentId, chunks: Bytes) -> Result<TakenChanges, DocumentError> {
        let ingested = self.hub.ingest(id, chunks, "application").await?;
        let rejected = ingested.rejected.into_iter().map(|Rejection { hash, reason }| (hash, reason));
        Ok(TakenChanges {
            durable: ingested.durable,
            pending: ingested.pending,
            rejected: rejected.collect(),
        })
    }

    /// Follows a document, which need not exist yet and is not kept in memory for this.
    pub fn watch(&self, id: DocumentId) -> Watch {
        // Before it is looked at, so that nothing that happens then is missed.
        let following = self.hub.followers().follow(id);
        Watch { hub: self.hub.clone(), id, following, end: End::new(&self.hub), told: None }
    }

    /// Documents in the order of their ids, deleted ones among them.
    pub async fn list(&self, query: ListDocuments) -> Result<Vec<DocumentEntry>, DocumentError> {
        Ok(self.hub.store().documents(query).await?)
    }

    /// At most `limit` documents that changed after a [number](DocumentEntry::changed), in the order in which they last did. Whoever remembers the last number misses nothing.
    pub async fn changed(&self, after: u64, limit: usize) -> Result<Vec<DocumentEntry>, DocumentError> {
        Ok(self.hub.store().changed(after, limit).await?)
    }
}

/// A document that is followed.
///
/// Nothing is queued: whoever looks late is told the newest heads, once. Dropped, it is over.
pub struct Watch {
    hub: Arc<Hub>,
    id: DocumentId,
    following: Following,
    end: End,
    /// What was told last; `None` before the first time.
    told: Option<Told>,
}

/// How a followed document is, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Watched {
    /// It has these heads; none if it does not exist yet.
    Heads(Vec<ChangeHash>),
    /// It was deleted.
    Deleted,
}

impl Watch {
    /// How the document is now, the first time; then, how it is when it has changed. Fails when the store fails or the server goes away: then it is to be followed anew.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Watched, DocumentError> {
        loop {
            let is_first = self.told.is_none();
            let looking = async {
                if is_first {
                    self.hub.told(self.id).await
                } else {
                    self.following.changed().await.ok_or(Problem::Unavailable)
                }
            };
            let now = self.end.or(looking).await.ok_or(DocumentError::Unavailable)??;
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Ok(if now.is_deleted { Watched::Deleted } else { Watched::Heads(now.heads) });
            }
        }
    }
}

/// By which key a request of this process is known.
fn key(
    key: Option<String>,
    name: &str,
    message: &Option<String>,
    precondition: &Precondition,
    what: &[u8],
) -> Result<Option<Key>, Problem> {
    let message = message.as_deref().unwrap_or_default();
    let asked = format!("{precondition:?}");
    key.map(|key| Key::new(key.as_bytes(), &[name.as_bytes(), asked.as_bytes(), message.as_bytes(), what]))
        .transpose()
}
