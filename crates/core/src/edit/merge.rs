//! JSON Merge Patch (RFC 7386).

use std::collections::BTreeMap;

use automerge::{ObjId, ObjType, Prop, ROOT};

use super::diff::Editor;
use super::{EditError, EditReason, Fault};
use crate::json::{Flaw, Found, Value, check_keys, form};
use crate::limits::JSON_DEPTH_MAX;

/// What a value is to become.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Merge {
    /// It is removed.
    Remove,
    /// It is a map with these entries changed.
    Map(BTreeMap<String, Merge>),
    /// It is this.
    Set(Value),
}

impl Merge {
    pub(super) fn parse(json: serde_json::Value) -> Result<Self, EditError> {
        let merge = Self::parse_at(json, 0).map_err(|flaw| EditError::invalid(None, "", flaw))?;
        match merge {
            Self::Map(_) => Ok(merge),
            _ => {
                Err(EditError::whole(EditReason::Invalid("the patch of a document is an object".to_owned())))
            }
        }
    }

    fn parse_at(json: serde_json::Value, depth: usize) -> Result<Self, Flaw> {
        let object = match json {
            serde_json::Value::Null => return Ok(Self::Remove),
            serde_json::Value::Object(object) => object,
            other => return Value::parse_at(other, depth).map(Self::Set),
        };
        let entries = match form(&object) {
            Some("$map") => match object.into_iter().next() {
                Some((_, serde_json::Value::Object(entries))) => entries,
                _ => return Err(Flaw::new("is not an object").below("$map")),
            },
            Some(_) => return Value::parse_at(object.into(), depth).map(Self::Set),
            None => object,
        };
        if depth >= JSON_DEPTH_MAX {
            return Err(Flaw::new(format!("is nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        check_keys(&entries)?;
        let entry = |(key, value)| match Self::parse_at(value, depth + 1) {
            Ok(merge) => Ok((key, merge)),
            Err(flaw) => Err(flaw.below(key)),
        };
        Ok(Self::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?))
    }

    pub(super) fn apply(&self, editor: &mut Editor<'_, '_>) -> Result<(), Fault> {
        match self {
            Self::Map(entries) => merge_map(editor, &ROOT, entries),
            _ => Ok(()),
        }
    }

    /// What it makes of nothing.
    fn value(&self) -> Option<Value> {
        match self {
            Self::Remove => None,
            Self::Set(value) => Some(value.clone()),
            Self::Map(entries) => {
                let entries = entries.iter().filter_map(|(key, merge)| Some((key.clone(), merge.value()?)));
                Some(Value::Map(entries.collect()))
            }
        }
    }
}

fn merge_map(
    editor: &mut Editor<'_, '_>,
    id: &ObjId,
    entries: &BTreeMap<String, Merge>,
) -> Result<(), Fault> {
    for (key, merge) in entries {
        let prop = Prop::Map(key.clone());
        match (editor.get(id, prop.clone()), merge) {
            (Some(Found::Object(ObjType::Map, id)), Merge::Map(entries)) => merge_map(editor, &id, entries)?,
            (Some(_), Merge::Remove) => editor.delete(id, prop)?,
            (None, Merge::Remove) => {}
            (found, merge) => {
                if let Some(value) = merge.value() {
                    editor.assign(id, prop, found, &value)?;
                }
            }
        }
    }
    Ok(())
}
