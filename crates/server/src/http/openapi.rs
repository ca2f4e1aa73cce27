//! The description of the HTTP API: what all routes share, the document itself, and the page on which people read it.

mod page;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::code::Code;
use super::docs;
use super::extract::MountedAt;
use super::problem::{Limit, ProblemBody};
use super::webhooks;
use crate::hub::Hub;

/// What all of it is.
#[derive(OpenApi)]
#[openapi(
    info(title = "Highwater", description = "Documents that people edit at the same time, for backends of any language. Whatever is answered is durable. Two paths are for WebSockets and not described here: `/v1/sync` for clients of automerge-repo, and `/v1/docs/{id}/sync` for bare Automerge documents."),
    components(schemas(ProblemBody, Limit, Code)),
    tags(
        (name = "documents", description = "Documents and what they hold"),
        (name = "changes", description = "The changes that documents are made of"),
        (name = "events", description = "What changes, as it does"),
        (name = "webhooks", description = "Who is told elsewhere"),
    ),
)]
struct Api;

/// A document.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct Id {
    /// The document's id, or its url for automerge-repo.
    #[param(
        pattern = "^(automerge:)?[1-9A-HJ-NP-Za-km-z]{20,40}$",
        example = "4NMNnkMhL8jXrdJ9jamS58PAVdXu"
    )]
    id: String,
}

/// A change.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct Hash {
    /// The change's hash.
    #[param(pattern = "^[0-9a-f]{64}$")]
    hash: String,
}

/// How a request is known again.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct KeyHeader {
    /// A request with the same key is done once, however often it is sent, and answered each time. Kept for at least a day.
    #[param(rename = "idempotency-key", max_length = 255, min_length = 1)]
    idempotency_key: Option<String>,
}

/// What an edit may ask for.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct EditHeaders {
    /// A request with the same key is done once, however often it is sent, and answered each time. Kept for at least a day.
    #[param(rename = "idempotency-key", max_length = 255, min_length = 1)]
    idempotency_key: Option<String>,
    /// An ETag: the edit is made only if the document has these heads. Or `*`: only if it exists.
    #[param(rename = "if-match", max_length = 4500, pattern = "^(\\*|\"[0-9a-f,]*\")$")]
    if_match: Option<String>,
    /// `*`: only if the document does not exist. Or an ETag: only if it has other heads.
    #[param(rename = "if-none-match", max_length = 4500, pattern = "^(\\*|\"[0-9a-f,]*\")$")]
    if_none_match: Option<String>,
    /// `return=representation`: the answer is the document with the edit.
    #[param(rename = "prefer", pattern = "^return=(representation|minimal)$")]
    prefer: Option<String>,
}

/// What a document holds: docs/backends.md describes the form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what the core reads and writes")]
pub(super) struct Json(HashMap<String, serde_json::Value>);

/// A document as `Automerge.save` writes it, or changes one after the other.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "describes what the core reads and writes")]
pub(super) struct Chunks(Vec<u8>);

/// An operation of a JSON Patch.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "lowercase")]
#[allow(dead_code, reason = "describes what the core reads")]
pub(super) enum Operation {
    /// Puts a value into a map, or inserts it into a list.
    Add { path: String, value: serde_json::Value },
    /// Removes a key or an element.
    Remove { path: String },
    /// Makes what is there another value. A text becomes it by edits.
    Replace { path: String, value: serde_json::Value },
    /// Removes a value here, and adds it there.
    Move { from: String, path: String },
    /// Adds a value that is somewhere else, too.
    Copy { from: String, path: String },
    /// Fails the whole edit if something else is there.
    Test { path: String, value: serde_json::Value },
    /// Deletes and inserts in a text (places are code points, `insert` is a string) or a list (`insert` is a list).
    Splice { path: String, index: u64, delete: Option<u64>, insert: Option<serde_json::Value> },
    /// Adds to a counter.
    Increment { path: String, by: i64 },
}

/// A difference between two states of a document. `path` is a JSON Pointer; places in texts are code points.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "lowercase")]
#[allow(dead_code, reason = "describes what the core writes")]
pub(super) enum Patch {
    /// A key of a map, or a place of a list, holds this now. An object that comes in is empty at first.
    Put {
        path: String,
        value: serde_json::Value,
        /// Whether something else was put there at the same time; false if it is not there.
        #[serde(default)]
        conflict: bool,
    },
    /// Elements came into a list.
    Insert { path: String, values: Vec<serde_json::Value> },
    /// Characters came into a text.
    Splice {
        path: String,
        value: String,
        /// The marks that they have, by name; none if it is not there.
        #[serde(default)]
        marks: HashMap<String, serde_json::Value>,
    },
    /// A counter went on.
    Increment { path: String, value: i64 },
    /// Something else was put there at the same time.
    Conflict { path: String },
    /// A key, elements or characters went.
    Delete {
        path: String,
        /// How many elements or code points; one if it is not there.
        #[serde(default)]
        length: usize,
    },
    /// Marks of a text were set or removed.
    Mark { path: String, marks: Vec<Mark> },
}

/// A mark on a range of a text.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what the core writes")]
pub(super) struct Mark {
    name: String,
    /// Null if the mark was removed.
    value: serde_json::Value,
    /// Its first code point.
    start: usize,
    /// The code point after its last.
    end: usize,
}

/// What goes wrong with requests that only read.
pub(super) struct ReadProblems;
/// What goes wrong with requests that have a body.
pub(super) struct BodyProblems;
/// What goes wrong with edits.
pub(super) struct EditProblems;

const READ_PROBLEMS: [(u16, &str); 8] = [
    (400, "`invalid`: a part of the path or the query is not what it should be."),
    (403, "`origin`: the page's origin is not among `allowed-origins`."),
    (404, "`no_such_document`, `no_such_change`, `no_such_webhook`: it is not there, or not yet."),
    (406, "`not_acceptable`: the client takes nothing that it could be answered with."),
    (410, "`deleted`: the document was deleted."),
    (
        422,
        "`too_deep`: nested so deep that it can be had as a file only. `answer_too_large`: what is asked for repeats too many long paths.",
    ),
    (500, "`damaged`, `internal`: somebody must look at the server."),
    (
        503,
        "`unavailable`: the store failed, or is being opened again. `too_many_streams`: as many streams of events as may be are open. `busy`: too many wait to read the document.",
    ),
];

const BODY_PROBLEMS: [(u16, &str); 7] = [
    (
        400,
        "`invalid`, `invalid_changes`: a part of the path, the query or the body is not what it should be.",
    ),
    (403, "`origin`: the page's origin is not among `allowed-origins`."),
    (410, "`deleted`: the document was deleted."),
    (413, "`too_large`: the body is too large."),
    (422, "`invalid_changes`, `too_many_orphans`, `too_costly`: the document does not take them."),
    (500, "`damaged`, `internal`: somebody must look at the server."),
    (
        503,
        "`unavailable`: the store failed, or is being opened again. Whether what was sent is durable is not known.",
    ),
];

const EDIT_PROBLEMS: [(u16, &str); 11] = [
    (400, "`invalid`, `invalid_edit`, `invalid_changes`: a part of the request is not what it should be."),
    (403, "`origin`: the page's origin is not among `allowed-origins`."),
    (404, "`no_such_document`: it is not there, or not yet."),
    (
        409,
        "`no_such_path`, `test_failed`, `wrong_type`, `out_of_bounds`, `exists`: the document is not such that the edit can be made.",
    ),
    (410, "`deleted`: the document was deleted."),
    (412, "`precondition_failed`: the document is not as `If-Match` or `If-None-Match` says."),
    (413, "`too_large`: the body, or the edit, is too large; `limit` says how."),
    (415, "`unsupported_media_type`: the body is of another kind."),
    (
        422,
        "`idempotency_key_reused`: the key was used for another request. `invalid_changes`, `incomplete`, `too_costly`: no document can be made of the changes.",
    ),
    (500, "`damaged`, `internal`: somebody must look at the server."),
    (
        503,
        "`unavailable`: the store failed, or is being opened again. Whether the edit is durable is not known; with an `Idempotency-Key` it can be sent again.",
    ),
];

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        described(&READ_PROBLEMS)
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        described(&BODY_PROBLEMS)
    }
}

impl IntoResponses for EditProblems {
    fn responses() -> Responses {
        described(&EDIT_PROBLEMS)
    }
}

fn described(problems: &[(u16, &str)]) -> Responses {
    let describe = |(status, text): &(u16, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*text).content("application/problem+json", content);
        (status.to_string(), RefOr::T(response.build()))
    };
    let mut all: Responses = problems.iter().map(describe).collect();
    // From below the routes: the request is not read so far that it could be said in the form of the others.
    let too_large = ResponseBuilder::new().description("The head of the request is too large.");
    all.insert("431".to_owned(), RefOr::T(too_large.build()));
    all
}

/// The documents' routes, their description at `/v1/openapi.json`, and a page for people at `/v1/api`.
pub(super) fn routes() -> Router<Arc<Hub>> {
    let api = OpenApiRouter::with_openapi(Api::openapi()).merge(docs::routes()).merge(webhooks::routes());
    let (router, description) = api.split_for_parts();
    let description = serde_json::to_value(description).unwrap_or_default();
    let page = Bytes::from(page::of(&description));
    let description = async move |MountedAt(base): MountedAt| {
        let mut description = description;
        if !base.is_empty() {
            description["servers"] = serde_json::json!([{ "url": base }]);
        }
        axum::Json(description)
    };
    router.route("/v1/openapi.json", get(description)).route("/v1/api", get(async move || page_answer(page)))
}

fn page_answer(page: Bytes) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)];
    (headers, page).into_response()
}
