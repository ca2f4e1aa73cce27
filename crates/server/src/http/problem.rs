//! What goes wrong with a request, as RFC 9457 says it: a JSON object with a code that programs can rely on, and a sentence for people.

use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
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
    /// The store failed.
    #[error("the server cannot read at the moment: {0}")]
    Store(#[from] StoreError),
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::NoSuchChange => StatusCode::NOT_FOUND,
            Self::Store(StoreError::Damaged { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Stable: what a program decides by.
    fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::NoSuchChange => "no_such_change",
            Self::Store(StoreError::Damaged { .. }) => "damaged",
            Self::Store(_) => "store_unavailable",
        }
    }

    /// Whether the same request may succeed later.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid { .. } => false,
            Self::NoSuchChange => true,
            Self::Store(error) => !matches!(error, StoreError::Damaged { .. }),
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
