//! One connection: who is at the other end, and what each of its messages asks for.
//!
//! A session turns frames into [`Input`]s. It knows nothing of documents' contents; the driver hands the inputs on to the documents that they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::document::PeerFault;
use crate::id::{ChangeHash, DocumentId, PeerId, StorageId};
use crate::limits::{CONNECTION_DOCUMENTS_MAX, FRAME_BYTES_MAX, JOIN_BYTES_MAX, SUBSCRIPTIONS_MAX};
use crate::wire::{
    Body, DecodeError, EXTENSION_VERSION, Ephemeral, Message, PROTOCOL_VERSION, PeerMetadata, RemoteHeads,
    encode_peer,
};

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    ours: PeerId,
    metadata: PeerMetadata,
    joined: Option<Joined>,
}

#[derive(Debug)]
struct Joined {
    peer: PeerId,
    metadata: PeerMetadata,
    documents: BTreeSet<DocumentId>,
    subscriptions: Arc<BTreeSet<StorageId>>,
}

/// What a frame asks for.
#[derive(Debug, PartialEq)]
pub enum Input {
    /// The peer said who it is. Whatever it had open on this connection is closed; another connection of the same peer is replaced by this one.
    Joined {
        /// The `peer` message to send before anything else.
        reply: Bytes,
    },
    /// A sync message. The first one for a document opens it.
    Sync {
        /// Which document.
        document: DocumentId,
        /// The sync message.
        data: Bytes,
        /// Whether the peer wants to be told if the document does not exist.
        is_request: bool,
    },
    /// An ephemeral message for a document that the peer has open.
    Ephemeral(Ephemeral),
    /// The set of storages that the peer follows is now this.
    Subscriptions(Arc<BTreeSet<StorageId>>),
    /// What the peer heard of other storages, about a document that it has open.
    RemoteHeads {
        /// Which document.
        document: DocumentId,
        /// What it heard.
        heads: Vec<RemoteHeads>,
    },
    /// The peer asks which changes are durable. The first question about a document opens it, as a sync message does.
    Have {
        /// Of which document.
        document: DocumentId,
        /// Comes back in the answer.
        query: u64,
        /// The changes.
        hashes: Vec<ChangeHash>,
    },
    /// Nothing to do.
    Nothing,
    /// The peer goes.
    Leave,
}

/// Why a connection is closed. Sorted by whose fault it is; [`close_code`](CloseReason::close_code) says how the peer is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    // The peer's fault: trying again as before will not help.
    /// A frame that is no message of the protocol.
    #[error("{0}")]
    BadMessage(#[from] DecodeError),
    /// A text frame.
    #[error("text frames have no meaning here: messages are binary")]
    TextFrame,
    /// A text frame of the plain protocol that is no control message.
    #[error("control message: {0}")]
    BadControl(String),
    /// A frame beyond the limit.
    #[error("a message is larger than {FRAME_BYTES_MAX} bytes")]
    FrameTooLarge,
    /// A message before `join`.
    #[error("the first message must be `join`")]
    NotJoined,
    /// No version of the protocol in common.
    #[error("no common protocol version: this server speaks version {PROTOCOL_VERSION}")]
    Version,
    /// A message that only servers send.
    #[error("`{0}` is not for clients to send")]
    NotForClients(&'static str),
    /// A message that a document could not take.
    #[error("document {document}: {fault}")]
    Document {
        /// Which document.
        document: DocumentId,
        /// What was wrong.
        fault: PeerFault,
    },
    /// One refused change after the other.
    #[error("too many of the changes sent here were refused")]
    TooManyRefused,
    /// No `join` within the time.
    #[error("no `join` message in time")]
    JoinTimeout,
    /// More documents open than allowed.
    #[error("more than {CONNECTION_DOCUMENTS_MAX} documents open on one connection")]
    TooManyDocuments,
    /// More storages followed than allowed.
    #[error("more than {SUBSCRIPTIONS_MAX} storages followed on one connection")]
    TooManySubscriptions,

    // Nobody's fault: connecting again helps.
    /// The peer said that it leaves.
    #[error("the client left")]
    Left,
    /// The same peer joined on another connection.
    #[error("the same peer id joined on another connection")]
    Replaced,
    /// The peer did not take what was sent to it.
    #[error("the client does not read what it is sent")]
    NotReading,
    /// No sign of life.
    #[error("no answer to a ping")]
    PingTimeout,
    /// The server has no room for more open documents, and this connection has the most.
    #[error("the server has as many documents open as it takes, and this connection has the most of them")]
    TooManyOpenDocuments,
    /// More connections than this server takes.
    #[error("the server has as many connections as it takes")]
    TooManyConnections,

    // The server's fault: connecting again later helps.
    /// The server goes away.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The store failed.
    #[error("the server cannot store changes at the moment")]
    StoreFailed,
    /// A change did not pass the full check after others built on it; the document is opened anew without it.
    #[error("document {document} is opened anew, without a change that was refused")]
    DocumentReopened {
        /// Which document.
        document: DocumentId,
    },
}

impl CloseReason {
    /// The WebSocket close code. The table in `docs/protocol.md` says what a client does on each.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::TextFrame => 1003,
            Self::FrameTooLarge => 1009,
            Self::ShuttingDown => 1012,
            Self::StoreFailed
            | Self::DocumentReopened { .. }
            | Self::TooManyConnections
            | Self::TooManyOpenDocuments => 1013,
            Self::BadMessage(_)
            | Self::BadControl(_)
            | Self::NotJoined
            | Self::NotForClients(_)
            | Self::Version => 4400,
            Self::Document { .. } | Self::TooManyRefused => 4422,
            Self::JoinTimeout | Self::PingTimeout => 4408,
            Self::Replaced => 4409,
            Self::TooManyDocuments | Self::TooManySubscriptions => 4413,
            Self::NotReading => 4429,
        }
    }

    /// Whether the peer is told by an `error` message before the close: only where it did something wrong.
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::BadMessage(_)
            | Self::TextFrame
            | Self::BadControl(_)
            | Self::FrameTooLarge
            | Self::NotJoined
            | Self::Version
            | Self::NotForClients(_)
            | Self::Document { .. }
            | Self::TooManyRefused
            | Self::JoinTimeout
            | Self::TooManyDocuments
            | Self::TooManySubscriptions => true,
            Self::Left
            | Self::Replaced
            | Self::NotReading
            | Self::PingTimeout
            | Self::TooManyConnections
            | Self::TooManyOpenDocuments
            | Self::ShuttingDown
            | Self::StoreFailed
            | Self::DocumentReopened { .. } => false,
        }
    }

    /// A short name for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadMessage(_) => "bad_message",
            Self::TextFrame => "text_frame",
            Self::BadControl(_) => "bad_control",
            Self::FrameTooLarge => "frame_too_large",
            Self::NotJoined => "not_joined",
            Self::Version => "version",
            Self::NotForClients(_) => "not_for_clients",
            Self::Document { .. } => "document",
            Self::TooManyRefused => "too_many_refused",
            Self::JoinTimeout => "join_timeout",
            Self::TooManyDocuments => "too_many_documents",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::Left => "left",
            Self::Replaced => "replaced",
            Self::NotReading => "not_reading",
            Self::PingTimeout => "ping_timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOpenDocuments => "too_many_open_documents",
            Self::ShuttingDown => "shutting_down",
            Self::StoreFailed => "store_failed",
            Self::DocumentReopened { .. } => "document_reopened",
        }
    }
}

impl Session {
    /// A connection on which nothing was said yet. `ours` and `storage` are the server's ids: the same after every restart, so that
    /// clients know what it has.
    pub fn new(ours: PeerId, storage: StorageId) -> Self {
        let metadata = PeerMetadata {
            storage_id: Some(storage),
            is_ephemeral: false,
            extension: Some(EXTENSION_VERSION),
        };
        Self { ours, metadata, joined: None }
    }

    /// Who is at the other end, once it said so.
    pub fn peer(&self) -> Option<&PeerId> {
        self.joined.as_ref().map(|joined| &joined.peer)
    }

    /// What the other end told about itself; nothing before it joined.
    pub fn peer_metadata(&self) -> PeerMetadata {
        self.joined.as_ref().map(|joined| joined.metadata.clone()).unwrap_or_default()
    }

    /// The storages that the peer follows.
    pub fn subscriptions(&self) -> Arc<BTreeSet<StorageId>> {
        self.joined.as_ref().map(|joined| joined.subscriptions.clone()).unwrap_or_default()
    }

    /// The `error` message for a reason to close.
    pub fn error_message(&self, reason: &CloseReason) -> Bytes {
        let body = Body::Error { message: reason.to_string() };
        Message { sender: Some(self.ours.clone()), target: self.peer().cloned(), body }.encode()
    }

    /// Takes in a binary frame.
    pub fn handle_frame(&mut self, frame: &Bytes) -> Result<Input, CloseReason> {
        // Strangers are not worth the work that a large message makes.
        if self.joined.is_none() && frame.len() > JOIN_BYTES_MAX {
            return Err(DecodeError::TooLong { field: "join", max: JOIN_BYTES_MAX }.into());
        }
        let message = Message::decode(frame)?;
        let joined = match (&mut self.joined, message.body) {
            (_, Body::Join { metadata, versions }) => return self.join(message.sender, metadata, &versions),
            (_, Body::Unknown { .. }) => return Ok(Input::Nothing),
            (None, _) => return Err(CloseReason::NotJoined),
            // Whoever speaks for another peer is not listened to. Stock servers do the same.
            (Some(joined), _) if message.sender.as_ref() != Some(&joined.peer) => return Ok(Input::Nothing),
            (Some(joined), body) => (joined, body),
        };
        joined.0.handle(joined.1)
    }

    fn join(
        &mut self,
        sender: Option<PeerId>,
        metadata: PeerMetadata,
        versions: &[String],
    ) -> Result<Input, CloseReason> {
        let peer = sender.ok_or(DecodeError::MissingField("senderId"))?;
        if !versions.iter().any(|version| version == PROTOCOL_VERSION) {
            return Err(CloseReason::Version);
        }
        let reply = encode_peer(&self.ours, &peer, self.metadata.clone());
        let (documents, subscriptions) = (BTreeSet::new(), Arc::default());
        self.joined = Some(Joined { peer, metadata, documents, subscriptions });
        Ok(Input::Joined { reply })
    }
}

impl Joined {
    fn handle(&mut self, body: Body) -> Result<Input, CloseReason> {
        Ok(match body {
            Body::Sync { document, data } => self.sync(document, data, false)?,
            Body::Request { document, data } => self.sync(document, data, true)?,
            Body::Ephemeral(ephemeral) if self.documents.contains(&ephemeral.document) => {
                Input::Ephemeral(ephemeral)
            }
            Body::RemoteHeadsChanged { document, heads } if self.documents.contains(&document) => {
                Input::RemoteHeads { document, heads }
            }
            Body::RemoteSubscriptionChange { add, remove } => self.subscribe(add, remove)?,
            Body::Leave => Input::Leave,
            Body::Peer { .. } => return Err(CloseReason::NotForClients("peer")),
            Body::Have { document, query, hashes } => {
                self.open(document)?;
                Input::Have { document, query, hashes }
            }
            Body::Rejected { .. } => return Err(CloseReason::NotForClients("highwater-rejected")),
            Body::Durable { .. } => return Err(CloseReason::NotForClients("highwater-durable")),
            // About documents that the peer has not opened, or nothing that a server acts on.
            Body::Ephemeral(_)
            | Body::RemoteHeadsChanged { .. }
            | Body::DocUnavailable { .. }
            | Body::Error { .. }
            | Body::Join { .. }
            | Body::Unknown { .. } => Input::Nothing,
        })
    }

    fn sync(&mut self, document: DocumentId, data: Bytes, is_request: bool) -> Result<Input, CloseReason> {
        self.open(document)?;
        Ok(Input::Sync { document, data, is_request })
    }

    fn open(&mut self, document: DocumentId) -> Result<(), CloseReason> {
        if self.documents.len() >= CONNECTION_DOCUMENTS_MAX && !self.documents.contains(&document) {
            return Err(CloseReason::TooManyDocuments);
        }
        self.documents.insert(document);
        Ok(())
    }

    fn subscribe(&mut self, add: Vec<StorageId>, remove: Vec<StorageId>) -> Result<Input, CloseReason> {
        let mut subscriptions = BTreeSet::clone(&self.subscriptions);
        subscriptions.extend(add);
        for storage in &remove {
            subscriptions.remove(storage);
        }
        if subscriptions.len() > SUBSCRIPTIONS_MAX {
            return Err(CloseReason::TooManySubscriptions);
        }
        if subscriptions == *self.subscriptions {
            return Ok(Input::Nothing);
        }
        self.subscriptions = Arc::new(subscriptions);
        Ok(Input::Subscriptions(self.subscriptions.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn session() -> Session {
        Session::new(peer("server"), StorageId::new("disk").unwrap())
    }

    fn frame(sender: &str, body: Body) -> Bytes {
        Message { sender: Some(peer(sender)), target: Some(peer("server")), body }.encode()
    }

    fn join(versions: &[&str]) -> Body {
        let versions = versions.iter().map(|v| (*v).to_owned()).collect();
        Body::Join { metadata: PeerMetadata::default(), versions }
    }

    fn sync(n: u8) -> Body {
        Body::Sync { document: DocumentId::from_bytes([n; 16]), data: Bytes::from_static(b"x") }
    }

    fn ephemeral(n: u8) -> Ephemeral {
        let session = crate::SessionId::new("s").unwrap();
        Ephemeral {
            document: DocumentId::from_bytes([n; 16]),
            count: 1,
            session,
            data: Bytes::from_static(b"x"),
        }
    }

    #[test]
    fn join_is_answered_with_who_the_server_is() {
        let mut session = session();
        let Ok(Input::Joined { reply }) = session.handle_frame(&frame("tab", join(&["1", "7"]))) else {
            panic!()
        };
        let reply = Message::decode(&reply).unwrap();
        assert_eq!((reply.sender, reply.target), (Some(peer("server")), Some(peer("tab"))));
        let Body::Peer { metadata, version } = reply.body else { panic!() };
        assert_eq!((metadata.storage_id, version.as_str()), (Some(StorageId::new("disk").unwrap()), "1"));
        assert_eq!(session.peer(), Some(&peer("tab")));
    }

    #[test]
    fn what_breaks_the_protocol_closes_the_connection() {
        assert_eq!(session().handle_frame(&frame("tab", sync(1))), Err(CloseReason::NotJoined));
        assert_eq!(session().handle_frame(&frame("tab", join(&["2"]))), Err(CloseReason::Version));
        assert!(matches!(
            session().handle_frame(&Bytes::from_static(b"\xff")),
            Err(CloseReason::BadMessage(_))
        ));
    }

    #[test]
    fn strangers_unknown_kinds_and_unopened_documents_are_ignored() {
        let mut session = session();
        session.handle_frame(&frame("tab", join(&["1"]))).unwrap();
        let future = Body::Unknown { kind: "future".to_owned() };
        assert_eq!(session.handle_frame(&frame("tab", future)), Ok(Input::Nothing));
        assert_eq!(session.handle_frame(&frame("other", sync(1))), Ok(Input::Nothing));
        assert_eq!(session.handle_frame(&frame("tab", Body::Ephemeral(ephemeral(1)))), Ok(Input::Nothing));
        assert!(matches!(session.handle_frame(&frame("tab", sync(1))), Ok(Input::Sync { .. })));
        assert_eq!(
            session.handle_frame(&frame("tab", Body::Ephemeral(ephemeral(1)))),
            Ok(Input::Ephemeral(ephemeral(1)))
        );
    }

    #[test]
    fn joining_again_starts_afresh() {
        let mut session = session();
        session.handle_frame(&frame("tab", join(&["1"]))).unwrap();
        session.handle_frame(&frame("tab", sync(1))).unwrap();
        assert!(matches!(session.handle_frame(&frame("tab2", join(&["1"]))), Ok(Input::Joined { .. })));
        assert_eq!(session.handle_frame(&frame("tab2", Body::Ephemeral(ephemeral(1)))), Ok(Input::Nothing));
    }

    #[test]
    fn open_documents_and_subscriptions_are_bounded() {
        let mut session = session();
        session.handle_frame(&frame("tab", join(&["1"]))).unwrap();
        let storages =
            |from: usize| (from..from + SUBSCRIPTIONS_MAX).map(|n| StorageId::new(&n.to_string()).unwrap());
        let change = |add: Vec<StorageId>, remove| Body::RemoteSubscriptionChange { add, remove };
        assert!(session.handle_frame(&frame("tab", change(storages(0).collect(), vec![]))).is_ok());
        assert!(session.handle_frame(&frame("tab", change(vec![], storages(0).collect()))).is_ok());
        assert!(session.handle_frame(&frame("tab", change(storages(1).collect(), vec![]))).is_ok());
        let more = change(storages(SUBSCRIPTIONS_MAX + 1).collect(), vec![]);
        assert_eq!(session.handle_frame(&frame("tab", more)), Err(CloseReason::TooManySubscriptions));
    }
}
