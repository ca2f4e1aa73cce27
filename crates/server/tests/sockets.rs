//! What sockets may do before they are WebSockets: little, and not for long.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use highwater_server::Config;
use highwater_storage::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn server(config: Config) -> TestServer {
    TestServer::start(config, always(Arc::new(MemoryStore::new()))).await
}

async fn silent(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Waits until the server closes the socket, and returns what it said before.
async fn closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = patiently(stream.read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

/// A client that is connected and sees its edits acknowledged.
async fn established(server: &TestServer) -> Client {
    let mut client = Client::open(server, "established", document(1)).await;
    works(&mut client).await;
    client
}

async fn works(client: &mut Client) {
    client.edit("n", client.value("n").unwrap_or(0) + 1);
    client.push().await;
    client.acknowledged().await;
}

#[tokio::test]
async fn who_sends_a_request_slowly_or_not_at_all_is_closed() {
    let server = server(Config { request_timeout: Duration::from_millis(100), ..config() }).await;
    let mut client = established(&server).await;
    assert_eq!(closed(&mut silent(&server).await).await, "");
    let mut slow = silent(&server).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nx-padding: ").await.unwrap();
    patiently(async {
        // A byte from time to time does not help.
        let mut byte = [0];
        while tokio::time::timeout(Duration::from_millis(10), slow.read(&mut byte)).await.is_err() {
            let _ = slow.write_all(b"x").await;
        }
    })
    .await;
    works(&mut client).await;
}

#[tokio::test]
async fn a_socket_is_good_for_one_request() {
    let server = server(config()).await;
    let mut stream = silent(&server).await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let answer = closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    let mut stream = silent(&server).await;
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(closed(&mut stream).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_request_without_an_end_is_refused() {
    let server = server(config()).await;
    let mut stream = silent(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nx-padding: ").await.unwrap();
    // As many as are taken: the server stops reading before there are a million.
    let _ = stream.write_all(&vec![b'x'; 1 << 20]).await;
    let answer = closed(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn silent_sockets_make_room_for_others_and_harm_nobody() {
    let server = server(Config { connections_max: 1, http_sockets_max: 2, ..config() }).await;
    let mut client = established(&server).await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(silent(&server).await);
    }
    // The oldest go first; as many are left as there is room for.
    for stream in &mut flood[..18] {
        assert_eq!(closed(stream).await, "");
    }
    works(&mut client).await;
    assert!(server.get("/livez").await.starts_with("HTTP/1.1 200"));
    works(&mut client).await;
    // One that was left may still ask.
    let last = flood.last_mut().unwrap();
    last.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(closed(last).await.starts_with("HTTP/1.1 200"));
    drop(flood);
    assert!(server.get("/readyz").await.starts_with("HTTP/1.1 200"));
    works(&mut client).await;
    drop(client);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn if_no_socket_is_silent_newcomers_wait_for_one_to_close() {
    let server = server(Config { connections_max: 1, http_sockets_max: 1, ..config() }).await;
    let mut client = established(&server).await;
    // One too many is turned away, and has its place until it knows.
    let mut refused = server.socket().await;
    let newcomer = server.get("/livez");
    tokio::pin!(newcomer);
    let answer = tokio::time::timeout(Duration::from_millis(200), &mut newcomer).await;
    assert!(answer.is_err(), "more sockets were served than there is room for");
    works(&mut client).await;
    assert_eq!(refused.closed().await.0, Some(1013));
    drop(refused);
    let answer = newcomer.await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Nobody was silent, so nobody who comes later has to go for it.
    let mut late = silent(&server).await;
    late.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(closed(&mut late).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_silent_sockets() {
    let server = server(config()).await;
    let mut stream = silent(&server).await;
    // The next one is accepted after it.
    assert!(server.get("/livez").await.starts_with("HTTP/1.1 200"));
    let address = server.address;
    server.stopped().await.unwrap();
    assert_eq!(closed(&mut stream).await, "");
    assert!(TcpStream::connect(address).await.is_err(), "somebody still listens");
}
