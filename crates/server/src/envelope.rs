//! What a document says, as the frames that go to one of its peers: in the protocol of automerge-repo, or in the plain one.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use highwater_core::sync::Message as SyncMessage;
use highwater_core::wire::{Body, Ephemeral, Message, Rejection, RemoteHeads, encode_sync};
use highwater_core::{ChangeHash, DocumentId, PeerId};
use serde_json::json;

use crate::outbox::Frame;

/// How a connection is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// That of automerge-repo, perhaps with our extension.
    Repo { has_extension: bool },
    /// Bare sync messages, and control messages in JSON.
    Plain,
}

/// From whom to whom about which document.
pub(crate) struct Envelope<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) ours: &'a PeerId,
    pub(crate) target: &'a PeerId,
    pub(crate) document: DocumentId,
    /// The document's id as it is written into every frame.
    pub(crate) document_text: &'a str,
}

impl Envelope<'_> {
    /// A sync message.
    pub(crate) fn sync(&self, data: &Bytes) -> Frame {
        match self.protocol {
            Protocol::Plain => data.clone().into(),
            Protocol::Repo { .. } => {
                let write = |out: &mut Vec<u8>| out.extend_from_slice(data);
                encode_sync(self.ours, self.target, self.document_text, data.len(), write).into()
            }
        }
    }

    /// There is no such document. In the plain protocol a document without changes says as much.
    pub(crate) fn unavailable(&self) -> Option<Frame> {
        self.repo(self.ours.clone(), Body::DocUnavailable { document: self.document })
    }

    /// The document was deleted. Clients of automerge-repo know no other word for that than that it is not there.
    pub(crate) fn deleted(&self) -> Option<Frame> {
        match self.protocol {
            Protocol::Repo { .. } => self.unavailable(),
            Protocol::Plain => Some(text(&json!({ "deleted": true }))),
        }
    }

    /// What another peer said to all.
    pub(crate) fn ephemeral(&self, sender: PeerId, ephemeral: Ephemeral) -> Option<Frame> {
        self.repo(sender, Body::Ephemeral(ephemeral))
    }

    /// What other storages have.
    pub(crate) fn remote_heads(&self, heads: Vec<RemoteHeads>) -> Option<Frame> {
        self.repo(self.ours.clone(), Body::RemoteHeadsChanged { document: self.document, heads })
    }

    /// Changes that were refused. Clients that do not know of the extension are not told: some close the connection on what they do not know.
    pub(crate) fn rejected(&self, changes: Vec<Rejection>) -> Option<Frame> {
        match self.protocol {
            Protocol::Repo { has_extension: false } => None,
            Protocol::Repo { has_extension: true } => {
                self.repo(self.ours.clone(), Body::Rejected { document: self.document, changes })
            }
            Protocol::Plain => Some(text(&json!({ "rejected": rejections(&changes) }))),
        }
    }

    /// The answer to whether changes are durable.
    pub(crate) fn durable(&self, query: u64, durable: Vec<ChangeHash>, missing: Vec<ChangeHash>) -> Frame {
        let document = self.document;
        match self.protocol {
            Protocol::Repo { .. } => {
                self.message(self.ours.clone(), Body::Durable { document, query, durable, missing })
            }
            Protocol::Plain => {
                text(&json!({ "durable": hashes(&durable), "missing": hashes(&missing), "query": query }))
            }
        }
    }

    fn repo(&self, sender: PeerId, body: Body) -> Option<Frame> {
        (self.protocol != Protocol::Plain).then(|| self.message(sender, body))
    }

    fn message(&self, sender: PeerId, body: Body) -> Frame {
        Message { sender: Some(sender), target: Some(self.target.clone()), body }.encode().into()
    }
}

/// Hashes as JSON has them: hex texts.
pub(crate) fn hashes(hashes: &[ChangeHash]) -> Vec<String> {
    hashes.iter().map(ChangeHash::to_string).collect()
}

/// Refused changes as JSON has them.
pub(crate) fn rejections(changes: &[Rejection]) -> serde_json::Value {
    changes.iter().map(|change| json!({ "hash": change.hash.to_string(), "reason": change.reason })).collect()
}

/// A control message of the plain protocol.
pub(crate) fn text(value: &serde_json::Value) -> Frame {
    Frame::Text(Utf8Bytes::from(value.to_string()))
}

/// A sync message as it was encoded.
#[derive(Clone)]
pub(crate) struct Payload(Arc<Encoded>);

struct Encoded {
    message: SyncMessage,
    data: Bytes,
}

impl Payload {
    /// The bytes of a message: those of the last one, if it said the same.
    pub(crate) fn of(last: Option<&Self>, message: SyncMessage) -> Self {
        match last.filter(|last| is_same(&last.0.message, &message)) {
            Some(same) => same.clone(),
            None => Self(Arc::new(Encoded { data: message.encode(), message })),
        }
    }

    pub(crate) fn data(&self) -> &Bytes {
        &self.0.data
    }
}

/// Whether two messages are the same. Changes that lie in different places of memory count as different ones: looking at them would cost more than it saves.
fn is_same(a: &SyncMessage, b: &SyncMessage) -> bool {
    let is_same_chunk = |(a, b): (&Bytes, &Bytes)| a.as_ptr() == b.as_ptr() && a.len() == b.len();
    a.version == b.version
        && a.flags == b.flags
        && a.heads == b.heads
        && a.need == b.need
        && a.have == b.have
        && a.chunks.len() == b.chunks.len()
        && a.chunks.iter().zip(&b.chunks).all(is_same_chunk)
}
