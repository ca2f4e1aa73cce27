//! What breaks the rules is told so, closed with the documented code, and harms nobody else.

mod common;

use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ScalarValue};
use bytes::Bytes;
use common::*;
use highwater_core::sync::{Flags, Message as SyncMessage, Version};
use highwater_core::wire::Body;
use highwater_server::Config;
use highwater_storage::MemoryStore;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Message as Frame;

async fn server(config: Config) -> TestServer {
    TestServer::start(config, always(Arc::new(MemoryStore::new()))).await
}

/// Two clients on one document, before and after something bad happened.
struct Honest(Client, Client, i64);

impl Honest {
    async fn on(server: &TestServer) -> Self {
        let a = Client::open(server, "honest-a", document(200)).await;
        let b = Client::open(server, "honest-b", document(200)).await;
        let mut honest = Self(a, b, 0);
        honest.still_well().await;
        honest
    }

    async fn still_well(&mut self) {
        self.2 += 1;
        self.0.edit("n", self.2);
        self.0.push().await;
        self.0.acknowledged().await;
        self.1.until("n", self.2).await;
    }
}

fn sync_frame(sender: &str, data: Bytes) -> Bytes {
    message(sender, Body::Sync { document: document(1), data })
}

fn with_chunks(chunks: Vec<Bytes>) -> Bytes {
    let message = SyncMessage {
        version: Version::V2,
        heads: vec![],
        need: vec![],
        have: vec![],
        chunks,
        flags: Some(Flags::default()),
    };
    message.encode()
}

fn one_change() -> (AutoCommit, Bytes) {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "n", 1).unwrap();
    doc.commit();
    let bytes = Bytes::copy_from_slice(doc.get_changes(&[])[0].raw_bytes());
    (doc, bytes)
}

#[tokio::test]
async fn messages_that_are_none_are_named_and_closed() {
    let server = server(config()).await;
    let mut honest = Honest::on(&server).await;
    let damaged_change = {
        let mut change = one_change().1.to_vec();
        change[5] ^= 1;
        with_chunks(vec![change.into()])
    };
    let cases: [(&str, Frame, u16, &str); 7] = [
        ("text", Frame::text("hello"), 1003, "text frames"),
        ("not CBOR", Frame::binary(&b"\xff\xff"[..]), 4400, "CBOR"),
        ("an empty frame", Frame::binary(&b""[..]), 4400, "CBOR"),
        ("no payload", Frame::Binary(sync_frame("bad", Bytes::new())), 4400, "`data` is empty"),
        ("no sync message", Frame::Binary(sync_frame("bad", Bytes::from_static(b"?"))), 4422, "unknown type"),
        ("a damaged change", Frame::Binary(sync_frame("bad", damaged_change)), 4422, "checksum"),
        (
            "a server's message",
            Frame::Binary(message(
                "bad",
                Body::Peer {
                    metadata: highwater_core::wire::PeerMetadata::default(),
                    version: "1".to_owned(),
                },
            )),
            4400,
            "not for clients",
        ),
    ];
    for (name, frame, code, words) in cases {
        let mut socket = server.join("bad").await;
        futures::SinkExt::send(&mut socket.stream, frame).await.unwrap();
        let (closed, error) = socket.closed().await;
        assert_eq!(closed, Some(code), "{name}");
        let error = error.unwrap_or_else(|| panic!("{name}: no error message"));
        assert!(error.contains(words), "{name}: {error}");
        honest.still_well().await;
    }
}

#[tokio::test]
async fn the_first_message_is_join_and_comes_in_time() {
    let server = server(Config { join_timeout: Duration::from_millis(50), ..config() }).await;
    let mut early = server.socket().await;
    early.send(sync_frame("early", Bytes::from_static(b"x"))).await;
    assert_eq!(early.closed().await.0, Some(4400));
    let mut silent = server.socket().await;
    assert_eq!(silent.closed().await.0, Some(4408));
}

#[tokio::test]
async fn a_frame_beyond_the_limit_is_refused_when_it_is_announced() {
    let server = server(config()).await;
    let mut honest = Honest::on(&server).await;
    let mut socket = server.join("big").await;
    let MaybeTlsStream::Plain(raw) = socket.stream.get_mut() else { panic!() };
    let mut header = vec![0x82, 0xff];
    header.extend((1u64 << 30).to_be_bytes());
    header.extend([0; 4]);
    raw.write_all(&header).await.unwrap();
    assert_eq!(socket.closed().await.0, Some(1009));
    honest.still_well().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_comes_back_to_everything() {
    let config = Config { send_queue_bytes_max: 1 << 20, ..config() };
    let server = server(config).await;
    let mut writer = Client::open(&server, "writer", document(1)).await;
    let mut deaf = Client::open(&server, "deaf", document(1)).await;
    while !deaf.unavailable {
        deaf.step().await.unwrap();
    }
    // More than any socket buffers hold.
    for n in 0..24 {
        writer.doc.put(ROOT, "blob", ScalarValue::Bytes(vec![n; 1 << 20])).unwrap();
        writer.edit("n", i64::from(n));
        writer.push().await;
        writer.acknowledged().await;
    }
    // It finds its socket closed, and starts again from what it has.
    while deaf.step().await.is_ok() && deaf.value("n") != Some(23) {}
    let mut again = Client::with(&server, "deaf", document(1), deaf.doc.clone()).await;
    again.until("n", 23).await;
    assert_eq!(again.doc.get_heads(), writer.doc.get_heads());
}

#[tokio::test]
async fn a_peer_without_a_sign_of_life_is_dropped() {
    let server = server(Config { ping_interval: Duration::from_millis(30), ..config() }).await;
    // It never reads, so it never answers a ping.
    let _dead = server.join("dead").await;
    patiently(async {
        while !server.get("/").await.contains("<dt>Connections</dt><dd>0</dd>") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let server = server(Config { connections_max: 1, ..config() }).await;
    let mut first = server.join("first").await;
    assert_eq!(server.socket().await.closed().await.0, Some(1013));
    first.join("first").await;
}

/// Rebuilds a change with other numbers, with a right checksum.
fn forged(change: &automerge::Change, edit: impl FnOnce(&mut automerge::ExpandedChange)) -> Bytes {
    let mut expanded = change.decode();
    edit(&mut expanded);
    Bytes::copy_from_slice(automerge::Change::from(expanded).raw_bytes())
}

#[tokio::test]
async fn changes_that_would_hurt_others_are_refused_by_name_and_newcomers_are_well() {
    let server = server(config()).await;
    let mut writer = Client::open(&server, "writer", document(1)).await;
    for n in 0..3 {
        writer.edit("n", n);
    }
    writer.push().await;
    writer.acknowledged().await;
    let last = writer.doc.get_last_local_change().unwrap();
    let poison = [
        forged(&last, |change| {
            change.seq = 9;
            change.deps = writer.doc.get_heads();
        }),
        forged(&last, |change| {
            change.seq = 4;
            change.deps = writer.doc.get_heads();
            change.start_op = 1.try_into().unwrap();
        }),
        forged(&last, |change| change.time += 1),
    ];
    let mut socket = server.join("poisoner").await;
    for change in poison {
        let hash = automerge::Change::try_from(&change[..]).unwrap().hash();
        socket.send(sync_frame("poisoner", with_chunks(vec![change]))).await;
        loop {
            if let Body::Rejected { changes, .. } = socket.receive().await {
                assert_eq!(changes[0].hash, hash);
                break;
            }
        }
    }
    // The connection is still good for other documents, and the document for others.
    let other = Body::Request { document: document(2), data: with_chunks(vec![]) };
    socket.send(message("poisoner", other)).await;
    while !matches!(socket.receive().await, Body::DocUnavailable { document: of } if of == document(2)) {}
    let mut newcomer = Client::open(&server, "newcomer", document(1)).await;
    newcomer.until("n", 2).await;
    newcomer.edit("n", 7);
    newcomer.push().await;
    writer.until("n", 7).await;
    AutoCommit::load(&writer.doc.save()).unwrap();
}
