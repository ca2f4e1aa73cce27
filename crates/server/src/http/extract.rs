//! What requests say in their path, query, head and body. Whatever is wrong with it becomes a [`Problem`].

use std::convert::Infallible;

use axum::body::{self, Body};
use axum::extract::{FromRequestParts, OriginalUri, Query, RawPathParams};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use bytes::Bytes;
use highwater_core::limits::{HAVE_HASHES_MAX, TIME_MAX};
use highwater_core::{ChangeHash, DocumentId};
use serde::de::DeserializeOwned;

use super::Problem;
use crate::document::Key;
use crate::hub::Hub;
use crate::limits::UNSIZED_BYTES_MAX;
use crate::rooms::RoomTaken;

/// JSON.
pub(super) const JSON: &str = "application/json";
/// A document, or changes one after the other.
pub(super) const AUTOMERGE: &str = "application/vnd.automerge";

const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The document that the path names.
pub(super) struct InPath(pub(super) DocumentId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "id").await.and_then(|id| document_id(&id)).map(Self)
    }
}

/// The change that the path names.
pub(super) struct HashInPath(pub(super) ChangeHash);

impl<S: Send + Sync> FromRequestParts<S> for HashInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "hash").await.and_then(|hash| change_hash(&hash)).map(Self)
    }
}

/// The name that the path ends with or names.
pub(super) struct NameInPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for NameInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state, "name").await.map(Self)
    }
}

/// What stands before the paths that the routes know, if the application mounted them below another one.
pub(super) struct MountedAt(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for MountedAt {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let whole = parts.extensions.get::<OriginalUri>().map(|uri| uri.path());
        let before = whole.and_then(|whole| whole.strip_suffix(parts.uri.path()));
        Ok(Self(before.unwrap_or_default().to_owned()))
    }
}

async fn path_part<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let invalid = |detail: String| Problem::Invalid { what: "path", detail };
    let params =
        RawPathParams::from_request_parts(parts, state).await.map_err(|error| invalid(error.body_text()))?;
    // The last one: an application may have one of the same name before it.
    let part = params.iter().filter(|(key, _)| *key == name).last().map(|(_, value)| value.to_owned());
    part.ok_or_else(|| invalid(format!("no {name}")))
}

/// The query. What it does not know is an error, so that a slip of the pen does not ask for something else.
pub(super) struct InQuery<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::Invalid { what: "query", detail };
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|error| invalid(error.body_text()))
    }
}

/// A document id, also as a url of automerge-repo.
pub(super) fn document_id(text: &str) -> Result<DocumentId, Problem> {
    text.parse().map_err(|error| Problem::Invalid { what: "document id", detail: format!("{error}") })
}

pub(super) fn change_hash(text: &str) -> Result<ChangeHash, Problem> {
    text.parse().map_err(|error| Problem::Invalid { what: "change hash", detail: format!("{error}") })
}

/// Heads with commas between; none if there is nothing.
pub(super) fn heads(text: &str) -> Result<Vec<ChangeHash>, Problem> {
    let heads: Vec<ChangeHash> =
        text.split(',').filter(|head| !head.is_empty()).map(change_hash).collect::<Result<_, _>>()?;
    if heads.len() > HAVE_HASHES_MAX {
        return Err(Problem::Invalid { what: "heads", detail: format!("more than {HAVE_HASHES_MAX}") });
    }
    Ok(heads)
}

/// The one of these kinds that the client likes best; the first one if it does not say.
pub(super) fn negotiate(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Problem> {
    let accepted: Vec<&str> =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accepted = accepted.join(",");
    if accepted.trim().is_empty() {
        return offered.first().copied().ok_or(Problem::NotAcceptable { offered: String::new() });
    }
    let mut best = None;
    for kind in offered {
        let quality = quality(&accepted, kind);
        if quality > 0 && best.is_none_or(|(of_best, _)| quality > of_best) {
            best = Some((quality, *kind));
        }
    }
    best.map(|(_, kind)| kind).ok_or_else(|| Problem::NotAcceptable { offered: offered.join(" and as ") })
}

/// How much a kind is liked, in thousandths: as the range says that names it most exactly.
fn quality(accepted: &str, kind: &str) -> u32 {
    let main = kind.split('/').next().unwrap_or_default();
    let mut found = (0, 0);
    for range in accepted.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let exactness = match name.split_once('/') {
            _ if name == kind => 3,
            Some(("*", "*")) => 1,
            Some((of, "*")) if of == main => 2,
            _ => 0,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality: f32 = quality.map_or(1.0, |text| text.parse().unwrap_or(1.0));
        if exactness > found.0 {
            found = (exactness, (quality.clamp(0.0, 1.0) * 1_000.0) as u32);
        }
    }
    found.1
}

/// The kind of the body, without parameters, in small letters.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether the client wants to see the document after an edit.
pub(super) fn wants_representation(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).any(|preference| {
        let preference = preference.split(';').next().unwrap_or_default().replace([' ', '"'], "");
        preference.eq_ignore_ascii_case("return=representation")
    })
}

/// By which key a request is known that asks for this, if it has one.
pub(super) fn idempotency_key(headers: &HeaderMap, asked: &[&[u8]]) -> Result<Option<Key>, Problem> {
    headers.get(IDEMPOTENCY_KEY).map(|key| Key::new(key.as_bytes(), asked)).transpose()
}

/// The time of a change, in seconds since 1970, is one that every program can tell exactly.
pub(crate) fn check_time(time: Option<i64>) -> Result<(), Problem> {
    match time {
        Some(time) if time.unsigned_abs() > TIME_MAX => {
            Err(Problem::Invalid { what: "time", detail: format!("more than {TIME_MAX} seconds from 1970") })
        }
        _ => Ok(()),
    }
}

/// How large the body is, if that is said. One that is too large is not read.
pub(super) fn content_length(headers: &HeaderMap, max: usize) -> Result<Option<usize>, Problem> {
    let len: Option<usize> = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    if len.is_some_and(|len| len > max) { Err(Problem::TooLarge { max }) } else { Ok(len) }
}

pub(super) async fn read(body: Body, max: usize) -> Result<Bytes, Problem> {
    // What it fails of is either the limit or a connection that is gone, and then nobody hears the answer.
    body::to_bytes(body, max).await.map_err(|_| Problem::TooLarge { max })
}

/// The body, and its share of the memory for bodies.
pub(super) async fn read_with_room(
    hub: &Hub,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<(Bytes, RoomTaken), Problem> {
    // Of one that does not say how large it is the most is expected, so that must not be much.
    let unsized_max = max.min(UNSIZED_BYTES_MAX);
    let (len, max) = content_length(headers, max)?.map_or((unsized_max, unsized_max), |len| (len, max));
    let room = hub.rooms().bodies.take(len).await?;
    Ok((read(body, max).await?, room))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_kind_that_is_liked_best_is_chosen() {
        let choose = |accept: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
            negotiate(&headers, &[JSON, AUTOMERGE]).ok()
        };
        for accept in ["*/*", "", "application/*", "text/html, */*;q=0.1", "Application/JSON; charset=utf-8"]
        {
            assert_eq!(choose(accept), Some(JSON), "{accept}");
        }
        for accept in [AUTOMERGE, "application/json;q=0.5, */*", "application/json;q=0, */*;q=0.1"] {
            assert_eq!(choose(accept), Some(AUTOMERGE), "{accept}");
        }
        for accept in ["text/html", "application/json;q=0", "nonsense"] {
            assert_eq!(choose(accept), None, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), &[JSON]).unwrap(), JSON);
    }

    #[test]
    fn a_preference_may_stand_among_others() {
        let wants = |value: &str| {
            let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_str(value).unwrap())]);
            wants_representation(&headers)
        };
        assert!(wants("return=representation") && wants("wait=1, return = \"representation\"; x"));
        assert!(!wants("return=minimal") && !wants("x"));
    }
}
