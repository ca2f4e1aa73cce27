//! A simulated network: one document engine as the hub, several stock peers around it, and everything that can go wrong
//! between them, from a seed.

// Each test that uses this module uses another part of it.
#![allow(dead_code)]

pub(crate) mod disk;
pub(crate) mod edits;
pub(crate) mod hub;
pub(crate) mod peer;
mod rng;

use std::collections::HashSet;

use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use highwater_core::document::{ConnectionId, Outgoing, PeerInfo};
use highwater_core::sync::Message;
use highwater_core::wire::RemoteHeads;
use highwater_core::{ChangeHash, PeerId, StorageId};

use disk::Disk;
use hub::Hub;
use peer::{Kind, Memory, Peer};
pub(crate) use rng::Rng;

/// Rounds in which everything under way arrives, after which there must be nothing under way any more.
const SETTLE_ROUNDS_MAX: usize = 100;

pub(crate) struct World<D> {
    pub(crate) rng: Rng,
    pub(crate) hub: Hub<D>,
    pub(crate) peers: Vec<Peer>,
    next_connection: u64,
    clock: f64,
    /// Actors of which two peers have the same: their changes collide.
    twins: HashSet<ActorId>,
    pub(crate) tally: Tally,
}

fn storage(index: usize) -> StorageId {
    StorageId::new(&format!("storage-{index}")).expect("a valid id")
}

/// What happened in a run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) messages: usize,
    pub(crate) changes: usize,
    pub(crate) connects: usize,
    pub(crate) restarts: usize,
    /// Times that the document left memory, with nobody there to use it.
    pub(crate) evictions: usize,
    /// Snapshots that were stored.
    pub(crate) compactions: usize,
    /// Reasons to speak that come from outside: edits, merges, switches.
    pub(crate) impulses: usize,
    /// Messages in the last phase, in which nothing new happens.
    pub(crate) settling: usize,
}

impl<D: Disk> World<D> {
    pub(crate) fn new(seed: u64, disk: D) -> Self {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.below(3);
        let kind = |rng: &mut Rng| Kind { is_old: rng.percent(25), may_write: !rng.percent(15) };
        let peers = (0..count).map(|index| Peer::new(index, kind(&mut rng))).collect();
        Self {
            rng,
            hub: Hub::new(disk),
            peers,
            next_connection: 0,
            clock: 0.0,
            twins: HashSet::new(),
            tally: Tally::default(),
        }
    }

    /// A schedule of so many steps, and then peace.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), String> {
        if self.rng.percent(50) {
            (0..self.peers.len()).for_each(|index| self.connect(index));
        }
        for _ in 0..steps {
            self.step()?;
        }
        self.settle()?;
        self.check_converged()?;
        self.check_message_count()
    }

    pub(crate) fn step(&mut self) -> Result<(), String> {
        let index = self.rng.below(self.peers.len());
        match self.rng.weighted(&[20, 25, 25, 25, 15, 10, 8, 3, 2, 2, 1, 3, 1, 8, 12, 8, 1]) {
            0 => self.edit(index),
            1 => self.speak(index),
            2 => drop(self.deliver_to_hub(index)?),
            3 => drop(self.deliver_to_peer(index)?),
            4 => drop(self.finish_append()?),
            5 => drop(self.hub.finish_unpack(&mut self.rng)),
            6 if self.peers[index].connection.is_none() => self.connect(index),
            6 => {}
            7 => self.cut(index),
            8 => self.merge_out_of_band(index),
            9 => self.toggle_read_only(index),
            10 => self.lose_or_fork(index),
            11 => self.gossip(index),
            12 => self.restart_hub()?,
            13 => self.hub.start_compaction()?,
            14 => drop(self.finish_compaction()?),
            15 => drop(self.hub.finish_bringing()?),
            _ => self.evict_hub()?,
        }
        // The driver is free to let several things happen before it asks what to do.
        if self.rng.percent(80) { self.pump() } else { Ok(()) }
    }

    pub(crate) fn edit(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        for _ in 0..=self.rng.below(3) {
            edits::make_change(&mut peer.doc, &mut self.rng);
            self.tally.changes += 1;
        }
        peer.wants_to_speak = true;
        self.tally.impulses += 1;
    }

    pub(crate) fn connect(&mut self, index: usize) {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.tally.connects += 1;
        self.hub.note(|| format!("{index} connects as {connection:?}"));
        let name = PeerId::new(&format!("peer-{index}")).expect("a valid id");
        let follows = if self.rng.percent(50) { 0..self.peers.len() } else { 0..0 };
        let subscriptions = std::sync::Arc::new(follows.map(storage).collect());
        let peer = &mut self.peers[index];
        self.hub.document.attach(
            connection,
            PeerInfo {
                peer: name,
                may_write: peer.kind.may_write,
                storage: index.is_multiple_of(2).then(|| storage(index)),
                subscriptions,
            },
        );
        peer.connect(connection);
    }

    pub(crate) fn cut(&mut self, index: usize) {
        self.hub.note(|| format!("{index} is cut"));
        let peer = &mut self.peers[index];
        let Some(connection) = peer.connection else { return };
        let memory = [Memory::Fresh, Memory::Saved, Memory::Kept][self.rng.weighted(&[45, 45, 10])];
        peer.disconnect(memory);
        self.hub.document.detach(connection);
    }

    pub(crate) fn speak(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        let count = peer.speak(&mut self.rng);
        self.tally.messages += count;
        for frame in peer.to_hub.iter().rev().take(count) {
            let (state, message) = (&peer.state, Message::decode(frame.data.clone()));
            self.hub.note(|| format!("{index} says {message:?}, knowing {:?}", state.shared_heads));
        }
    }

    pub(crate) fn deliver_to_hub(&mut self, index: usize) -> Result<bool, String> {
        let peer = &mut self.peers[index];
        let (Some(connection), Some(frame)) = (peer.connection, peer.to_hub.pop_front()) else {
            return Ok(false);
        };
        peer.is_asking |= frame.is_request;
        self.hub.note(|| format!("{index} is heard"));
        self.hub.hear(connection, frame, peer.kind.may_write)?;
        Ok(true)
    }

    pub(crate) fn deliver_to_peer(&mut self, index: usize) -> Result<bool, String> {
        if self.peers[index].to_peer.is_empty() {
            return Ok(false);
        }
        self.hub.note(|| format!("{index} hears"));
        if let Err(error) = self.peers[index].receive() {
            if !self.has_refused_change(index) {
                return Err(format!("peer {index} cannot take a message: {error}"));
            }
            self.peers[index].is_stuck = true;
        }
        Ok(true)
    }

    /// Whether the peer holds a change of a twin that the hub does not have, so that it may be unable to take the other twin's.
    fn has_refused_change(&mut self, index: usize) -> bool {
        let (twins, document) = (&self.twins, &self.hub.document);
        let peer = &mut self.peers[index];
        let changes = peer.doc.get_changes(&[]);
        let mut changes = changes.iter().chain(&peer.queued);
        changes.any(|change| twins.contains(change.actor_id()) && !document.contains(&change.hash()))
    }

    pub(crate) fn finish_append(&mut self) -> Result<bool, String> {
        match self.hub.finish_append(&mut self.rng) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(_)) => {
                self.hub.document.handle_append_failed();
                self.restart_hub()?;
                Ok(true)
            }
        }
    }

    fn finish_compaction(&mut self) -> Result<bool, String> {
        match self.hub.finish_compaction(&mut self.rng) {
            None => Ok(false),
            Some(Ok(())) => {
                self.tally.compactions += 1;
                Ok(true)
            }
            Some(Err(_)) => {
                self.hub.document.handle_append_failed();
                self.restart_hub()?;
                Ok(true)
            }
        }
    }

    /// Everybody leaves; what is under way ends; and then the document leaves memory.
    fn evict_hub(&mut self) -> Result<(), String> {
        for index in 0..self.peers.len() {
            self.cut(index);
        }
        self.pump()?;
        while !self.hub.document.is_idle() {
            let has_moved = self.finish_append()? | self.hub.finish_unpack(&mut self.rng);
            self.pump()?;
            if !has_moved {
                return Ok(());
            }
        }
        self.tally.evictions += 1;
        self.hub.evict()
    }

    pub(crate) fn restart_hub(&mut self) -> Result<(), String> {
        self.tally.restarts += 1;
        for index in 0..self.peers.len() {
            self.cut(index);
        }
        self.hub.restart(&mut self.rng)
    }

    pub(crate) fn pump(&mut self) -> Result<(), String> {
        for (connection, outgoing) in self.hub.pump()? {
            let Some(peer) = self.peers.iter_mut().find(|peer| peer.connection == Some(connection)) else {
                continue;
            };
            match outgoing {
                Outgoing::Sync(message) => {
                    self.tally.messages += 1;
                    peer.to_peer.push_back(message.encode());
                }
                Outgoing::Unavailable if !peer.is_asking => return Err("unavailable, unasked".to_owned()),
                Outgoing::Unavailable => peer.is_asking = false,
                Outgoing::Deleted => return Err("deleted, by nobody".to_owned()),
                Outgoing::Ephemeral { .. } | Outgoing::RemoteHeads(_) | Outgoing::Rejected(_) => {}
            }
        }
        Ok(())
    }

    /// Two peers meet without the hub.
    fn merge_out_of_band(&mut self, index: usize) {
        let other = self.rng.below(self.peers.len());
        if other == index {
            return;
        }
        let mut copy = self.peers[other].doc.fork();
        let peer = &mut self.peers[index];
        let all = copy.get_changes(&[]);
        let merged = if self.rng.percent(30) {
            // Only the later half: some of its changes wait for others that this peer may never get this way.
            let half = &all[all.len() / 2..];
            peer.queued.extend_from_slice(half);
            peer.doc.apply_changes(half.to_vec())
        } else {
            peer.doc.merge(&mut copy).map(drop)
        };
        assert!(merged.is_ok() || !self.twins.is_empty(), "peers can merge: {merged:?}");
        peer.wants_to_speak = true;
        self.tally.impulses += 1;
    }

    fn toggle_read_only(&mut self, index: usize) {
        self.tally.impulses += 1;
        let peer = &mut self.peers[index];
        if !peer.kind.is_old {
            peer.set_read_only(!peer.is_read_only);
        }
    }

    /// A peer tells what a storage has, durable here or not.
    fn gossip(&mut self, index: usize) {
        let Some(connection) = self.peers[index].connection else { return };
        self.clock += 1.0;
        self.hub.document.set_time(self.clock);
        let heads = self.peers[index].doc.get_heads();
        let entry = RemoteHeads { storage: storage(index), heads, timestamp: self.clock };
        self.hub.document.handle_remote_heads(connection, vec![entry]);
    }

    fn lose_or_fork(&mut self, index: usize) {
        self.tally.impulses += 1;
        if self.rng.percent(50) {
            // With the connection, or under it; then the next that the hub hears is that there is nothing.
            if self.rng.percent(70) {
                self.cut(index);
            }
            self.peers[index].lose_everything();
            self.peers[index].wants_to_speak = true;
            self.speak(index);
            return;
        }
        let other = self.rng.below(self.peers.len());
        if other == index {
            return;
        }
        // A copy of the other's whole profile, actor included.
        let actor = self.peers[other].doc.get_actor().clone();
        let copy = self.peers[other].doc.fork().with_actor(actor.clone());
        self.twins.insert(actor);
        self.cut(index);
        self.peers[index].doc = copy;
        // A copy waits for what the other waits for.
        self.peers[index].queued = self.peers[other].queued.clone();
        self.peers[index].restart_sync(Memory::Fresh);
    }

    /// Nothing goes wrong any more, everybody is connected and may take changes; until nobody has anything to say.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        self.hub.note(|| "everything settles".to_owned());
        self.hub.disk.calm_down();
        let before = self.tally.messages;
        for _ in 0..SETTLE_ROUNDS_MAX {
            if !self.round()? {
                self.tally.settling = self.tally.messages - before;
                return Ok(());
            }
        }
        Err("there is no end to it".to_owned())
    }

    /// The number of messages is bounded by the number of things that happened, each of which all peers may have to hear of.
    fn check_message_count(&self) -> Result<(), String> {
        let peers = self.peers.len();
        let most = 2 * peers * (self.tally.impulses + self.tally.connects);
        if self.tally.messages > most {
            return Err(format!("more than {most} messages"));
        }
        // A stock peer that lacks dependencies asks for one generation of them at a time.
        let most = 8 * peers * peers + 2 * self.tally.changes;
        if self.tally.settling > most {
            return Err(format!("more than {most} messages after the last thing that happened"));
        }
        Ok(())
    }

    /// A peer that is connected, takes changes, and has a sync state that it should have.
    fn put_right(&mut self, index: usize) {
        if self.peers[index].is_confused {
            self.cut(index);
            self.peers[index].restart_sync(Memory::Fresh);
        }
        if self.peers[index].is_read_only {
            self.peers[index].set_read_only(false);
        }
        if self.peers[index].connection.is_none() {
            self.connect(index);
        }
    }

    /// Everything under way arrives. Returns whether anything was.
    fn round(&mut self) -> Result<bool, String> {
        let mut has_moved = false;
        (0..self.peers.len()).for_each(|index| self.put_right(index));
        for index in 0..self.peers.len() {
            while self.deliver_to_peer(index)? {
                has_moved = true;
            }
            let before = self.tally.messages;
            self.speak(index);
            has_moved |= self.tally.messages > before;
            while self.deliver_to_hub(index)? {
                has_moved = true;
            }
        }
        self.pump()?;
        while self.hub.finish_unpack(&mut self.rng) {
            has_moved = true;
        }
        self.pump()?;
        while self.finish_append()? {
            has_moved = true;
            self.pump()?;
        }
        while self.finish_compaction()? {
            has_moved = true;
        }
        while self.hub.finish_bringing()? {
            has_moved = true;
            self.pump()?;
        }
        Ok(has_moved || self.hub.is_busy())
    }

    /// Everybody has the same document, except who holds refused changes and who may not write and did.
    pub(crate) fn check_converged(&mut self) -> Result<(), String> {
        let heads: Vec<ChangeHash> = self.hub.document.heads().to_vec();
        self.hub.check_stored()?;
        self.hub.check_heard()?;
        let mut stored = self.hub.materialise()?;
        if stored.get_heads() != heads {
            return Err("the stored changes do not give a document with these heads".to_owned());
        }
        let value = stored.hydrate(ROOT, None).map_err(|error| error.to_string())?;
        for index in 0..self.peers.len() {
            if self.peers[index].is_stuck || self.has_refused_change(index) {
                continue;
            }
            let peer = &mut self.peers[index];
            if peer.is_asking {
                return Err(format!("peer {index} was never told whether the document exists"));
            }
            if !peer.kind.may_write {
                let lacks = heads.iter().any(|head| peer.doc.get_change_by_hash(head).is_none());
                if lacks {
                    return Err(format!("peer {index}, which only reads, lacks changes"));
                }
                continue;
            }
            if peer.doc.get_heads() != heads {
                return Err(format!("peer {index} has {:?} and not {heads:?}", peer.doc.get_heads()));
            }
            let mut loaded = AutoCommit::load(&peer.doc.save()).map_err(|error| error.to_string())?;
            let is_same = loaded.get_heads() == heads
                && loaded.hydrate(ROOT, None).map_err(|error| error.to_string())? == value
                && peer.doc.hydrate(ROOT, None).map_err(|error| error.to_string())? == value;
            if !is_same {
                return Err(format!("peer {index} has the same heads and another content"));
            }
        }
        Ok(())
    }
}
