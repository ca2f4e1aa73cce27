//! Changes as they arrive: chunks are taken apart, checked, and turned into the few facts that the history needs.
//!
//! The formats are those of the Automerge binary format (<https://automerge.org/automerge-binary-format-spec/>): a chunk is the magic bytes, four bytes of
//! checksum, a type, a length and that much data; its hash is the SHA-256 of type, length and data.

mod chunk;
mod columns;
pub(crate) mod ops;
pub(crate) mod strict;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Bundle, LoadOptions, OnPartialLoad, VerificationMode};
use bytes::Bytes;

use crate::Materialised;
use crate::id::{ActorId, ChangeHash};
use crate::limits::{
    CHANGE_BYTES_MAX, MESSAGE_OPS_MAX, OP_COUNTER_MAX, UNPACK_INLINE_BYTES_MAX, UNPACK_INLINE_OPS_MAX,
    UNPACKED_BYTES_MAX,
};

pub use chunk::ChunkError;
use chunk::{Chunk, ChunkKind};
use columns::Header;

/// A change whose frame is right: its checksum, what comes before the operations, and how many those are. Whether the operations read and make sense is
/// found when the change is admitted to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// SHA-256 over the uncompressed change.
    pub hash: ChangeHash,
    /// The changes that this one was made on top of.
    pub deps: Vec<ChangeHash>,
    /// Who made it.
    pub actor: ActorId,
    /// Counts the actor's changes from 1.
    pub seq: u64,
    /// The counter of its first operation, at least 1.
    pub start_op: u64,
    /// How many operations it has.
    pub ops: u64,
    /// How many values its longest column has: what checking it costs.
    pub values: u64,
    /// The chunk, as received.
    pub bytes: Bytes,
    /// What is in the chunk, not compressed: from the dependencies to the operations.
    pub data: Bytes,
}

impl Change {
    /// Reads one change chunk, compressed or not, and checks it.
    pub fn parse(bytes: Bytes) -> Result<Self, ChunkError> {
        let mut rest = bytes;
        let chunk = Chunk::take(&mut rest)?;
        if !rest.is_empty() {
            return Err(ChunkError::Trailing);
        }
        Self::from_chunk(&chunk)
    }

    /// The counter of the last operation; of a change without operations, that before the first.
    pub fn max_op(&self) -> u64 {
        self.start_op + self.ops - 1
    }

    fn from_chunk(chunk: &Chunk) -> Result<Self, ChunkError> {
        check_size(&chunk.bytes)?;
        match chunk.kind {
            ChunkKind::Change => Self::from_plain(owned(&chunk.bytes), chunk),
            ChunkKind::Compressed => {
                let plain = chunk.inflate(CHANGE_BYTES_MAX)?;
                let inner = Chunk::take(&mut plain.clone())?;
                Self::from_plain(plain, &inner).map(|change| Self { bytes: owned(&chunk.bytes), ..change })
            }
            ChunkKind::Document | ChunkKind::Bundle => Err(ChunkError::NotAChange),
        }
    }

    fn from_plain(bytes: Bytes, chunk: &Chunk) -> Result<Self, ChunkError> {
        let Header { deps, actor, seq, start_op, ops, values } = Header::read(&chunk.data)?;
        let hash = chunk.hash();
        if hash.0[..4] != chunk.checksum {
            return Err(ChunkError::Checksum);
        }
        if start_op.saturating_add(ops) > OP_COUNTER_MAX {
            return Err(ChunkError::TooLarge { what: "operation counter", max: OP_COUNTER_MAX as usize });
        }
        if start_op == 0 || seq == 0 {
            return Err(ChunkError::Malformed("sequence numbers and counters start at 1".to_owned()));
        }
        if !deps.is_sorted_by(|a, b| a < b) {
            return Err(ChunkError::Malformed("dependencies are not in order, or twice there".to_owned()));
        }
        let data = bytes.slice(bytes.len() - chunk.data.len()..);
        Ok(Self { hash, deps, actor, seq, start_op, ops, values, bytes, data })
    }
}

/// The changes in the chunks of a sync message, in order.
///
/// Costs microseconds for a change and, for a document chunk, as much as loading it with `automerge`: off the hot path
/// unless [`is_cheap`] says otherwise.
pub fn unpack(blobs: &[Bytes]) -> Result<Vec<Change>, ChunkError> {
    unpack_within(blobs, UNPACKED_BYTES_MAX)
}

fn unpack_within(blobs: &[Bytes], bytes_max: usize) -> Result<Vec<Change>, ChunkError> {
    let mut changes = Vec::new();
    let mut budget = Budget::new(blobs, bytes_max);
    for chunk in Chunk::all(blobs) {
        let chunk = chunk?;
        match chunk.kind {
            ChunkKind::Change | ChunkKind::Compressed => {
                let change = Change::from_chunk(&chunk)?;
                budget.take(&change)?;
                changes.push(change);
            }
            ChunkKind::Document => unpack_document(&chunk, &mut changes)?,
            ChunkKind::Bundle => unpack_bundle(&chunk, &mut changes)?,
        }
    }
    Ok(changes)
}

/// What the changes of one message may unpack to, together.
struct Budget {
    ops_left: u64,
    bytes_left: usize,
    bytes_max: usize,
}

impl Budget {
    fn new(blobs: &[Bytes], bytes_max: usize) -> Self {
        // A few bytes can stand for many operations, and many times a few bytes for more work than anybody may ask for.
        let ops_left = MESSAGE_OPS_MAX + blobs.iter().map(|blob| blob.len() as u64).sum::<u64>();
        Self { ops_left, bytes_left: bytes_max, bytes_max }
    }

    fn take(&mut self, change: &Change) -> Result<(), ChunkError> {
        self.ops_left = self.ops_left.checked_sub(change.values).ok_or(ChunkError::TooLarge {
            what: "number of operations in a message",
            max: MESSAGE_OPS_MAX as usize,
        })?;
        self.take_bytes(change.data.len())
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), ChunkError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(ChunkError::TooLarge {
            what: "size of the changes of a message, unpacked",
            max: self.bytes_max,
        })?;
        Ok(())
    }
}

/// Whether what is in the chunks of a sync message unpacks to no more than may be taken in. For clients, which hand the message to `automerge` after this.
pub fn check_bounds(blobs: &[Bytes]) -> Result<(), ChunkError> {
    check_bounds_within(blobs, UNPACKED_BYTES_MAX)
}

fn check_bounds_within(blobs: &[Bytes], bytes_max: usize) -> Result<(), ChunkError> {
    let mut budget = Budget::new(blobs, bytes_max);
    for chunk in Chunk::all(blobs) {
        let chunk = chunk?;
        match chunk.kind {
            ChunkKind::Change | ChunkKind::Compressed => budget.take(&Change::from_chunk(&chunk)?)?,
            ChunkKind::Document => budget.take_bytes(columns::check_document(&chunk.data)?)?,
            ChunkKind::Bundle => columns::check_bundle(&chunk.data)?,
        }
    }
    Ok(())
}

/// How many bytes a change chunk has, unpacked. What does not read counts as it is.
pub(crate) fn unpacked_change_bytes(bytes: &Bytes) -> usize {
    let unpacked = || {
        let chunk = Chunk::take(&mut bytes.clone()).ok()?;
        let is_packed = chunk.kind == ChunkKind::Compressed;
        is_packed.then(|| chunk.inflate(CHANGE_BYTES_MAX).ok()).flatten()
    };
    unpacked().map_or(bytes.len(), |plain| plain.len())
}

/// How many bytes the columns of a document chunk have, unpacked: no more than [`UNPACKED_BYTES_MAX`], which is also said of one that does not read.
pub(crate) fn unpacked_document_bytes(bytes: &Bytes) -> usize {
    let chunk = Chunk::take(&mut bytes.clone());
    chunk.and_then(|chunk| columns::check_document(&chunk.data)).unwrap_or(UNPACKED_BYTES_MAX)
}

/// Whether [`unpack`] takes no longer than a task may hold its thread: a few plain changes.
pub fn is_cheap(blobs: &[Bytes]) -> bool {
    let mut budget = UNPACK_INLINE_BYTES_MAX;
    let mut ops = 0;
    for chunk in Chunk::all(blobs) {
        // What is malformed is found out soon enough.
        let Ok(chunk) = chunk else { return true };
        if chunk.kind != ChunkKind::Change || chunk.bytes.len() > budget {
            return false;
        }
        budget -= chunk.bytes.len();
        ops = Header::read(&chunk.data).map_or(0, |header| header.values).saturating_add(ops);
        if ops > UNPACK_INLINE_OPS_MAX {
            return false;
        }
    }
    true
}

/// The heads that a document chunk names, if these bytes are one such chunk, its checksum is right, and nothing else. What it holds is not looked at.
pub fn saved_heads(bytes: &Bytes) -> Option<Vec<ChangeHash>> {
    let mut rest = bytes.clone();
    let chunk = Chunk::take(&mut rest).ok()?;
    if chunk.kind != ChunkKind::Document || !rest.is_empty() || !chunk.checksum_is_right() {
        return None;
    }
    columns::document_heads(&chunk.data)
}

fn unpack_document(chunk: &Chunk, changes: &mut Vec<Change>) -> Result<(), ChunkError> {
    columns::check_document(&chunk.data)?;
    let document = guarded(|| {
        let options = LoadOptions::new()
            .on_partial_load(OnPartialLoad::Error)
            .verification_mode(VerificationMode::Check);
        Automerge::load_with_options(&chunk.bytes, options).map_err(malformed)
    })?;
    // What loads once need not load twice.
    Materialised::from(document.clone()).check_saved().map_err(ChunkError::Malformed)?;
    let parsed = guarded(|| Ok(document.get_changes(&[])))?;
    collect(&parsed, changes)
}

fn unpack_bundle(chunk: &Chunk, changes: &mut Vec<Change>) -> Result<(), ChunkError> {
    columns::check_bundle(&chunk.data)?;
    if !chunk.checksum_is_right() {
        return Err(ChunkError::Checksum);
    }
    let parsed =
        guarded(|| Bundle::try_from(&chunk.bytes[..]).map_err(malformed)?.to_changes().map_err(malformed))?;
    collect(&parsed, changes)
}

fn collect(parsed: &[automerge::Change], changes: &mut Vec<Change>) -> Result<(), ChunkError> {
    changes.reserve(parsed.len());
    for change in parsed {
        // What is taken in now is read again one by one: the same limits hold.
        changes.push(Change::parse(Bytes::copy_from_slice(change.raw_bytes()))?);
    }
    Ok(())
}

fn check_size(chunk: &Bytes) -> Result<(), ChunkError> {
    if chunk.len() > CHANGE_BYTES_MAX {
        return Err(ChunkError::TooLarge { what: "change", max: CHANGE_BYTES_MAX });
    }
    Ok(())
}

fn malformed(error: impl std::fmt::Display) -> ChunkError {
    ChunkError::Malformed(error.to_string())
}

/// A slice of a frame keeps the whole frame alive; a copy of the part that stays does not.
fn owned(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// Runs the `automerge` crate's parsers, which have had panics on hostile input.
fn guarded<T>(parse: impl FnOnce() -> Result<T, ChunkError>) -> Result<T, ChunkError> {
    catch_unwind(AssertUnwindSafe(parse))
        .unwrap_or_else(|_| Err(ChunkError::Malformed("automerge cannot read it (it panicked)".to_owned())))
}

#[cfg(test)]
mod tests;
