//! What the core asks a store to keep.

use bytes::Bytes;

use crate::id::ChangeHash;

/// One row for the store. All records of one append become durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A change chunk, byte for byte as it was received, or as it was unpacked from a document chunk.
    Change {
        /// The chunk, header included.
        bytes: Bytes,
    },
    /// A change that was refused. It is kept for people to look at and never becomes part of the document.
    Quarantine {
        /// The hash of the change.
        hash: ChangeHash,
        /// Why it was refused, in words.
        reason: String,
        /// Who sent it: a peer id.
        peer: String,
        /// The chunk, header included.
        bytes: Bytes,
    },
    /// What a request was answered, so that the same request is answered in the same way and not carried out again.
    Answer {
        /// What names the request: SHA-256 of its `Idempotency-Key`.
        key: [u8; 32],
        /// SHA-256 of what was asked.
        request: [u8; 32],
        /// What was answered.
        answer: Bytes,
    },
    /// The document is deleted: nothing of it is there any more, and nothing but answers is ever added to it again.
    Tombstone,
}

impl Record {
    /// How many bytes there are to store, but for a few.
    pub fn len(&self) -> usize {
        match self {
            Self::Change { bytes } | Self::Quarantine { bytes, .. } => bytes.len(),
            Self::Answer { answer, .. } => answer.len(),
            Self::Tombstone => 0,
        }
    }

    /// Whether there is nothing to store but the fact.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
