//! A server in this process, and a way to it that can be cut.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{ROOT, ReadDoc};
use bytes::Bytes;
use highwater_client::{Builder, ChangeHash, Client, Document};
use highwater_core::sync;
use highwater_core::wire::{Body, Message};
use highwater_server::{Config, OpenStore, Server, ServerError};
use highwater_storage::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
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

/// A way to a server on which changes can be lost as if the server had overlooked them: the connection goes on.
pub struct Forgetful {
    pub address: SocketAddr,
    loses: Arc<AtomicBool>,
}

impl Forgetful {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let loses = Arc::new(AtomicBool::new(false));
        let for_sockets = loses.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.unwrap();
                let ((from_client, mut to_client), (mut from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                tokio::spawn(carry_frames(BufReader::new(from_client), to_server, for_sockets.clone()));
            }
        });
        Self { address, loses }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Whether messages with changes are lost from now on.
    pub fn lose(&self, loses: bool) {
        self.loses.store(loses, Ordering::SeqCst);
    }
}

async fn carry_frames(
    mut client: BufReader<OwnedReadHalf>,
    mut server: OwnedWriteHalf,
    loses: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    server.write_all(&request).await?;
    loop {
        let (frame, payload) = read_frame(&mut client).await?;
        if !loses.load(Ordering::SeqCst) || !has_changes(&payload.into()) {
            server.write_all(&frame).await?;
        }
    }
}

/// A client's frame as it is on the wire, and what is in it.
async fn read_frame(client: &mut BufReader<OwnedReadHalf>) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut frame = vec![0; 2];
    client.read_exact(&mut frame).await?;
    let length = match frame[1] & 0x7f {
        126 => {
            let length = client.read_u16().await?;
            frame.extend(length.to_be_bytes());
            usize::from(length)
        }
        127 => {
            let length = client.read_u64().await?;
            frame.extend(length.to_be_bytes());
            usize::try_from(length).unwrap()
        }
        length => usize::from(length),
    };
    let mut rest = vec![0; 4 + length];
    client.read_exact(&mut rest).await?;
    let (mask, masked) = rest.split_at(4);
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    frame.extend(&rest);
    Ok((frame, payload))
}

fn has_changes(payload: &Bytes) -> bool {
    let Ok(message) = Message::decode(payload) else { return false };
    let Body::Sync { data, .. } = message.body else { return false };
    sync::Message::decode(data).is_ok_and(|message| !message.chunks.is_empty())
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
