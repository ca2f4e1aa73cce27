//! The server's main job, over real sockets: documents come together, and what is acknowledged is stored.

mod common;

use std::sync::Arc;

use automerge::AutoCommit;
use common::*;
use highwater_core::wire::{Body, Ephemeral, PeerMetadata, RemoteHeads};
use highwater_core::{SessionId, StorageId};
use highwater_server::Config;
use highwater_storage::{MemoryStore, SqliteStore, Store};
use std::time::Duration;

#[tokio::test]
async fn two_clients_come_together_and_a_late_one_gets_all() {
    let server = memory_server().await;
    let mut a = Client::open(&server, "a", document(1)).await;
    a.edit("a", 1);
    a.push().await;
    a.acknowledged().await;
    let mut b = Client::open(&server, "b", document(1)).await;
    b.until("a", 1).await;
    b.edit("b", 2);
    b.push().await;
    a.until("b", 2).await;
    drop((a, b));
    let mut c = Client::open(&server, "c", document(1)).await;
    c.until("b", 2).await;
    assert_eq!(c.value("a"), Some(1));
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn acknowledged_changes_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let open: highwater_server::OpenStore =
        Arc::new(move || Ok(Arc::new(SqliteStore::open(&path)?) as Arc<dyn Store>));
    let server = TestServer::start(config(), open.clone()).await;
    let mut a = Client::open(&server, "a", document(1)).await;
    for n in 0..50 {
        a.edit("n", n);
        a.push().await;
    }
    a.acknowledged().await;
    server.stopped().await.unwrap();
    let server = TestServer::start(config(), open).await;
    let mut b = Client::open(&server, "b", document(1)).await;
    b.until("n", 49).await;
    assert_eq!(b.doc.get_heads(), a.doc.get_heads());
}

#[tokio::test]
async fn a_document_that_does_not_exist_is_unavailable_until_it_does() {
    let server = memory_server().await;
    let mut asks = Client::open(&server, "asks", document(1)).await;
    while !asks.unavailable {
        asks.step().await.unwrap();
    }
    let mut has = Client::open(&server, "has", document(1)).await;
    has.edit("n", 1);
    has.push().await;
    has.acknowledged().await;
    asks.until("n", 1).await;
}

#[tokio::test]
async fn a_long_document_goes_up_and_down() {
    let server = memory_server().await;
    let doc = AutoCommit::load(&long_document(20_000).save()).unwrap();
    let mut up = Client::with(&server, "up", document(1), doc).await;
    up.acknowledged().await;
    let mut down = Client::open(&server, "down", document(1)).await;
    down.until("n", 19_999).await;
    assert_eq!(down.doc.get_heads(), up.doc.get_heads());
}

#[tokio::test]
async fn ephemeral_messages_reach_the_others_who_have_the_document_open() {
    let server = memory_server().await;
    let (mut a, mut b) =
        (Client::open(&server, "a", document(1)).await, Client::open(&server, "b", document(1)).await);
    let mut elsewhere = Client::open(&server, "c", document(2)).await;
    for client in [&mut a, &mut b, &mut elsewhere] {
        while !client.unavailable {
            client.step().await.unwrap();
        }
    }
    let ephemeral = |n: u8| Ephemeral {
        document: document(n),
        count: 1,
        session: SessionId::new("session").unwrap(),
        data: bytes::Bytes::from_static(b"\x01"),
    };
    // One for a document that it has not opened is dropped; the next one shows that it was.
    a.socket.send(message("a", Body::Ephemeral(ephemeral(2)))).await;
    a.socket.send(message("a", Body::Ephemeral(ephemeral(1)))).await;
    assert_eq!(b.socket.receive().await, Body::Ephemeral(ephemeral(1)));
    elsewhere.edit("n", 1);
    elsewhere.push().await;
    elsewhere.acknowledged().await;
}

#[tokio::test]
async fn the_heads_of_other_storages_are_told_to_those_who_follow_them() {
    let server = memory_server().await;
    let storage = StorageId::new("disk-of-a").unwrap();
    let mut follower = Client::open(&server, "follower", document(1)).await;
    let body = Body::RemoteSubscriptionChange { add: vec![storage.clone()], remove: vec![] };
    follower.socket.send(message("follower", body)).await;

    let mut socket = server.socket().await;
    let metadata = PeerMetadata { storage_id: Some(storage.clone()), ..PeerMetadata::default() };
    socket.send(message("a", Body::Join { metadata, versions: vec!["1".to_owned()] })).await;
    assert!(matches!(socket.receive().await, Body::Peer { .. }));
    let mut doc = AutoCommit::new();
    automerge::transaction::Transactable::put(&mut doc, automerge::ROOT, "n", 1).unwrap();
    let mut a = Client {
        name: "a".to_owned(),
        socket,
        id: document(1),
        doc,
        state: automerge::sync::State::new(),
        unavailable: false,
    };
    a.push().await;
    a.acknowledged().await;
    let told = loop {
        if let Body::RemoteHeadsChanged { document: of, heads } = follower.socket.receive().await {
            assert_eq!(of, document(1));
            break heads;
        }
    };
    let [RemoteHeads { storage: of, heads, timestamp }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((of, &heads[..]), (&storage, &a.doc.get_heads()[..]));
    assert!(*timestamp > 1.7e12);
}

#[tokio::test]
async fn a_peer_that_joins_again_replaces_its_old_connection() {
    let server = memory_server().await;
    let mut old = server.join("tab").await;
    let mut new = Client::open(&server, "tab", document(1)).await;
    assert_eq!(old.closed().await.0, Some(4409));
    new.edit("n", 1);
    new.push().await;
    new.acknowledged().await;
}

#[tokio::test]
async fn an_idle_document_leaves_memory_and_comes_back() {
    let config = Config { idle_document_after: Duration::from_millis(1), ..config() };
    let server = TestServer::start(config, always(Arc::new(MemoryStore::new()))).await;
    let mut a = Client::open(&server, "a", document(1)).await;
    a.edit("n", 1);
    a.push().await;
    a.acknowledged().await;
    drop(a);
    patiently(async {
        while !server.get("/").await.contains("data-documents=\"0\"") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut b = Client::open(&server, "b", document(1)).await;
    b.until("n", 1).await;
}
