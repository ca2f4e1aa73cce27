//! The changes of a document.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK, VARY};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use highwater_core::{ChangeHash, ChangeMeta, DocumentId, Materialised};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{
    AUTOMERGE, InPath, InQuery, JSON, MountedAt, change_hash, heads as parse_heads, negotiate,
};
use super::super::openapi::{Chunks, Id, ReadProblems};
use super::super::problem::Problem;
use super::page_limit;
use super::read::{json, with_header};
use crate::envelope::hashes;
use crate::hub::Hub;
use crate::limits::{ETAG_HEADS_MAX, PAGE_BYTES_MAX};

/// Which changes are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// Heads with commas between: only changes that they do not lead to. Without it, all.
    #[param(max_length = 4200, pattern = "^([0-9a-f]{64}(,[0-9a-f]{64})*)?$")]
    since: Option<String>,
    /// Only those after this one.
    #[param(pattern = "^[0-9a-f]{64}$")]
    after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What is known of a change beside its operations.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeEntry {
    hash: String,
    /// The changes that it came directly after.
    deps: Vec<String>,
    /// Who made it, in hexadecimal.
    actor: String,
    /// Which of the actor's changes it is, from 1.
    seq: u64,
    /// The counter of its first operation.
    start_op: u64,
    /// How many operations it has.
    ops: u64,
    /// When it was made, as its author says: seconds since 1970 from stock clients; 0 if it does not say.
    time: i64,
    /// What it is about, if its author says.
    #[schema(required = true)]
    message: Option<String>,
    /// How many bytes its chunk has.
    bytes: usize,
}

impl From<&ChangeMeta> for ChangeEntry {
    fn from(meta: &ChangeMeta) -> Self {
        Self {
            hash: meta.hash.to_string(),
            deps: hashes(&meta.deps),
            actor: meta.actor.clone(),
            seq: meta.seq,
            start_op: meta.start_op,
            ops: meta.ops,
            time: meta.time,
            message: meta.message.clone(),
            bytes: meta.chunk.len(),
        }
    }
}

/// A part of a document's changes.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangesAnswer {
    changes: Vec<ChangeEntry>,
    /// The heads of the document now.
    heads: Vec<String>,
    /// Where the next part is; null after the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// The changes of a document
///
/// Each comes after those it depends on. As JSON, what is known of each beside its operations; as `application/vnd.automerge`, their chunks one after the other, as `POST …/changes` takes them.
#[utoipa::path(get, path = "/v1/docs/{id}/changes", tag = "changes", params(Id, ChangesQuery), responses(
    (status = 200, description = "Some of them; the header `Link` says where the next ones are.",
        headers(("Link" = String, description = "`<…>; rel=\"next\"`, if there are more.")),
        content((ChangesAnswer = "application/json"), (Chunks = "application/vnd.automerge"))),
    ReadProblems,
))]
pub(super) async fn changes(
    State(hub): State<Arc<Hub>>,
    MountedAt(base): MountedAt,
    InPath(id): InPath,
    InQuery(query): InQuery<ChangesQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let kind = negotiate(&headers, &[JSON, AUTOMERGE])?;
    let limit = page_limit(query.limit)?;
    let since = parse_heads(query.since.as_deref().unwrap_or_default())?;
    let after = one(query.after)?;
    let look = move |document: &Materialised| {
        let page = Page { base, id, since, limit };
        // One more tells whether there is a next part.
        let mut metas = document.changes_meta(&page.since, limit + 1, after)?;
        let all = metas.len();
        metas.truncate(limit);
        let is_binary = kind == AUTOMERGE;
        metas.truncate(fitting(&metas, if is_binary { |meta| meta.chunk.len() } else { json_len }));
        let next = (metas.len() < all).then(|| page.next(&metas));
        let body = if is_binary {
            metas.iter().map(|meta| &meta.chunk[..]).collect::<Vec<_>>().concat().into()
        } else {
            let changes = metas.iter().map(ChangeEntry::from).collect();
            json(&ChangesAnswer { changes, heads: hashes(&document.heads()), next: next.clone() })?
        };
        Ok((body, next))
    };
    let (body, next) = hub.read(id, look).await?;
    Ok(page_answer(kind, hub.rooms().answer(body)?, next))
}

fn page_answer(kind: &'static str, body: Bytes, next: Option<String>) -> Response {
    let answer =
        ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (VARY, "Accept")], body).into_response();
    with_header(answer, LINK, next.map(|next| format!("<{next}>; rel=\"next\"")))
}

/// A single change, if one is named.
fn one(hash: Option<String>) -> Result<Option<ChangeHash>, Problem> {
    hash.as_deref().map(change_hash).transpose()
}

/// A part of the changes, as it was asked for.
struct Page {
    /// What stands before the path.
    base: String,
    id: DocumentId,
    since: Vec<ChangeHash>,
    limit: usize,
}

impl Page {
    /// Where the part after these is. They lead to all before them, so what they leave open says it best: it stays true whatever comes in between. If that is too long, the last one
    /// of them must do.
    fn next(&self, these: &[ChangeMeta]) -> String {
        let Self { base, id, since, limit } = self;
        let mut open: BTreeSet<ChangeHash> = since.iter().copied().collect();
        for change in these {
            for dep in &change.deps {
                open.remove(dep);
            }
            open.insert(change.hash);
        }
        let (since, after) = if open.len() <= ETAG_HEADS_MAX {
            (open.into_iter().collect(), None)
        } else {
            (since.clone(), these.last())
        };
        let after = after.map(|last| format!("&after={}", last.hash)).unwrap_or_default();
        format!("{base}/v1/docs/{id}/changes?since={}{after}&limit={limit}", hashes(&since).join(","))
    }
}

/// How many of these may be in one answer: at least one.
fn fitting(metas: &[ChangeMeta], len: fn(&ChangeMeta) -> usize) -> usize {
    let mut bytes = 0;
    let fits = metas.iter().take_while(|meta| {
        let is_first = bytes == 0;
        bytes += len(meta);
        is_first || bytes <= PAGE_BYTES_MAX
    });
    fits.count()
}

/// What [`ChangeEntry`] takes at most, roughly: a character of a text may take six bytes.
fn json_len(meta: &ChangeMeta) -> usize {
    512 + 67 * meta.deps.len() + 2 * meta.actor.len() + 6 * meta.message.as_ref().map_or(0, String::len)
}

/// Which part of the history is asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Only changes before this one.
    #[param(pattern = "^[0-9a-f]{64}$")]
    before: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// The history of a document, the newest change first
///
/// Each comes before those it depends on. Where changes were made at the same time, their order may be another one tomorrow.
#[utoipa::path(get, path = "/v1/docs/{id}/history", tag = "changes", params(Id, HistoryQuery), responses(
    (status = 200, description = "A part of it.", body = ChangesAnswer,
        headers(("Link" = String, description = "`<…>; rel=\"next\"`, if there is more."))),
    ReadProblems,
))]
pub(super) async fn history(
    State(hub): State<Arc<Hub>>,
    MountedAt(base): MountedAt,
    InPath(id): InPath,
    InQuery(query): InQuery<HistoryQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit)?;
    let before = one(query.before)?;
    let look = move |document: &Materialised| {
        let metas = document.history(limit + 1, before)?;
        let page = &metas[..fitting(&metas, json_len).min(limit)];
        let last = page.last().filter(|_| metas.len() > page.len());
        let next = last.map(|last| format!("{base}/v1/docs/{id}/history?before={}&limit={limit}", last.hash));
        let changes = page.iter().map(ChangeEntry::from).collect();
        let body = ChangesAnswer { changes, heads: hashes(&document.heads()), next: next.clone() };
        Ok((json(&body)?, next))
    };
    let (body, next) = hub.read(id, look).await?;
    Ok(page_answer(JSON, hub.rooms().answer(body)?, next))
}
