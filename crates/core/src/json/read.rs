//! Reading a document's values.

use std::collections::BTreeMap;

use automerge::iter::{ListRange, MapRange};
use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, ValueRef};

use super::Value;
use crate::limits::JSON_DEPTH_MAX;

/// A document is nested deeper than [`JSON_DEPTH_MAX`] levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooDeep;

/// What stands at a place of a document.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Object(ObjType, ObjId),
    Scalar(ScalarValue),
}

impl Found {
    pub(crate) fn new(value: ValueRef<'_>, id: impl FnOnce() -> ObjId) -> Self {
        match value {
            ValueRef::Object(kind) => Self::Object(kind, id()),
            ValueRef::Scalar(scalar) => Self::Scalar(scalar.into()),
        }
    }

    fn of(value: automerge::Value<'_>, id: ObjId) -> Self {
        match value {
            automerge::Value::Object(kind) => Self::Object(kind, id),
            automerge::Value::Scalar(scalar) => Self::Scalar(scalar.into_owned()),
        }
    }
}

/// A document, now or at earlier heads.
pub(crate) struct Reader<'a, D> {
    document: &'a D,
    heads: Option<&'a [automerge::ChangeHash]>,
}

impl<'a, D: ReadDoc> Reader<'a, D> {
    /// The document as it is now.
    pub(crate) fn now(document: &'a D) -> Self {
        Self { document, heads: None }
    }

    /// The document as it was, if there are heads.
    pub(crate) fn at(document: &'a D, heads: Option<&'a [automerge::ChangeHash]>) -> Self {
        Self { document, heads }
    }

    /// What an object holds that is in so many others.
    pub(crate) fn object(&self, kind: ObjType, id: &ObjId, depth: usize) -> Result<Value, TooDeep> {
        if kind == ObjType::Text {
            return Ok(Value::String(self.text(id)));
        }
        if depth >= JSON_DEPTH_MAX {
            return Err(TooDeep);
        }
        if kind == ObjType::List {
            let items = self.items(id);
            let item = |item: automerge::iter::ListRangeItem<'_>| {
                let id = item.id();
                self.value(&Found::new(item.value, || id), depth + 1)
            };
            return Ok(Value::List(items.map(item).collect::<Result<_, _>>()?));
        }
        let entry = |entry: automerge::iter::MapRangeItem<'_>| {
            let id = entry.id();
            let value = self.value(&Found::new(entry.value, || id), depth + 1)?;
            Ok((entry.key.into_owned(), value))
        };
        Ok(Value::Map(self.entries(id).map(entry).collect::<Result<BTreeMap<_, _>, _>>()?))
    }

    /// What stands at a place that is in so many objects.
    pub(crate) fn value(&self, found: &Found, depth: usize) -> Result<Value, TooDeep> {
        match found {
            Found::Object(kind, id) => self.object(*kind, id, depth),
            Found::Scalar(scalar) => Ok(Value::of_scalar(scalar)),
        }
    }

    /// The elements of a list.
    pub(crate) fn items(&self, id: &ObjId) -> ListRange<'a> {
        match self.heads {
            Some(heads) => self.document.list_range_at(id, .., heads),
            None => self.document.list_range(id, ..),
        }
    }

    /// The entries of a map, by key.
    pub(crate) fn entries(&self, id: &ObjId) -> MapRange<'a> {
        match self.heads {
            Some(heads) => self.document.map_range_at(id, .., heads),
            None => self.document.map_range(id, ..),
        }
    }

    /// A text. It is there: its id was just read.
    pub(crate) fn text(&self, id: &ObjId) -> String {
        let text = match self.heads {
            Some(heads) => self.document.text_at(id, heads),
            None => self.document.text(id),
        };
        text.unwrap_or_default()
    }

    /// Whether there is a text in it, or it is one, that JSON does not show whole: with marks, or with blocks, each of which stands as U+FFFC in it.
    pub(crate) fn has_rich_text(&self, found: &Found) -> bool {
        let Found::Object(kind, id) = found else { return false };
        match kind {
            ObjType::Text => self.marks(id) > 0 || self.text(id).contains('\u{fffc}'),
            ObjType::List => self.items(id).any(|item| {
                let id = item.id();
                self.has_rich_text(&Found::new(item.value, || id))
            }),
            ObjType::Map | ObjType::Table => self.entries(id).any(|entry| {
                let id = entry.id();
                self.has_rich_text(&Found::new(entry.value, || id))
            }),
        }
    }

    /// How many marks a text has.
    pub(crate) fn marks(&self, id: &ObjId) -> usize {
        let marks = match self.heads {
            Some(heads) => self.document.marks_at(id, heads),
            None => self.document.marks(id),
        };
        marks.map_or(0, |marks| marks.len())
    }

    /// What is at a place of an object, with what was put there at the same time. What counts comes last.
    pub(crate) fn all(&self, id: &ObjId, prop: Prop) -> Vec<(Found, ObjId)> {
        let all = match self.heads {
            Some(heads) => self.document.get_all_at(id, prop, heads),
            None => self.document.get_all(id, prop),
        };
        let all = all.unwrap_or_default().into_iter();
        all.map(|(value, id)| (Found::of(value, id.clone()), id)).collect()
    }

    /// What is at a place of an object. Nothing too if the object has no such places.
    pub(crate) fn get(&self, id: &ObjId, prop: Prop) -> Option<Found> {
        let found = match self.heads {
            Some(heads) => self.document.get_at(id, prop, heads),
            None => self.document.get(id, prop),
        };
        found.ok().flatten().map(|(value, id)| Found::of(value, id))
    }
}
