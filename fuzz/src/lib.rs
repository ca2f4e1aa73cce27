//! What the fuzz targets do with their input. `crates/core/tests/fuzz_corpus.rs` does the same with the corpus and with random changes
//! of it, so that every test run does some of this without a fuzzer.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use highwater_core::change;
use highwater_core::document::{AppendId, ConnectionId, Document, Effect, Outgoing, PeerInfo, Restoring};
use highwater_core::sync;
use highwater_core::wire::{Body, Message, RemoteHeads};
use highwater_core::{DocumentId, Edit, Input, Materialised, PeerId, Record, Session, Stamp, StorageId};
use highwater_forge::mutate::Pool;
use highwater_forge::{self as forge, HandMade, oracle, stock};

/// More effects than this after one input can only be a loop.
const EFFECTS_MAX: usize = 100_000;
const CONNECTIONS: usize = 3;
const DOCUMENTS_MAX: usize = 8;

/// Reads the bytes as everything that comes from outside. Returns whether they were any of it.
pub fn wire_decode(data: &[u8]) -> bool {
    let data = Bytes::copy_from_slice(data);
    let frame = Message::decode(&data);
    if let Ok(message) = &frame {
        // What was read can be written and read again, and is the same.
        let again = Message::decode(&message.encode());
        assert!(is_lossy(&message.body) || again.as_ref() == Ok(message), "{message:?} {again:?}");
    }
    let message = sync::Message::decode(data.clone());
    if let Ok(message) = &message {
        let _ = change::is_cheap(&message.chunks);
        let _ = change::unpack(&message.chunks);
    }
    let chunks = change::unpack(&[data]);
    if let Ok(changes) = &chunks {
        for change in changes {
            assert_eq!(change::Change::parse(change.bytes.clone()).as_ref(), Ok(change));
        }
    }
    frame.is_ok() || message.is_ok() || chunks.is_ok_and(|changes| !changes.is_empty())
}

/// Bodies that hold floating-point numbers, which need not equal themselves, or that leave something out when written.
fn is_lossy(body: &Body) -> bool {
    match body {
        Body::RemoteHeadsChanged { .. } | Body::Unknown { .. } => true,
        Body::Join { .. }
        | Body::Peer { .. }
        | Body::Error { .. }
        | Body::Request { .. }
        | Body::Sync { .. }
        | Body::DocUnavailable { .. }
        | Body::Ephemeral(_)
        | Body::RemoteSubscriptionChange { .. }
        | Body::Leave
        | Body::Rejected { .. }
        | Body::Have { .. }
        | Body::Durable { .. } => false,
    }
}

/// Reads the bytes as a change of a small stock document that is wrong somewhere: a byte that chooses the document, eight that choose what is done to one of its
/// changes, and then groups of three: a place in the change's data, low byte first, and what stands there instead. Whatever is let in must harm no stock client.
/// Returns whether it was let in.
pub fn gate(data: &[u8]) -> bool {
    let Some((head, edits)) = data.split_first_chunk::<9>() else { return false };
    let changes = stock::document(u64::from(head[0]), 8);
    let mut restoring = Restoring::new(DocumentId::from_bytes([1; 16]), []);
    for change in &changes {
        restoring.add(Bytes::copy_from_slice(change.raw_bytes())).expect("stock changes are let in");
    }
    let history: Vec<HandMade> = changes.iter().map(|change| HandMade::decode(change.raw_bytes())).collect();
    let hashes: Vec<_> = changes.iter().map(|change| change.hash()).collect();
    let pool = Pool { history: &history, hashes: &hashes };
    let seed = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
    let mut mutant = pool.mutant_data(&mut forge::Rng::new(seed));
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        if let Some(byte) = mutant.get_mut(place) {
            *byte = edit[2];
        }
    }
    let chunk = forge::model::chunk(&mutant);
    let hash = forge::model::hash(&chunk);
    let is_let_in = restoring.add(chunk.clone()).is_ok() && restoring.contains(&hash);
    if is_let_in && !hashes.contains(&hash) {
        let change = automerge::Change::from_bytes(chunk.to_vec()).expect("stock reads what is let in");
        let all: Vec<_> = changes.into_iter().chain([change]).collect();
        if let Err(harm) = oracle::check(&all, seed) {
            panic!("{harm}: {:?}", HandMade::decode(&chunk));
        }
    }
    is_let_in
}

/// The document that is edited by [`edit`].
const EDITED: &str = r#"{"title": "Grüße 👋", "done": false, "tags": ["a", "b", ["c"]], "likes": {"$counter": 3}, "at": {"$date": "2026-11-25T01:02:03.004Z"}}"#;

/// Reads the bytes as the body of a request that edits a small document: a byte that says which kind, then the JSON. What is made must be let in by the gate, and be there. Returns whether
/// something was made.
pub fn edit(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else { return false };
    let parse = [Edit::json_patch, Edit::merge_patch, Edit::set][usize::from(kind % 3)];
    let Ok(edit) = parse(body) else { return false };
    let stamp = |actor| Stamp { actor: [actor; 16], message: None, time: 0 };
    let base = Edit::set(EDITED.as_bytes()).expect("it is a document");
    let (document, made) = Materialised::default().edit(&base, &stamp(1)).expect("it can be made");
    let first = made.expect("it can be made").expect("there is something to make");
    let before = document.to_json(None).expect("it is JSON");
    let (document, made) = document.edit(&edit, &stamp(2)).expect("nothing goes wrong inside");
    let after = document.to_json(None);
    let Ok(Some(made)) = made else {
        assert_eq!(after.ok(), Some(before), "nothing was made of it");
        return false;
    };
    let mut restoring = Restoring::new(DocumentId::from_bytes([1; 16]), []);
    restoring.add(first.chunk.clone()).expect("it is let in");
    restoring.add(made.chunk.clone()).expect("what is made is let in");
    assert!(restoring.contains(&made.hash));
    let read = Materialised::default().extended(&[first.chunk, made.chunk]).expect("it can be applied");
    assert_eq!(read.to_json(None).ok(), after.ok(), "others see the same");
    true
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames that were taken.
    pub frames: usize,
    /// Changes that are durable in the end.
    pub changes: usize,
    /// Messages to clients.
    pub sent: usize,
}

/// Reads the bytes as a script, and plays it: frames on a few connections, commits, broken connections.
///
/// A script is a list of steps: a byte that says what happens, two bytes of length (low first), so many bytes.
pub fn session(data: &[u8]) -> Outcome {
    let mut server = Server::new();
    let mut rest = data;
    while rest.len() >= 3 {
        let (kind, len) = (rest.get_u8(), usize::from(rest.get_u16_le()));
        let (payload, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        server.step(kind, payload);
        server.pump();
    }
    server.finish()
}

/// One step of a script, for those who write one.
pub fn step(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("a short step");
    [&[kind][..], &len.to_le_bytes(), payload].concat()
}

/// A frame on a connection.
pub const FRAME: u8 = 0;
/// The oldest append of every document becomes durable.
pub const COMMIT: u8 = 3;
/// A connection breaks, and another one takes its place.
pub const BREAK: u8 = 4;
/// The next of the uploads is unpacked.
pub const UNPACK: u8 = 7;

struct Server {
    sessions: Vec<(ConnectionId, Session)>,
    next_connection: u64,
    documents: BTreeMap<DocumentId, Served>,
    outcome: Outcome,
}

struct Served {
    document: Document,
    appends: VecDeque<(AppendId, Vec<Record>)>,
    uploads: VecDeque<(highwater_core::document::UploadId, Vec<Bytes>)>,
    durable: Vec<Record>,
}

impl Server {
    fn new() -> Self {
        let mut server = Self {
            sessions: Vec::new(),
            next_connection: 0,
            documents: BTreeMap::new(),
            outcome: Outcome::default(),
        };
        for _ in 0..CONNECTIONS {
            let session = server.new_session();
            server.sessions.push(session);
        }
        server
    }

    fn new_session(&mut self) -> (ConnectionId, Session) {
        self.next_connection += 1;
        let peer = PeerId::new("server").expect("an id");
        let storage = StorageId::new("disk").expect("an id");
        (ConnectionId(self.next_connection), Session::new(peer, storage))
    }

    fn step(&mut self, kind: u8, payload: &[u8]) {
        match kind {
            COMMIT => self.documents.values_mut().for_each(Served::commit),
            UNPACK => self.documents.values_mut().for_each(Served::unpack),
            BREAK..UNPACK => self.drop_connection(usize::from(kind - BREAK)),
            _ => self.frame(usize::from(kind) % CONNECTIONS, payload),
        }
    }

    fn drop_connection(&mut self, place: usize) {
        let fresh = self.new_session();
        let (connection, _) = std::mem::replace(&mut self.sessions[place], fresh);
        self.documents.values_mut().for_each(|served| served.document.detach(connection));
    }

    fn frame(&mut self, place: usize, payload: &[u8]) {
        let frame = Bytes::copy_from_slice(payload);
        let (connection, session) = &mut self.sessions[place];
        let connection = *connection;
        match session.handle_frame(&frame) {
            Ok(input) => {
                self.outcome.frames += 1;
                self.input(place, connection, input);
            }
            Err(reason) => {
                let _ = (session.error_message(&reason), reason.close_code(), reason.label());
                self.drop_connection(place);
            }
        }
    }

    fn input(&mut self, place: usize, connection: ConnectionId, input: Input) {
        match input {
            Input::Joined { reply } => {
                assert!(Message::decode(&reply).is_ok());
                self.documents.values_mut().for_each(|served| served.document.detach(connection));
            }
            Input::Sync { document, data, is_request } => {
                let info = self.info(place);
                let Some(served) = self.open(document) else { return };
                if !served.document.is_attached(connection) {
                    served.document.attach(connection, info);
                }
                if served.document.handle_sync(connection, data, is_request).is_err() {
                    self.drop_connection(place);
                }
            }
            Input::Ephemeral(ephemeral) => {
                let Some(served) = self.open(ephemeral.document) else { return };
                served.document.handle_ephemeral(connection, &ephemeral);
            }
            Input::Subscriptions(storages) => {
                for served in self.documents.values_mut() {
                    served.document.handle_subscriptions(connection, storages.clone());
                }
            }
            Input::RemoteHeads { document, heads } => {
                let Some(served) = self.open(document) else { return };
                served.document.handle_remote_heads(connection, heads);
            }
            Input::Have { document, hashes, .. } => {
                let Some(served) = self.open(document) else { return };
                let found = hashes.iter().filter(|hash| served.document.contains(hash)).count();
                assert!(found <= served.document.len() || hashes.len() > served.document.len());
            }
            Input::Leave => self.drop_connection(place),
            Input::Nothing => {}
        }
    }

    fn info(&self, place: usize) -> PeerInfo {
        let session = &self.sessions[place].1;
        PeerInfo {
            peer: session.peer().expect("who syncs has joined").clone(),
            // Nobody may write through the last connection.
            may_write: place + 1 < CONNECTIONS,
            storage: session.peer_metadata().storage_id,
            subscriptions: session.subscriptions(),
        }
    }

    fn open(&mut self, id: DocumentId) -> Option<&mut Served> {
        if self.documents.len() >= DOCUMENTS_MAX && !self.documents.contains_key(&id) {
            return None;
        }
        let new = || Served {
            document: Document::new(id),
            appends: VecDeque::new(),
            uploads: VecDeque::new(),
            durable: Vec::new(),
        };
        Some(self.documents.entry(id).or_insert_with(new))
    }

    fn pump(&mut self) {
        for (id, served) in &mut self.documents {
            for count in 0.. {
                assert!(count < EFFECTS_MAX, "there is no end to it");
                match served.document.poll_effect() {
                    None => break,
                    Some(Effect::Append { id, records }) => served.appends.push_back((id, records)),
                    Some(Effect::Unpack { upload, chunks }) => served.uploads.push_back((upload, chunks)),
                    Some(Effect::Send { outgoing, .. }) => {
                        self.outcome.sent += 1;
                        check_outgoing(*id, outgoing);
                    }
                    Some(Effect::LoadSnapshot | Effect::Bring { .. }) => panic!("there is no snapshot"),
                    Some(Effect::Close { .. }) => {}
                }
            }
        }
    }

    fn finish(mut self) -> Outcome {
        for _ in 0..EFFECTS_MAX {
            self.documents.values_mut().for_each(Served::unpack);
            self.documents.values_mut().for_each(Served::commit);
            self.pump();
            if self.documents.values().all(Served::is_done) {
                self.documents.values().for_each(Served::check_stored);
                self.outcome.changes = self.documents.values().map(|served| served.document.len()).sum();
                return self.outcome;
            }
        }
        panic!("there is no end to it");
    }
}

/// What goes out can be written, and read by the other side.
fn check_outgoing(document: DocumentId, outgoing: Outgoing) {
    let sender = PeerId::new("server").expect("an id");
    let body = match outgoing {
        Outgoing::Sync(message) => {
            let data = message.encode();
            assert_eq!(sync::Message::decode(data.clone()).map(|read| read.heads), Ok(message.heads));
            Body::Sync { document, data }
        }
        Outgoing::Unavailable | Outgoing::Deleted => Body::DocUnavailable { document },
        Outgoing::Ephemeral { ephemeral, .. } => Body::Ephemeral(ephemeral),
        Outgoing::RemoteHeads(heads) => Body::RemoteHeadsChanged { document, heads: finite(heads) },
        Outgoing::Rejected(changes) => Body::Rejected { document, changes },
    };
    let frame = Message { sender: Some(sender), target: None, body }.encode();
    assert!(Message::decode(&frame).is_ok());
}

fn finite(heads: Vec<RemoteHeads>) -> Vec<RemoteHeads> {
    heads.into_iter().filter(|entry| entry.timestamp.is_finite()).collect()
}

impl Served {
    fn commit(&mut self) {
        if let Some((id, records)) = self.appends.pop_front() {
            self.durable.extend(records);
            self.document.handle_appended(id);
        }
    }

    fn unpack(&mut self) {
        if let Some((upload, chunks)) = self.uploads.pop_front() {
            self.document.handle_unpacked(upload, change::unpack(&chunks));
        }
    }

    fn is_done(&self) -> bool {
        self.appends.is_empty() && self.uploads.is_empty()
    }

    /// What was stored makes the same document again.
    fn check_stored(&self) {
        let changes = self.durable.iter().filter_map(|record| match record {
            Record::Change { bytes } => Some(bytes.clone()),
            _ => None,
        });
        let refused = self.durable.iter().filter_map(|record| match record {
            Record::Quarantine { hash, reason, .. } => Some((*hash, reason.clone())),
            _ => None,
        });
        let restored =
            Document::restore(self.document.id(), changes, refused).expect("what was stored reads");
        assert_eq!(restored.heads(), self.document.heads());
        assert_eq!(restored.len(), self.document.len());
    }
}
