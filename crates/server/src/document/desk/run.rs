//! Working through the jobs of a desk.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use highwater_core::change::Change;
use highwater_core::document::{Effect, Made};
use highwater_core::{ChangeHash, Document, DocumentId, Materialised, PeerId, Record, Stamp};
use highwater_storage::{Store, StoreError, StoredAnswer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::{EditJob, EditRequest, Edited, Look, MAKER, Precondition, Work};
use crate::copies::{CatchUp, Copies, Held};
use crate::envelope::hashes;
use crate::http::{Problem, etag};
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::open::{Unreadable, load_snapshot};

/// Which request an edit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// SHA-256 of the key that the client chose.
    pub(crate) key: [u8; 32],
    /// SHA-256 of all that the request asks for.
    pub(crate) request: [u8; 32],
}

impl Key {
    /// Of a key that the client chose, and of all that the request asks for. None of these runs into the next.
    pub(crate) fn new(key: &[u8], asked: &[&[u8]]) -> Result<Self, Problem> {
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let detail = format!("expected 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            return Err(Problem::Invalid { what: "Idempotency-Key", detail });
        }
        let mut request = Sha256::new();
        for part in asked {
            request.update((part.len() as u64).to_le_bytes());
            request.update(part);
        }
        Ok(Self { key: Sha256::digest(key).into(), request: request.finalize().into() })
    }
}

/// Why a document cannot be had with its values.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It was deleted.
    Deleted,
    /// What is stored cannot be read, or `automerge` cannot make a document of it.
    Unreadable(Unreadable),
}

impl Trouble {
    pub(crate) fn problem(&self) -> Problem {
        match self {
            Self::Deleted => Problem::Deleted,
            Self::Unreadable(unreadable) => unreadable.clone().into(),
        }
    }
}

/// Jobs that are done in one go.
#[derive(Default)]
pub(in crate::document) struct Batch {
    pub(super) looks: Vec<Box<dyn Look>>,
    /// To be done.
    pub(super) edits: Vec<EditJob>,
    /// Done, in order.
    pub(super) done: Vec<Done>,
    /// To be done again, from a copy that is made anew.
    pub(super) again: Vec<EditJob>,
    /// The copy with all that was made.
    pub(super) held: Option<Held>,
}

/// An edit that was made, or refused.
pub(super) struct Done {
    pub(super) job: EditJob,
    pub(super) answer: Result<Edited, Problem>,
    pub(super) made: Vec<Made>,
    /// It was made because of how the document was.
    is_strict: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.looks.is_empty() && self.edits.is_empty()
    }

    /// Whether an edit was made because of how the document was.
    pub(super) fn has_kept_strict(&self) -> bool {
        self.done.iter().any(|done| done.is_strict)
    }

    /// The edits as if nothing had been done, without the copy.
    pub(super) fn take_edits(self) -> Vec<EditJob> {
        self.done.into_iter().map(|done| done.job).chain(self.again).collect()
    }
}

/// What it takes to work through a batch.
pub(super) struct Worker {
    pub(super) id: DocumentId,
    pub(super) store: Arc<dyn Store>,
    pub(super) copies: Arc<Copies>,
    pub(super) turns: Arc<Semaphore>,
    /// Who makes the changes.
    pub(super) actor: [u8; 16],
    /// `None` if the document does not exist.
    pub(super) catch_up: Option<CatchUp>,
    pub(super) is_deleted: bool,
    pub(super) has_orphans: bool,
}

impl Worker {
    /// Does all jobs of a batch.
    pub(super) async fn work(self, batch: Batch) -> Result<Batch, JoinError> {
        let Self { id, store, copies, turns, actor, catch_up, is_deleted, has_orphans } = self;
        let mut told = Vec::with_capacity(batch.edits.len());
        for edit in &batch.edits {
            told.push(match edit.request.key {
                Some(key) => store.answer(id, key.key).await,
                None => Ok(None),
            });
        }
        // The semaphore is never closed; without a turn there would only be more at once.
        let _turn = turns.acquire_owned().await.ok();
        let catch_up = catch_up.unwrap_or_default();
        let chunk =
            if catch_up.needs_snapshot() { load_snapshot(&*store, id).await.map(Some) } else { Ok(None) };
        tokio::task::spawn_blocking(move || {
            let document = chunk.map_err(Trouble::Unreadable).and_then(|chunk| {
                let made = catch_up.materialise(chunk.as_ref());
                made.map_err(|reason| Trouble::Unreadable(Unreadable::Damaged(reason)))
            });
            let mut table = Table { id, actor, is_deleted, has_orphans, keys: HashMap::new() };
            match document {
                Ok(document) => table.work(document, batch, told, &copies),
                Err(trouble) => table.refuse(batch, &trouble),
            }
        })
        .await
    }
}

/// Where one batch is worked through.
struct Table {
    id: DocumentId,
    actor: [u8; 16],
    is_deleted: bool,
    /// Changes are stored that wait for others. A document that has nothing else can be deleted, too.
    has_orphans: bool,
    /// What was answered to requests with a key in this batch.
    keys: HashMap<[u8; 32], StoredAnswer>,
}

/// What became of an edit, and the document with it. Without a document the batch ends here.
type Outcome = (Option<Materialised>, Result<Edited, Problem>, Vec<Made>);

impl Table {
    /// The document cannot be had with its values. All that can be done with it is to delete it.
    fn refuse(&mut self, mut batch: Batch, trouble: &Trouble) -> Batch {
        batch.looks.drain(..).for_each(|look| look.look(Err(trouble)));
        let mut edits = std::mem::take(&mut batch.edits).into_iter();
        for job in edits.by_ref() {
            let request = &job.request;
            let is_damaged = matches!(trouble, Trouble::Unreadable(unreadable) if unreadable.is_damaged());
            let is_delete = matches!(request.work, Work::Delete) && !request.precondition.is_strict();
            let deleted = (is_damaged && is_delete).then(|| self.delete(Vec::new(), request));
            if let Some(Ok((edited, made))) = deleted {
                batch.done.push(Done { job, answer: Ok(edited), made, is_strict: false });
                break;
            }
            batch.done.push(Done { job, answer: Err(trouble.problem()), made: Vec::new(), is_strict: false });
        }
        batch.again.extend(edits);
        batch
    }

    /// Deletes a document with these heads.
    fn delete(
        &mut self,
        heads: Vec<ChangeHash>,
        request: &EditRequest,
    ) -> Result<(Edited, Vec<Made>), String> {
        let edited = Edited { hash: None, heads, is_new: false, value: None };
        let answer = request.key.map(|key| self.note(key, &edited)).transpose()?;
        let records = [Some(Record::Tombstone), answer].into_iter().flatten();
        Ok((edited, records.map(|record| Made { change: None, with: Some(record) }).collect()))
    }

    fn work(
        &mut self,
        document: Materialised,
        mut batch: Batch,
        told: Vec<Result<Option<StoredAnswer>, StoreError>>,
        copies: &Arc<Copies>,
    ) -> Batch {
        for look in batch.looks.drain(..) {
            // Those before it may have taken so long that nobody waits any more.
            if look.is_wanted() {
                look.look(if self.is_deleted { Err(&Trouble::Deleted) } else { Ok(&document) });
            }
        }
        let mut document = Some(document);
        let mut edits = std::mem::take(&mut batch.edits).into_iter().zip(told);
        while let Some(current) = document.take() {
            let Some((job, told)) = edits.next() else {
                document = Some(current);
                break;
            };
            match self.edit(current, &job.request, told) {
                Ok((with, answer, made)) => {
                    // What is only told again was made before, and so is what changes nothing.
                    let is_strict = answer.is_ok() && !made.is_empty() && job.request.is_strict();
                    batch.done.push(Done { job, answer, made, is_strict });
                    document = with;
                }
                Err(error) => {
                    // The document is gone, and with it all that was made before.
                    batch.again.extend(std::mem::take(&mut batch.done).into_iter().map(|done| done.job));
                    let answer = Err(Problem::Internal(error));
                    batch.done.push(Done { job, answer, made: Vec::new(), is_strict: false });
                }
            }
        }
        batch.again.extend(edits.map(|(job, _)| job));
        batch.held = document.map(|document| copies.hold(self.id, document));
        batch
    }

    /// Makes one edit. On an error nobody knows what the document is.
    fn edit(
        &mut self,
        document: Materialised,
        request: &EditRequest,
        told: Result<Option<StoredAnswer>, StoreError>,
    ) -> Result<Outcome, String> {
        let told = match told {
            Ok(told) => told,
            Err(error) => return Ok((Some(document), Err(error.into()), Vec::new())),
        };
        let told = request.key.and_then(|key| self.keys.get(&key.key).cloned().or(told));
        if let Some((key, told)) = request.key.zip(told) {
            let answer = repeat(&document, &told, key, request.wants_value);
            return Ok((Some(document), answer, Vec::new()));
        }
        if self.is_deleted {
            return Ok((Some(document), Err(Problem::Deleted), Vec::new()));
        }
        let heads = document.heads();
        let is_there = !heads.is_empty() || self.has_orphans && matches!(request.work, Work::Delete);
        if let Err(problem) = check(is_there, &heads, request) {
            return Ok((Some(document), Err(problem), Vec::new()));
        }
        let is_new = heads.is_empty();
        if matches!(request.work, Work::Delete) {
            let (edited, made) = self.delete(heads, request)?;
            // Whatever comes after it finds no document.
            return Ok((None, Ok(edited), made));
        }
        let (document, made) = match &request.work {
            // The copy is without them, and nothing else is in this batch.
            Work::Import(changes) => (None, import(self.id, changes.clone())),
            work => self.make(document, work, is_new, request)?,
        };
        Ok(match made {
            Err(problem) => (document, Err(problem), Vec::new()),
            Ok(Changed { changes, hash, heads }) => {
                let value = document
                    .as_ref()
                    .filter(|_| request.wants_value)
                    .and_then(|document| as_json(document, None));
                let edited = Edited { hash, heads, is_new, value };
                let with = request.key.map(|key| self.note(key, &edited)).transpose()?;
                (document, Ok(edited), with_record(changes, with))
            }
        })
    }

    /// Makes a change. The first one of a document is made even if there is nothing in it.
    fn make(
        &self,
        document: Materialised,
        work: &Work,
        is_new: bool,
        request: &EditRequest,
    ) -> Result<(Option<Materialised>, Result<Changed, Problem>), String> {
        let time = request.time.unwrap_or_else(|| crate::now_ms() as i64 / 1_000);
        let stamp = Stamp { actor: self.actor, message: request.message.clone(), time };
        let (document, made) = match work {
            Work::Edit(edit) => match document.edit(edit, &stamp)? {
                (document, Err(error)) => return Ok((Some(document), Err(error.into()))),
                (document, Ok(made)) => (document, made),
            },
            Work::Nothing | Work::Import(_) | Work::Delete => (document, None),
        };
        let (document, made) = match made {
            None if is_new => {
                let (document, made) = document.edit_nothing(&stamp)?;
                (document, Some(made))
            }
            made => (document, made),
        };
        let hash = made.as_ref().map(|made| made.hash);
        let parse = |chunk: Bytes| Change::parse(chunk).map_err(|error| error.to_string());
        let changes = made.map(|made| parse(made.chunk)).transpose()?.into_iter().collect();
        let heads = document.heads();
        Ok((Some(document), Ok(Changed { changes, hash, heads })))
    }

    /// What is stored so that the same request is answered again and not done again.
    fn note(&mut self, key: Key, edited: &Edited) -> Result<Record, String> {
        let told = Told {
            hash: edited.hash.map(|hash| hash.to_string()),
            heads: hashes(&edited.heads),
            is_new: edited.is_new,
        };
        let answer = Bytes::from(serde_json::to_vec(&told).map_err(|error| error.to_string())?);
        let Key { key, request } = key;
        self.keys.insert(key, StoredAnswer { request, answer: answer.clone() });
        Ok(Record::Answer { key, request, answer })
    }
}

/// What an edit changes.
struct Changed {
    changes: Vec<Change>,
    hash: Option<ChangeHash>,
    heads: Vec<ChangeHash>,
}

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct Told {
    hash: Option<String>,
    heads: Vec<String>,
    is_new: bool,
}

/// The answer that was given before.
fn repeat(
    document: &Materialised,
    told: &StoredAnswer,
    key: Key,
    wants_value: bool,
) -> Result<Edited, Problem> {
    if told.request != key.request {
        return Err(Problem::KeyReused);
    }
    let unreadable = |error: serde_json::Error| Problem::Internal(format!("a stored answer: {error}"));
    let Told { hash, heads, is_new } = serde_json::from_slice(&told.answer).map_err(unreadable)?;
    let parse = |hash: &String| {
        hash.parse().map_err(|_| Problem::Internal("a stored answer names no change".to_owned()))
    };
    let hash = hash.as_ref().map(parse).transpose()?;
    let heads: Vec<ChangeHash> = heads.iter().map(parse).collect::<Result<_, _>>()?;
    let value = if wants_value { as_json(document, Some(&heads)) } else { None };
    Ok(Edited { hash, heads, is_new, value })
}

fn check(exists: bool, heads: &[ChangeHash], request: &EditRequest) -> Result<(), Problem> {
    if !exists && !request.creates {
        return Err(Problem::NoSuchDocument);
    }
    let failed = || Err(Problem::PreconditionFailed { heads: heads.to_vec() });
    match &request.precondition {
        Precondition::None => Ok(()),
        Precondition::Exists if exists => Ok(()),
        Precondition::Absent { .. } if !exists => Ok(()),
        Precondition::Tags(tags) if exists && tags.contains(&etag(heads)) => Ok(()),
        Precondition::Absent { is_create: true } => Err(Problem::Exists),
        Precondition::NoneOf(tags) if !exists || !tags.contains(&etag(heads)) => Ok(()),
        Precondition::Exists
        | Precondition::Absent { .. }
        | Precondition::Tags(_)
        | Precondition::NoneOf(_) => failed(),
    }
}

/// Checks changes from elsewhere on a document of their own: all of them are taken, or none.
fn import(id: DocumentId, changes: Vec<Change>) -> Result<Changed, Problem> {
    let sender = PeerId::new(MAKER).map_err(|error| Problem::Internal(error.to_string()))?;
    let mut scratch = Document::new(id);
    if let Some(rejection) = scratch.ingest(changes.clone(), &sender)?.pop() {
        return Err(Problem::Refused { hash: rejection.hash, reason: rejection.reason });
    }
    if scratch.orphan_count() > 0 {
        return Err(Problem::Incomplete);
    }
    while let Some(effect) = scratch.poll_effect() {
        if let Effect::Append { id, .. } = effect {
            scratch.handle_appended(id);
        }
    }
    Ok(Changed { changes, hash: None, heads: scratch.heads().to_vec() })
}

fn with_record(changes: Vec<Change>, with: Option<Record>) -> Vec<Made> {
    let mut made: Vec<Made> =
        changes.into_iter().map(|change| Made { change: Some(change), with: None }).collect();
    match made.last_mut() {
        Some(last) => last.with = with,
        None => made.extend(with.map(|with| Made { change: None, with: Some(with) })),
    }
    made
}

/// Not having it is no reason to say that the edit failed.
fn as_json(document: &Materialised, heads: Option<&[ChangeHash]>) -> Option<Bytes> {
    let value = document.to_json(heads).ok()?;
    serde_json::to_vec(&value).ok().map(Bytes::from)
}
