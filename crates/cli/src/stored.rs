//! Documents as a store holds them, opened.

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_core::document::RestoreError;
use highwater_core::snapshot::Compactable;
use highwater_core::{Document, DocumentId, Snapshot, SnapshotIndex, SnapshotInfo};
use highwater_storage::{Store, StoredDocument};

/// All of a document that is stored.
pub(crate) struct Whole {
    pub(crate) stored: StoredDocument,
    /// The document chunk of the snapshot, if there is one.
    pub(crate) chunk: Option<Bytes>,
}

impl Whole {
    /// Reads it. An error means that it is not known what is stored.
    pub(crate) async fn load(store: &dyn Store, id: DocumentId) -> Result<Option<Self>> {
        let Some(stored) = store.load(id).await? else { return Ok(None) };
        let chunk = match &stored.snapshot {
            Some(_) => Some(store.load_snapshot(id).await?.context("the snapshot is gone")?),
            None => None,
        };
        Ok(Some(Self { stored, chunk }))
    }

    /// Opens the document as a server does.
    pub(crate) fn open(&self, id: DocumentId) -> Result<Document, RestoreError> {
        match self.stored.clone().restore(id) {
            Err(RestoreError::Index(_)) if self.chunk.is_some() => {
                let mut stored = self.stored.clone();
                let chunk = self.chunk.clone().unwrap_or_default();
                let index = SnapshotIndex::rebuild(id, &chunk)?;
                stored.snapshot = stored.snapshot.map(|snapshot| SnapshotInfo { index, ..snapshot });
                stored.restore(id)
            }
            opened => opened,
        }
    }

    /// What a snapshot of all of it is made from.
    pub(crate) fn compactable(self) -> Compactable {
        let Self { stored, chunk } = self;
        let base = stored.snapshot.zip(chunk).map(|(info, document)| Snapshot { info, document });
        let quarantined = stored.quarantined.into_iter().map(|change| (change.hash, change.reason)).collect();
        Compactable { base, tail: stored.changes, quarantined }
    }
}
