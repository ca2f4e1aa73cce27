//! The client as a state machine: what comes in, what goes out, and when to look again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use highwater_core::limits::CONNECTION_DOCUMENTS_MAX;
use highwater_core::wire::{Body, EXTENSION_VERSION, Message, PROTOCOL_VERSION, PeerMetadata};
use highwater_core::{ChangeHash, DocumentId, PeerId, StorageId};

use super::link::{Link, LinkOptions, Order};
use super::patience::Patience;
use super::registry::{Ended, Entry, Shared, Wanted};
use super::replica::{Effects, Repeat};
use super::{Millis, Random};
use crate::limits::ASK_AFTER;

/// A hash that no change has. Asked about it, the server says whether the document was deleted.
const NO_CHANGE: ChangeHash = ChangeHash([0; 32]);

/// A sync message for one document. Taking it in may take long, so it is for the driver to decide where.
#[derive(Debug)]
pub(crate) struct Incoming {
    entry: Arc<Entry>,
    /// The sync message.
    pub(crate) data: Bytes,
}

impl Incoming {
    /// Takes the message in. `now` in milliseconds since 1970. An error means that the connection is of no use any more.
    pub(crate) fn take_in(self, shared: &Shared, now: u64) -> Result<DocumentId, String> {
        let mut replica = self.entry.lock();
        let received = replica.receive(self.data, now);
        let (effects, result) = match received {
            Ok(effects) => (effects, Ok(self.entry.id)),
            Err(why) => (Effects::default(), Err(why)),
        };
        shared.note(&self.entry, &replica, effects);
        result
    }
}

/// The server of the present connection.
#[derive(Debug)]
struct Server {
    peer: PeerId,
    has_extension: bool,
}

/// A client's side of the protocol.
#[derive(Debug)]
pub(crate) struct Machine {
    shared: Arc<Shared>,
    link: Link,
    me: PeerId,
    join: Option<Bytes>,
    server: Option<Server>,
    /// The storage of the last server; nothing before the first.
    storage: Option<Option<StorageId>>,
    /// When to ask about documents that the server's heads say nothing of.
    asks: BTreeMap<DocumentId, Millis>,
    patience: Patience,
    /// A frame that belongs behind the last one.
    next: Option<Bytes>,
    /// Documents that the server does not have; to be asked whether they were deleted.
    unavailable: BTreeSet<DocumentId>,
    /// Those of them that it was asked about, with the query.
    asked_unavailable: BTreeMap<DocumentId, u64>,
    /// Documents that the server has open for this connection; it never lets go of one.
    opened: BTreeSet<DocumentId>,
    queries: u64,
}

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, me: PeerId, options: LinkOptions, random: Random) -> Self {
        Self {
            shared,
            link: Link::new(options, random),
            me,
            join: None,
            server: None,
            storage: None,
            asks: BTreeMap::new(),
            patience: Patience::default(),
            next: None,
            unavailable: BTreeSet::new(),
            asked_unavailable: BTreeMap::new(),
            opened: BTreeSet::new(),
            queries: 0,
        }
    }

    /// Looks what the application wants. To be called whenever it may want something.
    pub(crate) fn handle_wishes(&mut self, now: Millis) {
        let wanted = std::mem::take(&mut self.shared.lock().wanted);
        if self.is_over() {
            return;
        }
        match wanted {
            Wanted::Nothing => return,
            Wanted::Haste => self.link.hurry(now),
            Wanted::Connection => self.link.wake(now),
        }
        self.patience.hurry();
        self.follow_link();
    }

    /// The application has closed the client.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().ended == Ended::Closed
    }

    /// The socket is open: the client speaks first.
    pub(crate) fn handle_open(&mut self) {
        let metadata = PeerMetadata {
            is_ephemeral: true,
            extension: Some(EXTENSION_VERSION),
            ..PeerMetadata::default()
        };
        let body = Body::Join { metadata, versions: vec![PROTOCOL_VERSION.to_owned()] };
        self.join = Some(Message { sender: Some(self.me.clone()), target: None, body }.encode());
    }

    /// The socket has ended, or could not be opened.
    pub(crate) fn handle_closed(&mut self, now: Millis, code: u16, reason: &str) {
        tracing::info!(code, reason, "there is no connection any more");
        self.link.closed(now, code, reason);
        self.follow_link();
    }

    /// Something that is no message came in: a sign of life.
    pub(crate) fn handle_alive(&mut self, now: Millis) {
        self.link.alive(now);
    }

    /// A sync message could not be taken in: only a new connection starts afresh.
    pub(crate) fn handle_unreadable(&mut self, now: Millis, why: &str) {
        tracing::warn!(why, "the server sent what cannot be read, connecting anew");
        self.link.give_up(now);
        self.follow_link();
    }

    /// A message came in. A sync message is handed back, to be taken in by the driver.
    pub(crate) fn handle_frame(&mut self, now: Millis, frame: &Bytes) -> Option<Incoming> {
        self.link.alive(now);
        let message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                self.handle_unreadable(now, &error.to_string());
                return None;
            }
        };
        match message.body {
            Body::Peer { metadata, .. } => self.welcome(now, message.sender, metadata),
            Body::Error { message } => self.link.explain(&message),
            Body::Sync { document, data } | Body::Request { document, data } => {
                let entry = self.shared.entry(document).filter(|_| self.link.is_open())?;
                return Some(Incoming { entry, data });
            }
            Body::DocUnavailable { document } => self.doc_unavailable(document),
            Body::Rejected { document, changes } => self.with(document, |replica| {
                replica.reject(changes);
                Effects::default()
            }),
            Body::Durable { document, query, durable, .. } => {
                self.with(document, |replica| replica.mark_durable(&durable));
                if self.asked_unavailable.get(&document) == Some(&query) {
                    self.asked_unavailable.remove(&document);
                    self.set_unavailable(document);
                }
                let question = self.shared.lock().asked.remove(&query);
                if let Some(question) = question {
                    // Whoever asked may be gone.
                    let _ = question.answer.send(durable.contains(&question.hash));
                }
            }
            // Of other peers, or of no use to us.
            Body::Join { .. }
            | Body::Ephemeral(_)
            | Body::RemoteSubscriptionChange { .. }
            | Body::RemoteHeadsChanged { .. }
            | Body::Leave
            | Body::Have { .. }
            | Body::Unknown { .. } => {}
        }
        None
    }

    /// A sync message was taken in.
    pub(crate) fn handle_taken_in(&mut self, now: Millis, document: DocumentId) {
        let Some(entry) = self.shared.entry(document).filter(|_| self.can_ask()) else { return };
        if !entry.lock().undecided().is_empty() {
            self.asks.entry(document).or_insert(now + ASK_AFTER.as_millis() as Millis);
        }
    }

    /// The time has come that [`poll_timeout`](Self::poll_timeout) said.
    pub(crate) fn handle_timeout(&mut self, now: Millis) {
        self.link.timeout(now);
        self.follow_link();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), or to look for frames again.
    pub(crate) fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        // Those that are due wait for the socket.
        let asks = self.asks.values().copied().filter(|at| *at > now);
        self.link.poll_timeout().into_iter().chain(asks).chain(self.patience.next(now)).min()
    }

    /// What to do with the socket.
    pub(crate) fn poll_order(&mut self) -> Option<Order> {
        self.link.poll_order()
    }

    /// Whether [`poll_frame`](Self::poll_frame) is worth calling.
    pub(crate) fn has_frames(&self, now: Millis) -> bool {
        if self.join.is_some() {
            return true;
        }
        let is_due = || self.asks.values().any(|at| *at <= now) || self.patience.due(now).is_some();
        let is_waiting = self.next.is_some() || !self.unavailable.is_empty();
        self.link.is_open() && (is_waiting || is_due() || self.has_more())
    }

    /// The next frame to send. To be called when the socket takes one: what happens until then goes into the same frame.
    pub(crate) fn poll_frame(&mut self, now: Millis) -> Option<Bytes> {
        if let Some(join) = self.join.take() {
            return Some(join);
        }
        if !self.link.is_open() {
            return None;
        }
        self.next
            .take()
            .or_else(|| self.poll_question(now))
            .or_else(|| self.poll_unavailable())
            .or_else(|| self.poll_ask(now))
            .or_else(|| self.poll_sync(now))
            .or_else(|| self.poll_repeat(now))
    }

    fn has_more(&self) -> bool {
        let registry = self.shared.lock();
        registry.has_dirty() || !registry.questions.is_empty()
    }

    /// The server keeps open what was opened, also what is closed here. When it would be too much a new connection begins, with what is open now.
    fn make_room(&mut self, now: Millis, document: DocumentId) -> bool {
        let has_room = self.opened.contains(&document) || self.opened.len() < CONNECTION_DOCUMENTS_MAX;
        if !has_room {
            self.link.renew(now);
            self.follow_link();
        }
        has_room
    }

    fn poll_question(&mut self, now: Millis) -> Option<Bytes> {
        let question = self.shared.lock().questions.pop_front()?;
        let (document, hash) = (question.document, question.hash);
        if !self.make_room(now, document) {
            // Whoever asked is told that the connection has ended.
            return None;
        }
        let asking = self.have(document, vec![hash]);
        self.shared.lock().asked.insert(self.queries, question);
        self.opened.insert(document);
        self.frame(asking)
    }

    fn poll_unavailable(&mut self) -> Option<Bytes> {
        let document = self.unavailable.pop_first()?;
        let asking = self.have(document, vec![NO_CHANGE]);
        self.asked_unavailable.insert(document, self.queries);
        self.frame(asking)
    }

    /// The next question whether changes are durable.
    fn have(&mut self, document: DocumentId, hashes: Vec<ChangeHash>) -> Body {
        self.queries += 1;
        Body::Have { document, query: self.queries, hashes }
    }

    fn poll_ask(&mut self, now: Millis) -> Option<Bytes> {
        while let Some(document) = self.asks.iter().find(|(_, at)| **at <= now).map(|(document, _)| *document)
        {
            self.asks.remove(&document);
            let hashes =
                self.shared.entry(document).map(|entry| entry.lock().undecided()).unwrap_or_default();
            if !hashes.is_empty() {
                let asking = self.have(document, hashes);
                return self.frame(asking);
            }
        }
        None
    }

    fn poll_sync(&mut self, now: Millis) -> Option<Bytes> {
        loop {
            let entry = self.shared.lock().take_dirty()?;
            let document = entry.id;
            if !self.make_room(now, document) {
                self.shared.lock().mark_dirty(document);
                return None;
            }
            let (generated, awaited) = {
                let mut replica = entry.lock();
                (replica.generate(), replica.awaited())
            };
            self.patience.expect(now, document, awaited);
            let Some((is_request, data)) = generated else { continue };
            self.opened.insert(document);
            let data = Bytes::from(data);
            let body =
                if is_request { Body::Request { document, data } } else { Body::Sync { document, data } };
            return self.frame(body);
        }
    }

    fn poll_repeat(&mut self, now: Millis) -> Option<Bytes> {
        while let Some(document) = self.patience.due(now) {
            let Some(Repeat { ask, message, .. }) = self.repeat(now, document) else { continue };
            let question = (self.can_ask() && !ask.is_empty()).then(|| self.have(document, ask));
            let bodies = question.into_iter().chain(message.map(|data| Body::Sync { document, data }));
            let mut frames: VecDeque<Bytes> = bodies.filter_map(|body| self.frame(body)).collect();
            if let Some(first) = frames.pop_front() {
                self.opened.insert(document);
                self.next = frames.pop_front();
                return Some(first);
            }
        }
        None
    }

    /// What is to be said again of a document that is due, if the server has gone on saying nothing.
    fn repeat(&mut self, now: Millis, document: DocumentId) -> Option<Repeat> {
        let entry = self.shared.entry(document);
        let mut replica = entry.as_ref().map(|entry| entry.lock());
        self.patience.expect(now, document, replica.as_ref().and_then(|replica| replica.awaited()));
        if self.patience.due(now) != Some(document) {
            return None;
        }
        let repeat = replica.as_mut()?.repeat();
        self.patience.renew(now, document, repeat.is_all);
        Some(repeat)
    }

    /// The server does not have the document. Clients of automerge-repo know no other word for that than for a deletion, so a server with more words is asked.
    fn doc_unavailable(&mut self, document: DocumentId) {
        let Some(entry) = self.shared.entry(document) else { return };
        if !self.can_ask() {
            self.set_unavailable(document);
        } else if entry.lock().may_be_deleted() && !self.asked_unavailable.contains_key(&document) {
            self.unavailable.insert(document);
        }
    }

    fn set_unavailable(&self, document: DocumentId) {
        self.with(document, |replica| {
            replica.unavailable();
            Effects::default()
        });
    }

    fn can_ask(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.has_extension)
    }

    fn welcome(&mut self, now: Millis, peer: Option<PeerId>, metadata: PeerMetadata) {
        let Some(peer) = peer.filter(|_| self.link.is_connecting()) else { return };
        let has_extension = metadata.extension.is_some_and(|version| version >= EXTENSION_VERSION);
        self.server = Some(Server { peer, has_extension });
        let is_other = self.storage.as_ref().is_some_and(|before| *before != metadata.storage_id);
        self.storage = Some(metadata.storage_id);
        self.link.ready(now);
        for entry in self.shared.entries() {
            let mut replica = entry.lock();
            replica.connected();
            if is_other {
                replica.doubt();
            }
            self.shared.note(&entry, &replica, Effects { send: true, ..Effects::default() });
        }
        self.shared.set_connected(true, has_extension);
    }

    /// Tells everybody when the connection is not what it was.
    fn follow_link(&mut self) {
        if !self.link.is_open() && self.server.take().is_some() {
            self.asks.clear();
            self.patience.clear();
            self.next = None;
            self.unavailable.clear();
            self.asked_unavailable.clear();
            self.opened.clear();
            self.shared.set_connected(false, false);
        }
        if !self.link.is_connecting() {
            self.join = None;
        }
        let stopped = self.link.stopped();
        let is_known = match &self.shared.lock().ended {
            Ended::Stopped(known) => stopped == Some(known),
            Ended::No => stopped.is_none(),
            Ended::Closed => true,
        };
        if !is_known {
            self.shared.set_stopped(stopped);
        }
    }

    fn with(&self, document: DocumentId, change: impl FnOnce(&mut super::replica::Replica) -> Effects) {
        if let Some(entry) = self.shared.entry(document) {
            let mut replica = entry.lock();
            let effects = change(&mut replica);
            self.shared.note(&entry, &replica, effects);
        }
    }

    fn frame(&self, body: Body) -> Option<Bytes> {
        let target = Some(self.server.as_ref()?.peer.clone());
        Some(Message { sender: Some(self.me.clone()), target, body }.encode())
    }

    /// Ends the connection.
    pub(crate) fn end(&mut self) {
        self.link.end();
        self.follow_link();
    }
}
