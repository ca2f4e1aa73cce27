//! JSON Patch (RFC 6902), with `splice` and `increment`.

use automerge::{ObjId, ObjType, Prop, ROOT, ScalarValue};
use serde_json::Map;

use super::diff::{Editor, table};
use super::pointer::{Pointer, place};
use super::{EditError, EditReason, Fault};
use crate::json::{Found, Value};
use crate::limits::{JSON_DEPTH_MAX, PATCH_OPERATIONS_MAX};

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    path: Pointer,
    action: Action,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Add(Value),
    Remove,
    Replace(Value),
    Move(Pointer),
    Copy(Pointer),
    Test(Value),
    Splice { index: usize, delete: usize, insert: Insert },
    Increment(i64),
}

#[derive(Debug, Clone, PartialEq)]
enum Insert {
    Nothing,
    Text(String),
    Items(Vec<Value>),
}

/// Reads a patch.
pub(super) fn parse(json: serde_json::Value) -> Result<Vec<Operation>, EditError> {
    let serde_json::Value::Array(operations) = json else {
        return Err(EditError::whole(EditReason::Invalid(
            "a JSON Patch is an array of operations".to_owned(),
        )));
    };
    if operations.len() > PATCH_OPERATIONS_MAX {
        let reason = EditReason::TooLarge { what: "operations in one patch", max: PATCH_OPERATIONS_MAX };
        return Err(EditError::whole(reason));
    }
    let operation = |(index, json)| {
        let mut path = String::new();
        Operation::parse(json, &mut path).map_err(|error| EditError {
            operation: Some(index),
            pointer: if error.pointer.is_empty() { path } else { error.pointer },
            ..error
        })
    };
    operations.into_iter().enumerate().map(operation).collect()
}

fn invalid(detail: impl Into<String>) -> EditError {
    EditError::whole(EditReason::Invalid(detail.into()))
}

impl Operation {
    /// Whether it asks what is there.
    pub(super) fn is_test(&self) -> bool {
        matches!(self.action, Action::Test(_))
    }

    /// Reads an operation. `at` is to be its path, as soon as that is known.
    fn parse(json: serde_json::Value, at: &mut String) -> Result<Self, EditError> {
        let serde_json::Value::Object(mut members) = json else {
            return Err(invalid("an operation is an object"));
        };
        let path = pointer(&members, "path")?;
        *at = path.to_string();
        let name = text(&members, "op")?.to_owned();
        let action = match name.as_str() {
            "add" => Action::Add(value(&mut members, "value", &path)?),
            "remove" => Action::Remove,
            "replace" => Action::Replace(value(&mut members, "value", &path)?),
            "move" => Action::Move(pointer(&members, "from")?),
            "copy" => Action::Copy(pointer(&members, "from")?),
            "test" => Action::Test(value(&mut members, "value", &path)?),
            "splice" => Action::Splice {
                index: number(&members, "index")?.ok_or_else(|| invalid("\"index\" is missing"))?,
                delete: number(&members, "delete")?.unwrap_or(0),
                insert: insert(&mut members)?,
            },
            "increment" => match members.get("by").and_then(serde_json::Value::as_i64) {
                Some(by) => Action::Increment(by),
                None => return Err(invalid("\"by\" is not an integer of 64 bits")),
            },
            _ => {
                return Err(invalid(
                    "\"op\" is none of add, remove, replace, move, copy, test, splice, increment",
                ));
            }
        };
        Ok(Self { path, action })
    }
}

fn text<'a>(members: &'a Map<String, serde_json::Value>, key: &str) -> Result<&'a str, EditError> {
    let text = members.get(key).and_then(serde_json::Value::as_str);
    text.ok_or_else(|| invalid(format!("\"{key}\" is not a string")))
}

fn pointer(members: &Map<String, serde_json::Value>, key: &str) -> Result<Pointer, EditError> {
    Pointer::parse(text(members, key)?).map_err(|detail| invalid(format!("\"{key}\": {detail}")))
}

fn number(members: &Map<String, serde_json::Value>, key: &str) -> Result<Option<usize>, EditError> {
    let Some(number) = members.get(key) else {
        return Ok(None);
    };
    let number = number.as_u64().and_then(|number| usize::try_from(number).ok());
    number.map(Some).ok_or_else(|| invalid(format!("\"{key}\" is not a whole number from 0")))
}

fn value(
    members: &mut Map<String, serde_json::Value>,
    key: &str,
    path: &Pointer,
) -> Result<Value, EditError> {
    let json = members.remove(key).ok_or_else(|| invalid(format!("\"{key}\" is missing")))?;
    let value = Value::parse(json).map_err(|flaw| EditError::invalid(None, &path.to_string(), flaw))?;
    check_depth(path, &value)?;
    Ok(value)
}

fn insert(members: &mut Map<String, serde_json::Value>) -> Result<Insert, EditError> {
    match members.remove("insert") {
        None => Ok(Insert::Nothing),
        Some(serde_json::Value::String(text)) => Ok(Insert::Text(text)),
        Some(items @ serde_json::Value::Array(_)) => {
            match Value::parse(items).map_err(|flaw| EditError::invalid(None, "/insert", flaw))? {
                Value::List(items) => Ok(Insert::Items(items)),
                _ => Ok(Insert::Nothing),
            }
        }
        Some(_) => Err(invalid("\"insert\" is neither a string nor an array")),
    }
}

/// A document stays one that can be read as JSON.
fn check_depth(path: &Pointer, value: &Value) -> Result<(), EditError> {
    if path.0.len() + value.depth() > JSON_DEPTH_MAX { Err(too_deep(path)) } else { Ok(()) }
}

fn too_deep(path: &Pointer) -> EditError {
    at(path, EditReason::TooLarge { what: "levels of lists and maps", max: JSON_DEPTH_MAX })
}

fn at(path: &Pointer, reason: EditReason) -> EditError {
    EditError { operation: None, pointer: path.to_string(), reason }
}

/// Applies the operations one after the other.
pub(super) fn apply(editor: &mut Editor<'_, '_>, operations: &[Operation]) -> Result<(), Fault> {
    for (index, operation) in operations.iter().enumerate() {
        apply_one(editor, operation).map_err(|fault| match fault {
            Fault::Edit(error) => {
                let pointer =
                    if error.pointer.is_empty() { operation.path.to_string() } else { error.pointer };
                Fault::Edit(EditError { operation: Some(index), pointer, ..error })
            }
            fault => fault,
        })?;
    }
    Ok(())
}

fn apply_one(editor: &mut Editor<'_, '_>, operation: &Operation) -> Result<(), Fault> {
    let path = &operation.path;
    match &operation.action {
        Action::Add(value) => add(editor, path, value),
        Action::Remove => remove(editor, path),
        Action::Replace(value) => replace(editor, path, value),
        Action::Move(from) => relocate(editor, from, path),
        Action::Copy(from) => {
            let found = find(editor, from)?;
            let value = editor.copy(&found)?;
            check_depth(path, &value)?;
            add(editor, path, &value)
        }
        Action::Test(value) => match find(editor, path) {
            Ok(found) if editor.is(&found, value) => Ok(()),
            _ => Err(at(path, EditReason::TestFailed).into()),
        },
        Action::Splice { index, delete, insert } => splice(editor, path, *index, *delete, insert),
        Action::Increment(by) => increment(editor, path, *by),
    }
}

/// The object that holds what a pointer leads to, and the last part of the pointer. Nothing for the whole document.
fn parent<'p>(
    editor: &Editor<'_, '_>,
    path: &'p Pointer,
) -> Result<Option<(ObjId, ObjType, &'p str)>, EditError> {
    let Some((parents, last)) = path.split() else {
        return Ok(None);
    };
    let (mut id, mut kind) = (ROOT, ObjType::Map);
    for token in parents {
        match member(editor, &id, kind, token).map_err(|reason| at(path, reason))? {
            Some(Found::Object(inner_kind, inner)) => (id, kind) = (inner, inner_kind),
            _ => return Err(at(path, EditReason::NoSuchPath)),
        }
    }
    Ok(Some((id, kind, last)))
}

/// What an object has at a part of a pointer.
fn member(
    editor: &Editor<'_, '_>,
    id: &ObjId,
    kind: ObjType,
    token: &str,
) -> Result<Option<Found>, EditReason> {
    match kind {
        ObjType::Map | ObjType::Table => Ok(editor.get(id, Prop::Map(token.to_owned()))),
        ObjType::List => Ok(place(token).and_then(|place| editor.get(id, Prop::Seq(place)))),
        ObjType::Text => Err(EditReason::WrongType("a text has no members; splice edits what is in it")),
    }
}

fn find(editor: &Editor<'_, '_>, path: &Pointer) -> Result<Found, EditError> {
    let found = match parent(editor, path)? {
        None => Some(Found::Object(ObjType::Map, ROOT)),
        Some((id, kind, last)) => member(editor, &id, kind, last).map_err(|reason| at(path, reason))?,
    };
    found.ok_or_else(|| at(path, EditReason::NoSuchPath))
}

/// The object that holds what there is at a path, where in it that is, and what it is. Not for the whole document.
fn slot(editor: &Editor<'_, '_>, path: &Pointer) -> Result<(ObjId, Prop, Found), EditError> {
    let Some((id, kind, last)) = parent(editor, path)? else {
        return Err(at(path, EditReason::WrongType("the whole document has no place")));
    };
    if kind == ObjType::Table {
        return Err(table());
    }
    let found = member(editor, &id, kind, last).map_err(|reason| at(path, reason))?;
    let found = found.ok_or_else(|| at(path, EditReason::NoSuchPath))?;
    let prop = match kind {
        ObjType::List => Prop::Seq(place(last).unwrap_or_default()),
        _ => Prop::Map(last.to_owned()),
    };
    Ok((id, prop, found))
}

fn add(editor: &mut Editor<'_, '_>, path: &Pointer, value: &Value) -> Result<(), Fault> {
    let Some((id, kind, last)) = parent(editor, path)? else {
        return editor.set_root(value);
    };
    match kind {
        ObjType::Table => Err(table().into()),
        ObjType::List => {
            let len = editor.list_len(&id);
            let place = if last == "-" { Some(len) } else { place(last) };
            let place = place.ok_or_else(|| at(path, EditReason::NoSuchPath))?;
            check_range(path, place, 0, len, "elements")?;
            editor.splice_list(&id, place, 0, &[value])
        }
        ObjType::Map if last.is_empty() => {
            Err(at(path, EditReason::Invalid("Automerge has no empty keys".to_owned())).into())
        }
        ObjType::Map | ObjType::Text => {
            let found = member(editor, &id, kind, last).map_err(|reason| at(path, reason))?;
            editor.assign(&id, Prop::Map(last.to_owned()), found, value)
        }
    }
}

fn remove(editor: &mut Editor<'_, '_>, path: &Pointer) -> Result<(), Fault> {
    let (id, prop, _) = slot(editor, path)?;
    editor.delete(&id, prop)
}

fn replace(editor: &mut Editor<'_, '_>, path: &Pointer, value: &Value) -> Result<(), Fault> {
    if path.0.is_empty() {
        return editor.set_root(value);
    }
    let (id, prop, found) = slot(editor, path)?;
    editor.assign(&id, prop, Some(found), value)
}

fn relocate(editor: &mut Editor<'_, '_>, from: &Pointer, path: &Pointer) -> Result<(), Fault> {
    if from.holds(path) {
        return Err(at(from, EditReason::Invalid("a value cannot be moved into itself".to_owned())).into());
    }
    let (id, prop, found) = slot(editor, from)?;
    if from == path {
        return Ok(());
    }
    let value = editor.copy(&found)?;
    check_depth(path, &value)?;
    editor.delete(&id, prop)?;
    add(editor, path, &value)
}

fn splice(
    editor: &mut Editor<'_, '_>,
    path: &Pointer,
    index: usize,
    delete: usize,
    insert: &Insert,
) -> Result<(), Fault> {
    match (find(editor, path)?, insert) {
        (Found::Object(ObjType::Text, id), Insert::Nothing | Insert::Text(_)) => {
            check_range(path, index, delete, editor.text_len(&id), "code points")?;
            let text = if let Insert::Text(text) = insert { text } else { "" };
            editor.splice_text(&id, index, delete, text)
        }
        (Found::Object(ObjType::List, id), Insert::Nothing | Insert::Items(_)) => {
            check_range(path, index, delete, editor.list_len(&id), "elements")?;
            let items: &[Value] = if let Insert::Items(items) = insert { items } else { &[] };
            if let Some(item) = items.iter().max_by_key(|item| item.depth())
                && path.0.len() + 1 + item.depth() > JSON_DEPTH_MAX
            {
                return Err(too_deep(path).into());
            }
            editor.splice_list(&id, index, delete, &items.iter().collect::<Vec<_>>())
        }
        (Found::Object(ObjType::Text, _), _) => {
            Err(at(path, EditReason::WrongType("this is a text, and an array cannot be put into it")).into())
        }
        (Found::Object(ObjType::List, _), _) => {
            Err(at(path, EditReason::WrongType("this is a list: what is put into it comes as an array"))
                .into())
        }
        _ => Err(at(path, EditReason::WrongType("splice edits texts and lists, and this is neither")).into()),
    }
}

fn check_range(path: &Pointer, index: usize, count: usize, len: usize, what: &str) -> Result<(), EditError> {
    if index.checked_add(count).is_some_and(|end| end <= len) {
        return Ok(());
    }
    let range = if count == 0 { format!("{index}") } else { format!("{index} and {count} more") };
    Err(at(path, EditReason::OutOfBounds(format!("{range} is beyond the end: there are {len} {what}"))))
}

fn increment(editor: &mut Editor<'_, '_>, path: &Pointer, by: i64) -> Result<(), Fault> {
    let (id, prop, found) = slot(editor, path)?;
    let Found::Scalar(ScalarValue::Counter(counter)) = found else {
        return Err(at(path, EditReason::WrongType("only a counter can be incremented")).into());
    };
    if i64::from(&counter).checked_add(by).is_none() {
        return Err(at(path, EditReason::OutOfBounds("the counter would get too large".to_owned())).into());
    }
    editor.increment(&id, prop, by)
}
