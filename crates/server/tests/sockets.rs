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

/// A request with a body of so many bytes, of which none was sent yet.
async fn begun(server: &TestServer, method: &str, path: &str, body_len: usize) -> TcpStream {
    let mut stream = silent(server).await;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {body_len}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_comes_slowly_keeps_nobody_else_out() {
    let server = server(config()).await;
    let path = format!("/v1/docs/{}", document(1));
    let mut slow = begun(&server, "PUT", &path, 8 << 20).await;
    slow.write_all(b"{").await.unwrap();
    let other = format!("/v1/docs/{}", document(2));
    let body = serde_json::json!({ "bytes": { "$bytes": "A".repeat(512 << 10) } }).to_string();
    let json = [("content-type", "application/json")];
    server.http("PUT", &other, &json, body.as_bytes()).await.ok(201);
    // And so it goes for those that it has to share with.
    let mut half = begun(&server, "PUT", &other, 8 << 20).await;
    half.write_all(&vec![b' '; 4 << 20]).await.unwrap();
    server.http("PUT", &other, &json, body.as_bytes()).await.ok(200);
}

#[tokio::test]
async fn a_large_body_on_a_slow_path_arrives_and_one_that_stops_is_given_up() {
    let server = server(Config { answer_timeout: Duration::from_millis(300), ..config() }).await;
    let path = format!("/v1/docs/{}", document(1));
    let body = serde_json::json!({ "bytes": { "$bytes": "A".repeat(1 << 20) } }).to_string();
    let mut stream = begun(&server, "PUT", &path, body.len()).await;
    for part in body.as_bytes().chunks(128 << 10) {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(closed(&mut stream).await.starts_with("HTTP/1.1 201"));
    let mut stream = begun(&server, "PUT", &path, body.len()).await;
    stream.write_all(b"{").await.unwrap();
    assert_eq!(closed(&mut stream).await, "");
}

#[tokio::test]
async fn a_large_answer_is_sent_to_its_end_to_one_who_reads_slowly() {
    let server = server(Config { answer_timeout: Duration::from_millis(300), ..config() }).await;
    let path = format!("/v1/docs/{}", document(1));
    let body = serde_json::json!({ "bytes": { "$bytes": "A".repeat(8_000_000) } }).to_string();
    server.http("PUT", &path, &[("content-type", "application/json")], body.as_bytes()).await.ok(201);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
    let mut begin = vec![0; 64 << 10];
    patiently(stream.read_exact(&mut begin)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest = closed(&mut stream).await;
    let begin = String::from_utf8(begin).unwrap();
    let head = begin.find("\r\n\r\n").unwrap() + 4;
    assert_eq!(begin.len() - head + rest.len(), body.len());
}
