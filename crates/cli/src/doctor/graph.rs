//! Do the stored changes of a document make up a history, and that a document?

use std::collections::HashSet;

use bytes::Bytes;
use highwater_core::change;
use highwater_core::document::{RestoreError, Restoring};
use highwater_core::{ChangeHash, Document, first_unfit};
use highwater_storage::CheckedDocument;

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

/// Reads the document as a server does that opens it, but goes on after a change that does not fit. With `deep` the snapshot is taken apart too, the document is materialised, and what
/// keeps it from that is left out.
pub(crate) fn check(checked: &CheckedDocument, deep: bool) -> Findings {
    let mut left_out = HashSet::new();
    let mut unfit = Vec::new();
    loop {
        let mut findings =
            if deep { restore_all(checked, &left_out) } else { restore(checked, &HashSet::new()) };
        let Some(fault) = deep.then(|| find_unfit(&findings.document)).flatten() else {
            findings.faults.extend(unfit);
            return findings;
        };
        left_out.extend(fault.hash);
        unfit.push(fault);
    }
}

/// All changes that are stored of a document, those in its snapshot first: as chunks, each after its dependencies if these are there.
pub(crate) fn changes(checked: &CheckedDocument) -> Result<Vec<Bytes>, String> {
    let mut all = Vec::new();
    if let Some(snapshot) = &checked.stored.snapshot {
        let chunk = checked.snapshot_chunk.as_ref().ok_or("the snapshot cannot be read")?;
        let changes = change::unpack(std::slice::from_ref(chunk))
            .map_err(|error| format!("the snapshot does not load: {error}"))?;
        if changes.len() as u64 != snapshot.changes {
            let found = changes.len();
            return Err(format!("the snapshot has {found} changes and not {}", snapshot.changes));
        }
        all.extend(changes.into_iter().map(|change| change.bytes));
        all.extend(snapshot.orphans.iter().cloned());
    }
    all.extend(checked.stored.changes.iter().cloned());
    Ok(all)
}

/// On top of the snapshot's index.
fn restore(checked: &CheckedDocument, left_out: &HashSet<ChangeHash>) -> Findings {
    let mut faults = Vec::new();
    let mut restoring = start(checked, left_out);
    if let Some(snapshot) = checked.stored.snapshot.clone() {
        restoring = restoring.on(snapshot).unwrap_or_else(|error| {
            faults.push(Fault { hash: None, detail: error.to_string() });
            start(checked, left_out)
        });
    }
    add_all(restoring, &checked.stored.changes, faults)
}

/// From the changes alone.
fn restore_all(checked: &CheckedDocument, left_out: &HashSet<ChangeHash>) -> Findings {
    match changes(checked) {
        Ok(changes) => add_all(start(checked, left_out), &changes, Vec::new()),
        Err(detail) => {
            let mut findings = restore(checked, left_out);
            findings.faults.push(Fault { hash: None, detail });
            findings
        }
    }
}

fn start(checked: &CheckedDocument, left_out: &HashSet<ChangeHash>) -> Restoring {
    let refused = checked.stored.quarantined.iter().map(|change| (change.hash, change.reason.clone()));
    let left_out = left_out.iter().map(|hash| (*hash, "left out".to_owned()));
    Restoring::new(checked.document, refused.chain(left_out))
}

fn add_all(mut restoring: Restoring, changes: &[Bytes], mut faults: Vec<Fault>) -> Findings {
    for (place, bytes) in changes.iter().enumerate() {
        if let Err(error) = restoring.add(bytes.clone()) {
            let hash = match &error {
                RestoreError::Refused { hash, .. } => Some(*hash),
                _ => None,
            };
            faults.push(Fault { hash, detail: format!("change number {place}: {error}") });
        }
    }
    Findings { document: restoring.finish(), faults }
}

fn find_unfit(document: &Document) -> Option<Fault> {
    let (hashes, chunks): (Vec<ChangeHash>, Vec<Bytes>) =
        document.tail().map(|(hash, bytes)| (*hash, bytes.clone())).unzip();
    let (place, reason) = first_unfit(&chunks)?;
    let detail = format!("change {} cannot be materialised: {reason}", hashes[place]);
    Some(Fault { hash: Some(hashes[place]), detail })
}
