//! Deleting documents: it is durable before anybody hears of it, and nobody can bring them back.

mod common;

use std::sync::Arc;

use automerge::AutoCommit;
use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::Transactable;
use bytes::Bytes;
use common::*;
use futures::{SinkExt, StreamExt};
use highwater_core::wire::Body;
use highwater_core::{ChangeHash, DocumentId};
use highwater_server::Config;
use highwater_storage::{FaultyStore, Pace, SqliteStore, Store};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A client that has the document with a change in it, which is durable.
async fn with_document(server: &TestServer, id: DocumentId) -> Client {
    let mut client = Client::open(server, "writer", id).await;
    client.edit("n", 1);
    client.push().await;
    client.acknowledged().await;
    client
}

async fn assert_gone(server: &TestServer, id: DocumentId) {
    let hash = "00".repeat(32);
    let requests = [
        ("GET", path(id), ""),
        ("GET", format!("{}/heads", path(id)), ""),
        ("GET", format!("{}/changes", path(id)), ""),
        ("GET", format!("{}/history", path(id)), ""),
        ("GET", format!("{}/changes/{hash}", path(id)), ""),
        ("POST", format!("{}/have", path(id)), &*json!({ "hashes": [hash] }).to_string()),
        ("PUT", path(id), "{}"),
        ("DELETE", path(id), ""),
        ("POST", format!("/v1/docs?id={id}"), "{}"),
    ]
    .map(|(method, path, body)| (method, path, body.to_owned()));
    for (method, path, body) in requests {
        let answer = server.http(method, &path, &[JSON], body.as_bytes()).await;
        assert_eq!((answer.status, answer.code()), (410, "deleted".to_owned()), "{method} {path}");
        assert_eq!(answer.json()["retryable"], false);
    }
    assert_eq!(server.http("HEAD", &path(id), &[], b"").await.status, 410);
}

/// What an extension client hears: the hashes that were refused as deleted, and whether it was told that there is no such document.
async fn heard(socket: &mut Socket) -> (Vec<ChangeHash>, bool) {
    let (mut refused, mut unavailable) = (Vec::new(), false);
    while refused.is_empty() || !unavailable {
        match socket.receive().await {
            Body::DocUnavailable { .. } => unavailable = true,
            Body::Rejected { changes, .. } => refused.extend(changes.into_iter().map(|change| {
                assert_eq!(change.reason, "the document was deleted");
                change.hash
            })),
            Body::Sync { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    (refused, unavailable)
}

#[tokio::test]
async fn who_has_a_deleted_document_open_is_told_and_what_he_types_is_refused_by_name() {
    let server = memory_server().await;
    let mut client = with_document(&server, document(1)).await;
    server.http("DELETE", &path(document(1)), &[], b"").await.ok(204);
    client.edit("n", 2);
    let hash = client.doc.get_heads()[0];
    client.push().await;
    let (refused, unavailable) = heard(&mut client.socket).await;
    assert!(refused.contains(&hash) && unavailable);
    assert_gone(&server, document(1)).await;
    // A question whether it is durable is answered, by name.
    let have = Body::Have { document: document(1), query: 5, hashes: vec![hash] };
    client.socket.send(message("writer", have)).await;
    let Body::Rejected { changes, .. } = client.socket.receive().await else { panic!("not refused") };
    assert_eq!(changes[0].hash, hash);
    let durable = client.socket.receive().await;
    assert!(
        matches!(&durable, Body::Durable { durable, missing, .. } if durable.is_empty() && missing == &[hash])
    );
    // A clean close is answered: all that was sent is dealt with.
    client.socket.stream.close(None).await.unwrap();
    assert!(client.socket.try_receive().await.is_err());
}

#[tokio::test]
async fn a_late_client_is_told_also_after_a_restart_and_nothing_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn Store> { Arc::new(SqliteStore::open(dir.path()).unwrap()) };
    let config = || Config { compact_changes_min: 20, ..config() };
    let server = TestServer::start(config(), always(open())).await;
    let mut client = with_document(&server, document(1)).await;
    let mut other = Client::with(&server, "other", document(2), AutoCommit::new()).await;
    other.edit("n", 1);
    other.push().await;
    other.acknowledged().await;
    for n in 0..100 {
        client.edit("n", n);
        client.push().await;
    }
    client.acknowledged().await;
    server.http("DELETE", &path(document(1)), &[], b"").await.ok(204);
    client.edit("n", 1000);
    let offline = client.doc.get_heads()[0];
    server.stopped().await.unwrap();

    for round in 0..2 {
        let server = TestServer::start(config(), always(open())).await;
        assert_gone(&server, document(1)).await;
        let mut late = Client::with(&server, "late", document(1), client.doc.fork()).await;
        let (refused, _) = heard(&mut late.socket).await;
        assert_eq!(refused, [offline], "round {round}");
        // All at once, as a whole, and over HTTP.
        let chunk = Bytes::from(late.doc.save());
        let sync = stock::Message {
            heads: vec![offline],
            need: vec![],
            have: vec![],
            changes: vec![chunk.to_vec()].into(),
            flags: None,
            version: stock::MessageVersion::V2,
        };
        let body = Body::Sync { document: document(1), data: sync.encode().into() };
        late.socket.send(message("late", body)).await;
        let Body::Rejected { changes, .. } = late.socket.receive().await else { panic!("not refused") };
        assert_eq!(changes.len(), client.doc.get_changes(&[]).len());
        let posted = server.http("POST", &format!("{}/changes", path(document(1))), &[], &chunk).await;
        assert_eq!((posted.status, posted.code()), (410, "deleted".to_owned()));
        assert_gone(&server, document(1)).await;
        assert_eq!(server.http("GET", &path(document(2)), &[], b"").await.ok(200).json(), json!({ "n": 1 }));
        let listed = server.http("GET", "/v1/docs", &[], b"").await.ok(200).json();
        let deleted: Vec<&Value> =
            listed["documents"].as_array().unwrap().iter().map(|entry| &entry["deleted"]).collect();
        assert_eq!(deleted, [true, false]);
        server.stopped().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_said_of_a_deletion_before_it_is_durable() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let mut client = with_document(&server, document(1)).await;
    store.stall();
    let deletion = async { server.http("DELETE", &path(document(1)), &[], b"").await };
    let watching = async {
        while store.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        // As it was, as far as anybody knows.
        let heads = server.http("GET", &format!("{}/heads", path(document(1))), &[], b"").await.ok(200);
        assert_eq!(heads.json()["heads"], json!([client.doc.get_heads()[0].to_string()]));
        client.edit("n", 2);
        client.push().await;
        store.resume();
    };
    let (deletion, ()) = futures::join!(deletion, watching);
    deletion.ok(204);
    let hash = client.doc.get_heads()[0];
    let (refused, _) = heard(&mut client.socket).await;
    assert!(refused.contains(&hash));
    // What a power cut leaves is a deleted document.
    let after = TestServer::start(config(), always(Arc::new(store.power_cut(1)))).await;
    assert_gone(&after, document(1)).await;
}

#[tokio::test]
async fn a_deletion_may_depend_on_heads_and_is_done_once_with_a_key() {
    let server = memory_server().await;
    let id = document(1);
    let made = server.http("PUT", &path(id), &[JSON], br#"{"n":1}"#).await.ok(201);
    let tag = made.header("etag").unwrap().to_owned();
    let edited = server.http("PUT", &path(id), &[JSON], br#"{"n":2}"#).await.ok(200);
    let refused = server.http("DELETE", &path(id), &[("if-match", &tag)], b"").await;
    assert_eq!((refused.status, refused.code()), (412, "precondition_failed".to_owned()));
    let tag = edited.header("etag").unwrap();
    let headers = [("if-match", tag), ("idempotency-key", "k")];
    for _ in 0..2 {
        server.http("DELETE", &path(id), &headers, b"").await.ok(204);
    }
    assert_eq!(server.http("DELETE", &path(id), &[], b"").await.status, 410);
    assert_eq!(server.http("DELETE", &path(document(2)), &[], b"").await.status, 404);
}

#[tokio::test]
async fn what_waits_at_the_desk_behind_a_deletion_is_refused() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let id = document(1);
    server.http("PUT", &path(id), &[JSON], br#"{"n":1}"#).await.ok(201);
    store.stall();
    let delete = async { server.http("DELETE", &path(id), &[], b"").await.status };
    let others = async {
        while store.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        let edits = (0..5).map(|n| {
            let body = json!({ "n": n }).to_string();
            let server = &server;
            async move { server.http("PUT", &path(id), &[JSON], body.as_bytes()).await.status }
        });
        let edits = futures::future::join_all(edits);
        let resume = async {
            tokio::task::yield_now().await;
            store.resume();
        };
        futures::join!(edits, resume).0
    };
    let (deleted, others) = futures::join!(delete, others);
    assert_eq!(deleted, 204);
    assert_eq!(others, [410; 5]);
}

#[tokio::test]
async fn the_plain_protocol_says_that_a_document_was_deleted() {
    let server = memory_server().await;
    let id = document(1);
    server.http("PUT", &path(id), &[JSON], br#"{"n":1}"#).await.ok(201);
    server.http("DELETE", &path(id), &[], b"").await.ok(204);
    let mut request = format!("ws://{}/v1/docs/{id}/sync", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "automerge-sync.v1".parse().unwrap());
    let (mut stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let mut doc = AutoCommit::new();
    doc.put(automerge::ROOT, "n", 2).unwrap();
    let hash = doc.commit().unwrap().to_string();
    let hello = doc.sync().generate_sync_message(&mut stock::State::new()).unwrap();
    stream.send(Frame::Binary(hello.encode().into())).await.unwrap();
    let mut said = Vec::new();
    while said.len() < 2 {
        if let Some(Ok(Frame::Text(text))) = patiently(stream.next()).await {
            said.push(serde_json::from_str::<Value>(&text).unwrap());
        }
    }
    let reason = "the document was deleted";
    assert_eq!(
        said,
        [json!({ "deleted": true }), json!({ "rejected": [{ "hash": hash, "reason": reason }] })]
    );
}

#[tokio::test]
async fn many_refused_changes_of_a_deleted_document_close_no_connection() {
    let server = memory_server().await;
    let mut client = with_document(&server, document(1)).await;
    server.http("DELETE", &path(document(1)), &[], b"").await.ok(204);
    for n in 0..1_100 {
        client.edit("n", n);
    }
    let sync = stock::Message {
        heads: client.doc.get_heads(),
        need: vec![],
        have: vec![],
        changes: client
            .doc
            .get_changes(&[])
            .iter()
            .map(|change| change.raw_bytes().to_vec())
            .collect::<Vec<_>>()
            .into(),
        flags: None,
        version: stock::MessageVersion::V1,
    };
    let body = Body::Sync { document: document(1), data: sync.encode().into() };
    client.socket.send(message("writer", body)).await;
    let mut refused = 0;
    while refused < 1_101 {
        match client.socket.receive().await {
            Body::Rejected { changes, .. } => refused += changes.len(),
            Body::DocUnavailable { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let mut other = Client { id: document(2), doc: AutoCommit::new(), state: stock::State::new(), ..client };
    other.edit("n", 1);
    other.push().await;
    other.acknowledged().await;
}

#[tokio::test]
async fn a_document_of_which_only_changes_are_there_that_wait_can_be_deleted() {
    let server = memory_server().await;
    let mut doc = AutoCommit::new();
    doc.put(automerge::ROOT, "n", 1).unwrap();
    doc.commit();
    doc.put(automerge::ROOT, "n", 2).unwrap();
    doc.commit();
    let id = document(1);
    let last = doc.get_last_local_change().unwrap().raw_bytes().to_vec();
    let taken = server.http("POST", &format!("{}/changes", path(id)), &[], &last).await.ok(200);
    assert_eq!(taken.json()["pending"].as_array().unwrap().len(), 1);
    server.http("GET", &path(id), &[], b"").await.ok(404);
    server.http("DELETE", &path(id), &[], b"").await.ok(204);
    assert_gone(&server, id).await;
    assert_eq!(server.http("DELETE", &path(document(2)), &[], b"").await.status, 404);
}
