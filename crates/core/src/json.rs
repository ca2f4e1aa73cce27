//! Documents as JSON, and JSON as what a document is to hold. One form, in and out.
//!
//! | in the document | as JSON |
//! |---|---|
//! | map, list | object, array |
//! | text, scalar string | string; `{"$string": "x"}` puts in a scalar string |
//! | number | number; `{"$float": "NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | true, false, null | the same |
//! | counter | `{"$counter": 3}` |
//! | timestamp | `{"$date": "2026-11-25T01:02:03.004Z"}`; milliseconds since 1970 if the year has not four digits |
//! | bytes | `{"$bytes": "AP8="}` |
//! | a type of a newer Automerge | `{"$unknown": {"type": 12, "bytes": "AQ=="}}`; not put in |
//! | a map with only one key, which is one of these | `{"$map": {"$counter": "no counter"}}` |

mod read;
mod time;

use std::collections::{BTreeMap, HashMap};

use automerge::{ScalarValue, TextEncoding, hydrate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, json};

use crate::limits::JSON_DEPTH_MAX;

pub(crate) use read::{Found, Reader, TooDeep};

/// Keys that, alone in an object, say that it stands for something else.
const FORMS: [&str; 7] = ["$counter", "$date", "$bytes", "$float", "$string", "$unknown", "$map"];

/// What is wrong with a value that has one.
pub(crate) const EMPTY_KEY: &str = "has an empty key, which Automerge does not have";

/// What a place of a document is to hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// A text, or a scalar string where one stands already.
    String(String),
    /// A scalar string.
    Scalar(String),
    Counter(i64),
    /// Milliseconds since 1970.
    Date(i64),
    Bytes(Vec<u8>),
    /// What a newer Automerge wrote. Not read from JSON, but copied and moved.
    Unknown(u8, Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

/// Why a JSON value is not one that a document can hold, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// The keys and places down to it.
    pub(crate) path: Vec<String>,
    pub(crate) detail: String,
}

impl Flaw {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { path: Vec::new(), detail: detail.into() }
    }

    pub(crate) fn below(mut self, key: impl Into<String>) -> Self {
        self.path.insert(0, key.into());
        self
    }
}

impl Value {
    /// Reads a value that was parsed as JSON.
    pub(crate) fn parse(json: serde_json::Value) -> Result<Self, Flaw> {
        Self::parse_at(json, 0)
    }

    /// Reads a value that is in so many others.
    pub(crate) fn parse_at(json: serde_json::Value, depth: usize) -> Result<Self, Flaw> {
        Ok(match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::number(&number),
            serde_json::Value::String(text) => Self::String(text),
            serde_json::Value::Array(items) => {
                let depth = deeper(depth)?;
                let item = |(place, item): (usize, _)| {
                    Self::parse_at(item, depth).map_err(|flaw| flaw.below(place.to_string()))
                };
                Self::List(items.into_iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            serde_json::Value::Object(object) => match form(&object) {
                Some("$map") => Self::parse_wrapped(object, depth)?,
                Some(form) => Self::parse_form(form, &object[form]).map_err(|flaw| flaw.below(form))?,
                None => Self::parse_map(object, depth)?,
            },
        })
    }

    fn parse_map(object: Map<String, serde_json::Value>, depth: usize) -> Result<Self, Flaw> {
        let depth = deeper(depth)?;
        check_keys(&object)?;
        let entry = |(key, value)| match Self::parse_at(value, depth) {
            Ok(value) => Ok((key, value)),
            Err(flaw) => Err(flaw.below(key)),
        };
        Ok(Self::Map(object.into_iter().map(entry).collect::<Result<_, _>>()?))
    }

    fn parse_wrapped(object: Map<String, serde_json::Value>, depth: usize) -> Result<Self, Flaw> {
        match object.into_iter().next() {
            Some((_, serde_json::Value::Object(inner))) => {
                Self::parse_map(inner, depth).map_err(|flaw| flaw.below("$map"))
            }
            _ => Err(Flaw::new("is not an object").below("$map")),
        }
    }

    fn parse_form(form: &str, value: &serde_json::Value) -> Result<Self, Flaw> {
        let text = || value.as_str().ok_or_else(|| Flaw::new("is not a string"));
        match form {
            "$counter" => match value.as_i64() {
                Some(count) => Ok(Self::Counter(count)),
                None => Err(Flaw::new("is not an integer of 64 bits")),
            },
            "$date" => {
                value.as_i64().or_else(|| time::parse(value.as_str()?)).map(Self::Date).ok_or_else(|| {
                    Flaw::new(
                        "is neither a time such as 2026-11-25T01:02:03.004Z nor milliseconds since 1970",
                    )
                })
            }
            "$bytes" => BASE64
                .decode(text()?)
                .map(Self::Bytes)
                .map_err(|error| Flaw::new(format!("is no Base64: {error}"))),
            "$float" => match text()? {
                "NaN" => Ok(Self::Float(f64::NAN)),
                "Infinity" => Ok(Self::Float(f64::INFINITY)),
                "-Infinity" => Ok(Self::Float(f64::NEG_INFINITY)),
                _ => Err(Flaw::new("is none of NaN, Infinity, -Infinity")),
            },
            "$string" => Ok(Self::Scalar(text()?.to_owned())),
            _ => Err(Flaw::new("is of a type that this server does not know, and cannot be written")),
        }
    }

    fn number(number: &Number) -> Self {
        let int = number.as_i64().map(Self::Int).or_else(|| number.as_u64().map(Self::Uint));
        int.unwrap_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)))
    }

    /// Levels of lists and maps.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(entries) => 1 + entries.values().map(Self::depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// How many operations it takes to make it, and how many bytes its texts, bytes and keys have.
    pub(crate) fn cost(&self) -> (usize, usize) {
        let add = |(ops, bytes): (usize, usize), (more, larger): (usize, usize)| (ops + more, bytes + larger);
        match self {
            Self::String(text) => (1 + text.chars().count(), text.len()),
            Self::Scalar(text) => (1, text.len()),
            Self::Bytes(bytes) | Self::Unknown(_, bytes) => (1, bytes.len()),
            Self::List(items) => items.iter().map(Self::cost).fold((1, 0), add),
            Self::Map(entries) => {
                entries.iter().map(|(key, value)| add(value.cost(), (0, key.len()))).fold((1, 0), add)
            }
            _ => (1, 0),
        }
    }

    /// The scalar that it is, unless it is an object in a document.
    pub(crate) fn scalar(&self) -> Option<ScalarValue> {
        Some(match self {
            Self::Null => ScalarValue::Null,
            Self::Bool(value) => ScalarValue::Boolean(*value),
            Self::Int(value) => ScalarValue::Int(*value),
            Self::Uint(value) => ScalarValue::Uint(*value),
            Self::Float(value) => ScalarValue::F64(*value),
            Self::Scalar(text) => ScalarValue::Str(text.as_str().into()),
            Self::Counter(value) => ScalarValue::counter(*value),
            Self::Date(value) => ScalarValue::Timestamp(*value),
            Self::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
            Self::Unknown(type_code, bytes) => {
                ScalarValue::Unknown { type_code: *type_code, bytes: bytes.clone() }
            }
            Self::String(_) | Self::List(_) | Self::Map(_) => return None,
        })
    }

    /// As automerge takes values that are made at once.
    pub(crate) fn hydrate(&self) -> hydrate::Value {
        match self {
            Self::String(text) => hydrate::Value::text(TextEncoding::UnicodeCodePoint, text),
            Self::List(items) => items.iter().map(Self::hydrate).collect::<Vec<_>>().into(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), value.hydrate()));
                hydrate::Map::from(entries.collect::<HashMap<String, hydrate::Value>>()).into()
            }
            scalar => hydrate::Value::Scalar(scalar.scalar().unwrap_or(ScalarValue::Null)),
        }
    }

    /// The value that a scalar of a document is.
    pub(crate) fn of_scalar(scalar: &ScalarValue) -> Self {
        match scalar {
            ScalarValue::Null => Self::Null,
            ScalarValue::Boolean(value) => Self::Bool(*value),
            ScalarValue::Int(value) => Self::Int(*value),
            ScalarValue::Uint(value) => Self::Uint(*value),
            ScalarValue::F64(value) => Self::Float(*value),
            ScalarValue::Str(text) => Self::Scalar(text.to_string()),
            ScalarValue::Counter(counter) => Self::Counter(i64::from(counter)),
            ScalarValue::Timestamp(value) => Self::Date(*value),
            ScalarValue::Bytes(bytes) => Self::Bytes(bytes.clone()),
            ScalarValue::Unknown { type_code, bytes } => Self::Unknown(*type_code, bytes.clone()),
        }
    }

    /// The value in the documented form.
    pub(crate) fn into_json(self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Uint(value) => value.into(),
            Self::Float(value) => float(value),
            Self::String(text) | Self::Scalar(text) => text.into(),
            Self::Counter(value) => json!({ "$counter": value }),
            Self::Date(value) => match time::format(value) {
                Some(text) => json!({ "$date": text }),
                None => json!({ "$date": value }),
            },
            Self::Bytes(bytes) => json!({ "$bytes": BASE64.encode(bytes) }),
            Self::Unknown(type_code, bytes) => {
                json!({ "$unknown": { "type": type_code, "bytes": BASE64.encode(bytes) } })
            }
            Self::List(items) => items.into_iter().map(Self::into_json).collect(),
            Self::Map(entries) => {
                let entries: Map<_, _> =
                    entries.into_iter().map(|(key, value)| (key, value.into_json())).collect();
                if form(&entries).is_some() { json!({ "$map": entries }) } else { entries.into() }
            }
        }
    }
}

/// Stock clients in JavaScript cannot read a document with an empty key.
pub(crate) fn check_keys(object: &Map<String, serde_json::Value>) -> Result<(), Flaw> {
    if object.contains_key("") { Err(Flaw::new(EMPTY_KEY)) } else { Ok(()) }
}

fn deeper(depth: usize) -> Result<usize, Flaw> {
    if depth < JSON_DEPTH_MAX {
        Ok(depth + 1)
    } else {
        Err(Flaw::new(format!("is nested deeper than {JSON_DEPTH_MAX} levels")))
    }
}

/// The key that says what an object stands for, if it has no other.
pub(crate) fn form(object: &Map<String, serde_json::Value>) -> Option<&'static str> {
    let key = object.keys().next().filter(|_| object.len() == 1)?;
    FORMS.iter().find(|form| *form == key).copied()
}

fn float(value: f64) -> serde_json::Value {
    match Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => json!({ "$float": "NaN" }),
        None if value > 0.0 => json!({ "$float": "Infinity" }),
        None => json!({ "$float": "-Infinity" }),
    }
}
