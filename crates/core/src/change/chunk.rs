//! The frame around changes, documents and bundles.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::DeflateDecoder;
use sha2::{Digest, Sha256};

use crate::id::ChangeHash;
use crate::sync::message::{Reader, write_leb128};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Why bytes are no chunk, or hold no change that could be taken in. Always the fault of the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The checksum is not that of the data.
    #[error("the checksum is wrong")]
    Checksum,
    /// The data does not decode.
    #[error("malformed chunk: {0}")]
    Malformed(String),
    /// A chunk of another kind where a change was expected.
    #[error("not a change chunk")]
    NotAChange,
    /// Something exceeds its limit.
    #[error("the {what} is larger than {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Bytes after the chunk.
    #[error("bytes after the end of the chunk")]
    Trailing,
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkKind {
    Document,
    Change,
    Compressed,
    Bundle,
}

/// A chunk whose frame is right; the data has not been looked at.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) kind: ChunkKind,
    pub(super) checksum: [u8; 4],
    /// The data without the frame.
    pub(super) data: Bytes,
    /// All of it.
    pub(super) bytes: Bytes,
}

impl Chunk {
    /// All chunks of a message, in order. What comes after an error is of no use.
    pub(super) fn all(blobs: &[Bytes]) -> impl Iterator<Item = Result<Self, ChunkError>> {
        blobs.iter().flat_map(|blob| {
            let mut rest = blob.clone();
            std::iter::from_fn(move || (!rest.is_empty()).then(|| Self::take(&mut rest)))
        })
    }

    /// Takes one chunk off the front of `rest`.
    pub(super) fn take(rest: &mut Bytes) -> Result<Self, ChunkError> {
        let all = rest.clone();
        let mut reader = Reader::new(all.clone());
        let chunk = Self::read(&mut reader).ok_or_else(|| {
            let begins = all.get(..MAGIC.len()).is_some_and(|start| start == MAGIC);
            let is_known = all.get(8).is_none_or(|kind| *kind <= 3);
            ChunkError::Malformed(match begins && is_known {
                true => "it ends in the middle".to_owned(),
                false => "neither a change, a document nor a bundle".to_owned(),
            })
        })?;
        let len = all.len() - reader.remaining();
        *rest = all.slice(len..);
        Ok(Self { bytes: all.slice(..len), ..chunk })
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        if reader.take(4).ok()? != MAGIC[..] {
            return None;
        }
        let checksum = reader.take(4).ok()?[..].try_into().ok()?;
        let kind = match reader.u8().ok()? {
            0 => ChunkKind::Document,
            1 => ChunkKind::Change,
            2 => ChunkKind::Compressed,
            3 => ChunkKind::Bundle,
            _ => return None,
        };
        Some(Self { kind, checksum, data: reader.prefixed().ok()?, bytes: Bytes::new() })
    }

    /// The plain chunk of a compressed change. Its checksum is that of the plain data.
    pub(super) fn inflate(&self, max: usize) -> Result<Bytes, ChunkError> {
        let data = inflate(&self.data, max)?;
        let mut plain = Vec::with_capacity(data.len() + 20);
        plain.extend(MAGIC);
        plain.extend(self.checksum);
        plain.push(1);
        write_leb128(&mut plain, data.len() as u64);
        plain.extend(data);
        Ok(plain.into())
    }

    /// The hash. Only of chunks that are not compressed as a whole.
    pub(super) fn hash(&self) -> ChangeHash {
        // Type, length and data stand behind magic bytes and checksum just as they are hashed.
        ChangeHash(Sha256::digest(&self.bytes[8..]).into())
    }

    /// Whether the checksum is that of the data. Only for chunks that are not compressed as a whole.
    pub(super) fn checksum_is_right(&self) -> bool {
        self.hash().0[..4] == self.checksum
    }
}

/// Inflates at most `max` bytes.
pub(super) fn inflate(data: &[u8], max: usize) -> Result<Vec<u8>, ChunkError> {
    let mut inflated = Vec::new();
    DeflateDecoder::new(data)
        .take(max as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|error| ChunkError::Malformed(format!("does not inflate: {error}")))?;
    if inflated.len() > max {
        return Err(ChunkError::TooLarge { what: "inflated data", max });
    }
    Ok(inflated)
}
