//! What the gate costs: `cargo run --release -p highwater-core --example gate`.
//!
//! Changes are made before anything is measured. "Parse" is reading and hashing a change; "admit" is that, and judging it, and adding it to the history and
//! the index of operations, as for every change that a server takes in.

use std::time::Instant;

use bytes::Bytes;
use highwater_core::change::Change;
use highwater_core::document::Restoring;
use highwater_core::{ChangeHash, DocumentId};
use highwater_forge::model::action;
use highwater_forge::{HandMade, Key, Op, OpId, Rng};

/// A document under construction.
struct Maker {
    chunks: Vec<Bytes>,
    rng: Rng,
    /// What is in the text, as far as it is worth naming.
    elements: Vec<OpId>,
    top: u64,
}

/// One who edits: the number of changes so far, and what the next one stands on.
#[derive(Clone)]
struct Author {
    actor: Vec<u8>,
    seq: u64,
    deps: Vec<ChangeHash>,
}

fn text() -> OpId {
    OpId { ctr: 1, actor: vec![0] }
}

impl Maker {
    fn new() -> (Self, Author) {
        let mut maker = Self { chunks: Vec::new(), rng: Rng::new(7), elements: Vec::new(), top: 0 };
        let mut first = Author { actor: vec![0], seq: 0, deps: Vec::new() };
        let make = Op { action: action::MAKE_TEXT, value: (0, vec![]), ..Op::set("text", "") };
        maker.change(&mut first, vec![make]);
        (maker, first)
    }

    fn change(&mut self, author: &mut Author, ops: Vec<Op>) -> Vec<OpId> {
        author.seq += 1;
        author.deps.sort();
        let change = HandMade {
            deps: std::mem::take(&mut author.deps),
            actor: author.actor.clone(),
            seq: author.seq,
            start_op: self.top + 1,
            time: 1_700_000_000,
            message: vec![],
            ops,
            extra: vec![],
            unused_actors: vec![],
        };
        self.top += change.ops.len() as u64;
        self.chunks.push(change.encode());
        author.deps = vec![change.hash()];
        (0..change.ops.len()).map(|place| change.id(place)).collect()
    }

    fn insert(&self, behind: Option<OpId>) -> Op {
        Op {
            object: Some(text()),
            key: behind.map_or(Key::Head, Key::Element),
            insert: true,
            ..Op::set("", "x")
        }
    }

    /// One character, mostly behind the one before, now and then somewhere else.
    fn type_one(&mut self, author: &mut Author, last: &mut Option<OpId>) {
        if self.rng.percent(5) && !self.elements.is_empty() {
            *last = Some(self.elements[self.rng.below(self.elements.len())].clone());
        }
        let op = self.insert(last.clone());
        *last = self.change(author, vec![op]).pop();
        self.elements.extend(last.clone());
    }

    fn author(&self, n: usize, of: &Author) -> Author {
        Author { actor: vec![1 + n as u8; 16], seq: 0, deps: of.deps.clone() }
    }
}

fn typing(changes: usize) -> Vec<Bytes> {
    let (mut maker, mut author) = Maker::new();
    let mut last = None;
    (1..changes).for_each(|_| maker.type_one(&mut author, &mut last));
    maker.chunks
}

/// Several people at once; each has heard of all others after every few changes.
fn together(people: usize, changes: usize) -> Vec<Bytes> {
    let (mut maker, first) = Maker::new();
    let mut authors: Vec<_> = (0..people).map(|n| (maker.author(n, &first), None)).collect();
    while maker.chunks.len() < changes {
        for (author, last) in &mut authors {
            for _ in 0..3 {
                // Nobody names what another one does at this time.
                maker.elements.clear();
                maker.type_one(author, last);
            }
        }
        let heads: Vec<ChangeHash> = authors.iter().flat_map(|(author, _)| author.deps.clone()).collect();
        authors.iter_mut().for_each(|(author, _)| author.deps = heads.clone());
    }
    maker.chunks
}

/// Two long branches, one after the other, and then a merge.
fn branches(changes: usize) -> Vec<Bytes> {
    let (mut maker, first) = Maker::new();
    let mut heads = Vec::new();
    for n in 0..2 {
        let (mut author, mut last) = (maker.author(n, &first), None);
        maker.elements.clear();
        (0..changes / 2).for_each(|_| maker.type_one(&mut author, &mut last));
        heads.extend(author.deps);
    }
    let mut merging = Author { deps: heads, ..maker.author(9, &first) };
    maker.elements.clear();
    let mut last = None;
    (0..1_000).for_each(|_| maker.type_one(&mut merging, &mut last));
    maker.chunks
}

fn map_puts(changes: usize) -> Vec<Bytes> {
    let (mut maker, mut author) = Maker::new();
    for n in 1..changes {
        maker.change(&mut author, vec![Op::set(&format!("key {n}"), "value")]);
    }
    maker.chunks
}

fn deletions_and_marks(changes: usize) -> Vec<Bytes> {
    let (mut maker, mut author) = Maker::new();
    let ops = (0..changes as u64).map(|n| maker.insert((n > 0).then(|| OpId { ctr: n + 1, actor: vec![0] })));
    let ops = ops.collect();
    let elements = maker.change(&mut author, ops);
    for n in 0..changes / 2 {
        let element = elements[2 * n].clone();
        let delete = Op {
            key: Key::Element(element.clone()),
            action: action::DELETE,
            insert: false,
            value: (0, vec![]),
            preds: vec![element.clone()],
            ..maker.insert(None)
        };
        maker.change(&mut author, vec![delete]);
        let mark = |behind: &OpId, name: Option<&str>| Op {
            action: action::MARK,
            value: if name.is_some() { (2, vec![]) } else { (0, vec![]) },
            mark_name: name.map(str::to_owned),
            ..maker.insert(Some(behind.clone()))
        };
        let marks = vec![mark(&elements[n], Some("bold")), mark(&element, None)];
        if n > 0 {
            maker.change(&mut author, marks);
        }
    }
    maker.chunks
}

fn one_large(ops: usize) -> Vec<Bytes> {
    let (mut maker, mut author) = Maker::new();
    let ops = (0..ops as u64).map(|n| maker.insert((n > 0).then(|| OpId { ctr: n + 1, actor: vec![0] })));
    let ops = ops.collect();
    maker.change(&mut author, ops);
    maker.chunks
}

fn measure(name: &str, chunks: &[Bytes]) {
    let (mut parsed, started) = (0, Instant::now());
    for chunk in chunks {
        parsed += Change::parse(chunk.clone()).expect("changes are well-formed").ops;
    }
    let parse = started.elapsed();
    let mut document = Restoring::new(DocumentId::from_bytes([1; 16]), []);
    let part = chunks.len().div_ceil(4);
    let mut parts = Vec::new();
    let all = Instant::now();
    for chunk in chunks.chunks(part) {
        let started = Instant::now();
        chunk.iter().for_each(|chunk| document.add(chunk.clone()).expect("changes are let in"));
        parts.push(format!("{:5.2}", started.elapsed().as_secs_f64() * 1e6 / chunk.len() as f64));
    }
    let admit = all.elapsed();
    assert_eq!(document.finish().len(), chunks.len());
    let per = |time: std::time::Duration| time.as_secs_f64() * 1e6 / chunks.len() as f64;
    let per_op = admit.as_secs_f64() * 1e9 / parsed as f64;
    println!(
        "{name:44} {:8} {:10} {:8.2} {:8.2} {per_op:9.0}   {}",
        chunks.len(),
        parsed,
        per(parse),
        per(admit),
        parts.join(" ")
    );
}

fn main() {
    println!(
        "{:44} {:>8} {:>10} {:>8} {:>8} {:>9}   admit, by quarters",
        "case", "changes", "operations", "parse us", "admit us", "ns per op"
    );
    for changes in [1_000, 10_000, 100_000, 300_000] {
        measure("one types", &typing(changes));
    }
    measure("two type at once", &together(2, 100_000));
    measure("sixteen type at once", &together(16, 100_000));
    measure("two offline branches, then a merge", &branches(100_000));
    measure("keys of a map, each new", &map_puts(100_000));
    measure("deletions and marks", &deletions_and_marks(50_000));
    measure("one change of many operations", &one_large(1_000_000));
}
