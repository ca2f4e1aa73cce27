//! Where changes are kept on this device until the server has called them durable.

#[cfg(feature = "sqlite")]
mod sqlite;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_core::change::Change;
use highwater_core::{ChangeHash, DocumentId};

use crate::engine::{Ended, Owed, Shared, Writing};
use crate::error::OutboxError;
use crate::limits::{OUTBOX_LOAD_MAX, OUTBOX_RETRY_AFTER};

#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOutbox;

/// A change in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxChange {
    /// The document that it belongs to.
    pub document: DocumentId,
    /// Its hash.
    pub hash: ChangeHash,
    /// When it was made, in milliseconds since 1970.
    pub since_ms: u64,
    /// The change chunk.
    pub bytes: Bytes,
}

/// Things to do in an outbox, all of them or none. No change is in both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxBatch {
    /// To keep. A change that is there already stays as it is.
    pub put: Vec<OutboxChange>,
    /// To remove. What is not there does no harm.
    pub remove: Vec<(DocumentId, ChangeHash)>,
}

/// Where an outbox is kept. One client uses it at a time, and has one call under way at a time.
pub trait OutboxStore: Send + Sync + 'static {
    /// Everything that is kept, in the order in which it was put.
    fn load(&self) -> BoxFuture<'static, Result<Vec<OutboxChange>, OutboxError>>;
    /// Makes a batch durable on this device: it survives a power cut once this has resolved.
    fn write(&self, batch: OutboxBatch) -> BoxFuture<'static, Result<(), OutboxError>>;
}

/// Takes up what earlier sessions left: those documents are open from now on, and sent when there is a connection.
pub(crate) async fn recall(shared: &Shared, store: &dyn OutboxStore) -> Result<(), OutboxError> {
    let loaded = tokio::time::timeout(OUTBOX_LOAD_MAX, store.load()).await;
    let silent =
        |_| OutboxError::new("does not say what it holds", format!("no answer for {OUTBOX_LOAD_MAX:?}"));
    let mut changes = loaded.map_err(silent)??.into_iter().peekable();
    let mut documents: Vec<(DocumentId, Vec<Owed>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for change in &mut changes {
        let place = *places.entry(change.document).or_insert_with(|| {
            documents.push((change.document, Vec::new()));
            documents.len() - 1
        });
        let (document, hash) = (change.document, change.hash);
        let owed = read(change).map_err(|why| damaged(document, hash, why))?;
        documents[place].1.push(owed);
    }
    for (document, owed) in documents {
        let first = owed.first().map(|owed| owed.hash).unwrap_or(ChangeHash([0; 32]));
        let entry =
            shared.open_owing(document).map_err(|error| damaged(document, first, error.to_string()))?;
        let mut replica = entry.lock();
        replica.recall(owed).map_err(|why| damaged(document, first, why))?;
        shared.note(&entry, &replica, Default::default());
    }
    Ok(())
}

fn read(change: OutboxChange) -> Result<Owed, String> {
    let OutboxChange { hash, since_ms, bytes, .. } = change;
    let parsed = Change::parse(bytes.clone()).map_err(|error| error.to_string())?;
    if parsed.hash != hash {
        return Err("it has another hash than it was kept under".to_owned());
    }
    Ok(Owed { hash, deps: parsed.deps, bytes, since: since_ms, stored: true })
}

fn damaged(document: DocumentId, hash: ChangeHash, why: String) -> OutboxError {
    OutboxError::new(format!("holds change {hash} of document {document}, which cannot be taken up"), why)
}

/// Writes what is to be written, one batch after the other, each with all that came meanwhile, until the client is closed.
pub(crate) async fn run(shared: Arc<Shared>, store: Arc<dyn OutboxStore>) {
    loop {
        let (writing, is_over) = {
            let mut registry = shared.lock();
            (registry.wishes.take(), registry.ended == Ended::Closed)
        };
        if writing.is_empty() {
            shared.changed();
            if is_over {
                return;
            }
            shared.outbox.notified().await;
            continue;
        }
        match store.write(batch(&writing)).await {
            Ok(()) => shared.stored(&writing),
            Err(error) => {
                tracing::warn!(%error, "cannot write to the outbox, trying again");
                shared.lock().wishes.failed(writing);
                if is_over {
                    return;
                }
                tokio::time::sleep(OUTBOX_RETRY_AFTER).await;
            }
        }
    }
}

fn batch(writing: &Writing) -> OutboxBatch {
    let mut batch = OutboxBatch::default();
    for ((document, hash), wish) in writing {
        match wish {
            Some(put) => batch.put.push(OutboxChange {
                document: *document,
                hash: *hash,
                since_ms: put.since,
                bytes: put.bytes.clone(),
            }),
            None => batch.remove.push((*document, *hash)),
        }
    }
    batch
}
