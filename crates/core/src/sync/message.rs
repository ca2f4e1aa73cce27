//! The messages of Automerge's sync protocol, versions 1 and 2.
//!
//! A message is: a type byte (0x42 or 0x43), the sender's heads, the hashes that it needs, what it has (per entry: the heads of the last sync and a
//! Bloom filter of the changes since), a list of chunks, and a trailer of flags that old peers do not send and skip when they get it.
//! Version 2 differs in that a chunk may hold several changes or a whole document. Wire-compatible with `automerge::sync::Message`.

use bytes::{Buf, Bytes};

use super::bloom::BloomFilter;
use crate::id::ChangeHash;
use crate::limits::{MESSAGE_CHANGES_MAX, MESSAGE_HASHES_MAX, MESSAGE_HAVES_MAX};

const TYPE_V1: u8 = 0x42;
const TYPE_V2: u8 = 0x43;
/// Says "I read version 2"; the first byte of the trailer, for peers that know no bit field.
const LEGACY_V2_FLAG: u8 = 0x02;
/// Marks a byte of the trailer as a bit field.
const BIT_FIELD: u8 = 0x80;

/// Which encoding a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Every chunk is one change.
    V1,
    /// Chunks may hold several changes, whole documents and bundles.
    V2,
}

/// A sync message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The encoding.
    pub version: Version,
    /// The sender's heads.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for by name.
    pub need: Vec<ChangeHash>,
    /// What the sender has.
    pub have: Vec<Have>,
    /// Change chunks, document chunks, bundles; each entry holds one or more of them.
    pub chunks: Vec<Bytes>,
    /// The trailer. A peer that sends one reads version 2.
    pub flags: Option<Flags>,
}

/// What a peer has, as it tells others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Have {
    /// The heads up to which both are known to be the same.
    pub last_sync: Vec<ChangeHash>,
    /// The changes that the sender has beyond them.
    pub bloom: BloomFilter,
}

/// The bits of the trailer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Forget which changes you have sent to me, and send them again.
    pub const SYNC_RESET: Self = Self(1);
    /// I do not take changes.
    pub const READ_ONLY: Self = Self(2);
    /// I understand [`SYNC_RESET`](Self::SYNC_RESET).
    pub const SUPPORTS_SYNC_RESET: Self = Self(4);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why bytes are no sync message. Always the fault of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The first byte is neither 0x42 nor 0x43.
    #[error("sync message of unknown type {0:#04x}")]
    Type(u8),
    /// The bytes end in the middle.
    #[error("sync message ends too early")]
    Short,
    /// A number of more than 64 bits, or larger than its place allows.
    #[error("sync message holds a number that is too large")]
    Number,
    /// A list that is longer than allowed.
    #[error("sync message lists more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// The Bloom filter makes no sense.
    #[error("sync message holds a Bloom filter with {0}")]
    Bloom(&'static str),
}

type Result<T> = std::result::Result<T, MessageError>;

impl Message {
    /// Reads a message. The chunks are slices of `bytes`, not copies. Bytes after the trailer are skipped, as stock peers do.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let version = match reader.u8()? {
            TYPE_V1 => Version::V1,
            TYPE_V2 => Version::V2,
            other => return Err(MessageError::Type(other)),
        };
        let heads = reader.hashes("heads")?;
        let need = reader.hashes("needs")?;
        let have = reader.list("haves", MESSAGE_HAVES_MAX, Reader::have)?;
        let chunks = reader.list("changes", MESSAGE_CHANGES_MAX, Reader::prefixed)?;
        let flags = if reader.is_empty() { None } else { Some(read_flags(&reader.prefixed()?)) };
        Ok(Self { version, heads, need, have, chunks, flags })
    }

    /// The message as bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.into()
    }

    /// How many bytes [`encode_into`](Self::encode_into) appends.
    pub fn encoded_len(&self) -> usize {
        let chunks: usize = match self.version {
            Version::V1 => self.chunks.iter().map(|chunk| prefixed_len(chunk.len())).sum(),
            Version::V2 if self.chunks.is_empty() => 0,
            Version::V2 => prefixed_len(self.blob_len()),
        };
        1 + hashes_len(&self.heads)
            + hashes_len(&self.need)
            + leb128_len(self.have.len() as u64)
            + self.have.iter().map(Have::encoded_len).sum::<usize>()
            + leb128_len(self.chunk_count() as u64)
            + chunks
            + if self.flags.is_some() { 3 } else { 0 }
    }

    /// Appends the message. In version 2 all chunks go out as one blob.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(match self.version {
            Version::V1 => TYPE_V1,
            Version::V2 => TYPE_V2,
        });
        write_hashes(out, &self.heads);
        write_hashes(out, &self.need);
        write_leb128(out, self.have.len() as u64);
        for have in &self.have {
            have.encode_into(out);
        }
        write_leb128(out, self.chunk_count() as u64);
        self.encode_chunks(out);
        if let Some(Flags(bits)) = self.flags {
            out.extend([2, LEGACY_V2_FLAG, BIT_FIELD | bits]);
        }
    }

    fn encode_chunks(&self, out: &mut Vec<u8>) {
        if self.version == Version::V2 && !self.chunks.is_empty() {
            write_leb128(out, self.blob_len() as u64);
        }
        for chunk in &self.chunks {
            if self.version == Version::V1 {
                write_leb128(out, chunk.len() as u64);
            }
            out.extend_from_slice(chunk);
        }
    }

    fn chunk_count(&self) -> usize {
        match self.version {
            Version::V1 => self.chunks.len(),
            Version::V2 => self.chunks.len().min(1),
        }
    }

    fn blob_len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

impl Have {
    fn encoded_len(&self) -> usize {
        hashes_len(&self.last_sync) + prefixed_len(self.bloom.encoded_len())
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        write_hashes(out, &self.last_sync);
        write_leb128(out, self.bloom.encoded_len() as u64);
        self.bloom.encode(out);
    }
}

fn read_flags(trailer: &[u8]) -> Flags {
    let bits =
        trailer.iter().filter(|byte| *byte & BIT_FIELD != 0).fold(0, |bits, byte| bits | byte & !BIT_FIELD);
    Flags(bits)
}

fn hashes_len(hashes: &[ChangeHash]) -> usize {
    leb128_len(hashes.len() as u64) + 32 * hashes.len()
}

fn prefixed_len(len: usize) -> usize {
    leb128_len(len as u64) + len
}

fn leb128_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn write_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    debug_assert!(hashes.is_sorted(), "stock peers expect hashes in order");
    write_leb128(out, hashes.len() as u64);
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
}

/// Appends an unsigned LEB128 number.
pub(crate) fn write_leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes values off the front of bytes, without copying byte strings.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        if self.rest.is_empty() { Err(MessageError::Short) } else { Ok(self.rest.get_u8()) }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes> {
        if self.rest.len() < len { Err(MessageError::Short) } else { Ok(self.rest.split_to(len)) }
    }

    pub(crate) fn leb128(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(MessageError::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(MessageError::Number)
    }

    pub(crate) fn signed_leb128(&mut self) -> Result<i64> {
        let (mut value, mut shift) = (0i64, 0);
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(MessageError::Number);
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                let is_negative = byte & 0x40 != 0;
                return Ok(if is_negative && shift < 64 { value | -1 << shift } else { value });
            }
            if shift > 63 {
                return Err(MessageError::Number);
            }
        }
    }

    pub(crate) fn leb128_u32(&mut self) -> Result<u32> {
        u32::try_from(self.leb128()?).map_err(|_| MessageError::Number)
    }

    pub(crate) fn prefixed(&mut self) -> Result<Bytes> {
        let len = usize::try_from(self.leb128()?).map_err(|_| MessageError::Number)?;
        self.take(len)
    }

    pub(crate) fn hash(&mut self) -> Result<ChangeHash> {
        let mut hash = [0; 32];
        hash.copy_from_slice(&self.take(32)?);
        Ok(ChangeHash(hash))
    }

    fn hashes(&mut self, what: &'static str) -> Result<Vec<ChangeHash>> {
        self.list(what, MESSAGE_HASHES_MAX, Self::hash)
    }

    fn have(&mut self) -> Result<Have> {
        let last_sync = self.hashes("hashes of the last sync")?;
        Ok(Have { last_sync, bloom: BloomFilter::decode(self.prefixed()?)? })
    }

    /// A list with its length before it. Every entry takes at least a byte, so a length beyond the rest is refused before anything is allocated for it.
    fn list<T>(
        &mut self,
        what: &'static str,
        max: usize,
        read: impl Fn(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = usize::try_from(self.leb128()?).map_err(|_| MessageError::Number)?;
        if count > max {
            return Err(MessageError::TooMany { what, max });
        }
        if count > self.rest.len() {
            return Err(MessageError::Short);
        }
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use automerge::sync::{self as stock, ChunkList};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn hashes(max: usize) -> impl Strategy<Value = Vec<ChangeHash>> {
        vec(any::<[u8; 32]>(), 0..max).prop_map(|mut all| {
            all.sort_unstable();
            all.into_iter().map(ChangeHash).collect()
        })
    }

    prop_compose! {
        fn have()(last_sync in hashes(3), since in hashes(40)) -> Have {
            Have { last_sync, bloom: BloomFilter::from_hashes(since.iter()) }
        }
    }

    prop_compose! {
        fn message()(
            v2: bool, heads in hashes(4), need in hashes(4), have in vec(have(), 0..3),
            chunks in vec(vec(any::<u8>(), 1..300), 0..4), flags in proptest::option::of(0u8..8),
        ) -> Message {
            Message {
                version: if v2 { Version::V2 } else { Version::V1 },
                heads, need, have,
                chunks: chunks.into_iter().map(Bytes::from).collect(),
                flags: flags.map(Flags),
            }
        }
    }

    fn as_stock(message: &Message) -> stock::Message {
        let chunks = match message.version {
            Version::V1 => message.chunks.iter().map(|c| c.to_vec()).collect(),
            Version::V2 if message.chunks.is_empty() => vec![],
            Version::V2 => vec![message.chunks.concat()],
        };
        stock::Message {
            heads: message.heads.clone(),
            need: message.need.clone(),
            have: message
                .have
                .iter()
                .map(|have| {
                    let mut bloom = Vec::new();
                    have.bloom.encode(&mut bloom);
                    stock::Have { last_sync: have.last_sync.clone(), bloom: bloom[..].try_into().unwrap() }
                })
                .collect(),
            changes: ChunkList::from(chunks),
            flags: message.flags.map(|Flags(bits)| {
                let mut flags = stock::MessageFlags::new();
                flags.set(bits);
                flags
            }),
            version: match message.version {
                Version::V1 => stock::MessageVersion::V1,
                Version::V2 => stock::MessageVersion::V2,
            },
        }
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_stock_encoder(message in message()) {
            let bytes = message.encode();
            prop_assert_eq!(bytes.len(), message.encoded_len());
            prop_assert_eq!(&bytes[..], &as_stock(&message).encode()[..]);
            let read = Message::decode(bytes.clone()).unwrap();
            prop_assert_eq!(&read.encode(), &bytes);
            prop_assert_eq!((read.heads, read.need, read.have, read.flags), (message.heads, message.need, message.have, message.flags));
        }

        #[test]
        fn the_filter_is_the_stock_one(in_set in hashes(200), others in hashes(200)) {
            let ours = BloomFilter::from_hashes(in_set.iter());
            let stock = stock::BloomFilter::from_hashes(in_set.iter());
            for hash in in_set.iter().chain(&others) {
                prop_assert_eq!(ours.may_contain(hash), stock.contains_hash(hash));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(v2: bool, bytes in vec(any::<u8>(), 0..200)) {
            let mut input = vec![if v2 { TYPE_V2 } else { TYPE_V1 }];
            input.extend(bytes);
            if let Ok(message) = Message::decode(input.into()) {
                message.have.iter().for_each(|have| { have.bloom.may_contain(&ChangeHash([1; 32])); });
            }
        }
    }

    #[test]
    fn the_trailer_of_old_peers_is_read() {
        let mut bytes = Message {
            version: Version::V1,
            heads: vec![],
            need: vec![],
            have: vec![],
            chunks: vec![],
            flags: None,
        }
        .encode()
        .to_vec();
        assert_eq!(Message::decode(bytes.clone().into()).unwrap().flags, None);
        bytes.extend([2, 1, 2]);
        assert_eq!(Message::decode(bytes.into()).unwrap().flags, Some(Flags::default()));
    }

    #[test]
    fn a_filter_without_bits_is_refused() {
        let filter = Bytes::from_static(&[1, 0, 7]);
        assert_eq!(BloomFilter::decode(filter), Err(MessageError::Bloom("no bits")));
        let filter = Bytes::from_static(&[1, 10, 0xff, 0xff, 3]);
        assert_eq!(BloomFilter::decode(filter), Err(MessageError::Bloom("too many probes")));
    }

    #[test]
    fn lengths_beyond_the_message_allocate_nothing() {
        let mut bytes = vec![TYPE_V1];
        write_leb128(&mut bytes, 99_999);
        assert_eq!(Message::decode(bytes.into()), Err(MessageError::Short));
        let mut bytes = vec![TYPE_V1];
        write_leb128(&mut bytes, u64::MAX);
        assert!(matches!(Message::decode(bytes.into()), Err(MessageError::TooMany { .. })));
    }
}
