//! Highwater's server, as a library.
//!
//! [`Server::builder`] makes one with a socket of its own, which [`Server::run`] serves until it is told to stop, or an [`Embedded`] one, whose routes an
//! application mounts in its own server. Either way the application reads and edits [`Documents`] in its process. Before it goes a server drains: what was received is made durable and
//! acknowledged before the connections are closed.

mod accept;
mod activity;
mod budget;
mod builder;
mod compaction;
mod config;
mod connection;
mod copies;
mod document;
mod documents;
mod embedded;
mod envelope;
mod events;
mod full_check;
mod http;
mod hub;
mod idle;
mod limits;
mod metrics;
mod open;
mod outbox;
mod rooms;
mod uploads;
mod webhooks;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use highwater_storage::StoreError;
use tokio::net::TcpListener;

pub use builder::Builder;
pub use config::{AllowedOrigins, CheckChanges, Config};
pub use documents::{
    DocumentError, DocumentState, Documents, EditOptions, EditedDocument, NewDocument, Reading, TakenChanges,
    Watch, Watched,
};
pub use embedded::Embedded;
pub use highwater_core::{ChangeHash, DocumentId, Edit, EditError, Materialised, ReadError};
pub use highwater_storage::{DocumentEntry, ListDocuments};
use hub::Hub;
pub use hub::OpenStore;
use webhooks::Start;
pub use webhooks::{Secret, Webhook, WebhookConfig};

/// A server that listens and does not serve yet.
///
/// ```no_run
/// # use highwater_server::{Edit, EditOptions, Server};
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder().data_dir("./highwater-data").listen(([127, 0, 0, 1], 3030)).bind().await?;
/// let documents = server.documents();
/// tokio::spawn(async move {
///     let id = "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu".parse()?;
///     let edit = Edit::merge_patch(br#"{ "title": "Hello" }"#)?;
///     // All who have the document open see it, and it is on disk.
///     let edited = documents.edit(id, edit, EditOptions { creates: true, ..EditOptions::default() }).await?;
///     println!("{:?}", edited.heads);
///     Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// });
/// server.run(async { drop(tokio::signal::ctrl_c().await) }).await?;
/// # Ok(())
/// # }
/// ```
pub struct Server {
    hub: Arc<Hub>,
    listener: TcpListener,
    webhooks: Vec<Start>,
    render_metrics: Option<RenderMetrics>,
    kill: Option<Kill>,
}

/// Ends the process without a word to anybody.
pub type Kill = Arc<dyn Fn() + Send + Sync>;

/// Writes all metrics down in Prometheus's text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Why a server does not start, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The store does not open, or failed while it was closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The webhooks cannot be told anything.
    #[error("webhooks: {0}")]
    Webhooks(String),
    /// Serving failed.
    #[error("cannot go on serving: {0}")]
    Serve(#[from] io::Error),
}

impl Server {
    /// What a server is made with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Its documents, for the process that it runs in.
    pub fn documents(&self) -> Documents {
        Documents::new(self.hub.clone())
    }

    /// Opens the store, then the socket. Connections wait in the socket until [`run`](Self::run).
    ///
    /// `open_store` is called once now, and again whenever the store failed: nothing is acknowledged between a failure and the
    /// store being opened and read anew.
    ///
    /// The server counts with the `metrics` crate and installs no recorder. Whoever wants the numbers installs one before this.
    pub async fn bind(config: Config, open_store: OpenStore) -> Result<Self, ServerError> {
        Self::builder().config(config).store(open_store).bind().await
    }

    /// Answers `GET /metrics` with what `render` returns. Without this there is no such path.
    #[must_use]
    pub fn with_metrics(mut self, render: RenderMetrics) -> Self {
        self.render_metrics = Some(render);
        self
    }

    /// Lets pages end the server with `POST /demo/kill`, which calls `kill`: for a demonstration of what happens then. Without this there is no such path.
    #[must_use]
    pub fn with_kill(mut self, kill: Kill) -> Self {
        self.kill = Some(kill);
        self
    }

    /// Where it listens; with the port that was chosen if 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves, then drains within the configured deadline and closes the store.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let Self { hub, listener, webhooks: starts, render_metrics, kill } = self;
        let deadline = hub.config().drain_deadline;
        let router = http::router(hub.clone(), render_metrics, kill);
        for start in starts {
            tokio::spawn(webhooks::run(hub.clone(), start));
        }
        let mut accepting = tokio::spawn(accept::run(hub.clone(), listener, router));
        let accepted = tokio::select! {
            () = shutdown => None,
            // It ends by itself only if something in it panicked. A server that takes nobody in any more must not look alive.
            ended = &mut accepting => Some(ended),
        };
        tracing::info!("shutting down");
        hub.drain(deadline).await?;
        // The drain ends it, and the address is free again when this returns.
        let accepted = match accepted {
            Some(ended) => ended,
            None => accepting.await,
        };
        Ok(accepted.map_err(io::Error::from)?)
    }
}

/// Milliseconds since 1970, by the system's clock.
fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64)
}
