//! The routes.

mod code;
mod docs;
mod extract;
mod openapi;
mod problem;
mod tags;
mod webhooks;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, post};
use highwater_core::limits::FRAME_BYTES_MAX;
use tower::ServiceExt;
use tower_http::cors::{self, AllowOrigin, CorsLayer};
use tower_http::services::ServeDir;

pub(crate) use docs::change_hashes;
pub(crate) use extract::check_time;
pub(crate) use problem::Problem;
pub(crate) use tags::etag;

use crate::activity::Activity;
use crate::config::AllowedOrigins;
use crate::connection;
use crate::hub::Hub;
use crate::limits::{READ_BUFFER_BYTES, WRITE_BUFFER_BYTES};
use crate::{Kill, RenderMetrics};

/// All that a server of its own answers.
pub(crate) fn router(hub: Arc<Hub>, render_metrics: Option<RenderMetrics>, kill: Option<Kill>) -> Router {
    let mut router = v1().route("/", get(sync)).route("/livez", get(livez)).route("/readyz", get(readyz));
    if let Some(render) = render_metrics {
        router = router.route("/metrics", get(async move || metrics(render())));
    }
    if let Some(kill) = kill {
        router = router.route("/demo", get(async || plain(StatusCode::OK, "demo\n".to_owned())));
        router = router.route("/demo/kill", post(async move || kill()));
    }
    router = match &hub.config().pages {
        Some(pages) => router.fallback_service(static_files(pages)),
        None => router.fallback(no_such_route),
    };
    with_rules(router, hub)
}

/// What the server of an application answers: all that is below `/v1`.
pub(crate) fn mounted(hub: Arc<Hub>) -> Router {
    with_rules(v1(), hub)
}

fn v1() -> Router<Arc<Hub>> {
    Router::new()
        .route("/v1/sync", get(sync))
        .merge(openapi::routes())
        .route("/v1/docs/{id}/sync", get(docs::sync))
        .route("/v1", any(no_such_route))
        .route("/v1/", any(no_such_route))
        .route("/v1/{*path}", any(no_such_route))
}

/// What holds for all routes.
fn with_rules(router: Router<Arc<Hub>>, hub: Arc<Hub>) -> Router {
    let router = router.method_not_allowed_fallback(wrong_method);
    let origins = Arc::new(hub.config().allowed_origins.clone());
    let cors = cors(&origins);
    router.layer(cors).layer(middleware::from_fn_with_state(origins, check_origin)).with_state(hub)
}

async fn no_such_route(uri: Uri) -> Problem {
    Problem::NoSuchRoute(uri.path().to_owned())
}

async fn wrong_method(method: Method) -> Problem {
    Problem::Method(method.to_string())
}

async fn check_origin(State(origins): State<Arc<AllowedOrigins>>, request: Request, next: Next) -> Response {
    match forbidden_origin(&origins, request.headers()) {
        Some(origin) => Problem::Origin(origin).into_response(),
        None => next.run(request).await,
    }
}

/// Lets pages of the allowed origins read the answers.
fn cors(origins: &AllowedOrigins) -> CorsLayer {
    let allow = match origins {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::These(these) => {
            AllowOrigin::list(these.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    CorsLayer::new()
        .allow_origin(allow)
        .allow_methods(cors::Any)
        .allow_headers(cors::Any)
        .expose_headers(cors::Any)
}

/// The origin of a page that may not use this server. Browsers say whose page it is, also for WebSockets, which they let every page open; other clients say nothing.
fn forbidden_origin(origins: &AllowedOrigins, headers: &HeaderMap) -> Option<String> {
    let AllowedOrigins::These(these) = origins else { return None };
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or("an origin that cannot be read");
    // A page of this server itself.
    let is_own = headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| {
        origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")) == Some(host)
    });
    (!is_own && !these.iter().any(|allowed| allowed == origin)).then(|| origin.to_owned())
}

/// Clients of automerge-repo connect here, on either path. Who does not want a WebSocket gets a page at the one and is told what is missing at the other.
async fn sync(
    State(hub): State<Arc<Hub>>,
    activity: Activity,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    match (upgrade, &hub.config().pages) {
        (Ok(upgrade), _) => accept(hub, activity, upgrade),
        (Err(_), Some(pages)) if uri.path() == "/" => {
            static_files(pages).oneshot(request).await.into_response()
        }
        (Err(_), None) if uri.path() == "/" => page(&hub),
        (Err(rejection), _) => Problem::from(rejection).into_response(),
    }
}

fn static_files(pages: &Path) -> ServeDir {
    ServeDir::new(pages).precompressed_gzip()
}

fn accept(hub: Arc<Hub>, activity: Activity, upgrade: WebSocketUpgrade) -> Response {
    with_limits(upgrade).on_upgrade(move |socket| connection::serve_repo(hub, activity, socket))
}

fn with_limits(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
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
    match hub.ready().await {
        Ok(()) => plain(StatusCode::OK, "ready\n".to_owned()),
        Err(problem) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {problem}\n")),
    }
}

fn metrics(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")], text)
        .into_response()
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")], text).into_response()
}
