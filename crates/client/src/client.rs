//! The client: a connection, and the documents that are kept in step over it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use highwater_core::{DocumentId, PeerId};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::document::{Document, Handle};
use crate::driver::Driver;
use crate::engine::{Ended, LinkOptions, Machine, Presence, Random, Shared, Unusable, Wanted};
use crate::error::{ConnectError, OpenError, OutboxError, UnsavedChanges, UnsavedReason};
use crate::limits::OUTBOX_END_MAX;
use crate::line::{Dial, WebSockets};
use crate::outbox::{self, OutboxStore};
use crate::status::SaveStatus;
use crate::token::{Token, TokenRequest};
use crate::wait::wait;

/// A connection to a Highwater server, and the documents that are open over it. Clones are handles on the same client.
///
/// The connection is made in the background, and made anew whenever it ends. When the last handle on the client and its documents is dropped
/// it ends without waiting for anything: use [`close`](Self::close) to know that everything is on the server's disk.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    open_timeout: Duration,
    /// The driver and the outbox's writer, until somebody has waited for their end.
    tasks: AsyncMutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Client {
    /// A client of the server at this url (`ws://host:port` or `wss://host`), without an outbox. Must be called within a tokio runtime.
    ///
    /// Does not wait for the connection: documents can be made and changed at once, and [`open`](Self::open) waits for its document.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// A client of the server at this url, with settings.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            token: Token::None,
            outbox: Outbox::None,
            link: LinkOptions::default(),
            open_timeout: Duration::from_secs(30),
        }
    }

    /// Opens a document and waits until all that the server has of it is here; 30 seconds unless told otherwise.
    pub async fn open(&self, id: DocumentId) -> Result<Document, OpenError> {
        let document = self.document(id)?;
        let shared = &self.inner.shared;
        shared.want(Wanted::Haste);
        let opened = wait(shared, self.inner.open_timeout, || {
            match document.entry().lock().read() {
                Ok(_) => {}
                Err(Unusable::Closed) => return Some(Err(OpenError::Closed)),
                Err(Unusable::Broken(why)) => return Some(Err(OpenError::Broken(why))),
            }
            let registry = shared.lock();
            match registry.presence(id) {
                Presence::Here => return Some(Ok(())),
                // What is only here for now is there all the same.
                Presence::Unavailable if registry.status(Some(id)).unsaved_changes > 0 => {
                    return Some(Ok(()));
                }
                Presence::Unavailable => return Some(Err(OpenError::Unavailable(id))),
                Presence::Deleted => return Some(Err(OpenError::Deleted(id))),
                Presence::Unknown => {}
            }
            match &registry.ended {
                Ended::No => None,
                Ended::Stopped(stopped) => Some(Err(OpenError::Stopped(stopped.clone()))),
                Ended::Closed => Some(Err(OpenError::Closed)),
            }
        });
        opened.await.unwrap_or(Err(OpenError::Timeout(id)))?;
        Ok(document)
    }

    /// Opens a document without waiting: it is empty until the server has sent it, and can be changed before.
    pub fn document(&self, id: DocumentId) -> Result<Document, OpenError> {
        let entry = self.inner.shared.open(id)?;
        Ok(Document::new(Handle::new(self.inner.clone(), entry)))
    }

    /// A new document, with an id of its own. The server has it from its first change on.
    pub fn create(&self) -> Result<Document, OpenError> {
        self.document(DocumentId::from_bytes(random_bytes().map_err(OpenError::Random)?))
    }

    /// Where the changes of all documents are, those included that an earlier session left in the outbox.
    pub fn save_status(&self) -> SaveStatus {
        self.inner.shared.lock().status(None)
    }

    /// Waits until the save status of all documents is another one, and returns it. What changes while nobody waits is told as one.
    pub async fn save_status_changed(&self, before: &SaveStatus) -> SaveStatus {
        crate::wait::until(&self.inner.shared, || Some(self.save_status()).filter(|now| now != before)).await
    }

    /// Waits until there is a connection, at most so long. Says whether there is.
    pub async fn connected(&self, timeout: Duration) -> bool {
        let shared = &self.inner.shared;
        wait(shared, timeout, || shared.lock().is_connected.then_some(())).await.is_some()
    }

    /// Connects now, where it would pause or has stopped, or has been trying in vain for a while; if it seems connected, it looks whether it is. For when the network is back, or a new token can be had.
    pub fn reconnect(&self) {
        let shared = &self.inner.shared;
        let mut registry = shared.lock();
        if registry.ended != Ended::Closed {
            // Whoever waits from now on does not fail because of what was.
            registry.ended = Ended::No;
        }
        drop(registry);
        shared.want(Wanted::Connection);
    }

    /// Waits until nothing is unsaved, at most so long, over reconnects if need be.
    pub async fn flush(&self, timeout: Duration) -> Result<(), UnsavedChanges> {
        let shared = &self.inner.shared;
        shared.want(Wanted::Haste);
        self.flushed(timeout, || shared.lock().is_all_saved()).await
    }

    /// Waits until every change is durable on the server, over reconnects if need be, and closes the connection.
    ///
    /// What is changed meanwhile is waited for too; once everything is durable, nothing can be changed any more. `timeout` is for all of it together.
    ///
    /// If that does not happen in time it fails with all that is not durable, by hash. Then everything is as before: call it again, or give
    /// up with [`disconnect`](Self::disconnect). What is in the outbox is sent by the next client that uses it.
    pub async fn close(&self, timeout: Duration) -> Result<(), UnsavedChanges> {
        let shared = &self.inner.shared;
        let started = Instant::now();
        // No pause between attempts is worth waiting for. A client that has stopped stays so.
        shared.want(Wanted::Haste);
        self.flushed(timeout, || shared.close_if_saved()).await?;
        // Nothing depends on it: what the outbox still has is durable on the server.
        self.join(timeout.saturating_sub(started.elapsed())).await;
        Ok(())
    }

    /// Closes the connection without waiting for the server. What the outbox can still take is written.
    pub async fn disconnect(&self) {
        self.inner.shared.end();
        self.join(OUTBOX_END_MAX).await;
    }

    async fn flushed(
        &self,
        timeout: Duration,
        mut is_done: impl FnMut() -> bool,
    ) -> Result<(), UnsavedChanges> {
        let shared = &self.inner.shared;
        let failed = |reason| Err(UnsavedChanges { reason, documents: shared.unsaved() });
        let flushed = wait(shared, timeout, || {
            let ended = shared.lock().ended.clone();
            if ended == Ended::Closed {
                let is_saved = shared.lock().is_all_saved();
                return Some(if is_saved { Ok(()) } else { Err(UnsavedReason::Closed) });
            }
            if is_done() {
                return Some(Ok(()));
            }
            if let Ended::Stopped(stopped) = ended {
                return Some(Err(UnsavedReason::Stopped(stopped)));
            }
            shared.lock().why_hopeless().map(Err)
        });
        match flushed.await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => failed(reason),
            None => failed(UnsavedReason::Timeout),
        }
    }

    #[cfg(test)]
    pub(crate) fn inner_shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Waits for the end of the client's tasks, at most so long.
    async fn join(&self, timeout: Duration) {
        let joined = async {
            for task in self.inner.tasks.lock().await.drain(..) {
                // A task that panicked has ended as well.
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(timeout, joined).await;
    }
}

#[derive(Debug, Default)]
enum Outbox {
    #[default]
    None,
    #[cfg(feature = "sqlite")]
    File(std::path::PathBuf),
    Store(StoreOfAnyKind),
}

struct StoreOfAnyKind(Arc<dyn OutboxStore>);

impl std::fmt::Debug for StoreOfAnyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an OutboxStore")
    }
}

/// Settings of a client. None is needed.
#[derive(Debug)]
#[must_use = "a client is made by `connect`"]
pub struct Builder {
    url: String,
    token: Token,
    outbox: Outbox,
    link: LinkOptions,
    open_timeout: Duration,
}

impl Builder {
    /// What the server lets the client in with.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Fixed(token.into());
        self
    }

    /// Gets what the server lets the client in with. Called before each attempt to connect; an error is an attempt that failed.
    pub fn token_from<F, E>(mut self, get: impl Fn(TokenRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.token = Token::Ask(Arc::new(move |request| {
            let token = get(request);
            Box::pin(async move { token.await.map_err(Into::into) })
        }));
        self
    }

    /// Keeps changes in this file until the server has called them durable, and sends what an earlier session left in it. A file is for one server, and for one client at a time.
    #[cfg(feature = "sqlite")]
    pub fn outbox(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.outbox = Outbox::File(path.into());
        self
    }

    /// As an outbox in a file, with a store of the application's own.
    pub fn outbox_store(mut self, store: impl OutboxStore) -> Self {
        self.outbox = Outbox::Store(StoreOfAnyKind(Arc::new(store)));
        self
    }

    /// Pauses between attempts to connect: the first is at most `min` long (default 500 ms), none is longer than `max` (default 30 s). Each has a random length up to a limit that doubles.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.link.backoff_min = min;
        self.link.backoff_max = max;
        self
    }

    /// After `interval` of silence the server is asked for a sign of life, and given up if there is none for `timeout`. Default: 10 s each.
    pub fn heartbeat(mut self, interval: Duration, timeout: Duration) -> Self {
        self.link.heartbeat_interval = interval;
        self.link.heartbeat_timeout = timeout;
        self
    }

    /// How long an attempt to connect may take, the token included. Default: 20 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.link.connect_timeout = timeout;
        self
    }

    /// How long [`Client::open`] waits for the document. Default: 30 s.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Reads the outbox and starts to connect. Must be called within a tokio runtime.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let seed = u64::from_ne_bytes(random_bytes().map_err(ConnectError::Random)?);
        self.connect_with(Arc::new(WebSockets), Random::new(seed)).await
    }

    pub(crate) async fn connect_with(
        self,
        dial: Arc<dyn Dial>,
        random: Random,
    ) -> Result<Client, ConnectError> {
        check(&self.url)?;
        let store = open_store(self.outbox).await?;
        let shared = Shared::new(store.is_some());
        if let Some(store) = &store {
            outbox::recall(&shared, &**store).await?;
        }
        let link = LinkOptions { can_refresh_token: self.token.can_be_refreshed(), ..self.link };
        shared.want(Wanted::Connection);
        let me = new_peer_id()?;
        let machine = Machine::new(shared.clone(), me, link, random);
        let driver = Driver { shared: shared.clone(), machine, url: self.url, token: self.token, dial };
        let mut tasks = vec![tokio::spawn(driver.run())];
        tasks.extend(store.map(|store| tokio::spawn(outbox::run(shared.clone(), store))));
        let inner = Inner { shared, open_timeout: self.open_timeout, tasks: AsyncMutex::new(tasks) };
        Ok(Client { inner: Arc::new(inner) })
    }
}

async fn open_store(outbox: Outbox) -> Result<Option<Arc<dyn OutboxStore>>, OutboxError> {
    Ok(match outbox {
        Outbox::None => None,
        #[cfg(feature = "sqlite")]
        Outbox::File(path) => {
            let place = format!("in `{}`", path.display());
            let opening = tokio::task::spawn_blocking(move || outbox::SqliteOutbox::open(path));
            Some(Arc::new(opening.await.map_err(|error| OutboxError::new(place, error))??))
        }
        Outbox::Store(StoreOfAnyKind(store)) => Some(store),
    })
}

fn check(url: &str) -> Result<(), ConnectError> {
    let refuse = |why: &str| Err(ConnectError::Url { url: url.to_owned(), why: why.to_owned() });
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(error) => return refuse(&format!("{error}")),
    };
    match uri.scheme_str() {
        Some("wss") if !cfg!(feature = "tls") => refuse("this build has no TLS; turn on the feature `tls`"),
        Some("ws" | "wss") if uri.host().is_some() => Ok(()),
        _ => refuse("expected ws://host:port or wss://host"),
    }
}

fn new_peer_id() -> Result<PeerId, ConnectError> {
    let text = format!("rust-{}", hex::encode(random_bytes::<16>().map_err(ConnectError::Random)?));
    PeerId::new(&text).map_err(|error| ConnectError::Random(error.to_string()))
}

/// Bytes from the system.
fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
