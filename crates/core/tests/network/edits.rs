//! Edits of all kinds on a stock document.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use super::Rng;

/// Makes a change with a few edits and returns its hash.
pub(crate) fn make_change(doc: &mut AutoCommit, rng: &mut Rng) -> ChangeHash {
    if rng.percent(5) {
        return doc.empty_change(options(rng));
    }
    for _ in 0..=rng.below(3) {
        edit(doc, rng).expect("edits are valid");
    }
    match doc.commit_with(options(rng)) {
        Some(hash) => hash,
        // The edits came to nothing, for instance a deletion in an empty list.
        None => doc.empty_change(options(rng)),
    }
}

fn options(rng: &mut Rng) -> CommitOptions {
    let options = CommitOptions::default().with_time(rng.below(5) as i64 - 1);
    if rng.percent(20) { options.with_message("why") } else { options }
}

fn edit(doc: &mut AutoCommit, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    match rng.weighted(&[30, 20, 15, 10, 10, 5, 5]) {
        0 => edit_text(doc, rng),
        1 => doc.put(ROOT, key(rng), scalar(rng)),
        2 => edit_list(doc, rng),
        3 => edit_counter(doc, rng),
        4 => edit_nested(doc, rng),
        5 => doc.delete(ROOT, key(rng)),
        // A second object in one place, which hides what others wrote into the first.
        _ => doc.put_object(ROOT, "text", ObjType::Text).map(drop),
    }
}

fn key(rng: &mut Rng) -> &'static str {
    ["a", "b", "c", "d"][rng.below(4)]
}

fn scalar(rng: &mut Rng) -> ScalarValue {
    match rng.below(6) {
        0 => ScalarValue::Null,
        1 => ScalarValue::from(rng.percent(50)),
        2 => ScalarValue::from(rng.next() as i64),
        3 => ScalarValue::F64(rng.below(1000) as f64 / 7.0),
        4 => ScalarValue::Bytes(vec![rng.below(256) as u8; rng.below(40)]),
        _ => ScalarValue::from("x".repeat(rng.below(20))),
    }
}

fn object(doc: &mut AutoCommit, name: &str, kind: ObjType) -> Result<ObjId, automerge::AutomergeError> {
    match doc.get(ROOT, name)? {
        Some((Value::Object(found), id)) if found == kind => Ok(id),
        _ => doc.put_object(ROOT, name, kind),
    }
}

fn edit_text(doc: &mut AutoCommit, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    let text = object(doc, "text", ObjType::Text)?;
    let len = doc.length(&text);
    let at = rng.below(len + 1);
    if len > 4 && rng.percent(15) {
        let mark = Mark::new("bold".to_owned(), rng.percent(50), at / 2, (at + 2).min(len));
        return doc.mark(&text, mark, ExpandMark::Both);
    }
    let deleted = if rng.percent(30) { rng.below(3).min(len - at) } else { 0 };
    // Some changes are long enough to be compressed.
    let inserted =
        if rng.percent(5) { "long and dull ".repeat(40) } else { "héllo"[..1].repeat(rng.below(4)) };
    doc.splice_text(&text, at, deleted as isize, &inserted)
}

fn edit_list(doc: &mut AutoCommit, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    let list = object(doc, "list", ObjType::List)?;
    let len = doc.length(&list);
    match rng.below(4) {
        0 if len > 0 => doc.delete(&list, rng.below(len)),
        1 if len > 0 => doc.put(&list, rng.below(len), scalar(rng)),
        _ => doc.insert(&list, rng.below(len + 1), scalar(rng)),
    }
}

fn edit_counter(doc: &mut AutoCommit, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    match doc.get(ROOT, "counter")? {
        Some((Value::Scalar(value), _)) if matches!(*value, ScalarValue::Counter(_)) => {
            doc.increment(ROOT, "counter", rng.below(20) as i64 - 10)
        }
        _ => doc.put(ROOT, "counter", ScalarValue::counter(1)),
    }
}

fn edit_nested(doc: &mut AutoCommit, rng: &mut Rng) -> Result<(), automerge::AutomergeError> {
    let map = object(doc, "map", ObjType::Map)?;
    if rng.percent(30) {
        let inner = doc.put_object(&map, key(rng), ObjType::Map)?;
        return doc.put(&inner, key(rng), scalar(rng));
    }
    doc.put(&map, key(rng), scalar(rng))
}
