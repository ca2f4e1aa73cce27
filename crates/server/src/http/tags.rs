//! Entity tags: the tag of a document is its heads, so that clients can make it of what else they know.

use axum::http::HeaderMap;
use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use highwater_core::ChangeHash;
use sha2::{Digest, Sha256};

use super::Problem;
use crate::document::Precondition;
use crate::limits::ETAG_HEADS_MAX;

/// The tag of a document with these heads: they are in it, sorted and with commas between, if they are not too many.
pub(crate) fn etag(heads: &[ChangeHash]) -> String {
    let mut sorted = heads.to_vec();
    sorted.sort_unstable();
    let texts: Vec<String> = sorted.iter().map(ChangeHash::to_string).collect();
    let list = texts.join(",");
    if sorted.len() <= ETAG_HEADS_MAX {
        return format!("\"{list}\"");
    }
    format!("\"sha256:{}\"", hex::encode(Sha256::digest(list)))
}

/// What a header with tags asks for.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    /// With its quotes.
    text: String,
}

/// What `If-Match` and `If-None-Match` ask of an edit.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let (present, absent) = (tags(headers, &IF_MATCH)?, tags(headers, &IF_NONE_MATCH)?);
    match (present, absent) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::These(tags)), None) => {
            // A weak tag is never good enough here.
            let strong = tags.into_iter().filter(|tag| !tag.is_weak);
            Ok(Precondition::Tags(strong.map(|tag| tag.text).collect()))
        }
        (None, Some(Tags::Any)) => Ok(Precondition::Absent { is_create: false }),
        (None, Some(Tags::These(tags))) => {
            Ok(Precondition::NoneOf(tags.into_iter().map(|tag| tag.text).collect()))
        }
        (Some(_), Some(_)) => Err(Problem::Invalid {
            what: "preconditions",
            detail: "one of `If-Match` and `If-None-Match` is possible".to_owned(),
        }),
    }
}

/// Whether the client has the document with these heads already.
pub(super) fn is_known(headers: &HeaderMap, heads: &[ChangeHash]) -> Result<bool, Problem> {
    Ok(match tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(tags)) => {
            let ours = etag(heads);
            tags.iter().any(|tag| tag.text == ours)
        }
    })
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut found: Option<Vec<Tag>> = None;
    for value in headers.get_all(name) {
        let invalid =
            || Problem::Invalid { what: "an entity tag", detail: "expected \"<heads>\"".to_owned() };
        let value = value.to_str().map_err(|_| invalid())?.trim();
        if value == "*" {
            return Ok(Some(Tags::Any));
        }
        let tags = parse(value).filter(|tags| !tags.is_empty()).ok_or_else(invalid)?;
        found.get_or_insert_default().extend(tags);
    }
    Ok(found.map(Tags::These))
}

/// The tags of a list. There may be commas in each.
fn parse(mut text: &str) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            return Some(tags);
        }
        let (is_weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let inner = quoted.strip_prefix('"')?;
        let end = inner.find('"')?;
        tags.push(Tag { is_weak, text: canonical(&inner[..end]) });
        text = &inner[end + 1..];
    }
}

/// The tag with its heads sorted: clients need not know in which order they come.
fn canonical(inner: &str) -> String {
    let heads: Result<Vec<ChangeHash>, _> = inner.split(',').map(|head| head.trim().parse()).collect();
    heads.map_or_else(|_| format!("\"{inner}\""), |heads| etag(&heads))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn head(n: u8) -> ChangeHash {
        hex::encode([n; 32]).parse().unwrap()
    }

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn heads_are_compared_in_any_order() {
        let (one, two) = (head(1), head(2));
        assert_eq!(etag(&[two, one]), format!("\"{one},{two}\""));
        let tags = |text: String| precondition(&with(IF_MATCH, &text)).unwrap();
        let wanted = Precondition::Tags(vec![etag(&[one, two]), etag(&[two])]);
        assert_eq!(tags(format!("\"{two},{one}\" , W/\"{one}\", \"{two}\"")), wanted);
        assert_eq!(tags("*".to_owned()), Precondition::Exists);
        assert_eq!(precondition(&HeaderMap::new()).unwrap(), Precondition::None);
        let absent = precondition(&with(IF_NONE_MATCH, "*")).unwrap();
        assert_eq!(absent, Precondition::Absent { is_create: false });
        for wrong in [format!("{one}"), "\"".to_owned(), "W/x".to_owned(), String::new()] {
            assert!(precondition(&with(IF_MATCH, &wrong)).is_err(), "{wrong}");
        }
        let others = precondition(&with(IF_NONE_MATCH, &format!("W/{}, \"a\"", etag(&[one])))).unwrap();
        assert_eq!(others, Precondition::NoneOf(vec![etag(&[one]), "\"a\"".to_owned()]));
        assert!(is_known(&with(IF_NONE_MATCH, &format!("W/\"{two},{one}\"")), &[one, two]).unwrap());
        assert!(!is_known(&with(IF_NONE_MATCH, &etag(&[one])), &[one, two]).unwrap());
    }

    #[test]
    fn a_tag_of_very_many_heads_is_short() {
        let heads: Vec<ChangeHash> = (0..=255).map(head).collect();
        let tag = etag(&heads);
        assert!(tag.len() < 100, "{tag}");
        assert!(is_known(&with(IF_NONE_MATCH, &tag), &heads).unwrap());
    }
}
