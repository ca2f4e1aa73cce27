//! The automerge-repo protocol, version 1: one CBOR map per binary WebSocket frame.
//!
//! What stock clients really send differs from the protocol's description in places; each such place is noted at the field. Reading is
//! lenient in form (map lengths of any width, `undefined` or `null` for anything optional, tag 64 before byte strings, keys in any order, unknown keys)
//! and strict in content (types, sizes, ids). Writing uses the shortest forms, and never 64-bit integers, which
//! `cbor-x` turns into `BigInt`.

mod decode;
mod encode;

use bytes::Bytes;

use crate::id::{ChangeHash, DocumentId, PeerId, SessionId, StorageId};

pub use decode::DecodeError;
pub use encode::{encode_peer, encode_sync};

/// The key in `peerMetadata` by which a client asks for Highwater's extensions, and by which the server says that it has them.
pub const EXTENSION_KEY: &str = "highwater";
/// The version of the extensions, the value of [`EXTENSION_KEY`].
pub const EXTENSION_VERSION: u32 = 1;
/// The only protocol version there is.
pub const PROTOCOL_VERSION: &str = "1";

/// A message of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// `senderId`. Only `error` may lack it.
    pub sender: Option<PeerId>,
    /// `targetId`, as far as there is one.
    pub target: Option<PeerId>,
    /// What is said.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `join`: the first message of a client.
    Join {
        /// `peerMetadata`; some clients write `metadata`.
        metadata: PeerMetadata,
        /// `supportedProtocolVersions`; absent means version 1.
        versions: Vec<String>,
    },
    /// `peer`: the server's answer to `join`.
    Peer {
        /// `peerMetadata`
        metadata: PeerMetadata,
        /// `selectedProtocolVersion`
        version: String,
    },
    /// `error`: what went wrong, for people.
    Error {
        /// The text.
        message: String,
    },
    /// `request`: a sync message of a client that has nothing of the document and wants to know whether it exists.
    Request {
        /// Which document.
        document: DocumentId,
        /// The sync message.
        data: Bytes,
    },
    /// `sync`: a sync message.
    Sync {
        /// Which document.
        document: DocumentId,
        /// The sync message.
        data: Bytes,
    },
    /// `doc-unavailable`: the sender does not have the document.
    DocUnavailable {
        /// Which document.
        document: DocumentId,
    },
    /// `ephemeral`: a message to everybody who has the document open; not stored.
    Ephemeral(Ephemeral),
    /// `remote-subscription-change`: the sender wants to hear of the heads of these storages.
    RemoteSubscriptionChange {
        /// Storages to add.
        add: Vec<StorageId>,
        /// Storages to remove.
        remove: Vec<StorageId>,
    },
    /// `remote-heads-changed`: what storages are known to have of a document.
    RemoteHeadsChanged {
        /// Which document.
        document: DocumentId,
        /// Per storage, what it has.
        heads: Vec<RemoteHeads>,
    },
    /// `leave`: in the protocol's description, no longer sent by clients.
    Leave,
    /// Highwater's extension `highwater-rejected`: changes that will never be part of the document.
    Rejected {
        /// Which document.
        document: DocumentId,
        /// The changes, each with the reason.
        changes: Vec<Rejection>,
    },
    /// Highwater's extension `highwater-have`: the sender asks whether changes are durable.
    Have {
        /// Of which document.
        document: DocumentId,
        /// Comes back in the answer.
        query: u64,
        /// Their hashes; hex texts on the wire.
        hashes: Vec<ChangeHash>,
    },
    /// Highwater's extension `highwater-durable`: the answer.
    Durable {
        /// Of which document.
        document: DocumentId,
        /// As in the question.
        query: u64,
        /// Those that are durable and part of the document.
        durable: Vec<ChangeHash>,
        /// Those that are not, or not yet.
        missing: Vec<ChangeHash>,
    },
    /// A message of a kind that we do not know. It is ignored.
    Unknown {
        /// Its `type`, cut to a sane length.
        kind: String,
    },
}

/// What peers tell about themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// Names the durable storage behind the peer.
    pub storage_id: Option<StorageId>,
    /// The peer keeps nothing; nobody should keep anything about it.
    pub is_ephemeral: bool,
    /// The version of Highwater's extensions that the peer wants or has.
    pub extension: Option<u32>,
}

/// An ephemeral message: passed on word for word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// The document that it is about.
    pub document: DocumentId,
    /// Counts up within a session; receivers drop what is not newer.
    pub count: u64,
    /// The session of the originator.
    pub session: SessionId,
    /// The payload; CBOR by convention, never looked at.
    pub data: Bytes,
}

/// What a storage has of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads {
    /// The storage.
    pub storage: StorageId,
    /// The heads; base58check texts on the wire.
    pub heads: Vec<ChangeHash>,
    /// When, in milliseconds since 1970 by the clock of whoever said it first; a float on the wire.
    pub timestamp: f64,
}

/// A change that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The hash of the change; a hex text on the wire.
    pub hash: ChangeHash,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests;
