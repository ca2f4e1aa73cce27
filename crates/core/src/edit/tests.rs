//! Tests of edits: each operation, and each error.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ScalarValue};
use serde_json::{Value as Json, json};

use super::*;
use crate::document::Restoring;
use crate::id::DocumentId;

const STAMP: Stamp = Stamp { actor: [7; 16], message: None, time: 1_795_568_523 };

fn document(json: &Json) -> Materialised {
    let (document, made) = Materialised::default().edit(&set(json), &STAMP).unwrap();
    made.unwrap();
    document
}

fn set(json: &Json) -> Edit {
    Edit::set(json.to_string().as_bytes()).unwrap()
}

fn patch(json: &Json) -> Edit {
    Edit::json_patch(json.to_string().as_bytes()).unwrap()
}

fn merge(json: &Json) -> Edit {
    Edit::merge_patch(json.to_string().as_bytes()).unwrap()
}

fn json(document: &Materialised) -> Json {
    document.to_json(None).unwrap()
}

/// Edits, and checks that the gate lets the change in, and that it makes the same of another copy.
fn edited(document: Materialised, edit: &Edit) -> (Materialised, Result<Option<MadeChange>, EditError>) {
    let before = document.clone();
    let (document, made) = document.edit(edit, &STAMP).unwrap();
    match &made {
        Ok(Some(made)) => {
            let other = before.extended(std::slice::from_ref(&made.chunk)).unwrap();
            assert_eq!(json(&other), json(&document));
            assert_eq!(other.heads(), document.heads());
            assert_eq!(document.heads(), [made.hash]);
            check_gate(&document);
        }
        Ok(None) | Err(_) => {
            assert_eq!(document.heads(), before.heads());
            assert_eq!(document.save().unwrap(), before.save().unwrap());
        }
    }
    (document, made)
}

fn check_gate(document: &Materialised) {
    let mut gate = Restoring::new(DocumentId::from_bytes([5; 16]), []);
    for change in document.document.get_changes(&[]) {
        gate.add(Bytes::copy_from_slice(change.raw_bytes())).unwrap();
    }
    assert_eq!(gate.finish().heads(), document.heads());
}

#[test]
fn a_document_is_set_and_read() {
    let value =
        json!({ "a": 1, "b": [1, "x", { "c": null }], "t": "text", "o": { "e": [] }, "f": 1.5, "$x": true });
    let document = document(&value);
    assert_eq!(json(&document), value);
    check_gate(&document);
    let (_, made) = edited(document, &set(&value));
    assert_eq!(made, Ok(None));
}
