//! Edits over HTTP: many at once, on conditions, with keys, and through crashes. What was answered is durable, once, and merges with what people do.

mod common;

use std::sync::{Arc, Mutex};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use common::*;
use futures::future::join_all;
use highwater_core::change::Change;
use highwater_server::{Config, OpenStore};
use highwater_storage::{FaultyStore, MemoryStore, Pace, Store};
use serde_json::{Value, json};

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
