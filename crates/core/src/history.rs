//! The graph of a document's changes.
//!
//! Changes stand in the order in which they came, each after its dependencies, so the order is a topological one. The first
//! [`len`](History::len) of them are durable; that is all anybody outside is ever told about. Behind them stand the
//! *staged* ones, which are on their way to disk: new changes may build on them, but no answer names them.

mod ancestry;
mod brought;
mod gate;
mod nodes;
mod ops;
mod stored;

use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::change::Change;
use crate::id::ChangeHash;
use crate::limits::{DOCUMENT_CHANGES_MAX, OP_GAP_MAX};

use ancestry::Views;
use brought::Brought;
use gate::Gate;
use nodes::Nodes;
use ops::{ActorIndex, OpIndex};

pub use gate::{OpFlaw, Role};
pub(crate) use stored::{HashPages, StoredGraph, find_in_page, page_of};

/// The place of a change in the order of arrival.
pub(crate) type Index = u32;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct History {
    nodes: Nodes,
    /// The actors, and what they made.
    ops: OpIndex,
    /// The changes, durable or not, that no other depends on.
    tips: BTreeSet<Index>,
    views: Views,
    /// What was brought back of the changes that only a snapshot holds.
    brought: Brought,
    /// The greatest counter of any operation.
    max_op: u64,
    /// How many steps judging took so far.
    steps: u64,
    /// How many nodes are durable.
    durable: usize,
    /// The durable changes that no durable change depends on, sorted.
    heads: Arc<Vec<ChangeHash>>,
}

/// Why a change that is well-formed by itself can never be part of this document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another change has the same actor and sequence number. Automerge refuses a document with both.
    #[error("another change has the same actor and sequence number {seq}")]
    DuplicateSeq {
        /// The number.
        seq: u64,
    },
    /// The actor's sequence does not continue. Automerge panics on a gap.
    #[error("the actor's sequence number is {seq}, but {expected} comes next")]
    SeqGap {
        /// The number that the change has.
        seq: u64,
        /// The number that it should have.
        expected: u64,
    },
    /// The change does not build on the actor's previous one.
    #[error("the change does not depend on the actor's previous change")]
    ForgotPrevious,
    /// The operations start at or below those of an ancestor. Automerge saves such a document and can never load it again.
    #[error("operations start at {start_op}, but ancestors have operations up to {max_op}")]
    StartOpTooLow {
        /// The first counter of the change.
        start_op: u64,
        /// The greatest counter of its ancestors.
        max_op: u64,
    },
    /// The document has as many changes as a document may have.
    #[error("the document has {} changes, the most that one may have", crate::limits::DOCUMENT_CHANGES_MAX)]
    DocumentFull,
    /// A change without operations starts after a gap. A saved document keeps the last counter only, and takes the gap for operations that were lost.
    #[error("a change without operations starts at {start_op}, although its ancestors end at {max_op}")]
    EmptyGap {
        /// The first counter of the change.
        start_op: u64,
        /// The greatest counter of its ancestors.
        max_op: u64,
    },
    /// The operations start far above all that are known. Counters are used up by that, and readers reserve memory for what is between.
    #[error("operations start at {start_op}, more than {OP_GAP_MAX} above the greatest known one, {max_op}")]
    StartOpTooHigh {
        /// The first counter of the change.
        start_op: u64,
        /// The greatest counter known.
        max_op: u64,
    },
    /// An actor's author is named in its first change. Automerge panics on a later one.
    #[error("the author is named in a change that is not the actor's first")]
    LateAuthor,
    /// The change is not encoded as Automerge encodes it. A saved document with it could never be loaded again.
    #[error("not encoded as Automerge would: {0}")]
    Encoding(&'static str),
    /// An operation makes no sense where it stands.
    #[error("operation {op}: {flaw}")]
    Op {
        /// The counter of the operation.
        op: u64,
        /// What is wrong with it.
        flaw: OpFlaw,
    },
}

/// What the history has to say about a change that was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is part of the history already, durable or on its way.
    Known,
    /// It fits on top of what is there, and has been staged.
    Fits,
    /// Dependencies are missing.
    Orphan,
    /// It can never fit.
    Refused(Refusal),
}

impl History {
    /// How many changes are durable.
    pub(crate) fn len(&self) -> Index {
        self.durable as Index
    }

    /// Whether nothing is durable.
    pub(crate) fn is_empty(&self) -> bool {
        self.durable == 0
    }

    /// Whether changes are on their way to disk.
    pub(crate) fn has_staged(&self) -> bool {
        self.durable < self.nodes.len()
    }

    /// How many steps through the graph judging changes took so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// How many changes there are with those on their way to disk.
    pub(crate) fn staged_len(&self) -> Index {
        self.nodes.len() as Index
    }

    /// The durable changes that no durable change depends on, sorted.
    pub(crate) fn heads(&self) -> &Arc<Vec<ChangeHash>> {
        &self.heads
    }

    /// Where a durable change stands.
    pub(crate) fn index_of(&self, hash: &ChangeHash) -> Option<Index> {
        self.nodes.find(hash).filter(|index| (*index as usize) < self.durable)
    }

    /// Whether the change is durable.
    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        self.index_of(hash).is_some()
    }

    /// Whether the change is durable or on its way to disk.
    pub(crate) fn contains_staged(&self, hash: &ChangeHash) -> bool {
        self.nodes.find(hash).is_some()
    }

    pub(crate) fn hash(&self, index: Index) -> &ChangeHash {
        self.nodes.hash(index)
    }

    /// How many of the first changes only a snapshot holds.
    pub(crate) fn covered(&self) -> Index {
        self.nodes.covered()
    }

    /// The chunk of a change, unless only a snapshot holds it and it was not brought from there.
    pub(crate) fn chunk(&self, index: Index) -> Option<&Bytes> {
        self.nodes.chunk(index).or_else(|| self.brought.chunk(index))
    }

    /// How many bytes the chunks have that no snapshot holds.
    pub(crate) fn uncovered_bytes(&self) -> usize {
        self.nodes.chunk_bytes()
    }

    /// The snapshot that holds the first changes, and chunks that were brought from it.
    pub(crate) fn brought(&self) -> &Brought {
        &self.brought
    }

    /// See [`brought`](Self::brought).
    pub(crate) fn brought_mut(&mut self) -> &mut Brought {
        &mut self.brought
    }

    /// A snapshot of so many bytes holds the changes that these pages list: their chunks are let go. Refused if those are not the first durable ones.
    pub(crate) fn cover(&mut self, pages: &HashPages, snapshot_bytes: u64) -> bool {
        let Some(sorted) = pages.places(|index| self.nodes.hashes().get(index as usize)) else {
            return false;
        };
        let is_newer = sorted.len() > self.covered() as usize && sorted.len() <= self.durable;
        if is_newer {
            self.nodes.cover(sorted);
            self.brought = Brought::new(snapshot_bytes);
        }
        is_newer
    }

    /// The chunks of all changes that no snapshot holds, those on their way to disk too.
    pub(crate) fn uncovered_chunks(&self) -> &[Bytes] {
        self.nodes.chunks()
    }

    /// What the history takes up, roughly, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.nodes.size() + self.ops.size() + self.views.size() + self.brought.size()
    }

    pub(crate) fn deps(&self, index: Index) -> &[Index] {
        self.nodes.deps(index)
    }

    /// Judges a change, with the staged changes taken as there. One that fits is put behind the others, not durable yet.
    ///
    /// A change that is let in can be applied by every client that has its dependencies, and saved, and loaded again.
    pub(crate) fn admit(&mut self, change: &Change) -> Verdict {
        if self.contains_staged(&change.hash) {
            return Verdict::Known;
        }
        // Before the dependencies: a second change with this number can never fit, wherever it branches off.
        let known = self.ops.find_actor(&change.actor).map_or(0, |actor| self.ops.actor(actor).changes.len());
        if change.seq <= known as u64 {
            return Verdict::Refused(Refusal::DuplicateSeq { seq: change.seq });
        }
        let Some(deps) = self.indexes(&change.deps) else { return Verdict::Orphan };
        match self.check_and_stage(change, deps) {
            Ok(()) => Verdict::Fits,
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn check_and_stage(&mut self, change: &Change, deps: Vec<Index>) -> Result<(), Refusal> {
        self.check_numbers(change, &deps)?;
        let mut views = std::mem::take(&mut self.views);
        let (view, steps) = views.take(self, &deps);
        self.steps += steps;
        let (author, savepoint) = self.ops.begin(&change.actor);
        let (nodes, ops, steps) = (&self.nodes, &mut self.ops, &mut self.steps);
        let checked = Gate { nodes, ops, view: &view, author, steps }.check(change);
        if checked.is_ok() {
            views.keep_for_change(self.staged_len(), view);
            self.stage(change, author, &deps);
        } else {
            self.ops.roll_back(savepoint);
            views.keep(deps, view);
        }
        self.views = views;
        checked
    }

    fn check_numbers(&self, change: &Change, deps: &[Index]) -> Result<(), Refusal> {
        if self.nodes.len() >= DOCUMENT_CHANGES_MAX {
            return Err(Refusal::DocumentFull);
        }
        let known = self.ops.find_actor(&change.actor).map_or(0, |actor| self.ops.actor(actor).changes.len());
        let (start_op, expected) = (change.start_op, known as u64 + 1);
        if change.seq != expected {
            return Err(Refusal::SeqGap { seq: change.seq, expected });
        }
        let max_op = deps.iter().map(|dep| self.nodes.max_op(*dep)).max().unwrap_or(0);
        if start_op <= max_op {
            return Err(Refusal::StartOpTooLow { start_op, max_op });
        }
        if change.ops == 0 && start_op > max_op + 1 {
            return Err(Refusal::EmptyGap { start_op, max_op });
        }
        let max_op = self.max_op;
        if start_op > max_op + OP_GAP_MAX {
            return Err(Refusal::StartOpTooHigh { start_op, max_op });
        }
        Ok(())
    }

    fn stage(&mut self, change: &Change, author: ActorIndex, deps: &[Index]) {
        let index = self.staged_len();
        for dep in deps {
            self.tips.remove(dep);
        }
        self.tips.insert(index);
        // Counters have been checked to fit into 32 bits.
        self.ops.actor_mut(author).changes.push((change.start_op as u32, index));
        let max_op = change.max_op();
        self.max_op = self.max_op.max(max_op);
        self.nodes.push(change.hash, deps, max_op, change.bytes.clone());
    }

    /// Makes the first `len` changes known to all: they are durable now.
    ///
    /// Nobody but the document's `handle_appended`, and opening a document from what the store holds, may call this.
    pub(crate) fn make_durable(&mut self, len: Index) {
        let new = self.durable..(len as usize).min(self.nodes.len());
        if new.is_empty() {
            return;
        }
        let mut heads: BTreeSet<ChangeHash> = self.heads.iter().copied().collect();
        for index in new.clone() {
            for dep in self.deps(index as Index) {
                heads.remove(self.hash(*dep));
            }
            heads.insert(*self.hash(index as Index));
        }
        self.durable = new.end;
        self.heads = Arc::new(heads.into_iter().collect());
    }

    /// The places of changes, in order.
    fn indexes(&self, hashes: &[ChangeHash]) -> Option<Vec<Index>> {
        let mut indexes: Vec<Index> =
            hashes.iter().map(|hash| self.nodes.find(hash)).collect::<Option<_>>()?;
        indexes.sort_unstable();
        Some(indexes)
    }

    /// The durable changes that are neither in `ground`, nor ancestors of it, nor below `floor`; in order.
    ///
    /// Walks down from the heads and from the ground at once, latest first, and stops as soon as nothing uncovered is left to look at. So the
    /// cost follows the answer, not the history. `floor` says that the other side has everything before that place; without it, one change on an
    /// old branch would make the walk go down all the way to where it branched off.
    pub(crate) fn since(&self, ground: &[Index], floor: Index) -> Stretch {
        if ground.is_empty() {
            return Stretch::From(floor..self.len());
        }
        let beyond = self.beyond(self.heads.iter().filter_map(|head| self.nodes.find(head)), ground, floor);
        Stretch::Of(beyond.0)
    }

    /// The ancestors of `tips`, and these themselves, that are not such of `ground`; and how many steps it took to find them.
    fn beyond(&self, tips: impl Iterator<Item = Index>, ground: &[Index], floor: Index) -> (Vec<Index>, u64) {
        let mut walk = Walk::default();
        for tip in tips {
            walk.push(tip, false, floor);
        }
        for index in ground {
            walk.push(*index, true, floor);
        }
        let (mut uncovered, mut steps) = (Vec::new(), 0);
        while walk.uncovered > 0 {
            let Some((index, covered)) = walk.pop() else { break };
            if !covered {
                uncovered.push(index);
            }
            for dep in self.deps(index) {
                walk.push(*dep, covered, floor);
            }
            steps += 1 + self.deps(index).len() as u64;
        }
        uncovered.reverse();
        (uncovered, steps)
    }
}

/// Some changes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// All between two places.
    From(Range<Index>),
    /// These.
    Of(Vec<Index>),
}

impl Stretch {
    pub(crate) fn contains(&self, index: Index) -> bool {
        match self {
            Self::From(range) => range.contains(&index),
            Self::Of(all) => all.binary_search(&index).is_ok(),
        }
    }

    /// Those from a place on.
    pub(crate) fn from(&self, place: Index) -> impl Iterator<Item = Index> {
        let (range, all) = match self {
            Self::From(range) => (range.start.max(place)..range.end.max(place), &[][..]),
            Self::Of(all) => (0..0, &all[all.partition_point(|index| *index < place)..]),
        };
        range.chain(all.iter().copied())
    }

    /// How many there are between two places.
    pub(crate) fn count(&self, within: Range<Index>) -> usize {
        match self {
            Self::From(range) => {
                (range.end.min(within.end)).saturating_sub(range.start.max(within.start)) as usize
            }
            Self::Of(all) => {
                let below = |place: Index| all.partition_point(|index| *index < place);
                below(within.end).saturating_sub(below(within.start))
            }
        }
    }
}

/// The frontier of a walk down the graph: places with a colour each, "covered" winning over "not".
#[derive(Default)]
struct Walk {
    queue: BinaryHeap<(Index, bool)>,
    /// Entries of the queue that are not covered.
    uncovered: usize,
}

impl Walk {
    fn push(&mut self, index: Index, covered: bool, floor: Index) {
        if index >= floor {
            self.queue.push((index, covered));
            self.uncovered += usize::from(!covered);
        }
    }

    /// The latest place. Its covered entries come before the others, so the first one decides.
    fn pop(&mut self) -> Option<(Index, bool)> {
        let (index, covered) = self.queue.pop()?;
        self.uncovered -= usize::from(!covered);
        while let Some((_, covered)) = self.queue.peek().copied().filter(|(next, _)| *next == index) {
            self.queue.pop();
            self.uncovered -= usize::from(!covered);
        }
        Some((index, covered))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::id::ActorId;

    fn hash(n: usize) -> ChangeHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        ChangeHash(bytes)
    }

    /// A change of its own actor, so that only the dependencies matter. It has one operation, with the counter `max_op`.
    fn change(n: usize, deps: &[usize], max_op: u64) -> Change {
        Change {
            hash: hash(n),
            deps: deps.iter().map(|dep| hash(*dep)).collect(),
            actor: ActorId::from(&n.to_be_bytes()[..]),
            seq: 1,
            start_op: max_op,
            ops: 1,
            values: 1,
            bytes: Bytes::new(),
            data: highwater_forge::HandMade {
                deps: vec![],
                actor: vec![0],
                seq: 1,
                start_op: 1,
                time: 0,
                message: vec![],
                ops: vec![highwater_forge::Op::set("key", "value")],
                extra: vec![],
                unused_actors: vec![],
            }
            .data()
            .into(),
        }
    }

    fn by(actor: u8, seq: u64, change: Change) -> Change {
        Change { actor: ActorId::from(&[actor][..]), seq, ..change }
    }

    fn stage(history: &mut History, change: Change) {
        assert_eq!(history.admit(&change), Verdict::Fits);
    }

    #[test]
    fn staged_changes_are_known_to_nobody() {
        let mut history = History::default();
        stage(&mut history, change(0, &[], 1));
        stage(&mut history, change(1, &[0], 2));
        assert!(history.is_empty() && history.heads().is_empty() && !history.contains(&hash(0)));
        assert_eq!(history.since(&[], 0).count(0..9), 0);
        assert_eq!(history.admit(&change(1, &[0], 2)), Verdict::Known);
        history.make_durable(1);
        assert_eq!(**history.heads(), [hash(0)]);
        history.make_durable(2);
        assert_eq!(**history.heads(), [hash(1)]);
        assert_eq!(history.since(&[0], 0), Stretch::Of(vec![1]));
    }

    #[test]
    fn changes_that_would_hurt_are_refused() {
        let mut history = History::default();
        stage(&mut history, by(1, 1, change(0, &[], 1)));
        stage(&mut history, by(2, 1, change(1, &[0], 2)));
        let mut refused = |change: Change| match history.admit(&change) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(by(1, 1, change(2, &[1], 3))), Refusal::DuplicateSeq { seq: 1 });
        assert_eq!(refused(by(1, 1, change(2, &[77], 3))), Refusal::DuplicateSeq { seq: 1 });
        assert_eq!(refused(by(1, 3, change(2, &[1], 3))), Refusal::SeqGap { seq: 3, expected: 2 });
        assert_eq!(refused(by(2, 2, change(2, &[0], 3))), Refusal::ForgotPrevious);
        assert_eq!(refused(by(1, 2, change(2, &[1], 2))), Refusal::StartOpTooLow { start_op: 2, max_op: 2 });
        let start_op = 3 + OP_GAP_MAX;
        let too_high = Refusal::StartOpTooHigh { start_op, max_op: 2 };
        assert_eq!(refused(by(1, 2, change(2, &[1], start_op))), too_high);
        assert_eq!(history.admit(&by(1, 2, change(2, &[77], 3))), Verdict::Orphan);
        assert_eq!(history.admit(&by(1, 2, change(2, &[1], 3))), Verdict::Fits);
    }

    prop_compose! {
        /// Per change its dependencies, as distances back.
        fn graph()(graph in proptest::collection::vec(proptest::collection::vec(1usize..12, 0..4), 1..80)) -> Vec<Vec<usize>> {
            graph.into_iter().enumerate().map(|(n, back)| {
                let deps: BTreeSet<usize> = back.into_iter().filter(|b| *b <= n).map(|b| n - b).collect();
                deps.into_iter().collect()
            }).collect()
        }
    }

    fn ancestors(graph: &[Vec<usize>], of: &[usize]) -> HashSet<usize> {
        let (mut seen, mut stack) = (HashSet::new(), of.to_vec());
        while let Some(n) = stack.pop() {
            if seen.insert(n) {
                stack.extend(&graph[n]);
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn since_is_all_that_the_ground_does_not_cover(graph in graph(), ground: Vec<prop::sample::Index>, cut: prop::sample::Index) {
            let mut history = History::default();
            for (n, deps) in graph.iter().enumerate() {
                stage(&mut history, change(n, deps, n as u64 + 1));
            }
            let durable = cut.index(graph.len()) + 1;
            history.make_durable(durable as Index);
            let ground: Vec<usize> = ground.iter().map(|i| i.index(durable)).collect();
            let covered = ancestors(&graph, &ground);
            let expected: Vec<Index> = (0..durable).filter(|n| !covered.contains(n)).map(|n| n as Index).collect();
            let at: Vec<Index> = ground.iter().map(|n| *n as Index).collect();
            let since = |floor| history.since(&at, floor).from(0).collect::<Vec<_>>();
            prop_assert_eq!(since(0), expected.clone());
            for place in 0..graph.len() as Index {
                prop_assert_eq!(history.since(&at, 0).count(place..Index::MAX), expected.iter().filter(|index| **index >= place).count());
                prop_assert_eq!(history.since(&at, 0).contains(place), expected.contains(&place));
            }
            // With everything below a place known, the rest of the answer stays the same.
            let floor = (0..durable).take_while(|n| covered.contains(n)).count() as Index;
            prop_assert_eq!(since(floor), expected);
        }

        #[test]
        fn ancestors_are_told_from_others(graph in graph()) {
            let mut history = History::default();
            for (n, deps) in graph.iter().enumerate() {
                let places: Vec<Index> = deps.iter().map(|dep| *dep as Index).collect();
                let mut views = std::mem::take(&mut history.views);
                let (view, _) = views.take(&history, &places);
                let expected = ancestors(&graph, deps);
                for other in 0..n {
                    prop_assert_eq!(view.covers(other as Index), expected.contains(&other), "{} for {:?}", other, deps);
                }
                views.keep(places, view);
                history.views = views;
                stage(&mut history, change(n, deps, n as u64 + 1));
            }
        }
    }
}
