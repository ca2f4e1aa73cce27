//! Reading a document from the store.

use bytes::Bytes;
use highwater_core::document::RestoreError;
use highwater_core::{Document, DocumentId, SnapshotIndex, SnapshotInfo};
use highwater_storage::{Store, StoredDocument};

use crate::limits::RESTORE_INLINE_MAX;

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
pub(crate) async fn open(store: &dyn Store, id: DocumentId) -> Result<Opened, String> {
    let Some(stored) = store.load(id).await.map_err(|error| error.to_string())? else {
        let document = Document::new(id);
        return Ok(Opened { document, records: 0, is_noted: true, is_unfit: false, has_bad_index: false });
    };
    let (records, is_noted, is_unfit) = (stored.records(), stored.is_noted, stored.unfit.is_some());
    let opened = |(document, has_bad_index)| Opened { document, records, is_noted, is_unfit, has_bad_index };
    if stored.snapshot.is_none() && stored.changes.len() <= RESTORE_INLINE_MAX {
        return stored
            .restore(id)
            .map(|document| opened((document, false)))
            .map_err(|error| error.to_string());
    }
    let copy = stored.clone();
    match blocking(move || Ok(copy.restore(id))).await? {
        Ok(document) => Ok(opened((document, false))),
        Err(RestoreError::Index(flaw)) => {
            tracing::warn!(document = %id, %flaw, "the index of a snapshot is made anew");
            let document = restore_without_index(store, id, stored).await?;
            Ok(opened((document, true)))
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn restore_without_index(
    store: &dyn Store,
    id: DocumentId,
    mut stored: StoredDocument,
) -> Result<Document, String> {
    let chunk = load_snapshot(store, id).await?;
    blocking(move || {
        let index = SnapshotIndex::rebuild(id, &chunk).map_err(|error| error.to_string())?;
        stored.snapshot = stored.snapshot.map(|snapshot| SnapshotInfo { index, ..snapshot });
        stored.restore(id).map_err(|error| error.to_string())
    })
    .await
}

/// The document chunk of a snapshot that must be there.
pub(crate) async fn load_snapshot(store: &dyn Store, id: DocumentId) -> Result<Bytes, String> {
    let chunk = store.load_snapshot(id).await.map_err(|error| error.to_string())?;
    chunk.ok_or_else(|| "the snapshot is gone".to_owned())
}

/// Does something where it holds up nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
