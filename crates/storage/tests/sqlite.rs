//! What only the SQLite store does: locks, damage, failed writes, left-over logs, other versions.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::executor::block_on;
use highwater_core::{ChangeHash, DocumentId, Record, Snapshot, SnapshotIndex, SnapshotInfo};
use highwater_storage::{
    ANSWER_KEPT_MS, CheckEvent, CheckedDocument, Found, Note, SqliteStore, Store, StoreError, StoredDocument,
};
use rusqlite::Connection;
use tempfile::TempDir;

const ID: DocumentId = DocumentId::from_bytes([5; 16]);
const OTHER: DocumentId = DocumentId::from_bytes([6; 16]);

fn change(text: &str) -> Record {
    Record::Change { bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn refused(text: &str) -> Record {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    Record::Quarantine { hash: ChangeHash([1; 32]), reason: "odd".into(), peer: "peer".into(), bytes }
}

/// A folder with three changes and a refused one in `ID`, and two changes in `OTHER`.
fn filled() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let records = ["one", "two", "three"].map(change).into_iter().chain([refused("four")]).collect();
    block_on(store.append(ID, records)).unwrap();
    block_on(store.append(OTHER, vec![change("five"), change("six")])).unwrap();
    block_on(store.close()).unwrap();
    dir
}

fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join("highwater.db")).unwrap()
}

fn execute(dir: &Path, sql: &str) {
    raw(dir).execute_batch(sql).unwrap();
}

fn load(dir: &Path, document: DocumentId) -> Result<Option<StoredDocument>, StoreError> {
    block_on(SqliteStore::open(dir)?.load(document))
}

fn texts(stored: &StoredDocument) -> Vec<&str> {
    stored.changes.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect()
}

/// What a check finds: problems of the file, and the documents.
fn check(dir: &Path) -> (Vec<String>, Vec<CheckedDocument>) {
    let (mut file, mut documents) = (Vec::new(), Vec::new());
    SqliteStore::open_read_only(dir).unwrap().check(|event| match event {
        CheckEvent::File(detail) => file.push(detail),
        CheckEvent::Document(document) => documents.push(*document),
        other => panic!("unexpected {other:?}"),
    });
    (file, documents)
}

/// Names, sizes and bytes of everything in a folder.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut contents: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    contents.sort();
    contents
}

/// What a killed server would leave: a copy of the folder while the store is open, without the shared-memory file.
fn killed(store: &SqliteStore, dir: &Path) -> TempDir {
    block_on(store.probe()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["highwater.db", "highwater.db-wal", "highwater.lock"] {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    assert!(fs::metadata(copy.path().join("highwater.db-wal")).unwrap().len() > 0);
    copy
}

#[test]
fn a_folder_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = SqliteStore::open(dir.path()).unwrap();
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Locked(_))));
    // Closing lets go of it, although the value is still there.
    block_on(first.close()).unwrap();
    let second = SqliteStore::open(dir.path()).unwrap();
    drop(first);
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Locked(_))));
    // So does dropping, and what was asked for before is done.
    drop(second.append(ID, vec![change("last")]));
    drop(second);
    assert_eq!(texts(&load(dir.path(), ID).unwrap().unwrap()), ["last"]);
}

#[test]
fn closing_leaves_one_complete_file() {
    let dir = filled();
    let names: Vec<_> = contents(dir.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["highwater.db", "highwater.lock"]);
}

#[test]
fn a_damaged_row_is_named_and_the_rest_is_not_served() {
    let dir = filled();
    execute(dir.path(), "UPDATE log SET bytes = CAST('twO' AS BLOB) WHERE seq = 2");
    match load(dir.path(), ID) {
        Err(StoreError::Damaged { document: ID, record, detail }) => {
            assert_eq!(record, "log row 2");
            assert!(detail.contains("checksum"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(texts(&load(dir.path(), OTHER).unwrap().unwrap()), ["five", "six"]);
}

#[test]
fn a_byte_flipped_in_the_file_is_noticed() {
    let dir = filled();
    let path = dir.path().join("highwater.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|window| window == b"three").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = load(dir.path(), ID).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { record, .. } if record == "log row 3"), "{error}");
}

#[test]
fn every_kind_of_damage_to_a_document_is_noticed() {
    for (sql, record) in [
        // Moved to another document.
        ("UPDATE log SET document = 1 WHERE seq = 4", "log row 4"),
        // Lost from the middle, and from the beginning.
        ("DELETE FROM log WHERE seq = 2", "log row 3"),
        ("DELETE FROM log WHERE seq = 1", "log row 2"),
        // Swapped.
        ("UPDATE log SET position = 99 WHERE seq = 2", "log row 3"),
        ("UPDATE log SET position = 3 - position WHERE seq IN (2, 3)", "log row 3"),
        ("UPDATE log SET kind = 2 WHERE seq = 3", "log row 3"),
        ("UPDATE log SET checksum = checksum + 1 WHERE seq = 3", "log row 3"),
        ("UPDATE quarantine SET reason = 'even'", "quarantine row 1"),
        ("UPDATE quarantine SET at_ms = at_ms + 1", "quarantine row 1"),
        ("UPDATE quarantine SET hash = x'01'", "quarantine row 1"),
    ] {
        let dir = filled();
        execute(dir.path(), sql);
        let error = load(dir.path(), ID).unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { record: found, .. } if found == record),
            "{sql}: {error}"
        );
    }
}

/// A folder with `ID` compacted: a snapshot in the place of its first changes, of `tail` more that came since.
fn compacted(tail: &[&str]) -> TempDir {
    let dir = filled();
    let store = SqliteStore::open(dir.path()).unwrap();
    let info = SnapshotInfo {
        records: 3,
        changes: 3,
        heads: vec![ChangeHash([3; 32])],
        document_bytes: 3 << 20,
        index: SnapshotIndex { graph: Bytes::from(vec![1; 2 << 20]), pages: vec![Bytes::from(vec![2; 36])] },
        orphans: vec![Bytes::from_static(b"orphan")],
    };
    let document = Bytes::from(vec![7; 3 << 20]);
    block_on(store.put_snapshot(ID, Snapshot { info, document })).unwrap();
    for text in tail {
        block_on(store.append(ID, vec![change(text)])).unwrap();
    }
    // What the snapshot stands for is deleted while the store is open.
    while raw(dir.path()).query_row("SELECT count(*) FROM compaction", [], |row| row.get(0)) != Ok(0i64) {
        block_on(store.probe()).unwrap();
    }
    block_on(store.close()).unwrap();
    dir
}

#[test]
fn every_kind_of_damage_to_a_snapshot_is_noticed() {
    let part = |kind: i64| format!("DELETE FROM part WHERE kind = {kind} AND number = 0");
    for tail in [&["four"][..], &[]] {
        for (sql, is_index, is_chunk) in [
            ("DELETE FROM snapshot".to_owned(), false, false),
            ("UPDATE snapshot SET records = 2".to_owned(), false, false),
            ("UPDATE snapshot SET orphans = 0".to_owned(), false, false),
            (part(4), false, false),
            ("UPDATE part SET bytes = x'00' WHERE kind = 4".to_owned(), false, false),
            (part(2), true, false),
            (part(3), true, false),
            ("UPDATE part SET number = 9 WHERE kind = 2 AND number = 1".to_owned(), true, false),
            (part(1), false, true),
            ("DELETE FROM part WHERE kind = 1 AND number = 2".to_owned(), false, true),
            ("UPDATE part SET generation = 9 WHERE kind = 1 AND number = 1".to_owned(), false, true),
        ] {
            let dir = compacted(tail);
            assert_eq!(load(dir.path(), ID).unwrap().unwrap().records(), 3 + tail.len() as u64);
            execute(dir.path(), &sql);
            let store = SqliteStore::open(dir.path()).unwrap();
            let chunk = block_on(store.load_snapshot(ID));
            match block_on(store.load(ID)) {
                // An index can be made anew.
                Ok(stored) if is_index => {
                    assert!(stored.unwrap().snapshot.unwrap().index.is_empty(), "{sql}")
                }
                Ok(_) if is_chunk => assert!(matches!(chunk, Err(StoreError::Damaged { .. })), "{sql}"),
                stored => assert!(matches!(stored, Err(StoreError::Damaged { .. })), "{sql}: {stored:?}"),
            }
            block_on(store.close()).unwrap();
            let (_, documents) = check(dir.path());
            assert!(!documents[0].is_whole(), "{sql}");
        }
    }
}

#[test]
fn that_a_change_is_not_there_is_not_said_of_a_damaged_document() {
    for (tail, sql) in [
        (
            &["four", "five"][..],
            "UPDATE log SET bytes = CAST('Four' AS BLOB) WHERE position = 3 AND document = 1",
        ),
        (&["four", "five"], "DELETE FROM log WHERE position = 3 AND document = 1"),
        (&[], "DELETE FROM part WHERE kind = 4"),
        (&[], "DELETE FROM part WHERE kind = 3"),
        (&[], "DELETE FROM snapshot"),
    ] {
        let dir = compacted(tail);
        let find = || block_on(SqliteStore::open(dir.path()).unwrap().find(ID, ChangeHash([9; 32])));
        assert_eq!(find().unwrap(), Found::No, "{sql}");
        execute(dir.path(), sql);
        assert!(matches!(find(), Err(StoreError::Damaged { .. })), "{sql}: {:?}", find());
    }
}

#[test]
fn a_file_of_the_first_version_is_looked_at_as_it_is_and_brought_up_to_date_when_it_is_served() {
    let dir = filled();
    execute(
        dir.path(),
        "DROP TABLE snapshot; DROP TABLE part; DROP TABLE compaction; DROP TABLE closed; DROP TABLE unfit;
         DROP TABLE feed; DROP TABLE tombstone; DROP TABLE answer; DROP TABLE follower; DROP TABLE delivery;
         DROP INDEX log_place; CREATE INDEX log_document ON log (document); PRAGMA user_version = 1",
    );
    let before = contents(dir.path());
    let (file, documents) = check(dir.path());
    assert_eq!(file, Vec::<String>::new());
    assert!(documents.iter().all(CheckedDocument::is_whole), "{documents:?}");
    assert_eq!(texts(&documents[0].stored), ["one", "two", "three"]);
    assert!(contents(dir.path()) == before, "the folder has changed");
    assert_eq!(texts(&load(dir.path(), ID).unwrap().unwrap()), ["one", "two", "three"]);
    let version = raw(dir.path()).query_row("PRAGMA user_version", [], |row| row.get(0));
    assert_eq!(version, Ok(3i64));
    // What is there already comes in the order in which it was created, and what happens next comes after it.
    let store = SqliteStore::open(dir.path()).unwrap();
    let feed = |store: &SqliteStore| {
        let feed = block_on(store.changed(0, 10)).unwrap();
        feed.into_iter().map(|entry| (entry.id, entry.changed)).collect::<Vec<_>>()
    };
    assert_eq!(feed(&store), [(ID, 1), (OTHER, 2)]);
    block_on(store.append(ID, vec![change("seven")])).unwrap();
    assert_eq!(feed(&store), [(OTHER, 2), (ID, 3)]);
}

#[test]
fn what_was_deleted_is_cleared_away_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let many = (0..20_000).map(|n: u32| change(&n.to_string())).chain([refused("x")]);
    block_on(store.append(ID, many.collect())).unwrap();
    block_on(store.put_note(ID, Note::Closed { records: 20_000, changes: 20_000, heads: vec![] })).unwrap();
    block_on(store.append(OTHER, vec![change("one")])).unwrap();
    block_on(store.append(ID, vec![Record::Tombstone])).unwrap();
    let copy = killed(&store, dir.path());
    wait_until_cleared(&SqliteStore::open(copy.path()).unwrap(), copy.path());
    wait_until_cleared(&store, dir.path());
    drop(store);
    let (file, documents) = check(dir.path());
    assert_eq!(file, Vec::<String>::new());
    assert!(documents.iter().all(CheckedDocument::is_whole));
    assert!(documents[0].stored.deleted_ms.is_some());
    assert_eq!(SqliteStore::open_read_only(dir.path()).unwrap().documents().unwrap(), [OTHER]);
}

/// Each commit clears a part away.
fn wait_until_cleared(store: &SqliteStore, dir: &Path) {
    let left = || -> i64 {
        let sql = "SELECT (SELECT count(*) FROM log WHERE document = 1) + (SELECT count(*) FROM compaction) \
                   + (SELECT count(*) FROM quarantine) + (SELECT count(*) FROM closed)";
        raw(dir).query_row(sql, [], |row| row.get(0)).unwrap()
    };
    for _ in 0..1_000 {
        if left() == 0 {
            return;
        }
        block_on(store.probe()).unwrap();
    }
    panic!("{} rows are left", left());
}

#[test]
fn a_damaged_tombstone_is_no_life() {
    let dir = filled();
    block_on(SqliteStore::open(dir.path()).unwrap().append(ID, vec![Record::Tombstone])).unwrap();
    execute(dir.path(), "UPDATE tombstone SET deleted_ms = 1");
    assert!(
        matches!(load(dir.path(), ID), Err(StoreError::Damaged { record, .. }) if record == "tombstone row 1")
    );
    let store = SqliteStore::open(dir.path()).unwrap();
    let found = block_on(store.find(ID, ChangeHash([1; 32])));
    assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}");
    drop(store);
    let (_, documents) = check(dir.path());
    assert_eq!(documents[0].damaged.len(), 1);
}

#[test]
fn the_check_goes_on_after_damage() {
    let dir = filled();
    execute(
        dir.path(),
        "UPDATE log SET bytes = x'00' WHERE seq = 2; UPDATE quarantine SET peer = 'other';
         INSERT INTO log (document, position, kind, checksum, bytes) VALUES (77, 0, 1, 0, x'00')",
    );
    let (file, documents) = check(dir.path());
    assert_eq!(file, ["log: 1 rows belong to document number 77, which does not exist"]);
    let [first, second] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!((first.document, second.document), (ID, OTHER));
    assert_eq!(texts(&first.stored), ["one", "three"]);
    let rows: Vec<_> = first.damaged.iter().map(|damage| (damage.table, damage.row)).collect();
    assert_eq!(rows, [("log", 2), ("quarantine", 1)]);
    assert!(!first.is_whole() && second.is_whole());
    assert_eq!(texts(&second.stored), ["five", "six"]);
}

#[test]
fn the_check_reports_a_ruined_page_and_what_it_can_still_read() {
    let dir = filled();
    let path = dir.path().join("highwater.db");
    let page: u32 = raw(dir.path())
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'log'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let page = page as usize;
    bytes[(page - 1) * 4096..page * 4096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let (file, documents) = check(dir.path());
    assert!(!file.is_empty());
    assert_eq!(documents.len(), 2);
    assert!(documents.iter().all(|document| document.cut_short.is_some()));
    assert_eq!(documents[0].stored.quarantined.len(), 1);
    assert!(matches!(load(dir.path(), ID), Err(StoreError::Read(_))));
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let dir = filled();
    execute(dir.path(), "PRAGMA user_version = 1000");
    let before = contents(dir.path());
    for result in [SqliteStore::open(dir.path()).map(drop), SqliteStore::open_read_only(dir.path()).map(drop)]
    {
        let Err(StoreError::Open(detail)) = result else { panic!("{result:?}") };
        assert!(detail.contains("1000"), "{detail}");
    }
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn files_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("highwater.db"), "this is no database, only some text that is long enough")
        .unwrap();
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Open(_))));
    let dir = tempfile::tempdir().unwrap();
    execute(dir.path(), "CREATE TABLE song (title TEXT)");
    assert!(matches!(SqliteStore::open(dir.path()), Err(StoreError::Open(_))));
    assert!(matches!(SqliteStore::open_read_only(dir.path()), Err(StoreError::Open(_))));
}

#[test]
fn an_empty_file_becomes_a_store_but_is_nothing_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("highwater.db"), "").unwrap();
    assert!(matches!(SqliteStore::open_read_only(dir.path()), Err(StoreError::Open(_))));
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(store.append(ID, vec![change("one")])).unwrap();
    assert!(matches!(
        SqliteStore::open_read_only(&dir.path().join("nowhere")),
        Err(StoreError::Open(detail)) if detail.contains("nowhere")
    ));
}

#[test]
fn what_a_killed_server_left_is_read_without_touching_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(store.append(ID, vec![change("one"), change("two")])).unwrap();
    let left = killed(&store, dir.path());
    let before = contents(left.path());

    let opened = SqliteStore::open_read_only(left.path()).unwrap();
    assert!(!opened.is_live());
    assert_eq!(opened.identity().unwrap(), store.identity());
    assert!(matches!(SqliteStore::open(left.path()), Err(StoreError::Locked(_))));
    drop(opened);
    let (file, documents) = check(left.path());
    assert_eq!(file, Vec::<String>::new());
    assert_eq!(texts(&documents[0].stored), ["one", "two"]);
    assert!(contents(left.path()) == before, "the folder has changed");

    assert_eq!(texts(&load(left.path(), ID).unwrap().unwrap()), ["one", "two"]);
}

#[test]
fn a_closed_folder_is_read_without_touching_it() {
    let dir = filled();
    let before = contents(dir.path());
    let (file, documents) = check(dir.path());
    assert_eq!((file.len(), documents.len()), (0, 2));
    assert!(contents(dir.path()) == before, "the folder has changed");
}

#[test]
fn a_live_folder_is_read_along_with_its_server() {
    let dir = filled();
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(store.append(ID, vec![change("more")])).unwrap();
    let opened = SqliteStore::open_read_only(dir.path()).unwrap();
    assert!(opened.is_live());
    block_on(store.append(ID, vec![change("yet more")])).unwrap();
    let mut changes = 0;
    opened.check(|event| match event {
        CheckEvent::Document(document) if document.document == ID => changes = document.stored.changes.len(),
        CheckEvent::Document(_) => {}
        other => panic!("{other:?}"),
    });
    assert_eq!(changes, 5);
    drop(opened);
    block_on(store.append(ID, vec![change("still here")])).unwrap();
    block_on(store.close()).unwrap();
}

#[test]
fn a_failed_write_fails_everything_after_it_until_reopened() {
    let dir = filled();
    let store = SqliteStore::open(dir.path()).unwrap();
    // A disk that is full as soon as a certain row is written.
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON log WHEN NEW.bytes = CAST('bad' AS BLOB)
                   BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    execute(dir.path(), trigger);
    block_on(store.append(ID, vec![change("good")])).unwrap();
    let error = block_on(store.append(OTHER, vec![change("lost"), change("bad")])).unwrap_err();
    assert!(matches!(&error, StoreError::Write(detail) if detail.contains("full")), "{error}");

    // Even when the cause is gone: a success now would stand on that failure.
    execute(dir.path(), "DROP TRIGGER full");
    let later = [store.append(ID, vec![change("later")]), store.append(OTHER, vec![]), store.probe()];
    for write in later {
        assert!(matches!(block_on(write), Err(StoreError::Write(_))));
    }
    assert_eq!(texts(&block_on(store.load(ID)).unwrap().unwrap()), ["one", "two", "three", "good"]);
    assert_eq!(block_on(store.list(None, 10)).unwrap(), [ID, OTHER]);
    assert!(matches!(block_on(store.close()), Err(StoreError::Write(_))));
    assert!(matches!(block_on(store.load(ID)), Err(StoreError::Closed)));

    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(texts(&block_on(store.load(OTHER)).unwrap().unwrap()), ["five", "six"]);
    block_on(store.append(OTHER, vec![change("again")])).unwrap();
    assert_eq!(texts(&block_on(store.load(OTHER)).unwrap().unwrap()), ["five", "six", "again"]);
}

#[test]
fn a_long_log_is_moved_into_the_database_while_the_store_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let large = Record::Change { bytes: Bytes::from(vec![7; 1 << 20]) };
    for _ in 0..40 {
        block_on(store.append(ID, vec![large.clone()])).unwrap();
    }
    block_on(store.probe()).unwrap();
    let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
    assert!(size("highwater.db") > 16 << 20, "nothing was moved");
    assert!(size("highwater.db-wal") < 36 << 20, "the log never starts anew");
    assert_eq!(block_on(store.load(ID)).unwrap().unwrap().changes.len(), 40);
}

#[test]
fn forgetting_where_documents_end_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let store = SqliteStore::open(dir.path()).unwrap();
        for text in ["a", "b"] {
            let text = format!("{text}{round}");
            block_on(store.append(ID, vec![refused("x"), change(&text)])).unwrap();
            expected.push(text);
        }
    }
    let stored = load(dir.path(), ID).unwrap().unwrap();
    assert_eq!(texts(&stored), expected);
    assert_eq!(stored.quarantined.len(), 6);
}

#[test]
fn answers_are_cleared_away_a_day_after_they_were_given_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let answer = |key: u8| {
        vec![Record::Answer { key: [key; 32], request: [key; 32], answer: Bytes::from_static(b"made") }]
    };
    let append = |key: u8| {
        let store = SqliteStore::open(dir.path()).unwrap();
        block_on(store.append(ID, answer(key))).unwrap();
        block_on(store.close()).unwrap();
    };
    append(1);
    append(2);
    // As if the one had been given more than a day ago, and the other less than that.
    let minute = 60_000;
    let sql = "UPDATE answer SET at_ms = at_ms - ?1 WHERE seq = ?2";
    let conn = raw(dir.path());
    conn.execute(sql, (ANSWER_KEPT_MS + minute, 1)).unwrap();
    conn.execute(sql, (ANSWER_KEPT_MS - 60 * minute, 2)).unwrap();
    drop(conn);
    append(3);
    let conn = raw(dir.path());
    let mut rows = conn.prepare("SELECT key FROM answer ORDER BY seq").unwrap();
    let keys: Vec<Vec<u8>> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(keys, [vec![2; 32], vec![3; 32]]);
}
