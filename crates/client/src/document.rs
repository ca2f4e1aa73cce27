//! A document that is kept in step with the server.

use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transaction};
use automerge::{Automerge, AutomergeError};
use highwater_core::{ChangeHash, DocumentId};
use tokio::sync::{oneshot, watch};

use crate::client::Inner;
use crate::driver::unix_millis;
use crate::engine::{Ended, Entry, Question};
use crate::error::{AskError, ChangeError, ReadError, UnsavedChanges, UnsavedReason};
use crate::limits::{QUESTIONS_MAX, UNSAVED_BYTES_MAX};
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
        let mut replica = self.handle.entry.lock();
        let (result, hash, effects) = replica.change(now, options, edit)?;
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

    /// Follows the document: its heads, whenever they are others, by changes of this program or of others.
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
        let hashes = {
            let replica = self.handle.entry.lock();
            replica.unsaved().hashes
        };
        self.wait_for(timeout, |document| document.handle.entry.lock().open(&hashes).is_empty(), &hashes)
            .await
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
            if registry.questions.len() + registry.asked.len() >= QUESTIONS_MAX {
                return Err(AskError::TooMany);
            }
            let (answer, answered) = oneshot::channel();
            registry.questions.push_back(Question { document: self.id(), hash, answer });
            answered
        };
        shared.driver.notify_one();
        answered.await.map_err(|_| AskError::NotConnected)
    }

    /// Waits until all of the document's changes are durable on the server, at most so long, and lets go of it. Then no handle on it is good any more;
    /// if it fails, all are.
    pub async fn close(&self, timeout: Duration) -> Result<(), UnsavedChanges> {
        let close = |document: &Self| document.handle.inner.shared.close_document(&document.handle.entry);
        self.wait_for(timeout, close, &[]).await
    }

    /// Waits for something that comes when these changes are durable, or all if none are named.
    async fn wait_for(
        &self,
        timeout: Duration,
        is_done: impl Fn(&Self) -> bool,
        hashes: &[ChangeHash],
    ) -> Result<(), UnsavedChanges> {
        let shared = &self.handle.inner.shared;
        let look = || {
            if is_done(self) {
                return Some(Ok(()));
            }
            let is_hopeless = {
                let replica = self.handle.entry.lock();
                let open = if hashes.is_empty() { replica.pending() } else { replica.open(hashes) };
                replica.is_hopeless(&open)
            };
            match &shared.lock().ended {
                Ended::Stopped(stopped) => Some(Err(UnsavedReason::Stopped(stopped.clone()))),
                Ended::Closed => Some(Err(UnsavedReason::Closed)),
                Ended::No => is_hopeless.then_some(Err(UnsavedReason::Rejected)),
            }
        };
        let reason = match wait(shared, timeout, look).await {
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => reason,
            None => UnsavedReason::Timeout,
        };
        let unsaved = self.handle.entry.lock().unsaved();
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
    /// Waits until the heads are others than when this was last called, and returns them; nothing once the document or the client is closed. However much happened meanwhile, it is told as one.
    pub async fn changed(&mut self) -> Option<Vec<ChangeHash>> {
        let entry = self.document.entry().clone();
        let shared = self.document.handle.inner.shared.clone();
        let mut ended = std::pin::pin!(until(&shared, || entry.lock().read().is_err().then_some(())));
        tokio::select! {
            biased;
            changed = self.heads.changed() => changed.ok()?,
            () = &mut ended => return None,
        }
        Some(self.heads.borrow_and_update().clone())
    }
}
