//! A client's side of the sync protocol for one document, as cheap as it can be made.
//!
//! Stock clients keep the document and look through its history for every message. This one keeps hashes only: what it was given, what the
//! server said last, and a chain of prepared edits. It says and answers what a stock client would, so the server
//! has the same work, and the load generator almost none.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use automerge::Automerge;
use bytes::Bytes;
use highwater_core::sync::{BloomFilter, Flags, Have, Message, Version};
use highwater_core::{ChangeHash, DocumentId};

use super::chunk::{Chunk, read_all};
use super::frame::{Envelope, Names};
use super::prepare::{Chain, Edit};

/// One client's copy of one document.
pub(crate) struct Replica {
    document: String,
    sync: Envelope,
    request: Envelope,
    /// Our edits, if we write. The first `sent` are ours; of those the server has the first `acked`.
    chain: Option<Arc<Chain>>,
    sent: usize,
    acked: usize,
    /// All changes that we were given by name, our own edits excepted.
    known: HashSet<ChangeHash>,
    /// Dependencies of what we were given that did not come.
    missing: HashSet<ChangeHash>,
    heads: Vec<ChangeHash>,
    /// Our heads as we last said them.
    said: Vec<ChangeHash>,
    server_heads: Vec<ChangeHash>,
    /// Heads that both sides have.
    shared: Vec<ChangeHash>,
    /// Places in the chain of edits that the server asked for again.
    wanted: Vec<usize>,
}

/// What a sync message brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Changes and documents that we did not have.
    pub(crate) fresh: Vec<ChangeHash>,
    /// We now have all that the server has.
    pub(crate) complete: bool,
}

impl Replica {
    /// A copy without anything in it.
    pub(crate) fn new(names: &Names, document: DocumentId) -> Self {
        Self {
            document: document.to_string(),
            sync: names.envelope("sync", document),
            request: names.envelope("request", document),
            chain: None,
            sent: 0,
            acked: 0,
            known: HashSet::new(),
            missing: HashSet::new(),
            heads: Vec::new(),
            said: Vec::new(),
            server_heads: Vec::new(),
            shared: Vec::new(),
            wanted: Vec::new(),
        }
    }

    /// A copy that holds the base of this chain, and will write its edits.
    pub(crate) fn of_chain(names: &Names, document: DocumentId, chain: Arc<Chain>) -> Self {
        let base = chain.base_head;
        let replica = Self::new(names, document);
        Self {
            chain: Some(chain),
            known: HashSet::from([base]),
            heads: vec![base],
            shared: vec![base],
            ..replica
        }
    }

    /// The document's id as it stands in frames.
    pub(crate) fn document(&self) -> &str {
        &self.document
    }

    /// How many of our edits the server has said that it has.
    pub(crate) fn acked(&self) -> usize {
        self.acked
    }

    /// How many of our edits were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// The server has said that it has the base of our chain, or more.
    pub(crate) fn is_uploaded(&self) -> bool {
        !self.server_heads.is_empty() && self.server_heads.iter().all(|head| self.has(head))
    }

    /// The frame that asks for the document.
    pub(crate) fn fetch(&mut self) -> Bytes {
        let mut message = self.message(Vec::new());
        message.version = Version::V1;
        self.request.wrap(&message.encode())
    }

    /// The frame that says what we have, and with `upload` brings it along.
    pub(crate) fn open(&mut self, upload: bool) -> Bytes {
        let base = self.chain.as_ref().filter(|_| upload).map(|chain| chain.base.clone());
        self.say(base.into_iter().collect())
    }

    /// The frame with our next edit; `None` when there are no more.
    pub(crate) fn edit(&mut self) -> Option<Bytes> {
        let chain = self.chain.as_ref()?;
        let bytes = chain.edits.get(self.sent)?.bytes.clone();
        self.sent += 1;
        self.heads = self.heads_with_ours(&self.heads);
        Some(self.say(vec![bytes]))
    }

    /// Takes in a sync message.
    pub(crate) fn receive(&mut self, data: Bytes) -> Result<Received> {
        let message = Message::decode(data).context("the server sent a sync message that cannot be read")?;
        let mut received = Received::default();
        for blob in message.chunks {
            for chunk in read_all(blob)? {
                self.take(chunk, &mut received.fresh)?;
            }
        }
        self.server_heads = message.heads;
        let acked = self.server_heads.iter().filter_map(|head| self.own(head)).max();
        self.acked = self.acked.max(acked.map_or(0, |place| place + 1));
        self.wanted = message.need.iter().filter_map(|hash| self.own(hash)).collect();
        received.complete = self.missing.is_empty() && self.server_heads.iter().all(|head| self.has(head));
        if received.complete {
            self.shared.clone_from(&self.server_heads);
            self.heads = self.heads_with_ours(&self.server_heads);
        }
        Ok(received)
    }

    /// The frame with which a stock client would answer what it has received; `None` if it would say nothing new.
    pub(crate) fn reply(&mut self) -> Option<Bytes> {
        let wanted = std::mem::take(&mut self.wanted);
        if self.heads == self.said && wanted.is_empty() && self.need().is_empty() {
            return None;
        }
        let chunks = wanted.into_iter().map(|place| self.own_edits()[place].bytes.clone()).collect();
        Some(self.say(chunks))
    }

    fn take(&mut self, chunk: Chunk, fresh: &mut Vec<ChangeHash>) -> Result<()> {
        match chunk {
            Chunk::Change { hash, deps } => self.take_change(hash, &deps, fresh),
            Chunk::Document { heads, bytes } => {
                for head in heads.iter().filter(|head| !self.has(head)).copied().collect::<Vec<_>>() {
                    self.insert_head(head);
                }
                let inside = if self.known.is_empty() { heads } else { all_changes(&bytes)? };
                for hash in inside {
                    if !self.has(&hash) {
                        self.learn(hash, fresh);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_change(&mut self, hash: ChangeHash, deps: &[ChangeHash], fresh: &mut Vec<ChangeHash>) {
        if self.has(&hash) {
            return;
        }
        let missing: Vec<_> = deps.iter().filter(|dep| !self.has(dep)).copied().collect();
        self.missing.extend(missing);
        // As long as something is missing it is not clear what stands on it. The heads that we had are true in any case.
        if self.missing.is_empty() {
            self.heads.retain(|head| !deps.contains(head));
            self.insert_head(hash);
        }
        self.learn(hash, fresh);
    }

    fn learn(&mut self, hash: ChangeHash, fresh: &mut Vec<ChangeHash>) {
        self.missing.remove(&hash);
        self.known.insert(hash);
        fresh.push(hash);
    }

    fn insert_head(&mut self, hash: ChangeHash) {
        if let Err(place) = self.heads.binary_search(&hash) {
            self.heads.insert(place, hash);
        }
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        self.own(hash).is_some() || self.known.contains(hash)
    }

    /// The place of one of our own sent edits.
    fn own(&self, hash: &ChangeHash) -> Option<usize> {
        let place = *self.chain.as_ref()?.index.get(hash)?;
        (place < self.sent).then_some(place)
    }

    fn own_edits(&self) -> &[Edit] {
        self.chain.as_ref().map_or(&[], |chain| &chain.edits)
    }

    /// These heads and our last edit, less those that our last edit stands on.
    fn heads_with_ours(&self, heads: &[ChangeHash]) -> Vec<ChangeHash> {
        let Some(chain) = self.chain.as_ref().filter(|_| self.sent > self.acked) else {
            return heads.to_vec();
        };
        let behind = |head: &ChangeHash| *head == chain.base_head || self.own(head).is_some();
        let mut all: Vec<_> = heads.iter().filter(|head| !behind(head)).copied().collect();
        all.push(chain.edits[self.sent - 1].hash);
        all.sort_unstable();
        all
    }

    /// What the server has and we lack, by name, as far as we can tell.
    fn need(&self) -> Vec<ChangeHash> {
        let heads = self.server_heads.iter().filter(|head| !self.has(head));
        let mut need: Vec<_> = heads.chain(&self.missing).copied().collect();
        need.sort_unstable();
        need.dedup();
        need
    }

    fn say(&mut self, chunks: Vec<Bytes>) -> Bytes {
        let message = self.message(chunks);
        self.said.clone_from(&message.heads);
        self.sync.wrap(&message.encode())
    }

    fn message(&self, chunks: Vec<Bytes>) -> Message {
        let unacked = &self.own_edits()[self.acked..self.sent];
        let bloom = BloomFilter::from_hashes(unacked.iter().map(|edit| &edit.hash));
        Message {
            version: Version::V2,
            heads: self.heads.clone(),
            need: self.need(),
            have: vec![Have { last_sync: self.shared.clone(), bloom }],
            chunks,
            flags: Some(Flags::SUPPORTS_SYNC_RESET),
        }
    }
}

/// The hashes of all changes in a document chunk. Slow, and seldom needed: a server sends a whole document to somebody who has a part of it
/// already only if that part is small.
fn all_changes(chunk: &[u8]) -> Result<Vec<ChangeHash>> {
    let document = Automerge::load(chunk).context("the server sent a document that cannot be loaded")?;
    Ok(document.get_changes(&[]).iter().map(|change| change.hash()).collect())
}

#[cfg(test)]
mod tests {
    use automerge::ReadDoc;
    use automerge::sync::{self as stock, SyncDoc};

    use super::super::frame::Frame;
    use super::super::prepare::prepare;
    use super::super::progress::Progress;
    use super::*;

    /// A server as stock as can be: one document, and for every client what `automerge` keeps about a peer.
    struct Stock {
        document: Automerge,
        states: Vec<stock::State>,
    }

    impl Stock {
        fn new(clients: usize) -> Self {
            Self { document: Automerge::new(), states: (0..clients).map(|_| stock::State::new()).collect() }
        }

        fn receive(&mut self, client: usize, frame: &Bytes) {
            let data = Frame::read(frame).unwrap().data;
            let message = stock::Message::decode(&data).unwrap();
            self.document.receive_sync_message(&mut self.states[client], message).unwrap();
        }

        fn generate(&mut self, client: usize) -> Option<Bytes> {
            let message = self.document.generate_sync_message(&mut self.states[client])?;
            Some(message.encode().into())
        }

        /// Passes messages to and fro until nobody has anything to say. Returns how many the clients sent.
        fn settle(&mut self, clients: &mut [Replica]) -> usize {
            let mut sent = 0;
            for _ in 0..1000 {
                let mut quiet = true;
                for (number, client) in clients.iter_mut().enumerate() {
                    let Some(data) = self.generate(number) else { continue };
                    quiet = false;
                    client.receive(data).unwrap();
                    if let Some(reply) = client.reply() {
                        self.receive(number, &reply);
                        sent += 1;
                    }
                }
                if quiet {
                    return sent;
                }
            }
            panic!("the conversation does not end");
        }
    }

    fn names() -> Names {
        Names { ours: "client".to_owned(), server: "server".to_owned() }
    }

    const DOCUMENT: DocumentId = DocumentId::from_bytes([1; 16]);

    #[test]
    fn a_stock_server_takes_the_base_and_acknowledges_every_edit() {
        let chain = prepare(30, 50, 1, &Progress::silent()).unwrap().remove(0);
        let mut server = Stock::new(1);
        let mut client = Replica::of_chain(&names(), DOCUMENT, chain.clone());
        server.receive(0, &client.open(true));
        server.settle(std::slice::from_mut(&mut client));
        assert!(client.is_uploaded());
        for edits in 1..=50 {
            server.receive(0, &client.edit().unwrap());
            // Two in flight: only every second is answered.
            if edits % 2 == 0 {
                server.settle(std::slice::from_mut(&mut client));
                assert_eq!(client.acked(), edits);
            }
        }
        assert!(client.edit().is_none());
        assert_eq!(server.document.get_heads(), [chain.edits[49].hash]);
        assert_eq!(server.document.get_changes(&[]).len(), 80);
    }

    #[test]
    fn writers_of_one_document_get_each_others_edits() {
        const WRITERS: usize = 4;
        let chains = prepare(5, 30, WRITERS, &Progress::silent()).unwrap();
        let mut server = Stock::new(WRITERS);
        let mut clients: Vec<_> =
            chains.iter().map(|chain| Replica::of_chain(&names(), DOCUMENT, chain.clone())).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            server.receive(number, &client.open(number == 0));
        }
        server.settle(&mut clients);
        for round in 0..30 {
            for (number, client) in clients.iter_mut().enumerate() {
                server.receive(number, &client.edit().unwrap());
                if (round + number) % 3 == 0 {
                    server.generate(number).map(|data| client.receive(data).unwrap());
                }
            }
        }
        server.settle(&mut clients);
        for client in &clients {
            assert_eq!(client.acked(), 30);
            assert_eq!(client.heads, server.document.get_heads());
            for edit in chains.iter().flat_map(|chain| &chain.edits) {
                assert!(client.has(&edit.hash));
            }
        }
    }

    #[test]
    fn a_fresh_client_gets_everything_and_falls_silent() {
        let chain = prepare(200, 20, 1, &Progress::silent()).unwrap().remove(0);
        let mut server = Stock::new(2);
        let mut writer = Replica::of_chain(&names(), DOCUMENT, chain.clone());
        server.receive(0, &writer.open(true));
        while let Some(edit) = writer.edit() {
            server.receive(0, &edit);
        }
        let mut reader = Replica::new(&names(), DOCUMENT);
        server.receive(1, &reader.fetch());
        let mut clients = [writer, reader];
        let sent = server.settle(&mut clients);
        assert!(sent < 10, "{sent} messages");
        assert_eq!(clients[1].heads, server.document.get_heads());
        let text = server.document.get(automerge::ROOT, "text").unwrap().unwrap().1;
        assert_eq!(server.document.length(&text), 199 + 20);
    }

    #[test]
    fn a_change_that_comes_before_its_dependency_is_not_a_head_and_the_dependency_is_asked_for() {
        let chain = prepare(1, 3, 1, &Progress::silent()).unwrap().remove(0);
        let mut reader = Replica::of_chain(&names(), DOCUMENT, chain.clone());
        let message = |place: usize| {
            let edit = &chain.edits[place];
            let message = Message {
                version: Version::V2,
                heads: vec![edit.hash],
                need: vec![],
                have: vec![],
                chunks: vec![edit.bytes.clone()],
                flags: None,
            };
            message.encode()
        };
        assert!(!reader.receive(message(1)).unwrap().complete);
        assert_eq!((reader.need(), &reader.heads[..]), (vec![chain.edits[0].hash], &[chain.base_head][..]));
        assert!(reader.reply().is_some());
        reader.receive(message(0)).unwrap();
        assert!(reader.receive(message(2)).unwrap().complete);
        assert_eq!(reader.heads, [chain.edits[2].hash]);
    }
}
