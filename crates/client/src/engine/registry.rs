//! What the application's calls and the driver share: the documents, and what is to be said and written.
//!
//! Locks are taken in one order: a document's replica, then the registry; before both, by whoever closes everything, the lock for that; never the other way round, and never two replicas at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_core::{ChangeHash, DocumentId};
use tokio::sync::{Notify, oneshot, watch};

use super::replica::{Effects, Facts, Presence, Replica};
use super::wishes::{Wishes, Writing};
use crate::error::{OpenError, Stopped, UnsavedDocument, UnsavedReason};
use crate::limits::{DOCUMENTS_MAX, QUESTIONS_MAX};
use crate::status::SaveStatus;

/// A document, as all handles on it and the driver share it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: DocumentId,
    replica: Mutex<Replica>,
    pub(crate) heads: watch::Sender<Vec<ChangeHash>>,
}

impl Entry {
    pub(crate) fn new(id: DocumentId) -> Arc<Self> {
        Arc::new(Self { id, replica: Mutex::new(Replica::new(id)), heads: watch::Sender::new(Vec::new()) })
    }

    /// The document itself. An edit that panicked was rolled back, so what is there is right.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    /// How many handles the application has. Without one, the document stays until it owes nothing.
    handles: usize,
    facts: Facts,
}

/// Whether the client goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Ended {
    #[default]
    No,
    /// No connection will be made unless the application asks for it.
    Stopped(Stopped),
    /// The application has closed it.
    Closed,
}

/// What the application wants of the connection now. The more urgent last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    #[default]
    Nothing,
    /// Somebody waits for something.
    Haste,
    /// There must be one if there can be.
    Connection,
}

/// Whether a change is durable: asked by the application.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) document: DocumentId,
    pub(crate) hash: ChangeHash,
    pub(crate) answer: oneshot::Sender<bool>,
}

/// All documents and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: BTreeMap<DocumentId, Slot>,
    dirty: VecDeque<DocumentId>,
    is_dirty: BTreeSet<DocumentId>,
    pub(crate) is_connected: bool,
    /// Whether the server answers questions about single changes.
    pub(crate) can_ask: bool,
    pub(crate) ended: Ended,
    /// While everything is being closed no document is opened or made.
    pub(crate) is_closing: bool,
    pub(crate) wanted: Wanted,
    pub(crate) has_outbox: bool,
    pub(crate) wishes: Wishes,
    pub(crate) unsaved_bytes: usize,
    pub(crate) questions: VecDeque<Question>,
    pub(crate) asked: BTreeMap<u64, Question>,
}

impl Registry {
    /// The status of one document, or of all.
    pub(crate) fn status(&self, document: Option<DocumentId>) -> SaveStatus {
        match document {
            Some(id) => {
                self.slots.get(&id).map_or(SaveStatus::SAVED, |slot| SaveStatus::of(&slot.facts, self))
            }
            None => self
                .slots
                .values()
                .fold(SaveStatus::SAVED, |all, slot| all.and(SaveStatus::of(&slot.facts, self))),
        }
    }

    /// Whether nothing is owed to the server.
    pub(crate) fn is_all_saved(&self) -> bool {
        self.slots.values().all(|slot| slot.facts.is_saved)
    }

    /// Why what is owed cannot be taken by the server any more: nothing while it can.
    pub(crate) fn why_hopeless(&self) -> Option<UnsavedReason> {
        let mut unsaved = self.slots.values().filter(|slot| !slot.facts.is_saved).peekable();
        unsaved.peek()?;
        let mut is_deleted = false;
        for slot in unsaved {
            if slot.facts.is_hopeful {
                return None;
            }
            is_deleted |= slot.facts.presence == Presence::Deleted;
        }
        Some(if is_deleted { UnsavedReason::Deleted } else { UnsavedReason::Rejected })
    }

    /// Whether the server has sent all that it had of a document, or said that it has nothing.
    pub(crate) fn presence(&self, document: DocumentId) -> Presence {
        self.slots.get(&document).map_or(Presence::Unknown, |slot| slot.facts.presence)
    }

    /// The next document of which there may be something to say.
    pub(crate) fn take_dirty(&mut self) -> Option<Arc<Entry>> {
        while let Some(id) = self.dirty.pop_front() {
            self.is_dirty.remove(&id);
            if let Some(slot) = self.slots.get(&id) {
                return Some(slot.entry.clone());
            }
        }
        None
    }

    /// There may be something to say about this document.
    pub(crate) fn mark_dirty(&mut self, id: DocumentId) {
        if self.is_dirty.insert(id) {
            self.dirty.push_back(id);
        }
    }

    /// Whether there may be something to say.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes a question, if there is room. Those for whose answer nobody waits any more make some.
    pub(crate) fn ask(&mut self, question: Question) -> bool {
        if self.questions.len() + self.asked.len() >= QUESTIONS_MAX {
            self.questions.retain(|question| !question.answer.is_closed());
            self.asked.retain(|_, question| !question.answer.is_closed());
        }
        let has_room = self.questions.len() + self.asked.len() < QUESTIONS_MAX;
        if has_room {
            self.questions.push_back(question);
        }
        has_room
    }

    /// Nobody answers what was asked on a connection that has ended.
    pub(crate) fn forget_questions(&mut self) {
        self.questions.clear();
        self.asked.clear();
    }

    fn release_if_settled(&mut self, id: DocumentId) {
        let is_settled = |slot: &Slot| slot.handles == 0 && slot.facts.is_saved;
        if self.slots.get(&id).is_some_and(is_settled) {
            self.slots.remove(&id);
        }
    }
}

/// The registry, and the ways to wake those who wait for it to change.
#[derive(Debug)]
pub(crate) struct Shared {
    registry: Mutex<Registry>,
    /// Held by whoever closes everything. Taken before a replica.
    closing: Mutex<()>,
    /// Counts what happens, for those who wait for something to become true.
    pub(crate) tick: watch::Sender<u64>,
    pub(crate) driver: Notify,
    pub(crate) outbox: Notify,
}

impl Shared {
    pub(crate) fn new(has_outbox: bool) -> Arc<Self> {
        let registry = Registry { has_outbox, ..Registry::default() };
        Arc::new(Self {
            registry: Mutex::new(registry),
            closing: Mutex::default(),
            tick: watch::Sender::new(0),
            driver: Notify::new(),
            outbox: Notify::new(),
        })
    }

    /// The registry. Held for look-ups only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application wants something of the connection.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut registry = self.lock();
        registry.wanted = registry.wanted.max(wanted);
        drop(registry);
        self.driver.notify_one();
    }

    /// Something is different now.
    pub(crate) fn changed(&self) {
        self.tick.send_modify(|tick| *tick = tick.wrapping_add(1));
    }

    /// Opens a document for one more handle.
    pub(crate) fn open(&self, id: DocumentId) -> Result<Arc<Entry>, OpenError> {
        self.open_with(id, 1)
    }

    /// Opens a document that owes something from an earlier session.
    pub(crate) fn open_owing(&self, id: DocumentId) -> Result<Arc<Entry>, OpenError> {
        self.open_with(id, 0)
    }

    fn open_with(&self, id: DocumentId, handles: usize) -> Result<Arc<Entry>, OpenError> {
        let entry = Entry::new(id);
        let facts = entry.lock().facts();
        let mut registry = self.lock_to_open();
        if registry.ended == Ended::Closed {
            return Err(OpenError::Closed);
        }
        if let Some(slot) = registry.slots.get_mut(&id) {
            slot.handles += handles;
            return Ok(slot.entry.clone());
        }
        if registry.slots.len() >= DOCUMENTS_MAX {
            return Err(OpenError::TooManyDocuments { max: DOCUMENTS_MAX });
        }
        registry.slots.insert(id, Slot { entry: entry.clone(), handles, facts });
        registry.mark_dirty(id);
        drop(registry);
        self.driver.notify_one();
        Ok(entry)
    }

    /// One more handle on a document that somebody has.
    pub(crate) fn retain(&self, entry: &Arc<Entry>) {
        let mut registry = self.lock();
        if let Some(slot) = registry.slots.get_mut(&entry.id).filter(|slot| Arc::ptr_eq(&slot.entry, entry)) {
            slot.handles += 1;
        }
    }

    /// A handle is gone.
    pub(crate) fn release(&self, entry: &Arc<Entry>) {
        let mut registry = self.lock();
        if let Some(slot) = registry.slots.get_mut(&entry.id).filter(|slot| Arc::ptr_eq(&slot.entry, entry)) {
            slot.handles = slot.handles.saturating_sub(1);
            registry.release_if_settled(entry.id);
        }
    }

    /// Closes a document if it owes nothing; then no handle is good any more. Says whether it did.
    pub(crate) fn close_document(&self, entry: &Arc<Entry>) -> bool {
        let mut replica = entry.lock();
        if !replica.is_saved() {
            return false;
        }
        replica.close();
        let mut registry = self.lock();
        if registry.slots.get(&entry.id).is_some_and(|slot| Arc::ptr_eq(&slot.entry, entry)) {
            registry.slots.remove(&entry.id);
        }
        drop(registry);
        // For those who follow the document.
        self.changed();
        true
    }

    /// Closes the client if nothing is owed. Says whether it did.
    pub(crate) fn close_if_saved(&self) -> bool {
        let closing = self.lock_closing();
        // Looked at first, so that documents are not refused changes for a moment and in vain.
        {
            let mut registry = self.lock();
            if registry.ended == Ended::Closed {
                return registry.is_all_saved();
            }
            if !registry.is_all_saved() {
                return false;
            }
            registry.is_closing = true;
        }
        let entries = self.entries();
        let is_saved = entries.iter().all(|entry| {
            let mut replica = entry.lock();
            let is_saved = replica.is_saved();
            replica.freeze(is_saved);
            is_saved
        });
        if is_saved {
            self.end_while(&closing);
        } else {
            entries.iter().for_each(|entry| entry.lock().freeze(false));
            self.lock().is_closing = false;
        }
        is_saved
    }

    /// The client is closed, whatever is owed.
    pub(crate) fn end(&self) {
        self.end_while(&self.lock_closing());
    }

    /// First nothing can be changed any more, then it is over: so what was changed before has been noted when the outbox writes for the last time.
    fn end_while(&self, _closing: &MutexGuard<'_, ()>) {
        self.lock().is_closing = true;
        for entry in self.entries() {
            entry.lock().close();
        }
        self.lock().ended = Ended::Closed;
        self.driver.notify_one();
        self.outbox.notify_one();
        self.changed();
    }

    /// A document to change it. Whoever is just finding out whether all can be closed is waited for: that may turn out not to be so.
    pub(crate) fn lock_to_change<'a>(&self, entry: &'a Entry) -> MutexGuard<'a, Replica> {
        loop {
            let replica = entry.lock();
            if !replica.is_frozen() {
                return replica;
            }
            drop(replica);
            drop(self.lock_closing());
        }
    }

    /// The registry, to add a document to it; waits as [`lock_to_change`](Self::lock_to_change) does.
    fn lock_to_open(&self) -> MutexGuard<'_, Registry> {
        loop {
            let registry = self.lock();
            if !registry.is_closing || registry.ended == Ended::Closed {
                return registry;
            }
            drop(registry);
            drop(self.lock_closing());
        }
    }

    fn lock_closing(&self) -> MutexGuard<'_, ()> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All documents.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().slots.values().map(|slot| slot.entry.clone()).collect()
    }

    /// A document that is open.
    pub(crate) fn entry(&self, id: DocumentId) -> Option<Arc<Entry>> {
        self.lock().slots.get(&id).map(|slot| slot.entry.clone())
    }

    /// All that is not on the server.
    pub(crate) fn unsaved(&self) -> Vec<UnsavedDocument> {
        let unsaved = |entry: Arc<Entry>| {
            let replica = entry.lock();
            (!replica.is_saved()).then(|| replica.unsaved())
        };
        self.entries().into_iter().filter_map(unsaved).collect()
    }

    /// Something happened to a document, which the caller still has locked: so whatever follows from it is noted in the order in which it happened.
    pub(crate) fn note(&self, entry: &Arc<Entry>, replica: &Replica, effects: Effects) {
        let Effects { put, settled, send } = effects;
        let facts = replica.facts();
        let mut guard = self.lock();
        let registry = &mut *guard;
        let Some(slot) = registry.slots.get_mut(&entry.id).filter(|slot| Arc::ptr_eq(&slot.entry, entry))
        else {
            return;
        };
        registry.unsaved_bytes = registry.unsaved_bytes + facts.bytes - slot.facts.bytes;
        slot.facts = facts;
        if registry.has_outbox {
            for (hash, change) in put {
                registry.wishes.put(entry.id, hash, change);
            }
            for (hash, is_stored) in settled {
                registry.wishes.remove(entry.id, hash, is_stored);
            }
        }
        if send {
            registry.mark_dirty(entry.id);
        }
        let has_wishes = registry.wishes.has_waiting();
        registry.release_if_settled(entry.id);
        drop(guard);
        let heads = replica.heads();
        entry.heads.send_if_modified(|before| {
            let is_other = *before != heads;
            *before = heads;
            is_other
        });
        if send {
            self.driver.notify_one();
        }
        if has_wishes {
            self.outbox.notify_one();
        }
        self.changed();
    }

    /// The outbox has these, durably.
    pub(crate) fn stored(&self, writing: &Writing) {
        for ((id, hash), wish) in writing {
            if wish.is_none() {
                continue;
            }
            if let Some(entry) = self.entry(*id) {
                let mut replica = entry.lock();
                replica.mark_stored(hash);
                self.note(&entry, &replica, Effects::default());
            }
        }
        // Not before all are marked: what is settled meanwhile must still be known as one that the outbox has.
        self.lock().wishes.written();
        self.changed();
    }

    /// Whether there is a connection.
    pub(crate) fn set_connected(&self, is_connected: bool, can_ask: bool) {
        let mut registry = self.lock();
        registry.is_connected = is_connected;
        registry.can_ask = can_ask;
        if !is_connected {
            registry.forget_questions();
        }
        drop(registry);
        self.changed();
    }

    /// Whether there will be another connection by itself.
    pub(crate) fn set_stopped(&self, stopped: Option<&Stopped>) {
        let mut registry = self.lock();
        if registry.ended != Ended::Closed {
            registry.ended = stopped.cloned().map_or(Ended::No, Ended::Stopped);
        }
        drop(registry);
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_and_an_opening_wait_until_it_is_known_whether_all_is_closed() {
        for does_close in [false, true] {
            let shared = Shared::new(false);
            let entry = shared.open(DocumentId::from_bytes([1; 16])).unwrap();
            let closing = shared.lock_closing();
            entry.lock().freeze(true);
            shared.lock().is_closing = true;
            std::thread::scope(|scope| {
                let change = scope.spawn(|| shared.lock_to_change(&entry).read().is_ok());
                let open = scope.spawn(|| shared.open(DocumentId::from_bytes([2; 16])).is_ok());
                std::thread::sleep(std::time::Duration::from_millis(20));
                assert!(!change.is_finished() && !open.is_finished());
                if does_close {
                    shared.end_while(&closing);
                } else {
                    entry.lock().freeze(false);
                    shared.lock().is_closing = false;
                }
                drop(closing);
                let went_on = (change.join().unwrap(), open.join().unwrap());
                assert_eq!(went_on, (!does_close, !does_close));
            });
        }
    }
}
