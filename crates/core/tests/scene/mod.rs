//! A server without a network, and stock clients that say and hear what the test tells them to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use automerge::sync::{Message as StockMessage, State, SyncDoc};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, Change, ROOT};
use bytes::Bytes;
use highwater_core::change;
use highwater_core::document::{
    AppendId, ConnectionId, Document, Effect, Outgoing, PeerFault, PeerInfo, UploadId,
};
use highwater_core::sync::Message;
use highwater_core::{ChangeHash, DocumentId, PeerId, Record, StorageId};

const ID: DocumentId = DocumentId::from_bytes([3; 16]);

pub(crate) struct Server {
    pub(crate) document: Document,
    /// Asked for and not durable.
    appends: VecDeque<(AppendId, Vec<Record>)>,
    pub(crate) durable: Vec<Record>,
    /// Unpacking waits for the test.
    pub(crate) holds_uploads: bool,
    pub(crate) uploads: VecDeque<(UploadId, Vec<Bytes>)>,
    outbox: BTreeMap<u64, Vec<Outgoing>>,
    /// Connections that have not taken what they were sent.
    pub(crate) behind: BTreeSet<ConnectionId>,
    /// How often somebody was found to be behind.
    pub(crate) found_behind: usize,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::around(Document::new(ID))
    }

    fn around(document: Document) -> Self {
        Self {
            document,
            appends: VecDeque::new(),
            durable: Vec::new(),
            holds_uploads: false,
            uploads: VecDeque::new(),
            outbox: BTreeMap::new(),
            behind: BTreeSet::new(),
            found_behind: 0,
        }
    }

    /// What comes up after a power cut.
    pub(crate) fn after_power_cut(&self) -> Self {
        let changes = self.durable.iter().filter_map(|record| match record {
            Record::Change { bytes } => Some(bytes.clone()),
            _ => None,
        });
        let quarantined = self.durable.iter().filter_map(|record| match record {
            Record::Quarantine { hash, reason, .. } => Some((*hash, reason.clone())),
            _ => None,
        });
        let mut server =
            Self::around(Document::restore(ID, changes, quarantined).expect("stored changes read"));
        server.durable = self.durable.clone();
        server
    }

    pub(crate) fn attach(&mut self, connection: u64, info: PeerInfo) {
        self.document.attach(ConnectionId(connection), info);
    }

    pub(crate) fn detach(&mut self, connection: u64) {
        self.document.detach(ConnectionId(connection));
        self.poll();
    }

    pub(crate) fn hear(&mut self, connection: u64, data: Bytes) {
        self.try_hear(connection, data, false).expect("an honest message");
    }

    pub(crate) fn try_hear(
        &mut self,
        connection: u64,
        data: Bytes,
        is_request: bool,
    ) -> Result<(), PeerFault> {
        let taken = self.document.handle_sync(ConnectionId(connection), data, is_request);
        self.poll();
        taken
    }

    /// All appends become durable, and those that follow from them.
    pub(crate) fn commit(&mut self) {
        while self.commit_one() {}
    }

    pub(crate) fn commit_one(&mut self) -> bool {
        let Some((id, records)) = self.appends.pop_front() else { return false };
        self.durable.extend(records);
        self.document.handle_appended(id);
        self.poll();
        true
    }

    pub(crate) fn is_committing(&self) -> bool {
        !self.appends.is_empty()
    }

    pub(crate) fn finish_upload(&mut self) {
        let (upload, chunks) = self.uploads.pop_front().expect("an upload");
        self.document.handle_unpacked(upload, change::unpack(&chunks));
        self.poll();
    }

    pub(crate) fn poll(&mut self) {
        while let Some(effect) = self.document.poll_effect_unless(|connection| {
            let is_behind = self.behind.contains(&connection);
            self.found_behind += usize::from(is_behind);
            is_behind
        }) {
            match effect {
                Effect::Append { id, records } => self.appends.push_back((id, records)),
                Effect::Unpack { upload, chunks } if self.holds_uploads => {
                    self.uploads.push_back((upload, chunks));
                }
                Effect::Unpack { upload, chunks } => {
                    self.document.handle_unpacked(upload, change::unpack(&chunks));
                }
                Effect::Send { connection, outgoing } => {
                    self.outbox.entry(connection.0).or_default().push(outgoing);
                }
                Effect::LoadSnapshot | Effect::Bring { .. } => panic!("there is no snapshot"),
                Effect::Close { fault, .. } => panic!("closed: {fault}"),
            }
        }
    }

    /// Everything that was said to a peer since the last call.
    pub(crate) fn said(&mut self, connection: u64) -> Vec<Outgoing> {
        self.outbox.remove(&connection).unwrap_or_default()
    }

    /// The sync messages among it; anything else is unexpected.
    pub(crate) fn syncs(&mut self, connection: u64) -> Vec<Message> {
        let sync = |outgoing| match outgoing {
            Outgoing::Sync(message) => message,
            other => panic!("expected sync messages only, got {other:?}"),
        };
        self.said(connection).into_iter().map(sync).collect()
    }

    /// The sync message that was said to a peer since the last call: one, and nothing else.
    pub(crate) fn sync(&mut self, connection: u64) -> Message {
        let mut syncs = self.syncs(connection);
        assert_eq!(syncs.len(), 1, "expected one message, got {syncs:#?}");
        syncs.remove(0)
    }

    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.document.heads().to_vec()
    }
}

pub(crate) fn info(name: &str) -> PeerInfo {
    PeerInfo {
        peer: PeerId::new(name).unwrap(),
        may_write: true,
        storage: None,
        subscriptions: Arc::default(),
    }
}

pub(crate) fn storage(name: &str) -> StorageId {
    StorageId::new(name).unwrap()
}

pub(crate) struct Client {
    pub(crate) doc: AutoCommit,
    pub(crate) state: State,
    pub(crate) connection: u64,
}

impl Client {
    /// A client without changes that has joined.
    pub(crate) fn join(server: &mut Server, connection: u64) -> Self {
        server.attach(connection, info(&format!("peer-{connection}")));
        let doc = AutoCommit::new().with_actor(ActorId::from([connection as u8]));
        Self { doc, state: State::new(), connection }
    }

    pub(crate) fn edit(&mut self, value: i64) -> ChangeHash {
        self.doc.put(ROOT, "key", value).unwrap();
        // Writing the value that is there already is no edit.
        self.doc.commit().unwrap_or_else(|| self.doc.empty_change(CommitOptions::default()))
    }

    pub(crate) fn changes(&mut self) -> Vec<Change> {
        self.doc.get_changes(&[])
    }

    pub(crate) fn heads(&mut self) -> Vec<ChangeHash> {
        self.doc.get_heads()
    }

    pub(crate) fn message(&mut self) -> Option<StockMessage> {
        self.doc.sync().generate_sync_message(&mut self.state)
    }

    /// Says what there is to say; whether there was anything.
    pub(crate) fn speak(&mut self, server: &mut Server) -> bool {
        let Some(message) = self.message() else { return false };
        server.hear(self.connection, message.encode().into());
        true
    }

    pub(crate) fn take(&mut self, message: &Message) {
        let message = StockMessage::decode(&message.encode()).unwrap();
        self.doc.sync().receive_sync_message(&mut self.state, message).unwrap();
    }

    /// Takes all that the server said; how many messages that was.
    pub(crate) fn listen(&mut self, server: &mut Server) -> usize {
        let syncs = server.syncs(self.connection);
        syncs.iter().for_each(|message| self.take(message));
        syncs.len()
    }

    /// Whether `hash` is one of `heads` or an ancestor, as far as this client knows.
    pub(crate) fn is_covered(&mut self, hash: ChangeHash, heads: &[ChangeHash]) -> bool {
        self.doc.get_change_by_hash(&hash).is_some()
            && self.doc.get_changes(heads).iter().all(|change| change.hash() != hash)
    }
}

/// Everybody talks, and the disk keeps up, until nobody has anything to say. Returns how many messages that took.
pub(crate) fn settle(server: &mut Server, clients: &mut [&mut Client]) -> usize {
    let mut messages = 0;
    for _ in 0..200 {
        let before = messages;
        for client in &mut *clients {
            messages += client.listen(server);
            messages += usize::from(client.speak(server));
        }
        server.commit();
        if messages == before {
            return messages;
        }
    }
    panic!("there is no end to it");
}

pub(crate) fn chunk(change: &Change) -> Bytes {
    Bytes::copy_from_slice(change.raw_bytes())
}

/// The changes that a message carries.
pub(crate) fn carried(message: &Message) -> Vec<ChangeHash> {
    change::unpack(&message.chunks).unwrap().iter().map(|change| change.hash).collect()
}
