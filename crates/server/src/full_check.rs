//! The check for the very strict: besides what the core checks, every append is applied to a copy of the document that `automerge` holds, saved and loaded
//! again, before it is stored. It costs time and memory linear in the document, for every append.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::change::Change;
use highwater_core::{Document, Materialised, Record};
use highwater_storage::{Store, StoreError};

use crate::open::{Unreadable, blocking, load_snapshot};

/// The copy of one document.
pub(crate) struct FullCheck {
    copy: Arc<Mutex<Materialised>>,
    /// How many changes of the document were handed to the copy.
    checked: usize,
}

/// Why an append did not become durable.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Whether it is durable is not known.
    Store(StoreError),
    /// Nothing of it was stored but a change in quarantine, with which the document could not be loaded.
    Unfit(String),
}

impl FullCheck {
    /// A copy of a document that was opened.
    pub(crate) async fn open(document: &Document, store: &dyn Store) -> Result<Self, Unreadable> {
        let (covered, changes) = (document.covered(), document.staged_changes(0));
        let checked = covered + changes.len();
        let snapshot = if covered > 0 { Some(load_snapshot(store, document.id()).await?) } else { None };
        let copy = blocking(move || {
            let mut copy =
                snapshot.map_or_else(|| Ok(Materialised::default()), |chunk| Materialised::load(&chunk))?;
            let added = copy.add(&changes);
            added.map(|()| copy).map_err(|(place, reason)| {
                let place = covered + place;
                format!(
                    "change number {place} cannot be materialised: {reason}; see `highwater doctor --deep`"
                )
            })
        })
        .await?;
        Ok(Self { copy: Arc::new(Mutex::new(copy)), checked })
    }

    /// Appends records of the document to the store if the copy takes what they add. Appends are made one after the other: each future does nothing before it is
    /// polled, and must not be polled before the one before it resolved.
    pub(crate) fn append(
        &mut self,
        document: &Document,
        records: Vec<Record>,
        store: Arc<dyn Store>,
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let (id, copy) = (document.id(), self.copy.clone());
        let changes = document.staged_changes(self.checked);
        self.checked += changes.len();
        Box::pin(async move {
            let Some((bytes, reason)) = check(copy, changes).await else {
                return store.append(id, records).await.map_err(AppendError::Store);
            };
            let hash = Change::parse(bytes.clone()).map(|change| change.hash);
            let hash = hash.map_err(|error| AppendError::Unfit(error.to_string()))?;
            let peer = "the full check".to_owned();
            let refused = Record::Quarantine { hash, reason: reason.clone(), peer, bytes };
            store.append(id, vec![refused]).await.map_err(AppendError::Store)?;
            Err(AppendError::Unfit(format!("change {hash}: {reason}")))
        })
    }
}

/// Hands changes to the copy. Returns the one that it does not take, and why.
async fn check(copy: Arc<Mutex<Materialised>>, changes: Vec<Bytes>) -> Option<(Bytes, String)> {
    if changes.is_empty() {
        return None;
    }
    let work = move || {
        // The copy is replaced only by one that is whole, so a panic leaves it as it was.
        let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
        copy.add(&changes).err().map(|(place, reason)| (changes[place].clone(), reason))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(unfit) => unfit,
        // The runtime is going away, and so is everybody who could be told anything.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable;
    use automerge::{AutoCommit, ROOT};
    use highwater_core::DocumentId;
    use highwater_core::document::Restoring;
    use highwater_storage::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_materialised_goes_to_quarantine_and_nothing_else_is_stored() {
        let id = DocumentId::from_bytes([1; 16]);
        let mut stock = AutoCommit::new();
        let mut restoring = Restoring::new(id, []);
        let mut records = Vec::new();
        for n in 0..3 {
            stock.put(ROOT, "n", n).unwrap();
            stock.commit();
            let bytes = Bytes::copy_from_slice(stock.get_last_local_change().unwrap().raw_bytes());
            restoring.add(bytes.clone()).unwrap();
            records.push(Record::Change { bytes });
        }
        let document = restoring.finish();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());

        let mut full = FullCheck::open(&document, &*store).await.unwrap();
        full.append(&document, records.clone(), store.clone()).await.unwrap();
        assert_eq!(store.load(id).await.unwrap().unwrap().changes.len(), 3);

        // A copy that lacks the first change cannot take the others.
        let other: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut full = FullCheck { copy: Arc::default(), checked: 1 };
        let refused = full.append(&document, records, other.clone()).await;
        assert!(matches!(refused, Err(AppendError::Unfit(_))));
        let stored = other.load(id).await.unwrap().unwrap();
        assert!(stored.changes.is_empty());
        assert_eq!(stored.quarantined.len(), 1);
    }
}
