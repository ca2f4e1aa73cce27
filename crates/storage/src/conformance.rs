//! What every store must do, as one suite that any store can run, also those outside of this crate.
//!
//! ```
//! use std::sync::Arc;
//! use highwater_storage::{MemoryStore, Store, conformance};
//!
//! let first = MemoryStore::new();
//! let open = || -> Arc<dyn Store> { Arc::new(first.reopen()) };
//! futures::executor::block_on(conformance::run(open));
//! ```
//!
//! Whether a store outlives a power cut cannot be tested from here; that it outlives being closed and opened again can.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use highwater_core::{ChangeHash, DocumentId, Record};

use crate::store::{Store, StoreError, StoredDocument};

/// Runs the whole suite. `open` opens one and the same place each time, which is empty at first; each case closes it before the
/// next one opens it.
///
/// # Panics
///
/// If the store does not do what it must. The message begins with the name of the case.
pub async fn run(open: impl Fn() -> Arc<dyn Store>) {
    identity_stays(&open).await;
    nothing_appended_is_none_and_no_error(&open).await;
    appends_are_there_after_reopening(&open).await;
    an_empty_append_creates_the_document(&open).await;
    one_document_keeps_the_order_of_the_calls(&open).await;
    a_reader_sees_whole_appends(&open).await;
    quarantined_changes_come_back(&open).await;
    large_and_empty_records_come_back(&open).await;
    many_documents_do_not_mix(&open).await;
    listing_goes_through_all_pages(&open).await;
    dropped_futures_do_their_work(&open).await;
    appends_are_on_their_way_before_they_are_polled(&open).await;
    probing_succeeds(&open).await;
    closing_waits_and_then_refuses(&open).await;
}

type Open<'a> = &'a dyn Fn() -> Arc<dyn Store>;

async fn identity_stays(open: Open<'_>) {
    let store = open();
    let first = store.identity();
    assert!(!first.peer_id.is_empty() && !first.storage_id.is_empty(), "identity_stays: it is empty");
    close("identity_stays", store).await;
    let store = open();
    assert_eq!(store.identity(), first, "identity_stays");
    close("identity_stays", store).await;
}

async fn nothing_appended_is_none_and_no_error(open: Open<'_>) {
    let name = "nothing_appended_is_none_and_no_error";
    let store = open();
    assert_eq!(load(name, &store, document(1, 0)).await, None, "{name}");
    close(name, store).await;
}

async fn appends_are_there_after_reopening(open: Open<'_>) {
    let name = "appends_are_there_after_reopening";
    let id = document(2, 0);
    for round in 0..3 {
        let store = open();
        append(name, &store, id, vec![change(round), change(round)]).await;
        let seen = numbers(name, &store, id).await;
        assert_eq!(seen.len() as u64, 2 * (round + 1), "{name}: fresh");
        close(name, store).await;
    }
    let store = open();
    assert_eq!(numbers(name, &store, id).await, [0, 0, 1, 1, 2, 2], "{name}");
    close(name, store).await;
}

async fn an_empty_append_creates_the_document(open: Open<'_>) {
    let name = "an_empty_append_creates_the_document";
    let store = open();
    append(name, &store, document(3, 0), Vec::new()).await;
    close(name, store).await;
    let store = open();
    assert_eq!(load(name, &store, document(3, 0)).await, Some(StoredDocument::default()), "{name}");
    close(name, store).await;
}

async fn one_document_keeps_the_order_of_the_calls(open: Open<'_>) {
    let name = "one_document_keeps_the_order_of_the_calls";
    let store = open();
    let id = document(4, 0);
    let mut waiting: Vec<_> = (0..2_000).map(|number| store.append(id, vec![change(number)])).collect();
    // The order of the calls counts, not that of the polls.
    waiting.reverse();
    expect(name, try_join_all(waiting).await);
    let wanted: Vec<u64> = (0..2_000).collect();
    assert!(numbers(name, &store, id).await == wanted, "{name}");
    close(name, store).await;
    let store = open();
    assert!(numbers(name, &store, id).await == wanted, "{name}: after reopening");
    close(name, store).await;
}

async fn a_reader_sees_whole_appends(open: Open<'_>) {
    let name = "a_reader_sees_whole_appends";
    let store = open();
    let id = document(5, 0);
    let mut appends = Vec::new();
    let mut loads = Vec::new();
    for number in 0..100 {
        appends.push(store.append(id, (0..7).map(|_| change(number)).collect()));
        loads.push(store.load(id));
    }
    let (appended, loaded) = futures::join!(try_join_all(appends), try_join_all(loads));
    expect(name, appended);
    for stored in expect(name, loaded).into_iter().flatten() {
        assert_eq!(stored.changes.len() % 7, 0, "{name}: a part of an append was seen");
    }
    close(name, store).await;
}

async fn quarantined_changes_come_back(open: Open<'_>) {
    let name = "quarantined_changes_come_back";
    let id = document(6, 0);
    let hash = ChangeHash([9; 32]);
    let bytes = Bytes::from_static(b"poison");
    let record = Record::Quarantine {
        hash,
        reason: "no such list: \0 ä".into(),
        peer: "peer".into(),
        bytes: bytes.clone(),
    };
    let store = open();
    append(name, &store, id, vec![change(1), record, change(2)]).await;
    let before = load(name, &store, id).await;
    close(name, store).await;
    let store = open();
    let stored = load(name, &store, id).await.unwrap_or_default();
    assert_eq!(Some(&stored), before.as_ref(), "{name}: not even the time changes");
    assert_eq!(stored.changes.len(), 2, "{name}");
    let [kept] = &stored.quarantined[..] else { panic!("{name}: {} changes", stored.quarantined.len()) };
    assert_eq!((kept.hash, &kept.bytes), (hash, &bytes), "{name}");
    assert_eq!((kept.reason.as_str(), kept.peer.as_str()), ("no such list: \0 ä", "peer"), "{name}");
    close(name, store).await;
}

async fn large_and_empty_records_come_back(open: Open<'_>) {
    let name = "large_and_empty_records_come_back";
    let id = document(7, 0);
    let large: Bytes = (0..5u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let chunks = [large.clone(), Bytes::new(), large];
    let records = chunks.iter().map(|bytes| Record::Change { bytes: bytes.clone() }).collect();
    let store = open();
    append(name, &store, id, records).await;
    close(name, store).await;
    let store = open();
    assert!(load(name, &store, id).await.unwrap_or_default().changes == chunks, "{name}");
    close(name, store).await;
}

async fn many_documents_do_not_mix(open: Open<'_>) {
    let name = "many_documents_do_not_mix";
    let store = open();
    let rounds = (0..5).flat_map(|round| (0..1_000).map(move |number| (round, number)));
    let appends =
        rounds.map(|(round, number)| store.append(document(8, number), vec![change(number + round)]));
    expect(name, try_join_all(appends.collect::<Vec<_>>()).await);
    close(name, store).await;
    let store = open();
    for number in 0..1_000 {
        let seen = numbers(name, &store, document(8, number)).await;
        assert!(seen == (number..number + 5).collect::<Vec<_>>(), "{name}: document {number} has {seen:?}");
    }
    close(name, store).await;
}

async fn listing_goes_through_all_pages(open: Open<'_>) {
    let name = "listing_goes_through_all_pages";
    let store = open();
    let wanted: BTreeSet<DocumentId> = (0..25).map(|number| document(9, number)).collect();
    for id in wanted.iter().rev() {
        append(name, &store, *id, vec![change(0)]).await;
    }
    let all = expect(name, store.list(None, usize::MAX).await);
    assert!(all.is_sorted() && wanted.iter().all(|id| all.contains(id)), "{name}: {all:?}");
    let mut paged: Vec<DocumentId> = Vec::new();
    loop {
        let page = expect(name, store.list(paged.last().copied(), 10).await);
        assert!(page.len() <= 10, "{name}: a page of {}", page.len());
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all, "{name}");
    // What `after` names need not exist.
    let next = expect(name, store.list(Some(document(9, 24 << 8 | 1)), 1).await);
    assert_eq!(next.first(), all.iter().find(|id| **id > document(9, 24 << 8 | 1)), "{name}");
    assert_eq!(expect(name, store.list(None, 0).await), [], "{name}");
    close(name, store).await;
}

async fn dropped_futures_do_their_work(open: Open<'_>) {
    let name = "dropped_futures_do_their_work";
    let store = open();
    for number in 0..10 {
        drop(store.append(document(10, 0), vec![change(number)]));
        let mut polled = store.append(document(10, 1), vec![change(number)]);
        let _ = (&mut polled).now_or_never();
        drop(polled);
    }
    close(name, store).await;
    let store = open();
    for number in 0..2 {
        let seen = numbers(name, &store, document(10, number)).await;
        assert_eq!(seen, (0..10).collect::<Vec<_>>(), "{name}");
    }
    close(name, store).await;
}

async fn appends_are_on_their_way_before_they_are_polled(open: Open<'_>) {
    let name = "appends_are_on_their_way_before_they_are_polled";
    let store = open();
    let id = document(11, 0);
    let unpolled = store.append(id, vec![change(1)]);
    append(name, &store, id, vec![change(2)]).await;
    assert_eq!(numbers(name, &store, id).await, [1, 2], "{name}");
    expect(name, unpolled.await);
    close(name, store).await;
}

async fn probing_succeeds(open: Open<'_>) {
    let store = open();
    for _ in 0..3 {
        expect("probing_succeeds", store.probe().await);
    }
    close("probing_succeeds", store).await;
}

async fn closing_waits_and_then_refuses(open: Open<'_>) {
    let name = "closing_waits_and_then_refuses";
    let store = open();
    let id = document(12, 0);
    let waiting: Vec<_> = (0..100).map(|number| store.append(id, vec![change(number)])).collect();
    expect(name, store.close().await);
    for appended in join_all(waiting).await {
        expect(name, appended);
    }
    assert_closed(name, store.append(id, vec![change(0)]).await);
    assert_closed(name, store.load(id).await);
    assert_closed(name, store.list(None, 1).await);
    assert_closed(name, store.probe().await);
    assert_closed(name, store.close().await);
    let store = open();
    assert_eq!(numbers(name, &store, id).await.len(), 100, "{name}");
    close(name, store).await;
}

/// A document of one case: no two cases share one.
fn document(case: u8, number: u64) -> DocumentId {
    let mut bytes = [case; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    DocumentId::from_bytes(bytes)
}

fn change(number: u64) -> Record {
    Record::Change { bytes: Bytes::copy_from_slice(&number.to_be_bytes()) }
}

async fn append(name: &str, store: &Arc<dyn Store>, document: DocumentId, records: Vec<Record>) {
    expect(name, store.append(document, records).await);
}

async fn load(name: &str, store: &Arc<dyn Store>, document: DocumentId) -> Option<StoredDocument> {
    expect(name, store.load(document).await)
}

/// The numbers of the changes that a document was made of with [`change`].
async fn numbers(name: &str, store: &Arc<dyn Store>, document: DocumentId) -> Vec<u64> {
    let stored = load(name, store, document).await.unwrap_or_default();
    let number = |bytes: &Bytes| u64::from_be_bytes(bytes[..].try_into().expect("eight bytes, as appended"));
    stored.changes.iter().map(number).collect()
}

async fn close(name: &str, store: Arc<dyn Store>) {
    expect(name, store.close().await);
}

fn expect<T>(name: &str, result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn assert_closed<T>(name: &str, result: Result<T, StoreError>) {
    let error = result.err();
    assert!(matches!(error, Some(StoreError::Closed)), "{name}: {error:?} instead of Closed");
}
