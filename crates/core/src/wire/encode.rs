//! From messages to bytes.

use std::convert::Infallible;

use bytes::Bytes;
use minicbor::Encoder;

use super::{
    Body, EXTENSION_KEY, Ephemeral, Message, PROTOCOL_VERSION, PeerMetadata, Rejection, RemoteHeads,
};
use crate::id::{ChangeHash, DocumentId, PeerId, StorageId};

type Out = Encoder<Vec<u8>>;
type Result = std::result::Result<(), minicbor::encode::Error<Infallible>>;

/// Largest size of a frame apart from what varies: type, keys, ids.
const FRAME_OVERHEAD: usize = 1024;

impl Message {
    /// The frame for this message.
    pub fn encode(&self) -> Bytes {
        let mut e = Encoder::new(Vec::with_capacity(256));
        let sender = self.sender.as_ref();
        let target = self.target.as_ref();
        let written = encode_body(&mut e, sender, target, &self.body);
        finish(e, written)
    }
}

/// The frame of a `sync` message whose payload of `len` bytes is written by `write`, without a copy in between.
///
/// `document` is the document's id as a text: making it costs two hashes and a long division, once per document and not per frame.
pub fn encode_sync(
    sender: &PeerId,
    target: &PeerId,
    document: &str,
    len: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let mut e = Encoder::new(Vec::with_capacity(len + FRAME_OVERHEAD));
    let written = encode_head(&mut e, "sync", Some(sender), Some(target), 2).and_then(|()| {
        e.str("documentId")?.str(document)?;
        e.str("data")?.bytes_len(len as u64)?;
        let before = e.writer().len();
        write(e.writer_mut());
        debug_assert_eq!(e.writer().len() - before, len, "the payload has the announced length");
        Ok(())
    });
    finish(e, written)
}

/// Writing to a vector cannot fail, and no type here has an encoding that can.
fn finish(e: Out, written: Result) -> Bytes {
    debug_assert!(written.is_ok(), "{written:?}");
    e.into_writer().into()
}

fn encode_body(e: &mut Out, sender: Option<&PeerId>, target: Option<&PeerId>, body: &Body) -> Result {
    match body {
        Body::Join { metadata, versions } => {
            encode_head(e, "join", sender, target, 2)?;
            encode_metadata(e, metadata)?;
            e.str("supportedProtocolVersions")?.array(versions.len() as u64)?;
            versions.iter().try_for_each(|version| e.str(version).map(drop))
        }
        Body::Peer { metadata, version } => {
            encode_head(e, "peer", sender, target, 2)?;
            encode_metadata(e, metadata)?;
            e.str("selectedProtocolVersion")?.str(version).map(drop)
        }
        Body::Error { message } => {
            encode_head(e, "error", sender, target, 1)?;
            e.str("message")?.str(message).map(drop)
        }
        Body::Request { document, data } => encode_data(e, "request", sender, target, *document, data),
        Body::Sync { document, data } => encode_data(e, "sync", sender, target, *document, data),
        Body::DocUnavailable { document } => {
            encode_head(e, "doc-unavailable", sender, target, 1)?;
            encode_document(e, *document)
        }
        Body::Ephemeral(ephemeral) => encode_ephemeral(e, sender, target, ephemeral),
        Body::RemoteSubscriptionChange { add, remove } => {
            encode_head(e, "remote-subscription-change", sender, target, 2)?;
            encode_storages(e, "add", add)?;
            encode_storages(e, "remove", remove)
        }
        Body::RemoteHeadsChanged { document, heads } => {
            encode_head(e, "remote-heads-changed", sender, target, 2)?;
            encode_document(e, *document)?;
            encode_remote_heads(e, heads)
        }
        Body::Leave => encode_head(e, "leave", sender, target, 0),
        Body::Rejected { document, changes } => {
            encode_head(e, "highwater-rejected", sender, target, 2)?;
            encode_document(e, *document)?;
            encode_rejections(e, changes)
        }
        Body::Have { document, query, hashes } => {
            encode_head(e, "highwater-have", sender, target, 3)?;
            encode_query(e, *document, *query)?;
            encode_hashes(e, "hashes", hashes)
        }
        Body::Durable { document, query, durable, missing } => {
            encode_head(e, "highwater-durable", sender, target, 4)?;
            encode_query(e, *document, *query)?;
            encode_hashes(e, "durable", durable)?;
            encode_hashes(e, "missing", missing)
        }
        Body::Unknown { kind } => encode_head(e, kind, sender, target, 0),
    }
}

/// Opens the map: type, ids, and room for `more` entries.
fn encode_head(
    e: &mut Out,
    kind: &str,
    sender: Option<&PeerId>,
    target: Option<&PeerId>,
    more: u64,
) -> Result {
    let ids = [("senderId", sender), ("targetId", target)];
    let ids = ids.iter().filter_map(|(key, id)| id.map(|id| (key, id)));
    e.map(1 + ids.clone().count() as u64 + more)?.str("type")?.str(kind)?;
    ids.into_iter().try_for_each(|(key, id)| e.str(key)?.str(id.as_str()).map(drop))
}

fn encode_document(e: &mut Out, document: DocumentId) -> Result {
    e.str("documentId")?.str(&document.to_string()).map(drop)
}

fn encode_data(
    e: &mut Out,
    kind: &str,
    sender: Option<&PeerId>,
    target: Option<&PeerId>,
    document: DocumentId,
    data: &Bytes,
) -> Result {
    encode_head(e, kind, sender, target, 2)?;
    encode_document(e, document)?;
    e.str("data")?.bytes(data).map(drop)
}

fn encode_ephemeral(
    e: &mut Out,
    sender: Option<&PeerId>,
    target: Option<&PeerId>,
    ephemeral: &Ephemeral,
) -> Result {
    encode_head(e, "ephemeral", sender, target, 4)?;
    encode_document(e, ephemeral.document)?;
    e.str("count")?;
    encode_number(e, ephemeral.count as f64)?;
    e.str("sessionId")?.str(ephemeral.session.as_str())?;
    e.str("data")?.bytes(&ephemeral.data).map(drop)
}

/// Small whole numbers as integers, all others as floats: a 64-bit integer would become a `BigInt`.
fn encode_number(e: &mut Out, number: f64) -> Result {
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        e.u32(number as u32).map(drop)
    } else {
        e.f64(number).map(drop)
    }
}

fn encode_metadata(e: &mut Out, metadata: &PeerMetadata) -> Result {
    let entries = 1 + u64::from(metadata.storage_id.is_some()) + u64::from(metadata.extension.is_some());
    e.str("peerMetadata")?.map(entries)?;
    if let Some(storage) = &metadata.storage_id {
        e.str("storageId")?.str(storage.as_str())?;
    }
    if let Some(version) = metadata.extension {
        e.str(EXTENSION_KEY)?.u32(version)?;
    }
    e.str("isEphemeral")?.bool(metadata.is_ephemeral).map(drop)
}

fn encode_storages(e: &mut Out, key: &str, storages: &[StorageId]) -> Result {
    e.str(key)?.array(storages.len() as u64)?;
    storages.iter().try_for_each(|storage| e.str(storage.as_str()).map(drop))
}

fn encode_remote_heads(e: &mut Out, all: &[RemoteHeads]) -> Result {
    e.str("newHeads")?.map(all.len() as u64)?;
    for entry in all {
        e.str(entry.storage.as_str())?.map(2)?;
        e.str("heads")?.array(entry.heads.len() as u64)?;
        for head in &entry.heads {
            e.str(&bs58::encode(head.0).with_check().into_string())?;
        }
        e.str("timestamp")?.f64(entry.timestamp)?;
    }
    Ok(())
}

fn encode_rejections(e: &mut Out, rejections: &[Rejection]) -> Result {
    e.str("rejected")?.array(rejections.len() as u64)?;
    for rejection in rejections {
        e.map(2)?.str("hash")?.str(&rejection.hash.to_string())?;
        e.str("reason")?.str(&rejection.reason)?;
    }
    Ok(())
}

fn encode_query(e: &mut Out, document: DocumentId, query: u64) -> Result {
    encode_document(e, document)?;
    e.str("query")?;
    encode_number(e, query as f64)
}

fn encode_hashes(e: &mut Out, key: &str, hashes: &[ChangeHash]) -> Result {
    e.str(key)?.array(hashes.len() as u64)?;
    hashes.iter().try_for_each(|hash| e.str(&hash.to_string()).map(drop))
}

/// The `peer` message with which a server answers `join`.
pub fn encode_peer(sender: &PeerId, target: &PeerId, metadata: PeerMetadata) -> Bytes {
    let body = Body::Peer { metadata, version: PROTOCOL_VERSION.to_owned() };
    Message { sender: Some(sender.clone()), target: Some(target.clone()), body }.encode()
}
