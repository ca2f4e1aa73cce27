//! A server in this process, and a way to it that can be cut.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use highwater_client::{Builder, ChangeHash, Client, Document};
use highwater_server::{Config, OpenStore, Server, ServerError};
use highwater_storage::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Nothing here takes longer unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct TestServer {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServerError>>,
}

impl TestServer {
    pub async fn start(store: Arc<dyn Store>) -> Self {
        let open: OpenStore = Arc::new(move || Ok(store.clone()));
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
        let server = Server::bind(config, open).await.unwrap();
        let address = server.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { address, stop, running }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub async fn stopped(self) {
        drop(self.stop);
        tokio::time::timeout(PATIENCE, self.running).await.expect("an end in time").unwrap().unwrap();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    To(SocketAddr),
    Cut,
}

/// A way to a server, which the test can cut without anybody being told.
pub struct Line {
    pub address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Line {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::To(target));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(carry(socket, ways.clone()));
            }
        });
        Self { address, way }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Nothing gets through any more, and neither side is told.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// New connections reach this server.
    pub fn mend(&self, target: SocketAddr) {
        self.way.send_replace(Way::To(target));
    }
}

async fn carry(mut client: TcpStream, mut ways: watch::Receiver<Way>) {
    let way = *ways.borrow_and_update();
    let Way::To(target) = way else {
        // Held open, and silent, until the client gives up.
        let _ = client.readable().await;
        std::future::pending::<()>().await;
        return;
    };
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let is_cut = async { while ways.changed().await.is_ok() && *ways.borrow_and_update() == way {} };
    let is_over = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => true,
        () = is_cut => false,
    };
    if !is_over {
        let held = Mutex::new((client, server));
        std::future::pending::<()>().await;
        drop(held);
    }
}

/// A client that notices soon that a line is dead, and comes back soon.
pub fn builder(url: String) -> Builder {
    let ms = Duration::from_millis;
    Client::builder(url)
        .backoff(ms(10), ms(100))
        .heartbeat(ms(500), ms(500))
        .connect_timeout(ms(2000))
        .open_timeout(PATIENCE)
}

pub async fn client(url: String) -> Client {
    builder(url).connect().await.unwrap()
}

pub fn set(document: &Document, key: &str, value: i64) -> ChangeHash {
    document.change(|tx| tx.put(ROOT, key, value)).unwrap().unwrap()
}

pub fn get(document: &Document, key: &str) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, key).unwrap().and_then(|(value, _)| value.as_i64())).unwrap()
}
