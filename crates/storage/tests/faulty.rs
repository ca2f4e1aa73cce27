//! The faulty store is itself a model of what may happen; these tests pin what it can be made to do.

use bytes::Bytes;
use futures::FutureExt;
use highwater_core::{DocumentId, Record};
use highwater_storage::{FaultyStore, Pace, Store, StoreError};

const ID: DocumentId = DocumentId::from_bytes([3; 16]);

fn change(number: u8) -> Record {
    Record::Change { bytes: Bytes::copy_from_slice(&[number]) }
}

fn durable(store: &FaultyStore) -> Vec<u8> {
    store.durable(ID).unwrap_or_default().changes.iter().map(|bytes| bytes[0]).collect()
}

#[test]
fn steps_make_appends_durable_one_by_one_in_order() {
    let store = FaultyStore::new(Pace::Manual);
    let mut first = store.append(ID, vec![change(1), change(2)]);
    let mut second = store.append(ID, vec![change(3)]);
    assert!((&mut first).now_or_never().is_none());
    assert_eq!((store.in_flight(), durable(&store)), (2, vec![]));
    assert!(store.step());
    assert!((&mut second).now_or_never().is_none());
    assert!(matches!(first.now_or_never(), Some(Ok(()))));
    assert_eq!((store.in_flight(), durable(&store)), (1, vec![1, 2]));
    assert_eq!(store.step_all(), 1);
    assert!(matches!(second.now_or_never(), Some(Ok(()))));
    assert!(!store.step());
    assert!(store.is_durable(ID, &[3]) && !store.is_durable(ID, &[4]));
}

#[test]
fn a_tick_pace_delays_each_append() {
    let store = FaultyStore::new(Pace::Ticks(2));
    drop(store.append(ID, vec![change(1)]));
    store.tick();
    drop(store.append(ID, vec![change(2)]));
    assert!(durable(&store).is_empty());
    store.tick();
    assert_eq!(durable(&store), [1]);
    store.tick();
    assert_eq!(durable(&store), [1, 2]);
}

#[test]
fn a_stalled_store_catches_up_when_it_resumes() {
    let store = FaultyStore::new(Pace::Immediate);
    store.stall();
    let mut append = store.append(ID, vec![change(1)]);
    let mut probe = store.probe();
    assert!(!store.step());
    assert!((&mut append).now_or_never().is_none() && (&mut probe).now_or_never().is_none());
    store.resume();
    assert!(matches!(append.now_or_never(), Some(Ok(()))));
    assert!(matches!(probe.now_or_never(), Some(Ok(()))));
}

#[test]
fn a_failed_append_fails_all_that_follow_and_loads_go_on() {
    let store = FaultyStore::new(Pace::Manual);
    store.fail_append_after(1);
    let appends: Vec<_> = (0..3).map(|number| store.append(ID, vec![change(number)])).collect();
    store.step_all();
    let results: Vec<_> =
        appends.into_iter().map(|append| append.now_or_never().expect("resolved").is_ok()).collect();
    assert_eq!(results, [true, false, false]);
    assert!(matches!(store.append(ID, vec![change(9)]).now_or_never(), Some(Err(StoreError::Write(_)))));
    assert!(matches!(store.probe().now_or_never(), Some(Err(StoreError::Write(_)))));
    let loaded = store.load(ID).now_or_never().unwrap().unwrap().unwrap();
    assert_eq!(loaded.changes.len(), 1);
    assert_eq!(durable(&store.reopen()), [0, 1, 2]);
}

#[test]
fn a_power_cut_keeps_what_was_durable_and_a_beginning_of_the_rest() {
    let mut seen = [false; 4];
    for seed in 0..64 {
        let store = FaultyStore::new(Pace::Manual);
        drop(store.append(ID, vec![change(0)]));
        store.step();
        let mut waiting: Vec<_> = (1..4).map(|number| store.append(ID, vec![change(number); 2])).collect();
        let after = store.power_cut(seed);
        let kept = durable(&after);
        let whole: Vec<u8> = std::iter::once(0).chain([1, 1, 2, 2, 3, 3]).collect();
        assert!(kept.len() % 2 == 1 && whole.starts_with(&kept), "{kept:?}");
        seen[kept.len() / 2] = true;
        for append in &mut waiting {
            assert!(matches!(append.now_or_never(), Some(Err(StoreError::Write(_)))));
        }
        assert!(matches!(store.load(ID).now_or_never(), Some(Err(StoreError::Read(_)))));
        assert_eq!(after.in_flight(), 0);
    }
    assert_eq!(seen, [true; 4], "every outcome is possible");
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let run = |seed| {
        let store = FaultyStore::new(Pace::Manual);
        (0..20).for_each(|number| drop(store.append(ID, vec![change(number)])));
        durable(&store.power_cut(seed))
    };
    assert!((0..50).all(|seed| run(seed) == run(seed)));
}

#[test]
fn loads_can_fail_be_damaged_and_be_held() {
    let store = FaultyStore::new(Pace::Immediate);
    store.fail_loads(true);
    assert!(matches!(store.load(ID).now_or_never(), Some(Err(StoreError::Read(_)))));
    assert!(matches!(store.list(None, 1).now_or_never(), Some(Err(StoreError::Read(_)))));
    store.fail_loads(false);
    assert!(matches!(store.load(ID).now_or_never(), Some(Ok(None))));

    store.hold_loads();
    let mut held = store.load(ID);
    assert!((&mut held).now_or_never().is_none());
    drop(store.append(ID, vec![change(1)]));
    store.release_loads();
    assert!(matches!(held.now_or_never(), Some(Ok(Some(stored))) if stored.changes.len() == 1));

    store.damage(ID);
    assert!(matches!(store.load(ID).now_or_never(), Some(Err(StoreError::Damaged { document: ID, .. }))));
}

#[test]
fn closing_waits_for_what_is_pending() {
    let store = FaultyStore::new(Pace::Manual);
    drop(store.append(ID, vec![change(1)]));
    let mut close = store.close();
    assert!(matches!(store.append(ID, vec![change(2)]).now_or_never(), Some(Err(StoreError::Closed))));
    store.step();
    assert!((&mut close).now_or_never().is_none());
    store.step();
    assert!(matches!(close.now_or_never(), Some(Ok(()))));
    assert_eq!(durable(&store.reopen()), [1]);
}
