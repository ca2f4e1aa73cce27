//! `highwater import` and `highwater export`: folders of other servers, damage in them, and the way back.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use common::{Server, damage, highwater, run, stderr, stdout};
use highwater_core::{DocumentId, Record};
use highwater_storage::{SqliteStore, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::tempdir;

fn id(number: u8) -> DocumentId {
    DocumentId::from_bytes([number; 16])
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A document of so many changes.
fn document(actor: u8, changes: usize) -> AutoCommit {
    let mut document = AutoCommit::new().with_actor(ActorId::from([actor]));
    edit(&mut document, 0..changes);
    document
}

fn edit(document: &mut AutoCommit, numbers: std::ops::Range<usize>) {
    for number in numbers {
        document.put(ROOT, format!("key {}", number % 50), number as u64).unwrap();
        document.commit();
    }
}

fn chunks(document: &mut AutoCommit) -> Vec<Vec<u8>> {
    document.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect()
}

/// Writes a file of a NodeFS or samod folder.
fn put(base: &Path, id: DocumentId, kind: &str, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let id = id.to_string();
    let folder = base.join(&id[..2]).join(&id[2..]).join(kind);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
    folder.join(name)
}

/// The name that automerge-repo gives to a snapshot.
fn node_name(document: &mut AutoCommit) -> String {
    let heads: String = document.get_heads().iter().map(ToString::to_string).collect();
    hash(heads.as_bytes())
}

fn samod_name(document: &mut AutoCommit) -> String {
    let heads: Vec<u8> = document.get_heads().iter().flat_map(|head| head.0).collect();
    hash(&heads)
}

/// Runs a command that reports in JSON.
fn report(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(folder, &[arguments, &["--json"]].concat());
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}{}", stdout(&output), stderr(&output))))
}

fn doctor(folder: &Path, data: &str) -> Value {
    let (code, found) = report(folder, &["doctor", "--data-dir", data, "--deep"]);
    assert_eq!(code, Some(0), "{found}");
    found
}

fn load(path: &Path) -> AutoCommit {
    AutoCommit::load(&fs::read(path).unwrap()).unwrap()
}

fn same(left: &mut AutoCommit, right: &mut AutoCommit) -> bool {
    left.get_heads() == right.get_heads() && left.hydrate(ROOT, None) == right.hydrate(ROOT, None)
}

/// The files below a folder, without what is a new id every time.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if !entry.ends_with("orage-adapter-id") {
                let name = entry.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(&entry).unwrap());
            }
        }
    }
    found
}

/// A folder as the Node server leaves it: a snapshot with changes since, a document of changes alone, and what is no document.
fn node_folder(base: &Path) -> [AutoCommit; 2] {
    let mut first = document(1, 20);
    put(base, id(1), "snapshot", &node_name(&mut first), &first.save());
    let since = first.get_heads();
    edit(&mut first, 20..25);
    let more = first.save_after(&since);
    put(base, id(1), "incremental", &hash(&more), &more);
    let mut second = document(2, 9);
    for chunk in chunks(&mut second) {
        put(base, id(2), "incremental", &hash(&chunk), &chunk);
    }
    put(base, id(2), "sync-state", "7b6cd19e-2c33-4c0c-9a5d-d8c9c9bd7d6f", &[0x43, 0]);
    fs::create_dir_all(base.join("st")).unwrap();
    fs::write(base.join("st/orage-adapter-id"), "an id").unwrap();
    fs::write(base.join("notes.txt"), "mine").unwrap();
    [first, second]
}

#[test]
fn a_node_folder_goes_in_and_comes_out_again() {
    let folder = tempdir().unwrap();
    let mut documents = node_folder(&folder.path().join("node"));
    let before = files(&folder.path().join("node"));
    let (code, found) = report(folder.path(), &["import", "node", "--data-dir", "data"]);
    assert_eq!(code, Some(0), "{found}");
    assert_eq!((&found["new"], &found["changes"], &found["files"]), (&2.into(), &34.into(), &11.into()));
    assert_eq!((&found["sync_states_dropped"], &found["odd_names"]), (&1.into(), &Value::Array(vec![])));
    assert_eq!(found["ignored"][0], "node/notes.txt");
    assert_eq!(files(&folder.path().join("node")), before, "the folder stays as it is");
    assert_eq!(doctor(folder.path(), "data")["changes"], 34);

    let (code, found) = report(folder.path(), &["export", "--data-dir", "data", "--to", "saved"]);
    assert_eq!((code, &found["written"]), (Some(0), &2.into()), "{found}");
    for (number, document) in documents.iter_mut().enumerate() {
        let path = folder.path().join(format!("saved/{}.automerge", id(number as u8 + 1)));
        assert!(same(&mut load(&path), document));
    }
    let nodefs = ["export", "--data-dir", "data", "--to", "back", "--format", "nodefs"];
    assert_eq!(report(folder.path(), &nodefs).0, Some(0));
    assert_eq!(fs::read_to_string(folder.path().join("back/st/orage-adapter-id")).unwrap().len(), 36);
    let written = files(&folder.path().join("back"));
    assert_eq!(written.len(), 2, "{:?}", written.keys());
    for (name, bytes) in &written {
        let mut document = AutoCommit::load(bytes).unwrap();
        assert!(name.ends_with(&format!("snapshot/{}", node_name(&mut document))), "{name}");
    }

    // What came out goes in elsewhere, and is the same.
    let (code, found) = report(folder.path(), &["import", "back", "--data-dir", "again"]);
    assert_eq!((code, &found["changes"]), (Some(0), &34.into()), "{found}");
    let again = ["export", "--data-dir", "again", "--to", "twice", "--format", "nodefs"];
    assert_eq!(report(folder.path(), &again).0, Some(0));
    assert_eq!(files(&folder.path().join("twice")), written);
}

#[test]
fn what_is_there_is_neither_imported_nor_exported_again() {
    let folder = tempdir().unwrap();
    let [_, mut second] = node_folder(&folder.path().join("node"));
    let import = ["import", "node", "--data-dir", "data"];
    let export = ["export", "--data-dir", "data", "--to", "saved"];
    assert_eq!(report(folder.path(), &import).0, Some(0));
    assert_eq!(report(folder.path(), &export).0, Some(0));
    let (code, found) = report(folder.path(), &import);
    assert_eq!(code, Some(0));
    assert_eq!((&found["unchanged"], &found["changes"]), (&2.into(), &0.into()));
    let (code, found) = report(folder.path(), &export);
    assert_eq!((code, &found["written"], &found["unchanged"]), (Some(0), &0.into(), &2.into()));

    // A change more on the other side is one more here.
    edit(&mut second, 9..10);
    let chunk = chunks(&mut second).pop().unwrap();
    put(&folder.path().join("node"), id(2), "incremental", &hash(&chunk), &chunk);
    let (_, found) = report(folder.path(), &import);
    assert_eq!((&found["extended"], &found["changes"]), (&1.into(), &1.into()));
    let (code, found) = report(folder.path(), &export);
    assert_eq!(code, Some(1));
    assert!(found["failed"][0]["reason"].as_str().unwrap().contains("--overwrite"), "{found}");
    let (code, found) = report(folder.path(), &[&export[..], &["--overwrite"]].concat());
    assert_eq!((code, &found["written"]), (Some(0), &1.into()));
    assert!(same(&mut load(&folder.path().join(format!("saved/{}.automerge", id(2)))), &mut second));
    assert_eq!(doctor(folder.path(), "data")["changes"], 35);
}

#[test]
fn damaged_files_are_refused_by_name_and_the_rest_goes_in() {
    let folder = tempdir().unwrap();
    let base = folder.path().join("node");
    node_folder(&base);
    let mut third = document(3, 30);
    let mut torn = third.save();
    torn.truncate(torn.len() / 2);
    let torn = put(&base, id(3), "snapshot", &node_name(&mut third), &torn);
    let (mut flipped, name) = (third.save(), "flipped");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let flipped = put(&base, id(4), "snapshot", name, &flipped);
    let empty = put(&base, id(4), "incremental", &hash(b"x"), b"");
    let mut whole = chunks(&mut third);
    let whole = put(&base, id(4), "incremental", "whole", &whole.remove(0));

    let (code, found) = report(folder.path(), &["import", "node", "--data-dir", "data"]);
    assert_eq!(code, Some(1), "{found}");
    let refused: Vec<_> = found["refused_files"].as_array().unwrap().iter().map(|one| &one["file"]).collect();
    for path in [&torn, &flipped, &empty] {
        let name = path.strip_prefix(folder.path()).unwrap().display().to_string();
        assert!(refused.contains(&&Value::from(name.clone())), "{name} in {refused:?}");
    }
    assert_eq!(refused.len(), 3);
    assert!(whole.exists());
    assert_eq!((&found["documents"], &found["changes"]), (&3.into(), &35.into()), "{found}");
    let output = run(folder.path(), &["import", "node", "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(1), "refused again");
    assert!(stdout(&output).contains("REFUSED"), "{}", stdout(&output));
    assert_eq!(doctor(folder.path(), "data")["changes"], 35);
}

#[test]
fn a_file_that_was_cut_between_changes_is_taken_and_named() {
    let folder = tempdir().unwrap();
    let base = folder.path().join("node");
    let all = chunks(&mut document(1, 3));
    let name = hash(&all.concat());
    put(&base, id(1), "incremental", &name, &all[..2].concat());
    let (code, found) = report(folder.path(), &["import", "node", "--data-dir", "data"]);
    assert_eq!((code, &found["changes"]), (Some(0), &2.into()));
    assert!(found["odd_names"][0].as_str().unwrap().ends_with(&name), "{found}");
}

#[test]
fn a_samod_folder_goes_in_and_its_names_are_no_surprise() {
    let folder = tempdir().unwrap();
    let base = folder.path().join("samod");
    let mut first = document(1, 5);
    put(&base, id(1), "snapshot", &samod_name(&mut first), &first.save());
    let since = first.get_heads();
    edit(&mut first, 5..8);
    for change in first.get_changes(&since) {
        put(&base, id(1), "incremental", &change.hash().to_string(), change.raw_bytes());
    }
    for format in ["auto", "samod"] {
        let data = format!("data-{format}");
        let (code, found) =
            report(folder.path(), &["import", "samod", "--data-dir", &data, "--format", format]);
        assert_eq!((code, &found["changes"]), (Some(0), &8.into()), "{found}");
        assert_eq!(found["odd_names"], Value::Array(vec![]));
    }
}

#[test]
fn changes_that_lack_others_wait_until_those_come() {
    let folder = tempdir().unwrap();
    let base = folder.path().join("node");
    let all = chunks(&mut document(1, 6));
    for chunk in all.iter().filter(|chunk| **chunk != all[2]) {
        put(&base, id(1), "incremental", &hash(chunk), chunk);
    }
    let import = ["import", "node", "--data-dir", "data"];
    let (code, found) = report(folder.path(), &import);
    assert_eq!((code, &found["changes"], &found["orphans"]), (Some(0), &2.into(), &3.into()));
    put(&base, id(1), "incremental", &hash(&all[2]), &all[2]);
    let (code, found) = report(folder.path(), &import);
    assert_eq!((code, &found["changes"], &found["orphans"]), (Some(0), &4.into(), &0.into()));
}

#[test]
fn a_change_that_a_server_would_refuse_is_refused_and_named() {
    let folder = tempdir().unwrap();
    let base = folder.path().join("node");
    let mut good = document(1, 5);
    let last = good.get_changes(&[]).pop().unwrap();
    let mut poison = last.decode();
    poison.actor_id = ActorId::from([9]);
    (poison.seq, poison.deps, poison.start_op) = (1, vec![last.hash()], 2.try_into().unwrap());
    let poison = automerge::Change::from(poison);
    put(&base, id(1), "snapshot", &node_name(&mut good), &good.save());
    put(&base, id(1), "incremental", &hash(poison.raw_bytes()), poison.raw_bytes());
    let (code, found) = report(folder.path(), &["import", "node", "--data-dir", "data"]);
    assert_eq!((code, &found["changes"]), (Some(1), &5.into()), "{found}");
    assert_eq!(found["refused_changes"][0]["change"], poison.hash().to_string());
    assert!(found["refused_changes"][0]["reason"].as_str().unwrap().contains("operations start at 2"));
    let found = doctor(folder.path(), "data");
    assert_eq!((&found["changes"], &found["quarantined"]), (&5.into(), &1.into()));
    let (code, found) = report(folder.path(), &["export", "--data-dir", "data", "--to", "saved"]);
    assert_eq!((code, &found["quarantined"]), (Some(0), &1.into()));
}

#[test]
fn saved_files_keep_the_id_in_their_name_or_get_one_that_stays() {
    let folder = tempdir().unwrap();
    let saved = folder.path().join("saved");
    fs::create_dir(&saved).unwrap();
    fs::write(saved.join(format!("{}.automerge", id(7))), document(1, 3).save()).unwrap();
    fs::write(saved.join("notes.automerge"), document(2, 4).save()).unwrap();
    fs::write(saved.join("broken.automerge"), "not a document").unwrap();
    fs::write(saved.join("readme.md"), "about these").unwrap();
    let import = ["import", "saved", "--data-dir", "data"];
    let (code, found) = report(folder.path(), &import);
    assert_eq!((code, &found["documents"], &found["changes"]), (Some(1), &2.into(), &7.into()), "{found}");
    assert_eq!(found["refused_files"][0]["file"], "saved/broken.automerge");
    assert_eq!(found["ignored"][0], "saved/readme.md");
    assert_eq!(found["given_ids"][0]["file"], "saved/notes.automerge");
    let given = found["given_ids"][0]["document"].clone();
    assert!(given.as_str().unwrap().parse::<DocumentId>().is_ok());

    // Again, with a copy of the one and a longer version of the other beside them: the same two documents.
    fs::copy(saved.join("notes.automerge"), saved.join("copy.automerge")).unwrap();
    fs::write(saved.join(format!("automerge:{}.automerge", id(7))), document(1, 5).save()).unwrap();
    let (_, found) = report(folder.path(), &import);
    assert_eq!((&found["documents"], &found["changes"]), (&2.into(), &2.into()), "{found}");
    for named in found["given_ids"].as_array().unwrap() {
        assert_eq!(named["document"], given);
    }
    // A file by itself is found too, and goes elsewhere under an id of its own.
    let (code, found) =
        report(folder.path(), &["import", "saved/notes.automerge", "--data-dir", "elsewhere"]);
    assert_eq!(code, Some(0));
    assert_ne!(found["given_ids"][0]["document"], given, "ids are random");
}

#[test]
fn a_long_document_is_compacted_and_can_be_exported_while_a_server_runs() {
    let folder = tempdir().unwrap();
    let mut long = document(1, 2_500);
    fs::write(folder.path().join(format!("{}.automerge", id(1))), long.save()).unwrap();
    let file = format!("{}.automerge", id(1));
    let (code, found) = report(folder.path(), &["import", &file, "--data-dir", "data"]);
    assert_eq!((code, &found["changes"], &found["compacted"]), (Some(0), &2_500.into(), &1.into()));
    assert_eq!(doctor(folder.path(), "data")["compacted"], 1);

    let _server = Server::start(folder.path());
    let output = run(folder.path(), &["import", &file, "--data-dir", "data"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Stop the server"), "{}", stderr(&output));

    let url = format!("automerge:{}", id(1));
    let export = ["export", &url, &id(9).to_string(), "--data-dir", "data", "--to", "saved"];
    let (code, found) = report(folder.path(), &export);
    assert_eq!((code, &found["written"]), (Some(1), &1.into()));
    assert_eq!(found["failed"][0]["document"], id(9).to_string());
    assert!(same(&mut load(&folder.path().join("saved").join(file)), &mut long));
}

#[test]
fn a_damaged_document_is_named_and_the_rest_exported() {
    let folder = tempdir().unwrap();
    node_folder(&folder.path().join("node"));
    let mut third = AutoCommit::new();
    third.put(ROOT, "key", "easy to find").unwrap();
    put(&folder.path().join("node"), id(3), "snapshot", "any name", &third.save());
    assert_eq!(report(folder.path(), &["import", "node", "--data-dir", "data"]).0, Some(0));
    damage(&folder.path().join("data/highwater.db"), "easy to find");
    let (code, found) = report(folder.path(), &["export", "--data-dir", "data", "--to", "saved"]);
    assert_eq!((code, &found["written"]), (Some(1), &2.into()), "{found}");
    assert_eq!(found["failed"][0]["document"], id(3).to_string());
    assert!(found["failed"][0]["reason"].as_str().unwrap().contains("checksum"), "{found}");
}

#[test]
fn what_is_no_source_is_said_and_nothing_is_made() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    for from in ["missing", "empty"] {
        let output = run(folder.path(), &["import", from, "--data-dir", "data"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(from), "{}", stderr(&output));
    }
    assert!(!folder.path().join("data").exists());
}

/// How many changes are stored of a document, or none if that cannot be seen yet.
fn stored(data: &Path, id: DocumentId) -> usize {
    let look = || SqliteStore::open_read_only(data).ok()?.document(id).ok()?;
    look().map_or(0, |document| document.stored.changes.len())
}

#[test]
fn an_import_that_was_killed_is_finished_by_the_next() {
    const CHANGES: usize = 30_000;
    let folder = tempdir().unwrap();
    let base = folder.path().join("node");
    let mut small = node_folder(&base);
    let mut large = document(5, CHANGES);
    put(&base, id(5), "snapshot", &node_name(&mut large), &large.save());
    let data = folder.path().join("data");
    let import = ["import", "node", "--data-dir", "data"];
    let mut child = highwater(folder.path()).args(import).spawn().unwrap();
    // Looked at again and again, as there is nobody who would say when.
    let seen = loop {
        let seen = stored(&data, id(5));
        if seen > 0 || child.try_wait().unwrap().is_some() {
            break seen;
        }
        std::thread::yield_now();
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = stored(&data, id(5));
    assert!(kept >= seen && seen > 0, "it ended before it could be killed");
    assert!(kept < CHANGES, "it was killed too late to test anything");
    assert_eq!(kept % 1_000, 0, "slices are there as a whole or not at all");

    let (code, found) = report(folder.path(), &import);
    assert_eq!(code, Some(0), "{found}");
    let found = doctor(folder.path(), "data");
    assert_eq!((&found["changes"], &found["orphans"]), (&(CHANGES + 34).into(), &0.into()));
    assert_eq!(report(folder.path(), &["export", "--data-dir", "data", "--to", "saved"]).0, Some(0));
    let exported = |id: DocumentId| load(&folder.path().join(format!("saved/{id}.automerge")));
    assert!(same(&mut exported(id(5)), &mut large));
    assert!(same(&mut exported(id(1)), &mut small[0]));
}

#[test]
fn a_deleted_document_is_counted_neither_exported_nor_imported_and_stays_deleted_in_copies() {
    let folder = tempdir().unwrap();
    for n in 1..=2 {
        fs::write(folder.path().join(format!("{}.automerge", id(n))), document(n, 3).save()).unwrap();
    }
    let files = [format!("{}.automerge", id(1)), format!("{}.automerge", id(2))];
    report(folder.path(), &["import", &files[0], &files[1], "--data-dir", "data"]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = SqliteStore::open(&folder.path().join("data")).unwrap();
    runtime.block_on(store.append(id(1), vec![Record::Tombstone])).unwrap();
    runtime.block_on(store.close()).unwrap();

    let (code, found) = report(folder.path(), &["export", "--data-dir", "data", "--to", "saved"]);
    assert_eq!((code, &found["written"]), (Some(0), &1.into()));
    assert!(!folder.path().join("saved").join(&files[0]).exists());
    let (code, found) =
        report(folder.path(), &["export", &id(1).to_string(), "--data-dir", "data", "--to", "saved"]);
    assert_eq!((code, &found["failed"][0]["reason"]), (Some(1), &"it was deleted".into()));
    let (code, found) = report(folder.path(), &["import", &files[0], "--data-dir", "data"]);
    assert_eq!(code, Some(1), "{found}");
    assert!(found["failed"][0].as_str().unwrap().contains("deleted"), "{found}");

    let repaired = run(folder.path(), &["repair", "--data-dir", "data", "--to", "repaired"]);
    assert!(repaired.status.success(), "{}", stderr(&repaired));
    let backup = run(folder.path(), &["backup", "--data-dir", "data", "--to", "file.backup"]);
    assert!(backup.status.success(), "{}", stderr(&backup));
    let restored = run(folder.path(), &["restore", "--from", "file.backup", "--data-dir", "restored"]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    for copy in ["data", "repaired", "restored"] {
        let found = doctor(folder.path(), copy);
        assert_eq!(
            (&found["documents"], &found["deleted"], &found["ok"]),
            (&2.into(), &1.into(), &true.into()),
            "{copy}"
        );
    }
}
