//! The gate: whether the operations of a change make sense where they stand.
//!
//! Changes are passed on without being applied here. So what no client could apply, or what would make a document that can be saved and never be loaded
//! again, has to be found from the graph and the [operation index](super::ops). The rules are stricter than what Automerge checks, and as strict as what it
//! writes: everything that it makes itself passes.

use super::ancestry::View;
use super::ops::{ActorIndex, HEAD, Kind, ObjectIndex, ObjectKind, OpId, OpIndex, Place, Update};
use super::{Nodes, Refusal};
use crate::change::Change;
use crate::change::ops::{Action, Key, LocalId, Op, Ops, Scalar};
use crate::id::ActorId;

/// What is wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpFlaw {
    /// An id that names no operation.
    #[error("{0} does not exist")]
    Unknown(Role),
    /// An operation that the author of the change had not seen. Clients may get the change before it.
    #[error("{0} is not in an ancestor of the change")]
    NotAnAncestor(Role),
    /// An operation that leaves nothing behind which could be named so.
    #[error("{0} is of the wrong kind")]
    WrongKind(Role),
    /// An element or a predecessor somewhere else.
    #[error("{0} is in another place")]
    Elsewhere(Role),
    /// A key in a sequence, or an element in a map.
    #[error("the key does not fit the object")]
    WrongKey,
    /// A value that was replaced before. Automerge panics on that in texts.
    #[error("a predecessor has been replaced already")]
    Replaced,
    /// A second value for an element of a text, beside one that the author of the change had not seen. Automerge panics when one of them goes.
    #[error("the element of the text has another value already")]
    SecondValue,
    /// Something in a table. Automerge can make tables, but panics when a client gets a change of what is in one.
    #[error("the object is a table, and no client can change those")]
    Table,
    /// A map's key without a character.
    #[error("the key is empty")]
    EmptyKey,
    /// Predecessors are written in order, each once.
    #[error("the predecessors are not in order, or twice there")]
    PredecessorOrder,
    /// An insertion that replaces, or a deletion, an increment or the update of an element that replaces nothing.
    #[error("predecessors where there are none, or none where there must be some")]
    PredecessorCount,
    /// An increment of something that is no counter.
    #[error("an increment of what is no counter")]
    NoCounter,
    /// A value that this action does not have.
    #[error("a value that does not belong to the action")]
    WrongValue,
    /// A deletion or an increment that inserts, or a mark that does not.
    #[error("an insertion that is none, or none that should be one")]
    WrongInsert,
    /// A name or a direction to expand on something that is no mark.
    #[error("parts of a mark on an operation that is none")]
    NoMark,
    /// A mark's end follows its beginning: directly among the operations, and somewhere later in the sequence.
    #[error("the beginning and the end of a mark do not follow each other")]
    MarkOrder,
}

/// In which part an operation names another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The object that it changes.
    Object,
    /// The element that it changes or comes behind.
    Element,
    /// What it replaces.
    Predecessor,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Object => "the object",
            Self::Element => "the element",
            Self::Predecessor => "a predecessor",
        })
    }
}

/// Checks the operations of one change, and adds them to the index as it goes. Whoever asks takes them back if the change is refused.
pub(super) struct Gate<'a> {
    pub(super) nodes: &'a Nodes,
    pub(super) ops: &'a mut OpIndex,
    /// The ancestors of the change.
    pub(super) view: &'a View,
    pub(super) author: ActorIndex,
    /// How many steps judging took so far.
    pub(super) steps: &'a mut u64,
}

/// The beginning of a mark: the operation, its object, and the element that it stands behind.
struct Begin {
    id: OpId,
    object: ObjectIndex,
    behind: OpId,
}

impl Gate<'_> {
    pub(super) fn check(&mut self, change: &Change) -> Result<(), Refusal> {
        let actor = self.ops.actor(self.author);
        // An actor's changes are one line.
        if actor.changes.last().is_some_and(|(_, previous)| !self.view.covers(*previous)) {
            return Err(Refusal::ForgotPrevious);
        }
        let mut ops = Ops::read(&change.data).map_err(Refusal::Encoding)?;
        if ops.names_author() && change.seq != 1 {
            return Err(Refusal::LateAuthor);
        }
        self.check_ops(change, &mut ops)
    }

    fn check_ops(&mut self, change: &Change, ops: &mut Ops<'_>) -> Result<(), Refusal> {
        let others = ops.others.iter().map(|id| self.ops.find_actor(&ActorId::from(*id)));
        let actors: Vec<Option<ActorIndex>> = std::iter::once(Some(self.author)).chain(others).collect();
        let (mut preds, mut begin) = (Vec::new(), None);
        for n in 0..change.ops {
            let op = ops.next(&mut preds).map_err(Refusal::Encoding)?;
            // Counters have been checked to fit into 32 bits.
            let id = OpId { ctr: (change.start_op + n) as u32, actor: self.author };
            begin = Check { gate: self, actors: &actors, start: change.start_op as u32, id }
                .op(&op, &preds, begin)
                .map_err(|flaw| Refusal::Op { op: u64::from(id.ctr), flaw })?;
        }
        if begin.is_some() {
            return Err(Refusal::Op { op: change.max_op(), flaw: OpFlaw::MarkOrder });
        }
        ops.finish().map_err(Refusal::Encoding)
    }
}

/// Checks one operation.
struct Check<'a, 'g> {
    gate: &'a mut Gate<'g>,
    /// The actors as the change numbers them; `None` for those that have made nothing here.
    actors: &'a [Option<ActorIndex>],
    /// The counter of the change's first operation.
    start: u32,
    /// The operation.
    id: OpId,
}

impl Check<'_, '_> {
    /// Checks the operation and adds it to the index. Takes and returns the beginning of a mark that has no end yet.
    fn op(&mut self, op: &Op<'_>, preds: &[LocalId], begin: Option<Begin>) -> Result<Option<Begin>, OpFlaw> {
        let object = match op.object {
            Some(id) => self.object(id)?,
            None => 0,
        };
        let place = self.place(op, object)?;
        check_parts(op, preds.len())?;
        let counters = self.predecessors(preds, object, place)?;
        if op.action == Action::Increment && !counters {
            return Err(OpFlaw::NoCounter);
        }
        self.update(op, preds, object, place)?;
        let (kept, kind) = kept(op, place);
        self.gate.ops.push(self.id, object, kept, kind);
        if let Some(made) = made(op.action) {
            self.gate.ops.add_object(self.id, made);
        }
        self.mark(op, object, place, begin)
    }

    /// Resolves an id, and makes sure that the author of the change has seen it.
    fn resolve(&self, local: LocalId, role: Role) -> Result<OpId, OpFlaw> {
        let actor = self.actors[local.actor as usize].ok_or(OpFlaw::Unknown(role))?;
        let id = OpId { ctr: local.ctr, actor };
        if actor == self.gate.author && id.ctr >= self.start {
            return if id.ctr < self.id.ctr { Ok(id) } else { Err(OpFlaw::Unknown(role)) };
        }
        let changes = &self.gate.ops.actor(actor).changes;
        let made_in = changes.partition_point(|(start, _)| *start <= id.ctr).checked_sub(1);
        let (_, made_in) = changes[made_in.ok_or(OpFlaw::Unknown(role))?];
        if self.gate.nodes.max_op(made_in) < u64::from(id.ctr) {
            return Err(OpFlaw::Unknown(role));
        }
        if self.gate.view.covers(made_in) { Ok(id) } else { Err(OpFlaw::NotAnAncestor(role)) }
    }

    fn object(&self, local: LocalId) -> Result<ObjectIndex, OpFlaw> {
        let id = self.resolve(local, Role::Object)?;
        let object = self.gate.ops.find_object(id).ok_or(OpFlaw::WrongKind(Role::Object))?;
        match self.gate.ops.object_kind(object) {
            ObjectKind::Table => Err(OpFlaw::Table),
            _ => Ok(object),
        }
    }

    fn place(&mut self, op: &Op<'_>, object: ObjectIndex) -> Result<Place, OpFlaw> {
        let is_sequence = self.gate.ops.object_kind(object).is_sequence();
        match op.key {
            Key::Text("") => Err(OpFlaw::EmptyKey),
            Key::Text(key) if !is_sequence && !op.insert => Ok(Place::Key(self.gate.ops.key(key))),
            Key::Element(None) if is_sequence && op.insert => Ok(Place::Behind(HEAD)),
            Key::Element(Some(element)) if is_sequence => {
                let (element, kind) = self.element(element, object)?;
                match (op.insert, kind) {
                    (true, _) => Ok(Place::Behind(element)),
                    // A mark stands where an element could be, and is none.
                    (false, Kind::Mark) => Err(OpFlaw::WrongKind(Role::Element)),
                    (false, _) => Ok(Place::Element(element)),
                }
            }
            _ => Err(OpFlaw::WrongKey),
        }
    }

    fn element(&self, local: LocalId, object: ObjectIndex) -> Result<(OpId, Kind), OpFlaw> {
        let id = self.resolve(local, Role::Element)?;
        let run = self.gate.ops.run(id).ok_or(OpFlaw::Unknown(Role::Element))?;
        match run.place {
            Place::Behind(_) if run.object == object => Ok((id, run.kind)),
            Place::Behind(_) => Err(OpFlaw::Elsewhere(Role::Element)),
            _ => Err(OpFlaw::WrongKind(Role::Element)),
        }
    }

    /// Checks what the operation replaces; says whether a counter is among it.
    fn predecessors(&self, preds: &[LocalId], object: ObjectIndex, place: Place) -> Result<bool, OpFlaw> {
        let (mut before, mut counters) = (None, false);
        for pred in preds {
            let id = self.resolve(*pred, Role::Predecessor)?;
            if before.is_some_and(|before| !self.gate.ops.is_before(before, id)) {
                return Err(OpFlaw::PredecessorOrder);
            }
            before = Some(id);
            let run = self.gate.ops.run(id).ok_or(OpFlaw::Unknown(Role::Predecessor))?;
            let stands_at = match run.place {
                Place::Behind(_) => Place::Element(id),
                other => other,
            };
            if run.kind == Kind::Mark || stands_at == Place::Nothing {
                return Err(OpFlaw::WrongKind(Role::Predecessor));
            }
            if run.object != object || stands_at != place {
                return Err(OpFlaw::Elsewhere(Role::Predecessor));
            }
            counters |= run.kind == Kind::Counter;
        }
        Ok(counters)
    }

    /// Texts are edited by inserting and deleting; only old clients, and programs that mean to, give an element of one another value. Automerge panics when an
    /// element of a text has two values and one of them goes. So there may be one at a time, and what was replaced may not be replaced again.
    fn update(
        &mut self,
        op: &Op<'_>,
        preds: &[LocalId],
        object: ObjectIndex,
        place: Place,
    ) -> Result<(), OpFlaw> {
        let Place::Element(element) = place else { return Ok(()) };
        let updates = self.gate.ops.updates(element);
        let replaces = op.action != Action::Delete;
        let is_text = self.gate.ops.object_kind(object) == ObjectKind::Text;
        // An increment leaves its counter where it is.
        if !is_text || op.action == Action::Increment || (updates.is_empty() && !replaces) {
            return Ok(());
        }
        let preds: Box<[OpId]> =
            preds.iter().map(|pred| self.resolve(*pred, Role::Predecessor)).collect::<Result<_, _>>()?;
        *self.gate.steps += updates.len() as u64;
        for update in updates {
            if self.has_seen(update.id) && update.replaced.iter().any(|replaced| preds.contains(replaced)) {
                return Err(OpFlaw::Replaced);
            }
        }
        let value = updates.last().map_or(Some(element), |update| update.value);
        let is_gone = value.is_none_or(|value| preds.contains(&value));
        if replaces && !is_gone {
            return Err(OpFlaw::SecondValue);
        }
        let value = if replaces { Some(self.id) } else { value.filter(|_| !is_gone) };
        self.gate.ops.add_update(element, Update { id: self.id, value, replaced: preds });
        Ok(())
    }

    /// Whether an operation that exists is in an ancestor of the change, or earlier in it.
    fn has_seen(&self, id: OpId) -> bool {
        if id.actor == self.gate.author && id.ctr >= self.start {
            return true;
        }
        let changes = &self.gate.ops.actor(id.actor).changes;
        let made_in = changes.partition_point(|(start, _)| *start <= id.ctr).checked_sub(1);
        made_in.is_some_and(|made_in| self.gate.view.covers(changes[made_in].1))
    }

    /// A mark begins and ends with two operations, one after the other. The beginning is the latest element behind the one that it names, so it directly follows
    /// that one; and the end comes after it if it names the beginning itself, or an element that comes after the one that the beginning names.
    fn mark(
        &mut self,
        op: &Op<'_>,
        object: ObjectIndex,
        place: Place,
        begin: Option<Begin>,
    ) -> Result<Option<Begin>, OpFlaw> {
        let is_end = op.action == Action::Mark && op.mark_name.is_none();
        let behind = match (op.action, place) {
            (Action::Mark, Place::Behind(element)) => element,
            _ if begin.is_some() => return Err(OpFlaw::MarkOrder),
            _ => return Ok(None),
        };
        let Some(begin) = begin else {
            return if is_end {
                Err(OpFlaw::MarkOrder)
            } else {
                Ok(Some(Begin { id: self.id, object, behind }))
            };
        };
        if is_end && object == begin.object && self.follows(&begin, behind) {
            Ok(None)
        } else {
            Err(OpFlaw::MarkOrder)
        }
    }

    /// Whether what comes behind an element comes after the beginning of the mark.
    fn follows(&mut self, begin: &Begin, behind: OpId) -> bool {
        if behind == begin.id {
            return true;
        }
        if behind == begin.behind || behind == HEAD {
            return false;
        }
        begin.behind == HEAD || self.gate.ops.precedes(begin.behind, behind, self.gate.steps)
    }
}

/// Checks that an operation has the parts that its action has, and no others.
fn check_parts(op: &Op<'_>, preds: usize) -> Result<(), OpFlaw> {
    let is_mark = op.action == Action::Mark;
    if !is_mark && (op.mark_name.is_some() || op.expand) {
        return Err(OpFlaw::NoMark);
    }
    let fits = match op.action {
        Action::Set => true,
        Action::Increment => op.value == Scalar::Integer,
        Action::Mark => op.mark_name.is_some() || op.value == Scalar::Null,
        _ => op.value == Scalar::Null,
    };
    if !fits {
        return Err(OpFlaw::WrongValue);
    }
    let replaces_only = matches!(op.action, Action::Delete | Action::Increment);
    if (replaces_only && op.insert) || (is_mark && !op.insert) {
        return Err(OpFlaw::WrongInsert);
    }
    // An element has a value, so whatever is put there replaces one. A key may be new.
    let replaces = replaces_only || (!op.insert && matches!(op.key, Key::Element(_)));
    if (op.insert && preds > 0) || (replaces && preds == 0) {
        return Err(OpFlaw::PredecessorCount);
    }
    Ok(())
}

/// What the operation leaves behind, and where.
fn kept(op: &Op<'_>, place: Place) -> (Place, Kind) {
    match op.action {
        Action::Delete | Action::Increment => (Place::Nothing, Kind::Value),
        Action::Mark => (place, Kind::Mark),
        Action::Set if op.value == Scalar::Counter => (place, Kind::Counter),
        Action::Set => (place, Kind::Value),
        _ => (place, Kind::Object),
    }
}

fn made(action: Action) -> Option<ObjectKind> {
    match action {
        Action::MakeMap => Some(ObjectKind::Map),
        Action::MakeTable => Some(ObjectKind::Table),
        Action::MakeList => Some(ObjectKind::List),
        Action::MakeText => Some(ObjectKind::Text),
        _ => None,
    }
}
