//! Deleting a document, and what becomes of those who still have it.
//!
//! A tombstone is an append like others: before it is durable nothing is said of it, but nothing is taken in behind it either. Once it is, the history is gone, and there is nothing to
//! say about the document but that: once to everybody who has it open, and to whoever asks for it or sends changes.

use crate::history::History;
use crate::id::ChangeHash;
use crate::record::Record;
use crate::sync;
use crate::sync::state::State;
use crate::wire::Rejection;

use super::import::NOBODY;
use super::orphans::Orphans;
use super::remote_heads::RemoteHeadsBook;
use super::{AppendId, ConnectionId, Document, DocumentId, Effect, Intake, Outgoing};

/// Why changes of a deleted document are refused.
pub const DELETED: &str = "the document was deleted";

/// How far a document is from being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Its tombstone is on its way to disk.
    Ending(AppendId),
    Deleted,
}

impl Document {
    /// A document that was deleted.
    pub fn deleted(id: DocumentId) -> Self {
        let mut document = Self::new(id);
        document.life = Life::Deleted;
        document
    }

    /// Whether the document was deleted, durably.
    pub fn is_deleted(&self) -> bool {
        self.life == Life::Deleted
    }

    /// Whether no change is taken in any more: it was deleted, or its tombstone is on its way to disk.
    pub fn is_ending(&self) -> bool {
        self.life != Life::Alive
    }

    /// Deletes the document. The tombstone follows as an [`Effect::Append`], together with these records; it is durable when [`is_deleted`](Self::is_deleted) says so. Asked for again,
    /// there is nothing to append but the records.
    pub fn delete(&mut self, also: Vec<Record>) {
        let tombstone = (self.life == Life::Alive).then_some(Record::Tombstone);
        let records: Vec<Record> = tombstone.into_iter().chain(also).collect();
        if !records.is_empty() {
            self.append(NOBODY, records);
        }
    }

    /// The append that is durable was the tombstone's: nothing is left of the document.
    pub(super) fn end(&mut self) {
        self.life = Life::Deleted;
        self.history = History::default();
        self.orphans = Orphans::default();
        self.remote_heads = RemoteHeadsBook::default();
        self.rejected.clear();
        self.quarantined = 0;
        self.stale.clear();
        self.held.clear();
        self.hungry.clear();
        self.waiting.clear();
        self.is_bringing = false;
        for append in &mut self.appends {
            append.history_len = 0;
        }
        for (connection, peer) in &mut self.peers {
            peer.state = State::new(!peer.info.may_write);
            peer.was_told = true;
            let outgoing = Outgoing::Deleted;
            self.effects.push_back(Effect::Send { connection: *connection, outgoing });
        }
    }

    /// Refuses a change because the document is gone, or about to be.
    pub(super) fn refuse_ended(&self, hash: ChangeHash, intake: &mut Intake) -> bool {
        if self.life == Life::Alive {
            return false;
        }
        intake.rejections.push(Rejection { hash, reason: DELETED.to_owned() });
        true
    }

    /// A message about a deleted document counts: its sender is told, and that what it has will never be part of the document.
    pub(super) fn answer_deleted(&mut self, connection: ConnectionId, message: &sync::Message) {
        let was_asked = self.waiting.remove(&connection);
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let was_told = std::mem::replace(&mut peer.was_told, true);
        if was_told && !was_asked {
            return;
        }
        self.effects.push_back(Effect::Send { connection, outgoing: Outgoing::Deleted });
        let refused = |hash: &ChangeHash| Rejection { hash: *hash, reason: DELETED.to_owned() };
        let rejections: Vec<Rejection> = message.heads.iter().map(refused).collect();
        if !rejections.is_empty() {
            self.send_rejections(connection, rejections);
        }
    }
}
