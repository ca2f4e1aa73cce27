//! A way to the server: a WebSocket, or in tests something that can be cut.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use highwater_core::limits::FRAME_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::engine::{ABNORMAL, FORBIDDEN, TOKEN_EXPIRED};
use crate::limits::LINE_FRAMES;

/// What comes from the server.
#[derive(Debug)]
pub(crate) enum Event {
    /// A binary frame.
    Frame(Bytes),
    /// Something else: a sign of life.
    Alive,
    /// The end.
    Closed(Closed),
}

/// How it ended, or why it did not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The close code; [`ABNORMAL`] if there was none.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// What goes to the server.
#[derive(Debug)]
pub(crate) enum Out {
    Frame(Bytes),
    Ping,
    /// A close frame, after all that was handed over before.
    Close,
}

/// An open socket. Dropping it ends the socket without a word.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) incoming: mpsc::Receiver<Event>,
    pub(crate) outgoing: mpsc::Sender<Out>,
}

/// Opens lines.
pub(crate) trait Dial: Send + Sync + 'static {
    fn dial(&self, url: String) -> BoxFuture<'static, Result<Line, Closed>>;
}

/// Opens WebSockets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebSockets;

impl Dial for WebSockets {
    fn dial(&self, url: String) -> BoxFuture<'static, Result<Line, Closed>> {
        Box::pin(async move {
            #[cfg(feature = "tls")]
            choose_cryptography();
            let mut config = WebSocketConfig::default();
            config.max_message_size = Some(FRAME_BYTES_MAX);
            config.max_frame_size = Some(FRAME_BYTES_MAX);
            let connected = tokio_tungstenite::connect_async_with_config(url, Some(config), true).await;
            let (socket, _) = connected.map_err(|error| closed(&error))?;
            Ok(spawn(socket))
        })
    }
}

/// An application may have several providers built in; then none is the default, unless it says so, and TLS would panic.
#[cfg(feature = "tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // If another thread was faster, its choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

fn spawn(socket: Socket) -> Line {
    let (events, incoming) = mpsc::channel(LINE_FRAMES);
    let (outgoing, frames) = mpsc::channel(LINE_FRAMES);
    tokio::spawn(pump(socket, events, frames));
    Line { incoming, outgoing }
}

/// Reads and writes at once: two sides that each wait for the other to read would wait for ever.
async fn pump(socket: Socket, events: mpsc::Sender<Event>, mut frames: mpsc::Receiver<Out>) {
    let (mut sink, mut stream) = socket.split();
    let write = async move {
        while let Some(out) = frames.recv().await {
            let sent = match out {
                Out::Frame(frame) => sink.send(Message::Binary(frame)).await,
                Out::Ping => sink.send(Message::Ping(Bytes::new())).await,
                Out::Close => sink.close().await,
            };
            if sent.is_err() {
                // The reading side finds out why.
                break;
            }
        }
        // As long as the line is wanted, what comes in counts.
        std::future::pending::<()>().await;
    };
    let read = async {
        loop {
            let event = match stream.next().await {
                Some(Ok(Message::Binary(frame))) => Event::Frame(frame),
                Some(Ok(Message::Close(frame))) => Event::Closed(said(frame)),
                Some(Ok(_)) => Event::Alive,
                Some(Err(error)) => Event::Closed(closed(&error)),
                None => Event::Closed(Closed { code: ABNORMAL, reason: String::new() }),
            };
            let is_end = matches!(event, Event::Closed(_));
            if events.send(event).await.is_err() || is_end {
                break;
            }
        }
    };
    tokio::select! {
        () = events.closed() => {}
        () = read => {}
        () = write => {}
    }
}

fn said(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(CloseFrame { code, reason }) => Closed { code: code.into(), reason: reason.to_string() },
        None => Closed { code: ABNORMAL, reason: String::new() },
    }
}

/// A server that answers with a status in place of a WebSocket says by it what a close code would.
fn closed(error: &Error) -> Closed {
    let code = match error {
        Error::Http(answer) if answer.status() == 401 => TOKEN_EXPIRED,
        Error::Http(answer) if answer.status() == 403 => FORBIDDEN,
        _ => ABNORMAL,
    };
    Closed { code, reason: error.to_string() }
}
