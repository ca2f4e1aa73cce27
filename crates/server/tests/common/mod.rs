//! A server in this process on a free port, and clients with stock `automerge` documents over real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use automerge::sync::{self as stock, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Automerge, ROOT, ReadDoc};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use highwater_core::wire::{Body, EXTENSION_VERSION, Message, PeerMetadata};
use highwater_core::{DocumentId, PeerId};
use highwater_server::{Config, OpenStore, Server, ServerError};
use highwater_storage::{FaultyStore, MemoryStore, Store};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Nothing here takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const PATCH: (&str, &str) = ("content-type", "application/json-patch+json");
pub const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
pub const AUTOMERGE: (&str, &str) = ("content-type", "application/vnd.automerge");

pub struct TestServer {
    pub address: SocketAddr,
    /// Where clients of automerge-repo connect.
    sync_path: &'static str,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServerError>>,
}

pub fn config() -> Config {
    Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() }
}

pub fn always(store: Arc<dyn Store>) -> OpenStore {
    Arc::new(move || Ok(store.clone()))
}

/// A server with an empty store in memory.
pub async fn memory_server() -> TestServer {
    TestServer::start(config(), always(Arc::new(MemoryStore::new()))).await
}

/// A server on this store.
pub async fn server_on(store: &FaultyStore) -> TestServer {
    TestServer::start(config(), always(Arc::new(store.clone()))).await
}

/// Where a document is, over HTTP.
pub fn path(id: DocumentId) -> String {
    format!("/v1/docs/{id}")
}

impl TestServer {
    pub async fn start(config: Config, open_store: OpenStore) -> Self {
        Self::start_with(config, open_store, |server| server).await
    }

    /// Starts a server after something was done to it.
    pub async fn start_with(
        config: Config,
        open_store: OpenStore,
        prepare: impl FnOnce(Server) -> Server,
    ) -> Self {
        let server = prepare(Server::bind(config, open_store).await.unwrap());
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { address, sync_path: "/", stop: Some(stop), running }
    }

    /// An application's own server.
    pub async fn of_application(application: axum::Router, sync_path: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind(config().listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async {
            tokio::select! {
                served = axum::serve(listener, application).into_future() => Ok(served?),
                _ = stopped => Ok(()),
            }
        });
        Self { address, sync_path, stop: Some(stop), running }
    }

    /// Asks the server to stop, without waiting.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Dropped, it asks the server to stop.
    pub fn stopper(&mut self) -> Option<oneshot::Sender<()>> {
        self.stop.take()
    }

    pub async fn stopped(mut self) -> Result<(), ServerError> {
        self.begin_stop();
        patiently(self.running).await.unwrap()
    }

    pub async fn socket(&self) -> Socket {
        let url = format!("ws://{}{}", self.address, self.sync_path);
        let (stream, _) = tokio_tungstenite::connect_async_with_config(url, None, true).await.unwrap();
        Socket { stream }
    }

    /// A socket that has joined as `peer`.
    pub async fn join(&self, peer: &str) -> Socket {
        let mut socket = self.socket().await;
        socket.join(peer).await;
        socket
    }

    /// A plain HTTP request: status line, headers and body.
    pub async fn get(&self, path: &str) -> String {
        String::from_utf8(self.request(path).await).unwrap()
    }

    /// A request with all that can be in one.
    pub async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        // A server that has read enough may close before it has read all.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        patiently(stream.read_to_end(&mut answer)).await.unwrap();
        Answer::parse(&answer)
    }

    async fn request(&self, path: &str) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        patiently(stream.read_to_end(&mut answer)).await.unwrap();
        answer
    }
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(answer)));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        Self { status: head[9..12].parse().unwrap(), head, body: answer[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} {}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The code of a problem.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.json()["status"], self.status, "{self:?}");
        self.json()["code"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// The documents API.
impl TestServer {
    pub async fn put(&self, id: DocumentId, value: Value) -> Answer {
        self.http("PUT", &path(id), &[JSON], value.to_string().as_bytes()).await
    }

    pub async fn patch(&self, id: DocumentId, headers: &[(&str, &str)], patch: Value) -> Answer {
        let headers = [&[PATCH], headers].concat();
        self.http("PATCH", &path(id), &headers, patch.to_string().as_bytes()).await
    }

    pub async fn read(&self, id: DocumentId) -> Answer {
        self.http("GET", &path(id), &[], b"").await
    }

    pub async fn value(&self, id: DocumentId) -> Value {
        self.read(id).await.ok(200).json()
    }
}

pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer in time")
}

/// Waits until something is so.
pub async fn until(is_so: impl Fn() -> bool) {
    patiently(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until the store has been asked for writes that are not done.
pub async fn in_flight(store: &FaultyStore) {
    until(|| store.in_flight() > 0).await;
}

pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

pub fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

pub fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes([n; 16])
}

pub fn message(sender: &str, body: Body) -> Bytes {
    Message { sender: Some(peer(sender)), target: Some(peer("server")), body }.encode()
}

pub fn join_body() -> Body {
    let metadata = PeerMetadata { extension: Some(EXTENSION_VERSION), ..PeerMetadata::default() };
    Body::Join { metadata, versions: vec!["1".to_owned()] }
}

impl Socket {
    pub async fn join(&mut self, peer: &str) {
        self.send(message(peer, join_body())).await;
        assert!(matches!(self.receive().await, Body::Peer { .. }));
    }

    pub async fn send(&mut self, frame: Bytes) {
        self.stream.send(Frame::Binary(frame)).await.unwrap();
    }

    /// The next message; pings are answered on the way. Panics if the connection ends.
    pub async fn receive(&mut self) -> Body {
        self.try_receive().await.unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    pub async fn try_receive(&mut self) -> Result<Body, Option<CloseFrame>> {
        patiently(async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Frame::Binary(frame))) => return Ok(Message::decode(&frame).unwrap().body),
                    Some(Ok(Frame::Close(close))) => return Err(close),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        eprintln!("{error:?}");
                        return Err(None);
                    }
                    None => return Err(None),
                }
            }
        })
        .await
    }

    /// The close code, with the messages before it ignored but for an `error`, which is returned too.
    pub async fn closed(&mut self) -> (Option<u16>, Option<String>) {
        let mut error = None;
        loop {
            match self.try_receive().await {
                Ok(Body::Error { message }) => error = Some(message),
                Ok(_) => {}
                Err(close) => return (close.map(|close| close.code.into()), error),
            }
        }
    }
}

/// A stock document that synchronises over a socket.
pub struct Client {
    pub name: String,
    pub socket: Socket,
    pub id: DocumentId,
    pub doc: AutoCommit,
    pub state: stock::State,
    pub unavailable: bool,
}

impl Client {
    pub async fn open(server: &TestServer, name: &str, id: DocumentId) -> Self {
        Self::with(server, name, id, AutoCommit::new()).await
    }

    pub async fn with(server: &TestServer, name: &str, id: DocumentId, doc: AutoCommit) -> Self {
        let socket = server.join(name).await;
        let state = stock::State::new();
        let mut client = Self { name: name.to_owned(), socket, id, doc, state, unavailable: false };
        client.push().await;
        client
    }

    pub fn edit(&mut self, key: &str, value: i64) {
        self.doc.put(ROOT, key, value).unwrap();
        self.doc.commit();
    }

    pub fn value(&self, key: &str) -> Option<i64> {
        self.doc.get(ROOT, key).unwrap().and_then(|(value, _)| value.as_i64())
    }

    /// Sends what there is to send.
    pub async fn push(&mut self) {
        let message = self.doc.sync().generate_sync_message(&mut self.state);
        if let Some(message) = message {
            let data = Bytes::from(message.encode());
            let is_new = self.doc.get_heads().is_empty();
            let document = self.id;
            let body = if is_new { Body::Request { document, data } } else { Body::Sync { document, data } };
            self.socket.send(self::message(&self.name, body)).await;
        }
    }

    /// Takes one message and answers it.
    pub async fn step(&mut self) -> Result<(), Option<CloseFrame>> {
        match self.socket.try_receive().await? {
            Body::Sync { document, data } if document == self.id => {
                let message = stock::Message::decode(&data).unwrap();
                self.doc.sync().receive_sync_message(&mut self.state, message).unwrap();
                self.push().await;
            }
            Body::DocUnavailable { .. } => self.unavailable = true,
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    /// Whether the server said that it has all that this client has: an acknowledgement.
    pub fn is_acknowledged(&mut self) -> bool {
        let heads = self.doc.get_heads();
        !heads.is_empty() && self.state.their_heads.as_deref() == Some(&heads[..])
    }

    pub async fn acknowledged(&mut self) {
        while !self.is_acknowledged() {
            self.step().await.unwrap();
        }
    }

    pub async fn until(&mut self, key: &str, value: i64) {
        while self.value(key) != Some(value) {
            self.step().await.unwrap();
        }
    }
}

/// A document with `changes` changes.
pub fn long_document(changes: usize) -> Automerge {
    let mut doc = Automerge::new();
    for n in 0..changes {
        let mut tx = doc.transaction();
        tx.put(ROOT, "n", n as i64).unwrap();
        tx.commit();
    }
    doc
}
