//! Edits as JSON, by property: they do what the standards say, and what people do at the same time is not lost.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use highwater_core::document::Restoring;
use highwater_core::{DocumentId, Edit, EditError, MadeChange, Materialised, Stamp, change};
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

const STAMP: Stamp = Stamp { actor: [7; 16], message: None, time: 0 };
const KEYS: [&str; 6] = ["a", "b", "c", "id", "~", "x/y"];

fn document(json: &Json) -> Materialised {
    edited(Materialised::default(), &set(json)).0
}

fn set(json: &Json) -> Edit {
    Edit::set(json.to_string().as_bytes()).unwrap()
}

/// Edits, and checks that the change is one for the gate and for other copies.
fn edited(document: Materialised, edit: &Edit) -> (Materialised, Result<Option<MadeChange>, EditError>) {
    let before = document.clone();
    let (document, made) = document.edit(edit, &STAMP).unwrap();
    match &made {
        Ok(Some(made)) => {
            assert_eq!(change::Change::parse(made.chunk.clone()).unwrap().hash, made.hash);
            let other = before.extended(std::slice::from_ref(&made.chunk)).unwrap();
            assert_eq!(other.to_json(None), document.to_json(None));
            assert_eq!(document.heads(), [made.hash]);
            check_gate(&document);
        }
        Ok(None) | Err(_) => assert_eq!(document.save(), before.save()),
    }
    (document, made)
}

fn check_gate(document: &Materialised) {
    let mut gate = Restoring::new(DocumentId::from_bytes([5; 16]), []);
    let changes = document.changes_meta(&[], usize::MAX, None).unwrap();
    let hashes: Vec<_> = changes.iter().map(|change| change.hash).collect();
    let mut chunks = document.changes(&hashes).unwrap();
    chunks.sort_by_key(|(hash, _)| hashes.iter().position(|other| other == hash));
    for (_, chunk) in chunks {
        gate.add(chunk).unwrap();
    }
    assert_eq!(gate.finish().heads(), document.heads());
}

/// Whether an integer is the same number: a counter that is set to it counts to that.
fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < (1u64 << 63) as f64
}

/// As JSON compares numbers.
fn plain(json: &Json) -> Json {
    match json {
        Json::Number(number) if number.as_f64().is_some_and(is_whole) => {
            (number.as_f64().unwrap() as i64).into()
        }
        Json::Array(items) => items.iter().map(plain).collect(),
        Json::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{0,12}", "[aä👋\n ]{0,8}"]
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-3i64..3).prop_map(Json::from),
        Just(json!(0.5)),
        Just(json!(1.0)),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Json::from),
        text().prop_map(Json::from),
        (-3i64..3).prop_map(|count| json!({ "$counter": count })),
        Just(json!({ "$bytes": "AQ==" })),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from), object_of(inner),]
    })
}

fn object_of(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    prop::collection::btree_map(key(), value, 0..5)
        .prop_map(|entries| Json::from(entries.into_iter().collect::<Map<_, _>>()))
}

fn object() -> impl Strategy<Value = Json> {
    object_of(value())
}

/// Values as JSON Patch knows them, which has no counters.
fn without_forms(json: Json) -> Json {
    match json {
        Json::Object(entries) if entries.keys().any(|key| key.starts_with('$')) => Json::Null,
        Json::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, without_forms(value))).collect::<Map<_, _>>().into()
        }
        Json::Array(items) => items.into_iter().map(without_forms).collect(),
        other => other,
    }
}

/// An operation before it is known what it is applied to.
#[derive(Debug, Clone)]
struct Draft {
    name: &'static str,
    path: (usize, String),
    from: (usize, String),
    value: Json,
}

impl Draft {
    fn on(&self, json: &Json) -> Json {
        let mut pointers = Vec::new();
        collect(json, "", &mut pointers);
        // Where something is, or below that; and now and then anywhere.
        let pointer = |(seed, below): &(usize, String)| match pointers.get(seed % (pointers.len() + 1)) {
            Some(pointer) if seed % 3 > 0 => pointer.clone(),
            Some(pointer) => format!("{pointer}/{below}"),
            None => format!("/{below}"),
        };
        let (path, from) = (pointer(&self.path), pointer(&self.from));
        match self.name {
            "remove" => json!({ "op": "remove", "path": path }),
            "move" | "copy" => json!({ "op": self.name, "from": from, "path": path }),
            "test" if self.path.0.is_multiple_of(2) => {
                json!({ "op": "test", "path": path, "value": json.pointer(&path) })
            }
            name => json!({ "op": name, "path": path, "value": self.value }),
        }
    }
}

/// The pointers to all that is in a value.
fn collect(json: &Json, at: &str, pointers: &mut Vec<String>) {
    let mut below = |token: &str, inner: &Json| {
        let pointer = format!("{at}/{}", token.replace('~', "~0").replace('/', "~1"));
        pointers.push(pointer.clone());
        collect(inner, &pointer, pointers);
    };
    match json {
        Json::Object(entries) => entries.iter().for_each(|(key, value)| below(key, value)),
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| below(&place.to_string(), item))
        }
        _ => {}
    }
}

fn draft() -> impl Strategy<Value = Draft> {
    let name =
        prop::sample::select(vec!["add", "add", "remove", "replace", "replace", "move", "copy", "test"]);
    let token = || prop_oneof![3 => prop::sample::select(vec!["a", "b", "id", "~0", "x~1y", "-"]).prop_map(str::to_owned), 2 => (0usize..4).prop_map(|place| place.to_string())];
    let pointer = || (any::<usize>(), token());
    (name, pointer(), pointer(), value().prop_map(without_forms))
        .prop_map(|(name, path, from, value)| Draft { name, path, from, value })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_set_is_read(value in object()) {
        let document = document(&value);
        prop_assert_eq!(document.to_json(None).unwrap(), value.clone());
        let (_, made) = edited(document, &set(&value));
        prop_assert_eq!(made, Ok(None));
    }

    #[test]
    fn what_is_set_over_something_else_is_read(before in object(), after in object()) {
        let (document, made) = edited(document(&before), &set(&after));
        prop_assert!(made.is_ok());
        // A number that is set over a counter counts on.
        let strip = |json: &Json| plain(&counters_as_numbers(json));
        prop_assert_eq!(strip(&document.to_json(None).unwrap()), strip(&after));
    }

    #[test]
    fn a_list_becomes_another(before in prop::collection::vec(value(), 0..12), after in prop::collection::vec(value(), 0..12)) {
        let (document, made) = edited(document(&json!({ "a": before })), &set(&json!({ "a": after })));
        prop_assert!(made.is_ok());
        let strip = |json: &Json| plain(&counters_as_numbers(json));
        prop_assert_eq!(strip(&document.to_json(None).unwrap()["a"]), strip(&after.into()));
    }

    #[test]
    fn a_text_becomes_another(before in "[abc\n👋]{0,60}", after in "[abc\n👋]{0,60}") {
        let (document, made) = edited(document(&json!({ "a": before })), &set(&json!({ "a": after.clone() })));
        prop_assert_eq!(made.unwrap().is_some(), before != after);
        prop_assert_eq!(&document.to_json(None).unwrap()["a"], &Json::from(after));
    }

    #[test]
    fn json_patch_does_what_the_standard_says(before in object(), drafts in prop::collection::vec(draft(), 1..12)) {
        let mut wanted = without_forms(before);
        let mut document = document(&wanted);
        for draft in drafts {
            let operation = draft.on(&wanted);
            let (expected, is_ok) = by_the_standard(&wanted, json!([operation]));
            let edit = Edit::json_patch(json!([operation]).to_string().as_bytes()).unwrap();
            let (next, made) = edited(document, &edit);
            document = next;
            prop_assert_eq!(made.is_ok(), is_ok, "{} on {}: {:?}", operation, wanted, made);
            wanted = expected;
            prop_assert_eq!(plain(&document.to_json(None).unwrap()), plain(&wanted), "{}", operation);
        }
    }

    #[test]
    fn a_patch_is_made_whole_or_not_at_all(before in object(), drafts in prop::collection::vec(draft(), 1..6)) {
        let before = without_forms(before);
        let (mut operations, mut wanted) = (Vec::new(), before.clone());
        for draft in &drafts {
            let operation = draft.on(&wanted);
            wanted = by_the_standard(&wanted, json!([operation])).0;
            operations.push(operation);
        }
        let (wanted, is_ok) = by_the_standard(&before, operations.clone().into());
        let edit = Edit::json_patch(Json::from(operations).to_string().as_bytes()).unwrap();
        let (document, made) = edited(document(&before), &edit);
        prop_assert_eq!(made.is_ok(), is_ok);
        prop_assert_eq!(plain(&document.to_json(None).unwrap()), plain(&wanted));
    }

    #[test]
    fn merge_patch_does_what_the_standard_says(before in object(), changes in object()) {
        let (before, changes) = (without_forms(before), without_forms(changes));
        let mut wanted = before.clone();
        json_patch::merge(&mut wanted, &changes);
        let edit = Edit::merge_patch(changes.to_string().as_bytes()).unwrap();
        let (document, made) = edited(document(&before), &edit);
        prop_assert!(made.is_ok());
        prop_assert_eq!(plain(&document.to_json(None).unwrap()), plain(&wanted));
    }
}

/// What a patch makes of a value, and whether it does. RFC 6902 has numbers equal that are equal as numbers,
/// json_patch those that are written alike: so both are given as [`plain`] ones.
fn by_the_standard(before: &Json, operations: Json) -> (Json, bool) {
    let patch: json_patch::Patch = serde_json::from_value(plain(&operations)).unwrap();
    let before = &plain(before);
    let mut after = before.clone();
    let is_ok = json_patch::patch_unsafe(&mut after, &patch).is_ok();
    (if is_ok { after } else { before.clone() }, is_ok)
}

fn counters_as_numbers(json: &Json) -> Json {
    match json {
        Json::Object(entries) => match entries.get("$counter") {
            Some(count) => count.clone(),
            None => {
                let entry = |(key, value): (&String, &Json)| (key.clone(), counters_as_numbers(value));
                entries.iter().map(entry).collect::<Map<_, _>>().into()
            }
        },
        Json::Array(items) => items.iter().map(counters_as_numbers).collect(),
        other => other.clone(),
    }
}

/// Somebody who has the document open.
struct Person(AutoCommit);

impl Person {
    fn opens(document: &Materialised) -> Self {
        Self(AutoCommit::load(&document.save().unwrap()).unwrap())
    }

    fn object(&self, key: &str) -> automerge::ObjId {
        self.0.get(ROOT, key).unwrap().unwrap().1
    }

    /// What both have after each got the other's change.
    fn meets(mut self, document: Materialised, made: Option<MadeChange>) -> Json {
        let theirs = self.0.save();
        let mine: Vec<Bytes> =
            self.0.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
        let document = document.extended(&mine).unwrap();
        let mut both = Materialised::load(&theirs.into()).unwrap();
        if let Some(made) = made {
            both = both.extended(&[made.chunk]).unwrap();
        }
        assert_eq!(both.heads(), document.heads());
        let json = document.to_json(None).unwrap();
        assert_eq!(both.to_json(None).unwrap(), json);
        check_gate(&document);
        json
    }
}

/// Numbers in a range that depends on what is there.
fn place(seed: usize, len: usize) -> usize {
    if len == 0 { 0 } else { seed % len }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every character that somebody types while the text is set stands in it afterwards, and what the text was set to stands in it too, as far as they did not
    /// delete it.
    #[test]
    fn what_is_typed_while_a_text_is_set_stays(
        before in "[ab \n]{0,40}",
        after in "[ab \nc]{0,40}",
        typed in prop::collection::vec((any::<usize>(), 0usize..3), 1..12),
    ) {
        let document = document(&json!({ "text": before }));
        let mut person = Person::opens(&document);
        let text = person.object("text");
        let mut marks = Vec::new();
        let mut deleted = 0;
        for (number, (at, delete)) in typed.into_iter().enumerate() {
            let mark = char::from_u32(0xe000 + number as u32).unwrap();
            let len = person.0.length(&text);
            let at = place(at, len + 1);
            let delete = delete.min(len - at);
            // What they typed themselves before may go again.
            let current: Vec<char> = person.0.text(&text).unwrap().chars().collect();
            marks.retain(|mark| !current[at..at + delete].contains(mark));
            deleted += delete;
            person.0.splice_text(&text, at, delete as isize, &mark.to_string()).unwrap();
            marks.push(mark);
        }
        let (document, made) = edited(document, &set(&json!({ "text": after.clone() })));
        let merged = person.meets(document, made.unwrap());
        let merged = merged["text"].as_str().unwrap();
        for mark in &marks {
            prop_assert!(merged.contains(*mark), "{merged:?} lacks {mark:?}");
        }
        if deleted == 0 {
            let kept: String = merged.chars().filter(|c| !('\u{e000}'..'\u{f000}').contains(c)).collect();
            prop_assert_eq!(kept, after);
        }
    }

    /// Elements that somebody adds while the list is set stay, and so do their edits of elements that are kept, whatever else changes in those.
    #[test]
    fn what_is_added_and_edited_while_a_list_is_set_stays(
        ids in prop::collection::btree_set(0u32..20, 0..10),
        kept in prop::collection::btree_set(0u32..20, 0..10),
        added in prop::collection::vec(any::<usize>(), 0..4),
        done in any::<bool>(),
    ) {
        let item = |id: &u32, done: bool| json!({ "id": id, "title": "some title", "done": done });
        let before: Vec<Json> = ids.iter().map(|id| item(id, false)).collect();
        let document = document(&json!({ "list": before }));
        let mut person = Person::opens(&document);
        let list = person.object("list");
        for place in 0..ids.len() {
            let id = person.0.get(&list, place).unwrap().unwrap().1;
            let title = person.0.get(&id, "title").unwrap().unwrap().1;
            person.0.splice_text(&title, 4, 0, " nice").unwrap();
        }
        for (number, at) in added.iter().enumerate() {
            let len = person.0.length(&list);
            let id = person.0.insert_object(&list, place(*at, len + 1), ObjType::Map).unwrap();
            person.0.put(&id, "id", 100 + number as i64).unwrap();
        }
        let after: Vec<Json> = kept.iter().map(|id| item(id, done)).collect();
        let (document, made) = edited(document, &set(&json!({ "list": after })));
        let merged = person.meets(document, made.unwrap());
        let merged = merged["list"].as_array().unwrap();
        let of = |id: u32| merged.iter().find(|item| item["id"] == id);
        for number in 0..added.len() as u32 {
            prop_assert!(of(100 + number).is_some());
        }
        for id in &kept {
            let item = of(*id).unwrap();
            let title = if ids.contains(id) { "some nice title" } else { "some title" };
            prop_assert_eq!(&item["title"], title);
            prop_assert_eq!(&item["done"], done);
        }
        prop_assert_eq!(merged.len(), kept.len() + added.len());
    }

    /// Counters that both count, and keys that somebody sets beside those that are patched.
    #[test]
    fn what_is_counted_and_set_while_a_map_is_set_stays(by in -5i64..5, to in -5i64..5) {
        let document = document(&json!({ "n": { "$counter": 1 }, "map": { "a": 1 } }));
        let mut person = Person::opens(&document);
        person.0.increment(ROOT, "n", by).unwrap();
        let map = person.object("map");
        person.0.put(&map, "b", 2).unwrap();
        person.0.put(ROOT, "c", 3).unwrap();
        let after = json!({ "n": to, "map": { "a": 5, "d": 6 } });
        let (document, made) = edited(document, &set(&after));
        let merged = person.meets(document, made.unwrap());
        prop_assert_eq!(merged, json!({ "n": { "$counter": to + by }, "map": { "a": 5, "b": 2, "d": 6 }, "c": 3 }));
    }
}
