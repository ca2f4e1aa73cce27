//! A server in the server of an application.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderValue, Request, Response};
use bytes::Bytes;
use tower::ServiceExt;

use crate::hub::Hub;
use crate::{Documents, ServerError, http};

/// A server without a socket of its own: an application mounts its routes, and reads and edits its documents. Clones are the same server.
///
/// ```no_run
/// # use std::time::Duration;
/// # use highwater_server::Server;
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let embedded = Server::builder().data_dir("./data").embed().await?;
/// // Clients of automerge-repo connect to ws://…/documents/v1/sync.
/// let app = axum::Router::new().nest("/documents", embedded.router());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let drain = embedded.clone();
/// let serving = tokio::spawn(axum::serve(listener, app).into_future());
/// tokio::signal::ctrl_c().await?;
/// drain.drain(Duration::from_secs(20)).await?;
/// serving.abort();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Embedded {
    hub: Arc<Hub>,
}

impl Embedded {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Its documents.
    pub fn documents(&self) -> Documents {
        Documents::new(self.hub.clone())
    }

    /// All of a server's routes below `/v1`: `/v1/sync` for clients of automerge-repo, `/v1/docs` and what is below it, `/v1/api`. To be merged into the application's routes, or nested below
    /// a path of its own.
    ///
    /// Who may come here is the application's to decide, as is how long a request may take and how many sockets there may be. Its server must allow for WebSockets (`axum::serve` does). As
    /// the bytes of a socket are not seen here, a client is given up when no whole frame has passed for a minute.
    pub fn router(&self) -> Router {
        http::mounted(self.hub.clone())
    }

    /// Answers a request to one of these routes as a server would, without a socket. Not for those that never end.
    pub async fn request(&self, mut request: Request<Bytes>) -> io::Result<Response<Bytes>> {
        let len = request.body().len();
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
        let answer = match self.router().oneshot(request.map(Body::from)).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body))
    }

    /// Whether connections are taken, and a write made just now is durable; if not, why. For the application's own health check.
    pub async fn ready(&self) -> Result<(), String> {
        self.hub.ready().await
    }

    /// Lets nobody in any more and waits, at most so long, until all that was received is durable and acknowledged and the connections are closed; then closes the store. Without this, what was
    /// acknowledged is on disk all the same.
    pub async fn drain(&self, deadline: Duration) -> Result<(), ServerError> {
        Ok(self.hub.drain(deadline).await?)
    }
}
