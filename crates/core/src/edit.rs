//! Edits from outside of Automerge, as JSON. Each becomes one change, as small as it can be found to be, so that what people do at the same time stays.

mod align;
mod diff;
mod merge;
mod patch;
mod pointer;
mod sketch;
#[cfg(test)]
mod tests;

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, AutomergeError, Change, ReadDoc};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::id::ChangeHash;
use crate::json::{Flaw, Value};
use crate::limits::{CHANGE_BYTES_MAX, CHANGE_MESSAGE_BYTES_MAX};
use crate::materialised::{Materialised, guarded};
use diff::Editor;
use pointer::Pointer;

pub(crate) use pointer::escape;

/// Operations that are undone one by one if an edit fails. That takes automerge some ten microseconds each, so more than this is tried on a copy.
const UNDO_OPS_MAX: usize = 2_000;
/// Bytes of such an edit: few enough that its change is none too large.
const UNDO_BYTES_MAX: usize = 1 << 20;

/// What is said of a change beside what it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Who makes it. No two may make changes of one document as the same actor at the same time.
    pub actor: [u8; 16],
    /// What it is about, for people.
    pub message: Option<String>,
    /// Seconds since 1970, as stock clients count.
    pub time: i64,
}

/// An edit of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    kind: Kind,
    digest: [u8; 32],
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Patch(Vec<patch::Operation>),
    Merge(merge::Merge),
    Set(Value),
}

impl Edit {
    /// Reads a JSON Patch (RFC 6902), which may have the operations `splice` and `increment` too.
    pub fn json_patch(body: &[u8]) -> Result<Self, EditError> {
        Ok(Self::new(b"patch", body, Kind::Patch(patch::parse(parse(body)?)?)))
    }

    /// Reads a JSON Merge Patch (RFC 7386).
    pub fn merge_patch(body: &[u8]) -> Result<Self, EditError> {
        Ok(Self::new(b"merge", body, Kind::Merge(merge::Merge::parse(parse(body)?)?)))
    }

    /// Reads what the whole document is to be.
    pub fn set(body: &[u8]) -> Result<Self, EditError> {
        let value = Value::parse(parse(body)?).map_err(|flaw| EditError::invalid(None, "", flaw))?;
        Ok(Self::new(b"set", body, Kind::Set(value)))
    }

    fn new(name: &[u8], body: &[u8], kind: Kind) -> Self {
        let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(body).finalize();
        Self { kind, digest: digest.into() }
    }

    /// Whether it is made only if something is there that it names: a JSON Patch with a `test`.
    pub fn has_test(&self) -> bool {
        matches!(&self.kind, Kind::Patch(operations) if operations.iter().any(patch::Operation::is_test))
    }

    /// SHA-256 of what it was read from: tells whether two requests ask for the same.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

fn parse(body: &[u8]) -> Result<serde_json::Value, EditError> {
    let invalid = |error: serde_json::Error| EditReason::Invalid(format!("the body is no JSON: {error}"));
    serde_json::from_slice(body).map_err(|error| EditError::whole(invalid(error)))
}

/// Why an edit cannot be made, and where. The document is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct EditError {
    /// Which operation of a JSON Patch, the first one being 0.
    pub operation: Option<usize>,
    /// A JSON Pointer into the document, or into the value that was sent if that is invalid.
    pub pointer: String,
    /// What is wrong.
    pub reason: EditReason,
}

/// What is wrong with an edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditReason {
    /// It cannot be read, whatever the document is.
    #[error("{0}")]
    Invalid(String),
    /// The document has no such place.
    #[error("there is nothing")]
    NoSuchPath,
    /// What a `test` expected is not there.
    #[error("the test fails")]
    TestFailed,
    /// What is there is not what the operation works on.
    #[error("{0}")]
    WrongType(&'static str),
    /// What is there is shorter, or a number would get too large.
    #[error("{0}")]
    OutOfBounds(String),
    /// A limit is hit.
    #[error("more than {max} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
}

impl EditError {
    fn whole(reason: EditReason) -> Self {
        Self { operation: None, pointer: String::new(), reason }
    }

    fn invalid(operation: Option<usize>, pointer: &str, flaw: Flaw) -> Self {
        let pointer = format!("{pointer}{}", Pointer(flaw.path));
        Self { operation, pointer, reason: EditReason::Invalid(format!("the value {}", flaw.detail)) }
    }

    fn text(&self) -> String {
        let operation = self.operation.map(|index| format!("operation {index}, ")).unwrap_or_default();
        format!("{operation}at \"{}\": {}", self.pointer, self.reason)
    }
}

/// Why an edit failed while it was made.
#[derive(Debug)]
enum Fault {
    Edit(EditError),
    /// It is too much to be undone.
    Large,
    /// Nobody knows what the document is now.
    Internal(String),
}

impl From<AutomergeError> for Fault {
    fn from(error: AutomergeError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

/// A change that an edit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeChange {
    /// Its hash.
    pub hash: ChangeHash,
    /// The change chunk.
    pub chunk: Bytes,
}

impl Materialised {
    /// Makes an edit: all of it as one change, or nothing if it is in vain. If it cannot be made, the document comes back as it was. After an internal error the
    /// document is gone.
    pub fn edit(
        mut self,
        edit: &Edit,
        stamp: &Stamp,
    ) -> Result<(Self, Result<Option<MadeChange>, EditError>), String> {
        guarded(move || {
            let made = self.make(edit, stamp);
            match made {
                Ok(made) => Ok((self, Ok(made))),
                Err(Fault::Edit(error)) => Ok((self, Err(error))),
                Err(Fault::Internal(error)) => Err(error),
                Err(Fault::Large) => Err("an edit on a copy is too large to be undone".to_owned()),
            }
        })
    }

    /// Makes a change without operations: the first one of a document that holds nothing. After an error the document is gone.
    pub fn edit_nothing(mut self, stamp: &Stamp) -> Result<(Self, MadeChange), String> {
        guarded(move || {
            self.document.set_actor(ActorId::from(stamp.actor));
            let hash = self.document.empty_commit(options(stamp));
            let made =
                self.document.get_change_by_hash(&hash).ok_or("the change that was made is not there")?;
            let chunk = Bytes::copy_from_slice(made.raw_bytes());
            self.unpacked_bytes += chunk.len();
            Ok((self, MadeChange { hash: ChangeHash(hash.0), chunk }))
        })
    }

    fn make(&mut self, edit: &Edit, stamp: &Stamp) -> Result<Option<MadeChange>, Fault> {
        if stamp.message.as_ref().is_some_and(|message| message.len() > CHANGE_MESSAGE_BYTES_MAX) {
            let reason = EditReason::TooLarge { what: "bytes of a message", max: CHANGE_MESSAGE_BYTES_MAX };
            return Err(EditError::whole(reason).into());
        }
        self.document.set_actor(ActorId::from(stamp.actor));
        let made = match attempt(&mut self.document, edit, stamp, true) {
            Err(Fault::Large) => {
                let mut copy = self.document.clone();
                let made = attempt(&mut copy, edit, stamp, false)?;
                self.document = copy;
                made
            }
            made => made?,
        };
        let Some(mut change) = made else {
            return Ok(None);
        };
        self.unpacked_bytes += change.raw_bytes().len();
        let hash = ChangeHash(change.hash().0);
        Ok(Some(MadeChange { hash, chunk: Bytes::copy_from_slice(&change.bytes()) }))
    }
}

fn options(stamp: &Stamp) -> CommitOptions {
    let options = CommitOptions::default().with_time(stamp.time);
    match &stamp.message {
        Some(message) => options.with_message(message),
        None => options,
    }
}

/// Makes an edit of a document. If that fails, it is undone on request; otherwise the document is not to be used any more.
fn attempt(
    document: &mut Automerge,
    edit: &Edit,
    stamp: &Stamp,
    can_undo: bool,
) -> Result<Option<Change>, Fault> {
    let mut transaction = document.transaction();
    let mut editor = Editor::new(&mut transaction, can_undo);
    let applied = match &edit.kind {
        Kind::Patch(operations) => patch::apply(&mut editor, operations),
        Kind::Merge(merge) => merge.apply(&mut editor),
        Kind::Set(value) => editor.set_root(value),
    };
    if applied.is_err() && can_undo {
        transaction.rollback();
        return applied.map(|()| None);
    }
    // A transaction that is dropped is undone, which takes longer.
    let (hash, _) = transaction.commit_with(options(stamp));
    applied?;
    let Some(hash) = hash else {
        return Ok(None);
    };
    let change = document.get_change_by_hash(&hash);
    let change = change.ok_or_else(|| Fault::Internal("the change that was made is not there".to_owned()))?;
    if change.raw_bytes().len() > CHANGE_BYTES_MAX {
        let reason = EditReason::TooLarge { what: "bytes of a change", max: CHANGE_BYTES_MAX };
        return Err(EditError::whole(reason).into());
    }
    Ok(Some(change))
}
