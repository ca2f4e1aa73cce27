//! Tests of edits: each operation, and each error.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ScalarValue};
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

mod rfc;

/// A document with one of everything, made as clients make it.
fn everything() -> Materialised {
    let mut document = AutoCommit::new_with_encoding(automerge::TextEncoding::UnicodeCodePoint);
    let scalars = [
        ("int", ScalarValue::Int(-5)),
        ("uint", ScalarValue::Uint(u64::MAX)),
        ("whole", ScalarValue::F64(3.0)),
        ("nan", ScalarValue::F64(f64::NAN)),
        ("inf", ScalarValue::F64(f64::NEG_INFINITY)),
        ("string", ScalarValue::Str("fixed".into())),
        ("counter", ScalarValue::counter(3)),
        ("date", ScalarValue::Timestamp(1_795_568_523_004)),
        ("late", ScalarValue::Timestamp(i64::MAX)),
        ("bytes", ScalarValue::Bytes(vec![0, 255])),
        ("unknown", ScalarValue::Unknown { type_code: 12, bytes: vec![1] }),
        ("null", ScalarValue::Null),
        ("bool", ScalarValue::Boolean(true)),
    ];
    for (key, scalar) in scalars {
        document.put(ROOT, key, scalar).unwrap();
    }
    let text = document.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
    document.splice_text(&text, 0, 0, "Grüße 👋").unwrap();
    let list = document.put_object(ROOT, "list", automerge::ObjType::List).unwrap();
    document.insert(&list, 0, ScalarValue::counter(1)).unwrap();
    document.increment(&list, 0, 4).unwrap();
    document.increment(ROOT, "counter", 4).unwrap();
    let odd = document.put_object(ROOT, "odd", automerge::ObjType::Map).unwrap();
    document.put(&odd, "$counter", "no counter").unwrap();
    Materialised::load(&document.save().into()).unwrap()
}

fn everything_as_json() -> Json {
    json!({
        "int": -5,
        "uint": u64::MAX,
        "whole": 3.0,
        "nan": { "$float": "NaN" },
        "inf": { "$float": "-Infinity" },
        "string": "fixed",
        "counter": { "$counter": 7 },
        "date": { "$date": "2026-11-25T01:02:03.004Z" },
        "late": { "$date": i64::MAX },
        "bytes": { "$bytes": "AP8=" },
        "unknown": { "$unknown": { "type": 12, "bytes": "AQ==" } },
        "null": null,
        "bool": true,
        "text": "Grüße 👋",
        "list": [{ "$counter": 5 }],
        "odd": { "$map": { "$counter": "no counter" } },
    })
}

#[test]
fn every_type_has_its_form() {
    assert_eq!(json(&everything()), everything_as_json());
}

#[test]
fn what_was_read_can_be_set_without_an_edit() {
    let mut value = everything_as_json();
    // It is not accepted, so it would go.
    value.as_object_mut().unwrap().remove("unknown");
    let (document, made) = edited(everything(), &patch(&json!([{ "op": "remove", "path": "/unknown" }])));
    made.unwrap().unwrap();
    let (document, made) = edited(document, &set(&value));
    assert_eq!(made, Ok(None));
    // Numbers are numbers, whatever their type.
    let same = json!({ "whole": 3, "int": -5.0, "counter": 7, "list": [5], "string": "fixed" });
    assert_eq!(edited(document, &merge(&same)).1, Ok(None));
}

#[test]
fn what_was_read_makes_the_same_document_anew() {
    let mut value = everything_as_json();
    value.as_object_mut().unwrap().remove("unknown");
    assert_eq!(json(&document(&value)), value);
}

#[test]
fn values_that_are_none_are_told() {
    for (value, pointer, detail) in [
        (json!({ "a": { "$counter": 1.5 } }), "/a/$counter", "the value is not an integer of 64 bits"),
        (
            json!({ "a": [0, { "$bytes": "!" }] }),
            "/a/1/$bytes",
            "the value is no Base64: Invalid symbol 33, offset 0.",
        ),
        (json!({ "a": { "$bytes": 1 } }), "/a/$bytes", "the value is not a string"),
        (json!({ "a": { "$float": "1" } }), "/a/$float", "the value is none of NaN, Infinity, -Infinity"),
        (json!({ "a/b": { "$string": 1 } }), "/a~1b/$string", "the value is not a string"),
        (json!({ "a": { "$map": 1 } }), "/a/$map", "the value is not an object"),
        (json!({ "a": { "": 1 } }), "/a", "the value has an empty key, which Automerge does not have"),
    ] {
        let error = Edit::set(value.to_string().as_bytes()).unwrap_err();
        let reason = EditReason::Invalid(detail.to_owned());
        assert_eq!(error, EditError { operation: None, pointer: pointer.to_owned(), reason }, "{value}");
        let error = Edit::merge_patch(value.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.pointer, pointer, "{value}");
        let operation = json!([{ "op": "add", "path": "/x", "value": value }]);
        let error = Edit::json_patch(operation.to_string().as_bytes()).unwrap_err();
        assert_eq!((error.operation, error.pointer), (Some(0), format!("/x{pointer}")), "{value}");
    }
    for unknown in [json!({ "$date": "yesterday" }), json!({ "$unknown": { "type": 12, "bytes": "AQ==" } })] {
        assert!(Edit::set(json!({ "a": unknown }).to_string().as_bytes()).is_err());
    }
    assert!(Edit::set(b"{").is_err());
    assert!(Edit::set(b"\xff").is_err());
}

#[test]
fn a_document_is_an_object() {
    let (_, made) = edited(document(&json!({ "a": 1 })), &set(&json!([1])));
    assert_eq!(made.unwrap_err().reason, EditReason::WrongType("a document is an object"));
}

#[test]
fn operations_that_are_none_are_told() {
    for (operation, detail) in [
        (json!(1), "an operation is an object"),
        (json!({ "path": "/a" }), "\"op\" is not a string"),
        (json!({ "op": "remove" }), "\"path\" is not a string"),
        (json!({ "op": "remove", "path": "a" }), "\"path\": a pointer is empty or begins with a slash"),
        (json!({ "op": "add", "path": "/a" }), "\"value\" is missing"),
        (json!({ "op": "move", "path": "/a" }), "\"from\" is not a string"),
        (json!({ "op": "splice", "path": "/a" }), "\"index\" is missing"),
        (json!({ "op": "splice", "path": "/a", "index": -1 }), "\"index\" is not a whole number from 0"),
        (
            json!({ "op": "splice", "path": "/a", "index": 0, "insert": 1 }),
            "\"insert\" is neither a string nor an array",
        ),
        (json!({ "op": "increment", "path": "/a", "by": 0.5 }), "\"by\" is not an integer of 64 bits"),
    ] {
        let error =
            Edit::json_patch(json!([{ "op": "remove", "path": "" }, operation]).to_string().as_bytes());
        let error = error.unwrap_err();
        assert_eq!(error.operation, Some(1), "{operation}");
        assert_eq!(error.reason, EditReason::Invalid(detail.to_owned()), "{operation}");
    }
    assert!(Edit::json_patch(b"{}").is_err());
    let error = Edit::json_patch(br#"[{ "op": "frob", "path": "/a~1b" }]"#).unwrap_err();
    assert_eq!((error.operation, error.pointer.as_str()), (Some(0), "/a~1b"));
}

/// What comes before the operation in a patch is undone, and the document is as good as before.
fn check_error(operation: &Json, pointer: &str, reason: &EditReason) {
    let before = json!({ "op": "add", "path": "/new", "value": { "a": ["text", 1, { "$counter": 1 }] } });
    let edit = patch(&json!([
        before,
        { "op": "splice", "path": "/text", "index": 1, "delete": 2, "insert": "…" },
        { "op": "splice", "path": "/text", "index": 1, "delete": 1, "insert": "rü" },
        { "op": "increment", "path": "/counter", "by": 1 },
        operation,
    ]));
    let (document, made) = edited(everything(), &edit);
    let error = made.unwrap_err();
    assert_eq!((error.operation, error.pointer.as_str()), (Some(4), pointer), "{operation}");
    assert_eq!(error.reason, *reason, "{operation}");
    let (document, made) = edited(document, &merge(&json!({ "text": "Grüß Gott", "counter": 9 })));
    made.unwrap().unwrap();
    assert_eq!(json(&document)["text"], "Grüß Gott");
}

#[test]
fn errors_of_operations_say_where() {
    let no_such_path = || EditReason::NoSuchPath;
    let beyond = |text: &str| EditReason::OutOfBounds(text.to_owned());
    for (operation, pointer, reason) in [
        (json!({ "op": "remove", "path": "/x" }), "/x", no_such_path()),
        (json!({ "op": "remove", "path": "/list/1" }), "/list/1", no_such_path()),
        (json!({ "op": "remove", "path": "/list/-" }), "/list/-", no_such_path()),
        (json!({ "op": "remove", "path": "/list/00" }), "/list/00", no_such_path()),
        (json!({ "op": "replace", "path": "/x", "value": 1 }), "/x", no_such_path()),
        (json!({ "op": "add", "path": "/int/x", "value": 1 }), "/int/x", no_such_path()),
        (json!({ "op": "add", "path": "/list/x", "value": 1 }), "/list/x", no_such_path()),
        (
            json!({ "op": "add", "path": "/list/2", "value": 1 }),
            "/list/2",
            beyond("2 is beyond the end: there are 1 elements"),
        ),
        (json!({ "op": "copy", "from": "/x", "path": "/int" }), "/x", no_such_path()),
        (json!({ "op": "move", "from": "/x", "path": "/int" }), "/x", no_such_path()),
        (
            json!({ "op": "move", "from": "/odd", "path": "/odd/x" }),
            "/odd",
            EditReason::Invalid("a value cannot be moved into itself".to_owned()),
        ),
        (json!({ "op": "test", "path": "/x", "value": 1 }), "/x", EditReason::TestFailed),
        (json!({ "op": "test", "path": "/int", "value": 1 }), "/int", EditReason::TestFailed),
        (json!({ "op": "remove", "path": "" }), "", EditReason::WrongType("the whole document has no place")),
        (
            json!({ "op": "add", "path": "/odd/", "value": 1 }),
            "/odd/",
            EditReason::Invalid("Automerge has no empty keys".to_owned()),
        ),
        (
            json!({ "op": "remove", "path": "/text/0" }),
            "/text/0",
            EditReason::WrongType("a text has no members; splice edits what is in it"),
        ),
    ] {
        check_error(&operation, pointer, &reason);
    }
}

#[test]
fn errors_of_splices_and_increments_say_where() {
    let beyond = |text: &str| EditReason::OutOfBounds(text.to_owned());
    for (operation, pointer, reason) in [
        (
            json!({ "op": "splice", "path": "/text", "index": 8 }),
            "/text",
            beyond("8 is beyond the end: there are 7 code points"),
        ),
        (
            json!({ "op": "splice", "path": "/text", "index": 6, "delete": 2 }),
            "/text",
            beyond("6 and 2 more is beyond the end: there are 7 code points"),
        ),
        (
            json!({ "op": "splice", "path": "/text", "index": u64::MAX, "delete": u64::MAX }),
            "/text",
            beyond(&format!("{0} and {0} more is beyond the end: there are 7 code points", u64::MAX)),
        ),
        (
            json!({ "op": "splice", "path": "/list", "index": 0, "delete": 2 }),
            "/list",
            beyond("0 and 2 more is beyond the end: there are 1 elements"),
        ),
        (
            json!({ "op": "splice", "path": "/text", "index": 0, "insert": [] }),
            "/text",
            EditReason::WrongType("this is a text, and an array cannot be put into it"),
        ),
        (
            json!({ "op": "splice", "path": "/list", "index": 0, "insert": "x" }),
            "/list",
            EditReason::WrongType("this is a list: what is put into it comes as an array"),
        ),
        (
            json!({ "op": "splice", "path": "/string", "index": 0 }),
            "/string",
            EditReason::WrongType("splice edits texts and lists, and this is neither"),
        ),
        (
            json!({ "op": "increment", "path": "/int", "by": 1 }),
            "/int",
            EditReason::WrongType("only a counter can be incremented"),
        ),
        (
            json!({ "op": "increment", "path": "/counter", "by": i64::MAX }),
            "/counter",
            EditReason::OutOfBounds("the counter would get too large".to_owned()),
        ),
    ] {
        check_error(&operation, pointer, &reason);
    }
}

#[test]
fn texts_are_spliced_by_code_points() {
    let (document, made) = edited(
        document(&json!({ "a": ["👋 Wörld"] })),
        &patch(&json!([
            { "op": "splice", "path": "/a/0", "index": 7, "insert": "!👋" },
            { "op": "splice", "path": "/a/0", "index": 3, "delete": 1, "insert": "o" },
            { "op": "splice", "path": "/a/0", "index": 0, "delete": 2 },
        ])),
    );
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": ["World!👋"] }));
}

#[test]
fn lists_are_spliced() {
    let (document, made) = edited(
        document(&json!({ "a": [1, 2, 3] })),
        &patch(&json!([
            { "op": "splice", "path": "/a", "index": 3, "insert": [4, { "b": [] }] },
            { "op": "splice", "path": "/a", "index": 0, "delete": 2, "insert": ["x"] },
            { "op": "splice", "path": "/a", "index": 0 },
        ])),
    );
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": ["x", 3, 4, { "b": [] }] }));
}

#[test]
fn counters_are_counted() {
    let (document, made) = edited(
        document(&json!({ "a": { "$counter": 1 }, "b": [{ "$counter": 1 }] })),
        &patch(&json!([
            { "op": "increment", "path": "/a", "by": 5 },
            { "op": "increment", "path": "/a", "by": -2 },
            { "op": "increment", "path": "/b/0", "by": 1 },
            { "op": "replace", "path": "/b/0", "value": 7 },
        ])),
    );
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": { "$counter": 4 }, "b": [{ "$counter": 7 }] }));
    let more = merge(&json!({ "a": { "$counter": 9 }, "b": [{ "$counter": i64::MIN }] }));
    let (document, made) = edited(document, &more);
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": { "$counter": 9 }, "b": [{ "$counter": i64::MIN }] }));
    // What is no count replaces it.
    let (document, made) = edited(document, &merge(&json!({ "a": 0.5, "b": "none" })));
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": 0.5, "b": "none" }));
}

#[test]
fn a_scalar_string_stays_one() {
    let (document, made) = edited(everything(), &merge(&json!({ "string": "other" })));
    made.unwrap().unwrap();
    let is_scalar = |document: &Materialised| {
        let (value, _) = document.document.get(ROOT, "string").unwrap().unwrap();
        value.is_scalar()
    };
    assert!(is_scalar(&document));
    // Unless it is removed before.
    let steps =
        json!([{ "op": "remove", "path": "/string" }, { "op": "add", "path": "/string", "value": "text" }]);
    let (document, made) = edited(document, &patch(&steps));
    made.unwrap().unwrap();
    assert!(!is_scalar(&document));
    let (document, made) = edited(document, &merge(&json!({ "string": { "$string": "text" } })));
    made.unwrap().unwrap();
    assert!(is_scalar(&document));
    assert_eq!(json(&document)["string"], "text");
}

#[test]
fn what_is_moved_and_copied_keeps_its_types() {
    let keys = ["whole", "nan", "string", "counter", "date", "late", "bytes", "text", "list", "odd", "uint"];
    let moves = |key: &&str| {
        json!([
            { "op": "copy", "from": format!("/{key}"), "path": "/copy" },
            { "op": "move", "from": format!("/{key}"), "path": "/list" },
            { "op": "move", "from": "/list", "path": format!("/{key}") },
        ])
    };
    for key in keys {
        let (document, made) = edited(everything(), &patch(&moves(&key)));
        made.unwrap().unwrap();
        let (mut after, mut before) = (json(&document), everything_as_json());
        let copy = after.as_object_mut().unwrap().remove("copy").unwrap();
        assert_eq!(copy, before[key], "{key}");
        if key != "list" {
            before.as_object_mut().unwrap().remove("list");
        }
        assert_eq!(after, before, "{key}");
        let is_object = |of: &str| document.document.get(ROOT, of).unwrap().unwrap().0.is_object();
        assert_eq!(is_object("copy"), is_object(key), "{key}");
    }
}

#[test]
fn a_value_stays_where_it_is_moved_to_itself() {
    let same = json!([{ "op": "move", "from": "/text", "path": "/text" }]);
    assert_eq!(edited(everything(), &patch(&same)).1, Ok(None));
}

/// Grapheme clusters that are one element each, as some clients write them.
fn clusters() -> Materialised {
    let mut document = AutoCommit::new_with_encoding(automerge::TextEncoding::GraphemeCluster);
    let text = document.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
    document.splice_text(&text, 0, 0, "a👨‍👩‍👧🇩🇪b").unwrap();
    Materialised::load(&document.save().into()).unwrap()
}

#[test]
fn elements_of_several_code_points_are_edited_inside() {
    let whole: Vec<char> = "a👨‍👩‍👧🇩🇪b".chars().collect();
    for index in 0..=whole.len() {
        for delete in 0..=whole.len() - index {
            for insert in ["", "X", "🇫🇷"] {
                let splice = json!([{ "op": "splice", "path": "/text", "index": index, "delete": delete, "insert": insert }]);
                let (document, made) = edited(clusters(), &patch(&splice));
                made.unwrap();
                let mut wanted = whole.clone();
                wanted.splice(index..index + delete, insert.chars());
                assert_eq!(json(&document)["text"], wanted.iter().collect::<String>(), "{splice}");
            }
        }
    }
    let (document, made) = edited(clusters(), &merge(&json!({ "text": "a👨‍👧🇩🇰b!" })));
    made.unwrap().unwrap();
    assert_eq!(json(&document)["text"], "a👨‍👧🇩🇰b!");
}

#[test]
fn a_table_is_read_and_not_edited() {
    let mut document = AutoCommit::new();
    document.put_object(ROOT, "table", automerge::ObjType::Table).unwrap();
    let document = Materialised::load(&document.save().into()).unwrap();
    assert_eq!(json(&document), json!({ "table": {} }));
    for edit in [
        patch(&json!([{ "op": "add", "path": "/table/a", "value": 1 }])),
        merge(&json!({ "table": { "a": 1 } })),
        set(&json!({ "table": { "a": 1 } })),
    ] {
        let (_, made) = edited(document.clone(), &edit);
        assert!(matches!(made.unwrap_err().reason, EditReason::WrongType(_)));
    }
    let (_, made) = edited(document, &patch(&json!([{ "op": "remove", "path": "/table" }])));
    made.unwrap().unwrap();
}

#[test]
fn a_document_gets_no_deeper_than_it_can_be_read() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
    let deepest = document(&nested(100));
    let pointer = "/a".repeat(99);
    let deeper = json!([{ "op": "add", "path": format!("{pointer}/b"), "value": [] }]);
    let reason = EditReason::TooLarge { what: "levels of lists and maps", max: 100 };
    assert_eq!(Edit::json_patch(deeper.to_string().as_bytes()).unwrap_err().reason, reason);
    let copied = patch(&json!([{ "op": "copy", "from": "", "path": "/b" }]));
    assert_eq!(edited(deepest.clone(), &copied).1.unwrap_err().reason, reason);
    let added = patch(&json!([{ "op": "add", "path": format!("{pointer}/b"), "value": 1 }]));
    edited(deepest, &added).1.unwrap().unwrap();
    assert!(Edit::set(nested(101).to_string().as_bytes()).is_err());
    assert!(Edit::merge_patch(nested(101).to_string().as_bytes()).is_err());
}

#[test]
fn what_clients_nest_deeper_is_not_read_and_not_in_the_way() {
    let mut document = AutoCommit::new();
    let mut inner = ROOT;
    for _ in 0..10_000 {
        inner = document.put_object(&inner, "a", automerge::ObjType::Map).unwrap();
    }
    let document = Materialised::load(&document.save().into()).unwrap();
    assert_eq!(document.to_json(None), Err(crate::ReadError::TooDeep));
    assert_eq!(document.conflicts(None), Err(crate::ReadError::TooDeep));
    assert_eq!(document.diff(&[], &document.heads()), Err(crate::ReadError::TooDeep));
    let (document, made) =
        document.edit(&merge(&json!({ "b": 1, "a": { "a": { "b": 1 } } })), &STAMP).unwrap();
    made.unwrap().unwrap();
    let copied = patch(&json!([{ "op": "copy", "from": "/a", "path": "/b" }]));
    let (document, made) = document.edit(&copied, &STAMP).unwrap();
    assert!(matches!(made.unwrap_err().reason, EditReason::TooLarge { .. }));
    let (document, made) = document.edit(&set(&json!({ "a": { "a": [1] } })), &STAMP).unwrap();
    made.unwrap().unwrap();
    assert_eq!(json(&document), json!({ "a": { "a": [1] } }));
}

#[test]
fn one_edit_has_its_limits() {
    let test = json!({ "op": "test", "path": "/a", "value": 1 });
    let many = Json::Array(vec![test; crate::limits::PATCH_OPERATIONS_MAX + 1]);
    let error = Edit::json_patch(many.to_string().as_bytes()).unwrap_err();
    assert!(matches!(error.reason, EditReason::TooLarge { .. }));
    // A large value that is copied to where it is already is read each time.
    let large = document(&json!({ "a": "x".repeat(400_000), "b": 1 }));
    let again = |n| patch(&vec![json!({ "op": "copy", "from": "/a", "path": "/b" }); n].into());
    assert!(edited(large.clone(), &again(1)).1.is_ok());
    let error = edited(large, &again(100)).1.unwrap_err();
    assert!(matches!(error.reason, EditReason::TooLarge { what: "values copied by one edit", .. }));
    let large = document(&json!({ "a": { "$string": "x".repeat(1 << 20) }, "b": 1 }));
    let error = edited(large, &again(100)).1.unwrap_err();
    assert!(matches!(error.reason, EditReason::TooLarge { what: "bytes copied by one edit", .. }));
    // Copies of copies get large soon.
    let doubling: Vec<Json> =
        (0..40).map(|n| json!({ "op": "copy", "from": "/a", "path": format!("/a/{n}") })).collect();
    let (_, made) = edited(document(&json!({ "a": { "text": "0123456789" } })), &patch(&doubling.into()));
    let error = made.unwrap_err();
    assert!(matches!(error.reason, EditReason::TooLarge { .. }), "{error}");
    // And copies of what is there already take time.
    let again = Json::Array(vec![json!({ "op": "copy", "from": "/a", "path": "/b" }); 1_000]);
    let (_, made) = edited(document(&json!({ "a": "x".repeat(1_000) })), &patch(&again));
    let error = made.unwrap_err();
    assert!(matches!(error.reason, EditReason::TooLarge { .. }), "{error}");
    let text = "x".repeat(crate::limits::EDIT_OPS_MAX);
    let (_, made) = edited(document(&json!({ "a": 1 })), &merge(&json!({ "a": text })));
    assert!(matches!(made.unwrap_err().reason, EditReason::TooLarge { .. }));
    let stamp = Stamp { message: Some(" ".repeat((1 << 20) + 1)), ..STAMP };
    let (_, made) = document(&json!({ "a": 1 })).edit(&merge(&json!({ "a": 2 })), &stamp).unwrap();
    assert!(matches!(made.unwrap_err().reason, EditReason::TooLarge { .. }));
}

#[test]
fn the_stamp_is_on_the_change() {
    let stamp = Stamp { message: Some("why".to_owned()), ..STAMP };
    let (document, made) = document(&json!({ "a": 1 })).edit(&merge(&json!({ "a": 2 })), &stamp).unwrap();
    let made = made.unwrap().unwrap();
    let changes = document.changes_meta(&[], 10, None).unwrap();
    let change = changes.last().unwrap();
    assert_eq!((change.hash, change.seq, change.ops, change.time), (made.hash, 2, 1, STAMP.time));
    assert_eq!(change.message.as_deref(), Some("why"));
    assert_eq!(change.actor, "07".repeat(16));
    assert_eq!(change.deps, [changes[0].hash]);
    assert_eq!(change.chunk.len(), made.chunk.len());
}
#[test]
fn a_large_edit_that_fails_leaves_nothing() {
    let (before, text) = (everything(), "x".repeat(UNDO_OPS_MAX));
    for last in [json!({ "op": "test", "path": "/a", "value": 1 }), json!({ "op": "remove", "path": "/a" })] {
        let operations = json!([{ "op": "add", "path": "/a", "value": text }, last]);
        let (document, made) = edited(before.clone(), &patch(&operations));
        assert_eq!(made.is_err(), last["op"] == "test");
        let (document, made) = edited(document, &merge(&json!({ "b": 1 })));
        made.unwrap().unwrap();
        assert_eq!(json(&document)["b"], 1);
    }
}

/// How many operations it takes.
fn ops(document: &Materialised, edit: &Edit) -> u64 {
    let before = document.heads();
    let (document, made) = edited(document.clone(), edit);
    made.unwrap();
    document.changes_meta(&before, 10, None).unwrap().iter().map(|change| change.ops).sum()
}

#[test]
fn only_what_differs_is_edited() {
    let item = |id: usize, done: bool| json!({ "id": id, "title": "some title", "done": done });
    let all = |done: fn(usize) -> bool| (0..1_000).map(|id| item(id, done(id))).collect::<Vec<_>>();
    let list = document(&json!({ "list": all(|_| false), "text": "one two three" }));
    let set_list = |items: Vec<Json>| merge(&json!({ "list": items }));
    assert_eq!(ops(&list, &set_list(all(|id| id % 999 == 0))), 2);
    assert_eq!(ops(&list, &set_list(all(|_| true))), 1_000);
    let even = || (0..500).map(|id| item(2 * id, false)).collect::<Vec<_>>();
    assert_eq!(ops(&list, &set_list(even())), 500);
    // Too many differ for each to be compared with each, but they say what they are about.
    let even_and_done = (0..500).map(|id| item(2 * id, true)).collect();
    assert_eq!(ops(&list, &set_list(even_and_done)), 1_000);
    assert_eq!(ops(&list, &merge(&json!({ "text": "one 2 three!" }))), 3 + 1 + 1);
    // Without anything that says so, the most alike are taken.
    let alike = document(&json!({ "a": [{ "t": "milk", "n": 1, "x": 0 }, { "t": "eggs", "n": 1, "x": 0 }] }));
    assert_eq!(ops(&alike, &merge(&json!({ "a": [{ "t": "eggs", "n": 2, "x": 0 }] }))), 1 + 1);
}

#[test]
fn a_text_that_would_lose_its_marks_or_blocks_is_neither_moved_nor_copied() {
    use automerge::marks::{ExpandMark, Mark};
    let mut rich = AutoCommit::new();
    let list = rich.put_object(ROOT, "list", ObjType::List).unwrap();
    let marked = rich.insert_object(&list, 0, ObjType::Text).unwrap();
    rich.splice_text(&marked, 0, 0, "bold").unwrap();
    let bold = Mark::new("bold".to_owned(), true, 0, 4);
    rich.mark(&marked, bold, ExpandMark::Both).unwrap();
    let blocks = rich.put_object(ROOT, "blocks", ObjType::Text).unwrap();
    rich.splice_text(&blocks, 0, 0, "one").unwrap();
    rich.split_block(&blocks, 0).unwrap();
    let mut document = Materialised::load(&Bytes::from(rich.save())).unwrap();
    for from in ["/list", "/list/0", "/blocks", ""] {
        for op in ["copy", "move"] {
            let (back, made) = edited(document, &patch(&json!([{ "op": op, "from": from, "path": "/to" }])));
            document = back;
            // The whole document cannot be moved into itself in any case.
            let is_rich =
                matches!(made.unwrap_err().reason, EditReason::WrongType(text) if text.contains("marks"));
            assert_eq!(is_rich, !(op == "move" && from.is_empty()), "{op} {from}");
        }
    }
}
