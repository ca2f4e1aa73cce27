//! Server-sent events: what is durable, as it becomes so.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{Stream, unfold};
use highwater_core::{ChangeHash, DocumentId, Materialised};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use utoipa::IntoParams;

use super::super::extract::{InPath, InQuery, heads as parse_heads};
use super::super::openapi::{Id, ReadProblems};
use super::super::problem::Problem;
use crate::activity::Activity;
use crate::envelope::hashes;
use crate::events::{Changed, End, Following, Told};
use crate::hub::Hub;
use crate::limits::{ETAG_HEADS_MAX, EVENTS_KEEP_ALIVE, FEED_PACE, FEED_PAGE};
use crate::rooms::RoomTaken;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps proxies from waiting until there is much to pass on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The id of an event that cannot be resumed from: too many heads for a header.
const NO_RESUMING: &str = "-";

/// What is told of a document.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DocumentEventsQuery {
    /// What changed is told too, as patches.
    #[serde(default)]
    patches: bool,
}

/// How a stream is resumed.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes what is read elsewhere")]
pub(super) struct ResumeHeader {
    /// The id of the last event that the client has dealt with.
    #[param(rename = "last-event-id", max_length = 8192)]
    last_event_id: Option<String>,
}

/// Follows a document
///
/// Server-sent events. `heads` with `{"document", "heads"}` whenever the durable heads have changed; a client that is slow is told the newest ones, and not all that were between. The first one says how
/// the document is, unless `Last-Event-ID` names these heads. With `patches=true` each has `from`, the heads that were told before, and `patches` from there; null if they are too large, `from` is
/// not known here, or too many read the document: then the document is to be fetched. `deleted` with `{"document"}` is the last one.
#[utoipa::path(get, path = "/v1/docs/{id}/events", tag = "events", params(Id, DocumentEventsQuery, ResumeHeader), responses(
    (status = 200, description = "Events, without an end.", body = String, content_type = "text/event-stream"),
    ReadProblems,
))]
pub(super) async fn document(
    State(hub): State<Arc<Hub>>,
    activity: Activity,
    InPath(id): InPath,
    InQuery(query): InQuery<DocumentEventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = place(&hub.followers().document_places)?;
    // Before it is looked at, so that nothing that happens then is missed.
    let following = hub.followers().follow(id);
    hub.existing(id).await?;
    let told = match last_event_id(&headers) {
        None => None,
        Some(text) => parse_heads(text).ok().filter(|heads| !heads.is_empty()),
    };
    let events = DocumentEvents {
        end: End::new(&hub),
        _place: place,
        hub,
        id,
        following,
        told,
        wants_patches: query.patches,
        stage: Stage::First,
        room: None,
    };
    Ok(stream(&activity, unfold(events, DocumentEvents::next)))
}

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedQuery {
    /// All that changed after this number (`changed` of a document, or 0 for all documents), without a `Last-Event-ID`. Without both, what happens from now on.
    #[param(minimum = 0)]
    after: Option<u64>,
}

/// Follows all documents
///
/// Server-sent events, in the order of the documents' last changes. First `start` with `{"changed"}`: all that changes after this number follows. Then `heads` with `{"document", "changed", "heads"}`, and
/// `deleted` with `{"document", "changed"}`. What happened to a document while the client was away, or slow, is told once, with the newest heads; `heads` is null if the document cannot be read. The ids are the
/// numbers: whoever resumes misses nothing. A number that this server never gave is taken as 0.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(FeedQuery, ResumeHeader), responses(
    (status = 200, description = "Events, without an end.", body = String, content_type = "text/event-stream"),
    ReadProblems,
))]
pub(super) async fn feed(
    State(hub): State<Arc<Hub>>,
    activity: Activity,
    InQuery(query): InQuery<FeedQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = place(&hub.followers().feed_places)?;
    let moved = hub.followers().feed();
    let last = hub.store().last_changed().await?;
    let asked = match last_event_id(&headers) {
        Some(text) => Some(text.parse().unwrap_or(0)),
        None => query.after,
    };
    // What another server gave out says nothing here.
    let cursor = asked.map_or(last, |asked| if asked <= last { asked } else { 0 });
    let events = FeedEvents {
        end: End::new(&hub),
        _place: place,
        hub,
        cursor,
        moved,
        page: VecDeque::new(),
        next_look: Instant::now(),
        is_first: true,
    };
    Ok(stream(&activity, unfold(events, FeedEvents::next)))
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok())
}

fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    places.clone().try_acquire_owned().map_err(|_| Problem::TooManyStreams)
}

fn stream(
    activity: &Activity,
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    activity.be_stream();
    let keep_alive = KeepAlive::new().interval(EVENTS_KEEP_ALIVE);
    let headers = [(CACHE_CONTROL, "no-store"), (ACCEL_BUFFERING, "no")];
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}

type Next<T> = Option<(Result<Event, Infallible>, T)>;

struct DocumentEvents {
    hub: Arc<Hub>,
    id: DocumentId,
    end: End,
    _place: OwnedSemaphorePermit,
    following: Following,
    /// The heads that the client knows.
    told: Option<Vec<ChangeHash>>,
    wants_patches: bool,
    stage: Stage,
    /// What the event takes up that is on its way.
    room: Option<RoomTaken>,
}

#[derive(PartialEq, Eq)]
enum Stage {
    First,
    Following,
    Over,
}

#[derive(Serialize)]
struct HeadsOfDocument<'a> {
    document: String,
    heads: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patches: Option<Option<&'a RawValue>>,
}

impl DocumentEvents {
    async fn next(mut self) -> Next<Self> {
        // Who asks for the next one has read what was before.
        self.room = None;
        loop {
            let now = match self.stage {
                Stage::Over => return None,
                Stage::First => self.end.or(self.hub.told(self.id)).await?.ok()?,
                Stage::Following => self.end.or(self.following.changed()).await??,
            };
            self.stage = Stage::Following;
            if now.is_deleted {
                return Some((Ok(self.deleted()), self));
            }
            if self.told.as_ref() == Some(&now.heads) {
                continue;
            }
            let event =
                if self.wants_patches { self.patches(now).await? } else { Some(self.heads(now.heads, None)) };
            if let Some(event) = event {
                return Some((Ok(event), self));
            }
        }
    }

    fn deleted(&mut self) -> Event {
        self.stage = Stage::Over;
        Event::default().event("deleted").data(json!({ "document": self.id.to_string() }).to_string())
    }

    fn heads(&mut self, heads: Vec<ChangeHash>, patches: Option<Option<&RawValue>>) -> Event {
        let from = self.told.take().unwrap_or_default();
        let data = HeadsOfDocument {
            document: self.id.to_string(),
            heads: hashes(&heads),
            from: patches.is_some().then(|| hashes(&from)),
            patches,
        };
        let id =
            if heads.len() <= ETAG_HEADS_MAX { hashes(&heads).join(",") } else { NO_RESUMING.to_owned() };
        self.told = Some(heads);
        // Texts become JSON in any case.
        let data = serde_json::to_string(&data).unwrap_or_default();
        Event::default().event("heads").id(id).data(data)
    }

    /// Whether there is memory for so many bytes until they are sent.
    fn makes_room(&mut self, bytes: usize) -> bool {
        let room = self.hub.rooms().events.try_take_if_large(bytes);
        room.map(|room| self.room = room).is_ok()
    }

    /// The event with what differs between what the client knows and what the document is by now. `Some(None)` if that is nothing, `None` if the stream ends.
    async fn patches(&mut self, now: Told) -> Option<Option<Event>> {
        let from = self.told.clone().unwrap_or_default();
        let (followers, id) = (self.hub.followers().clone(), self.id);
        let look = move |document: &Materialised| Ok(followers.diff(id, document, &from));
        match self.end.or(self.hub.read(self.id, look)).await? {
            Ok(diff) if self.told.as_ref() == Some(&diff.to) => Some(None),
            Ok(diff) => {
                let patches = diff.patches.as_deref().filter(|patches| self.makes_room(patches.get().len()));
                Some(Some(self.heads(diff.to.clone(), Some(patches))))
            }
            Err(Problem::Deleted) => Some(Some(self.deleted())),
            // It cannot be had with its values, or not now.
            Err(Problem::Damaged(_) | Problem::Internal(_) | Problem::Busy) => {
                Some(Some(self.heads(now.heads, Some(None))))
            }
            Err(_) => None,
        }
    }
}

struct FeedEvents {
    hub: Arc<Hub>,
    end: End,
    _place: OwnedSemaphorePermit,
    cursor: u64,
    moved: watch::Receiver<u64>,
    page: VecDeque<Changed>,
    /// Not before this: many small looks would cost more than a few.
    next_look: Instant,
    is_first: bool,
}

impl FeedEvents {
    async fn next(mut self) -> Next<Self> {
        if std::mem::take(&mut self.is_first) {
            let data = json!({ "changed": self.cursor }).to_string();
            let event = Event::default().event("start").id(self.cursor.to_string()).data(data);
            return Some((Ok(event), self));
        }
        loop {
            if let Some(changed) = self.page.pop_front() {
                self.cursor = changed.entry.changed;
                return Some((Ok(feed_event(&changed)), self));
            }
            self.end.or(sleep_until(self.next_look)).await?;
            self.next_look = Instant::now() + FEED_PACE;
            self.moved.borrow_and_update();
            self.page = self.end.or(self.hub.changed(self.cursor, FEED_PAGE)).await?.ok()?.into();
            if self.page.is_empty() {
                self.end.or(self.moved.changed()).await?.ok()?;
            }
        }
    }
}

fn feed_event(changed: &Changed) -> Event {
    let Changed { entry, heads } = changed;
    let (id, number) = (entry.id.to_string(), entry.changed);
    let event = Event::default().id(number.to_string());
    if entry.is_deleted {
        return event.event("deleted").data(json!({ "document": id, "changed": number }).to_string());
    }
    let heads = heads.as_deref().map(hashes);
    event.event("heads").data(json!({ "document": id, "changed": number, "heads": heads }).to_string())
}
