//! Reading a document from the store.

use bytes::Bytes;
use highwater_core::document::RestoreError;
use highwater_core::{Document, DocumentId, SnapshotIndex, SnapshotInfo};
use highwater_storage::{Store, StoreError, StoredDocument};

use crate::limits::RESTORE_INLINE_MAX;

/// Why a document cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unreadable {
    /// The store says why. It may pass.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored makes no document. Reading it again makes no difference.
    #[error("{0}")]
    Damaged(String),
}

impl Unreadable {
    /// Whether it is the same whenever it is read.
    pub(crate) fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Store(StoreError::Damaged { .. }))
    }
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Damaged(reason)
    }
}

/// A document as it was read.
pub(crate) struct Opened {
    pub(crate) document: Document,
    /// How many records are stored, those that a snapshot stands for counted.
    pub(crate) records: u64,
    /// What was noted when the document was last let go of is still so.
    pub(crate) is_noted: bool,
    /// A change keeps it from being compacted.
    pub(crate) is_unfit: bool,
    /// The index that is stored with its snapshot is of no use, and should be replaced.
    pub(crate) has_bad_index: bool,
}

/// Reads a document, or makes an empty one if nothing is stored of it.
pub(crate) async fn open(store: &dyn Store, id: DocumentId) -> Result<Opened, Unreadable> {
    let Some(stored) = store.load(id).await? else {
        let document = Document::new(id);
        return Ok(Opened { document, records: 0, is_noted: true, is_unfit: false, has_bad_index: false });
    };
    let (records, is_noted, is_unfit) = (stored.records(), stored.is_noted, stored.unfit.is_some());
    let opened = |(document, has_bad_index)| Opened { document, records, is_noted, is_unfit, has_bad_index };
    if stored.snapshot.is_none() && stored.changes.len() <= RESTORE_INLINE_MAX {
        return stored
            .restore(id)
            .map(|document| opened((document, false)))
            .map_err(|error| Unreadable::Damaged(error.to_string()));
    }
    let copy = stored.clone();
    match blocking(move || Ok(copy.restore(id))).await? {
        Ok(document) => Ok(opened((document, false))),
        Err(RestoreError::Index(flaw)) => {
            tracing::warn!(document = %id, %flaw, "the index of a snapshot is made anew");
            let document = restore_without_index(store, id, stored).await?;
            Ok(opened((document, true)))
        }
        Err(error) => Err(Unreadable::Damaged(error.to_string())),
    }
}

async fn restore_without_index(
    store: &dyn Store,
    id: DocumentId,
    mut stored: StoredDocument,
) -> Result<Document, Unreadable> {
    let chunk = load_snapshot(store, id).await?;
    let restored = blocking(move || {
        let index = SnapshotIndex::rebuild(id, &chunk).map_err(|error| error.to_string())?;
        stored.snapshot = stored.snapshot.map(|snapshot| SnapshotInfo { index, ..snapshot });
        stored.restore(id).map_err(|error| error.to_string())
    });
    Ok(restored.await?)
}

/// The document chunk of a snapshot that must be there.
pub(crate) async fn load_snapshot(store: &dyn Store, id: DocumentId) -> Result<Bytes, Unreadable> {
    let chunk = store.load_snapshot(id).await?;
    chunk.ok_or_else(|| Unreadable::Damaged("the snapshot is gone".to_owned()))
}

/// Does something where it holds up nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
