//! One document: its values, what the server said about it, and what it owes.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::{CommitOptions, Transaction};
use automerge::{Automerge, Change, ReadDoc};
use bytes::Bytes;
use highwater_core::change::check_bounds;
use highwater_core::document::DELETED;
use highwater_core::limits::HAVE_HASHES_MAX;
use highwater_core::sync::{BloomFilter, Flags, Have, Message, Version};
use highwater_core::wire::Rejection;
use highwater_core::{ChangeHash, DocumentId};

use super::ledger::{Ledger, Owed};
use super::wishes::Put;
use crate::error::{ChangeError, RejectedChange, UnsavedDocument};
use crate::limits::{REPEAT_BYTES_MAX, TEXT_BYTES_MAX};

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
    /// Somebody deleted it on the server: nothing of it will ever be durable any more.
    Deleted,
}

/// Why a document cannot be read or changed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It was closed.
    Closed,
    /// `automerge` failed on it.
    Broken(String),
}

/// Whether the server must say anew what it has of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It is known of every change whether it is durable.
    None,
    /// It is another connection, and the server may have lost something: what was durable is to be confirmed.
    Again,
    /// It is another server: what was durable is owed to it until it says that it has it.
    AnotherServer,
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

/// What a server that says nothing of what is owed is told again.
#[derive(Debug, Default)]
pub(crate) struct Repeat {
    /// To ask it about by name.
    pub(crate) ask: Vec<ChangeHash>,
    /// A sync message, with changes if there are any to send.
    pub(crate) message: Option<Bytes>,
    /// Whether all that is owed has been sent again now.
    pub(crate) is_all: bool,
}

/// A document that is kept in step with a server.
#[derive(Debug)]
pub(crate) struct Replica {
    id: DocumentId,
    /// Nothing while `automerge` works on it, and for ever if it panicked then.
    document: Option<Automerge>,
    broken: String,
    is_closed: bool,
    /// Whether it is being closed, if all others can be.
    is_frozen: bool,
    sync: stock::State,
    /// Whether the conversation of this connection is of no use any more. What is owed is sent all the same, by [`repeat`](Self::repeat).
    is_mute: bool,
    ledger: Ledger,
    /// Refused changes that were discarded, and what they build on: nobody who waits for them must take them for durable.
    discarded: HashMap<ChangeHash, Vec<ChangeHash>>,
    /// Pending changes that were sent again on this connection.
    repeated: HashSet<ChangeHash>,
    /// What the server said on this connection.
    server_heads: Option<Vec<ChangeHash>>,
    /// Whether what is owed is to be found anew from the server's heads: on each connection once.
    is_unchecked: bool,
    doubt: Doubt,
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
            is_frozen: false,
            sync: stock::State::new(),
            is_mute: false,
            ledger: Ledger::default(),
            discarded: HashMap::new(),
            repeated: HashSet::new(),
            server_heads: None,
            is_unchecked: true,
            doubt: Doubt::None,
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
        self.ledger.sort();
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
        if self.is_deleted() {
            return Err(ChangeError::Deleted);
        }
        let Some(document) = &mut self.document else { return Err(ChangeError::Closed) };
        let done =
            document.transact_with(|_| options, edit).map_err(|failure| ChangeError::Edit(failure.error))?;
        let Some(hash) = done.hash else { return Ok((done.result, None, Effects::default())) };
        let Some(change) = document.get_change_by_hash(&hash) else {
            self.break_down("a change that was made is not there".to_owned());
            return Err(ChangeError::Broken(self.broken.clone()));
        };
        if let Err(why) = check_sendable(&change) {
            self.leave_out(&HashSet::from([hash])).map_err(ChangeError::unusable)?;
            return Err(ChangeError::TooLarge(why));
        }
        let mut effects = Effects { send: true, ..Effects::default() };
        self.owe(&change, now, &mut effects);
        Ok((done.result, Some(hash), effects))
    }

    /// There is a new connection: the conversation starts afresh.
    pub(crate) fn connected(&mut self) {
        self.sync = stock::State::new();
        self.is_mute = false;
        self.repeated.clear();
        self.server_heads = None;
        self.is_unchecked = true;
        if self.presence == Presence::Unavailable {
            // It may be there by now.
            self.presence = Presence::Unknown;
        }
        // Of a deleted document nothing is to be confirmed.
        if self.doubt == Doubt::None && !self.heads().is_empty() && !self.is_deleted() {
            self.doubt = Doubt::Again;
        }
    }

    /// It is another server: what was durable must be confirmed again, and what was refused or deleted may be taken.
    pub(crate) fn doubt(&mut self) {
        self.ledger.forget_rejections();
        self.doubt = if self.heads().is_empty() { Doubt::None } else { Doubt::AnotherServer };
        self.presence = Presence::Unknown;
    }

    /// The heads, sorted.
    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.document.as_ref().map(Automerge::get_heads).unwrap_or_default()
    }

    /// A sync message from the server. An error means that the connection is of no use any more.
    pub(crate) fn receive(&mut self, data: Bytes, now: u64) -> Result<Effects, String> {
        let Message { heads, chunks, .. } =
            Message::decode(data.clone()).map_err(|error| error.to_string())?;
        if self.document.is_none() {
            // Nobody can look at it any more, but what it owes is saved by name.
            let mut effects = Effects::default();
            self.settle(&heads, &mut effects);
            self.server_heads = Some(heads);
            return Ok(effects);
        }
        check_bounds(&chunks).map_err(|error| error.to_string())?;
        self.work(|document, sync| {
            let message = stock::Message::decode(&data).map_err(|error| error.to_string())?;
            document.receive_sync_message(sync, message).map_err(|error| error.to_string())
        })?;
        if self.is_deleted() {
            // It speaks of it, so it has it, again.
            self.presence = Presence::Unknown;
        }
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
    pub(crate) fn generate(&mut self) -> Option<(bool, Vec<u8>)> {
        let document = self.document.as_ref().filter(|_| !self.is_mute)?;
        let is_request = self.presence == Presence::Unknown && document.get_heads().is_empty();
        let sync = &mut self.sync;
        // It answers what the server said, which may be anything.
        let answer = || document.generate_sync_message(sync).map(stock::Message::encode);
        let Ok(message) = catch_unwind(AssertUnwindSafe(answer)) else {
            tracing::warn!(document = %self.id, "automerge cannot answer what the server sent (it panicked)");
            self.is_mute = true;
            return None;
        };
        Some((is_request, message?))
    }

    /// The server called these changes durable by name.
    pub(crate) fn mark_durable(&mut self, hashes: &[ChangeHash]) -> Effects {
        let mut effects = Effects::default();
        self.settle(hashes, &mut effects);
        if self.heads().iter().all(|head| hashes.contains(head)) {
            self.doubt = Doubt::None;
        }
        effects
    }

    /// The server will never take these changes. That the document was deleted is said of single ones, and true of all.
    pub(crate) fn reject(&mut self, changes: Vec<Rejection>) {
        if changes.iter().any(|rejection| rejection.reason == DELETED) {
            return self.delete();
        }
        for Rejection { hash, reason } in changes {
            self.ledger.reject(hash, reason.chars().take(TEXT_BYTES_MAX / 4).collect());
        }
    }

    fn delete(&mut self) {
        self.presence = Presence::Deleted;
        self.is_unchecked = false;
        // That it was deleted does not undo that it was durable; but what only another server had never was, here.
        if self.doubt == Doubt::Again {
            self.doubt = Doubt::None;
        }
    }

    /// Takes what the server will never take out of the document and out of what is owed. In causal order.
    pub(crate) fn discard_rejected(&mut self) -> Result<(Vec<Change>, Effects), Unusable> {
        if self.is_closed {
            return Err(Unusable::Closed);
        }
        let lost =
            if self.is_deleted() { self.pending().into_iter().collect() } else { self.ledger.hopeless() };
        // Also one that `automerge` failed on can be rid of what it owes.
        if !lost.is_empty() && self.document.is_some() {
            self.leave_out(&lost)?;
        }
        let mut effects = Effects { send: !lost.is_empty(), ..Effects::default() };
        let mut discarded = Vec::new();
        for hash in self.pending().into_iter().filter(|hash| lost.contains(hash)) {
            let Some(owed) = self.ledger.remove(&hash) else { continue };
            discarded.extend(Change::from_bytes(owed.bytes.to_vec()));
            self.discarded.insert(hash, owed.deps);
            effects.settled.push((hash, owed.stored));
        }
        // Of a deleted document nothing else is owed.
        if self.is_deleted() {
            self.doubt = Doubt::None;
        }
        Ok((discarded, effects))
    }

    /// Makes the document anew, without these changes, on which no others build. By another actor: the server knows what comes after them from the old one.
    fn leave_out(&mut self, lost: &HashSet<ChangeHash>) -> Result<(), Unusable> {
        let is_waiting = |owed: &&Owed| !self.has(&owed.hash) && !lost.contains(&owed.hash);
        let waiting = self.ledger.iter().filter(is_waiting);
        let waiting: Vec<_> = waiting.flat_map(|owed| Change::from_bytes(owed.bytes.to_vec())).collect();
        let made = self.work(|document, sync| {
            let kept = document.get_changes(&[]).into_iter().filter(|change| !lost.contains(&change.hash()));
            let mut anew = Automerge::new();
            anew.apply_changes(kept.chain(waiting).collect::<Vec<_>>()).map_err(|error| error.to_string())?;
            *document = anew;
            *sync = stock::State::new();
            Ok(())
        });
        made.map_err(Unusable::Broken)
    }

    /// Whether the server says that the document was deleted.
    pub(crate) fn is_deleted(&self) -> bool {
        self.presence == Presence::Deleted
    }

    /// The server does not have the document.
    pub(crate) fn unavailable(&mut self) {
        if self.presence == Presence::Unknown {
            self.presence = Presence::Unavailable;
        }
    }

    /// The server says no more than that it does not have the document: whether that was always so must be asked.
    pub(crate) fn may_be_deleted(&self) -> bool {
        matches!(self.presence, Presence::Unknown | Presence::Here)
    }

    /// A change is in the outbox.
    pub(crate) fn mark_stored(&mut self, hash: &ChangeHash) {
        self.ledger.mark_stored(hash);
    }

    /// Nothing can be done with it any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether it is not to be changed until it is known whether it is closed.
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen && !self.is_closed
    }

    /// It is not to be changed, or may be again.
    pub(crate) fn freeze(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    /// What to ask the server about by name: it named heads that are not here, so those do not tell whether it has these. The newest, which stand for those below them.
    pub(crate) fn undecided(&self) -> Vec<ChangeHash> {
        let Some(heads) = self.server_heads.as_ref().filter(|_| !self.is_deleted()) else {
            return Vec::new();
        };
        if heads.iter().all(|head| self.has(head)) {
            return Vec::new();
        }
        self.in_question()
    }

    /// What is owed, or may be: the newest, which stand for those below them.
    fn in_question(&self) -> Vec<ChangeHash> {
        let mut asked = self.ledger.hopeful();
        if self.doubt != Doubt::None {
            asked.extend(self.heads_not_owed());
        }
        asked.split_off(asked.len().saturating_sub(HAVE_HASHES_MAX))
    }

    /// The oldest change of which the server should say whether it has it, or refuses it.
    pub(crate) fn awaited(&self) -> Option<ChangeHash> {
        if self.is_deleted() {
            return None;
        }
        let lost = self.ledger.hopeless();
        let is_awaited = |hash: &ChangeHash| !lost.contains(hash) || self.is_to_be_named(hash);
        let mut pending = self.ledger.iter().map(|owed| owed.hash);
        let unknown = || self.heads().first().copied().filter(|_| self.doubt != Doubt::None);
        pending.find(is_awaited).or_else(unknown)
    }

    /// Whether a change that is lost was not offered on this connection. The server may not have had occasion to refuse it by name; more than once is of no use.
    fn is_to_be_named(&self, hash: &ChangeHash) -> bool {
        !self.ledger.is_rejected(hash) && !self.repeated.contains(hash)
    }

    /// Whether a change was sent again, or need not be, as the server has refused it.
    fn is_repeated(&self, owed: &Owed) -> bool {
        self.repeated.contains(&owed.hash) || self.ledger.is_rejected(&owed.hash)
    }

    /// What the server goes on lacking, or saying nothing of: the sync protocol takes it for sent, or for something that the server has. As much as may be sent
    /// at once, the oldest first, then on from there, and when all of it was sent from the beginning.
    pub(crate) fn repeat(&mut self) -> Repeat {
        if self.ledger.iter().all(|owed| self.is_repeated(owed)) {
            let lost = self.ledger.hopeless();
            self.repeated.retain(|hash| lost.contains(hash));
        }
        let mut room = REPEAT_BYTES_MAX;
        let fits = |owed: &&Owed| {
            let fits = room == REPEAT_BYTES_MAX || owed.bytes.len() <= room;
            room = room.saturating_sub(owed.bytes.len());
            fits
        };
        let wanted = self.ledger.iter().filter(|owed| !self.is_repeated(owed)).take_while(fits);
        let (hashes, chunks): (Vec<_>, Vec<_>) = wanted.map(|owed| (owed.hash, owed.bytes.clone())).unzip();
        self.repeated.extend(hashes);
        // One without changes is answered too, with what the server has.
        let is_worth_saying = !chunks.is_empty() || self.doubt != Doubt::None;
        Repeat {
            ask: self.in_question(),
            message: is_worth_saying.then(|| self.message_with(chunks).encode()),
            is_all: self.ledger.iter().all(|owed| self.is_repeated(owed)),
        }
    }

    /// A sync message beside those of the conversation, which it does not disturb.
    fn message_with(&self, chunks: Vec<Bytes>) -> Message {
        let last_sync = self.sync.shared_heads.clone();
        let since = self.since(&last_sync);
        let have = Have { last_sync, bloom: BloomFilter::from_hashes(since.iter()) };
        Message {
            version: Version::V1,
            heads: self.heads(),
            need: Vec::new(),
            have: if self.document.is_some() { vec![have] } else { Vec::new() },
            chunks,
            flags: Some(Flags::SUPPORTS_SYNC_RESET),
        }
    }

    /// Whether every change is durable on the server.
    pub(crate) fn is_saved(&self) -> bool {
        self.doubt == Doubt::None && self.ledger.is_empty()
    }

    /// Whether it is known without asking that a change is durable.
    pub(crate) fn knows_durable(&self, hash: &ChangeHash) -> bool {
        self.doubt == Doubt::None && !self.is_deleted() && !self.ledger.contains(hash) && self.has(hash)
    }

    /// The pending changes, in causal order.
    pub(crate) fn pending(&self) -> Vec<ChangeHash> {
        self.ledger.iter().map(|owed| owed.hash).collect()
    }

    /// The document as it is now: when none of these is open any more, all below them is durable.
    pub(crate) fn tips(&self) -> Vec<ChangeHash> {
        let mut tips: Vec<_> = self.ledger.tops().copied().collect();
        tips.extend(self.heads_not_owed());
        tips
    }

    /// Also what is durable may be in doubt: another server, or this one on another connection, may not have it.
    fn heads_not_owed(&self) -> Vec<ChangeHash> {
        let mut heads = self.heads();
        heads.retain(|head| !self.ledger.contains(head));
        heads
    }

    /// Whether any of these changes is not known to be durable.
    pub(crate) fn is_any_open(&self, tips: &[ChangeHash]) -> bool {
        let is_open = |hash| self.ledger.contains(hash) || self.discarded.contains_key(hash);
        tips.iter().any(|hash| self.doubt != Doubt::None || is_open(hash))
    }

    /// Whether none of what is open of these changes, and below them, can become durable any more.
    pub(crate) fn is_hopeless(&self, tips: &[ChangeHash]) -> bool {
        if self.is_deleted() {
            return true;
        }
        let is_any_lost = self.ledger.has_rejected() || !self.discarded.is_empty();
        if self.doubt != Doubt::None || !is_any_lost {
            return false;
        }
        let (open, lost) = (self.open_below(tips), self.ledger.hopeless());
        !open.is_empty() && open.iter().all(|hash| lost.contains(hash) || self.discarded.contains_key(hash))
    }

    /// What was discarded of these changes and of what they build on.
    pub(crate) fn discarded_below(&self, tips: &[ChangeHash]) -> Vec<ChangeHash> {
        let mut below = self.open_below(tips);
        below.retain(|hash| self.discarded.contains_key(hash));
        below
    }

    /// These changes and what they build on, as far as it is owed or was discarded. In causal order.
    fn open_below(&self, tips: &[ChangeHash]) -> Vec<ChangeHash> {
        let deps_of = |hash: &ChangeHash| {
            self.ledger.deps(hash).or_else(|| self.discarded.get(hash).map(Vec::as_slice))
        };
        let (mut below, mut seen) = (Vec::new(), HashSet::new());
        let mut stack: Vec<_> = tips.iter().map(|tip| (*tip, false)).collect();
        while let Some((hash, has_deps)) = stack.pop() {
            if has_deps {
                below.push(hash);
            } else if let Some(deps) = deps_of(&hash).filter(|_| seen.insert(hash)) {
                stack.push((hash, true));
                stack.extend(deps.iter().map(|dep| (*dep, false)));
            }
        }
        below
    }

    /// For the error of somebody who waited in vain.
    pub(crate) fn unsaved(&self) -> UnsavedDocument {
        let mut hashes = self.pending();
        if self.doubt == Doubt::AnotherServer {
            // Before the server has spoken there is no list; the heads stand for all below them.
            hashes.extend(self.heads_not_owed());
        }
        let rejected = if self.is_deleted() { deletion_of(&hashes) } else { self.ledger.rejected() };
        UnsavedDocument { document: self.id, hashes, rejected, in_outbox: self.is_stored() }
    }

    /// For those who do not look into it.
    pub(crate) fn facts(&self) -> Facts {
        let is_refused = self.ledger.has_rejected() || self.is_deleted() && !self.is_saved();
        let is_lost = self.is_deleted()
            || self.doubt == Doubt::None && self.ledger.has_rejected() && self.ledger.hopeful().is_empty();
        Facts {
            pending: self.ledger.len(),
            bytes: self.ledger.bytes(),
            since: self.ledger.since(),
            is_saved: self.is_saved(),
            is_rejected: is_refused,
            is_stored: self.is_stored(),
            is_hopeful: !is_lost,
            presence: self.presence,
        }
    }

    /// Whether something is owed, as far as is known, and the outbox has all of it. What another server must confirm anew is not in it.
    fn is_stored(&self) -> bool {
        self.doubt != Doubt::AnotherServer && !self.ledger.is_empty() && self.ledger.is_stored()
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
        self.doubt = Doubt::None;
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
        let owed = Owed::new(change, since);
        let (hash, bytes) = (owed.hash, owed.bytes.clone());
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

    pub(crate) fn break_down(&mut self, why: String) {
        self.document = None;
        self.broken = why;
    }
}

/// Whether a server takes the change, and an outbox can be read that holds it.
fn check_sendable(change: &Change) -> Result<(), String> {
    let bytes = Bytes::copy_from_slice(change.raw_bytes());
    highwater_core::change::Change::parse(bytes).map(drop).map_err(|error| error.to_string())
}

fn deletion_of(hashes: &[ChangeHash]) -> Vec<RejectedChange> {
    hashes.iter().map(|hash| RejectedChange { hash: *hash, reason: DELETED.to_owned() }).collect()
}
