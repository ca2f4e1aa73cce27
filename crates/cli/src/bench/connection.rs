//! One WebSocket connection that has joined.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use highwater_core::DocumentId;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::frame::{Frame, Kind, Names, join};

/// Largest frame that is taken from a server: a whole document comes as one.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// Allocated at once for every connection that is one of many, so small: there may be ten thousand.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// For a connection that fetches whole documents.
const WIDE_READ_BUFFER_BYTES: usize = 256 << 10;
/// How long the server may take to answer `join`.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection ended, by whichever side. Cases that expect it look for this error.
#[derive(Debug)]
pub(crate) struct Lost(String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was lost: {}", self.0)
    }
}

impl std::error::Error for Lost {}

/// A WebSocket, before anything is said on it.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Connects to `ws://host:port/path`.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, READ_BUFFER_BYTES).await
    }

    async fn connect_with(url: &str, read_buffer_bytes: usize) -> Result<Self> {
        let request =
            url.into_client_request().with_context(|| format!("{url} is not a WebSocket address"))?;
        let (host, port) = address(request.uri())?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .with_context(|| format!("cannot connect to {url}; is the server running?"))?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async_with_config(request, stream, Some(config(read_buffer_bytes)))
            .await
            .with_context(|| format!("{url} does not answer as a WebSocket server"))?;
        Ok(Self(socket))
    }

    /// Puts a frame into the buffer.
    pub(crate) async fn feed(&mut self, frame: Bytes) -> Result<()> {
        self.0.feed(Message::Binary(frame)).await.map_err(lost)
    }

    /// Sends what is in the buffer.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.0.flush().await.map_err(lost)
    }

    /// Waits for the next binary frame. Pings are answered on the way. May be cancelled without loss.
    pub(crate) async fn next(&mut self) -> Result<Bytes> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err(Lost(format!("closed with {} {}", close.code, close.reason)).into());
                }
                Some(Ok(Message::Close(None))) | None => return Err(Lost("closed".to_owned()).into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(error)),
            }
        }
    }

    /// Closes in good order, and waits a moment for the other side to agree.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            self.0.close(None).await.ok()?;
            while let Some(Ok(_)) = self.0.next().await {}
            Some(())
        };
        // The case is over for this connection; how it ends is of no interest.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

/// A connection to a server that has answered `join`.
pub(crate) struct Connection {
    socket: Socket,
    names: Names,
}

impl Connection {
    /// Connects and joins under a fresh name.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        Self::join(Socket::connect(url).await?).await
    }

    /// The same, with room for a lot of data at once.
    pub(crate) async fn open_wide(url: &str) -> Result<Self> {
        Self::join(Socket::connect_with(url, WIDE_READ_BUFFER_BYTES).await?).await
    }

    async fn join(mut socket: Socket) -> Result<Self> {
        let ours = format!("bench-{}", hex::encode(random_bytes()?));
        socket.feed(join(&ours)).await?;
        socket.flush().await?;
        let server = tokio::time::timeout(JOIN_TIMEOUT, await_peer(&mut socket))
            .await
            .context("the server does not answer `join`; does it speak the automerge-repo protocol?")??;
        Ok(Self { socket, names: Names { ours, server } })
    }

    /// What both ends call themselves.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Puts a frame into the buffer.
    pub(crate) async fn feed(&mut self, frame: Bytes) -> Result<()> {
        self.socket.feed(frame).await
    }

    /// Sends what is in the buffer.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.socket.flush().await
    }

    /// Waits for the next frame. May be cancelled without loss.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        Frame::read(&self.socket.next().await?)
    }

    /// Closes in good order.
    pub(crate) async fn close(self) {
        self.socket.close().await;
    }
}

/// A document id that nobody has used before.
pub(crate) fn fresh_document() -> Result<DocumentId> {
    let mut bytes = random_bytes()?;
    // Clients make their ids as random (version 4) UUIDs, so these are some too.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(DocumentId::from_bytes(bytes))
}

fn random_bytes() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

async fn await_peer(socket: &mut Socket) -> Result<String> {
    loop {
        let frame = Frame::read(&socket.next().await?)?;
        match frame.kind {
            Kind::Peer => return Ok(frame.sender),
            Kind::Error => bail!("the server refused `join`: {}", frame.message),
            _ => {}
        }
    }
}

fn address(uri: &Uri) -> Result<(String, u16)> {
    if uri.scheme_str() != Some("ws") {
        bail!("{uri} does not begin with ws://; the load generator speaks no TLS");
    }
    let host = uri.host().with_context(|| format!("{uri} has no host"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80)))
}

fn config(read_buffer_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer_bytes)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

fn lost(error: Error) -> anyhow::Error {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Protocol(_) => {
            Lost(error.to_string()).into()
        }
        other => other.into(),
    }
}
