//! The open documents that nobody uses. They stay in memory for a while, in case somebody comes back; how many, and how large, is bounded.

use highwater_core::DocumentId;
use lru::LruCache;

/// See the module's documentation.
pub(crate) struct Idle {
    /// By when they were last used, with the number of the task and the size of each.
    documents: LruCache<DocumentId, (u64, usize)>,
    bytes: usize,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self { documents: LruCache::unbounded(), bytes: 0 }
    }

    /// A document has nothing to do; it takes up so many bytes.
    pub(crate) fn add(&mut self, document: DocumentId, task: u64, bytes: usize) {
        self.remove(document);
        self.documents.push(document, (task, bytes));
        self.bytes += bytes;
    }

    /// A document is used, or gone.
    pub(crate) fn remove(&mut self, document: DocumentId) {
        if let Some((_, bytes)) = self.documents.pop(&document) {
            self.bytes -= bytes;
        }
    }

    /// What all of them take up.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes out the one that was not used for longest, with the number of its task.
    pub(crate) fn pop_oldest(&mut self) -> Option<(DocumentId, u64)> {
        let (document, (task, bytes)) = self.documents.pop_lru()?;
        self.bytes -= bytes;
        Some((document, task))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}
