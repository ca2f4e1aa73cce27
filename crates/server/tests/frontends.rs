//! What frontends need beside automerge-repo's protocol: the plain protocol, changes in a request, and questions whether changes are durable.

mod common;

use std::sync::Arc;

use automerge::AutoCommit;
use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use bytes::Bytes;
use common::*;
use futures::{SinkExt, StreamExt};
use highwater_core::wire::Body;
use highwater_core::{ChangeHash, DocumentId};
use highwater_server::{AllowedOrigins, Config};
use highwater_storage::{FaultyStore, MemoryStore, Pace, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A request with a body: the status, the head, and the body as JSON.
async fn post(server: &TestServer, path: &str, headers: &str, body: &[u8]) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let len = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that has read enough may close before it has read all.
    let _ = stream.write_all(body).await;
    let mut answer = String::new();
    patiently(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A document with some changes, each of them as a chunk and with its hash.
fn changes(count: i64) -> (AutoCommit, Vec<Bytes>, Vec<String>) {
    let mut doc = AutoCommit::new();
    for n in 0..count {
        doc.put(ROOT, "n", n).unwrap();
        doc.commit();
    }
    let all = doc.get_changes(&[]);
    let chunks = all.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
    let hashes = all.iter().map(|change| change.hash().to_string()).collect();
    (doc, chunks, hashes)
}

/// A stock document that synchronises in the plain protocol, as people write it by hand.
struct Plain {
    socket: Socket,
    doc: AutoCommit,
    state: stock::State,
    /// Control messages that came.
    said: Vec<Value>,
}

impl Plain {
    async fn open(server: &TestServer, id: DocumentId) -> Self {
        let mut request = format!("ws://{}/v1/docs/{id}/sync", server.address).into_client_request().unwrap();
        let protocol = "automerge-sync.v1".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (stream, answer) =
            tokio_tungstenite::connect_async_with_config(request, None, true).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "automerge-sync.v1");
        let mut plain = Self {
            socket: Socket { stream },
            doc: AutoCommit::new(),
            state: stock::State::new(),
            said: Vec::new(),
        };
        plain.push().await;
        plain
    }

    async fn push(&mut self) {
        if let Some(message) = self.doc.sync().generate_sync_message(&mut self.state) {
            self.socket.send(message.encode().into()).await;
        }
    }

    async fn edit(&mut self, value: i64) -> ChangeHash {
        self.doc.put(ROOT, "n", value).unwrap();
        let hash = self.doc.commit().unwrap();
        self.push().await;
        hash
    }

    async fn say(&mut self, text: &Value) {
        self.socket.stream.send(Frame::text(text.to_string())).await.unwrap();
    }

    async fn step(&mut self) -> Result<(), Option<CloseFrame>> {
        match patiently(self.socket.stream.next()).await {
            Some(Ok(Frame::Binary(data))) => {
                let message = stock::Message::decode(&data).unwrap();
                self.doc.sync().receive_sync_message(&mut self.state, message).unwrap();
                self.push().await;
                Ok(())
            }
            Some(Ok(Frame::Text(text))) => {
                self.said.push(serde_json::from_str(&text).unwrap());
                Ok(())
            }
            Some(Ok(Frame::Close(close))) => Err(close),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(None),
        }
    }

    async fn until(&mut self, value: i64) {
        while self.doc.get(ROOT, "n").unwrap().and_then(|(n, _)| n.as_i64()) != Some(value) {
            self.step().await.unwrap();
        }
    }

    async fn acknowledged(&mut self) {
        loop {
            let heads = self.doc.get_heads();
            if self.state.their_heads.as_deref() == Some(&heads[..]) {
                return;
            }
            self.step().await.unwrap();
        }
    }

    async fn answer(&mut self) -> Value {
        while self.said.is_empty() {
            self.step().await.unwrap();
        }
        self.said.remove(0)
    }
}

#[tokio::test]
async fn the_plain_protocol_and_that_of_automerge_repo_meet_in_one_document() {
    let server = memory_server().await;
    let mut plain = Plain::open(&server, document(1)).await;
    plain.edit(1).await;
    plain.acknowledged().await;
    let mut repo = Client::open(&server, "repo", document(1)).await;
    repo.until("n", 1).await;
    repo.edit("n", 2);
    repo.push().await;
    plain.until(2).await;
    plain.edit(3).await;
    repo.until("n", 3).await;
}

#[tokio::test]
async fn the_plain_protocol_tells_what_is_durable_and_what_was_refused() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let mut plain = Plain::open(&server, document(1)).await;
    let durable = plain.edit(1).await;
    plain.acknowledged().await;
    let unknown = "00".repeat(32);
    plain.say(&json!({ "have": [durable.to_string(), unknown], "query": 7 })).await;
    assert_eq!(
        plain.answer().await,
        json!({ "durable": [durable.to_string()], "missing": [unknown], "query": 7 })
    );
    // While it is on its way to disk it is not durable.
    store.stall();
    let stalled = plain.edit(2).await;
    patiently(async {
        while store.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    plain.say(&json!({ "have": [stalled.to_string()] })).await;
    assert_eq!(plain.answer().await, json!({ "durable": [], "missing": [stalled.to_string()], "query": 0 }));
    store.resume();
    plain.acknowledged().await;
    // Two changes with one number by one actor cannot both be in a document.
    let mut twin = AutoCommit::new().with_actor(plain.doc.get_actor().clone());
    twin.put(ROOT, "twin", true).unwrap();
    let refused = twin.commit().unwrap();
    let (status, _, body) =
        post(&server, &format!("/v1/docs/{}/changes", document(1)), "", &first_chunk(&mut twin)).await;
    assert_eq!(status, 200);
    assert_eq!(body["rejected"][0]["hash"], refused.to_string());
    plain.socket.send(sync_with(first_chunk(&mut twin))).await;
    let answer = plain.answer().await;
    assert_eq!(answer["rejected"][0]["hash"], refused.to_string());
    assert!(!answer["rejected"][0]["reason"].as_str().unwrap().is_empty());
}

fn first_chunk(doc: &mut AutoCommit) -> Bytes {
    Bytes::copy_from_slice(doc.get_changes(&[])[0].raw_bytes())
}

/// A sync message that carries a chunk and says nothing else.
fn sync_with(chunk: Bytes) -> Bytes {
    use highwater_core::sync::{Message, Version};
    let (heads, need, have, chunks) = (vec![], vec![], vec![], vec![chunk]);
    Message { version: Version::V2, heads, need, have, chunks, flags: None }.encode()
}

#[tokio::test]
async fn a_clean_close_of_the_plain_protocol_means_that_all_is_durable() {
    let store = FaultyStore::new(Pace::Manual);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let mut plain = Plain::open(&server, document(1)).await;
    plain.step().await.unwrap();
    plain.edit(1).await;
    let close = CloseFrame { code: 1000.into(), reason: "".into() };
    plain.socket.stream.send(Frame::Close(Some(close))).await.unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), plain.socket.stream.next()).await;
    assert!(early.is_err(), "answered before the commit: {early:?}");
    while store.step_all() == 0 {
        tokio::task::yield_now().await;
    }
    let closed = loop {
        if let Err(close) = plain.step().await {
            break close;
        }
    };
    assert_eq!(closed.map(|close| u16::from(close.code)), Some(1000));
}

#[tokio::test]
async fn what_is_no_control_message_closes_the_connection_and_says_why() {
    let server = memory_server().await;
    let too_many = json!({ "have": vec!["00".repeat(32); 1_001] }).to_string();
    for text in ["have", "{}", "{\"have\":[\"x\"]}", "{\"have\":5}", &too_many] {
        let mut plain = Plain::open(&server, document(1)).await;
        plain.socket.stream.send(Frame::text(text)).await.unwrap();
        let close = loop {
            if let Err(close) = plain.step().await {
                break close.unwrap();
            }
        };
        assert_eq!(u16::from(close.code), 4400, "{text}");
        assert!(plain.said.iter().any(|said| said["error"].is_string()), "{text}");
    }
    let answer = server.get("/v1/docs/nonsense/sync").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn changes_in_a_request_are_durable_before_they_are_answered_and_reach_who_is_there() {
    let store = FaultyStore::new(Pace::Manual);
    let server = TestServer::start(config(), always(Arc::new(store.clone()))).await;
    let mut reader = Client::open(&server, "reader", document(1)).await;
    while !reader.unavailable {
        reader.step().await.unwrap();
    }
    let (_, chunks, hashes) = changes(3);
    let path = format!("/v1/docs/{}/changes", document(1));
    let body = chunks.concat();
    let posted = post(&server, &path, "", &body);
    tokio::pin!(posted);
    let arrived = async {
        while store.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = patiently(arrived) => {}
        early = &mut posted => panic!("answered before the commit: {early:?}"),
    }
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut posted).await;
    assert!(early.is_err(), "answered before the commit");
    while store.step_all() == 0 {
        tokio::task::yield_now().await;
    }
    let (status, _, body) = posted.await;
    assert_eq!((status, &body), (200, &json!({ "durable": hashes, "pending": [], "rejected": [] })));
    assert!(chunks.iter().all(|chunk| store.is_durable(document(1), chunk)));
    reader.until("n", 2).await;
    // Again, and in part: nothing is stored twice.
    let appended = store.durable(document(1)).unwrap().records();
    let (status, _, again) = post(&server, &path, "", &chunks[1]).await;
    assert_eq!((status, &again["durable"]), (200, &json!([hashes[1]])));
    assert_eq!(store.durable(document(1)).unwrap().records(), appended);
}

#[tokio::test]
async fn slow_uploads_do_not_keep_the_last_words_of_a_page_waiting() {
    let server = memory_server().await;
    let path = format!("/v1/docs/{}/changes", document(1));
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 33554432\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let (_, chunks, hashes) = changes(1);
    let (status, _, answer) = post(&server, &path, "", &chunks[0]).await;
    assert_eq!((status, answer["durable"].clone()), (200, json!(hashes)));
}

#[tokio::test]
async fn a_change_whose_dependency_comes_later_is_kept_and_said_to_be_pending() {
    let server = memory_server().await;
    let (_, chunks, hashes) = changes(3);
    let path = format!("/v1/docs/automerge:{}/changes", document(1));
    let (status, _, body) = post(&server, &path, "", &chunks[2]).await;
    assert_eq!((status, body), (200, json!({ "durable": [], "pending": [hashes[2]], "rejected": [] })));
    let (status, _, have) =
        post(&server, &format!("/v1/docs/{}/have", document(1)), "", &question(&hashes)).await;
    assert_eq!((status, have), (200, json!({ "durable": [], "missing": hashes })));
    let (status, _, body) = post(&server, &path, "", &chunks[..2].concat()).await;
    assert_eq!((status, body), (200, json!({ "durable": hashes[..2], "pending": [], "rejected": [] })));
    let (_, _, have) = post(&server, &format!("/v1/docs/{}/have", document(1)), "", &question(&hashes)).await;
    assert_eq!(have, json!({ "durable": hashes, "missing": [] }));
}

fn question(hashes: &[String]) -> Vec<u8> {
    json!({ "hashes": hashes }).to_string().into_bytes()
}

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong_with_it() {
    let server = memory_server().await;
    let (_, chunks, _) = changes(1);
    let (id, mut broken) = (document(1), chunks[0].to_vec());
    *broken.last_mut().unwrap() ^= 1;
    let huge = vec![0; (32 << 20) + 1];
    let too_many = question(&vec!["00".repeat(32); 1_001]);
    let cases: [(&str, &str, &[u8], u16, &str); 7] = [
        ("nonsense", "changes", &chunks[0], 400, "invalid"),
        (&id.to_string(), "changes", b"no chunk", 400, "invalid_changes"),
        (&id.to_string(), "changes", &broken, 400, "invalid_changes"),
        (&id.to_string(), "changes", &huge, 413, "too_large"),
        (&id.to_string(), "have", b"{}", 400, "invalid"),
        (&id.to_string(), "have", &too_many, 400, "invalid"),
        (&id.to_string(), "have", b"{\"hashes\":[\"x\"]}", 400, "invalid"),
    ];
    for (id, what, body, status, code) in cases {
        let (found, head, problem) = post(&server, &format!("/v1/docs/{id}/{what}"), "", body).await;
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{what}: {problem}");
        assert!(head.contains("application/problem+json"), "{head}");
        assert_eq!((&problem["status"], &problem["retryable"]), (&json!(status), &json!(false)));
    }
    assert!(server.get(&format!("/v1/docs/{id}/changes/{}", "00".repeat(32))).await.contains("404"));
}

#[tokio::test]
async fn when_the_store_fails_a_request_is_not_told_that_its_changes_are_durable() {
    let store = FaultyStore::new(Pace::Immediate);
    let reopened = store.clone();
    let server =
        TestServer::start(config(), Arc::new(move || Ok(Arc::new(reopened.clone()) as Arc<dyn Store>))).await;
    store.fail_append_after(0);
    let (_, chunks, _) = changes(1);
    let (status, _, problem) =
        post(&server, &format!("/v1/docs/{}/changes", document(1)), "", &chunks[0]).await;
    assert_eq!((status, &problem["code"]), (503, &json!("unavailable")));
    assert_eq!(problem["retryable"], json!(true));
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out_if_origins_are_named() {
    let origins = AllowedOrigins::These(vec!["https://app.example.com".into()]);
    let config = Config { allowed_origins: origins, ..config() };
    let server = TestServer::start(config, always(Arc::new(MemoryStore::new()))).await;
    let (_, chunks, _) = changes(1);
    let path = format!("/v1/docs/{}/changes", document(1));
    for (origin, status) in
        [("https://app.example.com", 200), ("http://test", 200), ("https://evil.example", 403)]
    {
        let headers = format!("origin: {origin}\r\ncontent-type: text/plain;charset=UTF-8\r\n");
        let (found, head, _) = post(&server, &path, &headers, &chunks[0]).await;
        assert_eq!(found, status, "{origin}");
        let is_readable = head.contains(&format!("access-control-allow-origin: {origin}"));
        assert_eq!(is_readable, origin == "https://app.example.com", "{origin}: {head}");
    }
    for (origin, is_let_in) in [("https://app.example.com", true), ("https://evil.example", false)] {
        let mut request = format!("ws://{}/", server.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(tokio_tungstenite::connect_async(request).await.is_ok(), is_let_in, "{origin}");
    }
}

#[tokio::test]
async fn clients_of_the_extension_may_ask_which_changes_are_durable() {
    let server = memory_server().await;
    let mut client = Client::open(&server, "a", document(1)).await;
    client.edit("n", 1);
    client.push().await;
    client.acknowledged().await;
    let (durable, unknown) = (client.doc.get_heads()[0], ChangeHash([1; 32]));
    let question = Body::Have { document: document(1), query: 3, hashes: vec![durable, unknown] };
    client.socket.send(message("a", question)).await;
    let answer = loop {
        match client.socket.receive().await {
            Body::Sync { .. } => {}
            other => break other,
        }
    };
    let (durable, missing) = (vec![durable], vec![unknown]);
    assert_eq!(answer, Body::Durable { document: document(1), query: 3, durable, missing });
}
