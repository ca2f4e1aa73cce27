//! Taking one document into the data folder, through the same gate as what clients send, on top of what is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use highwater_core::change::Change;
use highwater_core::document::{Effect, RestoreError};
use highwater_core::limits::COMPACT_CHANGES_MIN;
use highwater_core::snapshot::{self, CompactError};
use highwater_core::{ChangeHash, Document, DocumentId, Record};
use highwater_storage::{Note, Store};

use super::find::SourceFile;
use super::read::{self, Content};
use crate::stored::Whole;

/// Changes of a slice: what becomes durable at once.
const SLICE_CHANGES: usize = 1_000;
/// Bytes of a slice, about.
const SLICE_BYTES: usize = 4 << 20;
/// In the place of the peer that sent a change, where one is refused.
const SENDER: &str = "highwater import";

/// What became of a document.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Nothing of it was here before.
    pub(super) is_new: bool,
    /// Files that verified.
    pub(super) files: u64,
    /// Changes that are part of the document and were not before.
    pub(super) added: u64,
    /// Changes that wait for others that are not there.
    pub(super) orphans: u64,
    /// Files that do not verify, each with the reason.
    pub(super) refused_files: Vec<(String, String)>,
    /// Changes that cannot be part of the document, each with the reason.
    pub(super) refused_changes: BTreeMap<ChangeHash, String>,
    /// Files whose names say that they should hold something else.
    pub(super) odd_names: Vec<String>,
    pub(super) is_compacted: bool,
    /// Why it cannot be compacted.
    pub(super) unfit: Option<String>,
    /// Why the document was left as it is.
    pub(super) failed: Option<String>,
}

/// Why the import cannot go on: the store does not write any more.
#[derive(Debug)]
pub(super) struct Stopped(pub(super) anyhow::Error);

/// Takes a document in. What is durable of it stays so, whatever happens.
pub(super) async fn take_in(
    store: &dyn Store,
    id: DocumentId,
    files: &[SourceFile],
) -> Result<Outcome, Stopped> {
    let mut outcome = Outcome::default();
    let (document, is_unfit) = match open(store, id).await {
        Ok(Some((document, _))) if document.is_deleted() => {
            outcome.failed = Some("it was deleted here, and stays so".to_owned());
            return Ok(outcome);
        }
        Ok(Some(opened)) => opened,
        Ok(None) => {
            outcome.is_new = true;
            (Document::new(id), false)
        }
        Err(error) => {
            outcome.failed = Some(format!("what is here of it cannot be read: {error:#}"));
            return Ok(outcome);
        }
    };
    let before = document.len();
    let changes = read_all(files, &document, &mut outcome);
    let document = append_all(store, document, changes, &mut outcome).await.map_err(Stopped)?;
    outcome.added = (document.len() - before) as u64;
    outcome.orphans = document.orphan_count() as u64;
    let is_long = document.wants_compaction(COMPACT_CHANGES_MIN) && !is_unfit;
    drop(document);
    if is_long {
        compact(store, id, &mut outcome).await.map_err(Stopped)?;
    }
    Ok(outcome)
}

/// What is here of the document, and whether a change keeps it from being compacted.
async fn open(store: &dyn Store, id: DocumentId) -> Result<Option<(Document, bool)>> {
    let Some(stored) = store.load(id).await? else { return Ok(None) };
    let is_unfit = stored.unfit.is_some();
    // The chunk of a snapshot is needed only if its index is of no use.
    let opened = match (Whole { stored, chunk: None }).open(id) {
        Err(RestoreError::Index(_)) => match Whole::load(store, id).await? {
            Some(whole) => whole.open(id),
            None => return Ok(None),
        },
        opened => opened,
    };
    Ok(Some((opened?, is_unfit)))
}

/// All changes in the files that verify, each once, and after its dependencies.
fn read_all(files: &[SourceFile], document: &Document, outcome: &mut Outcome) -> Vec<Change> {
    let (mut changes, mut seen) = (Vec::new(), HashSet::new());
    for file in files {
        let path = file.path.display().to_string();
        let read = match read::read(file, document) {
            Ok(read) => read,
            Err(reason) => {
                outcome.refused_files.push((path, reason));
                continue;
            }
        };
        outcome.files += 1;
        if read.has_odd_name {
            outcome.odd_names.push(path);
        }
        if let Content::Changes(more) = read.content {
            changes.extend(more.into_iter().filter(|change| seen.insert(change.hash)));
        }
    }
    in_order(changes)
}

/// Each after its dependencies, as far as these are among them; otherwise in the order in which they are.
///
/// The files of a folder come in no order, and changes that come before their dependencies would have to be kept waiting.
fn in_order(changes: Vec<Change>) -> Vec<Change> {
    let places: HashMap<ChangeHash, usize> =
        changes.iter().enumerate().map(|(place, change)| (change.hash, place)).collect();
    let mut missing: Vec<usize> = vec![0; changes.len()];
    let mut dependants: Vec<Vec<usize>> = vec![Vec::new(); changes.len()];
    for (place, change) in changes.iter().enumerate() {
        for dep in change.deps.iter().filter_map(|dep| places.get(dep)) {
            missing[place] += 1;
            dependants[*dep].push(place);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..changes.len()).filter(|place| missing[*place] == 0).collect();
    let mut changes: Vec<Option<Change>> = changes.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(changes.len());
    while let Some(place) = ready.pop_first() {
        ordered.extend(changes[place].take());
        for dependant in &dependants[place] {
            missing[*dependant] -= 1;
            if missing[*dependant] == 0 {
                ready.insert(*dependant);
            }
        }
    }
    ordered
}

/// Takes the changes in, a slice at a time.
async fn append_all(
    store: &dyn Store,
    mut document: Document,
    changes: Vec<Change>,
    outcome: &mut Outcome,
) -> Result<Document> {
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let taken = document.take_in(next_slice(&mut changes), SENDER);
        for refused in taken.refused {
            outcome.refused_changes.insert(refused.hash, refused.reason);
        }
        let no_room = "too many changes of the document wait for others that are missing";
        outcome.refused_changes.extend(taken.no_room.into_iter().map(|hash| (hash, no_room.to_owned())));
        while let Some(effect) = document.poll_effect() {
            let Effect::Append { id, records } = effect else { continue };
            note_refused(&records, outcome);
            store.append(document.id(), records).await?;
            document.handle_appended(id);
        }
    }
    Ok(document)
}

/// Changes that waited and are refused now that their dependencies are here.
fn note_refused(records: &[Record], outcome: &mut Outcome) {
    for record in records {
        if let Record::Quarantine { hash, reason, .. } = record {
            outcome.refused_changes.insert(*hash, reason.clone());
        }
    }
}

fn next_slice(changes: &mut impl Iterator<Item = Change>) -> Vec<Change> {
    let (mut slice, mut bytes) = (Vec::new(), 0);
    while slice.len() < SLICE_CHANGES && bytes < SLICE_BYTES {
        let Some(change) = changes.next() else { break };
        bytes += change.bytes.len();
        slice.push(change);
    }
    slice
}

/// Puts a snapshot in the place of the changes, so that the document opens quickly.
async fn compact(store: &dyn Store, id: DocumentId, outcome: &mut Outcome) -> Result<()> {
    let whole = Whole::load(store, id).await?.context("a document that was just stored is gone")?;
    match snapshot::compact(id, whole.compactable()) {
        Ok((snapshot, _)) => {
            store.put_snapshot(id, snapshot).await?;
            outcome.is_compacted = true;
        }
        Err(CompactError::Unfit { hash, reason }) => {
            outcome.unfit = Some(format!("change {hash}: {reason}"));
            store.put_note(id, Note::Unfit { hash, reason }).await?;
        }
        // It is served as it is, and the server tries again.
        Err(error) => outcome.unfit = Some(error.to_string()),
    }
    Ok(())
}
