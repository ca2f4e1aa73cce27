//! The desk of a document: where it is read and edited with its values.
//!
//! Those who read wait in one queue, of bounded length, and edits in another. What waits is done in one go, but only a few of the readers: the document's copy is caught up to what is
//! durable, those who only look do so, unless they are gone, then the edits are made one after the other, each a change of its own on top of the one before. Their changes go the
//! way of all changes, through the gate and to disk, in one append. Only when that is durable everybody is answered, also those who were told no because of an edit before theirs, and the copy
//! is put back. If anything goes wrong the copy is thrown away.

use std::collections::VecDeque;
use std::fmt;

use futures::future::{BoxFuture, pending};
use highwater_core::change::Change;
use highwater_core::document::AppendId;
use highwater_core::limits::UNPACK_INLINE_OPS_MAX;
use highwater_core::{ChangeHash, Edit, Materialised};
use tokio::sync::oneshot;
use tokio::task::JoinError;

use super::Task;
use crate::copies::Held;
use crate::http::Problem;
use crate::limits::{DESK_EDITS_MAX, DESK_LOOKS_AT_ONCE, DESK_LOOKS_MAX};
use crate::rooms::RoomTaken;

mod run;

use run::{Batch, Worker};
pub(crate) use run::{Key, Trouble};

/// Who refused changes are said to come from, if they were made here.
const MAKER: &str = "edit";

/// Somebody who reads a document.
pub(crate) trait Look: Send {
    /// Whether there is still somebody who waits for it.
    fn is_wanted(&self) -> bool;

    /// Looks at the document as it is now, or is told why that is not possible.
    fn look(self: Box<Self>, document: Result<&Materialised, &Trouble>);

    /// Hears that too many wait.
    fn turn_away(self: Box<Self>);
}

/// What waits at a desk.
pub(crate) enum Job {
    /// Looks at the document.
    Look(Box<dyn Look>),
    /// Changes it.
    Edit(Box<EditJob>),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Look(_) => "Look",
            Self::Edit(_) => "Edit",
        })
    }
}

/// A look whose answer somebody waits for.
pub(crate) struct Reading<T, F> {
    pub(crate) look: F,
    pub(crate) answer: oneshot::Sender<Result<T, Problem>>,
}

impl<T, F> Look for Reading<T, F>
where
    T: Send,
    F: FnOnce(&Materialised) -> Result<T, Problem> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn look(self: Box<Self>, document: Result<&Materialised, &Trouble>) {
        let seen = match document {
            Ok(document) if document.heads().is_empty() => Err(Problem::NoSuchDocument),
            Ok(document) => (self.look)(document),
            Err(trouble) => Err(trouble.problem()),
        };
        // Whoever asked may be gone.
        drop(self.answer.send(seen));
    }

    fn turn_away(self: Box<Self>) {
        drop(self.answer.send(Err(Problem::Busy)));
    }
}

/// An edit, with all that is asked of it.
pub(crate) struct EditJob {
    pub(crate) request: EditRequest,
    pub(crate) answer: oneshot::Sender<Result<Edited, Problem>>,
}

/// What is asked of an edit.
pub(crate) struct EditRequest {
    pub(crate) work: Work,
    /// What the change is about, for people.
    pub(crate) message: Option<String>,
    /// When it was made, in seconds since 1970; now, if nothing is said.
    pub(crate) time: Option<i64>,
    pub(crate) precondition: Precondition,
    /// A document that does not exist is made.
    pub(crate) creates: bool,
    /// Which request this is, so that it is done once however often it comes.
    pub(crate) key: Option<Key>,
    /// The document as it is after the edit is part of the answer.
    pub(crate) wants_value: bool,
    /// What it takes up of the memory for edits.
    pub(crate) _room: Option<RoomTaken>,
}

impl EditRequest {
    /// Whether what happens meanwhile may make false what it depends on.
    fn is_strict(&self) -> bool {
        let has_test = matches!(&self.work, Work::Edit(edit) if edit.has_test());
        has_test || self.precondition.is_strict()
    }

    /// An edit of a document that exists, of which nothing else is asked.
    pub(crate) fn new(work: Work) -> Self {
        Self {
            work,
            message: None,
            time: None,
            precondition: Precondition::None,
            creates: false,
            key: None,
            wants_value: false,
            _room: None,
        }
    }

    /// Makes a document that does not exist.
    pub(crate) fn create(work: Work) -> Self {
        Self { precondition: Precondition::Absent { is_create: true }, creates: true, ..Self::new(work) }
    }
}

/// What an edit does.
pub(crate) enum Work {
    /// Makes a change.
    Edit(Edit),
    /// Makes the first change of a document, which is empty.
    Nothing,
    /// Takes changes that were made elsewhere as a new document.
    Import(Vec<Change>),
    /// Deletes the document.
    Delete,
}

/// What must be so for an edit to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Nothing.
    None,
    /// The document exists.
    Exists,
    /// It does not exist. Then whoever wants to make it is told that it is there already, if `is_create`, or that a precondition failed.
    Absent { is_create: bool },
    /// One of these [tags](crate::http::etag) is that of its heads.
    Tags(Vec<String>),
    /// None of these tags is that of its heads, or it does not exist.
    NoneOf(Vec<String>),
}

impl Precondition {
    /// Whether anything that happens meanwhile makes it false.
    fn is_strict(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Tags(_) | Self::NoneOf(_))
    }
}

/// An edit that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The change; `None` if there was nothing to change.
    pub(crate) hash: Option<ChangeHash>,
    /// The heads of the document with the edit, as it was made.
    pub(crate) heads: Vec<ChangeHash>,
    /// The document is new.
    pub(crate) is_new: bool,
    /// The document as JSON, if that was asked for and can be had.
    pub(crate) value: Option<bytes::Bytes>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Desk {
    looks: VecDeque<Box<dyn Look>>,
    edits: VecDeque<EditJob>,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    #[default]
    Free,
    /// Jobs are being done.
    Working { done: BoxFuture<'static, Result<Batch, JoinError>>, started: Started },
    /// What is on its way to disk must have got there before it goes on.
    Waiting(AppendId),
    /// What was done is on its way to disk.
    Storing { mark: AppendId, answers: Vec<Answer>, held: Option<Held> },
}

/// How the document was when a batch was begun.
#[derive(Clone, Copy)]
struct Started {
    durable: usize,
}

type Answer = (oneshot::Sender<Result<Edited, Problem>>, Result<Edited, Problem>);

impl Desk {
    /// The batch that is being worked on, when it is done.
    pub(super) async fn worked(desk: &mut Option<Box<Self>>) -> Result<Batch, JoinError> {
        match desk.as_deref_mut().map(|desk| &mut desk.stage) {
            Some(Stage::Working { done, .. }) => done.await,
            _ => pending().await,
        }
    }

    /// One more reads, if not too many wait already.
    fn add_look(&mut self, look: Box<dyn Look>) {
        if self.looks.len() >= DESK_LOOKS_MAX {
            self.looks.retain(|look| look.is_wanted());
        }
        if self.looks.len() < DESK_LOOKS_MAX { self.looks.push_back(look) } else { look.turn_away() }
    }

    /// The jobs of the next batch. Changes from elsewhere are a batch of their own.
    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.looks.len() < DESK_LOOKS_AT_ONCE
            && let Some(look) = self.looks.pop_front()
        {
            if look.is_wanted() {
                batch.looks.push(look);
            }
        }
        let is_import = |edit: &EditJob| matches!(edit.request.work, Work::Import(_));
        while batch.edits.len() < DESK_EDITS_MAX {
            let is_alone = batch.edits.iter().any(is_import);
            let fits = |edit: &mut EditJob| !is_alone && (batch.edits.is_empty() || !is_import(edit));
            match self.edits.pop_front_if(fits) {
                Some(edit) => batch.edits.push(edit),
                None => break,
            }
        }
        batch
    }

    /// These go first in the next batch, in this order.
    fn put_back(&mut self, edits: Vec<EditJob>) {
        for edit in edits.into_iter().rev() {
            self.edits.push_front(edit);
        }
    }
}

impl Task {
    /// A job came.
    pub(super) fn take_job(&mut self, job: Job) {
        let desk = self.desk.get_or_insert_default();
        match job {
            Job::Look(look) => desk.add_look(look),
            Job::Edit(edit) => desk.edits.push_back(*edit),
        }
    }

    /// Answers what is durable, and begins what waits.
    pub(super) fn tend_desk(&mut self) {
        let Some(desk) = self.desk.as_deref_mut() else { return };
        match &desk.stage {
            Stage::Free => {}
            Stage::Waiting(mark) | Stage::Storing { mark, .. } if self.document.has_reached(*mark) => {}
            _ => return,
        }
        if let Stage::Storing { answers, held, .. } = std::mem::take(&mut desk.stage) {
            answers.into_iter().for_each(tell);
            held.into_iter().for_each(Held::release);
        }
        let batch = desk.next_batch();
        if batch.is_empty() {
            // A document at which nobody works takes up nothing for it.
            self.desk = None;
            return;
        }
        let started = Started { durable: self.document.len() };
        let done = Box::pin(self.worker().work(batch));
        if let Some(desk) = &mut self.desk {
            desk.stage = Stage::Working { done, started };
        }
    }

    fn worker(&self) -> Worker {
        Worker {
            id: self.document.id(),
            store: self.store.clone(),
            copies: self.hub.copies().clone(),
            turns: self.hub.unpacking(),
            actor: self.hub.actor(self.document.id()),
            catch_up: self.catch_up(),
            is_deleted: self.document.is_deleted(),
            has_orphans: self.document.orphan_count() > 0,
        }
    }

    /// A batch was worked through: what was made is checked and goes to disk.
    pub(super) async fn batch_done(&mut self, batch: Result<Batch, JoinError>) -> Result<(), JoinError> {
        let Some(desk) = self.desk.as_deref_mut() else { return Ok(()) };
        let Stage::Working { started, .. } = std::mem::take(&mut desk.stage) else { return Ok(()) };
        // Whoever waits for jobs that are lost hears that they are.
        let Ok(mut batch) = batch else { return Ok(()) };
        if batch.has_kept_strict() && self.document.staged_len() != started.durable {
            // Somebody else's change comes before these, so what they ask for may not be so. Nothing of them was shown to anybody.
            let mark = self.document.append_mark();
            desk.put_back(batch.take_edits());
            desk.stage = Stage::Waiting(mark);
            return Ok(());
        }
        desk.put_back(std::mem::take(&mut batch.again));
        let refused = self.take_made(&mut batch).await?;
        let Some(desk) = self.desk.as_deref_mut() else { return Ok(()) };
        let Batch { mut done, mut held, .. } = batch;
        let mut answers = Vec::with_capacity(done.len());
        if let Some((place, _)) = refused.as_ref().filter(|_| self.document.is_ending()) {
            // It was deleted meanwhile, and they hear that when it is durable.
            held = None;
            let rest = done.split_off(*place);
            desk.put_back(rest.into_iter().map(|done| done.job).collect());
        } else if let Some((place, reason)) = refused {
            tracing::error!(document = %self.document.id(), %reason, "an edit that was made here was refused");
            // What comes after it was made on top of something that is not there.
            held = None;
            let mut rest = done.split_off(place).into_iter();
            answers.extend(rest.next().map(|refused| (refused.job.answer, Err(Problem::Internal(reason)))));
            desk.put_back(rest.map(|done| done.job).collect());
        }
        answers.extend(done.into_iter().map(|done| (done.job.answer, done.answer)));
        desk.stage = Stage::Storing { mark: self.document.append_mark(), answers, held };
        Ok(())
    }

    /// Hands what was made to the document. Returns which of the batch was refused, if one was, and why.
    async fn take_made(&mut self, batch: &mut Batch) -> Result<Option<(usize, String)>, JoinError> {
        let mut ends = Vec::with_capacity(batch.done.len());
        let mut made = Vec::new();
        for done in &mut batch.done {
            made.append(&mut done.made);
            ends.push(made.len());
        }
        if made.is_empty() {
            return Ok(None);
        }
        let ops: u64 =
            made.iter().filter_map(|made| made.change.as_ref()).map(|change| 1 + change.values).sum();
        let (all, is_little) = (made.len(), ops <= UNPACK_INLINE_OPS_MAX);
        let (taken, reason) = self.work(is_little, move |document| document.take_made(made, MAKER)).await?;
        self.must_be_whole = batch.done.iter().any(|done| matches!(done.job.request.work, Work::Import(_)));
        let reason = reason.unwrap_or_else(|| "it does not fit".to_owned());
        Ok((taken < all).then(|| (ends.partition_point(|end| *end <= taken), reason)))
    }
}

/// Whoever asked may be gone.
fn tell((to, answer): Answer) {
    let _ = to.send(answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answered = oneshot::Receiver<Result<usize, Problem>>;

    fn look(desk: &mut Desk, place: usize) -> Answered {
        let (answer, answered) = oneshot::channel();
        desk.add_look(Box::new(Reading { look: move |_: &Materialised| Ok(place), answer }));
        answered
    }

    #[test]
    fn those_who_read_are_bounded_and_those_who_are_gone_are_passed_over() {
        let mut desk = Desk::default();
        let mut waiting: Vec<Answered> = (0..DESK_LOOKS_MAX).map(|place| look(&mut desk, place)).collect();
        assert!(matches!(look(&mut desk, 0).try_recv(), Ok(Err(Problem::Busy))));
        // Whoever goes makes room, and is not looked for.
        waiting.drain(..10);
        waiting.push(look(&mut desk, 0));
        assert_eq!(desk.looks.len(), DESK_LOOKS_MAX - 9);
        waiting.drain(..3);
        let batch = desk.next_batch();
        assert_eq!(batch.looks.len(), DESK_LOOKS_AT_ONCE);
        assert_eq!(desk.looks.len(), waiting.len() - DESK_LOOKS_AT_ONCE);
    }

    #[test]
    fn an_edit_waits_for_few_who_read() {
        let mut desk = Desk::default();
        let _waiting: Vec<Answered> = (0..DESK_LOOKS_MAX).map(|place| look(&mut desk, place)).collect();
        let (answer, _answered) = oneshot::channel();
        desk.edits.push_back(EditJob { request: EditRequest::new(Work::Nothing), answer });
        let batch = desk.next_batch();
        assert_eq!((batch.looks.len(), batch.edits.len()), (DESK_LOOKS_AT_ONCE, 1));
    }
}
