//! What is kept per peer and document: what the peer has, what it was sent, what it was told.
//!
//! The exchange is that of `automerge::sync` (after "Byzantine Eventual Consistency", Kleppmann and Howard, 2020), spoken from the graph instead of
//! from a document. It differs in three ways, all of which stock peers cannot tell from their own behaviour:
//!
//! - The **ground** is all that the peer ever named, as far as we have it; it has the ancestors too. What it lacks is
//!   what came since the ground, found by a walk that costs as much as the answer is long.
//! - Where we know all of its heads there is nothing to filter, so its Bloom filter is not asked.
//! - A message that would say again what the last one said, in answer to one that said nothing new, is not sent. Stock peers
//!   would go on for ever when a change cannot be applied on one side.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::history::{History, Index, Stretch};
use crate::id::ChangeHash;
use crate::limits::{BROUGHT_CHANGES_MAX, SEND_CHANGES_BYTES_MAX, UNANSWERED_CHANGES_MAX};
use crate::sync::{BloomFilter, Flags, Have, Message, Version};

/// The state of one peer and one document, empty at the start of every connection and after every `join`.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// We do not take changes from this peer.
    read_only: bool,
    /// What the peer said last. `None` before its first message.
    theirs: Option<Theirs>,
    /// Changes that the peer has for certain, whose ancestors it has too.
    ground: BTreeSet<Index>,
    /// The peer has every change before this place.
    floor: Index,
    /// Changes that were sent and are not yet covered by the ground, in order.
    sent: Vec<Index>,
    /// A snapshot was sent: every change before this place with it.
    sent_below: Index,
    /// A snapshot was sent, and the peer has nothing all the same: it is sent changes instead. Stock peers pass over a document of which they have the heads, also if
    /// these are waiting for all the rest of it.
    declined_snapshot: bool,
    /// The peer has named no heads since it was sent everything again.
    was_empty_handed: bool,
    /// The bytes of changes in messages that were not answered yet.
    unanswered_bytes: usize,
    /// What we said last. `None` before our first message.
    ours: Option<Ours>,
    /// A message of ours was not answered yet.
    in_flight: bool,
    /// The peer has said something since our last message that it had not said before.
    has_news: bool,
    /// What was sent may not have been taken, so only what the peer named counts as common.
    is_wary: bool,
}

/// What a peer said in a message, apart from changes.
#[derive(Debug, PartialEq)]
struct Theirs {
    heads: Vec<ChangeHash>,
    need: Vec<ChangeHash>,
    have: Vec<Have>,
    flags: Option<Flags>,
}

/// What we said in a message, apart from changes.
#[derive(Debug, PartialEq)]
struct Ours {
    heads: Arc<Vec<ChangeHash>>,
    need: Vec<ChangeHash>,
}

/// What comes of asking for the next message.
#[derive(Debug)]
pub(crate) enum Next {
    /// There is nothing to say.
    Nothing,
    /// This.
    Message(Message),
    /// The message holds the snapshot, which must be brought into memory first. Nothing has changed; ask again then.
    NeedsSnapshot,
    /// The same, for changes that only the snapshot holds.
    NeedsChanges(Vec<Index>),
}

/// What to send now.
#[derive(Debug, Default)]
struct Parcel {
    /// The snapshot goes first, and with it every change before this place.
    below: Index,
    /// Changes, in order.
    changes: Vec<Index>,
}

impl Parcel {
    fn is_empty(&self) -> bool {
        self.below == 0 && self.changes.is_empty()
    }
}

impl Theirs {
    /// Whether the peer ignores changes.
    fn is_read_only(&self) -> bool {
        self.flags.is_some_and(|flags| flags.contains(Flags::READ_ONLY))
    }

    /// Whether the peer has changes and names no heads: how it asks to be sent everything again, if it does not know that we understand a reset.
    fn hides_heads(&self) -> bool {
        self.heads.is_empty() && self.have.iter().any(|have| *have != Have::default())
    }
}

/// Whether a peer says that it does not know what we called common. Only then do stock peers with changes claim to have none.
fn is_complaint(message: &Message) -> bool {
    !message.heads.is_empty() && message.chunks.is_empty() && message.have == [Have::default()]
}

impl State {
    /// The state for a peer from which changes are taken, or not.
    pub(crate) fn new(read_only: bool) -> Self {
        Self { read_only, ..Self::default() }
    }

    /// The heads that the peer named last.
    pub(crate) fn their_heads(&self) -> &[ChangeHash] {
        self.theirs.as_ref().map_or(&[], |theirs| &theirs.heads)
    }

    /// Takes in what a message says. Its changes are in the history by now, as far as they can be.
    pub(crate) fn receive(&mut self, history: &History, message: Message) {
        self.in_flight = false;
        self.unanswered_bytes = 0;
        let flags = message.flags.or(self.theirs.as_ref().and_then(|theirs| theirs.flags));
        if message.flags.is_some_and(|flags| flags.contains(Flags::SYNC_RESET)) {
            self.forget();
        }
        // Once, until there is an agreement: a peer that cannot apply what it is sent complains every time.
        if is_complaint(&message) && !self.is_wary {
            self.forget();
            self.is_wary = true;
        }
        let carries_changes = !message.chunks.is_empty();
        let theirs = Theirs { heads: message.heads, need: message.need, have: message.have, flags };
        self.has_news = self.has_news || carries_changes || self.theirs.as_ref() != Some(&theirs);
        let is_empty_handed = theirs.heads.is_empty() && !(self.ground.is_empty() && self.has_sent_nothing());
        // Once, until it has something: a peer that cannot apply what it is sent says so every time.
        if is_empty_handed && !self.was_empty_handed {
            self.declined_snapshot |= self.sent_below > 0;
            self.forget();
        }
        self.was_empty_handed = is_empty_handed || self.was_empty_handed && theirs.heads.is_empty();
        if theirs.is_read_only() {
            // When it stopped to take changes is not known. It asks for a reset when it takes them again.
            self.forget_sent();
        }
        self.theirs = Some(theirs);
        self.update_ground(history);
    }

    /// The peer lost what it had, or says that it did not take what it was sent.
    fn forget(&mut self) {
        self.ground.clear();
        self.floor = 0;
        self.forget_sent();
        self.ours = None;
    }

    fn forget_sent(&mut self) {
        self.sent.clear();
        self.sent_below = 0;
    }

    fn has_sent_nothing(&self) -> bool {
        self.sent.is_empty() && self.sent_below == 0
    }

    fn has_sent(&self, index: Index) -> bool {
        index < self.sent_below || self.sent.binary_search(&index).is_ok()
    }

    /// After a message, and after changes became durable: what of all that the peer named do we have now?
    pub(crate) fn update_ground(&mut self, history: &History) {
        let Some(theirs) = &self.theirs else { return };
        if theirs.heads.is_empty() {
            return;
        }
        let known: Vec<Index> = theirs.heads.iter().filter_map(|head| history.index_of(head)).collect();
        let knows_all = known.len() == theirs.heads.len();
        if knows_all {
            // All that it has are ancestors of its heads, so what it named before adds nothing.
            self.ground.clear();
        } else {
            let last_sync = theirs.have.iter().flat_map(|have| &have.last_sync);
            self.ground.extend(last_sync.filter_map(|hash| history.index_of(hash)));
        }
        self.ground.extend(known);
        if self.covers_heads(history) {
            self.is_wary = false;
            self.declined_snapshot = false;
            // Nothing below our heads adds to them, and what a peer names that we will never have must not make this grow.
            self.ground = history.heads().iter().filter_map(|head| history.index_of(head)).collect();
            self.floor = history.len();
            self.forget_sent();
        } else if !self.sent.is_empty() {
            let missing = self.since(history);
            self.sent.retain(|index| missing.contains(*index));
        }
    }

    fn covers_heads(&self, history: &History) -> bool {
        history
            .heads()
            .iter()
            .all(|head| history.index_of(head).is_some_and(|index| self.ground.contains(&index)))
    }

    fn since(&self, history: &History) -> Stretch {
        let ground: Vec<Index> = self.ground.iter().copied().collect();
        history.since(&ground, self.floor)
    }

    /// The next message for the peer, if there is anything to say. `need` are the changes to ask for by name.
    pub(crate) fn generate(&mut self, history: &History, need: Vec<ChangeHash>) -> Next {
        let need = if self.read_only { Vec::new() } else { need };
        let heads = history.heads();
        let is_told = self.ours.as_ref().is_some_and(|ours| ours.heads == *heads);
        if self.in_flight && (is_told || self.is_congested()) {
            return Next::Nothing;
        }
        let since = self.since(history);
        let parcel = match self.parcel(history, &since) {
            Ok(parcel) => parcel,
            Err(needs) => return needs,
        };
        let ours = Ours { heads: heads.clone(), need };
        if parcel.is_empty()
            && is_told
            && (self.agrees(heads) || !self.has_news && self.ours.as_ref() == Some(&ours))
        {
            return Next::Nothing;
        }
        let message = self.message(history, &ours, &since, &parcel);
        self.unanswered_bytes += message.chunks.iter().map(Bytes::len).sum::<usize>();
        self.sent_below = self.sent_below.max(parcel.below);
        self.sent.extend(parcel.changes);
        self.sent.sort_unstable();
        self.ours = Some(ours);
        self.in_flight = true;
        self.has_news = false;
        Next::Message(message)
    }

    fn agrees(&self, heads: &[ChangeHash]) -> bool {
        self.read_only
            || self.theirs.as_ref().is_some_and(|theirs| theirs.heads == heads && !theirs.hides_heads())
    }

    /// The peer has so much to answer for that more would only pile up. It will answer: what it was sent changes its heads.
    fn is_congested(&self) -> bool {
        self.sent.len() >= UNANSWERED_CHANGES_MAX || self.unanswered_bytes >= SEND_CHANGES_BYTES_MAX
    }

    /// Whether the peer reads version 2. Who sends a trailer does.
    fn can_v2(&self) -> bool {
        self.theirs.as_ref().is_some_and(|theirs| theirs.flags.is_some())
    }

    fn message(&self, history: &History, ours: &Ours, since: &Stretch, parcel: &Parcel) -> Message {
        let mut flags = Flags::SUPPORTS_SYNC_RESET;
        if self.read_only {
            flags = flags.with(Flags::READ_ONLY);
        }
        let snapshot = history.brought().snapshot().filter(|_| parcel.below > 0);
        let changes = parcel.changes.iter().filter_map(|index| history.chunk(*index));
        Message {
            version: if self.can_v2() { Version::V2 } else { Version::V1 },
            heads: ours.heads.to_vec(),
            have: vec![self.have(history, since, parcel)],
            need: ours.need.clone(),
            chunks: snapshot.into_iter().chain(changes).cloned().collect(),
            flags: Some(flags),
        }
    }

    /// What we have, for the peer to see what we lack. Stock peers leave it out while they ask for the dependencies of orphans, and then get them one
    /// generation per round trip.
    fn have(&self, history: &History, since: &Stretch, parcel: &Parcel) -> Have {
        // With this message the peer has all that we have, so our heads are common ground when it reads on, and there is nothing to list.
        let below = self.sent_below.max(parcel.below);
        let is_sent = |index: Index| {
            parcel.changes.binary_search(&index).is_ok() || self.sent.binary_search(&index).is_ok()
        };
        if !self.is_wary && since.from(below).all(is_sent) {
            return Have { last_sync: history.heads().to_vec(), bloom: BloomFilter::default() };
        }
        let mut last_sync: Vec<ChangeHash> = self.ground.iter().map(|index| *history.hash(*index)).collect();
        last_sync.sort_unstable();
        let since: Vec<Index> = since.from(0).collect();
        Have { last_sync, bloom: BloomFilter::from_hashes(since.iter().map(|index| history.hash(*index))) }
    }

    /// What to send now: as much as fits into one message. Or what must be in memory before that can be sent.
    fn parcel(&self, history: &History, since: &Stretch) -> Result<Parcel, Next> {
        let Some(theirs) = self.theirs.as_ref().filter(|theirs| !theirs.is_read_only()) else {
            return Ok(Parcel::default());
        };
        // A peer that counts on changes which we do not have learns our heads first, and mostly starts again from there.
        if self.ours.is_none()
            && theirs.have.iter().flat_map(|have| &have.last_sync).any(|hash| !history.contains(hash))
        {
            return Ok(Parcel::default());
        }
        let lacks =
            if theirs.have.is_empty() { Stretch::Of(Vec::new()) } else { missing(history, theirs, since) };
        let mut parcel = Parcel::default();
        let mut room = SEND_CHANGES_BYTES_MAX;
        if self.should_get_snapshot(history, &lacks) {
            let snapshot = history.brought().snapshot().ok_or(Next::NeedsSnapshot)?;
            parcel.below = history.covered();
            room = room.saturating_sub(snapshot.len());
        }
        let below = self.sent_below.max(parcel.below);
        let needed = theirs.need.iter().filter_map(|hash| history.index_of(hash));
        let mut needed: Vec<Index> =
            needed.filter(|index| *index >= below && !self.has_sent(*index)).collect();
        needed.sort_unstable();
        needed.dedup();
        let lacks = lacks.from(below).filter(|index| self.sent.binary_search(index).is_err());
        parcel.fill(history, merged(needed, lacks), room)?;
        Ok(parcel)
    }

    /// Whether the peer lacks so much of what only the snapshot holds that it gets all of that at once.
    fn should_get_snapshot(&self, history: &History, lacks: &Stretch) -> bool {
        let covered = history.covered();
        let lacking = lacks.count(self.sent_below..covered);
        !self.declined_snapshot
            && lacking > 0
            && lacking * 3 >= covered as usize
            && self.can_v2()
            && history.brought().is_sendable()
    }
}

impl Parcel {
    /// The bytes of its changes.
    fn bytes(&self, history: &History) -> usize {
        self.changes.iter().filter_map(|index| history.chunk(*index)).map(Bytes::len).sum()
    }

    /// Adds changes in order, as many as fit.
    fn fill(
        &mut self,
        history: &History,
        mut wanted: impl Iterator<Item = Index>,
        mut room: usize,
    ) -> Result<(), Next> {
        let is_first = self.below == 0;
        while let Some(index) = wanted.next() {
            let Some(chunk) = history.chunk(index) else {
                // Not in pieces, if it can be helped: some clients (automerge-repo 1.x) take a document as whole after the first message.
                if self.bytes(history) >= SEND_CHANGES_BYTES_MAX / 2 {
                    return Ok(());
                }
                let away = std::iter::once(index).chain(wanted);
                let away = away.take_while(|index| *index < history.covered());
                let away = away.filter(|index| history.chunk(*index).is_none());
                return Err(Next::NeedsChanges(away.take(BROUGHT_CHANGES_MAX).collect()));
            };
            // A change larger than the room goes alone.
            if chunk.len() > room && !(is_first && self.changes.is_empty()) {
                return Ok(());
            }
            room = room.saturating_sub(chunk.len());
            self.changes.push(index);
        }
        Ok(())
    }
}

/// Two lists of places in order as one, each place once.
fn merged(few: Vec<Index>, many: impl Iterator<Item = Index>) -> impl Iterator<Item = Index> {
    let (mut few, mut many) = (few.into_iter().peekable(), many.peekable());
    std::iter::from_fn(move || match (few.peek().copied(), many.peek().copied()) {
        (Some(a), Some(b)) if a == b => {
            few.next();
            many.next()
        }
        (Some(a), Some(b)) if a < b => few.next(),
        (Some(_), None) => few.next(),
        _ => many.next(),
    })
}

/// What the peer seems to lack: all since the ground, if we know its heads; otherwise what is not in its filters, and
/// whatever depends on that.
fn missing(history: &History, theirs: &Theirs, since: &Stretch) -> Stretch {
    if theirs.heads.iter().all(|head| history.contains(head)) {
        return since.clone();
    }
    let mut missing: Vec<Index> = Vec::new();
    for index in since.from(0) {
        let hash = history.hash(index);
        let has_it = theirs.have.iter().any(|have| have.bloom.may_contain(hash));
        if !has_it || history.deps(index).iter().any(|dep| missing.binary_search(dep).is_ok()) {
            missing.push(index);
        }
    }
    Stretch::Of(missing)
}
