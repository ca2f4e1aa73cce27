//! What can be read of a document: its values as JSON, now or at earlier heads, what differs between two states, and its changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use automerge::{ObjId, ObjType, Patch, PatchAction, Prop, ROOT, ReadDoc, ValueRef};
use bytes::Bytes;
use serde::Serialize;

use crate::edit::escape;
use crate::id::ChangeHash;
use crate::json::{Found, Reader, TooDeep, Value};
use crate::limits::{
    CHANGES_META_MAX, CONFLICTS_BYTES_MAX, JSON_DEPTH_MAX, PATCH_BYTES, PATCH_LEVEL_BYTES, PATCHES_BYTES_MAX,
};
use crate::materialised::{Materialised, guarded};

/// Why something cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The document has no such change.
    #[error("the document has no change {0}")]
    UnknownHeads(ChangeHash),
    /// Lists and maps are nested deeper than what is given out as JSON. The document as a file has it all.
    #[error("the document is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// What is asked for repeats the paths of so many places that it may take up more than this. The document itself can be read.
    #[error("the answer may take up more than {max} bytes, since each place is told with its whole path")]
    TooLarge {
        /// In bytes.
        max: usize,
    },
    /// `automerge` fails.
    #[error("{0}")]
    Internal(String),
}

impl From<TooDeep> for ReadError {
    fn from(_: TooDeep) -> Self {
        Self::TooDeep
    }
}

/// One difference between two states of a document. Applied in order, they make the one of the other. An object that comes in is empty at first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum PatchJson {
    /// A key of a map, or a place of a list, holds this now.
    Put {
        /// A JSON Pointer to it.
        path: String,
        /// In the JSON form of documents.
        value: serde_json::Value,
        /// Whether something else was put there at the same time.
        #[serde(skip_serializing_if = "is_false")]
        conflict: bool,
    },
    /// Elements came into a list.
    Insert {
        /// A JSON Pointer to the first of them.
        path: String,
        /// In the JSON form of documents.
        values: Vec<serde_json::Value>,
    },
    /// Characters came into a text.
    Splice {
        /// A JSON Pointer to the first of them, counted in code points.
        path: String,
        /// The characters.
        value: String,
        /// The marks that they have, by name.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        marks: BTreeMap<String, serde_json::Value>,
    },
    /// A counter went on.
    Increment {
        /// A JSON Pointer to it.
        path: String,
        /// By how much.
        value: i64,
    },
    /// Something else was put there at the same time.
    Conflict {
        /// A JSON Pointer to it.
        path: String,
    },
    /// A key, elements or characters went.
    Delete {
        /// A JSON Pointer to it, or to the first of them.
        path: String,
        /// How many elements or code points, if it is not one.
        #[serde(skip_serializing_if = "is_one")]
        length: usize,
    },
    /// Marks of a text were set or removed.
    Mark {
        /// A JSON Pointer to the text.
        path: String,
        /// Which.
        marks: Vec<MarkJson>,
    },
}

/// A mark on a range of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarkJson {
    /// What it is called.
    pub name: String,
    /// In the JSON form of documents; null if the mark was removed.
    pub value: serde_json::Value,
    /// Its first code point.
    pub start: usize,
    /// The code point after its last.
    pub end: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_one(value: &usize) -> bool {
    *value == 1
}

/// What is known of a change beside its operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMeta {
    /// Its hash.
    pub hash: ChangeHash,
    /// The changes that it came directly after.
    pub deps: Vec<ChangeHash>,
    /// Who made it, in hexadecimal.
    pub actor: String,
    /// Which of the actor's changes it is, from 1.
    pub seq: u64,
    /// The counter of its first operation.
    pub start_op: u64,
    /// How many operations it has.
    pub ops: u64,
    /// When it was made, as its author says: seconds since 1970 from stock clients. 0 if the author did not say.
    pub time: i64,
    /// What it is about, if the author said.
    pub message: Option<String>,
    /// Its chunk, unpacked.
    pub chunk: Bytes,
}

impl Materialised {
    /// What the document holds, now or at earlier heads.
    pub fn to_json(&self, at: Option<&[ChangeHash]>) -> Result<serde_json::Value, ReadError> {
        self.read(at, |reader| Ok(reader.object(ObjType::Map, &ROOT, 0)?.into_json()))
    }

    /// All places that hold more than one value, by JSON Pointer, with the values by their operation's id.
    pub fn conflicts(&self, at: Option<&[ChangeHash]>) -> Result<serde_json::Value, ReadError> {
        self.read(at, |reader| {
            let mut conflicts =
                Conflicts { reader, path: Vec::new(), bytes: 0, found: serde_json::Map::new() };
            conflicts.collect(ObjType::Map, &ROOT)?;
            Ok(conflicts.found.into())
        })
    }

    fn read<T>(
        &self,
        at: Option<&[ChangeHash]>,
        look: impl FnOnce(&Reader<'_, automerge::Automerge>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        quietly(|| {
            let heads = at.map(|heads| self.known(heads)).transpose()?;
            look(&Reader::at(&self.document, heads.as_deref()))
        })
    }

    /// The heads as automerge takes them, if the document has these changes.
    fn known(&self, heads: &[ChangeHash]) -> Result<Vec<automerge::ChangeHash>, ReadError> {
        let heads: Vec<_> = heads.iter().map(|head| automerge::ChangeHash(head.0)).collect();
        match self.document.get_missing_deps(&heads).first() {
            Some(missing) => Err(ReadError::UnknownHeads(ChangeHash(missing.0))),
            None => Ok(heads),
        }
    }

    /// Saves the document as it was at these heads. For others than the heads that it has, takes as long as loading it.
    pub fn save_at(&self, heads: &[ChangeHash]) -> Result<Bytes, ReadError> {
        quietly(|| {
            let heads = self.known(heads)?;
            let now: HashSet<_> = self.document.get_heads().into_iter().collect();
            if now == heads.iter().copied().collect() {
                return Ok(self.document.save().into());
            }
            let then = self.document.fork_at(&heads).map_err(internal)?;
            Ok(then.save().into())
        })
    }

    /// What makes one state of the document of another. Takes time for all that the document holds.
    pub fn diff(&self, from: &[ChangeHash], to: &[ChangeHash]) -> Result<Vec<PatchJson>, ReadError> {
        quietly(|| {
            let (from, to) = (self.known(from)?, self.known(to)?);
            check_patches(&Reader::at(&self.document, Some(&from)), &Reader::at(&self.document, Some(&to)))?;
            Ok(self.document.diff(&from, &to).into_iter().filter_map(patch_json).collect())
        })
    }

    /// Of changes that are no ancestors of `since`, the metadata, each after those it depends on: so many, at most [`CHANGES_META_MAX`], that come after this one of
    /// them.
    pub fn changes_meta(
        &self,
        since: &[ChangeHash],
        limit: usize,
        after: Option<ChangeHash>,
    ) -> Result<Vec<ChangeMeta>, ReadError> {
        quietly(|| {
            let since = self.known(since)?;
            let all = self.document.get_changes_meta(&since);
            let start = match after {
                None => 0,
                Some(after) => place_of(after, &all)? + 1,
            };
            let page = all.into_iter().skip(start).take(limit.min(CHANGES_META_MAX));
            self.with_chunks(page.map(change_meta).collect())
        })
    }

    /// The metadata of so many changes, at most [`CHANGES_META_MAX`], the newest first and each before those it depends on: the last ones before this one of them.
    pub fn history(&self, limit: usize, before: Option<ChangeHash>) -> Result<Vec<ChangeMeta>, ReadError> {
        quietly(|| {
            let all = self.document.get_changes_meta(&[]);
            let end = match before {
                None => all.len(),
                Some(before) => place_of(before, &all)?,
            };
            let page = all.into_iter().take(end).rev().take(limit.min(CHANGES_META_MAX));
            self.with_chunks(page.map(change_meta).collect())
        })
    }

    fn with_chunks(&self, mut page: Vec<ChangeMeta>) -> Result<Vec<ChangeMeta>, ReadError> {
        let hashes: Vec<ChangeHash> = page.iter().map(|change| change.hash).collect();
        let mut chunks: HashMap<ChangeHash, Bytes> =
            self.changes(&hashes).map_err(ReadError::Internal)?.into_iter().collect();
        for change in &mut page {
            change.chunk = chunks.remove(&change.hash).unwrap_or_default();
        }
        Ok(page)
    }
}

/// Where a change stands among these.
fn place_of(change: ChangeHash, all: &[automerge::ChangeMetadata<'_>]) -> Result<usize, ReadError> {
    let place = all.iter().position(|other| other.hash.0 == change.0);
    place.ok_or(ReadError::UnknownHeads(change))
}

fn change_meta(change: automerge::ChangeMetadata<'_>) -> ChangeMeta {
    ChangeMeta {
        hash: ChangeHash(change.hash.0),
        deps: change.deps.iter().map(|dep| ChangeHash(dep.0)).collect(),
        actor: change.actor.to_hex_string(),
        seq: change.seq,
        start_op: change.start_op,
        ops: (change.max_op + 1).saturating_sub(change.start_op),
        time: change.timestamp,
        message: change.message.filter(|message| !message.is_empty()).map(|message| message.into_owned()),
        chunk: Bytes::new(),
    }
}

/// Runs `automerge`, whose panics become errors.
fn quietly<T>(work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    guarded(|| Ok(work())).map_err(ReadError::Internal)?
}

fn internal(error: automerge::AutomergeError) -> ReadError {
    ReadError::Internal(error.to_string())
}

/// The places that hold more than one value, as they are found. Those in values that do not count have no place.
struct Conflicts<'r, 'd, D> {
    reader: &'r Reader<'d, D>,
    /// To where it looks.
    path: Vec<String>,
    bytes: usize,
    found: serde_json::Map<String, serde_json::Value>,
}

impl<D: ReadDoc> Conflicts<'_, '_, D> {
    /// Finds those in an object and in all that it holds.
    fn collect(&mut self, kind: ObjType, id: &ObjId) -> Result<(), ReadError> {
        if self.path.len() >= JSON_DEPTH_MAX {
            return Err(ReadError::TooDeep);
        }
        for (prop, value, conflict) in places(self.reader, kind, id) {
            self.path.push(match &prop {
                Prop::Map(key) => escape(key),
                Prop::Seq(place) => place.to_string(),
            });
            if conflict {
                self.add(id, prop)?;
            }
            if let Found::Object(kind, inner) = value {
                self.collect(kind, &inner)?;
            }
            self.path.pop();
        }
        Ok(())
    }

    /// Adds a place of an object, with all its values.
    fn add(&mut self, id: &ObjId, prop: Prop) -> Result<(), ReadError> {
        let pointer = format!("/{}", self.path.join("/"));
        self.count(0, pointer.len())?;
        let mut values = serde_json::Map::new();
        for (value, id) in self.reader.all(id, prop) {
            let value = self.reader.value(&value, self.path.len())?;
            let (ops, bytes) = value.cost();
            self.count(ops, bytes)?;
            values.insert(id.to_string(), value.into_json());
        }
        self.found.insert(pointer, values.into());
        Ok(())
    }

    fn count(&mut self, values: usize, bytes: usize) -> Result<(), ReadError> {
        let bytes = values.saturating_mul(size_of::<Value>()).saturating_add(bytes);
        spend(&mut self.bytes, bytes, CONFLICTS_BYTES_MAX)
    }
}

/// Adds bytes to those of an answer, if it may have so many.
fn spend(spent: &mut usize, bytes: usize, max: usize) -> Result<(), ReadError> {
    *spent = spent.saturating_add(bytes);
    if *spent > max { Err(ReadError::TooLarge { max }) } else { Ok(()) }
}

/// The places of a map or list that hold an object, or more than one value, and whether they hold more than one.
fn places<'a, D: ReadDoc>(
    reader: &Reader<'a, D>,
    kind: ObjType,
    id: &ObjId,
) -> Box<dyn Iterator<Item = (Prop, Found, bool)> + 'a> {
    let matters =
        |(_, found, conflict): &(Prop, Found, bool)| *conflict || matches!(found, Found::Object(..));
    match kind {
        ObjType::Map | ObjType::Table => {
            let entries = reader.entries(id).map(|entry| {
                let id = entry.id();
                (Prop::Map(entry.key.into_owned()), Found::new(entry.value, || id), entry.conflict)
            });
            Box::new(entries.filter(matters))
        }
        ObjType::List => {
            let items = reader.items(id).map(|item| {
                let id = item.id();
                (Prop::Seq(item.index), Found::new(item.value, || id), item.conflict)
            });
            Box::new(items.filter(matters))
        }
        ObjType::Text => Box::new(std::iter::empty()),
    }
}

/// Whether the patches that make one state of the other can be made: each carries its whole path, however much of the document that repeats.
fn check_patches<D: ReadDoc>(from: &Reader<'_, D>, to: &Reader<'_, D>) -> Result<(), ReadError> {
    let mut before = HashMap::new();
    let mut weight = Weight::default();
    // A text comes and goes as a whole. Where it stays, what is new or gone lies between what is not.
    weight.add(from, |id, chars| {
        before.insert(id.clone(), chars);
        0
    })?;
    weight.add(to, |id, chars| before.get(id).map_or(0, |before| chars.min(*before)))
}

/// What patches take up if each place has one.
#[derive(Default)]
struct Weight {
    bytes: usize,
}

impl Weight {
    /// Adds all places of a document. Of a text, there are as many as it has marks, and what `pieces` says of one with so many code points.
    fn add<D: ReadDoc>(
        &mut self,
        reader: &Reader<'_, D>,
        mut pieces: impl FnMut(&ObjId, usize) -> usize,
    ) -> Result<(), ReadError> {
        let mut open = vec![(ObjType::Map, ROOT, 0, 0)];
        while let Some((kind, id, depth, path)) = open.pop() {
            if depth >= JSON_DEPTH_MAX {
                return Err(ReadError::TooDeep);
            }
            let mut inner = |kind, id, key: usize| {
                open.push((kind, id, depth + 1, path + key + PATCH_LEVEL_BYTES));
            };
            match kind {
                ObjType::Map | ObjType::Table => {
                    for entry in reader.entries(&id) {
                        self.place(1, path + entry.key.len())?;
                        if let ValueRef::Object(kind) = entry.value {
                            inner(kind, entry.id(), entry.key.len());
                        }
                    }
                }
                ObjType::Text => {
                    let text = reader.text(&id);
                    let runs = reader.marks(&id).saturating_mul(2).saturating_add(1);
                    self.place(runs.saturating_add(pieces(&id, text.chars().count())), path)?;
                    // An object in a text reads as this character.
                    if text.contains('\u{fffc}') {
                        self.items(reader, &id, path, inner)?;
                    }
                }
                ObjType::List => self.items(reader, &id, path, inner)?,
            }
        }
        Ok(())
    }

    fn items<D: ReadDoc>(
        &mut self,
        reader: &Reader<'_, D>,
        id: &ObjId,
        path: usize,
        mut inner: impl FnMut(ObjType, ObjId, usize),
    ) -> Result<(), ReadError> {
        for item in reader.items(id) {
            self.place(1, path)?;
            if let ValueRef::Object(kind) = item.value {
                inner(kind, item.id(), 0);
            }
        }
        Ok(())
    }

    /// Adds so many patches with a path of this size.
    fn place(&mut self, patches: usize, path: usize) -> Result<(), ReadError> {
        let bytes = patches.saturating_mul(path.saturating_add(PATCH_BYTES));
        spend(&mut self.bytes, bytes, PATCHES_BYTES_MAX)
    }
}

fn patch_json(patch: Patch) -> Option<PatchJson> {
    let mut at = String::new();
    for (_, prop) in &patch.path {
        at.push('/');
        at.push_str(&token(prop));
    }
    let below = |prop: &Prop| format!("{at}/{}", token(prop));
    Some(match patch.action {
        PatchAction::PutMap { key, value, conflict } => {
            PatchJson::Put { path: below(&Prop::Map(key)), value: value_json(&value.0), conflict }
        }
        PatchAction::PutSeq { index, value, conflict } => {
            PatchJson::Put { path: below(&Prop::Seq(index)), value: value_json(&value.0), conflict }
        }
        PatchAction::Insert { index, values } => PatchJson::Insert {
            path: below(&Prop::Seq(index)),
            values: values.iter().map(|(value, _, _)| value_json(value)).collect(),
        },
        PatchAction::SpliceText { index, value, marks } => {
            let mark = |(name, value): (&str, &automerge::ScalarValue)| {
                (name.to_owned(), Value::of_scalar(value).into_json())
            };
            PatchJson::Splice {
                path: below(&Prop::Seq(index)),
                value: value.make_string(),
                marks: marks.iter().flat_map(|marks| marks.iter().map(mark)).collect(),
            }
        }
        PatchAction::Increment { prop, value } => PatchJson::Increment { path: below(&prop), value },
        PatchAction::Conflict { prop } => PatchJson::Conflict { path: below(&prop) },
        PatchAction::DeleteMap { key } => PatchJson::Delete { path: below(&Prop::Map(key)), length: 1 },
        PatchAction::DeleteSeq { index, length } => {
            PatchJson::Delete { path: below(&Prop::Seq(index)), length }
        }
        PatchAction::Mark { marks } if marks.is_empty() => return None,
        PatchAction::Mark { marks } => PatchJson::Mark {
            path: at,
            marks: marks
                .into_iter()
                .map(|mark| MarkJson {
                    name: mark.name.to_string(),
                    value: Value::of_scalar(&mark.value).into_json(),
                    start: mark.start,
                    end: mark.end,
                })
                .collect(),
        },
    })
}

fn token(prop: &Prop) -> String {
    match prop {
        Prop::Map(key) => escape(key),
        Prop::Seq(place) => place.to_string(),
    }
}

/// A value of a patch; objects come empty.
fn value_json(value: &automerge::Value<'_>) -> serde_json::Value {
    match value {
        automerge::Value::Object(ObjType::Text) => "".into(),
        automerge::Value::Object(ObjType::List) => Vec::<serde_json::Value>::new().into(),
        automerge::Value::Object(_) => serde_json::Map::new().into(),
        automerge::Value::Scalar(scalar) => Value::of_scalar(scalar).into_json(),
    }
}
