//! The client against a real server over real sockets: the scenarios of the TypeScript client for `close`, cut connections and the outbox.

mod common;

use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{AutomergeError, ROOT, ReadDoc};
use common::*;
use highwater_client::{ChangeError, ChangeHash, Document, OpenError, SaveState, UnsavedReason};
use highwater_storage::{FaultyStore, MemoryStore, Pace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn memory_server() -> TestServer {
    TestServer::start(Arc::new(MemoryStore::new())).await
}

#[tokio::test]
async fn what_is_saved_survives_a_power_cut() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(Arc::new(store.clone())).await;
    let line = Line::to(server.address).await;
    let first = client(line.url()).await;
    let document = first.create().unwrap();
    let mut last = None;
    for n in 0..50 {
        last = Some(set(&document, "n", n));
    }
    document.wait_durable(PATIENCE).await.unwrap();
    line.cut();
    let server = TestServer::start(Arc::new(store.power_cut(7))).await;
    let second = client(server.url()).await;
    let found = second.open(document.id()).await.unwrap();
    assert_eq!(get(&found, "n"), Some(49));
    assert_eq!(found.is_saved(last.unwrap()).await, Ok(true));
}

#[tokio::test]
async fn close_waits_over_a_cut_line_until_all_is_durable() {
    let server = memory_server().await;
    let line = Line::to(server.address).await;
    let one = client(line.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    line.cut();
    for n in 1..=20 {
        set(&document, "n", n);
    }
    assert_eq!(document.save_status().unsaved_changes, 20);
    let mend = async {
        tokio::task::yield_now().await;
        line.mend(server.address);
    };
    let (closed, ()) = tokio::join!(one.close(PATIENCE), mend);
    closed.unwrap();
    let found = client(server.url()).await.open(document.id()).await.unwrap();
    assert_eq!(get(&found, "n"), Some(20));
}

#[tokio::test]
async fn close_without_a_server_names_what_is_missing_and_the_next_session_delivers_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let server = memory_server().await;
    let line = Line::to(server.address).await;
    let first = builder(line.url()).outbox(&path).connect().await.unwrap();
    let document = first.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    line.cut();
    let hash = set(&document, "n", 1);
    let error = first.close(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.reason, UnsavedReason::Timeout);
    assert_eq!((error.documents.len(), &error.documents[0].hashes[..]), (1, &[hash][..]));
    let mut status = document.save_status();
    while status.state != SaveState::SavedOnDevice {
        status = tokio::time::timeout(PATIENCE, document.save_status_changed(&status)).await.unwrap();
    }
    first.disconnect().await;

    let second = builder(server.url()).outbox(&path).connect().await.unwrap();
    second.flush(PATIENCE).await.unwrap();
    let found = second.open(document.id()).await.unwrap();
    assert_eq!(get(&found, "n"), Some(1));
    second.close(PATIENCE).await.unwrap();
    let third = builder(server.url()).outbox(&path).connect().await.unwrap();
    assert_eq!(third.save_status().unsaved_changes, 0, "nothing is left");
}

#[tokio::test]
async fn a_restart_is_survived_and_the_change_made_meanwhile_is_saved() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(Arc::new(store.clone())).await;
    let line = Line::to(server.address).await;
    let one = client(line.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    server.stopped().await;
    let hash = set(&document, "n", 1);
    assert_ne!(document.save_status().state, SaveState::Saved);
    let server = TestServer::start(Arc::new(store.reopen())).await;
    line.mend(server.address);
    document.wait_durable(PATIENCE).await.unwrap();
    assert_eq!(document.is_saved(hash).await, Ok(true));
}

#[tokio::test]
async fn nothing_is_called_saved_before_the_store_has_it() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = TestServer::start(Arc::new(store.clone())).await;
    let one = client(server.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    store.set_pace(Pace::Manual);
    let hash = set(&document, "n", 1);
    while store.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let error = one.close(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(&error.documents[0].hashes[..], [hash]);
    assert_eq!(document.is_saved(hash).await, Ok(false));
    assert_eq!(document.save_status().state, SaveState::Saving);
    let step = async {
        while !document.is_saved(hash).await.unwrap_or(true) {
            store.step();
            tokio::task::yield_now().await;
        }
        store.set_pace(Pace::Immediate);
        store.step();
    };
    let (closed, ()) = tokio::join!(one.close(PATIENCE), step);
    closed.unwrap();
}

#[tokio::test]
async fn a_change_that_the_server_refuses_is_called_rejected_with_its_reason() {
    let server = memory_server().await;
    let one = client(server.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    // Further away than a number of JavaScript can count exactly.
    let options = CommitOptions::default().with_time(i64::MAX);
    let (hash, ()) = document.change_with::<_, AutomergeError>(options, |tx| tx.put(ROOT, "n", 1)).unwrap();
    let error = document.wait_durable(PATIENCE).await.unwrap_err();
    assert_eq!(error.reason, UnsavedReason::Rejected);
    assert_eq!(document.save_status().state, SaveState::Rejected);
    let error = one.close(PATIENCE).await.unwrap_err();
    assert_eq!(error.documents[0].rejected[0].hash, hash.unwrap());
    assert!(!error.documents[0].rejected[0].reason.is_empty());
}

#[tokio::test]
async fn what_the_server_overlooks_is_sent_again_on_the_same_connection() {
    let server = memory_server().await;
    let way = Forgetful::to(server.address).await;
    // Nothing but that can bring it about: no silence is long enough for another connection.
    let one = builder(way.url()).heartbeat(Duration::from_secs(60), PATIENCE).connect().await.unwrap();
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    way.lose(true);
    let hashes = [set(&document, "n", 1), set(&document, "n", 2)];
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(document.save_status().state, SaveState::Saving);
    way.lose(false);
    one.close(PATIENCE).await.unwrap();
    let found = client(server.url()).await.open(document.id()).await.unwrap();
    for hash in hashes {
        assert_eq!(found.is_saved(hash).await, Ok(true));
    }
}

#[tokio::test]
async fn ten_editors_are_all_saved_and_counts_return_to_zero() {
    let server = memory_server().await;
    let line = Line::to(server.address).await;
    let first = client(server.url()).await;
    let document = first.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    let mut people = Vec::new();
    for who in 0..10 {
        let client = client(if who % 2 == 0 { server.url() } else { line.url() }).await;
        people.push((client.open(document.id()).await.unwrap(), client));
    }
    for n in 0..20 {
        for (who, (document, _)) in people.iter().enumerate() {
            set(document, &format!("{who}-{n}"), n);
        }
        match n {
            7 => line.cut(),
            12 => line.mend(server.address),
            _ => {}
        }
        tokio::task::yield_now().await;
    }
    for (_, client) in &people {
        client.flush(PATIENCE).await.unwrap();
        assert_eq!(client.save_status().unsaved_changes, 0);
    }
    let found = client(server.url()).await.open(document.id()).await.unwrap();
    assert_eq!(found.read(|doc| doc.length(ROOT)).unwrap(), 201);
    for (_, client) in &people {
        client.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_long_document_goes_up_and_comes_down() {
    let server = memory_server().await;
    let one = client(server.url()).await;
    let document = one.create().unwrap();
    for n in 0..3000 {
        set(&document, &format!("a key that is not short, number {n}"), n);
    }
    one.close(PATIENCE).await.unwrap();
    let two = client(server.url()).await;
    let found = two.open(document.id()).await.unwrap();
    assert_eq!(found.read(|doc| doc.length(ROOT)).unwrap(), 3000);
    assert_eq!(found.save_status().state, SaveState::Saved);
    set(&found, "n", 1);
    two.close(PATIENCE).await.unwrap();
}

/// Threads that change the document until it is closed; each says what it made.
fn type_in_threads(document: &Document) -> Vec<std::thread::JoinHandle<Vec<ChangeHash>>> {
    let type_on = |who: usize, document: Document| {
        let mut made = Vec::new();
        for n in 0..300 {
            match document.change(|tx| tx.put(ROOT, format!("{who}"), n)) {
                Ok(hash) => made.extend(hash),
                Err(ChangeError::Closed) => break,
                Err(error) => panic!("{error}"),
            }
            // Now and then everything is saved for a moment, and a close succeeds.
            std::thread::sleep(Duration::from_micros(n as u64 * 20));
        }
        made
    };
    let spawn = |who| {
        let document = document.clone();
        std::thread::spawn(move || type_on(who, document))
    };
    (0..3).map(spawn).collect()
}

fn made_by(threads: Vec<std::thread::JoinHandle<Vec<ChangeHash>>>) -> Vec<ChangeHash> {
    let join = || threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    tokio::task::block_in_place(join)
}

async fn check_saved(server: &TestServer, document: &Document, made: Vec<ChangeHash>) {
    if made.is_empty() {
        return;
    }
    let found = client(server.url()).await.open(document.id()).await.unwrap();
    for hash in made {
        assert_eq!(found.is_saved(hash).await, Ok(true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_threads_change_while_the_client_is_closed_is_saved_or_refused() {
    let server = memory_server().await;
    for _ in 0..10 {
        let one = client(server.url()).await;
        let document = one.create().unwrap();
        let other = one.create().unwrap();
        let threads = type_in_threads(&document).into_iter().chain(type_in_threads(&other)).collect();
        // Two that close at once.
        let closing =
            [one.clone(), one.clone()].map(|one| tokio::spawn(async move { one.close(PATIENCE).await }));
        for closed in closing {
            closed.await.unwrap().unwrap();
        }
        let made = made_by(threads);
        assert_eq!(one.save_status().state, SaveState::Saved);
        let (found, asking) = (client(server.url()).await, made.len());
        let mut saved = 0;
        for document in [&document, &other] {
            let Ok(found) = found.open(document.id()).await else { continue };
            for hash in &made {
                saved += usize::from(found.is_saved(*hash).await.unwrap());
            }
        }
        assert_eq!(saved, asking);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_threads_change_while_the_client_is_disconnected_is_in_the_outbox_or_refused() {
    let server = memory_server().await;
    let line = Line::to(server.address).await;
    line.cut();
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.db");
        let one = builder(line.url()).outbox(&path).connect().await.unwrap();
        let document = one.create().unwrap();
        let threads = type_in_threads(&document);
        tokio::time::sleep(Duration::from_millis(20)).await;
        one.disconnect().await;
        let made = made_by(threads);
        let next = builder(server.url()).outbox(&path).connect().await.unwrap();
        next.close(PATIENCE).await.unwrap();
        check_saved(&server, &document, made).await;
    }
}

/// A request over HTTP; its status.
async fn http(server: &TestServer, request: &str, kind: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer[9..12].parse().unwrap()
}

#[tokio::test]
async fn what_a_backend_patches_over_http_is_heard() {
    let server = memory_server().await;
    let one = client(server.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    let mut watch = document.watch();
    let request = format!("PATCH /v1/docs/{}", document.id());
    assert_eq!(http(&server, &request, "application/merge-patch+json", r#"{"patched": 7}"#).await, 200);
    let heads = tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
    assert_eq!((get(&document, "patched"), document.is_saved(heads[0]).await), (Some(7), Ok(true)));
}

#[tokio::test]
async fn what_was_changed_offline_of_a_document_that_was_deleted_is_refused_at_once() {
    let server = memory_server().await;
    let line = Line::to(server.address).await;
    let one = client(line.url()).await;
    let document = one.create().unwrap();
    set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    line.cut();
    let hashes = [set(&document, "n", 1), set(&document, "n", 2)];
    delete(&server, &document).await;
    line.mend(server.address);
    let closed = tokio::time::timeout(PATIENCE, one.close(Duration::from_secs(3600))).await.unwrap();
    let error = closed.unwrap_err();
    assert_eq!((error.reason, &error.documents[0].hashes[..]), (UnsavedReason::Deleted, &hashes[..]));
    let rejected = &error.documents[0].rejected;
    assert!(rejected.iter().map(|rejected| rejected.hash).eq(hashes), "{rejected:?}");
    assert!(rejected.iter().all(|rejected| rejected.reason == "the document was deleted"), "{rejected:?}");
    assert!(document.is_deleted());
    assert_eq!(document.change(|tx| tx.put(ROOT, "n", 3)), Err(ChangeError::Deleted));
}

#[tokio::test]
async fn a_document_that_is_deleted_is_told_to_those_who_have_it_and_is_not_opened_again() {
    let server = memory_server().await;
    let one = client(server.url()).await;
    let document = one.create().unwrap();
    let hash = set(&document, "n", 0);
    document.wait_durable(PATIENCE).await.unwrap();
    let mut watch = document.watch();
    delete(&server, &document).await;
    assert_eq!(tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap(), None);
    assert!(document.is_deleted());
    assert_eq!(document.is_saved(hash).await, Ok(false));
    let opened = client(server.url()).await.open(document.id()).await;
    assert_eq!(opened.unwrap_err(), OpenError::Deleted(document.id()));
    one.close(PATIENCE).await.unwrap();
}

async fn delete(server: &TestServer, document: &Document) {
    let status = http(server, &format!("DELETE /v1/docs/{}", document.id()), "text/plain", "").await;
    assert!((200..300).contains(&status), "{status}");
}
