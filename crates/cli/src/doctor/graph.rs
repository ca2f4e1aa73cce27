//! Do the stored changes of a document make up a history, and that a document?

use std::collections::HashSet;

use bytes::Bytes;
use highwater_core::document::Restoring;
use highwater_core::{ChangeHash, Document, DocumentId, first_unfit};
use highwater_storage::StoredDocument;

/// What was found in one document.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The document, as far as it can be read.
    pub(crate) document: Document,
    /// The changes that should be part of it and are not.
    pub(crate) faults: Vec<Fault>,
}

/// A change at fault.
#[derive(Debug)]
pub(crate) struct Fault {
    /// None if it does not read.
    pub(crate) hash: Option<ChangeHash>,
    pub(crate) detail: String,
}

/// Reads the changes as a server does that opens the document, but goes on after one that does not fit. With `deep` it is also materialised, and what
/// keeps it from that is left out.
pub(crate) fn check(id: DocumentId, stored: &StoredDocument, deep: bool) -> Findings {
    let mut left_out = HashSet::new();
    let mut unfit = Vec::new();
    loop {
        let mut findings = restore(id, stored, &left_out);
        let Some(fault) = deep.then(|| find_unfit(&findings.document)).flatten() else {
            findings.faults.extend(unfit);
            return findings;
        };
        left_out.extend(fault.hash);
        unfit.push(fault);
    }
}

fn restore(id: DocumentId, stored: &StoredDocument, left_out: &HashSet<ChangeHash>) -> Findings {
    let refused = stored.quarantined.iter().map(|change| (change.hash, change.reason.clone()));
    let left_out = left_out.iter().map(|hash| (*hash, "left out".to_owned()));
    let mut restoring = Restoring::new(id, refused.chain(left_out));
    let mut faults = Vec::new();
    for (place, bytes) in stored.changes.iter().enumerate() {
        if let Err(error) = restoring.add(bytes.clone()) {
            let hash = match &error {
                highwater_core::document::RestoreError::Refused { hash, .. } => Some(*hash),
                _ => None,
            };
            let detail = format!("change number {place}: {error}");
            faults.push(Fault { hash, detail });
        }
    }
    Findings { document: restoring.finish(), faults }
}

fn find_unfit(document: &Document) -> Option<Fault> {
    let (hashes, chunks): (Vec<ChangeHash>, Vec<Bytes>) =
        document.changes().map(|(hash, bytes)| (*hash, bytes.clone())).unzip();
    let (place, reason) = first_unfit(&chunks)?;
    let detail = format!("change {} cannot be materialised: {reason}", hashes[place]);
    Some(Fault { hash: Some(hashes[place]), detail })
}
