//! Random documents, made by the stock library as applications make them.

use std::panic::catch_unwind;

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Author, AutoCommit, Change, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use crate::Rng;

/// The changes of a document, each after its dependencies. Several actors edit it, apart and together, in about so many transactions.
///
/// Now and then automerge 0.12 panics on what it made itself, and then there is another document.
pub fn document(seed: u64, transactions: usize) -> Vec<Change> {
    let attempt = |n: u64| catch_unwind(|| attempt(seed, seed ^ n << 40, transactions)).ok();
    (0..).find_map(attempt).expect("one of them works")
}

fn attempt(seed: u64, of: u64, transactions: usize) -> Vec<Change> {
    let mut rng = Rng::new(of);
    let mut docs: Vec<AutoCommit> = Vec::new();
    let mut first = AutoCommit::new().with_actor(ActorId::from([1, (seed % 251) as u8]));
    if rng.percent(20) {
        first.set_author(Some(Author::from(&b"somebody"[..]).into_owned()));
    }
    scaffold(&mut first, &mut rng);
    first.commit();
    for n in 1..=1 + rng.below(3) {
        docs.push(first.fork().with_actor(ActorId::from(vec![n as u8 + 1; 1 + rng.below(20)])));
    }
    docs.push(first);
    // Some meet often, some work apart for long.
    let meets = [60, 20, 4][rng.below(3)];
    for _ in 0..transactions {
        let place = rng.below(docs.len());
        transaction(&mut docs[place], seed.is_multiple_of(2), &mut rng);
        if rng.percent(meets) {
            let (a, b) = (rng.below(docs.len()), rng.below(docs.len()));
            if a != b {
                let mut other = docs[b].clone();
                docs[a].merge(&mut other).expect("stock documents merge");
            }
        }
    }
    let mut all = docs.pop().expect("there is one");
    for mut doc in docs {
        all.merge(&mut doc).expect("stock documents merge");
    }
    all.get_changes(&[])
}

fn scaffold(doc: &mut AutoCommit, rng: &mut Rng) {
    let text = doc.put_object(ROOT, "text", ObjType::Text).expect("root takes a text");
    doc.splice_text(&text, 0, 0, "the first words").expect("text is inserted");
    let list = doc.put_object(ROOT, "list", ObjType::List).expect("root takes a list");
    for n in 0..rng.below(6) {
        doc.insert(&list, n, scalar(rng)).expect("the list grows");
    }
    doc.put_object(ROOT, "map", ObjType::Map).expect("root takes a map");
    doc.put(ROOT, "counter", ScalarValue::counter(1)).expect("root takes a counter");
}

/// Documents have either edits of old states or empty changes: with both, automerge 0.12 makes changes that it panics on itself (the empty change is
/// forgotten when an actor is chosen for the old state, and its sequence has a fork).
fn transaction(doc: &mut AutoCommit, isolates: bool, rng: &mut Rng) {
    let isolated = isolates && rng.percent(15);
    if isolated {
        let changes = doc.get_changes(&[]);
        let heads = [changes[rng.below(changes.len())].hash()];
        doc.isolate(&heads);
    }
    let edits = if rng.percent(3) { 60 } else { 1 + rng.below(3) };
    for _ in 0..edits {
        // Not every edit makes sense everywhere; the library says so, and nothing happened.
        let _ = edit(doc, isolated, rng);
    }
    let mut options = CommitOptions::default();
    if rng.percent(20) {
        options = options.with_time(rng.next() as i64 >> 12).with_message("what was done");
    }
    if !isolates && rng.percent(3) {
        doc.commit();
        doc.empty_change(options);
    } else {
        doc.commit_with(options);
    }
    if isolated {
        doc.integrate();
    }
}

/// Old states are edited in maps only: in sequences, automerge 0.12 inserts behind elements that the old state does not have, which panics whoever
/// does not have them either.
fn edit(doc: &mut AutoCommit, only_maps: bool, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    let (object, kind) = object(doc, rng);
    let len = doc.length(&object);
    match kind {
        ObjType::Text | ObjType::List if only_maps => Ok(()),
        ObjType::Text => edit_text(doc, rng, &object, len),
        ObjType::List => edit_list(doc, rng, &object, len),
        ObjType::Map | ObjType::Table => edit_map(doc, rng, &object),
    }
}

/// Any object, by walking down at random.
fn object(doc: &AutoCommit, rng: &mut Rng) -> (ObjId, ObjType) {
    let mut at = (ROOT, ObjType::Map);
    loop {
        let mut below: Vec<(ObjId, ObjType)> = Vec::new();
        for item in doc.values(&at.0) {
            let (Value::Object(kind), id) = (item.0, item.1) else { continue };
            below.push((id, kind));
        }
        // automerge 0.12 makes tables, and panics on a remote change of one.
        below.retain(|(_, kind)| *kind != ObjType::Table);
        if below.is_empty() || rng.percent(25) {
            return at;
        }
        at = below.swap_remove(rng.below(below.len()));
    }
}

/// As applications edit texts: nothing puts another value in the place of one. automerge 0.12 panics when two actors do that to one element.
fn edit_text(
    doc: &mut AutoCommit,
    rng: &mut Rng,
    text: &ObjId,
    len: usize,
) -> Result<(), automerge::AutomergeError> {
    let at = rng.below(len + 1);
    let end = at + rng.below(len - at + 1);
    match rng.below(12) {
        0..=4 => doc.splice_text(text, at, 0, ["a", "bc", "word ", "\u{1f600}"][rng.below(4)]),
        5..=6 => doc.splice_text(text, at, (end - at).min(5) as isize, ""),
        7 => doc.splice_text(text, at, (end - at).min(3) as isize, "new"),
        8 => {
            let expand =
                [ExpandMark::Before, ExpandMark::After, ExpandMark::Both, ExpandMark::None][rng.below(4)];
            let mark = Mark::new(["bold", "link"][rng.below(2)].to_owned(), scalar(rng), at, end);
            doc.mark(text, mark, expand)
        }
        9 => doc.unmark(text, "bold", at, end, ExpandMark::After),
        10 => {
            let block = doc.split_block(text, at)?;
            doc.put(&block, "type", "paragraph")
        }
        _ => doc.update_text(text, "all of it is new now"),
    }
}

fn edit_list(
    doc: &mut AutoCommit,
    rng: &mut Rng,
    list: &ObjId,
    len: usize,
) -> Result<(), automerge::AutomergeError> {
    let at = rng.below(len + 1);
    match rng.below(8) {
        0..=2 => doc.insert(list, at, scalar(rng)),
        3 => doc.insert_object(list, at, kind(rng)).map(drop),
        4 => doc.delete(list, at),
        5 => doc.increment(list, at, rng.below(9) as i64 - 4),
        6 => doc.put_object(list, at, kind(rng)).map(drop),
        _ => doc.put(list, at, scalar(rng)),
    }
}

fn edit_map(doc: &mut AutoCommit, rng: &mut Rng, map: &ObjId) -> Result<(), automerge::AutomergeError> {
    let key = ["a", "b", "counter", "text", "a longer key"][rng.below(5)];
    match rng.below(8) {
        0..=2 => doc.put(map, key, scalar(rng)),
        3 => doc.put_object(map, key, kind(rng)).map(drop),
        4 => doc.delete(map, key),
        _ => doc.increment(map, key, rng.below(9) as i64 - 4),
    }
}

fn kind(rng: &mut Rng) -> ObjType {
    [ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table][rng.below(4)]
}

fn scalar(rng: &mut Rng) -> ScalarValue {
    match rng.below(12) {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(rng.percent(50)),
        2 => ScalarValue::Uint(rng.next()),
        3 => ScalarValue::Int(rng.next() as i64),
        4 => ScalarValue::F64(rng.next() as f64 / 3.0),
        5 => ScalarValue::Bytes(vec![7; rng.below(20)]),
        6 => ScalarValue::Timestamp(rng.next() as i64),
        7 => ScalarValue::Unknown { type_code: 10 + rng.below(6) as u8, bytes: vec![1; rng.below(9)] },
        8 | 9 => ScalarValue::counter(rng.below(100) as i64),
        _ => ScalarValue::Str("some text".into()),
    }
}
