//! Backups of a store that is written to, and folders made from them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::executor::block_on;
use highwater_core::{DocumentId, Record};
use highwater_storage::{CheckEvent, ReadOnlyStore, SqliteStore, Store, StoreError};

const ID: DocumentId = DocumentId::from_bytes([5; 16]);

fn change(number: u64) -> Record {
    Record::Change { bytes: Bytes::from(format!("{number:04000}")) }
}

/// The numbers of the changes of the document, after a check that finds nothing wrong.
fn numbers(store: &ReadOnlyStore) -> Vec<u64> {
    let mut numbers = Vec::new();
    store.check(|event| match event {
        CheckEvent::Document(document) => {
            assert!(document.is_whole(), "{document:?}");
            let texts = document.stored.changes.iter().map(|bytes| std::str::from_utf8(bytes).unwrap());
            numbers.extend(texts.map(|text| text.parse::<u64>().unwrap()));
        }
        other => panic!("{other:?}"),
    });
    numbers
}

/// A closed folder with so many changes.
fn filled(dir: &Path, count: u64) {
    let store = SqliteStore::open(dir).unwrap();
    block_on(store.append(ID, (0..count).map(change).collect())).unwrap();
    block_on(store.close()).unwrap();
}

#[test]
fn a_backup_has_all_that_was_durable_when_it_began_and_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    filled(&data, 2_000);
    let store = SqliteStore::open(&data).unwrap();
    let (durable, is_over) = (AtomicU64::new(2_000), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let next = durable.load(Ordering::SeqCst);
                block_on(store.append(ID, vec![change(next)])).unwrap();
                durable.store(next + 1, Ordering::SeqCst);
            }
        });
        let live = SqliteStore::open_read_only(&data).unwrap();
        assert!(live.is_live());
        let before = durable.load(Ordering::SeqCst);
        let (mut steps, mut copied, mut goes_on) = (0, 0, true);
        let backed_up = live.back_up(&file, |done, total| {
            goes_on &= copied < done && done <= total;
            copied = done;
            steps += 1;
        });
        let after = durable.load(Ordering::SeqCst);
        // Before anything can fail: the writer must end.
        is_over.store(true, Ordering::SeqCst);
        backed_up.unwrap();
        assert!(goes_on, "it never starts anew");
        assert!(steps > 4, "{steps} steps are too few for anything to happen between them");
        assert!(after > before, "nothing was written meanwhile, so nothing was tested");

        let found = numbers(&SqliteStore::open_backup(&file).unwrap());
        assert!(found.len() as u64 >= before, "{} of {before}", found.len());
        assert!((found.len() as u64) < after, "it is of the moment when it began");
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
    });
}

#[test]
fn a_backup_is_made_of_a_folder_that_nobody_has_open_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    filled(&data, 3);
    let store = SqliteStore::open_read_only(&data).unwrap();
    store.back_up(&file, |_, _| ()).unwrap();
    assert_eq!(numbers(&SqliteStore::open_backup(&file).unwrap()), [0, 1, 2]);
    let before = fs::read(&file).unwrap();
    assert!(matches!(store.back_up(&file, |_, _| ()), Err(StoreError::Write(_))));
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn a_restored_folder_has_all_of_the_backup_and_is_another_server() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    filled(&data, 3);
    let old = SqliteStore::open_read_only(&data).unwrap();
    old.back_up(&file, |_, _| ()).unwrap();

    let restored = dir.path().join("some/where");
    let identity = SqliteStore::restore(&file, &restored, |_, _| ()).unwrap();
    assert_eq!(numbers(&SqliteStore::open_read_only(&restored).unwrap()), [0, 1, 2]);
    let store = SqliteStore::open(&restored).unwrap();
    assert_eq!(store.identity(), identity);
    assert_ne!(store.identity().peer_id, old.identity().unwrap().peer_id);
    assert_ne!(store.identity().storage_id, old.identity().unwrap().storage_id);
    // What the old server counted after the backup was made must not come up again with another meaning.
    let last = block_on(store.last_changed()).unwrap();
    assert!(last > 1 << 30, "{last}");
    assert_eq!(block_on(store.changed(0, 10)).unwrap().len(), 1);
    block_on(store.append(ID, vec![change(3)])).unwrap();
    assert_eq!(block_on(store.load(ID)).unwrap().unwrap().changes.len(), 4);
    assert_eq!(block_on(store.changed(last, 10)).unwrap().len(), 1);
}

#[test]
fn only_an_empty_folder_or_one_of_an_interrupted_restore_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    filled(&data, 3);
    SqliteStore::open_read_only(&data).unwrap().back_up(&file, |_, _| ()).unwrap();
    let refused = |folder: &Path| match SqliteStore::restore(&file, folder, |_, _| ()) {
        Err(StoreError::Open(detail)) => detail,
        other => panic!("{other:?}"),
    };
    assert!(refused(&data).contains("not empty"));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), "mine").unwrap();
    assert!(refused(&other).contains("notes.txt"));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);

    let interrupted = dir.path().join("interrupted");
    fs::create_dir(&interrupted).unwrap();
    fs::write(interrupted.join("highwater.lock"), "").unwrap();
    fs::write(interrupted.join("highwater.db.unfinished"), "half of it").unwrap();
    SqliteStore::restore(&file, &interrupted, |_, _| ()).unwrap();
    assert_eq!(numbers(&SqliteStore::open_read_only(&interrupted).unwrap()), [0, 1, 2]);
}

#[test]
fn what_is_no_backup_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    assert!(matches!(SqliteStore::open_backup(&file), Err(StoreError::Open(_))));
    fs::write(&file, "a file of somebody else's").unwrap();
    assert!(matches!(SqliteStore::open_backup(&file), Err(StoreError::Open(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file of somebody else's");
}
