//! A document that is kept in step with the server.

use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{Automerge, AutomergeError, Change};
use highwater_core::{ChangeHash, DocumentId};
use tokio::sync::{oneshot, watch};

use crate::client::Inner;
use crate::driver::unix_millis;
use crate::engine::{Effects, Ended, Entry, Question, Replica, Wanted};
use crate::error::{AskError, ChangeError, ReadError, UnsavedChanges, UnsavedReason};
use crate::limits::{ANSWER_MAX, UNSAVED_BYTES_MAX};
use crate::status::SaveStatus;
use crate::wait::{until, wait};

/// A document that is kept in step with the server. Clones are handles on the same document.
///
/// What is passed to [`change`](Self::change) and [`read`](Self::read) must not use the same document: it is locked meanwhile.
///
/// A document of which all handles are dropped is let go of as soon as it owes the server nothing.
#[derive(Debug, Clone)]
pub struct Document {
    handle: Handle,
}

/// Counted, so that it is known when the application has none left.
#[derive(Debug)]
pub(crate) struct Handle {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
}

impl Handle {
    /// For an entry that was opened for it.
    pub(crate) fn new(inner: Arc<Inner>, entry: Arc<Entry>) -> Self {
        Self { inner, entry }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.inner.shared.retain(&self.entry);
        Self { inner: self.inner.clone(), entry: self.entry.clone() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.shared.release(&self.entry);
    }
}

impl Document {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.handle.entry
    }

    /// The document's id.
    pub fn id(&self) -> DocumentId {
        self.handle.entry.id
    }

    /// The document's url, as automerge-repo knows it: `automerge:` and the id.
    pub fn url(&self) -> String {
        format!("automerge:{}", self.id())
    }

    /// Changes the document in one change, with the present time. It is on its way, and in the outbox's queue, when this returns. Nothing if the edit did nothing.
    ///
    /// All or nothing: of an edit that fails or panics, nothing is left.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, AutomergeError>,
    ) -> Result<Option<ChangeHash>, ChangeError> {
        self.change_with(CommitOptions::default(), edit).map(|(hash, _)| hash)
    }

    /// As [`change`](Self::change), with a message or a time, an error of the application's own, and what the edit returns.
    pub fn change_with<T, E>(
        &self,
        mut options: CommitOptions,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(Option<ChangeHash>, T), ChangeError<E>> {
        let shared = &self.handle.inner.shared;
        if shared.lock().unsaved_bytes >= UNSAVED_BYTES_MAX {
            return Err(ChangeError::TooMuchUnsaved { max: UNSAVED_BYTES_MAX });
        }
        let now = unix_millis();
        if options.time.is_none() {
            options.set_time(i64::try_from(now / 1000).unwrap_or(i64::MAX));
        }
        let mut replica = shared.lock_to_change(&self.handle.entry);
        let changed = replica.change(now, options, edit);
        if let Err(ChangeError::TooLarge(_)) = changed {
            // The document was made anew without the change, and the conversation starts afresh.
            shared.note(&self.handle.entry, &replica, Effects { send: true, ..Effects::default() });
        }
        let (result, hash, effects) = changed?;
        shared.note(&self.handle.entry, &replica, effects);
        Ok((hash, result))
    }

    /// Looks at the document, which stays as it is meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Automerge) -> T) -> Result<T, ReadError> {
        let replica = self.handle.entry.lock();
        Ok(look(replica.read()?))
    }

    /// The document's heads: its newest changes, durable or not.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.handle.entry.lock().heads()
    }

    /// Takes the changes that the server has refused, and those that build on them, out of the document, of what is owed and of the outbox, and
    /// hands them back, in causal order. Of a [deleted](Self::is_deleted) document that is all that was not durable.
    ///
    /// The document is then as if they had not been made: with what the server has, others' changes, and own ones that it may still take. It can
    /// be changed again, and closed. Look at it before, if somebody should see what is lost.
    pub fn discard_rejected(&self) -> Result<Vec<Change>, ReadError> {
        let mut replica = self.handle.entry.lock();
        let (discarded, effects) = replica.discard_rejected()?;
        self.handle.inner.shared.note(&self.handle.entry, &replica, effects);
        Ok(discarded)
    }

    /// Whether the server says that somebody deleted the document. What is here can still be read, and not changed any more. What of it was not durable by then never will
    /// be: the errors of those who wait list it, and it is owed until it is [discarded](Self::discard_rejected).
    pub fn is_deleted(&self) -> bool {
        self.handle.entry.lock().is_deleted()
    }

    /// Follows the document: its heads, whenever they are others, by changes of this program or of others; and whether it is deleted.
    pub fn watch(&self) -> Watch {
        Watch { heads: self.handle.entry.heads.subscribe(), document: self.clone() }
    }

    /// Where the document's changes are.
    pub fn save_status(&self) -> SaveStatus {
        self.handle.inner.shared.lock().status(Some(self.id()))
    }

    /// Waits until the save status is another one, and returns it. What changes while nobody waits is told as one.
    pub async fn save_status_changed(&self, before: &SaveStatus) -> SaveStatus {
        until(&self.handle.inner.shared, || Some(self.save_status()).filter(|now| now != before)).await
    }

    /// Waits until all changes that the document has now are durable on the server, at most so long. Others who go on editing do not keep it waiting.
    pub async fn wait_durable(&self, timeout: Duration) -> Result<(), UnsavedChanges> {
        let tips = self.handle.entry.lock().tips();
        let is_done = |document: &Self| !document.handle.entry.lock().is_any_open(&tips);
        if !is_done(self) {
            self.handle.inner.shared.want(Wanted::Haste);
        }
        self.wait_for(timeout, is_done, Some(&tips)).await
    }

    /// Whether this change is durable on the server. Asks it, unless it is known here.
    pub async fn is_saved(&self, hash: ChangeHash) -> Result<bool, AskError> {
        if self.handle.entry.lock().knows_durable(&hash) {
            return Ok(true);
        }
        let shared = &self.handle.inner.shared;
        let answered = {
            let mut registry = shared.lock();
            if !registry.is_connected {
                return Err(AskError::NotConnected);
            }
            if !registry.can_ask {
                return Err(AskError::NotSupported);
            }
            let (answer, answered) = oneshot::channel();
            if !registry.ask(Question { document: self.id(), hash, answer }) {
                return Err(AskError::TooMany);
            }
            answered
        };
        shared.driver.notify_one();
        let answered = tokio::time::timeout(ANSWER_MAX, answered).await.map_err(|_| AskError::Timeout)?;
        answered.map_err(|_| AskError::NotConnected)
    }

    /// Waits until all of the document's changes are durable on the server, at most so long, and lets go of it. Then no handle on it is good any more;
    /// if it fails, all are.
    pub async fn close(&self, timeout: Duration) -> Result<(), UnsavedChanges> {
        self.handle.inner.shared.want(Wanted::Haste);
        let close = |document: &Self| document.handle.inner.shared.close_document(&document.handle.entry);
        self.wait_for(timeout, close, None).await
    }

    /// Waits for something that comes when these changes and all below them are durable; if none are named, all that there are by then.
    async fn wait_for(
        &self,
        timeout: Duration,
        is_done: impl Fn(&Self) -> bool,
        tips: Option<&[ChangeHash]>,
    ) -> Result<(), UnsavedChanges> {
        let shared = &self.handle.inner.shared;
        let look = || {
            if is_done(self) {
                return Some(Ok(()));
            }
            let (is_hopeless, is_deleted) = {
                let replica = self.handle.entry.lock();
                let is_hopeless = match tips {
                    Some(tips) => replica.is_hopeless(tips),
                    None => replica.is_hopeless(&replica.tips()),
                };
                (is_hopeless, replica.is_deleted())
            };
            match &shared.lock().ended {
                Ended::Stopped(stopped) => Some(Err(UnsavedReason::Stopped(stopped.clone()))),
                Ended::Closed => Some(Err(UnsavedReason::Closed)),
                Ended::No if is_deleted => Some(Err(UnsavedReason::Deleted)),
                Ended::No => is_hopeless.then_some(Err(UnsavedReason::Rejected)),
            }
        };
        let reason = match wait(shared, timeout, look).await {
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => reason,
            None => UnsavedReason::Timeout,
        };
        let replica = self.handle.entry.lock();
        let mut unsaved = replica.unsaved();
        // What was discarded meanwhile is not owed any more, and not saved either.
        unsaved.hashes.extend(replica.discarded_below(tips.unwrap_or_default()));
        Err(UnsavedChanges { reason, documents: vec![unsaved] })
    }
}

/// Follows a document's heads. Keeps the document open.
#[derive(Debug)]
pub struct Watch {
    heads: watch::Receiver<Vec<ChangeHash>>,
    document: Document,
}

impl Watch {
    /// Waits until the heads are others than when this was last called, and returns them. Nothing once the document or the client is closed, or the document
    /// [deleted](Document::is_deleted) on the server. However much happened meanwhile, it is told as one.
    pub async fn changed(&mut self) -> Option<Vec<ChangeHash>> {
        let entry = self.document.entry().clone();
        let shared = self.document.handle.inner.shared.clone();
        let is_over = |replica: &Replica| replica.is_deleted() || replica.read().is_err();
        let mut ended = std::pin::pin!(until(&shared, || is_over(&entry.lock()).then_some(())));
        tokio::select! {
            biased;
            changed = self.heads.changed() => changed.ok()?,
            () = &mut ended => return None,
        }
        Some(self.heads.borrow_and_update().clone())
    }
}
