//! Do the stored changes of a document make up a history?

use std::collections::HashSet;

use bytes::Bytes;
use highwater_core::change::Change;
use highwater_core::{ChangeHash, Document, DocumentId};
use highwater_storage::StoredDocument;

/// What was found in one document.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Changes that are part of the document.
    pub(super) changes: u64,
    /// Changes that wait for others.
    pub(super) orphans: u64,
    /// What is wrong.
    pub(super) damage: Vec<String>,
}

/// Reads the changes as a server does that opens the document, but goes on after one that does not read.
pub(super) fn check(id: DocumentId, stored: StoredDocument) -> Findings {
    let mut findings = Findings::default();
    let refused: Vec<_> = stored.quarantined.into_iter().map(|change| (change.hash, change.reason)).collect();
    let restored = Document::restore(id, stored.changes.iter().cloned(), refused.iter().cloned());
    let document = restored.or_else(|_| {
        let readable = readable(stored.changes, &mut findings.damage);
        Document::restore(id, readable, refused.iter().cloned())
    });
    match document {
        Ok(document) => findings.look_at(&document, &refused.iter().map(|(hash, _)| *hash).collect()),
        Err((place, error)) => findings.damage.push(format!("change number {place}: {error}")),
    }
    findings
}

/// The changes that can be read at all; the others are reported by their place in the log.
fn readable(changes: Vec<Bytes>, damage: &mut Vec<String>) -> Vec<Bytes> {
    let mut readable = Vec::with_capacity(changes.len());
    for (place, bytes) in changes.into_iter().enumerate() {
        match Change::parse(bytes.clone()) {
            Ok(_) => readable.push(bytes),
            Err(error) => damage.push(format!("change number {place}: {error}")),
        }
    }
    readable
}

impl Findings {
    fn look_at(&mut self, document: &Document, quarantined: &HashSet<ChangeHash>) {
        self.changes = document.len() as u64;
        self.orphans = document.orphan_count() as u64;
        // What was refused is in quarantine, and not in the log. A server takes only what fits, so this cannot come about by itself.
        for (hash, reason) in document.rejected().filter(|(hash, _)| !quarantined.contains(hash)) {
            self.damage.push(format!("change {hash} does not fit into the history: {reason}"));
        }
    }
}
