//! Documents as `automerge` holds them, for what the graph cannot answer. They are kept for whoever asks next, as many as fit into a bound on memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_core::limits::SEND_CHANGES_BYTES_MAX;
use highwater_core::{ChangeHash, DocumentId, Materialised};
use highwater_storage::Store;
use lru::LruCache;
use tokio::sync::Semaphore;

use crate::limits::BRING_CHANGES_AT_ONCE;
use crate::open::{Unreadable, blocking, load_snapshot};

/// The copies. Whoever uses one takes it out, and puts it back.
pub(crate) struct Copies {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    copies: LruCache<DocumentId, KeptCopy>,
    bytes: usize,
    next_ticket: u64,
}

struct KeptCopy {
    copy: Materialised,
    /// What it takes up.
    bytes: usize,
    /// It is [held](Copies::hold), under this number.
    held: Option<u64>,
}

/// A copy that nobody can take yet. Dropped, it is thrown away.
#[must_use]
pub(crate) struct Held {
    copies: Arc<Copies>,
    document: DocumentId,
    ticket: Option<u64>,
}

impl Held {
    /// What the copy holds is durable: whoever wants it may take it.
    pub(crate) fn release(mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut kept = self.copies.kept();
        // There may be another one in its place, or none.
        if let Some(entry) = kept.copies.peek_mut(&self.document).filter(|entry| entry.held == Some(ticket)) {
            entry.held = None;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut kept = self.copies.kept();
        let is_it = kept.copies.peek(&self.document).is_some_and(|entry| entry.held == Some(ticket));
        let gone = if is_it { kept.pop(self.document) } else { None };
        drop(kept);
        drop(gone);
    }
}

impl Kept {
    fn pop(&mut self, document: DocumentId) -> Option<Materialised> {
        let KeptCopy { copy, bytes, .. } = self.copies.pop(&document)?;
        self.bytes -= bytes;
        Some(copy)
    }
}

impl Copies {
    /// None yet, and never more than this many bytes of them, by estimate.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let kept = Kept { copies: LruCache::unbounded(), bytes: 0, next_ticket: 0 };
        Self { bytes_max, kept: Mutex::new(kept) }
    }

    /// The copy of a document, if there is one that is not held. It may lack the newest changes.
    pub(crate) fn take(&self, document: DocumentId) -> Option<Materialised> {
        let mut kept = self.kept();
        if kept.copies.peek(&document)?.held.is_some() {
            return None;
        }
        kept.pop(document)
    }

    /// Keeps a copy; those go that were not used for longest.
    pub(crate) fn put(&self, document: DocumentId, copy: Materialised) {
        self.insert(document, copy, false);
    }

    /// Keeps a copy with changes that are not durable yet: it counts as the others do, and nobody can take it before it is [released](Held::release).
    pub(crate) fn hold(self: &Arc<Self>, document: DocumentId, copy: Materialised) -> Held {
        let ticket = self.insert(document, copy, true);
        Held { copies: self.clone(), document, ticket }
    }

    /// Returns the number of one that is held.
    fn insert(&self, document: DocumentId, copy: Materialised, is_held: bool) -> Option<u64> {
        let bytes = copy.size();
        if bytes > self.bytes_max {
            return None;
        }
        let mut kept = self.kept();
        let held = is_held.then_some(kept.next_ticket);
        kept.next_ticket += 1;
        kept.bytes += bytes;
        let mut gone = Vec::new();
        if let Some((_, before)) = kept.copies.push(document, KeptCopy { copy, bytes, held }) {
            kept.bytes -= before.bytes;
            gone.push(before.copy);
        }
        while kept.bytes > self.bytes_max {
            let Some((_, oldest)) = kept.copies.pop_lru() else { break };
            kept.bytes -= oldest.bytes;
            gone.push(oldest.copy);
        }
        // Letting go of a large one takes time.
        drop(kept);
        drop(gone);
        held
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it takes to have a document with all its values as it is now.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    /// A copy that was kept. Without one the snapshot is loaded.
    pub(crate) copy: Option<Materialised>,
    /// Whether there is a snapshot.
    pub(crate) has_snapshot: bool,
    /// What came since then, which is added in one batch: many changes cost little more than one.
    pub(crate) changes: Vec<Bytes>,
}

impl CatchUp {
    /// Whether the snapshot must be loaded.
    pub(crate) fn needs_snapshot(&self) -> bool {
        self.copy.is_none() && self.has_snapshot
    }

    /// The document as it is now; for the blocking pool. With the chunk of the snapshot, if that [is needed](Self::needs_snapshot).
    pub(crate) fn materialise(self, chunk: Option<&Bytes>) -> Result<Materialised, String> {
        let base = match (self.copy, chunk) {
            (Some(copy), _) => copy,
            (None, Some(chunk)) => Materialised::load(chunk)?,
            (None, None) => Materialised::default(),
        };
        if self.changes.is_empty() { Ok(base) } else { base.extended(&self.changes) }
    }
}

/// Changes that only the snapshot of a document holds, from its copy: the first of them, as many as make a message. A copy is made if there is none.
pub(crate) async fn bring(
    copies: Arc<Copies>,
    turns: Arc<Semaphore>,
    store: Arc<dyn Store>,
    document: DocumentId,
    hashes: Vec<ChangeHash>,
) -> Result<Vec<(ChangeHash, Bytes)>, Unreadable> {
    // The semaphore is never closed; without a turn there would only be more at once.
    let _turn = turns.acquire_owned().await.ok();
    if let Some(copy) = copies.take(document)
        && let Ok(brought) = bring_from(copies.clone(), document, copy, hashes.clone()).await
    {
        return Ok(brought);
    }
    // An older copy may lack some of them. What is stored has them all.
    let chunk = load_snapshot(&*store, document).await?;
    let copy = blocking(move || Materialised::load(&chunk)).await?;
    Ok(bring_from(copies, document, copy, hashes).await?)
}

async fn bring_from(
    copies: Arc<Copies>,
    document: DocumentId,
    copy: Materialised,
    hashes: Vec<ChangeHash>,
) -> Result<Vec<(ChangeHash, Bytes)>, String> {
    blocking(move || {
        let (mut brought, mut bytes) = (Vec::new(), 0);
        for hashes in hashes.chunks(BRING_CHANGES_AT_ONCE) {
            if bytes >= SEND_CHANGES_BYTES_MAX {
                break;
            }
            let changes = copy.changes(hashes)?;
            bytes += changes.iter().map(|(_, chunk)| chunk.len()).sum::<usize>();
            brought.extend(changes);
        }
        copies.put(document, copy);
        Ok(brought)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_was_not_used_for_longest_goes_first() {
        let id = |n| DocumentId::from_bytes([n; 16]);
        let size = Materialised::default().size();
        let copies = Copies::new(2 * size);
        copies.put(id(1), Materialised::default());
        copies.put(id(2), Materialised::default());
        copies.put(id(2), Materialised::default());
        copies.put(id(1), copies.take(id(1)).unwrap());
        copies.put(id(3), Materialised::default());
        assert!(copies.take(id(2)).is_none());
        assert!(copies.take(id(1)).is_some() && copies.take(id(3)).is_some());
        assert_eq!(copies.kept().bytes, 0);
        let copies = Arc::new(copies);
        let held = copies.hold(id(1), Materialised::default());
        assert!(copies.take(id(1)).is_none());
        held.release();
        assert!(copies.take(id(1)).is_some());
        drop(copies.hold(id(1), Materialised::default()));
        assert!(copies.take(id(1)).is_none());
        let replaced = copies.hold(id(1), Materialised::default());
        copies.put(id(1), Materialised::default());
        drop(replaced);
        assert!(copies.take(id(1)).is_some());
        assert_eq!(copies.kept().bytes, 0);
        let small = Copies::new(size - 1);
        small.put(id(1), Materialised::default());
        assert!(small.take(id(1)).is_none());
    }
}
