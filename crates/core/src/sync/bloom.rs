//! The Bloom filter of the sync protocol, after section 4.3 of "Byzantine Eventual Consistency and the Fundamental Limits of
//! Peer-to-Peer Databases" (Kleppmann and Howard, 2020), with the parameters that Automerge peers use.
//!
//! Ours, and not the one of the `automerge` crate, because that one divides by zero for a filter without bits and allocates as many
//! probes as a peer cares to announce.

use bytes::Bytes;

use super::message::{MessageError, Reader, write_leb128};
use crate::id::ChangeHash;
use crate::limits::{BLOOM_BYTES_MAX, BLOOM_PROBES_MAX};

const BITS_PER_ENTRY: u32 = 10;
const PROBES: u32 = 7;

/// Says of a hash "certainly not in the set" or "probably in the set" (wrong in about 1 of 100 cases).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BloomFilter {
    entries: u32,
    bits_per_entry: u32,
    probes: u32,
    bits: Bytes,
}

impl Default for BloomFilter {
    fn default() -> Self {
        Self { entries: 0, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits: Bytes::new() }
    }
}

impl BloomFilter {
    /// The filter of these hashes.
    pub fn from_hashes<'a>(hashes: impl ExactSizeIterator<Item = &'a ChangeHash>) -> Self {
        let entries = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        let mut bits = vec![0u8; capacity(entries, BITS_PER_ENTRY)];
        for hash in hashes {
            for probe in probes(hash, PROBES, bits.len()) {
                bits[probe >> 3] |= 1 << (probe & 7);
            }
        }
        Self { entries, bits: bits.into(), ..Self::default() }
    }

    /// Whether the hash may be in the set. An empty filter holds nothing.
    pub fn may_contain(&self, hash: &ChangeHash) -> bool {
        self.entries > 0
            && probes(hash, self.probes, self.bits.len())
                .all(|probe| self.bits[probe >> 3] & (1 << (probe & 7)) != 0)
    }

    /// Reads a filter that fills `bytes`; an empty one is the empty filter.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(bytes);
        let entries = reader.leb128_u32()?;
        let bits_per_entry = reader.leb128_u32()?;
        let probes = reader.leb128_u32()?;
        if entries > 0 && bits_per_entry == 0 {
            return Err(MessageError::Bloom("no bits"));
        }
        if reader.remaining() > BLOOM_BYTES_MAX {
            return Err(MessageError::Bloom("too many bits"));
        }
        if probes > BLOOM_PROBES_MAX {
            return Err(MessageError::Bloom("too many probes"));
        }
        let bits = reader.take(capacity(entries, bits_per_entry))?;
        // A copy, because it is kept, and a slice would keep the whole message.
        Ok(Self { entries, bits_per_entry, probes, bits: Bytes::copy_from_slice(&bits) })
    }

    /// The size of the encoded form.
    pub(super) fn encoded_len(&self) -> usize {
        let mut parameters = Vec::new();
        self.encode_parameters(&mut parameters);
        parameters.len() + self.bits.len()
    }

    /// Appends the encoded form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_parameters(out);
        out.extend_from_slice(&self.bits);
    }

    fn encode_parameters(&self, out: &mut Vec<u8>) {
        if self.entries > 0 {
            write_leb128(out, u64::from(self.entries));
            write_leb128(out, u64::from(self.bits_per_entry));
            write_leb128(out, u64::from(self.probes));
        }
    }
}

fn capacity(entries: u32, bits_per_entry: u32) -> usize {
    usize::try_from((u64::from(entries) * u64::from(bits_per_entry)).div_ceil(8)).unwrap_or(usize::MAX)
}

/// The bits of a hash: triple hashing over its first twelve bytes. None if there are no bits to probe.
fn probes(hash: &ChangeHash, count: u32, bytes: usize) -> impl Iterator<Item = usize> {
    let modulo = 8 * bytes as u64;
    let word = |at: usize| {
        let bytes = [hash.0[at], hash.0[at + 1], hash.0[at + 2], hash.0[at + 3]];
        u64::from(u32::from_le_bytes(bytes)).checked_rem(modulo).unwrap_or(0)
    };
    let (mut x, mut y, z) = (word(0), word(4), word(8));
    let count = if modulo == 0 { 0 } else { count };
    (0..count).map(move |probe| {
        if probe > 0 {
            x = (x + y) % modulo;
            y = (y + z) % modulo;
        }
        x as usize
    })
}
