//! What can be asked about documents, and sent for them, over HTTP.

mod edit;
mod events;
mod history;
mod list;
mod read;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, IF_MATCH, IF_NONE_MATCH};
use axum::response::{IntoResponse, Response};
use highwater_core::ChangeHash;
use highwater_core::limits::HAVE_HASHES_MAX;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{HashInPath, InPath, content_length, read_with_room};
use super::openapi::{BodyProblems, Chunks, Hash, Id, ReadProblems};
use super::problem::{Problem, ProblemBody};
use crate::activity::Activity;
use crate::connection;
use crate::envelope::hashes;
use crate::hub::Hub;
use crate::limits::{HAVE_BYTES_MAX, INGEST_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX};

/// The routes below `/v1/docs`, with their description.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(list::list, edit::create))
        .routes(routes!(read::document, read::head, edit::patch, edit::put, edit::delete))
        .routes(routes!(read::heads))
        .routes(routes!(read::diff))
        .routes(routes!(history::history))
        .routes(routes!(history::changes, ingest))
        .routes(routes!(events::document))
        .routes(routes!(events::feed))
        .routes(routes!(change))
        .routes(routes!(have))
}

/// The subprotocol of `GET /v1/docs/{id}/sync`.
pub(super) const PLAIN_PROTOCOL: &str = "automerge-sync.v1";

/// `GET /v1/docs/{id}/sync`: a WebSocket for one document, in the plain protocol.
pub(super) async fn sync(
    State(hub): State<Arc<Hub>>,
    activity: Activity,
    InPath(id): InPath,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => super::with_limits(upgrade.protocols([PLAIN_PROTOCOL]))
            .on_upgrade(move |socket| connection::serve_plain(hub, activity, id, socket)),
        Err(rejection) => Problem::from(rejection).into_response(),
    }
}

/// A change that is durable.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeIsDurable {
    hash: String,
    /// Always true.
    durable: bool,
}

/// Whether a change is durable
///
/// One look-up, whether the document is open or not, however long its history.
#[utoipa::path(get, path = "/v1/docs/{id}/changes/{hash}", tag = "changes", params(Id, Hash), responses(
    (status = 200, description = "It is durable, and part of the document.", body = ChangeIsDurable),
    ReadProblems,
))]
pub(super) async fn change(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    HashInPath(hash): HashInPath,
) -> Result<Response, Problem> {
    if hub.contains(id, vec![hash]).await? != [true] {
        return Err(Problem::NoSuchChange);
    }
    Ok(answer(&ChangeIsDurable { hash: hash.to_string(), durable: true }))
}

/// Of which changes it is asked whether they are durable.
#[derive(Deserialize, ToSchema)]
pub(super) struct Have {
    /// The hashes of changes, in hexadecimal.
    #[serde(deserialize_with = "change_hashes")]
    #[schema(value_type = Vec<HashText>, max_items = 1000)]
    hashes: Vec<ChangeHash>,
}

/// The hash of a change, in hexadecimal.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9a-f]{64}$")]
#[allow(dead_code, reason = "describes what is read elsewhere")]
struct HashText(String);

/// Which changes are durable, and which are not.
#[derive(Serialize, ToSchema)]
pub(super) struct HaveAnswer {
    durable: Vec<String>,
    /// They may be on their way to disk.
    missing: Vec<String>,
}

/// Which of some changes are durable
#[utoipa::path(post, path = "/v1/docs/{id}/have", tag = "changes", params(Id), request_body = Have, responses(
    (status = 200, description = "Those that are durable and part of the document, and the others.", body = HaveAnswer),
    BodyProblems,
))]
pub(super) async fn have(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    body: Body,
) -> Result<Response, Problem> {
    let body = super::extract::read(body, HAVE_BYTES_MAX).await?;
    let invalid = |error: serde_json::Error| Problem::Invalid { what: "body", detail: error.to_string() };
    let Have { hashes: asked } = serde_json::from_slice(&body).map_err(invalid)?;
    let found = hub.contains(id, asked.clone()).await?;
    let (mut durable, mut missing) = (Vec::new(), Vec::new());
    for (hash, is_durable) in asked.into_iter().zip(found) {
        if is_durable { durable.push(hash) } else { missing.push(hash) }
    }
    Ok(answer(&HaveAnswer { durable: hashes(&durable), missing: hashes(&missing) }))
}

/// What became of changes.
#[derive(Serialize, ToSchema)]
pub(super) struct IngestAnswer {
    durable: Vec<String>,
    /// Stored, and waiting for changes that they depend on.
    pending: Vec<String>,
    /// These will never be part of the document.
    rejected: Vec<Rejected>,
}

/// A change that will never be part of the document.
#[derive(Serialize, ToSchema)]
pub(super) struct Rejected {
    hash: String,
    reason: String,
}

/// Sends changes
///
/// Change chunks one after the other. They are taken in as on a socket, and the answer comes when they are durable. Sending them again does no harm. The content type is of no interest: a
/// page that is being closed cannot choose it freely.
#[utoipa::path(post, path = "/v1/docs/{id}/changes", tag = "changes", params(Id),
    request_body(content = Option<Chunks>, content_type = "application/vnd.automerge", description = "At most 32 MiB."),
    responses(
        (status = 200, description = "They are durable, but for those that are named.", body = IngestAnswer),
        (status = 411, description = "`length_required`: with a Content-Length.", body = ProblemBody, content_type = "application/problem+json"),
        BodyProblems,
    ),
)]
pub(super) async fn ingest(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    without_conditions(&headers)?;
    content_length(&headers, INGEST_BYTES_MAX)?.ok_or(Problem::LengthRequired)?;
    // Held until the answer: what all requests together hold in memory is bounded.
    let (body, _room) = read_with_room(&hub, &headers, body, INGEST_BYTES_MAX).await?;
    let ingested = hub.ingest(id, body, "http").await?;
    let rejected = ingested.rejected.into_iter();
    Ok(answer(&IngestAnswer {
        durable: hashes(&ingested.durable),
        pending: hashes(&ingested.pending),
        rejected: rejected.map(|it| Rejected { hash: it.hash.to_string(), reason: it.reason }).collect(),
    }))
}

/// Changes merge: whatever the document is, they are part of it afterwards, and sending them twice does no harm. Who asks for more must not believe to have it.
fn without_conditions(headers: &HeaderMap) -> Result<(), Problem> {
    let asked = [IF_MATCH, IF_NONE_MATCH].into_iter().find(|name| headers.contains_key(name));
    match asked {
        Some(name) => Err(Problem::Invalid {
            what: "preconditions",
            detail: format!("{name} is not for changes, which merge"),
        }),
        None => Ok(()),
    }
}

/// How many entries of a list are wanted.
fn page_limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::Invalid { what: "limit", detail: format!("expected 1 to {PAGE_MAX}") }),
    }
}

/// An answer that is true now.
fn answer(body: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// Hashes as hex texts, not more than may be asked about at once.
pub(crate) fn change_hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ChangeHash>, D::Error> {
    use serde::de::Error;
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > HAVE_HASHES_MAX {
        return Err(D::Error::custom(format!("more than {HAVE_HASHES_MAX} hashes")));
    }
    let parse =
        |text: &String| text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no change hash")));
    texts.iter().map(parse).collect()
}
