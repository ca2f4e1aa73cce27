//! One change, wrong in one part or several.

use automerge::ChangeHash;
use bytes::Bytes;

use crate::Rng;
use crate::model::{HandMade, Key, Op, OpId, action, chunk};

/// What a mutation may draw from.
pub struct Pool<'a> {
    /// The changes of the document, each after its dependencies.
    pub history: &'a [HandMade],
    /// Their hashes.
    pub hashes: &'a [ChangeHash],
}

impl Pool<'_> {
    /// A new change by somebody who has a part of the history, or all of it, with mutations. Also says what was done.
    pub fn mutant(&self, rng: &mut Rng) -> (Bytes, String) {
        let (change, done) = self.mutated(rng);
        if rng.percent(12) {
            let mut data = change.data();
            let at = rng.below(data.len());
            match rng.below(3) {
                0 => data[at] = rng.next() as u8,
                1 => data.insert(at, rng.next() as u8),
                _ => drop(data.remove(at)),
            }
            return (chunk(&data), done + "byte");
        }
        (change.encode(), done)
    }

    /// The data of such a change.
    pub fn mutant_data(&self, rng: &mut Rng) -> Vec<u8> {
        self.mutated(rng).0.data()
    }

    fn mutated(&self, rng: &mut Rng) -> (HandMade, String) {
        let mut change = self.honest(rng);
        let mut done = String::new();
        for _ in 0..[1, 1, 1, 2, 4][rng.below(5)] {
            done.push_str(self.mutate(&mut change, rng));
            done.push(' ');
        }
        (change, done)
    }

    /// A change with operations of an old one, but new: the next of some actor, on top of what that one may have seen.
    fn honest(&self, rng: &mut Rng) -> HandMade {
        let of = rng.below(self.history.len());
        let mut change = self.history[of].clone();
        let old_start = change.start_op;
        let tips = self.tips();
        if rng.percent(70) {
            change.deps = tips;
        } else {
            change.deps = vec![self.hashes[rng.below(self.hashes.len())]];
        }
        if rng.percent(50) {
            change.actor = vec![200, rng.next() as u8, rng.next() as u8];
            change.seq = 1;
        } else {
            change.seq = self.history.iter().filter(|other| other.actor == change.actor).count() as u64 + 1;
        }
        let top =
            self.history.iter().map(|change| change.start_op + change.ops.len() as u64).max().unwrap_or(1);
        change.start_op = top;
        // Names of its own operations move with it.
        let (old, actor) = (&self.history[of], change.actor.clone());
        let moved = |id: &mut OpId| {
            if id.actor == old.actor && id.ctr >= old_start {
                (id.ctr, id.actor) = (id.ctr - old_start + top, actor.clone());
            }
        };
        change.ops.iter_mut().for_each(|op| names(op).for_each(moved));
        change
    }

    fn tips(&self) -> Vec<ChangeHash> {
        let named = |hash: &ChangeHash| self.history.iter().any(|change| change.deps.contains(hash));
        let mut tips: Vec<_> = self.hashes.iter().filter(|hash| !named(hash)).copied().collect();
        tips.sort();
        tips
    }

    fn mutate(&self, change: &mut HandMade, rng: &mut Rng) -> &'static str {
        if change.ops.is_empty() || rng.percent(20) {
            return self.mutate_header(change, rng);
        }
        let at = rng.below(change.ops.len());
        let id = self.id(change, rng);
        let other = self.op(rng);
        let op = &mut change.ops[at];
        match rng.below(19) {
            0 => (op.object = if rng.percent(30) { None } else { Some(id) }, "object").1,
            1 => (op.key = Key::Element(id), "element").1,
            2 => {
                (
                    op.key = [
                        Key::Text("a".into()),
                        Key::Text("new".into()),
                        Key::Text(String::new()),
                        Key::Head,
                        Key::Missing,
                    ][rng.below(5)]
                    .clone(),
                    "key",
                )
                    .1
            }
            3 => (op.insert = !op.insert, "insert").1,
            4 => (op.action = rng.below(9) as u64, "action").1,
            5 => (op.value = value(rng), "value").1,
            6 => (op.preds.push(id), "pred added").1,
            7 => (op.preds = vec![id], "pred").1,
            8 => (op.preds.clear(), "no preds").1,
            9 => {
                op.preds.push(id);
                op.preds.sort();
                "pred added in order"
            }
            10 => (op.expand = !op.expand, "expand").1,
            11 => {
                (op.mark_name = if op.mark_name.is_some() { None } else { Some("bold".into()) }, "mark name")
                    .1
            }
            12 => (drop(change.ops.remove(at)), "op removed").1,
            13 => (change.ops.insert(at, other), "op of another").1,
            14 => {
                let copy = op.clone();
                change.ops.push(copy);
                "op twice"
            }
            15 => {
                let with = rng.below(change.ops.len());
                change.ops.swap(at, with);
                "ops swapped"
            }
            16 => {
                op.key = Key::Element(id.clone());
                op.preds = vec![id];
                "element and pred"
            }
            17 => (change.ops.extend(mark(&id, self.id(change, rng), change, rng)), "mark").1,
            _ => {
                op.action = [action::DELETE, action::INCREMENT][rng.below(2)];
                op.value = if op.action == action::DELETE { (0, vec![]) } else { (4, vec![1]) };
                "delete or increment"
            }
        }
    }

    fn mutate_header(&self, change: &mut HandMade, rng: &mut Rng) -> &'static str {
        let any = self.hashes[rng.below(self.hashes.len())];
        match rng.below(11) {
            0 => (change.seq = change.seq.wrapping_add(rng.below(5) as u64).wrapping_sub(2), "seq").1,
            1 => (change.start_op = change.start_op.saturating_sub(rng.below(40) as u64), "start op lower").1,
            2 => (change.start_op += rng.below(40) as u64, "start op higher").1,
            3 => (change.deps = vec![any], "deps").1,
            4 => (change.deps.push(any), "dep added").1,
            5 => {
                change.deps.push(any);
                change.deps.sort();
                change.deps.dedup();
                "dep added in order"
            }
            6 => (change.deps.clear(), "no deps").1,
            7 => (change.actor = self.history[rng.below(self.history.len())].actor.clone(), "actor").1,
            8 => (change.time = [0, i64::MIN, i64::MAX, -1, 1 << 53][rng.below(5)], "time").1,
            9 => (change.unused_actors.push(vec![99]), "unused actor").1,
            _ => {
                (
                    change.extra = [vec![1, 2, 7, 7], vec![1, 0], vec![9; 30], vec![1]][rng.below(4)].clone(),
                    "extra",
                )
                    .1
            }
        }
    }

    /// The id of some operation: of the history, of the change itself, or of none.
    fn id(&self, change: &HandMade, rng: &mut Rng) -> OpId {
        let any = &self.history[rng.below(self.history.len())];
        match rng.below(10) {
            0 => OpId { ctr: rng.below(50) as u64, actor: any.actor.clone() },
            1 => OpId { ctr: 1, actor: vec![77] },
            2 | 3 if !change.ops.is_empty() => change.id(rng.below(change.ops.len())),
            _ if !any.ops.is_empty() => any.id(rng.below(any.ops.len())),
            _ => OpId { ctr: 1, actor: any.actor.clone() },
        }
    }

    fn op(&self, rng: &mut Rng) -> Op {
        let any = &self.history[rng.below(self.history.len())];
        match any.ops.len() {
            0 => Op::set("a", "b"),
            len => any.ops[rng.below(len)].clone(),
        }
    }
}

/// A mark from behind one element to behind another, in the object of some operation of the change.
fn mark(from: &OpId, to: OpId, change: &HandMade, rng: &mut Rng) -> [Op; 2] {
    let object = change.ops[rng.below(change.ops.len())].object.clone();
    let at = |element: OpId, name: Option<&str>| Op {
        object: object.clone(),
        key: if is_head(&element) { Key::Head } else { Key::Element(element) },
        insert: true,
        action: action::MARK,
        value: if name.is_some() { (2, vec![]) } else { (0, vec![]) },
        preds: vec![],
        expand: false,
        mark_name: name.map(str::to_owned),
    };
    [at(from.clone(), Some("bold")), at(to, None)]
}

/// Some marks start at the very beginning.
fn is_head(element: &OpId) -> bool {
    element.ctr.is_multiple_of(5)
}

fn names(op: &mut Op) -> impl Iterator<Item = &mut OpId> {
    let element = match &mut op.key {
        Key::Element(id) => Some(id),
        _ => None,
    };
    op.object.iter_mut().chain(element).chain(&mut op.preds)
}

fn value(rng: &mut Rng) -> (u8, Vec<u8>) {
    let bytes = [
        vec![],
        vec![0],
        vec![1],
        vec![0x80, 0],
        vec![0xff, 0x7f],
        vec![0xff; 10],
        vec![0; 8],
        b"text".to_vec(),
    ];
    (rng.below(16) as u8, bytes[rng.below(8)].clone())
}
