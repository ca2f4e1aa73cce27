//! Reading documents as JSON: now, earlier, what differs, and what is there twice.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use highwater_core::limits::{CONFLICTS_BYTES_MAX, PATCHES_BYTES_MAX};
use highwater_core::{ChangeHash, Edit, Materialised, ReadError, Stamp};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

fn edited(document: Materialised, actor: u8, json: &Json) -> Materialised {
    let stamp = Stamp { actor: [actor; 16], message: None, time: 0 };
    let (document, made) = document.edit(&Edit::set(json.to_string().as_bytes()).unwrap(), &stamp).unwrap();
    made.unwrap();
    document
}

fn changes(document: &Materialised) -> Vec<bytes::Bytes> {
    let hashes: Vec<_> =
        document.changes_meta(&[], usize::MAX, None).unwrap().iter().map(|change| change.hash).collect();
    document.changes(&hashes).unwrap().into_iter().map(|(_, chunk)| chunk).collect()
}

/// Does what a patch says to a value, as its reader would.
fn apply(json: &mut Json, patch: &Json) {
    let path = patch["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let key = last.replace("~1", "/").replace("~0", "~");
    let place = || last.parse::<usize>().unwrap();
    let parent = json.pointer_mut(parent).unwrap();
    match (patch["action"].as_str().unwrap(), parent) {
        ("put", Json::Object(entries)) => drop(entries.insert(key, patch["value"].clone())),
        ("put", Json::Array(items)) => items[place()] = patch["value"].clone(),
        ("insert", Json::Array(items)) => {
            items.splice(place()..place(), patch["values"].as_array().unwrap().iter().cloned());
        }
        ("delete", Json::Object(entries)) => drop(entries.remove(&key).unwrap()),
        ("delete", Json::Array(items)) => drop(items.drain(place()..place() + length(patch))),
        ("delete", Json::String(text)) => splice(text, place(), length(patch), ""),
        ("splice", Json::String(text)) => splice(text, place(), 0, patch["value"].as_str().unwrap()),
        ("increment", Json::Object(entries)) => count(&mut entries[&key], patch),
        ("increment", Json::Array(items)) => count(&mut items[place()], patch),
        ("conflict", _) => {}
        (_, parent) => panic!("{patch} on {parent}"),
    }
}

fn length(patch: &Json) -> usize {
    patch.get("length").map_or(1, |length| length.as_u64().unwrap() as usize)
}

fn splice(text: &mut String, at: usize, delete: usize, insert: &str) {
    let mut chars: Vec<char> = text.chars().collect();
    chars.splice(at..at + delete, insert.chars());
    *text = chars.into_iter().collect();
}

fn count(json: &mut Json, patch: &Json) {
    let counter = &mut json["$counter"];
    *counter = (counter.as_i64().unwrap() + patch["value"].as_i64().unwrap()).into();
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        (-3i64..3).prop_map(Json::from),
        "[ab👋]{0,8}".prop_map(Json::from),
        (-3i64..3).prop_map(|count| json!({ "$counter": count })),
    ];
    leaf.prop_recursive(3, 16, 5, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from), object_of(inner)]
    })
}

fn object_of(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::btree_map("[abc~/]", value, 0..5)
        .prop_map(|entries| Json::from(entries.into_iter().collect::<Map<_, _>>()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Between any two states of a document, also such that were made at the same time.
    #[test]
    fn the_difference_makes_one_state_of_another(
        states in prop::collection::vec((object_of(value()), any::<bool>()), 2..6),
    ) {
        let mut document = edited(Materialised::default(), 1, &json!({}));
        let mut heads: Vec<Vec<ChangeHash>> = vec![Vec::new()];
        let mut other = document.clone();
        for (state, is_other) in states {
            if is_other {
                other = edited(other, 2, &state);
                document = document.extended(&changes(&other)).unwrap();
            } else {
                document = edited(document, 1, &state);
            }
            heads.push(document.heads());
        }
        for from in &heads {
            let before = document.to_json(Some(from)).unwrap();
            for to in &heads {
                let patches = document.diff(from, to).unwrap();
                let mut after = before.clone();
                for patch in &patches {
                    apply(&mut after, &serde_json::to_value(patch).unwrap());
                }
                prop_assert_eq!(after, document.to_json(Some(to)).unwrap(), "{:?}", patches);
            }
            let saved = Materialised::load(&document.save_at(from).unwrap()).unwrap();
            prop_assert_eq!(&saved.heads(), from);
            prop_assert_eq!(saved.to_json(None).unwrap(), before);
        }
    }
}

#[test]
fn heads_that_are_unknown_are_told() {
    let document = edited(Materialised::default(), 1, &json!({ "a": 1 }));
    let heads = [document.heads()[0], ChangeHash([9; 32])];
    let unknown = ReadError::UnknownHeads(heads[1]);
    assert_eq!(document.to_json(Some(&heads)), Err(unknown.clone()));
    assert_eq!(document.conflicts(Some(&heads)), Err(unknown.clone()));
    assert_eq!(document.save_at(&heads), Err(unknown.clone()));
    assert_eq!(document.diff(&heads, &[]), Err(unknown.clone()));
    assert_eq!(document.diff(&[], &heads), Err(unknown.clone()));
    assert_eq!(document.changes_meta(&heads, 1, None), Err(unknown.clone()));
    assert_eq!(document.changes_meta(&[], 1, Some(heads[1])), Err(unknown));
}

/// What two people put at one place at the same time.
#[test]
fn conflicts_are_shown_with_all_their_values() {
    let base = edited(Materialised::default(), 1, &json!({ "a": { "x/y": 1 }, "list": [0, { "b": 1 }] }));
    let one = edited(base.clone(), 2, &json!({ "a": { "x/y": 2 }, "list": [0, { "b": 2 }], "new": "text" }));
    let two = edited(base, 3, &json!({ "a": { "x/y": 3 }, "list": [5, { "b": 3 }], "new": { "c": [] } }));
    let both = one.clone().extended(&changes(&two)).unwrap();
    let (actor_one, actor_two) = ("02".repeat(16), "03".repeat(16));
    let conflicts = both.conflicts(None).unwrap();
    let values = |place: &str| {
        let mut values: Vec<_> = conflicts[place].as_object().unwrap().iter().collect();
        values.sort_by_key(|(id, _)| id.split_once('@').unwrap().1.to_owned());
        let actors: Vec<&str> = values.iter().map(|(id, _)| id.split_once('@').unwrap().1).collect();
        assert_eq!(actors, [&actor_one, &actor_two]);
        values.into_iter().map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("/a/x~1y"), [json!(2), json!(3)]);
    assert_eq!(values("/list/1/b"), [json!(2), json!(3)]);
    assert_eq!(values("/new"), [json!("text"), json!({ "c": [] })]);
    assert_eq!(conflicts.as_object().unwrap().len(), 3);
    assert_eq!(one.conflicts(None), Ok(json!({})));
    assert_eq!(both.conflicts(Some(&one.heads())), Ok(json!({})));
    // Whoever sets a place settles it.
    let settled = edited(both, 2, &json!({ "a": { "x/y": 4 }, "list": [5, { "b": 4 }], "new": 1 }));
    assert_eq!(settled.conflicts(None), Ok(json!({})));
}

#[test]
fn what_would_repeat_long_paths_too_often_is_refused() {
    let key = "k".repeat(64 << 10);
    let items = |n: i64| vec![n; 10_000];
    let one = edited(Materialised::default(), 1, &json!({ &key: items(1) }));
    let large = |max| Err(ReadError::TooLarge { max });
    assert_eq!(one.diff(&[], &one.heads()).map(drop), large(PATCHES_BYTES_MAX));
    assert_eq!(one.diff(&one.heads(), &[]).map(drop), large(PATCHES_BYTES_MAX));
    let two = edited(one.clone(), 2, &json!({ &key: items(2) }));
    let three = edited(one, 3, &json!({ &key: items(3) }));
    let both = two.extended(&changes(&three)).unwrap();
    assert_eq!(both.conflicts(None).map(drop), large(CONFLICTS_BYTES_MAX));
    assert!(both.to_json(None).is_ok());
    // What counts is what can differ, and a text that is there before and after is not there once for each character.
    let text = edited(Materialised::default(), 1, &json!({ "a": { "b": "x".repeat(400_000) } }));
    let before = text.heads();
    let text = edited(text, 1, &json!({ "a": { "b": format!("{}y", "x".repeat(400_000)) } }));
    assert_eq!(text.diff(&before, &text.heads()).unwrap().len(), 1);
    assert_eq!(text.diff(&[], &text.heads()).unwrap().len(), 3);
}

#[test]
fn changes_are_told_page_by_page_in_order() {
    let mut document = edited(Materialised::default(), 1, &json!({ "n": 0 }));
    let mut other = document.clone();
    for n in 1..10 {
        document = edited(document, 1, &json!({ "n": n }));
        other = edited(other, 2, &json!({ "n": n }));
        document = document.extended(&changes(&other)).unwrap();
    }
    let all = document.changes_meta(&[], usize::MAX, None).unwrap();
    assert_eq!(all.len(), 19);
    for (place, change) in all.iter().enumerate() {
        for dep in &change.deps {
            assert!(all[..place].iter().any(|earlier| earlier.hash == *dep));
        }
    }
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = document.changes_meta(&[], 4, after).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.hash);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let since = document.changes_meta(&other.heads(), usize::MAX, None).unwrap();
    assert!(since.iter().all(|change| change.actor == "01".repeat(16)));
    assert_eq!(document.changes_meta(&document.heads(), 4, None), Ok(vec![]));
}

#[test]
fn blocks_and_marks_of_texts_are_shown_in_differences() {
    let mut client = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let text = client.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
    client.splice_text(&text, 0, 0, "bold and not").unwrap();
    let before = client.get_heads();
    let mark = automerge::marks::Mark::new("bold".to_owned(), true, 0, 4);
    client.mark(&text, mark, automerge::marks::ExpandMark::None).unwrap();
    let block = client.split_block(&text, 5).unwrap();
    client.put(&block, "type", "heading").unwrap();
    assert_eq!(client.text(&text).unwrap(), "bold \u{fffc}and not");
    let document = Materialised::load(&client.save().into()).unwrap();
    assert_eq!(document.to_json(None), Ok(json!({ "text": "bold \u{fffc}and not" })));
    let before: Vec<ChangeHash> = before.iter().map(|head| ChangeHash(head.0)).collect();
    let patches = serde_json::to_value(document.diff(&before, &document.heads()).unwrap()).unwrap();
    let marks = json!([{ "name": "bold", "value": true, "start": 0, "end": 4 }]);
    let mark = json!({ "action": "mark", "path": "/text", "marks": marks });
    assert!(patches.as_array().unwrap().contains(&mark), "{patches}");
    let block = json!({ "action": "put", "path": "/text/5/type", "value": "heading" });
    assert!(patches.as_array().unwrap().contains(&block), "{patches}");
    // A text that is set keeps the blocks that are in what it is set to, and the marks of what stays.
    let document = edited(document, 2, &json!({ "text": "bold \u{fffc}and not so" }));
    assert_eq!(
        serde_json::to_value(document.diff(&[], &document.heads()).unwrap()).unwrap()[1]["marks"]["bold"],
        true
    );
}
