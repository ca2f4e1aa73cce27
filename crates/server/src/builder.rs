//! What a server is made with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_storage::{SqliteStore, Store};
use tokio::net::TcpListener;

use crate::hub::Hub;
use crate::limits::WEBHOOKS_MAX;
use crate::webhooks::{self, Start, Webhooks};
use crate::{Config, Embedded, OpenStore, RenderMetrics, Server, ServerError};

/// What a server is made with. All of it may be left out: then its documents are in `./highwater-data`, and it listens on 127.0.0.1:3030, as the command does.
#[derive(Clone, Default)]
#[must_use]
pub struct Builder {
    config: Config,
    open_store: Option<OpenStore>,
    render_metrics: Option<RenderMetrics>,
}

impl Builder {
    /// How the server behaves.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where it listens, if it has a socket of its own. Port 0 takes a free one.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.config.listen = address.into();
        self
    }

    /// Keeps the documents in this folder, which is made if it is missing. Only one server at a time can have it.
    pub fn data_dir(self, folder: impl Into<PathBuf>) -> Self {
        self.store(in_folder(folder.into()))
    }

    /// Keeps the documents in another store. `open_store` is called once at the start, and again whenever the store failed.
    pub fn store(mut self, open_store: OpenStore) -> Self {
        self.open_store = Some(open_store);
        self
    }

    /// Answers `GET /metrics` with what `render` returns, if it has a socket of its own. The server counts with the `metrics` crate and installs no recorder.
    pub fn metrics(mut self, render: RenderMetrics) -> Self {
        self.render_metrics = Some(render);
        self
    }

    /// Opens the store, then a socket.
    pub async fn bind(self) -> Result<Server, ServerError> {
        let address = self.config.listen;
        let (hub, webhooks, render_metrics) = self.open_and_settle().await?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| ServerError::Listen { address, error })?;
        Ok(Server { hub, listener, webhooks, render_metrics, kill: None })
    }

    /// Opens the store, for a server without a socket of its own. To be called where tokio runs.
    pub async fn embed(self) -> Result<Embedded, ServerError> {
        let (hub, webhooks, _) = self.open_and_settle().await?;
        for start in webhooks {
            tokio::spawn(webhooks::run(hub.clone(), start));
        }
        Ok(Embedded::new(hub))
    }

    async fn open_and_settle(self) -> Result<Opened, ServerError> {
        let opened = self.open()?;
        // Before anybody is let in: what happens from now on is told.
        webhooks::settle(&opened.0, &opened.1).await?;
        Ok(opened)
    }

    fn open(self) -> Result<Opened, ServerError> {
        let open_store = self.open_store.unwrap_or_else(|| in_folder(PathBuf::from("./highwater-data")));
        if self.config.webhooks.hooks.len() > WEBHOOKS_MAX {
            return Err(ServerError::Webhooks(format!("more than {WEBHOOKS_MAX}")));
        }
        let (webhooks, starts) = Webhooks::new(&self.config.webhooks).map_err(ServerError::Webhooks)?;
        Ok((Hub::new(self.config, open_store, webhooks)?, starts, self.render_metrics))
    }
}

/// A server that was opened, what starts its webhooks, and what was set for its socket.
type Opened = (Arc<Hub>, Vec<Start>, Option<RenderMetrics>);

fn in_folder(folder: PathBuf) -> OpenStore {
    Arc::new(move || Ok(Arc::new(SqliteStore::open(&folder)?) as Arc<dyn Store>))
}
