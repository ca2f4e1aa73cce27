//! What was brought back of the changes that only a snapshot holds, to be sent to peers.

use std::collections::HashMap;

use bytes::Bytes;

use super::Index;
use crate::limits::{BROUGHT_BYTES_MAX, SNAPSHOT_KEPT_BYTES_MAX, SNAPSHOT_SENT_BYTES_MAX};

/// The snapshot's document chunk, for those who have nothing; and single changes, for those who lack some. Both are kept for the next one who asks, within bounds.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// How long the chunk is.
    snapshot_bytes: u64,
    snapshot: Option<Bytes>,
    chunks: HashMap<Index, Bytes>,
    chunk_bytes: usize,
}

impl Brought {
    /// Nothing yet, of a snapshot whose chunk has so many bytes.
    pub(super) fn new(snapshot_bytes: u64) -> Self {
        Self { snapshot_bytes, ..Self::default() }
    }

    /// Whether the chunk is short enough to be sent in one message.
    pub(crate) fn is_sendable(&self) -> bool {
        self.snapshot_bytes <= SNAPSHOT_SENT_BYTES_MAX
    }

    pub(crate) fn snapshot(&self) -> Option<&Bytes> {
        self.snapshot.as_ref()
    }

    /// Of a snapshot that was there when the document was opened.
    pub(crate) fn set_snapshot_bytes(&mut self, bytes: u64) {
        self.snapshot_bytes = bytes;
    }

    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes
    }

    pub(super) fn chunk(&self, index: Index) -> Option<&Bytes> {
        self.chunks.get(&index)
    }

    /// A newer one may be longer, and not to be sent any more.
    pub(crate) fn put_snapshot(&mut self, chunk: Bytes) {
        self.snapshot_bytes = chunk.len() as u64;
        self.snapshot = Some(chunk);
    }

    /// Adds single changes. What was there goes if it gets too much.
    pub(crate) fn put_chunks(&mut self, chunks: impl Iterator<Item = (Index, Bytes)>) {
        if self.chunk_bytes > BROUGHT_BYTES_MAX {
            self.let_go_of_chunks();
        }
        for (index, chunk) in chunks {
            self.chunk_bytes += chunk.len();
            self.chunks.insert(index, chunk);
        }
    }

    /// Everybody has what they waited for: what is too large to be kept goes.
    pub(crate) fn trim(&mut self) {
        if self.snapshot_bytes > SNAPSHOT_KEPT_BYTES_MAX {
            self.snapshot = None;
        }
        if self.chunk_bytes > BROUGHT_BYTES_MAX {
            self.let_go_of_chunks();
        }
    }

    fn let_go_of_chunks(&mut self) {
        self.chunks = HashMap::new();
        self.chunk_bytes = 0;
    }

    /// What all this takes up, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        self.snapshot.as_ref().map_or(0, Bytes::len) + self.chunk_bytes + self.chunks.capacity() * 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_turns_out_to_be_too_long_is_not_sent() {
        let mut brought = Brought::new(10);
        assert!(brought.is_sendable());
        brought.put_snapshot(vec![0; SNAPSHOT_SENT_BYTES_MAX as usize + 1].into());
        assert!(!brought.is_sendable());
    }
}
