//! Snapshots: a document chunk that stands for the first changes of a document, with what is needed to open the document without it.
//!
//! A document that has been compacted is stored as its snapshot and the changes that came since, the *tail*. The chunk is what `automerge` saves; beside it lies the graph
//! of its changes ([`SnapshotIndex`]), from which the document is opened in microseconds a thousand changes, without `automerge` and without reading the chunk.

use bytes::Bytes;

use crate::change::{self, Change};
use crate::document::{RestoreError, Restoring};
use crate::history::{self, HashPages, History, StoredGraph};
use crate::id::{ChangeHash, DocumentId};
use crate::limits::UNPACKED_BYTES_MAX;
use crate::materialised::{Materialised, first_unfit_on, unpacked_bytes};

/// A snapshot without its document chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// How many records of the document's log it stands for: the changes in it, and those that were refused or are orphans.
    pub records: u64,
    /// How many changes are in it.
    pub changes: u64,
    /// The changes in it that no other of them depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// How many bytes the document chunk has.
    pub document_bytes: u64,
    /// From which the document is opened.
    pub index: SnapshotIndex,
    /// Changes among the records whose dependencies were missing, as chunks, in order.
    pub orphans: Vec<Bytes>,
}

/// The graph of the changes in a snapshot. Its layout has a version; one that is not there, or has another, is [made anew](Self::rebuild).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotIndex {
    /// Everything but the hashes. Empty if there is none.
    pub graph: Bytes,
    /// The hashes, each on the page that [`page_of`](Self::page_of) tells.
    pub pages: Vec<Bytes>,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What is known of it.
    pub info: SnapshotInfo,
    /// The document chunk.
    pub document: Bytes,
}

/// What a document is compacted from: all that a store holds of it.
#[derive(Debug, Clone, Default)]
pub struct Compactable {
    /// The snapshot that there is.
    pub base: Option<Snapshot>,
    /// The changes since, in the order of the log.
    pub tail: Vec<Bytes>,
    /// The changes that were refused, and why.
    pub quarantined: Vec<(ChangeHash, String)>,
}

/// Why a document is not compacted. It stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// `automerge` cannot hold the document with this change, or not save and load it again.
    #[error("change {hash} cannot be materialised: {reason}")]
    Unfit {
        /// The first such change.
        hash: ChangeHash,
        /// Why.
        reason: String,
    },
    /// What is stored cannot be read.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Unpacked, it would take up too much memory.
    #[error("unpacked, the changes have {0} bytes, more than {UNPACKED_BYTES_MAX}")]
    TooLarge(usize),
    /// The snapshot that there is does not load, or what was made does not hold what it should.
    #[error("{0}")]
    Snapshot(String),
}

impl SnapshotIndex {
    /// The page that a hash is on, of so many.
    pub fn page_of(hash: &ChangeHash, pages: usize) -> usize {
        history::page_of(hash, pages)
    }

    /// Whether a page has this hash.
    pub fn page_has(page: &[u8], hash: &ChangeHash) -> bool {
        history::find_in_page(page, hash)
    }

    /// Makes the index of a document chunk. Takes as long as loading it.
    pub fn rebuild(id: DocumentId, document: &Bytes) -> Result<Self, RestoreError> {
        let mut restoring = Restoring::new(id, []);
        for change in change::unpack(std::slice::from_ref(document))? {
            restoring.add(change.bytes)?;
        }
        Ok(Self::of(restoring.finish().history()))
    }

    fn of(history: &History) -> Self {
        let (graph, pages) = history.to_stored();
        Self { graph: graph.0, pages: pages.0 }
    }

    /// The history of the snapshot's changes.
    pub(crate) fn history(&self) -> Result<History, &'static str> {
        if self.graph.is_empty() {
            return Err("there is no graph index");
        }
        History::from_stored(&StoredGraph(self.graph.clone()), &HashPages(self.pages.clone()))
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.graph.len() + self.pages.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is no index.
    pub fn is_empty(&self) -> bool {
        self.graph.is_empty()
    }
}

/// Compacts a document: materialises it, saves it, loads what was saved, and compares. Returns the materialised document too.
///
/// Takes seconds for a hundred thousand changes, and memory for all their values: for a thread that nobody waits for.
pub fn compact(id: DocumentId, from: Compactable) -> Result<(Snapshot, Materialised), CompactError> {
    let Compactable { base, tail, quarantined } = from;
    let mut records = tail.len() as u64;
    let mut restoring = Restoring::new(id, quarantined.iter().cloned());
    let mut base_chunk = None;
    if let Some(Snapshot { info, document }) = base {
        records += info.records;
        restoring = match restoring.on(info.clone()) {
            Err(RestoreError::Index(_)) => {
                let index = SnapshotIndex::rebuild(id, &document)?;
                Restoring::new(id, quarantined).on(SnapshotInfo { index, ..info })?
            }
            restored => restored?,
        };
        base_chunk = Some(document);
    }
    for bytes in tail {
        restoring.add(bytes)?;
    }
    let document = restoring.finish();
    let changes = document.history().uncovered_chunks();
    let unpacked = base_chunk.as_ref().map_or(0, change::unpacked_document_bytes) + unpacked_bytes(changes);
    if unpacked > UNPACKED_BYTES_MAX {
        return Err(CompactError::TooLarge(unpacked));
    }
    let materialised = load(base_chunk.as_ref())?;
    let made = materialised.extended(changes).and_then(|materialised| {
        let saved = materialised.save_checked()?;
        Ok((saved, materialised))
    });
    let (saved, materialised) = match made {
        Ok(made) => made,
        Err(reason) => return Err(unfit(&load(base_chunk.as_ref())?, changes, reason)),
    };
    if saved.heads != document.heads() || saved.changes != document.len() {
        return Err(CompactError::Snapshot(format!(
            "saved and loaded, the document has {} changes and not {}, or other heads",
            saved.changes,
            document.len()
        )));
    }
    let info = SnapshotInfo {
        records,
        changes: document.len() as u64,
        heads: saved.heads,
        document_bytes: saved.bytes.len() as u64,
        index: SnapshotIndex::of(document.history()),
        orphans: document.orphan_chunks(),
    };
    Ok((Snapshot { info, document: saved.bytes }, materialised))
}

fn load(chunk: Option<&Bytes>) -> Result<Materialised, CompactError> {
    chunk.map_or_else(|| Ok(Materialised::default()), Materialised::load).map_err(CompactError::Snapshot)
}

fn unfit(base: &Materialised, changes: &[Bytes], reason: String) -> CompactError {
    let found = first_unfit_on(base, changes);
    let hash = found.as_ref().and_then(|(place, _)| Change::parse(changes[*place].clone()).ok());
    match (hash, found) {
        (Some(change), Some((_, reason))) => CompactError::Unfit { hash: change.hash, reason },
        // It failed once and not again: nothing is known of any change.
        _ => CompactError::Snapshot(reason),
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    use super::*;
    use crate::document::Compacted;

    const ID: DocumentId = DocumentId::from_bytes([1; 16]);

    /// Changes that each set a text that gets much smaller.
    fn changes(count: usize, bytes: usize) -> Vec<Bytes> {
        let mut document = AutoCommit::new();
        let mut change = |n: usize| {
            document.put(ROOT, "text", n.to_string().repeat(bytes)).unwrap();
            document.commit();
            let mut change = document.get_last_local_change().unwrap().clone();
            Bytes::copy_from_slice(&change.bytes())
        };
        (0..count).map(&mut change).collect()
    }

    #[test]
    fn what_a_copy_takes_up_has_its_values_in_it() {
        let tail = changes(4, 1 << 20);
        assert!(tail.iter().map(Bytes::len).sum::<usize>() < 1 << 20, "they are not packed");
        let (snapshot, copy) = compact(ID, Compactable { tail, ..Compactable::default() }).unwrap();
        assert!(copy.size() > 4 << 20, "{}", copy.size());
        assert!(Materialised::load(&snapshot.document).unwrap().size() > 4 << 20);
    }

    #[test]
    fn a_document_that_was_opened_with_a_snapshot_needs_not_wait_for_another_one() {
        let tail = changes(4, 1);
        let (snapshot, _) = compact(ID, Compactable { tail, ..Compactable::default() }).unwrap();
        let opened = Restoring::new(ID, []).on(snapshot.info.clone()).unwrap();
        assert_eq!(opened.finish().handle_compacted(&snapshot.info), Compacted::LetGo);
    }

    /// Two changes with one number: one waits for another change when the document is compacted, the other one is in.
    #[test]
    fn what_waited_when_the_document_was_compacted_waits_on() {
        let mut first = AutoCommit::new();
        let edit = |document: &mut AutoCommit, value: i64| {
            document.put(ROOT, "n", value).unwrap();
            document.commit();
            Bytes::copy_from_slice(document.get_last_local_change().unwrap().raw_bytes())
        };
        let base = edit(&mut first, 1);
        let mut twin = first.fork().with_actor(first.get_actor().clone());
        let mut other = first.fork();
        let awaited = edit(&mut other, 2);
        twin.merge(&mut other).unwrap();
        let waiting = edit(&mut twin, 3);
        let inside = edit(&mut first, 4);
        let tail = vec![base, waiting.clone(), inside];
        let (snapshot, _) = compact(ID, Compactable { tail, ..Compactable::default() }).unwrap();
        assert_eq!((snapshot.info.changes, &snapshot.info.orphans), (2, &vec![waiting]));
        let mut restoring = Restoring::new(ID, []).on(snapshot.info).unwrap();
        // It is refused when its turn comes.
        restoring.add(awaited).unwrap();
        let document = restoring.finish();
        assert_eq!((document.len(), document.orphan_count(), document.rejected().count()), (3, 0, 1));
    }
}
