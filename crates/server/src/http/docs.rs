//! What can be asked about documents, and sent for them, over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, body};
use bytes::Bytes;
use highwater_core::limits::HAVE_HASHES_MAX;
use highwater_core::{ChangeHash, DocumentId, Materialised, PeerId};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::problem::Problem;
use crate::activity::Activity;
use crate::connection;
use crate::envelope::{hashes, rejections};
use crate::hub::Hub;
use crate::limits::{HAVE_BYTES_MAX, INGEST_BYTES_MAX};
use crate::uploads;

/// The subprotocol of `GET /v1/docs/{id}/sync`.
pub(super) const PLAIN_PROTOCOL: &str = "automerge-sync.v1";

/// `GET /v1/docs/{id}/sync`: a WebSocket for one document, in the plain protocol.
pub(super) async fn sync(
    State(hub): State<Arc<Hub>>,
    Extension(activity): Extension<Activity>,
    Path(id): Path<String>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let id = match document_id(&id) {
        Ok(id) => id,
        Err(problem) => return problem.into_response(),
    };
    match upgrade {
        Ok(upgrade) => super::with_limits(upgrade.protocols([PLAIN_PROTOCOL]))
            .on_upgrade(move |socket| connection::serve_plain(hub, activity, id, socket)),
        Err(rejection) => rejection.into_response(),
    }
}

/// `GET /v1/docs/{id}`: the document as `Automerge.save` writes it, with all that is durable now.
pub(super) async fn document(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = document_id(&id)?;
    let saved = hub.read(id, Materialised::save).await?.ok_or(Problem::NoSuchDocument)?;
    Ok(([(CONTENT_TYPE, "application/vnd.automerge"), (CACHE_CONTROL, "no-store")], saved).into_response())
}

/// `GET /v1/docs/{id}/changes/{hash}`: 200 if the change is durable and part of the document, 404 if it is not. One look-up, however long the history.
pub(super) async fn change(
    State(hub): State<Arc<Hub>>,
    Path((id, hash)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, hash) = (document_id(&id)?, change_hash(&hash)?);
    if hub.contains(id, vec![hash]).await? != [true] {
        return Err(Problem::NoSuchChange);
    }
    Ok(answer(&json!({ "hash": hash.to_string(), "durable": true })))
}

/// Of which changes it is asked whether they are durable.
#[derive(Deserialize)]
struct Have {
    #[serde(deserialize_with = "change_hashes")]
    hashes: Vec<ChangeHash>,
}

/// `POST /v1/docs/{id}/have` with `{"hashes": [...]}`: which of them are durable and part of the document, and which are not.
pub(super) async fn have(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let id = document_id(&id)?;
    let body = read(body, HAVE_BYTES_MAX).await?;
    let invalid = |error: serde_json::Error| Problem::Invalid { what: "body", detail: error.to_string() };
    let Have { hashes: asked } = serde_json::from_slice(&body).map_err(invalid)?;
    let found = hub.contains(id, asked.clone()).await?;
    let (mut durable, mut missing) = (Vec::new(), Vec::new());
    for (hash, is_durable) in asked.into_iter().zip(found) {
        if is_durable { durable.push(hash) } else { missing.push(hash) }
    }
    Ok(answer(&json!({ "durable": hashes(&durable), "missing": hashes(&missing) })))
}

/// `POST /v1/docs/{id}/changes` with change chunks one after the other: they are taken in as on a socket, and the answer comes when they are durable. Sending them again does no harm.
///
/// The content type is of no interest: a page that is being closed cannot choose it freely.
pub(super) async fn ingest(
    State(hub): State<Arc<Hub>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = document_id(&id)?;
    let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let len: usize = len.ok_or(Problem::LengthRequired)?;
    if len > INGEST_BYTES_MAX {
        return Err(Problem::TooLarge { max: INGEST_BYTES_MAX });
    }
    // Held until the answer: what all requests together hold in memory is bounded.
    let _room = hub.ingest_room(len).await;
    let body = read(body, INGEST_BYTES_MAX).await?;
    let changes = uploads::unpack(hub.unpacking(), id, vec![body]).await?;
    let sender = PeerId::new("http").map_err(|error| Problem::Internal(error.to_string()))?;
    let ingested = hub.ingest(id, changes, sender).await?;
    Ok(answer(&json!({
        "durable": hashes(&ingested.durable),
        "pending": hashes(&ingested.pending),
        "rejected": rejections(&ingested.rejected),
    })))
}

async fn read(body: Body, max: usize) -> Result<Bytes, Problem> {
    // What it fails of is either the limit or a connection that is gone, and then nobody hears the answer.
    body::to_bytes(body, max).await.map_err(|_| Problem::TooLarge { max })
}

fn answer(body: &serde_json::Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// A document id, also as a url of automerge-repo.
fn document_id(text: &str) -> Result<DocumentId, Problem> {
    let id = text.strip_prefix("automerge:").unwrap_or(text);
    id.parse().map_err(|error| Problem::Invalid { what: "document id", detail: format!("{error}") })
}

fn change_hash(text: &str) -> Result<ChangeHash, Problem> {
    text.parse().map_err(|error| Problem::Invalid { what: "change hash", detail: format!("{error}") })
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
