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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join_all, try_join_all};
use highwater_core::{ChangeHash, DocumentId, Record, Snapshot, SnapshotIndex, SnapshotInfo};

use crate::store::{
    Deliveries, Delivery, DeliveryState, Found, ListDocuments, Note, Store, StoreError, StoredAnswer,
    StoredDocument,
};

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
    a_snapshot_stands_for_the_first_changes(&open).await;
    a_snapshot_that_does_not_fit_changes_nothing(&open).await;
    a_snapshot_comes_in_while_appends_go_on(&open).await;
    notes_count_until_something_is_added(&open).await;
    changes_are_found_without_reading_the_document(&open).await;
    answers_come_back(&open).await;
    what_is_deleted_stays_deleted(&open).await;
    a_snapshot_of_what_is_deleted_changes_nothing(&open).await;
    the_feed_is_in_the_order_of_last_changes(&open).await;
    whoever_follows_the_feed_misses_nothing(&open).await;
    documents_are_listed_within_ranges(&open).await;
    who_is_told_of_changes_goes_on_where_he_was(&open).await;
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

async fn a_snapshot_stands_for_the_first_changes(open: Open<'_>) {
    let name = "a_snapshot_stands_for_the_first_changes";
    let (id, other) = (document(13, 0), document(13, 1));
    let store = open();
    for at in [id, other] {
        append(name, &store, at, (0..10).map(change).collect()).await;
    }
    assert_eq!(expect(name, store.load_snapshot(id).await), None, "{name}");
    // Twice, the second with more, and with everything longer than a piece that any store may cut it into.
    for (records, size) in [(4, 1_000), (7, 5 << 20)] {
        let wanted = snapshot(records, size);
        expect(name, store.put_snapshot(id, wanted.clone()).await);
        let stored = load(name, &store, id).await.unwrap_or_default();
        assert_eq!(stored.snapshot.as_ref(), Some(&wanted.info), "{name}");
        assert_eq!(stored.records(), 10, "{name}");
        assert!(expect(name, store.load_snapshot(id).await) == Some(wanted.document), "{name}");
        assert_eq!(numbers(name, &store, id).await, (records..10).collect::<Vec<_>>(), "{name}");
    }
    append(name, &store, id, vec![change(10)]).await;
    close(name, store).await;
    let store = open();
    assert_eq!(numbers(name, &store, id).await, [7, 8, 9, 10], "{name}: after reopening");
    assert!(expect(name, store.load_snapshot(id).await) == Some(snapshot(7, 5 << 20).document), "{name}");
    // With another index in the place of the same changes.
    let mut again = snapshot(7, 5 << 20);
    again.info.index.graph = Bytes::from_static(b"anew");
    expect(name, store.put_snapshot(id, again.clone()).await);
    let stored = load(name, &store, id).await.unwrap_or_default();
    assert_eq!((stored.snapshot, stored.changes.len()), (Some(again.info), 4), "{name}");
    assert_eq!(numbers(name, &store, other).await.len(), 10, "{name}: another document");
    close(name, store).await;
}

async fn a_snapshot_that_does_not_fit_changes_nothing(open: Open<'_>) {
    let name = "a_snapshot_that_does_not_fit_changes_nothing";
    let id = document(14, 0);
    let store = open();
    let misfit = |result: Result<(), StoreError>, what: &str| {
        assert!(matches!(result, Err(StoreError::Snapshot(_))), "{name}: {what}: {result:?}");
    };
    misfit(store.put_snapshot(id, snapshot(1, 10)).await, "of no document");
    append(name, &store, id, (0..5).map(change).collect()).await;
    expect(name, store.put_snapshot(id, snapshot(3, 10)).await);
    misfit(store.put_snapshot(id, snapshot(6, 10)).await, "of more than there is");
    misfit(store.put_snapshot(id, snapshot(2, 10)).await, "of less than the one before");
    assert_eq!(numbers(name, &store, id).await, [3, 4], "{name}");
    append(name, &store, id, vec![change(5)]).await;
    close(name, store).await;
    let store = open();
    assert_eq!(numbers(name, &store, id).await, [3, 4, 5], "{name}: after reopening");
    close(name, store).await;
}

async fn a_snapshot_comes_in_while_appends_go_on(open: Open<'_>) {
    let name = "a_snapshot_comes_in_while_appends_go_on";
    let id = document(15, 0);
    let store = open();
    append(name, &store, id, (0..3_000).map(change).collect()).await;
    let mut put = store.put_snapshot(id, snapshot(2_500, 20 << 20));
    for number in 3_000.. {
        append(name, &store, id, vec![change(number)]).await;
        let is_stored = (&mut put).now_or_never();
        let stored = load(name, &store, id).await.unwrap_or_default();
        // Whole changes, or the snapshot: whatever is being cleared away is seen by nobody.
        assert_eq!(stored.records(), number + 1, "{name}");
        let first = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.records);
        // Of the same look: a moment later the snapshot may be there.
        assert!(numbers_of(&stored) == (first..=number).collect::<Vec<_>>(), "{name}");
        if let Some(stored) = is_stored {
            expect(name, stored);
            break;
        }
        assert!(number < 100_000, "{name}: it never comes");
    }
    // It may be closed while there is something left to clear away.
    let records = load(name, &store, id).await.unwrap_or_default().records();
    close(name, store).await;
    let store = open();
    expect(name, store.probe().await);
    assert!(numbers(name, &store, id).await == (2_500..records).collect::<Vec<_>>(), "{name}");
    close(name, store).await;
}

async fn notes_count_until_something_is_added(open: Open<'_>) {
    let name = "notes_count_until_something_is_added";
    let id = document(16, 0);
    let store = open();
    let closed = |records| Note::Closed { records, changes: records, heads: vec![ChangeHash([7; 32])] };
    expect(name, store.put_note(document(16, 1), closed(0)).await);
    assert_eq!(load(name, &store, document(16, 1)).await, None, "{name}: a note makes no document");
    append(name, &store, id, vec![change(1), change(2)]).await;
    expect(name, store.put_note(id, closed(1)).await);
    assert!(!load(name, &store, id).await.unwrap_or_default().is_noted, "{name}: of fewer records");
    expect(name, store.put_note(id, closed(2)).await);
    let reason = "a list that is none".to_owned();
    let unfit = (ChangeHash([8; 32]), reason.clone());
    expect(name, store.put_note(id, Note::Unfit { hash: unfit.0, reason }).await);
    close(name, store).await;
    let store = open();
    let stored = load(name, &store, id).await.unwrap_or_default();
    assert!(stored.is_noted, "{name}");
    assert_eq!(stored.unfit, Some(unfit), "{name}");
    assert_eq!(expect(name, store.find(id, ChangeHash([7; 32])).await), Found::Yes, "{name}");
    append(name, &store, id, vec![change(3)]).await;
    assert!(!load(name, &store, id).await.unwrap_or_default().is_noted, "{name}");
    assert_eq!(expect(name, store.find(id, ChangeHash([7; 32])).await), Found::No, "{name}");
    close(name, store).await;
}

async fn changes_are_found_without_reading_the_document(open: Open<'_>) {
    let name = "changes_are_found_without_reading_the_document";
    let id = document(17, 0);
    let store = open();
    append(name, &store, id, (0..200).map(change).collect()).await;
    assert_eq!(expect(name, store.find(document(17, 1), hash(0)).await), Found::No, "{name}");
    expect(name, store.put_snapshot(id, snapshot(150, 10)).await);
    for number in 0..150 {
        assert_eq!(expect(name, store.find(id, hash(number)).await), Found::Yes, "{name}: {number}");
    }
    for number in 150..300 {
        assert_eq!(expect(name, store.find(id, hash(number)).await), Found::No, "{name}: {number}");
    }
    // One that waited for others when the snapshot was made, and one that came since: whether they are part of the document is not known, unless all are.
    let (tail, waiting) = (document(17, 2), document(17, 3));
    append(name, &store, tail, vec![change(0), Record::Change { bytes: real_change() }]).await;
    append(name, &store, waiting, vec![change(0), Record::Change { bytes: real_change() }]).await;
    let mut with_orphan = snapshot(2, 10);
    with_orphan.info.orphans = vec![real_change()];
    expect(name, store.put_snapshot(waiting, with_orphan).await);
    for id in [tail, waiting] {
        assert_eq!(expect(name, store.find(id, REAL_HASH).await), Found::Perhaps, "{name}");
        let closed = |changes| Note::Closed { records: 2, changes, heads: vec![] };
        expect(name, store.put_note(id, closed(1)).await);
        assert_eq!(expect(name, store.find(id, REAL_HASH).await), Found::Perhaps, "{name}");
        expect(name, store.put_note(id, closed(2)).await);
        assert_eq!(expect(name, store.find(id, REAL_HASH).await), Found::Yes, "{name}");
    }
    close(name, store).await;
}

async fn answers_come_back(open: Open<'_>) {
    let name = "answers_come_back";
    let (id, other) = (document(18, 0), document(18, 1));
    let answer = |key: u8, text: &'static str| Record::Answer {
        key: [key; 32],
        request: [key + 1; 32],
        answer: Bytes::from_static(text.as_bytes()),
    };
    let store = open();
    assert_eq!(expect(name, store.answer(id, [1; 32]).await), None, "{name}: of no document");
    append(name, &store, id, vec![change(1), answer(1, "one")]).await;
    append(name, &store, id, vec![answer(2, "two")]).await;
    append(name, &store, id, vec![answer(2, "")]).await;
    append(name, &store, other, vec![change(1)]).await;
    let before = expect(name, store.changed(0, usize::MAX).await);
    append(name, &store, id, vec![answer(3, "three")]).await;
    let after = expect(name, store.changed(0, usize::MAX).await);
    assert!(before == after, "{name}: an answer is no change");
    append(name, &store, id, vec![Record::Tombstone, answer(4, "gone")]).await;
    close(name, store).await;
    let store = open();
    for (key, text) in [(1, "one"), (2, ""), (3, "three"), (4, "gone")] {
        let wanted = StoredAnswer { request: [key + 1; 32], answer: Bytes::from_static(text.as_bytes()) };
        assert_eq!(expect(name, store.answer(id, [key; 32]).await), Some(wanted), "{name}: {key}");
    }
    assert_eq!(expect(name, store.answer(id, [9; 32]).await), None, "{name}");
    assert_eq!(expect(name, store.answer(other, [1; 32]).await), None, "{name}: of another document");
    close(name, store).await;
}

async fn what_is_deleted_stays_deleted(open: Open<'_>) {
    let name = "what_is_deleted_stays_deleted";
    let (id, other) = (document(19, 0), document(19, 1));
    let refused = |number: u64| {
        let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
        Record::Quarantine { hash: hash(number), reason: "odd".into(), peer: "peer".into(), bytes }
    };
    let store = open();
    append(name, &store, id, (0..3_000).map(change).chain([refused(1)]).collect()).await;
    append(name, &store, other, vec![change(1)]).await;
    expect(name, store.put_snapshot(id, snapshot(2_000, 3 << 20)).await);
    let deleted = store.append(id, vec![Record::Tombstone]);
    let late = store.append(id, vec![change(3_000), refused(2)]);
    let note = store.put_note(id, Note::Closed { records: 0, changes: 0, heads: vec![hash(7)] });
    expect(name, futures::try_join!(deleted, late, note));
    assert_deleted(name, &store, id).await;
    close(name, store).await;
    let store = open();
    assert_deleted(name, &store, id).await;
    append(name, &store, id, vec![change(1), Record::Tombstone]).await;
    // Whatever is being cleared away meanwhile.
    for _ in 0..20 {
        expect(name, store.probe().await);
    }
    assert_deleted(name, &store, id).await;
    assert_eq!(numbers(name, &store, other).await, [1], "{name}: another document");
    close(name, store).await;
    let store = open();
    assert_deleted(name, &store, id).await;
    close(name, store).await;
}

async fn assert_deleted(name: &str, store: &Arc<dyn Store>, id: DocumentId) {
    let stored = load(name, store, id).await.unwrap_or_default();
    assert!(stored.deleted_ms.is_some(), "{name}");
    let nothing = StoredDocument { deleted_ms: stored.deleted_ms, ..StoredDocument::default() };
    assert!(stored == nothing, "{name}: something is left");
    assert_eq!(expect(name, store.load_snapshot(id).await), None, "{name}");
    for number in [0, 1, 7, 2_500] {
        assert_eq!(expect(name, store.find(id, hash(number)).await), Found::No, "{name}");
    }
    let query = ListDocuments { after: None, ranges: vec![id..=id], limit: 1 };
    let listed = expect(name, store.documents(query).await);
    assert!(matches!(&listed[..], [entry] if entry.is_deleted && entry.id == id), "{name}: {listed:?}");
}

async fn a_snapshot_of_what_is_deleted_changes_nothing(open: Open<'_>) {
    let name = "a_snapshot_of_what_is_deleted_changes_nothing";
    let id = document(20, 0);
    let store = open();
    append(name, &store, id, (0..1_500).map(change).collect()).await;
    // One is on its way while the document is deleted, and one comes later. The first may be in time.
    let on_its_way = store.put_snapshot(id, snapshot(1_000, 20 << 20));
    append(name, &store, id, vec![Record::Tombstone]).await;
    let on_its_way = on_its_way.await;
    assert!(matches!(on_its_way, Ok(()) | Err(StoreError::Snapshot(_))), "{name}: {on_its_way:?}");
    let late = store.put_snapshot(id, snapshot(1_000, 10)).await;
    assert!(matches!(late, Err(StoreError::Snapshot(_))), "{name}: {late:?}");
    assert_deleted(name, &store, id).await;
    close(name, store).await;
    let store = open();
    expect(name, store.probe().await);
    assert_deleted(name, &store, id).await;
    close(name, store).await;
}

async fn the_feed_is_in_the_order_of_last_changes(open: Open<'_>) {
    let name = "the_feed_is_in_the_order_of_last_changes";
    let id = |number| document(21, number);
    let store = open();
    let start = expect(name, store.last_changed().await);
    for number in [0, 1, 2, 3, 1] {
        append(name, &store, id(number), vec![change(number)]).await;
    }
    append(name, &store, id(0), vec![Record::Tombstone]).await;
    let refused = Record::Quarantine {
        hash: hash(1),
        reason: "odd".into(),
        peer: "peer".into(),
        bytes: Bytes::from_static(b"no change"),
    };
    append(name, &store, id(2), vec![refused]).await;
    append(name, &store, id(0), vec![change(9)]).await;
    let feed = expect(name, store.changed(start, usize::MAX).await);
    let order: Vec<DocumentId> = feed.iter().map(|entry| entry.id).collect();
    assert_eq!(order, [id(2), id(3), id(1), id(0)], "{name}");
    assert!(feed.iter().all(|entry| entry.is_deleted == (entry.id == id(0))), "{name}: {feed:?}");
    assert!(feed.iter().all(|entry| entry.created_ms <= entry.changed_ms), "{name}: {feed:?}");
    assert!(feed.iter().is_sorted_by(|a, b| a.changed < b.changed), "{name}: {feed:?}");
    let last = expect(name, store.last_changed().await);
    assert_eq!(feed.last().map(|entry| entry.changed), Some(last), "{name}");
    assert_eq!(expect(name, store.changed(last, 10).await), [], "{name}");
    assert_eq!(expect(name, store.changed(start, 2).await), feed[..2], "{name}");
    assert_eq!(expect(name, store.changed(u64::MAX, 2).await), [], "{name}");
    expect(name, store.put_snapshot(id(3), snapshot(1, 10)).await);
    close(name, store).await;
    let store = open();
    assert_eq!(expect(name, store.last_changed().await), last, "{name}: after reopening");
    assert_eq!(expect(name, store.changed(start, 10).await), feed, "{name}: after reopening");
    append(name, &store, id(4), Vec::new()).await;
    let feed = expect(name, store.changed(last, 10).await);
    assert!(matches!(&feed[..], [entry] if entry.id == id(4)), "{name}: {feed:?}");
    close(name, store).await;
}

async fn whoever_follows_the_feed_misses_nothing(open: Open<'_>) {
    let name = "whoever_follows_the_feed_misses_nothing";
    let store = open();
    let mut seen = expect(name, store.last_changed().await);
    let mut told = BTreeMap::new();
    let mut waiting = Vec::new();
    for round in 0..300 {
        for number in 0..5 {
            waiting.push(store.append(document(22, (round * number) % 17), vec![change(round)]));
        }
        // Small pages, and while appends are on their way.
        for entry in expect(name, store.changed(seen, 3).await) {
            assert!(entry.changed > seen, "{name}");
            seen = entry.changed;
            let stored = load(name, &store, entry.id).await.unwrap_or_default();
            told.insert(entry.id, stored.records());
        }
    }
    expect(name, try_join_all(waiting).await);
    loop {
        let page = expect(name, store.changed(seen, 3).await);
        let Some(last) = page.last() else { break };
        seen = last.changed;
        for entry in page {
            let stored = load(name, &store, entry.id).await.unwrap_or_default();
            told.insert(entry.id, stored.records());
        }
    }
    for number in 0..17 {
        let id = document(22, number);
        let records = load(name, &store, id).await.map(|stored| stored.records());
        assert_eq!(told.get(&id).copied(), records, "{name}: document {number}");
    }
    close(name, store).await;
}

async fn documents_are_listed_within_ranges(open: Open<'_>) {
    let name = "documents_are_listed_within_ranges";
    let id = |number| document(23, number);
    let store = open();
    for number in 0..20 {
        append(name, &store, id(number), vec![change(0)]).await;
    }
    let list = async |after: Option<u64>, limit| {
        let ranges = vec![id(2)..=id(4), id(7)..=id(7), id(15)..=id(90)];
        let query = ListDocuments { after: after.map(id), ranges, limit };
        let listed = expect(name, store.documents(query).await);
        listed.iter().map(|entry| entry.id.as_bytes()[15]).collect::<Vec<u8>>()
    };
    assert_eq!(list(None, 100).await, [2, 3, 4, 7, 15, 16, 17, 18, 19], "{name}");
    assert_eq!(list(None, 4).await, [2, 3, 4, 7], "{name}");
    assert_eq!(list(Some(3), 3).await, [4, 7, 15], "{name}");
    assert_eq!(list(Some(5), 2).await, [7, 15], "{name}");
    assert_eq!(list(Some(19), 2).await, [0u8; 0], "{name}");
    assert_eq!(list(Some(95), 2).await, [0u8; 0], "{name}");
    assert_eq!(list(None, 0).await, [0u8; 0], "{name}");
    let all = expect(name, store.documents(ListDocuments::with_prefix("", usize::MAX)).await);
    let ids: Vec<DocumentId> = all.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, expect(name, store.list(None, usize::MAX).await), "{name}");
    let text = id(3).to_string();
    let found = expect(name, store.documents(ListDocuments::with_prefix(&text[..9], usize::MAX)).await);
    let wanted = ids.iter().filter(|id| id.to_string().starts_with(&text[..9]));
    assert!(found.iter().map(|entry| &entry.id).eq(wanted), "{name}");
    close(name, store).await;
}

async fn who_is_told_of_changes_goes_on_where_he_was(open: Open<'_>) {
    let name = "who_is_told_of_changes_goes_on_where_he_was";
    let id = |number| document(24, number);
    let delivery = |number: u64, state| Delivery {
        document: id(number),
        told: (number > 0).then(|| vec![hash(number)]),
        changed: number,
        state,
        attempts: number as u32,
        error: "out of order".into(),
    };
    let store = open();
    let hook = || "hook".to_owned();
    assert_eq!(expect(name, store.progress(hook()).await), None, "{name}");
    for number in 0..5 {
        append(name, &store, id(number), vec![change(0)]).await;
    }
    let all = vec![
        delivery(0, DeliveryState::Waits(30)),
        delivery(1, DeliveryState::Waits(10)),
        delivery(2, DeliveryState::Dead),
        delivery(3, DeliveryState::Done),
        delivery(99, DeliveryState::Dead),
    ];
    expect(name, store.put_progress(hook(), Some(7), all.clone()).await);
    expect(name, store.put_progress("another".into(), None, vec![delivery(4, DeliveryState::Dead)]).await);
    close(name, store).await;
    let store = open();
    assert_eq!(expect(name, store.progress(hook()).await), Some(7), "{name}");
    assert_eq!(expect(name, store.progress("another".into()).await), Some(0), "{name}");
    let find = async |which| expect(name, store.deliveries(hook(), which).await);
    let mut of = find(Deliveries::Of((0..6).map(id).collect())).await;
    of.sort_by_key(|delivery| delivery.document);
    assert_eq!(of, all[..4], "{name}");
    let due = |by_ms, limit| Deliveries::Due { by_ms, limit };
    assert_eq!(find(due(i64::MAX, 9)).await, [all[1].clone(), all[0].clone()], "{name}");
    assert_eq!(find(due(29, 9)).await, [all[1].clone()], "{name}");
    assert_eq!(find(due(i64::MAX, 1)).await, [all[1].clone()], "{name}");
    assert_eq!(find(due(9, 9)).await, [], "{name}");
    assert_eq!(find(Deliveries::Dead(9)).await, [all[2].clone()], "{name}");
    expect(name, store.put_progress(hook(), None, vec![delivery(2, DeliveryState::Waits(5))]).await);
    assert_eq!(find(Deliveries::Dead(9)).await, [], "{name}");
    assert_eq!(find(due(29, 9)).await.len(), 2, "{name}");
    assert_eq!(expect(name, store.progress(hook()).await), Some(7), "{name}");
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
    assert_closed(name, store.answer(id, [1; 32]).await);
    assert_closed(name, store.documents(ListDocuments::with_prefix("", 1)).await);
    assert_closed(name, store.changed(0, 1).await);
    assert_closed(name, store.last_changed().await);
    assert_closed(name, store.progress("hook".into()).await);
    assert_closed(name, store.put_progress("hook".into(), None, Vec::new()).await);
    assert_closed(name, store.deliveries("hook".into(), Deliveries::Dead(1)).await);
    assert_closed(name, store.load_snapshot(id).await);
    assert_closed(name, store.put_snapshot(id, snapshot(1, 10)).await);
    assert_closed(name, store.put_note(id, Note::Closed { records: 0, changes: 0, heads: Vec::new() }).await);
    assert_closed(name, store.find(id, ChangeHash([1; 32])).await);
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

/// A hash like any other: no two begin in the same way.
fn hash(number: u64) -> ChangeHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    ChangeHash(hash)
}

/// A snapshot in the place of so many changes, with a document chunk of so many bytes. The store need not understand any of it but the pages of hashes.
fn snapshot(records: u64, size: usize) -> Snapshot {
    let mut hashes: Vec<ChangeHash> = (0..records).map(hash).collect();
    hashes.sort_unstable();
    let mut pages = vec![Vec::new(); 3];
    for (place, hash) in (0u32..).zip(&hashes) {
        let page = &mut pages[SnapshotIndex::page_of(hash, 3)];
        page.extend_from_slice(&hash.0);
        page.extend_from_slice(&place.to_le_bytes());
    }
    let pages = pages.into_iter().map(Bytes::from).collect();
    let document: Bytes = (0..size).map(|n| (n / 1_000) as u8).collect();
    let info = SnapshotInfo {
        records,
        changes: records,
        heads: vec![ChangeHash([records as u8; 32])],
        document_bytes: size as u64,
        index: SnapshotIndex { graph: Bytes::from(vec![1; size / 2]), pages },
        orphans: vec![Bytes::from_static(b"orphan"), Bytes::new()],
    };
    Snapshot { info, document }
}

/// A change chunk, without operations, where the store must understand one.
fn real_change() -> Bytes {
    let [a, b, c, d, ..] = REAL_HASH.0;
    Bytes::copy_from_slice(&[0x85, 0x6f, 0x4a, 0x83, a, b, c, d, 1, 9, 0, 1, 1, 1, 1, 0, 0, 0, 0])
}

/// Its hash.
const REAL_HASH: ChangeHash = ChangeHash([
    0x17, 0x80, 0x8d, 0x0f, 0x1b, 0x03, 0x73, 0x1c, 0x8e, 0x93, 0x31, 0x68, 0xb4, 0xc2, 0xb0, 0x9d, 0x51,
    0x74, 0xff, 0x3a, 0x84, 0x5f, 0xdb, 0xb9, 0x32, 0xda, 0xd2, 0x3f, 0xc8, 0x98, 0x03, 0xfe,
]);

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
    numbers_of(&load(name, store, document).await.unwrap_or_default())
}

fn numbers_of(stored: &StoredDocument) -> Vec<u64> {
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
