//! From bytes to messages.

use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::{Tag, Type};

use super::{Body, EXTENSION_KEY, Ephemeral, Message, PeerMetadata, Rejection, RemoteHeads};
use crate::id::{ChangeHash, DocumentId, InvalidDocumentId, InvalidId, PeerId, SessionId, StorageId};
use crate::limits::{
    EPHEMERAL_BYTES_MAX, HAVE_HASHES_MAX, PROTOCOL_VERSIONS_MAX, RECORDS_MAX, REMOTE_HEADS_MAX,
    REMOTE_STORAGES_MAX, SKIP_DEPTH_MAX, SUBSCRIPTIONS_MAX, TEXT_BYTES_MAX,
};

/// Why bytes are no message. Always the fault of the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not CBOR, or not of the shape that the field needs.
    #[error("not a valid CBOR message: {0}")]
    Cbor(String),
    /// Bytes after the end of the map.
    #[error("{0} bytes after the end of the message")]
    TrailingBytes(usize),
    /// A field that this kind of message cannot do without.
    #[error("field `{0}` is missing")]
    MissingField(&'static str),
    /// A field that is longer than allowed.
    #[error("field `{field}` is longer than {max}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How many bytes or entries are allowed.
        max: usize,
    },
    /// `data` without a byte; stock clients refuse such messages too.
    #[error("field `data` is empty")]
    EmptyData,
    /// `documentId` is no document id.
    #[error("field `documentId`: {0}")]
    DocumentId(#[from] InvalidDocumentId),
    /// A peer, storage or session id is not acceptable.
    #[error("field `{field}`: {error}")]
    Id {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        error: InvalidId,
    },
    /// A head that is no base58check text of 32 bytes, or a hash that is no hex text of 32 bytes.
    #[error("field `{0}` holds a text that is no change hash")]
    Hash(&'static str),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Cbor(error.to_string())
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// "A record, with its keys": how `cbor-x` writes objects unless told not to, as clients of automerge-repo 1.x did not.
/// An array of the record's number, the list of keys, and the values.
const RECORD_TAG: u64 = 57_343;
/// Records that were written before are tagged with their number: an array of the values.
const RECORD_NUMBERS: std::ops::Range<u64> = 0xe000..0xf000;

/// A decoder that remembers the shapes of records.
struct Input<'b> {
    decoder: Decoder<'b>,
    records: Vec<(u64, Vec<&'b str>)>,
}

impl<'b> std::ops::Deref for Input<'b> {
    type Target = Decoder<'b>;

    fn deref(&self) -> &Decoder<'b> {
        &self.decoder
    }
}

impl std::ops::DerefMut for Input<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.decoder
    }
}

impl Message {
    /// Reads one frame. Byte strings are slices of `frame`, not copies.
    pub fn decode(frame: &Bytes) -> Result<Self> {
        let mut fields = Fields::default();
        let mut decoder = Input { decoder: Decoder::new(frame), records: Vec::new() };
        for_each_key(&mut decoder, |key, d| fields.read(key, d, frame))?;
        let rest = frame.len() - decoder.position();
        if rest > 0 {
            return Err(DecodeError::TrailingBytes(rest));
        }
        fields.into_message()
    }
}

/// All fields that any kind of message has.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    sender: Option<PeerId>,
    target: Option<PeerId>,
    document: Option<DocumentId>,
    data: Option<Bytes>,
    metadata: Option<PeerMetadata>,
    versions: Option<Vec<String>>,
    selected_version: Option<String>,
    message: Option<String>,
    count: Option<u64>,
    session: Option<SessionId>,
    add: Option<Vec<StorageId>>,
    remove: Option<Vec<StorageId>>,
    new_heads: Option<Vec<RemoteHeads>>,
    rejected: Option<Vec<Rejection>>,
    query: Option<u64>,
    hashes: Option<Vec<ChangeHash>>,
    durable: Option<Vec<ChangeHash>>,
    missing: Option<Vec<ChangeHash>>,
}

impl Fields {
    fn read(&mut self, key: &str, d: &mut Input<'_>, frame: &Bytes) -> Result<()> {
        match key {
            "type" => self.kind = Some(text(d, "type")?.to_owned()),
            "senderId" => self.sender = Some(id(d, "senderId", PeerId::new)?),
            "targetId" => self.target = optional(d, |d| id(d, "targetId", PeerId::new))?,
            "documentId" => self.document = Some(document_id(d)?),
            "data" => self.data = Some(bytes(d, frame)?),
            "peerMetadata" => self.metadata = optional(d, peer_metadata)?,
            // Written by some clients, as the protocol's description has it.
            "metadata" if self.metadata.is_none() => self.metadata = optional(d, peer_metadata)?,
            "supportedProtocolVersions" => self.versions = optional(d, versions)?,
            "selectedProtocolVersion" => {
                self.selected_version = optional(d, |d| text(d, "type").map(str::to_owned))?
            }
            "message" => self.message = optional(d, |d| text(d, "message").map(str::to_owned))?,
            "count" => self.count = Some(unsigned(d)?),
            "sessionId" => self.session = Some(id(d, "sessionId", SessionId::new)?),
            "add" => self.add = optional(d, |d| storages(d, "add"))?,
            "remove" => self.remove = optional(d, |d| storages(d, "remove"))?,
            "newHeads" => self.new_heads = Some(remote_heads(d)?),
            "rejected" => self.rejected = optional(d, rejections)?,
            "query" => self.query = Some(unsigned(d)?),
            "hashes" => self.hashes = Some(hashes(d, "hashes")?),
            "durable" => self.durable = Some(hashes(d, "durable")?),
            "missing" => self.missing = Some(hashes(d, "missing")?),
            _ => skip(d, SKIP_DEPTH_MAX)?,
        }
        Ok(())
    }

    fn into_message(mut self) -> Result<Message> {
        let kind = self.kind.take().ok_or(DecodeError::MissingField("type"))?;
        let (sender, target) = (self.sender.take(), self.target.take());
        let body = self.into_body(kind)?;
        if sender.is_none() && !matches!(body, Body::Error { .. } | Body::Unknown { .. }) {
            return Err(DecodeError::MissingField("senderId"));
        }
        Ok(Message { sender, target, body })
    }

    fn into_body(self, kind: String) -> Result<Body> {
        Ok(match kind.as_str() {
            "sync" => Body::Sync { document: self.document()?, data: self.data()? },
            "request" => Body::Request { document: self.document()?, data: self.data()? },
            "ephemeral" => Body::Ephemeral(self.into_ephemeral()?),
            "doc-unavailable" => Body::DocUnavailable { document: self.document()? },
            "join" => Body::Join {
                metadata: self.metadata.unwrap_or_default(),
                versions: self.versions.unwrap_or_else(|| vec![super::PROTOCOL_VERSION.to_owned()]),
            },
            "peer" => Body::Peer {
                metadata: self.metadata.unwrap_or_default(),
                version: self.selected_version.unwrap_or_else(|| super::PROTOCOL_VERSION.to_owned()),
            },
            "error" => Body::Error { message: self.message.unwrap_or_default() },
            "leave" => Body::Leave,
            "remote-subscription-change" => Body::RemoteSubscriptionChange {
                add: self.add.unwrap_or_default(),
                remove: self.remove.unwrap_or_default(),
            },
            "remote-heads-changed" => Body::RemoteHeadsChanged {
                document: self.document()?,
                heads: self.new_heads.ok_or(DecodeError::MissingField("newHeads"))?,
            },
            "highwater-rejected" => {
                Body::Rejected { document: self.document()?, changes: self.rejected.unwrap_or_default() }
            }
            "highwater-have" => Body::Have {
                document: self.document()?,
                query: self.query.unwrap_or(0),
                hashes: self.hashes.ok_or(DecodeError::MissingField("hashes"))?,
            },
            "highwater-durable" => Body::Durable {
                document: self.document()?,
                query: self.query.unwrap_or(0),
                durable: self.durable.unwrap_or_default(),
                missing: self.missing.unwrap_or_default(),
            },
            _ => Body::Unknown { kind },
        })
    }

    fn into_ephemeral(self) -> Result<Ephemeral> {
        let data = self.data()?;
        if data.len() > EPHEMERAL_BYTES_MAX {
            return Err(DecodeError::TooLong { field: "data", max: EPHEMERAL_BYTES_MAX });
        }
        Ok(Ephemeral {
            document: self.document()?,
            count: self.count.ok_or(DecodeError::MissingField("count"))?,
            session: self.session.ok_or(DecodeError::MissingField("sessionId"))?,
            data,
        })
    }

    fn document(&self) -> Result<DocumentId> {
        self.document.ok_or(DecodeError::MissingField("documentId"))
    }

    fn data(&self) -> Result<Bytes> {
        let data = self.data.clone().ok_or(DecodeError::MissingField("data"))?;
        if data.is_empty() { Err(DecodeError::EmptyData) } else { Ok(data) }
    }
}

/// Calls `each` for every key of a map, of known or unknown length, or of a record.
fn for_each_key<'b>(
    d: &mut Input<'b>,
    mut each: impl FnMut(&'b str, &mut Input<'b>) -> Result<()>,
) -> Result<()> {
    if d.datatype()? == Type::Tag {
        return record_keys(d)?.into_iter().try_for_each(|key| each(key, d));
    }
    let mut left = d.map()?;
    while more(d, &mut left)? {
        let key = d.str()?;
        each(key, d)?;
    }
    Ok(())
}

/// The keys of a record; its values come next, in the same order.
fn record_keys<'b>(d: &mut Input<'b>) -> Result<Vec<&'b str>> {
    let bad = || DecodeError::Cbor("a record is malformed".to_owned());
    let tag = d.tag()?.as_u64();
    let entries = d.array()?.ok_or_else(bad)?;
    if RECORD_NUMBERS.contains(&tag) {
        let known = d.records.iter().find(|(number, _)| *number == tag).ok_or_else(bad)?;
        return if known.1.len() as u64 == entries { Ok(known.1.clone()) } else { Err(bad()) };
    }
    if tag != RECORD_TAG || d.records.len() == RECORDS_MAX {
        return Err(bad());
    }
    let number = d.u64()?;
    let keys = list(d, "keys of a record", RECORDS_MAX, |d| Ok(d.str()?))?;
    if keys.len() as u64 + 2 != entries {
        return Err(bad());
    }
    d.records.push((number, keys.clone()));
    Ok(keys)
}

/// Collects an array of known or unknown length, with at most `max` entries.
fn list<'b, T>(
    d: &mut Input<'b>,
    field: &'static str,
    max: usize,
    mut each: impl FnMut(&mut Input<'b>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut left = d.array()?;
    let mut entries = Vec::new();
    while more(d, &mut left)? {
        if entries.len() == max {
            return Err(DecodeError::TooLong { field, max });
        }
        entries.push(each(d)?);
    }
    Ok(entries)
}

/// Whether a container has another entry; takes the break that ends one of unknown length.
fn more(d: &mut Input<'_>, left: &mut Option<u64>) -> Result<bool> {
    match left {
        Some(0) => Ok(false),
        Some(n) => {
            *n -= 1;
            Ok(true)
        }
        None if d.datatype()? == Type::Break => {
            d.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Passes over a value of any kind, down to a depth.
fn skip(d: &mut Input<'_>, depth: usize) -> Result<()> {
    let deeper =
        depth.checked_sub(1).ok_or(DecodeError::TooLong { field: "nested value", max: SKIP_DEPTH_MAX })?;
    let entries = match d.datatype()? {
        Type::Array | Type::ArrayIndef => (d.array()?, 1),
        Type::Map | Type::MapIndef => (d.map()?, 2),
        Type::Tag => {
            d.tag()?;
            return skip(d, deeper);
        }
        // Everything else has nothing inside.
        _ => return Ok(d.skip()?),
    };
    let (mut left, values) = entries;
    while more(d, &mut left)? {
        (0..values).try_for_each(|_| skip(d, deeper))?;
    }
    Ok(())
}

/// `undefined` and `null` stand for absent: stock clients send keys without a value as `undefined`.
fn optional<'b, T>(d: &mut Input<'b>, read: impl FnOnce(&mut Input<'b>) -> Result<T>) -> Result<Option<T>> {
    if matches!(d.datatype()?, Type::Null | Type::Undefined) {
        d.skip()?;
        return Ok(None);
    }
    read(d).map(Some)
}

fn text<'b>(d: &mut Input<'b>, field: &'static str) -> Result<&'b str> {
    let text = d.str()?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(DecodeError::TooLong { field, max: TEXT_BYTES_MAX });
    }
    Ok(text)
}

fn id<T>(
    d: &mut Input<'_>,
    field: &'static str,
    new: fn(&str) -> std::result::Result<T, InvalidId>,
) -> Result<T> {
    new(d.str()?).map_err(|error| DecodeError::Id { field, error })
}

/// A text by the protocol; some peers send the 16 bytes.
fn document_id(d: &mut Input<'_>) -> Result<DocumentId> {
    Ok(match d.datatype()? {
        Type::String => d.str()?.parse()?,
        _ => DocumentId::try_from(d.bytes()?)?,
    })
}

/// A byte string as a slice of the frame. Tag 64 ("typed array of bytes") is what some encoders put before it.
fn bytes(d: &mut Input<'_>, frame: &Bytes) -> Result<Bytes> {
    if d.datatype()? == Type::Tag && d.tag()? != Tag::new(64) {
        return Err(DecodeError::Cbor("field `data` has an unknown tag".to_owned()));
    }
    Ok(frame.slice_ref(d.bytes()?))
}

/// JavaScript writes numbers above 2^32 as floats.
fn number(d: &mut Input<'_>) -> Result<f64> {
    Ok(match d.datatype()? {
        Type::F16 => f64::from(d.f16()?),
        Type::F32 => f64::from(d.f32()?),
        Type::F64 => d.f64()?,
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => d.u64()? as f64,
        _ => d.i64()? as f64,
    })
}

fn unsigned(d: &mut Input<'_>) -> Result<u64> {
    let number = number(d)?;
    if number.is_finite() && number >= 0.0 {
        Ok(number as u64)
    } else {
        Err(DecodeError::Cbor("expected a number that is not negative".to_owned()))
    }
}

fn versions(d: &mut Input<'_>) -> Result<Vec<String>> {
    list(d, "supportedProtocolVersions", PROTOCOL_VERSIONS_MAX, |d| {
        text(d, "supportedProtocolVersions").map(str::to_owned)
    })
}

fn storages(d: &mut Input<'_>, field: &'static str) -> Result<Vec<StorageId>> {
    list(d, field, SUBSCRIPTIONS_MAX, |d| id(d, field, StorageId::new))
}

fn peer_metadata(d: &mut Input<'_>) -> Result<PeerMetadata> {
    let mut metadata = PeerMetadata::default();
    for_each_key(d, |key, d| {
        match key {
            "storageId" => metadata.storage_id = optional(d, |d| id(d, "storageId", StorageId::new))?,
            "isEphemeral" => metadata.is_ephemeral = optional(d, |d| Ok(d.bool()?))?.unwrap_or(false),
            EXTENSION_KEY => metadata.extension = optional(d, unsigned)?.and_then(|v| u32::try_from(v).ok()),
            _ => skip(d, SKIP_DEPTH_MAX)?,
        }
        Ok(())
    })?;
    Ok(metadata)
}

fn remote_heads(d: &mut Input<'_>) -> Result<Vec<RemoteHeads>> {
    let mut all = Vec::new();
    for_each_key(d, |storage, d| {
        if all.len() == REMOTE_STORAGES_MAX {
            return Err(DecodeError::TooLong { field: "newHeads", max: REMOTE_STORAGES_MAX });
        }
        let storage =
            StorageId::new(storage).map_err(|error| DecodeError::Id { field: "newHeads", error })?;
        let mut entry = RemoteHeads { storage, heads: Vec::new(), timestamp: 0.0 };
        for_each_key(d, |key, d| {
            match key {
                "heads" => entry.heads = list(d, "heads", REMOTE_HEADS_MAX, head)?,
                "timestamp" => entry.timestamp = number(d)?,
                _ => skip(d, SKIP_DEPTH_MAX)?,
            }
            Ok(())
        })?;
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}

/// A change hash in base58check, as automerge-repo writes heads.
fn head(d: &mut Input<'_>) -> Result<ChangeHash> {
    let mut buffer = [0u8; 36];
    let text = d.str()?;
    match bs58::decode(text).with_check(None).onto(&mut buffer) {
        Ok(32) => ChangeHash::try_from(&buffer[..32]).map_err(|_| DecodeError::Hash("heads")),
        _ => Err(DecodeError::Hash("heads")),
    }
}

/// Change hashes in hex.
fn hashes(d: &mut Input<'_>, field: &'static str) -> Result<Vec<ChangeHash>> {
    list(d, field, HAVE_HASHES_MAX, |d| d.str()?.parse().map_err(|_| DecodeError::Hash(field)))
}

fn rejections(d: &mut Input<'_>) -> Result<Vec<Rejection>> {
    list(d, "rejected", crate::limits::REJECTED_MAX, |d| {
        let (mut hash, mut reason) = (None, String::new());
        for_each_key(d, |key, d| {
            match key {
                "hash" => hash = Some(d.str()?.parse().map_err(|_| DecodeError::Hash("rejected"))?),
                "reason" => reason = text(d, "reason")?.to_owned(),
                _ => skip(d, SKIP_DEPTH_MAX)?,
            }
            Ok(())
        })?;
        Ok(Rejection { hash: hash.ok_or(DecodeError::MissingField("hash"))?, reason })
    })
}
