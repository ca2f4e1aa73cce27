//! The documents API over HTTP: reading, making and editing documents as JSON. Whatever is answered is durable, and merges with what people do.

mod common;

use std::sync::{Arc, Mutex};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use bytes::Bytes;
use common::*;
use futures::future::join_all;
use highwater_core::DocumentId;
use highwater_core::change::Change;
use highwater_server::{Config, OpenStore};
use highwater_storage::{FaultyStore, MemoryStore, Pace, Store};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");
const PATCH: (&str, &str) = ("content-type", "application/json-patch+json");
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
const AUTOMERGE: (&str, &str) = ("content-type", "application/vnd.automerge");

async fn memory_server() -> TestServer {
    TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await
}

async fn server_on(store: &FaultyStore) -> TestServer {
    TestServer::start(config(), always(Arc::new(store.clone()))).await
}

fn path(id: DocumentId) -> String {
    format!("/v1/docs/{id}")
}

impl TestServer {
    async fn put(&self, id: DocumentId, value: Value) -> Answer {
        self.http("PUT", &path(id), &[JSON], value.to_string().as_bytes()).await
    }

    async fn patch(&self, id: DocumentId, headers: &[(&str, &str)], patch: Value) -> Answer {
        let headers = [&[PATCH], headers].concat();
        self.http("PATCH", &path(id), &headers, patch.to_string().as_bytes()).await
    }

    async fn read(&self, id: DocumentId) -> Answer {
        self.http("GET", &path(id), &[], b"").await
    }

    async fn value(&self, id: DocumentId) -> Value {
        self.read(id).await.ok(200).json()
    }
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    patiently(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the store has been asked for writes that are not done.
async fn in_flight(store: &FaultyStore) {
    until(|| store.in_flight() > 0).await;
}

/// A store that is opened, and opened again after a power cut that so many of the writes under way survive.
fn store_with_power_cuts(kept: usize) -> (Arc<Mutex<FaultyStore>>, OpenStore) {
    let current = Arc::new(Mutex::new(FaultyStore::new(Pace::Immediate)));
    let opener = current.clone();
    let open: OpenStore = Arc::new(move || {
        let mut store = opener.lock().unwrap();
        *store = store.power_cut_keeping(kept);
        Ok(Arc::new(store.clone()) as Arc<dyn Store>)
    });
    (current, open)
}

#[tokio::test]
async fn a_document_is_made_read_edited_and_read_at_earlier_heads() {
    let server = memory_server().await;
    let text = json!({ "title": "Hello", "n": 1, "list": [1, 2], "count": { "$counter": 3 } });
    let made =
        server.http("POST", "/v1/docs?message=first", &[JSON], text.to_string().as_bytes()).await.ok(201);
    let (id, first) = (made.json()["id"].as_str().unwrap().to_owned(), made.json()["heads"][0].clone());
    assert_eq!(made.json()["url"], format!("automerge:{id}"));
    assert_eq!(made.header("location"), Some(&*format!("/v1/docs/{id}")));
    let first = first.as_str().unwrap();
    assert_eq!(made.header("etag"), Some(&*format!("\"{first}\"")));
    let id: DocumentId = id.parse().unwrap();
    let read = server.read(id).await.ok(200);
    assert_eq!((read.json(), read.header("etag")), (text.clone(), made.header("etag")));

    let patch = json!([
        { "op": "test", "path": "/n", "value": 1 },
        { "op": "replace", "path": "/title", "value": "Hello, world" },
        { "op": "increment", "path": "/count", "by": 2 },
        { "op": "splice", "path": "/list", "index": 1, "delete": 0, "insert": ["x"] },
    ]);
    let edited = server.patch(id, &[], patch).await.ok(200);
    let second = edited.json()["hash"].as_str().unwrap().to_owned();
    assert_eq!(edited.json()["heads"], json!([second]));
    let wanted = json!({ "title": "Hello, world", "n": 1, "list": [1, "x", 2], "count": { "$counter": 5 } });
    assert_eq!(server.value(id).await, wanted);
    let then = server.http("GET", &format!("{}?heads={first}", path(id)), &[], b"").await.ok(200);
    assert_eq!((then.json(), then.header("etag")), (text, made.header("etag")));

    let merge = json!({ "n": null, "more": { "a": true } }).to_string();
    let headers = [MERGE, ("prefer", "return=representation")];
    let merged = server.http("PATCH", &path(id), &headers, merge.as_bytes()).await.ok(200);
    assert_eq!(merged.header("preference-applied"), Some("return=representation"));
    assert!(merged.header("highwater-change").is_some());
    let wanted = json!({ "title": "Hello, world", "more": { "a": true }, "list": [1, "x", 2], "count": { "$counter": 5 } });
    assert_eq!(merged.json(), wanted);
    // In vain: no change.
    let nothing = server.http("PATCH", &path(id), &[MERGE], b"{}").await.ok(200);
    assert_eq!(
        (nothing.json()["hash"].clone(), nothing.header("etag")),
        (Value::Null, merged.header("etag"))
    );
    // The file has it all.
    let file = server.http("GET", &path(id), &[("accept", "application/vnd.automerge")], b"").await.ok(200);
    assert_eq!(AutoCommit::load(&file.body).unwrap().get_changes(&[]).len(), 3);
    let then = format!("{}?heads={first}", path(id));
    let file = server.http("GET", &then, &[("accept", "application/vnd.automerge")], b"").await.ok(200);
    assert_eq!(AutoCommit::load(&file.body).unwrap().get_changes(&[]).len(), 1);

    let history = server.http("GET", &format!("{}/history", path(id)), &[], b"").await.ok(200).json();
    let changes = history["changes"].as_array().unwrap();
    assert_eq!(
        (changes.len(), &changes[2]["message"], &changes[1]["hash"]),
        (3, &json!("first"), &json!(second))
    );
    assert!(
        changes
            .iter()
            .all(|change| change["actor"] == changes[0]["actor"] && change["time"].as_i64() > Some(0))
    );
    let head = server.http("HEAD", &path(id), &[], b"").await.ok(200);
    assert_eq!((head.header("etag"), head.header("highwater-changes")), (merged.header("etag"), Some("3")));
    assert!(
        head.body.is_empty() && head.header("highwater-stored-bytes").unwrap().parse::<u64>().unwrap() > 100
    );
    let heads = server.http("GET", &format!("{}/heads", path(id)), &[], b"").await.ok(200).json();
    assert_eq!((&heads["heads"], &heads["changes"]), (&merged_heads(&merged), &json!(3)));
    let diff =
        server.http("GET", &format!("{}/diff?from={first}&to={second}", path(id)), &[], b"").await.ok(200);
    let patches = diff.json()["patches"].clone();
    assert!(
        patches
            .as_array()
            .unwrap()
            .contains(&json!({ "action": "splice", "path": "/title/5", "value": ", world" })),
        "{patches}"
    );
    server.stopped().await.unwrap();
}

/// The heads in an answer's tag.
fn merged_heads(answer: &Answer) -> Value {
    answer.header("etag").unwrap().trim_matches('"').split(',').collect::<Vec<_>>().into()
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let server = memory_server().await;
    let id = document(1);
    let tag = server.put(id, json!({ "n": 1 })).await.ok(201).header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let answer = server.http(method, &path(id), &[("if-none-match", &tag)], b"").await.ok(304);
        assert!(answer.body.is_empty() && answer.header("etag") == Some(&tag));
    }
    let tag = server.put(id, json!({ "n": 2 })).await.ok(200).header("etag").unwrap().to_owned();
    let old = server.http("GET", &path(id), &[("if-none-match", "\"x\", W/\"y\"")], b"").await.ok(200);
    assert_eq!(old.header("etag"), Some(&*tag));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn documents_are_made_of_files_or_of_nothing_and_only_once() {
    let server = memory_server().await;
    let empty = server.http("POST", "/v1/docs", &[], b"").await.ok(201).json();
    assert_eq!(server.value(empty["id"].as_str().unwrap().parse().unwrap()).await, json!({}));
    let id = document(1);
    let create = format!("/v1/docs?id=automerge:{id}");
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "abc").unwrap();
    doc.commit();
    doc.put(ROOT, "n", 1).unwrap();
    let made = server.http("POST", &create, &[AUTOMERGE], &doc.save()).await.ok(201).json();
    assert_eq!(made["heads"], json!([doc.get_heads()[0].to_string()]));
    assert_eq!(server.value(id).await, json!({ "n": 1, "text": "abc" }));
    for (kind, body) in [(JSON, b"{}".to_vec()), (AUTOMERGE, doc.save()), (JSON, Vec::new())] {
        assert_eq!(server.http("POST", &create, &[kind], &body).await.ok(409).code(), "exists");
    }
    // The second of two changes without the first.
    let last = doc.get_last_local_change().unwrap().raw_bytes().to_vec();
    let incomplete = server.http("POST", "/v1/docs", &[AUTOMERGE], &last).await.ok(422);
    assert_eq!(incomplete.code(), "incomplete");
    server.stopped().await.unwrap();
}

/// A request, and the status and code of its answer.
type Wrong<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_said_in_one_form() {
    let server = memory_server().await;
    let id = document(1);
    let (there, missing) = (path(id), path(document(2)));
    server.put(id, json!({ "n": 1, "text": "abc" })).await.ok(201);
    let cases: [Wrong; 30] = [
        ("GET", "/v1/docs/nonsense", &[], "", 400, "invalid"),
        ("GET", "/v1/docs/%ff", &[], "", 400, "invalid"),
        ("GET", &missing, &[], "", 404, "no_such_document"),
        ("HEAD", &there, &[("accept", "text/html")], "", 406, ""),
        ("GET", &there, &[("accept", "text/html")], "", 406, "not_acceptable"),
        ("GET", &format!("{there}?head=1"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}?heads=1"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}?heads={}", "0".repeat(64)), &[], "", 404, "no_such_change"),
        ("GET", &format!("{there}?conflicts=perhaps"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/diff"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/nothing"), &[], "", 404, "no_such_route"),
        ("GET", "/v1/nothing", &[], "", 404, "no_such_route"),
        ("GET", &format!("{there}/changes?limit=0"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/changes?limit=1001"), &[], "", 400, "invalid"),
        ("GET", &format!("{there}/changes?after=00"), &[], "", 400, "invalid"),
        ("POST", &there, &[], "", 405, "method_not_allowed"),
        ("PATCH", &there, &[JSON], "{}", 415, "unsupported_media_type"),
        ("PUT", &there, &[MERGE], "{}", 415, "unsupported_media_type"),
        ("POST", "/v1/docs", &[("content-type", "text/plain")], "x", 415, "unsupported_media_type"),
        ("POST", "/v1/docs?id=x", &[JSON], "{}", 400, "invalid"),
        ("POST", "/v1/docs", &[JSON], "{", 400, "invalid_edit"),
        ("POST", "/v1/docs", &[AUTOMERGE], "nonsense", 400, "invalid_changes"),
        ("PATCH", &there, &[PATCH], "{}", 400, "invalid_edit"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"remove","path":"/x"}]"#, 409, "no_such_path"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"test","path":"/n","value":2}]"#, 409, "test_failed"),
        ("PATCH", &there, &[PATCH], r#"[{"op":"increment","path":"/text","by":2}]"#, 409, "wrong_type"),
        (
            "PATCH",
            &there,
            &[PATCH],
            r#"[{"op":"splice","path":"/text","index":9,"delete":1,"insert":""}]"#,
            409,
            "out_of_bounds",
        ),
        ("PATCH", &there, &[PATCH, ("if-match", "x")], "[]", 400, "invalid"),
        ("PATCH", &there, &[PATCH, ("if-match", "\"x\"")], "[]", 412, "precondition_failed"),
        ("PATCH", &missing, &[PATCH], "[]", 404, "no_such_document"),
    ];
    for (method, path, headers, body, status, code) in cases {
        let answer = server.http(method, path, headers, body.as_bytes()).await.ok(status);
        if method != "HEAD" {
            assert_eq!(answer.code(), code, "{method} {path}");
            assert!(answer.json()["retryable"].is_boolean() && answer.json()["detail"].is_string());
        }
    }
    let failed = r#"[{"op":"replace","path":"/n","value":2},{"op":"test","path":"/text","value":"x"}]"#;
    let failed = server.http("PATCH", &there, &[PATCH], failed.as_bytes()).await.ok(409).json();
    assert_eq!((&failed["operation"], &failed["pointer"]), (&json!(1), &json!("/text")));
    assert_eq!(server.value(id).await, json!({ "n": 1, "text": "abc" }), "all of a patch or nothing");
    let kinds = server.http("PATCH", &there, &[], b"x").await.ok(415);
    assert!(kinds.header("accept-patch").unwrap().contains("merge-patch"));
    let methods = server.http("POST", &there, &[], b"").await.ok(405);
    assert!(methods.header("allow").unwrap().contains("PATCH"), "{methods:?}");
    let failed = server.http("PUT", &there, &[JSON, ("if-none-match", "*")], b"{}").await.ok(412).json();
    assert_eq!(failed["heads"].as_array().unwrap().len(), 1);
    let missing = server.http("PUT", &missing, &[JSON, ("if-match", "*")], b"{}").await.ok(412);
    assert_eq!(missing.code(), "precondition_failed");
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn many_edits_at_once_are_all_made_and_share_appends() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "text": "", "n": { "$counter": 0 } })).await.ok(201);
    store.set_pace(Pace::Manual);
    let edits = (0..60).map(|n| {
        let patch = json!([
            { "op": "splice", "path": "/text", "index": 0, "delete": 0, "insert": format!("<{n}>") },
            { "op": "increment", "path": "/n", "by": 1 },
        ]);
        server.patch(id, &[], patch)
    });
    let mut edits = Box::pin(join_all(edits));
    let mut appends = 0;
    let answers = loop {
        tokio::select! {
            answers = &mut edits => break answers,
            () = tokio::task::yield_now() => appends += usize::from(store.step()),
        }
    };
    drop(edits);
    store.set_pace(Pace::Immediate);
    for answer in answers {
        answer.ok(200);
    }
    let value = server.value(id).await;
    assert_eq!(value["n"], json!({ "$counter": 60 }));
    for n in 0..60 {
        assert!(value["text"].as_str().unwrap().contains(&format!("<{n}>")), "{value}");
    }
    assert_eq!(store.durable(id).unwrap().changes.len(), 61, "each its own change");
    assert!(appends < 40, "{appends} appends for 60 edits");
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn of_many_edits_that_depend_on_the_same_heads_one_is_made() {
    let server = memory_server().await;
    let id = document(1);
    let mut tag = server.put(id, json!({ "n": 0 })).await.ok(201).header("etag").unwrap().to_owned();
    for round in 1..6 {
        let edits = (0..8).map(|n| {
            let headers = [("if-match", &*tag)];
            let patch = json!([{ "op": "replace", "path": "/n", "value": 100 * round + n }]);
            let server = &server;
            async move { server.patch(id, &headers, patch).await }
        });
        let answers = join_all(edits).await;
        let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(made.len(), 1, "{answers:?}");
        let next = made[0].header("etag").unwrap().to_owned();
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!((answer.status, &*answer.code()), (412, "precondition_failed"));
            assert_eq!(answer.header("etag"), Some(&*next), "what the document is now");
        }
        assert_eq!(server.read(id).await.header("etag"), Some(&*next));
        tag = next;
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edit_that_tests_what_is_there_is_not_made_after_a_change_that_was_on_its_way() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    let mut person = Client::open(&server, "person", id).await;
    person.until("n", 1).await;
    store.set_pace(Pace::Manual);
    person.edit("n", 2);
    person.push().await;
    in_flight(&store).await;
    let patch =
        json!([{ "op": "test", "path": "/n", "value": 1 }, { "op": "replace", "path": "/n", "value": 3 }]);
    let mut edit = Box::pin(server.patch(id, &[], patch));
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut edit).await;
    assert!(early.is_err(), "answered before it was known: {early:?}");
    store.set_pace(Pace::Immediate);
    store.step_all();
    assert_eq!(edit.await.ok(409).code(), "test_failed");
    assert_eq!(server.value(id).await, json!({ "n": 2 }));
}

#[tokio::test]
async fn an_edit_that_depends_on_heads_is_not_made_after_a_change_that_was_on_its_way() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    let tag = server.put(id, json!({ "n": 1 })).await.ok(201).header("etag").unwrap().to_owned();
    let mut person = Client::open(&server, "person", id).await;
    person.until("n", 1).await;
    store.set_pace(Pace::Manual);
    person.edit("m", 2);
    person.push().await;
    in_flight(&store).await;
    // Not durable yet, and so not in the heads that anybody is told. It comes first all the same.
    let patch = json!([{ "op": "replace", "path": "/n", "value": 2 }]);
    let headers = [("if-match", &*tag)];
    let mut edit = Box::pin(server.patch(id, &headers, patch));
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut edit).await;
    assert!(early.is_err(), "answered before it was known: {early:?}");
    store.set_pace(Pace::Immediate);
    store.step_all();
    let answer = edit.await.ok(412);
    assert_eq!(answer.code(), "precondition_failed");
    assert_eq!(server.value(id).await, json!({ "n": 1, "m": 2 }));
    drop(person);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edit_and_people_who_type_converge() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "text": "the fox" })).await.ok(201);
    let mut person = Client::open(&server, "person", id).await;
    while person.doc.get(ROOT, "text").unwrap().is_none() {
        person.step().await.unwrap();
    }
    let text = person.doc.get(ROOT, "text").unwrap().unwrap().1;
    // At the same time: neither has seen the other's.
    person.doc.splice_text(&text, 7, 0, " jumps").unwrap();
    person.doc.commit();
    let patch = json!([{ "op": "replace", "path": "/text", "value": "the quick brown fox" }]);
    server.patch(id, &[], patch).await.ok(200);
    person.push().await;
    let wanted = "the quick brown fox jumps";
    while person.doc.text(&text).unwrap() != wanted || !person.is_acknowledged() {
        person.step().await.unwrap();
    }
    assert_eq!(server.value(id).await, json!({ "text": wanted }));
    drop(person);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn places_with_more_than_one_value_are_shown_on_request() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    let mut doc = AutoCommit::load(
        &server.http("GET", &path(id), &[("accept", "application/vnd.automerge")], b"").await.body,
    )
    .unwrap();
    doc.put(ROOT, "n", 2).unwrap();
    doc.commit();
    let change = Bytes::copy_from_slice(doc.get_last_local_change().unwrap().raw_bytes());
    server.put(id, json!({ "n": 3 })).await.ok(200);
    server.http("POST", &format!("{}/changes", path(id)), &[], &change).await.ok(200);
    let read = server.http("GET", &format!("{}?conflicts=true", path(id)), &[], b"").await.ok(200).json();
    let values = read["conflicts"]["/n"].as_object().unwrap();
    let mut values: Vec<i64> = values.values().filter_map(Value::as_i64).collect();
    values.sort_unstable();
    assert_eq!(values, [2, 3]);
    assert!(values.contains(&read["value"]["n"].as_i64().unwrap()));
    let heads = server.http("GET", &format!("{}/heads", path(id)), &[], b"").await.json();
    assert_eq!(heads["heads"].as_array().unwrap().len(), 2);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn all_changes_come_page_by_page() {
    let server = memory_server().await;
    let id = document(1);
    for n in 0..25 {
        server.put(id, json!({ "n": n })).await;
    }
    // As metadata, and as chunks that make the same document.
    for accept in ["application/json", "application/vnd.automerge"] {
        let mut next = Some(format!("{}/changes?limit=10", path(id)));
        let (mut pages, mut count, mut chunks) = (0, 0, Vec::new());
        while let Some(page) = next {
            let answer = server.http("GET", &page, &[("accept", accept)], b"").await.ok(200);
            next = answer.header("link").map(|link| link[1..link.find('>').unwrap()].to_owned());
            pages += 1;
            if accept == "application/json" {
                assert_eq!(answer.json()["next"], json!(next));
                count += answer.json()["changes"].as_array().unwrap().len();
            } else {
                chunks.extend(answer.body);
            }
            // What comes in between comes later.
            if pages == 1 {
                server.put(id, json!({ "between": accept })).await.ok(200);
            }
        }
        assert_eq!(pages, 3);
        if accept == "application/json" {
            assert_eq!(count, 26);
        } else {
            assert_eq!(AutoCommit::load(&chunks).unwrap().get_changes(&[]).len(), 27);
        }
    }
    let mut next = Some(format!("{}/history?limit=10", path(id)));
    let mut seen = Vec::new();
    while let Some(page) = next {
        let answer = server.http("GET", &page, &[], b"").await.ok(200).json();
        seen.extend(
            answer["changes"].as_array().unwrap().iter().map(|change| change["seq"].as_u64().unwrap()),
        );
        next = answer["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, (1..=27).rev().collect::<Vec<u64>>());
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edit_whose_client_is_gone_is_made_all_the_same() {
    use tokio::io::AsyncWriteExt;
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "n": 0 })).await.ok(201);
    store.set_pace(Pace::Manual);
    let body = r#"[{"op":"replace","path":"/n","value":1}]"#;
    let request = format!(
        "PATCH {} HTTP/1.1\r\nhost: test\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n{body}",
        path(id),
        PATCH.1,
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    in_flight(&store).await;
    drop(stream);
    store.set_pace(Pace::Immediate);
    store.step_all();
    assert_eq!(server.value(id).await, json!({ "n": 1 }));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn what_was_not_stored_is_neither_answered_nor_read() {
    for kept in [0, 1] {
        let (current, open) = store_with_power_cuts(kept);
        let server = TestServer::start(config(), open).await;
        let id = document(1);
        let before = server.put(id, json!({ "n": 0 })).await.ok(201).header("etag").unwrap().to_owned();
        server.value(id).await;
        current.lock().unwrap().fail_append_after(0);
        let failed =
            server.patch(id, &[], json!([{ "op": "replace", "path": "/n", "value": 1 }])).await.ok(503);
        assert_eq!(failed.code(), "unavailable");
        assert!(failed.json()["retryable"] == true && failed.header("retry-after").is_some());
        patiently(async {
            while !server.get("/readyz").await.starts_with("HTTP/1.1 200") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Exactly what is stored.
        let read = server.read(id).await.ok(200);
        assert_eq!(read.json(), json!({ "n": kept }));
        assert_eq!(read.header("etag") == Some(&*before), kept == 0);
        server.put(id, json!({ "n": 2 })).await.ok(200);
        assert_eq!(server.value(id).await, json!({ "n": 2 }));
        server.stopped().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_of_an_edit_is_shown_before_it_is_stored() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    let before = server.put(id, json!({ "n": 0 })).await.ok(201).header("etag").unwrap().to_owned();
    let mut reader = Client::open(&server, "reader", id).await;
    reader.until("n", 0).await;
    store.set_pace(Pace::Manual);
    let mut edit = Box::pin(server.patch(id, &[], json!([{ "op": "replace", "path": "/n", "value": 1 }])));
    let refused = [("if-match", "\"x\"")];
    let mut refusal = Box::pin(server.patch(id, &refused, json!([])));
    tokio::select! {
        answer = &mut edit => panic!("{answer:?}"),
        () = in_flight(&store) => {}
    }
    let told = async {
        tokio::select! {
            answer = &mut edit => panic!("{answer:?}"),
            step = reader.step() => panic!("{step:?}"),
            // It may have been looked at before the edit; then it says nothing of it.
            answer = &mut refusal => assert_eq!(answer.header("etag"), Some(&*before)),
        }
        std::future::pending::<()>().await
    };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(200), told).await;
    let head = server.http("HEAD", &path(id), &[], b"").await.ok(200);
    assert_eq!(head.header("etag"), Some(&*before), "heads that are not durable were shown");
    store.set_pace(Pace::Immediate);
    store.step_all();
    edit.await.ok(200);
    drop(refusal);
    reader.until("n", 1).await;
    drop(reader);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn edits_of_a_long_history_stand_on_a_copy_that_is_kept() {
    let folder = tempfile::TempDir::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(highwater_storage::SqliteStore::open(folder.path()).unwrap());
    let server =
        TestServer::start(Config { compact_changes_min: 20, ..config() }, always(store.clone())).await;
    let id = document(1);
    let mut person = Client::open(&server, "person", id).await;
    for n in 0..60 {
        person.edit("n", n);
        person.push().await;
        person.acknowledged().await;
        if n % 10 == 9 {
            server.patch(id, &[], json!([{ "op": "add", "path": "/edits", "value": n }])).await.ok(200);
            let edits = i64::from(n as i32);
            person.until("edits", edits).await;
        }
    }
    patiently(async {
        while store.load(id).await.unwrap().unwrap().snapshot.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(person);
    server.stopped().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(highwater_storage::SqliteStore::open(folder.path()).unwrap());
    let server = TestServer::start(config(), always(store)).await;
    server.patch(id, &[], json!([{ "op": "add", "path": "/last", "value": 1 }])).await.ok(200);
    assert_eq!(server.value(id).await, json!({ "n": 59, "edits": 59, "last": 1 }));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_body_need_not_say_how_large_it_is_unless_it_is_large() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = memory_server().await;
    let id = document(1);
    for (bytes, status) in [(1_000, "201"), (2 << 20, "413")] {
        let body = json!({ "text": "x".repeat(bytes) }).to_string();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            path(id)
        );
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that has read enough may close before it has read all.
        let _ = stream.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
        let mut answer = Vec::new();
        let _ = patiently(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) || status == "413" && answer.is_empty(),
            "{answer}"
        );
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edit_that_is_under_way_when_the_server_stops_is_answered() {
    let store = FaultyStore::new(Pace::Immediate);
    let mut server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "n": 0 })).await.ok(201);
    store.set_pace(Pace::Manual);
    let stop = server.stopper();
    let mut edit = Box::pin(server.patch(id, &[], json!([{ "op": "replace", "path": "/n", "value": 1 }])));
    tokio::select! {
        answer = &mut edit => panic!("{answer:?}"),
        () = in_flight(&store) => {}
    }
    drop(stop);
    store.set_pace(Pace::Immediate);
    store.step_all();
    edit.await.ok(200);
    server.stopped().await.unwrap();
    assert_eq!(store.durable(id).unwrap().changes.len(), 2);
}

#[tokio::test]
async fn edits_pass_the_full_check() {
    let config = Config { check_changes: highwater_server::CheckChanges::Full, ..config() };
    let server = TestServer::start(config, always(Arc::new(MemoryStore::new()))).await;
    let id = document(1);
    server.put(id, json!({ "text": "abc" })).await.ok(201);
    for n in 0..5 {
        server
            .patch(id, &[("idempotency-key", "same")], json!([{ "op": "add", "path": "/n", "value": 0 }]))
            .await
            .ok(200);
        server.put(id, json!({ "text": "abc", "m": n })).await.ok(200);
    }
    assert_eq!(server.value(id).await, json!({ "text": "abc", "m": 4 }));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn the_description_names_every_answer() {
    let server = memory_server().await;
    let description = server.http("GET", "/v1/openapi.json", &[], b"").await.ok(200).json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{what}");
            let answers = operation["responses"].as_object().unwrap();
            for status in ["403", "500", "503"] {
                assert!(answers.contains_key(status), "{what} {status}");
            }
        }
    }
    assert!(description["components"]["schemas"]["Problem"].is_object(), "{description}");
    let page = server.http("GET", "/v1/api", &[], b"").await.ok(200);
    assert!(String::from_utf8(page.body).unwrap().contains("PATCH /v1/docs/{id}"));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_request_with_a_key_is_done_once_however_often_it_comes() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "n": { "$counter": 0 } })).await.ok(201);
    let tag = server.read(id).await.header("etag").unwrap().to_owned();
    let increment = |by: i64| json!([{ "op": "increment", "path": "/n", "by": by }]);
    // At once, and one after the other; also if what it depends on is no longer so.
    let headers = [("idempotency-key", "first"), ("if-match", &*tag)];
    let answers = join_all((0..5).map(|_| server.patch(id, &headers, increment(1)))).await;
    let later = server.patch(id, &headers, increment(1)).await;
    let first = answers[0].clone().ok(200);
    for answer in answers.iter().chain([&later]) {
        assert_eq!(
            (answer.status, answer.json(), answer.header("etag")),
            (200, first.json(), first.header("etag"))
        );
    }
    assert_eq!(server.value(id).await, json!({ "n": { "$counter": 1 } }));
    let other = server.patch(id, &headers, increment(2)).await.ok(422);
    assert_eq!(other.code(), "idempotency_key_reused");
    // One that changes nothing is answered again as well; one that failed is tried again.
    let nothing = [("idempotency-key", "nothing")];
    let empty = server.patch(id, &nothing, json!([])).await.ok(200).json();
    let failing = [("idempotency-key", "failing"), ("if-match", "\"x\"")];
    server.patch(id, &failing, increment(5)).await.ok(412);
    server.patch(id, &[], increment(1)).await.ok(200);
    assert_eq!(server.patch(id, &nothing, json!([])).await.ok(200).json(), empty);
    server.patch(id, &failing[..1], increment(5)).await.ok(200);
    // The document as it was then.
    let headers = [headers[0], headers[1], ("prefer", "return=representation")];
    let then = server.patch(id, &headers, increment(1)).await.ok(200);
    assert_eq!(then.json(), json!({ "n": { "$counter": 1 } }));
    let key = [JSON, ("idempotency-key", "create")];
    let made = join_all((0..3).map(|_| server.http("POST", "/v1/docs", &key, b"{\"a\":1}"))).await;
    let ids: Vec<Value> = made.into_iter().map(|made| made.ok(201).json()).collect();
    assert!(ids.iter().all(|made| *made == ids[0]), "{ids:?}");
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "n", 1).unwrap();
    let (file, key) = (doc.save(), [AUTOMERGE, ("idempotency-key", "file")]);
    let from_file = server.http("POST", "/v1/docs", &key, &file).await.ok(201).json();
    server.stopped().await.unwrap();

    // And after a restart.
    let server = server_on(&store.reopen()).await;
    assert_eq!(server.patch(id, &headers[..2], increment(1)).await.ok(200).json(), first.json());
    assert_eq!(server.value(id).await, json!({ "n": { "$counter": 7 } }));
    assert_eq!(server.http("POST", "/v1/docs", &key, &file).await.ok(201).json(), from_file);
    let list = server.http("GET", "/v1/docs", &[], b"").await.ok(200).json();
    assert_eq!(list["documents"].as_array().unwrap().len(), 3);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_request_with_a_key_that_failed_with_the_store_is_done_once() {
    for kept in [0, 1] {
        let (current, open) = store_with_power_cuts(kept);
        let server = TestServer::start(config(), open).await;
        let id = document(1);
        server.put(id, json!({ "n": { "$counter": 0 } })).await.ok(201);
        current.lock().unwrap().fail_append_after(0);
        let patch = json!([{ "op": "increment", "path": "/n", "by": 1 }]);
        let headers = [("idempotency-key", "key")];
        server.patch(id, &headers, patch.clone()).await.ok(503);
        // As a client does that is told to try again.
        patiently(async {
            while server.patch(id, &headers, patch.clone()).await.status != 200 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(
            server.value(id).await,
            json!({ "n": { "$counter": 1 } }),
            "{kept} of what failed was stored"
        );
        server.stopped().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_leaves_nothing_on_its_way_to_disk() {
    let store = FaultyStore::new(Pace::Immediate);
    let config = Config { compact_changes_min: 4, ..config() };
    let server = Arc::new(TestServer::start(config, always(Arc::new(store.clone()))).await);
    let id = document(1);
    server.put(id, json!({ "n": { "$counter": 0 } })).await.ok(201);
    let edit = |server: Arc<TestServer>, key: &'static str| async move {
        let increment = json!([{ "op": "increment", "path": "/n", "by": 1 }]);
        server.patch(id, &[("idempotency-key", key)], increment).await
    };
    for key in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"] {
        edit(server.clone(), key).await.ok(200);
    }
    until(|| store.durable_snapshot(id).is_some()).await;
    store.stall();
    let first = tokio::spawn(edit(server.clone(), "k"));
    in_flight(&store).await;
    // Somebody new needs the snapshot, which cannot be read.
    store.fail_loads(true);
    let mut fresh = Client::open(&server, "fresh", id).await;
    fresh.push().await;
    until(|| store.loads_failed() > 0).await;
    store.fail_loads(false);
    let again = tokio::spawn(edit(server.clone(), "k"));
    store.resume();
    // Whatever these two were told, it is done once.
    patiently(first).await.unwrap();
    patiently(again).await.unwrap();
    patiently(async { while edit(server.clone(), "k").await.status != 200 {} }).await;
    assert_eq!(server.value(id).await["n"], json!({ "$counter": 13 }));
    let reopened = server_on(&store.reopen()).await;
    assert_eq!(reopened.value(id).await["n"], json!({ "$counter": 13 }));
}

#[tokio::test]
async fn documents_are_listed_by_id_by_prefix_and_by_when_they_changed() {
    let server = memory_server().await;
    let mut wanted: Vec<String> = Vec::new();
    for n in 0..25 {
        server.put(document(n), json!({ "n": n })).await.ok(201);
        wanted.push(document(n).to_string());
    }
    let all = async |first: &str| {
        let (mut next, mut pages, mut seen) = (Some(first.to_owned()), 0, Vec::new());
        while let Some(page) = next {
            let answer = server.http("GET", &page, &[], b"").await.ok(200).json();
            seen.extend(answer["documents"].as_array().unwrap().clone());
            next = answer["next"].as_str().map(str::to_owned);
            pages += 1;
        }
        (seen, pages)
    };
    let ids = |entries: &[Value]| {
        entries.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (by_id, pages) = all("/v1/docs?limit=10").await;
    assert_eq!((ids(&by_id), pages), (wanted.clone(), 3));
    let prefix = &wanted[7][..4];
    let (by_prefix, _) = all(&format!("/v1/docs?limit=1&prefix={prefix}")).await;
    let begin_so: Vec<String> = wanted.iter().filter(|id| id.starts_with(prefix)).cloned().collect();
    assert_eq!(ids(&by_prefix), begin_so);
    server.put(document(3), json!({ "n": "changed" })).await.ok(200);
    let (by_change, _) = all("/v1/docs?changed-since=0&limit=10").await;
    assert_eq!((by_change.len(), &*ids(&by_change)[24]), (25, &*wanted[3]));
    let since = by_change[20]["changed"].as_u64().unwrap();
    let (since, _) = all(&format!("/v1/docs?changed-since={since}")).await;
    assert_eq!(since, by_change[21..]);
    let both = server.http("GET", "/v1/docs?changed-since=0&prefix=1", &[], b"").await.ok(400);
    assert_eq!(both.code(), "invalid");
    server.stopped().await.unwrap();
}

/// Changes are what stock Automerge takes.
#[tokio::test]
async fn what_edits_store_is_what_automerge_reads() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    let id = document(1);
    server.put(id, json!({ "list": [1, { "a": "b" }], "text": "äöü🙂" })).await.ok(201);
    server.put(id, json!({ "list": [{ "a": "bc" }, 2], "text": "äö🙂!" })).await.ok(200);
    let changes = store.durable(id).unwrap().changes;
    assert!(changes.iter().all(|change| Change::parse(change.clone()).is_ok()));
    let doc = AutoCommit::load(&changes.concat()).unwrap();
    let text = doc.get(ROOT, "text").unwrap().unwrap().1;
    assert_eq!(doc.text(&text).unwrap(), "äö🙂!");
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn a_request_for_a_damaged_document_is_told_so_and_that_asking_again_does_not_help() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    server.put(document(1), json!({ "n": 1 })).await.ok(201);
    server.put(document(2), json!({ "n": 2 })).await.ok(201);
    server.stopped().await.unwrap();
    let store = store.reopen();
    store.damage(document(1));
    let server = server_on(&store).await;
    let path = path(document(1));
    let json = [("content-type", "application/json")];
    let have = format!("{path}/have");
    let chunks = automerge::AutoCommit::new().save();
    for (method, path, headers, body) in [
        ("GET", &*path, &[][..], &b""[..]),
        ("HEAD", &path, &[], b""),
        ("PUT", &path, &json, b"{}"),
        ("DELETE", &path, &[], b""),
        ("GET", &format!("{path}/heads"), &[], b""),
        ("GET", &format!("{path}/events"), &[], b""),
        ("GET", &format!("{path}/history"), &[], b""),
        ("POST", &format!("{path}/changes"), &[], &chunks),
    ] {
        let answer = server.http(method, path, headers, body).await.ok(500);
        if method != "HEAD" {
            let problem = answer.json();
            assert_eq!(
                (&problem["code"], &problem["retryable"]),
                (&json!("damaged"), &json!(false)),
                "{path}"
            );
        }
    }
    let unknown = json!({ "hashes": ["00".repeat(32)] }).to_string();
    assert_eq!(server.http("POST", &have, &json, unknown.as_bytes()).await.status, 200);
    assert_eq!(server.value(document(2)).await, json!({ "n": 2 }));
}

#[tokio::test]
async fn a_large_document_is_made_all_at_once_or_not_at_all() {
    let whole = long_document(5_000).save();
    let expected = long_document(5_000).get_changes(&[]).len();
    for kept in [0, 1] {
        let store = FaultyStore::new(Pace::Manual);
        let server = server_on(&store).await;
        let path = format!("/v1/docs?id={}", document(1));
        let headers = [("content-type", "application/vnd.automerge")];
        let after_the_cut = async {
            in_flight(&store).await;
            let durable = store.power_cut_keeping(kept).durable(document(1));
            assert_eq!(durable.map_or(0, |stored| stored.changes.len()), kept * expected);
        };
        tokio::select! {
            answer = server.http("POST", &path, &headers, &whole) => panic!("answered before it was stored: {answer:?}"),
            () = after_the_cut => {}
        }
    }
}

#[tokio::test]
async fn numbers_come_back_as_they_were_sent() {
    let server = memory_server().await;
    let id = document(1);
    let numbers: Vec<f64> =
        (1..2_000u32).map(|n| f64::from(n).sqrt().sin() * 10f64.powi(n as i32 % 60 - 30)).collect();
    let sent = json!({ "numbers": numbers, "tiny": 5e-324, "large": f64::MAX });
    server.put(id, sent.clone()).await.ok(201);
    let read = server.read(id).await.ok(200);
    assert_eq!(read.json(), sent);
    let same =
        server.http("PUT", &path(id), &[("content-type", "application/json")], &read.body).await.ok(200);
    assert_eq!(same.json()["hash"], Value::Null);
    let test = json!([{ "op": "test", "path": "/numbers", "value": numbers }]);
    server.patch(id, &[], test).await.ok(200);
}

#[tokio::test]
async fn a_head_request_is_answered_as_its_get_would_be() {
    let server = memory_server().await;
    let id = document(1);
    let first =
        server.put(id, json!({ "n": 1 })).await.ok(201).json()["heads"][0].as_str().unwrap().to_owned();
    server.put(id, json!({ "n": 2 })).await.ok(200);
    let unknown = "00".repeat(32);
    for query in
        ["", &format!("?heads={first}"), &format!("?heads={unknown}"), "?heads=", "?heads=zz", "?bogus=1"]
    {
        let path = format!("{}{query}", path(id));
        let get = server.http("GET", &path, &[], b"").await;
        let head = server.http("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.header("etag")), (get.status, get.header("etag")), "{query}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{query}");
        // How long the answer would be is only known when it is made.
        assert!(head.status != 200 || head.header("content-length").is_none(), "{query}");
    }
}

#[tokio::test]
async fn every_error_has_the_same_form() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    for (method, path, headers, status, code) in [
        ("GET", "/v1", &[][..], 404, "no_such_route"),
        ("GET", "/v1/", &[], 404, "no_such_route"),
        ("GET", "/nowhere", &[], 404, "no_such_route"),
        ("GET", "/v1/sync", &[], 426, "upgrade_required"),
        ("GET", &format!("{}/sync", path(id)), &[], 426, "upgrade_required"),
        ("POST", "/v1/webhooks/%FF/retry", &[], 400, "invalid"),
        ("POST", &format!("{}/changes", path(id)), &[("if-match", "\"x\"")], 400, "invalid"),
        ("POST", &format!("{}/changes", path(id)), &[("if-none-match", "*")], 400, "invalid"),
    ] {
        let answer = server.http(method, path, headers, b"").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
}

#[tokio::test]
async fn an_edit_has_the_time_that_was_asked_for() {
    let server = memory_server().await;
    let id = document(1);
    server.put(id, json!({ "n": 1 })).await.ok(201);
    let edit = |query: &str, n: i32| {
        let (path, body) = (format!("{}?{query}", path(id)), json!({ "n": n }).to_string());
        let (server, merge) = (&server, ("content-type", "application/merge-patch+json"));
        async move { server.http("PATCH", &path, &[merge, ("idempotency-key", "key")], body.as_bytes()).await }
    };
    edit("time=86400&message=then", 2).await.ok(200);
    assert_eq!(edit("time=86401&message=then", 2).await.ok(422).code(), "idempotency_key_reused");
    assert_eq!(edit("time=9007199254740993", 3).await.ok(400).code(), "invalid");
    let history = server.http("GET", &format!("{}/history", path(id)), &[], b"").await.ok(200).json();
    assert_eq!(
        (&history["changes"][0]["time"], &history["changes"][0]["message"]),
        (&json!(86_400), &json!("then"))
    );
}
