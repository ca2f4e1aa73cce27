//! Who made which operations, and what they made: all that must be known of a document's operations to tell whether a new one makes sense.
//!
//! No values are kept and nothing is materialised. Operations are kept in *runs* per actor: what is typed in one go is one run, however many changes it
//! took, and so are deletions. A run takes twenty bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::Index;
use crate::id::ActorId;

/// The place of an actor among those of the document.
pub(super) type ActorIndex = u32;
/// The place of an object among those of the document; 0 is the root.
pub(super) type ObjectIndex = u32;
/// The place of a key among those of the document.
pub(super) type KeyIndex = u32;

/// Names an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct OpId {
    pub(super) ctr: u32,
    pub(super) actor: ActorIndex,
}

/// The place before the first element of a sequence.
pub(super) const HEAD: OpId = OpId { ctr: 0, actor: 0 };

/// What an operation leaves behind for others to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    Counter,
    Object,
    Mark,
}

/// Where an operation left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Under a key.
    Key(KeyIndex),
    /// At an element that was there.
    Element(OpId),
    /// In a new element, which came behind this one. Of a run: the first one did; each of the others came behind the one before it.
    Behind(OpId),
    /// Nowhere: a deletion, an increment.
    Nothing,
}

/// Operations of one actor: from a counter on, up to where the next run starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) ctr: u32,
    pub(super) object: ObjectIndex,
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What sort of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectKind {
    Map,
    Table,
    List,
    Text,
}

impl ObjectKind {
    pub(super) fn is_sequence(self) -> bool {
        matches!(self, Self::List | Self::Text)
    }
}

#[derive(Debug)]
pub(super) struct Actor {
    pub(super) id: ActorId,
    /// Its changes in the order of their sequence numbers, with the counter that each starts at.
    pub(super) changes: Vec<(u32, Index)>,
    pub(super) runs: Vec<Run>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct OpIndex {
    pub(super) actors: Vec<Actor>,
    pub(super) by_id: HashMap<ActorId, ActorIndex>,
    /// The objects but for the root, with the operations that made them.
    pub(super) objects: Vec<(OpId, ObjectKind)>,
    pub(super) by_maker: HashMap<OpId, ObjectIndex>,
    pub(super) keys: Vec<Arc<str>>,
    pub(super) by_key: HashMap<Arc<str>, KeyIndex>,
    /// What happened to the elements of texts of which one was ever given another value: rare, and the one case in which it matters.
    pub(super) updates: HashMap<OpId, Vec<Update>>,
    /// The elements updated since the last [`begin`](Self::begin).
    updated: Vec<OpId>,
}

/// An operation on an element that was there.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) id: OpId,
    /// The value of the element after it.
    pub(super) value: Option<OpId>,
    /// What it replaced.
    pub(super) replaced: Box<[OpId]>,
}

impl Default for OpIndex {
    fn default() -> Self {
        Self {
            actors: Vec::new(),
            by_id: HashMap::new(),
            objects: vec![(HEAD, ObjectKind::Map)],
            by_maker: HashMap::new(),
            keys: Vec::new(),
            by_key: HashMap::new(),
            updates: HashMap::new(),
            updated: Vec::new(),
        }
    }
}

/// How much there was, to go back to if a change turns out not to fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Savepoint {
    author: ActorIndex,
    actors: usize,
    runs: usize,
    objects: usize,
    keys: usize,
}

impl OpIndex {
    pub(super) fn find_actor(&self, id: &ActorId) -> Option<ActorIndex> {
        self.by_id.get(id).copied()
    }

    /// What the index takes up, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        let actors = self.actors.iter();
        let made: usize =
            actors.map(|actor| actor.changes.capacity() * 8 + actor.runs.capacity() * size_of::<Run>()).sum();
        made + self.actors.len() * 100
            + self.objects.len() * 40
            + self.keys.len() * 80
            + self.updates.len() * 120
    }

    pub(super) fn actor(&self, actor: ActorIndex) -> &Actor {
        &self.actors[actor as usize]
    }

    pub(super) fn actor_mut(&mut self, actor: ActorIndex) -> &mut Actor {
        &mut self.actors[actor as usize]
    }

    /// Starts on the operations of a change by this actor.
    pub(super) fn begin(&mut self, author: &ActorId) -> (ActorIndex, Savepoint) {
        let actors = self.actors.len();
        let index = self.find_actor(author).unwrap_or_else(|| {
            let actor = Actor { id: author.clone(), changes: Vec::new(), runs: Vec::new() };
            self.actors.push(actor);
            self.by_id.insert(author.clone(), actors as ActorIndex);
            actors as ActorIndex
        });
        self.updated.clear();
        let runs = self.actor(index).runs.len();
        let (objects, keys) = (self.objects.len(), self.keys.len());
        (index, Savepoint { author: index, actors, runs, objects, keys })
    }

    /// Takes back what was added since.
    pub(super) fn roll_back(&mut self, to: Savepoint) {
        self.actors[to.author as usize].runs.truncate(to.runs);
        for (maker, _) in self.objects.drain(to.objects..) {
            self.by_maker.remove(&maker);
        }
        for key in self.keys.drain(to.keys..) {
            self.by_key.remove(&key);
        }
        for element in self.updated.drain(..) {
            let updates = self.updates.get_mut(&element);
            if updates.is_some_and(|updates| updates.pop().is_some() && updates.is_empty()) {
                self.updates.remove(&element);
            }
        }
        for actor in self.actors.drain(to.actors..) {
            self.by_id.remove(&actor.id);
        }
    }

    /// The run that an operation belongs to, provided that it exists.
    pub(super) fn run(&self, id: OpId) -> Option<&Run> {
        let runs = &self.actors.get(id.actor as usize)?.runs;
        runs.partition_point(|run| run.ctr <= id.ctr).checked_sub(1).map(|at| &runs[at])
    }

    /// Adds the author's next operation. One that goes on where the last run ends joins it.
    pub(super) fn push(&mut self, id: OpId, object: ObjectIndex, place: Place, kind: Kind) {
        let runs = &mut self.actors[id.actor as usize].runs;
        let before = OpId { ctr: id.ctr - 1, ..id };
        let joins = runs.last().is_some_and(|last| match (last.place, place) {
            (Place::Nothing, Place::Nothing) => true,
            // The operation before this one exists, so it is the author's latest, and in the last run.
            (Place::Behind(_), Place::Behind(element)) => {
                element == before && last.ctr <= before.ctr && (last.object, last.kind) == (object, kind)
            }
            _ => false,
        });
        if !joins {
            runs.push(Run { ctr: id.ctr, object, place, kind });
        }
    }

    /// What happened to an element of a text, if one of its values was ever replaced by another.
    pub(super) fn updates(&self, element: OpId) -> &[Update] {
        self.updates.get(&element).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add_update(&mut self, element: OpId, update: Update) {
        self.updates.entry(element).or_default().push(update);
        self.updated.push(element);
    }

    pub(super) fn add_object(&mut self, maker: OpId, kind: ObjectKind) {
        self.by_maker.insert(maker, self.objects.len() as ObjectIndex);
        self.objects.push((maker, kind));
    }

    pub(super) fn find_object(&self, maker: OpId) -> Option<ObjectIndex> {
        self.by_maker.get(&maker).copied()
    }

    pub(super) fn object_kind(&self, object: ObjectIndex) -> ObjectKind {
        self.objects[object as usize].1
    }

    pub(super) fn key(&mut self, key: &str) -> KeyIndex {
        if let Some(index) = self.by_key.get(key) {
            return *index;
        }
        let (index, key) = (self.keys.len() as KeyIndex, Arc::<str>::from(key));
        self.keys.push(key.clone());
        self.by_key.insert(key, index);
        index
    }

    /// Orders operations as Automerge does: by counter, and among equal ones by the actors' ids.
    pub(super) fn is_before(&self, a: OpId, b: OpId) -> bool {
        a.ctr < b.ctr || (a.ctr == b.ctr && self.id(a.actor) < self.id(b.actor))
    }

    fn id(&self, actor: ActorIndex) -> Option<&ActorId> {
        self.actors.get(actor as usize).map(|actor| &actor.id)
    }

    /// Whether element `a` comes before element `b` of the same sequence. Both exist, and are not the same.
    ///
    /// Elements form a tree: each is a child of the one that it was inserted behind, and among siblings the latest comes first. So the answer lies where the ways
    /// up from both meet. The way up goes run by run, not element by element.
    pub(super) fn precedes(&self, a: OpId, b: OpId, steps: &mut u64) -> bool {
        let (mut x, mut y) = (Climber { at: a, from: None }, Climber { at: b, from: None });
        loop {
            *steps += 1;
            let (start_x, start_y) = (self.start_of_run(x.at), self.start_of_run(y.at));
            if start_x == start_y {
                return self.is_left(x, y);
            }
            // The run that starts later cannot hold the place where they meet: all that hangs on it came later still.
            if self.is_before(start_y, start_x) {
                x = self.climb(start_x);
            } else {
                y = self.climb(start_y);
            }
        }
    }

    fn start_of_run(&self, element: OpId) -> OpId {
        match self.run(element) {
            Some(run) if element != HEAD => OpId { ctr: run.ctr, ..element },
            _ => HEAD,
        }
    }

    fn climb(&self, start: OpId) -> Climber {
        let at = match self.run(start).map(|run| run.place) {
            Some(Place::Behind(element)) => element,
            // No element; it cannot be asked for.
            _ => HEAD,
        };
        Climber { at, from: Some(start) }
    }

    /// Which of two ways, that have met in one run, leads to the element that comes first.
    fn is_left(&self, x: Climber, y: Climber) -> bool {
        // They meet at the upper one. The other one came there over the run itself, whose elements have consecutive counters.
        let meeting = x.at.ctr.min(y.at.ctr);
        let over = |way: Climber| {
            if way.at.ctr == meeting { way.from } else { Some(OpId { ctr: meeting + 1, ..way.at }) }
        };
        match (over(x), over(y)) {
            (None, _) => true,
            (_, None) => false,
            (Some(of_x), Some(of_y)) => self.is_before(of_y, of_x),
        }
    }
}

/// A way up the tree of elements: where it is, and the child of that place over which it came; none at the start.
#[derive(Clone, Copy)]
struct Climber {
    at: OpId,
    from: Option<OpId>,
}
