//! One document: its history, the peers that have it open, and what is on its way to disk.
//!
//! # How to drive it
//!
//! Methods fall into three kinds. `handle_*` pass in what happened: a message, an unpacked upload, an append that became durable.
//! [`attach`](Document::attach) and [`detach`](Document::detach) say who takes part. [`poll_effect`](Document::poll_effect) says what to do; call it until it returns `None`, after any
//! number of the others: the more were passed in before, the fewer messages go out.
//!
//! # The promise
//!
//! A received change is judged, *staged* in the history and handed out as [`Effect::Append`]. Everything that is ever said to a peer is generated from the
//! part of the history that is durable, and only [`handle_appended`](Document::handle_appended) makes it longer. So nothing that a power cut could take back can be
//! acknowledged, named or passed on.

mod deletion;
mod import;
mod orphans;
mod remote_heads;
mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::change::{self, Change, ChunkError};
use crate::history::{HashPages, History, Index, Verdict};
use crate::id::{ChangeHash, DocumentId, PeerId, StorageId};
use crate::limits::{
    COMPACT_BYTES_MIN, COMPACT_SHARE, GATE_STEPS_MAX, GATE_STEPS_PER_CHANGE, INBOX_BATCH, ORPHAN_BYTES_MAX,
    ORPHANS_MAX, PEER_INBOX_MAX, QUARANTINE_MAX, REJECTED_MAX, REMOTE_HEADS_MAX,
};
use crate::record::Record;
use crate::snapshot::SnapshotInfo;
use crate::sync::message::MessageError;
use crate::sync::state::{Next, State};
use crate::sync::{self};
use crate::wire::{Ephemeral, Rejection, RemoteHeads};

use deletion::Life;
use orphans::Orphans;
use remote_heads::RemoteHeadsBook;

pub use crate::history::{OpFlaw, Refusal, Role};
pub use deletion::DELETED;
pub use import::{Made, TakenIn};
pub use restore::{RestoreError, Restoring};

/// Names one connection. Unlike a peer id it is chosen by the driver and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names one append of a document; they count up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(u64);

/// Names one upload that is being unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId(u64);

/// Who takes part in a document.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The peer's id, as it is written into the quarantine.
    pub peer: PeerId,
    /// Whether changes are taken from the peer.
    pub may_write: bool,
    /// The storage behind the peer, if it has one that lasts.
    pub storage: Option<StorageId>,
    /// The storages whose heads the peer wants to hear of.
    pub subscriptions: Arc<BTreeSet<StorageId>>,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Effect {
    /// Make these records durable, then call [`Document::handle_appended`]; or [`Document::handle_append_failed`].
    Append {
        /// To be passed back.
        id: AppendId,
        /// What to store.
        records: Vec<Record>,
    },
    /// Call [`change::unpack`] where it does not hold up others, then [`Document::handle_unpacked`].
    Unpack {
        /// To be passed back.
        upload: UploadId,
        /// The chunks.
        chunks: Vec<Bytes>,
    },
    /// Bring the document chunk of the stored snapshot, then call [`Document::handle_snapshot`].
    LoadSnapshot,
    /// Bring these changes, which only the snapshot holds, then call [`Document::handle_brought`]. The first ones will do, if they have
    /// [`SEND_CHANGES_BYTES_MAX`](crate::limits::SEND_CHANGES_BYTES_MAX) bytes.
    Bring {
        /// Their hashes.
        changes: Vec<ChangeHash>,
    },
    /// Tell a peer something.
    Send {
        /// Whom.
        connection: ConnectionId,
        /// What.
        outgoing: Outgoing,
    },
    /// Close a connection. The document has forgotten it.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        fault: PeerFault,
    },
}

/// What a document has to say to a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    /// A sync message.
    Sync(sync::Message),
    /// The document does not exist here.
    Unavailable,
    /// The document was deleted.
    Deleted,
    /// An ephemeral message of another peer.
    Ephemeral {
        /// Who sent it.
        sender: PeerId,
        /// The message.
        ephemeral: Ephemeral,
    },
    /// What other storages have.
    RemoteHeads(Vec<RemoteHeads>),
    /// Changes of this peer that were refused for good.
    Rejected(Vec<Rejection>),
}

/// What a document makes of a new snapshot of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    /// What the snapshot holds is no longer in memory.
    LetGo,
    /// Not all of what is in it is known to be durable here. It will be, as soon as the appends that are on their way have ended.
    TooEarly,
    /// It counts the changes in another order, as can be when some of them waited for others. It is of no use before the document is opened anew, and no harm.
    InAnotherOrder,
}

/// What a peer did wrong. The connection is closed, so that both sides start again from what they know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// A message that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message with changes that are none.
    #[error("changes in a sync message: {0}")]
    Chunk(#[from] ChunkError),
    /// Too many messages while one was being stored.
    #[error("more than {PEER_INBOX_MAX} messages on one document without waiting for an answer")]
    Flood,
    /// Too many changes whose dependencies are missing.
    #[error(
        "the document has too many changes with missing dependencies (at most {ORPHANS_MAX} of {ORPHAN_BYTES_MAX} bytes)"
    )]
    TooManyOrphans,
    /// Changes that take too long to check: each of them on top of another place in a history of many branches.
    #[error("checking the changes takes too many steps; send fewer of them in one message")]
    TooCostly,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Document {
    id: DocumentId,
    life: Life,
    history: History,
    orphans: Orphans,
    /// Refused changes, with the reason.
    rejected: HashMap<ChangeHash, String>,
    quarantined: usize,
    /// In order of their connections, so that the same inputs give the same effects.
    /// Boxed, because a map's node has room for eleven, and most documents have one peer.
    peers: BTreeMap<ConnectionId, Box<Peer>>,
    /// On their way to disk, oldest first.
    appends: VecDeque<Append>,
    next_append: u64,
    /// Being unpacked. They go on when their sender is gone: what has reached us is not lost.
    uploads: BTreeMap<UploadId, Upload>,
    next_upload: u64,
    effects: VecDeque<Effect>,
    /// Peers to whom there may be something to say.
    stale: BTreeSet<ConnectionId>,
    /// Peers to whom there may be something to say once they have taken what they were sent.
    held: BTreeSet<ConnectionId>,
    /// Peers that asked whether the document exists and have no answer yet.
    waiting: BTreeSet<ConnectionId>,
    remote_heads: RemoteHeadsBook,
    /// Whether any peer follows a storage. Without, nothing about storages is worth a look at every peer.
    has_followers: bool,
    /// Peers whose next message needs what only the snapshot holds.
    hungry: BTreeSet<ConnectionId>,
    /// Something is being brought from the snapshot. One thing at a time.
    is_bringing: bool,
    now_ms: f64,
}

#[derive(Debug)]
struct Append {
    id: AppendId,
    /// Whose changes these are.
    sender: ConnectionId,
    /// How long the history is once this is durable.
    history_len: Index,
    /// To be told then: what was refused may have been refused because of what is on its way to disk.
    rejections: Vec<(ConnectionId, Vec<Rejection>)>,
}

#[derive(Debug)]
struct Upload {
    connection: ConnectionId,
    sender: PeerId,
}

#[derive(Debug)]
struct Peer {
    info: PeerInfo,
    state: State,
    /// A message whose changes are not durable yet. Later messages of this peer wait.
    busy: Option<Busy>,
    inbox: VecDeque<sync::Message>,
    /// A message of the peer has counted since it was last told anything.
    is_owed_answer: bool,
    /// That the document was deleted.
    was_told: bool,
}

#[derive(Debug)]
enum Busy {
    Unpacking(UploadId, sync::Message),
    /// Several messages that share an append.
    Appending(AppendId, Vec<sync::Message>),
}

/// What one message adds to the store, and what is to be said about it at once.
#[derive(Default)]
struct Intake {
    records: Vec<Record>,
    rejections: Vec<Rejection>,
    /// The first change that was refused.
    refused: Option<(ChangeHash, Refusal)>,
    /// The changes come from the store: limits were checked when they were taken in.
    is_restore: bool,
}

impl Document {
    /// A document without changes, that nobody has open.
    pub fn new(id: DocumentId) -> Self {
        Self {
            id,
            life: Life::Alive,
            history: History::default(),
            orphans: Orphans::default(),
            rejected: HashMap::new(),
            quarantined: 0,
            peers: BTreeMap::new(),
            appends: VecDeque::new(),
            next_append: 0,
            uploads: BTreeMap::new(),
            next_upload: 0,
            effects: VecDeque::new(),
            stale: BTreeSet::new(),
            held: BTreeSet::new(),
            waiting: BTreeSet::new(),
            remote_heads: RemoteHeadsBook::default(),
            has_followers: false,
            hungry: BTreeSet::new(),
            is_bringing: false,
            now_ms: 0.0,
        }
    }

    /// A document from what a store holds: the change chunks in the order in which they became durable, and the hashes of refused changes with the reasons.
    ///
    /// Fails with the place of the first change that is not as it was when it was taken in. Costs a few microseconds per change.
    pub fn restore(
        id: DocumentId,
        changes: impl IntoIterator<Item = Bytes>,
        quarantined: impl IntoIterator<Item = (ChangeHash, String)>,
    ) -> Result<Self, (usize, RestoreError)> {
        let mut restoring = Restoring::new(id, quarantined);
        for (place, bytes) in changes.into_iter().enumerate() {
            restoring.add(bytes).map_err(|error| (place, error))?;
        }
        Ok(restoring.finish())
    }

    /// Which document this is.
    pub fn id(&self) -> DocumentId {
        self.id
    }

    /// The durable changes that no durable change depends on, sorted.
    pub fn heads(&self) -> &[ChangeHash] {
        self.history.heads()
    }

    /// How many changes are durable, those without their dependencies not counted.
    pub fn len(&self) -> usize {
        self.history.len() as usize
    }

    /// How many changes there are with those that are on their way to disk.
    pub fn staged_len(&self) -> usize {
        self.history.staged_len() as usize
    }

    /// How many bytes the durable changes take up that are in no snapshot, and the snapshot, without its index.
    pub fn stored_bytes(&self) -> u64 {
        self.history.uncovered_bytes() as u64 + self.history.brought().snapshot_bytes()
    }

    /// The durable changes that are in no snapshot, with their chunks, each after its dependencies; those without their dependencies are left out.
    pub fn tail(&self) -> impl Iterator<Item = (&ChangeHash, &Bytes)> {
        let durable = self.history.covered()..self.history.len();
        durable.filter_map(|index| Some((self.history.hash(index), self.history.chunk(index)?)))
    }

    /// How many changes only the snapshot holds.
    pub fn covered(&self) -> usize {
        self.history.covered() as usize
    }

    /// The chunks of the changes from a place on, with those that are on their way to disk; none that only the snapshot holds.
    pub fn staged_changes(&self, from: usize) -> Vec<Bytes> {
        let places = from as Index..self.history.staged_len();
        places.filter_map(|index| self.history.chunk(index).cloned()).collect()
    }

    /// The chunks of the durable changes that are not ancestors of these heads, in order: what brings a copy of the document up to date. `None` if a head is not part
    /// of the document, or if only the snapshot holds some of the changes.
    pub fn chunks_since(&self, heads: &[ChangeHash]) -> Option<Vec<Bytes>> {
        let ground: Option<Vec<Index>> = heads.iter().map(|head| self.history.index_of(head)).collect();
        let since = self.history.since(&ground?, 0);
        since.from(0).map(|index| self.history.chunk(index).cloned()).collect()
    }

    /// The changes that wait for dependencies, as chunks, in the order in which they came.
    pub(crate) fn orphan_chunks(&self) -> Vec<Bytes> {
        self.orphans.chunks()
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Whether so much has come since the last snapshot that another one pays: so many changes, which are at least one in [`COMPACT_SHARE`] of all;
    /// or many bytes, see [`COMPACT_BYTES_MIN`].
    pub fn wants_compaction(&self, changes_min: usize) -> bool {
        let (all, covered) = (self.history.len() as usize, self.covered());
        let (tail, tail_bytes) = (all - covered, self.history.uncovered_bytes());
        // What is stored of a change in a snapshot beside the chunk is mostly its hash.
        let stored = self.history.brought().snapshot_bytes() as usize + 40 * covered;
        let is_long = tail >= changes_min && tail * COMPACT_SHARE >= all;
        is_long || (tail_bytes >= COMPACT_BYTES_MIN && tail_bytes * 2 >= stored)
    }

    /// What the document takes up in memory, roughly, in bytes.
    pub fn size(&self) -> usize {
        self.history.size() + self.orphans.size() + self.rejected.len() * 200
    }

    /// Whether there is no durable change.
    pub fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// Whether the change is durable and part of the document. One look-up, however long the history is.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.history.contains(hash)
    }

    /// How many changes wait for dependencies.
    pub fn orphan_count(&self) -> usize {
        self.orphans.len()
    }

    /// The refused changes that are remembered, with the reasons.
    pub fn rejected(&self) -> impl Iterator<Item = (&ChangeHash, &str)> {
        self.rejected.iter().map(|(hash, reason)| (hash, reason.as_str()))
    }

    /// Whether nobody has the document open and nothing is on its way to disk.
    pub fn is_idle(&self) -> bool {
        self.peers.is_empty() && self.appends.is_empty() && self.uploads.is_empty()
    }

    /// Whether all that this connection sent has been judged: nothing of it waits, is unpacked, or is its own append. What it repeated of others, or left
    /// behind when it joined again, may still be on its way to disk: [`append_mark`](Self::append_mark) tells when that is durable.
    pub fn is_settled(&self, connection: ConnectionId) -> bool {
        let is_upload = self.uploads.values().any(|upload| upload.connection == connection);
        let is_done = |peer: &Peer| peer.busy.is_none() && peer.inbox.is_empty();
        !is_upload && self.peers.get(&connection).is_none_or(|peer| is_done(peer))
    }

    /// A place in the order of appends: all that are on their way to disk now come before it.
    pub fn append_mark(&self) -> AppendId {
        AppendId(self.next_append)
    }

    /// Whether all appends before a [mark](Self::append_mark) are durable.
    pub fn has_reached(&self, mark: AppendId) -> bool {
        self.appends.front().is_none_or(|append| append.id >= mark)
    }

    /// The peers that have the document open.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.peers.keys().copied()
    }

    /// How many appends are on their way to disk.
    pub fn appends_in_flight(&self) -> usize {
        self.appends.len()
    }

    /// The time that counts for all that follows, in milliseconds since 1970. Only ever passed on to peers.
    pub fn set_time(&mut self, now_ms: f64) {
        self.now_ms = now_ms;
    }

    /// A peer opens the document. A connection that is attached already starts afresh.
    pub fn attach(&mut self, connection: ConnectionId, info: PeerInfo) {
        self.detach(connection);
        let state = State::new(!info.may_write);
        let known = self.remote_heads.known_to(&info.subscriptions, &self.history);
        self.has_followers |= !info.subscriptions.is_empty();
        let inbox = VecDeque::new();
        let peer = Peer { info, state, busy: None, inbox, is_owed_answer: false, was_told: false };
        self.peers.insert(connection, Box::new(peer));
        self.send_remote_heads(connection, known);
    }

    /// A peer is gone. What it sent is taken in all the same: those may be the last changes of a tab that was closed.
    pub fn detach(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.remove(&connection) else { return };
        self.stale.remove(&connection);
        self.held.remove(&connection);
        self.hungry.remove(&connection);
        self.waiting.remove(&connection);
        let waiting =
            peer.inbox.into_iter().filter(|message| peer.info.may_write && !message.chunks.is_empty());
        for message in waiting {
            self.unpack(connection, peer.info.peer.clone(), message.chunks);
        }
    }

    /// Whether the connection has the document open.
    pub fn is_attached(&self, connection: ConnectionId) -> bool {
        self.peers.contains_key(&connection)
    }

    /// A `sync` or `request` message of an attached peer; `data` is the sync message.
    ///
    /// On an error the driver closes the connection and detaches it.
    pub fn handle_sync(
        &mut self,
        connection: ConnectionId,
        data: Bytes,
        is_request: bool,
    ) -> Result<(), PeerFault> {
        let message = sync::Message::decode(data)?;
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if is_request {
            self.waiting.insert(connection);
        }
        if peer.busy.is_some() {
            if peer.inbox.len() >= PEER_INBOX_MAX {
                return Err(PeerFault::Flood);
            }
            peer.inbox.push_back(message);
            return Ok(());
        }
        self.take_message(connection, message)
    }

    /// The changes of an [`Effect::Unpack`].
    pub fn handle_unpacked(&mut self, upload: UploadId, unpacked: Result<Vec<Change>, ChunkError>) {
        let Some(Upload { connection, sender }) = self.uploads.remove(&upload) else { return };
        let is_this = |busy: &mut Busy| matches!(busy, Busy::Unpacking(of, _) if *of == upload);
        let peer = self.peers.get_mut(&connection);
        let Some(Busy::Unpacking(_, message)) = peer.and_then(|peer| peer.busy.take_if(is_this)) else {
            // The sender is gone, or joined again meanwhile. There is nobody to answer.
            let (intake, _) = self.judge_all(unpacked.unwrap_or_default(), &sender);
            if !intake.records.is_empty() {
                self.append(connection, intake.records);
            }
            return;
        };
        let taken = match unpacked {
            Ok(changes) => self.take_changes(connection, message, changes),
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = taken.and_then(|()| self.take_inbox(connection)) {
            self.close(connection, fault);
        }
    }

    /// The records of an append are durable. Appends end in the order in which they were asked for.
    pub fn handle_appended(&mut self, id: AppendId) {
        debug_assert_eq!(self.appends.front().map(|append| append.id), Some(id), "appends end in order");
        let Some(append) = self.appends.pop_front() else { return };
        self.history.make_durable(append.history_len);
        if self.life == Life::Ending(id) {
            self.end();
        }
        for (connection, peer) in &mut self.peers {
            peer.state.update_ground(&self.history);
            if self.life != Life::Deleted {
                self.stale.insert(*connection);
            }
        }
        self.announce_remote_heads();
        for (connection, rejections) in append.rejections {
            self.send_rejections(connection, rejections);
        }
        self.finish_append(append.sender, id);
    }

    /// Whether the records of an append are durable is not known. All peers are let go: they connect again and find out from a document that was
    /// read anew. This one is of no more use.
    pub fn handle_append_failed(&mut self) {
        self.effects.clear();
        self.uploads.clear();
        self.peers.clear();
        self.stale.clear();
        self.held.clear();
        self.hungry.clear();
        self.waiting.clear();
    }

    /// The document chunk of the stored snapshot. One that holds more than this document knows to be in it will do.
    pub fn handle_snapshot(&mut self, chunk: Bytes) {
        if self.is_deleted() {
            return;
        }
        self.history.brought_mut().put_snapshot(chunk);
        self.feed_hungry();
    }

    /// Changes that only the snapshot holds, with their hashes.
    pub fn handle_brought(&mut self, changes: Vec<(ChangeHash, Bytes)>) {
        let places = changes.into_iter().map(|(hash, chunk)| (self.history.index_of(&hash), chunk));
        let known: Vec<(Index, Bytes)> = places.filter_map(|(index, chunk)| Some((index?, chunk))).collect();
        self.history.brought_mut().put_chunks(known.into_iter());
        self.feed_hungry();
    }

    fn feed_hungry(&mut self) {
        self.is_bringing = false;
        self.stale.append(&mut self.hungry);
    }

    /// A snapshot of the document is durable: the bytes of the changes in it are let go.
    pub fn handle_compacted(&mut self, snapshot: &SnapshotInfo) -> Compacted {
        if snapshot.changes > u64::from(self.history.len()) {
            return Compacted::TooEarly;
        }
        // It was opened with this snapshot, or a newer one.
        if snapshot.changes <= self.covered() as u64 {
            return Compacted::LetGo;
        }
        let pages = HashPages(snapshot.index.pages.clone());
        if self.history.cover(&pages, snapshot.document_bytes) {
            Compacted::LetGo
        } else {
            Compacted::InAnotherOrder
        }
    }

    /// An ephemeral message of an attached peer: for everybody else who has the document open.
    pub fn handle_ephemeral(&mut self, connection: ConnectionId, ephemeral: &Ephemeral) {
        if self.is_deleted() {
            return;
        }
        let Some(sender) = self.peers.get(&connection).map(|peer| peer.info.peer.clone()) else { return };
        let others = self.peers.keys().filter(|other| **other != connection);
        self.effects.extend(others.map(|other| Effect::Send {
            connection: *other,
            outgoing: Outgoing::Ephemeral { sender: sender.clone(), ephemeral: ephemeral.clone() },
        }));
    }

    /// The storages that an attached peer wants to hear of from now on.
    pub fn handle_subscriptions(
        &mut self,
        connection: ConnectionId,
        subscriptions: Arc<BTreeSet<StorageId>>,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let added = subscriptions.difference(&peer.info.subscriptions).cloned().collect();
        self.has_followers |= !subscriptions.is_empty();
        peer.info.subscriptions = subscriptions;
        let known = self.remote_heads.known_to(&added, &self.history);
        self.send_remote_heads(connection, known);
    }

    /// What an attached peer heard of the heads of other storages.
    pub fn handle_remote_heads(&mut self, connection: ConnectionId, heads: Vec<RemoteHeads>) {
        if self.is_attached(connection) && !self.is_deleted() {
            for mut entry in heads.into_iter().filter(|entry| entry.timestamp.is_finite()) {
                // A clock that runs ahead must not shadow what comes later.
                entry.timestamp = entry.timestamp.min(self.now_ms);
                self.remote_heads.learn(connection, entry);
            }
            self.announce_remote_heads();
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.poll_effect_unless(|_| false)
    }

    /// The next thing to do, without sync messages to peers of which `is_behind` says that they have not taken what they were sent. Whatever happens until
    /// they have, they get as one message; the driver calls [`handle_ready`](Self::handle_ready) then.
    pub fn poll_effect_unless(&mut self, mut is_behind: impl FnMut(ConnectionId) -> bool) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            let Some(connection) = self.stale.pop_first() else { break };
            // Whoever is held already is waited for; asked about with every change, that would be noted with every change.
            if self.held.contains(&connection) || is_behind(connection) {
                self.held.insert(connection);
            } else if let Some(message) = self.generate(connection) {
                return Some(Effect::Send { connection, outgoing: Outgoing::Sync(message) });
            }
        }
        if self.hungry.is_empty() {
            self.history.brought_mut().trim();
        }
        self.answer_waiting()
    }

    /// A peer that was behind has taken what it was sent.
    pub fn handle_ready(&mut self, connection: ConnectionId) {
        if self.held.remove(&connection) && !self.is_deleted() {
            self.stale.insert(connection);
        }
    }

    fn take_message(
        &mut self,
        connection: ConnectionId,
        mut message: sync::Message,
    ) -> Result<(), PeerFault> {
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        if message.chunks.is_empty() || !peer.info.may_write {
            self.finish_message(connection, message);
            return Ok(());
        }
        if change::is_cheap(&message.chunks) {
            let changes = change::unpack(&message.chunks)?;
            return self.take_changes(connection, message, changes);
        }
        let sender = peer.info.peer.clone();
        // An empty chunk says that there were changes, which makes the message news.
        let chunks = std::mem::replace(&mut message.chunks, vec![Bytes::new()]);
        let upload = self.unpack(connection, sender, chunks);
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.busy = Some(Busy::Unpacking(upload, message));
        }
        Ok(())
    }

    fn unpack(&mut self, connection: ConnectionId, sender: PeerId, chunks: Vec<Bytes>) -> UploadId {
        let upload = UploadId(self.next_upload);
        self.next_upload += 1;
        self.uploads.insert(upload, Upload { connection, sender });
        self.effects.push_back(Effect::Unpack { upload, chunks });
        upload
    }

    /// Takes the changes of a message, and those of the messages that wait behind it: they share an append.
    fn take_changes(
        &mut self,
        connection: ConnectionId,
        message: sync::Message,
        changes: Vec<Change>,
    ) -> Result<(), PeerFault> {
        let Some(peer) = self.peers.get(&connection) else { return Ok(()) };
        let (sender, may_write) = (peer.info.peer.clone(), peer.info.may_write);
        let (mut intake, mut judged) = self.judge_all(changes, &sender);
        let mut messages = vec![message];
        while judged.is_ok() && messages.len() < INBOX_BATCH {
            let Some(next) = self.next_cheap(connection) else { break };
            if may_write && !next.chunks.is_empty() {
                let more;
                (more, judged) = match change::unpack(&next.chunks) {
                    Ok(changes) => self.judge_all(changes, &sender),
                    Err(error) => (Intake::default(), Err(error.into())),
                };
                intake.records.extend(more.records);
                intake.rejections.extend(more.rejections);
            }
            messages.push(next);
        }
        if intake.records.is_empty() {
            self.reject(connection, intake.rejections);
            messages.into_iter().for_each(|message| self.finish_message(connection, message));
        } else {
            let id = self.append(connection, intake.records);
            self.reject(connection, intake.rejections);
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.busy = Some(Busy::Appending(id, messages));
            }
        }
        judged
    }

    /// The next message that waits, if taking it takes no time.
    fn next_cheap(&mut self, connection: ConnectionId) -> Option<sync::Message> {
        let inbox = &mut self.peers.get_mut(&connection)?.inbox;
        inbox.pop_front_if(|message| change::is_cheap(&message.chunks))
    }

    /// Tells a peer what was refused, as soon as everything that this may rest on is durable.
    fn reject(&mut self, connection: ConnectionId, rejections: Vec<Rejection>) {
        if rejections.is_empty() {
            return;
        }
        match self.appends.back_mut() {
            Some(append) => append.rejections.push((connection, rejections)),
            None => self.send_rejections(connection, rejections),
        }
    }

    fn send_rejections(&mut self, connection: ConnectionId, rejections: Vec<Rejection>) {
        let outgoing = Outgoing::Rejected(rejections);
        self.effects.push_back(Effect::Send { connection, outgoing });
    }

    /// Judges changes in order, as long as there is room for orphans, and time. Also says whether there was enough for all.
    fn judge_all(&mut self, changes: Vec<Change>, sender: &PeerId) -> (Intake, Result<(), PeerFault>) {
        let mut intake = Intake::default();
        let steps_max = self.history.steps() + GATE_STEPS_MAX + GATE_STEPS_PER_CHANGE * changes.len() as u64;
        for change in changes {
            if !self.accept(change, sender.as_str(), &mut intake) {
                return (intake, Err(PeerFault::TooManyOrphans));
            }
            if self.history.steps() > steps_max {
                return (intake, Err(PeerFault::TooCostly));
            }
        }
        (intake, Ok(()))
    }

    fn append(&mut self, sender: ConnectionId, records: Vec<Record>) -> AppendId {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        if self.life == Life::Alive && records.contains(&Record::Tombstone) {
            self.life = Life::Ending(id);
        }
        self.appends.push_back(Append {
            id,
            sender,
            history_len: self.history.staged_len(),
            rejections: Vec::new(),
        });
        self.effects.push_back(Effect::Append { id, records });
        id
    }

    /// Judges a change and adds what is to be stored. `false` if there is no room for another orphan.
    fn accept(&mut self, change: Change, sender: &str, intake: &mut Intake) -> bool {
        if self.refuse_ended(change.hash, intake) {
            return true;
        }
        if let Some(reason) = self.rejected.get(&change.hash) {
            intake.rejections.push(Rejection { hash: change.hash, reason: reason.clone() });
            return true;
        }
        if self.orphans.contains(&change.hash) {
            return true;
        }
        match self.history.admit(&change) {
            Verdict::Known => {}
            Verdict::Fits => {
                intake.records.push(Record::Change { bytes: change.bytes });
                self.admit_orphans(change.hash, intake);
            }
            Verdict::Orphan => {
                if !intake.is_restore && !self.orphans.has_room_for(&change) {
                    return false;
                }
                intake.records.push(Record::Change { bytes: change.bytes.clone() });
                self.orphans.insert(change, sender.to_owned(), |hash| self.history.contains_staged(hash));
            }
            Verdict::Refused(refusal) => self.refuse(change, refusal, sender, intake),
        }
        true
    }

    /// Admits every orphan for which a change was the last thing missing. Those are stored already, or are about to be.
    fn admit_orphans(&mut self, arrived: ChangeHash, intake: &mut Intake) {
        let mut arrived = vec![arrived];
        while let Some(hash) = arrived.pop() {
            let is_there = |hash: &ChangeHash| self.history.contains_staged(hash);
            for (orphan, sender) in self.orphans.take_ready(&hash, is_there) {
                match self.history.admit(&orphan) {
                    Verdict::Fits => arrived.push(orphan.hash),
                    Verdict::Refused(refusal) => self.refuse(orphan, refusal, &sender, intake),
                    Verdict::Known | Verdict::Orphan => {}
                }
            }
        }
    }

    fn refuse(&mut self, change: Change, refusal: Refusal, sender: &str, intake: &mut Intake) {
        let reason = refusal.to_string();
        intake.refused.get_or_insert((change.hash, refusal));
        intake.rejections.push(Rejection { hash: change.hash, reason: reason.clone() });
        if self.quarantined < QUARANTINE_MAX {
            self.quarantined += 1;
            let (hash, peer, bytes) = (change.hash, sender.to_owned(), change.bytes);
            intake.records.push(Record::Quarantine { hash, reason: reason.clone(), peer, bytes });
        }
        if self.rejected.len() < REJECTED_MAX {
            self.rejected.insert(change.hash, reason);
        }
    }

    /// The sender's message counts now; unless the connection is gone, or joined again meanwhile.
    fn finish_append(&mut self, connection: ConnectionId, id: AppendId) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let is_this = |busy: &mut Busy| matches!(busy, Busy::Appending(of, _) if *of == id);
        let Some(Busy::Appending(_, messages)) = peer.busy.take_if(is_this) else { return };
        messages.into_iter().for_each(|message| self.finish_message(connection, message));
        if let Err(fault) = self.take_inbox(connection) {
            self.close(connection, fault);
        }
    }

    /// The changes of the message are durable as far as they ever will be: now it counts.
    fn finish_message(&mut self, connection: ConnectionId, message: sync::Message) {
        if self.is_deleted() {
            return self.answer_deleted(connection, &message);
        }
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.state.receive(&self.history, message);
        peer.is_owed_answer = true;
        self.stale.insert(connection);
        let is_short = peer.state.their_heads().len() <= REMOTE_HEADS_MAX;
        if let Some(storage) = peer.info.storage.as_ref().filter(|_| is_short) {
            let heads = peer.state.their_heads().to_vec();
            let entry = RemoteHeads { storage: storage.clone(), heads, timestamp: self.now_ms };
            self.remote_heads.learn(connection, entry);
            self.announce_remote_heads();
        }
    }

    /// Takes the messages that waited, up to the next one with changes.
    fn take_inbox(&mut self, connection: ConnectionId) -> Result<(), PeerFault> {
        loop {
            let Some(peer) = self.peers.get_mut(&connection).filter(|peer| peer.busy.is_none()) else {
                return Ok(());
            };
            let Some(message) = peer.inbox.pop_front() else { return Ok(()) };
            self.take_message(connection, message)?;
        }
    }

    fn close(&mut self, connection: ConnectionId, fault: PeerFault) {
        self.detach(connection);
        self.effects.push_back(Effect::Close { connection, fault });
    }

    fn generate(&mut self, connection: ConnectionId) -> Option<sync::Message> {
        let peer = self.peers.get_mut(&connection)?;
        // Its answer comes with the end of the append; one now would be followed by another. But who sends and sends must not wait for ever.
        let is_owed = std::mem::take(&mut peer.is_owed_answer);
        if matches!(peer.busy, Some(Busy::Appending(..))) && !is_owed {
            return None;
        }
        let need = missing(&self.history, &self.orphans, &self.rejected, peer.state.their_heads());
        let bring = match peer.state.generate(&self.history, need) {
            Next::Nothing => return None,
            Next::Message(message) => return Some(message),
            Next::NeedsSnapshot => Effect::LoadSnapshot,
            Next::NeedsChanges(places) => {
                Effect::Bring { changes: places.into_iter().map(|index| *self.history.hash(index)).collect() }
            }
        };
        peer.is_owed_answer = is_owed;
        self.hungry.insert(connection);
        if !std::mem::replace(&mut self.is_bringing, true) {
            self.effects.push_back(bring);
        }
        None
    }

    /// Tells those who asked that there is no such document: once nothing is on its way to disk and nobody is about to upload it.
    fn answer_waiting(&mut self) -> Option<Effect> {
        if self.waiting.is_empty() || !self.appends.is_empty() || !self.uploads.is_empty() {
            return None;
        }
        if !self.history.is_empty() {
            self.waiting.clear();
            return None;
        }
        let asked = self.waiting.iter().copied().find(|asked| !self.is_uploading(*asked))?;
        self.waiting.remove(&asked);
        Some(Effect::Send { connection: asked, outgoing: Outgoing::Unavailable })
    }

    /// Whether a peer other than `except` has changes that have not all arrived.
    fn is_uploading(&self, except: ConnectionId) -> bool {
        self.peers.iter().any(|(connection, peer)| {
            let promised = peer.state.their_heads().iter().any(|head| !self.rejected.contains_key(head));
            *connection != except && peer.info.may_write && (peer.busy.is_some() || promised)
        })
    }

    /// Passes on what is new about other storages, as far as it is durable here.
    fn announce_remote_heads(&mut self) {
        if !self.has_followers {
            return;
        }
        for (from, entry) in self.remote_heads.take_news(&self.history) {
            let interested = self.peers.iter().filter(|(connection, peer)| {
                **connection != from
                    && peer.info.subscriptions.contains(&entry.storage)
                    && peer.info.storage.as_ref() != Some(&entry.storage)
            });
            self.effects.extend(interested.map(|(connection, _)| Effect::Send {
                connection: *connection,
                outgoing: Outgoing::RemoteHeads(vec![entry.clone()]),
            }));
        }
    }

    fn send_remote_heads(&mut self, connection: ConnectionId, heads: Vec<RemoteHeads>) {
        if !heads.is_empty() {
            self.effects.push_back(Effect::Send { connection, outgoing: Outgoing::RemoteHeads(heads) });
        }
    }
}

/// The changes to ask a peer for by name: those that its heads lead to and that we neither have nor wait for nor refuse.
fn missing(
    history: &History,
    orphans: &Orphans,
    rejected: &HashMap<ChangeHash, String>,
    heads: &[ChangeHash],
) -> Vec<ChangeHash> {
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut stack = heads.to_vec();
    while let Some(hash) = stack.pop() {
        if history.contains_staged(&hash) || rejected.contains_key(&hash) || !seen.insert(hash) {
            continue;
        }
        match orphans.get(&hash) {
            Some(orphan) => stack.extend(&orphan.deps),
            None => {
                missing.insert(hash);
            }
        }
    }
    missing.into_iter().collect()
}
