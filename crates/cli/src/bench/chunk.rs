//! Looks into received chunks just far enough to know what came: the hash of a change, the heads of a document.

use std::io::Read;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use flate2::read::DeflateDecoder;
use highwater_core::ChangeHash;
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// A change larger than this after inflating is none that this load generator has sent.
const INFLATED_BYTES_MAX: u64 = 256 << 20;

/// What a chunk brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// One change.
    Change {
        /// Its hash.
        hash: ChangeHash,
        /// What it was made on top of.
        deps: Vec<ChangeHash>,
    },
    /// A whole document.
    Document {
        /// Its heads.
        heads: Vec<ChangeHash>,
        /// The chunk itself.
        bytes: Bytes,
    },
}

/// Takes apart one blob of a sync message: chunks one after the other.
pub(crate) fn read_all(mut blob: Bytes) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    while !blob.is_empty() {
        chunks.push(read(&mut blob)?);
    }
    Ok(chunks)
}

fn read(blob: &mut Bytes) -> Result<Chunk> {
    if blob.len() < 9 || blob[..4] != MAGIC {
        bail!("the server sent bytes that are no chunk");
    }
    let whole = blob.clone();
    // Magic and checksum; what follows is what the hash is taken over.
    blob.advance(8);
    let hashed = blob.clone();
    let kind = blob.get_u8();
    let len = usize::try_from(leb128(blob)?)?;
    let mut data = take(blob, len)?;
    match kind {
        0 => {
            let bytes = whole.slice(..whole.len() - blob.len());
            Ok(Chunk::Document { heads: document_heads(data)?, bytes })
        }
        1 => {
            let hash = ChangeHash(Sha256::digest(&hashed[..hashed.len() - blob.len()]).into());
            Ok(Chunk::Change { hash, deps: hashes(&mut data)? })
        }
        2 => inflated(&data),
        other => bail!("the server sent a chunk of type {other}, which this load generator cannot read"),
    }
}

/// The hash of a compressed change is that of the change before it was compressed.
fn inflated(data: &[u8]) -> Result<Chunk> {
    let mut plain = Vec::new();
    DeflateDecoder::new(data).take(INFLATED_BYTES_MAX).read_to_end(&mut plain)?;
    let mut hashed = vec![1];
    write_leb128(&mut hashed, plain.len() as u64);
    hashed.extend_from_slice(&plain);
    let hash = ChangeHash(Sha256::digest(&hashed).into());
    Ok(Chunk::Change { hash, deps: hashes(&mut plain.into())? })
}

fn document_heads(mut data: Bytes) -> Result<Vec<ChangeHash>> {
    for _ in 0..leb128(&mut data)? {
        let actor_len = usize::try_from(leb128(&mut data)?)?;
        take(&mut data, actor_len)?;
    }
    hashes(&mut data)
}

fn hashes(data: &mut Bytes) -> Result<Vec<ChangeHash>> {
    let count = usize::try_from(leb128(data)?)?;
    let mut bytes = take(data, count.checked_mul(32).context("a chunk with absurdly many hashes")?)?;
    Ok((0..count)
        .map(|_| {
            let mut hash = ChangeHash([0; 32]);
            bytes.copy_to_slice(&mut hash.0);
            hash
        })
        .collect())
}

fn take(data: &mut Bytes, len: usize) -> Result<Bytes> {
    if data.len() < len {
        bail!("the server sent a chunk that ends too early");
    }
    Ok(data.split_to(len))
}

fn leb128(data: &mut Bytes) -> Result<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = data.try_get_u8().context("the server sent a chunk that ends too early")?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("the server sent a chunk with a number that is too large")
}

fn write_leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};

    use super::*;

    #[test]
    fn hashes_and_heads_are_those_that_automerge_computes() {
        let mut document = AutoCommit::new();
        document.put(ROOT, "small", 1).unwrap();
        document.commit();
        document.put(ROOT, "large", "x".repeat(5000)).unwrap();
        document.commit();
        let saved = document.save();
        let mut changes = document.get_changes(&[]);
        let blob: Vec<u8> = changes.iter_mut().flat_map(|change| change.bytes().to_vec()).collect();
        let expected: Vec<_> = changes
            .iter()
            .map(|change| Chunk::Change { hash: change.hash(), deps: change.deps().to_vec() })
            .collect();
        assert_eq!(read_all(blob.into()).unwrap(), expected);
        let heads = document.get_heads();
        let bytes = Bytes::from(saved);
        assert_eq!(read_all(bytes.clone()).unwrap(), [Chunk::Document { heads, bytes }]);
    }

    #[test]
    fn other_bytes_are_an_error() {
        for bytes in [&b"abc"[..], &[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1, 200], &[0; 40]] {
            assert!(read_all(Bytes::copy_from_slice(bytes)).is_err());
        }
    }
}
