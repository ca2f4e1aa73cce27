//! Reading a document.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use highwater_core::{ChangeHash, Materialised};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{AUTOMERGE, InPath, InQuery, JSON, heads as parse_heads, negotiate};
use super::super::openapi::{Chunks, Id, Json, ReadProblems};
use super::super::problem::Problem;
use super::super::tags::{etag, is_known};
use super::answer;
use crate::document::State as DocumentState;
use crate::envelope::hashes;
use crate::hub::Hub;

/// How many changes a document has.
const CHANGES: HeaderName = HeaderName::from_static("highwater-changes");
/// What is stored of a document, in bytes.
const STORED_BYTES: HeaderName = HeaderName::from_static("highwater-stored-bytes");

/// What of a document is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadQuery {
    /// The document as it was at these heads: hashes with commas between.
    #[param(max_length = 4200, pattern = "^[0-9a-f]{64}(,[0-9a-f]{64})*$")]
    heads: Option<String>,
    /// With all values of places that hold more than one: `{"value": …, "conflicts": {"/pointer": {"<operation>": value}}}`.
    #[serde(default)]
    #[param(required = false)]
    conflicts: bool,
}

/// Reads a document
///
/// As JSON, in the form that docs/backends.md describes, or as `Automerge.save` writes it. With all that is durable now, or as it was at given heads.
#[utoipa::path(get, path = "/v1/docs/{id}", tag = "documents", params(Id, ReadQuery,
    ("if-none-match" = Option<String>, Header, description = "An ETag; if the document has these heads, the answer is 304.")),
    responses(
        (status = 200, description = "The document.", headers(("ETag" = String, description = "The heads.")), content(
            (Json = "application/json"), (Chunks = "application/vnd.automerge"))),
        (status = 304, description = "The document has the heads that the client knows."),
        ReadProblems,
    ),
)]
pub(super) async fn document(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    InQuery(query): InQuery<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = negotiate(&headers, &[JSON, AUTOMERGE])?;
    let at = asked(&query, kind)?;
    if at.is_none()
        && let Some(answer) = if_known(&headers, &hub.existing(id).await?.heads)?
    {
        return Ok(answer);
    }
    let (heads, body) = hub.read(id, move |document| look(document, kind, at, query.conflicts)).await?;
    Ok(with_heads(&heads, kind, hub.rooms().answer(body)?))
}

fn look(
    document: &Materialised,
    kind: &str,
    at: Option<Vec<ChangeHash>>,
    conflicts: bool,
) -> Result<(Vec<ChangeHash>, Bytes), Problem> {
    let heads = at.clone().unwrap_or_else(|| document.heads());
    let body = match (kind, &at) {
        (AUTOMERGE, None) => document.save().map_err(Problem::Internal)?,
        (AUTOMERGE, Some(at)) => document.save_at(at)?,
        _ => {
            let value = document.to_json(at.as_deref())?;
            if conflicts {
                let conflicts = document.conflicts(at.as_deref())?;
                json(&serde_json::json!({ "value": value, "conflicts": conflicts }))?
            } else {
                json(&value)?
            }
        }
    };
    Ok((heads, body))
}

/// As JSON, where that may take its time.
pub(super) fn json(value: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| Problem::Internal(error.to_string()))
}

/// A body of a document with these heads. Whoever keeps it asks before using it again.
pub(super) fn with_heads(heads: &[ChangeHash], kind: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_TYPE, kind.to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (VARY, "Accept".to_owned()),
        (ETAG, etag(heads)),
    ];
    (headers, body).into_response()
}

/// The answer with a header, if there is a value for it.
pub(super) fn with_header(mut answer: Response, name: HeaderName, value: Option<String>) -> Response {
    let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
    answer.headers_mut().extend(value.map(|value| (name, value)));
    answer
}

/// The answer to a client that knows these heads; nothing if it does not.
fn if_known(headers: &HeaderMap, heads: &[ChangeHash]) -> Result<Option<Response>, Problem> {
    let is_known = is_known(headers, heads)?;
    let headers =
        || [(CACHE_CONTROL, "no-cache".to_owned()), (VARY, "Accept".to_owned()), (ETAG, etag(heads))];
    Ok(is_known.then(|| (StatusCode::NOT_MODIFIED, headers()).into_response()))
}

/// Heads and size of a document
///
/// Takes no time, however long the document is: its values are not looked at.
#[utoipa::path(head, path = "/v1/docs/{id}", tag = "documents", params(Id, ReadQuery), responses(
    (status = 200, description = "It exists.", headers(
        ("ETag" = String, description = "The heads."),
        ("Highwater-Changes" = usize, description = "How many changes it has."),
        ("Highwater-Stored-Bytes" = u64, description = "What is stored of it, roughly."),
    )),
    (status = 304, description = "The document has the heads that the client knows."),
    ReadProblems,
))]
pub(super) async fn head(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    InQuery(query): InQuery<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = negotiate(&headers, &[JSON, AUTOMERGE])?;
    let at = asked(&query, kind)?;
    let state = hub.existing(id).await?;
    if let Some(at) = at {
        let found = hub.contains(id, at.clone()).await?;
        let unknown = at.iter().zip(found).find(|(_, is_known)| !is_known);
        return match unknown {
            Some((hash, _)) => Err(Problem::UnknownHeads(*hash)),
            None => Ok(with_heads(&at, kind, unsized_body())),
        };
    }
    if let Some(answer) = if_known(&headers, &state.heads)? {
        return Ok(answer);
    }
    let counts = [(CHANGES, state.changes.to_string()), (STORED_BYTES, state.bytes.to_string())];
    Ok((counts, with_heads(&state.heads, kind, unsized_body())).into_response())
}

/// The body of an answer that says nothing of how large the document is in the form that was asked for: it was not made.
fn unsized_body() -> Body {
    Body::from_stream(futures::stream::empty::<Result<Bytes, Infallible>>())
}

/// The heads at which the document is asked for, if it is not as it is now.
fn asked(query: &ReadQuery, kind: &str) -> Result<Option<Vec<ChangeHash>>, Problem> {
    let invalid = |detail: String| Problem::Invalid { what: "query", detail };
    if query.conflicts && kind == AUTOMERGE {
        return Err(invalid(format!("conflicts are in {AUTOMERGE} anyway")));
    }
    let at = query.heads.as_deref().map(parse_heads).transpose()?;
    match at {
        Some(heads) if heads.is_empty() => {
            Err(invalid("heads: expected some; without it, the document as it is now".to_owned()))
        }
        at => Ok(at),
    }
}

/// How a document is.
#[derive(Serialize, ToSchema)]
pub(super) struct HeadsAnswer {
    /// The changes that no other depends on, sorted.
    heads: Vec<String>,
    /// How many changes it has.
    changes: usize,
    /// What is stored of it, roughly.
    bytes: u64,
}

/// Heads and size of a document, as JSON
#[utoipa::path(get, path = "/v1/docs/{id}/heads", tag = "documents", params(Id), responses(
    (status = 200, description = "How it is.", body = HeadsAnswer),
    ReadProblems,
))]
pub(super) async fn heads(State(hub): State<Arc<Hub>>, InPath(id): InPath) -> Result<Response, Problem> {
    let DocumentState { heads, changes, bytes, .. } = hub.existing(id).await?;
    Ok(answer(&HeadsAnswer { heads: hashes(&heads), changes, bytes }))
}

/// Which states of a document are compared.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffQuery {
    /// Heads with commas between; nothing for the beginning.
    #[param(max_length = 4200, pattern = "^([0-9a-f]{64}(,[0-9a-f]{64})*)?$")]
    from: String,
    /// The same; without it, the document as it is now.
    #[param(max_length = 4200, pattern = "^([0-9a-f]{64}(,[0-9a-f]{64})*)?$")]
    to: Option<String>,
}

/// What differs between two states of a document.
#[derive(Serialize, ToSchema)]
pub(super) struct DiffAnswer {
    from: Vec<String>,
    to: Vec<String>,
    /// Made in this order, they make the one state of the other.
    #[schema(value_type = Vec<super::super::openapi::Patch>)]
    patches: Vec<highwater_core::PatchJson>,
}

/// What differs between two states of a document
#[utoipa::path(get, path = "/v1/docs/{id}/diff", tag = "documents", params(Id, DiffQuery), responses(
    (status = 200, description = "What differs.", body = DiffAnswer),
    ReadProblems,
))]
pub(super) async fn diff(
    State(hub): State<Arc<Hub>>,
    InPath(id): InPath,
    InQuery(query): InQuery<DiffQuery>,
) -> Result<Response, Problem> {
    let from = parse_heads(&query.from)?;
    let to = query.to.as_deref().map(parse_heads).transpose()?;
    let body = hub.read(id, move |document| {
        let to = to.unwrap_or_else(|| document.heads());
        let patches = document.diff(&from, &to)?;
        json(&DiffAnswer { from: hashes(&from), to: hashes(&to), patches })
    });
    let body = hub.rooms().answer(body.await?)?;
    Ok(([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], body).into_response())
}
