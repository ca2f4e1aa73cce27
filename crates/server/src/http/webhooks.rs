//! How webhooks stand, and trying again what they could not be told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use highwater_storage::{Delivery, DeliveryState};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::NameInPath;
use super::openapi::ReadProblems;
use super::problem::Problem;
use crate::hub::Hub;
use crate::limits::WEBHOOK_RETRY_TIMEOUT;
use crate::webhooks::HookState;

/// The routes below `/v1/webhooks`, with their description.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

/// The webhooks of this server.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookList {
    webhooks: Vec<WebhookEntry>,
}

/// How a webhook stands.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookEntry {
    name: String,
    /// Where it is posted to, without what may be secret in it.
    url: String,
    /// All that changed up to this number was told, or is among those that wait or are dead.
    changed: u64,
    /// The number of the last change that there is.
    last: u64,
    /// Documents that it could not be told about and that are tried again, those that are due first; at most 1,000.
    waiting: Vec<DeliveryEntry>,
    /// Documents that it could not be told about too often: they are told about when they change, or when somebody asks to try again. At most 1,000.
    dead: Vec<DeliveryEntry>,
}

/// A document that a webhook could not be told about.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryEntry {
    document: String,
    /// The number of the change that could not be told.
    changed: u64,
    /// How often in a row it failed.
    attempts: u32,
    /// When it is tried again: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    due_ms: Option<i64>,
    /// Why it failed last.
    error: String,
}

/// Lists the webhooks
///
/// Each with what it could not be told.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", responses(
    (status = 200, description = "All of them.", body = WebhookList),
    ReadProblems,
))]
pub(super) async fn list(State(hub): State<Arc<Hub>>) -> Result<Response, Problem> {
    let states = hub.webhooks().states(&hub).await?;
    let webhooks = states.into_iter().map(webhook).collect();
    Ok(([(CACHE_CONTROL, "no-store")], Json(WebhookList { webhooks })).into_response())
}

fn webhook(state: HookState) -> WebhookEntry {
    let HookState { name, url, cursor, last, waiting, dead } = state;
    let entries = |all: Vec<Delivery>| all.into_iter().map(delivery).collect();
    WebhookEntry { name, url, changed: cursor, last, waiting: entries(waiting), dead: entries(dead) }
}

fn delivery(delivery: Delivery) -> DeliveryEntry {
    let Delivery { document, changed, attempts, state, error, .. } = delivery;
    let due_ms = match state {
        DeliveryState::Waits(due_ms) => Some(due_ms),
        DeliveryState::Done | DeliveryState::Dead => None,
    };
    DeliveryEntry { document: document.to_string(), changed, attempts, due_ms, error }
}

/// A webhook.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct Name {
    /// The name of the webhook.
    name: String,
}

/// What is tried again.
#[derive(Serialize, ToSchema)]
pub(super) struct RetryAnswer {
    /// How many documents are tried again; null if that is not known yet.
    #[schema(required = true)]
    documents: Option<usize>,
}

/// Tries again what a webhook could not be told
///
/// All documents that are dead are told about now.
#[utoipa::path(post, path = "/v1/webhooks/{name}/retry", tag = "webhooks", params(Name), responses(
    (status = 200, description = "They are tried again.", body = RetryAnswer),
    (status = 202, description = "They will be, as soon as the posts that are under way have ended.", body = RetryAnswer),
    ReadProblems,
))]
pub(super) async fn retry(
    State(hub): State<Arc<Hub>>,
    NameInPath(name): NameInPath,
) -> Result<Response, Problem> {
    if !hub.webhooks().has(&name) {
        return Err(Problem::NoSuchWebhook);
    }
    // Not cancelled when nobody waits any more.
    let retrying = tokio::spawn(async move { hub.webhooks().retry(&name).await });
    let (status, documents) = match tokio::time::timeout(WEBHOOK_RETRY_TIMEOUT, retrying).await {
        Ok(Ok(Some(documents))) => (StatusCode::OK, Some(documents)),
        Ok(Ok(None) | Err(_)) => return Err(Problem::Unavailable),
        Err(_) => (StatusCode::ACCEPTED, None),
    };
    Ok((status, [(CACHE_CONTROL, "no-store")], Json(RetryAnswer { documents })).into_response())
}
