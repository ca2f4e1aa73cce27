//! What goes wrong with a request, as RFC 9457 says it: a JSON object with a code that programs can rely on, and a sentence for people.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use highwater_core::change::ChunkError;
use highwater_core::document::PeerFault;
use highwater_storage::StoreError;
use serde_json::json;

/// Why a request is not answered as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A part of the path or the body that is not what it should be.
    #[error("{what}: {detail}")]
    Invalid { what: &'static str, detail: String },
    /// The document does not have that change, or not yet.
    #[error("the change is not durable here")]
    NoSuchChange,
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
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } | Self::Chunk(_) => StatusCode::BAD_REQUEST,
            Self::NoSuchChange | Self::NoSuchDocument => StatusCode::NOT_FOUND,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Self::Fault(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Store(StoreError::Damaged { .. }) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Stable: what a program decides by. `docs/protocol.md` lists them.
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Chunk(_) => "invalid_changes",
            Self::NoSuchChange => "no_such_change",
            Self::NoSuchDocument => "no_such_document",
            Self::TooLarge { .. } => "too_large",
            Self::LengthRequired => "length_required",
            Self::Fault(PeerFault::TooManyOrphans) => "too_many_orphans",
            Self::Fault(PeerFault::TooCostly) => "too_costly",
            Self::Fault(_) => "invalid_changes",
            Self::Origin(_) => "origin",
            Self::Store(StoreError::Damaged { .. }) => "damaged",
            Self::Unavailable | Self::Store(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same request may succeed later.
    fn is_retryable(&self) -> bool {
        match self {
            Self::NoSuchChange
            | Self::NoSuchDocument
            | Self::Unavailable
            | Self::Fault(PeerFault::TooManyOrphans) => true,
            Self::Store(error) => !matches!(error, StoreError::Damaged { .. }),
            Self::Invalid { .. }
            | Self::Chunk(_)
            | Self::TooLarge { .. }
            | Self::LengthRequired
            | Self::Fault(_)
            | Self::Origin(_)
            | Self::Internal(_) => false,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %self, "a request failed");
        }
        let body = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "code": self.code(),
            "detail": self.to_string(),
            "retryable": self.is_retryable(),
        });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
