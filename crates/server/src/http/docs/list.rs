//! Which documents there are.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use highwater_core::DocumentId;
use highwater_storage::{DocumentEntry, ListDocuments};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{InQuery, MountedAt, document_id};
use super::super::openapi::ReadProblems;
use super::super::problem::Problem;
use super::{answer, page_limit};
use crate::hub::Hub;
use crate::limits::PREFIX_BYTES_MAX;

/// Which documents are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Only documents after this one, in the order of their ids' bytes.
    #[param(pattern = "^(automerge:)?[1-9A-HJ-NP-Za-km-z]{20,40}$")]
    after: Option<String>,
    /// Only documents whose ids begin so.
    #[param(max_length = 50, pattern = "^(automerge:)?[1-9A-HJ-NP-Za-km-z]*$")]
    prefix: Option<String>,
    /// Only documents that changed after this number (`changed` of a document, or 0), in the order in which they last did; not together with `after` and `prefix`.
    #[serde(rename = "changed-since")]
    #[param(rename = "changed-since", minimum = 0, format = "uint64")]
    changed_since: Option<u64>,
}

/// A part of the documents.
#[derive(Serialize, ToSchema)]
pub(super) struct ListAnswer {
    documents: Vec<ListEntry>,
    /// Where the next part is; null after the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// A document in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct ListEntry {
    id: String,
    /// When it was made: milliseconds since 1970.
    created_ms: i64,
    /// The number of its last change. Every change gets a greater one than all before.
    changed: u64,
    /// When that was: milliseconds since 1970.
    changed_ms: i64,
    /// It was deleted.
    deleted: bool,
}

/// Lists documents
///
/// Deleted ones too. In the order of their ids, or, with `changed-since`, in the order in which they last changed: whoever has seen all up to a number finds what happened since after it.
#[utoipa::path(get, path = "/v1/docs", tag = "documents", params(ListQuery), responses(
    (status = 200, description = "A part of them.", body = ListAnswer),
    ReadProblems,
))]
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    MountedAt(base): MountedAt,
    InQuery(query): InQuery<ListQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit)?;
    // One more tells whether there is a next part.
    let mut entries = match query.changed_since {
        Some(_) if query.after.is_some() || query.prefix.is_some() => {
            let detail = "`changed-since` goes with neither `after` nor `prefix`".to_owned();
            return Err(Problem::Invalid { what: "query", detail });
        }
        Some(since) => hub.store().changed(since, limit + 1).await?,
        None => {
            let after = query.after.as_deref().map(document_id).transpose()?;
            let prefix = query.prefix.as_deref().unwrap_or_default();
            let ranges = DocumentId::with_prefix(prefix);
            if !could_begin_id(prefix) {
                let detail = "no document id begins so".to_owned();
                return Err(Problem::Invalid { what: "prefix", detail });
            }
            hub.store().documents(ListDocuments { after, ranges, limit: limit + 1 }).await?
        }
    };
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| has_more).map(|last| match (query.changed_since, query.prefix) {
        (Some(_), _) => format!("{base}/v1/docs?changed-since={}&limit={limit}", last.changed),
        (None, Some(prefix)) => format!("{base}/v1/docs?prefix={prefix}&after={}&limit={limit}", last.id),
        (None, None) => format!("{base}/v1/docs?after={}&limit={limit}", last.id),
    });
    Ok(answer(&ListAnswer { documents: entries.into_iter().map(entry).collect(), next }))
}

/// Whether there are only letters in it of which ids are made, and not too many.
fn could_begin_id(prefix: &str) -> bool {
    let letters = prefix.strip_prefix("automerge:").unwrap_or(prefix);
    prefix.len() <= PREFIX_BYTES_MAX
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte))
}

fn entry(entry: DocumentEntry) -> ListEntry {
    let DocumentEntry { id, created_ms, changed, changed_ms, is_deleted } = entry;
    ListEntry { id: id.to_string(), created_ms, changed, changed_ms, deleted: is_deleted }
}
