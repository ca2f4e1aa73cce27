//! Reading a document from what a store holds.

use bytes::Bytes;

use crate::change::{Change, ChunkError};
use crate::history::Refusal;
use crate::id::{ChangeHash, DocumentId};
use crate::snapshot::SnapshotInfo;

use super::{Document, Intake};

/// Why a stored change is not as it was when it was taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It does not read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// It does not fit into the history. It was let in by a version that checked less, or what it stands on is gone.
    #[error("change {hash} does not fit into the history: {refusal}")]
    Refused {
        /// The change.
        hash: ChangeHash,
        /// Why it does not fit.
        refusal: Refusal,
    },
    /// The index of the snapshot cannot be read: [made anew](crate::SnapshotIndex::rebuild) it can.
    #[error("the snapshot's index: {0}")]
    Index(&'static str),
}

/// A document that is being read from what a store holds, change by change.
#[derive(Debug)]
pub struct Restoring(Document);

impl Restoring {
    /// Starts with the changes that were refused before, and why.
    pub fn new(id: DocumentId, quarantined: impl IntoIterator<Item = (ChangeHash, String)>) -> Self {
        let mut document = Document::new(id);
        document.rejected.extend(quarantined);
        document.quarantined = document.rejected.len();
        Self(document)
    }

    /// Puts what was added so far, which must be nothing, on top of a snapshot.
    pub fn on(mut self, snapshot: SnapshotInfo) -> Result<Self, RestoreError> {
        let mut history = snapshot.index.history().map_err(RestoreError::Index)?;
        if **history.heads() != snapshot.heads || u64::from(history.len()) != snapshot.changes {
            return Err(RestoreError::Index("it has other changes than the snapshot"));
        }
        history.brought_mut().set_snapshot_bytes(snapshot.document_bytes);
        self.0.history = history;
        for bytes in snapshot.orphans {
            self.add_orphan(bytes)?;
        }
        Ok(self)
    }

    /// Adds a change that waited when the snapshot was made. It is judged when what it waits for comes, as it was then: in the history there may be another
    /// change with its number by now, which came after it.
    fn add_orphan(&mut self, bytes: Bytes) -> Result<(), RestoreError> {
        let change = Change::parse(bytes)?;
        let Document { history, orphans, .. } = &mut self.0;
        if change.deps.iter().all(|dep| history.contains_staged(dep)) {
            return self.add(change.bytes);
        }
        if !orphans.contains(&change.hash) {
            orphans.insert(change, String::new(), |hash| history.contains_staged(hash));
        }
        Ok(())
    }

    /// Adds the next change. On an error it is left out, and whoever only looks may go on.
    pub fn add(&mut self, bytes: Bytes) -> Result<(), RestoreError> {
        let change = Change::parse(bytes)?;
        let (hash, mut intake) = (change.hash, Intake { is_restore: true, ..Intake::default() });
        self.0.accept(change, "", &mut intake);
        // Refused orphans of before come up here too, and those were never part of the document.
        match intake.refused {
            Some((refused, refusal)) if refused == hash => Err(RestoreError::Refused { hash, refusal }),
            _ => Ok(()),
        }
    }

    /// Whether a change is part of the document so far.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.0.history.contains_staged(hash)
    }

    /// The document.
    pub fn finish(self) -> Document {
        let mut document = self.0;
        document.history.make_durable(document.history.staged_len());
        document
    }
}
