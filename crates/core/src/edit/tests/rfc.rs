//! The examples of the standards.

use super::*;

/// RFC 6902, appendix A: the document, the patch, and what comes out of it.
#[test]
fn json_patch_examples() {
    for (name, before, operations, after) in [
        (
            "A.1. adding an object member",
            json!({ "foo": "bar" }),
            json!([{ "op": "add", "path": "/baz", "value": "qux" }]),
            json!({ "baz": "qux", "foo": "bar" }),
        ),
        (
            "A.2. adding an array element",
            json!({ "foo": ["bar", "baz"] }),
            json!([{ "op": "add", "path": "/foo/1", "value": "qux" }]),
            json!({ "foo": ["bar", "qux", "baz"] }),
        ),
        (
            "A.3. removing an object member",
            json!({ "baz": "qux", "foo": "bar" }),
            json!([{ "op": "remove", "path": "/baz" }]),
            json!({ "foo": "bar" }),
        ),
        (
            "A.4. removing an array element",
            json!({ "foo": ["bar", "qux", "baz"] }),
            json!([{ "op": "remove", "path": "/foo/1" }]),
            json!({ "foo": ["bar", "baz"] }),
        ),
        (
            "A.5. replacing a value",
            json!({ "baz": "qux", "foo": "bar" }),
            json!([{ "op": "replace", "path": "/baz", "value": "boo" }]),
            json!({ "baz": "boo", "foo": "bar" }),
        ),
        (
            "A.6. moving a value",
            json!({ "foo": { "bar": "baz", "waldo": "fred" }, "qux": { "corge": "grault" } }),
            json!([{ "op": "move", "from": "/foo/waldo", "path": "/qux/thud" }]),
            json!({ "foo": { "bar": "baz" }, "qux": { "corge": "grault", "thud": "fred" } }),
        ),
        (
            "A.7. moving an array element",
            json!({ "foo": ["all", "grass", "cows", "eat"] }),
            json!([{ "op": "move", "from": "/foo/1", "path": "/foo/3" }]),
            json!({ "foo": ["all", "cows", "eat", "grass"] }),
        ),
        (
            "A.8. testing a value: success",
            json!({ "baz": "qux", "foo": ["a", 2, "c"] }),
            json!([
                { "op": "test", "path": "/baz", "value": "qux" },
                { "op": "test", "path": "/foo/1", "value": 2 },
            ]),
            json!({ "baz": "qux", "foo": ["a", 2, "c"] }),
        ),
        (
            "A.10. adding a nested member object",
            json!({ "foo": "bar" }),
            json!([{ "op": "add", "path": "/child", "value": { "grandchild": {} } }]),
            json!({ "foo": "bar", "child": { "grandchild": {} } }),
        ),
        (
            "A.11. ignoring unrecognized elements",
            json!({ "foo": "bar" }),
            json!([{ "op": "add", "path": "/baz", "value": "qux", "xyz": 123 }]),
            json!({ "foo": "bar", "baz": "qux" }),
        ),
        (
            "A.14. ~ escape ordering",
            json!({ "/": 9, "~1": 10 }),
            json!([{ "op": "test", "path": "/~01", "value": 10 }]),
            json!({ "/": 9, "~1": 10 }),
        ),
        (
            "A.16. adding an array value",
            json!({ "foo": ["bar"] }),
            json!([{ "op": "add", "path": "/foo/-", "value": ["abc", "def"] }]),
            json!({ "foo": ["bar", ["abc", "def"]] }),
        ),
    ] {
        let (after_edit, made) = edited(document(&before), &patch(&operations));
        assert!(made.is_ok(), "{name}: {made:?}");
        assert_eq!(json(&after_edit), after, "{name}");
    }
}

#[test]
fn json_patch_examples_that_fail() {
    for (name, before, operation, reason) in [
        (
            "A.9. testing a value: error",
            json!({ "baz": "qux" }),
            json!({ "op": "test", "path": "/baz", "value": "bar" }),
            EditReason::TestFailed,
        ),
        (
            "A.12. adding to a nonexistent target",
            json!({ "foo": "bar" }),
            json!({ "op": "add", "path": "/baz/bat", "value": "qux" }),
            EditReason::NoSuchPath,
        ),
        (
            "A.15. comparing strings and numbers",
            json!({ "/": 9, "~1": 10 }),
            json!({ "op": "test", "path": "/~01", "value": "10" }),
            EditReason::TestFailed,
        ),
    ] {
        let (_, made) = edited(document(&before), &patch(&json!([operation])));
        assert_eq!(made.unwrap_err().reason, reason, "{name}");
    }
    // A.13. invalid JSON Patch document: a member is there twice, and either of them is not the one that was meant.
    let twice = br#"[{ "op": "add", "path": "/baz", "value": "qux", "op": "remove" }]"#;
    let (_, made) = edited(document(&json!({ "foo": "bar" })), &Edit::json_patch(twice).unwrap());
    assert_eq!(made.unwrap_err().reason, EditReason::NoSuchPath);
}

/// RFC 7386, appendix A: the original, the patch, and the result. A document is an object, so those that are something else stand in one.
#[test]
fn merge_patch_examples() {
    for (original, changes, result) in [
        (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
        (json!({ "a": "b" }), json!({ "b": "c" }), json!({ "a": "b", "b": "c" })),
        (json!({ "a": "b" }), json!({ "a": null }), json!({})),
        (json!({ "a": "b", "b": "c" }), json!({ "a": null }), json!({ "b": "c" })),
        (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
        (json!({ "a": "c" }), json!({ "a": ["b"] }), json!({ "a": ["b"] })),
        (json!({ "a": { "b": "c" } }), json!({ "a": { "b": "d", "c": null } }), json!({ "a": { "b": "d" } })),
        (json!({ "a": [{ "b": "c" }] }), json!({ "a": [1] }), json!({ "a": [1] })),
        (json!({ "x": ["a", "b"] }), json!({ "x": ["c", "d"] }), json!({ "x": ["c", "d"] })),
        (json!({ "x": { "a": "b" } }), json!({ "x": ["c"] }), json!({ "x": ["c"] })),
        (json!({ "x": { "a": "foo" } }), json!({ "x": null }), json!({})),
        (json!({ "x": { "a": "foo" } }), json!({ "x": "bar" }), json!({ "x": "bar" })),
        (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
        (json!({ "x": [1, 2] }), json!({ "x": { "a": "b", "c": null } }), json!({ "x": { "a": "b" } })),
        (json!({ "k": 1 }), json!({ "a": { "bb": { "ccc": null } } }), json!({ "k": 1, "a": { "bb": {} } })),
    ] {
        let (after, made) = edited(document(&original), &merge(&changes));
        assert!(made.is_ok(), "{original} with {changes}: {made:?}");
        assert_eq!(json(&after), result, "{original} with {changes}");
    }
    for changes in [json!(["c"]), json!(null), json!("bar"), json!({ "$counter": 1 })] {
        let error = Edit::merge_patch(changes.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error.reason, EditReason::Invalid(_)), "{changes}: {error}");
    }
}
