//! Large uploads: a history of a hundred megabytes is taken apart, checked and stored without holding up other documents, and says in the log how far it is.

use std::iter::Peekable;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use highwater_core::change::{self, Change, ChunkError};
use highwater_core::{DocumentId, Record};
use highwater_storage::{Store, StoreError};
use tokio::sync::Semaphore;

use crate::limits::{APPEND_BYTES_MAX, APPEND_RECORDS_MAX, UPLOAD_BYTES_LOGGED};

/// Takes chunks apart on the blocking pool, when there is a turn.
pub(crate) async fn unpack(
    turns: Arc<Semaphore>,
    document: DocumentId,
    chunks: Vec<Bytes>,
) -> Result<Vec<Change>, ChunkError> {
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let is_logged = bytes >= UPLOAD_BYTES_LOGGED;
    if is_logged {
        tracing::info!(%document, bytes, "a large upload came in");
    }
    // The semaphore is never closed; without a turn there would only be more at once.
    let _turn = turns.acquire_owned().await.ok();
    let started = Instant::now();
    let unpacked = tokio::task::spawn_blocking(move || change::unpack(&chunks)).await;
    // The parsers' panics are caught; this one is ours, and the sender must hear of it.
    let unpacked = unpacked.unwrap_or_else(|error| Err(ChunkError::Malformed(error.to_string())));
    if is_logged {
        let changes = unpacked.as_ref().map_or(0, Vec::len);
        tracing::info!(%document, changes, took = ?started.elapsed(), "it is taken apart, and checked next");
    }
    unpacked
}

/// Whether records are so many that storing them would keep others waiting.
pub(crate) fn is_large(records: &[Record]) -> bool {
    records.len() > APPEND_RECORDS_MAX
        || records.iter().map(|record| record.len()).sum::<usize>() > APPEND_BYTES_MAX
}

/// Stores records in order, a part at a time, unless they are to be there all or not at all. What is stored of them when this fails, or the process ends, is whole changes with all that they depend on, and with the answers to those who asked for them.
pub(crate) async fn append_in_slices(
    store: Arc<dyn Store>,
    document: DocumentId,
    records: Vec<Record>,
    is_whole: bool,
) -> Result<(), StoreError> {
    let (all, started) = (records.len(), Instant::now());
    let is_logged = is_large(&records);
    let mut records = records.into_iter().peekable();
    let mut done = 0;
    while records.peek().is_some() {
        let slice = if is_whole { records.by_ref().collect() } else { slice(&mut records) };
        done += slice.len();
        store.append(document, slice).await?;
        tracing::debug!(%document, done, of = all, "storing a large upload");
    }
    if is_logged {
        tracing::info!(%document, changes = all, took = ?started.elapsed(), "a large upload is durable");
    }
    Ok(())
}

/// The next part. What was answered for a change is stored with it, or a request that is sent again after a crash would be carried out again.
fn slice(records: &mut Peekable<impl Iterator<Item = Record>>) -> Vec<Record> {
    let mut bytes = 0;
    let mut slice = Vec::new();
    while let Some(record) = records.next_if(|record| {
        let fits = slice.len() < APPEND_RECORDS_MAX && bytes + record.len() <= APPEND_BYTES_MAX;
        slice.is_empty() || fits || matches!(record, Record::Answer { .. })
    }) {
        bytes += record.len();
        slice.push(record);
    }
    slice
}

#[cfg(test)]
mod tests {
    use highwater_storage::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn records_are_stored_in_order_and_in_parts() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let id = DocumentId::from_bytes([1; 16]);
        let change = |n: usize| Bytes::from(n.to_le_bytes().to_vec());
        let mut wanted: Vec<Bytes> = (0..2 * APPEND_RECORDS_MAX + 1).map(change).collect();
        wanted.insert(3, Bytes::from(vec![0; APPEND_BYTES_MAX + 1]));
        let records: Vec<Record> =
            wanted.iter().map(|bytes| Record::Change { bytes: bytes.clone() }).collect();
        assert!(is_large(&records) && !is_large(&records[..3]) && is_large(&records[3..4]));
        append_in_slices(store.clone(), id, records, false).await.unwrap();
        assert_eq!(store.load(id).await.unwrap().unwrap().changes, wanted);
    }
    #[test]
    fn an_answer_is_stored_with_the_change_that_it_is_about() {
        let change = |len: usize| Record::Change { bytes: Bytes::from(vec![0; len]) };
        let answer = |n: u8| Record::Answer { key: [n; 32], request: [n; 32], answer: Bytes::new() };
        let records = vec![change(APPEND_BYTES_MAX), answer(1), change(1), answer(2)];
        let mut records = records.into_iter().peekable();
        assert_eq!(slice(&mut records), [change(APPEND_BYTES_MAX), answer(1)]);
        assert_eq!(slice(&mut records), [change(1), answer(2)]);
    }
}
