//! `highwater doctor` on folders with and without damage.

mod common;

use std::fs;
use std::path::Path;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use bytes::Bytes;
use common::{run, stderr, stdout};
use highwater_core::{DocumentId, Record};
use highwater_storage::{SqliteStore, Store};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const DOCUMENT: DocumentId = DocumentId::from_bytes([9; 16]);

/// Change chunks, each on top of the one before.
fn changes(count: u8) -> Vec<Bytes> {
    let mut document = AutoCommit::new();
    (0..count)
        .map(|number| {
            document.put(ROOT, "key", format!("a value that is easy to find: {number}")).unwrap();
            document.commit();
            Bytes::copy_from_slice(document.get_last_local_change().unwrap().raw_bytes())
        })
        .collect()
}

/// A folder with one document of these changes, closed in good order.
fn folder_with(changes: Vec<Bytes>) -> TempDir {
    let folder = tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("data")).unwrap();
    let records = changes.into_iter().map(|bytes| Record::Change { bytes }).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.append(DOCUMENT, records).await.unwrap();
        store.close().await.unwrap();
    });
    folder
}

/// Changes a byte of the third value, behind the database's back.
fn damage(folder: &Path) {
    let path = folder.join("data/highwater.db");
    let mut bytes = fs::read(&path).unwrap();
    let value = b"a value that is easy to find: 2";
    let place = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();
}

fn diagnosis(folder: &Path) -> (Option<i32>, Value) {
    let output = run(folder, &["doctor", "--data-dir", "data", "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_clean_folder_is_well() {
    let folder = folder_with(changes(5));
    let (code, found) = diagnosis(folder.path());
    assert_eq!(code, Some(0));
    assert_eq!(
        (&found["documents"], &found["changes"], &found["damaged"]),
        (&1.into(), &5.into(), &0.into())
    );
    let output = run(folder.path(), &["doctor", "--data-dir", "data"]);
    assert!(stdout(&output).contains("All is well"));
}

#[test]
fn a_changed_byte_is_found_and_the_rest_still_counted() {
    let folder = folder_with(changes(5));
    damage(folder.path());
    let (code, found) = diagnosis(folder.path());
    assert_eq!(code, Some(1));
    assert_eq!(found["ok"], false);
    assert_eq!(found["damage"][0]["document"], DOCUMENT.to_string());
    // The two before the damage are whole; the two after it wait for it.
    assert_eq!((&found["changes"], &found["orphans"]), (&2.into(), &2.into()));
    let output = run(folder.path(), &["doctor", "--data-dir", "data"]);
    assert!(stdout(&output).contains("DAMAGE"));
}

#[test]
fn bytes_that_are_no_change_are_found_although_their_checksum_is_right() {
    let mut all = changes(3);
    all.push(Bytes::from_static(b"not a change"));
    let folder = folder_with(all);
    let (code, found) = diagnosis(folder.path());
    assert_eq!(code, Some(1));
    assert_eq!(found["changes"], 3);
    assert!(found["damage"][0]["detail"].as_str().unwrap().contains("change number 3"));
}

#[test]
fn what_cannot_be_looked_at_is_neither_well_nor_damaged() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), &["doctor", "--data-dir", "missing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("missing"));
    assert!(!folder.path().join("missing").exists(), "the doctor makes nothing");
}

#[test]
fn the_folder_may_come_from_the_settings_file() {
    let folder = folder_with(changes(1));
    fs::write(folder.path().join("highwater.toml"), "data-dir = \"data\"").unwrap();
    assert_eq!(run(folder.path(), &["doctor"]).status.code(), Some(0));
}

/// Five good changes, one whose operations start too low, and one on top of that.
fn poisoned() -> Vec<Bytes> {
    let mut all = changes(5);
    let last = automerge::Change::from_bytes(all[4].to_vec()).unwrap();
    let forged = |actor: u8, start_op: u64, deps: Vec<automerge::ChangeHash>| {
        let mut change = last.decode();
        change.actor_id = automerge::ActorId::from([actor]);
        (change.seq, change.deps, change.start_op) = (1, deps, start_op.try_into().unwrap());
        automerge::Change::from(change)
    };
    let poison = forged(1, 2, vec![last.hash()]);
    let dependant = forged(2, 30, vec![poison.hash()]);
    all.extend([&poison, &dependant].map(|change| Bytes::copy_from_slice(change.raw_bytes())));
    all
}

#[test]
fn a_folder_is_repaired_into_a_copy() {
    let folder = folder_with(poisoned());
    let before = fs::read(folder.path().join("data/highwater.db")).unwrap();
    let (code, found) = diagnosis(folder.path());
    assert_eq!(code, Some(1));
    assert!(found["damage"][0]["detail"].as_str().unwrap().contains("operations start at 2"));

    let output = run(folder.path(), &["repair", "--data-dir", "data", "--to", "copy"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("taken out     2"), "{}", stdout(&output));
    assert_eq!(
        fs::read(folder.path().join("data/highwater.db")).unwrap(),
        before,
        "the old folder stays as it is"
    );

    let output = run(folder.path(), &["doctor", "--deep", "--data-dir", "copy", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert_eq!(
        (&found["changes"], &found["quarantined"], &found["orphans"]),
        (&5.into(), &2.into(), &0.into())
    );

    let identity = |data: &str| SqliteStore::open(&folder.path().join(data)).unwrap().identity();
    assert_eq!(identity("data"), identity("copy"), "clients take the copy for the same server");
    let output = run(folder.path(), &["repair", "--data-dir", "data", "--to", "copy"]);
    assert_ne!(output.status.code(), Some(0), "nothing is written over");
}
