//! A client as it is found in the wild: the `automerge` crate's own sync, with whatever it may get wrong around it.

use std::collections::VecDeque;

use automerge::sync::{ChunkList, Message, MessageVersion, State, SyncDoc};
use automerge::{ActorId, AutoCommit, Change as StockChange};
use bytes::Bytes;
use highwater_core::change;
use highwater_core::document::ConnectionId;

use super::Rng;

/// What kind of client a peer is, for its whole life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// Knows neither version 2 of the messages nor their flags.
    pub(crate) is_old: bool,
    /// The server takes changes from it.
    pub(crate) may_write: bool,
}

/// What happens to the sync state when a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It starts afresh.
    Fresh,
    /// It is written down and read again, as automerge-repo does.
    Saved,
    /// It is wrongly kept as it is, as careless applications do. Nothing is promised until the next reconnect.
    Kept,
}

/// A sync message on its way to the server.
pub(crate) struct Frame {
    pub(crate) data: Bytes,
    pub(crate) is_request: bool,
}

pub(crate) struct Peer {
    pub(crate) index: usize,
    pub(crate) doc: AutoCommit,
    pub(crate) state: State,
    pub(crate) kind: Kind,
    pub(crate) is_read_only: bool,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) to_hub: VecDeque<Frame>,
    pub(crate) to_peer: VecDeque<Bytes>,
    /// Something happened since it last thought of what to say.
    pub(crate) wants_to_speak: bool,
    /// It asked whether the document exists and does not know.
    pub(crate) is_asking: bool,
    /// The sync state was kept over a cut.
    pub(crate) is_confused: bool,
    /// Its document holds a change that the server refused, so that it cannot take what others have.
    pub(crate) is_stuck: bool,
    /// What it got from another peer without the dependencies; automerge keeps it in a queue that cannot be seen.
    pub(crate) queued: Vec<StockChange>,
    /// How many documents it has had. Each gets an actor of its own.
    lives: u8,
}

impl Peer {
    pub(crate) fn new(index: usize, kind: Kind) -> Self {
        let mut peer = Self {
            index,
            doc: AutoCommit::new(),
            state: State::new(),
            kind,
            is_read_only: false,
            connection: None,
            to_hub: VecDeque::new(),
            to_peer: VecDeque::new(),
            wants_to_speak: false,
            is_asking: false,
            is_confused: false,
            is_stuck: false,
            queued: Vec::new(),
            lives: 0,
        };
        peer.take_new_actor();
        peer
    }

    pub(crate) fn take_new_actor(&mut self) {
        self.lives += 1;
        self.doc.set_actor(ActorId::from([self.index as u8, self.lives]));
    }

    /// All that the peer had is gone.
    pub(crate) fn lose_everything(&mut self) {
        self.doc = AutoCommit::new();
        self.queued.clear();
        self.is_stuck = false;
        self.take_new_actor();
        self.restart_sync(Memory::Fresh);
    }

    /// Both directions of the connection are lost with what was on its way.
    pub(crate) fn disconnect(&mut self, memory: Memory) {
        self.connection = None;
        self.to_hub.clear();
        self.to_peer.clear();
        self.wants_to_speak = false;
        self.is_asking = false;
        self.restart_sync(memory);
    }

    pub(crate) fn restart_sync(&mut self, memory: Memory) {
        self.is_confused = memory == Memory::Kept;
        self.state = match memory {
            Memory::Fresh => State::new(),
            Memory::Saved => State::decode(&self.state.encode()).expect("a saved state reads"),
            Memory::Kept => return,
        };
        self.state.read_only = self.is_read_only;
    }

    pub(crate) fn connect(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.wants_to_speak = true;
    }

    pub(crate) fn set_read_only(&mut self, is_read_only: bool) {
        self.is_read_only = is_read_only;
        self.state.set_read_only(is_read_only);
        self.wants_to_speak = self.connection.is_some();
    }

    /// Takes the next message of the server.
    pub(crate) fn receive(&mut self) -> Result<(), String> {
        let Some(data) = self.to_peer.pop_front() else { return Ok(()) };
        let mut message =
            Message::decode(&data).map_err(|error| format!("unreadable for a peer: {error}"))?;
        if self.kind.is_old {
            if message.version != MessageVersion::V1 {
                return Err("an old peer was sent version 2".to_owned());
            }
            message.flags = None;
        }
        if !message.heads.is_empty() {
            self.is_asking = false;
        }
        self.wants_to_speak = true;
        self.doc.sync().receive_sync_message(&mut self.state, message).map_err(|error| error.to_string())
    }

    /// Says what there is to say. Returns how many messages that took.
    pub(crate) fn speak(&mut self, rng: &mut Rng) -> usize {
        if !self.wants_to_speak || self.connection.is_none() {
            return 0;
        }
        self.wants_to_speak = false;
        let is_new = self.doc.get_heads().is_empty() && self.state.shared_heads.is_empty();
        let is_first = self.state.their_heads.is_none();
        let Some(mut message) = self.doc.sync().generate_sync_message(&mut self.state) else { return 0 };
        if self.kind.is_old {
            message.flags = None;
        }
        let is_request = is_new && is_first && rng.percent(70);
        let messages = self.vary(message, rng);
        let count = messages.len();
        let frames = messages.into_iter().map(|message| Frame { data: message.encode().into(), is_request });
        self.to_hub.extend(frames);
        count
    }

    /// The same content in another form that is allowed.
    fn vary(&mut self, message: Message, rng: &mut Rng) -> Vec<Message> {
        if message.changes.is_empty() || rng.percent(70) {
            return if rng.percent(2) { vec![message.clone(), message] } else { vec![message] };
        }
        let chunks: Vec<Bytes> = message.changes.iter().map(Bytes::copy_from_slice).collect();
        let changes = change::unpack(&chunks).expect("a stock peer's changes read");
        let plain: Vec<Vec<u8>> = changes.iter().map(|change| change.bytes.to_vec()).collect();
        let form = rng.below(5);
        match form {
            0 => vec![with_chunks(message, compressed(&plain))],
            1 => vec![with_chunks(message, plain.into_iter().rev().collect())],
            2 if plain.len() > 1 => {
                // The later half first: its changes wait for what comes with the next message.
                let (earlier, later) = plain.split_at(plain.len() / 2);
                vec![with_chunks(message.clone(), later.to_vec()), with_chunks(message, earlier.to_vec())]
            }
            3 if message.version == MessageVersion::V2 => vec![with_chunks(message, vec![self.doc.save()])],
            4 if message.version == MessageVersion::V2 => {
                let bundle = self.doc.bundle(changes.iter().map(|change| change.hash));
                let chunks = bundle.map_or(plain, |bundle| vec![bundle.bytes().to_vec()]);
                vec![with_chunks(message, chunks)]
            }
            _ => vec![message.clone(), message],
        }
    }
}

fn compressed(plain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let read = |bytes: &Vec<u8>| StockChange::try_from(&bytes[..]).expect("a change");
    plain.iter().map(|bytes| read(bytes).bytes().into_owned()).collect()
}

fn with_chunks(message: Message, chunks: Vec<Vec<u8>>) -> Message {
    let chunks = if message.version == MessageVersion::V2 { vec![chunks.concat()] } else { chunks };
    Message { changes: ChunkList::from(chunks), ..message }
}
