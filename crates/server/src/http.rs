//! The routes.

mod docs;
mod problem;

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use highwater_core::limits::FRAME_BYTES_MAX;

use crate::RenderMetrics;
use crate::activity::Activity;
use crate::connection;
use crate::hub::{Hub, Phase};
use crate::limits::{PROBE_TIMEOUT, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES};

pub(crate) fn router(hub: Arc<Hub>, render_metrics: Option<RenderMetrics>) -> Router {
    let mut router = Router::new()
        .route("/", get(sync))
        .route("/v1/sync", get(sync))
        .route("/v1/docs/{id}/changes/{hash}", get(docs::change))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz));
    if let Some(render) = render_metrics {
        router = router.route("/metrics", get(async move || metrics(render())));
    }
    router.with_state(hub)
}

/// Clients of automerge-repo connect here, on either path. Who does not want a WebSocket gets a page at the one and is told what is missing at the other.
async fn sync(
    State(hub): State<Arc<Hub>>,
    Extension(activity): Extension<Activity>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => accept(hub, activity, upgrade),
        Err(_) if uri.path() == "/" => page(&hub),
        Err(rejection) => rejection.into_response(),
    }
}

fn accept(hub: Arc<Hub>, activity: Activity, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        .on_upgrade(move |socket| connection::serve(hub, activity, socket))
}

fn page(hub: &Hub) -> Response {
    let (documents, connections) = hub.counts();
    let page = include_str!("page.html")
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{documents}", &documents.to_string())
        .replace("{connections}", &connections.to_string());
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    ([(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
}

/// The process runs and answers.
async fn livez() -> Response {
    plain(StatusCode::OK, "ok\n".to_owned())
}

/// The server takes connections, and a write made just now is durable.
async fn readyz(State(hub): State<Arc<Hub>>) -> Response {
    let phase = *hub.phase().borrow();
    let store = hub.store();
    let problem = match phase {
        Phase::Serving => match tokio::time::timeout(PROBE_TIMEOUT, store.probe()).await {
            Ok(Ok(())) => return plain(StatusCode::OK, "ready\n".to_owned()),
            Ok(Err(error)) => {
                hub.store_failed(&store, &error);
                format!("not ready: {error}\n")
            }
            Err(_) => format!("not ready: the store took longer than {PROBE_TIMEOUT:?} to write\n"),
        },
        Phase::StoreFailed => "not ready: the store failed and has not been opened again\n".to_owned(),
        Phase::Draining => "not ready: shutting down\n".to_owned(),
    };
    plain(StatusCode::SERVICE_UNAVAILABLE, problem)
}

fn metrics(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")], text)
        .into_response()
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}
