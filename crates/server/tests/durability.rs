//! Nothing is said before it is stored, whatever the store does, and however a connection or the server ends.

mod common;

use std::sync::{Arc, Mutex};

use common::*;
use futures::SinkExt;
use highwater_core::sync::{Message as SyncMessage, Version};
use highwater_core::wire::Body;

use highwater_server::OpenStore;
use highwater_storage::{FaultyStore, Pace, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// A client that has sent its first change, which is on its way to disk.
async fn uploading(server: &TestServer, store: &FaultyStore) -> Client {
    let mut client = Client::open(server, "a", document(1)).await;
    while !client.unavailable {
        client.step().await.unwrap();
    }
    client.edit("n", 1);
    client.push().await;
    in_flight(store).await;
    client
}

/// A frame as clients send it, with a mask that changes nothing. Payloads of up to 64 KiB.
fn raw_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | 126];
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_close_while_the_server_says_goodbye_is_not_answered_for_what_was_not_taken_in() {
    let store = FaultyStore::new(Pace::Immediate);
    let mut server = server_on(&store).await;
    let mut client = Client::open(&server, "a", document(1)).await;
    client.edit("n", 1);
    client.push().await;
    client.acknowledged().await;
    server.begin_stop();
    // From here on byte by byte, since no library can be kept from answering a ping.
    let stream = client.socket.stream.get_mut();
    let mut heard = Vec::new();
    patiently(async {
        while !contains(&heard, b"\x89\x04read") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "the server asks whether all was read");
        }
    })
    .await;
    let late = SyncMessage {
        version: Version::V2,
        heads: vec![],
        need: vec![],
        have: vec![],
        chunks: vec![],
        flags: None,
    };
    let late = message("a", Body::Sync { document: document(1), data: late.encode() });
    stream.write_all(&raw_frame(2, &late)).await.unwrap();
    stream.write_all(&raw_frame(8, &1000u16.to_be_bytes())).await.unwrap();
    // A reset is as good as an end here.
    let _ = patiently(stream.read_to_end(&mut heard)).await;
    assert!(
        !contains(&heard, b"\x88\x02\x03\xe8"),
        "a close was answered, and the message before it was not taken in"
    );
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_or_passed_on_before_it_is_stored() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let mut reader = Client::open(&server, "reader", document(1)).await;
    while !reader.unavailable {
        reader.step().await.unwrap();
    }
    let mut writer = uploading(&server, &store).await;
    // Everything that either was told until now, it was told before the commit.
    let told = tokio::time::timeout(std::time::Duration::from_millis(200), async {
        tokio::select! { _ = writer.step() => (), _ = reader.step() => () }
    });
    assert!(told.await.is_err(), "the server said something while nothing was stored");
    assert!(!writer.is_acknowledged() && reader.value("n").is_none());
    assert!(store.step());
    writer.acknowledged().await;
    reader.until("n", 1).await;
}

#[tokio::test]
async fn a_close_is_answered_when_all_before_it_is_stored() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let mut client = uploading(&server, &store).await;
    let close = CloseFrame { code: 1000.into(), reason: "".into() };
    client.socket.stream.send(Frame::Close(Some(close))).await.unwrap();
    let answer = tokio::time::timeout(std::time::Duration::from_millis(200), client.socket.try_receive());
    assert!(answer.await.is_err(), "the close was answered while nothing was stored");
    assert!(store.step());
    assert_eq!(client.socket.closed().await.0, Some(1000));
    assert_eq!(store.durable(document(1)).unwrap().changes.len(), 1);
}

/// Whether the socket ends, or says anything, although nothing was stored.
async fn is_silent(socket: &mut Socket) -> bool {
    tokio::time::timeout(std::time::Duration::from_millis(200), socket.try_receive()).await.is_err()
}

fn close_frame() -> Frame {
    Frame::Close(Some(CloseFrame { code: 1000.into(), reason: "".into() }))
}

#[tokio::test]
async fn leaving_is_answered_when_all_is_stored() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let mut client = uploading(&server, &store).await;
    client.socket.send(message("a", Body::Leave)).await;
    assert!(is_silent(&mut client.socket).await, "the client was let go while nothing was stored");
    assert!(store.step());
    assert_eq!(client.socket.closed().await.0, Some(1000));
}

#[tokio::test]
async fn a_close_is_not_answered_while_the_same_changes_of_another_are_on_their_way() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let first = uploading(&server, &store).await;
    // The other tab has the same change, and sends it again.
    let mut second = Client::open(&server, "b", document(1)).await;
    second.doc = first.doc.clone();
    let changes =
        second.doc.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect::<Vec<_>>();
    let sync = automerge::sync::Message {
        heads: second.doc.get_heads(),
        need: vec![],
        have: vec![],
        changes: changes.into(),
        flags: None,
        version: automerge::sync::MessageVersion::V1,
    };
    let body = Body::Sync { document: document(1), data: sync.encode().into() };
    second.socket.send(message("b", body)).await;
    second.socket.stream.send(close_frame()).await.unwrap();
    loop {
        match tokio::time::timeout(std::time::Duration::from_millis(200), second.socket.try_receive()).await {
            // An answer that names no heads promises nothing.
            Ok(Ok(_)) => {}
            Ok(Err(close)) => panic!("closed while nothing was stored: {close:?}"),
            Err(_) => break,
        }
    }
    assert!(store.step());
    assert_eq!(second.socket.closed().await.0, Some(1000));
}

#[tokio::test]
async fn joining_again_does_not_forget_what_is_on_its_way() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let mut client = uploading(&server, &store).await;
    client.socket.send(message("a", join_body())).await;
    client.socket.stream.send(close_frame()).await.unwrap();
    assert!(is_silent(&mut client.socket).await, "the close was answered while nothing was stored");
    assert!(store.step());
    assert_eq!(client.socket.closed().await.0, Some(1000));
}

#[tokio::test]
async fn a_shutdown_with_a_failing_store_answers_no_close() {
    let store = FaultyStore::new(Pace::Manual);
    store.fail_append_after(0);
    let mut server = server_on(&store).await;
    let mut client = uploading(&server, &store).await;
    client.socket.stream.send(close_frame()).await.unwrap();
    server.begin_stop();
    store.step();
    let close = client.socket.try_receive().await.expect_err("no message");
    assert!(close.is_none_or(|close| u16::from(close.code) != 1000), "a clean close, and nothing is stored");
}

#[tokio::test]
async fn a_failed_store_sends_everybody_away_until_it_has_been_opened_again() {
    let current = Arc::new(Mutex::new(FaultyStore::new(Pace::Immediate)));
    let opener = current.clone();
    let open: OpenStore = Arc::new(move || {
        let mut store = opener.lock().unwrap();
        // The first call opens what is there; every later one comes after a failure.
        *store = store.reopen();
        Ok(Arc::new(store.clone()) as Arc<dyn Store>)
    });
    let server = TestServer::start(config(), open).await;
    let mut client = Client::open(&server, "a", document(1)).await;
    client.edit("n", 1);
    client.push().await;
    client.acknowledged().await;
    current.lock().unwrap().fail_append_after(0);
    client.edit("n", 2);
    client.push().await;
    let close = loop {
        match client.step().await {
            Ok(()) => assert!(!client.is_acknowledged(), "a failed append was acknowledged"),
            Err(close) => break close,
        }
    };
    assert_eq!(close.map(|close| u16::from(close.code)), Some(1013));
    patiently(async {
        while !server.get("/readyz").await.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut again = Client::with(&server, "a", document(1), client.doc.clone()).await;
    again.acknowledged().await;
    assert!(current.lock().unwrap().durable(document(1)).unwrap().changes.len() >= 2);
}

#[tokio::test]
async fn a_document_that_cannot_be_read_is_refused_and_others_are_served() {
    let store = FaultyStore::new(Pace::Immediate);
    {
        let server = server_on(&store).await;
        for n in [1, 2] {
            let mut client = Client::open(&server, "a", document(n)).await;
            client.edit("n", 1);
            client.push().await;
            client.acknowledged().await;
        }
        server.stopped().await.unwrap();
    }
    let store = store.reopen();
    store.damage(document(1));
    let server = server_on(&store).await;
    let mut client = Client::open(&server, "b", document(1)).await;
    client.edit("n", 2);
    client.push().await;
    // On the same connection, so that its answer comes after whatever there is to say about the other one.
    let empty = SyncMessage {
        version: Version::V2,
        heads: vec![],
        need: vec![],
        have: vec![],
        chunks: vec![],
        flags: None,
    };
    let other = Body::Request { document: document(2), data: empty.encode() };
    client.socket.send(message("b", other)).await;
    let heard = client.socket.receive().await;
    let is_other = matches!(heard, Body::Sync { document: of, .. } if of == document(2));
    assert!(is_other, "damage is neither absence nor emptiness: {heard:?}");
    client.socket.stream.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    assert_ne!(
        client.socket.closed().await.0,
        Some(1000),
        "what was sent for the damaged document is not safe"
    );
}

#[tokio::test]
async fn a_shutdown_acknowledges_what_it_took_and_nothing_else() {
    let store = FaultyStore::new(Pace::Immediate);
    let mut server = server_on(&store).await;
    let mut clients = Vec::new();
    for n in 0..8 {
        clients.push(Client::open(&server, &format!("client-{n}"), document(n)).await);
    }
    let working = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let mut acknowledged = 0;
            for n in 0.. {
                client.edit("n", n);
                client.push().await;
                while !client.is_acknowledged() {
                    if let Err(close) = client.step().await {
                        return (client, acknowledged, close);
                    }
                }
                acknowledged = n + 1;
            }
            unreachable!("the server stops")
        })
    });
    let working: Vec<_> = working.collect();
    // Under load: once every document has something.
    patiently(async {
        while store.durable_documents().len() < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.begin_stop();
    for client in working {
        let (client, acknowledged, close) = patiently(client).await.unwrap();
        let stored = store.durable(client.id).unwrap().changes.len();
        assert!(stored as i64 >= acknowledged, "{acknowledged} acknowledged, {stored} stored");
        let close = close.expect("a close frame");
        assert_eq!(u16::from(close.code), 1012);
        assert!(close.reason.contains("retry in"), "{}", close.reason);
    }
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn health_tells_ready_from_alive() {
    let store = FaultyStore::new(Pace::Immediate);
    let server = server_on(&store).await;
    assert!(server.get("/livez").await.starts_with("HTTP/1.1 200"));
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 200"));
    let page = server.get("/").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("automerge-repo"), "{page}");
    assert!(server.get("/v1/sync").await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn a_client_that_leaves_mid_upload_is_stored_all_the_same() {
    let store = FaultyStore::new(Pace::Manual);
    let server = server_on(&store).await;
    let client = uploading(&server, &store).await;
    drop(client);
    assert!(store.step());
    assert_eq!(store.durable(document(1)).unwrap().changes.len(), 1);
    store.set_pace(Pace::Immediate);
    let mut late = Client::open(&server, "late", document(1)).await;
    late.until("n", 1).await;
}
