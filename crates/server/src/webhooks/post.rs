//! Posting to receivers.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{Method, Request};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::Webhook;

/// Posts over HTTP and HTTPS. What a receiver says beside the status is not read, and where it points to is not followed.
#[derive(Clone)]
pub(super) struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Poster {
    /// Trusts whom the system trusts. A post may take so long.
    pub(super) fn new(timeout: Duration) -> Result<Self, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("no certificates are trusted here: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        // Receivers are few and posts are many; a connection that is kept may be closed by the other side just as it is used again, though.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, timeout })
    }

    /// Posts a body.
    pub(super) async fn post(
        &self,
        hook: &Webhook,
        id: &str,
        timestamp: i64,
        body: Bytes,
    ) -> Result<(), Failed> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(hook.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("highwater/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", hook.secret.sign(id, timestamp, &body))
            .body(Full::new(body))
            .map_err(|error| Failed::Unanswered(error.to_string()))?;
        match timeout(self.timeout, self.client.request(request)).await {
            Err(_) => Err(Failed::Unanswered(format!("no answer within {:?}", self.timeout))),
            Ok(Err(error)) => Err(Failed::Unanswered(with_sources(&error))),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(Failed::Refused(format!("the answer was {}", answer.status()))),
        }
    }
}

/// Why a post did not do, as far as is known.
pub(super) enum Failed {
    /// Nobody answered in time: the receiver is not there.
    Unanswered(String),
    /// The receiver is there, and answered with something else than success.
    Refused(String),
}

/// What went wrong, with what was behind it.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
