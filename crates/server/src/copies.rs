//! Documents as `automerge` holds them, for what the graph cannot answer. They are kept for whoever asks next, as many as fit into a bound on memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_core::limits::SEND_CHANGES_BYTES_MAX;
use highwater_core::{ChangeHash, DocumentId, Materialised};
use highwater_storage::Store;
use lru::LruCache;
use tokio::sync::Semaphore;

use crate::limits::BRING_CHANGES_AT_ONCE;
use crate::open::{blocking, load_snapshot};

/// The copies. Whoever uses one takes it out, and puts it back.
pub(crate) struct Copies {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

struct Kept {
    /// With what each takes up.
    copies: LruCache<DocumentId, (Materialised, usize)>,
    bytes: usize,
}

impl Copies {
    /// None yet, and never more than this many bytes of them, by estimate.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let kept = Kept { copies: LruCache::unbounded(), bytes: 0 };
        Self { bytes_max, kept: Mutex::new(kept) }
    }

    /// The copy of a document, if there is one. It may lack the newest changes.
    pub(crate) fn take(&self, document: DocumentId) -> Option<Materialised> {
        let mut kept = self.kept();
        let (copy, bytes) = kept.copies.pop(&document)?;
        kept.bytes -= bytes;
        Some(copy)
    }

    /// Keeps a copy; those go that were not used for longest.
    pub(crate) fn put(&self, document: DocumentId, copy: Materialised) {
        let bytes = copy.size();
        if bytes > self.bytes_max {
            return;
        }
        let mut kept = self.kept();
        kept.bytes += bytes;
        if let Some((_, (_, before))) = kept.copies.push(document, (copy, bytes)) {
            kept.bytes -= before;
        }
        let mut gone = Vec::new();
        while kept.bytes > self.bytes_max {
            let Some((_, (copy, bytes))) = kept.copies.pop_lru() else { break };
            kept.bytes -= bytes;
            gone.push(copy);
        }
        // Letting go of a large one takes time.
        drop(kept);
        drop(gone);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it takes to have a document with all its values as it is now.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// A copy that was kept. Without one the snapshot is loaded.
    pub(crate) copy: Option<Materialised>,
    /// Whether there is a snapshot.
    pub(crate) has_snapshot: bool,
    /// What came since then, which is added in one batch: many changes cost little more than one.
    pub(crate) changes: Vec<Bytes>,
}

/// Looks at a document with all its values, on the blocking pool. The copy is kept for the next one.
pub(crate) async fn read<T: Send + 'static>(
    copies: Arc<Copies>,
    turns: Arc<Semaphore>,
    store: Arc<dyn Store>,
    document: DocumentId,
    catch_up: CatchUp,
    look: impl FnOnce(&Materialised) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    // The semaphore is never closed; without a turn there would only be more at once.
    let _turn = turns.acquire_owned().await.ok();
    let CatchUp { copy, has_snapshot, changes } = catch_up;
    let chunk = match copy {
        None if has_snapshot => Some(load_snapshot(&*store, document).await?),
        _ => None,
    };
    blocking(move || {
        let base = match (copy, chunk) {
            (Some(copy), _) => copy,
            (None, Some(chunk)) => Materialised::load(&chunk)?,
            (None, None) => Materialised::default(),
        };
        let current = if changes.is_empty() { base } else { base.extended(&changes)? };
        let seen = look(&current);
        copies.put(document, current);
        seen
    })
    .await
}

/// Changes that only the snapshot of a document holds, from its copy: the first of them, as many as make a message. A copy is made if there is none.
pub(crate) async fn bring(
    copies: Arc<Copies>,
    turns: Arc<Semaphore>,
    store: Arc<dyn Store>,
    document: DocumentId,
    hashes: Vec<ChangeHash>,
) -> Result<Vec<(ChangeHash, Bytes)>, String> {
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
    bring_from(copies, document, copy, hashes).await
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
        let small = Copies::new(size - 1);
        small.put(id(1), Materialised::default());
        assert!(small.take(id(1)).is_none());
    }
}
