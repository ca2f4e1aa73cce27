//! A client's side of the sync protocol for one document, as cheap as it can be made.
//!
//! Stock clients keep the document and look through its history for every message. This one keeps hashes only: what it was given, what the
//! server said last, and a chain of prepared edits. It says and answers what a stock client would, so the server
//! has the same work, and the load generator almost none.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_core::sync::{BloomFilter, Flags, Have, Message, Version};
use highwater_core::{ChangeHash, DocumentId};

use super::chunk::{Chunk, read_all};
use super::connection::Connection;
use super::frame::Envelope;
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
    pub(crate) fn new(connection: &Connection, document: DocumentId) -> Self {
        Self {
            document: document.to_string(),
            sync: connection.envelope("sync", document),
            request: connection.envelope("request", document),
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
    pub(crate) fn of_chain(connection: &Connection, document: DocumentId, chain: Arc<Chain>) -> Self {
        let base = chain.base_head;
        let replica = Self::new(connection, document);
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
                self.take(chunk, &mut received.fresh);
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

    fn take(&mut self, chunk: Chunk, fresh: &mut Vec<ChangeHash>) {
        match chunk {
            Chunk::Change { hash, deps } => {
                if self.has(&hash) {
                    return;
                }
                let missing: Vec<_> = deps.iter().filter(|dep| !self.has(dep)).copied().collect();
                if missing.is_empty() {
                    self.heads.retain(|head| !deps.contains(head));
                    self.insert_head(hash);
                }
                self.missing.extend(missing);
                self.learn(hash, fresh);
            }
            Chunk::Document { heads } => {
                for head in heads {
                    if !self.has(&head) {
                        self.insert_head(head);
                        self.learn(head, fresh);
                    }
                }
            }
        }
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
