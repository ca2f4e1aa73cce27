//! What the stock library makes of changes, in whatever order they come.

use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::sync::{State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{
    AutoCommit, Change, ChangeHash, LoadOptions, ObjId, ObjType, ROOT, ReadDoc, Value, VerificationMode,
};

use crate::Rng;

/// What went wrong, in words; the first word says of which sort it is: `panics`, `refuses`, `load`, `differs`.
pub type Harm = String;

/// Tries the changes on stock documents, in several orders in which each comes after its dependencies. `Err` says how it hurts.
pub fn check(changes: &[Change], seed: u64) -> Result<(), Harm> {
    catch_unwind(AssertUnwindSafe(|| check_all(changes, &mut Rng::new(seed)))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panics: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("")))
    })
}

fn check_all(changes: &[Change], rng: &mut Rng) -> Result<(), Harm> {
    let mut whole = AutoCommit::new();
    whole.apply_changes(changes.to_vec()).map_err(|error| format!("refuses: the batch: {error}"))?;
    let expected = shape(&whole);
    check_saved(&mut whole, &expected)?;
    for _ in 0..2 {
        let mut doc = AutoCommit::new();
        doc.update_diff_cursor();
        for change in shuffled(changes, rng) {
            doc.apply_changes([change]).map_err(|error| format!("refuses: one by one: {error}"))?;
            if rng.percent(30) {
                doc.diff_incremental();
            }
        }
        doc.diff_incremental();
        same(&mut doc, &mut whole, &expected, "one by one")?;
        check_saved(&mut doc, &expected)?;
    }
    synced(changes, &mut whole, &expected)?;
    let mut newcomer = AutoCommit::load(&whole.save()).map_err(|error| format!("load: newcomer: {error}"))?;
    write(&mut newcomer);
    AutoCommit::load(&newcomer.save()).map_err(|error| format!("load: after an edit: {error}"))?;
    whole.merge(&mut newcomer).map_err(|error| format!("refuses: an edit on top: {error}"))?;
    Ok(())
}

fn check_saved(doc: &mut AutoCommit, expected: &str) -> Result<(), Harm> {
    let options = || LoadOptions::new().verification_mode(VerificationMode::Check);
    let mut loaded =
        AutoCommit::load_with_options(&doc.save(), options()).map_err(|error| format!("load: {error}"))?;
    same(&mut loaded, doc, expected, "saved and loaded")?;
    let hashes =
        |doc: &mut AutoCommit| doc.get_changes(&[]).iter().map(Change::hash).collect::<BTreeSet<_>>();
    if hashes(&mut loaded) != hashes(doc) {
        return Err("differs: the changes after loading".to_owned());
    }
    let heads = doc.get_heads();
    doc.diff(&[], &heads);
    doc.diff(&heads, &[]);
    Ok(())
}

fn same(doc: &mut AutoCommit, other: &mut AutoCommit, expected: &str, when: &str) -> Result<(), Harm> {
    if doc.get_heads() != other.get_heads() {
        return Err(format!("differs: the heads, {when}"));
    }
    if shape(doc) != expected {
        return Err(format!("differs: the values, {when}"));
    }
    Ok(())
}

/// A peer that has half of it gets the rest by synchronising.
fn synced(changes: &[Change], whole: &mut AutoCommit, expected: &str) -> Result<(), Harm> {
    let mut half = AutoCommit::new();
    half.apply_changes(changes[..changes.len() / 2].to_vec())
        .map_err(|error| format!("refuses: half: {error}"))?;
    let (mut to_half, mut to_whole) = (State::new(), State::new());
    for _ in 0..20 {
        let there = whole.sync().generate_sync_message(&mut to_half);
        if let Some(message) = there.clone() {
            let message = automerge::sync::Message::decode(&message.encode())
                .map_err(|error| format!("refuses: {error}"))?;
            half.sync()
                .receive_sync_message(&mut to_whole, message)
                .map_err(|error| format!("refuses: sync: {error}"))?;
        }
        let back = half.sync().generate_sync_message(&mut to_whole);
        if let Some(message) = back.clone() {
            whole
                .sync()
                .receive_sync_message(&mut to_half, message)
                .map_err(|error| format!("refuses: sync: {error}"))?;
        }
        if there.is_none() && back.is_none() {
            break;
        }
    }
    same(&mut half, whole, expected, "synchronised")
}

/// The changes in a random order that respects dependencies.
fn shuffled(changes: &[Change], rng: &mut Rng) -> Vec<Change> {
    let mut left: Vec<&Change> = changes.iter().collect();
    let mut there: HashSet<ChangeHash> = HashSet::new();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready: Vec<usize> =
            (0..left.len()).filter(|n| left[*n].deps().iter().all(|dep| there.contains(dep))).collect();
        let change = left.remove(ready[rng.below(ready.len())]);
        there.insert(change.hash());
        order.push(change.clone());
    }
    order
}

/// All that can be read of a document, as text.
fn shape(doc: &AutoCommit) -> String {
    let mut out = String::new();
    describe(doc, &ROOT, ObjType::Map, &mut out);
    out
}

fn describe(doc: &AutoCommit, object: &ObjId, kind: ObjType, out: &mut String) {
    use std::fmt::Write;
    let note = |out: &mut String, values: Vec<(Value<'_>, ObjId)>| {
        for (value, id) in values {
            let _ = write!(out, "{value:?}@{id} ");
            if let Value::Object(kind) = value {
                describe(doc, &id, kind, out);
            }
        }
    };
    match kind {
        ObjType::Map | ObjType::Table => {
            for key in doc.keys(object) {
                let _ = write!(out, "{key}: ");
                note(out, doc.get_all(object, key).expect("keys can be read"));
            }
        }
        ObjType::List | ObjType::Text => {
            for place in 0..doc.length(object) {
                note(out, doc.get_all(object, place).expect("places can be read"));
            }
        }
    }
    if kind == ObjType::Text {
        let _ = write!(
            out,
            "{:?} {:?}",
            doc.text(object).expect("texts can be read"),
            doc.marks(object).expect("marks can be read")
        );
        let spans = doc.spans(object).expect("spans can be read").count();
        let _ = write!(out, " {spans}");
    }
}

/// What a newcomer does: writes everywhere.
fn write(doc: &mut AutoCommit) {
    let mut objects = vec![(ROOT, ObjType::Map)];
    while let Some((object, kind)) = objects.pop() {
        for (value, id) in doc.values(&object) {
            if let Value::Object(kind) = value {
                objects.push((id, kind));
            }
        }
        let len = doc.length(&object);
        match kind {
            ObjType::Text => {
                doc.splice_text(&object, len / 2, 0, "x").expect("a newcomer can write");
                doc.splice_text(&object, 0, 1, "").expect("a newcomer can delete");
            }
            ObjType::List => doc.insert(&object, len / 2, 1).expect("a newcomer can insert"),
            ObjType::Map | ObjType::Table => {
                for key in doc.keys(&object).collect::<Vec<_>>() {
                    if matches!(doc.get(&object, &*key), Ok(Some((Value::Scalar(_), _)))) {
                        doc.put(&object, key, 1).expect("a newcomer can put");
                    }
                }
            }
        }
    }
    doc.commit();
}
