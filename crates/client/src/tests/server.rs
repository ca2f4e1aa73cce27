//! A sync server without a network and with a disk that can be slow: what it is sent becomes part of a document some time later, and only then
//! does it speak of it. A kill loses what was not committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{Automerge, Change, ROOT};
use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::document::DELETED;
use highwater_core::wire::{Body, EXTENSION_VERSION, Message, PeerMetadata, Rejection, encode_peer};
use highwater_core::{ChangeHash, DocumentId, PeerId, StorageId};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::line::{Closed, Dial, Event, Line as Socket, Out};

/// Changes with this message are refused.
pub(super) const REFUSED: &str = "to be refused";

const LATENCY: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// New sockets reach the server.
    Up,
    /// There is nobody.
    Refused,
    /// There is no answer at all.
    Silent,
}

/// A client's way to the server, which the test can cut.
#[derive(Clone)]
pub(super) struct Line {
    server: FakeServer,
    number: usize,
}

#[derive(Clone)]
pub(super) struct FakeServer {
    state: Arc<Mutex<State>>,
    work: Arc<Notify>,
}

pub(super) struct State {
    pub(super) documents: BTreeMap<DocumentId, Automerge>,
    lines: Vec<LineState>,
    sockets: BTreeMap<usize, Accepted>,
    next_socket: usize,
    queue: Vec<(usize, DocumentId, Bytes, bool)>,
    pub(super) is_running: bool,
    pub(super) commit_ms: u64,
    pub(super) is_extended: bool,
    pub(super) storage: Option<String>,
    /// What it had before it was restored or replaced; by the number of times.
    past: Vec<BTreeMap<DocumentId, Automerge>>,
    backup: BTreeMap<DocumentId, Automerge>,
    /// If set, others are refused.
    pub(super) token: Option<String>,
    /// How many frames have come in.
    pub(super) frames: usize,
    /// Documents that were asked for.
    pub(super) asked_for: BTreeSet<DocumentId>,
    /// Documents that were deleted, as they were then.
    deleted: BTreeMap<DocumentId, Automerge>,
    /// Sync messages that are lost on the server's side.
    pub(super) loses: fn(&stock::Message) -> bool,
    /// What it keeps to itself.
    pub(super) withholds: fn(&Body) -> bool,
    /// What sync messages brought, with their sizes.
    pub(super) brought: Vec<usize>,
}

struct LineState {
    mode: Mode,
    dials: usize,
    /// Which of its pasts the server was in when the client last got to it.
    connected_to: usize,
    /// What was told to the client over this line: heads and durable hashes, and when.
    told: Vec<(Instant, DocumentId, ChangeHash)>,
}

/// With the time at which it was sent.
type Deliver = mpsc::UnboundedSender<(Instant, Event)>;

struct Accepted {
    line: usize,
    peer: Option<PeerId>,
    is_extended: bool,
    states: BTreeMap<DocumentId, stock::State>,
    /// What was last said.
    last: BTreeMap<DocumentId, Bytes>,
    /// Documents of which it was told that they were deleted.
    told_deleted: BTreeSet<DocumentId>,
    /// To the client.
    deliver: Deliver,
}

impl FakeServer {
    pub(super) fn new() -> Self {
        let state = State {
            documents: BTreeMap::new(),
            lines: Vec::new(),
            sockets: BTreeMap::new(),
            next_socket: 0,
            queue: Vec::new(),
            is_running: true,
            commit_ms: 1,
            is_extended: true,
            storage: Some("storage".to_owned()),
            past: Vec::new(),
            backup: BTreeMap::new(),
            token: None,
            frames: 0,
            asked_for: BTreeSet::new(),
            deleted: BTreeMap::new(),
            loses: |_| false,
            withholds: |_| false,
            brought: Vec::new(),
        };
        let server = Self { state: Arc::new(Mutex::new(state)), work: Arc::default() };
        tokio::spawn(server.clone().commit());
        server
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn line(&self) -> Line {
        let mut state = self.lock();
        let mode = if state.is_running { Mode::Up } else { Mode::Refused };
        state.lines.push(LineState { mode, dials: 0, connected_to: 0, told: Vec::new() });
        Line { server: self.clone(), number: state.lines.len() - 1 }
    }

    /// Whether the change is durable here.
    pub(super) fn has(&self, document: DocumentId, hash: ChangeHash) -> bool {
        let state = self.lock();
        state.documents.get(&document).is_some_and(|doc| doc.get_change_meta_by_hash(&hash).is_some())
    }

    /// Whether the change was ever durable here, or on what was here before.
    pub(super) fn ever_had(&self, document: DocumentId, hash: ChangeHash) -> bool {
        let state = self.lock();
        let docs = state
            .past
            .iter()
            .chain([&state.documents, &state.deleted])
            .filter_map(|documents| documents.get(&document));
        docs.into_iter().any(|doc| doc.get_change_meta_by_hash(&hash).is_some())
    }

    /// Somebody else changes the document, durably.
    pub(super) fn edit(&self, document: DocumentId, value: i64) {
        let mut state = self.lock();
        assert!(!state.deleted.contains_key(&document));
        let doc = state.documents.entry(document).or_default();
        let mut tx = doc.transaction();
        tx.put(ROOT, "other", value).unwrap();
        tx.commit();
        state.answer_all(document);
    }

    /// Deletes the document for good, and tells everybody who has it open.
    pub(super) fn delete(&self, document: DocumentId) {
        let mut state = self.lock();
        let doc = state.documents.remove(&document).unwrap_or_default();
        state.deleted.insert(document, doc);
        let has_it = |socket: &Accepted| socket.states.contains_key(&document);
        let open: Vec<usize> =
            state.sockets.iter().filter(|(_, socket)| has_it(socket)).map(|(number, _)| *number).collect();
        for number in open {
            state.tell_deleted(number, document);
        }
    }

    pub(super) fn back_up(&self) {
        let mut state = self.lock();
        state.backup = state.documents.clone();
    }

    /// Has lost what came since the backup, and does not know it.
    pub(super) fn restore(&self) {
        let mut state = self.lock();
        let backup = state.backup.clone();
        state.begin_anew(backup);
    }

    /// The same of a server on which something was deleted since.
    pub(super) fn restore_deleted(&self) {
        self.lock().deleted.clear();
        self.restore();
    }

    /// There is another server at the same address, which has nothing.
    pub(super) fn replace(&self) {
        let mut state = self.lock();
        state.begin_anew(BTreeMap::new());
        state.deleted.clear();
        state.storage = Some(format!("storage {}", state.past.len()));
    }

    /// Whether the server that the client last got to on this line has the change, durably.
    pub(super) fn has_for(&self, line: &Line, document: DocumentId, hash: ChangeHash) -> bool {
        let state = self.lock();
        let documents = state.past.get(state.lines[line.number].connected_to).unwrap_or(&state.documents);
        documents.get(&document).is_some_and(|doc| doc.get_change_meta_by_hash(&hash).is_some())
    }

    /// Stops as after SIGTERM: commits what it has, and says when to come back.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.commit_queue();
        state.end(1012, "restarting; retry in 200 ms");
    }

    /// Stops as after kill -9.
    pub(super) fn kill(&self) {
        let mut state = self.lock();
        state.queue.clear();
        state.end(1006, "");
    }

    pub(super) fn start(&self) {
        let mut state = self.lock();
        state.is_running = true;
        for line in state.lines.iter_mut().filter(|line| line.mode == Mode::Refused) {
            line.mode = Mode::Up;
        }
    }

    /// Closes every connection with this code.
    pub(super) fn close_all(&self, code: u16, reason: &str) {
        self.lock().close_all(code, reason);
    }

    /// Commits what came in, a while after it came in, with all that came meanwhile.
    async fn commit(self) {
        loop {
            self.work.notified().await;
            let ms = self.lock().commit_ms;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            self.lock().commit_queue();
        }
    }

    fn receive(&self, number: usize, frame: &Bytes) {
        let mut state = self.lock();
        state.frames += 1;
        let message = Message::decode(frame).expect("the client sends what can be read");
        match message.body {
            Body::Join { metadata, .. } => state.join(number, message.sender, &metadata),
            Body::Sync { document, data } => self.queue(state, number, document, data, false),
            Body::Request { document, data } => self.queue(state, number, document, data, true),
            Body::Have { document, query, hashes } => state.have(number, document, query, hashes),
            other => panic!("a client does not say {other:?}"),
        }
    }

    fn queue(
        &self,
        mut state: MutexGuard<'_, State>,
        number: usize,
        document: DocumentId,
        data: Bytes,
        is_request: bool,
    ) {
        state.asked_for.insert(document);
        state.queue.push((number, document, data, is_request));
        self.work.notify_one();
    }
}

impl State {
    fn end(&mut self, code: u16, reason: &str) {
        self.is_running = false;
        self.close_all(code, reason);
        for line in self.lines.iter_mut().filter(|line| line.mode == Mode::Up) {
            line.mode = Mode::Refused;
        }
    }

    /// Everything ends, and new connections find these documents.
    fn begin_anew(&mut self, documents: BTreeMap<DocumentId, Automerge>) {
        self.queue.clear();
        self.close_all(1006, "");
        let before = std::mem::replace(&mut self.documents, documents);
        self.past.push(before);
    }

    fn close_all(&mut self, code: u16, reason: &str) {
        for (_, socket) in std::mem::take(&mut self.sockets) {
            let _ = socket
                .deliver
                .send((Instant::now(), Event::Closed(Closed { code, reason: reason.to_owned() })));
        }
    }

    fn join(&mut self, number: usize, peer: Option<PeerId>, metadata: &PeerMetadata) {
        let (is_extended, storage) = (self.is_extended, self.storage.clone());
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_extended = is_extended && metadata.extension == Some(EXTENSION_VERSION);
        let metadata = PeerMetadata {
            storage_id: storage.map(|id| StorageId::new(&id).unwrap()),
            is_ephemeral: false,
            extension: is_extended.then_some(EXTENSION_VERSION),
        };
        let _ = socket
            .deliver
            .send((Instant::now(), Event::Frame(encode_peer(&me(), peer.as_ref().unwrap(), metadata))));
        socket.peer = peer;
    }

    fn have(&mut self, number: usize, document: DocumentId, query: u64, hashes: Vec<ChangeHash>) {
        let has = |hash: &ChangeHash| {
            self.documents.get(&document).is_some_and(|doc| doc.get_change_meta_by_hash(hash).is_some())
        };
        let (durable, missing): (Vec<_>, Vec<_>) = hashes.into_iter().partition(has);
        if self.deleted.contains_key(&document) {
            self.say(number, Body::Rejected { document, changes: deletion_of(&missing) });
        }
        self.say(number, Body::Durable { document, query, durable, missing });
    }

    fn commit_queue(&mut self) {
        for (number, document, data, is_request) in std::mem::take(&mut self.queue) {
            self.sync(number, document, &data, is_request);
        }
    }

    fn sync(&mut self, number: usize, document: DocumentId, data: &Bytes, is_request: bool) {
        let mut message = stock::Message::decode(data).expect("a sync message");
        if !message.changes.is_empty() {
            self.brought.push(data.len());
        }
        if (self.loses)(&message) {
            return;
        }
        if self.deleted.contains_key(&document) {
            return self.answer_deleted(number, document, &message, is_request);
        }
        let rejected = self.refuse(document, &mut message);
        let doc = self.documents.entry(document).or_default();
        match self.sockets.get_mut(&number) {
            Some(socket) => {
                let state = socket.states.entry(document).or_default();
                doc.receive_sync_message(state, message).unwrap();
            }
            // The connection is gone, what came over it is not.
            None => doc.receive_sync_message(&mut stock::State::new(), message).unwrap(),
        }
        let is_empty = doc.get_heads().is_empty();
        if !rejected.is_empty() {
            self.say(number, Body::Rejected { document, changes: rejected });
        }
        if is_request && is_empty {
            self.say(number, Body::DocUnavailable { document });
        } else {
            self.answer_all(document);
        }
    }

    /// As the server: every change is refused, and the first message is answered, or one that asks.
    fn answer_deleted(
        &mut self,
        number: usize,
        document: DocumentId,
        message: &stock::Message,
        is_request: bool,
    ) {
        let changes: Vec<ChangeHash> = self.changes_in(document, message).iter().map(Change::hash).collect();
        if !changes.is_empty() {
            self.say(number, Body::Rejected { document, changes: deletion_of(&changes) });
        }
        let is_told = self.sockets.get(&number).is_some_and(|socket| socket.told_deleted.contains(&document));
        if !is_told || is_request {
            self.tell_deleted(number, document);
            if !message.heads.is_empty() {
                self.say(number, Body::Rejected { document, changes: deletion_of(&message.heads) });
            }
        }
    }

    fn tell_deleted(&mut self, number: usize, document: DocumentId) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.told_deleted.insert(document);
        }
        self.say(number, Body::DocUnavailable { document });
    }

    /// Takes the changes out of a message that are to be refused.
    fn refuse(&self, document: DocumentId, message: &mut stock::Message) -> Vec<Rejection> {
        let changes = self.changes_in(document, message);
        let is_refused = |change: &&Change| change.message().is_some_and(|message| message == REFUSED);
        let rejected: Vec<_> = changes.iter().filter(is_refused).map(Change::hash).collect();
        if !rejected.is_empty() {
            let kept = changes.iter().filter(|change| !rejected.contains(&change.hash()));
            message.changes = kept.map(|change| change.raw_bytes().to_vec()).collect::<Vec<_>>().into();
        }
        rejected
            .into_iter()
            .map(|hash| Rejection { hash, reason: "refused by the test".to_owned() })
            .collect()
    }

    /// Changes as they are, and those of a whole document that are not there yet.
    fn changes_in(&self, document: DocumentId, message: &stock::Message) -> Vec<Change> {
        let sent = highwater_core::sync::Message::decode(message.clone().encode().into()).unwrap();
        let mut changes = Vec::new();
        for chunk in sent.chunks {
            match Change::from_bytes(chunk.to_vec()) {
                Ok(change) => changes.push(change),
                Err(_) => {
                    let mut all = self.documents.get(&document).cloned().unwrap_or_default();
                    let before = all.get_heads();
                    all.load_incremental(&chunk).unwrap();
                    changes.extend(all.get_changes(&before));
                }
            }
        }
        changes
    }

    fn answer_all(&mut self, document: DocumentId) {
        let Some(doc) = self.documents.get(&document) else { return };
        let mut answers = Vec::new();
        for (number, socket) in &mut self.sockets {
            let Some(state) = socket.states.get_mut(&document) else { continue };
            let Some(message) = doc.generate_sync_message(state) else { continue };
            let data = Bytes::from(message.encode());
            // As the server: where a change was refused, both sides would answer each other for ever.
            if socket.last.insert(document, data.clone()).is_none_or(|last| last != data) {
                answers.push((*number, data));
            }
        }
        for (number, data) in answers {
            self.say(number, Body::Sync { document, data });
        }
    }

    fn say(&mut self, number: usize, body: Body) {
        let Some(socket) = self.sockets.get(&number) else { return };
        let is_extension = matches!(body, Body::Rejected { .. } | Body::Durable { .. });
        if is_extension && !socket.is_extended || (self.withholds)(&body) {
            return;
        }
        let frame = Message { sender: Some(me()), target: socket.peer.clone(), body }.encode();
        let _ = socket.deliver.send((Instant::now(), Event::Frame(frame)));
    }

    fn note_told(&mut self, line: usize, frame: &Bytes) {
        let (document, hashes) = match Message::decode(frame).unwrap().body {
            Body::Peer { .. } => {
                self.lines[line].connected_to = self.past.len();
                return;
            }
            Body::Sync { document, data } => (document, stock::Message::decode(&data).unwrap().heads),
            Body::Durable { document, durable, .. } => (document, durable),
            _ => return,
        };
        let now = Instant::now();
        self.lines[line].told.extend(hashes.into_iter().map(|hash| (now, document, hash)));
    }
}

fn deletion_of(hashes: &[ChangeHash]) -> Vec<Rejection> {
    hashes.iter().map(|hash| Rejection { hash: *hash, reason: DELETED.to_owned() }).collect()
}

fn me() -> PeerId {
    PeerId::new("server").unwrap()
}

impl Line {
    /// Existing sockets go silent without an event, as when a laptop changes its network.
    pub(super) fn cut(&self) {
        let mut state = self.server.lock();
        state.lines[self.number].mode = Mode::Silent;
        state.sockets.retain(|_, socket| socket.line != self.number);
    }

    pub(super) fn mend(&self) {
        let mut state = self.server.lock();
        if state.lines[self.number].mode == Mode::Silent {
            state.lines[self.number].mode = if state.is_running { Mode::Up } else { Mode::Refused };
        }
    }

    /// How often the client has tried to connect.
    pub(super) fn dials(&self) -> usize {
        self.server.lock().lines[self.number].dials
    }

    /// Of these changes, those that the client has not been told of as durable, itself or by one that builds on it; as of now, and as of before this very millisecond.
    pub(super) fn untold(
        &self,
        document: DocumentId,
        hashes: &[ChangeHash],
    ) -> (Vec<ChangeHash>, Vec<ChangeHash>) {
        let state = self.server.lock();
        let now = Instant::now();
        let untold = |before: Option<Instant>| {
            let told = state.lines[self.number].told.iter();
            let told = told.filter(|(at, id, _)| *id == document && before.is_none_or(|before| *at < before));
            let told: Vec<_> = told.map(|(_, _, hash)| *hash).collect();
            let Some(doc) = state.documents.get(&document).filter(|_| !told.is_empty()) else {
                return hashes.to_vec();
            };
            let uncovered: BTreeSet<_> = doc.get_changes_meta(&told).iter().map(|meta| meta.hash).collect();
            let is_covered =
                |hash: &ChangeHash| doc.get_change_meta_by_hash(hash).is_some() && !uncovered.contains(hash);
            hashes.iter().filter(|hash| !is_covered(hash)).copied().collect()
        };
        (untold(None), untold(Some(now)))
    }

    fn accept(&self, url: &str) -> Result<Socket, Closed> {
        let mut state = self.server.lock();
        if state.token.as_ref().is_some_and(|token| !url.ends_with(&format!("?token={token}"))) {
            return Err(Closed { code: 4401, reason: "token expired".to_owned() });
        }
        let number = state.next_socket;
        state.next_socket += 1;
        let (deliver, to_deliver) = mpsc::unbounded_channel();
        let accepted = Accepted {
            line: self.number,
            peer: None,
            is_extended: false,
            states: BTreeMap::new(),
            last: BTreeMap::new(),
            told_deleted: BTreeSet::new(),
            deliver: deliver.clone(),
        };
        state.sockets.insert(number, accepted);
        let (events, incoming) = mpsc::channel(1);
        let (outgoing, sent) = mpsc::channel(1);
        tokio::spawn(self.clone().carry_back(number, to_deliver, events));
        tokio::spawn(self.clone().carry_there(number, sent, deliver));
        Ok(Socket { incoming, outgoing })
    }

    fn is_alive(&self, number: usize) -> bool {
        self.server.lock().sockets.contains_key(&number)
    }

    async fn carry_back(
        self,
        number: usize,
        mut to_deliver: mpsc::UnboundedReceiver<(Instant, Event)>,
        events: mpsc::Sender<Event>,
    ) {
        loop {
            let next = tokio::select! {
                next = to_deliver.recv() => next,
                () = events.closed() => break,
            };
            let Some((at, event)) = next else { break };
            tokio::time::sleep_until(at + LATENCY).await;
            let is_end = matches!(event, Event::Closed(_));
            if !is_end && !self.is_alive(number) {
                continue;
            }
            if let Event::Frame(frame) = &event {
                self.server.lock().note_told(self.number, frame);
            }
            if events.send(event).await.is_err() || is_end {
                break;
            }
        }
        self.server.lock().sockets.remove(&number);
    }

    async fn carry_there(self, number: usize, mut sent: mpsc::Receiver<Out>, deliver: Deliver) {
        let (under_way, mut arriving) = mpsc::unbounded_channel();
        let take = async {
            while let Some(out) = sent.recv().await {
                if !self.is_alive(number) {
                    // Nobody takes anything any more, and nobody says so.
                    deliver.closed().await;
                }
                let _ = under_way.send((Instant::now(), out));
            }
            drop(under_way);
        };
        let arrive = async {
            while let Some((at, out)) = arriving.recv().await {
                tokio::time::sleep_until(at + LATENCY).await;
                if !self.is_alive(number) {
                    continue;
                }
                let answer = match out {
                    Out::Frame(frame) => {
                        self.server.receive(number, &frame);
                        continue;
                    }
                    Out::Ping => Event::Alive,
                    Out::Close => Event::Closed(Closed { code: 1000, reason: String::new() }),
                };
                let _ = deliver.send((Instant::now(), answer));
            }
        };
        tokio::join!(take, arrive);
    }
}

impl Dial for Line {
    fn dial(&self, url: String) -> BoxFuture<'static, Result<Socket, Closed>> {
        let line = self.clone();
        Box::pin(async move {
            line.server.lock().lines[line.number].dials += 1;
            tokio::time::sleep(LATENCY).await;
            let mode = line.server.lock().lines[line.number].mode;
            match mode {
                Mode::Up => line.accept(&url),
                Mode::Refused => Err(Closed { code: 1006, reason: "refused".to_owned() }),
                Mode::Silent => std::future::pending().await,
            }
        })
    }
}
