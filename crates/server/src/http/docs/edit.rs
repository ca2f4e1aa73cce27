//! Making, editing and deleting documents.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, ETAG, HeaderName, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use highwater_core::{Edit, EditError};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{
    AUTOMERGE, InPath, InQuery, JSON, MountedAt, content_type, document_id, idempotency_key, read_with_room,
    wants_representation,
};
use super::super::openapi::{Chunks, EditHeaders, EditProblems, Id, Json as JsonForm, KeyHeader, Operation};
use super::super::problem::{PATCH_TYPES, Problem};
use super::super::tags::{etag, precondition};
use super::read::{with_header, with_heads};
use crate::document::{EditRequest, Edited, Work};
use crate::envelope::hashes;
use crate::hub::Hub;
use crate::limits::{EDIT_BYTES_MAX, EDIT_BYTES_UNFOLD, INGEST_BYTES_MAX, MESSAGE_CHARS_MAX};
use crate::uploads;

/// The change that an edit made.
const CHANGE: HeaderName = HeaderName::from_static("highwater-change");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// An edit that is durable.
#[derive(Serialize, ToSchema)]
pub(super) struct EditAnswer {
    /// The change that it made; null if there was nothing to change.
    #[schema(required = true)]
    hash: Option<String>,
    /// The heads of the document with the edit.
    heads: Vec<String>,
}

/// A document that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct CreateAnswer {
    /// Its id.
    id: String,
    /// Its url for automerge-repo.
    url: String,
    /// The change that was made; null if it was made of changes that came with the request.
    #[schema(required = true)]
    hash: Option<String>,
    /// Its heads.
    heads: Vec<String>,
}

/// What is said of a new document beside what it holds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CreateQuery {
    /// Its id. Without one, one is made up.
    #[param(pattern = "^(automerge:)?[1-9A-HJ-NP-Za-km-z]{20,40}$")]
    id: Option<String>,
    /// What the change is about, for people.
    #[param(max_length = 500)]
    message: Option<String>,
}

/// What is said of an edit.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EditQuery {
    /// What the change is about, for people.
    #[param(max_length = 500)]
    message: Option<String>,
}

/// Makes a document
///
/// From JSON (at most 8 MiB), from a document as `Automerge.save` writes it or changes one after the other (at most 32 MiB), or an empty one. With an `Idempotency-Key` and without an id, the
/// id is made of the key.
#[utoipa::path(post, path = "/v1/docs", tag = "documents", params(CreateQuery, KeyHeader),
    request_body(content((Option<JsonForm> = "application/json"), (Option<Chunks> = "application/vnd.automerge"))),
    responses(
        (status = 201, description = "It is durable.", body = CreateAnswer, headers(
            ("Location" = String, description = "Where it is."), ("ETag" = String, description = "Its heads."))),
        EditProblems,
    ),
)]
pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    MountedAt(base): MountedAt,
    InQuery(query): InQuery<CreateQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_message(query.message.as_deref())?;
    let chosen = query.id.as_deref().map(document_id).transpose()?;
    let kind = content_type(&headers);
    let (max, unfold) =
        if kind == AUTOMERGE { (INGEST_BYTES_MAX, 1) } else { (EDIT_BYTES_MAX, EDIT_BYTES_UNFOLD) };
    let (body, room) = read_with_room(&hub, &headers, body, max, unfold).await?;
    let named = query.id.unwrap_or_default();
    let message = query.message.as_deref().unwrap_or_default();
    let asked: &[&[u8]] = &[b"create", named.as_bytes(), message.as_bytes(), kind.as_bytes(), &body];
    let key = idempotency_key(&headers, asked)?;
    let id = hub.id_of_new(chosen, key)?;
    let work = match &*kind {
        _ if body.is_empty() => Work::Nothing,
        JSON => Work::Edit(parse(body, Edit::set).await?),
        AUTOMERGE => match uploads::unpack(hub.unpacking(), id, vec![body]).await? {
            changes if changes.is_empty() => Work::Nothing,
            changes => Work::Import(changes),
        },
        _ => return Err(Problem::MediaType { taken: "application/json or application/vnd.automerge" }),
    };
    let request = EditRequest { message: query.message, key, _room: room, ..EditRequest::create(work) };
    let Edited { hash, heads, .. } = hub.edit(id, request).await?;
    let headers = [
        (LOCATION, format!("{base}/v1/docs/{id}")),
        (ETAG, etag(&heads)),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    let body = CreateAnswer {
        id: id.to_string(),
        url: format!("automerge:{id}"),
        hash: hash.map(|hash| hash.to_string()),
        heads: hashes(&heads),
    };
    Ok((StatusCode::CREATED, headers, Json(body)).into_response())
}

/// Reads an edit where that may take its time.
async fn parse(body: Bytes, parse: fn(&[u8]) -> Result<Edit, EditError>) -> Result<Edit, Problem> {
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    Ok(parsed.map_err(|error| Problem::Internal(error.to_string()))??)
}

/// Edits a document
///
/// With a JSON Patch (RFC 6902), which may also have the operations `{"op": "splice", "path", "index", "delete", "insert"}` for texts and lists and `{"op": "increment", "path", "by"}`
/// for counters, or a JSON Merge Patch (RFC 7386). All of it becomes one change, or nothing. Strings are diffed into edits of texts, and lists into edits of lists, so that what people do at the same time stays.
#[utoipa::path(patch, path = "/v1/docs/{id}", tag = "documents", params(Id, EditQuery, EditHeaders),
    request_body(content(
        (Vec<Operation> = "application/json-patch+json"),
        (JsonForm = "application/merge-patch+json"))),
    responses(
        (status = 200, description = "It is durable. With `Prefer: return=representation`, the document as JSON.",
            body = EditAnswer, headers(
            ("ETag" = String, description = "The heads of the document with the edit."),
            ("Highwater-Change" = String, description = "The change, if there was anything to change."),
            ("Preference-Applied" = String, description = "If the answer is the document."))),
        EditProblems,
    ),
)]
pub(super) async fn patch(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    InQuery(query): InQuery<EditQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let parser: fn(&[u8]) -> _ = match &*content_type(&headers) {
        "application/json-patch+json" => Edit::json_patch,
        "application/merge-patch+json" => Edit::merge_patch,
        _ => return Err(Problem::MediaType { taken: PATCH_TYPES }),
    };
    let request = read_edit(&hub, b"patch", &headers, query, body, parser).await?;
    Ok(edit_answer(StatusCode::OK, hub.edit(id, request).await?))
}

/// Says what a whole document is to be
///
/// What differs from what it is becomes one change, as small as it can be found to be. A document that does not exist is made.
#[utoipa::path(put, path = "/v1/docs/{id}", tag = "documents", params(Id, EditQuery, EditHeaders),
    request_body(content((JsonForm = "application/json"))),
    responses(
        (status = 200, description = "It is durable. With `Prefer: return=representation`, the document as JSON.", body = EditAnswer, headers(
            ("ETag" = String, description = "The heads of the document with the edit."))),
        (status = 201, description = "The same, of a document that is new.", body = EditAnswer, headers(
            ("ETag" = String, description = "The heads of the document."))),
        EditProblems,
    ),
)]
pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    InQuery(query): InQuery<EditQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if content_type(&headers) != JSON {
        return Err(Problem::MediaType { taken: JSON });
    }
    let request = read_edit(&hub, b"put", &headers, query, body, Edit::set).await?;
    let edited = hub.edit(id, EditRequest { creates: true, ..request }).await?;
    let status = if edited.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(edit_answer(status, edited))
}

/// Deletes a document
///
/// For good: nothing of it is served any more, and nothing that clients still have of it is taken in. Changes that they send are refused by name.
#[utoipa::path(delete, path = "/v1/docs/{id}", tag = "documents", params(Id, EditHeaders), responses(
    (status = 204, description = "That it is deleted is durable."),
    EditProblems,
))]
pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = request(b"delete", &headers, None, &Bytes::new(), None)?;
    hub.edit(id, EditRequest { work: Work::Delete, wants_value: false, ..request }).await?;
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

/// Addresses must not get too long.
fn check_message(message: Option<&str>) -> Result<(), Problem> {
    if message.is_some_and(|message| message.chars().count() > MESSAGE_CHARS_MAX) {
        let detail = format!("more than {MESSAGE_CHARS_MAX} characters");
        return Err(Problem::Invalid { what: "message", detail });
    }
    Ok(())
}

/// What a request with an edit in its body asks for.
async fn read_edit(
    hub: &Hub,
    method: &[u8],
    headers: &HeaderMap,
    query: EditQuery,
    body: Body,
    parser: fn(&[u8]) -> Result<Edit, EditError>,
) -> Result<EditRequest, Problem> {
    let (body, room) = read_with_room(hub, headers, body, EDIT_BYTES_MAX, EDIT_BYTES_UNFOLD).await?;
    let request = request(method, headers, query.message, &body, room)?;
    Ok(EditRequest { work: Work::Edit(parse(body, parser).await?), ..request })
}

/// What the head of a request asks of an edit.
fn request(
    method: &[u8],
    headers: &HeaderMap,
    message: Option<String>,
    body: &Bytes,
    room: Option<OwnedSemaphorePermit>,
) -> Result<EditRequest, Problem> {
    check_message(message.as_deref())?;
    let precondition = precondition(headers)?;
    let asked = format!("{precondition:?}");
    let text = message.as_deref().unwrap_or_default();
    let kind = content_type(headers);
    let key = idempotency_key(headers, &[method, asked.as_bytes(), text.as_bytes(), kind.as_bytes(), body])?;
    let wants_value = wants_representation(headers);
    Ok(EditRequest {
        message,
        precondition,
        key,
        wants_value,
        _room: room,
        ..EditRequest::new(Work::Nothing)
    })
}

fn edit_answer(status: StatusCode, edited: Edited) -> Response {
    let Edited { hash, heads, value, .. } = edited;
    let hash = hash.map(|hash| hash.to_string());
    let change = hash.clone();
    let answer = match value {
        Some(value) => {
            let applied = [(PREFERENCE_APPLIED, "return=representation")];
            (status, applied, with_heads(&heads, JSON, value)).into_response()
        }
        None => {
            let headers = [(ETAG, etag(&heads)), (CACHE_CONTROL, "no-store".to_owned())];
            (status, headers, Json(EditAnswer { hash, heads: hashes(&heads) })).into_response()
        }
    };
    with_header(answer, CHANGE, change)
}
