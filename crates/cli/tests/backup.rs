//! `highwater backup` of a server under load, and `highwater restore`.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Server, damage, highwater, run, stderr, stdout};
use highwater_core::{DocumentId, Record};
use highwater_storage::{SqliteStore, Store};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The lines that are whole of a file that is being written.
fn whole_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before_it_began() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let record = folder.path().join("acknowledged");
    let mut writer = highwater(folder.path())
        .args(["bench", "--url", &server.url(), "crash", "--clients", "8", "--reconnect", "0", "--out"])
        .arg(&record)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for number in 0..3 {
        let started = Instant::now();
        let before = loop {
            let lines = whole_lines(&record);
            if lines.lines().count() > 500 * (number + 1) {
                break lines;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "too little was acknowledged");
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended by itself");
            std::thread::yield_now();
        };
        fs::write(folder.path().join(format!("before-{number}")), before).unwrap();
        let made =
            json(folder.path(), &["backup", "--data-dir", "data", "--to", &format!("backup-{number}")]);
        assert_eq!(made["in_use"], "by a server that runs now");
        assert!(made["changes"].as_u64().unwrap() > 500 * (number as u64 + 1), "{made}");
    }
    assert!(writer.try_wait().unwrap().is_none(), "there was load to the end");
    server.kill();
    writer.wait().unwrap();
    // Of what a killed server left a backup can be made too, and has all of it.
    fs::write(folder.path().join("before-3"), whole_lines(&record)).unwrap();
    let made = json(folder.path(), &["backup", "--data-dir", "data", "--to", "backup-3"]);
    assert_eq!(made["in_use"], "by nobody");

    for number in 0..4 {
        let data = format!("restored-{number}");
        json(folder.path(), &["restore", "--from", &format!("backup-{number}"), "--data-dir", &data]);
        let found = json(folder.path(), &["doctor", "--deep", "--data-dir", &data]);
        assert_eq!(found["ok"], true);
        let restored = Server::spawn(highwater(folder.path()).args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &data,
        ]));
        let before = format!("before-{number}");
        let output =
            run(folder.path(), &["bench", "--url", &restored.url(), "--json", "verify", "--from", &before]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }
}

/// A folder with a document of one change.
fn small() -> TempDir {
    let folder = tempdir().unwrap();
    let mut document = automerge::AutoCommit::new();
    automerge::transaction::Transactable::put(&mut document, automerge::ROOT, "key", "easy to find").unwrap();
    let chunk = Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes());
    let store = SqliteStore::open(&folder.path().join("data")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.append(DocumentId::from_bytes([1; 16]), vec![Record::Change { bytes: chunk }]).await.unwrap();
        store.close().await.unwrap();
    });
    folder
}

#[test]
fn nothing_is_written_over_and_nothing_is_left_beside() {
    let folder = small();
    json(folder.path(), &["backup", "--data-dir", "data", "--to", "backup"]);
    let before = fs::read(folder.path().join("backup")).unwrap();
    let output = run(folder.path(), &["backup", "--data-dir", "data", "--to", "backup"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Choose another name"), "{}", stderr(&output));
    assert_eq!(fs::read(folder.path().join("backup")).unwrap(), before);
    // What a backup that was killed left is in nobody's way.
    fs::write(folder.path().join("other.unfinished"), "half").unwrap();
    json(folder.path(), &["backup", "--data-dir", "data", "--to", "other"]);
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backup", "data", "other"]);
}

#[test]
fn only_a_new_or_empty_folder_is_restored_into() {
    let folder = small();
    json(folder.path(), &["backup", "--data-dir", "data", "--to", "backup"]);
    let before = fs::read(folder.path().join("data/highwater.db")).unwrap();
    let output = run(folder.path(), &["restore", "--from", "backup", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not empty"), "{}", stderr(&output));
    assert_eq!(fs::read(folder.path().join("data/highwater.db")).unwrap(), before);

    let restored = json(folder.path(), &["restore", "--from", "backup", "--data-dir", "new"]);
    let old = SqliteStore::open(&folder.path().join("data")).unwrap().identity();
    let new = SqliteStore::open(&folder.path().join("new")).unwrap().identity();
    assert_eq!(restored["storage_id"], new.storage_id);
    assert!(old.storage_id != new.storage_id && old.peer_id != new.peer_id, "it is another server");
}

#[test]
fn damage_is_named_and_goes_along_only_if_asked_for() {
    let folder = small();
    json(folder.path(), &["backup", "--data-dir", "data", "--to", "backup"]);
    damage(&folder.path().join("backup"), "easy to find");
    let restore = ["restore", "--from", "backup", "--data-dir", "new"];
    let output = run(folder.path(), &restore);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("DAMAGE") && stderr(&output).contains("checksum"),
        "{}",
        stderr(&output)
    );
    assert!(!folder.path().join("new").exists());
    json(folder.path(), &[&restore[..], &["--with-damage"]].concat());

    damage(&folder.path().join("data/highwater.db"), "easy to find");
    let backup = ["backup", "--data-dir", "data", "--to", "damaged"];
    let output = run(folder.path(), &backup);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("damaged").exists() && !folder.path().join("damaged.unfinished").exists());
    let made = json(folder.path(), &[&backup[..], &["--with-damage"]].concat());
    assert_eq!(made["damage"].as_array().unwrap().len(), 1);
}
