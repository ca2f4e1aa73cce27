//! The client as a state machine: what comes in, what goes out, and when to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use highwater_core::limits::CONNECTION_DOCUMENTS_MAX;
use highwater_core::wire::{Body, EXTENSION_VERSION, Message, PROTOCOL_VERSION, PeerMetadata};
use highwater_core::{DocumentId, PeerId, StorageId};

use super::link::{Link, LinkOptions, Order};
use super::registry::{Ended, Entry, Shared};
use super::replica::Effects;
use super::{Millis, Random};
use crate::limits::ASK_AFTER;

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
            opened: BTreeSet::new(),
            queries: 0,
        }
    }

    /// Looks what the application wants. To be called whenever it may want something.
    pub(crate) fn handle_wishes(&mut self, now: Millis) {
        let wants_connection = std::mem::take(&mut self.shared.lock().wants_connection);
        if wants_connection && !self.is_over() {
            self.link.wake(now);
            self.follow_link();
        }
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
            Body::DocUnavailable { document } => self.with(document, |replica| {
                replica.unavailable();
                Effects::default()
            }),
            Body::Rejected { document, changes } => self.with(document, |replica| {
                replica.reject(changes);
                Effects::default()
            }),
            Body::Durable { document, query, durable, .. } => {
                self.with(document, |replica| replica.mark_durable(&durable));
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
        let can_ask = self.server.as_ref().is_some_and(|server| server.has_extension);
        let Some(entry) = self.shared.entry(document).filter(|_| can_ask) else { return };
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
        self.link.poll_timeout().into_iter().chain(asks).min()
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
        let is_due = || self.asks.values().any(|at| *at <= now);
        self.link.is_open() && (is_due() || self.has_more())
    }

    /// The next frame to send. To be called when the socket takes one: what happens until then goes into the same frame.
    pub(crate) fn poll_frame(&mut self, now: Millis) -> Option<Bytes> {
        if let Some(join) = self.join.take() {
            return Some(join);
        }
        if !self.link.is_open() {
            return None;
        }
        self.poll_question().or_else(|| self.poll_ask(now)).or_else(|| self.poll_sync(now))
    }

    fn has_more(&self) -> bool {
        let registry = self.shared.lock();
        registry.has_dirty() || !registry.questions.is_empty()
    }

    fn poll_question(&mut self) -> Option<Bytes> {
        let mut registry = self.shared.lock();
        let question = registry.questions.pop_front()?;
        self.queries += 1;
        let (document, hash) = (question.document, question.hash);
        registry.asked.insert(self.queries, question);
        drop(registry);
        self.opened.insert(document);
        self.frame(Body::Have { document, query: self.queries, hashes: vec![hash] })
    }

    fn poll_ask(&mut self, now: Millis) -> Option<Bytes> {
        while let Some(document) = self.asks.iter().find(|(_, at)| **at <= now).map(|(document, _)| *document)
        {
            self.asks.remove(&document);
            let hashes =
                self.shared.entry(document).map(|entry| entry.lock().undecided()).unwrap_or_default();
            if !hashes.is_empty() {
                self.queries += 1;
                return self.frame(Body::Have { document, query: self.queries, hashes });
            }
        }
        None
    }

    fn poll_sync(&mut self, now: Millis) -> Option<Bytes> {
        loop {
            let entry = self.shared.lock().take_dirty()?;
            let document = entry.id;
            if !self.opened.contains(&document) && self.opened.len() >= CONNECTION_DOCUMENTS_MAX {
                // The server keeps open what was opened, also what is closed here. A new connection begins with what is open now.
                self.shared.lock().mark_dirty(document);
                self.link.renew(now);
                self.follow_link();
                return None;
            }
            let generated = entry.lock().generate();
            match generated {
                Ok(None) => {}
                Ok(Some((is_request, data))) => {
                    self.opened.insert(document);
                    let data = Bytes::from(data);
                    let body = if is_request {
                        Body::Request { document, data }
                    } else {
                        Body::Sync { document, data }
                    };
                    return self.frame(body);
                }
                Err(why) => {
                    self.handle_unreadable(now, &why);
                    return None;
                }
            }
        }
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
