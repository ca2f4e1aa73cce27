//! One document: its values, what the server said about it, and what it owes.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::{CommitOptions, Transaction};
use automerge::{Automerge, Change, ReadDoc};
use bytes::Bytes;
use highwater_core::change::check_bounds;
use highwater_core::limits::HAVE_HASHES_MAX;
use highwater_core::sync::Message;
use highwater_core::wire::Rejection;
use highwater_core::{ChangeHash, DocumentId};

use super::ledger::{Ledger, Owed};
use super::wishes::Put;
use crate::error::{ChangeError, UnsavedDocument};
use crate::limits::TEXT_BYTES_MAX;

/// What is known about a document at the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has not been heard of yet.
    #[default]
    Unknown,
    /// All that the server had is here, or was.
    Here,
    /// The server does not have it.
    Unavailable,
}

/// Why a document cannot be read or changed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It was closed.
    Closed,
    /// `automerge` failed on it.
    Broken(String),
}

/// What others must know about a document without looking into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) pending: usize,
    pub(crate) bytes: usize,
    pub(crate) since: Option<u64>,
    pub(crate) is_saved: bool,
    pub(crate) is_rejected: bool,
    pub(crate) is_stored: bool,
    pub(crate) is_hopeful: bool,
    pub(crate) presence: Presence,
}

/// What must follow from something that happened to a document.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To keep in the outbox.
    pub(crate) put: Vec<(ChangeHash, Put)>,
    /// Not to keep any longer; and whether the outbox has it.
    pub(crate) settled: Vec<(ChangeHash, bool)>,
    /// There may be something to say to the server.
    pub(crate) send: bool,
}

/// A document that is kept in step with a server.
#[derive(Debug)]
pub(crate) struct Replica {
    id: DocumentId,
    /// Nothing while `automerge` works on it, and for ever if it panicked then.
    document: Option<Automerge>,
    broken: String,
    is_closed: bool,
    sync: stock::State,
    ledger: Ledger,
    /// What the server said on this connection.
    server_heads: Option<Vec<ChangeHash>>,
    /// Whether what is owed is to be found anew from the server's heads: on each connection once.
    is_unchecked: bool,
    /// False if another server answers, until it is known what that has.
    is_verified: bool,
    presence: Presence,
}

impl Replica {
    /// An empty document.
    pub(crate) fn new(id: DocumentId) -> Self {
        Self {
            id,
            document: Some(Automerge::new()),
            broken: String::new(),
            is_closed: false,
            sync: stock::State::new(),
            ledger: Ledger::default(),
            server_heads: None,
            is_unchecked: true,
            is_verified: true,
            presence: Presence::Unknown,
        }
    }

    /// Takes what the outbox kept of an earlier session.
    pub(crate) fn recall(&mut self, owed: Vec<Owed>) -> Result<(), String> {
        let changes = owed.iter().map(|owed| Change::from_bytes(owed.bytes.to_vec()));
        let changes = changes.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        for owed in owed {
            self.ledger.add(Owed { stored: true, ..owed });
        }
        self.work(|document, _| document.apply_changes(changes).map_err(|error| error.to_string()))
    }

    /// The document, to look at.
    pub(crate) fn read(&self) -> Result<&Automerge, Unusable> {
        if self.is_closed {
            return Err(Unusable::Closed);
        }
        self.document.as_ref().ok_or_else(|| Unusable::Broken(self.broken.clone()))
    }

    /// Changes the document. All or nothing.
    pub(crate) fn change<T, E>(
        &mut self,
        now: u64,
        options: CommitOptions,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Option<ChangeHash>, Effects), ChangeError<E>> {
        self.read().map_err(ChangeError::unusable)?;
        let Some(document) = &mut self.document else { return Err(ChangeError::Closed) };
        let done =
            document.transact_with(|_| options, edit).map_err(|failure| ChangeError::Edit(failure.error))?;
        let Some(hash) = done.hash else { return Ok((done.result, None, Effects::default())) };
        let Some(change) = document.get_change_by_hash(&hash) else {
            self.break_down("a change that was made is not there".to_owned());
            return Err(ChangeError::Broken(self.broken.clone()));
        };
        let mut effects = Effects { send: true, ..Effects::default() };
        self.owe(&change, now, &mut effects);
        Ok((done.result, Some(hash), effects))
    }

    /// There is a new connection: the conversation starts afresh.
    pub(crate) fn connected(&mut self) {
        self.sync = stock::State::new();
        self.server_heads = None;
        self.is_unchecked = true;
        if self.presence == Presence::Unavailable {
            // It may be there by now.
            self.presence = Presence::Unknown;
        }
    }

    /// It is another server: what was durable must be confirmed again.
    pub(crate) fn doubt(&mut self) {
        self.ledger.forget_rejections();
        self.is_verified = self.heads().is_empty();
        self.presence = Presence::Unknown;
    }

    /// The heads, sorted.
    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.document.as_ref().map(Automerge::get_heads).unwrap_or_default()
    }

    /// A sync message from the server. An error means that the connection is of no use any more.
    pub(crate) fn receive(&mut self, data: Bytes, now: u64) -> Result<Effects, String> {
        if self.document.is_none() {
            return Ok(Effects::default());
        }
        let Message { heads, chunks, .. } =
            Message::decode(data.clone()).map_err(|error| error.to_string())?;
        check_bounds(&chunks).map_err(|error| error.to_string())?;
        self.work(|document, sync| {
            let message = stock::Message::decode(&data).map_err(|error| error.to_string())?;
            document.receive_sync_message(sync, message).map_err(|error| error.to_string())
        })?;
        let mut effects = Effects { send: true, ..Effects::default() };
        let has_all = heads.iter().all(|head| self.has(head));
        self.server_heads = Some(heads.clone());
        self.settle(&heads, &mut effects);
        if has_all {
            self.presence = Presence::Here;
            self.check(&heads, now, &mut effects);
        }
        Ok(effects)
    }

    /// What there is to say to the server now: whether it is a request, and a sync message.
    pub(crate) fn generate(&mut self) -> Result<Option<(bool, Vec<u8>)>, String> {
        let Some(document) = &self.document else { return Ok(None) };
        let is_request = self.presence == Presence::Unknown && document.get_heads().is_empty();
        let sync = &mut self.sync;
        // It answers what the server said, which may be anything.
        let message = guarded(|| Ok(document.generate_sync_message(sync).map(stock::Message::encode)))?;
        Ok(message.map(|data| (is_request, data)))
    }

    /// The server called these changes durable by name.
    pub(crate) fn mark_durable(&mut self, hashes: &[ChangeHash]) -> Effects {
        let mut effects = Effects::default();
        self.settle(hashes, &mut effects);
        if !self.is_verified && self.heads().iter().all(|head| hashes.contains(head)) {
            self.is_verified = true;
        }
        effects
    }

    /// The server will never take these changes.
    pub(crate) fn reject(&mut self, changes: Vec<Rejection>) {
        for Rejection { hash, reason } in changes {
            self.ledger.reject(hash, reason.chars().take(TEXT_BYTES_MAX / 4).collect());
        }
    }

    /// The server does not have the document.
    pub(crate) fn unavailable(&mut self) {
        if self.presence == Presence::Unknown {
            self.presence = Presence::Unavailable;
        }
    }

    /// A change is in the outbox.
    pub(crate) fn mark_stored(&mut self, hash: &ChangeHash) {
        self.ledger.mark_stored(hash);
    }

    /// Nothing can be done with it any more, or again.
    pub(crate) fn set_closed(&mut self, is_closed: bool) {
        self.is_closed = is_closed;
    }

    /// What to ask the server about by name: it named heads that are not here, so those do not tell whether it has these. The newest, which stand for those below them.
    pub(crate) fn undecided(&self) -> Vec<ChangeHash> {
        let Some(heads) = &self.server_heads else { return Vec::new() };
        if heads.iter().all(|head| self.has(head)) {
            return Vec::new();
        }
        let mut asked = self.ledger.hopeful();
        if !self.is_verified {
            asked.extend(self.heads().iter().filter(|head| !self.ledger.contains(head)));
        }
        asked.split_off(asked.len().saturating_sub(HAVE_HASHES_MAX))
    }

    /// Whether every change is durable on the server.
    pub(crate) fn is_saved(&self) -> bool {
        self.is_verified && self.ledger.is_empty()
    }

    /// Whether it is known without asking that a change is durable.
    pub(crate) fn knows_durable(&self, hash: &ChangeHash) -> bool {
        self.is_verified && !self.ledger.contains(hash) && self.has(hash)
    }

    /// The pending changes, in causal order.
    pub(crate) fn pending(&self) -> Vec<ChangeHash> {
        self.ledger.iter().map(|owed| owed.hash).collect()
    }

    /// Those of these changes that are not known to be durable.
    pub(crate) fn open(&self, hashes: &[ChangeHash]) -> Vec<ChangeHash> {
        hashes.iter().filter(|hash| !self.is_verified || self.ledger.contains(hash)).copied().collect()
    }

    /// Whether none of these changes can become durable any more.
    pub(crate) fn is_hopeless(&self, hashes: &[ChangeHash]) -> bool {
        let hopeful: HashSet<_> = self.ledger.hopeful().into_iter().collect();
        self.is_verified && self.ledger.has_rejected() && !hashes.iter().any(|hash| hopeful.contains(hash))
    }

    /// For the error of somebody who waited in vain.
    pub(crate) fn unsaved(&self) -> UnsavedDocument {
        let mut hashes = self.pending();
        if !self.is_verified {
            // Before the server has spoken there is no list; the heads stand for all below them.
            hashes.extend(self.heads().iter().filter(|head| !self.ledger.contains(head)));
        }
        let in_outbox = self.is_stored();
        UnsavedDocument { document: self.id, hashes, rejected: self.ledger.rejected(), in_outbox }
    }

    /// For those who do not look into it.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            pending: self.ledger.len(),
            bytes: self.ledger.bytes(),
            since: self.ledger.since(),
            is_saved: self.is_saved(),
            is_rejected: self.ledger.has_rejected(),
            is_stored: self.is_stored(),
            is_hopeful: !self.is_verified || !self.ledger.has_rejected() || !self.ledger.hopeful().is_empty(),
            presence: self.presence,
        }
    }

    /// Whether the outbox has all that is owed. What another server must confirm anew is not in it.
    fn is_stored(&self) -> bool {
        self.is_verified && self.ledger.is_stored()
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        self.document.as_ref().is_some_and(|document| document.get_change_meta_by_hash(hash).is_some())
    }

    /// These changes are durable, and so are all that they build on. What they build on is known of those that are here.
    fn settle(&mut self, durable: &[ChangeHash], effects: &mut Effects) {
        if self.ledger.is_empty() {
            return;
        }
        let here: Vec<ChangeHash> = durable.iter().filter(|hash| self.has(hash)).copied().collect();
        // Without any, "not below them" would be the whole document.
        let uncovered: Option<HashSet<ChangeHash>> =
            (!here.is_empty()).then(|| self.since(&here).into_iter().collect());
        let is_below = |hash: &ChangeHash| {
            uncovered.as_ref().is_some_and(|uncovered| self.has(hash) && !uncovered.contains(hash))
        };
        let is_covered = |hash: &ChangeHash| durable.contains(hash) || is_below(hash);
        let covered: Vec<ChangeHash> = self.pending().into_iter().filter(|hash| is_covered(hash)).collect();
        for hash in covered {
            if let Some(owed) = self.ledger.remove(&hash) {
                effects.settled.push((hash, owed.stored));
            }
        }
    }

    /// All of the server's heads are here: exactly what is not below them is owed. Found once on each connection, for the server may have lost something.
    fn check(&mut self, heads: &[ChangeHash], now: u64, effects: &mut Effects) {
        if !self.is_unchecked {
            return;
        }
        self.is_unchecked = false;
        self.is_verified = true;
        let Some(document) = &self.document else { return };
        let order = self.since(heads);
        let lost = order.iter().filter(|hash| !self.ledger.contains(hash));
        let lost: Vec<Change> = lost.filter_map(|hash| document.get_change_by_hash(hash)).collect();
        if lost.is_empty() {
            return;
        }
        for change in &lost {
            self.owe(change, now, effects);
        }
        self.ledger.reorder(&order);
    }

    fn owe(&mut self, change: &Change, since: u64, effects: &mut Effects) {
        let (hash, bytes) = (change.hash(), Bytes::copy_from_slice(change.raw_bytes()));
        let owed = Owed { hash, deps: change.deps().to_vec(), bytes: bytes.clone(), since, stored: false };
        if self.ledger.add(owed) {
            effects.put.push((hash, Put { bytes, since }));
        }
    }

    /// The changes here that are not below these heads, each after what it builds on.
    fn since(&self, heads: &[ChangeHash]) -> Vec<ChangeHash> {
        let Some(document) = &self.document else { return Vec::new() };
        document.get_changes_meta(heads).iter().map(|meta| meta.hash).collect()
    }

    /// Hands the document to `automerge` with something from outside. If that panics nobody knows what is left of the document, and it is let go of.
    fn work(
        &mut self,
        work: impl FnOnce(&mut Automerge, &mut stock::State) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(mut document) = self.document.take() else { return Err(self.broken.clone()) };
        let sync = &mut self.sync;
        match catch_unwind(AssertUnwindSafe(|| work(&mut document, sync))) {
            Ok(done) => {
                self.document = Some(document);
                done
            }
            Err(_) => {
                self.break_down("automerge cannot read what the server sent (it panicked)".to_owned());
                Err(self.broken.clone())
            }
        }
    }

    fn break_down(&mut self, why: String) {
        self.document = None;
        self.broken = why;
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("automerge cannot answer what the server sent (it panicked)".to_owned()))
}
