//! A server in an application's process: its documents are read and edited there, and its routes are mounted in the application's own server.

mod common;

use std::sync::Arc;
use std::time::Duration;

use automerge::ReadDoc;
use automerge::{AutoCommit, ROOT};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use common::*;
use futures::FutureExt;
use highwater_core::wire::Body;
use highwater_server::{
    Config, DocumentError, Documents, Edit, EditOptions, Embedded, ListDocuments, NewDocument, Secret,
    Server, Watched, Webhook, WebhookConfig,
};
use highwater_storage::{FaultyStore, MemoryStore, Pace, Store};
use serde_json::json;

async fn embedded(store: Arc<dyn Store>) -> Embedded {
    Server::builder().config(config()).store(always(store)).embed().await.unwrap()
}

/// An application with a route of its own and everything else below `/documents`.
async fn application(embedded: &Embedded) -> TestServer {
    let own = Router::new().route("/", get(async || "mine")).nest("/documents", embedded.router());
    TestServer::of_application(own, "/documents/v1/sync").await
}

fn merge(value: serde_json::Value) -> Edit {
    Edit::merge_patch(value.to_string().as_bytes()).unwrap()
}

async fn made(documents: &Documents, value: serde_json::Value) -> highwater_core::DocumentId {
    let new = NewDocument::Edit(Edit::set(value.to_string().as_bytes()).unwrap());
    documents.create(None, new, EditOptions::default()).await.unwrap().id
}

#[tokio::test]
async fn an_edit_in_the_process_reaches_clients_and_theirs_are_read_there() {
    let embedded = embedded(Arc::new(MemoryStore::new())).await;
    let server = application(&embedded).await;
    let documents = embedded.documents();
    let id = made(&documents, json!({ "a": 1 })).await;
    let mut client = Client::open(&server, "a", id).await;
    client.until("a", 1).await;

    let options = EditOptions { message: Some("why".to_owned()), time: Some(77), ..EditOptions::default() };
    let edited = documents.edit(id, merge(json!({ "b": 2 })), options).await.unwrap();
    client.until("b", 2).await;
    let hash = automerge::ChangeHash(edited.hash.unwrap().0);
    let change = client.doc.get_change_by_hash(&hash).unwrap();
    assert_eq!((change.message(), change.timestamp()), (Some("why"), 77));
    assert_eq!(documents.contains(id, vec![edited.hash.unwrap()]).await.unwrap(), [true]);

    client.edit("c", 3);
    client.push().await;
    client.acknowledged().await;
    let reading = documents.json(id).await.unwrap();
    assert_eq!(reading.value, json!({ "a": 1, "b": 2, "c": 3 }));
    let state = documents.state(id).await.unwrap();
    assert_eq!((state.heads, state.changes), (reading.heads, 3));
    let listed = documents.list(ListDocuments::with_prefix("", 10)).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id]);
    assert_eq!(documents.changed(listed[0].changed, 10).await.unwrap(), []);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn the_routes_are_below_a_path_of_the_application() {
    let embedded = embedded(Arc::new(MemoryStore::new())).await;
    let server = application(&embedded).await;
    assert!(server.get("/").await.ends_with("mine"));
    let json = [("content-type", "application/json")];
    let posted = server.http("POST", "/documents/v1/docs", &json, br#"{ "a": 1 }"#).await.ok(201);
    let location = posted.header("location").unwrap().to_owned();
    assert!(location.starts_with("/documents/v1/docs/"), "{location}");
    assert_eq!(server.http("GET", &location, &[], b"").await.ok(200).json(), json!({ "a": 1 }));
    made(&embedded.documents(), json!({})).await;
    let page = server.http("GET", "/documents/v1/docs?limit=1", &[], b"").await.ok(200).json();
    let next = page["next"].as_str().unwrap();
    let rest = server.http("GET", next, &[], b"").await.ok(200).json();
    assert_eq!((rest["documents"].as_array().unwrap().len(), &rest["next"]), (1, &json!(null)));
    let description = server.http("GET", "/documents/v1/openapi.json", &[], b"").await.ok(200).json();
    assert_eq!(description["servers"], json!([{ "url": "/documents" }]));
    assert_eq!(server.http("GET", "/documents/v1/nothing", &[], b"").await.code(), "no_such_route");
    assert_eq!(server.http("GET", "/v1/docs", &[], b"").await.status, 404);

    // Without a path of its own, too.
    let merged = Router::new().route("/", get(async || "mine")).merge(embedded.router());
    let server = TestServer::of_application(merged, "/v1/sync").await;
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    let mut client = Client::open(&server, "a", id).await;
    client.until("a", 1).await;
}

#[tokio::test]
async fn what_cannot_be_done_is_told_by_type() {
    let embedded = embedded(Arc::new(MemoryStore::new())).await;
    let documents = embedded.documents();
    let id = document(1);
    let edit = |value: serde_json::Value, options: EditOptions| documents.edit(id, merge(value), options);
    let missing = edit(json!({ "a": 1 }), EditOptions::default()).await;
    assert!(matches!(missing, Err(DocumentError::NotFound)));
    assert!(matches!(documents.json(id).await, Err(DocumentError::NotFound)));
    let creates = EditOptions { creates: true, ..EditOptions::default() };
    let first = edit(json!({ "a": 1 }), creates).await.unwrap();
    assert!(first.is_new);
    let again = documents.create(Some(id), NewDocument::Empty, EditOptions::default()).await;
    assert!(matches!(again, Err(DocumentError::Exists)));

    let if_first = || EditOptions { if_heads: Some(first.heads.clone()), ..EditOptions::default() };
    let second = edit(json!({ "a": 2 }), if_first()).await.unwrap();
    match edit(json!({ "a": 3 }), if_first()).await {
        Err(DocumentError::PreconditionFailed { heads }) => assert_eq!(heads, second.heads),
        other => panic!("{other:?}"),
    }

    let keyed = || EditOptions { idempotency_key: Some("k".to_owned()), ..EditOptions::default() };
    let one_more = |by: i64| {
        let patch = json!([{ "op": "increment", "path": "/n", "by": by }]).to_string();
        documents.edit(id, Edit::json_patch(patch.as_bytes()).unwrap(), keyed())
    };
    edit(json!({ "n": { "$counter": 0 } }), EditOptions::default()).await.unwrap();
    let once = one_more(5).await.unwrap();
    assert_eq!(one_more(5).await.unwrap(), once);
    assert!(matches!(one_more(6).await, Err(DocumentError::KeyReused)));
    assert_eq!(documents.json(id).await.unwrap().value["n"], json!({ "$counter": 5 }));

    let panicking = documents.read(id, |_| -> Result<(), _> { panic!("at the sight of it") }).await;
    assert!(matches!(panicking, Err(DocumentError::Internal(_))));
    let file = documents.read(id, |document| document.save().map_err(highwater_core::ReadError::Internal));
    let file = file.await.unwrap();
    let loaded = AutoCommit::load(&file).unwrap();
    assert!(loaded.get(ROOT, "n").unwrap().is_some());

    // A file becomes a document, and changes become part of one.
    let copy = documents.create(None, NewDocument::Saved(file.clone()), keyed()).await.unwrap();
    let repeated = documents.create(None, NewDocument::Saved(file.clone()), keyed()).await.unwrap();
    assert_eq!((copy.id, &copy.heads), (repeated.id, &repeated.heads));
    let taken = documents.take_changes(document(2), file).await.unwrap();
    assert_eq!(taken.durable.len(), documents.state(document(2)).await.unwrap().changes);
    documents.delete(copy.id).await.unwrap();
    assert!(matches!(documents.json(copy.id).await, Err(DocumentError::Deleted)));
    assert!(matches!(documents.delete(copy.id).await, Err(DocumentError::Deleted)));
    let bad = documents.take_changes(document(2), Bytes::from_static(b"nonsense")).await;
    assert!(matches!(bad, Err(DocumentError::Chunk(_))));
}

#[tokio::test]
async fn a_document_is_followed_until_the_server_goes() {
    let store = FaultyStore::new(Pace::Immediate);
    let embedded = embedded(Arc::new(store.clone())).await;
    let server = application(&embedded).await;
    let documents = embedded.documents();
    let id = document(1);
    let mut watch = documents.watch(id);
    assert_eq!(watch.next().await.unwrap(), Watched::Heads(Vec::new()));
    let mut client = Client::open(&server, "a", id).await;
    client.edit("a", 1);
    client.push().await;
    client.acknowledged().await;
    let heads = documents.state(id).await.unwrap().heads;
    assert_eq!(patiently(watch.next()).await.unwrap(), Watched::Heads(heads));

    // What is not durable is not told.
    store.set_pace(Pace::Manual);
    let editing = {
        let documents = documents.clone();
        tokio::spawn(
            async move { documents.edit(id, merge(json!({ "a": 2 })), EditOptions::default()).await },
        )
    };
    in_flight(&store).await;
    assert!(watch.next().now_or_never().is_none());
    store.set_pace(Pace::Immediate);
    store.step_all();
    let edited = patiently(editing).await.unwrap().unwrap();
    assert_eq!(patiently(watch.next()).await.unwrap(), Watched::Heads(edited.heads));

    let mut other = documents.watch(id);
    assert!(matches!(other.next().await, Ok(Watched::Heads(_))));
    documents.delete(id).await.unwrap();
    assert_eq!(patiently(watch.next()).await.unwrap(), Watched::Deleted);
    assert_eq!(patiently(other.next()).await.unwrap(), Watched::Deleted);
    drop(client);
    embedded.drain(Duration::from_secs(10)).await.unwrap();
    assert!(watch.next().await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn nothing_is_answered_that_the_store_does_not_have() {
    let store = FaultyStore::new(Pace::Immediate);
    let embedded = embedded(Arc::new(store.clone())).await;
    let documents = embedded.documents();
    let id = made(&documents, json!({ "a": 1 })).await;
    store.fail_append_after(0);
    let failed = documents.edit(id, merge(json!({ "a": 2 })), EditOptions::default()).await;
    assert!(failed.unwrap_err().is_retryable());
    drop(embedded);
}

#[tokio::test]
async fn a_drain_acknowledges_what_was_sent_and_says_goodbye() {
    let store = FaultyStore::new(Pace::Immediate);
    let embedded = embedded(Arc::new(store.clone())).await;
    let server = application(&embedded).await;
    assert_eq!(embedded.ready().await, Ok(()));
    let mut client = Client::open(&server, "a", document(1)).await;
    while !client.unavailable {
        client.step().await.unwrap();
    }
    store.set_pace(Pace::Manual);
    client.edit("a", 1);
    client.push().await;
    in_flight(&store).await;
    let draining = tokio::spawn({
        let embedded = embedded.clone();
        async move { embedded.drain(Duration::from_secs(10)).await }
    });
    store.set_pace(Pace::Immediate);
    store.step_all();
    let close = loop {
        if let Err(close) = client.step().await {
            break close;
        }
    };
    assert!(client.is_acknowledged());
    assert_eq!(close.map(|close| u16::from(close.code)), Some(1012));
    patiently(draining).await.unwrap().unwrap();
    assert_eq!(embedded.ready().await, Err("shutting down".to_owned()));
    let late = embedded.documents().json(document(1)).await;
    assert!(late.unwrap_err().is_retryable());
    // The application's server is there still, and lets nobody in.
    let mut late = server.socket().await;
    late.send(message("b", join_body())).await;
    assert!(matches!(late.try_receive().await, Err(Some(_)) | Ok(Body::Error { .. })));
}

#[tokio::test]
async fn a_webhook_is_told_what_happens_from_the_first_moment() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", receiver.local_addr().unwrap());
    let secret = Secret::parse(&format!("whsec_{}=", "A".repeat(43))).unwrap();
    let hook = Webhook::new("first", &url, secret).unwrap();
    let webhooks = WebhookConfig { hooks: vec![hook], ..WebhookConfig::default() };
    let builder = Server::builder().config(Config { webhooks, ..config() });
    let embedded = builder.store(always(Arc::new(MemoryStore::new()))).embed().await.unwrap();
    let id = made(&embedded.documents(), json!({ "n": 1 })).await;
    let (mut post, _) = patiently(receiver.accept()).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(&id.to_string()) {
        assert_ne!(patiently(post.read_buf(&mut said)).await.unwrap(), 0);
    }
    post.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    embedded.drain(Duration::from_secs(5)).await.unwrap();
}
