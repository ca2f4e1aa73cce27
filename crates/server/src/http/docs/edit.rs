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
use utoipa::openapi::schema::{AnyOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::super::extract::{
    AUTOMERGE, InPath, InQuery, JSON, MountedAt, check_time, content_type, document_id, idempotency_key,
    read_with_room, wants_representation,
};
use super::super::openapi::{Chunks, EditHeaders, EditProblems, Id, Json as JsonForm, KeyHeader, Operation};
use super::super::problem::{PATCH_TYPES, Problem};
use super::super::tags::{etag, precondition};
use super::read::{with_header, with_heads};
use crate::document::{EditRequest, Edited, Work};
use crate::envelope::hashes;
use crate::hub::Hub;
use crate::limits::{EDIT_BYTES_MAX, EDIT_BYTES_UNFOLD, INGEST_BYTES_MAX, MESSAGE_CHARS_MAX};
use crate::rooms::RoomTaken;
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

/// What an edit made, or, on request, the document as it is with the edit.
pub(super) struct EditOrDocument;

impl PartialSchema for EditOrDocument {
    fn schema() -> RefOr<Schema> {
        let either = [EditAnswer::name(), JsonForm::name()].map(Ref::from_schema_name);
        let [edit, document] = either;
        AnyOfBuilder::new().item(edit).item(document).into()
    }
}

impl ToSchema for EditOrDocument {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((EditAnswer::name().into_owned(), EditAnswer::schema()));
        schemas.push((JsonForm::name().into_owned(), JsonForm::schema()));
    }
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
    /// When it was made, in seconds since 1970; now, if nothing is said.
    #[param(minimum = -9007199254740992i64, maximum = 9007199254740992i64)]
    time: Option<i64>,
}

/// What is said of an edit.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EditQuery {
    /// What the change is about, for people.
    #[param(max_length = 500)]
    message: Option<String>,
    /// When it was made, in seconds since 1970; now, if nothing is said.
    #[param(minimum = -9007199254740992i64, maximum = 9007199254740992i64)]
    time: Option<i64>,
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
    check_stamp(query.message.as_deref(), query.time)?;
    let chosen = query.id.as_deref().map(document_id).transpose()?;
    let kind = content_type(&headers);
    let max = if kind == AUTOMERGE { INGEST_BYTES_MAX } else { EDIT_BYTES_MAX };
    let (body, mut room) = read_with_room(&hub, &headers, body, max).await?;
    let named = query.id.unwrap_or_default();
    let (message, time) = (query.message.as_deref().unwrap_or_default(), time_text(query.time));
    let asked: &[&[u8]] =
        &[b"create", named.as_bytes(), message.as_bytes(), time.as_bytes(), kind.as_bytes(), &body];
    let key = idempotency_key(&headers, asked)?;
    let id = hub.id_of_new(chosen, key)?;
    let work = match &*kind {
        _ if body.is_empty() => Work::Nothing,
        JSON => {
            let (edit, of_edit) = parse(&hub, body, Edit::set).await?;
            room = of_edit;
            Work::Edit(edit)
        }
        AUTOMERGE => match uploads::unpack(hub.unpacking(), id, vec![body]).await? {
            changes if changes.is_empty() => Work::Nothing,
            changes => Work::Import(changes),
        },
        _ => return Err(Problem::MediaType { taken: "application/json or application/vnd.automerge" }),
    };
    let request = EditRequest {
        message: query.message,
        time: query.time,
        key,
        _room: Some(room),
        ..EditRequest::create(work)
    };
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

/// Reads an edit where that may take its time. Returned with the room that it takes up.
async fn parse(
    hub: &Hub,
    body: Bytes,
    parse: fn(&[u8]) -> Result<Edit, EditError>,
) -> Result<(Edit, RoomTaken), Problem> {
    let room = hub.rooms().edits.take(body.len() * EDIT_BYTES_UNFOLD).await?;
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    Ok((parsed.map_err(|error| Problem::Internal(error.to_string()))??, room))
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
            body = EditOrDocument, headers(
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
    Ok(edit_answer(&hub, StatusCode::OK, hub.edit(id, request).await?))
}

/// Says what a whole document is to be
///
/// What differs from what it is becomes one change, as small as it can be found to be. A document that does not exist is made.
#[utoipa::path(put, path = "/v1/docs/{id}", tag = "documents", params(Id, EditQuery, EditHeaders),
    request_body(content((JsonForm = "application/json"))),
    responses(
        (status = 200, description = "It is durable. With `Prefer: return=representation`, the document as JSON.", body = EditOrDocument, headers(
            ("ETag" = String, description = "The heads of the document with the edit."))),
        (status = 201, description = "The same, of a document that is new.", body = EditOrDocument, headers(
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
    Ok(edit_answer(&hub, status, edited))
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
    let request = request(b"delete", &headers, EditQuery::default(), &Bytes::new())?;
    hub.edit(id, EditRequest { work: Work::Delete, wants_value: false, ..request }).await?;
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

/// Addresses must not get too long, and no document takes changes of a time that programs cannot tell exactly.
fn check_stamp(message: Option<&str>, time: Option<i64>) -> Result<(), Problem> {
    if message.is_some_and(|message| message.chars().count() > MESSAGE_CHARS_MAX) {
        let detail = format!("more than {MESSAGE_CHARS_MAX} characters");
        return Err(Problem::Invalid { what: "message", detail });
    }
    check_time(time)
}

/// The time, among what makes a request another one.
fn time_text(time: Option<i64>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
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
    // Held until it is parsed, and what is made of it until it is done.
    let (body, _room) = read_with_room(hub, headers, body, EDIT_BYTES_MAX).await?;
    let request = request(method, headers, query, &body)?;
    let (edit, room) = parse(hub, body, parser).await?;
    Ok(EditRequest { work: Work::Edit(edit), _room: Some(room), ..request })
}

/// What the head of a request asks of an edit.
fn request(
    method: &[u8],
    headers: &HeaderMap,
    query: EditQuery,
    body: &Bytes,
) -> Result<EditRequest, Problem> {
    let EditQuery { message, time } = query;
    check_stamp(message.as_deref(), time)?;
    let precondition = precondition(headers)?;
    let asked = format!("{precondition:?}");
    let text = message.as_deref().unwrap_or_default();
    let kind = content_type(headers);
    let at = time_text(time);
    let asked: &[&[u8]] = &[method, asked.as_bytes(), text.as_bytes(), at.as_bytes(), kind.as_bytes(), body];
    let key = idempotency_key(headers, asked)?;
    let wants_value = wants_representation(headers);
    Ok(EditRequest { message, time, precondition, key, wants_value, ..EditRequest::new(Work::Nothing) })
}

/// The edit is made: if there is no room for the document as it is now, that is not a reason to say anything else. It is a preference.
fn edit_answer(hub: &Hub, status: StatusCode, edited: Edited) -> Response {
    let Edited { hash, heads, value, .. } = edited;
    let hash = hash.map(|hash| hash.to_string());
    let change = hash.clone();
    let answer = match value.and_then(|value| hub.rooms().answer(value).ok()) {
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
