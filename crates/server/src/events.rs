//! Who is told that documents changed.
//!
//! Nothing is queued for anybody. Who follows one document is woken when its durable heads change, and finds those that there are by then. Who follows all of them reads the feed of the
//! store, which is in the order of the last changes, and remembers how far he is. So whoever is slow is told less often, and nobody misses anything.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use highwater_core::{ChangeHash, DocumentId, Materialised};
use highwater_storage::{DocumentEntry, StoreError};
use lru::LruCache;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};

use crate::document::Command;
use crate::http::Problem;
use crate::hub::{Hub, Phase, ask, draining};
use crate::limits::{DOCUMENT_STREAMS_MAX, EVENT_DIFFS_MAX, EVENT_PATCHES_BYTES_MAX, FEED_STREAMS_MAX};

/// How a document is, as far as it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Sorted; none if the document does not exist, or was deleted.
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) is_deleted: bool,
}

/// Everybody who follows documents.
pub(crate) struct Followers {
    /// How many documents are followed: mostly none.
    followed: AtomicUsize,
    documents: Mutex<HashMap<DocumentId, watch::Sender<Option<Told>>>>,
    /// Goes up whenever something of any document became durable.
    feed: watch::Sender<u64>,
    diffs: Mutex<LruCache<DocumentId, Arc<Diff>>>,
    /// Places for those who follow a document.
    pub(crate) document_places: Arc<Semaphore>,
    /// Places for those who follow the feed.
    pub(crate) feed_places: Arc<Semaphore>,
}

impl Followers {
    pub(crate) fn new() -> Self {
        Self {
            followed: AtomicUsize::new(0),
            documents: Mutex::default(),
            feed: watch::Sender::new(0),
            diffs: Mutex::new(LruCache::new(EVENT_DIFFS_MAX)),
            document_places: Arc::new(Semaphore::new(DOCUMENT_STREAMS_MAX)),
            feed_places: Arc::new(Semaphore::new(FEED_STREAMS_MAX)),
        }
    }

    /// What makes a document as it is now of what it was at some heads; nothing if that is not known, or too large. Whoever asks next for the same is told the same: all who follow a
    /// document are at the same heads as long as they keep up.
    pub(crate) fn diff(&self, id: DocumentId, document: &Materialised, from: &[ChangeHash]) -> Arc<Diff> {
        let to = document.heads();
        let made = self.diffs().get(&id).filter(|diff| diff.from == from && diff.to == to).cloned();
        made.unwrap_or_else(|| {
            let diff = Arc::new(Diff { patches: patches(document, from, &to), from: from.to_vec(), to });
            self.diffs().put(id, diff.clone());
            diff
        })
    }

    fn diffs(&self) -> MutexGuard<'_, LruCache<DocumentId, Arc<Diff>>> {
        self.diffs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of a document became durable.
    pub(crate) fn tell(&self, id: DocumentId, told: impl FnOnce() -> Told) {
        self.feed.send_modify(|count| *count = count.wrapping_add(1));
        if self.followed.load(Ordering::SeqCst) > 0
            && let Some(follower) = self.documents().get(&id)
        {
            let told = told();
            follower.send_if_modified(|before| {
                let is_new = before.as_ref() != Some(&told);
                *before = Some(told);
                is_new
            });
        }
    }

    /// Resolves when something of any document became durable since the last time.
    pub(crate) fn feed(&self) -> watch::Receiver<u64> {
        self.feed.subscribe()
    }

    /// Follows a document from now on. It need not be in memory.
    pub(crate) fn follow(self: &Arc<Self>, id: DocumentId) -> Following {
        let mut documents = self.documents();
        let changes = documents.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        self.followed.store(documents.len(), Ordering::SeqCst);
        drop(documents);
        Following { id, followers: self.clone(), changes }
    }

    fn documents(&self) -> MutexGuard<'_, HashMap<DocumentId, watch::Sender<Option<Told>>>> {
        // Nothing under this lock can panic half-way.
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What differs between two states of a document.
pub(crate) struct Diff {
    from: Vec<ChangeHash>,
    /// Sorted.
    pub(crate) to: Vec<ChangeHash>,
    /// As JSON.
    pub(crate) patches: Option<Box<RawValue>>,
}

fn patches(document: &Materialised, from: &[ChangeHash], to: &[ChangeHash]) -> Option<Box<RawValue>> {
    let patches = document.diff(from, to).ok()?;
    let text = serde_json::to_string(&patches).ok()?;
    if text.len() > EVENT_PATCHES_BYTES_MAX {
        return None;
    }
    RawValue::from_string(text).ok()
}

/// Somebody who follows a document.
pub(crate) struct Following {
    id: DocumentId,
    followers: Arc<Followers>,
    changes: watch::Receiver<Option<Told>>,
}

impl Following {
    /// How the document is when it has changed since the last time.
    pub(crate) async fn changed(&mut self) -> Option<Told> {
        // The sender is there as long as this is.
        self.changes.changed().await.ok()?;
        self.changes.borrow_and_update().clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut documents = self.followers.documents();
        // This one still counts.
        if documents.get(&self.id).is_some_and(|follower| follower.receiver_count() <= 1) {
            documents.remove(&self.id);
        }
        self.followers.followed.store(documents.len(), Ordering::SeqCst);
    }
}

/// What ends following: the server goes away, or its store failed. Whoever followed comes back, and goes on from where he was.
pub(crate) struct End {
    phase: watch::Receiver<Phase>,
    discarded: watch::Receiver<()>,
}

impl End {
    pub(crate) fn new(hub: &Hub) -> Self {
        Self { phase: hub.phase(), discarded: hub.discarded() }
    }

    /// What comes of it, unless following ends before.
    pub(crate) async fn or<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = draining(&mut self.phase) => None,
            _ = self.discarded.changed() => None,
            value = future => Some(value),
        }
    }
}

/// A document that changed.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub(crate) entry: DocumentEntry,
    /// Its durable heads: those of this change, or later ones. `None` if the document cannot be read.
    pub(crate) heads: Option<Vec<ChangeHash>>,
}

impl Hub {
    /// The durable heads of a document, with all that is on its way to disk now. A document that was opened for this is let go of again.
    pub(crate) async fn told(self: &Arc<Self>, id: DocumentId) -> Result<Told, Problem> {
        let was_open = self.handle_of(id).is_some();
        let handle = self.open(id);
        let told = ask(handle.clone(), Command::Heads).await;
        if !was_open {
            let _ = handle.send(Command::LetGo);
        }
        told
    }

    /// The documents that changed after a number, at most so many, in the order in which they last did. Each with all that had happened to it by then.
    pub(crate) async fn changed(
        self: &Arc<Self>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Changed>, StoreError> {
        let entries = self.store().changed(after, limit).await?;
        join_all(entries.into_iter().map(|entry| self.with_heads(entry))).await.into_iter().collect()
    }

    /// A document with its heads. They are asked for after the entry was seen: what it stands for was on its way to disk, or there, when the document is asked.
    pub(crate) async fn with_heads(self: &Arc<Self>, entry: DocumentEntry) -> Result<Changed, StoreError> {
        let heads =
            if entry.is_deleted { Some(Vec::new()) } else { self.told_or_unreadable(entry.id).await? };
        Ok(Changed { entry, heads })
    }

    /// The durable heads of a document; `None` if it cannot be read, and an error if nothing can.
    async fn told_or_unreadable(
        self: &Arc<Self>,
        id: DocumentId,
    ) -> Result<Option<Vec<ChangeHash>>, StoreError> {
        let store = self.store();
        for _ in 0..2 {
            if let Ok(told) = self.told(id).await {
                return Ok(Some(told.heads));
            }
            // It may be open again by now, but what there was to tell is not known.
            if *self.phase().borrow() != Phase::Serving || !Arc::ptr_eq(&store, &self.store()) {
                return Err(StoreError::Closed);
            }
            // The task may have ended for another reason; then a new one knows.
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_are_told_what_is_newest_and_forgotten_when_they_go() {
        let followers = Arc::new(Followers::new());
        let id = DocumentId::from_bytes([1; 16]);
        let told = |n| Told { heads: vec![ChangeHash([n; 32])], is_deleted: false };
        followers.tell(id, || unreachable!("nobody follows"));
        let mut first = followers.follow(id);
        let second = followers.follow(id);
        followers.tell(id, || told(1));
        followers.tell(id, || told(2));
        assert_eq!(first.changed().await, Some(told(2)));
        followers.tell(id, || told(2));
        followers.tell(DocumentId::from_bytes([2; 16]), || unreachable!("nobody follows that one"));
        drop(second);
        followers.tell(id, || told(3));
        assert_eq!(first.changed().await, Some(told(3)));
        drop(first);
        assert!(followers.documents().is_empty());
        followers.tell(id, || unreachable!("nobody follows any more"));
    }

    #[test]
    fn who_asks_for_the_same_difference_is_told_the_same() {
        let followers = Followers::new();
        let (id, document) = (DocumentId::from_bytes([1; 16]), Materialised::default());
        let first = followers.diff(id, &document, &[]);
        assert_eq!(first.patches.as_deref().map(RawValue::get), Some("[]"));
        assert!(Arc::ptr_eq(&first, &followers.diff(id, &document, &[])));
        let unknown = followers.diff(id, &document, &[ChangeHash([1; 32])]);
        assert!(unknown.patches.is_none());
    }
}
