//! What can be asked about documents over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use highwater_core::{ChangeHash, DocumentId};
use serde_json::json;

use super::problem::Problem;
use crate::hub::Hub;

/// `GET /v1/docs/{id}/changes/{hash}`: 200 if the change is durable and part of the document, 404 if it is not. One look-up, however long the history.
pub(super) async fn change(
    State(hub): State<Arc<Hub>>,
    Path((id, hash)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (id, hash) = (document_id(&id)?, change_hash(&hash)?);
    if !hub.contains(id, hash).await? {
        return Err(Problem::NoSuchChange);
    }
    let body = json!({ "hash": hash.to_string(), "durable": true });
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// A document id, also as a url of automerge-repo.
fn document_id(text: &str) -> Result<DocumentId, Problem> {
    let id = text.strip_prefix("automerge:").unwrap_or(text);
    id.parse().map_err(|error| Problem::Invalid { what: "document id", detail: format!("{error}") })
}

fn change_hash(text: &str) -> Result<ChangeHash, Problem> {
    text.parse().map_err(|error| Problem::Invalid { what: "change hash", detail: format!("{error}") })
}
