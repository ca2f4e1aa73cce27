//! What goes wrong with a request, as RFC 9457 says it: a JSON object with a code that programs can rely on, and a sentence for people.

use axum::Json;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use highwater_core::change::ChunkError;
use highwater_core::document::PeerFault;
use highwater_core::limits::JSON_DEPTH_MAX;
use highwater_core::{ChangeHash, EditError, EditReason, ReadError};
use highwater_storage::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use super::code::Code;
use super::etag;
use crate::envelope::hashes;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::open::Unreadable;

/// The kinds of bodies that a PATCH takes.
pub(super) const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json";

/// Why a request is not answered as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A part of the path, the query, the head or the body that is not what it should be.
    #[error("{what}: {detail}")]
    Invalid { what: &'static str, detail: String },
    /// There is nothing at this path.
    #[error("there is nothing at {0}; see /v1/api")]
    NoSuchRoute(String),
    /// There is something at this path, for other methods.
    #[error("the method {0} is not for this path")]
    Method(String),
    /// Something that is for WebSockets was asked for without one.
    #[error("this is for WebSockets: {0}")]
    NoWebSocket(String),
    /// The client takes nothing that it could be answered with.
    #[error("it can be had as {offered}")]
    NotAcceptable { offered: String },
    /// The body is of another kind.
    #[error("the body must be {taken}")]
    MediaType { taken: &'static str },
    /// A document that was to be made is there already.
    #[error("the document exists")]
    Exists,
    /// The document is not as the client thought.
    #[error("the document is not as the request says; its heads are given")]
    PreconditionFailed { heads: Vec<ChangeHash> },
    /// The key was used for a request that asked for something else.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// The edit cannot be made.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// Changes of a new document can never be part of one.
    #[error("change {hash} can be part of no document: {reason}")]
    Refused { hash: ChangeHash, reason: String },
    /// A new document lacks changes.
    #[error("changes are missing that others depend on")]
    Incomplete,
    /// The document has no such change.
    #[error("the document has no change {0}, or not yet")]
    UnknownHeads(ChangeHash),
    /// The document has too many levels.
    #[error(
        "the document is nested deeper than {JSON_DEPTH_MAX} levels, and can be had as application/vnd.automerge only"
    )]
    TooDeep,
    /// What is asked for may be larger than this.
    #[error(
        "the answer may take up more than {max} bytes, since each place is told with its whole path; the document itself can be had"
    )]
    AnswerTooLarge { max: usize },
    /// So many already wait to read the document.
    #[error("too many wait to read the document")]
    Busy,
    /// What is under way takes up all the memory that there is for it.
    #[error("so much is under way that there is no room for more")]
    NoRoom,
    /// The document does not have that change, or not yet.
    #[error("the change is not durable here")]
    NoSuchChange,
    /// As many streams of events as may be are open.
    #[error("too many streams of events are open")]
    TooManyStreams,
    /// There is no webhook of this name.
    #[error("there is no such webhook")]
    NoSuchWebhook,
    /// The document was deleted.
    #[error("the document was deleted")]
    Deleted,
    /// There is no such document, or it has no changes yet.
    #[error("the document has no changes here")]
    NoSuchDocument,
    /// The body is too large.
    #[error("the body has more than {max} bytes")]
    TooLarge { max: usize },
    /// How large the body is was not said.
    #[error("the request needs a Content-Length")]
    LengthRequired,
    /// The body is no changes.
    #[error("the body is not made of change chunks: {0}")]
    Chunk(#[from] ChunkError),
    /// The document does not take the changes.
    #[error(transparent)]
    Fault(#[from] PeerFault),
    /// The origin of the page is not among those that are allowed.
    #[error("pages of {0} may not use this server; see the setting allowed-origins")]
    Origin(String),
    /// The document could not be opened, or the store failed meanwhile. Nothing is known of what was sent.
    #[error("the document cannot be served at the moment")]
    Unavailable,
    /// The store failed.
    #[error("the server cannot read at the moment: {0}")]
    Store(#[from] StoreError),
    /// What is stored makes no document.
    #[error("what is stored of the document is damaged: {0}; `highwater doctor` says more")]
    Damaged(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// Something went wrong (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// Always `about:blank`: `code` says more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Which problem it is, for programs. These stay the same.
    code: Code,
    /// What is wrong, for people.
    detail: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// The limit that is hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<Limit>,
    /// Which operation of a JSON Patch cannot be made, the first one being 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<usize>,
    /// A JSON Pointer to where an edit cannot be made, or to what is wrong in the value that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<String>,
    /// The heads of the document, if it has others than the request says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    heads: Option<Vec<String>>,
}

/// A limit of the server.
#[derive(Serialize, ToSchema)]
pub(super) struct Limit {
    /// Of what there is too much.
    what: &'static str,
    /// How much there may be.
    max: usize,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } | Self::Chunk(_) => StatusCode::BAD_REQUEST,
            Self::NoSuchRoute(_)
            | Self::NoSuchWebhook
            | Self::NoSuchChange
            | Self::NoSuchDocument
            | Self::UnknownHeads(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoWebSocket(_) => StatusCode::UPGRADE_REQUIRED,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::Exists => StatusCode::CONFLICT,
            Self::Deleted => StatusCode::GONE,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::Edit(error) => match error.reason {
                EditReason::Invalid(_) => StatusCode::BAD_REQUEST,
                EditReason::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                EditReason::NoSuchPath
                | EditReason::TestFailed
                | EditReason::WrongType(_)
                | EditReason::OutOfBounds(_) => StatusCode::CONFLICT,
            },
            Self::Fault(_)
            | Self::KeyReused
            | Self::Refused { .. }
            | Self::Incomplete
            | Self::TooDeep
            | Self::AnswerTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Store(StoreError::Damaged { .. }) | Self::Damaged(_) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Unavailable | Self::Store(_) | Self::TooManyStreams | Self::Busy | Self::NoRoom => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Stable: what a program decides by. `docs/protocol.md` lists them.
    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::Invalid,
            Self::NoSuchRoute(_) => Code::NoSuchRoute,
            Self::Method(_) => Code::MethodNotAllowed,
            Self::NoWebSocket(_) => Code::UpgradeRequired,
            Self::NotAcceptable { .. } => Code::NotAcceptable,
            Self::MediaType { .. } => Code::UnsupportedMediaType,
            Self::Exists => Code::Exists,
            Self::Deleted => Code::Deleted,
            Self::NoSuchWebhook => Code::NoSuchWebhook,
            Self::TooManyStreams => Code::TooManyStreams,
            Self::PreconditionFailed { .. } => Code::PreconditionFailed,
            Self::KeyReused => Code::IdempotencyKeyReused,
            Self::Edit(error) => match error.reason {
                EditReason::Invalid(_) => Code::InvalidEdit,
                EditReason::NoSuchPath => Code::NoSuchPath,
                EditReason::TestFailed => Code::TestFailed,
                EditReason::WrongType(_) => Code::WrongType,
                EditReason::OutOfBounds(_) => Code::OutOfBounds,
                EditReason::TooLarge { .. } => Code::TooLarge,
            },
            Self::Refused { .. } | Self::Chunk(_) => Code::InvalidChanges,
            Self::Incomplete => Code::Incomplete,
            Self::UnknownHeads(_) | Self::NoSuchChange => Code::NoSuchChange,
            Self::TooDeep => Code::TooDeep,
            Self::AnswerTooLarge { .. } => Code::AnswerTooLarge,
            Self::Busy | Self::NoRoom => Code::Busy,
            Self::NoSuchDocument => Code::NoSuchDocument,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::LengthRequired => Code::LengthRequired,
            Self::Fault(PeerFault::TooManyOrphans) => Code::TooManyOrphans,
            Self::Fault(PeerFault::TooCostly) => Code::TooCostly,
            Self::Fault(_) => Code::InvalidChanges,
            Self::Origin(_) => Code::Origin,
            Self::Store(StoreError::Damaged { .. }) | Self::Damaged(_) => Code::Damaged,
            Self::Unavailable | Self::Store(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether the same request may succeed later.
    fn is_retryable(&self) -> bool {
        match self {
            Self::NoSuchChange
            | Self::NoSuchDocument
            | Self::UnknownHeads(_)
            | Self::Fault(PeerFault::TooManyOrphans) => true,
            _ => self.passes(),
        }
    }

    /// Whether it is the server's, and only for a while.
    fn passes(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    fn body(&self) -> ProblemBody {
        let status = self.status();
        let mut body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code(),
            detail: self.to_string(),
            retryable: self.is_retryable(),
            limit: None,
            operation: None,
            pointer: None,
            heads: None,
        };
        match self {
            Self::TooLarge { max } => body.limit = Some(Limit { what: "bytes of the body", max: *max }),
            Self::AnswerTooLarge { max } => {
                body.limit = Some(Limit { what: "bytes of the answer", max: *max });
            }
            Self::TooDeep => body.limit = Some(Limit { what: "levels", max: JSON_DEPTH_MAX }),
            Self::PreconditionFailed { heads } => body.heads = Some(hashes(heads)),
            Self::Edit(error) => {
                body.operation = error.operation;
                body.pointer = Some(error.pointer.clone());
                if let EditReason::TooLarge { what, max } = error.reason {
                    body.limit = Some(Limit { what, max });
                }
            }
            _ => {}
        }
        body
    }

    /// A header that goes with it.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::MediaType { taken: PATCH_TYPES } => {
                Some((HeaderName::from_static("accept-patch"), HeaderValue::from_static(PATCH_TYPES)))
            }
            Self::NoWebSocket(_) => Some((UPGRADE, HeaderValue::from_static("websocket"))),
            Self::PreconditionFailed { heads } => {
                HeaderValue::from_str(&etag(heads)).ok().map(|tag| (axum::http::header::ETAG, tag))
            }
            _ if self.passes() => Some((RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))),
            _ => None,
        }
    }
}

impl From<WebSocketUpgradeRejection> for Problem {
    fn from(rejection: WebSocketUpgradeRejection) -> Self {
        Self::NoWebSocket(rejection.body_text())
    }
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Store(StoreError::Damaged { document, record, detail }) => {
                Self::Damaged(format!("record {record} of document {document}: {detail}"))
            }
            Unreadable::Store(error) => Self::Store(error),
            Unreadable::Damaged(reason) => Self::Damaged(reason),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::UnknownHeads(hash) => Self::UnknownHeads(hash),
            ReadError::TooDeep => Self::TooDeep,
            ReadError::TooLarge { max } => Self::AnswerTooLarge { max },
            ReadError::Internal(reason) => Self::Internal(reason),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
        }
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header());
        response
    }
}
