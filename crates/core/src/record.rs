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
}

impl Record {
    /// The bytes of the change.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Change { bytes } | Self::Quarantine { bytes, .. } => bytes,
        }
    }
}
